//! What the end of one instance means for its siblings: the other instances of its group.

use std::time::Duration;

use pidherd::lifecycle::{
    Cause, CrashBudget, Delay, Failure, Policy, PolicyError, Scope, Startup, State, StateName, Wanted,
};
use pidherd::supervisor::{End, SpecError, StopReason};
use pidherd::{AutoShutdown, Command, Error, Event, GroupId, GroupSpec, InstanceId, Strategy, Target};

use StateName::{Backoff, Exited, Fatal, Running, Starting, Stopped, Stopping};

use super::common::{SOON, isolated, tempdir, wait_until};
use super::host::{Host, LONG, at_once, for_ever, ms, quiet_sh, sh, sleeper, term};

/// A process that ends with exit code 1 when it gets a line, and with 0 when that is `done`.
fn crashes_on_request() -> Command {
    sh("read word; [ \"$word\" = done ] || exit 1")
}

/// Lets the process of an instance crash, and turns until the instance has left its run.
fn crash(host: &mut Host, id: InstanceId) {
    let run = host.status(id).runs;
    host.until_state(id, Running);
    host.go_on(id);
    let is_over = |host: &Host| {
        let status = host.status(id);
        status.runs > run || !status.state.name().is_alive()
    };
    host.until("it has crashed", is_over);
}

fn shared(max: u16) -> GroupSpec {
    GroupSpec::new("x", crashes_on_request())
        .policy(for_ever())
        .instances(3)
        .shared_budget(CrashBudget::new(max, LONG))
}

#[test]
fn the_crashes_of_all_instances_use_up_a_shared_budget() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(shared(3));
        host.start_these(group);
        for place in [0, 1, 0] {
            crash(&mut host, ids[place]);
            host.until_state(ids[place], Running);
        }
        crash(&mut host, ids[2]);
        host.until_state(ids[2], Fatal);
        let last = host.steps(ids[2]).last().unwrap().cause;
        assert_eq!(last, Cause::CrashBudgetUsedUp);
        // The others work, and go on.
        assert_eq!([0, 1].map(|place| host.state(ids[place])), [Running, Running]);
        crash(&mut host, ids[1]);
        host.until_state(ids[1], Fatal);
        host.shut_down();
    });
}

#[test]
fn a_start_on_request_forgets_the_crashes_of_the_instance_that_it_starts() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(shared(2));
        host.start_these(group);
        crash(&mut host, ids[0]);
        host.until_state(ids[0], Running);
        crash(&mut host, ids[0]);
        host.until_state(ids[0], Running);
        crash(&mut host, ids[1]);
        host.until_state(ids[1], Fatal);
        // Those of the other one still count.
        host.start_these(ids[1]);
        crash(&mut host, ids[1]);
        host.until_state(ids[1], Fatal);
        crash(&mut host, ids[0]);
        host.until_state(ids[0], Fatal);
        host.start_these(group);
        for place in [2, 2] {
            crash(&mut host, ids[place]);
            host.until_state(ids[place], Running);
        }
        host.shut_down();
    });
}

#[test]
fn an_expected_exit_and_a_crash_outside_of_the_window_use_up_no_shared_budget() {
    isolated(|| {
        let mut host = Host::new();
        let expected = GroupSpec::new("y", sh("read word"))
            .policy(for_ever())
            .instances(2)
            .shared_budget(CrashBudget::new(0, LONG));
        let (group, ids) = host.add(expected);
        host.start_these(group);
        for place in [0, 1, 0] {
            crash(&mut host, ids[place]);
            host.until_state(ids[place], Running);
        }
        let (group, ids) = host.add(shared(1).shared_budget(CrashBudget::new(1, Duration::from_nanos(1))));
        host.start_these(group);
        for place in [0, 1, 2, 0] {
            crash(&mut host, ids[place]);
            host.until_state(ids[place], Running);
        }
        host.shut_down();
    });
}

