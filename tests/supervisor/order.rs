//! Groups are started one after the other where their descriptions say so, and stopped the other way round.

use std::time::Duration;

use pidherd::lifecycle::{Cause, Policy, PolicyError, Restart, Startup, StateName};
use pidherd::supervisor::SpecError;
use pidherd::{Command, Error, Event, GroupId, GroupSpec, InstanceId, Target};

use super::common::{MARKER, isolated, skipped, tempdir};
use super::host::{Host, LONG, at_once, builder, for_ever, ms, quiet_sh, sleeper, term};
use StateName::{Backoff, Exited, Fatal, Running, Starting, Stopped, Stopping};
use pidherd::lifecycle::Scope;

/// A process that is running when the host says so.
fn slow() -> Policy {
    at_once().startup(Startup::Notify { timeout: LONG })
}

fn group(name: &str, policy: Policy) -> GroupSpec {
    GroupSpec::new(name, sleeper()).policy(policy)
}

fn one(host: &mut Host, spec: GroupSpec) -> (GroupId, InstanceId) {
    let (group, ids) = host.add(spec);
    (group, ids[0])
}

/// The instances in the order in which they reached this state.
fn order_of(host: &Host, state: StateName) -> Vec<InstanceId> {
    let steps = host.all_steps().filter(|step| step.to == state);
    steps.map(|step| step.instance).collect()
}

fn withdrawn(host: &Host, id: InstanceId) -> Vec<Cause> {
    let cause = |event: &Event| match event {
        Event::StartWithdrawn { instance, cause, .. } if *instance == id => Some(*cause),
        _ => None,
    };
    host.events.iter().filter_map(cause).collect()
}

fn waits(host: &Host, id: InstanceId) -> usize {
    let is_wait = |event: &&Event| matches!(event, Event::StartWaits { instance, .. } if *instance == id);
    host.events.iter().filter(is_wait).count()
}

#[test]
fn a_start_of_all_waits_for_what_it_needs_and_a_shutdown_goes_the_other_way_round() {
    isolated(|| {
        let mut host = Host::new();
        let (database, db) = one(&mut host, group("database", slow()));
        let (cache, ca) = one(&mut host, group("cache", slow()));
        let web = group("web", slow()).requires(database).after(cache).instances(2);
        let (web, webs) = host.add(web);
        let (_, front) = one(&mut host, group("front", slow()).requires("web"));
        let outcome = host.supervisor.start(Target::All).unwrap();
        assert_eq!((outcome.accepted, outcome.queued), (2, 3));
        host.until_reached(db, Starting);
        host.until("both are executed", |host| {
            !host.is_in_flight(db) && !host.is_in_flight(ca)
        });
        let lines: Vec<String> = host.events.iter().map(ToString::to_string).collect();
        assert!(lines.iter().any(|line| line == "web:1 waits for database"), "{lines:?}");
        assert_eq!((host.state(db), host.state(ca)), (Starting, Starting));
        assert_eq!(host.status(webs[1]).waits_for, [database, cache]);
        assert_eq!(host.status(front).waits_for, [web]);
        assert_eq!((waits(&host, webs[0]), waits(&host, front)), (1, 1));
        host.supervisor.report_ready(db).unwrap();
        // Nothing is looked at again and again.
        host.take_events();
        host.nothing_for(ms(20));
        assert_eq!(host.status(webs[1]).waits_for, [cache]);
        host.supervisor.report_ready(ca).unwrap();
        for id in [webs[0], webs[1]] {
            host.until_reached(id, Starting);
            host.supervisor.report_ready(id).unwrap();
        }
        host.until_reached(front, Starting);
        host.supervisor.report_ready(front).unwrap();
        host.take_events();
        let started = order_of(&host, Running);
        assert_eq!(started, [db, ca, webs[0], webs[1], front]);
        host.shut_down();
        let stopped = order_of(&host, Stopped);
        assert_eq!(stopped[0], front);
        assert!(stopped[1..3].contains(&webs[0]) && stopped[1..3].contains(&webs[1]));
        // What does not wait for each other is stopped at the same time.
        let stopping = order_of(&host, Stopping);
        let last: Vec<_> = host.all_steps().map(|step| (step.instance, step.to)).collect();
        let place = |step| last.iter().position(|&other| other == step).unwrap();
        assert_eq!(stopping.len(), 5);
        assert!(place((db, Stopping)) < place((ca, Stopped)) && place((ca, Stopping)) < place((db, Stopped)));
        let gone = webs.iter().map(|&id| place((id, Stopped))).max().unwrap();
        assert!(gone < place((db, Stopping)).min(place((ca, Stopping))));
    });
}

