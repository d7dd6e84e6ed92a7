//! Supervise processes and groups of processes on Linux.
#![deny(unsafe_code)]
#![cfg(target_os = "linux")]

pub mod exit;
pub mod lifecycle;
pub mod signal;
pub mod time;

mod sys;
