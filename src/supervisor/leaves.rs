//! The cgroups that instances live in, one leaf each under a directory of the host's.
//!
//! A leaf is made for a run and removed after it. What the process left behind in it is killed, and dies a
//! moment later; until then the directory cannot be removed, and waits among the dead.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use rustix::io::Errno;

use crate::cgroup::{Cgroup, CgroupDir, CgroupError};
use crate::fdset::{FdSet, Interest, Token};
use crate::signal::Signal;

/// What a run is given besides its program: chosen once, used by every run of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Its cgroup is to be there.
    pub(super) home: Option<Arc<Home>>,
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
    /// The descriptor that tells when it is empty, while somebody waits for that.
    events: Option<(OwnedFd, Token)>,
}

impl Leaf {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.cgroup.fd()
    }

    /// SIGKILL goes by the kernel's own way, which also catches who is just being forked.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match signal {
            Signal::KILL => self.cgroup.kill(),
            _ => self.cgroup.signal(signal).map(drop),
        }
    }

    pub(super) fn is_empty(&self) -> io::Result<bool> {
        Ok(!self.cgroup.is_populated()?)
    }

    /// From now on the set tells when the leaf becomes empty. Whoever asks afterwards whether it is
    /// misses nothing.
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

/// Leaves that could not be removed yet.
#[derive(Default)]
pub(super) struct Leaves {
    dead: Vec<Cgroup>,
}

impl Leaves {
    /// How many of the dead are looked at in one go.
    const SLICE: usize = 16;
    /// How many names more are tried while those who had the first are dying.
    const NAMES: u32 = 8;

    /// The leaf for a run, made anew: a cgroup that was killed once kills whoever is cloned into it. Where the
    /// name is still taken by the dying, a number is added to it.
    pub(super) fn make(&mut self, home: &Home) -> Result<Leaf, CgroupError> {
        self.sweep();
        let mut made = self.replace(&home.dir, &home.name);
        for number in 1..=Leaves::NAMES {
            match made {
                Err(CgroupError::Exists { .. }) => {}
                Ok(_) | Err(_) => break,
            }
            made = self.replace(&home.dir, &format!("{}.{number}", home.name));
        }
        let cgroup = made?;
        if cgroup.is_frozen().unwrap_or(false) {
            // Who is cloned into it stands still before exec, and so would the host.
            let _nobody_minds = cgroup.remove();
            let (doing, path) = ("start anything in frozen", cgroup.path());
            return Err(CgroupError::Failed {
                doing,
                path,
                errno: Errno::BUSY.raw_os_error(),
            });
        }
        Ok(Leaf { cgroup, events: None })
    }

    /// Makes a cgroup, in the place of one that nobody lives in. Whoever lives there is killed; and that
    /// takes a while.
    fn replace(&mut self, directory: &CgroupDir, name: &str) -> Result<Cgroup, CgroupError> {
        match directory.make(name) {
            Err(CgroupError::Exists { .. }) => {
                let old = directory.leaf(name)?;
                self.dead
                    .retain(|cgroup| cgroup.name() != name || cgroup.dir() != directory);
                self.dead.extend(unless_removed(old));
                directory.make(name)
            }
            made => made,
        }
    }

    /// A run is over: whatever is left of it dies.
    pub(super) fn bury(&mut self, leaf: Leaf, fds: &mut FdSet) {
        if let Some((events, token)) = leaf.events {
            drop(fds.remove(token, events));
        }
        self.sweep();
        self.dead.extend(unless_removed(leaf.cgroup));
    }

    fn sweep(&mut self) {
        let some = self.dead.len().min(Leaves::SLICE);
        let again: Vec<_> = self.dead.drain(..some).filter_map(unless_removed).collect();
        self.dead.extend(again);
    }

    /// Removes the rest, and waits for those who are dying.
    pub(super) fn close(&mut self, patience: impl Fn() -> Duration) {
        for cgroup in self.dead.drain(..) {
            let mut left = Some(cgroup);
            while let Some(cgroup) = left.take().and_then(unless_removed) {
                let patience = patience();
                if patience.is_zero() || !changes_within(&cgroup, patience) {
                    break;
                }
                left = Some(cgroup);
            }
        }
    }
}

/// Kills whatever lives in a cgroup and removes it; gives it back if that has to wait.
fn unless_removed(cgroup: Cgroup) -> Option<Cgroup> {
    // If it can't be killed it can't be removed either, and that is what counts.
    let _refused = cgroup.kill();
    match cgroup.remove() {
        Ok(()) => None,
        Err(_) => Some(cgroup),
    }
}

fn changes_within(cgroup: &Cgroup, patience: Duration) -> bool {
    let Ok(events) = cgroup.events() else { return false };
    if !cgroup.is_populated().unwrap_or(false) {
        return true;
    }
    let timeout = Timespec::try_from(patience).ok();
    poll(&mut [PollFd::new(&events, PollFlags::PRI)], timeout.as_ref()).is_ok_and(|ready| ready > 0)
}
