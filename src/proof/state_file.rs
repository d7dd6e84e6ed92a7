//! The state file of the simulated host, and what the world does with the processes of a host that was killed.

use std::io;
use std::path::PathBuf;

use super::crash::When;
use super::process::{Phase, SimProcess};
use super::world::{Planted, World};
use crate::codec::Writer;
use crate::engine::recovery::{Birth, Candidate, Suspect};
use crate::exit::{Exit, Pid};
use crate::time::Instant;

/// The payload of the unwinding that ends a host.
pub(super) struct Killed;

/// The unit of the time when a process was made.
pub(super) const TICK: u64 = 10_000_000;

/// The file, and what the world knows about the death of its host.
#[derive(Default)]
pub(super) struct SimFile {
    /// Whether the host keeps its state.
    pub(super) is_kept: bool,
    /// When the host is killed in this step.
    pub(super) dies: Option<When>,
    /// Whether the host was killed, and the next one has not begun.
    pub(super) is_dead: bool,
    /// Whether the kernel tells the status of a process to others than its parent, as from Linux 6.15 on.
    pub(super) tells_exits: bool,
    pub(super) base: Vec<u8>,
    /// For each slot the record and the birth.
    pub(super) records: Vec<(Vec<u8>, Birth)>,
    longest: usize,
    /// The processes that have got a number of one of the host's processes.
    pub(super) strangers: Vec<Stranger>,
    /// The slots of processes that have ended without a host, until the lifecycle is told.
    pub(super) ended: Vec<u32>,
    /// The cgroups with processes that a killed host has left.
    pub(super) left_cgroups: Vec<String>,
}

/// A process of something else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stranger {
    pub(super) pid: Pid,
    made_at: Instant,
    ends: Instant,
}

impl SimFile {
    pub(super) fn new(is_kept: bool, tells_exits: bool) -> SimFile {
        SimFile {
            is_kept,
            tells_exits,
            ..SimFile::default()
        }
    }

    /// Counts a call to the kernel. Returns whether the host is killed before it.
    pub(super) const fn strike(&mut self) -> bool {
        match &mut self.dies {
            Some(When::After(0)) => true,
            Some(When::After(calls)) => {
                *calls -= 1;
                false
            }
            Some(When::AtBirth) | None => false,
        }
    }

    pub(super) fn save(&mut self, base: &[u8], records: &[Vec<u8>], longest: usize) {
        self.base = base.to_vec();
        self.longest = longest;
        // What the kernel wrote stays. The births of new slots are empty.
        self.records.resize_with(records.len(), Default::default);
        for ((old, _), new) in self.records.iter_mut().zip(records) {
            old.clone_from(new);
        }
    }

