//! Everything outside of the engine: a clock that moves only on request, the processes, the notify socket, and what an
//! epoll shows of them.
//!
//! Each thing that happens by itself has a time in one heap, so the work grows with what happens, and not with the time
//! that passes or with the size of the fleet.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::time::{Duration, SystemTime};

use super::behavior::{Cast, Role};
use super::faults::Faults;
use super::process::{Phase, Place, Process, SHORTEST_EXECUTION, Socket};
use super::script::SpawnFailure;
use crate::command::{Program, SpawnError};
use crate::deadlines::Deadlines;
use crate::engine::context::SpawnContext;
use crate::engine::ids::InstanceId;
use crate::engine::kernel::Report;
use crate::exit::Pid;
use crate::fdset::Token;
use crate::lifecycle::Scope;
use crate::random::{Random, mix};
use crate::signal::Signal;
use crate::signalfd::SignalInfo;
use crate::time::Instant;

pub(super) const TIMER: Token = Token::from_raw(1 << 32 | u32::MAX as u64);
pub(super) const SOCKET: Token = Token::from_raw(2 << 32 | u32::MAX as u64);
pub(super) const SIGNALS: Token = Token::from_raw(3 << 32 | u32::MAX as u64);

/// The time at which a simulation begins. It is not the origin of the clock, which stands for the past.
pub(super) const BEGIN: Instant = Instant::from_nanos(1_000_000_000);

/// How long it takes to make a process.
const CLONE: Duration = Duration::from_micros(50);

/// The first number of a process, and the number after the last one, as on a Linux machine of 64 bits
/// (/proc/sys/kernel/pid_max).
const FIRST_PID: u32 = 300;
const PID_MAX: u32 = 4_194_304;

/// See the [module](self).
pub(super) struct World {
    pub(super) now: Instant,
    /// The wall clock at the origin of the other clock.
    pub(super) wall_at_origin: SystemTime,
    seed: u64,
    pub(super) random: Random,
    pub(super) cast: Cast,
    pub(super) faults: Faults,
    /// The processes by the slot of their instance.
    processes: Vec<Option<Process>>,
    /// When the next thing happens to a process, by slot.
    times: Deadlines,
    /// The processes with an execution that the supervisor must learn about, by slot.
    pub(super) looks: Deadlines,
    /// The entries of the set that have become ready, the next one to report first. Some may not be ready any more.
    ready: VecDeque<Token>,
    is_socket_queued: bool,
    is_signals_queued: bool,
    pub(super) armed: Option<Instant>,
    pub(super) is_listening: bool,
    pub(super) socket: Socket,
    /// The remaining lines of the last message.
    pub(super) reports: VecDeque<(InstanceId, Report)>,
    /// Signals to the host.
    pub(super) signals: VecDeque<SignalInfo>,
    /// The process that is about to be spawned.
    pub(super) coming: Option<Role>,
    in_flight: usize,
    pub(super) most_in_flight: usize,
    pids: HashSet<u32>,
    next_pid: u32,
    /// The number of processes that were made.
    pub(super) made: u64,
    /// The number of directories for cgroups that were made.
    pub(super) directories: u64,
    /// The ends of the living processes that no run has any more.
    strays: BinaryHeap<Reverse<Instant>>,
}

impl World {
    pub(super) fn new(seed: u64, wall: SystemTime) -> World {
        let since_origin = Duration::from_nanos(BEGIN.as_nanos());
        World {
            now: BEGIN,
            wall_at_origin: wall.checked_sub(since_origin).unwrap_or(wall),
            seed,
            random: Random::new(mix(seed)),
            cast: Cast::new(),
            faults: Faults::new(),
            processes: Vec::new(),
            times: Deadlines::new(),
            looks: Deadlines::new(),
            ready: VecDeque::new(),
            is_socket_queued: false,
            is_signals_queued: false,
            armed: None,
            is_listening: false,
            socket: Socket::new(),
            reports: VecDeque::new(),
            signals: VecDeque::new(),
            coming: None,
            in_flight: 0,
            most_in_flight: 0,
            pids: HashSet::new(),
            next_pid: FIRST_PID,
            made: 0,
            directories: 0,
            strays: BinaryHeap::new(),
        }
    }

    // Time.

