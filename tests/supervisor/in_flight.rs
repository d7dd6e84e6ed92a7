//! Spawns in flight: what a supervisor does while a process has not executed its program.
//!
//! A lease on the program makes its execve hang for as long as a test wants (`common/lease.rs`).

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pidherd::group::Rolling;
use pidherd::lifecycle::{
    AutoShutdown, Cause, CrashBudget, Delay, Failure, Policy, Restart, Scope, Startup, State, StateName, StopLadder,
};
use pidherd::supervisor::{End, Outcome};
use pidherd::{Command, Event, GroupId, GroupSpec, InstanceId, Resource, Signal, SpawnStep, Stdio, Supervisor, Target};

use super::common::lease::Lease;
use super::common::tracer::Tracer;
use super::common::{
    SOON, TempDir, isolated, patience, processes, skipped, tempdir, wait_gone, wait_readable, wait_until,
};
use super::host::{Host, LONG, at_once, for_ever, kernel_since, ms, quiet_sh, sh, sleeper, term};
use StateName::{Backoff, Exited, Fatal, Running, Starting, Stopped, Stopping};

/// How many spawns may be in flight in most tests.
const MOST: usize = 32;

/// A program with an execve that hangs until the lease is released.
struct Hanging {
    path: PathBuf,
    lease: Lease,
    _directory: TempDir,
}

impl Hanging {
    /// A copy of this program.
    fn copy_of(program: &str) -> Hanging {
        let directory = tempdir();
        let path = directory.join("hanging");
        fs::copy(program, &path).unwrap();
        Hanging::at(directory, path)
    }

    fn at(directory: TempDir, path: PathBuf) -> Hanging {
        Hanging {
            lease: Lease::try_take(&path).unwrap(),
            path,
            _directory: directory,
        }
    }

    /// A command that stays when its execve no longer hangs.
    fn sleeper(&self) -> Command {
        Command::new(&self.path).arg("1000")
    }
}

fn host_with(most: usize) -> Host {
    Host::with(Supervisor::builder().spawns_in_flight(most).build().unwrap())
}

/// Runs the test in both ways of waiting, each in a host of its own.
fn in_both_ways(body: impl Fn(Host)) {
    isolated(|| {
        if cfg!(pidherd_portable) {
            return skipped("the portable path waits for execve");
        }
        if !Lease::is_possible() {
            return;
        }
        body(host_with(MOST));
        let mut host = host_with(MOST);
        host.wait_for_each();
        body(host);
        assert_eq!(processes::children(), []);
    });
}

/// A stop that takes 50 ms before SIGKILL.
fn policy() -> Policy {
    at_once().stop(term(Scope::Process, ms(50)))
}

/// Starts so many instances of a program that hangs, and turns until each has been looked at.
fn hang(host: &mut Host, spec: GroupSpec) -> (GroupId, Vec<InstanceId>) {
    let (group, ids) = host.add(spec);
    host.supervisor.start(group).unwrap();
    for &id in &ids {
        Lease::wait_for(host.pid(id));
    }
    host.take_events();
    assert!(ids.iter().all(|&id| host.is_in_flight(id)), "{}", host.story());
    (group, ids)
}

// Others go on meanwhile.

#[test]
fn a_hanging_execve_delays_no_deadline_of_another_group() {
    in_both_ways(|mut host| {
        let hanging = Hanging::copy_of("/bin/sleep");
        let spec = GroupSpec::new("hanging", hanging.sleeper())
            .instances(3)
            .policy(policy());
        let (_, ids) = hang(&mut host, spec);
        let graceful = at_once().startup(Startup::Grace(ms(80)));
        let silent = policy().startup(Startup::Notify { timeout: ms(120) }).start_retries(0);
        let delayed = for_ever().restart_delay(Delay::Fixed(ms(30)));
        let graceful = host.start(sleeper(), graceful);
        let (_, silent_ids) = host.add(GroupSpec::new("silent", sh("read never")).policy(silent).ready_fd(3));
        host.start_these(silent_ids[0]);
        let crashing = host.start(quiet_sh("exit 1"), delayed);
        for (id, from) in [(graceful, Starting), (silent_ids[0], Starting)] {
            // On a slow machine the second one may have ended while the host waited for the first one.
            while host.state(id) == from {
                let due = host.status(id).state.deadline().unwrap();
                let was_due = host.supervisor.now() > due;
                assert!(host.turn(SOON));
                assert!(!was_due || host.state(id) != from, "it was due");
            }
        }
        host.until("the crashing one was restarted", |host| host.status(crashing).runs > 4);
        host.until_state(silent_ids[0], Fatal);
        assert_eq!(host.state(graceful), Running);
        assert!(ids.iter().all(|&id| host.is_in_flight(id)));
    });
}

