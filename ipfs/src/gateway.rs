//! One HTTP gateway, asked for single blocks and trusted with nothing.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HOST, LOCATION, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use tokio::time::Instant;

use crate::budget::Timeouts;
use crate::cid::Cid;
use crate::error::Error;
use crate::health::{Fault, Place, PlaceKind, PlaceState, Pulse};

/// Below this rate, counted after the idle time, a gateway is too slow to wait for.
const LEAST_BYTES_PER_S: u64 = 16 << 10;
/// How long a gateway that was too slow is asked after the others.
const SLOW_FOR: Duration = Duration::from_secs(60);
/// The longest pause that a gateway may ask for.
const LONGEST_REST: Duration = Duration::from_secs(60 * 60);
/// How long a gateway that gave a verified block is taken for a working one.
const PROVEN_FOR: Duration = Duration::from_secs(60);
/// The last look at a gateway counts as fresh for so long.
const FRESH: Duration = Duration::from_secs(5);
/// The longest look.
const LONGEST_PROBE: Duration = Duration::from_secs(10);
/// Bytes of an answer to a look that are read.
const PROBE_BYTES: u64 = 4096;

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

/// A gateway's root as it is asked: what is written without a path means `/ipfs`.
fn gateway_root(url: &Url) -> Result<Url, Error> {
    let root = checked_root(url)?;
    let segments: Vec<&str> =
        root.path().split('/').filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        [] => Ok(below(&root, &["ipfs"])),
        [.., "ipfs", cid] if Cid::parse(cid).is_ok() => Err(Error::InvalidUrl {
            url: root.into(),
            reason: "a CID does not belong in it: write the address up to /ipfs",
        }),
        _ => Ok(root),
    }
}

/// A gateway root such as `http://127.0.0.1:18480/ipfs`.
pub(crate) struct Gateway {
    root: Url,
    client: Client,
    timeouts: Timeouts,
    /// Set when a root that says `localhost` sent us to a subdomain, as Kubo does: the name is then left out.
    by_number: AtomicBool,
    /// Set when `/ipfs` at the end of the root turned out to be missing.
    one_deeper: AtomicBool,
    standing: Mutex<Standing>,
    pulse: Pulse,
    /// When it was looked at last; held while somebody looks.
    probed_at: tokio::sync::Mutex<Option<Instant>>,
}

/// How a gateway has done lately.
#[derive(Default)]
struct Standing {
    slow_until: Option<Instant>,
    rest: Option<Rest>,
    served_at: Option<Instant>,
}

/// A pause that the gateway asked for.
#[derive(Clone, Copy)]
pub(crate) struct Rest {
    pub(crate) until: Instant,
    pub(crate) status: u16,
}

impl Gateway {
    pub(crate) fn new(root: &Url, client: Client, timeouts: Timeouts) -> Result<Self, Error> {
        Ok(Self {
            root: gateway_root(root)?,
            client,
            timeouts,
            by_number: AtomicBool::new(false),
            one_deeper: AtomicBool::new(false),
            standing: Mutex::default(),
            pulse: Pulse::default(),
            probed_at: tokio::sync::Mutex::default(),
        })
    }

    /// Its address.
    pub(crate) fn name(&self) -> String {
        self.root().to_string()
    }

    fn root(&self) -> Url {
        if self.one_deeper.load(Ordering::Relaxed) {
            return below(&self.root, &["ipfs"]);
        }
        self.root.clone()
    }

