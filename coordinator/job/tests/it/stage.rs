//! What every test needs: an executor, guests on disk, a folder, and a look at what is left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use executor_protocol::Limits;
use job::launcher::{Launcher, Options};
use job::process::{self, Process};
use job::{Blob, Finished, Instance, Name, Runtime, Spec, Status};
use sha2::{Digest as _, Sha256};

/// Long enough for anything that is to happen at all on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) const FIB: &str = r#"(module (func $fib (export "fib") (param i32) (result i32)
    (if (result i32) (i32.lt_s (local.get 0) (i32.const 2))
        (then (local.get 0))
        (else (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1)))
                       (call $fib (i32.sub (local.get 0) (i32.const 2))))))))"#;
pub(crate) const TRAP: &str = r#"(module (func (export "go") unreachable))"#;
pub(crate) const SPIN: &str = r#"(module (func (export "go") (loop br 0)))"#;
pub(crate) const LOUD: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "{\"status\":\"ok\",\"value\":666}\n")
    (func (export "_start")
        (i32.store (i32.const 0) (i32.const 64))
        (i32.store (i32.const 4) (i32.const 28))
        (drop (call $w (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 32)))))"#;

/// The executor under test: `EXECUTOR_BIN`, else the one that cargo built beside this test.
pub(crate) fn executor() -> PathBuf {
    let path = std::env::var_os("EXECUTOR_BIN").map_or_else(
        || {
            let test = std::env::current_exe().unwrap();
            test.parent().unwrap().parent().unwrap().join("executor")
        },
        PathBuf::from,
    );
    assert!(path.exists(), "{} is missing: cargo build -p executor", path.display());
    path
}

/// A folder with guests in it.
pub(crate) struct Stage {
    pub(crate) folder: tempfile::TempDir,
    instance: Instance,
    next: AtomicU64,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            instance: Instance::parse("0a1b2c3d").unwrap(),
            next: AtomicU64::new(1),
        }
    }

    pub(crate) fn name(&self) -> Name {
        let task = self.next.fetch_add(1, Ordering::Relaxed);
        Name::new(&self.instance, task, 1)
    }

    pub(crate) fn blob(&self, bytes: &[u8]) -> Blob {
        let sha256: [u8; 32] = Sha256::digest(bytes).into();
        let path = self.folder.path().join(hex::encode(sha256));
        std::fs::write(&path, bytes).unwrap();
        Blob { path, sha256 }
    }

    pub(crate) fn module(&self, wat: &str) -> Blob {
        self.blob(&wat::parse_str(wat).unwrap())
    }

    /// A job of a module with an entry and JSON arguments.
    pub(crate) fn spec(&self, wat: &str, entry: &str, arguments: &str) -> Spec {
        let mut environment = BTreeMap::new();
        if !entry.is_empty() {
            environment.insert("ENTRY".to_owned(), entry.to_owned());
            environment.insert("ARGS_JSON".to_owned(), arguments.to_owned());
        }
        Spec {
            name: self.name(),
            module: self.module(wat),
            input: None,
            environment,
            limits: Limits::default(),
        }
    }

    /// A job that never ends by itself within a test.
    pub(crate) fn endless(&self) -> Spec {
        let mut spec = self.spec(SPIN, "go", "[]");
        spec.limits.timeout_ms = 600_000;
        spec.limits.fuel = u64::MAX >> 1;
        spec
    }

    pub(crate) fn launcher(&self) -> Launcher {
        Launcher::new(Options::new(executor()))
    }

    pub(crate) async fn process(&self) -> Process {
        self.process_of(self.launcher()).await
    }

    pub(crate) async fn process_of(&self, launcher: Launcher) -> Process {
        let options =
            process::Options { cache_dir: self.folder.path().join("cache"), cache_bytes: 64 << 20 };
        Process::open(launcher, options).await.unwrap()
    }
}

/// Waits for a job to end, within bounds.
pub(crate) async fn ended(runtime: &dyn Runtime, name: &Name) -> Status {
    tokio::time::timeout(SOON, runtime.wait(name))
        .await
        .unwrap_or_else(|_| panic!("{name} did not end"))
        .unwrap()
}

pub(crate) async fn finished(runtime: &dyn Runtime, spec: &Spec) -> Finished {
    runtime.ensure(spec).await.unwrap();
    match ended(runtime, &spec.name).await {
        Status::Finished(finished) => *finished,
        other => panic!("{} ended as {other:?}", spec.name),
    }
}

/// Waits until a job's guest runs.
pub(crate) async fn running(runtime: &dyn Runtime, name: &Name) {
    let until = Instant::now() + SOON;
    loop {
        match runtime.observe(name).await.unwrap() {
            Status::Running => return,
            Status::Pending if Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            other => panic!("{name} does not run but is {other:?}"),
        }
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The processes whose parent is this one.
pub(crate) fn children_of(pid: u32) -> BTreeSet<u32> {
    let mut children = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if status_of(child).is_some_and(|status| field(&status, "PPid") == pid.to_string()) {
            children.insert(child);
        }
    }
    children
}

pub(crate) fn status_of(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/status")).ok()
}

/// A field of a process's status.
pub(crate) fn field(status: &str, name: &str) -> String {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("no {name}"))
        .trim()
        .to_owned()
}

/// How many descriptors a process has open.
pub(crate) fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// The cgroup folders of a launcher, wherever they are.
pub(crate) fn cgroups(launcher: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let wanted = format!("-{launcher}-");
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if is_launchers(&entry.path(), &wanted) {
                    found.push(entry.path());
                }
                folders.push(entry.path());
            }
        }
    }
    found
}

fn is_launchers(path: &Path, wanted: &str) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with("wasm-exec-") && name.contains(wanted))
}
