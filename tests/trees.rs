//! Stops of whole process trees, including processes that left the session and the process group.

mod common;
mod host;

use StateName::{Exited, Running, Starting, Stopped, Stopping};
use common::interrupt::Interrupts;
use common::{Isolation, SOON, TestCgroup, elf, isolated, processes, tempdir, test_cgroup, wait_until};
use host::{Host, at_once, ms, quiet_sh, sh, sleeper, term};
use pidherd::cgroup::{CgroupDir, CgroupError};
use pidherd::lifecycle::{Policy, Remaining, Restart, Scope, State, StateName, StopLadder};
use pidherd::supervisor::{End, SpecError};
use pidherd::{Error, Event, GroupSpec, InstanceId, Signal, SignalSet};

/// A shell that ends on SIGTERM, and a pipeline of processes out of its reach: each has a session of its own, was
/// forked twice, and ignores SIGTERM.
const ESCAPED: &str = "for n in 1 2 3; do (setsid sh -c 'trap \"\" TERM; sleep 1000 & sleep 1000' &) ; done; \
                         trap 'exit 0' TERM; echo ready; read never";

/// A shell that ends on SIGTERM, and a process in a session of its own with much memory, which the kernel takes a while
/// to free after SIGKILL.
const SLOW_TO_DIE: &str = "(setsid sh -c 'head -c 200000000 /dev/zero | tail -c 200000000 | sleep 1000' &); \
                           trap 'exit 0' TERM; echo ready; read never";

fn in_cgroup(body: impl FnOnce(&TestCgroup, CgroupDir)) {
    in_cgroup_with(Isolation::new(), body);
}

fn in_cgroup_with(isolation: Isolation, body: impl FnOnce(&TestCgroup, CgroupDir)) {
    isolation.run(|| {
        let Some(cgroup) = test_cgroup() else { return };
        let directory = CgroupDir::open(cgroup.path()).unwrap();
        body(&cgroup, directory);
    });
}

fn policy(wait: u64) -> Policy {
    at_once().stop(term(Scope::Cgroup, ms(wait)))
}

fn inhabitants(cgroup: &TestCgroup, leaf: &str) -> usize {
    names(cgroup, leaf).len()
}

fn names(cgroup: &TestCgroup, leaf: &str) -> Vec<String> {
    let procs = std::fs::read_to_string(cgroup.path().join(leaf).join("cgroup.procs")).unwrap_or_default();
    let name = |pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    procs.lines().map(name).collect()
}

fn stop_reaches_all_of_a_tree(host: fn() -> Host, change: fn(GroupSpec) -> GroupSpec) {
    in_cgroup(|cgroup, directory| {
        let mut host = host();
        let spec = GroupSpec::new("tree", sh(ESCAPED))
            .policy(policy(100))
            .cgroup(directory);
        let id = host.add(change(spec)).1[0];
        host.start_these(id);
        host.until_state(id, Running);
        assert_eq!(host.line(id), "ready");
        wait_until("all fugitives are there", SOON, || inhabitants(cgroup, "tree-0") == 10);
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(host.states(id), [Starting, Running, Stopping, Stopped]);
        assert!(!cgroup.path().join("tree-0").exists(), "the cgroup goes with the run");
        drop(host);
        assert!(processes::children().is_empty());
    });
}

#[test]
fn a_cgroup_scope_kills_processes_in_sessions_of_their_own() {
    stop_reaches_all_of_a_tree(Host::new, |spec| spec);
}

#[test]
fn the_end_of_a_tree_is_reported_to_an_epoll_of_the_host() {
    stop_reaches_all_of_a_tree(Host::with_own_epoll, |spec| spec);
}

#[test]
fn the_end_of_a_tree_with_an_open_readiness_descriptor_is_reported() {
    stop_reaches_all_of_a_tree(Host::with_own_epoll, |spec| spec.ready_fd(3));
}

