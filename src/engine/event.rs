//! Events for the host: a bounded queue that counts dropped events.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::ids::{GroupId, InstanceId};
use super::progress::Progress;
use crate::codec::stored;
use crate::command::SpawnError;
use crate::exit::{ExitRecord, Pid};
use crate::lifecycle::{Cause, CommandFailure, StateName, StopCommandEnd};
use crate::names::{machine_names, shown_by_name};
use crate::signal::Signal;
use crate::signalfd::SignalInfo;
use crate::time::Instant;

/// A fact that the supervisor reports to the host.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Event {
    /// An instance changed its state.
    Transition(TransitionEvent),
    /// SIGKILL did not end an instance within the time of its stop ladder. The supervisor continues to wait for its
    /// end.
    Unkillable {
        /// The instance concerned.
        instance: InstanceId,
        /// The group of the instance.
        group: GroupId,
        /// The group's name and the instance's number.
        name: Name,
        /// The instance's process; `None` if it is unknown.
        pid: Option<Pid>,
    },
    /// The kernel refused to deliver a signal of a stop ladder, for example with EPERM. The ladder goes on.
    SignalFailed {
        /// The instance that was to receive the signal.
        instance: InstanceId,
        /// The group of the instance.
        group: GroupId,
        /// The group's name and the instance's number.
        name: Name,
        /// The signal that was refused.
        signal: Signal,
        /// The kernel's errno; see kill(2).
        errno: i32,
    },
    /// A process has told something that changes no state, by a message to the notify socket. The event of its start
    /// comes before this one.
    Notice {
        /// The instance of the process.
        instance: InstanceId,
        /// The group of the instance.
        group: GroupId,
        /// The group's name and the instance's number.
        name: Name,
        /// What it has told.
        notice: ProcessNotice,
    },
    /// A reload of a program ([`Supervisor::reload_program`](crate::Supervisor::reload_program)) has ended.
    Reloaded {
        /// The instance that was to reload.
        instance: InstanceId,
        /// The group of the instance.
        group: GroupId,
        /// The group's name and the instance's number.
        name: Name,
        /// How it has ended.
        result: ReloadResult,
    },
    /// A [reload](crate::Supervisor::reload) has changed the limits of a group, and the kernel refused one of them for
    /// the cgroup of a living run. That run keeps its old limit. The next run is a failed start if the kernel refuses
    /// it again.
    LimitFailed {
        /// The instance of the run.
        instance: InstanceId,
        /// The group of the instance.
        group: GroupId,
        /// The group's name and the instance's number.
        name: Name,
        /// The name of the file that could not be written.
        file: String,
        /// The kernel's errno.
        errno: i32,
    },
    /// The [command after a run](crate::supervisor::GroupSpec::after_run) failed. It changes nothing: the run is judged
    /// by its own end. The failure of a command before a run is the
    /// [cause](crate::lifecycle::Failure::Before) of a transition.
    CommandFailed {
        /// The instance of the run.
        instance: InstanceId,
        /// The group of the instance.
        group: GroupId,
        /// The group's name and the instance's number.
        name: Name,
        /// The number of the run.
        run: u64,
        /// The process of the command; `None` if it could not be spawned.
        pid: Option<Pid>,
        /// Why the command failed.
        failure: CommandFailure,
        /// Why the spawn failed; `None` if it succeeded.
        error: Option<SpawnError>,
    },
    /// A [command of a stop ladder](crate::lifecycle::Rung::Command) runs: its process was made.
    StopCommandStarted {
        /// The instance that is being stopped.
        instance: InstanceId,
        /// The group of the instance.
        group: GroupId,
        /// The group's name and the instance's number.
        name: Name,
        /// The number of the run.
        run: u64,
        /// The number of the rung in its ladder, from 0 up.
        rung: u8,
        /// The number of the command among the [stop commands](crate::GroupSpec::stop_command) of the group, from 0 up.
        index: u8,
        /// The process of the command.
        pid: Pid,
    },
    /// A [command of a stop ladder](crate::lifecycle::Rung::Command) is over, and nothing is left of its process
    /// group. If it could not be spawned, there may have been no [`Event::StopCommandStarted`].
    StopCommandEnded {
        /// The instance that is being stopped.
        instance: InstanceId,
        /// The group of the instance.
        group: GroupId,
        /// The group's name and the instance's number.
        name: Name,
        /// The number of the run.
        run: u64,
        /// The number of the rung in its ladder, from 0 up.
        rung: u8,
        /// The number of the command among the [stop commands](crate::GroupSpec::stop_command) of the group, from 0 up.
        index: u8,
        /// The process of the command; `None` if there was none.
        pid: Option<Pid>,
        /// How the command has ended.
        end: StopCommandEnd,
        /// Why the spawn failed; `None` if it succeeded, or if a reload has removed the command.
        error: Option<SpawnError>,
    },
    /// A signal of the supervisor's [`SignalFd`](crate::SignalFd) arrived at the host's process.
    Signal(SignalInfo),
    /// A rolling restart has ended.
    ///
    /// If the group is removed during the restart, only [`Event::GroupRemoved`] is reported.
    Rolled {
        /// The group that was restarted.
        group: GroupId,
        /// The name of the group.
        name: Arc<str>,
        /// The instance that failed to start and thereby ended the restart early; `None` if all instances were
        /// restarted.
        failed: Option<InstanceId>,
    },
    /// An [adopted](crate::supervisor::Builder::adopt_orphans) orphan ended, and was reaped.
    Orphan(ExitRecord),
    /// The start of an instance waits for another group ([`GroupSpec::after`](crate::GroupSpec::after),
    /// [`GroupSpec::requires`](crate::GroupSpec::requires)). [`Status::waits_for`](crate::supervisor::Status::waits_for)
    /// has all groups that it still waits for.
    StartWaits {
        /// The instance that is to be started.
        instance: InstanceId,
        /// The group of the instance.
        group: GroupId,
        /// The group's name and the instance's number.
        name: Name,
        /// The first group that it waits for.
        awaited: GroupId,
        /// The name of that group.
        awaited_name: Arc<str>,
    },
    /// A start that waited for another group does not take place.
    StartWithdrawn {
        /// The instance that was to be started. Its state has not changed.
        instance: InstanceId,
        /// The group of the instance.
        group: GroupId,
        /// The group's name and the instance's number.
        name: Name,
        /// Why: [`Cause::Requested`] for a stop, [`Cause::SiblingEnded`] for a stop of the group, [`Cause::RequirementFailed`], [`Cause::RequirementStopped`] or
        /// [`Cause::RequirementRemoved`] for a group that it requires, [`Cause::Adopted`] if the instance has got a
        /// process.
        cause: Cause,
    },
    /// The end of one instance has ended its group
    /// ([`GroupSpec::auto_shutdown`](crate::GroupSpec::auto_shutdown), [`GroupSpec::strategy`](crate::GroupSpec::strategy)).
    /// The instances that were up are being stopped ([`Cause::SiblingEnded`]), and all stay down until they are started.
    GroupStops {
        /// The instance that has ended for good.
        instance: InstanceId,
        /// The group that stops.
        group: GroupId,
        /// The group's name and the instance's number.
        name: Name,
        /// Why its end is that of the group.
        reason: StopReason,
    },
    /// A group was removed, together with its last instance.
    GroupRemoved {
        /// The id of the removed group, which refers to nothing from now on.
        group: GroupId,
        /// The name of the group.
        name: Arc<str>,
    },
}

