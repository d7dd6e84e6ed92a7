//! The stop of a process: a ladder of signals and commands with a wait after each, and SIGKILL at its end.

use std::time::Duration;

use super::error::{PolicyError, RUNGS_MAX};
use super::state::Stopping;
use crate::codec::stored;
use crate::signal::Signal;

/// The processes that a signal of a ladder reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Scope {
    /// Only the process that was spawned.
    Process,
    /// The process group of the process. Processes that left the group are not reached. The process must lead the
    /// group, which a supervised process does by default. Only a scope makes a stop wider; leading a group does not.
    /// With this scope or a wider one, the processes that remain when the process ends by itself get SIGKILL, and its
    /// end is judged when none of them is alive.
    ProcessGroup,
    /// The cgroup of the process: all its descendants, even if they left the process group or the parent. The group
    /// must have been given a directory for cgroups.
    Cgroup,
}

/// One rung: a signal or a command, and how long to wait for its effect. See [`Rung::new`] and [`Rung::command`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Rung {
    /// A signal is sent.
    Signal {
        /// The signal. SIGCONT is sent with it, since a stopped process acts on no other signal; see
        /// [`Rung::sequence`].
        signal: Signal,
        /// The processes that get the signal.
        scope: Scope,
        /// The wait before the next rung; with zero the next rung follows at the next turn of the loop.
        wait: Duration,
    },
    /// A command is run. Only the stop of a program runs it: the stop of a command before or after a run skips the rung.
    Command {
        /// The number of the command among the [stop commands](crate::GroupSpec::stop_command) of the group, from 0 up.
        index: u8,
        /// The time that the command has; not zero.
        limit: Duration,
        /// The wait before the next rung, after the command has succeeded. After a failure the next rung follows at
        /// once.
        wait: Duration,
    },
}

impl Rung {
    /// The signal; `None` for a command.
    ///
    /// ```
    /// # use pidherd::{Scope, Signal};
    /// # use pidherd::lifecycle::Rung;
    /// # use std::time::Duration;
    /// let second = Duration::from_secs(1);
    /// assert_eq!(Rung::new(Signal::TERM, Scope::Process, second).signal(), Some(Signal::TERM));
    /// assert_eq!(Rung::command(0, second, second).signal(), None);
    /// ```
    #[must_use]
    pub const fn signal(&self) -> Option<Signal> {
        match self {
            Rung::Signal { signal, .. } => Some(*signal),
            Rung::Command { .. } => None,
        }
    }

    /// The processes that get the signal; `None` for a command.
    ///
    /// ```
    /// # use pidherd::{Scope, Signal};
    /// # use pidherd::lifecycle::Rung;
    /// # use std::time::Duration;
    /// let rung = Rung::new(Signal::TERM, Scope::ProcessGroup, Duration::from_secs(1));
    /// assert_eq!(rung.scope(), Some(Scope::ProcessGroup));
    /// ```
    #[must_use]
    pub const fn scope(&self) -> Option<Scope> {
        match self {
            Rung::Signal { scope, .. } => Some(*scope),
            Rung::Command { .. } => None,
        }
    }

    /// The wait before the next rung: after the signal, or after the command has succeeded.
    ///
    /// ```
    /// # use pidherd::lifecycle::Rung;
    /// # use std::time::Duration;
    /// let (limit, wait) = (Duration::from_secs(30), Duration::from_secs(5));
    /// assert_eq!(Rung::command(0, limit, wait).wait(), wait);
    /// ```
    #[must_use]
    pub const fn wait(&self) -> Duration {
        match self {
            Rung::Signal { wait, .. } | Rung::Command { wait, .. } => *wait,
        }
    }

    /// The signals that are sent for a rung with this signal, in their order.
    ///
    /// SIGCONT follows the signal, so that a stopped process acts on it. It comes before TSTP, TTIN and TTOU: the
    /// kernel discards a stop signal that is pending when SIGCONT is sent, and a handler of it would not run
    /// (signal(7)). STOP, CONT and KILL are sent alone: they take effect on a stopped process too.
    ///
    /// ```
    /// # use pidherd::Signal;
    /// # use pidherd::lifecycle::Rung;
    /// assert!(Rung::sequence(Signal::TERM).eq([Signal::TERM, Signal::CONT]));
    /// assert!(Rung::sequence(Signal::KILL).eq([Signal::KILL]));
    /// ```
    pub fn sequence(signal: Signal) -> impl Iterator<Item = Signal> {
        signal.with_continue()
    }
}

