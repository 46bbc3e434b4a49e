//! What one task needs, from its request to its result document: admit its limits, fetch and verify its content, look
//! at the module, run it. No chain and no database here, so that `run` and `verify` do exactly what `serve` does.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use executor_protocol::{Document, Failure, Limits, Outcome, PlainFailure, Record, Rejection};
use ipfs::{Budget, Cid, Content, Place, PlaceKind, PlaceState};
use job::{
    Blob, Description, Name, Runtime, Spec, Status,
    launcher::{Checked, Launcher},
};
use sha2::{Digest as _, Sha256};
use task::{Malformed, Request};

use crate::{
    admission::{self, Admitted},
    health::Fault,
    telemetry::causes,
};

/// How many verdicts on modules are remembered.
const VERDICTS: usize = 4096;
/// How often a job that went missing while it was waited for is started again in one attempt.
const ENSURES: usize = 3;

/// What requests get when they ask for nothing, and what they may ask for at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitPolicy {
    /// For what a request leaves open.
    pub defaults: Limits,
    /// The most that a request may ask for.
    pub maxima: Limits,
    /// The largest input, in bytes.
    pub input_bytes: u64,
}

impl LimitPolicy {
    /// The limits of one request.
    pub fn of(&self, request: &Request) -> Result<Limits, Refused> {
        let asked = Limits {
            timeout_ms: request.timeout_s.map_or(self.defaults.timeout_ms, |s| u64::from(s) * 1000),
            memory_mib: request.memory_mib.unwrap_or(self.defaults.memory_mib),
            fuel: request.fuel.unwrap_or(self.defaults.fuel),
            ..self.defaults
        };
        let refuse = |what: &str, asked: u64, most: u64| {
            Err(Refused {
                rejection: Rejection::LimitsTooHigh,
                message: format!("the request asks for {asked} {what}; at most {most} are given"),
            })
        };
        if asked.timeout_ms > self.maxima.timeout_ms {
            return refuse("ms of time", asked.timeout_ms, self.maxima.timeout_ms);
        }
        if asked.memory_mib > self.maxima.memory_mib {
            return refuse("MiB of memory", asked.memory_mib.into(), self.maxima.memory_mib.into());
        }
        if asked.fuel > self.maxima.fuel {
            return refuse("units of fuel", asked.fuel, self.maxima.fuel);
        }
        Ok(asked)
    }
}

/// A request that is answered without running anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The code of the answer.
    pub rejection: Rejection,
    /// Why, for people.
    pub message: String,
}

impl From<&Malformed> for Refused {
    fn from(malformed: &Malformed) -> Self {
        Self { rejection: malformed.code, message: malformed.message.clone() }
    }
}

/// A task's content, verified and on disk.
#[derive(Debug, Clone)]
pub struct Fetched(Runnable);

/// What a look at fetched content came to.
#[derive(Debug, Clone)]
pub enum Looked {
    /// It can be run.
    Runnable(Box<Runnable>),
    /// There is nothing to run: the answer is known.
    Answered(Box<Answered>),
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The content's: it is wrong, or not there.
    Content,
    /// That of those who were asked for it, unless they are well.
    Source,
    /// This machine's disk or configuration.
    Local,
    /// The runtime's.
    Runtime,
    /// The task's own, unless the runtime is not well.
    Task,
}

/// A task's content, verified and on disk, and its module looked at.
#[derive(Debug, Clone)]
pub struct Runnable {
    /// The module.
    pub module: Content,
    /// The input.
    pub input: Option<Content>,
    /// What bounds the run.
    pub limits: Limits,
    /// The executor's environment.
    pub environment: BTreeMap<String, String>,
}

/// A result document and what stands beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The document.
    pub document: Document,
    /// What it says.
    pub outcome: Outcome,
    /// Measurements, limits, isolation; none when nothing was run.
    pub record: Option<Record>,
    /// A sentence for people.
    pub message: Option<String>,
    /// When the guest's process was ready, and when it had ended.
    pub ran: Option<(SystemTime, SystemTime)>,
}

impl Answered {
    /// The answer to a request that is not run.
    #[must_use]
    pub fn rejected(refused: Refused) -> Self {
        Self::of(Outcome::Rejected(refused.rejection), Some(refused.message))
    }

    fn of(outcome: Outcome, message: Option<String>) -> Self {
        Self { document: Document::of(&outcome), outcome, record: None, message, ran: None }
    }
}

