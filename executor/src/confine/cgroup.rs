//! Cgroups: one folder per launcher below the cgroup it was started in, one below that per child, with a bound on
//! memory and on the number of processes. Version 1 (a hierarchy per controller) and version 2 (one for all).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Before each launcher's folder name; the rest is what tells whether that launcher still lives.
const PREFIX: &str = "wasm-exec-";

/// The most processes and threads of one child.
const MOST_PROCESSES: u32 = 64;

/// Where this launcher's cgroups are.
pub(crate) struct Cgroups {
    version: Version,
}

enum Version {
    /// The launcher's folders in the memory and in the pids hierarchy.
    One { memory: PathBuf, pids: PathBuf },
    /// The launcher's folder.
    Two(PathBuf),
}

/// One child's cgroup.
pub(crate) struct Group {
    /// One folder, or with version 1 two: memory first.
    folders: Vec<PathBuf>,
    two: bool,
}

impl Cgroups {
    /// Looks for a writable place for cgroups, removes what dead launchers left there, and makes this launcher's
    /// folder. The error says in words why there is none.
    pub(crate) fn find() -> Result<Self, String> {
        let text = |path: &str| fs::read_to_string(path).map_err(|e| format!("{path}: {e}"));
        let membership = text("/proc/self/cgroup")?;
        let mounts = text("/proc/self/mountinfo")?;
        let own = own_name().map_err(|e| format!("/proc/self: {e}"))?;
        let mut reasons = Vec::new();
        let one = |controller: &str| {
            let base = place_one(&membership, &mounts, controller)
                .ok_or_else(|| format!("no version 1 hierarchy for {controller}"))?;
            sweep(&base);
            make_own(base.join(&own))
        };
        match (one("memory"), one("pids")) {
            (Ok(memory), Ok(pids)) => {
                return Ok(Self { version: Version::One { memory, pids } });
            }
            (memory, pids) => {
                for made in [memory, pids] {
                    match made {
                        Ok(folder) => drop(fs::remove_dir(folder)),
                        Err(reason) => reasons.push(reason),
                    }
                }
            }
        }
        match two(&membership, &mounts, &own) {
            Ok(folder) => Ok(Self { version: Version::Two(folder) }),
            Err(reason) => {
                reasons.push(reason);
                Err(reasons.join("; "))
            }
        }
    }

    /// Makes a child's cgroup, which bounds the number of its processes.
    pub(crate) fn create(&self, number: u64) -> io::Result<Group> {
        let group = Group {
            folders: match &self.version {
                Version::One { memory, pids } => {
                    [memory, pids].iter().map(|folder| folder.join(number.to_string())).collect()
                }
                Version::Two(folder) => vec![folder.join(number.to_string())],
            },
            two: matches!(self.version, Version::Two(_)),
        };
        group.make().inspect_err(|_| {
            group.try_remove();
        })?;
        Ok(group)
    }

    /// Removes the launcher's own folder.
    pub(crate) fn remove(&self) {
        match &self.version {
            Version::One { memory, pids } => {
                remove_tree(memory);
                remove_tree(pids);
            }
            Version::Two(folder) => remove_tree(folder),
        }
    }
}

impl Group {
    fn memory(&self) -> &Path {
        self.folders.first().map_or(Path::new(""), PathBuf::as_path)
    }

    fn make(&self) -> io::Result<()> {
        self.folders.iter().try_for_each(|folder| make(folder))?;
        let pids = self.folders.last().map_or(Path::new(""), PathBuf::as_path);
        write(pids, "pids.max", &MOST_PROCESSES.to_string())
    }

    /// Bounds the memory of all processes in it together.
    pub(crate) fn bound(&self, memory_bytes: u64) -> io::Result<()> {
        let bytes = memory_bytes.to_string();
        let optional = |name: &str, value: &str| match write(self.memory(), name, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            answer => answer,
        };
        if self.two {
            write(self.memory(), "memory.max", &bytes)?;
            optional("memory.swap.max", "0")?;
            optional("memory.oom.group", "1")
        } else {
            write(self.memory(), "memory.limit_in_bytes", &bytes)?;
            optional("memory.memsw.limit_in_bytes", &bytes)
        }
    }

    /// Moves this process, which has one thread, into the cgroup. With version 1 as a single thread: moving a
    /// process, or another one, makes the kernel wait for all processors, for milliseconds.
    pub(crate) fn join(&self) -> io::Result<()> {
        let name = if self.two { "cgroup.procs" } else { "tasks" };
        self.folders.iter().try_for_each(|folder| write(folder, name, "0"))
    }

