//! The commands of stop ladders. They are processes of instances that the model does not have, so they have a model of
//! their own here: which command runs for which instance, since when, and how it has ended.

use std::time::Duration;

use super::act::Act;
use super::host::{Broken, Host, Snapshot, Touched};
use super::oracle::ensure;
use super::recipe::Label;
use super::reexec::moved;
use super::world::{Did, Sight};
use crate::engine::core::Engine;
use crate::engine::ids::InstanceId;
use crate::engine::kernel::Kernel;
use crate::engine::stop_of::StopOf;
use crate::exit::{Exit, Pid};
use crate::lifecycle::{Part, Rung, State, StopCommandEnd, Stopping};
use crate::signal::Signal;
use crate::time::Instant;

/// One spawn of a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// The instance with the program that it stops.
    pub(super) program: InstanceId,
    serial: u64,
    pid: Option<Pid>,
    rung: u8,
    limit: Duration,
    at: Instant,
    /// Whether it has no process: the spawn or the execution has failed.
    failed: bool,
    exit: Option<Exit>,
    killed: bool,
    /// Whether a signal to it was refused.
    refused: bool,
    /// Whether its process is not there any more.
    is_over: bool,
    is_foreign: bool,
    /// The epoch of the policy at its spawn.
    epoch: u32,
}

/// What the instance of a command is for.
pub(super) fn stop_of<K: Kernel>(driver: &Engine<K>, id: InstanceId) -> Option<StopOf> {
    driver
        .instances
        .get(id)?
        .stop_command
        .as_ref()
        .map(|command| command.of)
}

/// The instance that a slot belongs to in the model: that of the program, for the slot of a command.
pub(super) fn known_as<K: Kernel>(driver: &Engine<K>, slot: u32) -> Option<InstanceId> {
    let id = driver.instances.id_at(slot)?;
    Some(stop_of(driver, id).map_or(id, |of| of.program))
}

/// The instance of the commands of an instance.
pub(super) fn command_of<K: Kernel>(driver: &Engine<K>, id: InstanceId) -> Option<InstanceId> {
    driver.instances.get(id)?.stopper
}

impl Host {
    fn command_mut(&mut self, serial: u64) -> Option<&mut Known> {
        let mut known = self.model.commands.iter_mut();
        known.find(|known| known.serial == serial && known.pid.is_some())
    }

    /// The state of the instance of an instance's commands before the step.
    fn command_before(&self, id: InstanceId) -> Option<&Snapshot> {
        let of = self.commands_before.iter().find(|(program, _)| *program == id);
        of.map(|(_, before)| before)
    }

    /// Whether a step was about the command of this instance.
    pub(super) fn concerns_command(&self, id: InstanceId, touched: &Touched) -> bool {
        let Some(before) = self.command_before(id) else {
            return false;
        };
        let is_of_it = |did: &Did| match did {
            Did::Collect { serial, result, .. } => Some(*serial) == before.serial && *result != Ok(Sight::Nothing),
            _ => false,
        };
        let was_seen = self.world.borrow().log.iter().any(is_of_it);
        let is_due = before.is_due(self.woken, true);
        match touched {
            Touched::These(these) => these.contains(&before.id),
            Touched::Due(these) => is_due || these.contains(&before.id),
            Touched::Ready => is_due || was_seen,
        }
    }

    /// How many commands of this rung were begun.
    pub(super) fn commands_begun(&self, rung: u8) -> usize {
        self.model.commands.iter().filter(|known| known.rung == rung).count()
    }

    /// Whether a signal to a process of this instance of a command was refused.
    pub(super) fn was_refused_a_command(&self, id: InstanceId) -> bool {
        stop_of(&self.driver, id).is_some_and(|of| was_refused(self, of.program))
    }

    pub(super) fn move_commands(&mut self, home: u32) {
        for known in &mut self.model.commands {
            known.program = moved(&known.program, home);
        }
    }

    /// The host was killed: what it has not seen is told by another parent.
    pub(super) fn commands_are_foreign(&mut self) {
        let world = self.world.borrow();
        for known in &mut self.model.commands {
            known.is_foreign = true;
            known.is_over |= world.process(known.serial).is_none();
        }
    }
}

