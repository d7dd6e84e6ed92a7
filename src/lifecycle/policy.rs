//! The rules of the host: when a start counts as successful, when a process is started again after its end, how long
//! to wait, and when to give up.
//!
//! A [`Policy`] is plain data, shared by all instances of a group and passed to the table with every input. It can be
//! exchanged while processes run: no state remembers a part of it.

use std::time::Duration;

use super::error::{CRASHES_MAX, PolicyError};
use super::stop::{Scope, StopLadder};
use super::strategy::{AutoShutdown, Strategy};
use crate::codec::stored;
use crate::exit::Exit;
use crate::signal::{Signal, SignalSet};

/// The rules of supervision for a process. The defaults are those of supervisord, with two exceptions: a crash loop
/// is bounded ([`Policy::crash_budget`]), and a job can end at once ([`Policy::early_exit_fails`]).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct Policy {
    /// When a started process counts as running.
    pub startup: Startup,
    /// The longest silence of a running process ([`Input::Alive`](super::Input::Alive) ends a silence). A longer
    /// silence is a crash: the process is stopped. `None` for no limit.
    pub watchdog: Option<Duration>,
    /// How long a run may take, from its spawn; `None` for no limit. See [`RunTimeout`].
    pub run_timeout: Option<RunTimeout>,
    /// The time limit of the command before each run; `None` if there is no such command, which is the default. It must
    /// not be zero. A supervisor sets it from [`GroupSpec::before_run`](crate::GroupSpec::before_run), and replaces what
    /// the host has set here.
    pub before_run: Option<Duration>,
    /// The time limit of the command after each run; `None` if there is no such command, which is the default. It must
    /// not be zero. A supervisor sets it from [`GroupSpec::after_run`](crate::GroupSpec::after_run), and replaces what
    /// the host has set here.
    pub after_run: Option<Duration>,
    /// Whether a process that ran and ended by itself is started again.
    pub restart: Restart,
    /// The ends that are expected (for [`Restart::OnUnexpected`], and for the report).
    pub expected: ExitSet,
    /// The ends that are never followed by another try, whatever [`Policy::restart`] says and however many tries are
    /// left: a program that ends so has a reason that a new process cannot remove, such as a mistake in its
    /// configuration. This holds for an end by itself, in the grace and later; a process that was stopped because it
    /// failed is not meant. The default is none. It is systemd's `RestartPreventExitStatus=`.
    pub prevent_restart: ExitSet,
    /// The ends that are followed by another process even if [`Policy::restart`] does not say so: a job asks to be
    /// run again. Whether such a restart uses up the crash budget depends on [`Policy::expected`], as for every other.
    /// The default is none. It is systemd's `RestartForceExitStatus=`.
    pub force_restart: ExitSet,
    /// Whether an expected exit before the end of the grace is a failed start even under [`Restart::Never`], and is
    /// retried. That is supervisord's rule. It is off by default: a job that does its work at once is done, and
    /// `Exited`. Under the other rules the process must stay, and such an exit is always a failed start. An exit
    /// before the process has reported its readiness is always a failed start too ([`Startup::Notify`]).
    pub early_exit_fails: bool,
    /// The number of retries after failed starts in a row: `n` allows `n + 1` spawns.
    pub start_retries: u32,
    /// Whether a permanent spawn error (for example a missing program) is retried. The default is true, as in
    /// supervisord: the program can be installed later.
    pub retry_permanent: bool,
    /// Whether a temporary spawn error (EAGAIN, ENOMEM, EMFILE) uses up a start retry. The default is false: a
    /// shortage of the machine is no fault of the program, and giving up would outlast the shortage. The wait before
    /// each try grows nevertheless.
    pub count_shortages: bool,
    /// The wait before the n-th try after n failed starts.
    pub backoff: Delay,
    /// The wait before a process that ran and ended is started again, by the number of such restarts since it was
    /// last stable. The default is none. After an expected exit of a run that was shorter than [`Policy::BRIEF_RUN`]
    /// it is at least [`Policy::BRIEF_RUN_PAUSE`].
    pub restart_delay: Delay,
    /// Whether [`Policy::restart_delay`] begins at the end of the run, which is the default, or at its start. A service
    /// that ran for an hour need not wait after that.
    pub restart_delay_from: DelayFrom,
    /// How many restarts since the process was last stable follow at once, before [`Policy::restart_delay`] begins with
    /// its first wait. The default is 0. Kubernetes restarts a container once at once, and then after growing waits.
    pub immediate_restarts: u32,
    /// The part of each wait, in percent from 0 to 100, of which up to all is taken away at random: of
    /// [`Policy::backoff`], [`Policy::restart_delay`] and [`Policy::cool_off`]. So instances that failed together do not
    /// start together. The default is 0. The random numbers are drawn from the instance's seed.
    pub jitter: u8,
    /// The number of restarts after a crash within a window; `None` for no bound. An [expected](Policy::expected)
    /// exit is no crash: it uses up no budget, and a loop of such exits is slowed down and never given up.
    pub crash_budget: Option<CrashBudget>,
    /// The number of restarts after a crash within a window for all instances of a group together; `None` for no such
    /// bound, which is the default. It holds besides [`Policy::crash_budget`], which each instance has for itself. See
    /// [`GroupSpec::shared_budget`](crate::GroupSpec::shared_budget). A lifecycle alone counts its own crashes.
    pub shared_budget: Option<CrashBudget>,
    /// What the end of one instance means for its siblings, if it ran and is started again. The default is
    /// [`Strategy::OneForOne`]: nothing. See [`GroupSpec::strategy`](crate::GroupSpec::strategy). With another strategy a
    /// lifecycle alone, too, goes on after its delay only by [`Input::StartWithSiblings`](super::Input::StartWithSiblings).
    pub strategy: Strategy,
    /// What it means for the group that an instance has ended for good by itself. The default is
    /// [`AutoShutdown::Never`]: nothing. See [`GroupSpec::auto_shutdown`](crate::GroupSpec::auto_shutdown).
    pub auto_shutdown: AutoShutdown,
    /// An uptime after which earlier crashes are forgotten. The default is 60 s.
    pub stable_after: Duration,
    /// The time after which a `Fatal` process is started again; `None` for never.
    pub cool_off: Option<Duration>,
    /// How a process is stopped.
    pub stop: StopLadder,
    /// How a process that missed its [watchdog](Policy::watchdog) is stopped; `None` as by [`Policy::stop`]. A ladder
    /// that begins with SIGABRT leaves a core dump of the process that hangs. Its [scope](StopLadder::scope) must be that
    /// of [`Policy::stop`].
    pub watchdog_stop: Option<StopLadder>,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            startup: Startup::Grace(Duration::from_secs(1)),
            watchdog: None,
            run_timeout: None,
            before_run: None,
            after_run: None,
            restart: Restart::OnUnexpected,
            expected: ExitSet::SUCCESS,
            prevent_restart: ExitSet::EMPTY,
            force_restart: ExitSet::EMPTY,
            early_exit_fails: false,
            start_retries: 3,
            retry_permanent: true,
            count_shortages: false,
            backoff: Delay::Linear {
                step: Duration::from_secs(1),
                cap: Duration::MAX,
            },
            restart_delay: Delay::NONE,
            restart_delay_from: DelayFrom::End,
            immediate_restarts: 0,
            jitter: 0,
            crash_budget: Some(CrashBudget {
                max: 10,
                window: Duration::from_secs(10),
            }),
            shared_budget: None,
            strategy: Strategy::OneForOne,
            auto_shutdown: AutoShutdown::Never,
            stable_after: Duration::from_secs(60),
            cool_off: None,
            stop: StopLadder::default(),
            watchdog_stop: None,
        }
    }
}

