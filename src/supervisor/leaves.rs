//! The cgroups that instances live in, one leaf each under a directory of the host's.
//!
//! A leaf is made for a run and removed after it. What the process left behind in it is killed, and dies a
//! moment later; until then the directory cannot be removed. It is then tried again at growing intervals, by the
//! supervisor's timer: a descriptor for each that tells when it is empty could not be had when none is free.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::cgroup::{Cgroup, CgroupDir, CgroupError, CgroupFile, CgroupUsage};
use crate::exit::Pid;
use crate::fdset::{FdSet, Interest, Token};
use crate::poll::wait_for;
use crate::signal::Signal;
use crate::time::Instant;

/// What a run is given besides its program: chosen once, used by every run of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Its cgroup is to be there.
    pub(super) home: Option<Arc<Home>>,
    /// What is written into the files of its cgroup.
    pub(super) files: Arc<[CgroupFile]>,
    /// Its further pipe tells when it is ready.
    pub(super) ready_fd: bool,
}

/// Where an instance's leaf is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) dir: CgroupDir,
    pub(super) name: String,
}

impl Home {
    /// `group-number`. A dash, because the kernel's own files have dots in their names.
    pub(super) fn new(dir: &CgroupDir, group: &str, number: u32) -> Home {
        Home {
            dir: dir.clone(),
            name: format!("{group}-{number}"),
        }
    }

    /// Whether it is that of an instance of a group so called.
    pub(super) fn is_of(&self, group: &str) -> bool {
        self.name.rsplit_once('-').is_some_and(|(own, _)| own == group)
    }
}

/// The leaf of a run.
pub(super) struct Leaf {
    cgroup: Cgroup,
    /// The descriptor that tells when it is empty, while that is waited for.
    events: Option<(OwnedFd, Token)>,
}

impl Leaf {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.cgroup.fd()
    }

    /// Signals what lives there, and says whether `pid` is known to have got it. SIGKILL goes by the kernel's own way,
    /// which also catches what is just being forked.
    pub(super) fn signal(&self, signal: Signal, pid: Pid) -> (bool, io::Result<()>) {
        match signal {
            Signal::KILL => (false, self.cgroup.kill()),
            _ => self.cgroup.signal_with(signal, pid),
        }
    }

    pub(super) fn is_empty(&self) -> io::Result<bool> {
        Ok(!self.cgroup.is_populated()?)
    }

    /// What was used there.
    pub(super) fn usage(&self) -> CgroupUsage {
        self.cgroup.usage()
    }

    /// Whether this process lives there or below; not if that can't be known.
    pub(super) fn houses(&self, pid: Pid) -> bool {
        self.cgroup
            .processes()
            .is_ok_and(|inhabitants| inhabitants.contains(&pid))
    }

    /// From now on the set tells when the leaf becomes empty. What happened before, a look afterwards tells.
    pub(super) fn watch(&mut self, fds: &mut FdSet) -> io::Result<Token> {
        let events = self.cgroup.events()?;
        let token = fds.add(events.as_fd(), Interest::PRIORITY)?;
        self.events = Some((events, token));
        Ok(token)
    }

    pub(super) fn events_fd(&self, token: Token) -> Option<BorrowedFd<'_>> {
        let (events, own) = self.events.as_ref()?;
        (*own == token).then(|| events.as_fd())
    }

    /// The watched leaf has changed: whether it is empty.
    pub(super) fn changed(&self) -> io::Result<bool> {
        match &self.events {
            Some((events, _)) => Ok(!Cgroup::acknowledge(events)?),
            None => Ok(false),
        }
    }
}

/// The leaves of the runs that there are, by name; and those that could not be removed yet, since what lives in them is
/// dying.
#[derive(Default)]
pub(super) struct Leaves {
    /// By the time of the next attempt to remove them; the number tells those of one time apart.
    dead: BTreeMap<(Instant, u64), Dead>,
    buried: u64,
    /// The slots of the instances with runs in leaves of this name. Several leaves may have the same name, in different
    /// directories.
    inhabited: HashMap<OsString, Vec<u32>>,
}

/// The cgroup of a run that is over.
struct Dead {
    cgroup: Cgroup,
    /// How long to wait before the attempt after the next one.
    wait: Duration,
}

impl Leaves {
    /// How many of the dead are looked at in one go.
    const SLICE: usize = 16;
    /// How many more names are tried while the processes of an earlier run are dying under the first one.
    const NAMES: u32 = 8;
    /// The first wait between two attempts to remove one; it doubles up to the longest. To be killed takes a process
    /// microseconds, or as long as its memory takes to be freed.
    const FIRST_WAIT: Duration = Duration::from_millis(1);
    const LONGEST_WAIT: Duration = Duration::from_secs(4);

    /// The leaf for a run, made anew: a child that is cloned into a cgroup that was killed once is killed too. Where
    /// dying processes still occupy the name, a number is added to it.
    ///
    /// `files` are written before anything lives there. Where that fails nothing is left of it.
    pub(super) fn make(&mut self, home: &Home, files: &[CgroupFile], now: Instant) -> Result<Leaf, CgroupError> {
        let mut made = self.replace(&home.dir, &home.name, now);
        for number in 1..=Leaves::NAMES {
            match made {
                Err(CgroupError::Exists { .. }) => {}
                Ok(_) | Err(_) => break,
            }
            made = self.replace(&home.dir, &format!("{}.{number}", home.name), now);
        }
        let cgroup = made?;
        if cgroup.is_frozen().unwrap_or(false) {
            // A child that is cloned into it would stand still before its exec, and the host with it.
            let _removed = cgroup.remove();
            let (doing, path) = ("start anything in frozen", cgroup.path());
            return Err(CgroupError::Failed {
                doing,
                path,
                errno: Errno::BUSY.raw_os_error(),
            });
        }
        if let Err(error) = cgroup.write_files(files) {
            self.remove_or_keep(cgroup, Leaves::FIRST_WAIT, now);
            return Err(error);
        }
        Ok(Leaf { cgroup, events: None })
    }