#[test]
fn a_shared_budget_holds_besides_the_own_one_and_is_checked() {
    isolated(|| {
        let mut host = Host::new();
        let own = at_once()
            .restart(pidherd::Restart::Always)
            .crash_budget(CrashBudget::new(1, LONG));
        // The setting of the group holds whatever policy it gets.
        let (group, ids) = host.add(shared(100).policy(own));
        host.start_these(group);
        crash(&mut host, ids[0]);
        crash(&mut host, ids[0]);
        host.until_state(ids[0], Fatal);
        crash(&mut host, ids[1]);
        host.until_state(ids[1], Running);
        for (budget, error) in [
            (CrashBudget::new(1, ms(0)), PolicyError::CrashWindow),
            (CrashBudget::new(1_001, LONG), PolicyError::CrashBudget(1_001)),
        ] {
            let refused = host
                .supervisor
                .add(GroupSpec::new("z", sleeper()).shared_budget(budget));
            assert!(matches!(refused, Err(Error::Spec(SpecError::Policy(found))) if found == error));
            assert_eq!(Policy::new().shared_budget(budget).validate(), Err(error));
        }
        host.shut_down();
    });
}

// Joint restarts.

fn jointly(strategy: Strategy) -> GroupSpec {
    GroupSpec::new("x", crashes_on_request())
        .policy(for_ever())
        .instances(3)
        .strategy(strategy)
}

/// Starts a group, and waits until all of it is running.
fn running(host: &mut Host, spec: GroupSpec) -> (GroupId, Vec<InstanceId>) {
    let (group, ids) = host.add(spec);
    host.start_these(group);
    for &id in &ids {
        host.until_state(id, Running);
    }
    (group, ids)
}

/// The place of the first step of an instance to this state after this many events.
fn place_of(host: &Host, after: usize, id: InstanceId, state: StateName) -> usize {
    let is_it = |event: &Event| matches!(event, Event::Transition(step) if step.instance == id && step.to == state);
    let found = host.events[after..].iter().position(is_it);
    found.unwrap_or_else(|| panic!("{id:?} was never {state}: {}", host.story()))
}

fn runs(host: &Host, ids: &[InstanceId]) -> Vec<u64> {
    ids.iter().map(|&id| host.status(id).runs).collect()
}

/// Turns until all instances run, and have had this many runs.
fn until_runs(host: &mut Host, ids: &[InstanceId], expected: &[u64]) {
    let is_there = |host: &Host| runs(host, ids) == expected && ids.iter().all(|&id| host.state(id) == Running);
    host.until(&format!("they have had {expected:?} runs"), is_there);
}

#[test]
fn one_for_all_stops_all_siblings_and_starts_all_when_all_have_ended() {
    isolated(|| {
        let mut host = Host::new();
        let (_, ids) = running(&mut host, jointly(Strategy::OneForAll));
        let before = host.events.len();
        host.go_on(ids[1]);
        until_runs(&mut host, &ids, &[2, 2, 2]);
        let ends = ids.iter().map(|&id| place_of(&host, before, id, Backoff)).max();
        let starts = ids.iter().map(|&id| place_of(&host, before, id, Starting)).min();
        assert!(ends < starts, "{}", host.story());
        for place in [0, 2] {
            let steps = host.steps(ids[place]);
            let stop = steps.iter().find(|step| step.to == Stopping).unwrap();
            assert_eq!(stop.cause, Cause::SiblingEnded);
            assert_eq!(host.supervisor.runs(ids[place]).last().unwrap().end, End::Stopped);
        }
        assert!(host.states(ids[1]).iter().all(|&state| state != Stopping));
        host.shut_down();
    });
}

