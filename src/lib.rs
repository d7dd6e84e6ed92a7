//! Supervise processes and groups of processes on Linux.
#![deny(unsafe_code)]
#![cfg(target_os = "linux")]

pub mod child;
pub mod command;
pub mod exit;
pub mod fdset;
pub mod group;
pub mod lifecycle;
pub mod pidfd;
pub mod signal;
pub mod signalfd;
pub mod supervisor;
pub mod time;
pub mod timerfd;

mod deadlines;
mod proc;
mod sys;
#[cfg(test)]
mod testing;

pub use child::{Child, Pipes};
pub use command::{Capabilities, Command, CommandError, OpenFile, Program, Resource, SpawnError, Spawner, Stdio, Step};
pub use exit::{Exit, ExitRecord, Pid, Usage};
pub use fdset::FdSet;
pub use lifecycle::{Lifecycle, Policy, StateName};
pub use pidfd::PidFd;
pub use signal::{Signal, SignalSet};
pub use signalfd::{MaskGuard, SignalFd};
pub use supervisor::{Error, Event, GroupId, GroupSpec, InstanceId, Supervisor, Target};
pub use timerfd::{Clock, TimerFd};
