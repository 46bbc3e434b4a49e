//! One log becomes at most one event.

use std::collections::BTreeSet;

use alloy::{primitives::B256, sol_types::SolEvent};
use executor_protocol::{Document, Status};
use sha2::{Digest as _, Sha256};
use store::{Sighting, SightingKind, Writer};
use task::{Answer, Event, Identity, LocalId, TaskId};
use task_board::{Header, LoggedAnswer, Tag, TaskBoard};

use super::Watcher;
use crate::{Error, block::Log, range::any_of, submission};

/// The events that are read.
pub(super) const TOPICS: [B256; 5] = [
    TaskBoard::Submitted::SIGNATURE_HASH,
    TaskBoard::Published::SIGNATURE_HASH,
    TaskBoard::PublishedDocument::SIGNATURE_HASH,
    TaskBoard::Cancelled::SIGNATURE_HASH,
    TaskBoard::Expired::SIGNATURE_HASH,
];

/// The filter for them.
pub(super) fn topics() -> serde_json::Value {
    any_of(&TOPICS)
}

/// The sequence of a submission.
pub(super) fn sequence(log: &Log) -> Option<u64> {
    Header::of(&log.topics, &log.data).ok().map(|header| header.id.sequence())
}

/// A result as it stands in a log.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) id: TaskId,
    /// Of the submission that it belongs to.
    pub(crate) tag: Tag,
    /// Number of the block that it is anchored at.
    pub(crate) anchor_number: u64,
    pub(crate) publisher: task::Address,
    pub(crate) status: Status,
    pub(crate) engine: u16,
    pub(crate) digest: task::Hash,
    pub(crate) document: Option<Vec<u8>>,
}

impl Published {
    /// Reads `Published` and `PublishedDocument`; none for any other log and for an answer without meaning.
    pub(crate) fn read(log: &Log) -> Option<Self> {
        let topics = || log.topics.iter().copied();
        let (id, publisher, answer, digest, document) = match *log.topics.first()? {
            TaskBoard::Published::SIGNATURE_HASH => {
                let event = TaskBoard::Published::decode_raw_log(topics(), &log.data).ok()?;
                (event.id, event.coordinator, event.answer, event.digest, None)
            }
            TaskBoard::PublishedDocument::SIGNATURE_HASH => {
                let event =
                    TaskBoard::PublishedDocument::decode_raw_log(topics(), &log.data).ok()?;
                let document = event.document.to_vec();
                let digest = B256::from(<[u8; 32]>::from(Sha256::digest(&document)));
                (event.id, event.coordinator, event.answer, digest, Some(document))
            }
            _ => return None,
        };
        let answer = LoggedAnswer::unpack(answer)?;
        Some(Self {
            id: TaskId(id),
            tag: answer.tag,
            anchor_number: answer.anchor_number,
            publisher: task::Hex(publisher.into_array()),
            status: Status::from_number(answer.status)?,
            engine: answer.engine,
            digest: task::Hex(digest.0),
            document,
        })
    }

    /// Whether it is one for this submission: its tag says so, and its anchor is not before the submission's block.
    pub(crate) fn belongs_to(&self, identity: &Identity, included: u64) -> bool {
        self.id == identity.task_id
            && self.tag == submission::tag(identity)
            && self.anchor_number >= included
    }

    fn answer(&self) -> Answer {
        let outcome = self.document.as_ref().and_then(|document| Document::parse(document).ok());
        let code = outcome.and_then(|(_, outcome)| outcome.code().map(str::to_owned));
        Answer { status: self.status, digest: self.digest, code }
    }
}