#[test]
fn a_hanging_execve_keeps_no_pipe_of_another_process_open() {
    in_both_ways(|mut host| {
        let hanging = Hanging::copy_of("/bin/sleep");
        // One after the other without a dispatch, so that all of them share the host's descriptors at first.
        let before = host.begin(hanging.sleeper(), policy());
        let cat = host.begin(sh("cat"), policy());
        let after = host.begin(hanging.sleeper(), policy());
        host.until_state(cat, Running);
        let pipes = host.supervisor.take_pipes(cat).unwrap();
        drop(pipes.stdin);
        host.until_state(cat, Exited);
        let stdout = pipes.stdout.unwrap();
        assert!(wait_readable(&stdout, SOON), "its end is held open");
        let mut text = String::new();
        File::from(stdout).read_to_string(&mut text).unwrap();
        assert!(host.is_in_flight(before) && host.is_in_flight(after));
    });
}

/// How often a host is woken in this time.
fn wakeups(host: &mut Host, time: Duration) -> u32 {
    let end = Instant::now() + time;
    let mut wakeups = 0;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return wakeups;
        }
        wakeups += u32::from(host.turn(left));
    }
}

#[test]
fn hanging_execves_wake_the_host_less_and_less() {
    in_both_ways(|mut host| {
        let hanging = Hanging::copy_of("/bin/sleep");
        let instances = |count| GroupSpec::new("", hanging.sleeper()).instances(count).policy(policy());
        hang(&mut host, instances(1));
        let first = wakeups(&mut host, ms(500));
        let second = wakeups(&mut host, ms(1_000));
        // A check every millisecond would be 500 and 1,000. The checks are on a grid, so they are up to twice as many
        // as their pauses say.
        assert!(
            first <= 60 && second <= 40,
            "{first} in the first half second, then {second} in one second"
        );
        // More than may be in flight: starts wait, and that wakes nothing.
        let (group, _) = host.add(instances(2 * MOST as u32));
        host.supervisor.start(group).unwrap();
        wakeups(&mut host, ms(600));
        let many = wakeups(&mut host, ms(1_000));
        assert!(many <= 120, "{many} in one second");
    });
}

// Stops of what hangs.

/// What each of these leads to, with its execve still hanging.
#[test]
fn a_hanging_program_is_stopped_and_killed_within_its_ladder() {
    in_both_ways(|mut host| {
        let hanging = Hanging::copy_of("/bin/sleep");
        let requests: [fn(&mut Host, InstanceId) -> Outcome; 2] = [
            |host, id| host.supervisor.stop(id).unwrap(),
            |host, id| host.supervisor.kill(id).unwrap(),
        ];
        for request in requests {
            let (_, ids) = hang(&mut host, GroupSpec::new("", hanging.sleeper()).policy(policy()));
            let pid = host.pid(ids[0]);
            assert_eq!(request(&mut host, ids[0]).accepted, 1);
            host.until_state(ids[0], Stopped);
            assert_eq!(host.states(ids[0]), [Starting, Stopping, Stopped]);
            let status = host.status(ids[0]);
            assert!(status.last_exit.unwrap().exit.signal().is_some(), "{status:?}");
            assert_eq!((status.runs, status.failed_starts), (1, 0));
            let run = host.supervisor.runs(ids[0]).last().unwrap();
            assert!(matches!(run.end, End::Stopped | End::StopTimeout), "{run:?}");
            assert!(run.lasted < SOON / 4 * patience());
            assert!(wait_gone(pid, Duration::ZERO));
        }
    });
}

