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
    kill_in_rounds(|| {
        let mut sent = Sent::default();
        signal_each(cgroup, Signal::KILL, &mut sent)?;
        Ok((sent, Members::below(cgroup)?))
    })
}

/// Repeats a round until no process is left, or all that are left have got the signal. A round sends SIGKILL to each
/// process, and returns the processes that are left after it.
fn kill_in_rounds(mut round: impl FnMut() -> io::Result<(Sent, Members)>) -> io::Result<()> {
    let mut known = BTreeSet::new();
    let mut quiet = 0;
    let mut left = Members::default();
    for _ in 0..MOST_ROUNDS {
        let sent;
        (sent, left) = round()?;
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
    Err(Remaining(left).into())
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
    use std::fs;
    use std::iter::{once, repeat_n};
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::super::tests::with_files;
    use super::*;
    use crate::testing::common::refuse::refusing;
    use crate::testing::common::{isolated, tempdir};

    /// A number that the kernel gives to no process.
    const NO_PROCESS: u32 = 77_777_777;

    fn members(numbers: impl IntoIterator<Item = u32>, hidden: bool) -> Members {
        Members {
            numbers: numbers.into_iter().collect(),
            hidden,
        }
    }

    fn raw<T>(result: io::Result<T>) -> Result<T, Option<i32>> {
        result.map_err(|error| error.raw_os_error())
    }

    #[test]
    fn a_list_may_be_unsorted_and_name_some_twice() {
        let members = Members::parse(b"30\n7\n30\n0\n12\n");
        assert_eq!(members.numbers.into_iter().collect::<Vec<_>>(), [7, 12, 30]);
        assert!(members.hidden);
        let members = Members::parse(b"");
        assert!(members.numbers.is_empty() && !members.hidden);
    }

    /// The process of a number may have ended since the kernel made the list.
    #[test]
    fn the_processes_are_those_of_the_list_here_and_below() {
        let directory = tempdir();
        let below = directory.join("below");
        fs::create_dir(&below).unwrap();
        let read = |here: &str, there: &str| {
            fs::write(directory.join("cgroup.procs"), here).unwrap();
            fs::write(below.join("cgroup.procs"), there).unwrap();
            let found = Members::below(File::open(directory.path()).unwrap().as_fd()).unwrap();
            (found.numbers.into_iter().collect::<Vec<_>>(), found.hidden)
        };
        assert_eq!(read("", ""), (vec![], false));
        assert_eq!(read(&format!("{NO_PROCESS}\n"), "7\n"), (vec![7, NO_PROCESS], false));
        // Each of the two has processes of another PID namespace.
        assert_eq!(read("7\n", "0\n"), (vec![7], true));
        assert_eq!(read("0\n", "7\n"), (vec![7], true));
    }

    #[test]
    fn the_threads_of_an_otherwise_empty_list_stand_for_their_processes() {
        let thread = fs::read_link("/proc/thread-self").unwrap();
        let thread = thread.file_name().unwrap().to_str().unwrap();
        let files = [
            ("cgroup.procs", ""),
            ("cgroup.threads", &format!("{thread}\n{NO_PROCESS}\n")),
        ];
        let found = with_files(&files, |cgroup| Members::below(cgroup).unwrap());
        assert_eq!(found.numbers.into_iter().collect::<Vec<_>>(), [std::process::id()]);
    }

    #[test]
    fn a_list_that_was_removed_or_is_of_threads_is_empty() {
        let list = |errno| {
            with_files(&[("cgroup.procs", "7\n"), ("cgroup.threads", "7\n")], |cgroup| {
                refusing(libc::SYS_read, errno, || {
                    raw(Members::below(cgroup)).map(|found| found.numbers)
                })
            })
        };
        assert_eq!(list(libc::ENODEV), Ok(BTreeSet::new()));
        assert_eq!(list(libc::EOPNOTSUPP), Ok(BTreeSet::new()));
        assert_eq!(list(libc::EIO), Err(Some(libc::EIO)));
    }

    #[test]
    fn no_more_processes_are_held_than_there_may_be_descriptors() {
        let own = std::process::id();
        let mut numbers = repeat_n(own, BATCH + 1).peekable();
        assert_eq!(hold(&mut numbers).unwrap().len(), BATCH);
        assert_eq!(numbers.count(), 1);
        let held = refusing(libc::SYS_pidfd_open, libc::EMFILE, || {
            raw(hold(&mut once(own).peekable())).map(|held| held.len())
        });
        assert_eq!(held, Err(Some(libc::EMFILE)));
    }

    #[test]
    fn as_many_processes_are_held_as_descriptors_are_free() {
        isolated(|| {
            let before = getrlimit(Resource::Nofile);
            let current = Some(64);
            setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
            let mut others: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            others.truncate(others.len() - 2);
            let mut numbers = repeat_n(std::process::id(), 5).peekable();
            assert_eq!(hold(&mut numbers).unwrap().len(), 2);
            assert_eq!(numbers.count(), 3);
            setrlimit(Resource::Nofile, before).unwrap();
        });
    }

    /// A filter refuses pidfd_send_signal(2); other errors are those of the kernel.
    #[test]
    fn a_signal_that_a_filter_refuses_is_sent_by_number() {
        isolated(|| {
            for (errno, is_reached, refused) in [
                (libc::ENOSYS, true, None),
                (libc::EPERM, true, None),
                (libc::EACCES, false, Some(libc::EACCES)),
                (libc::ESRCH, false, None),
            ] {
                let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
                let mut sent = Sent::default();
                with_files(&[("cgroup.procs", &child.id().to_string())], |cgroup| {
                    refusing(libc::SYS_pidfd_send_signal, errno, || {
                        signal_each(cgroup, Signal::TERM, &mut sent).unwrap();
                    });
                });
                assert_eq!(sent.reached.contains(&child.id()), is_reached, "{errno}");
                assert_eq!(sent.beyond.contains(&child.id()), refused.is_some(), "{errno}");
                assert_eq!(sent.refused.and_then(|error| error.raw_os_error()), refused);
                if !is_reached {
                    child.kill().unwrap();
                }
                let expected = if is_reached { libc::SIGTERM } else { libc::SIGKILL };
                assert_eq!(child.wait().unwrap().signal(), Some(expected), "{errno}");
            }
        });
    }

    /// Kills in rounds that leave these processes, and that reach all of them or are refused for all. Returns the
    /// number of rounds, too.
    fn play(refused: Option<Errno>, left: impl Fn(u32) -> (Vec<u32>, bool)) -> (Result<(), String>, u32) {
        let mut rounds = 0;
        let killed = kill_in_rounds(|| {
            rounds += 1;
            let (numbers, hidden) = left(rounds);
            let mut sent = Sent::default();
            match refused {
                Some(errno) => {
                    sent.beyond.extend(&numbers);
                    sent.refused = Some(errno.into());
                }
                None => sent.reached.extend(&numbers),
            }
            Ok((sent, members(numbers, hidden)))
        });
        (killed.map_err(|error| error.to_string()), rounds)
    }

    #[test]
    fn it_is_killed_in_rounds_until_none_is_new_for_a_while() {
        assert_eq!(play(None, |_| (vec![], false)), (Ok(()), 1));
        assert_eq!(play(None, |_| (vec![1], false)), (Ok(()), 1 + QUIET_ROUNDS));
        // Another process appears when the first one seems to have been the last.
        let second = |round| (1..=1 + round / (1 + QUIET_ROUNDS)).take(2);
        let killed = play(None, |round| (second(round).collect(), false));
        assert_eq!(killed, (Ok(()), 1 + 2 * QUIET_ROUNDS));
        // They never end to appear.
        let (killed, rounds) = play(None, |round| (vec![round], false));
        assert_eq!(rounds, MOST_ROUNDS);
        assert_eq!(
            killed.unwrap_err(),
            format!("1 processes remain in the cgroup: {MOST_ROUNDS}")
        );
    }

    #[test]
    fn what_cannot_be_killed_is_an_error() {
        let refused = play(Some(Errno::PERM), |_| (vec![1], false));
        assert_eq!(
            refused,
            (Err(io::Error::from(Errno::PERM).to_string()), 1 + QUIET_ROUNDS)
        );
        let (hidden, rounds) = play(None, |_| (vec![], true));
        assert!(hidden.unwrap_err().contains("not visible from here"));
        assert_eq!(rounds, QUIET_ROUNDS);
        assert_eq!(play(None, |round| (vec![], round < 2)), (Ok(()), 2));
    }

    #[test]
    fn what_remains_is_said() {
        let text = |count| io::Error::from(Remaining(members(1..=count, count > 9))).to_string();
        assert_eq!(text(8), "8 processes remain in the cgroup: 1, 2, 3, 4, 5, 6, 7, 8");
        assert_eq!(
            text(10),
            "10 processes remain in the cgroup: 1, 2, 3, 4, 5, 6, 7, 8 and so on, and others in a PID namespace \
             that is not visible from here"
        );
        let error = io::Error::from(Remaining(members([1], false)));
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    }
}
