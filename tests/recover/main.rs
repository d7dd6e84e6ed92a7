//! A host is killed, and its successor finds the processes again.
//!
//! The hosts are copies of the test's process. That process is a subreaper and ignores SIGCHLD, so the kernel reaps
//! orphans at once, and their status is kept for the holder of a pidfd (Linux 6.15).

#[path = "../common/mod.rs"]
mod common;
#[path = "../host/mod.rs"]
mod host;

mod files;
mod notices;
mod parts;
mod siblings;
mod sizes;

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;
use std::time::Duration;

use StateName::{Backoff, Fatal, Running, Starting, Stopped, Stopping};
use common::lease::Lease;
use common::{
    Isolation, SOON, kernel_since, patience, root_or_skip, skipped, tempdir, test_cgroup, wait_gone, wait_until,
};
use host::{Host, LONG, at_once, builder, for_ever, ms, quiet_sh, sh, sleeper, term};
use pidherd::cgroup::CgroupDir;
use pidherd::exit::Exit;
use pidherd::group::Rolling;
use pidherd::lifecycle::{Delay, Policy, Scope, Startup, StateName, StopCommandEnd, StopLadder};
use pidherd::supervisor::{End, RecoverError, Recovered, StateError, Undescribed};
use pidherd::{Clock, Command, Error, Event, GroupSpec, InstanceId, Lifetime, Namespace, Signal, Stdio, Supervisor};
use rustix::pipe::{PipeFlags, pipe_with};

/// Runs the body in a process that adopts the orphans of the hosts that it makes.
fn with_hosts(limit: u64, body: impl FnOnce(&Path)) {
    Isolation::new().limit(Duration::from_secs(limit)).run(|| {
        if cfg!(pidherd_portable) {
            return skipped("without clone3 the kernel does not write the PID before the child runs");
        }
        let directory = tempdir();
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        ignore_sigchld(true);
        body(&directory.join("state"));
        for pid in common::processes::children() {
            let raw = rustix::process::Pid::from_raw(pid as i32).unwrap();
            // It may have ended meanwhile.
            let _gone = rustix::process::kill_process(raw, rustix::process::Signal::KILL);
            assert!(wait_gone(pid, SOON));
        }
        ignore_sigchld(false);
        rustix::process::set_child_subreaper(None).unwrap();
    });
}

fn ignore_sigchld(yes: bool) {
    let action = if yes { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: the call installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, action) };
}

/// Runs a host in a copy of this process, and kills it when `moment` returns. What the host panics with is a panic
/// here.
fn killed_host(body: impl FnOnce(), moment: impl FnOnce()) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    // SAFETY: as in `common::fork`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        ignore_sigchld(false);
        std::panic::set_hook(Box::new(move |panic| {
            let _told = rustix::io::write(&writer, panic.to_string().as_bytes());
        }));
        let _panicked = catch_unwind(AssertUnwindSafe(body));
        loop {
            thread::park();
        }
    }
    drop(writer);
    let moment = catch_unwind(AssertUnwindSafe(moment));
    let raw = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
    assert!(wait_gone(pid as u32, SOON));
    let mut said = String::new();
    fs::File::from(reader).read_to_string(&mut said).unwrap();
    assert_eq!(said, "", "the host panicked");
    if let Err(panic) = moment {
        std::panic::resume_unwind(panic);
    }
}

/// Keeps a host as it is until it is killed.
fn stay(host: Host) -> ! {
    let _kept = host;
    loop {
        thread::park();
    }
}

/// Waits until a host has written this file.
fn told(path: &Path) -> String {
    wait_until("the host is where it is to be killed", SOON, || path.exists());
    fs::read_to_string(path).unwrap()
}

/// Writes a file that is there only when it is complete.
fn tell(path: &Path, text: &str) {
    let part = path.with_extension("part");
    fs::write(&part, text).unwrap();
    fs::rename(part, path).unwrap();
}

fn recover(state: &Path, groups: Vec<GroupSpec>) -> Recovered {
    builder().state_file(state).recover(groups, Undescribed::Stop).unwrap()
}

