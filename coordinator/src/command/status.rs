use serde_json::{Value, json};
use task::TaskId;

use super::{Error, Output, board, remote, remote::Remote, result};
use crate::config::Config;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Asks the coordinator at --api; when there is none, or it does not know the task, the chain.

Examples:
  coordinator status 17
  coordinator status local:3 --api http://127.0.0.1:8480")]
pub(super) struct Arguments {
    /// The task's id on the contract, or local: and its number in the coordinator
    id: String,
}

pub(super) async fn status(
    config: &Config,
    arguments: &Arguments,
    output: Output,
) -> Result<(), Error> {
    let remote = Remote::new(&config.api, &config.server.tokens)?;
    let asked = remote.task(&arguments.id).await;
    let error = match asked {
        Ok(task) => {
            output.data(&text(&task.value), &task.text);
            return Ok(());
        }
        Err(error) => error,
    };
    let falls_back = match &error {
        Error::Unreachable { .. } => true,
        Error::Api { code, .. } => code == "no_such_task",
        _ => false,
    };
    let has_chain = !config.chain.endpoints.is_empty() && config.chain.contract.is_some();
    match arguments.id.parse() {
        Ok(id) if falls_back && has_chain => {
            output.say(&format!("{error}; asking the chain"));
            let task = on_chain(config, id).await?;
            output.data(&text(&task), &task);
            Ok(())
        }
        _ => Err(error),
    }
}

/// What the chain alone knows.
async fn on_chain(config: &Config, id: TaskId) -> Result<Value, Error> {
    let board = board::open(&config.chain).await?;
    let found = board
        .find_submission(id, config.chain.from_block)
        .await?
        .ok_or_else(|| result::not_submitted(id, config.chain.from_block))?;
    let published = board.find_result(id, Some(found.block.number)).await?;
    let state = match &published {
        Some(_) => "published",
        None if id.is_kept() && board.is_closed(id).await? => "expired",
        None => "open",
    };
    Ok(json!({
        "id": id,
        "chain_id": found.identity.chain_id,
        "contract": found.identity.contract,
        "requester": found.submission.requester,
        "request": found.submission.request.as_ref().ok(),
        "included": found.block,
        "state": state,
        "outcome": published.as_ref().map(|published| json!({
            "status": published.status,
            "digest": published.digest,
        })),
        "publication": published.as_ref().map(|published| json!({
            "block": published.block,
            "transaction": published.transaction,
            "engine": result::engine(published),
        })),
        "source": "chain",
    }))
}

fn text(task: &Value) -> String {
    let word = |pointer| remote::text(task, pointer);
    let mut lines = vec![format!(
        "task {}: {}",
        word("/id").unwrap_or_default(),
        word("/state").unwrap_or_default()
    )];
    if let Some(status) = word("/outcome/status") {
        let code = word("/outcome/code").map(|code| format!(" ({code})"));
        lines.push(format!("outcome: {status}{}", code.unwrap_or_default()));
    }
    // As text: what was read as JSON and written again need not be the same bytes.
    if let Some(document) = word("/result/document_text") {
        lines.push(format!("result: {document}"));
    }
    if let Some(transaction) = word("/publication/transaction") {
        let block = task.pointer("/publication/block/number").unwrap_or(&Value::Null);
        lines.push(format!("published: block {block}, transaction {transaction}"));
    }
    lines.extend(remote::timeline(task).into_iter().map(|line| format!("  {line}")));
    lines.join("\n")
}
