use alloy::{
    primitives::{Address, B256, U256},
    sol_types::SolEvent as _,
};
use harness::{Emitter, Misbehaviour, Proxy, RawLog};
use serde_json::json;
use task::TaskId;
use task_board::TaskBoard;

use crate::stage::{Stage, catch_up, client, own};

/// The log of a genuine submission, to be spoilt.
fn submitted(id: u64, terms: U256, extra: &[u8]) -> RawLog {
    let event = TaskBoard::Submitted {
        id,
        requester: Address::repeat_byte(9),
        terms,
        module: B256::repeat_byte(1),
        input: B256::ZERO,
        entry: B256::right_padding_from(b"fib"),
        fee: U256::ZERO,
        extra: extra.to_vec().into(),
    };
    let data = event.encode_log_data();
    RawLog { topics: data.topics().to_vec(), data: data.data.to_vec() }
}

/// Version 1, kind wasm, domain 0, a module as CIDv1 raw.
fn terms() -> U256 {
    U256::from(0x0101_0000_0200_u64) << 208
}

#[tokio::test]
async fn e09_hostile_payloads_become_tasks_with_a_reason_and_the_poller_advances() {
    let stage = Stage::start().await;
    let emitter = Emitter::deploy(&stage.anvil).await;
    let mut logs = Vec::new();
    // bad ABI offset
    let mut log = submitted(1, terms(), &[]);
    log.data[5 * 32 + 31] = 1;
    logs.push((log, "malformed_request"));
    let mut log = submitted(2, terms(), &[]);
    log.data[5 * 32] = 0xff;
    logs.push((log, "malformed_request"));
    // a string of 64 KiB, far above the bound
    logs.push((submitted(3, terms(), &vec![b'a'; 64 << 10]), "malformed_request"));
    // invalid UTF-8
    let mut log = submitted(4, terms(), &[]);
    log.data[3 * 32] = 0xff;
    logs.push((log, "malformed_request"));
    // empty CID: the form says that it is in `extra`
    let mut log = submitted(5, terms() | U256::from(0xff) << 216, &[1, 0, 0]);
    log.data[32..64].fill(0);
    logs.push((log, "malformed_request"));
    // no CID at all where the form says so
    let mut log = submitted(6, terms() | U256::from(0xff) << 216, &[]);
    log.data[32..64].fill(0);
    logs.push((log, "invalid_cid"));
    // a CID that is none
    let mut log =
        submitted(7, terms() | U256::from(0xff) << 216, b"\x01\x00\x15../../api/v0/shutdown");
    log.data[32..64].fill(0);
    logs.push((log, "invalid_cid"));
    // unknown version
    logs.push((submitted(8, terms() | U256::from(2) << 248, &[]), "unsupported_version"));
    // no data
    let mut log = submitted(9, terms(), &[]);
    log.data.clear();
    logs.push((log, "malformed_request"));
    for (log, _) in &logs {
        emitter.emit(&stage.anvil, log).await;
    }
    // wrong topics: not even an id can be read
    for topics in [1, 2] {
        let mut log = submitted(10, terms(), &[]);
        log.topics.truncate(topics);
        emitter.emit(&stage.anvil, &log).await;
    }
    let mut log = submitted(10, terms(), &[]);
    log.topics[1] = B256::repeat_byte(0xff);
    emitter.emit(&stage.anvil, &log).await;
    for signature in [
        TaskBoard::Published::SIGNATURE_HASH,
        TaskBoard::PublishedDocument::SIGNATURE_HASH,
        TaskBoard::Cancelled::SIGNATURE_HASH,
        TaskBoard::Expired::SIGNATURE_HASH,
    ] {
        let topics = vec![signature, B256::with_last_byte(1), B256::repeat_byte(0xff)];
        emitter.emit(&stage.anvil, &RawLog { topics, data: vec![0xff; 70] }).await;
    }
    emitter.emit(&stage.anvil, &submitted(10, terms(), &[])).await;

    let options = chain::watcher::Options { contract: own(emitter.address), ..stage.watching() };
    let mut watcher = stage.watcher_with(stage.client().await, options).await.unwrap();
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    for (sequence, (_, code)) in (1..).zip(&logs) {
        let task = stage.task(TaskId(sequence)).await.task;
        let malformed = task.submission.request.unwrap_err();
        assert_eq!(malformed.code.code(), *code, "task {sequence}: {}", malformed.message);
        assert!(malformed.message.len() < 200, "{}", malformed.message.len());
    }
    assert!(stage.task(TaskId(10)).await.task.submission.request.is_ok());
    assert_eq!(stage.tasks().await, 10);
    assert_eq!(stage.alarms.current(), []);
}

#[tokio::test]
async fn e09_a_string_of_two_megabytes_is_a_task_of_a_few_hundred_bytes() {
    let stage = Stage::start().await;
    let emitter = Emitter::deploy(&stage.anvil).await;
    emitter.emit(&stage.anvil, &submitted(1, terms(), &[])).await;
    let filter = json!([{ "address": emitter.address, "fromBlock": "0x0" }]);
    let mut logs = stage.anvil.rpc("eth_getLogs", filter).await;
    let huge = submitted(1, terms(), &vec![b'a'; 2 << 20]);
    logs[0]["data"] = json!(alloy::hex::encode_prefixed(&huge.data));
    let proxy = Proxy::start(&stage.anvil.url()).await;
    let options = chain::watcher::Options { contract: own(emitter.address), ..stage.watching() };
    let mut watcher = stage.watcher_with(client(&proxy.url()).await, options).await.unwrap();
    proxy.misbehave("eth_getLogs", Misbehaviour::Answer(logs), 1);
    catch_up(&mut watcher, stage.anvil.block_number().await).await;
    let submission = stage.task(TaskId(1)).await.task.submission;
    assert!(serde_json::to_string(&submission).unwrap().len() < 500);
    assert_eq!(submission.request.unwrap_err().code.code(), "malformed_request");
}
