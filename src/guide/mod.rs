//! The guide: a page for each task, with examples that compile.
//!
//! | page | contents |
//! |---|---|
//! | [`first_steps`] | from one process to a group that stays alive |
//! | [`recipes`] | sixteen typical tasks |
//! | [`hosts`] | a host on each kind of event loop |
//! | [`life`] | a process's life as a line of time, and the settings that rule it |
//! | [`trees`] | stopping whole trees of processes |
//! | [`readiness`] | readiness, watchdogs, and a host's own checks |
//! | [`cgroups`] | cgroups, limits, and how to be delegated a directory |
//! | [`limits`] | what a process may use, what it has used, and what ended it |
//! | [`order`] | which group starts first, and what stops with what |
//! | [`init`] | a container's init |
//! | [`logs`] | collecting and rotating logs |
//! | [`sockets`] | passing sockets and other descriptors |
//! | [`reloads`] | rolling restarts, reloads, scaling |
//! | [`continuity`] | upgrades and crashes of the host |
//! | [`machines`] | a host under systemd, Kubernetes, Nomad and Docker |
//! | [`errors`] | each error with its cause and remedy |
//! | [`kernels`] | defaults, costs, and the kernel that each feature needs |
//! | [`coming_from`] | from std, tokio, supervisord, systemd or s6 |
//! | [`comparison`] | what others do, and what they do better |
#![cfg_attr(feature = "sim", doc = "| [`simulation`] | testing a policy in virtual time |")]
//!
//! Contributors start at [`architecture`](crate::architecture).

macro_rules! pages {
    ($($page:ident)*) => {
        $(
            pub mod $page {
                #![doc = include_str!(concat!(stringify!($page), ".md"))]
            }
        )*
    };
}

pub mod life {
    //! A process's life: the states on a line of time, and the settings that rule each part.
    //!
    #![doc = include_str!("timeline.svg")]
    //!
    #![doc = include_str!("life.md")]
}

pages! {
    cgroups
    coming_from
    continuity
    errors
    first_steps
    init
    limits
    logs
    machines
    order
    readiness
    recipes
    reloads
    sockets
    trees
}

pub mod comparison {
    #![doc = include_str!("comparison.md")]
    //!
    #![doc = include_str!("start_cost.svg")]
    //!
    #![doc = include_str!("spawn_cost.svg")]
}

pub mod kernels {
    #![doc = include_str!("kernels.md")]
    #![doc = include_str!("kernels/defaults.md")]
    #![doc = include_str!("kernels/costs.md")]
    #![doc = include_str!("kernels/waits.md")]
    #![doc = include_str!("kernels/allocates.md")]
    #![doc = include_str!("kernels/allocations.md")]
    #![doc = include_str!("kernels/takes.md")]
    #![doc = include_str!("kernels/descriptors.md")]
    #![doc = include_str!("kernels/versions.md")]
    #![doc = include_str!("kernel_table.md")]
}

// The page links to items of the feature.
#[cfg(feature = "sim")]
pub mod simulation {
    #![doc = include_str!("simulation.md")]
}

pub mod hosts {
    #![doc = include_str!("hosts.md")]
    #![doc = include_str!("hosts_table.md")]

    /// A page for each loop: its text, and the programs in the directory of the examples.
    macro_rules! loops {
        ($($page:ident: $($program:ident)*;)*) => {
            $(
                pub mod $page {
                    #![doc = include_str!(concat!("hosts/", stringify!($page), ".md"))]
                    $(
                        #![doc = ""]
                        #![doc = concat!("# `examples/", stringify!($program), ".rs`")]
                        #![doc = ""]
                        #![doc = "```no_run"]
                        #![doc = include_str!(concat!("../../examples/", stringify!($program), ".rs"))]
                        #![doc = "```"]
                    )*
                }
            )*
        };
    }

    loops! {
        poll: poll;
        epoll: epoll epoll_numbers;
        mio: mio mio_each;
        polling: polling;
        async_io: async_io;
        calloop: calloop;
        tokio: tokio tokio_each;
        io_uring: io_uring;
    }
}
