//! How tasks end.

use alloy::primitives::U256;
use task_board::Submission;

use crate::stage::{answers, reaches, result, stage, stop};

#[tokio::test]
async fn each_way_to_end_has_its_document_and_its_status() {
    let scene = stage().await;
    let daemon = scene.coordinator().unwrap();
    let wasm = |module: &str, entry: &str, timeout_s, fuel| Submission {
        entry: Some(entry.to_owned()),
        timeout_s,
        fuel,
        ..scene.wasm(module, None).unwrap()
    };
    let many = u64::MAX >> 24;
    for (submission, status, document) in [
        (
            wasm("trap.wasm", "trap", 0, 0),
            2,
            r#"{"status":"failed","code":"trap","trap":"unreachable"}"#,
        ),
        (wasm("loop.wasm", "loop", 1, 0), 3, r#"{"status":"timed_out"}"#),
        (wasm("loop.wasm", "loop", 0, 100_000), 2, r#"{"status":"failed","code":"out_of_fuel"}"#),
        (wasm("fib.wasm", "no such", 0, 0), 2, r#"{"status":"failed","code":"no_entry"}"#),
        (wasm("fib.wasm", "fib", 0, 0), 2, r#"{"status":"failed","code":"bad_arguments"}"#),
        (wasm("fib-input.json", "fib", 0, 0), 2, r#"{"status":"failed","code":"invalid_module"}"#),
        (
            Submission { fee: U256::from(7), ..wasm("fib.wasm", "fib", 0, many) },
            4,
            r#"{"status":"rejected","code":"limits_too_high"}"#,
        ),
    ] {
        let id = scene.submit_one(&submission).await.unwrap();
        let found = answers(&scene, id, document).await;
        assert_eq!(found.status, status, "{document}");
        let task = reaches(&scene, id, "final").await;
        let served = scene.get(&format!("/api/v1/tasks/{id}")).await.unwrap();
        assert!(served.contains(document), "the API serves other bytes: {served}");
        assert!(
            task["attempts"].as_u64().unwrap() <= 1,
            "a guest's failure is not tried again: {task}"
        );
    }
    // What was rejected was paid back.
    let refund = scene.board().credit(scene.client()).call().await.unwrap();
    assert_eq!(refund, U256::from(7));
    stop(daemon).await;
}

#[tokio::test]
async fn a_fee_goes_to_who_answered() {
    let scene = stage().await;
    let daemon = scene.coordinator().unwrap();
    let input = br#"{"entry":"affine","args":[13,9,2]}"#;
    let submission =
        Submission { fee: U256::from(1234), ..scene.wasm("affine.wasm", Some(input)).unwrap() };
    let id = scene.submit_one(&submission).await.unwrap();
    assert_eq!(result(&scene, id).await.document.unwrap(), br#"{"status":"ok","value":119}"#);
    let credit = scene.board().credit(scene.publisher()).call().await.unwrap();
    assert_eq!(credit, U256::from(1234));
    stop(daemon).await;
}

#[tokio::test]
async fn a_hundred_tasks_of_one_transaction_are_all_answered() {
    let scene = stage().await;
    let daemon = scene.coordinator().unwrap();
    let submissions: Vec<_> = (0..100)
        .map(|n| {
            let input = format!(r#"{{"entry":"affine","args":[{n},2,1]}}"#);
            scene.wasm("affine.wasm", Some(input.as_bytes())).unwrap()
        })
        .collect();
    let ids = scene.submit(&submissions).await.unwrap();
    for (n, id) in ids.into_iter().enumerate() {
        answers(&scene, id, &format!(r#"{{"status":"ok","value":{}}}"#, 2 * n + 1)).await;
    }
    stop(daemon).await;
}
