//! What a killed host has left, and how the next host goes on with it.
//!
//! Everything here is a pure decision. The caller reads the state file, and tells what it knows about the process that
//! has a number now ([`Suspect`]).
//!
//! A PID alone proves nothing, because the kernel gives it to another process after the end. The state file contains
//! the time before and after each process was made. A process that has the PID and was made in between is the same one:
//! no PID is given twice in such a short time. If the host was killed before it noted the second time, the mark of the
//! state file in the process is the proof.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::core::Engine;
use super::ids::InstanceId;
use super::image::{Image, NotRestored, Restored};
use super::kernel::Kernel;
use super::record::Record;
use super::request::Request;
use super::spec::GroupSpec;
use crate::codec::{Damaged, Reader, Stored};
use crate::exit::{Exit, ExitRecord, Pid};
use crate::lifecycle::State;
use crate::time::Instant;

/// What is stored about the birth and the end of an instance's process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Birth {
    /// The number of the process, among those of the instance.
    pub(crate) number: u64,
    pub(crate) pid: Option<Pid>,
    /// The time before it was made, and after; `None` if the host was killed in between.
    pub(crate) before: u64,
    pub(crate) after: Option<u64>,
    /// The status, if the host has reaped it.
    pub(crate) exit: Option<Exit>,
}

/// A process that has the number of an instance's process now. It may be another process.
pub(crate) trait Suspect {
    /// When it was made, rounded down to [`Suspect::TICK`]; `None` if this is not known.
    fn made_at(&self) -> Option<u64>;

    /// The unit of that time, in nanoseconds.
    const TICK: u64;

    /// Whether it is a process of a host of this state file; `None` if this is not known.
    fn is_marked(&self) -> Option<bool>;

    /// Whether its number still belongs to it, so that all that was said is about it.
    fn is_unreaped(&self) -> bool;
}

/// What became of a process.
#[derive(Debug)]
pub(crate) enum Found<P> {
    /// It lives, or is a zombie that nothing has reaped.
    Present(P),
    /// It has ended.
    Ended(ExitRecord),
    /// Whether the process with this number is the same one is not known.
    Unproven(Pid),
}

impl Birth {
    /// Finds out what became of the process. `open` looks for the process that has the number now.
    ///
    /// # Errors
    /// An error of `open`.
    pub(crate) fn find<P: Suspect>(
        &self,
        pid: Pid,
        open: impl FnOnce(Pid) -> io::Result<Option<P>>,
    ) -> io::Result<Found<P>> {
        let gone = |exit| Ok(Found::Ended(ExitRecord { pid, exit, usage: None }));
        if self.pid != Some(pid) {
            return Ok(Found::Unproven(pid));
        }
        if let Some(exit) = self.exit {
            return gone(exit);
        }
        let Some(suspect) = open(pid)? else {
            return gone(Exit::Unknown);
        };
        let Some(made_at) = suspect.made_at() else {
            return if suspect.is_unreaped() {
                Ok(Found::Unproven(pid))
            } else {
                gone(Exit::Unknown)
            };
        };
        let earliest = self.before / P::TICK * P::TICK;
        let is_same = match self.after {
            Some(after) => earliest <= made_at && made_at <= after,
            None if made_at < earliest => false,
            None => match suspect.is_marked() {
                Some(is_marked) => is_marked,
                None => return Ok(Found::Unproven(pid)),
            },
        };
        match is_same && suspect.is_unreaped() {
            true => Ok(Found::Present(suspect)),
            false => gone(Exit::Unknown),
        }
    }
}

/// A process that is to be watched again.
pub(crate) struct Candidate<P> {
    pub(crate) slot: u32,
    pub(crate) process: P,
    /// When its spawn began, if no execve was seen.
    pub(crate) in_flight: Option<Instant>,
    pub(crate) cgroup: Option<(PathBuf, String)>,
}

