//! The reasons why a command could not be started: the failed step, its errno, and its object.
//!
//! There are two kinds. A [`CommandError`] is a fault of the caller: the command cannot work on any system, and nothing
//! has happened. A [`SpawnError`] is a failure of the system: something was tried, and nothing of it remains.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use super::capability::Capabilities;
use super::namespace::Namespace;
use crate::codec::{Damaged, Reader, Stored, Writer, stored};
use crate::errno::ErrnoText;
use crate::names::machine_names;

/// The step at which a spawn failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpawnStep {
    /// Checking the command; nothing was started. See [`SpawnError::command_error`].
    Check,
    /// Preparing to spawn: the child's stack, the reserved descriptors.
    Prepare,
    /// Making a pipe for a standard stream.
    Pipe,
    /// Adding the child to the supervisor's set (EPOLL_CTL_ADD).
    Watch,
    /// Making the child (clone3(2) or clone(2)).
    Clone,
    /// Starting in a cgroup (CLONE_INTO_CGROUP, Linux 5.7), or entering it (`cgroup.procs`).
    Cgroup,
    /// Giving the child a descriptor table of its own.
    Unshare,
    /// Opening a file for a descriptor of the child.
    Open,
    /// Putting a descriptor where the child expects it.
    Descriptor,
    /// Closing the descriptors that the child must not have.
    CloseDescriptors,
    /// Starting a new session (setsid(2)).
    Session,
    /// Joining or making a process group (setpgid(2)).
    ProcessGroup,
    /// Making a terminal the controlling one (TIOCSCTTY).
    ControllingTerminal,
    /// Becoming the terminal's foreground process group (TIOCSPGRP).
    Foreground,
    /// Setting the nice value (setpriority(2)).
    Nice,
    /// Setting the scheduling policy (sched_setscheduler(2)).
    Scheduling,
    /// Setting the I/O priority (ioprio_set(2)).
    IoPriority,
    /// Setting the CPU affinity (sched_setaffinity(2)).
    Affinity,
    /// Writing `/proc/self/oom_score_adj`.
    OomScore,
    /// Setting a resource limit (prlimit(2)).
    Limit,
    /// Entering a new or a given namespace (namespaces(7)).
    Namespace,
    /// Mounting `/proc`, or ending the propagation of mounts to the host (mount(2)).
    Mount,
    /// Setting the umask (umask(2)).
    Umask,
    /// Changing the root directory (chroot(2)).
    Chroot,
    /// Setting the supplementary groups (setgroups(2)), or reading them back.
    Groups,
    /// Setting the gid (setresgid(2)), or reading it back.
    Gid,
    /// Setting the uid (setresuid(2)), reading it back, or checking that the child cannot become the old user again.
    Uid,
    /// Setting a capability set (capabilities(7)).
    Capabilities,
    /// Changing the working directory (chdir(2)), as the new user of the child.
    CurrentDir,
    /// Setting PR_SET_NO_NEW_PRIVS (prctl(2)).
    NoNewPrivileges,
    /// Setting the parent-death signal (PR_SET_PDEATHSIG in prctl(2)). `ESRCH`: the parent had already ended.
    ParentDeathSignal,
    /// Setting the disposition of a signal (sigaction(2)).
    SignalDisposition,
    /// Setting the signal mask (sigprocmask(2)), or reading the child's own pid.
    SignalMask,
    /// Executing the program (execve(2)).
    Exec,
}

machine_names! { SpawnStep, "step of a spawn",
    Check = "check"
    Prepare = "prepare"
    Pipe = "pipe"
    Watch = "watch"
    Clone = "clone"
    Cgroup = "cgroup"
    Unshare = "unshare"
    Open = "open"
    Descriptor = "descriptor"
    CloseDescriptors = "close-descriptors"
    Session = "session"
    ProcessGroup = "process-group"
    ControllingTerminal = "controlling-terminal"
    Foreground = "foreground"
    Nice = "nice"
    Affinity = "affinity"
    Scheduling = "scheduling"
    IoPriority = "io-priority"
    OomScore = "oom-score"
    Limit = "limit"
    Namespace = "namespace"
    Mount = "mount"
    Umask = "umask"
    Chroot = "chroot"
    Groups = "groups"
    Gid = "gid"
    Uid = "uid"
    Capabilities = "capabilities"
    CurrentDir = "current-dir"
    NoNewPrivileges = "no-new-privileges"
    ParentDeathSignal = "parent-death-signal"
    SignalDisposition = "signal-disposition"
    SignalMask = "signal-mask"
    Exec = "exec"
}

