//! The packed argument of `publishDigests`.

use alloy::primitives::B256;

use crate::{AGAIN, Tag, TaskId};

const RECORD_BYTES: usize = 49;

/// Several results as digests, published by one engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestBatch {
    /// The engine's id.
    pub engine: u16,
    /// The results. Ascending ids are the cheapest order.
    pub records: Vec<DigestRecord>,
}

/// One result as a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestRecord {
    /// The task.
    pub id: TaskId,
    /// Its tag.
    pub tag: Tag,
    /// Status's number.
    pub status: u8,
    /// As in [`Answer`](crate::Answer).
    pub again: bool,
    /// SHA-256 of the result document.
    pub digest: B256,
}

/// The bytes are not an engine id and whole records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are not an engine id and whole records")]
pub struct MalformedBatch {
    /// How many bytes there are.
    pub bytes: usize,
}

impl DigestBatch {
    /// The bytes that `publishDigests` takes.
    pub fn encode(&self) -> Vec<u8> {
        let mut packed = Vec::with_capacity(2 + self.records.len() * RECORD_BYTES);
        packed.extend_from_slice(&self.engine.to_be_bytes());
        for record in &self.records {
            packed.extend_from_slice(&record.id.get().to_be_bytes());
            packed.extend_from_slice(&record.tag.0.to_be_bytes());
            packed.push(record.status | if record.again { AGAIN } else { 0 });
            packed.extend_from_slice(record.digest.as_slice());
        }
        packed
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`MalformedBatch`] when there is no record or a part of one.
    pub fn decode(packed: &[u8]) -> Result<Self, MalformedBatch> {
        let malformed = MalformedBatch { bytes: packed.len() };
        let (engine, rest) = packed.split_first_chunk().ok_or(malformed)?;
        let chunks = rest.chunks_exact(RECORD_BYTES);
        if rest.is_empty() || !chunks.remainder().is_empty() {
            return Err(malformed);
        }
        let records =
            chunks.map(|chunk| record(chunk).ok_or(malformed)).collect::<Result<_, _>>()?;
        Ok(Self { engine: u16::from_be_bytes(*engine), records })
    }
}

fn record(chunk: &[u8]) -> Option<DigestRecord> {
    let (id, rest) = chunk.split_first_chunk()?;
    let (tag, rest) = rest.split_first_chunk()?;
    let (status, digest) = rest.split_first()?;
    Some(DigestRecord {
        id: TaskId::new(u64::from_be_bytes(*id)),
        tag: Tag(u64::from_be_bytes(*tag)),
        status: status & !AGAIN,
        again: status & AGAIN != 0,
        digest: B256::try_from(digest).ok()?,
    })
}
