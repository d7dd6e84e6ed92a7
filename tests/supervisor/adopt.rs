//! Processes that were started elsewhere are adopted, and processes go on by themselves when they are released.

use std::io::{BufRead, BufReader};
use std::process;
use std::time::Duration;

use pidherd::cgroup::CgroupDir;
use pidherd::exit::Exit;
use pidherd::lifecycle::{Cause, Delay, Scope, Startup, StateName};
use pidherd::supervisor::{AdoptRefusal, End};
use pidherd::{Error, GroupSpec, InstanceId, PidFd, Signal};
use rustix::pipe::{PipeFlags, pipe_with};

use super::common::fork::in_fork;
use super::common::{SOON, isolated, kernel_since, test_cgroup, wait_gone, wait_readable};
use super::host::{Host, LONG, at_once, builder, for_ever, ms, quiet_sh, sh, sleeper, term};
use StateName::{Exited, Running, Starting, Stopped, Stopping};

/// A process in a process group of its own that the host has started by itself.
fn own(script: &str) -> PidFd {
    let child = quiet_sh(script).process_group(0).spawn().unwrap();
    child.into_pidfd()
}

fn refusal(host: &mut Host, id: InstanceId, pidfd: PidFd) -> AdoptRefusal {
    let before = host.status(id).state;
    let number = pidfd.pid();
    let refused = host.supervisor.adopt(id, pidfd).unwrap_err();
    assert_eq!(host.status(id).state, before, "{refused}");
    assert!(
        refused
            .to_string()
            .starts_with(&format!("process {number} cannot be adopted: "))
    );
    let reason = match refused.reason() {
        AdoptRefusal::Supervised(id) => AdoptRefusal::Supervised(*id),
        AdoptRefusal::Ended => AdoptRefusal::Ended,
        AdoptRefusal::Host => AdoptRefusal::Host,
        AdoptRefusal::Error(Error::Alive(id)) => AdoptRefusal::Error(Error::Alive(*id)),
        AdoptRefusal::Error(Error::UnknownInstance(id)) => AdoptRefusal::Error(Error::UnknownInstance(*id)),
        AdoptRefusal::Error(Error::ShuttingDown) => AdoptRefusal::Error(Error::ShuttingDown),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused.into_pidfd().pid(), number);
    reason
}

#[test]
fn an_adopted_process_runs_under_the_policy_of_its_instance() {
    isolated(|| {
        let mut host = Host::new();
        let policy = for_ever().startup(Startup::Grace(LONG)).restart_delay(Delay::NONE);
        let (_, ids) = host.add(GroupSpec::new("a", sleeper()).policy(policy));
        let ended = own("exit 3");
        assert!(wait_readable(&ended, SOON));
        let refused = refusal(&mut host, ids[0], ended.try_clone().unwrap());
        assert!(matches!(refused, AdoptRefusal::Ended));
        ended.reap().unwrap().unwrap();
        let mut child = sh("read go; exit 3").process_group(0).spawn().unwrap();
        let (pid, stdin) = (child.pid(), child.stdin.take());
        host.supervisor.adopt(ids[0], child.into_pidfd()).unwrap();
        drop(stdin);
        host.until("the command was started after it", |host| host.status(ids[0]).runs == 2);
        assert_eq!(host.states(ids[0])[..4], [Starting, Running, Exited, Starting]);
        let step = host.steps(ids[0])[0];
        assert_eq!((step.cause, step.pid, step.run), (Cause::Adopted, Some(pid), 1));
        let run = host.supervisor.runs(ids[0]).next().unwrap();
        assert_eq!((&run.end, run.exit.unwrap().exit), (&End::Exited(3), Exit::Code(3)));
    });
}

#[test]
fn an_adopted_process_is_stopped_with_its_group_and_killed_by_a_drop() {
    isolated(|| {
        let mut host = Host::new();
        let policy = at_once().stop(term(Scope::ProcessGroup, LONG));
        let (_, ids) = host.add(GroupSpec::new("a", sleeper()).instances(2).policy(policy));
        let mut leader = sh("sleep 1000 >/dev/null & echo $!; exec sleep 1000")
            .process_group(0)
            .spawn()
            .unwrap();
        let stdout = std::fs::File::from(leader.stdout.take().unwrap());
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let member: u32 = line.trim().parse().unwrap();
        super::host::wait_for_sleep(member);
        super::host::wait_for_sleep(leader.pid().as_raw());
        host.supervisor.adopt(ids[0], leader.into_pidfd()).unwrap();
        host.until_state(ids[0], Running);
        host.supervisor.stop(ids[0]).unwrap();
        host.until_state(ids[0], Stopped);
        assert_eq!(host.states(ids[0]), [Starting, Running, Stopping, Stopped]);
        assert!(wait_gone(member, SOON));
        let dropped = own("exec sleep 1000");
        let pid = dropped.pid().as_raw();
        host.supervisor.adopt(ids[1], dropped).unwrap();
        drop(host);
        assert!(wait_gone(pid, SOON));
    });
}

