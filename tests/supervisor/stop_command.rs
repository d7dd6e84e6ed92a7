//! Stop ladders with commands.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use StateName::{CleaningUp, Fatal, Running, Starting, Stopped, Stopping};
use pidherd::cgroup::CgroupDir;
use pidherd::group::Effect;
use pidherd::lifecycle::{PolicyError, Rung, Scope, Startup, StateName, StopCommandEnd, StopLadder, Wanted};
use pidherd::supervisor::{End, SpecError};
use pidherd::{Command, Error, Event, Exit, GroupSpec, InstanceId, Pid, Signal, Stdio, Target};

use super::common::{SOON, isolated, kernel_since, patience, processes, skipped, tempdir, test_cgroup, wait_until};
use super::host::{Host, LONG, at_once, builder, for_ever, ms, quiet_sh, sh, sleeper, term};

/// A ladder that runs the first command and then waits for this time, and that ends with SIGKILL.
fn first(wait: Duration) -> StopLadder {
    StopLadder::kill(Scope::Process).then_command(0, LONG, wait)
}

fn group(program: Command) -> GroupSpec {
    GroupSpec::new("web", program).policy(at_once())
}

/// Adds a group of one and starts it. Its program has been executed.
fn start(host: &mut Host, spec: GroupSpec) -> InstanceId {
    let (group, instances) = host.add(spec);
    host.start_these(group);
    instances[0]
}

/// What became of the commands, in order.
fn ends(host: &Host) -> Vec<StopCommandEnd> {
    let ends = host.events.iter().filter_map(|event| match event {
        Event::StopCommandEnded { end, .. } => Some(*end),
        _ => None,
    });
    ends.collect()
}

/// The processes of the commands that were started, in order.
fn commands(host: &Host) -> Vec<Pid> {
    let started = host.events.iter().filter_map(|event| match event {
        Event::StopCommandStarted { pid, .. } => Some(*pid),
        _ => None,
    });
    started.collect()
}

fn until_command_runs(host: &mut Host) -> Pid {
    host.until("a command runs", |host| !commands(host).is_empty());
    commands(host)[0]
}

fn last_end(host: &Host, id: InstanceId) -> End {
    host.supervisor.runs(id).last().expect("a run is over").end
}

/// A command that waits until this file is there.
fn waits_for(path: &Path) -> String {
    format!("while ! test -e {}; do sleep .01; done", path.display())
}

/// A program that ends with this code at SIGTERM, and ignores SIGHUP.
const OBEDIENT: &str = "trap '' HUP; trap 'exit 7' TERM; echo ready; while :; do sleep .01; done";

/// A program that ends only of SIGKILL.
const STUBBORN: &str = "trap '' TERM HUP INT; echo ready; while :; do sleep .01; done";

fn start_script(host: &mut Host, script: &str, spec: impl Fn(GroupSpec) -> GroupSpec) -> InstanceId {
    let id = start(host, spec(group(sh(script))));
    assert_eq!(host.line(id), "ready");
    id
}

#[test]
fn a_command_that_knows_the_main_process_stops_it() {
    isolated(|| {
        let directory = tempdir();
        let told = directory.join("told");
        let script = format!(
            "echo $PIDHERD_GROUP $PIDHERD_INSTANCE $MAINPID ${{SERVICE_RESULT-none}} >{}; kill -TERM $MAINPID",
            told.display()
        );
        let mut host = Host::new();
        let id = start_script(&mut host, OBEDIENT, |spec| {
            spec.stop_command(quiet_sh(&script)).stop(first(LONG))
        });
        let pid = host.pid(id);
        host.supervisor.stop(id).unwrap();
        assert_eq!(host.status(id).pid.map(|pid| pid.as_raw()), Some(pid));
        host.until_state(id, Stopped);
        assert_eq!(host.states(id), [Starting, Running, Stopping, Stopped]);
        assert_eq!(ends(&host), [StopCommandEnd::Succeeded]);
        assert_eq!(host.status(id).last_exit.unwrap().exit, Exit::Code(7));
        assert_eq!(last_end(&host, id), End::Stopped);
        assert_eq!(fs::read_to_string(&told).unwrap(), format!("web 0 {pid} none\n"));
        host.shut_down();
    });
}

