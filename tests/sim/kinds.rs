//! Each kind of program: ends, readiness, messages, watchdogs, executions.

use std::time::Duration;

use pidherd::cgroup::OomLimit;
use pidherd::lifecycle::{Cause, CommandFailure, Failure};
use pidherd::sim::{Behavior, Script, Simulation, Span, Subject};
use pidherd::supervisor::{End, ReloadResult, Supervise};
use pidherd::{Command, Event, Exit, GroupSpec, Signal, Startup, StateName};

use super::{
    DAY, HOUR, MINUTE, SECOND, SPAWN, assert_about, events, exits, for_ever, killed_by, policy, start, started, state,
    states, steps, until, web,
};

#[test]
fn a_process_exits_with_its_code_after_its_time() {
    let (mut simulation, _, _) = started(web(policy()), Script::new().exits(HOUR, 3));
    let events = events(&mut simulation, DAY);
    let steps: Vec<_> = steps(&events).collect();
    assert_eq!(
        steps.iter().map(|step| step.to).collect::<Vec<_>>(),
        [StateName::Starting, StateName::Running, StateName::Exited]
    );
    assert_eq!(steps[2].exit.map(|record| record.exit), Some(Exit::Code(3)));
    assert_about(steps[2].at.saturating_duration_since(steps[1].at), HOUR);
    assert_eq!(simulation.living(), 0);
}

#[test]
fn a_process_is_ended_by_a_signal_of_its_own() {
    let (mut simulation, _, _) = started(web(policy()), Script::new().crashes(MINUTE, Signal::SEGV));
    assert_eq!(exits(&mut simulation, HOUR), [killed_by(Signal::SEGV)]);
}

#[test]
fn of_several_ends_the_first_one_counts() {
    let script = Script::new()
        .exits(3 * SECOND, 1)
        .crashes(2 * SECOND, Signal::ABRT)
        .exits(HOUR, 0);
    let (mut simulation, _, _) = started(web(policy()), script);
    assert_eq!(exits(&mut simulation, DAY), [killed_by(Signal::ABRT)]);
}

#[test]
fn a_process_without_an_end_runs_for_a_year() {
    let (mut simulation, _, instance) = started(web(policy()), Script::new());
    simulation.advance(365 * DAY).unwrap();
    let status = simulation.status(instance).unwrap();
    assert_eq!(status.state.name(), StateName::Running);
    assert_about(365 * DAY, status.uptime.unwrap());
}

#[test]
fn lack_of_memory_is_known_in_a_cgroup_alone() {
    for has_cgroup in [true, false] {
        let mut simulation = Simulation::new(1);
        let script = Script::new().runs_out_of_memory(MINUTE, OomLimit::Own);
        simulation.assign("web", script).unwrap();
        let mut spec = web(policy());
        if has_cgroup {
            spec = spec.cgroup(simulation.cgroup_dir().unwrap());
        }
        let (_, instance) = start(&mut simulation, spec);
        assert_eq!(exits(&mut simulation, HOUR), [killed_by(Signal::KILL)]);
        let runs: Vec<_> = simulation.runs(instance).collect();
        assert_eq!(
            matches!(runs[0].end, End::OutOfMemory { .. }),
            has_cgroup,
            "{:?}",
            runs[0].end
        );
    }
}

#[test]
fn readiness_comes_over_the_descriptor_or_the_socket_after_its_time() {
    let notified = policy().startup(Startup::Notify { timeout: MINUTE });
    for spec in [
        web(notified.clone()).ready_fd(3),
        web(notified.clone()).notify_socket(true),
    ] {
        let (mut simulation, _, _) = started(spec, Script::new().ready(7 * SECOND));
        assert_about(until(&mut simulation, StateName::Running), 7 * SECOND);
    }
}

#[test]
fn a_process_that_is_never_ready_is_stopped_at_its_timeout() {
    let notified = policy().startup(Startup::Notify { timeout: MINUTE });
    for script in [
        Script::new(),
        Script::new().ready(2 * MINUTE),
        Script::new().ready(SECOND).hangs(SECOND),
    ] {
        let (mut simulation, _, instance) = started(web(notified.clone()).ready_fd(3), script);
        assert_about(until(&mut simulation, StateName::Fatal), MINUTE);
        let failures = simulation
            .runs(instance)
            .map(|run| format!("{}", run.end))
            .collect::<Vec<_>>();
        assert_eq!(failures.len(), 1, "{failures:?}");
    }
}

