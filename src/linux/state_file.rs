//! The state of a supervisor in a file that is mapped into memory, so that the next host can go on with it after this
//! one was killed.
//!
//! Two things are stored. The *base* is the image of the engine: groups, policies, and which instances there are. It is
//! written anew by the commands that change these. The *records*, one for each instance, follow every step of its
//! lifecycle. Writing one takes no system call and no allocation.
//!
//! # The file
//!
//! All numbers are little-endian. The first page is the header:
//!
//! | bytes | content |
//! |---|---|
//! | 0 to 7 | `pidherd` and a zero byte |
//! | 8 to 11 | the version of the format |
//! | 12 to 15 | the kind: 2 for a state file |
//! | 16 to 23 | the offset of the present area; 0 if there is none |
//! | 24 to 55 | the mark: 32 hexadecimal digits, chosen at random when the file was made |
//! | 56 to 91 | the boot id of the kernel, as `/proc/sys/kernel/random/boot_id` shows it |
//! | 96 to 127 | the architecture, filled up with zeros |
//!
//! An area begins with its header: the length of the base, its FNV-1a checksum, the offset of the records in the area,
//! the size of one record, and their number, each as `u64`. The base follows at 40. A new area is written completely
//! before the header of the file names it, with one store. There is room for two areas, which take turns.
//!
//! A record has this form. The copies take turns, too: the one that is not present is written, and then `turn` names
//! it.
//!
//! | bytes | content |
//! |---|---|
//! | 0 to 7 | `turn`: how often it was written; the lowest bit names the present copy |
//! | 8 to 15 | the number of the process that the next fields are about: four times its run, and 1, 2 or 3 for the command before it, the program, or the command after it |
//! | 16 to 23 | the boot time in nanoseconds (CLOCK_BOOTTIME) before the process was made |
//! | 24 to 31 | the same after it was made; 0 before that is known |
//! | 32 to 35 | the PID, written by the kernel before the process runs (CLONE_PARENT_SETTID); 0 before that |
//! | 40 to 167 | the result of waitid(2), written by the kernel when it reaps the process |
//! | from 168 on | two copies: the length, the FNV-1a checksum, and the encoded state of the instance |

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags, fallocate, flock, fstat, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec, retry_on_intr};

use crate::codec::{Writer, checksum};
use crate::engine::recovery::Birth;
use crate::engine::run_command::MARK as MARK_VARIABLE;
use crate::exit::Pid;
use crate::procfs;
use crate::sys::mapping::{BirthCell, ExitCell, Mapping};
use crate::sys::wait::exit_of_cell;
use crate::timerfd::Clock;

const MAGIC: [u8; 8] = *b"pidherd\0";

/// The version of the format. A change of any stored type is a new version.
const VERSION: u32 = 1;

/// The kind of a state file.
const KIND: u32 = 2;

/// The size of the header.
const PAGE: usize = 4096;

/// The places in the header.
const CURRENT: usize = 16;
const MARK: usize = 24;
const MARK_LENGTH: usize = 32;
const BOOT_ID: usize = 56;
const BOOT_ID_LENGTH: usize = 36;
const ARCHITECTURE: usize = 96;
const ARCHITECTURE_LENGTH: usize = 32;

/// The size of the header of an area.
const AREA: usize = 40;

/// The places in a record.
const NUMBER: usize = 8;
const BEFORE: usize = 16;
const AFTER: usize = 24;
const BIRTH: usize = 32;
const EXIT: usize = 40;
const COPIES: usize = 168;

/// The size of the header of a copy.
const COPY: usize = 16;

/// The descriptor with the lock has a higher number than those that a child keeps until its execve. Otherwise a child
/// that hangs there would keep the lock.
const LOCK_FROM: i32 = 64;

/// How often the lock is tried, with a millisecond in between. A child that was made just before the end of its host
/// has the lock until it has dropped all high descriptors, which is the first thing that it does.
const TRIES: u32 = 1_000;

/// Why a state file cannot be used.
#[derive(Debug)]
pub(crate) enum FileError {
    /// Another process uses it.
    InUse,
    /// It is not a regular file of this user that only this user can write.
    Foreign,
    /// It is no state file, or was damaged.
    Damaged,
    Version(u32),
    Architecture(String),
    Io(io::Error),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> FileError {
        FileError::Io(error)
    }
}

