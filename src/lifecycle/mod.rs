//! The lifecycle of one process: pure, without a clock, a system call or an allocation.
//!
//! [`Lifecycle::handle`] takes an input and the time, and returns the reaction: the [`Transition`]s to report and at
//! most one [`Action`] to carry out. The driver (the [`Supervisor`](crate::Supervisor), a simulation, a test) carries
//! the action out, passes the result back as the next [`Input`], and calls with [`Input::Timeout`] when
//! [`Lifecycle::deadline`] has passed. Spurious calls are harmless: an input without a meaning in a state changes
//! nothing.
//!
//! The *wanted* state is separate from the *actual* state: a start while the process is still being stopped is
//! remembered, and never makes a second process.
//!
//! The whole behaviour is one `match` in `table.rs`. These are the states and the transitions between them:
//!
#![doc = include_str!("states.svg")]
//!
//! A policy can have commands before and after each run ([`Policy::before_run`], [`Policy::after_run`]). Then a run
//! begins with `PREPARING`, and `CLEANING_UP` comes between its end and what follows:
//! ```text
#![doc = include_str!("around.txt")]
//! ```
//!
//! A [ladder](StopLadder) can run [commands](Rung::Command) beside the process. [`Action::RunStopCommand`] begins one, and
//! the ladder goes on with [`Input::StopCommandEnded`].
//!
//! [`TRANSITIONS`] lists the reaction to each input in each state. Both are generated from the table, and a test
//! keeps them current:
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

mod around;
mod cause;
mod end;
mod error;
mod failure;
mod input;
mod kinds;
mod machine;
mod policy;
mod restart;
mod setters;
mod siblings;
mod state;
mod stop;
mod stops;
mod strategy;
mod table;

pub use cause::{Cause, Transition};
pub use end::RunEnd;
pub use error::PolicyError;
pub use failure::{CommandFailure, Failure, StopCommandEnd};
pub use input::{Action, Input, Reaction, Reply};
pub use kinds::{CauseName, CommandFailureName, EndName, FailureName, StopCommandEndName};
pub use machine::Lifecycle;
pub use policy::{CrashBudget, Delay, DelayFrom, ExitSet, Policy, Restart, RunTimeout, Startup};
pub use state::{Ended, Failed, Part, Phase, Prospect, Remaining, State, StateName, Stopping, Wanted};
pub use stop::{Rung, Scope, StopLadder};
pub use strategy::{AutoShutdown, Strategy};

pub(crate) use strategy::Joint;
pub(crate) use table::Own;

/// The effect of every input in every state, under each class of policy, as a table for readers.
pub const TRANSITIONS: &str = include_str!("transitions.txt");

/// The transitions to and from the commands before and after a run, for the test that compares them with the table.
#[cfg(test)]
const AROUND: &str = include_str!("around.txt");

#[cfg(test)]
mod tests;
