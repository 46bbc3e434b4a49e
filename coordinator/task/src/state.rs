use executor_protocol::Status;
use serde::{Deserialize, Serialize};

use crate::{Answer, BlockRef, Event, Hash, Identity, LocalId, Submission};

/// Where a task stands; the data that a state needs is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Seen on chain, nothing done.
    Requested,
    /// Its content is being fetched and looked at.
    Fetching,
    /// Its content is here; it waits for a place.
    Ready,
    /// A job runs for it.
    Running {
        /// The attempt, from 1: part of the job's name.
        attempt: u32,
    },
    /// It has an outcome.
    Finished {
        /// The outcome.
        answer: Answer,
    },
    /// Its outcome is with the publisher.
    Publishing {
        /// The outcome.
        answer: Answer,
    },
    /// Its outcome stands on chain.
    Mined {
        /// The outcome.
        answer: Answer,
        /// Where.
        block: BlockRef,
        /// The transaction.
        transaction: Hash,
    },
    /// Nothing more will happen.
    Final {
        /// The outcome.
        answer: Answer,
        /// The block and the transaction of the publication; none when it was not published.
        published: Option<(BlockRef, Hash)>,
    },
    /// The block of its submission is gone; it goes on when it is included again.
    Withheld {
        /// The outcome, if there was one.
        answer: Option<Answer>,
    },
    /// It needs no result any more.
    Cancelled {
        /// Why.
        reason: CancelReason,
        /// The outcome, if there was one.
        answer: Option<Answer>,
    },
}

/// Why a task needs no result any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// Its requester cancelled it.
    OnChain,
    /// The contract closed it after its deadline.
    Expired,
    /// Another coordinator answered it.
    AnsweredElsewhere,
    /// The contract will never take its result; the code says why.
    Refused(String),
}

impl State {
    /// Every state's name, in the order of a task's life: the closed set of metric labels and API filters.
    pub const NAMES: [&'static str; 10] = [
        "requested",
        "fetching",
        "ready",
        "running",
        "finished",
        "publishing",
        "mined",
        "final",
        "withheld",
        "cancelled",
    ];

    /// The state's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Fetching => "fetching",
            Self::Ready => "ready",
            Self::Running { .. } => "running",
            Self::Finished { .. } => "finished",
            Self::Publishing { .. } => "publishing",
            Self::Mined { .. } => "mined",
            Self::Final { .. } => "final",
            Self::Withheld { .. } => "withheld",
            Self::Cancelled { .. } => "cancelled",
        }
    }

    /// The outcome, once there is one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Requested | Self::Fetching | Self::Ready | Self::Running { .. } => None,
            Self::Finished { answer }
            | Self::Publishing { answer }
            | Self::Mined { answer, .. }
            | Self::Final { answer, .. } => Some(answer),
            Self::Withheld { answer } | Self::Cancelled { answer, .. } => answer.as_ref(),
        }
    }

    /// Whether nothing more will happen without an event from outside.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Final { .. } | Self::Cancelled { .. } | Self::Withheld { .. })
    }
}

/// One task: its row, without the event log and the result's document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its number in this coordinator.
    pub local_id: LocalId,
    /// What it is.
    pub identity: Identity,
    /// What its event said.
    pub submission: Submission,
    /// Where its submission stands; none while that block is gone.
    pub included: Option<BlockRef>,
    /// Where it stands.
    pub state: State,
    /// Jobs started so far.
    pub attempts: u32,
    /// Infrastructure failures in a row in the current step.
    pub failures: u32,
    /// When the next step is due, in Unix milliseconds; 0 for at once.
    pub due_at_ms: i64,
    /// Whether what was created for it may still exist.
    pub dirty: bool,
    /// When it was seen, in Unix milliseconds.
    pub seen_at_ms: i64,
}

/// What this coordinator does with outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether there is a key to publish with.
    pub publishes: bool,
    /// Whether rejections of free tasks are published too.
    pub rejections: bool,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Fetch, verify and look at its content.
    Fetch,
    /// Start a job.
    Run,
    /// Follow the job of this attempt; start it if it is not there.
    Follow {
        /// The attempt.
        attempt: u32,
    },
    /// Hand the result to the publisher.
    Publish,
    /// Keep the result, publish nothing.
    Retire(&'static str),
    /// Remove what was created for it.
    Clean,
    /// Nothing before this time, in Unix milliseconds.
    Wait(i64),
    /// Nothing until somebody reports something.
    Rest,
}

