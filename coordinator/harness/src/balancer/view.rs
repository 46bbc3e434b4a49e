//! A node that is at one line of the chain: it answers everything as a node would whose newest block that is.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::line::{Block, Line};
use crate::rpc::{Rpc, quantity};

/// One node.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) line: Line,
}

/// `{"result": ..}` or `{"error": ..}`.
pub(super) type Reply = Value;

fn result(value: Value) -> Reply {
    json!({"result": value})
}

pub(super) fn error(code: i64, message: &str) -> Reply {
    json!({"error": {"code": code, "message": message}})
}

fn unknown_block() -> Reply {
    error(-32_000, "header not found")
}

fn hex(number: u64) -> Value {
    json!(format!("0x{number:x}"))
}

impl View {
    fn head(&self) -> u64 {
        self.line.last().map_or(0, |block| block.number)
    }

    fn at(&self, number: u64) -> Option<&Block> {
        self.line.get(usize::try_from(number).ok()?).map(AsRef::as_ref)
    }

    /// The block that a tag, a number or a hash names.
    fn block(&self, name: &Value) -> Option<&Block> {
        if let Some(fields) = name.as_object() {
            return match (fields.get("blockHash"), fields.get("blockNumber")) {
                (Some(hash), _) => self.by_hash(hash.as_str()?),
                (None, Some(number)) => self.block(number),
                (None, None) => None,
            };
        }
        let number = match name.as_str() {
            None | Some("latest" | "pending") => self.head(),
            Some("earliest") => 0,
            Some("safe") => self.head().saturating_sub(32),
            Some("finalized") => self.head().saturating_sub(64),
            Some(text) if text.len() == 66 => return self.by_hash(text),
            Some(_) => quantity(name)?,
        };
        self.at(number)
    }

    fn by_hash(&self, hash: &str) -> Option<&Block> {
        self.line.iter().rev().find(|block| block.hash == hash).map(AsRef::as_ref)
    }

    fn receipt(&self, transaction: &str) -> Option<&Value> {
        self.line.iter().rev().find_map(|block| block.receipt(transaction))
    }

    fn logs(&self, filter: &Value) -> Reply {
        let blocks = match filter.get("blockHash").and_then(Value::as_str) {
            Some(hash) => match self.by_hash(hash) {
                Some(block) => vec![block],
                None => return error(-32_000, "unknown block"),
            },
            None => {
                let number = |field: &str, absent: u64| match filter.get(field) {
                    None | Some(Value::Null) => absent,
                    Some(name) => self
                        .block(name)
                        .map_or_else(|| quantity(name).unwrap_or(absent), |block| block.number),
                };
                // As many nodes do: what is beyond the newest block has no logs.
                let (from, to) = (number("fromBlock", self.head()), number("toBlock", self.head()));
                (from..=to.min(self.head())).filter_map(|number| self.at(number)).collect()
            }
        };
        let logs = blocks.iter().flat_map(|block| &block.logs);
        result(logs.filter(|log| fits(log, filter)).cloned().collect())
    }

    /// Answers a call. What needs state is asked of the node behind, for the block by its hash.
    pub(super) async fn answer(&self, node: &Rpc, method: &str, parameters: &Value) -> Reply {
        let parameter = |at: usize| parameters.get(at).unwrap_or(&Value::Null);
        let text = |at: usize| parameter(at).as_str().unwrap_or_default();
        match method {
            "eth_blockNumber" => result(hex(self.head())),
            "eth_getBlockByNumber"
            | "eth_getBlockByHash"
            | "eth_getHeaderByNumber"
            | "eth_getHeaderByHash" => match self.block(parameter(0)) {
                None => result(Value::Null),
                Some(block) if parameter(1) == &json!(true) => {
                    forward(node, "eth_getBlockByHash", &json!([block.hash, true])).await
                }
                Some(block) => result(block.header.clone()),
            },
            "eth_getLogs" => self.logs(parameter(0)),
            "eth_getTransactionReceipt" => {
                result(self.receipt(text(0)).cloned().unwrap_or_default())
            }
            "eth_getBlockReceipts" => match self.block(parameter(0)) {
                None => result(Value::Null),
                Some(block) => result(Value::Array(block.receipts.clone())),
            },
            "eth_getTransactionByHash" => self.transaction(node, text(0)).await,
            "eth_getTransactionCount" if text(1) == "pending" => {
                forward(node, method, parameters).await
            }
            "eth_call"
            | "eth_estimateGas"
            | "eth_getTransactionCount"
            | "eth_getBalance"
            | "eth_getCode" => self.state(node, method, parameters, 1).await,
            "eth_getStorageAt" => self.state(node, method, parameters, 2).await,
            _ => forward(node, method, parameters).await,
        }
    }

    /// A question about the state after a block, which stands at this place of the parameters.
    async fn state(&self, node: &Rpc, method: &str, parameters: &Value, place: usize) -> Reply {
        let Some(block) = self.block(parameters.get(place).unwrap_or(&Value::Null)) else {
            return unknown_block();
        };
        let mut parameters = parameters.as_array().cloned().unwrap_or_default();
        parameters.truncate(place);
        parameters.push(json!({"blockHash": block.hash}));
        let reply = forward(node, method, &Value::Array(parameters)).await;
        // The node behind is on another branch by now.
        let message = reply.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
        if message.contains("Resource not found") { unknown_block() } else { reply }
    }

    /// A transaction; one whose block this node does not have waits.
    async fn transaction(&self, node: &Rpc, hash: &str) -> Reply {
        let mut reply = forward(node, "eth_getTransactionByHash", &json!([hash])).await;
        let Some(transaction) = reply.get_mut("result").and_then(Value::as_object_mut) else {
            return reply;
        };
        let receipt = self.receipt(hash);
        for field in ["blockHash", "blockNumber", "transactionIndex"] {
            let value = receipt.and_then(|receipt| receipt.get(field)).cloned();
            transaction.insert(field.to_owned(), value.unwrap_or_default());
        }
        reply
    }
}

async fn forward(node: &Rpc, method: &str, parameters: &Value) -> Reply {
    match node.answer(method, parameters).await {
        Ok(mut answer) => match answer.get_mut("error").map(Value::take) {
            Some(error) if !error.is_null() => json!({"error": error}),
            _ => result(answer.get_mut("result").map(Value::take).unwrap_or_default()),
        },
        Err(fault) => error(-32_603, &format!("the node behind does not answer: {fault}")),
    }
}

/// Whether a log is one that the filter asks for.
fn fits(log: &Value, filter: &Value) -> bool {
    let is_one_of = |found: Option<&Value>, wanted: Option<&Value>| match wanted {
        None | Some(Value::Null) => true,
        Some(Value::Array(some)) if some.is_empty() => true,
        Some(Value::Array(some)) => {
            let some: BTreeSet<_> = some.iter().filter_map(lower).collect();
            found.and_then(lower).is_some_and(|found| some.contains(&found))
        }
        Some(one) => found.and_then(lower) == lower(one),
    };
    let topics = filter.get("topics").and_then(Value::as_array);
    is_one_of(log.get("address"), filter.get("address"))
        && topics.into_iter().flatten().enumerate().all(|(at, wanted)| {
            is_one_of(log.get("topics").and_then(|topics| topics.get(at)), Some(wanted))
        })
}

fn lower(value: &Value) -> Option<String> {
    Some(value.as_str()?.to_ascii_lowercase())
}
