//! The chain: contract events become tasks, outcomes become transactions.
//!
//! - [`Client`] reads one chain through one or several endpoints. HTTP is the truth; a WebSocket only wakes.
//! - [`watcher`] turns logs into task rows and events, in one transaction with its cursor, and notices reorganisations.
//! - [`publisher`] turns publications into transactions whose signed bytes are stored before they are sent, and reports
//!   what became of them.
//! - [`Board`] is what the command line calls: deploy, submit, cancel, find.
//!
//! Only this crate imports providers. Ids, hashes and addresses at its edge are those of the crate `task`.

mod alarm;
mod block;
mod board;
mod class;
mod client;
mod confirmation;
mod endpoint;
mod error;
mod find;
mod key;
mod origin;
pub mod publisher;
mod range;
mod revert;
mod search;
mod submission;
mod transaction;
mod wake;
pub mod watcher;

pub use alarm::{Alarm, Alarms};
pub use board::{Accepted, Board, Deployed, Deployment, Kept, Quote, Receipt};
pub use class::Class;
pub use client::{Client, ClientOptions, EndpointHealth};
pub use confirmation::{Confirmations, ConfirmationsError};
pub use endpoint::Endpoints;
pub use error::Error;
pub use find::{Found, FoundResult, FoundSubmission};
pub use key::Key;
pub use submission::read_back;
