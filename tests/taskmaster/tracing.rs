//! Tests of the taskmaster's system calls, observed with strace.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::kernel_since;
use crate::driver::{Dir, Taskmaster, aloud, binary, fifo};

/// Whether strace is installed and may trace.
fn strace_works() -> bool {
    let works = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status();
    let works = works.is_ok_and(|status| status.success());
    if !works {
        aloud("strace is missing or may not trace");
    }
    works
}

/// The calls in a trace, each with the PID of its process. The two halves of an interrupted call are joined.
fn calls(trace: &Path) -> Vec<(u32, String)> {
    let mut calls: Vec<(u32, String)> = Vec::new();
    for line in fs::read_to_string(trace).unwrap().lines() {
        let Some((pid, call)) = line.split_once(' ') else {
            continue;
        };
        let (pid, call) = (pid.parse().unwrap(), call.trim_start());
        if call.starts_with("+++") || call.starts_with("---") {
            continue;
        }
        match call.split_once(" resumed>") {
            Some((_, rest)) => {
                let begun = calls.iter_mut().rev().find(|(caller, _)| *caller == pid);
                begun.unwrap().1.push_str(rest);
            }
            None => calls.push((pid, call.replace(" <unfinished ...>", ""))),
        }
    }
    calls
}

fn name(call: &str) -> &str {
    call.split('(').next().unwrap()
}

#[test]
fn every_spawn_returns_a_pidfd_and_every_reap_uses_it() {
    if !strace_works() {
        return;
    }
    let dir = Dir::new();
    fifo(&dir, "events");
    let trace = dir.path("trace");
    // None of these programs starts a process of its own.
    let config = dir.file(
        "herd.conf",
        "[program:still]\ncommand=sleep 1000\nprocess_name=%(process_num)d\nnumprocs=3\nstartsecs=0\n\
         [program:short]\ncommand=sleep 0.1\nautorestart=unexpected\nstartsecs=0\n\
         [program:missing]\ncommand=/no/such/program\nstartretries=1\n\
         [program:deaf]\ncommand=sleep 1000\nstopsignal=CONT\nstopwaitsecs=1\nstopasgroup=true\nstartsecs=0\n",
    );
    let mut command = Command::new("strace");
    command
        .args(["-f", "-v", "-e", "trace=process,signal", "-o"])
        .arg(&trace);
    command
        .arg(binary())
        .arg("--events")
        .arg(dir.path("events"))
        .arg(&config);
    let mut herd = Taskmaster::run(dir, command);
    herd.reached("short:short", "EXITED");
    herd.reached("missing:missing", "FATAL");
    herd.say("signal KILL still:1");
    herd.reached("still:1", "EXITED");
    herd.reached("still:1", "RUNNING");
    herd.say("shutdown");
    assert_eq!(herd.ended().code(), Some(0), "{}", herd.transcript());
    let calls = calls(&trace);
    let supervisor = calls[0].0;
    let own: Vec<&str> = calls
        .iter()
        .filter(|(pid, _)| *pid == supervisor)
        .map(|(_, call)| call.as_str())
        .collect();
    // While a spawn is in flight, the memory of a host of another user than root cannot be read.
    if own.iter().any(|call| call.starts_with("clone3(0x")) {
        aloud("strace cannot read what clone3(2) is given");
        return;
    }
    judge(
        &own,
        herd.events
            .iter()
            .filter(|event| event.to == "STARTING" && event.pid.is_some())
            .count(),
    );
}

/// The system call that starts a process in this build.
const SPAWN: &str = if cfg!(pidherd_portable) { "clone" } else { "clone3" };

/// The calls that must not occur: a copy of the whole process, a wait for any child, and a signal to a PID.
const NEVER: &[&str] = &[
    "fork",
    "vfork",
    "clone",
    "clone3",
    "wait4",
    "waitpid",
    "kill",
    "tkill",
    "tgkill",
    "pidfd_open",
];

/// The starts that fail without an event with a PID: those of a missing program, where the spawn waits for execve.
const UNSEEN: usize = if cfg!(pidherd_portable) { 2 } else { 0 };

/// Checks the taskmaster's own calls. The events showed the PIDs of `spawned` processes.
fn judge(own: &[&str], spawned: usize) {
    // Before Linux 6.9 only its number identifies a process group. The unreaped leader keeps the number.
    let to_group = |call: &str| call.starts_with("kill(-") && !kernel_since(6, 9);
    for call in own {
        assert!(
            to_group(call) || name(call) == SPAWN || !NEVER.contains(&name(call)),
            "{call}"
        );
        assert!(name(call) != "rt_sigaction" || !call.contains("SIGCHLD"), "{call}");
    }
    let of = |wanted: &str| -> Vec<&&str> { own.iter().filter(|call| name(call) == wanted).collect() };
    let clones = of(SPAWN);
    // A child that no call waits for says that it has let go of the memory.
    let waits = if cfg!(pidherd_portable) {
        "CLONE_VFORK"
    } else {
        "CLONE_CHILD_CLEARTID"
    };
    let as_wanted = |call: &str| {
        ["CLONE_PIDFD", "CLONE_VM", waits]
            .iter()
            .all(|flag| call.contains(flag))
    };
    assert!(clones.iter().all(|call| as_wanted(call)), "{clones:#?}");
    assert_eq!(clones.len(), spawned + UNSEEN, "{clones:#?}");
    let waits = of("waitid");
    assert!(waits.iter().all(|call| call.contains("waitid(P_PIDFD, ")), "{waits:#?}");
    let reaps = waits
        .iter()
        .filter(|call| !call.contains("WNOWAIT") && call.contains("si_pid="))
        .count();
    assert_eq!(reaps, spawned + UNSEEN, "{waits:#?}");
    assert!(of("pidfd_send_signal").len() >= 5);
}

#[test]
fn an_idle_taskmaster_with_a_hundred_children_makes_no_syscall() {
    if !strace_works() {
        return;
    }
    let mut herd = Taskmaster::start(
        "[program:many]\ncommand=sleep 1000\nprocess_name=%(process_num)02d\nnumprocs=100\nstartsecs=1\n",
    );
    for number in 0..100 {
        herd.reached(&format!("many:{number:02}"), "RUNNING");
    }
    // This is the answer to the last command. No work is left after it.
    herd.ask("status many:99");
    let trace = herd.dir.path("trace");
    let mut strace = attach(&herd, &trace);
    herd.listen_until(Instant::now() + Duration::from_secs(10));
    kill_process(Pid::from_child(&strace), Signal::INT).unwrap();
    strace.wait().unwrap();
    let seen = fs::read_to_string(&trace).unwrap();
    // The taskmaster may be about to wait when strace attaches. From then on it waits in one call.
    let waits: Vec<&str> = seen.lines().skip_while(|line| !line.contains("epoll_")).collect();
    assert!(waits.len() == 1 && waits[0].contains("detached"), "{seen}");
    herd.shut_down();
}

/// Attaches strace to a running taskmaster. Returns when it is attached.
fn attach(herd: &Taskmaster, trace: &Path) -> Child {
    use std::io::{BufRead, BufReader};
    let mut command = Command::new("strace");
    command
        .arg("-f")
        .arg("-o")
        .arg(trace)
        .arg("-p")
        .arg(herd.pid().as_raw_nonzero().to_string());
    let mut strace = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(strace.stderr.take().unwrap()).lines();
    let attached = said.next().unwrap().unwrap();
    assert!(attached.contains("attached"), "{attached}");
    strace
}
