//! What can be wrong with a request, before anything has been done about it.

use std::io;

use super::{GroupId, InstanceId};
use crate::cgroup::CgroupError;
use crate::command::CommandError;
use crate::errno::Reason;
use crate::lifecycle::PolicyError;
use crate::owner::OtherProcess;
use crate::signal::Signal;

/// Why a call of the [`Supervisor`](super::Supervisor) did nothing; but for [`Error::Io`], which may be about what
/// comes after it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such group, or no longer.
    #[error("there is no group {0:?}")]
    UnknownGroup(GroupId),
    /// No such instance, or no longer.
    #[error("there is no instance {0:?}")]
    UnknownInstance(InstanceId),
    /// The group is being removed, and takes no more wishes.
    #[error("group {0:?} is being removed")]
    Leaving(GroupId),
    /// Its group was scaled down: the instance is being stopped for good.
    #[error("instance {0:?} is leaving its group")]
    LeavingInstance(InstanceId),
    /// The group is being restarted a few at a time; until that is over its size is fixed.
    #[error("group {0:?} is in a rolling restart")]
    Rolling(GroupId),
    /// A rolling restart during which none may be down never gets anywhere.
    #[error("a rolling restart with none unavailable")]
    NoneUnavailable,
    /// [`shutdown`](super::Supervisor::shutdown) was called: nothing is started any more.
    #[error("shutting down: nothing is started any more")]
    ShuttingDown,
    /// There is no process that the signal could go to.
    #[error("instance {0:?} has no process")]
    NotAlive(InstanceId),
    /// The kernel refused to deliver a signal (kill(2)).
    #[error("cannot send {signal} to instance {instance:?}: {}", Reason(.source))]
    Signal {
        /// To whom.
        instance: InstanceId,
        /// What.
        signal: Signal,
        /// Why not.
        source: io::Error,
    },
    /// The supervisor was built in another process, of which the calling process is a copy (fork(2)). The children are
    /// that process's, and so are the signals that it waits for. A host that becomes a daemon builds the supervisor
    /// afterwards.
    #[error("the supervisor was built in another process: a copy that fork(2) made cannot use it")]
    OtherProcess,
    /// The group cannot be as described.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The kernel refused a descriptor operation that the set or its timer needs.
    #[error("the descriptor set failed: {}", Reason(.0))]
    Io(#[from] io::Error),
}

impl From<OtherProcess> for Error {
    fn from(_: OtherProcess) -> Error {
        Error::OtherProcess
    }
}

/// What is wrong with a [`GroupSpec`](super::GroupSpec).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A group has at least one instance.
    #[error("a group of no instances")]
    NoInstances,
    /// More than [`GroupSpec::MOST_INSTANCES`](super::GroupSpec::MOST_INSTANCES).
    #[error("{0} instances: a group can have {max} at most", max = super::GroupSpec::MOST_INSTANCES)]
    TooManyInstances(u32),
    /// A command cannot be run as it is described.
    #[error("instance {number}: {error}")]
    Command {
        /// Whose.
        number: u32,
        /// What is wrong with it.
        error: CommandError,
    },
    /// The policy stops a process group, and the command does not make the process lead one: the signals would reach
    /// the host, or the processes of another group.
    #[error("instance {number}: the stop ladder's scope is a process group, and the command makes none of its own")]
    NoProcessGroup {
        /// Whose command.
        number: u32,
    },
    /// The policy stops a cgroup, and the group was given no directory for cgroups.
    #[error("the stop ladder's scope is a cgroup, and the group has no directory for cgroups")]
    NoCgroup,
    /// The group's name can't be a part of a cgroup's, or the files of its instances' cgroups can't be written as
    /// described.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A file of the instances' cgroups is to be written, and the group was given no directory for cgroups.
    #[error("the cgroup file {0:?} is to be written, and the group has no directory for cgroups")]
    CgroupFile(String),
    /// Another group of the same name has its cgroups in the same directory.
    #[error("another group {0:?} has its cgroups in the same directory")]
    CgroupTaken(String),
    /// The policy makes no sense.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}
