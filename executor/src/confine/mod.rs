//! Confinement: a child in namespaces of its own with an empty root, no capability, no way to get one, a filter on
//! its system calls, no file in reach, and bounds on what it uses.
//!
//! [`Confiner::find`] finds out, by starting children that do nothing, what can be had on this machine;
//! [`Confiner::start`] gives one its work. What cannot be had stands in each [`Isolation`]. Most of a child's start
//! depends on no task, so one child waits ready for the next.

mod cgroup;
mod filter;
mod inside;
pub(crate) mod packet;
mod plan;
mod sys;

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use executor_protocol::launcher::{EXIT_INFRASTRUCTURE, MAX_MESSAGE_BYTES, Step};
use executor_protocol::{Isolation, Limits, Measure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Signal, getegid, geteuid, pidfd_send_signal};
use serde::{Deserialize, Serialize};

pub(crate) use self::plan::Bounds;
use self::plan::Plan;
pub(crate) use self::sys::{Ended, leave_signals_to_the_coordinator};

/// What a child does once it is confined, with what it was sent and its descriptors; answers its exit code.
pub(crate) type Work = fn(&[u8], &Isolation, Vec<OwnedFd>) -> i32;

/// The first message to a fresh child: its identity is mapped.
const MAPPED: &[u8] = b"mapped";

/// The second message to a child, before a line's end and what its work is sent. With it come its descriptors:
/// stdout, stderr, then those of its work.
#[derive(Serialize, Deserialize)]
struct Go {
    cgroup: Measure,
    bounds: Bounds,
}

/// What a child answers.
#[derive(Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It is confined like this and begins.
    Confined(Box<Isolation>),
    /// It could not be confined and ends.
    Refused(String),
}

/// A child that was started. Dropping it neither ends nor reaps it.
pub(crate) struct Child {
    /// As the launcher sees it.
    pub(crate) pid: i32,
    /// Readable when it has ended.
    pub(crate) pidfd: OwnedFd,
    /// Where its [`Answer`] comes.
    pub(crate) sync: OwnedFd,
    /// Its cgroup, or why it is in none.
    group: Result<cgroup::Group, String>,
}

/// Starts confined children.
pub(crate) struct Confiner {
    plan: Plan,
    work: Work,
    filter: filter::Filter,
    cgroups: Result<cgroup::Cgroups, String>,
    /// What a child has as its standard input, and until it has its own as the other two.
    null: OwnedFd,
    /// The child that waits for the next work.
    spare: Option<Child>,
    /// Of the next child; names its cgroup.
    next: u64,
}

impl Confiner {
    /// Finds out what can be had here. The error says why not even the least can.
    pub(crate) fn find(work: Work) -> Result<(Self, Isolation), String> {
        let filter = filter::Filter::compile().map_err(|e| format!("seccomp: {e}"))?;
        // Without `/dev/null`, the end of a pipe that nobody writes to does as well.
        let null = match fs::File::open("/dev/null") {
            Ok(file) => OwnedFd::from(file),
            Err(_) => rustix::pipe::pipe().map_err(|e| e.to_string())?.0,
        };
        let mut confiner = Self {
            plan: Plan { flags: 0, identity: None },
            work: |_, _, _| 0,
            filter,
            cgroups: cgroup::Cgroups::find(),
            null,
            spare: None,
            next: 0,
        };
        let mut reason = String::new();
        for plan in Plan::all() {
            confiner.plan = plan;
            match confiner.probe() {
                Ok(isolation) => {
                    confiner.work = work;
                    return Ok((confiner, isolation));
                }
                Err(why) => reason = why,
            }
        }
        confiner.close();
        Err(reason)
    }

    /// Starts a child that does nothing.
    fn probe(&mut self) -> Result<Isolation, String> {
        let bounds = Bounds::of(Step::Check, &Limits::default());
        let null = [self.null.try_clone(), self.null.try_clone()];
        let [Ok(stdout), Ok(stderr)] = null else {
            return Err("no descriptor is left".to_owned());
        };
        let child = self.start(&bounds, &[], &[stdout, stderr]).map_err(|e| e.to_string())?;
        // It answers or ends.
        let answer = child.answer();
        child.end();
        match answer {
            Some(Answer::Confined(isolation)) => Ok(*isolation),
            Some(Answer::Refused(reason)) => Err(reason),
            None => Err("a child ended before it was confined".to_owned()),
        }
    }

