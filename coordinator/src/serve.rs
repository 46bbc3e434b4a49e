//! Puts the daemon together: settings become parts, parts become tasks of one lifecycle. No logic of its own.

use std::{
    fs::{File, TryLockError},
    net::SocketAddr,
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
    time::Duration,
};

use chain::Alarms;
use executor_protocol::Measure;
use job::{Description, launcher::Launcher, process};
use rustix::fs::Mode;
use store::{Claim, Store};
use tokio::net::TcpListener;

use crate::{
    admission::Terms,
    api::{self, Api, Readiness},
    config::{self, Config},
    health::Health,
    lifecycle::{self, Lifecycle},
    link::{First, Link},
    metrics::Metrics,
    pipeline::{self, Pipeline, Wakes},
    placeholder,
    price::Prices,
    tokens,
    work::{self, LimitPolicy, Work},
};

/// The first and the longest pause after an infrastructure failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long the start waits to hear whether the configuration fits the chain.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// Contents that are fetched at once, for each guest that runs at once, and at the most: they mostly wait.
const FETCHES_BESIDE_A_GUEST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);
const MOST_FETCHES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(127);

/// Why the daemon, or a part of it, could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder of the data folder cannot be used.
    #[error("cannot use {path}")]
    Data {
        /// The file or folder.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Another coordinator works on the data folder.
    #[error("another coordinator works on {0}; COORDINATOR_DATA_DIR names another folder")]
    Locked(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Where the executor is cannot be found out.
    #[error("cannot find this program's folder; COORDINATOR_EXECUTOR names the executor")]
    Executor(#[source] std::io::Error),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signal(#[source] std::io::Error),
    /// A part ended with an error, by a panic, or on its own.
    #[error("a part of the coordinator failed; the log says which")]
    Part,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The content store cannot be opened.
    #[error("cannot open the content store")]
    Content(#[source] Box<ipfs::Error>),
    /// The runtime cannot be used.
    #[error("the runtime cannot be used")]
    Runtime(#[from] job::Error),
    /// What runs tasks cannot be used.
    #[error(transparent)]
    Work(Box<work::Error>),
    /// The chain failed.
    #[error("the chain cannot be used")]
    Chain(#[source] Box<chain::Error>),
    /// The sample tasks could not be emitted.
    #[error(transparent)]
    Placeholder(Box<placeholder::Error>),
    /// The metrics cannot be recorded.
    #[error(transparent)]
    Metrics(#[from] crate::metrics::Error),
}

impl From<ipfs::Error> for Error {
    fn from(error: ipfs::Error) -> Self {
        Self::Content(Box::new(error))
    }
}

impl From<work::Error> for Error {
    fn from(error: work::Error) -> Self {
        Self::Work(Box::new(error))
    }
}

impl From<placeholder::Error> for Error {
    fn from(error: placeholder::Error) -> Self {
        Self::Placeholder(Box::new(error))
    }
}

impl From<chain::Error> for Error {
    fn from(error: chain::Error) -> Self {
        Self::Chain(Box::new(error))
    }
}

impl Error {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Data { .. } => "data_unusable",
            Self::Locked(_) => "data_locked",
            Self::Listen { .. } => "listen_failed",
            Self::Executor(_) => "executor_unavailable",
            Self::Signal(_) => "signals",
            Self::Part => "part_failed",
            Self::Store(error) => error.code(),
            Self::Content(error) => error.code(),
            Self::Runtime(error) => error.code(),
            Self::Work(error) => error.code(),
            Self::Chain(error) => error.code(),
            Self::Placeholder(_) => "placeholder",
            Self::Metrics(_) => "metrics",
        }
    }
}

/// The limits that requests get under this configuration.
#[must_use]
pub fn limits(config: &Config) -> LimitPolicy {
    LimitPolicy {
        defaults: config.work.defaults,
        maxima: config.work.maxima,
        input_bytes: config.work.max_input_bytes,
    }
}

/// The launcher of the executor that the configuration names; nothing is started.
pub fn launcher(config: &Config) -> Result<Launcher, Error> {
    use job::launcher::Options;
    let options = match &config.work.executor {
        Some(path) => Options::new(path),
        None => Options::beside_this_program().map_err(Error::Executor)?,
    };
    Ok(Launcher::new(options))
}

/// What runs tasks, with its content store and its launcher.
pub struct Workshop {
    /// The work itself.
    pub work: Arc<Work>,
    launcher: Launcher,
}

impl std::fmt::Debug for Workshop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workshop").field("work", &self.work).finish_non_exhaustive()
    }
}

impl Workshop {
    /// Opens content store and runtime in the configuration's data folder.
    pub async fn open(config: &Config, limits: LimitPolicy) -> Result<Self, Error> {
        let mut options = config.content_options(&config.content_cache());
        options.probe_every = Some(config.content.probe_interval);
        let content = ipfs::Store::open(options).await?;
        let launcher = launcher(config)?;
        let options = process::Options {
            cache_dir: config.compiled_cache(),
            cache_bytes: config.work.compiled_cache_bytes,
        };
        let config::Runtime::Process { .. } = config.work.runtime;
        let runtime = Arc::new(process::Process::open(launcher.clone(), options).await?);
        let work = Work::new(content, launcher.clone(), runtime, limits)
            .with_probe(config.data_dir.join("probe.wasm"));
        let work = Arc::new(work);
        Ok(Self { work, launcher })
    }

    /// Ends the launcher and everything that it started.
    pub async fn close(&self) {
        self.launcher.close().await;
    }
}

/// A daemon whose parts run.
#[derive(Debug)]
pub struct Daemon {
    /// Where its API listens.
    pub address: SocketAddr,
    store: Store,
    workshop: Workshop,
    _lock: File,
    _claim: Option<Claim>,
}

impl Daemon {
    /// Releases everything, after the lifecycle has ended.
    pub async fn close(self) {
        self.workshop.close().await;
        self.store.close().await;
    }
}

/// Runs the daemon until it is asked to stop; answers whether everything ended as it should.
pub async fn serve(config: &Config) -> Result<bool, Error> {
    // What it writes is nobody else's to read: requests, results, signed transactions.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let lifecycle = Lifecycle::default();
    let started = tokio::select! {
        started = start(config, &lifecycle) => Some(started),
        interrupted = lifecycle.interrupted() => {
            interrupted.map_err(Error::Signal)?;
            None
        }
    };
    if !matches!(started, Some(Ok(_))) {
        // What had been started ends in good order: it is not what failed.
        lifecycle.stop();
    }
    let ended_well = lifecycle.run(lifecycle::GRACE).await.map_err(Error::Signal)?;
    if let Some(started) = started {
        started?.close().await;
    }
    tracing::info!("stopped");
    Ok(ended_well)
}

/// Starts every part.
pub async fn start(config: &Config, lifecycle: &Lifecycle) -> Result<Daemon, Error> {
    let lock = lock(&config.data_dir)?;
    // The folder is not the database: another coordinator may have been given the same one by its path.
    let claim = Claim::take(&config.database)?;
    let metrics = Metrics::install()?;
    let store = Store::open(&config.database).await?;
    let daemon = start_on(config, lifecycle, lock, metrics, store).await?;
    Ok(Daemon { _claim: Some(claim), ..daemon })
}

/// Starts every part on a data folder that is [locked](lock) and a store that is open.
pub async fn start_on(
    config: &Config,
    lifecycle: &Lifecycle,
    lock: File,
    metrics: Metrics,
    store: Store,
) -> Result<Daemon, Error> {
    let runtime = config.work.runtime;
    tracing::info!(
        runtime = runtime.name(),
        reason = runtime.reason(),
        version = env!("CARGO_PKG_VERSION"),
        "tasks run in the runtime {}: {}",
        runtime.name(),
        runtime.reason()
    );
    let workshop = Workshop::open(config, limits(config)).await?;
    let description = workshop.work.describe().await?;
    tell_isolation(&description);
    let address = config.server.listen;
    let listener =
        TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    let address = listener.local_addr().map_err(|source| Error::Listen { address, source })?;

    let wakes = Wakes::default();
    let alarms = Alarms::default();
    let health = Health::default();
    let prices = match (config.chain.endpoints.is_empty(), config.chain.contract) {
        (false, Some(_)) => Prices::of_a_chain(),
        _ => Prices::default(),
    };
    let readiness = Readiness {
        work: Arc::clone(&workshop.work),
        alarms: alarms.clone(),
        health: health.clone(),
        prices: prices.clone(),
    };
    let bounds = api::Bounds {
        connections: config.server.connections,
        header_timeout: config.server.header_timeout,
    };
    let tokens = api::Tokens::new(&config.server.tokens);
    let file = config.server.token_file.clone();
    lifecycle.spawn("tokens", tokens::keep(tokens.clone(), file, lifecycle.soft()));
    let api = Api::new(store.clone(), metrics, readiness, tokens)
        .bounded(bounds)
        .earning(earner(&config.chain, &wakes));
    lifecycle.spawn("api", api.serve(listener, lifecycle.soft()));
    tracing::info!(%address, "listening");

    let link = match (config.chain.endpoints.is_empty(), config.chain.contract) {
        (true, _) => {
            tracing::warn!(
                mirror = %config.content.mirror.display(),
                "COORDINATOR_RPC_URL is empty: the sample tasks are run, nothing is published"
            );
            placeholder::emit(&store, &config.content.mirror, &wakes.pipeline).await?;
            None
        }
        (false, None) => None,
        (false, Some(contract)) => Some(Link {
            chain: config.chain.clone(),
            contract,
            engine: description.engine.clone(),
            store: store.clone(),
            wakes: wakes.clone(),
            alarms,
            prices: prices.clone(),
        }),
    };
    if link.is_some() && config.chain.key.is_none() {
        tracing::warn!("COORDINATOR_KEY is empty: nothing is published");
    }
    let publishes = link.is_some() && config.chain.key.is_some();
    // Tasks of the database are worked on, whether the chain can be reached or not.
    let options = pipeline_options(config, publishes);
    let work = Arc::clone(&workshop.work);
    let pipeline = Pipeline::new(store.clone(), work, health, prices, options, wakes);
    lifecycle.spawn("pipeline", pipeline.run(lifecycle.soft()));
    if let Some(link) = link {
        // A configuration that does not fit the chain stops the start; a chain that is away does not.
        let first = link.start(lifecycle);
        if let Ok(Ok(First::Refused(error))) = tokio::time::timeout(FIRST_LOOK, first).await {
            return Err(error.into());
        }
    }
    Ok(Daemon { address, store, workshop, _lock: lock, _claim: None })
}

/// Who earns; none where nothing is published.
fn earner(chain: &config::Chain, wakes: &Wakes) -> Option<api::Earner> {
    let (Some(contract), Some(key)) = (chain.contract, &chain.key) else { return None };
    if chain.endpoints.is_empty() {
        return None;
    }
    let publisher = key.address();
    let recipient = chain.withdraw_to.unwrap_or(publisher);
    Some(api::Earner { contract, publisher, recipient, queued: Arc::clone(&wakes.publisher) })
}

fn pipeline_options(config: &Config, publishes: bool) -> pipeline::Options {
    let concurrency = NonZeroUsize::new(config.work.concurrency).unwrap_or(NonZeroUsize::MIN);
    pipeline::Options {
        concurrency,
        fetches: concurrency.saturating_mul(FETCHES_BESIDE_A_GUEST).min(MOST_FETCHES),
        publishes,
        rejection_budget_wei: config.work.rejection_budget_wei,
        rejection_batch: FIRST_PAUSE,
        slow_rejection_batch: LONGEST_PAUSE,
        terms: Terms {
            min_fee_wei: config.work.min_fee_wei,
            free_tasks_per_hour: config.work.quota,
            free_run_time_per_hour_ms: i64::try_from(config.work.quota_run_time.as_millis())
                .unwrap_or(i64::MAX),
        },
        retries: config.work.retries,
        first_pause: FIRST_PAUSE,
        longest_pause: LONGEST_PAUSE,
        content_deadline: config.content.deadline,
        retention: config.retention,
    }
}

fn tell_isolation(description: &Description) {
    tracing::info!(
        engine = description.engine,
        engine_version = description.engine_version,
        "the runtime is there"
    );
    for (name, measure) in description.isolation.measures() {
        if let Measure::NotEnforced(reason) = measure {
            tracing::warn!(measure = name, reason, "tasks are confined without {name}: {reason}");
        }
    }
}

/// Takes the data folder for this process, which is made where it is missing; the lock ends with the file.
pub fn lock(data_dir: &Path) -> Result<File, Error> {
    let path = data_dir.join("lock");
    let failed = |source| Error::Data { path: path.display().to_string(), source };
    std::fs::create_dir_all(data_dir).map_err(failed)?;
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked(data_dir.display().to_string())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}
