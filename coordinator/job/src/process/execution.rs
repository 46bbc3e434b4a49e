//! One job from its module to its result: compile unless that was done before, run, verify.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use executor_protocol::launcher::{EXIT_STALE_ARTIFACT, End, Step};
use executor_protocol::{CheckReport, Document, Limits, Outcome};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Inner, Job};
use crate::launcher::{Ran, Ready, Refusal, Work, open, refused, too_complex, unmeasured};
use crate::log::Ring;
use crate::verified::Verified;
use crate::{Blob, Cause, Error, Finished, Loss, Spec, Status};

/// What ended a job before its guest could.
#[derive(Clone)]
enum Early {
    /// The module can never run: that is the result.
    Refused(Box<Refusal>),
    /// The infrastructure failed.
    Lost(Loss),
}

impl From<Error> for Early {
    fn from(error: Error) -> Self {
        let cause = match &error {
            Error::Refused(_) | Error::Unable(_) | Error::TooLarge(_) => Cause::Refused,
            Error::Gone(_) | Error::Spawn { .. } => Cause::LauncherGone,
            Error::Check(_) | Error::Descriptor(_) => Cause::Crashed,
            Error::File { .. } => Cause::Unreadable,
        };
        Self::Lost(Loss { cause, reason: error.to_string() })
    }
}

/// What a compilation leads to, for everyone who waits for it.
type Compilation = Shared<Compiling>;
type Compiling = BoxFuture<'static, Result<(), Early>>;

/// The compilations under way: two jobs of one module share one, which ends when nobody waits for it any more.
#[derive(Default)]
pub(super) struct Compilations(Mutex<UnderWay>);

type UnderWay = HashMap<(PathBuf, LimitsKey), WeakShared<Compiling>>;

/// The limits that a compilation's outcome depends on.
type LimitsKey = (u64, u32, u64);

impl Compilations {
    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Brings a job to its end, and says what that is.
    pub(super) async fn execute(
        self: &Arc<Self>,
        spec: &Spec,
        job: &Job,
        tell: &watch::Sender<Status>,
    ) -> Status {
        let pending_since = SystemTime::now();
        match self.attempt(spec, job, tell).await {
            Ok(status) => status,
            Err(Early::Refused(refusal)) => Status::Finished(Box::new(Finished {
                document: refusal.document,
                outcome: refusal.outcome,
                record: Some(refusal.record),
                started_at: pending_since,
                finished_at: SystemTime::now(),
            })),
            Err(Early::Lost(loss)) => Status::Lost(loss),
        }
    }

    async fn attempt(
        self: &Arc<Self>,
        spec: &Spec,
        job: &Job,
        tell: &watch::Sender<Status>,
    ) -> Result<Status, Early> {
        let ready = self.launcher.ready().await?;
        let path = self.cache.path(spec.module.sha256, &ready.fingerprint);
        for again in [false, true] {
            let compiled = self.compiled(&path, spec, &ready, &job.stop).await?;
            let ran = self.run(spec, compiled, job, tell).await?;
            if ran.end == End::Exited(EXIT_STALE_ARTIFACT) && !again {
                tracing::warn!(
                    job.name = %spec.name,
                    "a compiled module was damaged or another engine's; it is compiled again"
                );
                self.cache.discard(&path)?;
                continue;
            }
            return Ok(conclude(&ran, &ready, &spec.limits, &job.log));
        }
        Err(Early::Lost(Loss {
            cause: Cause::Crashed,
            reason: "the compiled module is refused, also when it is new".to_owned(),
        }))
    }

    /// The compiled form of a job's module, compiled now if it is not there.
    async fn compiled(
        self: &Arc<Self>,
        path: &Path,
        spec: &Spec,
        ready: &Ready,
        stop: &CancellationToken,
    ) -> Result<OwnedFd, Early> {
        // Twice: another module's compilation may push this one out before it is opened.
        for _ in 0..2 {
            if let Some(compiled) = self.cache.load(path)? {
                return Ok(compiled);
            }
            let compilation = self.compilation(path, spec, ready);
            tokio::select! {
                done = compilation => done?,
                () = stop.cancelled() => return Err(Early::Lost(Loss {
                    cause: Cause::Killed,
                    reason: "it was stopped".to_owned(),
                })),
            }
        }
        self.cache.load(path)?.ok_or_else(|| {
            Early::Lost(Loss {
                cause: Cause::Unreadable,
                reason: "the cache of compiled modules is too small".to_owned(),
            })
        })
    }

