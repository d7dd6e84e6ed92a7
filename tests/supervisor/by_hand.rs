//! Calls that go beyond the policy: a ladder for one stop, a restart of what is up, a signal with a scope, a waker.

use std::thread;
use std::time::Duration;

use pidherd::cgroup::CgroupDir;
use pidherd::lifecycle::{Policy, PolicyError, Scope, Startup, StateName, StopLadder};
use pidherd::supervisor::{End, SpecError};
use pidherd::{Error, Exit, GroupId, GroupSpec, InstanceId, Signal, Target};

use super::common::{SOON, TestCgroup, isolated, kernel_since, skipped, test_cgroup, wait_until};
use super::host::{Host, LONG, at_once, for_ever, ms, quiet_sh, sh, sleeper, term};

fn last_end(host: &Host, id: InstanceId) -> End {
    host.supervisor.runs(id).last().expect("a run is over").end
}

/// Ends only at SIGINT, and says which signals it gets.
const STUBBORN: &str = "trap 'echo term' TERM; trap 'echo int; exit 5' INT; echo ready; while :; do sleep 0.01; done";

#[test]
fn one_stop_has_a_ladder_of_its_own() {
    isolated(|| {
        let mut host = Host::new();
        let policy = for_ever().stop(term(Scope::Process, LONG));
        let id = host.start(sh(STUBBORN), policy);
        assert_eq!(host.line(id), "ready");
        let ladder = StopLadder::signal(Signal::INT, Scope::Process, LONG);
        assert_eq!(host.supervisor.stop_with(id, &ladder).unwrap().accepted, 1);
        assert_eq!(host.line(id), "int");
        host.until_state(id, StateName::Stopped);
        assert_eq!(last_end(&host, id), End::Stopped);

        // The next stop is that of the policy again.
        host.start_these(id);
        assert_eq!(host.line(id), "ready");
        host.supervisor.stop(id).unwrap();
        assert_eq!(host.line(id), "term");
        assert_eq!(host.state(id), StateName::Stopping);
        host.supervisor.kill(id).unwrap();
        host.until_state(id, StateName::Stopped);
        host.shut_down();
    });
}

#[test]
fn a_ladder_that_comes_during_a_stop_decides_its_next_rungs() {
    isolated(|| {
        let mut host = Host::new();
        let policy = for_ever().stop(term(Scope::Process, ms(300)));
        let id = host.start(sh(STUBBORN), policy);
        assert_eq!(host.line(id), "ready");
        host.supervisor.stop(id).unwrap();
        let mut ladder = term(Scope::Process, ms(1));
        ladder = ladder.then(Signal::INT, Scope::Process, LONG);
        assert_eq!(host.supervisor.stop_with(id, &ladder).unwrap().already, 1);
        host.until_state(id, StateName::Stopped);
        assert_eq!((host.line(id), host.line(id)), ("term".into(), "int".into()));
        host.shut_down();
    });
}

#[test]
fn a_ladder_that_does_not_fit_stops_nothing() {
    isolated(|| {
        let mut host = Host::new();
        let policy = for_ever().stop(term(Scope::ProcessGroup, LONG));
        let grouped = host.start(sleeper(), policy);
        let inherits = host.start(sleeper().inherit_process_group(), for_ever());
        let long = StopLadder::kill(Scope::ProcessGroup)
            .rungs(vec![term(Scope::ProcessGroup, ms(1)).rungs[0]; StopLadder::LIMIT + 1]);
        let wrong = [
            (
                Target::from(grouped),
                StopLadder::kill(Scope::Process),
                SpecError::Policy(PolicyError::StopScope),
            ),
            (
                grouped.into(),
                long,
                SpecError::Policy(PolicyError::StopLadder(StopLadder::LIMIT + 1)),
            ),
            (grouped.into(), StopLadder::kill(Scope::Cgroup), SpecError::NoCgroup),
            (
                inherits.into(),
                StopLadder::kill(Scope::ProcessGroup),
                SpecError::NoProcessGroup { number: 0 },
            ),
            (
                Target::All,
                StopLadder::kill(Scope::ProcessGroup),
                SpecError::NoProcessGroup { number: 0 },
            ),
        ];
        for (target, ladder, expected) in wrong {
            match host.supervisor.stop_with(target, &ladder) {
                Err(Error::Spec(error)) => assert_eq!(error, expected),
                other => panic!("{other:?}"),
            }
        }
        for id in [grouped, inherits] {
            assert_eq!(host.state(id), StateName::Running);
        }
        host.supervisor
            .stop_with(grouped, &StopLadder::kill(Scope::ProcessGroup))
            .unwrap();
        host.until_state(grouped, StateName::Stopped);
        host.shut_down();
    });
}

