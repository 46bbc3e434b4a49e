//! What can go wrong, each with a stable code.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cid::Cid;

/// Whose matter an error is. Only [`Content`](Class::Content) may ever become an answer to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It says something about the bytes that the CID names: they are not what may be had, or sources that work do
    /// not have them. [`Error::retry`] tells the two apart.
    Content,
    /// Gateways or the network: nobody could be asked, or nobody answered properly.
    Source,
    /// This machine or its configuration: disk, cache, addresses.
    Local,
}

impl Class {
    /// Its name in logs, metrics and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Source => "source",
            Self::Local => "local",
        }
    }
}

/// Why content could not be had or added. `place` is a gateway root, an RPC root or a path of the mirror.
#[derive(Clone, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the variants' messages say what their fields are")]
#[non_exhaustive]
pub enum Error {
    /// The text or bytes are no CID in its one strict form.
    #[error("{text:?} is not a CID: {reason}")]
    InvalidCid { text: String, reason: String },
    /// A CID of content that is neither raw bytes nor dag-pb.
    #[error("CID {text}: codec {codec:#x} is not supported, only raw (0x55) and dag-pb (0x70)")]
    UnsupportedCodec { text: String, codec: u64 },
    /// A CID with another hash than sha2-256 or identity.
    #[error("CID {text}: hash {hash:#x} is not supported, only sha2-256 (0x12) and identity (0x0)")]
    UnsupportedHash { text: String, hash: u64 },
    /// The content is a directory, a shard of one, or a symbolic link.
    #[error("{cid} is a {found}, not a file")]
    NotAFile { cid: Cid, found: &'static str },
    /// The content is, or says that it is, larger than the budget.
    #[error("{cid} is larger than {limit_bytes} bytes")]
    TooLarge { cid: Cid, limit_bytes: u64 },
    /// The content is made of more nodes than the budget allows.
    #[error("{cid} has more than {limit} nodes")]
    TooManyNodes { cid: Cid, limit: u64 },
    /// The content's tree is deeper than the budget allows.
    #[error("{cid} is more than {limit} links deep")]
    TooDeep { cid: Cid, limit: u32 },
    /// A block is what its CID says, but not what its format says.
    #[error("block {cid} is malformed: {reason}")]
    MalformedBlock { cid: Cid, reason: String },
    /// The address of a gateway or RPC cannot be used.
    #[error("{url} cannot be used: {reason}")]
    InvalidUrl { url: String, reason: &'static str },
    /// There is no place to read from or add to.
    #[error("{missing}")]
    NoSource { missing: &'static str },
    /// Kubo named what we sent it differently than we do.
    #[error("{place} answered {theirs} for content whose CID is {ours}")]
    CidDiffers { place: String, ours: Cid, theirs: String },

    /// Nobody asked has the block.
    #[error("{place} does not have {cid}{note}")]
    NotFound { cid: Cid, place: String, note: String },
    /// The bytes served are not those the CID names.
    #[error("{place} served bytes for {cid} that do not match it")]
    DigestMismatch { cid: Cid, place: String },
    /// The answer ended before its announced end.
    #[error("the answer of {place} for {cid} {how}")]
    Truncated { cid: Cid, place: String, how: &'static str, source: Arc<reqwest::Error> },
    /// No connection, or it broke before an answer, or the answer was none.
    #[error("{place} {how}")]
    Unreachable { place: String, how: &'static str, source: Arc<reqwest::Error> },
    /// No connection in time.
    #[error("no connection to {place} within {limit:?}")]
    ConnectTimeout { place: String, limit: Duration },
    /// No byte for too long.
    #[error("{place} sent nothing for {limit:?} ({cid})")]
    IdleTimeout { cid: Cid, place: String, limit: Duration },
    /// The whole fetch or upload took too long.
    #[error("{cid} took longer than {limit:?}")]
    TotalTimeout { cid: Cid, limit: Duration },
    /// The gateway asks to come back later (429, 5xx).
    #[error("{place} is unavailable: HTTP {status}")]
    Unavailable { place: String, status: u16, retry_after: Option<Duration> },
    /// Any other answer than the block.
    #[error("{place} refused {cid}: HTTP {status}")]
    GatewayRefused { cid: Cid, place: String, status: u16 },
    /// The gateway sent us elsewhere; no redirect is ever followed.
    #[error("{place} redirected {cid} (HTTP {status}), which is not followed{}{hint}", if hint.is_empty() { "" } else { ": " })]
    RedirectRefused { cid: Cid, place: String, status: u16, hint: String },
    /// The answer is compressed, which was not asked for.
    #[error("{place} encoded {cid} as {encoding:?}, which was not asked for")]
    EncodingRefused { cid: Cid, place: String, encoding: String },
    /// More bytes for a block than allowed. That the block is so large is unproved: nothing of it was kept.
    #[error("{place} sends more than {limit_bytes} bytes for block {cid}")]
    BlockTooLarge { cid: Cid, place: String, limit_bytes: u64 },
    /// The bytes of a block come more slowly than a working gateway sends them.
    #[error("{place} sends {cid} too slowly: {received_bytes} bytes in {waited:?}")]
    TooSlow { cid: Cid, place: String, received_bytes: u64, waited: Duration },
    /// Sources that are known to work were asked and did not give the content; the cause is what they answered.
    #[error(transparent)]
    NotServed(Box<Error>),
    /// A file of the cache or mirror could not be read or written.
    #[error("{operation} {}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: Arc<io::Error> },
    /// Kubo's RPC did not do what it was asked.
    #[error("{operation} at {place}: {message}")]
    Rpc { operation: &'static str, place: String, message: String },
}

impl Error {
    /// The stable code of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidCid { .. } => "invalid_cid",
            Self::UnsupportedCodec { .. } => "unsupported_codec",
            Self::UnsupportedHash { .. } => "unsupported_hash",
            Self::NotAFile { .. } => "not_a_file",
            Self::TooLarge { .. } => "too_large",
            Self::TooManyNodes { .. } => "too_many_nodes",
            Self::TooDeep { .. } => "too_deep",
            Self::MalformedBlock { .. } => "malformed_block",
            Self::InvalidUrl { .. } => "invalid_url",
            Self::NoSource { .. } => "no_source",
            Self::CidDiffers { .. } => "cid_differs",
            Self::NotFound { .. } => "not_found",
            Self::DigestMismatch { .. } => "digest_mismatch",
            Self::Truncated { .. } => "truncated",
            Self::Unreachable { .. } => "unreachable",
            Self::ConnectTimeout { .. } => "connect_timeout",
            Self::IdleTimeout { .. } => "idle_timeout",
            Self::TotalTimeout { .. } => "total_timeout",
            Self::Unavailable { .. } => "unavailable",
            Self::GatewayRefused { .. } => "gateway_refused",
            Self::RedirectRefused { .. } => "redirect_refused",
            Self::EncodingRefused { .. } => "encoding_refused",
            Self::BlockTooLarge { .. } => "block_too_large",
            Self::TooSlow { .. } => "too_slow",
            Self::NotServed(cause) => cause.code(),
            Self::Io { .. } => "io",
            Self::Rpc { .. } => "rpc_failed",
        }
    }

    /// Whose matter it is.
    pub fn class(&self) -> Class {
        match self {
            Self::InvalidCid { .. }
            | Self::UnsupportedCodec { .. }
            | Self::UnsupportedHash { .. }
            | Self::NotAFile { .. }
            | Self::TooLarge { .. }
            | Self::TooManyNodes { .. }
            | Self::TooDeep { .. }
            | Self::MalformedBlock { .. }
            | Self::NotServed(_) => Class::Content,
            Self::CidDiffers { .. }
            | Self::NotFound { .. }
            | Self::DigestMismatch { .. }
            | Self::Truncated { .. }
            | Self::Unreachable { .. }
            | Self::ConnectTimeout { .. }
            | Self::IdleTimeout { .. }
            | Self::TotalTimeout { .. }
            | Self::TooSlow { .. }
            | Self::Unavailable { .. }
            | Self::GatewayRefused { .. }
            | Self::RedirectRefused { .. }
            | Self::EncodingRefused { .. }
            | Self::BlockTooLarge { .. }
            | Self::Rpc { .. } => Class::Source,
            Self::InvalidUrl { .. } | Self::NoSource { .. } | Self::Io { .. } => Class::Local,
        }
    }

    /// Whether the same request can succeed later or elsewhere. False for what is proved about the content itself
    /// and for what the caller got wrong.
    pub fn retry(&self) -> bool {
        match self {
            Self::InvalidCid { .. }
            | Self::UnsupportedCodec { .. }
            | Self::UnsupportedHash { .. }
            | Self::NotAFile { .. }
            | Self::TooLarge { .. }
            | Self::TooManyNodes { .. }
            | Self::TooDeep { .. }
            | Self::MalformedBlock { .. }
            | Self::InvalidUrl { .. }
            | Self::NoSource { .. }
            | Self::CidDiffers { .. } => false,
            Self::NotFound { .. }
            | Self::DigestMismatch { .. }
            | Self::Truncated { .. }
            | Self::Unreachable { .. }
            | Self::ConnectTimeout { .. }
            | Self::IdleTimeout { .. }
            | Self::TotalTimeout { .. }
            | Self::Unavailable { .. }
            | Self::GatewayRefused { .. }
            | Self::RedirectRefused { .. }
            | Self::EncodingRefused { .. }
            | Self::BlockTooLarge { .. }
            | Self::TooSlow { .. }
            | Self::NotServed(_)
            | Self::Io { .. }
            | Self::Rpc { .. } => true,
        }
    }

    /// How long the gateway asked to be left alone, an hour at the most.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            Self::NotServed(cause) => cause.retry_after(),
            _ => None,
        }
    }

    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source: Arc::new(source) }
    }
}

