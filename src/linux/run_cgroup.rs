//! The cgroups of runs: one leaf cgroup for each run, in a directory of the host.
//!
//! A leaf is made for a run and removed after it. The processes that are left in it are killed. They die a moment
//! later, and the directory cannot be removed until then. The removal is tried again at growing intervals, with the
//! supervisor's timer. A descriptor for each leaf that reports when it is empty was rejected: it could not be opened
//! when no descriptor is free.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::cgroup::{Above, Cgroup, CgroupDir, CgroupError, CgroupFile, CgroupUsage, OomKill};
use crate::engine::context::CgroupPath;
use crate::exit::Pid;
use crate::fdset::{FdSet, Interest, Token};
use crate::poll::wait_for;
use crate::signal::Signal;
use crate::time::Instant;

/// The cgroup of a run.
pub(crate) struct RunCgroup {
    cgroup: Cgroup,
    /// How often the limits of memory above the cgroup had been reached when it was made; `None` if that is not known.
    above: Option<Above>,
    /// The descriptor that reports when the cgroup becomes empty, while a stop waits for that.
    events: Option<(OwnedFd, Token)>,
}

impl RunCgroup {
    /// The cgroup of a run that began before.
    pub(crate) fn of(cgroup: Cgroup) -> RunCgroup {
        RunCgroup {
            cgroup,
            above: None,
            events: None,
        }
    }

    /// Its directory and its name.
    pub(crate) fn place(&self) -> (PathBuf, OsString) {
        place(&self.cgroup)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.cgroup.fd()
    }

    /// Signals every process in the cgroup. The flag is true if `pid` is known to have got the signal. SIGKILL uses
    /// `cgroup.kill`, which also reaches a process that is just being forked.
    pub(crate) fn signal(&self, signal: Signal, pid: Pid) -> (bool, io::Result<()>) {
        match signal {
            Signal::KILL => (false, self.cgroup.kill()),
            _ => self.cgroup.signal_with(signal, pid),
        }
    }

    pub(crate) fn is_empty(&self) -> io::Result<bool> {
        Ok(!self.cgroup.is_populated()?)
    }

    /// The resources that were used in the cgroup.
    pub(crate) fn usage(&self) -> CgroupUsage {
        self.cgroup.usage()
    }

    /// What the kernel tells of its kills in the cgroup for lack of memory; `None` if it has killed no process.
    pub(crate) fn out_of_memory(&self) -> Option<OomKill> {
        self.cgroup.out_of_memory(self.above.as_ref())
    }

    /// Freezes all processes in the cgroup, or thaws them.
    pub(crate) fn freeze(&self, on: bool) -> io::Result<()> {
        if on { self.cgroup.freeze() } else { self.cgroup.thaw() }
    }

    /// Whether the processes are frozen. False if this cannot be read.
    pub(crate) fn is_frozen(&self) -> bool {
        self.cgroup.is_frozen().unwrap_or(false)
    }

    /// Writes a file of the cgroup. Nothing is written if the cgroup is gone.
    pub(crate) fn change_limit(&self, file: &CgroupFile) -> Result<(), CgroupError> {
        let written = self.cgroup.write_files(std::slice::from_ref(file));
        match self.cgroup.is_in_place() {
            Ok(false) => Ok(()),
            Ok(true) | Err(_) => written,
        }
    }

    /// Whether this process is in the cgroup or below. False if this cannot be read.
    pub(crate) fn contains(&self, pid: Pid) -> bool {
        self.cgroup
            .processes()
            .is_ok_and(|inhabitants| inhabitants.contains(&pid))
    }

    /// Adds a descriptor to the set that reports when the cgroup becomes empty. A check after this call misses no
    /// change.
    pub(crate) fn watch(&mut self, fds: &mut FdSet) -> io::Result<Token> {
        let events = self.cgroup.events()?;
        let token = fds.add(events.as_fd(), Interest::PRIORITY)?;
        self.events = Some((events, token));
        Ok(token)
    }

    pub(crate) fn events_fd(&self, token: Token) -> Option<BorrowedFd<'_>> {
        let (events, own) = self.events.as_ref()?;
        (*own == token).then(|| events.as_fd())
    }

    /// Whether the watched cgroup is empty, after its descriptor has become ready.
    pub(crate) fn changed(&self) -> io::Result<bool> {
        match &self.events {
            Some((events, _)) => Ok(!Cgroup::acknowledge(events)?),
            None => Ok(false),
        }
    }
}

