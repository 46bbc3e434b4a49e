//! The socket between a coordinator and `executor launcher`: a `SOCK_SEQPACKET` pair that the launcher finds as its
//! standard input. Each packet is one JSON message, at most [`MAX_MESSAGE_BYTES`]; file descriptors ride along
//! (`SCM_RIGHTS`) in the order that the message's documentation gives. When the coordinator's end closes, the
//! launcher ends every task and then itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Isolation, Limits};

/// The largest message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// What a coordinator asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Start one confined child. Descriptors with the message, in this order:
    /// the step's input files (see [`Step`]), then the write end of the report pipe (a [`crate::Report`], a
    /// [`crate::CheckReport`] or, of a compilation, an empty object), then the write ends of stdout and stderr.
    Start(Box<Start>),
    /// End a child at once (SIGKILL to its whole pid namespace). One that has ended is no error.
    Stop {
        /// The number given at the start.
        job: u64,
    },
}

/// One confined child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// A number of the asker's choice that no living child has.
    pub job: u64,
    /// What the child does.
    pub step: Step,
    /// What bounds it.
    pub limits: Limits,
    /// The executor's environment for this task (`ENTRY`, `ARGS_JSON`, …); nothing else is there.
    pub environment: BTreeMap<String, String>,
}

/// What a child does. Checking, compiling and running are separate processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Looks at a module. Descriptor: the module.
    Check,
    /// Compiles a module. Descriptors: the module, the file that takes the compiled form.
    Compile,
    /// Runs a compiled module. Descriptors: the compiled form, the input if `has_input`.
    Run {
        /// Whether an input file's descriptor follows.
        has_input: bool,
    },
}

/// What the launcher says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "tell", rename_all = "snake_case")]
pub enum Tell {
    /// The first message: the launcher is ready.
    Ready {
        /// The engine's printable name, as registered on chain.
        engine: String,
        /// The engine's exact version.
        engine_version: String,
        /// What would confine a child: found out by starting one that does nothing.
        isolation: Isolation,
    },
    /// A child was started. With the message comes its pidfd.
    Started {
        /// The number given at the start.
        job: u64,
    },
    /// A child has ended and everything of it is gone.
    Ended {
        /// The number given at the start.
        job: u64,
        /// How it ended.
        end: End,
        /// Its largest memory, in bytes, where a cgroup or the kernel told it.
        peak_memory_bytes: u64,
        /// Its processor time, in microseconds.
        cpu_us: u64,
    },
    /// A child could not be started: the infrastructure's fault, nothing was run.
    Refused {
        /// The number given at the start.
        job: u64,
        /// Why.
        reason: String,
    },
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It exited with this code; 0 means that its report is complete.
    Exited(i32),
    /// A signal ended it.
    Killed(i32),
    /// Its wall-clock limit and a grace of one second had passed and the launcher ended it.
    TimedOut,
    /// The kernel ended it because its cgroup was out of memory.
    OutOfMemory,
}
