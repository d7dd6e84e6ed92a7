//! What to run, and with what around it.
//!
//! A [`Command`] is a description: plain data that can be cloned and compared (a reload wants to know what
//! changed). [`Command::compile`] checks it and lowers it to a [`Program`], the list of system calls
//! that a child is to make; a [`Spawner`] runs that, as often as wanted. Everything is declared: no closure of the
//! host runs in the child, since nothing could check that it leaves the host's memory alone.

mod capability;
mod compare;
mod env;
pub mod error;
mod identity;
mod lower;
mod memory;
mod plan;
mod program;
mod settings;
mod slots;
mod spawner;
mod stdio;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

pub use capability::Capabilities;
pub use error::{CommandError, SpawnError, Step};
pub use program::Program;
pub use settings::Resource;
pub use spawner::{SpawnProgress, Spawner, Spawning};
pub use stdio::{OpenFile, Stdio};

use crate::child::Child;
use crate::signal::SignalSet;
use env::Environment;
use error::Subject;
use identity::Identity;
use settings::Settings;

/// A program, its arguments, and everything that is to be set before it runs. The names are those of
/// [`std::process::Command`] where that has them.
///
/// A child starts clean, whatever the host looks like: default actions for all signals, no signal
/// blocked, no descriptor open but the declared ones.
///
/// ```
/// use pidherd::{Command, Stdio};
///
/// let mut child = Command::new("cat").stdin(Stdio::null()).umask(0o027).spawn()?;
/// assert!(child.wait()?.exit.success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    program: OsString,
    arg0: Option<OsString>,
    args: Vec<OsString>,
    env: Environment,
    stdio: [Stdio; 3],
    passed: Vec<Passed>,
    current_dir: Option<PathBuf>,
    chroot: Option<PathBuf>,
    umask: Option<u32>,
    identity: Identity,
    setsid: Option<bool>,
    process_group: Option<ProcessGroup>,
    no_new_privileges: Option<bool>,
    signal_mask: SignalSet,
    ignored_signals: SignalSet,
    settings: Settings,
}

/// What a command says about its process group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProcessGroup {
    /// The host's.
    Inherited,
    /// The one with this number; 0 for one of its own.
    Number(i32),
}

/// A descriptor beyond the standard streams.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Passed {
    target: RawFd,
    stdio: Stdio,
}

