//! Process ids that are used again. In a PID namespace of its own only the test starts processes, so another process
//! can be given exactly the number that a child had.
//!
//! bazel#11910, ponyc#5765: a kill that came after the reap hit a stranger.

use std::process;

use pidherd::lifecycle::{Policy, Remaining, Scope, State, StateName};
use pidherd::{InstanceId, PidFd, Signal, Target};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::common::{SOON, isolated, processes, root_or_skip, wait_gone};
use super::host::{Host, LONG, at_once, kernel_since, ms, quiet_sh, sh, sleeper, term, wait_for_sleep};
use StateName::{Exited, Running, Stopped, Stopping};

/// Runs a test as the first process of a PID namespace, with a /proc that shows it.
fn in_namespace(body: impl FnOnce()) {
    const STAGE: &str = "PIDHERD_TEST_NAMESPACE";
    if std::env::var_os(STAGE).is_some() {
        mount_proc();
        return isolated(body);
    }
    if !root_or_skip("it makes a PID namespace") {
        return;
    }
    isolated(|| {
        unshare(libc::CLONE_NEWPID);
        let test = std::thread::current().name().unwrap().to_owned();
        let output = process::Command::new(std::env::current_exe().unwrap())
            .args([&test, "--exact", "--nocapture", "--test-threads=1"])
            .env(STAGE, "inside")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && text.contains("isolated: done"),
            "{text}{errors}"
        );
    });
}

fn unshare(what: libc::c_int) {
    // SAFETY: a number; nothing that Rust relies on is unshared.
    let done = unsafe { libc::unshare(what) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

fn mount_proc() {
    let mount = |source: &std::ffi::CStr, target: &std::ffi::CStr, flags| {
        // SAFETY: strings that end, and no data.
        let done = unsafe {
            libc::mount(
                source.as_ptr(),
                target.as_ptr(),
                source.as_ptr(),
                flags,
                std::ptr::null(),
            )
        };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    };
    assert_eq!(process::id(), 1);
    // The session and group it came with are not of the namespace.
    rustix::process::setsid().unwrap();
    unshare(libc::CLONE_NEWNS);
    mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE);
    mount(c"proc", c"/proc", 0);
}

/// An unrelated process with this number that leads a group.
struct Bystander(Pid);

impl Bystander {
    fn at(pid: u32) -> Bystander {
        Bystander(Pid::from_raw(start_at(pid as i32)).unwrap())
    }

    /// Nothing has happened to it, and nothing is about to: the signal that ends it is ours.
    fn assert_unharmed(self) {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        assert!(waitpid(Some(self.0), options).unwrap().is_none());
        rustix::process::kill_process(self.0, rustix::process::Signal::QUIT).unwrap();
        let (_, status) = waitpid(Some(self.0), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.terminating_signal(), Some(libc::SIGQUIT));
    }
}

/// Forks a sleeper that gets this very number (clone3 with set_tid, Linux 5.5).
fn start_at(pid: i32) -> i32 {
    let argv = [c"/bin/sleep".as_ptr(), c"1000".as_ptr(), std::ptr::null()];
    // flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup
    let tid = (&raw const pid).expose_provenance() as u64;
    let args: [u64; 11] = [0, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0, tid, 1, 0];
    // SAFETY: a fork; the child makes system calls only, on memory that was there before.
    unsafe {
        match libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) {
            0 => {
                libc::setpgid(0, 0);
                libc::execv(argv[0], argv.as_ptr());
                libc::_exit(127)
            }
            made => {
                let error = std::io::Error::last_os_error();
                assert_eq!(made, i64::from(pid), "the number is free again: {error}");
                // The first of the two processes to arrive sets the group.
                libc::setpgid(pid, pid);
                pid
            }
        }
    }
}

/// Everything that can be done to a process.
fn try_everything(pidfd: &PidFd) {
    for signal in [Signal::TERM, Signal::STOP, Signal::KILL] {
        assert!(pidfd.signal(signal).is_err());
        assert!(pidfd.signal_group(Some(signal)).is_err());
    }
    assert!(pidfd.signal_group(None).is_err());
    assert!(pidfd.peek().unwrap().is_some());
    assert!(pidfd.reap().unwrap().is_some());
}

#[test]
fn bazel_11910_ponyc_5765_kill_after_reap_hits_a_stranger() {
    in_namespace(|| {
        let mut child = quiet_sh("exit 3").process_group(0).spawn().unwrap();
        child.wait().unwrap();
        let bystander = Bystander::at(child.pid().as_raw());
        try_everything(child.pidfd());
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().exit.code(), Some(3));
        drop(child);
        bystander.assert_unharmed();
    });
}

