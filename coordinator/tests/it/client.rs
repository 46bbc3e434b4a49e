//! Commands of a client: nothing is sent that cannot be answered, nothing is taken for done that was not.

use std::process::Stdio;

use alloy::{
    primitives::{Address, Bytes},
    providers::Provider as _,
};
use harness::command;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

use crate::stage::{PATIENCE, client, listens, reaches, run, said, samples, stage, stop};

fn sample(name: &str) -> String {
    samples().join(name).display().to_string()
}

#[tokio::test]
async fn v10_nothing_is_sent_to_what_is_no_task_board() {
    let scene = stage().await;
    let provider = scene.board().provider();
    let nobody = Address::repeat_byte(0x77);
    // Takes money and any call, and answers nothing; answers everything with zeros.
    let (sink, zeros) = (Address::repeat_byte(0x78), Address::repeat_byte(0x79));
    for (address, code) in [(sink, "0x00"), (zeros, "0x60206000f3")] {
        let code: Bytes = code.parse().unwrap();
        let set = json!([address, code]);
        provider.raw_request::<_, ()>("anvil_setCode".into(), set).await.unwrap();
    }
    let module = sample("fib.wasm");
    for address in [nobody, sink, zeros] {
        let address_text = address.to_string();
        let client = client(&scene, &[("COORDINATOR_CONTRACT", &address_text)]);
        let before = provider.get_transaction_count(scene.client()).await.unwrap();
        let submit = ["submit", &module, "--entry", "fib", "--args", "[12]", "--fee", "12345"];
        for words in [&submit[..], &["withdraw"]] {
            let output = run(&client, &[words, &["--json"]].concat()).await;
            assert_eq!(output.status.code(), Some(1), "{words:?}");
            assert!(output.stdout.is_empty());
            let error: Value = serde_json::from_slice(&output.stderr).unwrap();
            assert_eq!(error["error"]["code"], "not_a_task_board", "{error}");
        }
        assert_eq!(provider.get_balance(address).await.unwrap().to::<u64>(), 0);
        assert_eq!(provider.get_transaction_count(scene.client()).await.unwrap(), before);
    }
}

#[tokio::test]
async fn v11_what_any_coordinator_would_refuse_is_not_sent() {
    let scene = stage().await;
    let client = client(&scene, &[]);
    let provider = scene.board().provider();
    let module = sample("fib.wasm");
    let long = "x".repeat(2_000);
    for (more, code) in [
        (&["--timeout", "10h"][..], "limits_too_high"),
        (&["--memory", "100000"], "limits_too_high"),
        (&["--fuel", "18446744073709551615"], "limits_too_high"),
        (&["--deadline", "2001-01-01T00:00:00Z"], "deadline_passed"),
        (&["--callback-gas", "100000"], "fee_too_low"),
        (&["--entry", &long], "extra_too_long"),
    ] {
        let words = [&["submit", module.as_str(), "--json"], more].concat();
        let output = run(&client, &words).await;
        assert!(!output.status.success(), "{more:?}");
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(error["error"]["code"], code, "{error}");
    }
    assert_eq!(provider.get_transaction_count(scene.client()).await.unwrap(), 0);
}

#[tokio::test]
async fn v11_a_wait_ends_at_once_with_the_code_when_a_coordinator_says_so() {
    let scene = stage().await;
    let variables = [("COORDINATOR_REJECTION_BUDGET", "0"), ("COORDINATOR_QUOTA", "0")];
    let mut daemon = scene.coordinator_with(&variables).unwrap();
    listens(&scene, &mut daemon).await;
    let module = sample("fib.wasm");
    let words = ["submit", &module, "--entry", "fib", "--args", "[12]", "--wait", "--json"];
    let output = run(&client(&scene, &[]), &words).await;
    assert_eq!(output.status.code(), Some(3));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["code"], "quota_exceeded", "{told}");
    assert_eq!(told["status"], "rejected");
    stop(daemon).await;
}

#[tokio::test]
async fn v13_an_interrupted_wait_tells_the_id() {
    let scene = stage().await;
    let module = sample("fib.wasm");
    let words = ["submit", &module, "--entry", "fib", "--args", "[12]", "--wait", "--json"];
    // It asks here while it waits.
    let api = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let root = format!("http://{}", api.local_addr().unwrap());
    let mut waiting = command(&client(&scene, &[("COORDINATOR_API", &root)])).unwrap();
    let mut waiting =
        waiting.args(words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let asked = tokio::time::timeout(PATIENCE, api.accept()).await.unwrap().unwrap();
    let pid = rustix::process::Pid::from_raw(waiting.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut out = String::new();
    waiting.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
    assert_eq!(waiting.wait().await.unwrap().code(), Some(1));
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["id"], "1", "{told}");
    drop(asked);
}

#[tokio::test]
async fn v13_a_document_stays_byte_for_byte_and_what_a_guest_wrote_is_shown() {
    let scene = stage().await;
    let client = client(&scene, &[]);
    let mut daemon = scene.coordinator().unwrap();
    listens(&scene, &mut daemon).await;
    // Prints a document whose keys are in no order, and writes to stderr.
    let module = r#"(module
        (import "wasi_snapshot_preview1" "fd_write"
            (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\20\00\00\00\11\00\00\00\40\00\00\00\0f\00\00\00")
        (data (i32.const 32) "{\"z\":1.0,\"a\":2e0}")
        (data (i32.const 64) "all is \1b[1mwell\0a")
        (func (export "_start")
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 128)))
            (drop (call $write (i32.const 2) (i32.const 8) (i32.const 1) (i32.const 128)))))"#;
    let file = scene.folder().join("writes.wasm");
    std::fs::write(&file, wat::parse_str(module).unwrap()).unwrap();
    let words = ["submit", file.to_str().unwrap()];
    let id = said(&client, &words).await;
    let task = reaches(&scene, task_board::TaskId::new(id.parse().unwrap()), "final").await;
    let text = task["result"]["document_text"].as_str().unwrap();
    let digest = task["result"]["digest"].as_str().unwrap();
    assert_eq!(format!("0x{}", hex::encode(Sha256::digest(text))), digest, "{task}");
    let status = said(&client, &["status", &id]).await;
    assert!(status.contains(&format!("result: {text}")), "{status}");
    let logs = said(&client, &["logs", &id]).await;
    assert!(logs.contains("stderr: all is \\u{1b}[1mwell"), "{logs}");
    assert_eq!(task["chain_id_text"], "31337");
    stop(daemon).await;
}