/// The cgroups of the current runs, by name, and the cgroups that could not be removed yet because processes in them
/// are dying.
#[derive(Default)]
pub(crate) struct RunCgroups {
    /// The cgroups to remove, by the time of the next attempt. The number distinguishes cgroups with the same time.
    dying: BTreeMap<(Instant, u64), Dying>,
    retired: u64,
    /// The slots of the instances with runs that have a cgroup of this name. Cgroups in different directories may have
    /// the same name.
    inhabited: HashMap<OsString, Vec<u32>>,
}

/// The cgroup of a run that is over.
struct Dying {
    cgroup: Cgroup,
    /// The wait after the next attempt.
    wait: Duration,
}

impl RunCgroups {
    /// The directories and names of the cgroups that are still to be removed.
    pub(crate) fn dying(&self) -> impl Iterator<Item = (PathBuf, OsString)> {
        self.dying.values().map(|dying| place(&dying.cgroup))
    }

    /// How many cgroups are tried in one go.
    const SLICE: usize = 16;
    /// How many further names are tried while the processes in the first cgroup are dying.
    const NAMES: u32 = 8;
    /// The first wait between two attempts; it doubles up to the longest. A killed process takes microseconds to die,
    /// or as long as its memory takes to be freed.
    const FIRST_WAIT: Duration = Duration::from_millis(1);
    const LONGEST_WAIT: Duration = Duration::from_secs(4);

    /// Makes the cgroup for a run. It is always a new one, because a cgroup that was killed once may kill a process
    /// that is cloned into it. If dying processes still occupy the name, a number is added to it.
    ///
    /// `files` are written before a process is in the cgroup. After an error nothing is left of the cgroup.
    pub(crate) fn make(
        &mut self,
        path: &CgroupPath,
        files: &[CgroupFile],
        now: Instant,
    ) -> Result<RunCgroup, CgroupError> {
        let mut made = self.replace(&path.dir, &path.name, now);
        for number in 1..=RunCgroups::NAMES {
            match made {
                Err(CgroupError::Exists { .. }) => {}
                Ok(_) | Err(_) => break,
            }
            made = self.replace(&path.dir, &format!("{}.{number}", path.name), now);
        }
        let cgroup = made?;
        if cgroup.is_frozen().unwrap_or(false) {
            // A process that is cloned into a frozen cgroup stops before its execve, and the host would wait for it.
            let _best_effort = cgroup.remove();
            let (doing, path) = ("start anything in frozen", cgroup.path());
            return Err(CgroupError::Failed {
                doing,
                path,
                errno: Errno::BUSY.raw_os_error(),
            });
        }
        if let Err(error) = cgroup.write_files(files) {
            self.remove_or_keep(cgroup, RunCgroups::FIRST_WAIT, now);
            return Err(error);
        }
        Ok(RunCgroup {
            above: cgroup.above(),
            cgroup,
            events: None,
        })
    }

    /// Makes a cgroup, in place of an existing one of the same name. The processes in the old one are killed, which
    /// takes a moment.
    fn replace(&mut self, directory: &CgroupDir, name: &str, now: Instant) -> Result<Cgroup, CgroupError> {
        match directory.make(name) {
            Err(CgroupError::Exists { .. }) => {
                let old = directory.leaf(name)?;
                let is_another = |dying: &Dying| dying.cgroup.name() != name || dying.cgroup.dir() != directory;
                self.dying.retain(|_, dying| is_another(dying));
                self.remove_or_keep(old, RunCgroups::FIRST_WAIT, now);
                directory.make(name)
            }
            made => made,
        }
    }

    /// Records that the run of the instance in this slot uses the cgroup.
    pub(crate) fn move_in(&mut self, run_cgroup: &RunCgroup, slot: u32) {
        let name = run_cgroup.cgroup.name().to_owned();
        self.inhabited.entry(name).or_default().push(slot);
    }

    /// Records that the run no longer uses the cgroup.
    pub(crate) fn move_out(&mut self, run_cgroup: &RunCgroup, slot: u32) {
        let name = run_cgroup.cgroup.name();
        if let Some(slots) = self.inhabited.get_mut(name) {
            slots.retain(|&other| other != slot);
            if slots.is_empty() {
                self.inhabited.remove(name);
            }
        }
    }

