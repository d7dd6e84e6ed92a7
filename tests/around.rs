//! Commands before and after a run.

mod common;
mod host;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use StateName::{Backoff, CleaningUp, Exited, Fatal, Preparing, Running, Starting, Stopped, Stopping};
use common::{SOON, isolated, processes, root_or_skip, tempdir, test_cgroup, wait_until};
use host::{Host, LONG, at_once, builder, for_ever, ms, quiet_sh, sh, sleeper, term};
use pidherd::cgroup::CgroupDir;
use pidherd::exit::Exit;
use pidherd::group::Effect;
use pidherd::lifecycle::{
    Cause, CommandFailure, Delay, Failure, Policy, PolicyError, Restart, Scope, Startup, StateName, StopLadder, Wanted,
};
use pidherd::supervisor::{End, SpecError};
use pidherd::{Command, Error, Event, GroupSpec, InstanceId, Signal, Stdio};

fn start(host: &mut Host, spec: GroupSpec) -> InstanceId {
    let (group, instances) = host.add(spec);
    host.supervisor.start(group).unwrap();
    instances[0]
}

fn group(program: Command) -> GroupSpec {
    GroupSpec::new("web", program).policy(at_once())
}

/// A command that writes these variables of its environment to a file, one line for each time it runs.
fn writes(to: &Path) -> Command {
    let variables = "$PIDHERD_GROUP $PIDHERD_INSTANCE $SERVICE_RESULT ${EXIT_CODE-} ${EXIT_STATUS-} ${MAINPID-none}";
    quiet_sh(&format!("echo {variables} >>{}", to.display()))
}

/// A command that stays until it is stopped.
fn stays() -> Command {
    Command::new("/bin/sleep").arg("1000")
}

fn failures(host: &Host) -> Vec<CommandFailure> {
    let failures = host.events.iter().filter_map(|event| match event {
        Event::CommandFailed { failure, .. } => Some(*failure),
        _ => None,
    });
    failures.collect()
}

/// The text of a file, or nothing.
fn text(path: &PathBuf) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

const KILLED: Exit = Exit::Signal {
    signal: Signal::KILL,
    core: false,
};

#[test]
fn the_program_starts_when_the_command_before_it_has_succeeded() {
    isolated(|| {
        let directory = tempdir();
        let (made, go_on) = (directory.join("made"), directory.join("go-on"));
        let before = format!(
            "while ! test -e {}; do sleep .01; done; touch {}",
            go_on.display(),
            made.display()
        );
        let program = sh(&format!("test -e {} && echo prepared; read never", made.display()));
        let mut host = Host::new();
        let id = start(&mut host, group(program).before_run(quiet_sh(&before), LONG));
        let status = host.status(id);
        assert_eq!(
            (status.state.name(), status.runs, status.wanted),
            (Preparing, 1, Wanted::Up)
        );
        let command = host.pid(id);
        assert!(processes::children().contains(&command));
        for _ in 0..5 {
            host.turn(ms(10));
        }
        assert_eq!((host.state(id), host.pid(id)), (Preparing, command));
        fs::write(&go_on, "").unwrap();
        host.until_state(id, Running);
        assert_ne!(host.pid(id), command);
        assert_eq!(host.line(id), "prepared");
        assert_eq!(host.states(id), [Preparing, Starting, Running]);
        let steps = host.steps(id);
        assert_eq!(steps.iter().map(|step| step.run).collect::<Vec<_>>(), [1, 1, 1]);
        assert_eq!(steps[0].pid.map(|pid| pid.as_raw()), Some(command));
        assert_eq!(steps[1].cause, Cause::Prepared);
        assert_eq!(steps[1].pid, host.status(id).pid);
        host.shut_down();
        assert_eq!(host.status(id).runs, 1);
    });
}

/// The policy of a group that tries twice, at once.
fn twice() -> Policy {
    at_once().start_retries(1).backoff(Delay::NONE)
}

