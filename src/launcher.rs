//! Spawns that the host does not wait for, without a [`Supervisor`](crate::Supervisor).
//!
//! A spawn is complete when the program has been executed. This takes some hundred microseconds, or as long as a dead
//! network file system hangs. [`Spawner::spawn`] waits for it, and a [`Launcher`] does not: the host begins spawns,
//! watches one descriptor, and then asks which programs run and which steps failed.
//!
//! ```
//! use pidherd::{Command, Launcher};
//! use rustix::event::{PollFd, PollFlags, poll};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut launcher = Launcher::new()?;
//! let job = Command::new("sh").args(["-c", "exit 3"]).compile()?;
//! let missing = Command::new("/no/such/program").compile()?;
//! let (first, second) = (launcher.begin(&job)?, launcher.begin(&missing)?);
//!
//! while launcher.in_flight() > 0 {
//!     poll(&mut [PollFd::new(&launcher, PollFlags::IN)], None)?;
//!     while let Some((id, outcome)) = launcher.finish() {
//!         match outcome {
//!             Ok(mut child) => {
//!                 assert_eq!(id, first);
//!                 assert_eq!(child.wait()?.exit.code(), Some(3));
//!             }
//!             Err(error) => {
//!                 assert_eq!(id, second);
//!                 println!("{error}");
//!             }
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! How it works. A failed step ends the child, so its pidfd becomes readable. A successful execve makes no descriptor
//! readable; the kernel zeroes a word in memory instead. So a timer expires while spawns are in flight, and the words
//! are checked: first after a millisecond, then at growing intervals up to 100 ms. A success is therefore reported late
//! by at most a millisecond and half of the time that the execve took. A pipe that execve closes was rejected: it costs
//! five more system calls for each spawn.

use std::io;
use std::mem::take;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::retry_on_intr;

use crate::child::{Child, DROP_WAIT};
use crate::command::{Program, SpawnError, SpawnProgress, SpawnStep, Spawner, Spawning};
use crate::errno::SetupError;
use crate::owner::Owner;
use crate::signal::Signal;
use crate::sys::descriptors::above_standard;
use crate::time::Instant;
use crate::timerfd::{Clock, TimerFd};

/// The time from the beginning of a spawn to the first check of its word, or half of it because of the grid. Most
/// programs have been executed by then, and one that fails at once has ended, which its pidfd reports. A shorter time
/// wakes the host in vain, just when the child needs the processor (`benches/restart`, `benches/fleet`).
const FIRST_LOOK: Duration = Duration::from_millis(1);

/// The longest time between two checks.
const RAREST_LOOK: Duration = Duration::from_millis(100);

/// The time from one check to the next, if the youngest spawn in flight began this long ago. It depends on the time and
/// not on the number of checks, because a host may check each time that it is awake.
fn pause_at_age(age: Duration) -> Duration {
    (FIRST_LOOK + age / 2).min(RAREST_LOOK)
}

/// The time of the next check of a spawn in flight. The times of many spawns are on one grid, so that one timer serves
/// several checks: the grid of a long pause is a part of the grid of each shorter pause.
pub(crate) fn next_look(now: Instant, age: Duration) -> Instant {
    let pause = pause_at_age(age);
    let grid = u64::try_from(pause.as_nanos()).map_or(1, |nanos| 1 << nanos.max(1).ilog2());
    let latest = now.saturating_add(pause).as_nanos();
    Instant::from_nanos(latest - latest % grid)
}