#[test]
fn a_hanging_program_can_be_stopped_by_a_signal_that_dumps_core() {
    in_both_ways(|mut host| {
        let hanging = Hanging::copy_of("/bin/sleep");
        let quit = at_once().stop(StopLadder::signal(Signal::QUIT, Scope::Process, LONG));
        let command = hanging.sleeper().limit(Resource::Core, 0, 0);
        let spec = GroupSpec::new("x", command).policy(quit);
        let (_, ids) = hang(&mut host, spec);
        host.supervisor.stop(ids[0]).unwrap();
        host.until_state(ids[0], Stopped);
        assert_eq!(host.status(ids[0]).last_exit.unwrap().exit.signal(), Some(Signal::QUIT));
    });
}

#[test]
fn a_hanging_program_is_restarted_also_by_a_reload_and_comes_up_when_it_no_longer_hangs() {
    in_both_ways(|mut host| {
        let hanging = Hanging::copy_of("/bin/sleep");
        let spec = |command| GroupSpec::new("x", command).policy(policy());
        let (group, ids) = hang(&mut host, spec(hanging.sleeper()));
        assert_eq!(host.supervisor.restart(group).unwrap().accepted, 1);
        host.until("it is in flight again", |host| host.status(ids[0]).runs == 2);
        assert!(host.is_in_flight(ids[0]));
        assert_eq!(host.states(ids[0]), [Starting, Stopping, Starting]);

        host.supervisor.reload(group, spec(sleeper())).unwrap();
        host.until_state(ids[0], Running);
        assert_eq!(host.status(ids[0]).runs, 3);

        host.supervisor.reload(group, spec(hanging.sleeper())).unwrap();
        host.until("it is in flight", |host| host.status(ids[0]).runs == 4);
        let pid = host.pid(ids[0]);
        hanging.lease.release();
        host.until_state(ids[0], Running);
        assert_eq!(host.pid(ids[0]), pid, "the same process");
        let states = [
            Starting, Stopping, Starting, Stopping, Starting, Running, Stopping, Starting, Running,
        ];
        assert_eq!(host.states(ids[0]), states);
    });
}

#[test]
fn hanging_instances_leave_with_a_smaller_scale_and_with_their_group() {
    in_both_ways(|mut host| {
        let hanging = Hanging::copy_of("/bin/sleep");
        let spec = GroupSpec::new("x", hanging.sleeper()).instances(3).policy(policy());
        let (group, ids) = hang(&mut host, spec);
        assert_eq!(host.supervisor.scale(group, 1).unwrap().accepted, 2);
        host.until("two are gone", |host| host.supervisor.instances().count() == 1);
        assert!(host.is_in_flight(ids[0]));
        assert_eq!(host.supervisor.remove(group).unwrap().accepted, 1);
        host.until("the group is gone", |host| host.supervisor.group(group).is_none());
        let removed = |event: &Event| matches!(event, Event::GroupRemoved { group: id, .. } if *id == group);
        assert_eq!(host.events.iter().filter(|event| removed(event)).count(), 1);
        assert_eq!(processes::children(), []);
    });
}

#[test]
fn a_shutdown_ends_hanging_programs_within_their_ladders() {
    in_both_ways(|mut host| {
        let hanging = Hanging::copy_of("/bin/sleep");
        let spec = GroupSpec::new("x", hanging.sleeper()).instances(3).policy(policy());
        hang(&mut host, spec);
        let began = Instant::now();
        host.shut_down();
        assert!(began.elapsed() < SOON / 4 * patience());
    });
}

#[test]
fn a_drop_leaves_no_hanging_process() {
    in_both_ways(|mut host| {
        let hanging = Hanging::copy_of("/bin/sleep");
        let group_policy = at_once().stop(term(Scope::ProcessGroup, LONG));
        let (_, alone) = hang(
            &mut host,
            GroupSpec::new("a", hanging.sleeper()).instances(3).policy(policy()),
        );
        let (_, groups) = hang(
            &mut host,
            GroupSpec::new("b", hanging.sleeper()).instances(3).policy(group_policy),
        );
        // One in the middle of its stop, and one that has just begun.
        host.supervisor.stop(groups[0]).unwrap();
        let last = host.begin(hanging.sleeper(), policy());
        let pids: Vec<u32> = alone
            .iter()
            .chain(&groups)
            .chain([&last])
            .map(|&id| host.pid(id))
            .collect();
        drop(host);
        for pid in pids {
            assert!(wait_gone(pid, Duration::ZERO), "{}", processes::describe(pid));
        }
    });
}

// More than may be in flight.

