//! The lifecycle of one process: pure, without a clock, a system call or an allocation.
//!
//! [`Lifecycle::handle`] takes what happened and the time, and returns what it means: the
//! [`Transition`]s to tell about and at most one [`Action`] to carry out. Whoever drives it (the
//! [`Supervisor`](crate::Supervisor), a simulation, a test) carries the action out, comes back with the
//! result as the next [`Input`], and calls with [`Input::Timeout`] when [`Lifecycle::deadline`] has
//! passed. Spurious calls are harmless: an input that means nothing in a state changes nothing.
//!
//! What is *wanted* is kept apart from what *is*: a start while the process is still being stopped
//! is remembered, and never makes a second incarnation.
//!
//! The whole behaviour is one `match` in `table.rs`. These are the states, and the ways between
//! them that it takes:
//!
#![doc = include_str!("states.svg")]
//!
//! What it answers to each input in each state is written out in [`TRANSITIONS`]. Both are
//! generated from the table, and a test keeps them current:
//!
//! ```text
#![doc = include_str!("transitions.txt")]
//! ```
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use pidherd::lifecycle::{Action, Input, Lifecycle, Policy, Reply, StateName};
//! use pidherd::time::Instant;
//!
//! let policy = Policy::default();
//! let mut life = Lifecycle::new(&policy, 0);
//! let now = Instant::from_nanos(1);
//!
//! let reaction = life.handle(&policy, Input::Start, now);
//! assert_eq!(reaction.reply, Reply::Accepted);
//! assert_eq!(reaction.action, Some(Action::Spawn));
//!
//! // The program is missing: another try is due in a second.
//! life.handle(&policy, Input::SpawnFailed { errno: 2, permanent: true }, now);
//! assert_eq!(life.state().name(), StateName::Backoff);
//! assert_eq!(life.deadline(), Some(now.saturating_add(Duration::from_secs(1))));
//! ```

mod end;
mod policy;
mod restart;
mod state;
mod stop;
mod table;

pub use end::RunEnd;
pub use policy::{Backoff, CrashBudget, ExpectedExits, Policy, PolicyError, Restart, Startup};
pub use state::{Cause, Failed, Failure, Left, Prospect, State, StateName, Stopping, Transition, Wanted};
pub use stop::{Rung, Scope, StopLadder};

use std::time::Duration;

use crate::exit::{Exit, Pid};
use crate::signal::Signal;
use crate::time::Instant;
use restart::Counters;

/// What every input does in every state, under each class of policy, as a table to read.
pub const TRANSITIONS: &str = include_str!("transitions.txt");

/// Something that happened to a process, or is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Input {
    /// Be up. Counters begin anew: a start by hand is exempt from every budget.
    Start,
    /// Be down, by the ladder.
    Stop,
    /// Down by the ladder, and up again; just up where it is down.
    Restart,
    /// Be down, by SIGKILL now.
    Kill,
    /// [`Action::Spawn`] succeeded, and the process has executed its program.
    Spawned(Pid),
    /// The process exists, and has not executed its program yet: the spawn is in flight.
    Cloned(Pid),
    /// The process in flight has executed its program.
    Executed,
    /// The spawn failed: there is no process, or a step between its birth and its program failed. That is the end of the
    /// process, and no [`Input::Exited`] follows.
    SpawnFailed {
        /// The kernel's reason.
        errno: i32,
        /// Trying again as things are cannot help.
        permanent: bool,
    },
    /// The process ended.
    Exited(Exit),
    /// The process ended by itself, and others of the stop's scope live on: the run is over when they are gone.
    ExitedLeaving(Exit),
    /// Nothing of the stop's scope is alive (the answer to [`Action::Look`]).
    Empty,
    /// The process says that it is ready.
    Ready,
    /// The process closed its readiness descriptor without a message. A failure only while readiness is awaited.
    NotReady,
    /// The process that is being stopped had ended by itself when its stop began.
    EndedBefore,
    /// The process says that it is alive: its watchdog begins anew.
    Alive,
    /// The process says that its start, or its end, takes at least this long from now on.
    Extend(Duration),
    /// The process is alive and has failed: it is stopped, and then judged as if it had ended.
    Failed(Failure),
    /// The deadline has passed.
    Timeout,
}

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Spawn the process. The answer is [`Input::Spawned`] or [`Input::SpawnFailed`]; or at first [`Input::Cloned`], and then
    /// [`Input::Executed`] or [`Input::SpawnFailed`].
    Spawn,
    /// Send this, and SIGCONT with it in the order that [`Rung::sequence`] gives.
    Signal {
        /// The signal of the rung.
        signal: Signal,
        /// The processes that it is sent to.
        scope: Scope,
    },
    /// Look whether anything of this scope is alive; [`Input::Empty`] if not, nothing otherwise.
    Look {
        /// Of what.
        scope: Scope,
        /// How many times it has been looked for before, of the last few dozen: a careful look may cost more.
        looks: u8,
    },
    /// Tell the host that SIGKILL has not worked within the ladder's patience.
    ReportUnkillable,
}

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// It took effect.
    Accepted,
    /// Things were already as asked.
    Already,
    /// It is remembered, and takes effect when the process that is being stopped is gone.
    Queued,
    /// It means nothing in this state (any more).
    Ignored,
}

