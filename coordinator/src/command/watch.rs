use std::{collections::HashMap, time::Duration};

use serde_json::Value;

use super::{
    Error, Output,
    remote::{Remote, text},
};
use crate::config::Config;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// How many of the newest tasks are looked at.
const NEWEST: u32 = 200;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Asks the coordinator at --api every second and prints a line for each of its newest tasks when it
has moved. Ends with Ctrl-C, or when the coordinator is gone.

Examples:
  coordinator watch
  coordinator watch --json | jq .state")]
pub(super) struct Arguments {
    /// Print where the tasks stand now, and end
    #[arg(long)]
    once: bool,
}

pub(super) async fn watch(
    config: &Config,
    arguments: &Arguments,
    output: Output,
) -> Result<(), Error> {
    let remote = Remote::new(&config.api, &config.server.tokens)?;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut known = HashMap::new();
    loop {
        look(&remote, &mut known, output).await?;
        if arguments.once {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = &mut interrupted => return Ok(()),
        }
    }
}

async fn look(
    remote: &Remote,
    known: &mut HashMap<i64, String>,
    output: Output,
) -> Result<(), Error> {
    let page = remote.get("/api/v1/tasks", &[("limit", NEWEST.to_string())]).await?;
    let tasks = page.value.get("tasks").and_then(Value::as_array).cloned().unwrap_or_default();
    for task in tasks.iter().rev() {
        let number = task.get("local_id").and_then(Value::as_i64).unwrap_or_default();
        let state = text(task, "/state").unwrap_or_default().to_owned();
        if known.get(&number) != Some(&state) {
            output.data(&line(task), task);
            known.insert(number, state);
        }
    }
    Ok(())
}

fn line(task: &Value) -> String {
    let number = task.get("local_id").unwrap_or(&Value::Null);
    let words = ["/id", "/state", "/outcome/status"].map(|at| text(task, at).unwrap_or_default());
    format!("local:{number}  {}", words.join("  ")).trim_end().to_owned()
}
