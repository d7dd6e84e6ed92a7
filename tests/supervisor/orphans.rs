//! Orphans are reaped, and no other process is.

use std::collections::HashSet;
use std::io;
use std::process::Command as StdCommand;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pidherd::supervisor::{AdoptError, OrphanCounts};
use pidherd::{Event, Exit, ExitRecord, GroupSpec, MaskGuard, Signal, SignalFd, SignalSet, StateName, Supervisor};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, pidfd_open, set_child_subreaper};

use super::common::descriptors::NoDescriptors;
use super::common::{Isolation, SOON, isolated, processes, wait_gone, wait_until};
use super::host::{Host, at_once, builder, for_ever, ms, quiet_sh, sh, sleeper};
use StateName::{Exited, Running};

const CHLD: SignalSet = SignalSet::EMPTY.with(Signal::CHLD);

/// Runs a test with a host that adopts orphans, in a process that blocks SIGCHLD in all of its threads.
fn adopting(body: impl FnOnce(Host)) {
    Isolation::new().blocked(CHLD).run(|| {
        body(Host::with(adopter()));
        set_child_subreaper(None).unwrap();
        // The SIGCHLD of the last end can have arrived after the last look.
        let last = SignalFd::new(CHLD).unwrap();
        while last.read().unwrap().is_some() {}
    });
}

fn adopter() -> Supervisor {
    builder().adopt_orphans(true).build().unwrap()
}

/// Leaves so many orphans that end with this code; each is forked twice.
fn leave_orphans(host: &Host, count: u32, code: u8) {
    let script = format!("n=0; while [ $n -lt {count} ]; do (exit {code} &); n=$((n+1)); done");
    assert!(std_sh(host, &script).wait().unwrap().success());
}

/// A shell of the standard library's, declared.
fn std_sh(host: &Host, script: &str) -> std::process::Child {
    let known_children = host.supervisor.known_children().unwrap();
    known_children
        .spawn(StdCommand::new("/bin/sh").args(["-c", script]))
        .unwrap()
}

fn orphans(host: &Host) -> Vec<ExitRecord> {
    let told = host.events.iter().filter_map(|event| match event {
        Event::Orphan(record) => Some(*record),
        _ => None,
    });
    told.collect()
}

fn reaped(host: &Host) -> u64 {
    host.supervisor.orphans().unwrap().reaped
}

fn until_reaped(host: &mut Host, count: u64) {
    host.until(&format!("{count} orphans are reaped"), |host| reaped(host) >= count);
}

#[test]
fn an_orphan_is_adopted_reaped_and_told() {
    adopting(|mut host| {
        let script = "(sh -c 'exit 5' &); (sh -c 'kill -9 $$' &); echo ready; read never";
        let id = host.start(sh(script), at_once());
        assert_eq!(host.line(id), "ready");
        until_reaped(&mut host, 2);
        let told = orphans(&host);
        let mut exits: Vec<Exit> = told.iter().map(|record| record.exit).collect();
        exits.sort_by_key(|exit| exit.code());
        let killed = Exit::Signal {
            signal: Signal::KILL,
            core: false,
        };
        assert_eq!(exits, [killed, Exit::Code(5)]);
        assert!(told.iter().all(|record| record.usage.unwrap().max_rss > 0));
        assert_eq!(processes::children(), [host.pid(id)]);
        assert_eq!(host.state(id), Running);
        host.nothing_for(ms(20));
        host.shut_down();
        assert_eq!((reaped(&host), host.supervisor.dropped_events()), (2, 0));
    });
}

fn storm(mut host: Host) {
    leave_orphans(&host, 1_000, 9);
    wait_until("all have ended", SOON, || {
        let children = processes::children();
        children.len() == 1_000 && children.into_iter().all(|pid| processes::state(pid) == Some('Z'))
    });
    while reaped(&host) < 1_000 {
        let before = reaped(&host);
        assert!(host.turn(SOON), "there are more, so it is readable");
        // A batch for the signal, a batch for the bell.
        assert!(reaped(&host) - before <= 2 * 64, "no more than a slice in a call");
    }
    let told = orphans(&host);
    assert_eq!(told.len(), 1_000);
    assert!(told.iter().all(|record| record.exit == Exit::Code(9)));
    assert_eq!(
        told.iter().map(|record| record.pid).collect::<HashSet<_>>().len(),
        1_000
    );
    assert_eq!(processes::children(), [0; 0]);
}

