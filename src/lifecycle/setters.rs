//! Setters of policies and their parts. Each sets one value, and their order does not matter.
//!
//! The types may get more settings in later versions. A value that is made by setters goes on to compile then.

use std::time::Duration;

use super::policy::{CrashBudget, Delay, DelayFrom, ExitSet, Policy, Restart, RunTimeout, Startup};
use super::stop::{Rung, Scope, StopLadder};
use super::strategy::{AutoShutdown, Strategy};
use crate::signal::Signal;

impl Policy {
    /// The default policy, as [`Policy::default`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::{Delay, Policy, Restart};
    ///
    /// let policy = Policy::new()
    ///     .restart(Restart::Always)
    ///     .restart_delay(Delay::Fixed(Duration::from_secs(1)))
    ///     .jitter(20);
    /// assert_eq!(policy.start_retries, 3);
    /// ```
    #[must_use]
    pub fn new() -> Policy {
        Policy::default()
    }

    /// Sets the longest time of the command before a run, or `None` for no such command, which is the default. A
    /// supervisor sets it from [`GroupSpec::before_run`](crate::GroupSpec::before_run).
    ///
    /// ```
    /// # use pidherd::lifecycle::{Action, Input, Lifecycle, Policy};
    /// # use pidherd::time::Instant;
    /// # use std::time::Duration;
    /// // For a host that drives a lifecycle by itself.
    /// let policy = Policy::new().before_run(Duration::from_secs(30));
    /// let mut life = Lifecycle::new(&policy, 1);
    /// assert_eq!(life.handle(&policy, Input::Start, Instant::ZERO).action, Some(Action::SpawnBefore));
    /// ```
    #[must_use]
    pub fn before_run(mut self, limit: impl Into<Option<Duration>>) -> Policy {
        self.before_run = limit.into();
        self
    }

