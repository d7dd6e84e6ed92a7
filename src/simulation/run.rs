//! The simulation: a supervisor, and the calls that move its time.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::behavior::{Behavior, Subject};
use super::builder::Builder;
use super::error::ScriptError;
use super::faults::Faults;
use super::kernel::SimKernel;
use super::world::{BEGIN, World};
use crate::cgroup::CgroupDir;
use crate::engine::core::Engine;
use crate::engine::error::Error;
use crate::engine::event::{Event, Events};
use crate::owner::OtherProcess;
use crate::signal::Signal;
use crate::signalfd::SignalInfo;
use crate::supervisor::driven::Driven;
use crate::supervisor::supervise::Supervise;
use crate::time::Instant;

/// A supervisor on a simulated kernel, in virtual time; see the [module](crate::sim).
///
/// Its calls are those of [`Supervise`], and those below, which move the time and direct the processes. No call blocks,
/// makes a process or waits. Time moves in [`step`](Simulation::step), [`advance`](Simulation::advance),
/// [`run_for`](Simulation::run_for) and [`run_until`](Simulation::run_until), and by 50 µs with each spawn. A turn that
/// has begun is finished: its spawns may take the time a little further than it was to move.
///
/// ```
/// use std::time::Duration;
/// use pidherd::sim::{Script, Simulation, Subject};
/// use pidherd::supervisor::Supervise;
/// use pidherd::{Command, Event, GroupSpec, Restart, StateName};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut simulation = Simulation::new(1);
/// // The process exits after an hour.
/// simulation.assign("job", Script::new().exits(Duration::from_secs(3_600), 0))?;
///
/// let job = GroupSpec::new("job", Command::new("job")).restart(Restart::Never);
/// let job = simulation.add(job)?;
/// simulation.start(job)?;
/// let is_over = |event: &Event| matches!(event, Event::Transition(step) if step.to == StateName::Exited);
/// assert!(simulation.run_until(Duration::from_secs(24 * 3_600), is_over)?.is_some());
/// assert_eq!(simulation.elapsed().as_secs(), 3_600);
/// # Ok(())
/// # }
/// ```
pub struct Simulation {
    driver: Engine<SimKernel>,
}

/// The number of messages that are read before the end of a process is handled.
const QUEUE: usize = 1_024;

/// The last moment of the clock: the instant after it is "never".
const LATEST: Instant = Instant::from_nanos(u64::MAX - 1);

impl Builder {
    /// Builds the simulation.
    #[must_use]
    pub fn build(self) -> Simulation {
        let mut world = World::new(self.seed, self.wall);
        world.most_in_flight = self.spawns_in_flight;
        let mut driver = Engine::new(SimKernel(world), Events::new(self.events), self.seed);
        driver.kept_runs = self.runs;
        driver.slice = self.slice;
        Simulation { driver }
    }
}