    /// Stores a record. The real file ignores one that has no place.
    pub(super) fn record(&mut self, slot: u32, put: &dyn Fn(&mut Writer<'_>)) -> Result<(), String> {
        let longest = self.longest;
        let Some((record, birth)) = self.records.get_mut(slot as usize) else {
            return Err(format!("the record of slot {slot} has no place in the state file"));
        };
        record.clear();
        put(&mut Writer::new(record));
        if record.is_empty() {
            // The next instance in this slot counts its runs from one again.
            birth.number = 0;
        }
        let length = record.len();
        match length > longest {
            true => Err(format!("a record has {length} bytes, and {longest} are the most")),
            false => Ok(()),
        }
    }

    pub(super) fn forget_birth(&mut self, slot: u32) {
        if let Some(birth) = self.birth(slot) {
            birth.number = 0;
        }
    }

    pub(super) fn take_ended(&mut self, slot: u32) -> bool {
        let place = self.ended.iter().position(|&ended| ended == slot);
        place.map(|place| self.ended.remove(place)).is_some()
    }

    fn birth(&mut self, slot: u32) -> Option<&mut Birth> {
        self.records.get_mut(slot as usize).map(|(_, birth)| birth)
    }

    pub(super) fn begin_birth(&mut self, slot: u32, number: u64, now: Instant) {
        if let Some(birth) = self.birth(slot) {
            *birth = Birth {
                number,
                before: now.as_nanos(),
                ..Birth::default()
            };
        }
    }

    /// The kernel has made a process.
    pub(super) fn note_pid(&mut self, slot: u32, pid: Pid) {
        if let Some(birth) = self.birth(slot) {
            birth.pid = Some(pid);
        }
    }

    /// The next host has found the process of a birth.
    fn end_found(&mut self, slot: u32, now: Instant) {
        if self.birth(slot).is_some_and(|birth| birth.after.is_none()) {
            self.end_birth(slot, now);
        }
    }

    pub(super) fn end_birth(&mut self, slot: u32, now: Instant) {
        if let Some(birth) = self.birth(slot) {
            birth.after = Some(now.as_nanos());
        }
    }

    /// The kernel has reaped a child of the host.
    pub(super) fn note_exit(&mut self, slot: u32, exit: Exit) {
        if let Some(birth) = self.birth(slot) {
            birth.exit = Some(exit);
        }
    }

    /// Whether a stranger has this number, or one of the host's processes had it a moment ago.
    pub(super) fn holds(&self, number: u32, now: Instant) -> bool {
        let is_stranger = |stranger: &Stranger| stranger.pid.as_raw() == number && now < stranger.ends;
        self.strangers.iter().any(is_stranger) || self.is_fresh(number, now)
    }

    /// Whether a process got the number so shortly ago that the time when it was made does not distinguish it from a
    /// later one. No kernel gives a number away again so soon. If the host has noted the end, the time does not count.
    fn is_fresh(&self, number: u32, now: Instant) -> bool {
        let mut births = self.records.iter().map(|(_, birth)| birth);
        births.any(|birth| {
            let last = birth.after.unwrap_or(birth.before);
            let is_of_it = birth.pid.is_some_and(|pid| pid.as_raw() == number);
            is_of_it && birth.exit.is_none() && rounded(now) <= last
        })
    }
}

/// The time in the unit that the kernel shows.
const fn rounded(time: Instant) -> u64 {
    time.as_nanos() / TICK * TICK
}

/// The process that has a number when a host recovers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    /// The serial number of a process of the host; `None` for a stranger.
    pub(super) serial: Option<u64>,
    made_at: u64,
    is_marked: Option<bool>,
}

impl Suspect for Holder {
    const TICK: u64 = TICK;

    fn made_at(&self) -> Option<u64> {
        Some(self.made_at)
    }

    fn is_marked(&self) -> Option<bool> {
        self.is_marked
    }

    fn is_unreaped(&self) -> bool {
        true
    }
}

impl World {
    /// The host is killed. Its children get another parent. What it held is closed, and unread messages are lost.
    pub(super) fn die(&mut self) {
        self.file.dies = None;
        self.file.is_dead = true;
        self.set.forget();
        self.lose_descriptors();
        let tells = self.file.tells_exits;
        let mut left = Vec::new();
        for process in std::mem::take(&mut self.processes) {
            match process.phase {
                Phase::Alive | Phase::Zombie => self.processes.push(process),
                // What is left of its process group is not found again.
                Phase::Held | Phase::Reaped => left.push(process),
            }
        }
        for process in left {
            self.leave(&process);
        }
        let now = self.now;
        for process in &mut self.processes {
            let reaped = self.chance.time();
            process.lose_parent(reaped, tells, now);
        }
    }

    /// Kills everything in these cgroups.
    pub(super) fn clear_cgroups(&mut self, places: &[(PathBuf, String)]) {
        for (directory, name) in places {
            let place = format!("{}/{name}", directory.display());
            self.file.left_cgroups.retain(|left| *left != place);
        }
    }

    /// Nothing watches what a process has left.
    fn leave(&mut self, process: &SimProcess) {
        if process.is_populated() {
            self.file.left_cgroups.extend(process.home.clone());
        }
    }

