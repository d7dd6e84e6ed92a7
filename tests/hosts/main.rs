//! The example hosts: in storms of fifty instances that end and are restarted at once, and the length of their glue.
//!
//! Each host is the example's own source, not a copy of it.

#[path = "../common/mod.rs"]
mod common;
mod glue;
mod storm;
mod storms;

/// The examples, each as a module.
macro_rules! examples {
    ($($name:ident = $path:literal,)*) => {
        $(
            #[path = $path]
            #[expect(dead_code, reason = "the tests call its loop alone")]
            mod $name;
        )*
    };
}

examples! {
    async_io_host = "../../examples/async_io.rs",
    calloop_host = "../../examples/calloop.rs",
    epoll_host = "../../examples/epoll.rs",
    epoll_numbers_host = "../../examples/epoll_numbers.rs",
    io_uring_host = "../../examples/io_uring.rs",
    mio_host = "../../examples/mio.rs",
    mio_each_host = "../../examples/mio_each.rs",
    poll_host = "../../examples/poll.rs",
    polling_host = "../../examples/polling.rs",
    tokio_host = "../../examples/tokio.rs",
    tokio_each_host = "../../examples/tokio_each.rs",
}
