//! The socket between a coordinator and `executor launcher`: a `SOCK_SEQPACKET` pair that the launcher finds as its
//! standard input. Each packet is one JSON message, at most [`MAX_MESSAGE_BYTES`]; file descriptors ride along
//! (`SCM_RIGHTS`) in the order that the message's documentation gives. When the coordinator's end closes, the
//! launcher ends every task and then itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Isolation, Limits};

/// The largest message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// The most file descriptors with one message.
pub const MAX_DESCRIPTORS: usize = 8;

/// How much longer than `timeout_ms` or `compile_ms` a child may live before the launcher ends it, in milliseconds.
/// A child ends itself earlier, and in better words.
pub const GRACE_MS: u64 = 2_000;

/// A child could not do its work for a reason that is not the guest's.
pub const EXIT_INFRASTRUCTURE: i32 = 70;

/// The compiled form that a child was given is damaged or another engine's: compile again, then run.
pub const EXIT_STALE_ARTIFACT: i32 = 71;

/// The bytes that a child was given do not have the SHA-256 that it was told.
pub const EXIT_WRONG_DIGEST: i32 = 72;

/// What a coordinator asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Start one confined child. Descriptors with the message, in this order:
    /// the step's input files (see [`Step`]), then the write end of the report pipe (a [`crate::Report`], a
    /// [`crate::CheckReport`] or, of a compilation, an empty object), then the write ends of stdout and stderr.
    Start(Box<Start>),
    /// Say that you are there.
    Ping {
        /// A number that no living child has and no other question.
        job: u64,
    },
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
    /// The key of the tag on this module's compiled form. It is of this module only, so that no child can make a
    /// compiled form that is taken for another module's.
    pub key: ModuleKey,
    /// SHA-256 of the module, in lower-case hex: checked by the child, and part of the tag on the compiled form.
    pub module_sha256: String,
    /// SHA-256 of the input, in lower-case hex, if there is one: checked by the child.
    pub input_sha256: Option<String>,
}

/// 32 bytes as lower-case hex; never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModuleKey(pub String);

impl Drop for ModuleKey {
    /// The launcher's children are copies of it: what one was told must not be found by the next.
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        std::hint::black_box(&bytes);
    }
}

impl std::fmt::Debug for ModuleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ModuleKey(..)")
    }
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

impl Step {
    /// How many input descriptors come before those of report, stdout and stderr.
    #[must_use]
    pub fn inputs(self) -> usize {
        match self {
            Self::Check | Self::Run { has_input: false } => 1,
            Self::Compile | Self::Run { has_input: true } => 2,
        }
    }
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
        /// What a compiled form depends on beside its module: engine version, processor features, configuration.
        fingerprint: String,
        /// What would confine a child: found out by starting one that does nothing.
        isolation: Isolation,
    },
    /// The first and last message of a launcher that cannot work here: the least confinement cannot be put on.
    Unable {
        /// Why.
        reason: String,
    },
    /// The answer to [`Ask::Ping`].
    Pong {
        /// The number of the question.
        job: u64,
    },
    /// A child is confined and begins its step. With the message comes its pidfd.
    Started {
        /// The number given at the start.
        job: u64,
        /// Its process id as the launcher sees it.
        pid: i32,
        /// What confines it.
        isolation: Isolation,
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
    /// A child could not be started or confined: the infrastructure's fault, nothing was run.
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
    /// It was stopped on request.
    Stopped,
    /// Its wall-clock limit and [`GRACE_MS`] had passed and the launcher ended it.
    TimedOut,
    /// The kernel ended it because its cgroup was out of memory.
    OutOfMemory,
}