#[test]
fn a_readiness_descriptor_that_is_closed_is_a_failed_start() {
    let notified = policy().startup(Startup::Notify { timeout: MINUTE });
    let (mut simulation, _, _) = started(web(notified).ready_fd(3), Script::new().closes_readiness(SECOND));
    let events = events(&mut simulation, HOUR);
    let causes: Vec<_> = steps(&events).map(|step| step.cause).collect();
    assert!(causes.contains(&Cause::Failed(Failure::NotReady)), "{causes:?}");
}

#[test]
fn what_is_told_first_about_readiness_counts() {
    let notified = policy().startup(Startup::Notify { timeout: MINUTE });
    for (ready, closes, is_up) in [(1, 2, true), (2, 2, true), (2, 1, false)] {
        let [ready, closes] = [ready, closes].map(|seconds| seconds * SECOND);
        for script in [
            Script::new().ready(ready).closes_readiness(closes),
            Script::new().closes_readiness(closes).ready(ready),
        ] {
            let (mut simulation, _, instance) = started(web(notified.clone()).ready_fd(3), script.clone());
            simulation.advance(5 * SECOND / 2).unwrap();
            let is_running = state(&simulation, instance) == StateName::Running;
            assert_eq!(is_running, is_up, "{ready:?}, {closes:?}");
            // There is no such descriptor.
            let (mut simulation, _, instance) = started(web(notified.clone()).notify_socket(true), script);
            simulation.advance(5 * SECOND / 2).unwrap();
            assert_eq!(state(&simulation, instance), StateName::Running);
        }
    }
}

#[test]
fn pings_that_nobody_reads_take_no_memory() {
    let mut simulation = Simulation::builder().spawns_in_flight(0).build();
    let pinging = Script::new().pings(Duration::from_millis(10));
    simulation.assign("web", pinging).unwrap();
    simulation.assign("slow", Script::new().executes(HOUR)).unwrap();
    start(&mut simulation, web(policy()).notify_socket(true));
    let slow = GroupSpec::new("slow", Command::new("slow"));
    let (_, instance) = start(&mut simulation, slow);
    assert_eq!(state(&simulation, instance), StateName::Starting);
    assert!(simulation.elapsed() >= HOUR);
    // What waits is read at the next turns, and no more than a socket has room for.
    let mut turns = 0;
    while simulation.elapsed() < HOUR + SECOND && simulation.step().unwrap() {
        turns += 1;
    }
    assert!(turns < 1_000, "{turns}");
}

#[test]
fn a_process_that_ends_before_it_is_ready_has_failed_by_its_end() {
    let notified = policy().startup(Startup::Notify { timeout: MINUTE });
    let (mut simulation, _, _) = started(web(notified.clone()).ready_fd(3), Script::new().exits(SECOND, 9));
    let ended = events(&mut simulation, HOUR);
    let causes: Vec<_> = steps(&ended).map(|step| step.cause).collect();
    assert!(!causes.contains(&Cause::Failed(Failure::NotReady)), "{causes:?}");
    assert!(
        causes.contains(&Cause::Failed(Failure::Ended(Exit::Code(9)))),
        "{causes:?}"
    );

    // A report that comes together with the end counts.
    let script = Script::new().ready(SECOND).exits(SECOND, 0);
    let (mut simulation, _, _) = started(web(notified).ready_fd(3), script);
    assert_eq!(
        states(&mut simulation, HOUR),
        [StateName::Starting, StateName::Running, StateName::Exited]
    );
}

#[test]
fn pings_feed_the_watchdog_until_the_process_hangs() {
    let watched = policy().watchdog(30 * SECOND);
    let script = Script::new().pings(10 * SECOND).hangs(HOUR);
    let (mut simulation, _, _) = started(web(watched).notify_socket(true), script);
    // The last report is made ten seconds before the hour at the earliest.
    let stopped = until(&mut simulation, StateName::Stopping);
    assert!(stopped > HOUR && stopped <= HOUR + 31 * SECOND, "{stopped:?}");
}

#[test]
fn a_hung_process_is_missed_by_its_watchdog_and_does_not_handle_its_stop() {
    let watched = policy().watchdog(30 * SECOND);
    let script = Script::new()
        .pings(10 * SECOND)
        .hangs(MINUTE)
        .handles(Signal::TERM, Duration::ZERO, 0);
    let (mut simulation, _, _) = started(web(watched).notify_socket(true), script);
    let events = events(&mut simulation, HOUR);
    let last = steps(&events).last().unwrap();
    assert_eq!(last.exit.map(|record| record.exit), Some(killed_by(Signal::KILL)));
    assert!(steps(&events).any(|step| step.cause == Cause::Failed(Failure::Watchdog)));
}

