//! The border to the kernel: all `unsafe` of the crate lives here and nowhere else.
//!
//! Wrappers have no policy: borrowed descriptors in, owned ones out, the errno as it came. Whatever
//! rustix wraps is called through rustix, from the layers above; here stands only what it has not.
#![allow(unsafe_code)]

pub(crate) mod arch;
pub(crate) mod child;
pub(crate) mod clone;
pub(crate) mod datagram;
pub(crate) mod descriptors;
pub(crate) mod guarded;
pub(crate) mod nr;
pub(crate) mod process;
#[cfg(test)]
pub(crate) mod refuse;
pub(crate) mod script;
pub(crate) mod settings;
pub(crate) mod signalfd;
pub(crate) mod stack;
pub(crate) mod users;
pub(crate) mod wait;
