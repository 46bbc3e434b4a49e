use std::{
    fmt,
    time::{Duration, Instant},
};

use alloy::{
    rpc::client::RpcClient,
    transports::{RpcError, TransportErrorKind, ws::WsConnect},
};
use reqwest::Url;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::sync::Mutex;

use crate::Error;

/// The longest answer that is read, in bytes. A longer one counts as too many results.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// The URLs of one chain, in order of preference. Shown without credentials and paths.
#[derive(Clone)]
pub struct Endpoints {
    pub(crate) urls: Vec<Url>,
}

impl Endpoints {
    /// Reads a comma-separated list of HTTP and WebSocket URLs.
    pub fn parse(list: &str) -> Result<Self, Error> {
        let mut urls = Vec::new();
        for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let invalid =
                |url: String, reason: &str| Error::InvalidUrl { url, reason: reason.into() };
            // What cannot be read may still hold a secret: it is not shown.
            let url = Url::parse(text)
                .map_err(|error| invalid("(unreadable)".to_owned(), &error.to_string()))?;
            if !matches!(url.scheme(), "http" | "https" | "ws" | "wss") {
                return Err(invalid(redacted(&url), "the scheme is not http, https, ws or wss"));
            }
            if url.host_str().is_none_or(str::is_empty) {
                return Err(invalid(redacted(&url), "it names no host"));
            }
            urls.push(url);
        }
        if urls.is_empty() {
            return Err(Error::InvalidUrl {
                url: String::new(),
                reason: "the list is empty".into(),
            });
        }
        Ok(Self { urls })
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<_> = self.urls.iter().map(redacted).collect();
        f.write_str(&shown.join(","))
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Scheme, host and port: user, password, path and query often are secrets.
pub(crate) fn redacted(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let rest = if url.path().len() > 1 || url.query().is_some() { "/…" } else { "" };
    format!("{}://{}{port}{rest}", url.scheme(), url.host_str().unwrap_or_default())
}

pub(crate) fn is_web_socket(url: &Url) -> bool {
    matches!(url.scheme(), "ws" | "wss")
}

/// One place that answers calls.
pub(crate) struct Endpoint {
    shown: String,
    url: Url,
    wire: Wire,
    timeout: Duration,
    pub(crate) rest: std::sync::Mutex<Rest>,
}

enum Wire {
    Http(reqwest::Client),
    /// Connected at the first call, and again at the first after it broke.
    WebSocket(Mutex<Option<RpcClient>>),
}

/// What is remembered of an endpoint's failures.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    pub(crate) failures: u32,
    pub(crate) until: Option<Instant>,
    pub(crate) last: String,
    pub(crate) verified: bool,
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
    #[serde(default)]
    data: serde_json::Value,
}

