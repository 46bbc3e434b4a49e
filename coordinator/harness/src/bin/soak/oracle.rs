//! Who judges: reads the chain by itself, block by block and receipt by receipt, straight from the node, and computes
//! every answer again. It shares nothing with the coordinator's own reading but the contract's bindings.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use alloy::{
    primitives::{Address, B256, U256, hex, keccak256},
    sol_types::SolEvent as _,
};
use harness::{
    rpc::{Rpc, quantity},
    scene::{Fault, Scene},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use task_board::{Submitted, TaskBoard, TaskId, decode_submitted};

use crate::content::{Content, Expected};

/// The longest document that the contract takes itself.
const INLINE_BYTES: usize = task_board::MAX_DOCUMENT_BYTES;
/// The contract's number for a rejection.
const REJECTED: u8 = 4;
/// The contract's reason for leaving out an item whose task has a result.
const ALREADY_CLOSED: u8 = 1;

/// Where something stands: block and place among the logs of the block.
type Place = (u64, usize);

/// What an event of the contract says.
#[derive(Debug, Clone)]
enum Said {
    Submitted(Box<Submitted>),
    Published(Published),
    Skipped { reason: u8 },
    Cancelled { id: TaskId, tag: u64, by: Address, at_s: u64 },
    Expired { id: TaskId },
    Credited { id: TaskId, to: Address, wei: U256 },
}

/// A result on chain.
#[derive(Debug, Clone)]
struct Published {
    id: TaskId,
    tag: u64,
    status: u8,
    anchor: u64,
    digest: B256,
    document: Option<Vec<u8>>,
}

/// A block as this side remembers it.
#[derive(Debug)]
struct Block {
    number: u64,
    parent: String,
    said: Vec<Said>,
    /// The coordinator's transactions that failed.
    failed: usize,
}

/// A kept task that has neither a result nor a refund.
#[derive(Debug, Clone)]
pub(crate) struct Open {
    pub(crate) id: TaskId,
    pub(crate) tag: u64,
    pub(crate) fee: U256,
    /// When a cancellation ends it; none when nobody cancelled it.
    pub(crate) cancelled_at_s: Option<u64>,
}

/// What is wrong, and what there is.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    pub(crate) tasks: usize,
    pub(crate) results: usize,
    pub(crate) cancelled: usize,
    pub(crate) expired: usize,
    /// Free tasks whose rejection is not on chain.
    pub(crate) silent: Vec<(TaskId, &'static [&'static str])>,
    /// Publications that failed, and items that were left out.
    pub(crate) in_vain: usize,
    pub(crate) open: Vec<Open>,
    pub(crate) lost: Vec<String>,
    pub(crate) doubled: Vec<String>,
    pub(crate) wrong: Vec<String>,
}

/// Reads and judges.
#[derive(Debug)]
pub(crate) struct Oracle {
    node: Rpc,
    board: Address,
    publisher: Address,
    known: HashMap<String, Arc<Block>>,
}

impl Oracle {
    pub(crate) fn new(scene: &Scene) -> Self {
        Self {
            node: Rpc::new(&scene.anvil().url()),
            board: *scene.board().address(),
            publisher: scene.publisher(),
            known: HashMap::new(),
        }
    }

    /// The chain from its first block to its newest.
    async fn read(&mut self) -> Result<Vec<Arc<Block>>, Fault> {
        let head = self.node.call("eth_getBlockByNumber", json!(["latest", false])).await?;
        let mut hash = text(&head, "hash");
        let mut chain = Vec::new();
        loop {
            let block = match self.known.get(&hash) {
                Some(block) => Arc::clone(block),
                None => {
                    let block = Arc::new(self.load(&hash).await?);
                    self.known.insert(hash.clone(), Arc::clone(&block));
                    block
                }
            };
            hash.clone_from(&block.parent);
            let number = block.number;
            chain.push(block);
            if number == 0 {
                chain.reverse();
                return Ok(chain);
            }
        }
    }

    async fn load(&self, hash: &str) -> Result<Block, Fault> {
        let header = self.node.call("eth_getBlockByHash", json!([hash, false])).await?;
        let number = header.get("number").and_then(quantity).ok_or("a block without a number")?;
        let listed = header.get("transactions").and_then(Value::as_array).map_or(0, Vec::len);
        let receipts = self.node.call("eth_getBlockReceipts", json!([{"blockHash": hash}])).await?;
        let receipts = receipts.as_array().cloned().unwrap_or_default();
        if receipts.len() != listed {
            return Err(format!(
                "block {number} has {listed} transactions, {} receipts",
                receipts.len()
            )
            .into());
        }
        let mut block =
            Block { number, parent: text(&header, "parentHash"), said: Vec::new(), failed: 0 };
        for receipt in &receipts {
            if text(receipt, "blockHash") != hash {
                return Err(format!("a receipt of block {number} is one of another").into());
            }
            let own = text(receipt, "from").parse::<Address>()? == self.publisher;
            if own && text(receipt, "status") != "0x1" {
                block.failed += 1;
            }
            for log in receipt.get("logs").and_then(Value::as_array).into_iter().flatten() {
                if text(log, "address").parse::<Address>()? == self.board {
                    block.said.extend(said(log)?);
                }
            }
        }
        Ok(block)
    }