#[test]
fn rest_for_one_restarts_those_with_a_higher_number() {
    isolated(|| {
        let mut host = Host::new();
        let (_, ids) = running(&mut host, jointly(Strategy::RestForOne));
        let first = host.pid(ids[0]);
        host.go_on(ids[1]);
        until_runs(&mut host, &ids, &[1, 2, 2]);
        assert_eq!(host.pid(ids[0]), first);
        host.go_on(ids[2]);
        until_runs(&mut host, &ids, &[1, 2, 3]);
        host.go_on(ids[0]);
        until_runs(&mut host, &ids, &[2, 3, 4]);
        host.shut_down();
    });
}

#[test]
fn one_for_one_restarts_nothing_else() {
    isolated(|| {
        let mut host = Host::new();
        let (_, ids) = running(&mut host, jointly(Strategy::OneForOne));
        host.go_on(ids[1]);
        until_runs(&mut host, &ids, &[1, 2, 1]);
        assert!(!host.states(ids[1]).contains(&Backoff));
        host.shut_down();
    });
}

/// A process that says that it is asked to stop, and then goes on until it gets a line.
fn stops_on_request() -> Command {
    sh("trap 'echo asked; read word; exit 0' TERM; echo ready; while :; do read word && exit 1; done")
}

/// A group in which the first one has crashed, and the others are being stopped until they get a line.
fn ending(host: &mut Host, spec: GroupSpec) -> (GroupId, Vec<InstanceId>) {
    let ladder = term(Scope::Process, LONG);
    let (group, ids) = running(host, spec.stop(ladder).strategy(Strategy::OneForAll));
    for &id in &ids {
        assert_eq!(host.line(id), "ready");
    }
    host.go_on(ids[0]);
    for &id in &ids[1..] {
        host.until_state(id, Stopping);
        // A line that comes before the signal is handled would be another one than that which ends it.
        assert_eq!(host.line(id), "asked");
    }
    host.until_state(ids[0], Backoff);
    (group, ids)
}

fn slow() -> GroupSpec {
    GroupSpec::new("x", stops_on_request()).policy(for_ever()).instances(3)
}

#[test]
fn the_failed_one_is_not_started_before_the_last_sibling_has_ended() {
    isolated(|| {
        let mut host = Host::new();
        let (_, ids) = ending(&mut host, slow());
        host.go_on(ids[1]);
        host.until_state(ids[1], Backoff);
        host.nothing_for(ms(100));
        assert_eq!(runs(&host, &ids), [1, 1, 1]);
        let State::Backoff { failure, .. } = host.status(ids[1]).state else {
            panic!("{}", host.story())
        };
        assert_eq!(failure, Failure::Sibling);
        host.go_on(ids[2]);
        until_runs(&mut host, &ids, &[2, 2, 2]);
        ids.iter().for_each(|&id| assert_eq!(host.line(id), "ready"));
        host.supervisor.kill(Target::All).unwrap();
        host.shut_down();
    });
}

#[test]
fn the_siblings_wait_for_the_delay_of_the_failed_one() {
    isolated(|| {
        let mut host = Host::new();
        let patient = for_ever().restart_delay(Delay::Fixed(LONG));
        let (_, ids) = running(&mut host, jointly(Strategy::OneForAll).policy(patient));
        host.go_on(ids[2]);
        for &id in &ids {
            host.until_state(id, Backoff);
        }
        host.nothing_for(ms(50));
        // A start on request waits for nothing, and the others go on to wait for the delay.
        host.supervisor.start(ids[0]).unwrap();
        until_runs(&mut host, &ids[..1], &[2]);
        host.nothing_for(ms(50));
        assert_eq!(runs(&host, &ids[1..]), [1, 1]);
        // With the request for the failed one, nothing is left to wait for.
        host.supervisor.start(ids[2]).unwrap();
        until_runs(&mut host, &ids, &[2, 2, 2]);
        host.shut_down();
    });
}

