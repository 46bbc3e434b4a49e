//! How the daemon starts and stops.

use std::time::Duration;

use harness::Daemon;
use task_board::{Submission, TaskId};

use crate::stage::{PATIENCE, client, listens, reaches, said, samples, stage, stop, task};

#[tokio::test]
async fn a_second_coordinator_on_the_same_data_is_refused() {
    let scene = stage().await;
    let mut first = scene.coordinator().unwrap();
    listens(&scene, &mut first).await;
    let mut second = scene.coordinator_with(&[("COORDINATOR_LISTEN", "127.0.0.1:0")]).unwrap();
    let status = harness::wait_for("the second to end", PATIENCE, async || {
        second.ended().unwrap().ok_or_else(|| second.tail())
    })
    .await;
    assert!(!status.success());
    assert!(second.tail().contains("another coordinator works on"), "{}", second.tail());
    assert!(first.ended().unwrap().is_none());
    stop(first).await;
}

#[tokio::test]
async fn a_stop_waits_for_no_guest_and_leaves_no_process() {
    let scene = stage().await;
    let daemon = scene.coordinator().unwrap();
    let endless = Submission {
        entry: Some("loop".to_owned()),
        timeout_s: 60,
        ..scene.wasm("loop.wasm", None).unwrap()
    };
    let id = scene.submit_one(&endless).await.unwrap();
    reaches(&scene, id, "running").await;
    let pid = daemon.pid().unwrap();
    let below = harness::wait_for("the guest's process", PATIENCE, async || {
        let below = descendants(pid);
        if below.len() >= 2 { Ok(below) } else { Err(format!("{below:?}")) }
    })
    .await;
    let took = daemon.stop(Duration::from_secs(10)).await.unwrap();
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    let left: Vec<_> = below.into_iter().filter(|pid| is_alive(*pid)).collect();
    assert!(left.is_empty(), "{left:?} still live");
}

#[tokio::test]
async fn after_a_kill_no_process_stays() {
    let scene = stage().await;
    let daemon = scene.coordinator().unwrap();
    let endless = Submission {
        entry: Some("loop".to_owned()),
        timeout_s: 60,
        ..scene.wasm("loop.wasm", None).unwrap()
    };
    let id = scene.submit_one(&endless).await.unwrap();
    reaches(&scene, id, "running").await;
    let below = harness::wait_for("the guest's process", PATIENCE, async || {
        let below = descendants(daemon.pid().unwrap());
        if below.len() >= 2 { Ok(below) } else { Err(format!("{below:?}")) }
    })
    .await;
    daemon.kill_9().await.unwrap();
    harness::wait_for("its processes to end", PATIENCE, async || {
        let left: Vec<_> = below.iter().filter(|pid| is_alive(**pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_wrong_setting_stops_the_start_and_is_named() {
    let scene = stage().await;
    let mut variables = scene.environment();
    variables.insert("COORDINATOR_CONCURRENCY".to_owned(), "many".to_owned());
    variables.insert("COORDINATOR_RUNTIME".to_owned(), "docker".to_owned());
    variables.insert("COORDINATOR_CONCURENCY".to_owned(), "2".to_owned());
    let mut daemon = Daemon::start(&variables, scene.folder()).unwrap();
    let status = harness::wait_for("it to end", PATIENCE, async || {
        daemon.ended().unwrap().ok_or_else(|| daemon.tail())
    })
    .await;
    assert_eq!(status.code(), Some(2));
    for word in [
        "COORDINATOR_CONCURRENCY",
        "many",
        "COORDINATOR_RUNTIME",
        "docker",
        "COORDINATOR_CONCURENCY",
    ] {
        assert!(daemon.tail().contains(word), "{word} is not in:\n{}", daemon.tail());
    }
}

/// Everything that descends from a process.
fn descendants(of: u32) -> Vec<u32> {
    let mut found = vec![of];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children =
                std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    found.split_off(1)
}

/// Whether a process is there and no zombie.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, fields)| !fields.trim_start().starts_with(['Z', 'X']))
}

#[tokio::test]
async fn tasks_of_a_domain_that_the_key_may_not_answer_are_left_alone() {
    let scene = stage().await;
    let publisher = scene.publisher().to_string();
    let words = ["deploy", "--domain", "second", "--coordinator", &publisher];
    let contract = said(&client(&scene, &[]), &words).await;
    let there = [("COORDINATOR_CONTRACT", contract.as_str())];
    let client = client(&scene, &there);
    let mut daemon = scene.coordinator_with(&there).unwrap();
    listens(&scene, &mut daemon).await;
    let module = samples().join("fib.wasm").display().to_string();
    let submit = |domain: &'static str| {
        let (client, module) = (client.clone(), module.clone());
        async move {
            let words = ["submit", &module, "--entry", "fib", "--args", "[12]", "--domain", domain];
            said(&client, &words).await.parse::<TaskId>().unwrap()
        }
    };
    let (others, ours) = (submit("0").await, submit("1").await);
    reaches(&scene, ours, "final").await;
    assert_eq!(task(&scene, others).await, Err("not served".to_owned()));
    stop(daemon).await;
}