impl fmt::Display for SpawnStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SpawnStep::Check => "check the command",
            SpawnStep::Prepare => "prepare",
            SpawnStep::Pipe => "make a pipe",
            SpawnStep::Watch => "watch the child",
            SpawnStep::Clone => "clone",
            SpawnStep::Cgroup => "start in cgroup",
            SpawnStep::Unshare => "unshare the descriptor table",
            SpawnStep::Open => "open",
            SpawnStep::Descriptor => "place descriptor",
            SpawnStep::CloseDescriptors => "close descriptors",
            SpawnStep::Session => "setsid",
            SpawnStep::ProcessGroup => "set process group",
            SpawnStep::ControllingTerminal => "set controlling terminal",
            SpawnStep::Foreground => "become the foreground process group",
            SpawnStep::Nice => "set nice value",
            SpawnStep::Scheduling => "set scheduling policy",
            SpawnStep::IoPriority => "set I/O priority",
            SpawnStep::Affinity => "set CPU affinity",
            SpawnStep::OomScore => "set oom_score_adj",
            SpawnStep::Limit => "set resource limit",
            SpawnStep::Namespace => "enter",
            SpawnStep::Mount => "mount",
            SpawnStep::Umask => "umask",
            SpawnStep::Chroot => "chroot to",
            SpawnStep::Groups => "set supplementary groups",
            SpawnStep::Gid => "set gid",
            SpawnStep::Uid => "set uid",
            SpawnStep::Capabilities => "set capabilities",
            SpawnStep::CurrentDir => "change directory to",
            SpawnStep::NoNewPrivileges => "set no_new_privs",
            SpawnStep::ParentDeathSignal => "set parent-death signal",
            SpawnStep::SignalDisposition => "reset signal dispositions",
            SpawnStep::SignalMask => "set signal mask",
            SpawnStep::Exec => "execve",
        })
    }
}

/// The object of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Path(PathBuf),
    /// A file for this descriptor of the child.
    File(PathBuf, RawFd),
    /// This descriptor of the child.
    Stream(RawFd),
    /// A program that is in none of PATH's directories.
    Nowhere(PathBuf),
    /// An existing program, and the interpreter that cannot be executed, if it is known.
    Interpreted(PathBuf, Option<PathBuf>),
    Value(String),
    /// The operation of the preparations that failed, and its object.
    Setup(&'static str, &'static str),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Path(path) => write!(f, "{path:?}"),
            Subject::File(path, target) => write!(f, "{path:?} for {}", Stream(*target)),
            Subject::Stream(target) => write!(f, "for {}", Stream(*target)),
            Subject::Nowhere(path) => write!(f, "{path:?}, searched for in PATH"),
            Subject::Interpreted(path, Some(interpreter)) => write!(f, "{path:?} with interpreter {interpreter:?}"),
            Subject::Interpreted(path, None) => write!(f, "{path:?} with an interpreter that is missing"),
            Subject::Value(value) => f.write_str(value),
            Subject::Setup(operation, object) => write!(f, "{operation} {object}"),
        }
    }
}

/// The name of a descriptor of the child, for messages.
struct Stream(RawFd);

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("stdin"),
            1 => f.write_str("stdout"),
            2 => f.write_str("stderr"),
            number => write!(f, "descriptor {number}"),
        }
    }
}

/// A step of a spawn that failed. No child, no zombie and no descriptor of it is left.
#[derive(Clone, PartialEq, Eq)]
pub struct SpawnError {
    program: OsString,
    cause: Box<Cause>,
}

#[derive(Clone, PartialEq, Eq)]
enum Cause {
    Kernel {
        step: SpawnStep,
        errno: i32,
        subject: Option<Subject>,
    },
    Command(CommandError),
}

impl SpawnError {
    pub(crate) fn new(program: OsString, step: SpawnStep, errno: i32, subject: Option<Subject>) -> SpawnError {
        SpawnError {
            program,
            cause: Box::new(Cause::Kernel { step, errno, subject }),
        }
    }

    /// A command that was refused before anything happened.
    pub(crate) fn refused(program: OsString, error: CommandError) -> SpawnError {
        SpawnError {
            program,
            cause: Box::new(Cause::Command(error)),
        }
    }

