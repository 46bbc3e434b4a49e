//! Reading single tasks from the chain alone, without a store.

use alloy::{primitives::B256, sol_types::SolEvent};
use executor_protocol::Status;
use serde_json::json;
use task::{Address, BlockRef, Hash, Identity, Submission, TaskId};
use task_board::TaskBoard;

use crate::{
    Board, Error,
    block::Log,
    origin,
    search::{Outcome, Search},
    submission, watcher,
};

/// A task as its submission stands on chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSubmission {
    /// What it is.
    pub identity: Identity,
    /// What its event said.
    pub submission: Submission,
    /// Where it stands.
    pub block: BlockRef,
}

/// A task's result as it stands on chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundResult {
    /// How the task ended.
    pub status: Status,
    /// The engine's id.
    pub engine: u16,
    /// The engine's name, if it is registered.
    pub engine_name: Option<String>,
    /// SHA-256 of the result document.
    pub digest: Hash,
    /// The document, if it was published itself.
    pub document: Option<Vec<u8>>,
    /// Who published it.
    pub publisher: Address,
    /// Where it stands.
    pub block: BlockRef,
    /// The transaction.
    pub transaction: Hash,
}

/// What the chain says about a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nobody submitted it, as far back as was looked.
    NotSubmitted,
    /// It is submitted and has no result.
    Open {
        /// The submission.
        submission: Box<FoundSubmission>,
        /// Publications under its id that do not belong to it: they are for another submission, or their anchor is
        /// before this one.
        strange: u64,
    },
    /// It has a result.
    Answered {
        /// The submission.
        submission: Box<FoundSubmission>,
        /// The first publication after it that belongs to it.
        result: Box<FoundResult>,
    },
}

impl Board {
    /// Looks for a task's submission, beginning at `from_block` or the contract's deployment.
    pub async fn find_submission(
        &self,
        id: TaskId,
        from_block: Option<u64>,
    ) -> Result<Option<FoundSubmission>, Error> {
        let topics = json!([[TaskBoard::Submitted::SIGNATURE_HASH], topic(id.0)]);
        let logs = self.search(&topics, from_block, true).await?;
        let Some((log, block)) = first(&logs) else { return Ok(None) };
        let read = submission::read(self.client().chain_id(), self.contract(), log);
        Ok(read.ok().map(|(identity, submission)| FoundSubmission { identity, submission, block }))
    }

    /// Looks for a task's submission and then for its result, beginning at `from_block` or the contract's deployment.
    pub async fn find(&self, id: TaskId, from_block: Option<u64>) -> Result<Found, Error> {
        match self.find_submission(id, from_block).await? {
            Some(submission) => self.find_answer(submission).await,
            None => Ok(Found::NotSubmitted),
        }
    }

    /// Looks for a task's result: the first publication after its submission that belongs to it.
    pub async fn find_result(
        &self,
        id: TaskId,
        from_block: Option<u64>,
    ) -> Result<Option<FoundResult>, Error> {
        Ok(match self.find(id, from_block).await? {
            Found::Answered { result, .. } => Some(*result),
            Found::Open { .. } | Found::NotSubmitted => None,
        })
    }

    /// Looks for the result of a submission that was found.
    pub async fn find_answer(&self, submission: FoundSubmission) -> Result<Found, Error> {
        let (answer, strange) =
            self.first_answer(&submission.identity, submission.block.number).await?;
        let submission = Box::new(submission);
        let Some((published, block, transaction)) = answer else {
            return Ok(Found::Open { submission, strange });
        };
        let result = Box::new(FoundResult {
            status: published.status,
            engine: published.engine,
            engine_name: self.engine_name(published.engine).await?,
            digest: published.digest,
            document: published.document,
            publisher: published.publisher,
            block,
            transaction,
        });
        Ok(Found::Answered { submission, result })
    }

    /// The first publication that belongs to a submission, and how many others were passed over, whoever made them. Its
    /// anchor is not before the submission's block, so it stands behind the submission.
    pub(crate) async fn first_answer(
        &self,
        identity: &Identity,
        included: u64,
    ) -> Result<(Option<(watcher::Published, BlockRef, Hash)>, u64), Error> {
        let events =
            [TaskBoard::Published::SIGNATURE_HASH, TaskBoard::PublishedDocument::SIGNATURE_HASH];
        let topics = json!([events, topic(identity.task_id.0)]);
        let mut from = included;
        let mut strange = 0;
        loop {
            let logs = self.search(&topics, Some(from), true).await?;
            let Some(last) = logs.last().and_then(Log::block) else { return Ok((None, strange)) };
            for log in &logs {
                match (watcher::Published::read(log), log.block()) {
                    (Some(published), Some(block)) if published.belongs_to(identity, included) => {
                        return Ok((Some((published, block, log.transaction())), strange));
                    }
                    _ => strange += 1,
                }
            }
            from = last.number.saturating_add(1);
        }
    }

    /// The name that an engine is registered with.
    pub async fn engine_name(&self, engine: u16) -> Result<Option<String>, Error> {
        if engine == 0 || engine > self.engine_count().await? {
            return Ok(None);
        }
        let topics =
            json!([[TaskBoard::EngineRegistered::SIGNATURE_HASH], topic(u64::from(engine))]);
        let engines = origin::find_engines(self, None, &topics, |_| true).await?;
        Ok(engines.into_iter().next().map(|(_, name)| name))
    }

    /// The id that an engine of this name is registered with: the newest one.
    pub async fn engine_id(&self, name: &str) -> Result<Option<u16>, Error> {
        origin::engine_id(self, None, name).await
    }

    /// Reads the contract's logs from a block or the deployment on; `one` stops at the first.
    async fn search(
        &self,
        topics: &serde_json::Value,
        from_block: Option<u64>,
        one: bool,
    ) -> Result<Vec<Log>, Error> {
        // What a task's events are is few: the whole chain is asked for at once, if the endpoint gives that.
        let from = match from_block {
            Some(from) => from,
            None => self.deployment_block().await?,
        };
        let to = self.client().head().await?.number;
        let search = Search { contract: self.contract(), topics, from, to, width: u64::MAX };
        match Box::pin(search.run(self.client(), |found| one && !found.is_empty())).await? {
            Outcome::Logs(logs) => Ok(logs),
            Outcome::TooFar => Err(Error::NoBeginning(self.contract())),
        }
    }
}

fn first(logs: &[Log]) -> Option<(&Log, BlockRef)> {
    let log = logs.first()?;
    Some((log, log.block()?))
}

fn topic(number: u64) -> B256 {
    B256::left_padding_from(&number.to_be_bytes())
}
