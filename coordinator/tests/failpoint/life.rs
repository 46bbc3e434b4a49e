//! One life of a daemon: from its start until its task rests, it ends by itself, or it is gone.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use coordinator::{
    config::Config,
    lifecycle::{GRACE, Lifecycle},
    metrics::Metrics,
    serve,
    telemetry::causes,
};
use store::{Account, Board, Filter, Store};
use task::{Effect, Policy, State};
use tokio::runtime::Runtime;

use crate::fault::Fault;

/// How long a task may take to its rest.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a life ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its task rests, and it stopped when it was asked to.
    Rested,
    /// It ended by itself, with this exit's reason; a process would have ended with a failure.
    Failed(String),
    /// It was gone from one moment to the next.
    Gone,
}

/// Lives on a runtime, which is gone afterwards with everything that still ran on it, as the process would be. The
/// error is what a life may not come to.
pub(crate) fn live(
    runtime: Runtime,
    config: &Config,
    metrics: &Metrics,
    fault: &Arc<Fault>,
) -> Result<End, String> {
    let dead = fault.dead();
    let end = runtime.block_on(async {
        let life = tokio::spawn(run(config.clone(), metrics.clone(), Arc::clone(fault)));
        tokio::select! {
            () = dead.cancelled() => Ok(End::Gone),
            ended = life => match ended {
                Ok(end) => end,
                Err(error) => Ok(End::Failed(error.to_string())),
            },
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(10));
    end
}

/// As `serve::serve` does it.
async fn run(config: Config, metrics: Metrics, fault: Arc<Fault>) -> Result<End, String> {
    let lifecycle = Lifecycle::default();
    let lock = serve::lock(&config.data_dir).map_err(|error| causes(&error))?;
    let opened = Store::open_with(&config.database, Arc::clone(&fault) as _).await;
    let store = opened.map_err(|error| causes(&error))?;
    let started = serve::start_on(&config, &lifecycle, lock, metrics, store.clone()).await;
    let daemon = match started {
        Ok(daemon) => daemon,
        Err(error) => return Ok(End::Failed(causes(&error))),
    };
    let mut ends = pin!(lifecycle.run(GRACE));
    let rests = tokio::select! {
        ended_well = &mut ends => Some(ended_well),
        rests = rests(&store, &config, &fault) => { rests?; None }
    };
    let rested = rests.is_none();
    let ended_well = match rests {
        Some(ended_well) => ended_well,
        None => {
            lifecycle.stop();
            ends.await
        }
    };
    daemon.close().await;
    match (rested, ended_well) {
        (true, Ok(true)) => Ok(End::Rested),
        (false, Ok(false)) => Ok(End::Failed("a part of the coordinator failed".to_owned())),
        (_, ended) => Err(format!("it ended with {ended:?}, its task rested: {rested}")),
    }
}

/// Waits for the task; a daemon that its fault is about to end is waited for in vain.
async fn rests(store: &Store, config: &Config, fault: &Fault) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let seen = match fault.is_fatal() && fault.has_fired() {
            true => Err("it goes on after its fault".to_owned()),
            false => is_at_rest(store, config).await,
        };
        match seen {
            Ok(()) => return Ok(()),
            Err(seen) if began.elapsed() > PATIENCE => return Err(format!("no rest: {seen}")),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Whether the one task of the database is final and nothing is left to do; the error says what is.
pub(crate) async fn is_at_rest(store: &Store, config: &Config) -> Result<(), String> {
    let fail = |error: store::Error| causes(&error);
    let tasks = store.tasks(&Filter { limit: 10, ..Filter::default() }).await.map_err(fail)?;
    let [versioned] = tasks.as_slice() else { return Err(format!("{} tasks", tasks.len())) };
    let task = &versioned.task;
    let State::Final { published: Some((block, _)), .. } = &task.state else {
        return Err(format!("the task is {}: {task:?}", task.state.name()));
    };
    let next = task.next(Policy { publishes: true, rejections: true }, i64::MAX);
    if next != Effect::Rest {
        return Err(format!("{next:?} is due"));
    }
    let board = Board {
        chain_id: task.identity.chain_id,
        contract: config.chain.contract.ok_or("no contract")?,
    };
    let cursor = store.chain(&board).await.map_err(fail)?.map_or(0, |row| row.cursor.number);
    if cursor < block.number {
        return Err(format!("block {} is not read, block {cursor} is", block.number));
    }
    let events = store.pending_events(10).await.map_err(fail)?;
    if !events.is_empty() {
        return Err(format!("not applied: {events:?}"));
    }
    let sender = config.chain.key.as_ref().ok_or("no key")?.address();
    let account = Account { chain_id: board.chain_id, sender };
    let unsettled = store.unsettled(&account).await.map_err(fail)?;
    if !unsettled.is_empty() {
        return Err(format!("not settled: {unsettled:?}"));
    }
    match store.queued_count(&board).await.map_err(fail)? {
        0 => Ok(()),
        queued => Err(format!("{queued} publications wait")),
    }
}
