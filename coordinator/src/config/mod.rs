//! The only reader of environment, flags and file, in two stages: texts by setting ([`raw`]), then checked values
//! ([`Config`]). Everything that is wrong is reported together.

mod check;
pub mod file;
mod list;
pub mod raw;
mod secret;
pub mod setting;
pub mod value;

use std::{
    collections::BTreeSet,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use chain::Confirmations;
pub use chain::Key;
pub use check::check;
use executor_protocol::Limits;
use ipfs::Url;
pub use raw::Raw;
pub use secret::Secret;
use task::Address;

/// One setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting, as it is written where it came from.
    pub name: String,
    /// Its value; none when it has none that may be shown.
    pub value: Option<String>,
    /// What is allowed.
    pub wanted: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} is {value:?}; allowed: {}", self.name, self.wanted),
            None => write!(f, "{}; allowed: {}", self.name, self.wanted),
        }
    }
}

/// Everything that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration cannot be used:{}", lines(.0))]
pub struct Problems(pub Vec<Problem>);

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

/// What a command needs beside values that can be read: a missing one is a problem too.
#[derive(Debug, Clone, Copy, Default)]
pub struct Needs {
    /// A chain endpoint.
    pub endpoint: bool,
    /// The contract's address.
    pub contract: bool,
    /// The key that submits, cancels and deploys.
    pub client_key: bool,
    /// It listens and publishes: an address that may be listened on, and a publisher's key that can be read.
    pub serves: bool,
}

/// The checked configuration: what the program sees.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder of the database and the caches.
    pub data_dir: PathBuf,
    /// The database's file.
    pub database: PathBuf,
    /// What is logged, and how.
    pub log: Log,
    /// How long finished tasks stay.
    pub retention: Duration,
    /// Where content comes from.
    pub content: Content,
    /// Where tasks come from.
    pub chain: Chain,
    /// How tasks run.
    pub work: Work,
    /// The HTTP server.
    pub server: Server,
    /// Where the HTTP API of a running coordinator is.
    pub api: Url,
}

/// Logging.
#[derive(Debug, Clone)]
pub struct Log {
    /// Directives of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Where content comes from and how long that may take.
#[derive(Debug, Clone)]
pub struct Content {
    /// Gateways; empty takes the mirror.
    pub gateways: Vec<Url>,
    /// The local folder.
    pub mirror: PathBuf,
    /// Kubo's RPC, for adding.
    pub api: Option<Url>,
    /// Limits of waiting.
    pub timeouts: ipfs::Timeouts,
    /// Pause between two looks whether the places work.
    pub probe_interval: Duration,
    /// Size of the cache.
    pub cache_bytes: u64,
    /// How long content that is proved to be missing is tried again.
    pub deadline: Duration,
}

/// Where tasks come from and results go.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Endpoints; empty takes the placeholder source.
    pub endpoints: Vec<Url>,
    /// The contract.
    pub contract: Option<Address>,
    /// The publisher's key, where the command needs it.
    pub key: Option<Key>,
    /// The client's key, where the command needs it.
    pub client_key: Option<Key>,
    /// When a block counts; none takes the chain's usual.
    pub confirmations: Option<Confirmations>,
    /// The first block that is read; none for the contract's own.
    pub from_block: Option<u64>,
    /// Pause between two looks; none leaves it to the chain.
    pub poll_interval: Option<Duration>,
    /// Domains whose tasks are taken; empty takes all.
    pub domains: BTreeSet<u16>,
    /// Most that is paid for a unit of gas, in wei.
    pub max_fee_wei_per_gas: u128,
    /// Most of it that goes to the block's builder, in wei.
    pub tip_wei_per_gas: u128,
    /// How long a transaction waits before it is sent again.
    pub resubmit_after: Duration,
    /// How long results wait for a right to publish that was withdrawn.
    pub rights_grace: Duration,
    /// Who is paid when earnings are withdrawn; none for the publisher itself.
    pub withdraw_to: Option<Address>,
}

impl Chain {
    /// The endpoints, comma-separated.
    #[must_use]
    pub fn endpoint_list(&self) -> String {
        self.endpoints.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
    }
}

/// What runs a task. Only those that are built can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// Confined processes of the launcher; and whether that was asked for or chosen.
    Process {
        /// Whether `auto` chose it.
        chosen: bool,
    },
}

impl Runtime {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Process { .. } => "process",
        }
    }

    /// Why it is this one.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Process { chosen: true } => {
                "runtime is auto, and process is the only runtime that this version has"
            }
            Self::Process { chosen: false } => "the configuration says so",
        }
    }
}

/// How tasks run.
#[derive(Debug, Clone)]
pub struct Work {
    /// What runs them.
    pub runtime: Runtime,
    /// The executor's binary; none takes the one beside this program.
    pub executor: Option<PathBuf>,
    /// Tasks at once.
    pub concurrency: usize,
    /// How often a step is tried again.
    pub retries: u32,
    /// Size of the cache of compiled modules.
    pub compiled_cache_bytes: u64,
    /// Limits of a task that names none.
    pub defaults: Limits,
    /// The most that a task may ask for.
    pub maxima: Limits,
    /// The largest input.
    pub max_input_bytes: u64,
    /// The smallest fee, in wei.
    pub min_fee_wei: u128,
    /// Free tasks of one requester in an hour.
    pub quota: u32,
    /// Run time of these.
    pub quota_run_time: Duration,
    /// What may be spent in a day on publishing rejections that no fee pays for; none leaves it to the chain.
    pub rejection_budget_wei: Option<u128>,
}

/// The HTTP server.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Bearer tokens; empty lets everybody in.
    pub tokens: Vec<Secret>,
    /// The file that they come from.
    pub token_file: Option<PathBuf>,
    /// Connections at once.
    pub connections: usize,
    /// How long a connection may take to send a request's head.
    pub header_timeout: Duration,
}

impl Config {
    /// Reads flags (pairs of a setting's name and its text), this process's environment and the file.
    pub fn load(
        flags: impl IntoIterator<Item = (String, String)>,
        needs: Needs,
    ) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let raw = Raw::collect(flags, std::env::vars_os(), &mut problems);
        check(&raw, needs, problems)
    }

    /// Folder of the content cache.
    #[must_use]
    pub fn content_cache(&self) -> PathBuf {
        self.data_dir.join("content")
    }

    /// Folder of the compiled modules.
    #[must_use]
    pub fn compiled_cache(&self) -> PathBuf {
        self.data_dir.join("compiled")
    }

    /// What the content store is opened with; its cache is in `cache`.
    #[must_use]
    pub fn content_options(&self, cache: &Path) -> ipfs::Options {
        let mut options = ipfs::Options::new(cache);
        options.gateways.clone_from(&self.content.gateways);
        options.mirror = Some(self.content.mirror.clone());
        options.api.clone_from(&self.content.api);
        options.cache_bytes = self.content.cache_bytes;
        options.timeouts = self.content.timeouts;
        options
    }
}

/// The variables of this process that a child may have: not one of ours.
#[must_use]
pub fn child_environment() -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    ["PATH", "HOME", "TMPDIR", "LANG", "TERM"]
        .into_iter()
        .filter_map(|name| Some((name.into(), std::env::var_os(name)?)))
        .collect()
}

/// A variable of the environment that is no setting: where development tools are.
#[must_use]
pub fn tool_variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|text| !text.is_empty())
}