    /// Sets the longest time of the command after a run, or `None` for no such command, which is the default. A
    /// supervisor sets it from [`GroupSpec::after_run`](crate::GroupSpec::after_run).
    ///
    /// ```
    /// # use pidherd::lifecycle::{Action, Input, Lifecycle, Policy, Startup};
    /// # use pidherd::time::Instant;
    /// # use pidherd::{Exit, PidFd};
    /// # use std::time::Duration;
    /// // For a host that drives a lifecycle by itself.
    /// let policy = Policy::new().startup(Startup::Grace(Duration::ZERO)).after_run(Duration::from_secs(30));
    /// let mut life = Lifecycle::new(&policy, 1);
    /// life.handle(&policy, Input::Start, Instant::ZERO);
    /// let pid = PidFd::open(std::process::id())?.pid(); // That of the process that was spawned.
    /// life.handle(&policy, Input::Spawned(pid), Instant::ZERO);
    /// let reaction = life.handle(&policy, Input::Exited(Exit::Code(0)), Instant::ZERO);
    /// assert_eq!(reaction.action, Some(Action::SpawnAfter));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn after_run(mut self, limit: impl Into<Option<Duration>>) -> Policy {
        self.after_run = limit.into();
        self
    }

    /// Sets when a started process counts as running. The default is [`Startup::Grace`] of 1 s.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::{Policy, Startup};
    ///
    /// let policy = Policy::new().startup(Startup::Notify { timeout: Duration::from_secs(30) });
    /// ```
    #[must_use]
    pub fn startup(mut self, startup: Startup) -> Policy {
        self.startup = startup;
        self
    }

    /// Sets the longest silence of a running process, or `None` for no limit, which is the default.
    ///
    /// ```
    /// use std::time::Duration;
    /// let policy = pidherd::Policy::new().watchdog(Duration::from_secs(10));
    /// ```
    #[must_use]
    pub fn watchdog(mut self, silence: impl Into<Option<Duration>>) -> Policy {
        self.watchdog = silence.into();
        self
    }

    /// Sets how long a run may take, or `None` for no limit, which is the default.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::lifecycle::RunTimeout;
    ///
    /// let renewed_daily = RunTimeout::new(Duration::from_secs(24 * 3_600)).extra(Duration::from_secs(3_600));
    /// let policy = pidherd::Policy::new().run_timeout(renewed_daily);
    /// ```
    #[must_use]
    pub fn run_timeout(mut self, limit: impl Into<Option<RunTimeout>>) -> Policy {
        self.run_timeout = limit.into();
        self
    }

    /// Sets whether a process that ran and ended by itself is started again. The default is
    /// [`Restart::OnUnexpected`].
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Policy, Restart, Supervisor};
    /// let once = Policy::new().restart(Restart::Never);
    /// let mut supervisor = Supervisor::new()?;
    /// supervisor.add(GroupSpec::new("job", Command::new("true")).policy(once))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Policy {
        self.restart = restart;
        self
    }

    /// Sets the ends that are expected. The default is exit code 0.
    ///
    /// ```
    /// use pidherd::lifecycle::ExitSet;
    /// let policy = pidherd::Policy::new().expected(ExitSet::EMPTY.code(0).code(2));
    /// ```
    #[must_use]
    pub fn expected(mut self, ends: ExitSet) -> Policy {
        self.expected = ends;
        self
    }

    /// Sets the ends that are never followed by another try. The default is none.
    ///
    /// ```
    /// use pidherd::lifecycle::ExitSet;
    /// // EX_CONFIG: the configuration is wrong.
    /// let policy = pidherd::Policy::new().prevent_restart(ExitSet::EMPTY.code(78));
    /// ```
    #[must_use]
    pub fn prevent_restart(mut self, ends: ExitSet) -> Policy {
        self.prevent_restart = ends;
        self
    }

    /// Sets the ends that are always followed by another run. The default is none.
    ///
    /// ```
    /// use pidherd::lifecycle::ExitSet;
    /// let policy = pidherd::Policy::new().force_restart(ExitSet::EMPTY.code(75));
    /// ```
    #[must_use]
    pub fn force_restart(mut self, ends: ExitSet) -> Policy {
        self.force_restart = ends;
        self
    }

    /// Sets whether an expected exit within the grace is a failed start of a job. The default is false.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Policy, Restart, Supervisor};
    /// // As supervisord: a job that ends within its first second has not started.
    /// let strict = Policy::new().restart(Restart::Never).early_exit_fails(true);
    /// let mut supervisor = Supervisor::new()?;
    /// supervisor.add(GroupSpec::new("job", Command::new("true")).policy(strict))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn early_exit_fails(mut self, yes: bool) -> Policy {
        self.early_exit_fails = yes;
        self
    }

    /// Sets the number of retries after failed starts in a row. The default is 3.
    ///
    /// ```
    /// # use pidherd::lifecycle::{Input, Lifecycle, Policy, StateName};
    /// # use pidherd::time::Instant;
    /// let policy = Policy::new().start_retries(0);
    /// let mut life = Lifecycle::new(&policy, 1);
    /// life.handle(&policy, Input::Start, Instant::ZERO);
    /// let errno = 2; // ENOENT
    /// life.handle(&policy, Input::SpawnFailed { errno, permanent: true }, Instant::ZERO);
    /// assert_eq!(life.state().name(), StateName::Fatal);
    /// ```
    #[must_use]
    pub fn start_retries(mut self, retries: u32) -> Policy {
        self.start_retries = retries;
        self
    }

    /// Sets whether a permanent error of a spawn is retried. The default is true.
    ///
    /// ```
    /// # use pidherd::lifecycle::{Input, Lifecycle, Policy, StateName};
    /// # use pidherd::time::Instant;
    /// // A missing program will not appear, so one try is enough.
    /// let policy = Policy::new().retry_permanent(false);
    /// let mut life = Lifecycle::new(&policy, 1);
    /// life.handle(&policy, Input::Start, Instant::ZERO);
    /// let errno = 2; // ENOENT
    /// life.handle(&policy, Input::SpawnFailed { errno, permanent: true }, Instant::ZERO);
    /// assert_eq!(life.state().name(), StateName::Fatal);
    /// ```
    #[must_use]
    pub fn retry_permanent(mut self, yes: bool) -> Policy {
        self.retry_permanent = yes;
        self
    }

    /// Sets whether a temporary error of a spawn uses up a retry. The default is false.
    ///
    /// ```
    /// # use pidherd::lifecycle::{Input, Lifecycle, Policy};
    /// # use pidherd::time::Instant;
    /// let errno = 11; // EAGAIN: there are too many processes.
    /// for counts in [false, true] {
    ///     let policy = Policy::new().start_retries(0).count_shortages(counts);
    ///     let mut life = Lifecycle::new(&policy, 1);
    ///     life.handle(&policy, Input::Start, Instant::ZERO);
    ///     life.handle(&policy, Input::SpawnFailed { errno, permanent: false }, Instant::ZERO);
    ///     // The next try has a time, or there is none.
    ///     assert_eq!(life.deadline().is_none(), counts);
    /// }
    /// ```
    #[must_use]
    pub fn count_shortages(mut self, yes: bool) -> Policy {
        self.count_shortages = yes;
        self
    }

    /// Sets the wait after failed starts. The default is 1 s after the first, and 1 s more after each other.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::{Delay, Policy};
    ///
    /// let (first, cap) = (Duration::from_millis(100), Duration::from_secs(30));
    /// let policy = Policy::new().backoff(Delay::Exponential { first, cap });
    /// ```
    #[must_use]
    pub fn backoff(mut self, delay: Delay) -> Policy {
        self.backoff = delay;
        self
    }

    /// Sets the wait before a restart of a process that ran. The default is none.
    ///
    /// ```
    /// # use pidherd::{Delay, Policy};
    /// # use std::time::Duration;
    /// let (first, cap) = (Duration::from_secs(1), Duration::from_secs(300));
    /// let policy = Policy::new().restart_delay(Delay::Exponential { first, cap });
    /// assert_eq!(policy.restart_delay.delay(4), Duration::from_secs(8));
    /// ```
    #[must_use]
    pub fn restart_delay(mut self, delay: Delay) -> Policy {
        self.restart_delay = delay;
        self
    }

    /// Sets from when the wait of a restart is counted. The default is the end of the run.
    ///
    /// ```
    /// # use pidherd::lifecycle::DelayFrom;
    /// # use pidherd::{Command, Delay, GroupSpec, Policy, Supervisor};
    /// # use std::time::Duration;
    /// // At most one start a minute: a run of more than a minute is followed by the next one at once.
    /// let delay = Delay::Fixed(Duration::from_secs(60));
    /// let policy = Policy::new().restart_delay(delay).restart_delay_from(DelayFrom::Start);
    /// let mut supervisor = Supervisor::new()?;
    /// supervisor.add(GroupSpec::new("poller", Command::new("/usr/bin/poller")).policy(policy))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn restart_delay_from(mut self, from: DelayFrom) -> Policy {
        self.restart_delay_from = from;
        self
    }

    /// Sets how many restarts follow at once before the waits begin. The default is 0.
    ///
    /// ```
    /// # use pidherd::{Command, Delay, GroupSpec, Policy, Supervisor};
    /// # use std::time::Duration;
    /// // The first restart follows at once, the second one after 10 s, the third one after 20 s.
    /// let cap = Duration::from_secs(300);
    /// let policy = Policy::new()
    ///     .restart_delay(Delay::Exponential { first: Duration::from_secs(10), cap })
    ///     .immediate_restarts(1);
    /// let mut supervisor = Supervisor::new()?;
    /// supervisor.add(GroupSpec::new("web", Command::new("/usr/bin/web")).policy(policy))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn immediate_restarts(mut self, restarts: u32) -> Policy {
        self.immediate_restarts = restarts;
        self
    }

    /// Sets the random part of each wait in percent, 0 to 100. The default is 0.
    ///
    /// ```
    /// # use pidherd::Policy;
    /// // A wait of 10 s becomes one of 8 s to 10 s.
    /// let policy = Policy::new().jitter(20);
    /// assert!(policy.validate().is_ok() && policy.jitter(101).validate().is_err());
    /// ```
    #[must_use]
    pub fn jitter(mut self, percent: u8) -> Policy {
        self.jitter = percent;
        self
    }

    /// Sets the number of restarts after a crash within a window, or `None` for no bound. The default is 10 within 10 s.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::{CrashBudget, Policy};
    ///
    /// let policy = Policy::new().crash_budget(CrashBudget::new(5, Duration::from_secs(60)));
    /// ```
    #[must_use]
    pub fn crash_budget(mut self, budget: impl Into<Option<CrashBudget>>) -> Policy {
        self.crash_budget = budget.into();
        self
    }

    /// Sets the number of restarts after a crash within a window for all instances of a group together, or `None` for no
    /// such bound, which is the default. See [`GroupSpec::shared_budget`](crate::GroupSpec::shared_budget).
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::lifecycle::CrashBudget;
    /// use pidherd::Policy;
    ///
    /// let policy = Policy::new().shared_budget(CrashBudget::new(20, Duration::from_secs(60)));
    /// ```
    #[must_use]
    pub fn shared_budget(mut self, budget: impl Into<Option<CrashBudget>>) -> Policy {
        self.shared_budget = budget.into();
        self
    }

    /// Sets what the end of one instance means for its siblings. The default is [`Strategy::OneForOne`]. See
    /// [`GroupSpec::strategy`](crate::GroupSpec::strategy).
    ///
    /// ```
    /// use pidherd::Policy;
    /// use pidherd::lifecycle::Strategy;
    ///
    /// let policy = Policy::new().strategy(Strategy::OneForAll);
    /// ```
    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> Policy {
        self.strategy = strategy;
        self
    }

    /// Sets what it means for the group that an instance has ended for good by itself. The default is
    /// [`AutoShutdown::Never`]. See [`GroupSpec::auto_shutdown`](crate::GroupSpec::auto_shutdown).
    ///
    /// ```
    /// use pidherd::Policy;
    /// use pidherd::lifecycle::AutoShutdown;
    ///
    /// let policy = Policy::new().auto_shutdown(AutoShutdown::AnyEnd);
    /// ```
    #[must_use]
    pub fn auto_shutdown(mut self, when: AutoShutdown) -> Policy {
        self.auto_shutdown = when;
        self
    }

    /// Sets the uptime after which earlier crashes are forgotten. The default is 60 s.
    ///
    /// ```
    /// # use pidherd::{Command, Delay, GroupSpec, Policy, Supervisor};
    /// # use std::time::Duration;
    /// // After a run of an hour, the waits begin with the first one again.
    /// let policy = Policy::new()
    ///     .restart_delay(Delay::Linear { step: Duration::from_secs(1), cap: Duration::from_secs(60) })
    ///     .stable_after(Duration::from_secs(3_600));
    /// let mut supervisor = Supervisor::new()?;
    /// supervisor.add(GroupSpec::new("web", Command::new("/usr/bin/web")).policy(policy))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn stable_after(mut self, uptime: Duration) -> Policy {
        self.stable_after = uptime;
        self
    }

    /// Sets the time after which a `Fatal` process is started again, or `None` for never, which is the default.
    ///
    /// ```
    /// # use pidherd::lifecycle::{Input, Lifecycle, Policy};
    /// # use pidherd::time::Instant;
    /// # use std::time::Duration;
    /// let ten_minutes = Duration::from_secs(600);
    /// let policy = Policy::new().start_retries(0).cool_off(ten_minutes);
    /// let mut life = Lifecycle::new(&policy, 1);
    /// life.handle(&policy, Input::Start, Instant::ZERO);
    /// life.handle(&policy, Input::SpawnFailed { errno: 2, permanent: true }, Instant::ZERO);
    /// // It is fatal until then.
    /// assert_eq!(life.deadline(), Some(Instant::ZERO.saturating_add(ten_minutes)));
    /// ```
    #[must_use]
    pub fn cool_off(mut self, time: impl Into<Option<Duration>>) -> Policy {
        self.cool_off = time.into();
        self
    }

    /// Sets how a process is stopped. The default is SIGTERM, 10 s, SIGKILL, to the process alone.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Policy, Scope, Signal, StopLadder, Supervisor};
    /// # use std::time::Duration;
    /// let ladder = StopLadder::signal(Signal::INT, Scope::ProcessGroup, Duration::from_secs(30));
    /// let mut supervisor = Supervisor::new()?;
    /// supervisor.add(GroupSpec::new("web", Command::new("/usr/bin/web")).policy(Policy::new().stop(ladder)))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn stop(mut self, ladder: StopLadder) -> Policy {
        self.stop = ladder;
        self
    }

    /// Sets how a process that missed its watchdog is stopped, or `None` as by [`Policy::stop`], which is the default. A start
    /// or a restart that is requested meanwhile makes this a stop on request: it goes on at the next rung of
    /// [`Policy::stop`].
    ///
    /// ```
    /// # use pidherd::{Policy, Scope, Signal, StopLadder};
    /// # use std::time::Duration;
    /// // A process that hangs leaves a core dump.
    /// let dump = StopLadder::signal(Signal::ABRT, Scope::Process, Duration::from_secs(60));
    /// let policy = Policy::new().watchdog(Duration::from_secs(10)).watchdog_stop(dump);
    /// assert!(policy.validate().is_ok());
    /// ```
    #[must_use]
    pub fn watchdog_stop(mut self, ladder: impl Into<Option<StopLadder>>) -> Policy {
        self.watchdog_stop = ladder.into();
        self
    }
}

