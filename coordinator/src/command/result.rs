use chain::FoundResult;
use executor_protocol::{Document, Status};
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
    let Some(found) = board.find_result(id, config.chain.from_block).await? else {
        return Err(Error::Missing(format!("task {id} has no published result")));
    };
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

/// The engine's name as it is registered on chain, or its number.
pub(super) fn engine(found: &FoundResult) -> String {
    found.engine_name.clone().unwrap_or_else(|| format!("number {}", found.engine))
}

/// A published result's document: from the chain, else the content store; it has the published digest.
pub(super) async fn document(store: &ipfs::Store, found: &FoundResult) -> Result<String, Error> {
    let bytes = match &found.document {
        Some(bytes) => bytes.clone(),
        None => store.fetch(&Cid::raw(found.digest.0), &Budget::default()).await?.bytes().await?,
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
