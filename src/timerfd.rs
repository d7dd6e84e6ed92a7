//! A deadline as a descriptor, and the clocks for it.
//!
//! An event loop waits for the descriptor and does not need to compute a timeout for its poll. The deadline is
//! absolute, so it does not drift, and an early wakeup changes nothing. Relative and periodic timers were rejected: for
//! a period, the host arms the next deadline, and decides how to handle a late one. The wall clock was rejected because
//! it can be set: after a jump, a wait would end too early or too late.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::time::{ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::errno::Reason;
use crate::owner::Owner;
use crate::procfs;
use crate::sys::descriptors::above_standard;
use crate::time::Instant;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A clock that cannot be set (clock_gettime(2)). [`Instant`]s of two clocks must not be compared: after a suspend the
/// clocks differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Clock {
    /// `CLOCK_MONOTONIC`: does not advance while the machine is suspended.
    #[default]
    Monotonic,
    /// `CLOCK_BOOTTIME` (Linux 2.6.39; with timers, Linux 3.15): advances while the machine is suspended. A deadline
    /// that passes meanwhile fires at the resume.
    Boottime,
}

impl Clock {
    /// The current time of the clock. Never blocks, and makes no system call where the machine has a vDSO (vdso(7)).
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
/// It is close-on-exec and non-blocking, and no method blocks. It stays readable until the deadline is acknowledged or
/// replaced.
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
    /// The deadline that is armed in the kernel. `None` after it has fired and was acknowledged.
    armed: Option<Instant>,
}

impl TimerFd {
    /// A timer on this clock, which is not armed.
    ///
    /// ```
    /// # use pidherd::{Clock, TimerFd};
    /// // A deadline that passes while the machine is suspended fires when it wakes up.
    /// let timer = TimerFd::new(Clock::Boottime)?;
    /// assert_eq!(timer.deadline(), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of timerfd_create(2): EMFILE, ENFILE, ENOMEM, and EINVAL for a clock that the kernel lacks.
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

