//! One confined child, from its start to its end.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use executor_protocol::launcher::{Ask, End, GRACE_MS, ModuleKey, Start, Step};
use executor_protocol::{Isolation, Limits};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Launcher;
use super::connection::{Connection, News};
use crate::log::Ring;
use crate::verified::Verified;
use crate::{Cause, Error, Loss};

/// How long the launcher may take to start a child or to say why not, behind those that it was asked for before.
const STARTED_WITHIN: Duration = Duration::from_secs(30);
/// How long it may take to say that a child has ended, after its time had passed or it was asked to end it.
const ENDED_WITHIN: Duration = Duration::from_secs(15);

/// What a child is to do.
pub(crate) struct Work {
    pub(crate) step: Step,
    pub(crate) limits: Limits,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) key: ModuleKey,
    pub(crate) module_sha256: [u8; 32],
    pub(crate) input_sha256: Option<[u8; 32]>,
    /// The step's input files.
    pub(crate) inputs: Vec<OwnedFd>,
}

/// What came of it.
pub(crate) struct Ran {
    pub(crate) started_at: SystemTime,
    pub(crate) isolation: Isolation,
    pub(crate) end: End,
    pub(crate) peak_memory_bytes: u64,
    /// What it wrote to the report pipe.
    pub(crate) report: Vec<u8>,
    /// What it wrote to stdout.
    pub(crate) stdout: Vec<u8>,
}

/// Stops the child when nobody waits for it any more.
struct Guard {
    connection: Arc<Connection>,
    job: u64,
    ended: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.ended {
            // A launcher that is gone has no child any more.
            let _ = self.connection.ask(&Ask::Stop { job: self.job }, Vec::new());
        }
    }
}

impl Launcher {
    /// Runs a child to its end, which `stop` brings about early. Dropping the future ends the child as well, but
    /// nobody waits for that.
    pub(crate) async fn run(
        &self,
        work: Work,
        log: &Ring,
        stop: &CancellationToken,
        on_start: impl FnOnce(i32),
    ) -> Result<Ran, Error> {
        let connection = self.connection().await?;
        let (report, report_end) = channel()?;
        let (stdout, stdout_end) = channel()?;
        let (stderr, stderr_end) = channel()?;
        let (job, mut news) = connection.enter();
        let most_ms = match work.step {
            Step::Run { .. } => work.limits.timeout_ms,
            Step::Check | Step::Compile => work.limits.compile_ms,
        };
        let most =
            Duration::from_millis(most_ms.saturating_add(GRACE_MS)).saturating_add(ENDED_WITHIN);
        let mut descriptors = work.inputs;
        descriptors.extend([report_end, stdout_end, stderr_end]);
        let start = Start {
            job,
            step: work.step,
            limits: work.limits,
            environment: work.environment,
            key: work.key,
            module_sha256: hex::encode(work.module_sha256),
            input_sha256: work.input_sha256.map(hex::encode),
        };
        let mut guard = Guard { connection: Arc::clone(&connection), job, ended: false };
        connection.ask(&Ask::Start(Box::new(start)), descriptors)?;

        let follow = async {
            let mut on_start = Some(on_start);
            let mut started = None;
            let mut asked = false;
            let mut until = Instant::now() + STARTED_WITHIN;
            loop {
                let stopped = async {
                    match asked {
                        true => std::future::pending().await,
                        false => stop.cancelled().await,
                    }
                };
                let next = tokio::select! {
                    next = news.recv() => next,
                    () = stopped => {
                        asked = true;
                        until = until.min(Instant::now() + ENDED_WITHIN);
                        connection.ask(&Ask::Stop { job }, Vec::new())?;
                        continue;
                    }
                    () = tokio::time::sleep_until(until) => {
                        // It is stopped or stuck: it is ended with all its children, and the next one starts anew.
                        connection.abandon();
                        return Err(Error::Gone("it said nothing of a child in time".to_owned()));
                    }
                };
                match next {
                    Some(News::Started { isolation, pid }) => {
                        started = Some((SystemTime::now(), isolation));
                        until = match asked {
                            true => until,
                            false => Instant::now().checked_add(most).unwrap_or(until),
                        };
                        if let Some(on_start) = on_start.take() {
                            on_start(pid);
                        }
                    }
                    Some(News::Ended { end, peak_memory_bytes }) => {
                        let (started_at, isolation) = started
                            .ok_or_else(|| Error::Gone("a child ended unstarted".to_owned()))?;
                        return Ok((started_at, isolation, end, peak_memory_bytes));
                    }
                    Some(News::Refused(reason)) => return Err(Error::Refused(reason)),
                    Some(News::Pong) => {}
                    None => return Err(Error::Gone("it ended while a child ran".to_owned())),
                }
            }
        };
        // A stream ends when the child does, so all of these end together; one that is too long is read no further
        // than its bound, and what else the child does is cut off by its own limits.
        let (report, stdout, (), followed) = tokio::join!(
            take(report, Verified::MAX_REPORT_BYTES),
            take(stdout, Verified::MAX_LINE_BYTES),
            keep(stderr, log),
            follow
        );
        let (started_at, isolation, end, peak_memory_bytes) = followed?;
        guard.ended = true;
        Ok(Ran { started_at, isolation, end, peak_memory_bytes, report, stdout })
    }
}

