//! The real binary on real guests, hostile ones included.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod bombs;
mod command_line;
mod determinism;
mod endless;
mod floods;
mod modules;
mod samples;
mod steps;
mod task;
mod vectors;
