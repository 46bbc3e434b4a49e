//! The plot: apply what was reported, find tasks with a step that is due, take one step at a time, save, repeat.
//!
//! The database is the queue: nothing is remembered here but which tasks have a worker right now and what requesters
//! used lately, so start-up recovery and normal work are one code path. Channels only wake.

mod backoff;
mod fair;
mod fault;
mod step;

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use fair::{Lane, Rules};
use store::{Queue, Store, Versioned, Waiting};
use task::{Effect, LocalId, Policy, State};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Terms,
    health::{Health, Part},
    price::Prices,
    work::Work,
};

/// How many reported events are applied in one transaction.
const EVENTS_AT_ONCE: u32 = 256;
/// How often old tasks are looked for, and how many are forgotten in one transaction: few, because nothing else is
/// written meanwhile.
const FORGET_EVERY: Duration = Duration::from_secs(600);
const FORGET_AT_ONCE: u32 = 50;
/// The longest sleep: a wake that was lost delays no longer.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// The longest sleep while tasks wait for a place that somebody may have to give back.
const CROWDED_SLEEP: Duration = Duration::from_millis(100);
/// Flows that are looked at in one round; the next round goes on behind them.
const FLOWS: u32 = 64;
/// Tasks that are stopped for others at once, in each lane.
const STOPPING: usize = 4;

/// The pipeline's settings.
#[derive(Debug, Clone)]
pub struct Options {
    /// Guests at once.
    pub concurrency: NonZeroUsize,
    /// Tasks whose content is fetched for the first time, at once; later tries have a quarter as many places beside.
    pub fetches: NonZeroUsize,
    /// Whether results are published.
    pub publishes: bool,
    /// What may be spent on publishing rejections that nobody paid for, in wei a day; 0 publishes none, and nothing said
    /// leaves it to the chain.
    pub rejection_budget_wei: Option<u128>,
    /// How long such rejections wait for others to go with them, on a chain for development.
    pub rejection_batch: Duration,
    /// And on others.
    pub slow_rejection_batch: Duration,
    /// Whom this coordinator works for.
    pub terms: Terms,
    /// Lost jobs of one task before it is given up.
    pub retries: u32,
    /// The first pause after an infrastructure failure; it doubles up to `longest_pause`.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// How long content that is proved to be missing is tried for, whatever deadline the task names.
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
    busy: HashMap<LocalId, Stop>,
    probes: JoinSet<Part>,
    probed: HashSet<Part>,
    /// The flow behind which each lane looks next.
    behind: HashMap<Way, String>,
    /// Whether somebody waits for a place.
    crowded: bool,
}

/// How a worker is stopped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    token: CancellationToken,
    /// For another task, which gets the place.
    for_another: Arc<AtomicBool>,
}

/// What the workers share.
#[derive(Debug)]
struct Shared {
    store: Store,
    work: Arc<Work>,
    health: Health,
    prices: Prices,
    instance: job::Instance,
    options: Options,
    wakes: Wakes,
    lanes: Mutex<Lanes>,
    /// How often a step was put off for the same reason.
    held: Mutex<HashMap<LocalId, (u32, String)>>,
    began_at: Instant,
}

#[derive(Debug)]
struct Lanes {
    first: Lane,
    again: Lane,
    run: Lane,
    /// Whether a task waits for a place to run.
    runs_wait: bool,
    /// Tasks whose guest has ended and whose result is being written, without a place.
    writing: usize,
}

/// A task that writes its result without a place.
struct Writing(Arc<Shared>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.lanes().writing -= 1;
    }
}

/// The lanes: a later try never takes the place of a first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Way {
    /// Content is fetched for the first time.
    First,
    /// Content is fetched again.
    Again,
    /// A job runs.
    Run,
    /// Short steps need no place.
    Short,
}

impl Way {
    const ALL: [Self; 4] = [Self::Run, Self::First, Self::Again, Self::Short];

