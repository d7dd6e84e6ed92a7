//! The description of a group: a command, the number of instances, and the policy.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::context::CgroupPath;
use super::error::SpecError;
use super::place::{GroupRef, OrderSpec};
use super::run_command::{MARK, RunCommand};
use crate::cgroup::{CgroupDir, Limits};
use crate::command::{Command, Lifetime, Program, Stdio};
use crate::lifecycle::{Policy, Restart, Scope, Startup, StopLadder};
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
    /// What was set besides the policy and the limits as a whole.
    pub(super) own: OwnSettings,
}

/// Settings of a [`GroupSpec`] that hold whatever policy and limits it gets, before or after them.
#[derive(Clone, Default)]
pub(super) struct OwnSettings {
    restart: Option<Restart>,
    grace: Option<Duration>,
    stop: Option<StopLadder>,
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
            own: OwnSettings::default(),
        }
    }

    /// A group of instances with different commands. `make` gets the instance's number, from 0 up. It is called in the
    /// host's process when an instance is added, never in a child.
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
            own: OwnSettings::default(),
        }
    }

    /// The number of instances: 0 to [`GroupSpec::MOST_INSTANCES`], 1 by default.
    ///
    /// A group without instances keeps its description, its id and its place among the other groups, until it is
    /// [scaled](crate::Supervisor::scale) up or removed. Its command is checked as that of the instance with number 0.
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
        if let Some(ladder) = &self.own.stop {
            self.policy.stop.clone_from(ladder);
        }
        self
    }

    /// Gives each instance a pipe at this descriptor number. The process writes a newline to it when it is ready (the
    /// protocol of s6). With [`Startup::Notify`] the instance is running only from then on, and closing the pipe before
    /// the newline is a failed start.
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
    /// // A shell script whose tools must not report anything:
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
    #[must_use]
    pub fn lifetime(mut self, lifetime: Lifetime) -> GroupSpec {
        self.commands = match self.commands {
            Commands::Same(command) => Commands::Same(Box::new(command.lifetime(lifetime))),
            Commands::Each(make) => Commands::Each(Arc::new(move |number| make(number).lifetime(lifetime))),
        };
        self
    }

    /// Sets [`Policy::restart`]: whether an instance that ran and ended by itself is started again.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> GroupSpec {
        self.own.restart = Some(restart);
        self.policy.restart = restart;
        self
    }

    /// Sets [`Policy::startup`] to a grace: how long a process must live until its instance is running.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> GroupSpec {
        self.own.grace = Some(grace);
        self.policy.startup = Startup::Grace(grace);
        self
    }

    /// Sets [`Policy::stop`]: how an instance is stopped.
    #[must_use]
    pub fn stop(mut self, ladder: StopLadder) -> GroupSpec {
        self.own.stop = Some(ladder.clone());
        self.policy.stop = ladder;
        self
    }

    /// Starts the instances after those of another group, and stops them before. Each call adds a group.
    ///
    /// The order holds between requests of the host, and changes nothing about what is started or stopped:
    ///
    /// - The start of an instance waits while an instance of the other group is on its way up or down: until each is
    ///   running, a job that is done, stopped, or given up. If the other group is down and stays down, nothing waits.
    ///   [`Startup::Completes`] makes a group of jobs that are waited for until they are done.
    /// - The stop of an instance of the other group waits while an instance of this group is being stopped, until its
    ///   process has ended. A process that not even SIGKILL ends is not waited for.
    ///
    /// This is true for all instances together ([`Target::All`](crate::Target)), a group, or one instance, for a
    /// [shutdown](crate::Supervisor::shutdown), a scaling, and the removal of a group. All that need not wait for each
    /// other are started and stopped at the same time. What does not wait: a restart by the policy, the restart of an
    /// instance that is up (so a restart of the other group restarts nothing of this one), and a
    /// [kill](crate::Supervisor::kill).
    ///
    /// A start that waits is reported ([`Event::StartWaits`](crate::supervisor::Event::StartWaits)), and visible in the
    /// [status](crate::supervisor::Status::waits_for). A stop withdraws it.
    ///
    /// The group is given by its id, or by its name if it is the only one of that name. A group that does not exist or
    /// is being removed, the group itself, and a cycle are errors of [`add`](crate::Supervisor::add) and
    /// [`reload`](crate::Supervisor::reload). When the other group is removed, the order ends. A host that takes over
    /// the groups of another program describes the order again by names; a description without any order keeps the
    /// one that its group has. It is systemd's `After=`.
    ///
    /// ```
    /// use pidherd::lifecycle::{Policy, Startup};
    /// use pidherd::{Command, GroupSpec, Supervisor, Target};
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut supervisor = Supervisor::new()?;
    /// let mut migration = GroupSpec::new("migration", Command::new("true"));
    /// let timeout = Duration::from_secs(60);
    /// migration = migration.policy(Policy::new().startup(Startup::Completes { timeout }));
    /// let migration = supervisor.add(migration)?;
    /// let web = GroupSpec::new("web", Command::new("sleep").arg("1000")).after(migration);
    /// let web = supervisor.add(web)?;
    ///
    /// supervisor.start(Target::All)?;
    /// let instance = supervisor.group(web).unwrap().instances[0];
    /// assert_eq!(supervisor.status(instance).unwrap().waits_for, [migration]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn after(mut self, group: impl Into<GroupRef>) -> GroupSpec {
        self.order.after.push(group.into());
        self
    }

    /// Starts the instances only when another group is running, and stops them before it. Each call adds a group.
    ///
    /// It is an order as that of [`after`](GroupSpec::after), with these differences:
    ///
    /// - The start of an instance waits until at least one instance of the other group is running (or is a job that is
    ///   done) and none is on its way up or down. If the other group is down, the start waits until it is started: it
    ///   does not start it.
    /// - If an instance of the other group fails (it is `Fatal`, or has ended unexpectedly and is not restarted), if the
    ///   other group is stopped, or if its own start is withdrawn for such a reason, the start that waits is withdrawn.
    ///   [`Event::StartWithdrawn`](crate::supervisor::Event::StartWithdrawn) reports it with the cause.
    /// - A [stop](crate::Supervisor::stop) of the other group stops this group first, and those that require this group
    ///   before it. They stay down until they are started. The cause of their transitions is
    ///   [`Cause::RequirementStopped`](crate::lifecycle::Cause::RequirementStopped).
    /// - A group with 0 [instances](GroupSpec::instances) is down, whether it is wanted up or not. Scaling it to 0 is not
    ///   a stop of it: this group is not stopped, and a start that waits goes on to wait until it is scaled up and running.
    /// - While this group is not being removed, the other one cannot be removed
    ///   ([`Error::Required`](crate::supervisor::Error::Required)).
    ///
    /// As with systemd's `Requires=`, an end of the other group that the host did not request does not stop this group,
    /// and neither does the stop of one of its instances.
    ///
    /// ```
    /// use pidherd::lifecycle::StateName;
    /// use pidherd::{Command, GroupSpec, Supervisor, Target};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut supervisor = Supervisor::new()?;
    /// let sleeper = || Command::new("sleep").arg("1000");
    /// let database = supervisor.add(GroupSpec::new("database", sleeper()))?;
    /// let web = supervisor.add(GroupSpec::new("web", sleeper()).requires("database"))?;
    ///
    /// // The web server waits for the database, and the host's loop goes on.
    /// supervisor.start(Target::All)?;
    /// let instance = supervisor.group(web).unwrap().instances[0];
    /// let status = supervisor.status(instance).unwrap();
    /// assert_eq!((status.state.name(), &status.waits_for[..]), (StateName::Stopped, &[database][..]));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn requires(mut self, group: impl Into<GroupRef>) -> GroupSpec {
        self.order.requires.push(group.into());
        self
    }

    /// The variable in the environment of a command [before](GroupSpec::before_run) or [after](GroupSpec::after_run) a run
    /// with the name of the group.
    pub const GROUP_VARIABLE: &str = super::run_command::GROUP_VARIABLE;

    /// The variable in the environment of a command [before](GroupSpec::before_run) or [after](GroupSpec::after_run) a run
    /// with the number of the instance, from 0 up.
    pub const INSTANCE_VARIABLE: &str = super::run_command::INSTANCE_VARIABLE;

    /// Runs a command before each run, and starts the program only when it has ended with exit code 0: systemd's
    /// `ExecStartPre=`. While it runs, the instance is [`Preparing`](crate::lifecycle::StateName::Preparing), and its
    /// status has the PID of the command.
    ///
    /// Every other end of the command is a failed start: another exit code, a signal, an error of its spawn, or that it
    /// has not ended within `limit`. The program is not started, and the cause is
    /// [`Failure::Before`](crate::lifecycle::Failure::Before). The delays and the number of tries are those of every
    /// failed start ([`Policy::backoff`], [`Policy::start_retries`]), and the whole run is tried again, from this
    /// command on. A `limit` of zero is refused. The limit counts from the spawn of the command. When it is over, the
    /// command is stopped by the [ladder](GroupSpec::stop) of the group.
    ///
    /// After a [recovery](crate::supervisor::Builder::recover) the exit status of a command is known only from Linux 6.15
    /// on. A status that is not known is a failed start.
    ///
    /// A stop request, a restart and a kill reach the command as they reach the program: it is stopped by the ladder, or
    /// killed, and the run never starts.
    ///
    /// The command has the user, the descriptors and the environment of its own [`Command`], and leads a process group
    /// of its own by default. In addition to that, its environment contains `PIDHERD_GROUP` and `PIDHERD_INSTANCE`: the
    /// name of the group and the number of the instance. With a [`cgroup`](GroupSpec::cgroup) it is in a cgroup of the
    /// name and with the limits of that of the run. That cgroup is removed when the command has ended, so processes that it
    /// has left are killed before the program is started. With a stop scope of a process group, those that it has left
    /// in its group are killed too. It has neither the [`ready_fd`](GroupSpec::ready_fd) nor the
    /// [`notify_socket`](GroupSpec::notify_socket), and it cannot have a piped descriptor
    /// ([`SpecError::RunCommandPiped`](crate::supervisor::SpecError::RunCommandPiped)).
    ///
    /// A reload with another command has the effect
    /// [`AtNextStart`](crate::group::Effect::AtNextStart); a reload with another limit is a change of the policy.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::lifecycle::StateName;
    /// use pidherd::{Command, Event, GroupSpec, Supervisor};
    /// use rustix::event::{PollFd, PollFlags, poll};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut supervisor = Supervisor::new()?;
    /// let web = GroupSpec::new("web", Command::new("/bin/sleep").arg("1000"))
    ///     .grace(Duration::ZERO)
    ///     .before_run(Command::new("/bin/true"), Duration::from_secs(30));
    /// let web = supervisor.add(web)?;
    /// supervisor.start(web)?;
    /// let mut states = Vec::new();
    /// while states.last() != Some(&StateName::Running) {
    ///     poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], None)?;
    ///     supervisor.dispatch()?;
    ///     while let Some(event) = supervisor.next_event() {
    ///         if let Event::Transition(step) = event {
    ///             states.push(step.to);
    ///         }
    ///     }
    /// }
    /// assert_eq!(states, [StateName::Preparing, StateName::Starting, StateName::Running]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn before_run(mut self, command: Command, limit: Duration) -> GroupSpec {
        self.before = Some(RunCommand { command, limit });
        self
    }

    /// Runs a command after each run: systemd's `ExecStopPost=`. While it runs, the instance is
    /// [`CleaningUp`](crate::lifecycle::StateName::CleaningUp), and its status has the PID of the command.
    ///
    /// It runs after every run in which a program was executed, the one of the group or that of the command
    /// [before the run](GroupSpec::before_run), however the run has ended: by itself, by a stop, a kill or a failure. It
    /// also runs when the program could not be spawned after the command before the run had succeeded. It does not run if
    /// the first spawn of a run has failed, after a [release](crate::Supervisor::release), and when the supervisor is
    /// dropped.
    ///
    /// What follows the run is decided when the command has ended: the restart, its delay, or the state that a stop
    /// request leads to. A start, a stop or a restart meanwhile is remembered. A kill ends the command. A shutdown waits
    /// for it. The command's own failure does not change how the run is judged. It is reported as
    /// [`Event::CommandFailed`](crate::Event::CommandFailed).
    ///
    /// A `limit` of zero is refused. The limit counts from the spawn of the command. When it is over, the command is
    /// stopped by the [ladder](GroupSpec::stop) of the group.
    ///
    /// Its environment contains, besides that of [`before_run`](GroupSpec::before_run), how the run has ended, as
    /// systemd.exec(5) describes it:
    ///
    /// - `SERVICE_RESULT`: `success` (an expected end, or a stop), `exit-code`, `signal`, `core-dump`, `timeout` (of the
    ///   start, the run, the stop, or the command before the run), `watchdog`, `protocol` (the readiness descriptor was
    ///   closed), `oom-kill` or `resources` (the program could not be spawned). Two words are not known to systemd:
    ///   `unhealthy` (the host reported a failure) and `unknown`.
    /// - `EXIT_CODE` and `EXIT_STATUS`: `exited` and the exit code, or `killed` or `dumped` and the name of the signal
    ///   without `SIG`. They are not set if the exit status is not known, or if there was no process.
    ///
    /// `MAINPID` is not set: the process is gone, and its PID may be that of another process.
    ///
    /// The command is that of the group's description when the run ends, so a reload with another one takes effect at
    /// the end of the present run. Everything else is as for [`before_run`](GroupSpec::before_run).
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::lifecycle::StateName;
    /// use pidherd::{Command, Event, GroupSpec, Supervisor};
    /// use rustix::event::{PollFd, PollFlags, poll};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut supervisor = Supervisor::new()?;
    /// let clean_up = Command::new("/bin/sh").args(["-c", "test $EXIT_STATUS = TERM"]);
    /// let web = GroupSpec::new("web", Command::new("/bin/sleep").arg("1000"))
    ///     .grace(Duration::ZERO)
    ///     .after_run(clean_up, Duration::from_secs(30));
    /// let web = supervisor.add(web)?;
    /// supervisor.start(web)?;
    /// let mut states = Vec::new();
    /// while states.last() != Some(&StateName::Stopped) {
    ///     poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], None)?;
    ///     supervisor.dispatch()?;
    ///     while let Some(event) = supervisor.next_event() {
    ///         assert!(!matches!(event, Event::CommandFailed { .. }));
    ///         let Event::Transition(step) = event else { continue };
    ///         if step.to == StateName::Running {
    ///             supervisor.stop(web)?;
    ///         }
    ///         states.push(step.to);
    ///     }
    /// }
    /// assert_eq!(states[2..], [StateName::Stopping, StateName::CleaningUp, StateName::Stopped]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn after_run(mut self, command: Command, limit: Duration) -> GroupSpec {
        self.after = Some(RunCommand { command, limit });
        self
    }

    /// The policy with the limits of the commands around a run.
    pub(crate) fn policy_in_force(&self) -> Policy {
        Policy {
            before_run: self.before.as_ref().map(|before| before.limit),
            after_run: self.after.as_ref().map(|after| after.limit),
            ..self.policy.clone()
        }
    }

    /// The command of the instance with this number.
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
        if self.instances == 0 && self.has_one_each() {
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
