//! A handle that wakes an event loop from another thread.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};

use crate::sys::descriptors::above_standard;

/// Wakes the host of a [`Supervisor`](crate::Supervisor) that waits in its event loop, from any thread: eventfd(2),
/// Linux 2.6.27. It is made by [`Supervisor::waker`](crate::Supervisor::waker).
///
/// A host with other threads gives them this handle and a queue of its own. A thread puts its request into the queue and
/// wakes the loop, which finds the supervisor's set readable, calls [`dispatch`](crate::Supervisor::dispatch), and looks
/// into the queue. The supervisor itself does nothing when it is woken.
///
/// ```
/// use std::os::fd::AsFd;
/// use std::sync::mpsc;
/// use std::thread;
/// use pidherd::{Command, GroupSpec, Supervisor};
/// use rustix::event::{PollFd, PollFlags, poll};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut supervisor = Supervisor::new()?;
/// let group = supervisor.add(GroupSpec::new("web", Command::new("sleep").arg("1000")))?;
/// let (requests, queue) = mpsc::channel();
/// let waker = supervisor.waker()?;
/// let thread = thread::spawn(move || {
///     requests.send("start").unwrap();
///     waker.wake();
/// });
///
/// poll(&mut [PollFd::new(&supervisor.fds().as_fd(), PollFlags::IN)], None)?;
/// supervisor.dispatch()?;
/// if queue.recv()? == "start" {
///     supervisor.start(group)?;
/// }
/// # thread.join().unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Waker {
    counter: Arc<OwnedFd>,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Waker> {
        let counter = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker {
            counter: Arc::new(above_standard(counter)?),
        })
    }

    /// Wakes the host: the supervisor's set is readable until the host has dispatched. Many calls wake it once. Never
    /// blocks and never fails; after the end of the supervisor it has no effect.
    ///
    /// ```
    /// # use pidherd::Supervisor;
    /// use rustix::event::{PollFd, PollFlags, poll};
    ///
    /// let mut supervisor = Supervisor::new()?;
    /// let waker = supervisor.waker()?;
    /// let other_thread = std::thread::spawn(move || waker.wake());
    /// poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], None)?;
    /// supervisor.dispatch()?;
    /// # other_thread.join().map_err(|_| "the thread panicked")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wake(&self) {
        // EAGAIN: the counter is at its limit, so the descriptor is readable already.
        let _awake = write(&self.counter, &1_u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable until the next call of [`Waker::wake`].
    pub(crate) fn acknowledge(&self) {
        let mut count = [0; 8];
        // EAGAIN: there was no call since the last acknowledgement.
        let _count = read(&self.counter, &mut count);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.counter.as_fd()
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