/// An event that cannot happen in a state: a fault of ours or of the event's author, never of the task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a task that is {state} cannot take the event {event}")]
pub struct InvalidTransition {
    /// The state's name.
    pub state: &'static str,
    /// The event's name.
    pub event: &'static str,
}

impl Task {
    /// The effect that is due at `now_ms` (Unix milliseconds).
    #[must_use]
    pub fn next(&self, policy: Policy, now_ms: i64) -> Effect {
        let due =
            |effect| if self.due_at_ms > now_ms { Effect::Wait(self.due_at_ms) } else { effect };
        match &self.state {
            State::Requested | State::Fetching => due(Effect::Fetch),
            State::Ready => due(Effect::Run),
            State::Running { attempt } => Effect::Follow { attempt: *attempt },
            State::Finished { .. } if !policy.publishes => {
                Effect::Retire("this coordinator has no key: nothing is published")
            }
            State::Finished { answer }
                if answer.status == Status::Rejected
                    && !policy.rejections
                    && !self.identity.task_id.is_kept() =>
            {
                Effect::Retire("the rejection of a free task is recorded, not published")
            }
            State::Finished { .. } => due(Effect::Publish),
            State::Publishing { .. } => Effect::Rest,
            State::Mined { .. }
            | State::Final { .. }
            | State::Withheld { .. }
            | State::Cancelled { .. } => {
                if self.dirty {
                    due(Effect::Clean)
                } else {
                    Effect::Rest
                }
            }
        }
    }

