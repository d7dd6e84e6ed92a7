//! Collects the output of the programs through pipes, and writes it to their log files.
//!
//! Each run has a pipe for each output with a log. The pipes have an epoll of their own, which is one source in the
//! main loop. A turn reads a bounded amount from each of a bounded number of pipes, so a program that floods its log
//! delays no other work, and no output waits in memory: the pipe itself makes the program wait.
//!
//! When a process ends, its pipe is emptied before its end is reported. What it started may hold the pipe open. It is
//! then read until it is closed, or until the next run of the same instance takes its place.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use pidherd::{InstanceId, Pipes};
use rustix::event::{Timespec, epoll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, ioctl_fionread};
use rustix::pipe::fcntl_getpipe_size;

use crate::config::{Channel, Target};

mod ansi;
mod file;

use ansi::Strip;
pub use file::{LogFile, remove};

/// The size of one read, in bytes. It is the usual capacity of a pipe.
const CHUNK: usize = 64 << 10;
/// The number of bytes that a pipe takes at once or not at all (PIPE_BUF, pipe(7)).
const SURE_TO_FIT: usize = 4096;
/// The number of pipes that one turn reads.
const MOST_READY: usize = 16;
/// The number of reads that empty a pipe at the end of a process. A pipe may have a capacity of 1 MiB (pipe(7)).
const MOST_READS: usize = 32;

/// All pipes and log files.
#[derive(Debug)]
pub struct Logs {
    epoll: OwnedFd,
    streams: HashMap<u64, Stream>,
    places: HashMap<(InstanceId, Channel), u64>,
    files: HashMap<PathBuf, Open>,
    /// The pipes to the standard inputs of programs with `stdin=pipe`.
    inputs: HashMap<InstanceId, OwnedFd>,
    next: u64,
    chunk: Vec<u8>,
    notes: Vec<String>,
    /// The files that were written since the last call of [`Logs::take_written`].
    written: BTreeSet<PathBuf>,
}

/// A log file, and the number of pipes with output for it.
#[derive(Debug)]
struct Open {
    file: LogFile,
    users: u32,
}

/// The pipe of one output of one run.
#[derive(Debug)]
struct Stream {
    place: (InstanceId, Channel),
    pipe: OwnedFd,
    target: Target,
    strip: Strip,
}

/// The result of one read from a pipe.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    Some,
    Nothing,
    End,
}

impl Logs {
    /// Collects nothing yet.
    ///
    /// # Errors
    /// The kernel refuses an epoll.
    pub fn new() -> io::Result<Logs> {
        Ok(Logs {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            streams: HashMap::new(),
            places: HashMap::new(),
            files: HashMap::new(),
            inputs: HashMap::new(),
            next: 0,
            chunk: Vec::new(),
            notes: Vec::new(),
            written: BTreeSet::new(),
        })
    }

    /// Collects the output of a new run. `target` has the log of each channel.
    pub fn begin(&mut self, instance: InstanceId, pipes: Pipes, target: impl Fn(Channel) -> Option<Target>) {
        self.inputs.remove(&instance);
        if let Some(pipe) = pipes.stdin {
            self.take_input(instance, pipe);
        }
        for (channel, pipe) in [(Channel::Out, pipes.stdout), (Channel::Err, pipes.stderr)] {
            self.empty(instance, channel);
            self.forget(instance, channel);
            if let (Some(pipe), Some(target)) = (pipe, target(channel)) {
                self.collect(instance, channel, pipe, target);
            }
        }
    }

    /// Keeps the pipe to the standard input of a process.
    pub fn take_input(&mut self, instance: InstanceId, pipe: OwnedFd) {
        if set_non_blocking(pipe.as_fd()).is_ok() {
            self.inputs.insert(instance, pipe);
        }
    }

    /// The pipes to standard inputs, for the program that takes the place of this one.
    pub fn inputs(&self) -> impl Iterator<Item = (InstanceId, BorrowedFd<'_>)> {
        self.inputs.iter().map(|(&instance, pipe)| (instance, pipe.as_fd()))
    }

