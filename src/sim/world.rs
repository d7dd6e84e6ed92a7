//! The simulated kernel: a clock that moves only on request, processes with small pids that are soon reused, and a log
//! of all calls.
//!
//! It is stricter than the real kernel. It records at once what the engine must never do: a second process for one
//! instance, a signal to a reaped process, the release of a process that is alive. Everything else is found by the
//! comparison after each step.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::chance::Chance;
use super::descriptors::{Message, ORPHANS, SIGNALS, SOCKET, Set, TIMER};
use super::fault_profile::{FaultProfile, READY, any_errno};
use super::process::{Landing, Phase, Place, SimProcess, Takeoff, oom_of};
use super::recipe::Label;
use crate::cgroup::{CgroupError, CgroupFile, CgroupUsage, OomLimit};
use crate::child::Pipes;
use crate::command::{Program, SpawnError, SpawnStep};
use crate::engine::context;
use crate::engine::ids::InstanceId;
use crate::engine::kernel::{Collected, Happening, Kernel, Report, Spawned};
use crate::exit::{Exit, ExitRecord, Pid, Usage};
use crate::fdset::Token;
use crate::lifecycle::Scope;
use crate::notify::NotifySocket;
use crate::signal::Signal;
use crate::time::Instant;

/// Everything outside of the engine.
pub(super) struct World {
    pub(super) now: Instant,
    /// The wall clock, which may jump.
    pub(super) wall: SystemTime,
    pub(super) chance: Chance,
    pub(super) faults: FaultProfile,
    /// The processes that were not released.
    pub(super) processes: Vec<SimProcess>,
    /// The time that the timer is armed for.
    pub(super) armed: Option<Instant>,
    /// Whether the timer was disarmed first, so that it makes a new edge: the host got `Nothing` after it had been kept
    /// for long, and is woken to call again.
    pub(super) armed_anew: bool,
    /// Whether the last attempt to arm it failed.
    pub(super) arm_failed: bool,
    /// The calls of this step.
    pub(super) log: Vec<Did>,
    /// The first violation of a rule.
    pub(super) broken: Option<String>,
    /// Whether the engine is being dropped, so that a living process may be released.
    pub(super) dropping: bool,
    /// Whether the engine's program was just replaced, so that dropping the engine touches nothing.
    pub(super) is_replaced: bool,
    /// Whether a collected leader stays a zombie while its group has members, as before Linux 6.9.
    pub(super) keeps_zombies: bool,
    serials: u64,
    pub(super) set: Set,
    /// The number of spawns in flight, and its maximum. With 0, each spawn waits for the execution.
    pub(super) in_flight: usize,
    pub(super) most_in_flight: usize,
    /// Whether the maximum was in flight at any time in this step.
    pub(super) was_saturated: Cell<bool>,
    /// How the next process in flight comes to execute its program, instead of by chance.
    pub(super) next_takeoff: Option<Takeoff>,
    /// A planted fault of the kernel's side, which an oracle must notice.
    pub(super) planted: Option<Planted>,
}

/// Faults that can be planted in the kernel's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planted {
    /// A process in flight is reported as one that has executed its program.
    ExecutedAtClone,
    /// An execution that failed is reported as an end of the process.
    FailureAsEnd,
    /// The end of a process that was killed in flight is reported as a failed execution.
    EndAsFailure,
    /// A process that was killed in flight is counted as one in flight for ever.
    SlotKept,
    /// The maximum of spawns in flight is not respected.
    NoLimit,
}