#[test]
fn a_second_failure_joins_the_restart() {
    isolated(|| {
        let mut host = Host::new();
        let failing = sh("trap 'exit 3' TERM; echo ready; while :; do read word && exit 1; done");
        let spec = GroupSpec::new("x", failing).policy(for_ever()).instances(4);
        let (_, ids) = running(&mut host, spec.strategy(Strategy::OneForAll));
        ids.iter().for_each(|&id| assert_eq!(host.line(id), "ready"));
        // Both end before the supervisor looks.
        for place in [1, 3] {
            host.go_on(ids[place]);
        }
        until_runs(&mut host, &ids, &[2, 2, 2, 2]);
        host.nothing_for(ms(50));
        assert_eq!(runs(&host, &ids), [2, 2, 2, 2]);
        host.shut_down();
    });
}

#[test]
fn an_instance_that_a_request_has_stopped_stays_down() {
    isolated(|| {
        let mut host = Host::new();
        let (_, ids) = running(&mut host, jointly(Strategy::OneForAll));
        host.supervisor.stop(ids[2]).unwrap();
        host.until_state(ids[2], Stopped);
        host.go_on(ids[0]);
        until_runs(&mut host, &ids[..2], &[2, 2]);
        assert_eq!((host.state(ids[2]), host.status(ids[2]).runs), (Stopped, 1));
        host.shut_down();
    });
}

#[test]
fn a_request_during_a_joint_restart_wins() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = ending(&mut host, slow());
        // One that is being stopped is to stay down, and one is started as soon as it has ended.
        host.supervisor.stop(ids[1]).unwrap();
        host.supervisor.restart(ids[2]).unwrap();
        // Nothing that takes part is left, so the failed one is started.
        until_runs(&mut host, &ids[..1], &[2]);
        assert_eq!([1, 2].map(|place| host.state(ids[place])), [Stopping, Stopping]);
        host.go_on(ids[1]);
        host.until_state(ids[1], Stopped);
        host.go_on(ids[2]);
        until_runs(&mut host, &ids[2..], &[2]);
        for place in [0, 2] {
            assert_eq!(host.line(ids[place]), "ready");
        }
        // A stop of the group ends a joint restart as well.
        host.go_on(ids[0]);
        host.until_state(ids[2], Stopping);
        assert_eq!(host.line(ids[2]), "asked");
        host.supervisor.stop(group).unwrap();
        host.go_on(ids[2]);
        host.until_state(ids[2], Stopped);
        assert_eq!(host.state(ids[0]), Stopped);
        host.shut_down();
    });
}

#[test]
fn a_group_can_be_scaled_and_removed_during_a_joint_restart() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = ending(&mut host, slow());
        host.supervisor.scale(group, 2).unwrap();
        host.go_on(ids[2]);
        host.until("it has left", |host| host.supervisor.status(ids[2]).is_none());
        assert_eq!(host.state(ids[0]), Backoff);
        host.supervisor.remove(group).unwrap();
        host.go_on(ids[1]);
        host.until("the group is gone", |host| host.supervisor.group(group).is_none());
        host.shut_down();
    });
}

#[test]
fn a_reload_with_another_strategy_does_not_leave_a_joint_restart_waiting() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = ending(&mut host, slow());
        let ladder = term(Scope::Process, LONG);
        let plan = host.supervisor.reload(group, slow().stop(ladder)).unwrap();
        assert!(plan.policy && plan.restarts().count() == 0);
        host.go_on(ids[1]);
        host.until_state(ids[1], Backoff);
        assert_eq!(host.state(ids[0]), Backoff);
        host.go_on(ids[2]);
        until_runs(&mut host, &ids, &[2, 2, 2]);
        ids.iter().for_each(|&id| assert_eq!(host.line(id), "ready"));
        // From now on each is restarted alone.
        host.go_on(ids[0]);
        until_runs(&mut host, &ids, &[3, 2, 2]);
        host.supervisor.kill(Target::All).unwrap();
        host.shut_down();
    });
}

