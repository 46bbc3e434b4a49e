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

    /// Does this to the next `times` calls of a method, after what was ordered before.
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
        let queue = plans.orders.get_mut(method)?;
        let (fault, times) = queue.front_mut()?;
        let fault = fault.clone();
        *times -= 1;
        if *times == 0 {
            queue.pop_front();
        }
        Some(fault)
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
    match shared.next(method) {
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
            let block = |field: &str| {
                let text = call["params"][0][field].as_str().unwrap_or_default();
                u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or_default()
            };
            if block("toBlock").saturating_sub(block("fromBlock")) < most {
                return shared.forward(body).await;
            }
            let message = format!("query returned more than {most} results");
            reply(json!({"error": {"code": -32_000, "message": message}}))
        }
    }
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
