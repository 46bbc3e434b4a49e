//! One running launcher: its process, its socket, and who waits for which of its children.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use executor_protocol::Isolation;
use executor_protocol::launcher::{Ask, End, Tell};
use tokio::process::Command;
use tokio::sync::{mpsc, watch};

use super::socket::{Socket, encode};
use super::{Options, Ready};
use crate::Error;

/// How long a launcher may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How long a launcher may take to answer that it is there. It starts children one after the other meanwhile.
const PONG_WITHIN: Duration = Duration::from_secs(2);
/// How long a launcher whose socket is closed may take to end its children and itself, until it is killed.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// What becomes known about one child, or in answer to a question.
pub(super) enum News {
    Pong,
    Started { isolation: Isolation, pid: i32 },
    Ended { end: End, peak_memory_bytes: u64 },
    Refused(String),
}

/// Who waits for which child.
type Waiting = HashMap<u64, mpsc::UnboundedSender<News>>;

/// A message to the launcher, with its descriptors.
type Message = (Vec<u8>, Vec<OwnedFd>);

pub(super) struct Connection {
    pub(super) ready: Ready,
    socket: Arc<Socket>,
    outgoing: mpsc::UnboundedSender<Message>,
    /// None once the launcher is gone: nobody waits from then on.
    waiting: Mutex<Option<Waiting>>,
    next: AtomicU64,
    closed: AtomicBool,
    /// True once the launcher's process is gone.
    gone: watch::Receiver<bool>,
}

