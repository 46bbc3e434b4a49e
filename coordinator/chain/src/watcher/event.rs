//! One log becomes at most one event.

use alloy::{primitives::B256, sol_types::SolEvent};
use executor_protocol::{Document, Status};
use sha2::{Digest as _, Sha256};
use store::{Sighting, SightingKind, Writer};
use task::{Answer, Event, TaskId};
use task_board::{Header, TaskBoard};

use super::Watcher;
use crate::{Error, block::Log, range::any_of, submission};

/// The events that are read.
pub(super) fn topics() -> serde_json::Value {
    any_of(&[
        TaskBoard::Submitted::SIGNATURE_HASH,
        TaskBoard::Published::SIGNATURE_HASH,
        TaskBoard::PublishedDocument::SIGNATURE_HASH,
        TaskBoard::Cancelled::SIGNATURE_HASH,
        TaskBoard::Expired::SIGNATURE_HASH,
    ])
}

/// The sequence of a submission.
pub(super) fn sequence(log: &Log) -> Option<u64> {
    Header::of(&log.topics, &log.data).ok().map(|header| header.id.sequence())
}

/// A result as it stands in a log.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) id: TaskId,
    pub(crate) publisher: task::Address,
    pub(crate) status: Status,
    pub(crate) engine: u16,
    pub(crate) digest: task::Hash,
    pub(crate) document: Option<Vec<u8>>,
}

impl Published {
    /// Reads `Published` and `PublishedDocument`; none for any other log and for a status without meaning.
    pub(crate) fn read(log: &Log) -> Option<Self> {
        let topics = || log.topics.iter().copied();
        let (id, publisher, status, engine, digest, document) = match *log.topics.first()? {
            TaskBoard::Published::SIGNATURE_HASH => {
                let event = TaskBoard::Published::decode_raw_log(topics(), &log.data).ok()?;
                (event.id, event.coordinator, event.status, event.engine, event.digest, None)
            }
            TaskBoard::PublishedDocument::SIGNATURE_HASH => {
                let event =
                    TaskBoard::PublishedDocument::decode_raw_log(topics(), &log.data).ok()?;
                let document = event.document.to_vec();
                let digest = B256::from(<[u8; 32]>::from(Sha256::digest(&document)));
                (event.id, event.coordinator, event.status, event.engine, digest, Some(document))
            }
            _ => return None,
        };
        Some(Self {
            id: TaskId(id),
            publisher: task::Hex(publisher.into_array()),
            status: Status::from_number(status)?,
            engine,
            digest: task::Hex(digest.0),
            document,
        })
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
                let Some(task) = writer.task_with_id(&self.board, TaskId(event.id)).await? else {
                    return Ok(0);
                };
                // Anybody can make the contract say so for a free task: only its requester counts.
                let requester = writer.load(task).await?.task.submission.requester;
                if requester.0 != event.by.into_array() {
                    return Ok(0);
                }
                (SightingKind::Cancelled, Event::CancelRequested, task)
            }
            TaskBoard::Expired::SIGNATURE_HASH => {
                let Ok(event) = TaskBoard::Expired::decode_raw_log(topics(), &log.data) else {
                    return Ok(unreadable(log));
                };
                let Some(task) = writer.task_with_id(&self.board, TaskId(event.id)).await? else {
                    return Ok(0);
                };
                (SightingKind::Expired, Event::Expired, task)
            }
            _ => {
                let Some(published) = Published::read(log) else { return Ok(unreadable(log)) };
                let Some(task) = writer.task_with_id(&self.board, published.id).await? else {
                    return Ok(0);
                };
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
        let domain = identity.task_id.domain();
        if !self.options.domains.is_empty() && !self.options.domains.contains(&domain) {
            return Ok(0);
        }
        if let Err(malformed) = &submission.request {
            tracing::warn!(task.id = %identity.task_id, "a task that cannot be run: {}", malformed.message);
        }
        let task = writer.insert_task(&identity, &submission, now_ms).await?.local_id;
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
        writer.append(task, &Event::Included { block }, now_ms).await?;
        metrics::counter!("wasm_exec_chain_events_total", "event" => "included").increment(1);
        Ok(1)
    }
}

fn unreadable(log: &Log) -> usize {
    metrics::counter!("wasm_exec_chain_unreadable_logs_total").increment(1);
    let transaction = log.transaction();
    tracing::warn!(%transaction, "a log of the contract that says nothing this version can read");
    0
}
