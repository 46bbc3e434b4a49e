//! Where reading begins.

use alloy::{
    primitives::{Bytes, hex},
    sol_types::SolCall,
};
use serde_json::json;
use store::{Board, ChainRow, RingBlock, Store};
use task::Address;
use task_board::TaskBoard;

use crate::{
    Client, Error,
    block::{At, quantity},
    endpoint::Endpoint,
};

/// Saves and answers the first cursor: the block before the first that is read.
pub(super) async fn begin(
    client: &Client,
    store: &Store,
    board: &Board,
    from_block: Option<u64>,
) -> Result<ChainRow, Error> {
    let endpoint = client.endpoint().await?;
    let found = first_row(client, &endpoint, board, from_block).await;
    client.report(&endpoint, &found);
    let (row, ring) = found?;
    let mut writer = store.begin().await?;
    writer.save_chain(board, &row, Some(&ring)).await?;
    writer.commit().await?;
    Ok(row)
}

async fn first_row(
    client: &Client,
    endpoint: &Endpoint,
    board: &Board,
    from_block: Option<u64>,
) -> Result<(ChainRow, RingBlock), Error> {
    let deployed = deployment_block(endpoint, board.contract).await?;
    let first = match from_block {
        Some(from) => from,
        None => deployed,
    };
    let before = endpoint
        .header(At::Number(first.saturating_sub(1)))
        .await?
        .ok_or_else(|| endpoint.unreadable("eth_getBlockByNumber", "the first block is missing"))?;
    let number = before.block().number;
    // Before the contract was there, there was no task; later its count says, if the node still has that state.
    let next_sequence = match task_count(endpoint, board.contract, number).await {
        Ok(count) => count + 1,
        Err(_) if first <= deployed => 1,
        Err(_) => 0,
    };
    let row = ChainRow {
        genesis: client.genesis(),
        cursor: before.block(),
        next_sequence,
        sequence_block: number,
    };
    Ok((row, RingBlock { block: before.block(), parent: before.parent() }))
}

/// The block that the contract was deployed in. A node that has no old state answers with its newest block.
pub(crate) async fn deployment_block(endpoint: &Endpoint, contract: Address) -> Result<u64, Error> {
    let head = endpoint.head().await?.block().number;
    if !has_code(endpoint, contract, head).await? {
        return Err(Error::NoContract(contract));
    }
    let (mut without, mut with) = (0, head);
    while without < with {
        let middle = without + (with - without) / 2;
        match has_code(endpoint, contract, middle).await {
            Ok(true) => with = middle,
            Ok(false) => without = middle + 1,
            Err(error @ Error::Rpc { .. }) => {
                tracing::warn!(
                    "the block of the deployment cannot be found, beginning at the newest: {error}"
                );
                return Ok(head);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(with)
}

async fn has_code(endpoint: &Endpoint, contract: Address, block: u64) -> Result<bool, Error> {
    let code: Bytes =
        endpoint.call("eth_getCode", &(contract.to_string(), quantity(block))).await?;
    Ok(!code.is_empty())
}

/// How many tasks there were at a block.
pub(super) async fn task_count(
    endpoint: &Endpoint,
    contract: Address,
    block: u64,
) -> Result<u64, Error> {
    let call = hex::encode_prefixed(TaskBoard::taskCountCall {}.abi_encode());
    let call = json!({"to": contract.to_string(), "data": call});
    let answer: Bytes = endpoint.call("eth_call", &(call, quantity(block))).await?;
    TaskBoard::taskCountCall::abi_decode_returns(&answer)
        .map_err(|error| endpoint.unreadable("eth_call", error))
}