impl RunTimeout {
    /// A limit without a random part.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::lifecycle::RunTimeout;
    /// let ten_minutes = RunTimeout::new(Duration::from_secs(600));
    /// ```
    #[must_use]
    pub const fn new(after: Duration) -> RunTimeout {
        RunTimeout {
            after,
            extra: Duration::ZERO,
        }
    }

    /// Sets the random part: up to this time is added.
    ///
    /// ```
    /// # use pidherd::lifecycle::RunTimeout;
    /// # use std::time::Duration;
    /// let hour = Duration::from_secs(3_600);
    /// // Instances that were started together are not renewed together.
    /// let policy = pidherd::Policy::new().run_timeout(RunTimeout::new(20 * hour).extra(4 * hour));
    /// assert!(policy.validate().is_ok());
    /// ```
    #[must_use]
    pub const fn extra(mut self, extra: Duration) -> RunTimeout {
        self.extra = extra;
        self
    }
}

impl CrashBudget {
    /// So many restarts after a crash within this window.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::{CrashBudget, Policy};
    /// let policy = Policy::new().crash_budget(CrashBudget::new(5, Duration::from_secs(60)));
    /// ```
    #[must_use]
    pub const fn new(max: u16, window: Duration) -> CrashBudget {
        CrashBudget { max, window }
    }
}

