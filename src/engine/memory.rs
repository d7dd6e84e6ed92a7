//! The remembered runs of an instance, as bytes.
//!
//! A supervisor may have thousands of instances, and each remembers its last runs. A [`Run`] takes more than 300 bytes,
//! because it has a place for everything that a run may have: the error of a spawn, and the usage of a cgroup. As bytes,
//! a run without these takes about 40. So the memory for the runs is one list of bytes, which an instance reserves for
//! [`TYPICAL`] bytes a run, and which grows if runs need more. The oldest run is removed when another one follows.
//!
//! A run begins with its length. Its first byte tells how it has ended and which fields follow. Numbers have a variable
//! length (LEB128). A run that this form does not fit, because an image has a time beyond the range or an exit status
//! that contradicts the end, is written as images contain it. So every run comes back as it was.

use std::time::{Duration, SystemTime};

use super::run::{End, Run};
use crate::cgroup::CgroupUsage;
use crate::codec::{Damaged, Reader, Stored, Writer};
use crate::exit::{Exit, ExitRecord, Pid, Usage};
use crate::signal::Signal;

/// The bytes that are reserved for a run: a process that was up for a day and has used some hours of CPU time needs as
/// many.
pub(super) const TYPICAL: usize = 48;

/// The bytes that are reserved besides, for the exit record of a process that has ended while its run is not over. Then
/// the oldest run is still remembered.
const TYPICAL_EXIT: usize = 24;

/// The length byte before a longer length.
const LONG: u8 = u8::MAX;

/// The place of an exit record if no process has ended.
const NOWHERE: u32 = u32::MAX;

/// The runs, the oldest first, and the exit record of the last process that has ended.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// The runs from `front` to `end`. What is before is of runs that were removed.
    bytes: Vec<u8>,
    front: u32,
    end: u32,
    /// Where the last exit record is: at the end of a run, or after all runs.
    exit: u32,
    runs: u32,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            bytes: Vec::new(),
            front: 0,
            end: 0,
            exit: NOWHERE,
            runs: 0,
        }
    }
}

impl Memory {
    /// Reserves room for this many runs in all.
    pub(super) fn reserve(&mut self, runs: usize) {
        let room = TYPICAL.saturating_mul(runs).saturating_add(TYPICAL_EXIT);
        self.bytes.reserve_exact(room.saturating_sub(self.bytes.len()));
    }

    pub(super) const fn len(&self) -> usize {
        self.runs as usize
    }

    /// The runs, the oldest first.
    pub(super) fn iter(&self) -> Runs<'_> {
        Runs { rest: self.runs() }
    }

    fn runs(&self) -> &[u8] {
        let runs = self.bytes.get(self.front as usize..self.end as usize);
        runs.unwrap_or_default()
    }

    /// Removes the oldest run.
    pub(super) fn forget_oldest(&mut self) {
        let mut rest = Reader::new(self.runs(), 0);
        if split(&mut rest).is_none() {
            return;
        }
        let front = place(self.end as usize - rest.left());
        let exit = self.last_exit().filter(|_| (self.front..front).contains(&self.exit));
        self.front = front;
        self.runs -= 1;
        if exit.is_some() {
            self.set_last_exit(exit.as_ref());
        }
    }

    /// Adds the newest run.
    pub(super) fn push(&mut self, run: &Run) {
        let last = self.last_exit();
        let is_last = run.exit.is_some() && run.exit == last;
        // The run may have the record itself, and otherwise comes before it.
        let moved = last.filter(|_| is_last || self.exit >= self.end);
        if moved.is_some() {
            self.set_last_exit(None);
        }
        self.make_room(TYPICAL);
        let reserved = self.bytes.capacity();
        let start = self.bytes.len();
        self.bytes.push(0);
        let mut exit = put_compact(run, &mut self.bytes);
        if exit.is_none() {
            self.bytes.truncate(start + 1);
            self.bytes.push(WHOLE);
            run.put(&mut Writer::new(&mut self.bytes));
        }
        let length = self.bytes.len() - start - 1;
        let short = u8::try_from(length).ok().filter(|&short| short < LONG);
        if let Some(first) = self.bytes.get_mut(start) {
            *first = short.unwrap_or(LONG);
        }
        if short.is_none() {
            let long = place(length).to_le_bytes();
            exit = exit.map(|exit| exit + long.len());
            self.bytes.splice(start + 1..start + 1, long);
        }
        self.end = place(self.bytes.len());
        self.runs += 1;
        match exit {
            Some(exit) if is_last => self.exit = place(exit),
            _ if moved.is_some() => self.set_last_exit(moved.as_ref()),
            _ => {}
        }
        if self.bytes.capacity() > reserved {
            // A list doubles its room. The next run is not likely to need so much.
            self.bytes.shrink_to(self.bytes.len() + TYPICAL + TYPICAL_EXIT);
        }
    }

    /// The exit record of the last process that has ended.
    pub(super) fn last_exit(&self) -> Option<ExitRecord> {
        get_exit(&mut Reader::new(self.bytes.get(self.exit as usize..)?, 0)).ok()
    }

    pub(super) fn set_last_exit(&mut self, record: Option<&ExitRecord>) {
        self.bytes.truncate(self.end as usize);
        self.exit = NOWHERE;
        if let Some(record) = record {
            self.make_room(TYPICAL_EXIT);
            self.exit = place(self.bytes.len());
            put_exit(record, &mut self.bytes);
        }
    }

    /// Moves the runs to the front if less than this many bytes are free.
    fn make_room(&mut self, free: usize) {
        if self.bytes.capacity() - self.bytes.len() < free {
            self.bytes.drain(..self.front as usize);
            self.end -= self.front;
            if self.exit != NOWHERE {
                self.exit -= self.front;
            }
            self.front = 0;
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

/// Runs that are read one by one, without an allocation.
pub(super) struct Runs<'a> {
    rest: &'a [u8],
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let mut rest = Reader::new(self.rest, 0);
        let run = split(&mut rest)?;
        let left = rest.left();
        self.rest = self.rest.get(self.rest.len() - left..)?;
        get(&mut Reader::new(run, 0)).ok()
    }
}

