//! Each host in a storm of everything at once, and two of them in each storm alone.

use std::cell::Cell;
use std::error::Error;
use std::rc::Rc;

use pidherd::cgroup::CgroupDir;
use pidherd::{Command, GroupSpec, Scope, Stdio, StopLadder, Supervisor};

use super::common::{skipped, test_cgroup};
use super::storm::{AT_ONCE, NOTIFY, Storm, Tally, churning, weather};
use super::{
    async_io_host, calloop_host, epoll_host, epoll_numbers_host, io_uring_host, mio_each_host, mio_host, poll_host,
    polling_host, tokio_each_host, tokio_host,
};

/// A group of this many instances of a command, restarted at once whenever one ends.
fn group(name: &str, command: Command, instances: u32) -> GroupSpec {
    GroupSpec::new(name, command)
        .instances(instances)
        .policy(churning(AT_ONCE))
}

fn crashes(tally: &Tally, instances: u32) -> Vec<GroupSpec> {
    vec![group("crash", tally.sh("echo; exit 1"), instances)]
}

/// The shortest run: one write, then the end.
fn echoes(tally: &Tally, instances: u32) -> Vec<GroupSpec> {
    vec![group("echo", tally.count(Command::new("echo")), instances)]
}

/// Half of the runs end without a message, so that the pidfd and the readiness pipe become readable together. The other
/// runs are ready for a moment.
fn readiness(tally: &Tally, instances: u32) -> Vec<GroupSpec> {
    let notify = |name, script| {
        let group = GroupSpec::new(name, tally.sh(script)).instances(instances / 2);
        group.ready_fd(3).policy(churning(NOTIFY))
    };
    vec![
        notify("silent", "echo; exit 1"),
        notify("ready", "echo >&3; echo; exit 1"),
    ]
}

/// A start that fails creates no process that the host could wait for.
fn missing_programs(tally: &Tally, instances: u32) -> Vec<GroupSpec> {
    let missing = group("missing", Command::new("/no/such/program"), instances / 5);
    vec![missing, group("present", tally.sh("echo; exit 1"), instances * 4 / 5)]
}

/// Each run leaves a process in a session of its own, which ends soon.
fn sessions(tally: &Tally, instances: u32) -> Vec<GroupSpec> {
    let script = "setsid sh -c 'exit 0' >/dev/null & echo; exit 1";
    vec![group("session", tally.sh(script), instances)]
}

/// Each run has pipes that the host does not take, and leaves text in one of them.
fn pipes(tally: &Tally, instances: u32) -> Vec<GroupSpec> {
    let command = tally.sh("echo text >&2; echo; exit 1");
    let piped = command.stdin(Stdio::piped()).stderr(Stdio::piped());
    vec![group("piped", piped, instances)]
}

/// Each run leaves a process in a session of its own, which only the end of its cgroup ends. Without cgroups it is a
/// storm of crashes.
fn cgroups(tally: &Tally, instances: u32) -> Storm {
    let Some(cgroup) = test_cgroup() else {
        return crashes(tally, instances).into();
    };
    let directory = CgroupDir::open(cgroup.path()).unwrap();
    let script = "setsid sleep 1000 >/dev/null 2>&1 & echo; exit 1";
    let grouped = |name, scope| {
        let policy = churning(AT_ONCE).stop(StopLadder::kill(scope));
        let group = GroupSpec::new(name, tally.sh(script)).instances(instances / 2);
        group.policy(policy).cgroup(directory.clone())
    };
    Storm {
        groups: vec![grouped("process", Scope::Process), grouped("cgroup", Scope::Cgroup)],
        cgroup: Some(cgroup),
    }
}

/// All of these storms together.
fn everything(tally: &Tally, instances: u32) -> Storm {
    let mut storm = cgroups(tally, instances / 5);
    for (part, share) in [
        (echoes as fn(&Tally, u32) -> Vec<GroupSpec>, instances / 5),
        (readiness, instances / 5),
        (missing_programs, instances / 10),
        (sessions, instances / 10),
        (pipes, instances / 5),
    ] {
        storm.groups.extend(part(tally, share));
    }
    storm
}

/// The host on tokio. The first runtime of a process opens descriptors that stay open, so one is made before anything
/// is compared.
fn tokio() -> impl FnOnce(Supervisor) -> Result<(), Box<dyn Error>> {
    drop(runtime());
    |supervisor| runtime()?.block_on(tokio_host::run(supervisor))
}