#[test]
fn a_failed_command_before_a_run_is_a_failed_start_with_its_cause() {
    isolated(|| {
        let missing = CommandFailure::Spawn {
            errno: libc::ENOENT,
            permanent: true,
        };
        for (command, limit, failure) in [
            (quiet_sh("exit 3"), LONG, CommandFailure::Ended(Exit::Code(3))),
            (quiet_sh("kill -KILL $$"), LONG, CommandFailure::Ended(KILLED)),
            (stays(), ms(30), CommandFailure::TimedOut),
            (Command::new("/nowhere/at/all"), LONG, missing),
        ] {
            let mut host = Host::new();
            let spec = group(sh("echo started")).policy(twice()).before_run(command, limit);
            let id = start(&mut host, spec);
            host.until_state(id, Fatal);
            let states = host.states(id);
            assert!(
                !states.contains(&Starting) && !states.contains(&CleaningUp),
                "{states:?}"
            );
            assert_eq!(states.iter().filter(|&&state| state == Preparing).count(), 2);
            let status = host.status(id);
            assert_eq!((status.runs, status.failed_starts, status.pid), (2, 2, None));
            let failed = |step: &&&pidherd::supervisor::TransitionEvent| step.to == Backoff;
            for step in host.steps(id).iter().filter(failed) {
                assert_eq!(step.cause, Cause::Failed(Failure::Before(failure)));
                assert_eq!(step.error.is_some(), failure == missing);
                assert_eq!(step.exit, None);
            }
            let is_it = |run: pidherd::supervisor::Run| run.end == End::BeforeFailed(failure) && run.pid.is_none();
            assert!(host.supervisor.runs(id).all(is_it));
            host.shut_down();
        }
    });
}