/// The infrastructure failed; the task did not. Trying again may help.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Content could not be had.
    #[error("cannot fetch the {role} {cid}")]
    Content {
        /// `module` or `input`.
        role: &'static str,
        /// The content's CID.
        cid: String,
        /// The cause.
        #[source]
        source: Box<ipfs::Error>,
    },
    /// The runtime or the launcher failed.
    #[error("the runtime failed")]
    Runtime(#[from] job::Error),
    /// A job was lost.
    #[error("job {name} was lost: {reason}")]
    Lost {
        /// The job.
        name: Name,
        /// The stable code of the loss.
        code: &'static str,
        /// What was seen.
        reason: String,
    },
}

impl Error {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Content { source, .. } => source.code(),
            Self::Runtime(error) => error.code(),
            Self::Lost { code, .. } => code,
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Content { source, .. } => match source.class() {
                ipfs::Class::Content => Blame::Content,
                ipfs::Class::Source => Blame::Source,
                ipfs::Class::Local => Blame::Local,
            },
            Self::Runtime(job::Error::TooLarge(_) | job::Error::Check(_)) => Blame::Task,
            Self::Runtime(_) => Blame::Runtime,
            Self::Lost { code, .. } => match *code {
                "launcher_gone" | "child_refused" | "job_file" => Blame::Runtime,
                _ => Blame::Task,
            },
        }
    }
}

/// What a look at a module said: none when it may run. By the module's SHA-256 and the memory limit in MiB.
type Verdicts = HashMap<([u8; 32], u32), Option<Answered>>;

/// Everything that one task's work needs.
pub struct Work {
    content: ipfs::Store,
    launcher: Launcher,
    runtime: Arc<dyn Runtime>,
    limits: LimitPolicy,
    verdicts: Mutex<Verdicts>,
    /// Where the module is kept that shows whether the runtime is well.
    probe: Option<PathBuf>,
    /// What the last look at the places of content came to: tasks that fail together look once.
    content_looked: tokio::sync::Mutex<Option<(Instant, Result<(), Fault>)>>,
    /// When content was had last.
    content_served: Mutex<Option<Instant>>,
}

/// After content was had, those who were asked for it are taken for well for this long.
const SERVED_LATELY: Duration = Duration::from_secs(60);

/// How long a look at a part is taken for a look now.
const FRESH: Duration = Duration::from_millis(400);

