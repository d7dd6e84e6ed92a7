//! The processes in a cgroup, and signals to all of them and to no other process.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::iter::Peekable;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{Pid as RawPid, PidfdFlags, pidfd_open};

use super::tree;
use crate::exit::Pid;
use crate::poll::is_ready;
use crate::procfs;
use crate::signal::Signal;
use crate::sys::descriptors::above_standard;
use crate::sys::process::{send_signal, signal_by_number};

/// The largest number of pidfds that are open at a time.
const BATCH: usize = 64;

/// The largest number of rounds in which processes are killed one by one, while new processes appear.
const MOST_ROUNDS: u32 = 256;

/// After this many rounds in a row without a new process, all processes have got the signal. One round does not
/// suffice: a forked child appears in the list shortly after a signal could have prevented the fork.
const QUIET_ROUNDS: u32 = 4;

/// The processes in a cgroup.
#[derive(Default)]
pub(super) struct Members {
    /// The numbers of the processes in this PID namespace, sorted, each once.
    pub numbers: BTreeSet<u32>,
    /// Whether there are more processes, in a PID namespace that is not visible from here.
    pub hidden: bool,
}

impl Members {
    /// The processes of a cgroup and of all cgroups below it.
    pub fn below(cgroup: BorrowedFd<'_>) -> io::Result<Members> {
        let mut all = Members::default();
        let enter = |dir: BorrowedFd<'_>| {
            if let Some((_, here)) = List::of(dir)? {
                all.hidden |= here.hidden;
                all.numbers.extend(here.numbers);
            }
            Ok(())
        };
        tree::walk(cgroup, enter, |_, _| Ok(()))?;
        Ok(all)
    }

    fn parse(content: &[u8]) -> Members {
        let mut members = Members::default();
        let lines = content.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        for number in lines.filter_map(|line| std::str::from_utf8(line).ok()?.parse().ok()) {
            match number {
                0 => members.hidden = true,
                _ => drop(members.numbers.insert(number)),
            }
        }
        members
    }

    /// The processes of these threads. A thread that has ended is skipped.
    fn of_threads(self) -> Members {
        let numbers = self.numbers.into_iter().filter_map(procfs::process_of_thread);
        Members {
            numbers: numbers.collect(),
            hidden: self.hidden,
        }
    }
}

/// The file that lists the processes of one cgroup. One descriptor serves both reads.
///
/// The file is `cgroup.procs`, which lists processes by their first threads. If the first thread of a process had ended
/// when the process was moved into the cgroup, only `cgroup.threads` lists the process, by its live threads (seen on
/// Linux 6.18).
pub(super) struct List {
    file: File,
    lists_threads: bool,
}

impl List {
    /// The list that has an entry, and its content. `None` if the cgroup was removed.
    pub fn of(cgroup: BorrowedFd<'_>) -> io::Result<Option<(List, Members)>> {
        let Some(mut list) = List::open(cgroup, false)? else {
            return Ok(None);
        };
        let members = list.read()?;
        if !members.numbers.is_empty() || members.hidden {
            return Ok(Some((list, members)));
        }
        let Some(mut list) = List::open(cgroup, true)? else {
            return Ok(None);
        };
        let members = list.read()?;
        Ok(Some((list, members)))
    }

