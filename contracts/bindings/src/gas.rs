//! How much gas a publication needs at most.
//!
//! Asking a node to estimate does not work: with the chain's head as anchor the estimate runs in that very block, which
//! does not know its own hash yet, and reverts. What the contract does is bounded, so the bound is computed here. It
//! covers the worst case (cold slots, new words, a callback that uses all its gas) of both calldata schedules; what is
//! not used is not paid.

use std::collections::BTreeSet;

use crate::TaskId;

/// What one item of a publication is, as far as gas goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The task.
    pub id: TaskId,
    /// Length of the document in bytes; ignored where only the digest is published.
    pub document_bytes: usize,
    /// Gas of the task's callback; 0 for none, and for a rejection, which calls nobody.
    pub callback_gas: u32,
}

const TRANSACTION: u64 = 21_000;
const CALLDATA_BYTE: u64 = 16;
/// EIP-7623: the least that a byte of calldata costs a transaction that computes little.
const CALLDATA_BYTE_FLOOR: u64 = 40;
const COLD_SLOT: u64 = 2_100;
const NEW_WORD: u64 = 22_100;
const LOG_WITH_TWO_TOPICS: u64 = 375 * 4;
const LOG_BYTE: u64 = 8;
const WORD: u64 = 32;

/// Dispatch, anchor and the head.
const CALL: u64 = 2_000 + COLD_SLOT + HISTORY;
/// An anchor that only EIP-2935's history knows: a cold account and a cold slot of it.
const HISTORY: u64 = 2_600 + COLD_SLOT + 300;
/// Checks and bookkeeping of one item beside its slots and log.
const ITEM: u64 = 1_200;
/// A kept task's two slots, their clearing, a new credit and its log, besides a digest of the document.
const KEPT: u64 =
    2 * COLD_SLOT + 2 * 2_900 + NEW_WORD + LOG_WITH_TWO_TOPICS + LOG_BYTE * WORD + 2_000;
/// `CALLBACK_RESERVE` of the contract.
const CALLBACK_RESERVE: u64 = 90_000;

/// Gas limit of `publish`.
pub fn publish(item: &Item) -> u64 {
    total(4 * WORD, &[*item], |_| 2 * WORD)
}

/// Gas limit of `publishDocument`.
pub fn publish_document(item: &Item) -> u64 {
    total(5 * WORD + padded(item.document_bytes), &[*item], |item| {
        3 * WORD + padded(item.document_bytes)
    })
}

/// Gas limit of `publishBatch`.
pub fn publish_batch(items: &[Item]) -> u64 {
    let calldata = items.iter().map(|item| 4 * WORD + padded(item.document_bytes)).sum::<u64>();
    total(4 * WORD + calldata, items, |item| 3 * WORD + padded(item.document_bytes))
}

/// Gas limit of `publishDigests`.
pub fn publish_digests(items: &[Item]) -> u64 {
    total(4 * WORD + padded(2 + 49 * items.len()), items, |_| 2 * WORD)
}

fn padded(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(WORD)
}

fn total(arguments: u64, items: &[Item], log_bytes: impl Fn(&Item) -> u64) -> u64 {
    let calldata = 4 + arguments;
    let words = items.iter().map(|item| item.id.guard_word()).collect::<BTreeSet<_>>().len() as u64;
    let domains = items.iter().map(|item| item.id.domain()).collect::<BTreeSet<_>>().len() as u64;
    let mut execution = CALL + words * NEW_WORD + domains * COLD_SLOT;
    let mut memory = 8 * WORD;
    for item in items {
        execution += ITEM + LOG_WITH_TWO_TOPICS + LOG_BYTE * log_bytes(item);
        memory += log_bytes(item);
        if item.id.is_kept() {
            execution += KEPT;
            memory += 6 * WORD;
        }
        if item.callback_gas != 0 {
            let callback = u64::from(item.callback_gas);
            execution += callback + callback / 63 + 1 + CALLBACK_RESERVE;
            memory += 7 * WORD + log_bytes(item);
        }
    }
    let memory = memory.div_ceil(WORD);
    execution += 3 * memory + memory * memory / 512;
    TRANSACTION + (CALLDATA_BYTE * calldata + execution).max(CALLDATA_BYTE_FLOOR * calldata)
}
