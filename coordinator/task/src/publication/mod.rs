//! What is published of a task, pure: where a publication stands, and what an event makes of it.
//!
//! A publication goes out, or out again, only while the submission that it answers stands on the branch that is
//! followed: [`Publication::included`] says so, and nothing can be signed without it. Every state has a way back,
//! because every block may be gone tomorrow.

mod event;
mod state;

pub use event::Event;
pub use state::{Effect, Invalid, Place, Publication, Reason, State};

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