/// A call to the kernel, or an action of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    Spawn {
        owner: u32,
        label: Label,
        /// The time at the end of the call.
        at: Instant,
        /// The serial number and the pid of the process, or the errno.
        made: Result<(u64, Pid), i32>,
        /// Whether the program is executed later.
        flies: bool,
    },
    Collect {
        owner: u32,
        serial: u64,
        hold: bool,
        result: Result<Sight, i32>,
    },
    Signal {
        owner: u32,
        serial: u64,
        signal: Signal,
        scope: Scope,
        /// The errno of a failure.
        failed: Option<i32>,
        at: Instant,
    },
    Look {
        owner: u32,
        result: Result<bool, i32>,
    },
    Release {
        owner: u32,
        serial: u64,
        /// Whether a process in its group was alive.
        abandons: bool,
    },
    Arm {
        at: Option<Instant>,
        ok: bool,
    },
    /// A process has put a message into the socket.
    Send {
        serial: u64,
        text: &'static str,
    },
    /// The engine took a signal to the host, or an orphan that has ended.
    Take(Taken),
    /// The engine took a message of a sender that belongs to this instance.
    Receive {
        serial: u64,
        owner: Option<InstanceId>,
        text: &'static str,
    },
}

/// A thing without an instance that the engine took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Signal(Signal),
    Orphan(Pid),
}

/// The result of collecting a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    Nothing,
    /// The process has ended, and its status is not available.
    Late,
    /// A process in flight has executed its program, at this time.
    Executed(Instant),
    /// A process in flight could not execute its program, with this errno.
    NotExecuted(i32),
    Ended(Exit),
    Empty,
    Ready,
    NotReady,
}

