//! The decisions about a group: its number of instances, the effect of a changed description, and the order
//! of a rolling restart.
//!
//! This module is pure, like [`lifecycle`](crate::lifecycle). It decides which instances are created, stopped
//! and restarted. The supervisor carries the decisions out.

mod plan;
mod rolling;
mod roster;

pub use plan::{Effect, ReloadPlan};
pub(crate) use rolling::Roll;
pub use rolling::Rolling;
pub(crate) use roster::Roster;
