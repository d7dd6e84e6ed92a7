//! What the host hands in: a group, that is a command, how many of it, and the rules.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::error::SpecError;
use super::leaves::Home;
use crate::cgroup::{CgroupDir, CgroupFile};
use crate::command::{Command, Program, Stdio};
use crate::lifecycle::{Policy, Restart, Scope, Startup, StopLadder};
use crate::notify::{NotifySocket, watchdog_usec};

/// A group to be: `instances` processes of one command, under one policy.
///
/// ```
/// use pidherd::{Command, GroupSpec};
///
/// let web = GroupSpec::new("web", Command::new("/bin/sleep").arg("1000")).instances(3);
///
/// // Instances that differ in a number:
/// let workers = GroupSpec::with("worker", |number| {
///     Command::new("/usr/bin/worker").arg("--port").arg((8000 + number).to_string())
/// });
/// ```
///
/// # Process groups
///
/// Each instance leads a process group of its own unless its command says otherwise
/// ([`Command::process_group`], [`Command::inherit_process_group`]). A terminal sends the signals of Ctrl-C, Ctrl-\\ and
/// Ctrl-Z, and SIGHUP when it closes, to every process of its foreground process group. If the instances were in the
/// host's group, Ctrl-C would end them first, and they would be restarted while the host begins its shutdown. In groups of
/// their own they get no signal but the supervisor's, and a stop with [`Scope::ProcessGroup`] reaches what they started.
///
/// Two things follow. A process in a group of its own that reads from the terminal is stopped by SIGTTIN
/// (credentials(7)): a command that talks to the terminal says [`Command::inherit_process_group`]. And a host that a
/// terminal's signal ends before it drops its supervisor leaves its instances alive: handle the signal
/// ([`Builder::signals`](super::Builder::signals)), or give the commands a parent-death signal.
#[derive(Clone)]
pub struct GroupSpec {
    pub(super) name: Arc<str>,
    pub(super) commands: Commands,
    pub(super) instances: u32,
    pub(super) policy: Policy,
    pub(super) cgroup: Option<CgroupDir>,
    pub(super) cgroup_files: Vec<CgroupFile>,
    pub(super) voice: Voice,
}

/// How instances can say something about themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Voice {
    /// By a newline to this descriptor.
    pub(super) ready_fd: Option<RawFd>,
    /// By messages to the supervisor's socket.
    pub(super) socket: bool,
}

/// One command for all instances, or one for each.
#[derive(Clone)]
pub(super) enum Commands {
    Same(Box<Command>),
    Each(Arc<dyn Fn(u32) -> Command + Send + Sync>),
}

impl Commands {
    pub(super) fn of(&self, number: u32) -> Command {
        match self {
            Commands::Same(command) => Command::clone(command),
            Commands::Each(make) => make(number),
        }
    }
}

impl GroupSpec {
    /// The most instances a group can have.
    pub const MOST_INSTANCES: u32 = 100_000;

    /// A group of one instance under the default [`Policy`]. The name is for showing.
    #[must_use]
    pub fn new(name: &str, command: Command) -> GroupSpec {
        GroupSpec {
            name: name.into(),
            commands: Commands::Same(Box::new(command)),
            instances: 1,
            policy: Policy::default(),
            cgroup: None,
            cgroup_files: Vec::new(),
            voice: Voice::default(),
        }
    }

    /// A group whose instances run different commands: `make` gets the instance's number, from 0
    /// up. It is called in the host's process when an instance is made, never in a child.
    #[must_use]
    pub fn with(name: &str, make: impl Fn(u32) -> Command + Send + Sync + 'static) -> GroupSpec {
        let commands = Commands::Each(Arc::new(make));
        GroupSpec {
            name: name.into(),
            commands,
            instances: 1,
            policy: Policy::default(),
            cgroup: None,
            cgroup_files: Vec::new(),
            voice: Voice::default(),
        }
    }

    /// How many instances: 1 to [`GroupSpec::MOST_INSTANCES`].
    #[must_use]
    pub fn instances(mut self, instances: u32) -> GroupSpec {
        self.instances = instances;
        self
    }

