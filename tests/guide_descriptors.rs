//! The descriptors that a supervisor and its instances take, as the guide lists them.

mod common;

use std::fs;
use std::time::Duration;

use common::lease::Lease;
use common::{Isolation, SOON, guide, isolated, skipped, tempdir, test_cgroup, wait_readable};
use pidherd::cgroup::CgroupDir;
use pidherd::lifecycle::{Policy, Scope, Startup, StateName, StopLadder};
use pidherd::{Command, GroupSpec, InstanceId, Signal, SignalFd, SignalSet, Stdio, Supervisor};

/// What an instance with a cgroup takes in addition. The test of it needs a cgroup, and the table does not.
const OF_CGROUP: usize = 1;

/// The open descriptors of this process.
fn open() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// How many more descriptors are open after this than before.
fn taken<T>(make: impl FnOnce() -> T) -> (usize, T) {
    let before = open();
    let made = make();
    (open() - before, made)
}

fn until(supervisor: &mut Supervisor, instance: InstanceId, state: StateName) {
    while supervisor.status(instance).unwrap().state.name() != state {
        assert!(wait_readable(&*supervisor, SOON));
        supervisor.dispatch().unwrap();
        while supervisor.next_event().is_some() {}
    }
}

fn at_once() -> Policy {
    Policy::new().startup(Startup::Grace(Duration::ZERO))
}

fn sleeper() -> Command {
    Command::new("/bin/sleep").arg("1000")
}

/// Adds a group, starts it, and returns the descriptors that its instance takes when it runs.
fn of_running(supervisor: &mut Supervisor, spec: GroupSpec) -> usize {
    let (taken, _pipes) = taken(|| {
        let group = supervisor.add(spec).unwrap();
        let instance = supervisor.group(group).unwrap().instances[0];
        supervisor.start(group).unwrap();
        until(supervisor, instance, StateName::Running);
    });
    taken
}

/// The descriptors of a supervisor with these settings, in comparison with one that has none.
fn of_settings() -> Vec<(&'static str, usize)> {
    let (idle, supervisor) = taken(|| Supervisor::new().unwrap());
    drop(supervisor);
    let terminates = SignalSet::EMPTY.with(Signal::TERM);
    let with = |make: &dyn Fn() -> Supervisor| taken(make).0 - idle;
    let directory = tempdir();
    let state = directory.join("state");
    let adopts = with(&|| Supervisor::builder().adopt_orphans(true).build().unwrap());
    rustix::process::set_child_subreaper(None).unwrap();
    vec![
        ("a supervisor", idle),
        (
            "[`Builder::adopt_orphans`](crate::supervisor::Builder::adopt_orphans)",
            adopts,
        ),
        (
            "[`Builder::signals`](crate::supervisor::Builder::signals)",
            with(&|| {
                let signals = SignalFd::new(terminates).unwrap();
                Supervisor::builder().signals(signals).build().unwrap()
            }),
        ),
        (
            "[`Builder::state_file`](crate::supervisor::Builder::state_file)",
            with(&|| Supervisor::builder().state_file(&state).build().unwrap()),
        ),
        (
            "the notify socket, if a group uses it",
            with(&|| {
                let mut supervisor = Supervisor::new().unwrap();
                supervisor
                    .add(GroupSpec::new("a", sleeper()).notify_socket(true))
                    .unwrap();
                supervisor
            }),
        ),
        (
            "[`Supervisor::waker`](crate::Supervisor::waker), all copies together",
            with(&|| {
                let mut supervisor = Supervisor::new().unwrap();
                let (one, other) = (supervisor.waker().unwrap(), supervisor.waker().unwrap());
                drop((one, other));
                supervisor
            }),
        ),
    ]
}

/// The descriptors that the command of a stop takes in addition to those of its program.
fn of_stop_command(supervisor: &mut Supervisor) -> usize {
    let long = Duration::from_secs(1000);
    let spec = GroupSpec::new("stopping", sleeper())
        .policy(at_once())
        .stop_command(sleeper());
    let spec = spec.stop(StopLadder::kill(Scope::Process).then_command(0, long, long));
    let group = supervisor.add(spec).unwrap();
    let instance = supervisor.group(group).unwrap().instances[0];
    supervisor.start(group).unwrap();
    until(supervisor, instance, StateName::Running);
    taken(|| supervisor.stop(group).unwrap()).0
}

