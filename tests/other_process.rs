//! A copy that fork(2) made does nothing with values of the process that it was copied from.

mod common;
mod host;

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use common::fork::in_fork;
use common::{Isolation, SOON, isolated, tempdir, wait_readable};
use host::{Host, at_once, builder, sh, sleeper};
use pidherd::fdset::Interest;
use pidherd::group::Rolling;
use pidherd::lifecycle::StateName::Running;
use pidherd::notify::{Buffer, NotifySocket, Readiness, ReadyFd, Received};
use pidherd::{
    Clock, Error, FdSet, GroupSpec, MaskGuard, OtherProcess, Signal, SignalFd, SignalSet, Supervisor, Target, TimerFd,
};

#[test]
fn dropping_a_copy_of_a_supervisor_leaves_the_original_its_children_and_its_descriptors() {
    isolated(|| {
        let directory = tempdir();
        let socket = directory.join("notify");
        let mut host = Host::with(builder().notify_path(&socket).build().unwrap());
        let spec = GroupSpec::new("a", sh("echo up; read go; exit 3"))
            .instances(3)
            .notify_socket(true);
        let (group, ids) = host.add(spec.policy(at_once()));
        host.start_these(group);
        for &id in &ids {
            assert_eq!(host.line(id), "up");
        }
        host.until("all are up", |host| ids.iter().all(|&id| host.state(id) == Running));
        let registered = registrations(&host.supervisor);
        let mut host = Some(host);
        assert!(in_fork(|| drop(host.take())));
        let mut host = host.unwrap();
        assert!(socket.exists());
        assert_eq!(registrations(&host.supervisor), registered);
        for &id in &ids {
            assert_eq!(host.state(id), Running);
            host.go_on(id);
            host.until("it has ended by itself", |host| {
                host.status(id)
                    .last_exit
                    .is_some_and(|record| record.exit.code() == Some(3))
            });
        }
        host.shut_down();
        drop(host);
        assert!(!socket.exists());
    });
}

/// The registrations in the epoll of a set.
fn registrations(set: impl AsFd) -> usize {
    let info = format!("/proc/self/fdinfo/{}", set.as_fd().as_raw_fd());
    fs::read_to_string(info)
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("tfd:"))
        .count()
}

#[test]
fn dropping_a_copy_of_a_child_leaves_it_alive() {
    isolated(|| {
        let mut child = sleeper().spawn().unwrap();
        let mut copy = Some(&mut child);
        assert!(in_fork(|| {
            let child = copy.take().unwrap();
            // SAFETY: the copy ends by `_exit`, so that the value is dropped this once.
            drop(unsafe { std::ptr::read(child) });
        }));
        assert!(!wait_readable(child.pidfd(), Duration::ZERO));
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

fn is_refused<T>(result: io::Result<T>) -> bool {
    let inner = |error: io::Error| error.get_ref().is_some_and(|inner| inner.is::<OtherProcess>());
    result.is_err_and(inner)
}

#[test]
fn every_call_of_a_copy_of_a_supervisor_is_refused_and_does_nothing() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(GroupSpec::new("a", sh("echo up; read go")).policy(at_once()));
        let id = ids[0];
        host.start_these(id);
        assert_eq!(host.line(id), "up");
        host.until_state(id, Running);
        let went_well = in_fork(|| {
            let supervisor = &mut host.supervisor;
            let other = |result: Result<(), Error>| assert!(matches!(result, Err(Error::OtherProcess)), "{result:?}");
            let spec = || GroupSpec::new("b", sleeper());
            other(supervisor.add(spec()).map(drop));
            other(supervisor.add(spec().notify_socket(true)).map(drop));
            other(supervisor.plan_reload(group, &spec()).map(drop));
            other(supervisor.reload(group, spec()).map(drop));
            other(supervisor.scale(group, 2).map(drop));
            other(supervisor.rolling_restart(group, Rolling::default()).map(drop));
            other(supervisor.start(group).map(drop));
            other(supervisor.stop(group).map(drop));
            other(supervisor.restart(group).map(drop));
            other(supervisor.kill(Target::All).map(drop));
            other(supervisor.signal(id, Signal::KILL).map(drop));
            other(supervisor.report_ready(id));
            other(supervisor.report_alive(id));
            other(supervisor.dispatch().map(drop));
            let fd = supervisor.fds().iter().next().unwrap();
            other(supervisor.process_ready(fd.fd).map(drop));
            other(supervisor.process_token(fd.token).map(drop));
            other(supervisor.reap_orphans().map(drop));
            other(supervisor.remove(group).map(drop));
            other(supervisor.shutdown().map(drop));
        });
        assert!(went_well);
        host.nothing_for(Duration::from_millis(20));
        assert_eq!((host.state(id), host.status(id).runs), (Running, 1));
        host.shut_down();
    });
}