    /// The rules they are supervised by, all of them: also what [`restart`](GroupSpec::restart),
    /// [`grace`](GroupSpec::grace) and [`stop`](GroupSpec::stop) said before.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> GroupSpec {
        self.policy = policy;
        self
    }

    /// Gives each instance a pipe at this descriptor number: it writes a newline there when it is ready (s6's
    /// protocol). With [`Startup::Notify`] it counts as running only then; closing the pipe before is
    /// a failed start.
    #[must_use]
    pub fn ready_fd(mut self, number: RawFd) -> GroupSpec {
        self.voice.ready_fd = Some(number);
        self
    }

    /// Tells each instance the supervisor's socket in `NOTIFY_SOCKET` (systemd's protocol, sd_notify(3)), and with a
    /// [watchdog](Policy::watchdog) its time in `WATCHDOG_USEC`: microseconds, at least one; not set if there are more
    /// of them than 64 bits hold, as of `Duration::MAX`. Heard are READY, STATUS, EXTEND_TIMEOUT_USEC and WATCHDOG, from
    /// the process itself, its descendants, and with a [`cgroup`](GroupSpec::cgroup) what lives in that: a
    /// daemon that is no descendant any more; see [`notify`](crate::notify).
    ///
    /// It is for programs that are trusted: with EXTEND_TIMEOUT_USEC, an hour at a time and as often as they
    /// like, they put off the next rung of their stop ladder. [`kill`](super::Supervisor::kill) does not listen.
    #[must_use]
    pub fn notify_socket(mut self, yes: bool) -> GroupSpec {
        self.voice.socket = yes;
        self
    }

    /// Gives each instance a cgroup of its own in this directory, called `NAME-NUMBER`. It is made for a run
    /// and removed after it, and whatever the process leaves behind in it is killed: also what started a
    /// session of its own, which no other scope of a stop reaches. With [`Scope::Cgroup`] in the stop ladder the
    /// run is over when it is empty; with another scope its last inhabitants may die, and it be removed,
    /// after the end of the run.
    ///
    /// One descriptor more is kept for each running instance. A cgroup of that name that is there
    /// already is taken over, and what lives in it is killed.
    #[must_use]
    pub fn cgroup(mut self, directory: CgroupDir) -> GroupSpec {
        self.cgroup = Some(directory);
        self
    }

    /// Writes `value` into the file `name` of the [`cgroup`](GroupSpec::cgroup) of each run, after it is made and before the
    /// program starts: a limit such as `memory.max`, `cpu.max` or `pids.max`, or any other file of cgroups(7). Files are
    /// written in the order of these calls; the same one can be written several times (`io.max`, a line for each device).
    ///
    /// The file's controller must be enabled for the cgroups in the directory, in its `cgroup.subtree_control`. Whether
    /// all can be written is found out when the group is added or reloaded, in a cgroup called `pidherd-probe-PID-N` that
    /// is made for that and removed at once: a [`SpecError`](super::SpecError) tells of a file that does not exist, a
    /// controller that is not enabled, or a value that the kernel refuses. A run whose cgroup takes them no longer is a
    /// failed start, at the step [`Step::Cgroup`](crate::Step::Cgroup). A reload with other files restarts the instances.
    ///
    /// Refused are files that are no limits: `cgroup.procs`, `cgroup.threads`, `cgroup.kill`, `cgroup.freeze`,
    /// `cgroup.type` and `cgroup.subtree_control`.
    ///
    /// ```no_run
    /// use pidherd::cgroup::CgroupDir;
    /// use pidherd::{Command, GroupSpec};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let directory = CgroupDir::open("/sys/fs/cgroup/my-service")?;
    /// let worker = GroupSpec::new("worker", Command::new("/usr/bin/worker"))
    ///     .cgroup(directory)
    ///     .cgroup_file("memory.max", "200M")
    ///     .cgroup_file("pids.max", "50");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn cgroup_file(mut self, name: impl AsRef<OsStr>, value: impl AsRef<[u8]>) -> GroupSpec {
        self.cgroup_files.push(CgroupFile {
            name: name.as_ref().to_owned(),
            value: value.as_ref().to_owned(),
        });
        self
    }

    /// Whether an instance that ran and ended by itself is started again: this much of the policy.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> GroupSpec {
        self.policy.restart = restart;
        self
    }

    /// How long an instance must live to count as running: this much of the policy.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> GroupSpec {
        self.policy.startup = Startup::Grace(grace);
        self
    }

    /// How an instance is stopped: this much of the policy.
    #[must_use]
    pub fn stop(mut self, ladder: StopLadder) -> GroupSpec {
        self.policy.stop = ladder;
        self
    }

    /// The command of the instance with this number.
    #[must_use]
    pub fn command(&self, number: u32) -> Command {
        self.commands.of(number)
    }

    /// Whether its instances have a program each.
    pub(super) const fn has_one_each(&self) -> bool {
        matches!(self.commands, Commands::Each(_))
    }

    fn with_voice(&self, mut command: Command, socket: Option<&OsStr>) -> Command {
        if let Some(number) = self.voice.ready_fd {
            command = command.fd(number, Stdio::piped());
        }
        if let (true, Some(address)) = (self.voice.socket, socket) {
            // A host that is watched itself has these for itself.
            command = command.env_remove("WATCHDOG_PID").env_remove("WATCHDOG_USEC");
            command = command.env(NotifySocket::VARIABLE, address);
            if let Some(usec) = self.policy.watchdog.and_then(watchdog_usec) {
                command = command.env("WATCHDOG_USEC", usec.to_string());
            }
        }
        command
    }

    /// What concerns the group as a whole.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        check_count(self.instances)?;
        self.policy.validate()?;
        match &self.cgroup {
            None if self.policy.stop.has(Scope::Cgroup) => Err(SpecError::NoCgroup),
            None => match self.cgroup_files.first() {
                Some(file) => Err(SpecError::CgroupFile(file.name.to_string_lossy().into_owned())),
                None => Ok(()),
            },
            Some(directory) => {
                let longest = Home::new(directory, &self.name, GroupSpec::MOST_INSTANCES);
                CgroupDir::check_name(&longest.name)?;
                Ok(directory.try_files(&self.cgroup_files)?)
            }
        }
    }

    /// The program of one instance, checked against the policy.
    ///
    /// `socket` is the address of the supervisor's, if there is one.
    pub(super) fn compile(&self, number: u32, socket: Option<&OsStr>) -> Result<Program, SpecError> {
        let command = self.command(number).or_own_process_group();
        let command = self.with_voice(command, socket);
        let program = command
            .compile()
            .map_err(|error| SpecError::Command { number, error })?;
        if self.policy.stop.has(Scope::ProcessGroup) && !command.leads_process_group() {
            return Err(SpecError::NoProcessGroup { number });
        }
        Ok(program)
    }
}

pub(super) fn check_count(instances: u32) -> Result<(), SpecError> {
    match instances {
        0 => Err(SpecError::NoInstances),
        1..=GroupSpec::MOST_INSTANCES => Ok(()),
        too_many => Err(SpecError::TooManyInstances(too_many)),
    }
}

impl fmt::Debug for GroupSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupSpec")
            .field("name", &self.name)
            .field("command", &self.command(0))
            .field("instances", &self.instances)
            .field("policy", &self.policy)
            .finish()
    }
}