impl Policy {
    /// A run that is shorter than this and ends as expected is followed by a pause: 1 s.
    pub const BRIEF_RUN: Duration = Duration::from_secs(1);

    /// The shortest wait before the restart after a brief run that ended as expected: 100 ms. Without it, a program
    /// that exits at once would occupy a processor, since no budget bounds such restarts.
    pub const BRIEF_RUN_PAUSE: Duration = Duration::from_millis(100);

    /// Checks the values of this policy.
    ///
    /// ```
    /// # use pidherd::lifecycle::PolicyError;
    /// # use pidherd::Policy;
    /// # use std::time::Duration;
    /// let policy = Policy::new().watchdog(Duration::ZERO);
    /// assert_eq!(policy.validate(), Err(PolicyError::Watchdog));
    /// ```
    ///
    /// # Errors
    /// The first fault; see [`PolicyError`].
    pub fn validate(&self) -> Result<(), PolicyError> {
        if self.watchdog.is_some_and(|silence| silence.is_zero()) {
            return Err(PolicyError::Watchdog);
        }
        if self.run_timeout.is_some_and(|limit| limit.after.is_zero()) {
            return Err(PolicyError::RunTimeout);
        }
        if [self.before_run, self.after_run].contains(&Some(Duration::ZERO)) {
            return Err(PolicyError::CommandLimit);
        }
        if let Some(exit) = self.prevent_restart.common(&self.force_restart) {
            return Err(PolicyError::Contradiction(exit));
        }
        if matches!(
            (self.startup, self.restart),
            (Startup::Completes { .. }, Restart::Always)
        ) {
            return Err(PolicyError::CompletesAlways);
        }
        if self.jitter > 100 {
            return Err(PolicyError::Jitter(self.jitter));
        }
        for budget in self.budgets() {
            budget.validate()?;
        }
        if let Some(ladder) = &self.watchdog_stop {
            ladder.validate()?;
            if ladder.scope() != self.stop.scope() {
                return Err(PolicyError::WatchdogScope);
            }
        }
        self.stop.validate()
    }