impl Command {
    /// To run `program`.
    ///
    /// *With a slash in it* it is a path, looked up by the child: inside its root directory, as the user that it runs
    /// as, and, if it is relative, in its working directory. So a relative program with [`Command::current_dir`] is
    /// looked for in the new directory, as the standard library and posix_spawn(3) do.
    ///
    /// *Without a slash* it is searched in the directories of the `PATH` that the child will have (in `/bin:/usr/bin`
    /// if it has none), at each spawn anew, as execvp(3) does: an empty name in `PATH`, also that of an empty `PATH`, is
    /// the working directory of the child. A directory that cannot be searched is passed over, whatever the reason. The
    /// search ends at the first file that can be executed, and at one that is found and can't run (`ENOEXEC`,
    /// `ETXTBSY`, `E2BIG`); a script or a program whose interpreter is missing is passed over.
    ///
    /// A host that runs with privileges names its programs by absolute paths.
    pub fn new(program: impl AsRef<OsStr>) -> Command {
        Command {
            program: program.as_ref().to_owned(),
            arg0: None,
            args: Vec::new(),
            env: Environment::default(),
            stdio: [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()],
            passed: Vec::new(),
            current_dir: None,
            chroot: None,
            umask: None,
            identity: Identity::default(),
            setsid: None,
            process_group: None,
            no_new_privileges: None,
            signal_mask: SignalSet::EMPTY,
            ignored_signals: SignalSet::EMPTY,
            settings: Settings::default(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Command {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I>(mut self, args: I) -> Command
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// What the program sees as its own name (`argv[0]`) instead of what was given to [`Command::new`].
    #[must_use]
    pub fn arg0(mut self, arg0: impl AsRef<OsStr>) -> Command {
        self.arg0 = Some(arg0.as_ref().to_owned());
        self
    }

    /// Sets a variable of the child's environment. What is not said is taken from the host's
    /// environment when the command is compiled; but for what a service manager has told the host of itself
    /// (`NOTIFY_SOCKET`, `WATCHDOG_*`, `LISTEN_*`), which is not inherited, and for what follows from other settings:
    /// [`Command::user`] brings `USER`, `LOGNAME`, `HOME` and `SHELL`, [`Command::current_dir`] and [`Command::chroot`]
    /// bring `PWD`. What this method or [`Command::env_remove`] says of a variable goes before all that, in whatever
    /// order they are called.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Command {
        self.env.set(key.as_ref(), value.as_ref());
        self
    }

    /// Sets variables of the child's environment.
    #[must_use]
    pub fn envs<I, K, V>(mut self, variables: I) -> Command
    where
        I: IntoIterator<Item = (K, V)>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        for (key, value) in variables {
            self.env.set(key.as_ref(), value.as_ref());
        }
        self
    }

    /// Keeps a variable from the child.
    #[must_use]
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Command {
        self.env.remove(key.as_ref());
        self
    }

    /// Nothing of the host's environment, nothing that follows from other settings, and nothing that was set before this
    /// call.
    #[must_use]
    pub fn env_clear(mut self) -> Command {
        self.env.clear();
        self
    }

    /// The child's working directory, entered as the user that it runs as, and inside its root directory.
    /// Without: the host's, or `/` with [`Command::chroot`]. A relative program is looked for in it (see
    /// [`Command::new`]); relative paths of [`OpenFile`] are not: those are the host's.
    ///
    /// `PWD` becomes this path if it is absolute (or relative to `/`, with [`Command::chroot`]) and without `.` and
    /// `..`; else the child has no `PWD`, since that of the host would be wrong. See [`Command::env`].
    #[must_use]
    pub fn current_dir(mut self, path: impl AsRef<Path>) -> Command {
        self.current_dir = Some(path.as_ref().to_owned());
        self
    }

    /// The child's root directory (chroot(2)); needs CAP_SYS_CHROOT.
    #[must_use]
    pub fn chroot(mut self, path: impl AsRef<Path>) -> Command {
        self.chroot = Some(path.as_ref().to_owned());
        self
    }

    /// Standard input; inherited if not said.
    #[must_use]
    pub fn stdin(mut self, stdio: impl Into<Stdio>) -> Command {
        self.stdio[0] = stdio.into();
        self
    }

    /// Standard output; inherited if not said.
    #[must_use]
    pub fn stdout(mut self, stdio: impl Into<Stdio>) -> Command {
        self.stdio[1] = stdio.into();
        self
    }

    /// Standard error; inherited if not said.
    #[must_use]
    pub fn stderr(mut self, stdio: impl Into<Stdio>) -> Command {
        self.stdio[2] = stdio.into();
        self
    }

    /// A further descriptor: `stdio` as number `target` (3 and up) of the child.
    #[must_use]
    pub fn fd(mut self, target: RawFd, stdio: impl Into<Stdio>) -> Command {
        self.passed.push(Passed {
            target,
            stdio: stdio.into(),
        });
        self
    }

    /// The file mode creation mask (umask(2)); the host's if not said.
    #[must_use]
    pub fn umask(mut self, mask: u32) -> Command {
        self.umask = Some(mask);
        self
    }

    /// Runs as this user: uid, primary group and all supplementary groups are those of the user
    /// database (getpwnam(3), getgrouplist(3)) at the time of [`Command::compile`]. [`Command::uid`],
    /// [`Command::gid`] and [`Command::groups`] replace a part of it.
    ///
    /// The child's `USER`, `LOGNAME`, `HOME` and `SHELL` are those of this user too, as for a service of systemd
    /// with `User=`, unless the command says something else of them (see [`Command::env`]). [`Command::uid`] alone
    /// leaves them as they are in the host.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>) -> Command {
        self.identity.user = Some(name.into());
        self
    }

    /// The real, effective and saved user id.
    ///
    /// Supplementary groups are never inherited across a change of ids: without [`Command::groups`] and
    /// [`Command::user`] the list becomes the primary group alone. The gid stays the host's if none is said.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Command {
        self.identity.uid = Some(uid);
        self
    }