impl From<Errno> for FileError {
    fn from(errno: Errno) -> FileError {
        FileError::Io(errno.into())
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct StateFile {
    /// It holds the lock, which ends with the process.
    file: File,
    path: PathBuf,
    mapping: Arc<Mapping>,
    length: usize,
    /// The places of the two areas, and their size.
    areas: [usize; 2],
    capacity: usize,
    /// Which of the areas is the present one, if there is one.
    present: Option<usize>,
    /// The range of the area that the file names. It is not overwritten before another one is complete.
    kept: (usize, usize),
    records: Records,
    mark: String,
    buffer: Vec<u8>,
}

/// The records of an area.
#[derive(Clone, Copy, Debug, Default)]
struct Records {
    start: usize,
    stride: usize,
    number: usize,
}

/// The state that a host has left.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) base: Vec<u8>,
    /// For each slot the encoded record and the birth. The record is empty if the slot is.
    pub(crate) records: Vec<(Vec<u8>, Birth)>,
    places: Records,
}

impl StateFile {
    /// Opens the file, or makes it, and takes the lock. Returns what a host of the same boot has left there.
    pub(crate) fn open(path: &Path) -> Result<(StateFile, Option<Left>), FileError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = retry_on_intr(|| open(path, flags, Mode::RUSR | Mode::WUSR));
        let file = match opened {
            Ok(file) => File::from(file),
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(FileError::Foreign),
            Err(errno) => return Err(errno.into()),
        };
        let metadata = file.metadata()?;
        let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
        if !metadata.is_file() || !is_own || metadata.mode() & 0o022 != 0 {
            return Err(FileError::Foreign);
        }
        let file = File::from(fcntl_dupfd_cloexec(&file, LOCK_FROM)?);
        lock(&file)?;
        let found = match fstat(&file)?.st_size {
            0 => None,
            length => Some(usize::try_from(length).map_err(|_| FileError::Damaged)?),
        };
        let Some(length) = found else {
            return Ok((StateFile::made(file, path)?, None));
        };
        StateFile::reopened(file, path, length)
    }

    /// A new file.
    fn made(file: File, path: &Path) -> Result<StateFile, FileError> {
        let mark = new_mark()?;
        retry_on_intr(|| fallocate(&file, FallocateFlags::empty(), 0, PAGE as u64))?;
        let mapping = Arc::new(map(&file, path, PAGE)?);
        let state = StateFile {
            file,
            path: path.to_owned(),
            mapping,
            length: PAGE,
            areas: [0; 2],
            capacity: 0,
            present: None,
            kept: (0, 0),
            records: Records::default(),
            mark,
            buffer: Vec::new(),
        };
        state.write_header()?;
        Ok(state)
    }

    /// The magic is written last, so a file that was not completed is not read.
    fn write_header(&self) -> Result<(), FileError> {
        let boot_id = boot_id()?;
        self.mapping.store(CURRENT, 0);
        self.mapping.write(MARK, self.mark.as_bytes());
        self.mapping.write(BOOT_ID, boot_id.as_bytes());
        let mut architecture = [0; ARCHITECTURE_LENGTH];
        for (to, from) in architecture.iter_mut().zip(std::env::consts::ARCH.bytes()) {
            *to = from;
        }
        self.mapping.write(ARCHITECTURE, &architecture);
        self.mapping.store(8, u64::from(KIND) << 32 | u64::from(VERSION));
        self.mapping.store(0, u64::from_le_bytes(MAGIC));
        Ok(())
    }

