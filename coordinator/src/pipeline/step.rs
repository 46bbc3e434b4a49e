//! One worker drives one task, one saved step after the other, until it rests, waits or needs a place it cannot get.

use std::{sync::Arc, time::Instant};

use executor_protocol::{INLINE_DOCUMENT_BYTES, Rejection};
use job::Name;
use store::{Publication, ResultRow, Versioned};
use task::{Answer, Effect, Event, Hex, State, Task};
use tokio_util::sync::CancellationToken;

use super::{Place, Shared, backoff};
use crate::{
    admission,
    telemetry::causes,
    work::{self, Answered, Prepared, Refused, Runnable},
};

/// The most gas that a callback may ask for: `MAX_CALLBACK_GAS` of the contract.
const MOST_CALLBACK_GAS: u32 = 1_000_000;

pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    /// Cancelled when the task needs no result any more, and at a stop.
    pub(super) stop: CancellationToken,
    pub(super) place: Place,
}

impl Worker {
    /// Takes steps until there is none to take here.
    pub(super) async fn drive(mut self, mut task: Versioned) -> Result<(), store::Error> {
        // Content that was fetched a step ago is still held.
        let mut runnable: Option<Box<Runnable>> = None;
        while !self.stop.is_cancelled() {
            task = match self.shared.next(&task) {
                Effect::Wait(_) | Effect::Rest => return Ok(()),
                Effect::Fetch => {
                    if !matches!(self.place, Place::Fetch(_)) {
                        return self.hand_back();
                    }
                    let Some((after, fetched)) = self.fetch(task).await? else { return Ok(()) };
                    runnable = fetched;
                    after
                }
                Effect::Run => {
                    if !self.enter_run_lane() {
                        return self.hand_back();
                    }
                    let attempt = task.task.attempts + 1;
                    self.save(task, &Event::Started { attempt }).await?
                }
                Effect::Follow { attempt } => {
                    if !self.enter_run_lane() {
                        return self.hand_back();
                    }
                    match self.follow(task, attempt, runnable.take()).await? {
                        Some(after) => after,
                        None => return Ok(()),
                    }
                }
                Effect::Publish => self.publish(task).await?,
                Effect::Retire(reason) => {
                    self.save(task, &Event::Retired { reason: reason.to_owned() }).await?
                }
                Effect::Clean => self.clean(task).await?,
            };
        }
        Ok(())
    }

    /// The next step belongs to another lane: the row says so, the pipeline finds it there.
    fn hand_back(&self) -> Result<(), store::Error> {
        self.shared.wakes.pipeline.notify_one();
        Ok(())
    }

    fn enter_run_lane(&mut self) -> bool {
        if matches!(self.place, Place::Run(_)) {
            return true;
        }
        match Arc::clone(&self.shared.run_places).try_acquire_owned() {
            Ok(permit) => {
                self.place = Place::Run(permit);
                // The place in the lane before is free now.
                self.shared.wakes.pipeline.notify_one();
                true
            }
            Err(_) => false,
        }
    }

    async fn save(&self, task: Versioned, event: &Event) -> Result<Versioned, store::Error> {
        let mut writer = self.shared.store.begin().await?;
        let after = writer.apply(task, event, store::now_ms()).await?;
        writer.commit().await?;
        Ok(after)
    }

    /// Admits, fetches, verifies and looks at the content; `None` when the worker was stopped.
    async fn fetch(
        &self,
        task: Versioned,
    ) -> Result<Option<(Versioned, Option<Box<Runnable>>)>, store::Error> {
        let task = self.save(task, &Event::FetchStarted).await?;
        let prepared = match self.admit(&task.task).await? {
            Err(refused) => Ok(Prepared::Answered(Box::new(Answered::rejected(refused)))),
            Ok(request) => tokio::select! {
                prepared = self.shared.work.prepare(request) => prepared,
                () = self.stop.cancelled() => return Ok(None),
            },
        };
        match prepared {
            Ok(Prepared::Runnable(runnable)) => {
                let after = self.save(task, &Event::Fetched).await?;
                Ok(Some((after, Some(runnable))))
            }
            Ok(Prepared::Answered(answer)) => Ok(Some((self.finish(task, &answer).await?, None))),
            Err(error) => Ok(Some((self.defer(task, &error).await?, None))),
        }
    }

