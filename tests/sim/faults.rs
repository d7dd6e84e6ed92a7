//! Spawns and signals that fail, and scripts that are wrong.

use std::time::Duration;

use pidherd::sim::{Behavior, Faults, Fork, Script, ScriptError, Simulation, Span, SpawnFailure, Subject};
use pidherd::supervisor::Supervise;
use pidherd::{Event, Exit, Signal, SpawnStep, StateName};

use super::{HOUR, MINUTE, SECOND, events, for_ever, killed_by, policy, start, started, state, steps, until, web};

const FAILURES: [(SpawnFailure, SpawnStep, i32); 6] = [
    (SpawnFailure::NotFound, SpawnStep::Exec, libc::ENOENT),
    (SpawnFailure::NotPermitted, SpawnStep::Exec, libc::EACCES),
    (SpawnFailure::Busy, SpawnStep::Exec, libc::ETXTBSY),
    (SpawnFailure::NoProcess, SpawnStep::Clone, libc::EAGAIN),
    (SpawnFailure::NoMemory, SpawnStep::Clone, libc::ENOMEM),
    (SpawnFailure::NoDescriptor, SpawnStep::Clone, libc::EMFILE),
];

#[test]
fn a_spawn_fails_in_each_way_in_flight_and_not() {
    for in_flight in [0, 1, 32] {
        for (failure, step, errno) in FAILURES {
            let mut simulation = Simulation::builder().spawns_in_flight(in_flight).build();
            simulation.assign("web", Script::not_spawned(failure)).unwrap();
            let (_, instance) = start(&mut simulation, web(policy()));
            simulation.advance(MINUTE).unwrap();
            let status = simulation.status(instance).unwrap();
            let error = status.last_error.unwrap();
            assert_eq!((error.step(), error.errno()), (step, errno), "{failure:?}");
            // A shortage passes, and is not counted.
            let expected = if error.is_transient() {
                StateName::Backoff
            } else {
                StateName::Fatal
            };
            assert_eq!(status.state.name(), expected);
            assert_eq!(simulation.living(), 0);
            // The next spawn is not hindered by the one that failed.
            simulation.assign("web", Script::new()).unwrap();
            simulation.start(instance).unwrap();
            until(&mut simulation, StateName::Running);
        }
    }
}

#[test]
fn only_the_run_with_the_number_fails() {
    let failing = Script::not_spawned(SpawnFailure::NoMemory);
    let behavior = Behavior::new(Script::new().exits(SECOND, 0)).run(2, failing);
    let (mut simulation, _, _) = started(web(for_ever().start_retries(3)), behavior);
    let events = events(&mut simulation, 6 * SECOND);
    let failed: Vec<u64> = steps(&events)
        .filter(|step| step.error.is_some())
        .map(|step| step.run)
        .collect();
    assert_eq!(failed, [2]);
    assert!(steps(&events).any(|step| step.run == 3 && step.to == StateName::Running));
}

#[test]
fn faults_strike_until_they_are_set_anew() {
    let (mut simulation, _, instance) = started(web(policy().start_retries(100)), Script::new());
    until(&mut simulation, StateName::Running);
    let faults = Faults::new()
        .spawns(0.5, SpawnFailure::NoMemory)
        .spawns(0.5, SpawnFailure::NoProcess);
    simulation.set_faults(faults).unwrap();
    simulation.restart(instance).unwrap();
    let errors: Vec<i32> = steps(&events(&mut simulation, MINUTE))
        .filter_map(|step| Some(step.error.as_ref()?.errno()))
        .collect();
    let count = |errno| errors.iter().filter(|&&other| other == errno).count();
    assert!(count(libc::ENOMEM) > 10 && count(libc::EAGAIN) > 10, "{errors:?}");
    simulation.set_faults(Faults::new()).unwrap();
    simulation.advance(2 * SECOND).unwrap();
    assert_eq!(state(&simulation, instance), StateName::Running);
}

#[test]
fn a_signal_that_is_refused_is_reported_and_the_ladder_goes_on() {
    let (mut simulation, group, _) = started(web(policy()), Script::new());
    until(&mut simulation, StateName::Running);
    simulation.set_faults(Faults::new().signals(1.0)).unwrap();
    simulation.stop(group).unwrap();
    let events = events(&mut simulation, MINUTE);
    let is_refusal = |event: &&Event| {
        matches!(
            event,
            Event::SignalFailed {
                signal: Signal::TERM,
                errno: libc::EPERM,
                ..
            }
        )
    };
    assert_eq!(events.iter().filter(is_refusal).count(), 1);
    let last = steps(&events).last().unwrap();
    assert_eq!(last.exit.map(|record| record.exit), Some(killed_by(Signal::KILL)));
}

