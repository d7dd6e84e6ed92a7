//! Control of a whole tree of processes by one handle: a cgroup for each instance.
//!
//! A process leaves its process group when it calls `setsid`, and its parent when it is forked twice. It does not leave
//! its cgroup (cgroups(7), version 2): a process that is started in a cgroup stays in it with all its descendants, and
//! the kernel reports when the last of them has ended. So only this scope certainly contains all processes of an
//! instance.
//!
//! The module uses three files of the kernel. `cgroup.kill` (Linux 5.14) kills all processes of the subtree, including
//! those that are forked meanwhile. `cgroup.events` shows whether a process is alive there, and an epoll reports its
//! changes. `cgroup.procs` lists the processes, for all other signals. The files are opened relative to directory
//! descriptors and never by paths, because another file system can be mounted over a path between two calls.
//!
//! A number from `cgroup.procs` can belong to another process when it is used. So first a pidfd of that number is
//! opened, and then the list is read once more. A signal through the pidfd reaches the process of the pidfd or no
//! process. A process that it reaches has had its number since the pidfd was opened, so it is the process in the list.
//! Where a filter refuses such signals, kill(2) is called right after the pidfd has shown that the process has not
//! ended.
//!
//! The host chooses the directory ([`CgroupDir`]). It is *delegated*: an administrator or a service manager has made
//! it, and does not change it from then on. Choosing a directory automatically, or moving the host to another cgroup,
//! was rejected, because another program may manage the cgroups of the machine. The library does not enable
//! controllers: the host does so, in the `cgroup.subtree_control` of the directory. The host writes limits for all
//! instances together to the files of the directory. A supervisor makes a new cgroup for each run, so limits for each
//! run are a part of the group's description ([`GroupSpec::cgroup_file`](crate::GroupSpec::cgroup_file)). The
//! supervisor writes them before the program starts. Processes are not moved into a cgroup by their numbers, because a
//! process that is forked before the move would stay outside. A child is created in its cgroup (CLONE_INTO_CGROUP,
//! Linux 5.7), or enters it before its program runs.
//!
//! No call of this module blocks, except while another process holds the kernel's cgroup lock. A killed process takes
//! some time to end, so [`Cgroup::kill`] returns before its processes have ended.
//!
//! ```no_run
//! use pidherd::cgroup::{Cgroup, CgroupDir};
//! use pidherd::fdset::{FdSet, Interest};
//! use std::os::fd::AsFd;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = CgroupDir::open("/sys/fs/cgroup/my-service")?;
//! let leaf = dir.leaf("web-0")?;
//! // ... start something in leaf.fd() ...
//! let mut set = FdSet::new()?;
//! let events = leaf.events()?;
//! let token = set.add(events.as_fd(), Interest::PRIORITY)?;
//! leaf.kill()?;
//! // ... when the set says that `token` is ready:
//! if !Cgroup::acknowledge(&events)? {
//!     set.remove(token, events)?;
//!     leaf.remove()?;
//! }
//! # Ok(())
//! # }
//! ```

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FsWord, fstat, fstatfs, statat};
use rustix::io::Errno;

use crate::exit::Pid;
use crate::signal::Signal;
use crate::sys::nr::CGROUP2_SUPER_MAGIC;
use files::Place;
use members::{Members, Sent};

pub use error::CgroupError;
pub(crate) use files::CgroupFile;
pub use files::CgroupUsage;

mod error;
mod files;
mod members;
mod name;
#[cfg(test)]
mod tests;
mod tree;

/// The magic number of version 1 of the cgroup file system (fstatfs(2)).
const CGROUP_SUPER_MAGIC: FsWord = 0x0027_e0eb;

/// The number of names that are tried for the probe directory.
const PROBE_NAMES: u32 = 16;

/// A directory of the cgroup v2 hierarchy that has been delegated to the host. Each instance can have a cgroup of its
/// own in it.
///
/// A clone shares the descriptor. Two values are equal if they refer to the same directory, even if they were opened by
/// different paths.
#[derive(Clone)]
pub struct CgroupDir {
    inner: Arc<Inner>,
}

struct Inner {
    fd: OwnedFd,
    /// The path as it was given, for messages.
    path: PathBuf,
    identity: Identity,
    /// The name of `cgroup.kill`. Tests name a file that does not exist.
    kill_file: &'static CStr,
}

/// The device and the inode of a directory.
type Identity = (u64, u64);