#[test]
fn more_hanging_programs_than_may_be_in_flight_hold_up_no_stop() {
    in_both_ways(|mut host| {
        let hanging = Hanging::copy_of("/bin/sleep");
        let up = host.start(sleeper(), policy());
        let (group, ids) = host.add(GroupSpec::new("x", hanging.sleeper()).instances(40).policy(policy()));
        let outcome = host.supervisor.start(group).unwrap();
        assert_eq!((outcome.accepted as usize, outcome.queued as usize), (MOST, 40 - MOST));
        let (calm, others) = host.add(GroupSpec::new("calm", sleeper()).instances(3).policy(policy()));
        assert_eq!(host.supervisor.start(calm).unwrap().queued, 3);
        // A start of what is up is answered at once.
        assert_eq!(host.supervisor.start(up).unwrap().already, 1);
        while host.turn(ms(200)) && host.state(others[0]) == Stopped && host.all_steps().count() < MOST {}
        let in_flight = ids.iter().filter(|&&id| host.is_in_flight(id)).count();
        assert_eq!(in_flight, MOST, "{}", host.story());
        assert!(others.iter().all(|&id| host.state(id) == Stopped));

        assert_eq!(host.supervisor.stop(up).unwrap().accepted, 1);
        host.until_state(up, Stopped);
        let (some, rest) = ids.split_at(8);
        for &id in some {
            assert_eq!(host.supervisor.stop(id).unwrap().accepted, 1);
        }
        host.until("these are stopped", |host| {
            some.iter().all(|&id| host.state(id) == Stopped)
        });

        assert_eq!(host.supervisor.kill(group).unwrap().total(), 40);
        host.until("all are down", |host| ids.iter().all(|&id| host.state(id) == Stopped));
        host.until("the others are up", |host| {
            others.iter().all(|&id| host.state(id) == Running)
        });
        assert!(rest.iter().all(|&id| host.status(id).pending.is_none()));
        host.shut_down();
    });
}

/// The stop of what hangs may wait for the end of the command.
#[test]
fn the_command_after_the_last_run_does_not_wait_for_programs_that_hang() {
    in_both_ways(|mut host| {
        let hanging = Hanging::copy_of("/bin/sleep");
        let crowd = GroupSpec::new("x", hanging.sleeper()).instances(MOST as u32);
        let (crowd, _) = host.add(crowd.policy(policy()));
        let cleaned = |name, policy| {
            let spec = GroupSpec::new(name, sleeper()).after("x").policy(policy);
            spec.after_run(quiet_sh("exit 0"), LONG)
        };
        let groups = [
            ("ended", for_ever().stop(term(Scope::Process, ms(50)))),
            ("up", policy()),
        ];
        let [ended, up] = groups.map(|(name, policy)| host.add(cleaned(name, policy)).1[0]);
        for id in [ended, up] {
            host.supervisor.start(id).unwrap();
            host.until_state(id, Running);
        }
        host.supervisor.start(crowd).unwrap();
        host.supervisor.signal(ended, Signal::KILL).unwrap();
        host.until_state(ended, StateName::CleaningUp);
        assert_eq!(
            host.status(ended).pid,
            None,
            "it waits, as the restart does that follows"
        );
        host.supervisor.stop(ended).unwrap();
        host.until_state(ended, Stopped);
        host.shut_down();
    });
}

#[test]
fn a_restart_of_what_hangs_does_not_wait_for_itself() {
    isolated(|| {
        if cfg!(pidherd_portable) {
            return skipped("the portable path waits for execve");
        }
        let hanging = Hanging::copy_of("/bin/sleep");
        let mut host = host_with(1);
        let spec = || GroupSpec::new("x", hanging.sleeper()).policy(policy());
        let (group, ids) = hang(&mut host, spec());
        assert_eq!(host.supervisor.restart(ids[0]).unwrap().accepted, 1);
        host.until("it is in flight again", |host| host.status(ids[0]).runs == 2);
        host.supervisor.rolling_restart(group, Rolling::default()).unwrap();
        host.until("it is in flight again", |host| host.status(ids[0]).runs == 3);
        // The restart of a process that works waits: it would be down until another spawn may begin.
        hanging.lease.release();
        host.until_state(ids[0], Running);
        let hanging = Hanging::copy_of("/bin/sleep");
        host.until("the roll is over", |host| {
            host.events.iter().any(|event| matches!(event, Event::Rolled { .. }))
        });
        let (_, others) = hang(&mut host, GroupSpec::new("y", hanging.sleeper()).policy(policy()));
        assert_eq!(host.supervisor.restart(ids[0]).unwrap().queued, 1);
        assert_eq!(host.state(ids[0]), Running);
        host.supervisor.kill(others[0]).unwrap();
        host.until("it was restarted", |host| {
            host.status(ids[0]).runs == 4 && host.state(ids[0]) == Running
        });
    });
}