impl Simulation {
    /// A simulation with the default settings and this seed.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// assert_eq!((simulation.living(), simulation.elapsed()), (0, Duration::ZERO));
    /// # let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// # let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// simulation.start(web)?;
    /// simulation.advance(second)?;
    /// assert_eq!(simulation.living(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new(seed: u64) -> Simulation {
        Simulation::builder().seed(seed).build()
    }

    /// The settings of a new simulation, all at their defaults.
    ///
    /// ```
    /// # use pidherd::sim::Simulation;
    /// # use pidherd::supervisor::Supervise;
    /// let simulation = Simulation::builder().seed(7).remembered_runs(100).build();
    /// assert_eq!(simulation.groups().count(), 0);
    /// ```
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn world(&self) -> &World {
        &self.driver.kernel.0
    }

    fn world_mut(&mut self) -> &mut World {
        &mut self.driver.kernel.0
    }

    // The processes.

    /// Directs the processes of an instance, a group or a program, from their next run on. A process that is not directed
    /// runs until it is stopped; a command before or after a run succeeds at once. An earlier assignment to the same
    /// subject is replaced.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::sim::{Script, Simulation, Subject};
    /// use pidherd::supervisor::Supervise;
    /// use pidherd::{Command, GroupSpec, Signal};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut simulation = Simulation::new(1);
    /// let web = simulation.add(GroupSpec::new("web", Command::new("/usr/bin/web")).instances(3))?;
    /// let minute = Duration::from_secs(60);
    /// simulation.assign(web, Script::new().ready(minute))?;
    /// simulation.assign("web:2", Script::new().crashes(minute, Signal::SEGV))?;
    /// simulation.assign(Subject::program("/usr/bin/migrate"), Script::new().exits(minute, 0))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ScriptError`]: a script is wrong, or there is no such instance or group. Nothing has changed then. A name and a
    /// program may be those of a group that is added later.
    pub fn assign(&mut self, subject: impl Into<Subject>, behavior: impl Into<Behavior>) -> Result<(), ScriptError> {
        let (subject, behavior) = (subject.into(), behavior.into());
        match subject {
            Subject::Instance(id) if self.driver.instances.get(id).is_none() => {
                return Err(ScriptError::UnknownInstance(id));
            }
            Subject::Group(id) if self.driver.groups.get(id).is_none() => return Err(ScriptError::UnknownGroup(id)),
            Subject::Instance(_) | Subject::Group(_) | Subject::All | Subject::Name(_) | Subject::Program(_) => {}
        }
        behavior.check()?;
        self.world_mut().cast.assign(subject, behavior);
        Ok(())
    }

    /// Sets the faults that strike by chance from now on, in place of the earlier ones.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::sim::{Faults, Simulation, SpawnFailure};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut simulation = Simulation::new(1);
    /// // A bad hour.
    /// simulation.set_faults(Faults::new().spawns(0.5, SpawnFailure::NoMemory))?;
    /// simulation.advance(Duration::from_secs(3_600))?;
    /// simulation.set_faults(Faults::new())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ScriptError::Share`], [`ScriptError::Shares`], [`ScriptError::EmptySpan`]. Nothing has changed then.
    pub fn set_faults(&mut self, faults: Faults) -> Result<(), ScriptError> {
        faults.check()?;
        self.world_mut().faults = faults;
        Ok(())
    }

    /// A directory for [cgroups](crate::GroupSpec::cgroup) that exists in simulations alone: groups with it have stop
    /// scopes, limits and freezing as with a directory of the kernel, and nothing is written. Each call returns another
    /// directory. A real supervisor cannot use it.
    ///
    /// ```
    /// use pidherd::sim::Simulation;
    /// use pidherd::supervisor::Supervise;
    /// use pidherd::{Command, GroupSpec, Scope, StopLadder};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut simulation = Simulation::new(1);
    /// let directory = simulation.cgroup_dir()?;
    /// let web = GroupSpec::new("web", Command::new("web")).cgroup(directory).stop(StopLadder::kill(Scope::Cgroup));
    /// simulation.add(web)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`]: the value holds a descriptor of `/dev/null`, and none is free (EMFILE, ENFILE).
    pub fn cgroup_dir(&mut self) -> Result<CgroupDir, Error> {
        let world = self.world_mut();
        world.directories = world.directories.saturating_add(1);
        Ok(CgroupDir::simulated(world.directories)?)
    }

    /// Sends a signal to the host, as if its supervisor had a [`SignalFd`](crate::SignalFd) for it: the next turn reports
    /// [`Event::Signal`]. A signal that is already pending is not sent a second time. SIGKILL and SIGSTOP are not sent,
    /// because no signalfd receives them.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// simulation.signal_host(Signal::HUP);
    /// simulation.step()?;
    /// assert!(matches!(simulation.next_event(), Some(Event::Signal(info)) if info.signal == Signal::HUP));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn signal_host(&mut self, signal: Signal) {
        if matches!(signal, Signal::KILL | Signal::STOP) {
            return;
        }
        self.world_mut().signal_host(SignalInfo {
            signal,
            sender: None,
            uid: 0,
            code: 0,
            status: 0,
            value: 0,
        });
    }

    /// The number of processes that were made for instances since the beginning, without those that they have
    /// [forked](super::Fork).
    #[must_use]
    pub fn spawned(&self) -> u64 {
        self.world().made
    }

    /// The number of living processes: those of instances, those that they have [forked](super::Fork), and strays.
    #[must_use]
    pub fn living(&self) -> usize {
        self.world().count_living()
    }

    /// The number of strays: processes that a process of an instance has [forked](super::Fork), and that are alive
    /// although the run is over. No stop scope has reached them.
    #[must_use]
    pub fn strays(&self) -> usize {
        self.world().count_strays()
    }

    // Time.

    /// The time since the beginning of the simulation.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.world().now.saturating_duration_since(BEGIN)
    }

    /// The time on the wall clock.
    #[must_use]
    pub fn wall_clock(&self) -> SystemTime {
        self.world().wall()
    }

    /// One turn of the host's loop: moves the time to the next moment at which there is something to do for the
    /// supervisor, if there is nothing now, and [dispatches](Supervise::dispatch). Returns whether there was anything:
    /// after `false` nothing will ever happen again without a command. The events stay in the queue.
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
    /// simulation.start(web)?;
    /// while simulation.step()? {}
    /// // It is running, and nothing else will ever happen.
    /// assert_eq!(simulation.status(instance).ok_or("no status")?.state.name(), StateName::Running);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Supervise::dispatch`].
    pub fn step(&mut self) -> Result<bool, Error> {
        self.step_until(Instant::NEVER)
    }

    /// Moves the time by this much, at most to the end of the clock, 584 years after its beginning; the supervisor does
    /// what is to be done meanwhile. The events stay in the queue, until [`next_event`](Supervise::next_event) fetches them.
    /// Before that [`is_down`](Supervise::is_down) is `false`.
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
    /// simulation.start(web)?;
    /// simulation.advance(24 * 3_600 * second)?;
    /// let status = simulation.status(instance).ok_or("no status")?;
    /// assert_eq!(status.uptime.map(|uptime| uptime.as_secs()), Some(24 * 3_600));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Supervise::dispatch`]. The time has moved up to the turn that failed.
    pub fn advance(&mut self, by: Duration) -> Result<(), Error> {
        let until = self.after(by);
        while self.step_until(until)? {}
        Ok(())
    }

    /// Moves the time by this much, at most to the end of the clock, as a host that fetches each event when it is there:
    /// the host's own code gets each one, and may issue any command. A command takes no time, so this does not return if the
    /// host answers each signal with another one ([`Simulation::signal_host`]).
    ///
    /// ```
    /// use std::time::Duration;
    /// use pidherd::sim::{Script, Simulation, Span};
    /// use pidherd::supervisor::Supervise;
    /// use pidherd::{Command, Event, GroupSpec, Restart, StateName};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hour = Duration::from_secs(3_600);
    /// let mut simulation = Simulation::new(1);
    /// simulation.assign("web", Script::new().exits(Span::exponential(50 * hour), 1))?;
    /// let web = simulation.add(GroupSpec::new("web", Command::new("web")).restart(Restart::Always))?;
    /// simulation.start(web)?;
    ///
    /// // A year, in which the host starts again by hand what was given up.
    /// let mut crashes = 0;
    /// simulation.run_for(365 * 24 * hour, |simulation, event| {
    ///     let Event::Transition(step) = event else { return Ok(()) };
    ///     crashes += u32::from(step.exit.is_some());
    ///     if step.to == StateName::Fatal {
    ///         simulation.start(step.instance)?;
    ///     }
    ///     Ok(())
    /// })?;
    /// assert!((130..=220).contains(&crashes), "{crashes}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of the host's code, after which the time stands still, and those of [`Supervise::dispatch`].
    pub fn run_for(
        &mut self,
        by: Duration,
        mut host: impl FnMut(&mut Simulation, &Event) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let until = self.after(by);
        loop {
            while let Some(event) = self.next_event() {
                host(self, &event)?;
            }
            if !self.step_until(until)? {
                return Ok(());
            }
        }
    }

    /// Moves the time until an event comes that the filter accepts, by at most this much, and returns the event. The
    /// events before it are fetched, and are gone; those after it stay in the queue. `None` if no such event came; then
    /// the whole time has passed, at most to the end of the clock.
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
    /// simulation.assign(web, Script::not_spawned(SpawnFailure::NotFound))?;
    /// simulation.start(web)?;
    /// let is_fatal = |event: &Event| matches!(event, Event::Transition(step) if step.to == StateName::Fatal);
    /// let event = simulation.run_until(3_600 * second, is_fatal)?;
    /// // Three retries, after 1 s, 2 s and 3 s.
    /// assert!(event.is_some() && simulation.elapsed().as_secs() == 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Supervise::dispatch`].
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut accepts: impl FnMut(&Event) -> bool,
    ) -> Result<Option<Event>, Error> {
        let until = self.after(limit);
        loop {
            while let Some(event) = self.next_event() {
                if accepts(&event) {
                    return Ok(Some(event));
                }
            }
            if !self.step_until(until)? {
                return Ok(None);
            }
        }
    }

    fn after(&self, time: Duration) -> Instant {
        self.world().now.saturating_add(time).min(LATEST)
    }

    /// One turn, if there is anything to do until this time. Otherwise it is this time afterwards.
    fn step_until(&mut self, until: Instant) -> Result<bool, Error> {
        let world = self.world_mut();
        if world.now > until {
            // The spawns of the last turn have taken more time than there was.
            return Ok(false);
        }
        while !world.is_readable() {
            match world.next().filter(|&at| at <= until) {
                Some(at) => world.pass(at),
                None if until == Instant::NEVER => return Ok(false),
                None => {
                    world.pass(until);
                    return Ok(false);
                }
            }
        }
        self.dispatch()?;
        Ok(true)
    }
}

impl Driven for Simulation {
    type Kernel = SimKernel;

    fn engine(&self) -> &Engine<SimKernel> {
        &self.driver
    }

    fn engine_mut(&mut self) -> &mut Engine<SimKernel> {
        &mut self.driver
    }

    /// A simulated process is no process of the system, so a copy that fork(2) made may go on with its own.
    fn check_owner(&self) -> Result<(), OtherProcess> {
        Ok(())
    }

    fn listen(&mut self) -> Result<(), Error> {
        self.world_mut().is_listening = true;
        self.driver.queue = QUEUE;
        self.driver.socket = Some("@simulated".into());
        Ok(())
    }
}

impl Supervise for Simulation {}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation")
            .field("elapsed", &self.elapsed())
            .field("groups", &self.groups().count())
            .field("instances", &self.instances().count())
            .finish_non_exhaustive()
    }
}
