//! The system calls: all `unsafe` code of the crate is in this module.
//!
//! The wrappers contain no policy: they take borrowed descriptors, return owned ones, and report the errno
//! unchanged. If rustix wraps a call, the upper layers call rustix directly. This module contains only the
//! calls that rustix lacks.
#![allow(unsafe_code)]

pub(crate) mod arch;
pub(crate) mod capabilities;
pub(crate) mod child;
pub(crate) mod clone;
pub(crate) mod datagram;
pub(crate) mod descriptors;
pub(crate) mod flight;
pub(crate) mod fork;
pub(crate) mod guarded;
mod interpreter;
pub(crate) mod nr;
mod parent;
pub(crate) mod process;
#[cfg(test)]
pub(crate) mod refuse;
pub(crate) mod script;
pub(crate) mod settings;
pub(crate) mod signalfd;
pub(crate) mod stack;
pub(crate) mod users;
pub(crate) mod wait;
