//! Reading logs over wide ranges of blocks from nodes with limits that they do not tell.

use alloy::primitives::B256;
use serde_json::{Value, json};
use task::{Address, BlockRef};

use crate::{
    Error,
    block::{Log, quantity},
    endpoint::{Endpoint, MAX_ANSWER_BYTES},
};

/// A page is wished to have at most so many bytes: what is read at once is held in memory, text and logs.
const PAGE_BYTES: usize = 2 << 20;
/// A page of several blocks that has more is given up.
const MOST_PAGE_BYTES: usize = 6 << 20;
/// Blocks of a first page.
const FIRST_BLOCKS: u64 = 128;
/// So many pages of the widest range that is known to work, then a wider one is tried again.
const TRY_AGAIN_AFTER: u32 = 64;

/// How many blocks are asked for at once: fewer when a node has too much or fails, more again when it does not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Width {
    blocks: u64,
    most: u64,
    /// A range as wide as this was refused.
    refused: Option<u64>,
    pages: u32,
}

impl Width {
    pub(crate) fn new(most: u64) -> Self {
        Self { blocks: most.max(1), most: most.max(1), refused: None, pages: 0 }
    }

    /// Begins with fewer blocks: how much is in them is not known yet.
    pub(crate) fn careful(most: u64) -> Self {
        let mut width = Self::new(most);
        width.blocks = width.blocks.min(FIRST_BLOCKS);
        width
    }

    /// The last block of a range that begins at `from` and may go up to `limit`.
    pub(crate) fn end(&self, from: u64, limit: u64) -> u64 {
        limit.min(from.saturating_add(self.blocks - 1))
    }

    /// A range of `asked` blocks is too much: half of it next. False when one block alone is too much.
    pub(crate) fn shrink(&mut self, asked: u64) -> bool {
        let before = self.blocks.min(asked);
        self.blocks = (before / 2).max(1);
        self.refused = Some(before);
        self.pages = 0;
        before > 1
    }

    /// A range of `asked` blocks failed or was too slow, nobody knows why: a quarter of it next.
    pub(crate) fn fail(&mut self, asked: u64) {
        self.blocks = (self.blocks.min(asked) / 4).max(1);
    }

    /// A range of `asked` blocks brought so many bytes.
    pub(crate) fn grow(&mut self, asked: u64, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).max(1);
        let page = u64::try_from(PAGE_BYTES).unwrap_or(u64::MAX);
        // As many blocks as fill a page, were they all like these.
        let fitting = (u128::from(asked.max(1)) * u128::from(page) / u128::from(bytes)).max(1);
        self.pages = self.pages.saturating_add(1);
        if self.pages >= TRY_AGAIN_AFTER {
            self.refused = None;
            self.pages = 0;
        }
        let below = self.refused.map_or(self.most, |refused| refused.saturating_sub(1).max(1));
        let grown = self.blocks.saturating_mul(2).min(self.most).min(below);
        self.blocks = grown.min(u64::try_from(fitting).unwrap_or(u64::MAX)).max(1);
    }
}

/// Logs, and how many bytes they were.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) logs: Vec<Log>,
    pub(crate) bytes: usize,
}

impl Endpoint {
    /// The contract's logs in the blocks `from..=to`, in their order. `topics` is JSON-RPC's filter.
    pub(crate) async fn logs(
        &self,
        contract: Address,
        topics: &Value,
        from: u64,
        to: u64,
    ) -> Result<Page, Error> {
        let filter = json!({
            "address": contract.to_string(), "topics": topics,
            "fromBlock": quantity(from), "toBlock": quantity(to),
        });
        let most = if from == to { MAX_ANSWER_BYTES } else { MOST_PAGE_BYTES };
        let (logs, bytes) = self.call_sized("eth_getLogs", &[filter], most).await?;
        Ok(Page {
            logs: sorted(logs, contract, |block| (from..=to).contains(&block.number)),
            bytes,
        })
    }

    /// The contract's logs in one block, named by its hash: a node that does not have it says so.
    pub(crate) async fn logs_of(
        &self,
        contract: Address,
        topics: &Value,
        block: &BlockRef,
    ) -> Result<Vec<Log>, Error> {
        let filter = json!({
            "address": contract.to_string(), "topics": topics, "blockHash": block.hash.to_string(),
        });
        let (logs, _): (Vec<Log>, _) =
            self.call_sized("eth_getLogs", &[filter], MAX_ANSWER_BYTES).await?;
        if let Some(other) = logs.iter().filter_map(Log::block).find(|other| other != block) {
            return Err(Error::Inconsistent {
                endpoint: self.shown().to_owned(),
                block: block.number,
                what: format!(
                    "asked for the logs of {} it gives one of {}",
                    block.hash, other.hash
                ),
            });
        }
        Ok(sorted(logs, contract, |other| other == block))
    }
}

fn sorted(mut logs: Vec<Log>, contract: Address, is_in: impl Fn(&BlockRef) -> bool) -> Vec<Log> {
    logs.retain(|log| {
        !log.removed
            && log.address.0 == contract.0
            && log.block().is_some_and(|block| is_in(&block))
    });
    logs.sort_by_key(Log::order);
    logs
}

/// Topic 0 of any of these events.
pub(crate) fn any_of(events: &[B256]) -> Value {
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
        for _ in 0..200 {
            width.grow(1, 2);
        }
        assert_eq!(width.end(1, 1_000_000), 2000);
    }

    #[test]
    fn a_short_range_that_is_too_much_halves_itself() {
        let mut width = Width::new(2000);
        assert!(width.shrink(8));
        assert_eq!(width.end(1, 100), 4);
    }

    #[test]
    fn c9_a_range_that_fails_for_any_reason_is_one_block_after_a_few_tries() {
        let mut width = Width::new(10_000);
        let mut tries = 0;
        while width.end(1, 1_000_000) > 1 {
            width.fail(u64::MAX);
            tries += 1;
        }
        assert_eq!(tries, 7);
    }

    #[test]
    fn what_was_refused_is_not_asked_again_at_once() {
        let mut width = Width::new(2000);
        assert!(width.shrink(100));
        for _ in 0..10 {
            width.grow(50, 2);
        }
        assert_eq!(width.end(1, 1_000_000), 99);
    }

    #[test]
    fn a_page_is_bounded_by_its_bytes() {
        let mut width = Width::new(2000);
        width.grow(2000, 4 << 20);
        assert_eq!(width.end(1, 1_000_000), 1000);
        width.grow(1000, usize::MAX);
        assert_eq!(width.end(1, 1_000_000), 1);
    }
}