    fn reopened(file: File, path: &Path, length: usize) -> Result<(StateFile, Option<Left>), FileError> {
        if length < PAGE {
            return Err(FileError::Damaged);
        }
        let mapping = Arc::new(map(&file, path, length)?);
        match mapping.load(0) {
            0 => {
                // The host was killed while it made the file.
                drop(mapping);
                file.set_len(0)?;
                return Ok((StateFile::made(file, path)?, None));
            }
            magic if magic != u64::from_le_bytes(MAGIC) => return Err(FileError::Damaged),
            _ => {}
        }
        let kind = mapping.load(8);
        if kind >> 32 != u64::from(KIND) {
            return Err(FileError::Damaged);
        }
        if kind as u32 != VERSION {
            return Err(FileError::Version(kind as u32));
        }
        let text = |offset, length| {
            let mut bytes = vec![0; length];
            mapping.read(offset, &mut bytes);
            bytes.retain(|&byte| byte != 0);
            String::from_utf8(bytes).map_err(|_| FileError::Damaged)
        };
        let architecture = text(ARCHITECTURE, ARCHITECTURE_LENGTH)?;
        if architecture != std::env::consts::ARCH {
            return Err(FileError::Architecture(architecture));
        }
        let is_of_this_boot = text(BOOT_ID, BOOT_ID_LENGTH)? == boot_id()?;
        let mark = text(MARK, MARK_LENGTH)?;
        if mark.len() != MARK_LENGTH || !mark.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(FileError::Damaged);
        }
        let (left, kept) = match mapping.load(CURRENT) {
            0 => (None, (0, 0)),
            current => {
                let (left, kept) = read_area(&mapping, current, length)?;
                (Some(left), kept)
            }
        };
        let state = StateFile {
            file,
            path: path.to_owned(),
            mapping,
            length,
            areas: [0; 2],
            capacity: 0,
            present: None,
            kept,
            records: left.as_ref().map_or(Records::default(), |left| left.places),
            mark,
            buffer: Vec::new(),
        };
        if !is_of_this_boot {
            state.write_header()?;
        }
        Ok((state, left.filter(|_| is_of_this_boot)))
    }

    /// The text in the environment of every process of this file's hosts.
    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }

    /// The entry of the mark in an environment.
    pub(crate) fn entry(&self) -> String {
        format!("{MARK_VARIABLE}={}", self.mark)
    }

    /// Whether a process has mapped the file.
    pub(crate) fn is_mapped_by(&self, pid: Pid) -> bool {
        let inode = self.file.metadata().map(|metadata| metadata.ino());
        inode.is_ok_and(|inode| procfs::has_mapped(pid, inode, &self.path).unwrap_or(false))
    }

    /// Allocates so much room that a base and records of this size can be stored, so that [`StateFile::save`] does not
    /// fail.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT, EFBIG, ENOMEM. Nothing has changed.
    pub(crate) fn reserve(&mut self, size: usize) -> io::Result<()> {
        let needed = (AREA + size).next_multiple_of(PAGE);
        if needed <= self.capacity {
            return Ok(());
        }
        let capacity = (needed * 2).next_multiple_of(PAGE);
        let start = match self.kept {
            (first, _) if PAGE + 2 * capacity <= first => PAGE,
            (_, end) => end.next_multiple_of(PAGE).max(PAGE),
        };
        let end = start + 2 * capacity;
        // A write into a hole of a full file system would raise SIGBUS.
        retry_on_intr(|| fallocate(&self.file, FallocateFlags::empty(), start as u64, (end - start) as u64))?;
        let length = end.max(self.length);
        self.mapping = Arc::new(map(&self.file, &self.path, length)?);
        self.length = length;
        // The present area stays where it is until the next save.
        self.areas = [start, start + capacity];
        self.capacity = capacity;
        self.present = None;
        Ok(())
    }

    /// Stores a base, and the record of each slot. `longest` is the length of the longest record from now on.
    pub(crate) fn save(&mut self, base: &[u8], records: &[Vec<u8>], longest: usize) -> io::Result<()> {
        let room = longest.next_multiple_of(8);
        let stride = COPIES + 2 * (COPY + room);
        let start = (AREA + base.len()).next_multiple_of(8);
        self.reserve(start + stride * records.len())?;
        self.buffer.clear();
        self.buffer.reserve(room);
        let before = self.records;
        let next = self.present.map_or(0, |present| 1 - present);
        let Some(&area) = self.areas.get(next) else {
            return Err(Errno::INVAL.into());
        };
        let now = Records {
            start: area + start,
            stride,
            number: records.len(),
        };
        let numbers = [
            base.len() as u64,
            checksum(base),
            start as u64,
            stride as u64,
            records.len() as u64,
        ];
        for (place, number) in numbers.into_iter().enumerate() {
            self.mapping.store(area + 8 * place, number);
        }
        self.mapping.write(area + AREA, base);
        let mut facts = [0; COPIES];
        for (slot, record) in records.iter().enumerate() {
            // What the kernel wrote stays. The births of new slots are empty.
            facts.fill(0);
            if let Some(old) = before.place(slot) {
                self.mapping.read(old, &mut facts);
            }
            let Some(place) = now.place(slot) else { break };
            self.mapping.write(place, &facts);
            self.mapping.store(place, 0);
            self.write_copy(place + COPIES, record);
        }
        self.records = now;
        self.present = Some(next);
        self.kept = (area, area + self.capacity);
        self.mapping.store(CURRENT, area as u64);
        Ok(())
    }

    fn write_copy(&self, place: usize, record: &[u8]) {
        self.mapping.store(place, record.len() as u64);
        self.mapping.store(place + 8, checksum(record));
        self.mapping.write(place + COPY, record);
    }

    /// Stores the record of a slot. It must not be longer than was said at the last [`StateFile::save`].
    pub(crate) fn record(&mut self, slot: u32, put: impl FnOnce(&mut Writer<'_>)) {
        let Some(place) = self.records.place(slot as usize) else {
            return;
        };
        self.buffer.clear();
        put(&mut Writer::new(&mut self.buffer));
        let room = (self.records.stride - COPIES) / 2 - COPY;
        if self.buffer.len() > room {
            return;
        }
        let turn = self.mapping.load(place).wrapping_add(1);
        let copy = place + COPIES + (turn & 1) as usize * (COPY + room);
        self.write_copy(copy, &self.buffer);
        self.mapping.store(place, turn);
        if self.buffer.is_empty() {
            self.forget_birth(slot);
        }
    }

    /// Separates the birth in this slot from the instance. The next runs in the slot are counted from 1 again, and must
    /// not be taken for that of the birth.
    pub(crate) fn forget_birth(&self, slot: u32) {
        if let Some(place) = self.records.place(slot as usize) {
            self.mapping.store(place + NUMBER, 0);
        }
    }

    /// A process with this number is about to be made. The kernel writes its PID to the cell.
    pub(crate) fn begin_birth(&self, slot: u32, number: u64) -> Option<BirthCell> {
        let place = self.records.place(slot as usize)?;
        let cell = BirthCell::new(&self.mapping, place + BIRTH)?;
        // Without a PID nothing else counts.
        cell.store(0);
        self.mapping.store(place + AFTER, 0);
        self.mapping.write(place + EXIT, &[0; ExitCell::SIZE]);
        self.mapping.store(place + BEFORE, Clock::Boottime.now().as_nanos());
        self.mapping.store(place + NUMBER, number);
        Some(cell)
    }

    /// The process was made.
    pub(crate) fn end_birth(&self, slot: u32, pid: Pid) {
        let Some(place) = self.records.place(slot as usize) else {
            return;
        };
        if let Some(cell) = BirthCell::new(&self.mapping, place + BIRTH) {
            // A kernel or a filter without clone3 has not written it.
            cell.store(pid.as_raw());
        }
        self.mapping.store(place + AFTER, Clock::Boottime.now().as_nanos());
    }

    /// The process of a birth was found. If the killed host had not noted the second time, it is now: a later process
    /// with the same number would have the same mark.
    pub(crate) fn end_found(&self, slot: u32, pid: Pid) {
        let place = self.records.place(slot as usize);
        if place.is_some_and(|place| self.mapping.load(place + AFTER) == 0) {
            self.end_birth(slot, pid);
        }
    }

    /// A process that was made elsewhere, at this boot time, has this number.
    pub(crate) fn adopted(&self, slot: u32, number: u64, pid: Pid, made_at: u64) {
        let Some(cell) = self.begin_birth(slot, number) else {
            return;
        };
        let Some(place) = self.records.place(slot as usize) else {
            return;
        };
        self.mapping.store(place + BEFORE, made_at);
        self.mapping.store(place + AFTER, made_at);
        cell.store(pid.as_raw());
    }

    /// The cell for the status of a slot's process.
    pub(crate) fn exit_cell(&self, slot: u32) -> Option<ExitCell> {
        let place = self.records.place(slot as usize)?;
        ExitCell::new(&self.mapping, place + EXIT)
    }

    /// Nothing is left to go on with.
    pub(crate) fn clear(&self) {
        self.mapping.store(CURRENT, 0);
    }
}

