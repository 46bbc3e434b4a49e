use std::time::Duration;

use task::{Address, Hash};

use crate::class::{self, Class};

/// Why the chain was not read or written. No URL in it shows credentials.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A URL cannot be used.
    #[error("the chain endpoint {url} cannot be used: {reason}")]
    InvalidUrl {
        /// The URL without what is secret.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A text is no key.
    #[error("the key cannot be used: {0}")]
    InvalidKey(&'static str),
    /// A file with a key cannot be read.
    #[error("cannot read the key file {path}")]
    KeyFile {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The endpoint did not answer.
    #[error("{endpoint} did not answer {method}: {reason}")]
    Unreachable {
        /// The endpoint.
        endpoint: String,
        /// The call.
        method: &'static str,
        /// The cause.
        reason: String,
    },
    /// The endpoint refused with an HTTP status.
    #[error("{endpoint} answered {method} with HTTP status {status}")]
    Status {
        /// The endpoint.
        endpoint: String,
        /// The call.
        method: &'static str,
        /// The status.
        status: u16,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// Every endpoint failed a moment ago and is left alone for a while.
    #[error("no chain endpoint can be asked right now: {last}")]
    Resting {
        /// When the first can be asked again.
        retry_after: Duration,
        /// What was wrong with each.
        last: String,
    },
    /// The answer would be larger than the endpoint or we allow.
    #[error("{endpoint} has more results for {method} than it gives: {message}")]
    TooMuch {
        /// The endpoint.
        endpoint: String,
        /// The call.
        method: &'static str,
        /// Its words.
        message: String,
    },
    /// The endpoint answered with an error.
    #[error("{endpoint} answered {method} with error {code}: {message}")]
    Rpc {
        /// The endpoint.
        endpoint: String,
        /// The call.
        method: &'static str,
        /// JSON-RPC's code.
        code: i64,
        /// Its words.
        message: String,
        /// What came with it: the revert data of a call.
        data: Option<Vec<u8>>,
    },
    /// The answer is not what the call answers.
    #[error("{endpoint} answered {method} with something unreadable: {reason}")]
    Unreadable {
        /// The endpoint.
        endpoint: String,
        /// The call.
        method: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The endpoint serves another chain than the one that is stored or that the first endpoint serves.
    #[error(
        "{endpoint} serves chain {chain_id} with genesis {genesis}, not chain {wanted_id} with genesis {wanted_genesis}"
    )]
    WrongChain {
        /// The endpoint.
        endpoint: String,
        /// Its chain id.
        chain_id: u64,
        /// Its genesis.
        genesis: Hash,
        /// The chain id it should have.
        wanted_id: u64,
        /// The genesis it should have.
        wanted_genesis: Hash,
    },
    /// There is no code at the contract's address.
    #[error("there is no contract at {0}")]
    NoContract(Address),
    /// The node leaves out events.
    #[error("the events of the tasks from sequence {expected} to before {seen} are missing")]
    SequenceGap {
        /// The sequence that should have come.
        expected: u64,
        /// The one that came, or the contract's count.
        seen: u64,
    },
    /// The node's view changed while it was read; read again.
    #[error("the chain changed while it was read")]
    Moved,
    /// The node is behind what was read before.
    #[error("{endpoint} is at block {head}, behind block {cursor} that was read before")]
    Lagging {
        /// The endpoint.
        endpoint: String,
        /// Its newest block.
        head: u64,
        /// What was read before.
        cursor: u64,
    },
    /// What a node said does not fit what it said before about the same block.
    #[error("{endpoint} contradicts itself about block {block}: {what}")]
    Inconsistent {
        /// The endpoint.
        endpoint: String,
        /// The block's number.
        block: u64,
        /// What does not fit.
        what: String,
    },
    /// Nothing says where the contract's events begin.
    #[error(
        "the endpoints do not say where the events of {0} begin: COORDINATOR_FROM_BLOCK names the block to read from, \
         at most the one the contract was deployed in"
    )]
    NoBeginning(Address),
    /// The chain forked below everything that is remembered.
    #[error("the chain changed below block {lowest}, deeper than the ring of recent blocks")]
    ReorgTooDeep {
        /// The ring's lowest block.
        lowest: u64,
    },
    /// The contract sees other blocks than the nodes tell.
    #[error(
        "the contract sees block {number} with the hash {seen}, the nodes tell {told}: on this chain every publication \
         would fail by its anchor"
    )]
    AnchorsDiffer {
        /// The block's number.
        number: u64,
        /// Its hash for the contract.
        seen: Hash,
        /// Its hash for the nodes.
        told: Hash,
    },
    /// The key may not publish.
    #[error("{address} is no coordinator of domain {domain}; the owner has to call setCoordinator")]
    NotCoordinator {
        /// The domain.
        domain: u16,
        /// The key's address.
        address: Address,
    },
    /// The contract does not know the engine.
    #[error("the engine {0:?} is not registered; the owner has to call registerEngine")]
    EngineNotRegistered(String),
    /// The contract refused a call.
    #[error("the contract refuses {method}: {message}")]
    Reverted {
        /// The function.
        method: &'static str,
        /// The contract's error as a stable code.
        code: &'static str,
        /// The contract's error, for people.
        message: String,
    },
    /// A request does not fit the contract's formats.
    #[error("the request cannot be packed")]
    Encode(#[from] task_board::EncodeError),
    /// A transaction was sent and is not mined in time; it may still be.
    #[error("the transaction {transaction} was not mined within {seconds} s")]
    NotMined {
        /// The transaction.
        transaction: Hash,
        /// How long was waited.
        seconds: u64,
    },
    /// What answers at the contract's address is not one of ours.
    #[error("{address} is no TaskBoard: {reason}; nothing was sent")]
    NotATaskBoard {
        /// The address.
        address: Address,
        /// What was seen there.
        reason: String,
    },
    /// A transaction was mined without the event that says what it did.
    #[error("the transaction {transaction} was mined, but it has no {event}: {method} did nothing")]
    MissingEvent {
        /// The function.
        method: &'static str,
        /// The event.
        event: &'static str,
        /// The transaction.
        transaction: Hash,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Error {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidUrl { .. } => "invalid_url",
            Self::InvalidKey(_) => "invalid_key",
            Self::KeyFile { .. } => "key_file",
            Self::Unreachable { .. } => "unreachable",
            Self::Status { .. } => "http_status",
            Self::Resting { .. } => "endpoints_resting",
            Self::TooMuch { .. } => "too_many_results",
            Self::Rpc { .. } => "rpc_error",
            Self::Unreadable { .. } => "unreadable_answer",
            Self::WrongChain { .. } => "wrong_chain",
            Self::NoContract(_) => "no_contract",
            Self::SequenceGap { .. } => "sequence_gap",
            Self::Moved => "chain_moved",
            Self::Lagging { .. } => "chain_lagging",
            Self::Inconsistent { .. } => "provider_inconsistent",
            Self::NoBeginning(_) => "no_beginning",
            Self::ReorgTooDeep { .. } => "reorg_too_deep",
            Self::AnchorsDiffer { .. } => "anchors_differ",
            Self::NotCoordinator { .. } => "not_coordinator",
            Self::EngineNotRegistered(_) => "engine_not_registered",
            Self::Reverted { code, .. } => code,
            Self::Encode(error) => error.code(),
            Self::NotMined { .. } => "not_mined",
            Self::NotATaskBoard { .. } => "not_a_task_board",
            Self::MissingEvent { .. } => "missing_event",
            Self::Store(error) => error.code(),
        }
    }

    /// Whether the same may work a little later.
    #[must_use]
    pub fn retry(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Status { .. }
            | Self::Resting { .. }
            | Self::TooMuch { .. }
            | Self::Rpc { .. }
            | Self::Unreadable { .. }
            | Self::SequenceGap { .. }
            | Self::Moved
            | Self::Lagging { .. }
            | Self::Inconsistent { .. }
            | Self::NotMined { .. } => true,
            Self::InvalidUrl { .. }
            | Self::InvalidKey(_)
            | Self::KeyFile { .. }
            | Self::WrongChain { .. }
            | Self::NoContract(_)
            | Self::NoBeginning(_)
            | Self::ReorgTooDeep { .. }
            | Self::AnchorsDiffer { .. }
            | Self::NotCoordinator { .. }
            | Self::EngineNotRegistered(_)
            | Self::Reverted { .. }
            | Self::Encode(_)
            | Self::NotATaskBoard { .. }
            | Self::MissingEvent { .. }
            | Self::Store(_) => false,
        }
    }

    /// Where the same may work.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Rpc { method, code, message, data, .. } => {
                class::of_rpc(method, *code, message, data.is_some())
            }
            // The endpoint forbids it, or it is asked too often: fewer blocks do not help.
            Self::Status { status: 401..=403 | 429, .. } => Class::Elsewhere,
            Self::Unreachable { method, .. }
            | Self::Status { method, .. }
            | Self::Unreadable { method, .. }
                if *method == "eth_getLogs" =>
            {
                Class::SmallerRange
            }
            Self::TooMuch { .. } => Class::SmallerRange,
            Self::Unreachable { .. }
            | Self::Status { .. }
            | Self::Unreadable { .. }
            | Self::WrongChain { .. }
            | Self::SequenceGap { .. }
            | Self::Inconsistent { .. }
            | Self::Lagging { .. } => Class::Elsewhere,
            Self::Resting { .. } | Self::Moved | Self::NotMined { .. } => Class::Here,
            Self::InvalidUrl { .. }
            | Self::InvalidKey(_)
            | Self::KeyFile { .. }
            | Self::NoContract(_)
            | Self::NoBeginning(_)
            | Self::ReorgTooDeep { .. }
            | Self::AnchorsDiffer { .. }
            | Self::NotCoordinator { .. }
            | Self::EngineNotRegistered(_)
            | Self::Reverted { .. }
            | Self::Encode(_)
            | Self::NotATaskBoard { .. }
            | Self::MissingEvent { .. }
            | Self::Store(_) => Class::Never,
        }
    }

    /// How long nobody can be asked. What one endpoint asks for keeps nobody from asking another one.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Resting { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// Whether the endpoint is left alone for a while after it. A range that it says is too wide is no failure of it.
    pub(crate) fn is_endpoints(&self) -> bool {
        !matches!(self, Self::TooMuch { .. })
            && matches!(self.class(), Class::Elsewhere | Class::SmallerRange)
    }

    /// Whether somebody who has used the contract before goes on after it: then also a contract that is not there is a
    /// node that lacks state, or a branch that does not last.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.retry() || matches!(self, Self::NoContract(_))
    }

    /// Whether the same endpoint may well answer the same call a moment later: not when it asks to be left alone.
    pub(crate) fn is_momentary(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Unreadable { .. }
            | Self::Status { status: 500 | 502 | 504, retry_after: None, .. } => true,
            Self::Rpc { method, code, message, data, .. } => {
                class::is_momentary(method, *code, message, data.is_some())
            }
            _ => false,
        }
    }
}
