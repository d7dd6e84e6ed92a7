//! The description of a group: a command, the number of instances, and the policy.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::context::CgroupPath;
use super::error::SpecError;
use super::place::OrderSpec;
use super::run_command::{MARK, RunCommand};
use crate::cgroup::{CgroupDir, Limits};
use crate::command::{Command, Lifetime, Program, Stdio};
use crate::lifecycle::{AutoShutdown, CrashBudget, Policy, Restart, Scope, Startup, StopLadder, Strategy};
use crate::notify::{MOST_STORED, NotifyAccess, NotifySocket, watchdog_usec};

/// The description of a group: `instances` processes of one command, under one policy.
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
/// Each instance leads a process group of its own unless its command says otherwise ([`Command::process_group`],
/// [`Command::inherit_process_group`]). A terminal sends the signals of Ctrl-C, Ctrl-\\ and Ctrl-Z, and SIGHUP when it
/// closes, to every process of its foreground process group. If the instances were in the host's group, Ctrl-C would
/// end them first, and they would be restarted while the host begins its shutdown. In groups of their own they get no
/// signal but the supervisor's, and a stop with [`Scope::ProcessGroup`] reaches what they started.
///
/// Two things follow. A process in a group of its own that reads from the terminal is stopped by SIGTTIN
/// (credentials(7)), so a command that reads from the terminal needs [`Command::inherit_process_group`]. If a signal of
/// the terminal ends the host before it drops its supervisor, the instances stay alive. Handle that signal
/// ([`Builder::signals`](crate::supervisor::Builder::signals)), or give the commands a parent-death signal.
#[derive(Clone)]
pub struct GroupSpec {
    pub(crate) name: Arc<str>,
    pub(crate) commands: Commands,
    pub(crate) instances: u32,
    pub(crate) policy: Policy,
    pub(crate) cgroup: Option<CgroupDir>,
    pub(crate) limits: Limits,
    pub(crate) notify: NotifySpec,
    pub(crate) order: OrderSpec,
    pub(crate) before: Option<RunCommand>,
    pub(crate) after: Option<RunCommand>,
    /// The commands that the ladders of its stops can run.
    pub(crate) stop_commands: Vec<Command>,
    /// What was set besides the policy and the limits as a whole.
    pub(super) own: OwnSettings,
}

/// Settings of a [`GroupSpec`] that hold whatever policy and limits it gets, before or after them.
#[derive(Clone, Default)]
pub(super) struct OwnSettings {
    restart: Option<Restart>,
    grace: Option<Duration>,
    stop: Option<StopLadder>,
    pub(super) shared_budget: Option<CrashBudget>,
    pub(super) strategy: Option<Strategy>,
    pub(super) auto_shutdown: Option<AutoShutdown>,
    /// Files of the cgroup: the name and the value of each.
    files: Vec<(OsString, Vec<u8>)>,
}

/// How instances can notify the supervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NotifySpec {
    /// A newline on this descriptor means ready; `None` for no such descriptor.
    pub(crate) ready_fd: Option<RawFd>,
    /// Whether the instances have the address of the supervisor's socket.
    pub(crate) socket: bool,
    /// The processes with messages that count.
    pub(crate) access: NotifyAccess,
    /// The largest number of descriptors that an instance may store.
    pub(crate) most_stored: u32,
}

impl NotifySpec {
    /// Whether any messages are accepted.
    pub(crate) fn accepts(&self) -> bool {
        self.socket && self.access != NotifyAccess::None
    }
}

/// One command for all instances, or one for each.
#[derive(Clone)]
pub(crate) enum Commands {
    Same(Box<Command>),
    Each(Arc<dyn Fn(u32) -> Command + Send + Sync>),
}

impl Commands {
    pub(crate) fn of(&self, number: u32) -> Command {
        match self {
            Commands::Same(command) => Command::clone(command),
            Commands::Each(make) => make(number),
        }
    }
}

impl GroupSpec {
    /// The largest number of instances of a group.
    pub const MOST_INSTANCES: u32 = 100_000;

    /// The largest number of descriptors that an instance can store: as many as one message can carry.
    pub const MOST_STORED_DESCRIPTORS: u32 = MOST_STORED;