    fn states(self) -> &'static [&'static str] {
        match self {
            Self::First | Self::Again => &["requested", "fetching"],
            Self::Run => &["running", "ready"],
            Self::Short => &["finished", "mined", "final", "withheld", "cancelled"],
        }
    }

    fn again(self) -> Option<bool> {
        match self {
            Self::First => Some(false),
            Self::Again => Some(true),
            Self::Run | Self::Short => None,
        }
    }

    /// Without which part nothing can be done here.
    fn needs(self) -> Option<Part> {
        match self {
            Self::First | Self::Again => Some(Part::Content),
            Self::Run => Some(Part::Runtime),
            Self::Short => None,
        }
    }
}

/// What rejections that nobody pays for may cost in a day where money is worth nothing.
const DEVELOPMENT_REJECTION_BUDGET_WEI: u128 = 1_000_000_000_000_000_000;
/// Results that are written at once beside the guests that run. More would only wait for the database.
const MOST_WRITING: usize = 64;
/// Short steps that are begun in one round.
const SHORT_STEPS: usize = 16;
/// A guest is stopped for another requester's after this time at the earliest, if its own place is not on loan.
const RUN_QUANTUM_MS: u64 = 2_000;
/// And after this time, once, for one of the same requester that never ran.
const OWN_QUANTUM_MS: u64 = 8_000;
/// A first fetch gives way to another one after this time; it goes on as a later try.
const FETCH_QUANTUM_MS: u64 = 2_000;

impl Lanes {
    fn new(options: &Options) -> Self {
        let (runs, fetches) = (options.concurrency.get(), options.fetches.get());
        let rules =
            |places, quantum_ms, within_flow_ms| Rules { places, quantum_ms, within_flow_ms };
        Self {
            first: Lane::new(rules(fetches, FETCH_QUANTUM_MS, Some(FETCH_QUANTUM_MS))),
            again: Lane::new(rules((fetches / 4).max(1), FETCH_QUANTUM_MS, None)),
            run: Lane::new(rules(runs, RUN_QUANTUM_MS, Some(OWN_QUANTUM_MS))),
            runs_wait: false,
            writing: 0,
        }
    }

    fn lane(&mut self, way: Way) -> Option<&mut Lane> {
        match way {
            Way::First => Some(&mut self.first),
            Way::Again => Some(&mut self.again),
            Way::Run => Some(&mut self.run),
            Way::Short => None,
        }
    }
}

impl Pipeline {
    /// Puts the pipeline together; nothing is started.
    #[must_use]
    pub fn new(
        store: Store,
        work: Arc<Work>,
        health: Health,
        prices: Prices,
        options: Options,
        wakes: Wakes,
    ) -> Self {
        let instance =
            job::Instance::parse(store.instance()).unwrap_or_else(|| job::Instance::of(&[0; 16]));
        let shared = Shared {
            lanes: Mutex::new(Lanes::new(&options)),
            store,
            work,
            health,
            prices,
            instance,
            options,
            wakes,
            held: Mutex::default(),
            began_at: Instant::now(),
        };
        Self {
            shared: Arc::new(shared),
            workers: JoinSet::new(),
            busy: HashMap::new(),
            probes: JoinSet::new(),
            probed: HashSet::new(),
            behind: HashMap::new(),
            crowded: false,
        }
    }