/// A host that starts all groups which are new.
fn host(state: &Path, groups: Vec<GroupSpec>) -> Host {
    let recovered = recover(state, groups);
    assert!(recovered.unproven.is_empty(), "{:?}", recovered.unproven);
    let mut supervisor = recovered.supervisor;
    for group in recovered.groups.iter().filter(|group| group.is_new) {
        supervisor.start(group.id).unwrap();
    }
    Host::with(supervisor)
}

fn named(host: &Host, name: &str) -> InstanceId {
    let is_it = |&id: &InstanceId| host.status(id).name.to_string() == name;
    host.supervisor.instances().find(is_it).unwrap()
}

/// What the state file keeps of an instance.
fn kept(supervisor: &Supervisor) -> String {
    let line = |id: InstanceId| {
        let status = supervisor.status(id).unwrap();
        format!(
            "{} {:?} {:?} {} {} {} {:?}\n",
            status.name,
            status.state,
            status.wanted,
            status.runs,
            status.failed_starts,
            status.restarts,
            status.started_at
        )
    };
    supervisor.instances().map(line).collect()
}

/// The end of a process that was found again, and that SIGKILL ended after all rungs of the ladder. It is not known what
/// ended it if the kernel keeps no status for a process that is not the parent.
fn end_after_the_ladder() -> End {
    if kernel_since(6, 15) {
        End::StopTimeout
    } else {
        End::Stopped
    }
}

#[test]
fn every_state_is_found_again_and_goes_on() {
    with_hosts(120, |state| {
        let stubborn = sh("trap '' TERM; echo >&3; while :; do sleep 0.05; done");
        let silent = at_once().startup(Startup::Notify { timeout: LONG });
        let slow = Policy::new().backoff(Delay::Fixed(LONG));
        let groups = || {
            vec![
                GroupSpec::new("runs", sleeper()).instances(3).policy(at_once()),
                GroupSpec::new("stubborn", stubborn.clone())
                    .policy(silent.clone())
                    .ready_fd(3)
                    .stop(term(Scope::Process, ms(1_500))),
                GroupSpec::new("silent", sleeper()).policy(silent.clone()),
                GroupSpec::new("missing", Command::new("/no/such/program")).policy(slow.clone()),
                GroupSpec::new("grace", sleeper()).grace(LONG),
                GroupSpec::new("idle", sleeper()),
                GroupSpec::new("job", sh("exit 3")).policy(Policy::new().start_retries(0)),
            ]
        };
        let story = state.with_file_name("story");
        killed_host(
            || {
                let mut host = host(state, groups());
                let idle = named(&host, "idle:0");
                host.supervisor.kill(idle).unwrap();
                for (name, expected) in [
                    ("runs:2", Running),
                    ("stubborn:0", Running),
                    ("silent:0", Starting),
                    ("missing:0", Backoff),
                    ("grace:0", Starting),
                    ("idle:0", Stopped),
                    ("job:0", Fatal),
                ] {
                    host.until_state(named(&host, name), expected);
                }
                host.until_executed();
                let stubborn = named(&host, "stubborn:0");
                host.supervisor.stop(stubborn).unwrap();
                tell(&story, &kept(&host.supervisor));
                stay(host);
            },
            || drop(told(&story)),
        );
        let recovered = recover(state, groups());
        assert!(recovered.unproven.is_empty() && recovered.ended.is_empty());
        assert!(recovered.groups.iter().all(|group| !group.is_new));
        assert_eq!(kept(&recovered.supervisor), told(&story));
        let mut host = Host::with(recovered.supervisor);
        let stubborn = named(&host, "stubborn:0");
        let deadline = host.status(stubborn).state.deadline().unwrap();
        host.until_state(stubborn, Stopped);
        assert!(host.supervisor.now() >= deadline);
        let end = host.supervisor.runs(stubborn).last().unwrap().end;
        assert_eq!(end, end_after_the_ladder());
        let runs = named(&host, "runs:0");
        host.supervisor.restart(runs).unwrap();
        host.until("it was restarted", |host| {
            host.status(runs).runs == 2 && host.state(runs) == Running
        });
        host.shut_down();
    });
}

