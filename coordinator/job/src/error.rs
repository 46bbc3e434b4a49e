use std::io;
use std::path::PathBuf;

/// Why a runtime could not do what was asked of it. Always infrastructure: how a guest ends is never one of these.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The executor could not be started.
    #[error("cannot start the executor {path}", path = .path.display())]
    Spawn {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The launcher says that it cannot work on this machine.
    #[error("the launcher cannot confine anything here: {0}")]
    Unable(String),
    /// The launcher ended, or said something that it must not say.
    #[error("the launcher is gone: {0}")]
    Gone(String),
    /// A child could not be started or confined.
    #[error("no confined child could be started: {0}")]
    Refused(String),
    /// A child that looks at a module failed for a reason that is not the module's.
    #[error("a module could not be looked at: {0}")]
    Check(String),
    /// A file of a job, or of the cache, could not be used.
    #[error("cannot {doing} {path}", path = .path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a pipe or a socket.
    #[error("cannot make a pipe or a socket")]
    Descriptor(#[source] io::Error),
    /// What a job is given does not fit one message to the launcher.
    #[error("the arguments of the job {0} are too large")]
    TooLarge(usize),
}

impl Error {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Spawn { .. } => "executor_unavailable",
            Self::Unable(_) => "confinement_unavailable",
            Self::Gone(_) => "launcher_gone",
            Self::Refused(_) => "child_refused",
            Self::Check(_) => "check_failed",
            Self::File { .. } => "job_file",
            Self::Descriptor(_) => "descriptors_unavailable",
            Self::TooLarge(_) => "arguments_too_large",
        }
    }

    /// Whether another attempt may go better.
    #[must_use]
    pub fn retry(&self) -> bool {
        !matches!(self, Self::TooLarge(_))
    }
}
