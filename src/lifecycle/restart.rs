//! Counters that survive a run, and the decision about another try.

use std::collections::VecDeque;
use std::time::Duration;

use super::policy::{CrashBudget, DelayFrom, Policy};
use crate::codec::stored;
use crate::random::Random;
use crate::time::Instant;

/// The counters of one lifecycle: two separate budgets, and the source of its jitter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Counters {
    /// Failed starts in a row.
    pub(super) failed_starts: u32,
    /// The failed starts in a row that use up retries.
    tries_used: u32,
    /// Automatic restarts since it was last stable.
    pub(super) restarts: u32,
    /// The times of the crashes in the window. The memory for all of them is reserved at once, at the latest for the first
    /// one, so that later restarts do not allocate.
    crashes: VecDeque<Instant>,
    random: Random,
}

impl Counters {
    pub(super) const fn new(seed: u64) -> Counters {
        Counters {
            failed_starts: 0,
            tries_used: 0,
            restarts: 0,
            crashes: VecDeque::new(),
            random: Random::new(seed),
        }
    }

    /// How many crashes may be in the window at a time.
    pub(super) fn room(&self, policy: &Policy) -> usize {
        policy.most_crashes().max(self.crashes.len())
    }

    /// Reserves memory for the crashes that the policy allows.
    pub(super) fn reserve(&mut self, policy: &Policy) {
        let room = policy.most_crashes().saturating_sub(self.crashes.len());
        self.crashes.reserve_exact(room);
    }

    /// Clears all counters, for a start by request.
    pub(super) fn forget(&mut self) {
        self.started();
        self.forget_crashes();
    }

    /// Clears the failed starts after a successful start.
    pub(super) fn started(&mut self) {
        (self.failed_starts, self.tries_used) = (0, 0);
    }

    /// Counts a failed start. Returns the wait before the next one, or `None` if no retry is left. A shortage uses up
    /// no retry unless the policy counts it.
    pub(super) fn start_failed(&mut self, policy: &Policy, shortage: bool) -> Option<Duration> {
        self.failed_starts = self.failed_starts.saturating_add(1);
        if policy.count_shortages || !shortage {
            self.tries_used = self.tries_used.saturating_add(1);
        }
        if self.tries_used > policy.start_retries {
            return None;
        }
        Some(self.shortened(policy.backoff.delay(self.failed_starts), policy))
    }

    /// Counts the length of a run: a stable run clears the counters.
    pub(super) fn ran_for(&mut self, uptime: Duration, policy: &Policy) {
        if uptime >= policy.stable_after {
            self.forget_crashes();
        }
    }

    /// Counts an automatic restart after a crash. Returns the wait before it, or `None` if a budget is used up.
    /// `others` is the number of crashes of the other instances within the window of the shared budget.
    pub(super) fn crashed(
        &mut self,
        policy: &Policy,
        others: usize,
        uptime: Duration,
        now: Instant,
    ) -> Option<Duration> {
        self.spend(policy, others, now).then_some(())?;
        Some(self.restarted(policy, uptime))
    }

    /// The number of remembered crashes within a window that ends now.
    pub(super) fn crashes_within(&self, window: Duration, now: Instant) -> usize {
        let latest = self.crashes.iter().rev();
        latest
            .take_while(|&&at| now.saturating_duration_since(at) <= window)
            .count()
    }

    /// Counts an automatic restart after an expected exit, and returns the wait before it. Such an exit uses up no
    /// budget, so a pause after each brief run slows a loop of them down.
    pub(super) fn ended_as_expected(&mut self, policy: &Policy, uptime: Duration) -> Duration {
        let shortest = match uptime < Policy::BRIEF_RUN {
            true => Policy::BRIEF_RUN_PAUSE,
            false => Duration::ZERO,
        };
        self.restarted(policy, uptime).max(shortest)
    }

    /// A random part of this time, from nothing to all of it.
    pub(super) fn part_of(&mut self, most: Duration) -> Duration {
        if most.is_zero() {
            return most;
        }
        // A `u64` of nanoseconds ends after 584 years, and so do the clocks.
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        let part = (u128::from(self.random.next_u64()) * (u128::from(most) + 1)) >> 64;
        Duration::from_nanos(u64::try_from(part).unwrap_or(most))
    }

    /// Counts an automatic restart after a run of this length, and returns the policy's wait before it.
    pub(super) fn restarted(&mut self, policy: &Policy, uptime: Duration) -> Duration {
        self.restarts = self.restarts.saturating_add(1);
        let wait = match self.restarts.saturating_sub(policy.immediate_restarts) {
            0 => Duration::ZERO,
            n => policy.restart_delay.delay(n),
        };
        let wait = self.shortened(wait, policy);
        match policy.restart_delay_from {
            DelayFrom::End => wait,
            DelayFrom::Start => wait.saturating_sub(uptime),
        }
    }