#[test]
fn a_storm_of_a_thousand_is_reaped_in_slices() {
    adopting(storm);
}

#[test]
fn a_storm_is_reaped_by_an_epoll_of_the_hosts_own() {
    adopting(|mut host| {
        host.wait_for_each();
        storm(host);
    });
}

#[test]
fn the_standard_librarys_children_keep_their_statuses() {
    adopting(|mut host| {
        // More than a batch, and in front of the orphans in every list.
        let mut own: Vec<_> = (0..100).map(|code| std_sh(&host, &format!("exit {code}"))).collect();
        own.iter().for_each(|child| assert!(wait_gone(child.id(), SOON)));
        leave_orphans(&host, 100, 0);
        until_reaped(&mut host, 100);
        for (code, child) in (0..).zip(&mut own) {
            assert_eq!(child.wait().unwrap().code(), Some(code));
        }
        leave_orphans(&host, 1, 0);
        until_reaped(&mut host, 101);
        assert_eq!(orphans(&host).len(), 101);
    });
}

#[test]
fn a_child_with_a_pidfd_is_not_reaped() {
    adopting(|mut host| {
        let hold = host.supervisor.known_children().unwrap().clone();
        let hold = hold.pause();
        let mut held = StdCommand::new("/bin/sh").args(["-c", "exit 3"]).spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&held), PidfdFlags::empty()).unwrap();
        drop(hold);
        assert!(wait_gone(held.id(), SOON));
        leave_orphans(&host, 1, 0);
        until_reaped(&mut host, 1);
        assert_eq!(held.wait().unwrap().code(), Some(3));
        drop(pidfd);
    });
}

#[test]
fn no_orphan_is_reaped_during_a_pause() {
    adopting(|mut host| {
        let known_children = host.supervisor.known_children().unwrap().clone();
        let hold = known_children.pause();
        leave_orphans(&host, 1, 0);
        let inner = known_children.pause();
        let mut child = StdCommand::new("/bin/sh").args(["-c", "exit 4"]).spawn().unwrap();
        assert!(wait_gone(child.id(), SOON));
        while host.turn(ms(50)) {}
        known_children.register(child.id()).unwrap();
        drop(inner);
        host.nothing_for(ms(20));
        assert_eq!(reaped(&host), 0);
        drop(hold);
        until_reaped(&mut host, 1);
        assert_eq!(child.wait().unwrap().code(), Some(4));
        let refused = known_children.register(child.id()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ECHILD), "it is no child any more");
        let stranger = known_children.register(std::process::id()).unwrap_err();
        assert_eq!(stranger.raw_os_error(), Some(libc::ECHILD));
    });
}