#[test]
fn a_process_that_is_no_child_is_watched_to_its_end() {
    isolated(|| {
        // A shell without job control gives a background command /dev/null, so it reads from another descriptor.
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let script = "(read go <&3; exit 7) >/dev/null & exec 3<&-; echo $!; wait";
        let mut parent = sh(script).fd(3, reader).spawn().unwrap();
        let stdout = std::fs::File::from(parent.stdout.take().unwrap());
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let mut host = Host::new();
        let id = host.add(GroupSpec::new("a", sleeper()).policy(at_once())).1[0];
        let pidfd = PidFd::open(line.trim().parse().unwrap()).unwrap();
        host.supervisor.adopt(id, pidfd).unwrap();
        drop(writer);
        host.until_state(id, Exited);
        let record = host.status(id).last_exit.unwrap();
        assert_eq!(record.usage, None);
        assert!(
            record.exit == Exit::Code(7) || (record.exit == Exit::Unknown && !kernel_since(6, 15)),
            "{record:?}"
        );
        parent.wait().unwrap();
    });
}

#[test]
fn a_released_process_lives_on_and_may_be_adopted_again() {
    isolated(|| {
        let mut host = Host::new();
        let id = host.start(sleeper(), for_ever());
        let pid = host.pid(id);
        let pidfd = host.supervisor.release(id).unwrap();
        assert_eq!(pidfd.pid().as_raw(), pid);
        host.take_events();
        assert_eq!(host.states(id), [Starting, Running, Stopped]);
        let step = host.steps(id)[2];
        assert_eq!(
            (step.cause, step.pid.map(|pid| pid.as_raw())),
            (Cause::Released, Some(pid))
        );
        assert_eq!(host.supervisor.runs(id).last().unwrap().end, End::Released);
        assert!(host.supervisor.pidfd(id).is_none());
        // The instance is free, and its next run is another process.
        host.supervisor.start(id).unwrap();
        host.until_state(id, Running);
        assert_ne!(host.pid(id), pid);
        drop(host);
        assert!(pidfd.peek().unwrap().is_none(), "it lives on");
        let mut next = Host::new();
        let id = next.add(GroupSpec::new("b", quiet_sh("exit 0")).policy(at_once())).1[0];
        next.supervisor.adopt(id, pidfd).unwrap();
        assert_eq!(next.pid(id), pid);
        assert_eq!(next.supervisor.pidfd(id).unwrap().pid().as_raw(), pid);
        next.supervisor.pidfd(id).unwrap().signal(Signal::TERM).unwrap();
        next.until_state(id, Exited);
        let record = next.status(id).last_exit.unwrap();
        assert_eq!((record.exit.signal(), record.pid.as_raw()), (Some(Signal::TERM), pid));
        assert!(record.usage.is_some(), "it is still a child of the host");
    });
}

#[test]
fn what_cannot_be_adopted_is_given_back() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(GroupSpec::new("a", sleeper()).instances(3).policy(at_once()));
        host.supervisor.start(ids[0]).unwrap();
        host.until_state(ids[0], Running);
        let running = own("exec sleep 1000");
        let pid = running.pid().as_raw();
        let is_alive = |reason| matches!(reason, AdoptRefusal::Error(Error::Alive(id)) if id == ids[0]);
        assert!(is_alive(refusal(&mut host, ids[0], running.try_clone().unwrap())));
        let own_process = PidFd::open(process::id()).unwrap();
        assert!(matches!(refusal(&mut host, ids[1], own_process), AdoptRefusal::Host));
        let supervised = host.supervisor.pidfd(ids[0]).unwrap().try_clone().unwrap();
        let other = refusal(&mut host, ids[1], supervised);
        assert!(matches!(other, AdoptRefusal::Supervised(id) if id == ids[0]));
        host.supervisor.scale(group, 2).unwrap();
        let gone = host.supervisor.adopt(ids[2], running.try_clone().unwrap()).unwrap_err();
        assert!(matches!(gone.reason(), AdoptRefusal::Error(Error::UnknownInstance(id)) if *id == ids[2]));
        host.supervisor.adopt(ids[1], running).unwrap();
        assert_eq!(host.pid(ids[1]), pid);
        host.shut_down();
        let late = own("exec sleep 1000");
        let refused = refusal(&mut host, ids[0], late.try_clone().unwrap());
        assert!(matches!(refused, AdoptRefusal::Error(Error::ShuttingDown)));
        late.signal(Signal::KILL).unwrap();
        assert!(wait_readable(&late, SOON));
        late.reap().unwrap();
    });
}