#[test]
fn a_process_in_namespaces_of_its_own_is_found_again() {
    if !root_or_skip("namespaces") {
        return;
    }
    with_hosts(120, |state| {
        let pids = state.with_file_name("pids");
        let kinds = [Namespace::Pid, Namespace::Mount, Namespace::Network, Namespace::Ipc];
        let alone = kinds.into_iter().fold(sleeper(), Command::unshare).mount_proc(true);
        let groups = || {
            let spec = GroupSpec::new("alone", alone.clone()).instances(2).policy(for_ever());
            vec![spec.stop(term(Scope::Process, ms(10)))]
        };
        let of = |host: &Host| {
            let pids = host.supervisor.instances().map(|id| host.pid(id).to_string());
            pids.collect::<Vec<_>>().join(" ")
        };
        killed_host(
            || {
                let mut host = host(state, groups());
                host.until_executed();
                tell(&pids, &of(&host));
                stay(host);
            },
            || drop(told(&pids)),
        );
        let mut host = host(state, groups());
        assert_eq!(of(&host), told(&pids));
        let id = named(&host, "alone:0");
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(host.supervisor.runs(id).last().unwrap().end, end_after_the_ladder());
        host.shut_down();
    });
}

#[test]
fn a_process_in_namespaces_of_its_own_that_ended_with_its_host_is_started_in_new_ones() {
    if !root_or_skip("namespaces") {
        return;
    }
    with_hosts(120, |state| {
        let pids = state.with_file_name("pids");
        let kinds = [Namespace::Pid, Namespace::Mount];
        let alone = kinds.into_iter().fold(quiet_sh("sleep 1000 & wait"), Command::unshare);
        let alone = alone.mount_proc(true);
        let groups = || {
            let spec = GroupSpec::new("alone", alone.clone()).policy(for_ever());
            vec![spec.stop(term(Scope::Process, ms(10)))]
        };
        let family = |pid: u32| {
            wait_until("it has a child", SOON, || {
                common::processes::children_of(pid).len() == 1
            });
            common::processes::children_of(pid)[0]
        };
        killed_host(
            || {
                let mut host = host(state, groups());
                host.until_executed();
                let pid = host.pid(named(&host, "alone:0"));
                tell(&pids, &format!("{pid} {}", family(pid)));
                stay(host);
            },
            || drop(told(&pids)),
        );
        let old: Vec<u32> = told(&pids).split(' ').map(|pid| pid.parse().unwrap()).collect();
        let raw = rustix::process::Pid::from_raw(old[0] as i32).unwrap();
        rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
        // With process 1 of the namespace, the kernel ends all others in it.
        for pid in old {
            wait_until("it is reaped", SOON, || common::processes::state(pid).is_none());
        }
        let recovered = recover(state, groups());
        assert_eq!(recovered.ended.len(), 1);
        let mut host = Host::with(recovered.supervisor);
        let id = named(&host, "alone:0");
        host.until("it runs again", |host| {
            host.status(id).runs == 2 && host.state(id) == Running
        });
        let pid = host.pid(id);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains(&format!("\nNSpid:\t{pid}\t1\n")), "{status}");
        let child = family(pid);
        host.shut_down();
        assert!(wait_gone(child, SOON));
    });
}

