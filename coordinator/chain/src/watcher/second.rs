//! Everything is read twice: a log that was left out the first time is found the second time, also one of an event that
//! no sequence tells of. The second look comes later, asks in another way (a range instead of a hash), and another
//! endpoint if there is one.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use store::ChainRow;

use super::{
    Progress, Watcher, event,
    sequence::{self, Sequence},
};
use crate::{
    Alarm, Error,
    block::{At, Header, Log},
    endpoint::Endpoint,
};

/// Between two ranges of a second look that has much to catch up with.
const BETWEEN_RANGES: Duration = Duration::from_secs(1);
/// How long an endpoint that contradicted itself is told of.
const TOLD_FOR: Duration = Duration::from_secs(600);

impl Watcher {
    /// Time until a block is looked at a second time, at the least.
    fn second_look_after(&self) -> Duration {
        self.options.second_look_after.unwrap_or(if self.client.is_development() {
            Duration::from_secs(3)
        } else {
            Duration::from_secs(60)
        })
    }

    /// Reads a range a second time, when it is time to.
    pub(super) async fn look_a_second_time(
        &mut self,
        endpoint: &Endpoint,
    ) -> Result<Progress, Error> {
        let cursor = self.row.cursor;
        let idle = Progress { cursor, events: 0, more: false };
        let told_at = *self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        if told_at.is_some_and(|at| at.elapsed() >= TOLD_FOR) {
            self.alarms.clear(Alarm::ProviderInconsistent);
        }
        if Instant::now() < self.second_at {
            return Ok(idle);
        }
        let limit = self.second_limit.min(cursor.number);
        let from = self.row.second_number.min(cursor.number) + 1;
        if from > limit {
            // What was read until now is old enough the next time.
            self.second_limit = cursor.number;
            self.second_at = Instant::now() + self.second_look_after();
            return Ok(idle);
        }
        let to = self.second_width.end(from, limit);
        // It is no hurry: what fails is tried again later, and keeps nobody from reading on.
        self.second_at = Instant::now() + BETWEEN_RANGES.min(self.second_look_after());
        let other = self.client.another(endpoint);
        let asked = other.as_deref().unwrap_or(endpoint);
        match self.read_range_again(asked, from, to).await {
            Ok(events) => Ok(Progress { events, ..idle }),
            Err(error @ Error::Store(_)) => Err(error),
            Err(error) => {
                tracing::debug!(from, to, %error, "the second look failed");
                Ok(idle)
            }
        }
    }

    /// Whether everything since the sequence was whole is read again before anything else.
    pub(super) fn is_reading_again(&self) -> bool {
        self.again_from.is_some()
    }

    /// Reads a range again because something is missing in what was read.
    pub(super) async fn read_again(
        &mut self,
        endpoint: &Endpoint,
        head: &Header,
    ) -> Result<Progress, Error> {
        let cursor = self.row.cursor;
        let from = self.again_from.unwrap_or(cursor.number + 1);
        if from > cursor.number {
            self.again_from = None;
            return Ok(Progress { cursor, events: 0, more: true });
        }
        tracing::debug!(from, cursor = cursor.number, head = head.block().number, "reading again");
        let to = self.second_width.end(from, cursor.number);
        let events = self.read_range_again(endpoint, from, to).await?;
        self.again_from = Some(to + 1);
        Ok(Progress { cursor, events, more: true })
    }

    /// Reads blocks again that are below the cursor and applies what was not seen in them; answers how much that was.
    async fn read_range_again(
        &mut self,
        endpoint: &Endpoint,
        from: u64,
        to: u64,
    ) -> Result<usize, Error> {
        let topics = event::topics();
        let page = match endpoint.logs(self.board.contract, &topics, from, to).await {
            Ok(page) => page,
            Err(error) => {
                let asked = to - from + 1;
                return match error {
                    Error::TooMuch { .. } if self.second_width.shrink(asked) => Ok(0),
                    Error::TooMuch { message, .. } => {
                        Err(endpoint.unreadable("eth_getLogs", message))
                    }
                    error => {
                        self.second_width.fail(asked);
                        Err(error)
                    }
                }
                .and_then(|_: usize| Err(Error::Moved));
            }
        };
        // A node that has not come so far has no logs to give.
        if endpoint.header(At::Number(to)).await?.is_none() {
            return Err(Error::Moved);
        }
        self.second_width.grow(to - from + 1, page.bytes);
        // Every task below the next one was seen. One that is not in the store any more was forgotten, not left out.
        let next = self.row.next_sequence;
        let mut logs = page.logs;
        logs.retain(|log| event::sequence(log).is_none_or(|sequence| sequence >= next));
        let late = self.unseen(&logs).await?;
        for log in &late {
            let Some(block) = log.block() else { continue };
            // What is applied late stands on the branch that is followed, or it is read once more.
            let header = endpoint.header(At::Number(block.number)).await?;
            let Some(header) = header.filter(|header| header.block() == block) else {
                return Err(Error::Moved);
            };
            if log.topics.first().is_some_and(|topic| !header.may_have(&self.board.contract, topic))
            {
                tracing::info!("the filters in this chain's headers do not tell of all logs");
                self.blooms = false;
            }
        }
        if let Some(block) = late.first().and_then(Log::block) {
            let what = format!("{} events were left out when it was read first", late.len());
            self.tell_inconsistency(endpoint, block.number, &what);
        }
        let before = Sequence { next: self.row.next_sequence, whole: self.row.sequence_block };
        // A hole that is there still is seen where reading goes on.
        let sequence = before.extend(sequence::tasks(&logs), to, None).unwrap_or(before);
        let second = match from <= self.row.second_number + 1 {
            true => self.row.second_number.max(to),
            false => self.row.second_number,
        };
        let row = ChainRow {
            next_sequence: sequence.next,
            sequence_block: sequence.whole,
            second_number: second,
            ..self.row
        };
        let now_ms = store::now_ms();
        let mut events = 0;
        let mut writer = self.store.begin().await?;
        for log in &logs {
            events += self.record(&mut writer, log, now_ms).await?;
        }
        writer.save_chain(&self.board, &row, None).await?;
        writer.commit().await?;
        self.row = row;
        if events > 0 {
            tracing::warn!(from, to, events, "events that were left out are here now");
            metrics::counter!("wasm_exec_chain_late_events_total").increment(events as u64);
            self.wakes.notify_one();
        }
        Ok(events)
    }

    /// The logs that say something which is not in the store. Nothing is written.
    async fn unseen(&self, logs: &[Log]) -> Result<Vec<Log>, Error> {
        let mut late = Vec::new();
        if logs.is_empty() {
            return Ok(late);
        }
        let now_ms = store::now_ms();
        let mut writer = self.store.begin().await?;
        for log in logs {
            if self.record(&mut writer, log, now_ms).await? > 0 {
                late.push(log.clone());
            }
        }
        // Dropped without a commit.
        drop(writer);
        Ok(late)
    }

    /// Tells that an endpoint gave two answers to one question.
    pub(super) fn tell_inconsistency(&self, endpoint: &Endpoint, block: u64, what: &str) {
        let error = Error::Inconsistent {
            endpoint: endpoint.shown().to_owned(),
            block,
            what: what.to_owned(),
        };
        metrics::counter!("wasm_exec_chain_inconsistencies_total").increment(1);
        tracing::warn!(code = error.code(), %error, "an endpoint contradicts itself");
        self.alarms.raise(Alarm::ProviderInconsistent, error.to_string());
        *self.told_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}
