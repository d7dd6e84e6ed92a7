//! The seam between the engine's decisions and the kernel.
//!
//! The engine is generic over [`Kernel`], with static dispatch. The real implementation is in `linux`, and the
//! simulated one, in virtual time, is in `proof`. Everything from outside reaches the engine as a [`Happening`]. An
//! implementation finds out what happened and carries out what is decided. It decides nothing itself.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::context::SpawnContext;
use super::event::{Name, ProcessNotice};
use super::ids::{GroupId, InstanceId};
use crate::cgroup::{CgroupError, CgroupFile, CgroupUsage, OomKill};
use crate::child::Pipes;
use crate::codec::{Writer, stored};
use crate::command::{Program, SpawnError};
use crate::exit::{ExitRecord, Pid};
use crate::fdset::Token;
use crate::lifecycle::{Part, Scope};
use crate::notify::{Notice, NotifyAccess};
use crate::signal::Signal;
use crate::signalfd::SignalInfo;
use crate::time::Instant;

/// Everything that the engine needs from outside. The implementation owns the processes, and the engine names a process
/// by the slot of its instance. A slot without a process counts as ended and empty, and a signal to it is no error.
pub(crate) trait Kernel {
    /// How many requests are carried out in one turn. 64 spawns that wait for their execve take
    /// about eight milliseconds.
    const SLICE: u32 = 64;

    /// The largest number of items of a kind in one turn, in addition to the limit of time.
    const TURN: u32 = u32::MAX;

    /// How many ready entries of the set are asked for at a time.
    const BATCH: usize = 64;

    // Time.

    fn now(&self) -> Instant;
    fn wall(&self) -> SystemTime;

    /// The time on `CLOCK_MONOTONIC`, whatever the clock of [`Kernel::now`] is.
    fn monotonic(&self) -> Instant;

    /// Arms the timer, which makes the set readable at this time. A time in the past means at once.
    fn arm(&mut self, at: Option<Instant>) -> io::Result<()>;

    // What happens.

    /// Appends ready entries of the set, up to the free capacity; see [`FdSet::ready`](crate::FdSet::ready).
    fn ready(&mut self, entries: &mut Vec<Token>) -> io::Result<()>;

    /// The number of entries of the set.
    fn entries(&self) -> usize;

    /// The next thing that happened at this entry of the set. `None` if nothing more happened, or if the entry is out
    /// of date. `senders` are the processes with accepted messages. The descriptors of such a message are stored as it
    /// asks for.
    fn next(&mut self, entry: Token, senders: &Senders) -> io::Result<Option<Happening>>;

    /// The entry of the notify socket, if there is one.
    fn notify_entry(&self) -> Option<Token>;

    /// The time of the next look at something that no descriptor reports; `None` if there is none.
    fn look_at(&self) -> Option<Instant>;

    /// Does the work that was put off until now. Returns the slot of an instance with a process that must be collected
    /// again, if one is due. A slot is returned again only after [`Kernel::collect`] found nothing for it.
    fn look_again(&mut self, now: Instant) -> Option<u32>;

    // Processes.

    /// Whether the maximum of spawns is in flight, so that the next one must wait.
    fn is_saturated(&self) -> bool;

    /// Spawns a process for the instance in this slot, and watches it. After an error nothing is left of it.
    fn spawn(&mut self, slot: u32, program: &Program, context: &SpawnContext) -> Result<Spawned, SpawnError>;

