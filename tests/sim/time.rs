//! Time, seeds, and the calls that move the time.

use std::time::{Duration, Instant, SystemTime};

use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure};
use pidherd::supervisor::Supervise;
use pidherd::{Command, Delay, Event, GroupSpec, Restart, Signal, StateName};

use super::common::isolated;
use super::{
    DAY, HOUR, MINUTE, SECOND, SPAWN, assert_about, events, for_ever, policy, start, started, steps, until, web,
};

/// A fleet in which everything happens. Returns all events of some days, in all details.
fn story(seed: u64, days: u32) -> String {
    let mut simulation = Simulation::builder().seed(seed).build();
    let erratic = Script::new()
        .executes(Span::exponential(Duration::from_millis(2)))
        .ready(Span::between(SECOND, 9 * SECOND))
        .pings(20 * SECOND)
        .hangs(Span::exponential(3 * DAY))
        .exits(Span::exponential(9 * HOUR), 1)
        .crashes(Span::exponential(DAY), Signal::SEGV)
        .handles(Signal::TERM, Span::exponential(3 * SECOND), 0)
        .forks(Fork::new().lives(Span::exponential(HOUR)));
    let behavior = Behavior::new(erratic)
        .sometimes(0.05, Script::not_spawned(SpawnFailure::NotFound))
        .run(3, Script::new());
    simulation.assign("web", behavior).unwrap();
    let faults = Faults::new().spawns(0.02, SpawnFailure::NoMemory).signals(0.1);
    simulation.set_faults(faults).unwrap();
    let jittered = for_ever()
        .startup(pidherd::Startup::Notify { timeout: 8 * SECOND })
        .watchdog(MINUTE)
        .backoff(Delay::Exponential {
            first: SECOND,
            cap: MINUTE,
        })
        .start_retries(5)
        .jitter(50)
        .cool_off(HOUR);
    let spec = web(jittered).instances(5).notify_socket(true);
    let group = simulation.add(spec).unwrap();
    simulation.start(group).unwrap();
    let mut story = String::new();
    for _ in 0..days {
        for event in events(&mut simulation, DAY) {
            story.push_str(&format!("{event:?}\n"));
        }
        simulation.restart(group).unwrap();
    }
    story
}

#[test]
fn the_same_seed_tells_the_same_story_byte_for_byte() {
    let first = story(7, 10);
    assert!(first.lines().count() > 500, "{}", first.lines().count());
    assert!(first == story(7, 10), "the same seed tells another story");
    assert!(first != story(8, 10), "another seed tells the same story");
}

#[test]
fn the_fate_of_a_run_does_not_depend_on_the_policy() {
    let lives = |delay: Duration| {
        let script = Script::new().exits(Span::exponential(HOUR), 1);
        let (mut simulation, _, _) = started(web(for_ever().restart_delay(Delay::Fixed(delay))), script);
        let events = events(&mut simulation, 10 * DAY);
        let mut lives = Vec::new();
        let mut began = None;
        for step in steps(&events) {
            match step.to {
                StateName::Running => began = Some(step.at),
                _ => lives.extend(began.take().map(|began| step.at.saturating_duration_since(began))),
            }
        }
        lives.truncate(50);
        lives
    };
    assert_eq!(lives(SECOND), lives(10 * MINUTE));
}

#[test]
fn a_year_of_a_small_fleet_takes_seconds() {
    let began = Instant::now();
    let mut simulation = Simulation::new(1);
    simulation
        .assign("web", Script::new().exits(Span::exponential(6 * HOUR), 1))
        .unwrap();
    let restarted = web(for_ever()).instances(10);
    let group = simulation.add(restarted).unwrap();
    simulation.start(group).unwrap();
    let started = simulation.elapsed();
    let mut crashes = 0;
    simulation
        .run_for(365 * DAY, |_, event| {
            crashes += u32::from(matches!(event, Event::Transition(step) if step.exit.is_some()));
            Ok(())
        })
        .unwrap();
    assert!((14_000..15_200).contains(&crashes), "{crashes}");
    assert_eq!(simulation.elapsed() - started, 365 * DAY);
    println!("{crashes} crashes in a year took {:?}", began.elapsed());
}

#[test]
fn time_moves_exactly_as_far_as_it_is_told() {
    let mut simulation = Simulation::new(1);
    for by in [Duration::ZERO, Duration::from_nanos(1), SECOND, 100 * DAY] {
        let (before, at) = (simulation.elapsed(), simulation.now());
        simulation.advance(by).unwrap();
        assert_eq!(simulation.elapsed() - before, by);
        assert_eq!(simulation.now().saturating_duration_since(at), by);
    }
    assert!(simulation.run_until(DAY, |_| true).unwrap().is_none());
    assert_eq!(simulation.elapsed(), 101 * DAY + SECOND + Duration::from_nanos(1));
}

