//! Statistics of a simulation: one that meets no trouble proves nothing.

use super::world::{Did, Sight, Taken};
use crate::engine::event::TransitionEvent;
use crate::engine::recovery::LeftBehind;
use crate::lifecycle::{Cause, CommandFailure, Failure, StateName, StopCommandEnd};

/// How often each kind of event occurred.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) episodes: u64,
    pub(super) steps: u64,
    transitions: [[u64; STATES.len()]; STATES.len()],
    causes: [u64; CAUSES.len()],
    deeds: [u64; DEEDS.len()],
    crashes: [u64; CRASHES.len()],
    stop_commands: [u64; STOP_COMMANDS.len()],
    /// How often an episode had each kind of ending.
    pub(super) endings: [u64; ENDINGS.len()],
}

const STATES: [StateName; 9] = [
    StateName::Stopped,
    StateName::Starting,
    StateName::Running,
    StateName::Stopping,
    StateName::Exited,
    StateName::Backoff,
    StateName::Fatal,
    StateName::Preparing,
    StateName::CleaningUp,
];

/// Every transition that an event can report.
const STEPS: &[(StateName, StateName)] = &[
    (StateName::Stopped, StateName::Starting),
    (StateName::Starting, StateName::Running),
    (StateName::Starting, StateName::Backoff),
    (StateName::Starting, StateName::Exited),
    (StateName::Starting, StateName::Stopped),
    (StateName::Starting, StateName::Stopping),
    (StateName::Running, StateName::Exited),
    (StateName::Running, StateName::Stopping),
    (StateName::Stopping, StateName::Stopped),
    (StateName::Stopping, StateName::Starting),
    (StateName::Stopping, StateName::Backoff),
    (StateName::Stopping, StateName::Exited),
    (StateName::Exited, StateName::Starting),
    (StateName::Exited, StateName::Backoff),
    (StateName::Exited, StateName::Fatal),
    (StateName::Backoff, StateName::Starting),
    (StateName::Backoff, StateName::Stopped),
    (StateName::Backoff, StateName::Fatal),
    (StateName::Fatal, StateName::Starting),
    (StateName::Fatal, StateName::Stopped),
    (StateName::Stopped, StateName::Preparing),
    (StateName::Exited, StateName::Preparing),
    (StateName::Backoff, StateName::Preparing),
    (StateName::Fatal, StateName::Preparing),
    (StateName::Stopping, StateName::Preparing),
    (StateName::CleaningUp, StateName::Preparing),
    (StateName::Preparing, StateName::Starting),
    (StateName::Preparing, StateName::Stopped),
    (StateName::Preparing, StateName::Backoff),
    (StateName::Preparing, StateName::Stopping),
    (StateName::Preparing, StateName::CleaningUp),
    (StateName::Starting, StateName::CleaningUp),
    (StateName::Running, StateName::CleaningUp),
    (StateName::Stopping, StateName::CleaningUp),
    (StateName::CleaningUp, StateName::Stopped),
    (StateName::CleaningUp, StateName::Exited),
    (StateName::CleaningUp, StateName::Backoff),
    (StateName::CleaningUp, StateName::Starting),
];

const CAUSES: [&str; 23] = [
    "requested",
    "grace over",
    "ready",
    "not spawned",
    "failed: ended",
    "start timeout",
    "not ready",
    "watchdog",
    "ended",
    "restart",
    "delay over",
    "retries used up",
    "permanent",
    "crash budget",
    "cool-off over",
    "gone",
    "run timed out",
    "unhealthy",
    "prepared",
    "command before the run not spawned",
    "command before the run failed",
    "command before the run timed out",
    "a sibling has ended",
];

const DEEDS: [&str; 31] = [
    "spawned",
    "spawn refused",
    "collected",
    "collected and held",
    "collect refused",
    "found alive",
    "signalled",
    "signal refused",
    "found empty",
    "found not empty",
    "look refused",
    "released",
    "released with others alive",
    "arm refused",
    "reported an empty cgroup",
    "reported readiness",
    "reported the end of its readiness descriptor",
    "found ended without a status",
    "sent",
    "received",
    "signal to the host taken",
    "orphan taken",
    "spawned in flight",
    "reported the execution",
    "reported a failed execution",
    "ended in flight",
    "handed over",
    "handed over with a spawn in flight",
    "handed over without a description",
    "stopped a group because of the end of an instance",
    "seen to have executed because of a report",
];

