//! Where verified blocks come from: each place in turn.

use bytes::Bytes;

use crate::cid::Cid;
use crate::error::Error;
use crate::gateway::Gateway;
use crate::mirror::Mirror;

/// The places that are asked for a block, in their order.
pub(crate) struct Blocks {
    pub(crate) mirror: Option<Mirror>,
    pub(crate) gateways: Vec<Gateway>,
}

impl Blocks {
    /// A block's bytes, checked against its CID. A place that fails is passed over; when all fail, what the answer
    /// was: wrong bytes (naming every place that served them) before any other fault, that before absence.
    pub(crate) async fn get(&self, cid: &Cid, max_bytes: u64) -> Result<Bytes, Error> {
        if let Some(content) = cid.inline() {
            return Ok(Bytes::copy_from_slice(content));
        }
        let mut failures = Vec::new();
        if let Some(mirror) = &self.mirror {
            match mirror.block(cid, max_bytes).await {
                Ok(block) => return Ok(block),
                // With gateways the mirror holds only what was added here: to lack a block says nothing.
                Err(Error::NotFound { .. }) if !self.gateways.is_empty() => {}
                // A folder that can be read is a source that works.
                Err(
                    error @ (Error::NotFound { .. }
                    | Error::DigestMismatch { .. }
                    | Error::BlockTooLarge { .. }),
                ) if self.gateways.is_empty() && mirror.is_there() => {
                    return Err(Error::NotServed(Box::new(error)));
                }
                Err(error) => failures.push(error),
            }
        }
        for gateway in &self.gateways {
            match gateway.block(cid, max_bytes).await {
                Ok(block) => return Ok(block),
                Err(error) => {
                    tracing::warn!(ipfs.cid = %cid, ipfs.code = error.code(), %error, "a gateway failed to give a block");
                    failures.push(error);
                }
            }
        }
        Err(outcome(cid, failures))
    }

    /// Whether blocks come over a network, where asking ahead pays.
    pub(crate) fn are_remote(&self) -> bool {
        !self.gateways.is_empty()
    }
}

fn outcome(cid: &Cid, failures: Vec<Error>) -> Error {
    let liars: Vec<&str> = failures
        .iter()
        .filter_map(|failure| match failure {
            Error::DigestMismatch { place, .. } => Some(place.as_str()),
            _ => None,
        })
        .collect();
    if !liars.is_empty() {
        return Error::DigestMismatch { cid: cid.clone(), place: liars.join(", ") };
    }
    let is_absence = |failure: &Error| matches!(failure, Error::NotFound { .. });
    let (absent, other): (Vec<_>, Vec<_>) = failures.into_iter().partition(is_absence);
    other.into_iter().chain(absent).next().unwrap_or(Error::NoSource {
        missing: "there is neither a gateway nor a mirror to fetch from",
    })
}