#[test]
fn after_a_command_that_succeeded_in_vain_the_ladder_waits_and_goes_on() {
    isolated(|| {
        let mut host = Host::new();
        let ladder = first(ms(50)).then(Signal::TERM, Scope::Process, LONG);
        let id = start_script(&mut host, OBEDIENT, |spec| {
            spec.stop_command(Command::new("/bin/true")).stop(ladder.clone())
        });
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(ends(&host), [StopCommandEnd::Succeeded]);
        assert_eq!(host.status(id).last_exit.unwrap().exit, Exit::Code(7));
        host.shut_down();
    });
}

#[test]
fn after_a_command_that_failed_the_next_rung_follows_at_once() {
    isolated(|| {
        let killed = Exit::Signal {
            signal: Signal::KILL,
            core: false,
        };
        let missing = StopCommandEnd::NotSpawned { errno: libc::ENOENT };
        for (command, limit, end) in [
            (quiet_sh("exit 3"), LONG, StopCommandEnd::Failed(Exit::Code(3))),
            (quiet_sh("kill -KILL $$"), LONG, StopCommandEnd::Failed(killed)),
            (Command::new("/nowhere/at/all"), LONG, missing),
            (sleeper(), ms(30), StopCommandEnd::TimedOut),
            (
                quiet_sh("trap '' TERM INT HUP; sleep 1000"),
                ms(30),
                StopCommandEnd::TimedOut,
            ),
        ] {
            let mut host = Host::new();
            // With a wait that would last too long for the test.
            let ladder = StopLadder::kill(Scope::Process)
                .then_command(0, limit, Duration::MAX)
                .then(Signal::TERM, Scope::Process, Duration::MAX);
            let id = start_script(&mut host, OBEDIENT, |spec| {
                spec.stop_command(command.clone()).stop(ladder.clone())
            });
            host.supervisor.stop(id).unwrap();
            host.until_state(id, Stopped);
            assert_eq!(ends(&host), [end]);
            assert_eq!(host.status(id).last_exit.unwrap().exit, Exit::Code(7));
            let errors = host.events.iter().filter(|event| {
                matches!(
                    event,
                    Event::StopCommandEnded {
                        error: Some(_),
                        pid: None,
                        ..
                    }
                )
            });
            assert_eq!(
                errors.count(),
                usize::from(end == missing && commands(&host).is_empty())
            );
            host.shut_down();
        }
    });
}

#[test]
fn what_a_command_has_started_ends_with_it() {
    isolated(|| {
        let directory = tempdir();
        let left = directory.join("left");
        let script = format!("sleep 1000 & echo $! >{}; kill -TERM $MAINPID", left.display());
        let hangs = format!("sleep 1000 & echo $! >{}; wait", left.display());
        for (script, limit) in [(script, LONG), (hangs, ms(200) * patience())] {
            let mut host = Host::new();
            let ladder = StopLadder::kill(Scope::Process).then_command(0, limit, LONG);
            let id = start_script(&mut host, OBEDIENT, |spec| {
                spec.stop_command(quiet_sh(&script)).stop(ladder.clone())
            });
            host.supervisor.stop(id).unwrap();
            host.until_state(id, Stopped);
            let left: u32 = fs::read_to_string(&left).unwrap().trim().parse().unwrap();
            assert_ne!(processes::state(left), Some('S'), "{left} is alive");
            host.shut_down();
        }
    });
}