impl CgroupDir {
    /// Opens a directory and checks whether it can be used, so that an error is reported at configuration and not at a
    /// later stop.
    ///
    /// The check makes a cgroup called `pidherd-probe-PID-N` in the directory, and removes it again: permission bits do
    /// not show a read-only mount, a security module or a limit.
    ///
    /// The directory may have controllers enabled for its children (`cgroup.subtree_control`). A host that is not root
    /// can start a child in it only if the host may also write to `cgroup.procs` of the nearest common ancestor of the
    /// directory and its own cgroup. Therefore the host should itself live in the delegated tree.
    ///
    /// # Errors
    /// [`CgroupError`]: the path does not exist, is no directory, is no cgroup or is a cgroup of version 1; the
    /// directory cannot be written to; or the cgroup is threaded, and a cgroup in it cannot hold a process.
    pub fn open(path: impl AsRef<Path>) -> Result<CgroupDir, CgroupError> {
        let path = path.as_ref();
        CgroupDir::checked(tree::open_path(CWD, path), path.to_owned())
    }

    /// Like [`open`](CgroupDir::open), for a directory that is already open, possibly with `O_PATH`. The directory is
    /// opened again and the descriptor is not kept.
    ///
    /// # Errors
    /// As [`open`](CgroupDir::open). Errors name the directory by the path that /proc shows.
    pub fn from_fd(fd: impl AsFd) -> Result<CgroupDir, CgroupError> {
        let fd = fd.as_fd();
        let link = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let path = std::fs::read_link(&link).unwrap_or(link);
        CgroupDir::checked(tree::open(fd, c"."), path)
    }

    /// A value for tests that differs from others only by its number.
    #[cfg(test)]
    pub(crate) fn pretended(number: u64) -> CgroupDir {
        let inner = Inner {
            fd: std::fs::File::open("/dev/null").unwrap().into(),
            path: PathBuf::from(format!("/pretended/{number}")),
            identity: (0, number),
            kill_file: c"cgroup.kill",
        };
        CgroupDir { inner: Arc::new(inner) }
    }

    /// The path as it was given, or the path from /proc if a descriptor was given. For display.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Makes the cgroup `name` in the directory, or takes over an existing one. To clone children into a cgroup, prefer
    /// [`make`](CgroupDir::make).
    ///
    /// An existing cgroup was made by the host, which can have set limits; the limits stay. Or a killed supervisor left
    /// it behind: **every process that lives in it is killed**. The kill takes a moment; [`Cgroup::is_populated`] shows
    /// the result, and [`Cgroup::clear`] cleans up afterwards. If no process lives in the cgroup, it is cleared at
    /// once. In both cases a frozen cgroup is thawed.
    ///
    /// Two instances must not have the same name. The name is a file name of at most 255 bytes without a line feed. It
    /// must not be a name that the kernel can give to a file of its own: `cgroup` or a controller before the first dot,
    /// as in `cgroup.procs` and `memory.max`.
    ///
    /// # Errors
    /// [`CgroupError::Name`] for an impossible name; [`CgroupError::Own`] if the calling process itself is in the
    /// cgroup; [`CgroupError::Limit`]; the errors of [`open`](CgroupDir::open), if the directory has changed since; and
    /// the errors of the cleanup.
    ///
    /// ```no_run
    /// # use pidherd::cgroup::{CgroupDir, CgroupError};
    /// # fn main() -> Result<(), CgroupError> {
    /// let dir = CgroupDir::open("/sys/fs/cgroup/my-service")?;
    /// let leaf = dir.leaf("web-0")?;
    /// assert!(matches!(dir.leaf("memory.max"), Err(CgroupError::Name { .. })));
    /// # Ok(())
    /// # }
    /// ```
    pub fn leaf(&self, name: impl AsRef<OsStr>) -> Result<Cgroup, CgroupError> {
        match self.make(name.as_ref()) {
            Err(CgroupError::Exists { path }) => {
                let leaf = self.opened(name::checked(name.as_ref())?, &path)?;
                leaf.take_over()?;
                Ok(leaf)
            }
            made => made,
        }
    }