    /// The clock of the deadlines.
    #[must_use]
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    /// The deadline that is armed; `None` if none is, or after it was acknowledged.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.armed
    }

    /// Arms the timer with `deadline`, which replaces the previous deadline. `None` and [`Instant::NEVER`] disarm the
    /// timer. A deadline in the past fires at once.
    ///
    /// Makes no system call if this deadline is already armed. An expiry of the previous deadline that was not
    /// acknowledged is lost.
    ///
    /// ```
    /// # use pidherd::{Clock, TimerFd};
    /// use rustix::event::{PollFd, PollFlags, poll};
    /// use std::time::Duration;
    ///
    /// let mut timer = TimerFd::new(Clock::Monotonic)?;
    /// timer.arm(Some(Clock::Monotonic.now().saturating_add(Duration::from_millis(1))))?;
    /// poll(&mut [PollFd::new(&timer, PollFlags::IN)], None)?;
    /// assert!(timer.acknowledge()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`OtherProcess`](crate::OtherProcess) inside, in a copy that fork(2) made. Otherwise those of
    /// timerfd_settime(2), which no use of this type causes. The timer is then unchanged.
    pub fn arm(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.owner.check()?;
        let deadline = deadline.filter(|&deadline| deadline != Instant::NEVER);
        if deadline == self.armed {
            return Ok(());
        }
        let it_value = match deadline {
            None => timespec(0),
            // For the kernel 0 means "disarm", but here 0 is a deadline in the past.
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

    /// Acknowledges an expiry. Returns whether the deadline has been reached; the timer is then disarmed. Afterwards
    /// the descriptor is not readable. Never blocks.
    ///
    /// `false` is normal even if the descriptor was readable before: the timer may have been armed again meanwhile.
    ///
    /// ```
    /// # use pidherd::time::Instant;
    /// # use pidherd::{Clock, TimerFd};
    /// let mut timer = TimerFd::new(Clock::Monotonic)?;
    /// timer.arm(Some(Instant::ZERO))?;
    /// assert!(timer.acknowledge()?, "the deadline is in the past");
    /// assert!(!timer.acknowledge()?, "it is reported once");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`OtherProcess`](crate::OtherProcess) inside, in a copy that fork(2) made. Otherwise those of read(2), which no
    /// use of this type causes.
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

impl AsRawFd for TimerFd {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl From<TimerFd> for OwnedFd {
    fn from(timer: TimerFd) -> OwnedFd {
        timer.fd
    }
}

/// Takes over a timerfd that was made elsewhere: inherited, or received over a socket (SCM_RIGHTS). It becomes
/// close-on-exec and non-blocking, and is disarmed: the deadline of its maker may be relative or periodic. `/proc` must
/// be mounted.
///
/// ```
/// use pidherd::{Clock, TimerFd};
/// use std::os::fd::OwnedFd;
///
/// let raw = OwnedFd::from(TimerFd::new(Clock::Boottime)?);
/// let timer = TimerFd::try_from(raw)?;
/// assert_eq!((timer.clock(), timer.deadline()), (Clock::Boottime, None));
/// let null = OwnedFd::from(std::fs::File::open("/dev/null")?);
/// assert!(TimerFd::try_from(null).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl TryFrom<OwnedFd> for TimerFd {
    type Error = NotATimerFd;

    fn try_from(fd: OwnedFd) -> Result<TimerFd, NotATimerFd> {
        match clock_of(&fd).and_then(|clock| reset(&fd).map(|()| clock)) {
            Ok(clock) => Ok(TimerFd {
                owner: Owner::this_process(),
                fd,
                clock,
                armed: None,
            }),
            Err(reason) => Err(NotATimerFd { fd, reason }),
        }
    }
}

/// The clock of a timerfd.
fn clock_of(fd: &OwnedFd) -> io::Result<Clock> {
    let info = procfs::self_::info_of(fd, "[timerfd]")?;
    match procfs::self_::field(&info, "clockid:").map(str::parse) {
        Some(Ok(libc::CLOCK_MONOTONIC)) => Ok(Clock::Monotonic),
        Some(Ok(libc::CLOCK_BOOTTIME)) => Ok(Clock::Boottime),
        _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// Gives a timerfd the state of a new one.
fn reset(fd: &OwnedFd) -> io::Result<()> {
    let never = Itimerspec {
        it_interval: timespec(0),
        it_value: timespec(0),
    };
    rustix::time::timerfd_settime(fd, TimerfdTimerFlags::ABSTIME, &never)?;
    fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
    Ok(fcntl_setfd(fd, FdFlags::CLOEXEC)?)
}

/// A descriptor that is no timerfd with a [`Clock`].
#[derive(Debug, thiserror::Error)]
#[error("descriptor {} cannot be used as a timerfd: {}", .fd.as_raw_fd(), Reason(.reason))]
pub struct NotATimerFd {
    fd: OwnedFd,
    reason: io::Error,
}

impl NotATimerFd {
    /// The reason: `EBADF` for a descriptor of another kind, `EINVAL` for a timer on a clock that can be set
    /// (CLOCK_REALTIME) or that wakes the machine (the alarm clocks), or the errno with which `/proc/self/fd` could not
    /// be read.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.reason.raw_os_error().unwrap_or(libc::EIO)
    }

    /// The descriptor, unchanged.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

/// Converts nanoseconds. The casts do not truncate: the seconds of a 64-bit number of nanoseconds have 35 bits, and the
/// rest has 30.
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

    /// The remaining time in the kernel.
    fn remaining(timer: &TimerFd) -> Duration {
        let value = rustix::time::timerfd_gettime(&timer.fd).unwrap().it_value;
        Duration::new(value.tv_sec as u64, value.tv_nsec as u32)
    }

    #[test]
    fn the_descriptor_is_close_on_exec() {
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
    fn a_deadline_that_has_passed_fires_at_once() {
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
                assert!(remaining(&timer) > Duration::from_secs(1 << 30), "{nanos}");
            }
        }
    }

    #[test]
    fn none_and_never_disarm_and_discard_an_expiry() {
        for disarm in [None, Some(Instant::NEVER)] {
            let mut timer = TimerFd::new(Clock::Monotonic).unwrap();
            timer.arm(Some(Instant::ZERO)).unwrap();
            assert!(readable(&timer, LONG));
            timer.arm(disarm).unwrap();
            assert_eq!(timer.deadline(), None);
            assert!(!readable(&timer, NOW));
            assert!(!timer.acknowledge().unwrap());
            assert_eq!(remaining(&timer), Duration::ZERO);
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
        assert!(remaining(&timer) > Duration::from_secs(3500));
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
    fn arming_the_same_deadline_makes_no_system_call() {
        let mut timer = TimerFd::new(Clock::Monotonic).unwrap();
        let deadline = Clock::Monotonic.now().saturating_add(Duration::from_secs(3600));
        timer.arm(Some(deadline)).unwrap();
        // The timer is disarmed without the library. A second system call would arm it again.
        let off = Itimerspec {
            it_interval: timespec(0),
            it_value: timespec(0),
        };
        rustix::time::timerfd_settime(&timer.fd, TimerfdTimerFlags::empty(), &off).unwrap();
        timer.arm(Some(deadline)).unwrap();
        assert_eq!(remaining(&timer), Duration::ZERO);
    }
}
