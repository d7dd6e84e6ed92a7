//! Why a run ended: processes that the kernel really kills for lack of memory, beside SIGKILL from outside, crashes and
//! exits.

use std::fs;

use pidherd::cgroup::{CgroupDir, CgroupUsage, Limits, OomLimit};
use pidherd::lifecycle::StateName::{Exited, Running, Stopped};
use pidherd::lifecycle::{Scope, StopLadder};
use pidherd::supervisor::{End, Run};
use pidherd::{Command, GroupSpec, InstanceId, Signal};

use crate::common::memory::{EATING, EATS, LIMIT, limit, no_swap};
use crate::common::{TestCgroup, kernel_since};
use crate::host::{Host, at_once, sh};
use crate::with_controllers;

fn group(name: &str, command: Command, dir: &CgroupDir, limits: Limits) -> GroupSpec {
    let policy = at_once().stop(StopLadder::kill(Scope::Cgroup));
    GroupSpec::new(name, command)
        .policy(policy)
        .cgroup(dir.clone())
        .limits(no_swap(dir, limits))
}

/// The next run of an instance, when it has ended by itself.
fn next_run(host: &mut Host, id: InstanceId) -> Run {
    let before = host.status(id).runs;
    host.start_these(id);
    host.until("it has run", |host| {
        host.status(id).runs > before && host.state(id) == Exited
    });
    host.supervisor.runs(id).last().unwrap()
}

fn run_of(host: &mut Host, name: &str, command: Command, dir: &CgroupDir, limits: Limits) -> Run {
    let id = host.add(group(name, command, dir, limits)).1[0];
    next_run(host, id)
}

fn used(run: &Run) -> CgroupUsage {
    run.cgroup.unwrap()
}

/// The end of a process that the kernel has killed for lack of memory, and that was alone in its cgroup. An older kernel
/// does not count that.
fn alone(limit: OomLimit) -> End {
    match kernel_since(6, 1) {
        true => End::OutOfMemory(limit),
        false => End::MaybeOutOfMemory(limit),
    }
}

fn own() -> Limits {
    Limits::new().memory_max(LIMIT)
}

#[test]
fn the_limit_of_its_own_cgroup() {
    with_controllers(&["memory", "pids"], |_, dir| {
        let mut host = Host::new();
        // The first act of the program is to use more than it may.
        let eats = || Command::new("/usr/bin/awk").arg(EATING);
        let whole = End::OutOfMemory(OomLimit::Own);
        for (name, limits, end) in [
            ("one", own(), alone(OomLimit::Own)),
            ("all", own().memory_oom_group(true), whole),
        ] {
            let id = host.add(group(name, eats(), &dir, limits)).1[0];
            for _ in 0..3 {
                let run = next_run(&mut host, id);
                assert_eq!(run.end, end);
                // With `memory.oom.group` the kernel counts the process that it has chosen once more.
                assert!(matches!(used(&run).oom_kills, Some(1 | 2)), "{run:?}");
                assert_eq!(run.exit.unwrap().exit.signal(), Some(Signal::KILL));
                if kernel_since(6, 1) {
                    let text = "killed, out of memory: the limit of its own cgroup";
                    assert_eq!(run.end.to_string(), text);
                }
            }
        }
    });
}

#[test]
fn a_child_that_is_killed_does_not_end_the_run_but_its_group_does() {
    with_controllers(&["memory", "pids"], |_, dir| {
        let mut host = Host::new();
        let script = format!("{EATS} & wait $!; exit 3");
        for round in 0..3 {
            let run = run_of(&mut host, &format!("one{round}"), sh(&script), &dir, own());
            assert_eq!(run.end, End::Exited(3));
            assert_eq!(used(&run).oom_kills, Some(1), "{run:?}");
            let limits = own().memory_oom_group(true);
            let run = run_of(&mut host, &format!("all{round}"), sh(&script), &dir, limits);
            assert_eq!(run.end, End::OutOfMemory(OomLimit::Own));
            assert!(used(&run).oom_kills >= Some(2), "{run:?}");
        }
    });
}

#[test]
fn the_limit_of_a_cgroup_above() {
    with_controllers(&["memory", "pids"], |cgroup, outer| {
        outer.enable_controllers(&own()).unwrap();
        let inner = cgroup.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let dir = CgroupDir::open(&inner).unwrap();
        let mut host = Host::new();
        // A limit that is never reached enables the controller.
        let high = || Limits::new().memory_max(4 << 30);
        let eats = || sh(&format!("exec {EATS}"));
        for (name, limited, levels) in [("near", inner.as_path(), 1), ("far", cgroup.path(), 2)] {
            limit(limited);
            let id = host.add(group(name, eats(), &dir, high())).1[0];
            for _ in 0..3 {
                let run = next_run(&mut host, id);
                assert_eq!(run.end, alone(OomLimit::Ancestor { levels }), "{name}");
            }
            // The own limit is lower, and reached first.
            let lower = Limits::new().memory_max(LIMIT / 2);
            let run = run_of(&mut host, &format!("{name}-own"), eats(), &dir, lower);
            assert_eq!(run.end, alone(OomLimit::Own), "{name}");
            fs::write(limited.join("memory.max"), "max").unwrap();
        }
        host.shut_down();
        drop((host, dir));
        fs::remove_dir(&inner).unwrap();
    });
}

