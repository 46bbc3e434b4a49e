//! A runtime that cannot remove a job.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use coordinator::{
    admission::Terms,
    health::Health,
    pipeline::{Options, Pipeline, Wakes},
    placeholder,
    price::Prices,
    work::{LimitPolicy, Work},
};
use executor_protocol::DEFAULT_LIMITS;
use harness::{binary, wait_for};
use job::{Description, Error, Future, Log, Name, Runtime, Spec, Status, launcher, process};
use store::{Filter, Store};
use task::{Event, LocalId};
use tokio_util::sync::CancellationToken;

use crate::stage::{PATIENCE, samples};

const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The real runtime, which removes nothing while it is stuck.
struct Sticky {
    inner: process::Process,
    is_stuck: AtomicBool,
    /// When the removal of each job was tried.
    tries: Mutex<BTreeMap<Name, Vec<Instant>>>,
}

impl Runtime for Sticky {
    fn describe(&self) -> Future<'_, Result<Description, Error>> {
        self.inner.describe()
    }

    fn ensure<'a>(&'a self, spec: &'a Spec) -> Future<'a, Result<(), Error>> {
        self.inner.ensure(spec)
    }

    fn observe<'a>(&'a self, name: &'a Name) -> Future<'a, Result<Status, Error>> {
        self.inner.observe(name)
    }

    fn wait<'a>(&'a self, name: &'a Name) -> Future<'a, Result<Status, Error>> {
        self.inner.wait(name)
    }

    fn log<'a>(&'a self, name: &'a Name) -> Future<'a, Result<Option<Log>, Error>> {
        self.inner.log(name)
    }

    fn remove<'a>(&'a self, name: &'a Name) -> Future<'a, Result<(), Error>> {
        self.tries.lock().unwrap().entry(name.clone()).or_default().push(Instant::now());
        if self.is_stuck.load(Ordering::SeqCst) {
            return Box::pin(async { Err(Error::Refused("nothing can be removed".to_owned())) });
        }
        self.inner.remove(name)
    }

    fn list(&self) -> Future<'_, Result<Vec<Name>, Error>> {
        self.inner.list()
    }
}

async fn sticky(folder: &Path) -> (Arc<Work>, Arc<Sticky>) {
    let mut options = ipfs::Options::new(folder.join("content"));
    options.mirror = Some(samples().to_owned());
    let content = ipfs::Store::open(options).await.unwrap();
    let launcher = launcher::Launcher::new(launcher::Options::new(binary("executor").unwrap()));
    let options = process::Options { cache_dir: folder.join("compiled"), cache_bytes: 1 << 26 };
    let inner = process::Process::open(launcher.clone(), options).await.unwrap();
    let runtime =
        Arc::new(Sticky { inner, is_stuck: AtomicBool::new(true), tries: Mutex::default() });
    let limits =
        LimitPolicy { defaults: DEFAULT_LIMITS, maxima: DEFAULT_LIMITS, input_bytes: 1 << 20 };
    (Arc::new(Work::new(content, launcher, runtime.clone(), limits)), runtime)
}

fn options() -> Options {
    Options {
        concurrency: NonZeroUsize::new(2).unwrap(),
        fetches: NonZeroUsize::new(2).unwrap(),
        publishes: false,
        rejection_budget_wei: None,
        rejection_batch: FIRST_PAUSE,
        slow_rejection_batch: FIRST_PAUSE,
        terms: Terms {
            min_fee_wei: 0,
            free_tasks_per_hour: 100,
            free_run_time_per_hour_ms: 3_600_000,
        },
        retries: 5,
        first_pause: FIRST_PAUSE,
        longest_pause: Duration::from_secs(2),
        content_deadline: Duration::from_secs(60),
        retention: Duration::from_secs(600),
    }
}

#[tokio::test]
async fn v8_a_removal_that_fails_is_told_once_and_tried_after_longer_and_longer_pauses() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("coordinator.sqlite")).await.unwrap();
    let (work, runtime) = sticky(folder.path()).await;
    let (wakes, soft) = (Wakes::default(), CancellationToken::new());
    placeholder::emit(&store, samples(), &wakes.pipeline).await.unwrap();
    let (health, prices) = (Health::default(), Prices::default());
    let pipeline = Pipeline::new(store.clone(), work, health, prices, options(), wakes);
    let running = tokio::spawn(pipeline.run(soft.clone()));

    let (name, tries) = wait_for("a removal to be tried often", PATIENCE, async || {
        let tries = runtime.tries.lock().unwrap().clone();
        let often = tries.iter().find(|(_, tries)| tries.len() >= 6);
        often.map(|(name, tries)| (name.clone(), tries.clone())).ok_or(format!("{tries:?}"))
    })
    .await;
    // The first two are the worker's own and the first cleaning's.
    let pauses: Vec<_> = tries[1..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (times, pause) in (0..).zip(&pauses) {
        assert!(*pause >= FIRST_PAUSE * 2_u32.pow(times), "{name}: {pauses:?}");
    }
    let id = LocalId(i64::try_from(name.task()).unwrap());
    let timeline = store.timeline(id).await.unwrap();
    let held = timeline.iter().filter(|entry| matches!(entry.event, Event::Held { .. })).count();
    assert_eq!(held, 1, "{timeline:?}");

    runtime.is_stuck.store(false, Ordering::SeqCst);
    wait_for("everything to be removed", PATIENCE, async || {
        let tasks = store.tasks(&Filter { limit: 100, ..Filter::default() }).await.unwrap();
        let dirty = tasks.iter().filter(|row| row.task.dirty || !row.task.state.is_settled());
        match (dirty.count(), runtime.list().await.unwrap()) {
            (0, names) if names.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        }
    })
    .await;
    soft.cancel();
    running.await.unwrap().unwrap();
    store.close().await;
}
