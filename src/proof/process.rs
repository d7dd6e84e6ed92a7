//! A simulated process: what it does by itself, the effect of signals, and what it leaves behind in its process group.

use std::time::Duration;

use super::fault_profile::{FAILED, with_descriptor};
use crate::cgroup::{OomKill, OomLimit};
use crate::exit::{Exit, Pid};
use crate::launcher::next_look;
use crate::lifecycle::Part;
use crate::signal::Signal;
use crate::time::Instant;

/// The behaviour of a process. All times are counted from the execution of its program.
#[derive(Clone, Debug, Default)]
pub(super) struct Habits {
    /// When it ends by itself, counted from its start; `None` for never.
    pub(super) ends: Option<(Duration, Exit)>,
    /// When it stops itself (SIGSTOP).
    pub(super) stops: Option<Duration>,
    /// Its reaction to a signal that can be caught: it ends after this time, or ignores the signal.
    pub(super) ends_on_signal: Option<(Duration, Exit)>,
    /// How long SIGKILL takes. A process that hangs in the kernel takes longer than nothing.
    pub(super) dying: Duration,
    /// When it reports readiness (`true`) or closes its readiness descriptor (`false`).
    pub(super) readiness: Option<(Duration, bool)>,
    /// The messages that it sends to the notify socket, and when.
    pub(super) messages: Vec<(Duration, &'static str)>,
    /// The processes that it starts.
    pub(super) others: Vec<Member>,
}

/// A process that was started by a process.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Whether it is still in the process group.
    pub(super) in_group: bool,
    pub(super) ends: Instant,
    pub(super) ends_on_signal: bool,
    /// Whether its parent reaps it when it has ended.
    pub(super) is_reaped: bool,
    pub(super) alive: bool,
}

/// The environment of a new process.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) leads: bool,
    pub(super) home: Option<String>,
    /// Whether it has a readiness descriptor.
    pub(super) has_ready_fd: bool,
    /// Whether it has the address of the notify socket.
    pub(super) socket: bool,
    /// Whether it may store descriptors.
    pub(super) stores: bool,
    /// Whether it runs the program of a run, or the command before or after it.
    pub(super) part: Part,
}

/// How a process comes to execute its program, if its spawn is in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Takeoff {
    /// How long the execution takes; `Duration::MAX` if it hangs until the process is killed.
    pub(super) takes: Duration,
    /// The errno of an execution that fails.
    pub(super) fails: Option<i32>,
    /// Whether signals are blocked meanwhile. Otherwise they have their default effect.
    pub(super) blocks: bool,
}

/// A spawn in flight, until the supervisor has learned how it ended.
#[derive(Debug)]
struct Flight {
    began: Instant,
    blocks: bool,
    /// What the process does after the execution.
    habits: Habits,
    /// When the execution ends, and the errno of one that fails; `None` after that.
    ends: Option<(Instant, Option<i32>)>,
    /// The errno of the execution that failed.
    failed: Option<i32>,
    /// Whether the program that began it was replaced. Then the errno is known from the exit code alone.
    is_inherited: bool,
    /// Whether the supervisor looks at it. Otherwise nothing reports how it ends.
    is_watched: bool,
}

/// How a spawn in flight ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Landing {
    /// The program was executed at this time.
    Executed(Instant),
    /// The execution failed, and the process was reaped.
    Failed(i32),
    /// The process ended before that, and was not reaped.
    Killed,
}

/// The phase of a process's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Alive,
    /// It has ended and was not collected.
    Zombie,
    /// It was collected, and its group can still be signalled.
    Held,
    /// It was collected, and its group cannot be signalled.
    Reaped,
}