    async fn admit<'a>(
        &self,
        task: &'a Task,
    ) -> Result<Result<&'a task::Request, Refused>, store::Error> {
        let request = match &task.submission.request {
            Ok(request) => request,
            Err(malformed) => {
                return Ok(Err(malformed.into()));
            }
        };
        let terms = &self.shared.options.terms;
        let since_ms = task.seen_at_ms - admission::QUOTA_WINDOW_MS;
        let earlier = self
            .shared
            .store
            .submitted_since(
                &task.submission.requester,
                since_ms,
                task.local_id,
                terms.free_tasks_per_hour,
            )
            .await?;
        // A task is judged as of when it was seen: waiting for its turn does not make it late, its deadline does.
        let now_ms = if task.failures == 0 { store::now_ms() } else { task.seen_at_ms };
        Ok(admission::admit(terms, request, earlier, now_ms).map(|()| request))
    }

    /// Starts or finds the job of this attempt and follows it; `None` when the worker was stopped.
    async fn follow(
        &self,
        task: Versioned,
        attempt: u32,
        runnable: Option<Box<Runnable>>,
    ) -> Result<Option<Versioned>, store::Error> {
        let name = self.job(&task.task, attempt);
        let work = &self.shared.work;
        let began = Instant::now();
        let done = async {
            let runnable = match (runnable, &task.task.submission.request) {
                (Some(runnable), _) => runnable,
                (None, Ok(request)) => match work.prepare(request).await? {
                    Prepared::Runnable(runnable) => runnable,
                    Prepared::Answered(answer) => return Ok(*answer),
                },
                (None, Err(malformed)) => return Ok(Answered::rejected(malformed.into())),
            };
            work.execute(&name, &runnable).await
        };
        let done = tokio::select! {
            done = done => done,
            () = self.stop.cancelled() => return Ok(None),
        };
        metrics::histogram!("wasm_exec_job_duration_seconds").record(began.elapsed().as_secs_f64());
        match done {
            Ok(answer) => {
                let after = self.finish(task, &answer).await?;
                self.remove(&name).await;
                Ok(Some(after))
            }
            Err(error) => {
                // What is left of the attempt must not run beside the next one.
                self.remove(&name).await;
                Ok(Some(self.defer(task, &error).await?))
            }
        }
    }

    /// Removes a job early; what fails here is done again when the task is cleaned.
    async fn remove(&self, name: &Name) {
        if let Err(error) = self.shared.work.runtime().remove(name).await {
            tracing::warn!(job = %name, error = %error, "cannot remove a job yet");
        }
    }

    fn job(&self, task: &Task, attempt: u32) -> Name {
        let id = u64::try_from(task.local_id.0).unwrap_or(0);
        Name::new(&self.shared.instance, id, attempt)
    }

    /// Saves the outcome and, when its document goes on chain as it is, queues its publication in the same transaction.
    async fn finish(
        &self,
        task: Versioned,
        answered: &Answered,
    ) -> Result<Versioned, store::Error> {
        let document = &answered.document;
        let digest = Hex(document.digest());
        let answer = Answer {
            status: answered.outcome.status(),
            digest,
            code: answered.outcome.code().map(str::to_owned),
        };
        metrics::counter!("wasm_exec_tasks_finished_total", "status" => answer.status.name())
            .increment(1);
        tracing::info!(
            status = answer.status.name(),
            code = answer.code.as_deref(),
            digest = %digest,
            message = answered.message.as_deref(),
            "the task has an outcome"
        );
        let mut record = answered.record.clone();
        if let Some(record) = &mut record
            && record.message.is_none()
        {
            record.message.clone_from(&answered.message);
        }
        let beside = match &record {
            Some(record) => serde_json::to_string(record).ok(),
            None => answered
                .message
                .as_ref()
                .map(|message| serde_json::json!({ "message": message }).to_string()),
        };
        let row = ResultRow {
            document: document.as_str().to_owned(),
            digest: digest.to_string(),
            record: beside,
        };
        let now_ms = store::now_ms();
        let mut writer = self.shared.store.begin().await?;
        writer.save_result(task.task.local_id, &row, now_ms).await?;
        let mut after = writer.apply(task, &Event::Finished { answer }, now_ms).await?;
        let inline = row.document.len() <= INLINE_DOCUMENT_BYTES;
        let queue = inline && self.shared.next(&after) == Effect::Publish;
        if queue && let Some(publication) = publication(&after.task, &row) {
            writer.queue_publication(&publication, now_ms).await?;
            after = writer.apply(after, &Event::Queued, now_ms).await?;
        }
        writer.commit().await?;
        if queue {
            self.shared.wakes.publisher.notify_one();
        }
        Ok(after)
    }

    /// Stores the document where its digest is its address, when it does not go on chain itself, and queues it.
    async fn publish(&self, task: Versioned) -> Result<Versioned, store::Error> {
        let request = task.task.submission.request.as_ref().ok();
        let deadline_at = request.and_then(|request| request.deadline_at);
        if task.task.identity.task_id.is_kept()
            && admission::has_passed(deadline_at, store::now_ms())
        {
            let reason =
                "the deadline has passed: the contract takes no result, `expire` refunds the fee";
            return self.save(task, &Event::Retired { reason: reason.to_owned() }).await;
        }
        let Some(row) = self.shared.store.result(task.task.local_id).await? else {
            // It had been answered before this coordinator ran it, and that answer is gone: run it.
            return self.save(task, &Event::DocumentMissing).await;
        };
        if row.document.len() > INLINE_DOCUMENT_BYTES
            && let Err(error) = self.shared.work.content().put_raw(row.document.as_bytes()).await
        {
            tracing::warn!(error = %error, "the result document cannot be stored yet, so it is not published yet");
            return self.postpone(task, error.code(), causes(&error)).await;
        }
        let Some(publication) = publication(&task.task, &row) else {
            let error = "the block of its submission is not known";
            return self.postpone(task, "not_included", error.to_owned()).await;
        };
        let now_ms = store::now_ms();
        let mut writer = self.shared.store.begin().await?;
        writer.queue_publication(&publication, now_ms).await?;
        let after = writer.apply(task, &Event::Queued, now_ms).await?;
        writer.commit().await?;
        self.shared.wakes.publisher.notify_one();
        Ok(after)
    }

    /// After a failure of the infrastructure: again later, or given up with a recorded reason.
    async fn defer(&self, task: Versioned, error: &work::Error) -> Result<Versioned, store::Error> {
        let options = &self.shared.options;
        let until_ms = backoff::content_until_ms(options, &task.task);
        let given_up = match error {
            work::Error::Lost { .. } if task.task.failures >= options.retries => {
                Some(Rejection::RetriesExhausted)
            }
            _ if store::now_ms() < until_ms => None,
            _ if error.is_content() => Some(Rejection::ContentUnavailable),
            _ => Some(Rejection::RetriesExhausted),
        };
        let message = causes(error);
        metrics::counter!("wasm_exec_pipeline_failures_total").increment(1);
        if let Some(rejection) = given_up {
            tracing::warn!(code = error.code(), error = %message, "the task is given up");
            let message = format!("{} ({message})", error.code());
            return self.finish(task, &Answered::rejected(Refused { rejection, message })).await;
        }
        self.postpone(task, error.code(), message).await
    }

    async fn postpone(
        &self,
        task: Versioned,
        code: &str,
        message: String,
    ) -> Result<Versioned, store::Error> {
        let now_ms = store::now_ms();
        let spread = u64::try_from(task.task.local_id.0).unwrap_or(0);
        let pause = backoff::pause(&self.shared.options, task.task.failures + 1, spread);
        let limit_ms = backoff::content_until_ms(&self.shared.options, &task.task);
        let again_ms = now_ms + i64::try_from(pause.as_millis()).unwrap_or(i64::MAX / 2);
        // The last try is at the limit, not after it.
        let until_ms = if now_ms < limit_ms { again_ms.min(limit_ms) } else { again_ms };
        tracing::info!(code, error = %message, pause_ms = until_ms - now_ms, "the step is tried again later");
        let event = Event::Deferred { until_ms, code: code.to_owned(), message };
        self.save(task, &event).await
    }

    /// Removes what was created for the task and a publication that nobody has signed yet.
    async fn clean(&self, task: Versioned) -> Result<Versioned, store::Error> {
        for attempt in 1..=task.task.attempts {
            let name = self.job(&task.task, attempt);
            if let Err(error) = self.shared.work.runtime().remove(&name).await {
                return self.postpone(task, error.code(), causes(&error)).await;
            }
        }
        let mut writer = self.shared.store.begin().await?;
        if !matches!(task.task.state, State::Mined { .. }) {
            writer.withdraw_publication(task.task.local_id).await?;
        }
        let after = writer.apply(task, &Event::Cleaned, store::now_ms()).await?;
        writer.commit().await?;
        Ok(after)
    }
}

/// What goes on chain for a task that has a result; none while the block of its submission is gone.
fn publication(task: &Task, row: &ResultRow) -> Option<Publication> {
    let answer = task.state.answer()?;
    Some(Publication {
        task: task.local_id,
        identity: task.identity.clone(),
        status: answer.status as u8,
        digest: row.digest.clone(),
        document: (row.document.len() <= INLINE_DOCUMENT_BYTES).then(|| row.document.clone()),
        callback_gas: match &task.submission.request {
            Ok(request) => request.callback_gas,
            // What its terms say is not known; the contract calls back all the same.
            Err(_) if task.identity.task_id.is_kept() => MOST_CALLBACK_GAS,
            Err(_) => 0,
        },
        included: task.included?,
    })
}
