use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Address, Hash};

/// A task's number inside one coordinator: used by the API and in the names of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LocalId(pub i64);

impl fmt::Display for LocalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A task's id on its contract: domain, kept flag and dense sequence, packed as `ITaskBoard.sol` says.
/// In JSON a decimal string, because it does not fit a double.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub u64);

impl TaskId {
    const KEPT: u64 = 1 << 47;

    /// Packs an id; bits of `sequence` above 47 are dropped.
    #[must_use]
    pub fn new(domain: u16, kept: bool, sequence: u64) -> Self {
        let flag = if kept { Self::KEPT } else { 0 };
        Self(u64::from(domain) << 48 | flag | sequence & (Self::KEPT - 1))
    }

    /// The domain's index.
    #[must_use]
    pub fn domain(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// Whether the contract holds something for it (a fee, a callback, a deadline).
    #[must_use]
    pub fn is_kept(self) -> bool {
        self.0 & Self::KEPT != 0
    }

    /// The sequence number, dense over all domains of a contract, from 1.
    #[must_use]
    pub fn sequence(self) -> u64 {
        self.0 & (Self::KEPT - 1)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TaskId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Serialize for TaskId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TaskId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a task is, for ever: the same id with another payload is another task; the same payload in another block
/// is the same one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The chain's id (EIP-155); 0 for the placeholder source.
    pub chain_id: u64,
    /// The contract; zero for the placeholder source.
    pub contract: Address,
    /// The id on the contract.
    pub task_id: TaskId,
    /// keccak-256 of the `Submitted` payload.
    pub payload: Hash,
}
