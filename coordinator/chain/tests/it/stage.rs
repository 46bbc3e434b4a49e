use std::{sync::Arc, time::Duration};

use alloy::{
    primitives::{Address, B256, U256},
    sol_types::SolCall as _,
};
use chain::{
    Alarms, Board, Client, ClientOptions, Confirmations, Endpoints, Error, Key,
    publisher::{self, Publisher},
    watcher::{self, Watcher},
};
use harness::{Anvil, wait_for};
use sha2::{Digest as _, Sha256};
use store::{Filter, Publication, Store, Versioned};
use task::{Answer, Event, Identity, LocalId, TaskId};
use task_board::{Submission, Tag, TaskBoard};
use tempfile::TempDir;
use tokio::sync::Notify;

pub(crate) const ENGINE: &str = "engine-1";
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A chain with the contract, a database, and a stand-in for the pipeline that only applies events.
pub(crate) struct Stage {
    pub(crate) anvil: Anvil,
    pub(crate) contract: task::Address,
    pub(crate) store: Store,
    pub(crate) alarms: Alarms,
    pub(crate) wakes: Arc<Notify>,
    pub(crate) queued: Arc<Notify>,
    _folder: TempDir,
}

impl Stage {
    pub(crate) async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let anvil = Anvil::start().await;
        let contract = own(anvil.deploy_board(ENGINE).await);
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("coordinator.db")).await.unwrap();
        Self {
            anvil,
            contract,
            store,
            alarms: Alarms::default(),
            wakes: Arc::default(),
            queued: Arc::default(),
            _folder: folder,
        }
    }

    pub(crate) async fn client(&self) -> Client {
        client(&self.anvil.url()).await
    }

    pub(crate) fn watching(&self) -> watcher::Options {
        watcher::Options {
            ours: Some(own(self.anvil.address(1))),
            ..watcher::Options::new(self.contract)
        }
    }

    pub(crate) async fn watcher(&self) -> Watcher {
        self.watcher_with(self.client().await, self.watching()).await.unwrap()
    }

    pub(crate) async fn watcher_with(
        &self,
        client: Client,
        options: watcher::Options,
    ) -> Result<Watcher, Error> {
        let wakes = Arc::clone(&self.wakes);
        Watcher::open(client, self.store.clone(), options, wakes, self.alarms.clone()).await
    }

    /// Times as short as tests like them.
    pub(crate) fn publishing(&self) -> publisher::Options {
        publisher::Options {
            rebroadcast_after: Duration::from_millis(100),
            confirmations: Some(Confirmations::Blocks(1)),
            ..publisher::Options::new(self.contract, ENGINE)
        }
    }

    pub(crate) async fn publisher(&self) -> Publisher {
        self.publisher_with(self.client().await, self.publishing()).await.unwrap()
    }

    pub(crate) async fn publisher_with(
        &self,
        client: Client,
        options: publisher::Options,
    ) -> Result<Publisher, Error> {
        let (queued, wakes) = (Arc::clone(&self.queued), Arc::clone(&self.wakes));
        let alarms = self.alarms.clone();
        Publisher::open(client, self.store.clone(), key(1), options, queued, wakes, alarms).await
    }

    pub(crate) async fn board(&self) -> Board {
        Board::new(self.client().await, self.contract)
    }

    /// Submits tasks with account 2.
    pub(crate) async fn submit(&self, count: u8) -> Vec<TaskId> {
        let requests: Vec<_> = (1..=count).map(request).collect();
        self.board().await.submit(&key(2), &requests).await.unwrap().ids
    }

    /// What a task is, as the chain says it.
    pub(crate) async fn identity(&self, id: TaskId) -> Identity {
        self.board()
            .await
            .find_submission(id, None)
            .await
            .unwrap()
            .expect("it is submitted")
            .identity
    }

    pub(crate) async fn tag(&self, id: TaskId) -> Tag {
        Tag::of(self.identity(id).await.payload.0.into())
    }

    /// Account 3 becomes a coordinator and publishes a digest, anchored at the head.
    pub(crate) async fn publish_elsewhere(&self, answer: &task_board::Answer) {
        let head = self.anvil.block_number().await;
        self.publish_elsewhere_at(answer, head).await;
    }

    /// The same, anchored at an older block.
    pub(crate) async fn publish_elsewhere_at(&self, answer: &task_board::Answer, anchor: u64) {
        let receipt = self.try_publish_elsewhere_at(answer, anchor).await;
        assert_eq!(receipt["status"], "0x1");
    }

    /// The same, whatever comes of it: the receipt.
    pub(crate) async fn try_publish_elsewhere_at(
        &self,
        answer: &task_board::Answer,
        anchor: u64,
    ) -> serde_json::Value {
        let contract = Some(Address::from(self.contract.0));
        let coordinator = self.anvil.address(3);
        let right = TaskBoard::setCoordinatorCall { domain: 0, coordinator, allowed: true };
        self.anvil.send(0, contract, &right.abi_encode(), U256::ZERO).await;
        let number = format!("{anchor:#x}");
        let block =
            self.anvil.rpc("eth_getBlockByNumber", serde_json::json!([number, false])).await;
        let publish = TaskBoard::publishCall {
            answer: answer.pack(),
            digest: B256::repeat_byte(1),
            anchorNumber: U256::from(anchor),
            anchorHash: block["hash"].as_str().unwrap().parse().unwrap(),
        };
        let hash = self.anvil.send(3, contract, &publish.abi_encode(), U256::ZERO).await;
        self.anvil.receipt(&hash).await
    }

    /// Applies every event in the log, as the pipeline does.
    pub(crate) async fn apply(&self) {
        loop {
            let events = self.store.pending_events(100).await.unwrap();
            if events.is_empty() {
                return;
            }
            for row in events {
                let mut writer = self.store.begin().await.unwrap();
                let before = writer.load(row.task).await.unwrap();
                if writer.apply_logged(before, row.seq, &row.event).await.is_err() {
                    writer = {
                        drop(writer);
                        self.store.begin().await.unwrap()
                    };
                    writer.mark_applied(row.seq).await.unwrap();
                }
                writer.commit().await.unwrap();
            }
        }
    }

    /// The task of an id; of several the newest.
    pub(crate) async fn task(&self, id: TaskId) -> Versioned {
        let filter = Filter { task_id: Some(id), limit: 1, ..Filter::default() };
        self.store.tasks(&filter).await.unwrap().pop().expect("the task is in the store")
    }

    pub(crate) async fn tasks(&self) -> usize {
        self.store.tasks(&Filter { limit: 1_000, ..Filter::default() }).await.unwrap().len()
    }

    pub(crate) async fn state(&self, id: TaskId) -> String {
        self.apply().await;
        self.task(id).await.task.state.name().to_owned()
    }

    pub(crate) async fn timeline(&self, id: TaskId) -> Vec<&'static str> {
        let task = self.task(id).await.task.local_id;
        let timeline = self.store.timeline(task).await.unwrap();
        timeline.iter().map(|entry| entry.event.name()).collect()
    }

    /// Gives a task an outcome and queues it, as the pipeline does.
    pub(crate) async fn answer(&self, id: TaskId, document: &str, inline: bool) {
        self.apply().await;
        let now_ms = store::now_ms();
        let before = self.task(id).await;
        let task = before.task.clone();
        let digest = task::Hex(Sha256::digest(document).into());
        let answer = Answer { status: executor_protocol::Status::Ok, digest, code: None };
        let mut writer = self.store.begin().await.unwrap();
        let mut current = before;
        for event in [
            Event::FetchStarted,
            Event::Fetched,
            Event::Started { attempt: 1 },
            Event::Finished { answer },
            Event::Queued,
        ] {
            current = writer.apply(current, &event, now_ms).await.unwrap();
        }
        writer.queue_publication(&publication(&task, document, inline), now_ms).await.unwrap();
        writer.commit().await.unwrap();
        self.queued.notify_one();
    }

    /// Queues the result of a task that is included again, as the pipeline does.
    pub(crate) async fn answer_again(&self, id: TaskId, document: &str) {
        self.apply().await;
        let before = self.task(id).await;
        assert_eq!(before.task.state.name(), "finished");
        let publication = publication(&before.task, document, true);
        let mut writer = self.store.begin().await.unwrap();
        writer.apply(before, &Event::Queued, store::now_ms()).await.unwrap();
        writer.queue_publication(&publication, store::now_ms()).await.unwrap();
        writer.commit().await.unwrap();
    }

    /// Steps the publisher until the task is in the state.
    pub(crate) async fn until(&self, publisher: &mut Publisher, id: TaskId, state: &str) {
        let task = self.task(id).await.task.local_id;
        self.until_task(publisher, task, state).await;
    }

    pub(crate) async fn until_task(&self, publisher: &mut Publisher, task: LocalId, state: &str) {
        // A result is final once the watcher has been past its block.
        let mut watcher = self.watcher().await;
        wait_for(&format!("task {task} to be {state}"), PATIENCE, async || {
            let step = publisher.step().await;
            if state == "final" {
                let _ = watcher.poll().await;
            }
            self.apply().await;
            let now = self.store.task(task).await.unwrap().unwrap().task.state;
            if now.name() == state { Ok(()) } else { Err(format!("{now:?} after {step:?}")) }
        })
        .await;
    }

    /// How many results of a task stand on chain.
    pub(crate) async fn results(&self, id: TaskId) -> usize {
        let topic = format!("{:#066x}", id.0);
        let filter = serde_json::json!({
            "fromBlock": "0x0", "toBlock": "latest", "address": self.contract.to_string(),
            "topics": [[
                alloy::primitives::B256::from(signature("Published(uint64,address,uint256,bytes32)")),
                alloy::primitives::B256::from(signature("PublishedDocument(uint64,address,uint256,bytes)")),
            ], topic],
        });
        let logs = self.anvil.rpc("eth_getLogs", serde_json::json!([filter])).await;
        logs.as_array().unwrap().len()
    }

    /// Gives or takes account 1's right to answer domain 0.
    pub(crate) async fn set_coordinator(&self, allowed: bool) {
        let call = TaskBoard::setCoordinatorCall {
            domain: 0,
            coordinator: self.anvil.address(1),
            allowed,
        };
        let contract = Some(Address::from(self.contract.0));
        let call = call.abi_encode();
        let hash = self.anvil.send(0, contract, &call, alloy::primitives::U256::ZERO).await;
        self.anvil.receipt(&hash).await;
    }

    pub(crate) fn account(&self) -> store::Account {
        store::Account { chain_id: 31_337, sender: own(self.anvil.address(1)) }
    }

    pub(crate) async fn publisher_nonce(&self) -> u64 {
        self.anvil.nonce(self.anvil.address(1)).await
    }

    pub(crate) fn alarm(&self, code: &str) -> bool {
        self.alarms.current().iter().any(|(alarm, _)| alarm.code() == code)
    }
}

