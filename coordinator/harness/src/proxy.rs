use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// What goes wrong with a call.
#[derive(Debug, Clone)]
pub enum Misbehaviour {
    /// The node gets the call, its answer gets lost: the connection breaks.
    DropReply,
    /// The call gets lost: the node never sees it.
    DropCall,
    /// The answer comes late.
    Delay(Duration),
    /// The node answers an error.
    Error {
        /// Its code.
        code: i64,
        /// Its words.
        message: String,
    },
    /// An HTTP status instead of an answer.
    Status {
        /// The status.
        status: u16,
        /// The `Retry-After` header, in seconds.
        retry_after_s: Option<u64>,
    },
    /// This result, whatever the node says.
    Answer(Value),
    /// `eth_getLogs` with more blocks than this is refused as too wide.
    MostBlocks(u64),
    /// `eth_getLogs` with more blocks than `most` gets this instead.
    WiderThan {
        /// The most blocks that are answered.
        most: u64,
        /// What happens to a wider range.
        otherwise: Box<Misbehaviour>,
    },
    /// The state of a block that is more blocks below the newest is gone, as on ordinary full nodes.
    StateOf(u64),
    /// This body with status 200, whatever it is.
    Body(String),
    /// The `Retry-After` header with this text and this status.
    RetryAfter {
        /// The status.
        status: u16,
        /// The header.
        text: String,
    },
}

/// A server in front of a node, which does to chosen methods what it is told.
#[derive(Debug)]
pub struct Proxy {
    url: String,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: Mutex<String>,
    http: reqwest::Client,
    plans: Mutex<Plans>,
}

#[derive(Debug, Default)]
struct Plans {
    orders: HashMap<String, VecDeque<(Misbehaviour, usize)>>,
    counts: HashMap<String, usize>,
}