#[test]
fn what_cannot_be_released_stays_as_it_is() {
    isolated(|| {
        let mut host = Host::new();
        let lasting = at_once().stop(term(Scope::Process, LONG));
        let id = host
            .add(GroupSpec::new("a", sh("trap '' TERM; echo up; read go")).policy(lasting))
            .1[0];
        assert!(matches!(host.supervisor.release(id), Err(Error::NotAlive(other)) if other == id));
        host.start_these(id);
        assert_eq!(host.line(id), "up");
        host.supervisor.stop(id).unwrap();
        assert!(matches!(host.supervisor.release(id), Err(Error::NotReleasable(other)) if other == id));
        host.go_on(id);
        host.until_state(id, Stopped);
        if let Some(cgroup) = test_cgroup() {
            let spec = GroupSpec::new("b", sleeper()).policy(at_once());
            let contained = host.add(spec.cgroup(CgroupDir::open(cgroup.path()).unwrap())).1[0];
            host.start_these(contained);
            let refused = host.supervisor.release(contained);
            assert!(matches!(refused, Err(Error::NotReleasable(other)) if other == contained));
            assert_eq!(host.state(contained), Running);
            host.shut_down();
        }
        let mut other = Host::new();
        assert!(matches!(other.supervisor.release(id), Err(Error::UnknownInstance(_))));
        let started = other.start(sleeper(), at_once());
        assert!(in_fork(|| {
            assert!(matches!(other.supervisor.release(started), Err(Error::OtherProcess)));
        }));
    });
}

#[test]
fn an_adopted_process_may_notify_and_a_released_one_may_not() {
    isolated(|| {
        let directory = super::common::tempdir();
        let socket = directory.join("notify");
        let mut host = Host::with(builder().notify_path(&socket).build().unwrap());
        let id = host
            .add(GroupSpec::new("a", sleeper()).notify_socket(true).policy(at_once()))
            .1[0];
        let script = "while read word; do systemd-notify STATUS=$word 2>/dev/null; echo done; done";
        let has_command = std::process::Command::new("systemd-notify").arg("--version").output();
        if has_command.is_err() {
            return super::common::skipped("systemd-notify is not installed");
        }
        let mut child = sh(script)
            .env("NOTIFY_SOCKET", &socket)
            .process_group(0)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(std::fs::File::from(child.stdout.take().unwrap()));
        let send = |word: &str| {
            rustix::io::write(&stdin, format!("{word}\n").as_bytes()).unwrap();
        };
        // The command waits until the supervisor has read its barrier.
        let mut is_done = |host: &mut Host| {
            while !wait_readable(stdout.get_ref(), ms(5)) {
                host.turn(Duration::ZERO);
            }
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            assert_eq!(line, "done\n");
        };
        host.supervisor.adopt(id, child.into_pidfd()).unwrap();
        send("first");
        host.until("the message has come", |host| {
            host.status(id).status_text.as_deref() == Some("first")
        });
        is_done(&mut host);
        let pidfd = host.supervisor.release(id).unwrap();
        send("second");
        host.until("the message was ignored", |host| {
            host.supervisor
                .notify_counts()
                .is_some_and(|counts| counts.unknown_senders > 0)
        });
        is_done(&mut host);
        pidfd.signal(Signal::KILL).unwrap();
        assert!(wait_readable(&pidfd, SOON));
        pidfd.reap().unwrap();
    });
}

#[test]
fn a_request_that_waits_for_its_turn_is_withdrawn_by_an_adoption_and_by_a_release() {
    isolated(|| {
        let mut host = Host::with(builder().slice(ms(0)).build().unwrap());
        let (group, ids) = host.add(GroupSpec::new("a", sleeper()).instances(150).policy(at_once()));
        let last = *ids.last().unwrap();
        let own = own("exec sleep 1000");
        let pid = own.pid().as_raw();
        assert!(host.supervisor.start(group).unwrap().queued > 0);
        assert!(host.status(last).pending.is_some());
        // A refusal changes nothing.
        let host_itself = PidFd::open(process::id()).unwrap();
        assert!(matches!(refusal(&mut host, last, host_itself), AdoptRefusal::Host));
        assert!(host.status(last).pending.is_some());
        host.supervisor.adopt(last, own).unwrap();
        assert_eq!((host.pid(last), host.status(last).pending), (pid, None));
        host.until("all run", |host| ids.iter().all(|&id| host.state(id) == Running));
        assert_eq!(host.pid(last), pid);
        assert!(host.supervisor.restart(group).unwrap().queued > 0);
        assert!(host.status(last).pending.is_some());
        let pidfd = host.supervisor.release(last).unwrap();
        assert_eq!((host.state(last), host.status(last).pending), (Stopped, None));
        host.until("the others were restarted", |host| {
            ids.iter()
                .all(|&id| id == last || (host.status(id).runs == 2 && host.state(id) == Running))
        });
        assert_eq!(host.state(last), Stopped);
        assert!(pidfd.peek().unwrap().is_none(), "it got no signal");
        pidfd.signal(Signal::KILL).unwrap();
        assert!(wait_readable(&pidfd, SOON));
        pidfd.reap().unwrap();
    });
}
