//! The settings of a command about namespaces.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::builder::Command;
use super::namespace::{Namespace, Origin};
use super::stdio::Shared;

/// # Namespaces
///
/// All of these need CAP_SYS_ADMIN. A host without it can run in a user namespace, in which it has the capability:
/// `unshare --user --map-root-user HOST` (user_namespaces(7)). In all cases the child enters the namespaces after its
/// cgroup and after its files are open, and before [`Command::chroot`], the change of ids and
/// [`Command::current_dir`]. So log files are the host's files, and the program is looked up in the child's own mount
/// namespace. A failure is [`SpawnStep::Namespace`](crate::SpawnStep::Namespace), and nothing is left of the child.
impl Command {
    /// Gives the child a new namespace of this kind (unshare(2)). The namespace ends with its last process.
    ///
    /// - [`Namespace::Pid`]: **the child is process 1 of the namespace** (pid_namespaces(7)). When it ends, the kernel
    ///   kills every other process of the namespace, so nothing of the tree is left. A process 1 gets only the signals
    ///   that it has a handler for, and SIGKILL and SIGSTOP from outside. So a program without a handler for SIGTERM
    ///   ignores the first step of a [`StopLadder`](crate::StopLadder), and ends with SIGKILL. It also inherits the
    ///   orphans of its namespace and must reap them; a small init program does that. The host sees and signals the
    ///   child by its number in the host's namespace, which is also that of its events. `LISTEN_PID` is the number in
    ///   the child's namespace. See [`Command::mount_proc`].
    /// - [`Namespace::Mount`]: changes of the host's mount points still propagate to the child, and those of the child do
    ///   not propagate to the host (MS_SLAVE).
    /// - [`Namespace::Network`]: it has the loopback device alone, which is down. An abstract socket of the host cannot be
    ///   reached. Readiness messages need a socket with a path
    ///   ([`Builder::notify_path`](crate::supervisor::Builder::notify_path)) or a readiness descriptor
    ///   ([`GroupSpec::ready_fd`](crate::GroupSpec::ready_fd)).
    /// - [`Namespace::Cgroup`]: its root is the cgroup of the child.
    ///
    /// A later call for the same kind, also of [`Command::setns`], replaces this one.
    ///
    /// ```
    /// use pidherd::{Command, Namespace};
    ///
    /// let alone = Command::new("sh").args(["-c", "echo $$"]).unshare(Namespace::Pid).unshare(Namespace::Network);
    /// match alone.output() {
    ///     Ok(output) => assert_eq!(output.stdout, b"1\n"),
    ///     Err(error) => eprintln!("{error}"), // cannot start "sh": enter a new PID namespace: Operation not permitted
    /// }
    /// ```
    #[must_use]
    pub fn unshare(mut self, kind: Namespace) -> Command {
        self.namespaces.set(kind, Origin::New);
        self
    }

    /// Lets the child enter an existing namespace of this kind (setns(2)). The descriptor is that of a file in
    /// `/proc/PID/ns`, also one that was bind-mounted, as `ip netns` does, or a pidfd of a process in the namespace (Linux
    /// 5.8).
    ///
    /// - [`Namespace::Pid`]: the namespace must be a descendant of the host's, or the host's own. The child is an
    ///   ordinary process in it. Its orphans belong to process 1 of that namespace, so the host does not see them, and
    ///   only a cgroup finds them ([`GroupSpec::cgroup`](crate::GroupSpec::cgroup)). If process 1 has ended, the spawn
    ///   fails with `ENOMEM`, which the kernel reports for a shortage of memory too.
    /// - [`Namespace::Mount`]: the root directory and the working directory become those of the namespace.
    ///
    /// ```no_run
    /// use std::fs::File;
    /// use std::os::fd::OwnedFd;
    /// use pidherd::{Command, Namespace};
    ///
    /// let network = OwnedFd::from(File::open("/run/netns/blue")?);
    /// let web = Command::new("/usr/bin/web").setns(Namespace::Network, network);
    /// # let _ = web;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// [`Command::compile`] refuses a descriptor of anything else with
    /// [`CommandError::NotANamespace`](crate::CommandError::NotANamespace).
    #[must_use]
    pub fn setns(mut self, kind: Namespace, namespace: impl Into<Arc<OwnedFd>>) -> Command {
        self.namespaces.set(kind, Origin::Given(Shared(namespace.into())));
        self
    }

    /// Whether a proc(5) of the child's PID namespace is mounted on `/proc`, inside the root directory of the child. The
    /// default is false. It needs a PID namespace and a new mount namespace
    /// ([`CommandError::Needs`](crate::CommandError::Needs)). Without it,
    /// `/proc` shows the processes of the host, and programs such as ps(1) are wrong.
    ///
    /// ```
    /// use pidherd::{Command, CommandError, Namespace};
    ///
    /// let command = Command::new("ps").unshare(Namespace::Pid).mount_proc(true);
    /// assert!(matches!(command.compile(), Err(CommandError::Needs { .. })));
    /// assert!(command.unshare(Namespace::Mount).compile().is_ok());
    /// ```
    #[must_use]
    pub fn mount_proc(mut self, yes: bool) -> Command {
        self.namespaces.mounts_proc = yes;
        self
    }

    /// The kinds of [`Command::unshare`], with `None`, and those of [`Command::setns`], with their descriptors. The
    /// order is that of [`Namespace`].
    pub fn get_namespaces(&self) -> impl Iterator<Item = (Namespace, Option<BorrowedFd<'_>>)> {
        self.namespaces.entries.iter().map(|(kind, origin)| match origin {
            Origin::New => (*kind, None),
            Origin::Given(namespace) => (*kind, Some(namespace.0.as_fd())),
        })
    }

    /// The value of [`Command::mount_proc`].
    #[must_use]
    pub fn get_mount_proc(&self) -> bool {
        self.namespaces.mounts_proc
    }
}