#[test]
fn a_slow_disk_delays_executions() {
    let mut simulation = Simulation::new(1);
    simulation
        .set_faults(Faults::new().executions(1.0, 7 * SECOND))
        .unwrap();
    start(&mut simulation, web(policy()));
    super::assert_about(until(&mut simulation, StateName::Running), 7 * SECOND);
}

#[test]
fn a_failed_execution_in_flight_is_no_end_of_a_process() {
    let (mut simulation, _, _) = started(web(policy()), Script::not_spawned(SpawnFailure::NotFound));
    let events = events(&mut simulation, MINUTE);
    assert!(steps(&events).all(|step| step.exit.is_none()), "{events:?}");
}

#[test]
fn a_wrong_script_is_refused_before_anything_has_changed() {
    let (long, short) = (MINUTE, SECOND);
    let empty = Span::between(long, short);
    let emptied = ScriptError::EmptySpan {
        shortest: long,
        longest: short,
    };
    let new = Script::new;
    for (script, expected) in [
        (new().executes(empty), emptied),
        (new().exits(empty, 0), emptied),
        (new().ready(empty), emptied),
        (new().hangs(empty), emptied),
        (new().dies(empty), emptied),
        (new().notifies(empty, "READY=1"), emptied),
        (new().handles(Signal::TERM, empty, 0), emptied),
        (new().reloads(Signal::HUP, empty), emptied),
        (new().forks(Fork::new().lives(empty)), emptied),
        (new().pings(Duration::ZERO), ScriptError::NoPeriod),
        (new().ignores(Signal::KILL), ScriptError::Uncatchable(Signal::KILL)),
        (
            new().handles(Signal::STOP, SECOND, 0),
            ScriptError::Uncatchable(Signal::STOP),
        ),
        (
            new().crashes(SECOND, Signal::WINCH),
            ScriptError::NotFatal(Signal::WINCH),
        ),
    ] {
        refused(&script.clone().into(), expected);
        refused(&Behavior::new(new()).run(7, script.clone()), expected);
        refused(&Behavior::new(new()).sometimes(0.5, script), expected);
    }
    refused(&Behavior::new(new()).run(0, new()), ScriptError::NoRun);
    refused(&Behavior::new(new()).sometimes(-0.1, new()), ScriptError::Share(-0.1));
    refused(&Behavior::new(new()).sometimes(1.5, new()), ScriptError::Share(1.5));
    let twice = Behavior::new(new()).sometimes(0.75, new()).sometimes(0.5, new());
    refused(&twice, ScriptError::Shares(1.25));
}

/// Each of these is refused, and the earlier behavior stays.
fn refused(behavior: &Behavior, expected: ScriptError) {
    let mut simulation = Simulation::new(1);
    simulation.assign("web", Script::new().exits(SECOND, 42)).unwrap();
    assert_eq!(simulation.assign("web", behavior.clone()), Err(expected));
    start(&mut simulation, web(policy()));
    assert_eq!(super::exits(&mut simulation, HOUR), [Exit::Code(42)]);
}

#[test]
fn wrong_faults_and_unknown_subjects_are_refused() {
    let mut simulation = Simulation::new(1);
    let share = |share| Faults::new().spawns(share, SpawnFailure::NoMemory);
    assert_eq!(simulation.set_faults(share(2.0)), Err(ScriptError::Share(2.0)));
    assert!(matches!(
        simulation.set_faults(share(f64::NAN)),
        Err(ScriptError::Share(_))
    ));
    let sum = share(0.75).spawns(0.5, SpawnFailure::NoProcess);
    assert_eq!(simulation.set_faults(sum), Err(ScriptError::Shares(1.25)));
    assert_eq!(
        simulation.set_faults(Faults::new().signals(-1.0)),
        Err(ScriptError::Share(-1.0))
    );
    let empty = Faults::new().executions(0.5, Span::between(MINUTE, SECOND));
    assert!(matches!(
        simulation.set_faults(empty),
        Err(ScriptError::EmptySpan { .. })
    ));
    let tenths = (0..10).fold(Faults::new(), |faults, _| faults.spawns(0.1, SpawnFailure::Busy));
    assert_eq!(simulation.set_faults(tenths), Ok(()));

    // The ids of another simulation are unknown.
    let (_, group, instance) = started(web(policy()), Script::new());
    assert_eq!(
        simulation.assign(group, Script::new()),
        Err(ScriptError::UnknownGroup(group))
    );
    assert_eq!(
        simulation.assign(instance, Script::new()),
        Err(ScriptError::UnknownInstance(instance))
    );
    assert_eq!(simulation.assign("nothing yet", Script::new()), Ok(()));
    assert_eq!(
        simulation.assign(Subject::program("nothing yet"), Script::new()),
        Ok(())
    );
}
