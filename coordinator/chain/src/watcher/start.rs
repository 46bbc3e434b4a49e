//! Where reading begins. Nothing here needs the state of a past block: ordinary full nodes keep little of it.

use alloy::sol_types::SolEvent as _;
use serde_json::json;
use store::{Board, ChainRow, RingBlock, Store};
use task_board::TaskBoard;

use crate::{
    Client, Error,
    block::{At, quantity},
    endpoint::Endpoint,
    origin,
};

/// Blocks after the first one in which the contract's own first event shows that nothing was before it.
const DEPLOYMENT_NEAR: u64 = 1_000;

/// Saves and answers the first cursor: the block before the first that is read.
pub(super) async fn begin(
    client: &Client,
    store: &Store,
    board: &Board,
    from_block: Option<u64>,
) -> Result<ChainRow, Error> {
    let endpoint = client.endpoint().await?;
    let found = first_row(client, store, &endpoint, board, from_block).await;
    client.report(&endpoint, &found);
    let (row, ring) = found?;
    let mut writer = store.begin().await?;
    writer.save_chain(board, &row, Some(&ring)).await?;
    writer.commit().await?;
    Ok(row)
}

/// The row and the block before the first that is read.
pub(super) async fn first_row(
    client: &Client,
    store: &Store,
    endpoint: &Endpoint,
    board: &Board,
    from_block: Option<u64>,
) -> Result<(ChainRow, RingBlock), Error> {
    let deployed = match from_block {
        Some(_) => None,
        None => {
            Some(Box::pin(origin::deployment_block(client, Some(store), board.contract)).await?)
        }
    };
    if from_block.is_some() {
        origin::require_code(client, board.contract).await?;
    }
    let first = from_block.or(deployed).unwrap_or_default();
    let before = endpoint
        .header(At::Number(first.saturating_sub(1)))
        .await?
        .ok_or_else(|| endpoint.unreadable("eth_getBlockByNumber", "the first block is missing"))?;
    let number = before.block().number;
    let next_sequence = match deployed {
        // Before the contract was there, there was no task.
        Some(_) => 1,
        None => first_sequence(endpoint, board, first, number).await,
    };
    let row = ChainRow {
        genesis: client.genesis(),
        cursor: before.block(),
        next_sequence,
        sequence_block: number,
        second_number: number,
    };
    Ok((row, RingBlock { block: before.block(), parent: before.parent(), next_sequence }))
}

/// The sequence of the first task from a block on that somebody chose; 0 when nobody can say: then the first count or
/// the first task does.
async fn first_sequence(endpoint: &Endpoint, board: &Board, first: u64, before: u64) -> u64 {
    let topics = json!([[TaskBoard::DomainRegistered::SIGNATURE_HASH], origin::domain_zero()]);
    let to = first.saturating_add(DEPLOYMENT_NEAR);
    if let Ok(page) = endpoint.logs(board.contract, &topics, first, to).await
        && !page.logs.is_empty()
    {
        return 1;
    }
    match task_count(endpoint, board.contract, before).await {
        Ok(count) => count.saturating_add(1),
        Err(error) => {
            tracing::info!(
                block = before,
                %error,
                "the tasks before the first block are not counted"
            );
            0
        }
    }
}

/// How many tasks there were at a block, if the node still knows.
pub(super) async fn task_count(
    endpoint: &Endpoint,
    contract: task::Address,
    block: u64,
) -> Result<u64, Error> {
    use alloy::{
        primitives::{Bytes, hex},
        sol_types::SolCall as _,
    };
    let call = hex::encode_prefixed(TaskBoard::taskCountCall {}.abi_encode());
    let call = json!({"to": contract.to_string(), "data": call});
    let answer: Bytes = endpoint.call("eth_call", &(call, quantity(block))).await?;
    TaskBoard::taskCountCall::abi_decode_returns(&answer)
        .map_err(|error| endpoint.unreadable("eth_call", error))
}