    /// The wait, without a random part of it as large as the policy's jitter.
    pub(super) fn shortened(&mut self, wait: Duration, policy: &Policy) -> Duration {
        let most = wait.saturating_mul(u32::from(policy.jitter.min(100)));
        // What is saturated is longer than any wait that ends.
        let most = if most == Duration::MAX { wait } else { most / 100 };
        wait.saturating_sub(self.part_of(most))
    }

    /// Whether one more crash fits into each budget's window, which ends now. Crashes that are older than every window
    /// are forgotten.
    fn spend(&mut self, policy: &Policy, others: usize, now: Instant) -> bool {
        let Some(longest) = policy.budgets().map(|budget| budget.window).max() else {
            return true;
        };
        let recent = self.crashes_within(longest, now);
        self.crashes.drain(..self.crashes.len() - recent);
        let fits = |budget: CrashBudget, others: usize| {
            self.crashes_within(budget.window, now).saturating_add(others) < usize::from(budget.max)
        };
        let fits = policy.crash_budget.is_none_or(|budget| fits(budget, 0))
            && policy.shared_budget.is_none_or(|budget| fits(budget, others));
        if fits {
            self.reserve(policy);
            self.crashes.push_back(now);
        }
        fits
    }

    fn forget_crashes(&mut self) {
        self.restarts = 0;
        self.crashes.clear();
    }
}

stored!(struct Counters { failed_starts, tries_used, restarts, crashes, random });

#[cfg(test)]
mod tests {
    use super::super::Delay;
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn policy(max: u16, window: u64) -> Policy {
        Policy {
            crash_budget: Some(CrashBudget {
                max,
                window: Duration::from_secs(window),
            }),
            ..Policy::default()
        }
    }