    /// The slots of instances with a cgroup that may be this one or one above it, compared by name. A path in /proc and
    /// a directory of the host are not compared, because namespaces and mounts decide how they correspond. The caller
    /// checks the kernel's list of members.
    pub(crate) fn candidates<'a>(&'a self, cgroup: &'a Path) -> impl Iterator<Item = u32> + 'a {
        let names = cgroup.iter().filter_map(|name| self.inhabited.get(name));
        names.flatten().copied()
    }

    /// Kills what is left of a run and removes its cgroup. If it cannot be removed yet, the removal is tried again
    /// later.
    pub(crate) fn retire(&mut self, run_cgroup: RunCgroup, fds: &mut FdSet, now: Instant) {
        if let Some((events, token)) = run_cgroup.events {
            drop(fds.remove(token, events));
        }
        self.remove_or_keep(run_cgroup.cgroup, RunCgroups::FIRST_WAIT, now);
    }

    fn remove_or_keep(&mut self, cgroup: Cgroup, wait: Duration, now: Instant) {
        if let Some(cgroup) = unless_removed(cgroup) {
            self.retired += 1;
            let key = (now.saturating_add(wait), self.retired);
            let wait = (wait * 2).min(RunCgroups::LONGEST_WAIT);
            self.dying.insert(key, Dying { cgroup, wait });
        }
    }

    /// The time of the next attempt; `None` if nothing is left to remove.
    pub(crate) fn sweep_at(&self) -> Option<Instant> {
        self.dying.first_key_value().map(|(&(at, _), _)| at)
    }

    /// Tries to remove the cgroups that are due, at most a slice of them.
    pub(crate) fn sweep(&mut self, now: Instant) {
        for _ in 0..RunCgroups::SLICE {
            if self.sweep_at().is_none_or(|at| at > now) {
                return;
            }
            if let Some((_, dying)) = self.dying.pop_first() {
                self.remove_or_keep(dying.cgroup, dying.wait, now);
            }
        }
    }

    /// Removes all that is left, and waits for dying processes until `patience` returns zero.
    pub(crate) fn close(&mut self, patience: impl Fn() -> Duration) {
        for dying in std::mem::take(&mut self.dying).into_values() {
            let mut wait = RunCgroups::FIRST_WAIT;
            let mut left = Some(dying.cgroup);
            while let Some(cgroup) = left.take().and_then(unless_removed) {
                let patience = patience();
                if patience.is_zero() {
                    break;
                }
                wait_for_change(&cgroup, wait.min(patience));
                wait = (wait * 2).min(RunCgroups::LONGEST_WAIT);
                left = Some(cgroup);
            }
        }
    }
}

/// Kills every process in a cgroup and removes it. Returns the cgroup if it cannot be removed yet.
fn unless_removed(cgroup: Cgroup) -> Option<Cgroup> {
    if cgroup.remove().is_ok() {
        return None;
    }
    // If the kill fails, the removal fails too, and its result is used.
    let _refused = cgroup.kill();
    match cgroup.remove() {
        Ok(()) => None,
        Err(_) => Some(cgroup),
    }
}

/// Waits until the cgroup may be empty, for at most this time.
fn wait_for_change(cgroup: &Cgroup, limit: Duration) {
    let until = std::time::Instant::now() + limit;
    // The descriptor reports only changes after it was opened, so the current state is read too.
    let changed = match cgroup.events() {
        Ok(events) if cgroup.is_populated().unwrap_or(true) => wait_for(&events, PollFlags::PRI, Some(until)).is_ok(),
        Ok(_) | Err(_) => false,
    };
    if !changed {
        std::thread::sleep(until.saturating_duration_since(std::time::Instant::now()));
    }
}

