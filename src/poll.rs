//! Waits for a descriptor. Only this module sleeps, and it decides how `EINTR` is handled.
//!
//! A signal handler of the host interrupts poll(2), with `SA_RESTART` or without. Then the wait continues for the
//! remaining time. A wait for the full time would never end if the handler ran more often than that time. Calls that do
//! not wait are repeated by rustix's `retry_on_intr`.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// The longest single poll(2). A longer wait is made in several calls, so that no time is too long for the kernel.
const ONE_POLL: Duration = Duration::from_secs(3_600);

/// Waits until the descriptor is ready for one of `events`, or has an error or a hangup; at most until `until`. Returns
/// whether it is ready.
///
/// A time in the past means a check without a wait. With no events, only an error or a hangup counts.
pub(crate) fn wait_for(fd: impl AsFd, events: PollFlags, until: Option<Instant>) -> io::Result<bool> {
    loop {
        let left = until.map_or(ONE_POLL, |until| until.saturating_duration_since(Instant::now()));
        let last = left <= ONE_POLL && until.is_some();
        let timeout = Timespec::try_from(left.min(ONE_POLL)).unwrap_or_default();
        match poll(&mut [PollFd::new(&fd, events)], Some(&timeout)) {
            Ok(0) if last => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The same for any of several descriptors. Returns which of them are ready; `None` if none of them is in time.
pub(crate) fn wait_for_any<const N: usize>(
    watched: [Option<PollFd<'_>>; N],
    until: Option<Instant>,
) -> io::Result<Option<[bool; N]>> {
    let mut present: Vec<PollFd<'_>> = watched.iter().flatten().cloned().collect();
    loop {
        let left = until.map_or(ONE_POLL, |until| until.saturating_duration_since(Instant::now()));
        let last = left <= ONE_POLL && until.is_some();
        let timeout = Timespec::try_from(left.min(ONE_POLL)).unwrap_or_default();
        match poll(&mut present, Some(&timeout)) {
            Ok(0) if last => return Ok(None),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    let mut results = present.iter().map(|fd| !fd.revents().is_empty());
    Ok(Some(watched.map(|fd| fd.is_some() && results.next().unwrap_or(false))))
}

/// Whether the descriptor is ready for one of `events` now.
pub(crate) fn is_ready(fd: impl AsFd, events: PollFlags) -> io::Result<bool> {
    wait_for(fd, events, Some(Instant::now()))
}