impl Watcher {
    /// Writes what a log says; answers how many events that was. A log that says nothing is counted and passed.
    pub(super) async fn record(
        &self,
        writer: &mut Writer,
        log: &Log,
        now_ms: i64,
    ) -> Result<usize, Error> {
        let (Some(topic), Some(block)) = (log.topics.first().copied(), log.block()) else {
            return Ok(0);
        };
        let topics = || log.topics.iter().copied();
        let (kind, event, task) = match topic {
            TaskBoard::Submitted::SIGNATURE_HASH => {
                return self.record_submission(writer, log, now_ms).await;
            }
            TaskBoard::Cancelled::SIGNATURE_HASH => {
                let Ok(event) = TaskBoard::Cancelled::decode_raw_log(topics(), &log.data) else {
                    return Ok(unreadable(log));
                };
                let Some((task, known)) = self.known(writer, TaskId(event.id)).await? else {
                    return Ok(0);
                };
                // Anybody can make the contract say so: only its requester counts, and only for this very task.
                if known.submission.requester.0 != event.by.into_array()
                    || submission::tag(&known.identity).0 != event.tag
                {
                    return Ok(0);
                }
                (SightingKind::Cancelled, Event::CancelRequested, task)
            }
            TaskBoard::Expired::SIGNATURE_HASH => {
                let Ok(event) = TaskBoard::Expired::decode_raw_log(topics(), &log.data) else {
                    return Ok(unreadable(log));
                };
                let Some((task, known)) = self.known(writer, TaskId(event.id)).await? else {
                    return Ok(0);
                };
                if submission::tag(&known.identity).0 != event.tag {
                    return Ok(strange(log, &known.identity));
                }
                (SightingKind::Expired, Event::Expired, task)
            }
            _ => {
                let Some(published) = Published::read(log) else { return Ok(unreadable(log)) };
                let Some((task, known)) = self.known(writer, published.id).await? else {
                    return Ok(0);
                };
                let included = writer.included_in(task).await?.unwrap_or_default();
                if !published.belongs_to(&known.identity, included) {
                    return Ok(strange(log, &known.identity));
                }
                let ours = self.options.ours == Some(published.publisher);
                let transaction = log.transaction();
                let event =
                    Event::Answered { ours, answer: published.answer(), block, transaction };
                (SightingKind::Answered, event, task)
            }
        };
        let ours = matches!(event, Event::Answered { ours: true, .. });
        let transaction = log.transaction();
        if !writer.see(&self.board, &Sighting { task, kind, block, transaction, ours }).await? {
            return Ok(0);
        }
        writer.append(task, &event, now_ms).await?;
        // A result of ours that our outbox does not know is from a database that was lost: nobody else will say that
        // it is final, and what is read here is as deep as the confirmations ask.
        if ours && !writer.has_attempt(&transaction).await? {
            writer.append(task, &Event::Finalized, now_ms).await?;
        }
        metrics::counter!("wasm_exec_chain_events_total", "event" => event.name()).increment(1);
        Ok(1)
    }

    /// Ids of tasks that are not followed here: nothing that is said of them need be looked up one by one.
    pub(super) async fn of_others(
        &self,
        writer: &mut Writer,
        logs: &[Log],
    ) -> Result<BTreeSet<TaskId>, Error> {
        // Not asked of the domains that are followed: what is submitted in these very blocks is ours.
        let ids = logs.iter().filter_map(id_of).filter(|id| !self.is_followed(id.domain()));
        let ids: BTreeSet<_> = ids.collect();
        match ids.is_empty() {
            true => Ok(ids),
            false => Ok(writer.unknown_ids(&self.board, &ids).await?),
        }
    }

    /// Whether the tasks of a domain are taken.
    fn is_followed(&self, domain: u16) -> bool {
        self.options.domains.is_empty() || self.options.domains.contains(&domain)
    }

    /// The task that stands under an id on the branch that is read.
    async fn known(
        &self,
        writer: &mut Writer,
        id: TaskId,
    ) -> Result<Option<(LocalId, task::Task)>, Error> {
        let Some(task) = writer.task_with_id(&self.board, id).await? else { return Ok(None) };
        Ok(Some((task, writer.load(task).await?.task)))
    }

    async fn record_submission(
        &self,
        writer: &mut Writer,
        log: &Log,
        now_ms: i64,
    ) -> Result<usize, Error> {
        let Some(block) = log.block() else { return Ok(0) };
        let Ok((identity, submission)) =
            submission::read(self.board.chain_id, self.board.contract, log)
        else {
            return Ok(unreadable(log));
        };
        if !self.is_followed(identity.task_id.domain()) {
            return Ok(0);
        }
        // Where the node does not say it with the log, the pipeline asks when it needs it.
        let made_at_ms = log.made_at_ms().unwrap_or(0);
        let task =
            writer.insert_task_at(&identity, &submission, made_at_ms, now_ms).await?.local_id;
        let sighting = Sighting {
            task,
            kind: SightingKind::Included,
            block,
            transaction: log.transaction(),
            ours: false,
        };
        if !writer.see(&self.board, &sighting).await? {
            return Ok(0);
        }
        if let Err(malformed) = &submission.request {
            tracing::warn!(task.id = %identity.task_id, error = malformed.message, "a task that cannot be run");
        }
        writer.find_task(task).await?;
        writer.append(task, &Event::Included { block }, now_ms).await?;
        metrics::counter!("wasm_exec_chain_events_total", "event" => "included").increment(1);
        Ok(1)
    }
}

/// The id of the task that a log is about: every event of a task has it first.
pub(super) fn id_of(log: &Log) -> Option<TaskId> {
    let (_, id) = log.topics.get(1)?.as_slice().split_last_chunk::<8>()?;
    Some(TaskId(u64::from_be_bytes(*id)))
}

/// Something under a task's id that is not about this task: for another submission, or anchored before this one.
fn strange(log: &Log, identity: &Identity) -> usize {
    metrics::counter!("wasm_exec_chain_strange_publications_total").increment(1);
    let transaction = log.transaction();
    tracing::warn!(
        task.id = %identity.task_id, task.tag = %submission::tag(identity), %transaction,
        "a publication under the id of a task that does not belong to it is passed over"
    );
    0
}

fn unreadable(log: &Log) -> usize {
    metrics::counter!("wasm_exec_chain_unreadable_logs_total").increment(1);
    let transaction = log.transaction();
    tracing::warn!(%transaction, "a log of the contract that says nothing this version can read");
    0
}