    /// The next spawn is for this process. A simulation chooses by it what the process does; the real kernel does not
    /// need it.
    fn announce(&mut self, _coming: &Coming<'_>) {}

    /// Finds out what happened to a process. A process that has ended is reaped. With `keep_scope`, the other processes
    /// of its scope can be signalled afterwards. If its status is not available yet, the process is collected again
    /// later ([`Kernel::look_again`]), and no descriptor of it stays readable until then.
    fn collect(&mut self, slot: u32, keep_scope: bool) -> io::Result<Collected>;

    /// Whether a process in flight is known to have executed its program. [`Kernel::collect`] finds it out too, later.
    fn has_executed(&self, slot: u32) -> bool;

    /// Whether the process has ended, reaped or not.
    fn has_ended(&self, slot: u32) -> bool;

    /// Sends one signal. It is no error if no process is left to receive it.
    fn signal(&mut self, slot: u32, signal: Signal, scope: Scope) -> io::Result<()>;

    /// Whether nothing of this scope is alive. Later looks are more thorough: they cost more, and do not count a zombie
    /// as alive.
    fn is_empty(&mut self, slot: u32, scope: Scope, looks: u8) -> io::Result<bool>;

    /// The resources that were used in the cgroup of the run; `None` if the run has no cgroup.
    fn usage(&self, slot: u32) -> Option<CgroupUsage>;

    /// What is known of the kernel's kills in the run for lack of memory, after SIGKILL has ended the process. `None` if
    /// the kernel has killed no process since the run began, or if that is not known.
    fn out_of_memory(&self, slot: u32) -> Option<OomKill>;

    /// Writes a file of the cgroup of the run. It is no error if the cgroup is gone.
    fn change_limit(&mut self, slot: u32, file: &CgroupFile) -> Result<(), CgroupError>;

    /// Freezes all processes in the cgroup of the run, or thaws them.
    fn freeze(&mut self, slot: u32, on: bool) -> io::Result<()>;

    /// Lets go of a process for good. A process that was not reaped is killed, and waited for at most `patience`.
    fn discard(&mut self, slot: u32, patience: Duration);

    /// From now on, processes may send descriptors to be stored.
    fn expect_descriptors(&mut self) {}

    /// Closes the descriptors that are stored for the instance in this slot.
    fn drop_descriptors(&mut self, slot: u32);

    /// Allocates for this many processes in all; the slots of all are below `slots`.
    fn reserve(&mut self, processes: usize, slots: u32);

    /// Removes what is left of released processes, and waits at most until this time.
    fn close(&mut self, until: Instant);

    /// Whether the processes are children of the calling process. They are not in a copy that fork(2) made.
    fn is_ours(&self) -> bool;

    // The state that outlives the host. By default nothing is done.

    /// Whether the state is stored.
    fn keeps_state(&self) -> bool;

    /// Stores the record of a slot. `put` writes it.
    fn record(&mut self, _slot: u32, _put: &dyn Fn(&mut Writer<'_>)) {}

    /// Stores the base and the records of all slots. No record gets longer than `longest` before the next call.
    ///
    /// # Errors
    /// There is no room. What was stored before is still there.
    fn save(&mut self, _base: &[u8], _records: &[Vec<u8>], _longest: usize) -> io::Result<()> {
        Ok(())
    }

    /// A slot's instance has got a process that was made elsewhere. No other process of the instance has its number.
    fn note_adopted(&mut self, _slot: u32, _number: u64, _pid: Pid) {}

    /// The process that was born for a slot's instance is not its own: nothing proves that it is.
    fn forget_birth(&mut self, _slot: u32) {}

    /// A process with this number is about to be spawned for a slot's instance.
    fn begin_birth(&mut self, _slot: u32, _number: u64) {}
}

/// The main processes with accepted messages.
pub(crate) type Senders = HashMap<Pid, Sender>;

/// Which messages are accepted for an instance, and what they may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) id: InstanceId,
    pub(crate) access: NotifyAccess,
    /// The largest number of descriptors that may be stored for the instance.
    pub(crate) most_stored: u32,
}

/// Anything that reaches the engine from outside.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The timer has expired.
    TimerExpired,
    /// A signal to the host's process arrived.
    Signal(SignalInfo),
    /// One line of a message arrived at the notify socket.
    Report {
        from: InstanceId,
        report: Report,
        /// Whether this is the last line of the message.
        ends_message: bool,
    },
    /// A message was ignored: its sender is not accepted, or none of its lines is known.
    UnknownMessage,
    /// The other side of a descriptor that was stored for the instance in this slot is gone. It was closed.
    HungUp { slot: u32, name: Arc<str> },
    /// An adopted orphan ended, and was reaped.
    Orphan(ExitRecord),
    /// A descriptor of the process in this slot is ready. [`Kernel::collect`] finds out what happened.
    Process(u32),
}

/// One report of a process about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    Ready,
    Alive,
    WatchdogTrigger,
    Extend(Duration),
    Status(Option<Arc<str>>),
    Reloading,
    /// When a reload began, on `CLOCK_MONOTONIC`.
    ReloadingSince(Instant),
    Stopping,
    Errno(i32),
    WatchdogEvery(Duration),
    /// The kernel's side has done what the message asks for.
    Notice(ProcessNotice),
}

