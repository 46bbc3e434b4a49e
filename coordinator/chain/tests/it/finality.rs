//! What is final can be taken back: nothing that was published for a task ever answers another, and nothing is lost.

use std::time::Duration;

use chain::{Confirmations, publisher, publisher::Publisher, watcher, watcher::Watcher};
use harness::{Misbehaviour, Proxy, wait_for};
use task::TaskId;

use crate::stage::{PATIENCE, Stage, catch_up, client, foreign, key, request};

const DOCUMENT: &str = r#"{"status":"ok","value":144}"#;
const OTHER: &str = r#"{"status":"ok","value":1}"#;
const VIOLATED: &str = "finality_violated";

/// A publisher and a watcher with the same confirmations.
async fn parts(stage: &Stage, confirmations: u64) -> (Watcher, Publisher) {
    let confirmations = Some(Confirmations::Blocks(confirmations));
    let watching = watcher::Options { confirmations, ..stage.watching() };
    let watcher = stage.watcher_with(stage.client().await, watching).await.unwrap();
    let publishing = publisher::Options { confirmations, ..stage.publishing() };
    let publisher = stage.publisher_with(stage.client().await, publishing).await.unwrap();
    (watcher, publisher)
}

/// Takes turns until the task of an id, the newest, is in the state.
async fn until(
    stage: &Stage,
    watcher: &mut Watcher,
    publisher: &mut Publisher,
    id: TaskId,
    state: &str,
) {
    wait_for(&format!("task {id} to be {state}"), PATIENCE, async || {
        let looked = watcher.poll().await;
        let stepped = publisher.step().await;
        match stage.state(id).await {
            // With one confirmation what is mined is final.
            now if now == state || (state, now.as_str()) == ("mined", "final") => Ok(()),
            now => Err(format!("{now}, {looked:?}, {stepped:?}")),
        }
    })
    .await;
}

/// A final result, with `confirmations`; answers the id.
async fn published(
    stage: &Stage,
    watcher: &mut Watcher,
    publisher: &mut Publisher,
    confirmations: u64,
) -> TaskId {
    stage.anvil.mine(3).await;
    let id = stage.submit(1).await[0];
    stage.anvil.mine(confirmations).await;
    catch_up(watcher, stage.anvil.block_number().await - (confirmations - 1)).await;
    stage.answer(id, DOCUMENT, true).await;
    until(stage, watcher, publisher, id, "mined").await;
    stage.anvil.mine(confirmations).await;
    until(stage, watcher, publisher, id, "final").await;
    id
}

async fn steps(watcher: &mut Watcher, publisher: &mut Publisher, count: usize) {
    for _ in 0..count {
        let _ = watcher.poll().await;
        let _ = publisher.step().await;
    }
}

async fn accept(stage: &Stage) -> u64 {
    let mut writer = stage.store.begin().await.unwrap();
    let accepted = writer.accept_violations().await.unwrap();
    writer.commit().await.unwrap();
    accepted
}

async fn submit_another(stage: &Stage) -> TaskId {
    stage.board().await.submit(&key(3), &[request(99)]).await.unwrap().ids[0]
}

async fn an_old_result_never_answers_another_task(confirmations: u64) {
    let stage = Stage::start().await;
    let (mut watcher, mut publisher) = parts(&stage, confirmations).await;
    let id = published(&stage, &mut watcher, &mut publisher, confirmations).await;
    let old = stage.task(id).await.task.local_id;
    // Both the submission and its final result go; another requester gets the id.
    stage.anvil.reorg(2 * confirmations + 2).await;
    assert_eq!(submit_another(&stage).await, id);
    stage.anvil.mine(confirmations + 3).await;
    steps(&mut watcher, &mut publisher, 30).await;
    assert!(stage.alarm(VIOLATED), "{:?}", stage.alarms.current());
    assert_eq!(stage.results(id).await, 0, "nothing stands for the other task");
    assert_eq!(accept(&stage).await, 1);
    let target = stage.anvil.block_number().await - (confirmations - 1);
    catch_up(&mut watcher, target).await;
    stage.answer(id, OTHER, true).await;
    until(&stage, &mut watcher, &mut publisher, id, "mined").await;
    stage.anvil.mine(confirmations).await;
    until(&stage, &mut watcher, &mut publisher, id, "final").await;
    steps(&mut watcher, &mut publisher, 5).await;
    assert_eq!(stage.results(id).await, 1);
    let result = stage.board().await.find_result(id, None).await.unwrap().unwrap();
    assert_eq!(result.document.as_deref(), Some(OTHER.as_bytes()));
    assert!(!stage.alarm(VIOLATED), "{:?}", stage.alarms.current());
    let withheld = stage.store.task(old).await.unwrap().unwrap();
    assert_eq!(withheld.task.state.name(), "withheld");
}

