//! Processes with an ended first thread and other threads that run. Such a process is alive, but /proc shows the state
//! of a zombie.

mod common;
mod host;

use std::path::PathBuf;

use common::{SOON, TempDir, elf, isolated, processes, tempdir, test_cgroup, wait_gone, wait_until};
use host::{Host, at_once, ms, sh, term};
use pidherd::cgroup::CgroupDir;
use pidherd::lifecycle::StateName::{Fatal, Running, Stopped};
use pidherd::lifecycle::{Policy, Scope, Startup, StopLadder};
use pidherd::supervisor::End;
use pidherd::{Command, Exit, GroupSpec, Signal, Stdio};

/// Runs `body` in a process of its own, with the path of a program that ends its first thread while another one runs.
/// The program ignores SIGTERM.
fn leaderless(body: impl FnOnce(&PathBuf)) {
    if !elf::runs_or_skip() {
        return;
    }
    isolated(|| {
        let place: TempDir = tempdir();
        let program = place.join("leaderless");
        elf::install(&program, elf::LEADERLESS);
        body(&program);
    });
}

/// Waits until the process with this number looks like a zombie.
fn wait_leaderless(pid: u32) {
    wait_until("its first thread has ended", SOON, || {
        processes::state(pid) == Some('Z')
    });
}

/// The children of a process.
fn child_of(pid: u32) -> u32 {
    let mut child = None;
    let list = format!("/proc/{pid}/task/{pid}/children");
    wait_until("it has a child", SOON, || {
        let children = std::fs::read_to_string(&list).unwrap_or_default();
        child = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
        child.is_some()
    });
    child.unwrap()
}

fn policy(scope: Scope) -> Policy {
    at_once().stop(term(scope, ms(400)))
}

#[test]
fn a_stop_of_a_group_is_not_over_while_a_thread_of_it_lives() {
    leaderless(|program| {
        let mut host = Host::new();
        let script = format!("{} & echo up; trap 'exit 0' TERM; read never", program.display());
        let id = host.start(sh(&script).process_group(0), policy(Scope::ProcessGroup));
        assert_eq!(host.line(id), "up");
        host.until_state(id, Running);
        let helper = child_of(host.pid(id));
        wait_leaderless(helper);
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        // The process ignores SIGTERM, so it got SIGKILL and is dead or dying.
        assert!(wait_gone(helper, SOON));
        let steps = host.steps(id);
        let (stopping, stopped) = (steps[steps.len() - 2].at, steps[steps.len() - 1].at);
        assert!(
            stopped.saturating_duration_since(stopping) >= ms(400),
            "{}",
            host.story()
        );
    });
}

#[test]
fn a_process_that_lives_by_its_second_thread_is_noticed_when_it_gives_up_its_readiness() {
    leaderless(|program| {
        let mut host = Host::new();
        let policy = at_once()
            .startup(Startup::Notify { timeout: host::LONG })
            .start_retries(0)
            .stop(term(Scope::Process, ms(50)));
        let command = Command::new(program).stdin(Stdio::piped());
        let id = host.add(GroupSpec::new("a", command).policy(policy).ready_fd(3)).1[0];
        host.start_these(id);
        host.take_events();
        wait_leaderless(host.pid(id));
        host.go_on(id);
        host.until_state(id, Fatal);
        assert_eq!(host.supervisor.runs(id).last().unwrap().end, End::NotReady);
    });
}

#[test]
fn a_process_that_lives_by_its_second_thread_is_stopped_killed_and_dropped_like_any_other() {
    leaderless(|program| {
        for scope in [Scope::Process, Scope::ProcessGroup] {
            let mut host = Host::new();
            let spec = |name: &str| {
                let command = Command::new(program).stdin(Stdio::piped()).process_group(0);
                GroupSpec::new(name, command).policy(policy(scope))
            };
            let ids = ["stopped", "killed", "dropped"].map(|name| host.add(spec(name)).1[0]);
            let mut pids = Vec::new();
            for id in ids {
                host.start_these(id);
                host.until_state(id, Running);
                wait_leaderless(host.pid(id));
                pids.push(host.pid(id));
            }
            host.supervisor.stop(ids[0]).unwrap();
            host.supervisor.kill(ids[1]).unwrap();
            for id in [ids[0], ids[1]] {
                host.until_state(id, Stopped);
                let killed = Exit::Signal {
                    signal: Signal::KILL,
                    core: false,
                };
                // Linux 5.10 reports how the first thread ended.
                let exit = host.status(id).last_exit.unwrap().exit;
                assert!(exit == killed || exit == Exit::Code(0), "{exit}");
            }
            drop(host);
            assert!(pids.iter().all(|&pid| wait_gone(pid, SOON)));
        }
    });
}

#[test]
fn a_cgroup_is_killed_with_what_lives_by_its_second_thread() {
    leaderless(|program| {
        let Some(cgroup) = test_cgroup() else { return };
        let directory = CgroupDir::open(cgroup.path()).unwrap();
        // Killed by the primitive alone, in the cgroup and in one below it. A process is started in the lower cgroup,
        // or moved there afterwards, when the kernel does not list it among the processes.
        let leaf = directory.make("leaf").unwrap();
        let mut spawner = pidherd::Spawner::new().unwrap();
        let compiled = Command::new(program).compile().unwrap();
        let mut born = spawner.spawn_in(&compiled, Some(leaf.fd())).unwrap();
        let mut moved = Command::new(program).spawn().unwrap();
        wait_leaderless(born.pid().as_raw());
        wait_leaderless(moved.pid().as_raw());
        let below = leaf.path().join("below");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join("cgroup.procs"), moved.pid().to_string()).unwrap();
        leaf.kill().unwrap();
        for child in [&mut born, &mut moved] {
            let record = child.wait_timeout(SOON).unwrap().expect("it has been killed");
            assert_eq!(record.exit.signal(), Some(Signal::KILL));
        }
        wait_until("the cgroup is empty", SOON, || !leaf.is_populated().unwrap());
        leaf.remove().unwrap();
        // Killed by a stop ladder, and by the end of a run.
        for stop in [StopLadder::kill(Scope::Cgroup), StopLadder::kill(Scope::Process)] {
            let mut host = Host::new();
            let script = format!("setsid {} & echo up; read never", program.display());
            let policy = at_once().stop(stop);
            let spec = GroupSpec::new("tree", sh(&script))
                .policy(policy)
                .cgroup(directory.clone());
            let id = host.add(spec).1[0];
            host.start_these(id);
            assert_eq!(host.line(id), "up");
            let helper = child_of(host.pid(id));
            wait_leaderless(helper);
            host.supervisor.stop(id).unwrap();
            host.until_state(id, Stopped);
            assert!(wait_gone(helper, SOON));
            host.until("its cgroup is removed", |_| !cgroup.path().join("tree-0").exists());
        }
    });
}