#[test]
fn a_stop_is_over_when_the_command_has_ended_too() {
    isolated(|| {
        let directory = tempdir();
        let go_on = directory.join("go-on");
        let script = format!("kill -TERM $MAINPID; {}", waits_for(&go_on));
        for scope in [Scope::Process, Scope::ProcessGroup] {
            let _gone = fs::remove_file(&go_on);
            let mut host = Host::new();
            let ladder = StopLadder::kill(scope).then_command(0, LONG, LONG);
            let id = start_script(&mut host, OBEDIENT, |spec| {
                let spec = spec.stop_command(quiet_sh(&script)).stop(ladder.clone());
                spec.after_run(Command::new("/bin/true"), LONG)
            });
            let pid = host.pid(id);
            host.supervisor.stop(id).unwrap();
            host.until("the program has ended", |_| {
                !matches!(processes::state(pid), Some('S' | 'R'))
            });
            for _ in 0..5 {
                host.turn(ms(10));
            }
            assert_eq!((host.state(id), ends(&host)), (Stopping, vec![]));
            fs::write(&go_on, "").unwrap();
            host.until_state(id, Stopped);
            assert_eq!(host.states(id), [Starting, Running, Stopping, CleaningUp, Stopped]);
            assert_eq!(ends(&host), [StopCommandEnd::Succeeded]);
            assert_eq!(host.status(id).last_exit.unwrap().exit, Exit::Code(7));
            host.shut_down();
        }
    });
}

#[test]
fn a_command_keeps_its_limit_when_the_program_has_ended() {
    isolated(|| {
        let mut host = Host::new();
        let ladder = StopLadder::kill(Scope::Process).then_command(0, ms(100) * patience(), LONG);
        let id = start_script(&mut host, OBEDIENT, |spec| {
            spec.stop_command(quiet_sh("kill -TERM $MAINPID; sleep 1000"))
                .stop(ladder.clone())
        });
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(ends(&host), [StopCommandEnd::TimedOut]);
        assert_eq!(last_end(&host, id), End::Stopped);
        host.shut_down();
    });
}

/// Set for a test binary that is the program of an instance.
const EXTENDS: &str = "PIDHERD_TEST_EXTENDS";

#[test]
fn a_program_that_asks_for_more_time() {
    if std::env::var_os(EXTENDS).is_none() {
        return;
    }
    let socket = UnixDatagram::unbound().unwrap();
    let path = std::env::var_os("NOTIFY_SOCKET").unwrap();
    for number in 0.. {
        let message = format!("EXTEND_TIMEOUT_USEC=600000000\nSTATUS={number}");
        socket.send_to(message.as_bytes(), &path).unwrap();
        std::thread::sleep(ms(5));
    }
}

#[test]
fn a_program_can_extend_the_limit_of_the_command_that_stops_it() {
    isolated(|| {
        let directory = tempdir();
        let go_on = directory.join("go-on");
        let limit = ms(300) * patience();
        let script = format!("{}; kill -TERM $MAINPID", waits_for(&go_on));
        let name = "stop_command::a_program_that_asks_for_more_time";
        let program = Command::new(std::env::current_exe().unwrap()).args([name, "--exact", "--test-threads=1"]);
        let program = program.env(EXTENDS, "1").stdout(Stdio::null());
        let mut host = Host::with(builder().notify_path(directory.join("notify")).build().unwrap());
        let ladder = StopLadder::kill(Scope::Process).then_command(0, limit, LONG);
        let spec = group(program).notify_socket(true).stop_command(quiet_sh(&script));
        let id = start(&mut host, spec.stop(ladder));
        let number = |host: &Host| host.status(id).status_text?.parse::<u64>().ok();
        host.until("it asks for more time", |host| number(host).is_some());
        host.supervisor.stop(id).unwrap();
        until_command_runs(&mut host);
        let began = Instant::now();
        let before = number(&host).unwrap();
        host.until("it has asked again", |host| number(host) > Some(before + 1));
        host.until("the limit is over", |_| began.elapsed() > 2 * limit);
        assert_eq!((host.state(id), ends(&host)), (Stopping, vec![]));
        fs::write(&go_on, "").unwrap();
        host.until_state(id, Stopped);
        assert_eq!(ends(&host), [StopCommandEnd::Succeeded]);
        host.shut_down();
    });
}

