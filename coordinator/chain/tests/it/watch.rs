use std::{collections::BTreeSet, time::Duration};

use harness::{Misbehaviour, Proxy, wait_for};
use serde_json::json;
use task_board::{ENFORCE_DEADLINE, Submission};
use tokio_util::sync::CancellationToken;

use crate::stage::{PATIENCE, Stage, catch_up, client, key, own, request};

#[tokio::test]
async fn tasks_are_picked_up_once_with_everything_their_request_says() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    let one = stage.submit(1).await[0];
    let progress = watcher.poll().await.unwrap();
    assert_eq!(progress.cursor.number, stage.anvil.block_number().await);
    assert!(progress.events >= 1);
    let batch = stage.submit(3).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(watcher.poll().await.unwrap().events, 0);
    stage.apply().await;
    assert_eq!((stage.tasks().await, batch.len()), (4, 3));
    assert_eq!(one.sequence() + 3, batch[2].sequence());

    let task = stage.task(one).await.task;
    assert_eq!(task.submission.requester, own(stage.anvil.address(2)));
    let request = task.submission.request.unwrap();
    let module = request.module.unwrap();
    assert_eq!(module, "bafkreiabaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibae");
    assert_eq!((request.entry.as_deref(), request.timeout_s), (Some("fib"), Some(30)));
    assert_eq!((request.fuel, request.memory_mib, request.deadline_at), (None, None, None));
    assert_eq!(stage.timeline(one).await, ["included"]);
    assert_eq!(task.included.unwrap().number, progress.cursor.number);
}

#[tokio::test]
async fn a_watcher_that_starts_again_goes_on_where_it_was() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    stage.submit(2).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    let cursor = watcher.cursor();
    drop(watcher);
    stage.submit(1).await;
    let mut watcher = stage.watcher().await;
    assert_eq!(watcher.cursor(), cursor);
    assert_eq!(watcher.poll().await.unwrap().events, 1);
    assert_eq!(stage.tasks().await, 3);
}

#[tokio::test]
async fn only_tasks_of_the_chosen_domains_are_taken_and_all_count_for_density() {
    let stage = Stage::start().await;
    let options = chain::watcher::Options { domains: BTreeSet::from([7]), ..stage.watching() };
    let mut watcher = stage.watcher_with(stage.client().await, options).await.unwrap();
    stage.submit(2).await;
    stage.submit(1).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(stage.tasks().await, 0);
}

#[tokio::test]
async fn blocks_that_are_not_deep_enough_wait() {
    let stage = Stage::start().await;
    let options = chain::watcher::Options {
        confirmations: Some(chain::Confirmations::Blocks(3)),
        ..stage.watching()
    };
    let mut watcher = stage.watcher_with(stage.client().await, options).await.unwrap();
    stage.submit(1).await;
    stage.anvil.mine(1).await;
    watcher.poll().await.unwrap();
    assert_eq!(stage.tasks().await, 0);
    stage.anvil.mine(1).await;
    watcher.poll().await.unwrap();
    assert_eq!(stage.tasks().await, 1);
}

#[tokio::test]
async fn a_cancellation_counts_only_when_it_is_the_requester_s() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    let id = stage.submit(1).await[0];
    let board = stage.board().await;
    board.cancel(&key(3), &stage.identity(id).await).await.unwrap();
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(stage.state(id).await, "requested");
    board.cancel(&key(2), &stage.identity(id).await).await.unwrap();
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(stage.state(id).await, "cancelled");
}

#[tokio::test]
async fn a_task_that_expired_needs_no_result() {
    let stage = Stage::start().await;
    let mut watcher = stage.watcher().await;
    let latest = stage.anvil.rpc("eth_getBlockByNumber", json!(["latest", false])).await;
    let now = u64::from_str_radix(&latest["timestamp"].as_str().unwrap()[2..], 16).unwrap();
    let kept = Submission { deadline: now + 100, flags: ENFORCE_DEADLINE, ..request(1) };
    let board = stage.board().await;
    let id = board.submit(&key(2), &[kept]).await.unwrap().ids[0];
    let identity = stage.identity(id).await;
    assert_eq!(board.expire(&key(3), &identity).await.unwrap_err().code(), "deadline_not_passed");
    stage.anvil.rpc("evm_increaseTime", json!([200])).await;
    stage.anvil.mine(1).await;
    board.expire(&key(3), &identity).await.unwrap();
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(stage.state(id).await, "cancelled");
    assert_eq!(stage.timeline(id).await, ["included", "expired"]);
}

