//! What an operator does about the chain.

use serde_json::{Value, json};

use super::{Error, Output, remote::Remote};
use crate::config::Config;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  coordinator chain accept")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Accept the chain as it is now, after it took back what had been final
    #[command(after_help = "\
After a reorganisation deeper than the confirmations nothing is published: /readyz says
finality_violated. Look first: is this the chain that everybody has, and is the endpoint to be trusted?
This says that it is. Results whose submissions are gone stay unpublished; those that stand are
published again. Where the branches part below everything that is remembered, the contract is read anew.

Example:
  coordinator chain accept --api http://127.0.0.1:8480")]
    Accept,
}

pub(super) async fn chain(
    config: &Config,
    arguments: &Arguments,
    output: Output,
) -> Result<(), Error> {
    let Command::Accept = arguments.command;
    let remote = Remote::new(&config.api, &config.server.tokens)?;
    let answer = remote.post("/api/v1/chain/accept", &json!({})).await?;
    let accepted = answer.value.get("accepted").and_then(Value::as_u64).unwrap_or(0);
    let text = match accepted {
        0 => "there was nothing to accept: nothing that was final has been taken back",
        _ => "accepted: what stands on the chain is published from now on",
    };
    output.data(text, &answer.text);
    Ok(())
}