    /// The real, effective and saved group id. Supplementary groups as for [`Command::uid`].
    #[must_use]
    pub fn gid(mut self, gid: u32) -> Command {
        self.identity.gid = Some(gid);
        self
    }

    /// The supplementary groups, exactly these.
    #[must_use]
    pub fn groups(mut self, groups: &[u32]) -> Command {
        self.identity.groups = Some(groups.to_owned());
        self
    }

    /// A session of the child's own (setsid(2)), without a controlling terminal. If nothing is
    /// said: when it runs as another, unprivileged user, and neither the host's process group nor another one is asked for;
    /// else it could type into the host's terminal (TIOCSTI).
    #[must_use]
    pub fn setsid(mut self, setsid: bool) -> Command {
        self.setsid = Some(setsid);
        self
    }

    /// The process group to join (setpgid(2)), by its number in the PID namespace of the child; 0 for one of its own.
    ///
    /// If nothing is said, [`Command::spawn`] and [`Spawner::spawn`] leave the child in the host's process group, and a
    /// [`Supervisor`](crate::Supervisor) gives it one of its own ([why](crate::GroupSpec#process-groups)).
    #[must_use]
    pub fn process_group(mut self, group: i32) -> Command {
        self.process_group = Some(ProcessGroup::Number(group));
        self
    }

    /// The host's process group, also under a [`Supervisor`](crate::Supervisor): for a program that is to get the signals
    /// of the host's terminal, or that reads from the terminal while the host is in the foreground.
    #[must_use]
    pub fn inherit_process_group(mut self) -> Command {
        self.process_group = Some(ProcessGroup::Inherited);
        self
    }

    /// Whether execve may give privileges (set-user-id programs, file capabilities) that the child
    /// hasn't (PR_SET_NO_NEW_PRIVS). If nothing is said: no new ones when it runs as another, unprivileged user.
    #[must_use]
    pub fn no_new_privileges(mut self, yes: bool) -> Command {
        self.no_new_privileges = Some(yes);
        self
    }

    /// The signals that are blocked when the program begins; none if not said.
    #[must_use]
    pub fn signal_mask(mut self, blocked: SignalSet) -> Command {
        self.signal_mask = blocked;
        self
    }

    /// The signals that are ignored when the program begins, whatever the host ignores; none if not said.
    #[must_use]
    pub fn ignored_signals(mut self, ignored: SignalSet) -> Command {
        self.ignored_signals = ignored;
        self
    }

    /// The program as given to [`Command::new`].
    #[must_use]
    pub fn get_program(&self) -> &OsStr {
        &self.program
    }

    /// The arguments, without `argv[0]`.
    pub fn get_args(&self) -> impl Iterator<Item = &OsStr> {
        self.args.iter().map(OsString::as_os_str)
    }

    /// Checks everything that can be checked without starting anything, looks up the user, takes the
    /// host's environment, and lowers it all to the system calls of a child.
    ///
    /// Blocks for as long as a look-up in the user database does, if one is needed.
    ///
    /// # Errors
    /// What is wrong with the command.
    pub fn compile(&self) -> Result<Program, CommandError> {
        Program::new(self)
    }

    /// Compiles and starts it, with a [`Spawner`] for this once. Who starts more than a few processes keeps both.
    ///
    /// Blocks as [`Spawner::spawn`] does.
    ///
    /// # Errors
    /// As [`Command::compile`] and [`Spawner::spawn`].
    pub fn spawn(&self) -> Result<Child, SpawnError> {
        let refused = |error| SpawnError::refused(self.program.clone(), error);
        let program = self.compile().map_err(refused)?;
        let mut spawner = Spawner::set_up().map_err(|error| {
            let (operation, object) = error.subject();
            let subject = Subject::Setup(operation, object);
            SpawnError::new(self.program.clone(), Step::Prepare, error.errno(), Some(subject))
        })?;
        spawner.spawn(&program)
    }
}
