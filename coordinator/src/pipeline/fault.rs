//! After a failure: whose fault it is. A task pays only for its own; a part that is not well holds everything back
//! that needs it, is looked after, and goes on by itself.

use std::time::Duration;

use executor_protocol::Rejection;
use job::Name;
use store::Versioned;
use task::{Event, LocalId, State};
use tokio_util::sync::CancellationToken;

use super::{Shared, backoff, step::Worker};
use crate::{
    admission,
    health::Part,
    telemetry::causes,
    work::{self, Answered, Blame, Refused},
};

/// The first and the longest pause between two looks at a part that is not well.
const FIRST_LOOK: Duration = Duration::from_millis(500);
const LONGEST_LOOK: Duration = Duration::from_secs(15);
/// A task whose jobs are lost through the runtime's fault this often, while the runtime is well each time, is what is
/// wrong with it.
const MOST_ATTEMPTS: u32 = 50;

impl Shared {
    /// Looks after a part until it is well, or until there is no time any more.
    pub(super) async fn until_well(&self, part: Part, soft: &CancellationToken) {
        let mut pause = FIRST_LOOK;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = soft.cancelled() => return,
            }
            let looked = tokio::select! {
                looked = self.look_at(part) => looked,
                () = soft.cancelled() => return,
            };
            match looked {
                Ok(()) => return,
                Err(fault) => self.health.raise(part, fault),
            }
            pause = (pause * 2).min(LONGEST_LOOK);
        }
    }

    /// Whether a part is well, by using it.
    pub(super) async fn look_at(&self, part: Part) -> Result<(), crate::health::Fault> {
        match part {
            Part::Content => self.work.content_is_well().await,
            Part::Runtime => {
                // No task has this number.
                let turn = u32::try_from(self.clock_ms() & 0x7fff_ffff).unwrap_or(0);
                self.work.runtime_is_well(&Name::new(&self.instance, 0, turn)).await
            }
        }
    }

    /// How often a step was put off for this reason in a row, this time too.
    fn count_hold(&self, id: LocalId, code: &str) -> u32 {
        let mut held = self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let entry = held.entry(id).or_insert_with(|| (0, code.to_owned()));
        if entry.1 != code {
            *entry = (0, code.to_owned());
        }
        entry.0 = entry.0.saturating_add(1);
        entry.0
    }

    /// A step was taken: what held it back is over.
    pub(super) fn forget_holds(&self, id: LocalId) {
        self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&id);
    }
}

impl Worker {
    /// After a failure of the infrastructure: again later, or given up with a recorded reason.
    pub(super) async fn failed(
        &self,
        task: Versioned,
        error: &work::Error,
    ) -> Result<Versioned, store::Error> {
        metrics::counter!("wasm_exec_pipeline_failures_total").increment(1);
        let shared = &self.shared;
        let (code, message) = (error.code(), causes(error));
        let (part, blame) = match error.blame() {
            Blame::Content => return self.content_is_missing(task, code, message).await,
            Blame::Source | Blame::Local => (Part::Content, error.blame()),
            Blame::Runtime | Blame::Task => (Part::Runtime, error.blame()),
        };
        if let Err(fault) = shared.look_at(part).await {
            shared.health.raise(part, fault);
            shared.wakes.pipeline.notify_one();
            return self.hold(task, code, message).await;
        }
        match blame {
            Blame::Task if task.task.failures >= shared.options.retries => {
                self.give_up(task, Rejection::RetriesExhausted, code, message).await
            }
            Blame::Task => self.postpone(task, code, message).await,
            Blame::Runtime if task.task.attempts >= MOST_ATTEMPTS => {
                self.give_up(task, Rejection::RetriesExhausted, code, message).await
            }
            _ => self.hold(task, code, message).await,
        }
    }

    /// Its content is proved to be missing or wrong, where it was asked for: until it has been for too long.
    async fn content_is_missing(
        &self,
        task: Versioned,
        code: &str,
        message: String,
    ) -> Result<Versioned, store::Error> {
        let now_ms = store::now_ms();
        let mut task = task;
        if task.missing_since_ms == 0 {
            let mut writer = self.shared.store.begin().await?;
            writer.miss_content(task.task.local_id, now_ms).await?;
            writer.commit().await?;
            task.missing_since_ms = now_ms;
        }
        if now_ms >= backoff::content_until_ms(&self.shared.options, &task, now_ms) {
            return self.give_up(task, Rejection::ContentUnavailable, code, message).await;
        }
        self.postpone(task, code, message).await
    }

    async fn give_up(
        &self,
        task: Versioned,
        rejection: Rejection,
        code: &str,
        message: String,
    ) -> Result<Versioned, store::Error> {
        tracing::warn!(code, error = message, "the task is given up");
        let message = format!("{code} ({message})");
        self.finish(task, &Answered::rejected(Refused { rejection, message })).await
    }

    /// Tries a step again later and counts that against the task.
    pub(super) async fn postpone(
        &self,
        task: Versioned,
        code: &str,
        message: String,
    ) -> Result<Versioned, store::Error> {
        let now_ms = store::now_ms();
        let spread = u64::try_from(task.task.local_id.0).unwrap_or(0);
        let pause = backoff::pause(&self.shared.options, task.task.failures + 1, spread);
        let limit_ms = backoff::content_until_ms(&self.shared.options, &task, now_ms);
        let again_ms = now_ms + i64::try_from(pause.as_millis()).unwrap_or(i64::MAX / 2);
        // The last try is at the limit, not after it.
        let until_ms = if now_ms < limit_ms { again_ms.min(limit_ms) } else { again_ms };
        tracing::info!(
            code,
            error = message,
            pause_ms = until_ms - now_ms,
            "the step is tried again later"
        );
        let event = Event::Deferred { until_ms, code: code.to_owned(), message };
        self.save(task, &event).await
    }

    /// Tries a step again later and counts nothing: it is not the task's fault. The same reason is written once.
    pub(super) async fn hold(
        &self,
        task: Versioned,
        code: &str,
        message: String,
    ) -> Result<Versioned, store::Error> {
        let id = task.task.local_id;
        let now_ms = store::now_ms();
        let deadline_at =
            task.task.submission.request.as_ref().ok().and_then(|request| request.deadline_at);
        let is_done = !matches!(
            task.task.state,
            State::Requested | State::Fetching | State::Ready | State::Running { .. }
        );
        if !is_done && admission::has_passed(deadline_at, now_ms) {
            let refused = Refused {
                rejection: Rejection::DeadlinePassed,
                message: format!("it was held back until its deadline: {code} ({message})"),
            };
            return self.finish(task, &Answered::rejected(refused)).await;
        }
        let times = self.shared.count_hold(id, code);
        let spread = u64::try_from(id.0).unwrap_or(0);
        let pause = backoff::pause(&self.shared.options, times, spread);
        let until_ms = now_ms + i64::try_from(pause.as_millis()).unwrap_or(i64::MAX / 2);
        let runs = matches!(task.task.state, State::Running { .. });
        let mut writer = self.shared.store.begin().await?;
        writer.miss_content(id, 0).await?;
        let after = if (times > 1 || is_done) && !runs && task.task.due_at_ms > 0 {
            writer.put_off(&task, until_ms).await?
        } else {
            tracing::info!(
                code,
                error = message,
                pause_ms = until_ms - now_ms,
                "the step is held back"
            );
            let event = Event::Held { until_ms, code: code.to_owned(), message };
            writer.apply(task, &event, now_ms).await?
        };
        writer.commit().await?;
        Ok(after)
    }
}
