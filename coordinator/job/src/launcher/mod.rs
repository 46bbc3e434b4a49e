//! The client of `executor launcher` (its protocol is [`executor_protocol::launcher`]). The launcher is started when
//! it is first needed and again when it has died; whatever it ran then is lost and says so.

mod check;
mod child;
mod connection;
mod socket;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use executor_protocol::Isolation;

pub use self::check::{Checked, Refusal};
pub(crate) use self::check::{refused, too_complex, unmeasured};
pub(crate) use self::child::{Ran, Work, open};
use self::connection::Connection;
use crate::Error;

/// How long a launcher that is being started is waited for, when it is to end.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);

/// Which launcher to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The executor's program.
    pub executor: PathBuf,
    /// A program and its arguments through which the executor is started, for instance `setpriv --reuid 1000`.
    /// Empty: it is started directly.
    pub wrapper: Vec<OsString>,
}

impl Options {
    /// The executor at a path.
    #[must_use]
    pub fn new(executor: impl Into<PathBuf>) -> Self {
        Self { executor: executor.into(), wrapper: Vec::new() }
    }

    /// The executor in the folder of the running program.
    pub fn beside_this_program() -> io::Result<Self> {
        Ok(Self::new(std::env::current_exe()?.with_file_name("executor")))
    }
}

/// What a launcher said of itself when it was ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The engine's printable name, as registered on chain.
    pub engine: String,
    /// The engine's exact version, for people.
    pub engine_version: String,
    /// What a compiled form depends on beside its module.
    pub fingerprint: String,
    /// What confines its children.
    pub isolation: Isolation,
    /// Its process id.
    pub pid: u32,
}

/// The launcher of this process. Clones are the same one; the last one's end is the launcher's.
#[derive(Clone)]
pub struct Launcher(Arc<Inner>);

struct Inner {
    options: Options,
    current: tokio::sync::Mutex<Option<Arc<Connection>>>,
    checks: Mutex<check::Remembered>,
    warned: AtomicBool,
}

impl Launcher {
    /// A launcher that is started when it is first needed.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self(Arc::new(Inner {
            options,
            current: tokio::sync::Mutex::default(),
            checks: Mutex::default(),
            warned: AtomicBool::new(false),
        }))
    }

    /// What the launcher says of itself; starts one if none runs.
    pub async fn ready(&self) -> Result<Ready, Error> {
        Ok(self.connection().await?.ready.clone())
    }

    /// What the launcher says of itself, once it has answered that it is at work.
    pub async fn answers(&self) -> Result<Ready, Error> {
        let connection = self.connection().await?;
        connection.ping().await?;
        Ok(connection.ready.clone())
    }

    /// Ends the launcher with all its children, and waits until they are gone. It is started again when needed. One that
    /// is just being started is not waited for long: it ends with this process.
    pub async fn close(&self) {
        let Ok(mut current) = tokio::time::timeout(CLOSED_WITHIN, self.0.current.lock()).await
        else {
            return;
        };
        if let Some(connection) = current.take() {
            connection.close().await;
        }
    }

    async fn connection(&self) -> Result<Arc<Connection>, Error> {
        let mut current = self.0.current.lock().await;
        if let Some(connection) = current.as_ref().filter(|c| !c.is_closed()) {
            return Ok(Arc::clone(connection));
        }
        let connection = Connection::open(&self.0.options).await?;
        self.warn_once(&connection.ready.isolation);
        *current = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// Says once, and loudly, what cannot be enforced on this machine.
    fn warn_once(&self, isolation: &Isolation) {
        if self.0.warned.swap(true, Ordering::Relaxed) {
            return;
        }
        for (name, measure) in isolation.measures() {
            if let executor_protocol::Measure::NotEnforced(reason) = measure {
                tracing::warn!(
                    measure = name,
                    reason,
                    "a means of confinement is not in force on this machine"
                );
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(connection) = self.current.get_mut() {
            connection.abandon();
        }
    }
}
