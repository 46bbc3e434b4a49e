//! Where a contract's events begin and which id an engine's name has: found through logs, once, and remembered.

use alloy::{
    primitives::{B256, Bytes},
    sol_types::SolEvent as _,
};
use serde_json::{Value, json};
use store::{Board as Key, Engine, Store};
use task::Address;
use task_board::{Header, TaskBoard};

use crate::{
    Board, Client, Error,
    block::{At, Log, quantity},
    range::any_of,
    search::{Outcome, Search},
};

/// How often an address without code is asked for: a node that is behind may not have it yet.
const TRIES: u32 = 3;
const BETWEEN_TRIES: std::time::Duration = std::time::Duration::from_millis(300);
/// Blocks of the first range in which a few events are looked for.
const FEW_BLOCKS: u64 = 10_000;

/// The topic of the domain that every contract is born with.
pub(crate) fn domain_zero() -> B256 {
    B256::ZERO
}

/// The contract's code is there now.
pub(crate) async fn require_code(client: &Client, contract: Address) -> Result<(), Error> {
    let mut tries = 1;
    loop {
        let code: Bytes =
            client.call("eth_getCode", &(contract.to_string(), At::Latest.text())).await?;
        if !code.is_empty() {
            return Ok(());
        }
        if tries >= TRIES {
            return Err(Error::NoContract(contract));
        }
        tries += 1;
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
}

/// The block that the contract was deployed in: its constructor says so in an event. A store remembers it.
pub(crate) async fn deployment_block(
    client: &Client,
    store: Option<&Store>,
    contract: Address,
) -> Result<u64, Error> {
    let key = Key { chain_id: client.chain_id(), contract };
    if let Some(store) = store
        && let Some(number) = store.deployment(&key, &client.genesis()).await?
    {
        return Ok(number);
    }
    require_code(client, contract).await?;
    let number = find_deployment(client, contract).await?;
    if let Some(store) = store {
        let mut writer = store.begin().await?;
        writer.save_deployment(&key, &client.genesis(), number).await?;
        writer.commit().await?;
    }
    Ok(number)
}

async fn find_deployment(client: &Client, contract: Address) -> Result<u64, Error> {
    let head = client.head().await?.number;
    let born = json!([[TaskBoard::DomainRegistered::SIGNATURE_HASH], domain_zero()]);
    // One question, where the endpoint gives the whole chain at once.
    let endpoint = client.endpoint().await?;
    let whole = endpoint.logs(contract, &born, 0, head).await;
    match &whole {
        Err(Error::TooMuch { .. }) | Ok(_) => {}
        failed => client.report(&endpoint, failed),
    }
    if let Ok(page) = &whole
        && let Some(number) = first_block(&page.logs)
    {
        return Ok(number);
    }
    if whole.is_err() {
        // A node that keeps old state can tell by the code, in few questions; the event proves it.
        if let Some(number) = first_with_code(client, contract, head).await
            && let Ok(page) = endpoint.logs(contract, &born, number, number).await
            && !page.logs.is_empty()
        {
            return Ok(number);
        }
        let search = Search { contract, topics: &born, from: 0, to: head, width: FEW_BLOCKS };
        if let Outcome::Logs(logs) = search.run(client, |logs| !logs.is_empty()).await?
            && let Some(number) = first_block(&logs)
        {
            return Ok(number);
        }
    }
    // The endpoints forget old logs, or it is another contract with the same events. The first task proves as well
    // that nothing was before it.
    let submitted = any_of(&[TaskBoard::Submitted::SIGNATURE_HASH]);
    let width = if whole.is_ok() { u64::MAX } else { FEW_BLOCKS };
    let search = Search { contract, topics: &submitted, from: 0, to: head, width };
    match search.run(client, |logs| !logs.is_empty()).await? {
        Outcome::Logs(logs) => {
            let first = logs.first().filter(|log| {
                Header::of(&log.topics, &log.data).is_ok_and(|header| header.id.sequence() == 1)
            });
            first.and_then(Log::block).map(|block| block.number).ok_or(Error::NoBeginning(contract))
        }
        Outcome::TooFar => Err(Error::NoBeginning(contract)),
    }
}

fn first_block(logs: &[Log]) -> Option<u64> {
    logs.first().and_then(Log::block).map(|block| block.number)
}

/// The first block with code at the address, by a node that keeps old state; none by any other.
async fn first_with_code(client: &Client, contract: Address, head: u64) -> Option<u64> {
    let endpoint = client.endpoint().await.ok()?;
    let (mut without, mut with) = (0, head);
    while without < with {
        let middle = without + (with - without) / 2;
        let code: Bytes =
            endpoint.call("eth_getCode", &(contract.to_string(), quantity(middle))).await.ok()?;
        match code.is_empty() {
            true => without = middle + 1,
            false => with = middle,
        }
    }
    Some(with)
}

/// The id that an engine of this name is registered with: the newest one. It is looked for once; as long as no engine
/// is registered it stays what it was.
pub(crate) async fn engine_id(
    board: &Board,
    store: Option<&Store>,
    name: &str,
) -> Result<Option<u16>, Error> {
    let client = board.client();
    let key = Key { chain_id: client.chain_id(), contract: board.contract() };
    let count = board.engine_count().await?;
    if let Some(store) = store
        && let Some(known) = store.engine(&key, &client.genesis(), name).await?
        && known.count >= count
    {
        return Ok(Some(known.id));
    }
    if count == 0 {
        return Ok(None);
    }
    let topics = any_of(&[TaskBoard::EngineRegistered::SIGNATURE_HASH]);
    let engines = find_engines(board, store, &topics, |(engine, _)| *engine == count).await?;
    let found = engines.iter().rev().find(|(_, known)| known == name).map(|(engine, _)| *engine);
    if let (Some(store), Some(id)) = (store, found) {
        let mut writer = store.begin().await?;
        writer.save_engine(&key, &client.genesis(), name, Engine { id, count }).await?;
        writer.commit().await?;
    }
    Ok(found)
}

/// Registered engines, from the deployment on until the last that is looked for.
pub(crate) async fn find_engines(
    board: &Board,
    store: Option<&Store>,
    topics: &Value,
    is_last: impl Fn(&(u16, String)) -> bool,
) -> Result<Vec<(u16, String)>, Error> {
    let client = board.client();
    let from = match store {
        Some(store) => deployment_block(client, Some(store), board.contract()).await?,
        None => board.deployment_block().await?,
    };
    let search = Search {
        contract: board.contract(),
        topics,
        from,
        to: client.head().await?.number,
        width: FEW_BLOCKS,
    };
    let found = search
        .run(client, |logs| logs.last().and_then(registered).is_some_and(|last| is_last(&last)))
        .await?;
    match found {
        Outcome::Logs(logs) => Ok(logs.iter().filter_map(registered).collect()),
        Outcome::TooFar => Ok(Vec::new()),
    }
}

fn registered(log: &Log) -> Option<(u16, String)> {
    let topics = log.topics.iter().copied();
    let event = TaskBoard::EngineRegistered::decode_raw_log(topics, &log.data).ok()?;
    Some((event.engine, event.name))
}