    /// The budgets that a crash must fit into.
    pub(crate) fn budgets(&self) -> impl Iterator<Item = CrashBudget> + use<> {
        self.crash_budget.into_iter().chain(self.shared_budget)
    }

    /// The largest number of crashes that a lifecycle remembers under this policy.
    pub(crate) fn most_crashes(&self) -> usize {
        let most = self.budgets().map(|budget| budget.max.min(CrashBudget::LIMIT)).max();
        most.map_or(0, usize::from)
    }

    /// The numbers of the commands that its ladders run.
    pub(crate) fn stop_commands(&self) -> impl Iterator<Item = u8> + '_ {
        let ladders = [Some(&self.stop), self.watchdog_stop.as_ref()];
        ladders.into_iter().flatten().flat_map(StopLadder::commands)
    }

    /// Whether any signal of its ladders has this very scope.
    pub(crate) fn has_scope(&self, scope: Scope) -> bool {
        let ladders = [Some(&self.stop), self.watchdog_stop.as_ref()];
        ladders.into_iter().flatten().any(|ladder| ladder.has(scope))
    }

    /// Whether this exit within the grace is the end: of a job, or because the policy prevents another try.
    pub(super) fn is_done_early(&self, exit: Exit) -> bool {
        let is_job = match (self.startup, self.restart) {
            (Startup::Grace(_), Restart::Never) => !self.early_exit_fails,
            (Startup::Completes { .. }, _) => true,
            (Startup::Grace(_), Restart::Always | Restart::OnUnexpected) | (Startup::Notify { .. }, _) => false,
        };
        self.prevent_restart.contains(exit)
            || (is_job && self.expected.contains(exit) && !self.force_restart.contains(exit))
    }

    /// Whether a process that ran is started again after it ended so by itself.
    pub(super) fn restarts_after(&self, exit: Exit) -> bool {
        match self.restart {
            _ if self.prevent_restart.contains(exit) => false,
            _ if self.force_restart.contains(exit) => true,
            Restart::Always => true,
            Restart::OnUnexpected => !self.expected.contains(exit),
            Restart::Never => false,
        }
    }
}

