//! The settings of a group that concern what surrounds its runs: other groups, and commands.

use std::ffi::OsStr;
use std::time::Duration;

use super::error::SpecError;
use super::place::GroupRef;
use super::run_command::{RunCommand, compile_command};
use super::spec::GroupSpec;
use crate::command::{Command, Program};
use crate::lifecycle::Part;

impl GroupSpec {
    /// Starts the instances after those of another group, and stops them before. Each call adds a group.
    ///
    /// The order holds between requests of the host, and changes nothing about what is started or stopped:
    ///
    /// - The start of an instance waits while an instance of the other group is on its way up or down: until each is
    ///   running, a job that is done, stopped, or given up. If the other group is down and stays down, nothing waits.
    ///   [`Startup::Completes`](crate::Startup::Completes) makes a group of jobs that are waited for until they are
    ///   done.
    /// - The stop of an instance of the other group waits while an instance of this group is being stopped, until its
    ///   process, and the command that stops it, have ended. A process that not even SIGKILL ends is not waited for.
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
    /// - If an instance of the other group fails (it is `Fatal`, or has ended unexpectedly and is not restarted), if
    ///   the other group is stopped, or if its own start is withdrawn for such a reason, the start that waits is
    ///   withdrawn. [`Event::StartWithdrawn`](crate::supervisor::Event::StartWithdrawn) reports it with the cause.
    /// - A [stop](crate::Supervisor::stop) of the other group stops this group first, and those that require this group
    ///   before it. They stay down until they are started. The cause of their transitions is
    ///   [`Cause::RequirementStopped`](crate::lifecycle::Cause::RequirementStopped).
    /// - A group with 0 [instances](GroupSpec::instances) is down, whether it is wanted up or not. Scaling it to 0 is
    ///   not a stop of it: this group is not stopped, and a start that waits goes on to wait until it is scaled up and
    ///   running.
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

    /// Runs a command before each run, and starts the program only when it has ended with exit code 0: systemd's
    /// `ExecStartPre=`. While it runs, the instance is [`Preparing`](crate::lifecycle::StateName::Preparing), and its
    /// status has the PID of the command.
    ///
    /// Every other end of the command is a failed start: another exit code, a signal, an error of its spawn, or that it
    /// has not ended within `limit`. The program is not started, and the cause is
    /// [`Failure::Before`](crate::lifecycle::Failure::Before). The delays and the number of tries are those of every
    /// failed start ([`Policy::backoff`](crate::Policy::backoff),
    /// [`Policy::start_retries`](crate::Policy::start_retries)), and the whole run is tried again, from this command
    /// on. A `limit` of zero is refused. The limit counts from the spawn of the command. When it is over, the command
    /// is stopped by the [ladder](GroupSpec::stop) of the group.
    ///
    /// After a [recovery](crate::supervisor::Builder::recover) the exit status of a command is known only from Linux
    /// 6.15 on. A status that is not known is a failed start.
    ///
    /// A stop request, a restart and a kill reach the command as they reach the program: it is stopped by the ladder,
    /// or killed, and the run never starts.
    ///
    /// The command has the user, the descriptors and the environment of its own [`Command`], and leads a process group
    /// of its own by default. In addition to that, its environment contains `PIDHERD_GROUP` and `PIDHERD_INSTANCE`: the
    /// name of the group and the number of the instance. With a [`cgroup`](GroupSpec::cgroup) it is in a cgroup of the
    /// name and with the limits of that of the run. That cgroup is removed when the command has ended, so processes
    /// that it has left are killed before the program is started. With a stop scope of a process group, those that it
    /// has left in its group are killed too. It has neither the [`ready_fd`](GroupSpec::ready_fd) nor the
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
    /// It runs after every run in which a program was executed, the one of the group or that of the command [before the
    /// run](GroupSpec::before_run), however the run has ended: by itself, by a stop, a kill or a failure. It also runs
    /// when the program could not be spawned after the command before the run had succeeded. It does not run if the
    /// first spawn of a run has failed, after a [release](crate::Supervisor::release), and when the supervisor is
    /// dropped.
    ///
    /// What follows the run is decided when the command has ended: the restart, its delay, or the state that a stop
    /// request leads to. A start, a stop or a restart meanwhile is remembered. A kill ends the command. A shutdown
    /// waits for it. The command's own failure does not change how the run is judged. It is reported as
    /// [`Event::CommandFailed`](crate::Event::CommandFailed).
    ///
    /// A `limit` of zero is refused. The limit counts from the spawn of the command. When it is over, the command is
    /// stopped by the [ladder](GroupSpec::stop) of the group.
    ///
    /// Its environment contains, besides that of [`before_run`](GroupSpec::before_run), how the run has ended, as
    /// systemd.exec(5) describes it:
    ///
    /// - `SERVICE_RESULT`: `success` (an expected end, or a stop), `exit-code`, `signal`, `core-dump`, `timeout` (of
    ///   the start, the run, the stop, or the command before the run), `watchdog`, `protocol` (the readiness descriptor
    ///   was closed), `oom-kill` or `resources` (the program could not be spawned). Two words are not known to systemd:
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

