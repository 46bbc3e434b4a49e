use executor_protocol::Status;
use serde::{Deserialize, Serialize};

use crate::Hash;

/// A block that something stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRef {
    /// The block's number.
    pub number: u64,
    /// The block's hash.
    pub hash: Hash,
}

/// An outcome as the state machine knows it; the document itself is kept beside the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// How the task ended.
    pub status: Status,
    /// SHA-256 of the result document.
    pub digest: Hash,
    /// The code of a failure or a rejection.
    pub code: Option<String>,
}

/// Something that was seen. Each is a row of the event log; applying one twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    // ---- the watcher
    /// The task's submission stands in this block (again, after a reorg).
    Included {
        /// The block.
        block: BlockRef,
    },
    /// The block of its submission is no longer part of the chain.
    Dropped {
        /// The block that is gone.
        block: BlockRef,
    },
    /// Its requester asked to cancel it.
    CancelRequested,
    /// The contract closed it after its deadline.
    Expired,
    /// What had closed it, a cancellation or its deadline, stood in a block that is no longer part of the chain.
    Reopened,
    /// A result for it stands on chain.
    Answered {
        /// Whether it is signed by this coordinator's key.
        ours: bool,
        /// The result.
        answer: Answer,
        /// Where it stands.
        block: BlockRef,
        /// The transaction.
        transaction: Hash,
    },
    /// The block that its result stood in is no longer part of the chain.
    AnswerDropped {
        /// The block that is gone.
        block: BlockRef,
    },

    // ---- the pipeline
    /// Its content is being fetched.
    FetchStarted,
    /// Its content is here, verified and admitted.
    Fetched,
    /// A job was started for it.
    Started {
        /// The attempt, from 1.
        attempt: u32,
    },
    /// The infrastructure failed; the step is tried again later.
    Deferred {
        /// When, in Unix milliseconds.
        until_ms: i64,
        /// Stable code of the failure.
        code: String,
        /// The failure, for people.
        message: String,
    },
    /// The step could not be taken for a reason that is not the task's; it is taken later, and nothing is counted.
    Held {
        /// When, in Unix milliseconds.
        until_ms: i64,
        /// Stable code of the reason.
        code: String,
        /// The reason, for people.
        message: String,
    },
    /// It has an outcome.
    Finished {
        /// The outcome.
        answer: Answer,
    },
    /// Its outcome is known from the chain alone and its document is not here: it is run again.
    DocumentMissing,
    /// Its result was handed to the publisher.
    Queued,
    /// Its result will not be published: there is no key, or the policy says so.
    Retired {
        /// Why, for people.
        reason: String,
    },
    /// Everything that was created for it is gone.
    Cleaned,

    // ---- the publisher
    /// A transaction with its result was signed, stored and is being broadcast.
    Sent {
        /// The transaction.
        transaction: Hash,
        /// The publisher's nonce.
        nonce: u64,
    },
    /// Its result stands in this block.
    Mined {
        /// The transaction.
        transaction: Hash,
        /// The block.
        block: BlockRef,
    },
    /// The block of its result, or of its refusal, is gone; the publisher sends it again.
    Unmined,
    /// Its result is as deep as the confirmations ask.
    Finalized,
    /// The contract will never take its result.
    Refused {
        /// The contract's reason: a stable code.
        code: String,
        /// The reason, for people.
        message: String,
    },
}

impl Event {
    /// The event's name in the log, the API and SQL.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Included { .. } => "included",
            Self::Dropped { .. } => "dropped",
            Self::CancelRequested => "cancel_requested",
            Self::Expired => "expired",
            Self::Reopened => "reopened",
            Self::Answered { .. } => "answered",
            Self::AnswerDropped { .. } => "answer_dropped",
            Self::FetchStarted => "fetch_started",
            Self::Fetched => "fetched",
            Self::Started { .. } => "started",
            Self::Deferred { .. } => "deferred",
            Self::Held { .. } => "held",
            Self::Finished { .. } => "finished",
            Self::DocumentMissing => "document_missing",
            Self::Queued => "queued",
            Self::Retired { .. } => "retired",
            Self::Cleaned => "cleaned",
            Self::Sent { .. } => "sent",
            Self::Mined { .. } => "mined",
            Self::Unmined => "unmined",
            Self::Finalized => "finalized",
            Self::Refused { .. } => "refused",
        }
    }
}
