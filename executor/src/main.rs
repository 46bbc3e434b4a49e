//! The command line of the executor.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use executor::artifact::Cache;
use executor::settings::{self, Settings};
use executor::{engine, execution, task};
use executor_protocol::CheckReport;

const EXAMPLES: &str = "\
Examples:
  WASM_PATH=fib.wasm ENTRY=fib ARGS_JSON='[12]' OUTPUT_PATH= executor
  WASM_PATH=module.wasm ADD_X=2 ADD_Y=3 OUTPUT_PATH=result.json executor run
  executor check module.wasm --json
  CACHE_DIR=cache executor compile module.wasm module.cwasm

Environment of run (and of check and compile, as far as it concerns them):
  WASM_PATH         the module                     /mnt/input/module.wasm
  ENTRY             the exported function          the input's \"entry\", else _start, else add with ADD_X and ADD_Y
  ARGS_JSON         its arguments, a JSON array    the input's \"args\"
  ADD_X, ADD_Y      unsigned operands of the default add
  INPUT_PATH        the input; a command's stdin   /mnt/input/input.json, if it exists
  OUTPUT_PATH       where the result goes          /mnt/shared/result.json; empty: nowhere; *.txt: the value as text
  RECORD_PATH       where measurements go          nowhere
  TERMINATION_PATH  the same in at most 4096 bytes nowhere
  CACHE_DIR         compiled modules and their key nowhere
  COMPILED_PATH     what compile wrote             nowhere
  MODULE_SHA256     what the module must be        anything
  TIMEOUT_SEC 30, MEMORY_MIB 256, FUEL 10000000000, TABLE_ELEMENTS 100000, STACK_BYTES 1048576,
  OUTPUT_BYTES 1048576, RESULT_BYTES 1048576, MODULE_BYTES 16777216, COMPILE_SEC 30, COMPILE_MIB 1024

stdout carries one line, the result document. Guest output goes to stderr, one JSON object per line.
The exit code of run is 0 when there is a result document, also that of a failure.";

/// Runs WebAssembly modules: the same bytes give the same result document everywhere.
#[derive(Debug, Parser)]
#[command(name = "executor", version, after_help = EXAMPLES)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the task that the environment describes (the default).
    #[command(after_help = EXAMPLES)]
    Run,
    /// Compiles a module to a sealed form that executors with the same CACHE_DIR load.
    Compile {
        /// The module.
        module: PathBuf,
        /// Where the compiled form goes.
        out: PathBuf,
    },
    /// Looks at a module: exit code 0 when it may run, 1 when it can never run.
    Check {
        /// The module.
        module: PathBuf,
        /// Prints the whole finding as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Names the engine.
    Version {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Starts confined children for a coordinator, which speaks on standard input (a socket).
    Launcher,
}

fn main() -> ExitCode {
    match dispatch(CommandLine::parse().command.unwrap_or(Command::Run)) {
        Ok(code) => code,
        Err(error) => {
            // Not `eprintln!`, which panics when nobody reads.
            let _ = writeln!(io::stderr(), "executor: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        })
        .collect();
    match command {
        Command::Run => {
            let settings = Settings::from_environment(&environment)?;
            let execution = task::run(&settings, Box::new(io::stderr()))?;
            task::deliver(&settings, &execution, &mut io::stdout())?;
        }
        Command::Compile { module, out } => compile(&environment, &module, &out)?,
        Command::Check { module, json } => {
            let limits = settings::limits(&environment)?;
            let bytes = read(&module)?;
            let report = execution::check_report(&bytes, &limits)?;
            let line = if json { serde_json::to_string(&report)? } else { verdict(&report) };
            writeln!(io::stdout(), "{line}").context("cannot write to stdout")?;
            if report.refusal.is_some() {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Version { json } => {
            let (name, version) = (engine::name(), engine::version());
            let line = if json {
                serde_json::json!({"engine": name, "engine_version": version}).to_string()
            } else {
                format!("{name} ({version})")
            };
            writeln!(io::stdout(), "{line}").context("cannot write to stdout")?;
        }
        Command::Launcher => executor::launcher::serve()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn verdict(report: &CheckReport) -> String {
    match &report.refusal {
        Some(refusal) => refusal.clone(),
        None if report.command => "ok: a WASI command".to_owned(),
        None => format!("ok: exports {}", report.exports.join(", ")),
    }
}

fn compile(
    environment: &BTreeMap<String, String>,
    module: &Path,
    out: &Path,
) -> anyhow::Result<()> {
    let settings = Settings::from_environment(environment)?;
    let Some(folder) = &settings.cache_dir else {
        bail!("CACHE_DIR is not set: its key seals what is compiled");
    };
    let cache = Cache::open(folder)?;
    let bytes = read(module)?;
    let engine = engine::build(settings.limits.stack_bytes)?;
    match execution::compile(&engine, &bytes, cache.key(), &settings.limits)? {
        Ok(sealed) => task::replace(out, &sealed)?,
        Err(refusal) => bail!("{}: {}", refusal.failure.code(), refusal.message),
    }
    Ok(())
}
