//! What bounds a child, and the ways to start one, the best first.

use executor_protocol::launcher::{GRACE_MS, Step};
use executor_protocol::{Limits, Measure};
use rustix::process::{Gid, Uid, geteuid};
use serde::{Deserialize, Serialize};

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
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Bounds {
    pub(super) data_bytes: u64,
    pub(super) cgroup_bytes: u64,
    pub(super) file_bytes: u64,
    pub(super) cpu_s: u64,
    pub(super) threads: u64,
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
    pub(super) flags: i32,
    /// The user and group that the child becomes; none: it stays who the launcher is.
    pub(super) identity: Option<(u32, u32)>,
}

impl Plan {
    pub(super) fn has_users(&self) -> bool {
        self.flags & libc::CLONE_NEWUSER != 0
    }

    pub(super) fn has_mounts(&self) -> bool {
        self.flags & libc::CLONE_NEWNS != 0
    }

    pub(super) fn identity(&self) -> Option<(Uid, Gid)> {
        self.identity.map(|(uid, gid)| (Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    pub(super) fn namespaces(&self) -> Measure {
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
    pub(super) fn all() -> Vec<Self> {
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
