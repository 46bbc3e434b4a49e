use chain::{Board, Found, FoundResult, FoundSubmission};
use executor_protocol::{Document, Outcome, Rejection, Status};
use ipfs::{Budget, Cid};
use serde::Serialize;
use serde_json::value::RawValue;
use task::{Address, BlockRef, Hash, Hex, TaskId};

use super::{Error, Output, board, content};
use crate::config::Config;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Reads chain and content alone; COORDINATOR_FROM_BLOCK shortens the search.

Examples:
  coordinator result 17
  coordinator result 17 --json")]
pub(super) struct Arguments {
    /// The task's id
    id: TaskId,
}

pub(super) async fn result(
    config: &Config,
    arguments: &Arguments,
    output: Output,
) -> Result<(), Error> {
    let id = arguments.id;
    let board = board::open(&config.chain).await?;
    let (_, found) = answered(&board, id, config.chain.from_block).await?;
    let store = content::open(config).await?;
    let document = document(&store, &found).await?;
    let value = describe(id, &found, &document)?;
    output.data(&document, &value);
    output.say(&format!(
        "{} by {} in block {}, engine {}, digest {}",
        found.status,
        found.publisher,
        found.block.number,
        engine(&found),
        found.digest
    ));
    Ok(())
}

/// A task's submission and its result, or why there is none.
pub(super) async fn answered(
    board: &Board,
    id: TaskId,
    from_block: Option<u64>,
) -> Result<(FoundSubmission, FoundResult), Error> {
    let strange = match board.find(id, from_block).await? {
        Found::Answered { submission, result } => return Ok((*submission, *result)),
        Found::NotSubmitted => return Err(not_submitted(id, from_block)),
        Found::Open { strange, .. } => strange,
    };
    Err(Error::Missing(if id.is_kept() && board.is_closed(id).await? {
        format!("task {id} has no result: it expired, and its fee went back to its requester")
    } else if strange > 0 {
        format!(
            "task {id} has no result yet: what is published under its id ({strange}) does not belong to it, but to \
             another submission or another branch of the chain"
        )
    } else {
        format!("task {id} is submitted and has no result yet")
    }))
}

/// There is no such submission.
pub(super) fn not_submitted(id: TaskId, from_block: Option<u64>) -> Error {
    let from = from_block.map_or(String::new(), |from| format!(" from block {from} on"));
    Error::Missing(format!("task {id} was not submitted to the contract{from}"))
}

/// The engine's name as it is registered on chain, or its number.
pub(super) fn engine(found: &FoundResult) -> String {
    found.engine_name.clone().unwrap_or_else(|| format!("number {}", found.engine))
}

/// A published result's document: from the chain, else the content store; it has the published digest.
pub(super) async fn document(store: &ipfs::Store, found: &FoundResult) -> Result<String, Error> {
    let bytes = match &found.document {
        Some(bytes) => bytes.clone(),
        None => match rejection(found) {
            Some(document) => document.as_str().as_bytes().to_vec(),
            None => {
                store.fetch(&Cid::raw(found.digest.0), &Budget::default()).await?.bytes().await?
            }
        },
    };
    let (document, outcome) = Document::parse(&bytes)
        .map_err(|error| Error::No(format!("what was published is no result: {error}")))?;
    if Hex(document.digest()) != found.digest {
        return Err(Error::No("what was published does not have its own digest".into()));
    }
    if outcome.status() != found.status {
        return Err(Error::No(format!(
            "the document says {}, the contract {}",
            outcome.status(),
            found.status
        )));
    }
    Ok(document.as_str().to_owned())
}

/// The document of a rejection that was published as its digest: there are only so many.
fn rejection(found: &FoundResult) -> Option<Document> {
    if found.status != Status::Rejected {
        return None;
    }
    let documents = Rejection::ALL.iter().map(|code| Document::of(&Outcome::Rejected(*code)));
    documents.into_iter().find(|document| Hex(document.digest()) == found.digest)
}

/// A published result as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    id: TaskId,
    status: Status,
    document: Box<RawValue>,
    digest: Hash,
    engine: u16,
    engine_name: Option<String>,
    publisher: Address,
    block: BlockRef,
    transaction: Hash,
}

/// A published result with its document, whose tokens stay as they are.
pub(super) fn describe(id: TaskId, found: &FoundResult, document: &str) -> Result<Shown, Error> {
    let document = RawValue::from_string(document.to_owned())
        .map_err(|error| Error::No(format!("what was published is no JSON: {error}")))?;
    Ok(Shown {
        id,
        status: found.status,
        document,
        digest: found.digest,
        engine: found.engine,
        engine_name: found.engine_name.clone(),
        publisher: found.publisher,
        block: found.block,
        transaction: found.transaction,
    })
}
