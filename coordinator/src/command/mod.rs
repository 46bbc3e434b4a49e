//! The command line: data to stdout, talk to stderr, exit code 0 only when what was asked for happened.

mod board;
mod chain;
mod cid;
mod content;
mod demo;
mod deploy;
mod earnings;
mod error;
mod logs;
mod output;
mod remote;
mod request;
mod result;
mod run;
mod status;
mod submit;
mod verify;
mod watch;

use std::{ffi::OsString, process::ExitCode};

use clap::{Arg, ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
pub use error::Error;
use output::Output;

use crate::{
    config::{
        Config, Needs,
        setting::{SETTINGS, Setting},
    },
    serve, telemetry,
};

const EXAMPLES: &str = "\
Examples:
  coordinator demo                                    see everything work, on a chain of its own
  coordinator run host/wasm/fib.wasm --entry fib --args '[12]'
  coordinator deploy                                  put a TaskBoard on the chain of COORDINATOR_RPC_URL
  coordinator serve                                   work on its tasks
  coordinator submit host/wasm/fib.wasm --entry fib --args '[12]' --wait
  coordinator verify 1                                run a task again and compare

Every setting is a flag (--ipfs-mirror), a variable (COORDINATOR_IPFS_MIRROR) and a key of the file
that --config names (ipfs_mirror); a flag wins over the variable, the variable over the file.
Secrets come from variables and files alone: COORDINATOR_KEY, COORDINATOR_CLIENT_KEY, each also with
_FILE, and COORDINATOR_API_TOKEN_FILE.

Exit codes: 0 what was asked for happened; 1 it could not be done; 2 the command line or the
configuration cannot be used; 3 it was done and the answer is no (a task failed, a result differs).";

const SERVE_EXAMPLES: &str = "\
Without COORDINATOR_RPC_URL the sample tasks of the mirror are run, and nothing is published; without
COORDINATOR_KEY tasks of the chain are run, and nothing is published. A signal (SIGINT, SIGTERM) stops
it within seconds, a second one at once; what was begun goes on after the next start.

Examples:
  coordinator serve
  COORDINATOR_RPC_URL=http://127.0.0.1:8545 COORDINATOR_CONTRACT=0x… COORDINATOR_KEY_FILE=key coordinator";

/// Runs Wasm tasks of a smart contract, confined, and publishes verifiable results.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    /// What to do; nothing means serve.
    #[command(subcommand)]
    command: Option<Command>,
    /// Print JSON instead of text, errors too.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch the contract, run its tasks, publish their results (the default)
    #[command(after_help = SERVE_EXAMPLES)]
    Serve,
    /// Show everything on a chain of its own: samples, failures, a verified result
    Demo(demo::Arguments),
    /// Put a TaskBoard on the chain and print its address
    Deploy(deploy::Arguments),
    /// Submit a task to the contract and print its id
    Submit(submit::Arguments),
    /// Run a module here, as a task would be run, without a chain
    Run(run::Arguments),
    /// Show where a task stands
    Status(status::Arguments),
    /// Print what a task's guest wrote
    Logs(logs::Arguments),
    /// Print a task's published result document
    Result(result::Arguments),
    /// Run a published task again, from chain and content alone, and compare the results
    Verify(verify::Arguments),
    /// Ask to cancel a task
    Cancel(board::Cancel),
    /// Pay out a credit on the contract: the client's, or a running coordinator's earnings
    Withdraw(board::Withdraw),
    /// Show what a running coordinator has earned
    Earnings(earnings::Arguments),
    /// Print the CID that a file gets when it is added
    Cid(cid::Arguments),
    /// Print tasks of a running coordinator as they change
    Watch(watch::Arguments),
    /// Decide what a running coordinator does about its chain
    Chain(chain::Arguments),
}

/// A command line that could be read.
#[derive(Debug)]
pub struct Invocation {
    command: Command,
    json: bool,
    flags: Vec<(String, String)>,
}

/// Reads a command line. One that cannot be read, and one that asks for help, ends the process here.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Invocation {
    let matches = grammar().get_matches_from(arguments);
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => Invocation {
            command: cli.command.unwrap_or(Command::Serve),
            json: deepest(&matches).get_flag("json"),
            flags: flags(&matches),
        },
        Err(error) => error.exit(),
    }
}

