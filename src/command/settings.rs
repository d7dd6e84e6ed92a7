//! Settings beyond what the standard library's builder knows: scheduling, limits, terminals,
//! capabilities, cgroups, passed sockets.

use std::os::fd::RawFd;

use super::capability::Capabilities;
use super::stdio::Shared;
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