    /// A group of one instance under the default [`Policy`]. The name is for display, for
    /// [`Supervisor::group_named`](crate::Supervisor::group_named), for the order of groups, for the names of cgroups, and
    /// for the next program after a hand-over or a crash. No two groups of a supervisor have the same name, except the
    /// empty one.
    ///
    /// ```
    /// use pidherd::supervisor::SpecError;
    /// use pidherd::{Command, Error, GroupSpec, Supervisor};
    ///
    /// let mut supervisor = Supervisor::new()?;
    /// supervisor.add(GroupSpec::new("web", Command::new("web")))?;
    /// let twice = supervisor.add(GroupSpec::new("web", Command::new("web")));
    /// assert!(matches!(twice, Err(Error::Spec(SpecError::NameTaken(name))) if name == "web"));
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn new(name: &str, command: Command) -> GroupSpec {
        GroupSpec {
            name: name.into(),
            commands: Commands::Same(Box::new(command)),
            instances: 1,
            policy: Policy::default(),
            cgroup: None,
            limits: Limits::default(),
            notify: NotifySpec::default(),
            order: OrderSpec::default(),
            before: None,
            after: None,
            stop_commands: Vec::new(),
            own: OwnSettings::default(),
        }
    }

    /// A group of instances with different commands. `make` gets the instance's number, from 0 up. It is called in the
    /// host's process when an instance is added, never in a child.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// // A port for each instance.
    /// let web = GroupSpec::with("web", |number| Command::new("/usr/bin/web").arg((8_000 + number).to_string()));
    /// assert!(web.command(2).get_args().eq(["8002"]));
    /// let mut supervisor = Supervisor::new()?;
    /// supervisor.add(web.instances(3))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with(name: &str, make: impl Fn(u32) -> Command + Send + Sync + 'static) -> GroupSpec {
        let commands = Commands::Each(Arc::new(make));
        GroupSpec {
            name: name.into(),
            commands,
            instances: 1,
            policy: Policy::default(),
            cgroup: None,
            limits: Limits::default(),
            notify: NotifySpec::default(),
            order: OrderSpec::default(),
            before: None,
            after: None,
            stop_commands: Vec::new(),
            own: OwnSettings::default(),
        }
    }

    /// The number of instances: 0 to [`GroupSpec::MOST_INSTANCES`], 1 by default.
    ///
    /// A group without instances keeps its description, its id and its place among the other groups, until it is
    /// [scaled](crate::Supervisor::scale) up or removed. Its command is checked as that of the instance with number 0.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// let mut supervisor = Supervisor::new()?;
    /// let web = supervisor.add(GroupSpec::new("web", Command::new("/usr/bin/web")).instances(3))?;
    /// let names = supervisor.instances().filter_map(|id| Some(supervisor.status(id)?.name.to_string()));
    /// assert!(names.eq(["web:0", "web:1", "web:2"]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn instances(mut self, instances: u32) -> GroupSpec {
        self.instances = instances;
        self
    }

    /// The policy of the group. What [`restart`](GroupSpec::restart), [`grace`](GroupSpec::grace) and
    /// [`stop`](GroupSpec::stop) set holds instead of the policy's value, before this call and after it.
    ///
    /// ```
    /// use pidherd::{Command, GroupSpec, Policy, Restart};
    ///
    /// let web = GroupSpec::new("web", Command::new("/usr/bin/web"))
    ///     .restart(Restart::Always)
    ///     .policy(Policy::new().jitter(20));
    /// ```
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> GroupSpec {
        self.policy = policy;
        self.policy.restart = self.own.restart.unwrap_or(self.policy.restart);
        self.policy.startup = self.own.grace.map_or(self.policy.startup, Startup::Grace);
        self.policy.shared_budget = self.own.shared_budget.or(self.policy.shared_budget);
        self.policy.strategy = self.own.strategy.unwrap_or(self.policy.strategy);
        self.policy.auto_shutdown = self.own.auto_shutdown.unwrap_or(self.policy.auto_shutdown);
        if let Some(ladder) = &self.own.stop {
            self.policy.stop.clone_from(ladder);
        }
        self
    }

    /// Gives each instance a pipe at this descriptor number. The process writes a newline to it when it is ready (the
    /// protocol of s6). With [`Startup::Notify`] the instance is running only from then on, and closing the pipe before
    /// the newline is a failed start.
    ///
    /// ```
    /// # use pidherd::lifecycle::StateName;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Startup, Supervisor};
    /// # use std::time::Duration;
    /// # use rustix::event::{PollFd, PollFlags, poll};
    /// let policy = Policy::new().startup(Startup::Notify { timeout: Duration::from_secs(30) });
    /// let web = Command::new("sh").args(["-c", "echo ready >&3; exec sleep 1000"]);
    /// let mut supervisor = Supervisor::new()?;
    /// let web = supervisor.add(GroupSpec::new("web", web).policy(policy).ready_fd(3))?;
    /// supervisor.start(web)?;
    /// let mut state = StateName::Stopped;
    /// while state != StateName::Running {
    ///     poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], None)?;
    ///     supervisor.dispatch()?;
    ///     while let Some(event) = supervisor.next_event() {
    ///         if let Event::Transition(step) = event {
    ///             state = step.to;
    ///         }
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn ready_fd(mut self, number: RawFd) -> GroupSpec {
        self.notify.ready_fd = Some(number);
        self
    }

    /// Sets `NOTIFY_SOCKET` for each instance to the address of the supervisor's socket (systemd's protocol,
    /// sd_notify(3)). With a [watchdog](Policy::watchdog) it also sets `WATCHDOG_USEC` to the watchdog's time:
    /// microseconds, at least 1. `WATCHDOG_USEC` is not set if the time exceeds 64 bits, as `Duration::MAX` does. The
    /// supervisor handles READY, STATUS, EXTEND_TIMEOUT_USEC and WATCHDOG, and tells the host of RELOADING, STOPPING, ERRNO
    /// and WATCHDOG_USEC ([`ProcessNotice`](crate::supervisor::ProcessNotice)). By default it accepts them from the process,
    /// from its descendants, and with a [`cgroup`](GroupSpec::cgroup) from every process in the cgroup, such as a daemon
    /// that is no longer a descendant ([`GroupSpec::notify_access`]). See [`notify`](crate::notify).
    ///
    /// Use it for trusted programs: with EXTEND_TIMEOUT_USEC a process can put off the next rung of its stop ladder by
    /// an hour, any number of times. [`kill`](crate::supervisor::Supervisor::kill) is not put off.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Policy, Startup, Supervisor};
    /// # use std::time::Duration;
    /// // A service of systemd's type `notify`, with `WatchdogSec=10`.
    /// let policy = Policy::new()
    ///     .startup(Startup::Notify { timeout: Duration::from_secs(90) })
    ///     .watchdog(Duration::from_secs(10));
    /// let web = GroupSpec::new("web", Command::new("/usr/sbin/nginx")).policy(policy).notify_socket(true);
    /// let mut supervisor = Supervisor::new()?;
    /// supervisor.add(web)?;
    /// assert!(supervisor.notify_counts().is_some_and(|counts| counts.received == 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn notify_socket(mut self, yes: bool) -> GroupSpec {
        self.notify.socket = yes;
        self
    }

    /// Sets which processes of a run can send messages that count (`NotifyAccess=` in systemd.service(5)):
    /// [`NotifyAccess::All`] by default. It has an effect only with [`GroupSpec::notify_socket`], and applies to each
    /// run from its start.
    ///
    /// ```
    /// use pidherd::notify::NotifyAccess;
    /// use pidherd::{Command, GroupSpec};
    ///
    /// // A shell script with tools that must not report anything:
    /// let web = GroupSpec::new("web", Command::new("/usr/bin/web.sh"))
    ///     .notify_socket(true)
    ///     .notify_access(NotifyAccess::Main);
    /// ```
    #[must_use]
    pub fn notify_access(mut self, access: NotifyAccess) -> GroupSpec {
        self.notify.access = access;
        self
    }

    /// Lets each instance store up to `max` descriptors for its next run, for example listening sockets, connections or
    /// memory files (`FileDescriptorStoreMax=` in systemd.service(5)). `max` is 0 to
    /// [`GroupSpec::MOST_STORED_DESCRIPTORS`]. The default is 0: every descriptor is refused. Another value includes
    /// [`notify_socket(true)`](GroupSpec::notify_socket), and the variable `FDSTORE` of each instance is `max`.
    ///
    /// A process that [counts](GroupSpec::notify_access) sends them with sd_pid_notify_with_fds(3):
    ///
    /// - `FDSTORE=1` stores the descriptors of the message under the name in `FDNAME=`, or `stored`. With `FDPOLL=0`
    ///   they are kept whatever happens to them. Otherwise a descriptor is removed when its other side is gone
    ///   (EPOLLHUP or EPOLLERR in epoll_ctl(2)). One that epoll does not support, such as a file or a memory file, is
    ///   kept.
    /// - `FDSTOREREMOVE=1` with `FDNAME=` removes and closes all descriptors of that name.
    ///
    /// A descriptor of an open file that is stored already is refused, whatever its name is. So is one with an invalid
    /// name; systemd would store it under another name. Each outcome is an
    /// [`Event::Notice`](crate::supervisor::Event::Notice). Every descriptor that is not stored is closed. A socket does
    /// not wait for its data then (SO_LINGER is switched off). A file on a network file system or in FUSE can make
    /// close(2) wait, so do not allow this to programs that are not trusted.
    ///
    /// The next run of the same instance gets all of them, after the descriptors of
    /// [`Command::listen_fd`](Command::listen_fd), in the order in which they were stored, by `LISTEN_FDS`,
    /// `LISTEN_FDNAMES` and `LISTEN_PID` (sd_listen_fds_with_names(3)). The numbers that they can get must not be used by
    /// [`Command::fd`] or [`GroupSpec::ready_fd`], otherwise adding the group is a
    /// [`CommandError::StoreTarget`](crate::CommandError::StoreTarget).
    ///
    /// They are kept over restarts, over the delays between them, and over
    /// [`Supervisor::hand_over`](crate::Supervisor::hand_over). They are released without an event when the instance
    /// comes to rest (as with `FileDescriptorStorePreserve=restart`): when it is stopped, when it is not restarted, when
    /// it is given up without a cool-off, or is removed. They are lost when the host is killed. A reload with another
    /// maximum applies from the next start, and removes none.
    ///
    /// ```
    /// use pidherd::{Command, GroupSpec};
    ///
    /// let web = GroupSpec::new("web", Command::new("/usr/bin/web")).descriptor_store(16);
    /// ```
    #[must_use]
    pub fn descriptor_store(mut self, max: u32) -> GroupSpec {
        self.notify.most_stored = max;
        self.notify.socket |= max > 0;
        self
    }

    /// Gives each instance a cgroup of its own in this directory, with the name `NAME-NUMBER`. The cgroup is made for a
    /// run and removed after it. Every process that is left in it is killed, including a process in a session of its
    /// own, which no other stop scope reaches. With [`Scope::Cgroup`] in the stop ladder, the run ends when the cgroup
    /// is empty. With another scope, its last processes may die, and the cgroup may be removed, after the end of the
    /// run.
    ///
    /// Each running instance needs one more descriptor. An existing cgroup of that name is taken over, and the
    /// processes in it are killed.
    ///
    /// ```
    /// # use pidherd::cgroup::CgroupDir;
    /// # use pidherd::{Command, GroupSpec, Scope, Signal, StopLadder, Supervisor};
    /// # use std::time::Duration;
    /// # let own = std::fs::read_to_string("/proc/self/cgroup")?;
    /// # let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    /// # let Ok(directory) = CgroupDir::open(format!("/sys/fs/cgroup{own}")) else { return Ok(()) };
    /// # let name = format!("pidherd-doc-{}", std::process::id());
    /// // A stop ends all descendants, also those in sessions of their own.
    /// let ladder = StopLadder::signal(Signal::TERM, Scope::Cgroup, Duration::from_secs(10));
    /// let mut supervisor = Supervisor::new()?;
    /// supervisor.add(GroupSpec::new("web", Command::new("/usr/bin/web")).cgroup(directory).stop(ladder))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn cgroup(mut self, directory: CgroupDir) -> GroupSpec {
        self.cgroup = Some(directory);
        self
    }

    /// Sets the limits of the [`cgroup`](GroupSpec::cgroup) of each run: memory, CPU time, the number of processes,
    /// input and output. They replace those of earlier calls, and not the files of [`cgroup_file`](GroupSpec::cgroup_file).
    /// By default there are none.
    ///
    /// The files are written after the cgroup is made and before the program executes its first instruction. With a
    /// limit of memory a spawn waits for the execve of the program, instead of being in flight meanwhile.
    ///
    /// [`Supervisor::add`](crate::supervisor::Supervisor::add),
    /// [`Supervisor::plan_reload`](crate::supervisor::Supervisor::plan_reload) and
    /// [`Supervisor::reload`](crate::supervisor::Supervisor::reload) check the limits before anything else happens.
    /// They enable the controllers that the limits need in the `cgroup.subtree_control` of the directory, and these
    /// stay enabled ([`CgroupDir::enable_controllers`]). They try to write every file in a cgroup called
    /// `pidherd-probe-PID-N`, and remove it at once. A [`SpecError::Cgroup`](crate::supervisor::SpecError) names a
    /// value out of range, a file that does not exist, a controller that is not delegated, or a value that the kernel
    /// refuses. If a file cannot be written later, the run is a failed start at the step
    /// [`SpawnStep::Cgroup`](crate::SpawnStep::Cgroup).
    ///
    /// A reload with other limits changes those of living runs in place, without a restart
    /// ([`Effect::InPlace`](crate::group::Effect::InPlace)). A limit that the new description does not have gets the
    /// kernel's default. The instances are restarted only if a file is dropped with a default that the library does not
    /// know. A child in flight gets the new limits when it has executed its program. If the kernel refuses a limit for
    /// a living run, it keeps the old one, and [`Event::LimitFailed`](crate::supervisor::Event::LimitFailed) reports
    /// it. A run that was taken over from another program keeps its limits until the next start or reload.
    ///
    /// ```no_run
    /// use pidherd::cgroup::{CgroupDir, Limits};
    /// use pidherd::{Command, GroupSpec};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let directory = CgroupDir::open("/sys/fs/cgroup/my-service")?;
    /// let worker = GroupSpec::new("worker", Command::new("/usr/bin/worker"))
    ///     .cgroup(directory)
    ///     .limits(Limits::new().memory_max(200 << 20).pids_max(50));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> GroupSpec {
        let files = self.own.files.iter();
        self.limits = files.fold(limits, |limits, (name, value)| limits.file(name, value));
        self
    }

    /// Adds a file to the [`limits`](GroupSpec::limits), by its name ([`Limits::file`]): a file of cgroups(7) that has
    /// no setter there. The value is written as it is.
    ///
    /// ```no_run
    /// use pidherd::cgroup::CgroupDir;
    /// use pidherd::{Command, GroupSpec};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let directory = CgroupDir::open("/sys/fs/cgroup/my-service")?;
    /// let worker = GroupSpec::new("worker", Command::new("/usr/bin/worker"))
    ///     .cgroup(directory)
    ///     .cgroup_file("memory.low", "50M")
    ///     .cgroup_file("memory.max", "200M");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn cgroup_file(mut self, name: impl AsRef<OsStr>, value: impl AsRef<[u8]>) -> GroupSpec {
        let (name, value) = (name.as_ref().to_owned(), value.as_ref().to_owned());
        self.limits = self.limits.file(&name, &value);
        self.own.files.push((name, value));
        self
    }

    /// Sets what becomes of the instances when the host's process ends without stopping them: the
    /// [lifetime](Command::lifetime) of each command.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Lifetime, Supervisor};
    /// let mut supervisor = Supervisor::new()?;
    /// let spec = GroupSpec::new("worker", Command::new("/usr/bin/worker")).lifetime(Lifetime::BoundOrSignal);
    /// assert_eq!(spec.command(0).get_lifetime(), Lifetime::BoundOrSignal);
    /// supervisor.add(spec)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn lifetime(mut self, lifetime: Lifetime) -> GroupSpec {
        self.commands = match self.commands {
            Commands::Same(command) => Commands::Same(Box::new(command.lifetime(lifetime))),
            Commands::Each(make) => Commands::Each(Arc::new(move |number| make(number).lifetime(lifetime))),
        };
        self
    }

    /// Sets [`Policy::restart`]: whether an instance that ran and ended by itself is started again.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Restart, Supervisor};
    /// let mut supervisor = Supervisor::new()?;
    /// let job = supervisor.add(GroupSpec::new("job", Command::new("true")).restart(Restart::Never))?;
    /// supervisor.start(job)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> GroupSpec {
        self.own.restart = Some(restart);
        self.policy.restart = restart;
        self
    }

    /// Sets [`Policy::startup`] to a grace: how long a process must live until its instance is running.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # use std::time::Duration;
    /// let mut supervisor = Supervisor::new()?;
    /// // Zero: it is running as soon as its program has been executed.
    /// let web = GroupSpec::new("web", Command::new("sleep").arg("1000")).grace(Duration::ZERO);
    /// let web = supervisor.add(web)?;
    /// supervisor.start(web)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> GroupSpec {
        self.own.grace = Some(grace);
        self.policy.startup = Startup::Grace(grace);
        self
    }

    /// Sets [`Policy::stop`]: how an instance is stopped.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Scope, Signal, StopLadder, Supervisor};
    /// # use std::time::Duration;
    /// let ladder = StopLadder::signal(Signal::QUIT, Scope::ProcessGroup, Duration::from_secs(30));
    /// let mut supervisor = Supervisor::new()?;
    /// supervisor.add(GroupSpec::new("nginx", Command::new("/usr/sbin/nginx")).stop(ladder))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn stop(mut self, ladder: StopLadder) -> GroupSpec {
        self.own.stop = Some(ladder.clone());
        self.policy.stop = ladder;
        self
    }

    /// The variable in the environment of a command [before](GroupSpec::before_run) or [after](GroupSpec::after_run) a run
    /// with the name of the group.
    pub const GROUP_VARIABLE: &str = super::run_command::GROUP_VARIABLE;

    /// The variable in the environment of a command [before](GroupSpec::before_run) or [after](GroupSpec::after_run) a run
    /// with the number of the instance, from 0 up.
    pub const INSTANCE_VARIABLE: &str = super::run_command::INSTANCE_VARIABLE;

    /// The policy with the limits of the commands around a run.
    pub(crate) fn policy_in_force(&self) -> Policy {
        Policy {
            before_run: self.before.as_ref().map(|before| before.limit),
            after_run: self.after.as_ref().map(|after| after.limit),
            ..self.policy.clone()
        }
    }

    /// The command of the instance with this number.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec};
    /// let spec = GroupSpec::with("web", |number| Command::new("/usr/bin/web").env("NUMBER", number.to_string()));
    /// println!("the first one runs {}", spec.command(0));
    /// assert!(spec.command(1) != spec.command(2));
    /// ```
    #[must_use]
    pub fn command(&self, number: u32) -> Command {
        self.commands.of(number)
    }

    /// Whether each instance has a program of its own.
    pub(crate) const fn has_one_each(&self) -> bool {
        matches!(self.commands, Commands::Each(_))
    }

    fn with_notify(&self, mut command: Command, socket: Option<&OsStr>, mark: Option<&OsStr>) -> Command {
        if let Some(mark) = mark {
            command = command.env(MARK, mark);
        }
        if let Some(number) = self.notify.ready_fd {
            command = command.fd(number, Stdio::piped());
        }
        if let (true, Some(address)) = (self.notify.socket, socket) {
            // A host that is itself under a watchdog has these variables in its environment, and they are not for its
            // children.
            command = command.env_remove("WATCHDOG_PID").env_remove("WATCHDOG_USEC");
            command = command.env(NotifySocket::VARIABLE, address);
            if self.notify.most_stored > 0 {
                command = command.env("FDSTORE", self.notify.most_stored.to_string());
                command = command.with_store(self.notify.most_stored);
            }
            if let Some(usec) = self.policy.watchdog.and_then(watchdog_usec) {
                command = command.env("WATCHDOG_USEC", usec.to_string());
            }
        }
        command
    }

    /// Checks the settings of the group as a whole.
    pub(crate) fn check(&self) -> Result<(), SpecError> {
        check_count(self.instances)?;
        if self.notify.most_stored > GroupSpec::MOST_STORED_DESCRIPTORS {
            return Err(SpecError::DescriptorStore(self.notify.most_stored));
        }
        self.policy_in_force().validate()?;
        if let Some(index) = self
            .policy
            .stop_commands()
            .find(|&index| usize::from(index) >= self.stop_commands.len())
        {
            return Err(SpecError::NoStopCommand { index });
        }
        if self.instances == 0 {
            // No instance needs a program yet. Without this check the first larger number would find the error.
            self.compile(0, None, None)?;
        }
        match &self.cgroup {
            None if self.policy.has_scope(Scope::Cgroup) => Err(SpecError::NoCgroup),
            None => match self.limits.first_name() {
                Some(file) => Err(SpecError::CgroupFile(file)),
                None => Ok(()),
            },
            Some(directory) => {
                let longest = CgroupPath::new(directory, &self.name, GroupSpec::MOST_INSTANCES);
                CgroupDir::check_name(&longest.name)?;
                self.limits.validate()?;
                Ok(directory.prepare(&self.limits.files())?)
            }
        }
    }

    /// The length of the longest text of an instance in the state file: the path of its cgroup, and the group's name.
    pub(crate) fn longest_text(&self) -> usize {
        let directory = self
            .cgroup
            .as_ref()
            .map_or(0, |directory| directory.path().as_os_str().len());
        directory + 2 * self.name.len() + 64
    }

    /// The program of one instance, checked against the policy. `socket` is the address of the supervisor's notify
    /// socket, if there is one, and `mark` proves after a crash of the host which supervisor a process belongs to.
    pub(crate) fn compile(
        &self,
        number: u32,
        socket: Option<&OsStr>,
        mark: Option<&OsStr>,
    ) -> Result<Program, SpecError> {
        let command = self.command(number).or_own_process_group();
        let command = self.with_notify(command, socket, mark);
        let program = command
            .compile()
            .map_err(|error| SpecError::Command { number, error })?;
        if self.policy.has_scope(Scope::ProcessGroup) && !command.leads_process_group() {
            return Err(SpecError::NoProcessGroup { number });
        }
        Ok(program)
    }
}