/// Why the end of one instance is that of its group.
///
/// ```
/// use pidherd::supervisor::StopReason;
///
/// assert_eq!("given-up".parse(), Ok(StopReason::GivenUp));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum StopReason {
    /// The group ends with the first of them
    /// ([`AutoShutdown::AnyEnd`](crate::lifecycle::AutoShutdown::AnyEnd)).
    AnyEnd,
    /// It was the last one, and the group ends with it
    /// ([`AutoShutdown::AllEnd`](crate::lifecycle::AutoShutdown::AllEnd)). Nothing was left to stop.
    AllEnd,
    /// It was given up, and its siblings do not work without it ([`Strategy`](crate::lifecycle::Strategy)).
    GivenUp,
}

machine_names! { StopReason, "reason of a stop of a group",
    AnyEnd = "any-end"
    AllEnd = "all-end"
    GivenUp = "given-up"
}

shown_by_name! { StopReason }

/// What a process has told about itself, besides what changes its state (sd_notify(3)).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum ProcessNotice {
    /// `RELOADING=1`: it reads its configuration again.
    Reloading,
    /// `READY=1` of a running process: it has read its configuration.
    Ready,
    /// `STOPPING=1`: it has begun to end.
    Stopping,
    /// `ERRNO=`: a failure with this errno, which usually ends the process.
    Errno(i32),
    /// `WATCHDOG_USEC=`: it reports at least this often from now on. This is the time of its watchdog until the end of
    /// the run, if the policy has a [watchdog](crate::lifecycle::Policy::watchdog).
    WatchdogEvery(Duration),
    /// `FDSTORE=1`: descriptors were stored for the next run
    /// ([`GroupSpec::descriptor_store`](crate::GroupSpec::descriptor_store)).
    DescriptorsStored {
        /// Their name.
        name: Arc<str>,
        /// Their number, at least 1.
        count: u32,
    },
    /// Stored descriptors were removed and closed.
    DescriptorsRemoved {
        /// Their name.
        name: Arc<str>,
        /// Their number. It is 0 if no stored descriptor had the name.
        count: u32,
        /// Why they were removed.
        reason: RemovalReason,
    },
    /// Descriptors of a message were not stored, and were closed. There is one notice for each message and reason.
    DescriptorsRefused {
        /// Their number. Those that the kernel has discarded are not counted.
        count: u32,
        /// Why they were refused.
        reason: RefusalReason,
    },
}

