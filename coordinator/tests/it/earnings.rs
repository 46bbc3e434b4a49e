//! What a coordinator has earned is seen and paid out while it runs.

use alloy::{
    primitives::{Address, U256},
    providers::Provider as _,
};
use harness::{scene::Scene, wait_for};
use serde_json::Value;
use task_board::Submission;

use crate::stage::{PATIENCE, client, reaches, run, said, stage, stop};

const FEE_WEI: u64 = 1_000_000_000_000_000;
const RECIPIENT: &str = "0x00000000000000000000000000000000000000a5";

async fn paid_task(scene: &Scene) -> task_board::TaskId {
    let submission =
        Submission { fee: U256::from(FEE_WEI), ..scene.wasm("fib.wasm", None).unwrap() };
    scene.submit_one(&submission).await.unwrap()
}

#[tokio::test]
async fn v12_earnings_are_withdrawn_while_the_daemon_runs() {
    let scene = stage().await;
    let daemon = scene.coordinator_with(&[("COORDINATOR_WITHDRAW_TO", RECIPIENT)]).unwrap();
    let id = paid_task(&scene).await;
    reaches(&scene, id, "final").await;
    let publisher = scene.publisher();
    let credit = scene.board().credit(publisher).call().await.unwrap();
    assert_eq!(credit, U256::from(FEE_WEI));

    let variables = client(&scene, &[("COORDINATOR_API", &scene.api_url())]);
    let line = said(&variables, &["withdraw", "--publisher"]).await;
    assert!(line.starts_with(&format!("{FEE_WEI} wei paid to {RECIPIENT} by 0x")), "{line}");
    let recipient: Address = RECIPIENT.parse().unwrap();
    let balance = scene.board().provider().get_balance(recipient).await.unwrap();
    assert_eq!(balance, U256::from(FEE_WEI));

    // What there is to withdraw is told as it was read last.
    wait_for("the credit to be read again", PATIENCE, async || {
        let text = said(&variables, &["--json", "earnings"]).await;
        let earnings: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        assert_eq!(earnings["withdrawals"][0]["amount_wei"], FEE_WEI.to_string(), "{text}");
        if earnings["credit_wei"] == "0" { Ok(()) } else { Err(text) }
    })
    .await;
    let text = said(&variables, &["earnings"]).await;
    assert!(text.contains(&format!("pays to    {RECIPIENT}")), "{text}");

    let again = run(&variables, &["withdraw", "--publisher"]).await;
    assert_eq!(again.status.code(), Some(3));
    let words = String::from_utf8_lossy(&again.stderr);
    assert!(words.contains("nothing was paid: there is no credit"), "{words}");

    // The key's nonces are still the coordinator's: the next result goes out.
    let id = paid_task(&scene).await;
    reaches(&scene, id, "final").await;
    let ready = scene.get("/readyz").await.unwrap();
    assert!(!ready.contains("key_used_elsewhere"), "{ready}");
    stop(daemon).await;
}

#[tokio::test]
async fn no_request_says_who_is_paid() {
    let scene = stage().await;
    let daemon = scene.coordinator().unwrap();
    wait_for("the contract to be read", PATIENCE, async || {
        scene.cursor().await.map(|_| ()).ok_or_else(|| "not yet".to_owned())
    })
    .await;
    let url = format!("{}/api/v1/withdrawals", scene.api_url());
    let answer = reqwest::Client::new()
        .post(url)
        .json(&serde_json::json!({"to": RECIPIENT}))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 400);
    let body = answer.text().await.unwrap();
    assert!(body.contains("COORDINATOR_WITHDRAW_TO"), "{body}");
    stop(daemon).await;
}