/// The last run is found from the front. There are at most 1,000.
impl DoubleEndedIterator for Runs<'_> {
    fn next_back(&mut self) -> Option<Run> {
        let mut rest = Reader::new(self.rest, 0);
        let (mut start, mut last) = (0, None);
        while rest.left() > 0 {
            start = self.rest.len() - rest.left();
            last = Some(split(&mut rest)?);
        }
        self.rest = self.rest.get(..start)?;
        get(&mut Reader::new(last?, 0)).ok()
    }
}

/// An index as it is stored. The texts in runs are those of images: their lengths have 32 bits too.
fn place(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(NOWHERE)
}

/// Takes the bytes of the next run.
fn split<'a>(from: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = match u8::get(from).ok()? {
        LONG => u32::get(from).ok()? as usize,
        short => usize::from(short),
    };
    from.raw(length).ok()
}

// The first byte of a run: the end in the lower half, and then a bit for each field.

/// Everything follows as in an image.
const WHOLE: u8 = 0;
/// The end is that of the exit status.
const EXITED: u8 = 1;
const CRASHED: u8 = 2;
const KILLED: u8 = 3;
/// The end follows as in an image.
const OTHER: u8 = 4;
/// The first of [`PLAIN`].
const FIRST_PLAIN: u8 = 5;
/// The ends without data.
const PLAIN: [End; 8] = [
    End::Stopped,
    End::StopTimeout,
    End::StartTimeout,
    End::NotReady,
    End::Watchdog,
    End::TimedOut,
    End::Released,
    End::Unknown,
];
const END: u8 = 0x0f;
const HAS_EXIT: u8 = 0x10;
const HAS_CGROUP: u8 = 0x20;

/// The number of an end, with or without its data.
fn number_of(end: &End, exit: Option<Exit>) -> u8 {
    match (end, exit) {
        (End::Exited(code), Some(Exit::Code(exited))) if *code == exited => EXITED,
        (&End::Crashed { signal, core }, Some(exit)) if exit == (Exit::Signal { signal, core }) => CRASHED,
        (&End::KilledFromOutside(sent), Some(Exit::Signal { signal, core: false })) if sent == signal => KILLED,
        _ => {
            let place = (FIRST_PLAIN..).zip(&PLAIN).find(|(_, plain)| **plain == *end);
            place.map_or(OTHER, |(number, _)| number)
        }
    }
}

