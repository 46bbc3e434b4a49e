//! Searching logs over the whole chain: the widest range that the endpoints give, and another endpoint when one fails.

use std::time::Duration;

use serde_json::Value;
use task::Address;

use crate::{Client, Error, block::Log, range::Width};

/// Failures in a row until a search is given up.
const MOST_FAILURES: u32 = 24;
/// Ranges after which a search that nobody bounded is given up: the endpoints give too few blocks at once.
const MOST_RANGES: u32 = 5_000;
/// The longest wait for an endpoint that can be asked.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const PROGRESS_EVERY: u32 = 200;

/// What is looked for, and where.
#[derive(Debug)]
pub(crate) struct Search<'a> {
    pub(crate) contract: Address,
    /// JSON-RPC's filter.
    pub(crate) topics: &'a Value,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// The widest range that is asked for at first.
    pub(crate) width: u64,
}

/// How a search ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Everything was read, or enough was found.
    Logs(Vec<Log>),
    /// The endpoints give so few blocks at once that it would take too long.
    TooFar,
}

impl Search<'_> {
    /// Reads forward until `enough` says so or the end is reached.
    pub(crate) async fn run(
        &self,
        client: &Client,
        enough: impl Fn(&[Log]) -> bool,
    ) -> Result<Outcome, Error> {
        let mut width = Width::new(self.width);
        let mut found = Vec::new();
        let mut from = self.from;
        let (mut failures, mut ranges) = (0, 0);
        while from <= self.to {
            let to = width.end(from, self.to);
            let page = match client.endpoint().await {
                Ok(endpoint) => {
                    let page = endpoint.logs(self.contract, self.topics, from, to).await;
                    let page = match page {
                        Err(Error::TooMuch { .. }) if width.shrink(to - from + 1) => continue,
                        // Not even one block: another endpoint has to give it.
                        Err(Error::TooMuch { message, .. }) => {
                            Err(endpoint.unreadable("eth_getLogs", message))
                        }
                        page => page,
                    };
                    client.report(&endpoint, &page);
                    page
                }
                Err(error) => Err(error),
            };
            match page {
                Ok(page) => {
                    width.grow(to - from + 1, page.bytes);
                    found.extend(page.logs);
                    (from, failures, ranges) = (to + 1, 0, ranges + 1);
                    if enough(&found) {
                        break;
                    }
                    if ranges >= MOST_RANGES && from <= self.to {
                        return Ok(Outcome::TooFar);
                    }
                    if ranges % PROGRESS_EVERY == 0 {
                        tracing::info!(
                            block = from,
                            of = self.to,
                            "searching the contract's events"
                        );
                    }
                }
                Err(error) if !error.retry() || failures >= MOST_FAILURES => return Err(error),
                Err(error) => {
                    failures += 1;
                    tracing::debug!(from, to, %error, "the range was not read");
                    if !matches!(error, Error::Resting { .. }) {
                        width.fail(to - from + 1);
                    }
                    tokio::time::sleep(client.rests_for().min(LONGEST_WAIT)).await;
                }
            }
        }
        Ok(Outcome::Logs(found))
    }
}
