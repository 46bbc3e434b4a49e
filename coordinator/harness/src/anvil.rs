//! Anvil: a real chain on this machine.

use std::{path::PathBuf, process::Stdio, time::Duration};

use alloy::{primitives::Address, signers::local::PrivateKeySigner};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// How many blocks' states it keeps: a reorganisation can be as deep.
const STATES: &str = "600";

/// The private keys of Anvil's first accounts: everybody knows them.
const KEYS: [&str; 6] = [
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
    "0x47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
    "0x8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba",
];

/// A running chain that mines every transaction at once unless it is told otherwise. It is killed when this goes.
#[derive(Debug)]
pub struct Anvil {
    child: Child,
    address: String,
    client: reqwest::Client,
}

impl Anvil {
    /// Starts a chain on a free port.
    ///
    /// # Panics
    /// When there is no Anvil (`ANVIL`, else what `scripts/tools.sh` installed) or it does not start.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a chain with more arguments.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    #[expect(clippy::panic, reason = "test support: there is nothing to go on with")]
    pub async fn start_with(arguments: &[&str]) -> Self {
        let program = program();
        let started = Command::new(&program)
            .args(["--host", "127.0.0.1", "--port", "0"])
            // Left to itself it keeps ever fewer states after 500 blocks, and what it goes back to from disk is empty.
            .args(["--prune-history", STATES])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                panic!("{} cannot be started ({error}); run scripts/tools.sh", program.display())
            }
        };
        let Some(stdout) = child.stdout.take() else { panic!("Anvil has no stdout") };
        let mut lines = BufReader::new(stdout).lines();
        let listens = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(address) = line.strip_prefix("Listening on ") {
                    return Some(address.trim().to_owned());
                }
            }
            None
        };
        let Ok(Some(address)) = tokio::time::timeout(Duration::from_secs(20), listens).await else {
            panic!("{} does not say where it listens", program.display());
        };
        // It logs every call: a pipe that nobody reads would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, address, client: reqwest::Client::new() }
    }

    /// Its HTTP endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its WebSocket endpoint.
    #[must_use]
    pub fn ws_url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Its process id; 0 once it has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// The private key of an account, in hex.
    ///
    /// # Panics
    /// When there is no such account.
    #[must_use]
    pub fn key(&self, account: usize) -> &'static str {
        key(account)
    }

    /// The address of an account.
    ///
    /// # Panics
    /// When there is no such account.
    #[must_use]
    pub fn address(&self, account: usize) -> Address {
        address(account)
    }

    /// Calls a method and answers its result.
    ///
    /// # Panics
    /// When the chain does not answer or answers with an error.
    #[expect(clippy::panic, reason = "test support: there is nothing to go on with")]
    pub async fn rpc(&self, method: &str, parameters: Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters});
        let answer = async {
            let answer = self.client.post(self.url()).json(&body).send().await?;
            answer.json::<Value>().await
        };
        match answer.await {
            Ok(answer) if answer.get("error").is_none() => {
                answer.get("result").cloned().unwrap_or_default()
            }
            answer => panic!("{method}: {answer:?}"),
        }
    }

    /// Mines blocks.
    ///
    /// # Panics
    /// As [`rpc`](Self::rpc).
    pub async fn mine(&self, blocks: u64) {
        self.rpc("anvil_mine", json!([blocks])).await;
    }

    /// Replaces the newest blocks by as many empty ones.
    ///
    /// # Panics
    /// As [`rpc`](Self::rpc).
    pub async fn reorg(&self, depth: u64) {
        self.rpc("anvil_reorg", json!([depth, []])).await;
    }

    /// Whether every transaction is mined at once.
    ///
    /// # Panics
    /// As [`rpc`](Self::rpc).
    pub async fn set_automine(&self, on: bool) {
        self.rpc("evm_setAutomine", json!([on])).await;
    }

    /// Gives an account a balance.
    ///
    /// # Panics
    /// As [`rpc`](Self::rpc).
    pub async fn set_balance(&self, account: Address, wei: u128) {
        self.rpc("anvil_setBalance", json!([account, format!("0x{wei:x}")])).await;
    }
}

/// The private key of one of the accounts that every development chain of this crate gives money to.
///
/// # Panics
/// When there is no such account.
#[must_use]
#[expect(clippy::indexing_slicing, reason = "test support: the caller's mistake")]
pub fn key(account: usize) -> &'static str {
    KEYS[account]
}

/// The address of that account.
///
/// # Panics
/// When there is no such account.
#[must_use]
#[expect(clippy::expect_used, reason = "the keys above are valid")]
pub fn address(account: usize) -> Address {
    let signer: PrivateKeySigner = key(account).parse().expect("a valid key");
    signer.address()
}

/// `ANVIL`, else where `scripts/tools.sh` puts it.
fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("ANVIL") {
        return path.into();
    }
    crate::tool("bin/anvil")
}