/// A module that does nothing: `(module (func (export "_start")))`.
const PROBE: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";
/// How long that may take, on a machine that does other things too.
const PROBE_WITHIN: Duration = Duration::from_secs(30);

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Work {
    /// Puts the parts together; nothing is started.
    #[must_use]
    pub fn new(
        content: ipfs::Store,
        launcher: Launcher,
        runtime: Arc<dyn Runtime>,
        limits: LimitPolicy,
    ) -> Self {
        Self {
            content,
            launcher,
            runtime,
            limits,
            verdicts: Mutex::default(),
            probe: None,
            content_looked: tokio::sync::Mutex::default(),
            content_served: Mutex::default(),
        }
    }

    /// With a file for the module that shows whether the runtime is well.
    #[must_use]
    pub fn with_probe(mut self, path: PathBuf) -> Self {
        self.probe = Some(path);
        self
    }

    /// The content store.
    #[must_use]
    pub fn content(&self) -> &ipfs::Store {
        &self.content
    }

    /// The runtime.
    #[must_use]
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }

    /// The limits that requests get.
    #[must_use]
    pub fn limits(&self) -> &LimitPolicy {
        &self.limits
    }

    /// What the runtime is.
    pub async fn describe(&self) -> Result<Description, Error> {
        Ok(self.runtime.describe().await?)
    }

    /// Admits the request's kind and limits, fetches and verifies its content and has the module looked at.
    pub async fn prepare(&self, request: &Request) -> Result<Looked, Error> {
        match self.fetch(request).await? {
            Ok(fetched) => self.look(fetched).await,
            Err(refused) => Ok(Looked::Answered(Box::new(Answered::rejected(refused)))),
        }
    }

    /// Admits the request's kind and limits, fetches and verifies its content: the outer error may pass, the inner one
    /// is the request's own fault.
    pub async fn fetch(&self, request: &Request) -> Result<Result<Fetched, Refused>, Error> {
        let Admitted { module, input, limits } = match admission::check(request, &self.limits) {
            Ok(admitted) => admitted,
            Err(refused) => return Ok(Err(refused)),
        };
        let module = match self.content_of("module", &module, limits.module_bytes).await? {
            Ok(module) => module,
            Err(refused) => return Ok(Err(refused)),
        };
        let input = match input {
            None => None,
            Some(cid) => match self.content_of("input", &cid, self.limits.input_bytes).await? {
                Ok(input) => Some(input),
                Err(refused) => return Ok(Err(refused)),
            },
        };
        let mut environment: BTreeMap<_, _> = request.environment.iter().cloned().collect();
        if let Some(entry) = &request.entry {
            environment.insert("ENTRY".to_owned(), entry.clone());
        }
        Ok(Ok(Fetched(Runnable { module, input, limits, environment })))
    }

    /// Has the module looked at.
    pub async fn look(&self, fetched: Fetched) -> Result<Looked, Error> {
        let Fetched(runnable) = fetched;
        Ok(match self.verdict(&runnable.module, &runnable.limits).await? {
            Some(answer) => Looked::Answered(Box::new(answer)),
            None => Looked::Runnable(Box::new(runnable)),
        })
    }

    /// Whether content can be had and kept here, by doing so: the cache can be written, and one source works at least.
    pub async fn content_is_well(&self) -> Result<(), Fault> {
        let mut looked = self.content_looked.lock().await;
        if let Some((at, known)) = &*looked
            && at.elapsed() < FRESH
        {
            return known.clone();
        }
        let places = self.content.probe().await;
        let is = |place: &&Place, kind| place.kind == kind;
        let mut sources: Vec<_> =
            places.iter().filter(|place| is(place, PlaceKind::Gateway)).collect();
        if sources.is_empty() {
            sources = places.iter().filter(|place| is(place, PlaceKind::Mirror)).collect();
        }
        let cache = places.iter().filter(|place| is(place, PlaceKind::Cache));
        let cache = cache.filter_map(fault_of).next();
        // What gives content works, whatever it says when it is looked at.
        let served = *self.content_served.lock().unwrap_or_else(PoisonError::into_inner);
        let serves = served.is_some_and(|at| at.elapsed() < SERVED_LATELY);
        let source = match !serves && sources.iter().all(|place| place.has_failed()) {
            true => sources.first().and_then(|place| fault_of(place)),
            false => None,
        };
        let found = cache.or(source).map_or(Ok(()), Err);
        *looked = Some((Instant::now(), found.clone()));
        found
    }

    /// The places of content that are known to fail, as far as is known without asking.
    #[must_use]
    pub fn failing_places(&self) -> Vec<(&'static str, Fault)> {
        let places = self.content.health();
        places.iter().filter_map(|place| Some((place.kind.name(), fault_of(place)?))).collect()
    }

    /// Whether the runtime runs anything, by running a module that does nothing, as the job of this name.
    pub async fn runtime_is_well(&self, name: &Name) -> Result<(), Fault> {
        let fault =
            |code: &str, message: String| Fault { code: code.to_owned(), message, stops: true };
        let failed = |error: &Error| fault(error.code(), causes(error));
        let Some(path) = &self.probe else {
            return self.describe().await.map(|_| ()).map_err(|error| failed(&error));
        };
        let io = |error: std::io::Error| {
            fault("job_file", format!("cannot write {}: {error}", path.display()))
        };
        tokio::fs::write(path, PROBE).await.map_err(io)?;
        let module = Blob { path: path.clone(), sha256: Sha256::digest(PROBE).into() };
        let limits = Limits { timeout_ms: 10_000, ..self.limits.defaults };
        let spec =
            Spec { name: name.clone(), module, input: None, environment: BTreeMap::new(), limits };
        let ran = async {
            self.runtime.ensure(&spec).await?;
            match self.runtime.wait(name).await? {
                Status::Finished(_) => Ok(()),
                Status::Lost(loss) => Err(Error::Lost {
                    name: name.clone(),
                    code: loss.cause.code(),
                    reason: loss.reason,
                }),
                Status::Missing | Status::Pending | Status::Running => Err(Error::Lost {
                    name: name.clone(),
                    code: "job_missing",
                    reason: "it went missing".to_owned(),
                }),
            }
        };
        let ran = tokio::time::timeout(PROBE_WITHIN, ran).await;
        let removed = tokio::time::timeout(PROBE_WITHIN, self.runtime.remove(name)).await;
        match (ran, removed) {
            (Ok(Ok(())), Ok(Ok(()))) => Ok(()),
            (Ok(Err(error)), _) => Err(failed(&error)),
            (_, Ok(Err(error))) => Err(fault(error.code(), causes(&error))),
            (Err(_), _) | (_, Err(_)) => {
                Err(fault("runtime_stalled", "the runtime does not answer in time".to_owned()))
            }
        }
    }

    /// Starts the job of this name, or finds it, and follows it to its end.
    pub async fn execute(&self, name: &Name, runnable: &Runnable) -> Result<Answered, Error> {
        let spec = Spec {
            name: name.clone(),
            module: blob(&runnable.module),
            input: runnable.input.as_ref().map(blob),
            environment: runnable.environment.clone(),
            limits: runnable.limits,
        };
        for _ in 0..ENSURES {
            self.runtime.ensure(&spec).await?;
            match self.runtime.wait(name).await? {
                Status::Finished(finished) => {
                    let message =
                        finished.record.as_ref().and_then(|record| record.message.clone());
                    return Ok(Answered {
                        document: finished.document,
                        outcome: finished.outcome,
                        record: finished.record,
                        message,
                        ran: Some((finished.started_at, finished.finished_at)),
                    });
                }
                Status::Lost(loss) => {
                    return Err(Error::Lost {
                        name: name.clone(),
                        code: loss.cause.code(),
                        reason: loss.reason,
                    });
                }
                Status::Missing | Status::Pending | Status::Running => {}
            }
        }
        Err(Error::Lost {
            name: name.clone(),
            code: "job_missing",
            reason: "it went missing each time it was started".to_owned(),
        })
    }

    /// Fetches content: the outer error may pass, the inner one is the content's own fault.
    async fn content_of(
        &self,
        role: &'static str,
        cid: &Cid,
        most_bytes: u64,
    ) -> Result<Result<Content, Refused>, Error> {
        let budget = Budget { expanded_bytes: most_bytes, ..Budget::default() };
        let error = match self.content.fetch(cid, &budget).await {
            Ok(content) => {
                let mut served = self.content_served.lock().unwrap_or_else(PoisonError::into_inner);
                *served = Some(Instant::now());
                return Ok(Ok(content));
            }
            Err(error) => error,
        };
        if error.retry() || error.class() != ipfs::Class::Content {
            return Err(Error::Content { role, cid: cid.to_string(), source: Box::new(error) });
        }
        let rejection = match error.code() {
            "invalid_cid" | "unsupported_codec" | "unsupported_hash" => Rejection::InvalidCid,
            "not_a_file" | "malformed_block" => Rejection::InvalidContent,
            "too_large" | "too_many_nodes" | "too_deep" => Rejection::ContentTooLarge,
            _ => Rejection::InvalidContent,
        };
        Ok(Err(Refused { rejection, message: format!("the {role} {cid}: {error}") }))
    }

    /// Has a confined child look at the module; its verdict on the same bytes is remembered.
    async fn verdict(&self, module: &Content, limits: &Limits) -> Result<Option<Answered>, Error> {
        let key = (module.sha256(), limits.memory_mib);
        let known = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(verdict) = known {
            return Ok(verdict);
        }
        let verdict = match self.launcher.check(&blob(module), limits).await? {
            Checked::Runnable(_) => None,
            Checked::Refused(refusal) => Some(Answered {
                document: refusal.document,
                outcome: refusal.outcome,
                record: Some(refusal.record),
                message: refusal.message,
                ran: None,
            }),
        };
        // A verdict that depends on how busy this machine was is not one to remember.
        let lasting = !verdict.as_ref().is_some_and(|answer| {
            answer.outcome == Outcome::Failed(Failure::Plain(PlainFailure::ModuleTooComplex))
        });
        if lasting {
            let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
            if verdicts.len() >= VERDICTS {
                verdicts.clear();
            }
            verdicts.insert(key, verdict.clone());
        }
        Ok(verdict)
    }
}

fn blob(content: &Content) -> Blob {
    Blob { path: content.path().to_owned(), sha256: content.sha256() }
}

/// Why a place does not work, with what to do about it; none of one that does.
fn fault_of(place: &Place) -> Option<Fault> {
    let PlaceState::Failed(fault) = &place.state else { return None };
    let hint = fault.hint.as_ref().map_or(String::new(), |hint| format!("; {hint}"));
    let message = format!("{} {}: {}{hint}", place.kind.name(), place.name, fault.message);
    let stops = place.kind == PlaceKind::Cache;
    Some(Fault { code: fault.code.to_owned(), message, stops })
}