/// Does what the command line says; talk and errors go to stderr.
pub async fn execute(invocation: Invocation) -> ExitCode {
    let output = Output::new(invocation.json);
    match dispatch(invocation, output).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

async fn dispatch(invocation: Invocation, output: Output) -> Result<(), Error> {
    let Invocation { command, flags, .. } = invocation;
    let mut needs = Needs::default();
    match &command {
        Command::Serve => needs.serves = true,
        Command::Deploy(_) => (needs.endpoint, needs.client_key) = (true, true),
        Command::Withdraw(arguments) if arguments.publisher => {}
        Command::Submit(_) | Command::Cancel(_) | Command::Withdraw(_) => {
            (needs.endpoint, needs.contract, needs.client_key) = (true, true, true);
        }
        Command::Result(_) | Command::Verify(_) => {
            (needs.endpoint, needs.contract) = (true, true);
        }
        Command::Demo(_)
        | Command::Run(_)
        | Command::Status(_)
        | Command::Logs(_)
        | Command::Cid(_)
        | Command::Earnings(_)
        | Command::Watch(_)
        | Command::Chain(_) => {}
    }
    let mut config = Config::load(flags, needs)?;
    if !matches!(command, Command::Serve) && config.log.filter == "info" {
        // What a command does is told by the command itself.
        "warn".clone_into(&mut config.log.filter);
    }
    telemetry::start(&config.log)?;
    match command {
        Command::Serve => match serve::serve(&config).await? {
            true => Ok(()),
            false => Err(serve::Error::Part.into()),
        },
        Command::Demo(arguments) => demo::demo(&config, &arguments, output).await,
        Command::Deploy(arguments) => deploy::deploy(&config, &arguments, output).await,
        Command::Submit(arguments) => submit::submit(&config, &arguments, output).await,
        Command::Run(arguments) => run::run(&config, &arguments, output).await,
        Command::Status(arguments) => status::status(&config, &arguments, output).await,
        Command::Logs(arguments) => logs::logs(&config, &arguments, output).await,
        Command::Result(arguments) => result::result(&config, &arguments, output).await,
        Command::Verify(arguments) => verify::verify(&config, &arguments, output).await,
        Command::Cancel(arguments) => board::cancel(&config, &arguments, output).await,
        Command::Withdraw(arguments) if arguments.publisher => {
            earnings::withdraw(&config, output).await
        }
        Command::Withdraw(arguments) => board::withdraw(&config, &arguments, output).await,
        Command::Earnings(arguments) => earnings::earnings(&config, &arguments, output).await,
        Command::Cid(arguments) => cid::cid(&arguments, output),
        Command::Watch(arguments) => watch::watch(&config, &arguments, output).await,
        Command::Chain(arguments) => chain::chain(&config, &arguments, output).await,
    }
}

/// The commands, with a flag for each setting that may have one.
fn grammar() -> clap::Command {
    let settings = SETTINGS.iter().filter(|setting| setting.sources.flag()).map(flag);
    Cli::command().args(settings)
}

fn flag(setting: &'static Setting) -> Arg {
    let help = format!(
        "{} [env: {}] [default: {}]",
        setting.help,
        setting.variable(),
        setting.preset_text()
    );
    Arg::new(setting.name)
        .long(setting.flag())
        .value_name(setting.value)
        .help(help)
        .help_heading(setting.group)
        .hide_short_help(true)
        .global(true)
        .num_args(1)
}

/// The matches of the innermost command: flags that every command takes end up there.
fn deepest(matches: &ArgMatches) -> &ArgMatches {
    let mut inner = matches;
    while let Some((_, next)) = inner.subcommand() {
        inner = next;
    }
    inner
}

fn flags(matches: &ArgMatches) -> Vec<(String, String)> {
    let inner = deepest(matches);
    SETTINGS
        .iter()
        .filter(|setting| setting.sources.flag())
        .filter_map(|setting| {
            let text = inner.get_one::<String>(setting.name)?;
            Some((setting.name.to_owned(), text.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_has_no_contradiction() {
        grammar().debug_assert();
    }

    #[test]
    fn flags_count_before_and_after_the_command() {
        for line in [
            ["coordinator", "--data-dir", "/x", "serve"],
            ["coordinator", "serve", "--data-dir", "/x"],
        ] {
            let matches = grammar().try_get_matches_from(line).unwrap();
            assert_eq!(flags(&matches), [("data_dir".to_owned(), "/x".to_owned())]);
        }
    }

    #[test]
    fn no_secret_has_a_flag() {
        for name in ["--key", "--client-key", "--key-file", "--client-key-file", "--api-token-file"]
        {
            assert!(grammar().try_get_matches_from(["coordinator", name, "x"]).is_err(), "{name}");
        }
    }

    #[test]
    fn every_command_shows_examples() {
        for command in grammar().get_subcommands() {
            let name = command.get_name();
            let inner: Vec<_> = command.get_subcommands().collect();
            let shown = match inner.as_slice() {
                [] => vec![command],
                inner => inner.to_vec(),
            };
            for command in shown.into_iter().filter(|command| command.get_name() != "help") {
                let shown = command.clone().render_long_help().to_string();
                assert!(shown.contains("Example"), "{name} has no example");
            }
        }
    }
}
