//! What the pipeline asks of the chain: what a unit of gas costs, remembered for a moment, when a block was made, and
//! whether a task that is about to run is still wanted.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use chain::{Board, Client, EndpointHealth};
use task::{Address, BlockRef, Identity, TaskId};

use crate::admission;

/// How long a price is taken for today's.
const FRESH: Duration = Duration::from_secs(15);
/// How long the chain may take to say it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prices of a chain; of none where there is no chain. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Prices {
    /// The chain, once it could be reached.
    board: Option<Arc<OnceLock<(Board, bool)>>>,
    last: Arc<Mutex<Option<(Instant, u128)>>>,
}

/// A price of gas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Price {
    /// Nothing is published here, so nothing costs anything.
    NoChain,
    /// The chain does not say now and has not said yet.
    Unknown,
    /// Wei for a unit of gas.
    Wei(u128),
}

impl Prices {
    /// The prices of a chain that is not reached yet.
    #[must_use]
    pub fn of_a_chain() -> Self {
        Self { board: Some(Arc::default()), last: Arc::default() }
    }

    /// The chain can be asked from now on.
    pub fn begin(&self, client: Client, contract: Address) {
        if let Some(board) = &self.board {
            let is_development = client.is_development();
            board.get_or_init(|| (Board::new(client, contract), is_development));
        }
    }

    fn board(&self) -> Option<&Board> {
        self.board.as_ref()?.get().map(|(board, _)| board)
    }

    /// Whether the chain is one for development, where money is worth nothing; none while that is not known.
    #[must_use]
    pub fn is_development(&self) -> Option<bool> {
        self.board.as_ref()?.get().map(|(_, is_development)| *is_development)
    }

    /// The chain's endpoints, once it could be reached.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointHealth> {
        self.board().map(|board| board.client().endpoints()).unwrap_or_default()
    }

    /// When a block was made, in Unix milliseconds; none when the chain does not say.
    pub async fn made_at_ms(&self, block: &BlockRef) -> Option<i64> {
        let board = self.board()?;
        tokio::time::timeout(PATIENCE, board.made_at_ms(block)).await.ok()?.ok()?
    }

    /// Whether the contract, by its newest block, would still take a result of a kept task at this time (Unix
    /// milliseconds); none when the chain does not say.
    pub async fn takes_result(&self, task: &Identity, now_ms: i64) -> Option<bool> {
        let board = self.board()?;
        let kept = tokio::time::timeout(PATIENCE, board.kept(task)).await.ok()?.ok()?;
        Some(kept.is_some_and(|kept| !admission::has_passed(kept.deadline_at, now_ms)))
    }

    /// The price now, or the last one that was heard of.
    pub async fn now(&self) -> Price {
        if self.board.is_none() {
            return Price::NoChain;
        }
        let Some(board) = self.board() else { return Price::Unknown };
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, price)) = last
            && at.elapsed() < FRESH
        {
            return Price::Wei(price);
        }
        let asked = board.quote(TaskId::new(0, false, 1), None, 0);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(quote)) => {
                let price = quote.gas_price_wei;
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((Instant::now(), price));
                Price::Wei(price)
            }
            Ok(Err(_)) | Err(_) => last.map_or(Price::Unknown, |(_, price)| Price::Wei(price)),
        }
    }
}
