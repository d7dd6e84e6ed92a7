//! The border to the kernel: all `unsafe` of the crate lives here and nowhere else.
//!
//! Wrappers have no policy: borrowed descriptors in, owned ones out, the errno as it came. Whatever
//! rustix wraps is called through rustix, from the layers above; here stands only what it has not.
#![allow(unsafe_code)]

pub(crate) mod signalfd;
