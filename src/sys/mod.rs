//! The system calls: all `unsafe` code of the crate is in this module.
//!
//! The wrappers contain no policy: they take borrowed descriptors, return owned ones, and report the errno unchanged.
//! If rustix wraps a call, the upper layers call rustix directly. This module contains only the calls that rustix
//! lacks.
#![allow(unsafe_code)]

pub(crate) mod arch;
pub(crate) mod datagram;
pub(crate) mod descriptors;
pub(crate) mod exec;
pub(crate) mod fork;
pub(crate) mod guarded;
pub(crate) mod mapping;
pub(crate) mod namespace;
pub(crate) mod nr;
pub(crate) mod process;
pub(crate) mod signalfd;
pub(crate) mod spawn;
pub(crate) mod users;
pub(crate) mod wait;