#[test]
fn an_order_alone_waits_only_for_what_is_on_its_way() {
    isolated(|| {
        let mut host = Host::new();
        let (before, first) = one(&mut host, group("before", slow()));
        let (_, second) = one(&mut host, group("second", at_once()).after(before));
        // It is down, and is not to come up.
        host.supervisor.start(second).unwrap();
        host.until_state(second, Running);
        host.supervisor.stop(second).unwrap();
        host.until_state(second, Stopped);
        // It fails, and the order does not ask for more.
        let mut fails = group("before", slow());
        fails = fails.policy(slow().start_retries(0));
        host.supervisor.reload(before, fails).unwrap();
        host.supervisor.start(Target::All).unwrap();
        host.until_reached(first, Starting);
        assert_eq!(host.status(second).waits_for, [before]);
        host.supervisor.report_failed(first, "a test").unwrap();
        host.until_state(first, Fatal);
        host.until_state(second, Running);
        assert_eq!(withdrawn(&host, second), []);
        host.shut_down();
    });
}

#[test]
fn a_requirement_that_fails_ends_the_wait_of_all_that_depend_on_it() {
    isolated(|| {
        let mut host = Host::new();
        let policy = slow().start_retries(0);
        let (database, db) = one(&mut host, group("database", policy));
        let (web, w) = one(&mut host, group("web", at_once()).requires(database));
        let (_, front) = one(&mut host, group("front", at_once()).requires(web));
        let (_, beside) = one(&mut host, group("beside", at_once()).after(web));
        host.supervisor.start(Target::All).unwrap();
        host.until_reached(db, Starting);
        host.supervisor.report_failed(db, "a test").unwrap();
        host.until_state(db, Fatal);
        host.until("the others know", |host| !withdrawn(host, front).is_empty());
        assert_eq!(withdrawn(&host, w), [Cause::RequirementFailed]);
        assert_eq!(withdrawn(&host, front), [Cause::RequirementFailed]);
        assert_eq!((host.state(w), host.status(w).pending), (Stopped, None));
        // It comes after the web server and does not require it.
        host.until_state(beside, Running);
        // What requires a group that has failed is not started later, unless that group is.
        host.supervisor.start(web).unwrap();
        host.take_events();
        assert_eq!(withdrawn(&host, w).len(), 2);
        host.supervisor.start(Target::All).unwrap();
        host.until("it starts again", |host| host.state(db) == Starting);
        host.supervisor.report_ready(db).unwrap();
        host.until_state(front, Running);
        host.shut_down();
    });
}

#[test]
fn a_requirement_that_is_stopped_ends_the_wait_and_a_stop_withdraws_it() {
    isolated(|| {
        let mut host = Host::new();
        let (database, db) = one(&mut host, group("database", slow()));
        let (web, ids) = host.add(group("web", at_once()).requires(database).instances(2));
        host.supervisor.start(database).unwrap();
        // One instance by hand waits as well.
        host.supervisor.start(ids[0]).unwrap();
        host.supervisor.start(ids[1]).unwrap();
        assert_eq!(host.status(ids[0]).waits_for, [database]);
        host.supervisor.stop(ids[1]).unwrap();
        host.take_events();
        assert_eq!(withdrawn(&host, ids[1]), [Cause::Requested]);
        assert_eq!(host.status(ids[1]).pending, None);
        assert_eq!(host.status(ids[0]).waits_for, [database], "the other one waits on");
        host.supervisor.kill(database).unwrap();
        host.until_state(db, Stopped);
        host.until("it knows", |host| !withdrawn(host, ids[0]).is_empty());
        assert_eq!(withdrawn(&host, ids[0]), [Cause::RequirementStopped]);
        // The requirement may come later, and then the start takes place.
        host.supervisor.start(web).unwrap();
        host.take_events();
        host.nothing_for(ms(20));
        assert_eq!(host.status(ids[0]).waits_for, [database]);
        host.supervisor.start(database).unwrap();
        host.until_reached(db, Starting);
        host.supervisor.report_ready(db).unwrap();
        ids.iter().for_each(|&id| host.until_state(id, Running));
        host.shut_down();
    });
}

