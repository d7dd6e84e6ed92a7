//! A child that is bound to its host dies with it, however the host ends, and is in all else like any other.

mod common;
mod host;

use std::fs;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;
use std::time::Duration;

use StateName::{Backoff, Exited, Fatal, Running, Starting, Stopped, Stopping};
use common::fork::{drop_privileges, in_fork};
use common::{
    Isolation, SOON, isolated, kernel_since, patience, processes, root_or_skip, skipped, test_cgroup, wait_gone,
    wait_readable, wait_until,
};
use host::{Host, LONG, at_once, for_ever, quiet_sh, sh, sleeper, term, wait_for_sleep};
use pidherd::cgroup::CgroupDir;
use pidherd::exit::Exit;
use pidherd::lifecycle::{Delay, Scope, StateName};
use pidherd::supervisor::SpecError;
use pidherd::{
    Command, CommandError, Error, GroupSpec, Lifetime, Signal, SpawnProgress, SpawnStep, Spawner, Stdio, Supervisor,
};
use rustix::pipe::{PipeFlags, pipe_with};

/// Whether the kernel binds children; says that the test is skipped if not.
fn binds_or_skip() -> bool {
    let binds = binds();
    if !binds {
        skipped("the kernel binds no child to its host (Linux 7.1)");
    }
    binds
}

fn binds() -> bool {
    kernel_since(7, 1) && !cfg!(pidherd_portable)
}

fn bound(command: Command) -> Command {
    command.lifetime(Lifetime::Bound)
}

/// How many hosts are killed in a test, and how many threads end. `PIDHERD_TEST_HOSTS` sets another number.
fn hosts() -> u64 {
    std::env::var("PIDHERD_TEST_HOSTS").map_or(40, |text| text.parse().expect("a number"))
}

/// Runs `body` in a copy of this process, which is killed by SIGKILL when `moment` returns.
fn in_killed_host<T>(moment: impl FnOnce() -> T, body: impl FnOnce()) -> T {
    // SAFETY: as in `common::fork`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        let _panicked = catch_unwind(AssertUnwindSafe(body));
        // SAFETY: the call ends the copy and runs no code of this program.
        unsafe { libc::_exit(0) };
    }
    let result = moment();
    // SAFETY: the child is this process's own, and the status is a local variable.
    unsafe {
        assert_eq!(libc::kill(pid, libc::SIGKILL), 0);
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
    }
    result
}

/// Hosts that start and end children all the time are killed at any moment. The oracle finds a child that is left.
fn nothing_outlives_a_killed_host(lifetime: Lifetime) {
    Isolation::new().limit(Duration::from_secs(600)).run(|| {
        let command = || Command::new("sleep").arg("1000").lifetime(lifetime);
        let mut born = 0;
        for n in 0..hosts() {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            // The moments are spread over the first thirty milliseconds, and every other time over those after the first
            // birth, which takes longer on a slow machine.
            let moment = Duration::from_micros(500 + n * 7_919 % 30_000);
            in_killed_host(
                || {
                    let _born = n % 2 == 0 || wait_readable(&reader, SOON * patience());
                    thread::sleep(moment);
                },
                || {
                    let mut spawner = Spawner::new().unwrap();
                    let program = command().compile().unwrap();
                    let mut children = Vec::new();
                    for turn in 0.. {
                        let child = if turn % 2 == 0 {
                            spawner.spawn(&program).unwrap()
                        } else {
                            let mut progress = SpawnProgress::InFlight(spawner.begin(&program).unwrap());
                            while let SpawnProgress::InFlight(spawning) = progress {
                                progress = spawner.finish(spawning);
                            }
                            let SpawnProgress::Running(child) = progress else {
                                panic!("{progress:?}")
                            };
                            child
                        };
                        rustix::io::write(&writer, &child.pid().as_raw().to_ne_bytes()).unwrap();
                        children.push(child);
                        if children.len() > 10 {
                            drop(children.remove(turn % 10));
                        }
                    }
                },
            );
            drop(writer);
            let mut pids = Vec::new();
            fs::File::from(reader).read_to_end(&mut pids).unwrap();
            for pid in pids.chunks_exact(4) {
                let pid = u32::from_ne_bytes(pid.try_into().unwrap());
                assert!(wait_gone(pid, SOON), "{} outlives its host", processes::describe(pid));
                born += 1;
            }
        }
        assert!(born > 0);
        println!("{} hosts killed, {born} children, 0 left", hosts());
    });
}

#[test]
fn no_bound_child_outlives_a_killed_host() {
    if binds_or_skip() {
        nothing_outlives_a_killed_host(Lifetime::Bound);
    }
}

#[test]
fn no_child_with_the_fallback_outlives_a_killed_host() {
    nothing_outlives_a_killed_host(Lifetime::BoundOrSignal);
}

