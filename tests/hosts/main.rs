//! The hosts that the documentation shows, in a crash storm: fifty instances that end and are restarted at once.
//!
//! Each host is the example's own source, not a copy of it.

#[path = "../common/mod.rs"]
mod common;
#[path = "../../examples/epoll.rs"]
#[expect(dead_code, reason = "the tests call its loop alone")]
mod epoll_host;
mod storm;
mod storms;
#[path = "../../examples/tokio.rs"]
#[expect(dead_code, reason = "the tests call its loop alone")]
mod tokio_host;
