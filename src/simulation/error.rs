//! What can be wrong with a script.

use std::time::Duration;

use crate::engine::ids::{GroupId, InstanceId};
use crate::signal::Signal;

/// Why a [`Behavior`](super::Behavior) cannot be assigned, or [`Faults`](super::Faults) cannot be set. Nothing has
/// changed.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// The shortest time of a span is above its longest.
    #[error("a span from {shortest:?} to {longest:?} is empty: its shortest time must not be above its longest")]
    EmptySpan {
        /// The shortest time.
        shortest: Duration,
        /// The longest time.
        longest: Duration,
    },
    /// A process is to report again and again without a time between the reports.
    #[error("a process cannot report every 0 s: the period must be above zero")]
    NoPeriod,
    /// A process is to ignore or to handle a signal that the kernel keeps to itself (signal(7)).
    #[error("a process can neither ignore nor handle {0}")]
    Uncatchable(Signal),
    /// A process is to be ended by a signal that ends no process by default (signal(7)).
    #[error("a process cannot be ended by {0}: its default action is another one")]
    NotFatal(Signal),
    /// A probability is not between 0 and 1.
    #[error("{0} is no probability: it must be from 0 to 1")]
    Share(f64),
    /// The probabilities of a behavior, or of a kind of fault, exceed 1 in sum.
    #[error("the probabilities are {0} in sum: they must be 1 at most")]
    Shares(f64),
    /// Runs are counted from 1.
    #[error("there is no run 0: runs are counted from 1")]
    NoRun,
    /// The group does not exist, or was removed.
    #[error("there is no group {0}")]
    UnknownGroup(GroupId),
    /// The instance does not exist, or was removed.
    #[error("there is no instance {0}")]
    UnknownInstance(InstanceId),
}
