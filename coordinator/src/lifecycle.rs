//! How the process lives and ends: a soft token that asks everybody to finish, a hard one that tells them to stop,
//! and tasks that may not die in silence.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Mutex,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use crate::telemetry::causes;

/// How long tasks have after the soft token before the hard one is cancelled too.
pub const GRACE: Duration = Duration::from_secs(10);
/// How long they have after the hard one before the process ends without them.
const LAST_GRACE: Duration = Duration::from_secs(2);

/// The tokens and the tasks. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    soft: CancellationToken,
    hard: CancellationToken,
    tracker: TaskTracker,
    failed: Arc<AtomicBool>,
    signals: Arc<Mutex<Option<Signals>>>,
}

/// The signals that ask for a stop. Kept from the first wait on, so that none is lost between two waits.
#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Those that are listened for already, else from now on.
    fn of(kept: &mut Option<Self>) -> std::io::Result<&mut Self> {
        match kept {
            Some(signals) => Ok(signals),
            none => Ok(none.insert(Self {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
            })),
        }
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Cancels a lifecycle when its task ends without being asked to.
struct Guard {
    lifecycle: Lifecycle,
    name: &'static str,
    armed: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed {
            tracing::error!(part = self.name, "a part of the coordinator died");
            self.lifecycle.fail();
        }
    }
}

impl Lifecycle {
    /// Cancelled when the process is asked to stop: finish what is short, begin nothing.
    #[must_use]
    pub fn soft(&self) -> CancellationToken {
        self.soft.clone()
    }

    /// Cancelled when waiting is over: stop at once.
    #[must_use]
    pub fn hard(&self) -> CancellationToken {
        self.hard.clone()
    }

    /// Asks everybody to finish.
    pub fn stop(&self) {
        self.soft.cancel();
    }

    fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
        self.soft.cancel();
    }

    /// Starts a part of the process. One that ends with an error, or at all before the soft token, or by a panic,
    /// stops the process, which then ends with a failure.
    pub fn spawn<E: std::error::Error + Send>(
        &self,
        name: &'static str,
        part: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let lifecycle = self.clone();
        let task = async move {
            let mut guard = Guard { lifecycle: lifecycle.clone(), name, armed: true };
            let result = tokio::select! {
                result = part => result,
                () = lifecycle.hard.cancelled() => Ok(()),
            };
            guard.armed = false;
            match result {
                Err(error) => {
                    tracing::error!(part = name, error = %causes(&error), "a part of the coordinator failed");
                    lifecycle.fail();
                }
                Ok(()) if !lifecycle.soft.is_cancelled() => {
                    tracing::error!(part = name, "a part of the coordinator ended on its own");
                    lifecycle.fail();
                }
                Ok(()) => tracing::debug!(part = name, "stopped"),
            }
        };
        self.tracker.spawn(task.instrument(tracing::info_span!("part", part = name)));
    }

    /// Waits for a signal (SIGINT or SIGTERM) and asks everybody to finish.
    pub async fn interrupted(&self) -> std::io::Result<()> {
        self.signal().await?;
        self.stop();
        Ok(())
    }

    /// The next signal, for whoever asked first: another wait goes on until that one is dropped.
    async fn signal(&self) -> std::io::Result<&'static str> {
        let mut signals = self.signals.lock().await;
        Ok(Signals::of(&mut signals)?.next().await)
    }

    /// Waits for a signal (SIGINT or SIGTERM) or the end of a part, then for all parts: a second signal or the end
    /// of `grace` cancels the hard token. Answers whether everything ended as it should.
    pub async fn run(&self, grace: Duration) -> std::io::Result<bool> {
        tokio::select! {
            () = self.soft.cancelled() => {}
            name = self.signal() => {
                tracing::info!(signal = name?, "stopping; a second signal stops at once");
            }
        }
        self.soft.cancel();
        self.tracker.close();
        let drained = tokio::select! {
            () = self.tracker.wait() => true,
            name = self.signal() => {
                tracing::warn!(signal = name?, "stopping at once");
                false
            }
            () = tokio::time::sleep(grace) => {
                tracing::warn!("not everything stopped in time; stopping at once");
                false
            }
        };
        if !drained {
            self.hard.cancel();
            if tokio::time::timeout(LAST_GRACE, self.tracker.wait()).await.is_err() {
                tracing::error!("something did not stop");
                return Ok(false);
            }
        }
        Ok(!self.failed.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn parts_that_end_when_asked_end_well() {
        let lifecycle = Lifecycle::default();
        let soft = lifecycle.soft();
        lifecycle.spawn("polite", async move {
            soft.cancelled().await;
            Ok::<(), Infallible>(())
        });
        lifecycle.stop();
        assert!(lifecycle.run(GRACE).await.unwrap());
    }

    #[tokio::test]
    async fn a_part_that_ends_early_fails_the_process() {
        let lifecycle = Lifecycle::default();
        lifecycle.spawn("short", async { Ok::<(), Infallible>(()) });
        assert!(!lifecycle.run(GRACE).await.unwrap());
    }

    #[tokio::test]
    async fn a_part_that_panics_fails_the_process() {
        let lifecycle = Lifecycle::default();
        lifecycle.spawn("broken", async {
            assert_eq!(1 + 1, 3, "a panic");
            Ok::<(), Infallible>(())
        });
        assert!(!lifecycle.run(GRACE).await.unwrap());
    }

    #[tokio::test]
    async fn a_signal_between_two_waits_is_not_lost() {
        let lifecycle = Lifecycle::default();
        let first = tokio::time::timeout(Duration::ZERO, lifecycle.interrupted()).await;
        assert!(first.is_err(), "nothing has come yet");
        let pid = std::process::id().to_string();
        let sent = std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
        assert!(lifecycle.run(GRACE).await.unwrap());
    }

    #[tokio::test]
    async fn a_run_inside_a_wait_for_a_signal_ends() {
        let lifecycle = Lifecycle::default();
        lifecycle.stop();
        let ended = tokio::select! {
            biased;
            _ = lifecycle.interrupted() => None,
            ended = lifecycle.run(GRACE) => Some(ended.unwrap()),
        };
        assert_eq!(ended, Some(true));
    }

    #[tokio::test]
    async fn a_part_that_does_not_listen_is_stopped_hard() {
        let lifecycle = Lifecycle::default();
        lifecycle.spawn("deaf", std::future::pending::<Result<(), Infallible>>());
        lifecycle.stop();
        assert!(lifecycle.run(Duration::from_millis(20)).await.unwrap());
        assert!(lifecycle.hard().is_cancelled());
    }
}