#[test]
fn a_detached_child_outlives_its_host() {
    isolated(|| {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let born = || {
            let mut pid = [0; 4];
            fs::File::from(reader).read_exact(&mut pid).unwrap();
            u32::from_ne_bytes(pid)
        };
        let pid = in_killed_host(born, || {
            let child = Command::new("sleep").arg("1000").spawn().unwrap();
            rustix::io::write(&writer, &child.pid().as_raw().to_ne_bytes()).unwrap();
            loop {
                thread::park();
            }
        });
        assert!(matches!(processes::state(pid), Some('S' | 'R')));
        let raw = rustix::process::Pid::from_raw(pid as i32).unwrap();
        rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
        assert!(wait_gone(pid, SOON));
    });
}

#[test]
fn a_kernel_that_binds_no_child_is_a_typed_error_before_anything_is_started() {
    isolated(|| {
        if binds() {
            return skipped("the kernel binds children");
        }
        let refused = bound(sleeper()).compile().unwrap_err();
        let CommandError::CannotBind { errno } = refused else {
            panic!("{refused}")
        };
        assert!(
            matches!(errno, libc::EINVAL | libc::E2BIG | libc::ENOSYS | libc::EPERM),
            "{errno}"
        );
        assert!(
            refused
                .to_string()
                .starts_with("the kernel cannot bind a child to its host (Linux 7.1 can): ")
        );
        let mut supervisor = Supervisor::new().unwrap();
        let added = supervisor.add(GroupSpec::new("a", sleeper()).lifetime(Lifetime::Bound));
        assert!(matches!(
            added,
            Err(Error::Spec(SpecError::Command {
                number: 0,
                error: CommandError::CannotBind { .. }
            }))
        ));
        assert_eq!(bound(sleeper()).spawn().unwrap_err().step(), SpawnStep::Check);
        assert_eq!(processes::children(), []);
    });
}

#[test]
fn the_end_of_the_thread_that_spawned_it_ends_no_bound_child() {
    isolated(|| {
        if !binds_or_skip() {
            return;
        }
        for _ in 0..hosts() {
            let spawned = thread::spawn(|| {
                // SAFETY: gettid(2) has no arguments and cannot fail.
                let thread = unsafe { libc::gettid() };
                (bound(sleeper()).stdin(Stdio::null()).spawn().unwrap(), thread)
            });
            let (mut child, thread) = spawned.join().unwrap();
            // A signal for the end of the thread is sent before the thread is gone from /proc.
            let entry = format!("/proc/self/task/{thread}");
            wait_until("the thread is gone", SOON, || !Path::new(&entry).exists());
            assert!(child.pidfd().peek().unwrap().is_none());
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().exit.signal(), Some(Signal::KILL));
        }
        println!("{} threads ended, 0 of their children killed", hosts());
    });
}

#[test]
fn the_end_of_a_bound_child_is_known_and_its_usage_is_not() {
    isolated(|| {
        if !binds_or_skip() {
            return;
        }
        let mut spawner = Spawner::new().unwrap();
        for (script, exit) in [
            ("exit 0", Exit::Code(0)),
            ("exit 7", Exit::Code(7)),
            (
                "kill -TERM $$",
                Exit::Signal {
                    signal: Signal::TERM,
                    core: false,
                },
            ),
        ] {
            let program = bound(quiet_sh(script)).compile().unwrap();
            let mut child = spawner.spawn(&program).unwrap();
            let record = child.wait().unwrap();
            assert_eq!((record.exit, record.usage), (exit, None), "{script}");
            assert_eq!(child.try_wait().unwrap(), Some(record));
            let mut progress = SpawnProgress::InFlight(spawner.begin(&program).unwrap());
            while let SpawnProgress::InFlight(spawning) = progress {
                progress = spawner.finish(spawning);
            }
            let SpawnProgress::Running(mut child) = progress else {
                panic!("{progress:?}")
            };
            assert!(wait_readable(child.pidfd(), SOON));
            assert_eq!(child.pidfd().peek().unwrap().map(|record| record.exit), Some(exit));
            assert_eq!(child.try_wait().unwrap().map(|record| record.exit), Some(exit));
        }
        let missing = bound(Command::new("/no/such"));
        let error = missing.spawn().unwrap_err();
        assert_eq!((error.step(), error.errno()), (SpawnStep::Exec, libc::ENOENT));
        let spawning = spawner.begin(&missing.compile().unwrap()).unwrap();
        let mut progress = SpawnProgress::InFlight(spawning);
        while let SpawnProgress::InFlight(spawning) = progress {
            progress = spawner.finish(spawning);
        }
        assert!(matches!(progress, SpawnProgress::Failed(error) if error.errno() == libc::ENOENT));
        assert_eq!(processes::children(), []);
    });
}