impl Connection {
    /// Starts a launcher and waits until it is ready.
    pub(super) async fn open(options: &Options) -> Result<Arc<Self>, Error> {
        let (socket, theirs) = Socket::pair().map_err(Error::Descriptor)?;
        let mut words = options
            .wrapper
            .iter()
            .map(std::ffi::OsString::as_os_str)
            .chain([options.executor.as_os_str(), "launcher".as_ref()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        // No variable, and with it no secret, reaches the launcher or a child of it.
        command.args(words).env_clear().stdin(Stdio::from(theirs)).stdout(Stdio::null());
        let mut process = command
            .spawn()
            .map_err(|source| Error::Spawn { path: options.executor.clone(), source })?;
        // The command holds the launcher's end of the socket, whose last copy here must be closed.
        drop(command);
        let pid = process.id().unwrap_or_default();
        let ready = tokio::time::timeout(READY_WITHIN, socket.hear()).await;
        let ready = match ready {
            Ok(Ok(Some((Tell::Ready { engine, engine_version, fingerprint, isolation }, _)))) => {
                Ok(Ready { engine, engine_version, fingerprint, isolation, pid })
            }
            Ok(Ok(Some((Tell::Unable { reason }, _)))) => Err(Error::Unable(reason)),
            Ok(Ok(Some(_))) => Err(Error::Gone("it did not begin with its readiness".to_owned())),
            Ok(Ok(None)) => Err(Error::Gone("it ended before it was ready".to_owned())),
            Ok(Err(error)) => Err(Error::Gone(error.to_string())),
            Err(_) => Err(Error::Gone("it was not ready in time".to_owned())),
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(error) => {
                let _ = process.kill().await;
                return Err(error);
            }
        };
        let (outgoing, messages) = mpsc::unbounded_channel();
        let (tell_gone, gone) = watch::channel(false);
        let connection = Arc::new(Self {
            ready,
            socket: Arc::new(socket),
            outgoing,
            waiting: Mutex::new(Some(HashMap::new())),
            next: AtomicU64::new(1),
            closed: AtomicBool::new(false),
            gone,
        });
        tokio::spawn(write(Arc::clone(&connection.socket), messages));
        tokio::spawn({
            let connection = Arc::clone(&connection);
            async move {
                let ended = connection.read().await;
                connection.closed.store(true, Ordering::Release);
                connection.socket.close();
                // Its children die with it, whatever it dies of: its end is theirs.
                let status = match tokio::time::timeout(GONE_WITHIN, process.wait()).await {
                    Ok(status) => status,
                    Err(_) => {
                        tracing::error!(
                            launcher.pid = pid,
                            "the launcher does not end: it is killed"
                        );
                        // It may be gone already; the wait tells.
                        let _ = process.start_kill();
                        process.wait().await
                    }
                };
                match (&ended, &status) {
                    (Ok(()), Ok(status)) if status.success() => {
                        tracing::debug!(launcher.pid = pid, "the launcher has ended");
                    }
                    _ => tracing::warn!(
                        launcher.pid = pid,
                        error = ended.err().map(|e| e.to_string()),
                        status = status.ok().map(|s| s.to_string()),
                        "the launcher ended unasked; its jobs are lost"
                    ),
                }
                connection.lock().take();
                tell_gone.send_replace(true);
            }
        });
        Ok(connection)
    }

    async fn read(&self) -> io::Result<()> {
        while let Some((tell, pidfd)) = self.socket.hear().await? {
            // The child's descriptor is not needed: the launcher is what waits for it.
            drop(pidfd);
            match tell {
                Tell::Started { job, pid, isolation } => {
                    self.pass(job, News::Started { isolation, pid }, false)
                }
                Tell::Ended { job, end, peak_memory_bytes, cpu_us: _ } => {
                    self.pass(job, News::Ended { end, peak_memory_bytes }, true)
                }
                Tell::Pong { job } => self.pass(job, News::Pong, true),
                Tell::Refused { job, reason } => self.pass(job, News::Refused(reason), true),
                Tell::Ready { .. } | Tell::Unable { .. } => {
                    return Err(io::Error::other("a second beginning"));
                }
            }
        }
        Ok(())
    }

    fn pass(&self, job: u64, news: News, last: bool) {
        let mut waiting = self.lock();
        let Some(waiting) = waiting.as_mut() else {
            return;
        };
        if let Some(waiter) = waiting.get(&job) {
            // Whoever waited may have gone.
            let _ = waiter.send(news);
        }
        if last {
            waiting.remove(&job);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it can take no more jobs.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// A number for a new child, and where its news come. The channel ends when the launcher does.
    pub(super) fn enter(&self) -> (u64, mpsc::UnboundedReceiver<News>) {
        let job = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::unbounded_channel();
        if let Some(waiting) = self.lock().as_mut() {
            waiting.insert(job, sender);
        }
        (job, receiver)
    }

    /// Sends a message, after those before it.
    pub(super) fn ask(&self, ask: &Ask, descriptors: Vec<OwnedFd>) -> Result<(), Error> {
        let message = encode(ask)?;
        self.outgoing
            .send((message, descriptors))
            .map_err(|_| Error::Gone("its socket is closed".to_owned()))
    }

    /// Asks whether it is at work. One that is not answers later or never.
    pub(super) async fn ping(&self) -> Result<(), Error> {
        let (job, mut news) = self.enter();
        self.ask(&Ask::Ping { job }, Vec::new())?;
        match tokio::time::timeout(PONG_WITHIN, news.recv()).await {
            Ok(Some(News::Pong)) => Ok(()),
            Ok(_) => Err(Error::Gone("it ended".to_owned())),
            Err(_) => {
                Err(Error::Gone(format!("it does not answer within {} s", PONG_WITHIN.as_secs())))
            }
        }
    }

    /// Ends the launcher and waits until it and its children are gone.
    pub(super) async fn close(&self) {
        self.socket.close();
        let mut gone = self.gone.clone();
        // An error says that the task which waits for the process is gone, and with it the runtime.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// Ends the launcher without waiting.
    pub(super) fn abandon(&self) {
        self.socket.close();
    }
}

async fn write(socket: Arc<Socket>, mut messages: mpsc::UnboundedReceiver<Message>) {
    while let Some((message, descriptors)) = messages.recv().await {
        if socket.ask(&message, &descriptors).await.is_err() {
            // The reader sees the same end and says so.
            socket.close();
            return;
        }
    }
}
