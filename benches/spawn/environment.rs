//! What the host is like: how many descriptors it has open, how much memory it uses.

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::fd::OwnedFd;

use super::options::Options;

/// One environment. The descriptors come on top of the few that the contenders themselves keep.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
pub struct Environment {
    /// Bytes.
    pub memory: usize,
    pub descriptors: usize,
}

pub const GIB: usize = 1 << 30;
pub const FEW: usize = 10;
pub const MANY: usize = 15_000;

/// What the contenders and the standard streams need beside the crowd.
const ROOM: u64 = 200;

impl Environment {
    pub fn all(options: &Options) -> Vec<Environment> {
        let sizes = if options.small { [0, 1 << 20] } else { [0, GIB] };
        let most = raise_limit();
        let mut all = Vec::new();
        for memory in sizes {
            for descriptors in [FEW, 1_000, MANY] {
                if descriptors as u64 + ROOM > most {
                    println!("{descriptors} descriptors: n/a: the limit is {most}");
                    continue;
                }
                all.push(Environment { memory, descriptors });
            }
        }
        all
    }

    /// Each with an open file of its own, as pidfds have: copying a table touches every one of them.
    pub fn fill_descriptors(&self) -> Vec<OwnedFd> {
        let made = (0..self.descriptors).map(|_| eventfd(0, EventfdFlags::CLOEXEC));
        made.collect::<Result<_, _>>().unwrap_or_else(|error| {
            eprintln!("cannot open {} descriptors: {error}", self.descriptors);
            std::process::exit(1);
        })
    }
}

/// The soft limit, after it was made equal to the hard one.
fn raise_limit() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // Refused or not, what counts is what it is then.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Memory that is really there.
#[derive(Debug)]
pub struct Memory {
    pub size: usize,
    _pages: Vec<u8>,
}

impl Memory {
    pub fn new(size: usize) -> Memory {
        Memory {
            size,
            _pages: vec![1; size],
        }
    }
}
