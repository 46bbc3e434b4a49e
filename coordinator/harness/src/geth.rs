//! geth: another chain than Anvil, written by other people, which keeps the state of its last 128 blocks only.

use std::{path::PathBuf, process::Stdio, time::Duration};

use alloy::primitives::Address;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::{anvil, rpc::Rpc, scene::Fault};

/// How long it has to start and to mine a transaction.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running chain in development mode: each transaction gets a block at once, without one there is none. `safe` is its
/// newest block, `finalized` is 32 blocks behind or more. It is killed when this goes.
#[derive(Debug)]
pub struct Geth {
    _child: Child,
    _folder: tempfile::TempDir,
    url: String,
    node: Rpc,
    /// The account that has all the money; the node signs for it.
    rich: String,
}

impl Geth {
    /// Starts a chain and gives money to the accounts that [`Anvil`](crate::Anvil) has.
    ///
    /// # Errors
    /// When there is no geth (`GETH`, else what `scripts/parts/geth/build.sh` made) or it does not start.
    pub async fn start() -> Result<Self, Fault> {
        let program = std::env::var_os("GETH").map_or_else(|| crate::tool("geth"), PathBuf::from);
        let folder = tempfile::Builder::new().prefix("wasm-exec-geth-").tempdir()?;
        let mut child = Command::new(&program)
            .args(["--dev", "--dev.period", "0", "--gcmode", "full", "--ipcdisable"])
            .args(["--http", "--http.addr", "127.0.0.1", "--http.port", "0"])
            .args(["--http.api", "eth,net,web3", "--authrpc.port", "0"])
            .args(["--port", "0", "--nodiscover", "--maxpeers", "0"])
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                let program = program.display();
                format!("{program} cannot be started ({error}); run scripts/parts/geth/build.sh")
            })?;
        let stderr = child.stderr.take().ok_or("geth has no stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut said = Vec::new();
        let listens = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some((_, rest)) = line.split_once("HTTP server started") {
                    let address = rest.split_once("endpoint=")?.1.split_whitespace().next()?;
                    return Some(address.to_owned());
                }
                said.push(line);
            }
            None
        };
        let address = tokio::time::timeout(PATIENCE, listens).await.ok().flatten();
        let address = address
            .ok_or_else(|| format!("geth does not say where it listens:\n{}", said.join("\n")))?;
        // It goes on logging: a pipe that nobody reads would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let url = format!("http://{address}");
        let node = Rpc::new(&url);
        let accounts = node.call("eth_accounts", json!([])).await?;
        let rich = accounts.get(0).and_then(Value::as_str).ok_or("geth has no account")?.to_owned();
        let geth = Self { _child: child, _folder: folder, url, node, rich };
        for account in 0..4 {
            geth.pay(anvil::address(account), 1_000_000_000_000_000_000_000).await?;
        }
        Ok(geth)
    }

    /// Its HTTP endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Its JSON-RPC.
    #[must_use]
    pub fn rpc(&self) -> &Rpc {
        &self.node
    }

    /// Pays an account; the payment has a block of its own.
    ///
    /// # Errors
    /// When it is not mined.
    pub async fn pay(&self, to: Address, wei: u128) -> Result<(), Fault> {
        let call = json!({"from": self.rich, "to": to, "value": format!("{wei:#x}")});
        let hash = self.node.call("eth_sendTransaction", json!([call])).await?;
        let mined = async {
            // While it indexes its transactions it answers with an error.
            loop {
                let receipt = self.node.answer("eth_getTransactionReceipt", &json!([hash])).await?;
                if receipt.get("result").is_some_and(|receipt| !receipt.is_null()) {
                    return Ok::<_, Fault>(());
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        };
        tokio::time::timeout(PATIENCE, mined).await.map_err(|_| "a payment is not mined")?
    }

    /// Makes so many blocks, with a payment in each.
    ///
    /// # Errors
    /// When one is not made.
    pub async fn mine(&self, blocks: u64) -> Result<(), Fault> {
        let before = self.node.number("eth_blockNumber", json!([])).await?;
        while self.node.number("eth_blockNumber", json!([])).await? < before + blocks {
            self.pay(Address::repeat_byte(0x11), 1).await?;
        }
        Ok(())
    }
}