#[test]
fn threads_with_children_of_their_own_lose_none() {
    adopting(|mut host| {
        let known_children = host.supervisor.known_children().unwrap().clone();
        let threads: Vec<_> = (0..3)
            .map(|code| {
                let known_children = known_children.clone();
                thread::spawn(move || {
                    for _ in 0..60 {
                        let script = format!("exit {code}");
                        let mut child = known_children
                            .spawn(StdCommand::new("/bin/sh").args(["-c", &script]))
                            .unwrap();
                        assert_eq!(child.wait().unwrap().code(), Some(code));
                    }
                })
            })
            .collect();
        let mut expected = 0;
        while threads.iter().any(|thread| !thread.is_finished()) {
            leave_orphans(&host, 10, 1);
            expected += 10;
            until_reaped(&mut host, expected);
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(reaped(&host), expected);
    });
}

#[test]
fn another_supervisor_keeps_what_it_started() {
    adopting(|mut host| {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                let mut other = Host::new();
                let (group, ids) = other.add(GroupSpec::new("x", quiet_sh("exit 3")).instances(4).policy(for_ever()));
                other.supervisor.start(group).unwrap();
                other.until("each has ended often", |other| {
                    ids.iter()
                        .all(|&id| other.states(id).iter().filter(|&&state| state == Exited).count() >= 25)
                });
                over.store(true, Ordering::Relaxed);
                let exits: Vec<ExitRecord> = other.all_steps().filter_map(|step| step.exit).collect();
                exits
            });
            let mut expected = 0;
            while !over.load(Ordering::Relaxed) && !other.is_finished() {
                leave_orphans(&host, 10, 1);
                expected += 10;
                until_reaped(&mut host, expected);
            }
            let exits = other.join().unwrap();
            assert!(exits.len() >= 100);
            // For a process that was reaped by another part of the host, the kernel may have the code, but not the
            // usage.
            assert!(
                exits
                    .iter()
                    .all(|record| record.exit == Exit::Code(3) && record.usage.unwrap().max_rss > 0)
            );
            assert_eq!(reaped(&host), expected);
        });
    });
}

#[test]
fn the_supervisors_own_go_the_way_of_their_pidfds() {
    adopting(|mut host| {
        let (group, ids) = host.add(
            GroupSpec::new("x", quiet_sh("(exit 1 &); exit 3"))
                .instances(8)
                .policy(for_ever()),
        );
        host.supervisor.start(group).unwrap();
        host.until("each has ended often", |host| {
            ids.iter()
                .all(|&id| host.states(id).iter().filter(|&&state| state == Exited).count() >= 20)
        });
        host.supervisor.shutdown().unwrap();
        host.until("all is down", |host| host.supervisor.is_down());
        let exits: Vec<ExitRecord> = host.all_steps().filter_map(|step| step.exit).collect();
        let ended = exits.iter().filter(|record| record.exit == Exit::Code(3)).count();
        assert!(ended >= 160 && exits.iter().all(|record| record.usage.unwrap().max_rss > 0));
        host.until("no child is left", |_| processes::children().is_empty());
        assert!(reaped(&host) >= ended as u64);
        assert!(orphans(&host).iter().all(|record| record.exit != Exit::Code(3)));
    });
}

#[test]
fn a_child_without_a_pidfd_and_a_wait_is_reaped_as_an_orphan() {
    adopting(|mut host| {
        let child = pidherd::Command::new("/bin/sh").args(["-c", "exit 6"]).spawn().unwrap();
        let pid = child.pid();
        drop(child.into_pidfd());
        host.until("it is reaped", |host| reaped(host) == 1);
        assert_eq!((orphans(&host)[0].pid, orphans(&host)[0].exit), (pid, Exit::Code(6)));
    });
}

#[test]
fn orphans_from_before_are_reaped_at_once() {
    Isolation::new().blocked(CHLD).run(|| {
        set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let mut shell = StdCommand::new("/bin/sh").args(["-c", "(exit 2 &)"]).spawn().unwrap();
        shell.wait().unwrap();
        wait_until("the orphan has ended", SOON, || {
            processes::children()
                .iter()
                .any(|&pid| processes::state(pid) == Some('Z'))
        });
        // What has been told so far is told no more.
        let signals = SignalFd::new(CHLD).unwrap();
        while signals.read().unwrap().is_some() {}
        drop(signals);
        let mut host = Host::with(adopter());
        until_reaped(&mut host, 1);
        set_child_subreaper(None).unwrap();
    });
}

