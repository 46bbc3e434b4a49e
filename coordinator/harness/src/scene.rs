//! What an end-to-end run plays on: a chain with the contract, a mirror with the samples, a folder for a coordinator's
//! data. Everything is asked of the chain itself, through its own client, never of the coordinator's database.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use alloy::{
    primitives::{Address, B256, U256},
    providers::{Provider as _, ProviderBuilder, RootProvider},
    rpc::types::{Filter, Log, TransactionReceipt},
    sol_types::SolEvent as _,
};
use ipfs::{Cid, CidVersion};
use serde_json::Value;
use task_board::{Header, LoggedAnswer, Submission, Tag, TaskBoard, TaskId};
use tempfile::TempDir;

use crate::{Anvil, Daemon};

/// Why a run cannot go on; only ever shown.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// The longest wait for a transaction.
const MINED_WITHIN: Duration = Duration::from_secs(30);
/// Anvil's accounts, by who uses them here.
const OWNER: usize = 0;
const PUBLISHER: usize = 1;
const CLIENT: usize = 2;

/// The contract as this crate calls it.
pub type Board = TaskBoard::TaskBoardInstance<RootProvider>;

/// The stage. Its folder and its chain go with it.
#[derive(Debug)]
pub struct Scene {
    anvil: Anvil,
    board: Board,
    folder: TempDir,
    listen: String,
}

/// A result as it stands on chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Of the submission that it belongs to.
    pub tag: Tag,
    /// The status's number.
    pub status: u8,
    /// The document, if the contract was given it.
    pub document: Option<Vec<u8>>,
    /// The digest, if the contract was given that alone.
    pub digest: Option<B256>,
    /// Who published it.
    pub publisher: Address,
    /// In which transaction.
    pub transaction: B256,
}

/// Everything that the contract ever logged, by kind.
#[derive(Debug, Default)]
pub struct Logs {
    /// Ids with the transaction that submitted them, in order.
    pub submitted: Vec<(TaskId, B256)>,
    /// Results by task, in order: more than one would be a double.
    pub published: BTreeMap<TaskId, Vec<Published>>,
    /// Items that a batch left out, with the contract's number of the reason.
    pub skipped: Vec<(TaskId, u8)>,
    /// Credits: task, account, amount.
    pub credited: Vec<(TaskId, Address, U256)>,
    /// The newest block with one of them.
    pub last_block: u64,
}