#[test]
fn the_command_after_a_run_is_told_how_the_run_has_ended() {
    isolated(|| {
        let directory = tempdir();
        let file = directory.join("told");
        let deaf = sh("trap '' TERM; echo ready; read never");
        let stop = |host: &mut Host, id| assert_eq!(host.supervisor.stop(id).unwrap().accepted, 1);
        let kill = |host: &mut Host, id| assert_eq!(host.supervisor.kill(id).unwrap().accepted, 1);
        let signal = |host: &mut Host, id| assert_eq!(host.supervisor.signal(id, Signal::USR1).unwrap().accepted, 1);
        let wait = |_: &mut Host, _| ();
        type Deed<'a> = &'a dyn Fn(&mut Host, InstanceId);
        let cases: [(Command, Deed<'_>, &str, StateName); 6] = [
            (sh("echo ready"), &wait, "success exited 0", Exited),
            (sh("echo ready; exit 3"), &wait, "exit-code exited 3", Exited),
            (sh("echo ready; read never"), &signal, "signal killed USR1", Exited),
            (sh("echo ready; exec sleep 1000"), &stop, "success killed TERM", Stopped),
            (sh("echo ready; exec sleep 1000"), &kill, "success killed KILL", Stopped),
            (deaf, &stop, "timeout killed KILL", Stopped),
        ];
        for (program, deed, expected, last) in cases {
            let _none = fs::remove_file(&file);
            let mut host = Host::new();
            let spec = group(program).stop(term(Scope::Process, ms(50)));
            let id = start(&mut host, spec.after_run(writes(&file), LONG));
            assert_eq!(host.line(id), "ready");
            deed(&mut host, id);
            host.until_state(id, last);
            assert_eq!(text(&file), format!("web 0 {expected} none\n"));
            let states = host.states(id);
            assert_eq!(states[states.len() - 2..], [CleaningUp, last]);
            let (cleaning, step) = (states.len() - 2, host.steps(id));
            assert!(step[cleaning].exit.is_some() && step[cleaning + 1].exit.is_none());
            assert_eq!(step[cleaning].pid, step[cleaning].exit.map(|record| record.pid));
            assert_ne!(step[cleaning].pid, step[cleaning + 1].pid);
            assert_eq!(failures(&host), []);
            host.shut_down();
        }
    });
}

#[test]
fn the_command_after_a_run_follows_a_failed_command_before_it() {
    isolated(|| {
        let directory = tempdir();
        let file = directory.join("told");
        let policy = twice().start_retries(0);
        for (before, limit, expected) in [
            (quiet_sh("exit 7"), LONG, "exit-code exited 7"),
            (stays(), ms(30), "timeout killed TERM"),
        ] {
            let _none = fs::remove_file(&file);
            let mut host = Host::new();
            let spec = group(sleeper()).policy(policy.clone());
            let id = start(&mut host, spec.before_run(before, limit).after_run(writes(&file), LONG));
            host.until_state(id, Fatal);
            // The exit status of a command that was stopped is told too, if it is known.
            assert!(
                text(&file).contains(expected.split(' ').next().unwrap()),
                "{}",
                text(&file)
            );
            let states = host.states(id);
            assert_eq!(states[states.len() - 3..], [CleaningUp, Backoff, Fatal], "{states:?}");
            host.shut_down();
        }
        // What could not be spawned has left nothing.
        let _none = fs::remove_file(&file);
        let mut host = Host::new();
        let spec = group(sleeper())
            .policy(policy.clone())
            .before_run(Command::new("/nowhere"), LONG);
        let id = start(&mut host, spec.after_run(writes(&file), LONG));
        host.until_state(id, Fatal);
        assert!(!file.exists());
        // The command before the run may have left something.
        let spec = GroupSpec::new("two", Command::new("/nowhere")).policy(policy);
        let spec = spec.before_run(quiet_sh("exit 0"), LONG).after_run(writes(&file), LONG);
        let id = start(&mut host, spec);
        host.until_state(id, Fatal);
        assert_eq!(text(&file), "two 0 resources none\n");
        assert_eq!(host.states(id), [Preparing, Starting, CleaningUp, Backoff, Fatal]);
        host.shut_down();
    });
}

#[test]
fn a_failed_command_after_a_run_is_reported_and_changes_nothing() {
    isolated(|| {
        let missing = CommandFailure::Spawn {
            errno: libc::ENOENT,
            permanent: true,
        };
        for (after, limit, failure) in [
            (quiet_sh("exit 4"), LONG, CommandFailure::Ended(Exit::Code(4))),
            (quiet_sh("kill -KILL $$"), LONG, CommandFailure::Ended(KILLED)),
            (stays(), ms(30), CommandFailure::TimedOut),
            (quiet_sh("trap '' TERM; sleep 1000"), ms(30), CommandFailure::TimedOut),
            (Command::new("/nowhere/at/all"), LONG, missing),
        ] {
            let mut host = Host::new();
            let spec = group(quiet_sh("exit 0")).stop(term(Scope::ProcessGroup, ms(30)));
            let id = start(&mut host, spec.after_run(after, limit));
            host.until_state(id, Exited);
            assert_eq!(failures(&host), [failure]);
            let reported = host.events.iter().find_map(|event| match event {
                Event::CommandFailed { run, pid, error, .. } => Some((*run, pid.is_some(), error.is_some())),
                _ => None,
            });
            assert_eq!(
                reported,
                Some((
                    1,
                    failure != missing || host::spawns_in_flight() > 0,
                    failure == missing
                ))
            );
            assert_eq!(host.states(id), [Starting, Running, CleaningUp, Exited]);
            assert_eq!(host.supervisor.runs(id).next().unwrap().end, End::Exited(0));
            assert!(host.status(id).last_error.is_none());
            host.shut_down();
        }
    });
}

#[test]
fn the_policy_decides_after_the_command_after_the_run() {
    isolated(|| {
        let directory = tempdir();
        let file = directory.join("told");
        let mut host = Host::new();
        let spec = group(sleeper()).policy(for_ever());
        let id = start(
            &mut host,
            spec.before_run(quiet_sh("exit 0"), LONG).after_run(writes(&file), LONG),
        );
        for run in 1..=3 {
            host.until("it runs", |host| {
                host.state(id) == Running && host.status(id).runs == run
            });
            host.supervisor.signal(id, Signal::KILL).unwrap();
        }
        host.until("it runs again", |host| {
            host.state(id) == Running && host.status(id).runs == 4
        });
        assert_eq!(text(&file), "web 0 signal killed KILL none\n".repeat(3));
        let first_runs = [
            Preparing, Starting, Running, CleaningUp, Exited, Preparing, Starting, Running,
        ];
        assert_eq!(host.states(id)[..8], first_runs);
        host.shut_down();
    });
}

#[test]
fn a_stop_ends_the_command_before_the_run_and_the_run_never_starts() {
    isolated(|| {
        let directory = tempdir();
        let file = directory.join("told");
        for kills in [false, true] {
            let _none = fs::remove_file(&file);
            let mut host = Host::new();
            let spec = group(sh("echo started"))
                .before_run(stays(), LONG)
                .after_run(writes(&file), LONG);
            let id = start(&mut host, spec);
            let command = host.pid(id);
            host::wait_for_sleep(command);
            if kills {
                host.supervisor.kill(id).unwrap();
            } else {
                host.supervisor.stop(id).unwrap();
            }
            host.until_state(id, Stopped);
            assert_eq!(processes::state(command), None);
            assert_eq!(host.states(id), [Preparing, Stopping, CleaningUp, Stopped]);
            let signal = if kills { "KILL" } else { "TERM" };
            assert_eq!(text(&file), format!("web 0 success killed {signal} none\n"));
            assert_eq!(host.supervisor.runs(id).next().unwrap().end, End::Stopped);
            host.shut_down();
        }
    });
}

#[test]
fn requests_during_the_command_after_a_run_are_remembered() {
    isolated(|| {
        let directory = tempdir();
        let go_on = directory.join("go-on");
        let waits = quiet_sh(&format!("while ! test -e {}; do sleep .01; done", go_on.display()));
        for (request, last) in [("start", Running), ("restart", Running), ("stop", Stopped)] {
            let _none = fs::remove_file(&go_on);
            let mut host = Host::new();
            let id = start(&mut host, group(sleeper()).after_run(waits.clone(), LONG));
            host.until_state(id, Running);
            host.supervisor.signal(id, Signal::KILL).unwrap();
            host.until_state(id, CleaningUp);
            let command = host.pid(id);
            match request {
                "start" => host.supervisor.start(id),
                "restart" => host.supervisor.restart(id),
                _ => host.supervisor.stop(id),
            }
            .unwrap();
            for _ in 0..5 {
                host.turn(ms(10));
            }
            assert_eq!((host.state(id), host.pid(id)), (CleaningUp, command));
            fs::write(&go_on, "").unwrap();
            host.until_state(id, last);
            assert_eq!(failures(&host), []);
            host.supervisor.shutdown().unwrap();
            host.until("all is down", |host| host.supervisor.is_down());
        }
        // A kill ends the command.
        let mut host = Host::new();
        let id = start(&mut host, group(sleeper()).after_run(stays(), LONG));
        host.until_state(id, Running);
        host.supervisor.stop(id).unwrap();
        host.until_state(id, CleaningUp);
        host.supervisor.kill(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(failures(&host), [CommandFailure::Ended(KILLED)]);
        host.shut_down();
    });
}

#[test]
fn a_restart_runs_all_commands_again() {
    isolated(|| {
        let directory = tempdir();
        let file = directory.join("told");
        let line = |word: &str| quiet_sh(&format!("echo {word} >>{}", file.display()));
        let mut host = Host::new();
        let spec = group(sleeper())
            .before_run(line("before"), LONG)
            .after_run(line("after"), LONG);
        let id = start(&mut host, spec);
        host.until_state(id, Running);
        host.supervisor.restart(id).unwrap();
        host.until("it runs again", |host| {
            host.status(id).runs == 2 && host.state(id) == Running
        });
        assert_eq!(text(&file), "before\nafter\nbefore\n");
        assert_eq!(
            host.states(id)[3..],
            [Stopping, CleaningUp, Preparing, Starting, Running]
        );
        host.shut_down();
        assert_eq!(text(&file), "before\nafter\nbefore\nafter\n");
    });
}

#[test]
fn a_shutdown_waits_for_the_commands_after_the_runs_within_their_limits() {
    isolated(|| {
        let mut host = Host::new();
        let spec = group(sleeper()).instances(3).after_run(quiet_sh("sleep .2"), LONG);
        let (group, ids) = host.add(spec);
        let endless = GroupSpec::new("endless", sleeper())
            .policy(at_once())
            .after_run(stays(), ms(50));
        let (other, others) = host.add(endless);
        host.start_these(group);
        host.start_these(other);
        let began = Instant::now();
        host.shut_down();
        assert!(began.elapsed() >= ms(200));
        assert!(
            ids.iter()
                .all(|&id| host.states(id).ends_with(&[Stopping, CleaningUp, Stopped]))
        );
        assert_eq!(failures(&host), [CommandFailure::TimedOut]);
        assert!(host.states(others[0]).ends_with(&[CleaningUp, Stopped]));
    });
}

#[test]
fn a_drop_in_any_phase_leaves_no_process() {
    isolated(|| {
        for phase in [Preparing, Stopping, CleaningUp] {
            let mut host = Host::new();
            let deaf = quiet_sh("trap '' TERM; while :; do sleep 1000; done");
            let spec = group(sleeper()).stop(term(Scope::ProcessGroup, LONG));
            let spec = match phase {
                CleaningUp => spec.after_run(deaf, LONG),
                _ => spec.before_run(deaf, LONG),
            };
            let id = start(&mut host, spec);
            match phase {
                CleaningUp => host.until_state(id, Running),
                _ => wait_until("it is deaf", SOON, || !processes::children_of(host.pid(id)).is_empty()),
            }
            if phase != Preparing {
                host.supervisor.stop(id).unwrap();
            }
            host.until_state(id, phase);
            let command = host.pid(id);
            drop(host);
            assert_eq!(processes::state(command), None);
        }
    });
}

#[test]
fn what_the_command_before_a_run_leaves_in_its_group_is_killed_before_the_program_starts() {
    isolated(|| {
        let directory = tempdir();
        let file = directory.join("pid");
        let leaves = quiet_sh(&format!("sleep 1000 & echo $! >{}", file.display()));
        let mut host = Host::new();
        let spec = group(sleeper())
            .stop(term(Scope::ProcessGroup, LONG))
            .before_run(leaves, LONG);
        let id = start(&mut host, spec);
        host.until_state(id, Running);
        let left = text(&file).trim().parse().unwrap();
        assert!(matches!(processes::state(left), None | Some('Z')));
        assert_eq!(host.states(id), [Preparing, Starting, Running]);
        host.shut_down();
    });
}

#[test]
fn the_commands_have_the_cgroup_of_the_run_and_leave_nothing_in_it() {
    if !root_or_skip("cgroups") {
        return;
    }
    isolated(|| {
        let Some(cgroup) = test_cgroup() else { return };
        let directory = tempdir();
        let file = directory.join("where");
        let tells = |word: &str| {
            let leaves = "setsid sleep 1000 >/dev/null 2>&1 </dev/null & ";
            quiet_sh(&format!(
                "{leaves} echo {word} $(cat /proc/self/cgroup) >>{}",
                file.display()
            ))
        };
        let mut host = Host::new();
        let spec = group(sleeper())
            .cgroup(CgroupDir::open(cgroup.path()).unwrap())
            .stop(term(Scope::Cgroup, LONG))
            .before_run(tells("before"), LONG)
            .after_run(tells("after"), LONG);
        let id = start(&mut host, spec);
        host.until_state(id, Running);
        let leaves = || {
            let entries = fs::read_dir(cgroup.path()).unwrap().flatten();
            entries.filter(|entry| entry.path().is_dir()).count()
        };
        host.until("only the cgroup of the run is left", |_| leaves() == 1);
        host.shut_down();
        host.until("no cgroup is left", |_| leaves() == 0);
        let told = text(&file);
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), 2, "{told}");
        assert!(lines.iter().all(|line| line.contains("/web-0")), "{told}");
    });
}

