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

/// Does `work` on a second thread while this one is its timer: `on_limit` asks it to end once the limit has passed.
/// None when it was still at it after the grace; its thread is then left behind, and the process should end soon.
pub fn within<T: Send + 'static>(
    name: &'static str,
    bounds: Bounds,
    on_limit: impl FnOnce(),
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
    if matches!(answer, Err(RecvTimeoutError::Timeout)) {
        on_limit();
        answer = receiver.recv_timeout(bounds.grace);
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
