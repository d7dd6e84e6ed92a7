//! The engine's data about a supervised process and its group.

use std::sync::Arc;
use std::time::Duration;

use super::context::{CgroupPath, SpawnContext};
use super::event::Name;
use super::ids::{GroupId, InstanceId};
use super::place::Order;
use super::request::Request;
use super::run::History;
use super::run_command::RunCommand;
use super::spec::{Commands, GroupSpec, NotifySpec, OwnSettings};
use crate::cgroup::{CgroupDir, CgroupFile, Limits};
use crate::child::Pipes;
use crate::codec::stored;
use crate::command::{Program, SpawnError};
use crate::exit::{ExitRecord, Pid};
use crate::group::{Roll, Roster};
use crate::lifecycle::{Cause, Lifecycle, Policy, StopLadder, Transition, Wanted};
use crate::time::Instant;

/// One supervised process.
pub(crate) struct Instance {
    pub(crate) group: GroupId,
    pub(crate) name: Name,
    pub(crate) life: Lifecycle,
    /// The process that is alive, or that has ended while its group may still have members.
    pub(crate) process: Option<Pid>,
    /// The host's ends of the last run's piped streams, until it takes them.
    pub(crate) pipes: Option<Pipes>,
    /// The program of this instance, if each instance of the group has its own.
    pub(crate) program: Option<Program>,
    /// The cgroup and the readiness descriptor of its next runs.
    pub(crate) context: SpawnContext,
    /// The last status message of its process.
    pub(crate) status_text: Option<Arc<str>>,
    /// The cgroup of the present process. A reload may have changed the path in `context` since.
    pub(crate) run_cgroup: Option<Arc<CgroupPath>>,
    /// The ladder that the host has given for the stop of the present run.
    pub(crate) ladder: Option<Box<StopLadder>>,
    /// How often its process reports by its own word.
    pub(crate) watchdog: Option<Duration>,
    /// The reload of its program that is under way.
    pub(crate) reload: Option<Reload>,
    /// The files that were written to the cgroup of the present process; `None` if there is none, or if another host
    /// has written them.
    pub(crate) run_files: Option<Arc<[CgroupFile]>>,
    /// Whether the host has frozen the cgroup of the present process.
    pub(crate) is_frozen: bool,
    /// The request that waits for its turn.
    pub(crate) pending: Option<Request>,
    /// The request that was pending and is being applied. A record contains it until its effect is recorded.
    pub(crate) applying: Option<Request>,
    /// Whether the pending request waits because the maximum number of spawns is in flight.
    pub(crate) is_held: bool,
    /// Whether the pending request waits for other groups ([`order`](super::order)).
    pub(crate) awaits_order: bool,
    /// Why the last request was made; `None` if the host made it.
    pub(crate) because: Option<Cause>,
    /// Why the command after the last run could not be spawned, until that is reported.
    pub(crate) after_error: Option<SpawnError>,
    /// The transition to `Starting` or `Preparing` and the exit record of the run that it ended, while the spawn waits:
    /// the event is
    /// not emitted yet.
    pub(crate) start: Option<(Transition, Option<ExitRecord>)>,
    pub(crate) history: History,
}

/// A reload of a program that the host waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reload {
    /// When the signal was sent, on `CLOCK_MONOTONIC`.
    pub(crate) since: Instant,
    /// When it has failed.
    pub(crate) until: Instant,
    /// Whether the process has reported that it reloads.
    pub(crate) has_begun: bool,
    /// When the reload began that the process has reported, if it has told.
    pub(crate) began: Option<Instant>,
}

stored!(struct Reload { since, until, has_begun, began });

impl Instance {
    pub(crate) fn new(group: GroupId, name: Name, life: Lifecycle, history: History) -> Instance {
        Instance {
            group,
            name,
            life,
            process: None,
            pipes: None,
            program: None,
            context: SpawnContext::default(),
            status_text: None,
            run_cgroup: None,
            ladder: None,
            watchdog: None,
            reload: None,
            is_frozen: false,
            run_files: None,
            pending: None,
            applying: None,
            is_held: false,
            awaits_order: false,
            because: None,
            after_error: None,
            start: None,
            history,
        }
    }
}

/// The programs that the instances of a group share.
#[derive(Default)]
pub(crate) struct GroupPrograms {
    /// The program of all instances, if they share one.
    pub(crate) program: Option<Program>,
    /// That of the command before each run.
    pub(crate) before: Option<Program>,
    /// That of the command after each run.
    pub(crate) after: Option<Program>,
}

/// A group: instances of one command.
pub(crate) struct Group {
    pub(crate) name: Arc<str>,
    pub(crate) commands: Commands,
    pub(crate) policy: Policy,
    /// The command before each run.
    pub(crate) before: Option<RunCommand>,
    /// The command after each run.
    pub(crate) after: Option<RunCommand>,
    pub(crate) programs: GroupPrograms,
    /// The directory for the cgroups of the instances; `None` if they have no cgroups.
    pub(crate) cgroup: Option<CgroupDir>,
    /// The limits of each cgroup.
    pub(crate) limits: Limits,
    /// The values that are written to the files of each cgroup.
    pub(crate) cgroup_files: Arc<[CgroupFile]>,
    /// How instances can notify the supervisor.
    pub(crate) notify: NotifySpec,
    pub(crate) roster: Roster<InstanceId>,
    /// Whether instances that are added later are started.
    pub(crate) wanted: Wanted,
    /// Whether the group is removed together with its last instance.
    pub(crate) leaving: bool,
    /// The rolling restart in progress, and the number of instances after it.
    pub(crate) roll: Option<(Roll<InstanceId>, u32)>,
    /// Its place among the other groups.
    pub(crate) order: Order,
}

impl Group {
    pub(crate) fn new(spec: GroupSpec, programs: GroupPrograms) -> Group {
        Group {
            policy: spec.policy_in_force(),
            name: spec.name,
            commands: spec.commands,
            before: spec.before,
            after: spec.after,
            cgroup: spec.cgroup,
            cgroup_files: spec.limits.files().into(),
            limits: spec.limits,
            notify: spec.notify,
            programs,
            roster: Roster::new(),
            wanted: Wanted::Down,
            leaving: false,
            roll: None,
            order: Order::default(),
        }
    }

    /// The context for the runs of the instance with this number.
    pub(crate) fn context(&self, number: u32) -> SpawnContext {
        SpawnContext {
            cgroup: self
                .cgroup
                .as_ref()
                .map(|directory| Arc::new(CgroupPath::new(directory, &self.name, number))),
            files: Arc::clone(&self.cgroup_files),
            ready_fd: self.notify.ready_fd.is_some(),
            gets_stored: true,
        }
    }

    /// The current description of the group, for `instances` instances.
    pub(crate) fn spec(&self, instances: u32) -> GroupSpec {
        GroupSpec {
            name: self.name.clone(),
            commands: self.commands.clone(),
            cgroup: self.cgroup.clone(),
            limits: self.limits.clone(),
            notify: self.notify,
            before: self.before.clone(),
            after: self.after.clone(),
            instances,
            policy: self.policy.clone(),
            order: self.order.edges.spec(),
            own: OwnSettings::default(),
        }
    }
}
