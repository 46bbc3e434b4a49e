use super::{Place, Reason};
use crate::BlockRef;

/// Something that happened to a publication. What comes from the chain fits every state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    // ---- the pipeline
    /// The task has this outcome and stands in this block: publish it.
    Queued {
        /// The block of its submission.
        included: BlockRef,
        /// Whether it is another document than the one that was signed before.
        changed: bool,
    },

    // ---- the watcher
    /// The block of its submission is no longer part of the chain.
    Dropped {
        /// The block that is gone.
        block: BlockRef,
    },

    // ---- the publisher
    /// A transaction of this nonce that holds it was signed and stored.
    Signed {
        /// The nonce.
        nonce: u64,
    },
    /// It stands on chain.
    Mined {
        /// Where.
        place: Place,
    },
    /// The transaction of its nonce was mined and did not put it on chain.
    NotTaken {
        /// Where the transaction stands.
        place: Place,
        /// Why.
        reason: Reason,
        /// Whether it is worth another transaction.
        again: bool,
        /// Whether that is another try of the same, with more gas and alone.
        counts: bool,
        /// Whether its id is closed by what does not belong to its task.
        strange: bool,
    },
    /// Its nonce will never put it on chain: somebody else's transaction has it.
    Freed {
        /// The nonce.
        nonce: u64,
    },
    /// The block that the transaction of its nonce stood in is gone, and the transaction stands in no other.
    Unmined {
        /// The nonce.
        nonce: u64,
    },
    /// The transaction of its nonce is as deep as the confirmations ask.
    Deep {
        /// The nonce.
        nonce: u64,
    },
    /// It was waited for in vain: it is not sent any more.
    GivenUp {
        /// Why.
        reason: Reason,
    },
}

impl Event {
    /// The event's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Dropped { .. } => "dropped",
            Self::Signed { .. } => "signed",
            Self::Mined { .. } => "mined",
            Self::NotTaken { .. } => "not_taken",
            Self::Freed { .. } => "freed",
            Self::Unmined { .. } => "unmined",
            Self::Deep { .. } => "deep",
            Self::GivenUp { .. } => "given_up",
        }
    }
}