#[test]
fn messages_are_sent_at_their_times_and_in_their_order() {
    let script = Script::new()
        .notifies(2 * SECOND, "STATUS=second")
        .notifies(SECOND, "STATUS=first")
        .notifies(2 * SECOND, "STATUS=third")
        .notifies(MINUTE, "STOPPING=1");
    let (mut simulation, _, instance) = started(web(policy()).notify_socket(true), script);
    let text = |simulation: &Simulation| simulation.status(instance).unwrap().status_text;
    simulation.advance(SECOND + SPAWN).unwrap();
    assert_eq!(text(&simulation).as_deref(), Some("first"));
    simulation.advance(SECOND).unwrap();
    assert_eq!(text(&simulation).as_deref(), Some("third"));
    let stops = |event: &Event| event.to_string().contains("stopping");
    assert!(simulation.run_until(HOUR, stops).unwrap().is_some());
    assert_about(simulation.elapsed(), MINUTE);
}

#[test]
fn a_process_reads_its_configuration_again() {
    let script = Script::new().reloads(Signal::HUP, 5 * SECOND);
    let (mut simulation, group, _) = started(web(policy()).notify_socket(true), script);
    until(&mut simulation, StateName::Running);
    for (timeout, expected) in [(MINUTE, ReloadResult::Done), (SECOND, ReloadResult::TimedOut)] {
        simulation.reload_program(group, Signal::HUP, Some(timeout)).unwrap();
        let is_over = |event: &Event| matches!(event, Event::Reloaded { .. });
        let Some(Event::Reloaded { result, .. }) = simulation.run_until(HOUR, is_over).unwrap() else {
            panic!("the reload has no end");
        };
        assert_eq!(result, expected);
        simulation.advance(MINUTE).unwrap();
    }
    assert_eq!(exits(&mut simulation, MINUTE), []);
}

#[test]
fn a_slow_execution_is_in_flight_and_its_grace_begins_afterwards() {
    let graced = policy().startup(Startup::Grace(10 * SECOND));
    let script = Script::new().executes(5 * SECOND);
    let (mut simulation, _, instance) = started(web(graced.clone()), script.clone());
    simulation.advance(4 * SECOND).unwrap();
    let status = simulation.status(instance).unwrap();
    assert!(format!("{:?}", status.state).contains("executed: None"), "{status:?}");
    assert_about(until(&mut simulation, StateName::Running) + 4 * SECOND, 15 * SECOND);

    // If no spawn may be in flight, the call waits for the execution.
    let mut simulation = Simulation::builder().spawns_in_flight(0).build();
    simulation.assign("web", script).unwrap();
    start(&mut simulation, web(graced));
    assert_about(simulation.elapsed(), 5 * SECOND);
    assert_about(until(&mut simulation, StateName::Running), 10 * SECOND);
}

#[test]
fn a_stop_reaches_a_process_in_flight() {
    let (mut simulation, group, instance) = started(web(policy()), Script::new().executes(HOUR));
    simulation.advance(SECOND).unwrap();
    simulation.stop(group).unwrap();
    simulation.advance(MINUTE).unwrap();
    assert_eq!(state(&simulation, instance), StateName::Stopped);
    assert_eq!(simulation.living(), 0);
}

#[test]
fn the_commands_around_a_run_are_directed_by_their_program() {
    let spec = || {
        web(policy())
            .before_run(Command::new("/usr/bin/migrate"), MINUTE)
            .after_run(Command::new("/usr/bin/tidy"), MINUTE)
    };
    // By default they succeed at once.
    let (mut simulation, _, _) = started(spec(), Script::new().exits(SECOND, 0));
    assert_eq!(
        states(&mut simulation, HOUR),
        [
            StateName::Preparing,
            StateName::Starting,
            StateName::Running,
            StateName::CleaningUp,
            StateName::Exited
        ]
    );
    let mut simulation = Simulation::new(1);
    let migrate = Subject::program("/usr/bin/migrate");
    simulation.assign(migrate, Script::new().exits(SECOND, 9)).unwrap();
    start(&mut simulation, spec());
    let events = events(&mut simulation, HOUR);
    let failed = Cause::Failed(Failure::Before(CommandFailure::Ended(Exit::Code(9))));
    assert!(steps(&events).any(|step| step.cause == failed), "{events:?}");
}