#[test]
fn a_stop_of_a_required_group_stops_those_that_require_it_first() {
    isolated(|| {
        let mut host = Host::new();
        let (database, db) = one(&mut host, group("database", at_once()));
        let stubborn = "trap 'sleep .1; exit' TERM; while :; do sleep 1000 & wait; done";
        let stubborn =
            GroupSpec::new("web", quiet_sh(stubborn)).policy(at_once().stop(term(Scope::ProcessGroup, LONG)));
        let (web, w) = one(&mut host, stubborn.requires(database));
        let (_, front) = one(&mut host, group("front", at_once()).requires(web));
        let (_, beside) = one(&mut host, group("beside", at_once()).after(database));
        host.supervisor.start(Target::All).unwrap();
        for id in [front, beside] {
            host.until_state(id, Running);
        }
        // The stop of one instance, and an end that was not requested, stop nothing else.
        host.supervisor.restart(database).unwrap();
        host.until("it runs again", |host| {
            host.status(db).runs == 2 && host.state(db) == Running
        });
        host.supervisor.stop(db).unwrap();
        host.until_state(db, Stopped);
        assert_eq!((host.state(w), host.status(w).runs), (Running, 1));
        host.supervisor.start(db).unwrap();
        host.until_state(db, Running);
        host.events.clear();
        host.supervisor.stop(database).unwrap();
        host.until_state(db, Stopped);
        assert_eq!(order_of(&host, Stopped), [front, w, db]);
        let causes: Vec<_> = [front, w, db].map(|id| host.steps(id)[0].cause).to_vec();
        assert_eq!(
            causes,
            [Cause::RequirementStopped, Cause::RequirementStopped, Cause::Requested]
        );
        assert_eq!(host.state(beside), Running);
        // They stay down, and the database can be started alone.
        host.supervisor.start(database).unwrap();
        host.until_state(db, Running);
        assert_eq!((host.state(w), host.state(front)), (Stopped, Stopped));
        host.shut_down();
    });
}

#[test]
fn a_job_is_awaited_until_it_is_done() {
    isolated(|| {
        let mut host = Host::new();
        let job = |timeout| {
            Policy::new()
                .startup(Startup::Completes { timeout })
                .start_retries(1)
                .backoff(pidherd::lifecycle::Delay::NONE)
        };
        let migration = GroupSpec::new("migration", super::host::sh("read go")).policy(job(LONG));
        let (migration, m) = one(&mut host, migration);
        let (_, w) = one(&mut host, group("web", at_once()).requires(migration));
        host.supervisor.start(Target::All).unwrap();
        host.until("its program is executed", |host| !host.is_in_flight(m));
        host.supervisor.report_ready(m).unwrap_err();
        assert_eq!((host.state(m), host.state(w)), (Starting, Stopped));
        host.go_on(m);
        host.until_state(w, Running);
        assert_eq!(host.states(m), [Starting, Exited]);
        host.supervisor.stop(Target::All).unwrap();
        host.until_state(w, Stopped);
        // A job that fails is tried again, and then given up. So is one that takes too long.
        for (script, timeout) in [("exit 3", LONG), ("exec sleep 1000", ms(30))] {
            host.events.clear();
            let fails = GroupSpec::new("migration", quiet_sh(script)).policy(job(timeout));
            host.supervisor.reload(migration, fails).unwrap();
            host.supervisor.start(Target::All).unwrap();
            host.until_state(m, Fatal);
            host.until("it knows", |host| !withdrawn(host, w).is_empty());
            let backoffs = host.states(m).iter().filter(|&&state| state == Backoff).count();
            assert_eq!((backoffs, host.state(w)), (2, Stopped));
        }
        let wrong = group("job", job(LONG).restart(Restart::Always));
        let refused = host.supervisor.add(wrong).unwrap_err();
        assert!(matches!(
            refused,
            Error::Spec(SpecError::Policy(PolicyError::CompletesAlways))
        ));
        host.shut_down();
    });
}