    /// Whether the kernel ended a process of it for want of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let name = if self.two { "memory.events" } else { "memory.oom_control" };
        fs::read_to_string(self.memory().join(name)).is_ok_and(|text| counted(&text, "oom_kill"))
    }

    /// The largest memory it had, in bytes, where the kernel says it.
    pub(crate) fn peak_memory_bytes(&self) -> Option<u64> {
        let name = if self.two { "memory.peak" } else { "memory.max_usage_in_bytes" };
        let text = fs::read_to_string(self.memory().join(name)).ok()?;
        text.trim().parse().ok()
    }

    /// Removes it; false when the kernel still holds it.
    pub(crate) fn try_remove(&self) -> bool {
        self.folders.iter().all(|folder| fs::remove_dir(folder).is_ok() || !folder.exists())
    }

    /// Removes it, waiting up to a second for the kernel; false when that was not enough.
    pub(crate) fn remove(&self) -> bool {
        let until = Instant::now() + Duration::from_secs(1);
        while !self.try_remove() {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        true
    }
}

/// Whether a line `name N` of a flat keyed file has an N above 0.
fn counted(text: &str, name: &str) -> bool {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .any(|(key, value)| key == name && value.trim().parse().is_ok_and(|n: u64| n > 0))
}

fn write(folder: &Path, name: &str, value: &str) -> io::Result<()> {
    // The file is the kernel's: it is never made here, so a missing one is NotFound.
    let mut file = fs::OpenOptions::new().write(true).open(folder.join(name))?;
    io::Write::write_all(&mut file, value.as_bytes())
}

/// Makes a folder whose name is this launcher's own, so that one which is there is its own as well (two controllers
/// may share a hierarchy).
fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn make_own(folder: PathBuf) -> Result<PathBuf, String> {
    make(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder)
}

/// A name by which a later launcher knows whether this one lives: pid namespace, process id, start time.
fn own_name() -> io::Result<String> {
    let namespace = pid_namespace()?;
    let pid = std::process::id();
    let start = start_time(pid).ok_or_else(|| io::Error::other("no start time"))?;
    Ok(format!("{PREFIX}{namespace}-{pid}-{start}"))
}

fn pid_namespace() -> io::Result<u64> {
    Ok(std::os::unix::fs::MetadataExt::ino(&fs::metadata("/proc/self/ns/pid")?))
}

/// When a process started, in clock ticks since boot; none when there is no such process.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; field 22 is the 20th after it.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// Whether the launcher with this folder name has ended. One of another pid namespace is never judged.
fn is_dead(name: &str, namespace: u64) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return false;
    };
    let numbers: Option<Vec<u64>> = rest.split('-').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some([of, pid, start]) if *of == namespace => {
            u32::try_from(*pid).is_ok_and(|pid| start_time(pid) != Some(*start))
        }
        _ => false,
    }
}

/// Removes the folders of dead launchers. Their children died with them; a folder that still holds a process stays,
/// because the kernel removes none such.
fn sweep(base: &Path) {
    let (Ok(namespace), Ok(entries)) = (pid_namespace(), fs::read_dir(base)) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| is_dead(name, namespace)) {
            remove_tree(&entry.path());
        }
    }
}

/// Removes a cgroup folder with the folders directly below it.
fn remove_tree(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

/// One line of mountinfo: the mount's root within its file system, its place, its type, its super options.
fn parse_mount(line: &str) -> Option<(&str, &str, &str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, place) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let (kind, _, options) = (after.next()?, after.next()?, after.next()?);
    Some((root, place, kind, options))
}

/// Where the own cgroup is below a mount: the path without the part that the mount hides.
fn below(root: &str, place: &str, own: &str) -> PathBuf {
    let rest = if root == "/" { own } else { own.strip_prefix(root).unwrap_or("") };
    Path::new(place).join(rest.trim_start_matches('/'))
}

/// The own cgroup's folder in a version 1 controller's hierarchy.
fn place_one(membership: &str, mounts: &str, controller: &str) -> Option<PathBuf> {
    let has = |list: &str| list.split(',').any(|name| name == controller);
    let own = membership.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        has(controllers).then_some(path)
    })?;
    mounts
        .lines()
        .filter_map(parse_mount)
        .find(|(_, _, kind, options)| *kind == "cgroup" && has(options))
        .map(|(root, place, ..)| below(root, place, own))
}