    /// Opens the cgroup `name` of the directory as it is; `None` if there is none.
    pub(crate) fn existing(&self, name: impl AsRef<OsStr>) -> Result<Option<Cgroup>, CgroupError> {
        let name = name::checked(name.as_ref())?;
        let path = self.inner.path.join(name::as_os_str(&name));
        match self.opened(name, &path) {
            Err(error) if error.errno() == libc::ENOENT => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Makes the cgroup `name` in the directory. No cgroup of that name may exist.
    ///
    /// Children are cloned into such a cgroup. A cgroup that was ever killed through `cgroup.kill` is not suitable for
    /// that: the kernel compares how often the new child's cgroup was killed with how often its parent's cgroup was
    /// killed, takes the difference for a kill that raced with the fork, and kills the child (seen on Linux 6.18). A
    /// new cgroup of the same name does not have this problem.
    ///
    /// # Errors
    /// [`CgroupError::Exists`], and otherwise the errors of [`leaf`](CgroupDir::leaf).
    pub fn make(&self, name: impl AsRef<OsStr>) -> Result<Cgroup, CgroupError> {
        let name = name::checked(name.as_ref())?;
        let path = self.inner.path.join(name::as_os_str(&name));
        self.make_directory(&name, &path)?;
        let leaf = self.opened(name.clone(), &path);
        if leaf.is_err() {
            // The new cgroup is empty, so its removal is the cleanup; the first error is the one to report.
            let _reported_by_first_error = tree::remove(self.as_fd(), &name);
        }
        leaf
    }

    fn make_directory(&self, name: &CStr, path: &Path) -> Result<(), CgroupError> {
        tree::make(self.as_fd(), name).map_err(|errno| match errno {
            Errno::EXIST => CgroupError::Exists { path: path.to_owned() },
            Errno::NOENT => CgroupError::Missing {
                path: self.path().to_owned(),
            },
            errno => CgroupError::failed(path, "make", errno),
        })
    }

    /// Checks whether [`leaf`](CgroupDir::leaf) accepts this name.
    ///
    /// # Errors
    /// [`CgroupError::Name`].
    pub fn check_name(name: impl AsRef<OsStr>) -> Result<(), CgroupError> {
        name::checked(name.as_ref()).map(drop)
    }

    /// Checks whether these files can be written in a cgroup here. The check uses a temporary cgroup.
    pub(crate) fn try_files(&self, files: &[CgroupFile]) -> Result<(), CgroupError> {
        files.iter().try_for_each(CgroupFile::check)?;
        if files.is_empty() {
            return Ok(());
        }
        let probe = self.make_probe()?;
        let written = probe.write_files(files);
        let removed = probe
            .remove()
            .map_err(|error| CgroupError::failed_with(&probe.path(), "remove", &error));
        written.and(removed)
    }

    fn make_probe(&self) -> Result<Cgroup, CgroupError> {
        for text in probe_names() {
            match self.make(&text) {
                Err(CgroupError::Exists { .. }) => {}
                made => return made,
            }
        }
        Err(CgroupError::failed(self.path(), "write to", Errno::EXIST))
    }

    fn opened(&self, name: CString, path: &Path) -> Result<Cgroup, CgroupError> {
        let fd = tree::open(self.as_fd(), &name).map_err(|errno| CgroupError::failed(path, "open", errno))?;
        check_type(fd.as_fd(), path, CAN_HOLD_PROCESSES)?;
        let identity = identity(&fd).map_err(|errno| CgroupError::failed(path, "read", errno))?;
        Ok(Cgroup {
            dir: self.clone(),
            name,
            fd,
            identity,
        })
    }

    fn checked(fd: Result<OwnedFd, Errno>, path: PathBuf) -> Result<CgroupDir, CgroupError> {
        let fd = fd.map_err(|errno| CgroupError::failed(&path, "open", errno))?;
        check_version(fd.as_fd(), &path)?;
        check_type(fd.as_fd(), &path, CAN_HOLD_LEAVES)?;
        probe(fd.as_fd(), &path)?;
        let identity = identity(&fd).map_err(|errno| CgroupError::failed(&path, "read", errno))?;
        Ok(CgroupDir::new(fd, path, identity, c"cgroup.kill"))
    }

    fn new(fd: OwnedFd, path: PathBuf, identity: Identity, kill_file: &'static CStr) -> CgroupDir {
        let inner = Arc::new(Inner {
            fd,
            path,
            identity,
            kill_file,
        });
        CgroupDir { inner }
    }
}

impl AsFd for CgroupDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }
}

impl PartialEq for CgroupDir {
    fn eq(&self, other: &CgroupDir) -> bool {
        self.inner.identity == other.inner.identity
    }
}

