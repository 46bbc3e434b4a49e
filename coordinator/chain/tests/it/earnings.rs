//! What the publisher has earned is paid out with its own nonces, once, whatever happens on the way.

use alloy::primitives::U256;
use chain::{Confirmations, publisher, publisher::Publisher};
use harness::{Misbehaviour, Proxy, wait_for};
use store::{Board, Withdrawal};

use crate::stage::{PATIENCE, Stage, catch_up, client, key, own, request};

const DOCUMENT: &str = r#"{"status":"ok","value":144}"#;
const FEE_WEI: u128 = 1_000_000;
/// Account 5 never sends anything: its balance changes by what is paid to it alone.
const RECIPIENT: usize = 5;

/// A publisher that has earned a fee, with three confirmations.
async fn earned(stage: &Stage) -> Publisher {
    let mut watcher = stage.watcher().await;
    let paid = task_board::Submission { fee: U256::from(FEE_WEI), ..request(5) };
    let id = stage.board().await.submit(&key(2), &[paid]).await.unwrap().ids[0];
    stage.anvil.mine(3).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.answer(id, DOCUMENT, true).await;
    let mut publisher = careful(stage).await;
    stage.until(&mut publisher, id, "mined").await;
    stage.anvil.mine(3).await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    stage.until(&mut publisher, id, "final").await;
    publisher
}

async fn careful(stage: &Stage) -> Publisher {
    let options =
        publisher::Options { confirmations: Some(Confirmations::Blocks(3)), ..stage.publishing() };
    stage.publisher_with(stage.client().await, options).await.unwrap()
}

fn board(stage: &Stage) -> Board {
    Board { chain_id: stage.account().chain_id, contract: stage.contract }
}

async fn request_withdrawal(stage: &Stage) -> Withdrawal {
    let recipient = own(stage.anvil.address(RECIPIENT));
    let mut writer = stage.store.begin().await.unwrap();
    let sender = stage.account().sender;
    let asked = writer.request_withdrawal(&board(stage), &sender, &recipient, 1).await.unwrap();
    writer.commit().await.unwrap();
    asked
}

async fn withdrawals(stage: &Stage) -> Vec<Withdrawal> {
    stage.store.withdrawals(&board(stage), &stage.account().sender, 10).await.unwrap()
}

async fn until(stage: &Stage, publisher: &mut Publisher, state: &str) -> Withdrawal {
    wait_for(&format!("the withdrawal to be {state}"), PATIENCE, async || {
        let step = publisher.step().await;
        let newest = withdrawals(stage).await.remove(0);
        if newest.state.name() == state { Ok(newest) } else { Err(format!("{newest:?} {step:?}")) }
    })
    .await
}

async fn balance(stage: &Stage) -> U256 {
    let address = stage.anvil.address(RECIPIENT).to_string();
    let wei = stage.anvil.rpc("eth_getBalance", serde_json::json!([address, "latest"])).await;
    wei.as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn v12_earnings_are_paid_out_once_and_the_next_time_there_is_nothing() {
    let stage = Stage::start().await;
    let mut publisher = earned(&stage).await;
    let credit = stage.board().await.credit(stage.account().sender).await.unwrap();
    assert_eq!(credit, FEE_WEI);
    let before = balance(&stage).await;
    let first = request_withdrawal(&stage).await;
    assert_eq!(request_withdrawal(&stage).await, first, "one that waits already is enough");
    let paid = until(&stage, &mut publisher, "mined").await;
    assert_eq!(paid.amount_wei, Some(FEE_WEI));
    assert_eq!(balance(&stage).await - before, U256::from(FEE_WEI));
    let seen = stage.store.earnings(&board(&stage), &stage.account().sender).await.unwrap();
    assert_eq!(seen.unwrap().credit_wei, 0, "read again after it was paid");
    // A second one is another withdrawal: it finds nothing and says so, once its transaction is deep.
    assert_ne!(request_withdrawal(&stage).await.id, first.id);
    until(&stage, &mut publisher, "refused").await;
    stage.anvil.mine(3).await;
    let mut watcher = stage.watcher().await;
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    let refused = until(&stage, &mut publisher, "given_up").await;
    assert_eq!(refused.state.reason().unwrap().code, "nothing_to_withdraw");
    assert_eq!(withdrawals(&stage).await[1].state.name(), "final");
    assert_eq!(balance(&stage).await - before, U256::from(FEE_WEI));
    assert!(!stage.alarm("key_used_elsewhere"));
}

#[tokio::test]
async fn v12_a_payment_that_is_reorged_out_is_made_again_and_not_twice() {
    let stage = Stage::start().await;
    let mut publisher = earned(&stage).await;
    let before = balance(&stage).await;
    request_withdrawal(&stage).await;
    until(&stage, &mut publisher, "mined").await;
    stage.anvil.reorg(1).await;
    assert_eq!(balance(&stage).await, before, "taken back");
    let mut was_sent = false;
    wait_for("the payment to stand again", PATIENCE, async || {
        publisher.step().await.unwrap();
        let withdrawal = withdrawals(&stage).await.remove(0);
        was_sent |= withdrawal.amount_wei.is_none();
        match balance(&stage).await == before {
            false if withdrawal.state.name() == "mined" => Ok(()),
            _ => Err(format!("{withdrawal:?}")),
        }
    })
    .await;
    assert!(was_sent, "it was told that it did not stand");
    assert_eq!(balance(&stage).await - before, U256::from(FEE_WEI));
}

#[tokio::test]
async fn v12_what_was_signed_before_a_restart_is_what_is_paid_after_it() {
    let stage = Stage::start().await;
    let mut publisher = earned(&stage).await;
    let before = balance(&stage).await;
    let nonce = stage.publisher_nonce().await;
    stage.anvil.set_automine(false).await;
    request_withdrawal(&stage).await;
    until(&stage, &mut publisher, "sent").await;
    drop(publisher);
    let mut publisher = careful(&stage).await;
    publisher.step().await.unwrap();
    assert_eq!(withdrawals(&stage).await[0].state.nonce(), Some(nonce));
    stage.anvil.mine(1).await;
    until(&stage, &mut publisher, "mined").await;
    stage.anvil.mine(1).await;
    assert_eq!(stage.publisher_nonce().await, nonce + 1);
    assert_eq!(balance(&stage).await - before, U256::from(FEE_WEI));
}

#[tokio::test]
async fn v12_a_withdrawal_whose_nonce_somebody_took_goes_out_with_the_next() {
    let stage = Stage::start().await;
    drop(earned(&stage).await);
    let before = balance(&stage).await;
    let nonce = stage.publisher_nonce().await;
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let mut publisher =
        stage.publisher_with(client(&proxy.url()).await, stage.publishing()).await.unwrap();
    request_withdrawal(&stage).await;
    proxy.misbehave("eth_sendRawTransaction", Misbehaviour::DropCall, 1);
    assert_eq!(publisher.step().await.unwrap_err().code(), "unreachable");
    let other = stage.anvil.send(1, Some(stage.anvil.address(0)), &[], U256::from(1)).await;
    stage.anvil.receipt(&other).await;
    assert_eq!(stage.publisher_nonce().await, nonce + 1);
    let paid = until(&stage, &mut publisher, "mined").await;
    assert_eq!(paid.state.nonce(), Some(nonce + 1));
    assert_eq!(balance(&stage).await - before, U256::from(FEE_WEI));
    assert!(stage.alarm("key_used_elsewhere"));
}