impl Rung {
    /// A signal to the processes of a scope, and the wait after it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::lifecycle::Rung;
    /// use pidherd::{Scope, Signal};
    /// let rung = Rung::new(Signal::TERM, Scope::Process, Duration::from_secs(10));
    /// ```
    #[must_use]
    pub const fn new(signal: Signal, scope: Scope, wait: Duration) -> Rung {
        Rung::Signal { signal, scope, wait }
    }

    /// The [stop command](crate::GroupSpec::stop_command) with this number, from 0 up, the time that it has, and the wait
    /// after it.
    ///
    /// When the command has succeeded (exit code 0) and the process is alive, the next rung follows after `wait`. When
    /// the command has failed, could not be spawned, or has not ended within `limit`, the next rung follows at once. A
    /// command that has not ended within `limit` gets SIGKILL, with the processes of its process group. A limit of zero
    /// is refused ([`PolicyError::StopCommandLimit`](super::PolicyError::StopCommandLimit)).
    ///
    /// If the process ends while the command runs, the stop is over when the command has ended too. The command keeps
    /// its time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::lifecycle::Rung;
    /// let rung = Rung::command(0, Duration::from_secs(30), Duration::from_secs(10));
    /// ```
    #[must_use]
    pub const fn command(index: u8, limit: Duration, wait: Duration) -> Rung {
        Rung::Command { index, limit, wait }
    }
}

