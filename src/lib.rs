//! Process supervision for Linux: spawn processes, watch them, stop them gracefully and then by force, restart them
//! under a policy, and keep N instances of a command alive.
//!
//! The host owns the event loop, and this crate owns the processes. The host waits for the descriptors of a
//! [`Supervisor`] in its own way, calls it when one is ready, and reads [`Event`]s. There are no threads, no signal
//! handlers and no global state.
//!
//! ```
//! use pidherd::{Command, Event, GroupSpec, Restart, StateName, Supervisor};
//! use rustix::event::{PollFd, PollFlags, poll};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut supervisor = Supervisor::new()?;
//! let worker = Command::new("sleep").arg("1000");
//! let group = supervisor.add(GroupSpec::new("worker", worker).instances(3).restart(Restart::Always))?;
//! supervisor.start(group)?;
//!
//! while !supervisor.is_down() {
//!     poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], None)?;
//!     supervisor.dispatch()?;
//!     while let Some(event) = supervisor.next_event() {
//!         let Event::Transition(step) = event else { continue };
//!         println!("{}: {} -> {} ({})", step.name, step.from, step.to, step.cause);
//!         // A real host stops on request, for example after a signal.
//!         if step.to == StateName::Running {
//!             supervisor.shutdown()?;
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What to read next
//!
//! - [`guide`]: a page for each task, from the first steps to cgroups, upgrades and many machines, with
//!   [recipes](guide::recipes).
//! - [`supervisor`]: groups of processes on an event loop, the two ways to wait, and what an edge-triggered host does.
//! - [`GroupSpec`] and [`Policy`]: what to run, how many instances, when to restart, how to stop.
//! - [`Command`]: everything that a process can be given, and [`Child`] for a host that needs a single process.
//! - [`Launcher`]: spawns that do not hold the event loop, for a host without a supervisor.
//! - [`cgroup`] and [`notify`]: whole trees of processes, and what processes report about themselves.
//! - [`lifecycle`]: the states, and the pure transition table behind them.
//! - [`PidFd`], [`FdSet`], [`TimerFd`] and [`SignalFd`]: the primitives. Each is useful alone.
//! - [`architecture`]: how the crate is built, for contributors.
//!
//! # Guarantees
//!
//! - No call panics, whatever the state or the order of calls. Invalid input is a typed error, and has no effect.
//! - Two processes of one instance are never alive at the same time.
//! - Dropping a [`Supervisor`] or a [`Child`] leaves no process and no zombie. The drop waits a bounded time for
//!   SIGKILL to take effect.
//! - An exit of a child is found with `waitid(P_PIDFD)` alone, so the exit status of another child of the host is never
//!   taken. A signal goes through a pidfd, so it never reaches a process that was given a recycled PID.
//!
//! # Features
//!
//! - `serde`, off by default: `Serialize` for [`Status`](supervisor::Status), [`Event`], [`Run`](supervisor::Run) and all
//!   that they contain, and `Deserialize` too for [`Policy`] and other plain values. A policy in a file names only what
//!   differs from the default.
//! - `sim`, off by default: the module `sim`, a supervisor on a simulated kernel and in virtual time, for a host's own
//!   tests. The trait [`Supervise`](supervisor::Supervise) has the calls that it shares with [`Supervisor`].
#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::disallowed_methods,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::print_stdout,
        clippy::print_stderr,
        reason = "the library neither panics nor prints"
    )
)]
#![cfg(target_os = "linux")]

pub mod architecture;
pub mod cgroup;
pub mod child;
pub mod command;
pub mod exit;
pub mod fdset;
pub mod group;
pub mod guide;
pub mod launcher;
pub mod lifecycle;
pub mod notify;
pub mod pidfd;
pub mod signal;
pub mod signalfd;
pub mod supervisor;
pub mod time;
pub mod timerfd;
mod waker;

// The library's own tests have another simulation, `proof`.
#[cfg(all(feature = "sim", not(test)))]
pub mod sim {
    #![doc = include_str!("simulation/about.md")]

    pub use crate::simulation::{
        Behavior, Builder, Faults, Fork, Script, ScriptError, Simulation, Span, SpawnFailure, Subject,
    };
}

mod codec;
mod deadlines;
mod engine;
mod errno;
mod growth;
mod linux;
mod lost;
mod names;
mod owner;
mod poll;
mod procfs;
#[cfg(test)]
mod proof;
mod random;
#[cfg(feature = "serde")]
mod serde_forms;
#[cfg(all(feature = "sim", not(test)))]
mod simulation;
mod sys;
#[cfg(test)]
mod testing;
// Tests in the library share what those in tests/ use.
#[cfg(test)]
extern crate self as pidherd;

pub use child::{Child, Pipes, StillAlive, Stopped};
pub use command::{
    Capabilities, Command, CommandError, Exchange, IoPriority, Lifetime, Namespace, OpenFile, Output, Pipe, Program,
    Resource, Scheduling, SpawnError, SpawnProgress, SpawnStep, Spawner, Spawning, Stdio,
};
pub use errno::SetupError;
pub use exit::{Exit, ExitRecord, NotAnExit, Pid, UnknownExit, Usage};
pub use fdset::FdSet;
pub use launcher::{LaunchId, Launcher};
pub use lifecycle::{
    AutoShutdown, CrashBudget, Delay, Lifecycle, Policy, Restart, Scope, Startup, StateName, StopLadder, Strategy,
};
pub use names::UnknownName;
pub use owner::OtherProcess;
pub use pidfd::{NotAPidFd, PidFd};
pub use signal::{Signal, SignalSet};
pub use signalfd::{MaskGuard, NotASignalFd, SignalFd};
pub use supervisor::{Error, Event, GroupId, GroupSpec, InstanceId, Supervisor, Target};
pub use timerfd::{Clock, NotATimerFd, TimerFd};
pub use waker::Waker;

/// The examples of the front page compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