    /// The step that failed.
    #[must_use]
    pub fn step(&self) -> SpawnStep {
        match &*self.cause {
            Cause::Kernel { step, .. } => *step,
            Cause::Command(_) => SpawnStep::Check,
        }
    }

    /// The errno of the kernel (errno(3)); `EINVAL` for [`SpawnStep::Check`].
    #[must_use]
    pub fn errno(&self) -> i32 {
        match &*self.cause {
            Cause::Kernel { errno, .. } => *errno,
            Cause::Command(_) => libc::EINVAL,
        }
    }

    /// The path of the file or directory that the step failed on; `None` if the step concerns none.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self.about()? {
            Subject::Path(path) | Subject::File(path, _) | Subject::Nowhere(path) | Subject::Interpreted(path, _) => {
                Some(path)
            }
            Subject::Setup(_, object) => Some(Path::new(object)).filter(|path| path.is_absolute()),
            Subject::Stream(_) | Subject::Value(_) => None,
        }
    }

    /// The interpreter that could not be executed, if that is the reason of the failure: for a script (`#!`) the path
    /// in its first line, for a program the dynamic linker. [`path`](SpawnError::path) is that of the program.
    #[must_use]
    pub fn interpreter(&self) -> Option<&Path> {
        match self.about()? {
            Subject::Interpreted(_, interpreter) => interpreter.as_deref(),
            Subject::Path(_)
            | Subject::File(..)
            | Subject::Stream(_)
            | Subject::Nowhere(_)
            | Subject::Value(_)
            | Subject::Setup(..) => None,
        }
    }

    /// The object of the step, as text: a path, an id, the name of a limit.
    #[must_use]
    pub fn subject(&self) -> Option<String> {
        Some(match self.about()? {
            Subject::Path(path) | Subject::File(path, _) | Subject::Nowhere(path) | Subject::Interpreted(path, _) => {
                path.display().to_string()
            }
            Subject::Stream(target) => Stream(*target).to_string(),
            Subject::Value(value) => value.clone(),
            Subject::Setup(_, object) => (*object).to_owned(),
        })
    }

    fn about(&self) -> Option<&Subject> {
        match &*self.cause {
            Cause::Kernel { subject, .. } => subject.as_ref(),
            Cause::Command(_) => None,
        }
    }

    /// The same error with this as its object.
    pub(crate) fn about_path(mut self, path: PathBuf) -> SpawnError {
        if let Cause::Kernel { subject, .. } = &mut *self.cause {
            *subject = Some(Subject::Path(path));
        }
        self
    }

    /// The program as the command names it.
    #[must_use]
    pub fn program(&self) -> &Path {
        Path::new(&self.program)
    }

    /// The fault of the command, if that is the reason of the failure ([`SpawnStep::Check`]).
    #[must_use]
    pub fn command_error(&self) -> Option<&CommandError> {
        match &*self.cause {
            Cause::Command(error) => Some(error),
            Cause::Kernel { .. } => None,
        }
    }

    /// Whether the same command can succeed a little later: the system had a shortage (processes, memory, descriptors),
    /// or the program was being written. `ENOMEM` at [`SpawnStep::Namespace`] is not transient: it is also the kernel's
    /// errno for a PID namespace after the end of its process 1.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match &*self.cause {
            Cause::Kernel {
                step: SpawnStep::Namespace,
                errno: libc::ENOMEM,
                ..
            } => false,
            Cause::Kernel { errno, .. } => matches!(
                *errno,
                libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ETXTBSY | libc::EINTR | libc::ENOSPC
            ),
            Cause::Command(_) => false,
        }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot start {:?}: ", self.program)?;
        match &*self.cause {
            Cause::Kernel { step, errno, subject } => {
                match subject {
                    None => step.fmt(f)?,
                    Some(setup @ Subject::Setup(..)) => setup.fmt(f)?,
                    Some(subject) => write!(f, "{step} {subject}")?,
                }
                write!(f, ": {}", Errno(*errno))
            }
            Cause::Command(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("SpawnError");
        debug.field("program", &self.program);
        match &*self.cause {
            Cause::Kernel { step, errno, subject } => debug
                .field("step", step)
                .field("errno", errno)
                .field("subject", subject),
            Cause::Command(error) => debug.field("error", error),
        };
        debug.finish()
    }
}

impl std::error::Error for SpawnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.command_error().map(|error| error as _)
    }
}

