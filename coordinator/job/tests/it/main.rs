//! The runtimes of this crate against the real executor. Build it first: `cargo build -p executor`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod confinement;
mod conformance;
mod process;
mod stage;
