//! Points in time as the library sees them: nanoseconds on a clock that only goes forward.
//!
//! The pure layers never read a clock: an [`Instant`] comes in as an argument. That is why this is
//! not [`std::time::Instant`], which cannot be made out of a number, and so not by a simulation.
//! Durations are the standard library's. Wall-clock stamps are [`std::time::SystemTime`] and are
//! only ever shown, never computed with.

use std::time::Duration;

/// A point in time, in nanoseconds since an origin that only the clock knows.
///
/// Instants of one clock can be compared and subtracted; arithmetic saturates and never panics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The clock's origin.
    pub const ZERO: Instant = Instant(0);
    /// A point that is never reached (584 years after the origin).
    pub const NEVER: Instant = Instant(u64::MAX);

    /// The instant `nanos` nanoseconds after the clock's origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// Nanoseconds since the clock's origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The instant that is `by` later, or [`Instant::NEVER`] if that is beyond it.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Instant {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }

    /// The instant that is `by` earlier, or [`Instant::ZERO`] if that is before it.
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Instant {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_sub(nanos))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
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
