//! The engine's data about a supervised process and its group.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::context::{CgroupPath, SpawnContext};
use super::event::Name;
use super::history::History;
use super::ids::{GroupId, InstanceId};
use super::place::{Order, OrderSpec};
use super::request::Request;
use super::run_command::RunCommand;
use super::spec::{Commands, GroupSpec, NotifySpec, OwnSettings};
use super::stop_of::StopCommand;
use crate::cgroup::{CgroupDir, CgroupFile, CgroupUsage, Limits};
use crate::child::Pipes;
use crate::codec::stored;
use crate::command::{Command, Program, SpawnError};
use crate::exit::{ExitRecord, Pid};
use crate::group::{Roll, Roster};
use crate::lifecycle::{Cause, Lifecycle, Policy, StateName, StopLadder, Transition, Wanted};
use crate::time::Instant;

/// One supervised process. What only some instances have is in its [`Extra`], which can be read like fields of the
/// instance.
pub(crate) struct Instance {
    pub(crate) group: GroupId,
    pub(crate) name: Name,
    pub(crate) life: Lifecycle,
    /// The process that is alive, or that has ended while its group may still have members.
    pub(crate) process: Option<Pid>,
    /// The program of this instance, if each instance of the group has its own.
    pub(crate) program: Option<Program>,
    /// The cgroup and the readiness descriptor of its next runs.
    pub(crate) context: Arc<SpawnContext>,
    /// Whether the host can take the pipes of the last run. Most runs have none.
    pub(crate) has_pipes: bool,
    /// Whether it has its places in the lists of what runs ([`room`](super::room)).
    pub(super) has_room: bool,
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
    /// Whether it is still to be told that a sibling has ended ([`siblings`](super::siblings)).
    pub(super) is_untold: bool,
    /// The transition to `Starting` or `Preparing` while the spawn waits: the event is not emitted yet.
    pub(crate) start: Option<Start>,
    pub(crate) history: History,
    pub(super) extra: Option<Box<Extra>>,
}

/// A transition without an emitted event yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) from: StateName,
    pub(crate) to: StateName,
    /// Whether it ended a run with an exit record, which is the last one.
    pub(crate) has_exit: bool,
    pub(crate) cause: Cause,
}

impl Start {
    pub(crate) const fn new(step: Transition, exit: Option<&ExitRecord>) -> Start {
        let Transition { from, to, cause } = step;
        Start {
            from,
            to,
            has_exit: exit.is_some(),
            cause,
        }
    }

    pub(crate) const fn step(&self) -> Transition {
        let Start { from, to, cause, .. } = *self;
        Transition { from, to, cause }
    }
}

/// What only some instances have: those of groups with certain settings, and those that something rare has happened to.
/// An instance keeps it from the first time on, so that no later restart allocates it again.
#[derive(Default)]
pub(crate) struct Extra {
    /// The host's ends of the last run's piped streams, until it takes them.
    pub(super) pipes: Option<Pipes>,
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
    /// Why the last request was made; `None` if the host made it.
    pub(crate) because: Option<Cause>,
    /// Why the command after the last run could not be spawned, until that is reported.
    pub(crate) after_error: Option<SpawnError>,
    /// The instance of the commands that its stop runs.
    pub(crate) stopper: Option<InstanceId>,
    /// What makes this the instance of a stop command.
    pub(crate) stop_command: Option<Box<StopCommand>>,
    /// The usage of the cgroup of a run that has ended, while a command of its stop runs.
    pub(crate) usage: Option<CgroupUsage>,
}

/// That of most instances.
static NO_EXTRA: Extra = Extra {
    pipes: None,
    status_text: None,
    run_cgroup: None,
    ladder: None,
    watchdog: None,
    reload: None,
    run_files: None,
    because: None,
    after_error: None,
    stopper: None,
    stop_command: None,
    usage: None,
};

/// The pipes of most runs.
static NO_PIPES: Pipes = Pipes::none();

/// The fields of the [`Extra`] can be read. A change tells whether it may need the memory: [`Instance::extra_mut`] or
/// [`Instance::known_extra`].
impl Deref for Instance {
    type Target = Extra;

