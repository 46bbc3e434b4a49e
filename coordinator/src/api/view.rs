//! Tasks as the API shows them.

use executor_protocol::Status;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{json, value::RawValue};
use store::{ResultRow, TimelineEntry};
use task::{
    Address, BlockRef, CancelReason, Event, Hash, LocalId, Malformed, Request, State, Task, TaskId,
};

/// A task in a list.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    id: TaskId,
    local_id: LocalId,
    chain_id: u64,
    /// The same as text: JSON numbers above 2^53 are not read exactly everywhere.
    chain_id_text: String,
    contract: Address,
    payload: Hash,
    domain: u16,
    kept: bool,
    requester: Address,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<String>,
    included: Option<BlockRef>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled: Option<CancelReason>,
    outcome: Option<Outcome>,
    publication: Option<Publication>,
    attempts: u32,
    seen_at: String,
}

/// How a task ended.
#[derive(Debug, Serialize)]
struct Outcome {
    status: Status,
    code: Option<String>,
    digest: Hash,
}

/// Where its result stands.
#[derive(Debug, Serialize)]
struct Publication {
    block: BlockRef,
    transaction: Hash,
}

/// A task with everything that is known of it.
#[derive(Debug, Serialize)]
pub(super) struct Details {
    #[serde(flatten)]
    summary: Summary,
    request: Option<Request>,
    #[serde(skip_serializing_if = "Option::is_none")]
    malformed: Option<Malformed>,
    result: Option<TaskResult>,
    timeline: Vec<Step>,
}

/// A result document, byte for byte, and what stands beside it.
#[derive(Debug, Serialize)]
struct TaskResult {
    document: Option<Box<RawValue>>,
    /// The same as text: what its SHA-256 is the digest of, also after the answer was read and written again.
    document_text: String,
    digest: String,
    record: Option<Box<RawValue>>,
}

/// One line of a timeline.
#[derive(Debug, Serialize)]
struct Step {
    step: &'static str,
    at: String,
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    detail: serde_json::Value,
}

impl Summary {
    pub(super) fn of(task: &Task) -> Self {
        let publication = match &task.state {
            State::Mined { block, transaction, .. }
            | State::Final { published: Some((block, transaction)), .. } => {
                Some(Publication { block: *block, transaction: *transaction })
            }
            _ => None,
        };
        let cancelled = match &task.state {
            State::Cancelled { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        Self {
            id: task.identity.task_id,
            local_id: task.local_id,
            chain_id: task.identity.chain_id,
            chain_id_text: task.identity.chain_id.to_string(),
            contract: task.identity.contract,
            payload: task.identity.payload,
            domain: task.identity.task_id.domain(),
            kept: task.identity.task_id.is_kept(),
            requester: task.submission.requester,
            transaction: task.submission.transaction.clone(),
            included: task.included,
            state: task.state.name(),
            cancelled,
            outcome: task.state.answer().map(|answer| Outcome {
                status: answer.status,
                code: answer.code.clone(),
                digest: answer.digest,
            }),
            publication,
            attempts: task.attempts,
            seen_at: instant(task.seen_at_ms),
        }
    }
}

impl Details {
    pub(super) fn of(task: &Task, result: Option<&ResultRow>, events: &[TimelineEntry]) -> Self {
        let (request, malformed) = match &task.submission.request {
            Ok(request) => (Some(request.clone()), None),
            Err(malformed) => (None, Some(malformed.clone())),
        };
        let raw = |text: &str| RawValue::from_string(text.to_owned()).ok();
        let mut timeline =
            vec![Step { step: "seen", at: instant(task.seen_at_ms), detail: json!(null) }];
        for entry in events {
            push(&mut timeline, &entry.event, instant(entry.at_ms));
        }
        Self {
            summary: Summary::of(task),
            request,
            malformed,
            result: result.map(|result| TaskResult {
                document: raw(&result.document),
                document_text: result.document.clone(),
                digest: result.digest.clone(),
                record: result.record.as_deref().and_then(raw),
            }),
            timeline,
        }
    }
}

/// The steps of a task's life have names of their own; every other event keeps its name.
fn push(timeline: &mut Vec<Step>, event: &Event, at: String) {
    let step = match event {
        Event::Queued => "publishing",
        Event::Finalized | Event::Retired { .. } => "final",
        other => other.name(),
    };
    let detail = match event {
        Event::Included { block } | Event::Dropped { block } | Event::AnswerDropped { block } => {
            json!({"block": block})
        }
        Event::Answered { ours, answer, block, transaction } => {
            json!({"ours": ours, "status": answer.status, "block": block, "transaction": transaction})
        }
        Event::Started { attempt } => json!({"attempt": attempt}),
        Event::Deferred { until_ms, code, message } | Event::Held { until_ms, code, message } => {
            json!({"until": instant(*until_ms), "code": code, "message": message})
        }
        Event::Finished { answer } => json!({"status": answer.status, "code": answer.code}),
        Event::Retired { reason } => json!({"reason": reason}),
        Event::Sent { transaction, nonce } => json!({"transaction": transaction, "nonce": nonce}),
        Event::Mined { transaction, block } => json!({"transaction": transaction, "block": block}),
        Event::Refused { code, message } => json!({"code": code, "message": message}),
        _ => json!(null),
    };
    let waits_for_a_place = matches!(event, Event::Fetched).then(|| at.clone());
    timeline.push(Step { step, at, detail });
    if let Some(at) = waits_for_a_place {
        timeline.push(Step { step: "queued", at, detail: json!(null) });
    }
}

/// RFC 3339 with milliseconds, in UTC.
pub(super) fn instant(unix_ms: i64) -> String {
    let at = Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}
