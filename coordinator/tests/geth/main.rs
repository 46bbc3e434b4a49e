//! The README's walk on geth: a second chain, with `safe` and `finalized`, that forgets the state of old blocks.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{collections::BTreeMap, net::TcpListener, path::Path, process::Output, time::Duration};

use harness::{Daemon, Geth, command, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const DOCUMENT: &str = r#"{"status":"ok","value":144}"#;

/// A chain with the contract, a mirror with the samples, a folder for data.
struct Stage {
    geth: Geth,
    folder: TempDir,
    contract: String,
    listen: String,
}

impl Stage {
    /// `coordinator deploy`, as the README says.
    async fn start() -> Self {
        let geth = Geth::start().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let samples = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../host/wasm"));
        std::fs::create_dir(folder.path().join("mirror")).unwrap();
        for name in ["fib.wasm", "affine.wasm"] {
            std::fs::copy(samples.join(name), folder.path().join("mirror").join(name)).unwrap();
        }
        let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut stage = Self { geth, folder, contract: String::new(), listen };
        let mut variables = stage.client();
        variables.remove("COORDINATOR_CONTRACT");
        variables.insert("COORDINATOR_KEY".to_owned(), harness::key(1).to_owned());
        stage.contract = said(&variables, &["deploy"]).await;
        stage
    }

    fn client(&self) -> BTreeMap<String, String> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        [
            ("COORDINATOR_RPC_URL", self.geth.url()),
            ("COORDINATOR_CONTRACT", self.contract.clone()),
            ("COORDINATOR_CLIENT_KEY", harness::key(2).to_owned()),
            ("COORDINATOR_IPFS_MIRROR", path("mirror")),
            ("COORDINATOR_DATA_DIR", path("client")),
            ("COORDINATOR_API", format!("http://{}", self.listen)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// A coordinator with its data in this folder.
    async fn serve(&self, data: &str, confirmations: &str) -> Daemon {
        let mut variables = self.client();
        variables.remove("COORDINATOR_CLIENT_KEY");
        let data = self.folder.path().join(data).display().to_string();
        for (name, value) in [
            ("COORDINATOR_KEY", harness::key(1)),
            ("COORDINATOR_DATA_DIR", &data),
            ("COORDINATOR_LISTEN", &self.listen),
            ("COORDINATOR_CONFIRMATIONS", confirmations),
        ] {
            variables.insert(name.to_owned(), value.to_owned());
        }
        let mut daemon = Daemon::start(&variables, self.folder.path()).unwrap();
        wait_for("the coordinator to be ready", PATIENCE, async || {
            if let Some(status) = daemon.ended().unwrap() {
                return Err(format!("it ended: {status}\n{}", daemon.tail()));
            }
            match self.get("/readyz").await {
                Some(answer) if answer["status"] == "ready" => Ok(()),
                answer => Err(format!("{answer:?}\n{}", daemon.tail())),
            }
        })
        .await;
        daemon
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let url = format!("http://{}{path}", self.listen);
        reqwest::get(url).await.ok()?.json().await.ok()
    }

    /// Submits a task and answers its id.
    async fn submit(&self) -> String {
        let module = self.folder.path().join("mirror/fib.wasm").display().to_string();
        said(&self.client(), &["submit", &module, "--entry", "fib", "--args", "[12]"]).await
    }

    /// Waits until the coordinator has nothing left to do for a task, and makes blocks meanwhile: nothing becomes final
    /// on a chain that stands still.
    async fn is_final(&self, id: &str) -> Value {
        wait_for(&format!("task {id} to be final"), PATIENCE, async || {
            self.geth.mine(1).await.unwrap();
            match self.get(&format!("/api/v1/tasks/{id}")).await {
                Some(task) if task["state"] == "final" => Ok(task),
                task => Err(format!("{task:?}")),
            }
        })
        .await
    }

    /// `result` and `verify` say what they must.
    async fn reads_back(&self, id: &str) {
        assert_eq!(said(&self.client(), &["result", id]).await, DOCUMENT);
        let verdict = said(&self.client(), &["verify", id, "--json"]).await;
        let verdict: Value = serde_json::from_str(&verdict).unwrap();
        assert_eq!(verdict["verified"], true, "{verdict}");
        assert_eq!(verdict["published"], verdict["computed"]);
    }

    /// The number of the block that a tag names.
    async fn block(&self, tag: &str) -> u64 {
        let block =
            self.geth.rpc().call("eth_getBlockByNumber", json!([tag, false])).await.unwrap();
        harness::rpc::quantity(&block["number"]).unwrap()
    }

    /// Asks the contract for the number of tasks in the state after a block.
    async fn count_at(&self, block: u64) -> Value {
        let call = json!({"to": self.contract, "data": "0xb6cb58a5"});
        let block = format!("{block:#x}");
        self.geth.rpc().answer("eth_call", &json!([call, block])).await.unwrap()
    }
}

async fn run(variables: &BTreeMap<String, String>, words: &[&str]) -> Output {
    command(variables).unwrap().args(words).output().await.unwrap()
}

/// Runs a command that must do what it is asked to, and answers its stdout.
async fn said(variables: &BTreeMap<String, String>, words: &[&str]) -> String {
    let output = run(variables, words).await;
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{words:?}: {}\n{out}\n{err}", output.status);
    out.trim().to_owned()
}

async fn stop(daemon: Daemon) {
    daemon.stop(Duration::from_secs(10)).await.unwrap();
}

async fn walk(confirmations: &str) {
    let stage = Stage::start().await;
    let daemon = stage.serve("data", confirmations).await;
    let id = stage.submit().await;
    let task = stage.is_final(&id).await;
    assert_eq!(task["result"]["document"]["value"], 144, "{task}");
    stage.reads_back(&id).await;
    // What is final for the coordinator is so for the chain.
    let mined = task["publication"]["block"]["number"].as_u64().unwrap();
    assert!(stage.block(confirmations).await >= mined, "{task}");
    stop(daemon).await;
    // Without the coordinator.
    stage.reads_back(&id).await;
}

#[tokio::test]
async fn the_walk_on_geth_with_safe_blocks() {
    walk("safe").await;
}

#[tokio::test]
async fn the_walk_on_geth_with_finalized_blocks() {
    walk("finalized").await;
}

#[tokio::test]
async fn c6_three_hundred_blocks_later_a_node_without_old_state_is_enough() {
    let stage = Stage::start().await;
    let daemon = stage.serve("data", "safe").await;
    let id = stage.submit().await;
    stage.is_final(&id).await;
    stop(daemon).await;
    let old = stage.block("latest").await;
    assert!(stage.count_at(old).await["error"].is_null(), "{}", stage.count_at(old).await);
    stage.geth.mine(300).await.unwrap();
    // The node has really forgotten.
    let forgotten = stage.count_at(old).await;
    assert!(forgotten["error"]["message"].as_str().is_some(), "{forgotten}");

    // Readers find everything through logs.
    stage.reads_back(&id).await;

    // The same coordinator goes on, with what it knows and with a new task.
    let daemon = stage.serve("data", "safe").await;
    let known = stage.get(&format!("/api/v1/tasks/{id}")).await.unwrap();
    assert_eq!(known["state"], "final", "{known}");
    let next = stage.submit().await;
    stage.is_final(&next).await;
    stage.reads_back(&next).await;
    stop(daemon).await;

    // One that knows nothing reads from the contract's first block, not from the newest.
    let daemon = stage.serve("fresh", "safe").await;
    let path = format!("/api/v1/tasks/{id}");
    wait_for("the old task to be known", PATIENCE, async || match stage.get(&path).await {
        Some(task) if task["payload"] == known["payload"] => Ok(()),
        answer => Err(format!("{answer:?}")),
    })
    .await;
    let last = stage.submit().await;
    stage.is_final(&last).await;
    stage.reads_back(&last).await;
    stop(daemon).await;
}