#[test]
fn a_reload_changes_the_commands_from_their_next_use_on() {
    isolated(|| {
        let directory = tempdir();
        let file = directory.join("told");
        let line = |word: &str| quiet_sh(&format!("echo {word} >>{}", file.display()));
        let mut host = Host::new();
        let spec = |before: &str, after: &str| {
            group(sleeper())
                .before_run(line(before), LONG)
                .after_run(line(after), LONG)
        };
        let (group, ids) = host.add(spec("a", "b"));
        host.supervisor.start(group).unwrap();
        host.until_state(ids[0], Running);
        let pid = host.pid(ids[0]);
        let same = host.supervisor.plan_reload(group, &spec("a", "b")).unwrap();
        assert!(same.instances.is_empty() && !same.policy);
        let plan = host.supervisor.reload(group, spec("c", "d")).unwrap();
        assert_eq!(plan.instances, [(0, Effect::AtNextStart)]);
        assert_eq!(host.pid(ids[0]), pid);
        host.supervisor.restart(group).unwrap();
        host.until("it runs again", |host| {
            host.status(ids[0]).runs == 2 && host.state(ids[0]) == Running
        });
        assert_eq!(text(&file), "a\nd\nc\n");
        // Another limit alone is a change of the policy.
        let other = self::group(sleeper())
            .before_run(line("c"), ms(77))
            .after_run(line("d"), LONG);
        let plan = host.supervisor.reload(group, other).unwrap();
        assert!(plan.policy && plan.instances.is_empty());
        // Without them, a run has none.
        host.supervisor.reload(group, self::group(sleeper())).unwrap();
        host.supervisor.restart(group).unwrap();
        host.until("it runs again", |host| {
            host.status(ids[0]).runs == 3 && host.state(ids[0]) == Running
        });
        assert_eq!(text(&file), "a\nd\nc\n");
        host.shut_down();
        assert!(host.states(ids[0]).ends_with(&[Starting, Running, Stopping, Stopped]));
    });
}

