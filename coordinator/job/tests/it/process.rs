//! The process runtime: the contract, and what is its own.

use std::collections::BTreeSet;

use executor_protocol::{Failure, Outcome, PlainFailure};
use job::launcher::Checked;
use job::{Cause, Runtime, Status};

use crate::conformance;
use crate::stage::{
    FIB, Stage, cgroups, children_of, descriptors, ended, executor, finished, running, status_of,
    until,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_process_runtime_keeps_the_contract() {
    let stage = Stage::new();
    let runtime = stage.process().await;
    conformance::holds(&runtime, &stage).await;
    runtime.launcher().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_launcher_loses_its_jobs_and_the_next_one_works() {
    let stage = Stage::new();
    let runtime = stage.process().await;
    let spec = stage.endless();
    runtime.ensure(&spec).await.unwrap();
    running(&runtime, &spec.name).await;
    let child = runtime.pid(&spec.name).unwrap();
    let launcher = runtime.launcher().ready().await.unwrap().pid;
    kill(launcher);
    match ended(&runtime, &spec.name).await {
        Status::Lost(loss) => assert_eq!(loss.cause, Cause::LauncherGone, "{loss:?}"),
        other => panic!("{other:?}"),
    }
    until("the child is gone", || status_of(child).is_none()).await;
    runtime.remove(&spec.name).await.unwrap();

    let done = finished(&runtime, &stage.spec(FIB, "fib", "[12]")).await;
    assert_eq!(done.document.as_str(), r#"{"status":"ok","value":144}"#);
    let next = runtime.launcher().ready().await.unwrap().pid;
    assert_ne!(next, launcher);
    assert_eq!(cgroups(launcher), Vec::<std::path::PathBuf>::new(), "swept");
    runtime.launcher().close().await;
    assert_eq!(cgroups(next), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_socket_ends_the_launcher_and_all_that_runs() {
    let stage = Stage::new();
    let runtime = stage.process().await;
    let spec = stage.endless();
    runtime.ensure(&spec).await.unwrap();
    running(&runtime, &spec.name).await;
    let child = runtime.pid(&spec.name).unwrap();
    let launcher = runtime.launcher().ready().await.unwrap().pid;
    // What the launcher sees when its coordinator dies of whatever.
    runtime.launcher().close().await;
    assert!(status_of(child).is_none());
    assert!(status_of(launcher).is_none());
    assert_eq!(cgroups(launcher), Vec::<std::path::PathBuf>::new());
    match ended(&runtime, &spec.name).await {
        Status::Lost(loss) => assert_eq!(loss.cause, Cause::LauncherGone, "{loss:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_launcher_started_by_hand_says_what_it_is_for() {
    let output = std::process::Command::new(executor())
        .arg("launcher")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("started by a coordinator"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_child_is_a_lost_job() {
    let stage = Stage::new();
    let runtime = stage.process().await;
    let spec = stage.endless();
    runtime.ensure(&spec).await.unwrap();
    running(&runtime, &spec.name).await;
    kill(runtime.pid(&spec.name).unwrap());
    match ended(&runtime, &spec.name).await {
        Status::Lost(loss) => assert_eq!(loss.cause, Cause::Killed, "{loss:?}"),
        other => panic!("{other:?}"),
    }
    runtime.launcher().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_jobs_leave_nothing_behind() {
    let stage = Stage::new();
    let runtime = stage.process().await;
    // The first one warms everything that stays.
    finished(&runtime, &stage.spec(FIB, "fib", "[1]")).await;
    let launcher = runtime.launcher().ready().await.unwrap().pid;
    let files = || -> BTreeSet<_> {
        let cache = stage.folder.path().join("cache");
        std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    let (files_before, in_launcher) = (files(), descriptors(launcher));

    let jobs = (0..50).map(|i| {
        let (stage, runtime) = (&stage, &runtime);
        async move {
            let spec = match i % 5 {
                0 => stage.endless(),
                _ => stage.spec(FIB, "fib", "[10]"),
            };
            runtime.ensure(&spec).await.unwrap();
            if i % 5 == 0 {
                running(runtime, &spec.name).await;
            } else {
                let done = finished(runtime, &spec).await;
                assert_eq!(done.document.as_str(), r#"{"status":"ok","value":55}"#);
            }
            runtime.remove(&spec.name).await.unwrap();
        }
    });
    futures::future::join_all(jobs).await;

    // One child waits for the next job, and has a cgroup.
    until("the children are gone", || children_of(launcher).len() <= 1).await;
    until("the launcher's descriptors are closed", || descriptors(launcher) == in_launcher).await;
    let spin = files().difference(&files_before).count();
    assert_eq!(spin, 1, "the endless guest's compiled form and nothing else");
    for folder in cgroups(launcher) {
        let entries = std::fs::read_dir(folder).unwrap().flatten();
        let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
        assert!(folders.count() <= 1);
    }
    runtime.launcher().close().await;
    assert!(status_of(launcher).is_none());
    assert_eq!(cgroups(launcher), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_compiled_form_is_compiled_again() {
    let stage = Stage::new();
    let runtime = stage.process().await;
    finished(&runtime, &stage.spec(FIB, "fib", "[1]")).await;
    let compiled = std::fs::read_dir(stage.folder.path().join("cache"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|kind| kind == "compiled"))
        .unwrap();
    let mut bytes = std::fs::read(&compiled).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&compiled, &bytes).unwrap();
    let done = finished(&runtime, &stage.spec(FIB, "fib", "[12]")).await;
    assert_eq!(done.document.as_str(), r#"{"status":"ok","value":144}"#);
    assert_ne!(std::fs::read(&compiled).unwrap(), bytes);
    runtime.launcher().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiled_form_of_another_module_is_never_run() {
    let stage = Stage::new();
    let runtime = stage.process().await;
    finished(&runtime, &stage.spec(FIB, "fib", "[1]")).await;
    let folder = stage.folder.path().join("cache");
    let compiled = || -> Vec<_> {
        std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "compiled"))
            .collect()
    };
    let fib = compiled().pop().unwrap();
    let other = "(module (func (export \"fib\") (param i32) (result i32) (i32.const 7)))";
    finished(&runtime, &stage.spec(other, "fib", "[1]")).await;
    let other_path = compiled().into_iter().find(|path| *path != fib).unwrap();
    // As a child that a hostile module has taken over might leave it: well sealed, in the wrong place.
    std::fs::copy(&fib, &other_path).unwrap();
    let done = finished(&runtime, &stage.spec(other, "fib", "[12]")).await;
    assert_eq!(done.document.as_str(), r#"{"status":"ok","value":7}"#);
    runtime.launcher().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_tells_what_can_run_from_what_never_can() {
    let stage = Stage::new();
    let launcher = stage.launcher();
    let limits = executor_protocol::Limits::default();
    match launcher.check(&stage.module(FIB), &limits).await.unwrap() {
        Checked::Runnable(report) => assert_eq!(report.exports, ["fib"]),
        Checked::Refused(refusal) => panic!("{refusal:?}"),
    }
    for _ in 0..2 {
        match launcher.check(&stage.blob(b"no module"), &limits).await.unwrap() {
            Checked::Refused(refusal) => assert_eq!(
                refusal.outcome,
                Outcome::Failed(Failure::Plain(PlainFailure::InvalidModule))
            ),
            Checked::Runnable(report) => panic!("{report:?}"),
        }
    }
    let blob = stage.blob(b"something else");
    std::fs::write(&blob.path, b"not what was verified").unwrap();
    assert_eq!(launcher.check(&blob, &limits).await.unwrap_err().code(), "check_failed");
    launcher.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_cannot_be_compiled_within_its_memory_is_too_complex() {
    let stage = Stage::new();
    let runtime = stage.process().await;
    // Many functions with many values each: small enough to be looked at, much work to compile.
    let body = "local.get 0 i64.const 3 i64.mul local.set 0 ".repeat(4000);
    let function = format!("(func (param i64) (result i64) {body} local.get 0)");
    let mut spec = stage.spec(&format!("(module {})", function.repeat(6)), "go", "[]");
    spec.limits.compile_mib = 24;
    let done = finished(&runtime, &spec).await;
    assert_eq!(done.outcome, Outcome::Failed(Failure::Plain(PlainFailure::ModuleTooComplex)));
    assert!(done.record.unwrap().message.is_some());
    runtime.launcher().close().await;
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
