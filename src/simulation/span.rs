//! Lengths of time, fixed or drawn by chance.

use std::time::Duration;

use super::error::ScriptError;
use crate::random::Random;

/// A length of time in a [`Script`](super::Script): the same for every process, or drawn anew for each.
///
/// All arithmetic is on whole nanoseconds, so a seed gives the same times on every machine. The longest time is 584
/// years.
///
/// ```
/// use std::time::Duration;
/// use pidherd::sim::{Script, Span};
///
/// let day = Duration::from_secs(24 * 3_600);
/// let script = Script::new()
///     // The process is ready after two to five seconds, and crashes once in three days on average.
///     .ready(Span::between(Duration::from_secs(2), Duration::from_secs(5)))
///     .exits(Span::exponential(3 * day), 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(Shape);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Fixed(Duration),
    Between(Duration, Duration),
    Exponential(Duration),
}

impl Span {
    /// Always this time. A [`Duration`] converts to it.
    ///
    /// ```
    /// # use pidherd::sim::Span;
    /// # use std::time::Duration;
    /// let second = Duration::from_secs(1);
    /// assert_eq!(Span::fixed(second), second.into());
    /// ```
    #[must_use]
    pub const fn fixed(time: Duration) -> Span {
        Span(Shape::Fixed(time))
    }

    /// Any time from the shortest to the longest, all equally likely. A shortest time above the longest is found when
    /// the script is [assigned](super::Simulation::assign).
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// # let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// # let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// simulation.scale(web, 20)?;
    /// simulation.assign(web, Script::new().exits(Span::between(5 * second, 10 * second), 0))?;
    /// simulation.start(web)?;
    /// simulation.advance(4 * second)?;
    /// assert_eq!(simulation.living(), 20);
    /// simulation.advance(7 * second)?;
    /// assert_eq!(simulation.living(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn between(shortest: Duration, longest: Duration) -> Span {
        Span(Shape::Between(shortest, longest))
    }

    /// The time until something that happens at the same rate always, once in `mean` on average: a crash that does not
    /// depend on the age of the process. Short times are the most likely; one in three is longer than the mean, and one
    /// in twenty longer than three times the mean.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// # let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// # let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// simulation.scale(web, 100)?;
    /// // Half-lives: after the mean, about a third is left.
    /// simulation.assign(web, Script::new().exits(Span::exponential(3_600 * second), 0))?;
    /// simulation.start(web)?;
    /// simulation.advance(3_600 * second)?;
    /// assert!((20..60).contains(&simulation.living()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn exponential(mean: Duration) -> Span {
        Span(Shape::Exponential(mean))
    }

    /// Draws a time.
    pub(super) fn draw(self, random: &mut Random) -> Duration {
        match self.0 {
            Shape::Fixed(time) => time,
            Shape::Between(shortest, longest) => {
                let (least, most) = (nanos(shortest), nanos(longest));
                let width = most.saturating_sub(least).saturating_add(1);
                Duration::from_nanos(least.saturating_add(portion(width, random.next_u64())))
            }
            Shape::Exponential(mean) => exponential(nanos(mean), random),
        }
    }

    pub(super) const fn check(self) -> Result<(), ScriptError> {
        match self.0 {
            Shape::Between(shortest, longest) if shortest.as_nanos() > longest.as_nanos() => {
                Err(ScriptError::EmptySpan { shortest, longest })
            }
            Shape::Fixed(_) | Shape::Between(..) | Shape::Exponential(_) => Ok(()),
        }
    }
}

impl From<Duration> for Span {
    fn from(time: Duration) -> Span {
        Span::fixed(time)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// This part of a whole, in units of 2^-64.
fn portion(whole: u64, part: u64) -> u64 {
    let product = u128::from(whole) * u128::from(part);
    // The product of two 64-bit numbers, without its lower half.
    (product >> 64) as u64
}

/// Von Neumann's method (1951), which needs comparisons alone. A logarithm may differ between machines.
///
/// Numbers are drawn as long as they fall. A series of odd length gives its first number as the fraction of the result;
/// the number of series of even length before it is the whole part.
fn exponential(mean: u64, random: &mut Random) -> Duration {
    let mut whole: u64 = 0;
    loop {
        let first = random.next_u64();
        let (mut last, mut length) = (first, 1_u32);
        loop {
            let next = random.next_u64();
            if next > last {
                break;
            }
            (last, length) = (next, length.wrapping_add(1));
        }
        if length % 2 == 1 {
            let times = mean.saturating_mul(whole);
            return Duration::from_nanos(times.saturating_add(portion(mean, first)));
        }
        whole = whole.saturating_add(1);
    }
}

/// Whether something with this probability happens.
pub(super) fn happens(share: f64, random: &mut Random) -> bool {
    /// The number of values of a 53-bit number, which a double holds exactly.
    const VALUES: f64 = 9_007_199_254_740_992.0;
    ((random.next_u64() >> 11) as f64) < share * VALUES
}

/// Checks a probability.
pub(super) fn check_share(share: f64) -> Result<(), ScriptError> {
    if (0.0..=1.0).contains(&share) {
        Ok(())
    } else {
        Err(ScriptError::Share(share))
    }
}
