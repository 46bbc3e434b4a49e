use std::time::{Duration, Instant};

use chain::{Board, FoundResult};
use executor_protocol::Status;
use serde_json::json;
use task::TaskId;

use super::{Error, Output, board, content, request, result};
use crate::config::{Config, value};

/// Tasks in one transaction.
const BATCH: usize = 100;
/// Pause between two looks for a result.
const PAUSE: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Signs with COORDINATOR_CLIENT_KEY. Prints the task's id; --wait tells the result on stderr (with --json it is on stdout) and ends well only if it is ok.
The rejection of a free task is not published: a wait for it ends after --wait-limit.

Examples:
  coordinator submit host/wasm/fib.wasm --entry fib --args '[12]' --wait
  coordinator submit host/wasm/wordcount.wasm --input README.md --timeout 10s
  coordinator submit QmModule --input QmInput --fee 1000000000 --deadline 10m")]
pub(super) struct Arguments {
    #[command(flatten)]
    request: request::Arguments,
    /// How many tasks of this kind to submit
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// Wait for the results; fails unless every task ended well
    #[arg(long)]
    wait: bool,
    /// The longest wait for one result
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = wait_limit)]
    wait_limit: Duration,
}

fn wait_limit(text: &str) -> Result<Duration, String> {
    value::duration(text).ok_or_else(|| format!("allowed: {}", value::DURATION))
}

pub(super) async fn submit(
    config: &Config,
    arguments: &Arguments,
    output: Output,
) -> Result<(), Error> {
    let key = board::client_key(&config.chain)?;
    let store = content::open(config).await?;
    let prepared = arguments.request.prepare(&store, output).await?;
    let board = board::open(&config.chain).await?;
    let submission = arguments.request.submission(&prepared);
    let mut left = arguments.count as usize;
    let mut ids = Vec::new();
    let mut first_block = None;
    while left > 0 {
        let accepted = {
            let _progress = output.progress("submitting: waiting for the transaction");
            let batch = vec![submission.clone(); left.min(BATCH)];
            board.submit(key, &batch).await?
        };
        left = left.saturating_sub(accepted.ids.len().max(1));
        first_block.get_or_insert(accepted.receipt.block.number);
        for id in accepted.ids {
            if !arguments.wait {
                let value = json!({
                    "id": id,
                    "transaction": accepted.receipt.transaction,
                    "block": accepted.receipt.block,
                    "module": prepared.module,
                    "input": prepared.input,
                });
                output.data(&id.to_string(), &value);
            } else if !output.is_json() {
                output.data(&id.to_string(), &json!(null));
            }
            ids.push(id);
        }
    }
    if !arguments.wait {
        return Ok(());
    }
    let mut failed = Vec::new();
    for id in ids {
        let found = {
            let progress = output.progress(&format!("waiting for the result of task {id}"));
            let until_at = Instant::now() + arguments.wait_limit;
            wait(&board, id, first_block, until_at).await.inspect_err(|_| drop(progress))?
        };
        let document = result::document(&store, &found).await?;
        let value = result::describe(id, &found, &document)?;
        // The id is what scripts take; with JSON the line has both.
        if output.is_json() {
            output.data(&document, &value);
        } else {
            output.say(&format!("task {id}: {document}"));
        }
        if found.status != Status::Ok {
            failed.push(format!("task {id} {}", found.status));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::No(failed.join(", "))) }
}

/// Waits for a task's published result.
pub(super) async fn wait(
    board: &Board,
    id: TaskId,
    from_block: Option<u64>,
    until_at: Instant,
) -> Result<FoundResult, Error> {
    loop {
        match board.find_result(id, from_block).await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {
                // What is published under a free task's id need not be its result.
                if id.is_kept() && board.is_closed(id).await? {
                    // Closed without a result, unless one came between the two questions.
                    return board.find_result(id, from_block).await?.ok_or_else(|| {
                        Error::No(format!("task {id} was closed without a result: it expired"))
                    });
                }
            }
            Err(error) if error.retry() => tracing::warn!(%error, "cannot look for the result yet"),
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= until_at {
            return Err(Error::No(format!("task {id} has no result yet; the wait is over")));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
