//! The chain's two sides on a real chain and a real database; where something lies, it is a real server that lies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod binding;
mod board;
mod earnings;
mod endpoint;
mod finality;
mod hostile;
mod provider;
mod publish;
mod recovery;
mod reorg;
mod stage;
mod trouble;
mod watch;