impl Records {
    fn place(&self, slot: usize) -> Option<usize> {
        (slot < self.number).then(|| self.start + self.stride * slot)
    }
}

/// What an area contains, and its range.
fn read_area(mapping: &Arc<Mapping>, area: u64, length: usize) -> Result<(Left, (usize, usize)), FileError> {
    let size = |number: u64| usize::try_from(number).ok().filter(|&size| size <= length);
    let inside = |number: u64| size(number).ok_or(FileError::Damaged);
    let area = inside(area)?;
    if area < PAGE {
        return Err(FileError::Damaged);
    }
    // Beyond the end, and at places that are no multiples of eight, all numbers are zero, and zero is no checksum.
    let [base, sum, start, stride, number] = [0, 8, 16, 24, 32].map(|place| mapping.load(area + place));
    let (base, start, stride, number) = (inside(base)?, inside(start)?, inside(stride)?, inside(number)?);
    let end = stride.checked_mul(number).and_then(|all| all.checked_add(area + start));
    let is_shape = stride >= COPIES + 2 * COPY && stride % 8 == 0 && start % 8 == 0;
    if end.is_none_or(|end| end > length) || !is_shape || AREA + base > start {
        return Err(FileError::Damaged);
    }
    let mut bytes = vec![0; base];
    mapping.read(area + AREA, &mut bytes);
    if checksum(&bytes) != sum {
        return Err(FileError::Damaged);
    }
    let records = Records {
        start: area + start,
        stride,
        number,
    };
    let mut left = Vec::with_capacity(number);
    for slot in 0..number {
        let Some(place) = records.place(slot) else { break };
        let room = (stride - COPIES) / 2 - COPY;
        let copy = place + COPIES + (mapping.load(place) & 1) as usize * (COPY + room);
        let length = size(mapping.load(copy)).filter(|&length| length <= room);
        let mut record = vec![0; length.ok_or(FileError::Damaged)?];
        mapping.read(copy + COPY, &mut record);
        if checksum(&record) != mapping.load(copy + 8) {
            return Err(FileError::Damaged);
        }
        left.push((record, birth(mapping, place)));
    }
    let left = Left {
        base: bytes,
        records: left,
        places: records,
    };
    Ok((left, (area, end.unwrap_or(length))))
}

