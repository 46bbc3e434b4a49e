//! How one commit of a daemon's life is broken.

use std::{
    collections::BTreeSet,
    future::pending,
    io,
    panic::resume_unwind,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use store::fault::{Answer, Hook};
use tokio_util::sync::CancellationToken;

/// What an injected failure says of itself.
pub(crate) const MESSAGE: &str = "a failpoint";
/// Nobody else can commit meanwhile.
const DELAY: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing of the step is durable, and its part is told so.
    ErrorBefore,
    /// The step is durable, and its part is told the contrary.
    ErrorAfter,
    Delay,
    Panic,
    /// The whole daemon is gone, and with it the step.
    AbortBefore,
    /// The whole daemon is gone; the step is durable.
    AbortAfter,
}

impl Action {
    pub(crate) const ALL: [Self; 6] = [
        Self::ErrorBefore,
        Self::ErrorAfter,
        Self::Delay,
        Self::Panic,
        Self::AbortBefore,
        Self::AbortAfter,
    ];
}

/// Breaks the first commit that takes a step.
#[derive(Debug)]
pub(crate) struct Fault {
    what: Option<(String, Action)>,
    fired: AtomicBool,
    is_due: AtomicBool,
    dead: CancellationToken,
    seen: Mutex<BTreeSet<String>>,
}

impl Fault {
    pub(crate) fn new(what: Option<(&str, Action)>) -> Self {
        Self {
            what: what.map(|(step, action)| (step.to_owned(), action)),
            fired: AtomicBool::new(false),
            is_due: AtomicBool::new(false),
            dead: CancellationToken::new(),
            seen: Mutex::default(),
        }
    }

    /// Cancelled when the daemon has to be gone at once.
    pub(crate) fn dead(&self) -> CancellationToken {
        self.dead.clone()
    }

    pub(crate) fn has_fired(&self) -> bool {
        self.fired.load(SeqCst)
    }

    /// Whether it ends the daemon.
    pub(crate) fn is_fatal(&self) -> bool {
        self.what.as_ref().is_some_and(|(_, action)| *action != Action::Delay)
    }

    /// The steps that were taken.
    pub(crate) fn seen(&self) -> BTreeSet<String> {
        self.seen.lock().unwrap().clone()
    }

    fn action(&self, steps: &[String]) -> Option<Action> {
        self.what.as_ref().filter(|(step, _)| steps.contains(step)).map(|(_, action)| *action)
    }

    /// Nothing of this daemon goes on from here.
    async fn die(&self) -> io::Result<()> {
        self.dead.cancel();
        pending().await
    }
}

impl Hook for Fault {
    fn before<'a>(&'a self, steps: &'a [String]) -> Answer<'a> {
        Box::pin(async move {
            if self.dead.is_cancelled() {
                return pending().await;
            }
            self.seen.lock().unwrap().extend(steps.iter().cloned());
            let Some(action) = self.action(steps).filter(|_| !self.fired.swap(true, SeqCst)) else {
                return Ok(());
            };
            match action {
                Action::ErrorBefore => return Err(io::Error::other(MESSAGE)),
                Action::Delay => tokio::time::sleep(DELAY).await,
                // As `panic!`, but it does not print.
                Action::Panic => resume_unwind(Box::new(MESSAGE)),
                Action::AbortBefore => return self.die().await,
                Action::ErrorAfter | Action::AbortAfter => self.is_due.store(true, SeqCst),
            }
            Ok(())
        })
    }

    fn after<'a>(&'a self, steps: &'a [String]) -> Answer<'a> {
        Box::pin(async move {
            match self.action(steps).filter(|_| self.is_due.swap(false, SeqCst)) {
                Some(Action::ErrorAfter) => Err(io::Error::other(MESSAGE)),
                Some(_) => self.die().await,
                None => Ok(()),
            }
        })
    }
}