/// When a started process counts as running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Startup {
    /// The process has lived this long after exec succeeded; zero: as soon as exec has succeeded.
    Grace(Duration),
    /// The process reports readiness within this time from its spawn (the host passes it on as
    /// [`Input::Ready`](super::Input::Ready)). If it does not, it is stopped and the start has failed.
    Notify {
        /// The longest wait for readiness.
        timeout: Duration,
    },
    /// The process is a job that others wait for ([`GroupSpec::after`](crate::GroupSpec::after)): its start has
    /// succeeded when it has ended as [expected](Policy::expected), and it is `Exited` from then on, never `Running`.
    /// Every other end is a failed start, and is retried. A job that takes longer than this is stopped, and the start
    /// has failed. It cannot be combined with [`Restart::Always`]. It is systemd's `Type=oneshot`.
    Completes {
        /// The longest time of the job; [`Duration::MAX`] for no limit.
        timeout: Duration,
    },
}

impl Startup {
    pub(super) fn limit(self) -> Duration {
        match self {
            Startup::Grace(time) | Startup::Notify { timeout: time } | Startup::Completes { timeout: time } => time,
        }
    }
}

/// The longest time of a run. A process that is still running then is stopped by the ladder, and the run has
/// [timed out](super::RunEnd::TimedOut).
///
/// For a job ([`Restart::Never`]) it is a limit: the job ends as a failure. For a service it is a renewal every so
/// often: under the other rules the process is started again. That uses up no crash budget, because the host has asked
/// for it, and it waits as long as [`Policy::restart_delay`] says.
///
/// ```
/// use std::time::Duration;
/// use pidherd::lifecycle::{Policy, RunTimeout};
///
/// // Renewed every day. The hours spread the renewals of many instances evenly.
/// let hour = Duration::from_secs(3_600);
/// let daily = Policy::new().run_timeout(RunTimeout::new(hour * 20).extra(hour * 4));
/// assert!(daily.validate().is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RunTimeout {
    /// The time that each run has, counted from its spawn; not zero. A process that is still starting is not stopped
    /// for it: its start has a limit of its own ([`Policy::startup`]).
    pub after: Duration,
    /// A random part of this time is added, another one for each run. Zero for none.
    pub extra: Duration,
}

/// Whether a process that reached `Running` and ended by itself is started again. Failed starts are retried
/// independently of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Restart {
    /// Always. A loop of expected exits is slowed down ([`Policy::restart_delay`]), a crash loop is given up
    /// ([`Policy::crash_budget`]).
    Always,
    /// Unless it ended as expected.
    OnUnexpected,
    /// Never: a job that runs once. An expected exit ends it even within the grace ([`Policy::early_exit_fails`]).
    /// A failure within the grace is a failed start, which is still tried again ([`Policy::start_retries`]).
    Never,
}

/// A set of ends: exit codes, and signals that end a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitSet {
    codes: [u64; 4],
    signals: SignalSet,
}

impl ExitSet {
    /// The set without any end.
    pub const EMPTY: ExitSet = ExitSet {
        codes: [0; 4],
        signals: SignalSet::EMPTY,
    };

    /// The set with the exit code 0 alone.
    pub const SUCCESS: ExitSet = ExitSet::EMPTY.code(0);

    /// Adds `code`.
    ///
    /// ```
    /// # use pidherd::Exit;
    /// # use pidherd::lifecycle::ExitSet;
    /// let expected = ExitSet::SUCCESS.code(2).code(3);
    /// assert!(expected.contains(Exit::Code(0)) && expected.contains(Exit::Code(3)));
    /// ```
    #[must_use]
    #[allow(clippy::indexing_slicing, reason = "a u8 that is shifted right by 6 is at most 3")]
    pub const fn code(mut self, code: u8) -> ExitSet {
        self.codes[(code >> 6) as usize] |= 1 << (code & 63);
        self
    }

