//! Supervision under a filter that refuses the calls that the library tries first, as in an old container.

mod common;
mod host;

use std::time::Duration;

use common::refuse::refusing;
use common::{SOON, isolated, skipped, test_cgroup, wait_gone, wait_readable, wait_until};
use host::{Host, at_once, ms, sh, sleeper, term};
use pidherd::cgroup::CgroupDir;
use pidherd::lifecycle::StateName::{Exited, Running, Stopped};
use pidherd::lifecycle::{Policy, Scope};
use pidherd::{Exit, GroupSpec, Signal};

/// The errnos that a filter may return for a call that it does not know.
const ERRNOS: [i32; 2] = [libc::EPERM, libc::ENOSYS];

/// Runs a test without pidfd_send_signal(2), once for each of these errnos.
fn without_pidfd_signals(body: impl Fn() + Sync) {
    isolated(|| {
        for errno in ERRNOS {
            refusing(libc::SYS_pidfd_send_signal, errno, &body);
        }
    });
}

fn policy(scope: Scope, wait: Duration) -> Policy {
    at_once().stop(term(scope, wait))
}

const fn killed(signal: Signal) -> Exit {
    Exit::Signal { signal, core: false }
}

#[test]
fn an_instance_is_stopped_killed_and_signalled_without_pidfd_signals() {
    without_pidfd_signals(|| {
        for scope in [Scope::Process, Scope::ProcessGroup] {
            let mut host = Host::new();
            let heeds = || sh("trap 'exit 4' TERM; trap 'echo hup' HUP; echo up; read a; read b").process_group(0);
            let defies = || sh("trap '' TERM; echo up; read never").process_group(0);
            let spec = GroupSpec::new("heeds", heeds()).policy(policy(scope, host::LONG));
            let heeds = host.add(spec).1[0];
            let defies = host
                .add(GroupSpec::new("defies", defies()).policy(policy(scope, ms(50))))
                .1[0];
            for id in [heeds, defies] {
                host.start_these(id);
                assert_eq!(host.line(id), "up");
            }
            host.supervisor.signal(heeds, Signal::HUP).unwrap();
            assert_eq!(host.line(heeds), "hup");
            for (id, exit) in [(heeds, Exit::Code(4)), (defies, killed(Signal::KILL))] {
                host.until_state(id, Running);
                host.supervisor.stop(id).unwrap();
                host.until_state(id, Stopped);
                assert_eq!(host.status(id).last_exit.unwrap().exit, exit);
            }
            host.start_these(defies);
            assert_eq!(host.line(defies), "up");
            host.supervisor.kill(defies).unwrap();
            host.until_state(defies, Stopped);
            host.shut_down();
        }
    });
}

#[test]
fn what_a_process_leaves_in_its_group_is_killed_without_pidfd_signals() {
    without_pidfd_signals(|| {
        let mut host = Host::new();
        let script = "sh -c 'trap \"\" TERM; echo $$; exec sleep 1000' & read go; exit 3";
        let id = host.start(sh(script).process_group(0), policy(Scope::ProcessGroup, ms(50)));
        let left: u32 = host.line(id).parse().unwrap();
        host.go_on(id);
        host.until_state(id, Exited);
        assert!(wait_gone(left, SOON));
        assert_eq!(host.status(id).last_exit.unwrap().exit, Exit::Code(3));
        host.shut_down();
    });
}

