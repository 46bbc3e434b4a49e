//! One requester's honest tasks beside another's that take as much as they get and pay nothing.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use alloy::primitives::U256;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use harness::{
    Gateway,
    scene::{Fault, Scene},
};
use ipfs::CidVersion;
use task_board::Submission;
use tokio::{net::TcpListener, task::JoinHandle};

/// Honest tasks, one after the other.
const HONEST: usize = 200;
/// Seconds since 1970 in the year 3000.
const FAR_AWAY: u64 = 32_503_680_000;
/// The account that the hostile tasks come from.
const HOSTILE: usize = 3;

/// What hostile tasks hold.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hold {
    /// Places for fetching: their content never comes.
    Fetches,
    /// Places for running: they run as long as they may.
    Runs,
}

/// A gateway that says nothing when it is asked for some CIDs, and is a real one otherwise.
struct Silent {
    root: String,
    serving: JoinHandle<()>,
    _behind: Gateway,
}

struct Shared {
    behind: String,
    http: reqwest::Client,
    silent: Mutex<BTreeSet<String>>,
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Silent {
    async fn start(scene: &Scene, silent: BTreeSet<String>) -> Result<Self, Fault> {
        let behind = Gateway::start(Some(&scene.mirror())).await;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let root = format!("http://{}/ipfs", listener.local_addr()?);
        let shared = Arc::new(Shared {
            behind: behind.api(),
            http: reqwest::Client::new(),
            silent: Mutex::new(silent),
        });
        let router = Router::new().fallback(answer).with_state(shared);
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { root, serving, _behind: behind })
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let is_silent = {
        let silent = shared.silent.lock().unwrap_or_else(PoisonError::into_inner);
        let cid = path.trim_start_matches("/ipfs/").split(['?', '/']).next().unwrap_or_default();
        silent.contains(cid)
    };
    if is_silent {
        std::future::pending::<()>().await;
    }
    let mut sent = shared.http.get(format!("{}{path}", shared.behind));
    for (name, value) in request.headers() {
        if name != axum::http::header::HOST {
            sent = sent.header(name, value);
        }
    }
    let Ok(got) = sent.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let (status, headers) = (got.status(), got.headers().clone());
    let mut response = Response::new(Body::from(got.bytes().await.unwrap_or_default()));
    *response.status_mut() = status;
    for (name, value) in &headers {
        if name != axum::http::header::TRANSFER_ENCODING {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

/// Times from the event of an honest task to its result on chain, beside so many hostile ones.
pub(crate) async fn latencies(hostile: usize, hold: Hold) -> Result<Vec<Duration>, Fault> {
    let scene = crate::scene().await?;
    let mut silent = BTreeSet::new();
    let mut submissions = Vec::new();
    for number in 0..hostile {
        submissions.push(match hold {
            Hold::Fetches => {
                let bytes = format!("nobody has this {number}");
                let cid = ipfs::cid_of_bytes(bytes.as_bytes(), CidVersion::V1);
                silent.insert(cid.to_string());
                Submission {
                    kind: 1,
                    module: Some(cid.to_bytes()),
                    deadline: FAR_AWAY,
                    ..Submission::default()
                }
            }
            Hold::Runs => Submission {
                entry: Some("loop".to_owned()),
                timeout_s: 30,
                fuel: 1_000_000_000_000,
                ..scene.wasm("loop.wasm", None)?
            },
        });
    }
    // Everything that honest tasks need has to be in the mirror before the gateway reads it.
    let honest = (0..HONEST + 10).map(|number| crate::fib(&scene, number));
    let honest = honest.collect::<Result<Vec<_>, _>>()?;
    let gateway = Silent::start(&scene, silent).await?;
    submit_as(&scene, HOSTILE, &submissions).await?;
    let daemon =
        crate::coordinator(&scene, &[("COORDINATOR_IPFS_ENDPOINT", gateway.root.as_str())]).await?;
    if hostile > 0 {
        // They are to hold what they can before the first honest one comes.
        let began = Instant::now();
        while scene.counts().await.unwrap_or_default().values().sum::<u64>() < hostile as u64 {
            if began.elapsed() > crate::PATIENCE {
                return Err("the hostile tasks are not read".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let mut latencies = Vec::with_capacity(HONEST);
    for (number, submission) in honest.iter().enumerate() {
        let id = scene.submit_one(submission).await?;
        let began = Instant::now();
        let published = crate::published(&scene, id).await;
        if number >= 10 || published.is_err() {
            latencies.push(began.elapsed());
        }
        if let Err(fault) = published {
            // That is a measurement too; the others would say the same.
            eprintln!("given up: {fault}");
            break;
        }
    }
    daemon.stop(Duration::from_secs(10)).await?;
    Ok(latencies)
}

/// Submits tasks as one of Anvil's accounts.
async fn submit_as(scene: &Scene, account: usize, submissions: &[Submission]) -> Result<(), Fault> {
    for part in submissions.chunks(200) {
        let requests = part.iter().map(Submission::encode).collect::<Result<Vec<_>, _>>()?;
        let call = scene.board().submitBatch(requests).value(U256::ZERO);
        let sent = call.from(scene.anvil().address(account)).send().await?;
        scene.mined(*sent.tx_hash()).await?;
    }
    Ok(())
}
