//! What a chain has been: every block that was ever its newest, with its logs and receipts, and the lines of blocks
//! that a node has shown one after the other.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use serde_json::{Value, json};

use crate::{
    rpc::{Rpc, quantity},
    scene::Fault,
};

/// A block with everything that a node says of it.
#[derive(Debug)]
pub struct Block {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: String,
    /// The header, with the hashes of the transactions.
    pub header: Value,
    /// The receipts, in order.
    pub receipts: Vec<Value>,
    /// The logs of all receipts, in order.
    pub logs: Vec<Value>,
    /// Where the receipt of a transaction is.
    places: HashMap<String, usize>,
}

/// All blocks from the first to the newest, by number.
pub type Line = Arc<Vec<Arc<Block>>>;

/// The lines that a node has had: the newest first.
#[derive(Debug)]
pub(super) struct History {
    node: Rpc,
    known: HashMap<String, Arc<Block>>,
    lines: VecDeque<Line>,
    most: usize,
}

impl Block {
    /// The receipt of a transaction that is in this block.
    #[must_use]
    pub fn receipt(&self, transaction: &str) -> Option<&Value> {
        self.receipts.get(*self.places.get(transaction)?)
    }

    async fn load(node: &Rpc, hash: &str) -> Result<Self, Fault> {
        let header = node.call("eth_getBlockByHash", json!([hash, false])).await?;
        let number = header.get("number").and_then(quantity);
        let number = number.ok_or_else(|| format!("there is no block {hash}"))?;
        let receipts = node.call("eth_getBlockReceipts", json!([{"blockHash": hash}])).await?;
        let receipts = receipts.as_array().cloned().unwrap_or_default();
        let text = |receipt: &Value, field: &str| {
            receipt.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        if let Some(other) = receipts.iter().find(|receipt| text(receipt, "blockHash") != hash) {
            return Err(
                format!("a receipt of block {hash} names {}", text(other, "blockHash")).into()
            );
        }
        let logs = receipts.iter().filter_map(|receipt| receipt.get("logs")?.as_array());
        let logs = logs.flatten().cloned().collect();
        let places = receipts.iter().enumerate();
        let places = places.map(|(at, receipt)| (text(receipt, "transactionHash"), at)).collect();
        Ok(Self { number, hash: hash.to_owned(), header, receipts, logs, places })
    }
}

impl History {
    /// Remembers so many lines.
    pub(super) fn new(node: Rpc, most: usize) -> Self {
        Self { node, known: HashMap::new(), lines: VecDeque::new(), most }
    }

    /// Looks at the node; answers whether there is another line than before.
    pub(super) async fn look(&mut self) -> Result<bool, Fault> {
        let head = self.node.call("eth_getBlockByNumber", json!(["latest", false])).await?;
        let head = head.get("hash").and_then(Value::as_str).ok_or("the node has no head")?;
        if self.newest().is_some_and(|line| line.last().is_some_and(|last| last.hash == head)) {
            return Ok(false);
        }
        let before = self.newest().unwrap_or_default();
        let mut fresh = Vec::new();
        let mut hash = head.to_owned();
        let kept = loop {
            let block = self.block(&hash).await?;
            let at = usize::try_from(block.number)?;
            if before.get(at).is_some_and(|known| known.hash == hash) {
                break at + 1;
            }
            let parent = block.header.get("parentHash").and_then(Value::as_str);
            let parent = parent.unwrap_or_default().to_owned();
            fresh.push(block);
            if at == 0 {
                break 0;
            }
            hash = parent;
        };
        let mut line: Vec<_> = before.iter().take(kept).cloned().collect();
        line.extend(fresh.into_iter().rev());
        self.lines.push_front(Arc::new(line));
        self.lines.truncate(self.most);
        Ok(true)
    }

    async fn block(&mut self, hash: &str) -> Result<Arc<Block>, Fault> {
        if let Some(known) = self.known.get(hash) {
            return Ok(Arc::clone(known));
        }
        let block = Arc::new(Block::load(&self.node, hash).await?);
        self.known.insert(hash.to_owned(), Arc::clone(&block));
        Ok(block)
    }

    /// The newest line.
    pub(super) fn newest(&self) -> Option<Line> {
        self.lines.front().cloned()
    }

    /// The line that was the newest so many looks ago, or the oldest that is remembered.
    pub(super) fn line(&self, back: usize) -> Option<Line> {
        self.lines.get(back).or_else(|| self.lines.back()).cloned()
    }
}