    /// Moves the clock to this time, and lets everything happen that is due until then. A time in the past counts as now.
    pub(super) fn pass(&mut self, until: Instant) {
        while let Some(at) = self.times.earliest().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            let Some(slot) = self.times.pop_due(at) else { break };
            self.tick(slot);
        }
        self.now = self.now.max(until);
        while self.strays.peek().is_some_and(|Reverse(ends)| *ends <= self.now) {
            self.strays.pop();
        }
    }

    /// The time of the next thing that happens by itself; `None` if none ever does.
    pub(super) fn next(&self) -> Option<Instant> {
        self.times.earliest().into_iter().chain(self.armed).min()
    }

    pub(super) fn wall(&self) -> SystemTime {
        let elapsed = Duration::from_nanos(self.now.as_nanos());
        self.wall_at_origin.checked_add(elapsed).unwrap_or(self.wall_at_origin)
    }

    /// Lets everything happen to a process that is due, and notes what follows.
    fn tick(&mut self, slot: u32) {
        let (now, had) = (self.now, self.socket.len());
        let Some(process) = self.processes.get_mut(slot as usize).and_then(Option::as_mut) else {
            return;
        };
        process.tick(now, &mut self.socket);
        self.times.set(slot, process.next().unwrap_or(Instant::NEVER));
        if process.has_landed() {
            self.looks.set(slot, now);
        }
        if process.is_ready() && !process.is_queued {
            process.is_queued = true;
            self.ready.push_back(process.token);
        }
        if self.socket.len() > had && !std::mem::replace(&mut self.is_socket_queued, true) {
            self.ready.push_back(SOCKET);
        }
    }

    // The set.

    fn is_ready(&self, token: Token) -> bool {
        match token {
            TIMER => self.timer_is_ready(),
            SOCKET => self.socket_is_ready(),
            SIGNALS => !self.signals.is_empty(),
            _ => {
                let process = self.process(token.index() as u32);
                process.is_some_and(|process| process.token == token && process.is_ready())
            }
        }
    }

    pub(super) fn timer_is_ready(&self) -> bool {
        self.armed.is_some_and(|at| at <= self.now)
    }

    fn socket_is_ready(&self) -> bool {
        !self.socket.is_empty() || !self.reports.is_empty()
    }

    /// Whether a host that waits for the set is woken.
    pub(super) fn is_readable(&mut self) -> bool {
        // Nothing reports an execution, and the supervisor looks for it when it is there.
        let is_executed = self.looks.earliest().is_some_and(|at| at <= self.now);
        if self.timer_is_ready() || is_executed {
            return true;
        }
        while let Some(&token) = self.ready.front() {
            if self.is_ready(token) {
                return true;
            }
            self.ready.pop_front();
            self.unqueue(token);
        }
        false
    }

    /// The entry is not in the list any more.
    fn unqueue(&mut self, token: Token) {
        match token {
            SOCKET => self.is_socket_queued = false,
            SIGNALS => self.is_signals_queued = false,
            _ => {
                if let Some(process) = self.process_mut(token.index() as u32) {
                    process.is_queued &= process.token != token;
                }
            }
        }
    }

    /// Appends ready entries, each in its turn.
    pub(super) fn report(&mut self, tokens: &mut Vec<Token>) {
        if self.timer_is_ready() && tokens.len() < tokens.capacity() {
            tokens.push(TIMER);
        }
        for _ in 0..self.ready.len() {
            if tokens.len() >= tokens.capacity() {
                break;
            }
            let Some(token) = self.ready.pop_front() else { break };
            if self.is_ready(token) {
                tokens.push(token);
                self.ready.push_back(token);
            } else {
                self.unqueue(token);
            }
        }
    }

    /// The number of entries of the set.
    pub(super) fn entries(&self) -> usize {
        self.pids.len() + 3
    }

    /// Sends a signal to the host. One that is already pending is not queued a second time.
    pub(super) fn signal_host(&mut self, info: SignalInfo) {
        if self.signals.iter().all(|pending| pending.signal != info.signal) {
            self.signals.push_back(info);
            if !std::mem::replace(&mut self.is_signals_queued, true) {
                self.ready.push_back(SIGNALS);
            }
        }
    }

    // Processes.

    pub(super) fn process(&self, slot: u32) -> Option<&Process> {
        self.processes.get(slot as usize)?.as_ref()
    }

    fn process_mut(&mut self, slot: u32) -> Option<&mut Process> {
        self.processes.get_mut(slot as usize)?.as_mut()
    }

    /// Changes a process, and lets happen what is due then.
    pub(super) fn change<T>(&mut self, slot: u32, change: impl FnOnce(&mut Process, Instant) -> T) -> Option<T> {
        let now = self.now;
        let result = change(self.process_mut(slot)?, now);
        self.tick(slot);
        Some(result)
    }

    pub(super) const fn is_saturated(&self) -> bool {
        self.most_in_flight > 0 && self.in_flight >= self.most_in_flight
    }

    /// The supervisor has learned how a spawn went.
    pub(super) const fn landed(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Makes a process in this slot. Returns its number, and whether it has executed its program.
    pub(super) fn spawn(
        &mut self,
        slot: u32,
        program: &Program,
        context: &SpawnContext,
    ) -> Result<(Pid, bool), SpawnError> {
        let role = self.coming.take();
        let mut random = Random::new(role.as_ref().map_or(self.seed, |role| role.seed(self.seed)));
        let chosen = role
            .as_ref()
            .map(|role| self.cast.script(role, program.name(), &mut random));
        let script = chosen.unwrap_or_default();
        self.pass(self.now.saturating_add(CLONE));
        let refusal = self.faults.spawn(&mut self.random).or(script.refusal);
        let failed = |failure: SpawnFailure| {
            let (step, errno) = failure.cause();
            program.parent_error(step, errno)
        };
        if let Some(failure) = refusal.filter(|failure| failure.in_child().is_none()) {
            return Err(failed(failure));
        }
        let longer = self.faults.execution(&mut self.random);
        let longer = longer.map_or(Duration::ZERO, |span| span.draw(&mut self.random));
        let takes = script.executes.draw(&mut random).max(SHORTEST_EXECUTION);
        let executes = self.now.saturating_add(takes).saturating_add(longer);
        if self.most_in_flight == 0 {
            self.pass(executes);
            if let Some(failure) = refusal {
                return Err(failed(failure));
            }
        }
        let pid = self.free_pid();
        let place = Place {
            has_cgroup: context.cgroup.is_some(),
            has_ready_fd: context.ready_fd,
            has_socket: role.is_some_and(|role| role.has_socket),
        };
        let mut process = Process::new(pid, self.token(slot), place, script, random);
        let executed = self.most_in_flight == 0;
        if executed {
            process.execute(self.now);
        } else {
            process.fly(executes, refusal.map(failed));
            self.in_flight += 1;
        }
        self.put(slot, process);
        Ok((pid, executed))
    }

    fn put(&mut self, slot: u32, process: Process) {
        if self.processes.len() <= slot as usize {
            self.processes.resize_with(slot as usize + 1, || None);
        }
        self.made = self.made.saturating_add(1);
        if let Some(place) = self.processes.get_mut(slot as usize) {
            *place = Some(process);
        }
        self.tick(slot);
    }

    /// A token that no other present process has.
    const fn token(&self, slot: u32) -> Token {
        // A number from 1 up that repeats after 2^32 - 1 processes.
        let generation = self.made % (u32::MAX as u64) + 1;
        Token::from_raw(generation << 32 | slot as u64)
    }

    /// The next number that no process has.
    fn free_pid(&mut self) -> Pid {
        loop {
            let number = self.next_pid;
            self.next_pid = if number + 1 < PID_MAX { number + 1 } else { FIRST_PID };
            // There are more numbers than instances.
            if let (Some(pid), true) = (Pid::new(number), self.pids.insert(number)) {
                return pid;
            }
        }
    }

    /// Removes the process of a slot. One that is alive is killed, and its end is waited for.
    pub(super) fn discard(&mut self, slot: u32, patience: Duration) {
        let until = self.now.saturating_add(patience);
        while self.process(slot).is_some_and(|process| process.phase == Phase::Alive) && self.now < until {
            self.change(slot, |process, now| process.signal(Signal::KILL, Scope::Process, now));
            let next = self.process(slot).and_then(Process::next).unwrap_or(until);
            self.pass(next.min(until));
        }
        let Some(process) = self.processes.get_mut(slot as usize).and_then(Option::take) else {
            return;
        };
        if process.is_in_flight() {
            self.landed();
        }
        self.times.clear(slot);
        self.looks.clear(slot);
        self.pids.remove(&process.pid.as_raw());
        self.strays.extend(process.strays().map(Reverse));
    }

    /// The number of living processes that no run has any more.
    pub(super) fn count_strays(&self) -> usize {
        self.strays.len()
    }

    /// The number of living processes.
    pub(super) fn count_living(&self) -> usize {
        let own: usize = self.processes.iter().flatten().map(Process::living).sum();
        own + self.strays.len()
    }
}
