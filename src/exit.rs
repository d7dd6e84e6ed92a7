//! The exit status of a process, and the resources that it used.

use std::fmt;
use std::num::NonZeroU32;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use crate::codec::{Damaged, Reader, Stored, Writer, stored};
use crate::signal::Signal;

/// The number of a process, for display only.
///
/// The library never acts on a number, because the kernel may give it to another process. It acts on a pidfd, which
/// always refers to the same process. For this reason there is no public way to make a `Pid` from a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(NonZeroU32);

impl Pid {
    /// The id for a number from the kernel. `None` for 0, which is no process.
    pub(crate) const fn new(raw: u32) -> Option<Pid> {
        match NonZeroU32::new(raw) {
            Some(raw) => Some(Pid(raw)),
            None => None,
        }
    }

    /// The process id as a number.
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

/// The exit status of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Exit {
    /// The process exited with this code (0 to 255); see _exit(2).
    Code(u8),
    /// A signal killed the process.
    Signal {
        /// The signal that killed it.
        signal: Signal,
        /// Whether the kernel wrote a core dump.
        core: bool,
    },
    /// The process was reaped and its status is not known: before Linux 6.15 this happens if another part of the host's
    /// process reaped it.
    Unknown,
}

impl Exit {
    /// Whether the process exited with code 0.
    #[must_use]
    pub const fn success(self) -> bool {
        matches!(self, Exit::Code(0))
    }

    /// The exit code. `None` if the process did not exit by itself.
    #[must_use]
    pub const fn code(self) -> Option<u8> {
        match self {
            Exit::Code(code) => Some(code),
            Exit::Signal { .. } | Exit::Unknown => None,
        }
    }

    /// The signal that killed the process. `None` if it exited by itself.
    #[must_use]
    pub const fn signal(self) -> Option<Signal> {
        match self {
            Exit::Signal { signal, .. } => Some(signal),
            Exit::Code(_) | Exit::Unknown => None,
        }
    }

    /// The status as the standard library's type, with the core-dump bit. `None` for [`Exit::Unknown`].
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

/// The same as [`Exit::to_std`].
///
/// ```
/// use pidherd::Exit;
/// use std::process::ExitStatus;
///
/// let status = ExitStatus::try_from(Exit::Code(3))?;
/// assert_eq!(status.code(), Some(3));
/// assert!(ExitStatus::try_from(Exit::Unknown).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl TryFrom<Exit> for ExitStatus {
    type Error = UnknownExit;

    fn try_from(exit: Exit) -> Result<ExitStatus, UnknownExit> {
        exit.to_std().ok_or(UnknownExit)
    }
}

/// [`Exit::Unknown`] cannot become a status of the standard library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the exit status of the process is not known")]
pub struct UnknownExit;

/// Converts a status of the standard library, for example that of a child that [`std::process::Command`] has started.
///
/// ```
/// use pidherd::{Exit, Signal};
///
/// let status = std::process::Command::new("sh").args(["-c", "kill -9 $$"]).status()?;
/// assert_eq!(Exit::try_from(status)?.signal(), Some(Signal::KILL));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl TryFrom<ExitStatus> for Exit {
    type Error = NotAnExit;

    fn try_from(status: ExitStatus) -> Result<Exit, NotAnExit> {
        if let Some(code) = status.code() {
            return u8::try_from(code).map(Exit::Code).map_err(|_| NotAnExit(status));
        }
        match status.signal().map(Signal::from_raw) {
            Some(Ok(signal)) => Ok(Exit::Signal {
                signal,
                core: status.core_dumped(),
            }),
            Some(Err(_)) | None => Err(NotAnExit(status)),
        }
    }
}

/// A status of the standard library that is not that of an ended process: the process was stopped or continued
/// (WUNTRACED, WCONTINUED in waitpid(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the wait status {:#x} is not that of an ended process", .0.into_raw())]
pub struct NotAnExit(pub ExitStatus);

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exited with code {code}"),
            Exit::Signal { signal, core: false } => write!(f, "killed by {signal}"),
            Exit::Signal { signal, core: true } => write!(f, "killed by {signal}, core dumped"),
            Exit::Unknown => f.write_str("ended with an unknown status"),
        }
    }
}

/// The resources that a process used from its start to its end, including those of its own children that it reaped
/// (getrusage(2), as `waitid` reports it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Usage {
    /// CPU time spent in user mode.
    pub user: Duration,
    /// CPU time spent in the kernel.
    pub system: Duration,
    /// The largest resident set, in bytes.
    ///
    /// The value is never smaller than the host's own resident set at the time of the spawn: until exec, the child runs
    /// in the host's memory, and the kernel counts that. The peak of a small process is in the `memory.peak` of its
    /// cgroup, which the record of a run has ([`Run::cgroup`](crate::supervisor::Run::cgroup)).
    pub max_rss: u64,
    /// The number of page faults that needed I/O.
    pub major_faults: u64,
    /// The number of page faults that needed no I/O.
    pub minor_faults: u64,
}

/// The result of reaping a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ExitRecord {
    /// The process's number. It is free again, so another process can have it now.
    pub pid: Pid,
    /// The exit status.
    pub exit: Exit,
    /// The resources that the process used. `None` if the kernel does not tell: for [`Exit::Unknown`], if another part
    /// of the host's process or another process did the reaping, and for a child that is bound to the host
    /// ([`Lifetime::Bound`](crate::Lifetime::Bound)).
    pub usage: Option<Usage>,
}

impl Stored for Pid {
    fn put(&self, to: &mut Writer<'_>) {
        self.as_raw().put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<Pid, Damaged> {
        Pid::new(u32::get(from)?).ok_or(Damaged)
    }
}

stored!(enum Exit { 0 = Code(code), 1 = Signal { signal, core }, 2 = Unknown });
stored!(struct Usage { user, system, max_rss, major_faults, minor_faults });
stored!(struct ExitRecord { pid, exit, usage });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_and_signal_converts_to_the_std_status() {
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
        assert_eq!(ExitStatus::try_from(Exit::Unknown), Err(UnknownExit));
    }

    #[test]
    fn every_exit_survives_the_way_through_the_std_status() {
        let codes = (0..=u8::MAX).map(Exit::Code);
        let signals = Signal::all().flat_map(|signal| [false, true].map(|core| Exit::Signal { signal, core }));
        for exit in codes.chain(signals) {
            let status = ExitStatus::try_from(exit).unwrap();
            assert_eq!(Exit::try_from(status), Ok(exit));
        }
    }

    #[test]
    fn the_status_of_a_stopped_or_continued_process_is_no_exit() {
        for raw in [0x137f, 0x057f, 0xffff] {
            let status = ExitStatus::from_raw(raw);
            assert_eq!(Exit::try_from(status), Err(NotAnExit(status)), "{raw:#x}");
        }
        let text = NotAnExit(ExitStatus::from_raw(0x137f)).to_string();
        assert_eq!(text, "the wait status 0x137f is not that of an ended process");
    }
}
