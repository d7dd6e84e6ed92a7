//! A long random walk: unusual policies that are replaced at any time, random behaviour of the process, and
//! impossible inputs.
//!
//! `PIDHERD_SEED=… cargo test --lib random_walk` repeats one episode. `PIDHERD_STEPS=…` sets another number
//! of steps.

use std::time::Duration;

use super::super::{
    AutoShutdown, CrashBudget, Delay, DelayFrom, ExitSet, Failure, Input, Policy, Restart, RunTimeout, Rung, Scope,
    Startup, StopLadder, Strategy,
};
use super::checked::Checked;
use super::reach::{Spawn, assert_start_succeeds, assert_stop_succeeds};
use crate::exit::Exit;
use crate::random::Random;
use crate::signal::Signal;
use crate::time::Instant;

const STEPS: u64 = 300_000;
const EPISODE: u64 = 300;

#[test]
fn random_walk() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text: String| text.parse::<u64>().unwrap())
    };
    if let Some(seed) = number("PIDHERD_SEED") {
        return episode(seed);
    }
    for seed in 0..number("PIDHERD_STEPS").unwrap_or(STEPS).div_ceil(EPISODE) {
        episode(seed);
    }
}

fn episode(seed: u64) {
    let _replay = Replay(seed);
    let mut dice = Dice(Random::new(seed));
    let mut policy = dice.policy();
    let mut checked = Checked::new(&policy, seed);
    let mut now = match dice.below(20) {
        0 => Instant::NEVER.saturating_sub(dice.duration().max(Duration::from_nanos(1))),
        _ => Instant::from_nanos(dice.below(1 << 50)),
    };
    for _ in 0..EPISODE {
        if dice.below(50) == 0 {
            policy = dice.policy();
        }
        now = dice.later(&checked, now);
        let input = dice.input(&checked);
        checked.handle(&policy, input, now);
        if dice.below(10) == 0 {
            let spawn = dice.of(&[Spawn::Succeeds, Spawn::Fails, Spawn::Hangs]);
            assert_stop_succeeds(checked.clone(), &policy, now, spawn);
            assert_start_succeeds(checked.clone(), &policy, now);
        }
    }
}

/// Prints the command that repeats a failed episode.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("PIDHERD_SEED={} cargo test --lib random_walk", self.0);
        }
    }
}

