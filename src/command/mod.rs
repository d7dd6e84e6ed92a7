//! What to run, and with what around it.
//!
//! A [`Command`] is a description: plain data that can be cloned and compared (a reload wants to know what
//! changed). [`Command::compile`] checks it and lowers it to a [`Program`], the list of system calls
//! that a child is to make; a [`Spawner`] runs that, as often as wanted. Everything is declared: no closure of the
//! host runs in the child, since nothing could check that it leaves the host's memory alone.

mod builder;
mod capability;
mod compile;
mod env;
pub mod error;
mod identity;
mod lost;
mod lower;
mod memory;
mod plan;
mod program;
mod settings;
mod slots;
mod spawner;
mod stdio;
#[cfg(test)]
mod tests;

pub use builder::Command;
pub use capability::Capabilities;
pub use error::{CommandError, SpawnError, SpawnStep};
pub use program::Program;
pub use settings::Resource;
pub(crate) use spawner::{Flown, InFlight};
pub use spawner::{SpawnProgress, Spawner, Spawning};
pub use stdio::{OpenFile, Stdio};
