//! What the instances of a group are to each other is found again.

use super::*;
use host::wait_for_sleep;
use pidherd::lifecycle::{Cause, CrashBudget, Wanted};
use pidherd::{AutoShutdown, Strategy};

/// A process that only SIGKILL ends.
fn stubborn() -> Command {
    quiet_sh("trap '' TERM; exec sleep 1000")
}

fn kill(pid: u32) {
    let raw = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
}

fn members(host: &Host) -> [InstanceId; 3] {
    ["x:0", "x:1", "x:2"].map(|name| named(host, name))
}

/// A host with a running group, and its processes.
fn running(state: &Path, spec: &GroupSpec) -> (Host, [u32; 3]) {
    let mut host = host(state, vec![spec.clone()]);
    let ids = members(&host);
    for id in ids {
        host.until_state(id, Running);
    }
    let pids = ids.map(|id| host.pid(id));
    pids.iter().for_each(|&pid| wait_for_sleep(pid));
    (host, pids)
}

fn pids_told(path: &Path) -> [u32; 3] {
    let pids: Vec<u32> = told(path).split(' ').map(|pid| pid.parse().unwrap()).collect();
    pids.try_into().unwrap()
}

fn tell_pids(path: &Path, pids: [u32; 3]) {
    tell(path, &pids.map(|pid| pid.to_string()).join(" "));
}

fn runs(host: &Host) -> [u64; 3] {
    members(host).map(|id| host.status(id).runs)
}

fn group(policy: Policy) -> GroupSpec {
    GroupSpec::new("x", stubborn())
        .policy(policy)
        .stop(term(Scope::Process, LONG))
        .instances(3)
}

#[test]
fn a_joint_restart_goes_on_when_all_have_ended() {
    with_hosts(120, |state| {
        let spec = group(for_ever()).strategy(Strategy::OneForAll);
        let ready = state.with_file_name("ready");
        killed_host(
            || {
                let (mut host, pids) = running(state, &spec);
                let ids = members(&host);
                kill(pids[0]);
                host.until_state(ids[0], Backoff);
                assert_eq!([1, 2].map(|place| host.state(ids[place])), [Stopping, Stopping]);
                tell_pids(&ready, pids);
                stay(host);
            },
            || drop(told(&ready)),
        );
        let pids = pids_told(&ready);
        // One ends while no host is there.
        kill(pids[1]);
        assert!(wait_gone(pids[1], SOON));
        let mut host = host(state, vec![spec]);
        let ids = members(&host);
        host.until_state(ids[1], Backoff);
        for _ in 0..3 {
            host.turn(ms(20));
        }
        assert_eq!(ids.map(|id| host.state(id)), [Backoff, Backoff, Stopping]);
        assert_eq!(runs(&host), [1, 1, 1]);
        kill(pids[2]);
        host.until("all run again", |host| {
            runs(host) == [2, 2, 2] && ids.iter().all(|&id| host.state(id) == Running)
        });
        host.supervisor.kill(pidherd::Target::All).unwrap();
        host.shut_down();
    });
}

#[test]
fn an_end_while_no_host_is_there_restarts_the_siblings() {
    with_hosts(120, |state| {
        let spec = GroupSpec::new("x", sleeper()).policy(for_ever()).instances(3);
        let spec = spec.strategy(Strategy::RestForOne);
        let ready = state.with_file_name("ready");
        killed_host(
            || {
                let (host, pids) = running(state, &spec);
                tell_pids(&ready, pids);
                stay(host);
            },
            || drop(told(&ready)),
        );
        let pids = pids_told(&ready);
        kill(pids[1]);
        assert!(wait_gone(pids[1], SOON));
        let mut host = host(state, vec![spec]);
        host.until("two were restarted", |host| {
            runs(host) == [1, 2, 2] && members(host).iter().all(|&id| host.state(id) == Running)
        });
        assert_eq!(host.pid(members(&host)[0]), pids[0]);
        host.shut_down();
    });
}

#[test]
fn the_crashes_of_all_instances_are_found_again() {
    with_hosts(120, |state| {
        let spec = GroupSpec::new("x", sleeper()).policy(for_ever()).instances(3);
        let spec = spec.shared_budget(CrashBudget::new(2, LONG));
        let ready = state.with_file_name("ready");
        killed_host(
            || {
                let (mut host, pids) = running(state, &spec);
                for place in [0, 1] {
                    kill(pids[place]);
                    host.until("it runs again", |host| {
                        let id = members(host)[place];
                        host.status(id).runs == 2 && host.state(id) == Running
                    });
                }
                tell_pids(&ready, members(&host).map(|id| host.pid(id)));
                stay(host);
            },
            || drop(told(&ready)),
        );
        let mut host = host(state, vec![spec]);
        kill(pids_told(&ready)[2]);
        let last = members(&host)[2];
        host.until_state(last, Fatal);
        assert_eq!(host.steps(last).last().unwrap().cause, Cause::CrashBudgetUsedUp);
        host.shut_down();
    });
}

#[test]
fn a_group_that_stops_after_the_first_end_goes_on_to_stop() {
    with_hosts(120, |state| {
        let spec = group(at_once()).auto_shutdown(AutoShutdown::AnyEnd);
        let ready = state.with_file_name("ready");
        killed_host(
            || {
                let (mut host, pids) = running(state, &spec);
                let ids = members(&host);
                kill(pids[0]);
                for id in [ids[1], ids[2]] {
                    host.until_state(id, Stopping);
                }
                tell_pids(&ready, pids);
                stay(host);
            },
            || drop(told(&ready)),
        );
        let pids = pids_told(&ready);
        kill(pids[1]);
        assert!(wait_gone(pids[1], SOON));
        let mut host = host(state, vec![spec]);
        let ids = members(&host);
        host.until_state(ids[1], Stopped);
        kill(pids[2]);
        host.until_state(ids[2], Stopped);
        assert_eq!(runs(&host), [1, 1, 1]);
        let group = host.status(ids[0]).group;
        assert_eq!(host.supervisor.group(group).unwrap().wanted, Wanted::Down);
        host.shut_down();
    });
}