    /// Judges what is on chain now.
    pub(crate) async fn judge(&mut self, content: &Content) -> Result<Judgement, Fault> {
        let chain = self.read().await?;
        let mut judgement = Judgement::default();
        let mut tasks: BTreeMap<TaskId, (Place, &Submitted)> = BTreeMap::new();
        let mut results: BTreeMap<TaskId, Vec<&Published>> = BTreeMap::new();
        let mut cancelled: BTreeMap<TaskId, u64> = BTreeMap::new();
        let mut expired: BTreeMap<TaskId, ()> = BTreeMap::new();
        let mut credited: BTreeMap<TaskId, Vec<(Address, U256)>> = BTreeMap::new();
        let events = chain.iter().flat_map(|block| {
            block.said.iter().enumerate().map(|(at, said)| ((block.number, at), said))
        });
        judgement.in_vain = chain.iter().map(|block| block.failed).sum();
        for (place, said) in events {
            match said {
                Said::Submitted(task) => {
                    if tasks.insert(task.id, (place, task)).is_some() {
                        judgement.doubled.push(format!("task {} was submitted twice", task.id));
                    }
                }
                Said::Published(result) => match tasks.get(&result.id) {
                    None => judgement.wrong.push(format!(
                        "block {}: a result for task {}, which nobody has submitted: {result:?}",
                        place.0, result.id
                    )),
                    Some((submitted, task)) => match fits(content, *submitted, task, result)? {
                        Ok(()) => results.entry(result.id).or_default().push(result),
                        Err(why) => judgement.wrong.push(format!(
                            "block {}: task {} of block {}: {why}",
                            place.0, result.id, submitted.0
                        )),
                    },
                },
                Said::Skipped { reason } => {
                    judgement.in_vain += usize::from(*reason == ALREADY_CLOSED);
                }
                Said::Cancelled { id, tag, by, at_s } => {
                    let task = tasks.get(id).map(|(_, task)| *task);
                    if task.is_some_and(|task| task.requester == *by && tag_of(task) == *tag) {
                        cancelled.entry(*id).or_insert(*at_s);
                    }
                }
                Said::Expired { id } => {
                    expired.insert(*id, ());
                }
                Said::Credited { id, to, wei } => {
                    credited.entry(*id).or_default().push((*to, *wei));
                }
            }
        }
        judgement.tasks = tasks.len();
        judgement.cancelled = cancelled.len();
        judgement.expired = expired.len();
        for (id, (place, task)) in &tasks {
            let found = results.get(id).map_or(&[][..], Vec::as_slice);
            judgement.results += found.len().min(1);
            if found.len() > 1 {
                judgement.doubled.push(format!("task {id} has {} results", found.len()));
            }
            let rejected = found.first().is_some_and(|result| result.status == REJECTED);
            let fee = task.fee;
            let wanted: &[(Address, U256)] = match (found.first(), expired.contains_key(id)) {
                _ if fee.is_zero() => &[],
                (Some(_), _) if !rejected => &[(self.publisher, fee)],
                (Some(_), _) | (None, true) => &[(task.requester, fee)],
                (None, false) => {
                    judgement.open.push(Open {
                        id: *id,
                        tag: tag_of(task),
                        fee,
                        cancelled_at_s: cancelled.get(id).copied(),
                    });
                    &[]
                }
            };
            let got = credited.remove(id).unwrap_or_default();
            if got != wanted {
                judgement.lost.push(format!(
                    "the fee of task {id}, {fee} wei, was credited {got:?}, not {wanted:?}"
                ));
            }
            if !found.is_empty() || cancelled.contains_key(id) || expired.contains_key(id) {
                continue;
            }
            match content.expected(task)? {
                Expected::Rejected(codes) if !id.is_kept() => judgement.silent.push((*id, codes)),
                Expected::Rejected(codes) => judgement
                    .lost
                    .push(format!("task {id} of block {} is not rejected ({codes:?})", place.0)),
                Expected::Document(document) => judgement
                    .lost
                    .push(format!("task {id} of block {} has no result: {document}", place.0)),
            }
        }
        for (id, credits) in credited {
            judgement.lost.push(format!("credits for task {id}, which is none: {credits:?}"));
        }
        Ok(judgement)
    }

    /// Whether the contract holds what it owes, to the last wei.
    pub(crate) async fn balance(
        &self,
        judgement: &mut Judgement,
        accounts: impl Iterator<Item = Address>,
    ) -> Result<(), Fault> {
        let mut owed: U256 = judgement.open.iter().map(|open| open.fee).sum();
        for account in accounts.chain([self.publisher]) {
            let data = call("credit(address)", &[account.into_word()]);
            let call = json!({"to": self.board, "data": hex::encode_prefixed(data)});
            let credit = self.node.call("eth_call", json!([call, "latest"])).await?;
            owed += credit.as_str().unwrap_or_default().parse::<U256>()?;
        }
        let held = self.node.call("eth_getBalance", json!([self.board, "latest"])).await?;
        let held = held.as_str().unwrap_or_default().parse::<U256>()?;
        if held != owed {
            judgement.lost.push(format!("the contract holds {held} wei and owes {owed}"));
        }
        Ok(())
    }
}

