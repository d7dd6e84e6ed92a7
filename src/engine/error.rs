//! Errors of the supervisor's calls. They are returned before anything is done.

use std::io;

use super::ids::{GroupId, InstanceId};
use super::place::GroupRef;
use crate::cgroup::CgroupError;
use crate::command::CommandError;
use crate::errno::Reason;
use crate::lifecycle::{Part, PolicyError};
use crate::owner::OtherProcess;
use crate::signal::Signal;

/// Why a call of the [`Supervisor`](crate::supervisor::Supervisor) did nothing. [`Error::Io`] is the exception: it may
/// be returned after the work is done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The group does not exist, or was removed.
    #[error("there is no group {0}")]
    UnknownGroup(GroupId),
    /// The instance does not exist, or was removed.
    #[error("there is no instance {0}")]
    UnknownInstance(InstanceId),
    /// The group is being removed, and accepts no request that starts or changes it.
    #[error("group {0} cannot be started or changed: it is being removed")]
    Leaving(GroupId),
    /// The group was scaled down, and the instance is being stopped for good.
    #[error("instance {0} cannot be started: it is being removed from its group")]
    LeavingInstance(InstanceId),
    /// Another group requires the group, which cannot be removed before that one
    /// ([`GroupSpec::requires`](super::spec::GroupSpec::requires)).
    #[error("group {group} cannot be removed: group {by} requires it")]
    Required {
        /// The group that was to be removed.
        group: GroupId,
        /// A group that requires it.
        by: GroupId,
    },
    /// The group is in a rolling restart, and its size is fixed until the end of it.
    #[error("group {0} cannot be resized or reloaded: it is in a rolling restart")]
    Rolling(GroupId),
    /// A rolling restart with no unavailable instance allowed can make no progress.
    #[error("a rolling restart cannot make progress: it allows no unavailable instance")]
    NoneUnavailable,
    /// [`shutdown`](crate::supervisor::Supervisor::shutdown) was called, and no process is started any more.
    #[error("the supervisor cannot start a process or change a group: it is shutting down")]
    ShuttingDown,
    /// The instance has no process in a state that the call applies to.
    #[error("instance {0} has no process")]
    NotAlive(InstanceId),
    /// The instance has a process already.
    #[error("instance {0} has a process already")]
    Alive(InstanceId),
    /// The instance has no notify socket to report the end of a reload
    /// ([`GroupSpec::notify_socket`](super::spec::GroupSpec::notify_socket)).
    #[error("instance {0} cannot report the end of a reload: its group has no notify socket")]
    CannotNotify(InstanceId),
    /// The cgroup of an instance cannot be frozen or thawed (`cgroup.freeze`, Linux 5.2).
    #[error("instance {instance} cannot be frozen or thawed: {}", Reason(.source))]
    Freeze {
        /// The instance.
        instance: InstanceId,
        /// The reason of the kernel.
        source: io::Error,
    },
    /// The instance's run has no cgroup ([`GroupSpec::cgroup`](super::spec::GroupSpec::cgroup)).
    #[error("instance {0} has no cgroup")]
    NoCgroup(InstanceId),
    /// The process of the instance cannot be released now.
    #[error("instance {0} cannot be released: it is being started or stopped, or its run has a cgroup")]
    NotReleasable(InstanceId),
    /// The kernel refused to deliver a signal (kill(2)).
    #[error("cannot send {signal} to instance {instance}: {}", Reason(.source))]
    Signal {
        /// The instance that was to receive the signal.
        instance: InstanceId,
        /// The signal that was refused.
        signal: Signal,
        /// The reason of the kernel.
        source: io::Error,
    },
    /// The supervisor was built in another process, and the calling process is a copy of it (fork(2)). The children
    /// belong to the original process, and so do the signals. A host that becomes a daemon must build the supervisor
    /// afterwards.
    #[error("a copy of a process that fork(2) made cannot use this supervisor: it belongs to the original process")]
    OtherProcess,
    /// The description of the group is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The [state file](crate::supervisor::Builder::state_file) has no room: ENOSPC, EDQUOT, EFBIG. Nothing has
    /// changed.
    #[error("the state file has no room: {}", Reason(.0))]
    StateFile(#[source] io::Error),
    /// The kernel refused a descriptor operation that the set or its timer needs.
    #[error("the descriptor set failed: {}", Reason(.0))]
    Io(#[from] io::Error),
}

impl From<OtherProcess> for Error {
    fn from(_: OtherProcess) -> Error {
        Error::OtherProcess
    }
}

/// What is wrong with a [`GroupSpec`](crate::supervisor::GroupSpec).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The number of instances exceeds [`GroupSpec::MOST_INSTANCES`](super::spec::GroupSpec::MOST_INSTANCES).
    #[error("a group cannot have {0} instances: it can have {max} at most", max = super::spec::GroupSpec::MOST_INSTANCES)]
    TooManyInstances(u32),
    /// The instances are to store more descriptors than
    /// [`GroupSpec::MOST_STORED_DESCRIPTORS`](super::spec::GroupSpec::MOST_STORED_DESCRIPTORS).
    #[error("an instance cannot store {0} descriptors: it can store {max} at most", max = super::spec::GroupSpec::MOST_STORED_DESCRIPTORS)]
    DescriptorStore(u32),
    /// A command cannot be run as described.
    #[error("instance {number}: {error}")]
    Command {
        /// The number of the instance with this command.
        number: u32,
        /// The error of the command.
        error: CommandError,
    },
    /// The stop ladder has the scope of a process group, and the command does not give the process a group of its own.
    /// The signals would reach the host, or the processes of another group.
    #[error("instance {number}: the stop ladder's scope is a process group, and the command makes none of its own")]
    NoProcessGroup {
        /// The number of the instance with this command.
        number: u32,
    },
    /// The command before or after a run cannot be run as described.
    #[error("the {part}: {error}")]
    RunCommand {
        /// Which of the commands.
        part: Part,
        /// The error of the command.
        error: CommandError,
    },
    /// The command before or after a run has a piped descriptor. Nothing would read it.
    #[error("the {part} cannot have a piped descriptor: nothing would read it")]
    RunCommandPiped {
        /// Which of the commands.
        part: Part,
    },
    /// The stop ladder has the scope of a process group, and the command before or after a run makes none of its own.
    #[error("the stop ladder's scope is a process group, and the {part} makes none of its own")]
    RunCommandNoProcessGroup {
        /// Which of the commands.
        part: Part,
    },
    /// A rung of a stop ladder runs a [stop command](super::spec::GroupSpec::stop_command) that the group does not have.
    #[error("the stop ladder runs the stop command {index}, which the group does not have")]
    NoStopCommand {
        /// The number of the command, from 0 up.
        index: u8,
    },
    /// The stop ladder has the scope of a cgroup, and the group has no directory for cgroups.
    #[error("the stop ladder's scope is a cgroup, and the group has no directory for cgroups")]
    NoCgroup,
    /// The group's name cannot be a part of a cgroup's name, or the files of the cgroups cannot be written as
    /// described.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A cgroup file is to be written, and the group has no directory for cgroups.
    #[error("the cgroup file {0:?} is to be written, and the group has no directory for cgroups")]
    CgroupFile(String),
    /// Another group that is not being removed has this name.
    #[error("another group has the name {0:?}")]
    NameTaken(String),
    /// Another group of the same name has its cgroups in the same directory.
    #[error("another group {0:?} has its cgroups in the same directory")]
    CgroupTaken(String),
    /// The group is to come after a group that does not exist.
    #[error("the group cannot come after {0}: there is no such group")]
    NoSuchGroup(GroupRef),
    /// The group is to come after a group that is being removed.
    #[error("the group cannot come after {0}: that group is being removed")]
    LeavingGroup(GroupRef),
    /// The group is to come after itself.
    #[error("the group cannot come after itself")]
    AfterItself,
    /// The group is to come after a group that comes after it, directly or not.
    #[error("the group cannot come after {0}: that group comes after this one")]
    OrderCycle(GroupRef),
    /// The policy is invalid.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}