/// One simulated process.
#[derive(Debug)]
pub(super) struct SimProcess {
    /// A number that is never reused, unlike the pid.
    pub(super) serial: u64,
    pub(super) pid: Pid,
    /// When it was made.
    pub(super) made_at: Instant,
    /// Whether its parent has ended, so that another process reaps it.
    pub(super) is_foreign: bool,
    /// How long its other parent takes to reap it.
    reaped_after: Duration,
    /// Whether the kernel tells how it ended.
    is_told: bool,
    /// The slot of the instance that it was spawned for.
    pub(super) owner: u32,
    pub(super) part: Part,
    pub(super) phase: Phase,
    /// How it ended; without meaning while it is alive.
    pub(super) exit: Exit,
    /// Whether it leads a process group.
    pub(super) leads: bool,
    /// Whether it has a readiness descriptor.
    has_ready_fd: bool,
    /// Whether it has the address of the notify socket.
    pub(super) socket: bool,
    /// Whether it may store descriptors.
    stores: bool,
    /// The cgroup it was started in.
    pub(super) home: Option<String>,
    pub(super) others: Vec<Member>,
    /// When it executed its program.
    pub(super) executed: Option<Instant>,
    flight: Option<Flight>,
    /// Whether its cgroup has become empty and the descriptor was not read since.
    news: bool,
    readiness: Option<(Instant, bool)>,
    /// Its readiness report that was not read yet.
    unread_report: Option<bool>,
    /// The messages that it is going to send, the next one last.
    messages: Vec<(Instant, &'static str)>,
    /// The messages that it sent while time advanced.
    pub(super) sent: Vec<(Instant, &'static str)>,
    ends: Option<(Instant, Exit)>,
    stops: Option<Instant>,
    /// The time before which its status is not available, although it has ended, because a tracer holds it.
    held: Option<Instant>,
    /// The time of the next look, while its descriptor is out of the set or its spawn is in flight.
    pub(super) look: Option<Instant>,
    looks: u32,
    /// Whether its descriptor is out of the set.
    is_out: bool,
    killed: Option<Instant>,
    ends_on_signal: Option<(Duration, Exit)>,
    dying: Duration,
    stopped: bool,
    /// When it was last continued.
    continued: Instant,
    /// Whether it has got a signal that ends it.
    has_fatal_signal: bool,
    /// A signal that arrived while it was stopped.
    unseen: Option<Signal>,
}

pub(super) const KILLED: Exit = Exit::Signal {
    signal: Signal::KILL,
    core: false,
};

/// The longest time that SIGKILL takes in a world without faults.
pub(super) const SOON: Duration = Duration::from_millis(300);

/// How long a process takes to close its files after its execution has failed.
const CLOSING: Duration = Duration::from_micros(10);

/// What this kernel tells of its kills for lack of memory in the run of the process with this number.
pub(super) const fn oom_of(serial: u64) -> Option<OomKill> {
    let limit = match serial % 3 {
        0 => return None,
        1 => OomLimit::Own,
        _ => OomLimit::Ancestor { levels: 1 },
    };
    Some(OomKill {
        limit,
        is_certain: serial % 2 == 0,
    })
}

impl SimProcess {
    /// A process that has executed its program; with `takeoff`, one that has not yet.
    pub(super) fn new(
        id: (u64, Pid),
        owner: u32,
        place: Place,
        (habits, takeoff): (Habits, Option<Takeoff>),
        now: Instant,
    ) -> SimProcess {
        let (serial, pid) = id;
        let Place {
            leads,
            home,
            has_ready_fd,
            socket,
            stores,
            part,
        } = place;
        let mut process = SimProcess {
            serial,
            pid,
            made_at: now,
            is_foreign: false,
            reaped_after: Duration::ZERO,
            is_told: true,
            owner,
            part,
            phase: Phase::Alive,
            exit: Exit::Unknown,
            others: Vec::new(),
            executed: None,
            flight: None,
            leads,
            has_ready_fd,
            socket,
            stores,
            home,
            news: false,
            readiness: None,
            unread_report: None,
            messages: Vec::new(),
            sent: Vec::new(),
            ends: None,
            stops: None,
            held: None,
            look: None,
            looks: 0,
            is_out: false,
            killed: None,
            ends_on_signal: None,
            dying: habits.dying,
            stopped: false,
            continued: now,
            has_fatal_signal: false,
            unseen: None,
        };
        match takeoff {
            None => process.execute(habits, now),
            Some(Takeoff { takes, fails, blocks }) => {
                process.flight = Some(Flight {
                    began: now,
                    blocks,
                    habits,
                    ends: Some((now.saturating_add(takes), fails)),
                    failed: None,
                    is_inherited: false,
                    is_watched: true,
                });
                process.schedule_look(now);
            }
        }
        process
    }

    /// Executes its program.
    fn execute(&mut self, habits: Habits, now: Instant) {
        self.executed = Some(now);
        let sent = habits.messages.iter().filter(|_| self.socket);
        let stores = self.stores;
        let sent = sent.map(|&(after, text)| (after, if stores { with_descriptor(text) } else { text }));
        self.messages = sent.map(|(after, text)| (now.saturating_add(after), text)).collect();
        self.messages.sort_by_key(|&(at, _)| std::cmp::Reverse(at));
        if self.leads || self.home.is_some() {
            self.others = habits.others;
        }
        let report = habits.readiness.filter(|_| self.has_ready_fd);
        self.readiness = report.map(|(after, ready)| (now.saturating_add(after), ready));
        self.ends = habits.ends.map(|(after, exit)| (now.saturating_add(after), exit));
        self.stops = habits.stops.map(|after| now.saturating_add(after));
        self.ends_on_signal = habits.ends_on_signal;
        if let Some(unseen) = self.unseen.take() {
            self.react(unseen, now);
        }
    }

    /// Whether the supervisor has not learned how its spawn ended.
    pub(super) fn is_in_flight(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.is_watched)
    }

    /// When it executed its program, if the supervisor can know that and has not learned it.
    pub(super) fn has_executed(&self) -> Option<Instant> {
        let flight = self.flight.as_ref()?;
        let is_known = flight.is_watched && !flight.is_inherited && flight.failed.is_none();
        self.executed.filter(|_| is_known)
    }

    /// Forgets that its spawn is in flight, so that nothing reports the execution.
    pub(super) fn forget_flight(&mut self) {
        self.flight = None;
        self.look = None;
    }

    /// Looks at a spawn in flight. `None` if it still is in flight.
    pub(super) fn land(&mut self, now: Instant) -> Option<Landing> {
        let flight = self.flight.as_ref().filter(|flight| flight.is_watched)?;
        let is_gone = self.is_foreign && self.phase == Phase::Zombie && !self.is_held(now);
        let landing = match (flight.failed, self.executed) {
            // Its other parent has reaped it, and nothing tells any more whether it has executed its program.
            _ if is_gone => Landing::Killed,
            (Some(_), _) if self.phase == Phase::Alive || self.is_held(now) => return None,
            (Some(_), _) if flight.is_inherited && self.exit.code().is_none() => Landing::Killed,
            (Some(errno), _) => Landing::Failed(errno),
            (None, Some(at)) => Landing::Executed(at),
            (None, None) if self.phase == Phase::Alive => return None,
            (None, None) => Landing::Killed,
        };
        self.flight = None;
        Some(landing)
    }

    /// Whether a descriptor of it is readable.
    pub(super) fn is_ready(&self) -> bool {
        (self.phase == Phase::Zombie && !self.is_out)
            || (self.phase == Phase::Held && self.news)
            || self.unread_report.is_some()
    }

    /// Reads its readiness report.
    pub(super) fn hear(&mut self) -> Option<bool> {
        self.unread_report.take()
    }

    /// Whether a descriptor of it is in the set.
    pub(super) fn is_watched(&self) -> bool {
        match self.phase {
            Phase::Alive => true,
            Phase::Zombie => !self.is_out || self.unread_report.is_some(),
            Phase::Held => self.home.is_some() || self.unread_report.is_some(),
            Phase::Reaped => false,
        }
    }

    /// From now on a tracer holds its status, until this time.
    pub(super) fn hold(&mut self, until: Instant) {
        self.held.get_or_insert(until);
    }

    /// Whether it has ended and cannot be collected.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.phase == Phase::Zombie && self.held.is_some_and(|until| now < until)
    }

