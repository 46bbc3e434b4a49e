//! Kept tasks are looked at on the head before their results are signed: what comes too late would only be paid for.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::future::join_all;
use store::Pending;
use task::{
    LocalId,
    publication::{Event, Reason},
};

use super::Publisher;
use crate::{Error, block::Header, board::Board as Contract};

/// How long an answer of the contract counts.
const FRESH: Duration = Duration::from_secs(5);
/// Calls at once.
const CALLS: usize = 8;

/// What the contract said of a kept task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    at: Instant,
    /// Whether it holds the task, and with which deadline (Unix seconds).
    held: Option<Option<u64>>,
}

/// Queued results of kept tasks, and what the contract said of them.
#[derive(Debug, Default)]
pub(super) struct Kept(BTreeMap<LocalId, Looked>);

impl Kept {
    /// Whether the contract takes a result for this task.
    pub(super) fn takes(&self, task: LocalId) -> bool {
        self.0.get(&task).is_some_and(|looked| looked.held.is_some())
    }
}

impl Publisher {
    /// Finds which queued results of kept tasks the contract would take now. One whose deadline has passed is given up;
    /// one that the contract does not have waits for what the watcher reads. A few are asked for at a time, oldest first,
    /// and what is known counts for a while: a provider that fails now and then delays a few results, not all of them.
    pub(super) async fn check_kept(&mut self, head: &Header) -> Result<(), Error> {
        let limit = u32::try_from(self.options.max_batch.saturating_mul(4)).unwrap_or(u32::MAX);
        let mut queue = self.store.queued(&self.board, limit).await?;
        queue.retain(|pending| pending.publication.identity.task_id.is_kept());
        let mut known = BTreeMap::new();
        for Pending { publication, .. } in &queue {
            if let Some(looked) = self.memory.kept.0.remove(&publication.task)
                && looked.at.elapsed() < FRESH
            {
                known.insert(publication.task, looked);
            }
        }
        let contract = Contract::new(self.client.clone(), self.options.contract);
        let unknown: Vec<_> = queue
            .iter()
            .filter(|pending| !known.contains_key(&pending.publication.task))
            .take(self.options.max_batch)
            .collect();
        let mut failed = None;
        for some in unknown.chunks(CALLS) {
            let asked = some.iter().map(|pending| contract.kept(&pending.publication.identity));
            for (pending, kept) in some.iter().zip(join_all(asked).await) {
                match kept {
                    Ok(kept) => {
                        let held = kept.map(|kept| kept.deadline_at);
                        let looked = Looked { at: Instant::now(), held };
                        known.insert(pending.publication.task, looked);
                    }
                    Err(error) => failed = Some(error),
                }
            }
            if failed.is_some() {
                break;
            }
        }
        for pending in &queue {
            let task = pending.publication.task;
            let held = known.get(&task).and_then(|looked| looked.held);
            // It stands in the next block at the earliest, whose time is later than the head's.
            if let Some(Some(deadline_at)) = held
                && head.timestamp().is_some_and(|now| now >= deadline_at)
            {
                known.remove(&task);
                self.give_up_late(pending, deadline_at).await?;
            }
        }
        self.memory.kept = Kept(known);
        match failed {
            Some(error) if self.memory.kept.0.is_empty() => Err(error),
            _ => Ok(()),
        }
    }

    async fn give_up_late(&self, pending: &Pending, deadline_at: u64) -> Result<(), Error> {
        let reason = Reason {
            code: "deadline_passed".to_owned(),
            message: format!(
                "its deadline passed at {deadline_at} (Unix seconds) before its result was sent"
            ),
        };
        let mut writer = self.store.begin().await?;
        // What it is now counts, not what it was before the contract was asked.
        if let Some(now) = writer.publication(pending.publication.task).await? {
            let event = Event::GivenUp { reason };
            writer.advance(&self.account, &now, &event, store::now_ms()).await?;
        }
        writer.commit().await?;
        self.wakes.notify_one();
        Ok(())
    }
}