#[test]
fn a_ladder_is_checked_for_a_group_without_instances_and_for_those_that_are_leaving() {
    isolated(|| {
        let mut host = Host::new();
        let refused =
            |host: &mut Host, group: GroupId, ladder: &StopLadder| match host.supervisor.stop_with(group, ladder) {
                Err(Error::Spec(error)) => error,
                other => panic!("{other:?}"),
            };
        let (empty, _) = host.add(GroupSpec::new("empty", sleeper()).instances(0));
        assert_eq!(
            refused(&mut host, empty, &StopLadder::kill(Scope::Cgroup)),
            SpecError::NoCgroup
        );
        let steps = vec![term(Scope::Process, ms(1)).rungs[0]; StopLadder::LIMIT + 1];
        let long = StopLadder::kill(Scope::Process).rungs(steps);
        let too_long = SpecError::Policy(PolicyError::StopLadder(StopLadder::LIMIT + 1));
        assert_eq!(refused(&mut host, empty, &long), too_long);

        // Such a ladder would reach the processes of another group, the host among them.
        let wide = StopLadder::kill(Scope::ProcessGroup);
        let inherits = quiet_sh("trap '' TERM; echo >&3; while :; do sleep 0.01; done").inherit_process_group();
        let ready = at_once().startup(Startup::Notify { timeout: LONG });
        let patient = ready.stop(term(Scope::Process, LONG));
        for is_removed in [false, true] {
            let name = if is_removed { "removed" } else { "scaled" };
            let spec = GroupSpec::new(name, inherits.clone())
                .policy(patient.clone())
                .ready_fd(3);
            let (group, ids) = host.add(spec);
            host.supervisor.start(group).unwrap();
            host.until_state(ids[0], StateName::Running);
            match is_removed {
                true => drop(host.supervisor.remove(group).unwrap()),
                false => drop(host.supervisor.scale(group, 0).unwrap()),
            }
            assert_eq!(host.state(ids[0]), StateName::Stopping);
            for target in [Target::from(group), ids[0].into()] {
                let result = host.supervisor.stop_with(target, &wide);
                assert!(
                    matches!(result, Err(Error::Spec(SpecError::NoProcessGroup { number: 0 }))),
                    "{result:?}"
                );
            }
            host.supervisor.kill(group).unwrap();
            host.until("it is gone", |host| host.supervisor.status(ids[0]).is_none());
        }
        host.shut_down();
    });
}

#[test]
fn a_process_that_misses_its_watchdog_is_stopped_by_a_ladder_of_its_own() {
    isolated(|| {
        let mut host = Host::new();
        let policy = at_once()
            .stop(term(Scope::Process, LONG))
            .watchdog_stop(Some(StopLadder::signal(Signal::INT, Scope::Process, LONG)))
            .restart(pidherd::lifecycle::Restart::Never);
        let spec = |policy| GroupSpec::new("x", sh(STUBBORN)).policy(policy);
        let (group, ids) = host.add(spec(policy.clone()));
        host.start_these(group);
        assert_eq!(host.line(ids[0]), "ready");
        let watched = policy.clone().watchdog(Some(ms(10)));
        let plan = host.supervisor.reload(group, spec(watched)).unwrap();
        assert_eq!(plan.restarts().count(), 0);
        host.until_state(ids[0], StateName::Exited);
        assert_eq!(host.line(ids[0]), "int");
        assert_eq!(last_end(&host, ids[0]), End::Watchdog);

        let narrow = policy.stop(term(Scope::ProcessGroup, LONG));
        match host.supervisor.add(GroupSpec::new("y", sleeper()).policy(narrow)) {
            Err(Error::Spec(SpecError::Policy(error))) => assert_eq!(error, PolicyError::WatchdogScope),
            other => panic!("{other:?}"),
        }
        host.shut_down();
    });
}

