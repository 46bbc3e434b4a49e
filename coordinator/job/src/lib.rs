//! Jobs: one task's execution, wherever it runs.
//!
//! - [`Runtime`]: the one port of the coordinator with several implementations; [`Spec`] goes in, [`Status`] comes
//!   out, and a [`Finished`] one holds a result document that was verified.
//! - [`launcher`]: the client of `executor launcher`, which starts confined children on this machine; also what
//!   has every runtime's modules looked at before anything is created.
//! - [`process`]: the runtime that is always there: each job is a confined child of the launcher.
//!
//! No WebAssembly engine is linked here: what touches a module is a child of the launcher.

mod error;
pub mod launcher;
mod log;
mod name;
pub mod process;
mod runtime;
mod verified;

pub use error::Error;
pub use log::Log;
pub use name::{Instance, Name};
pub use runtime::{Blob, Cause, Description, Finished, Future, Loss, Runtime, Spec, Status};
pub use verified::{Mismatch, Verified};
