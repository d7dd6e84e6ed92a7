//! What becomes of a child when the host ends without stopping it.

use crate::signal::Signal;
use crate::sys::spawn::clone::can_bind;

use super::error::CommandError;

/// What becomes of a child when the host's process ends without stopping it: by SIGKILL, by the OOM killer, or by an
/// abort. (A host that returns or panics drops its [`Supervisor`](crate::Supervisor) or [`Child`](crate::Child), which
/// ends the child in any case.)
///
/// ```no_run
/// use pidherd::{Command, Lifetime};
///
/// let worker = Command::new("/usr/bin/worker").lifetime(Lifetime::Bound);
/// # let _ = worker;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Lifetime {
    /// The child lives on without a supervisor. This is the default.
    #[default]
    Detached,
    /// The kernel kills the child with SIGKILL when the host's process ends, however it ends (CLONE_PIDFD_AUTOKILL,
    /// Linux 7.1). On an older kernel, where a filter refuses clone3(2), and on architectures other than x86_64, the
    /// command is refused with [`CommandError::CannotBind`] before anything is started.
    ///
    /// The child is bound to its pidfd, and not to the thread that spawned it. It dies when the last descriptor of the
    /// pidfd is closed: dropping a [`PidFd`](crate::PidFd) that was taken out of its [`Child`](crate::Child) kills the
    /// child, and [`Child::detach`](crate::Child::detach) does too. A copy of the host that fork(2) made keeps it
    /// alive. A child that was spawned with a copy of the whole descriptor table (see [`Spawner`](crate::Spawner))
    /// has copies of the host's pidfds until its execve.
    ///
    /// Only the child itself is bound. What it starts lives on, unless it is in turn bound to the child.
    ///
    /// The kernel reaps such a child by itself. Its exit status is known, and the resources that it used are not
    /// ([`ExitRecord::usage`](crate::exit::ExitRecord::usage) is `None`); a cgroup knows them
    /// ([`GroupSpec::cgroup`](crate::GroupSpec::cgroup)). A host without CAP_SYS_ADMIN can bind only a child that
    /// cannot gain privileges: the library then sets [`no_new_privileges`](crate::Command::no_new_privileges). If the
    /// command forbids that, the spawn fails with `EPERM` at [`SpawnStep::Clone`](crate::SpawnStep::Clone).
    Bound,
    /// As [`Bound`](Lifetime::Bound) where the kernel can do it. Elsewhere the child gets SIGKILL as its
    /// [parent-death signal](crate::Command::parent_death_signal), which has gaps:
    ///
    /// - It is bound to the *thread* that spawned it: it is killed when that thread ends, even if the host continues.
    ///   Spawn from a thread that lives as long as the host.
    /// - A program that gains privileges by execve (set-user-id, file capabilities), and one that changes its own ids,
    ///   is not bound any more.
    ///
    /// A parent-death signal that the command sets itself is kept instead.
    BoundOrSignal,
}

impl Lifetime {
    /// Whether the kernel is to bind the child, and the parent-death signal for it.
    pub(super) fn resolve(self, signal: Option<Signal>) -> Result<(bool, Option<Signal>), CommandError> {
        match self {
            Lifetime::Detached => Ok((false, signal)),
            Lifetime::Bound => match can_bind() {
                Ok(()) => Ok((true, signal)),
                Err(errno) => Err(CommandError::CannotBind { errno }),
            },
            Lifetime::BoundOrSignal if can_bind().is_ok() => Ok((true, signal)),
            Lifetime::BoundOrSignal => Ok((false, signal.or(Some(Signal::KILL)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_gets_a_parent_death_signal_only_where_the_kernel_cannot_bind_it() {
        let bound = Lifetime::Bound.resolve(None);
        let expected = bound.unwrap_or((false, Some(Signal::KILL)));
        assert_eq!(Lifetime::BoundOrSignal.resolve(None), Ok(expected));
    }
}