    /// Adds death by `signal`.
    ///
    /// ```
    /// # use pidherd::lifecycle::ExitSet;
    /// # use pidherd::{Exit, Signal};
    /// // A server that ends by SIGTERM has ended well.
    /// let expected = ExitSet::SUCCESS.signal(Signal::TERM);
    /// assert!(expected.contains(Exit::Signal { signal: Signal::TERM, core: false }));
    /// ```
    #[must_use]
    pub const fn signal(mut self, signal: Signal) -> ExitSet {
        self.signals = self.signals.with(signal);
        self
    }

    /// Whether `exit` is in the set. [`Exit::Unknown`] is in none.
    ///
    /// ```
    /// # use pidherd::Exit;
    /// # use pidherd::lifecycle::ExitSet;
    /// assert!(ExitSet::SUCCESS.contains(Exit::Code(0)));
    /// assert!(!ExitSet::SUCCESS.contains(Exit::Code(1)) && !ExitSet::SUCCESS.contains(Exit::Unknown));
    /// ```
    #[must_use]
    #[allow(clippy::indexing_slicing, reason = "a u8 that is shifted right by 6 is at most 3")]
    pub const fn contains(&self, exit: Exit) -> bool {
        match exit {
            Exit::Code(code) => self.codes[(code >> 6) as usize] & (1 << (code & 63)) != 0,
            Exit::Signal { signal, .. } => self.signals.contains(signal),
            Exit::Unknown => false,
        }
    }

    /// An end that is in both sets, if there is one.
    fn common(&self, other: &ExitSet) -> Option<Exit> {
        let codes = (0..=u8::MAX).map(Exit::Code);
        let signal = |signal| Exit::Signal { signal, core: false };
        let mut all = codes.chain(Signal::all().map(signal));
        all.find(|&exit| self.contains(exit) && other.contains(exit))
    }
}

/// The wait before another try. All forms saturate; the n of the n-th try begins at 1. [`Policy::jitter`] shortens each
/// wait by a random part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Delay {
    /// The same wait each time.
    Fixed(Duration),
    /// n times `step`, at most `cap`. supervisord waits one second more for each try.
    Linear {
        /// The increase for each try.
        step: Duration,
        /// The longest wait.
        cap: Duration,
    },
    /// `first`, doubled each time, at most `cap`.
    Exponential {
        /// The first wait.
        first: Duration,
        /// The longest wait.
        cap: Duration,
    },
}

impl Delay {
    /// No wait at all.
    pub const NONE: Delay = Delay::Fixed(Duration::ZERO);

    /// The wait before the `n`-th try, without jitter.
    ///
    /// ```
    /// # use pidherd::Delay;
    /// # use std::time::Duration;
    /// let (first, cap) = (Duration::from_millis(100), Duration::from_secs(1));
    /// let waits: Vec<_> = (1..=5).map(|n| Delay::Exponential { first, cap }.delay(n).as_millis()).collect();
    /// assert_eq!(waits, [100, 200, 400, 800, 1_000]);
    /// ```
    #[must_use]
    pub fn delay(self, n: u32) -> Duration {
        match self {
            Delay::Fixed(wait) => wait,
            Delay::Linear { step, cap } => step.saturating_mul(n).min(cap),
            Delay::Exponential { first, cap } => {
                let doublings = n.saturating_sub(1).min(127);
                let wait = first.as_nanos().saturating_mul(1 << doublings).min(cap.as_nanos());
                // A `u64` of nanoseconds ends after 584 years, and so do the clocks.
                Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
            }
        }
    }
}

/// When a wait begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum DelayFrom {
    /// At the end of the run.
    End,
    /// At the spawn of the run: after a run that lasted as long as the wait, nothing is left of it.
    Start,
}

