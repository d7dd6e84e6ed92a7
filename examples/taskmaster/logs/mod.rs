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
use rustix::io::Errno;

use crate::config::{Channel, Sink, Target};

mod ansi;
mod capture;
mod file;
mod input;

pub use ansi::Strip;
pub use capture::{Capture, Piece};
pub use file::{LogFile, remove};
use input::Input;

/// The size of one read, in bytes. It is the usual capacity of a pipe.
const CHUNK: usize = 64 << 10;
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
    /// The pipes to the standard inputs of listeners and of programs with `stdin=pipe`.
    inputs: HashMap<InstanceId, Input>,
    /// The inputs that wait for room, by their numbers in the epoll.
    writers: HashMap<u64, InstanceId>,
    /// What was read besides logs since the last call of [`Logs::take_heard`].
    heard: Vec<Heard>,
    /// Whether the timer has expired.
    ticked: bool,
    next: u64,
    chunk: Vec<u8>,
    notes: Vec<String>,
    /// The files that were written since the last call of [`Logs::take_written`].
    written: BTreeSet<PathBuf>,
}

/// Output that is more than a log.
#[derive(Debug)]
pub struct Heard {
    /// The process that has written it.
    pub instance: InstanceId,
    /// The output.
    pub channel: Channel,
    /// What it is.
    pub what: What,
    /// The bytes.
    pub data: Vec<u8>,
}

/// What an output is besides a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A part of the log that is reported.
    Log,
    /// What a program has written between two tokens.
    Communication,
    /// The protocol of an event listener.
    Protocol,
}

/// A pipe of an output, for the program that takes the place of this one.
#[derive(Debug)]
pub struct Left<'a> {
    /// The process.
    pub instance: InstanceId,
    /// The output.
    pub channel: Channel,
    /// The pipe.
    pub pipe: BorrowedFd<'a>,
    /// Where the output goes.
    pub sink: &'a Sink,
    /// The state of the capture.
    pub capture: &'a Capture,
}