    /// The time until which a tracer holds it.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held.filter(|_| self.phase == Phase::Zombie)
    }

    /// Takes its descriptor out of the set, because its status is not available.
    pub(super) fn take_out(&mut self) {
        self.is_out = true;
    }

    /// Sets the time of the next look after it was collected, if it needs one.
    pub(super) fn schedule_look(&mut self, now: Instant) {
        self.look = match &self.flight {
            Some(flight) if flight.is_watched => Some(next_look(now, now.saturating_duration_since(flight.began))),
            _ if self.is_out && self.phase == Phase::Zombie => {
                self.looks += 1;
                Some(now.saturating_add(Duration::from_millis(1 << (self.looks - 1).min(7))))
            }
            _ => None,
        };
    }

    /// Another program goes on with it.
    pub(super) fn pass_on(&mut self, now: Instant) {
        if let Some(flight) = self.flight.as_mut().filter(|flight| flight.is_watched) {
            flight.is_inherited = true;
            self.schedule_look(now);
        } else if self.is_out && self.phase == Phase::Zombie {
            self.look = Some(now);
        }
        // The descriptor of its cgroup was opened anew, and is readable once.
        self.news |= self.phase == Phase::Held && self.home.is_some();
    }

    /// Reads the descriptor of its cgroup. Returns whether the cgroup is empty.
    pub(super) fn acknowledge(&mut self) -> bool {
        self.phase == Phase::Held && std::mem::take(&mut self.news) && !self.is_populated()
    }

    /// Whether a process that it started is alive.
    pub(super) fn is_populated(&self) -> bool {
        self.others.iter().any(|member| member.alive)
    }

    pub(super) fn has_living_members(&self) -> bool {
        self.leads && self.others.iter().any(|member| member.in_group && member.alive)
    }

    /// Whether a process keeps the group's number in use, including zombies that are not reaped.
    pub(super) fn has_members(&self) -> bool {
        let stays = |member: &Member| member.in_group && (member.alive || !member.is_reaped);
        self.leads && self.others.iter().any(stays)
    }

    /// From now on it stays alive, reacts to signals and does not report that it has failed. Past events are not
    /// undone.
    pub(super) fn mend(&mut self, now: Instant) {
        let soon = now.saturating_add(SOON);
        let stays = self.executed.is_some() && !self.has_fatal_signal;
        self.ends = self.ends.filter(|_| !stays).map(|(at, exit)| (at.min(soon), exit));
        let is_command = self.part != Part::Program;
        if is_command && self.executed.is_some() {
            // The command succeeds.
            self.ends = Some((now.saturating_add(Duration::from_millis(1)), Exit::Code(0)));
            self.stopped = false;
            self.stops = None;
        }
        if let Some(flight) = &mut self.flight {
            flight.habits.ends = is_command.then_some((Duration::from_millis(1), Exit::Code(0)));
            flight.habits.stops = None;
            flight.habits.messages.retain(|&(_, text)| text != FAILED);
            flight.habits.ends_on_signal = flight
                .habits
                .ends_on_signal
                .map(|(_, exit)| (Duration::from_millis(10), exit));
        }
        self.ends_on_signal = self.ends_on_signal.map(|(_, exit)| (Duration::from_millis(10), exit));
        self.messages.retain(|&(_, text)| text != FAILED);
        self.dying = self.dying.min(SOON);
        self.reaped_after = self.reaped_after.min(SOON);
        self.held = self.held.map(|until| until.min(soon));
        self.killed = self.killed.map(|at| at.min(soon));
    }

    /// Its execution takes no longer than this from now on, and nothing keeps it stopped until it is over.
    pub(super) fn execute_within(&mut self, time: Duration, now: Instant) {
        if let Some(flight) = &mut self.flight {
            self.stopped = false;
            let soon = now.saturating_add(time);
            flight.ends = flight.ends.map(|(at, failed)| (at.min(soon), failed));
        }
    }

    /// From now on it ignores every signal but SIGKILL.
    pub(super) fn ignore_signals(&mut self) {
        self.ends_on_signal = None;
    }

    /// The time of its next own action.
    pub(super) fn next(&self) -> Option<Instant> {
        let members = self
            .others
            .iter()
            .filter(|member| member.alive)
            .map(|member| member.ends);
        let ends = self.ends.filter(|_| !self.stopped).map(|(at, _)| at);
        let report = self.readiness.filter(|_| !self.stopped).map(|(at, _)| at);
        let message = self.messages.last().filter(|_| !self.stopped).map(|&(at, _)| at);
        let flight = self.flight.as_ref().and_then(|flight| flight.ends);
        let executes = flight
            .filter(|_| !self.stopped && self.killed.is_none())
            .map(|(at, _)| at);
        let own = [ends, self.stops, self.killed, report, message, executes]
            .into_iter()
            .flatten();
        let own = own.filter(|_| self.phase == Phase::Alive);
        own.chain(members).filter(|&at| at != Instant::NEVER).min()
    }

    /// Advances its time.
    pub(super) fn pass(&mut self, now: Instant) {
        if self.phase == Phase::Alive {
            self.end_flight(now);
        }
        self.lose(|member| member.ends <= now);
        if self.phase != Phase::Alive {
            return;
        }
        let end = self.ends.filter(|_| !self.stopped);
        if self
            .stops
            .is_some_and(|at| at <= now && end.is_none_or(|(ends, _)| at < ends))
        {
            self.stops = None;
            self.stopped = true;
        }
        let killed = self.killed.filter(|&at| at <= now).map(|at| (at, KILLED));
        let ended = self.ends.filter(|&(at, _)| at <= now && !self.stopped);
        let first = [ended, killed].into_iter().flatten().min_by_key(|&(at, _)| at);
        let report = self.readiness.filter(|&(at, _)| at <= now && !self.stopped);
        if let Some((_, ready)) = report.filter(|&(at, _)| first.is_none_or(|(ends, _)| at < ends)) {
            self.readiness = None;
            self.unread_report = Some(ready);
        }
        while let Some(&(at, text)) = self.messages.last() {
            if self.stopped || at > now || first.is_some_and(|(ends, _)| at >= ends) {
                break;
            }
            self.sent.push((at, text));
            self.messages.pop();
        }
        if let Some((_, exit)) = first {
            self.end(exit, now);
            // The descriptor is closed together with the process, which is no failure of readiness.
            self.unread_report = self.unread_report.filter(|&ready| ready);
        }
    }

    /// It ends. Its parent learns how, and others only if the kernel tells them.
    fn end(&mut self, exit: Exit, now: Instant) {
        self.phase = Phase::Zombie;
        self.exit = if self.is_told { exit } else { Exit::Unknown };
        if self.is_foreign {
            self.hold(now.saturating_add(self.reaped_after));
        }
    }

    /// The host that had made it is killed. Its other parent reaps it this long after its end.
    pub(super) fn lose_parent(&mut self, reaped_after: Duration, is_told: bool, now: Instant) {
        if !self.is_foreign {
            (self.reaped_after, self.is_told) = (reaped_after, is_told);
        }
        self.is_foreign = true;
        if self.phase == Phase::Zombie {
            self.end(self.exit, now);
        }
        (self.readiness, self.unread_report, self.has_ready_fd) = (None, None, false);
        (self.look, self.looks, self.is_out, self.news) = (None, 0, false, false);
        if let Some(flight) = &mut self.flight {
            flight.is_watched = false;
        }
    }

    /// Whether its number belongs to it. Its end may not be noticed yet when its other parent has reaped it.
    pub(super) fn has_number(&self, now: Instant) -> bool {
        self.phase == Phase::Alive || (self.phase == Phase::Zombie && (!self.is_foreign || self.is_held(now)))
    }

    /// The next host watches it. With `in_flight`, the host does not know whether it has executed its program.
    pub(super) fn watch_anew(&mut self, in_flight: Option<Instant>) {
        let Some(began) = in_flight else { return };
        let flight = self.flight.get_or_insert_with(|| Flight {
            began,
            blocks: false,
            habits: Habits::default(),
            ends: None,
            failed: None,
            is_inherited: true,
            is_watched: true,
        });
        flight.is_watched = true;
    }

    /// Ends the execution of its program, if it is time.
    fn end_flight(&mut self, now: Instant) {
        let first = self.ends.map(|(at, _)| at);
        let is_time = |&mut (at, _): &mut (Instant, _)| at <= now && first.is_none_or(|end| at < end);
        // After SIGKILL a process executes nothing, however long it hangs in the kernel.
        let stopped = self.stopped || self.killed.is_some();
        let Some(flight) = &mut self.flight else { return };
        let Some((at, fails)) = flight.ends.take_if(|ends| !stopped && is_time(ends)) else {
            return;
        };
        // A process that was stopped goes on when it is continued.
        let at = at.max(self.continued);
        match fails {
            Some(errno) => {
                flight.failed = Some(errno);
                self.ends = Some((at.saturating_add(CLOSING), Exit::Code(127)));
            }
            None => {
                let habits = flight.habits.clone();
                self.execute(habits, at);
            }
        }
    }

    /// Delivers a signal to it.
    pub(super) fn receive(&mut self, signal: Signal, now: Instant) {
        if self.phase != Phase::Alive {
            return;
        }
        match signal {
            Signal::KILL => {
                self.killed.get_or_insert(now.saturating_add(self.dying));
            }
            Signal::STOP => self.stopped = true,
            Signal::CONT => {
                self.stopped = false;
                self.continued = now;
                // SIGCONT discards a pending stop signal.
                if let Some(unseen) = self.unseen.take().filter(|signal| !signal.is_stop()) {
                    if self.blocks() {
                        self.unseen = Some(unseen);
                    } else {
                        self.react(unseen, now);
                    }
                }
            }
            other if self.stopped || self.blocks() => self.unseen = Some(other),
            other => self.react(other, now),
        }
        self.pass(now);
    }

    /// Delivers a signal to it and to the processes that it started: to all, or to those in its group.
    pub(super) fn receive_with_others(&mut self, signal: Signal, all: bool, now: Instant) {
        self.lose(|member| {
            let ends = signal == Signal::KILL || (member.ends_on_signal && signal.is_fatal());
            ends && (all || member.in_group)
        });
        self.receive(signal, now);
    }

    /// Ends some of the processes that it started.
    fn lose(&mut self, ends: impl Fn(&Member) -> bool) {
        let before = self.is_populated();
        for member in &mut self.others {
            member.alive &= !ends(member);
        }
        self.news |= self.home.is_some() && before && !self.is_populated();
    }

    /// Whether signals are blocked until its program is executed.
    fn blocks(&self) -> bool {
        self.executed.is_none() && self.flight.as_ref().is_some_and(|flight| flight.blocks)
    }

    fn react(&mut self, signal: Signal, now: Instant) {
        if self.executed.is_none() {
            // The child of a spawn has no handlers.
            self.stopped |= signal.is_stop();
            let ends = signal.is_fatal() && self.ends.is_none();
            let exit = Exit::Signal { signal, core: false };
            self.ends = self.ends.or(ends.then_some((now, exit)));
            return;
        }
        let Some((after, exit)) = self.ends_on_signal else {
            self.stopped |= signal.is_stop();
            return;
        };
        // A process that reacts to signals also has handlers for the stop signals.
        if signal.is_fatal() || signal.is_stop() {
            let at = now.saturating_add(after);
            self.has_fatal_signal = true;
            if self.ends.is_none_or(|(ends, _)| at < ends) {
                self.ends = Some((at, exit));
            }
        }
    }
}