#[test]
fn a_command_that_ignores_all_signals_is_killed_with_its_program() {
    isolated(|| {
        let mut host = Host::new();
        let ladder = StopLadder::kill(Scope::Process)
            .then_command(0, ms(50), LONG)
            .then(Signal::TERM, Scope::Process, ms(20))
            .then(Signal::INT, Scope::Process, ms(20));
        let id = start_script(&mut host, STUBBORN, |spec| {
            let command = "trap '' HUP INT QUIT TERM USR1 USR2 ALRM; while :; do sleep 1000; done";
            spec.stop_command(quiet_sh(command)).stop(ladder.clone())
        });
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(ends(&host), [StopCommandEnd::TimedOut]);
        assert_eq!(last_end(&host, id), End::StopTimeout);
        host.shut_down();
    });
}

#[test]
fn a_second_stop_begins_no_second_command() {
    isolated(|| {
        let mut host = Host::new();
        let id = start_script(&mut host, OBEDIENT, |spec| {
            spec.stop_command(sleeper()).stop(first(LONG))
        });
        host.supervisor.stop(id).unwrap();
        let command = until_command_runs(&mut host);
        assert_eq!(host.supervisor.stop(id).unwrap().already, 1);
        for _ in 0..5 {
            host.turn(ms(10));
        }
        assert_eq!((commands(&host), ends(&host)), (vec![command], vec![]));
        assert_eq!(host.state(id), Stopping);
        host.supervisor.kill(id).unwrap();
        host.until_state(id, Stopped);
        host.shut_down();
    });
}

#[test]
fn a_kill_ends_the_program_and_the_command() {
    isolated(|| {
        let mut host = Host::new();
        let id = start_script(&mut host, STUBBORN, |spec| {
            let command = quiet_sh("trap '' TERM; sleep 1000 & wait");
            spec.stop_command(command).stop(first(LONG))
        });
        host.supervisor.stop(id).unwrap();
        until_command_runs(&mut host);
        assert_eq!(host.supervisor.kill(id).unwrap().total(), 1);
        host.until_state(id, Stopped);
        assert_eq!(ends(&host), [StopCommandEnd::Killed]);
        assert_eq!(last_end(&host, id), End::Stopped);
        host.shut_down();
    });
}

#[test]
fn a_start_during_a_command_takes_place_after_both_have_ended() {
    isolated(|| {
        let directory = tempdir();
        let go_on = directory.join("go-on");
        let script = format!("{}; kill -TERM $MAINPID", waits_for(&go_on));
        let mut host = Host::new();
        let id = start_script(&mut host, OBEDIENT, |spec| {
            spec.stop_command(quiet_sh(&script)).stop(first(LONG))
        });
        host.supervisor.stop(id).unwrap();
        until_command_runs(&mut host);
        host.supervisor.start(id).unwrap();
        assert_eq!((host.state(id), host.status(id).wanted), (Stopping, Wanted::Up));
        fs::write(&go_on, "").unwrap();
        host.until("it runs again", |host| {
            host.status(id).runs == 2 && host.state(id) == Running
        });
        assert_eq!(ends(&host), [StopCommandEnd::Succeeded]);
        host.shut_down();
    });
}

#[test]
fn each_rung_has_its_own_command() {
    isolated(|| {
        let mut host = Host::new();
        let ladder = StopLadder::kill(Scope::Process)
            .then_command(1, LONG, ms(1))
            .then(Signal::HUP, Scope::Process, ms(1))
            .then_command(0, LONG, LONG);
        let id = start_script(&mut host, OBEDIENT, |spec| {
            spec.stop_command(quiet_sh("kill -TERM $MAINPID"))
                .stop_command(quiet_sh("exit 0"))
                .stop(ladder.clone())
        });
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        let told = host.events.iter().filter_map(|event| match event {
            Event::StopCommandEnded { rung, index, run, .. } => Some((*rung, *index, *run)),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), [(0, 1, 1), (2, 0, 1)]);
        host.shut_down();
    });
}

