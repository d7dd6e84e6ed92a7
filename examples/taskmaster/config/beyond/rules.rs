//! The keys about restarts, delays, ends by time and stops: the parts of the library's policy that supervisord lacks.

use std::time::Duration;

use pidherd::Policy;
use pidherd::group::Rolling;
use pidherd::lifecycle::{
    AutoShutdown, CrashBudget, Delay, DelayFrom, ExitSet, RunTimeout, Rung, Scope, StopLadder, Strategy,
};
use pidherd::signal::Signal;

use super::super::keys::Keys;
use super::super::values;
use super::around::{self, Around};
use super::parts::{self, Step};

/// The keys of this part.
pub const KEYS: &[&str] = &[
    "expected_signals",
    "prevent_restart",
    "force_restart",
    "early_exit_fails",
    "retry_permanent",
    "count_shortages",
    "backoff",
    "restart_delay",
    "restart_delay_from",
    "immediate_restarts",
    "jitter",
    "crash_budget",
    "shared_crash_budget",
    "strategy",
    "autoshutdown",
    "stable_after",
    "cool_off",
    "runsecs",
    "runsecs_random",
    "stopsteps",
    "killsecs",
    "watchdog_stopsignal",
    "watchdog_stopsecs",
    "rolling",
    "rolling_surge",
];

/// The default of `watchdog_stopsecs`.
const WATCHDOG_STOP: Duration = Duration::from_secs(10);

/// The rules of a program that supervisord does not have. `None` means the library's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The signals that are expected ends.
    pub expected_signals: Vec<Signal>,
    prevent_restart: ExitSet,
    force_restart: ExitSet,
    early_exit_fails: Option<bool>,
    retry_permanent: Option<bool>,
    count_shortages: Option<bool>,
    backoff: Option<Delay>,
    restart_delay: Option<Delay>,
    restart_delay_from: Option<DelayFrom>,
    immediate_restarts: Option<u32>,
    jitter: Option<u8>,
    crash_budget: Option<Option<CrashBudget>>,
    shared_budget: Option<CrashBudget>,
    strategy: Option<Strategy>,
    auto_shutdown: Option<AutoShutdown>,
    stable_after: Option<Duration>,
    cool_off: Option<Duration>,
    run_timeout: Option<RunTimeout>,
    stopsteps: Vec<Step>,
    /// The command that a step of a stop runs.
    pub stop_command: Option<Around>,
    killsecs: Option<Duration>,
    watchdog_stop: Option<(Signal, Duration)>,
    /// How `restart` of a whole group of processes proceeds. `None` means all at once.
    pub rolling: Option<Rolling>,
}

impl Rules {
    /// Reads these keys.
    pub fn read(keys: &mut Keys<'_>) -> Rules {
        let rules = Rules {
            expected_signals: keys.optional("expected_signals", parts::signals).unwrap_or_default(),
            prevent_restart: keys.optional("prevent_restart", parts::exits).unwrap_or(ExitSet::EMPTY),
            force_restart: keys.optional("force_restart", parts::exits).unwrap_or(ExitSet::EMPTY),
            early_exit_fails: keys.optional("early_exit_fails", values::boolean),
            retry_permanent: keys.optional("retry_permanent", values::boolean),
            count_shortages: keys.optional("count_shortages", values::boolean),
            backoff: keys.optional("backoff", parts::delay),
            restart_delay: keys.optional("restart_delay", parts::delay),
            restart_delay_from: keys.optional("restart_delay_from", parts::delay_from),
            immediate_restarts: keys.optional("immediate_restarts", values::count),
            jitter: keys.optional("jitter", parts::percent),
            crash_budget: keys.optional("crash_budget", parts::crash_budget),
            shared_budget: keys.optional("shared_crash_budget", parts::crash_budget).flatten(),
            strategy: keys.optional("strategy", parts::strategy),
            auto_shutdown: keys.optional("autoshutdown", parts::auto_shutdown),
            stable_after: keys.optional("stable_after", parts::seconds),
            cool_off: keys.optional("cool_off", parts::seconds),
            run_timeout: run_timeout(keys),
            stopsteps: keys.optional("stopsteps", parts::steps).unwrap_or_default(),
            stop_command: around::read_one(keys, "stop"),
            killsecs: keys.optional("killsecs", parts::some_seconds),
            watchdog_stop: watchdog_stop(keys),
            rolling: rolling(keys),
        };
        let has_step = rules.stopsteps.iter().any(|step| matches!(step, Step::Command(_)));
        match (has_step, rules.stop_command.is_some()) {
            (true, false) if !keys.has("stop_command") => keys.complain("stopsteps", "needs stop_command"),
            (false, true) => keys.complain("stop_command", "needs a step \"command SECONDS\" in stopsteps"),
            _ => {}
        }
        if !rules.stopsteps.is_empty() {
            for key in ["stopsignal", "stopwaitsecs"] {
                if keys.has(key) {
                    keys.complain(
                        key,
                        "cannot be combined with stopsteps, which has signals and times of its own",
                    );
                }
            }
        }
        rules
    }

