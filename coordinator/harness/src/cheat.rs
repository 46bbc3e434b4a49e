//! What a test does to a chain beside mining and forking.

use std::time::Duration;

use alloy::{
    primitives::{Address, U256},
    sol_types::{SolCall, SolConstructor},
};
use serde_json::{Value, json};
use task_board::TaskBoard;

use crate::{Anvil, wait_for};

#[expect(clippy::expect_used, reason = "test support: there is nothing to go on with")]
impl Anvil {
    /// Replaces the newest blocks; the new block of each index takes these signed transactions.
    ///
    /// # Panics
    /// As [`rpc`](Self::rpc).
    pub async fn reorg_with(&self, depth: u64, transactions: &[(String, u64)]) {
        let pairs: Vec<_> = transactions.iter().map(|(raw, block)| json!([raw, block])).collect();
        self.rpc("anvil_reorg", json!([depth, pairs])).await;
    }

    /// Removes the newest blocks without replacement.
    ///
    /// # Panics
    /// As [`rpc`](Self::rpc).
    pub async fn rollback(&self, depth: u64) {
        self.rpc("anvil_rollback", json!([depth])).await;
    }

    /// Forgets a transaction that is not mined.
    ///
    /// # Panics
    /// As [`rpc`](Self::rpc).
    pub async fn drop_transaction(&self, hash: &str) {
        self.rpc("anvil_dropTransaction", json!([hash])).await;
    }

    /// The newest block's number.
    ///
    /// # Panics
    /// As [`rpc`](Self::rpc).
    pub async fn block_number(&self) -> u64 {
        number(&self.rpc("eth_blockNumber", json!([])).await)
    }

    /// How many transactions of an account are mined.
    ///
    /// # Panics
    /// As [`rpc`](Self::rpc).
    pub async fn nonce(&self, address: Address) -> u64 {
        number(&self.rpc("eth_getTransactionCount", json!([address, "latest"])).await)
    }

    /// Sends a transaction that Anvil signs for one of its accounts; answers its hash.
    ///
    /// # Panics
    /// As [`rpc`](Self::rpc).
    pub async fn send(
        &self,
        account: usize,
        to: Option<Address>,
        data: &[u8],
        wei: U256,
    ) -> String {
        let call = json!({
            "from": self.address(account), "to": to, "data": alloy::hex::encode_prefixed(data),
            "value": format!("{wei:#x}"), "gas": "0xe00000",
        });
        let hash = self.rpc("eth_sendTransaction", json!([call])).await;
        hash.as_str().expect("a hash").to_owned()
    }

    /// A transaction's receipt, waited for: Anvil answers before it mines.
    ///
    /// # Panics
    /// As [`rpc`](Self::rpc), and when it is not mined.
    pub async fn receipt(&self, hash: &str) -> Value {
        wait_for(&format!("{hash} to be mined"), Duration::from_secs(10), async || {
            match self.rpc("eth_getTransactionReceipt", json!([hash])).await {
                Value::Null => Err("it is not".to_owned()),
                receipt => Ok(receipt),
            }
        })
        .await
    }

    /// A transaction's signed bytes.
    ///
    /// # Panics
    /// As [`rpc`](Self::rpc).
    pub async fn raw_transaction(&self, hash: &str) -> String {
        let raw = self.rpc("eth_getRawTransactionByHash", json!([hash])).await;
        raw.as_str().expect("the bytes").to_owned()
    }

    /// Deploys code that account 0 signs for; answers the address.
    ///
    /// # Panics
    /// As [`rpc`](Self::rpc).
    pub async fn create(&self, code: &[u8]) -> Address {
        let hash = self.send(0, None, code, U256::ZERO).await;
        let receipt = self.receipt(&hash).await;
        let address = receipt.get("contractAddress").and_then(Value::as_str);
        address.expect("an address").parse().expect("an address")
    }

    /// Deploys a TaskBoard that account 0 owns, with one engine (its id is 1) and account 1 as coordinator of domain 0.
    ///
    /// # Panics
    /// As [`rpc`](Self::rpc).
    pub async fn deploy_board(&self, engine: &str) -> Address {
        let mut code = TaskBoard::BYTECODE.to_vec();
        code.extend(TaskBoard::constructorCall { owner_: self.address(0) }.abi_encode());
        let board = self.create(&code).await;
        let engine = TaskBoard::registerEngineCall { name: engine.to_owned() }.abi_encode();
        self.send(0, Some(board), &engine, U256::ZERO).await;
        let coordinator = self.address(1);
        let right = TaskBoard::setCoordinatorCall { domain: 0, coordinator, allowed: true };
        let last = self.send(0, Some(board), &right.abi_encode(), U256::ZERO).await;
        self.receipt(&last).await;
        board
    }
}

#[expect(clippy::expect_used, reason = "test support: there is nothing to go on with")]
fn number(value: &Value) -> u64 {
    let text = value.as_str().expect("a quantity").trim_start_matches("0x");
    u64::from_str_radix(text, 16).expect("a quantity")
}
