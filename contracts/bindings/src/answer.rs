//! The small fields of a publication, and the tag that binds it to its submission.

use std::fmt;

use alloy::primitives::{B256, U256};
use serde::{Deserialize, Serialize};

use crate::TaskId;

/// Bit of the status byte in calls: publish although the id is closed. Free tasks only.
pub const AGAIN: u8 = 0x80;

const ID: usize = 88;

/// The first 8 bytes of a submission's payload hash: what a publication, a cancellation and an expiry name beside the id,
/// so that they never hit another task under the same id.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Tag(pub u64);

impl Tag {
    /// The tag of a payload hash.
    pub fn of(payload_hash: B256) -> Self {
        let [first, ..] = payload_hash.0.as_chunks().0 else { return Self(0) };
        Self(u64::from_be_bytes(*first))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// The answer word of `publish`, `publishDocument` and `publishBatch`; the table is in `ITaskBoard.sol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The task.
    pub id: TaskId,
    /// Its tag.
    pub tag: Tag,
    /// The engine's id; 0 when nothing ran.
    pub engine: u16,
    /// Status's number.
    pub status: u8,
    /// Whether it is published although the id is closed: by a publication that is not the task's. Free tasks only.
    pub again: bool,
}

/// The answer word of `Published` and `PublishedDocument`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedAnswer {
    /// Number of the block that the publication is anchored at.
    pub anchor_number: u64,
    /// The tag of the task that it belongs to.
    pub tag: Tag,
    /// The engine's id; 0 when nothing ran.
    pub engine: u16,
    /// Status's number.
    pub status: u8,
}

impl Answer {
    /// Packs the fields.
    pub fn pack(&self) -> U256 {
        let again = if self.again { AGAIN } else { 0 };
        pack(self.id.get(), self.tag, self.engine, self.status | again)
    }

    /// Reads the fields; none when bits are set that mean nothing.
    pub fn unpack(answer: U256) -> Option<Self> {
        let (id, tag, engine, status) = unpack(answer)?;
        let again = status & AGAIN != 0;
        Some(Self { id: TaskId::new(id), tag, engine, status: status & !AGAIN, again })
    }
}

impl LoggedAnswer {
    /// Packs the fields.
    pub fn pack(&self) -> U256 {
        pack(self.anchor_number, self.tag, self.engine, self.status)
    }

    /// Reads the fields; none when bits are set that mean nothing.
    pub fn unpack(answer: U256) -> Option<Self> {
        let (anchor_number, tag, engine, status) = unpack(answer)?;
        Some(Self { anchor_number, tag, engine, status })
    }
}

fn pack(high: u64, tag: Tag, engine: u16, status: u8) -> U256 {
    let low = u128::from(tag.0) << 24 | u128::from(engine) << 8 | u128::from(status);
    U256::from(high) << ID | U256::from(low)
}

fn unpack(answer: U256) -> Option<(u64, Tag, u16, u8)> {
    let high = u64::try_from(answer >> ID).ok()?;
    let [low, middle, ..] = *answer.as_limbs();
    let tag = u128::from(middle) << 64 | u128::from(low);
    Some((high, Tag((tag >> 24) as u64), (low >> 8) as u16, low as u8))
}
