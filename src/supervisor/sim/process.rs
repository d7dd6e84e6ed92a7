//! A process that exists in the simulation alone: what it does by itself, what signals do to it,
//! and what it leaves behind in its process group.

use std::time::Duration;

use crate::exit::{Exit, Pid};
use crate::signal::Signal;
use crate::time::Instant;

/// What a process is like.
#[derive(Clone, Debug)]
pub(super) struct Habits {
    /// When it ends by itself, after its start.
    pub(super) ends: Option<(Duration, Exit)>,
    /// When it stops itself (SIGSTOP).
    pub(super) stops: Option<Duration>,
    /// What it does about signals that can be caught: ends after a while, or nothing.
    pub(super) obeys: Option<(Duration, Exit)>,
    /// How long SIGKILL takes: more than nothing is a process that hangs in the kernel.
    pub(super) dying: Duration,
    /// When it says that it is ready, or gives up the descriptor that it could say it with.
    pub(super) says: Option<(Duration, bool)>,
    /// What it starts itself.
    pub(super) others: Vec<Member>,
}

/// Someone that a process has started.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Whether it has stayed in the process group.
    pub(super) in_group: bool,
    pub(super) ends: Instant,
    pub(super) obeys: bool,
    /// Whether somebody reaps it when it has ended.
    pub(super) is_reaped: bool,
    pub(super) alive: bool,
}

/// Where a process lives.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) leads: bool,
    pub(super) home: Option<String>,
    /// Whether it can say when it is ready.
    pub(super) speaks: bool,
}

/// How far a process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Alive,
    /// Ended, and not collected.
    Zombie,
    /// Collected; its group is within reach.
    Held,
    /// Collected, and nothing of it is within reach.
    Reaped,
}

/// One simulated process.
#[derive(Debug)]
pub(super) struct FakeProcess {
    /// Unlike the pid, never used twice.
    pub(super) serial: u64,
    pub(super) pid: Pid,
    /// The slot of the instance it was spawned for.
    pub(super) owner: u32,
    pub(super) phase: Phase,
    /// How it ended; means nothing while it is alive.
    pub(super) exit: Exit,
    /// Whether it leads a process group.
    pub(super) leads: bool,
    /// The cgroup it was started in.
    pub(super) home: Option<String>,
    pub(super) others: Vec<Member>,
    /// Its cgroup has become empty, and nobody has been told.
    news: bool,
    says: Option<(Instant, bool)>,
    /// What it has said about being ready, and nobody has heard.
    said: Option<bool>,
    ends: Option<(Instant, Exit)>,
    stops: Option<Instant>,
    /// Its status is not to be had before, though it has ended: a tracer holds it.
    held: Option<Instant>,
    /// When it is looked at again, its descriptor being out of the set; and how often that was in vain.
    pub(super) look: Option<Instant>,
    looks: u32,
    killed: Option<Instant>,
    obeys: Option<(Duration, Exit)>,
    dying: Duration,
    stopped: bool,
    /// Whether it has been told to end.
    told: bool,
    /// Arrived while it was stopped.
    unseen: Option<Signal>,
}

pub(super) const KILLED: Exit = Exit::Signal {
    signal: Signal::KILL,
    core: false,
};

/// How long SIGKILL takes at most in a kind world, and what was begun before.
pub(super) const SOON: Duration = Duration::from_millis(300);

impl FakeProcess {
    pub(super) fn new(id: (u64, Pid), owner: u32, place: Place, habits: Habits, now: Instant) -> FakeProcess {
        let (serial, pid) = id;
        let Place { leads, home, speaks } = place;
        FakeProcess {
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
            home,
            news: false,
            says: habits
                .says
                .filter(|_| speaks)
                .map(|(after, ready)| (now.saturating_add(after), ready)),
            said: None,
            ends: habits.ends.map(|(after, exit)| (now.saturating_add(after), exit)),
            stops: habits.stops.map(|after| now.saturating_add(after)),
            held: None,
            look: None,
            looks: 0,
            killed: None,
            obeys: habits.obeys,
            dying: habits.dying,
            stopped: false,
            told: false,
            unseen: None,
        }
    }

    /// Whether a descriptor of it is readable.
    pub(super) fn is_ready(&self) -> bool {
        (self.phase == Phase::Zombie && self.look.is_none())
            || (self.phase == Phase::Held && self.news)
            || self.said.is_some()
    }

    /// What it has said is heard.
    pub(super) fn hear(&mut self) -> Option<bool> {
        self.said.take()
    }

    /// Whether a descriptor of it is in the set.
    pub(super) fn is_watched(&self) -> bool {
        match self.phase {
            Phase::Alive => true,
            Phase::Zombie => self.look.is_none() || self.said.is_some(),
            Phase::Held => self.home.is_some() || self.said.is_some(),
            Phase::Reaped => false,
        }
    }

