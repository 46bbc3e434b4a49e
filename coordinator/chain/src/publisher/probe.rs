//! Whether the chain's contracts see the blocks that its nodes tell: on some rollups they do not, and then every
//! publication would fail by its anchor. Asking costs nothing.

use alloy::{
    primitives::{B256, Bytes, U256, hex},
    sol_types::{SolCall as _, SolError as _},
};
use serde_json::json;
use task_board::TaskBoard;

use super::Publisher;
use crate::{
    Error,
    block::{At, b256},
    endpoint::Endpoint,
};

/// How often the two are compared until they count as different: a new branch may come in between, and the nodes
/// behind one address need not be on the same one.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: std::time::Duration = std::time::Duration::from_millis(200);

impl Publisher {
    /// Calls `publish` with the head's parent and a hash that is none: the contract's answer names the hash that it sees.
    pub(super) async fn probe_anchors(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let mut differs = None;
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(BETWEEN_LOOKS).await;
            }
            let head = endpoint.head().await?.block();
            let Some(number) = head.number.checked_sub(1) else { return Ok(()) };
            let call = TaskBoard::publishCall {
                answer: U256::ZERO,
                digest: B256::ZERO,
                anchorNumber: U256::from(number),
                anchorHash: B256::ZERO,
            };
            let call = json!({
                "from": self.account.sender.to_string(), "to": self.options.contract.to_string(),
                "data": hex::encode_prefixed(call.abi_encode()),
            });
            // As of the head that was told: a node that does not reach it would see no hash, and says so instead.
            let answer: Result<Bytes, Error> =
                endpoint.call("eth_call", &(call, At::Number(head.number).text())).await;
            let seen = match answer {
                Err(Error::Rpc { data: Some(data), .. }) => {
                    TaskBoard::WrongAnchor::abi_decode(&data).ok().map(|error| error.actual)
                }
                Err(error) if error.retry() && !matches!(error, Error::Rpc { .. }) => {
                    return Err(error);
                }
                _ => None,
            };
            let Some(seen) = seen else {
                tracing::info!(
                    "the node does not tell which blocks the contract sees: anchors are not compared"
                );
                return Ok(());
            };
            let Some(told) = endpoint.header(At::Number(number)).await? else { continue };
            let told = told.block().hash;
            if seen == b256(told) {
                return Ok(());
            }
            differs = Some((number, seen, told));
        }
        match differs {
            None => Ok(()),
            Some((number, seen, told)) => {
                Err(Error::AnchorsDiffer { number, seen: task::Hex(seen.0), told })
            }
        }
    }
}
