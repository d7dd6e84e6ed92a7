//! What goes wrong between the decision to start and the program.

use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use pidherd::lifecycle::{Cause, Delay, Failure, Policy, Scope, StateName};
use pidherd::{Command, GroupSpec, Signal, SignalFd, SignalSet, SpawnStep, Stdio};

use super::common::descriptors::NoDescriptors;
use super::common::{Isolation, SOON, isolated, processes, tempdir, wait_gone, wait_until};
use super::host::{Host, LONG, at_once, builder, ms, quiet_sh, sh, sleeper, term, wait_for_sleep};
use StateName::{Backoff as BackOff, Exited, Running, Stopped};

/// A policy that gives up on errors that last, and tries again after others.
fn hopeful() -> Policy {
    at_once()
        .start_retries(1_000)
        .retry_permanent(false)
        .backoff(Delay::Fixed(ms(10)))
}

/// bun#40080: with no descriptor left for the pidfd, the child ran on without a supervisor.
/// Supervisor#1082: EMFILE counted like a broken program, and the process was given up for good.
#[test]
fn bun_40080_supervisor_1082_emfile_leaves_nobody_running_and_is_not_for_good() {
    isolated(|| {
        let mut host = Host::new();
        let (_, ids) = host.add(GroupSpec::new("x", sleeper()).policy(hopeful()));
        let limit = NoDescriptors::left();
        host.start_these(ids[0]);
        host.until("some tries have failed", |host| host.status(ids[0]).failed_starts == 3);
        let error = host.status(ids[0]).last_error.unwrap();
        assert!(error.is_transient(), "{error}");
        for step in host.steps(ids[0]).iter().filter(|step| step.to == BackOff) {
            let errno = libc::EMFILE;
            assert_eq!(
                step.cause,
                Cause::Failed(Failure::Spawn {
                    errno,
                    permanent: false
                })
            );
        }
        drop(limit);
        assert_eq!(processes::children(), []);
        host.until_state(ids[0], Running);
    });
}

/// The same at the other end: no descriptor is left when a leader has ended, and its group is not empty. A host that tracks
/// changes gets the descriptor of the leader, and nothing reaches the group then; so it is killed at once, and so it is
/// before Linux 6.9.
#[test]
fn emfile_in_the_middle_of_a_stop_leaves_no_process_of_the_group() {
    isolated(|| {
        for (mut host, wait) in [(Host::new(), ms(200)), (Host::with_own_epoll(), LONG)] {
            let policy = at_once().stop(term(Scope::ProcessGroup, wait));
            let script = "(trap '' TERM; exec sleep 1000 >/dev/null) & trap 'exit 6' TERM; echo $!; read never";
            let id = host.start(sh(script).process_group(0), policy);
            let member: u32 = host.line(id).parse().unwrap();
            wait_for_sleep(member);
            let leader = host.pid(id);
            let limit = NoDescriptors::left();
            host.supervisor.stop(id).unwrap();
            host.until_state(id, Stopped);
            drop(limit);
            assert_eq!(host.status(id).last_exit.unwrap().exit.code(), Some(6));
            assert!(wait_gone(leader, SOON) && wait_gone(member, SOON));
        }
    });
}

/// golang#22315: a program that another thread was still writing could not be started, and that was that.
#[test]
fn golang_22315_etxtbsy_is_tried_again() {
    isolated(|| {
        let directory = tempdir();
        let program = directory.join("program");
        fs::copy("/bin/sleep", &program).unwrap();
        let writer = File::options().append(true).open(&program).unwrap();
        let mut host = Host::new();
        let id = host.start(Command::new(&program).arg("1000"), hopeful());
        let error = host.status(id).last_error.unwrap();
        assert_eq!((error.step(), error.errno()), (SpawnStep::Exec, libc::ETXTBSY));
        drop(writer);
        host.until_state(id, Running);
    });
}

/// What does last is not tried again, if the policy says so.
#[test]
fn a_program_that_is_missing_is_given_up_at_once_if_so_wished() {
    isolated(|| {
        let mut host = Host::new();
        let id = host.start(Command::new("/no/such"), hopeful());
        assert_eq!(host.state(id), StateName::Fatal);
        assert_eq!(host.steps(id).last().unwrap().cause, Cause::Permanent);
        assert_eq!(host.status(id).runs, 1);
    });
}

/// eio#593: malloc in the child of a threaded parent; another thread held its lock, and the child hung.
#[test]
fn eio_593_malloc_in_the_child() {
    isolated(|| {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        drop(std::hint::black_box(vec![0u8; 100_000]));
                        drop(std::hint::black_box(String::from("malloc")));
                    }
                });
            }
            let directory = tempdir();
            let command = quiet_sh("exit 0")
                .env("KEY", "value")
                .current_dir("/")
                .umask(0o27)
                .setsid(true)
                .stdin(Stdio::null())
                .stdout(Stdio::append(directory.join("log")));
            let mut host = Host::new();
            let (group, ids) = host.add(GroupSpec::new("x", command).instances(100).policy(at_once()));
            host.start_these(group);
            host.until("all have ended", |host| ids.iter().all(|&id| host.state(id) == Exited));
            stop.store(true, Ordering::Relaxed);
        });
    });
}

