//! Settings beyond what the standard library's builder knows: scheduling, limits, terminals,
//! capabilities, cgroups, passed sockets.

use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

use super::capability::Capabilities;
use super::stdio::{Shared, Stdio};
use super::{Command, Passed};
use crate::signal::Signal;

/// What these methods set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub nice: Option<i32>,
    pub affinity: Option<Vec<usize>>,
    pub oom_score_adj: Option<i32>,
    pub limits: Vec<(Resource, u64, u64)>,
    pub controlling_terminal: Option<RawFd>,
    pub foreground: Option<RawFd>,
    pub parent_death_signal: Option<Signal>,
    pub bounding: Option<Capabilities>,
    pub inheritable: Capabilities,
    pub ambient: Capabilities,
    pub cgroup: Option<Shared>,
    /// How many descriptors from number 3 on are sockets in systemd's sense.
    pub listen_fds: u16,
}

/// What a limit is about (getrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resource {
    /// CPU time in seconds.
    Cpu,
    /// The size of a written file in bytes.
    FileSize,
    /// The data segment in bytes.
    Data,
    /// The stack in bytes.
    Stack,
    /// A core dump in bytes.
    Core,
    /// Processes of the user.
    Processes,
    /// The highest descriptor number, plus one.
    OpenFiles,
    /// Locked memory in bytes.
    LockedMemory,
    /// The address space in bytes.
    AddressSpace,
    /// Queued signals of the user.
    PendingSignals,
    /// POSIX message queues in bytes.
    MessageQueues,
    /// The best nice value, as 20 minus it.
    Nice,
    /// The highest real-time priority.
    RealtimePriority,
    /// CPU time of a real-time process between blocking calls, in microseconds.
    RealtimeTime,
}

impl Resource {
    /// The value that stands for "no limit".
    pub const UNLIMITED: u64 = u64::MAX;

    pub(super) fn as_raw(self) -> u32 {
        let raw = match self {
            Resource::Cpu => rustix::process::Resource::Cpu,
            Resource::FileSize => rustix::process::Resource::Fsize,
            Resource::Data => rustix::process::Resource::Data,
            Resource::Stack => rustix::process::Resource::Stack,
            Resource::Core => rustix::process::Resource::Core,
            Resource::Processes => rustix::process::Resource::Nproc,
            Resource::OpenFiles => rustix::process::Resource::Nofile,
            Resource::LockedMemory => rustix::process::Resource::Memlock,
            Resource::AddressSpace => rustix::process::Resource::As,
            Resource::PendingSignals => rustix::process::Resource::Sigpending,
            Resource::MessageQueues => rustix::process::Resource::Msgqueue,
            Resource::Nice => rustix::process::Resource::Nice,
            Resource::RealtimePriority => rustix::process::Resource::Rtprio,
            Resource::RealtimeTime => rustix::process::Resource::Rttime,
        };
        raw as u32
    }
}

impl Command {
    /// The nice value, -20 to 19 (setpriority(2)); the host's if not said.
    #[must_use]
    pub fn nice(mut self, nice: i32) -> Command {
        self.settings.nice = Some(nice);
        self
    }

    /// The CPUs that it may run on (sched_setaffinity(2)); the host's if not said.
    #[must_use]
    pub fn cpu_affinity(mut self, cpus: &[usize]) -> Command {
        self.settings.affinity = Some(cpus.to_owned());
        self
    }

    /// How ready the kernel is to kill it when memory is short, -1000 (never) to 1000
    /// (proc_pid_oom_score_adj(5)); the host's if not said.
    #[must_use]
    pub fn oom_score_adj(mut self, value: i32) -> Command {
        self.settings.oom_score_adj = Some(value);
        self
    }

    /// A resource limit (setrlimit(2)), [`Resource::UNLIMITED`] for none; the host's if not said.
    /// Set while still privileged, so that it may be above the host's.
    #[must_use]
    pub fn limit(mut self, resource: Resource, soft: u64, hard: u64) -> Command {
        self.settings.limits.push((resource, soft, hard));
        self
    }

    /// Makes the terminal that is descriptor `fd` of the child (0 to 2, or a passed one) its controlling
    /// terminal (TIOCSCTTY). Implies a new session.
    #[must_use]
    pub fn controlling_terminal(mut self, fd: RawFd) -> Command {
        self.settings.controlling_terminal = Some(fd);
        self
    }

    /// Makes the child's process group the foreground one of the terminal that is descriptor `fd` of the
    /// child (TIOCSPGRP). The terminal must be the controlling one of the child's session.
    #[must_use]
    pub fn foreground(mut self, fd: RawFd) -> Command {
        self.settings.foreground = Some(fd);
        self
    }

    /// The signal that the child gets when the *thread* that spawned it ends (PR_SET_PDEATHSIG). Set
    /// after the ids have changed, which would clear it; a program that gains privileges by execve
    /// clears it too. A child whose parent is gone by then doesn't start (`ESRCH` at
    /// [`Step::ParentDeathSignal`](crate::Step::ParentDeathSignal)). It works in another PID namespace as well. That
    /// the thread, and not the whole process, has ended too early is noticed with glibc and CONFIG_CHECKPOINT_RESTORE.
    #[must_use]
    pub fn parent_death_signal(mut self, signal: Signal) -> Command {
        self.settings.parent_death_signal = Some(signal);
        self
    }

    /// The capabilities that the child can ever have (the bounding set); the host's if not said.
    ///
    /// An ambient or inheritable capability beyond it is refused when the command is compiled
    /// ([`CommandError::BeyondBounding`](crate::CommandError::BeyondBounding)): by itself, the bounding set limits
    /// only what a program file can bring.
    #[must_use]
    pub fn bounding_capabilities(mut self, set: Capabilities) -> Command {
        self.settings.bounding = Some(set);
        self
    }

    /// The inheritable capabilities; none if not said, whatever the host has.
    #[must_use]
    pub fn inheritable_capabilities(mut self, set: Capabilities) -> Command {
        self.settings.inheritable = set;
        self
    }

    /// Capabilities that the program has although it runs as an unprivileged user (the ambient set);
    /// none if not said, whatever the host has. They are made inheritable too.
    #[must_use]
    pub fn ambient_capabilities(mut self, set: Capabilities) -> Command {
        self.settings.ambient = set;
        self
    }

    /// The cgroup (v2) that the child is born in, by a descriptor of its directory
    /// (CLONE_INTO_CGROUP, Linux 5.7). Where the kernel can't do that, or a filter is in the way, the child
    /// enters it itself, before it does anything else: that takes longer (the kernel stops all forks
    /// meanwhile), and the program is there all the same before it can fork.
    #[must_use]
    pub fn cgroup(mut self, directory: impl Into<Arc<OwnedFd>>) -> Command {
        self.settings.cgroup = Some(Shared(directory.into()));
        self
    }

    /// Passes a socket as systemd does (sd_listen_fds(3)): the next number from 3 up, `LISTEN_FDS` with
    /// their count, `LISTEN_PID` with the child's own pid.
    #[must_use]
    pub fn listen_fd(mut self, socket: impl Into<Stdio>) -> Command {
        let target = 3 + RawFd::from(self.settings.listen_fds);
        self.settings.listen_fds = self.settings.listen_fds.saturating_add(1);
        self.passed.push(Passed {
            target,
            stdio: socket.into(),
        });
        self
    }
}
