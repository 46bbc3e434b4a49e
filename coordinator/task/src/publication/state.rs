use super::Event;
use crate::{BlockRef, Event as TaskEvent, Hash};

/// Where a transaction of ours stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The nonce of this coordinator's key.
    pub nonce: u64,
    /// The transaction.
    pub transaction: Hash,
    /// The block.
    pub block: BlockRef,
}

/// Why the contract does not take a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// A stable code.
    pub code: String,
    /// The reason, for people.
    pub message: String,
}

/// Where a publication stands; the data that a state needs is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It waits for a transaction.
    Queued,
    /// The block of its submission is gone. The nonce is that of a transaction that holds it, if there is one.
    Withheld {
        /// The nonce that may still put it on chain.
        nonce: Option<u64>,
    },
    /// A signed transaction holds it.
    Sent {
        /// The nonce.
        nonce: u64,
    },
    /// It stands on chain.
    Mined {
        /// Where.
        place: Place,
    },
    /// The contract did not take it; that is told once the transaction is deep.
    Refused {
        /// Where the transaction stands.
        place: Place,
        /// Why.
        reason: Reason,
    },
    /// It stands on chain, as deep as the confirmations ask.
    Final {
        /// Where.
        place: Place,
    },
    /// It will not be published. The nonce is that of the transaction that showed it, if there was one.
    GivenUp {
        /// The nonce.
        nonce: Option<u64>,
        /// Why.
        reason: Reason,
    },
}

impl State {
    /// The state's name in SQL and in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Withheld { .. } => "withheld",
            Self::Sent { .. } => "sent",
            Self::Mined { .. } => "mined",
            Self::Refused { .. } => "refused",
            Self::Final { .. } => "final",
            Self::GivenUp { .. } => "given_up",
        }
    }

    /// The nonce of the transaction that holds it or held it last.
    #[must_use]
    pub fn nonce(&self) -> Option<u64> {
        match self {
            Self::Queued => None,
            Self::Withheld { nonce } | Self::GivenUp { nonce, .. } => *nonce,
            Self::Sent { nonce } => Some(*nonce),
            Self::Mined { place } | Self::Refused { place, .. } | Self::Final { place } => {
                Some(place.nonce)
            }
        }
    }

    /// Why it is not taken.
    #[must_use]
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Refused { reason, .. } | Self::GivenUp { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// Where its transaction stands, once that is known.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Mined { place } | Self::Refused { place, .. } | Self::Final { place } => {
                Some(place)
            }
            Self::Queued | Self::Withheld { .. } | Self::Sent { .. } | Self::GivenUp { .. } => None,
        }
    }
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Sign and send it, with an anchor at or after this block.
    Sign {
        /// The block of its submission.
        included: BlockRef,
    },
    /// Look what became of the transaction of this nonce; send it again if it is nowhere.
    Follow {
        /// The nonce.
        nonce: u64,
    },
    /// Nothing until somebody reports something.
    Rest,
}

/// One publication: where it stands, and whether the submission that it answers does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The block of its submission; none while that block is gone.
    pub included: Option<BlockRef>,
    /// How often it was sent without effect.
    pub tries: u32,
    /// Its id is closed on this branch by what does not belong to its task: it is published all the same.
    pub again: bool,
    /// Where it stands.
    pub state: State,
}

/// An event that cannot happen in a state: a fault of ours, never of the chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a publication that is {state} cannot take the event {event}")]
pub struct Invalid {
    /// The state's name.
    pub state: &'static str,
    /// The event's name.
    pub event: &'static str,
}

impl Publication {
    /// A publication that waits for its first transaction.
    #[must_use]
    pub fn new(included: BlockRef) -> Self {
        Self { included: Some(included), tries: 0, again: false, state: State::Queued }
    }

    /// The effect that is due.
    #[must_use]
    pub fn next(&self) -> Effect {
        match (&self.state, self.included) {
            (State::Queued, Some(included)) => Effect::Sign { included },
            (State::Sent { nonce }, Some(_)) => Effect::Follow { nonce: *nonce },
            (State::Mined { place } | State::Refused { place, .. }, _) => {
                Effect::Follow { nonce: place.nonce }
            }
            _ => Effect::Rest,
        }
    }

