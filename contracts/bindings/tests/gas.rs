//! Gas on a real Anvil: the goals hold as receipts say them, the committed snapshot says the same, and the computed limits
//! are always enough.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod anvil;

use std::collections::BTreeMap;
use std::sync::Mutex;

use alloy::eips::BlockNumberOrTag;
use alloy::primitives::{Address, B256, Bytes, U256, keccak256};
use alloy::providers::{DynProvider, Provider};
use alloy::rpc::types::TransactionReceipt;
use alloy::sol_types::SolEvent;
use anvil::Anvil;
use task_board::abi::ITaskBoard;
use task_board::gas::{self, Item};
use task_board::{
    Answer, DigestBatch, DigestRecord, Header, Status, Submission, Tag, TaskBoard, TaskId,
};

type Board = TaskBoard::TaskBoardInstance<DynProvider>;

const DOCUMENT: &[u8] = br#"{"status":"ok","value":144}"#;

struct Scene {
    _anvil: Anvil,
    board: Board,
    requester: Address,
    tags: Mutex<BTreeMap<TaskId, Tag>>,
}

impl Scene {
    async fn new() -> Self {
        let anvil = Anvil::start().await;
        let provider = anvil.provider();
        let accounts = provider.get_accounts().await.unwrap();
        let (sender, requester) = (accounts[0], accounts[1]);
        let board = TaskBoard::deploy(provider, sender).await.unwrap();
        let scene = Self { _anvil: anvil, board, requester, tags: Mutex::default() };
        mined(scene.board.setCoordinator(0, sender, true).send().await.unwrap()).await;
        scene
    }

    /// A recent block, read again for every call: the head.
    async fn anchor(&self) -> (U256, B256) {
        let head = self.board.provider().get_block_by_number(BlockNumberOrTag::Latest);
        let head = head.await.unwrap().unwrap();
        (U256::from(head.header.number), head.header.hash)
    }

    async fn submit(&self, fee: u64, callback_gas: u32) -> (TaskId, TransactionReceipt) {
        let submission = Submission {
            kind: 1,
            module: Some([&[0x01, 0x55, 0x12, 0x20][..], keccak256("module").as_slice()].concat()),
            input: Some([&[0x01, 0x55, 0x12, 0x20][..], keccak256("input").as_slice()].concat()),
            entry: Some("fib".to_owned()),
            timeout_s: 30,
            callback_gas,
            fee: U256::from(fee),
            ..Submission::default()
        };
        let ITaskBoard::Request { terms, module, input, entry, extra, .. } =
            submission.encode().unwrap();
        let call = self.board.submit(terms, module, input, entry, extra).value(submission.fee);
        let call = call.from(self.requester);
        let receipt = mined(call.send().await.unwrap()).await;
        let log = receipt.logs()[0].data();
        let header = Header::of(log.topics(), &log.data).unwrap();
        self.tags.lock().unwrap().insert(header.id, header.tag());
        (header.id, receipt)
    }

    fn answer(&self, id: TaskId, engine: u16) -> U256 {
        let tag = self.tags.lock().unwrap()[&id];
        Answer { id, tag, engine, status: Status::Ok.code(), again: false }.pack()
    }

    async fn publish(&self, item: &Item) -> TransactionReceipt {
        let (number, hash) = self.anchor().await;
        let digest = keccak256("digest");
        let call = self.board.publish(self.answer(item.id, 1), digest, number, hash);
        within(call.gas(gas::publish(item)).send().await.unwrap(), gas::publish(item)).await
    }

    async fn publish_document(&self, item: &Item) -> TransactionReceipt {
        let (number, hash) = self.anchor().await;
        let document = Bytes::from(vec![0xff; item.document_bytes]);
        let limit = gas::publish_document(item);
        let answer = self.answer(item.id, 1);
        let call = self.board.publishDocument(answer, document, number, hash).gas(limit);
        within(call.send().await.unwrap(), limit).await
    }

    async fn publish_batch(&self, items: &[Item]) -> TransactionReceipt {
        let (number, hash) = self.anchor().await;
        let results = items.iter().map(|item| ITaskBoard::Result {
            answer: self.answer(item.id, 0xffff),
            document: vec![0xff; item.document_bytes].into(),
        });
        let limit = gas::publish_batch(items);
        let call = self.board.publishBatch(results.collect(), number, hash).gas(limit);
        within(call.send().await.unwrap(), limit).await
    }

    async fn publish_digests(&self, items: &[Item]) -> TransactionReceipt {
        let (number, hash) = self.anchor().await;
        let records = items.iter().map(|item| DigestRecord {
            id: item.id,
            tag: self.tags.lock().unwrap()[&item.id],
            status: Status::Ok.code(),
            again: false,
            digest: keccak256(item.id.get().to_be_bytes()),
        });
        let packed = DigestBatch { engine: 1, records: records.collect() }.encode();
        let limit = gas::publish_digests(items);
        let call = self.board.publishDigests(packed.into(), number, hash).gas(limit);
        within(call.send().await.unwrap(), limit).await
    }
}

async fn mined(
    pending: alloy::providers::PendingTransactionBuilder<alloy::network::Ethereum>,
) -> TransactionReceipt {
    let receipt = pending.get_receipt().await.unwrap();
    assert!(receipt.status(), "{receipt:?}");
    receipt
}

