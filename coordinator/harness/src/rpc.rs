use std::time::Duration;

use serde_json::{Value, json};

use crate::scene::Fault;

/// A node's JSON-RPC, without anything in between: for those who judge what others made of its answers.
#[derive(Debug, Clone)]
pub struct Rpc {
    url: String,
    http: reqwest::Client,
}

impl Rpc {
    /// Speaks to the node at `url`.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), http: reqwest::Client::new() }
    }

    /// The whole answer to a call, with its `result` or its `error`.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn answer(&self, method: &str, parameters: &Value) -> Result<Value, Fault> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters});
        let sent = self.http.post(&self.url).timeout(Duration::from_secs(60)).json(&body);
        Ok(sent.send().await?.json().await?)
    }

    /// A call's result.
    ///
    /// # Errors
    /// When the node does not answer, or answers with an error.
    pub async fn call(&self, method: &str, parameters: Value) -> Result<Value, Fault> {
        let mut answer = self.answer(method, &parameters).await?;
        match answer.get("error") {
            Some(error) if !error.is_null() => Err(format!("{method}: {error}").into()),
            _ => Ok(answer.get_mut("result").map(Value::take).unwrap_or_default()),
        }
    }

    /// A call's result that is a number in hex.
    ///
    /// # Errors
    /// When the node does not answer, or with something else.
    pub async fn number(&self, method: &str, parameters: Value) -> Result<u64, Fault> {
        let answer = self.call(method, parameters).await?;
        quantity(&answer).ok_or_else(|| format!("{method}: {answer} is no number").into())
    }
}

/// A number as JSON-RPC writes it: `0x` and hex digits.
#[must_use]
pub fn quantity(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}