/// A source of random policies, times and inputs.
struct Dice(Random);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0.below(end)
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        let choice = self.below(choices.len() as u64);
        choices[usize::try_from(choice).unwrap()]
    }

    fn duration(&mut self) -> Duration {
        let random = self.below(10_000);
        self.of(&[
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_millis(1),
            Duration::from_millis(random),
            Duration::from_secs(1),
            Duration::from_secs(10),
            Duration::from_secs(100_000),
            Duration::from_nanos(u64::MAX),
            Duration::MAX,
        ])
    }

    fn backoff(&mut self) -> Delay {
        let (first, cap) = (self.duration(), self.duration());
        self.of(&[
            Delay::NONE,
            Delay::Fixed(first),
            Delay::Linear { step: first, cap },
            Delay::Exponential { first, cap },
        ])
    }

    fn policy(&mut self) -> Policy {
        let limit = self.duration();
        let budget = CrashBudget {
            max: self.of(&[0, 1, 2, 5, CrashBudget::LIMIT]),
            window: self.duration().max(Duration::from_nanos(1)),
        };
        let (rest, silence) = (self.duration(), self.duration());
        let nano = Duration::from_nanos(1);
        let around = (self.duration().max(nano), self.duration().max(nano));
        let policy = Policy {
            startup: self.of(&[Startup::Grace(limit), Startup::Notify { timeout: limit }]),
            watchdog: self.of(&[None, Some(silence.max(Duration::from_nanos(1)))]),
            run_timeout: self.run_timeout(),
            before_run: self.of(&[None, Some(around.0)]),
            after_run: self.of(&[None, Some(around.1)]),
            restart: self.of(&[Restart::Always, Restart::OnUnexpected, Restart::Never]),
            expected: self.of(&[ExitSet::EMPTY, ExitSet::SUCCESS]),
            prevent_restart: self.of(&[ExitSet::EMPTY, ExitSet::EMPTY.code(1)]),
            force_restart: self.of(&[ExitSet::EMPTY, ExitSet::SUCCESS]),
            early_exit_fails: self.of(&[false, true]),
            start_retries: self.of(&[0, 1, 3, u32::MAX]),
            retry_permanent: self.of(&[false, true]),
            count_shortages: self.of(&[false, true]),
            backoff: self.backoff(),
            restart_delay: self.backoff(),
            restart_delay_from: self.of(&[DelayFrom::End, DelayFrom::Start]),
            immediate_restarts: self.of(&[0, 0, 1, u32::MAX]),
            jitter: self.of(&[0, 20, 100]),
            crash_budget: self.of(&[None, Some(budget)]),
            shared_budget: self.of(&[None, Some(budget)]),
            strategy: self.of(Strategy::ALL),
            auto_shutdown: self.of(AutoShutdown::ALL),
            stable_after: self.duration(),
            cool_off: self.of(&[None, Some(rest)]),
            stop: self.ladder(),
            watchdog_stop: None,
        };
        policy.validate().unwrap();
        policy
    }

    fn run_timeout(&mut self) -> Option<RunTimeout> {
        let (after, extra) = (self.duration().max(Duration::from_nanos(1)), self.duration());
        self.of(&[None, Some(RunTimeout { after, extra })])
    }

    fn ladder(&mut self) -> StopLadder {
        let kill = self.of(&[Scope::Process, Scope::ProcessGroup]);
        let rungs = self.of(&[0, 1, 1, 2, 3, StopLadder::LIMIT as u64]);
        let rung = |dice: &mut Dice| {
            let signal = dice.of(&[Signal::TERM, Signal::INT, Signal::KILL]);
            // A scope must not be wider than that of the SIGKILL at the end.
            let scope = dice.of(&[Scope::Process, kill]);
            match dice.of(&[true, true, false]) {
                true => Rung::new(signal, scope, dice.duration()),
                false => Rung::command(0, Duration::from_secs(1), dice.duration()),
            }
        };
        StopLadder {
            rungs: (0..rungs).map(|_| rung(self)).collect(),
            kill,
            patience: self.duration(),
        }
    }

    /// A later time: often the deadline, or just before it, or long after it.
    fn later(&mut self, checked: &Checked, now: Instant) -> Instant {
        let deadline = checked.life.deadline().unwrap_or(now);
        let then = match self.below(8) {
            0..3 => deadline,
            3 => deadline.saturating_sub(Duration::from_nanos(1)),
            4 => deadline.saturating_add(self.duration().min(Duration::from_secs(100_000))),
            5 => now.saturating_add(Duration::from_millis(self.below(3_000))),
            _ => now,
        };
        // The instant NEVER must not be reached.
        then.max(now)
            .min(Instant::NEVER.saturating_sub(Duration::from_nanos(1)))
    }

    /// Mostly a possible input, sometimes an impossible one.
    fn input(&mut self, checked: &Checked) -> Input {
        let exit = self.of(&[Exit::Code(0), Exit::Code(1), Exit::Unknown]);
        let failure = self.of(&[
            Failure::Watchdog,
            Failure::NotReady,
            Failure::TimedOut,
            Failure::Unhealthy,
        ]);
        let permanent = self.below(2) == 0;
        let spawn_failed = Input::SpawnFailed { errno: 2, permanent };
        let extension = self.duration();
        let command = self.of(&[Input::Start, Input::Stop, Input::Restart, Input::Kill]);
        let spawned = Input::Spawned(checked.pid());
        let cloned = Input::Cloned(checked.pid());
        let any_input = [
            command,
            spawned,
            cloned,
            Input::Executed,
            Input::SpawnWithdrawn,
            Input::Adopted(checked.next_pid()),
            Input::Released,
            Input::NotReady,
            Input::EndedBefore,
            spawn_failed,
            Input::Exited(exit),
            Input::ExitedLeaving(exit),
            Input::Empty,
            Input::Ready,
            Input::Alive,
            Input::PolicyChanged,
            Input::Extend(extension),
            Input::Failed(failure),
            Input::StopWithSiblings,
            Input::StartWithSiblings,
            Input::Timeout,
        ];
        match self.below(10) {
            0 => self.of(&any_input),
            1 | 2 => command,
            3..6 => Input::Timeout,
            6 if checked.model.command => self.of(&[
                Input::StopCommandEnded { succeeded: true },
                Input::StopCommandEnded { succeeded: false },
                Input::StopCommandUnkillable,
            ]),
            _ if checked.model.spawn_pending => self.of(&[spawned, cloned, Input::SpawnWithdrawn, spawn_failed]),
            _ if checked.model.in_flight => self.of(&[
                Input::Executed,
                spawn_failed,
                Input::Exited(exit),
                Input::ExitedLeaving(exit),
                Input::Ready,
            ]),
            _ if checked.model.leader => self.of(&[
                Input::Exited(exit),
                Input::ExitedLeaving(exit),
                Input::Ready,
                Input::NotReady,
                Input::EndedBefore,
                Input::Alive,
                Input::Extend(extension),
                Input::Failed(failure),
                Input::Timeout,
            ]),
            _ if checked.model.others => self.of(&[Input::Empty, Input::Timeout]),
            _ => self.of(&[Input::Start, Input::Timeout, Input::StartWithSiblings]),
        }
    }
}
