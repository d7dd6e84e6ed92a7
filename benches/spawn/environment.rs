//! The environments: how many descriptors the host has open, and how much memory it uses.

use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::OwnedFd;

use super::descriptors::{ROOM, raise_limit};
use super::options::Options;

/// One environment.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
pub struct Environment {
    /// The memory that the host uses, in bytes.
    pub memory: usize,
    /// The number of open descriptors, without the few that the contenders themselves keep.
    pub descriptors: usize,
}

pub const GIB: usize = 1 << 30;
pub const FEW: usize = 10;
pub const MANY: usize = 15_000;

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

    /// Opens the descriptors. Each has an open file description of its own, as pidfds have: to copy such a
    /// table, the kernel must touch every one of them.
    pub fn fill_descriptors(&self) -> Vec<OwnedFd> {
        let made = (0..self.descriptors).map(|_| eventfd(0, EventfdFlags::CLOEXEC));
        made.collect::<Result<_, _>>().unwrap_or_else(|error| {
            eprintln!("cannot open {} descriptors: {error}", self.descriptors);
            std::process::exit(1);
        })
    }
}

/// Resident memory: every page is written to, so the kernel really maps it.
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