/// The ladder of a stop: rung by rung, then SIGKILL. Without a rung, SIGKILL is sent at once.
///
/// If any scope is wider than the process, the stop is over when no process of that scope is alive, not when the
/// process itself has ended.
///
/// ```
/// use std::time::Duration;
/// use pidherd::{Command, GroupSpec, Scope, Signal, StopLadder};
///
/// let ladder = StopLadder::signal(Signal::TERM, Scope::ProcessGroup, Duration::from_secs(30));
/// let web = GroupSpec::new("web", Command::new("/usr/bin/web")).stop(ladder);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct StopLadder {
    /// The rungs in order, without SIGKILL.
    pub rungs: Vec<Rung>,
    /// The processes that the final SIGKILL reaches. The scope must be at least as wide as that of every rung.
    pub kill: Scope,
    /// The time that SIGKILL may take before the process is reported as unkillable. The wait for the process
    /// continues: a process in uninterruptible sleep does not die of SIGKILL.
    pub patience: Duration,
}

impl Default for StopLadder {
    /// SIGTERM, ten seconds, SIGKILL; all to the process alone. supervisord's default.
    fn default() -> StopLadder {
        StopLadder::signal(Signal::TERM, Scope::Process, Duration::from_secs(10))
    }
}

impl StopLadder {
    /// The largest number of rungs.
    pub const LIMIT: usize = RUNGS_MAX;

    /// One signal, then SIGKILL, both with the same scope.
    ///
    /// ```
    /// # use pidherd::{Scope, Signal, StopLadder};
    /// # use std::time::Duration;
    /// // SIGTERM, and SIGKILL half a minute later, to all processes of the group.
    /// let ladder = StopLadder::signal(Signal::TERM, Scope::ProcessGroup, Duration::from_secs(30));
    /// assert_eq!((ladder.rungs.len(), ladder.kill), (1, Scope::ProcessGroup));
    /// ```
    #[must_use]
    pub fn signal(signal: Signal, scope: Scope, wait: Duration) -> StopLadder {
        StopLadder {
            rungs: vec![Rung::new(signal, scope, wait)],
            ..StopLadder::kill(scope)
        }
    }

    /// SIGKILL at once.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Scope, StopLadder, Supervisor};
    /// // It has no state to save.
    /// let mut supervisor = Supervisor::new()?;
    /// let spec = GroupSpec::new("cache", Command::new("/usr/bin/cache")).stop(StopLadder::kill(Scope::Process));
    /// supervisor.add(spec)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn kill(scope: Scope) -> StopLadder {
        StopLadder {
            rungs: Vec::new(),
            kill: scope,
            patience: Duration::from_secs(5),
        }
    }

    /// The widest scope of the ladder: a stop is over when it is empty. The processes of a [command](Rung::Command) are
    /// not part of it, and a stop is not over while its command runs.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.rungs.iter().filter_map(Rung::scope).fold(self.kill, Scope::max)
    }

    /// Whether any of its signals has this very scope.
    ///
    /// ```
    /// # use pidherd::{Scope, Signal, StopLadder};
    /// # use std::time::Duration;
    /// let ladder = StopLadder::kill(Scope::Cgroup).then(Signal::TERM, Scope::Process, Duration::from_secs(10));
    /// // The group needs a directory for cgroups, and no process group.
    /// assert!(ladder.has(Scope::Cgroup) && !ladder.has(Scope::ProcessGroup));
    /// ```
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.kill == scope || self.rungs.iter().any(|rung| rung.scope() == Some(scope))
    }

    /// The numbers of the commands that its rungs run.
    pub(crate) fn commands(&self) -> impl Iterator<Item = u8> + '_ {
        self.rungs.iter().filter_map(|rung| match rung {
            Rung::Signal { .. } => None,
            Rung::Command { index, .. } => Some(*index),
        })
    }

    /// The rung with this number. Beyond the last rung the result is SIGKILL with its own number.
    pub(crate) fn rung(&self, number: u8) -> (u8, Rung) {
        let last = Rung::new(Signal::KILL, self.kill, self.patience);
        let mut rungs = self.rungs.iter().take(StopLadder::LIMIT);
        match rungs.nth(number.into()) {
            Some(rung) => (number, *rung),
            None => (Stopping::SIGKILL, last),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), PolicyError> {
        if self.rungs.len() > StopLadder::LIMIT {
            return Err(PolicyError::StopLadder(self.rungs.len()));
        }
        if self.kill < self.scope() {
            return Err(PolicyError::KillScope);
        }
        let has_no_time = |rung: &Rung| matches!(rung, Rung::Command { limit, .. } if limit.is_zero());
        if self.rungs.iter().any(has_no_time) {
            return Err(PolicyError::StopCommandLimit);
        }
        Ok(())
    }
}

