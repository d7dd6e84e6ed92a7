//! The simulated kernel as the engine calls it. Between any two of these calls the host may be killed.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::crash::When;
use super::descriptors::{ORPHANS, SIGNALS, SOCKET, TIMER};
use super::process::{Phase, Place, SimProcess, oom_of};
use super::recipe::Label;
use super::state_file::Killed;
use super::world::{Did, Planted, Sight, Taken, World};
use crate::cgroup::{CgroupError, CgroupFile, CgroupUsage, OomKill};
use crate::child::Pipes;
use crate::codec::Writer;
use crate::command::{Program, SpawnError, SpawnStep};
use crate::engine::context;
use crate::engine::kernel::{Collected, Coming, Happening, Kernel, Senders, Spawned};
use crate::exit::{Exit, ExitRecord, Usage};
use crate::fdset::Token;
use crate::lifecycle::{Part, Scope};
use crate::notify::NotifySocket;
use crate::signal::Signal;
use crate::time::Instant;

/// The kernel as the engine uses it.
#[derive(Clone)]
pub(super) struct SimKernel(pub(super) Rc<RefCell<World>>);

impl SimKernel {
    /// Ends the host here if its time has come. Nothing that it does afterwards reaches the world.
    fn strike(&self) {
        let is_over = self.0.borrow_mut().file.strike();
        if is_over {
            kill();
        }
    }

    /// The time of the next look at the process in this slot, which has ended and cannot be collected.
    pub(super) fn look_of(&self, slot: u32) -> Option<Instant> {
        let world = self.0.borrow();
        world.process(world.serial_in(slot)?)?.look
    }
}

