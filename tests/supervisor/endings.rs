//! The ends of a supervisor: by a shutdown through the loop, by a drop, by a panic. No process is left in any case.
//!
//! That no child and no zombie is left is what the oracle of every test checks at its end; here are the ends that are
//! hard to bring about.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::time::Duration;

use pidherd::lifecycle::{Delay, Policy, Remaining, Scope, State, StateName, StopLadder};
use pidherd::supervisor::{End, Outcome};
use pidherd::{Command, GroupSpec, InstanceId, Signal, Target};

use super::common::{SOON, isolated, processes, wait_gone, wait_until};
use super::host::{Host, LONG, at_once, builder, for_ever, ms, sh, sleeper, spawns_in_flight, term, wait_for_sleep};
use StateName::{Exited, Fatal, Running, Starting, Stopped, Stopping};

fn group_policy() -> Policy {
    at_once().stop(term(Scope::ProcessGroup, LONG))
}

/// A shell with a child in its group, both deaf to SIGTERM. It writes the child's number.
fn deaf_family() -> Command {
    sh("trap '' TERM; sleep 1000 >/dev/null & echo $!; read never; wait").process_group(0)
}

/// The same, but the shell obeys.
fn deaf_child() -> Command {
    sh("(trap '' TERM; exec sleep 1000 >/dev/null) & trap 'exit 0' TERM; echo $!; read never").process_group(0)
}

/// Reads the number of a child's child, once that runs its program.
fn child_of(host: &mut Host, id: InstanceId) -> u32 {
    let pid = host.line(id).parse().unwrap();
    wait_for_sleep(pid);
    pid
}

/// Processes in every condition that is hard to end; their numbers.
fn hard_to_end(host: &mut Host) -> Vec<u32> {
    let mut pids = Vec::new();
    let deaf = host.start(sh("trap '' TERM HUP INT; echo ready; read never"), at_once());
    assert_eq!(host.line(deaf), "ready");

    let stopped = host.start(sleeper(), at_once());
    host.supervisor.signal(stopped, Signal::STOP).unwrap();
    let pid = host.pid(stopped);
    wait_until("it is stopped", SOON, || processes::state(pid) == Some('T'));

    // On its way down, and not minding.
    let stopping = host.start(sh("trap '' TERM; echo ready; read never"), group_free());
    assert_eq!(host.line(stopping), "ready");
    host.supervisor.stop(stopping).unwrap();

    let family = host.start(deaf_family(), group_policy());
    pids.push(child_of(host, family));

    // The leader is gone and reaped, its child is not.
    let orphan = host.start(deaf_child(), group_policy());
    pids.push(child_of(host, orphan));
    host.supervisor.stop(orphan).unwrap();
    host.until("its leader is gone", |host| {
        matches!(host.status(orphan).state, State::Stopping(stopping) if matches!(stopping.remaining, Remaining::Others { .. }))
    });

    // The process has ended, and its end was not read yet.
    let dead = host.start(sleeper(), for_ever());
    host.supervisor.signal(dead, Signal::KILL).unwrap();
    assert!(wait_gone(host.pid(dead), SOON));

    pids.extend([deaf, stopped, stopping, family, dead].map(|id| host.pid(id)));
    pids
}

/// One that waits for ever for the process alone.
fn group_free() -> Policy {
    at_once().stop(term(Scope::Process, LONG))
}

fn assert_gone(pids: &[u32]) {
    for &pid in pids {
        assert!(wait_gone(pid, SOON), "{}", processes::describe(pid));
    }
    assert_eq!(processes::children(), []);
}

#[test]
fn a_drop_leaves_no_process_in_any_state() {
    isolated(|| {
        let mut host = Host::new();
        let pids = hard_to_end(&mut host);
        assert_eq!(pids.len(), 7);
        drop(host);
        assert_gone(&pids);
    });
}