/// Runs blocking file work away from the threads that drive the network.
pub(crate) async fn blocking<T: Send + 'static>(
    operation: &'static str,
    path: &Path,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(join) => Err(Error::io(operation, path)(io::Error::other(join))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid() -> Cid {
        crate::import::raw_cid(b"content")
    }

    #[test]
    fn i1_only_what_is_known_of_the_content_is_of_its_class() {
        let place = || "http://127.0.0.1/ipfs".to_owned();
        let full = Error::io("writing", Path::new("cache"))(io::ErrorKind::StorageFull.into());
        let absent = || Error::NotFound { cid: cid(), place: place(), note: String::new() };
        for (error, class, retry) in [
            (full, Class::Local, true),
            (Error::NoSource { missing: "there is no gateway" }, Class::Local, false),
            (Error::InvalidUrl { url: place(), reason: "" }, Class::Local, false),
            (absent(), Class::Source, true),
            (Error::NotServed(Box::new(absent())), Class::Content, true),
            (Error::DigestMismatch { cid: cid(), place: place() }, Class::Source, true),
            (
                Error::RedirectRefused { cid: cid(), place: place(), status: 301, hint: place() },
                Class::Source,
                true,
            ),
            (Error::ConnectTimeout { place: place(), limit: Duration::ZERO }, Class::Source, true),
            (Error::TotalTimeout { cid: cid(), limit: Duration::ZERO }, Class::Source, true),
            (Error::TooLarge { cid: cid(), limit_bytes: 1 }, Class::Content, false),
            (Error::NotAFile { cid: cid(), found: "directory" }, Class::Content, false),
        ] {
            assert_eq!((error.class(), error.retry()), (class, retry), "{error}");
        }
        let served = Error::NotServed(Box::new(absent()));
        assert_eq!((served.code(), served.to_string()), ("not_found", absent().to_string()));
    }
}
