//! A simulated process: its plan, the effect of signals, and the processes that it has started.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::script::{Ending, Fork, Reaction, Script, Text};
use super::span::Span;
use crate::cgroup::{OomKill, OomLimit};
use crate::command::SpawnError;
use crate::engine::kernel::Collected;
use crate::exit::{Exit, ExitRecord, Pid, Usage};
use crate::fdset::Token;
use crate::lifecycle::Scope;
use crate::random::Random;
use crate::signal::Signal;
use crate::time::Instant;

/// Messages in the notify socket, the oldest first.
pub(super) type Socket = VecDeque<(Pid, Text)>;

/// No ping is sent while so many messages wait. The queue of a real socket is limited too (`net.unix.max_dgram_qlen`).
const MOST_QUEUED: usize = 512;

/// The environment that the supervisor gives a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) has_cgroup: bool,
    pub(super) has_ready_fd: bool,
    pub(super) has_socket: bool,
}

/// The phase of a process's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Alive,
    /// It has ended and was not collected.
    Zombie,
    /// It was collected, and the processes of its scope can be signalled.
    Held,
    /// It was collected, and nothing of it can be signalled.
    Reaped,
}

/// How an execution stands that the supervisor has not learned about.
#[derive(Debug)]
enum Flight {
    /// It takes place at this time, and fails if there is an error.
    Due(Instant, Option<SpawnError>),
    Executed,
    Failed(SpawnError),
}

/// An end by itself, with what the kernel knows of one for lack of memory.
type End = (Instant, Exit, Option<OomLimit>);

/// One simulated process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) token: Token,
    /// Whether the token is in the list of entries that were ready.
    pub(super) is_queued: bool,
    pub(super) phase: Phase,
    place: Place,
    script: Arc<Script>,
    random: Random,
    flight: Option<Flight>,
    is_executed: bool,
    exit: Exit,
    oom: Option<OomLimit>,
    end: Option<End>,
    killed: Option<Instant>,
    /// When it reports that it is ready.
    ready: Option<Instant>,
    /// When it closes its readiness descriptor.
    closes: Option<Instant>,
    unread: Option<bool>,
    /// The messages that it is going to send, the next one last.
    messages: Vec<(Instant, Text)>,
    ping: Option<Instant>,
    hang: Option<Instant>,
    is_hung: bool,
    forks: Vec<Member>,
    /// Whether its cgroup has become empty after its end, and the supervisor has not learned it.
    news: bool,
    is_stopped: bool,
    frozen: Option<Instant>,
    /// Since when it has stood still.
    still: Option<Instant>,
    /// The signals that came since then.
    pending: Vec<Signal>,
}

/// A process that it has started.
#[derive(Debug)]
struct Member {
    in_group: bool,
    ignores: bool,
    /// [`Instant::NEVER`] if it does not end by itself.
    ends: Instant,
}

impl Process {
    pub(super) fn new(pid: Pid, token: Token, place: Place, script: Arc<Script>, random: Random) -> Process {
        Process {
            pid,
            token,
            is_queued: false,
            phase: Phase::Alive,
            place,
            script,
            random,
            flight: None,
            is_executed: false,
            exit: Exit::Unknown,
            oom: None,
            end: None,
            killed: None,
            ready: None,
            closes: None,
            unread: None,
            messages: Vec::new(),
            ping: None,
            hang: None,
            is_hung: false,
            forks: Vec::new(),
            news: false,
            is_stopped: false,
            frozen: None,
            still: None,
            pending: Vec::new(),
        }
    }

    /// Its spawn is in flight until this time, and fails if there is an error.
    pub(super) fn fly(&mut self, until: Instant, fails: Option<SpawnError>) {
        self.flight = Some(Flight::Due(until, fails));
    }

