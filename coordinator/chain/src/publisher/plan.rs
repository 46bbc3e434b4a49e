//! Pure: which publications go into one transaction, or which withdrawal is one, and what that transaction is.

use alloy::{
    primitives::{B256, U256, hex},
    sol_types::SolCall,
};
use store::{Pending, Withdrawal};
use task::BlockRef;
use task_board::{Answer, DigestBatch, DigestRecord, Status, TaskBoard, abi::ITaskBoard, gas};

use crate::{
    block::{alloy_address, b256},
    submission::tag,
};

/// Bounds of one transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The engine's id.
    pub(super) engine: u16,
    /// The most items.
    pub(super) items: usize,
    /// The most gas.
    pub(super) gas: u64,
}

/// One transaction before it has a nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// What is published, ids ascending; none for a withdrawal, and for a transfer of nothing that only uses a nonce up.
    pub(super) items: Vec<Pending>,
    /// What is withdrawn.
    pub(super) withdrawal: Option<Withdrawal>,
    /// The call.
    pub(super) call: Vec<u8>,
    pub(super) gas_limit: u64,
}

/// A transfer of nothing to oneself.
const TRANSFER_GAS: u64 = 21_000;
/// A withdrawal, with room for a recipient that is a contract.
const WITHDRAWAL_GAS: u64 = 100_000;

impl Plan {
    /// Takes the longest run of the queue's front that one transaction can hold: either documents or digests, inside
    /// the bounds. What failed for want of gas goes alone, with more.
    pub(super) fn of_queue(queue: &[Pending], anchor: &BlockRef, bounds: &Bounds) -> Option<Self> {
        let ready =
            || queue.iter().filter(|pending| pending.publication.included.number <= anchor.number);
        let first = ready().next()?;
        let inline = first.publication.document.is_some();
        let mut items: Vec<Pending> = Vec::new();
        if first.standing.tries > 0 {
            items.push(first.clone());
        } else {
            let alike = ready().filter(|pending| {
                pending.standing.tries == 0 && pending.publication.document.is_some() == inline
            });
            for pending in alike.take(bounds.items.max(1)) {
                items.push(pending.clone());
                if items.len() > 1 && gas_limit(&items) > bounds.gas {
                    items.pop();
                    break;
                }
            }
        }
        Some(Self::of(items, anchor, bounds.engine))
    }

    /// One transaction for all of these, which are either documents or digests.
    pub(super) fn of(mut items: Vec<Pending>, anchor: &BlockRef, engine: u16) -> Self {
        items.sort_by_key(|pending| pending.publication.identity.task_id);
        let (number, hash) = (U256::from(anchor.number), b256(anchor.hash));
        let call = match items.as_slice() {
            [] => Vec::new(),
            [one] => single(one, engine, number, hash),
            several if several.iter().any(|pending| pending.publication.document.is_some()) => {
                let results = several
                    .iter()
                    .map(|pending| ITaskBoard::Result {
                        answer: answer(pending, engine).pack(),
                        document: document(pending).into(),
                    })
                    .collect();
                TaskBoard::publishBatchCall { results, anchorNumber: number, anchorHash: hash }
                    .abi_encode()
            }
            several => {
                let records = several
                    .iter()
                    .map(|pending| {
                        let Answer { id, tag, status, again, .. } = answer(pending, engine);
                        DigestRecord { id, tag, status, again, digest: digest(pending) }
                    })
                    .collect();
                let packed = DigestBatch { engine, records }.encode().into();
                TaskBoard::publishDigestsCall { packed, anchorNumber: number, anchorHash: hash }
                    .abi_encode()
            }
        };
        let gas_limit = gas_limit(&items);
        Self { items, withdrawal: None, call, gas_limit }
    }

    /// The transaction of a withdrawal.
    pub(super) fn of_withdrawal(withdrawal: Withdrawal) -> Self {
        let call = TaskBoard::withdrawCall { to: alloy_address(withdrawal.recipient) }.abi_encode();
        let gas_limit = with_more(WITHDRAWAL_GAS, withdrawal.tries);
        Self { items: Vec::new(), withdrawal: Some(withdrawal), call, gas_limit }
    }

    /// The call as the outbox keeps it.
    pub(super) fn call_text(&self) -> String {
        hex::encode_prefixed(&self.call)
    }
}

/// What a publication says of its task: the tag is that of the submission it was computed for.
fn answer(pending: &Pending, engine: u16) -> Answer {
    let publication = &pending.publication;
    Answer {
        id: task_board::TaskId::new(publication.identity.task_id.0),
        tag: tag(&publication.identity),
        engine,
        status: publication.status,
        again: pending.standing.again,
    }
}

fn single(pending: &Pending, engine: u16, number: U256, hash: B256) -> Vec<u8> {
    let answer = answer(pending, engine).pack();
    match &pending.publication.document {
        Some(document) => TaskBoard::publishDocumentCall {
            answer,
            document: document.clone().into_bytes().into(),
            anchorNumber: number,
            anchorHash: hash,
        }
        .abi_encode(),
        None => TaskBoard::publishCall {
            answer,
            digest: digest(pending),
            anchorNumber: number,
            anchorHash: hash,
        }
        .abi_encode(),
    }
}

fn document(pending: &Pending) -> Vec<u8> {
    pending.publication.document.clone().unwrap_or_default().into_bytes()
}

fn digest(pending: &Pending) -> B256 {
    pending.publication.digest.parse::<task::Hash>().map(b256).unwrap_or_default()
}