/// The number of the timer in the epoll.
const TIMER: u64 = u64::MAX;

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
    sink: Sink,
    strip: Strip,
    capture: Capture,
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
            writers: HashMap::new(),
            heard: Vec::new(),
            ticked: false,
            next: 0,
            chunk: Vec::new(),
            notes: Vec::new(),
            written: BTreeSet::new(),
        })
    }

    /// Collects the output of a new run. `sink` tells what becomes of each channel.
    pub fn begin(&mut self, instance: InstanceId, pipes: Pipes, sink: impl Fn(Channel) -> Option<Sink>) {
        self.forget_input(instance);
        if let Some(pipe) = pipes.stdin {
            self.take_input(instance, pipe, Vec::new());
        }
        for (channel, pipe) in [(Channel::Out, pipes.stdout), (Channel::Err, pipes.stderr)] {
            self.empty(instance, channel);
            self.forget(instance, channel);
            if let (Some(pipe), Some(sink)) = (pipe, sink(channel)) {
                self.collect((instance, channel), pipe, sink, Capture::default());
            }
        }
    }

    /// Keeps the pipe to the standard input of a process. `pending` is what still has to be written.
    pub fn take_input(&mut self, instance: InstanceId, pipe: OwnedFd, pending: Vec<u8>) {
        if set_non_blocking(pipe.as_fd()).is_ok() {
            self.inputs.insert(instance, Input::new(pipe, pending));
            self.flush(instance);
        }
    }

    /// The pipes to standard inputs and what waits for room in them, for the program that takes the place of this one.
    pub fn inputs(&self) -> impl Iterator<Item = (InstanceId, BorrowedFd<'_>, &[u8])> {
        let inputs = self.inputs.iter();
        inputs.map(|(&instance, input)| (instance, input.as_fd(), input.pending.as_slice()))
    }

    /// Writes to the standard input of a process: all or nothing.
    ///
    /// # Errors
    /// The process has no such pipe or has closed it (`BrokenPipe`), or the pipe lacks room (`WouldBlock`).
    pub fn send(&mut self, instance: InstanceId, bytes: &[u8]) -> io::Result<()> {
        let input = self.inputs.get(&instance).ok_or(io::ErrorKind::BrokenPipe)?;
        input.send(bytes)
    }

    /// Writes an event to a listener, as soon as there is room for it. Returns false if the listener has no pipe, has
    /// closed it, or has not yet read the event before.
    pub fn post(&mut self, instance: InstanceId, bytes: Vec<u8>) -> bool {
        match self.inputs.get_mut(&instance) {
            Some(input) if input.pending.is_empty() => input.pending = bytes,
            _ => return false,
        }
        self.flush(instance)
    }

    /// Writes what is pending, and watches the pipe if something is left. Returns false if the pipe is closed.
    fn flush(&mut self, instance: InstanceId) -> bool {
        let Some(input) = self.inputs.get_mut(&instance) else {
            return false;
        };
        let written = input.flush().is_ok();
        match (input.pending.is_empty(), input.token) {
            (false, None) => {
                let token = self.next;
                self.next += 1;
                let event = epoll::EventData::new_u64(token);
                if epoll::add(&self.epoll, &*input, event, epoll::EventFlags::OUT).is_err() {
                    // Without a wakeup the rest would wait for ever, and the listener with it.
                    self.inputs.remove(&instance);
                    return false;
                }
                input.token = Some(token);
                self.writers.insert(token, instance);
            }
            (true, Some(token)) => {
                let _watched = epoll::delete(&self.epoll, &*input);
                input.token = None;
                self.writers.remove(&token);
            }
            _ => {}
        }
        written
    }

    fn forget_input(&mut self, instance: InstanceId) {
        // The close also removes it from the epoll.
        if let Some(token) = self.inputs.remove(&instance).and_then(|input| input.token) {
            self.writers.remove(&token);
        }
    }

    /// Watches a timer besides the pipes.
    ///
    /// # Errors
    /// The errors of epoll_ctl(2).
    pub fn watch_timer(&self, timer: BorrowedFd<'_>) -> Result<(), Errno> {
        epoll::add(
            &self.epoll,
            timer,
            epoll::EventData::new_u64(TIMER),
            epoll::EventFlags::IN,
        )
    }

    /// Whether the timer has expired since the last call.
    pub fn take_ticked(&mut self) -> bool {
        std::mem::take(&mut self.ticked)
    }

    /// What was read besides logs since the last call.
    pub fn take_heard(&mut self) -> Vec<Heard> {
        std::mem::take(&mut self.heard)
    }

    /// Collects from one pipe.
    pub fn collect(&mut self, place: (InstanceId, Channel), pipe: OwnedFd, sink: Sink, capture: Capture) {
        let token = self.next;
        self.next += 1;
        let event = epoll::EventData::new_u64(token);
        let watched =
            set_non_blocking(pipe.as_fd()).and_then(|()| epoll::add(&self.epoll, &pipe, event, epoll::EventFlags::IN));
        if let Err(error) = watched {
            // Without the reader the program gets SIGPIPE at its next line. This takes a lack of kernel memory.
            let reason = crate::files::reason(error);
            let path = sink
                .file
                .map_or_else(String::new, |file| format!(" for {}", file.path.display()));
            self.notes
                .push(format!("cannot collect {}{path}: {reason}", place.1.name()));
            return;
        }
        self.open(sink.file.as_ref());
        self.places.insert(place, token);
        self.streams.insert(
            token,
            Stream {
                place,
                pipe,
                sink,
                strip: Strip::default(),
                capture,
            },
        );
    }

    /// Changes where the output of living runs goes, after a reload. `sink` tells what becomes of each one.
    pub fn redirect(&mut self, sink: impl Fn(InstanceId, Channel) -> Option<Sink>) {
        let tokens: Vec<u64> = self.streams.keys().copied().collect();
        for token in tokens {
            let Some(stream) = self.streams.get_mut(&token) else {
                continue;
            };
            let Some(sink) = sink(stream.place.0, stream.place.1) else {
                continue;
            };
            if stream.sink != sink {
                let before = std::mem::replace(&mut stream.sink, sink.clone());
                self.open(sink.file.as_ref());
                self.close(before.file.as_ref());
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
            if token == TIMER {
                self.ticked = true;
            } else if let Some(&instance) = self.writers.get(&token) {
                self.flush(instance);
            } else if self.take(token) == Taken::End {
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

    /// The pipes of outputs, for the program that takes the place of this one.
    pub fn streams(&self) -> impl Iterator<Item = Left<'_>> {
        self.streams.values().map(|stream| Left {
            instance: stream.place.0,
            channel: stream.place.1,
            pipe: stream.pipe.as_fd(),
            sink: &stream.sink,
            capture: &stream.capture,
        })
    }

    fn open(&mut self, target: Option<&Target>) {
        let Some(target) = target else { return };
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
        let (instance, channel) = stream.place;
        let mut hear = |what, data: &[u8]| {
            let data = data.to_vec();
            self.heard.push(Heard {
                instance,
                channel,
                what,
                data,
            });
        };
        if stream.sink.protocol {
            hear(What::Protocol, &self.chunk);
        }
        if stream.sink.file.as_ref().is_some_and(|file| file.strip) {
            stream.strip.strip(&mut self.chunk);
        }
        let most = usize::try_from(stream.sink.capture).unwrap_or(usize::MAX);
        let reports = stream.sink.events;
        if most == 0 && stream.capture == Capture::default() {
            if reports {
                hear(What::Log, &self.chunk);
            }
            self.write(token, None);
            return Taken::Some;
        }
        let mut plain = Vec::new();
        stream.capture.feed(&self.chunk, most, |piece| {
            match piece {
                Piece::Plain(data) | Piece::Captured(data) if reports => hear(What::Log, data),
                Piece::Complete(data) => hear(What::Communication, data),
                _ => {}
            }
            if let Piece::Plain(data) = piece {
                plain.extend_from_slice(data);
            }
        });
        self.write(token, Some(&plain));
        Taken::Some
    }

    /// Writes to the log of a stream: `data`, or the chunk that was read.
    fn write(&mut self, token: u64, data: Option<&[u8]>) {
        let file = self.streams.get(&token).and_then(|stream| stream.sink.file.as_ref());
        let Some(path) = file.map(|file| &file.path) else {
            return;
        };
        let data = data.unwrap_or(&self.chunk);
        if let Some(open) = self.files.get_mut(path).filter(|_| !data.is_empty()) {
            open.file.write(data, &mut self.notes);
            if !self.written.contains(path) {
                self.written.insert(path.clone());
            }
        }
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
        let mut rest = Vec::new();
        if let Some(stream) = self.streams.get_mut(&token) {
            stream.capture.finish(|piece| {
                if let Piece::Plain(data) = piece {
                    rest.extend_from_slice(data);
                }
            });
        }
        self.write(token, Some(&rest));
        if let Some(stream) = self.streams.remove(&token) {
            // No other descriptor refers to this end of the pipe, so the close also removes it from the epoll.
            drop(stream.pipe);
            if self.places.get(&stream.place) == Some(&token) {
                self.places.remove(&stream.place);
            }
            self.close(stream.sink.file.as_ref());
        }
    }

    fn close(&mut self, target: Option<&Target>) {
        let Some(target) = target else { return };
        if let Some(open) = self.files.get_mut(&target.path) {
            open.users -= 1;
            if open.users == 0 {
                self.files.remove(&target.path);
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
