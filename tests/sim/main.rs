//! The optional feature `sim`: `cargo test --features sim --test sim`.

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod kinds;
mod signals;
mod stories;
mod time;
mod trees;

use std::time::Duration;

use pidherd::lifecycle::{Delay, StopLadder};
use pidherd::sim::{Behavior, Simulation};
use pidherd::supervisor::{Supervise, TransitionEvent};
use pidherd::{
    Command, Event, Exit, GroupId, GroupSpec, InstanceId, Policy, Restart, Scope, Signal, Startup, StateName,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3_600);

/// What a simulated spawn takes at most.
pub(crate) const SPAWN: Duration = Duration::from_millis(1);

/// Never restarted, running as soon as it is executed, stopped by SIGTERM within ten seconds.
pub(crate) fn policy() -> Policy {
    Policy::new()
        .startup(Startup::Grace(Duration::ZERO))
        .restart(Restart::Never)
        .start_retries(0)
        .backoff(Delay::Fixed(SECOND))
        .stop(StopLadder::signal(Signal::TERM, Scope::Process, 10 * SECOND))
}

/// A group of one under a policy.
pub(crate) fn web(policy: Policy) -> GroupSpec {
    GroupSpec::new("web", Command::new("/usr/bin/web")).policy(policy)
}

/// A policy that restarts for ever, after a second.
pub(crate) fn for_ever() -> Policy {
    policy()
        .restart(Restart::Always)
        .restart_delay(Delay::Fixed(SECOND))
        .crash_budget(None)
}

/// A simulation with one group `web` that has been started, and its only instance.
pub(crate) fn started(spec: GroupSpec, behavior: impl Into<Behavior>) -> (Simulation, GroupId, InstanceId) {
    let mut simulation = Simulation::new(1);
    simulation.assign("web", behavior).unwrap();
    let (group, instance) = start(&mut simulation, spec);
    (simulation, group, instance)
}

/// Adds a group and starts it. Returns its first instance too.
pub(crate) fn start(simulation: &mut Simulation, spec: GroupSpec) -> (GroupId, InstanceId) {
    let group = simulation.add(spec).unwrap();
    simulation.start(group).unwrap();
    (group, simulation.group(group).unwrap().instances[0])
}

/// Moves the time by this much, and returns all events.
pub(crate) fn events(simulation: &mut Simulation, by: Duration) -> Vec<Event> {
    let mut events = Vec::new();
    simulation
        .run_for(by, |_, event| {
            events.push(event.clone());
            Ok(())
        })
        .unwrap();
    events
}

/// The changes of states among these events.
pub(crate) fn steps(events: &[Event]) -> impl Iterator<Item = &TransitionEvent> {
    events.iter().filter_map(|event| match event {
        Event::Transition(step) => Some(step),
        _ => None,
    })
}

/// The states that an instance goes through in this time.
pub(crate) fn states(simulation: &mut Simulation, by: Duration) -> Vec<StateName> {
    steps(&events(simulation, by)).map(|step| step.to).collect()
}

/// The ends of processes in this time.
pub(crate) fn exits(simulation: &mut Simulation, by: Duration) -> Vec<Exit> {
    let events = events(simulation, by);
    steps(&events).filter_map(|step| Some(step.exit?.exit)).collect()
}

/// Moves the time until an instance is in this state, and returns how long that took.
pub(crate) fn until(simulation: &mut Simulation, state: StateName) -> Duration {
    let began = simulation.elapsed();
    let is_it = |event: &Event| matches!(event, Event::Transition(step) if step.to == state);
    let found = simulation.run_until(365 * DAY, is_it).unwrap();
    assert!(found.is_some(), "no instance becomes {state}");
    simulation.elapsed() - began
}

pub(crate) fn state(simulation: &Simulation, instance: InstanceId) -> StateName {
    simulation.status(instance).unwrap().state.name()
}

/// Whether a time is this one, but for the time that spawns take.
#[track_caller]
pub(crate) fn assert_about(time: Duration, expected: Duration) {
    assert!(
        time >= expected && time <= expected + SPAWN,
        "{time:?}, not {expected:?}"
    );
}

pub(crate) fn killed_by(signal: Signal) -> Exit {
    Exit::Signal { signal, core: false }
}