/// How many signals a handler has got in this process, and how many in a child on its memory.
static HERE: AtomicU32 = AtomicU32::new(0);
static IN_A_CHILD: AtomicU32 = AtomicU32::new(0);
static OWN_PID: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_signal: libc::c_int) {
    // SAFETY: a plain system call, which a handler may make.
    let pid = unsafe { libc::syscall(libc::SYS_getpid) };
    let here = i64::from(OWN_PID.load(Ordering::Relaxed)) == pid;
    let counter = if here { &HERE } else { &IN_A_CHILD };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// glibc BZ#14750: between vfork and exec the parent's handlers ran in the child, on the parent's memory.
#[test]
fn glibc_bz14750_handlers_run_in_the_vfork_child() {
    isolated(|| {
        OWN_PID.store(std::process::id(), Ordering::Relaxed);
        // SAFETY: the handler makes one system call and touches atomics.
        let before = unsafe { libc::signal(libc::SIGUSR1, count as extern "C" fn(libc::c_int) as libc::sighandler_t) };
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    send_to_group(libc::SIGUSR1);
                }
            });
            let deaf = SignalSet::EMPTY.with(Signal::USR1);
            let mut host = Host::new();
            let command = quiet_sh("exit 0").ignored_signals(deaf);
            let (group, ids) = host.add(GroupSpec::new("x", command).instances(100).policy(at_once()));
            host.start_these(group);
            host.until("all have ended", |host| ids.iter().all(|&id| host.state(id) == Exited));
            for &id in &ids {
                assert!(host.status(id).last_exit.unwrap().exit.success(), "{}", host.story());
            }
            stop.store(true, Ordering::Relaxed);
        });
        // SAFETY: what was there before. A last signal may still be pending for another thread, and ignoring it first
        // discards it.
        unsafe {
            libc::signal(libc::SIGUSR1, libc::SIG_IGN);
            libc::signal(libc::SIGUSR1, before);
        }
        assert!(HERE.load(Ordering::Relaxed) > 0, "it was a storm");
        assert_eq!(IN_A_CHILD.load(Ordering::Relaxed), 0);
    });
}

/// One line of an instance's /proc/PID/status.
fn status_line(host: &Host, id: pidherd::InstanceId, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid(id))).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

/// znc#1590: what the parent had blocked for its own sake stayed blocked in every program it started.
/// rust#25784: so did the SIGPIPE that the runtime ignores.
#[test]
fn znc_1590_rust_25784_the_mask_and_sigpipe_leak() {
    let set: SignalSet = [Signal::INT, Signal::TERM, Signal::CHLD].into_iter().collect();
    Isolation::new().blocked(set).run(|| {
        let signals = SignalFd::new(set).unwrap();
        let mut host = Host::with(builder().signals(signals).build().unwrap());
        let id = host.start(sleeper(), at_once());
        assert_eq!(status_line(&host, id, "SigBlk"), "0000000000000000");
        assert_eq!(status_line(&host, id, "SigIgn"), "0000000000000000");
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        let told = host
            .events
            .iter()
            .filter(|event| matches!(event, pidherd::Event::Signal(_)));
        assert_eq!(told.count(), 1, "the SIGCHLD that this host wanted to see");
    });
}

/// systemd#30266: descriptors of the manager were open in the services it started.
#[test]
fn systemd_30266_fds_leak_to_the_child() {
    isolated(|| {
        // Some that the host forgot to mark, some of the supervisor, some of other children.
        let forgotten = File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&forgotten, rustix::io::FdFlags::empty()).unwrap();
        let mut host = Host::with_own_epoll();
        let piped = sh("read never").stderr(Stdio::piped());
        let (group, _) = host.add(GroupSpec::new("others", piped).instances(20).policy(at_once()));
        host.start_these(group);
        let id = host.start(sleeper(), at_once());
        let directory = format!("/proc/{}/fd", host.pid(id));
        // While it is being linked, it opens libraries of its own.
        wait_until("it has the three standard streams alone", SOON, || {
            let open = fs::read_dir(&directory).unwrap();
            let mut numbers: Vec<_> = open.map(|entry| entry.unwrap().file_name()).collect();
            numbers.sort_unstable();
            numbers == ["0", "1", "2"]
        });
    });
}

/// nextest#470: a SIGTSTP between clone and exec stopped the child, and with it the parent that waited for
/// its exec.
///
/// No order of system calls leaves no gap at all, and in this storm a child that loses its processor in the
/// gap is hit for certain. So only what was wrong is ruled out: that it hits (nearly) every spawn.
#[test]
fn nextest_470_a_stop_signal_before_exec_stops_the_parent() {
    isolated(|| {
        let stop = AtomicBool::new(false);
        // SAFETY: nothing is installed.
        let before = unsafe { libc::signal(libc::SIGTSTP, libc::SIG_IGN) };
        let stuck = thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    send_to_group(libc::SIGTSTP);
                }
            });
            let rescuer = scope.spawn(|| {
                let mut stuck = 0;
                while !stop.load(Ordering::Relaxed) {
                    if processes::children().into_iter().any(is_stopped_before_exec) {
                        stuck += 1;
                        send_to_group(libc::SIGCONT);
                    }
                }
                stuck
            });
            let mut host = Host::new();
            let (_, ids) = host.add(GroupSpec::new("x", sleeper()).instances(30).policy(at_once()));
            for &id in &ids {
                host.start_these(id);
                assert_eq!(host.state(id), Running);
            }
            stop.store(true, Ordering::Relaxed);
            rescuer.join().unwrap()
        });
        // SAFETY: what was there before.
        unsafe { libc::signal(libc::SIGTSTP, before) };
        assert!(stuck <= 24, "{stuck} of 30");
    });
}

/// To this process and its children: the harness has given the test a group of its own.
fn send_to_group(signal: libc::c_int) {
    // SAFETY: a number and a number.
    unsafe { libc::kill(0, signal) };
}

/// It still has the name of the thread that spawned it.
fn is_stopped_before_exec(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm"));
    processes::state(pid) == Some('T') && name.is_ok_and(|name| name != "sleep\n")
}
