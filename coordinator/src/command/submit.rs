use std::time::{Duration, Instant};

use chain::{Board, FoundResult};
use executor_protocol::Status;
use serde_json::{Value, json};
use task::{Hash, TaskId};

use super::{
    Error, Output, board, content,
    remote::{self, Remote},
    request, result,
};
use crate::{
    admission,
    config::{Config, value},
    serve,
    work::Refused,
};

/// Tasks in one transaction.
const BATCH: usize = 100;
/// Pause between two looks for a result.
const PAUSE: Duration = Duration::from_millis(300);
/// Pause after a coordinator could not be asked.
const ASK_AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Signs with COORDINATOR_CLIENT_KEY. Prints the task's id; --wait tells the result on stderr (with --json it is on stdout) and ends well only if it is ok.
What any coordinator would refuse is refused here, before anything is sent. While it waits it also asks the coordinator at --api, if there is one: a rejection is told at once, with its code.

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
    let submission = arguments.request.submission(&prepared);
    let board = board::open(&config.chain).await?;
    check(config, &board, &submission).await?;
    board.check().await?;
    let mut left = arguments.count as usize;
    // Ids that were told to nobody yet are told in any case.
    let mut open =
        Open { output, is_silent: arguments.wait && output.is_json(), tasks: Vec::new() };
    let mut first_block = None;
    while left > 0 {
        let accepted = {
            let _progress = output.progress("submitting: waiting for the transaction");
            let batch = vec![submission.clone(); left.min(BATCH)];
            board.submit(key, &batch).await?
        };
        left = left.saturating_sub(accepted.ids.len());
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
            open.tasks.push((id, accepted.receipt.transaction));
        }
    }
    if !arguments.wait {
        return Ok(());
    }
    let remote = Remote::new(&config.api, &config.server.tokens)?;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut failed = Vec::new();
    while let Some((id, transaction)) = open.tasks.first().copied() {
        let waited = {
            let _progress = output.progress(&format!("waiting for the result of task {id}"));
            let until_at = Instant::now() + arguments.wait_limit;
            let submitted = (id, transaction);
            tokio::select! {
                waited = wait(&board, submitted, first_block, until_at, Some(&remote)) => waited?,
                _ = &mut interrupted => return Err(Error::Interrupted),
            }
        };
        let found = match waited {
            Waited::Published(found) => *found,
            Waited::Rejected { code, message, document } => {
                open.tasks.remove(0);
                let value = json!({
                    "id": id,
                    "transaction": transaction,
                    "status": Status::Rejected,
                    "code": code,
                    "message": message,
                    "document_text": document,
                    "source": "api",
                });
                if output.is_json() {
                    output.data("", &value);
                } else {
                    output.say(&format!("task {id}: rejected ({code}): {message}"));
                }
                failed.push(format!("task {id} rejected ({code})"));
                continue;
            }
        };
        let document = result::document(&store, &found).await?;
        let value = result::describe(id, &found, &document)?;
        open.tasks.remove(0);
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

/// Tasks whose result was not told yet. When waiting ends early, their ids are told at least.
struct Open {
    output: Output,
    is_silent: bool,
    tasks: Vec<(TaskId, Hash)>,
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.is_silent {
            return;
        }
        for (id, transaction) in &self.tasks {
            self.output.data("", &json!({"id": id, "transaction": transaction, "status": null}));
        }
    }
}

/// Refuses what any coordinator would refuse: the same code reads and checks it there.
async fn check(
    config: &Config,
    board: &Board,
    submission: &task_board::Submission,
) -> Result<(), Error> {
    let request = chain::read_back(submission)?.map_err(|malformed| Refused::from(&malformed))?;
    admission::check(&request, &serve::limits(config))?;
    if admission::has_passed(request.deadline_at, store::now_ms()) {
        return Err(Error::Refused(Refused {
            rejection: executor_protocol::Rejection::DeadlinePassed,
            message: "the deadline has passed already".to_owned(),
        }));
    }
    if request.callback_gas != 0 {
        let id = TaskId::new(submission.domain, true, 1);
        let quote = board.quote(id, None, request.callback_gas).await?;
        admission::pays_for_callback(&request, quote.gas_price_wei)?;
    }
    Ok(())
}

/// Waits for a task's published result, asking the chain alone.
pub(super) async fn wait_on_chain(
    board: &Board,
    id: TaskId,
    until_at: Instant,
) -> Result<FoundResult, Error> {
    match wait(board, (id, task::Hex([0; 32])), None, until_at, None).await? {
        Waited::Published(found) => Ok(*found),
        Waited::Rejected { code, .. } => Err(Error::No(format!("task {id} was rejected ({code})"))),
    }
}

/// What a wait came to.
enum Waited {
    /// A result stands on chain.
    Published(Box<FoundResult>),
    /// The coordinator says that it was rejected.
    Rejected {
        /// The rejection's code.
        code: String,
        /// Why, for people.
        message: String,
        /// The document.
        document: Option<String>,
    },
}

/// Waits for a task's published result; a coordinator that can be asked tells of its rejection earlier.
async fn wait(
    board: &Board,
    (id, transaction): (TaskId, Hash),
    from_block: Option<u64>,
    until_at: Instant,
    remote: Option<&Remote>,
) -> Result<Waited, Error> {
    let mut ask_at = Instant::now();
    loop {
        match board.find_result(id, from_block).await {
            Ok(Some(found)) => return Ok(Waited::Published(Box::new(found))),
            Ok(None) => {
                // What is published under a free task's id need not be its result.
                if id.is_kept() && board.is_closed(id).await? {
                    // Closed without a result, unless one came between the two questions.
                    let found = board.find_result(id, from_block).await?.ok_or_else(|| {
                        Error::No(format!("task {id} was closed without a result: it expired"))
                    });
                    return found.map(|found| Waited::Published(Box::new(found)));
                }
            }
            Err(error) if error.retry() => tracing::warn!(%error, "cannot look for the result yet"),
            Err(error) => return Err(error.into()),
        }
        if let Some(remote) = remote.filter(|_| ask_at <= Instant::now()) {
            match remote.task(&id.to_string()).await {
                Ok(answer) => {
                    if let Some(waited) = told(&answer.value, id, transaction)? {
                        return Ok(waited);
                    }
                }
                // Nobody is there, or it is not its task: the chain alone tells.
                Err(_) => ask_at = Instant::now() + ASK_AGAIN,
            }
        }
        if Instant::now() >= until_at {
            return Err(Error::No(format!("task {id} has no result yet; the wait is over")));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What a coordinator's answer says of the end of a task that will have no result on chain; none while it may have one,
/// and of another task.
fn told(task: &Value, id: TaskId, transaction: Hash) -> Result<Option<Waited>, Error> {
    let word = |pointer| remote::text(task, pointer);
    if word("/transaction") != Some(transaction.to_string().as_str()) {
        return Ok(None);
    }
    let rejected = word("/outcome/status") == Some(Status::Rejected.name());
    match word("/state") {
        // One with a fee is published: the chain tells, and says that the fee is back.
        Some("finished" | "final") if rejected => {
            let record = |name| word(name).map(str::to_owned);
            Ok(Some(Waited::Rejected {
                code: record("/outcome/code").unwrap_or_default(),
                message: record("/result/record/message").unwrap_or_default(),
                document: record("/result/document_text"),
            }))
        }
        Some("cancelled") => {
            let reason = task.get("cancelled").map(Value::to_string).unwrap_or_default();
            Err(Error::No(format!("task {id} was cancelled: {reason}")))
        }
        _ => Ok(None),
    }
}
