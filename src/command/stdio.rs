//! The descriptors of a child.

use std::fs::File;
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdin, ChildStdout};
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
#[derive(Clone, Debug, Default)]
pub struct Stdio(pub(super) Kind);

/// The kinds of descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Inherit,
    /// Nothing was set.
    Unset,
    Null,
    Piped(Pipe),
    Stdout,
    Stderr,
    File(OpenFile),
    /// The host's standard output or standard error, by its number.
    OfHost(RawFd),
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
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// // The output goes where the host's goes, although the exchange would collect it.
    /// let output = Command::new("true").stdout(Stdio::inherit()).output()?;
    /// assert!(output.stdout.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn inherit() -> Stdio {
        Stdio(Kind::Inherit)
    }

    /// `/dev/null`, for reading and writing.
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// let null = Command::new("cat").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    /// assert!(null.status()?.exit.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn null() -> Stdio {
        Stdio(Kind::Null)
    }

    /// A pipe, made anew for each spawn; the host gets the other end in its [`Child`](crate::Child). Available for any
    /// number of descriptors. [`Pipe`] is one with other properties.
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// use std::io::Read;
    ///
    /// let mut child = Command::new("echo").arg("text").stdout(Stdio::piped()).spawn()?;
    /// let mut text = String::new();
    /// std::fs::File::from(child.stdout.take().ok_or("no pipe")?).read_to_string(&mut text)?;
    /// assert_eq!(text, "text\n");
    /// # child.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn piped() -> Stdio {
        Pipe::new().into()
    }

    /// The child's standard output: the same open file, as with `2>&1` in a shell. `EBADF` at
    /// [`SpawnStep::Descriptor`](crate::SpawnStep::Descriptor) if the child has no standard output, because it inherits
    /// a stream that is closed in the host.
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// let output = Command::new("sh").args(["-c", "echo oops >&2"]).stderr(Stdio::stdout()).output()?;
    /// assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"oops\n"[..], &b""[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn stdout() -> Stdio {
        Stdio(Kind::Stdout)
    }

    /// The child's standard error: the same open file, as with `1>&2` in a shell. `EBADF` as for [`Stdio::stdout`]. If
    /// standard error is in turn [`Stdio::stdout`], the command is refused with
    /// [`CommandError::StreamCycle`](crate::CommandError::StreamCycle).
    ///
    /// ```
    /// use pidherd::{Command, Stdio};
    ///
    /// let output = Command::new("echo").arg("all to stderr").stdout(Stdio::stderr()).output()?;
    /// assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b""[..], &b"all to stderr\n"[..]));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn stderr() -> Stdio {
        Stdio(Kind::Stderr)
    }

    /// A file for reading.
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// let output = Command::new("head").args(["-c", "5"]).stdin(Stdio::read("/proc/version")).output()?;
    /// assert_eq!(output.stdout, b"Linux");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(path: impl AsRef<Path>) -> Stdio {
        OpenFile::read(path).into()
    }

    /// A file for appending, for example a log. It is created if it does not exist.
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// # let log = std::env::temp_dir().join(format!("pidherd-stdio-append-{}", std::process::id()));
    /// let greet = Command::new("echo").arg("hello").stdout(Stdio::append(&log));
    /// greet.status()?;
    /// greet.status()?;
    /// assert_eq!(std::fs::read_to_string(&log)?, "hello\nhello\n");
    /// # std::fs::remove_file(&log)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append(path: impl AsRef<Path>) -> Stdio {
        OpenFile::append(path).into()
    }

    /// A file for writing. It is truncated, and created if it does not exist.
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// # let file = std::env::temp_dir().join(format!("pidherd-stdio-truncate-{}", std::process::id()));
    /// let greet = Command::new("echo").arg("hello").stdout(Stdio::truncate(&file));
    /// greet.status()?;
    /// greet.status()?;
    /// assert_eq!(std::fs::read_to_string(&file)?, "hello\n");
    /// # std::fs::remove_file(&file)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn truncate(path: impl AsRef<Path>) -> Stdio {
        OpenFile::truncate(path).into()
    }
}

impl Stdio {
    /// The default of a command, which is the host's descriptor.
    pub(super) const UNSET: Stdio = Stdio(Kind::Unset);

    /// Becomes this, if the command has not set it.
    pub(super) fn or(&mut self, other: impl FnOnce() -> Stdio) {
        if self.0 == Kind::Unset {
            *self = other();
        }
    }