    /// Takes an event and answers the task as it is afterwards. Times stand in the events.
    pub fn apply(mut self, event: &Event) -> Result<Self, InvalidTransition> {
        let invalid = InvalidTransition { state: self.state.name(), event: event.name() };
        let kept = self.identity.task_id.is_kept();
        let before = std::mem::discriminant(&self.state);
        self.state = match (self.state, event) {
            // ---- the chain
            (state, Event::Included { block }) => {
                self.included = Some(*block);
                match state {
                    State::Withheld { answer: None } => State::Requested,
                    State::Withheld { answer: Some(answer) } => State::Finished { answer },
                    other => other,
                }
            }
            (state, Event::Dropped { block }) => {
                if self.included.is_some_and(|included| included.hash != block.hash) {
                    state // it was included again before we heard of the loss
                } else {
                    self.included = None;
                    match state {
                        // The contract's refusal was one of a branch that is gone; a cancellation and another's
                        // answer are taken back by events of their own.
                        State::Cancelled { reason: CancelReason::Refused(_), answer } => {
                            State::Withheld { answer }
                        }
                        cancelled @ State::Cancelled { .. } => cancelled,
                        other => State::Withheld { answer: other.answer().cloned() },
                    }
                }
            }
            (state, Event::CancelRequested) => match state {
                State::Requested | State::Fetching | State::Ready | State::Withheld { .. } => {
                    let answer = state.answer().cloned();
                    State::Cancelled { reason: CancelReason::OnChain, answer }
                }
                State::Running { .. } if !kept => {
                    State::Cancelled { reason: CancelReason::OnChain, answer: None }
                }
                // A result on its way is still taken, and that of a kept task is paid.
                other => other,
            },
            (state, Event::Expired) => match state {
                settled @ (State::Mined { .. } | State::Final { .. } | State::Cancelled { .. }) => {
                    settled
                }
                other => {
                    let answer = other.answer().cloned();
                    State::Cancelled { reason: CancelReason::Expired, answer }
                }
            },
            (state, Event::Answered { ours, answer, block, transaction }) => match (state, *ours) {
                (settled @ State::Final { .. }, _) => settled,
                (_, true) => State::Mined {
                    answer: answer.clone(),
                    block: *block,
                    transaction: *transaction,
                },
                (State::Mined { answer, block, transaction }, false) => {
                    State::Mined { answer, block, transaction }
                }
                (other, false) => State::Cancelled {
                    reason: CancelReason::AnsweredElsewhere,
                    answer: other.answer().cloned(),
                },
            },
            (
                State::Cancelled { reason: CancelReason::OnChain | CancelReason::Expired, answer },
                Event::Reopened,
            ) => open_again(self.included.is_some(), answer),
            (state, Event::Reopened) => state,
            (
                State::Mined { answer, block, .. }
                | State::Final { answer, published: Some((block, _)) },
                Event::AnswerDropped { block: gone },
            ) if block.hash == gone.hash => State::Finished { answer },
            (
                State::Cancelled { reason: CancelReason::AnsweredElsewhere, answer },
                Event::AnswerDropped { .. },
            ) => open_again(self.included.is_some(), answer),
            (state, Event::AnswerDropped { .. }) => state,

            // ---- the pipeline
            (State::Requested | State::Fetching, Event::FetchStarted) => State::Fetching,
            (State::Fetching | State::Ready, Event::Fetched) => State::Ready,
            (State::Ready, Event::Started { attempt }) => {
                self.attempts = *attempt;
                self.dirty = true;
                State::Running { attempt: *attempt }
            }
            (
                state @ (State::Requested
                | State::Fetching
                | State::Ready
                | State::Running { .. }
                | State::Finished { .. }),
                Event::Deferred { until_ms, .. },
            ) => {
                self.failures += 1;
                self.due_at_ms = *until_ms;
                match state {
                    State::Running { .. } => State::Ready,
                    other => other,
                }
            }
            (
                state @ (State::Requested
                | State::Fetching
                | State::Ready
                | State::Running { .. }
                | State::Finished { .. }),
                Event::Held { until_ms, .. },
            ) => {
                self.due_at_ms = *until_ms;
                match state {
                    State::Running { .. } => State::Ready,
                    other => other,
                }
            }
            (
                state @ (State::Final { .. }
                | State::Mined { .. }
                | State::Withheld { .. }
                | State::Cancelled { .. }),
                Event::Deferred { until_ms, .. } | Event::Held { until_ms, .. },
            ) => {
                self.due_at_ms = *until_ms;
                state
            }
            (
                State::Requested | State::Fetching | State::Ready | State::Running { .. },
                Event::Finished { answer },
            ) => State::Finished { answer: answer.clone() },
            (State::Finished { .. }, Event::DocumentMissing) => State::Requested,
            (State::Finished { answer } | State::Publishing { answer }, Event::Queued) => {
                self.dirty = true; // the publication is withdrawn if the task goes another way
                State::Publishing { answer }
            }
            (State::Finished { answer }, Event::Retired { .. }) => {
                State::Final { answer, published: None }
            }
            (state, Event::Cleaned) => {
                self.dirty = false;
                state
            }

            // ---- the publisher
            (state @ State::Publishing { .. }, Event::Sent { .. }) => state,
            (
                State::Publishing { answer }
                | State::Finished { answer }
                | State::Mined { answer, .. },
                Event::Mined { transaction, block },
            ) => State::Mined { answer, block: *block, transaction: *transaction },
            (
                State::Mined { answer, .. }
                | State::Publishing { answer }
                | State::Final { answer, published: Some(_) }
                | State::Cancelled { reason: CancelReason::Refused(_), answer: Some(answer) },
                Event::Unmined,
            ) => State::Publishing { answer },
            (State::Mined { answer, block, transaction }, Event::Finalized) => {
                State::Final { answer, published: Some((block, transaction)) }
            }
            (
                State::Publishing { answer } | State::Finished { answer },
                Event::Refused { code, .. },
            ) => State::Cancelled {
                reason: CancelReason::Refused(code.clone()),
                answer: Some(answer),
            },
            // What the publisher says of a transaction it had sent, after the task went another way.
            (
                state @ (State::Final { .. }
                | State::Withheld { .. }
                | State::Cancelled { .. }
                | State::Mined { .. }
                | State::Finished { .. }
                | State::Requested),
                Event::Sent { .. } | Event::Unmined | Event::Refused { .. } | Event::Finalized,
            ) => state,
            // It stands in another block now than in the one it was final in.
            (
                State::Final { answer, published: Some((old, _)) },
                Event::Mined { transaction, block },
            ) if old.hash != block.hash => {
                State::Mined { answer, block: *block, transaction: *transaction }
            }
            (
                state @ (State::Final { .. } | State::Cancelled { .. } | State::Withheld { .. }),
                Event::Mined { .. },
            ) => state,

            _ => return Err(invalid),
        };
        if matches!(event, Event::Deferred { .. } | Event::Held { .. }) {
            return Ok(self);
        }
        if std::mem::discriminant(&self.state) != before {
            self.due_at_ms = 0;
            // A job that starts has not succeeded yet: its failures go on counting.
            if !matches!(event, Event::Started { .. } | Event::FetchStarted) {
                self.failures = 0;
            }
        }
        Ok(self)
    }
}

/// Where a task stands again whose end was taken back.
fn open_again(is_included: bool, answer: Option<Answer>) -> State {
    match (is_included, answer) {
        (false, answer) => State::Withheld { answer },
        (true, Some(answer)) => State::Finished { answer },
        (true, None) => State::Requested,
    }
}
