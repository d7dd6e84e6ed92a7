//! Groups as units: scaled, reloaded, removed; and instances one by one.

use std::time::Duration;

use pidherd::group::Effect;
use pidherd::lifecycle::{Policy, Restart, Scope, Startup, StateName, StopLadder, Wanted};
use pidherd::supervisor::SpecError;
use pidherd::{Command, Error, Event, GroupId, GroupSpec, InstanceId, Signal, SignalFd, SignalSet, Target};
use rustix::process::{Signal as RawSignal, kill_current_process_group};

use super::common::{Isolation, SOON, isolated, processes, wait_gone};
use super::host::{Host, LONG, at_once, builder, for_ever, ms, sh, sleeper, term};
use StateName::{Exited, Fatal, Running, Starting, Stopped, Stopping};

/// A shell that wants to be told to go on before it obeys SIGTERM.
fn slow_to_stop() -> Command {
    sh("trap 'echo asked; read go; exit 0' TERM; echo ready; read never")
}

fn patient() -> Policy {
    at_once().stop(term(Scope::Process, LONG))
}

/// A group that is up, its processes ready.
fn ready(host: &mut Host, spec: GroupSpec) -> (GroupId, Vec<InstanceId>) {
    let (group, ids) = host.add(spec);
    host.start_these(group);
    ids.iter().for_each(|&id| assert_eq!(host.line(id), "ready"));
    (group, ids)
}

fn pids(host: &Host, ids: &[InstanceId]) -> Vec<u32> {
    ids.iter().map(|&id| host.pid(id)).collect()
}

fn are(host: &Host, ids: &[InstanceId], state: StateName) -> bool {
    ids.iter().all(|&id| host.state(id) == state)
}

#[test]
fn scaled_down_the_highest_numbers_go_and_scaled_up_new_ones_come() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(GroupSpec::new("x", sleeper()).instances(3).policy(at_once()));
        host.start_these(group);
        let before = pids(&host, &ids);
        assert_eq!(host.supervisor.scale(group, 1).unwrap().accepted, 2);
        host.until("two are gone", |host| host.supervisor.instances().count() == 1);
        assert_eq!(host.supervisor.group(group).unwrap().instances, ids[..1]);
        assert_eq!(host.states(ids[2]), [Starting, Running, Stopping, Stopped]);
        assert_eq!(host.supervisor.scale(group, 1).unwrap().total(), 0);

        let outcome = host.supervisor.scale(group, 3).unwrap();
        assert_eq!(outcome.accepted + outcome.queued, 2);
        let now = host.supervisor.group(group).unwrap().instances;
        let numbers: Vec<u32> = now.iter().map(|&id| host.status(id).name.number).collect();
        assert_eq!(numbers, [0, 1, 2]);
        host.until_executed();
        assert!(are(&host, &now, Running));
        assert_eq!(host.pid(now[0]), before[0]);
        assert_eq!(processes::children().len(), 3);
    });
}

#[test]
fn a_group_that_is_scaled_to_no_instances_stays_and_can_be_scaled_up_again() {
    isolated(|| {
        let mut host = Host::new();
        let spec = |instances| GroupSpec::new("x", sleeper()).instances(instances).policy(at_once());
        let (group, ids) = host.add(spec(2));
        host.start_these(group);
        assert_eq!(host.supervisor.scale(group, 0).unwrap().accepted, 2);
        assert!(matches!(host.supervisor.start(ids[0]), Err(Error::LeavingInstance(_))));
        host.until("none is left", |host| host.supervisor.instances().count() == 0);
        let status = host.supervisor.group(group).unwrap();
        assert_eq!((status.target, status.wanted, status.leaving), (0, Wanted::Up, false));
        assert_eq!(host.supervisor.group_named("x"), Some(group));

        // Requests have nothing to do, and decide about the instances that come later.
        assert_eq!(host.supervisor.stop(group).unwrap().total(), 0);
        assert_eq!(host.supervisor.kill(group).unwrap().total(), 0);
        let term = Signal::TERM;
        assert_eq!(host.supervisor.signal(group, term).unwrap().total(), 0);
        host.supervisor.scale(group, 1).unwrap();
        host.nothing_for(Duration::ZERO);
        let ids = host.supervisor.group(group).unwrap().instances;
        assert_eq!(host.state(ids[0]), Stopped);
        assert_eq!(host.supervisor.scale(group, 0).unwrap().total(), 1);
        assert_eq!(host.supervisor.instances().count(), 0);
        assert_eq!(host.supervisor.start(group).unwrap().total(), 0);
        assert_eq!(host.supervisor.restart(group).unwrap().total(), 0);
        host.supervisor.scale(group, 2).unwrap();
        host.until_executed();
        let ids = host.supervisor.group(group).unwrap().instances;
        assert!(are(&host, &ids, Running));

        // A reload does the same in both directions.
        let plan = host.supervisor.reload(group, spec(0)).unwrap();
        assert_eq!((plan.scale, plan.instances), (Some((2, 0)), vec![]));
        host.until("none is left again", |host| host.supervisor.instances().count() == 0);
        assert!(host.supervisor.plan_reload(group, &spec(0)).unwrap().is_empty());
        let plan = host.supervisor.reload(group, spec(1)).unwrap();
        assert_eq!(plan.scale, Some((0, 1)));
        host.until_executed();
        let ids = host.supervisor.group(group).unwrap().instances;
        assert!(are(&host, &ids, Running) && ids.len() == 1);
        host.shut_down();
    });
}

