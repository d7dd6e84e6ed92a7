//! What makes processes a group: how many there are to be, and what a new description changes.
//!
//! Pure, like [`lifecycle`](crate::lifecycle): here it is decided who comes, who goes and who is
//! restarted; the supervisor carries it out.

mod plan;
mod rolling;
mod roster;

pub use plan::{Effect, Plan};
pub(crate) use rolling::Roll;
pub use rolling::Rolling;
pub(crate) use roster::Roster;