#[tokio::test]
async fn e05_a_node_that_answers_nothing_where_there_is_something_is_not_believed() {
    let stage = Stage::start().await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let mut watcher =
        stage.watcher_with(client(&proxy.url()).await, stage.watching()).await.unwrap();
    stage.submit(3).await;
    proxy.misbehave("eth_getLogs", Misbehaviour::Answer(json!([])), 3);
    let before = watcher.cursor();
    let error = watcher.poll().await.unwrap_err();
    assert_eq!((error.code(), watcher.cursor()), ("sequence_gap", before));
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(stage.tasks().await, 3);
    assert!(!stage.alarm("sequence_gap"));
}

#[tokio::test]
async fn e05_a_hole_that_was_passed_is_read_again_when_the_sequence_jumps() {
    let stage = Stage::start().await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let mut watcher =
        stage.watcher_with(client(&proxy.url()).await, stage.watching()).await.unwrap();
    stage.submit(1).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    // The node leaves a task out, each time it is asked, and cannot count tasks for us either.
    let no_state = Misbehaviour::Error { code: -32_000, message: "missing trie node".to_owned() };
    stage.submit(2).await;
    proxy.misbehave("eth_getLogs", Misbehaviour::Answer(json!([])), 2);
    proxy.misbehave("eth_call", no_state, 100);
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(stage.tasks().await, 1);
    stage.submit(1).await;
    assert_eq!(watcher.poll().await.unwrap_err().code(), "sequence_gap");
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(stage.tasks().await, 4);
}

#[tokio::test]
async fn e07_limits_of_the_node_halve_the_range_and_are_waited_out() {
    let stage = Stage::start().await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let mut watcher =
        stage.watcher_with(client(&proxy.url()).await, stage.watching()).await.unwrap();
    for _ in 0..5 {
        stage.submit(4).await;
        stage.anvil.mine(100).await;
    }
    let status = |status, retry_after_s| Misbehaviour::Status { status, retry_after_s };
    proxy.misbehave("eth_getLogs", status(413, None), 2);
    proxy.misbehave("eth_getLogs", status(429, Some(1)), 2);
    proxy.misbehave("eth_getLogs", Misbehaviour::MostBlocks(40), 10_000);
    let began = std::time::Instant::now();
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "Retry-After is honoured");
    assert_eq!(stage.tasks().await, 20);
    assert!(proxy.count("eth_getLogs") < 60, "{} calls", proxy.count("eth_getLogs"));
}

#[tokio::test]
async fn a_running_watcher_is_woken_by_a_web_socket_long_before_it_would_look_again() {
    let stage = Stage::start().await;
    let urls = format!("{},{}", stage.anvil.url(), stage.anvil.ws_url());
    let options = chain::watcher::Options {
        poll_interval: Some(Duration::from_secs(600)),
        ..stage.watching()
    };
    let watcher = stage.watcher_with(client(&urls).await, options).await.unwrap();
    let cancel = CancellationToken::new();
    let running = tokio::spawn(watcher.run(cancel.clone()));
    wait_for("a task", PATIENCE, async || {
        // Until the subscription stands nothing wakes it.
        stage.anvil.mine(1).await;
        stage.submit(1).await;
        match stage.tasks().await {
            0 => Err("no task".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    cancel.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn polling_goes_on_when_the_web_socket_is_dead() {
    let stage = Stage::start().await;
    let urls = format!("{},ws://127.0.0.1:9", stage.anvil.url());
    let watcher = stage.watcher_with(client(&urls).await, stage.watching()).await.unwrap();
    let cancel = CancellationToken::new();
    let running = tokio::spawn(watcher.run(cancel.clone()));
    stage.submit(1).await;
    wait_for("the task", PATIENCE, async || match stage.tasks().await {
        0 => Err("no task".to_owned()),
        _ => Ok(()),
    })
    .await;
    cancel.cancel();
    running.await.unwrap().unwrap();
}