#[test]
fn dropping_a_child_that_was_reaped_elsewhere_signals_no_other_process() {
    in_namespace(|| {
        let child = quiet_sh("exit 3").process_group(0).spawn().unwrap();
        let pid = child.pid().as_raw();
        steal(pid);
        let bystander = Bystander::at(pid);
        try_everything(child.pidfd());
        drop(child);
        bystander.assert_unharmed();
    });
}

/// Reaps a child of the library, which no other code should do.
fn steal(pid: u32) {
    assert!(wait_gone(pid, SOON));
    waitpid(Pid::from_raw(pid as i32), WaitOptions::empty()).unwrap();
}

/// Everything a host can ask for.
fn ask_for_everything(host: &mut Host, id: InstanceId) {
    for target in [id.into(), Target::Group(host.status(id).group), Target::All] {
        for signal in [Signal::TERM, Signal::STOP, Signal::KILL] {
            let _not_alive = host.supervisor.signal(target, signal);
        }
        host.supervisor.stop(target).unwrap();
        host.supervisor.kill(target).unwrap();
    }
}

fn grouped() -> Policy {
    at_once().stop(term(Scope::ProcessGroup, ms(30)))
}

#[test]
fn no_call_for_an_ended_instance_signals_another_process() {
    in_namespace(|| {
        let mut host = Host::new();
        let id = host.begin(quiet_sh("exit 3").process_group(0), grouped());
        let pid = host.pid(id);
        host.until_state(id, Exited);
        let bystander = Bystander::at(pid);
        ask_for_everything(&mut host, id);
        host.shut_down();
        drop(host);
        bystander.assert_unharmed();
    });
}

#[test]
fn no_call_for_an_instance_reaped_elsewhere_signals_another_process() {
    in_namespace(|| {
        let mut host = Host::new();
        let id = host.start(sh("read go; exit 3").process_group(0), grouped());
        let dropped = host.start(sh("read go; exit 3").process_group(0), grouped());
        for id in [id, dropped] {
            host.go_on(id);
        }
        let pids = [host.pid(id), host.pid(dropped)];
        for pid in pids {
            steal(pid);
        }
        let bystanders = pids.map(Bystander::at);
        assert_eq!(host.state(id), Running, "the host has not checked yet");
        ask_for_everything(&mut host, id);
        host.until_state(id, Stopped);
        drop(host);
        for bystander in bystanders {
            bystander.assert_unharmed();
        }
    });
}

#[test]
fn a_group_that_has_become_empty_is_no_strangers_when_the_next_rung_is_due() {
    in_namespace(|| {
        let mut host = Host::new();
        let script = "(trap '' TERM; exec sleep 1000 >/dev/null) & trap 'exit 0' TERM; echo $!; read never";
        let id = host.start(sh(script).process_group(0), grouped());
        let member: u32 = host.line(id).parse().unwrap();
        wait_for_sleep(member);
        let pid = host.pid(id);
        host.supervisor.stop(id).unwrap();
        host.until("the leader is gone", |host| {
            matches!(host.status(id).state, State::Stopping(stopping) if matches!(stopping.remaining, Remaining::Others { .. }))
        });
        // We are the namespace's first process, so orphans are ours to reap.
        let member = Pid::from_raw(member as i32).unwrap();
        rustix::process::kill_process(member, rustix::process::Signal::KILL).unwrap();
        waitpid(Some(member), WaitOptions::empty()).unwrap();
        // Before 6.9 the unreaped leader keeps its number; since then the number is free.
        let bystander = processes::state(pid).is_none().then(|| Bystander::at(pid));
        assert_eq!(bystander.is_some(), kernel_since(6, 9));
        host.supervisor.kill(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(host.states(id).last(), Some(&Stopped));
        drop(host);
        if let Some(bystander) = bystander {
            bystander.assert_unharmed();
        }
    });
}

#[test]
fn an_instance_that_is_dropped_in_the_middle_of_a_group_stop_kills_no_stranger() {
    in_namespace(|| {
        let mut host = Host::new();
        let patient = at_once().stop(term(Scope::ProcessGroup, LONG));
        let id = host.start(sleeper().process_group(0), patient);
        let pid = host.pid(id);
        host.supervisor.stop(id).unwrap();
        assert_eq!(host.state(id), Stopping);
        steal(pid);
        let bystander = Bystander::at(pid);
        drop(host);
        bystander.assert_unharmed();
    });
}
