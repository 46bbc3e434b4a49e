//! A part that fails or dies ends the process, not in silence.

use std::{
    io,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use coordinator::metrics::Metrics;
use harness::{Daemon, scene::Scene, wait_for};
use store::Store;
use tokio::runtime::Builder;
use tracing_subscriber::fmt::MakeWriter;

use crate::{
    fault::{Action, Fault, MESSAGE},
    life::{End, live},
    stage::{Sample, Stage},
};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One process has one recorder.
pub(crate) fn metrics() -> Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics::install().unwrap());
    METRICS.clone()
}

/// What was logged.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[test]
fn a_part_that_fails_or_dies_is_named_and_ends_the_daemon() {
    let stage = Stage::start(&metrics());
    for (step, action, part, message) in [
        ("reported included", Action::ErrorBefore, "watcher", "a part of the coordinator failed"),
        ("reported included", Action::Panic, "watcher", "a part of the coordinator died"),
        ("applied included", Action::ErrorAfter, "pipeline", "a part of the coordinator failed"),
        ("applied included", Action::Panic, "pipeline", "a part of the coordinator died"),
        ("fetched", Action::Panic, "pipeline", "a worker of the pipeline died"),
        ("reported sent", Action::ErrorAfter, "publisher", "a part of the coordinator failed"),
        ("reported sent", Action::Panic, "publisher", "a part of the coordinator died"),
    ] {
        let lines = Lines::default();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(lines.clone()).finish();
        let config = stage.config();
        stage.submit(Sample::Short);
        // Everything on this thread, whose log is caught.
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let fault = Arc::new(Fault::new(Some((step, action))));
        let end = tracing::subscriber::with_default(subscriber, || {
            live(runtime, &config, &metrics(), &fault)
        });
        assert!(matches!(end, Ok(End::Failed(_))), "{step} {action:?}: {end:?}");
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let name = format!("part=\"{part}\"");
        let told = text
            .lines()
            .find(|line| line.contains("ERROR") && line.contains(&name) && line.contains(message));
        let told = told.unwrap_or_else(|| panic!("{step} {action:?}:\n{text}"));
        if action != Action::Panic {
            assert!(told.contains("the database failed while committing"), "{told}");
            assert!(told.contains(MESSAGE), "{told}");
        }
        // The next one does what was left, so that the next round has an account of its own again.
        let end = stage.life(&config, &Arc::new(Fault::new(None)));
        assert_eq!(end, Ok(End::Rested), "{step} {action:?}");
    }
}

#[tokio::test]
async fn a_coordinator_whose_database_is_taken_away_ends_with_a_failure() {
    let scene = stage().await;
    let mut daemon = scene.coordinator().unwrap();
    let submission = scene.wasm("fib.wasm", None).unwrap();
    let id = scene.submit_one(&submission).await.unwrap();
    wait_for("the first result", PATIENCE, async || match scene.result(id).await {
        Ok(Some(_)) => Ok(()),
        _ => Err(daemon.tail()),
    })
    .await;
    let store = Store::open(&scene.data().join("coordinator.sqlite")).await.unwrap();
    let taken = store.begin().await.unwrap();
    scene.submit_one(&submission).await.unwrap();
    let tail = ends(&mut daemon, 1).await; // SQLite waits ten seconds for the lock
    drop(taken);
    for words in ["a part of the coordinator failed", "database is locked", "the log says which"] {
        assert!(tail.contains(words), "{words}: {tail}");
    }
}

#[tokio::test]
async fn a_start_that_fails_half_way_names_its_cause_alone() {
    let scene = stage().await;
    let nothing = [("COORDINATOR_CONTRACT", "0x00000000000000000000000000000000000000aa")];
    let tail = ends(&mut scene.coordinator_with(&nothing).unwrap(), 1).await;
    assert!(tail.contains("listening") && tail.contains("no contract"), "{tail}");
    assert!(!tail.contains("ERROR"), "{tail}");
}

async fn stage() -> Scene {
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../host/wasm");
    Scene::start(samples.as_ref()).await.unwrap()
}

/// Waits for the end with this exit code, and answers what was said last.
async fn ends(daemon: &mut Daemon, code: i32) -> String {
    let status = wait_for("it to end", PATIENCE, async || {
        daemon.ended().unwrap().ok_or_else(|| daemon.tail())
    })
    .await;
    assert_eq!(status.code(), Some(code), "{}", daemon.tail());
    daemon.tail()
}
