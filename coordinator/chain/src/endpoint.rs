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

use crate::{Error, class};

/// The longest answer that is read, in bytes. A longer one counts as too many results.
pub(crate) const MAX_ANSWER_BYTES: usize = 32 << 20;
/// The longest that an endpoint may ask to be left alone: it is asked again by then, whatever it said.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);
/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections that nobody used for so long are not used again: something between may have forgotten them.
const POOL_IDLE: Duration = Duration::from_secs(30);
/// How often a call is made that fails at once in a way that passes, with these pauses between.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_millis(40), Duration::from_millis(160)];
/// A failure that took longer than this is not tried again here.
const AT_ONCE: Duration = Duration::from_secs(1);
/// The most characters of an endpoint's words that are kept.
const MOST_WORDS: usize = 300;

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
    /// The code of the last failure.
    pub(crate) code: &'static str,
    pub(crate) verified: bool,
    /// Somebody looks in the background whether it is well again.
    pub(crate) probing: bool,
}

#[derive(Deserialize)]
struct Reply<'a> {
    /// Absent is not `null`: an answer without a result is none.
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

fn present<'de: 'a, 'a, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Default)]
struct Failure {
    code: i64,
    message: String,
    data: serde_json::Value,
}

impl Failure {
    /// An error as it stands in an answer: an object by the standard, a text with some providers.
    fn read(error: serde_json::Value) -> Self {
        let serde_json::Value::Object(mut fields) = error else {
            let message = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
            return Self { message, ..Self::default() };
        };
        Self {
            code: fields.get("code").and_then(serde_json::Value::as_i64).unwrap_or_default(),
            message: fields
                .get("message")
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            data: fields.remove("data").unwrap_or_default(),
        }
    }
}

/// The words of an endpoint on one line, and not too many: they come into logs and messages.
fn words(text: &str) -> String {
    let clean = text.chars().map(|char| if char.is_control() { ' ' } else { char });
    let mut kept: String = clean.take(MOST_WORDS + 1).collect();
    if kept.chars().count() > MOST_WORDS {
        kept.pop();
        kept.push('…');
    }
    kept
}

/// `Retry-After`, in seconds or as a date, bounded; what cannot be read says nothing.
fn retry_after(value: &str, now: jiff::Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER));
    }
    let dates = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true);
    let until = dates.parse_timestamp(value).ok()?;
    let left = until.as_second().saturating_sub(now.as_second()).max(0);
    Some(Duration::from_secs(left.unsigned_abs()).min(LONGEST_RETRY_AFTER))
}

