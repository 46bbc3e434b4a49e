//! The contract of `Runtime`, as a suite that every implementation must pass.

use executor_protocol::{Failure, Outcome};
use job::{Runtime, Status};

use crate::stage::{FIB, LOUD, Stage, TRAP, ended, finished, running};

/// Everything that holds for any runtime.
pub(crate) async fn holds(runtime: &dyn Runtime, stage: &Stage) {
    a_result_is_verified_and_measured(runtime, stage).await;
    an_input_reaches_the_guest(runtime, stage).await;
    a_trap_is_a_result(runtime, stage).await;
    a_time_out_is_a_result(runtime, stage).await;
    what_a_guest_writes_is_in_the_log_alone(runtime, stage).await;
    ensuring_twice_runs_once(runtime, stage).await;
    removing_ends_a_guest_that_never_would(runtime, stage).await;
    what_is_not_there_is_missing(runtime, stage).await;
    other_bytes_than_verified_never_run(runtime, stage).await;
    assert!(runtime.list().await.unwrap().is_empty());
}

async fn a_result_is_verified_and_measured(runtime: &dyn Runtime, stage: &Stage) {
    let spec = stage.spec(FIB, "fib", "[12]");
    let done = finished(runtime, &spec).await;
    assert_eq!(done.document.as_str(), r#"{"status":"ok","value":144}"#);
    assert!(done.started_at <= done.finished_at);
    let record = done.record.unwrap();
    let described = runtime.describe().await.unwrap();
    assert_eq!(record.engine, described.engine);
    assert_eq!(record.isolation, described.isolation);
    assert_eq!(record.limits, spec.limits);
    assert!(record.fuel_used.unwrap() > 144);
    assert_eq!(runtime.list().await.unwrap(), std::slice::from_ref(&spec.name));
    runtime.remove(&spec.name).await.unwrap();
}

async fn an_input_reaches_the_guest(runtime: &dyn Runtime, stage: &Stage) {
    let mut spec = stage.spec(FIB, "", "");
    spec.input = Some(stage.blob(br#"{"entry":"fib","args":[12]}"#));
    let done = finished(runtime, &spec).await;
    assert_eq!(done.document.as_str(), r#"{"status":"ok","value":144}"#);
    runtime.remove(&spec.name).await.unwrap();
}

async fn a_trap_is_a_result(runtime: &dyn Runtime, stage: &Stage) {
    let spec = stage.spec(TRAP, "go", "[]");
    let done = finished(runtime, &spec).await;
    assert_eq!(done.outcome, Outcome::Failed(Failure::Trap("unreachable".to_owned())));
    runtime.remove(&spec.name).await.unwrap();
}

async fn a_time_out_is_a_result(runtime: &dyn Runtime, stage: &Stage) {
    let mut spec = stage.endless();
    spec.limits.timeout_ms = 200;
    let done = finished(runtime, &spec).await;
    assert_eq!(done.outcome, Outcome::TimedOut);
    assert_eq!(done.document.as_str(), r#"{"status":"timed_out"}"#);
    runtime.remove(&spec.name).await.unwrap();
}

async fn what_a_guest_writes_is_in_the_log_alone(runtime: &dyn Runtime, stage: &Stage) {
    let spec = stage.spec(LOUD, "", "");
    let done = finished(runtime, &spec).await;
    assert!(!done.document.as_str().contains("666"));
    let log = runtime.log(&spec.name).await.unwrap().unwrap();
    let text = String::from_utf8(log.bytes).unwrap();
    assert!(text.contains("666"), "{text}");
    assert!(text.lines().all(|line| !line.starts_with(r#"{"status""#)), "{text}");
    runtime.remove(&spec.name).await.unwrap();
    assert_eq!(runtime.log(&spec.name).await.unwrap(), None);
}

async fn ensuring_twice_runs_once(runtime: &dyn Runtime, stage: &Stage) {
    let spec = stage.endless();
    runtime.ensure(&spec).await.unwrap();
    running(runtime, &spec.name).await;
    runtime.ensure(&spec).await.unwrap();
    assert!(matches!(runtime.observe(&spec.name).await.unwrap(), Status::Running));
    assert_eq!(runtime.list().await.unwrap().len(), 1);
    runtime.remove(&spec.name).await.unwrap();

    // Also after the end: the result stays, nothing runs again.
    let spec = stage.spec(FIB, "fib", "[3]");
    let first = finished(runtime, &spec).await;
    assert_eq!(finished(runtime, &spec).await, first);
    runtime.remove(&spec.name).await.unwrap();
}

async fn removing_ends_a_guest_that_never_would(runtime: &dyn Runtime, stage: &Stage) {
    let spec = stage.endless();
    runtime.ensure(&spec).await.unwrap();
    running(runtime, &spec.name).await;
    let (removed, waited) = tokio::join!(runtime.remove(&spec.name), ended(runtime, &spec.name));
    removed.unwrap();
    assert!(matches!(waited, Status::Missing), "{waited:?}");
    assert!(matches!(runtime.observe(&spec.name).await.unwrap(), Status::Missing));
}

async fn what_is_not_there_is_missing(runtime: &dyn Runtime, stage: &Stage) {
    let name = stage.name();
    assert!(matches!(runtime.observe(&name).await.unwrap(), Status::Missing));
    assert!(matches!(runtime.wait(&name).await.unwrap(), Status::Missing));
    runtime.remove(&name).await.unwrap();
    assert_eq!(runtime.log(&name).await.unwrap(), None);
}

async fn other_bytes_than_verified_never_run(runtime: &dyn Runtime, stage: &Stage) {
    let mut module = stage.spec("(module (func (export \"go\") nop))", "go", "[]");
    std::fs::write(&module.module.path, wat::parse_str(TRAP).unwrap()).unwrap();
    let mut input = stage.spec(FIB, "", "");
    let blob = stage.blob(br#"{"entry":"fib","args":[13]}"#);
    std::fs::write(&blob.path, br#"{"entry":"fib","args":[12]}"#).unwrap();
    input.input = Some(blob);
    for spec in [&mut module, &mut input] {
        runtime.ensure(spec).await.unwrap();
        match ended(runtime, &spec.name).await {
            Status::Lost(loss) => assert_eq!(loss.cause.code(), "content_mismatch", "{loss:?}"),
            other => panic!("{other:?}"),
        }
        runtime.remove(&spec.name).await.unwrap();
        std::fs::remove_file(&spec.module.path).unwrap_or_default();
    }
}
