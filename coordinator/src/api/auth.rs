use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use sha2::{Digest as _, Sha256};

use super::{Api, Error};
use crate::config::Secret;

/// The bearer tokens that are let in, as digests. Clones are the same ones.
#[derive(Clone)]
pub struct Tokens(Arc<RwLock<Vec<[u8; 32]>>>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({})", self.read().len())
    }
}

impl Tokens {
    /// These tokens; none lets everybody in.
    #[must_use]
    pub fn new(tokens: &[Secret]) -> Self {
        Self(Arc::new(RwLock::new(digests(tokens))))
    }

    /// Lets in who brings one of these from now on, and nobody else.
    pub fn replace(&self, tokens: &[Secret]) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = digests(tokens);
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<[u8; 32]>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// Whether a token is one of them. Takes the same time whichever it is, and however much of it is right.
    fn admits(&self, token: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let mut found = 0_u8;
        for known in self.read().iter() {
            let difference = known.iter().zip(&digest).fold(0, |sum, (a, b)| sum | (a ^ b));
            found |= u8::from(std::hint::black_box(difference) == 0);
        }
        found != 0
    }
}

fn digests(tokens: &[Secret]) -> Vec<[u8; 32]> {
    tokens.iter().map(|token| Sha256::digest(token.expose()).into()).collect()
}

/// Without tokens only requests to an address or to `localhost` are answered. A web page whose name was made to lead here
/// asks by that name.
pub(super) async fn check_host(
    State(api): State<Arc<Api>>,
    request: Request,
    next: Next,
) -> Response {
    let header = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let target = request.uri().authority().map(Authority::as_str);
    let is_local = [header, target].into_iter().flatten().all(is_local);
    if is_local || !api.tokens.is_empty() {
        return next.run(request).await;
    }
    let message =
        "without bearer tokens only requests to an IP address or to localhost are answered";
    Error::new(StatusCode::FORBIDDEN, "host_not_allowed", message).into_response()
}

/// Whether a host, with its port or without, is an address or this machine's own name.
fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// Lets a request through that brings one of the tokens, or any when there are none.
pub(super) async fn check(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if api.tokens.is_empty() {
        return next.run(request).await;
    }
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if token.is_some_and(|token| api.tokens.admits(token)) {
        return next.run(request).await;
    }
    let error = Error::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "this needs a bearer token of the coordinator's",
    );
    let mut response = error.into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x6_only_addresses_and_localhost_are_local() {
        for (host, local) in [
            ("127.0.0.1:8480", true),
            ("10.1.2.3", true),
            ("[::1]:8480", true),
            ("localhost", true),
            ("LocalHost:1", true),
            ("evil.example:8480", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("", false),
            ("[::1", false),
        ] {
            assert_eq!(is_local(host), local, "{host}");
        }
    }

    #[test]
    fn x6_tokens_that_are_replaced_let_nobody_in_any_more() {
        let secret = |text: &str| Secret::new(text.to_owned());
        let tokens = Tokens::new(&[secret("the-first-of-them")]);
        let shared = tokens.clone();
        tokens.replace(&[secret("the-second-of-them")]);
        assert!(shared.admits(b"the-second-of-them") && !shared.admits(b"the-first-of-them"));
    }
}
