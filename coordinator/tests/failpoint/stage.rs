//! A chain on which one task after the other is done by a daemon of its own, and what is looked at afterwards.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use alloy::providers::Provider as _;
use coordinator::{
    config::{self, Config, Needs, Raw},
    metrics::Metrics,
};
use harness::{binary, scene::Scene};
use sha2::{Digest as _, Sha256};
use store::Store;
use task_board::{Submission, TaskId};
use tokio::runtime::{Builder, Runtime};

use crate::{
    fault::{Action, Fault},
    life::{End, is_at_rest, live},
};

/// How long processes of a daemon that is gone may need to notice.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// A task and its result document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sample {
    /// Its document goes on chain.
    Short,
    /// Its document is stored, its digest goes on chain: queuing it is a step of its own.
    Long,
}

/// What a life without a fault, or the two around one, did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Course {
    pub(crate) steps: BTreeSet<String>,
    /// What it left in its data folder.
    pub(crate) files: BTreeSet<PathBuf>,
}

pub(crate) struct Stage {
    pub(crate) scene: Scene,
    runtime: Runtime,
    metrics: Metrics,
    runs: AtomicU32,
}

impl Stage {
    pub(crate) fn start(metrics: &Metrics) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let samples = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../host/wasm"));
        let scene = runtime.block_on(Scene::start(samples)).unwrap();
        scene.add("long.wasm", &long_module()).unwrap();
        // Under this name its processes are told from those of others.
        std::os::unix::fs::symlink(binary("executor").unwrap(), scene.folder().join("executor"))
            .unwrap();
        Self { scene, runtime, metrics: metrics.clone(), runs: AtomicU32::new(0) }
    }

    /// A daemon's configuration with a data folder of its own, which reads the chain from its next block on.
    pub(crate) fn config(&self) -> Config {
        let run = self.runs.fetch_add(1, Ordering::SeqCst);
        let head = self.wait(self.scene.board().provider().get_block_number()).unwrap();
        let mut variables = self.scene.environment();
        let path = |name: &str| self.scene.folder().join(name).display().to_string();
        variables.extend([
            ("COORDINATOR_DATA_DIR".to_owned(), path(&format!("data-{run}"))),
            ("COORDINATOR_EXECUTOR".to_owned(), path("executor")),
            ("COORDINATOR_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
            ("COORDINATOR_FROM_BLOCK".to_owned(), (head + 1).to_string()),
        ]);
        let variables = variables.into_iter().map(|(name, text)| (name.into(), text.into()));
        let mut problems = Vec::new();
        let raw = Raw::collect([], variables, &mut problems);
        let needs = Needs { endpoint: true, contract: true, serves: true, ..Needs::default() };
        config::check(&raw, needs, problems).unwrap()
    }

    pub(crate) fn submit(&self, sample: Sample) -> TaskId {
        let submission = match sample {
            Sample::Short => {
                let input = br#"{"entry":"fib","args":[12]}"#;
                let fib = self.scene.wasm("fib.wasm", Some(input)).unwrap();
                Submission { entry: Some("fib".to_owned()), ..fib }
            }
            Sample::Long => self.scene.wasm("long.wasm", None).unwrap(),
        };
        self.wait(self.scene.submit_one(&submission)).unwrap()
    }

    pub(crate) fn life(&self, config: &Config, fault: &Arc<Fault>) -> Result<End, String> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        live(runtime, config, &self.metrics, fault)
    }

    /// One task, done by a daemon with a fault and, where that ended it, by the next one on the same data folder.
    pub(crate) fn run(
        &self,
        sample: Sample,
        what: Option<(&str, Action)>,
    ) -> Result<Course, String> {
        let sent = self.sent();
        let config = self.config();
        let id = self.submit(sample);
        let fault = Arc::new(Fault::new(what));
        let end = self.life(&config, &fault)?;
        let is_meant = match what.map(|(_, action)| action) {
            None | Some(Action::Delay) => end == End::Rested,
            Some(Action::ErrorBefore | Action::ErrorAfter | Action::Panic) => {
                matches!(end, End::Failed(_))
            }
            Some(Action::AbortBefore | Action::AbortAfter) => end == End::Gone,
        };
        if what.is_some() && !fault.has_fired() {
            return Err("the step was never taken".to_owned());
        }
        if !is_meant {
            return Err(format!("it ended otherwise: {end:?}"));
        }
        if end != End::Rested {
            let end = self.life(&config, &Arc::new(Fault::new(None)))?;
            if end != End::Rested {
                return Err(format!("the next daemon ended by itself: {end:?}"));
            }
        }
        self.has_one_result(id, sample)?;
        let sent = self.sent() - sent;
        if sent != 1 {
            return Err(format!("{sent} transactions for one result"));
        }
        self.wait(async {
            let store = Store::open(&config.database).await.map_err(|error| error.to_string())?;
            is_at_rest(&store, &config).await?;
            store.close().await;
            Ok::<_, String>(())
        })?;
        self.has_no_process()?;
        let course = Course { steps: fault.seen(), files: files(&config.data_dir) };
        std::fs::remove_dir_all(&config.data_dir).unwrap();
        Ok(course)
    }

    /// Transactions of the publisher.
    fn sent(&self) -> u64 {
        let provider = self.scene.board().provider();
        self.wait(async { provider.get_transaction_count(self.scene.publisher()).await }).unwrap()
    }

    fn has_one_result(&self, id: TaskId, sample: Sample) -> Result<(), String> {
        let result = self.wait(self.scene.result(id)).map_err(|error| error.to_string())?;
        let result = result.ok_or("there is no result")?;
        let document = sample.document();
        let digest: [u8; 32] = Sha256::digest(&document).into();
        let is_right = match (sample, &result.document, result.digest) {
            (Sample::Short, Some(found), None) => found == document.as_bytes(),
            (Sample::Long, None, Some(found)) => {
                let cid = ipfs::raw_cid(document.as_bytes()).to_string();
                let stored = self.scene.mirror().join("blocks").join(cid);
                found == digest && std::fs::read_to_string(stored).is_ok_and(|it| it == document)
            }
            _ => false,
        };
        if is_right { Ok(()) } else { Err(format!("not the right result: {result:?}")) }
    }

    fn has_no_process(&self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let left = processes(self.scene.folder());
            if left.is_empty() {
                return Ok(());
            }
            if began.elapsed() > ENDS_WITHIN {
                return Err(format!("processes are left: {left:?}"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

impl Sample {
    fn document(self) -> String {
        match self {
            Self::Short => r#"{"status":"ok","value":144}"#.to_owned(),
            Self::Long => format!(r#"{{"status":"ok","value":{{"text":"{}"}}}}"#, long_text()),
        }
    }
}

fn long_text() -> String {
    "long ".repeat(100)
}

/// A module that prints the long text.
fn long_module() -> Vec<u8> {
    let text = long_text();
    let module = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write"
                (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\f4\01\00\00")
            (data (i32.const 16) "{text}")
            (func (export "_start")
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    );
    wat::parse_str(module).unwrap()
}

/// Processes that were started by a name in this folder.
fn processes(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let commands = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    commands
        .map(|command| String::from_utf8_lossy(&command).replace('\0', " "))
        .filter(|command| command.starts_with(&folder))
        .collect()
}

/// Every file of a folder, by its path in it. The seal in the name of a cached file is another one in every folder.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path().strip_prefix(folder).unwrap().to_owned();
                found.insert(match (path.starts_with("content/sealed"), path.to_str()) {
                    (true, Some(name)) => name.split('-').next().unwrap().into(),
                    _ => path,
                });
            }
        }
    }
    found
}
