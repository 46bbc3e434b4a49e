use serde::{Deserialize, Serialize};

use crate::Address;

/// What kind of work a task asks for, numbered as the contract numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A WebAssembly module.
    Wasm,
    /// A container run.
    Container,
    /// One execution in a fresh sandbox session.
    Session,
    /// A number that has no meaning yet.
    Other(u8),
}

impl Kind {
    /// The kind with the contract's number.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Wasm,
            2 => Self::Container,
            3 => Self::Session,
            other => Self::Other(other),
        }
    }

    /// The name in the API and in metric labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Container => "container",
            Self::Session => "session",
            Self::Other(_) => "other",
        }
    }
}

/// A decoded request. Zero limits were left to the coordinator and are `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The kind of work.
    pub kind: Kind,
    /// The module's CID as text.
    pub module: Option<String>,
    /// The input's CID as text.
    pub input: Option<String>,
    /// The entry, if the request names one.
    pub entry: Option<String>,
    /// Wall-clock limit, in seconds.
    pub timeout_s: Option<u32>,
    /// Memory limit, in MiB.
    pub memory_mib: Option<u32>,
    /// Fuel limit.
    pub fuel: Option<u64>,
    /// When the result becomes worthless: Unix time, in seconds.
    pub deadline_at: Option<u64>,
    /// Fee in escrow, in wei.
    #[serde(with = "decimal")]
    pub fee_wei: u128,
    /// Gas of the callback to the requester; 0 for none.
    pub callback_gas: u32,
    /// Executor environment that does not come from the chain: only the placeholder source sets it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<(String, String)>,
}

/// What an event said: a request, or why it is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// Who submitted it.
    pub requester: Address,
    /// The transaction that submitted it, as text; none for the placeholder source.
    pub transaction: Option<String>,
    /// The request, or the code and the sentence of what is wrong with it.
    pub request: Result<Request, Malformed>,
}

/// Why an event holds no request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Malformed {
    /// `malformed_request`, `unsupported_version` or `invalid_cid`.
    pub code: executor_protocol::Rejection,
    /// What is wrong, for people.
    pub message: String,
}

/// An amount that does not fit a double, as a decimal string.
mod decimal {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<u128, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