#[test]
fn the_status_of_a_process_that_ends_after_the_recovery_is_known() {
    with_hosts(120, |state| {
        if !kernel_since(6, 15) {
            return skipped("the kernel keeps no status for a process that is not the parent (Linux 6.15)");
        }
        let pids = state.with_file_name("pids");
        let groups = || vec![GroupSpec::new("ends", sleeper()).instances(2).policy(for_ever())];
        killed_host(
            || {
                let mut host = host(state, groups());
                host.until_executed();
                let of = |host: &Host| {
                    host.supervisor
                        .instances()
                        .map(|id| host.pid(id).to_string())
                        .collect::<Vec<_>>()
                };
                tell(&pids, &of(&host).join(" "));
                stay(host);
            },
            || drop(told(&pids)),
        );
        let pids: Vec<u32> = told(&pids).split(' ').map(|pid| pid.parse().unwrap()).collect();
        let raw = |pid: u32| rustix::process::Pid::from_raw(pid as i32).unwrap();
        // One ends before the recovery, one after it.
        rustix::process::kill_process(raw(pids[0]), rustix::process::Signal::USR1).unwrap();
        // Its end is known a moment before it is reaped, and until then a recovery finds it.
        wait_until("it is reaped", SOON, || common::processes::state(pids[0]).is_none());
        let recovered = recover(state, groups());
        let ended: Vec<_> = recovered
            .ended
            .iter()
            .map(|(name, record)| (name.to_string(), record.exit))
            .collect();
        assert_eq!(ended, [("ends:0".to_owned(), Exit::Unknown)]);
        let mut host = Host::with(recovered.supervisor);
        let ids: Vec<_> = host.supervisor.instances().collect();
        rustix::process::kill_process(raw(pids[1]), rustix::process::Signal::USR2).unwrap();
        host.until("both were restarted", |host| {
            ids.iter().all(|&id| host.status(id).runs == 2)
        });
        let ends: Vec<_> = ids
            .iter()
            .map(|&id| host.supervisor.runs(id).next().unwrap().end)
            .collect();
        assert_eq!(ends, [End::Unknown, End::KilledFromOutside(Signal::USR2)]);
        host.shut_down();
    });
}

/// How many hosts are killed in the test of a busy host. `PIDHERD_TEST_HOSTS` sets another number.
fn kills() -> u64 {
    std::env::var("PIDHERD_TEST_HOSTS").map_or(60, |text| text.parse().expect("a number"))
}

/// Groups of processes that carry the name of their instance as their own.
fn busy_groups() -> Vec<GroupSpec> {
    let named = |group: &'static str| move |number: u32| sleeper().arg0(format!("pidherd-{group}:{number}"));
    let churning = Policy::new()
        .startup(Startup::Grace(Duration::ZERO))
        .crash_budget(None)
        .restart_delay(Delay::Fixed(ms(2)));
    vec![
        GroupSpec::with("steady", named("steady"))
            .instances(10)
            .policy(at_once()),
        GroupSpec::with("restarted", named("restarted"))
            .instances(10)
            .policy(at_once()),
        GroupSpec::with("scaled", named("scaled"))
            .instances(3)
            .policy(at_once()),
        GroupSpec::with("crashing", |number| quiet_sh(&format!("exit {}", number + 1)))
            .instances(10)
            .policy(churning),
    ]
}

/// The processes that carry the name of an instance, by that name.
fn carriers() -> HashMap<String, Vec<u32>> {
    let mut found: HashMap<String, Vec<u32>> = HashMap::new();
    for pid in common::processes::marked(&std::env::var(common::MARKER).unwrap()) {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let name = line.split(|&byte| byte == 0).next().unwrap_or_default();
        let Some(name) = name.strip_prefix(b"pidherd-") else {
            continue;
        };
        if !matches!(common::processes::state(pid), Some('Z' | 'X') | None) {
            found
                .entry(String::from_utf8_lossy(name).into_owned())
                .or_default()
                .push(pid);
        }
    }
    found
}

/// Checks that the processes are exactly those of the instances.
fn assert_none_is_lost_or_doubled(host: &mut Host) {
    host.until_executed();
    for (name, pids) in carriers() {
        assert_eq!(pids.len(), 1, "{name} lives more than once");
        let id = host
            .supervisor
            .instances()
            .find(|&id| host.status(id).name.to_string() == name);
        let pid = id.and_then(|id| host.status(id).pid).map(|pid| pid.as_raw());
        assert_eq!(pid, Some(pids[0]), "{name} is not supervised; {}", host.story());
    }
}