/// What a host has left, with the processes that were found.
pub(crate) struct LeftBehind<P> {
    /// The address of the notify socket.
    pub(crate) socket: Option<OsString>,
    pub(crate) image: Image,
    pub(crate) candidates: Vec<Candidate<P>>,
    /// The slots of processes that were made and not recorded, and how long ago they were made.
    pub(crate) born: Vec<(u32, Pid, Duration)>,
    /// The slots of processes that have ended.
    pub(crate) ended: Vec<(u32, ExitRecord)>,
    /// The cgroups of runs that are over. Processes may be left in them.
    pub(crate) ended_cgroups: Vec<(PathBuf, String)>,
    /// The slots of processes without a proof.
    pub(crate) unproven: Vec<(u32, Pid)>,
}

/// Why the state of a host cannot be read.
#[derive(Debug)]
pub(crate) enum NotRead {
    Damaged,
    /// A process cannot be looked for.
    Io(io::Error),
}

impl From<Damaged> for NotRead {
    fn from(_: Damaged) -> NotRead {
        NotRead::Damaged
    }
}

impl From<io::Error> for NotRead {
    fn from(error: io::Error) -> NotRead {
        NotRead::Io(error)
    }
}

/// The facts about a process that a record contains.
struct Facts {
    state: State,
    number: u64,
    cgroup: Option<(PathBuf, String)>,
}

fn facts_of(record: &Record) -> Facts {
    Facts {
        state: *record.life.state(),
        number: record.life.process_number(),
        cgroup: record.cgroup.clone(),
    }
}

impl<P> LeftBehind<P> {
    /// What a host has left that had stored nothing.
    #[cfg(test)]
    pub(crate) fn nothing() -> LeftBehind<P> {
        LeftBehind::of(None, Image::default())
    }

    fn of(socket: Option<OsString>, image: Image) -> LeftBehind<P> {
        LeftBehind {
            socket,
            image,
            candidates: Vec::new(),
            born: Vec::new(),
            ended: Vec::new(),
            ended_cgroups: Vec::new(),
            unproven: Vec::new(),
        }
    }

    /// Reads the base and the records, one for each slot, and finds the processes. An empty slot has an empty record.
    /// `now` is the time on the clock of the births.
    pub(crate) fn read(
        base: &mut Reader<'_>,
        left: &[(Vec<u8>, Birth)],
        now: u64,
        mut find: impl FnMut(&Birth, Pid) -> io::Result<Found<P>>,
    ) -> Result<LeftBehind<P>, NotRead> {
        let socket = Stored::get(base)?;
        let mut image = Image::get(base)?;
        base.end()?;
        let mut records = Vec::with_capacity(left.len());
        for (bytes, _) in left {
            let mut reader = Reader::new(bytes, base.home);
            let record = match bytes.is_empty() {
                true => None,
                false => Some(Record::get(&mut reader)?),
            };
            reader.end()?;
            records.push(record);
        }
        let facts: Vec<_> = records.iter().map(|record| record.as_ref().map(facts_of)).collect();
        image.follow_records(records)?;
        let mut found = LeftBehind::of(socket, image);
        for (slot, (facts, (_, birth))) in (0..).zip(facts.into_iter().zip(left)) {
            if let Some(facts) = facts {
                found.add(slot, facts, birth, now, &mut find)?;
            }
        }
        Ok(found)
    }

    /// The host may have been killed before it had released the cgroup of the last run.
    fn add_without_process(&mut self, facts: Facts) -> Result<(), NotRead> {
        self.ended_cgroups.extend(facts.cgroup);
        Ok(())
    }