fn place(cgroup: &Cgroup) -> (PathBuf, OsString) {
    (cgroup.dir().path().to_owned(), cgroup.name().to_owned())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;

    use super::*;
    use crate::testing::common::tempdir;

    const NOW: Instant = Instant::ZERO;
    const LATER: Instant = Instant::NEVER;

    /// Makes what looks like a cgroup with a process that is dying.
    fn occupy(directory: &CgroupDir, name: &str) -> PathBuf {
        let path = directory.path().join(name);
        fs::create_dir(&path).unwrap();
        for (file, content) in [
            ("cgroup.events", "populated 1\nfrozen 0\n"),
            ("cgroup.freeze", "0"),
            ("cgroup.kill", "0"),
            ("cgroup.procs", ""),
            ("cgroup.threads", ""),
        ] {
            fs::write(path.join(file), content).unwrap();
        }
        path
    }

    fn is_taken<T>(made: &Result<T, CgroupError>) -> bool {
        matches!(made, Err(CgroupError::Exists { .. }))
    }

    #[test]
    fn a_cgroup_that_is_replaced_is_killed_and_removed_later_and_the_new_one_stays() {
        let directories = [tempdir(), tempdir()];
        let [first, second] = directories
            .each_ref()
            .map(|directory| CgroupDir::plain(directory.path()));
        let mut groups = RunCgroups::default();
        let places = [(&first, "web-0"), (&first, "web-1"), (&second, "web-0")];
        let paths = places.map(|(directory, name)| occupy(directory, name));
        // Each is tried twice, and is to be removed once.
        for _ in 0..2 {
            for ((directory, name), path) in places.into_iter().zip(&paths) {
                assert!(is_taken(&groups.replace(directory, name, NOW)));
                assert_eq!(fs::read_to_string(path.join("cgroup.kill")).unwrap(), "1");
            }
        }
        let dying = |groups: &RunCgroups| {
            let mut paths: Vec<_> = groups.dying().map(|(directory, name)| directory.join(name)).collect();
            paths.sort();
            paths
        };
        let mut all = paths.to_vec();
        all.sort();
        assert_eq!(dying(&groups), all);

        // The process in the first one has died.
        for file in fs::read_dir(&paths[0]).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        let made = groups.replace(&first, "web-0", NOW).unwrap();
        assert_eq!(made.path(), paths[0]);
        all.retain(|path| *path != paths[0]);
        assert_eq!(dying(&groups), all);
        groups.sweep(LATER);
        assert!(paths[0].exists());
    }
    /// The cgroup of a run, with a process that is dying.
    fn occupied(directory: &CgroupDir, name: &str) -> RunCgroup {
        occupy(directory, name);
        RunCgroup::of(directory.leaf(name).unwrap())
    }

    #[test]
    fn a_run_may_have_sent_a_message_while_it_uses_its_cgroup() {
        let directory = tempdir();
        let directory = CgroupDir::plain(directory.path());
        let (web, db) = (occupied(&directory, "web"), occupied(&directory, "db"));
        let mut groups = RunCgroups::default();
        let sent = |groups: &RunCgroups| groups.candidates(Path::new("/all/web/below")).collect::<Vec<_>>();
        groups.move_in(&web, 1);
        groups.move_in(&db, 2);
        groups.move_in(&web, 3);
        assert_eq!(sent(&groups), [1, 3]);
        groups.move_out(&web, 1);
        assert_eq!(sent(&groups), [3]);
        groups.move_out(&web, 3);
        assert!(sent(&groups).is_empty());
    }

    #[test]
    fn a_removal_is_tried_again_at_intervals_that_double_up_to_a_limit() {
        let directory = tempdir();
        let run_cgroup = occupied(&CgroupDir::plain(directory.path()), "web");
        let mut groups = RunCgroups::default();
        groups.retire(run_cgroup, &mut FdSet::new().unwrap(), NOW);
        let mut before = NOW;
        for millis in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_000, 4_000] {
            let at = before.saturating_add(Duration::from_millis(millis));
            assert_eq!(groups.sweep_at(), Some(at));
            groups.sweep(before);
            assert_eq!(groups.sweep_at(), Some(at), "it is not due");
            groups.sweep(at);
            before = at;
        }
    }

    #[test]
    fn a_close_does_not_spin_while_processes_are_dying() {
        // The kernel reports no change of the first. The second is empty, and cannot be removed all the same.
        for content in ["populated 1\n", "populated 0\n"] {
            let directory = tempdir();
            let run_cgroup = occupied(&CgroupDir::plain(directory.path()), "web");
            fs::write(directory.join("web/cgroup.events"), content).unwrap();
            let mut groups = RunCgroups::default();
            groups.retire(run_cgroup, &mut FdSet::new().unwrap(), NOW);
            let until = std::time::Instant::now() + Duration::from_millis(100);
            let looks = Cell::new(0);
            groups.close(|| {
                looks.set(looks.get() + 1);
                until.saturating_duration_since(std::time::Instant::now())
            });
            // After waits of 1, 2, 4, 8 ... milliseconds.
            assert!(looks.get() < 20, "{}", looks.get());
        }
    }
}
