//! One deadline behind a descriptor, and the clocks that it can use.
//!
//! A timer that a loop can wait for without lending its timeout: the deadline is absolute, so there
//! is no drift and nothing to compute again after an early wakeup. Relative and periodic timers were
//! left out: for a period a host arms the next deadline, and decides what a late one means.
//! So was the wall clock, which can be set: a jump would end every wait early or never.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::time::{ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::owner::Owner;
use crate::sys::descriptors::above_standard;
use crate::time::Instant;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A clock that cannot be set (clock_gettime(2)). Both start at about boot, so [`Instant`]s of the
/// two must not be mixed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Clock {
    /// `CLOCK_MONOTONIC`: stands still while the machine is suspended.
    #[default]
    Monotonic,
    /// `CLOCK_BOOTTIME` (Linux 2.6.39; timers on it: 3.15): goes on while the machine is suspended;
    /// a deadline that passed meanwhile fires at the resume.
    Boottime,
}

impl Clock {
    /// What the clock says. No real syscall where the machine has a vDSO; never blocks.
    ///
    /// ```
    /// use pidherd::timerfd::Clock;
    ///
    /// let before = Clock::Monotonic.now();
    /// assert!(Clock::Monotonic.now() >= before);
    /// ```
    #[must_use]
    pub fn now(self) -> Instant {
        let id = match self {
            Clock::Monotonic => ClockId::Monotonic,
            Clock::Boottime => ClockId::Boottime,
        };
        let now = rustix::time::clock_gettime(id);
        // Neither clock is ever negative.
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
        Instant::from_nanos(seconds.saturating_mul(NANOS_PER_SECOND).saturating_add(nanos))
    }
}

/// A descriptor that becomes readable at a deadline: timerfd_create(2), Linux 2.6.25.
///
/// It is close-on-exec and non-blocking; nothing here ever waits. It stays readable until the
/// deadline is acknowledged or replaced.
///
/// A copy that fork(2) made shares the timer with the original, so its calls fail with
/// [`OtherProcess`](crate::OtherProcess) inside.
///
/// ```
/// use std::time::Duration;
/// use pidherd::timerfd::{Clock, TimerFd};
///
/// # fn main() -> std::io::Result<()> {
/// let mut timer = TimerFd::new(Clock::Monotonic)?;
/// timer.arm(Some(Clock::Monotonic.now().saturating_add(Duration::from_secs(3600))))?;
/// assert!(!timer.acknowledge()?, "an hour has not passed yet");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TimerFd {
    owner: Owner,
    fd: OwnedFd,
    clock: Clock,
    /// What the kernel has been told, or nothing once that has fired and was acknowledged.
    armed: Option<Instant>,
}

impl TimerFd {
    /// A timer on this clock, not armed.
    ///
    /// # Errors
    /// What timerfd_create(2) says: EMFILE, ENFILE, ENOMEM; EINVAL for a clock that the kernel is
    /// too old for.
    pub fn new(clock: Clock) -> io::Result<TimerFd> {
        let id = match clock {
            Clock::Monotonic => TimerfdClockId::Monotonic,
            Clock::Boottime => TimerfdClockId::Boottime,
        };
        let fd = rustix::time::timerfd_create(id, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(TimerFd {
            owner: Owner::this_process(),
            fd: above_standard(fd)?,
            clock,
            armed: None,
        })
    }

    /// The clock that its deadlines are on.
    #[must_use]
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    /// The deadline that was armed last, unless it was acknowledged since.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.armed
    }