#[test]
fn a_drop_leaves_no_process_of_hundreds_with_some_still_queued() {
    isolated(|| {
        let slow = builder().slice(Duration::ZERO).build().unwrap();
        let mut host = Host::with(slow);
        let (group, ids) = host.add(GroupSpec::new("x", sleeper()).instances(300).policy(at_once()));
        host.supervisor.start(group).unwrap();
        host.until("one runs, and another is in flight", |host| {
            let is_in_flight = spawns_in_flight() == 0 || ids.iter().any(|&id| host.is_in_flight(id));
            is_in_flight && ids.iter().any(|&id| host.state(id) == Running)
        });
        let count = |is: &dyn Fn(InstanceId) -> bool| ids.iter().filter(|&&id| is(id)).count();
        let in_flight = count(&|id| host.is_in_flight(id));
        let queued = count(&|id| host.status(id).pending.is_some());
        let alive = processes::children().len();
        assert!(queued > 0 && alive > in_flight, "{in_flight}, {queued}, {alive}");
        drop(host);
        assert_gone(&[]);
    });
}

#[test]
fn a_drop_with_an_unread_change_log_leaves_no_descriptor() {
    isolated(|| {
        let mut host = Host::new();
        host.supervisor.track_fd_changes(true);
        let (group, ids) = host.add(GroupSpec::new("x", sleeper()).instances(3).policy(for_ever()));
        host.start_these(group);
        host.supervisor.signal(group, Signal::KILL).unwrap();
        host.until("all run again", |host| ids.iter().all(|&id| host.status(id).runs == 2));
        drop(host);
    });
}

#[test]
fn a_panic_that_the_host_catches_leaves_no_process() {
    isolated(|| {
        let mut pids = Vec::new();
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let mut host = Host::new();
            pids = hard_to_end(&mut host);
            panic!("this one is meant");
        }));
        assert!(caught.is_err());
        assert_gone(&pids);
    });
}

#[test]
fn a_panic_that_ends_the_host_leaves_no_process() {
    const STAGE: &str = "PIDHERD_TEST_STAGE";
    isolated(|| {
        if std::env::var_os(STAGE).is_some() {
            let mut host = Host::new();
            println!("\npids: {:?}", hard_to_end(&mut host));
            panic!("this one is meant");
        }
        // This very test once more, in a process that is to die of it.
        let test = std::thread::current().name().unwrap().to_owned();
        let output = process::Command::new(std::env::current_exe().unwrap())
            .args([&test, "--exact", "--nocapture", "--test-threads=1"])
            .env(STAGE, "panic")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(101), "{text}");
        let line = text.lines().find_map(|line| line.strip_prefix("pids: ["));
        let pids = line.unwrap_or_else(|| panic!("{text}")).trim_end_matches(']');
        let pids: Vec<u32> = pids.split(", ").map(|pid| pid.parse().unwrap()).collect();
        assert_eq!(pids.len(), 7);
        assert_gone(&pids);
    });
}

