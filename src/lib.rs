//! Supervise processes and groups of processes on Linux.
#![deny(unsafe_code)]
#![cfg(target_os = "linux")]

pub mod exit;
pub mod fdset;
pub mod lifecycle;
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
