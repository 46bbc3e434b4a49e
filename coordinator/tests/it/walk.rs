//! The README's walk, step by step, with the commands that it names.

use std::path::Path;

use harness::{Gateway, wait_for};
use task_board::TaskId;

use crate::stage::{
    PATIENCE, answers, client, listens, reaches, run, said, samples, stage, stop, task,
};

const DOCUMENT: &str = r#"{"status":"ok","value":144}"#;
const STEPS: [&str; 9] =
    ["seen", "included", "fetched", "queued", "started", "finished", "sent", "mined", "final"];

fn sample(name: &str) -> String {
    samples().join(name).display().to_string()
}

#[tokio::test]
async fn a_task_is_submitted_run_published_read_back_and_verified() {
    // deploy: the stage has had `coordinator deploy` do it
    let scene = stage().await;
    let client = client(&scene, &[]);
    let mut daemon = scene.coordinator().unwrap();
    listens(&scene, &mut daemon).await;

    // submit
    let module = sample("fib.wasm");
    let words = ["submit", &module, "--entry", "fib", "--args", "[12]", "--wait"];
    let id: TaskId = said(&client, &words).await.parse().unwrap();

    // run and publish: the timeline has every step, in order
    let task = reaches(&scene, id, "final").await;
    let steps: Vec<_> = task["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["step"].as_str().unwrap())
        .collect();
    let mut places = STEPS.iter().map(|wanted| steps.iter().position(|step| step == wanted));
    let mut last = 0;
    assert!(
        places.all(|place| place.is_some_and(|place| std::mem::replace(&mut last, place) <= place)),
        "{steps:?}"
    );
    let record = &task["result"]["record"];
    assert!(record["fuel_used"].as_u64().unwrap() > 0, "{record}");
    assert!(record["limits"]["timeout_ms"].as_u64().unwrap() > 0, "{record}");

    // read back, from the chain alone
    assert_eq!(answers(&scene, id, DOCUMENT).await.publisher, scene.publisher());
    let id = id.to_string();
    assert_eq!(said(&client, &["result", &id]).await, DOCUMENT);
    assert!(said(&client, &["status", &id]).await.contains("final"));

    // verify, without the coordinator
    stop(daemon).await;
    let verdict: serde_json::Value =
        serde_json::from_str(&said(&client, &["verify", &id, "--json"]).await).unwrap();
    assert_eq!(verdict["verified"], true, "{verdict}");
    assert_eq!(verdict["published"], verdict["computed"]);
    assert_eq!(verdict["engine"]["chain"], verdict["engine"]["local"]);
}

#[tokio::test]
async fn a_wait_for_a_task_that_fails_does_not_end_well() {
    let scene = stage().await;
    let client = client(&scene, &[]);
    let daemon = scene.coordinator().unwrap();
    let module = sample("trap.wasm");
    let output = run(&client, &["submit", &module, "--entry", "trap", "--wait"]).await;
    assert!(!output.status.success());
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(
        printed.contains(r#"{"status":"failed","code":"trap","trap":"unreachable"}"#),
        "{printed}"
    );
    stop(daemon).await;
}

#[tokio::test]
async fn content_travels_through_a_gateway_and_its_rpc() {
    let scene = stage().await;
    let gateway = Gateway::start(None).await;
    let (root, api) = (gateway.root(), gateway.api());
    let empty = scene.folder().join("empty").display().to_string();
    let content = [
        ("COORDINATOR_IPFS_ENDPOINT", root.as_str()),
        ("COORDINATOR_IPFS_API", api.as_str()),
        ("COORDINATOR_IPFS_MIRROR", empty.as_str()),
    ];
    let client = client(&scene, &content);
    let daemon = scene.coordinator_with(&content).unwrap();

    let module = sample("fib.wasm");
    let words = ["submit", &module, "--entry", "fib", "--args", "[12]"];
    let id: TaskId = said(&client, &words).await.parse().unwrap();
    answers(&scene, id, DOCUMENT).await;

    // A long result is a block of the gateway's afterwards.
    let long = format!("{{\"text\":\"{}\"}}", "long ".repeat(100));
    let module = scene.folder().join("long.wasm");
    std::fs::write(&module, printing(&long)).unwrap();
    let id: TaskId = said(&client, &["submit", module.to_str().unwrap()]).await.parse().unwrap();
    let document = format!(r#"{{"status":"ok","value":{long}}}"#);
    assert!(answers(&scene, id, &document).await.document.is_none());
    assert_eq!(said(&client, &["result", &id.to_string()]).await, document);
    assert!(!Path::new(&empty).join("blocks").exists(), "something was added to the mirror");
    stop(daemon).await;
}

/// A WASI command that prints a text without quotes' escapes of its own.
fn printing(text: &str) -> Vec<u8> {
    let length: String = u32::try_from(text.len())
        .unwrap()
        .to_le_bytes()
        .map(|byte| format!("\\{byte:02x}"))
        .concat();
    let data: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    wat::parse_str(format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write"
                (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00{length}")
            (data (i32.const 16) "{data}")
            (func (export "_start")
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    ))
    .unwrap()
}

#[tokio::test]
async fn without_a_chain_the_samples_are_run_and_served() {
    let scene = stage().await;
    let mut variables = scene.environment();
    for name in ["COORDINATOR_RPC_URL", "COORDINATOR_CONTRACT", "COORDINATOR_KEY"] {
        variables.remove(name);
    }
    let daemon = harness::Daemon::start(&variables, scene.folder()).unwrap();
    for (local, value) in [(1, 144), (2, 119), (3, 42)] {
        wait_for("a sample's result", PATIENCE, async || {
            let path = format!("/api/v1/tasks/local:{local}");
            let task = scene.api(&path).await.unwrap_or_default().ok_or("not served")?;
            if task["state"] == "final" && task["result"]["document"]["value"] == value {
                return Ok(());
            }
            Err(task.to_string())
        })
        .await;
    }
    stop(daemon).await;
}

#[tokio::test]
async fn without_a_key_tasks_are_run_and_nothing_is_published() {
    let scene = stage().await;
    let mut variables = scene.environment();
    variables.remove("COORDINATOR_KEY");
    let daemon = harness::Daemon::start(&variables, scene.folder()).unwrap();
    let input = br#"{"entry":"fib","args":[12]}"#;
    let id = scene.submit_one(&scene.wasm("fib.wasm", Some(input)).unwrap()).await.unwrap();
    let found = reaches(&scene, id, "final").await;
    assert_eq!(found["result"]["document"]["value"], 144, "{found}");
    assert!(found["publication"].is_null(), "{found}");
    assert_eq!(scene.result(id).await.unwrap(), None);
    stop(daemon).await;

    // With the key it is not published either: what was retired stays so, and new tasks are.
    let daemon = scene.coordinator().unwrap();
    let next = scene.submit_one(&scene.wasm("fib.wasm", Some(input)).unwrap()).await.unwrap();
    answers(&scene, next, DOCUMENT).await;
    assert_eq!(task(&scene, id).await.unwrap()["state"], "final");
    stop(daemon).await;
}
