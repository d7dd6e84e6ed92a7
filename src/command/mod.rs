//! Commands: a program, its arguments, and the environment in which it runs.
//!
//! A [`Command`] is a description: plain data that can be cloned and compared (a reload compares commands).
//! [`Command::compile`] checks it and translates it to a [`Program`], the list of system calls for a child. A
//! [`Spawner`] starts a program any number of times. All settings are data. No closure of the host runs in the child,
//! because nothing could check that it does not change the host's memory.

mod builder;
mod capability;
mod compile;
mod descriptors;
mod display;
mod entrance;
mod env;
pub mod error;
mod exchange;
mod exec;
mod flight;
mod from_std;
mod getters;
mod identity;
mod lifetime;
mod lower;
mod lower_namespaces;
mod memory;
mod namespace;
mod plan;
mod privileges;
mod program;
mod settings;
mod slots;
mod spawner;
mod stdio;
#[cfg(test)]
mod tests;
mod unshare;

pub use builder::Command;
pub use capability::Capabilities;
pub use error::{CommandError, SpawnError, SpawnStep};
pub use exchange::{Exchange, Output};
pub(crate) use flight::{Flown, InFlight};
pub use flight::{SpawnProgress, Spawning};
pub use lifetime::Lifetime;
pub use namespace::Namespace;
pub(crate) use program::Listening;
pub use program::Program;
pub use settings::{IoPriority, Resource, Scheduling};
pub use spawner::Spawner;
pub use stdio::{OpenFile, Pipe, Stdio};