#[test]
fn a_shutdown_through_the_loop_ends_each_by_its_ladder_and_starts_nothing() {
    isolated(|| {
        let mut host = Host::with_own_epoll();
        let quick = |scope| at_once().stop(term(scope, ms(50)));
        let obedient = host.start(sh("trap 'exit 4' TERM; echo ready; read never"), for_ever());
        assert_eq!(host.line(obedient), "ready");
        let deaf = host.start(sh("trap '' TERM; echo ready; read never"), quick(Scope::Process));
        assert_eq!(host.line(deaf), "ready");
        let family = host.start(deaf_family(), quick(Scope::ProcessGroup));
        let child = child_of(&mut host, family);
        let waiting = at_once().backoff(Delay::Fixed(LONG));
        let waiting = host.start(Command::new("/no/such"), waiting);
        let given_up = at_once().start_retries(0);
        let given_up = host.start(Command::new("/no/such"), given_up);
        let (_, never) = host.add(GroupSpec::new("never", sleeper()));
        assert!(!host.supervisor.is_down());

        let outcome = host.supervisor.shutdown().unwrap();
        assert_eq!((outcome.accepted, outcome.already), (4, 2));
        assert!(!host.supervisor.is_down());
        assert_eq!(
            host.supervisor.shutdown().unwrap().already,
            6,
            "a second one changes nothing"
        );
        host.until("all is down", |host| host.supervisor.is_down());

        let up_and_down = [Starting, Running, Stopping, Stopped];
        for id in [obedient, deaf, family] {
            assert_eq!(host.states(id), up_and_down, "{}", host.story());
        }
        let exit = |id| host.status(id).last_exit.unwrap().exit;
        assert_eq!(exit(obedient).code(), Some(4));
        assert_eq!(
            (exit(deaf).signal(), exit(family).signal()),
            (Some(Signal::KILL), Some(Signal::KILL))
        );
        assert!(wait_gone(child, SOON));
        assert_eq!(host.state(waiting), Stopped);
        assert_eq!(host.state(given_up), Fatal);
        assert!(host.states(never[0]).is_empty());
        assert_eq!(processes::children(), []);
        assert!(host.turn(SOON), "a host may wait for that all is down");
        host.nothing_for(ms(30));
        assert_eq!(host.supervisor.fds().len(), 1, "the timer");
    });
}

#[test]
fn an_impatient_host_kills_in_the_middle_of_a_shutdown() {
    isolated(|| {
        let mut host = Host::new();
        let deaf = sh("trap '' TERM; echo ready; read never");
        let (group, ids) = host.add(GroupSpec::new("x", deaf).instances(3).policy(group_free()));
        host.start_these(group);
        ids.iter().for_each(|&id| assert_eq!(host.line(id), "ready"));
        host.supervisor.shutdown().unwrap();
        host.nothing_for(ms(30));
        assert_eq!(host.supervisor.kill(Target::All).unwrap().accepted, 3);
        host.until("all is down", |host| host.supervisor.is_down());
    });
}

#[test]
fn the_record_of_a_killed_run_contains_the_cause_of_the_kill() {
    isolated(|| {
        let mut host = Host::new();
        let policy = at_once().stop(term(Scope::Process, ms(50)));
        let id = host.start(sh("trap '' TERM; echo ready; read never"), policy);
        assert_eq!(host.line(id), "ready");
        host.supervisor.kill(id).unwrap();
        host.until_state(id, Stopped);
        host.supervisor.start(id).unwrap();
        assert_eq!(host.line(id), "ready");
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        let ends: Vec<End> = host.supervisor.runs(id).map(|run| run.end).collect();
        assert_eq!(ends, [End::Stopped, End::StopTimeout]);
    });
}

#[test]
fn a_start_that_is_remembered_is_forgotten_at_a_shutdown() {
    isolated(|| {
        let mut host = Host::new();
        let slow = sh("trap 'echo asked; read go; exit 0' TERM; echo ready; read never");
        let id = host.start(slow, group_free());
        assert_eq!(host.line(id), "ready");
        host.supervisor.restart(id).unwrap();
        assert_eq!(host.line(id), "asked");
        host.supervisor.shutdown().unwrap();
        host.go_on(id);
        host.until("all is down", |host| host.supervisor.is_down());
        assert_eq!(host.states(id), [Starting, Running, Stopping, Stopped]);
    });
}

#[test]
fn a_supervisor_without_anything_is_down_at_once() {
    isolated(|| {
        let mut host = Host::new();
        assert!(!host.supervisor.is_down(), "nobody has asked");
        host.supervisor.shutdown().unwrap();
        assert!(host.supervisor.is_down());
    });
}

#[test]
fn a_ladder_without_rungs_kills_at_once() {
    isolated(|| {
        let mut host = Host::new();
        let policy = at_once().stop(StopLadder::kill(Scope::ProcessGroup));
        let id = host.start(deaf_family(), policy);
        let child = child_of(&mut host, id);
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(host.status(id).last_exit.unwrap().exit.signal(), Some(Signal::KILL));
        assert!(wait_gone(child, SOON));
    });
}