#[test]
fn commands_that_cannot_work_are_refused() {
    isolated(|| {
        let mut host = Host::new();
        let mut refused = |spec: GroupSpec| match host.supervisor.add(spec) {
            Err(Error::Spec(error)) => error,
            other => panic!("{other:?}"),
        };
        let zero = Duration::ZERO;
        for spec in [
            group(sleeper()).before_run(stays(), zero),
            group(sleeper()).after_run(stays(), zero),
        ] {
            assert!(matches!(refused(spec), SpecError::Policy(PolicyError::CommandLimit)));
        }
        let piped = refused(group(sleeper()).before_run(stays().stdout(Stdio::piped()), LONG));
        assert_eq!(
            piped.to_string(),
            "the command before the run cannot have a piped descriptor: nothing would read it"
        );
        let empty = refused(group(sleeper()).after_run(Command::new(""), LONG));
        assert!(matches!(empty, SpecError::RunCommand { .. }), "{empty}");
        assert!(empty.to_string().starts_with("the command after the run: "), "{empty}");
        let spec = group(sleeper()).stop(StopLadder::kill(Scope::ProcessGroup));
        let follows = refused(spec.after_run(stays().inherit_process_group(), LONG));
        assert!(
            matches!(follows, SpecError::RunCommandNoProcessGroup { .. }),
            "{follows}"
        );
        assert_eq!(host.supervisor.groups().count(), 0);
    });
}

