//! Brings deaths about, and compares their verdicts.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use pidherd::cgroup::Limits;
use pidherd::lifecycle::{Policy, Scope, StopLadder};
use pidherd::supervisor::{End, Run};
use pidherd::{Command, GroupId, GroupSpec, InstanceId, Signal};
use rustix::process::{Pid, WaitOptions, kill_process, waitpid};

use crate::common::memory::{LIMIT, kills, no_swap};
use crate::common::{SOON, kernel_since, processes, wait_until};
use crate::ground::{Ground, Place};
use crate::host::{Host, at_once};

/// One death: a process, what happens to it, and the right verdict.
pub struct Death {
    pub kind: &'static str,
    pub place: Place,
    pub command: Command,
    pub limits: Limits,
    pub policy: Policy,
    pub steps: Vec<Step>,
    pub end: Expected,
    /// The processes that the kernel has killed in the run for lack of memory, at least and at most.
    pub kills: (u64, u64),
    /// Whether a fork was refused.
    pub refused: bool,
}

/// What happens to a process, or what is waited for.
pub enum Step {
    /// The process writes this line.
    Reads(&'static str),
    /// The process gets an empty line.
    GoesOn,
    /// Another process sends the signal.
    Signal(Signal),
    /// Another process kills the cgroup of the run.
    KillsCgroup,
    /// The process has ended, and the supervisor has not looked yet.
    IsZombie,
    /// The kernel has killed this many processes of the run, and the supervisor has not looked yet.
    Kills(u64),
    /// Another part of the host reaps the process.
    IsReaped,
    Stop,
    StopByKill,
    ReportFailed(&'static str),
    /// From now on the kernel kills the cgroup above as a whole, or no longer does so.
    WholeAbove(bool),
}

pub enum Expected {
    Is(End),
    /// The process ended by itself, with another code than this.
    OtherCode(u8),
    NotSpawned,
}

/// Starts all processes, then lets them die one after the other in a random order.
pub fn die(host: &mut Host, ground: &Ground, mut deaths: Vec<Death>, random: &mut fastrand::Rng) {
    random.shuffle(&mut deaths);
    let started: Vec<_> = deaths
        .into_iter()
        .map(|death| (start(host, ground, &death), death))
        .collect();
    for ((_, id), death) in &started {
        for step in &death.steps {
            take(host, ground, *id, death, step);
        }
    }
    for ((group, id), death) in &started {
        let run = ended(host, *id);
        check(ground, death, &run);
        host.drop_pipes(*id);
        host.supervisor.remove(*group).unwrap();
        host.until("it is removed", |host| host.supervisor.group(*group).is_none());
    }
    host.events.clear();
    for entry in fs::read_dir(ground.files.path()).unwrap().flatten() {
        let _a_core_dump = fs::remove_file(entry.path());
        let _the_directory = fs::remove_dir_all(entry.path());
    }
}

fn start(host: &mut Host, ground: &Ground, death: &Death) -> (GroupId, InstanceId) {
    thread_local!(static COUNT: Cell<u64> = const { Cell::new(0) });
    let number = COUNT.replace(COUNT.get() + 1);
    // Of two core dumps at the same time in one directory, the kernel writes only one.
    let files = ground.files.join(number.to_string());
    fs::create_dir(&files).unwrap();
    let command = death.command.clone().current_dir(&files);
    let mut spec = GroupSpec::new(&format!("d{number}"), command).policy(death.policy.clone());
    if let Some(dir) = ground.dir(death.place) {
        spec = spec
            .cgroup(dir.clone())
            .limits(match ground.memory && !death.limits.is_empty() {
                true => no_swap(dir, death.limits.clone()),
                false => death.limits.clone(),
            });
    }
    let (group, ids) = host.add(spec);
    host.start_these(ids[0]);
    (group, ids[0])
}

fn take(host: &mut Host, ground: &Ground, id: InstanceId, death: &Death, step: &Step) {
    let pid = |host: &Host| host.pid(id);
    match step {
        Step::Reads(line) => assert_eq!(host.line(id), *line, "{}", death.kind),
        Step::GoesOn => host.go_on(id),
        Step::Signal(signal) => {
            let signal = rustix::process::Signal::from_named_raw(signal.as_raw()).unwrap();
            kill_process(raw(pid(host)), signal).unwrap();
        }
        Step::KillsCgroup => fs::write(cgroup(host, ground, id, death).join("cgroup.kill"), "1").unwrap(),
        Step::IsZombie => {
            let pid = pid(host);
            wait_until("it is a zombie", SOON, || processes::state(pid) == Some('Z'));
        }
        Step::Kills(count) => {
            let cgroup = cgroup(host, ground, id, death);
            wait_until("the kernel has killed", SOON, || kills(&cgroup) >= *count);
        }
        Step::IsReaped => {
            waitpid(Some(raw(pid(host))), WaitOptions::empty()).unwrap();
        }
        Step::Stop => drop(host.supervisor.stop(id).unwrap()),
        Step::StopByKill => drop(host.supervisor.kill(id).unwrap()),
        Step::WholeAbove(on) => {
            let above = ground.dir(death.place).unwrap().path();
            fs::write(above.join("memory.oom.group"), u8::from(*on).to_string()).unwrap();
        }
        Step::ReportFailed(reason) => host.supervisor.report_failed(id, reason).unwrap(),
    }
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(pid as i32).unwrap()
}

/// The cgroup of a run.
fn cgroup(host: &Host, ground: &Ground, id: InstanceId, death: &Death) -> PathBuf {
    let name = host.status(id).name.to_string().replace(':', "-");
    let path = ground.dir(death.place).unwrap().path().join(name);
    assert!(path.exists(), "{}", path.display());
    path
}

fn ended(host: &mut Host, id: InstanceId) -> Run {
    host.until("its run is over", |host| {
        !host.state(id).is_alive() && host.supervisor.runs(id).next().is_some()
    });
    host.supervisor.runs(id).next().unwrap().clone()
}

fn check(ground: &Ground, death: &Death, run: &Run) {
    let kind = death.kind;
    match &death.end {
        Expected::Is(end) => assert_eq!(run.end, *end, "{kind}: {run:?}"),
        Expected::OtherCode(code) => {
            assert!(
                matches!(run.end, End::Exited(other) if other != *code),
                "{kind}: {run:?}"
            );
        }
        Expected::NotSpawned => assert!(matches!(run.end, End::NotSpawned(_)), "{kind}: {run:?}"),
    }
    let is_spawned = !matches!(death.end, Expected::NotSpawned);
    assert_eq!(
        (run.exit.is_some(), run.pid.is_some(), run.number),
        (is_spawned, is_spawned, 1),
        "{kind}"
    );
    if !is_spawned {
        return;
    }
    if ground.dir(death.place).is_none() {
        return assert_eq!(run.cgroup, None, "{kind}");
    }
    let used = run.cgroup.expect("it had a cgroup");
    let counts_memory = ground.memory && !death.limits.is_empty();
    match used.oom_kills {
        Some(kills) => assert!((death.kills.0..=death.kills.1).contains(&kills), "{kind}: {run:?}"),
        None => assert!(!counts_memory, "{kind}: {run:?}"),
    }
    if death.refused {
        assert!(used.pids_refused >= Some(1), "{kind}: {run:?}");
    } else {
        assert!(used.pids_refused.is_none_or(|count| count == 0), "{kind}: {run:?}");
    }
    if death.place == Place::Plain && death.kills.0 > 0 && kernel_since(5, 19) {
        let peak = used.memory_peak.expect("the controller counts");
        assert!(peak <= LIMIT && peak > LIMIT / 2, "{kind}: {run:?}");
    }
}

/// A policy without restarts and retries.
pub fn once(scope: Scope) -> Policy {
    at_once()
        .stop(StopLadder::signal(Signal::TERM, scope, Duration::from_secs(1000)))
        .start_retries(0)
}
