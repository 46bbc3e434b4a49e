//! `executor launcher`: the process that starts confined children for a coordinator, so that the coordinator itself
//! never forks. Its standard input is the socket (see [`executor_protocol::launcher`]). It has one thread, which
//! only waits: for messages, for children, for the next limit. When the socket closes, every child ends and then it.

mod child;
mod socket;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use executor_protocol::DEFAULT_LIMITS;
use executor_protocol::launcher::{Ask, End, Start, Tell};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SocketType;
use rustix::process::{Resource, Rlimit, setrlimit, setsid};

use self::socket::{Heard, Socket};
use crate::confine::{Answer, Bounds, Child, Confiner, leave_signals_to_the_coordinator, wipe};
use crate::engine;

/// How long a child may take to confine itself.
const CONFINE_WITHIN: Duration = Duration::from_secs(20);

/// Why the launcher ended other than by its coordinator's wish.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Standard input is not the socket: somebody started it by hand.
    #[error(
        "standard input is not a coordinator's socket: the launcher is started by a coordinator, not by hand"
    )]
    NoSocket,
    /// The least confinement cannot be put on here.
    #[error("cannot confine a child: {0}")]
    Unable(String),
    /// The engine cannot be made.
    #[error("cannot make the engine")]
    Engine(#[source] engine::Error),
    /// The socket, or waiting, failed.
    #[error("the socket to the coordinator failed")]
    Socket(#[from] io::Error),
}

impl Error {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSocket => "launcher_no_socket",
            Self::Unable(_) => "launcher_unable",
            Self::Engine(_) => "engine_unavailable",
            Self::Socket(_) => "launcher_socket",
        }
    }
}

/// Where a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It confines itself.
    Confining,
    /// It does its step.
    Working,
    /// It was ended on request.
    Stopped,
    /// It was ended at its limit.
    TimedOut,
}

struct Job {
    child: Child,
    phase: Phase,
    until: Instant,
    bounds: Bounds,
    /// Why it could not be confined.
    refused: Option<String>,
    /// Whether its answer was heard.
    answered: bool,
}

struct Launcher {
    socket: Socket,
    confiner: Confiner,
    jobs: BTreeMap<u64, Job>,
}

/// Serves the coordinator at standard input until that closes it.
pub fn serve() -> Result<(), Error> {
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(|_| Error::NoSocket)?;
    if !matches!(rustix::net::sockopt::socket_type(&socket), Ok(SocketType::SEQPACKET)) {
        return Err(Error::NoSocket);
    }
    leave_signals_to_the_coordinator();
    // Away from the coordinator's terminal. The first of a group already is.
    let _ = setsid();
    let files = rustix::process::getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
    let mut socket = Socket::new(socket)?;
    // Made before any child, which then finds its pages; it is also what says for whom compiled forms are.
    let engine = engine::build(DEFAULT_LIMITS.stack_bytes).map_err(Error::Engine)?;
    let (confiner, isolation) = match Confiner::find(child::work) {
        Ok(found) => found,
        Err(reason) => {
            socket.tell(&Tell::Unable { reason: reason.clone() }, None)?;
            return Err(Error::Unable(reason));
        }
    };
    socket.tell(
        &Tell::Ready {
            engine: engine::name(),
            engine_version: engine::version(),
            fingerprint: hex::encode(engine::fingerprint(&engine)),
            isolation,
        },
        None,
    )?;
    let mut launcher = Launcher { socket, confiner, jobs: BTreeMap::new() };
    let served = launcher.serve();
    launcher.end();
    served
}

impl Launcher {
    fn serve(&mut self) -> Result<(), Error> {
        loop {
            // Not while another confines itself: that one is what somebody waits for.
            if self.jobs.values().all(|job| job.phase != Phase::Confining) {
                self.confiner.keep_one_ready();
            }
            let Some(events) = self.wait()? else {
                continue;
            };
            for job in events.jobs {
                self.attend(job)?;
            }
            self.end_what_is_over();
            self.socket.flush()?;
            if events.socket {
                // As many as there are: a burst is started without a wait between.
                loop {
                    match self.socket.hear()? {
                        Heard::Ask(Ask::Start(start), descriptors) => {
                            self.start(*start, descriptors)?;
                        }
                        Heard::Ask(Ask::Stop { job }, _) => self.stop(job, Phase::Stopped),
                        Heard::Ask(Ask::Ping { job }, _) => {
                            self.socket.tell(&Tell::Pong { job }, None)?;
                        }
                        Heard::Nothing => break,
                        Heard::Closed => return Ok(()),
                    }
                }
            }
        }
    }