#[test]
fn a_stop_lasts_until_the_last_process_has_ended() {
    in_cgroup(|cgroup, directory| {
        let mut host = Host::new();
        let script = "(setsid sh -c 'trap \"sleep 0.1; exit\" TERM; sleep 1000 & wait' &); trap 'exit 0' TERM; echo ready; read never";
        let policy = at_once().stop(term(Scope::Cgroup, host::LONG));
        let id = host
            .add(GroupSpec::new("tree", sh(script)).policy(policy).cgroup(directory))
            .1[0];
        host.start_these(id);
        assert_eq!(host.line(id), "ready");
        // The test waits for execve, because a shell that has forked and not yet executed may lose a signal.
        wait_until("they are there", SOON, || {
            names(cgroup, "tree-0").contains(&"sleep\n".to_owned())
        });
        host.supervisor.restart(id).unwrap();
        host.until("it is up again", |host| host.status(id).runs == 2);
        host.until_executed();
        assert_eq!(host.states(id), [Starting, Running, Stopping, Starting, Running]);
        assert!(!host.story().contains("SIGKILL"));
        // The second run may not have set its trap yet, so it is not stopped by SIGTERM.
        host.supervisor.kill(id).unwrap();
        host.shut_down();
    });
}

#[test]
fn a_superfluous_call_does_not_end_a_stop() {
    in_cgroup(|cgroup, directory| {
        let mut host = Host::new();
        let policy = at_once().stop(term(Scope::Cgroup, host::LONG));
        let spec = GroupSpec::new("tree", sh(ESCAPED)).policy(policy).cgroup(directory);
        let id = host.add(spec).1[0];
        host.start_these(id);
        assert_eq!(host.line(id), "ready");
        wait_until("all fugitives are there", SOON, || inhabitants(cgroup, "tree-0") == 10);
        host.supervisor.stop(id).unwrap();
        host.until(
            "the leader is gone",
            |host| matches!(host.status(id).state, State::Stopping(stopping) if stopping.remaining != Remaining::Leader),
        );
        let fds: Vec<_> = host.supervisor.fds().iter().map(|entry| entry.fd).collect();
        assert_eq!(fds.len(), 2, "the timer, and what tells of the cgroup");
        for fd in fds {
            host.supervisor.process_ready(fd).unwrap();
        }
        assert_eq!(host.state(id), Stopping);
        host.supervisor.kill(id).unwrap();
        host.until_state(id, Stopped);
    });
}

#[test]
fn what_a_run_leaves_behind_dies_with_it() {
    in_cgroup(|cgroup, directory| {
        let mut host = Host::new();
        let script = "(setsid sleep 1000 &); read go; exit 0";
        let policy = policy(100).restart(Restart::Never);
        let id = host
            .add(GroupSpec::new("tree", sh(script)).policy(policy).cgroup(directory))
            .1[0];
        host.start_these(id);
        wait_until("it left a process", SOON, || inhabitants(cgroup, "tree-0") == 2);
        host.go_on(id);
        host.until_state(id, Exited);
        // The run ends when every process in its cgroup has ended.
        assert!(!cgroup.path().join("tree-0").exists());
        assert_eq!(host.states(id), [Starting, Running, Stopping, Exited]);
        assert_eq!(host.supervisor.runs(id).last().unwrap().end, End::Exited(0));
    });
}

#[test]
fn dropping_the_supervisor_leaves_nothing_of_a_tree() {
    in_cgroup(|cgroup, directory| {
        let mut host = Host::new();
        let spec = GroupSpec::new("tree", sh(ESCAPED))
            .instances(3)
            .policy(policy(100))
            .cgroup(directory);
        let (group, instances) = host.add(spec);
        host.start_these(group);
        instances.iter().for_each(|&id| assert_eq!(host.line(id), "ready"));
        wait_until("all are there", SOON, || {
            (0..3).all(|n| inhabitants(cgroup, &format!("tree-{n}")) == 10)
        });
        drop(host);
        assert_eq!(
            std::fs::read_dir(cgroup.path())
                .unwrap()
                .filter(|e| e.as_ref().unwrap().path().is_dir())
                .count(),
            0
        );
    });
}

#[test]
fn what_an_earlier_supervisor_left_is_taken_over_and_killed() {
    in_cgroup(|cgroup, directory| {
        let leaf = directory.leaf("tree-0").unwrap();
        let mut spawner = pidherd::Spawner::new().unwrap();
        let mut left = spawner
            .spawn_in(&sleeper().compile().unwrap(), Some(leaf.fd()))
            .unwrap();
        let mut host = Host::new();
        let id = host
            .add(GroupSpec::new("tree", sleeper()).policy(policy(100)).cgroup(directory))
            .1[0];
        host.start_these(id);
        host.until_state(id, Running);
        assert!(!left.wait().unwrap().exit.success());
        let living = ["tree-0", "tree-0.1"].map(|leaf| inhabitants(cgroup, leaf));
        assert_eq!(living.iter().sum::<usize>(), 1, "{}", host.story());
        host.shut_down();
    });
}

