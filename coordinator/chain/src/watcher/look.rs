//! One look at one endpoint, whose address may stand for several nodes that are blocks apart.
//!
//! Close to the head nothing is believed because it was answered after something else. Headers are linked by their
//! parents' hashes to the cursor, logs and the contract's count are asked for by a block's hash, and a header that is
//! not there is no sign of another branch. Deeper, where nodes do not differ, ranges are read.

use alloy::primitives::{Bytes, hex};
use futures::future::try_join_all;
use serde_json::{Value, json};
use task::BlockRef;
use task_board::TaskBoard;

use super::{Progress, Watcher, event};
use crate::{
    Class, Confirmations, Error,
    block::{At, Header, Log, quantity},
    endpoint::Endpoint,
};

/// Nodes behind one address differ in blocks that are less deep than this.
pub(super) const NEAR: u64 = 64;
/// A node keeps the state of at least this many recent blocks.
const STATE_BLOCKS: u64 = 100;
/// Calls at once.
const CALLS: u64 = 8;
const MOST_AT_ONCE: usize = 8;
/// How often something that is named by its hash is asked for: another node may answer the next time.
const TRIES: u32 = 4;
const BETWEEN_TRIES: std::time::Duration = std::time::Duration::from_millis(40);

/// What a range of blocks holds.
pub(super) struct Span {
    pub(super) logs: Vec<Log>,
    /// The last block, which descends from the cursor.
    pub(super) end: Header,
    /// The contract's count of tasks at that block, if it was told.
    pub(super) count: Option<u64>,
}

impl Watcher {
    pub(super) async fn look(&mut self, endpoint: &Endpoint) -> Result<Progress, Error> {
        let head = endpoint.head().await?;
        if head.block().number < self.row.cursor.number {
            return self.look_at_shorter_chain(endpoint, &head).await;
        }
        let target = self.target(endpoint, &head).await?;
        if self.is_reading_again() {
            return self.read_again(endpoint, &head).await;
        }
        let cursor = self.row.cursor;
        if target <= cursor.number {
            if self.idle_head != Some(head.block().hash) {
                if !self.cursor_stands(endpoint).await? {
                    return self.go_back(endpoint, cursor.number).await;
                }
                self.idle_head = Some(head.block().hash);
            }
            return self.look_a_second_time(endpoint).await;
        }
        let near = head.block().number.saturating_sub(NEAR);
        let mut events = 0;
        if cursor.number < near && cursor.number < target {
            let progress = self.look_far(endpoint, &head, target.min(near)).await?;
            if progress.more {
                return Ok(progress);
            }
            events = progress.events;
            if progress.cursor.number >= target {
                let second = self.look_a_second_time(endpoint).await?;
                return Ok(Progress { events: events + second.events, ..second });
            }
        }
        let progress = self.look_near(endpoint, &head, target).await?;
        let progress = Progress { events: events + progress.events, ..progress };
        if progress.more {
            return Ok(progress);
        }
        let second = self.look_a_second_time(endpoint).await?;
        Ok(Progress { events: progress.events + second.events, ..second })
    }

    /// The newest block that the confirmations allow.
    async fn target(&self, endpoint: &Endpoint, head: &Header) -> Result<u64, Error> {
        let at = match self.confirmations {
            Confirmations::Blocks(blocks) => {
                return Ok(head.block().number.saturating_sub(blocks.saturating_sub(1)));
            }
            Confirmations::Safe => At::Safe,
            Confirmations::Finalized => At::Finalized,
        };
        let header = endpoint.header(at).await?;
        // Two nodes may have answered: what is final for one may be above the other's head.
        Ok(header.map_or(0, |header| header.block().number).min(head.block().number))
    }

    /// The node's chain ends below the cursor: it is behind, or its chain forked.
    async fn look_at_shorter_chain(
        &mut self,
        endpoint: &Endpoint,
        head: &Header,
    ) -> Result<Progress, Error> {
        let ring = self.store.ring(&self.board).await?;
        let known = ring.iter().find(|known| known.block.number <= head.block().number);
        match known {
            Some(known)
                if endpoint.has(&known.block).await? == Some(false)
                    && endpoint.has(&known.block).await? == Some(false) =>
            {
                self.go_back(endpoint, known.block.number).await
            }
            _ => Err(Error::Lagging {
                endpoint: endpoint.shown().to_owned(),
                head: head.block().number,
                cursor: self.row.cursor.number,
            }),
        }
    }

    /// Whether the cursor's block is on the chain that the endpoint serves. It is not only when a header with another
    /// hash stands in its place, twice, with a head that reaches as far.
    async fn cursor_stands(&self, endpoint: &Endpoint) -> Result<bool, Error> {
        let cursor = self.row.cursor;
        match endpoint.has(&cursor).await? {
            Some(true) => return Ok(true),
            None => return Err(Error::Moved),
            Some(false) => {}
        }
        let again = endpoint.has(&cursor).await?;
        let reaches = endpoint.head().await?.block().number >= cursor.number;
        match again {
            Some(false) if reaches => Ok(false),
            _ => Err(Error::Moved),
        }
    }