#[test]
fn an_impossible_order_is_refused_before_anything_has_happened() {
    isolated(|| {
        let mut host = Host::new();
        let (a, _) = one(&mut host, group("a", at_once()));
        let (b, _) = one(&mut host, group("b", at_once()).after(a));
        let (c, _) = one(&mut host, group("c", at_once()).requires("b"));
        let (gone, _) = one(&mut host, group("gone", at_once()));
        host.supervisor.remove(gone).unwrap();
        host.take_events();
        let (unnamed, _) = one(&mut host, group("", at_once()));
        let (leaving, l) = one(&mut host, group("leaving", for_ever()));
        host.supervisor.start(leaving).unwrap();
        host.until_state(l, Running);
        host.supervisor.remove(leaving).unwrap();
        let count = host.supervisor.groups().count();
        let spec = |error| match error {
            Error::Spec(error) => error,
            other => panic!("{other}"),
        };
        let added = |host: &mut Host, spec_of: GroupSpec| spec(host.supervisor.add(spec_of).unwrap_err());
        let new = || group("new", at_once());
        assert!(matches!(added(&mut host, new().after(gone)), SpecError::NoSuchGroup(_)));
        assert!(matches!(
            added(&mut host, new().requires("new")),
            SpecError::NoSuchGroup(_)
        ));
        assert!(matches!(added(&mut host, new().after("")), SpecError::NoSuchGroup(_)));
        assert!(matches!(
            added(&mut host, new().requires(leaving)),
            SpecError::LeavingGroup(_)
        ));
        assert_eq!(host.supervisor.groups().count(), count);
        let larger = || group("a", at_once()).instances(3);
        let refused = [
            (larger().after("a"), SpecError::AfterItself),
            (larger().after(c), SpecError::OrderCycle(c.into())),
            (larger().requires("b"), SpecError::OrderCycle("b".into())),
        ];
        for (bad, expected) in refused {
            assert_eq!(spec(host.supervisor.plan_reload(a, &bad).unwrap_err()), expected);
            assert_eq!(spec(host.supervisor.reload(a, bad).unwrap_err()), expected);
        }
        let status = host.supervisor.group(a).unwrap();
        assert_eq!((status.target, status.after, status.requires), (1, vec![], vec![]));
        // A group that another one requires stays, and one that another one only comes after may go.
        assert!(matches!(
            host.supervisor.remove(b).unwrap_err(),
            Error::Required { group, by } if (group, by) == (b, c)
        ));
        host.supervisor.remove(a).unwrap();
        assert_eq!(host.supervisor.group(b).unwrap().after, []);
        host.supervisor.remove(c).unwrap();
        host.supervisor.remove(b).unwrap();
        host.supervisor.remove(unnamed).unwrap();
        host.shut_down();
    });
}

#[test]
fn a_reload_changes_the_order_of_what_waits() {
    isolated(|| {
        let mut host = Host::new();
        let (database, db) = one(&mut host, group("database", slow()));
        let (web, w) = one(&mut host, group("web", at_once()).requires(database));
        host.supervisor.start(Target::All).unwrap();
        assert_eq!(host.status(w).waits_for, [database]);
        let plan = host.supervisor.plan_reload(web, &group("web", at_once())).unwrap();
        assert!(plan.policy && plan.instances.is_empty());
        host.supervisor.reload(web, group("web", at_once())).unwrap();
        host.until_state(w, Running);
        assert_eq!(host.state(db), Starting);
        // More instances of what is required are waited for, and more of what requires it wait.
        let again = group("web", at_once()).requires(database);
        host.supervisor.reload(web, again).unwrap();
        host.supervisor.report_ready(db).unwrap();
        host.supervisor.scale(database, 2).unwrap();
        host.supervisor.scale(web, 3).unwrap();
        let (dbs, webs) = (
            host.supervisor.group(database).unwrap().instances,
            host.supervisor.group(web).unwrap().instances,
        );
        host.until_reached(dbs[1], Starting);
        assert_eq!(host.status(webs[2]).waits_for, [database]);
        host.supervisor.report_ready(dbs[1]).unwrap();
        host.until_state(webs[2], Running);
        assert_eq!(host.status(w).runs, 1);
        host.shut_down();
    });
}

#[test]
fn a_group_without_instances_is_down_for_the_groups_that_come_after_it() {
    isolated(|| {
        let mut host = Host::new();
        let (database, _) = host.add(group("database", slow()).instances(0));
        let (web, w) = one(&mut host, group("web", at_once()).requires(database));
        let (_, log) = one(&mut host, group("log", at_once()).after(database));
        host.supervisor.start(Target::All).unwrap();
        // Nothing is on its way up. What only comes after it does not wait, and what requires it does.
        host.until_state(log, Running);
        assert_eq!((host.state(w), host.status(w).waits_for), (Stopped, vec![database]));
        host.supervisor.scale(database, 1).unwrap();
        let db = host.supervisor.group(database).unwrap().instances[0];
        host.until_reached(db, Starting);
        assert_eq!(host.status(w).waits_for, [database]);
        // Its size is not a stop: the start that waits is not withdrawn.
        host.supervisor.scale(database, 0).unwrap();
        host.until("the database is gone", |host| {
            host.supervisor.group(database).unwrap().instances.is_empty()
        });
        host.nothing_for(ms(20));
        assert_eq!((host.state(w), host.status(w).waits_for), (Stopped, vec![database]));
        assert_eq!(withdrawn(&host, w), []);
        host.supervisor.scale(database, 1).unwrap();
        let db = host.supervisor.group(database).unwrap().instances[0];
        host.until_reached(db, Starting);
        host.supervisor.report_ready(db).unwrap();
        host.until_state(w, Running);

        // What is running stays, and a request of the host waits again.
        host.supervisor.scale(database, 0).unwrap();
        host.until("the database is gone again", |host| {
            host.supervisor.group(database).unwrap().instances.is_empty()
        });
        assert_eq!((host.state(w), host.status(w).runs), (Running, 1));
        host.supervisor.stop(web).unwrap();
        host.until_state(w, Stopped);
        host.supervisor.start(web).unwrap();
        assert_eq!(host.status(w).waits_for, [database]);
        // A stop of the group withdraws the start, as that of one with instances.
        host.supervisor.stop(database).unwrap();
        host.nothing_for(Duration::ZERO);
        assert_eq!((host.state(w), host.status(w).pending), (Stopped, None));
        host.shut_down();
    });
}