pub(crate) fn check_count(instances: u32) -> Result<(), SpecError> {
    match instances {
        0..=GroupSpec::MOST_INSTANCES => Ok(()),
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
            .field("limits", &self.limits)
            .field("order", &self.order)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Signal;

    fn spec() -> GroupSpec {
        GroupSpec::new("web", Command::new("true"))
    }

    #[test]
    fn a_process_is_told_only_of_what_its_group_has() {
        let told = |spec: GroupSpec| spec.with_notify(Command::new("x"), Some("@address".as_ref()), None);
        let with_socket = || {
            let command = Command::new("x").env_remove("WATCHDOG_PID").env_remove("WATCHDOG_USEC");
            command.env(NotifySocket::VARIABLE, "@address")
        };
        assert_eq!(told(spec()), Command::new("x"));
        assert_eq!(told(spec().notify_socket(true)), with_socket());
        let stores = told(spec().descriptor_store(3));
        assert_eq!(stores, with_socket().env("FDSTORE", "3").with_store(3));
        let policy = Policy::new().watchdog(Duration::from_millis(2));
        let watched = told(spec().policy(policy).notify_socket(true));
        assert_eq!(watched, with_socket().env("WATCHDOG_USEC", "2000"));
    }

    #[test]
    fn the_order_of_the_setters_does_not_matter() {
        let ladder = || StopLadder::signal(Signal::QUIT, Scope::Process, Duration::from_secs(3));
        let set = |spec: GroupSpec| spec.restart(Restart::Always).grace(Duration::ZERO).stop(ladder());
        let policy = Policy::new().jitter(20).restart(Restart::Never).start_retries(9);
        let (before, after) = (set(spec()).policy(policy.clone()), set(spec().policy(policy)));
        assert_eq!(before.policy, after.policy);
        assert_eq!((before.policy.jitter, before.policy.restart), (20, Restart::Always));
        let limits = || Limits::new().pids_max(5);
        let before = spec().cgroup_file("memory.low", "1G").limits(limits());
        let after = spec().limits(limits()).cgroup_file("memory.low", "1G");
        assert!(before.limits == after.limits && before.limits.files().len() == 2);
    }
}
