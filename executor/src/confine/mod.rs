//! Confinement: a child in namespaces of its own with an empty root, no capability, no way to get one, a filter on
//! its system calls, no file in reach, and bounds on what it uses.
//!
//! [`Confiner::find`] finds out, by starting children that do nothing, what can be had on this machine;
//! [`Confiner::start`] starts one that works. What cannot be had stands in each [`Isolation`].

mod cgroup;
mod filter;
mod inside;
mod sys;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use executor_protocol::launcher::{EXIT_INFRASTRUCTURE, GRACE_MS, Step};
use executor_protocol::{Isolation, Limits, Measure};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send};
use rustix::process::{Gid, Signal, Uid, getegid, geteuid, pidfd_send_signal};
use serde::{Deserialize, Serialize};

pub(crate) use self::sys::{Ended, leave_signals_to_the_coordinator};

/// Who a child of root is, inside and outside.
const NOBODY: u32 = 65_534;

/// Memory of a child beside the guest's own, in MiB: engine, compiled code, stacks, tables, the result.
const RUN_SLACK_MIB: u64 = 256;

/// How much more a cgroup allows than the limit on writable memory, in MiB, so that the latter bites first.
const CGROUP_SLACK_MIB: u64 = 128;

/// The largest compiled form, in MiB.
const COMPILED_MIB: u64 = 512;

/// Every namespace but the user's and the cgroup's.
const COMMON: i32 = libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

/// What bounds a child as a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    data_bytes: u64,
    cgroup_bytes: u64,
    file_bytes: u64,
    cpu_s: u64,
    threads: u64,
    /// How long it may live once it is confined, in milliseconds.
    pub(crate) wall_ms: u64,
}

impl Bounds {
    /// The bounds of a step under a task's limits.
    pub(crate) fn of(step: Step, limits: &Limits) -> Self {
        let (wall_ms, data_mib) = match step {
            Step::Check | Step::Compile => (limits.compile_ms, u64::from(limits.compile_mib)),
            Step::Run { .. } => (limits.timeout_ms, u64::from(limits.memory_mib) + RUN_SLACK_MIB),
        };
        let wall_ms = wall_ms.saturating_add(GRACE_MS);
        Self {
            data_bytes: data_mib << 20,
            cgroup_bytes: (data_mib + CGROUP_SLACK_MIB) << 20,
            file_bytes: match step {
                Step::Compile => COMPILED_MIB << 20,
                Step::Check | Step::Run { .. } => 0,
            },
            // One thread works at a time; what a second one needs is in the slack.
            cpu_s: wall_ms.div_ceil(1000).saturating_add(5),
            threads: 32,
            wall_ms,
        }
    }
}

/// One way to start children.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// The namespaces' flags.
    flags: i32,
    /// The user and group that the child becomes; none: it stays who the launcher is.
    identity: Option<(u32, u32)>,
}

impl Plan {
    fn has_users(&self) -> bool {
        self.flags & libc::CLONE_NEWUSER != 0
    }

    fn has_mounts(&self) -> bool {
        self.flags & libc::CLONE_NEWNS != 0
    }