fn tokio_each() -> impl FnOnce(Supervisor) -> Result<(), Box<dyn Error>> {
    drop(runtime());
    |supervisor| runtime()?.block_on(tokio_each_host::run(supervisor))
}

/// The host on async-io. The reactor of a process is made by its first use and stays, with its thread.
fn async_io() -> impl FnOnce(Supervisor) -> Result<(), Box<dyn Error>> {
    let (reader, _) = rustix::pipe::pipe().unwrap();
    let ended = async_io::Async::new_nonblocking(reader).unwrap();
    async_io::block_on(ended.readable()).unwrap();
    drop(ended);
    |supervisor| async_io::block_on(async_io_host::run(supervisor))
}

/// Whether the kernel allows this process to use io_uring. Skips the test aloud if it does not.
fn has_io_uring() -> bool {
    let ring = io_uring::IoUring::new(8);
    if let Err(error) = &ring {
        skipped(&format!("io_uring is not available: {error}"));
    }
    ring.is_ok()
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_io().build()
}

#[test]
fn the_poll_host_survives_everything_at_once() {
    weather(poll_host::run, everything);
}

#[test]
fn the_epoll_host_survives_everything_at_once() {
    weather(epoll_host::run, everything);
}

#[test]
fn the_epoll_numbers_host_survives_everything_at_once() {
    weather(epoll_numbers_host::run, everything);
}

#[test]
fn the_mio_host_survives_everything_at_once() {
    weather(mio_host::run, everything);
}

#[test]
fn the_mio_each_host_survives_everything_at_once() {
    weather(mio_each_host::run, everything);
}

#[test]
fn the_polling_host_survives_everything_at_once() {
    weather(polling_host::run, everything);
}

#[test]
fn the_async_io_host_survives_everything_at_once() {
    weather(async_io(), everything);
}

#[test]
fn the_calloop_host_survives_everything_at_once() {
    weather(calloop_host::run, everything);
}

#[test]
fn the_tokio_host_survives_everything_at_once() {
    weather(tokio(), everything);
}

#[test]
fn the_tokio_each_host_survives_everything_at_once() {
    weather(tokio_each(), everything);
}

#[test]
fn the_io_uring_host_survives_everything_at_once() {
    if has_io_uring() {
        weather(io_uring_host::run, everything);
    }
}

#[test]
fn the_epoll_host_survives_crashes() {
    weather(epoll_host::run, crashes);
}

#[test]
fn the_epoll_host_survives_the_shortest_lives() {
    weather(epoll_host::run, echoes);
}

#[test]
fn the_epoll_host_survives_readiness_descriptors() {
    weather(epoll_host::run, readiness);
}

#[test]
fn the_epoll_host_survives_missing_programs() {
    weather(epoll_host::run, missing_programs);
}

#[test]
fn the_epoll_host_survives_grandchildren_in_sessions() {
    weather(epoll_host::run, sessions);
}

#[test]
fn the_epoll_host_survives_cgroups() {
    weather(epoll_host::run, cgroups);
}

#[test]
fn the_tokio_host_survives_crashes() {
    weather(tokio(), crashes);
}

#[test]
fn the_tokio_host_survives_the_shortest_lives() {
    weather(tokio(), echoes);
}

#[test]
fn the_tokio_host_survives_readiness_descriptors() {
    weather(tokio(), readiness);
}

#[test]
fn the_tokio_host_survives_missing_programs() {
    weather(tokio(), missing_programs);
}

#[test]
fn the_tokio_host_survives_grandchildren_in_sessions() {
    weather(tokio(), sessions);
}

#[test]
fn the_tokio_host_survives_cgroups() {
    weather(tokio(), cgroups);
}

#[test]
fn a_task_beside_the_tokio_host_has_its_turns() {
    drop(runtime());
    let beside = |supervisor| {
        let turns = Rc::new(Cell::new(0));
        let counted = Rc::clone(&turns);
        let local = tokio::task::LocalSet::new();
        let ended = local.block_on(&runtime()?, async move {
            tokio::task::spawn_local(async move {
                loop {
                    counted.set(counted.get() + 1);
                    tokio::task::yield_now().await;
                }
            });
            tokio_host::run(supervisor).await
        });
        println!("the other task had {} turns", turns.get());
        assert!(turns.get() >= 10, "{} turns", turns.get());
        ended
    };
    weather(beside, echoes);
}
