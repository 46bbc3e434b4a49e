//! Reading logs over wide ranges of blocks from nodes with limits that they do not tell.

use alloy::primitives::B256;
use serde_json::json;
use task::Address;

use crate::{
    Error,
    block::{Log, quantity},
    endpoint::Endpoint,
};

/// How many blocks are asked for at once: halved when a node has too much, grown again when it has not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Width {
    blocks: u64,
    most: u64,
}

impl Width {
    pub(crate) fn new(most: u64) -> Self {
        Self { blocks: most.max(1), most: most.max(1) }
    }

    /// The last block of a range that begins at `from` and may go up to `limit`.
    pub(crate) fn end(&self, from: u64, limit: u64) -> u64 {
        limit.min(from.saturating_add(self.blocks - 1))
    }

    /// Halves what was asked for, a range of `asked` blocks; false when one block alone is too much.
    pub(crate) fn shrink(&mut self, asked: u64) -> bool {
        let before = self.blocks.min(asked);
        self.blocks = (before / 2).max(1);
        before > 1
    }

    pub(crate) fn grow(&mut self) {
        self.blocks = (self.blocks + self.blocks.div_ceil(4)).min(self.most);
    }
}

impl Endpoint {
    /// The contract's logs in the blocks `from..=to`, in their order. `topics` is JSON-RPC's filter.
    pub(crate) async fn logs(
        &self,
        contract: Address,
        topics: &serde_json::Value,
        from: u64,
        to: u64,
    ) -> Result<Vec<Log>, Error> {
        let filter = json!({
            "address": contract.to_string(), "topics": topics,
            "fromBlock": quantity(from), "toBlock": quantity(to),
        });
        let mut logs: Vec<Log> = self.call("eth_getLogs", &[filter]).await?;
        logs.retain(|log| {
            !log.removed
                && log.address.0 == contract.0
                && log.block().is_some_and(|block| (from..=to).contains(&block.number))
        });
        logs.sort_by_key(Log::order);
        Ok(logs)
    }
}

/// Topic 0 of any of these events.
pub(crate) fn any_of(events: &[B256]) -> serde_json::Value {
    json!([events])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_width_halves_down_to_one_block_and_grows_back() {
        let mut width = Width::new(2000);
        assert_eq!(width.end(10, 1_000_000), 2009);
        assert_eq!(width.end(10, 20), 20);
        let mut halvings = 0;
        while width.shrink(u64::MAX) {
            halvings += 1;
        }
        assert_eq!((halvings, width.end(10, 1_000_000)), (10, 10));
        for _ in 0..40 {
            width.grow();
        }
        assert_eq!(width.end(1, 1_000_000), 2000);
    }

    #[test]
    fn a_short_range_that_is_too_much_halves_itself() {
        let mut width = Width::new(2000);
        assert!(width.shrink(8));
        assert_eq!(width.end(1, 100), 4);
    }
}