#[test]
fn a_command_waits_for_its_turn_while_the_maximum_of_spawns_is_in_flight() {
    if host::spawns_in_flight() == 0 {
        return common::skipped("no spawn is in flight");
    }
    isolated(|| {
        let mut host = Host::with(builder().spawns_in_flight(1).build().unwrap());
        let spec = group(sleeper()).instances(20);
        let spec = spec
            .before_run(quiet_sh("exit 0"), LONG)
            .after_run(quiet_sh("exit 0"), LONG);
        let (group, ids) = host.add(spec);
        host.supervisor.start(group).unwrap();
        host.until("all run", |host| ids.iter().all(|&id| host.state(id) == Running));
        host.shut_down();
        for &id in &ids {
            let expected = [Preparing, Starting, Running, Stopping, CleaningUp, Stopped];
            assert_eq!(host.states(id), expected);
        }
        assert_eq!(failures(&host), []);
    });
}

#[test]
fn a_job_is_judged_by_its_own_end() {
    isolated(|| {
        let mut host = Host::new();
        let policy = at_once().startup(Startup::Grace(LONG)).restart(Restart::Never);
        let spec = GroupSpec::new("job", quiet_sh("exit 0")).policy(policy);
        let id = start(&mut host, spec.after_run(quiet_sh("exit 9"), LONG));
        host.until_state(id, Exited);
        assert_eq!(host.states(id), [Starting, CleaningUp, Exited]);
        let exit = Exit::Code(0);
        assert!(
            host.steps(id)[1..]
                .iter()
                .all(|step| step.cause == Cause::Ended { exit, expected: true })
        );
        assert_eq!(failures(&host), [CommandFailure::Ended(Exit::Code(9))]);
        host.shut_down();
    });
}