fn gas_limit(items: &[Pending]) -> u64 {
    let gas_items: Vec<_> = items
        .iter()
        .map(|pending| gas::Item {
            id: task_board::TaskId::new(pending.publication.identity.task_id.0),
            document_bytes: pending.publication.document.as_ref().map_or(0, String::len),
            // Nobody is called for a rejection.
            callback_gas: match pending.publication.status == Status::Rejected.code() {
                true => 0,
                false => pending.publication.callback_gas,
            },
        })
        .collect();
    let inline = items.iter().any(|pending| pending.publication.document.is_some());
    let limit = match (gas_items.as_slice(), inline) {
        ([], _) => return TRANSFER_GAS,
        ([one], true) => gas::publish_document(one),
        ([one], false) => gas::publish(one),
        (several, true) => gas::publish_batch(several),
        (several, false) => gas::publish_digests(several),
    };
    let tries = items.iter().map(|pending| pending.standing.tries).max().unwrap_or_default();
    with_more(limit, tries)
}

/// More gas after each try that was without effect.
fn with_more(limit: u64, tries: u32) -> u64 {
    limit.saturating_add(limit / 2 * u64::from(tries.min(8)))
}

/// Whether a call, as the outbox keeps it, is a withdrawal.
pub(super) fn is_withdrawal(call: &str) -> bool {
    call.starts_with(&hex::encode_prefixed(TaskBoard::withdrawCall::SELECTOR))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use store::Publication;
    use task::{Hash, Identity, LocalId, TaskId};

    use super::*;

    const BOUNDS: Bounds = Bounds { engine: 1, items: 3, gas: 10_000_000 };
    const ANCHOR: BlockRef = BlockRef { number: 10, hash: task::Hex([1; 32]) };

    fn pending(sequence: u64, document: Option<&str>) -> Pending {
        Pending {
            publication: Publication {
                task: LocalId(sequence as i64),
                identity: Identity {
                    chain_id: 31_337,
                    contract: task::Hex([2; 20]),
                    task_id: TaskId::new(0, false, sequence),
                    payload: task::Hex([3; 32]),
                },
                status: 1,
                digest: Hash::to_string(&task::Hex([4; 32])),
                document: document.map(str::to_owned),
                callback_gas: 0,
                included: BlockRef { number: sequence, hash: task::Hex([5; 32]) },
            },
            standing: task::publication::Publication::new(BlockRef {
                number: sequence,
                hash: task::Hex([5; 32]),
            }),
        }
    }

    fn ids(plan: &Plan) -> Vec<i64> {
        plan.items.iter().map(|pending| pending.publication.task.0).collect()
    }

    #[test]
    fn the_queue_s_front_decides_whether_documents_or_digests_go_together() {
        let queue =
            [pending(2, Some("{}")), pending(1, None), pending(3, Some("{}")), pending(4, None)];
        let plan = Plan::of_queue(&queue, &ANCHOR, &BOUNDS).unwrap();
        assert_eq!(ids(&plan), [2, 3]);
        assert_eq!(plan.call[..4], TaskBoard::publishBatchCall::SELECTOR);
        let plan = Plan::of_queue(&queue[1..], &ANCHOR, &BOUNDS).unwrap();
        assert_eq!(ids(&plan), [1, 4]);
        assert_eq!(plan.call[..4], TaskBoard::publishDigestsCall::SELECTOR);
    }

    #[test]
    fn one_alone_is_published_alone() {
        let plan = Plan::of_queue(&[pending(1, None)], &ANCHOR, &BOUNDS).unwrap();
        assert_eq!(plan.call[..4], TaskBoard::publishCall::SELECTOR);
        let plan = Plan::of_queue(&[pending(1, Some("{}"))], &ANCHOR, &BOUNDS).unwrap();
        assert_eq!(plan.call[..4], TaskBoard::publishDocumentCall::SELECTOR);
    }

    #[test]
    fn a_transaction_stays_inside_its_bounds() {
        let queue: Vec<_> = (1..=9).map(|sequence| pending(sequence, None)).collect();
        assert_eq!(Plan::of_queue(&queue, &ANCHOR, &BOUNDS).unwrap().items.len(), 3);
        let tight = Bounds { gas: 1, ..BOUNDS };
        assert_eq!(ids(&Plan::of_queue(&queue, &ANCHOR, &tight).unwrap()), [1]);
        let low = BlockRef { number: 2, ..ANCHOR };
        assert_eq!(ids(&Plan::of_queue(&queue, &low, &BOUNDS).unwrap()), [1, 2]);
        assert_eq!(Plan::of_queue(&queue[2..], &low, &BOUNDS), None);
    }

    #[test]
    fn what_failed_for_want_of_gas_goes_alone_with_more() {
        let mut failed = pending(1, None);
        failed.standing.tries = 1;
        let plan = Plan::of_queue(&[failed, pending(2, None)], &ANCHOR, &BOUNDS).unwrap();
        assert_eq!(ids(&plan), [1]);
        let once = Plan::of_queue(&[pending(1, None)], &ANCHOR, &BOUNDS).unwrap();
        assert!(plan.gas_limit > once.gas_limit);
    }

    #[test]
    fn a_withdrawal_is_a_transaction_of_its_own() {
        let withdrawal = Withdrawal {
            id: 1,
            recipient: task::Hex([9; 20]),
            amount_wei: None,
            requested_at_ms: 0,
            tries: 2,
            state: task::publication::State::Queued,
        };
        let plan = Plan::of_withdrawal(withdrawal);
        assert!(is_withdrawal(&plan.call_text()) && plan.items.is_empty());
        assert!(plan.call.ends_with(&[9; 20]));
        assert_eq!(plan.gas_limit, 200_000);
        assert!(!is_withdrawal("0x"));
    }

    #[test]
    fn an_empty_plan_is_a_transfer_of_nothing() {
        let plan = Plan::of(Vec::new(), &ANCHOR, 1);
        assert_eq!((plan.call_text().as_str(), plan.gas_limit), ("0x", 21_000));
    }
}