stored!(enum Scope { 0 = Process, 1 = ProcessGroup, 2 = Cgroup });
stored!(enum Rung { 0 = Signal { signal, scope, wait }, 1 = Command { index, limit, wait } });
stored!(struct StopLadder { rungs, kill, patience });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigkill_is_the_rung_after_the_last() {
        let ladder = StopLadder::signal(Signal::HUP, Scope::ProcessGroup, Duration::from_secs(3));
        assert_eq!(ladder.rung(0), (0, ladder.rungs[0]));
        let sigkill = Rung::new(Signal::KILL, Scope::ProcessGroup, ladder.patience);
        for beyond in [1, 2, Stopping::SIGKILL] {
            assert_eq!(ladder.rung(beyond), (Stopping::SIGKILL, sigkill));
        }
        assert_eq!(
            StopLadder::kill(Scope::ProcessGroup).rung(0),
            (Stopping::SIGKILL, sigkill)
        );
    }

    #[test]
    fn sigkill_is_reached_on_a_ladder_of_any_length() {
        // Such a ladder is invalid, but the host need not call `validate`.
        let mut ladder = StopLadder::default();
        ladder.rungs = vec![ladder.rungs[0]; 300];
        assert_eq!(ladder.rung(15).0, 15);
        assert_eq!(ladder.rung(16).0, Stopping::SIGKILL);
        assert_eq!(ladder.rung(Stopping::SIGKILL).1.signal(), Some(Signal::KILL));
    }

    #[test]
    fn sigcont_goes_with_every_signal_that_a_stopped_process_would_not_act_on() {
        let sent = |signal| Rung::sequence(signal).collect::<Vec<_>>();
        for signal in Signal::all() {
            let expected = match signal {
                Signal::KILL | Signal::STOP | Signal::CONT => vec![signal],
                Signal::TSTP | Signal::TTIN | Signal::TTOU => vec![Signal::CONT, signal],
                _ => vec![signal, Signal::CONT],
            };
            assert_eq!(sent(signal), expected);
        }
    }

    #[test]
    fn the_widest_scope_decides_when_a_stop_is_over() {
        let mut ladder = StopLadder::default();
        assert_eq!(ladder.scope(), Scope::Process);
        ladder.kill = Scope::ProcessGroup;
        assert_eq!(ladder.scope(), Scope::ProcessGroup);
        ladder.kill = Scope::Process;
        ladder.rungs[0] = Rung::new(Signal::TERM, Scope::ProcessGroup, Duration::ZERO);
        assert_eq!(ladder.scope(), Scope::ProcessGroup);
    }

    #[test]
    fn a_ladder_has_an_end() {
        let rung = Rung::new(Signal::TERM, Scope::Process, Duration::ZERO);
        let of = |rungs| {
            StopLadder {
                rungs: vec![rung; rungs],
                ..StopLadder::default()
            }
            .validate()
        };
        assert_eq!(of(StopLadder::LIMIT), Ok(()));
        assert_eq!(of(StopLadder::LIMIT + 1), Err(PolicyError::StopLadder(17)));
    }

    #[test]
    fn a_command_of_a_ladder_has_time() {
        let of = |limit| {
            let ladder = StopLadder::kill(Scope::Process);
            ladder.then_command(0, limit, Duration::ZERO).validate()
        };
        assert_eq!(of(Duration::ZERO), Err(PolicyError::StopCommandLimit));
        assert_eq!(of(Duration::from_nanos(1)), Ok(()));
    }

    #[test]
    fn sigkill_must_reach_every_scope_of_the_ladder() {
        let of = |rung, kill| {
            StopLadder {
                kill,
                ..StopLadder::signal(Signal::TERM, rung, Duration::ZERO)
            }
            .validate()
        };
        for scope in [Scope::Process, Scope::ProcessGroup] {
            assert_eq!(of(scope, Scope::ProcessGroup), Ok(()));
            assert_eq!(of(Scope::Process, scope), Ok(()));
        }
        assert_eq!(of(Scope::ProcessGroup, Scope::Process), Err(PolicyError::KillScope));
    }
}