/// The kernel as the engine uses it.
#[derive(Clone)]
pub(super) struct SimKernel(pub(super) Rc<RefCell<World>>);

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut chance = Chance::new(seed);
        World {
            now: Instant::from_nanos(chance.pick(&[1, 1_000, 1 << 40]) + chance.below(100)),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            faults: FaultProfile::random(&mut chance),
            keeps_zombies: chance.happens(3),
            most_in_flight: chance.pick(&[0, 1, 2, 32]),
            chance,
            processes: Vec::new(),
            armed: None,
            armed_anew: false,
            arm_failed: false,
            log: Vec::new(),
            broken: None,
            dropping: false,
            is_replaced: false,
            serials: 0,
            set: Set::default(),
            in_flight: 0,
            was_saturated: Cell::new(false),
            next_takeoff: None,
            planted: None,
        }
    }

    /// Begins a new step.
    pub(super) fn begin(&mut self, chance: Chance) {
        self.chance = chance;
        self.log.clear();
        self.was_saturated.set(self.is_saturated());
    }

    pub(super) fn pass(&mut self, until: Instant) {
        self.now = self.now.max(until);
        let mut sent = Vec::new();
        for process in &mut self.processes {
            process.pass(self.now);
            let (serial, pid) = (process.serial, process.pid);
            let messages = process.sent.drain(..);
            sent.extend(messages.map(|(at, text)| (at, Message { serial, pid, text })));
        }
        self.send(sent);
        self.note_edges();
    }

    /// The time of the next event that happens by itself, except for the timer.
    pub(super) fn next(&self) -> Option<Instant> {
        self.processes.iter().filter_map(SimProcess::next).min()
    }

    pub(super) fn timer_is_ready(&self) -> bool {
        self.armed.is_some_and(|at| at <= self.now)
    }

    pub(super) fn process(&self, serial: u64) -> Option<&SimProcess> {
        self.processes.iter().find(|process| process.serial == serial)
    }

    pub(super) fn process_mut(&mut self, serial: u64) -> Option<&mut SimProcess> {
        self.processes.iter_mut().find(|process| process.serial == serial)
    }

    /// The number of processes with a spawn in flight.
    pub(super) fn count_in_flight(&self) -> usize {
        self.processes.iter().filter(|process| process.is_in_flight()).count()
    }

    /// Whether another spawn may be in flight.
    pub(super) fn has_room(&self) -> bool {
        self.most_in_flight == 0 || self.count_in_flight() < self.most_in_flight
    }

    fn is_saturated(&self) -> bool {
        let is_full = self.most_in_flight > 0 && self.in_flight >= self.most_in_flight;
        is_full && self.planted != Some(Planted::NoLimit)
    }

    /// From now on no execution hangs.
    pub(super) fn execute_soon(&mut self) {
        for process in &mut self.processes {
            process.execute_within(Duration::from_millis(1), self.now);
        }
    }

    /// From now on no fault occurs. An execution that hangs goes on hanging.
    pub(super) fn mend(&mut self) {
        self.faults = FaultProfile::KIND;
        for process in &mut self.processes {
            process.mend(self.now);
        }
    }

    /// Another program goes on, with a new timer and a new set of descriptors.
    pub(super) fn begin_anew(&mut self, home: u32) {
        self.is_replaced = false;
        (self.armed, self.armed_anew, self.arm_failed) = (None, false, false);
        self.set.begin_anew(home);
        for process in &mut self.processes {
            process.pass_on(self.now);
        }
        self.note_edges();
    }

    /// The serial number of the process in the slot of this instance.
    pub(super) fn serial_in(&self, slot: u32) -> Option<u64> {
        let mut processes = self.processes.iter();
        processes
            .find(|process| process.owner == slot)
            .map(|process| process.serial)
    }

    /// Records a violation of a rule.
    pub(super) fn never(&mut self, what: impl FnOnce() -> String) {
        if self.broken.is_none() {
            self.broken = Some(what());
        }
    }

    /// Lets a call take some time, during which other things happen.
    fn take_time(&mut self) {
        if self.chance.happens(self.faults.call_takes_long) {
            let while_ = Duration::from_micros(self.chance.below(10_000));
            self.pass(self.now.saturating_add(while_));
        }
    }

    /// A free pid: usually the lowest one, so that pids are reused as soon as possible.
    fn free_pid(&mut self) -> Pid {
        let keeps_zombies = self.keeps_zombies;
        let used = |number: u32| {
            self.processes.iter().any(|process| {
                let in_use = match process.phase {
                    Phase::Alive | Phase::Zombie => true,
                    Phase::Held => keeps_zombies || process.has_members(),
                    Phase::Reaped => false,
                };
                in_use && process.pid.as_raw() == number
            })
        };
        let first = if self.chance.happens(4) { 10 } else { 2 };
        (first..).find(|&number| !used(number)).and_then(Pid::new).unwrap()
    }

    /// Makes a process. Returns its serial number and its pid, and whether its program is executed later.
    fn spawn(&mut self, place: Place, owner: u32) -> Result<(u64, Pid, bool), i32> {
        if !self.has_room() {
            let (count, most) = (self.count_in_flight(), self.most_in_flight);
            self.never(|| format!("a spawn begins while {count} are in flight, and {most} may be"));
        }
        if self.processes.iter().any(|process| process.owner == owner) {
            self.never(|| format!("a second process is spawned for slot {owner} while it has one"));
        }
        let at_home = |process: &SimProcess| place.home.is_some() && process.home == place.home;
        if let Some(other) = self.processes.iter().find(|process| at_home(process)) {
            let other = other.pid;
            self.never(|| format!("the cgroup of process {other} is taken over: {place:?}"));
        }
        self.take_time();
        let faults = self.faults;
        if self.chance.happens(faults.spawn_fails) {
            return Err(any_errno(&mut self.chance));
        }
        let pid = self.free_pid();
        self.serials += 1;
        let habits = faults.habits(&mut self.chance, self.now);
        let flies = self.most_in_flight > 0 && !self.chance.happens(faults.spawn_waits);
        let drawn = flies.then(|| faults.takeoff(&mut self.chance));
        let takeoff = drawn.map(|drawn| self.next_takeoff.take().unwrap_or(drawn));
        let mut process = SimProcess::new((self.serials, pid), owner, place, (habits, takeoff), self.now);
        let (serial, socket) = (self.serials, process.socket);
        self.in_flight += usize::from(flies);
        if flies {
            // It may have ended already.
            process.pass(self.now);
            if self.chance.happens(faults.dead_on_arrival) {
                process.receive(Signal::KILL, self.now);
            }
        } else if self.chance.happens(faults.dead_on_arrival) {
            process.phase = Phase::Zombie;
            process.exit = self.chance.pick(&[Exit::Code(0), Exit::Code(127)]);
            if socket && self.chance.happens(2) {
                self.send(vec![(
                    self.now,
                    Message {
                        serial,
                        pid,
                        text: READY,
                    },
                )]);
            }
        }
        self.processes.push(process);
        self.pass(self.now);
        Ok((serial, pid, flies))
    }

    fn collect(&mut self, serial: u64, hold: bool) -> Result<Sight, i32> {
        self.take_time();
        let faults = self.faults;
        let now = self.now;
        let is_late = self.chance.happens(faults.collect_is_late);
        let held = is_late.then(|| self.now.saturating_add(self.chance.time()));
        if let Some(process) = self.process_mut(serial).filter(|process| process.is_in_flight()) {
            let is_over = process.phase == Phase::Zombie;
            if let Some(until) = held.filter(|_| is_over) {
                process.hold(until);
            }
            let Some(landing) = process.land(now) else {
                if is_over {
                    process.take_out();
                }
                return Ok(if is_over { Sight::Late } else { Sight::Nothing });
            };
            let is_kept = landing == Landing::Killed && self.planted == Some(Planted::SlotKept);
            self.in_flight -= usize::from(!is_kept);
            match landing {
                Landing::Executed(at) => return Ok(Sight::Executed(at)),
                Landing::Failed(errno) => {
                    if let Some(process) = self.process_mut(serial) {
                        process.phase = Phase::Reaped;
                    }
                    return Ok(Sight::NotExecuted(errno));
                }
                Landing::Killed => {}
            }
        }
        if self.chance.happens(faults.collect_fails) {
            return Err(self.chance.pick(&[libc::EIO, libc::EMFILE, libc::ENOMEM]));
        }
        let is_lost = hold && self.chance.happens(faults.group_is_lost);
        let is_worth_it = |process: &&mut SimProcess| process.is_ready() || process.phase == Phase::Zombie;
        let Some(process) = self.process_mut(serial).filter(is_worth_it) else {
            return Ok(Sight::Nothing);
        };
        if let Some(ready) = process.hear() {
            return Ok(if ready { Sight::Ready } else { Sight::NotReady });
        }
        if let Some(until) = held {
            process.hold(until);
        }
        if process.is_held(now) {
            process.take_out();
            return Ok(Sight::Late);
        }
        if process.phase == Phase::Held {
            return Ok(if process.acknowledge() {
                Sight::Empty
            } else {
                Sight::Nothing
            });
        }
        process.phase = if hold { Phase::Held } else { Phase::Reaped };
        if is_lost {
            process.receive_with_others(Signal::KILL, false, now);
        }
        process.acknowledge();
        Ok(Sight::Ended(process.exit))
    }

    fn signal(&mut self, serial: u64, signal: Signal, scope: Scope) -> Result<(), i32> {
        let faults = self.faults;
        let fails = self.chance.happens(faults.signal_fails) && !self.dropping;
        let errno = self.chance.pick(&[libc::EPERM, libc::EPERM, libc::ESRCH, libc::EIO]);
        let now = self.now;
        let Some(process) = self.process_mut(serial) else {
            return Err(libc::EBADF);
        };
        if process.phase == Phase::Reaped {
            let pid = process.pid;
            // The process ended while it was collected, and its report comes before its end.
            let is_ending = |did: &Did| matches!(did, Did::Collect { serial: other, .. } if *other == serial);
            if self.log.iter().any(is_ending) {
                return Ok(());
            }
            self.never(|| format!("{signal} goes to process {pid}, which has been reaped"));
            return Ok(());
        }
        if fails {
            return Err(errno);
        }
        match scope {
            Scope::Cgroup if process.home.is_some() => process.receive_with_others(signal, true, now),
            Scope::ProcessGroup | Scope::Cgroup if process.leads => process.receive_with_others(signal, false, now),
            Scope::Process | Scope::ProcessGroup | Scope::Cgroup => process.receive(signal, now),
        }
        self.pass(now);
        Ok(())
    }

    fn is_empty(&mut self, serial: u64, scope: Scope, looks: u8) -> Result<bool, i32> {
        let faults = self.faults;
        let fails = self.chance.happens(faults.look_fails);
        let sees_zombies = !self.keeps_zombies && looks < CAREFUL_LOOK;
        let Some(process) = self.process(serial) else {
            return Err(libc::EBADF);
        };
        match (process.phase, scope) {
            (Phase::Alive | Phase::Zombie, _) => Ok(false),
            (Phase::Reaped, _) | (Phase::Held, Scope::Process) => Ok(true),
            (Phase::Held, _) if fails => Err(libc::EACCES),
            (Phase::Held, Scope::Cgroup) if process.home.is_some() => Ok(!process.is_populated()),
            (Phase::Held, _) if sees_zombies => Ok(!process.has_members()),
            (Phase::Held, _) => Ok(!process.has_living_members()),
        }
    }

    fn release(&mut self, serial: u64, patience: Duration) {
        let Some(place) = self.processes.iter().position(|process| process.serial == serial) else {
            return;
        };
        if matches!(self.processes[place].phase, Phase::Alive | Phase::Zombie) {
            if !self.dropping {
                let pid = self.processes[place].pid;
                self.never(|| format!("process {pid} is let go of, and was never collected"));
            }
            self.wait_for_end(place, patience);
        }
        let process = self.processes.remove(place);
        self.in_flight -= usize::from(process.is_in_flight());
        if process.phase == Phase::Alive || process.is_held(self.now) {
            self.never(|| format!("process {} has outlived the driver", process.pid));
        }
        self.log.push(Did::Release {
            owner: process.owner,
            serial,
            // Every process in its cgroup is killed.
            abandons: process.home.is_none() && process.has_living_members(),
        });
    }

    fn receive(&mut self, senders: &HashMap<Pid, InstanceId>) -> Option<Happening> {
        if self.set.reports.is_empty() {
            let Message { serial, pid, text } = self.set.messages.pop_front()?;
            let owner = senders.get(&pid).copied();
            self.log.push(Did::Receive { serial, owner, text });
            let notices = crate::notify::parse(text.as_bytes()).filter_map(Result::ok);
            let reports = notices.filter_map(Report::of);
            self.set
                .reports
                .extend(reports.filter_map(|report| Some((owner?, report))));
        }
        let Some((from, report)) = self.set.reports.pop_front() else {
            return Some(Happening::UnknownMessage);
        };
        let ends_message = self.set.reports.is_empty();
        Some(Happening::Report {
            from,
            report,
            ends_message,
        })
    }

    /// Blocks until a process has ended, as dropping a supervisor does.
    fn wait_for_end(&mut self, place: usize, patience: Duration) {
        let until = self.now.saturating_add(patience);
        self.processes[place].receive(Signal::KILL, self.now);
        while self.processes[place].phase == Phase::Alive {
            match self.processes[place].next() {
                Some(at) if at <= until => self.pass(at),
                Some(_) | None => return self.pass(until),
            }
        }
        if let Some(at) = self.processes[place].held_until() {
            self.pass(at.min(until));
        }
    }

    /// The time of the next look at a process; `None` if none is needed.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.processes.iter().filter_map(|process| process.look).min()
    }
}

