//! The settings of a simulation that are fixed when it is built.

use std::time::{Duration, SystemTime};

use crate::engine::core::{KEPT_RUNS, SLICE};

/// Settings of a [`Simulation`](super::Simulation) that are fixed when it is built. Most are those of
/// [`supervisor::Builder`](crate::supervisor::Builder).
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use pidherd::sim::Simulation;
///
/// let new_year_2030 = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000);
/// let simulation = Simulation::builder().seed(7).wall_clock(new_year_2030).build();
/// assert_eq!(simulation.wall_clock(), new_year_2030);
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    pub(super) seed: u64,
    pub(super) events: usize,
    pub(super) runs: usize,
    pub(super) slice: Duration,
    pub(super) spawns_in_flight: usize,
    pub(super) wall: SystemTime,
}

/// The maximum of spawns in flight of a real supervisor.
const SPAWNS_IN_FLIGHT: usize = 32;

/// The largest number of remembered runs per instance, as of a real supervisor.
const MOST_RUNS: usize = 1_000;

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            seed: 0,
            events: usize::MAX,
            runs: KEPT_RUNS,
            slice: SLICE,
            spawns_in_flight: SPAWNS_IN_FLIGHT,
            // The first second of 2026.
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600),
        }
    }
}

impl Builder {
    /// The seed of everything that is drawn: the lives of the processes, the faults, and the jitter of the supervisor.
    /// By default it is 0. Simulations with the same seed and the same calls tell the same story, byte for byte.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Builder {
        self.seed = seed;
        self
    }

    /// How many unfetched events are kept. By default all are, unlike those of a real supervisor, which keeps 4,096.
    #[must_use]
    pub const fn event_capacity(mut self, events: usize) -> Builder {
        self.events = events;
        self
    }

    /// How many runs of each instance are remembered: 5 by default, and 1,000 at most.
    #[must_use]
    pub const fn remembered_runs(mut self, runs: usize) -> Builder {
        self.runs = if runs > MOST_RUNS { MOST_RUNS } else { runs };
        self
    }

    /// How long one turn of the supervisor lasts: 5 ms by default. In a simulation only spawns take time: 50 µs each,
    /// and the whole execution if none may be in flight.
    #[must_use]
    pub const fn slice(mut self, slice: Duration) -> Builder {
        self.slice = slice;
        self
    }

    /// How many processes may be in flight at a time: 32 by default. With 0 each spawn waits for the execution
    /// ([`supervisor::Builder::spawns_in_flight`](crate::supervisor::Builder::spawns_in_flight)).
    #[must_use]
    pub const fn spawns_in_flight(mut self, most: usize) -> Builder {
        self.spawns_in_flight = most;
        self
    }

    /// The time on the wall clock at the beginning: by default the first second of 2026, in UTC. The wall clock goes on
    /// with the simulated time.
    #[must_use]
    pub const fn wall_clock(mut self, time: SystemTime) -> Builder {
        self.wall = time;
        self
    }
}