#[test]
fn the_most_specific_assignment_counts() {
    let mut simulation = Simulation::new(1);
    let code = |code| Script::new().exits(SECOND, code);
    let group = simulation.add(web(policy()).instances(2)).unwrap();
    let other = simulation
        .add(pidherd::GroupSpec::new("api", Command::new("/usr/bin/web")).policy(policy()))
        .unwrap();
    let instance = simulation.group(group).unwrap().instances[0];
    let expect = |simulation: &mut Simulation, expected: [u8; 3]| {
        simulation.start(group).unwrap();
        simulation.start(other).unwrap();
        let exits = exits(simulation, MINUTE);
        assert_eq!(exits, expected.map(Exit::Code));
    };
    simulation.assign(Subject::All, code(1)).unwrap();
    expect(&mut simulation, [1, 1, 1]);
    simulation.assign(Subject::program("/usr/bin/web"), code(2)).unwrap();
    expect(&mut simulation, [2, 2, 2]);
    simulation.assign("web", code(3)).unwrap();
    expect(&mut simulation, [3, 3, 2]);
    simulation.assign(group, code(4)).unwrap();
    expect(&mut simulation, [4, 4, 2]);
    simulation.assign("web:0", code(5)).unwrap();
    expect(&mut simulation, [5, 4, 2]);
    simulation.assign(instance, code(6)).unwrap();
    expect(&mut simulation, [6, 4, 2]);
    simulation.assign(instance, code(7)).unwrap();
    expect(&mut simulation, [7, 4, 2]);
}

#[test]
fn a_behavior_has_other_scripts_for_some_runs() {
    let code = |code| Script::new().exits(SECOND, code);
    let behavior = Behavior::new(code(1)).run(2, code(2)).run(4, code(4));
    let (mut simulation, _, _) = started(web(for_ever()), behavior);
    let exits = exits(&mut simulation, 10 * SECOND);
    assert_eq!(exits, [1, 2, 1, 4, 1].map(Exit::Code));
}

#[test]
fn a_script_by_chance_has_its_share_of_the_runs() {
    let code = |code| Script::new().exits(SECOND, code);
    let behavior = Behavior::new(code(0)).sometimes(0.1, code(1)).sometimes(0.3, code(2));
    let (mut simulation, _, _) = started(web(for_ever()), behavior);
    let exits = exits(&mut simulation, 4_000 * SECOND);
    let count = |code| exits.iter().filter(|&&exit| exit == Exit::Code(code)).count();
    assert!(exits.len() > 1_900, "{}", exits.len());
    assert!((150..250).contains(&count(1)), "{}", count(1));
    assert!((520..680).contains(&count(2)), "{}", count(2));
}

#[test]
fn an_exponential_span_has_its_mean_and_its_tail() {
    let mean = 100 * SECOND;
    let (mut simulation, _, _) = started(web(for_ever()), Script::new().exits(Span::exponential(mean), 1));
    let events = events(&mut simulation, 500_000 * SECOND);
    let mut lives = Vec::new();
    let mut began = None;
    for step in steps(&events) {
        match step.to {
            StateName::Running => began = Some(step.at),
            _ => lives.extend(began.take().map(|began| step.at.saturating_duration_since(began))),
        }
    }
    let sum: Duration = lives.iter().sum();
    let average = sum / lives.len() as u32;
    assert!(
        lives.len() > 4_000 && average > 95 * SECOND && average < 105 * SECOND,
        "{average:?}"
    );
    let share = |least: Duration| lives.iter().filter(|&&life| life > least).count() as f64 / lives.len() as f64;
    // e^-1 and e^-3.
    assert!((share(mean) - 0.368).abs() < 0.03, "{}", share(mean));
    assert!((share(3 * mean) - 0.050).abs() < 0.015, "{}", share(3 * mean));
}

#[test]
fn a_span_between_two_times_stays_between_them() {
    let script = Script::new().exits(Span::between(10 * SECOND, 20 * SECOND), 1);
    let (mut simulation, _, _) = started(web(for_ever()), script);
    let events = events(&mut simulation, 10_000 * SECOND);
    let mut began = None;
    let mut lives = Vec::new();
    for step in steps(&events) {
        match step.to {
            StateName::Running => began = Some(step.at),
            _ => lives.extend(began.take().map(|began| step.at.saturating_duration_since(began))),
        }
    }
    assert!(
        lives
            .iter()
            .all(|&life| life + SPAWN >= 10 * SECOND && life <= 20 * SECOND)
    );
    let sum: Duration = lives.iter().sum();
    let average = sum / lives.len() as u32;
    assert!(average > 14 * SECOND && average < 16 * SECOND, "{average:?}");
}
