//! Settings that the standard library's builder lacks: scheduling, limits, terminals, capabilities, cgroups, passed
//! sockets.

use std::os::fd::RawFd;
use std::sync::Arc;

use super::capability::Capabilities;
use super::lifetime::Lifetime;
use super::stdio::Shared;
use crate::signal::Signal;

/// The values of these settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub nice: Option<i32>,
    pub scheduling: Option<Scheduling>,
    pub io_priority: Option<IoPriority>,
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
    /// Their names; `None` for one without a name.
    pub listen_names: Vec<Option<Arc<str>>>,
    /// The largest number of descriptors that a spawn may pass after them.
    pub most_stored: u32,
}

/// A scheduling policy (sched(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scheduling {
    /// SCHED_OTHER: the usual policy, which shares the time by the nice value.
    Other,
    /// SCHED_BATCH: as `Other`, for programs that only compute. They are woken a little later.
    Batch,
    /// SCHED_IDLE: only when nothing else needs the CPU, whatever the nice value is.
    Idle,
    /// SCHED_FIFO: real-time, without a limit of time. The static priority is 1 to 99; a higher one comes first.
    Fifo(u8),
    /// SCHED_RR: real-time, in turns with others of the same priority. The static priority is 1 to 99.
    RoundRobin(u8),
}

impl Scheduling {
    /// The policy's number and the static priority.
    pub(super) fn as_raw(self) -> (i32, i32) {
        match self {
            Scheduling::Other => (libc::SCHED_OTHER, 0),
            Scheduling::Batch => (libc::SCHED_BATCH, 0),
            Scheduling::Idle => (libc::SCHED_IDLE, 0),
            Scheduling::Fifo(priority) => (libc::SCHED_FIFO, priority.into()),
            Scheduling::RoundRobin(priority) => (libc::SCHED_RR, priority.into()),
        }
    }

    /// The static priority of a real-time policy.
    pub(super) fn priority(self) -> Option<u8> {
        match self {
            Scheduling::Fifo(priority) | Scheduling::RoundRobin(priority) => Some(priority),
            Scheduling::Other | Scheduling::Batch | Scheduling::Idle => None,
        }
    }
}

/// An I/O priority (ioprio_set(2)). The schedulers BFQ and mq-deadline heed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IoPriority {
    /// IOPRIO_CLASS_RT: before all others. The level is 0 (the highest) to 7.
    Realtime(u8),
    /// IOPRIO_CLASS_BE: the usual class. The level is 0 (the highest) to 7. Without any setting the kernel derives it
    /// from the nice value.
    BestEffort(u8),
    /// IOPRIO_CLASS_IDLE: only when no other process needs the disk.
    Idle,
}

impl IoPriority {
    /// The level within the class.
    pub(super) fn level(self) -> u8 {
        match self {
            IoPriority::Realtime(level) | IoPriority::BestEffort(level) => level,
            IoPriority::Idle => 0,
        }
    }

    /// The class and the level as the kernel's number.
    pub(super) fn as_raw(self) -> u32 {
        const CLASS_SHIFT: u32 = 13;
        let class: u32 = match self {
            IoPriority::Realtime(_) => 1,
            IoPriority::BestEffort(_) => 2,
            IoPriority::Idle => 3,
        };
        class << CLASS_SHIFT | u32::from(self.level())
    }
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