impl Eq for CgroupDir {}

impl Hash for CgroupDir {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.identity.hash(state);
    }
}

impl fmt::Debug for CgroupDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CgroupDir").field(&self.inner.path).finish()
    }
}

/// One cgroup in a [`CgroupDir`], and the cgroups that its processes make below it.
///
/// Dropping the value neither kills a process nor removes the cgroup: [`kill`](Cgroup::kill) and
/// [`remove`](Cgroup::remove) do. A program that leaves a cgroup behind finds it again by its name.
///
/// After the cgroup was removed, here or elsewhere, all calls except [`events`](Cgroup::events) return the same results
/// as for an empty cgroup.
pub struct Cgroup {
    dir: CgroupDir,
    name: CString,
    fd: OwnedFd,
    identity: Identity,
}

impl Cgroup {
    /// The directory that the cgroup is in.
    #[must_use]
    pub fn dir(&self) -> &CgroupDir {
        &self.dir
    }

    /// The name of the cgroup in the directory.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        name::as_os_str(&self.name)
    }

    /// The path of the cgroup, for display.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path().join(self.name())
    }

    /// The descriptor of the cgroup's directory, for CLONE_INTO_CGROUP (clone3(2), Linux 5.7).
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether any process is alive in the cgroup or below it. Zombies do not count.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE` or `ENOMEM`: no descriptor or memory was free.
    pub fn is_populated(&self) -> io::Result<bool> {
        match tree::read(self.fd(), c"cgroup.events") {
            Ok(content) => tree::is_populated(&content),
            Err(Errno::NOENT | Errno::NODEV) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether the cgroup is frozen or about to freeze, by its own `cgroup.freeze` or by that of a mounted ancestor
    /// (Linux 5.2).
    ///
    /// A child that is started in a frozen cgroup freezes before it runs. A caller that waits for its exec, as
    /// [`Spawner::spawn`](crate::Spawner::spawn) does, waits until the cgroup is thawed or the child is killed.
    ///
    /// # Errors
    /// As [`is_populated`](Cgroup::is_populated).
    pub fn is_frozen(&self) -> io::Result<bool> {
        tree::is_frozen(self.fd())
    }

    /// Writes the files one after the other, up to the first one that the kernel refuses.
    pub(crate) fn write_files(&self, files: &[CgroupFile]) -> Result<(), CgroupError> {
        let path = self.path();
        let (fd, path) = (self.fd(), path.as_path());
        let directory = Place {
            fd: self.dir.as_fd(),
            path: self.dir.path(),
        };
        files
            .iter()
            .try_for_each(|file| file.write(Place { fd, path }, directory))
    }

    /// The resources that were used in the cgroup and below it since it was made, as far as the kernel counts them. All
    /// values of a removed cgroup are `None`.
    ///
    /// Reads three files. Does not block.
    #[must_use]
    pub fn usage(&self) -> CgroupUsage {
        CgroupUsage::of(self.fd())
    }

    /// A descriptor of `cgroup.events` that becomes ready when [`is_populated`](Cgroup::is_populated) next changes;
    /// close-on-exec.
    ///
    /// The event is `EPOLLPRI` ([`Interest::PRIORITY`](crate::fdset::Interest::PRIORITY)), together with `EPOLLERR`.
    /// The descriptor stays ready until [`acknowledge`](Cgroup::acknowledge) has read it. Do not wait for `EPOLLIN`:
    /// the file is always readable. Each open descriptor from this call has its own readiness.
    ///
    /// Changes before the call are not reported: call `is_populated` after it. The kernel reports changes at intervals
    /// of at least 10 ms, so the last change can be reported that much later. A reported change can be a freeze, or
    /// already undone. The removal of the cgroup is not reported. The descriptor outlives the cgroup; take it out of a
    /// set before the removal.
    ///
    /// # Errors
    /// `ENOENT` if the cgroup was removed; `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn events(&self) -> io::Result<OwnedFd> {
        let events = tree::open_file(self.fd(), c"cgroup.events")?;
        Cgroup::acknowledge(&events)?;
        Ok(events)
    }

    /// Reads a descriptor from [`events`](Cgroup::events), and returns whether the cgroup is populated. Afterwards the
    /// descriptor is ready only at the next change. The call is harmless when nothing has changed. It returns `false`
    /// for a removed cgroup.
    ///
    /// # Errors
    /// `InvalidData` if the file is not a `cgroup.events`; no other error is expected.
    pub fn acknowledge(events: impl AsFd) -> io::Result<bool> {
        let mut content = [0; 256];
        match rustix::io::retry_on_intr(|| rustix::io::pread(&events, &mut content[..], 0)) {
            Ok(length) => tree::is_populated(content.get(..length).unwrap_or_default()),
            Err(Errno::NODEV) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Kills every process in the cgroup and below it, including processes that are forked meanwhile. The processes die
    /// a moment later; [`events`](Cgroup::events) reports when.
    ///
    /// Processes that remain after `cgroup.kill` get SIGKILL through a pidfd: the kernel skips a process in which the
    /// first thread has ended and others run (seen on Linux 6.18).
    ///
    /// Before Linux 5.14 there is no `cgroup.kill`, and a write to it can be refused. Then the library freezes the
    /// cgroup, kills every process through a pidfd until no other process appears, and thaws the cgroup.
    ///
    /// # Errors
    /// `EACCES`, `EPERM`, `EROFS`: `cgroup.kill` may not be written, and the processes could not be killed one by one
    /// either. Before 5.14: `EPERM` if this process may not signal one of the processes; `EMFILE`; and an error of the
    /// kind `ResourceBusy` that lists the remaining processes, if new ones appear without end, or some are in a PID
    /// namespace that is not visible from here.
    pub fn kill(&self) -> io::Result<()> {
        match tree::write(self.fd(), self.dir.inner.kill_file, b"1") {
            Ok(()) => {
                if self.is_populated().unwrap_or(true) {
                    // All other processes are already being killed, so a failure here does not mean that a process
                    // survives.
                    let _dying = members::signal_each(self.fd(), Signal::KILL, &mut Sent::default());
                }
                Ok(())
            }
            Err(Errno::NOENT) => members::kill_each(self.fd()),
            Err(Errno::NODEV) => Ok(()),
            Err(refused) => members::kill_each(self.fd()).map_err(|_| refused.into()),
        }
    }

    /// Sends `signal` to every process in the cgroup and below it, and returns the number of processes that it reached.
    ///
    /// It reaches no process outside. It can miss a process that is forked meanwhile, and it skips processes in a PID
    /// namespace that is not visible from here. To end everything, use [`kill`](Cgroup::kill). With n processes it
    /// makes about 3 n system calls. It uses at most 64 descriptors at a time, or fewer if fewer are free.
    ///
    /// # Errors
    /// As with kill(2), `EPERM` for a process is an error only if no other process was reached. `EMFILE`, `ENFILE`:
    /// fewer than four descriptors were free. The signal can have reached some processes before the error.
    pub fn signal(&self, signal: Signal) -> io::Result<u32> {
        let mut sent = Sent::default();
        members::signal_each(self.fd(), signal, &mut sent)?;
        match sent.refused {
            Some(error) if sent.reached.is_empty() => Err(error),
            _ => Ok(u32::try_from(sent.reached.len()).unwrap_or(u32::MAX)),
        }
    }

    /// Like `signal`; returns also whether the signal reached `pid`.
    pub(crate) fn signal_with(&self, signal: Signal, pid: Pid) -> (bool, io::Result<()>) {
        let mut sent = Sent::default();
        let done = members::signal_each(self.fd(), signal, &mut sent);
        let refused = sent.refused.filter(|_| sent.reached.is_empty());
        let reached = sent.reached.contains(&pid.as_raw());
        (reached, done.and(refused.map_or(Ok(()), Err)))
    }

    /// The processes in the cgroup and below it, for display: sorted, without those in a PID namespace that is not
    /// visible from here.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn processes(&self) -> io::Result<Vec<Pid>> {
        let numbers = Members::below(self.fd())?.numbers;
        Ok(numbers.into_iter().filter_map(Pid::new).collect())
    }

    /// Prepares an empty cgroup for another process. It removes the cgroups that the processes have made below it,
    /// disables the controllers that they enabled for those, and thaws the cgroup. Such controllers would prevent a new
    /// process in the cgroup. Limits stay.
    ///
    /// # Errors
    /// `EBUSY` while a process is alive in it, and then nothing has changed; `EACCES`, `EPERM` if a cgroup in it
    /// belongs to another user; `EMFILE`, `ENFILE`.
    pub fn clear(&self) -> io::Result<()> {
        if self.is_populated()? {
            return Err(Errno::BUSY.into());
        }
        tree::remove_below(self.fd())?;
        tree::disable_controllers(self.fd())?;
        tree::freeze(self.fd(), false)
    }

    /// Removes the cgroup and the cgroups that its processes have made below it. The call succeeds if the cgroup is
    /// already gone, even if a new cgroup has its name.
    ///
    /// # Errors
    /// `EBUSY` while a process is alive in the cgroup, and then nothing has changed. `EACCES`, `EPERM`, `EROFS` if the
    /// removal is not allowed. `EMFILE`, `ENFILE`.
    pub fn remove(&self) -> io::Result<()> {
        if !self.is_in_place()? {
            return Ok(());
        }
        if self.is_populated()? {
            return Err(Errno::BUSY.into());
        }
        tree::remove_below(self.fd())?;
        match tree::remove(self.dir.as_fd(), &self.name) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether the name still refers to this very cgroup.
    fn is_in_place(&self) -> io::Result<bool> {
        match statat(&self.dir.inner.fd, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok((stat.st_dev, stat.st_ino) == self.identity),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Kills the processes that an earlier supervisor left in the cgroup.
    fn take_over(&self) -> Result<(), CgroupError> {
        let own = std::process::id();
        let failed = |doing| {
            let path = self.path();
            move |error| CgroupError::failed_with(&path, doing, &error)
        };
        if !self.is_populated().map_err(failed("read"))? {
            return self.clear().map_err(failed("clear"));
        }
        let members = Members::below(self.fd()).map_err(failed("read"))?;
        if members.numbers.contains(&own) {
            return Err(CgroupError::Own { path: self.path() });
        }
        self.kill().map_err(failed("kill what is left in"))?;
        tree::freeze(self.fd(), false).map_err(failed("thaw"))
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

impl fmt::Debug for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cgroup").field(&self.path()).finish()
    }
}

fn identity(fd: &OwnedFd) -> Result<Identity, Errno> {
    let stat = fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn check_version(fd: BorrowedFd<'_>, path: &Path) -> Result<(), CgroupError> {
    let path = path.to_owned();
    match fstatfs(fd) {
        Ok(stat) if stat.f_type == CGROUP2_SUPER_MAGIC => Ok(()),
        Ok(stat) if stat.f_type == CGROUP_SUPER_MAGIC => Err(CgroupError::Version1 { path }),
        Ok(_) => Err(CgroupError::NotACgroup { path }),
        Err(errno) => Err(CgroupError::failed(&path, "read", errno)),
    }
}

/// The types (`cgroup.type`, Linux 4.14) of a cgroup that can hold processes.
const CAN_HOLD_PROCESSES: &[&[u8]] = &[b"domain", b"domain threaded"];
/// The types of a cgroup that can have children which hold processes.
const CAN_HOLD_LEAVES: &[&[u8]] = &[b"domain"];

fn check_type(fd: BorrowedFd<'_>, path: &Path, accepted: &[&[u8]]) -> Result<(), CgroupError> {
    match tree::read(fd, c"cgroup.type") {
        Ok(content) if accepted.contains(&content.trim_ascii_end()) => Ok(()),
        Ok(_) => Err(CgroupError::Threaded { path: path.to_owned() }),
        // The root of the hierarchy has no type.
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(CgroupError::failed(path, "read", errno)),
    }
}

/// The names that are tried for the probe cgroup.
fn probe_names() -> impl Iterator<Item = String> {
    let own = std::process::id();
    (0..PROBE_NAMES).map(move |number| format!("pidherd-probe-{own}-{number}"))
}

/// Makes a cgroup in the directory and removes it.
fn probe(fd: BorrowedFd<'_>, path: &Path) -> Result<(), CgroupError> {
    for text in probe_names() {
        let name = name::checked(OsStr::new(&text))?;
        return match tree::make(fd, &name) {
            Ok(()) => tree::remove(fd, &name).map_err(|errno| CgroupError::failed(&path.join(&text), "remove", errno)),
            // The name belongs to a probe of another thread, or to one of a killed process.
            Err(Errno::EXIST) => continue,
            // The limit on the number of cgroups is reached, but the directory is writable: the leaves can exist
            // already.
            Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(CgroupError::failed(path, "write to", errno)),
        };
    }
    Err(CgroupError::failed(path, "write to", Errno::EXIST))
}
