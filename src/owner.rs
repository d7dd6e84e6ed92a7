//! The process that a value belongs to.
//!
//! fork(2) copies every value of a process, but not the kernel's objects behind it: the children of the original are
//! not children of the copy, and an epoll, a timerfd and a pipe are shared by both. If the copy used them, it would
//! damage the original: its children would be killed when the copy is dropped, its epoll emptied, its socket file
//! removed. So each value with such objects remembers the process that made it. In any other process its calls fail
//! with [`OtherProcess`], and dropping it only closes the copy's descriptors.
//!
//! A host that becomes a daemon must do so before it makes any of these values.

use std::io;

use crate::sys::fork::process_number;

/// A value was used in another process than the one that made it: in a copy that fork(2) made. Nothing was done.
///
/// Calls that return an [`io::Error`] have it inside, under the kind `Other`:
///
/// ```
/// use std::io;
/// use pidherd::OtherProcess;
///
/// let error = io::Error::from(OtherProcess);
/// assert!(error.get_ref().is_some_and(|inner| inner.is::<OtherProcess>()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a copy of a process that fork(2) made cannot use this value: it belongs to the original process")]
pub struct OtherProcess;

impl From<OtherProcess> for io::Error {
    fn from(other: OtherProcess) -> io::Error {
        io::Error::other(other)
    }
}

/// The process that a value was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u64);

impl Owner {
    pub(crate) fn this_process() -> Owner {
        Owner(process_number())
    }

    /// Whether the value belongs to the calling process. Makes no system call.
    pub(crate) fn is_here(self) -> bool {
        self == Owner::this_process()
    }

    pub(crate) fn check(self) -> Result<(), OtherProcess> {
        if self.is_here() { Ok(()) } else { Err(OtherProcess) }
    }
}
