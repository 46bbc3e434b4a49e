//! The task id.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use alloy::primitives::B256;
use serde::{Deserialize, Serialize};

const KEPT: u64 = 1 << 47;
const SEQUENCE_MASK: u64 = KEPT - 1;

/// A task's id on its contract: domain, kept bit and a sequence that is dense over all domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(u64);

impl TaskId {
    /// The id as the contract writes it.
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// Packs an id; `None` when the sequence does not fit into 47 bits.
    pub const fn pack(domain: u16, kept: bool, sequence: u64) -> Option<Self> {
        if sequence > SEQUENCE_MASK {
            return None;
        }
        let kept = if kept { KEPT } else { 0 };
        Some(Self((domain as u64) << 48 | kept | sequence))
    }

    /// The id as the contract writes it.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Index of the domain that answers it.
    pub const fn domain(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// Whether the contract holds a fee, a callback or a deadline of it.
    pub const fn is_kept(self) -> bool {
        self.0 & KEPT != 0
    }

    /// Its number over all domains, from 1.
    pub const fn sequence(self) -> u64 {
        self.0 & SEQUENCE_MASK
    }

    /// The word of the contract's bitmap of closed tasks that has its bit.
    pub const fn guard_word(self) -> u64 {
        self.0 >> 8
    }

    /// The id as an indexed topic, for log filters.
    pub fn topic(self) -> B256 {
        B256::left_padding_from(&self.0.to_be_bytes())
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TaskId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl From<u64> for TaskId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

impl From<TaskId> for u64 {
    fn from(id: TaskId) -> Self {
        id.0
    }
}