impl StopLadder {
    /// Adds a rung after the present ones, before the final SIGKILL.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::{Scope, Signal, StopLadder};
    ///
    /// // Finish the requests, then end, then force.
    /// let ladder = StopLadder::kill(Scope::ProcessGroup)
    ///     .then(Signal::QUIT, Scope::Process, Duration::from_secs(30))
    ///     .then(Signal::TERM, Scope::ProcessGroup, Duration::from_secs(5));
    /// assert_eq!(ladder.rungs.len(), 2);
    /// ```
    #[must_use]
    pub fn then(mut self, signal: Signal, scope: Scope, wait: Duration) -> StopLadder {
        self.rungs.push(Rung::new(signal, scope, wait));
        self
    }

    /// Adds a rung that runs a command, after the present ones and before the final SIGKILL; see [`Rung::command`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::{Command, GroupSpec, Scope, Signal, StopLadder};
    ///
    /// // `webctl stop` asks the program to end. SIGTERM follows after 10 s, and SIGKILL after 5 s more.
    /// let second = Duration::from_secs(1);
    /// let ladder = StopLadder::kill(Scope::Process)
    ///     .then_command(0, 30 * second, 10 * second)
    ///     .then(Signal::TERM, Scope::Process, 5 * second);
    /// let web = GroupSpec::new("web", Command::new("/usr/bin/web"))
    ///     .stop_command(Command::new("/usr/bin/webctl").arg("stop"))
    ///     .stop(ladder);
    /// ```
    #[must_use]
    pub fn then_command(mut self, index: u8, limit: Duration, wait: Duration) -> StopLadder {
        self.rungs.push(Rung::command(index, limit, wait));
        self
    }