fn birth(mapping: &Arc<Mapping>, place: usize) -> Birth {
    let pid = BirthCell::new(mapping, place + BIRTH).and_then(|cell| Pid::new(cell.load()));
    let ended = ExitCell::new(mapping, place + EXIT).and_then(|cell| exit_of_cell(&cell));
    Birth {
        number: mapping.load(place + NUMBER),
        pid,
        before: mapping.load(place + BEFORE),
        after: Some(mapping.load(place + AFTER)).filter(|&after| after != 0),
        exit: ended.filter(|(of, _)| Some(*of) == pid).map(|(_, exit)| exit),
    }
}

/// Maps the file. A mapping holds the open file that it was made with, and a child in flight holds the memory of its
/// host. So the file is opened anew for it: otherwise a child that hangs would keep the lock.
fn map(file: &File, path: &Path, length: usize) -> io::Result<Mapping> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let another = File::from(retry_on_intr(|| open(path, flags, Mode::empty()))?);
    let (found, expected) = (another.metadata()?, file.metadata()?);
    if (found.dev(), found.ino()) != (expected.dev(), expected.ino()) {
        return Err(Errno::STALE.into());
    }
    Mapping::new(another.as_fd(), length)
}

fn lock(file: &File) -> Result<(), FileError> {
    for _ in 0..TRIES {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(Duration::from_millis(1)),
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(FileError::InUse)
}

fn boot_id() -> io::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().chars().take(BOOT_ID_LENGTH).collect())
}

fn new_mark() -> io::Result<String> {
    use std::io::Read;
    let mut random = [0; MARK_LENGTH / 2];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests;
