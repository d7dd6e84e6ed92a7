//! Groups of processes that have namespaces of their own.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use pidherd::lifecycle::{Scope, Startup, StateName};
use pidherd::supervisor::End;
use pidherd::{Command, GroupSpec, Namespace, SpawnStep, Stdio};

use super::common::{isolated, root_or_skip, tempdir};
use super::host::{Host, LONG, at_once, builder, for_ever, ms, sh, sleeper, term};
use StateName::{Fatal, Running, Stopped};

fn alone(command: Command) -> Command {
    let kinds = [
        Namespace::Pid,
        Namespace::Mount,
        Namespace::Network,
        Namespace::Ipc,
        Namespace::Uts,
    ];
    kinds.into_iter().fold(command, Command::unshare).mount_proc(true)
}

fn inner_numbers(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn an_instance_in_namespaces_of_its_own_lives_as_any_other() {
    if !root_or_skip("namespaces") {
        return;
    }
    isolated(|| {
        let mut host = Host::new();
        let notifies = sh("trap 'exit 0' TERM; echo $$; while :; do sleep 0.05; done");
        let id = host.start(alone(notifies), at_once());
        assert_eq!(host.line(id), "1");
        let pid = host.pid(id);
        assert_eq!(inner_numbers(pid), format!("{pid} 1"));
        host.supervisor.restart(id).unwrap();
        host.until("it runs again", |host| {
            host.status(id).runs == 2 && host.state(id) == Running
        });
        assert_eq!(host.line(id), "1");
        // Another process of the host is not concerned.
        let other = host.start(sleeper(), for_ever());
        assert_eq!(inner_numbers(host.pid(other)), host.pid(other).to_string());
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(host.supervisor.runs(id).last().unwrap().end, End::Stopped);
        host.shut_down();
    });
}

#[test]
fn process_1_without_a_handler_is_ended_by_the_last_rung() {
    if !root_or_skip("a PID namespace") {
        return;
    }
    isolated(|| {
        let mut host = Host::new();
        let policy = for_ever().stop(term(Scope::Process, ms(50)));
        let id = host.start(alone(sleeper()), policy);
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(host.supervisor.runs(id).last().unwrap().end, End::StopTimeout);
        host.shut_down();
    });
}

/// Set for a test binary that is the program of an instance.
const SAYS_READY: &str = "PIDHERD_TEST_SAYS_READY";

fn says_ready() -> Command {
    let name = "namespaces::a_program_that_says_that_it_is_ready";
    let program = Command::new(std::env::current_exe().unwrap()).args([name, "--exact", "--test-threads=1"]);
    program.env(SAYS_READY, "1").stdout(Stdio::null())
}

#[test]
fn a_program_that_says_that_it_is_ready() {
    if std::env::var_os(SAYS_READY).is_none() {
        return;
    }
    let socket = UnixDatagram::unbound().unwrap();
    let path = std::env::var_os("NOTIFY_SOCKET").unwrap();
    socket.send_to(b"READY=1", path).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn readiness_messages_come_through_every_namespace() {
    if !root_or_skip("namespaces") {
        return;
    }
    isolated(|| {
        // Abstract addresses belong to the network namespace.
        let place = tempdir();
        let mut host = Host::with(builder().notify_path(place.join("notify")).build().unwrap());
        let by_pipe = sh("echo >&3; exec 3>&-; exec sleep 1000");
        let policy = at_once().startup(Startup::Notify { timeout: LONG });
        let spec = GroupSpec::new("pipe", alone(by_pipe))
            .policy(policy.clone())
            .ready_fd(3);
        let (group, ids) = host.add(spec);
        host.supervisor.start(group).unwrap();
        host.until_state(ids[0], Running);
        let spec = GroupSpec::new("socket", alone(says_ready()))
            .policy(policy)
            .notify_socket(true);
        let (group, ids) = host.add(spec);
        host.supervisor.start(group).unwrap();
        host.until_state(ids[0], Running);
        host.supervisor.kill(ids[0]).unwrap();
        host.shut_down();
    });
}

#[test]
fn a_namespace_that_cannot_be_entered_is_a_failed_start_with_its_step() {
    if !root_or_skip("setns") {
        return;
    }
    isolated(|| {
        let mut host = Host::new();
        let mut holder = sleeper().unshare(Namespace::Pid).spawn().unwrap();
        let file = File::open(format!("/proc/{}/ns/pid", holder.pid())).unwrap();
        holder.kill().unwrap();
        holder.wait().unwrap();
        let gone = sleeper().setns(Namespace::Pid, OwnedFd::from(file));
        let id = host.begin(gone, at_once().start_retries(0));
        host.until_state(id, Fatal);
        let error = host.all_steps().find_map(|step| step.error.clone()).unwrap();
        assert_eq!((error.step(), error.errno()), (SpawnStep::Namespace, libc::ENOMEM));
        host.shut_down();
    });
}
