use std::time::Duration;

use chain::{Client, ClientOptions, Endpoints};
use harness::{Anvil, Misbehaviour, Proxy, wait_for};
use serde_json::json;

use crate::stage::{PATIENCE, Stage, catch_up, client, key, request};

/// How often an endpoint is asked that fails at once.
const TRIES: usize = 3;

#[tokio::test]
async fn a_call_that_gets_lost_now_and_then_is_made_again_at_once() {
    let stage = Stage::start().await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let mut watcher =
        stage.watcher_with(client(&proxy.url()).await, stage.watching()).await.unwrap();
    stage.submit(1).await;
    proxy.misbehave("eth_getBlockByNumber", Misbehaviour::DropReply, 1);
    proxy.misbehave("eth_getLogs", Misbehaviour::DropCall, TRIES - 1);
    assert_eq!(watcher.poll().await.unwrap().events, 1);
}

#[tokio::test]
async fn calls_fall_over_to_the_next_endpoint_and_back() {
    let stage = Stage::start().await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let urls = format!("{},{}", proxy.url(), stage.anvil.url());
    let mut watcher = stage.watcher_with(client(&urls).await, stage.watching()).await.unwrap();
    stage.submit(1).await;
    let before = proxy.count("eth_getLogs");
    proxy.misbehave("eth_getLogs", Misbehaviour::DropCall, TRIES);
    assert_eq!(watcher.poll().await.unwrap_err().code(), "unreachable");
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!((stage.tasks().await, proxy.count("eth_getLogs")), (1, before + TRIES));
    wait_for("the first endpoint to be asked again", PATIENCE, async || {
        stage.submit(1).await;
        catch_up(&mut watcher, stage.anvil.block_number().await).await;
        match proxy.count("eth_getLogs") == before + TRIES {
            true => Err("it was not".to_owned()),
            false => Ok(()),
        }
    })
    .await;
}

#[tokio::test]
async fn e08_another_chain_is_refused_and_the_cursor_stays() {
    let stage = Stage::start().await;
    let other = Anvil::start_with(&["--timestamp", "1"]).await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let urls = format!("{},{}", proxy.url(), other.url());
    let mut watcher = stage.watcher_with(client(&urls).await, stage.watching()).await.unwrap();
    let cursor = watcher.cursor();
    proxy.misbehave("eth_getBlockByNumber", Misbehaviour::DropCall, TRIES);
    stage.submit(1).await;
    assert_eq!(watcher.poll().await.unwrap_err().code(), "unreachable");
    let error = watcher.poll().await.unwrap_err();
    assert!(error.to_string().contains("with genesis"), "{error}");
    assert_eq!(watcher.cursor(), cursor);
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(stage.tasks().await, 1);

    // The store knows the chain: a start with another one is refused.
    let error = stage.watcher_with(client(&other.url()).await, stage.watching()).await.unwrap_err();
    assert_eq!((error.code(), error.retry()), ("wrong_chain", false));
}

#[tokio::test]
async fn web_sockets_alone_are_enough() {
    let stage = Stage::start().await;
    let client = client(&stage.anvil.ws_url()).await;
    let board = chain::Board::new(client.clone(), stage.contract);
    let id = board.submit(&key(2), &[request(1)]).await.unwrap().ids[0];
    let mut watcher = stage.watcher_with(client, stage.watching()).await.unwrap();
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    assert_eq!(stage.state(id).await, "requested");
    let nobodys = task::Identity { task_id: task::TaskId(99), ..stage.identity(id).await };
    assert_eq!(board.cancel(&key(2), &nobodys).await.unwrap_err().code(), "unknown_task");
}

#[tokio::test]
async fn an_endpoint_that_is_silent_is_given_up_in_time() {
    let stage = Stage::start().await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let endpoints =
        Endpoints::parse(&proxy.url().replace("http://", "http://user:secret@")).unwrap();
    let options = ClientOptions { request_timeout: Duration::from_millis(200) };
    proxy.misbehave("eth_chainId", Misbehaviour::Delay(Duration::from_secs(30)), TRIES);
    let began = std::time::Instant::now();
    let error = Client::connect(&endpoints, options).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!((error.code(), error.retry()), ("unreachable", true));
    assert!(!format!("{error} {error:?}").contains("secret"));
    let client = Client::connect(&endpoints, options).await.unwrap();
    proxy.misbehave("eth_getBalance", Misbehaviour::Answer(json!({"not": "a number"})), TRIES);
    let error = client.balance(stage.contract).await.unwrap_err();
    assert_eq!(error.code(), "unreadable_answer");
    assert!(!format!("{client:?} {error:?}").contains("secret"));
}
