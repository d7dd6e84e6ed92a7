//! The state of one process, its counters, and queries about them.

use std::time::Duration;

use super::policy::{Policy, Startup};
use super::restart::Counters;
use super::state::{Part, State, Wanted};
use super::stop::Scope;
use super::strategy::Joint;
use crate::codec::stored;
use crate::time::Instant;

/// The lifecycle of one process; see the [module](super).
///
/// ```
/// use pidherd::lifecycle::{Action, Input, Lifecycle, Policy, StateName};
/// use pidherd::time::Instant;
///
/// let policy = Policy::default();
/// let mut life = Lifecycle::new(&policy, 1);
/// let reaction = life.handle(&policy, Input::Start, Instant::ZERO);
/// assert_eq!(reaction.action, Some(Action::Spawn));
/// assert_eq!(life.state().name(), StateName::Starting);
/// ```
#[derive(Clone, Debug)]
pub struct Lifecycle {
    pub(super) state: State,
    pub(super) wanted: Wanted,
    pub(super) counters: Counters,
    pub(super) runs: u64,
    /// Whether the command before the present run has succeeded.
    pub(super) prepared: bool,
    /// Its part in a restart together with its siblings.
    pub(super) joint: Joint,
}

impl Lifecycle {
    /// Makes the lifecycle of a process that was never started. Jitter is derived from `seed`: use a different one
    /// for each instance. The policy is used only to reserve memory.
    ///
    /// ```
    /// # use pidherd::lifecycle::{Lifecycle, Policy, StateName};
    /// let policy = Policy::new().jitter(20);
    /// // Each instance has a seed of its own, so that they do not all wait for the same time.
    /// let lives: Vec<Lifecycle> = (0..3).map(|seed| Lifecycle::new(&policy, seed)).collect();
    /// assert!(lives.iter().all(|life| life.state().name() == StateName::Stopped));
    /// ```
    #[must_use]
    pub fn new(policy: &Policy, seed: u64) -> Lifecycle {
        let mut life = Lifecycle::without_room(seed);
        life.counters.reserve(policy);
        life
    }

    /// The same. The first crash allocates the memory for all.
    pub(crate) fn without_room(seed: u64) -> Lifecycle {
        Lifecycle {
            state: State::Stopped,
            wanted: Wanted::Down,
            counters: Counters::new(seed),
            runs: 0,
            prepared: false,
            joint: Joint::None,
        }
    }

    /// An upper limit for the length of its encoding under this policy.
    pub(crate) fn longest_encoding(&self, policy: &Policy) -> usize {
        /// More than everything but the crashes takes.
        const FIXED: usize = 256;
        FIXED + 8 * self.counters.room(policy)
    }

    /// Whether the process is starting and must still report its readiness to count as running.
    ///
    /// ```
    /// # use pidherd::lifecycle::{Input, Lifecycle, Policy, Startup};
    /// # use pidherd::time::Instant;
    /// # use std::time::Duration;
    /// let policy = Policy::new().startup(Startup::Notify { timeout: Duration::from_secs(30) });
    /// let mut life = Lifecycle::new(&policy, 1);
    /// life.handle(&policy, Input::Start, Instant::ZERO);
    /// assert!(life.awaits_readiness(&policy));
    /// ```
    #[must_use]
    pub const fn awaits_readiness(&self, policy: &Policy) -> bool {
        matches!(self.state, State::Starting { .. }) && matches!(policy.startup, Startup::Notify { .. })
    }

    /// Whether the deadline is a failure of the process because no message came. Then all messages must be read
    /// before the timeout.
    ///
    /// ```
    /// # use pidherd::lifecycle::{Input, Lifecycle, Policy, Startup};
    /// # use pidherd::time::Instant;
    /// # use std::time::Duration;
    /// let policy = Policy::new().startup(Startup::Notify { timeout: Duration::from_secs(30) });
    /// let mut life = Lifecycle::new(&policy, 1);
    /// life.handle(&policy, Input::Start, Instant::ZERO);
    /// if life.judges_silence(&policy) {
    ///     // The host reads all messages that have come, before it passes on the timeout.
    /// }
    /// let late = Instant::ZERO.saturating_add(Duration::from_secs(30));
    /// # assert!(life.judges_silence(&policy));
    /// life.handle(&policy, Input::Timeout, late);
    /// ```
    #[must_use]
    pub const fn judges_silence(&self, policy: &Policy) -> bool {
        matches!(self.state, State::Running { .. }) || self.awaits_readiness(policy)
    }

    /// Whether other living processes of the stop's scope make a difference when the process ends now.
    ///
    /// ```
    /// # use pidherd::lifecycle::{Lifecycle, Policy};
    /// # use pidherd::{Scope, Signal, StopLadder};
    /// # use std::time::Duration;
    /// let ladder = StopLadder::signal(Signal::TERM, Scope::ProcessGroup, Duration::from_secs(10));
    /// let (alone, group) = (Policy::new(), Policy::new().stop(ladder));
    /// let life = Lifecycle::new(&alone, 1);
    /// // With the second policy the host looks for other processes of the group, for Input::ExitedLeaving.
    /// assert!(!life.judges_others(&alone) && life.judges_others(&group));
    /// ```
    #[must_use]
    pub fn judges_others(&self, policy: &Policy) -> bool {
        policy.stop.scope() > Scope::Process && !matches!(self.state, State::Stopping(_))
    }

    /// The current state.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The wanted state.
    #[must_use]
    pub const fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// The time for [`Input::Timeout`](super::Input::Timeout); `None` if nothing is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.state.deadline()
    }

    /// The number of failed starts in a row.
    #[must_use]
    pub const fn failed_starts(&self) -> u32 {
        self.counters.failed_starts
    }

    /// The number of automatic restarts after a run, since the process was last stable or started by request.
    #[must_use]
    pub const fn restarts(&self) -> u32 {
        self.counters.restarts
    }

    /// The number of runs, including those in which nothing could be spawned.
    #[must_use]
    pub const fn runs(&self) -> u64 {
        self.runs
    }

    /// The number of crashes that count within a window that ends now.
    pub(crate) fn crashes_within(&self, window: Duration, now: Instant) -> usize {
        self.counters.crashes_within(window, now)
    }

    /// A number for the process of the present state. No other process of this lifecycle has it: a run has at most one
    /// process for each of its parts.
    pub(crate) const fn process_number(&self) -> u64 {
        let part = match self.state.part() {
            Part::Before => 1,
            // A stop command has a lifecycle of its own, in which it is the program.
            Part::Program | Part::Stop => 2,
            Part::After => 3,
        };
        self.runs.saturating_mul(4).saturating_add(part)
    }

    /// Puts a lifecycle that is at rest into its first state again.
    pub(crate) fn rest(&mut self) {
        (self.state, self.wanted) = (State::Stopped, Wanted::Down);
        self.counters.forget();
    }

    /// For tests of the image of a lifecycle.
    #[cfg(test)]
    pub(crate) const fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// Clears all counters, for tests of the image of a lifecycle.
    #[cfg(test)]
    pub(crate) fn forget(&mut self) {
        self.counters.forget();
    }

    /// Ends its part in a joint restart, for the same tests.
    #[cfg(test)]
    pub(crate) fn forget_siblings(&mut self) {
        self.joint = Joint::None;
    }
}

stored!(struct Lifecycle { state, wanted, counters, runs, prepared, joint });