impl From<SpawnError> for io::Error {
    /// Has the kind of the errno, and the [`SpawnError`] inside ([`io::Error::get_ref`]).
    fn from(error: SpawnError) -> io::Error {
        io::Error::new(io::Error::from_raw_os_error(error.errno()).kind(), error)
    }
}

/// An errno as text, followed by its name if a spawn usually meets it.
struct Errno(i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ErrnoText(self.0).fmt(f)?;
        match NAMES.iter().find(|(errno, _)| *errno == self.0) {
            Some((_, name)) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

macro_rules! errno_names {
    ($($name:ident)*) => { &[$((libc::$name, stringify!($name)),)*] };
}

const NAMES: &[(i32, &str)] = errno_names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST
    ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS ENAMETOOLONG ENOSYS ELOOP
    EOVERFLOW ELIBBAD EOPNOTSUPP ETIMEDOUT ESTALE EDQUOT EXDEV ERANGE
};

/// Displays capabilities by their names.
struct Names(Capabilities);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bitflags::parser::to_writer(&self.0, f)
    }
}

/// The fault of a command. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The program's name is empty.
    #[error("the name of the program is empty")]
    EmptyProgram,
    /// The kernel cannot bind a child to the host ([`Lifetime::Bound`](crate::Lifetime::Bound)). The errno is EINVAL
    /// before Linux 7.1 (E2BIG before 5.7), ENOSYS or EPERM where a filter refuses clone3(2), and ENOSYS on
    /// architectures other than x86_64.
    #[error("the kernel cannot bind a child to its host (Linux 7.1 can): {}", ErrnoText(*.errno))]
    CannotBind {
        /// The kernel's reason.
        errno: i32,
    },
    /// A text that the kernel ends at the first NUL byte contains one.
    #[error("{what} {text:?} contains a NUL byte")]
    NulByte {
        /// The kind of text, for example `"an argument"`.
        what: &'static str,
        /// The text with its NUL byte.
        text: OsString,
    },
    /// The key of an environment variable is empty or contains `=`.
    #[error("the environment key {key:?} is empty or contains `=`")]
    EnvKey {
        /// The rejected key.
        key: OsString,
    },
    /// A umask with other bits than the nine permissions.
    #[error("the umask {mask:#o} is invalid: it can have the nine permission bits only")]
    Umask {
        /// The rejected mask.
        mask: u32,
    },
    /// A file mode with other bits than 0o7777.
    #[error("the file mode {mode:#o} is invalid: it can be 0o7777 at most")]
    FileMode {
        /// The rejected mode.
        mode: u32,
    },
    /// The user database has no such user.
    #[error("there is no user {name:?}")]
    NoSuchUser {
        /// The name of the user, or the uid as text ([`Command::login_env`](crate::Command::login_env)).
        name: String,
    },
    /// The user database could not be read.
    #[error("cannot look up user {name:?}: {}", Errno(*errno))]
    UserLookup {
        /// The name of the user.
        name: String,
        /// The errno of the look-up (errno(3)).
        errno: i32,
    },
    /// The group database has no such group.
    #[error("there is no group {name:?}")]
    NoSuchGroup {
        /// The name of the group.
        name: String,
    },
    /// The group database could not be read.
    #[error("cannot look up group {name:?}: {}", Errno(*errno))]
    GroupLookup {
        /// The name of the group.
        name: String,
        /// The errno of the look-up (errno(3)).
        errno: i32,
    },
    /// A uid or gid of -1, which the kernel takes as "no change".
    #[error("the {what} cannot be -1: the kernel takes -1 for no change")]
    NoId {
        /// `"uid"`, `"gid"` or `"supplementary group"`.
        what: &'static str,
    },
    /// More supplementary groups than the kernel accepts (65,536).
    #[error("{count} supplementary groups are too many: the kernel accepts 65536 at most")]
    TooManyGroups {
        /// The number of requested groups.
        count: usize,
    },
    /// A process group with a negative number.
    #[error("the process group cannot be {group}: it must not be negative")]
    ProcessGroup {
        /// The rejected number.
        group: i32,
    },
    /// The command requests a new session in an existing process group. A new session begins with a process group of
    /// its own.
    #[error("a new session cannot be in process group {group}: it begins with a process group of its own")]
    SessionInGroup {
        /// The requested process group.
        group: i32,
    },
    /// A descriptor number that is invalid: a passed descriptor has a number below 3, or the terminal is not a
    /// descriptor of the child.
    #[error(
        "descriptor {target} is invalid: a passed one has the number 3 or more, and a terminal is one of the child's"
    )]
    Target {
        /// The rejected number.
        target: RawFd,
    },
    /// Two descriptors are passed with the same number.
    #[error("a descriptor cannot be passed as number {target}: another one has this number")]
    DuplicateTarget {
        /// The number in the child.
        target: RawFd,
    },
    /// A descriptor is passed with a number that a stored descriptor can get
    /// ([`GroupSpec::descriptor_store`](crate::GroupSpec::descriptor_store)).
    #[error("a descriptor cannot be passed as number {target}: the number is kept free for stored descriptors")]
    StoreTarget {
        /// The number in the child.
        target: RawFd,
    },
    /// The name of a passed socket ([`Command::listen_fd_named`](super::Command::listen_fd_named)) is longer than 255
    /// bytes, or has a colon or another character than printable ASCII.
    #[error("a socket cannot have the name {name:?}: it must be printable ASCII without a colon, of at most 255 bytes")]
    DescriptorName {
        /// The rejected name.
        name: String,
    },
    /// A pipe to the child is the child's standard output or standard error, which the child writes to.
    #[error("a pipe to the child cannot be its {}: the child writes to that stream", Stream(*.target))]
    PipeDirection {
        /// The number of the stream: 1 or 2.
        target: RawFd,
    },
    /// Standard output is a copy of standard error, and standard error one of standard output.
    #[error("stdout and stderr cannot be copies of each other")]
    StreamCycle,
    /// A setting is out of the range that the kernel accepts.
    #[error("the {what} is out of range: {value}")]
    OutOfRange {
        /// The name of the setting, for example `"nice value"`.
        what: &'static str,
        /// The rejected value.
        value: i64,
    },
    /// Ambient or inheritable capabilities that are not in the bounding set of the same command.
    #[error("{what} capabilities are not in the bounding set: {}", Names(*.beyond))]
    BeyondBounding {
        /// `"ambient"` or `"inheritable"`.
        what: &'static str,
        /// The capabilities outside of the bounding set.
        beyond: Capabilities,
    },
    /// A descriptor for [`Command::setns`](crate::Command::setns) that is neither a namespace of this kind nor a pidfd.
    #[error("the descriptor is not one of a {kind}, and no pidfd")]
    NotANamespace {
        /// The kind of namespace that the command names.
        kind: Namespace,
    },
    /// A setting needs another one, which is missing or turned off.
    #[error("{what} needs {needs}")]
    Needs {
        /// The name of the setting.
        what: &'static str,
        /// The missing setting.
        needs: &'static str,
    },
}