    /// Executes its program: draws all times of its plan.
    pub(super) fn execute(&mut self, now: Instant) {
        let script = Arc::clone(&self.script);
        self.is_executed = true;
        let random = &mut self.random;
        let mut at = |span: Span| now.saturating_add(span.draw(random));
        let ends = script.ends.iter().map(|&(span, ending)| (at(span), ending));
        // Of two ends at the same time the first one of the script counts.
        let first = ends.min_by_key(|&(time, _)| time);
        self.end = first.map(|(time, ending)| match ending {
            Ending::Exit(code) => (time, Exit::Code(code), None),
            Ending::Signal(signal) => (time, killed_by(signal), None),
            Ending::OutOfMemory(limit) => (time, killed_by(Signal::KILL), Some(limit)),
        });
        self.hang = script.hangs.map(&mut at);
        self.ready = script.ready.map(&mut at);
        self.closes = script.closes.map(&mut at).filter(|_| self.place.has_ready_fd);
        if self.place.has_socket {
            self.messages = script
                .messages
                .iter()
                .map(|(span, text)| (at(*span), text.clone()))
                .collect();
            // The sort is stable, so messages of the same time are sent in the order of the script.
            self.messages.reverse();
            self.messages.sort_by_key(|&(time, _)| std::cmp::Reverse(time));
            self.ping = script.pings.map(|period| now.saturating_add(period));
        }
        self.forks = script.forks.iter().map(|fork| member(fork, &mut at)).collect();
    }

    /// The time of the next thing that happens by itself.
    pub(super) fn next(&self) -> Option<Instant> {
        let forks = self.forks.iter().map(|fork| fork.ends).min();
        let forks = forks.filter(|_| self.frozen.is_none());
        if self.phase != Phase::Alive {
            return forks;
        }
        let executes = match &self.flight {
            Some(Flight::Due(at, _)) => Some(*at),
            Some(Flight::Executed | Flight::Failed(_)) | None => None,
        };
        let message = self.messages.last().map(|&(at, _)| at);
        let end = self.end.map(|(at, ..)| at);
        let own = [executes, self.hang, self.ping, message, self.ready, self.closes, end];
        let own = own.into_iter().flatten().filter(|_| self.still.is_none());
        own.chain(self.killed).chain(forks).min()
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant, socket: &mut Socket) {
        if self.phase == Phase::Alive && self.still.is_none() {
            self.act(now, socket);
        }
        if self.killed.is_some_and(|at| at <= now) && self.phase == Phase::Alive {
            self.ended(killed_by(Signal::KILL), None);
        }
        if self.frozen.is_none() {
            self.lose(|fork| fork.ends <= now);
        }
    }

    fn act(&mut self, now: Instant, socket: &mut Socket) {
        if let Some(Flight::Due(at, fails)) = &mut self.flight {
            if *at > now {
                return self.end_by(now);
            }
            if let Some(error) = fails.take() {
                self.flight = Some(Flight::Failed(error));
                return self.ended(Exit::Code(127), None);
            }
            self.flight = Some(Flight::Executed);
            self.execute(now);
        }
        if self.hang.is_some_and(|at| at <= now) {
            self.hang = None;
            self.is_hung = true;
            self.messages.clear();
            (self.ping, self.ready, self.closes, self.end) = (None, None, None, None);
        }
        if let (Some(at), Some(period)) = (self.ping, self.script.pings) {
            if at <= now {
                // A sender would have to wait.
                if socket.len() < MOST_QUEUED {
                    socket.push_back((self.pid, PING.into()));
                }
                self.ping = Some(now.saturating_add(period));
            }
        }
        while self.messages.last().is_some_and(|&(at, _)| at <= now) {
            if let Some((_, text)) = self.messages.pop() {
                socket.push_back((self.pid, text));
            }
        }
        self.report_readiness(now, socket);
        self.end_by(now);
    }

    /// What the process tells by its readiness descriptor is told once. Of both at the same time it is ready.
    fn report_readiness(&mut self, now: Instant, socket: &mut Socket) {
        let closes = self.closes.filter(|at| *at <= now);
        let ready = self.ready.take_if(|at| *at <= now);
        if !self.place.has_ready_fd {
            let is_sent = ready.is_some() && self.place.has_socket;
            socket.extend(is_sent.then(|| (self.pid, READY.into())));
        } else if ready.is_some() || closes.is_some() {
            let is_ready = ready.is_some_and(|ready| closes.is_none_or(|closes| ready <= closes));
            self.unread = Some(is_ready);
            (self.ready, self.closes) = (None, None);
        }
    }

    fn end_by(&mut self, now: Instant) {
        if let Some((_, exit, oom)) = self.end.take_if(|(at, ..)| *at <= now) {
            self.ended(exit, oom);
        }
    }