/// From this look on, the real kernel side distinguishes zombies from living processes.
const CAREFUL_LOOK: u8 = 6;

impl SimKernel {
    /// The time of the next look at the process in this slot, which has ended and cannot be collected.
    pub(super) fn look_of(&self, slot: u32) -> Option<Instant> {
        let world = self.0.borrow();
        world.process(world.serial_in(slot)?)?.look
    }
}

impl Kernel for SimKernel {
    const SLICE: u32 = 3;
    const TURN: u32 = 3;
    const BATCH: usize = 4;

    fn now(&self) -> Instant {
        self.0.borrow().now
    }

    fn wall(&self) -> SystemTime {
        self.0.borrow().wall
    }

    fn is_saturated(&self) -> bool {
        let world = self.0.borrow();
        let is_saturated = world.is_saturated();
        world.was_saturated.set(is_saturated || world.was_saturated.get());
        is_saturated
    }

    fn spawn(&mut self, owner: u32, program: &Program, place: &context::SpawnContext) -> Result<Spawned, SpawnError> {
        let mut world = self.0.borrow_mut();
        let label = Label::of(program, place);
        let home = place.cgroup.as_ref();
        let place = Place {
            leads: label.leads,
            home: home.map(|home| format!("{}/{}", home.dir.path().display(), home.name)),
            has_ready_fd: place.ready_fd,
            socket: program.env_value(NotifySocket::VARIABLE).is_some(),
        };
        let made = world.spawn(place, owner);
        let at = world.now;
        let flies = matches!(made, Ok((_, _, true)));
        let made = made.map(|(serial, pid, _)| (serial, pid));
        world.log.push(Did::Spawn {
            owner,
            label,
            at,
            made,
            flies,
        });
        let (_, pid) =
            made.map_err(|errno| SpawnError::new(program.name().to_owned(), SpawnStep::Exec, errno, None))?;
        let pipes = Pipes::default();
        let executed = !flies || world.planted == Some(Planted::ExecutedAtClone);
        Ok(Spawned { pid, pipes, executed })
    }

