//! One worker drives one task, one saved step after the other, until it rests, waits or needs a place it cannot get.

use std::{sync::Arc, time::Instant};

use executor_protocol::{INLINE_DOCUMENT_BYTES, Status};
use job::Name;
use store::{Publication, ResultRow, Versioned, Waiting};
use task::{Answer, Effect, Event, Hex, State, Task};
use task_board::gas;

use super::{Shared, Stop, Way};
use crate::{
    admission,
    price::Price,
    telemetry::causes,
    work::{Answered, Fetched, Looked, Refused},
};

/// The most gas that a callback may ask for: `MAX_CALLBACK_GAS` of the contract.
const MOST_CALLBACK_GAS: u32 = 1_000_000;

pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    /// Stopped when the task needs no result any more, for another task, and at a stop.
    pub(super) stop: Stop,
    /// The lane that it has a place in.
    pub(super) way: Way,
}

impl Worker {
    /// Takes steps until there is none to take here.
    pub(super) async fn drive(mut self, mut task: Versioned) -> Result<(), store::Error> {
        // Content that was fetched a step ago is still held.
        let mut fetched: Option<Box<Fetched>> = None;
        while !self.stop.token.is_cancelled() {
            task = match self.shared.next(&task) {
                Effect::Wait(_) | Effect::Rest => return Ok(()),
                Effect::Fetch => {
                    if !matches!(self.way, Way::First | Way::Again) {
                        return self.hand_back();
                    }
                    let Some((after, content)) = self.fetch(task).await? else { return Ok(()) };
                    fetched = content;
                    after
                }
                Effect::Run => {
                    if !self.enter_run_lane(&task) {
                        return self.hand_back();
                    }
                    if let Some(refused) = self.over_run_time(&task).await? {
                        self.finish(task, &Answered::rejected(refused)).await?
                    } else if self.is_unwanted(&task).await {
                        let message = "the contract takes no result for it at the newest block: it waits for what \
                                       becomes of that block"
                            .to_owned();
                        self.hold(task, "not_wanted_at_head", message).await?
                    } else {
                        let attempt = task.task.attempts + 1;
                        self.save(task, &Event::Started { attempt }).await?
                    }
                }
                Effect::Follow { attempt } => {
                    if !self.enter_run_lane(&task) {
                        return self.hand_back();
                    }
                    match self.follow(task, attempt, fetched.take()).await? {
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

    /// Goes on to run at once when there is a place and nobody waits for it.
    fn enter_run_lane(&mut self, task: &Versioned) -> bool {
        if self.way == Way::Run {
            return true;
        }
        if !matches!(self.way, Way::First | Way::Again)
            || self.shared.health.stops(crate::health::Part::Runtime)
        {
            return false;
        }
        let fee_wei = task.task.submission.request.as_ref().map_or(0, |request| request.fee_wei);
        let weight = u128::BITS - fee_wei.leading_zeros();
        let mark = if weight == 0 { "" } else { "$" };
        let waiting = [Waiting {
            id: task.task.local_id,
            flow: format!("{mark}{}", task.task.submission.requester),
            weight,
            due_at_ms: task.task.due_at_ms,
        }];
        let now_ms = self.shared.clock_ms();
        let mut lanes = self.shared.lanes();
        if lanes.runs_wait || lanes.run.next(&waiting, now_ms).is_none() {
            return false;
        }
        let [task] = waiting;
        lanes.run.take(&task, now_ms);
        if let Some(lane) = lanes.lane(self.way) {
            lane.give_back(task.id, now_ms);
        }
        self.way = Way::Run;
        drop(lanes);
        // The place in the lane before is free now.
        self.shared.wakes.pipeline.notify_one();
        true
    }

    pub(super) async fn save(
        &self,
        task: Versioned,
        event: &Event,
    ) -> Result<Versioned, store::Error> {
        let mut writer = self.shared.store.begin().await?;
        let after = writer.apply(task, event, store::now_ms()).await?;
        writer.commit().await?;
        Ok(after)
    }

    /// Admits, fetches and verifies the content; `None` when the worker was stopped.
    async fn fetch(
        &self,
        task: Versioned,
    ) -> Result<Option<(Versioned, Option<Box<Fetched>>)>, store::Error> {
        let task = self.save(task, &Event::FetchStarted).await?;
        let request = match self.admit(&task).await? {
            Admission::Refused(refused) => {
                return Ok(Some((self.finish(task, &Answered::rejected(refused)).await?, None)));
            }
            Admission::Unknown => {
                let message = "the chain does not say what gas costs".to_owned();
                return Ok(Some((self.hold(task, "price_unknown", message).await?, None)));
            }
            Admission::Taken(request) => request,
        };
        let fetched = tokio::select! {
            fetched = self.shared.work.fetch(&request) => fetched,
            () = self.stop.token.cancelled() => {
                return if self.gives_way() {
                    let message = "it took long, and others wait".to_owned();
                    Ok(Some((self.give_way(task, message).await?, None)))
                } else {
                    Ok(None)
                };
            }
        };
        match fetched {
            Ok(Ok(fetched)) => {
                self.shared.forget_holds(task.task.local_id);
                let after = self.save(task, &Event::Fetched).await?;
                Ok(Some((after, Some(Box::new(fetched)))))
            }
            Ok(Err(refused)) => {
                Ok(Some((self.finish(task, &Answered::rejected(refused)).await?, None)))
            }
            Err(error) => Ok(Some((self.failed(task, &error).await?, None))),
        }
    }

    fn gives_way(&self) -> bool {
        self.stop.for_another.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Whether the task is taken: everything that can be said before its content is fetched.
    async fn admit(&self, versioned: &Versioned) -> Result<Admission, store::Error> {
        let task = &versioned.task;
        let request = match &task.submission.request {
            Ok(request) => request,
            Err(malformed) => return Ok(Admission::Refused(malformed.into())),
        };
        let terms = &self.shared.options.terms;
        if let Err(refused) = admission::check(request, self.shared.work.limits()) {
            return Ok(Admission::Refused(refused));
        }
        if request.callback_gas != 0 {
            let price_wei = match self.shared.prices.now().await {
                Price::NoChain => 0,
                Price::Unknown => return Ok(Admission::Unknown),
                Price::Wei(price) => price,
            };
            if let Err(refused) = admission::pays_for_callback(request, price_wei) {
                return Ok(Admission::Refused(refused));
            }
        }
        let dated = self.dated(versioned).await?;
        let earlier = self.use_before(&dated).await?;
        // A task is judged as of when it was seen: waiting for its turn does not make it late, its deadline does.
        let now_ms = if task.failures == 0 { store::now_ms() } else { task.seen_at_ms };
        Ok(match admission::admit(terms, request, earlier, now_ms) {
            Ok(()) => Admission::Taken(request.clone()),
            Err(refused) => Admission::Refused(refused),
        })
    }

    /// The task with the time of its block, which is asked for when the log did not have it.
    async fn dated(&self, versioned: &Versioned) -> Result<Versioned, store::Error> {
        let mut dated = versioned.clone();
        if dated.submitted_at_ms != 0 {
            return Ok(dated);
        }
        let made_at_ms = match &dated.task.included {
            Some(block) => self.shared.prices.made_at_ms(block).await,
            None => None,
        };
        dated.submitted_at_ms = made_at_ms.unwrap_or(dated.task.seen_at_ms);
        let mut writer = self.shared.store.begin().await?;
        writer.date(dated.task.local_id, dated.submitted_at_ms).await?;
        writer.commit().await?;
        Ok(dated)
    }

    async fn use_before(&self, task: &Versioned) -> Result<store::Use, store::Error> {
        let since_ms = task.submitted_at_ms.saturating_sub(admission::QUOTA_WINDOW_MS);
        // Those that are taken are not more than the quota, but those that were refused are counted too.
        let most = self.shared.options.terms.free_tasks_per_hour;
        self.shared.store.use_before(task, since_ms, most).await
    }

    /// Whether the requester has used up its run time since the task was admitted.
    async fn over_run_time(&self, task: &Versioned) -> Result<Option<Refused>, store::Error> {
        let Ok(request) = &task.task.submission.request else { return Ok(None) };
        let earlier = self.use_before(&self.dated(task).await?).await?;
        Ok(admission::has_run_time(&self.shared.options.terms, request, earlier).err())
    }

    /// Whether a kept task was closed, or cancelled until now, in a block that is not final yet. That may be taken back,
    /// so it is no verdict; but a result would only be read from a transaction that fails.
    async fn is_unwanted(&self, task: &Versioned) -> bool {
        let identity = &task.task.identity;
        identity.task_id.is_kept()
            && self.shared.prices.takes_result(identity, store::now_ms()).await == Some(false)
    }

    /// Starts or finds the job of this attempt and follows it; `None` when the worker was stopped.
    async fn follow(
        &self,
        task: Versioned,
        attempt: u32,
        fetched: Option<Box<Fetched>>,
    ) -> Result<Option<Versioned>, store::Error> {
        let name = self.job(&task.task, attempt);
        let work = &self.shared.work;
        let began = Instant::now();
        let done = async {
            let fetched = match (fetched, &task.task.submission.request) {
                (Some(fetched), _) => *fetched,
                (None, Ok(request)) => match work.fetch(request).await? {
                    Ok(fetched) => fetched,
                    Err(refused) => return Ok(Answered::rejected(refused)),
                },
                (None, Err(malformed)) => return Ok(Answered::rejected(malformed.into())),
            };
            match work.look(fetched).await? {
                Looked::Runnable(runnable) => work.execute(&name, &runnable).await,
                Looked::Answered(answer) => Ok(*answer),
            }
        };
        let done = tokio::select! {
            done = done => Some(done),
            () = self.stop.token.cancelled() => None,
        };
        let took = began.elapsed();
        let Some(done) = done else {
            if !self.gives_way() {
                return Ok(None);
            }
            self.remove(&name).await;
            self.count_run_time(&task, took).await?;
            let message = "others wait that have used less".to_owned();
            return Ok(Some(self.give_way(task, message).await?));
        };
        metrics::histogram!("wasm_exec_job_duration_seconds").record(took.as_secs_f64());
        self.count_run_time(&task, took).await?;
        match done {
            Ok(answer) => {
                self.shared.forget_holds(task.task.local_id);
                let _writing = self.shared.leave_run_lane(task.task.local_id);
                let log = self.log(&name).await;
                let after = self.finish_with(task, &answer, log.as_deref()).await?;
                self.remove(&name).await;
                Ok(Some(after))
            }
            Err(error) => {
                // What is left of the attempt must not run beside the next one.
                self.remove(&name).await;
                Ok(Some(self.failed(task, &error).await?))
            }
        }
    }

    /// Back into the queue, behind those that never had a place.
    async fn give_way(&self, task: Versioned, message: String) -> Result<Versioned, store::Error> {
        let until_ms = store::now_ms();
        self.save(task, &Event::Held { until_ms, code: "gave_way".to_owned(), message }).await
    }

    /// Only what counts for a quota is written: less than this would be a write for each task.
    async fn count_run_time(
        &self,
        task: &Versioned,
        took: std::time::Duration,
    ) -> Result<(), store::Error> {
        const COUNTED_MS: i64 = 250;
        let took_ms = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
        if took_ms < COUNTED_MS {
            return Ok(());
        }
        let mut writer = self.shared.store.begin().await?;
        writer.add_run_time(task.task.local_id, took_ms).await?;
        writer.commit().await
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
    pub(super) async fn finish(
        &self,
        task: Versioned,
        answered: &Answered,
    ) -> Result<Versioned, store::Error> {
        self.finish_with(task, answered, None).await
    }

    /// The end of what the job's guest wrote; none when that was nothing.
    async fn log(&self, name: &Name) -> Option<String> {
        let log = self.shared.work.runtime().log(name).await.ok().flatten()?;
        let skipped = log.bytes.len().saturating_sub(KEPT_LOG_BYTES);
        let kept = log.bytes.get(skipped..)?;
        // The first line may be the end of one.
        let from = match skipped > 0 || log.truncated {
            true => kept.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1),
            false => 0,
        };
        let text = String::from_utf8_lossy(kept.get(from..)?).into_owned();
        (!text.is_empty()).then_some(text)
    }

    async fn finish_with(
        &self,
        task: Versioned,
        answered: &Answered,
        log: Option<&str>,
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
            reason = answered.message.as_deref(),
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
        if let Some(log) = log {
            writer.save_log(task.task.local_id, log).await?;
        }
        let mut after = writer.apply(task, &Event::Finished { answer }, now_ms).await?;
        let inline = row.document.len() <= INLINE_DOCUMENT_BYTES;
        let is_due = self.shared.next(&after) == Effect::Publish;
        let is_cheap = is_due && self.is_cheap_rejection(&after.task).await;
        let queue = inline && is_due && !is_cheap;
        if is_cheap {
            // All that end in this while go together.
            let batch = self.shared.rejection_batch_ms();
            after = writer.put_off(&after, (now_ms / batch + 1) * batch).await?;
        }
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
        let is_cheap = self.is_cheap_rejection(&task.task).await;
        if is_cheap && !self.shared.policy().rejections {
            let reason = "nobody pays for publishing the rejection: it is recorded, not published";
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
        if is_cheap && self.shared.store.results_are_queued(&publication.identity).await? {
            // Results go first.
            let until_ms = now_ms + self.shared.rejection_batch_ms();
            let mut writer = self.shared.store.begin().await?;
            let after = writer.put_off(&task, until_ms).await?;
            writer.commit().await?;
            return Ok(after);
        }
        let cost_wei = if is_cheap { self.cost_wei(&publication).await } else { Some(0) };
        let mut writer = self.shared.store.begin().await?;
        if is_cheap {
            let Some(cost_wei) = cost_wei else {
                drop(writer);
                let message = "the chain does not say what gas costs".to_owned();
                return self.hold(task, "price_unknown", message).await;
            };
            let budget_wei = self.shared.rejection_budget_wei();
            if !writer.spend_on_rejection(now_ms / DAY_MS, cost_wei, budget_wei).await? {
                drop(writer);
                metrics::counter!("wasm_exec_rejections_unpublished_total").increment(1);
                let reason =
                    "the day's budget for rejections is used up: it is recorded, not published";
                return self.save(task, &Event::Retired { reason: reason.to_owned() }).await;
            }
        }
        writer.queue_publication(&publication, now_ms).await?;
        let after = writer.apply(task, &Event::Queued, now_ms).await?;
        writer.commit().await?;
        self.shared.wakes.publisher.notify_one();
        Ok(after)
    }

    /// Whether a task was rejected and its fee does not pay for saying so: such rejections are published in batches,
    /// under a budget.
    async fn is_cheap_rejection(&self, task: &Task) -> bool {
        let is_rejected =
            task.state.answer().is_some_and(|answer| answer.status == Status::Rejected);
        if !is_rejected {
            return false;
        }
        let fee_wei = task.submission.request.as_ref().map_or(0, |request| request.fee_wei);
        if fee_wei == 0 || !task.identity.task_id.is_kept() {
            return true;
        }
        match self.shared.prices.now().await {
            Price::Wei(price) => {
                fee_wei < price.saturating_mul(u128::from(gas::publish_document(&item(task, 64))))
            }
            Price::NoChain | Price::Unknown => false,
        }
    }

    /// What publishing costs at the most; none when the chain does not say.
    async fn cost_wei(&self, publication: &Publication) -> Option<u128> {
        let item = gas::Item {
            id: task_board::TaskId::new(publication.identity.task_id.0),
            document_bytes: publication.document.as_ref().map_or(0, String::len),
            callback_gas: publication.callback_gas,
        };
        match self.shared.prices.now().await {
            Price::Wei(price) => {
                Some(price.saturating_mul(u128::from(gas::publish_document(&item))))
            }
            Price::NoChain => Some(0),
            Price::Unknown => None,
        }
    }

    /// Removes what was created for the task and a publication that nobody has signed yet.
    async fn clean(&self, task: Versioned) -> Result<Versioned, store::Error> {
        for attempt in 1..=task.task.attempts {
            let name = self.job(&task.task, attempt);
            if let Err(error) = self.shared.work.runtime().remove(&name).await {
                return self.hold(task, error.code(), causes(&error)).await;
            }
        }
        self.shared.forget_holds(task.task.local_id);
        let mut writer = self.shared.store.begin().await?;
        if !matches!(task.task.state, State::Mined { .. }) {
            writer.withdraw_publication(task.task.local_id).await?;
        }
        let after = writer.apply(task, &Event::Cleaned, store::now_ms()).await?;
        writer.commit().await?;
        Ok(after)
    }
}

/// Whether a task is taken.
enum Admission {
    Taken(task::Request),
    Refused(Refused),
    /// What it would cost is not known.
    Unknown,
}

const DAY_MS: i64 = 86_400_000;
/// How much of what a guest wrote is kept beside its result.
const KEPT_LOG_BYTES: usize = 16 << 10;

fn item(task: &Task, document_bytes: usize) -> gas::Item {
    let id = task_board::TaskId::new(task.identity.task_id.0);
    gas::Item { id, document_bytes, callback_gas: 0 }
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
