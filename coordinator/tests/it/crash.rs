//! D01 and D02: a coordinator that is killed in any state of a task goes on where it was; in the end there is exactly
//! one result, and every transaction of the publisher did something.

use std::{process::Stdio, time::Duration};

use alloy::providers::Provider as _;
use harness::{binary, scene::Scene, wait_for};
use ipfs::CidVersion;
use task_board::{Submission, TaskId};

use crate::stage::{PATIENCE, answers, reaches, samples, stage, stop, task};

const TRAPPED: &str = r#"{"status":"failed","code":"trap","trap":"unreachable"}"#;

fn trap(scene: &Scene) -> Submission {
    Submission { entry: Some("trap".to_owned()), ..scene.wasm("trap.wasm", None).unwrap() }
}

fn endless(scene: &Scene, timeout_s: u32) -> Submission {
    Submission {
        entry: Some("loop".to_owned()),
        timeout_s,
        ..scene.wasm("loop.wasm", None).unwrap()
    }
}

/// One result with this document, by one transaction, and a task that rests.
async fn has_one_result(scene: &Scene, id: TaskId, document: &str) {
    answers(scene, id, document).await;
    reaches(scene, id, "final").await;
    let logs = scene.logs(0).await.unwrap();
    let results: usize = logs.published.values().map(Vec::len).sum();
    let nonce = scene.board().provider().get_transaction_count(scene.publisher()).await.unwrap();
    assert!(nonce <= results as u64, "{nonce} transactions for {results} results");
    assert!(logs.skipped.is_empty());
}

#[tokio::test]
async fn a_task_that_nobody_had_seen_is_run_once() {
    let scene = stage().await;
    let daemon = scene.coordinator().unwrap();
    daemon.kill_9().await.unwrap();
    let id = scene.submit_one(&trap(&scene)).await.unwrap();
    let daemon = scene.coordinator().unwrap();
    has_one_result(&scene, id, TRAPPED).await;
    stop(daemon).await;
}

#[tokio::test]
async fn a_kill_while_fetching_loses_nothing() {
    let scene = stage().await;
    let daemon = scene.coordinator().unwrap();
    let bytes = std::fs::read(scene.mirror().join("trap.wasm")).unwrap();
    let late = [&bytes[..], &[0, 5, 4, b'l', b'a', b't', b'e']].concat(); // a custom section
    let submission = Submission {
        module: Some(ipfs::cid_of_bytes(&late, CidVersion::V1).to_bytes()),
        ..trap(&scene)
    };
    let id = scene.submit_one(&submission).await.unwrap();
    reaches(&scene, id, "fetching").await;
    daemon.kill_9().await.unwrap();
    scene.add("late.wasm", &late).unwrap();
    let daemon = scene.coordinator().unwrap();
    has_one_result(&scene, id, TRAPPED).await;
    stop(daemon).await;
}