#[test]
fn closing_the_last_descriptor_of_its_pidfd_ends_a_bound_child() {
    isolated(|| {
        if !binds_or_skip() {
            return;
        }
        let child = bound(sleeper()).stdin(Stdio::null()).spawn().unwrap();
        let pidfd = child.into_pidfd();
        let pid = pidfd.pid().as_raw();
        let copy = pidfd.try_clone().unwrap();
        drop(pidfd);
        assert!(!wait_readable(&copy, Duration::from_millis(50)));
        drop(copy);
        assert!(wait_gone(pid, SOON));
    });
}

#[test]
fn a_supervisor_restarts_stops_and_counts_bound_instances() {
    isolated(|| {
        if !binds_or_skip() {
            return;
        }
        let mut host = Host::new();
        let crashing = for_ever().restart_delay(Delay::NONE);
        let crashing = host.start(bound(quiet_sh("exit 3")), crashing);
        host.until("it was restarted", |host| host.status(crashing).runs > 5);
        assert_eq!(host.status(crashing).last_exit.unwrap().exit, Exit::Code(3));
        host.supervisor.stop(crashing).unwrap();
        for scope in [Scope::Process, Scope::ProcessGroup] {
            let policy = at_once().stop(term(scope, LONG));
            let script = "trap 'exit 4' TERM; sleep 1000 >/dev/null & echo $!; read never";
            let id = host.start(bound(sh(script)), policy);
            let child: u32 = host.line(id).parse().unwrap();
            // A shell that has forked and not yet executed may lose a signal.
            wait_for_sleep(child);
            host.supervisor.stop(id).unwrap();
            host.until_state(id, Stopped);
            assert_eq!(host.states(id), [Starting, Running, Stopping, Stopped]);
            assert_eq!(host.status(id).last_exit.unwrap().exit, Exit::Code(4));
            if scope == Scope::Process {
                let child = rustix::process::Pid::from_raw(child as i32).unwrap();
                rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
            }
            assert!(wait_gone(child, SOON));
        }
        let killed = host.start(bound(sleeper()), at_once());
        host.supervisor.kill(killed).unwrap();
        host.until_state(killed, Stopped);
        let missing = at_once().start_retries(1).backoff(Delay::NONE);
        let missing = host.start(bound(Command::new("/no/such")), missing);
        host.until_state(missing, Fatal);
        assert_eq!(host.states(missing), [Starting, Backoff, Starting, Backoff, Fatal]);
        assert_eq!(processes::children(), []);
    });
}

#[test]
fn the_leavings_of_a_bound_leader_are_killed_before_its_restart() {
    isolated(|| {
        if !binds_or_skip() {
            return;
        }
        let mut host = Host::new();
        let policy = at_once().stop(term(Scope::ProcessGroup, LONG));
        let id = host.start(bound(sh("sleep 1000 >/dev/null & echo $!; read go")), policy);
        let left: u32 = host.line(id).parse().unwrap();
        host.go_on(id);
        host.until_state(id, Exited);
        assert!(wait_gone(left, SOON));
    });
}

#[test]
fn the_cgroup_of_a_bound_run_tells_what_it_used() {
    isolated(|| {
        if !binds_or_skip() {
            return;
        }
        let Some(cgroup) = test_cgroup() else { return };
        let mut host = Host::new();
        let spec = GroupSpec::new("a", bound(quiet_sh("exit 0"))).policy(at_once());
        let spec = spec.cgroup(CgroupDir::open(cgroup.path()).unwrap());
        let id = host.add(spec).1[0];
        host.start_these(id);
        host.until_state(id, Exited);
        let run = host.supervisor.runs(id).last().unwrap();
        assert_eq!(run.exit.unwrap().usage, None);
        assert!(run.cgroup.is_some());
    });
}

#[test]
fn an_unprivileged_host_binds_children_that_cannot_gain_privileges() {
    isolated(|| {
        if !binds_or_skip() || !root_or_skip("a host without privileges is a copy that gives them up") {
            return;
        }
        let privileges = "grep -q 'NoNewPrivs:[[:space:]]*1' /proc/self/status";
        let end_of = |command: Command| command.stdin(Stdio::null()).spawn().unwrap().wait().unwrap().exit;
        assert_eq!(end_of(bound(quiet_sh(privileges))), Exit::Code(1));
        assert!(in_fork(|| {
            drop_privileges();
            assert_eq!(end_of(bound(quiet_sh(privileges))), Exit::Code(0));
            let error = bound(sleeper()).no_new_privileges(false).spawn().unwrap_err();
            assert_eq!((error.step(), error.errno()), (SpawnStep::Clone, libc::EPERM));
        }));
    });
}