/// The descriptors of an instance in addition to those of its process.
fn of_instances() -> Vec<(&'static str, usize)> {
    let mut supervisor = Supervisor::new().unwrap();
    let (stopped, _group) = taken(|| supervisor.add(GroupSpec::new("stopped", sleeper())).unwrap());
    let running = of_running(&mut supervisor, GroupSpec::new("running", sleeper()).policy(at_once()));
    let not_ready = of_running(
        &mut supervisor,
        GroupSpec::new("not ready", sleeper()).policy(at_once()).ready_fd(3),
    );
    let says_it = Command::new("/bin/sh").args(["-c", "echo >&3; exec sleep 1000"]);
    let timeout = SOON;
    let policy = Policy::new().startup(Startup::Notify { timeout });
    let ready = of_running(
        &mut supervisor,
        GroupSpec::new("ready", says_it).policy(policy).ready_fd(3),
    );
    let stopper = of_stop_command(&mut supervisor);
    let piped = sleeper()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let piped = of_running(&mut supervisor, GroupSpec::new("piped", piped).policy(at_once()));
    assert_eq!((piped - running) % 3, 0);
    vec![
        ("an instance without a process", stopped),
        ("its process, from the spawn to the end", running),
        ("its readiness descriptor, until it is ready", not_ready - running),
        ("its readiness descriptor, when it is ready", ready - running),
        ("the command that stops it, until that has ended", stopper),
        ("its cgroup", OF_CGROUP),
        (
            "each of its pipes, until the host takes or drops it",
            (piped - running) / 3,
        ),
    ]
}

#[test]
fn the_guide_has_the_descriptors_that_everything_takes() {
    let blocked = SignalSet::EMPTY.with(Signal::TERM).with(Signal::CHLD);
    Isolation::new().blocked(blocked).run(|| {
        let rows = [of_settings(), of_instances()].concat();
        let rows: Vec<_> = rows
            .into_iter()
            .map(|(what, taken)| [what.to_owned(), taken.to_string()])
            .collect();
        guide::agrees("descriptors.md", ["what", "descriptors"], &rows);
        // The processes that have ended have left one.
        let ends = SignalFd::new(SignalSet::EMPTY.with(Signal::CHLD)).unwrap();
        while ends.read().unwrap().is_some() {}
    });
}

#[test]
fn an_instance_with_a_cgroup_takes_as_many_descriptors_as_the_guide_says() {
    isolated(|| {
        let Some(cgroup) = test_cgroup() else { return };
        let mut supervisor = Supervisor::new().unwrap();
        let running = of_running(&mut supervisor, GroupSpec::new("a", sleeper()).policy(at_once()));
        let directory = CgroupDir::open(cgroup.path()).unwrap();
        let spec = GroupSpec::new("b", sleeper()).policy(at_once()).cgroup(directory);
        assert_eq!(of_running(&mut supervisor, spec) - running, OF_CGROUP);
    });
}

#[test]
fn a_process_in_flight_takes_no_other_descriptors_than_a_running_one() {
    isolated(|| {
        if cfg!(pidherd_portable) {
            return skipped("the portable path waits for execve");
        }
        let directory = tempdir();
        let program = directory.join("sleep");
        fs::copy("/bin/sleep", &program).unwrap();
        let Some(lease) = Lease::take(&program) else { return };
        let mut supervisor = Supervisor::new().unwrap();
        let group = supervisor
            .add(GroupSpec::new("a", Command::new(&program).arg("1000")).policy(at_once()))
            .unwrap();
        let (in_flight, _outcome) = taken(|| supervisor.start(group).unwrap());
        lease.end();
        let instance = supervisor.group(group).unwrap().instances[0];
        until(&mut supervisor, instance, StateName::Running);
        assert_eq!(in_flight, 1);
    });
}
