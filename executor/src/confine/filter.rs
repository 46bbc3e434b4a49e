//! The system-call filter of a child: what is listed is allowed, what only an attack would use ends the process,
//! and anything else fails with ENOSYS, so that a library's harmless question (for example for a file of `/proc`)
//! is answered with an error and not with death, and so that the C library takes clone(2), whose flags can be looked
//! at, instead of clone3(2), whose cannot.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// The two programs, in the order in which they are put on. The kernel takes the stricter answer.
pub(crate) struct Filter {
    programs: [BpfProgram; 2],
}

/// Allowed with any argument: memory, the given descriptors, time, threads of this process, its end.
const ALLOWED: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
];

/// Nothing in a child has any use for these: whoever calls them is no longer our code.
const DEADLY: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_writev,
    libc::SYS_socket,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
];

/// The part of mmap's flags that says what kind of mapping it is.
const MAPPING_KINDS: u64 = 0x0f;
/// What `clone` must have: a thread of this process.
const THREAD: u64 = libc::CLONE_THREAD as u64;
/// What it must not have: a namespace of its own.
const NAMESPACES: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP) as u64;

impl Filter {
    /// Compiles the filter for this processor. Done once, by the launcher.
    pub(crate) fn compile() -> Result<Self, seccompiler::BackendError> {
        let arch = std::env::consts::ARCH.try_into()?;
        let plain = |calls: &[i64]| -> BTreeMap<i64, Vec<SeccompRule>> {
            calls.iter().map(|call| (*call, Vec::new())).collect()
        };
        let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());

        let mut allowed = plain(ALLOWED);
        let thread = SeccompRule::new(vec![SeccompCondition::new(
            0,
            SeccompCmpArgLen::Qword,
            SeccompCmpOp::MaskedEq(THREAD | NAMESPACES),
            THREAD,
        )?])?;
        allowed.insert(libc::SYS_clone, vec![thread]);
        allowed.insert(
            libc::SYS_prctl,
            vec![
                one(0, SeccompCmpOp::Eq, libc::PR_SET_NAME.into())?,
                one(0, SeccompCmpOp::Eq, libc::PR_SET_VMA.into())?,
            ],
        );
        allowed.insert(
            libc::SYS_fcntl,
            vec![
                one(1, SeccompCmpOp::Eq, libc::F_GETFD.into())?,
                one(1, SeccompCmpOp::Eq, libc::F_GETFL.into())?,
                one(1, SeccompCmpOp::Eq, libc::F_DUPFD_CLOEXEC.into())?,
            ],
        );
        // abort(3) and thread-directed signals, to this process alone: see `own_signals`.
        allowed.insert(libc::SYS_tgkill, Vec::new());
        // Shared memory is not counted by the limit on writable memory, and nothing here needs it.
        let private = one(3, SeccompCmpOp::MaskedEq(MAPPING_KINDS), libc::MAP_PRIVATE.into())?;
        allowed.insert(libc::SYS_mmap, vec![private]);

        let program = |rules, mismatch, matched| {
            SeccompFilter::new(rules, mismatch, matched, arch)?.try_into()
        };
        let allow = || SeccompAction::Allow;
        Ok(Self {
            programs: [
                program(plain(DEADLY), allow(), SeccompAction::KillProcess)?,
                program(allowed, missing, allow())?,
            ],
        })
    }

    /// Puts the filter on this process, for good. Sets `no_new_privs` as well.
    pub(crate) fn apply(&self) -> Result<(), seccompiler::Error> {
        seccompiler::apply_filter(&own_signals().map_err(seccompiler::Error::Backend)?)?;
        self.programs.iter().try_for_each(|program| seccompiler::apply_filter(program))
    }
}

/// A rule about one argument, as a number of 32 bits.
fn one(
    argument: u8,
    operator: SeccompCmpOp,
    value: i64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    let length = SeccompCmpArgLen::Dword;
    SeccompRule::new(vec![SeccompCondition::new(argument, length, operator, value.unsigned_abs())?])
}

/// A signal to another process ends this one: without a pid namespace its siblings and the launcher are in reach.
fn own_signals() -> Result<BpfProgram, seccompiler::BackendError> {
    let other = one(0, SeccompCmpOp::Ne, std::process::id().into())?;
    let rules = BTreeMap::from([(libc::SYS_tgkill, vec![other])]);
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::KillProcess, arch)?.try_into()
}
