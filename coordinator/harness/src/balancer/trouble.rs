//! What goes wrong between a coordinator and a node.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::view::{self, Reply};
use crate::Dice;

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// `null` for a block that the node has.
    NoHeader,
    /// `[]` for logs that the node has.
    NoLogs,
    /// An error in a 200: a quota is used up.
    Quota,
    /// 429, 500, 502, 503 or 504.
    Status,
    /// A late answer.
    Slow,
    /// An answer that is later than anybody waits.
    Late,
    /// The node gets the call, its answer gets lost.
    LostReply,
    /// The call gets lost.
    LostCall,
    /// The connection stays open and nothing ever comes.
    HalfOpen,
    /// An answer that breaks off.
    Cut,
}

/// How often what happens, in a thousand requests.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    /// A node answers that is behind.
    pub behind: u64,
    /// By at most so many lines.
    pub most_behind: u64,
    /// The other troubles.
    pub troubles: Vec<(Trouble, u64)>,
}

const QUOTAS: [(i64, &str); 5] = [
    (-32_005, "daily request count exceeded, request rate limited"),
    (-32_000, "project ID request rate exceeded"),
    (-32_603, "upstream quota exhausted"),
    (-32_601, "this method is not in your plan: quota exceeded"),
    (-32_029, "Too Many Requests"),
];
const STATUSES: [(u16, Option<u64>); 6] =
    [(429, None), (429, Some(1)), (500, None), (502, None), (503, Some(1)), (504, None)];

impl Weather {
    /// All of it, so many percent of as bad as it gets.
    #[must_use]
    pub fn storm(percent: u64) -> Self {
        let troubles = [
            (Trouble::NoHeader, 40),
            (Trouble::NoLogs, 40),
            (Trouble::Quota, 15),
            (Trouble::Status, 15),
            (Trouble::Slow, 15),
            (Trouble::Late, 1),
            (Trouble::LostReply, 8),
            (Trouble::LostCall, 8),
            (Trouble::HalfOpen, 1),
            (Trouble::Cut, 5),
        ];
        let troubles = troubles.map(|(trouble, permille)| (trouble, permille * percent / 100));
        Self { behind: 400 * percent / 100, most_behind: 3, troubles: troubles.to_vec() }
    }

    /// Whether nothing goes wrong.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.behind == 0 && self.troubles.is_empty()
    }

    pub(super) fn behind(&self, dice: &mut Dice) -> usize {
        match dice.falls(self.behind) {
            true => usize::try_from(dice.between(1, self.most_behind.max(1))).unwrap_or(1),
            false => 0,
        }
    }

    pub(super) fn trouble(&self, methods: &[&str], dice: &mut Dice) -> Option<Trouble> {
        let could = |trouble: Trouble| {
            !trouble.is_lie() || methods.iter().any(|method| trouble.lie(method).is_some())
        };
        let mut number = dice.below(1_000);
        for (trouble, permille) in self.troubles.iter().filter(|(trouble, _)| could(*trouble)) {
            match number.checked_sub(*permille) {
                Some(left) => number = left,
                None => return Some(*trouble),
            }
        }
        None
    }
}

impl Trouble {
    /// In words, for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoHeader => "headers denied",
            Self::NoLogs => "logs denied",
            Self::Quota => "quota errors in a 200",
            Self::Status => "HTTP 429 and 5xx",
            Self::Slow => "slow answers",
            Self::Late => "answers later than any patience",
            Self::LostReply => "lost replies",
            Self::LostCall => "lost calls",
            Self::HalfOpen => "half-open connections",
            Self::Cut => "answers cut off",
        }
    }

    fn is_lie(self) -> bool {
        matches!(self, Self::NoHeader | Self::NoLogs)
    }

    /// What is said instead of the answer.
    pub(super) fn lie(self, method: &str) -> Option<Reply> {
        match (self, method) {
            (Self::NoLogs, "eth_getLogs") => Some(json!({"result": []})),
            (Self::NoHeader, "eth_getBlockByNumber" | "eth_getBlockByHash") => {
                Some(json!({"result": null}))
            }
            _ => None,
        }
    }

    /// What happens before the node gets the call: none when it gets it.
    pub(super) async fn before(
        trouble: Option<Self>,
        dice: &mut Dice,
        mut calm: watch::Receiver<bool>,
    ) -> Option<Response> {
        match trouble? {
            Self::Slow => dice.pause(200, 2_000).await,
            Self::Late => tokio::time::sleep(Duration::from_secs(12)).await,
            Self::HalfOpen => {
                let _ = calm.wait_for(|calm| *calm).await;
                return Some(broken());
            }
            Self::LostCall => return Some(broken()),
            Self::Status => {
                let (status, seconds) = dice.one_of(&STATUSES);
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                let seconds = seconds.map(|seconds| [(header::RETRY_AFTER, seconds.to_string())]);
                let seconds = seconds.map(axum::response::AppendHeaders);
                return Some((status, seconds, "<html>busy</html>").into_response());
            }
            _ => {}
        }
        None
    }

    /// What the caller gets of the replies.
    pub(super) fn after(
        trouble: Option<Self>,
        dice: &mut Dice,
        replies: &Value,
        calls: &[Value],
    ) -> Response {
        let mut text = replies.to_string();
        match trouble {
            Some(Self::LostReply) => return broken(),
            Some(Self::Cut) => {
                let half = text.len() / 2;
                let cut = (0..=half).rev().find(|at| text.is_char_boundary(*at));
                text.truncate(cut.unwrap_or(0));
            }
            Some(Self::Quota) => {
                let (code, message) = dice.one_of(&QUOTAS);
                let mut refused = calls.iter().map(|call| {
                    let mut reply = view::error(code, message);
                    if let Some(fields) = reply.as_object_mut() {
                        fields.insert("jsonrpc".to_owned(), json!("2.0"));
                        let id = call.get("id").cloned().unwrap_or_default();
                        fields.insert("id".to_owned(), id);
                    }
                    reply
                });
                text = match replies.is_array() {
                    true => Value::Array(refused.collect()).to_string(),
                    false => refused.next().unwrap_or_default().to_string(),
                };
            }
            _ => {}
        }
        ([(header::CONTENT_TYPE, "application/json")], text).into_response()
    }
}

/// An answer whose body ends in an error: the connection breaks before the end.
fn broken() -> Response {
    let gone = std::io::Error::other("the connection breaks");
    let body = Body::from_stream(futures::stream::iter([Err::<Bytes, _>(gone)]));
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_LENGTH, header::HeaderValue::from_static("1000"));
    response
}