#[test]
fn a_cgroup_that_cannot_be_made_is_a_failed_start_with_a_cause() {
    in_cgroup(|cgroup, directory| {
        std::fs::write(cgroup.path().join("cgroup.max.descendants"), "0").unwrap();
        let mut host = Host::new();
        let id = host
            .add(GroupSpec::new("tree", sleeper()).policy(policy(100)).cgroup(directory))
            .1[0];
        host.start_these(id);
        let error = host.status(id).last_error.unwrap();
        assert_eq!(error.step(), pidherd::SpawnStep::Cgroup);
        assert_eq!(error.path(), Some(cgroup.path().join("tree-0").as_path()));
        assert!(error.is_transient(), "{error}");
        host.shut_down();
    });
}

#[test]
fn a_scope_without_a_cgroup_and_a_cgroup_without_a_name_are_refused() {
    in_cgroup(|_, directory| {
        let mut host = Host::new();
        let refused = |host: &mut Host, spec: GroupSpec| match host.supervisor.add(spec).unwrap_err() {
            Error::Spec(error) => error,
            other => panic!("{other}"),
        };
        let spec = |name| GroupSpec::new(name, quiet_sh("exit")).stop(StopLadder::kill(Scope::Cgroup));
        assert_eq!(refused(&mut host, spec("tree")), SpecError::NoCgroup);
        let error = refused(&mut host, spec("a/b").cgroup(directory.clone()));
        assert!(matches!(error, SpecError::Cgroup(CgroupError::Name { .. })), "{error}");
        let lasting = spec("tree").cgroup(directory.clone()).policy(at_once());
        let (group, _) = host.add(lasting.clone());
        assert!(matches!(refused(&mut host, lasting.clone()), SpecError::NameTaken(_)));
        // A group that is being removed has given its name up, and has its cgroups until its end.
        host.supervisor.remove(group).unwrap();
        host.add(lasting);
    });
}

#[test]
fn what_a_process_leaves_in_its_group_when_it_ends_by_itself_is_killed() {
    isolated(|| {
        let mut host = Host::new();
        let policy = at_once().stop(term(Scope::ProcessGroup, host::LONG));
        let command = sh("sleep 1000 & sleep 1000 & echo ready; read go; exit 1").process_group(0);
        let id = host.start(command, policy);
        assert_eq!(host.line(id), "ready");
        let group = host.pid(id);
        host.go_on(id);
        host.until_state(id, Exited);
        let members = || {
            let of_group = |pid: &u32| {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
                fields.get(2) == Some(&group.to_string().as_str()) && fields[0] != "Z"
            };
            processes::all().iter().filter(|pid| of_group(pid)).count()
        };
        wait_until("no process of the group is left", SOON, || members() == 0);
    });
}

/// Starts [`SLOW_TO_DIE`] under this scope and waits until it has its memory.
fn start_slow(host: &mut Host, scope: Scope, cgroup: &TestCgroup, directory: CgroupDir) -> InstanceId {
    let policy = at_once().stop(term(scope, host::LONG));
    let spec = GroupSpec::new("slow", sh(SLOW_TO_DIE)).policy(policy).cgroup(directory);
    let id = host.add(spec).1[0];
    host.start_these(id);
    assert_eq!(host.line(id), "ready");
    host.until_state(id, Running);
    let has_much = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = resident.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.is_some_and(|kilobytes| kilobytes > 150_000)
    };
    let leaf = cgroup.path().join("slow-0");
    wait_until("its memory is there", SOON, || {
        common::cgroups::members(&leaf).iter().any(has_much)
    });
    id
}

#[test]
fn a_cgroup_is_removed_when_its_last_process_ends_late() {
    in_cgroup(|cgroup, directory| {
        for mut host in [Host::new(), Host::with_own_epoll()] {
            let id = start_slow(&mut host, Scope::Process, cgroup, directory.clone());
            let group = host.status(id).group;
            host.supervisor.remove(group).unwrap();
            let is_removed = |event: &Event| matches!(event, Event::GroupRemoved { .. });
            host.until("the group is removed", |host| host.events.iter().any(is_removed));
            // The process in the cgroup is usually still dying. The host waits for its next wakeup and makes no other
            // call.
            host.until("its cgroup is removed", |_| !cgroup.path().join("slow-0").exists());
            host.nothing_for(ms(50));
        }
    });
}