#[test]
fn a_busy_host_that_is_killed_at_any_moment_loses_and_doubles_nothing() {
    with_hosts(6_000, |state| {
        let mut born = 0;
        for round in 0..kills() {
            let mut chance = round.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut random = move |below: u64| {
                chance = chance
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (chance >> 33) % below
            };
            let moment = Duration::from_micros(random(40_000));
            let ready = state.with_file_name("ready");
            let _none = fs::remove_file(&ready);
            killed_host(
                || {
                    let mut host = host(state, busy_groups());
                    assert_none_is_lost_or_doubled(&mut host);
                    tell(&ready, "");
                    loop {
                        let groups: Vec<_> = host.supervisor.groups().collect();
                        let restarted = host.supervisor.group(groups[1]).unwrap().instances;
                        match random(8) {
                            0 => drop(host.supervisor.scale(groups[2], random(9) as u32).unwrap()),
                            1 => drop(host.supervisor.stop(restarted[random(10) as usize]).unwrap()),
                            2 => drop(host.supervisor.kill(groups[2]).unwrap()),
                            3 => drop(host.supervisor.start(groups[2]).unwrap()),
                            _ => drop(host.supervisor.restart(restarted[random(10) as usize]).unwrap()),
                        }
                        host.turn(ms(2));
                        for event in host.events.drain(..) {
                            let Event::Transition(step) = event else { continue };
                            if let (Some(record), "crashing") = (step.exit, &*step.name.group) {
                                let code = u8::try_from(step.name.number + 1).unwrap();
                                let is_right = matches!(record.exit, Exit::Unknown) || record.exit == Exit::Code(code);
                                assert!(is_right || step.from == Stopping, "{step:?}");
                            }
                        }
                    }
                },
                || {
                    told(&ready);
                    thread::sleep(moment);
                },
            );
            born += carriers().len();
        }
        assert!(born > 0);
        let mut host = host(state, busy_groups());
        assert_none_is_lost_or_doubled(&mut host);
        let steady: Vec<_> = (0..10)
            .map(|number| named(&host, &format!("steady:{number}")))
            .collect();
        assert!(
            steady.iter().all(|&id| host.status(id).runs == 1),
            "they were never restarted"
        );
        host.shut_down();
        assert!(carriers().is_empty());
    });
}

#[test]
fn a_number_that_was_given_to_a_stranger_is_not_touched() {
    if !root_or_skip("ns_last_pid") {
        return;
    }
    with_hosts(120, |state| {
        let pid = state.with_file_name("pid");
        let groups = || vec![GroupSpec::new("a", sleeper()).policy(for_ever())];
        killed_host(
            || {
                let mut host = host(state, groups());
                host.until_executed();
                tell(&pid, &host.pid(named(&host, "a:0")).to_string());
                stay(host);
            },
            || drop(told(&pid)),
        );
        let number: u32 = told(&pid).parse().unwrap();
        let raw = rustix::process::Pid::from_raw(number as i32).unwrap();
        rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
        assert!(wait_gone(number, SOON));
        // The kernel tells the time when a process was made in hundredths of a second.
        let made = Clock::Boottime.now();
        wait_until("the time is another one", SOON, || {
            Clock::Boottime.now().saturating_duration_since(made) > ms(20)
        });
        let mut stranger = None;
        for _ in 0..100 {
            if fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).is_err() {
                return skipped("the kernel cannot give a PID again (CONFIG_CHECKPOINT_RESTORE)");
            }
            let child = sleeper().spawn().unwrap();
            if child.pid().as_raw() == number {
                stranger = Some(child);
                break;
            }
        }
        let Some(mut stranger) = stranger else {
            return skipped("other processes take the PID");
        };
        let recovered = recover(state, groups());
        assert_eq!(recovered.ended.len(), 1);
        let mut host = Host::with(recovered.supervisor);
        host.until("it runs again", |host| host.state(named(host, "a:0")) == Running);
        host.shut_down();
        assert!(stranger.try_wait().unwrap().is_none(), "it lives on");
    });
}
