//! The descriptors of a child.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The source or destination of a standard stream (or a passed descriptor) of the child.
///
/// It can be used for any number of spawns: a given descriptor is shared, a file is opened anew each time.
///
/// ```
/// use std::io::Read;
/// use pidherd::{Command, Stdio};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut child = Command::new("sh")
///     .args(["-c", "echo out; echo err >&2"])
///     .stdin(Stdio::null())
///     .stdout(Stdio::piped())
///     .stderr(Stdio::stdout())
///     .spawn()?;
/// let mut text = String::new();
/// std::fs::File::from(child.stdout.take().ok_or("no pipe")?).read_to_string(&mut text)?;
/// assert_eq!(text, "out\nerr\n");
/// # child.wait()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stdio(pub(super) Kind);

/// The kinds of descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Inherit,
    Null,
    Piped,
    Stdout,
    File(OpenFile),
    Given(Shared),
}

/// A given descriptor. It is equal to itself only, not to another one of the same number.
#[derive(Clone, Debug)]
pub(super) struct Shared(pub(super) Arc<OwnedFd>);

impl PartialEq for Shared {
    fn eq(&self, other: &Shared) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Shared {}

impl Stdio {
    /// The host's own descriptor of the same number. The child has it even if it is close-on-exec in the host.
    ///
    /// The descriptor is inspected when the spawn begins, before the library opens a file. A standard stream that is
    /// closed in the host is closed in the child, as after fork and exec: the first file that the program opens then
    /// becomes that stream. A host without standard streams should use [`Stdio::null`]. Any other number that is not
    /// open is an error, `EBADF` at [`SpawnStep::Descriptor`](crate::SpawnStep::Descriptor).
    #[must_use]
    pub fn inherit() -> Stdio {
        Stdio(Kind::Inherit)
    }

    /// `/dev/null`, for reading and writing.
    #[must_use]
    pub fn null() -> Stdio {
        Stdio(Kind::Null)
    }

    /// A pipe, made anew for each spawn; the host gets the other end in its [`Child`](crate::Child). Available for the
    /// three standard streams and one further descriptor.
    #[must_use]
    pub fn piped() -> Stdio {
        Stdio(Kind::Piped)
    }

    /// The child's standard output: the same open file, as with `2>&1` in a shell. `EBADF` at
    /// [`SpawnStep::Descriptor`](crate::SpawnStep::Descriptor) if the child has no standard output, because it inherits
    /// a stream that is closed in the host.
    #[must_use]
    pub fn stdout() -> Stdio {
        Stdio(Kind::Stdout)
    }

    /// A file for reading.
    pub fn read(path: impl AsRef<Path>) -> Stdio {
        OpenFile::read(path).into()
    }

    /// A file for appending, for example a log. It is created if it does not exist.
    pub fn append(path: impl AsRef<Path>) -> Stdio {
        OpenFile::append(path).into()
    }

    /// A file for writing. It is truncated, and created if it does not exist.
    pub fn truncate(path: impl AsRef<Path>) -> Stdio {
        OpenFile::truncate(path).into()
    }
}

impl From<OpenFile> for Stdio {
    fn from(file: OpenFile) -> Stdio {
        Stdio(Kind::File(file))
    }
}

impl From<Arc<OwnedFd>> for Stdio {
    /// Uses this descriptor. It can be of any type.
    fn from(fd: Arc<OwnedFd>) -> Stdio {
        Stdio(Kind::Given(Shared(fd)))
    }
}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Stdio {
        Arc::new(fd).into()
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Stdio {
        OwnedFd::from(file).into()
    }
}

/// A file that the child opens at each spawn: after it has a descriptor table of its own, and before chroot, the change
/// of directory and the change of ids. So a relative path is relative to the host's working directory, the host's
/// permissions apply, and a created file belongs to the host's user. The host's umask applies to its mode.
///
/// Opening a file never waits. A FIFO without its other side (for writing without a reader, for reading without a
/// writer and without data) is an error, `ENXIO` at [`SpawnStep::Open`](crate::SpawnStep::Open), where a shell would
/// wait. The program itself waits for data in a FIFO, as usual. A device is opened as with O_NONBLOCK (open(2)): a
/// serial line is opened without waiting for its carrier. A terminal does not become the controlling one. A directory
/// can be opened for reading.
///
/// ```
/// use pidherd::{Command, OpenFile};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let log = std::env::temp_dir().join(format!("pidherd-{}.log", std::process::id()));
/// let job = Command::new("echo").arg("done").stdout(OpenFile::append(&log).mode(0o640));
/// job.spawn()?.wait()?;
/// job.spawn()?.wait()?;
/// assert_eq!(std::fs::read_to_string(&log)?, "done\ndone\n");
/// # std::fs::remove_file(&log)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFile {
    pub(super) path: PathBuf,
    pub(super) access: Access,
    pub(super) create: bool,
    pub(super) mode: u32,
}

/// The mode of opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Append,
    Truncate,
}

impl OpenFile {
    /// Opens the file for reading; it must exist.
    pub fn read(path: impl AsRef<Path>) -> OpenFile {
        OpenFile::new(path.as_ref(), Access::Read, false)
    }

    /// Opens the file for appending. It is created if it does not exist.
    pub fn append(path: impl AsRef<Path>) -> OpenFile {
        OpenFile::new(path.as_ref(), Access::Append, true)
    }

    /// Opens the file for writing and truncates it. It is created if it does not exist.
    pub fn truncate(path: impl AsRef<Path>) -> OpenFile {
        OpenFile::new(path.as_ref(), Access::Truncate, true)
    }

    /// Sets whether a missing file is created.
    #[must_use]
    pub fn create(mut self, create: bool) -> OpenFile {
        self.create = create;
        self
    }

    /// Sets the permissions of a created file, before the host's umask. The default is 0o666.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> OpenFile {
        self.mode = mode;
        self
    }

    fn new(path: &Path, access: Access, create: bool) -> OpenFile {
        OpenFile {
            path: path.to_owned(),
            access,
            create,
            mode: 0o666,
        }
    }

    /// The flags of open(2).
    pub(super) fn flags(&self) -> i32 {
        let access = match self.access {
            Access::Read => libc::O_RDONLY,
            Access::Append => libc::O_WRONLY | libc::O_APPEND,
            Access::Truncate => libc::O_WRONLY | libc::O_TRUNC,
        };
        access | if self.create { libc::O_CREAT } else { 0 }
    }
}
