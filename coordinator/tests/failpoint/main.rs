//! D02: every durable step of a task's life breaks in every way, on real parts: Anvil, SQLite, the executor.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod ending;
mod fault;
mod life;
mod matrix;
mod stage;