#[test]
fn a_start_that_fails_is_tried_again_alone() {
    isolated(|| {
        let mut host = Host::new();
        let fails_first = |number: u32| match number {
            1 => sh("exit 1"),
            _ => sleeper(),
        };
        let policy = for_ever()
            .startup(Startup::Grace(LONG))
            .start_retries(3)
            .backoff(Delay::NONE);
        let spec = GroupSpec::with("x", fails_first).policy(policy).instances(2);
        let (group, ids) = host.add(spec.strategy(Strategy::OneForAll).grace(LONG));
        host.start_these(group);
        host.until("it was tried again", |host| host.status(ids[1]).runs >= 3);
        assert_eq!((host.state(ids[0]), host.status(ids[0]).runs), (Starting, 1));
        host.shut_down();
    });
}

#[test]
fn the_command_after_a_run_belongs_to_the_end() {
    isolated(|| {
        let mut host = Host::new();
        let directory = tempdir();
        let mark = directory.join("mark");
        let after = quiet_sh(&format!("echo $PIDHERD_INSTANCE >> {}", mark.display()));
        let spec = jointly(Strategy::OneForAll).after_run(after, LONG);
        let (_, ids) = running(&mut host, spec);
        let before = host.events.len();
        host.go_on(ids[1]);
        until_runs(&mut host, &ids, &[2, 2, 2]);
        let text = std::fs::read_to_string(&mark).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        let ends = ids.iter().map(|&id| place_of(&host, before, id, Backoff)).max();
        let starts = ids.iter().map(|&id| place_of(&host, before, id, Starting)).min();
        assert!(ends < starts, "{}", host.story());
        host.shut_down();
    });
}

// An end for good.

/// The stops of groups that were reported, with the instance and the reason.
fn stops(host: &Host) -> Vec<(InstanceId, StopReason)> {
    let stop = |event: &Event| match event {
        Event::GroupStops { instance, reason, .. } => Some((*instance, *reason)),
        _ => None,
    };
    host.events.iter().filter_map(stop).collect()
}

fn jobs(when: AutoShutdown) -> GroupSpec {
    GroupSpec::new("x", crashes_on_request())
        .policy(at_once())
        .instances(3)
        .auto_shutdown(when)
}

#[test]
fn the_first_end_for_good_stops_the_group() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = running(&mut host, jobs(AutoShutdown::AnyEnd));
        host.go_on(ids[1]);
        for place in [0, 2] {
            host.until_state(ids[place], Stopped);
            let steps = host.steps(ids[place]);
            let stop = steps.iter().find(|step| step.to == Stopping).unwrap();
            assert_eq!(stop.cause, Cause::SiblingEnded);
        }
        assert_eq!(stops(&host), [(ids[1], StopReason::AnyEnd)]);
        assert_eq!(host.state(ids[1]), Exited);
        assert_eq!(host.supervisor.group(group).unwrap().wanted, Wanted::Down);
        // It is down until it is started.
        host.supervisor.scale(group, 4).unwrap();
        host.nothing_for(ms(20));
        host.supervisor.start(group).unwrap();
        let all = host.supervisor.group(group).unwrap().instances;
        for &id in &all {
            host.until_state(id, Running);
        }
        host.go_on(all[3]);
        host.until_state(all[0], Stopped);
        assert_eq!(stops(&host)[1..], [(all[3], StopReason::AnyEnd)]);
        host.shut_down();
    });
}

#[test]
fn a_group_is_over_with_the_last_end_for_good() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = running(&mut host, jobs(AutoShutdown::AllEnd));
        // One that a request has stopped does not count.
        host.supervisor.stop(ids[0]).unwrap();
        host.until_state(ids[0], Stopped);
        host.go_on(ids[2]);
        host.until_state(ids[2], Exited);
        host.nothing_for(ms(20));
        assert_eq!((stops(&host), host.state(ids[1])), (vec![], Running));
        host.go_on(ids[1]);
        host.until("it is over", |host| stops(host) == [(ids[1], StopReason::AllEnd)]);
        assert_eq!(host.supervisor.group(group).unwrap().wanted, Wanted::Down);
        host.shut_down();
        assert_eq!(stops(&host).len(), 1);
    });
}