#[test]
fn an_instance_that_is_recalled_on_its_way_to_no_instances_keeps_its_number() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = ready(&mut host, GroupSpec::new("x", slow_to_stop()).policy(patient()));
        host.supervisor.scale(group, 0).unwrap();
        assert_eq!(host.line(ids[0]), "asked");
        assert_eq!(host.state(ids[0]), Stopping);
        host.supervisor.scale(group, 1).unwrap();
        host.go_on(ids[0]);
        host.until("it runs again", |host| {
            host.status(ids[0]).runs == 2 && host.state(ids[0]) == Running
        });
        assert_eq!(host.line(ids[0]), "ready");
        host.supervisor.kill(group).unwrap();
        host.shut_down();
    });
}

#[test]
fn a_group_may_begin_without_instances_and_is_removed_at_once() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(GroupSpec::new("x", sleeper()).instances(0).policy(at_once()));
        assert_eq!(ids, []);
        assert_eq!(host.supervisor.start(Target::All).unwrap().total(), 0);
        assert_eq!(host.supervisor.group(group).unwrap().wanted, Wanted::Up);
        host.supervisor.scale(group, 1).unwrap();
        host.until_executed();
        let ids = host.supervisor.group(group).unwrap().instances;
        assert_eq!(host.state(ids[0]), Running);
        host.supervisor.scale(group, 0).unwrap();
        host.until("it is gone", |host| host.supervisor.instances().count() == 0);
        host.supervisor.remove(group).unwrap();
        assert!(host.supervisor.group(group).is_none());
        host.take_events();
        let is_removal = |event: &Event| matches!(event, Event::GroupRemoved { group: gone, .. } if *gone == group);
        assert_eq!(host.events.iter().filter(|event| is_removal(event)).count(), 1);
        assert!(matches!(host.supervisor.scale(group, 1), Err(Error::UnknownGroup(_))));
        // A shutdown has nothing to wait for.
        host.add(GroupSpec::new("y", sleeper()).instances(0));
        host.supervisor.shutdown().unwrap();
        assert!(host.supervisor.is_down());
    });
}

#[test]
fn instances_that_are_added_are_up_only_if_the_group_is_to_be() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(GroupSpec::new("x", sleeper()).policy(at_once()));
        host.supervisor.start(ids[0]).unwrap();
        host.supervisor.scale(group, 2).unwrap();
        host.until_executed();
        let ids = host.supervisor.group(group).unwrap().instances;
        assert_eq!((host.state(ids[0]), host.state(ids[1])), (Running, Stopped));

        let outcome = host.supervisor.start(group).unwrap();
        assert_eq!((outcome.accepted, outcome.already), (1, 1));
        host.supervisor.stop(group).unwrap();
        host.supervisor.scale(group, 3).unwrap();
        host.until("all are down", |host| {
            host.supervisor.instances().all(|id| host.state(id) == Stopped)
        });
        assert_eq!(host.supervisor.group(group).unwrap().wanted, Wanted::Down);
        host.nothing_for(Duration::ZERO);
    });
}