    /// Takes an event and answers the publication as it is afterwards.
    pub fn apply(mut self, event: &Event) -> Result<Self, Invalid> {
        let invalid = Invalid { state: self.state.name(), event: event.name() };
        self.state = match (self.state, event) {
            (state, Event::Queued { included, changed }) => {
                self.included = Some(*included);
                match state {
                    _ if *changed => {
                        self.tries = 0;
                        State::Queued
                    }
                    // What was signed for it may still stand there, or come back: its nonce tells first.
                    State::Withheld { nonce: Some(nonce) } => State::Sent { nonce },
                    State::Withheld { nonce: None } | State::GivenUp { .. } => {
                        self.tries = 0;
                        State::Queued
                    }
                    other => other,
                }
            }
            (state, Event::Dropped { block }) => {
                if self.included.is_some_and(|included| included.hash == block.hash) {
                    self.included = None;
                    self.again = false;
                    State::Withheld { nonce: state.nonce() }
                } else {
                    state // it stands in another block by now
                }
            }
            // Without a submission on the branch there is nothing to sign: the next arm does not take it.
            (State::Queued | State::Sent { .. }, Event::Signed { nonce })
                if self.included.is_some() =>
            {
                State::Sent { nonce: *nonce }
            }
            (_, Event::Signed { .. }) => return Err(invalid),
            (State::Final { place: old }, Event::Mined { place }) if old == *place => {
                State::Final { place: old }
            }
            (_, Event::Mined { place }) if self.included.is_some() => {
                State::Mined { place: *place }
            }
            // It stands there for a submission that we do not see: the nonce tells again when we do.
            (_, Event::Mined { place }) => State::Withheld { nonce: Some(place.nonce) },
            (State::Withheld { nonce: Some(nonce) }, Event::NotTaken { place, .. })
                if nonce == place.nonce =>
            {
                State::Withheld { nonce: None }
            }
            // Also what stood on chain: its transaction stands in another block now, where it had no effect.
            (state, Event::NotTaken { place, reason, again, counts, strange })
                if state.nonce() == Some(place.nonce) =>
            {
                self.again |= *strange;
                if *again {
                    self.tries += u32::from(*counts);
                    State::Queued
                } else {
                    State::Refused { place: *place, reason: reason.clone() }
                }
            }
            (state, Event::NotTaken { .. }) => state,
            (State::Sent { nonce }, Event::Freed { nonce: freed }) if nonce == *freed => {
                State::Queued
            }
            (State::Withheld { nonce: Some(nonce) }, Event::Freed { nonce: freed })
                if nonce == *freed =>
            {
                State::Withheld { nonce: None }
            }
            (state, Event::Freed { .. }) => state,
            (
                State::Mined { place } | State::Refused { place, .. } | State::Final { place },
                Event::Unmined { nonce },
            ) if place.nonce == *nonce => State::Sent { nonce: *nonce },
            (State::GivenUp { nonce: Some(held), .. }, Event::Unmined { nonce })
                if held == *nonce =>
            {
                State::Sent { nonce: *nonce }
            }
            (state, Event::Unmined { .. }) => state,
            (State::Mined { place }, Event::Deep { nonce }) if place.nonce == *nonce => {
                State::Final { place }
            }
            (State::Refused { place, reason }, Event::Deep { nonce }) if place.nonce == *nonce => {
                State::GivenUp { nonce: Some(*nonce), reason }
            }
            (state, Event::Deep { .. }) => state,
            (State::Queued, Event::GivenUp { reason }) => {
                State::GivenUp { nonce: None, reason: reason.clone() }
            }
            (state, Event::GivenUp { .. }) => state,
        };
        Ok(self)
    }

    /// What the task is told of a step from `before`: at most one event.
    #[must_use]
    pub fn tells(&self, before: &State) -> Option<TaskEvent> {
        match (before, &self.state) {
            (before, after) if before == after => None,
            (_, State::Mined { place }) => {
                Some(TaskEvent::Mined { transaction: place.transaction, block: place.block })
            }
            (
                State::Mined { .. } | State::Final { .. } | State::GivenUp { .. },
                State::Sent { .. } | State::Queued | State::Refused { .. },
            ) => Some(TaskEvent::Unmined),
            (_, State::Final { .. }) => Some(TaskEvent::Finalized),
            (_, State::GivenUp { reason, .. }) => Some(TaskEvent::Refused {
                code: reason.code.clone(),
                message: reason.message.clone(),
            }),
            _ => None,
        }
    }
}
