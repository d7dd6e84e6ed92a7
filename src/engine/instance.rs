//! One supervised process and its group, as the driver keeps them.

use std::sync::Arc;

use super::context::{CgroupPath, SpawnContext};
use super::event::Name;
use super::ids::{GroupId, InstanceId};
use super::request::Request;
use super::run::History;
use super::spec::{Commands, GroupSpec, NotifyAccess};
use crate::cgroup::{CgroupDir, CgroupFile};
use crate::child::Pipes;
use crate::command::Program;
use crate::exit::{ExitRecord, Pid};
use crate::group::{Roll, Roster};
use crate::lifecycle::{Lifecycle, Policy, Transition, Wanted};

/// One supervised process.
pub(crate) struct Instance {
    pub(crate) group: GroupId,
    pub(crate) name: Name,
    pub(crate) life: Lifecycle,
    /// The process that is alive, or that has ended while its group may still have members.
    pub(crate) process: Option<Pid>,
    /// The host's ends of the last run's piped streams, until it takes them.
    pub(crate) pipes: Option<Pipes>,
    /// Its own program, where the group's instances have one each.
    pub(crate) program: Option<Program>,
    /// What its runs are given.
    pub(crate) context: SpawnContext,
    /// The last status message of its process.
    pub(crate) status_text: Option<Arc<str>>,
    /// Where the process lives that there is: its place may have been changed since.
    pub(crate) run_cgroup: Option<Arc<CgroupPath>>,
    /// What waits for its turn.
    pub(crate) pending: Option<Request>,
    /// Whether the pending request waits while the maximum of spawns is in flight.
    pub(crate) is_held: bool,
    /// The transition to `Starting` and the exit record of the run that it ended, while the spawn waits: the event is not
    /// emitted yet.
    pub(crate) start: Option<(Transition, Option<ExitRecord>)>,
    pub(crate) history: History,
}

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
            pending: None,
            is_held: false,
            start: None,
            history,
        }
    }
}

/// Processes of one command.
pub(crate) struct Group {
    pub(crate) name: Arc<str>,
    pub(crate) commands: Commands,
    pub(crate) policy: Policy,
    /// The program that all instances share, if they do.
    pub(crate) program: Option<Program>,
    /// The directory for its instances' cgroups, if they are to have any.
    pub(crate) cgroup: Option<CgroupDir>,
    /// What is written into the files of each of them.
    pub(crate) cgroup_files: Arc<[CgroupFile]>,
    /// How its instances can say something about themselves.
    pub(crate) notify: NotifyAccess,
    pub(crate) roster: Roster<InstanceId>,
    /// Whether instances that are added are to be started.
    pub(crate) wanted: Wanted,
    /// It is to vanish with its last instance.
    pub(crate) leaving: bool,
    /// It is being restarted a few at a time; and how many there are to be afterwards.
    pub(crate) roll: Option<(Roll<InstanceId>, u32)>,
}

impl Group {
    pub(crate) fn new(spec: GroupSpec, program: Option<Program>) -> Group {
        Group {
            name: spec.name,
            commands: spec.commands,
            policy: spec.policy,
            cgroup: spec.cgroup,
            cgroup_files: spec.cgroup_files.into(),
            notify: spec.notify,
            program,
            roster: Roster::new(),
            wanted: Wanted::Down,
            leaving: false,
            roll: None,
        }
    }

    /// What the runs of the instance with this number are given.
    pub(crate) fn context(&self, number: u32) -> SpawnContext {
        SpawnContext {
            cgroup: self
                .cgroup
                .as_ref()
                .map(|directory| Arc::new(CgroupPath::new(directory, &self.name, number))),
            files: Arc::clone(&self.cgroup_files),
            ready_fd: self.notify.ready_fd.is_some(),
        }
    }

    /// Its description as it stands, for `instances` instances.
    pub(crate) fn spec(&self, instances: u32) -> GroupSpec {
        GroupSpec {
            name: self.name.clone(),
            commands: self.commands.clone(),
            cgroup: self.cgroup.clone(),
            cgroup_files: self.cgroup_files.to_vec(),
            notify: self.notify,
            instances,
            policy: self.policy.clone(),
        }
    }
}