    fn compilation(self: &Arc<Self>, path: &Path, spec: &Spec, ready: &Ready) -> Compilation {
        let limits = spec.limits;
        let key = (path.to_owned(), (limits.compile_ms, limits.compile_mib, limits.module_bytes));
        let mut under_way = self.compilations.lock();
        if let Some(compilation) = under_way.get(&key).and_then(WeakShared::upgrade) {
            return compilation;
        }
        let (inner, module, ready) = (Arc::clone(self), spec.module.clone(), ready.clone());
        let compilation = {
            let key = key.clone();
            async move {
                let done = inner.compile(&key.0, &module, &limits, &ready).await;
                inner.compilations.lock().remove(&key);
                done
            }
        }
        .boxed()
        .shared();
        under_way.retain(|_, other| other.upgrade().is_some());
        under_way.extend(compilation.downgrade().map(|weak| (key, weak)));
        compilation
    }

    /// Has a confined child compile a module, and keeps what it wrote once it is gone.
    async fn compile(
        &self,
        path: &Path,
        module: &Blob,
        limits: &Limits,
        ready: &Ready,
    ) -> Result<(), Early> {
        let (unfinished, compiled) = self.cache.begin()?;
        let log = Ring::default();
        let work = Work {
            step: Step::Compile,
            limits: *limits,
            environment: BTreeMap::new(),
            key: self.cache.key(module.sha256),
            module_sha256: module.sha256,
            input_sha256: None,
            inputs: vec![open(&module.path)?, compiled],
        };
        let ran = self.launcher.run(work, &log, &CancellationToken::new(), |_| ()).await?;
        if ran.was_too_complex() {
            return Err(Early::Refused(Box::new(too_complex(ready, &ran, limits))));
        }
        if ran.end != End::Exited(0) {
            return Err(Early::Lost(ran.loss(&log)));
        }
        let report = ran.report.trim_ascii();
        if report != b"{}" {
            let report: CheckReport =
                serde_json::from_slice(report).map_err(|e| Error::Check(e.to_string()))?;
            let text = report.refusal.unwrap_or_default();
            let refusal = refused(ready, &ran, limits, &text, report.message)?;
            return Err(Early::Refused(Box::new(refusal)));
        }
        self.cache.keep(&unfinished, path)?;
        Ok(())
    }

    async fn run(
        &self,
        spec: &Spec,
        compiled: OwnedFd,
        job: &Job,
        tell: &watch::Sender<Status>,
    ) -> Result<Ran, Error> {
        let mut inputs = vec![compiled];
        if let Some(input) = &spec.input {
            inputs.push(open(&input.path)?);
        }
        let work = Work {
            step: Step::Run { has_input: spec.input.is_some() },
            limits: spec.limits,
            environment: spec.environment.clone(),
            key: self.cache.key(spec.module.sha256),
            module_sha256: spec.module.sha256,
            input_sha256: spec.input.as_ref().map(|input| input.sha256),
            inputs,
        };
        self.launcher
            .run(work, &job.log, &job.stop, |pid| {
                job.pid.store(pid, Ordering::Relaxed);
                tell.send_replace(Status::Running);
            })
            .await
    }
}

/// What a run came to. Only a result whose every copy agrees is one; the wall-clock limit is the one thing that the
/// launcher may have to say in the guest's stead.
fn conclude(ran: &Ran, ready: &Ready, limits: &Limits, log: &Ring) -> Status {
    let finished = |document, outcome, record| {
        Status::Finished(Box::new(Finished {
            document,
            outcome,
            record: Some(record),
            started_at: ran.started_at,
            finished_at: SystemTime::now(),
        }))
    };
    match ran.end {
        End::Exited(0) => match Verified::read(&ran.stdout, &ran.report) {
            Ok(verified) => {
                let record = verified.record.map(|of_child| executor_protocol::Record {
                    // The launcher knows better than the child what confined it.
                    isolation: ran.isolation.clone(),
                    ..of_child
                });
                let record = record.unwrap_or_else(|| unmeasured(ready, ran, limits, None));
                finished(verified.document, verified.outcome, record)
            }
            Err(mismatch) => {
                Status::Lost(Loss { cause: Cause::ResultMismatch, reason: mismatch.to_string() })
            }
        },
        End::TimedOut => {
            let outcome = Outcome::TimedOut;
            let message = Some("the launcher ended it when its time had passed".to_owned());
            finished(Document::of(&outcome), outcome, unmeasured(ready, ran, limits, message))
        }
        _ => Status::Lost(ran.loss(log)),
    }
}
