use chain::{Confirmations, publisher};
use store::OutgoingState;

use crate::stage::{Stage, catch_up};

const DOCUMENT: &str = r#"{"status":"ok","value":144}"#;

#[tokio::test]
async fn e01_a_task_whose_block_is_gone_is_withheld_and_another_takes_its_number() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    stage.anvil.mine(5).await;
    let gone = stage.submit(1).await[0];
    stage.anvil.mine(2).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.answer(gone, DOCUMENT, true).await;
    let old = stage.task(gone).await.task.local_id;
    stage.anvil.reorg(3).await;
    let progress = watcher.poll().await.unwrap();
    assert!(progress.more && progress.events == 1, "{progress:?}");
    assert_eq!(stage.state(gone).await, "withheld");

    // Another payload takes the number.
    let board = stage.board().await;
    let request = crate::stage::request(99);
    let id = board.submit(&crate::stage::key(3), &[request]).await.unwrap().ids[0];
    assert_eq!(id, gone);
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(stage.tasks().await, 2);
    let mut publisher = stage.publisher().await;
    for _ in 0..5 {
        publisher.step().await.unwrap();
    }
    assert_eq!((stage.results(id).await, stage.publisher_nonce().await), (0, 0));
    let other = r#"{"status":"ok","value":1}"#;
    stage.answer(id, other, true).await;
    stage.until(&mut publisher, id, "final").await;
    let result = board.find_result(id, None).await.unwrap().unwrap();
    assert_eq!(result.document.as_deref(), Some(other.as_bytes()));
    let withheld = stage.store.task(old).await.unwrap().unwrap();
    assert_eq!(withheld.task.state.name(), "withheld");
}

#[tokio::test]
async fn e01_a_signed_publication_of_a_branch_that_is_gone_never_lands() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    stage.anvil.mine(5).await;
    let gone = stage.submit(1).await[0];
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.answer(gone, DOCUMENT, true).await;
    stage.anvil.set_automine(false).await;
    let mut publisher = stage.publisher().await;
    publisher.step().await.unwrap();
    let signed = stage.store.unsettled(&stage.account()).await.unwrap();
    assert_eq!(signed.len(), 1);
    let first = signed[0].attempts[0].hash.to_string();
    stage.anvil.drop_transaction(&first).await;
    stage.anvil.reorg(1).await;
    stage.anvil.set_automine(true).await;
    let id = {
        let board = stage.board().await;
        board.submit(&crate::stage::key(3), &[crate::stage::request(98)]).await.unwrap().ids[0]
    };
    assert_eq!(id, gone);
    // The old bytes are sent by somebody: the anchor makes them fail.
    let raw = &signed[0].attempts[0].raw;
    stage.anvil.rpc("eth_sendRawTransaction", serde_json::json!([raw])).await;
    assert_eq!(stage.anvil.receipt(&first).await["status"], "0x0");
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(stage.results(id).await, 0);
    for _ in 0..10 {
        publisher.step().await.unwrap();
        stage.apply().await;
    }
    assert_eq!(stage.results(id).await, 0);
    stage.answer(id, DOCUMENT, true).await;
    stage.until(&mut publisher, id, "final").await;
    assert_eq!(stage.results(id).await, 1);
}

#[tokio::test]
async fn e02_a_task_that_is_included_again_elsewhere_is_the_same_task() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    stage.anvil.mine(5).await;
    let id = stage.submit(1).await[0];
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.answer(id, DOCUMENT, true).await;
    let first = stage.task(id).await.task;
    let transaction = first.submission.transaction.clone().unwrap();
    let raw = stage.anvil.raw_transaction(&transaction).await;
    stage.anvil.mine(2).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.anvil.reorg_with(3, &[(raw, 1)]).await;
    catch_up_branch(&stage, &mut watcher).await;
    stage.apply().await;
    assert_eq!(stage.tasks().await, 1);
    let again = stage.task(id).await.task;
    assert_eq!(again.local_id, first.local_id);
    assert_ne!(again.included.unwrap().number, first.included.unwrap().number);
    stage.answer_again(id, DOCUMENT).await;
    let mut publisher = stage.publisher().await;
    stage.until(&mut publisher, id, "final").await;
    assert_eq!((stage.results(id).await, stage.publisher_nonce().await), (1, 1));
    let timeline = stage.timeline(id).await;
    assert_eq!(timeline.iter().filter(|event| **event == "started").count(), 1);
    assert_eq!(timeline.iter().filter(|event| **event == "included").count(), 2);
}

