//! The calls for the host's event loop.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use super::calls::Supervisor;
use super::driven::Driven;
use super::fd_change::FdChange;
use super::supervise::Supervise;
use crate::engine::error::Error;
use crate::engine::event::Event;
use crate::engine::progress::Progress;
use crate::fdset::{Change, Entry, FdSet, Token};

impl Supervisor {
    /// All descriptors, for a host that waits for each by itself. The set is also an epoll itself, the one that `as_fd`
    /// returns.
    #[must_use]
    pub fn fds(&self) -> &FdSet {
        &self.driver.kernel.fds
    }

    /// The descriptor of an entry of the set; `None` if the token is out of date.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// use std::os::fd::AsRawFd;
    ///
    /// supervisor.start(group)?;
    /// for entry in supervisor.fds().iter() {
    ///     let fd = supervisor.fd(entry.token).ok_or("it is in the set")?;
    ///     assert_eq!(fd.as_raw_fd(), entry.fd);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn fd(&self, token: Token) -> Option<BorrowedFd<'_>> {
        self.driver.kernel.fd(token)
    }

    /// Another descriptor of the one that `as_fd` returns, for a loop that needs to own what it waits for, or that
    /// would borrow the supervisor for too long. [`FdSet::try_clone_fd`] has the rules for it.
    ///
    /// ```
    /// use pidherd::Supervisor;
    /// use rustix::event::{PollFd, PollFlags, Timespec, poll};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut supervisor = Supervisor::new()?;
    /// let fd = supervisor.try_clone_fd()?;
    /// supervisor.shutdown()?;
    /// // The set is readable when all is down.
    /// assert_eq!(poll(&mut [PollFd::new(&fd, PollFlags::IN)], None)?, 1);
    /// supervisor.dispatch()?;
    /// assert!(supervisor.is_down());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] with EMFILE; [`Error::OtherProcess`].
    pub fn try_clone_fd(&self) -> Result<OwnedFd, Error> {
        self.driver.kernel.owner.check()?;
        Ok(self.fds().try_clone_fd()?)
    }

    /// Turns the log of changes to the set on or off, for a host that waits for each descriptor by itself. Turning it
    /// on logs each present descriptor as [`FdChange::Added`]. While it is off, nothing is logged, and a removed
    /// descriptor is closed at once. See [`FdSet::track_changes`].
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// supervisor.track_fd_changes(true);
    /// // All that are present come first.
    /// let mut present = 0;
    /// while supervisor.next_fd_change().is_some() {
    ///     present += 1;
    /// }
    /// assert_eq!(present, supervisor.fds().len());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn track_fd_changes(&mut self, on: bool) {
        self.driver.kernel.fds.track_changes(on);
    }

    /// Takes the oldest change of the set from the log. Take all of them before each wait: the log keeps removed
    /// descriptors open.
    ///
    /// ```
    /// use pidherd::Supervisor;
    /// use pidherd::supervisor::FdChange;
    /// use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    /// let mut supervisor = Supervisor::new()?;
    /// supervisor.track_fd_changes(true);
    /// while let Some(change) = supervisor.next_fd_change() {
    ///     match change {
    ///         FdChange::Added { fd, interest, token } => {
    ///             let flags = EventFlags::from_bits_retain(interest.bits());
    ///             epoll::add(&epoll, fd, EventData::new_u64(token.to_raw()), flags)?;
    ///         }
    ///         FdChange::Removed { fd, .. } => epoll::delete(&epoll, fd)?,
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn next_fd_change(&mut self) -> Option<FdChange<'_>> {
        let linux = &mut self.driver.kernel;
        let entry = loop {
            match linux.fds.next_change()? {
                Change::Removed { token, fd } => return Some(FdChange::Removed { token, fd }),
                Change::Added(entry) if linux.fd(entry.token).is_some() => break entry,
                // Each entry has a descriptor, so this does not happen.
                Change::Added(_) => {}
            }
        };
        let Entry { interest, token, .. } = entry;
        linux.fd(token).map(|fd| FdChange::Added { fd, interest, token })
    }

    /// Handles a descriptor of the set that is ready, after the deadlines that are due.
    ///
    /// A call for a descriptor that is not ready is harmless; the result is [`Progress::Nothing`]. The same is true for
    /// a number that is not in the set: an earlier call of the same batch can remove an entry with an event that is
    /// still in the batch, and the kernel can give the number to another descriptor in between.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// use pidherd::supervisor::Progress;
    ///
    /// supervisor.start(group)?;
    /// // The numbers that the host's poll(2) has reported.
    /// let ready: Vec<_> = supervisor.fds().iter().map(|entry| entry.fd).collect();
    /// for fd in ready {
    ///     supervisor.process_ready(fd)?;
    /// }
    /// // A number that is not in the set is harmless.
    /// assert_eq!(supervisor.process_ready(-1)?, Progress::Nothing);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn process_ready(&mut self, fd: RawFd) -> Result<Progress, Error> {
        match self.fds().token_of(fd) {
            Some(token) => self.process_token(token),
            None => Ok(Progress::Nothing),
        }
    }

    /// Handles one descriptor of the set, for a host that registered tokens instead of numbers
    /// ([`Token::to_raw`](crate::fdset::Token::to_raw)). A token that is out of date, or of another set, is answered by
    /// [`Progress::Nothing`].
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// use pidherd::fdset::Token;
    /// use pidherd::supervisor::Progress;
    ///
    /// supervisor.start(group)?;
    /// // The data of the events that the host's epoll has reported.
    /// let ready: Vec<u64> = supervisor.fds().iter().map(|entry| entry.token.to_raw()).collect();
    /// for data in ready {
    ///     supervisor.process_token(Token::from_raw(data))?;
    /// }
    /// // A token that is out of date is harmless.
    /// assert_eq!(supervisor.process_token(Token::from_raw(0))?, Progress::Nothing);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn process_token(&mut self, token: Token) -> Result<Progress, Error> {
        self.turn(|driver| driver.process_token(token))
    }

    /// Serves the deadlines that are due, then pending requests and ready descriptors, for one
    /// [slice](super::Builder::slice). If work is left, the set stays readable.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// # use rustix::event::{PollFd, PollFlags, poll};
    /// supervisor.start(group)?;
    /// supervisor.shutdown()?;
    /// while !supervisor.is_down() {
    ///     poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], None)?;
    ///     supervisor.dispatch()?;
    ///     while let Some(event) = supervisor.next_event() {
    ///         println!("{event}");
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`]: the kernel refused to list the ready descriptors, or to arm the timer.
    pub fn dispatch(&mut self) -> Result<Progress, Error> {
        Supervise::dispatch(self)
    }

    /// Takes the oldest event. `None` if the host has fetched all of them.
    ///
    /// Commands bring events as well. They make the set readable, so a host may fetch them when it is woken the next
    /// time. With the last event of a wakeup the timer is armed anew, which is one system call.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// use pidherd::{Event, StateName};
    ///
    /// supervisor.start(group)?;
    /// // The start was written down at once.
    /// let event = supervisor.next_event().ok_or("no event")?;
    /// assert!(matches!(event, Event::Transition(step) if step.to == StateName::Starting));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn next_event(&mut self) -> Option<Event> {
        Supervise::next_event(self)
    }

    /// How many events were dropped since the supervisor was built, because the host did not fetch them in time.
    #[must_use]
    pub const fn dropped_events(&self) -> u64 {
        self.driver.events.dropped()
    }

    /// Looks for orphans that have ended, without waiting for a SIGCHLD. A host needs this after descriptors have
    /// become free again, or after pidfds were closed unused.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// use pidherd::supervisor::Progress;
    ///
    /// // Without Builder::adopt_orphans there is nothing to do.
    /// assert_eq!(supervisor.reap_orphans()?, Progress::Nothing);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] as for [`Supervisor::dispatch`].
    pub fn reap_orphans(&mut self) -> Result<Progress, Error> {
        self.turn(|driver| {
            let entry = driver
                .kernel
                .orphans
                .as_ref()
                .map(crate::linux::orphans::Orphans::entry);
            entry.map_or(Ok(Progress::Nothing), |entry| driver.reap_orphans(entry))
        })
    }
}
