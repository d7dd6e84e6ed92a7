//! The simulated kernel: a clock that moves only on request, processes with small pids that are soon reused, and a log
//! of all calls.
//!
//! It is stricter than the real kernel. It records at once what the engine must never do: a second process for one
//! instance, a signal to a reaped process, the release of a process that is alive. Everything else is found by the
//! comparison after each step.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use super::chance::Chance;
use super::descriptors::{Message, Set};
use super::fault_profile::{FaultProfile, READY, any_errno};
use super::process::{Landing, Phase, Place, SimProcess, Takeoff};
use super::recipe::Label;
use super::state_file::SimFile;
use super::stored::Descriptors;
use crate::engine::ids::InstanceId;
use crate::engine::kernel::{Happening, Report, Sender, Senders};
use crate::exit::{Exit, Pid};
use crate::lifecycle::{Part, Scope};
use crate::notify::{NotifyAccess, may_be_main};
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
    /// The number of the run of the next spawn.
    pub(super) coming: u64,
    /// How the next process in flight comes to execute its program, instead of by chance.
    pub(super) next_takeoff: Option<Takeoff>,
    /// A planted fault of the kernel's side, which an oracle must notice.
    pub(super) planted: Option<Planted>,
    pub(super) file: SimFile,
    /// The descriptors that processes have stored.
    pub(super) descriptors: Descriptors,
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
    /// No record is written.
    RecordSkipped,
    /// No birth is noted.
    BirthSkipped,
    /// A recovery does not compare the times when processes were made.
    TimeIgnored,
    /// A recovery does not look for processes.
    NothingFound,
    /// A recovery forgets the ends of processes.
    EndsForgotten,
    /// The stored descriptors of an instance at rest are not closed.
    DescriptorsKept,
    /// The next run does not get the newest stored descriptor.
    LastDescriptorNotPassed,
    /// Every end of a command before a run is reported as a success.
    EndsWell,
}

/// A call to the kernel, or an action of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    Spawn {
        owner: u32,
        label: Label,
        /// The number of its run, as the engine has announced it.
        run: u64,
        /// The time at the end of the call.
        at: Instant,
        /// The serial number and the pid of the process, or the errno.
        made: Result<(u64, Pid), i32>,
        /// Whether the program is executed later.
        flies: bool,
        /// Whether the maximum of spawns was in flight.
        is_beyond: bool,
        /// A digest of the stored descriptors that it gets.
        passed: u64,
    },
    Collect {
        owner: u32,
        serial: u64,
        hold: bool,
        result: Result<Sight, i32>,
    },
    /// The engine learned, because of a report, that a program was executed.
    SeeExecution {
        serial: u64,
        at: Instant,
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
    /// An instance has left its slot.
    Leave {
        owner: u32,
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
        /// The descriptor that came with it.
        fd: Option<u64>,
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

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut chance = Chance::new(seed);
        World {
            now: Instant::from_nanos(chance.pick(&[1, 1_000, 1 << 40]) + chance.below(100)),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            faults: FaultProfile::random(&mut chance),
            keeps_zombies: chance.happens(3),
            most_in_flight: chance.pick(&[0, 1, 2, 32]),
            file: SimFile::new(chance.happens(2), chance.happens(2)),
            descriptors: Descriptors::default(),
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
            coming: 0,
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
        self.forget_what_was_read();
        self.now = self.now.max(until);
        let mut sent = Vec::new();
        for process in &mut self.processes {
            process.pass(self.now);
            let (serial, pid) = (process.serial, process.pid);
            let messages = process.sent.drain(..);
            sent.extend(messages.map(|(at, text)| (at, Message { serial, pid, text })));
        }
        if !self.file.is_dead {
            self.send(sent);
        }
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

    pub(super) fn is_saturated(&self) -> bool {
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
        self.file.is_dead = false;
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
        let first = if self.chance.happens(4) { 10 } else { 2 };
        let free = (first..).find(|&number| !self.is_in_use(number));
        free.and_then(Pid::new).unwrap()
    }

    /// Whether no new process can get this number.
    pub(super) fn is_in_use(&self, number: u32) -> bool {
        let uses = |process: &SimProcess| match process.phase {
            Phase::Alive | Phase::Zombie => process.has_number(self.now),
            Phase::Held => self.keeps_zombies || process.has_members(),
            Phase::Reaped => false,
        };
        let mut processes = self.processes.iter();
        let is_used = processes.any(|process| process.pid.as_raw() == number && uses(process));
        is_used || (self.file.is_kept && self.file.holds(number, self.now))
    }

    /// Makes a process. Returns its serial number and its pid, and whether its program is executed later.
    pub(super) fn spawn(&mut self, place: Place, owner: u32) -> Result<(u64, Pid, bool), i32> {
        // What belongs to a stop does not wait for what may hang. Whether this command does is checked after the step.
        if !self.has_room() && matches!(place.part, Part::Before | Part::Program) {
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
        let habits = match place.part {
            Part::Program => faults.habits(&mut self.chance, self.now),
            _ => faults.command_habits(&mut self.chance, self.now),
        };
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

    pub(super) fn collect(&mut self, serial: u64, hold: bool) -> Result<Sight, i32> {
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

    pub(super) fn signal(&mut self, serial: u64, signal: Signal, scope: Scope) -> Result<(), i32> {
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

    pub(super) fn is_empty(&mut self, serial: u64, scope: Scope, looks: u8) -> Result<bool, i32> {
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

    pub(super) fn release(&mut self, serial: u64, patience: Duration) {
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

    /// Whether a sender can be the process in this slot, which has its number. The pidfd of the sender tells.
    fn may_be(&self, sender: u64, slot: u32) -> bool {
        let has_number = |serial: Option<u64>| {
            let process = serial.and_then(|serial| self.process(serial));
            process.is_some_and(|process| process.has_number(self.now))
        };
        may_be_main(|| !has_number(self.serial_in(slot)), || Some(has_number(Some(sender))))
    }

    pub(super) fn receive(&mut self, senders: &Senders) -> Option<Happening> {
        if self.set.reports.is_empty() {
            let Message { serial, pid, text } = self.set.messages.pop_front()?;
            let counts =
                |sender: &&Sender| sender.access >= NotifyAccess::Main && self.may_be(serial, sender.id.index());
            let sender = senders.get(&pid).filter(counts).copied();
            let owner = sender.map(|sender| sender.id);
            let (fd, more) = self.store(text, sender);
            self.log.push(Did::Receive {
                serial,
                owner,
                text,
                fd,
            });
            let notices = crate::notify::parse(text.as_bytes()).filter_map(Result::ok);
            let reports = notices.filter_map(Report::of).chain(more);
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