    fn identity(&self) -> Option<(Uid, Gid)> {
        self.identity.map(|(uid, gid)| (Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    fn namespaces(&self) -> Measure {
        match (self.has_mounts(), self.has_users()) {
            (true, true) => Measure::Enforced,
            (true, false) => Measure::NotEnforced(
                "no user namespace can be made here; pid, mount, network, ipc and uts are separate"
                    .to_owned(),
            ),
            (false, _) => {
                Measure::NotEnforced("no namespace can be made here: not permitted".to_owned())
            }
        }
    }

    /// All plans, the best first.
    fn all() -> Vec<Self> {
        let root = geteuid().is_root();
        let nobody = root.then_some((NOBODY, NOBODY));
        let identities: &[_] = if root { &[nobody, None] } else { &[None] };
        let users = libc::CLONE_NEWUSER | COMMON;
        let cgroups = libc::CLONE_NEWCGROUP;
        [users | cgroups, users, COMMON | cgroups, COMMON, 0]
            .into_iter()
            .flat_map(|flags| {
                identities.iter().map(move |identity| Self { flags, identity: *identity })
            })
            .collect()
    }
}

/// What the launcher tells a fresh child.
#[derive(Serialize, Deserialize)]
struct Go {
    cgroup: Measure,
}

/// What a fresh child answers.
#[derive(Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It is confined like this and begins.
    Confined(Box<Isolation>),
    /// It could not be confined and ends.
    Refused(String),
}

/// The descriptors that a child keeps.
pub(crate) struct Streams {
    /// For the guest's lines and the log.
    pub(crate) stderr: OwnedFd,
    /// For the result line.
    pub(crate) stdout: OwnedFd,
    /// All others, in order.
    pub(crate) rest: Vec<OwnedFd>,
}

/// A child that was started. Dropping it neither ends nor reaps it.
pub(crate) struct Child {
    /// As the launcher sees it.
    pub(crate) pid: i32,
    /// Readable when it has ended.
    pub(crate) pidfd: OwnedFd,
    /// Where its [`Answer`] comes.
    pub(crate) sync: OwnedFd,
    group: Option<cgroup::Group>,
}

/// Starts confined children.
pub(crate) struct Confiner {
    plan: Plan,
    filter: filter::Filter,
    cgroups: Result<cgroup::Cgroups, String>,
    null: Option<OwnedFd>,
}

impl Confiner {
    /// Finds out what can be had here. The error says why not even the least can.
    pub(crate) fn find() -> Result<(Self, Isolation), String> {
        let filter = filter::Filter::compile().map_err(|e| format!("seccomp: {e}"))?;
        let mut confiner = Self {
            plan: Plan { flags: 0, identity: None },
            filter,
            cgroups: cgroup::Cgroups::find(),
            null: fs::File::open("/dev/null").ok().map(OwnedFd::from),
        };
        let mut reason = String::new();
        for plan in Plan::all() {
            confiner.plan = plan;
            match confiner.probe() {
                Ok(isolation) => return Ok((confiner, isolation)),
                Err(why) => reason = why,
            }
        }
        confiner.close();
        Err(reason)
    }

    /// Starts a child that does nothing.
    fn probe(&self) -> Result<Isolation, String> {
        let (reader, writer) = rustix::pipe::pipe().map_err(|e| e.to_string())?;
        let streams = Streams {
            stdout: writer.try_clone().map_err(|e| e.to_string())?,
            stderr: writer,
            rest: Vec::new(),
        };
        let bounds = Bounds::of(Step::Check, &Limits::default());
        let child = self.start(0, &bounds, streams, |_, _| 0).map_err(|e| e.to_string())?;
        // It ends by itself, in either case, and soon: then the pipe has no writer any more.
        let _ = rustix::io::read(&reader, &mut [0; 1][..]);
        let answer = child.answer();
        while matches!(child.reap(), Ok(None)) {
            let mut one = [rustix::event::PollFd::new(&child.pidfd, rustix::event::PollFlags::IN)];
            let _ = rustix::event::poll(&mut one, None);
        }
        child.clean();
        match answer {
            Some(Answer::Confined(isolation)) => Ok(*isolation),
            Some(Answer::Refused(reason)) => Err(reason),
            None => Err("a child ended before it was confined".to_owned()),
        }
    }

    /// Starts a child that confines itself and then does `work` with the rest of its descriptors; what that answers
    /// is its exit code. `job` names its cgroup.
    pub(crate) fn start(
        &self,
        job: u64,
        bounds: &Bounds,
        streams: Streams,
        work: impl FnOnce(&Isolation, Vec<OwnedFd>) -> i32,
    ) -> io::Result<Child> {
        let mut cgroup = Measure::Enforced;
        let group = match &self.cgroups {
            Ok(cgroups) => {
                cgroups.create(job, bounds.cgroup_bytes).map_err(|error| error.to_string())
            }
            Err(reason) => Err(reason.clone()),
        }
        .map_err(|reason| cgroup = Measure::NotEnforced(reason))
        .ok();
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let cloned = sys::clone_child(self.plan.flags.unsigned_abs().into());
        let (pid, pidfd) = match cloned {
            Ok(sys::Cloned::Child) => {
                let code =
                    catch_unwind(AssertUnwindSafe(|| self.child(bounds, streams, theirs, work)))
                        .unwrap_or(EXIT_INFRASTRUCTURE);
                sys::exit_now(code)
            }
            Ok(sys::Cloned::Parent { pid, pidfd }) => (pid, pidfd),
            Err(error) => {
                if let Some(group) = &group {
                    group.remove();
                }
                return Err(error);
            }
        };
        drop(theirs);
        let child = Child { pid, pidfd, sync: ours, group };
        if let Err(error) = self.release(&child, cgroup) {
            child.kill();
            let until = std::time::Instant::now() + std::time::Duration::from_secs(1);
            while matches!(child.reap(), Ok(None)) && std::time::Instant::now() < until {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            child.clean();
            return Err(error);
        }
        Ok(child)
    }

    /// The launcher's half of a start: identity maps, cgroup, and the word to go on.
    fn release(&self, child: &Child, mut cgroup: Measure) -> io::Result<()> {
        if self.plan.has_users() {
            let (uid, gid) = self.plan.identity.unwrap_or((geteuid().as_raw(), getegid().as_raw()));
            let map = |name: &str, text: String| {
                fs::write(format!("/proc/{}/{name}", child.pid), text)
                    .map_err(|e| io::Error::other(format!("{name}: {e}")))
            };
            map("uid_map", format!("{uid} {uid} 1"))?;
            if !geteuid().is_root() {
                map("setgroups", "deny".to_owned())?;
            }
            map("gid_map", format!("{gid} {gid} 1"))?;
        }
        if let Some(Err(error)) = child.group.as_ref().map(|group| group.add(child.pid)) {
            cgroup = Measure::NotEnforced(error.to_string());
        }
        let go = serde_json::to_vec(&Go { cgroup })?;
        send(&child.sync, &go, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The child's whole life.
    fn child(
        &self,
        bounds: &Bounds,
        streams: Streams,
        sync: OwnedFd,
        work: impl FnOnce(&Isolation, Vec<OwnedFd>) -> i32,
    ) -> i32 {
        // Before the wait: the launcher may end now, and this child holds a copy of the launcher's own end.
        let settled = inside::die_with_the_launcher().and_then(|()| {
            // Never the launcher's socket: without `/dev/null`, a stream that can only be written to does as well.
            let stdin = match &self.null {
                Some(null) => null.try_clone()?,
                None => streams.stderr.try_clone()?,
            };
            let mut kept = vec![stdin, streams.stdout, streams.stderr];
            kept.extend(streams.rest);
            kept.push(sync);
            sys::keep_only(kept)
        });
        let Ok(mut rest) = settled else {
            return EXIT_INFRASTRUCTURE;
        };
        let Some(sync) = rest.pop() else {
            return EXIT_INFRASTRUCTURE;
        };
        let Ok(go) = hear::<Go>(&sync) else {
            return EXIT_INFRASTRUCTURE;
        };
        let confined = inside::confine(&self.plan, bounds, &self.filter, go.cgroup);
        let answer = match &confined {
            Ok(isolation) => Answer::Confined(Box::new(isolation.clone())),
            Err(reason) => Answer::Refused(reason.clone()),
        };
        // A plain write: the filter knows no sockets. It fails when the launcher is gone.
        let told = serde_json::to_vec(&answer)
            .map_err(io::Error::from)
            .and_then(|bytes| Ok(rustix::io::write(&sync, &bytes)?));
        drop(sync);
        match (told, confined) {
            (Ok(_), Ok(isolation)) => work(&isolation, rest),
            _ => EXIT_INFRASTRUCTURE,
        }
    }

    /// Removes this launcher's cgroups.
    pub(crate) fn close(&self) {
        if let Ok(cgroups) = &self.cgroups {
            cgroups.remove();
        }
    }
}

/// Takes one message; an error when the other end is closed.
fn hear<T: serde::de::DeserializeOwned>(socket: &OwnedFd) -> io::Result<T> {
    let mut buffer = vec![0; 32 << 10];
    let (length, _) =
        rustix::io::retry_on_intr(|| recv(socket, &mut buffer[..], RecvFlags::empty()))?;
    let message = buffer.get(..length).unwrap_or_default();
    Ok(serde_json::from_slice(message)?)
}

impl Child {
    /// What it said of its confinement; none when it ended without a word. Waits for one or the other.
    pub(crate) fn answer(&self) -> Option<Answer> {
        hear(&self.sync).ok()
    }

    /// Ends it and everything it started.
    pub(crate) fn kill(&self) {
        // One that has ended already is no error.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// How it ended; none while it lives.
    pub(crate) fn reap(&self) -> io::Result<Option<Ended>> {
        sys::reap(&self.pidfd)
    }

    /// Whether its cgroup ran out of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        self.group.as_ref().is_some_and(cgroup::Group::ran_out_of_memory)
    }

    /// The largest memory of its cgroup, in bytes.
    pub(crate) fn peak_memory_bytes(&self) -> Option<u64> {
        self.group.as_ref()?.peak_memory_bytes()
    }

    /// Removes its cgroup once it has been reaped; false when the kernel still holds it.
    pub(crate) fn clean(&self) -> bool {
        self.group.as_ref().is_none_or(cgroup::Group::remove)
    }
}