impl Scene {
    /// Starts a chain that mines at once, has `coordinator deploy` put the contract on it, and lays out a mirror with a
    /// copy of the plain files of `samples`.
    ///
    /// # Errors
    /// When one of that fails.
    pub async fn start(samples: &Path) -> Result<Self, Fault> {
        let anvil = Anvil::start().await;
        let folder = tempfile::Builder::new().prefix("wasm-exec-").tempdir()?;
        let mirror = folder.path().join("mirror");
        std::fs::create_dir(&mirror)?;
        for entry in std::fs::read_dir(samples)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                std::fs::copy(entry.path(), mirror.join(entry.file_name()))?;
            }
        }
        let contract = deploy(&anvil).await?;
        let provider =
            ProviderBuilder::new().disable_recommended_fillers().connect_http(anvil.url().parse()?);
        let board = TaskBoard::new(contract, provider);
        let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        Ok(Self { anvil, board, folder, listen })
    }

    /// The chain.
    #[must_use]
    pub fn anvil(&self) -> &Anvil {
        &self.anvil
    }

    /// The contract.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The folder that everything of this run is in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the folder where it is when the scene goes.
    pub fn keep(&mut self) -> &Path {
        self.folder.disable_cleanup(true);
        self.folder.path()
    }

    /// The mirror.
    #[must_use]
    pub fn mirror(&self) -> PathBuf {
        self.folder.path().join("mirror")
    }

    /// The coordinator's data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The coordinator's account.
    #[must_use]
    pub fn publisher(&self) -> Address {
        self.anvil.address(PUBLISHER)
    }

    /// The requester's account.
    #[must_use]
    pub fn client(&self) -> Address {
        self.anvil.address(CLIENT)
    }

    /// The environment of a coordinator on this scene, with a publisher's key.
    #[must_use]
    pub fn environment(&self) -> BTreeMap<String, String> {
        let mut variables = self.client_environment();
        variables.remove("COORDINATOR_CLIENT_KEY");
        let key = self.anvil.key(PUBLISHER).to_owned();
        variables.extend([
            ("COORDINATOR_KEY".to_owned(), key),
            ("COORDINATOR_DATA_DIR".to_owned(), self.data().display().to_string()),
            ("COORDINATOR_LISTEN".to_owned(), self.listen.clone()),
            ("COORDINATOR_QUOTA".to_owned(), "1000000".to_owned()),
            ("RUST_BACKTRACE".to_owned(), "1".to_owned()),
        ]);
        variables
    }

    /// The environment of a client's command on this scene.
    #[must_use]
    pub fn client_environment(&self) -> BTreeMap<String, String> {
        [
            ("COORDINATOR_RPC_URL", self.anvil.url()),
            ("COORDINATOR_CONTRACT", self.board.address().to_string()),
            ("COORDINATOR_CLIENT_KEY", self.anvil.key(CLIENT).to_string()),
            ("COORDINATOR_IPFS_MIRROR", self.mirror().display().to_string()),
            ("COORDINATOR_DATA_DIR", self.folder.path().join("client").display().to_string()),
            ("COORDINATOR_API", format!("http://{}", self.listen)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    /// Starts a coordinator; what it says goes to the end of `coordinator.log` in the folder.
    ///
    /// # Errors
    /// When there is no binary or it cannot be started.
    pub fn coordinator(&self) -> Result<Daemon, Fault> {
        self.coordinator_with(&[])
    }

    /// Starts a coordinator with more or other variables.
    ///
    /// # Errors
    /// When there is no binary or it cannot be started.
    pub fn coordinator_with(&self, more: &[(&str, &str)]) -> Result<Daemon, Fault> {
        let mut variables = self.environment();
        variables
            .extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Daemon::start(&variables, self.folder.path())
    }

    /// Puts a file into the mirror and answers the CID it is found by.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&self, name: &str, bytes: &[u8]) -> Result<Cid, Fault> {
        std::fs::write(self.mirror().join(name), bytes)?;
        Ok(ipfs::cid_of_bytes(bytes, CidVersion::V1))
    }

    /// The CID of a file that is in the mirror.
    ///
    /// # Errors
    /// When there is none.
    pub fn cid(&self, name: &str) -> Result<Cid, Fault> {
        Ok(ipfs::cid_of_file(&self.mirror().join(name), CidVersion::V1)?)
    }

    /// A task for the coordinator of domain 0: a module of the mirror with an input.
    ///
    /// # Errors
    /// When the module is not in the mirror or the input cannot be written there.
    pub fn wasm(&self, module: &str, input: Option<&[u8]>) -> Result<Submission, Fault> {
        let input = match input {
            None => None,
            Some(bytes) => {
                let name = format!("input-{}", ipfs::cid_of_bytes(bytes, CidVersion::V1));
                Some(self.add(&name, bytes)?.to_bytes())
            }
        };
        Ok(Submission {
            kind: 1,
            module: Some(self.cid(module)?.to_bytes()),
            input,
            ..Submission::default()
        })
    }

    /// Sends one submission as the client, and waits for nothing.
    ///
    /// # Errors
    /// When the contract would not take it.
    pub async fn send(&self, submission: &Submission) -> Result<B256, Fault> {
        self.send_as(CLIENT, submission).await
    }

    /// Sends one submission as one of the chain's accounts, and waits for nothing.
    ///
    /// # Errors
    /// When the contract would not take it.
    pub async fn send_as(&self, account: usize, submission: &Submission) -> Result<B256, Fault> {
        let request = submission.encode()?;
        let call = self
            .board
            .submit(request.terms, request.module, request.input, request.entry, request.extra)
            .value(U256::from(request.fee))
            .from(self.anvil.address(account));
        Ok(*call.send().await?.tx_hash())
    }

    /// Submits one task as another of Anvil's accounts: 3 and above are nobody's here.
    ///
    /// # Errors
    /// When the contract does not take it.
    pub async fn submit_as(
        &self,
        account: usize,
        submission: &Submission,
    ) -> Result<TaskId, Fault> {
        let request = submission.encode()?;
        let call = self
            .board
            .submit(request.terms, request.module, request.input, request.entry, request.extra)
            .value(U256::from(request.fee))
            .from(self.anvil.address(account));
        let receipt = receipt(self.board.provider(), *call.send().await?.tx_hash()).await?;
        succeeded(&receipt)?;
        let log = receipt.logs().first().ok_or("the submission logged nothing")?;
        Ok(TaskId::new(log.log_decode::<TaskBoard::Submitted>()?.inner.id))
    }

    /// Submits tasks as the client, several in one transaction, and answers their ids.
    ///
    /// # Errors
    /// When the contract does not take them.
    pub async fn submit(&self, submissions: &[Submission]) -> Result<Vec<TaskId>, Fault> {
        let mut ids = Vec::with_capacity(submissions.len());
        for part in submissions.chunks(200) {
            let requests = part.iter().map(Submission::encode).collect::<Result<Vec<_>, _>>()?;
            let value: U256 = requests.iter().map(|request| U256::from(request.fee)).sum();
            let call = self.board.submitBatch(requests).value(value).from(self.client());
            let receipt = receipt(self.board.provider(), *call.send().await?.tx_hash()).await?;
            succeeded(&receipt)?;
            for log in receipt.logs() {
                let submitted = log.log_decode::<TaskBoard::Submitted>()?;
                ids.push(TaskId::new(submitted.inner.id));
            }
        }
        Ok(ids)
    }

    /// Submits one task as the client.
    ///
    /// # Errors
    /// When the contract does not take it.
    pub async fn submit_one(&self, submission: &Submission) -> Result<TaskId, Fault> {
        self.submit_one_as(CLIENT, submission).await
    }

    /// Submits one task as one of the chain's accounts.
    ///
    /// # Errors
    /// When the contract does not take it.
    pub async fn submit_one_as(
        &self,
        account: usize,
        submission: &Submission,
    ) -> Result<TaskId, Fault> {
        let hash = self.send_as(account, submission).await?;
        let receipt = receipt(self.board.provider(), hash).await?;
        succeeded(&receipt)?;
        let log = receipt.logs().first().ok_or("the submission logged nothing")?;
        Ok(TaskId::new(log.log_decode::<TaskBoard::Submitted>()?.inner.id))
    }

    /// Waits for a transaction.
    ///
    /// # Errors
    /// When it is not mined in time, or failed.
    pub async fn mined(&self, transaction: B256) -> Result<TransactionReceipt, Fault> {
        let receipt = receipt(self.board.provider(), transaction).await?;
        succeeded(&receipt)?;
        Ok(receipt)
    }

    /// Asks to cancel a task, as the client.
    ///
    /// # Errors
    /// When the contract would not take it.
    pub async fn cancel(&self, id: TaskId) -> Result<B256, Fault> {
        let tag = self.tag(id).await?;
        let call = self.board.cancel(id.get(), tag.0).from(self.client());
        Ok(*call.send().await?.tx_hash())
    }

    /// The tag of a task's submission.
    ///
    /// # Errors
    /// When there is none, or the chain does not answer.
    pub async fn tag(&self, id: TaskId) -> Result<Tag, Fault> {
        let filter = Filter::new()
            .address(*self.board.address())
            .event_signature(TaskBoard::Submitted::SIGNATURE_HASH)
            .topic1(id.topic())
            .from_block(0);
        let logs = self.board.provider().get_logs(&filter).await?;
        let log = logs.first().ok_or_else(|| format!("task {id} is not submitted"))?;
        Ok(Header::of(log.topics(), &log.data().data)?.tag())
    }

    /// Everything that the contract logged from a block on.
    ///
    /// # Errors
    /// When the chain does not answer.
    pub async fn logs(&self, from_block: u64) -> Result<Logs, Fault> {
        let filter = Filter::new().address(*self.board.address()).from_block(from_block);
        let mut found = Logs::default();
        for log in self.board.provider().get_logs(&filter).await? {
            found.take(&log)?;
        }
        Ok(found)
    }

    /// The one result of a task; none while there is none.
    ///
    /// # Errors
    /// When there are several, or the chain does not answer.
    pub async fn result(&self, id: TaskId) -> Result<Option<Published>, Fault> {
        let mut logs = self.logs(0).await?;
        let mut results = logs.published.remove(&id).unwrap_or_default();
        if results.len() > 1 {
            return Err(format!("task {id} has {} results", results.len()).into());
        }
        Ok(results.pop())
    }

    /// Asks the coordinator's API; none when nobody listens or there is no such thing.
    ///
    /// # Errors
    /// When the answer is not JSON.
    pub async fn api(&self, path: &str) -> Result<Option<Value>, Fault> {
        match self.get(path).await {
            Some(text) => Ok(Some(serde_json::from_str(&text)?)),
            None => Ok(None),
        }
    }

    /// Where the coordinator's HTTP server is.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// The body of a good answer of the coordinator's HTTP server.
    pub async fn get(&self, path: &str) -> Option<String> {
        let url = format!("{}{path}", self.api_url());
        let answer = reqwest::Client::new().get(url).send().await.ok()?;
        if answer.status().is_success() { answer.text().await.ok() } else { None }
    }

    /// The last block that the coordinator has read; none when it has read none or nobody listens.
    pub async fn cursor(&self) -> Option<u64> {
        let text = self.get("/metrics").await?;
        text.lines().find_map(|line| {
            line.strip_prefix("wasm_exec_chain_cursor_block ")?.trim().parse().ok()
        })
    }

    /// How many tasks the coordinator has in each state; none when nobody listens.
    pub async fn counts(&self) -> Option<BTreeMap<String, u64>> {
        let text = self.get("/metrics").await?;
        let counts = text.lines().filter_map(|line| {
            let (state, count) =
                line.strip_prefix("wasm_exec_tasks{state=\"")?.split_once("\"} ")?;
            Some((state.to_owned(), count.trim().parse().ok()?))
        });
        Some(counts.collect())
    }
}

impl Logs {
    fn take(&mut self, log: &Log) -> Result<(), Fault> {
        let transaction = log.transaction_hash.unwrap_or_default();
        self.last_block = self.last_block.max(log.block_number.unwrap_or_default());
        let Some(topic) = log.topic0() else { return Ok(()) };
        let mut publish = |id: u64, answer: U256, publisher, document, digest| {
            let LoggedAnswer { tag, status, .. } =
                LoggedAnswer::unpack(answer).ok_or("an answer without meaning")?;
            let result = Published { tag, status, document, digest, publisher, transaction };
            self.published.entry(TaskId::new(id)).or_default().push(result);
            Ok::<(), Fault>(())
        };
        match *topic {
            TaskBoard::Submitted::SIGNATURE_HASH => {
                let id = log.topics().get(1).map_or(B256::ZERO, |topic| *topic);
                let id: U256 = id.into();
                self.submitted.push((TaskId::new(id.to()), transaction));
            }
            TaskBoard::Published::SIGNATURE_HASH => {
                let event = log.log_decode::<TaskBoard::Published>()?.inner.data;
                publish(event.id, event.answer, event.coordinator, None, Some(event.digest))?;
            }
            TaskBoard::PublishedDocument::SIGNATURE_HASH => {
                let event = log.log_decode::<TaskBoard::PublishedDocument>()?.inner.data;
                let document = Some(event.document.to_vec());
                publish(event.id, event.answer, event.coordinator, document, None)?;
            }
            TaskBoard::Skipped::SIGNATURE_HASH => {
                let event = log.log_decode::<TaskBoard::Skipped>()?.inner.data;
                self.skipped.push((TaskId::new(event.id), event.reason));
            }
            TaskBoard::Credited::SIGNATURE_HASH => {
                let event = log.log_decode::<TaskBoard::Credited>()?.inner.data;
                self.credited.push((TaskId::new(event.id), event.to, event.amount));
            }
            _ => {}
        }
        Ok(())
    }
}

/// The receipt of a transaction, once it is mined.
async fn receipt(provider: &RootProvider, transaction: B256) -> Result<TransactionReceipt, Fault> {
    let began = Instant::now();
    loop {
        if let Some(receipt) = provider.get_transaction_receipt(transaction).await? {
            return Ok(receipt);
        }
        if began.elapsed() > MINED_WITHIN {
            return Err(format!("transaction {transaction} is not mined").into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn succeeded(receipt: &TransactionReceipt) -> Result<(), Fault> {
    if receipt.status() {
        Ok(())
    } else {
        Err(format!("transaction {} failed", receipt.transaction_hash).into())
    }
}

/// Puts the contract on the chain: owned by one account, answered by another.
async fn deploy(anvil: &Anvil) -> Result<Address, Fault> {
    let variables = [
        ("COORDINATOR_RPC_URL", anvil.url()),
        ("COORDINATOR_CLIENT_KEY", anvil.key(OWNER).to_owned()),
        ("COORDINATOR_KEY", anvil.key(PUBLISHER).to_owned()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value)).into();
    let output = crate::command(&variables)?.arg("deploy").output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("`coordinator deploy` failed: {}\n{said}", output.status).into()
    })
}
