//! Providers that misbehave: what was read is whole, whatever they do.

use std::{sync::Arc, time::Duration};

use chain::{
    Alarms, Client, ClientOptions, Endpoints,
    publisher::Publisher,
    watcher::{self, Watcher},
};
use harness::{
    Misbehaviour, Proxy,
    balancer::{Balancer, Trouble, Weather},
    wait_for,
};
use serde_json::json;
use store::{Filter, Store};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::stage::{ENGINE, PATIENCE, Stage, catch_up, client, key, request};

const FOR_EVER: usize = usize::MAX;

fn error(code: i64, message: &str) -> Misbehaviour {
    Misbehaviour::Error { code, message: message.to_owned() }
}

/// A client that gives up soon.
async fn quick(urls: &str) -> Client {
    let options = ClientOptions { request_timeout: Duration::from_millis(600) };
    Client::connect(&Endpoints::parse(urls).unwrap(), options).await.unwrap()
}

/// Second looks come at once.
fn watching(stage: &Stage) -> watcher::Options {
    watcher::Options { second_look_after: Some(Duration::ZERO), ..stage.watching() }
}

/// A watcher runs on these endpoints until there are so many tasks.
async fn runs_until(stage: &Stage, through: Client, tasks: usize) {
    let options =
        watcher::Options { poll_interval: Some(Duration::from_millis(20)), ..watching(stage) };
    let watcher = stage.watcher_with(through, options).await.unwrap();
    let cancel = CancellationToken::new();
    let running = tokio::spawn(watcher.run(cancel.clone()));
    wait_for("the tasks", PATIENCE, async || match stage.tasks().await {
        found if found == tasks => Ok(()),
        found => Err(format!("{found} tasks, {:?}", stage.alarms.current())),
    })
    .await;
    cancel.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn c5_one_address_over_nodes_that_are_apart_loses_nothing_and_takes_nothing_back() {
    let stage = Stage::start().await;
    for seed in 1..=3 {
        let balancer = Balancer::start(&stage.anvil.url(), seed).await.unwrap();
        let mut watcher =
            stage.watcher_with(client(&balancer.url()).await, watching(&stage)).await.unwrap();
        balancer.set(Weather {
            behind: 450,
            most_behind: 3,
            troubles: vec![(Trouble::NoHeader, 60), (Trouble::NoLogs, 60)],
        });
        let before = stage.tasks().await;
        let mut ids = Vec::new();
        for _ in 0..12 {
            ids.extend(stage.submit(2).await);
            balancer.look().await.unwrap();
            for _ in 0..3 {
                let _ = watcher.poll().await;
            }
        }
        balancer.set(Weather::default());
        catch_up(&mut watcher, stage.anvil.block_number().await).await;
        assert_eq!(stage.tasks().await, before + 24, "seed {seed}");
        stage.apply().await;
        for id in ids {
            assert_eq!(stage.timeline(id).await, ["included"], "seed {seed}");
        }
        assert!(!stage.alarm("sequence_gap"));
    }
}

#[tokio::test]
async fn c5_in_a_storm_nothing_is_lost_and_cancellations_neither() {
    let stage = Stage::start().await;
    let balancer = Balancer::start(&stage.anvil.url(), 7).await.unwrap();
    let through = quick(&balancer.url()).await;
    let options =
        watcher::Options { poll_interval: Some(Duration::from_millis(20)), ..watching(&stage) };
    let watcher = stage.watcher_with(through, options).await.unwrap();
    let cancel = CancellationToken::new();
    let running = tokio::spawn(watcher.run(cancel.clone()));
    balancer.set(Weather::storm(100));
    let mut ids = Vec::new();
    for round in 0..25 {
        ids.extend(stage.submit(1).await);
        if round % 3 == 0 {
            let identity = stage.identity(ids[round]).await;
            stage.board().await.cancel(&key(2), &identity).await.unwrap();
        }
        balancer.look().await.unwrap();
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    balancer.set(Weather::default());
    wait_for("all events", PATIENCE, async || {
        stage.apply().await;
        let mut missing = Vec::new();
        for (round, id) in ids.iter().enumerate() {
            let filter = Filter { task_id: Some(*id), limit: 1, ..Filter::default() };
            let tasks = stage.store.tasks(&filter).await.unwrap();
            let wanted = if round % 3 == 0 { "cancelled" } else { "requested" };
            if tasks.first().is_none_or(|task| task.task.state.name() != wanted) {
                missing.push(round);
            }
        }
        match missing.is_empty() {
            true => Ok(()),
            false => Err(format!("{missing:?} of {:?}", balancer.injected())),
        }
    })
    .await;
    for id in ids {
        let timeline = stage.timeline(id).await;
        assert!(!timeline.contains(&"dropped"), "{timeline:?}");
    }
    cancel.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn c5_a_header_that_is_not_there_is_no_reorganisation() {
    let stage = Stage::start().await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let mut watcher =
        stage.watcher_with(client(&proxy.url()).await, stage.watching()).await.unwrap();
    let id = stage.submit(1).await[0];
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    let cursor = watcher.cursor();
    stage.anvil.mine(100).await;
    // The head is there, then nothing is.
    let head = stage.anvil.rpc("eth_getBlockByNumber", json!(["latest", false])).await;
    proxy.misbehave("eth_getBlockByNumber", Misbehaviour::Answer(head), 1);
    proxy.misbehave("eth_getBlockByNumber", Misbehaviour::Answer(json!(null)), 30);
    for _ in 0..8 {
        watcher.poll().await.unwrap_err();
    }
    assert_eq!(watcher.cursor(), cursor);
    proxy.heal();
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.apply().await;
    assert_eq!(stage.timeline(id).await, ["included"]);
}

#[tokio::test]
async fn c5_what_was_whole_is_known_after_a_restart_and_a_hole_is_read_again_from_there() {
    let stage = Stage::start().await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let slow =
        watcher::Options { second_look_after: Some(Duration::from_secs(600)), ..stage.watching() };
    let mut watcher = stage.watcher_with(client(&proxy.url()).await, slow.clone()).await.unwrap();
    stage.submit(1).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    // Nobody counts, and a block's logs are left out whenever they are asked for.
    proxy.misbehave("eth_call", error(-32_000, "missing trie node"), FOR_EVER);
    stage.submit(2).await;
    proxy.misbehave("eth_getLogs", Misbehaviour::Answer(json!([])), 2);
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.anvil.mine(5).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(stage.tasks().await, 1);
    drop(watcher);
    let mut watcher = stage.watcher_with(client(&proxy.url()).await, slow).await.unwrap();
    stage.submit(1).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(stage.tasks().await, 4);
    assert!(!stage.alarm("sequence_gap"));
}

#[tokio::test]
async fn c5_the_sequence_is_known_after_a_reorganisation_though_nobody_counts() {
    let stage = Stage::start().await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let mut watcher =
        stage.watcher_with(client(&proxy.url()).await, stage.watching()).await.unwrap();
    stage.submit(1).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.anvil.mine(2).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.submit(2).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    proxy.misbehave("eth_call", error(-32_000, "header not found"), FOR_EVER);
    stage.anvil.reorg(2).await;
    let progress = watcher.poll().await.unwrap();
    assert!(progress.more, "{progress:?}");
    let board = store::Board { chain_id: 31_337, contract: stage.contract };
    let row = stage.store.chain(&board).await.unwrap().unwrap();
    assert_eq!((row.next_sequence, row.cursor), (2, watcher.cursor()));
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    // A hole is seen as before.
    stage.submit(1).await;
    proxy.misbehave("eth_getLogs", Misbehaviour::Answer(json!([])), 2);
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.submit(1).await;
    assert_eq!(watcher.poll().await.unwrap_err().code(), "sequence_gap");
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    // The second task of the branch that is gone is the first of the new one; its third is not.
    assert_eq!(stage.tasks().await, 4);
}

#[tokio::test]
async fn c17_a_cancellation_that_was_left_out_is_found_at_once_by_the_filter_of_its_block() {
    let stage = Stage::start().await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let mut watcher =
        stage.watcher_with(client(&proxy.url()).await, stage.watching()).await.unwrap();
    let id = stage.submit(1).await[0];
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.board().await.cancel(&key(2), &stage.identity(id).await).await.unwrap();
    proxy.misbehave("eth_getLogs", Misbehaviour::Answer(json!([])), 1);
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(stage.state(id).await, "cancelled");
    assert!(stage.alarm("provider_inconsistent"), "{:?}", stage.alarms.current());
}

#[tokio::test]
async fn c17_a_cancellation_that_was_left_out_again_is_found_by_the_second_look() {
    let stage = Stage::start().await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let mut watcher =
        stage.watcher_with(client(&proxy.url()).await, watching(&stage)).await.unwrap();
    let id = stage.submit(1).await[0];
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.board().await.cancel(&key(2), &stage.identity(id).await).await.unwrap();
    proxy.misbehave("eth_getLogs", Misbehaviour::Answer(json!([])), 2);
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    wait_for("the cancellation", PATIENCE, async || {
        let seen = watcher.poll().await;
        match stage.state(id).await.as_str() {
            "cancelled" => Ok(()),
            state => Err(format!("{state} after {seen:?}")),
        }
    })
    .await;
    assert!(stage.alarm("provider_inconsistent"), "{:?}", stage.alarms.current());
    assert_eq!(stage.timeline(id).await, ["included", "cancel_requested"]);
}

#[tokio::test]
async fn c6_a_node_that_keeps_128_blocks_of_state_is_enough() {
    let stage = Stage::start().await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    for method in ["eth_call", "eth_getCode", "eth_getBalance", "eth_getTransactionCount"] {
        proxy.misbehave(method, Misbehaviour::StateOf(128), FOR_EVER);
    }
    stage.anvil.mine(300).await;
    let early = stage.submit(1).await[0];
    stage.anvil.mine(300).await;
    let through = client(&proxy.url()).await;
    let board = chain::Board::new(through.clone(), stage.contract);
    assert!(board.find_submission(early, None).await.unwrap().is_some());
    assert_eq!(board.engine_id(ENGINE).await.unwrap(), Some(1));
    let mut watcher = stage.watcher_with(through.clone(), stage.watching()).await.unwrap();
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(stage.tasks().await, 1);
    stage.publisher_with(through.clone(), stage.publishing()).await.unwrap();
    // What was found once is remembered: a restart searches nothing.
    let before = proxy.count("eth_getLogs");
    stage.publisher_with(through.clone(), stage.publishing()).await.unwrap();
    stage.watcher_with(through, stage.watching()).await.unwrap();
    assert_eq!(proxy.count("eth_getLogs"), before);
}

#[tokio::test]
async fn c6_a_reader_that_does_not_find_the_beginning_says_what_to_set() {
    let stage = Stage::start().await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    stage.submit(2).await;
    proxy.misbehave("eth_getLogs", Misbehaviour::Answer(json!([])), FOR_EVER);
    let through = client(&proxy.url()).await;
    let error = stage.watcher_with(through.clone(), stage.watching()).await.unwrap_err();
    assert_eq!((error.code(), error.retry()), ("no_beginning", false));
    assert!(error.to_string().contains("COORDINATOR_FROM_BLOCK"), "{error}");
    proxy.heal();
    let options = watcher::Options { from_block: Some(1), ..stage.watching() };
    let mut watcher = stage.watcher_with(through, options).await.unwrap();
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(stage.tasks().await, 2);
}

#[tokio::test]
async fn c7_an_endpoint_whose_quota_is_used_up_is_left_for_the_next_one() {
    let stage = Stage::start().await;
    let mut tasks = 0;
    for (code, message) in [
        (-32_005, "daily request count exceeded, request rate limited"),
        (-32_000, "rate limit exceeded"),
        (-32_603, "capacity exceeded, upgrade your plan"),
        (-32_601, "the method is not available in your plan"),
        (-32_000, "something nobody has read before"),
    ] {
        let proxy = Proxy::start(&stage.anvil.url()).await;
        let urls = format!("{},{}", proxy.url(), stage.anvil.url());
        let through = client(&urls).await;
        proxy.misbehave("*", error(code, message), FOR_EVER);
        stage.submit(1).await;
        tasks += 1;
        runs_until(&stage, through.clone(), tasks).await;
        let board = chain::Board::new(through, stage.contract);
        board.submit(&key(2), &[request(1)]).await.unwrap();
        tasks += 1;
    }
}

#[tokio::test]
async fn c7_an_error_that_all_endpoints_give_is_told_as_they_give_it() {
    let stage = Stage::start().await;
    let proxies = [Proxy::start(&stage.anvil.url()).await, Proxy::start(&stage.anvil.url()).await];
    let through = client(&format!("{},{}", proxies[0].url(), proxies[1].url())).await;
    for proxy in &proxies {
        proxy.misbehave("eth_gasPrice", error(-32_000, "the pool\nis closed"), 1);
    }
    let error = chain::Quote::of_free_task(&through, None).await.unwrap_err();
    assert_eq!(error.code(), "rpc_error");
    assert!(error.to_string().ends_with("error -32000: the pool is closed"), "{error}");
    assert!(proxies.iter().all(|proxy| proxy.count("eth_gasPrice") == 1));
}

#[tokio::test]
async fn c8_what_one_endpoint_asks_for_makes_nobody_wait_who_has_another() {
    let stage = Stage::start().await;
    let mut tasks = 0;
    for text in ["18446744073709551615", "9223372036854775807", "100000000", "90", "-1", "soon"] {
        let proxy = Proxy::start(&stage.anvil.url()).await;
        let through = client(&format!("{},{}", proxy.url(), stage.anvil.url())).await;
        for status in [429, 503] {
            let fault = Misbehaviour::RetryAfter { status, text: text.to_owned() };
            proxy.misbehave("*", fault, 1);
        }
        stage.submit(1).await;
        tasks += 1;
        runs_until(&stage, through, tasks).await;
    }
}

#[tokio::test]
async fn c9_a_range_that_fails_in_any_way_becomes_smaller() {
    let stage = Stage::start().await;
    for _ in 0..4 {
        stage.submit(1).await;
        stage.anvil.mine(90).await;
    }
    let status = |status| Misbehaviour::Status { status, retry_after_s: None };
    for fault in [
        error(-32_000, "limited to a 60 blocks range"),
        error(-32_000, "response too large"),
        error(-32_602, "range too wide"),
        error(-32_005, "limit exceeded"),
        error(-32_603, "words that nobody has read before"),
        status(504),
        status(500),
        status(413),
        Misbehaviour::Delay(Duration::from_secs(5)),
        Misbehaviour::Body("{\"jsonrpc\":\"2.0\",\"result\":[{\"addr".to_owned()),
        Misbehaviour::Body("<html>busy</html>".to_owned()),
        Misbehaviour::Body(String::new()),
        Misbehaviour::DropReply,
    ] {
        let proxy = Proxy::start(&stage.anvil.url()).await;
        let shown = format!("{fault:?}");
        let fault = Misbehaviour::WiderThan { most: 60, otherwise: Box::new(fault) };
        proxy.misbehave("eth_getLogs", fault, FOR_EVER);
        let through = quick(&proxy.url()).await;
        // A database of its own: everything is looked for. The start is as patient as what follows.
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("coordinator.db")).await.unwrap();
        let wakes = Arc::<Notify>::default();
        Publisher::open(
            through.clone(),
            store.clone(),
            key(1),
            stage.publishing(),
            Arc::clone(&wakes),
            Arc::clone(&wakes),
            Alarms::default(),
        )
        .await
        .unwrap();
        let options = stage.watching();
        let mut watcher =
            Watcher::open(through, store.clone(), options, wakes, Alarms::default()).await.unwrap();
        catch_up(&mut watcher, stage.anvil.block_number().await).await;
        let filter = Filter { limit: 100, ..Filter::default() };
        assert_eq!(store.tasks(&filter).await.unwrap().len(), 4, "{shown}");
        let calls = proxy.count("eth_getLogs");
        assert!(calls < 80, "{calls} calls with {shown}");
    }
}

#[tokio::test]
async fn c9_a_range_that_one_endpoint_never_gives_is_read_from_another() {
    let stage = Stage::start().await;
    stage.submit(2).await;
    stage.anvil.mine(100).await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let through = client(&format!("{},{}", proxy.url(), stage.anvil.url())).await;
    proxy.misbehave("eth_getLogs", error(-32_000, "query returned more than 0 results"), FOR_EVER);
    runs_until(&stage, through, 2).await;
}

#[tokio::test]
async fn e08_the_chain_that_the_store_knows_is_taken_from_whichever_endpoint_serves_it() {
    let stage = Stage::start().await;
    let other = harness::Anvil::start_with(&["--timestamp", "1"]).await;
    let known = stage.client().await;
    let urls = format!("{},{}", other.url(), stage.anvil.url());
    let endpoints = Endpoints::parse(&urls).unwrap();
    let wanted = Some((known.chain_id(), known.genesis()));
    let options = ClientOptions::default();
    let found = Client::connect_to(&endpoints, options, wanted).await.unwrap();
    assert_eq!(found.genesis(), known.genesis());
    let wrong = Endpoints::parse(&other.url()).unwrap();
    let error = Client::connect_to(&wrong, options, wanted).await.unwrap_err();
    assert_eq!((error.code(), error.retry()), ("wrong_chain", false));
}

#[tokio::test]
async fn c11_half_open_sockets_silence_nobody() {
    let stage = Stage::start().await;
    // It takes connections and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let keeping = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((socket, _)) = silent.accept().await {
            kept.push(socket);
        }
    });
    stage.submit(1).await;
    let urls = format!("http://{address},{},ws://{address}", stage.anvil.url());
    runs_until(&stage, quick(&urls).await, 1).await;
    let options = ClientOptions { request_timeout: Duration::from_millis(200) };
    let alone = Endpoints::parse(&format!("ws://{address}")).unwrap();
    let error = Client::connect(&alone, options).await.unwrap_err();
    assert_eq!((error.code(), error.retry()), ("unreachable", true));
    keeping.abort();
}
