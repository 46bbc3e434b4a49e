//! The words that the coordinator and the executor share: serde types only, no I/O.
//!
//! - [`Outcome`] and [`Document`]: the result document whose SHA-256 goes on chain.
//! - [`Limits`], [`Record`], [`Isolation`]: what bounded a run, what it used, what confined it. Never in the digest.
//! - [`Report`]: what the executor hands back out of band.
//! - [`launcher`]: the messages of the socket between a coordinator and its `executor launcher`.

mod document;
pub mod launcher;
mod outcome;
mod record;

pub use document::{Document, DocumentError, INLINE_DOCUMENT_BYTES, MAX_DOCUMENT_BYTES};
pub use outcome::{Failure, Outcome, PlainFailure, Rejection, Status, Value, ValueError};
pub use record::{
    CheckReport, DEFAULT_LIMITS, GuestStream, Isolation, Limits, Measure, Record, Report,
};

/// The semantics of this executor: what a module means, how its result is written, what is refused.
/// A change that could give any task another result document takes the next number.
pub const SEMANTICS: u32 = 1;

/// The printable engine name of an executor built on wasmtime's major version `major`: what is registered on chain.
/// Patch versions never differ in a result document, so they are not in the name.
#[must_use]
pub fn engine_name(major: u32) -> String {
    format!("wasm-exec/{SEMANTICS} wasmtime/{major}")
}