    /// Has a child confine itself and then work with what it is sent: a message and descriptors, the first two of
    /// which become its stdout and stderr.
    pub(crate) fn start(
        &mut self,
        bounds: &Bounds,
        message: &[u8],
        descriptors: &[OwnedFd],
    ) -> io::Result<Child> {
        let spare = match self.spare.take() {
            // Somebody may have ended it while it waited.
            Some(spare) if spare.reap()?.is_some() => {
                spare.clean();
                None
            }
            spare => spare,
        };
        let child = match spare {
            Some(child) => child,
            None => self.prepare()?,
        };
        child.go(bounds, message, descriptors).inspect_err(|_| child.end())?;
        Ok(child)
    }

    /// Sees to it that a child waits for the next work. Done when there is nothing else to do; what fails here
    /// fails again, and is told, when there is work.
    pub(crate) fn keep_one_ready(&mut self) {
        if self.spare.is_none() {
            self.spare = self.prepare().ok();
        }
    }

    /// Starts a child, which does all that depends on no work and waits.
    fn prepare(&mut self) -> io::Result<Child> {
        self.next += 1;
        let group = match &self.cgroups {
            Ok(cgroups) => cgroups.create(self.next).map_err(|error| error.to_string()),
            Err(reason) => Err(reason.clone()),
        };
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let (pid, pidfd) = match sys::clone_child(self.plan.flags.unsigned_abs().into()) {
            Ok(sys::Cloned::Child) => {
                let code = catch_unwind(AssertUnwindSafe(|| self.live(&group, theirs)))
                    .unwrap_or(EXIT_INFRASTRUCTURE);
                sys::exit_now(code)
            }
            Ok(sys::Cloned::Parent { pid, pidfd }) => (pid, pidfd),
            Err(error) => {
                if let Ok(group) = &group {
                    group.remove();
                }
                return Err(error);
            }
        };
        drop(theirs);
        let child = Child { pid, pidfd, sync: ours, group };
        self.map_identity(pid)
            .and_then(|()| Ok(packet::send(&child.sync, MAPPED, &[])?))
            .inspect_err(|_| child.end())?;
        Ok(child)
    }

    /// Says who the child is inside of its user namespace.
    fn map_identity(&self, pid: i32) -> io::Result<()> {
        if !self.plan.has_users() {
            return Ok(());
        }
        let (uid, gid) = self.plan.identity.unwrap_or((geteuid().as_raw(), getegid().as_raw()));
        let map = |name: &str, text: String| {
            fs::write(format!("/proc/{pid}/{name}"), text)
                .map_err(|e| io::Error::other(format!("{name}: {e}")))
        };
        map("uid_map", format!("{uid} {uid} 1"))?;
        if !geteuid().is_root() {
            map("setgroups", "deny".to_owned())?;
        }
        map("gid_map", format!("{gid} {gid} 1"))
    }

    /// The child's whole life.
    fn live(&self, group: &Result<cgroup::Group, String>, sync: OwnedFd) -> i32 {
        self.try_live(group, sync).unwrap_or(EXIT_INFRASTRUCTURE)
    }

