//! One address with several nodes of one chain behind it, which are never quite at the same block, and which fail in
//! the ways that nodes and those in front of them do.

mod line;
mod trouble;
mod view;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Router, body::Bytes, extract::State, response::Response};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

pub use line::{Block, Line};
pub use trouble::{Trouble, Weather};

use crate::{Dice, rpc::Rpc, scene::Fault};

/// How many lines are remembered: a node is behind by one less at the most.
const LINES: usize = 6;

/// The address. Whoever changes the chain calls [`look`](Self::look) afterwards: before that no node shows the change.
#[derive(Debug)]
pub struct Balancer {
    url: String,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    node: Rpc,
    /// What looks at the chain, one at a time.
    history: tokio::sync::Mutex<line::History>,
    now: Mutex<Now>,
    /// Ends what hangs.
    calm: watch::Sender<bool>,
}

#[derive(Debug)]
struct Now {
    lines: Vec<Line>,
    weather: Weather,
    dice: Dice,
    injected: BTreeMap<&'static str, u64>,
}

impl Balancer {
    /// Starts one in front of a node. The weather is good.
    ///
    /// # Errors
    /// When the node does not answer or there is no port.
    pub async fn start(upstream: &str, seed: u64) -> Result<Self, Fault> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let node = Rpc::new(upstream);
        let now = Now {
            lines: Vec::new(),
            weather: Weather::default(),
            dice: Dice::new(seed),
            injected: BTreeMap::new(),
        };
        let shared = Arc::new(Shared {
            history: tokio::sync::Mutex::new(line::History::new(node.clone(), LINES)),
            node,
            now: Mutex::new(now),
            calm: watch::Sender::new(true),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        let balancer = Self { url, shared, serving };
        balancer.look().await?;
        Ok(balancer)
    }

    /// The address.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Takes note of what the chain is now; answers whether that is new.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn look(&self) -> Result<bool, Fault> {
        let mut history = self.shared.history.lock().await;
        let changed = history.look().await?;
        if changed {
            let lines = (0..LINES).filter_map(|back| history.line(back)).collect();
            self.shared.now().lines = lines;
        }
        Ok(changed)
    }

    /// The chain as it was at the last look.
    ///
    /// # Errors
    /// When there was none.
    pub async fn line(&self) -> Result<Line, Fault> {
        let newest = self.shared.history.lock().await.newest();
        newest.ok_or_else(|| "nobody has looked at the chain yet".into())
    }

    /// From now on these things happen.
    pub fn set(&self, weather: Weather) {
        self.shared.calm.send_replace(weather.is_calm());
        self.shared.now().weather = weather;
    }

    /// What has happened so far, by kind.
    #[must_use]
    pub fn injected(&self) -> BTreeMap<&'static str, u64> {
        self.shared.now().injected.clone()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    fn now(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which node gets a request with these methods, and what goes wrong with it.
    fn draw(&self, methods: &[&str]) -> (view::View, Option<Trouble>, Dice) {
        let mut now = self.now();
        let Now { lines, weather, dice, injected } = &mut *now;
        let behind = weather.behind(dice);
        let line = lines.get(behind).or_else(|| lines.last()).cloned().unwrap_or_default();
        if behind > 0 {
            *injected.entry("answers of a node that is behind").or_default() += 1;
        }
        let trouble = weather.trouble(methods, dice);
        if let Some(trouble) = trouble {
            *injected.entry(trouble.name()).or_default() += 1;
        }
        (view::View { line }, trouble, dice.fork())
    }

    /// What the node says to the call or, in order, to the calls.
    async fn ask(&self, view: &view::View, calls: &Value, trouble: Option<Trouble>) -> Value {
        let one = async |call: &Value| {
            let method = call.get("method").and_then(Value::as_str).unwrap_or_default();
            let parameters = call.get("params").cloned().unwrap_or_default();
            let mut reply = match trouble.and_then(|trouble| trouble.lie(method)) {
                Some(lie) => lie,
                None => view.answer(&self.node, method, &parameters).await,
            };
            if let Some(fields) = reply.as_object_mut() {
                fields.insert("jsonrpc".to_owned(), json!("2.0"));
                fields.insert("id".to_owned(), call.get("id").cloned().unwrap_or_default());
            }
            reply
        };
        match calls.as_array() {
            None => one(calls).await,
            Some(calls) => {
                let mut replies = Vec::with_capacity(calls.len());
                for call in calls {
                    replies.push(one(call).await);
                }
                Value::Array(replies)
            }
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let calls: Value = serde_json::from_slice(&body).unwrap_or_default();
    let listed = calls.as_array().map_or(std::slice::from_ref(&calls), Vec::as_slice);
    let methods: Vec<_> = listed.iter().filter_map(|call| call.get("method")?.as_str()).collect();
    let (view, trouble, mut dice) = shared.draw(&methods);
    if let Some(response) = Trouble::before(trouble, &mut dice, shared.calm.subscribe()).await {
        return response;
    }
    let replies = shared.ask(&view, &calls, trouble).await;
    Trouble::after(trouble, &mut dice, &replies, listed)
}
