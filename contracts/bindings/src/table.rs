//! The closed tables of `ITaskBoard.sol`.

use serde::{Deserialize, Serialize};

/// What a task asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Kind {
    /// A WebAssembly module or component.
    Wasm = 1,
    /// A container run to its end.
    Container = 2,
    /// One execution in a fresh session.
    Session = 3,
}

impl Kind {
    /// The kind with this number in `terms`; `None` for one that this version does not know.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Wasm),
            2 => Some(Self::Container),
            3 => Some(Self::Session),
            _ => None,
        }
    }

    /// The number in `terms`.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Status {
    /// The guest finished and gave a value; pays the coordinator.
    Ok = 1,
    /// The guest failed; pays the coordinator.
    Failed = 2,
    /// The guest was stopped at its wall-clock limit; pays the coordinator.
    TimedOut = 3,
    /// Nothing ran; the fee goes back.
    Rejected = 4,
}

impl Status {
    /// The status with this number in events; `None` for one that does not exist.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Ok),
            2 => Some(Self::Failed),
            3 => Some(Self::TimedOut),
            4 => Some(Self::Rejected),
            _ => None,
        }
    }

    /// The number in calls and events.
    pub const fn code(self) -> u8 {
        self as u8
    }
}
