//! How a directory is opened and checked, and how cgroups are made in it.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FsWord, fstatfs};
use rustix::io::Errno;

use super::dir::{CgroupDir, identity};
use super::error::CgroupError;
use super::files::CgroupFile;
use super::leaf::Cgroup;
use super::limits::Limits;
use super::{name, tree};
use crate::sys::nr::CGROUP2_SUPER_MAGIC;

/// The magic number of version 1 of the cgroup file system (fstatfs(2)).
const CGROUP_SUPER_MAGIC: FsWord = 0x0027_e0eb;

/// The file with the controllers that the cgroups in a directory have.
const SUBTREE_CONTROL: &CStr = c"cgroup.subtree_control";

/// The number of names that are tried for the probe directory.
const PROBE_NAMES: u32 = 16;

impl CgroupDir {
    /// Opens a directory and checks whether it can be used, so that an error is reported at configuration and not at a
    /// later stop.
    ///
    /// The check makes a cgroup called `pidherd-probe-PID-N` in the directory, and removes it again: permission bits do
    /// not show a read-only mount, a security module or a limit.
    ///
    /// The directory may have controllers enabled for its children (`cgroup.subtree_control`). Those that limits need
    /// are enabled when the limits are used ([`enable_controllers`](CgroupDir::enable_controllers)). A host that is not
    /// root can start a child in it only if the host may also write to `cgroup.procs` of the nearest common ancestor of
    /// the directory and its own cgroup. Therefore the host should itself live in the delegated tree.
    ///
    /// ```
    /// # use pidherd::cgroup::{CgroupDir, CgroupError};
    /// assert!(matches!(CgroupDir::open("/no/such/directory"), Err(CgroupError::Missing { .. })));
    /// // A directory of another file system is no cgroup.
    /// let error = CgroupDir::open("/proc").expect_err("it is no cgroup");
    /// println!("{error}");
    /// ```
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
    /// ```
    /// # use pidherd::cgroup::CgroupDir;
    /// # let own = std::fs::read_to_string("/proc/self/cgroup")?;
    /// # let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    /// # let Ok(directory) = CgroupDir::open(format!("/sys/fs/cgroup{own}")) else { return Ok(()) };
    /// # let name = format!("pidherd-doc-{}", std::process::id());
    /// use std::fs::File;
    ///
    /// // It was inherited, or received over a socket.
    /// let given = File::open(directory.path())?;
    /// assert_eq!(CgroupDir::from_fd(&given)?, directory);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`open`](CgroupDir::open). Errors name the directory by the path that /proc shows.
    pub fn from_fd(fd: impl AsFd) -> Result<CgroupDir, CgroupError> {
        let fd = fd.as_fd();
        let link = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let path = std::fs::read_link(&link).unwrap_or(link);
        CgroupDir::checked(tree::open(fd, c"."), path)
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
        let path = self.path().join(name::as_os_str(&name));
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
    /// ```
    /// # use pidherd::cgroup::{CgroupDir, CgroupError};
    /// # let own = std::fs::read_to_string("/proc/self/cgroup")?;
    /// # let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    /// # let Ok(directory) = CgroupDir::open(format!("/sys/fs/cgroup{own}")) else { return Ok(()) };
    /// # let name = format!("pidherd-doc-{}", std::process::id());
    /// let cgroup = directory.make(&name)?;
    /// // It exists now.
    /// assert!(matches!(directory.make(&name), Err(CgroupError::Exists { .. })));
    /// cgroup.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CgroupError::Exists`], and otherwise the errors of [`leaf`](CgroupDir::leaf).
    pub fn make(&self, name: impl AsRef<OsStr>) -> Result<Cgroup, CgroupError> {
        let name = name::checked(name.as_ref())?;
        let path = self.path().join(name::as_os_str(&name));
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
    /// ```
    /// # use pidherd::cgroup::CgroupDir;
    /// assert!(CgroupDir::check_name("web-0").is_ok());
    /// // A file of the kernel could have this name.
    /// assert!(CgroupDir::check_name("memory.max").is_err());
    /// ```
    ///
    /// # Errors
    /// [`CgroupError::Name`].
    pub fn check_name(name: impl AsRef<OsStr>) -> Result<(), CgroupError> {
        name::checked(name.as_ref()).map(drop)
    }

    /// Enables the controllers that these limits need for the cgroups in the directory, in its
    /// `cgroup.subtree_control`.
    ///
    /// Only the directory itself is changed. A controller that the directory lacks must be delegated to it: it must be
    /// enabled in the `cgroup.subtree_control` of every cgroup above. While a process is in the directory itself, the
    /// kernel refuses (`EBUSY`). A controller stays enabled: a cgroup in the directory would lose its limits if it were
    /// disabled.
    ///
    /// Limits of memory also enable the pids controller, where it is delegated: its counts tell whether the kernel has
    /// killed the process of a run for lack of memory ([`End::OutOfMemory`](crate::supervisor::End::OutOfMemory)). That
    /// it cannot be enabled is no error.
    ///
    /// A supervisor calls this for the limits of its groups ([`GroupSpec::limits`](crate::GroupSpec::limits)).
    ///
    /// ```
    /// # use pidherd::cgroup::{CgroupDir, Limits};
    /// # let own = std::fs::read_to_string("/proc/self/cgroup")?;
    /// # let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    /// # let Ok(directory) = CgroupDir::open(format!("/sys/fs/cgroup{own}")) else { return Ok(()) };
    /// # let name = format!("pidherd-doc-{}", std::process::id());
    /// let limits = Limits::new().pids_max(50);
    /// # if name.is_empty() {
    /// match directory.enable_controllers(&limits) {
    ///     Ok(()) => directory.make("web-0")?.set_limits(&limits)?,
    ///     // The controller was not delegated to the host.
    ///     Err(error) => println!("{error}"),
    /// }
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CgroupError::NoController`], [`CgroupError::CannotEnable`]. Then no controller was enabled.
    pub fn enable_controllers(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.enable(&limits.files())
    }

    /// Enables the controllers for these files, and checks whether the files can be written in a cgroup here. The check
    /// uses a temporary cgroup.
    pub(crate) fn prepare(&self, files: &[CgroupFile]) -> Result<(), CgroupError> {
        if files.is_empty() || self.is_simulated() {
            return Ok(());
        }
        self.enable(files)?;
        let probe = self.make_probe()?;
        let written = probe.write_files(files);
        let removed = probe
            .remove()
            .map_err(|error| CgroupError::failed_with(&probe.path(), "remove", &error));
        written.and(removed)
    }

    /// Enables the controllers of these files. The kernel enables all of them or none.
    fn enable(&self, files: &[CgroupFile]) -> Result<(), CgroupError> {
        let needed: BTreeSet<_> = files.iter().filter_map(CgroupFile::controller).collect();
        let counts_deaths = needed.contains("memory");
        self.enable_all(needed)?;
        if counts_deaths {
            // An unknown count makes a verdict less certain, and that is all.
            let _best_effort = self.enable_all(BTreeSet::from(["pids"]));
        }
        Ok(())
    }

    fn enable_all(&self, needed: BTreeSet<&str>) -> Result<(), CgroupError> {
        if needed.is_empty() {
            return Ok(());
        }
        let present = tree::read(self.as_fd(), SUBTREE_CONTROL).unwrap_or_default();
        let lacking = needed.into_iter().filter(|name| !tree::lists(&present, name));
        let lacking: Vec<&str> = lacking.collect();
        let request: Vec<String> = lacking.iter().map(|name| format!("+{name}")).collect();
        if request.is_empty() {
            return Ok(());
        }
        tree::write(self.as_fd(), SUBTREE_CONTROL, request.join(" ").as_bytes())
            .map_err(|errno| self.not_enabled(&lacking, errno))
    }

    fn not_enabled(&self, controllers: &[&str], errno: Errno) -> CgroupError {
        let path = self.path().to_owned();
        let delegated = tree::read(self.as_fd(), c"cgroup.controllers").unwrap_or_default();
        match controllers.iter().find(|name| !tree::lists(&delegated, name)) {
            Some(&controller) => CgroupError::NoController {
                path,
                controller: controller.to_owned(),
            },
            None => CgroupError::CannotEnable {
                path,
                controller: controllers.join(" "),
                errno: errno.raw_os_error(),
            },
        }
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