stored!(enum SpawnStep {
    0 = Check,
    1 = Prepare,
    2 = Pipe,
    3 = Watch,
    4 = Clone,
    5 = Cgroup,
    6 = Unshare,
    7 = Open,
    8 = Descriptor,
    9 = CloseDescriptors,
    10 = Session,
    11 = ProcessGroup,
    12 = ControllingTerminal,
    13 = Foreground,
    14 = Nice,
    15 = Affinity,
    16 = OomScore,
    17 = Limit,
    18 = Umask,
    19 = Chroot,
    20 = Groups,
    21 = Gid,
    22 = Uid,
    23 = Capabilities,
    24 = CurrentDir,
    25 = NoNewPrivileges,
    26 = ParentDeathSignal,
    27 = SignalDisposition,
    28 = SignalMask,
    29 = Exec,
    30 = Scheduling,
    31 = IoPriority,
    32 = Namespace,
    33 = Mount,
});

/// An error of the caller, and the setup of a spawner, are stored as texts. A supervisor finds both before it starts
/// anything.
impl Stored for SpawnError {
    fn put(&self, to: &mut Writer<'_>) {
        self.program.put(to);
        self.step().put(to);
        self.errno().put(to);
        let text = |subject: &Subject| Some(Subject::Value(subject.to_string()));
        match &*self.cause {
            Cause::Kernel { subject, .. } => match subject {
                Some(setup @ Subject::Setup(..)) => text(setup).put(to),
                subject => subject.put(to),
            },
            Cause::Command(error) => Some(Subject::Value(error.to_string())).put(to),
        }
    }

    fn get(from: &mut Reader<'_>) -> Result<SpawnError, Damaged> {
        let (program, step) = (Stored::get(from)?, Stored::get(from)?);
        Ok(SpawnError::new(program, step, Stored::get(from)?, Stored::get(from)?))
    }
}