#[test]
fn a_group_is_one_and_its_instances_are_their_own() {
    isolated(|| {
        let mut host = Host::new();
        let spec = GroupSpec::new("", sleeper()).instances(3).policy(at_once());
        let (group, ids) = host.add(spec.clone());
        let (_, others) = host.add(spec);
        host.start_these(Target::All);
        let (before, other_pids) = (pids(&host, &ids), pids(&host, &others));

        assert_eq!(host.supervisor.stop(ids[1]).unwrap().accepted, 1);
        host.until_state(ids[1], Stopped);
        assert_eq!((host.pid(ids[0]), host.pid(ids[2])), (before[0], before[2]));

        let outcome = host.supervisor.restart(group).unwrap();
        assert_eq!(outcome.accepted + outcome.queued, 3);
        host.until("all are up again", |host| {
            are(host, &ids, Running) && ids.iter().all(|&id| host.status(id).runs == 2)
        });
        let after = pids(&host, &ids);
        assert!(after.iter().all(|pid| !before.contains(pid)));
        assert_eq!(pids(&host, &others), other_pids);

        assert_eq!(host.supervisor.kill(group).unwrap().accepted, 3);
        host.until("all are down", |host| are(host, &ids, Stopped));
        for &id in &ids {
            assert_eq!(host.status(id).last_exit.unwrap().exit.signal(), Some(Signal::KILL));
        }
        assert_eq!(pids(&host, &others), other_pids);
    });
}

#[test]
fn a_start_does_not_recall_an_instance_that_leaves_its_group() {
    isolated(|| {
        let mut host = Host::new();
        let spec = GroupSpec::new("x", slow_to_stop()).instances(2).policy(patient());
        let (group, ids) = ready(&mut host, spec);
        host.supervisor.scale(group, 1).unwrap();
        assert_eq!(host.line(ids[1]), "asked");
        for target in [group.into(), Target::All] {
            let outcome = host.supervisor.start(target).unwrap();
            assert_eq!((outcome.already, outcome.total()), (1, 1));
        }
        for result in [host.supervisor.start(ids[1]), host.supervisor.restart(ids[1])] {
            assert!(matches!(result, Err(Error::LeavingInstance(id)) if id == ids[1]));
        }
        host.go_on(ids[1]);
        host.until("it is gone", |host| host.supervisor.status(ids[1]).is_none());
        assert_eq!(host.states(ids[1]), [Starting, Running, Stopping, Stopped]);
        assert_eq!(processes::children(), pids(&host, &ids[..1]));
    });
}

#[test]
fn a_group_that_is_being_removed_is_not_called_back_by_a_start_for_all() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = ready(&mut host, GroupSpec::new("x", slow_to_stop()).policy(patient()));
        host.supervisor.remove(group).unwrap();
        assert_eq!(host.line(ids[0]), "asked");
        assert_eq!(host.supervisor.start(Target::All).unwrap().total(), 0);
        assert_eq!(host.supervisor.restart(Target::All).unwrap().total(), 0);
        host.go_on(ids[0]);
        host.until("it is gone", |host| host.supervisor.groups().count() == 0);
        assert_eq!(host.states(ids[0]), [Starting, Running, Stopping, Stopped]);
    });
}

/// How often the host was told that this group is gone.
fn removals(host: &Host, group: GroupId) -> usize {
    let told = |event: &&Event| matches!(event, Event::GroupRemoved { group: id, .. } if *id == group);
    host.events.iter().filter(told).count()
}

#[test]
fn a_group_is_removed_with_its_last_instance_and_told_once() {
    isolated(|| {
        let mut host = Host::new();
        let (idle, _) = host.add(GroupSpec::new("idle", sleeper()).instances(100));
        host.supervisor.remove(idle).unwrap();
        host.until("the idle group is gone", |host| removals(host, idle) == 1);

        let (group, ids) = ready(
            &mut host,
            GroupSpec::new("x", slow_to_stop()).instances(2).policy(patient()),
        );
        assert_eq!(host.supervisor.remove(group).unwrap().accepted, 2);
        assert_eq!(host.supervisor.remove(group).unwrap().accepted, 0);
        for (left, &id) in [(1, &ids[0]), (0, &ids[1])] {
            assert_eq!(removals(&host, group), 0);
            assert!(host.supervisor.group(group).unwrap().leaving);
            assert_eq!(host.line(id), "asked");
            host.go_on(id);
            host.until("one more is gone", |host| host.supervisor.instances().count() == left);
        }
        assert!(host.supervisor.group(group).is_none());
        assert!(matches!(host.events.last(), Some(Event::GroupRemoved { name, .. }) if &**name == "x"));
        assert_eq!(removals(&host, group), 1);
    });
}

