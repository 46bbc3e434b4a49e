//! The plot: apply what was reported, find tasks with a step that is due, take one step at a time, save, repeat.
//!
//! The database is the queue: nothing is remembered here but which tasks have a worker right now, so start-up recovery
//! and normal work are one code path. Channels only wake.

mod backoff;
mod step;

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use store::{Store, Versioned};
use task::{Effect, LocalId, Policy, State};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{admission::Terms, work::Work};

/// How many reported events are applied in one transaction.
const EVENTS_AT_ONCE: u32 = 256;
/// How often old tasks are looked for, and how many are forgotten in one transaction.
const FORGET_EVERY: Duration = Duration::from_secs(600);
const FORGET_AT_ONCE: u32 = 500;
/// The longest sleep: a wake that was lost delays no longer.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// The pipeline's settings.
#[derive(Debug, Clone)]
pub struct Options {
    /// Guests at once.
    pub concurrency: NonZeroUsize,
    /// Tasks whose content is fetched or looked at, at once, beside those that run.
    pub fetches: NonZeroUsize,
    /// Whether results are published.
    pub publishes: bool,
    /// Whom this coordinator works for.
    pub terms: Terms,
    /// Lost jobs of one task before it is given up.
    pub retries: u32,
    /// The first pause after an infrastructure failure; it doubles up to `longest_pause`.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// How long content that cannot be had is tried for when the task has no deadline.
    pub content_deadline: Duration,
    /// How long settled tasks are kept.
    pub retention: Duration,
}

/// Who is woken by whom.
#[derive(Debug, Clone, Default)]
pub struct Wakes {
    /// Wakes the pipeline: events were appended.
    pub pipeline: Arc<Notify>,
    /// Wakes the publisher: results were queued.
    pub publisher: Arc<Notify>,
}

