//! A running coordinator's HTTP API, as `status`, `watch` and `demo` ask it.

use std::time::Duration;

use ipfs::Url;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, value::RawValue};

use super::Error;
use crate::config::Secret;

/// A coordinator's API.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    client: Client,
    root: Url,
    token: Option<Secret>,
}

/// An answer, byte for byte and to look into.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) text: Box<RawValue>,
    pub(super) value: Value,
}

impl Remote {
    pub(super) fn new(root: &Url, tokens: &[Secret]) -> Result<Self, Error> {
        let client = Client::builder()
            .connect_timeout(Duration::from_secs(3))
            .timeout(Duration::from_secs(15))
            .no_proxy()
            .build()
            .map_err(|source| unreachable(root, source))?;
        Ok(Self { client, root: root.clone(), token: tokens.first().cloned() })
    }

    /// Asks for a path below the root; `query` is pairs of a name and a value.
    pub(super) async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Answer, Error> {
        self.send(self.client.get(self.url(path)).query(query)).await
    }

    /// Sends a JSON document to a path below the root.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Answer, Error> {
        self.send(self.client.post(self.url(path)).json(body)).await
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.root.clone();
        url.set_path(&format!("{}{path}", self.root.path().trim_end_matches('/')));
        url
    }

    async fn send(&self, mut request: RequestBuilder) -> Result<Answer, Error> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let response = request.send().await.map_err(|source| unreachable(&self.root, source))?;
        let status = response.status();
        let body = response.text().await.map_err(|source| unreachable(&self.root, source))?;
        let body = serde_json::from_str::<Box<RawValue>>(&body)
            .and_then(|text| Ok(Answer { value: serde_json::from_str(text.get())?, text }));
        let body = match body {
            Ok(answer) if status.is_success() => return Ok(answer),
            Ok(answer) => answer.value,
            Err(_) => Value::Null,
        };
        let word = |name: &str| text(&body, &format!("/error/{name}")).map(str::to_owned);
        Err(Error::Api {
            code: word("code").unwrap_or_else(|| format!("http_{}", status.as_u16())),
            message: word("message").unwrap_or_else(|| status.to_string()),
        })
    }

    /// One task with everything that is known of it.
    pub(super) async fn task(&self, id: &str) -> Result<Answer, Error> {
        self.get(&format!("/api/v1/tasks/{id}"), &[]).await
    }
}

fn unreachable(root: &Url, source: reqwest::Error) -> Error {
    Error::Unreachable { url: root.to_string(), source: source.without_url() }
}

/// The text at a place of a JSON document, written as a pointer: `/outcome/status`.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str()
}

/// A task's timeline as lines of text.
pub(super) fn timeline(task: &Value) -> Vec<String> {
    let steps = task.get("timeline").and_then(Value::as_array).cloned().unwrap_or_default();
    steps
        .iter()
        .map(|step| {
            let detail = match step.get("detail") {
                None | Some(Value::Null) => String::new(),
                Some(detail) => format!("  {}", brief(detail)),
            };
            let at = text(step, "/at").unwrap_or_default();
            format!("{at}  {:<12}{detail}", text(step, "/step").unwrap_or_default())
                .trim_end()
                .to_owned()
        })
        .collect()
}

/// The longest text in a line of a timeline, in characters; the JSON has all of it.
const LONG: usize = 100;

/// A step's details as `name=value`, one level deep.
fn brief(detail: &Value) -> String {
    let Some(fields) = detail.as_object() else { return detail.to_string() };
    let parts: Vec<_> = fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| match value {
            Value::String(text) if text.chars().count() > LONG => {
                format!("{name}={}…", text.chars().take(LONG).collect::<String>())
            }
            Value::String(text) => format!("{name}={text}"),
            Value::Object(block) if block.contains_key("number") => {
                format!("{name}={}", block.get("number").unwrap_or(&Value::Null))
            }
            other => format!("{name}={other}"),
        })
        .collect();
    parts.join(" ")
}
