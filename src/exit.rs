//! How a process ended, and what it used up until then.

use std::fmt;
use std::num::NonZeroU32;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use crate::signal::Signal;

/// A process id, for showing.
///
/// The library never acts on one: a number may be recycled, a pidfd may not. So there is no way to
/// make a `Pid` out of a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(NonZeroU32);

impl Pid {
    /// The id that the kernel gave, or `None` where the number names no process.
    pub(crate) const fn new(raw: u32) -> Option<Pid> {
        match NonZeroU32::new(raw) {
            Some(raw) => Some(Pid(raw)),
            None => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn as_raw(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Debug for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Exit {
    /// It called `_exit` with this code (0 to 255).
    Code(u8),
    /// A signal killed it.
    Signal {
        /// Which one.
        signal: Signal,
        /// Whether it left a core dump.
        core: bool,
    },
    /// It is gone, and nothing can tell how: somebody else reaped it, on a kernel before 6.15.
    Unknown,
}

impl Exit {
    /// Whether it ended with code 0.
    #[must_use]
    pub const fn success(self) -> bool {
        matches!(self, Exit::Code(0))
    }

    /// The code, if it ended with one.
    #[must_use]
    pub const fn code(self) -> Option<u8> {
        match self {
            Exit::Code(code) => Some(code),
            Exit::Signal { .. } | Exit::Unknown => None,
        }
    }

    /// The signal, if one killed it.
    #[must_use]
    pub const fn signal(self) -> Option<Signal> {
        match self {
            Exit::Signal { signal, .. } => Some(signal),
            Exit::Code(_) | Exit::Unknown => None,
        }
    }

    /// The standard library's form, core-dump bit included; `None` for [`Exit::Unknown`].
    #[must_use]
    pub fn to_std(self) -> Option<ExitStatus> {
        let raw = match self {
            Exit::Code(code) => i32::from(code) << 8,
            Exit::Signal { signal, core } => signal.as_raw() | if core { 0x80 } else { 0 },
            Exit::Unknown => return None,
        };
        Some(ExitStatus::from_raw(raw))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exited with code {code}"),
            Exit::Signal { signal, core: false } => write!(f, "killed by {signal}"),
            Exit::Signal { signal, core: true } => write!(f, "killed by {signal}, core dumped"),
            Exit::Unknown => f.write_str("ended, nobody knows how"),
        }
    }
}

/// What a process used between its start and its end, its own reaped children included
/// (getrusage(2), as `waitid` reports it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// CPU time spent in user mode.
    pub user: Duration,
    /// CPU time spent in the kernel.
    pub system: Duration,
    /// The largest resident set, in bytes.
    ///
    /// Never less than the host's own was when it spawned the process: the kernel counts the memory before
    /// exec, which is the host's. For the peak of a small process, look at its cgroup's `memory.peak`.
    pub max_rss: u64,
    /// Page faults that needed I/O.
    pub major_faults: u64,
    /// Page faults that needed none.
    pub minor_faults: u64,
}

/// What reaping a process told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExitRecord {
    /// Who it was. The number may by now be somebody else's.
    pub pid: Pid,
    /// How it ended.
    pub exit: Exit,
    /// What it used; all zero where the kernel could not tell ([`Exit::Unknown`], or reaped by
    /// somebody else).
    pub usage: Usage,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_and_signal_survives_the_way_to_std() {
        for code in 0..=u8::MAX {
            let status = Exit::Code(code).to_std().unwrap();
            assert_eq!(status.code(), Some(i32::from(code)));
        }
        for raw in 1..=64 {
            let signal = Signal::from_raw(raw).unwrap();
            for core in [false, true] {
                let status = Exit::Signal { signal, core }.to_std().unwrap();
                assert_eq!(status.signal(), Some(raw));
                assert_eq!(status.core_dumped(), core);
            }
        }
        assert_eq!(Exit::Unknown.to_std(), None);
    }
}
