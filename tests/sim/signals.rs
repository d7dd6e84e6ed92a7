//! The effect of signals, of stops, and of standing still.

use std::time::Duration;

use pidherd::lifecycle::StopCommandEnd;
use pidherd::sim::{Script, Simulation, Span, Subject};
use pidherd::supervisor::Supervise;
use pidherd::{Command, Event, Exit, Scope, Signal, StateName, StopLadder};

use super::{
    HOUR, MINUTE, SECOND, assert_about, events, exits, killed_by, policy, start, started, state, steps, until, web,
};

/// Stops a group with this script. Returns how long the stop takes, and the end of the process.
fn stop(script: Script) -> (Duration, Exit) {
    let (mut simulation, group, _) = started(web(policy()), script);
    until(&mut simulation, StateName::Running);
    simulation.advance(MINUTE).unwrap();
    simulation.stop(group).unwrap();
    let began = simulation.elapsed();
    let is_over = |event: &Event| matches!(event, Event::Transition(step) if step.to == StateName::Stopped);
    let Some(Event::Transition(step)) = simulation.run_until(HOUR, is_over).unwrap() else {
        panic!("the stop has no end");
    };
    (simulation.elapsed() - began, step.exit.unwrap().exit)
}

#[test]
fn a_signal_has_its_default_effect() {
    assert_eq!(stop(Script::new()), (Duration::ZERO, killed_by(Signal::TERM)));
}

#[test]
fn a_process_stops_slowly() {
    let script = Script::new().handles(Signal::TERM, 4 * SECOND, 7);
    assert_eq!(stop(script), (4 * SECOND, Exit::Code(7)));
    let script = Script::new().handles(Signal::TERM, Span::between(2 * SECOND, 3 * SECOND), 0);
    let (took, exit) = stop(script);
    assert!(
        exit == Exit::Code(0) && (2 * SECOND..=3 * SECOND).contains(&took),
        "{took:?}"
    );
}

#[test]
fn a_process_that_is_too_slow_or_ignores_the_signal_is_killed() {
    for script in [
        Script::new().ignores(Signal::TERM),
        Script::new().handles(Signal::TERM, MINUTE, 0),
        Script::new().handles(Signal::TERM, SECOND, 0).ignores(Signal::TERM),
    ] {
        assert_eq!(stop(script), (10 * SECOND, killed_by(Signal::KILL)));
    }
}

#[test]
fn sigkill_takes_its_time_and_more_of_it_is_reported() {
    let script = Script::new().ignores(Signal::TERM).dies(HOUR / 2);
    let (mut simulation, group, _) = started(web(policy()), script);
    until(&mut simulation, StateName::Running);
    simulation.stop(group).unwrap();
    let events = events(&mut simulation, HOUR);
    assert!(events.iter().any(|event| matches!(event, Event::Unkillable { .. })));
    let last = steps(&events).last().unwrap();
    assert_eq!(last.to, StateName::Stopped);
    assert_eq!(last.exit.map(|record| record.exit), Some(killed_by(Signal::KILL)));
}

#[test]
fn a_ladder_goes_on_without_a_stop_command_that_nothing_ends() {
    let ladder =
        StopLadder::kill(Scope::Process)
            .then_command(0, SECOND, HOUR)
            .then(Signal::TERM, Scope::Process, HOUR);
    let spec = web(policy()).stop_command(Command::new("/usr/bin/webctl")).stop(ladder);
    let (mut simulation, group, id) = started(spec, Script::new());
    let hangs = Script::new().ignores(Signal::TERM).dies(HOUR / 2);
    simulation.assign(Subject::program("/usr/bin/webctl"), hangs).unwrap();
    until(&mut simulation, StateName::Running);
    simulation.stop(group).unwrap();
    let before = events(&mut simulation, HOUR / 4);
    assert!(before.iter().any(|event| matches!(event, Event::Unkillable { .. })));
    // The program has ended of SIGTERM, and the command is waited for.
    assert_eq!(state(&simulation, id), StateName::Stopping);
    assert!(simulation.status(id).unwrap().pid.is_none());
    let after = events(&mut simulation, HOUR / 2);
    let end = after.iter().find_map(|event| match event {
        Event::StopCommandEnded { end, .. } => Some(*end),
        _ => None,
    });
    assert_eq!(end, Some(StopCommandEnd::TimedOut));
    let last = steps(&after).last().unwrap();
    assert_eq!(last.to, StateName::Stopped);
    assert_eq!(last.exit.map(|record| record.exit), Some(killed_by(Signal::TERM)));
}

