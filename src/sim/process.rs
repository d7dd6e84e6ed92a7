//! A simulated process: what it does by itself, the effect of signals, and what it leaves behind in its process group.

use std::time::Duration;

use crate::exit::{Exit, Pid};
use crate::signal::Signal;
use crate::time::Instant;

/// The behaviour of a process.
#[derive(Clone, Debug)]
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
    /// The slot of the instance that it was spawned for.
    pub(super) owner: u32,
    pub(super) phase: Phase,
    /// How it ended; without meaning while it is alive.
    pub(super) exit: Exit,
    /// Whether it leads a process group.
    pub(super) leads: bool,
    /// Whether it has the address of the notify socket.
    pub(super) socket: bool,
    /// The cgroup it was started in.
    pub(super) home: Option<String>,
    pub(super) others: Vec<Member>,
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
    /// The time of the next look, while its descriptor is out of the set.
    pub(super) look: Option<Instant>,
    looks: u32,
    killed: Option<Instant>,
    ends_on_signal: Option<(Duration, Exit)>,
    dying: Duration,
    stopped: bool,
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

impl SimProcess {
    pub(super) fn new(id: (u64, Pid), owner: u32, place: Place, habits: Habits, now: Instant) -> SimProcess {
        let (serial, pid) = id;
        let Place {
            leads,
            home,
            has_ready_fd,
            socket,
        } = place;
        let mut messages: Vec<_> = habits
            .messages
            .iter()
            .filter(|_| socket)
            .map(|&(after, text)| (now.saturating_add(after), text))
            .collect();
        messages.sort_by_key(|&(at, _)| std::cmp::Reverse(at));
        SimProcess {
            serial,
            pid,
            owner,
            phase: Phase::Alive,
            exit: Exit::Unknown,
            others: if leads || home.is_some() {
                habits.others
            } else {
                Vec::new()
            },
            leads,
            socket,
            home,
            news: false,
            readiness: habits
                .readiness
                .filter(|_| has_ready_fd)
                .map(|(after, ready)| (now.saturating_add(after), ready)),
            unread_report: None,
            messages,
            sent: Vec::new(),
            ends: habits.ends.map(|(after, exit)| (now.saturating_add(after), exit)),
            stops: habits.stops.map(|after| now.saturating_add(after)),
            held: None,
            look: None,
            looks: 0,
            killed: None,
            ends_on_signal: habits.ends_on_signal,
            dying: habits.dying,
            stopped: false,
            has_fatal_signal: false,
            unseen: None,
        }
    }

    /// Whether a descriptor of it is readable.
    pub(super) fn is_ready(&self) -> bool {
        (self.phase == Phase::Zombie && self.look.is_none())
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
            Phase::Zombie => self.look.is_none() || self.unread_report.is_some(),
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

    /// Takes its descriptor out of the set after a look that found nothing, and sets the time of the next look.
    pub(super) fn look_later(&mut self, now: Instant) {
        let wait = Duration::from_millis(1 << self.looks.min(7));
        self.look = Some(now.saturating_add(wait));
        self.looks += 1;
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

    /// From now on it stays alive and reacts to signals. Past events are not undone.
    pub(super) fn mend(&mut self, now: Instant) {
        let soon = now.saturating_add(SOON);
        self.ends = self
            .ends
            .filter(|_| self.has_fatal_signal)
            .map(|(at, exit)| (at.min(soon), exit));
        self.ends_on_signal = self.ends_on_signal.map(|(_, exit)| (Duration::from_millis(10), exit));
        self.dying = self.dying.min(SOON);
        self.held = self.held.map(|until| until.min(soon));
        self.killed = self.killed.map(|at| at.min(soon));
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
        let own = [ends, self.stops, self.killed, report, message].into_iter().flatten();
        let own = own.filter(|_| self.phase == Phase::Alive);
        own.chain(members).filter(|&at| at != Instant::NEVER).min()
    }

    /// Advances its time.
    pub(super) fn pass(&mut self, now: Instant) {
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
            self.phase = Phase::Zombie;
            self.exit = exit;
            // The descriptor is closed together with the process, which is no failure of readiness.
            self.unread_report = self.unread_report.filter(|&ready| ready);
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
                // SIGCONT discards a pending stop signal.
                if let Some(unseen) = self.unseen.take().filter(|signal| !signal.is_stop()) {
                    self.react(unseen, now);
                }
            }
            other if self.stopped => self.unseen = Some(other),
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

    fn react(&mut self, signal: Signal, now: Instant) {
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