#[test]
fn a_cgroup_above_that_is_killed_as_a_whole() {
    with_controllers(&["memory", "pids"], |cgroup, dir| {
        let mut host = Host::new();
        let high = || Limits::new().memory_max(4 << 30);
        let eats = group("eats", sh(&format!("read go; exec {EATS}")), &dir, high());
        let waits = group("waits", sh("read go; exit 0"), &dir, high());
        let ids = [eats, waits].map(|spec| host.add(spec).1[0]);
        limit(cgroup.path());
        fs::write(cgroup.path().join("memory.oom.group"), "1").unwrap();
        for id in ids {
            host.start_these(id);
            host.until_state(id, Running);
        }
        host.go_on(ids[0]);
        for id in ids {
            host.until_state(id, Exited);
            let run = host.supervisor.runs(id).last().unwrap();
            assert_eq!(run.end, alone(OomLimit::Ancestor { levels: 1 }), "{run:?}");
        }
        host.shut_down();
    });
}

#[test]
fn a_kill_from_outside_beside_old_and_foreign_events() {
    with_controllers(&["memory", "pids"], |cgroup, dir| {
        let mut host = Host::new();
        let script = format!("read go; case $go in eat) exec {EATS};; *) kill -$go $$;; esac");
        let id = host.add(group("a", sh(&script), &dir, own())).1[0];
        let end = |host: &mut Host, word: &str| {
            host.start_these(id);
            host.until_state(id, Running);
            say(host, id, word);
            host.until_state(id, Exited);
            host.supervisor.runs(id).last().unwrap().end
        };
        let killed = End::KilledFromOutside(Signal::KILL);
        assert_eq!(end(&mut host, "eat"), alone(OomLimit::Own));
        assert_eq!(end(&mut host, "KILL"), killed, "an earlier run was out of memory");
        // Another group reaches the limit of the directory, and its own process is killed.
        limit(cgroup.path());
        host.start_these(id);
        host.until_state(id, Running);
        let high = Limits::new().memory_max(4 << 30);
        let other = run_of(&mut host, "b", sh(&format!("exec {EATS}")), &dir, high);
        assert_eq!(other.end, alone(OomLimit::Ancestor { levels: 1 }));
        assert_eq!(host.state(id), Running);
        say(&mut host, id, "KILL");
        host.until_state(id, Exited);
        assert_eq!(host.supervisor.runs(id).last().unwrap().end, killed);
        fs::write(cgroup.path().join("memory.max"), "max").unwrap();
        assert_eq!(end(&mut host, "TERM"), End::KilledFromOutside(Signal::TERM));
        let crashed = End::Crashed {
            signal: Signal::SEGV,
            core: false,
        };
        assert_eq!(end(&mut host, "SEGV"), crashed);
        assert_eq!(end(&mut host, "eat"), alone(OomLimit::Own));
    });
}

#[test]
fn a_stop_and_a_crash_stay_what_they_are_after_a_child_was_killed() {
    with_controllers(&["memory", "pids"], |_, dir| {
        let mut host = Host::new();
        let script = format!("{EATS} & wait $!; echo killed; read go; eval \"$go\"");
        let start = |host: &mut Host, name: &str| {
            let id = host.add(group(name, sh(&script), &dir, own())).1[0];
            host.start_these(id);
            host.until_state(id, Running);
            assert_eq!(host.line(id), "killed");
            assert_eq!(host.supervisor.usage(id).unwrap().oom_kills, Some(1));
            id
        };
        let id = start(&mut host, "stopped");
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(host.supervisor.runs(id).last().unwrap().end, End::Stopped);
        let id = start(&mut host, "crashed");
        say(&mut host, id, "kill -ABRT $$");
        host.until_state(id, Exited);
        let run = host.supervisor.runs(id).last().unwrap();
        assert!(
            matches!(
                run.end,
                End::Crashed {
                    signal: Signal::ABRT,
                    ..
                }
            ),
            "{run:?}"
        );
        assert_eq!(used(&run).oom_kills, Some(1));
    });
}