#[test]
fn the_last_of_several_ends_that_are_seen_together_ends_the_group() {
    isolated(|| {
        let mut host = Host::new();
        let (_, ids) = running(&mut host, jobs(AutoShutdown::AllEnd));
        for &id in &ids {
            let pid = host.pid(id);
            host.go_on(id);
            wait_zombie(pid);
        }
        host.until("it is over", |host| stops(host).len() == 1);
        let last = host.all_steps().filter(|step| step.to == Exited).last().unwrap();
        assert_eq!(stops(&host), [(last.instance, StopReason::AllEnd)]);
        host.shut_down();
    });
}

#[test]
fn an_end_that_a_restart_follows_and_a_stop_on_request_stop_no_group() {
    isolated(|| {
        let mut host = Host::new();
        let spec = jobs(AutoShutdown::AnyEnd).policy(for_ever());
        let (group, ids) = running(&mut host, spec);
        host.go_on(ids[0]);
        until_runs(&mut host, &ids, &[2, 1, 1]);
        host.supervisor.stop(ids[1]).unwrap();
        host.until_state(ids[1], Stopped);
        host.supervisor.scale(group, 2).unwrap();
        host.until("it has left", |host| host.supervisor.status(ids[2]).is_none());
        assert_eq!((stops(&host), host.state(ids[0])), (vec![], Running));
        host.shut_down();
        assert_eq!(stops(&host), []);
    });
}

#[test]
fn an_instance_that_is_given_up_stops_its_siblings() {
    isolated(|| {
        let mut host = Host::new();
        let once = for_ever().crash_budget(CrashBudget::new(1, LONG));
        for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
            let name = strategy.as_str();
            let spec = GroupSpec::new(name, crashes_on_request()).instances(3);
            let (_, ids) = running(&mut host, spec.policy(once.clone()).strategy(strategy));
            host.go_on(ids[2]);
            let all_again = strategy == Strategy::OneForAll;
            until_runs(&mut host, &ids, if all_again { &[2, 2, 2] } else { &[1, 1, 2] });
            host.go_on(ids[2]);
            host.until_state(ids[2], Fatal);
            for place in [0, 1] {
                host.until_state(ids[place], Stopped);
            }
            assert_eq!(stops(&host).pop(), Some((ids[2], StopReason::GivenUp)));
        }
        assert_eq!(stops(&host).len(), 2);
        // With a cool-off it is not given up for good.
        let spec = GroupSpec::new("rests", crashes_on_request()).instances(2);
        let rests = once.crash_budget(CrashBudget::new(0, LONG)).cool_off(LONG);
        let (_, ids) = running(&mut host, spec.policy(rests).strategy(Strategy::OneForAll));
        host.go_on(ids[0]);
        host.until_state(ids[0], Fatal);
        host.nothing_for(ms(20));
        assert_eq!((stops(&host).len(), host.state(ids[1])), (2, Running));
        host.shut_down();
    });
}

/// Waits until a process has ended, and was not reaped.
fn wait_zombie(pid: u32) {
    wait_until("it has ended", SOON, || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"))
    });
}

#[test]
fn a_start_that_finds_the_end_of_its_instance_wins() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = running(&mut host, jobs(AutoShutdown::AnyEnd));
        let pid = host.pid(ids[0]);
        host.go_on(ids[0]);
        // It has ended, and the supervisor has not looked.
        wait_zombie(pid);
        host.supervisor.start(group).unwrap();
        host.until("it runs again", |host| {
            host.status(ids[0]).runs == 2 && host.state(ids[0]) == Running
        });
        assert_eq!((runs(&host, &ids), stops(&host)), (vec![2, 1, 1], vec![]));
        host.shut_down();
    });
}