#[test]
fn one_stop_has_a_ladder_with_a_command_of_its_own() {
    isolated(|| {
        let mut host = Host::new();
        let id = start_script(&mut host, OBEDIENT, |spec| {
            let spec = spec.stop_command(quiet_sh("kill -TERM $MAINPID"));
            spec.stop(StopLadder::signal(Signal::HUP, Scope::Process, LONG))
        });
        let missing = StopLadder::kill(Scope::Process).then_command(1, LONG, LONG);
        match host.supervisor.stop_with(id, &missing) {
            Err(Error::Spec(error)) => assert_eq!(error, SpecError::NoStopCommand { index: 1 }),
            other => panic!("{other:?}"),
        }
        assert_eq!(host.state(id), Running);
        assert_eq!(host.supervisor.stop_with(id, &first(LONG)).unwrap().accepted, 1);
        host.until_state(id, Stopped);
        assert_eq!(ends(&host), [StopCommandEnd::Succeeded]);
        assert_eq!(host.supervisor.instances().count(), 1);
        host.shut_down();
    });
}

#[test]
fn a_missed_watchdog_can_be_answered_by_a_command() {
    isolated(|| {
        let mut host = Host::new();
        let policy = at_once().watchdog(Some(ms(50))).watchdog_stop(Some(first(LONG)));
        let id = start_script(&mut host, OBEDIENT, |spec| {
            let spec = spec.policy(policy.clone().restart(pidherd::Restart::Never));
            spec.stop_command(quiet_sh("kill -TERM $MAINPID"))
        });
        host.until("it has ended", |host| !host.state(id).is_alive());
        assert_eq!(
            (last_end(&host, id), ends(&host)),
            (End::Watchdog, vec![StopCommandEnd::Succeeded])
        );
        host.shut_down();
    });
}

#[test]
fn a_command_around_a_run_is_not_stopped_by_a_command() {
    isolated(|| {
        let mut host = Host::new();
        let ladder = first(LONG).then(Signal::TERM, Scope::Process, LONG);
        let spec = group(sleeper()).before_run(sleeper(), LONG);
        let spec = spec.stop_command(quiet_sh("kill -KILL $MAINPID")).stop(ladder);
        let (group, instances) = host.add(spec);
        let id = instances[0];
        host.supervisor.start(group).unwrap();
        host.until("the command before the run runs", |host| host.status(id).pid.is_some());
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!((commands(&host), ends(&host)), (vec![], vec![]));
        host.shut_down();
    });
}

#[test]
fn a_process_that_has_ended_already_is_not_stopped_by_a_command() {
    isolated(|| {
        let mut host = Host::new();
        let id = start_script(&mut host, OBEDIENT, |spec| {
            spec.stop_command(sleeper()).stop(first(LONG))
        });
        let pid = host.pid(id);
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid as i32).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        wait_until("it has ended", SOON, || processes::state(pid) == Some('Z'));
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!((commands(&host), ends(&host)), (vec![], vec![]));
        assert_eq!(last_end(&host, id), End::KilledFromOutside(Signal::KILL));
        host.shut_down();
    });
}

/// A program that leaves a process behind, which ignores SIGHUP and ends at SIGTERM.
const LEAVES_A_CHILD: &str =
    "(trap '' HUP; exec sleep 1000) & trap 'exit 7' TERM; echo ready; while :; do sleep .01; done";

#[test]
fn what_a_process_that_has_ended_already_has_left_is_not_stopped_by_a_command() {
    isolated(|| {
        let mut host = Host::new();
        let ladder = StopLadder::kill(Scope::ProcessGroup)
            .then_command(0, LONG, LONG)
            .then(Signal::HUP, Scope::ProcessGroup, ms(1))
            .then_command(0, LONG, LONG)
            .then(Signal::TERM, Scope::ProcessGroup, LONG);
        let id = start_script(&mut host, LEAVES_A_CHILD, |spec| {
            spec.stop_command(sleeper()).stop(ladder.clone())
        });
        let pid = host.pid(id);
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid as i32).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        wait_until("it has ended", SOON, || processes::state(pid) == Some('Z'));
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!((commands(&host), ends(&host)), (vec![], vec![]));
        assert_eq!(last_end(&host, id), End::KilledFromOutside(Signal::KILL));
        host.shut_down();
    });
}