#[test]
fn processes_that_end_again_and_again_keep_no_other_from_its_start() {
    isolated(|| {
        for most in [1, 4] {
            let mut host = host_with(most);
            let (storm, ids) = host.add(
                GroupSpec::new("storm", quiet_sh("exit 1"))
                    .instances(20)
                    .policy(for_ever()),
            );
            host.supervisor.start(storm).unwrap();
            host.until("each has run twice", |host| {
                ids.iter().all(|&id| host.status(id).runs > 1)
            });
            let (_, calm) = host.add(GroupSpec::new("calm", sleeper()).policy(at_once()));
            host.supervisor.start(calm[0]).unwrap();
            host.until_state(calm[0], Running);
        }
    });
}

#[test]
fn one_spawn_in_flight_is_enough_and_none_means_that_each_spawn_waits() {
    isolated(|| {
        let mut host = host_with(1);
        let (group, ids) = host.add(GroupSpec::new("x", sleeper()).instances(50).policy(at_once()));
        host.supervisor.start(group).unwrap();
        while ids.iter().any(|&id| host.state(id) != Running) {
            assert!(host.turn(SOON));
            assert!(ids.iter().filter(|&&id| host.is_in_flight(id)).count() <= 1);
        }
        let mut host = host_with(0);
        let (group, ids) = host.add(GroupSpec::new("x", sleeper()).instances(50).policy(at_once()));
        host.supervisor.start(group).unwrap();
        assert!(ids.iter().all(|&id| host.state(id) == Running));
    });
}

#[test]
fn a_restart_that_waits_for_its_spawn_is_told_with_its_process_or_withdrawn() {
    isolated(|| {
        if cfg!(pidherd_portable) {
            return skipped("the portable path waits for execve");
        }
        for withdrawn in [false, true] {
            let hanging = Hanging::copy_of("/bin/sleep");
            let mut host = host_with(1);
            let id = host.start(sh("read go; exit 3"), for_ever());
            let (_, others) = hang(&mut host, GroupSpec::new("hanging", hanging.sleeper()).policy(policy()));
            host.go_on(id);
            host.until("its restart waits", |host| host.status(id).runs == 2);
            let status = host.status(id);
            assert!(matches!(status.state, State::Starting { pid: None, .. }), "{status:?}");
            assert_eq!((status.pid, status.last_exit.unwrap().exit.code()), (None, Some(3)));
            assert_eq!(host.states(id), [Starting, Running, Exited]);
            if withdrawn {
                let before = host.status(id).started_at;
                assert_eq!(host.supervisor.stop(id).unwrap().accepted, 1);
                host.take_events();
                assert_eq!(host.states(id), [Starting, Running, Exited, Starting, Stopped]);
                let step = host.steps(id)[3];
                assert_eq!((step.pid, step.run), (None, 2));
                let run = host.supervisor.runs(id).last().unwrap();
                assert_eq!((run.number, run.pid, &run.end), (2, None, &End::Stopped));
                assert_eq!(Some(run.started_at), before);
                assert!(run.lasted < SOON * patience());
            } else {
                host.supervisor.kill(others[0]).unwrap();
                host.until_state(id, Running);
                let step = host.steps(id)[3];
                assert_eq!((step.to, step.pid, step.run), (Starting, host.status(id).pid, 2));
                assert_eq!(step.cause, Cause::Restart);
            }
            host.shut_down();
        }
    });
}