    /// Adds a command that a [ladder](crate::lifecycle::Rung::Command) can run to stop an instance: systemd's
    /// `ExecStop=`. Its number is the number of calls before, from 0 up; the rungs refer to it. By default a group has
    /// none, and a command that no rung refers to is never run.
    ///
    /// When the stop of an instance comes to a rung with a command, the command runs beside the program. The instance is
    /// [`Stopping`](crate::lifecycle::StateName::Stopping), and its status has the PID of the program until that has ended.
    /// What follows the command is described at [`Rung::command`](crate::lifecycle::Rung::command). If the program ends while the command
    /// runs, the command keeps its time, and the stop is over when both have ended. Then the
    /// [command after the run](GroupSpec::after_run) and the next start follow. The processes that the command has left
    /// in its process group or its cgroup get SIGKILL. A command that not even SIGKILL ends is reported as
    /// [`Event::Unkillable`](crate::Event::Unkillable) with its PID. The ladder then goes on without it.
    ///
    /// A stop during the command changes nothing, and a start is remembered. A
    /// [kill](crate::Supervisor::kill) ends both the program and the command. `EXTEND_TIMEOUT_USEC=` of the program
    /// extends the time of the command while it runs. The stop of a command before or after a run skips the rungs with a
    /// command. A program that had ended by itself when its stop began is not stopped by a command: the
    /// next rung with a signal follows at once, for what the program has left.
    ///
    /// [`Event::StopCommandStarted`](crate::Event::StopCommandStarted) and
    /// [`Event::StopCommandEnded`](crate::Event::StopCommandEnded) report the command.
    ///
    /// The command has the user, the descriptors and the environment of its own [`Command`]. In addition to that, its
    /// environment contains `PIDHERD_GROUP`, `PIDHERD_INSTANCE` and `MAINPID`: the PID of the program. `MAINPID` is not set
    /// if the program has ended, and the command is for other processes of the stop's scope. The command leads a process
    /// group of its own. With a [`cgroup`](GroupSpec::cgroup) it has a cgroup beside that of the run, with the name
    /// `NAME-NUMBER.stop` and the same limits. It has neither the [`ready_fd`](GroupSpec::ready_fd) nor the
    /// [`notify_socket`](GroupSpec::notify_socket), and it cannot have a piped descriptor
    /// ([`SpecError::RunCommandPiped`](crate::supervisor::SpecError::RunCommandPiped)). A rung that refers to a command
    /// that the group does not have is refused
    /// ([`SpecError::NoStopCommand`](crate::supervisor::SpecError::NoStopCommand)).
    ///
    /// A command that waits until `kill -0 $MAINPID` fails is done when the program was reaped. Before Linux 6.9, with
    /// [`Scope::ProcessGroup`](crate::lifecycle::Scope::ProcessGroup), that is when the rest of its process group has ended
    /// too, because the number of the group is that of the program.
    ///
    /// A reload with other commands has the effect [`AtNextStart`](crate::group::Effect::AtNextStart): the next stop runs
    /// them, and a stop that is under way from its next rung on. If the command of that rung is gone, the rung fails with
    /// ENOENT.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::lifecycle::{StateName, StopCommandEnd};
    /// use pidherd::{Command, Event, GroupSpec, Scope, StopLadder, Supervisor};
    /// use rustix::event::{PollFd, PollFlags, poll};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let second = Duration::from_secs(1);
    /// let mut supervisor = Supervisor::new()?;
    /// let web = GroupSpec::new("web", Command::new("/bin/sleep").arg("1000"))
    ///     .grace(Duration::ZERO)
    ///     .stop_command(Command::new("/bin/sh").args(["-c", "kill -TERM $MAINPID"]))
    ///     .stop(StopLadder::kill(Scope::Process).then_command(0, 30 * second, 10 * second));
    /// let web = supervisor.add(web)?;
    /// supervisor.start(web)?;
    /// let (mut ends, mut is_down) = (Vec::new(), false);
    /// while !is_down {
    ///     poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], None)?;
    ///     supervisor.dispatch()?;
    ///     while let Some(event) = supervisor.next_event() {
    ///         match event {
    ///             Event::Transition(step) if step.to == StateName::Running => drop(supervisor.stop(web)?),
    ///             Event::Transition(step) => is_down = step.to == StateName::Stopped,
    ///             Event::StopCommandEnded { end, .. } => ends.push(end),
    ///             _ => {}
    ///         }
    ///     }
    /// }
    /// assert_eq!(ends, [StopCommandEnd::Succeeded]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn stop_command(mut self, command: Command) -> GroupSpec {
        self.stop_commands.push(command);
        self
    }

    /// The programs of the stop commands.
    pub(super) fn stop_programs(&self, mark: Option<&OsStr>) -> Result<Vec<Program>, SpecError> {
        // What a command has started ends with it, which takes a process group.
        let compile = |command| compile_command(command, Part::Stop, true, mark);
        self.stop_commands.iter().map(compile).collect()
    }
}