#[tokio::test]
async fn p07_a_result_that_is_reorged_out_is_sent_again_and_final_only_when_it_is_deep() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    let id = stage.submit(1).await[0];
    stage.anvil.mine(3).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.answer(id, DOCUMENT, true).await;
    let options =
        publisher::Options { confirmations: Some(Confirmations::Blocks(3)), ..stage.publishing() };
    let mut publisher = stage.publisher_with(stage.client().await, options).await.unwrap();
    stage.until(&mut publisher, id, "mined").await;
    let first = stage.store.unsettled(&stage.account()).await.unwrap();
    assert_eq!(first[0].state, OutgoingState::Mined);
    stage.anvil.reorg(1).await;
    assert_eq!(stage.results(id).await, 0);
    stage.until(&mut publisher, id, "mined").await;
    stage.anvil.mine(1).await;
    for _ in 0..5 {
        publisher.step().await.unwrap();
    }
    assert_ne!(stage.state(id).await, "final");
    stage.anvil.mine(2).await;
    stage.until(&mut publisher, id, "final").await;
    assert_eq!((stage.results(id).await, stage.publisher_nonce().await), (1, 1));
    assert!(stage.timeline(id).await.contains(&"unmined"));
}

#[tokio::test]
async fn c15_a_result_that_was_final_too_early_is_put_back_and_told_where_it_stands_now() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    let id = stage.submit(1).await[0];
    stage.anvil.mine(3).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.answer(id, DOCUMENT, true).await;
    let mut publisher = stage.publisher().await;
    stage.until(&mut publisher, id, "final").await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.anvil.reorg(1).await;
    assert_eq!(stage.results(id).await, 0);
    catch_up_branch(&stage, &mut watcher).await;
    assert!(
        !stage.alarm("finality_violated"),
        "the submission stands: {:?}",
        stage.alarms.current()
    );
    publisher.step().await.unwrap();
    stage.until(&mut publisher, id, "final").await;
    assert_eq!((stage.results(id).await, stage.publisher_nonce().await), (1, 1));
    let published = match stage.task(id).await.task.state {
        task::State::Final { published: Some((block, _)), .. } => block,
        other => panic!("{other:?}"),
    };
    let head = stage.client().await.head().await.unwrap();
    assert_eq!(published, head, "the block that it stands in now is told");
}

#[tokio::test]
async fn a_chain_that_became_shorter_is_noticed() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    stage.anvil.mine(5).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    let id = stage.submit(1).await[0];
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.anvil.mine(3).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.anvil.rollback(4).await;
    assert_eq!(watcher.poll().await.unwrap_err().code(), "chain_lagging");
    stage.anvil.mine(5).await;
    catch_up_branch(&stage, &mut watcher).await;
    assert_eq!(stage.state(id).await, "withheld");
}

/// Looks until the cursor is the node's newest block, by hash.
async fn catch_up_branch(stage: &Stage, watcher: &mut chain::watcher::Watcher) {
    let client = stage.client().await;
    harness::wait_for("the cursor to be the head", crate::stage::PATIENCE, async || {
        let seen = watcher.poll().await;
        let head = client.head().await.unwrap();
        if watcher.cursor() == head { Ok(()) } else { Err(format!("{seen:?}, {head:?}")) }
    })
    .await;
}
