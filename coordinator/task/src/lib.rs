//! A task, pure: what it is, which states it goes through, which effect is due.
//!
//! No I/O, no clock, no randomness: time is an argument. [`Task::next`] says which effect is due,
//! [`Task::apply`] consumes an event. Watcher, publisher and runtimes only report events; the pipeline alone
//! applies them and saves the outcome by compare-and-set on the row's version.

mod event;
mod hex;
mod identity;
pub mod publication;
mod request;
mod state;

pub use event::{Answer, BlockRef, Event};
pub use hex::{Address, Hash, Hex, HexError};
pub use identity::{Identity, LocalId, TaskId};
pub use request::{Kind, Malformed, Request, Submission};
pub use state::{CancelReason, Effect, InvalidTransition, Policy, State, Task};

#[cfg(test)]
mod tests;
