//! The TaskBoard contract in Rust: its calls and events, and the packed formats that `ITaskBoard.sol` describes.
//!
//! - [`abi`] is generated from the committed artifact: calls, events, errors and `TaskBoard::deploy`.
//! - [`Submission`] packs what a requester wants into the arguments of `submit`; [`decode_submitted`] reads it back from
//!   a log, whoever wrote that log. Both use [`TaskId`], [`Terms`], [`CidForm`], [`Extra`] and [`entry`].
//! - [`Answer`] is the word of a publication that names the task by id and [`Tag`], [`LoggedAnswer`] the same in events.
//! - [`DigestBatch`] is the packed argument of `publishDigests`, [`gas`] says how much gas a publication needs.
//!
//! Nothing here does I/O but the generated calls. `contracts/vectors` holds every format to its golden vectors.

pub mod abi;
mod answer;
mod cid;
mod digests;
pub mod entry;
mod error;
mod extra;
pub mod gas;
mod id;
mod submission;
mod submitted;
mod table;
mod terms;

pub use abi::TaskBoard;
pub use answer::{AGAIN, Answer, LoggedAnswer, Tag};
pub use cid::CidForm;
pub use digests::{DigestBatch, DigestRecord, MalformedBatch};
pub use error::{DecodeError, EncodeError};
pub use extra::{Extra, MAX_EXTRA_BYTES};
pub use id::TaskId;
pub use submission::Submission;
pub use submitted::{Header, Submitted, decode_submitted, payload_hash};
pub use table::{Kind, Status};
pub use terms::{ENFORCE_DEADLINE, FORMAT_VERSION, Terms};

/// The longest result document that is published as such, in bytes; of a longer one the digest is.
pub const MAX_DOCUMENT_BYTES: usize = 256;