    fn ended(&mut self, exit: Exit, oom: Option<OomLimit>) {
        self.phase = Phase::Zombie;
        self.exit = exit;
        self.oom = oom.filter(|_| self.place.has_cgroup);
        // A process that closes its descriptor because it ends has not failed to report.
        self.unread = self.unread.filter(|&is_ready| is_ready);
    }

    /// Whether a descriptor of it is readable.
    pub(super) fn is_ready(&self) -> bool {
        match self.phase {
            Phase::Zombie => true,
            Phase::Alive | Phase::Reaped => self.unread.is_some(),
            Phase::Held => self.news || self.unread.is_some(),
        }
    }

    /// Whether the supervisor has not learned how its execution went.
    pub(super) const fn is_in_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// Whether it has executed its program, and the supervisor has not learned it.
    pub(super) const fn has_executed(&self) -> bool {
        matches!(self.flight, Some(Flight::Executed))
    }

    /// Whether its execution is over, and the supervisor has not learned how it went.
    pub(super) const fn has_landed(&self) -> bool {
        match &self.flight {
            Some(Flight::Due(..)) => !matches!(self.phase, Phase::Alive),
            Some(Flight::Executed | Flight::Failed(_)) => true,
            None => false,
        }
    }

    /// What the supervisor learns next.
    pub(super) fn collect(&mut self, keeps_scope: bool) -> Collected {
        let is_alive = self.phase == Phase::Alive;
        match self.flight.take() {
            Some(Flight::Failed(error)) => {
                self.phase = Phase::Reaped;
                return Collected::SpawnFailed(error);
            }
            Some(Flight::Executed) => {
                let ended = self.phase == Phase::Zombie;
                return Collected::Executed { ended };
            }
            flight @ Some(Flight::Due(..)) if is_alive => {
                self.flight = flight;
                return Collected::Nothing;
            }
            // A process that was killed before its execution has an end like any other.
            Some(Flight::Due(..)) | None => {}
        }
        if let Some(is_ready) = self.unread.take() {
            return if is_ready {
                Collected::Ready
            } else {
                Collected::NotReady
            };
        }
        match self.phase {
            Phase::Zombie => {
                self.phase = if keeps_scope { Phase::Held } else { Phase::Reaped };
                Collected::Ended(ExitRecord {
                    pid: self.pid,
                    exit: self.exit,
                    usage: Some(Usage::default()),
                })
            }
            Phase::Held if std::mem::take(&mut self.news) && self.forks.is_empty() => Collected::CgroupEmpty,
            Phase::Alive | Phase::Held | Phase::Reaped => Collected::Nothing,
        }
    }

    /// What the kernel knows of its end for lack of memory.
    pub(super) fn oom(&self) -> Option<OomKill> {
        self.oom.map(|limit| OomKill {
            limit,
            is_certain: true,
        })
    }

    /// Whether nothing of this scope is alive.
    pub(super) fn is_empty(&self, scope: Scope) -> bool {
        let in_group = || !self.forks.iter().any(|fork| fork.in_group);
        match (self.phase, scope) {
            (Phase::Alive | Phase::Zombie, _) => false,
            (_, Scope::Cgroup) if self.place.has_cgroup => self.forks.is_empty(),
            (Phase::Reaped, _) | (Phase::Held, Scope::Process) => true,
            (Phase::Held, Scope::ProcessGroup | Scope::Cgroup) => in_group(),
        }
    }

    /// The ends of the processes that it leaves behind when its run is over. Those in a cgroup are killed.
    pub(super) fn strays(&self) -> impl Iterator<Item = Instant> {
        let left = self.forks.iter().filter(|_| !self.place.has_cgroup);
        left.map(|fork| fork.ends)
    }

    /// How many processes of it are alive.
    pub(super) fn living(&self) -> usize {
        usize::from(self.phase == Phase::Alive) + self.forks.len()
    }

    // Signals.

    /// Delivers a signal to the processes of a scope.
    pub(super) fn signal(&mut self, signal: Signal, scope: Scope, now: Instant) {
        let all = scope == Scope::Cgroup && self.place.has_cgroup;
        if scope > Scope::Process && signal.is_fatal() {
            self.lose(|fork| (all || fork.in_group) && (signal == Signal::KILL || !fork.ignores));
        }
        if self.phase == Phase::Alive {
            self.receive(signal, now);
        }
    }