    /// Finds the process of a slot.
    fn add(
        &mut self,
        slot: u32,
        facts: Facts,
        birth: &Birth,
        now: u64,
        find: &mut impl FnMut(&Birth, Pid) -> io::Result<Found<P>>,
    ) -> Result<(), NotRead> {
        let is_of_run = birth.number == facts.number;
        let (pid, was_recorded) = match (facts.state.pid(), facts.state) {
            (Some(pid), _) => (pid, true),
            (None, state) if state.is_unspawned() && is_of_run => match birth.pid {
                Some(pid) => (pid, false),
                None => return self.add_without_process(facts),
            },
            (None, _) => return self.add_without_process(facts),
        };
        let found = match is_of_run {
            true => find(birth, pid)?,
            false => Found::Unproven(pid),
        };
        if !was_recorded && !matches!(found, Found::Unproven(_)) {
            let age = Duration::from_nanos(now.saturating_sub(birth.before));
            self.born.push((slot, pid, age));
        }
        match found {
            Found::Present(process) => {
                // What was not recorded is not known to have executed its program.
                let is_in_flight = facts.state.is_in_flight() || facts.state.is_unspawned();
                let in_flight = facts.state.since().filter(|_| is_in_flight);
                self.candidates.push(Candidate {
                    slot,
                    process,
                    in_flight,
                    cgroup: facts.cgroup,
                });
            }
            Found::Ended(record) => {
                self.ended.push((slot, record));
                self.ended_cgroups.extend(facts.cgroup);
            }
            Found::Unproven(pid) => {
                self.unproven.push((slot, pid));
                self.image.reset(slot as usize);
            }
        }
        Ok(())
    }
}

impl<K: Kernel> Engine<K> {
    /// Continues the image of a killed host. The kernel must get its processes before the engine is used.
    pub(crate) fn restore_left(&mut self, image: &Image, groups: Vec<GroupSpec>) -> Result<Restored, NotRestored> {
        let image = image.at_home(self.instances.home());
        let image = image.map_err(|_| NotRestored::Damaged)?;
        self.restore(image, groups)
    }

    /// Tells the lifecycles what happened since the host was killed, and does what it was about to do. The descriptions
    /// are followed after that ([`Engine::follow_descriptions`]).
    pub(crate) fn resume(
        &mut self,
        restored: &Restored,
        born: Vec<(u32, Pid, Duration)>,
        ended: Vec<(u32, ExitRecord)>,
        unproven: &[(u32, Pid)],
    ) {
        for &(slot, _) in unproven {
            self.kernel.forget_birth(slot);
        }
        // No instance is started with its siblings before the ends of all are known.
        self.tells_siblings = true;
        self.remember_ends();
        let stopping = self.rungs();
        for (slot, pid, age) in born {
            if let Some(id) = self.instances.id_at(slot) {
                self.was_born(id, pid, age);
            }
        }
        self.withdraw_again();
        let ended = ended.into_iter();
        let ended: Vec<_> = ended
            .filter_map(|(slot, record)| Some((self.instances.id_at(slot)?, record)))
            .collect();
        // Of two processes with one number, one has ended.
        let silent: HashSet<_> = ended.iter().map(|&(id, _)| id).collect();
        self.hear_groups(&silent);
        // Before the ends, so that none of these is started again.
        self.stop_the_retiring();
        // A run may be over with the end of a command of its stop.
        let with_command = |id: &InstanceId| {
            let instance = self.instances.get(*id);
            instance.is_some_and(|instance| instance.life.state().has_stop_command())
        };
        let with_command: Vec<_> = self.instances.ids().filter(with_command).collect();
        for id in ended.iter().map(|&(id, _)| id).chain(with_command) {
            if !self.is_stop_command(id) && !self.stays(id, restored) && self.is_wanted(id) {
                self.submit(id, Request::Stop, &mut 0);
            }
        }
        // Before the signals, which go to nothing that has ended.
        for (id, record) in ended {
            self.ended_unseen(id, record);
        }
        self.tells_siblings = false;
        self.follow_all_siblings();
        self.signal_again(stopping);
        self.resume_stop_commands(unproven);
    }

    /// Whether an instance is described.
    fn stays(&self, id: InstanceId, restored: &Restored) -> bool {
        let Some(instance) = self.instances.get(id) else {
            return false;
        };
        let mut described = restored.groups.iter().filter(|(group, ..)| *group == instance.group);
        described.any(|&(_, instances, _)| instance.name.number < instances)
    }
}