/// Why stored descriptors were removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum RemovalReason {
    /// `FDSTOREREMOVE=1`.
    Requested,
    /// The other side is gone: epoll_ctl(2) reports EPOLLHUP or EPOLLERR.
    HungUp,
}

machine_names! { RemovalReason, "reason of a removal",
    Requested = "requested"
    HungUp = "hung-up"
}

/// Why descriptors were not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum RefusalReason {
    /// The group has no descriptor store.
    NoStore,
    /// The instance has as many descriptors as it may have.
    Full,
    /// The same open file is stored already.
    Duplicate,
    /// `FDNAME` is invalid, or `FDSTOREREMOVE=1` came without it.
    Name,
    /// The host had too few free descriptors (RLIMIT_NOFILE), so the kernel has discarded some. None of the message is
    /// stored.
    Lost,
    /// A descriptor cannot be watched or inspected: the errno of epoll_ctl(2) or fstat(2).
    Errno(i32),
}

impl RefusalReason {
    /// The name of the kind of reason, without its data, for programs. It does not change in later versions.
    ///
    /// ```
    /// assert_eq!(pidherd::supervisor::RefusalReason::NoStore.as_str(), "no-store");
    /// ```
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.name().as_str()
    }

    /// The kind, without its data.
    ///
    /// ```
    /// use pidherd::supervisor::{RefusalName, RefusalReason};
    ///
    /// assert_eq!(RefusalReason::Errno(9).name(), RefusalName::Errno);
    /// assert_eq!("full".parse(), Ok(RefusalName::Full));
    /// ```
    #[must_use]
    pub const fn name(&self) -> RefusalName {
        match self {
            RefusalReason::NoStore => RefusalName::NoStore,
            RefusalReason::Full => RefusalName::Full,
            RefusalReason::Duplicate => RefusalName::Duplicate,
            RefusalReason::Name => RefusalName::Name,
            RefusalReason::Lost => RefusalName::Lost,
            RefusalReason::Errno(_) => RefusalName::Errno,
        }
    }
}

