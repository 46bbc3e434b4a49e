//! The contract's errors and reasons, as codes and sentences.

use alloy::sol_types::SolInterface as _;
use task_board::abi::TaskBoard::TaskBoardErrors;

use crate::Error;

/// A stable code and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Reason {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The reason in a call's revert data.
    pub(crate) fn of_revert(data: &[u8]) -> Self {
        use TaskBoardErrors as E;
        let Ok(error) = E::abi_decode(data) else {
            return Self::new("reverted", "the contract gave no reason that is known");
        };
        match error {
            E::AlreadyClosed(e) => Self::new("already_closed", format!("task {} is closed", e.id)),
            E::UnknownTask(e) => Self::new("unknown_task", format!("there is no task {}", e.id)),
            E::DeadlinePassed(e) => Self::new(
                "deadline_passed",
                format!("the deadline of task {} was at {}", e.id, e.deadline),
            ),
            E::DeadlineNotPassed(e) => Self::new(
                "deadline_not_passed",
                format!("the deadline of task {} is at {}", e.id, e.deadline),
            ),
            E::NotCoordinator(e) => Self::new(
                "not_coordinator",
                format!("{:#x} is no coordinator of domain {}", e.sender, e.domain),
            ),
            E::NotRequester(e) => {
                Self::new("not_requester", format!("only its requester may cancel task {}", e.id))
            }
            E::WrongAnchor(e) => Self::new(
                "wrong_anchor",
                format!("block {} is {:#x} here, not {:#x}", e.number, e.actual, e.expected),
            ),
            E::NotEnoughGas(e) => {
                Self::new("not_enough_gas", format!("the callback of task {} needs more gas", e.id))
            }
            E::InvalidAnswer(e) => {
                Self::new("invalid_answer", format!("{:#x} is no answer", e.answer))
            }
            E::AnchorBeforeTask(e) => Self::new(
                "anchor_before_task",
                format!(
                    "block {} is before block {} of task {}",
                    e.anchorNumber, e.submittedIn, e.id
                ),
            ),
            E::DocumentTooLarge(e) => {
                Self::new("document_too_large", format!("a document of {} bytes", e.length))
            }
            E::SubmissionsPaused(_) => Self::new("submissions_paused", "submissions are paused"),
            E::UnknownDomain(e) => {
                Self::new("unknown_domain", format!("there is no domain {}", e.domain))
            }
            E::NotOwner(_) => Self::new("not_owner", "only the owner may do this"),
            E::NotKept(e) => {
                Self::new("not_kept", format!("the contract holds nothing for task {}", e.id))
            }
            E::NothingToWithdraw(_) => Self::new("nothing_to_withdraw", "there is no credit"),
            E::TransferFailed(e) => {
                Self::new("transfer_failed", format!("{:#x} does not take the money", e.to))
            }
            E::InvalidDeadline(e) => {
                Self::new("invalid_deadline", format!("the deadline {} has passed", e.deadline))
            }
            other => Self::new("refused_by_contract", format!("{other:?}")),
        }
    }

    /// The reason of an item that a batch left out.
    pub(crate) fn of_skip(reason: u8, id: u64) -> Self {
        match reason {
            1 => Self::new("already_closed", format!("task {id} is closed")),
            2 => Self::new("not_coordinator", format!("no right to publish task {id}")),
            3 => Self::new("unknown_task", format!("there is no task {id}")),
            4 => Self::new("deadline_passed", format!("the deadline of task {id} has passed")),
            5 => Self::new("invalid_answer", format!("the answer to task {id} is none")),
            6 => Self::new("document_too_large", format!("the document of task {id} is too long")),
            7 => Self::new("not_enough_gas", format!("the callback of task {id} needs more gas")),
            8 => Self::new("anchor_before_task", format!("the anchor is before task {id}")),
            other => Self::new("refused_by_contract", format!("reason {other} for task {id}")),
        }
    }
}

/// An error of a call that the contract made fail, as such.
pub(crate) fn of_call(method: &'static str, error: Error) -> Error {
    match error {
        Error::Rpc { data: Some(data), .. } if !data.is_empty() => {
            let Reason { code, message } = Reason::of_revert(&data);
            Error::Reverted { method, code, message }
        }
        other => other,
    }
}
