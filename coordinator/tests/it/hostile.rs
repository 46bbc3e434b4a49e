//! E09: whoever deploys a contract decides what is in its logs. A contract that logs anything stands in for ours for a
//! while; each of its events is a rejected task with a reason, and the watcher goes on.

use alloy::{
    primitives::{Address, B256, Bytes, U256},
    providers::Provider as _,
    rpc::types::TransactionRequest,
    sol_types::SolEvent as _,
};
use harness::{scene::Scene, wait_for};
use serde_json::json;
use task_board::{TaskBoard, TaskId};

use crate::stage::{PATIENCE, answers, reaches, stage, stop};

/// Logs `Submitted` with the topics in words 0 and 1 of the call and as much data as word 2 says, beginning with what
/// follows in the call.
fn logger() -> Bytes {
    let mut code = vec![0x60, 0x20, 0x35, 0x60, 0x00, 0x35, 0x7f];
    code.extend_from_slice(TaskBoard::Submitted::SIGNATURE_HASH.as_slice());
    // calldatacopy(0, 0x60, calldatasize - 0x60); log3(0, calldataload(0x40), …)
    code.extend([0x60, 0x60, 0x36, 0x03, 0x60, 0x60, 0x60, 0x00, 0x37]);
    code.extend([0x60, 0x40, 0x35, 0x60, 0x00, 0xa3, 0x00]);
    code.into()
}

/// The data of a proper event, in words: terms, module, input, entry, fee, offset, length of extra.
fn words() -> [U256; 7] {
    let terms: U256 = (U256::from(1) << 248) | (U256::from(1) << 240) | (U256::from(2) << 216);
    let mut words = [U256::ZERO; 7];
    words[0] = terms;
    words[1] = U256::from(7);
    words[5] = U256::from(6 * 32);
    words
}

fn with(change: impl FnOnce(&mut [U256; 7])) -> Vec<u8> {
    let mut words = words();
    change(&mut words);
    words.iter().flat_map(U256::to_be_bytes::<32>).collect()
}

async fn log(scene: &Scene, id: u64, data: &[u8], size: usize) {
    let requester: B256 = scene.client().into_word();
    let mut call = B256::from(U256::from(id)).to_vec();
    call.extend_from_slice(requester.as_slice());
    call.extend_from_slice(&U256::from(size).to_be_bytes::<32>());
    call.extend_from_slice(data);
    let contract: Address = *scene.board().address();
    let request =
        TransactionRequest::default().from(scene.client()).to(contract).input(call.into());
    let sent = scene.board().provider().send_transaction(request).await.unwrap();
    scene.mined(*sent.tx_hash()).await.unwrap();
}

#[tokio::test]
async fn events_with_hostile_payloads_are_rejected_tasks_and_stop_nothing() {
    let scene = stage().await;
    let contract = *scene.board().address();
    let provider = scene.board().provider();
    let genuine = provider.get_code_at(contract).await.unwrap();
    let head = provider.get_storage_at(contract, U256::ZERO).await.unwrap();

    let extra = |bytes: &[u8]| {
        let mut data = with(|words| words[6] = U256::from(bytes.len()));
        data.extend_from_slice(bytes);
        data.resize(data.len().next_multiple_of(32), 0);
        data
    };
    let invalid_entry = U256::from(0xff_fe_u64) << 240;
    let hostile: Vec<(&str, Vec<u8>, usize, &[&str])> = vec![
        ("nothing", Vec::new(), 0, &["malformed_request", "unsupported_version"]),
        ("a cut-off word", vec![1; 17], 17, &["malformed_request"]),
        ("a bad offset", with(|words| words[5] = U256::MAX), 224, &["malformed_request"]),
        (
            "a length past the end",
            with(|words| words[6] = U256::from(64)),
            224,
            &["malformed_request"],
        ),
        ("a huge length", with(|words| words[6] = U256::MAX), 224, &["malformed_request"]),
        (
            "a megabyte",
            with(|words| words[6] = U256::from(1 << 20)),
            1 << 20,
            &["malformed_request"],
        ),
        (
            "an unknown version",
            with(|words| words[0] += U256::from(1) << 248),
            224,
            &["unsupported_version"],
        ),
        (
            "an entry that is no text",
            with(|words| words[3] = invalid_entry),
            224,
            &["malformed_request"],
        ),
        (
            "an unknown form of CID",
            with(|words| words[0] += U256::from(50) << 216),
            224,
            &["malformed_request", "invalid_cid"],
        ),
        (
            "no CID",
            with(|words| {
                words[0] -= U256::from(2) << 216;
                words[1] = U256::ZERO;
            }),
            224,
            &["invalid_cid", "malformed_request"],
        ),
        (
            "an empty CID",
            {
                let mut data = extra(&[1, 0, 0]);
                data[4] = 255;
                data[32..64].fill(0);
                data
            },
            256,
            &["invalid_cid", "malformed_request"],
        ),
        ("a cut-off extra", extra(&[5, 1, 0, b'x']), 256, &["malformed_request"]),
        (
            "a path that leaves",
            extra(b"\x03\x00\x06../../"),
            256,
            &["invalid_cid", "malformed_request", "invalid_content"],
        ),
    ];
    provider
        .raw_request::<_, ()>("anvil_setCode".into(), json!([contract, logger()]))
        .await
        .unwrap();
    for (n, (_, data, size, _)) in (1..).zip(&hostile) {
        log(&scene, n, data, *size).await;
    }
    // Our own contract goes on after them.
    let counted = head + U256::from(hostile.len());
    provider
        .raw_request::<_, ()>("anvil_setCode".into(), json!([contract, genuine]))
        .await
        .unwrap();
    let slot = json!([contract, "0x0", B256::from(counted)]);
    provider.raw_request::<_, bool>("anvil_setStorageAt".into(), slot).await.unwrap();
    let input = br#"{"entry":"fib","args":[12]}"#;
    let good = scene.submit_one(&scene.wasm("fib.wasm", Some(input)).unwrap()).await.unwrap();
    assert_eq!(good.sequence(), hostile.len() as u64 + 1);

    let daemon = scene.coordinator().unwrap();
    answers(&scene, good, r#"{"status":"ok","value":144}"#).await;
    for (n, (what, _, _, codes)) in (1..).zip(&hostile) {
        let task = reaches(&scene, TaskId::new(n), "final").await;
        let code = task["outcome"]["code"].as_str().unwrap_or_default();
        assert!(codes.contains(&code), "{what}: {task}");
    }
    wait_for("a calm log", PATIENCE, async || {
        if scene.get("/readyz").await.is_some() { Ok(()) } else { Err(daemon.tail()) }
    })
    .await;
    stop(daemon).await;
}