    fn collect(&mut self, slot: u32, hold: bool) -> io::Result<Collected> {
        let mut world = self.0.borrow_mut();
        let Some(serial) = world.serial_in(slot) else {
            return Ok(Collected::Nothing);
        };
        let was_in_flight = world.process(serial).is_some_and(|process| process.executed.is_none());
        let result = world.collect(serial, hold);
        let now = world.now;
        if let Some(process) = world.process_mut(serial) {
            process.schedule_look(now);
        }
        let (owner, pid) = world
            .process(serial)
            .map(|process| (process.owner, process.pid))
            .unwrap();
        let ended = world
            .process(serial)
            .is_some_and(|process| process.phase == Phase::Zombie && !process.is_held(now));
        world.log.push(Did::Collect {
            owner,
            serial,
            hold,
            result,
        });
        Ok(match result.map_err(io::Error::from_raw_os_error)? {
            Sight::Nothing | Sight::Late => Collected::Nothing,
            Sight::Empty => Collected::CgroupEmpty,
            Sight::Ready => Collected::Ready,
            Sight::NotReady => Collected::NotReady,
            Sight::Executed(_) => Collected::Executed { ended },
            Sight::NotExecuted(_) if world.planted == Some(Planted::FailureAsEnd) => Collected::Ended(ExitRecord {
                pid,
                exit: Exit::Code(127),
                usage: Some(Usage::default()),
            }),
            Sight::NotExecuted(errno) => {
                Collected::SpawnFailed(SpawnError::new("pretended".into(), SpawnStep::Exec, errno, None))
            }
            Sight::Ended(_) if was_in_flight && world.planted == Some(Planted::EndAsFailure) => {
                Collected::SpawnFailed(SpawnError::new("pretended".into(), SpawnStep::Exec, libc::EIO, None))
            }
            Sight::Ended(exit) => Collected::Ended(ExitRecord {
                pid,
                exit,
                usage: Some(Usage::default()),
            }),
        })
    }