impl Stored for Subject {
    fn put(&self, to: &mut Writer<'_>) {
        match self {
            Subject::Path(path) => (0_u8, path.clone()).put(to),
            Subject::File(path, target) => ((1_u8, path.clone()), *target).put(to),
            Subject::Stream(target) => (2_u8, *target).put(to),
            Subject::Nowhere(path) => (3_u8, path.clone()).put(to),
            Subject::Interpreted(path, interpreter) => ((4_u8, path.clone()), interpreter.clone()).put(to),
            Subject::Value(value) => (5_u8, value.clone()).put(to),
            Subject::Setup(operation, object) => (5_u8, format!("{operation} {object}")).put(to),
        }
    }

    fn get(from: &mut Reader<'_>) -> Result<Subject, Damaged> {
        Ok(match u8::get(from)? {
            0 => Subject::Path(Stored::get(from)?),
            1 => Subject::File(Stored::get(from)?, Stored::get(from)?),
            2 => Subject::Stream(Stored::get(from)?),
            3 => Subject::Nowhere(Stored::get(from)?),
            4 => Subject::Interpreted(Stored::get(from)?, Stored::get(from)?),
            5 => Subject::Value(Stored::get(from)?),
            _ => return Err(Damaged),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::*;

    #[test]
    fn the_text_names_program_step_object_and_reason() {
        let path = Subject::Path("/no/such".into());
        let error = SpawnError::new("/no/such".into(), SpawnStep::Exec, libc::ENOENT, Some(path));
        let text = r#"cannot start "/no/such": execve "/no/such": No such file or directory (ENOENT)"#;
        assert_eq!(error.to_string(), text);
        let io = io::Error::from(error.clone());
        assert_eq!(io.kind(), io::ErrorKind::NotFound);
        assert_eq!(io.to_string(), text);
        assert_eq!(io.get_ref().and_then(|inner| inner.downcast_ref()), Some(&error));
        assert!(
            std::error::Error::source(&error).is_none(),
            "the errno has no other cause"
        );
        let refused = Command::new("").spawn().unwrap_err();
        let source = std::error::Error::source(&refused).and_then(|source| source.downcast_ref());
        assert_eq!(source, Some(&CommandError::EmptyProgram));
    }

    #[test]
    fn it_names_the_object_of_the_step() {
        let text = |step, errno, subject| SpawnError::new("web".into(), step, errno, Some(subject)).to_string();
        assert_eq!(
            text(
                SpawnStep::Open,
                libc::EACCES,
                Subject::File("/var/log/web.log".into(), 1)
            ),
            r#"cannot start "web": open "/var/log/web.log" for stdout: Permission denied (EACCES)"#
        );
        assert_eq!(
            text(SpawnStep::Pipe, libc::EMFILE, Subject::Stream(9)),
            r#"cannot start "web": make a pipe for descriptor 9: Too many open files (EMFILE)"#
        );
        // An errno that a spawn does not usually meet has its text alone.
        assert_eq!(
            text(SpawnStep::Exec, libc::ENOTCONN, Subject::Path("/mnt/web".into())),
            r#"cannot start "web": execve "/mnt/web": Transport endpoint is not connected"#
        );
    }

    #[test]
    fn a_command_error_is_displayed_with_its_own_text() {
        let error = SpawnError::refused("x".into(), CommandError::Umask { mask: 0o1000 });
        assert_eq!(
            error.to_string(),
            r#"cannot start "x": the umask 0o1000 is invalid: it can have the nine permission bits only"#
        );
        assert_eq!(
            (error.step(), error.errno(), error.is_transient()),
            (SpawnStep::Check, libc::EINVAL, false)
        );
    }

    #[test]
    fn a_shortage_is_transient_and_a_missing_file_is_not() {
        let error = |errno| SpawnError::new("x".into(), SpawnStep::Clone, errno, None);
        for errno in [
            libc::EAGAIN,
            libc::ENOMEM,
            libc::EMFILE,
            libc::ENFILE,
            libc::ETXTBSY,
            libc::EINTR,
        ] {
            assert!(error(errno).is_transient(), "{errno}");
        }
        for errno in [libc::ENOENT, libc::EACCES, libc::EPERM, libc::ENOEXEC, libc::ENOSYS] {
            assert!(!error(errno).is_transient(), "{errno}");
        }
    }
}