    /// Its state.
    pub(crate) fn place(&self) -> Place {
        self.pulse.place(PlaceKind::Gateway, self.name())
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was too slow lately, so that others are asked first.
    pub(crate) fn is_slow(&self) -> bool {
        self.standing().slow_until.is_some_and(|until| until > Instant::now())
    }

    /// Puts it behind the others for a while.
    pub(crate) fn put_last(&self) {
        self.standing().slow_until = Some(Instant::now() + SLOW_FOR);
    }

    /// The pause that it asked for, if that is not over.
    pub(crate) fn rest(&self) -> Option<Rest> {
        self.standing().rest.filter(|rest| rest.until > Instant::now())
    }

    /// Leaves it alone for a while.
    pub(crate) fn let_rest(&self, rest: Rest) {
        let mut standing = self.standing();
        if standing.rest.is_none_or(|known| known.until < rest.until) {
            standing.rest = Some(rest);
        }
    }

    /// Whether it gave a verified block not long ago.
    pub(crate) fn is_proven(&self) -> bool {
        self.standing().served_at.is_some_and(|at| at.elapsed() < PROVEN_FOR)
    }

    /// Whether it works, as far as is known without asking.
    pub(crate) fn seems_to_work(&self) -> bool {
        self.is_proven() || self.pulse.works()
    }

    /// Whether it works: it gave a block lately, or does what a gateway does when it is looked at. Without leave to
    /// look, what is known counts.
    pub(crate) async fn works(&self, may_probe: bool) -> bool {
        if self.is_proven() {
            return true;
        }
        if may_probe {
            self.probe(FRESH).await;
        }
        self.pulse.works()
    }

    /// What to do about it, if the last look told.
    pub(crate) fn known_hint(&self) -> Option<String> {
        match self.place().state {
            PlaceState::Failed(fault) => fault.hint,
            PlaceState::Untried | PlaceState::Works => None,
        }
    }

    /// One block, checked against its CID. What the answer says of the gateway is remembered.
    pub(crate) async fn block(&self, cid: &Cid, max_bytes: u64) -> Result<Bytes, Error> {
        let result = self.verified(cid, max_bytes).await;
        match &result {
            Ok(_) => {
                self.standing().served_at = Some(Instant::now());
                self.pulse.set(PlaceState::Works);
            }
            Err(error @ (Error::Unreachable { .. } | Error::ConnectTimeout { .. })) => {
                self.pulse.set(PlaceState::Failed(Fault::new(error, self.hint(error))));
                if matches!(error, Error::ConnectTimeout { .. }) {
                    self.put_last();
                }
            }
            Err(Error::IdleTimeout { .. } | Error::TooSlow { .. }) => self.put_last(),
            Err(Error::Unavailable { status, retry_after: Some(pause), .. }) => {
                self.let_rest(Rest { until: Instant::now() + *pause, status: *status });
            }
            Err(_) => {}
        }
        result
    }

    async fn verified(&self, cid: &Cid, max_bytes: u64) -> Result<Bytes, Error> {
        let mut response = self.ask(cid).await?;
        if self.learns_from(&response) {
            response = self.ask(cid).await?;
        }
        self.check_head(cid, &response, max_bytes)?;
        let block = self.body(cid, response, max_bytes).await?;
        if !cid.verify(&block) {
            return Err(Error::DigestMismatch { cid: cid.clone(), place: self.name() });
        }
        Ok(block)
    }

    async fn ask(&self, cid: &Cid) -> Result<Response, Error> {
        let mut url = below(&self.root(), &[&cid.to_string()]);
        url.set_query(Some("format=raw"));
        let mut request = self
            .client
            .get(url)
            .header(ACCEPT, "application/vnd.ipld.raw")
            .header(ACCEPT_ENCODING, "identity");
        if self.by_number.load(Ordering::Relaxed) {
            let port = self.root.port().map_or_else(String::new, |port| format!(":{port}"));
            request = request.header(HOST, format!("127.0.0.1{port}"));
        }
        self.within_idle(cid, request.send())
            .await?
            .map_err(|source| no_answer(self.name(), self.timeouts.connect, source))
    }

    /// Kubo sends whoever names it `localhost` to a subdomain, and answers whoever names it by number.
    fn learns_from(&self, response: &Response) -> bool {
        is_redirect(response.status())
            && self.root.scheme() == "http"
            && self.root.host_str().is_some_and(is_localhost)
            && !self.by_number.swap(true, Ordering::Relaxed)
    }

    fn check_head(&self, cid: &Cid, response: &Response, max_bytes: u64) -> Result<(), Error> {
        let (cid, place) = (cid.clone(), self.name());
        let status = response.status().as_u16();
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                return Err(Error::NotFound { cid, place, note: self.note_of_absence() });
            }
            StatusCode::TOO_MANY_REQUESTS => return Err(unavailable(place, response)),
            other if other.is_server_error() => return Err(unavailable(place, response)),
            other if is_redirect(other) => {
                let target = response.headers().get(LOCATION).and_then(|text| text.to_str().ok());
                let hint = redirect_hint(&self.root, target.unwrap_or_default());
                return Err(Error::RedirectRefused { cid, place, status, hint });
            }
            _ => return Err(Error::GatewayRefused { cid, place, status }),
        }
        let encodings = response.headers().get_all(CONTENT_ENCODING).iter();
        for encoding in encodings.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
            let encoding = encoding.trim_ascii();
            if !encoding.is_empty() && !encoding.eq_ignore_ascii_case(b"identity") {
                let encoding = String::from_utf8_lossy(encoding).chars().take(40).collect();
                return Err(Error::EncodingRefused { cid, place, encoding });
            }
        }
        if response.content_length().is_some_and(|length| length > max_bytes) {
            return Err(Error::BlockTooLarge { cid, place, limit_bytes: max_bytes });
        }
        Ok(())
    }

    /// What may be behind an absence.
    fn note_of_absence(&self) -> String {
        let ends_well = self.root().path().trim_end_matches('/').ends_with("/ipfs");
        if ends_well || self.standing().served_at.is_some() {
            return String::new();
        }
        "; the address of a gateway ends in /ipfs".to_owned()
    }

    async fn body(
        &self,
        cid: &Cid,
        mut response: Response,
        max_bytes: u64,
    ) -> Result<Bytes, Error> {
        let started = Instant::now();
        let mut last_at = started;
        let mut block = BytesMut::new();
        loop {
            let received_bytes = block.len() as u64;
            let earned = Duration::from_secs(received_bytes / LEAST_BYTES_PER_S);
            let left = (self.timeouts.idle + earned).saturating_sub(started.elapsed());
            let step = response.chunk();
            let Ok(piece) = tokio::time::timeout(left.min(self.timeouts.idle), step).await else {
                let (cid, place) = (cid.clone(), self.name());
                // What came was a while ago: it is rather silent than slow.
                let silent = last_at.elapsed() >= self.timeouts.idle / 2;
                return Err(if silent {
                    Error::IdleTimeout { cid, place, limit: self.timeouts.idle }
                } else {
                    Error::TooSlow { cid, place, received_bytes, waited: started.elapsed() }
                });
            };
            last_at = Instant::now();
            let piece = piece.map_err(|source| Error::Truncated {
                cid: cid.clone(),
                place: self.name(),
                how: if is_garbled(&source) { "is malformed" } else { "was cut short" },
                source: Arc::new(source.without_url()),
            })?;
            let Some(piece) = piece else {
                return Ok(block.freeze());
            };
            if (block.len() + piece.len()) as u64 > max_bytes {
                return Err(Error::BlockTooLarge {
                    cid: cid.clone(),
                    place: self.name(),
                    limit_bytes: max_bytes,
                });
            }
            block.extend_from_slice(&piece);
        }
    }

    async fn within_idle<T>(&self, cid: &Cid, step: impl Future<Output = T>) -> Result<T, Error> {
        tokio::time::timeout(self.timeouts.idle, step).await.map_err(|_| Error::IdleTimeout {
            cid: cid.clone(),
            place: self.name(),
            limit: self.timeouts.idle,
        })
    }

    /// Looks whether a gateway is there, unless somebody did so within `fresh`: asks for blocks that every gateway
    /// has, since their CIDs carry them.
    pub(crate) async fn probe(&self, fresh: Duration) {
        let mut probed_at = self.probed_at.lock().await;
        if probed_at.is_some_and(|at| at.elapsed() < fresh) {
            return;
        }
        let limit = self.timeouts.idle.min(LONGEST_PROBE);
        let state = match tokio::time::timeout(limit, self.look()).await {
            Ok(Ok(())) => PlaceState::Works,
            // It gives blocks, and only those that it holds.
            Ok(Err((Error::NotFound { .. } | Error::GatewayRefused { .. }, _)))
                if self.standing().served_at.is_some() =>
            {
                PlaceState::Works
            }
            Ok(Err((error, hint))) => PlaceState::Failed(Fault::new(&error, hint)),
            Err(_) => {
                let error = Error::IdleTimeout { cid: probe_cid(b""), place: self.name(), limit };
                PlaceState::Failed(Fault::new(&error, None))
            }
        };
        if let PlaceState::Failed(fault) = &state
            && !self.place().has_failed()
        {
            tracing::warn!(
                ipfs.gateway = self.name(),
                ipfs.code = fault.code,
                error = fault.message,
                hint = fault.hint,
                "a gateway does not work"
            );
        }
        self.pulse.set(state);
        *probed_at = Some(Instant::now());
    }

    async fn look(&self) -> Result<(), (Error, Option<String>)> {
        let first = self.look_once().await;
        let Err((Error::NotFound { .. }, _)) = &first else { return first };
        // The root may lack its end.
        if self.root().path().trim_end_matches('/').ends_with("/ipfs")
            || self.standing().served_at.is_some()
        {
            return first;
        }
        self.one_deeper.store(true, Ordering::Relaxed);
        if self.look_once().await.is_ok() {
            return Ok(());
        }
        self.one_deeper.store(false, Ordering::Relaxed);
        first
    }

    async fn look_once(&self) -> Result<(), (Error, Option<String>)> {
        let failed = |error: Error| {
            let hint = self.hint(&error);
            (error, hint)
        };
        let mut refused = None;
        // The empty block is what gateways are usually asked for; an empty page is easily taken for it, though.
        for content in [b"".as_slice(), b"wasm-exec"] {
            let cid = probe_cid(content);
            let mut response = self.ask(&cid).await.map_err(failed)?;
            if self.learns_from(&response) {
                response = self.ask(&cid).await.map_err(failed)?;
            }
            let kind = response.headers().get("content-type").cloned();
            let kind = kind.as_ref().and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            let speaks = kind.starts_with("application/vnd.ipld")
                || response.headers().keys().any(|name| {
                    name.as_str().starts_with("x-ipfs") || name.as_str().starts_with("ipfs-")
                });
            let head = self.check_head(&cid, &response, PROBE_BYTES);
            if let Err(error @ (Error::NotFound { .. } | Error::GatewayRefused { .. })) = head {
                let body = self.body(&cid, response, PROBE_BYTES).await.unwrap_or_default();
                // The words of Kubo's gateway code for a block that it does not have.
                if speaks || String::from_utf8_lossy(&body).contains("ipld: could not find") {
                    return Ok(());
                }
                refused.get_or_insert(failed(error));
                continue;
            }
            head.map_err(failed)?;
            let is_page = kind.starts_with("text/html");
            match self.body(&cid, response, PROBE_BYTES).await {
                Ok(block) if block == content && (speaks || !content.is_empty()) => return Ok(()),
                Ok(block) if block == content => {}
                Ok(_) | Err(Error::BlockTooLarge { .. }) if is_page => {
                    let hint = "it answers with a web page: write the address of a gateway's /ipfs \
                        that needs no login";
                    let error = Error::DigestMismatch { cid, place: self.name() };
                    return Err((error, Some(hint.to_owned())));
                }
                Ok(_) => {
                    return Err(failed(Error::DigestMismatch { cid, place: self.name() }));
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Err(refused.unwrap_or_else(|| {
            failed(Error::DigestMismatch { cid: probe_cid(b"wasm-exec"), place: self.name() })
        }))
    }

    /// What to do about an error, where that is known.
    fn hint(&self, error: &Error) -> Option<String> {
        let example = {
            let mut url = self.root.clone();
            url.set_path("/ipfs");
            url
        };
        Some(match error {
            Error::NotFound { .. } | Error::GatewayRefused { .. } => format!(
                "no IPFS gateway answers there: write the address of its /ipfs, such as {example}"
            ),
            Error::DigestMismatch { .. } => {
                "it is no IPFS gateway, or one that changes blocks: ask another".to_owned()
            }
            Error::Unreachable { .. } | Error::ConnectTimeout { .. } => {
                "see whether the gateway runs, and whether host and port are right".to_owned()
            }
            Error::RedirectRefused { hint, .. } if !hint.is_empty() => hint.clone(),
            _ => return None,
        })
    }
}

fn is_redirect(status: StatusCode) -> bool {
    status.is_redirection() && status != StatusCode::NOT_MODIFIED
}

fn is_localhost(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

/// What to write instead of a root that sends us elsewhere.
fn redirect_hint(root: &Url, target: &str) -> String {
    let Ok(target) = root.join(target) else { return String::new() };
    let (Some(from), Some(to)) = (root.host_str(), target.host_str()) else {
        return String::new();
    };
    if to.contains(".ipfs.") {
        return "it gives each CID a subdomain: write the address of a gateway that serves paths, \
            for Kubo http://127.0.0.1:PORT/ipfs"
            .to_owned();
    }
    if from == to && root.scheme() == "http" && target.scheme() == "https" {
        let mut secure = root.clone();
        let _ = secure.set_scheme("https");
        let _ = secure.set_port(target.port());
        return format!("write {secure}");
    }
    if from == to && target.path().starts_with("/ipfs/") && !root.path().starts_with("/ipfs") {
        let mut deeper = target;
        deeper.set_path("/ipfs");
        deeper.set_query(None);
        return format!("write {deeper}");
    }
    String::new()
}

/// A CID that carries its block.
fn probe_cid(content: &[u8]) -> Cid {
    Cid::identity(content)
}

/// Why there was no answer at all.
pub(crate) fn no_answer(place: String, connect: Duration, source: reqwest::Error) -> Error {
    if source.is_connect() && source.is_timeout() {
        return Error::ConnectTimeout { place, limit: connect };
    }
    let how = if source.is_connect() {
        "cannot be reached"
    } else if is_garbled(&source) {
        "does not answer in HTTP"
    } else {
        "closed the connection before it answered"
    };
    Error::Unreachable { place, how, source: Arc::new(source.without_url()) }
}

/// Whether what came could not be read; the HTTP library tells that in words alone.
fn is_garbled(error: &reqwest::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let words = error.to_string().to_ascii_lowercase();
        if ["parsed", "head is too large", "invalid chunk", "invalid content"]
            .iter()
            .any(|part| words.contains(part))
        {
            return true;
        }
        cause = error.source();
    }
    false
}

fn unavailable(place: String, response: &Response) -> Error {
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| {
        let text = value.to_str().ok()?.trim();
        let pause = match text.parse() {
            Ok(seconds) => Duration::from_secs(seconds),
            // A number over 64 bits is one all the same.
            Err(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Duration::MAX
            }
            Err(_) => {
                let until = httpdate::parse_http_date(text).ok()?;
                until.duration_since(std::time::SystemTime::now()).unwrap_or_default()
            }
        };
        Some(pause.min(LONGEST_REST))
    });
    Error::Unavailable { place, status: response.status().as_u16(), retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i5_a_root_means_the_same_with_and_without_ipfs_at_its_end() {
        for (written, asked) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/ipfs"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/ipfs"),
            ("http://127.0.0.1:8080/ipfs", "http://127.0.0.1:8080/ipfs"),
            ("http://127.0.0.1:8080/ipfs/", "http://127.0.0.1:8080/ipfs/"),
            ("https://example.com/deep/ipfs", "https://example.com/deep/ipfs"),
            ("https://example.com/deep", "https://example.com/deep"),
        ] {
            assert_eq!(gateway_root(&written.parse().unwrap()).unwrap().as_str(), asked);
        }
        let cid = format!("http://127.0.0.1/ipfs/{}", crate::import::raw_cid(b""));
        let error = gateway_root(&cid.parse().unwrap()).unwrap_err();
        assert_eq!(error.code(), "invalid_url");
        assert!(error.to_string().contains("up to /ipfs"), "{error}");
    }

    #[test]
    fn i5_a_redirect_tells_what_to_write() {
        let cid = crate::import::raw_cid(b"");
        for (root, target, wanted) in [
            (
                "http://dweb.example/ipfs",
                format!("https://{cid}.ipfs.dweb.example/"),
                "serves paths",
            ),
            (
                "http://example.com/ipfs",
                format!("https://example.com/ipfs/{cid}"),
                "write https://example.com/ipfs",
            ),
            ("http://example.com/gateway", format!("/ipfs/{cid}"), "write http://example.com/ipfs"),
        ] {
            let hint = redirect_hint(&root.parse().unwrap(), &target);
            assert!(hint.contains(wanted), "{hint}");
        }
        assert_eq!(redirect_hint(&"http://a/ipfs".parse().unwrap(), "http://169.254.169.254/"), "");
    }
}