    /// From now on a tracer holds what is left of it, until then.
    pub(super) fn hold(&mut self, until: Instant) {
        self.held.get_or_insert(until);
    }

    /// Whether it has ended and can't be collected.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.phase == Phase::Zombie && self.held.is_some_and(|until| now < until)
    }

    /// Until when it is held.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held.filter(|_| self.phase == Phase::Zombie)
    }

    /// It was looked at in vain: its descriptor goes out of the set, and another look follows.
    pub(super) fn look_later(&mut self, now: Instant) {
        let wait = Duration::from_millis(1 << self.looks.min(7));
        self.look = Some(now.saturating_add(wait));
        self.looks += 1;
    }

    /// The descriptor that tells of the cgroup has been read: whether nobody lives there.
    pub(super) fn acknowledge(&mut self) -> bool {
        self.phase == Phase::Held && std::mem::take(&mut self.news) && !self.is_populated()
    }

    /// Whether anyone it started is alive.
    pub(super) fn is_populated(&self) -> bool {
        self.others.iter().any(|member| member.alive)
    }

    pub(super) fn has_living_members(&self) -> bool {
        self.leads && self.others.iter().any(|member| member.in_group && member.alive)
    }

    /// Whether anyone, zombies that nobody reaps included, keeps the group's number in use.
    pub(super) fn has_members(&self) -> bool {
        let stays = |member: &Member| member.in_group && (member.alive || !member.is_reaped);
        self.leads && self.others.iter().any(stays)
    }

    /// From now on it lives, and does as it is told. What has happened, has happened.
    pub(super) fn mend(&mut self, now: Instant) {
        let soon = now.saturating_add(SOON);
        self.ends = self.ends.filter(|_| self.told).map(|(at, exit)| (at.min(soon), exit));
        self.obeys = self.obeys.map(|(_, exit)| (Duration::from_millis(10), exit));
        self.dying = self.dying.min(SOON);
        self.held = self.held.map(|until| until.min(soon));
        self.killed = self.killed.map(|at| at.min(soon));
    }

    /// From now on it heeds no signal but SIGKILL.
    pub(super) fn defy(&mut self) {
        self.obeys = None;
    }

    /// When something happens to it by itself.
    pub(super) fn next(&self) -> Option<Instant> {
        let members = self
            .others
            .iter()
            .filter(|member| member.alive)
            .map(|member| member.ends);
        let ends = self.ends.filter(|_| !self.stopped).map(|(at, _)| at);
        let says = self.says.filter(|_| !self.stopped).map(|(at, _)| at);
        let own = [ends, self.stops, self.killed, says].into_iter().flatten();
        let own = own.filter(|_| self.phase == Phase::Alive);
        own.chain(members).filter(|&at| at != Instant::NEVER).min()
    }

    /// Time has passed.
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
        let said = self.says.filter(|&(at, _)| at <= now && !self.stopped);
        if let Some((_, ready)) = said.filter(|&(said, _)| first.is_none_or(|(ends, _)| said < ends)) {
            self.says = None;
            self.said = Some(ready);
        }
        if let Some((_, exit)) = first {
            self.phase = Phase::Zombie;
            self.exit = exit;
            // The descriptor is closed with the process, and that says nothing.
            self.said = self.said.filter(|&ready| ready);
        }
    }

    /// A signal reaches it.
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
                // A stop signal that is pending is taken back.
                if let Some(unseen) = self.unseen.take().filter(|signal| !signal.is_stop()) {
                    self.heed(unseen, now);
                }
            }
            other if self.stopped => self.unseen = Some(other),
            other => self.heed(other, now),
        }
        self.pass(now);
    }

    /// A signal reaches it and those that it started: all, or those that have stayed in its group.
    pub(super) fn receive_with_others(&mut self, signal: Signal, all: bool, now: Instant) {
        self.lose(|member| {
            let ends = signal == Signal::KILL || (member.obeys && signal.is_fatal());
            ends && (all || member.in_group)
        });
        self.receive(signal, now);
    }

    /// Some of those that it started end.
    fn lose(&mut self, ends: impl Fn(&Member) -> bool) {
        let before = self.is_populated();
        for member in &mut self.others {
            member.alive &= !ends(member);
        }
        self.news |= self.home.is_some() && before && !self.is_populated();
    }

    fn heed(&mut self, signal: Signal, now: Instant) {
        let Some((after, exit)) = self.obeys else {
            self.stopped |= signal.is_stop();
            return;
        };
        // One that obeys has a handler for the signals that would stop it, too.
        if signal.is_fatal() || signal.is_stop() {
            let at = now.saturating_add(after);
            self.told = true;
            if self.ends.is_none_or(|(ends, _)| at < ends) {
                self.ends = Some((at, exit));
            }
        }
    }
}
