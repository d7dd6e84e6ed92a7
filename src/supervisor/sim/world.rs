//! The simulated kernel: a clock that only moves when told to, processes with small numbers that
//! are soon used again, and a log of what was asked of it.
//!
//! It is strict where the real one is forgiving. What the driver must never do (two processes for
//! one instance, a signal to what has been reaped, letting go of what is alive) is noted here at
//! the moment it happens; the rest is found by comparing after each step.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::chance::Chance;
use super::climate::Climate;
use super::process::{FakeProcess, Phase, Place};
use super::recipe::Label;
use crate::cgroup::CgroupUsage;
use crate::child::Pipes;
use crate::command::{Program, SpawnError, Step};
use crate::exit::{Exit, ExitRecord, Pid, Usage};
use crate::lifecycle::Scope;
use crate::signal::Signal;
use crate::supervisor::kernel::{Kernel, Seen};
use crate::supervisor::leaves;
use crate::time::Instant;

/// Everything outside of the driver.
pub(super) struct World {
    pub(super) now: Instant,
    /// Jumps about.
    pub(super) wall: SystemTime,
    pub(super) chance: Chance,
    pub(super) climate: Climate,
    /// Those that have not been released.
    pub(super) processes: Vec<FakeProcess>,
    /// What the timer is armed for.
    pub(super) armed: Option<Instant>,
    /// Whether the last attempt to arm it failed.
    pub(super) arm_failed: bool,
    /// What was asked of the kernel in this step.
    pub(super) log: Vec<Did>,
    /// The first thing that must never happen.
    pub(super) broken: Option<String>,
    /// The driver is being dropped: what is alive may be released now.
    pub(super) dropping: bool,
    /// A leader that was collected stays a zombie for its group's sake, as before Linux 6.9.
    pub(super) keeps_zombies: bool,
    /// Handles that were dropped without being released.
    lost: Rc<Cell<u32>>,
    serials: u64,
}

/// Something that was asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    Spawn {
        owner: u32,
        label: Label,
        /// When it had been done.
        at: Instant,
        /// The process, or the errno.
        made: Result<(u64, Pid), i32>,
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
        /// The errno.
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
        /// Whether someone in its group was alive.
        abandons: bool,
    },
    Arm {
        at: Option<Instant>,
        ok: bool,
    },
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    Nothing,
    /// It has ended, and its status is not to be had.
    Late,
    Ended(Exit),
    Empty,
    Ready,
    NotReady,
}

/// What the driver holds of a process. It can't be copied, and must not be dropped.
pub(super) struct Handle {
    pub(super) serial: u64,
    released: bool,
    lost: Rc<Cell<u32>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.released {
            self.lost.set(self.lost.get() + 1);
        }
    }
}

