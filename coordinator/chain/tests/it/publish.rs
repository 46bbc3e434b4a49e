use std::{collections::BTreeSet, time::Duration};

use chain::publisher;
use harness::{Misbehaviour, wait_for};
use serde_json::json;
use task_board::{ENFORCE_DEADLINE, Submission};
use tokio_util::sync::CancellationToken;

use crate::stage::{ENGINE, PATIENCE, Stage, catch_up, foreign, key, own, request};

const DOCUMENT: &str = r#"{"status":"ok","value":144}"#;

#[tokio::test]
async fn a_result_goes_from_the_queue_to_final() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    let id = stage.submit(1).await[0];
    watcher.poll().await.unwrap();
    stage.answer(id, DOCUMENT, true).await;
    let mut publisher = stage.publisher().await;
    stage.until(&mut publisher, id, "final").await;
    watcher.poll().await.unwrap();
    assert_eq!(stage.state(id).await, "final");
    let timeline = stage.timeline(id).await;
    assert_eq!(timeline[6..], ["sent", "answered", "mined", "finalized"]);
    assert_eq!((stage.results(id).await, stage.publisher_nonce().await), (1, 1));
    assert!(!publisher.step().await.unwrap());
    assert!(stage.store.unsettled(&stage.account()).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_ready_goes_out_together() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    let ids = stage.submit(12).await;
    watcher.poll().await.unwrap();
    for (index, id) in ids.iter().enumerate() {
        stage.answer(*id, DOCUMENT, index < 7).await;
    }
    let mut publisher = stage.publisher().await;
    for id in &ids {
        stage.until(&mut publisher, *id, "final").await;
        assert_eq!(stage.results(*id).await, 1);
    }
    assert_eq!(stage.publisher_nonce().await, 2, "one transaction of documents, one of digests");
}

#[tokio::test]
async fn batches_stay_within_their_bounds_and_several_nonces_are_in_flight() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    let ids = stage.submit(9).await;
    watcher.poll().await.unwrap();
    for id in &ids {
        stage.answer(*id, DOCUMENT, false).await;
    }
    stage.anvil.set_automine(false).await;
    let options = publisher::Options { max_batch: 2, max_in_flight: 3, ..stage.publishing() };
    let mut publisher = stage.publisher_with(stage.client().await, options).await.unwrap();
    assert!(publisher.step().await.unwrap());
    let open = stage.store.unsettled(&stage.account()).await.unwrap();
    assert_eq!(open.iter().map(|outgoing| outgoing.nonce).collect::<Vec<_>>(), [0, 1, 2]);
    stage.anvil.set_automine(true).await;
    stage.anvil.mine(1).await;
    for id in &ids {
        stage.until(&mut publisher, *id, "final").await;
        assert_eq!(stage.results(*id).await, 1);
    }
    assert_eq!(stage.publisher_nonce().await, 5);
}

#[tokio::test]
async fn one_bad_item_never_sinks_a_batch() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    let ids = stage.submit(3).await;
    watcher.poll().await.unwrap();
    for id in &ids {
        stage.answer(*id, DOCUMENT, true).await;
    }
    answer_elsewhere(&stage, ids[1]).await;
    let mut publisher = stage.publisher().await;
    for id in [ids[0], ids[2]] {
        stage.until(&mut publisher, id, "final").await;
    }
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    wait_for("the bad item to settle", PATIENCE, async || {
        publisher.step().await.unwrap();
        match stage.store.unsettled(&stage.account()).await.unwrap().len() {
            0 => Ok(()),
            open => Err(format!("{open} nonces are open")),
        }
    })
    .await;
    assert_eq!(stage.state(ids[1]).await, "cancelled");
    assert_eq!((stage.results(ids[1]).await, stage.publisher_nonce().await), (1, 1));
}

#[tokio::test]
async fn p08_a_task_that_another_coordinator_answered_is_not_paid_for_twice() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    let id = stage.submit(1).await[0];
    watcher.poll().await.unwrap();
    stage.answer(id, DOCUMENT, true).await;
    answer_elsewhere(&stage, id).await;
    let mut publisher = stage.publisher().await;
    // The reverted transaction is known, but the watcher has not been there: nothing is told yet.
    for _ in 0..5 {
        publisher.step().await.unwrap();
    }
    assert_eq!(stage.state(id).await, "publishing");
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(stage.state(id).await, "cancelled");
    for _ in 0..5 {
        publisher.step().await.unwrap();
    }
    assert_eq!(stage.publisher_nonce().await, 1, "one try, no repeated spend");
    let refused = stage.store.timeline(stage.task(id).await.task.local_id).await.unwrap();
    let last = refused.last().unwrap();
    assert!(
        matches!(&last.event, task::Event::Refused { code, .. } if code == "already_closed"),
        "{last:?}"
    );
}

