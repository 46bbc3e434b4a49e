//! Kept tasks are looked at on the head before their results are signed: what comes too late would only be paid for.

use std::collections::BTreeSet;

use store::Pending;
use task::{
    LocalId,
    publication::{Event, Reason},
};

use super::Publisher;
use crate::{Error, block::Header, board::Board as Contract};

impl Publisher {
    /// Finds which queued results of kept tasks the contract would take now. One whose deadline has passed is given up;
    /// one that the contract does not have waits for what the watcher reads.
    pub(super) async fn check_kept(&mut self, head: &Header) -> Result<(), Error> {
        let limit = u32::try_from(self.options.max_batch.saturating_mul(4)).unwrap_or(u32::MAX);
        let mut queue = self.store.queued(&self.board, limit).await?;
        queue.retain(|pending| pending.publication.identity.task_id.is_kept());
        let contract = Contract::new(self.client.clone(), self.options.contract);
        let mut takes: BTreeSet<LocalId> = BTreeSet::new();
        for pending in queue {
            let Some(kept) = contract.kept(&pending.publication.identity).await? else { continue };
            match kept.deadline_at {
                // It stands in the next block at the earliest, whose time is later than the head's.
                Some(deadline_at) if head.timestamp().is_some_and(|now| now >= deadline_at) => {
                    self.give_up_late(&pending, deadline_at).await?;
                }
                _ => {
                    takes.insert(pending.publication.task);
                }
            }
        }
        self.memory.kept = takes;
        Ok(())
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