#[test]
fn children_and_supervisors_are_dropped_without_pidfd_signals() {
    without_pidfd_signals(|| {
        let mut child = sleeper().spawn().unwrap();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().exit, killed(Signal::KILL));
        let child = sleeper().spawn().unwrap();
        let pid = child.pid().as_raw();
        drop(child);
        assert!(wait_gone(pid, SOON));
        // A child that was reaped is not signalled by number.
        let pidfd = sh("exit").spawn().unwrap().into_pidfd();
        wait_until("it has ended", SOON, || pidfd.reap().unwrap().is_some());
        assert!(pidfd.signal(Signal::KILL).is_err());

        let mut host = Host::new();
        let spec = GroupSpec::new("a", sleeper().process_group(0)).instances(3);
        let (group, ids) = host.add(spec.policy(policy(Scope::ProcessGroup, ms(50))));
        host.start_these(group);
        let pids: Vec<u32> = ids.iter().map(|&id| host.pid(id)).collect();
        drop(host);
        assert!(pids.into_iter().all(|pid| wait_gone(pid, SOON)));
    });
}

#[test]
fn a_child_that_has_ended_and_cannot_be_signalled_is_reaped_when_it_is_dropped() {
    without_pidfd_signals(|| {
        refusing(libc::SYS_kill, libc::EPERM, || {
            let child = sh("exit").spawn().unwrap();
            let pid = child.pid().as_raw();
            assert!(wait_readable(child.pidfd(), SOON));
            drop(child);
            assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
        });
    });
}

#[test]
fn a_command_that_takes_too_long_is_stopped_with_its_group_without_pidfd_signals() {
    isolated(|| {
        for errno in [libc::EPERM, libc::ENOSYS, libc::EINVAL] {
            refusing(libc::SYS_pidfd_send_signal, errno, || {
                let run = |script: &str| {
                    let command = sh(script).process_group(0);
                    let exchange = command.exchange().time_limit(ms(200));
                    exchange.stop(Signal::TERM, host::LONG).run().unwrap()
                };
                // The group gets the signal, and what is left of it is killed when the leader has ended.
                let output = run(
                    "(trap 'echo heard; exit' TERM; while :; do sleep 0.01; done) & trap 'wait; exit 7' TERM; wait",
                );
                assert_eq!(
                    (output.record.exit, output.stdout.as_slice()),
                    (Exit::Code(7), &b"heard\n"[..])
                );
                let output = run("sh -c 'trap \"\" TERM; echo $$; exec sleep 1000' & trap 'exit 7' TERM; wait");
                assert_eq!(
                    (output.record.exit, output.timed_out, output.forced),
                    (Exit::Code(7), true, false)
                );
                let left = std::str::from_utf8(&output.stdout).unwrap().trim().parse().unwrap();
                assert!(wait_gone(left, SOON));
            });
        }
    });
}

#[test]
fn a_cgroup_is_stopped_where_neither_its_members_nor_its_kill_can_be_had() {
    isolated(|| {
        let Some(cgroup) = test_cgroup() else { return };
        let directory = CgroupDir::open(cgroup.path()).unwrap();
        for (call, errno) in [
            (libc::SYS_pidfd_send_signal, libc::EPERM),
            (libc::SYS_pidfd_send_signal, libc::ENOSYS),
            (libc::SYS_pidfd_open, libc::EPERM),
        ] {
            if call == libc::SYS_pidfd_open && !cgroup.path().join("cgroup.kill").exists() {
                skipped("without pidfd_open it needs Linux 5.14");
                continue;
            }
            refusing(call, errno, || {
                let mut host = Host::new();
                let script = "(setsid sleep 1000 &); trap 'exit 4' TERM; echo up; read never";
                let spec = GroupSpec::new("tree", sh(script)).policy(policy(Scope::Cgroup, ms(300)));
                let id = host.add(spec.cgroup(directory.clone())).1[0];
                host.start_these(id);
                assert_eq!(host.line(id), "up");
                host.until_state(id, Running);
                host.supervisor.stop(id).unwrap();
                host.until_state(id, Stopped);
                assert_eq!(
                    host.status(id).last_exit.unwrap().exit,
                    Exit::Code(4),
                    "{}",
                    host.story()
                );
                host.shut_down();
            });
            wait_until("its cgroup is removed", SOON, || !cgroup.path().join("tree-0").exists());
        }
    });
}