#[test]
fn a_group_that_stops_withdraws_the_starts_that_wait() {
    isolated(|| {
        let mut host = Host::new();
        let slow = at_once().startup(Startup::Notify { timeout: LONG });
        let (database, db) = host.add(GroupSpec::new("database", sleeper()).policy(slow));
        let (_, ids) = host.add(jobs(AutoShutdown::AnyEnd).after("database"));
        host.start_these(ids[0]);
        host.until_state(ids[0], Running);
        // It is on its way up, and the next one waits for it.
        host.start_these(database);
        host.supervisor.start(ids[1]).unwrap();
        assert_eq!(host.status(ids[1]).waits_for, [database]);
        host.go_on(ids[0]);
        let is_withdrawn = |event: &Event| matches!(event, Event::StartWithdrawn { instance, cause: Cause::SiblingEnded, .. } if *instance == ids[1]);
        host.until("the start is withdrawn", |host| host.events.iter().any(is_withdrawn));
        host.supervisor.report_ready(db[0]).unwrap();
        host.until_state(db[0], Running);
        assert_eq!(
            (host.state(ids[1]), host.status(ids[1]).wanted),
            (Stopped, Wanted::Down)
        );
        host.shut_down();
    });
}

#[test]
fn more_siblings_than_one_call_stops_are_all_stopped_before_one_is_started() {
    isolated(|| {
        let mut host = Host::new();
        let spec = GroupSpec::new("x", sleeper()).policy(for_ever()).instances(200);
        let (group, ids) = host.add(spec.strategy(Strategy::OneForAll));
        host.start_these(group);
        host.until("all run", |host| ids.iter().all(|&id| host.state(id) == Running));
        host.events.clear();
        host.supervisor.signal(ids[7], pidherd::Signal::KILL).unwrap();
        host.until("one is stopped", |host| {
            ids.iter().any(|&id| host.state(id) == Stopping)
        });
        // The others are not stopped by the call that has seen the end.
        assert!(ids.iter().any(|&id| host.state(id) == Running));
        host.until("all run again", |host| {
            ids.iter()
                .all(|&id| host.status(id).runs == 2 && host.state(id) == Running)
        });
        let steps: Vec<_> = host.all_steps().map(|step| (step.to, step.cause)).collect();
        let last = steps
            .iter()
            .rposition(|&(_, cause)| cause == Cause::SiblingEnded)
            .unwrap();
        let first = steps.iter().position(|&(to, _)| to == Starting).unwrap();
        assert!(last < first, "{}", host.story());
        let stops = steps.iter().filter(|&&(to, _)| to == Stopping).count();
        assert_eq!(stops, 199);
        host.shut_down();
    });
}

#[test]
fn what_is_started_before_it_is_told_of_an_end_is_not_stopped() {
    isolated(|| {
        let mut host = Host::with(super::host::builder().slice(Duration::ZERO).build().unwrap());
        let spec = GroupSpec::new("x", sleeper()).policy(for_ever()).instances(100);
        let (group, ids) = host.add(spec.strategy(Strategy::OneForAll));
        host.start_these(group);
        host.until("all run", |host| ids.iter().all(|&id| host.state(id) == Running));
        let last = ids[99];
        host.supervisor.stop(last).unwrap();
        host.until_state(last, Stopped);
        host.supervisor.signal(ids[7], pidherd::Signal::KILL).unwrap();
        host.until("one is stopped", |host| {
            ids.iter().any(|&id| host.state(id) == Stopping)
        });
        assert_eq!(host.state(ids[98]), Running, "more are still to be told");
        host.supervisor.start(last).unwrap();
        let expected = [2; 100];
        host.until("all run again", |host| {
            runs(host, &ids) == expected && ids.iter().all(|&id| host.state(id) == Running)
        });
        let is_told = |host: &Host| host.steps(last).iter().any(|step| step.cause == Cause::SiblingEnded);
        assert!(!is_told(&host), "{}", host.story());
        host.shut_down();
    });
}
