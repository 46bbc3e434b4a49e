//! The runtime that is always there: each job is a confined child of the launcher on this machine. It keeps jobs in
//! memory only; they end with this process and are `Missing` afterwards.

mod cache;
mod execution;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::cache::Cache;
use self::execution::Compilations;
use crate::launcher::Launcher;
use crate::log::Ring;
use crate::{Description, Error, Future, Log, Name, Runtime, Spec, Status};

/// Settings of the process runtime.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of compiled modules and of the key of their tags. Of this coordinator alone.
    pub cache_dir: PathBuf,
    /// The most that compiled modules may take there, in bytes.
    pub cache_bytes: u64,
}

/// The process runtime. Clones are the same one.
#[derive(Clone)]
pub struct Process(Arc<Inner>);

struct Inner {
    launcher: Launcher,
    cache: Cache,
    compilations: Compilations,
    jobs: Mutex<HashMap<Name, Job>>,
}

/// A job that is known here.
#[derive(Clone)]
struct Job {
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    log: Ring,
    pid: Arc<AtomicI32>,
}

impl Process {
    /// Opens the runtime: its cache is made or swept, and nothing is started.
    pub async fn open(launcher: Launcher, options: Options) -> Result<Self, Error> {
        let cache = tokio::task::spawn_blocking(move || {
            Cache::open(&options.cache_dir, options.cache_bytes)
        })
        .await
        .map_err(|e| Error::Gone(e.to_string()))??;
        Ok(Self(Arc::new(Inner {
            launcher,
            cache,
            compilations: Compilations::default(),
            jobs: Mutex::default(),
        })))
    }

    fn job(&self, name: &Name) -> Option<Job> {
        self.0.lock().get(name).cloned()
    }

    /// The launcher that starts this runtime's children.
    #[must_use]
    pub fn launcher(&self) -> &Launcher {
        &self.0.launcher
    }

    /// The process id of a job's child while its guest runs, for looking at it from outside.
    #[must_use]
    pub fn pid(&self, name: &Name) -> Option<u32> {
        let job = self.job(name)?;
        let running = matches!(*job.status.borrow(), Status::Running);
        running.then(|| job.pid.load(Ordering::Relaxed).unsigned_abs())
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runtime for Process {
    fn describe(&self) -> Future<'_, Result<Description, Error>> {
        Box::pin(async {
            let ready = self.0.launcher.answers().await?;
            Ok(Description {
                name: "process",
                engine: ready.engine,
                engine_version: ready.engine_version,
                isolation: ready.isolation,
            })
        })
    }

    fn ensure<'a>(&'a self, spec: &'a Spec) -> Future<'a, Result<(), Error>> {
        Box::pin(async {
            let mut jobs = self.0.lock();
            if jobs.contains_key(&spec.name) {
                return Ok(());
            }
            let (tell, status) = watch::channel(Status::Pending);
            let job = Job {
                status,
                stop: CancellationToken::new(),
                log: Ring::default(),
                pid: Arc::default(),
            };
            jobs.insert(spec.name.clone(), job.clone());
            drop(jobs);
            let (inner, spec) = (Arc::clone(&self.0), spec.clone());
            tokio::spawn(async move {
                let end = inner.execute(&spec, &job, &tell).await;
                tell.send_replace(end);
            });
            Ok(())
        })
    }

    fn observe<'a>(&'a self, name: &'a Name) -> Future<'a, Result<Status, Error>> {
        Box::pin(async {
            Ok(self.job(name).map_or(Status::Missing, |job| job.status.borrow().clone()))
        })
    }

    fn wait<'a>(&'a self, name: &'a Name) -> Future<'a, Result<Status, Error>> {
        Box::pin(async {
            let Some(mut job) = self.job(name) else {
                return Ok(Status::Missing);
            };
            let removed = job.stop.clone();
            let ended = job.status.wait_for(Status::is_final).await;
            match ended {
                Ok(status) if !removed.is_cancelled() => Ok(status.clone()),
                _ => Ok(Status::Missing),
            }
        })
    }

    fn log<'a>(&'a self, name: &'a Name) -> Future<'a, Result<Option<Log>, Error>> {
        Box::pin(async { Ok(self.job(name).map(|job| job.log.read())) })
    }

    fn remove<'a>(&'a self, name: &'a Name) -> Future<'a, Result<(), Error>> {
        Box::pin(async {
            let Some(mut job) = self.job(name) else {
                return Ok(());
            };
            job.stop.cancel();
            // An error says that its task is gone, and so is all else of it.
            let _ = job.status.wait_for(Status::is_final).await;
            self.0.lock().remove(name);
            Ok(())
        })
    }

    fn list(&self) -> Future<'_, Result<Vec<Name>, Error>> {
        Box::pin(async { Ok(self.0.lock().keys().cloned().collect()) })
    }
}