impl Endpoint {
    pub(crate) fn new(url: Url, timeout: Duration) -> Result<Self, Error> {
        let shown = redacted(&url);
        let wire = if is_web_socket(&url) {
            Wire::WebSocket(Mutex::new(None))
        } else {
            let client = reqwest::Client::builder()
                .timeout(timeout)
                .connect_timeout(timeout)
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|error| Error::InvalidUrl {
                    url: shown.clone(),
                    reason: error.without_url().to_string(),
                })?;
            Wire::Http(client)
        };
        Ok(Self { shown, url, wire, timeout, rest: std::sync::Mutex::default() })
    }

    /// The name that logs may show.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Calls a method and reads its result.
    pub(crate) async fn call<P: Serialize + Sync, R: DeserializeOwned>(
        &self,
        method: &'static str,
        params: &P,
    ) -> Result<R, Error> {
        let started = Instant::now();
        let answer = match &self.wire {
            Wire::Http(client) => self.post(client, method, params).await,
            Wire::WebSocket(connection) => self.ask(connection, method, params).await,
        };
        metrics::histogram!("wasm_exec_chain_call_seconds", "method" => method)
            .record(started.elapsed().as_secs_f64());
        if let Err(error) = &answer {
            metrics::counter!("wasm_exec_chain_call_failures_total", "code" => error.code())
                .increment(1);
        }
        let text = answer?;
        serde_json::from_str(&text).map_err(|error| self.unreadable(method, error))
    }

    async fn post<P: Serialize>(
        &self,
        client: &reqwest::Client,
        method: &'static str,
        params: &P,
    ) -> Result<String, Error> {
        let call =
            serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let mut response = client
            .post(self.url.clone())
            .json(&call)
            .send()
            .await
            .map_err(|error| self.unreachable(method, &error.without_url()))?;
        let status = response.status();
        let retry_after = response
            .headers()
            .get(reqwest::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.unreachable(method, &error.without_url()))?
        {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(self.too_much(method, format!("more than {MAX_ANSWER_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        if status.as_u16() == 413 {
            return Err(self.too_much(method, "HTTP status 413".to_owned()));
        }
        let reply = serde_json::from_slice::<Reply<'_>>(&body);
        match reply {
            // A limit that comes with a waiting time is about the rate, whatever its words are.
            _ if status.as_u16() == 429 || (!status.is_success() && retry_after.is_some()) => {
                Err(Error::Status {
                    endpoint: self.shown.clone(),
                    method,
                    status: status.as_u16(),
                    retry_after,
                })
            }
            Ok(Reply { error: Some(failure), .. }) => Err(self.failure(method, failure)),
            _ if !status.is_success() => Err(Error::Status {
                endpoint: self.shown.clone(),
                method,
                status: status.as_u16(),
                retry_after,
            }),
            Ok(Reply { result, .. }) => Ok(result.map_or("null", RawValue::get).to_owned()),
            Err(error) => Err(self.unreadable(method, error)),
        }
    }

    async fn ask<P: Serialize>(
        &self,
        connection: &Mutex<Option<RpcClient>>,
        method: &'static str,
        params: &P,
    ) -> Result<String, Error> {
        let params = serde_json::value::to_raw_value(params)
            .map_err(|error| self.unreadable(method, error))?;
        let asked = async {
            let client = {
                let mut connection = connection.lock().await;
                match &*connection {
                    Some(client) => client.clone(),
                    None => connection.insert(connect(&self.url).await?).clone(),
                }
            };
            client.request::<_, Box<RawValue>>(method, params).await
        };
        let answer = tokio::time::timeout(self.timeout, asked).await;
        match answer {
            Ok(Ok(result)) => return Ok(result.get().to_owned()),
            Ok(Err(RpcError::NullResp)) => return Ok("null".to_owned()),
            Ok(Err(RpcError::ErrorResp(payload))) => {
                let data = payload.data.as_deref().map(RawValue::get).unwrap_or("null");
                return Err(self.failure(
                    method,
                    Failure {
                        code: payload.code,
                        message: payload.message.to_string(),
                        data: serde_json::from_str(data).unwrap_or_default(),
                    },
                ));
            }
            Ok(Err(_)) | Err(_) => *connection.lock().await = None,
        }
        let reason = match answer {
            Ok(Err(error)) => error.to_string().replace(self.url.as_str(), &self.shown),
            _ => format!("no answer within {} s", self.timeout.as_secs_f32()),
        };
        Err(Error::Unreachable { endpoint: self.shown.clone(), method, reason })
    }

    fn failure(&self, method: &'static str, failure: Failure) -> Error {
        if method == "eth_getLogs" && is_limit(failure.code, &failure.message) {
            return self.too_much(method, failure.message);
        }
        // Geth puts revert data into `data`, others into an object within.
        let data = match &failure.data {
            serde_json::Value::String(text) => Some(text.as_str()),
            other => other.get("data").and_then(serde_json::Value::as_str),
        };
        Error::Rpc {
            endpoint: self.shown.clone(),
            method,
            code: failure.code,
            message: failure.message,
            data: data.and_then(|text| alloy::primitives::hex::decode(text).ok()),
        }
    }

    fn too_much(&self, method: &'static str, message: String) -> Error {
        Error::TooMuch { endpoint: self.shown.clone(), method, message }
    }

    pub(crate) fn unreadable(&self, method: &'static str, reason: impl fmt::Display) -> Error {
        Error::Unreadable { endpoint: self.shown.clone(), method, reason: reason.to_string() }
    }

    fn unreachable(&self, method: &'static str, error: &dyn std::error::Error) -> Error {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        Error::Unreachable { endpoint: self.shown.clone(), method, reason }
    }
}

/// Connects a WebSocket that gives up instead of reconnecting: whoever uses it connects again.
pub(crate) async fn connect(url: &Url) -> Result<RpcClient, RpcError<TransportErrorKind>> {
    let connect =
        WsConnect::new(url.as_str()).with_max_retries(0).with_retry_interval(Duration::ZERO);
    RpcClient::connect_pubsub(connect).await
}

/// How nodes and providers say that a range of blocks is too wide. There is no standard for it.
fn is_limit(code: i64, message: &str) -> bool {
    let message = message.to_lowercase();
    code == -32_005
        || [
            "query returned more than",
            "too many results",
            "too many blocks",
            "block range",
            "range is too large",
            "range too large",
            "response size",
            "response is too big",
            "result is too big",
            "limit exceeded",
            "exceeds the limit",
            "exceed maximum",
            "query timeout",
            "logs matched by query exceeds",
        ]
        .iter()
        .any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_shown_of_a_url_holds_no_secret() {
        let list = "https://user:hunter2@node.example:8545/v3/5ec2e7?key=5ec2e7, ws://127.0.0.1:1";
        let endpoints = Endpoints::parse(list).unwrap();
        assert_eq!(endpoints.to_string(), "https://node.example:8545/…,ws://127.0.0.1:1");
        assert_eq!(format!("{endpoints:?}"), endpoints.to_string());
    }

    #[test]
    fn a_list_without_a_usable_url_is_refused() {
        for list in ["", " , ", "ftp://node/", "node:8545", "://5ec2e7", "/ipc"] {
            let error = Endpoints::parse(list).unwrap_err();
            assert_eq!(error.code(), "invalid_url", "{list}");
            assert!(!error.to_string().contains("5ec2e7"));
        }
    }

    #[test]
    fn limits_are_told_from_other_errors() {
        assert!(is_limit(-32_005, "whatever"));
        assert!(is_limit(-32_000, "Query returned more than 10000 results"));
        assert!(is_limit(-32_602, "Block range is too wide"));
        assert!(!is_limit(-32_000, "header not found"));
    }
}
