//! A fault of this machine, or of those who are asked for content, is never a verdict about a task.

use std::{
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    time::Duration,
};

use alloy::primitives::U256;
use harness::{Gateway, binary, scene::Scene, wait_for};
use serde_json::Value;
use task_board::{Submission, TaskId};

use crate::stage::{PATIENCE, answers, stage, stop, task};

const DOCUMENT: &str = r#"{"status":"ok","value":144}"#;

fn fib(scene: &Scene, n: u32, fee: u64) -> Submission {
    let input = format!(r#"{{"entry":"fib","args":[12],"n":{n}}}"#);
    let fib = scene.wasm("fib.wasm", Some(input.as_bytes())).unwrap();
    Submission { fee: U256::from(fee), ..fib }
}

/// What `/readyz` says, ready or not.
async fn readiness(scene: &Scene) -> Option<Value> {
    let root = &scene.client_environment()["COORDINATOR_API"];
    let answer = reqwest::get(format!("{root}/readyz")).await.ok()?;
    serde_json::from_str(&answer.text().await.ok()?).ok()
}

async fn says(scene: &Scene, part: &str) {
    wait_for(&format!("readiness to name {part}"), PATIENCE, async || {
        let said = readiness(scene).await.ok_or("nobody listens")?;
        let reasons = said["reasons"].as_array().cloned().unwrap_or_default();
        if reasons.iter().any(|reason| reason["part"] == part) {
            Ok(())
        } else {
            Err(said.to_string())
        }
    })
    .await;
}

async fn is_ready(scene: &Scene) {
    wait_for("the coordinator to be ready", PATIENCE, async || {
        let said = readiness(scene).await.ok_or("nobody listens")?;
        if said["status"] == "ready" { Ok(()) } else { Err(said.to_string()) }
    })
    .await;
}

/// Looks at a task for a while: nobody says anything about its end.
async fn stays_open(scene: &Scene, id: TaskId, time: Duration) {
    let until = std::time::Instant::now() + time;
    while std::time::Instant::now() < until {
        let task = task(scene, id).await;
        if let Ok(task) = task {
            assert_eq!(task["outcome"], Value::Null, "{task}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn put(executor: &Path, broken: bool) {
    let new = executor.with_extension("new");
    if broken {
        std::fs::write(&new, "#!/bin/sh\nexit 3\n").unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    } else {
        symlink(binary("executor").unwrap(), &new).unwrap();
    }
    std::fs::rename(new, executor).unwrap();
}

/// The process that the coordinator started: its launcher.
fn launcher(coordinator: u32) -> Option<i32> {
    let children =
        std::fs::read_to_string(format!("/proc/{coordinator}/task/{coordinator}/children"));
    let threads = std::fs::read_dir(format!("/proc/{coordinator}/task")).ok()?.flatten();
    let of_threads = threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .collect::<String>();
    format!("{} {of_threads}", children.unwrap_or_default())
        .split_whitespace()
        .find_map(|pid| pid.parse().ok())
}

#[tokio::test]
async fn v6_a_runtime_that_fails_for_a_while_is_no_verdict() {
    let scene = stage().await;
    let executor = scene.folder().join("executor");
    put(&executor, false);
    let path = executor.display().to_string();
    let variables = [("COORDINATOR_EXECUTOR", path.as_str()), ("COORDINATOR_RETRIES", "1")];
    let daemon = scene.coordinator_with(&variables).unwrap();
    answers(&scene, scene.submit_one(&fib(&scene, 0, 0)).await.unwrap(), DOCUMENT).await;

    put(&executor, true);
    let launcher = launcher(daemon.pid().unwrap()).expect("a launcher");
    let pid = rustix::process::Pid::from_raw(launcher).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let (free, paid) = (fib(&scene, 1, 0), fib(&scene, 2, 5));
    let ids = scene.submit(&[free, paid]).await.unwrap();
    says(&scene, "runtime").await;
    stays_open(&scene, ids[0], Duration::from_secs(8)).await;
    stays_open(&scene, ids[1], Duration::ZERO).await;

    put(&executor, false);
    for id in ids {
        answers(&scene, id, DOCUMENT).await;
    }
    is_ready(&scene).await;
    stop(daemon).await;
}

#[tokio::test]
async fn i1_a_cache_that_cannot_be_written_is_no_verdict() {
    let scene = stage().await;
    let variables = [("COORDINATOR_CONTENT_DEADLINE", "1s")];
    let daemon = scene.coordinator_with(&variables).unwrap();
    answers(&scene, scene.submit_one(&fib(&scene, 0, 0)).await.unwrap(), DOCUMENT).await;

    let cache = scene.data().join("content");
    let aside = scene.data().join("aside");
    std::fs::rename(&cache, &aside).unwrap();
    std::fs::write(&cache, "a file where the folder was").unwrap();
    let ids = scene.submit(&[fib(&scene, 1, 0), fib(&scene, 2, 5)]).await.unwrap();
    says(&scene, "content").await;
    stays_open(&scene, ids[0], Duration::from_secs(4)).await;
    stays_open(&scene, ids[1], Duration::ZERO).await;

    std::fs::remove_file(&cache).unwrap();
    std::fs::rename(&aside, &cache).unwrap();
    for id in ids {
        answers(&scene, id, DOCUMENT).await;
    }
    is_ready(&scene).await;
    stop(daemon).await;
}

#[tokio::test]
async fn i1_a_gateway_that_is_down_or_none_is_no_verdict() {
    let scene = stage().await;
    // What it has to have is there before it starts.
    let submission = fib(&scene, 1, 0);
    // Something answers there, but it is no gateway.
    let wrong = Gateway::start(Some(&scene.mirror())).await;
    let root = wrong.api();
    let variables = [
        ("COORDINATOR_IPFS_ENDPOINT", "http://127.0.0.1:9/ipfs".to_owned()),
        ("COORDINATOR_IPFS_ENDPOINT", format!("{root}/nothing/ipfs")),
    ];
    for variable in variables {
        let daemon = scene
            .coordinator_with(&[
                (variable.0, variable.1.as_str()),
                ("COORDINATOR_CONTENT_DEADLINE", "1s"),
            ])
            .unwrap();
        let id = scene.submit_one(&submission).await.unwrap();
        says(&scene, "content").await;
        stays_open(&scene, id, Duration::from_secs(4)).await;
        stop(daemon).await;
    }
    // With one that is right they go on.
    let right = wrong.root();
    let daemon = scene.coordinator_with(&[("COORDINATOR_IPFS_ENDPOINT", right.as_str())]).unwrap();
    for n in 1..=2 {
        answers(&scene, TaskId::new(n), DOCUMENT).await;
    }
    stop(daemon).await;
}

/// Stops the launcher of a coordinator as SIGSTOP does.
fn suspend(daemon: &harness::Daemon) {
    let launcher = launcher(daemon.pid().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(launcher).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
}

#[tokio::test]
async fn x5_a_launcher_that_is_stopped_is_told_and_holds_up_no_stop() {
    let scene = stage().await;
    let daemon = scene.coordinator().unwrap();
    answers(&scene, scene.submit_one(&fib(&scene, 0, 0)).await.unwrap(), DOCUMENT).await;
    suspend(&daemon);
    says(&scene, "runtime").await;
    daemon.stop(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn x5_a_launcher_that_is_stopped_is_replaced_and_no_task_is_the_worse_for_it() {
    let scene = stage().await;
    let daemon = scene.coordinator().unwrap();
    answers(&scene, scene.submit_one(&fib(&scene, 0, 0)).await.unwrap(), DOCUMENT).await;
    suspend(&daemon);
    let id = scene.submit_one(&fib(&scene, 1, 5)).await.unwrap();
    answers(&scene, id, DOCUMENT).await;
    is_ready(&scene).await;
    stop(daemon).await;
}