#[test]
fn without_a_free_descriptor_it_is_put_off() {
    adopting(|mut host| {
        leave_orphans(&host, 100, 0);
        let before = rustix::process::getrlimit(Resource::Nofile);
        let next = std::fs::File::open("/dev/null").unwrap();
        let limit = |free: i32| {
            let current = Some((std::os::fd::AsRawFd::as_raw_fd(&next) + 1 + free) as u64);
            rustix::process::setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
        };
        limit(0);
        host.turn(SOON);
        assert_eq!(
            (reaped(&host), host.supervisor.orphans().unwrap().postponed > 0),
            (0, true)
        );
        // Enough for a few at a time.
        limit(8);
        host.supervisor.reap_orphans().unwrap();
        until_reaped(&mut host, 100);
        rustix::process::setrlimit(Resource::Nofile, before).unwrap();
    });
}

#[test]
fn what_was_put_off_for_want_of_descriptors_is_done_when_there_are_some_again() {
    adopting(|mut host| {
        leave_orphans(&host, 10, 0);
        let limit = NoDescriptors::left();
        host.until("looks have failed", |host| {
            host.supervisor.orphans().unwrap().postponed > 2
        });
        assert_eq!(reaped(&host), 0);
        drop(limit);
        // Nothing ends any more, and no call asks for a look.
        until_reaped(&mut host, 10);
        host.nothing_for(ms(50));
    });
}

#[test]
fn as_many_as_there_are_free_descriptors_are_reaped() {
    adopting(|mut host| {
        let before = rustix::process::getrlimit(Resource::Nofile);
        // With some of these numbers not one descriptor is left when all six have been looked at.
        for (round, free) in (1..).zip(5..14) {
            leave_orphans(&host, 6, 0);
            let next = std::fs::File::open("/dev/null").unwrap();
            let current = Some(std::os::fd::AsRawFd::as_raw_fd(&next) as u64 + 1 + free);
            rustix::process::setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
            until_reaped(&mut host, round * 6);
            rustix::process::setrlimit(Resource::Nofile, before).unwrap();
        }
    });
}

fn refusal(supervisor: io::Result<Supervisor>) -> AdoptError {
    let error = supervisor.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    *error.get_ref().unwrap().downcast_ref().unwrap()
}

#[test]
fn it_is_refused_where_it_cannot_work() {
    Isolation::new().blocked(CHLD).run(|| {
        let build = || Supervisor::builder().adopt_orphans(true);
        let both = CHLD.with(Signal::TERM);
        let signals = SignalFd::new(both).unwrap();
        assert_eq!(refusal(build().build()), AdoptError::Taken, "somebody else's");
        assert_eq!(
            refusal(build().signals(signals).build()),
            AdoptError::Taken,
            "the host's"
        );
        // SAFETY: ignoring a signal, and taking that back, installs no function of ours.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        assert_eq!(refusal(build().build()), AdoptError::Ignored);
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        assert_eq!(
            rustix::process::child_subreaper().unwrap(),
            None,
            "nothing has been done"
        );
        let first = build().build().unwrap();
        assert_eq!(refusal(build().build()), AdoptError::Taken, "one is enough");
        drop(first);
        drop(build().build().unwrap());
        assert!(rustix::process::child_subreaper().unwrap().is_some(), "it stays one");
        set_child_subreaper(None).unwrap();
    });
}

#[test]
fn a_signal_that_another_thread_may_take_is_refused() {
    isolated(|| {
        // A thread that is being started blocks everything for a moment; this one has been.
        let (started, wait) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| (started.wait(), wait.wait()));
            started.wait();
            let _guard = MaskGuard::block(CHLD).unwrap();
            let refused = refusal(Supervisor::builder().adopt_orphans(true).build());
            assert_eq!(refused, AdoptError::NotBlocked);
            wait.wait();
        });
    });
}

#[test]
fn a_supervisor_that_does_not_adopt_needs_no_preparation() {
    isolated(|| {
        let mut host = Host::new();
        assert!(host.supervisor.known_children().is_none());
        assert_eq!(host.supervisor.orphans(), None::<OrphanCounts>);
        host.supervisor.reap_orphans().unwrap();
        let mut child = StdCommand::new("true").spawn().unwrap();
        host.start(sleeper(), at_once());
        host.nothing_for(Duration::from_millis(20));
        assert!(child.wait().unwrap().success());
        host.shut_down();
    });
}
