//! Ends with a late status: a tracer holds the process, or it is reaped elsewhere.

mod common;
mod host;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::fork::in_fork;
use common::tracer::Tracer;
use common::{SOON, isolated, skipped, wait_readable, wait_until};
use host::{Host, at_once, for_ever, kernel_since, ms, quiet_sh, sh, term};
use pidherd::lifecycle::Scope;
use pidherd::lifecycle::StateName::{Exited, Running};
use pidherd::{Exit, GroupSpec, InstanceId, Signal};

/// An instance that is up, and a tracer that has attached to it; `None` where that is not allowed.
fn traced(host: &mut Host, spec: GroupSpec) -> Option<(InstanceId, Tracer)> {
    let id = host.add(spec).1[0];
    host.start_these(id);
    assert_eq!(host.line(id), "up");
    host.until_state(id, Running);
    let tracer = Tracer::attach(host.pid(id))?;
    Some((id, tracer))
}

/// Runs the loop for this long, and returns how many turns found something to do.
fn turns(host: &mut Host, time: Duration) -> u32 {
    let end = Instant::now() + time;
    let mut turns = 0;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        turns += u32::from(host.turn(left));
    }
    turns
}

#[test]
fn a_host_sleeps_while_a_tracer_holds_an_ended_child() {
    isolated(|| {
        for mut host in [Host::new(), Host::with_own_epoll()] {
            for scope in [Scope::Process, Scope::ProcessGroup] {
                let policy = at_once().stop(term(scope, host::LONG));
                let command = sh("echo up; read go; exit 3").process_group(0);
                let name = format!("{scope:?}");
                let Some((id, tracer)) = traced(&mut host, GroupSpec::new(&name, command).policy(policy)) else {
                    return;
                };
                host.go_on(id);
                let turns = turns(&mut host, ms(1_500));
                assert!(turns < 50, "{turns} turns of the loop");
                assert_eq!(host.state(id), Running, "nothing tells how it ended");
                drop(tracer);
                host.until_state(id, Exited);
                assert_eq!(host.status(id).last_exit.unwrap().exit, Exit::Code(3));
            }
            host.shut_down();
        }
    });
}

#[test]
fn a_host_that_never_handles_the_timer_alone_finds_the_end_too() {
    isolated(|| {
        let mut host = Host::new();
        let Some((id, tracer)) = traced(&mut host, GroupSpec::new("a", sh("echo up; read go")).policy(at_once()))
        else {
            return;
        };
        host.go_on(id);
        assert!(wait_readable(host.supervisor.fd(process_token(&host)).unwrap(), SOON));
        host.supervisor.dispatch().unwrap();
        drop(tracer);
        // A start looks for an end that was not handled yet.
        host.supervisor.start(id).unwrap();
        host.take_events();
        assert_eq!(host.status(id).runs, 2, "{}", host.story());
        host.supervisor.kill(id).unwrap();
        host.shut_down();
    });
}

/// The last entry of the set, which is the process's.
fn process_token(host: &Host) -> pidherd::fdset::Token {
    host.supervisor.fds().iter().last().unwrap().token
}

#[test]
fn a_stop_and_a_kill_end_when_the_tracer_detaches() {
    isolated(|| {
        let mut host = Host::new();
        let policy = at_once().stop(term(Scope::Process, ms(50)));
        let Some((id, tracer)) = traced(&mut host, GroupSpec::new("a", sh("echo up; read go")).policy(policy)) else {
            return;
        };
        host.supervisor.kill(id).unwrap();
        assert!(turns(&mut host, ms(300)) < 30);
        drop(tracer);
        host.until("it is gone", |host| host.status(id).pid.is_none());
        let killed = Exit::Signal {
            signal: Signal::KILL,
            core: false,
        };
        assert_eq!(host.status(id).last_exit.unwrap().exit, killed);
        host.shut_down();
    });
}

#[test]
fn a_wait_with_a_bound_sleeps_and_keeps_it_while_a_tracer_holds_the_child() {
    isolated(|| {
        let mut child = sh("read go; exit 3").spawn().unwrap();
        let Some(tracer) = Tracer::attach(child.pid().as_raw()) else {
            child.kill().unwrap();
            child.wait().unwrap();
            return;
        };
        assert_eq!(rustix::io::write(child.stdin.as_ref().unwrap(), b"\n"), Ok(1));
        assert!(wait_readable(child.pidfd(), SOON));
        let (began, cpu) = (Instant::now(), cpu_time());
        assert_eq!(child.wait_timeout(ms(400)).unwrap(), None);
        assert!(began.elapsed() >= ms(400));
        let used = cpu_time() - cpu;
        // A wait looks at the child a few times. A loop without a sleep would use all of the 400 ms.
        assert!(used < ms(100), "{used:?} of CPU time");
        assert_eq!(child.try_wait().unwrap(), None);
        drop(tracer);
        assert_eq!(child.wait_timeout(SOON).unwrap().unwrap().exit, Exit::Code(3));
    });
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Ends the tracer after this time, from another thread.
fn detach_after(tracer: Tracer, time: Duration) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        std::thread::sleep(time);
        drop(tracer);
    })
}