    fn has_ended(&self, slot: u32) -> bool {
        let world = self.0.borrow();
        world
            .serial_in(slot)
            .and_then(|serial| world.process(serial))
            .is_none_or(|process| process.phase != Phase::Alive && !process.is_held(world.now))
    }

    fn reserve(&mut self, _additional: usize, _slots: u32) {}

    fn signal(&mut self, slot: u32, signal: Signal, scope: Scope) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        let Some(serial) = world.serial_in(slot) else {
            world.never(|| format!("{signal} goes to slot {slot}, which has no process"));
            return Ok(());
        };
        let failed = world.signal(serial, signal, scope).err();
        let (owner, at) = (
            world.process(serial).map_or(u32::MAX, |process| process.owner),
            world.now,
        );
        world.log.push(Did::Signal {
            owner,
            serial,
            signal,
            scope,
            failed,
            at,
        });
        failed.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    fn is_empty(&mut self, slot: u32, scope: Scope, looks: u8) -> io::Result<bool> {
        let mut world = self.0.borrow_mut();
        let serial = world.serial_in(slot);
        let result = serial.map_or(Ok(true), |serial| world.is_empty(serial, scope, looks));
        world.log.push(Did::Look { owner: slot, result });
        result.map_err(io::Error::from_raw_os_error)
    }