    /// Reads a range that is deep enough for all nodes to have it.
    async fn look_far(
        &mut self,
        endpoint: &Endpoint,
        head: &Header,
        limit: u64,
    ) -> Result<Progress, Error> {
        let cursor = self.row.cursor;
        let from = cursor.number + 1;
        let to = self.width.end(from, limit);
        let end = endpoint.header(At::Number(to)).await?.ok_or(Error::Moved)?;
        let topics = event::topics();
        let began = std::time::Instant::now();
        let (page, count) =
            tokio::join!(endpoint.logs(self.board.contract, &topics, from, to), async {
                match head.block().number - to <= STATE_BLOCKS {
                    true => self.count_at(endpoint, &end.block()).await,
                    false => Ok(None),
                }
            });
        let page = match page {
            Ok(page) => page,
            Err(error) => return self.ask_for_less(endpoint, error, to - from + 1),
        };
        if endpoint.has(&end.block()).await? != Some(true) {
            return Err(Error::Moved);
        }
        let is_child = to == from && end.parent() == cursor.hash;
        if !is_child {
            if !self.cursor_stands(endpoint).await? {
                return self.go_back(endpoint, cursor.number).await;
            }
            // The cursor's block stands, and the next one is not its child: two branches were seen.
            if to == from {
                return Err(Error::Moved);
            }
        }
        if let Some(log) = page
            .logs
            .iter()
            .find(|log| log.block().is_some_and(|block| block.number == to && block != end.block()))
        {
            return Err(self.contradiction(endpoint, to, log));
        }
        self.log_failures = 0;
        // A node that is slow with this many blocks is asked for no more of them.
        if began.elapsed() < super::SLOW {
            self.width.grow(to - from + 1, page.bytes);
        }
        let span = Span { logs: page.logs, end, count: count? };
        self.take(endpoint, span, to < limit).await
    }

    /// Reads the newest blocks, each of them by its hash: fewer at once after a look that failed, because every single
    /// answer of a look has to be good, and more again after one that did not.
    async fn look_near(
        &mut self,
        endpoint: &Endpoint,
        head: &Header,
        target: u64,
    ) -> Result<Progress, Error> {
        let looked = self.look_near_at_once(endpoint, head, target).await;
        self.near = match &looked {
            Ok(_) => self.near.saturating_mul(2).min(NEAR),
            Err(_) => (self.near / 2).max(1),
        };
        looked
    }

    async fn look_near_at_once(
        &mut self,
        endpoint: &Endpoint,
        head: &Header,
        target: u64,
    ) -> Result<Progress, Error> {
        let cursor = self.row.cursor;
        let from = cursor.number + 1;
        let to = target.min(cursor.number + self.near);
        let headers = self.headers(endpoint, head, from, to).await?;
        let mut parent = cursor.hash;
        for header in &headers {
            if header.parent() != parent {
                if parent == cursor.hash && !self.cursor_stands(endpoint).await? {
                    return self.go_back(endpoint, cursor.number).await;
                }
                return Err(Error::Moved);
            }
            parent = header.block().hash;
        }
        let Some(end) = headers.last().cloned() else { return Err(Error::Moved) };
        let end_block = end.block();
        let (logs, count) =
            tokio::join!(self.logs_of_all(endpoint, &headers), self.count_at(endpoint, &end_block));
        let span = Span { logs: logs?, end, count: count? };
        self.take(endpoint, span, to < target).await
    }

    /// The headers of a range of blocks.
    pub(super) async fn headers(
        &self,
        endpoint: &Endpoint,
        head: &Header,
        from: u64,
        to: u64,
    ) -> Result<Vec<Header>, Error> {
        let mut headers = Vec::new();
        let mut next = from;
        while next <= to {
            let last = to.min(next + CALLS - 1);
            let mut asked = Vec::new();
            for number in next..=last.min(head.block().number.saturating_sub(1)) {
                asked.push(endpoint.header(At::Number(number)));
            }
            for header in try_join_all(asked).await? {
                headers.push(header.ok_or(Error::Moved)?);
            }
            if last == head.block().number {
                headers.push(head.clone());
            }
            next = last + 1;
        }
        Ok(headers)
    }

    /// The contract's logs in blocks whose headers are known, in their order.
    async fn logs_of_all(
        &self,
        endpoint: &Endpoint,
        headers: &[Header],
    ) -> Result<Vec<Log>, Error> {
        let mut wanted = Vec::new();
        for header in headers {
            if self.may_hold_logs(header) {
                wanted.push(self.logs_in(endpoint, header));
            }
        }
        let mut logs = Vec::new();
        let mut wanted = wanted.into_iter();
        loop {
            let mut asked = Vec::new();
            while asked.len() < MOST_AT_ONCE
                && let Some(next) = wanted.next()
            {
                asked.push(next);
            }
            if asked.is_empty() {
                return Ok(logs);
            }
            logs.extend(try_join_all(asked).await?.into_iter().flatten());
        }
    }

    fn may_hold_logs(&self, header: &Header) -> bool {
        !self.blooms
            || event::TOPICS.iter().any(|topic| header.may_have(&self.board.contract, topic))
    }

