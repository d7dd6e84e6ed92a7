//! Supervise processes and groups of processes on Linux.
#![deny(unsafe_code)]
#![cfg(target_os = "linux")]

pub mod child;
pub mod command;
pub mod exit;
pub mod fdset;
pub mod lifecycle;
pub mod pidfd;
pub mod signal;
pub mod signalfd;
pub mod time;
pub mod timerfd;

// The supervisor is what drives it; without one only its tests do.
#[cfg_attr(not(test), expect(dead_code))]
mod deadlines;
mod sys;
#[cfg(test)]
mod testing;

pub use child::{Child, Pipes};
pub use command::{Command, CommandError, OpenFile, Program, SpawnError, Spawner, Stdio, Step};
pub use pidfd::PidFd;