    /// Makes a cgroup, in the place of an empty one. What lives in an old one is killed, and that takes a while.
    fn replace(&mut self, directory: &CgroupDir, name: &str, now: Instant) -> Result<Cgroup, CgroupError> {
        match directory.make(name) {
            Err(CgroupError::Exists { .. }) => {
                let old = directory.leaf(name)?;
                let is_another = |dead: &Dead| dead.cgroup.name() != name || dead.cgroup.dir() != directory;
                self.dead.retain(|_, dead| is_another(dead));
                self.remove_or_keep(old, Leaves::FIRST_WAIT, now);
                directory.make(name)
            }
            made => made,
        }
    }

    /// The run of the instance in this slot lives there from now on.
    pub(super) fn move_in(&mut self, leaf: &Leaf, owner: u32) {
        let name = leaf.cgroup.name().to_owned();
        self.inhabited.entry(name).or_default().push(owner);
    }

    /// It does not any more.
    pub(super) fn move_out(&mut self, leaf: &Leaf, owner: u32) {
        let name = leaf.cgroup.name();
        if let Some(owners) = self.inhabited.get_mut(name) {
            owners.retain(|&other| other != owner);
            if owners.is_empty() {
                self.inhabited.remove(name);
            }
        }
    }

    /// The slots of instances that may have this cgroup, or one above it, for their leaf: the names are the same. The path
    /// in /proc is not compared with the directory that the host has named, since they depend on namespaces and mounts: the
    /// kernel's list of the leaf's members decides.
    pub(super) fn candidates<'a>(&'a self, cgroup: &'a Path) -> impl Iterator<Item = u32> + 'a {
        let names = cgroup.iter().filter_map(|name| self.inhabited.get(name));
        names.flatten().copied()
    }

    /// A run is over: what is left of it dies. A leaf that can't be removed yet is tried again later.
    pub(super) fn bury(&mut self, leaf: Leaf, fds: &mut FdSet, now: Instant) {
        if let Some((events, token)) = leaf.events {
            drop(fds.remove(token, events));
        }
        self.remove_or_keep(leaf.cgroup, Leaves::FIRST_WAIT, now);
    }

    fn remove_or_keep(&mut self, cgroup: Cgroup, wait: Duration, now: Instant) {
        if let Some(cgroup) = unless_removed(cgroup) {
            self.buried += 1;
            let key = (now.saturating_add(wait), self.buried);
            let wait = (wait * 2).min(Leaves::LONGEST_WAIT);
            self.dead.insert(key, Dead { cgroup, wait });
        }
    }

    /// When the next one is to be tried again, if there is one.
    pub(super) fn sweep_at(&self) -> Option<Instant> {
        self.dead.first_key_value().map(|(&(at, _), _)| at)
    }

    /// Tries those again that are due, at most a slice of them.
    pub(super) fn sweep(&mut self, now: Instant) {
        for _ in 0..Leaves::SLICE {
            if self.sweep_at().is_none_or(|at| at > now) {
                return;
            }
            if let Some((_, dead)) = self.dead.pop_first() {
                self.remove_or_keep(dead.cgroup, dead.wait, now);
            }
        }
    }

    /// Removes the rest, and waits for what is dying there until `patience` says that no time is left.
    pub(super) fn close(&mut self, patience: impl Fn() -> Duration) {
        for dead in std::mem::take(&mut self.dead).into_values() {
            let mut wait = Leaves::FIRST_WAIT;
            let mut left = Some(dead.cgroup);
            while let Some(cgroup) = left.take().and_then(unless_removed) {
                let patience = patience();
                if patience.is_zero() {
                    break;
                }
                wait_for_change(&cgroup, wait.min(patience));
                wait = (wait * 2).min(Leaves::LONGEST_WAIT);
                left = Some(cgroup);
            }
        }
    }
}

/// Kills whatever lives in a cgroup and removes it; gives it back if that has to wait.
fn unless_removed(cgroup: Cgroup) -> Option<Cgroup> {
    if cgroup.remove().is_ok() {
        return None;
    }
    // If it can't be killed it can't be removed either, and that is what counts.
    let _refused = cgroup.kill();
    match cgroup.remove() {
        Ok(()) => None,
        Err(_) => Some(cgroup),
    }
}

/// Waits until the cgroup may be empty, no longer than this.
fn wait_for_change(cgroup: &Cgroup, limit: Duration) {
    let until = std::time::Instant::now() + limit;
    // What happened before the descriptor was opened it does not tell, so that is asked for.
    let told = match cgroup.events() {
        Ok(events) if cgroup.is_populated().unwrap_or(true) => wait_for(&events, PollFlags::PRI, Some(until)).is_ok(),
        Ok(_) | Err(_) => false,
    };
    if !told {
        std::thread::sleep(until.saturating_duration_since(std::time::Instant::now()));
    }
}