    fn usage(&self, _slot: u32) -> Option<CgroupUsage> {
        None
    }

    fn out_of_memory(&self, slot: u32) -> Option<OomLimit> {
        self.0.borrow().serial_in(slot).and_then(oom_of)
    }

    fn change_limit(&mut self, _slot: u32, _file: &CgroupFile) -> Result<(), CgroupError> {
        Ok(())
    }

    fn discard(&mut self, slot: u32, patience: Duration) {
        let mut world = self.0.borrow_mut();
        match world.serial_in(slot) {
            Some(serial) => world.release(serial, patience),
            None => world.never(|| format!("the process of slot {slot} is released, and there is none")),
        }
    }

    fn close(&mut self, _until: Instant) {}

    fn ready(&mut self, entries: &mut Vec<Token>) -> io::Result<()> {
        self.0.borrow_mut().report(entries);
        Ok(())
    }

    fn entries(&self) -> usize {
        self.0.borrow().entries()
    }

    fn next(&mut self, entry: Token, senders: &HashMap<Pid, InstanceId>) -> io::Result<Option<Happening>> {
        let mut world = self.0.borrow_mut();
        Ok(match entry {
            TIMER => {
                let is_ready = world.timer_is_ready();
                if is_ready {
                    world.armed = None;
                }
                is_ready.then_some(Happening::TimerExpired)
            }
            SOCKET => world.receive(senders),
            SIGNALS => {
                let info = world.set.signals.pop_front();
                let taken = info.as_ref().map(|info| Taken::Signal(info.signal));
                world.log.extend(taken.map(Did::Take));
                info.map(Happening::Signal)
            }
            ORPHANS => {
                let record = world.set.orphans.pop_front();
                world
                    .log
                    .extend(record.map(|record| Did::Take(Taken::Orphan(record.pid))));
                record.map(Happening::Orphan)
            }
            _ => world.owner_of(entry).map(Happening::Process),
        })
    }

    fn notify_entry(&self) -> Option<Token> {
        Some(SOCKET)
    }

    fn look_at(&self) -> Option<Instant> {
        self.0.borrow().look_at()
    }

    fn look_again(&mut self, now: Instant) -> Option<u32> {
        let mut world = self.0.borrow_mut();
        let due = world
            .processes
            .iter_mut()
            .filter(|process| process.look.is_some_and(|at| at <= now));
        let first = due.min_by_key(|process| (process.look, process.owner))?;
        // Like a deadline, a look is due once.
        first.look = Some(Instant::NEVER);
        Some(first.owner)
    }

    fn is_ours(&self) -> bool {
        !self.0.borrow().is_replaced
    }

    fn arm(&mut self, at: Option<Instant>) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        let faults = world.faults;
        // A timer that is already armed for this time is left alone, which cannot fail.
        let ok = at == world.armed || !world.chance.happens(faults.arm_fails);
        world.arm_failed = !ok;
        let was_disarmed = matches!(world.log.last(), Some(Did::Arm { at: None, .. }));
        world.armed_anew = was_disarmed && at == Some(Instant::ZERO);
        if ok && at != world.armed {
            // After arming, the timer is not readable. If it is armed for the past, it becomes readable again.
            world.armed = None;
            world.note_edges();
            world.armed = at;
            world.note_edges();
        }
        world.log.push(Did::Arm { at, ok });
        if ok {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
    }
}