/// The limit of restarts: at most `max` automatic restarts after a crash within any `window`. After one more crash,
/// the process is given up (the rule of Erlang's supervisors). A crash is an exit that the policy does not
/// [expect](Policy::expected), or a missed watchdog. A restart counts from its crash, even if it begins later: after
/// its [delay](Policy::restart_delay), or when fewer spawns are in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CrashBudget {
    /// The number of restarts; 0 allows none.
    pub max: u16,
    /// The length of the sliding window.
    pub window: Duration,
}

impl CrashBudget {
    /// The largest `max`.
    pub const LIMIT: u16 = CRASHES_MAX;

    fn validate(self) -> Result<(), PolicyError> {
        if self.window.is_zero() {
            return Err(PolicyError::CrashWindow);
        }
        if self.max > CrashBudget::LIMIT {
            return Err(PolicyError::CrashBudget(self.max));
        }
        Ok(())
    }
}

stored!(struct Policy {
    startup,
    watchdog,
    run_timeout,
    before_run,
    after_run,
    restart,
    expected,
    prevent_restart,
    force_restart,
    early_exit_fails,
    start_retries,
    retry_permanent,
    count_shortages,
    backoff,
    restart_delay,
    restart_delay_from,
    immediate_restarts,
    jitter,
    crash_budget,
    shared_budget,
    strategy,
    auto_shutdown,
    stable_after,
    cool_off,
    stop,
    watchdog_stop,
});
stored!(enum Startup { 0 = Grace(time), 1 = Notify { timeout }, 2 = Completes { timeout } });
stored!(struct RunTimeout { after, extra });
stored!(enum Restart { 0 = Always, 1 = OnUnexpected, 2 = Never });
stored!(struct ExitSet { codes, signals });
stored!(enum Delay { 0 = Fixed(wait), 1 = Linear { step, cap }, 2 = Exponential { first, cap } });
stored!(enum DelayFrom { 0 = End, 1 = Start });
stored!(struct CrashBudget { max, window });

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn linear_is_supervisords() {
        let backoff = Policy::default().backoff;
        assert_eq!(
            (1..=3).map(|n| backoff.delay(n)).collect::<Vec<_>>(),
            [SECOND, SECOND * 2, SECOND * 3]
        );
    }

    #[test]
    fn exponential_doubles_up_to_its_cap_and_never_overflows() {
        let backoff = Delay::Exponential {
            first: SECOND,
            cap: SECOND * 10,
        };
        let waits: Vec<_> = (1..=6).map(|n| backoff.delay(n).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        let endless = Delay::Exponential {
            first: SECOND,
            cap: Duration::MAX,
        };
        assert_eq!(endless.delay(u32::MAX), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn expected_exits_hold_every_code_and_signal() {
        for code in 0..=255 {
            let only = ExitSet::EMPTY.code(code);
            assert_eq!(
                (0..=255).filter(|&c| only.contains(Exit::Code(c))).collect::<Vec<_>>(),
                [code]
            );
        }
        let term = ExitSet::SUCCESS.signal(Signal::TERM);
        assert!(term.contains(Exit::Signal {
            signal: Signal::TERM,
            core: false
        }));
        assert!(!term.contains(Exit::Signal {
            signal: Signal::KILL,
            core: false
        }));
        assert!(!term.contains(Exit::Unknown));
    }

    #[test]
    fn nonsense_is_refused() {
        let with = |change: fn(&mut Policy)| {
            let mut policy = Policy::default();
            change(&mut policy);
            policy.validate()
        };
        assert_eq!(with(|_| ()), Ok(()));
        assert_eq!(with(|policy| policy.jitter = 100), Ok(()));
        assert_eq!(with(|policy| policy.jitter = 101), Err(PolicyError::Jitter(101)));
        let budget = |max, window| CrashBudget { max, window }.validate();
        assert_eq!(budget(3, Duration::ZERO), Err(PolicyError::CrashWindow));
        assert_eq!(budget(1_001, SECOND), Err(PolicyError::CrashBudget(1_001)));
        assert_eq!(budget(0, SECOND), Ok(()));
    }
}
