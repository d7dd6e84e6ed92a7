//! Stops while no descriptor is free.

use std::time::Duration;

use pidherd::cgroup::CgroupDir;
use pidherd::lifecycle::Scope;
use pidherd::lifecycle::StateName::{Running, Stopped, Stopping};
use pidherd::{GroupSpec, InstanceId};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::common::descriptors::NoDescriptors;
use super::common::{isolated, kernel_since, skipped, test_cgroup};
use super::host::{Host, LONG, at_once, ms, sh, term};

/// The child of a process of the tests.
const CHILD: &str = "sh -c \"trap '' TERM; echo up \\$\\$; exec sleep 1000\"";

/// A process that SIGTERM ends, with a child that ignores it. Returns the number of the child.
fn with_a_child(host: &mut Host, child: &str, spec: impl FnOnce(GroupSpec) -> GroupSpec) -> (InstanceId, u32) {
    let script = format!("trap 'exit 0' TERM; {child} & read never");
    let group = GroupSpec::new("a", sh(&script).process_group(0));
    let id = host.add(spec(group)).1[0];
    host.start_these(id);
    let line = host.line(id);
    let child = line.strip_prefix("up ").unwrap().parse().unwrap();
    host.until_state(id, Running);
    (id, child)
}

/// Whether a process exists. Without a free descriptor, /proc does not tell.
fn exists(pid: u32) -> bool {
    test_kill_process(Pid::from_raw(pid as i32).unwrap()).is_ok()
}

/// Stops an instance, and turns until its process has ended and is reaped.
fn stop_the_leader(host: &mut Host, id: InstanceId) {
    let leader = host.pid(id);
    host.supervisor.stop(id).unwrap();
    // The processes of a cgroup cannot be listed without a descriptor, so they did not get the signal.
    let _ended = kill_process(Pid::from_raw(leader as i32).unwrap(), Signal::TERM);
    host.until("the process has ended", |_| !exists(leader));
}

/// Whether the kernel lets a pidfd reach a process group. Otherwise the group is killed at once.
fn reaches_groups() -> bool {
    let reaches = kernel_since(6, 9);
    if !reaches {
        skipped("a pidfd reaches no process group before Linux 6.9");
    }
    reaches
}

#[test]
fn the_other_processes_of_a_group_still_have_the_time_to_end() {
    isolated(|| {
        if !reaches_groups() {
            return;
        }
        let mut host = Host::new();
        let policy = at_once().stop(term(Scope::ProcessGroup, LONG));
        let (id, child) = with_a_child(&mut host, CHILD, |group| group.policy(policy));
        let limit = NoDescriptors::left();
        stop_the_leader(&mut host, id);
        for _ in 0..3 {
            host.turn(ms(50));
        }
        assert_eq!(host.state(id), Stopping);
        assert!(exists(child));
        host.supervisor.kill(id).unwrap();
        host.until_state(id, Stopped);
        drop(limit);
    });
}

#[test]
fn a_host_with_an_epoll_of_its_own_sleeps_again_when_a_descriptor_is_free() {
    isolated(|| {
        let Some(root) = test_cgroup().filter(|_| reaches_groups()) else {
            return;
        };
        let mut host = Host::with_own_epoll();
        let policy = at_once().stop(term(Scope::Cgroup, LONG));
        let directory = CgroupDir::open(root.path()).unwrap();
        // The stop kills the process group at once, because it cannot watch it.
        let child = format!("setsid {CHILD}");
        let (id, child) = with_a_child(&mut host, &child, |group| group.cgroup(directory).policy(policy));
        host.turn(ms(10));
        let limit = NoDescriptors::left();
        stop_the_leader(&mut host, id);
        drop(limit);
        // It looks at the cgroup from time to time, which it cannot wait for.
        assert!((0..1_000).any(|_| !host.turn(Duration::ZERO)), "it is always ready");
        assert_eq!(host.state(id), Stopping);
        assert!(exists(child));
        host.supervisor.kill(id).unwrap();
        host.until_state(id, Stopped);
    });
}
