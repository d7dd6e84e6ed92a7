//! One supervised process and its group, as the driver keeps them.

use std::sync::Arc;

use super::history::History;
use super::leaves::{Home, Place};
use super::spec::{Commands, GroupSpec, Voice};
use super::{GroupId, InstanceId, Name, Request};
use crate::cgroup::{CgroupDir, CgroupFile};
use crate::child::Pipes;
use crate::command::Program;
use crate::group::{Roll, Roster};
use crate::lifecycle::{Lifecycle, Policy, Wanted};

/// One supervised process.
pub(super) struct Instance<P> {
    pub(super) group: GroupId,
    pub(super) name: Name,
    pub(super) life: Lifecycle,
    /// What is alive, or whose group is not yet known to be gone.
    pub(super) process: Option<P>,
    /// The host's ends of the last run's piped streams, until it takes them.
    pub(super) pipes: Option<Pipes>,
    /// Its own program, where the group's instances have one each.
    pub(super) program: Option<Program>,
    /// What its runs are given.
    pub(super) place: Place,
    /// What it last said about itself.
    pub(super) says: Option<Arc<str>>,
    /// Where the process lives that there is: its place may have been changed since.
    pub(super) lives_in: Option<Arc<Home>>,
    /// What waits for its turn.
    pub(super) pending: Option<Request>,
    pub(super) history: History,
}

impl<P> Instance<P> {
    pub(super) fn new(group: GroupId, name: Name, life: Lifecycle, history: History) -> Instance<P> {
        Instance {
            group,
            name,
            life,
            process: None,
            pipes: None,
            program: None,
            place: Place::default(),
            says: None,
            lives_in: None,
            pending: None,
            history,
        }
    }
}

/// Processes of one command.
pub(super) struct Group {
    pub(super) name: Arc<str>,
    pub(super) commands: Commands,
    pub(super) policy: Policy,
    /// The program that all instances share, if they do.
    pub(super) program: Option<Program>,
    /// The directory for its instances' cgroups, if they are to have any.
    pub(super) cgroup: Option<CgroupDir>,
    /// What is written into the files of each of them.
    pub(super) cgroup_files: Arc<[CgroupFile]>,
    /// How its instances can say something about themselves.
    pub(super) voice: Voice,
    pub(super) roster: Roster<InstanceId>,
    /// Whether instances that are added are to be started.
    pub(super) wanted: Wanted,
    /// It is to vanish with its last instance.
    pub(super) leaving: bool,
    /// It is being restarted a few at a time; and how many there are to be afterwards.
    pub(super) roll: Option<(Roll<InstanceId>, u32)>,
}

impl Group {
    pub(super) fn new(spec: GroupSpec, program: Option<Program>) -> Group {
        Group {
            name: spec.name,
            commands: spec.commands,
            policy: spec.policy,
            cgroup: spec.cgroup,
            cgroup_files: spec.cgroup_files.into(),
            voice: spec.voice,
            program,
            roster: Roster::new(),
            wanted: Wanted::Down,
            leaving: false,
            roll: None,
        }
    }

    /// What the runs of the instance with this number are given.
    pub(super) fn place(&self, number: u32) -> Place {
        Place {
            home: self
                .cgroup
                .as_ref()
                .map(|directory| Arc::new(Home::new(directory, &self.name, number))),
            files: Arc::clone(&self.cgroup_files),
            ready_fd: self.voice.ready_fd.is_some(),
        }
    }

    /// Its description as it stands, for `instances` instances.
    pub(super) fn spec(&self, instances: u32) -> GroupSpec {
        GroupSpec {
            name: self.name.clone(),
            commands: self.commands.clone(),
            cgroup: self.cgroup.clone(),
            cgroup_files: self.cgroup_files.to_vec(),
            voice: self.voice,
            instances,
            policy: self.policy.clone(),
        }
    }
}