/// The kinds of a [`RefusalReason`]. Their texts are those of [`RefusalReason::as_str`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalName {
    /// See [`RefusalReason::NoStore`].
    NoStore,
    /// See [`RefusalReason::Full`].
    Full,
    /// See [`RefusalReason::Duplicate`].
    Duplicate,
    /// See [`RefusalReason::Name`].
    Name,
    /// See [`RefusalReason::Lost`].
    Lost,
    /// See [`RefusalReason::Errno`].
    Errno,
}

machine_names! { RefusalName, "reason of a refusal",
    NoStore = "no-store"
    Full = "full"
    Duplicate = "duplicate"
    Name = "name"
    Lost = "lost"
    Errno = "errno"
}

shown_by_name! { RefusalName }

/// How a reload of a program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum ReloadResult {
    /// The process has reported `RELOADING=1` and then `READY=1`.
    Done,
    /// The process did not report in time. It goes on running.
    TimedOut,
    /// The process ended, or its stop began.
    Ended,
}

machine_names! { ReloadResult, "result of a reload",
    Done = "done"
    TimedOut = "timed-out"
    Ended = "ended"
}

/// An instance's group name and its number in the group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Name {
    /// The group's name.
    pub group: Arc<str>,
    /// The instance's number in the group, from 0 up.
    pub number: u32,
}

impl fmt::Display for Name {
    /// `group:number`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.group, self.number)
    }
}

/// A change of an instance's state.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct TransitionEvent {
    /// The instance that changed its state.
    pub instance: InstanceId,
    /// The group of the instance.
    pub group: GroupId,
    /// The group's name and the instance's number.
    pub name: Name,
    /// The state before the transition.
    pub from: StateName,
    /// The state after the transition.
    pub to: StateName,
    /// Why the state changed.
    pub cause: Cause,
    /// The process concerned: at the transition to `Starting` or `Preparing` the new one, otherwise the one that was
    /// alive: at the transition to `CleaningUp` that of the run, and after it that of the command after the run. `None` if
    /// there was none, or if it does not exist yet.
    pub pid: Option<Pid>,
    /// The number of the instance's run, from 1 up.
    pub run: u64,
    /// The time of the transition on the supervisor's clock.
    pub at: Instant,
    /// The time of the transition on the wall clock, for display.
    pub wall: SystemTime,
    /// How the process of the run ended; `None` if it did not end with this transition.
    pub exit: Option<ExitRecord>,
    /// Why the spawn failed; `None` unless a failed spawn caused this transition.
    pub error: Option<SpawnError>,
}

/// The queue of events. When it is full, the oldest event is dropped, because a late host needs the current state and
/// the number of dropped events.
pub(crate) struct Events {
    queue: VecDeque<Event>,
    capacity: usize,
    dropped: u64,
    /// How many events were ever pushed.
    pushed: u64,
    news: Collected,
    /// What is called with each event, until it returns false.
    listeners: Vec<Listener>,
}

/// What is called with each event. It returns whether it wants more.
pub(crate) type Listener = Box<dyn FnMut(&Event) -> bool + Send>;

/// Which events a wakeup has announced to the host, counted as in [`Events::latest`].
///
/// A wakeup is armed for new events. When it has come, they are no longer new, so a host that never fetches events is
/// woken once. Events of a command are always announced. Events of the host's own loop are announced only to a host
/// that fetches events, because the host may have fetched them just before. The next call of a loop that calls until
/// `Nothing` may consume a wakeup before the host has waited. So only a wakeup that is armed by a command, or with the
/// answer `Nothing`, is a *promise*, and only a kept promise has announced anything.
#[derive(Default)]
struct Collected {
    announced: u64,
    promised: u64,
    /// The count of events that the armed wakeup announces; `None` if no wakeup is armed.
    armed: Option<u64>,
    /// Whether the host has ever asked for an event.
    fetches: bool,
}

/// The capacity that is reserved in advance. A queue that may hold more grows when needed.
const RESERVED: usize = 4_096;