#[tokio::test]
async fn p08_a_task_whose_deadline_passed_is_refused_with_the_contract_s_reason() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    let latest = stage.anvil.rpc("eth_getBlockByNumber", json!(["latest", false])).await;
    let now = u64::from_str_radix(&latest["timestamp"].as_str().unwrap()[2..], 16).unwrap();
    let kept = Submission { deadline: now + 100, flags: ENFORCE_DEADLINE, ..request(1) };
    let id = stage.board().await.submit(&key(2), &[kept]).await.unwrap().ids[0];
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.answer(id, DOCUMENT, true).await;
    stage.anvil.rpc("evm_increaseTime", json!([200])).await;
    let mut publisher = stage.publisher().await;
    wait_for("the refusal", PATIENCE, async || {
        publisher.step().await.unwrap();
        let _ = watcher.poll().await;
        match stage.state(id).await.as_str() {
            "cancelled" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    let timeline = stage.store.timeline(stage.task(id).await.task.local_id).await.unwrap();
    let last = &timeline.last().unwrap().event;
    assert!(
        matches!(last, task::Event::Refused { code, .. } if code == "deadline_passed"),
        "{last:?}"
    );
    assert_eq!((stage.results(id).await, stage.publisher_nonce().await), (0, 1));
}

#[tokio::test]
async fn a_running_publisher_publishes_what_a_running_watcher_saw() {
    let stage = Stage::start().await;
    let cancel = CancellationToken::new();
    let watching = tokio::spawn(stage.watcher().await.run(cancel.clone()));
    let publishing = tokio::spawn(stage.publisher().await.run(cancel.clone()));
    let ids = stage.submit(3).await;
    wait_for("the tasks", PATIENCE, async || match stage.tasks().await {
        3 => Ok(()),
        other => Err(format!("{other} tasks")),
    })
    .await;
    for id in &ids {
        stage.answer(*id, DOCUMENT, true).await;
    }
    for id in &ids {
        wait_for("the task to be final", PATIENCE, async || {
            match stage.state(*id).await.as_str() {
                "final" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await;
        assert_eq!(stage.results(*id).await, 1);
    }
    cancel.cancel();
    watching.await.unwrap().unwrap();
    publishing.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_publisher_without_rights_or_engine_does_not_start() {
    let stage = Stage::start().await;
    let wrong = publisher::Options { engine: "unheard-of".to_owned(), ..stage.publishing() };
    let error = stage.publisher_with(stage.client().await, wrong).await.unwrap_err();
    assert_eq!((error.code(), error.retry()), ("engine_not_registered", false));
    let wrong = publisher::Options { domains: BTreeSet::from([0, 3]), ..stage.publishing() };
    let error = stage.publisher_with(stage.client().await, wrong).await.unwrap_err();
    assert_eq!((error.code(), error.retry()), ("not_coordinator", false));
    assert!(error.to_string().contains("domain 3"), "{error}");
    assert_eq!(ENGINE, stage.publishing().engine);
}

/// Account 3 becomes a coordinator and answers.
async fn answer_elsewhere(stage: &Stage, id: task::TaskId) {
    let tag = stage.tag(id).await;
    stage.publish_elsewhere(&foreign(id, tag)).await;
    assert_eq!(own(stage.anvil.address(3)), key(3).address());
}

/// Whether the key may answer the domain, and how many engines there are.
const CALLS_BEFORE_THE_PROBE: usize = 2;
/// How often the probe looks.
const LOOKS: usize = 5;

#[tokio::test]
async fn t6_a_chain_whose_contracts_see_other_blocks_than_its_nodes_tell_is_refused() {
    let stage = Stage::start().await;
    stage.anvil.mine(3).await;
    // Somebody's answer in place of the contract's: a block with another hash.
    let error = task_board::TaskBoard::WrongAnchor {
        number: alloy::primitives::U256::from(1),
        expected: alloy::primitives::B256::ZERO,
        actual: alloy::primitives::B256::repeat_byte(7),
    };
    let data = alloy::hex::encode_prefixed(alloy::sol_types::SolError::abi_encode(&error));
    let body = serde_json::json!({
        "jsonrpc": "2.0", "id": 1,
        "error": {"code": 3, "message": "execution reverted", "data": data},
    });
    let proxy = harness::Proxy::start(&stage.anvil.url()).await;
    let through = crate::stage::client(&proxy.url()).await;
    // Where the engine and the rights are known the probe is what is called.
    stage.publisher().await;
    let options = publisher::Options { domains: [0].into(), ..stage.publishing() };
    proxy.misbehave("eth_call", Misbehaviour::Delay(Duration::ZERO), CALLS_BEFORE_THE_PROBE);
    proxy.misbehave("eth_call", Misbehaviour::Body(body.to_string()), LOOKS);
    let refused = stage.publisher_with(through, options).await.unwrap_err();
    assert_eq!(refused.code(), "anchors_differ");
    stage.publisher().await;
}