    /// Writes to the standard input of a process: all or nothing.
    ///
    /// # Errors
    /// The process has no such pipe or has closed it (`BrokenPipe`), or the pipe lacks room (`WouldBlock`).
    pub fn send(&mut self, instance: InstanceId, bytes: &[u8]) -> io::Result<()> {
        let pipe = self.inputs.get(&instance).ok_or(io::ErrorKind::BrokenPipe)?;
        let room = fcntl_getpipe_size(pipe)?.saturating_sub(ioctl_fionread(pipe)?.try_into().unwrap_or(usize::MAX));
        // A pipe is written in pages (pipe(7)), so half of it is sure to have room.
        if bytes.len() > SURE_TO_FIT && bytes.len() > room / 2 {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "its standard input has no room",
            ));
        }
        match rustix::io::write(pipe, bytes) {
            Ok(written) if written == bytes.len() => Ok(()),
            Ok(_) | Err(Errno::AGAIN) => Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "its standard input has no room",
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// Collects from one pipe.
    pub fn collect(&mut self, instance: InstanceId, channel: Channel, pipe: OwnedFd, target: Target) {
        let token = self.next;
        self.next += 1;
        let event = epoll::EventData::new_u64(token);
        let watched =
            set_non_blocking(pipe.as_fd()).and_then(|()| epoll::add(&self.epoll, &pipe, event, epoll::EventFlags::IN));
        if let Err(error) = watched {
            // Without the reader the program gets SIGPIPE at its next line. This takes a lack of kernel memory.
            let (name, path) = (channel.name(), target.path.display());
            let reason = crate::files::reason(error);
            self.notes.push(format!("cannot collect {name} for {path}: {reason}"));
            return;
        }
        self.open(&target);
        let place = (instance, channel);
        self.places.insert(place, token);
        let strip = Strip::default();
        self.streams.insert(
            token,
            Stream {
                place,
                pipe,
                target,
                strip,
            },
        );
    }

    /// Changes where the output of living runs goes, after a reload. `target` has the log of each one.
    pub fn redirect(&mut self, target: impl Fn(InstanceId, Channel) -> Option<Target>) {
        let tokens: Vec<u64> = self.streams.keys().copied().collect();
        for token in tokens {
            let Some(stream) = self.streams.get_mut(&token) else {
                continue;
            };
            let Some(target) = target(stream.place.0, stream.place.1) else {
                continue;
            };
            if stream.target != target {
                let before = std::mem::replace(&mut stream.target, target.clone());
                self.open(&target);
                self.close(&before.path);
            }
        }
    }

    /// Reads what is ready. A turn leaves the rest to the next one.
    ///
    /// # Errors
    /// The errors of epoll_wait(2), except EINTR.
    pub fn dispatch(&mut self) -> io::Result<()> {
        let mut events = [const { MaybeUninit::uninit() }; MOST_READY];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let tokens: Vec<u64> = match epoll::wait(&self.epoll, &mut events, Some(&now)) {
            Ok((ready, _)) => ready.iter().map(|event| event.data.u64()).collect(),
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for token in tokens {
            if self.take(token) == Taken::End {
                self.end(token);
            }
        }
        Ok(())
    }

    /// Reads what a process that has ended left in its pipes.
    pub fn drain(&mut self, instance: InstanceId) {
        for channel in Channel::BOTH {
            self.empty(instance, channel);
        }
    }

    /// Reads what is left in all pipes.
    pub fn drain_all(&mut self) {
        let places: Vec<(InstanceId, Channel)> = self.places.keys().copied().collect();
        for (instance, channel) in places {
            self.empty(instance, channel);
        }
    }

    /// Opens the files that were renamed or removed. Returns a line for each one.
    pub fn reopen(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for Open { file, .. } in self.files.values_mut() {
            if file.reopen(&mut lines) {
                lines.push(format!("{} was reopened", file.path().display()));
            }
        }
        lines.sort();
        lines
    }

    /// Empties a log, also one that is not open.
    ///
    /// # Errors
    /// The file cannot be removed or created.
    pub fn clear(&mut self, path: &Path) -> io::Result<()> {
        match self.files.get_mut(path) {
            Some(open) => open.file.clear(),
            None => remove(path),
        }
    }

    /// The lines for the taskmaster's log since the last call.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// The files that were written since the last call.
    pub fn take_written(&mut self) -> BTreeSet<PathBuf> {
        std::mem::take(&mut self.written)
    }

    /// The pipes, for the program that takes the place of this one.
    pub fn streams(&self) -> impl Iterator<Item = (InstanceId, Channel, BorrowedFd<'_>, &Target)> {
        let stream = |stream: &'_ Stream| (stream.place.0, stream.place.1);
        self.streams
            .values()
            .map(move |it| (stream(it).0, stream(it).1, it.pipe.as_fd(), &it.target))
    }

    fn open(&mut self, target: &Target) {
        match self.files.get_mut(&target.path) {
            Some(open) => {
                open.users += 1;
                open.file.rotation = target.rotation;
            }
            None => {
                let file = LogFile::new(&target.path, target.mode, target.rotation, &mut self.notes);
                self.files.insert(target.path.clone(), Open { file, users: 1 });
            }
        }
    }

    /// Reads one chunk, and writes it to the log.
    fn take(&mut self, token: u64) -> Taken {
        let Some(stream) = self.streams.get_mut(&token) else {
            return Taken::Nothing;
        };
        self.chunk.resize(CHUNK, 0);
        match rustix::io::read(&stream.pipe, &mut self.chunk[..]) {
            Ok(0) => return Taken::End,
            Ok(read) => self.chunk.truncate(read),
            Err(Errno::INTR | Errno::AGAIN) => return Taken::Nothing,
            Err(_) => return Taken::End,
        }
        if stream.target.strip {
            stream.strip.strip(&mut self.chunk);
        }
        if let Some(open) = self.files.get_mut(&stream.target.path) {
            open.file.write(&self.chunk, &mut self.notes);
            if !self.written.contains(&stream.target.path) {
                self.written.insert(stream.target.path.clone());
            }
        }
        Taken::Some
    }

    fn empty(&mut self, instance: InstanceId, channel: Channel) {
        let Some(&token) = self.places.get(&(instance, channel)) else {
            return;
        };
        for _ in 0..MOST_READS {
            match self.take(token) {
                Taken::Some => {}
                Taken::Nothing => return,
                Taken::End => return self.end(token),
            }
        }
    }

    fn forget(&mut self, instance: InstanceId, channel: Channel) {
        if let Some(&token) = self.places.get(&(instance, channel)) {
            self.end(token);
        }
    }

    fn end(&mut self, token: u64) {
        if let Some(stream) = self.streams.remove(&token) {
            // No other descriptor refers to this end of the pipe, so the close also removes it from the epoll.
            drop(stream.pipe);
            if self.places.get(&stream.place) == Some(&token) {
                self.places.remove(&stream.place);
            }
            self.close(&stream.target.path);
        }
    }

    fn close(&mut self, path: &Path) {
        if let Some(open) = self.files.get_mut(path) {
            open.users -= 1;
            if open.users == 0 {
                self.files.remove(path);
            }
        }
    }
}

impl AsFd for Logs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn set_non_blocking(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)
}