#[test]
fn more_time_than_the_clock_has_ends_with_the_clock() {
    let end = Duration::from_nanos(u64::MAX - 1);
    type Move = fn(&mut Simulation, Duration);
    let moves: [Move; 3] = [
        |simulation, by| simulation.advance(by).unwrap(),
        |simulation, by| simulation.run_for(by, |_, _| Ok(())).unwrap(),
        |simulation, by| assert!(simulation.run_until(by, |_| false).unwrap().is_none()),
    ];
    for move_by in moves {
        for by in [Duration::MAX, end] {
            let (mut simulation, _, instance) = started(web(policy()), Script::new());
            let began = simulation.now();
            move_by(&mut simulation, by);
            let never = pidherd::time::Instant::NEVER;
            assert!(simulation.now().saturating_add(Duration::from_nanos(1)) == never);
            move_by(&mut simulation, by);
            assert!(simulation.status(instance).unwrap().uptime.unwrap() > end / 2);
            assert!(simulation.now() > began);
            // It still works.
            simulation.shutdown().unwrap();
            simulation.run_for(SECOND, |_, _| Ok(())).unwrap();
            assert!(simulation.is_down());
        }
    }
}

#[test]
fn the_wall_clock_follows() {
    let begin = SystemTime::UNIX_EPOCH + 1_000 * DAY;
    let mut simulation = Simulation::builder().wall_clock(begin).build();
    simulation.assign("web", Script::new().exits(HOUR, 0)).unwrap();
    start(&mut simulation, web(policy()));
    let started = simulation.wall_clock();
    assert!(started < begin + SPAWN);
    let events = events(&mut simulation, DAY);
    assert_eq!(simulation.wall_clock(), started + DAY);
    let last = steps(&events).last().unwrap();
    let lasted = last.wall.duration_since(begin).unwrap();
    assert!(lasted >= HOUR && lasted < HOUR + SECOND, "{lasted:?}");
}

#[test]
fn a_step_is_a_turn_and_nothing_left_to_do_is_told() {
    let mut simulation = Simulation::new(1);
    assert!(!simulation.step().unwrap());
    simulation.assign("web", Script::new().exits(HOUR, 0)).unwrap();
    start(&mut simulation, web(policy()));
    let mut turns = 0;
    while simulation.step().unwrap() {
        turns += 1;
        while simulation.next_event().is_some() {}
    }
    assert!((2..20).contains(&turns), "{turns}");
    assert_about(simulation.elapsed(), HOUR);
}

#[test]
fn events_stay_until_they_are_fetched_and_none_is_dropped() {
    let (mut simulation, _, _) = started(web(for_ever()), Script::new().exits(SECOND, 1));
    simulation.advance(6 * HOUR).unwrap();
    assert_eq!(simulation.dropped_events(), 0);
    let waiting = std::iter::from_fn(|| simulation.next_event()).count();
    assert!(waiting > 20_000, "{waiting}");
    let mut simulation = Simulation::builder().event_capacity(10).build();
    simulation.assign("web", Script::new().exits(SECOND, 1)).unwrap();
    start(&mut simulation, web(for_ever()));
    simulation.advance(HOUR).unwrap();
    assert!(simulation.dropped_events() > 1_000);
}

#[test]
fn a_crash_loop_without_any_wait_comes_to_an_end_of_its_time() {
    let storm = policy()
        .restart(Restart::Always)
        .crash_budget(None)
        .backoff(Delay::NONE)
        .start_retries(u32::MAX);
    for script in [
        Script::new().executes(Duration::ZERO).exits(Duration::ZERO, 1),
        Script::not_spawned(SpawnFailure::NoMemory),
        Script::not_spawned(SpawnFailure::NotFound),
    ] {
        let (mut simulation, _, _) = started(web(storm.clone()), script);
        simulation.advance(SECOND).unwrap();
        assert_about(simulation.elapsed(), SECOND);
    }
}

#[test]
fn the_host_of_a_run_may_command_and_fail() {
    let (mut simulation, group, instance) = started(web(policy()), Script::new().exits(SECOND, 0));
    let mut starts = 0;
    simulation
        .run_for(MINUTE, |simulation, event| {
            if matches!(event, Event::Transition(step) if step.to == StateName::Exited) {
                starts += 1;
                simulation.start(group)?;
            }
            Ok(())
        })
        .unwrap();
    assert!((55..=60).contains(&starts), "{starts}");
    simulation.remove(group).unwrap();
    let failed = simulation.run_for(MINUTE, |simulation, _| simulation.start(instance).map(|_| ()));
    assert!(failed.is_err());
    assert!(simulation.elapsed() < MINUTE + SECOND);
}

#[test]
fn a_shutdown_ends_everything() {
    let script = Script::new().handles(Signal::TERM, 3 * SECOND, 0);
    let mut simulation = Simulation::new(1);
    simulation.assign("web", script).unwrap();
    let group = simulation.add(web(policy()).instances(20)).unwrap();
    simulation.start(group).unwrap();
    simulation.advance(MINUTE).unwrap();
    assert_eq!(simulation.living(), 20);
    simulation.shutdown().unwrap();
    let _events = events(&mut simulation, MINUTE);
    assert!(simulation.is_down() && simulation.living() == 0);
    assert!(simulation.start(group).is_err());
}

#[test]
fn a_simulation_uses_no_process_and_no_descriptor() {
    isolated(|| {
        let mut simulation = Simulation::new(1);
        let missing = GroupSpec::new("web", Command::new("/does/not/exist"))
            .notify_socket(true)
            .ready_fd(3);
        start(&mut simulation, missing);
        until(&mut simulation, StateName::Starting);
        assert_eq!(super::common::processes::children(), []);
        // It is dropped with a living process.
        assert_eq!(simulation.living(), 1);
    });
}

#[test]
fn a_simulation_can_be_sent_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Simulation>();
}
