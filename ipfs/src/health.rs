//! What is known of the places that content comes from, goes to and is kept in.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::error::{Class, Error};

/// What a place is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlaceKind {
    /// An HTTP gateway, to read from.
    Gateway,
    /// The local folder of plain and added files.
    Mirror,
    /// Kubo's RPC, to add to.
    Api,
    /// The folder where verified content is kept.
    Cache,
}

impl PlaceKind {
    /// Its name in metrics and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Mirror => "mirror",
            Self::Api => "api",
            Self::Cache => "cache",
        }
    }
}

/// Why a place does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The stable code of the error.
    pub code: &'static str,
    /// Whose matter it is.
    pub class: Class,
    /// What was seen.
    pub message: String,
    /// What to do, in a sentence, where that is known.
    pub hint: Option<String>,
}

impl Fault {
    pub(crate) fn new(error: &Error, hint: Option<String>) -> Self {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            message = format!("{message}: {inner}");
            cause = inner.source();
        }
        Self {
            code: error.code(),
            class: error.class(),
            message: message.chars().filter(|c| !c.is_control()).take(400).collect(),
            hint,
        }
    }
}

/// Whether a place works, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaceState {
    /// It was not asked yet.
    Untried,
    /// It answered as it should.
    Works,
    /// It did not.
    Failed(Fault),
}

/// One place and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What it is for.
    pub kind: PlaceKind,
    /// Its address, which never has credentials, or its path.
    pub name: String,
    /// Whether it works.
    pub state: PlaceState,
    /// Since when it is so.
    pub since: SystemTime,
}

impl Place {
    /// Whether it is known to fail.
    pub fn has_failed(&self) -> bool {
        matches!(self.state, PlaceState::Failed(_))
    }
}

/// The state of one place, kept by whoever uses it.
pub(crate) struct Pulse(Mutex<(PlaceState, SystemTime)>);

impl Default for Pulse {
    fn default() -> Self {
        Self(Mutex::new((PlaceState::Untried, SystemTime::now())))
    }
}

impl Pulse {
    /// Notes what was seen; `since` stays as long as it is the same.
    pub(crate) fn set(&self, state: PlaceState) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = match (&held.0, &state) {
            (PlaceState::Failed(old), PlaceState::Failed(new)) => old.code == new.code,
            (old, new) => old == new,
        };
        let since = if same { held.1 } else { SystemTime::now() };
        *held = (state, since);
    }

    pub(crate) fn works(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 == PlaceState::Works
    }

    pub(crate) fn place(&self, kind: PlaceKind, name: String) -> Place {
        let (state, since) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Place { kind, name, state, since }
    }
}