/// Starts programs without waiting for their execve; see the [module](self).
///
/// It is a descriptor ([`AsFd`]) that is readable when [`Launcher::finish`] must be called. It keeps an epoll, a
/// timerfd and the descriptors of a [`Spawner`]. Dropping it kills and reaps the children in flight, and waits for at
/// most a second.
///
/// The host decides how many spawns are in flight at once. Each takes nine pages of address space and two mappings of
/// memory. The kernel limits the number of mappings (`/proc/sys/vm/max_map_count`). Only as many children as there are
/// processors can run at a time, so a few dozen are enough.
///
/// It belongs to the process that made it. In a copy that fork(2) made, nothing is in flight, [`Launcher::begin`] fails
/// with `ECHILD` ([`SpawnStep::Watch`]), and dropping it closes the copy's descriptors and does nothing else.
///
/// ```
/// use pidherd::{Command, Launcher};
/// use rustix::event::{PollFd, PollFlags, poll};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut launcher = Launcher::new()?;
/// let program = Command::new("true").compile()?;
/// for _ in 0..3 {
///     launcher.begin(&program)?;
/// }
/// let mut started = 0;
/// while launcher.in_flight() > 0 {
///     poll(&mut [PollFd::new(&launcher, PollFlags::IN)], None)?;
///     while let Some((_, outcome)) = launcher.finish() {
///         outcome?.wait()?;
///         started += 1;
///     }
/// }
/// assert_eq!(started, 3);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Launcher {
    owner: Owner,
    spawner: Spawner,
    epoll: OwnedFd,
    timer: TimerFd,
    in_flight: Vec<(LaunchId, Spawning)>,
    /// The index at which the next check of the spawns in flight begins.
    next: usize,
    /// The time at which the last spawn began.
    latest: Instant,
    launches: u64,
}

/// The id of one spawn of a [`Launcher`]. The launcher never issues the same id twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaunchId(u64);

/// The data of the timer's entry in the epoll. The data of a spawn's entry is the number of its id.
const TIMER: u64 = u64::MAX;

/// The largest number of events that one epoll_wait(2) returns.
const BATCH: usize = 16;

/// Makes an epoll and a timerfd, and registers the timerfd in the epoll.
fn watch() -> io::Result<(OwnedFd, TimerFd)> {
    let epoll = above_standard(epoll::create(epoll::CreateFlags::CLOEXEC)?)?;
    let timer = TimerFd::new(Clock::Monotonic)?;
    let data = epoll::EventData::new_u64(TIMER);
    epoll::add(&epoll, &timer, data, epoll::EventFlags::IN)?;
    Ok((epoll, timer))
}

impl Launcher {
    /// A launcher with nothing in flight.
    ///
    /// ```
    /// # use pidherd::{Command, Launcher};
    /// let mut launcher = Launcher::new()?;
    /// assert_eq!(launcher.in_flight(), 0);
    /// launcher.begin(&Command::new("true").compile()?)?;
    /// assert_eq!(launcher.in_flight(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Spawner::new`], and a [`SetupError`] of epoll_create1(2) and timerfd_create(2) (EMFILE, ENFILE, ENOMEM).
    pub fn new() -> io::Result<Launcher> {
        let spawner = Spawner::new()?;
        let (epoll, timer) =
            watch().map_err(|error| SetupError::new("make", "the launcher's epoll and timerfd", &error))?;
        Ok(Launcher {
            owner: Owner::this_process(),
            spawner,
            epoll,
            timer,
            in_flight: Vec::new(),
            next: 0,
            latest: Clock::Monotonic.now(),
            launches: 0,
        })
    }

    /// Starts the program and returns as soon as the process exists. Does not wait for its execve; see
    /// [`Spawner::begin`] for the exceptions.
    ///
    /// ```
    /// # use pidherd::{Command, Launcher};
    /// use std::collections::HashMap;
    ///
    /// let mut launcher = Launcher::new()?;
    /// let mut jobs = HashMap::new();
    /// for name in ["true", "false"] {
    ///     jobs.insert(launcher.begin(&Command::new(name).compile()?)?, name);
    /// }
    /// // The loop of the host finds each job again by the id that `finish` returns.
    /// assert_eq!((jobs.len(), launcher.in_flight()), (2, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Spawner::begin`].
    pub fn begin(&mut self, program: &Program) -> Result<LaunchId, SpawnError> {
        if !self.owner.is_here() {
            return Err(program.parent_error(SpawnStep::Watch, libc::ECHILD));
        }
        let spawning = self.spawner.begin(program)?;
        let id = LaunchId(self.launches);
        self.launches += 1;
        self.watch(id, &spawning);
        self.in_flight.push((id, spawning));
        self.latest = Clock::Monotonic.now();
        let look = self.latest.saturating_add(FIRST_LOOK);
        // An earlier check is not postponed. Otherwise a host that begins one spawn after another would postpone it for
        // ever.
        if self.timer.deadline().is_none_or(|earlier| earlier > look) {
            // Arming cannot fail: the timer belongs to this process.
            let _armed = self.timer.arm(Some(look));
        }
        Ok(id)
    }