impl Events {
    pub(crate) fn new(capacity: usize) -> Events {
        Events {
            queue: VecDeque::with_capacity(capacity.min(RESERVED)),
            capacity,
            dropped: 0,
            pushed: 0,
            news: Collected::default(),
            listeners: Vec::new(),
        }
    }

    /// Calls this with each event from now on.
    pub(crate) fn listen(&mut self, listener: Listener) {
        self.listeners.push(listener);
    }

    pub(crate) fn push(&mut self, event: Event) {
        self.listeners.retain_mut(|listener| listener(&event));
        self.append(event);
    }

    fn append(&mut self, event: Event) {
        self.pushed = self.pushed.saturating_add(1);
        if self.capacity == 0 {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        if self.queue.len() == self.capacity {
            self.queue.pop_front();
            self.dropped = self.dropped.saturating_add(1);
        }
        self.queue.push_back(event);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The events that were not fetched, the oldest first.
    pub(crate) fn waiting(&self) -> impl ExactSizeIterator<Item = &Event> {
        self.queue.iter()
    }

    /// Continues the queue of another supervisor, before any event of this one.
    pub(crate) fn restore(&mut self, waiting: VecDeque<Event>, dropped: u64) {
        self.dropped = dropped;
        waiting.into_iter().for_each(|event| self.append(event));
    }

    /// Takes the oldest event. The flag is true if the announcement changes: the queue is empty now, or it is not and
    /// no wakeup is armed for it.
    pub(crate) fn fetch(&mut self) -> (Option<Event>, bool) {
        let event = self.queue.pop_front();
        self.news.fetches = true;
        let is_armed = self.news.armed.is_some();
        if self.queue.is_empty() {
            let all = self.latest(false);
            (self.news.announced, self.news.promised) = (all, all);
            let is_last = is_armed || event.is_some();
            return (event, is_last);
        }
        if !is_armed {
            self.news.announced = 0;
        }
        (event, !is_armed)
    }

    /// The count of all facts to announce: each event, and the fact that everything is down.
    const fn latest(&self, is_down: bool) -> u64 {
        self.pushed.saturating_mul(2).saturating_add(is_down as u64)
    }

    /// Whether the host must be woken for facts that were not announced. `asked` is the answer to a call of the host's
    /// loop; it is `None` for a command.
    pub(crate) fn announce(&mut self, is_down: bool, asked: Option<Progress>) -> bool {
        let latest = self.latest(is_down);
        let is_new = (is_down || !self.is_empty()) && latest > self.news.announced;
        let is_promised = self.news.promised > self.news.announced;
        let is_told = is_new && (asked.is_none() || self.news.fetches || is_down || is_promised);
        self.news.armed = is_told.then_some(latest);
        if is_told && asked.is_none_or(|progress| progress == Progress::Nothing) {
            self.news.promised = latest;
        }
        is_told
    }

    /// Announces once more that everything is down, because the host has called shutdown again and waits for it.
    pub(crate) fn announce_down_again(&mut self) {
        self.news.announced = self.news.announced.min(self.latest(false));
    }

    /// The armed wakeup has come.
    pub(crate) fn acknowledge(&mut self) {
        let Some(armed) = self.news.armed.take() else { return };
        self.news.announced = match self.news.fetches {
            true => self.news.announced.max(self.news.promised),
            false => armed,
        };
    }

    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many events were ever pushed.
    #[cfg(test)]
    pub(crate) const fn pushed(&self) -> u64 {
        self.pushed
    }
}

stored!(enum Event {
    0 = Transition(event),
    1 = Unkillable { instance, group, name, pid },
    2 = SignalFailed { instance, group, name, signal, errno },
    3 = Signal(info),
    4 = Rolled { group, name, failed },
    5 = Orphan(record),
    6 = GroupRemoved { group, name },
    7 = Notice { instance, group, name, notice },
    8 = Reloaded { instance, group, name, result },
    9 = LimitFailed { instance, group, name, file, errno },
    10 = StartWaits { instance, group, name, awaited, awaited_name },
    11 = StartWithdrawn { instance, group, name, cause },
    12 = CommandFailed { instance, group, name, run, pid, failure, error },
    13 = GroupStops { instance, group, name, reason },
    14 = StopCommandStarted { instance, group, name, run, rung, index, pid },
    15 = StopCommandEnded { instance, group, name, run, rung, index, pid, end, error },
});
stored!(enum ProcessNotice { 0 = Reloading, 1 = Ready, 2 = Stopping, 3 = Errno(errno), 4 = WatchdogEvery(every),
    5 = DescriptorsStored { name, count },
    6 = DescriptorsRemoved { name, count, reason },
    7 = DescriptorsRefused { count, reason },
});
stored!(enum RemovalReason { 0 = Requested, 1 = HungUp });
stored!(enum RefusalReason { 0 = NoStore, 1 = Full, 2 = Duplicate, 3 = Name, 4 = Lost, 5 = Errno(errno) });
stored!(enum StopReason { 0 = AnyEnd, 1 = AllEnd, 2 = GivenUp });
stored!(enum ReloadResult { 0 = Done, 1 = TimedOut, 2 = Ended });
stored!(struct Name { group, number });
stored!(struct TransitionEvent {
    instance,
    group,
    name,
    from,
    to,
    cause,
    pid,
    run,
    at,
    wall,
    exit,
    error,
});

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event::GroupRemoved {
            group: crate::engine::arena::Arena::new(0).insert(()),
            name: "a".into(),
        }
    }