    /// Sets all rungs before the final SIGKILL.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::lifecycle::Rung;
    /// use pidherd::{Scope, Signal, StopLadder};
    ///
    /// let rungs = [Signal::TERM, Signal::QUIT].map(|signal| Rung::new(signal, Scope::Process, Duration::from_secs(5)));
    /// let ladder = StopLadder::kill(Scope::Process).rungs(rungs);
    /// ```
    #[must_use]
    pub fn rungs(mut self, rungs: impl IntoIterator<Item = Rung>) -> StopLadder {
        self.rungs = rungs.into_iter().collect();
        self
    }

    /// Sets the scope of the final SIGKILL. It must be at least as wide as that of every rung.
    ///
    /// ```
    /// # use pidherd::{Policy, Scope, Signal, StopLadder};
    /// # use std::time::Duration;
    /// // The main process may stop its workers. If it does not, SIGKILL reaches them too.
    /// let ladder = StopLadder::signal(Signal::TERM, Scope::Process, Duration::from_secs(10));
    /// let ladder = ladder.kill_scope(Scope::ProcessGroup);
    /// assert_eq!(ladder.scope(), Scope::ProcessGroup);
    /// assert!(Policy::new().stop(ladder).validate().is_ok());
    /// ```
    #[must_use]
    pub const fn kill_scope(mut self, scope: Scope) -> StopLadder {
        self.kill = scope;
        self
    }

    /// Sets the time that SIGKILL may take before the process is reported as unkillable. The default is 5 s.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Scope, StopLadder, Supervisor};
    /// # use std::time::Duration;
    /// // A process with much memory takes long to die.
    /// let ladder = StopLadder::kill(Scope::Process).patience(Duration::from_secs(60));
    /// let mut supervisor = Supervisor::new()?;
    /// supervisor.add(GroupSpec::new("cache", Command::new("/usr/bin/cache")).stop(ladder))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> StopLadder {
        self.patience = patience;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setter_changes_its_field_and_no_other() {
        let policy = Policy::new()
            .early_exit_fails(true)
            .immediate_restarts(3)
            .retry_permanent(false)
            .count_shortages(true)
            .restart_delay_from(DelayFrom::Start)
            .strategy(Strategy::OneForAll)
            .auto_shutdown(AutoShutdown::AnyEnd)
            .stable_after(Duration::from_secs(7))
            .stop(StopLadder::kill(Scope::Process).patience(Duration::from_secs(8)));
        let expected = Policy {
            early_exit_fails: true,
            immediate_restarts: 3,
            retry_permanent: false,
            count_shortages: true,
            restart_delay_from: DelayFrom::Start,
            strategy: Strategy::OneForAll,
            auto_shutdown: AutoShutdown::AnyEnd,
            stable_after: Duration::from_secs(7),
            stop: StopLadder {
                rungs: Vec::new(),
                kill: Scope::Process,
                patience: Duration::from_secs(8),
            },
            ..Policy::default()
        };
        assert_eq!(policy, expected);
    }
}