    /// Works until `soft` is cancelled. Every step is saved, so a stop waits for no guest: what runs is followed or
    /// started again after the next start.
    pub async fn run(mut self, soft: CancellationToken) -> Result<(), Error> {
        self.sweep().await;
        let mut forget_at = Instant::now();
        while !soft.is_cancelled() {
            let mut more_to_forget = false;
            if forget_at <= Instant::now() {
                more_to_forget = self.forget_old().await?;
                if !more_to_forget {
                    forget_at = Instant::now() + FORGET_EVERY;
                }
            }
            let woken = Arc::clone(&self.shared.wakes.pipeline);
            let woken = woken.notified();
            let more = self.apply_reported().await?;
            self.probe(&soft);
            self.dispatch().await?;
            if more || more_to_forget {
                while let Some(done) = self.workers.try_join_next() {
                    self.leave(done)?;
                }
                tokio::task::yield_now().await;
                continue;
            }
            let sleep = self.until_next_step().await?;
            tokio::select! {
                () = woken => {}
                () = soft.cancelled() => {}
                () = tokio::time::sleep(sleep) => {}
                Some(done) = self.workers.join_next() => self.leave(done)?,
                Some(done) = self.probes.join_next() => self.well_again(done).await?,
            }
            while let Some(done) = self.workers.try_join_next() {
                self.leave(done)?;
            }
        }
        self.probes.shutdown().await;
        for stop in self.busy.values() {
            stop.token.cancel();
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
        self.shared.leave_lanes(id);
        match result {
            // Somebody else's event came first: the next round sees the row as it is now.
            Ok(()) | Err(store::Error::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks after every part that is not well until it is.
    fn probe(&mut self, soft: &CancellationToken) {
        for part in self.shared.health.faulty() {
            if self.probed.insert(part) {
                let (shared, soft) = (Arc::clone(&self.shared), soft.clone());
                self.probes.spawn(async move {
                    shared.until_well(part, &soft).await;
                    part
                });
            }
        }
    }

    async fn well_again(
        &mut self,
        done: Result<Part, tokio::task::JoinError>,
    ) -> Result<(), Error> {
        let part = done.map_err(Error::Worker)?;
        if part == Part::Content {
            // What was thought to be missing was asked of something that was not well.
            let mut writer = self.shared.store.begin().await?;
            writer.doubt_content().await?;
            writer.commit().await?;
        }
        self.probed.remove(&part);
        self.shared.health.clear(part);
        Ok(())
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
                stop.token.cancel();
            }
        }
        Ok(events.len() == EVENTS_AT_ONCE as usize)
    }

    /// Gives tasks with a due step to workers, as far as there are places.
    async fn dispatch(&mut self) -> Result<(), Error> {
        self.crowded = false;
        let health = &self.shared.health;
        let is_open = |way: &Way| way.needs().is_none_or(|part| !health.stops(part));
        let ways: Vec<_> = Way::ALL.into_iter().filter(is_open).collect();
        for (way, mut waiting) in self.waiting(&ways).await? {
            waiting.retain(|task| !self.busy.contains_key(&task.id));
            if way == Way::Short {
                waiting.truncate(SHORT_STEPS);
                for task in waiting {
                    self.start(task.id, way).await?;
                }
                continue;
            }
            loop {
                let next = {
                    let mut lanes = self.shared.lanes();
                    let now_ms = self.shared.clock_ms();
                    lanes.lane(way).and_then(|lane| {
                        let next = waiting.get(lane.next(&waiting, now_ms)?)?.clone();
                        lane.take(&next, now_ms);
                        Some(next)
                    })
                };
                let Some(next) = next else { break };
                waiting.retain(|task| task.id != next.id);
                self.start(next.id, way).await?;
            }
            self.make_room(way, &waiting);
        }
        Ok(())
    }

    /// Stops who has to give way to those that wait.
    fn make_room(&mut self, way: Way, waiting: &[Waiting]) {
        let mut lanes = self.shared.lanes();
        if way == Way::Run {
            lanes.runs_wait = !waiting.is_empty();
        }
        if waiting.is_empty() {
            return;
        }
        self.crowded = true;
        let now_ms = self.shared.clock_ms();
        let Some(lane) = lanes.lane(way) else { return };
        while lane.stopping() < STOPPING.min(waiting.len()) {
            let Some(id) = lane.gives_way(waiting, now_ms) else { break };
            if let Some(stop) = self.busy.get(&id) {
                stop.for_another.store(true, Ordering::SeqCst);
                stop.token.cancel();
            }
        }
    }

    /// What waits for the lanes' places, in the order of time.
    async fn waiting(&mut self, ways: &[Way]) -> Result<Vec<(Way, Vec<Waiting>)>, Error> {
        let behind: Vec<_> =
            ways.iter().map(|way| self.behind.remove(way).unwrap_or_default()).collect();
        let queues: Vec<_> =
            ways.iter().zip(&behind).map(|(way, behind)| self.queue(*way, behind)).collect();
        let mut found = self.shared.store.waiting(&queues).await?;
        for ((way, behind), waiting) in ways.iter().zip(&behind).zip(&mut found) {
            let flows: HashSet<_> = waiting.iter().map(|task| task.flow.as_str()).collect();
            if flows.len() >= FLOWS as usize {
                if let Some(last) = flows.iter().max() {
                    self.behind.insert(*way, (*last).to_owned());
                }
            } else if !behind.is_empty() {
                // The last flows were seen: it goes on with the first.
                let first = self.shared.store.waiting(&[self.queue(*way, "")]).await?;
                *waiting = first.into_iter().next().unwrap_or_default();
            }
        }
        Ok(ways.iter().copied().zip(found).collect())
    }

    fn queue<'a>(&self, way: Way, behind: &'a str) -> Queue<'a> {
        let places = self.shared.lanes().lane(way).map_or(SHORT_STEPS, |lane| lane.places());
        Queue {
            states: way.states(),
            again: way.again(),
            now_ms: store::now_ms(),
            behind,
            flows: FLOWS,
            // Those that have a worker stand in front.
            each: u32::try_from(places + SHORT_STEPS).unwrap_or(u32::MAX),
        }
    }

