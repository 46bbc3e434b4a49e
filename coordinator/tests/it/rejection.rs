//! What is answered without being run, each with its recorded reason.

use std::time::{SystemTime, UNIX_EPOCH};

use alloy::{primitives::U256, providers::Provider as _};
use harness::scene::Scene;
use ipfs::CidVersion;
use task_board::{Submission, TaskId};

use crate::stage::{answers, reaches, stage, stop};

async fn is_recorded(scene: &Scene, id: TaskId, code: &str) {
    let task = reaches(scene, id, "final").await;
    assert_eq!(task["outcome"]["status"], "rejected", "{task}");
    assert_eq!(task["outcome"]["code"], code, "{task}");
    assert_eq!(task["attempts"], 0, "{task}");
    // Its requester learns of it on chain too.
    let document = format!(r#"{{"status":"rejected","code":"{code}"}}"#);
    answers(scene, id, &document).await;
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn what_is_not_run_is_recorded_with_its_reason() {
    let scene = stage().await;
    let daemon = scene.coordinator().unwrap();
    let fib = scene.wasm("fib.wasm", None).unwrap();
    for (submission, code) in [
        (Submission { kind: 2, ..fib.clone() }, "unsupported_kind"),
        (Submission { kind: 9, ..fib.clone() }, "unsupported_kind"),
        (Submission { timeout_s: 100_000, ..fib.clone() }, "limits_too_high"),
        (Submission { memory_mib: 100_000, ..fib.clone() }, "limits_too_high"),
        (Submission { module: None, ..fib.clone() }, "invalid_cid"),
        (
            Submission { module: Some(b"../../api/v0/shutdown".to_vec()), ..fib.clone() },
            "invalid_cid",
        ),
        (Submission { deadline: 1, ..fib.clone() }, "deadline_passed"),
    ] {
        let id = scene.submit_one(&submission).await.unwrap();
        is_recorded(&scene, id, code).await;
    }
    stop(daemon).await;
}

#[tokio::test]
async fn content_with_a_wrong_digest_is_rejected_at_the_deadline_and_never_run() {
    let scene = stage().await;
    let daemon = scene.coordinator().unwrap();
    let cid = ipfs::cid_of_bytes(b"the right bytes", CidVersion::V1);
    let blocks = scene.mirror().join("blocks");
    std::fs::create_dir_all(&blocks).unwrap();
    std::fs::write(blocks.join(cid.to_string()), "the wrong bytes").unwrap();
    let corrupt = |deadline, fee| Submission {
        kind: 1,
        module: Some(cid.to_bytes()),
        deadline,
        fee,
        ..Submission::default()
    };
    let free = scene.submit_one(&corrupt(now_s() + 3, U256::ZERO)).await.unwrap();
    let paid = scene.submit_one(&corrupt(now_s() + 10, U256::from(5))).await.unwrap();
    is_recorded(&scene, free, "content_unavailable").await;

    // The fee comes back in time, and other tasks do not wait for it.
    answers(&scene, paid, r#"{"status":"rejected","code":"content_unavailable"}"#).await;
    let refund = scene.board().credit(scene.client()).call().await.unwrap();
    assert_eq!(refund, U256::from(5));
    stop(daemon).await;
}

#[tokio::test]
async fn content_that_comes_late_is_run() {
    let scene = stage().await;
    let daemon = scene.coordinator().unwrap();
    let bytes = std::fs::read(scene.mirror().join("trap.wasm")).unwrap();
    let late = [&bytes[..], &[0, 5, 4, b'l', b'a', b't', b'e']].concat(); // a custom section
    let submission = Submission {
        kind: 1,
        module: Some(ipfs::cid_of_bytes(&late, CidVersion::V1).to_bytes()),
        entry: Some("trap".to_owned()),
        ..Submission::default()
    };
    let id = scene.submit_one(&submission).await.unwrap();
    reaches(&scene, id, "fetching").await;
    scene.add("late.wasm", &late).unwrap();
    answers(&scene, id, r#"{"status":"failed","code":"trap","trap":"unreachable"}"#).await;
    stop(daemon).await;
}

#[tokio::test]
async fn a_requester_has_a_quota_of_free_tasks() {
    let scene = stage().await;
    let daemon = scene.coordinator_with(&[("COORDINATOR_QUOTA", "2")]).unwrap();
    let fib = scene.wasm("fib.wasm", Some(br#"{"entry":"fib","args":[12]}"#)).unwrap();
    let paid = Submission { fee: U256::from(1), ..fib.clone() };
    let document = r#"{"status":"ok","value":144}"#;
    for _ in 0..2 {
        answers(&scene, scene.submit_one(&fib).await.unwrap(), document).await;
    }
    is_recorded(&scene, scene.submit_one(&fib).await.unwrap(), "quota_exceeded").await;
    answers(&scene, scene.submit_one(&paid).await.unwrap(), document).await;
    stop(daemon).await;
}

#[tokio::test]
async fn v11_every_requester_learns_of_its_rejection_in_a_few_transactions() {
    let scene = stage().await;
    let daemon = scene.coordinator().unwrap();
    let fib = scene.wasm("fib.wasm", None).unwrap();
    let wrong = Submission { kind: 9, ..fib.clone() };
    let good = scene.wasm("fib.wasm", Some(br#"{"entry":"fib","args":[12]}"#)).unwrap();
    let mut batch = vec![wrong; 40];
    batch.push(good);
    let ids = scene.submit(&batch).await.unwrap();
    let (good, wrong) = ids.split_last().unwrap();
    answers(&scene, *good, r#"{"status":"ok","value":144}"#).await;
    let mut transactions = std::collections::BTreeSet::new();
    for id in wrong {
        let document = r#"{"status":"rejected","code":"unsupported_kind"}"#;
        transactions.insert(answers(&scene, *id, document).await.transaction);
    }
    assert!(transactions.len() <= 10, "{} transactions", transactions.len());
    stop(daemon).await;
}

#[tokio::test]
async fn v11_without_a_budget_rejections_are_recorded_and_not_published() {
    let scene = stage().await;
    for budget in ["0", "1"] {
        let daemon = scene.coordinator_with(&[("COORDINATOR_REJECTION_BUDGET", budget)]).unwrap();
        let wrong = Submission { kind: 9, ..scene.wasm("fib.wasm", None).unwrap() };
        let id = scene.submit_one(&wrong).await.unwrap();
        let task = reaches(&scene, id, "final").await;
        assert_eq!(task["outcome"]["code"], "unsupported_kind", "{task}");
        assert_eq!(scene.result(id).await.unwrap(), None);
        stop(daemon).await;
    }
}

#[tokio::test]
async fn t1_a_callback_that_no_fee_pays_for_is_refused_and_costs_one_batch() {
    let scene = stage().await;
    let daemon = scene.coordinator().unwrap();
    let fib = scene.wasm("fib.wasm", Some(br#"{"entry":"fib","args":[12]}"#)).unwrap();
    let calls =
        |fee: u64| Submission { callback_gas: 1_000_000, fee: U256::from(fee), ..fib.clone() };
    let ids = scene.submit(&vec![calls(0); 10]).await.unwrap();
    let mut transactions = std::collections::BTreeSet::new();
    for id in ids {
        let document = r#"{"status":"rejected","code":"fee_too_low"}"#;
        transactions.insert(answers(&scene, id, document).await.transaction);
    }
    assert!(transactions.len() <= 4, "{} transactions", transactions.len());
    // One that pays is run.
    let paid = scene.submit_one(&calls(100_000_000_000_000_000)).await.unwrap();
    answers(&scene, paid, r#"{"status":"ok","value":144}"#).await;
    stop(daemon).await;
}

#[tokio::test]
async fn v2_what_was_submitted_over_hours_is_not_over_the_quota_when_it_is_read_at_once() {
    let scene = stage().await;
    let fib = scene.wasm("fib.wasm", Some(br#"{"entry":"fib","args":[12]}"#)).unwrap();
    let mut ids = Vec::new();
    // While no coordinator runs: two tasks, then two more, two hours later each.
    for _ in 0..3 {
        ids.extend(scene.submit(&vec![fib.clone(); 2]).await.unwrap());
        let provider = scene.board().provider();
        let _: serde_json::Value =
            provider.raw_request("evm_increaseTime".into(), (7_200,)).await.unwrap();
    }
    let daemon = scene.coordinator_with(&[("COORDINATOR_QUOTA", "2")]).unwrap();
    for id in ids {
        answers(&scene, id, r#"{"status":"ok","value":144}"#).await;
    }
    stop(daemon).await;
}

#[tokio::test]
async fn t2_a_kept_task_that_is_closed_at_the_head_is_not_run() {
    const CONFIRMATIONS: u64 = 12;
    let scene = stage().await;
    let fee = U256::from(5);
    let submission = Submission { fee, ..scene.wasm("fib.wasm", None).unwrap() };
    let id = scene.submit_one(&submission).await.unwrap();
    let tag = scene.tag(id).await.unwrap();
    scene.anvil().mine(CONFIRMATIONS).await;
    // Closed in blocks that are not deep enough to be read as events.
    scene.mined(scene.cancel(id).await.unwrap()).await.unwrap();
    scene.anvil().rpc("evm_increaseTime", serde_json::json!([3_700])).await;
    scene.anvil().mine(1).await;
    let expire = scene.board().expire(id.get(), tag.0).from(scene.client()).send().await.unwrap();
    scene.mined(*expire.tx_hash()).await.unwrap();
    let confirmations = CONFIRMATIONS.to_string();
    let daemon = scene.coordinator_with(&[("COORDINATOR_CONFIRMATIONS", &confirmations)]).unwrap();
    harness::wait_for("the task to be held back", crate::stage::PATIENCE, async || {
        let task = crate::stage::task(&scene, id).await?;
        let text = task.to_string();
        if text.contains("not_wanted_at_head") { Ok(()) } else { Err(text) }
    })
    .await;
    scene.anvil().mine(CONFIRMATIONS).await;
    let task = reaches(&scene, id, "cancelled").await;
    assert_eq!(task["attempts"], 0, "{task}");
    assert_eq!(task["outcome"], serde_json::Value::Null, "{task}");
    assert!(scene.result(id).await.unwrap().is_none());
    stop(daemon).await;
}
