//! A daemon whose chain cannot be reached.

use harness::{Misbehaviour, Proxy, scene::Scene, wait_for};
use serde_json::Value;

use crate::stage::{PATIENCE, listens, reaches, stage, stop};

/// The status and the codes of the reasons in `/readyz`.
async fn ready(scene: &Scene) -> Result<(u16, Vec<String>), String> {
    let url = format!("{}/readyz", scene.api_url());
    let answer = reqwest::get(url).await.map_err(|error| error.to_string())?;
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.map_err(|error| error.to_string())?;
    let reasons = body["reasons"].as_array().cloned().unwrap_or_default();
    Ok((status, reasons.iter().filter_map(|one| one["code"].as_str().map(str::to_owned)).collect()))
}

async fn until_ready(scene: &Scene, wanted: u16, code: Option<&str>) {
    wait_for("/readyz", PATIENCE, async || match ready(scene).await {
        Ok((status, codes))
            if status == wanted && code.is_none_or(|code| codes.iter().any(|one| one == code)) =>
        {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn c10_c11_a_chain_that_is_away_at_the_start_ends_nothing_and_what_is_known_goes_on() {
    let scene = stage().await;
    // A task that was read, and is not run yet, when everything stops.
    let proxy = Proxy::start(&scene.anvil().url()).await;
    let url = proxy.url();
    let through = [("COORDINATOR_RPC_URL", url.as_str())];
    let mut daemon = scene.coordinator_with(&through).unwrap();
    listens(&scene, &mut daemon).await;
    until_ready(&scene, 200, None).await;
    let endless = task_board::Submission {
        entry: Some("loop".to_owned()),
        timeout_s: 2,
        ..scene.wasm("loop.wasm", None).unwrap()
    };
    let id = scene.submit_one(&endless).await.unwrap();
    reaches(&scene, id, "running").await;
    daemon.kill_9().await.unwrap();

    for fault in [
        Misbehaviour::Status { status: 503, retry_after_s: None },
        Misbehaviour::Status { status: 429, retry_after_s: Some(u64::MAX) },
        Misbehaviour::Body("<html>busy</html>".to_owned()),
    ] {
        proxy.heal();
        proxy.misbehave("*", fault, usize::MAX);
        let mut daemon = scene.coordinator_with(&through).unwrap();
        listens(&scene, &mut daemon).await;
        until_ready(&scene, 503, Some("chain_unreachable")).await;
        // It runs the task, and cannot publish it.
        reaches(&scene, id, "publishing").await;
        assert!(daemon.ended().unwrap().is_none());
        stop(daemon).await;
    }

    let mut daemon = scene.coordinator_with(&through).unwrap();
    listens(&scene, &mut daemon).await;
    until_ready(&scene, 503, Some("chain_unreachable")).await;
    proxy.heal();
    until_ready(&scene, 200, None).await;
    reaches(&scene, id, "final").await;
    stop(daemon).await;
}

#[tokio::test]
async fn c11_a_half_open_web_socket_alone_leaves_the_api_up_and_not_ready() {
    let scene = stage().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", silent.local_addr().unwrap());
    let keeping = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((socket, _)) = silent.accept().await {
            kept.push(socket);
        }
    });
    let mut daemon = scene.coordinator_with(&[("COORDINATOR_RPC_URL", url.as_str())]).unwrap();
    listens(&scene, &mut daemon).await;
    until_ready(&scene, 503, Some("chain_unreachable")).await;
    stop(daemon).await;
    keeping.abort();
}

#[tokio::test]
async fn an_address_without_a_contract_stops_the_start() {
    let scene = stage().await;
    let nowhere = "0x00000000000000000000000000000000000000aa";
    let mut daemon = scene.coordinator_with(&[("COORDINATOR_CONTRACT", nowhere)]).unwrap();
    let status = wait_for("it to end", PATIENCE, async || {
        daemon.ended().unwrap().ok_or_else(|| daemon.tail())
    })
    .await;
    assert_eq!(status.code(), Some(1));
    assert!(daemon.tail().contains("there is no contract at"), "{}", daemon.tail());
}
