use crate::{config, serve, telemetry, work};

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be used.
    #[error(transparent)]
    Configuration(#[from] config::Problems),
    /// The arguments cannot be used.
    #[error("{0}")]
    Usage(String),
    /// It was done, and the answer is no.
    #[error("{0}")]
    No(String),
    /// Any coordinator would refuse it: nothing was sent.
    #[error("{}; nothing was sent", .0.message)]
    Refused(work::Refused),
    /// Somebody wanted it to end.
    #[error("interrupted; what was submitted goes on")]
    Interrupted,
    /// Something that was asked for is not there.
    #[error("{0}")]
    Missing(String),
    /// The chain failed.
    #[error(transparent)]
    Chain(Box<chain::Error>),
    /// Content could not be had or added.
    #[error(transparent)]
    Content(Box<ipfs::Error>),
    /// A run failed for a reason that is not the guest's.
    #[error(transparent)]
    Work(Box<work::Error>),
    /// The runtime cannot be used.
    #[error(transparent)]
    Runtime(#[from] job::Error),
    /// The daemon could not be started.
    #[error(transparent)]
    Serve(Box<serve::Error>),
    /// The log could not be started.
    #[error(transparent)]
    Log(#[from] telemetry::Error),
    /// The request cannot be packed for the contract.
    #[error("the request cannot be submitted")]
    Encode(#[from] task_board::EncodeError),
    /// A running coordinator could not be asked.
    #[error("cannot ask the coordinator at {url}; is it running, and is --api right?")]
    Unreachable {
        /// Where.
        url: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// A running coordinator answered with an error.
    #[error("the coordinator answers: {message}")]
    Api {
        /// Its code.
        code: String,
        /// Its sentence.
        message: String,
    },
    /// A file or a process could not be used.
    #[error("cannot {doing}")]
    Io {
        /// What was being done, and to which file.
        doing: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl From<work::Refused> for Error {
    fn from(refused: work::Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<work::Error> for Error {
    fn from(error: work::Error) -> Self {
        Self::Work(Box::new(error))
    }
}

impl From<serve::Error> for Error {
    fn from(error: serve::Error) -> Self {
        Self::Serve(Box::new(error))
    }
}

impl From<ipfs::Error> for Error {
    fn from(error: ipfs::Error) -> Self {
        Self::Content(Box::new(error))
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
    pub fn code(&self) -> &str {
        match self {
            Self::Configuration(_) => "configuration",
            Self::Usage(_) => "usage",
            Self::No(_) => "negative",
            Self::Refused(refused) => refused.rejection.code(),
            Self::Interrupted => "interrupted",
            Self::Missing(_) => "missing",
            Self::Chain(error) => error.code(),
            Self::Content(error) => error.code(),
            Self::Work(error) => error.code(),
            Self::Runtime(error) => error.code(),
            Self::Serve(error) => error.code(),
            Self::Log(_) => "log",
            Self::Encode(error) => error.code(),
            Self::Unreachable { .. } => "coordinator_unreachable",
            Self::Api { code, .. } => code,
            Self::Io { .. } => "io",
        }
    }

    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_) | Self::Usage(_) | Self::Refused(_) => 2,
            Self::No(_) => 3,
            _ => 1,
        }
    }

    /// For `map_err`: names what was being done.
    pub(super) fn doing(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { doing: doing.into(), source }
    }
}