/// Whether a result is one of this task, and right.
fn fits(
    content: &Content,
    submitted: Place,
    task: &Submitted,
    result: &Published,
) -> Result<Result<(), String>, Fault> {
    if result.tag != tag_of(task) {
        return Ok(Err(format!("the result has the tag {:016x}: {result:?}", result.tag)));
    }
    if result.anchor < submitted.0 {
        return Ok(Err(format!("the result's anchor is block {}", result.anchor)));
    }
    let documents = match content.expected(task)? {
        Expected::Document(document) => vec![document],
        Expected::Rejected(codes) => {
            codes.iter().map(|code| format!(r#"{{"status":"rejected","code":"{code}"}}"#)).collect()
        }
    };
    let is_right = |document: &String| {
        let status = match document.split('"').nth(3) {
            Some("ok") => 1,
            Some("failed") => 2,
            Some("timed_out") => 3,
            _ => REJECTED,
        };
        let digest = <[u8; 32]>::from(Sha256::digest(document));
        result.status == status
            && match &result.document {
                Some(found) => found == document.as_bytes(),
                None => result.digest == digest,
            }
            && (result.document.is_none() || document.len() <= INLINE_BYTES)
    };
    if documents.iter().any(is_right) {
        return Ok(Ok(()));
    }
    let shown = result.document.as_deref().map(String::from_utf8_lossy);
    Ok(Err(format!(
        "status {}, {} is none of {documents:?}",
        result.status,
        shown.unwrap_or_else(|| result.digest.to_string().into())
    )))
}

fn tag_of(task: &Submitted) -> u64 {
    task.payload_hash.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The bytes of a call: the selector of a signature, and words.
pub(crate) fn call(signature: &str, words: &[B256]) -> Vec<u8> {
    let selector = keccak256(signature);
    let selector = selector.iter().take(4).copied();
    selector.chain(words.iter().flatten().copied()).collect()
}

/// A log's topics and data as bytes.
pub(crate) fn topics_and_data(log: &Value) -> Option<(Vec<B256>, Vec<u8>)> {
    let topics = log.get("topics")?.as_array()?.iter();
    let topics = topics.map(|topic| topic.as_str()?.parse().ok()).collect::<Option<_>>()?;
    Some((topics, hex::decode(log.get("data")?.as_str()?).ok()?))
}

/// What a log of the contract says; nothing for those that do not matter here.
fn said(log: &Value) -> Result<Option<Said>, Fault> {
    let (topics, data) = topics_and_data(log).ok_or("a log without topics or data")?;
    let word =
        |at: usize| data.get(at * 32..at * 32 + 32).map(B256::from_slice).unwrap_or_default();
    let number = |word: B256| U256::from_be_bytes(word.0);
    let topic = |at: usize| topics.get(at).copied().unwrap_or_default();
    let id = || -> Result<TaskId, Fault> { Ok(TaskId::new(u64::try_from(number(topic(1)))?)) };
    let account = Address::from_word(topic(2));
    let published = |document: Option<Vec<u8>>| -> Result<Said, Fault> {
        let answer = number(word(0));
        let part = |shift: usize| (answer >> shift) & U256::from(u64::MAX);
        Ok(Said::Published(Published {
            id: id()?,
            tag: u64::try_from(part(24))?,
            status: u8::try_from(answer & U256::from(0x7f))?,
            anchor: u64::try_from(part(88))?,
            digest: word(1),
            document,
        }))
    };
    Ok(Some(match topic(0) {
        TaskBoard::Submitted::SIGNATURE_HASH => {
            Said::Submitted(Box::new(decode_submitted(&topics, &data)?))
        }
        TaskBoard::Published::SIGNATURE_HASH => published(None)?,
        TaskBoard::PublishedDocument::SIGNATURE_HASH => {
            let length = usize::try_from(number(word(2)))?;
            let document = data.get(96..96 + length).ok_or("a document shorter than it says")?;
            published(Some(document.to_vec()))?
        }
        TaskBoard::Skipped::SIGNATURE_HASH => {
            Said::Skipped { reason: u8::try_from(number(word(0)))? }
        }
        TaskBoard::Cancelled::SIGNATURE_HASH => Said::Cancelled {
            id: id()?,
            by: account,
            tag: u64::try_from(number(word(0)))?,
            at_s: u64::try_from(number(word(1)))?,
        },
        TaskBoard::Expired::SIGNATURE_HASH => Said::Expired { id: id()? },
        TaskBoard::Credited::SIGNATURE_HASH => {
            Said::Credited { id: id()?, to: account, wei: number(word(0)) }
        }
        _ => return Ok(None),
    }))
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}
