//! Files opened without ever waiting: for the configuration, for the event file, and for the standard streams.
//!
//! An open of a FIFO waits for the other end, and a read of a device may wait for anything. A supervisor that waits
//! for a file supervises nothing, so everything here is opened with O_NONBLOCK. The exception is the first look at a
//! FIFO, before anything was started: `taskmaster <(generate)` waits for its configuration as any program does.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, stat};
use rustix::io::Errno;

/// A larger file is no configuration.
const LARGEST_CONFIGURATION: u64 = 16 << 20;

/// Permissions of a file that is created, before the umask.
const MODE: Mode = Mode::from_raw_mode(0o666);

/// Whether a FIFO may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fifo {
    /// Nothing was started yet, so the taskmaster waits for its writer.
    Waited,
    /// The taskmaster is at work and cannot wait.
    Refused,
}

/// Reads a configuration.
///
/// # Errors
/// One line: the file cannot be read, is too large, or is not a regular file.
pub fn read(path: &Path, fifo: Fifo) -> Result<Vec<u8>, String> {
    let failed = |reason: String| format!("cannot read {}: {reason}", path.display());
    let bytes = read_bounded(path, fifo).map_err(failed)?;
    if bytes.len() as u64 > LARGEST_CONFIGURATION {
        return Err(failed(format!("it is larger than {} MiB", LARGEST_CONFIGURATION >> 20)));
    }
    Ok(bytes)
}

/// Reads one byte more than a configuration may have, at most.
fn read_bounded(path: &Path, fifo: Fifo) -> Result<Vec<u8>, String> {
    // A look before the open, since to open a device may do something.
    let kind = readable(&stat(path).map_err(reason)?, fifo)?;
    let waits = kind == FileType::Fifo;
    let flags = if waits { OFlags::empty() } else { OFlags::NONBLOCK };
    let file = open(path, OFlags::RDONLY | flags).map_err(reason)?;
    // And one after it, since the path may have come to mean another file.
    let fifo = if waits { fifo } else { Fifo::Refused };
    readable(&fstat(&file).map_err(reason)?, fifo)?;
    let mut bytes = Vec::new();
    let read = File::from(file).take(LARGEST_CONFIGURATION + 1).read_to_end(&mut bytes);
    read.map_err(reason)?;
    Ok(bytes)
}

/// The type of a file that can hold a configuration.
fn readable(stat: &Stat, fifo: Fifo) -> Result<FileType, String> {
    match file_type(stat) {
        FileType::Fifo if fifo == Fifo::Waited => Ok(FileType::Fifo),
        FileType::RegularFile => Ok(FileType::RegularFile),
        FileType::Directory => Err(reason(Errno::ISDIR)),
        FileType::Fifo => Err("it is a FIFO, not a regular file".to_owned()),
        FileType::CharacterDevice | FileType::BlockDevice => Err("it is a device, not a regular file".to_owned()),
        _ => Err("it is not a regular file".to_owned()),
    }
}

/// The text of an error, without its number.
pub fn reason(error: impl Display) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

/// Opens a file to append to, created if it is not there. A FIFO is waited for until it has a reader.
///
/// # Errors
/// As open(2) answers.
pub fn append(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, appending(), MODE)?)
}

/// The same without waiting: also a FIFO without a reader is open then, and a write to it fails until there is one.
///
/// # Errors
/// As open(2) answers.
pub fn append_at_once(path: &Path) -> io::Result<OwnedFd> {
    match rustix::fs::open(path, appending() | OFlags::NONBLOCK, MODE) {
        Err(Errno::NXIO) if stat(path).is_ok_and(|stat| file_type(&stat) == FileType::Fifo) => {
            // An open for both reading and writing needs no other end, and then there is one for a moment.
            let both = open(path, OFlags::RDWR | OFlags::NONBLOCK)?;
            Ok(open(&own(both.as_fd()), OFlags::WRONLY | OFlags::NONBLOCK)?)
        }
        other => Ok(other?),
    }
}

/// Whether `path` still means the file that `fd` has open.
pub fn is_still(fd: BorrowedFd<'_>, path: &Path) -> bool {
    let same = |a: Stat, b: Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
    matches!((fstat(fd), stat(path)), (Ok(a), Ok(b)) if same(a, b))
}

/// The path of a regular file that is open as `fd`; `None` for anything else, and for a file that has no name.
pub fn path_of(fd: BorrowedFd<'_>) -> Option<PathBuf> {
    let path = std::fs::read_link(own(fd)).ok()?;
    (kind(fd) == Kind::Regular && is_still(fd, &path)).then_some(path)
}

/// What a descriptor stands for, as far as writing to it is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file, which never makes a write wait.
    Regular,
    /// A socket.
    Socket,
    /// Anything else.
    Other,
}

/// What `fd` stands for.
pub fn kind(fd: BorrowedFd<'_>) -> Kind {
    match fstat(fd).map(|stat| file_type(&stat)) {
        Ok(FileType::RegularFile) => Kind::Regular,
        Ok(FileType::Socket) => Kind::Socket,
        _ => Kind::Other,
    }
}

/// The FIFO, pipe or terminal that is open as `fd`, opened once more with O_NONBLOCK.
///
/// The flag belongs to the open file description, which is shared with the shell and with whatever else was given it;
/// so the flag of the first one stays as it is. Between poll(2) and a write another process may take the room, and a
/// blocking write would wait then.
///
/// # Errors
/// There is no second one: it is something else, or may not be opened (a terminal after su(1)).
pub fn non_blocking(fd: BorrowedFd<'_>, access: OFlags) -> io::Result<OwnedFd> {
    match file_type(&fstat(fd)?) {
        FileType::Fifo | FileType::CharacterDevice => Ok(open(&own(fd), access | OFlags::NONBLOCK)?),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn open(path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
}

fn appending() -> OFlags {
    OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOCTTY
}

/// The path by which this process reaches a descriptor of its own.
fn own(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}