/// The own cgroup's folder in the version 2 hierarchy, and the mount it is below.
fn place_two(membership: &str, mounts: &str) -> Option<(PathBuf, PathBuf)> {
    let own = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts
        .lines()
        .filter_map(parse_mount)
        .find(|(_, _, kind, _)| *kind == "cgroup2")
        .map(|(root, place, ..)| (below(root, place, own), PathBuf::from(place)))
}

/// Makes the launcher's folder with version 2: below the own cgroup if the kernel lets that one have children with
/// controllers, else beside it (a service with a delegated subtree whose processes are in a leaf of it), else below
/// it again after this process and the coordinator have moved into a leaf, if they are alone in it.
fn two(membership: &str, mounts: &str, own: &str) -> Result<PathBuf, String> {
    let (base, top) =
        place_two(membership, mounts).ok_or("no version 2 hierarchy is mounted".to_owned())?;
    let beside = base.parent().filter(|parent| parent.starts_with(&top));
    let mut reasons = Vec::new();
    for base in [Some(base.as_path()), beside].into_iter().flatten() {
        sweep(base);
        match enable(base, own) {
            Ok(folder) => return Ok(folder),
            Err(reason) => reasons.push(reason),
        }
    }
    if alone(&base) {
        match move_into_leaf(&base)
            .map_err(|e| format!("{}: {e}", base.display()))
            .and_then(|()| enable(&base, own))
        {
            Ok(folder) => return Ok(folder),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(reasons.join("; "))
}

/// Whether a cgroup has no process but this one and its parent.
fn alone(base: &Path) -> bool {
    let ours = [std::process::id(), std::os::unix::process::parent_id()];
    fs::read_to_string(base.join("cgroup.procs")).is_ok_and(|text| {
        text.lines().all(|line| line.parse().is_ok_and(|pid: u32| ours.contains(&pid)))
    })
}

fn move_into_leaf(base: &Path) -> io::Result<()> {
    let leaf = base.join("coordinator");
    make(&leaf)?;
    for pid in [std::os::unix::process::parent_id(), std::process::id()] {
        write(&leaf, "cgroup.procs", &pid.to_string())?;
    }
    Ok(())
}

/// Makes the launcher's folder below `base`, with the two controllers for the children's folders.
fn enable(base: &Path, own: &str) -> Result<PathBuf, String> {
    const CONTROLLERS: &str = "+memory +pids";
    let folder = make_own(base.join(own))?;
    let enabled = write(base, "cgroup.subtree_control", CONTROLLERS)
        .and_then(|()| write(&folder, "cgroup.subtree_control", CONTROLLERS));
    enabled.map(|()| folder.clone()).map_err(|error| {
        let _ = fs::remove_dir(&folder);
        format!("{}: {CONTROLLERS}: {error}", base.display())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MOUNTS: &str = "\
30 24 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
31 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 24 0:28 /docker/abc /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
33 24 0:29 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw";
    const MEMBERSHIP: &str =
        "5:memory:/a/b\n4:cpu,cpuacct:/\n3:pids:/docker/abc/x\n0::/user.slice/me";

    #[test]
    fn the_own_cgroup_is_found_below_each_mount() {
        let one = |name| place_one(MEMBERSHIP, MOUNTS, name);
        assert_eq!(one("memory"), Some("/sys/fs/cgroup/memory/a/b".into()));
        assert_eq!(one("pids"), Some("/sys/fs/cgroup/pids/x".into()));
        assert_eq!(one("cpuacct"), Some("/sys/fs/cgroup/cpu".into()));
        assert_eq!(one("blkio"), None);
        assert_eq!(
            place_two(MEMBERSHIP, MOUNTS),
            Some(("/sys/fs/cgroup/unified/user.slice/me".into(), "/sys/fs/cgroup/unified".into()))
        );
    }

    #[test]
    fn a_living_launcher_and_one_of_another_namespace_are_never_swept() {
        let own = own_name().unwrap();
        let namespace = pid_namespace().unwrap();
        assert!(!is_dead(&own, namespace));
        assert!(!is_dead(&own, namespace + 1));
        assert!(is_dead(&format!("{own}0"), namespace));
        assert!(!is_dead(&format!("{own}0"), namespace + 1));
        for foreign in ["wasm-exec-", "wasm-exec-1-2", "wasm-exec-a-b-c", "docker"] {
            assert!(!is_dead(foreign, namespace), "{foreign}");
        }
    }

    #[test]
    fn only_a_counted_kill_is_one() {
        assert!(counted("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "oom_kill"));
        assert!(!counted("low 4\noom 3\noom_kill 0\n", "oom_kill"));
        assert!(!counted("", "oom_kill"));
    }
}
