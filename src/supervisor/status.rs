//! How things stand, as plain data that a host can keep.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::request::Request;
use super::{GroupId, InstanceId, Name};
use crate::command::SpawnError;
use crate::exit::{ExitRecord, Pid};
use crate::lifecycle::{State, Wanted};

/// How one instance stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Which.
    pub instance: InstanceId,
    /// Its group.
    pub group: GroupId,
    /// Its group's name and its number in it.
    pub name: Name,
    /// Its state, with what belongs to it.
    pub state: State,
    /// What the host wishes for it.
    pub wanted: Wanted,
    /// A request that waits for its turn, after a command that concerned very many.
    pub pending: Option<Request>,
    /// Its process, if it has one.
    pub pid: Option<Pid>,
    /// How long that process has been up.
    pub uptime: Option<Duration>,
    /// How many times it was spawned, or tried to be.
    pub runs: u64,
    /// Failed starts in a row.
    pub failed_starts: u32,
    /// Automatic restarts since it was last stable or started by hand.
    pub restarts: u32,
    /// When the last run was spawned; for showing.
    pub started_at: Option<SystemTime>,
    /// When the last run ended, unless it is alive; for showing.
    pub ended_at: Option<SystemTime>,
    /// How long the last run lasted, unless it is alive.
    pub lasted: Option<Duration>,
    /// How the last process ended.
    pub last_exit: Option<ExitRecord>,
    /// Why the last spawn failed, if it did.
    pub last_error: Option<SpawnError>,
    /// What it last said about itself (`STATUS=` to the notify socket), in this run.
    pub says: Option<Arc<str>>,
}

/// How a group stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupStatus {
    /// Which.
    pub group: GroupId,
    /// Its name.
    pub name: Arc<str>,
    /// How many instances it is to have.
    pub target: u32,
    /// Whether it is to be up: instances that are added are then started.
    pub wanted: Wanted,
    /// Its instances by number; those from `target` up are leaving.
    pub instances: Vec<InstanceId>,
    /// Whether it is being removed.
    pub leaving: bool,
}
