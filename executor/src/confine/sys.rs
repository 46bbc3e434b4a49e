//! The system calls that have no safe form elsewhere: the only unsafe code of this crate's confinement.
#![expect(
    unsafe_code,
    reason = "clone3, close_range, waitid with usage, _exit and descriptors by number"
)]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};

/// The two sides of [`clone_child`].
pub(crate) enum Cloned {
    /// In the caller: the child's process id and its pidfd.
    Parent {
        /// As the caller sees it.
        pid: i32,
        /// Readable when the child has ended.
        pidfd: OwnedFd,
    },
    /// In the child.
    Child,
}

/// Clones this process, like fork(2), into the new namespaces that `flags` names.
///
/// The caller must have one thread only: the child keeps the calling thread alone, and a lock held by another would
/// stay held for ever. The launcher starts none, and this refuses when it finds another.
pub(crate) fn clone_child(flags: u64) -> io::Result<Cloned> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the launcher has more than one thread"));
    }
    let mut pidfd: RawFd = -1;
    let pidfd_address = &raw mut pidfd as u64;
    // SAFETY: `clone_args` is a plain structure of integers, for which zeros are valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags | libc::CLONE_PIDFD as u64;
    arguments.pidfd = pidfd_address;
    arguments.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: the structure and its size belong together; without CLONE_VM and without a stack the child continues
    // on a copy of this stack, exactly as after fork(2); `pidfd` outlives the call; there is one thread (above).
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>())
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        pid => Ok(Cloned::Parent {
            pid: i32::try_from(pid).map_err(io::Error::other)?,
            // SAFETY: the kernel has just written a new descriptor there, which nobody else owns.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

/// Ends this process now: no destructors, no exit handlers (they are the launcher's, not the child's).
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions and does not return.
    unsafe { libc::_exit(code) }
}

/// Puts descriptors at the numbers from 0 on, in their order, and closes every other one. What was open there before
/// is closed under its owner: for a fresh child only, which never uses or drops what it inherited.
/// The first three stay open for good; the rest is answered.
pub(crate) fn keep_only(descriptors: Vec<OwnedFd>) -> io::Result<Vec<OwnedFd>> {
    let beyond = RawFd::try_from(descriptors.len()).map_err(io::Error::other)?;
    let mut moved = Vec::with_capacity(descriptors.len());
    for descriptor in descriptors {
        // First out of the way of the places to fill; close_range below closes the old numbers.
        moved.push(rustix::io::fcntl_dupfd_cloexec(&descriptor, beyond)?.into_raw_fd());
        let _ = descriptor.into_raw_fd();
    }
    let mut placed = Vec::with_capacity(moved.len());
    for (place, aside) in (0..).zip(moved) {
        // SAFETY: dup3(2) takes two numbers; what was open at `place` is the launcher's copy, which this process
        // never uses again.
        if unsafe { libc::dup3(aside, place, libc::O_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        if place > 2 {
            // SAFETY: `place` was just made and has no other owner in this process.
            placed.push(unsafe { OwnedFd::from_raw_fd(place) });
        }
    }
    // SAFETY: closes numbers that have no owner left which would use or close them: everything this process goes on
    // with lies below `beyond`.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            libc::c_uint::try_from(beyond).map_err(io::Error::other)?,
            libc::c_uint::MAX,
            0 as libc::c_uint,
        )
    };
    if answer == 0 { Ok(placed) } else { Err(io::Error::last_os_error()) }
}

/// How a child ended, with what it used.
pub(crate) struct Ended {
    /// The exit code.
    pub(crate) exit: Option<i32>,
    /// The signal, if one ended it.
    pub(crate) signal: Option<i32>,
    /// Processor time, in microseconds.
    pub(crate) cpu_us: u64,
    /// Largest resident memory, in bytes.
    pub(crate) peak_memory_bytes: u64,
}

/// Takes the exit status of the child behind a pidfd; none while it lives.
pub(crate) fn reap(pidfd: &OwnedFd) -> io::Result<Option<Ended>> {
    // SAFETY: both are plain structures of integers, for which zeros are valid.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    // SAFETY: both structures outlive the call and have the layout that the kernel writes.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::P_PIDFD,
            pidfd.as_raw_fd(),
            &raw mut info,
            libc::WEXITED | libc::WNOHANG,
            &raw mut usage,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: waitid(2) fills the child fields of the union, or leaves the zeros.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let exited = info.si_code == libc::CLD_EXITED;
    let microseconds =
        |time: libc::timeval| (time.tv_sec * 1_000_000 + time.tv_usec).unsigned_abs();
    Ok(Some(Ended {
        exit: exited.then_some(status),
        signal: (!exited).then_some(status),
        cpu_us: microseconds(usage.ru_utime) + microseconds(usage.ru_stime),
        peak_memory_bytes: usage.ru_maxrss.unsigned_abs() * 1024,
    }))
}

/// Leaves it to the coordinator when to end: a terminal's or a supervisor's signal to the whole group does nothing
/// here. The end of a child is not ignored, whatever was inherited.
pub(crate) fn leave_signals_to_the_coordinator() {
    for (signal, action) in [
        (libc::SIGINT, libc::SIG_IGN),
        (libc::SIGTERM, libc::SIG_IGN),
        (libc::SIGHUP, libc::SIG_IGN),
        (libc::SIGPIPE, libc::SIG_IGN),
        (libc::SIGCHLD, libc::SIG_DFL),
    ] {
        // SAFETY: no handler of ours is installed, so nothing runs in signal context.
        unsafe { libc::signal(signal, action) };
    }
}