#[test]
fn a_drop_under_a_storm_of_signals_waits_for_what_dies_slowly() {
    let alarm = SignalSet::EMPTY.with(Signal::ALRM);
    in_cgroup_with(Isolation::new().blocked(alarm), |cgroup, directory| {
        for scope in [Scope::Process, Scope::Cgroup] {
            let mut host = Host::new();
            start_slow(&mut host, scope, cgroup, directory.clone());
            let interrupts = Interrupts::begin();
            drop(host);
            drop(interrupts);
            assert!(!cgroup.path().join("slow-0").exists(), "{scope:?}");
        }
    });
}

#[test]
fn every_call_goes_on_under_a_storm_of_signals() {
    let alarm = SignalSet::EMPTY.with(Signal::ALRM);
    in_cgroup_with(Isolation::new().blocked(alarm), |cgroup, directory| {
        let _interrupts = Interrupts::begin();
        let mut child = sh("read go").spawn().unwrap();
        let began = std::time::Instant::now();
        assert_eq!(child.wait_timeout(ms(50)).unwrap(), None);
        assert!(began.elapsed() >= ms(50));
        child.kill().unwrap();
        child.wait().unwrap();
        for mut host in [Host::new(), Host::with_own_epoll()] {
            let spec = GroupSpec::new("tree", sh(ESCAPED))
                .policy(policy(100))
                .cgroup(directory.clone());
            let id = host.add(spec.notify_socket(true).ready_fd(3)).1[0];
            for run in 1..=3 {
                host.start_these(id);
                assert_eq!(host.line(id), "ready");
                wait_until("all fugitives are there", SOON, || inhabitants(cgroup, "tree-0") == 10);
                host.supervisor.stop(id).unwrap();
                host.until_state(id, Stopped);
                assert_eq!(host.status(id).runs, run, "{}", host.story());
            }
            host.shut_down();
        }
    });
}

/// A script that moves itself to the cgroup in `$0` and continues there.
fn moves_away(place: &std::path::Path, then: &str) -> pidherd::Command {
    let script = format!("echo $$ >'{}/cgroup.procs'; {then}", place.display());
    sh(&script)
}

#[test]
fn a_stop_and_a_kill_reach_an_instance_that_has_moved_itself_to_another_cgroup() {
    in_cgroup(|cgroup, directory| {
        let elsewhere = cgroup.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        let mut host = Host::new();
        let policy = |wait| at_once().stop(term(Scope::Cgroup, wait));
        let heeds = moves_away(&elsewhere, "trap 'exit 0' TERM; echo up; read never");
        let defies = moves_away(&elsewhere, "trap '' TERM; echo up; read never");
        for (name, command, wait) in [("heeds", heeds, host::LONG), ("defies", defies, ms(50))] {
            let spec = GroupSpec::new(name, command)
                .policy(policy(wait))
                .cgroup(directory.clone());
            let id = host.add(spec).1[0];
            for kill in [false, true] {
                host.start_these(id);
                assert_eq!(host.line(id), "up");
                host.until_state(id, Running);
                let pid = host.pid(id);
                assert!(common::cgroups::members(&elsewhere).contains(&pid));
                match kill {
                    false => host.supervisor.stop(id).unwrap(),
                    true => host.supervisor.kill(id).unwrap(),
                };
                host.until_state(id, Stopped);
                assert!(common::wait_gone(pid, SOON));
            }
        }
        host.shut_down();
        drop(host);
        std::fs::remove_dir(elsewhere).unwrap();
    });
}

#[test]
fn a_stop_of_a_group_reaches_an_instance_that_has_left_its_group() {
    if !elf::runs_or_skip() {
        return;
    }
    isolated(|| {
        let place = tempdir();
        let program = place.join("leaving");
        elf::install(&program, elf::LEAVING);
        let mut host = Host::new();
        let policy = at_once().stop(term(Scope::ProcessGroup, host::LONG));
        let script = format!("sleep 1000 & exec {}", program.display());
        let id = host.start(quiet_sh(&script).process_group(0), policy);
        host.until_state(id, Running);
        let pid = host.pid(id);
        // SAFETY: numbers only. Our group may lie outside our PID namespace, and has the number 0 then.
        let group = |pid: i32| unsafe { libc::getpgid(pid) };
        wait_until("it has left its group", SOON, || {
            group(i32::try_from(pid).unwrap()) == group(0)
        });
        // A child stays in the group, so that the group can still be signalled.
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(host.status(id).last_exit.unwrap().exit.signal(), Some(Signal::TERM));
    });
}
