//! A right to publish that was withdrawn: results wait for it for a while before they are given up.

use std::time::{Duration, Instant};

use store::Pending;
use task::publication::{Event, Reason};

use super::Publisher;
use crate::{Alarm, Error, board::Board as Contract};

/// Time between two looks whether a right is back.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many results are given up in one transaction.
const AT_ONCE: u32 = 500;
/// How long it is told that somebody else uses the key.
const KEY_ALARM: Duration = Duration::from_secs(3_600);

/// A domain whose results wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    since: Instant,
    looked_at: Option<Instant>,
}

impl Default for Wait {
    fn default() -> Self {
        Self { since: Instant::now(), looked_at: None }
    }
}

impl Publisher {
    /// Looks whether withdrawn rights are back; what waited too long for them is given up.
    pub(super) async fn check_rights(&mut self) -> Result<(), Error> {
        if self.memory.key_used_at.is_some_and(|at| at.elapsed() >= KEY_ALARM) {
            self.memory.key_used_at = None;
            self.alarms.clear(Alarm::KeyUsedElsewhere);
        }
        if self.memory.no_rights.is_empty() {
            return Ok(());
        }
        let contract = Contract::new(self.client.clone(), self.options.contract);
        let waits: Vec<_> =
            self.memory.no_rights.iter().map(|(domain, wait)| (*domain, *wait)).collect();
        for (domain, wait) in waits {
            if wait.looked_at.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
                continue;
            }
            if contract.is_coordinator(domain, self.account.sender).await? {
                tracing::info!(domain, "the right to publish is there again");
                self.memory.no_rights.remove(&domain);
                continue;
            }
            let looked_at = Some(Instant::now());
            self.memory.no_rights.insert(domain, Wait { looked_at, ..wait });
            self.alarms.raise(
                Alarm::RightsWithdrawn,
                format!(
                    "{} may not answer domain {domain} any more; its results wait for {} s until they are given up; \
                     the owner gives the right back by setCoordinator",
                    self.account.sender,
                    self.options.rights_grace.as_secs()
                ),
            );
            if wait.since.elapsed() >= self.options.rights_grace {
                self.give_up(domain).await?;
            }
        }
        if self.memory.no_rights.is_empty() {
            self.alarms.clear(Alarm::RightsWithdrawn);
        }
        Ok(())
    }

    async fn give_up(&self, domain: u16) -> Result<(), Error> {
        let reason = Reason {
            code: "not_coordinator".to_owned(),
            message: format!(
                "the right to answer domain {domain} was withdrawn and did not come back"
            ),
        };
        let now_ms = store::now_ms();
        let mut writer = self.store.begin().await?;
        let queue = writer.queued(&self.board, AT_ONCE).await?;
        let is_its = |pending: &&Pending| pending.publication.identity.task_id.domain() == domain;
        for pending in queue.iter().filter(is_its) {
            let event = Event::GivenUp { reason: reason.clone() };
            writer.advance(&self.account, pending, &event, now_ms).await?;
        }
        writer.commit().await?;
        self.wakes.notify_one();
        Ok(())
    }
}