    fn deref(&self) -> &Extra {
        self.extra.as_deref().unwrap_or(&NO_EXTRA)
    }
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
            program: None,
            context: Arc::default(),
            has_pipes: false,
            has_room: false,
            is_frozen: false,
            pending: None,
            applying: None,
            is_held: false,
            awaits_order: false,
            is_untold: false,
            start: None,
            history,
            extra: None,
        }
    }

    /// The same instance with this; an empty one takes no memory.
    pub(crate) fn with_extra(self, extra: Extra) -> Instance {
        let extra = (!extra.is_empty()).then(|| Box::new(extra));
        Instance { extra, ..self }
    }

    /// The lifecycle, for an input, and what its reaction depends on.
    pub(crate) fn life_and_extra(&mut self) -> (&mut Lifecycle, &Extra) {
        (&mut self.life, self.extra.as_deref().unwrap_or(&NO_EXTRA))
    }

    /// What only some instances have, for a change that makes this one of them.
    pub(crate) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// What only some instances have, for a change that removes something from it. `None` if it has nothing.
    pub(crate) fn known_extra(&mut self) -> Option<&mut Extra> {
        self.extra.as_deref_mut()
    }

    /// What only some instances have, for a change to a value that most have not. `None` if nothing need be changed.
    pub(crate) fn extra_for<T>(&mut self, value: Option<&T>) -> Option<&mut Extra> {
        if value.is_some() {
            return Some(self.extra_mut());
        }
        self.known_extra()
    }

    /// The pipes that the host has not taken.
    pub(crate) fn pipes(&self) -> Option<&Pipes> {
        self.has_pipes.then(|| self.pipes.as_ref().unwrap_or(&NO_PIPES))
    }

    pub(crate) fn set_pipes(&mut self, pipes: Option<Pipes>) {
        self.has_pipes = pipes.is_some();
        let pipes = pipes.filter(|pipes| !pipes.is_empty());
        if let Some(extra) = self.extra_for(pipes.as_ref()) {
            extra.pipes = pipes;
        }
    }

    pub(crate) fn take_pipes(&mut self) -> Option<Pipes> {
        let taken = self.known_extra().and_then(|extra| extra.pipes.take());
        std::mem::take(&mut self.has_pipes).then(|| taken.unwrap_or_default())
    }

    pub(crate) fn set_because(&mut self, because: Option<Cause>) {
        if let Some(extra) = self.extra_for(because.as_ref()) {
            extra.because = because;
        }
    }

    pub(crate) fn set_run_cgroup(&mut self, run_cgroup: Option<Arc<CgroupPath>>) {
        if let Some(extra) = self.extra_for(run_cgroup.as_ref()) {
            extra.run_cgroup = run_cgroup;
        }
    }

    /// Notes the cgroup of the process that was spawned, and the files that were written to it.
    pub(crate) fn enter_cgroup(&mut self) {
        let context = Arc::clone(&self.context);
        if let Some(extra) = self.extra_for(context.cgroup.as_ref()) {
            extra.run_cgroup.clone_from(&context.cgroup);
            extra.run_files = context.cgroup.as_ref().map(|_| Arc::clone(&context.files));
        }
    }
}

impl Extra {
    const fn is_empty(&self) -> bool {
        let Extra {
            pipes: None,
            status_text: None,
            run_cgroup: None,
            ladder: None,
            watchdog: None,
            reload: None,
            run_files: None,
            because: None,
            after_error: None,
            stopper: None,
            stop_command: None,
            usage: None,
        } = self
        else {
            return false;
        };
        true
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
    /// Those of the stop commands.
    pub(crate) stop: Vec<Program>,
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
    /// The commands that the ladders of its stops can run.
    pub(crate) stop_commands: Vec<Command>,
    pub(crate) programs: GroupPrograms,
    /// The directory for the cgroups of the instances; `None` if they have no cgroups.
    pub(crate) cgroup: Option<CgroupDir>,
    /// The limits of each cgroup.
    pub(crate) limits: Limits,
    /// The values that are written to the files of each cgroup.
    pub(crate) cgroup_files: Arc<[CgroupFile]>,
    /// How instances can notify the supervisor.
    pub(crate) notify: NotifySpec,
    /// The context of the runs, but for the cgroup.
    pub(super) context: Arc<SpawnContext>,
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
        let cgroup_files: Arc<[CgroupFile]> = spec.limits.files().into();
        let context = SpawnContext {
            cgroup: None,
            files: Arc::clone(&cgroup_files),
            ready_fd: spec.notify.ready_fd.is_some(),
            gets_stored: true,
        };
        Group {
            policy: spec.policy_in_force(),
            name: spec.name,
            commands: spec.commands,
            before: spec.before,
            after: spec.after,
            stop_commands: spec.stop_commands,
            cgroup: spec.cgroup,
            cgroup_files,
            context: context.into(),
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

    /// The context for the runs of the instance with this number. Instances without cgroups share it.
    pub(crate) fn context(&self, number: u32) -> Arc<SpawnContext> {
        let Some(directory) = &self.cgroup else {
            return Arc::clone(&self.context);
        };
        let path = CgroupPath::new(directory, &self.name, number);
        Arc::new(SpawnContext {
            cgroup: Some(Arc::new(path)),
            ..SpawnContext::clone(&self.context)
        })
    }

    /// The current description of the group, for `instances` instances. The group keeps its place in the order.
    pub(crate) fn spec(&self, instances: u32) -> GroupSpec {
        GroupSpec {
            name: self.name.clone(),
            commands: self.commands.clone(),
            cgroup: self.cgroup.clone(),
            limits: self.limits.clone(),
            notify: self.notify,
            before: self.before.clone(),
            after: self.after.clone(),
            stop_commands: self.stop_commands.clone(),
            instances,
            policy: self.policy.clone(),
            order: OrderSpec::default(),
            own: OwnSettings::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::arena::Arena;

    #[test]
    fn what_few_runs_have_takes_no_memory_when_there_is_none() {
        let group = Arena::<GroupId, ()>::new(0).insert(());
        let name = Name {
            group: "x".into(),
            number: 0,
        };
        let instance = Instance::new(group, name, Lifecycle::new(&Policy::default(), 0), History::new(0));
        let text = Extra {
            status_text: Some("ready".into()),
            ..Extra::default()
        };
        let instance = instance.with_extra(text);
        assert_eq!(instance.status_text.as_deref(), Some("ready"));
        assert!(instance.with_extra(Extra::default()).extra.is_none());
    }
}
