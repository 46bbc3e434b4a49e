//! What one requester cannot take away from another one.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Path as UrlPath, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use harness::scene::Scene;
use ipfs::CidVersion;
use task_board::{Submission, TaskId};

use crate::stage::{answers, reaches, result, stage, stop};

const DOCUMENT: &str = r#"{"status":"ok","value":144}"#;

/// A gateway that has the plain files of a folder, and never answers about some.
struct Gateway {
    root: String,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

#[derive(Clone)]
struct Serves {
    files: Arc<Mutex<HashMap<String, PathBuf>>>,
    folder: PathBuf,
}

impl Gateway {
    async fn start(folder: PathBuf) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let root = format!("http://{}/ipfs", listener.local_addr().unwrap());
        let serves = Serves { files: Arc::default(), folder };
        let router = Router::new()
            .route("/ipfs/{cid}", axum::routing::get(block).head(block))
            .with_state(serves);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { root, _task: tokio_util::task::AbortOnDropHandle::new(task) }
    }
}

async fn block(UrlPath(cid): UrlPath<String>, State(serves): State<Serves>) -> Response {
    let known = serves.files.lock().unwrap().get(&cid).cloned();
    let path = known.or_else(|| {
        let files = std::fs::read_dir(&serves.folder).unwrap().flatten();
        let mut named = files.filter(|file| file.path().is_file()).map(|file| {
            let path = file.path();
            (ipfs::cid_of_file(&path, CidVersion::V1).unwrap().to_string(), path)
        });
        let found = named.find(|(name, _)| *name == cid).map(|(_, path)| path);
        if let Some(path) = &found {
            serves.files.lock().unwrap().insert(cid.clone(), path.clone());
        }
        found
    });
    match path {
        Some(path) => {
            let kind = [(header::CONTENT_TYPE, "application/vnd.ipld.raw")];
            (StatusCode::OK, kind, std::fs::read(path).unwrap()).into_response()
        }
        // It looks for it, for ever.
        None => std::future::pending().await,
    }
}

/// A module that nobody has.
fn missing(n: u32) -> Submission {
    let cid = ipfs::cid_of_bytes(format!("nobody has {n}").as_bytes(), CidVersion::V1);
    Submission { kind: 1, module: Some(cid.to_bytes()), ..Submission::default() }
}

fn fib(scene: &Scene, n: u32) -> Submission {
    // Inputs that differ: none is in a cache.
    let input = format!(r#"{{"entry":"fib","args":[12],"n":{n}}}"#);
    scene.wasm("fib.wasm", Some(input.as_bytes())).unwrap()
}

/// How long a task takes from its submission to its result.
async fn takes(scene: &Scene, submission: &Submission) -> Duration {
    let began = Instant::now();
    let id = scene.submit_one(submission).await.unwrap();
    answers(scene, id, DOCUMENT).await;
    began.elapsed()
}

#[tokio::test]
async fn v1_content_that_a_silent_gateway_never_gives_keeps_nobody_waiting() {
    let scene = stage().await;
    let gateway = Gateway::start(scene.mirror()).await;
    let variables = [
        ("COORDINATOR_IPFS_ENDPOINT", gateway.root.as_str()),
        ("COORDINATOR_IPFS_IDLE_TIMEOUT", "1s"),
        ("COORDINATOR_IPFS_TOTAL_TIMEOUT", "3s"),
        ("COORDINATOR_CONTENT_DEADLINE", "5s"),
    ];
    let mut daemon = scene.coordinator_with(&variables).unwrap();
    takes(&scene, &fib(&scene, 0)).await;
    // Their deadline is in the year 3000.
    let hostile: Vec<_> =
        (0..90).map(|n| Submission { deadline: 32_503_680_000, ..missing(n) }).collect();
    let hostile = scene.submit(&hostile).await.unwrap();
    answers(&scene, scene.submit_one(&fib(&scene, 1)).await.unwrap(), DOCUMENT).await;
    // Also when they are there first, after a restart.
    daemon.kill_9().await.unwrap();
    daemon = scene.coordinator_with(&variables).unwrap();
    answers(&scene, scene.submit_one(&fib(&scene, 2)).await.unwrap(), DOCUMENT).await;
    // They do not last for ever.
    for id in [hostile[0], hostile[89]] {
        let rejected = r#"{"status":"rejected","code":"content_unavailable"}"#;
        answers(&scene, id, rejected).await;
    }
    stop(daemon).await;
}

#[tokio::test]
async fn v3_guests_that_sleep_do_not_keep_another_requester_waiting() {
    let scene = stage().await;
    let sleeper = scene.add("sleeper.wasm", &sleeper()).unwrap();
    let daemon = scene.coordinator_with(&[("COORDINATOR_CONCURRENCY", "2")]).unwrap();
    let honest = |n| {
        let submission = fib(&scene, n);
        let scene = &scene;
        async move {
            let began = Instant::now();
            let id = scene.submit_as(3, &submission).await.unwrap();
            answers(scene, id, DOCUMENT).await;
            began.elapsed()
        }
    };
    honest(0).await;
    let sleeps = Submission {
        kind: 1,
        module: Some(sleeper.to_bytes()),
        timeout_s: 300,
        ..Submission::default()
    };
    let sleeping = scene.submit(&vec![sleeps; 40]).await.unwrap();
    reaches(&scene, sleeping[0], "running").await;
    // Nobody waits for a guest that sleeps for five minutes.
    for n in 1..6 {
        honest(n).await;
    }
    let running = scene.counts().await.unwrap()["running"];
    assert!(running >= 1, "one of them goes on");
    stop(daemon).await;
}

/// A module that sleeps for as long as it may.
fn sleeper() -> Vec<u8> {
    let module = r#"(module
        (import "wasi_snapshot_preview1" "poll_oneoff"
            (func $poll (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "_start")
            ;; one subscription to the monotonic clock, in 290 s
            (i32.store (i32.const 16) (i32.const 1))
            (i64.store (i32.const 24) (i64.const 290000000000))
            (drop (call $poll (i32.const 0) (i32.const 128) (i32.const 1) (i32.const 256)))))"#;
    wat::parse_str(module).unwrap()
}

#[tokio::test]
async fn v3_run_time_that_is_used_up_is_a_rejection() {
    let scene = stage().await;
    let variables = [("COORDINATOR_QUOTA_RUN_TIME", "1s"), ("COORDINATOR_CONCURRENCY", "1")];
    let daemon = scene.coordinator_with(&variables).unwrap();
    let endless = Submission {
        entry: Some("loop".to_owned()),
        timeout_s: 2,
        fuel: 1_000_000_000_000,
        ..scene.wasm("loop.wasm", None).unwrap()
    };
    let ids: Vec<TaskId> = scene.submit(&vec![endless; 2]).await.unwrap();
    answers(&scene, ids[0], r#"{"status":"timed_out"}"#).await;
    answers(&scene, ids[1], r#"{"status":"rejected","code":"quota_exceeded"}"#).await;
    // What is paid for has no quota.
    let paid = Submission { fee: alloy::primitives::U256::from(1), ..fib(&scene, 1) };
    let paid = scene.submit_one(&paid).await.unwrap();
    assert_eq!(result(&scene, paid).await.document.unwrap(), DOCUMENT.as_bytes());
    stop(daemon).await;
}
