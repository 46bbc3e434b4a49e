use serde_json::Value;

use super::{
    Error, Output,
    remote::{Remote, text},
};
use crate::{config::Config, telemetry::plain};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Asks the coordinator at --api for the end of what the guest wrote to stdout and stderr. What could change a terminal
is escaped; a coordinator keeps it as long as the task.

Example:
  coordinator logs 17")]
pub(super) struct Arguments {
    /// The task's id on the contract, or local: and its number in the coordinator
    id: String,
}

pub(super) async fn logs(
    config: &Config,
    arguments: &Arguments,
    output: Output,
) -> Result<(), Error> {
    let remote = Remote::new(&config.api, &config.server.tokens)?;
    let log = remote.get(&format!("/api/v1/tasks/{}/log", arguments.id), &[]).await?;
    if output.is_json() {
        output.data("", &log.text);
        return Ok(());
    }
    let lines = log.value.get("lines").and_then(Value::as_array).cloned().unwrap_or_default();
    if lines.is_empty() {
        output.say(&format!("task {} wrote nothing, or did not end yet", arguments.id));
    }
    for line in lines.iter().filter_map(Value::as_str) {
        output.data(&shown(line), &Value::Null);
    }
    Ok(())
}

/// A guest's line with its stream in front; a line of the executor's own as it is.
fn shown(line: &str) -> String {
    let guest: Option<(String, String)> =
        serde_json::from_str::<Value>(line).ok().and_then(|line| {
            Some((text(&line, "/guest")?.to_owned(), text(&line, "/text")?.to_owned()))
        });
    match guest {
        Some((stream, text)) => format!("{stream}: {}", plain(text.trim_end_matches('\n'))),
        None => plain(line),
    }
}