    /// The result of a complete spawn: the child, if its program runs or has run, or the step that failed. `None` if no
    /// other spawn is complete yet. Each time the descriptor is readable, call it until it returns `None`. It can be
    /// called at any other time too. Does not block.
    ///
    /// A child that was killed before its program could run counts as started; its pidfd shows the end.
    ///
    /// ```
    /// # use pidherd::{Command, Launcher};
    /// use rustix::event::{PollFd, PollFlags, poll};
    ///
    /// let mut launcher = Launcher::new()?;
    /// let id = launcher.begin(&Command::new("false").compile()?)?;
    /// let mut child = loop {
    ///     poll(&mut [PollFd::new(&launcher, PollFlags::IN)], None)?;
    ///     if let Some((finished, outcome)) = launcher.finish() {
    ///         assert_eq!(finished, id);
    ///         break outcome?;
    ///     }
    /// };
    /// assert_eq!(child.wait()?.exit.code(), Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn finish(&mut self) -> Option<(LaunchId, Result<Child, SpawnError>)> {
        if !self.owner.is_here() {
            return None;
        }
        while self.next < self.in_flight.len() {
            let (id, spawning) = self.in_flight.swap_remove(self.next);
            if !spawning.is_finished() {
                self.put_back(id, spawning);
                continue;
            }
            if let Some(outcome) = self.conclude(id, spawning) {
                return Some((id, outcome));
            }
        }
        self.next = 0;
        // Neither call can fail: the timer belongs to this process.
        let was_look = matches!(self.timer.acknowledge(), Ok(true));
        if !was_look && !self.in_flight.is_empty() {
            if let Some(outcome) = self.finish_ended() {
                return Some(outcome);
            }
        }
        let _armed = self.arm();
        None
    }

    /// The number of spawns that have begun and that [`Launcher::finish`] has not returned.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        if self.owner.is_here() { self.in_flight.len() } else { 0 }
    }

    /// Registers the pidfd, so that the end of the child wakes the host. If the kernel refuses this
    /// (`/proc/sys/fs/epoll/max_user_watches`), the timer wakes the host.
    fn watch(&self, id: LaunchId, spawning: &Spawning) {
        let data = epoll::EventData::new_u64(id.0);
        let _refused = epoll::add(&self.epoll, spawning.pidfd(), data, epoll::EventFlags::IN);
    }

    fn put_back(&mut self, id: LaunchId, spawning: Spawning) {
        self.in_flight.push((id, spawning));
        let last = self.in_flight.len() - 1;
        self.in_flight.swap(self.next, last);
        self.next += 1;
    }

    /// The outcome of a spawn that seems complete; `None` if the outcome is not known yet.
    fn conclude(&mut self, id: LaunchId, spawning: Spawning) -> Option<Result<Child, SpawnError>> {
        // The entry is removed before the child is returned, because the caller may close its pidfd or keep a copy of
        // it.
        let _refused = epoll::delete(&self.epoll, spawning.pidfd());
        match self.spawner.finish(spawning) {
            SpawnProgress::Running(child) | SpawnProgress::Killed(child) => Some(Ok(child)),
            SpawnProgress::Failed(error) => Some(Err(error)),
            SpawnProgress::InFlight(spawning) => {
                // A child that has ended and cannot be reaped is held by a tracer (ptrace(2)). Its pidfd stays
                // readable, so it is not registered again, and only the timer causes checks of it.
                if !spawning.has_ended() {
                    self.watch(id, &spawning);
                }
                self.put_back(id, spawning);
                None
            }
        }
    }

    /// Checks the spawns with readable pidfds. Usually their words are zero too. If a word is not, the host must not be
    /// woken for its pidfd again and again.
    fn finish_ended(&mut self) -> Option<(LaunchId, Result<Child, SpawnError>)> {
        let nothing = epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(TIMER),
        };
        let mut events = [nothing; BATCH];
        let count = retry_on_intr(|| epoll::wait(&self.epoll, &mut events, Some(&Timespec::default()))).unwrap_or(0);
        for event in events.iter().take(count) {
            let ended = LaunchId(event.data.u64());
            let Some(index) = self.in_flight.iter().position(|(id, _)| *id == ended) else {
                continue;
            };
            self.next = index;
            let (id, spawning) = self.in_flight.swap_remove(index);
            let outcome = self.conclude(id, spawning);
            self.next = 0;
            if let Some(outcome) = outcome {
                return Some((id, outcome));
            }
        }
        None
    }

    fn arm(&mut self) -> io::Result<()> {
        let look = || {
            let now = Clock::Monotonic.now();
            next_look(now, now.saturating_duration_since(self.latest))
        };
        self.timer.arm((!self.in_flight.is_empty()).then(look))
    }
}

