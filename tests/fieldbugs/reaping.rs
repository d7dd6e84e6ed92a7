//! Exits that are missed, and exits that are taken from others.

use std::process;

use pidherd::exit::Exit;
use pidherd::lifecycle::{Scope, StateName};
use pidherd::{Command, GroupSpec, Signal};
use rustix::pipe::{PipeFlags, pipe_with};

use super::common::{SOON, isolated, processes, wait_gone};
use super::host::{Host, LONG, at_once, for_ever, quiet_sh, sh, sleeper, term};
use StateName::{Exited, Fatal, Running, Starting, Stopped, Stopping};

/// erlinit#52: one SIGCHLD for several children that ended together, one wait, and the others stayed
/// zombies.
#[test]
fn erlinit_52_one_reap_for_several_exits() {
    isolated(|| {
        let mut host = Host::new();
        // All of them wait for the end of one pipe.
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let command = move |n| quiet_sh(&format!("read go; exit {n}")).stdin(reader.try_clone().unwrap());
        let (group, ids) = host.add(GroupSpec::with("x", command).instances(30).policy(at_once()));
        host.start_these(group);
        drop(writer);
        for &id in &ids {
            assert!(wait_gone(host.pid(id), SOON));
        }
        host.until("all have ended", |host| ids.iter().all(|&id| host.state(id) == Exited));
        for (code, &id) in (0..).zip(&ids) {
            assert_eq!(host.status(id).last_exit.unwrap().exit, Exit::Code(code));
        }
        assert_eq!(processes::children(), []);
    });
}

/// libuv#274: a child with a failed exec was never waited for.
#[test]
fn libuv_274_zombie_after_failed_exec() {
    isolated(|| {
        let mut host = Host::new();
        let policy = at_once().start_retries(0);
        let (group, ids) = host.add(
            GroupSpec::new("x", Command::new("/no/such"))
                .instances(30)
                .policy(policy),
        );
        host.start_these(group);
        assert!(ids.iter().all(|&id| host.state(id) == Fatal));
        assert_eq!(processes::children(), []);
        assert!(Command::new("/no/such").spawn().is_err());
        assert_eq!(processes::children(), []);
    });
}

/// tokio#2685: a handle that was dropped left a zombie until the runtime happened to look.
#[test]
fn tokio_2685_zombie_after_drop() {
    isolated(|| {
        drop(sleeper().spawn().unwrap());
        assert_eq!(processes::children(), []);
        let ended = quiet_sh("exit 1").spawn().unwrap();
        assert!(wait_gone(ended.pid().as_raw(), SOON));
        drop(ended);
        assert_eq!(processes::children(), []);
    });
}

/// joyent/libuv#887: `waitpid(-1)` took the statuses of children that others had started.
#[test]
fn joyent_libuv_887_wait_for_any_steals_statuses() {
    isolated(|| {
        let script = |code: i32| format!("exit {code}");
        let own = |code| {
            process::Command::new("/bin/sh")
                .args(["-c", &script(code)])
                .spawn()
                .unwrap()
        };
        let mut others: Vec<_> = (10..20).map(own).collect();
        for other in &others {
            assert!(wait_gone(other.id(), SOON));
        }
        let mut host = Host::new();
        let (group, ids) = host.add(GroupSpec::new("x", quiet_sh("exit 5")).instances(10).policy(at_once()));
        host.start_these(group);
        host.until("all have ended", |host| ids.iter().all(|&id| host.state(id) == Exited));
        let stopped = host.start(sleeper(), at_once());
        host.supervisor.stop(stopped).unwrap();
        host.until_state(stopped, Stopped);
        drop(host);
        for (code, other) in (10..).zip(&mut others) {
            assert_eq!(other.wait().unwrap().code(), Some(code));
        }
    });
}

/// tokio-process#57: a wait after a kill never returned, the exit having been consumed.
#[test]
fn tokio_process_57_wait_after_kill_hangs() {
    isolated(|| {
        let mut child = sleeper().spawn().unwrap();
        child.kill().unwrap();
        child.kill().unwrap();
        let record = child.wait().unwrap();
        assert_eq!(record.exit.signal(), Some(Signal::KILL));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap(), record, "the same answer for ever");
        assert_eq!(child.try_wait().unwrap(), Some(record));

        let mut host = Host::new();
        let id = host.start(sleeper(), at_once());
        host.supervisor.kill(id).unwrap();
        host.supervisor.kill(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(host.supervisor.kill(id).unwrap().already, 1);
    });
}