#[test]
fn dropping_what_a_tracer_holds_waits_for_it_and_leaves_no_zombie() {
    isolated(|| {
        let child = sh("read go").spawn().unwrap();
        let Some(tracer) = Tracer::attach(child.pid().as_raw()) else {
            drop(child);
            return;
        };
        let pidfd = child.pidfd().try_clone().unwrap();
        let letting_go = detach_after(tracer, ms(200));
        drop(child);
        letting_go.join().unwrap();
        assert!(common::processes::children().is_empty());
        drop(pidfd);

        for dispatched in [false, true] {
            let mut host = Host::new();
            let spec = GroupSpec::new("a", sh("echo up; read go")).policy(at_once());
            let (id, tracer) = traced(&mut host, spec).unwrap();
            if dispatched {
                host.go_on(id);
                turns(&mut host, ms(50));
            }
            let letting_go = detach_after(tracer, ms(200));
            drop(host);
            letting_go.join().unwrap();
            assert!(common::processes::children().is_empty());
        }
    });
}

/// Whether the kernel remembers the exit status of a process that was reaped elsewhere.
fn remembers() -> bool {
    let remembers = kernel_since(6, 15);
    if !remembers {
        skipped("needs Linux 6.15");
    }
    remembers
}

#[test]
fn the_status_of_a_process_that_is_not_a_child_is_known_when_its_parent_has_reaped_it() {
    isolated(|| {
        if !remembers() {
            return;
        }
        let pidfd = quiet_sh("exit 5").spawn().unwrap().into_pidfd();
        assert!(wait_readable(&pidfd, SOON));
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(1));
                assert_eq!(pidfd.reap().unwrap().unwrap().exit, Exit::Code(5));
            });
            // The copy is a sibling of the child.
            assert!(in_fork(|| {
                assert_eq!((pidfd.peek().unwrap(), pidfd.reap().unwrap()), (None, None));
                assert_eq!(rustix::io::write(&writer, b"x"), Ok(1));
                let mut record = None;
                wait_until("its status is known", SOON, || {
                    record = pidfd.peek().unwrap();
                    record.is_some()
                });
                assert_eq!(record.unwrap().exit, Exit::Code(5));
            }));
        });
    });
}

/// The number of ends to check, or as many as occur within this time. Without another look, about one in some thousand
/// was lost.
const ENDS: u64 = 2_000;
const TIME: Duration = Duration::from_secs(8);

/// Restarts instances until there have been enough ends, and checks the status of each.
fn every_status_is_known() {
    let mut host = Host::new();
    let (group, ids) = host.add(GroupSpec::new("a", quiet_sh("exit 7")).instances(4).policy(for_ever()));
    host.supervisor.start(group).unwrap();
    let runs = |host: &Host| ids.iter().map(|&id| host.status(id).runs).sum::<u64>();
    let end = Instant::now() + TIME;
    host.until("all have ended often enough", |host| {
        runs(host) > ENDS || Instant::now() > end
    });
    let exits = host.all_steps().filter_map(|step| step.exit);
    let unknown = exits.filter(|record| record.exit != Exit::Code(7)).count();
    assert_eq!(unknown, 0, "ends without their status");
    host.supervisor.kill(group).unwrap();
    host.shut_down();
}

#[test]
fn no_status_is_lost_where_the_kernel_reaps_the_children_itself() {
    isolated(|| {
        if !remembers() {
            return;
        }
        // SAFETY: no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        every_status_is_known();
        let end = Instant::now() + TIME;
        for _ in (0..ENDS / 4).take_while(|_| Instant::now() < end) {
            let mut child = quiet_sh("exit 7").spawn().unwrap();
            assert_eq!(child.wait_timeout(SOON).unwrap().unwrap().exit, Exit::Code(7));
            let mut child = quiet_sh("exit 7").spawn().unwrap();
            assert_eq!(child.wait().unwrap().exit, Exit::Code(7));
        }
        let child = sh("read go; exit 7").spawn().unwrap();
        if let Some(tracer) = Tracer::attach(child.pid().as_raw()) {
            assert_eq!(rustix::io::write(child.stdin.as_ref().unwrap(), b"\n"), Ok(1));
            assert!(wait_readable(child.pidfd(), SOON));
            assert_eq!(child.pidfd().reap().unwrap(), None);
            drop(tracer);
        }
        let mut child = child;
        child.kill().unwrap();
        assert_ne!(child.wait().unwrap().exit, Exit::Unknown);
        // SAFETY: no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    });
}

#[test]
fn no_status_is_lost_where_another_thread_waits_for_any_child() {
    isolated(|| {
        if !remembers() {
            return;
        }
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if rustix::process::wait(rustix::process::WaitOptions::empty()).is_err() {
                        std::thread::yield_now();
                    }
                }
            });
            let outcome = std::panic::catch_unwind(every_status_is_known);
            over.store(true, Ordering::Relaxed);
            assert!(outcome.is_ok());
        });
    });
}