    /// The contract's logs in a block. Where the filter in its header says that there may be more, it is asked again,
    /// somewhere else if there is somewhere else.
    async fn logs_in(&self, endpoint: &Endpoint, header: &Header) -> Result<Vec<Log>, Error> {
        let logs = self.ask_for_logs(endpoint, header).await?;
        if !self.blooms || self.is_plausible(header, &logs) {
            return Ok(logs);
        }
        let other = self.client.another(endpoint);
        let again = match &other {
            // What another endpoint does not have yet says nothing about this one.
            Some(other) => match self.ask_for_logs(other, header).await {
                Ok(logs) => logs,
                Err(_) => self.ask_for_logs(endpoint, header).await?,
            },
            None => self.ask_for_logs(endpoint, header).await?,
        };
        if again.len() > logs.len() {
            self.tell_inconsistency(
                endpoint,
                header.block().number,
                &format!("it left out {} events", again.len() - logs.len()),
            );
            return Ok(again);
        }
        Ok(logs)
    }

    /// Whether there is a log of every event that the block's filter says there may be.
    fn is_plausible(&self, header: &Header, logs: &[Log]) -> bool {
        event::TOPICS.iter().all(|topic| {
            !header.may_have(&self.board.contract, topic)
                || logs.iter().any(|log| log.topics.first() == Some(topic))
        })
    }

    async fn ask_for_logs(&self, endpoint: &Endpoint, header: &Header) -> Result<Vec<Log>, Error> {
        let block = header.block();
        let topics = event::topics();
        let mut tries = 1;
        loop {
            match endpoint.logs_of(self.board.contract, &topics, &block).await {
                // It does not know logs by hash: by number, if what it has there is this block.
                Err(Error::Rpc { code: -32_602, .. }) => {
                    let page = endpoint
                        .logs(self.board.contract, &topics, block.number, block.number)
                        .await?;
                    return match page.logs.iter().find(|log| log.block() != Some(block)) {
                        Some(log) => Err(self.contradiction(endpoint, block.number, log)),
                        None => Ok(page.logs),
                    };
                }
                // One block is as small as a range gets: somebody else has to give it.
                Err(Error::TooMuch { message, .. }) => {
                    return Err(endpoint.unreadable("eth_getLogs", message));
                }
                Err(error @ Error::Rpc { .. })
                    if error.class() != Class::Elsewhere && tries < TRIES =>
                {
                    tries += 1;
                    tokio::time::sleep(BETWEEN_TRIES).await;
                }
                other => return other,
            }
        }
    }

    /// How many tasks there were at a block, which is named by its hash. None when the endpoint cannot say: it keeps no
    /// such state, or does not know the method.
    pub(super) async fn count_at(
        &self,
        endpoint: &Endpoint,
        block: &BlockRef,
    ) -> Result<Option<u64>, Error> {
        let call = <TaskBoard::taskCountCall as alloy::sol_types::SolCall>::abi_encode(
            &TaskBoard::taskCountCall {},
        );
        let call =
            json!({"to": self.board.contract.to_string(), "data": hex::encode_prefixed(call)});
        let mut at: Value = json!({"blockHash": block.hash.to_string(), "requireCanonical": true});
        for _ in 0..TRIES {
            let answer: Result<Bytes, Error> = endpoint.call("eth_call", &(&call, &at)).await;
            match answer {
                Ok(answer) => return Ok(count_of(&answer)),
                // It knows no blocks by hash.
                Err(Error::Rpc { code: -32_602, .. }) if at.is_object() => {
                    at = json!(quantity(block.number));
                }
                Err(Error::Rpc { code: -32_601, .. }) => return Ok(None),
                Err(Error::Rpc { message, .. }) => {
                    tracing::debug!(block = block.number, "the tasks were not counted: {message}");
                    tokio::time::sleep(BETWEEN_TRIES).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// A range was not read: the next time fewer blocks are asked for, here or elsewhere.
    pub(super) fn ask_for_less(
        &mut self,
        endpoint: &Endpoint,
        error: Error,
        asked: u64,
    ) -> Result<Progress, Error> {
        self.log_failures += 1;
        let cursor = self.row.cursor;
        match error {
            Error::TooMuch { message, .. } => match self.width.shrink(asked) {
                true => Ok(Progress { cursor, events: 0, more: true }),
                false => Err(endpoint.unreadable("eth_getLogs", message)),
            },
            error => {
                // A quota is not about the range, as long as it does not come for every range.
                if error.class() == Class::SmallerRange || self.log_failures > 1 {
                    self.width.fail(asked);
                }
                Err(error)
            }
        }
    }

    fn contradiction(&self, endpoint: &Endpoint, block: u64, log: &Log) -> Error {
        let other = log.block().map(|block| block.hash.to_string()).unwrap_or_default();
        let what = format!("its logs name a block {other} that is not the one its header names");
        Error::Inconsistent { endpoint: endpoint.shown().to_owned(), block, what }
    }
}

fn count_of(answer: &Bytes) -> Option<u64> {
    <TaskBoard::taskCountCall as alloy::sol_types::SolCall>::abi_decode_returns(answer).ok()
}