#[test]
fn a_start_that_is_withdrawn_tells_why() {
    isolated(|| {
        if cfg!(pidherd_portable) {
            return skipped("the portable path waits for execve");
        }
        if !Lease::is_possible() {
            return;
        }
        let hanging = Hanging::copy_of("/bin/sleep");
        let mut host = host_with(1);
        let policy_of_jobs = for_ever().restart(Restart::OnUnexpected);
        let jobs = GroupSpec::new("job", sh("read code; exit $code")).policy(policy_of_jobs);
        let (group, ids) = host.add(jobs.instances(3).auto_shutdown(AutoShutdown::AnyEnd));
        host.start_these(group);
        let (_, others) = hang(&mut host, GroupSpec::new("hanging", hanging.sleeper()).policy(policy()));
        // One ends as its policy expects it, while the restart of another one waits for its spawn.
        host.write(ids[1], b"1\n");
        host.until("its restart waits", |host| host.status(ids[1]).runs == 2);
        host.write(ids[0], b"0\n");
        host.until_state(ids[1], Stopped);
        assert_eq!(host.steps(ids[1]).last().unwrap().cause, Cause::SiblingEnded);
        host.supervisor.kill(others[0]).unwrap();
        host.shut_down();
    });
}

#[test]
fn a_rolling_restart_ends_when_the_start_that_it_waits_for_is_replaced_by_a_stop() {
    isolated(|| {
        if cfg!(pidherd_portable) {
            return skipped("the portable path waits for execve");
        }
        if !Lease::is_possible() {
            return;
        }
        for kills in [false, true] {
            let hanging = Hanging::copy_of("/bin/sleep");
            let mut host = host_with(1);
            let (group, ids) = host.add(GroupSpec::new("x", sleeper()).policy(policy()).instances(2));
            host.start_these(group);
            let (_, others) = hang(&mut host, GroupSpec::new("hanging", hanging.sleeper()).policy(policy()));
            // The additional instance waits until the other spawn is over.
            let rolling = Rolling::new().surge(1);
            host.supervisor.rolling_restart(group, rolling).unwrap();
            let more = host.supervisor.group(group).unwrap().instances[2];
            assert!(host.status(more).pending.is_some());
            if kills {
                host.supervisor.kill(group).unwrap();
            } else {
                host.supervisor.stop(group).unwrap();
            }
            host.until("the rolling restart is over", |host| {
                let is_it = |event: &Event| matches!(event, Event::Rolled { failed, .. } if *failed == Some(more));
                host.events.iter().any(is_it)
            });
            ids.iter().for_each(|&id| host.until_state(id, Stopped));
            assert!(host.supervisor.status(more).is_none());
            host.supervisor.scale(group, 1).unwrap();
            host.supervisor.kill(others[0]).unwrap();
            host.shut_down();
        }
    });
}

// Ends before the program.

#[test]
fn a_process_that_is_killed_before_execve_is_a_failed_start_and_not_a_run() {
    in_both_ways(|mut host| {
        let hanging = Hanging::copy_of("/bin/sleep");
        let retried = for_ever()
            .start_retries(1)
            .backoff(Delay::Fixed(ms(10)))
            .crash_budget(Some(CrashBudget { max: 0, window: LONG }));
        let (_, ids) = hang(&mut host, GroupSpec::new("x", hanging.sleeper()).policy(retried));
        for failed in [1, 2] {
            host.until("it is in flight", |host| {
                host.is_in_flight(ids[0]) && host.status(ids[0]).pid.is_some()
            });
            host.supervisor.signal(ids[0], Signal::KILL).unwrap();
            host.until("its start has failed", |host| {
                host.status(ids[0]).failed_starts == failed
            });
        }
        assert_eq!(host.states(ids[0]), [Starting, Backoff, Starting, Backoff, Fatal]);
        assert_eq!(host.status(ids[0]).restarts, 0);
        let step = host.steps(ids[0])[1];
        let killed = step.exit.unwrap();
        assert_eq!(step.cause, Cause::Failed(Failure::Ended(killed.exit)));
        assert_eq!((killed.exit.signal(), step.pid), (Some(Signal::KILL), Some(killed.pid)));
        let run = host.supervisor.runs(ids[0]).last().unwrap();
        assert_eq!(run.end, End::KilledFromOutside(Signal::KILL));
    });
}