/// What an input led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaction {
    /// What became of the input.
    pub reply: Reply,
    /// What has to be done now, after the transitions were told.
    pub action: Option<Action>,
    /// Why the run ended, if the input ended one.
    pub end: Option<RunEnd>,
    transitions: [Option<Transition>; Reaction::MOST],
}

impl Reaction {
    /// No input leads to more transitions: a late exit goes through Running, Exited and Starting.
    const MOST: usize = 3;

    const NOTHING: Reaction = Reaction {
        reply: Reply::Ignored,
        action: None,
        end: None,
        transitions: [None; Reaction::MOST],
    };

    /// The steps taken, in order.
    pub fn transitions(&self) -> impl Iterator<Item = Transition> + use<> {
        self.transitions.into_iter().flatten()
    }

    fn push(&mut self, transition: Transition) {
        if let Some(free) = self.transitions.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(transition);
        }
    }
}

/// The lifecycle of one process; see the [module](self).
#[derive(Clone, Debug)]
pub struct Lifecycle {
    state: State,
    wanted: Wanted,
    counters: Counters,
    runs: u64,
}

impl Lifecycle {
    /// A process that was never started. `seed` is what its jitter is drawn from: give each
    /// instance another one. The policy only tells how much room to reserve.
    #[must_use]
    pub fn new(policy: &Policy, seed: u64) -> Lifecycle {
        Lifecycle {
            state: State::Stopped,
            wanted: Wanted::Down,
            counters: Counters::new(policy, seed),
            runs: 0,
        }
    }

    /// Takes an input in, under this policy, at this time. Never panics, whatever the order.
    pub fn handle(&mut self, policy: &Policy, input: Input, now: Instant) -> Reaction {
        table::Turn::new(self, policy, now).take(input)
    }

    /// Whether the process counts as running only when it reports that it is ready, and has not done so.
    #[must_use]
    pub const fn awaits_readiness(&self, policy: &Policy) -> bool {
        matches!(self.state, State::Starting { .. }) && matches!(policy.startup, Startup::Notify { .. })
    }

    /// Whether the deadline judges the process for a message that did not come: what it has sent must be read before.
    #[must_use]
    pub const fn judges_silence(&self, policy: &Policy) -> bool {
        matches!(self.state, State::Running { .. }) || self.awaits_readiness(policy)
    }

    /// Whether it makes a difference, when the process ends now, that others of the stop's scope are alive.
    #[must_use]
    pub fn judges_others(&self, policy: &Policy) -> bool {
        policy.stop.scope() > Scope::Process && !matches!(self.state, State::Stopping(_))
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// What the host wishes.
    #[must_use]
    pub const fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// When to come back with [`Input::Timeout`], if at all.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.state.deadline()
    }

    /// Failed starts in a row.
    #[must_use]
    pub const fn failed_starts(&self) -> u32 {
        self.counters.failed_starts
    }

    /// Automatic restarts after it ran, since it was last stable or started by hand.
    #[must_use]
    pub const fn restarts(&self) -> u32 {
        self.counters.restarts
    }

    /// How many times it was spawned, or tried to be.
    #[must_use]
    pub const fn runs(&self) -> u64 {
        self.runs
    }
}

#[cfg(test)]
mod cases;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod graph;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod tests;