    #[test]
    fn n_retries_allow_n_more_tries() {
        let policy = Policy {
            start_retries: 2,
            ..Policy::default()
        };
        let mut counters = Counters::new(0);
        let waits: Vec<_> = (0..4).map(|_| counters.start_failed(&policy, false)).collect();
        assert_eq!(
            waits,
            [Some(Duration::from_secs(1)), Some(Duration::from_secs(2)), None, None]
        );
        counters.forget();
        assert_eq!(counters.start_failed(&policy, false), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_shortage_uses_no_try_up_but_makes_the_wait_longer() {
        let patient = Policy {
            start_retries: 0,
            ..Policy::default()
        };
        let mut counters = Counters::new(0);
        let waits: Vec<_> = (0..3).map(|_| counters.start_failed(&patient, true)).collect();
        assert_eq!(waits, [1, 2, 3].map(|seconds| Some(Duration::from_secs(seconds))));
        assert_eq!(counters.start_failed(&patient, false), None);
        let strict = Policy {
            count_shortages: true,
            ..patient
        };
        assert_eq!(Counters::new(0).start_failed(&strict, true), None);
    }

    #[test]
    fn the_window_slides() {
        let policy = policy(2, 10);
        let mut counters = Counters::new(0);
        let fits: Vec<_> = [0, 5, 10, 11, 14, 16]
            .map(|s| counters.crashed(&policy, 0, Duration::ZERO, at(s)).is_some())
            .to_vec();
        // The crash at 0 has left the window at 11, the one at 5 at 16; a crash that did not fit is not stored.
        assert_eq!(fits, [true, true, false, true, false, true]);
    }

    #[test]
    fn no_budget_is_no_bound_and_zero_is_none() {
        let mut counters = Counters::new(0);
        let unbounded = Policy {
            crash_budget: None,
            ..Policy::default()
        };
        assert!((0..1_000).all(|_| counters.crashed(&unbounded, 0, Duration::ZERO, at(0)).is_some()));
        assert_eq!(counters.crashed(&policy(0, 1), 0, Duration::ZERO, at(0)), None);
    }

    #[test]
    fn an_expected_exit_uses_up_no_budget_and_waits_after_a_brief_run() {
        let policy = policy(1, 1_000);
        let mut counters = Counters::new(0);
        let (brief, long) = (Policy::BRIEF_RUN - Duration::from_nanos(1), Policy::BRIEF_RUN);
        for _ in 0..100 {
            assert_eq!(counters.ended_as_expected(&policy, brief), Policy::BRIEF_RUN_PAUSE);
            assert_eq!(counters.ended_as_expected(&policy, long), Duration::ZERO);
        }
        assert_eq!(counters.restarts, 200);
        assert!(counters.crashed(&policy, 0, Duration::ZERO, at(0)).is_some());
        assert!(counters.crashed(&policy, 0, Duration::ZERO, at(0)).is_none());
        let patient = Policy {
            restart_delay: Delay::Fixed(Duration::from_secs(3)),
            ..policy
        };
        assert_eq!(counters.ended_as_expected(&patient, brief), Duration::from_secs(3));
    }

    #[test]
    fn a_stable_run_clears_the_slate() {
        let policy = policy(1, 1_000);
        let mut counters = Counters::new(0);
        assert!(counters.crashed(&policy, 0, Duration::ZERO, at(0)).is_some());
        counters.ran_for(Duration::from_secs(59), &policy);
        assert!(counters.crashed(&policy, 0, Duration::ZERO, at(1)).is_none());
        counters.ran_for(Duration::from_secs(60), &policy);
        assert!(counters.crashed(&policy, 0, Duration::ZERO, at(2)).is_some());
        assert_eq!(counters.restarts, 1);
    }

    #[test]
    fn the_crashes_of_others_use_up_the_shared_budget_alone() {
        let own = policy(3, 1_000);
        let shared = Policy {
            shared_budget: Some(CrashBudget {
                max: 3,
                window: Duration::from_secs(10),
            }),
            ..own
        };
        let fits = |counters: &mut Counters, policy: &Policy, others, second| {
            counters.crashed(policy, others, Duration::ZERO, at(second)).is_some()
        };
        let mut counters = Counters::new(0);
        assert!(fits(&mut counters, &shared, 2, 0), "it is the third one");
        assert!(!fits(&mut counters, &shared, 2, 1), "with its own it is the fourth one");
        assert!(
            fits(&mut counters, &shared, 2, 11),
            "its own has left the shared window"
        );
        assert!(fits(&mut counters, &shared, 1, 12));
        assert!(!fits(&mut counters, &shared, 0, 100), "its own window is longer");
        assert_eq!(counters.crashes_within(Duration::from_secs(10), at(20)), 2);
        let only_shared = Policy {
            crash_budget: None,
            ..shared
        };
        assert!(fits(&mut counters, &only_shared, 2, 100));
        assert_eq!(counters.crashes.len(), 1, "the older ones are forgotten");
    }

    #[test]
    fn counting_a_crash_allocates_nothing() {
        let policy = policy(CrashBudget::LIMIT, 10);
        let mut counters = Counters::new(0);
        counters.reserve(&policy);
        let room = counters.crashes.capacity();
        while counters.crashed(&policy, 0, Duration::ZERO, at(0)).is_some() {}
        assert_eq!(counters.crashes.len(), 1_000);
        assert_eq!(counters.crashes.capacity(), room);
    }

    #[test]
    fn jitter_only_takes_away_and_only_so_much() {
        let second = Duration::from_secs(1);
        for (jitter, shortest) in [(0, second), (25, second * 3 / 4), (100, Duration::ZERO)] {
            let policy = Policy {
                jitter,
                ..Policy::default()
            };
            let mut counters = Counters::new(7);
            let waits: Vec<_> = (0..1_000).map(|_| counters.shortened(second, &policy)).collect();
            assert!(
                waits.iter().all(|wait| (shortest..=second).contains(wait)),
                "{jitter} %"
            );
            // They are spread over all of the range.
            let middle = (shortest + second) / 2;
            assert_eq!(waits.iter().any(|&wait| wait < middle), jitter > 0);
            assert!(waits.iter().any(|&wait| wait >= middle));
            assert_eq!(counters.shortened(Duration::ZERO, &policy), Duration::ZERO);
        }
        let endless = Policy {
            jitter: 50,
            ..Policy::default()
        };
        let longest = Counters::new(7).shortened(Duration::MAX, &endless);
        assert!(longest > Duration::from_secs(u64::MAX / 1_000_000_000));
    }

    #[test]
    fn the_first_restarts_follow_at_once_and_a_long_run_need_not_wait() {
        let second = Duration::from_secs(1);
        let policy = Policy {
            restart_delay: Delay::Exponential {
                first: second * 10,
                cap: second * 300,
            },
            immediate_restarts: 1,
            ..Policy::default()
        };
        let mut counters = Counters::new(0);
        let waits: Vec<_> = (0..7)
            .map(|_| counters.restarted(&policy, second * 4).as_secs())
            .collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300]);

        let from_start = Policy {
            restart_delay_from: DelayFrom::Start,
            ..policy
        };
        let mut counters = Counters::new(0);
        let waits: Vec<_> = (0..4)
            .map(|_| counters.restarted(&from_start, second * 4).as_secs())
            .collect();
        assert_eq!(waits, [0, 6, 16, 36]);
        assert_eq!(counters.restarted(&from_start, second * 3_600), Duration::ZERO);
    }
}