/// Writes a run, and returns where its exit record is or would be; `None` if this form does not fit the run.
fn put_compact(run: &Run, to: &mut Vec<u8>) -> Option<usize> {
    let exit = run.exit;
    if run.pid != exit.map(|exit| exit.pid) {
        return None;
    }
    let number = number_of(&run.end, exit.map(|exit| exit.exit));
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    to.push(number | flag(exit.is_some(), HAS_EXIT) | flag(run.cgroup.is_some(), HAS_CGROUP));
    put_number(run.number, to);
    let started = wall_nanos(run.started_at)?;
    to.extend_from_slice(&started.to_le_bytes());
    let lasted = i64::try_from(run.lasted.as_nanos()).ok()?;
    put_signed(lasted, to);
    // The two clocks agree about the duration, but for a fraction of a millisecond.
    put_signed(wall_nanos(run.ended_at)?.checked_sub(started)?.checked_sub(lasted)?, to);
    if let Some(cgroup) = &run.cgroup {
        put_cgroup(cgroup, to)?;
    }
    if number == OTHER {
        run.end.put(&mut Writer::new(to));
    }
    let place = to.len();
    if let Some(exit) = &exit {
        put_exit(exit, to);
    }
    Some(place)
}

fn get(from: &mut Reader<'_>) -> Result<Run, Damaged> {
    let first = u8::get(from)?;
    if first & END == WHOLE {
        return Run::get(from);
    }
    let has = |flag| first & flag != 0;
    let number = get_number(from)?;
    let started = i64::get(from)?;
    let lasted = get_signed(from)?;
    let ended = started.wrapping_add(lasted).wrapping_add(get_signed(from)?);
    let cgroup = has(HAS_CGROUP).then(|| get_cgroup(from)).transpose()?;
    let other = (first & END == OTHER).then(|| End::get(from)).transpose()?;
    let exit = has(HAS_EXIT).then(|| get_exit(from)).transpose()?;
    let end = match (first & END, exit.map(|exit| exit.exit)) {
        _ if other.is_some() => other.ok_or(Damaged)?,
        (EXITED, Some(Exit::Code(code))) => End::Exited(code),
        (CRASHED, Some(Exit::Signal { signal, core })) => End::Crashed { signal, core },
        (KILLED, Some(Exit::Signal { signal, .. })) => End::KilledFromOutside(signal),
        (number, _) => {
            let plain = usize::from(number).checked_sub(usize::from(FIRST_PLAIN));
            plain.and_then(|place| PLAIN.get(place)).ok_or(Damaged)?.clone()
        }
    };
    Ok(Run {
        number,
        pid: exit.map(|exit| exit.pid),
        started_at: wall(started),
        ended_at: wall(ended),
        lasted: Duration::from_nanos(lasted.unsigned_abs()),
        exit,
        cgroup,
        end,
    })
}

// An exit record: the pid, and a number with the status and two bits each for the kind of it and of the usage.

const CODE: u64 = 0;
const SIGNAL: u64 = 1;
const SIGNAL_AND_CORE: u64 = 2;
const UNKNOWN: u64 = 3;

const NO_USAGE: u64 = 0;
/// The kernel counts microseconds and kilobytes.
const COARSE: u64 = 1;
const EXACT: u64 = 2;

fn put_exit(record: &ExitRecord, to: &mut Vec<u8>) {
    put_number(record.pid.as_raw().into(), to);
    let (kind, value) = match record.exit {
        Exit::Code(code) => (CODE, u64::from(code)),
        Exit::Signal { signal, core } => {
            let kind = if core { SIGNAL_AND_CORE } else { SIGNAL };
            (kind, signal.as_raw().unsigned_abs().into())
        }
        Exit::Unknown => (UNKNOWN, 0),
    };
    let coarse = |usage: Usage| {
        let times = (micros(usage.user)?, micros(usage.system)?);
        Some((times, multiples(usage.max_rss, 1_024)?, usage))
    };
    let status = value << 4 | kind << 2;
    match record.usage.map(|usage| coarse(usage).ok_or(usage)) {
        None => put_number(status | NO_USAGE, to),
        Some(Ok(((user, system), max_rss, usage))) => {
            put_number(status | COARSE, to);
            for number in [user, system, max_rss, usage.major_faults, usage.minor_faults] {
                put_number(number, to);
            }
        }
        Some(Err(usage)) => {
            put_number(status | EXACT, to);
            usage.put(&mut Writer::new(to));
        }
    }
}