    fn try_live(&self, group: &Result<cgroup::Group, String>, sync: OwnedFd) -> io::Result<i32> {
        let closed = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let null = || self.null.try_clone();
        // Before any wait: the launcher may end now, and this child holds a copy of the launcher's own end.
        inside::die_with_the_launcher()?;
        // While it still is who may do that, and sees the folder.
        let joined = group.as_ref().map_or(Ok(()), cgroup::Group::join);
        let mut kept = sys::keep_only(vec![null()?, null()?, null()?, sync])?;
        let sync = kept.pop().ok_or_else(closed)?;
        let mut buffer = vec![0; 2 * MAX_MESSAGE_BYTES];
        let (length, _) = retry_on_intr(|| packet::receive(&sync, &mut buffer))?;
        if buffer.get(..length) != Some(MAPPED) {
            return Err(closed());
        }
        let prepared = inside::prepare(&self.plan);

        let (length, descriptors) = retry_on_intr(|| packet::receive(&sync, &mut buffer))?;
        let mut parts = buffer.get(..length).unwrap_or_default().splitn(2, |byte| *byte == b'\n');
        let go: Go = serde_json::from_slice(parts.next().unwrap_or_default())?;
        let message = parts.next().unwrap_or_default();
        let mut kept = vec![io::stdin().as_fd().try_clone_to_owned()?];
        kept.extend(descriptors);
        kept.push(sync);
        let mut kept = sys::keep_only(kept)?;
        let sync = kept.pop().ok_or_else(closed)?;
        let cgroup = match joined {
            Ok(()) => go.cgroup,
            Err(error) => Measure::NotEnforced(error.to_string()),
        };
        let confined = prepared.and_then(|prepared| {
            inside::finish(prepared, &self.plan, &go.bounds, &self.filter, cgroup)
        });
        let answer = match &confined {
            Ok(isolation) => Answer::Confined(Box::new(isolation.clone())),
            Err(reason) => Answer::Refused(reason.clone()),
        };
        // A plain write: the filter knows no sockets. It fails when the launcher is gone.
        rustix::io::write(&sync, &serde_json::to_vec(&answer)?)?;
        drop(sync);
        Ok(match confined {
            Ok(isolation) => (self.work)(message, &isolation, kept),
            Err(_) => EXIT_INFRASTRUCTURE,
        })
    }

    /// Ends the child that waits, and removes this launcher's cgroups.
    pub(crate) fn close(&mut self) {
        if let Some(spare) = self.spare.take() {
            spare.end();
        }
        if let Ok(cgroups) = &self.cgroups {
            cgroups.remove();
        }
    }
}

/// Overwrites what a child was told: the next one is a copy of this process, and must not find another module's key.
pub(crate) fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    // What is not looked at any more need not be written, a compiler might think.
    std::hint::black_box(bytes);
}

impl Child {
    /// Gives it its work.
    fn go(&self, bounds: &Bounds, message: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
        let cgroup = match &self.group {
            Ok(group) => match group.bound(bounds.cgroup_bytes) {
                Ok(()) => Measure::Enforced,
                Err(error) => Measure::NotEnforced(error.to_string()),
            },
            Err(reason) => Measure::NotEnforced(reason.clone()),
        };
        let mut packet = serde_json::to_vec(&Go { cgroup, bounds: *bounds })?;
        packet.push(b'\n');
        packet.extend_from_slice(message);
        let descriptors: Vec<BorrowedFd<'_>> =
            descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
        let sent = packet::send(&self.sync, &packet, &descriptors);
        wipe(&mut packet);
        Ok(sent?)
    }

    /// What it said of its confinement; none when it ended without a word. Waits for one or the other.
    pub(crate) fn answer(&self) -> Option<Answer> {
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        let (length, _) = retry_on_intr(|| packet::receive(&self.sync, &mut buffer)).ok()?;
        serde_json::from_slice(buffer.get(..length)?).ok()
    }

    /// Ends it and everything it started.
    pub(crate) fn kill(&self) {
        // One that has ended already is no error.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Ends it, waits until it is gone, and removes its cgroup.
    pub(crate) fn end(&self) {
        self.kill();
        let mut one = [PollFd::new(&self.pidfd, PollFlags::IN)];
        while matches!(poll(&mut one, None), Err(rustix::io::Errno::INTR)) {}
        // One that has been reaped already is no error.
        let _ = self.reap();
        self.clean();
    }

    /// How it ended; none while it lives.
    pub(crate) fn reap(&self) -> io::Result<Option<Ended>> {
        sys::reap(&self.pidfd)
    }

    /// Whether its cgroup ran out of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        self.group.as_ref().is_ok_and(cgroup::Group::ran_out_of_memory)
    }

