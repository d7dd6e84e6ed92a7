//! Namespaces of the child: new ones, or those of other processes.
//!
//! The child enters every namespace except a PID namespace itself, so that the failed step has a name and the host does
//! not wait for it. A process never changes its own PID namespace. A new one begins with the clone (CLONE_NEWPID), and
//! for a given one the calling thread changes where its children begin, for the duration of the clone.
//!
//! User namespaces were rejected: another process must write the mapping of ids while the child waits, and all ids of
//! the command would have another meaning. A host without privileges runs in a user namespace itself (unshare(1)).
//! Time namespaces were rejected: a process that shares its memory cannot enter one.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::stdio::Shared;
use crate::names::machine_names;

/// A kind of namespace (namespaces(7)), for [`Command::unshare`](crate::Command::unshare) and
/// [`Command::setns`](crate::Command::setns).
///
/// ```
/// use pidherd::Namespace;
///
/// assert_eq!(Namespace::Network.to_string(), "network namespace");
/// assert_eq!("network".parse(), Ok(Namespace::Network));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Namespace {
    /// Process numbers (pid_namespaces(7), CLONE_NEWPID).
    Pid,
    /// Hostname and NIS domain name (uts_namespaces(7), CLONE_NEWUTS).
    Uts,
    /// System V IPC and POSIX message queues (ipc_namespaces(7), CLONE_NEWIPC).
    Ipc,
    /// Network devices, addresses, routes, ports and abstract sockets (network_namespaces(7), CLONE_NEWNET).
    Network,
    /// The view of the cgroup hierarchy (cgroup_namespaces(7), CLONE_NEWCGROUP, Linux 4.6).
    Cgroup,
    /// Mount points (mount_namespaces(7), CLONE_NEWNS).
    Mount,
}

machine_names! { Namespace, "kind of namespace",
    Pid = "pid"
    Uts = "uts"
    Ipc = "ipc"
    Network = "network"
    Cgroup = "cgroup"
    Mount = "mount"
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Namespace::Pid => "PID namespace",
            Namespace::Uts => "UTS namespace",
            Namespace::Ipc => "IPC namespace",
            Namespace::Network => "network namespace",
            Namespace::Cgroup => "cgroup namespace",
            Namespace::Mount => "mount namespace",
        })
    }
}

impl Namespace {
    pub(super) const fn as_raw(self) -> i32 {
        match self {
            Namespace::Pid => libc::CLONE_NEWPID,
            Namespace::Uts => libc::CLONE_NEWUTS,
            Namespace::Ipc => libc::CLONE_NEWIPC,
            Namespace::Network => libc::CLONE_NEWNET,
            Namespace::Cgroup => libc::CLONE_NEWCGROUP,
            Namespace::Mount => libc::CLONE_NEWNS,
        }
    }
}

/// The namespaces of a command that are not those of the host, each kind once, in the order in which the child enters
/// them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Namespaces {
    pub(super) entries: Vec<(Namespace, Origin)>,
    /// Whether `/proc` is that of the child's PID namespace.
    pub(super) mounts_proc: bool,
}

/// Where a namespace comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    New,
    Given(Shared),
}

impl Namespaces {
    pub(super) fn set(&mut self, kind: Namespace, origin: Origin) {
        match self.entries.binary_search_by_key(&kind, |&(kind, _)| kind) {
            Ok(index) => self.entries.splice(index..=index, [(kind, origin)]).for_each(drop),
            Err(index) => self.entries.insert(index, (kind, origin)),
        }
    }

    pub(super) fn get(&self, kind: Namespace) -> Option<&Origin> {
        let mut entries = self.entries.iter();
        entries.find_map(|(own, origin)| (*own == kind).then_some(origin))
    }

    /// Whether the child has a PID namespace that is not the host's.
    pub(super) fn has_pid(&self) -> bool {
        self.get(Namespace::Pid).is_some()
    }
}

/// The PID namespace of the child, with the label for its errors.
#[derive(Clone, Debug)]
pub(super) enum PidNamespace {
    Host,
    New(usize),
    Given(Arc<OwnedFd>, usize),
}

impl PidNamespace {
    /// The label of a failed clone, if its errno is one that the namespace can have caused.
    pub(super) fn label_of(&self, errno: i32) -> Option<usize> {
        match (self, errno) {
            (PidNamespace::Host, _) => None,
            (PidNamespace::New(label) | PidNamespace::Given(_, label), libc::EPERM | libc::EINVAL | libc::ENOSPC) => {
                Some(*label)
            }
            // The kernel's errno for a PID namespace without an init process, and for a shortage.
            (PidNamespace::Given(_, label), libc::ENOMEM) => Some(*label),
            (PidNamespace::New(_) | PidNamespace::Given(..), _) => None,
        }
    }
}