    /// Its kind, with the default in place of none.
    fn kind(&self) -> &Kind {
        match &self.0 {
            Kind::Unset => &Kind::Inherit,
            kind => kind,
        }
    }
}

/// The default is equal to [`Stdio::inherit`].
impl PartialEq for Stdio {
    fn eq(&self, other: &Stdio) -> bool {
        self.kind() == other.kind()
    }
}

impl Eq for Stdio {}

/// A pipe between the host and the child, made anew for each spawn. [`Stdio::piped`] is `Pipe::new()`.
///
/// ```
/// use pidherd::{Command, Pipe};
/// use std::fs::File;
/// use std::io::{Read, Write};
///
/// let command = Command::new("sh")
///     .args(["-c", "read secret <&3; echo \"$secret\" >&4"])
///     .fd(3, Pipe::new().to_child())
///     .fd(4, Pipe::new());
/// let mut child = command.spawn()?;
/// File::from(child.take_pipe(3).ok_or("no pipe")?).write_all(b"word\n")?;
/// let mut answer = String::new();
/// File::from(child.take_pipe(4).ok_or("no pipe")?).read_to_string(&mut answer)?;
/// assert_eq!(answer, "word\n");
/// # child.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pipe {
    pub(super) to_child: bool,
    pub(super) nonblocking: bool,
}

impl Pipe {
    /// A pipe to the child for standard input, and from the child for every other descriptor. Both ends are blocking.
    ///
    /// ```
    /// # use pidherd::{Command, Pipe};
    /// let mut child = Command::new("cat").stdin(Pipe::new()).stdout(Pipe::new()).spawn()?;
    /// assert!(child.stdin.is_some() && child.stdout.is_some());
    /// // This closes the input, so `cat` ends.
    /// assert!(child.wait()?.exit.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn new() -> Pipe {
        Pipe {
            to_child: false,
            nonblocking: false,
        }
    }

    /// Makes it a pipe to the child, at any number: the child reads and the host writes. For standard output and
    /// standard error this is [`CommandError::PipeDirection`](crate::CommandError::PipeDirection).
    ///
    /// ```
    /// # use pidherd::{Command, Pipe};
    /// use std::io::Write;
    ///
    /// let check = Command::new("sh").args(["-c", "read password <&5; test $password = secret"]);
    /// let mut child = check.fd(5, Pipe::new().to_child()).spawn()?;
    /// std::fs::File::from(child.take_pipe(5).ok_or("no pipe")?).write_all(b"secret\n")?;
    /// assert!(child.wait()?.exit.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn to_child(mut self) -> Pipe {
        self.to_child = true;
        self
    }

    /// Whether the host's end is non-blocking (O_NONBLOCK). That of the child is always blocking.
    ///
    /// ```
    /// # use pidherd::{Command, Pipe};
    /// use std::io::{ErrorKind, Read};
    ///
    /// let mut child = Command::new("sleep").arg("1000").stdout(Pipe::new().nonblocking(true)).spawn()?;
    /// let mut output = std::fs::File::from(child.stdout.take().ok_or("no pipe")?);
    /// // The program has not written anything yet.
    /// assert_eq!(output.read(&mut [0; 8]).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn nonblocking(mut self, yes: bool) -> Pipe {
        self.nonblocking = yes;
        self
    }
}

