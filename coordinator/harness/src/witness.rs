//! What a run may not leave behind: processes, cgroups, files, rows in flight.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{getpid, set_child_subreaper};
use store::{Account, Filter, Store};
use task::{Hex, State};

use crate::scene::{Fault, Scene};

/// How long processes of a coordinator that is gone may need to notice.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Keeps an eye on everything that descends from this process. Orphans come to it, so nothing gets away.
#[derive(Debug)]
pub struct Witness {
    /// The chain's process: the only one that may stay.
    anvil: u32,
    /// Every descendant that was ever seen.
    seen: BTreeSet<u32>,
    /// In which states the kills found the tasks.
    states: BTreeMap<String, i64>,
}

/// A process as `/proc` shows it.
struct Process {
    pid: u32,
    parent: u32,
    is_zombie: bool,
}

impl Witness {
    /// Starts to look; the chain's process is the only one that may stay.
    ///
    /// # Errors
    /// When the kernel does not hand orphans to this process.
    pub fn new(anvil: u32) -> Result<Self, Fault> {
        set_child_subreaper(Some(getpid()))?;
        Ok(Self { anvil, seen: BTreeSet::new(), states: BTreeMap::new() })
    }

    /// Remembers who is there now.
    pub fn look(&mut self) {
        self.seen.extend(self.descendants());
    }

    /// Counts the tasks by state as a killed coordinator left them, on a copy of its database.
    pub async fn count(&mut self, scene: &Scene) {
        // One that was killed before its first commit has left nothing to count.
        let Ok(counts) = counts(scene).await else { return };
        for (state, count) in counts {
            *self.states.entry(state).or_default() += count;
        }
    }

    /// In which states the kills found the tasks, for people.
    pub fn found(&self) -> String {
        let found = State::NAMES.iter().filter_map(|state| {
            let count = self.states.get(*state)?;
            Some(format!("{state} {count}"))
        });
        found.collect::<Vec<_>>().join(", ")
    }

    /// Processes that stay.
    pub async fn processes(&self) -> Vec<String> {
        let began = Instant::now();
        loop {
            let left = self.descendants();
            if left.is_empty() || began.elapsed() > ENDS_WITHIN {
                return left
                    .into_iter()
                    .map(|pid| format!("process {pid}: {}", command(pid)))
                    .collect();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Cgroups of launchers that were seen.
    pub fn cgroups(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
        while let Some((folder, depth)) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                let name = entry.file_name().to_string_lossy().into_owned();
                // wasm-exec-NAMESPACE-PID-START
                let pid = name
                    .strip_prefix("wasm-exec-")
                    .and_then(|rest| rest.split('-').nth(1)?.parse().ok());
                if pid.is_some_and(|pid: u32| self.seen.contains(&pid)) {
                    found.push(format!("cgroup {}", entry.path().display()));
                } else if depth < 8 {
                    folders.push((entry.path(), depth + 1));
                }
            }
        }
        found
    }

    /// Everything alive that descends from this process but the chain.
    fn descendants(&self) -> BTreeSet<u32> {
        let own = std::process::id();
        let processes = processes();
        let mut found = BTreeSet::from([own]);
        loop {
            let before = found.len();
            found.extend(
                processes
                    .iter()
                    .filter(|process| found.contains(&process.parent))
                    .map(|process| process.pid)
                    .collect::<Vec<_>>(),
            );
            if found.len() == before {
                break;
            }
        }
        let zombies: BTreeSet<_> = processes
            .iter()
            .filter(|process| process.is_zombie)
            .map(|process| process.pid)
            .collect();
        found.retain(|pid| *pid != own && *pid != self.anvil && !zombies.contains(pid));
        found
    }
}

fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name in parentheses may hold anything.
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let is_zombie = fields.next()? == "Z";
            Some(Process { pid, parent: fields.next()?.parse().ok()?, is_zombie })
        })
        .collect()
}

fn command(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ")
}

async fn counts(scene: &Scene) -> Result<Vec<(String, i64)>, Fault> {
    let copy = Copy::of(scene).await?;
    let counts = copy.store.counts().await?;
    copy.store.close().await;
    Ok(counts)
}

