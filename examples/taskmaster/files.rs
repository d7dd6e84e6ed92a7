//! Opens files without waiting: the configuration, the event file, and the standard streams.
//!
//! An open of a FIFO waits for the other end, and a read of a device may wait without limit. A waiting taskmaster
//! cannot supervise, so every file is opened with O_NONBLOCK. The first read of a FIFO is an exception, because
//! nothing has been started: `taskmaster <(generate)` waits for its configuration.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, stat};
use rustix::io::Errno;

/// The size of the largest configuration, in bytes.
const LARGEST_CONFIGURATION: u64 = 16 << 20;

/// The permissions of a new file, before the umask.
const MODE: Mode = Mode::from_raw_mode(0o666);

/// How the taskmaster treats a FIFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fifo {
    /// The taskmaster waits for the writer, because nothing was started yet.
    Waited,
    /// The taskmaster refuses the FIFO, because it must not wait while it supervises.
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

/// Reads at most one byte more than the largest configuration.
fn read_bounded(path: &Path, fifo: Fifo) -> Result<Vec<u8>, String> {
    // The file type is checked before the open, because opening a device may have effects.
    let kind = readable(&stat(path).map_err(reason)?, fifo)?;
    let waits = kind == FileType::Fifo;
    let flags = if waits { OFlags::empty() } else { OFlags::NONBLOCK };
    let file = open(path, OFlags::RDONLY | flags).map_err(reason)?;
    // The file type is checked again after the open, because the path may lead to another file by then.
    let fifo = if waits { fifo } else { Fifo::Refused };
    readable(&fstat(&file).map_err(reason)?, fifo)?;
    let mut bytes = Vec::new();
    let read = File::from(file).take(LARGEST_CONFIGURATION + 1).read_to_end(&mut bytes);
    read.map_err(reason)?;
    Ok(bytes)
}

/// Returns the file type if such a file can contain a configuration.
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

/// The text of an error without its number.
pub fn reason(error: impl Display) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

/// Opens a file for appending, and creates it if necessary. For a FIFO, waits until it has a reader.
///
/// # Errors
/// The errors of open(2).
pub fn append(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, appending(), MODE)?)
}

/// Opens a file for appending without waiting. A FIFO without a reader is opened too, and writes to it fail until a
/// reader exists.
///
/// # Errors
/// The errors of open(2).
pub fn append_at_once(path: &Path) -> io::Result<OwnedFd> {
    match rustix::fs::open(path, appending() | OFlags::NONBLOCK, MODE) {
        Err(Errno::NXIO) if stat(path).is_ok_and(|stat| file_type(&stat) == FileType::Fifo) => {
            // An open for reading and writing needs no other end, and provides a reader for the second open.
            let both = open(path, OFlags::RDWR | OFlags::NONBLOCK)?;
            Ok(open(&own(both.as_fd()), OFlags::WRONLY | OFlags::NONBLOCK)?)
        }
        other => Ok(other?),
    }
}

/// Opens a regular file for reading without waiting.
///
/// # Errors
/// The errors of open(2), or the file is not a regular file.
pub fn read_at_once(path: &Path) -> io::Result<File> {
    let file = open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    match kind(file.as_fd()) {
        Kind::Regular => Ok(file.into()),
        _ => Err(io::Error::other("it is not a regular file")),
    }
}

/// Whether `path` still leads to the file that is open as `fd`.
pub fn is_still(fd: BorrowedFd<'_>, path: &Path) -> bool {
    let same = |a: Stat, b: Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
    matches!((fstat(fd), stat(path)), (Ok(a), Ok(b)) if same(a, b))
}

/// The path of the regular file that is open as `fd`. `None` for another type of file, and for a file without a name.
pub fn path_of(fd: BorrowedFd<'_>) -> Option<PathBuf> {
    let path = std::fs::read_link(own(fd)).ok()?;
    (kind(fd) == Kind::Regular && is_still(fd, &path)).then_some(path)
}

/// The types of descriptors that differ in how a write may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file. A write never waits.
    Regular,
    /// A socket. A flag of send(2) prevents the wait.
    Socket,
    /// Any other type, such as a pipe or a terminal.
    Other,
}

/// The type of `fd`.
pub fn kind(fd: BorrowedFd<'_>) -> Kind {
    match fstat(fd).map(|stat| file_type(&stat)) {
        Ok(FileType::RegularFile) => Kind::Regular,
        Ok(FileType::Socket) => Kind::Socket,
        _ => Kind::Other,
    }
}

/// Opens the FIFO, pipe or terminal behind `fd` a second time, with O_NONBLOCK.
///
/// The flag belongs to the open file description, which the taskmaster shares with the shell and other processes. So
/// the flag of the first description stays unchanged. A check with poll(2) is not enough: another process may fill
/// the room before the write, and then a blocking write waits.
///
/// # Errors
/// The file is of another type, or the taskmaster may not open it (for example a terminal after su(1)).
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

/// The path in /proc for a descriptor of this process.
fn own(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}