/// The kernel, as the driver sees it.
#[derive(Clone)]
pub(super) struct Fake(pub(super) Rc<RefCell<World>>);

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut chance = Chance::new(seed);
        World {
            now: Instant::from_nanos(chance.pick(&[1, 1_000, 1 << 40]) + chance.below(100)),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            climate: Climate::random(&mut chance),
            keeps_zombies: chance.happens(3),
            chance,
            processes: Vec::new(),
            armed: None,
            arm_failed: false,
            log: Vec::new(),
            broken: None,
            dropping: false,
            lost: Rc::default(),
            serials: 0,
        }
    }

    /// A new step begins.
    pub(super) fn begin(&mut self, chance: Chance) {
        self.chance = chance;
        self.log.clear();
    }

    pub(super) fn pass(&mut self, until: Instant) {
        self.now = self.now.max(until);
        for process in &mut self.processes {
            process.pass(self.now);
        }
    }

    /// When something happens by itself, the timer apart.
    pub(super) fn next(&self) -> Option<Instant> {
        self.processes.iter().filter_map(FakeProcess::next).min()
    }

    pub(super) fn timer_is_ready(&self) -> bool {
        self.armed.is_some_and(|at| at <= self.now)
    }

    pub(super) fn process(&self, serial: u64) -> Option<&FakeProcess> {
        self.processes.iter().find(|process| process.serial == serial)
    }

    pub(super) fn process_mut(&mut self, serial: u64) -> Option<&mut FakeProcess> {
        self.processes.iter_mut().find(|process| process.serial == serial)
    }

    /// From now on nothing goes wrong any more.
    pub(super) fn mend(&mut self) {
        self.climate = Climate::KIND;
        for process in &mut self.processes {
            process.mend(self.now);
        }
    }

    pub(super) fn lost_handles(&self) -> u32 {
        self.lost.get()
    }

    /// Notes what must never happen.
    pub(super) fn never(&mut self, what: impl FnOnce() -> String) {
        if self.broken.is_none() {
            self.broken = Some(what());
        }
    }

    /// A call takes its time, in which other things happen.
    fn take_time(&mut self) {
        if self.chance.happens(self.climate.call_takes_long) {
            let while_ = Duration::from_micros(self.chance.below(10_000));
            self.pass(self.now.saturating_add(while_));
        }
    }

    /// A number that is free: the lowest mostly, so that numbers come back as soon as they can.
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

    fn spawn(&mut self, place: Place, owner: u32) -> Result<(u64, Pid), i32> {
        if self.processes.iter().any(|process| process.owner == owner) {
            self.never(|| format!("a second process is spawned for slot {owner} while it has one"));
        }
        let at_home = |process: &FakeProcess| place.home.is_some() && process.home == place.home;
        if let Some(other) = self.processes.iter().find(|process| at_home(process)) {
            let other = other.pid;
            self.never(|| format!("the cgroup of process {other} is taken over: {place:?}"));
        }
        self.take_time();
        let climate = self.climate;
        if self.chance.happens(climate.spawn_fails) {
            let well_known = [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENOENT, libc::EACCES];
            return Err(if self.chance.happens(2) {
                self.chance.pick(&well_known)
            } else {
                1 + self.chance.below(133) as i32
            });
        }
        let pid = self.free_pid();
        self.serials += 1;
        let habits = climate.habits(&mut self.chance, self.now);
        let mut process = FakeProcess::new((self.serials, pid), owner, place, habits, self.now);
        if self.chance.happens(climate.dead_on_arrival) {
            process.phase = Phase::Zombie;
            process.exit = self.chance.pick(&[Exit::Code(0), Exit::Code(127)]);
        }
        self.processes.push(process);
        Ok((self.serials, pid))
    }

    fn collect(&mut self, serial: u64, hold: bool) -> Result<Sight, i32> {
        self.take_time();
        let climate = self.climate;
        if self.chance.happens(climate.collect_fails) {
            return Err(self.chance.pick(&[libc::EIO, libc::EMFILE, libc::ENOMEM]));
        }
        let is_late = self.chance.happens(climate.collect_is_late);
        let held = is_late.then(|| self.now.saturating_add(self.chance.time()));
        let is_lost = hold && self.chance.happens(climate.group_is_lost);
        let now = self.now;
        let is_worth_it = |process: &&mut FakeProcess| process.is_ready() || process.phase == Phase::Zombie;
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
            process.look_later(now);
            return Ok(Sight::Late);
        }
        process.look = None;
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
        let climate = self.climate;
        let fails = self.chance.happens(climate.signal_fails) && !self.dropping;
        let errno = self.chance.pick(&[libc::EPERM, libc::EPERM, libc::ESRCH, libc::EIO]);
        let now = self.now;
        let Some(process) = self.process_mut(serial) else {
            return Err(libc::EBADF);
        };
        if process.phase == Phase::Reaped {
            let pid = process.pid;
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
        Ok(())
    }

    fn is_empty(&mut self, serial: u64, scope: Scope, looks: u8) -> Result<bool, i32> {
        let climate = self.climate;
        let fails = self.chance.happens(climate.look_fails);
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
        if process.phase == Phase::Alive || process.is_held(self.now) {
            self.never(|| format!("process {} has outlived the driver", process.pid));
        }
        self.log.push(Did::Release {
            owner: process.owner,
            serial,
            // Whatever lives in its cgroup is killed.
            abandons: process.home.is_none() && process.has_living_members(),
        });
    }

    /// Blocks, as dropping a supervisor does.
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

    /// When a process is to be looked at again, if one is.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.processes.iter().filter_map(|process| process.look).min()
    }
}

/// From this look on the real kernel's seam tells zombies from the living.
const CAREFUL_LOOK: u8 = 6;