/// A copy of the coordinator's database: the original belongs to the coordinator, and to nobody else at a time.
struct Copy {
    store: Store,
    _folder: tempfile::TempDir,
}

impl Copy {
    /// Copies the files. Beside a coordinator that works the copy may be torn: that is an error here or a row too many,
    /// and whoever asks asks again.
    async fn of(scene: &Scene) -> Result<Self, Fault> {
        let folder = tempfile::tempdir()?;
        for name in ["coordinator.sqlite", "coordinator.sqlite-wal"] {
            let from = scene.data().join(name);
            if from.exists() {
                fs::copy(from, folder.path().join(name))?;
            }
        }
        let store = Store::open(&folder.path().join("coordinator.sqlite")).await?;
        Ok(Self { store, _folder: folder })
    }
}

/// Files that a stopped coordinator has no use for: in its data folder, and in the mirror all blocks but these.
///
/// # Errors
/// When a folder cannot be read.
pub fn files(scene: &Scene, mut blocks: BTreeSet<String>) -> Result<Vec<String>, Fault> {
    let mut left = Vec::new();
    for path in walk(&scene.data())? {
        if !belongs(path.strip_prefix(scene.data())?) {
            left.push(format!("file {}", path.display()));
        }
    }
    blocks.insert(".lock".to_owned());
    for path in walk(&scene.mirror().join("blocks"))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !blocks.contains(&name) {
            left.push(format!("file {}", path.display()));
        }
    }
    Ok(left)
}

/// Whether a file in the data folder is one of those that stay: the database, the lock, and the two caches' entries.
fn belongs(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match path.components().count() {
        1 => ["coordinator.sqlite", "coordinator.sqlite.lock", "lock"].contains(&name.as_ref()),
        _ => {
            let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let is_digest = name.len() == 64 && is_hex(&name);
            // What is fetched: a tag of the CID, and the digest.
            let is_sealed = name.split_once('-').is_some_and(|(tag, rest)| {
                tag.len() == 40 && rest.len() == 64 && is_hex(tag) && is_hex(rest)
            });
            is_digest || is_sealed || name.ends_with(".compiled") || name == "key" || name == "lock"
        }
    }
}

fn walk(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        if !folder.exists() {
            continue;
        }
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    Ok(found)
}

/// Rows that still want something of a coordinator. Tasks whose submission is gone wait for ever: on a chain that
/// undoes blocks that is well.
///
/// # Errors
/// When the database cannot be read.
pub async fn rows(scene: &Scene, withheld_is_well: bool) -> Result<Vec<String>, Fault> {
    let copy = Copy::of(scene).await?;
    let store = &copy.store;
    let mut left = Vec::new();
    let mut filter = Filter { limit: 500, ..Filter::default() };
    loop {
        let page = store.tasks(&filter).await?;
        for row in &page {
            let task = &row.task;
            if !task.state.is_settled()
                || (matches!(task.state, State::Withheld { .. }) && !withheld_is_well)
                || task.dirty
            {
                left.push(format!(
                    "task {} is {:?}, dirty: {}",
                    task.identity.task_id, task.state, task.dirty
                ));
            }
        }
        let Some(last) = page.last() else { break };
        filter.before = Some(last.task.local_id);
    }
    for event in store.pending_events(100).await? {
        left.push(format!("event {} of task {} is not applied", event.event.name(), event.task));
    }
    let chain_id = alloy::providers::Provider::get_chain_id(scene.board().provider()).await?;
    let account = Account { chain_id, sender: Hex(scene.publisher().into()) };
    for outgoing in store.unsettled(&account).await? {
        left.push(format!("nonce {} is {:?}", outgoing.nonce, outgoing.state));
    }
    let board = store::Board { chain_id, contract: Hex((*scene.board().address()).into()) };
    let queued = store.queued_count(&board).await?;
    if queued > 0 {
        left.push(format!("{queued} publications wait"));
    }
    store.close().await;
    Ok(left)
}
