//! What a receipt says of each result in it.

use std::collections::BTreeMap;

use alloy::{primitives::Bytes, sol_types::SolEvent};
use serde_json::json;
use store::{Account, Outgoing, Publication};
use task::publication::{self, Event, Place};
use task_board::TaskBoard;

use super::plan::is_withdrawal;
use crate::{
    Error,
    block::{Log, TransactionReceipt, quantity},
    endpoint::Endpoint,
    revert::Reason,
    watcher::Published,
};

/// How often a result is sent without effect until it is given up.
const MOST_TRIES: u32 = 5;
/// The contract knows the hashes of this many blocks.
const ANCHOR_BLOCKS: u64 = 256;

/// What happened to the items of one transaction.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// What stands on chain now.
    pub(super) published: Vec<Published>,
    /// What was paid out of our credit, in wei.
    pub(super) withdrawn: Option<u128>,
    skipped: BTreeMap<u64, Reason>,
    failed: Option<Reason>,
}

/// Why an item does not stand on chain.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    /// Whether it is sent again.
    pub(super) again: bool,
    /// Whether the next time is another try of the same, alone and with more gas.
    pub(super) counts: bool,
}

impl Refusal {
    /// What a publication or a withdrawal is told; `strange` when its id is closed by what does not belong to its task.
    pub(super) fn event(self, place: Place, strange: bool) -> Event {
        Event::NotTaken {
            place,
            reason: publication::Reason {
                code: self.reason.code.to_owned(),
                message: self.reason.message,
            },
            again: self.again || strange,
            counts: self.counts,
            strange,
        }
    }
}

impl Verdict {
    pub(super) async fn of(
        endpoint: &Endpoint,
        account: &Account,
        outgoing: &Outgoing,
        receipt: &TransactionReceipt,
    ) -> Result<Self, Error> {
        let mut verdict = Self::default();
        if !receipt.is_success() {
            verdict.failed = Some(why(endpoint, account, outgoing, receipt).await?);
            return Ok(verdict);
        }
        for log in receipt.logs.iter().filter(|log| log.address.0 == outgoing.contract.0) {
            if let Some(published) = Published::read(log) {
                verdict.published.push(published);
            } else if let Some(amount) = withdrawn(log, account) {
                verdict.withdrawn = Some(amount);
            } else if let Some((id, reason)) = skipped(log) {
                verdict.skipped.insert(id, reason);
            }
        }
        Ok(verdict)
    }

    /// Whether it put this publication on chain.
    pub(super) fn holds(&self, publication: &Publication) -> bool {
        self.published.iter().any(|published| is_of(published, publication))
    }

    /// Whether the contract says that an item's id is closed.
    pub(super) fn says_closed(&self, id: u64) -> bool {
        self.skipped.get(&id).or(self.failed.as_ref()).is_some_and(|it| it.code == "already_closed")
    }

    /// What becomes of an item that was not published.
    pub(super) fn refusal(&self, id: u64, tries: u32) -> Refusal {
        Self::why_not(self.skipped.get(&id).or(self.failed.as_ref()).cloned(), tries)
    }

    /// What becomes of a withdrawal that was not paid.
    pub(super) fn unpaid(&self, tries: u32) -> Refusal {
        Self::why_not(self.failed.clone(), tries)
    }

    fn why_not(reason: Option<Reason>, tries: u32) -> Refusal {
        // The transaction that was mined is an older one, from before this item came to its nonce.
        let Some(reason) = reason else {
            let message = "the mined transaction does not hold it".to_owned();
            let reason = Reason { code: "not_in_transaction", message };
            return Refusal { reason, again: true, counts: false };
        };
        let (again, counts) = match reason.code {
            // The owner may give the right back: the publisher waits for that before it signs again.
            "wrong_anchor" | "anchor_before_task" | "not_coordinator" => (true, false),
            // A recipient that is a contract may need more gas than it was left.
            "not_enough_gas" | "out_of_gas" | "reverted" | "transfer_failed" => {
                (tries < MOST_TRIES, true)
            }
            // One bad item must not hold up a transaction that has others.
            _ => (false, false),
        };
        Refusal { reason, again, counts }
    }
}

/// Whether a log is this publication: the same task by its tag, with an anchor that is not before it, and the same result.
pub(super) fn is_of(published: &Published, publication: &Publication) -> bool {
    published.belongs_to(&publication.identity, publication.included.number)
        && published.digest.to_string() == publication.digest
}

fn withdrawn(log: &Log, account: &Account) -> Option<u128> {
    let event = TaskBoard::Withdrawn::decode_raw_log(log.topics.iter().copied(), &log.data).ok()?;
    (event.account.0 == account.sender.0).then(|| event.amount.saturating_to())
}

fn skipped(log: &Log) -> Option<(u64, Reason)> {
    let event = TaskBoard::Skipped::decode_raw_log(log.topics.iter().copied(), &log.data).ok()?;
    Some((event.id, Reason::of_skip(event.reason, event.id)))
}

/// Why a whole transaction failed. Its receipt does not say: the anchor is looked at, then the call is made again.
async fn why(
    endpoint: &Endpoint,
    account: &Account,
    outgoing: &Outgoing,
    receipt: &TransactionReceipt,
) -> Result<Reason, Error> {
    let (anchor, mined) = (outgoing.anchor, receipt.block().number);
    let is_known = anchor.number < mined && mined - anchor.number <= ANCHOR_BLOCKS;
    let is_newest =
        outgoing.attempts.last().is_some_and(|newest| newest.hash == receipt.transaction());
    let asks_for_none = is_withdrawal(&outgoing.call);
    // An older attempt had an older anchor, which the outbox has replaced because it was no good.
    if !is_newest || (!asks_for_none && (!is_known || endpoint.has(&anchor).await? == Some(false)))
    {
        let message = format!("block {} is not a recent one of this chain", anchor.number);
        return Ok(Reason { code: "wrong_anchor", message });
    }
    let call = json!({
        "from": account.sender.to_string(), "to": outgoing.contract.to_string(), "data": outgoing.call,
        "gas": quantity(outgoing.gas_limit),
    });
    let replay: Result<Bytes, Error> = endpoint.call("eth_call", &(call, quantity(mined))).await;
    match replay {
        Err(Error::Rpc { data: Some(data), .. }) if !data.is_empty() => {
            Ok(Reason::of_revert(&data))
        }
        Err(error @ (Error::Unreachable { .. } | Error::Status { .. })) => Err(error),
        _ if receipt.gas_used() >= outgoing.gas_limit - outgoing.gas_limit / 64 => {
            Ok(Reason { code: "out_of_gas", message: "the gas limit was too low".to_owned() })
        }
        _ => Ok(Reason { code: "reverted", message: "the transaction failed".to_owned() }),
    }
}