#[test]
fn a_command_is_not_told_the_pid_of_a_program_that_has_ended() {
    isolated(|| {
        if !kernel_since(6, 9) {
            skipped(
                "the command waits for the program, which stays a zombie before Linux 6.9 while its group is alive",
            );
            return;
        }
        let directory = tempdir();
        let told = directory.join("told");
        let mut host = Host::new();
        let ladder = StopLadder::kill(Scope::ProcessGroup)
            .then_command(0, LONG, ms(1))
            .then_command(1, LONG, ms(1))
            .then(Signal::TERM, Scope::ProcessGroup, LONG);
        let main = format!(
            "while kill -0 $MAINPID; do kill -TERM $MAINPID; sleep .01; done 2>{}",
            told.display()
        );
        let rest = format!("echo ${{MAINPID-none}} >{}", told.display());
        let id = start_script(&mut host, LEAVES_A_CHILD, |spec| {
            let spec = spec.stop_command(quiet_sh(&main)).stop_command(quiet_sh(&rest));
            spec.stop(ladder.clone())
        });
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(ends(&host), [StopCommandEnd::Succeeded; 2]);
        assert_eq!(fs::read_to_string(&told).unwrap(), "none\n");
        host.shut_down();
    });
}

#[test]
fn a_wrong_command_or_rung_is_refused_before_anything_has_happened() {
    isolated(|| {
        let mut host = Host::new();
        let zero = StopLadder::kill(Scope::Process).rungs([Rung::command(0, Duration::ZERO, LONG)]);
        let spec = |command: Command| group(sleeper()).stop_command(command).stop(first(LONG));
        let piped = Command::new("/bin/true").stdout(Stdio::piped());
        let shared = Command::new("/bin/true").inherit_process_group();
        let part = pidherd::lifecycle::Part::Stop;
        let refused = |spec: GroupSpec, host: &mut Host| match host.supervisor.add(spec) {
            Err(Error::Spec(error)) => error,
            other => panic!("{other:?}"),
        };
        let error = refused(spec(Command::new("/bin/true")).stop(zero), &mut host);
        assert_eq!(error, SpecError::Policy(PolicyError::StopCommandLimit));
        let error = refused(group(sleeper()).stop(first(LONG)), &mut host);
        assert_eq!(error, SpecError::NoStopCommand { index: 0 });
        let error = refused(spec(piped), &mut host);
        assert_eq!(error, SpecError::RunCommandPiped { part });
        let error = refused(spec(shared), &mut host);
        assert_eq!(error, SpecError::RunCommandNoProcessGroup { part });
        for wrong in [
            Command::new("/bin/true").arg("a\0b"),
            Command::new("/bin/true").user("pidherd-no-such-user"),
        ] {
            let error = refused(spec(wrong), &mut host);
            assert!(
                matches!(error, SpecError::RunCommand { part: of, .. } if of == part),
                "{error:?}"
            );
        }
        assert_eq!(host.supervisor.groups().count(), 0);
        assert!(host.events.is_empty());
    });
}

#[test]
fn a_shutdown_and_a_removal_run_the_commands() {
    isolated(|| {
        let mut host = Host::new();
        let spec = || {
            let spec = GroupSpec::new("web", sh(OBEDIENT)).policy(at_once()).instances(3);
            spec.stop_command(quiet_sh("kill -TERM $MAINPID")).stop(first(LONG))
        };
        let (group, ids) = host.add(spec());
        host.start_these(group);
        ids.iter().for_each(|&id| assert_eq!(host.line(id), "ready"));
        assert_eq!(host.supervisor.instances().count(), 3);
        host.supervisor.remove(group).unwrap();
        host.until("the group is gone", |host| host.supervisor.group(group).is_none());
        assert_eq!(ends(&host), [StopCommandEnd::Succeeded; 3]);
        let (group, ids) = host.add(spec());
        host.start_these(group);
        ids.iter().for_each(|&id| assert_eq!(host.line(id), "ready"));
        host.shut_down();
        assert_eq!(ends(&host), [StopCommandEnd::Succeeded; 6]);
    });
}

