//! Tests of the ways that a signal takes to a process, its group, or its cgroup.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{self, Child, Stdio};

use rustix::process::{Pid as RawPid, getpgrp, setpgid};

use super::*;
use crate::cgroup::CgroupDir;
use crate::signal::SignalSet;
use crate::sys::signalfd::{discard_pending, is_pending};
use crate::testing::common::fork::waiting_copy;
use crate::testing::common::refuse::refusing;
use crate::testing::common::{Isolation, SOON, isolated, tempdir, wait_readable};

/// A process that has not been reaped, and is in no set.
fn watched(pidfd: PidFd) -> Watched {
    Watched {
        pidfd,
        watch: Watch::Late(0),
        slot: 0,
        in_flight: None,
        rest: None,
    }
}

/// How often this signal is pending. None of it is left.
fn count(signal: Signal) -> u32 {
    let mut count = 0;
    while is_pending(signal) {
        discard_pending(signal);
        count += 1;
    }
    count
}

#[test]
fn no_process_gets_a_signal_twice() {
    // One that is sent twice is pending twice, unlike the others.
    let signal: Signal = "RTMIN+3".parse().unwrap();
    Isolation::new().blocked(SignalSet::EMPTY.with(signal)).run(|| {
        // This process leads its group, and is its only member.
        let own = || watched(PidFd::open(process::id()).unwrap());
        for scope in [Scope::Process, Scope::ProcessGroup, Scope::Cgroup] {
            send(&own(), signal, scope).unwrap();
            assert_eq!(count(signal), 1, "{scope:?}");
        }
        // A cgroup that lists it, and one that it has left.
        let directory = tempdir();
        let directory = CgroupDir::plain(directory.path());
        for (name, members) in [("in", format!("{}\n", process::id())), ("out", String::new())] {
            let cgroup = directory.make(name).unwrap();
            fs::write(cgroup.path().join("cgroup.procs"), members).unwrap();
            let mut own = own();
            own.rest = Rest {
                run_cgroup: Some(RunCgroup::of(cgroup)),
                ..Rest::default()
            }
            .boxed();
            send(&own, signal, Scope::Cgroup).unwrap();
            assert_eq!(count(signal), 1, "{name}");
        }
    });
}

/// SIGKILL, and a signal to a group without any process, also reach a leader when its group is not known: it may leave
/// the group at any moment.
#[test]
fn a_leader_that_has_left_its_group_gets_the_signals_of_the_group() {
    isolated(|| {
        for (signal, has_member, is_unknown) in [
            (Signal::TERM, true, false),
            (Signal::TERM, false, true),
            (Signal::KILL, true, true),
            (Signal::KILL, false, true),
        ] {
            let copy = || RawPid::from_raw(waiting_copy() as i32);
            let leader = copy();
            setpgid(leader, leader).unwrap();
            let member = if has_member { copy() } else { None };
            member.map_or(Ok(()), |_| setpgid(member, leader)).unwrap();
            setpgid(leader, Some(getpgrp())).unwrap();
            let open = |number: RawPid| PidFd::open(number.as_raw_nonzero().get() as u32).unwrap();
            let process = watched(open(leader.unwrap()));
            if is_unknown {
                refusing(libc::SYS_getpgid, libc::EPERM, move || {
                    send(&process, signal, Scope::ProcessGroup)
                })
            } else {
                send(&process, signal, Scope::ProcessGroup)
            }
            .unwrap();
            for pidfd in [leader, member].into_iter().flatten().map(open) {
                assert!(wait_readable(&pidfd, SOON), "{signal}, {has_member}");
                assert_eq!(pidfd.wait_and_reap().unwrap().exit.signal(), Some(signal));
            }
        }
    });
}

/// A process that waits for the end of its input, in the group with this number or in one of its own.
fn waiting(group: u32) -> Child {
    let mut command = process::Command::new("/bin/sh");
    command.args(["-c", "read go; exit 3"]).stdin(Stdio::piped());
    command.process_group(group as i32).spawn().unwrap()
}

/// The signal that has ended the process; `None` if none did, so that it has read its input. (It takes a signal that
/// was sent before the end of its input first.)
fn signal_of(mut child: Child) -> Option<Signal> {
    drop(child.stdin.take());
    let pidfd = PidFd::open(child.id()).unwrap();
    let exit = pidfd.wait_and_reap().unwrap().exit;
    assert!(exit.code().is_none_or(|code| code == 3), "{exit}");
    exit.signal()
}

/// As before Linux 6.9, or under a filter that does not know the call.
#[test]
fn a_group_is_signalled_by_its_number_only_while_that_belongs_to_it() {
    let signalled = |pidfd, errno| {
        refusing(libc::SYS_pidfd_send_signal, errno, move || {
            send(&watched(pidfd), Signal::TERM, Scope::ProcessGroup)
        })
    };
    let pidfd = |child: &Child| PidFd::open(child.id()).unwrap();
    isolated(|| {
        for errno in [libc::EINVAL, libc::ENOSYS, libc::EPERM] {
            let leader = waiting(0);
            let member = waiting(leader.id());
            signalled(pidfd(&leader), errno).unwrap();
            assert_eq!([leader, member].map(signal_of), [Some(Signal::TERM); 2], "{errno}");
        }
        for is_taken in [false, true] {
            let leader = waiting(0);
            let member = waiting(leader.id());
            let other = waiting(0);
            let (reaped, number) = (pidfd(&leader), pidfd(&leader).pid());
            // The host has reaped it.
            assert_eq!(signal_of(leader), None);
            // This stands for a process that got the number later, and leads a group, too.
            let number = if is_taken { pidfd(&other).pid() } else { number };
            let reaped = PidFd::new(reaped.as_fd().try_clone_to_owned().unwrap(), number);
            signalled(reaped, libc::ENOSYS).unwrap();
            let expected = (!is_taken).then_some(Signal::TERM);
            assert_eq!([member, other].map(signal_of), [expected, None], "{is_taken}");
        }
    });
}
