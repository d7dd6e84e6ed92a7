//! What goes wrong by chance, whatever the scripts are.

use super::behavior::{check_shares, choose};
use super::error::ScriptError;
use super::script::SpawnFailure;
use super::span::{Span, check_share, happens};
use crate::random::Random;

/// Faults of the machine that strike by chance. By default there are none.
///
/// They apply from the next spawn or signal on ([`Simulation::set_faults`](super::Simulation::set_faults)), so a host's
/// test can have a bad hour: it sets faults, moves the time, and sets `Faults::new()`.
///
/// ```
/// use pidherd::sim::{Faults, SpawnFailure};
///
/// let shortage = Faults::new()
///     .spawns(0.3, SpawnFailure::NoMemory)
///     .spawns(0.1, SpawnFailure::NoProcess);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    spawns: Vec<(f64, SpawnFailure)>,
    signals: f64,
    slow: Option<(f64, Span)>,
}

impl Faults {
    /// No fault.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// simulation.set_faults(Faults::new().signals(0.5))?;
    /// // The bad time is over.
    /// simulation.set_faults(Faults::new())?;
    /// assert_eq!(Faults::new(), Faults::default());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new() -> Faults {
        Faults::default()
    }

    /// A spawn fails in this way with this probability, from 0 to 1. Further calls add further ways.
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
    /// // No process can be made.
    /// simulation.set_faults(Faults::new().spawns(1.0, SpawnFailure::NoProcess))?;
    /// simulation.start(web)?;
    /// simulation.advance(10 * second)?;
    /// assert_eq!(simulation.living(), 0);
    /// // It can again. A shortage has used up no retry.
    /// simulation.set_faults(Faults::new())?;
    /// simulation.advance(60 * second)?;
    /// assert_eq!(simulation.living(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn spawns(mut self, share: f64, failure: SpawnFailure) -> Faults {
        self.spawns.push((share, failure));
        self
    }

    /// The kernel refuses a signal with this probability: EPERM, which a stop reports as
    /// [`Event::SignalFailed`](crate::Event::SignalFailed). SIGKILL is never refused.
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
    /// simulation.advance(5 * second)?;
    /// simulation.set_faults(Faults::new().signals(1.0))?;
    /// // SIGTERM is refused, and SIGKILL follows when its time has come.
    /// simulation.stop(web)?;
    /// simulation.advance(second)?;
    /// assert_eq!(simulation.living(), 1);
    /// simulation.advance(10 * second)?;
    /// assert_eq!(simulation.living(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn signals(mut self, share: f64) -> Faults {
        self.signals = share;
        self
    }

    /// An execution takes this much longer with this probability, as it does on a slow disk.
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
    /// simulation.set_faults(Faults::new().executions(1.0, 30 * second))?;
    /// simulation.start(web)?;
    /// simulation.advance(10 * second)?;
    /// // It has not been executed yet.
    /// assert_eq!(simulation.status(instance).ok_or("no status")?.state.name(), StateName::Starting);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn executions(mut self, share: f64, longer: impl Into<Span>) -> Faults {
        self.slow = Some((share, longer.into()));
        self
    }

    pub(super) fn check(&self) -> Result<(), ScriptError> {
        check_shares(self.spawns.iter().map(|&(share, _)| share))?;
        check_share(self.signals)?;
        let Some((share, longer)) = self.slow else {
            return Ok(());
        };
        check_share(share)?;
        longer.check()
    }

    /// How the next spawn fails, if it does.
    pub(super) fn spawn(&self, random: &mut Random) -> Option<SpawnFailure> {
        choose(&self.spawns, random).copied()
    }

    /// Whether the next signal is refused.
    pub(super) fn signal(&self, random: &mut Random) -> bool {
        happens(self.signals, random)
    }

    /// How much longer the next execution takes.
    pub(super) fn execution(&self, random: &mut Random) -> Option<Span> {
        let (share, longer) = self.slow?;
        happens(share, random).then_some(longer)
    }
}