#[tokio::test]
async fn c1_an_old_result_never_answers_another_task_with_1_confirmation() {
    an_old_result_never_answers_another_task(1).await;
}

#[tokio::test]
async fn c1_an_old_result_never_answers_another_task_with_5_confirmations() {
    an_old_result_never_answers_another_task(5).await;
}

#[tokio::test]
async fn c1_an_old_result_never_answers_another_task_with_12_confirmations() {
    an_old_result_never_answers_another_task(12).await;
}

#[tokio::test]
async fn c2_a_nonce_whose_final_block_is_gone_is_used_again_and_nothing_waits_behind_it() {
    let stage = Stage::start().await;
    let (mut watcher, mut publisher) = parts(&stage, 1).await;
    let ids = stage.submit(2).await;
    watcher.poll().await.unwrap();
    stage.answer(ids[0], DOCUMENT, true).await;
    until(&stage, &mut watcher, &mut publisher, ids[0], "final").await;
    assert!(stage.store.unsettled(&stage.account()).await.unwrap().is_empty());
    // The block of the result goes, and the transaction with it; the submissions stay.
    stage.anvil.reorg(1).await;
    assert_eq!(stage.publisher_nonce().await, 0);
    // Restarted, the publisher comes first: nothing has told it yet.
    let (_, mut publisher) = parts(&stage, 1).await;
    publisher.step().await.unwrap();
    stage.answer(ids[1], OTHER, true).await;
    for id in ids {
        until(&stage, &mut watcher, &mut publisher, id, "final").await;
        assert_eq!(stage.results(id).await, 1);
    }
    assert_eq!(stage.publisher_nonce().await, 2);
    assert!(!stage.alarm("key_used_elsewhere"));
}

#[tokio::test]
async fn c3_a_violation_outlasts_errors_empty_answers_and_a_restart() {
    let stage = Stage::start().await;
    let (mut watcher, mut publisher) = parts(&stage, 5).await;
    let id = published(&stage, &mut watcher, &mut publisher, 5).await;
    stage.anvil.reorg(12).await;
    submit_another(&stage).await;
    stage.anvil.mine(6).await;
    steps(&mut watcher, &mut publisher, 5).await;
    assert!(stage.alarm(VIOLATED));
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let confirmations = Some(Confirmations::Blocks(5));
    let watching = watcher::Options { confirmations, ..stage.watching() };
    let mut restarted = stage.watcher_with(client(&proxy.url()).await, watching).await.unwrap();
    let publishing = publisher::Options { confirmations, ..stage.publishing() };
    let mut publishes = stage.publisher_with(client(&proxy.url()).await, publishing).await.unwrap();
    for misbehaviour in [Misbehaviour::DropCall, Misbehaviour::DropReply] {
        proxy.misbehave("eth_getLogs", misbehaviour.clone(), 2);
        proxy.misbehave("eth_getBlockByNumber", misbehaviour, 2);
    }
    stage.answer(id, OTHER, true).await;
    let nonce = stage.publisher_nonce().await;
    steps(&mut restarted, &mut publishes, 20).await;
    assert!(stage.alarm(VIOLATED), "{:?}", stage.alarms.current());
    assert_eq!((stage.publisher_nonce().await, stage.results(id).await), (nonce, 0));
    assert_eq!(accept(&stage).await, 1);
    until(&stage, &mut restarted, &mut publishes, id, "mined").await;
    assert!(!stage.alarm(VIOLATED));
}

#[tokio::test]
async fn c3_a_violation_is_over_when_everything_that_was_final_stands_again() {
    let stage = Stage::start().await;
    let (mut watcher, mut publisher) = parts(&stage, 5).await;
    let id = published(&stage, &mut watcher, &mut publisher, 5).await;
    let submission = stage.task(id).await.task.submission.transaction.unwrap();
    let raw = stage.anvil.raw_transaction(&submission).await;
    stage.anvil.reorg_with(12, &[(raw, 1)]).await;
    wait_for("the alarm", PATIENCE, async || {
        let _ = watcher.poll().await;
        if stage.alarm(VIOLATED) { Ok(()) } else { Err("no alarm".to_owned()) }
    })
    .await;
    stage.anvil.mine(8).await;
    until(&stage, &mut watcher, &mut publisher, id, "finished").await;
    wait_for("the end of the alarm", PATIENCE, async || {
        let _ = watcher.poll().await;
        if stage.alarm(VIOLATED) { Err("alarm".to_owned()) } else { Ok(()) }
    })
    .await;
    stage.answer_again(id, DOCUMENT).await;
    until(&stage, &mut watcher, &mut publisher, id, "mined").await;
    assert_eq!(stage.results(id).await, 1);
}