impl From<Pipe> for Stdio {
    fn from(pipe: Pipe) -> Stdio {
        Stdio(Kind::Piped(pipe))
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

/// Conversions of the standard library's types that own a descriptor.
macro_rules! from_owners {
    ($($(#[$doc:meta])* $owner:ty,)*) => {$(
        $(#[$doc])*
        impl From<$owner> for Stdio {
            fn from(owner: $owner) -> Stdio {
                OwnedFd::from(owner).into()
            }
        }
    )*};
}

from_owners! {
    File,
    /// The end of a pipe to another child. The child writes to the input of that child.
    ChildStdin,
    /// The end of a pipe from another child. The child reads the output of that child, as in a pipeline of a shell.
    ///
    /// ```
    /// use pidherd::Command;
    /// use std::process::Stdio;
    ///
    /// let mut first = std::process::Command::new("echo").arg("5").stdout(Stdio::piped()).spawn()?;
    /// let output = first.stdout.take().ok_or("no pipe")?;
    /// let mut second = Command::new("grep").args(["-q", "5"]).stdin(output).spawn()?;
    /// assert!(second.wait()?.exit.success());
    /// first.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ChildStdout,
    /// The end of a pipe from another child. The child reads the error stream of that child.
    ChildStderr,
    UnixStream,
    UnixListener,
    UnixDatagram,
    TcpStream,
    TcpListener,
    UdpSocket,
}

impl From<io::Stdout> for Stdio {
    /// The host's standard output, at whatever number the child gets it. `EBADF` at
    /// [`SpawnStep::Descriptor`](crate::SpawnStep::Descriptor) if it is closed in the host and the number is another
    /// one; see also [`Stdio::inherit`]. [`Stdio::stdout`] is the child's instead.
    ///
    /// ```
    /// use pidherd::Command;
    /// use std::io;
    ///
    /// // Errors go where the host's output goes, and the output itself to /dev/null.
    /// let command = Command::new("true").stdout(pidherd::Stdio::null()).stderr(io::stdout());
    /// assert!(command.spawn()?.wait()?.exit.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn from(_: io::Stdout) -> Stdio {
        Stdio(Kind::OfHost(1))
    }
}

impl From<io::Stderr> for Stdio {
    /// The host's standard error, at whatever number the child gets it; as for [`io::Stdout`].
    fn from(_: io::Stderr) -> Stdio {
        Stdio(Kind::OfHost(2))
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
    ///
    /// ```
    /// # use pidherd::{Command, OpenFile, SpawnStep};
    /// let missing = Command::new("cat").stdin(OpenFile::read("/no/such/file"));
    /// let error = missing.spawn().map(drop).expect_err("there is no such file");
    /// assert_eq!(error.step(), SpawnStep::Open);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(path: impl AsRef<Path>) -> OpenFile {
        OpenFile::new(path.as_ref(), Access::Read, false)
    }

    /// Opens the file for appending. It is created if it does not exist.
    ///
    /// ```
    /// # use pidherd::{Command, OpenFile};
    /// # let log = std::env::temp_dir().join(format!("pidherd-open-append-{}", std::process::id()));
    /// let job = Command::new("echo").arg("line").stdout(OpenFile::append(&log));
    /// job.status()?;
    /// job.status()?;
    /// assert_eq!(std::fs::read_to_string(&log)?.lines().count(), 2);
    /// # std::fs::remove_file(&log)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append(path: impl AsRef<Path>) -> OpenFile {
        OpenFile::new(path.as_ref(), Access::Append, true)
    }

    /// Opens the file for writing and truncates it. It is created if it does not exist.
    ///
    /// ```
    /// # use pidherd::{Command, OpenFile};
    /// # let file = std::env::temp_dir().join(format!("pidherd-open-truncate-{}", std::process::id()));
    /// std::fs::write(&file, "old and long\n")?;
    /// Command::new("echo").arg("new").stdout(OpenFile::truncate(&file)).status()?;
    /// assert_eq!(std::fs::read_to_string(&file)?, "new\n");
    /// # std::fs::remove_file(&file)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn truncate(path: impl AsRef<Path>) -> OpenFile {
        OpenFile::new(path.as_ref(), Access::Truncate, true)
    }

    /// Sets whether a missing file is created.
    ///
    /// ```
    /// # use pidherd::{Command, OpenFile, SpawnStep};
    /// # let log = std::env::temp_dir().join(format!("pidherd-open-create-{}", std::process::id()));
    /// // The log must be there already.
    /// let job = Command::new("echo").stdout(OpenFile::append(&log).create(false));
    /// let error = job.spawn().map(drop).expect_err("there is no such file");
    /// assert_eq!(error.step(), SpawnStep::Open);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn create(mut self, create: bool) -> OpenFile {
        self.create = create;
        self
    }

    /// Sets the permissions of a created file, before the host's umask. The default is 0o666.
    ///
    /// ```
    /// # use pidherd::{Command, OpenFile};
    /// # let file = std::env::temp_dir().join(format!("pidherd-open-mode-{}", std::process::id()));
    /// use std::os::unix::fs::PermissionsExt;
    ///
    /// Command::new("echo").arg("secret").stdout(OpenFile::truncate(&file).mode(0o600)).status()?;
    /// assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    /// # std::fs::remove_file(&file)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
