//! The decisions about many processes: groups, requests, rolling restarts, the history of runs, the queue of events.
//!
//! It is pure over one seam ([`kernel`]): it has no descriptor, makes no system call, and reads no clock by itself. The
//! [`lifecycle`](crate::lifecycle) decides about one process. [`core`] gives the inputs to the lifecycles, and carries
//! out their decisions through the seam. [`turn`] is one turn of the host's loop.

mod adoption;
pub(crate) mod arena;
mod by_hand;
pub(crate) mod commands;
pub(crate) mod context;
pub(crate) mod core;
pub(crate) mod drop;
pub(crate) mod error;
pub(crate) mod event;
mod group_names;
pub(crate) mod history;
pub(crate) mod ids;
pub(crate) mod image;
pub(crate) mod instance;
pub(crate) mod kernel;
mod limits;
mod lines;
mod memory;
mod order;
pub(crate) mod place;
pub(crate) mod progress;
mod reactions;
pub(crate) mod record;
pub(crate) mod recovery;
pub(crate) mod reports;
pub(crate) mod request;
mod requests;
pub(crate) mod rolling;
mod room;
pub(crate) mod round;
pub(crate) mod run;
pub(crate) mod run_command;
mod siblings;
mod spawning;
pub(crate) mod spec;
mod spec_around;
mod spec_siblings;
pub(crate) mod status;
pub(crate) mod stop_command;
pub(crate) mod stop_of;
mod telling;
#[cfg(test)]
mod tests;
pub(crate) mod turn;