#[expect(clippy::expect_used, reason = "test support: there is nothing to go on with")]
impl Proxy {
    /// Starts one in front of `upstream`.
    pub async fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream.to_owned()),
            http: reqwest::Client::new(),
            plans: Mutex::default(),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { url, shared, serving }
    }

    /// Where it answers.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Does this to the next `times` calls of a method, after what was ordered before. The method `*` is every one for
    /// which nothing is ordered.
    pub fn misbehave(&self, method: &str, fault: Misbehaviour, times: usize) {
        let mut plans = self.shared.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.orders.entry(method.to_owned()).or_default().push_back((fault, times));
    }

    /// Behaves from now on.
    pub fn heal(&self) {
        self.shared.plans.lock().unwrap_or_else(PoisonError::into_inner).orders.clear();
    }

    /// Stands in front of another node from now on.
    pub fn redirect(&self, upstream: &str) {
        *self.shared.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream.to_owned();
    }

    /// How often a method was called.
    #[must_use]
    pub fn count(&self, method: &str) -> usize {
        let plans = self.shared.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.counts.get(method).copied().unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    fn next(&self, method: &str) -> Option<Misbehaviour> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        *plans.counts.entry(method.to_owned()).or_default() += 1;
        let Plans { orders, .. } = &mut *plans;
        [method, "*"].into_iter().find_map(|name| {
            let queue = orders.get_mut(name)?;
            let (fault, times) = queue.front_mut()?;
            let fault = fault.clone();
            *times -= 1;
            if *times == 0 {
                queue.pop_front();
            }
            Some(fault)
        })
    }

    /// What the node itself says.
    async fn ask(&self, method: &str, parameters: Value) -> Value {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters});
        let upstream = self.upstream.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Ok(response) = self.http.post(upstream).json(&call).send().await else {
            return Value::Null;
        };
        let answer: Value = response.json().await.unwrap_or_default();
        answer.get("result").cloned().unwrap_or_default()
    }

    /// How many blocks below the newest the block is whose state is asked for.
    async fn depth(&self, call: &Value) -> u64 {
        let named = call.pointer("/params/1").cloned().unwrap_or_default();
        let hash = named
            .get("blockHash")
            .or(Some(&named))
            .filter(|hash| hash.as_str().is_some_and(|text| text.len() == 66));
        let number = match hash {
            Some(hash) => {
                let block = self.ask("eth_getBlockByHash", json!([hash, false])).await;
                block.get("number").and_then(quantity)
            }
            None => quantity(&named),
        };
        let head = quantity(&self.ask("eth_blockNumber", json!([])).await).unwrap_or_default();
        number.map_or(0, |number| head.saturating_sub(number))
    }

    async fn forward(&self, call: Bytes) -> Response {
        let upstream = self.upstream.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sent = self.http.post(upstream).header(header::CONTENT_TYPE, "application/json");
        let Ok(response) = sent.body(call).send().await else {
            return StatusCode::BAD_GATEWAY.into_response();
        };
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

#[expect(
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "JSON that is not there is null; fixed replies"
)]
async fn answer(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let call: Value = serde_json::from_slice(&body).unwrap_or_default();
    let method = call["method"].as_str().unwrap_or_default();
    let reply = |content: Value| {
        let mut reply = json!({"jsonrpc": "2.0", "id": call["id"]});
        reply
            .as_object_mut()
            .expect("an object")
            .extend(content.as_object().cloned().unwrap_or_default());
        (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], reply.to_string())
            .into_response()
    };
    let mut fault = shared.next(method);
    if let Some(Misbehaviour::WiderThan { most, otherwise }) = fault {
        fault = (blocks(&call) > most).then_some(*otherwise);
    }
    if let Some(Misbehaviour::StateOf(most)) = fault {
        let refused = json!({"error": {"code": -32_000, "message": "missing trie node 1b2c"}});
        return match shared.depth(&call).await > most {
            true => reply(refused),
            false => shared.forward(body).await,
        };
    }
    match fault {
        None => shared.forward(body).await,
        Some(Misbehaviour::DropReply) => {
            shared.forward(body).await;
            broken()
        }
        Some(Misbehaviour::DropCall) => broken(),
        Some(Misbehaviour::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            shared.forward(body).await
        }
        Some(Misbehaviour::Error { code, message }) => {
            reply(json!({"error": {"code": code, "message": message}}))
        }
        Some(Misbehaviour::Status { status, retry_after_s }) => {
            let status = StatusCode::from_u16(status).expect("a status");
            let seconds = retry_after_s.map(|seconds| [(header::RETRY_AFTER, seconds.to_string())]);
            (status, seconds.map(axum::response::AppendHeaders), "").into_response()
        }
        Some(Misbehaviour::Answer(result)) => reply(json!({"result": result})),
        Some(Misbehaviour::MostBlocks(most)) => {
            if blocks(&call) <= most {
                return shared.forward(body).await;
            }
            let message = format!("query returned more than {most} results");
            reply(json!({"error": {"code": -32_000, "message": message}}))
        }
        Some(Misbehaviour::Body(text)) => {
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], text).into_response()
        }
        Some(Misbehaviour::RetryAfter { status, text }) => {
            let status = StatusCode::from_u16(status).expect("a status");
            (status, [(header::RETRY_AFTER, text)], "").into_response()
        }
        Some(Misbehaviour::WiderThan { .. } | Misbehaviour::StateOf(_)) => {
            shared.forward(body).await
        }
    }
}

fn quantity(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

/// How many blocks a call for logs spans.
fn blocks(call: &Value) -> u64 {
    let block = |place: &str| call.pointer(place).and_then(quantity).unwrap_or_default();
    block("/params/0/toBlock").saturating_sub(block("/params/0/fromBlock")) + 1
}

#[expect(clippy::expect_used, reason = "a fixed reply")]
/// An answer whose body ends in an error: the connection breaks before the end.
fn broken() -> Response {
    let gone = std::io::Error::other("the connection breaks");
    let body = Body::from_stream(ending_in(gone));
    Response::builder().header(header::CONTENT_LENGTH, 1_000).body(body).expect("a response")
}

fn ending_in(error: std::io::Error) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    futures::stream::iter([Err(error)])
}
