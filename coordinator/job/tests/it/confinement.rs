//! What a running guest's process looks like from outside, and what holds where less can be had.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;

use executor_protocol::Measure;
use job::launcher::{Launcher, Options};
use job::process::Process;
use job::{Runtime, Spec};

use crate::stage::{FIB, Stage, executor, field, finished, running, status_of};

/// Starts a guest that runs until it is removed; answers its job and its process's status.
async fn look(stage: &Stage, runtime: &Process) -> (Spec, u32, String) {
    let spec = stage.endless();
    runtime.ensure(&spec).await.unwrap();
    running(runtime, &spec.name).await;
    let pid = runtime.pid(&spec.name).unwrap();
    (spec, pid, status_of(pid).unwrap())
}

/// What holds everywhere.
fn the_least_is_in_force(status: &str) {
    assert_eq!(field(status, "NoNewPrivs"), "1");
    assert_eq!(field(status, "Seccomp"), "2");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(status, set), "0000000000000000", "{set}");
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_has_nothing_to_see_and_nothing_to_reach() {
    let stage = Stage::new();
    let runtime = stage.process().await;
    let (spec, pid, status) = look(&stage, &runtime).await;
    the_least_is_in_force(&status);
    assert_eq!(field(&status, "CapBnd"), "0000000000000000");
    let isolation = runtime.describe().await.unwrap().isolation;
    for (name, measure) in [
        ("namespaces", &isolation.namespaces),
        ("empty_root", &isolation.empty_root),
        ("no_capabilities", &isolation.no_capabilities),
        ("rlimits", &isolation.rlimits),
    ] {
        assert_eq!(*measure, Measure::Enforced, "{name}");
    }
    // The second number is the id inside.
    assert!(field(&status, "NSpid").ends_with("\t1"));
    if isolation.cgroup.is_enforced() {
        let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let joined = own.lines().filter(|line| line.contains("/wasm-exec-"));
        let names: Vec<_> = joined.filter_map(|line| line.split(':').nth(1)).collect();
        assert!(names == [""] || names.len() >= 2 && names.contains(&"memory"), "{own}");
    }
    if is_root() {
        // Nobody else may look into a process that cannot be dumped.
        has_nothing_to_see_and_nothing_to_reach(pid, &status);
    }
    runtime.remove(&spec.name).await.unwrap();
    runtime.launcher().close().await;
}

fn has_nothing_to_see_and_nothing_to_reach(pid: u32, status: &str) {
    for kind in ["user", "pid", "mnt", "net", "ipc", "uts"] {
        let of = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/{kind}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{kind}");
    }
    assert_eq!(field(status, "Uid"), "65534\t65534\t65534\t65534");
    assert_eq!(field(status, "Gid"), "65534\t65534\t65534\t65534");
    assert_eq!(field(status, "Groups"), "");

    let root = format!("/proc/{pid}/root/");
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0, "the root is empty");
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains(" / / ro,nosuid,nodev,noexec"), "{mounts}");

    let devices = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    let devices: Vec<_> = devices.lines().skip(2).collect();
    assert_eq!(devices.len(), 1, "only a loopback that is down: {devices:?}");
    assert!(
        std::fs::read_to_string(format!("/proc/{pid}/net/route")).unwrap().lines().nth(1).is_none()
    );

    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(environment.iter().all(|byte| *byte == 0), "no variables");
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let link = std::fs::read_link(entry.unwrap().path()).unwrap();
        let link = link.to_str().unwrap();
        assert!(
            link.starts_with("pipe:") || link == "/dev/null" || link.ends_with(".compiled"),
            "{link}"
        );
    }
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    for (name, value) in [
        ("Max core file size", "0"),
        ("Max open files", "64"),
        ("Max file size", "0"),
        ("Max locked memory", "0"),
    ] {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        assert_eq!(line[name.len()..].split_whitespace().next(), Some(value), "{line}");
    }
}

const DIVIDE: &str = r#"(module (func (export "go") (param i32) (result i32)
    (i32.div_s (i32.const 1) (local.get 0))))"#;
const OUTSIDE: &str = r#"(module (memory 1) (func (export "go") (param i32) (result i32)
    (i32.load (i32.const -8))))"#;
const DEEP: &str = r#"(module (func $go (export "go") (param i32) (result i32)
    (i32.add (i32.const 1) (call $go (local.get 0)))))"#;
const ALL_MEMORY: &str = r#"(module (memory 1) (func (export "go") (param i32) (result i32)
    (drop (memory.grow (i32.const 4095)))
    (memory.fill (i32.const 0) (i32.const 7) (i32.const 268435456))
    (memory.size)))"#;