impl Drop for Launcher {
    /// Kills all children before it waits for the first one.
    fn drop(&mut self) {
        if !self.owner.is_here() {
            return;
        }
        for (_, spawning) in &self.in_flight {
            let _ended = spawning.pidfd().signal(Signal::KILL);
        }
        let until = std::time::Instant::now() + DROP_WAIT;
        for (_, spawning) in take(&mut self.in_flight) {
            spawning.end_until(until);
        }
    }
}

impl AsFd for Launcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl AsRawFd for Launcher {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::exit::Exit;
    use crate::poll::wait_for;
    use rustix::event::PollFlags;
    use std::collections::HashSet;

    #[test]
    fn looks_become_rarer_with_age() {
        let micros = Duration::from_micros;
        assert_eq!(pause_at_age(Duration::ZERO), FIRST_LOOK);
        assert_eq!(pause_at_age(micros(100)), micros(1_050));
        assert_eq!(pause_at_age(micros(2_500)), micros(2_250));
        assert_eq!(pause_at_age(Duration::from_secs(3_600)), RAREST_LOOK);
    }

    #[test]
    fn looks_at_many_share_their_times() {
        let nanos = |count: u64| Instant::from_nanos(count);
        let second = 1_000_000_000;
        for now in [second, second + 1, 7 * second + 123_456_789] {
            for age in [0, 1, 99_999, 5_000_000, second] {
                let age = Duration::from_nanos(age);
                let look = next_look(nanos(now), age);
                let pause = pause_at_age(age);
                assert!(look > nanos(now) && look <= nanos(now).saturating_add(pause));
            }
        }
        let old = |now| next_look(nanos(now), Duration::from_secs(1));
        let many: HashSet<Instant> = (0..1_000).map(|n| old(3 * second + n * 1_000_000)).collect();
        assert!(many.len() <= 17, "{} times in a second", many.len());
    }

    /// A child that has ended is reported even if the kernel could not zero its word, and the host is woken in vain at
    /// most once.
    #[test]
    fn an_ended_child_is_not_in_flight_even_if_its_word_is_set() {
        let program = Command::new("/bin/sh").args(["-c", "exit 3"]).compile().unwrap();
        let mut launcher = Launcher::new().unwrap();
        for _ in 0..2 * BATCH {
            launcher.begin(&program).unwrap();
        }
        for (_, spawning) in &mut launcher.in_flight {
            wait_for(spawning.pidfd(), PollFlags::IN, None).unwrap();
            assert!(spawning.is_finished());
            spawning.pretend_in_flight();
        }
        let (mut reported, mut calls) = (0, 0);
        while launcher.in_flight() > 0 {
            wait_for(&launcher, PollFlags::IN, None).unwrap();
            while let Some((_, outcome)) = launcher.finish() {
                assert_eq!(outcome.unwrap().wait().unwrap().exit, Exit::Code(3));
                reported += 1;
            }
            calls += 1;
        }
        assert_eq!(reported, 2 * BATCH);
        assert!(calls <= 10, "{calls}");
    }
}