/// The kernel does not tell which process it has killed, and so the supervisor does not either.
#[test]
fn a_kill_from_outside_after_a_child_was_killed_is_not_taken_for_the_kernels() {
    with_controllers(&["memory", "pids"], |_, dir| {
        let mut host = Host::new();
        let script = format!("{EATS} & wait $!; echo killed; read go");
        let id = host.add(group("a", sh(&script), &dir, own())).1[0];
        for _ in 0..2 {
            host.start_these(id);
            assert_eq!(host.line(id), "killed");
            let pid = rustix::process::Pid::from_raw(host.pid(id) as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            host.until_state(id, Exited);
            let run = host.supervisor.runs(id).last().unwrap();
            assert_eq!(run.end, End::MaybeOutOfMemory(OomLimit::Own));
            let text = "killed, perhaps out of memory: the limit of its own cgroup";
            assert_eq!(run.end.to_string(), text);
        }
    });
}

#[test]
fn a_fork_that_a_limit_refuses_is_a_fact_beside_the_end() {
    with_controllers(&["pids"], |_, dir| {
        let mut host = Host::new();
        // The first act of the program is a fork that is one too many. Some shells try again and then exit with 2, and
        // others end the script at once.
        let mut run = |name: &str, limits: Limits| {
            let spec = GroupSpec::new(name, sh("(exit 0); exit 7")).policy(at_once());
            let id = host.add(spec.cgroup(dir.clone()).limits(limits)).1[0];
            next_run(&mut host, id)
        };
        let refused = run("few", Limits::new().pids_max(1));
        assert!(
            matches!(refused.end, End::Exited(_)) && refused.end != End::Exited(7),
            "{refused:?}"
        );
        assert!(used(&refused).pids_refused >= Some(1), "{refused:?}");
        let enough = run("enough", Limits::new().pids_max(2));
        assert_eq!(enough.end, End::Exited(7));
        assert_eq!(used(&enough).pids_refused, Some(0));
    });
}

#[test]
fn a_lower_limit_that_a_reload_brings_kills_and_is_the_own_one() {
    with_controllers(&["memory", "pids"], |_, dir| {
        let mut host = Host::new();
        // It keeps 64 MB, and then uses more.
        let program = r#"BEGIN { x = "0123456789abcdef"; for (i = 0; i < 22; i++) x = x x; print "has"; fflush();
            system("read go"); y = x x; exit 0 }"#;
        let script = format!("exec awk '{program}'");
        // It has had a child, so the kernel tells of its death only if it kills the whole cgroup.
        let spec = |limits: Limits| group("a", sh(&script), &dir, limits.memory_oom_group(true));
        let (id, ids) = host.add(spec(Limits::new().memory_max(1 << 30)));
        host.start_these(id);
        host.until_state(ids[0], Running);
        assert_eq!(host.line(ids[0]), "has");
        host.supervisor.reload(id, spec(own())).unwrap();
        // Its next allocation is too much. An older kernel has killed it already, and then nothing reads the line.
        let input = host.pipes(ids[0]).stdin.as_ref().unwrap();
        let _killed_already = rustix::io::write(input, b"go\n");
        host.until_state(ids[0], Exited);
        let run = host.supervisor.runs(ids[0]).last().unwrap();
        assert_eq!((run.number, &run.end), (1, &End::OutOfMemory(OomLimit::Own)), "{run:?}");
    });
}

/// Deaths of all kinds in turn, of many instances that live beside each other.
#[test]
fn every_death_of_a_crowd_has_the_right_verdict() {
    with_controllers(&["memory", "pids"], |_, dir| {
        let mut host = Host::new();
        let eat_in_child = format!("{EATS} & wait $!; kill -SEGV $$");
        let crashed = End::Crashed {
            signal: Signal::SEGV,
            core: false,
        };
        let deaths = [
            (format!("exec {EATS}"), alone(OomLimit::Own)),
            ("kill -KILL $$".into(), End::KilledFromOutside(Signal::KILL)),
            ("kill -TERM $$".into(), End::KilledFromOutside(Signal::TERM)),
            ("kill -SEGV $$".into(), crashed.clone()),
            ("exit 0".into(), End::Exited(0)),
            ("exit 137".into(), End::Exited(137)),
            (eat_in_child, crashed),
        ];
        let ids: Vec<_> = (0_usize..)
            .zip(&deaths)
            .map(|(number, (script, _))| {
                let spec = group(&format!("g{number}"), sh(&format!("read go; {script}")), &dir, own());
                host.add(spec).1[0]
            })
            .collect();
        let mut count = 0;
        for _ in 0..5 {
            for &id in &ids {
                host.start_these(id);
            }
            ids.iter().for_each(|&id| host.until_state(id, Running));
            ids.iter().for_each(|&id| say(&mut host, id, "go"));
            for (&id, (script, end)) in ids.iter().zip(&deaths) {
                host.until_state(id, Exited);
                assert_eq!(host.supervisor.runs(id).last().unwrap().end, *end, "{script}");
                count += 1;
            }
        }
        println!("{count} deaths with the right verdict");
    });
}

/// Writes a line to the standard input of an instance.
fn say(host: &mut Host, id: InstanceId, line: &str) {
    let input = host.pipes(id).stdin.as_ref().expect("it has an input");
    rustix::io::write(input, format!("{line}\n").as_bytes()).unwrap();
}

/// Where the memory controller does not count in the cgroup of the run, nothing is claimed.
#[test]
fn without_the_memory_controller_a_kill_is_from_outside() {
    with_controllers(&["pids"], |_: &TestCgroup, dir| {
        let mut host = Host::new();
        let spec = GroupSpec::new("a", sh("kill -KILL $$")).policy(at_once());
        let id = host.add(spec.cgroup(dir).limits(Limits::new().pids_max(9))).1[0];
        let run = next_run(&mut host, id);
        assert_eq!(run.end, End::KilledFromOutside(Signal::KILL));
        assert_eq!(used(&run).oom_kills, None);
    });
}
