//! The coordinator as it is used, on real parts: Anvil, SQLite, Kubo's gateway, the executor. Each test has a chain, a
//! contract and a data folder of its own, and looks for leftovers of its processes at its end.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod binding;
mod client;
mod crash;
mod daemon;
mod earnings;
mod fair;
mod fault;
mod hostile;
mod log;
mod outcome;
mod privacy;
mod provider;
mod rejection;
mod removal;
mod stage;
mod storm;
mod walk;