#[tokio::test]
async fn a_kill_while_a_task_waits_for_a_place_loses_nothing() {
    let scene = stage().await;
    let one = [("COORDINATOR_CONCURRENCY", "1")];
    let daemon = scene.coordinator_with(&one).unwrap();
    let first = scene.submit_one(&endless(&scene, 3)).await.unwrap();
    reaches(&scene, first, "running").await;
    let second = scene.submit_one(&trap(&scene)).await.unwrap();
    reaches(&scene, second, "ready").await;
    daemon.kill_9().await.unwrap();
    let daemon = scene.coordinator_with(&one).unwrap();
    has_one_result(&scene, first, r#"{"status":"timed_out"}"#).await;
    has_one_result(&scene, second, TRAPPED).await;
    stop(daemon).await;
}

#[tokio::test]
async fn a_kill_while_a_guest_runs_counts_as_no_attempt_of_its_own() {
    let scene = stage().await;
    let daemon = scene.coordinator().unwrap();
    let id = scene.submit_one(&endless(&scene, 2)).await.unwrap();
    reaches(&scene, id, "running").await;
    daemon.kill_9().await.unwrap();
    let daemon = scene.coordinator().unwrap();
    has_one_result(&scene, id, r#"{"status":"timed_out"}"#).await;
    assert_eq!(task(&scene, id).await.unwrap()["attempts"], 1);
    stop(daemon).await;
}

#[tokio::test]
async fn a_kill_before_a_long_result_is_stored_loses_nothing() {
    let scene = stage().await;
    // Where documents would be stored there is a file.
    let blocks = scene.mirror().join("blocks");
    std::fs::write(&blocks, "in the way").unwrap();
    let text = "long ".repeat(100);
    let module = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write"
                (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\f4\01\00\00")
            (data (i32.const 16) "{text}")
            (func (export "_start")
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    );
    scene.add("long.wasm", &wat::parse_str(module).unwrap()).unwrap();
    let daemon = scene.coordinator().unwrap();
    let id = scene.submit_one(&scene.wasm("long.wasm", None).unwrap()).await.unwrap();
    reaches(&scene, id, "finished").await;
    daemon.kill_9().await.unwrap();
    std::fs::remove_file(&blocks).unwrap();
    let daemon = scene.coordinator().unwrap();
    let document = format!(r#"{{"status":"ok","value":{{"text":"{text}"}}}}"#);
    has_one_result(&scene, id, &document).await;
    let stored = blocks.join(ipfs::raw_cid(document.as_bytes()).to_string());
    assert_eq!(std::fs::read_to_string(stored).unwrap(), document);
    stop(daemon).await;
}

#[tokio::test]
async fn a_kill_while_a_transaction_waits_to_be_mined_sends_no_second_one() {
    let scene = stage().await;
    let daemon = scene.coordinator().unwrap();
    let id = scene.submit_one(&endless(&scene, 1)).await.unwrap();
    scene.anvil().set_automine(false).await;
    wait_for("the transaction", PATIENCE, async || {
        let pending = scene.anvil().rpc("txpool_status", serde_json::json!([])).await;
        if pending["pending"] == "0x1" { Ok(()) } else { Err(pending.to_string()) }
    })
    .await;
    assert_eq!(task(&scene, id).await.unwrap()["state"], "publishing");
    daemon.kill_9().await.unwrap();
    let daemon = scene.coordinator().unwrap();
    reaches(&scene, id, "publishing").await;
    wait_for("a round of the publisher", PATIENCE, async || {
        scene.get("/readyz").await.map(|_| ()).ok_or_else(|| daemon.tail())
    })
    .await;
    scene.anvil().set_automine(true).await;
    scene.anvil().mine(1).await;
    has_one_result(&scene, id, r#"{"status":"timed_out"}"#).await;
    stop(daemon).await;
}

#[tokio::test]
async fn a_kill_before_a_result_is_final_publishes_nothing_again() {
    let scene = stage().await;
    let deep = [("COORDINATOR_CONFIRMATIONS", "3")];
    let daemon = scene.coordinator_with(&deep).unwrap();
    let id = scene.submit_one(&trap(&scene)).await.unwrap();
    scene.anvil().mine(3).await;
    reaches(&scene, id, "mined").await;
    daemon.kill_9().await.unwrap();
    let daemon = scene.coordinator_with(&deep).unwrap();
    assert_eq!(reaches(&scene, id, "mined").await["state"], "mined");
    scene.anvil().mine(3).await;
    has_one_result(&scene, id, TRAPPED).await;
    stop(daemon).await;
}

#[tokio::test]
async fn nothing_is_lost_doubled_or_leaked_when_it_is_killed_again_and_again() {
    let root = samples().parent().unwrap().parent().unwrap();
    let output = tokio::process::Command::new(binary("chaos").unwrap())
        .args(["--tasks", "20", "--kills", "8", "--seed", "11"])
        .current_dir(root)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(240), output).await.unwrap().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    let wanted = "tasks=20 kills=8 lost=0 doubled=0 leaked=0 seed=11";
    assert_eq!(out.lines().last(), Some(wanted), "{err}");
    assert!(output.status.success());
}
