//! The cgroup of one instance.

use std::ffi::{CString, OsStr};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;

use super::dir::{CgroupDir, Identity};
use super::error::CgroupError;
use super::files::{CgroupFile, Place};
use super::limits::Limits;
use super::members::{self, Members, Sent};
use super::oom::{Above, OomKill};
use super::usage::CgroupUsage;
use super::{name, tree};
use crate::exit::Pid;
use crate::signal::Signal;

/// One cgroup in a [`CgroupDir`], and the cgroups that its processes make below it.
///
/// Dropping the value neither kills a process nor removes the cgroup: [`kill`](Cgroup::kill) and
/// [`remove`](Cgroup::remove) do. A program that leaves a cgroup behind finds it again by its name.
///
/// After the cgroup was removed, here or elsewhere, all calls except [`events`](Cgroup::events) return the same results
/// as for an empty cgroup.
pub struct Cgroup {
    pub(super) dir: CgroupDir,
    pub(super) name: CString,
    pub(super) fd: OwnedFd,
    pub(super) identity: Identity,
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
    /// ```
    /// # use pidherd::cgroup::CgroupDir;
    /// # let own = std::fs::read_to_string("/proc/self/cgroup")?;
    /// # let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    /// # let Ok(directory) = CgroupDir::open(format!("/sys/fs/cgroup{own}")) else { return Ok(()) };
    /// # let name = format!("pidherd-doc-{}", std::process::id());
    /// let cgroup = directory.make(&name)?;
    /// assert!(!cgroup.is_populated()?);
    /// cgroup.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # use pidherd::cgroup::CgroupDir;
    /// # let own = std::fs::read_to_string("/proc/self/cgroup")?;
    /// # let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    /// # let Ok(directory) = CgroupDir::open(format!("/sys/fs/cgroup{own}")) else { return Ok(()) };
    /// # let name = format!("pidherd-doc-{}", std::process::id());
    /// let cgroup = directory.make(&name)?;
    /// assert!(!cgroup.is_frozen()?);
    /// cgroup.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`is_populated`](Cgroup::is_populated).
    pub fn is_frozen(&self) -> io::Result<bool> {
        tree::is_frozen(self.fd())
    }

    /// Freezes every process in the cgroup and below, and every one that comes (`cgroup.freeze`, Linux 5.2). Returns at
    /// once: a process freezes when it next returns from the kernel. A frozen process runs no instruction and handles no
    /// signal until it is thawed, except SIGKILL, which ends it. It is no error if the cgroup was removed.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cgroup = pidherd::cgroup::CgroupDir::open("/sys/fs/cgroup/my-service")?.make("web-0")?;
    /// cgroup.freeze()?;
    /// assert!(cgroup.is_frozen()?);
    /// cgroup.thaw()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of write(2). `Unsupported` before Linux 5.2.
    pub fn freeze(&self) -> io::Result<()> {
        self.write_freeze(b"1")
    }

    /// Thaws what [`Cgroup::freeze`] froze. What a cgroup above freezes stays frozen.
    ///
    /// ```
    /// # use pidherd::cgroup::CgroupDir;
    /// # let own = std::fs::read_to_string("/proc/self/cgroup")?;
    /// # let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    /// # let Ok(directory) = CgroupDir::open(format!("/sys/fs/cgroup{own}")) else { return Ok(()) };
    /// # let name = format!("pidherd-doc-{}", std::process::id());
    /// let cgroup = directory.make(&name)?;
    /// cgroup.freeze()?;
    /// cgroup.thaw()?;
    /// assert!(!cgroup.is_frozen()?);
    /// cgroup.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Cgroup::freeze`].
    pub fn thaw(&self) -> io::Result<()> {
        self.write_freeze(b"0")
    }