#[test]
fn a_second_signal_does_not_delay_the_end() {
    let script = Script::new().handles(Signal::USR1, 10 * SECOND, 1);
    let (mut simulation, group, _) = started(web(policy()), script);
    until(&mut simulation, StateName::Running);
    simulation.signal(group, Signal::USR1).unwrap();
    simulation.advance(6 * SECOND).unwrap();
    simulation.signal(group, Signal::USR1).unwrap();
    assert_about(until(&mut simulation, StateName::Exited) + 6 * SECOND, 10 * SECOND);
}

#[test]
fn a_signal_without_a_default_effect_changes_nothing() {
    let (mut simulation, group, instance) = started(web(policy()), Script::new());
    until(&mut simulation, StateName::Running);
    for signal in [Signal::WINCH, Signal::CHLD, Signal::URG, Signal::CONT] {
        simulation.signal(group, signal).unwrap();
    }
    simulation.advance(MINUTE).unwrap();
    assert_eq!(state(&simulation, instance), StateName::Running);
}

#[test]
fn a_process_that_is_stopped_by_a_signal_goes_on_where_it_was() {
    for signal in [Signal::STOP, Signal::TSTP] {
        let (mut simulation, group, _) = started(web(policy()), Script::new().exits(MINUTE, 0));
        until(&mut simulation, StateName::Running);
        simulation.advance(20 * SECOND).unwrap();
        simulation.signal(group, signal).unwrap();
        assert_eq!(exits(&mut simulation, HOUR), []);
        simulation.signal(group, Signal::CONT).unwrap();
        assert_about(until(&mut simulation, StateName::Exited), 40 * SECOND);
    }
}

#[test]
fn a_stop_wakes_a_process_that_was_stopped_by_a_signal() {
    let script = Script::new().handles(Signal::TERM, SECOND, 0);
    let (mut simulation, group, _) = started(web(policy()), script);
    until(&mut simulation, StateName::Running);
    simulation.signal(group, Signal::STOP).unwrap();
    simulation.advance(MINUTE).unwrap();
    simulation.stop(group).unwrap();
    assert_eq!(exits(&mut simulation, HOUR), [Exit::Code(0)]);
}

#[test]
fn a_frozen_process_stands_still_until_it_is_thawed() {
    let mut simulation = Simulation::new(1);
    simulation.assign("web", Script::new().exits(MINUTE, 0)).unwrap();
    let spec = web(policy()).cgroup(simulation.cgroup_dir().unwrap());
    let (group, instance) = start(&mut simulation, spec);
    until(&mut simulation, StateName::Running);
    simulation.freeze(group).unwrap();
    assert!(simulation.status(instance).unwrap().is_frozen);
    assert_eq!(exits(&mut simulation, HOUR), []);
    simulation.thaw(group).unwrap();
    let took = until(&mut simulation, StateName::Exited);
    assert!(took > 59 * SECOND && took <= MINUTE, "{took:?}");
}

#[test]
fn a_frozen_process_is_stopped_and_killed() {
    for ladder in [
        StopLadder::signal(Signal::TERM, Scope::Cgroup, 10 * SECOND),
        StopLadder::kill(Scope::Cgroup),
    ] {
        let mut simulation = Simulation::new(1);
        let spec = web(policy().stop(ladder)).cgroup(simulation.cgroup_dir().unwrap());
        let (group, _) = start(&mut simulation, spec);
        until(&mut simulation, StateName::Running);
        simulation.freeze(group).unwrap();
        simulation.stop(group).unwrap();
        assert_eq!(until(&mut simulation, StateName::Stopped), Duration::ZERO);
        assert_eq!(simulation.living(), 0);
    }
}

#[test]
fn a_signal_to_the_host_is_reported() {
    let mut simulation = Simulation::new(1);
    simulation.signal_host(Signal::HUP);
    simulation.signal_host(Signal::HUP);
    simulation.signal_host(Signal::TERM);
    // No signalfd receives these.
    simulation.signal_host(Signal::KILL);
    simulation.signal_host(Signal::STOP);
    let events = events(&mut simulation, SECOND);
    let signals: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Signal(info) => Some(info.signal),
            _ => None,
        })
        .collect();
    assert_eq!(signals, [Signal::HUP, Signal::TERM]);
}