    /// Waits until something happens; none when it was only time that passed or a signal.
    fn wait(&self) -> Result<Option<Events>, Error> {
        let mut flags = PollFlags::IN;
        if self.socket.is_waiting() {
            flags |= PollFlags::OUT;
        }
        let mut waited = vec![PollFd::from_borrowed_fd(self.socket.as_fd(), flags)];
        let mut owners = Vec::new();
        for (job, state) in &self.jobs {
            waited.push(PollFd::new(&state.child.pidfd, PollFlags::IN));
            owners.push(*job);
            if !state.answered {
                waited.push(PollFd::new(&state.child.sync, PollFlags::IN));
                owners.push(*job);
            }
        }
        let timeout = self
            .jobs
            .values()
            .filter(|job| !matches!(job.phase, Phase::Stopped | Phase::TimedOut))
            .map(|job| job.until.saturating_duration_since(Instant::now()))
            .min()
            .map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            });
        match poll(&mut waited, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(None),
            Err(error) => return Err(Error::Socket(error.into())),
        }
        let mut ready = waited.iter().map(|one| !one.revents().is_empty());
        let socket = ready.next().unwrap_or_default();
        let mut jobs: Vec<u64> =
            ready.zip(owners).filter_map(|(ready, job)| ready.then_some(job)).collect();
        jobs.dedup();
        Ok(Some(Events { socket, jobs }))
    }

    fn start(&mut self, start: Start, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let job = start.job;
        match self.try_start(&start, descriptors) {
            Ok(state) => {
                self.jobs.insert(job, state);
                Ok(())
            }
            Err(error) => self.socket.tell(&Tell::Refused { job, reason: error.to_string() }, None),
        }
    }

    fn try_start(&mut self, start: &Start, mut descriptors: Vec<OwnedFd>) -> io::Result<Job> {
        let wrong = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        if self.jobs.contains_key(&start.job) {
            return Err(wrong("a job of this number is there already"));
        }
        if descriptors.len() != start.step.inputs() + 3 {
            return Err(wrong("not the descriptors of this step"));
        }
        // The two streams come first for a child.
        descriptors.rotate_right(2);
        let bounds = Bounds::of(start.step, &start.limits);
        let mut message = serde_json::to_vec(start)?;
        let started = self.confiner.start(&bounds, &message, &descriptors);
        wipe(&mut message);
        let child = started?;
        Ok(Job {
            child,
            phase: Phase::Confining,
            until: Instant::now() + CONFINE_WITHIN,
            bounds,
            refused: None,
            answered: false,
        })
    }

    fn stop(&mut self, job: u64, phase: Phase) {
        if let Some(state) = self.jobs.get_mut(&job) {
            state.child.kill();
            state.phase = phase;
        }
    }

    /// Ends the children whose time has passed.
    fn end_what_is_over(&mut self) {
        let now = Instant::now();
        for state in self.jobs.values_mut() {
            let running = matches!(state.phase, Phase::Confining | Phase::Working);
            if running && state.until <= now {
                state.child.kill();
                if state.phase == Phase::Confining {
                    state.refused = Some("it did not confine itself in time".to_owned());
                }
                state.phase = Phase::TimedOut;
            }
        }
    }

    /// Takes a child's answer or its end.
    fn attend(&mut self, job: u64) -> io::Result<()> {
        let Some(state) = self.jobs.get_mut(&job) else {
            return Ok(());
        };
        // Read first: a child can have answered and ended before it is looked at.
        if !state.answered {
            state.answered = true;
            match state.child.answer() {
                Some(Answer::Confined(isolation)) => {
                    if state.phase == Phase::Confining {
                        state.phase = Phase::Working;
                        state.until = Instant::now() + Duration::from_millis(state.bounds.wall_ms);
                    }
                    let pidfd = state.child.pidfd.try_clone()?;
                    self.socket.tell(
                        &Tell::Started { job, pid: state.child.pid, isolation: *isolation },
                        Some(pidfd),
                    )?;
                }
                Some(Answer::Refused(reason)) => state.refused = Some(reason),
                None => {
                    state
                        .refused
                        .get_or_insert_with(|| "it ended before it was confined".to_owned());
                }
            }
        }
        let Some(ended) = state.child.reap()? else {
            return Ok(());
        };
        let end = match (state.phase, ended.exit, ended.signal) {
            (_, Some(code), _) => End::Exited(code),
            (Phase::Stopped, ..) => End::Stopped,
            (Phase::TimedOut, ..) => End::TimedOut,
            _ if state.child.ran_out_of_memory() => End::OutOfMemory,
            (_, None, signal) => End::Killed(signal.unwrap_or_default()),
        };
        let peak = state.child.peak_memory_bytes();
        if !state.child.clean() {
            eprintln!(
                "executor launcher: the cgroup of job {job} cannot be removed now; a later launcher will"
            );
        }
        let refused = state.refused.take();
        self.jobs.remove(&job);
        let tell = match refused {
            Some(reason) => Tell::Refused { job, reason },
            None => Tell::Ended {
                job,
                end,
                peak_memory_bytes: peak.unwrap_or(ended.peak_memory_bytes),
                cpu_us: ended.cpu_us,
            },
        };
        self.socket.tell(&tell, None)
    }

    /// Ends every child and waits until it is gone.
    fn end(&mut self) {
        for state in self.jobs.values() {
            state.child.kill();
        }
        for state in self.jobs.values() {
            state.child.end();
        }
        self.confiner.close();
    }
}

/// What happened.
struct Events {
    socket: bool,
    jobs: Vec<u64>,
}