#[test]
fn only_what_is_up_is_restarted() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(GroupSpec::new("x", sleeper()).instances(3).policy(for_ever()));
        host.start_these(group);
        host.until("all run", |host| {
            ids.iter().all(|&id| host.state(id) == StateName::Running)
        });
        host.supervisor.stop(ids[1]).unwrap();
        host.until_state(ids[1], StateName::Stopped);
        let outcome = host.supervisor.restart_if_up(group).unwrap();
        assert_eq!((outcome.total(), outcome.already), (3, 1));
        host.until("two run again", |host| {
            [0, 2]
                .iter()
                .all(|&at| host.status(ids[at]).runs == 2 && host.state(ids[at]) == StateName::Running)
        });
        assert_eq!((host.state(ids[1]), host.status(ids[1]).runs), (StateName::Stopped, 1));
        let nothing = host.supervisor.restart_if_up(ids[1]).unwrap();
        assert_eq!((nothing.total(), nothing.already), (1, 1));
        host.shut_down();
        assert!(matches!(host.supervisor.restart_if_up(group), Err(Error::ShuttingDown)));
    });
}

#[test]
fn a_signal_reaches_the_process_or_its_whole_group() {
    isolated(|| {
        let mut host = Host::new();
        let script = "trap 'echo parent' USR1; \
                      sh -c 'trap \"echo child\" USR1; echo ready; while :; do sleep 0.01; done' & \
                      while :; do sleep 0.01; done";
        let policy = for_ever().stop(term(Scope::ProcessGroup, LONG));
        let id = host.start(sh(script), policy);
        assert_eq!(host.line(id), "ready");
        host.supervisor.signal(id, Signal::USR1).unwrap();
        assert_eq!(host.line(id), "parent");
        host.supervisor
            .signal_scope(id, Signal::USR1, Scope::ProcessGroup)
            .unwrap();
        let mut both = [host.line(id), host.line(id)];
        both.sort();
        assert_eq!(both, ["child", "parent"]);
        assert!(matches!(
            host.supervisor.signal_scope(id, Signal::USR1, Scope::Cgroup),
            Err(Error::NoCgroup(of)) if of == id
        ));
        host.shut_down();
    });
}

#[test]
fn a_signal_to_the_group_of_a_process_without_one_does_not_reach_the_host() {
    isolated(|| {
        let mut host = Host::new();
        let id = host.start(sleeper().inherit_process_group(), at_once());
        // The default of SIGUSR1 would end this test.
        host.supervisor
            .signal_scope(id, Signal::USR1, Scope::ProcessGroup)
            .unwrap();
        host.until_state(id, StateName::Exited);
        assert_eq!(last_end(&host, id), End::KilledFromOutside(Signal::USR1));
        host.shut_down();
    });
}

#[test]
fn another_thread_wakes_the_host() {
    isolated(|| {
        for each in [false, true] {
            let mut host = if each { Host::with_own_epoll() } else { Host::new() };
            let before = host.supervisor.fds().len();
            let waker = host.supervisor.waker().unwrap();
            let other = host.supervisor.waker().unwrap();
            assert_eq!(host.supervisor.fds().len(), before + 1);
            assert!(!host.turn(Duration::ZERO), "nothing has happened");
            // Many calls from many threads are one wakeup.
            let threads =
                [waker.clone(), other].map(|waker| thread::spawn(move || (0..1_000).for_each(|_| waker.wake())));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert!(host.turn(LONG));
            assert!(!host.turn(Duration::ZERO), "it was acknowledged");
            let late = thread::spawn(move || {
                thread::sleep(ms(20));
                waker.wake();
                waker
            });
            assert!(host.turn(LONG));
            let waker = late.join().unwrap();
            drop(host);
            // Nothing is left to be woken.
            waker.wake();
        }
    });
}

#[test]
fn a_signal_to_a_cgroup_reaches_processes_that_left_the_group() {
    isolated(|| {
        let Some(place) = test_cgroup() else { return };
        let mut host = Host::new();
        let script = "trap 'echo parent' USR1; \
                      setsid sh -c 'trap \"echo child\" USR1; echo ready; while :; do sleep 0.01; done' & \
                      while :; do sleep 0.01; done";
        let policy = for_ever().stop(StopLadder::kill(Scope::Cgroup));
        let spec = GroupSpec::new("x", sh(script)).policy(policy);
        let (group, ids) = host.add(spec.cgroup(CgroupDir::open(place.path()).unwrap()));
        host.start_these(group);
        assert_eq!(host.line(ids[0]), "ready");
        host.supervisor
            .signal_scope(group, Signal::USR1, Scope::ProcessGroup)
            .unwrap();
        assert_eq!(host.line(ids[0]), "parent");
        host.supervisor
            .signal_scope(group, Signal::USR1, Scope::Cgroup)
            .unwrap();
        let mut both = [host.line(ids[0]), host.line(ids[0])];
        both.sort();
        assert_eq!(both, ["child", "parent"]);
        host.shut_down();
    });
}