const SLEEP: &str = r#"(module
    (import "wasi_snapshot_preview1" "poll_oneoff"
        (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const 3600000000000))
        (drop (call $poll (i32.const 0) (i32.const 128) (i32.const 1) (i32.const 256)))))"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_does_wrong_is_its_result_also_behind_the_filter() {
    let stage = Stage::new();
    let runtime = stage.process().await;
    for (wat, entry, document) in [
        (DIVIDE, "go", r#"{"status":"failed","code":"trap","trap":"integer divide by zero"}"#),
        (
            OUTSIDE,
            "go",
            r#"{"status":"failed","code":"trap","trap":"out of bounds memory access"}"#,
        ),
        (DEEP, "go", r#"{"status":"failed","code":"stack_overflow"}"#),
        (ALL_MEMORY, "go", r#"{"status":"ok","value":4096}"#),
        (SLEEP, "", r#"{"status":"timed_out"}"#),
    ] {
        let mut spec = stage.spec(wat, entry, "[0]");
        spec.limits.timeout_ms = if entry.is_empty() { 300 } else { 30_000 };
        let done = finished(&runtime, &spec).await;
        assert_eq!(done.document.as_str(), document);
    }
    runtime.launcher().close().await;
}

/// A launcher started through a wrapper, on a stage that an unprivileged user can read.
async fn wrapped(stage: &Stage, words: &[&str]) -> Process {
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(stage.folder.path(), open.clone()).unwrap();
    // The build folder may be out of an unprivileged user's reach.
    let program = stage.folder.path().join("executor");
    std::fs::copy(executor(), &program).unwrap();
    std::fs::set_permissions(&program, open).unwrap();
    let launcher = Launcher::new(Options {
        executor: program,
        wrapper: words.iter().map(OsString::from).collect(),
    });
    stage.process_of(launcher).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unprivileged_launcher_confines_as_itself() {
    let stage = Stage::new();
    let words: &[&str] = if is_root() {
        &["/usr/bin/setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"]
    } else {
        &[]
    };
    let runtime = wrapped(&stage, words).await;
    let (spec, pid, status) = look(&stage, &runtime).await;
    the_least_is_in_force(&status);
    let isolation = runtime.describe().await.unwrap().isolation;
    assert_eq!(isolation.namespaces, Measure::Enforced);
    assert_eq!(isolation.empty_root, Measure::Enforced);
    if is_root() {
        assert_eq!(field(&status, "Uid"), "1000\t1000\t1000\t1000");
        assert_eq!(std::fs::read_dir(format!("/proc/{pid}/root/")).unwrap().count(), 0);
    }
    runtime.remove(&spec.name).await.unwrap();
    runtime.launcher().close().await;
}

/// A user namespace in which no other can be made, and what runs in it.
const NO_NAMESPACES: &str = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";

#[tokio::test(flavor = "multi_thread")]
async fn without_user_namespaces_it_still_runs_and_says_so() {
    let stage = Stage::new();
    let words = ["/usr/bin/unshare", "-Ur", "/bin/sh", "-c", NO_NAMESPACES, "sh"];
    let runtime = wrapped(&stage, &words).await;
    let (spec, _, status) = look(&stage, &runtime).await;
    the_least_is_in_force(&status);
    runtime.remove(&spec.name).await.unwrap();
    let done = finished(&runtime, &stage.spec(FIB, "fib", "[12]")).await;
    assert_eq!(done.document.as_str(), r#"{"status":"ok","value":144}"#);
    match done.record.unwrap().isolation.namespaces {
        Measure::NotEnforced(reason) => assert!(reason.contains("no user namespace"), "{reason}"),
        Measure::Enforced => panic!("there is none"),
    }
    runtime.launcher().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn x3_without_any_namespace_it_still_runs_and_says_so() {
    let stage = Stage::new();
    let drop_all = format!(
        "echo 0 > /proc/sys/user/max_user_namespaces && exec /usr/bin/setpriv --bounding-set=-all --inh-caps=-all --no-new-privs {} \"$@\"",
        ""
    );
    let words = ["/usr/bin/unshare", "-Ur", "/bin/sh", "-c", &drop_all, "sh"];
    let runtime = wrapped(&stage, &words).await;
    let (spec, _, status) = look(&stage, &runtime).await;
    the_least_is_in_force(&status);
    runtime.remove(&spec.name).await.unwrap();
    let done = finished(&runtime, &stage.spec(FIB, "fib", "[12]")).await;
    assert_eq!(done.document.as_str(), r#"{"status":"ok","value":144}"#);
    let isolation = done.record.unwrap().isolation;
    assert!(!isolation.namespaces.is_enforced(), "{isolation:?}");
    assert!(!isolation.empty_root.is_enforced(), "{isolation:?}");
    assert!(isolation.seccomp.is_enforced());
    // X3: what is only enforced in part says so.
    match isolation.rlimits {
        Measure::NotEnforced(reason) => assert!(reason.contains("threads"), "{reason}"),
        Measure::Enforced => panic!("nothing bounds the number of threads"),
    }
    runtime.launcher().close().await;
}