fn get_exit(from: &mut Reader<'_>) -> Result<ExitRecord, Damaged> {
    let pid = u32::try_from(get_number(from)?)
        .ok()
        .and_then(Pid::new)
        .ok_or(Damaged)?;
    let status = get_number(from)?;
    let exit = match (status >> 2 & 3, status >> 4) {
        (CODE, code) => Exit::Code(u8::try_from(code).map_err(|_| Damaged)?),
        (UNKNOWN, _) => Exit::Unknown,
        (kind, signal) => {
            let signal = i32::try_from(signal).ok().and_then(|raw| Signal::from_raw(raw).ok());
            let (signal, core) = (signal.ok_or(Damaged)?, kind == SIGNAL_AND_CORE);
            Exit::Signal { signal, core }
        }
    };
    let usage = match status & 3 {
        NO_USAGE => None,
        COARSE => Some(Usage {
            user: Duration::from_micros(get_number(from)?),
            system: Duration::from_micros(get_number(from)?),
            max_rss: get_number(from)?.wrapping_mul(1_024),
            major_faults: get_number(from)?,
            minor_faults: get_number(from)?,
        }),
        _ => Some(Usage::get(from)?),
    };
    Ok(ExitRecord { pid, exit, usage })
}

/// The number of fields of a [`CgroupUsage`].
const COUNTS: usize = 12;

fn put_cgroup(usage: &CgroupUsage, to: &mut Vec<u8>) -> Option<()> {
    let mut counts = [None; COUNTS];
    let times = [usage.cpu, usage.cpu_user, usage.cpu_system];
    for (count, time) in counts.iter_mut().zip(times) {
        *count = time.map(micros).map_or(Some(None), |time| time.map(Some))?;
    }
    let others = [
        usage.memory_current,
        usage.memory_peak,
        usage.memory_swap_current,
        usage.oom_kills,
        usage.pids_current,
        usage.pids_peak,
        usage.pids_refused,
        usage.io_read,
        usage.io_written,
    ];
    counts
        .iter_mut()
        .skip(times.len())
        .zip(others)
        .for_each(|(count, other)| *count = other);
    let present = (0_u16..).zip(&counts).filter(|(_, count)| count.is_some());
    let present = present.fold(0_u16, |all, (bit, _)| all | 1 << bit);
    put_number(present.into(), to);
    counts.into_iter().flatten().for_each(|count| put_number(count, to));
    Some(())
}

fn get_cgroup(from: &mut Reader<'_>) -> Result<CgroupUsage, Damaged> {
    let present = get_number(from)?;
    let mut counts = [None; COUNTS];
    for (bit, count) in counts.iter_mut().enumerate() {
        *count = (present >> bit & 1 == 1).then(|| get_number(from)).transpose()?;
    }
    let [cpu, cpu_user, cpu_system, counts @ ..] = counts;
    let [memory_current, memory_peak, memory_swap_current, oom_kills, counts @ ..] = counts;
    let [pids_current, pids_peak, pids_refused, io_read, io_written] = counts;
    Ok(CgroupUsage {
        cpu: cpu.map(Duration::from_micros),
        cpu_user: cpu_user.map(Duration::from_micros),
        cpu_system: cpu_system.map(Duration::from_micros),
        memory_current,
        memory_peak,
        memory_swap_current,
        oom_kills,
        pids_current,
        pids_peak,
        pids_refused,
        io_read,
        io_written,
    })
}

fn micros(time: Duration) -> Option<u64> {
    multiples(u64::try_from(time.as_nanos()).ok()?, 1_000)
}

/// How often a number contains the other one, if nothing is left.
fn multiples(number: u64, of: u64) -> Option<u64> {
    (number % of == 0).then_some(number / of)
}

/// Nanoseconds since 1970; `None` beyond the years 1678 to 2262.
pub(super) fn wall_nanos(time: SystemTime) -> Option<i64> {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).ok(),
        Err(before) => i64::try_from(before.duration().as_nanos()).ok().map(|nanos| -nanos),
    }
}

/// The time that is this many nanoseconds after 1970.
pub(super) fn wall(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    let time = match nanos.is_negative() {
        true => SystemTime::UNIX_EPOCH.checked_sub(distance),
        false => SystemTime::UNIX_EPOCH.checked_add(distance),
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Seven bits a byte, the lowest first; the highest bit of a byte tells that another one follows.
fn put_number(mut number: u64, to: &mut Vec<u8>) {
    while number > 0x7f {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn get_number(from: &mut Reader<'_>) -> Result<u64, Damaged> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = u8::get(from)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Damaged)
}

/// The sign is the lowest bit, so that a small negative number is short too.
fn put_signed(number: i64, to: &mut Vec<u8>) {
    put_number(((number << 1) ^ (number >> 63)) as u64, to);
}

fn get_signed(from: &mut Reader<'_>) -> Result<i64, Damaged> {
    let number = get_number(from)?;
    Ok((number >> 1) as i64 ^ -((number & 1) as i64))
}

#[cfg(test)]
mod tests;