/// The pipeline cannot go on: the database failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("the pipeline cannot go on without its database")]
    Store(#[from] store::Error),
    /// A worker panicked.
    #[error("a worker of the pipeline died")]
    Worker(#[source] tokio::task::JoinError),
}

/// Moves every task from step to step.
#[derive(Debug)]
pub struct Pipeline {
    shared: Arc<Shared>,
    workers: JoinSet<(LocalId, Result<(), store::Error>)>,
    busy: HashMap<LocalId, CancellationToken>,
}

/// What the workers share.
#[derive(Debug)]
struct Shared {
    store: Store,
    work: Arc<Work>,
    instance: job::Instance,
    options: Options,
    wakes: Wakes,
    fetch_places: Arc<Semaphore>,
    run_places: Arc<Semaphore>,
}

/// A place of a lane, held while a worker is in it.
#[derive(Debug)]
enum Place {
    Fetch(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit),
    Run(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit),
    /// Short steps need none.
    Short,
}

const FETCH_STATES: &[&str] = &["requested", "fetching"];
const RUN_STATES: &[&str] = &["running", "ready"];
const SHORT_STATES: &[&str] = &["finished", "mined", "final", "withheld", "cancelled"];
/// Short steps that are begun at once.
const SHORT_STEPS: usize = 16;

impl Pipeline {
    /// Puts the pipeline together; nothing is started.
    #[must_use]
    pub fn new(store: Store, work: Arc<Work>, options: Options, wakes: Wakes) -> Self {
        let instance =
            job::Instance::parse(store.instance()).unwrap_or_else(|| job::Instance::of(&[0; 16]));
        let shared = Shared {
            fetch_places: Arc::new(Semaphore::new(options.fetches.get())),
            run_places: Arc::new(Semaphore::new(options.concurrency.get())),
            store,
            work,
            instance,
            options,
            wakes,
        };
        Self { shared: Arc::new(shared), workers: JoinSet::new(), busy: HashMap::new() }
    }

    /// Works until `soft` is cancelled. Every step is saved, so a stop waits for no guest: what runs is followed or
    /// started again after the next start.
    pub async fn run(mut self, soft: CancellationToken) -> Result<(), Error> {
        self.sweep().await;
        let mut forget_at = Instant::now();
        while !soft.is_cancelled() {
            if forget_at <= Instant::now() && !self.forget_old().await? {
                forget_at = Instant::now() + FORGET_EVERY;
            }
            let woken = Arc::clone(&self.shared.wakes.pipeline);
            let woken = woken.notified();
            let more = self.apply_reported().await?;
            self.dispatch().await?;
            if more {
                continue;
            }
            let sleep = self.until_next_step().await?;
            tokio::select! {
                () = woken => {}
                () = soft.cancelled() => {}
                () = tokio::time::sleep(sleep) => {}
                Some(done) = self.workers.join_next() => self.leave(done)?,
            }
            while let Some(done) = self.workers.try_join_next() {
                self.leave(done)?;
            }
        }
        for stop in self.busy.values() {
            stop.cancel();
        }
        while let Some(done) = self.workers.join_next().await {
            self.leave(done)?;
        }
        Ok(())
    }

    /// Forgets settled tasks past their retention; answers whether there may be more.
    async fn forget_old(&self) -> Result<bool, Error> {
        let retention =
            i64::try_from(self.shared.options.retention.as_millis()).unwrap_or(i64::MAX);
        let before_ms = store::now_ms().saturating_sub(retention);
        let mut writer = self.shared.store.begin().await?;
        let forgotten = writer.forget_settled(before_ms, FORGET_AT_ONCE).await?;
        writer.commit().await?;
        Ok(forgotten == u64::from(FORGET_AT_ONCE))
    }

    fn leave(
        &mut self,
        done: Result<(LocalId, Result<(), store::Error>), tokio::task::JoinError>,
    ) -> Result<(), Error> {
        let (id, result) = done.map_err(Error::Worker)?;
        self.busy.remove(&id);
        match result {
            // Somebody else's event came first: the next round sees the row as it is now.
            Ok(()) | Err(store::Error::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Applies reported events; answers whether there may be more.
    async fn apply_reported(&mut self) -> Result<bool, Error> {
        let store = &self.shared.store;
        let events = store.pending_events(EVENTS_AT_ONCE).await?;
        if events.is_empty() {
            return Ok(false);
        }
        let mut stopped = Vec::new();
        let mut writer = store.begin().await?;
        for row in &events {
            let before = writer.load(row.task).await?;
            match writer.apply_logged(before, row.seq, &row.event).await {
                Ok(after) if after.task.state.is_settled() || mined(&after.task.state) => {
                    stopped.push(row.task);
                }
                Ok(_) => {}
                Err(store::Error::Transition(error)) => {
                    tracing::warn!(task.local_id = row.task.0, %error, "an event did not fit and was passed over");
                    metrics::counter!("wasm_exec_pipeline_unfit_events_total").increment(1);
                    writer.mark_applied(row.seq).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        writer.commit().await?;
        for id in stopped {
            if let Some(stop) = self.busy.get(&id) {
                stop.cancel();
            }
        }
        Ok(events.len() == EVENTS_AT_ONCE as usize)
    }

    /// Gives tasks with a due step to workers, as far as there are places.
    async fn dispatch(&mut self) -> Result<(), Error> {
        for (states, places) in [
            (RUN_STATES, Some(Arc::clone(&self.shared.run_places))),
            (FETCH_STATES, Some(Arc::clone(&self.shared.fetch_places))),
            (SHORT_STATES, None),
        ] {
            let mut after = LocalId(0);
            loop {
                let free = places.as_ref().map_or(SHORT_STEPS, |lane| lane.available_permits());
                if free == 0 {
                    break;
                }
                let limit = free + self.busy.len();
                let now_ms = store::now_ms();
                let due = self
                    .shared
                    .store
                    .due(states, now_ms, after, u32::try_from(limit).unwrap_or(u32::MAX))
                    .await?;
                let page = due.len();
                for versioned in due {
                    after = versioned.task.local_id;
                    // What the watcher said of a new task is applied first, lest its worker work in vain.
                    let is_told = versioned.task.included.is_some() || states != FETCH_STATES;
                    if !is_told || self.busy.contains_key(&after) {
                        continue;
                    }
                    let place = match (&places, states) {
                        (None, _) => Place::Short,
                        (Some(lane), states) => match Arc::clone(lane).try_acquire_owned() {
                            Err(_) => break,
                            Ok(permit) if states == FETCH_STATES => Place::Fetch(permit),
                            Ok(permit) => Place::Run(permit),
                        },
                    };
                    self.start(versioned, place);
                }
                if page < limit || places.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn start(&mut self, versioned: Versioned, place: Place) {
        let id = versioned.task.local_id;
        let stop = CancellationToken::new();
        self.busy.insert(id, stop.clone());
        let shared = Arc::clone(&self.shared);
        let span = tracing::info_span!(
            "task",
            task.local_id = id.0,
            task.id = %versioned.task.identity.task_id,
            task.attempt = versioned.task.attempts
        );
        let worker = async move {
            let result = step::Worker { shared, stop, place }.drive(versioned).await;
            (id, result)
        };
        self.workers.spawn(tracing::Instrument::instrument(worker, span));
    }

    async fn until_next_step(&self) -> Result<Duration, Error> {
        let now_ms = store::now_ms();
        let next = self.shared.store.next_due_at_ms(now_ms).await?;
        let wait = next.map_or(LONGEST_SLEEP, |at| {
            Duration::from_millis(u64::try_from(at - now_ms).unwrap_or(0))
        });
        Ok(wait.min(LONGEST_SLEEP))
    }

    /// Removes jobs of this instance that no running task names: what a crash left between two steps.
    async fn sweep(&self) {
        let runtime = self.shared.work.runtime();
        let names = match runtime.list().await {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(error = %error, "cannot list the jobs that an earlier run may have left");
                return;
            }
        };
        for name in names {
            let id = LocalId(i64::try_from(name.task()).unwrap_or(0));
            let wanted = match self.shared.store.task(id).await {
                Ok(Some(row)) => row.task.state == State::Running { attempt: name.attempt() },
                Ok(None) => false,
                Err(_) => true,
            };
            if !wanted && let Err(error) = runtime.remove(&name).await {
                tracing::warn!(job = %name, error = %error, "cannot remove a job that an earlier run left");
            }
        }
    }
}

impl Shared {
    fn policy(&self) -> Policy {
        Policy { publishes: self.options.publishes }
    }

    fn next(&self, versioned: &Versioned) -> Effect {
        versioned.task.next(self.policy(), store::now_ms())
    }
}

fn mined(state: &State) -> bool {
    matches!(state, State::Mined { .. })
}
