use std::time::Duration;

use alloy::primitives::U256;
use chain::publisher;
use harness::{Misbehaviour, Proxy, wait_for};

use crate::stage::{PATIENCE, Stage, client};

const DOCUMENT: &str = r#"{"status":"ok","value":144}"#;

/// A task whose result is queued on a chain that mines nothing by itself.
async fn queued(stage: &Stage) -> task::TaskId {
    let mut watcher = stage.watcher().await;
    let id = stage.submit(1).await[0];
    watcher.poll().await.unwrap();
    stage.answer(id, DOCUMENT, true).await;
    stage.anvil.set_automine(false).await;
    id
}

#[tokio::test]
async fn a_nonce_that_somebody_else_took_is_replaced_by_the_next() {
    let stage = Stage::start().await;
    let id = queued(&stage).await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let through = client(&proxy.url()).await;
    let mut publisher = stage.publisher_with(through, stage.publishing()).await.unwrap();
    proxy.misbehave("eth_sendRawTransaction", Misbehaviour::DropCall, 1);
    assert_eq!(publisher.step().await.unwrap_err().code(), "unreachable");
    stage.anvil.set_automine(true).await;
    let other = stage.anvil.send(1, Some(stage.anvil.address(0)), &[], U256::from(1)).await;
    stage.anvil.receipt(&other).await;
    assert_eq!(stage.publisher_nonce().await, 1);
    stage.until(&mut publisher, id, "final").await;
    assert_eq!((stage.results(id).await, stage.publisher_nonce().await), (1, 2));
}

#[tokio::test]
async fn p03_a_transaction_that_is_stuck_pays_more_at_the_same_nonce_up_to_the_cap() {
    let stage = Stage::start().await;
    let id = queued(&stage).await;
    let options = publisher::Options {
        resubmit_after: Duration::from_millis(50),
        max_fee_wei: Some(6_000_000_000),
        ..stage.publishing()
    };
    let mut publisher = stage.publisher_with(stage.client().await, options).await.unwrap();
    wait_for("the cap", PATIENCE, async || {
        let step = publisher.step().await;
        if stage.alarm("fee_cap_reached") { Ok(()) } else { Err(format!("{step:?}")) }
    })
    .await;
    let outgoing = stage.store.unsettled(&stage.account()).await.unwrap();
    assert_eq!((outgoing.len(), outgoing[0].nonce), (1, 0));
    let attempts = &outgoing[0].attempts;
    assert!(attempts.len() >= 3, "{attempts:?}");
    for pair in attempts.windows(2) {
        assert!(pair[1].max_fee_wei * 8 >= pair[0].max_fee_wei * 9);
        assert!(pair[1].priority_fee_wei * 8 >= pair[0].priority_fee_wei * 9);
    }
    assert!(attempts.iter().all(|attempt| attempt.max_fee_wei <= 6_000_000_000));
    stage.anvil.set_automine(true).await;
    stage.anvil.mine(1).await;
    stage.until(&mut publisher, id, "final").await;
    assert_eq!((stage.results(id).await, stage.publisher_nonce().await), (1, 1));
}

#[tokio::test]
async fn p05_a_transaction_that_a_node_forgot_is_sent_again() {
    let stage = Stage::start().await;
    let id = queued(&stage).await;
    let mut publisher = stage.publisher().await;
    publisher.step().await.unwrap();
    let outgoing = stage.store.unsettled(&stage.account()).await.unwrap();
    stage.anvil.drop_transaction(&outgoing[0].attempts[0].hash.to_string()).await;
    stage.anvil.mine(1).await;
    stage.anvil.set_automine(true).await;
    stage.until(&mut publisher, id, "final").await;
    assert_eq!((stage.results(id).await, stage.publisher_nonce().await), (1, 1));
}

#[tokio::test]
async fn an_anchor_that_is_too_old_is_replaced_at_the_same_nonce() {
    let stage = Stage::start().await;
    let id = queued(&stage).await;
    let mut publisher = stage.publisher().await;
    publisher.step().await.unwrap();
    let before = stage.store.unsettled(&stage.account()).await.unwrap();
    stage.anvil.drop_transaction(&before[0].attempts[0].hash.to_string()).await;
    stage.anvil.mine(300).await;
    stage.anvil.set_automine(true).await;
    let mut watcher = stage.watcher().await;
    watcher.poll().await.unwrap();
    stage.until(&mut publisher, id, "final").await;
    assert_eq!((stage.results(id).await, stage.publisher_nonce().await), (1, 1));
}

#[tokio::test]
async fn p08_without_money_publishing_pauses_with_an_alarm_and_goes_on_after_a_top_up() {
    let stage = Stage::start().await;
    let id = queued(&stage).await;
    stage.anvil.set_automine(true).await;
    stage.anvil.set_balance(stage.anvil.address(1), 1).await;
    let mut publisher = stage.publisher().await;
    publisher.step().await.unwrap();
    assert!(stage.alarm("publisher_unfunded"), "{:?}", stage.alarms.current());
    for _ in 0..10 {
        publisher.step().await.unwrap();
    }
    assert_eq!(stage.state(id).await, "publishing");
    stage.anvil.set_balance(stage.anvil.address(1), 10_u128.pow(18)).await;
    stage.until(&mut publisher, id, "final").await;
    assert!(!stage.alarm("publisher_unfunded"));
    assert_eq!((stage.results(id).await, stage.publisher_nonce().await), (1, 1));
}

#[tokio::test]
async fn a_node_without_the_contract_s_state_does_not_end_a_publisher_that_used_it() {
    let stage = Stage::start().await;
    let id = queued(&stage).await;
    stage.anvil.set_automine(true).await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let publisher =
        stage.publisher_with(client(&proxy.url()).await, stage.publishing()).await.unwrap();
    stage.set_coordinator(false).await;
    // Its right is looked at again and again: to a node that lost the contract's state there is nothing to call.
    proxy.misbehave("eth_call", Misbehaviour::Answer(serde_json::json!("0x")), 5);
    let cancel = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(publisher.run(cancel.clone()));
    wait_for("the node to be asked in vain", PATIENCE, async || {
        if proxy.count("eth_call") < 8 { Err(proxy.count("eth_call").to_string()) } else { Ok(()) }
    })
    .await;
    stage.set_coordinator(true).await;
    wait_for("the result", PATIENCE, async || match stage.results(id).await {
        1 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    cancel.cancel();
    running.await.unwrap().unwrap();
}