    fn queue(capacity: usize) -> Events {
        Events::new(capacity)
    }

    const DONE: Option<Progress> = Some(Progress::Done);
    const NOTHING: Option<Progress> = Some(Progress::Nothing);

    #[test]
    fn events_of_a_command_wake_a_host_once() {
        let mut events = queue(10);
        assert!(!events.announce(false, None), "there are none");
        events.push(event());
        assert!(events.announce(false, None));
        assert!(events.announce(false, DONE), "the wakeup has not come yet");
        events.acknowledge();
        assert!(!events.announce(false, NOTHING));
        events.push(event());
        assert!(events.announce(false, None), "another one");
    }

    #[test]
    fn events_of_the_loop_wake_a_host_that_fetches_events() {
        let mut events = queue(10);
        events.push(event());
        assert!(!events.announce(false, DONE), "it never has");
        assert!(events.fetch().0.is_some());
        events.push(event());
        assert!(events.announce(false, DONE));
        // The next call of a loop until nothing consumes the wakeup.
        events.acknowledge();
        assert!(events.announce(false, NOTHING), "so there is another one");
        events.acknowledge();
        assert!(!events.announce(false, NOTHING));
    }

    #[test]
    fn the_last_event_takes_the_wakeup_back() {
        let mut events = queue(10);
        events.push(event());
        events.push(event());
        assert!(events.announce(false, None));
        assert!(matches!(events.fetch(), (Some(_), false)));
        assert!(matches!(events.fetch(), (Some(_), true)));
        assert!(!events.announce(false, None));
        assert!(matches!(events.fetch(), (None, false)));
    }

    #[test]
    fn an_event_that_is_left_wakes_a_host_again() {
        let mut events = queue(10);
        events.push(event());
        events.push(event());
        assert!(events.announce(false, None));
        events.acknowledge();
        assert!(!events.announce(false, NOTHING));
        assert!(matches!(events.fetch(), (Some(_), true)));
        assert!(events.announce(false, None));
    }

    #[test]
    fn that_everything_is_down_wakes_a_host_once_for_each_shutdown() {
        let mut events = queue(0);
        events.push(event());
        for _ in 0..2 {
            events.announce_down_again();
            assert!(events.announce(true, DONE));
            events.acknowledge();
            assert!(!events.announce(true, NOTHING));
        }
        assert_eq!(events.dropped(), 1);
    }

    #[test]
    fn an_event_after_everything_was_down_wakes_a_host() {
        let mut events = queue(10);
        assert!(events.announce(true, None));
        events.acknowledge();
        events.push(event());
        assert!(events.announce(false, None));
    }
}
