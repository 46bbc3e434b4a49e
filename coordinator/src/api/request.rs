//! What every request passes: an id, a time limit, a log line, a metric, and headers on the answer.

use std::{panic::AssertUnwindSafe, time::Instant};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures::FutureExt as _;
use serde::Deserialize;
use tracing::Instrument as _;

use super::{BODY_BYTES, Error, TIMEOUT};
use crate::metrics::Metrics;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const ROUTES: [&str; 9] = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/api/v1/tasks",
    "/api/v1/tasks/{id}",
    "/api/v1/tasks/{id}/log",
    "/api/v1/chain/accept",
    "/api/v1/earnings",
    "/api/v1/withdrawals",
];

/// The body of what an operator decides: an empty object. That it is JSON keeps other people's web pages from sending it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Empty {}

pub(super) async fn observe(request: Request, next: Next) -> Response {
    let began_at = Instant::now();
    let id = request_id(request.headers());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .and_then(|path| ROUTES.into_iter().find(|route| *route == path.as_str()))
        .unwrap_or("none");
    let span = tracing::info_span!(
        "request",
        request.id = id.to_str().unwrap_or_default(),
        http.method = %request.method(),
        http.route = route,
    );
    let mut response = answer(request, next).instrument(span.clone()).await;
    let took = began_at.elapsed();
    let status = response.status().as_u16();
    span.in_scope(|| {
        tracing::debug!(http.status = status, took_ms = took.as_millis(), "answered a request");
    });
    Metrics::request(route, status, took.as_secs_f64());
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID.clone(), id);
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn answer(request: Request, next: Next) -> Response {
    if body_bytes(request.headers()) > BODY_BYTES {
        return Error::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("a request's body has at most {BODY_BYTES} bytes"),
        )
        .into_response();
    }
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            tracing::error!("a request's handler panicked");
            let message = "the coordinator failed; its log says more";
            Error::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message).into_response()
        }
        Err(_) => {
            let message = "the answer took too long";
            Error::new(StatusCode::GATEWAY_TIMEOUT, "timed_out", message).into_response()
        }
    }
}

fn body_bytes(headers: &HeaderMap) -> usize {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.map_or(0, |length| length.parse().unwrap_or(usize::MAX))
}

/// The caller's id when it is a short plain word, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let plain = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=64).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
    };
    headers.get(&REQUEST_ID).filter(plain).cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&uuid::Uuid::new_v4().simple().to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("none"))
    })
}