/// Applies a call that is about a command. Returns whether it was.
pub(super) fn one(host: &mut Host, did: &Did) -> Result<bool, Broken> {
    match *did {
        Did::Spawn {
            owner, label, at, made, ..
        } if label.part == Part::Stop => spawned(host, owner, label, at, made).map(|()| true),
        Did::Collect { serial, result, .. } => {
            let Some(known) = host.command_mut(serial) else {
                return Ok(false);
            };
            match result {
                Ok(Sight::Ended(exit)) => known.exit = Some(exit),
                Ok(Sight::NotExecuted(_)) => known.failed = true,
                _ => {}
            }
            Ok(true)
        }
        Did::Signal {
            serial,
            signal,
            failed,
            at,
            ..
        } => {
            let is_stop = !matches!(host.act, Act::Signal(..));
            let is_recovery = matches!(host.act, Act::Crash(_));
            let to_be_killed = was_to_be_killed(host, serial);
            let Some(known) = host.command_mut(serial) else {
                return Ok(false);
            };
            ensure(is_stop && signal == Signal::KILL, || {
                format!("{signal} goes to a stop command: {known:?}")
            })?;
            // Others that it has left are killed at once.
            let is_due = known.exit.is_some() || at >= known.at.saturating_add(known.limit);
            // The next host counts from the time before its birth.
            let is_due = is_due || known.is_foreign;
            let may_be_killed = is_due || known.killed || to_be_killed || is_recovery;
            ensure(may_be_killed, || {
                format!("a stop command is killed too early, at {at:?}: {known:?}")
            })?;
            known.killed = true;
            known.refused |= failed.is_some();
            Ok(true)
        }
        Did::Release { serial, abandons, .. } => {
            let Some(known) = host.command_mut(serial) else {
                return Ok(false);
            };
            known.is_over = true;
            ensure(!abandons, || format!("a stop command has left processes: {known:?}"))?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Whether a kill of the instance was requested, or its program is gone after a crash.
fn was_to_be_killed(host: &Host, serial: u64) -> bool {
    let known = host.model.commands.iter().find(|known| known.serial == serial);
    let Some(program) = known.map(|known| known.program) else {
        return false;
    };
    let before = host.before.iter().find(|before| before.id == program);
    let by_request = matches!(host.act, Act::Request(_, crate::engine::request::Request::Kill));
    by_request || before.is_some_and(|before| before.pending == Some(crate::engine::request::Request::Kill))
}

/// No two commands of an instance run at once, and each is that of the newest description.
fn spawned(host: &mut Host, slot: u32, label: Label, at: Instant, made: Result<(u64, Pid), i32>) -> Result<(), Broken> {
    let of = host
        .driver
        .instances
        .id_at(slot)
        .and_then(|id| stop_of(&host.driver, id));
    let Some(of) = of.or_else(|| left_in_the_step(host, slot)) else {
        return Ok(());
    };
    let earlier = host
        .model
        .commands
        .iter()
        .find(|known| known.program == of.program && !known.is_over);
    let is_there = |known: &&Known| host.world.borrow().process(known.serial).is_some();
    let earlier = earlier.filter(is_there);
    ensure(earlier.is_none(), || {
        format!("a second command runs beside {earlier:?}")
    })?;
    let known = host.model.instance(of.program);
    let group = known.and_then(|known| host.model.group(known.group));
    if let Some(group) = group {
        // In one step several may have failed, and the last one is known.
        let is_it = label
            .version
            .checked_sub(group.recipe.stop_version)
            .is_some_and(|index| index < 2);
        ensure(is_it, || format!("{of:?} is spawned as {label:?}: {:?}", group.recipe))?;
    }
    let known = Known {
        program: of.program,
        serial: made.map_or(0, |(serial, _)| serial),
        pid: made.ok().map(|(_, pid)| pid),
        rung: of.rung,
        limit: of.limit,
        at,
        failed: made.is_err(),
        exit: None,
        killed: false,
        refused: false,
        is_over: made.is_err(),
        is_foreign: false,
        epoch: group.map_or(0, |group| group.epoch),
    };
    host.model.commands.push(known);
    Ok(())
}

/// What the instance in this slot was for, if it has left in the step in which its command was spawned.
fn left_in_the_step(host: &Host, slot: u32) -> Option<StopOf> {
    let is_it = |(_, before): &&(InstanceId, Snapshot)| before.id.index() == slot;
    let (program, _) = host.commands_before.iter().find(is_it)?;
    Some(StopOf {
        program: *program,
        run: 0,
        index: 0,
        rung: 0,
        limit: Duration::ZERO,
    })
}

/// The promises that hold after every step.
pub(super) fn check(host: &mut Host) -> Result<(), Broken> {
    for known in &host.model.instances {
        let Some(instance) = host.driver.instances.get(known.id) else {
            continue;
        };
        let state = *instance.life.state();
        one_instance(host, known.id, state).map_err(|broken| format!("{:?}: {broken}", known.id))?;
    }
    let is_kept = |known: &Known| host.driver.instances.get(known.program).is_some();
    let kept: Vec<_> = host
        .model
        .commands
        .iter()
        .filter(|known| is_kept(known))
        .copied()
        .collect();
    host.model.commands = kept;
    // The last few are enough for the events.
    let surplus = host.model.commands.len().saturating_sub(200);
    host.model.commands.drain(..surplus);
    Ok(())
}

fn one_instance(host: &Host, id: InstanceId, state: State) -> Result<(), Broken> {
    let command = command_of(&host.driver, id).and_then(|command| {
        let instance = host.driver.instances.get(command)?;
        Some((command, *instance.life.state()))
    });
    let has_command = matches!(state, State::Stopping(stopping) if stopping.has_command);
    let Some((command, lives)) = command else {
        return ensure(!has_command, || "it has no command, and waits for one".into());
    };
    // The ladder goes on when the command has ended, and no command runs that nothing waits for.
    let is_ending = matches!(lives, State::Stopping(_));
    ensure(
        lives.name().is_alive() == has_command || (is_ending && !has_command),
        || format!("its command is {lives:?}, and it is {state:?}"),
    )?;
    ensure(lives.name().is_alive() || lives == State::Stopped, || {
        format!("its command is at rest as {lives:?}")
    })?;
    let deadline = host.driver.deadlines.of(command.index());
    ensure(deadline == lives.deadline(), || {
        format!(
            "the deadline of its command is {:?}, and {deadline:?} is set",
            lives.deadline()
        )
    })?;
    let last = host.model.commands.iter().rev().find(|known| known.program == id);
    has_its_limit(host, lives, last)?;
    goes_on(host, state, last)
}

/// A command has its limit from its spawn on, or more if its program has asked for it.
fn has_its_limit(host: &Host, lives: State, last: Option<&Known>) -> Result<(), Broken> {
    let State::Starting {
        pid: Some(_), until, ..
    } = lives
    else {
        return Ok(());
    };
    let Some(known) = last.filter(|known| !known.is_foreign) else {
        return Ok(());
    };
    let expected = known.at.saturating_add(known.limit);
    let longest = host.world.borrow().now.saturating_add(Duration::from_millis(1));
    let is_right = until == expected || (until > expected && until <= longest);
    ensure(is_right, || {
        format!("its stop command may run until {until:?}, and should until {expected:?}")
    })
}

/// After a success the ladder waits for the time of the rung, and after a failure the next rung follows at once.
fn goes_on(host: &Host, state: State, last: Option<&Known>) -> Result<(), Broken> {
    let (State::Stopping(stopping), Some(known)) = (state, last) else {
        return Ok(());
    };
    let is_on_it = stopping.rung == known.rung && known.rung != Stopping::SIGKILL && !stopping.has_command;
    if !is_on_it || !known.is_over || stopping.since >= known.at {
        return Ok(());
    }
    let Some(instance) = host.model.instance(known.program) else {
        return Ok(());
    };
    let group = host.model.group(instance.group);
    let Some(group) = group.filter(|group| group.epoch == known.epoch && !known.is_foreign) else {
        return Ok(());
    };
    let rungs = || instance.ladders(&group.policy).map(|ladder| ladder.rung(known.rung).1);
    let is_command = rungs().all(|rung| matches!(rung, Rung::Command { .. }));
    let has_succeeded = known.exit == Some(Exit::Code(0)) && !known.failed;
    ensure(has_succeeded || !is_command, || {
        format!("its stop command has failed, and the ladder waits in {state:?}: {known:?}")
    })?;
    let wait = rungs().map(|rung| rung.wait()).min().unwrap_or_default();
    ensure(stopping.until >= known.at.saturating_add(wait), || {
        format!(
            "the ladder goes on at {:?}, before its wait is over: {known:?}",
            stopping.until
        )
    })
}

/// A command that is reported as started was spawned.
pub(super) fn started(host: &Host, id: InstanceId, pid: Pid) -> Result<(), Broken> {
    if host.driver.instances.get(id).is_none() {
        return Ok(());
    }
    let mut known = host.model.commands.iter();
    let is_it = known.any(|known| known.program == id && known.pid == Some(pid));
    ensure(is_it, || format!("no stop command of {id:?} was process {pid}"))
}

/// Whether a signal to a command of this instance was refused.
pub(super) fn was_refused(host: &Host, id: InstanceId) -> bool {
    let mut known = host.model.commands.iter();
    host.driver.instances.get(id).is_none() || known.any(|known| known.program == id && known.refused)
}

/// A command has ended as it is reported.
pub(super) fn ended(host: &mut Host, id: InstanceId, pid: Option<Pid>, end: StopCommandEnd) -> Result<(), Broken> {
    host.tally.saw_stop_command(end);
    let is_described = host.model.instance(id).is_some_and(|known| {
        let group = host.model.group(known.group);
        group.is_some_and(|group| !group.leaving)
    });
    if host.driver.instances.get(id).is_none() || (pid.is_none() && !is_described) {
        return Ok(());
    }
    let may_have = |known: &&Known| match end {
        StopCommandEnd::Succeeded => known.exit == Some(Exit::Code(0)),
        StopCommandEnd::Failed(exit) => known.exit == Some(exit) || (known.is_foreign && exit == Exit::Unknown),
        StopCommandEnd::NotSpawned { .. } => known.failed,
        StopCommandEnd::TimedOut => known.killed || known.exit.is_some() || known.is_foreign,
        StopCommandEnd::Killed => known.killed || known.exit.is_some() || known.failed || known.is_foreign,
    };
    let known = host
        .model
        .commands
        .iter()
        .filter(|known| known.program == id && known.pid == pid);
    // A command that was withdrawn before its spawn has no process.
    let is_true = known.clone().any(|known| may_have(&known)) || (pid.is_none() && end == StopCommandEnd::Killed);
    ensure(is_true || (pid.is_none() && known.clone().next().is_some()), || {
        format!("a stop command of {id:?} was {:?}", known.collect::<Vec<_>>())
    })
}
