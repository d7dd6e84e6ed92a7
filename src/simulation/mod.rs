//! The simulation for hosts, which is `pidherd::sim` with the feature `sim`. `about.md` is the page of that module.
//!
//! The engine is the real one. `kernel.rs` is the other side of its seam, `world.rs` has the clock and what an epoll would
//! show, `process.rs` a process with its plan, and `run.rs` the calls of the host, most of which are those of the trait
//! `Supervise`.
//!
//! The library's own proof in `sim` shares nothing with it but the engine. That simulation is there to break the engine:
//! it draws faults from a profile, keeps a log of each call for its oracles, panics at the first broken promise, and
//! searches all processes for each question. This one is there for a host's tests: it does what a script says, returns
//! errors, and its cost depends on what happens alone. A core for both would serve neither, and a change for one could
//! change the proof of the other.

mod behavior;
mod builder;
mod error;
mod faults;
mod kernel;
mod process;
mod run;
mod script;
mod span;
mod world;

pub use behavior::{Behavior, Subject};
pub use builder::Builder;
pub use error::ScriptError;
pub use faults::Faults;
pub use run::Simulation;
pub use script::{Fork, Script, SpawnFailure};
pub use span::Span;
