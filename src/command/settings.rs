//! Settings that the standard library's builder lacks: scheduling, limits, terminals, capabilities, cgroups, passed
//! sockets.

use std::os::fd::RawFd;

use super::capability::Capabilities;
use super::lifetime::Lifetime;
use super::stdio::Shared;
use crate::signal::Signal;

/// The values of these settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub nice: Option<i32>,
    pub affinity: Option<Vec<usize>>,
    pub oom_score_adj: Option<i32>,
    pub limits: Vec<(Resource, u64, u64)>,
    pub controlling_terminal: Option<RawFd>,
    pub foreground: Option<RawFd>,
    pub parent_death_signal: Option<Signal>,
    pub lifetime: Lifetime,
    pub bounding: Option<Capabilities>,
    pub inheritable: Capabilities,
    pub ambient: Capabilities,
    pub cgroup: Option<Shared>,
    /// The number of descriptors, from number 3 up, that are passed as sockets (sd_listen_fds(3)).
    pub listen_fds: u16,
}

/// A resource with a limit (getrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resource {
    /// RLIMIT_CPU: the CPU time of the process in seconds.
    Cpu,
    /// RLIMIT_FSIZE: the largest file that the process can write, in bytes.
    FileSize,
    /// RLIMIT_DATA: the size of the data segment in bytes.
    Data,
    /// RLIMIT_STACK: the size of the stack in bytes.
    Stack,
    /// RLIMIT_CORE: the largest core dump in bytes; 0 for none.
    Core,
    /// RLIMIT_NPROC: the number of processes and threads of the real user.
    Processes,
    /// RLIMIT_NOFILE: the highest descriptor number, plus one.
    OpenFiles,
    /// RLIMIT_MEMLOCK: the size of locked memory in bytes.
    LockedMemory,
    /// RLIMIT_AS: the size of the address space in bytes.
    AddressSpace,
    /// RLIMIT_SIGPENDING: the number of queued signals of the real user.
    PendingSignals,
    /// RLIMIT_MSGQUEUE: the size of POSIX message queues of the real user, in bytes.
    MessageQueues,
    /// RLIMIT_NICE: 20 minus the lowest nice value that the process can set.
    Nice,
    /// RLIMIT_RTPRIO: the highest real-time priority.
    RealtimePriority,
    /// RLIMIT_RTTIME: the CPU time of a real-time process between blocking system calls, in microseconds.
    RealtimeTime,
}

impl Resource {
    /// The value for a resource without a limit (RLIM_INFINITY).
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