#[tokio::test]
async fn c4_a_fork_below_everything_that_is_remembered_stops_publishing_and_is_accepted() {
    let stage = Stage::start().await;
    let (mut watcher, mut publisher) = parts(&stage, 1).await;
    let id = published(&stage, &mut watcher, &mut publisher, 1).await;
    for _ in 0..3 {
        stage.anvil.mine(100).await;
        catch_up(&mut watcher, stage.anvil.block_number().await).await;
    }
    let deep = stage.anvil.block_number().await - 3;
    stage.anvil.reorg(deep).await;
    stage.anvil.mine(2).await;
    steps(&mut watcher, &mut publisher, 5).await;
    assert!(stage.alarm(VIOLATED), "{:?}", stage.alarms.current());
    // A restart changes nothing, and ends nothing.
    let (mut watcher, mut publisher) = parts(&stage, 1).await;
    steps(&mut watcher, &mut publisher, 5).await;
    assert!(stage.alarm(VIOLATED), "{:?}", stage.alarms.current());
    assert_eq!(accept(&stage).await, 1);
    catch_up(&mut watcher, 0).await;
    steps(&mut watcher, &mut publisher, 5).await;
    assert!(!stage.alarm(VIOLATED), "{:?}", stage.alarms.current());
    let head = stage.client().await.head().await.unwrap();
    catch_up(&mut watcher, head.number).await;
    assert_eq!(watcher.cursor(), head);
    let again = submit_another(&stage).await;
    assert_eq!(again, id);
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.answer(again, OTHER, true).await;
    until(&stage, &mut watcher, &mut publisher, again, "final").await;
    let result = stage.board().await.find_result(again, None).await.unwrap().unwrap();
    assert_eq!(result.document.as_deref(), Some(OTHER.as_bytes()));
}

#[tokio::test]
async fn c14_a_nonce_that_retention_forgot_is_never_taken_again() {
    let stage = Stage::start().await;
    let (mut watcher, mut publisher) = parts(&stage, 1).await;
    let id = published(&stage, &mut watcher, &mut publisher, 1).await;
    for _ in 0..4 {
        stage.anvil.mine(100).await;
        catch_up(&mut watcher, stage.anvil.block_number().await).await;
    }
    let task = stage.task(id).await;
    let mut writer = stage.store.begin().await.unwrap();
    writer.apply(task, &task::Event::Cleaned, 0).await.unwrap();
    writer.commit().await.unwrap();
    wait_for("the task to be forgotten", PATIENCE, async || {
        // Its block is read a second time before that.
        let looked = watcher.poll().await;
        let mut writer = stage.store.begin().await.unwrap();
        let forgotten = writer.forget_settled(i64::MAX, 100).await.unwrap();
        writer.commit().await.unwrap();
        if forgotten == 1 { Ok(()) } else { Err(format!("{looked:?}")) }
    })
    .await;
    let next = stage.submit(1).await[0];
    watcher.poll().await.unwrap();
    stage.answer(next, OTHER, true).await;
    // The publisher is older than what was forgotten: it counts from its start.
    publisher.step().await.unwrap();
    let outgoing = stage.store.unsettled(&stage.account()).await.unwrap();
    assert_eq!(outgoing.iter().map(|outgoing| outgoing.nonce).collect::<Vec<_>>(), [1]);
    until(&stage, &mut watcher, &mut publisher, next, "final").await;
    assert_eq!((stage.results(next).await, stage.publisher_nonce().await), (1, 2));
    assert!(!stage.alarm("key_used_elsewhere"));
}

#[tokio::test]
async fn c16_a_right_that_comes_back_loses_no_result() {
    let stage = Stage::start().await;
    let (mut watcher, mut publisher) = parts(&stage, 1).await;
    let id = stage.submit(1).await[0];
    watcher.poll().await.unwrap();
    stage.set_coordinator(false).await;
    stage.answer(id, DOCUMENT, true).await;
    wait_for("the alarm", PATIENCE, async || {
        steps(&mut watcher, &mut publisher, 1).await;
        if stage.alarm("rights_withdrawn") { Ok(()) } else { Err(stage.state(id).await) }
    })
    .await;
    let paid = stage.publisher_nonce().await;
    steps(&mut watcher, &mut publisher, 10).await;
    assert_eq!(stage.publisher_nonce().await, paid, "nothing is paid for while the right is away");
    assert_eq!(stage.state(id).await, "publishing");
    stage.set_coordinator(true).await;
    until(&stage, &mut watcher, &mut publisher, id, "final").await;
    assert_eq!(stage.results(id).await, 1);
    assert!(!stage.alarm("rights_withdrawn"));
}