impl Fake {
    /// When a process is looked at again that has ended and can't be collected.
    pub(super) fn look_of(&self, process: &Handle) -> Option<Instant> {
        self.0.borrow().process(process.serial)?.look
    }
}

impl Kernel for Fake {
    type Process = Handle;

    const SLICE: u32 = 3;

    fn now(&self) -> Instant {
        self.0.borrow().now
    }

    fn wall(&self) -> SystemTime {
        self.0.borrow().wall
    }

    fn spawn(&mut self, program: &Program, place: &leaves::Place, owner: u32) -> Result<(Handle, Pipes), SpawnError> {
        let mut world = self.0.borrow_mut();
        let label = Label::of(program, place);
        let home = place.home.as_ref();
        let place = Place {
            leads: label.leads,
            home: home.map(|home| format!("{}/{}", home.dir.path().display(), home.name)),
            speaks: place.ready_fd,
        };
        let made = world.spawn(place, owner);
        let at = world.now;
        world.log.push(Did::Spawn { owner, label, at, made });
        let (serial, _) = made.map_err(|errno| SpawnError::new(program.name().to_owned(), Step::Exec, errno, None))?;
        let handle = Handle {
            serial,
            released: false,
            lost: Rc::clone(&world.lost),
        };
        Ok((handle, Pipes::default()))
    }

    fn pid(&self, process: &Handle) -> Pid {
        let world = self.0.borrow();
        world.process(process.serial).map(|process| process.pid).unwrap()
    }

    fn collect(&mut self, process: &mut Handle, hold: bool) -> io::Result<Seen> {
        let mut world = self.0.borrow_mut();
        let serial = process.serial;
        let result = world.collect(serial, hold);
        let now = world.now;
        let process = world.process_mut(serial);
        if let Some(process) = process.filter(|process| process.look.is_some() && result != Ok(Sight::Late)) {
            // What was found was something else, or nothing could be.
            process.look_later(now);
        }
        let (owner, pid) = world
            .process(serial)
            .map(|process| (process.owner, process.pid))
            .unwrap();
        world.log.push(Did::Collect {
            owner,
            serial,
            hold,
            result,
        });
        Ok(match result.map_err(io::Error::from_raw_os_error)? {
            Sight::Nothing | Sight::Late => Seen::Nothing,
            Sight::Empty => Seen::Empty,
            Sight::Ready => Seen::Ready,
            Sight::NotReady => Seen::NotReady,
            Sight::Ended(exit) => Seen::Ended(ExitRecord {
                pid,
                exit,
                usage: Usage::default(),
            }),
        })
    }

    fn has_ended(&self, process: &Handle) -> bool {
        let world = self.0.borrow();
        world
            .process(process.serial)
            .is_none_or(|process| process.phase != Phase::Alive && !process.is_held(world.now))
    }

    fn reserve(&mut self, _additional: usize) {}

    fn signal(&mut self, process: &Handle, signal: Signal, scope: Scope) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        let serial = process.serial;
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

    fn is_empty(&mut self, process: &Handle, scope: Scope, looks: u8) -> io::Result<bool> {
        let mut world = self.0.borrow_mut();
        let result = world.is_empty(process.serial, scope, looks);
        let owner = world.process(process.serial).map_or(u32::MAX, |process| process.owner);
        world.log.push(Did::Look { owner, result });
        result.map_err(io::Error::from_raw_os_error)
    }

    fn usage(&self, _process: &Handle) -> Option<CgroupUsage> {
        None
    }

    fn release(&mut self, mut process: Handle, patience: Duration) {
        process.released = true;
        self.0.borrow_mut().release(process.serial, patience);
    }

    fn close(&mut self, _until: Instant) {}

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
        // Like a deadline, it is told once.
        first.look = Some(Instant::NEVER);
        Some(first.owner)
    }

    fn is_ours(&self) -> bool {
        true
    }

    fn arm(&mut self, at: Option<Instant>) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        let climate = world.climate;
        // One that is armed so already is left alone, and that can't fail.
        let ok = at == world.armed || !world.chance.happens(climate.arm_fails);
        world.arm_failed = !ok;
        if ok {
            world.armed = at;
        }
        world.log.push(Did::Arm { at, ok });
        if ok {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
    }
}
