//! What a coordinator must not lose, in SQLite: the database is the queue.
//!
//! Every change goes through a [`Writer`], one transaction at a time; a task's row changes only by compare-and-set on
//! its version. Watcher and publisher append [`task::Event`] rows in the same transaction as their own cursor or
//! outbox; the pipeline alone applies them ([`Writer::apply`]).

mod chain;
mod claim;
mod connect;
mod event;
pub mod fault;
mod origin;
mod outbox;
mod result;
mod task_row;
mod violation;
mod withdrawal;

pub use chain::{Board, ChainRow, RingBlock, Sighting, SightingKind};
pub use claim::Claim;
pub use connect::{Store, Writer};
pub use event::{EventRow, TimelineEntry};
pub use origin::Engine;
pub use outbox::{Account, Attempt, Mined, Outgoing, OutgoingState, Pending};
pub use result::{Publication, ResultRow};
pub use task_row::{Filter, Inserted, Queue, Use, Versioned, Waiting};
pub use violation::Violation;
pub use withdrawal::{Earnings, Withdrawal};

/// Why the store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database could not be opened.
    #[error("cannot open the database {path}: {source}")]
    Open {
        /// The file.
        path: String,
        /// The cause.
        source: sqlx::Error,
    },
    /// The schema could not be brought up to date; a newer schema is refused here.
    #[error("cannot migrate the database {path}; was it written by a newer version?")]
    Migrate {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    /// A statement failed.
    #[error("the database failed while {doing}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// A row does not hold what this version writes.
    #[error("the row of {what} cannot be read: {reason}")]
    Row {
        /// Which row.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else changed the row since it was read; read it again.
    #[error("task {0} was changed by somebody else")]
    Conflict(task::LocalId),
    /// There is no such task.
    #[error("there is no task {0}")]
    NoTask(task::LocalId),
    /// The event does not fit the task's state.
    #[error(transparent)]
    Transition(#[from] task::InvalidTransition),
    /// The event does not fit the publication's state.
    #[error(transparent)]
    Publication(#[from] task::publication::Invalid),
    /// Another process opened the database since this one did.
    #[error("another process has taken the database over; this one may not write any more")]
    TakenOver,
    /// Another process works on the database.
    #[error(
        "another coordinator works on the database {path} ({holder}); stop it first, or name another one"
    )]
    InUse {
        /// The file.
        path: String,
        /// What is known of the other process.
        holder: String,
    },
}

impl Error {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Open { .. } => "database_unavailable",
            Self::Migrate { .. } => "database_schema",
            Self::Database { .. } => "database_failed",
            Self::Row { .. } => "database_row",
            Self::Conflict(_) => "conflict",
            Self::NoTask(_) => "no_such_task",
            Self::Transition(_) | Self::Publication(_) => "invalid_transition",
            Self::TakenOver => "database_taken_over",
            Self::InUse { .. } => "database_in_use",
        }
    }

    /// For `map_err`: names what was being done.
    pub(crate) fn doing(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { doing, source }
    }

    pub(crate) fn row(what: impl std::fmt::Display, reason: impl std::fmt::Display) -> Self {
        Self::Row { what: what.to_string(), reason: reason.to_string() }
    }
}

/// Now, in Unix milliseconds: the store's rows carry the time that the caller gives them.
#[must_use]
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |elapsed| i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