    /// The policy with these rules.
    pub fn apply(&self, policy: Policy) -> Policy {
        let mut policy = policy
            .prevent_restart(self.prevent_restart)
            .force_restart(self.force_restart)
            .run_timeout(self.run_timeout)
            .shared_budget(self.shared_budget)
            .cool_off(self.cool_off);
        let signals = self.expected_signals.iter();
        policy.expected = signals.fold(policy.expected, |exits, &signal| exits.signal(signal));
        put(&mut policy.early_exit_fails, self.early_exit_fails);
        put(&mut policy.retry_permanent, self.retry_permanent);
        put(&mut policy.count_shortages, self.count_shortages);
        put(&mut policy.backoff, self.backoff);
        put(&mut policy.restart_delay, self.restart_delay);
        put(&mut policy.restart_delay_from, self.restart_delay_from);
        put(&mut policy.immediate_restarts, self.immediate_restarts);
        put(&mut policy.jitter, self.jitter);
        put(&mut policy.crash_budget, self.crash_budget);
        put(&mut policy.strategy, self.strategy);
        put(&mut policy.auto_shutdown, self.auto_shutdown);
        put(&mut policy.stable_after, self.stable_after);
        policy
    }

    /// The ladders of a stop and of a missed watchdog. `ladder` is the one of supervisord's keys, and `scope` that of
    /// its first signal.
    pub fn ladders(&self, mut ladder: StopLadder, scope: Scope) -> (StopLadder, Option<StopLadder>) {
        if !self.stopsteps.is_empty() {
            let limit = self
                .stop_command
                .as_ref()
                .map_or(Duration::ZERO, |command| command.limit);
            ladder = ladder.rungs(parts::rungs(&self.stopsteps, scope, limit));
        }
        put(&mut ladder.patience, self.killsecs);
        let watchdog = self.watchdog_stop.as_ref().map(|&step| {
            let (signal, wait) = step;
            ladder.clone().rungs([Rung::new(signal, scope, wait)])
        });
        (ladder, watchdog)
    }
}

fn put<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn run_timeout(keys: &mut Keys<'_>) -> Option<RunTimeout> {
    let after = keys.optional("runsecs", parts::some_seconds);
    let extra = keys.optional("runsecs_random", parts::seconds);
    if extra.is_some() && !keys.has("runsecs") {
        keys.complain("runsecs_random", "needs runsecs");
    }
    after.map(|after| RunTimeout::new(after).extra(extra.unwrap_or_default()))
}

fn watchdog_stop(keys: &mut Keys<'_>) -> Option<(Signal, Duration)> {
    let signal = keys.optional("watchdog_stopsignal", values::signal);
    let wait = keys.optional("watchdog_stopsecs", parts::seconds);
    if !keys.has("watchdog_stopsignal") && wait.is_some() {
        keys.complain("watchdog_stopsecs", "needs watchdog_stopsignal");
    }
    if signal.is_some() && !keys.has("watchdogsecs") {
        keys.complain("watchdog_stopsignal", "needs watchdogsecs");
    }
    signal.map(|signal| (signal, wait.unwrap_or(WATCHDOG_STOP)))
}

fn rolling(keys: &mut Keys<'_>) -> Option<Rolling> {
    let unavailable = keys.optional("rolling", parts::some);
    let surge = keys.optional("rolling_surge", values::count);
    if surge.is_some() && !keys.has("rolling") {
        keys.complain("rolling_surge", "needs rolling");
    }
    unavailable.map(|unavailable| {
        let rolling = Rolling::new().max_unavailable(unavailable);
        rolling.surge(surge.unwrap_or(0))
    })
}