/// A group with a cgroup for each run. Its processes count in a file.
fn counting(host: &mut Host, place: &TestCgroup, policy: Policy) -> (GroupId, InstanceId) {
    let script = "trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
    let spec = GroupSpec::new("x", sh(script)).policy(policy);
    let (group, ids) = host.add(spec.cgroup(CgroupDir::open(place.path()).unwrap()));
    host.start_these(group);
    assert_eq!(host.line(ids[0]), "ready");
    (group, ids[0])
}

/// Whether the kernel has frozen all processes of the only run below this directory.
fn stands_still(place: &TestCgroup) -> bool {
    let events = std::fs::read_to_string(place.path().join("x-0/cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "frozen 1")
}

#[test]
fn a_frozen_process_stands_still_until_it_is_thawed_and_misses_no_watchdog() {
    isolated(|| {
        let Some(place) = test_cgroup() else { return };
        if !kernel_since(5, 2) {
            return skipped("cgroup.freeze needs Linux 5.2");
        }
        let mut host = Host::new();
        let policy = for_ever().stop(term(Scope::Cgroup, LONG));
        let (group, id) = counting(&mut host, &place, policy);
        assert_eq!(host.supervisor.freeze(group).unwrap().accepted, 1);
        assert_eq!(host.supervisor.freeze(group).unwrap().already, 1);
        assert!(host.status(id).is_frozen);
        wait_until("it stands still", SOON, || stands_still(&place));
        host.supervisor.signal(id, Signal::CONT).unwrap();
        assert_eq!(host.supervisor.thaw(group).unwrap().accepted, 1);
        assert!(!host.status(id).is_frozen);
        wait_until("it runs", SOON, || !stands_still(&place));

        // A stop thaws it, and the process handles the first signal.
        host.supervisor.freeze(id).unwrap();
        wait_until("it stands still", SOON, || stands_still(&place));
        host.supervisor.stop(id).unwrap();
        assert_eq!(host.line(id), "term");
        host.until_state(id, StateName::Stopped);
        assert_eq!(
            host.supervisor.runs(id).last().unwrap().exit.unwrap().exit,
            Exit::Code(3)
        );
        assert!(matches!(host.supervisor.freeze(id), Err(Error::NotAlive(_))));
        assert_eq!(host.supervisor.freeze(group).unwrap().already, 1);

        // The next run is not frozen, and SIGKILL ends a frozen one.
        host.start_these(group);
        assert_eq!(host.line(id), "ready");
        assert!(!host.status(id).is_frozen);
        host.supervisor.freeze(group).unwrap();
        host.supervisor.kill(group).unwrap();
        host.until_state(id, StateName::Stopped);
        host.shut_down();
    });
}

#[test]
fn the_watchdog_of_a_frozen_process_stands_still() {
    isolated(|| {
        let Some(place) = test_cgroup() else { return };
        if !kernel_since(5, 2) {
            return skipped("cgroup.freeze needs Linux 5.2");
        }
        let mut host = Host::new();
        let policy = at_once()
            .stop(term(Scope::Cgroup, LONG))
            .restart(pidherd::lifecycle::Restart::Never);
        let (group, id) = counting(&mut host, &place, policy.clone());
        host.supervisor.freeze(group).unwrap();
        let script = "trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
        let watched = policy.watchdog(Some(ms(10)));
        let spec = GroupSpec::new("x", sh(script)).policy(watched);
        let spec = spec.cgroup(CgroupDir::open(place.path()).unwrap());
        let plan = host.supervisor.reload(group, spec).unwrap();
        assert_eq!(plan.restarts().count(), 0);
        // Each time it would have missed its watchdog.
        for _ in 0..5 {
            assert!(host.turn(SOON));
        }
        assert_eq!(host.state(id), StateName::Running);
        host.supervisor.thaw(group).unwrap();
        host.until_state(id, StateName::Exited);
        assert_eq!(last_end(&host, id), End::Watchdog);
        host.shut_down();
    });
}

#[test]
fn without_a_cgroup_nothing_is_frozen() {
    isolated(|| {
        let mut host = Host::new();
        let id = host.start(sleeper(), for_ever());
        for target in [Target::from(id), Target::All] {
            assert!(matches!(host.supervisor.freeze(target), Err(Error::NoCgroup(of)) if of == id));
        }
        assert!(!host.status(id).is_frozen);
        host.shut_down();
    });
}
