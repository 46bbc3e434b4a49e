//! What one task needs, from its request to its result document: admit its limits, fetch and verify its content, look
//! at the module, run it. No chain and no database here, so that `run` and `verify` do exactly what `serve` does.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use executor_protocol::{Document, Failure, Limits, Outcome, PlainFailure, Record, Rejection};
use ipfs::{Budget, Cid, Content};
use job::{
    Blob, Description, Name, Runtime, Spec, Status,
    launcher::{Checked, Launcher},
};
use task::{Kind, Malformed, Request};

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

/// What became of a request's content.
#[derive(Debug, Clone)]
pub enum Prepared {
    /// It can be run.
    Runnable(Box<Runnable>),
    /// There is nothing to run: the answer is known.
    Answered(Box<Answered>),
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

    /// Whether it is content that could not be had: that is retried until the deadline.
    #[must_use]
    pub fn is_content(&self) -> bool {
        matches!(self, Self::Content { .. })
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
}

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
        Self { content, launcher, runtime, limits, verdicts: Mutex::default() }
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
    pub async fn prepare(&self, request: &Request) -> Result<Prepared, Error> {
        let answered = |answer| Ok(Prepared::Answered(Box::new(answer)));
        let (module_cid, input_cid, limits) = match self.admit(request) {
            Ok(admitted) => admitted,
            Err(refused) => return answered(Answered::rejected(refused)),
        };
        let module = match self.fetch("module", &module_cid, limits.module_bytes).await? {
            Ok(module) => module,
            Err(refused) => return answered(Answered::rejected(refused)),
        };
        let input = match input_cid {
            None => None,
            Some(cid) => match self.fetch("input", &cid, self.limits.input_bytes).await? {
                Ok(input) => Some(input),
                Err(refused) => return answered(Answered::rejected(refused)),
            },
        };
        if let Some(answer) = self.verdict(&module, &limits).await? {
            return answered(answer);
        }
        let mut environment: BTreeMap<_, _> = request.environment.iter().cloned().collect();
        if let Some(entry) = &request.entry {
            environment.insert("ENTRY".to_owned(), entry.clone());
        }
        Ok(Prepared::Runnable(Box::new(Runnable { module, input, limits, environment })))
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

    fn admit(&self, request: &Request) -> Result<(Cid, Option<Cid>, Limits), Refused> {
        if request.kind != Kind::Wasm {
            return Err(Refused {
                rejection: Rejection::UnsupportedKind,
                message: format!("tasks of kind {} are not run here", request.kind.name()),
            });
        }
        let limits = self.limits.of(request)?;
        let parse = |role: &str, text: &str| {
            Cid::parse(text).map_err(|error| Refused {
                rejection: Rejection::InvalidCid,
                message: format!("the {role}'s CID: {error}"),
            })
        };
        let module = request.module.as_deref().ok_or_else(|| Refused {
            rejection: Rejection::InvalidCid,
            message: "the request names no module".to_owned(),
        })?;
        let module = parse("module", module)?;
        let input = request.input.as_deref().map(|text| parse("input", text)).transpose()?;
        Ok((module, input, limits))
    }

    /// Fetches content: the outer error may pass, the inner one is the content's own fault.
    async fn fetch(
        &self,
        role: &'static str,
        cid: &Cid,
        most_bytes: u64,
    ) -> Result<Result<Content, Refused>, Error> {
        let budget = Budget { expanded_bytes: most_bytes, ..Budget::default() };
        let error = match self.content.fetch(cid, &budget).await {
            Ok(content) => return Ok(Ok(content)),
            Err(error) => error,
        };
        let rejection = match error.code() {
            "invalid_cid" | "unsupported_codec" | "unsupported_hash" => Rejection::InvalidCid,
            "not_a_file" | "malformed_block" => Rejection::InvalidContent,
            "too_large" | "too_many_nodes" | "too_deep" => Rejection::ContentTooLarge,
            _ => {
                return Err(Error::Content { role, cid: cid.to_string(), source: Box::new(error) });
            }
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
