//! Every durable step × every action.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    fault::Action,
    stage::{Course, Sample, Stage},
};

/// Every durable step of a task that is run and published: what one commit changes, as `store::fault` names it.
const STEPS: [&str; 18] = [
    // watcher
    "cursor",
    "reported included",
    "reported answered",
    // pipeline
    "nothing",
    "applied included",
    "fetch_started",
    "fetched",
    "started",
    "finished",
    "queued",
    "applied sent",
    "applied mined",
    "applied answered",
    "applied finalized",
    "cleaned",
    // publisher
    "reported sent",
    "reported mined",
    "reported finalized",
];
/// Scenarios at once, each with a chain of its own: their blocks do not disturb each other's steps.
const LANES: usize = 3;

/// Each step meets each action, in a life on an empty data folder; a daemon that this ends is started again on what it
/// left. In the end there is one right result by one transaction, a task and an outbox at rest, no process, and the
/// same files as after a life without a fault.
///
/// This also takes each step twice: a step that failed before its commit has had its effects outside of the database
/// (content fetched, a guest run, a document stored) and has them again after the start; one that failed after its
/// commit is taken for undone by its part and is found done after the start.
#[test]
fn every_durable_step_survives_every_fault() {
    let metrics = crate::ending::metrics();
    let stages: Vec<Stage> = thread::scope(|scope| {
        let starting: Vec<_> = (0..LANES).map(|_| scope.spawn(|| Stage::start(&metrics))).collect();
        starting.into_iter().map(|stage| stage.join().unwrap()).collect()
    });
    let short = stages[0].run(Sample::Short, None).unwrap();
    let long = stages[0].run(Sample::Long, None).unwrap();
    let wanted: BTreeSet<_> = STEPS.map(str::to_owned).into();
    assert_eq!((&short.steps, &long.steps), (&wanted, &wanted));

    let mut scenarios: Vec<(Sample, &str, Action, &Course)> = Vec::new();
    for action in Action::ALL {
        // A short document is queued in the commit that it is finished in.
        let steps = STEPS.into_iter().filter(|step| *step != "queued");
        scenarios.extend(steps.map(|step| (Sample::Short, step, action, &short)));
        scenarios.extend(["finished", "queued"].map(|step| (Sample::Long, step, action, &long)));
    }
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for stage in &stages {
            scope.spawn(|| {
                while let Some((sample, step, action, wanted)) =
                    scenarios.get(next.fetch_add(1, Ordering::SeqCst))
                {
                    let failure = match stage.run(*sample, Some((step, *action))) {
                        Ok(course) if course.files == wanted.files => continue,
                        Ok(course) => format!("its files: {:?}", course.files),
                        Err(failure) => failure,
                    };
                    let failure = format!("{sample:?} {step:?} × {action:?}: {failure}");
                    failures.lock().unwrap().push(failure);
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "of {}:\n{}", scenarios.len(), failures.join("\n"));
}