#[test]
fn a_reload_with_another_command_applies_to_the_next_stop() {
    isolated(|| {
        let mut host = Host::new();
        let spec = |command| group(sh(OBEDIENT)).stop_command(command).stop(first(ms(1)));
        let id = start(&mut host, spec(quiet_sh("exit 1")));
        assert_eq!(host.line(id), "ready");
        let group = host.status(id).group;
        let plan = host
            .supervisor
            .reload(group, spec(quiet_sh("kill -TERM $MAINPID")))
            .unwrap();
        assert_eq!(plan.instances, [(0, Effect::AtNextStart)]);
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(ends(&host), [StopCommandEnd::Succeeded]);
        host.shut_down();
    });
}

#[test]
fn a_command_that_a_reload_has_removed_fails_without_the_error_of_another_one() {
    isolated(|| {
        let mut host = Host::new();
        let ladder = first(LONG)
            .then(Signal::HUP, Scope::Process, ms(1))
            .then_command(1, LONG, LONG)
            .then(Signal::TERM, Scope::Process, LONG);
        let id = start_script(&mut host, OBEDIENT, |spec| {
            // It is no program.
            spec.stop_command(Command::new("/dev/null")).stop_command(sleeper())
        });
        host.supervisor.stop_with(id, &ladder).unwrap();
        host.supervisor
            .reload(host.status(id).group, group(sh(OBEDIENT)))
            .unwrap();
        host.until_state(id, Stopped);
        let told = host.events.iter().filter_map(|event| match event {
            Event::StopCommandEnded { end, error, .. } => Some((*end, error.as_ref().map(pidherd::SpawnError::errno))),
            _ => None,
        });
        let failed = |errno| StopCommandEnd::NotSpawned { errno };
        assert_eq!(
            told.collect::<Vec<_>>(),
            [(failed(libc::EACCES), Some(libc::EACCES)), (failed(libc::ENOENT), None)]
        );
        host.shut_down();
    });
}

#[test]
fn a_failed_start_is_stopped_by_a_command_too() {
    isolated(|| {
        let mut host = Host::new();
        let timeout = ms(50);
        let policy = for_ever()
            .startup(Startup::Completes { timeout })
            .restart(pidherd::Restart::Never);
        let policy = policy.start_retries(0);
        let spec = GroupSpec::new("job", sh(OBEDIENT)).policy(policy);
        let id = start(
            &mut host,
            spec.stop_command(quiet_sh("kill -TERM $MAINPID")).stop(first(LONG)),
        );
        host.until_state(id, Fatal);
        assert_eq!(
            (last_end(&host, id), ends(&host)),
            (End::StartTimeout, vec![StopCommandEnd::Succeeded])
        );
        host.shut_down();
    });
}

#[test]
fn a_stop_by_signals_alone_runs_no_command() {
    isolated(|| {
        let mut host = Host::new();
        let id = start_script(&mut host, OBEDIENT, |spec| {
            spec.stop_command(sleeper()).stop(term(Scope::Process, LONG))
        });
        host.supervisor.stop(Target::All).unwrap();
        host.until_state(id, Stopped);
        assert_eq!((commands(&host), ends(&host)), (vec![], vec![]));
        host.shut_down();
    });
}

#[test]
fn a_frozen_program_is_thawed_for_its_command() {
    isolated(|| {
        let Some(place) = test_cgroup() else { return };
        if !kernel_since(5, 2) {
            return skipped("cgroup.freeze needs Linux 5.2");
        }
        let mut host = Host::new();
        let directory = CgroupDir::open(place.path()).unwrap();
        let ladder = StopLadder::kill(Scope::Cgroup).then_command(0, LONG, LONG);
        // The command is in a cgroup of its own, so it is not frozen with the program.
        let id = start_script(&mut host, OBEDIENT, |spec| {
            let spec = spec.stop_command(quiet_sh(
                "grep -q 'web-0[.]stop$' /proc/self/cgroup && kill -TERM $MAINPID",
            ));
            spec.cgroup(directory.clone()).stop(ladder.clone())
        });
        host.supervisor.freeze(id).unwrap();
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(ends(&host), [StopCommandEnd::Succeeded]);
        assert_eq!(host.status(id).last_exit.unwrap().exit, Exit::Code(7));
        host.shut_down();
    });
}
