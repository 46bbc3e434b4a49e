use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use coordinator::{
    api::{Api, Bounds, Readiness, Tokens},
    config::Secret,
    health::Health,
    metrics::Metrics,
    work::{LimitPolicy, Work},
};
use executor_protocol::{DEFAULT_LIMITS, Status};
use reqwest::StatusCode;
use serde_json::Value;
use store::{ResultRow, Store};
use task::{Answer, BlockRef, Event, Hex, Identity, Kind, LocalId, Request, Submission, TaskId};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::folder;

const TOKEN: &str = "a-token-of-some-length";
const DOCUMENT: &str = r#"{"status":"ok","value":[1.0e+2,18446744073709551616]}"#;

/// An API over a store of its own; its runtime's executor is not there.
struct Served {
    root: String,
    store: Store,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<Result<(), std::io::Error>>,
    _folder: tempfile::TempDir,
}

impl Served {
    async fn start(tokens: &[Secret]) -> Self {
        Self::bounded(tokens, Bounds::default()).await
    }

    async fn bounded(tokens: &[Secret], bounds: Bounds) -> Self {
        static METRICS: OnceLock<Metrics> = OnceLock::new();
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = folder();
        let store = Store::open(&folder.path().join("store.sqlite")).await.unwrap();
        let metrics = METRICS.get_or_init(|| Metrics::install().unwrap()).clone();
        let readiness = Readiness {
            work: work(folder.path()).await,
            alarms: chain::Alarms::default(),
            health: Health::default(),
            prices: coordinator::price::Prices::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let root = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let tokens = Tokens::new(tokens);
        let api = Api::new(store.clone(), metrics, readiness, tokens).bounded(bounds);
        let ended = tokio::spawn(api.serve(listener, stop.clone()));
        Self { root, store, stop, ended, _folder: folder }
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = reqwest::get(format!("{}{path}", self.root)).await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    async fn end(self) {
        self.stop.cancel();
        self.ended.await.unwrap().unwrap();
        self.store.close().await;
    }
}

async fn work(folder: &Path) -> Arc<Work> {
    let content = ipfs::Store::open(ipfs::Options::new(folder.join("content"))).await.unwrap();
    let launcher =
        job::launcher::Launcher::new(job::launcher::Options::new(folder.join("no-executor")));
    let options =
        job::process::Options { cache_dir: folder.join("compiled"), cache_bytes: 1 << 20 };
    let runtime = job::process::Process::open(launcher.clone(), options).await.unwrap();
    let limits =
        LimitPolicy { defaults: DEFAULT_LIMITS, maxima: DEFAULT_LIMITS, input_bytes: 1 << 20 };
    Arc::new(Work::new(content, launcher, Arc::new(runtime), limits))
}

fn block(number: u64) -> BlockRef {
    BlockRef { number, hash: Hex([7; 32]) }
}

/// Inserts a task and applies events to it, a second apart.
async fn insert(store: &Store, sequence: u64, payload: u8, events: &[Event]) -> LocalId {
    let request = Request {
        kind: Kind::Wasm,
        module: Some("QmModule".to_owned()),
        input: None,
        entry: Some("fib".to_owned()),
        timeout_s: Some(5),
        memory_mib: None,
        fuel: None,
        deadline_at: None,
        fee_wei: u128::MAX,
        callback_gas: 0,
        environment: Vec::new(),
    };
    let identity = Identity {
        chain_id: 31_337,
        contract: Hex([1; 20]),
        task_id: TaskId::new(0, false, sequence),
        payload: Hex([payload; 32]),
    };
    let submission =
        Submission { requester: Hex([2; 20]), transaction: None, request: Ok(request) };
    let mut writer = store.begin().await.unwrap();
    let id = writer.insert_task(&identity, &submission, 1_000).await.unwrap().local_id;
    for (event, at_ms) in events.iter().zip((1..).map(|n| 1_000 + n * 1_001)) {
        let before = writer.load(id).await.unwrap();
        writer.apply(before, event, at_ms).await.unwrap();
    }
    writer.commit().await.unwrap();
    id
}

fn life() -> Vec<Event> {
    let answer = Answer { status: Status::Ok, digest: Hex([9; 32]), code: None };
    let transaction = Hex([3; 32]);
    vec![
        Event::Included { block: block(5) },
        Event::FetchStarted,
        Event::Fetched,
        Event::Started { attempt: 1 },
        Event::Finished { answer },
        Event::Queued,
        Event::Sent { transaction, nonce: 4 },
        Event::Mined { transaction, block: block(6) },
        Event::Finalized,
    ]
}

#[tokio::test]
async fn a_task_is_shown_with_its_document_byte_for_byte_and_its_timeline() {
    let served = Served::start(&[]).await;
    let id = insert(&served.store, 1, 1, &life()).await;
    let mut writer = served.store.begin().await.unwrap();
    let row = ResultRow {
        document: DOCUMENT.to_owned(),
        digest: "0x09".to_owned(),
        record: Some(r#"{"fuel_used":12}"#.to_owned()),
    };
    writer.save_result(id, &row, 9_000).await.unwrap();
    writer.commit().await.unwrap();

    let text = reqwest::get(format!("{}/api/v1/tasks/1", served.root)).await.unwrap();
    let text = text.text().await.unwrap();
    assert!(text.contains(&format!("\"document\":{DOCUMENT}")), "{text}");
    let task: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(task["id"], "1");
    assert_eq!(task["state"], "final");
    assert_eq!(task["request"]["fee_wei"], u128::MAX.to_string());
    assert_eq!(task["outcome"]["status"], "ok");
    assert_eq!(task["publication"]["block"]["number"], 6);
    assert_eq!(task["result"]["record"]["fuel_used"], 12);
    let steps: Vec<_> = task["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["step"].as_str().unwrap())
        .collect();
    assert_eq!(
        steps,
        [
            "seen",
            "included",
            "fetch_started",
            "fetched",
            "queued",
            "started",
            "finished",
            "publishing",
            "sent",
            "mined",
            "final"
        ]
    );
    assert_eq!(task["timeline"][0]["at"], "1970-01-01T00:00:01.000Z");
    assert_eq!(task["timeline"][1]["at"], "1970-01-01T00:00:02.001Z");
    assert_eq!(served.get("/api/v1/tasks/local:1").await.1["id"], "1");
    served.end().await;
}

#[tokio::test]
async fn of_tasks_with_one_id_the_one_that_stands_on_chain_is_shown() {
    let served = Served::start(&[]).await;
    let standing = insert(&served.store, 1, 1, &life()).await;
    let gone = [Event::Included { block: block(5) }, Event::Dropped { block: block(5) }];
    let gone = insert(&served.store, 1, 2, &gone).await;
    assert_eq!(served.get("/api/v1/tasks/1").await.1["local_id"], standing.0);
    let (_, page) = served.get("/api/v1/tasks?id=1").await;
    assert_eq!(page["tasks"].as_array().unwrap().len(), 2);
    assert_eq!(page["tasks"][0]["local_id"], gone.0);
    assert_eq!(page["tasks"][0]["state"], "withheld");
    served.end().await;
}

#[tokio::test]
async fn pages_follow_each_other_without_a_gap() {
    let served = Served::start(&[]).await;
    for sequence in 1..=5 {
        insert(&served.store, sequence, 1, &life()[..1]).await;
    }
    let mut path = "/api/v1/tasks?limit=2".to_owned();
    let mut seen = Vec::new();
    loop {
        let (status, page) = served.get(&path).await;
        assert_eq!(status, StatusCode::OK);
        let tasks = page["tasks"].as_array().unwrap();
        seen.extend(tasks.iter().map(|task| task["local_id"].as_i64().unwrap()));
        match page["next"].as_i64() {
            Some(next) => path = format!("/api/v1/tasks?limit=2&before={next}"),
            None => break,
        }
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
    let (_, page) = served.get("/api/v1/tasks?state=final").await;
    assert_eq!(page["tasks"], Value::Array(Vec::new()));
    served.end().await;
}

#[tokio::test]
async fn what_the_caller_got_wrong_is_told_with_a_code() {
    let served = Served::start(&[]).await;
    for (path, status, code) in [
        ("/api/v1/tasks/17", StatusCode::NOT_FOUND, "no_such_task"),
        ("/api/v1/tasks/local:17", StatusCode::NOT_FOUND, "no_such_task"),
        ("/api/v1/tasks/x", StatusCode::BAD_REQUEST, "bad_parameter"),
        ("/api/v1/tasks?limit=0", StatusCode::BAD_REQUEST, "bad_parameter"),
        ("/api/v1/tasks?limit=501", StatusCode::BAD_REQUEST, "bad_parameter"),
        ("/api/v1/tasks?state=done", StatusCode::BAD_REQUEST, "bad_parameter"),
        ("/api/v1/tasks?order=up", StatusCode::BAD_REQUEST, "bad_parameter"),
        ("/api/v1/nothing", StatusCode::NOT_FOUND, "no_such_route"),
    ] {
        let (got, body) = served.get(path).await;
        assert_eq!(got, status, "{path}: {body}");
        assert_eq!(body["error"]["code"], code, "{path}");
        assert!(!body["error"]["message"].as_str().unwrap().is_empty());
    }
    let client = reqwest::Client::new();
    let url = format!("{}/api/v1/tasks", served.root);
    let response = client.post(&url).body("x").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    let response = client.get(&url).body(vec![0; 100_000]).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    served.end().await;
}

#[tokio::test]
async fn with_tokens_only_the_probes_are_open() {
    let served = Served::start(&[Secret::new(TOKEN.to_owned())]).await;
    let client = reqwest::Client::new();
    let get = async |path: &str, token: Option<&str>| {
        let request = client.get(format!("{}{path}", served.root));
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        request.send().await.unwrap().status()
    };
    for path in ["/api/v1/tasks", "/api/v1/tasks/1", "/metrics"] {
        assert_eq!(get(path, None).await, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(get(path, Some("a-token-of-some-lengtH")).await, StatusCode::UNAUTHORIZED);
        assert_ne!(get(path, Some(TOKEN)).await, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(get("/healthz", None).await, StatusCode::OK);
    served.end().await;
}

#[tokio::test]
async fn readiness_names_the_part_that_is_not_ready() {
    let served = Served::start(&[]).await;
    let (status, body) = served.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let reasons = body["reasons"].as_array().unwrap();
    assert_eq!(reasons.len(), 1, "{body}");
    assert_eq!(reasons[0]["part"], "runtime");
    assert_eq!(reasons[0]["code"], "executor_unavailable");
    served.end().await;
}

#[tokio::test]
async fn metrics_count_tasks_by_state_and_name_routes_not_paths() {
    let served = Served::start(&[]).await;
    insert(&served.store, 1, 1, &life()).await;
    served.get("/api/v1/tasks/1").await;
    let text = reqwest::get(format!("{}/metrics", served.root)).await.unwrap();
    let text = text.text().await.unwrap();
    for line in [
        "wasm_exec_tasks{state=\"requested\"} 0",
        "wasm_exec_tasks{state=\"final\"} 1",
        "# TYPE wasm_exec_http_requests_total counter",
        "wasm_exec_http_requests_total{route=\"/api/v1/tasks/{id}\",status=\"2xx\"}",
        "wasm_exec_http_request_seconds_bucket{",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    served.end().await;
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_forbids_what_it_does_not_need() {
    let served = Served::start(&[]).await;
    let client = reqwest::Client::new();
    let url = format!("{}/healthz", served.root);
    let own = client.get(&url).header("x-request-id", "mine-1").send().await.unwrap();
    assert_eq!(own.headers()["x-request-id"], "mine-1");
    let given = client.get(&url).header("x-request-id", "not a word").send().await.unwrap();
    assert_eq!(given.headers()["x-request-id"].len(), 32);
    assert_eq!(given.headers()["x-content-type-options"], "nosniff");
    assert_eq!(given.headers()["cache-control"], "no-store");
    served.end().await;
}

#[tokio::test]
async fn v7_a_connection_that_sends_no_request_is_closed() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let bounds = Bounds { connections: 2, header_timeout: Duration::from_millis(200) };
    let served = Served::bounded(&[], bounds).await;
    let address = served.root.trim_start_matches("http://").to_owned();
    // More than there may be: nothing, half a head, and one request with nothing after it.
    let whole = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut idle = Vec::new();
    for (n, text) in
        ["", "GET /healthz HTTP/1.1\r\nhost:", whole].into_iter().cycle().take(12).enumerate()
    {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        idle.push((n, stream));
    }
    // They leave their places to others, who are answered.
    assert_eq!(served.get("/healthz").await.0, StatusCode::OK);
    for (n, stream) in &mut idle {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest));
        assert!(ended.await.is_ok(), "{n} is still open");
    }
    served.end().await;
}

#[tokio::test]
async fn v7_a_stop_does_not_wait_for_an_unfinished_request() {
    use tokio::io::AsyncWriteExt as _;
    let bounds = Bounds { connections: 2, header_timeout: Duration::from_secs(600) };
    let served = Served::bounded(&[], bounds).await;
    let address = served.root.trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost:").await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), served.end()).await.unwrap();
    drop(stream);
}
