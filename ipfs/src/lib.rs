//! A CID goes in, verified bytes come out, or an [`Error`] with a stable code.
//!
//! [`Store::fetch`] reads blocks from HTTP gateways (or a local mirror folder), checks each against its CID before
//! looking inside, expands the UnixFS file they describe within a [`Budget`] and keeps the whole content in a cache
//! on disk. [`Store::add_file`] and its sisters go the other way and name content exactly as `ipfs add` does.
//!
//! Reading order: [`Cid`] (what is accepted), `wire`, `dagpb` and `unixfs` (the formats), `walk` (blocks to a file),
//! `import` (a file to blocks), `block` (where blocks come from: `mirror`, `gateway`), `cache`, and [`Store`], which
//! puts them together. The HTTP client needs the process-wide rustls provider to be installed by the program.

mod block;
mod budget;
mod cache;
mod cid;
mod dagpb;
mod disk;
mod draft;
mod error;
mod gateway;
mod health;
mod import;
mod kubo;
mod memory;
mod mirror;
mod shelf;
mod store;
mod unixfs;
mod walk;
mod wire;

pub use crate::budget::{Budget, Timeouts};
pub use crate::cache::Content;
pub use crate::cid::{Cid, CidVersion, Codec, is_any_cid};
pub use crate::error::{Class, Error};
pub use crate::health::{Fault, Place, PlaceKind, PlaceState};
pub use crate::import::{
    Profile, cid_of_bytes, cid_of_file, cid_of_reader, cid_under_profile, raw_cid,
};
pub use crate::store::{MAX_RAW_BYTES, Options, Store};
pub use reqwest::Url;
