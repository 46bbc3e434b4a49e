use harness::{Misbehaviour, Proxy};
use store::OutgoingState;

use crate::stage::{Stage, client};

const DOCUMENT: &str = r#"{"status":"ok","value":144}"#;

/// A task whose result is queued, and a proxy before the node.
async fn queued(stage: &Stage) -> (task::TaskId, Proxy) {
    let mut watcher = stage.watcher().await;
    let id = stage.submit(1).await[0];
    watcher.poll().await.unwrap();
    stage.answer(id, DOCUMENT, true).await;
    (id, Proxy::start(&stage.anvil.url()).await)
}

#[tokio::test]
async fn p01_bytes_that_were_stored_and_never_sent_are_sent_after_a_restart() {
    let stage = Stage::start().await;
    let (id, proxy) = queued(&stage).await;
    let through = client(&proxy.url()).await;
    let mut publisher = stage.publisher_with(through, stage.publishing()).await.unwrap();
    proxy.misbehave("eth_sendRawTransaction", Misbehaviour::DropCall, 1);
    assert_eq!(publisher.step().await.unwrap_err().code(), "unreachable");
    drop(publisher);
    let before = stage.store.unsettled(&stage.account()).await.unwrap();
    assert_eq!((before.len(), before[0].attempts.len()), (1, 1));
    assert_eq!((stage.results(id).await, stage.publisher_nonce().await), (0, 0));

    let mut publisher = stage.publisher().await;
    stage.until(&mut publisher, id, "final").await;
    let receipt = stage.anvil.receipt(&before[0].attempts[0].hash.to_string()).await;
    assert_eq!(receipt["status"], "0x1", "the same bytes were sent");
    assert_eq!((stage.results(id).await, stage.publisher_nonce().await), (1, 1));
}

#[tokio::test]
async fn p01_a_transaction_that_was_mined_unnoticed_is_found_after_a_restart() {
    let stage = Stage::start().await;
    let (id, proxy) = queued(&stage).await;
    let through = client(&proxy.url()).await;
    let mut publisher = stage.publisher_with(through, stage.publishing()).await.unwrap();
    proxy.misbehave("eth_sendRawTransaction", Misbehaviour::DropReply, 1);
    assert_eq!(publisher.step().await.unwrap_err().code(), "unreachable");
    drop(publisher);
    let outgoing = stage.store.unsettled(&stage.account()).await.unwrap();
    assert_eq!(outgoing[0].state, OutgoingState::Open);
    stage.anvil.receipt(&outgoing[0].attempts[0].hash.to_string()).await;
    assert_eq!((stage.results(id).await, stage.publisher_nonce().await), (1, 1));

    let mut publisher = stage.publisher().await;
    stage.until(&mut publisher, id, "final").await;
    assert_eq!((stage.results(id).await, stage.publisher_nonce().await), (1, 1));
}

#[tokio::test]
async fn p02_a_lost_reply_takes_no_second_nonce() {
    let stage = Stage::start().await;
    let (id, proxy) = queued(&stage).await;
    stage.anvil.set_automine(false).await;
    let through = client(&proxy.url()).await;
    let mut publisher = stage.publisher_with(through, stage.publishing()).await.unwrap();
    proxy.misbehave("eth_sendRawTransaction", Misbehaviour::DropReply, 1);
    assert_eq!(publisher.step().await.unwrap_err().code(), "unreachable");
    harness::wait_for("the same bytes to be sent again", crate::stage::PATIENCE, async || {
        let step = publisher.step().await;
        match proxy.count("eth_sendRawTransaction") {
            0 | 1 => Err(format!("{step:?}")),
            _ => Ok(()),
        }
    })
    .await;
    let outgoing = stage.store.unsettled(&stage.account()).await.unwrap();
    assert_eq!((outgoing.len(), outgoing[0].attempts.len()), (1, 1), "nothing was signed anew");
    stage.anvil.mine(1).await;
    stage.until(&mut publisher, id, "final").await;
    assert_eq!((stage.results(id).await, stage.publisher_nonce().await), (1, 1));
}

#[tokio::test]
async fn p01_a_publisher_that_is_stopped_after_any_step_publishes_once() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    let ids = stage.submit(4).await;
    watcher.poll().await.unwrap();
    for (index, id) in ids.iter().enumerate() {
        stage.answer(*id, DOCUMENT, true).await;
        let mut done = false;
        for _ in 0..20 {
            // Every step is a process of its own; every other one loses the node's replies.
            let proxy = Proxy::start(&stage.anvil.url()).await;
            let through = client(&proxy.url()).await;
            let mut publisher = stage.publisher_with(through, stage.publishing()).await.unwrap();
            if index % 2 == 0 {
                proxy.misbehave("eth_sendRawTransaction", Misbehaviour::DropReply, 1);
            }
            let _ = publisher.step().await;
            let _ = watcher.poll().await;
            done = stage.state(*id).await == "final";
            if done {
                break;
            }
        }
        assert!(done, "{}", stage.state(*id).await);
        assert_eq!(stage.results(*id).await, 1);
    }
    assert_eq!(stage.publisher_nonce().await, 4);
}
