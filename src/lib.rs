//! Supervise processes and groups of processes on Linux.
//!
//! You own the event loop; this crate owns the processes. Hand its descriptors to your epoll, call
//! [`Supervisor::process_ready`] with the one that is ready, and read [`Event`]s. There is no thread, no
//! signal handler, no global state, no `waitpid`, and no PID that could be somebody else's.
//!
//! # The map
//!
//! ```text
//! supervisor      drives: feeds events, executes actions; arena, descriptors, deadlines
//!    |        \
//!  group       command -> child          what to run; a spawned child that owns its pidfd
//!    |             |
//! lifecycle     fdset, timerfd, signalfd raw descriptors for any epoll; deadlines behind a timerfd
//!  (pure)       cgroup, notify          whole trees of processes; what processes say of themselves
//!    \             |
//!     \           sys                    all unsafe code: clone3, waitid, signalfd
//!      time, exit, signal                plain data, used by everyone
//! ```
//!
//! Every layer is public and useful alone. To spawn and to wait, [`Command`] and [`Child`] are enough;
//! [`lifecycle`] is a pure state machine for a host with processes of another kind; [`FdSet`],
//! [`TimerFd`] and [`SignalFd`] serve any loop. Most hosts want the [`Supervisor`]; its
//! [module](supervisor) begins with an example.
//!
//! # How a child's death is handled, in four reads
//!
//! 1. `supervisor/mod.rs`, `process`: the descriptor that is ready belongs to an instance.
//! 2. `supervisor/driver.rs`, `process_ready`: its process is reaped through the pidfd, and the exit is fed
//!    to the instance's lifecycle.
//! 3. `lifecycle/table.rs`, `step`: state and input meet in one row of the table, which says what comes of
//!    it: transitions to tell, and at most one action.
//! 4. `supervisor/driver.rs`, `carry_out`: the action is done (a spawn, a signal), its result is the
//!    next input, and what happened goes into the queue of events.
//!
//! # Guarantees
//!
//! - No call blocks, but for a spawn, which returns when exec has happened (see [`Command`]), and for
//!   dropping what is alive, which waits a bounded time for SIGKILL to work.
//! - No call panics, whatever the state or the order of calls. Wrong input is a typed error, before
//!   anything has been done.
//! - At no instant are two processes of one instance alive.
//! - Dropping a [`Supervisor`] or a [`Child`] leaves no process and no zombie.
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

pub mod cgroup;
pub mod child;
pub mod command;
pub mod exit;
pub mod fdset;
pub mod group;
pub mod launcher;
pub mod lifecycle;
pub mod notify;
pub mod pidfd;
pub mod signal;
pub mod signalfd;
pub mod supervisor;
pub mod time;
pub mod timerfd;

mod deadlines;
mod errno;
mod owner;
mod poll;
mod procfs;
mod random;
mod sys;
#[cfg(test)]
mod testing;
// Tests in the library share what those in tests/ use.
#[cfg(test)]
extern crate self as pidherd;

pub use child::{Child, Pipes};
pub use command::{
    Capabilities, Command, CommandError, OpenFile, Program, Resource, SpawnError, SpawnProgress, Spawner, Spawning,
    Stdio, Step,
};
pub use errno::SetupError;
pub use exit::{Exit, ExitRecord, Pid, Usage};
pub use fdset::FdSet;
pub use launcher::{LaunchId, Launcher};
pub use lifecycle::{Backoff, CrashBudget, Lifecycle, Policy, Restart, Scope, Startup, StateName, StopLadder};
pub use owner::OtherProcess;
pub use pidfd::PidFd;
pub use signal::{Signal, SignalSet};
pub use signalfd::{MaskGuard, SignalFd};
pub use supervisor::{Error, Event, GroupId, GroupSpec, InstanceId, Supervisor, Target};
pub use timerfd::{Clock, TimerFd};