/// As after daemon(3), the host is a copy of a copy, and its original may be gone.
#[test]
fn a_host_that_becomes_a_daemon_after_building_gets_an_error() {
    let signals = SignalSet::EMPTY.with(Signal::TERM);
    Isolation::new().blocked(signals).run(|| {
        let supervisor = Supervisor::builder().signals(SignalFd::new(signals).unwrap()).build();
        let mut supervisor = supervisor.unwrap();
        assert!(in_fork(|| {
            rustix::process::setsid().unwrap();
            assert!(in_fork(|| {
                assert!(matches!(supervisor.dispatch(), Err(Error::OtherProcess)));
                let group = GroupSpec::new("a", sleeper());
                assert!(matches!(supervisor.add(group), Err(Error::OtherProcess)));
                // A supervisor that is built in this process works.
                let mut host = Host::new();
                let id = host.start(sh("exit 3"), at_once());
                host.until("it has ended", |host| host.status(id).last_exit.is_some());
            }));
        }));
        let early = SignalFd::new(signals).unwrap();
        assert!(in_fork(|| assert!(is_refused(
            Supervisor::builder().signals(early).build()
        ))));
    });
}

#[test]
fn a_copy_of_a_child_neither_waits_for_it_nor_kills_it() {
    isolated(|| {
        let mut child = sh("read go; exit 3").spawn().unwrap();
        assert!(in_fork(|| {
            assert!(is_refused(child.try_wait()));
            assert!(is_refused(child.wait_timeout(SOON)));
            assert!(is_refused(child.kill()));
            assert!(is_refused(child.wait()));
            assert!(child.stdin.is_some(), "nothing was done");
        }));
        assert_eq!(rustix::io::write(child.stdin.as_ref().unwrap(), b"\n"), Ok(1));
        assert_eq!(child.wait().unwrap().exit.code(), Some(3));
    });
}

#[test]
fn a_copy_of_a_set_or_a_timer_leaves_the_originals_alone() {
    isolated(|| {
        let (reader, writer) = UnixDatagram::pair().unwrap();
        let mut set = FdSet::new().unwrap();
        let token = set.add(reader.as_fd(), Interest::READ).unwrap();
        let mut timer = TimerFd::new(Clock::Monotonic).unwrap();
        let soon = Clock::Monotonic.now().saturating_add(Duration::from_millis(20));
        timer.arm(Some(soon)).unwrap();
        assert!(in_fork(|| {
            assert!(is_refused(set.ready(&mut Vec::new())));
            assert!(is_refused(set.add(writer.as_fd(), Interest::READ)));
            let own = reader.as_fd().try_clone_to_owned().unwrap();
            let back = set.remove(token, own).unwrap_err();
            assert!(back.to_string().contains("belongs to another process"), "{back}");
            assert!(is_refused(timer.arm(None)));
            assert!(wait_readable(&timer, SOON));
            assert!(is_refused(timer.acknowledge()));
            drop(FdSet::new().unwrap());
        }));
        assert_eq!(registrations(&set), 1);
        assert!(timer.acknowledge().unwrap());
        writer.send(b"x").unwrap();
        let mut ready = Vec::new();
        set.ready(&mut ready).unwrap();
        assert_eq!(ready, [token]);
        set.remove(token, reader.into()).unwrap();
    });
}

#[test]
fn a_copy_of_a_socket_or_a_pipe_takes_no_message_from_the_original() {
    isolated(|| {
        let directory = tempdir();
        let path = directory.join("notify");
        let mut socket = NotifySocket::bind(&path).unwrap();
        let (mut ready, writer) = ReadyFd::pipe().unwrap();
        UnixDatagram::unbound().unwrap().send_to(b"READY=1", &path).unwrap();
        assert_eq!(rustix::io::write(&writer, b"\n"), Ok(1));
        assert!(in_fork(|| {
            assert!(is_refused(socket.receive(&mut Buffer::new(), |_| Some(()))));
            assert!(is_refused(ready.read()));
            // SAFETY: the copy ends by `_exit`, so that the value is dropped this once.
            drop(unsafe { std::ptr::read(&socket) });
        }));
        assert!(path.exists());
        let mut buffer = Buffer::new();
        let received = socket.receive(&mut buffer, |_| Some(())).unwrap();
        assert!(matches!(received, Received::Message(_)));
        assert_eq!(ready.read().unwrap(), Readiness::Ready);
        drop(socket);
        assert!(!path.exists());
    });
}

#[test]
fn a_copy_of_a_signalfd_is_refused_and_a_mask_is_each_process_own() {
    isolated(|| {
        let set = SignalSet::EMPTY.with(Signal::USR1);
        let signals = SignalFd::new(set).unwrap();
        let mut guard = Some(MaskGuard::block(set).unwrap());
        let blocked = || fs::read_to_string("/proc/thread-self/status").unwrap();
        let blocked = || {
            blocked()
                .lines()
                .find(|line| line.starts_with("SigBlk:"))
                .unwrap()
                .to_owned()
        };
        let before = blocked();
        assert!(in_fork(|| {
            assert!(is_refused(signals.read()));
            drop(guard.take());
            assert_ne!(blocked(), before);
        }));
        assert_eq!(blocked(), before);
        assert!(signals.read().unwrap().is_none());
    });
}
