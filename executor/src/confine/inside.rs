//! What a fresh child does to itself, in the order in which each step still may: identity, file system,
//! capabilities, `no_new_privs`, Landlock; and once it is known what the child is for, limits and last the filter,
//! which forbids the rest.

use std::io;

use executor_protocol::{Isolation, Measure};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetStatus, Scope,
};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, chdir, pivot_root, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit, setsid,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, no_new_privs,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::filter::Filter;
use super::plan::{Bounds, Plan};

/// The newest Landlock rules that are asked for.
const LANDLOCK: ABI = ABI::V6;

/// The most descriptors that a child may have open.
const MOST_FILES: u64 = 64;

/// Dies with the launcher. Changing identity undoes it, so it is asked for once more afterwards.
pub(super) fn die_with_the_launcher() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// What was put on before it was known what the child is for.
pub(super) struct Prepared {
    namespaces: Measure,
    empty_root: Measure,
    no_capabilities: Measure,
    landlock: Measure,
}

/// Puts on all that depends on no task. What cannot be put on stands in the answer; the error names what must not
/// be missing.
pub(super) fn prepare(plan: &Plan) -> Result<Prepared, String> {
    let identity = take_identity(plan);
    die_with_the_launcher().map_err(|e| format!("death signal: {e}"))?;
    // A child of the clone with a pid namespace is its first process; without one, the launcher's session is left.
    let _ = setsid();
    let empty_root = if plan.has_mounts() {
        measure(empty_root())
    } else {
        Measure::NotEnforced("no mount namespace".to_owned())
    };
    let no_capabilities = measure(drop_capabilities());
    set_no_new_privs(true)
        .and_then(|()| no_new_privs())
        .map_err(|e| format!("no_new_privs: {e}"))
        .and_then(|on| on.then_some(()).ok_or_else(|| "no_new_privs: not set".to_owned()))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| format!("dumpable: {e}"))?;
    let landlock = match deny_files() {
        Ok(RulesetStatus::FullyEnforced) => Measure::Enforced,
        Ok(RulesetStatus::PartiallyEnforced) => {
            Measure::NotEnforced("only in part: this kernel's Landlock is older".to_owned())
        }
        Ok(RulesetStatus::NotEnforced) => {
            Measure::NotEnforced("this kernel has no Landlock".to_owned())
        }
        Err(error) => Measure::NotEnforced(error.to_string()),
    };
    let namespaces = match (identity, plan.namespaces()) {
        (Ok(()), namespaces) => namespaces,
        (Err(error), Measure::Enforced) => {
            Measure::NotEnforced(format!("no identity of its own: {error}"))
        }
        (Err(error), Measure::NotEnforced(reason)) => {
            Measure::NotEnforced(format!("{reason}; no identity of its own: {error}"))
        }
    };
    Ok(Prepared { namespaces, empty_root, no_capabilities, landlock })
}

/// Puts on the rest, by the task's bounds, and last the filter.
pub(super) fn finish(
    prepared: Prepared,
    plan: &Plan,
    bounds: &Bounds,
    filter: &Filter,
    cgroup: Measure,
) -> Result<Isolation, String> {
    limit(plan, bounds).map_err(|e| format!("rlimits: {e}"))?;
    filter.apply().map_err(|e| format!("seccomp: {e}"))?;
    let Prepared { namespaces, empty_root, no_capabilities, landlock } = prepared;
    Ok(Isolation {
        namespaces,
        empty_root,
        no_capabilities,
        no_new_privs: Measure::Enforced,
        seccomp: Measure::Enforced,
        landlock,
        rlimits: match plan.has_users() {
            true => Measure::Enforced,
            false => Measure::NotEnforced(
                "all but the number of threads: without a user namespace it would count everybody's"
                    .to_owned(),
            ),
        },
        cgroup,
    })
}

fn measure(done: io::Result<()>) -> Measure {
    match done {
        Ok(()) => Measure::Enforced,
        Err(error) => Measure::NotEnforced(error.to_string()),
    }
}

fn take_identity(plan: &Plan) -> io::Result<()> {
    let Some((uid, gid)) = plan.identity() else {
        return Ok(());
    };
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Replaces the root with an empty, read-only file system. It is mounted over `/proc`, which is there (the launcher
/// needs it) and which nothing needs from here on.
fn empty_root() -> io::Result<()> {
    let named = |what: &'static str| {
        move |error: rustix::io::Errno| io::Error::other(format!("{what}: {error}"))
    };
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(named("private mounts"))?;
    mount("tmpfs", "/proc", "tmpfs", flags, c"size=4k,nr_inodes=2,mode=0555")
        .map_err(named("tmpfs"))?;
    chdir("/proc").map_err(named("chdir"))?;
    pivot_root(".", ".").map_err(named("pivot_root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(named("unmount"))?;
    chdir("/").map_err(named("chdir"))?;
    mount_remount("/", MountFlags::BIND | MountFlags::RDONLY | flags, "")
        .map_err(named("read-only"))
}

fn limit(plan: &Plan, bounds: &Bounds) -> io::Result<()> {
    let both = |value: u64| Rlimit { current: Some(value), maximum: Some(value) };
    let mut limits = vec![
        (Resource::Core, both(0)),
        (Resource::Nofile, both(MOST_FILES)),
        (Resource::Fsize, both(bounds.file_bytes)),
        (Resource::Memlock, both(0)),
        (Resource::Msgqueue, both(0)),
        (Resource::Data, both(bounds.data_bytes)),
        (Resource::Cpu, Rlimit { current: Some(bounds.cpu_s), maximum: Some(bounds.cpu_s + 1) }),
    ];
    if plan.has_users() {
        // Counted per user and user namespace: without one of its own it would count everybody's processes.
        limits.push((Resource::Nproc, both(bounds.threads)));
    }
    for (resource, wanted) in limits {
        let hard = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let lower = |value: Option<u64>| value.map(|value| value.min(hard));
        setrlimit(
            resource,
            Rlimit { current: lower(wanted.current), maximum: lower(wanted.maximum) },
        )?;
    }
    Ok(())
}

fn drop_capabilities() -> io::Result<()> {
    let mut kept = None;
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // Unknown to this kernel.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => kept = Some(error),
        }
    }
    clear_ambient_capability_set()?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none)?;
    if capabilities(None)? != none {
        return Err(io::Error::other("some are left"));
    }
    match kept {
        None => Ok(()),
        Some(error) => Err(io::Error::other(format!(
            "the bounding set, which no_new_privs makes useless, stays: {error}"
        ))),
    }
}

/// Landlock rules without a single exception.
fn deny_files() -> Result<RulesetStatus, landlock::RulesetError> {
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset)
}