/// How stop commands end.
const STOP_COMMANDS: [&str; 5] = [
    "stop command succeeded",
    "stop command not spawned",
    "stop command failed",
    "stop command timed out",
    "stop command killed",
];

/// What happens when a host is killed.
const CRASHES: [&str; 7] = [
    "host killed",
    "host killed in the middle of a step",
    "recovered a birth without a record",
    "recovered an end while no host was there",
    "number given to a stranger",
    "process without a proof",
    "recovered a process",
];

fn place(name: StateName) -> usize {
    STATES.iter().position(|&state| state == name).unwrap()
}

pub(super) const ENDINGS: [&str; 3] = ["shutdown", "up", "drop"];

impl Tally {
    pub(super) fn add(&mut self, other: &Tally) {
        self.episodes += other.episodes;
        self.steps += other.steps;
        let pairs = self
            .transitions
            .iter_mut()
            .flatten()
            .zip(other.transitions.iter().flatten());
        let pairs = pairs.chain(self.causes.iter_mut().zip(&other.causes));
        let pairs = pairs.chain(self.deeds.iter_mut().zip(&other.deeds));
        let pairs = pairs.chain(self.crashes.iter_mut().zip(&other.crashes));
        let pairs = pairs.chain(self.stop_commands.iter_mut().zip(&other.stop_commands));
        for (sum, more) in pairs.chain(self.endings.iter_mut().zip(&other.endings)) {
            *sum += more;
        }
    }

    /// Counts a transition. Returns whether it is a known one.
    pub(super) fn count_transition(&mut self, event: &TransitionEvent) -> bool {
        self.transitions[place(event.from)][place(event.to)] += 1;
        self.causes[match event.cause {
            Cause::Requested => 0,
            Cause::GraceOver => 1,
            Cause::Ready => 2,
            Cause::Failed(Failure::Spawn { .. }) => 3,
            Cause::Failed(Failure::Ended(_)) => 4,
            Cause::Failed(Failure::StartTimeout) => 5,
            Cause::Failed(Failure::NotReady) => 6,
            Cause::Failed(Failure::Watchdog) => 7,
            Cause::Ended { .. } => 8,
            Cause::Restart => 9,
            Cause::DelayOver => 10,
            Cause::RetriesUsedUp => 11,
            Cause::Permanent => 12,
            Cause::CrashBudgetUsedUp => 13,
            Cause::CoolOffOver => 14,
            Cause::Gone => 15,
            Cause::Failed(Failure::TimedOut) => 16,
            Cause::Failed(Failure::Unhealthy) => 17,
            // The simulated host adopts and releases nothing.
            Cause::RequirementStopped => 0,
            // Nothing fails because of a sibling.
            Cause::Failed(Failure::Sibling) => return false,
            Cause::Adopted | Cause::Released | Cause::RequirementFailed | Cause::RequirementRemoved => return false,
            Cause::Prepared => 18,
            Cause::SiblingEnded => 22,
            Cause::Failed(Failure::Before(CommandFailure::Spawn { .. })) => 19,
            Cause::Failed(Failure::Before(CommandFailure::Ended(_))) => 20,
            Cause::Failed(Failure::Before(CommandFailure::TimedOut)) => 21,
        }] += 1;
        STEPS.contains(&(event.from, event.to))
    }

    /// Counts the end of a process that had not executed its program.
    pub(super) fn saw_end_in_flight(&mut self) {
        self.deeds[25] += 1;
    }

    /// Counts a hand-over to another program.
    pub(super) fn saw_hand_over(&mut self, with_flights: bool) {
        self.deeds[26] += 1;
        self.deeds[27] += u64::from(with_flights);
    }

    /// Counts a group that the next program did not describe.
    pub(super) fn saw_left_out(&mut self) {
        self.deeds[28] += 1;
    }

    /// Counts a group that was stopped because of the end of one of its instances.
    pub(super) fn saw_group_stop(&mut self) {
        self.deeds[29] += 1;
    }

