//! Processes that a process has started, and what becomes of them.

use std::time::Duration;

use pidherd::sim::{Fork, Script, Simulation};
use pidherd::supervisor::Supervise;
use pidherd::{Scope, Signal, StateName, StopLadder};

use super::{HOUR, MINUTE, SECOND, policy, start, until, web};

/// Stops a run of this script by a ladder with this scope. Returns the number of strays, and how long the stop takes.
fn strays(script: &Script, scope: Scope, has_cgroup: bool) -> (usize, Duration) {
    let mut simulation = Simulation::new(1);
    simulation.assign("web", script.clone()).unwrap();
    let mut spec = web(policy().stop(StopLadder::signal(Signal::TERM, scope, 10 * SECOND)));
    if has_cgroup {
        spec = spec.cgroup(simulation.cgroup_dir().unwrap());
    }
    let (group, _) = start(&mut simulation, spec);
    until(&mut simulation, StateName::Running);
    assert!(simulation.living() > 1 && simulation.strays() == 0);
    simulation.stop(group).unwrap();
    let took = until(&mut simulation, StateName::Stopped);
    assert_eq!(simulation.living(), simulation.strays());
    (simulation.strays(), took)
}

#[test]
fn a_stop_reaches_what_its_scope_contains() {
    let plain = Script::new().forks(Fork::new());
    assert_eq!(strays(&plain, Scope::Process, false).0, 1);
    assert_eq!(strays(&plain, Scope::ProcessGroup, false).0, 0);
    let daemon = Script::new().forks(Fork::new().leaves_group());
    assert_eq!(strays(&daemon, Scope::ProcessGroup, false).0, 1);
    let both = Script::new().forks(Fork::new()).forks(Fork::new().leaves_group());
    assert_eq!(strays(&both, Scope::ProcessGroup, false).0, 1);
    assert_eq!(strays(&both, Scope::Process, false).0, 2);
}

#[test]
fn a_cgroup_leaves_no_stray_whatever_the_scope_is() {
    let both = Script::new()
        .forks(Fork::new())
        .forks(Fork::new().leaves_group().ignores_signals());
    for scope in [Scope::Process, Scope::ProcessGroup, Scope::Cgroup] {
        assert_eq!(strays(&both, scope, true).0, 0, "{scope:?}");
    }
}

#[test]
fn a_fork_that_ignores_signals_is_killed_at_the_end_of_the_ladder() {
    let stubborn = Script::new().forks(Fork::new().ignores_signals());
    let (left, took) = strays(&stubborn, Scope::ProcessGroup, false);
    assert!(left == 0 && took >= 10 * SECOND && took < 11 * SECOND, "{took:?}");
    let (left, took) = strays(&stubborn, Scope::Cgroup, true);
    assert!(left == 0 && took >= 10 * SECOND && took < 11 * SECOND, "{took:?}");
}

#[test]
fn a_fork_ends_by_itself_as_a_child_and_as_a_stray() {
    let mut simulation = Simulation::new(1);
    let script = Script::new()
        .exits(MINUTE, 0)
        .forks(Fork::new().lives(SECOND))
        .forks(Fork::new().lives(HOUR));
    simulation.assign("web", script).unwrap();
    start(&mut simulation, web(policy()));
    simulation.advance(SECOND / 2).unwrap();
    assert_eq!((simulation.living(), simulation.strays()), (3, 0));
    simulation.advance(SECOND).unwrap();
    assert_eq!((simulation.living(), simulation.strays()), (2, 0));
    simulation.advance(MINUTE).unwrap();
    assert_eq!((simulation.living(), simulation.strays()), (1, 1));
    simulation.advance(HOUR).unwrap();
    assert_eq!((simulation.living(), simulation.strays()), (0, 0));
}

#[test]
fn a_run_that_is_over_is_judged_when_its_others_are_gone() {
    // With the scope of a process group, what remains is killed.
    let mut simulation = Simulation::new(1);
    let script = Script::new().exits(MINUTE, 0).forks(Fork::new().ignores_signals());
    simulation.assign("web", script).unwrap();
    let ladder = StopLadder::signal(Signal::TERM, Scope::ProcessGroup, 10 * SECOND);
    let (_, instance) = start(&mut simulation, web(policy().stop(ladder)));
    until(&mut simulation, StateName::Exited);
    assert_eq!((simulation.living(), simulation.strays()), (0, 0));
    assert_eq!(simulation.runs(instance).count(), 1);
}

#[test]
fn strays_pile_up_under_a_restart_policy_with_a_scope_that_is_too_narrow() {
    let mut simulation = Simulation::new(1);
    let script = Script::new().exits(10 * SECOND, 1).forks(Fork::new().leaves_group());
    simulation.assign("web", script).unwrap();
    start(&mut simulation, web(super::for_ever()));
    simulation.advance(HOUR).unwrap();
    let spawned = simulation.spawned();
    assert!(
        spawned > 300 && simulation.strays() as u64 >= spawned - 1,
        "{} of {spawned}",
        simulation.strays()
    );
}
