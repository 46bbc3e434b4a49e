//! What chains and nodes do in bad weather, to a whole coordinator.

use std::collections::BTreeMap;

use alloy::primitives::U256;
use harness::{Misbehaviour, Proxy, balancer::Balancer, scene::Scene, wait_for};
use serde_json::{Value, json};
use task_board::{Submission, TaskId};

use crate::stage::{PATIENCE, answers, listens, run, said, stage, stop, task};

const FIB: &str = r#"{"status":"ok","value":144}"#;
const AFFINE: &str = r#"{"status":"ok","value":119}"#;

fn fib(scene: &Scene) -> Submission {
    scene.wasm("fib.wasm", Some(br#"{"entry":"fib","args":[12]}"#)).unwrap()
}

fn affine(scene: &Scene) -> Submission {
    scene.wasm("affine.wasm", Some(br#"{"entry":"affine","args":[13,9,2]}"#)).unwrap()
}

/// Status and text of `/readyz`.
async fn readyz(scene: &Scene) -> Result<(u16, String), String> {
    let answer = reqwest::get(format!("{}/readyz", scene.api_url())).await;
    let answer = answer.map_err(|error| error.to_string())?;
    Ok((answer.status().as_u16(), answer.text().await.map_err(|error| error.to_string())?))
}

/// Waits until `/readyz` answers with this status and holds this word.
async fn says(scene: &Scene, status: u16, word: &str) {
    wait_for(&format!("/readyz to say {status} {word}"), PATIENCE, async || {
        let (found, text) = readyz(scene).await?;
        if found == status && text.contains(word) { Ok(()) } else { Err(text) }
    })
    .await;
}

/// Waits until the coordinator has read the newest block that counts.
async fn reads_on(scene: &Scene, confirmations: u64) {
    let head = scene.anvil().block_number().await;
    wait_for("the cursor", PATIENCE, async || match scene.cursor().await {
        Some(cursor) if cursor + confirmations > head => Ok(()),
        cursor => Err(format!("{cursor:?} of {head}")),
    })
    .await;
}

/// Waits until a task is final, and makes blocks meanwhile.
async fn is_final(scene: &Scene, id: TaskId) -> Value {
    wait_for(&format!("task {id} to be final"), PATIENCE, async || {
        scene.anvil().mine(1).await;
        let task = task(scene, id).await?;
        if task["state"] == "final" { Ok(task) } else { Err(task["state"].to_string()) }
    })
    .await
}

#[tokio::test]
async fn c1_c3_an_answer_never_stands_for_another_task_after_a_reorganisation_deeper_than_finality()
{
    let scene = stage().await;
    let proxy = Proxy::start(&scene.anvil().url()).await;
    scene.anvil().mine(20).await;
    let url = proxy.url();
    let settings = [("COORDINATOR_RPC_URL", url.as_str()), ("COORDINATOR_CONFIRMATIONS", "2")];
    let mut daemon = scene.coordinator_with(&settings).unwrap();
    listens(&scene, &mut daemon).await;
    let fork = scene.anvil().block_number().await;
    let gone = scene.submit_one(&affine(&scene)).await.unwrap();
    is_final(&scene, gone).await;
    answers(&scene, gone, AFFINE).await;
    reads_on(&scene, 2).await;

    // Everything since the fork is undone, and somebody else's task takes the number.
    let head = scene.anvil().block_number().await;
    scene.anvil().reorg(head - fork).await;
    let other = scene.submit_one_as(3, &fib(&scene)).await.unwrap();
    assert_eq!(other, gone);
    scene.anvil().mine(4).await;
    says(&scene, 503, "finality_violated").await;

    // Errors, empty answers and a restart change nothing about it.
    proxy.misbehave(
        "eth_getBlockByNumber",
        Misbehaviour::Status { status: 503, retry_after_s: None },
        3,
    );
    proxy.misbehave("eth_getLogs", Misbehaviour::Answer(json!([])), 3);
    daemon.kill_9().await.unwrap();
    let mut daemon = scene.coordinator_with(&settings).unwrap();
    listens(&scene, &mut daemon).await;
    says(&scene, 503, "finality_violated").await;
    scene.anvil().mine(3).await;
    reads_on(&scene, 2).await;
    says(&scene, 503, "finality_violated").await;
    assert_eq!(scene.result(other).await.unwrap(), None);

    // An operator looks and accepts.
    let mut variables = scene.environment();
    variables.extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
    said(&variables, &["chain", "accept"]).await;
    let found = is_final(&scene, other).await;
    assert_eq!(found["result"]["document"]["value"], 144, "{found}");
    // One result ever, and it is the other task's own.
    answers(&scene, other, FIB).await;
    says(&scene, 200, "ready").await;
    stop(daemon).await;
}

#[tokio::test]
async fn c5_a_head_that_moves_backwards_takes_nothing_back() {
    let scene = stage().await;
    let balancer = Balancer::start(&scene.anvil().url(), 1).await.unwrap();
    let url = balancer.url();
    let settings = [("COORDINATOR_RPC_URL", url.as_str()), ("COORDINATOR_CONFIRMATIONS", "3")];
    let mut daemon = scene.coordinator_with(&settings).unwrap();
    listens(&scene, &mut daemon).await;
    let id = scene.submit_one(&fib(&scene)).await.unwrap();
    wait_for("the result to be final", PATIENCE, async || {
        scene.anvil().mine(1).await;
        balancer.look().await.unwrap();
        let task = task(&scene, id).await?;
        if task["state"] == "final" { Ok(()) } else { Err(task["state"].to_string()) }
    })
    .await;
    scene.anvil().mine(6).await;
    balancer.look().await.unwrap();
    reads_on(&scene, 3).await;
    let before = scene.cursor().await.unwrap();

    // The newest five blocks are not there any more, then others are.
    scene.anvil().rollback(5).await;
    balancer.look().await.unwrap();
    says(&scene, 503, "chain_lagging").await;
    scene.anvil().mine(7).await;
    balancer.look().await.unwrap();
    let next = scene.submit_one(&affine(&scene)).await.unwrap();
    wait_for("the next result", PATIENCE, async || {
        scene.anvil().mine(1).await;
        balancer.look().await.unwrap();
        match scene.result(next).await {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}, {:?}", readyz(&scene).await)),
        }
    })
    .await;
    answers(&scene, next, AFFINE).await;
    answers(&scene, id, FIB).await;
    assert!(scene.cursor().await.unwrap() > before);
    let found = task(&scene, id).await.unwrap();
    assert_eq!(found["state"], "final", "{found}");
    stop(daemon).await;
}

#[tokio::test]
async fn c5_logs_left_out_headers_and_counts_denied_for_a_while_lose_no_task() {
    let scene = stage().await;
    let proxy = Proxy::start(&scene.anvil().url()).await;
    let url = proxy.url();
    let settings = [("COORDINATOR_RPC_URL", url.as_str()), ("COORDINATOR_CONFIRMATIONS", "1")];
    let mut daemon = scene.coordinator_with(&settings).unwrap();
    listens(&scene, &mut daemon).await;
    let first = scene.submit_one(&affine(&scene)).await.unwrap();
    answers(&scene, first, AFFINE).await;
    // The cursor's header is denied, then the count, then the logs: in that order a task was once lost.
    proxy.misbehave("eth_getBlockByNumber", Misbehaviour::Answer(Value::Null), 3);
    proxy.misbehave(
        "eth_call",
        Misbehaviour::Error { code: -32_000, message: "header not found".to_owned() },
        4,
    );
    proxy.misbehave("eth_getLogs", Misbehaviour::Answer(json!([])), 4);
    let free = scene.submit_one(&fib(&scene)).await.unwrap();
    let paid = Submission { fee: U256::from(1_000), ..fib(&scene) };
    let paid = scene.submit_one(&paid).await.unwrap();
    for id in [free, paid] {
        answers(&scene, id, FIB).await;
    }
    let credited: Vec<_> = scene.logs(0).await.unwrap().credited;
    assert_eq!(credited, [(paid, scene.publisher(), U256::from(1_000))]);
    for id in [first, free, paid] {
        let found = is_final(&scene, id).await;
        assert!(found["cancelled"].is_null(), "{found}");
    }
    stop(daemon).await;
}

/// The publisher's transactions that wait in the node: hash and signed bytes, by nonce.
async fn waiting(scene: &Scene) -> BTreeMap<String, String> {
    let pool = scene.anvil().rpc("txpool_content", json!([])).await;
    let publisher = scene.publisher().to_string().to_lowercase();
    let mut found = BTreeMap::new();
    for (account, nonces) in pool["pending"].as_object().unwrap() {
        if account.to_lowercase() != publisher {
            continue;
        }
        for transaction in nonces.as_object().unwrap().values() {
            let hash = transaction["hash"].as_str().unwrap().to_owned();
            // One that was replaced meanwhile is none that waits.
            let raw = scene.anvil().rpc("eth_getRawTransactionByHash", json!([hash])).await;
            if let Some(raw) = raw.as_str() {
                found.insert(hash, raw.to_owned());
            }
        }
    }
    found
}

#[tokio::test]
async fn the_oldest_of_three_attempts_is_mined_and_counts() {
    let scene = stage().await;
    let proxy = Proxy::start(&scene.anvil().url()).await;
    let url = proxy.url();
    let settings = [
        ("COORDINATOR_RPC_URL", url.as_str()),
        ("COORDINATOR_RESUBMIT_AFTER", "1s"),
        ("COORDINATOR_CONFIRMATIONS", "1"),
    ];
    let mut daemon = scene.coordinator_with(&settings).unwrap();
    listens(&scene, &mut daemon).await;
    let id = submit_without_mining_on(&scene).await;
    // Each attempt replaces the one before in the node: one after the other is seen.
    let mut attempts: Vec<(String, String)> = Vec::new();
    wait_for("three attempts", PATIENCE, async || {
        for (hash, raw) in waiting(&scene).await {
            if attempts.iter().all(|(known, _)| *known != hash) {
                attempts.push((hash, raw));
            }
        }
        if attempts.len() >= 3 { Ok(()) } else { Err(format!("{}", attempts.len())) }
    })
    .await;
    // The node forgets them all, and somebody sends it the first one.
    proxy.misbehave("eth_sendRawTransaction", Misbehaviour::DropCall, usize::MAX);
    let (oldest, raw) = attempts[0].clone();
    scene.anvil().rpc("anvil_dropAllTransactions", json!([])).await;
    scene.anvil().rpc("eth_sendRawTransaction", json!([raw])).await;
    scene.anvil().mine(1).await;
    proxy.heal();
    scene.anvil().set_automine(true).await;
    let found = is_final(&scene, id).await;
    assert_eq!(found["publication"]["transaction"], oldest.as_str(), "{found}");
    answers(&scene, id, FIB).await;
    assert_eq!(scene.anvil().nonce(scene.publisher()).await, 1);
    stop(daemon).await;
}

/// Submits a task, has it mined, and has nothing mined by itself from then on.
async fn submit_without_mining_on(scene: &Scene) -> TaskId {
    scene.anvil().set_automine(false).await;
    let hash = scene.send(&fib(scene)).await.unwrap();
    scene.anvil().mine(1).await;
    scene.mined(hash).await.unwrap();
    let logs = scene.logs(0).await.unwrap();
    logs.submitted.last().unwrap().0
}

#[tokio::test]
async fn c17_a_foreign_transaction_at_our_nonce_costs_no_result_and_is_told() {
    let scene = stage().await;
    let mut daemon = scene.coordinator_with(&[("COORDINATOR_CONFIRMATIONS", "1")]).unwrap();
    listens(&scene, &mut daemon).await;
    let id = submit_without_mining_on(&scene).await;
    wait_for("the transaction", PATIENCE, async || {
        let waiting = waiting(&scene).await;
        if waiting.len() == 1 { Ok(()) } else { Err(format!("{}", waiting.len())) }
    })
    .await;
    // Somebody else pays with the publisher's key, and is faster.
    scene.anvil().rpc("anvil_dropAllTransactions", json!([])).await;
    let foreign = scene.anvil().send(1, Some(scene.client()), &[], U256::from(1)).await;
    scene.anvil().mine(1).await;
    assert_eq!(scene.anvil().receipt(&foreign).await["status"], "0x1");
    scene.anvil().set_automine(true).await;
    let found = is_final(&scene, id).await;
    answers(&scene, id, FIB).await;
    assert_ne!(found["publication"]["transaction"], foreign.as_str());
    assert_eq!(scene.anvil().nonce(scene.publisher()).await, 2);
    wait_for("/readyz to tell it", PATIENCE, async || {
        let (_, text) = readyz(&scene).await?;
        if text.contains("key_used_elsewhere") { Ok(()) } else { Err(text) }
    })
    .await;
    stop(daemon).await;
}

#[tokio::test]
async fn c12_a_second_process_on_the_same_database_is_refused_and_the_first_goes_on() {
    let scene = stage().await;
    let mut first = scene.coordinator().unwrap();
    listens(&scene, &mut first).await;
    let database = scene.data().join("coordinator.sqlite").display().to_string();
    let folder = scene.folder().join("elsewhere");
    std::fs::create_dir(&folder).unwrap();
    // Another data folder does not make it another database.
    let mut variables = scene.environment();
    for (name, value) in [
        ("COORDINATOR_DATABASE_URL", format!("sqlite:{database}")),
        ("COORDINATOR_DATA_DIR", folder.display().to_string()),
        ("COORDINATOR_LISTEN", "127.0.0.1:0".to_owned()),
    ] {
        variables.insert(name.to_owned(), value);
    }
    let output = tokio::time::timeout(PATIENCE, run(&variables, &["serve"])).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains(&database), "{said}");
    let id = scene.submit_one(&fib(&scene)).await.unwrap();
    answers(&scene, id, FIB).await;
    assert!(first.ended().unwrap().is_none());
    stop(first).await;
}