    /// Counts the end of a stop command.
    pub(super) fn saw_stop_command(&mut self, end: StopCommandEnd) {
        self.stop_commands[match end {
            StopCommandEnd::Succeeded => 0,
            StopCommandEnd::NotSpawned { .. } => 1,
            StopCommandEnd::Failed(_) => 2,
            StopCommandEnd::TimedOut => 3,
            StopCommandEnd::Killed => 4,
        }] += 1;
    }

    /// Counts a host that was killed.
    pub(super) fn saw_crash(&mut self, in_mid_step: bool) {
        self.crashes[0] += 1;
        self.crashes[1] += u64::from(in_mid_step);
    }

    /// The number of hosts that were killed in the middle of a step.
    pub(super) const fn killed_in_mid_step(&self) -> u64 {
        self.crashes[1]
    }

    /// Counts the numbers of processes that were given to others while no host was there.
    pub(super) fn saw_strangers(&mut self, count: u64) {
        self.crashes[4] += count;
    }

    /// Counts what a recovery has found.
    pub(super) fn saw_recovery<P>(&mut self, left: &LeftBehind<P>) {
        self.crashes[2] += left.born.len() as u64;
        self.crashes[3] += left.ended.len() as u64;
        self.crashes[5] += left.unproven.len() as u64;
        self.crashes[6] += left.candidates.len() as u64;
    }

    pub(super) fn saw(&mut self, did: &Did) {
        self.deeds[match did {
            Did::Spawn { flies: true, .. } => 22,
            Did::Spawn { made: Ok(_), .. } => 0,
            Did::Spawn { made: Err(_), .. } => 1,
            Did::Collect { result, hold, .. } => match (result, hold) {
                (Ok(Sight::Ended(_)), false) => 2,
                (Ok(Sight::Ended(_)), true) => 3,
                (Err(_), _) => 4,
                (Ok(Sight::Nothing), _) => 5,
                (Ok(Sight::Executed(_)), _) => 23,
                (Ok(Sight::NotExecuted(_)), _) => 24,
                (Ok(Sight::Empty), _) => 14,
                (Ok(Sight::Ready), _) => 15,
                (Ok(Sight::NotReady), _) => 16,
                (Ok(Sight::Late), _) => 17,
            },
            Did::SeeExecution { .. } => 30,
            Did::Signal { failed: None, .. } => 6,
            Did::Signal { failed: Some(_), .. } => 7,
            Did::Look { result, .. } => match result {
                Ok(true) => 8,
                Ok(false) => 9,
                Err(_) => 10,
            },
            Did::Release { abandons: false, .. } => 11,
            Did::Release { abandons: true, .. } => 12,
            Did::Arm { ok: false, .. } => 13,
            Did::Arm { ok: true, .. } | Did::Leave { .. } => return,
            Did::Send { .. } => 18,
            Did::Receive { .. } => 19,
            Did::Take(Taken::Signal(_)) => 20,
            Did::Take(Taken::Orphan(_)) => 21,
        }] += 1;
    }

    /// The events that should have occurred and did not.
    pub(super) fn missing(&self) -> Vec<String> {
        let steps = STEPS
            .iter()
            .filter(|&&(from, to)| self.transitions[place(from)][place(to)] == 0)
            .map(|(from, to)| format!("{from} -> {to}"));
        let named = CAUSES.iter().zip(&self.causes).chain(DEEDS.iter().zip(&self.deeds));
        let named = named.chain(CRASHES.iter().zip(&self.crashes));
        let named = named.chain(STOP_COMMANDS.iter().zip(&self.stop_commands));
        let named = named.chain(ENDINGS.iter().zip(&self.endings));
        let unseen = named
            .filter(|&(_, &count)| count == 0)
            .map(|(name, _)| (*name).to_owned());
        steps.chain(unseen).collect()
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} steps in {} episodes", self.steps, self.episodes)?;
        for &(from, to) in STEPS {
            let count = self.transitions[place(from)][place(to)];
            writeln!(f, "  {count:>12} {from} -> {to}")?;
        }
        let named = CAUSES.iter().zip(&self.causes).chain(DEEDS.iter().zip(&self.deeds));
        let named = named.chain(CRASHES.iter().zip(&self.crashes));
        let named = named.chain(STOP_COMMANDS.iter().zip(&self.stop_commands));
        for (name, count) in named.chain(ENDINGS.iter().zip(&self.endings)) {
            writeln!(f, "  {count:>12} {name}")?;
        }
        Ok(())
    }
}