#[tokio::test]
async fn c16_a_right_that_does_not_come_back_ends_the_wait_with_its_reason() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    let options = publisher::Options { rights_grace: Duration::ZERO, ..stage.publishing() };
    let mut publisher = stage.publisher_with(stage.client().await, options).await.unwrap();
    let id = stage.submit(1).await[0];
    watcher.poll().await.unwrap();
    stage.set_coordinator(false).await;
    stage.answer(id, DOCUMENT, true).await;
    until(&stage, &mut watcher, &mut publisher, id, "cancelled").await;
    assert!(stage.timeline(id).await.contains(&"refused"));
}

#[tokio::test]
async fn c17_somebody_else_with_the_key_is_told() {
    let stage = Stage::start().await;
    let (mut watcher, mut publisher) = parts(&stage, 1).await;
    let id = stage.submit(1).await[0];
    watcher.poll().await.unwrap();
    stage.answer(id, DOCUMENT, true).await;
    stage.anvil.set_automine(false).await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let mut blind =
        stage.publisher_with(client(&proxy.url()).await, stage.publishing()).await.unwrap();
    proxy.misbehave("eth_sendRawTransaction", Misbehaviour::DropCall, 1);
    assert_eq!(blind.step().await.unwrap_err().code(), "unreachable");
    stage.anvil.set_automine(true).await;
    let to = Some(stage.anvil.address(0));
    let other = stage.anvil.send(1, to, &[], alloy::primitives::U256::from(1)).await;
    stage.anvil.receipt(&other).await;
    until(&stage, &mut watcher, &mut publisher, id, "final").await;
    assert!(stage.alarm("key_used_elsewhere"), "{:?}", stage.alarms.current());
}

#[tokio::test]
async fn c18_a_cancellation_that_is_gone_leaves_the_task_open() {
    let stage = Stage::start().await;
    let (mut watcher, mut publisher) = parts(&stage, 1).await;
    stage.anvil.mine(2).await;
    let id = stage.submit(1).await[0];
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    let identity = stage.task(id).await.task.identity;
    stage.board().await.cancel(&key(2), &identity).await.unwrap();
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(stage.state(id).await, "cancelled");
    stage.anvil.reorg(1).await;
    watcher.poll().await.unwrap();
    assert_eq!(stage.state(id).await, "requested");
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.answer(id, DOCUMENT, true).await;
    until(&stage, &mut watcher, &mut publisher, id, "final").await;
    assert_eq!(stage.results(id).await, 1);
}

#[tokio::test]
async fn t3_a_result_goes_out_also_when_a_stranger_s_publication_closed_its_id() {
    let stage = Stage::start().await;
    let (mut watcher, mut publisher) = parts(&stage, 1).await;
    let id = stage.submit(1).await[0];
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.publish_elsewhere(&foreign(id, task_board::Tag(7))).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.answer(id, DOCUMENT, true).await;
    until(&stage, &mut watcher, &mut publisher, id, "final").await;
    let result = stage.board().await.find_result(id, None).await.unwrap().unwrap();
    assert_eq!(result.document.as_deref(), Some(DOCUMENT.as_bytes()));
    steps(&mut watcher, &mut publisher, 5).await;
    assert_eq!(
        stage.publisher_nonce().await,
        2,
        "one that found the id closed, one that did not mind"
    );
}

#[tokio::test]
async fn c17_a_late_result_of_a_kept_task_is_not_sent() {
    let stage = Stage::start().await;
    let (mut watcher, mut publisher) = parts(&stage, 1).await;
    let head = stage.anvil.rpc("eth_getBlockByNumber", serde_json::json!(["latest", false])).await;
    let now = u64::from_str_radix(head["timestamp"].as_str().unwrap().trim_start_matches("0x"), 16);
    let deadline = now.unwrap() + 1_000;
    let kept = task_board::Submission {
        fee: alloy::primitives::U256::from(1_000),
        deadline,
        ..request(5)
    };
    let id = stage.board().await.submit(&key(2), &[kept]).await.unwrap().ids[0];
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.anvil.rpc("evm_setNextBlockTimestamp", serde_json::json!([deadline])).await;
    stage.anvil.mine(1).await;
    stage.answer(id, DOCUMENT, true).await;
    until(&stage, &mut watcher, &mut publisher, id, "cancelled").await;
    assert_eq!(stage.publisher_nonce().await, 0, "nothing was paid for");
    assert!(stage.timeline(id).await.contains(&"refused"));
}
