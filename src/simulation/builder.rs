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
    ///
    /// ```
    /// # use pidherd::sim::{Script, Simulation, Span};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, GroupSpec};
    /// # use std::time::Duration;
    /// let story = |seed| -> Result<Vec<String>, Box<dyn std::error::Error>> {
    ///     let mut simulation = Simulation::builder().seed(seed).build();
    ///     simulation.assign("web", Script::new().exits(Span::exponential(Duration::from_secs(60)), 1))?;
    ///     let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    ///     simulation.start(web)?;
    ///     simulation.advance(Duration::from_secs(3_600))?;
    ///     Ok(std::iter::from_fn(|| simulation.next_event()).map(|event| event.to_string()).collect())
    /// };
    /// assert_eq!(story(7)?, story(7)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Builder {
        self.seed = seed;
        self
    }

    /// How many unfetched events are kept. By default all are, unlike those of a real supervisor, which keeps 4,096.
    ///
    /// ```
    /// # use pidherd::sim::Simulation;
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, GroupSpec};
    /// // Does the host cope with lost events?
    /// let mut simulation = Simulation::builder().event_capacity(1).build();
    /// let web = simulation.add(GroupSpec::new("web", Command::new("web")).instances(3))?;
    /// simulation.start(web)?;
    /// assert_eq!(simulation.dropped_events(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn event_capacity(mut self, events: usize) -> Builder {
        self.events = events;
        self
    }

    /// How many runs of each instance are remembered: 5 by default, and 1,000 at most.
    ///
    /// ```
    /// # use pidherd::sim::{Script, Simulation};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, GroupSpec};
    /// # use std::time::Duration;
    /// let second = Duration::from_secs(1);
    /// let mut simulation = Simulation::builder().remembered_runs(1).build();
    /// simulation.assign("web", Script::new().exits(5 * second, 1))?;
    /// let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// simulation.start(web)?;
    /// simulation.advance(12 * second)?;
    /// let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// assert!(simulation.runs(instance).map(|run| run.number).eq([2]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn remembered_runs(mut self, runs: usize) -> Builder {
        self.runs = if runs > MOST_RUNS { MOST_RUNS } else { runs };
        self
    }

    /// How long one turn of the supervisor lasts: 5 ms by default. In a simulation only spawns take time: 50 µs each,
    /// and the whole execution if none may be in flight.
    ///
    /// ```
    /// # use pidherd::sim::Simulation;
    /// # use pidherd::supervisor::{Progress, Supervise};
    /// # use pidherd::{Command, GroupSpec};
    /// # use std::time::Duration;
    /// let mut simulation = Simulation::builder().slice(Duration::ZERO).build();
    /// let web = simulation.add(GroupSpec::new("web", Command::new("web")).instances(50))?;
    /// simulation.start(web)?;
    /// // One turn is not enough.
    /// assert_eq!(simulation.dispatch()?, Progress::More);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn slice(mut self, slice: Duration) -> Builder {
        self.slice = slice;
        self
    }

    /// How many processes may be in flight at a time: 32 by default. With 0 each spawn waits for the execution
    /// ([`supervisor::Builder::spawns_in_flight`](crate::supervisor::Builder::spawns_in_flight)).
    ///
    /// ```
    /// # use pidherd::sim::{Script, Simulation};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, GroupSpec};
    /// # use std::time::Duration;
    /// // Each start waits for the execution, as on a slow disk.
    /// let mut simulation = Simulation::builder().spawns_in_flight(0).build();
    /// simulation.assign("web", Script::new().executes(Duration::from_secs(2)))?;
    /// let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// simulation.start(web)?;
    /// assert!(simulation.elapsed() >= Duration::from_secs(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn spawns_in_flight(mut self, most: usize) -> Builder {
        self.spawns_in_flight = most;
        self
    }

    /// The time on the wall clock at the beginning: by default the first second of 2026, in UTC. The wall clock goes on
    /// with the simulated time.
    ///
    /// ```
    /// # use pidherd::sim::Simulation;
    /// # use std::time::{Duration, SystemTime};
    /// let mut simulation = Simulation::builder().wall_clock(SystemTime::UNIX_EPOCH).build();
    /// simulation.advance(Duration::from_secs(60))?;
    /// assert_eq!(simulation.wall_clock(), SystemTime::UNIX_EPOCH + Duration::from_secs(60));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn wall_clock(mut self, time: SystemTime) -> Builder {
        self.wall = time;
        self
    }
}