impl Report {
    /// The report in a line of a message. `None` for a line that the engine does not use.
    pub(crate) fn of(notice: Notice<'_>) -> Option<Report> {
        match notice {
            Notice::Ready => Some(Report::Ready),
            Notice::Watchdog => Some(Report::Alive),
            Notice::WatchdogTrigger => Some(Report::WatchdogTrigger),
            Notice::ExtendTimeout(by) => Some(Report::Extend(by)),
            Notice::Status(text) => Some(Report::Status((!text.is_empty()).then(|| text.into()))),
            Notice::Reloading => Some(Report::Reloading),
            Notice::MonotonicTime(at) => {
                let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
                Some(Report::ReloadingSince(Instant::from_nanos(nanos)))
            }
            Notice::Stopping => Some(Report::Stopping),
            Notice::Errno(errno) => Some(Report::Errno(errno)),
            Notice::WatchdogEvery(every) => Some(Report::WatchdogEvery(every)),
            // These are about the descriptors of the message, or are no report.
            Notice::StoreDescriptors
            | Notice::RemoveDescriptors
            | Notice::DescriptorName(_)
            | Notice::NoPoll
            | Notice::Barrier
            | Notice::MainPidRefused => None,
        }
    }
}

/// The process that is about to be spawned.
#[derive(Debug)]
#[cfg_attr(
    not(all(feature = "sim", not(test))),
    expect(dead_code, reason = "the simulation for hosts alone reads it")
)]
pub(crate) struct Coming<'a> {
    pub(crate) id: InstanceId,
    pub(crate) group: GroupId,
    pub(crate) name: &'a Name,
    /// Whether it runs the program of the run, or the command before or after it.
    pub(crate) part: Part,
    /// The number of the run, from 1 up.
    pub(crate) run: u64,
    /// Whether it has the address of the notify socket.
    pub(crate) has_socket: bool,
}

/// A process that was spawned.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: Pid,
    pub(crate) pipes: Pipes,
    /// Whether the process has executed its program. If not, [`Collected::Executed`] or [`Collected::SpawnFailed`]
    /// follows.
    pub(crate) executed: bool,
}

/// What [`Kernel::collect`] found out about a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Collected {
    /// Nothing more happened.
    Nothing,
    /// The process was in flight and has executed its program. With `ended` it is known to have ended since, and is to
    /// be collected again.
    Executed { ended: bool },
    /// A step before the execution of the program failed. The process has ended and was reaped.
    SpawnFailed(SpawnError),
    /// The process has ended.
    Ended(ExitRecord),
    /// No process of its cgroup is alive.
    CgroupEmpty,
    /// The readiness descriptor had data without meaning, and may have more.
    Spurious,
    /// The process reported that it is ready.
    Ready,
    /// The process closed its readiness descriptor without a message.
    NotReady,
}

stored!(enum Report {
    0 = Ready,
    1 = Alive,
    2 = WatchdogTrigger,
    3 = Extend(by),
    4 = Status(text),
    5 = Reloading,
    6 = ReloadingSince(at),
    7 = Stopping,
    8 = Errno(errno),
    9 = WatchdogEvery(every),
    10 = Notice(notice),
});