    fn write_freeze(&self, value: &[u8]) -> io::Result<()> {
        match tree::write(self.fd(), tree::FREEZE, value) {
            Ok(()) | Err(Errno::NODEV) => Ok(()),
            Err(Errno::NOENT) if !self.is_in_place()? => Ok(()),
            Err(Errno::NOENT) => Err(io::ErrorKind::Unsupported.into()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Writes the limits to the files of the cgroup. Limits that are not set here stay as they are.
    ///
    /// The controllers must be enabled in the directory; [`CgroupDir::enable_controllers`] does so. The processes that
    /// are in the cgroup already are limited at once. A lower limit of memory is in force from the next allocation on;
    /// before Linux 6.16 the call reclaims memory and can take some time. If the kernel cannot reclaim enough, it kills
    /// a process in the cgroup.
    ///
    /// A child in flight ([`Spawner::begin`](crate::Spawner::begin)) shares the memory of the host until it has
    /// executed its program. Do not lower a limit of memory while such a child is in the cgroup: the kernel would kill
    /// the host with it.
    ///
    /// # Errors
    /// [`CgroupError::OutOfRange`] and [`CgroupError::FileName`], before anything is written.
    /// [`CgroupError::NoController`], [`CgroupError::NoFile`] or [`CgroupError::File`] for the first file that cannot
    /// be written; those before it have been written.
    ///
    /// ```no_run
    /// use pidherd::cgroup::{CgroupDir, CgroupError, Limits};
    ///
    /// # fn main() -> Result<(), CgroupError> {
    /// let dir = CgroupDir::open("/sys/fs/cgroup/my-service")?;
    /// let limits = Limits::new().memory_max(200 << 20).pids_max(50);
    /// dir.enable_controllers(&limits)?;
    /// dir.make("web-0")?.set_limits(&limits)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_limits(&self, limits: &Limits) -> Result<(), CgroupError> {
        limits.validate()?;
        self.write_files(&limits.files())
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
    /// Reads up to ten files. Does not block.
    #[must_use]
    pub fn usage(&self) -> CgroupUsage {
        CgroupUsage::of(self.fd())
    }

    /// How often the limits of memory above the cgroup have been reached until now; `None` if the memory controller
    /// does not count in the cgroup itself.
    pub(crate) fn above(&self) -> Option<Above> {
        tree::has(self.fd(), c"memory.events").then(|| Above::of(self.dir.as_fd()))
    }

    /// What the kernel tells of its kills in the cgroup for lack of memory; `None` if it has killed no process since the
    /// cgroup was made. `before` are the counts above at that time.
    pub(crate) fn out_of_memory(&self, before: Option<&Above>) -> Option<OomKill> {
        OomKill::of(self.fd(), before, || Above::of(self.dir.as_fd()))
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
    /// ```
    /// # use pidherd::Command;
    /// # use pidherd::cgroup::{Cgroup, CgroupDir};
    /// # let own = std::fs::read_to_string("/proc/self/cgroup")?;
    /// # let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    /// # let Ok(directory) = CgroupDir::open(format!("/sys/fs/cgroup{own}")) else { return Ok(()) };
    /// # let name = format!("pidherd-doc-{}", std::process::id());
    /// use rustix::event::{PollFd, PollFlags, poll};
    ///
    /// let cgroup = directory.make(&name)?;
    /// let events = cgroup.events()?;
    /// let mut child = Command::new("true").cgroup(cgroup.fd().try_clone_to_owned()?).spawn()?;
    /// child.wait()?;
    /// // The kernel reports that the cgroup was populated, and later that it is empty.
    /// while cgroup.is_populated()? {
    ///     poll(&mut [PollFd::new(&events, PollFlags::PRI)], None)?;
    ///     Cgroup::acknowledge(&events)?;
    /// }
    /// cgroup.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # use pidherd::cgroup::{Cgroup, CgroupDir};
    /// # let own = std::fs::read_to_string("/proc/self/cgroup")?;
    /// # let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    /// # let Ok(directory) = CgroupDir::open(format!("/sys/fs/cgroup{own}")) else { return Ok(()) };
    /// # let name = format!("pidherd-doc-{}", std::process::id());
    /// let cgroup = directory.make(&name)?;
    /// let events = cgroup.events()?;
    /// let is_populated = Cgroup::acknowledge(&events)?;
    /// assert!(!is_populated);
    /// cgroup.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # use pidherd::cgroup::CgroupDir;
    /// # use pidherd::{Command, Signal};
    /// # let own = std::fs::read_to_string("/proc/self/cgroup")?;
    /// # let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    /// # let Ok(directory) = CgroupDir::open(format!("/sys/fs/cgroup{own}")) else { return Ok(()) };
    /// # let name = format!("pidherd-doc-{}", std::process::id());
    /// let cgroup = directory.make(&name)?;
    /// // A shell and a process in a session of its own: both die.
    /// let script = "setsid sleep 1000 & wait";
    /// let command = Command::new("sh").args(["-c", script]).cgroup(cgroup.fd().try_clone_to_owned()?);
    /// let mut child = command.spawn()?;
    /// cgroup.kill()?;
    /// assert_eq!(child.wait()?.exit.signal(), Some(Signal::KILL));
    /// # let events = cgroup.events()?;
    /// # while cgroup.is_populated()? {
    /// #     rustix::event::poll(&mut [rustix::event::PollFd::new(&events, rustix::event::PollFlags::PRI)], None)?;
    /// #     pidherd::cgroup::Cgroup::acknowledge(&events)?;
    /// # }
    /// # cgroup.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # use pidherd::cgroup::CgroupDir;
    /// # use pidherd::{Command, Signal};
    /// # let own = std::fs::read_to_string("/proc/self/cgroup")?;
    /// # let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    /// # let Ok(directory) = CgroupDir::open(format!("/sys/fs/cgroup{own}")) else { return Ok(()) };
    /// # let name = format!("pidherd-doc-{}", std::process::id());
    /// let cgroup = directory.make(&name)?;
    /// let mut child = Command::new("sleep").arg("1000").cgroup(cgroup.fd().try_clone_to_owned()?).spawn()?;
    /// assert_eq!(cgroup.signal(Signal::TERM)?, 1);
    /// assert_eq!(child.wait()?.exit.signal(), Some(Signal::TERM));
    /// # cgroup.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # use pidherd::Command;
    /// # use pidherd::cgroup::CgroupDir;
    /// # let own = std::fs::read_to_string("/proc/self/cgroup")?;
    /// # let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    /// # let Ok(directory) = CgroupDir::open(format!("/sys/fs/cgroup{own}")) else { return Ok(()) };
    /// # let name = format!("pidherd-doc-{}", std::process::id());
    /// let cgroup = directory.make(&name)?;
    /// let mut child = Command::new("sleep").arg("1000").cgroup(cgroup.fd().try_clone_to_owned()?).spawn()?;
    /// assert_eq!(cgroup.processes()?, [child.pid()]);
    /// child.kill()?;
    /// child.wait()?;
    /// # cgroup.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # use pidherd::cgroup::CgroupDir;
    /// # let own = std::fs::read_to_string("/proc/self/cgroup")?;
    /// # let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    /// # let Ok(directory) = CgroupDir::open(format!("/sys/fs/cgroup{own}")) else { return Ok(()) };
    /// # let name = format!("pidherd-doc-{}", std::process::id());
    /// let cgroup = directory.make(&name)?;
    /// // A process in it has made one of its own, and has ended.
    /// std::fs::create_dir(cgroup.path().join("inner"))?;
    /// cgroup.clear()?;
    /// assert!(!cgroup.path().join("inner").exists());
    /// cgroup.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # use pidherd::cgroup::CgroupDir;
    /// # let own = std::fs::read_to_string("/proc/self/cgroup")?;
    /// # let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    /// # let Ok(directory) = CgroupDir::open(format!("/sys/fs/cgroup{own}")) else { return Ok(()) };
    /// # let name = format!("pidherd-doc-{}", std::process::id());
    /// let cgroup = directory.make(&name)?;
    /// cgroup.remove()?;
    /// cgroup.remove()?; // It is gone already.
    /// assert!(!cgroup.path().exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `EBUSY` while a process is alive in the cgroup, and then nothing has changed. `EACCES`, `EPERM`, `EROFS` if the
    /// removal is not allowed. `EMFILE`, `ENFILE`.
    pub fn remove(&self) -> io::Result<()> {
        if !self.is_in_place()? {
            return Ok(());
        }
        // A cgroup without processes and without cgroups below it is removed even if no descriptor is free.
        match tree::remove(self.dir.as_fd(), &self.name) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY | Errno::NOTEMPTY) => {}
            Err(errno) => return Err(errno.into()),
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
    pub(crate) fn is_in_place(&self) -> io::Result<bool> {
        match statat(&self.dir.inner.fd, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok((stat.st_dev, stat.st_ino) == self.identity),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Kills the processes that an earlier supervisor left in the cgroup.
    pub(super) fn take_over(&self) -> Result<(), CgroupError> {
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

impl AsRawFd for Cgroup {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cgroup").field(&self.path()).finish()
    }
}