/// Supervisor 4.2.2: a process that had ended just before it was to be killed made the kill fail, and
/// its state was wrong from then on.
#[test]
fn supervisor_4_2_2_exit_just_before_the_kill() {
    isolated(|| {
        let ladder = |scope| for_ever().stop(term(scope, LONG));
        let mut host = Host::new();
        for scope in [Scope::Process, Scope::ProcessGroup] {
            for kill in [false, true] {
                let id = host.start(sh("read go; exit 3").process_group(0), ladder(scope));
                host.go_on(id);
                assert!(wait_gone(host.pid(id), SOON));
                let target = [id];
                let outcome = target.map(|id| {
                    if kill {
                        host.supervisor.kill(id)
                    } else {
                        host.supervisor.stop(id)
                    }
                });
                assert_eq!(outcome[0].as_ref().unwrap().accepted, 1);
                host.until_state(id, Stopped);
                assert_eq!(
                    host.states(id),
                    [Starting, Running, Stopping, Stopped],
                    "{}",
                    host.story()
                );
                assert_eq!(host.status(id).last_exit.unwrap().exit, Exit::Code(3));
                assert_eq!(host.all_steps().count(), host.events.len(), "{}", host.story());
            }
        }
    });
}

/// moonbit async#571: a descriptor's number, used again within one batch of events, woke the wrong
/// owner.
#[test]
fn moonbit_async_571_a_reused_fd_wakes_the_wrong_owner() {
    isolated(|| {
        let mut host = Host::new();
        let old = host.start(sleeper(), at_once());
        let timer = host
            .supervisor
            .fds()
            .iter()
            .map(|entry| entry.token)
            .min_by_key(|token| token.to_raw());
        let of_old = host
            .supervisor
            .fds()
            .iter()
            .find(|entry| Some(entry.token) != timer)
            .unwrap();
        // Its event waits in the host's batch, while another call reaps it and starts a successor.
        host.supervisor.kill(old).unwrap();
        host.until_state(old, Stopped);
        let new = host.start(sleeper(), at_once());
        let of_new = host
            .supervisor
            .fds()
            .token_of(of_old.fd)
            .expect("the number is used again");
        assert_ne!(of_new, of_old.token);
        let nothing = pidherd::supervisor::Progress::Nothing;
        assert_eq!(host.supervisor.process_token(of_old.token).unwrap(), nothing);
        assert_eq!(
            host.supervisor.process_ready(of_old.fd).unwrap(),
            nothing,
            "it looks, and it lives"
        );
        assert_eq!(host.state(new), Running);
    });
}

/// systemd#30412: a descriptor was closed twice, the second time after its number had become another's.
#[test]
fn systemd_30412_double_close() {
    isolated(|| {
        for take_changes in [false, true] {
            let mut host = if take_changes {
                Host::with_own_epoll()
            } else {
                Host::new()
            };
            let id = host.start(sleeper(), at_once());
            host.supervisor.kill(id).unwrap();
            host.until_state(id, Stopped);
            host.turn(std::time::Duration::ZERO);
            // These get every number that has become free.
            let pipes: Vec<_> = (0..20).map(|_| rustix::pipe::pipe().unwrap()).collect();
            host.supervisor.start(id).unwrap();
            host.supervisor.kill(id).unwrap();
            host.until_state(id, Stopped);
            drop(host);
            for (reader, writer) in &pipes {
                assert_eq!(rustix::io::write(writer, b"x"), Ok(1));
                assert_eq!(rustix::io::read(reader, &mut [0]), Ok(1));
            }
        }
    });
}

/// tokio-signal#3: a panic while the handle was being dropped, during another panic, aborted the host.
#[test]
fn tokio_signal_3_panic_while_dropping() {
    isolated(|| {
        let caught = std::panic::catch_unwind(|| {
            let _child = sleeper().spawn().unwrap();
            let mut host = Host::new();
            let id = host.start(sleeper(), at_once());
            // It is reaped behind the supervisor's back.
            let pid = rustix::process::Pid::from_raw(host.pid(id) as i32);
            rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::KILL).unwrap();
            rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
            panic!("this one is meant");
        });
        assert!(caught.is_err());
    });
}