async fn within(
    pending: alloy::providers::PendingTransactionBuilder<alloy::network::Ethereum>,
    limit: u64,
) -> TransactionReceipt {
    let receipt = mined(pending).await;
    assert!(receipt.gas_used <= limit, "{} of {limit}", receipt.gas_used);
    let skipped = receipt
        .logs()
        .iter()
        .filter(|log| log.topic0() == Some(&TaskBoard::Skipped::SIGNATURE_HASH));
    assert_eq!(skipped.count(), 0, "nothing is left out for want of gas");
    receipt
}

fn item(id: TaskId) -> Item {
    Item { id, document_bytes: 0, callback_gas: 0 }
}

fn snapshot(name: &str) -> u64 {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../gas/transactions.json");
    let file: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    file[name].as_str().unwrap().parse().unwrap()
}

#[track_caller]
fn check(name: &str, receipt: &TransactionReceipt, goal: u64) {
    let used = receipt.gas_used;
    assert!(used <= goal, "{name}: {used}, the goal is {goal}");
    // Block hashes and ids differ in how many of their bytes are zero.
    let committed = snapshot(name);
    assert!(used.abs_diff(committed) <= 120, "{name}: {used}, the snapshot says {committed}");
}

#[tokio::test]
async fn receipts_keep_the_goals_and_agree_with_the_snapshot() {
    let scene = Scene::new().await;
    let (first, _) = scene.submit(0, 0).await;
    scene.publish(&item(first)).await;
    let (id, receipt) = scene.submit(0, 0).await;
    check("submit", &receipt, 35_000);
    check("publish", &scene.publish(&item(id)).await, 35_000);
    let mut items = Vec::new();
    for _ in 0..100 {
        items.push(item(scene.submit(0, 0).await.0));
    }
    let receipt = scene.publish_digests(&items).await;
    let used = receipt.gas_used;
    assert!(used <= 400_000, "publish_digests_of_100: {used}");
    assert!(used.abs_diff(snapshot("publish_digests_of_100")) <= 1_000, "{used}");
    let (id, _) = scene.submit(0, 0).await;
    let item = Item { document_bytes: DOCUMENT.len(), ..item(id) };
    assert!(scene.publish_document(&item).await.gas_used <= 36_500);
}

#[tokio::test]
async fn limits_suffice_for_first_publications_into_new_words() {
    let scene = Scene::new().await;
    let (id, _) = scene.submit(0, 0).await;
    let used = scene.publish(&item(id)).await.gas_used;
    let limit = gas::publish(&item(id));
    assert!(limit < used + used / 4, "{limit} is not far above {used}");
    for document_bytes in [0, 1, 31, 32, 255, 256] {
        for fee in [0, 1] {
            let (id, _) = scene.submit(fee, 0).await;
            scene.publish_document(&Item { document_bytes, ..item(id) }).await;
        }
    }
    for fee in [1, 0] {
        let (id, _) = scene.submit(fee, 0).await;
        scene.publish(&item(id)).await;
    }
}

/// A requester whose callback uses all the gas it is given: it is called and the items behind it are published too.
#[tokio::test]
async fn limits_suffice_for_callbacks_that_use_all_their_gas() {
    let scene = Scene::new().await;
    let mut items = Vec::new();
    for index in 0..12u32 {
        let callback_gas = if index % 3 == 0 { 1_000_000 } else { 0 };
        let (id, _) = scene.submit(u64::from(index % 2), callback_gas).await;
        items.push(Item { id, document_bytes: 256, callback_gas });
    }
    // The account that submitted gets code that never ends: JUMPDEST PUSH0 JUMP.
    let code: Bytes = "0x5b5f56".parse().unwrap();
    let provider = scene.board.provider();
    let () = provider.raw_request("anvil_setCode".into(), (scene.requester, code)).await.unwrap();
    scene.publish(&items[0]).await;
    scene.publish_document(&items[3]).await;
    let receipt = scene.publish_digests(&items[4..8]).await;
    assert!(receipt.gas_used > 1_000_000, "the callback ran");
    let rest = [&items[1..3], &items[8..12]].concat();
    assert!(scene.publish_batch(&rest).await.gas_used > 1_000_000, "the callback ran");
}

#[tokio::test]
async fn limits_suffice_for_large_mixed_batches() {
    let scene = Scene::new().await;
    let mut documents = Vec::new();
    let mut digests = Vec::new();
    for index in 0..160u64 {
        let (id, _) = scene.submit(u64::from(index % 5 == 0), 0).await;
        let item = Item { id, document_bytes: (index * 7 % 257) as usize, callback_gas: 0 };
        if index % 2 == 0 { documents.push(item) } else { digests.push(item) }
    }
    // The dearest order for the guard: kept and free tasks take turns.
    let used = scene.publish_digests(&digests).await.gas_used;
    let limit = gas::publish_digests(&digests);
    assert!(limit < 3 * used, "{limit} is not far above {used}");
    let used = scene.publish_batch(&documents).await.gas_used;
    let limit = gas::publish_batch(&documents);
    assert!(limit < 3 * used, "{limit} is not far above {used}");
}
