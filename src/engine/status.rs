//! The status of instances and groups, as plain data that a host can keep.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::event::Name;
use super::ids::{GroupId, InstanceId};
use super::request::Request;
use crate::command::SpawnError;
use crate::exit::{ExitRecord, Pid};
use crate::lifecycle::{State, Wanted};

/// The status of an instance.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Status {
    /// The instance concerned.
    pub instance: InstanceId,
    /// The group of the instance.
    pub group: GroupId,
    /// The group's name and the instance's number.
    pub name: Name,
    /// The state, with the data of that state.
    pub state: State,
    /// Whether the host wants the instance up or down.
    pub wanted: Wanted,
    /// A request that waits for its turn after a command for many instances; `None` if there is none.
    pub pending: Option<Request>,
    /// The groups that the pending request waits for ([`GroupSpec::after`](crate::GroupSpec::after),
    /// [`GroupSpec::requires`](crate::GroupSpec::requires)): a start for those before this one, a stop for those after
    /// it. Empty if nothing waits for another group.
    pub waits_for: Vec<GroupId>,
    /// The process: that of the program, or of the command before or after the run. `None` if there is none.
    pub pid: Option<Pid>,
    /// How long the process has been up; `None` if there is none.
    pub uptime: Option<Duration>,
    /// How many runs there were, including failed spawns.
    pub runs: u64,
    /// The number of failed starts in a row.
    pub failed_starts: u32,
    /// The number of automatic restarts since the instance was last stable or started by a request.
    pub restarts: u32,
    /// When the last run was spawned, on the wall clock, for display; `None` before the first run.
    pub started_at: Option<SystemTime>,
    /// When the last run ended, on the wall clock, for display; `None` during a run.
    pub ended_at: Option<SystemTime>,
    /// How long the last run lasted; `None` during a run.
    pub lasted: Option<Duration>,
    /// How the last process ended; `None` if none has ended.
    pub last_exit: Option<ExitRecord>,
    /// Why the last spawn failed; `None` if it succeeded.
    pub last_error: Option<SpawnError>,
    /// Whether the host has [frozen](crate::Supervisor::freeze) the instance.
    pub is_frozen: bool,
    /// The process's last status message in this run (`STATUS=` to the notify socket).
    pub status_text: Option<Arc<str>>,
}

/// The status of a group.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct GroupStatus {
    /// The group concerned.
    pub group: GroupId,
    /// The name of the group.
    pub name: Arc<str>,
    /// The number of instances that the group should have.
    pub target: u32,
    /// Whether the host wants the group up. If so, added instances are started.
    pub wanted: Wanted,
    /// The instances by number. Those with the number `target` or higher are leaving.
    pub instances: Vec<InstanceId>,
    /// Whether the group is being removed.
    pub leaving: bool,
    /// The groups that it comes after.
    pub after: Vec<GroupId>,
    /// The groups that it requires.
    pub requires: Vec<GroupId>,
}