/// Whether a record is that of an empty slot.
fn is_empty(put: &dyn Fn(&mut Writer<'_>)) -> bool {
    let mut record = Vec::new();
    put(&mut Writer::new(&mut record));
    record.is_empty()
}

/// Ends the host. This is no failure, so no hook is called.
fn kill() -> ! {
    std::panic::resume_unwind(Box::new(Killed));
}

impl Kernel for SimKernel {
    const SLICE: u32 = 3;
    const TURN: u32 = 3;
    const BATCH: usize = 4;

    fn now(&self) -> Instant {
        self.0.borrow().now
    }

    fn monotonic(&self) -> Instant {
        self.now()
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

    fn announce(&mut self, coming: &Coming<'_>) {
        self.0.borrow_mut().coming = coming.run;
    }

    fn spawn(&mut self, owner: u32, program: &Program, place: &context::SpawnContext) -> Result<Spawned, SpawnError> {
        self.strike();
        let mut world = self.0.borrow_mut();
        let label = Label::of(program, place);
        let (home, gets_stored) = (place.cgroup.as_ref(), place.gets_stored);
        let place = Place {
            leads: label.leads,
            home: home.map(|home| format!("{}/{}", home.dir.path().display(), home.name)),
            has_ready_fd: place.ready_fd,
            socket: program.env_value(NotifySocket::VARIABLE).is_some(),
            stores: program.most_stored() > 0,
            part: label.part,
        };
        let passed = match gets_stored {
            true => world.pass_descriptors(owner, program.most_stored()),
            false => 0,
        };
        let is_beyond = !world.has_room();
        let made = world.spawn(place, owner);
        if let Ok((_, pid, _)) = made {
            world.file.note_pid(owner, pid);
        }
        let (at, run) = (world.now, world.coming);
        let flies = matches!(made, Ok((_, _, true)));
        let made = made.map(|(serial, pid, _)| (serial, pid));
        world.log.push(Did::Spawn {
            owner,
            label,
            run,
            at,
            made,
            flies,
            is_beyond,
            passed,
        });
        drop(world);
        let dies = self.0.borrow().file.dies;
        if matches!(dies, Some(When::AtBirth | When::After(0))) && made.is_ok() {
            kill();
        }
        let mut world = self.0.borrow_mut();
        if made.is_ok() {
            let now = world.now;
            world.file.end_birth(owner, now);
        }
        let (_, pid) =
            made.map_err(|errno| SpawnError::new(program.name().to_owned(), SpawnStep::Exec, errno, None))?;
        let pipes = Pipes::default();
        let executed = !flies || world.planted == Some(Planted::ExecutedAtClone);
        Ok(Spawned { pid, pipes, executed })
    }

    fn collect(&mut self, slot: u32, hold: bool) -> io::Result<Collected> {
        self.strike();
        let mut world = self.0.borrow_mut();
        let Some(serial) = world.serial_in(slot) else {
            return Ok(Collected::Nothing);
        };
        let was_in_flight = world.process(serial).is_some_and(|process| process.executed.is_none());
        let result = world.collect(serial, hold);
        let is_child = world.process(serial).is_some_and(|process| !process.is_foreign);
        if let (Ok(Sight::Ended(exit)), true) = (result, is_child) {
            // The kernel writes the status of a child when it is reaped.
            world.file.note_exit(slot, exit);
        }
        let now = world.now;
        if let Some(process) = world.process_mut(serial) {
            process.schedule_look(now);
        }
        let (owner, pid, part) = world
            .process(serial)
            .map(|process| (process.owner, process.pid, process.part))
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
                exit: match world.planted {
                    Some(Planted::EndsWell) if part == Part::Before => Exit::Code(0),
                    _ => exit,
                },
                usage: is_child.then(Usage::default),
            }),
        })
    }

    fn has_executed(&self, slot: u32) -> bool {
        let mut world = self.0.borrow_mut();
        let Some(serial) = world.serial_in(slot) else {
            return false;
        };
        let at = world.process(serial).and_then(SimProcess::has_executed);
        world.log.extend(at.map(|at| Did::SeeExecution { serial, at }));
        at.is_some()
    }

    fn has_ended(&self, slot: u32) -> bool {
        let world = self.0.borrow();
        world
            .serial_in(slot)
            .and_then(|serial| world.process(serial))
            .is_none_or(|process| process.phase != Phase::Alive && !process.is_held(world.now))
    }

    fn drop_descriptors(&mut self, slot: u32) {
        self.strike();
        self.0.borrow_mut().drop_descriptors(slot);
    }

    fn reserve(&mut self, _processes: usize, _slots: u32) {}

    fn signal(&mut self, slot: u32, signal: Signal, scope: Scope) -> io::Result<()> {
        self.strike();
        let mut world = self.0.borrow_mut();
        let Some(serial) = world.serial_in(slot) else {
            if !world.file.ended.contains(&slot) {
                world.never(|| format!("{signal} goes to slot {slot}, which has no process"));
            }
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
        self.strike();
        let mut world = self.0.borrow_mut();
        let serial = world.serial_in(slot);
        let result = serial.map_or(Ok(true), |serial| world.is_empty(serial, scope, looks));
        world.log.push(Did::Look { owner: slot, result });
        result.map_err(io::Error::from_raw_os_error)
    }

    fn usage(&self, _slot: u32) -> Option<CgroupUsage> {
        None
    }

    fn out_of_memory(&self, slot: u32) -> Option<OomKill> {
        self.0.borrow().serial_in(slot).and_then(oom_of)
    }

    fn change_limit(&mut self, _slot: u32, _file: &CgroupFile) -> Result<(), CgroupError> {
        Ok(())
    }

    fn freeze(&mut self, _slot: u32, _on: bool) -> io::Result<()> {
        Ok(())
    }

    fn discard(&mut self, slot: u32, patience: Duration) {
        self.strike();
        let mut world = self.0.borrow_mut();
        match world.serial_in(slot) {
            Some(serial) => world.release(serial, patience),
            // It has ended without a host, and the lifecycle is told now.
            None if world.file.take_ended(slot) => {}
            None => world.never(|| format!("the process of slot {slot} is released, and there is none")),
        }
    }

    fn close(&mut self, _until: Instant) {}

    fn ready(&mut self, entries: &mut Vec<Token>) -> io::Result<()> {
        self.strike();
        self.0.borrow_mut().report(entries);
        Ok(())
    }

    fn entries(&self) -> usize {
        self.0.borrow().entries()
    }

    fn next(&mut self, entry: Token, senders: &Senders) -> io::Result<Option<Happening>> {
        self.strike();
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
        self.strike();
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

    fn keeps_state(&self) -> bool {
        self.0.borrow().file.is_kept
    }

    fn record(&mut self, slot: u32, put: &dyn Fn(&mut Writer<'_>)) {
        self.strike();
        let mut world = self.0.borrow_mut();
        if is_empty(put) {
            world.log.push(Did::Leave { owner: slot });
        }
        if world.file.is_kept && world.planted != Some(Planted::RecordSkipped) {
            let stored = world.file.record(slot, put);
            stored.unwrap_or_else(|broken| world.never(|| broken));
        }
    }

    fn save(&mut self, base: &[u8], records: &[Vec<u8>], longest: usize) -> io::Result<()> {
        self.strike();
        self.0.borrow_mut().file.save(base, records, longest);
        Ok(())
    }

    fn forget_birth(&mut self, slot: u32) {
        self.0.borrow_mut().file.forget_birth(slot);
    }

    fn begin_birth(&mut self, slot: u32, number: u64) {
        self.strike();
        let mut world = self.0.borrow_mut();
        let now = world.now;
        if world.planted != Some(Planted::BirthSkipped) {
            world.file.begin_birth(slot, number, now);
        }
    }

    fn is_ours(&self) -> bool {
        !self.0.borrow().is_replaced
    }

    fn arm(&mut self, at: Option<Instant>) -> io::Result<()> {
        self.strike();
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