impl Ran {
    /// What an end other than by its own will and in good order says about the infrastructure.
    pub(crate) fn loss(&self, log: &Ring) -> Loss {
        use executor_protocol::launcher::EXIT_WRONG_DIGEST;
        let (cause, reason) = match self.end {
            End::Exited(EXIT_WRONG_DIGEST) => (Cause::ContentMismatch, log.last_line()),
            End::Exited(code) => (Cause::Crashed, format!("exit code {code}: {}", log.last_line())),
            End::Killed(signal) => (Cause::Killed, format!("signal {signal}: {}", log.last_line())),
            End::Stopped => (Cause::Killed, "it was stopped".to_owned()),
            End::TimedOut => (Cause::Killed, "its time had passed".to_owned()),
            End::OutOfMemory => (Cause::OutOfMemory, "its cgroup was out of memory".to_owned()),
        };
        Loss { cause, reason }
    }

    /// Whether a child that checks or compiles a module came to an end that the module is to blame for: it used up
    /// its time, its memory or its stack. A plain SIGKILL without a reason of the kernel's is somebody else's doing.
    pub(crate) fn was_too_complex(&self) -> bool {
        use rustix::process::Signal;
        const SPENT: [Signal; 5] =
            [Signal::ABORT, Signal::SEGV, Signal::BUS, Signal::XCPU, Signal::XFSZ];
        match self.end {
            End::TimedOut | End::OutOfMemory => true,
            End::Killed(signal) => SPENT.iter().any(|spent| spent.as_raw() == signal),
            End::Exited(_) | End::Stopped => false,
        }
    }
}

/// A pipe: the end that is read here, and the child's.
fn channel() -> Result<(pipe::Receiver, OwnedFd), Error> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| Error::Descriptor(e.into()))?;
    let reader = pipe::Receiver::from_owned_fd(reader).map_err(Error::Descriptor)?;
    Ok((reader, writer))
}

/// Reads a stream to its end, keeping one byte more than `most` at most: so that too long is told from just right.
async fn take(mut stream: pipe::Receiver, most: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut limited = (&mut stream).take(most as u64 + 1);
    // What a broken pipe leaves is short, and then does not verify.
    let _ = limited.read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    kept
}

async fn keep(mut stream: pipe::Receiver, log: &Ring) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        log.push(buffer.get(..length).unwrap_or_default());
    }
}

/// Opens a file to hand it to a child.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, Error> {
    File::open(path).map(OwnedFd::from).map_err(|source| Error::File {
        doing: "open",
        path: path.to_owned(),
        source,
    })
}
