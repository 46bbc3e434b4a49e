use serde::{Deserialize, Serialize};

/// What bounds a run. Every limit has a default ([`DEFAULT_LIMITS`]) and stands in the [`Record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Wall-clock limit of the guest, in milliseconds.
    pub timeout_ms: u64,
    /// Linear memory of the guest, in MiB.
    pub memory_mib: u32,
    /// Fuel: about one unit for each executed instruction.
    pub fuel: u64,
    /// Elements of all tables together.
    pub table_elements: u32,
    /// Stack of the guest, in bytes.
    pub stack_bytes: u32,
    /// What the guest may write to stdout and stderr together, in bytes. The stdout of a command is its value and
    /// counts against `result_bytes` instead.
    pub output_bytes: u64,
    /// The result document, in bytes; at most [`crate::MAX_DOCUMENT_BYTES`].
    pub result_bytes: u32,
    /// The module, in bytes.
    pub module_bytes: u64,
    /// Wall-clock limit of checking and of compiling a module, in milliseconds each.
    pub compile_ms: u64,
    /// Memory of the process that checks or compiles a module, in MiB.
    pub compile_mib: u32,
}

/// The limits that hold when nothing else is said.
pub const DEFAULT_LIMITS: Limits = Limits {
    timeout_ms: 30_000,
    memory_mib: 256,
    fuel: 10_000_000_000,
    table_elements: 100_000,
    stack_bytes: 1 << 20,
    output_bytes: 1 << 20,
    result_bytes: 1 << 20,
    module_bytes: 16 << 20,
    compile_ms: 30_000,
    compile_mib: 1024,
};

impl Default for Limits {
    fn default() -> Self {
        DEFAULT_LIMITS
    }
}

/// One means of confinement: in force, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// In force.
    Enforced,
    /// Not in force, and why.
    NotEnforced(String),
}

impl Measure {
    /// Whether it is in force.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        matches!(self, Self::Enforced)
    }
}

/// What confined the process that ran a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isolation {
    /// User, pid, mount, network, ipc and uts namespaces of its own.
    pub namespaces: Measure,
    /// An empty, read-only root file system.
    pub empty_root: Measure,
    /// No capability in any set.
    pub no_capabilities: Measure,
    /// `no_new_privs` (prctl(2)).
    pub no_new_privs: Measure,
    /// A system-call filter.
    pub seccomp: Measure,
    /// Landlock rules that let no file be opened. Whether one is there can be asked all the same where the root is not
    /// empty.
    pub landlock: Measure,
    /// Resource limits (setrlimit(2)).
    pub rlimits: Measure,
    /// A cgroup that bounds memory and number of processes.
    pub cgroup: Measure,
}

impl Isolation {
    /// Nothing in force, all for the same reason: a process that was started by hand.
    #[must_use]
    pub fn none(reason: &str) -> Self {
        let no = || Measure::NotEnforced(reason.to_owned());
        Self {
            namespaces: no(),
            empty_root: no(),
            no_capabilities: no(),
            no_new_privs: no(),
            seccomp: no(),
            landlock: no(),
            rlimits: no(),
            cgroup: no(),
        }
    }

    /// Each measure with its name.
    #[must_use]
    pub fn measures(&self) -> [(&'static str, &Measure); 8] {
        [
            ("namespaces", &self.namespaces),
            ("empty_root", &self.empty_root),
            ("no_capabilities", &self.no_capabilities),
            ("no_new_privs", &self.no_new_privs),
            ("seccomp", &self.seccomp),
            ("landlock", &self.landlock),
            ("rlimits", &self.rlimits),
            ("cgroup", &self.cgroup),
        ]
    }
}

/// What stands next to a result and never in its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The engine's printable name, as registered on chain.
    pub engine: String,
    /// The engine's exact version, for people.
    pub engine_version: String,
    /// The limits that held.
    pub limits: Limits,
    /// What confined the run.
    pub isolation: Isolation,
    /// Fuel used; none when nothing was run.
    pub fuel_used: Option<u64>,
    /// Wall-clock time of the guest, in microseconds.
    pub run_us: u64,
    /// Largest linear memory, in bytes.
    pub peak_memory_bytes: u64,
    /// Bytes the guest wrote to stdout.
    pub stdout_bytes: u64,
    /// Bytes the guest wrote to stderr.
    pub stderr_bytes: u64,
    /// A sentence for people about a failure; engine wording may stand here.
    pub message: Option<String>,
}

/// What the executor hands back out of band: a result line that does not match it is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// SHA-256 of the result document, in lower-case hex.
    pub sha256: String,
    /// Size of the result document, in bytes.
    pub size: u64,
    /// The result document, when it fits the channel.
    pub document: Option<String>,
    /// Measurements, limits and isolation, when they fit the channel.
    pub record: Option<Record>,
}

/// What `executor check` says of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckReport {
    /// The result document's text when the module can never run; none when it may.
    pub refusal: Option<String>,
    /// A sentence for people about the refusal.
    pub message: Option<String>,
    /// SHA-256 of the module, in lower-case hex.
    pub module_sha256: String,
    /// Whether the module is a WASI command (exports `_start`).
    pub command: bool,
    /// The names of the exported functions, at most 1,000.
    pub exports: Vec<String>,
}

/// Where a guest wrote, in the escaped lines of the executor's stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestStream {
    /// The guest's stdout.
    Stdout,
    /// The guest's stderr.
    Stderr,
}