impl Endpoint {
    pub(crate) fn new(url: Url, timeout: Duration) -> Result<Self, Error> {
        let shown = redacted(&url);
        let wire = if is_web_socket(&url) {
            Wire::WebSocket(Mutex::new(None))
        } else {
            let client = reqwest::Client::builder()
                .timeout(timeout)
                .connect_timeout(timeout.min(CONNECT_TIMEOUT))
                .pool_idle_timeout(POOL_IDLE)
                .tcp_keepalive(POOL_IDLE / 2)
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
        let (result, _) = self.call_sized(method, params, MAX_ANSWER_BYTES).await?;
        Ok(result)
    }

    /// Calls a method and reads its result and how many bytes that was. A longer answer than `most` is too much. A
    /// connection that breaks, an answer that breaks off and a node behind the address that is not at work are tried
    /// again here a few times: whoever asks many questions in a row gets through. What sends is not: it is the caller's to
    /// say what a lost reply means.
    pub(crate) async fn call_sized<P: Serialize + Sync, R: DeserializeOwned>(
        &self,
        method: &'static str,
        params: &P,
        most: usize,
    ) -> Result<(R, usize), Error> {
        for pause in AGAIN_AFTER {
            let began_at = Instant::now();
            match self.call_once(method, params, most).await {
                Err(error)
                    if method != "eth_sendRawTransaction"
                        && error.is_momentary()
                        && began_at.elapsed() < AT_ONCE =>
                {
                    tokio::time::sleep(pause).await;
                }
                answer => return answer,
            }
        }
        self.call_once(method, params, most).await
    }

    async fn call_once<P: Serialize + Sync, R: DeserializeOwned>(
        &self,
        method: &'static str,
        params: &P,
        most: usize,
    ) -> Result<(R, usize), Error> {
        let started = Instant::now();
        let answer = match &self.wire {
            Wire::Http(client) => self.post(client, method, params, most).await,
            Wire::WebSocket(connection) => self.ask(connection, method, params).await,
        };
        metrics::histogram!("wasm_exec_chain_call_seconds", "method" => method)
            .record(started.elapsed().as_secs_f64());
        if let Err(error) = &answer {
            metrics::counter!("wasm_exec_chain_call_failures_total", "code" => error.code())
                .increment(1);
        }
        answer
    }

    /// How long a call may take: what a node has to search or to run may take longer than a look at its memory.
    fn patience(&self, method: &str) -> Duration {
        match method {
            "eth_getLogs" | "eth_estimateGas" | "eth_sendRawTransaction" => self.timeout,
            _ => self.timeout / 2,
        }
    }

    async fn post<P: Serialize, R: DeserializeOwned>(
        &self,
        client: &reqwest::Client,
        method: &'static str,
        params: &P,
        most: usize,
    ) -> Result<(R, usize), Error> {
        let call =
            serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let mut response = client
            .post(self.url.clone())
            .timeout(self.patience(method))
            .json(&call)
            .send()
            .await
            .map_err(|error| self.unreachable(method, &error.without_url()))?;
        let status = response.status();
        let retry_after = response
            .headers()
            .get(reqwest::header::RETRY_AFTER)
            .and_then(|value| retry_after(value.to_str().ok()?, jiff::Timestamp::now()));
        let refused =
            |status| Error::Status { endpoint: self.shown.clone(), method, status, retry_after };
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.unreachable(method, &error.without_url()))?
        {
            if body.len() + chunk.len() > most {
                return Err(self.too_much(method, format!("more than {most} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        if status.as_u16() == 413 {
            return Err(self.too_much(method, "HTTP status 413".to_owned()));
        }
        match serde_json::from_slice::<Reply<'_>>(&body) {
            // A limit that comes with a waiting time is about the rate, whatever its words are.
            _ if status.as_u16() == 429 || (!status.is_success() && retry_after.is_some()) => {
                Err(refused(status.as_u16()))
            }
            Ok(Reply { error: Some(error), .. }) => Err(self.failure(method, Failure::read(error))),
            _ if !status.is_success() => Err(refused(status.as_u16())),
            Ok(Reply { result: Some(result), .. }) => serde_json::from_str(result.get())
                .map(|result| (result, body.len()))
                .map_err(|error| self.unreadable(method, error)),
            Ok(_) => Err(self.unreadable(method, "it has neither a result nor an error")),
            Err(error) => Err(self.unreadable(method, error)),
        }
    }

    async fn ask<P: Serialize, R: DeserializeOwned>(
        &self,
        connection: &Mutex<Option<RpcClient>>,
        method: &'static str,
        params: &P,
    ) -> Result<(R, usize), Error> {
        let read = |text: &str| {
            serde_json::from_str(text)
                .map(|result| (result, text.len()))
                .map_err(|error| self.unreadable(method, error))
        };
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
        let answer = tokio::time::timeout(self.patience(method), asked).await;
        match answer {
            Ok(Ok(result)) => return read(result.get()),
            Ok(Err(RpcError::NullResp)) => return read("null"),
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
            Ok(Err(error)) => words(&error.to_string().replace(self.url.as_str(), &self.shown)),
            _ => format!("no answer within {} s", self.patience(method).as_secs_f32()),
        };
        Err(Error::Unreachable { endpoint: self.shown.clone(), method, reason })
    }

    fn failure(&self, method: &'static str, failure: Failure) -> Error {
        let message = words(&failure.message);
        if method == "eth_getLogs" && class::is_range(failure.code, &failure.message) {
            return self.too_much(method, message);
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
            message,
            data: data.and_then(|text| alloy::primitives::hex::decode(text).ok()),
        }
    }

    fn too_much(&self, method: &'static str, message: String) -> Error {
        Error::TooMuch { endpoint: self.shown.clone(), method, message }
    }

    pub(crate) fn unreadable(&self, method: &'static str, reason: impl fmt::Display) -> Error {
        let reason = words(&reason.to_string());
        Error::Unreadable { endpoint: self.shown.clone(), method, reason }
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
    fn c8_a_waiting_time_is_bounded_whatever_it_says() {
        let now: jiff::Timestamp = "2015-10-21T07:27:30Z".parse().unwrap();
        let seconds = |value| retry_after(value, now).map(|after| after.as_secs());
        for (value, wanted) in [
            ("0", Some(0)),
            ("7", Some(7)),
            (" 90 ", Some(60)),
            ("100000000", Some(60)),
            ("9223372036854775807", Some(60)),
            ("18446744073709551615", Some(60)),
            ("340282366920938463463374607431768211456", Some(60)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(30)),
            ("Wed, 21 Oct 2099 07:28:00 GMT", Some(60)),
            ("Wed, 21 Oct 2014 07:28:00 GMT", Some(0)),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(seconds(value), wanted, "{value}");
        }
    }

    #[test]
    fn words_of_an_endpoint_stay_on_one_line() {
        assert_eq!(words("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(words(&"x".repeat(1_000)).chars().count(), MOST_WORDS + 1);
    }
}
