use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::SystemTime;

use executor_protocol::{Document, Isolation, Limits, Outcome, Record};

use crate::{Error, Log, Name};

/// What each method of a [`Runtime`] answers, so that a runtime can be chosen when the program runs.
pub type Future<'a, T> = Pin<Box<dyn std::future::Future<Output = T> + Send + 'a>>;

/// A file whose content was verified. It is there, and stays as it is, until the job is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of its bytes; the executor checks them against it once more.
    pub sha256: [u8; 32],
}

/// What is to run: to its end, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The job's name: the key under which everything about it is idempotent.
    pub name: Name,
    /// The module.
    pub module: Blob,
    /// The input, if there is one.
    pub input: Option<Blob>,
    /// The executor's environment for this task: `ENTRY`, `ARGS_JSON`, `ADD_X`, `ADD_Y`.
    pub environment: BTreeMap<String, String>,
    /// What bounds it.
    pub limits: Limits,
}

/// Where a job is.
#[derive(Debug, Clone)]
pub enum Status {
    /// Not known here: never ensured, removed, or forgotten when this process ended. It may be ensured again.
    Missing,
    /// Known, and its guest does not run yet.
    Pending,
    /// Its guest runs.
    Running,
    /// There is a verified result; how the guest ended is in it.
    Finished(Box<Finished>),
    /// It ended without a result through no fault of the guest's. Nothing is known of what the guest would say.
    Lost(Loss),
}

impl Status {
    /// Whether it stays as it is until the job is removed.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Finished(_) | Self::Lost(_))
    }
}

/// A job's verified result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The document: its line, digest and size agreed.
    pub document: Document,
    /// What the document says.
    pub outcome: Outcome,
    /// Measurements, limits and isolation, where the runtime has them.
    pub record: Option<Record>,
    /// When the guest's process was ready.
    pub started_at: SystemTime,
    /// When the result was there.
    pub finished_at: SystemTime,
}

/// How a job came to an end without a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// For programs.
    pub cause: Cause,
    /// For people.
    pub reason: String,
}

/// Why a job was lost. A closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// What starts and watches the processes ended, and its children with it.
    LauncherGone,
    /// The guest's process could not be started or confined.
    Refused,
    /// Somebody ended the guest's process.
    Killed,
    /// The guest's process used more memory than its limits and their slack allow: a fault of ours, because the
    /// guest's own limit comes first.
    OutOfMemory,
    /// The guest's process failed.
    Crashed,
    /// The result's line, digest, size and copy do not agree.
    ResultMismatch,
    /// Module or input do not have the digest that was verified.
    ContentMismatch,
    /// A file of the job could not be read or written.
    Unreadable,
}

impl Cause {
    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::LauncherGone => "launcher_gone",
            Self::Refused => "child_refused",
            Self::Killed => "executor_killed",
            Self::OutOfMemory => "executor_out_of_memory",
            Self::Crashed => "executor_crashed",
            Self::ResultMismatch => "result_mismatch",
            Self::ContentMismatch => "content_mismatch",
            Self::Unreadable => "job_file",
        }
    }

    /// Whether another attempt with the same files may go better. If not, they have to be fetched anew.
    #[must_use]
    pub fn retry(self) -> bool {
        !matches!(self, Self::ContentMismatch | Self::Unreadable)
    }
}

/// What a runtime is and what it confines with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The runtime's name in settings and records.
    pub name: &'static str,
    /// The engine's printable name, as registered on chain.
    pub engine: String,
    /// The engine's exact version, for people.
    pub engine_version: String,
    /// What confines a job here.
    pub isolation: Isolation,
}

/// Something that runs jobs. The contract, which one suite of tests holds every implementation to:
///
/// - A job is known by its [`Name`] alone. `ensure` of a name that is there, in whatever state, does nothing and
///   succeeds; so a job runs at most once under a name, and an asker that lost its memory just asks again.
/// - A job goes from `Pending` over `Running` to `Finished` or `Lost`, never back, and stays there until `remove`.
///   After `remove`, or when the runtime itself was restarted and does not keep jobs, it is `Missing`.
/// - A guest's failure, its time-out and the breach of a limit are a `Finished` status. `Lost` is infrastructure.
///   An [`Error`] says that the runtime could not answer; it says nothing about the job.
/// - A `Finished` status holds a document whose line, digest and size agreed. A result that does not agree is
///   `Lost`, never repaired.
/// - What a guest writes never becomes part of a result; it can be had from `log` until the job is removed.
/// - `remove` ends a job that runs, returns when nothing of it is left, and succeeds for a name that is not there.
/// - Every future may be dropped at any time without leaving the runtime in a state that `observe` does not tell.
///
/// Jobs run to their end. One that stays, with an address to reach it and a stop, will be another kind of [`Spec`]
/// and another [`Status`] under the same names and the same rules.
pub trait Runtime: Send + Sync {
    /// What this runtime is.
    fn describe(&self) -> Future<'_, Result<Description, Error>>;

    /// Sees to it that the job exists. Returns as soon as it does, not when it has ended.
    fn ensure<'a>(&'a self, spec: &'a Spec) -> Future<'a, Result<(), Error>>;

    /// Where a job is now.
    fn observe<'a>(&'a self, name: &'a Name) -> Future<'a, Result<Status, Error>>;

    /// Waits until a job is `Finished`, `Lost` or `Missing`, and says which.
    fn wait<'a>(&'a self, name: &'a Name) -> Future<'a, Result<Status, Error>>;

    /// The end of what the job wrote so far; none for one that is not there.
    fn log<'a>(&'a self, name: &'a Name) -> Future<'a, Result<Option<Log>, Error>>;

    /// Ends a job and forgets it.
    fn remove<'a>(&'a self, name: &'a Name) -> Future<'a, Result<(), Error>>;

    /// Every job of this runtime, to find those that nobody wants any more.
    fn list(&self) -> Future<'_, Result<Vec<Name>, Error>>;
}