/// A shell that says a word of its environment and then stays.
fn coloured(color: &str) -> Command {
    sh("echo $COLOR; read never").env("COLOR", color)
}

#[test]
fn a_reload_changes_a_policy_in_place_and_an_environment_at_the_next_start() {
    isolated(|| {
        let mut host = Host::new();
        let old = GroupSpec::new("x", coloured("red")).policy(at_once());
        let (group, ids) = host.add(old.clone());
        host.start_these(group);
        assert_eq!(host.line(ids[0]), "red");
        let pid = host.pid(ids[0]);
        assert!(host.supervisor.reload(group, old).unwrap().is_empty());

        let policy = at_once().restart(Restart::Always);
        let new = GroupSpec::new("x", coloured("blue")).policy(policy);
        let plan = host.supervisor.plan_reload(group, &new).unwrap();
        assert_eq!((plan.policy, plan.scale), (true, None));
        assert_eq!(plan.instances, [(0, Effect::AtNextStart)]);
        assert_eq!(host.supervisor.reload(group, new).unwrap(), plan);
        host.nothing_for(ms(30));
        assert_eq!(host.pid(ids[0]), pid);

        // The new policy restarts it, with the new environment.
        host.supervisor.signal(ids[0], Signal::KILL).unwrap();
        host.until("it runs again", |host| host.status(ids[0]).runs == 2);
        assert_eq!(host.line(ids[0]), "blue");
    });
}

#[test]
fn a_reload_restarts_only_instances_with_a_changed_command_and_scales() {
    isolated(|| {
        let command = |n: u32, second: &str| {
            let argument = if n == 1 { second.to_owned() } else { n.to_string() };
            sh("echo $0; read never").arg(argument)
        };
        let old = GroupSpec::with("x", move |n| command(n, "old"))
            .instances(3)
            .policy(at_once());
        let new = GroupSpec::with("x", move |n| command(n, "new"))
            .instances(4)
            .policy(at_once());
        let mut host = Host::new();
        let (group, ids) = host.add(old);
        host.start_these(group);
        let words: Vec<String> = ids.iter().map(|&id| host.line(id)).collect();
        assert_eq!(words, ["0", "old", "2"]);
        let before = pids(&host, &ids);

        let plan = host.supervisor.reload(group, new).unwrap();
        assert_eq!((plan.policy, plan.scale), (false, Some((3, 4))));
        assert_eq!(plan.instances, [(1, Effect::Restart)]);
        host.until("number 1 runs again", |host| host.status(ids[1]).runs == 2);
        host.until_executed();
        let now = host.supervisor.group(group).unwrap().instances;
        assert_eq!((now.len(), &now[..3]), (4, &ids[..]));
        assert_eq!((host.line(now[1]), host.line(now[3])), ("new".into(), "3".into()));
        assert_eq!((host.pid(ids[0]), host.pid(ids[2])), (before[0], before[2]));
    });
}

#[test]
fn a_reload_with_another_command_starts_fatal_instances_again() {
    isolated(|| {
        let mut host = Host::new();
        let policy = || at_once().start_retries(0);
        let (group, ids) = host.add(GroupSpec::new("a", Command::new("/no/such")).policy(policy()));
        host.supervisor.start(group).unwrap();
        host.until_state(ids[0], Fatal);
        host.supervisor
            .reload(group, GroupSpec::new("a", sleeper()).policy(policy()))
            .unwrap();
        host.until_state(ids[0], Running);
        // An instance that is not wanted does not change.
        host.supervisor
            .reload(group, GroupSpec::new("a", Command::new("/no/such")).policy(policy()))
            .unwrap();
        host.until_state(ids[0], Fatal);
        host.supervisor.stop(group).unwrap();
        host.supervisor
            .reload(group, GroupSpec::new("a", sleeper()).policy(policy()))
            .unwrap();
        host.take_events();
        assert_eq!((host.state(ids[0]), host.status(ids[0]).runs), (Fatal, 3));
    });
}

#[test]
fn a_reload_starts_no_stopped_instance() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(GroupSpec::new("x", sleeper()).instances(2).policy(at_once()));
        host.supervisor.start(group).unwrap();
        host.supervisor.stop(ids[0]).unwrap();
        host.until_state(ids[0], Stopped);
        let other = GroupSpec::new("x", sleeper().arg("1")).instances(2).policy(at_once());
        assert_eq!(host.supervisor.reload(group, other).unwrap().restarts().count(), 2);
        host.until("number 1 runs again", |host| host.status(ids[1]).runs == 2);
        assert_eq!(host.state(ids[0]), Stopped);
    });
}

