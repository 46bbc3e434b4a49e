//! A limit in wall-clock time for any work.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Work that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The second thread could not be started.
    #[error("cannot start a thread")]
    Spawn(#[source] std::io::Error),
    /// The work panicked: a bug of ours.
    #[error("the {0} thread ended without an answer")]
    Lost(&'static str),
}

impl Error {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Spawn(_) => "thread_unavailable",
            Self::Lost(_) => "thread_lost",
        }
    }
}

/// Wall-clock bounds of some work.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// When `on_limit` is called.
    pub limit: Duration,
    /// How long the work may take to end after that, before it is given up.
    pub grace: Duration,
    /// The stack of its thread, in bytes.
    pub stack_bytes: usize,
}

/// How often work past its limit is asked to end: the first time may have been before it could be heard.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Does `work` on a second thread while this one is its timer: `on_limit` asks it to end once the limit has passed.
/// None when it was still at it after the grace; its thread is then left behind, and the process should end soon.
pub fn within<T: Send + 'static>(
    name: &'static str,
    bounds: Bounds,
    on_limit: impl Fn(),
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Option<T>, Error> {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .stack_size(bounds.stack_bytes)
        .spawn(move || {
            // The receiver is gone only when the work was given up.
            let _ = sender.send(work());
        })
        .map_err(Error::Spawn)?;
    let mut answer = receiver.recv_timeout(bounds.limit);
    let mut grace = bounds.grace;
    while matches!(answer, Err(RecvTimeoutError::Timeout)) && !grace.is_zero() {
        on_limit();
        let wait = grace.min(ASK_AGAIN);
        answer = receiver.recv_timeout(wait);
        grace -= wait;
    }
    match answer {
        Ok(answer) => {
            let _ = thread.join();
            Ok(Some(answer))
        }
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err(Error::Lost(name)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "tests")]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn bounds(limit_ms: u64, grace_ms: u64) -> Bounds {
        Bounds {
            limit: Duration::from_millis(limit_ms),
            grace: Duration::from_millis(grace_ms),
            stack_bytes: 1 << 20,
        }
    }

    #[test]
    fn work_that_ends_in_time_is_not_disturbed() {
        let answer = within("test", bounds(60_000, 0), || panic!("asked to end"), || 7);
        assert!(matches!(answer, Ok(Some(7))));
    }

    #[test]
    fn work_past_its_limit_is_asked_to_end() {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let work = move || while !asked.load(Ordering::Relaxed) {};
        let answer =
            within("test", bounds(1, 60_000), || stop.store(true, Ordering::Relaxed), work);
        assert!(matches!(answer, Ok(Some(()))));
    }

    #[test]
    fn work_that_does_not_listen_is_given_up() {
        let (keep, wait) = mpsc::channel::<()>();
        let answer = within("test", bounds(1, 1), || (), move || wait.recv().is_ok());
        assert!(matches!(answer, Ok(None)));
        drop(keep);
    }

    #[test]
    fn work_that_panics_is_lost_and_not_an_answer() {
        let answer: Result<Option<()>, _> =
            within("test", bounds(60_000, 0), || (), || panic!("on purpose"));
        assert!(matches!(answer, Err(Error::Lost("test"))));
    }
}