/// A script in this directory, and its interpreter there, which is a copy of the shell.
fn script_with_interpreter(directory: &TempDir) -> (PathBuf, PathBuf) {
    let interpreter = directory.join("interpreter");
    fs::copy("/bin/sh", &interpreter).unwrap();
    let script = directory.join("script");
    fs::write(&script, format!("#!{}\nsleep 1000\n", interpreter.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    (script, interpreter)
}

/// Lets a start fail late: while its execve hangs, the interpreter of its script is changed.
fn fails_late(host: &mut Host, change: impl FnOnce(&PathBuf), errno: i32) {
    let directory = tempdir();
    let (script, interpreter) = script_with_interpreter(&directory);
    let hanging = Hanging::at(directory, script);
    let once = policy().start_retries(0);
    let (_, ids) = hang(host, GroupSpec::new("", Command::new(&hanging.path)).policy(once));
    let pid = host.status(ids[0]).pid;
    change(&interpreter);
    hanging.lease.release();
    host.until_state(ids[0], Fatal);
    assert_eq!(host.states(ids[0]), [Starting, Backoff, Fatal]);
    let step = host.steps(ids[0])[1];
    let error = step.error.clone().unwrap();
    assert_eq!((error.step(), error.errno()), (SpawnStep::Exec, errno), "{error}");
    assert!(matches!(step.cause, Cause::Failed(Failure::Spawn { errno: told, .. }) if told == errno));
    assert_eq!((step.pid, step.exit), (pid, None));
    let status = host.status(ids[0]);
    assert_eq!(
        (status.last_error, status.last_exit, status.pid),
        (Some(error.clone()), None, None)
    );
    let run = host.supervisor.runs(ids[0]).last().unwrap();
    assert_eq!((&run.end, run.exit), (&End::NotSpawned(error), None));
    assert!(wait_gone(pid.unwrap().as_raw(), Duration::ZERO), "it was reaped");
}

#[test]
fn an_execve_that_fails_late_is_a_failed_start_with_step_and_errno() {
    in_both_ways(|mut host| {
        let forbid = |path: &PathBuf| fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        fails_late(&mut host, forbid, libc::EACCES);
        fails_late(&mut host, |path| fs::write(path, "no program").unwrap(), libc::ENOEXEC);
        fails_late(&mut host, |path| fs::remove_file(path).unwrap(), libc::ENOENT);
    });
}

#[test]
fn a_host_sleeps_while_a_tracer_holds_a_child_whose_execve_has_failed() {
    if !kernel_since(6, 8) {
        return skipped("a tracer cannot attach while execve(2) opens its program (before Linux 6.8)");
    }
    in_both_ways(|mut host| {
        let directory = tempdir();
        let (script, interpreter) = script_with_interpreter(&directory);
        let hanging = Hanging::at(directory, script);
        let once = policy().start_retries(0);
        let (_, ids) = hang(&mut host, GroupSpec::new("x", Command::new(&hanging.path)).policy(once));
        let Some(tracer) = Tracer::attach(host.pid(ids[0])) else {
            return;
        };
        fs::remove_file(&interpreter).unwrap();
        hanging.lease.release();
        let wakeups = wakeups(&mut host, Duration::from_millis(1_500));
        assert!(wakeups < 60, "{wakeups} wakeups");
        assert_eq!(host.state(ids[0]), Starting, "nothing tells how it ended");
        drop(tracer);
        host.until_state(ids[0], Fatal);
        let run = host.supervisor.runs(ids[0]).last().unwrap();
        assert!(matches!(run.end, End::NotSpawned(_)), "{run:?}");
    });
}

#[test]
fn a_stop_meets_an_execve_that_fails_late() {
    in_both_ways(|mut host| {
        let directory = tempdir();
        let (script, interpreter) = script_with_interpreter(&directory);
        let hanging = Hanging::at(directory, script);
        let patient = for_ever().stop(term(Scope::Process, LONG));
        // SIGTERM waits for the end of execve.
        let deaf = Command::new(&hanging.path).ignored_signals([Signal::TERM].into_iter().collect());
        let (_, ids) = hang(&mut host, GroupSpec::new("x", deaf).policy(patient));
        host.supervisor.stop(ids[0]).unwrap();
        assert_eq!(host.state(ids[0]), Stopping);
        fs::remove_file(&interpreter).unwrap();
        hanging.lease.release();
        host.until_state(ids[0], Stopped);
        assert_eq!(host.states(ids[0]), [Starting, Stopping, Stopped]);
        host.nothing_for(ms(30));
    });
}

// Readiness.

#[test]
fn a_hanging_execve_is_no_excuse_for_a_readiness_that_does_not_come() {
    in_both_ways(|mut host| {
        let hanging = Hanging::copy_of("/bin/sleep");
        let silent = policy().startup(Startup::Notify { timeout: ms(150) }).start_retries(0);
        let spec = |name| GroupSpec::new(name, hanging.sleeper()).policy(silent.clone());
        for spec in [spec("a").ready_fd(3), spec("b").notify_socket(true), spec("c")] {
            let (_, ids) = host.add(spec);
            let began = Instant::now();
            host.supervisor.start(ids[0]).unwrap();
            host.until_state(ids[0], Fatal);
            assert!(began.elapsed() >= ms(150));
            assert_eq!(host.states(ids[0]), [Starting, Stopping, Backoff, Fatal]);
            assert_eq!(host.steps(ids[0])[1].cause, Cause::Failed(Failure::StartTimeout));
            assert_eq!(host.supervisor.runs(ids[0]).last().unwrap().end, End::StartTimeout);
        }
    });
}

#[test]
fn a_readiness_in_time_counts_though_the_execution_is_seen_at_the_deadline() {
    in_both_ways(|mut host| {
        let hanging = Hanging::copy_of("/bin/sh");
        // The slower the machine, the longer the time in which it must make the last look and start the program.
        let timeout = ms(1_000) * patience();
        let notify = policy().startup(Startup::Notify { timeout });
        let script = "echo >&3; echo told; read never";
        let command = Command::new(&hanging.path).args(["-c", script]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let (_, ids) = host.add(GroupSpec::new("x", command).policy(notify).ready_fd(3));
        host.supervisor.start(ids[0]).unwrap();
        let due = host.status(ids[0]).state.deadline().unwrap();
        let is_due_in = |host: &Host, time: Duration| due.saturating_duration_since(host.supervisor.now()) < time;
        while !is_due_in(&host, timeout / 5) {
            host.turn(ms(20));
        }
        // A look just before the deadline: the next one comes after it, since this flight has lasted for long.
        wait_until("it is due soon", SOON, || is_due_in(&host, timeout / 16));
        let entries: Vec<_> = host.supervisor.fds().iter().collect();
        for entry in entries {
            host.supervisor.process_token(entry.token).unwrap();
        }
        hanging.lease.release();
        assert_eq!(host.line(ids[0]), "told");
        wait_until("it is due", SOON, || {
            is_due_in(&host, ms(1)) && host.supervisor.now() > due
        });
        host.until("it is over", |host| host.state(ids[0]) != Starting);
        assert_eq!(host.states(ids[0]), [Starting, Running], "{}", host.story());
    });
}

#[test]
fn a_process_that_told_its_readiness_and_ended_in_flight_is_not_already_up() {
    in_both_ways(|mut host| {
        let notify = policy().startup(Startup::Notify { timeout: LONG });
        let spec = GroupSpec::new("x", quiet_sh("echo >&3; exit 5"))
            .policy(notify)
            .ready_fd(3);
        let (_, ids) = host.add(spec);
        host.supervisor.start(ids[0]).unwrap();
        let pid = host.pid(ids[0]);
        wait_until("it has ended", SOON, || processes::state(pid) == Some('Z'));
        assert_eq!(host.supervisor.start(ids[0]).unwrap().accepted, 1);
        assert_eq!(host.status(ids[0]).runs, 2);
        host.take_events();
        assert_eq!(host.states(ids[0])[..4], [Starting, Running, Exited, Starting]);
        host.until_state(ids[0], Exited);
    });
}

#[test]
fn a_host_reports_readiness_of_a_process_in_flight() {
    in_both_ways(|mut host| {
        let hanging = Hanging::copy_of("/bin/sleep");
        let notify = policy().startup(Startup::Notify { timeout: LONG });
        let (_, ids) = hang(&mut host, GroupSpec::new("x", hanging.sleeper()).policy(notify));
        host.supervisor.report_ready(ids[0]).unwrap();
        host.take_events();
        assert_eq!(host.states(ids[0]), [Starting, Running]);
        hanging.lease.release();
        // That it is executed changes nothing any more.
        while host.turn(ms(150)) {}
        assert_eq!(host.states(ids[0]), [Starting, Running]);
        host.supervisor.kill(Target::All).unwrap();
        host.until_state(ids[0], Stopped);
    });
}