    /// The largest memory of its cgroup, in bytes.
    pub(crate) fn peak_memory_bytes(&self) -> Option<u64> {
        self.group.as_ref().ok()?.peak_memory_bytes()
    }

    /// Removes its cgroup once it has been reaped; false when the kernel still holds it.
    pub(crate) fn clean(&self) -> bool {
        self.group.as_ref().map_or(true, cgroup::Group::remove)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        unsafe_code,
        clippy::unwrap_used,
        reason = "tests: what an attacker's code would call"
    )]
    use super::*;

    const DONE: i32 = 7;
    const FAILED: i32 = 8;

    /// Runs a test in a copy of this process, which has one thread: no other starts children.
    fn alone(test: fn()) {
        // SAFETY: the C library makes its allocator usable after a fork, and the copy ends without any destructor.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let passed = catch_unwind(test).is_ok();
            sys::exit_now(i32::from(!passed));
        }
        let mut status = 0;
        // SAFETY: a process of ours and a place for its status.
        let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
        assert_eq!((waited, status), (pid, 0), "what went wrong stands above");
    }

    /// How a child ends that is confined without any namespace and does this work; the message is this process's id.
    fn end_of(work: Work) -> Ended {
        let mut confiner = Confiner {
            plan: Plan { flags: 0, identity: None },
            work,
            filter: filter::Filter::compile().unwrap(),
            cgroups: Err("none".to_owned()),
            null: fs::File::open("/dev/null").unwrap().into(),
            spare: None,
            next: 0,
        };
        let bounds = Bounds::of(Step::Check, &Limits::default());
        let null = || OwnedFd::from(fs::File::options().write(true).open("/dev/null").unwrap());
        let message = std::process::id().to_string();
        let child = confiner.start(&bounds, message.as_bytes(), &[null(), null()]).unwrap();
        match child.answer() {
            Some(Answer::Confined(isolation)) => assert!(isolation.seccomp.is_enforced()),
            Some(Answer::Refused(reason)) => panic!("{reason}"),
            None => panic!("it ended before it was confined"),
        }
        loop {
            if let Some(ended) = child.reap().unwrap() {
                return ended;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn signal(process: libc::c_long, thread: libc::c_long) -> i32 {
        // SAFETY: signal 0 only asks.
        match unsafe { libc::syscall(libc::SYS_tgkill, process, thread, 0) } {
            0 => DONE,
            _ => FAILED,
        }
    }

    #[test]
    fn x1_a_signal_to_another_process_ends_the_child() {
        alone(signals);
    }

    fn signals() {
        let ended = end_of(|message, _, _| {
            let launcher = std::str::from_utf8(message).unwrap_or_default().parse().unwrap_or(0);
            signal(launcher, launcher)
        });
        assert_eq!((ended.exit, ended.signal), (None, Some(libc::SIGSYS)));
        let ended = end_of(|_, _, _| {
            let own = std::process::id().into();
            signal(own, own)
        });
        assert_eq!(ended.exit, Some(DONE), "its own threads are its own");
    }

    #[test]
    fn x2_shared_memory_is_refused_and_private_memory_is_not() {
        alone(mappings);
    }

    fn mappings() {
        fn maps(flags: libc::c_int) -> bool {
            let (all, length) = (libc::PROT_READ | libc::PROT_WRITE, 4096);
            // SAFETY: a new mapping, which nothing else refers to.
            let mapped = unsafe {
                libc::mmap(std::ptr::null_mut(), length, all, flags | libc::MAP_ANONYMOUS, -1, 0)
            };
            mapped != libc::MAP_FAILED
        }
        let ended = end_of(|_, _, _| {
            let shared = [libc::MAP_SHARED, libc::MAP_SHARED_VALIDATE];
            match maps(libc::MAP_PRIVATE) && !shared.into_iter().any(maps) {
                true => DONE,
                false => FAILED,
            }
        });
        assert_eq!(ended.exit, Some(DONE), "{:?}", ended.signal);
    }
}
