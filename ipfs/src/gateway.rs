//! One HTTP gateway, asked for single blocks and trusted with nothing.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};

use crate::budget::Timeouts;
use crate::cid::Cid;
use crate::error::Error;

/// The client for gateways and RPC: no redirects, no proxy from the environment, no compression.
pub(crate) fn client(timeouts: &Timeouts) -> Result<Client, Error> {
    Client::builder()
        .user_agent(concat!("wasm-exec/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(timeouts.connect)
        .build()
        .map_err(|error| Error::io("setting up HTTP", Path::new(""))(io::Error::other(error)))
}

/// Refuses an address that is no plain HTTP root.
pub(crate) fn checked_root(url: &Url) -> Result<Url, Error> {
    let reason = if !matches!(url.scheme(), "http" | "https") {
        "only http and https are spoken"
    } else if url.cannot_be_a_base() || !url.has_host() {
        "it names no host"
    } else if !url.username().is_empty() || url.password().is_some() {
        "a user or password does not belong in it"
    } else if url.query().is_some() || url.fragment().is_some() {
        "a query or fragment does not belong in it"
    } else {
        return Ok(url.clone());
    };
    let mut shown = url.clone();
    let _ = shown.set_password(None);
    Err(Error::InvalidUrl { url: shown.into(), reason })
}

/// Adds segments to the path of a checked root.
pub(crate) fn below(root: &Url, segments: &[&str]) -> Url {
    let mut url = root.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

/// A gateway root such as `http://127.0.0.1:18480/ipfs`.
pub(crate) struct Gateway {
    root: Url,
    client: Client,
    timeouts: Timeouts,
}

impl Gateway {
    pub(crate) fn new(root: &Url, client: Client, timeouts: Timeouts) -> Result<Self, Error> {
        Ok(Self { root: checked_root(root)?, client, timeouts })
    }

    fn place(&self) -> String {
        self.root.to_string()
    }

    /// One block, checked against its CID.
    pub(crate) async fn block(&self, cid: &Cid, max_bytes: u64) -> Result<Bytes, Error> {
        let mut url = below(&self.root, &[&cid.to_string()]);
        url.set_query(Some("format=raw"));
        let request = self
            .client
            .get(url)
            .header(ACCEPT, "application/vnd.ipld.raw")
            .header(ACCEPT_ENCODING, "identity");
        let response = self
            .within_idle(cid, request.send())
            .await?
            .map_err(|source| no_answer(self.place(), self.timeouts.connect, source))?;
        self.check_head(cid, &response, max_bytes)?;
        let block = self.body(cid, response, max_bytes).await?;
        if !cid.verify(&block) {
            return Err(Error::DigestMismatch { cid: cid.clone(), place: self.place() });
        }
        Ok(block)
    }

    fn check_head(&self, cid: &Cid, response: &Response, max_bytes: u64) -> Result<(), Error> {
        let (cid, place) = (cid.clone(), self.place());
        let status = response.status().as_u16();
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => return Err(Error::NotFound { cid, place }),
            StatusCode::TOO_MANY_REQUESTS => return Err(unavailable(place, response)),
            other if other.is_server_error() => return Err(unavailable(place, response)),
            other if other.is_redirection() => {
                return Err(Error::RedirectRefused { cid, place, status });
            }
            _ => return Err(Error::GatewayRefused { cid, place, status }),
        }
        if let Some(encoding) = response.headers().get(CONTENT_ENCODING)
            && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            let encoding = String::from_utf8_lossy(encoding.as_bytes()).chars().take(40).collect();
            return Err(Error::EncodingRefused { cid, place, encoding });
        }
        if response.content_length().is_some_and(|length| length > max_bytes) {
            return Err(Error::BlockTooLarge { cid, place, limit_bytes: max_bytes });
        }
        Ok(())
    }

    async fn body(
        &self,
        cid: &Cid,
        mut response: Response,
        max_bytes: u64,
    ) -> Result<Bytes, Error> {
        let mut block = BytesMut::new();
        loop {
            let piece = self.within_idle(cid, response.chunk()).await?.map_err(|source| {
                Error::Truncated {
                    cid: cid.clone(),
                    place: self.place(),
                    source: Arc::new(source.without_url()),
                }
            })?;
            let Some(piece) = piece else {
                return Ok(block.freeze());
            };
            if (block.len() + piece.len()) as u64 > max_bytes {
                return Err(Error::BlockTooLarge {
                    cid: cid.clone(),
                    place: self.place(),
                    limit_bytes: max_bytes,
                });
            }
            block.extend_from_slice(&piece);
        }
    }

    async fn within_idle<T>(&self, cid: &Cid, step: impl Future<Output = T>) -> Result<T, Error> {
        tokio::time::timeout(self.timeouts.idle, step).await.map_err(|_| Error::IdleTimeout {
            cid: cid.clone(),
            place: self.place(),
            limit: self.timeouts.idle,
        })
    }
}

/// Why there was no answer at all.
pub(crate) fn no_answer(place: String, connect: Duration, source: reqwest::Error) -> Error {
    if source.is_connect() && source.is_timeout() {
        return Error::ConnectTimeout { place, limit: connect };
    }
    Error::Unreachable { place, source: Arc::new(source.without_url()) }
}

fn unavailable(place: String, response: &Response) -> Error {
    let seconds = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Error::Unavailable {
        place,
        status: response.status().as_u16(),
        retry_after: seconds.map(Duration::from_secs),
    }
}