    fn receive(&mut self, signal: Signal, now: Instant) {
        match signal {
            Signal::KILL => {
                if self.killed.is_none() {
                    self.killed = Some(now.saturating_add(self.script.dies.draw(&mut self.random)));
                }
            }
            Signal::STOP => self.stop(now),
            Signal::CONT => {
                self.is_stopped = false;
                // SIGCONT discards the stop signals that are pending.
                self.pending.retain(|pending| !pending.is_stop());
                self.go_on(now);
            }
            other if self.still.is_some() => {
                if !self.pending.contains(&other) {
                    self.pending.push(other);
                }
            }
            other => self.react(other, now),
        }
    }

    fn react(&mut self, signal: Signal, now: Instant) {
        let of_it = |&&(known, _): &&(Signal, Reaction)| known == signal;
        let reaction = self.script.reactions.iter().find(of_it).map(|&(_, reaction)| reaction);
        match reaction.filter(|_| self.is_executed) {
            None if signal.is_fatal() => self.end_at(now, killed_by(signal)),
            None if signal.is_stop() => self.stop(now),
            None | Some(Reaction::Ignore) => {}
            Some(_) if self.is_hung => {}
            Some(Reaction::Exit(takes, code)) => {
                let at = now.saturating_add(takes.draw(&mut self.random));
                self.end_at(at, Exit::Code(code));
            }
            Some(Reaction::Reload(takes)) if self.place.has_socket => {
                let at = now.saturating_add(takes.draw(&mut self.random));
                let begins = format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_nanos() / 1_000);
                self.messages.push((at, READY.into()));
                self.messages.push((now, begins.into()));
                self.messages.sort_by_key(|&(time, _)| std::cmp::Reverse(time));
            }
            Some(Reaction::Reload(_)) => {}
        }
    }

    /// Ends at this time, unless it ends before.
    fn end_at(&mut self, at: Instant, exit: Exit) {
        if self.end.is_none_or(|(end, ..)| at < end) {
            self.end = Some((at, exit, None));
        }
    }

    /// Freezes its cgroup, or thaws it.
    pub(super) fn freeze(&mut self, on: bool, now: Instant) {
        match (on, self.frozen) {
            (true, None) => {
                self.frozen = Some(now);
                self.still = self.still.or(Some(now));
            }
            (false, Some(since)) => {
                self.frozen = None;
                let lasted = now.saturating_duration_since(since);
                for fork in &mut self.forks {
                    fork.ends = fork.ends.saturating_add(lasted);
                }
                self.go_on(now);
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    fn stop(&mut self, now: Instant) {
        self.is_stopped = true;
        self.still = self.still.or(Some(now));
    }

    /// Goes on with its plan, which has not moved meanwhile, if nothing keeps it still any more.
    fn go_on(&mut self, now: Instant) {
        if self.is_stopped || self.frozen.is_some() {
            return;
        }
        let Some(since) = self.still.take() else { return };
        let lasted = now.saturating_duration_since(since);
        let later = |at: &mut Instant| *at = at.saturating_add(lasted);
        if let Some(Flight::Due(at, _)) = &mut self.flight {
            later(at);
        }
        self.end.iter_mut().for_each(|(at, ..)| later(at));
        self.ready.iter_mut().for_each(later);
        self.closes.iter_mut().for_each(later);
        self.messages.iter_mut().for_each(|(at, _)| later(at));
        self.ping.iter_mut().for_each(later);
        self.hang.iter_mut().for_each(later);
        for signal in std::mem::take(&mut self.pending) {
            self.react(signal, now);
        }
    }

    /// Ends some of the processes that it has started.
    fn lose(&mut self, ends: impl Fn(&Member) -> bool) {
        let had = !self.forks.is_empty();
        self.forks.retain(|fork| !ends(fork));
        self.news |= had && self.forks.is_empty() && self.place.has_cgroup;
    }
}

const PING: &str = "WATCHDOG=1";
const READY: &str = "READY=1";

const fn killed_by(signal: Signal) -> Exit {
    Exit::Signal { signal, core: false }
}

fn member(fork: &Fork, at: &mut impl FnMut(Span) -> Instant) -> Member {
    Member {
        in_group: fork.in_group,
        ignores: fork.ignores,
        ends: fork.lives.map_or(Instant::NEVER, at),
    }
}

/// The shortest execution. Time must pass from one run to the next.
pub(super) const SHORTEST_EXECUTION: Duration = Duration::from_micros(1);