    /// Makes `deadline` the one deadline, instead of whatever was armed; `None` and
    /// [`Instant::NEVER`] disarm. One that has passed fires at once.
    ///
    /// Costs no syscall if it is armed so already. An expiry of the old deadline that was not
    /// acknowledged yet is forgotten.
    ///
    /// # Errors
    /// [`OtherProcess`](crate::OtherProcess) inside; else what timerfd_settime(2) says, where there is no error that a
    /// caller could bring about. The timer then stays as it was.
    pub fn arm(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.owner.check()?;
        let deadline = deadline.filter(|&deadline| deadline != Instant::NEVER);
        if deadline == self.armed {
            return Ok(());
        }
        let it_value = match deadline {
            None => timespec(0),
            // To the kernel 0 means "disarm", and a caller that asks for 0 wants to be woken.
            Some(deadline) => timespec(deadline.as_nanos().max(1)),
        };
        let once = Itimerspec {
            it_interval: timespec(0),
            it_value,
        };
        rustix::time::timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &once)?;
        self.armed = deadline;
        Ok(())
    }

    /// Takes an expiry: whether the deadline has been reached. Afterwards the descriptor is not
    /// readable, and if it was reached, the timer is not armed. Never blocks.
    ///
    /// `false` is normal, even though a poll said "readable": the timer may have been armed anew
    /// between the two.
    ///
    /// # Errors
    /// [`OtherProcess`](crate::OtherProcess) inside; else what read(2) says, where there is no error that a caller
    /// could bring about.
    pub fn acknowledge(&mut self) -> io::Result<bool> {
        self.owner.check()?;
        let mut expirations = [0u8; 8];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut expirations)) {
            Ok(_) => {
                self.armed = None;
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for TimerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<TimerFd> for OwnedFd {
    fn from(timer: TimerFd) -> OwnedFd {
        timer.fd
    }
}

/// The casts keep their values: the seconds of 64 bits of nanoseconds have 35 bits, the rest 30.
fn timespec(nanos: u64) -> Timespec {
    Timespec {
        tv_sec: (nanos / NANOS_PER_SECOND) as i64,
        tv_nsec: (nanos % NANOS_PER_SECOND) as _,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use std::time::Duration;

    const CLOCKS: [Clock; 2] = [Clock::Monotonic, Clock::Boottime];
    const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    const LONG: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

    fn readable(timer: &TimerFd, within: Timespec) -> bool {
        poll(&mut [PollFd::new(timer, PollFlags::IN)], Some(&within)).unwrap() == 1
    }

    /// What the kernel has: the time left.
    fn left(timer: &TimerFd) -> Duration {
        let value = rustix::time::timerfd_gettime(&timer.fd).unwrap().it_value;
        Duration::new(value.tv_sec as u64, value.tv_nsec as u32)
    }

    #[test]
    fn a_child_does_not_get_it() {
        let timer = TimerFd::new(Clock::Monotonic).unwrap();
        assert_eq!(rustix::io::fcntl_getfd(&timer), Ok(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn it_can_be_sent_to_another_thread() {
        fn assert_send<T: Send + Sync>() {}
        assert_send::<TimerFd>();
        assert_send::<Clock>();
    }

    #[test]
    fn it_fires_at_the_deadline_and_not_before() {
        for clock in CLOCKS {
            let mut timer = TimerFd::new(clock).unwrap();
            let deadline = clock.now().saturating_add(Duration::from_millis(5));
            timer.arm(Some(deadline)).unwrap();
            assert!(readable(&timer, LONG));
            assert!(clock.now() >= deadline);
            assert_eq!(timer.deadline(), Some(deadline));
            assert!(timer.acknowledge().unwrap());
            assert_eq!(timer.deadline(), None);
            assert!(!timer.acknowledge().unwrap());
            assert!(!readable(&timer, NOW));
        }
    }

    #[test]
    fn a_deadline_that_has_passed_fires_at_once_zero_too() {
        for clock in CLOCKS {
            for nanos in [0, 1, clock.now().as_nanos() - 1] {
                let mut timer = TimerFd::new(clock).unwrap();
                timer.arm(Some(Instant::from_nanos(nanos))).unwrap();
                assert!(readable(&timer, LONG), "{nanos}");
                assert!(timer.acknowledge().unwrap());
            }
        }
    }

    #[test]
    fn a_deadline_at_the_end_of_time_does_not_fire() {
        for clock in CLOCKS {
            for nanos in [u64::MAX - 1, i64::MAX as u64 + 1, i64::MAX as u64, i64::MAX as u64 - 1] {
                let mut timer = TimerFd::new(clock).unwrap();
                timer.arm(Some(Instant::from_nanos(nanos))).unwrap();
                assert!(!readable(&timer, NOW), "{nanos}");
                assert!(left(&timer) > Duration::from_secs(1 << 30), "{nanos}");
            }
        }
    }

    #[test]
    fn none_and_never_disarm_and_forget_what_fired() {
        for disarm in [None, Some(Instant::NEVER)] {
            let mut timer = TimerFd::new(Clock::Monotonic).unwrap();
            timer.arm(Some(Instant::ZERO)).unwrap();
            assert!(readable(&timer, LONG));
            timer.arm(disarm).unwrap();
            assert_eq!(timer.deadline(), None);
            assert!(!readable(&timer, NOW));
            assert!(!timer.acknowledge().unwrap());
            assert_eq!(left(&timer), Duration::ZERO);
        }
    }

    #[test]
    fn a_later_deadline_takes_the_place_of_one_that_fired() {
        let mut timer = TimerFd::new(Clock::Monotonic).unwrap();
        timer.arm(Some(Instant::ZERO)).unwrap();
        assert!(readable(&timer, LONG));
        let later = Clock::Monotonic.now().saturating_add(Duration::from_secs(3600));
        timer.arm(Some(later)).unwrap();
        assert!(!timer.acknowledge().unwrap(), "the event that was queued is gone");
        assert_eq!(timer.deadline(), Some(later), "and the new deadline is still armed");
        assert!(left(&timer) > Duration::from_secs(3500));
    }

    #[test]
    fn an_acknowledged_deadline_may_be_armed_again() {
        let mut timer = TimerFd::new(Clock::Monotonic).unwrap();
        for _ in 0..2 {
            timer.arm(Some(Instant::ZERO)).unwrap();
            assert!(readable(&timer, LONG));
            assert!(timer.acknowledge().unwrap());
        }
    }

    #[test]
    fn arming_what_is_armed_makes_no_syscall() {
        let mut timer = TimerFd::new(Clock::Monotonic).unwrap();
        let deadline = Clock::Monotonic.now().saturating_add(Duration::from_secs(3600));
        timer.arm(Some(deadline)).unwrap();
        // Disarm it behind the library's back: had it told the kernel again, it would be armed.
        let off = Itimerspec {
            it_interval: timespec(0),
            it_value: timespec(0),
        };
        rustix::time::timerfd_settime(&timer.fd, TimerfdTimerFlags::empty(), &off).unwrap();
        timer.arm(Some(deadline)).unwrap();
        assert_eq!(left(&timer), Duration::ZERO);
    }
}