#[test]
fn a_reload_under_another_name_is_told_under_that_name() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(GroupSpec::new("old", sleeper()).policy(at_once()));
        host.supervisor
            .reload(group, GroupSpec::new("new", sleeper()).policy(at_once()))
            .unwrap();
        host.supervisor.start(group).unwrap();
        host.take_events();
        assert_eq!(&*host.supervisor.group(group).unwrap().name, "new");
        assert_eq!(host.status(ids[0]).name.to_string(), "new:0");
        assert_eq!(host.steps(ids[0])[0].name.to_string(), "new:0");
    });
}

#[test]
fn a_policy_that_changes_during_a_stop_cannot_lose_it() {
    isolated(|| {
        let mut host = Host::new();
        let spec = |policy| GroupSpec::new("x", slow_to_stop()).policy(policy);
        let (group, ids) = ready(&mut host, spec(patient()));
        host.supervisor.stop(group).unwrap();
        assert_eq!(host.line(ids[0]), "asked");
        let other = at_once()
            .startup(Startup::Grace(LONG))
            .stop(pidherd::lifecycle::StopLadder::kill(Scope::Process));
        assert!(host.supervisor.reload(group, spec(other)).unwrap().policy);
        host.go_on(ids[0]);
        host.until_state(ids[0], Stopped);
        assert_eq!(host.states(ids[0]), [Starting, Running, Stopping, Stopped]);
    });
}

#[test]
fn a_reload_to_a_wider_scope_stops_an_old_process_that_leads_no_group() {
    isolated(|| {
        let mut host = Host::new();
        let old = sh("trap 'exit 4' TERM; echo ready; read never");
        let of_the_host = old.clone().inherit_process_group();
        let (group, ids) = ready(&mut host, GroupSpec::new("x", of_the_host).policy(at_once()));
        let wider = at_once().stop(term(Scope::ProcessGroup, LONG));
        let new = GroupSpec::new("x", old.process_group(0)).policy(wider);
        let plan = host.supervisor.reload(group, new).unwrap();
        assert_eq!((plan.policy, plan.instances), (true, vec![(0, Effect::Restart)]));
        host.until("it runs again", |host| host.status(ids[0]).runs == 2);
        assert_eq!(host.states(ids[0])[..4], [Starting, Running, Stopping, Starting]);
        assert_eq!(host.status(ids[0]).last_exit.unwrap().exit.code(), Some(4));
        assert_eq!(host.line(ids[0]), "ready");
    });
}

/// The process group and the session of a process. Either is 0 if it lies outside the PID namespace of the test.
fn group_and_session(pid: u32) -> (u32, u32) {
    let pid = i32::try_from(pid).unwrap();
    // SAFETY: numbers only.
    let (group, session) = unsafe { (libc::getpgid(pid), libc::getsid(pid)) };
    (u32::try_from(group).unwrap(), u32::try_from(session).unwrap())
}

#[test]
fn an_instance_leads_a_process_group_of_its_own_unless_its_command_says_otherwise() {
    isolated(|| {
        let mut host = Host::new();
        let (own_group, own_session) = group_and_session(std::process::id());
        let leader = host.start(sleeper(), at_once());
        let leader = host.pid(leader);
        for (command, group, session) in [
            (sleeper(), None, Some(own_session)),
            (sleeper().setsid(false), None, Some(own_session)),
            (sleeper().process_group(0), None, Some(own_session)),
            (sleeper().setsid(true), None, None),
            (sleeper().process_group(leader as i32), Some(leader), Some(own_session)),
            (sleeper().inherit_process_group(), Some(own_group), Some(own_session)),
        ] {
            let id = host.start(command.clone(), at_once());
            let pid = host.pid(id);
            let expected = (group.unwrap_or(pid), session.unwrap_or(pid));
            assert_eq!(group_and_session(pid), expected, "{command:?}");
        }
    });
}

#[test]
fn a_stop_of_a_process_group_needs_no_word_about_it_in_the_command() {
    isolated(|| {
        let mut host = Host::new();
        let policy = at_once().stop(StopLadder::kill(Scope::ProcessGroup));
        let command = sh("sleep 1000 >/dev/null & echo $!; read never");
        let id = host.start(command, policy);
        let child: u32 = host.line(id).parse().unwrap();
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert!(wait_gone(child, SOON));
    });
}

