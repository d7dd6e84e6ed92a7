//! Points in time as nanoseconds on a monotonic clock.
//!
//! The pure layers never read a clock: they get an [`Instant`] as an argument. A simulation must be able to
//! make instants from numbers. [`std::time::Instant`] does not allow that, so the crate has a type of its
//! own.
//!
//! Durations are the standard library's. A wall-clock time is a [`std::time::SystemTime`]; it is only
//! displayed and never used in a computation.

use std::time::Duration;

use crate::codec::{Damaged, Reader, Stored, Writer};

/// A point in time, in nanoseconds since the clock's origin.
///
/// Only instants of the same clock can be compared or subtracted. Arithmetic saturates and never panics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The clock's origin.
    pub const ZERO: Instant = Instant(0);
    /// An instant that is never reached (584 years after the origin).
    pub const NEVER: Instant = Instant(u64::MAX);

    /// The instant `nanos` nanoseconds after the clock's origin.
    ///
    /// ```
    /// # use pidherd::time::Instant;
    /// # use std::time::Duration;
    /// // A test has a clock of its own.
    /// let now = Instant::from_nanos(5_000_000_000);
    /// assert_eq!(now, Instant::ZERO.saturating_add(Duration::from_secs(5)));
    /// ```
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// The number of nanoseconds since the clock's origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The instant that is `by` later, at most [`Instant::NEVER`].
    ///
    /// ```
    /// # use pidherd::time::Instant;
    /// # use std::time::Duration;
    /// let now = pidherd::Clock::Monotonic.now();
    /// let deadline = now.saturating_add(Duration::from_secs(5));
    /// assert!(deadline > now && deadline.saturating_add(Duration::MAX) == Instant::NEVER);
    /// ```
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Instant {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }

    /// The instant that is `by` earlier, at least [`Instant::ZERO`].
    ///
    /// ```
    /// # use pidherd::time::Instant;
    /// # use std::time::Duration;
    /// let window = Duration::from_secs(10);
    /// let now = Instant::from_nanos(3_000_000_000);
    /// // The window is longer than the clock has run.
    /// assert_eq!(now.saturating_sub(window), Instant::ZERO);
    /// ```
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Instant {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_sub(nanos))
    }

    /// The time from `earlier` to this instant. Zero if this instant is not after `earlier`.
    ///
    /// ```
    /// # use pidherd::time::Instant;
    /// # use std::time::Duration;
    /// let (began, ended) = (Instant::from_nanos(500), Instant::from_nanos(2_500));
    /// assert_eq!(ended.saturating_duration_since(began), Duration::from_micros(2));
    /// assert_eq!(began.saturating_duration_since(ended), Duration::ZERO);
    /// ```
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Stored for Instant {
    fn put(&self, to: &mut Writer<'_>) {
        self.0.put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<Instant, Damaged> {
        u64::get(from).map(Instant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let one = Instant::from_nanos(1);
        assert_eq!(one.saturating_add(Duration::MAX), Instant::NEVER);
        assert_eq!(one.saturating_sub(Duration::MAX), Instant::ZERO);
        assert_eq!(one.saturating_duration_since(Instant::NEVER), Duration::ZERO);
        assert_eq!(
            Instant::NEVER.saturating_duration_since(one).as_nanos(),
            u128::from(u64::MAX - 1)
        );
    }
}