    async fn start(&mut self, id: LocalId, way: Way) -> Result<(), Error> {
        let Some(versioned) = self.shared.store.task(id).await? else {
            self.shared.leave_lanes(id);
            return Ok(());
        };
        let stop = Stop::default();
        self.busy.insert(id, stop.clone());
        let shared = Arc::clone(&self.shared);
        let span = tracing::info_span!(
            "task",
            task.local_id = id.0,
            task.id = %versioned.task.identity.task_id,
            task.attempt = versioned.task.attempts
        );
        let worker = async move {
            let result = step::Worker { shared, stop, way }.drive(versioned).await;
            (id, result)
        };
        self.workers.spawn(tracing::Instrument::instrument(worker, span));
        Ok(())
    }

    async fn until_next_step(&self) -> Result<Duration, Error> {
        let now_ms = store::now_ms();
        let next = self.shared.store.next_due_at_ms(now_ms).await?;
        let wait = next.map_or(LONGEST_SLEEP, |at| {
            Duration::from_millis(u64::try_from(at - now_ms).unwrap_or(0))
        });
        Ok(wait.min(if self.crowded { CROWDED_SLEEP } else { LONGEST_SLEEP }))
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
        let publishes = self.options.publishes;
        Policy { publishes, rejections: publishes && self.rejection_budget_wei() > 0 }
    }

    /// What may be spent on rejections in a day. While the chain is not known nothing is spent, nor given up.
    fn rejection_budget_wei(&self) -> u128 {
        match (self.options.rejection_budget_wei, self.prices.is_development()) {
            (Some(budget), _) => budget,
            (None, Some(true)) => DEVELOPMENT_REJECTION_BUDGET_WEI,
            (None, Some(false)) => 0,
            (None, None) => u128::MAX,
        }
    }

    fn rejection_batch_ms(&self) -> i64 {
        let batch = match self.prices.is_development() {
            Some(false) => self.options.slow_rejection_batch,
            _ => self.options.rejection_batch,
        };
        i64::try_from(batch.as_millis()).unwrap_or(i64::MAX / 2).max(1)
    }

    fn next(&self, versioned: &Versioned) -> Effect {
        versioned.task.next(self.policy(), store::now_ms())
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A clock that never goes back, in milliseconds.
    fn clock_ms(&self) -> u64 {
        u64::try_from(self.began_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A guest has ended: the next one gets its place while its result is written, unless many are being written.
    fn leave_run_lane(self: &Arc<Self>, id: LocalId) -> Option<Writing> {
        let now_ms = self.clock_ms();
        let mut lanes = self.lanes();
        lanes.run.forget(id);
        if lanes.writing >= MOST_WRITING {
            return None;
        }
        lanes.writing += 1;
        lanes.run.give_back(id, now_ms);
        drop(lanes);
        self.wakes.pipeline.notify_one();
        Some(Writing(Arc::clone(self)))
    }

    /// Gives back whatever places a task has.
    fn leave_lanes(&self, id: LocalId) {
        let now_ms = self.clock_ms();
        let mut lanes = self.lanes();
        for way in [Way::First, Way::Again, Way::Run] {
            if let Some(lane) = lanes.lane(way) {
                lane.give_back(id, now_ms);
            }
        }
    }
}

fn mined(state: &State) -> bool {
    matches!(state, State::Mined { .. })
}