/// A terminal sends its signals to all processes of its foreground process group, which is the host's.
#[test]
fn a_signal_from_the_terminal_ends_no_instance_before_the_host_does() {
    let signals: SignalSet = [Signal::INT, Signal::QUIT, Signal::HUP].into_iter().collect();
    Isolation::new().blocked(signals).run(|| {
        let read = SignalFd::new(signals).unwrap();
        let mut host = Host::with(builder().signals(read).build().unwrap());
        let always = for_ever().stop(term(Scope::Process, LONG));
        let (group, ids) = host.add(GroupSpec::new("x", sleeper()).instances(3).policy(always));
        host.start_these(group);
        // What is in the host's group by choice shows that the signals arrive.
        let in_our_group = host.start(sleeper().inherit_process_group(), at_once());
        let before = pids(&host, &ids);
        for signal in [RawSignal::INT, RawSignal::QUIT, RawSignal::HUP] {
            kill_current_process_group(signal).unwrap();
        }
        let is_signal = |event: &&Event| matches!(event, Event::Signal(_));
        host.until("the signals have arrived", |host| {
            host.events.iter().filter(is_signal).count() == 3 && host.state(in_our_group) == Exited
        });
        assert_eq!(pids(&host, &ids), before);
        host.shut_down();
        for id in ids {
            assert_eq!(host.states(id), [Starting, Running, Stopping, Stopped]);
        }
    });
}

#[test]
fn no_two_groups_have_one_name() {
    isolated(|| {
        let mut host = Host::new();
        let named = |name: &str| GroupSpec::new(name, sleeper()).policy(at_once());
        let taken = |result: Result<(), Error>| match result.unwrap_err() {
            Error::Spec(SpecError::NameTaken(name)) => name,
            other => panic!("{other}"),
        };
        let (web, _) = host.add(named("web"));
        let (mail, _) = host.add(named("mail"));
        assert_eq!(
            taken(host.supervisor.add(named("web").notify_socket(true)).map(drop)),
            "web"
        );
        // A reload keeps the own name, and takes one that is free.
        assert_eq!(taken(host.supervisor.plan_reload(mail, &named("web")).map(drop)), "web");
        assert_eq!(taken(host.supervisor.reload(mail, named("web")).map(drop)), "web");
        host.supervisor.reload(mail, named("mail").instances(2)).unwrap();
        host.supervisor.reload(mail, named("post")).unwrap();
        assert_eq!(host.supervisor.group_named("post"), Some(mail));
        assert_eq!(host.supervisor.group_named("mail"), None);
        let (again, _) = host.add(named("mail"));
        assert_eq!(host.supervisor.groups().count(), 3);
        // A group that is being removed gives its name up at once.
        host.supervisor.start(web).unwrap();
        host.until_executed();
        host.supervisor.remove(web).unwrap();
        assert_eq!(host.supervisor.group_named("web"), None);
        let (other, _) = host.add(named("web"));
        assert_eq!(host.supervisor.group_named("web"), Some(other));
        host.until("the old group is gone", |host| host.supervisor.group(web).is_none());
        assert_eq!(host.supervisor.group_named("web"), Some(other));
        // Any number of groups can have no name.
        for _ in 0..2 {
            host.add(named(""));
        }
        assert_eq!(host.supervisor.group_named(""), None);
        assert_eq!(again, host.supervisor.group_named("mail").unwrap());
        host.shut_down();
    });
}

#[test]
fn a_host_can_change_what_it_iterates_over() {
    isolated(|| {
        let mut host = Host::new();
        for name in ["a", "b", "c"] {
            host.add(GroupSpec::new(name, sleeper()).instances(2).policy(at_once()));
        }
        host.supervisor.start(Target::All).unwrap();
        host.until_executed();
        for id in host.supervisor.instances() {
            host.supervisor.stop(id).unwrap();
            assert!(host.supervisor.status(id).is_some());
        }
        for id in host.supervisor.groups() {
            for member in host.supervisor.group(id).unwrap().instances {
                host.supervisor.kill(member).unwrap();
            }
            host.supervisor.remove(id).unwrap();
        }
        host.until("all groups are gone", |host| host.supervisor.groups().next().is_none());
    });
}