#[test]
fn a_group_can_be_stopped_by_a_real_time_signal() {
    isolated(|| {
        let mut host = Host::new();
        let signal: Signal = "RTMIN+3".parse().unwrap();
        let policy = at_once().stop(StopLadder::signal(signal, Scope::ProcessGroup, LONG));
        let script = format!("trap 'exit 4' {}; echo ready; read never", signal.as_raw());
        let id = host.start(sh(&script).process_group(0), policy);
        assert_eq!(host.line(id), "ready");
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(host.status(id).last_exit.unwrap().exit.code(), Some(4));
        assert_eq!(host.all_steps().count(), host.events.len(), "{}", host.story());
    });
}

/// Another process kills the instance, and the supervisor does not observe this before the next request.
fn killed_unseen(host: &mut Host) -> InstanceId {
    let id = host.start(sleeper(), at_once());
    let pid = host.pid(id);
    let raw = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
    assert!(wait_gone(pid, SOON));
    assert_eq!(host.state(id), Running);
    id
}

#[test]
fn an_end_before_a_stop_is_recorded_as_such() {
    isolated(|| {
        let mut host = Host::new();
        let requests: [fn(&mut Host, InstanceId) -> Outcome; 4] = [
            |host, id| host.supervisor.stop(id).unwrap(),
            |host, id| host.supervisor.kill(id).unwrap(),
            |host, id| host.supervisor.restart(id).unwrap(),
            |host, _| host.supervisor.shutdown().unwrap(),
        ];
        for request in requests {
            let id = killed_unseen(&mut host);
            request(&mut host, id);
            host.until("its run is over", |host| host.supervisor.runs(id).next().is_some());
            let run = host.supervisor.runs(id).next().unwrap();
            assert_eq!(run.end, End::KilledFromOutside(Signal::KILL));
        }
    });
}

#[test]
fn an_instance_with_an_unobserved_end_is_started() {
    isolated(|| {
        let mut host = Host::new();
        let id = killed_unseen(&mut host);
        assert_eq!(host.supervisor.start(id).unwrap().accepted, 1);
        host.until_executed();
        assert_eq!((host.state(id), host.status(id).runs), (Running, 2));
        let states = [Starting, Running, Exited, Starting, Running];
        host.until_state(id, Running);
        assert_eq!(host.states(id), states);
    });
}

/// The process writes the number of a member of its group, which stays alive when the process ends. Then the instance
/// is started again.
fn leaves_a_sleeper(host: &mut Host) -> InstanceId {
    let policy = for_ever().stop(term(Scope::ProcessGroup, LONG));
    let script = "sleep 1000 >/dev/null & echo $!; read go; exit 3";
    host.start(sh(script).process_group(0), policy)
}

#[test]
fn no_process_is_started_beside_the_remains_of_its_predecessor() {
    isolated(|| {
        let mut host = Host::new();
        let id = leaves_a_sleeper(&mut host);
        let left = host.line(id).parse().unwrap();
        host.go_on(id);
        host.until("it is there again", |host| host.status(id).runs == 2);
        host.until_executed();
        assert!(wait_gone(left, Duration::ZERO));
        assert_eq!(host.supervisor.runs(id).next().unwrap().end, End::Exited(3));
        let states = [Starting, Running, Stopping, Exited, Starting, Running];
        host.take_events();
        assert_eq!(host.states(id), states);
    });
}

/// An instance that is not wanted any more is not started again after its end is judged.
#[test]
fn a_stop_while_the_remains_are_killed_keeps_the_instance_down() {
    isolated(|| {
        let mut host = Host::new();
        let id = leaves_a_sleeper(&mut host);
        let pid = host.pid(id);
        host.line(id);
        host.go_on(id);
        assert!(wait_gone(pid, SOON));
        host.until_state(id, Stopping);
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(host.status(id).runs, 1);
        assert_eq!(host.supervisor.runs(id).next().unwrap().end, End::Exited(3));
    });
}