    /// Gives numbers of processes that have ended to others.
    pub(super) fn give_numbers_away(&mut self) -> u64 {
        let now = self.now;
        self.file.strangers.retain(|stranger| now < stranger.ends);
        let births = self.file.records.iter().filter_map(|(_, birth)| birth.pid);
        let numbers: Vec<_> = births.collect();
        let mut given = 0;
        for pid in numbers {
            if self.is_in_use(pid.as_raw()) || !self.chance.happens(2) {
                continue;
            }
            let ends = now.saturating_add(self.chance.time());
            let (made_at, ends) = (now, ends.max(now.saturating_add(std::time::Duration::from_nanos(1))));
            self.file.strangers.push(Stranger { pid, made_at, ends });
            given += 1;
        }
        given
    }

    /// The process that has this number now.
    pub(super) fn holder(&mut self, pid: Pid, birth: &Birth) -> io::Result<Option<Holder>> {
        let now = self.now;
        let own = self
            .processes
            .iter()
            .find(|process| process.pid == pid && process.has_number(now));
        if let Some(process) = own {
            let (serial, made_at) = (process.serial, rounded(process.made_at));
            // Between the old memory and the new environment there is neither.
            let is_marked = (process.executed.is_some() || !self.chance.happens(4)).then_some(true);
            return Ok(Some(Holder {
                serial: Some(serial),
                made_at,
                is_marked,
            }));
        }
        let strangers = self.file.strangers.iter();
        let stranger = strangers
            .rev()
            .find(|stranger| stranger.pid == pid && now < stranger.ends);
        let is_planted = self.planted == Some(Planted::TimeIgnored);
        Ok(stranger.map(|stranger| Holder {
            serial: None,
            made_at: if is_planted {
                birth.before
            } else {
                rounded(stranger.made_at)
            },
            is_marked: Some(is_planted),
        }))
    }

    /// The next host watches these processes. Those that have ended are gone, and those without a proof are strangers.
    pub(super) fn take_found(&mut self, candidates: &[Candidate<Holder>], unproven: &[(u32, Pid)]) {
        let now = self.now;
        for process in std::mem::take(&mut self.processes) {
            let candidate = candidates
                .iter()
                .find(|known| known.process.serial == Some(process.serial));
            if candidate.is_some_and(|known| known.slot == process.owner) {
                self.processes.push(process);
                continue;
            }
            let (pid, owner) = (process.pid, process.owner);
            if unproven.contains(&(owner, pid)) {
                let (made_at, ends) = (process.made_at, now.saturating_add(std::time::Duration::from_secs(1)));
                self.file.strangers.push(Stranger { pid, made_at, ends });
            } else if process.has_number(now) {
                self.never(|| format!("process {pid} of slot {owner} is alive, and the recovery does not find it"));
            } else {
                self.leave(&process);
            }
        }
        if let Some(wrong) = candidates.iter().find(|known| known.process.serial.is_none()) {
            let slot = wrong.slot;
            self.never(|| format!("a stranger is taken for the process of slot {slot}"));
        }
        self.in_flight = 0;
        for candidate in candidates {
            let Some(process) = candidate.process.serial.and_then(|serial| self.process_mut(serial)) else {
                continue;
            };
            process.watch_anew(candidate.in_flight);
            let owner = process.owner;
            let home = process.home.clone();
            self.in_flight += usize::from(candidate.in_flight.is_some());
            let noted = candidate.cgroup.as_ref();
            let noted = noted.map(|(directory, name)| format!("{}/{name}", directory.display()));
            self.file.end_found(candidate.slot, now);
            if owner != candidate.slot {
                let slot = candidate.slot;
                self.never(|| format!("the process of slot {owner} is taken for that of slot {slot}"));
            }
            if noted != home {
                self.never(|| format!("a process in {home:?} is looked for in {noted:?}"));
            }
        }
    }
}