    fn open(cgroup: BorrowedFd<'_>, lists_threads: bool) -> io::Result<Option<List>> {
        let name = if lists_threads {
            c"cgroup.threads"
        } else {
            c"cgroup.procs"
        };
        match tree::open_file(cgroup, name) {
            Ok(fd) => Ok(Some(List {
                file: fd.into(),
                lists_threads,
            })),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn read(&mut self) -> io::Result<Members> {
        let mut content = Vec::new();
        self.file.rewind()?;
        match self.file.read_to_end(&mut content) {
            Ok(_) if self.lists_threads => Ok(Members::parse(&content).of_threads()),
            Ok(_) => Ok(Members::parse(&content)),
            Err(error) => match Errno::from_io_error(&error) {
                // The cgroup was removed; or it is threaded, and the domain above it lists its processes.
                Some(Errno::NODEV | Errno::OPNOTSUPP) => Ok(Members::default()),
                _ => Err(error),
            },
        }
    }
}

/// The result of a signal to many processes.
#[derive(Default)]
pub(super) struct Sent {
    pub reached: BTreeSet<u32>,
    /// The processes that may not be signalled.
    pub beyond: BTreeSet<u32>,
    /// The first error of a refused signal.
    pub refused: Option<io::Error>,
}

/// Sends a signal to each process in a cgroup and below it, except for those that `sent` contains already.
pub(super) fn signal_each(cgroup: BorrowedFd<'_>, signal: Signal, sent: &mut Sent) -> io::Result<()> {
    tree::walk(cgroup, |dir| signal_in(dir, signal, sent), |_, _| Ok(()))
}

fn signal_in(cgroup: BorrowedFd<'_>, signal: Signal, sent: &mut Sent) -> io::Result<()> {
    match List::of(cgroup)? {
        Some((mut list, members)) => signal_listed(&mut list, members.numbers, signal, sent),
        None => Ok(()),
    }
}

/// The same for these numbers, which have just been read from the list.
pub(super) fn signal_listed(
    list: &mut List,
    numbers: impl IntoIterator<Item = u32>,
    signal: Signal,
    sent: &mut Sent,
) -> io::Result<()> {
    let mut numbers = numbers.into_iter().peekable();
    while numbers.peek().is_some() {
        let held = hold(&mut numbers)?;
        // The order is important: pidfd, list, signal. A process that gets the signal has been alive since the pidfd
        // was opened. So it had this number when the list was read, and it is the process in the list.
        let still = list.read()?.numbers;
        for (number, pidfd) in held.iter().filter(|(number, _)| still.contains(number)) {
            if sent.reached.contains(number) {
                continue;
            }
            match send(pidfd, *number, signal) {
                Ok(()) => drop(sent.reached.insert(*number)),
                Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => {}
                Err(error) => {
                    sent.beyond.insert(*number);
                    sent.refused.get_or_insert(error);
                }
            }
        }
    }
    Ok(())
}

/// Signals a process that had this number after its pidfd was opened.
///
/// Where pidfd_send_signal(2) is refused, for example by the filter of a container, the signal is sent by number, right
/// after the pidfd has shown that the process has not ended. Then no other process has its number.
fn send(pidfd: &OwnedFd, number: u32, signal: Signal) -> io::Result<()> {
    match send_signal(pidfd.as_fd(), signal.as_raw(), false) {
        Err(refused) if matches!(Errno::from_io_error(&refused), Some(Errno::PERM | Errno::NOSYS)) => {
            match Pid::new(number).filter(|_| !is_ready(pidfd, PollFlags::IN).unwrap_or(true)) {
                Some(pid) => signal_by_number(pid, signal.as_raw()),
                None => Err(Errno::SRCH.into()),
            }
        }
        sent => sent,
    }
}

/// Takes the next numbers, as many as pidfds may be open at a time, and opens their pidfds.
fn hold(numbers: &mut Peekable<impl Iterator<Item = u32>>) -> io::Result<Vec<(u32, OwnedFd)>> {
    let mut held = Vec::with_capacity(BATCH);
    while let Some(&number) = numbers.peek().filter(|_| held.len() < BATCH) {
        match i32::try_from(number).ok().and_then(RawPid::from_raw) {
            None => {}
            Some(pid) => match pidfd_open(pid, PidfdFlags::empty()).and_then(above_standard) {
                Ok(pidfd) => held.push((number, pidfd)),
                // ESRCH: the process has ended meanwhile. The other two errors: the number belongs to a thread now.
                Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => {}
                Err(Errno::MFILE | Errno::NFILE) if !held.is_empty() => break,
                Err(errno) => return Err(errno.into()),
            },
        }
        numbers.next();
    }
    Ok(held)
}

/// Replaces `cgroup.kill` on kernels without it.
///
/// A process in a frozen cgroup cannot fork again, and SIGKILL still ends it. Without the freeze, processes on several
/// processors could fork faster than one processor can list and kill them.
pub(super) fn kill_each(cgroup: BorrowedFd<'_>) -> io::Result<()> {
    let _thawed_at_the_end = Freeze::new(cgroup);
    let mut known = BTreeSet::new();
    let mut quiet = 0;
    for _ in 0..MOST_ROUNDS {
        let mut sent = Sent::default();
        signal_each(cgroup, Signal::KILL, &mut sent)?;
        let left = Members::below(cgroup)?;
        if left.numbers.is_empty() && !left.hidden {
            return Ok(());
        }
        quiet = if left.numbers.is_subset(&known) { quiet + 1 } else { 0 };
        known.extend(sent.reached);
        known.extend(sent.beyond);
        if quiet == QUIET_ROUNDS {
            return match sent.refused {
                Some(error) => Err(error),
                None if left.hidden => Err(Remaining(left).into()),
                None => Ok(()),
            };
        }
        // A killed process ends only when it gets a processor.
        thread::yield_now();
    }
    Err(Remaining(Members::below(cgroup)?).into())
}

/// Keeps a cgroup frozen until it is dropped. Does nothing if the cgroup was frozen before or cannot be frozen.
struct Freeze<'a>(Option<BorrowedFd<'a>>);

impl<'a> Freeze<'a> {
    fn new(cgroup: BorrowedFd<'a>) -> Freeze<'a> {
        let thawed = tree::is_frozen(cgroup).is_ok_and(|frozen| !frozen);
        let frozen = thawed && tree::freeze(cgroup, true).is_ok();
        Freeze(frozen.then_some(cgroup))
    }
}

impl Drop for Freeze<'_> {
    fn drop(&mut self) {
        if let Some(cgroup) = self.0 {
            let _removed = tree::freeze(cgroup, false);
        }
    }
}

/// The processes that could not be killed.
struct Remaining(Members);

impl fmt::Display for Remaining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let Members { numbers, hidden } = &self.0;
        write!(f, "{} processes remain in the cgroup", numbers.len())?;
        for (place, number) in numbers.iter().take(SHOWN).enumerate() {
            write!(f, "{}{number}", if place == 0 { ": " } else { ", " })?;
        }
        if numbers.len() > SHOWN {
            write!(f, " and so on")?;
        }
        if *hidden {
            write!(f, ", and others in a PID namespace that is not visible from here")?;
        }
        Ok(())
    }
}

impl From<Remaining> for io::Error {
    fn from(remaining: Remaining) -> io::Error {
        io::Error::new(io::ErrorKind::ResourceBusy, remaining.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_be_unsorted_and_name_some_twice() {
        let members = Members::parse(b"30\n7\n30\n0\n12\n");
        assert_eq!(members.numbers.into_iter().collect::<Vec<_>>(), [7, 12, 30]);
        assert!(members.hidden);
        let members = Members::parse(b"");
        assert!(members.numbers.is_empty() && !members.hidden);
    }

    #[test]
    fn what_remains_is_said() {
        let members = Members {
            numbers: (1..=10).collect(),
            hidden: true,
        };
        let error = io::Error::from(Remaining(members));
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(
            error.to_string(),
            "10 processes remain in the cgroup: 1, 2, 3, 4, 5, 6, 7, 8 and so on, and others in a PID namespace \
             that is not visible from here"
        );
    }
}