#[test]
fn a_group_that_is_scaled_to_no_instances_waits_for_those_that_come_after_it_to_go_down() {
    isolated(|| {
        let mut host = Host::new();
        let (database, db) = one(&mut host, group("database", at_once()));
        let patient = slow().stop(term(Scope::Process, LONG));
        let shell = quiet_sh("trap '' TERM; echo >&3; while :; do sleep 0.01; done");
        let (web, w) = one(
            &mut host,
            GroupSpec::new("web", shell).policy(patient).ready_fd(3).after(database),
        );
        host.supervisor.start(Target::All).unwrap();
        host.until_state(w, Running);
        host.until_executed();
        host.supervisor.stop(web).unwrap();
        assert_eq!(host.state(w), Stopping);
        host.supervisor.scale(database, 0).unwrap();
        assert_eq!((host.state(db), host.status(db).waits_for), (Running, vec![web]));
        host.supervisor.kill(web).unwrap();
        host.until("the database is gone", |host| {
            host.supervisor.group(database).unwrap().instances.is_empty()
        });
        let stopped = order_of(&host, Stopped);
        assert_eq!(stopped, [w, db]);
        host.shut_down();
    });
}

/// How often the traced host restarts its instance.
const RESTARTS: u64 = 200;

/// Another test runs this test under strace. Without the variable it does nothing.
#[test]
fn a_traced_host() {
    let Some(in_order) = std::env::var_os("TRACED_ORDER") else {
        return;
    };
    let in_order = in_order == "yes";
    let mut host = Host::with(builder().spawns_in_flight(0).build().unwrap());
    let (root, _) = host.add(group("root", at_once()));
    let (down, _) = host.add(group("down", at_once()));
    let policy = for_ever().crash_budget(None).startup(Startup::Grace(Duration::ZERO));
    let restarted = GroupSpec::new("restarted", Command::new("/bin/false")).policy(policy);
    let front = group("front", at_once());
    let (restarted, front) = match in_order {
        true => (
            restarted.requires(root).after(down),
            front.requires("restarted").requires(down),
        ),
        false => (restarted, front),
    };
    let (id, last) = (one(&mut host, restarted).1, one(&mut host, front).1);
    host.supervisor.start(root).unwrap();
    host.supervisor.start(id).unwrap();
    if in_order {
        // It waits all the time, so the order is followed after every restart.
        host.supervisor.start(last).unwrap();
        assert_eq!(host.state(last), Stopped);
    }
    host.until("it was restarted", |host| host.status(id).runs > RESTARTS);
}

#[test]
fn a_restart_in_order_makes_no_system_call_more() {
    isolated(|| {
        let directory = tempdir();
        let trace = directory.join("trace");
        let calls = |in_order: &str| {
            // Only the host is traced, not its children.
            let traced = std::process::Command::new("strace")
                .arg("-o")
                .arg(&trace)
                .arg(std::env::current_exe().unwrap())
                .args(["order::a_traced_host", "--exact", "--test-threads=1"])
                .env("TRACED_ORDER", in_order)
                .env_remove(MARKER)
                .output();
            traced.ok().filter(|traced| traced.status.success())?;
            Some(std::fs::read_to_string(&trace).unwrap().lines().count() as u64)
        };
        let (Some(without), Some(with)) = (calls("no"), calls("yes")) else {
            return skipped("strace is missing or may not trace");
        };
        if without < RESTARTS {
            return skipped("strace does not trace a host");
        }
        assert!(with < without + RESTARTS / 2, "{with} calls instead of {without}");
    });
}