fn publication(task: &task::Task, document: &str, inline: bool) -> Publication {
    let digest: task::Hash = task::Hex(Sha256::digest(document).into());
    Publication {
        task: task.local_id,
        identity: task.identity.clone(),
        status: 1,
        digest: digest.to_string(),
        document: inline.then(|| document.to_owned()),
        callback_gas: 0,
        included: task.included.expect("the task is included"),
    }
}

fn signature(event: &str) -> [u8; 32] {
    alloy::primitives::keccak256(event).0
}

/// Looks until something was read, whatever goes wrong meanwhile.
pub(crate) async fn catch_up(watcher: &mut Watcher, to: u64) {
    wait_for(&format!("the cursor to reach block {to}"), PATIENCE, async || {
        let seen = watcher.poll().await;
        if watcher.cursor().number >= to { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}

pub(crate) async fn client(urls: &str) -> Client {
    let endpoints = Endpoints::parse(urls).unwrap();
    Client::connect(&endpoints, ClientOptions { request_timeout: Duration::from_secs(5) })
        .await
        .unwrap()
}

pub(crate) fn key(account: usize) -> Key {
    Key::from_hex(KEYS[account]).unwrap()
}

/// Anvil's, as everybody knows them.
const KEYS: [&str; 4] = [
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
];

/// A failure under an id, with a tag.
pub(crate) fn foreign(id: TaskId, tag: Tag) -> task_board::Answer {
    task_board::Answer {
        id: task_board::TaskId::new(id.0),
        tag,
        engine: 1,
        status: 2,
        again: false,
    }
}

pub(crate) fn own(address: Address) -> task::Address {
    task::Hex(address.into_array())
}

/// A wasm task whose module's digest is this byte 32 times.
pub(crate) fn request(digest: u8) -> Submission {
    Submission {
        kind: 1,
        module: Some([&[0x01, 0x55, 0x12, 0x20][..], &[digest; 32]].concat()),
        entry: Some("fib".to_owned()),
        timeout_s: 30,
        ..Submission::default()
    }
}
