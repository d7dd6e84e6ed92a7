//! A host at its limits, under signals, with other threads at work.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use pidherd::{Command, Spawner, Stdio, Step};

use crate::common::{Oracle, isolated};
use crate::helpers::{root, sh};

/// The limit of before, after the soft one was set to this.
fn limit(resource: libc::__rlimit_resource_t, soft: u64) -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a valid structure.
    unsafe {
        assert_eq!(libc::getrlimit(resource, &raw mut limit), 0);
        let before = limit.rlim_cur;
        limit.rlim_cur = soft;
        assert_eq!(libc::setrlimit(resource, &raw const limit), 0);
        before
    }
}

/// Opens descriptors until `left` more would be possible.
fn exhaust(left: usize) -> Vec<OwnedFd> {
    let mut all = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        all.push(OwnedFd::from(file));
    }
    all.truncate(all.len() - left);
    all
}

/// bun#40080: EMFILE at the pidfd left the child running.
#[test]
fn out_of_descriptors() {
    isolated(|| {
        let mut spawner = Spawner::new().unwrap();
        let piped = || sh("").stdin(Stdio::piped()).stdout(Stdio::piped());
        let plain = Command::new("/bin/true");
        let cases = [
            (0, plain.clone(), Step::Clone),
            (0, piped(), Step::Pipe),
            (3, piped(), Step::Pipe),
            (4, piped(), Step::Clone),
        ];
        let mut cases: Vec<_> = cases
            .map(|(left, command, step)| (left, command.compile().unwrap(), step))
            .into();
        let healthy = piped().compile().unwrap();
        let files = limit(libc::RLIMIT_NOFILE, 256);
        let before = Oracle::begin();
        for (left, program, step) in &mut cases {
            let taken = exhaust(*left);
            let error = spawner.spawn(program).unwrap_err();
            drop(taken);
            assert_eq!((error.step(), error.errno()), (*step, libc::EMFILE), "{error}");
            assert!(error.is_transient());
            assert_eq!(before.findings(), [""; 0]);
            assert!(spawner.spawn(&healthy).unwrap().wait().unwrap().exit.success());
        }
        before.end();
        limit(libc::RLIMIT_NOFILE, files);
    });
}

#[test]
fn out_of_processes() {
    if !root("out_of_processes") {
        return;
    }
    isolated(|| {
        let mut spawner = Spawner::new().unwrap();
        let program = Command::new("/bin/true").stdin(Stdio::piped()).compile().unwrap();
        let healthy = sh("exit 3").compile().unwrap();
        std::thread::scope(|scope| {
            let unprivileged = scope.spawn(|| {
                // With a uid of its own that has no other process, the limit is reached at once. Raw calls
                // change this thread alone, and the limit is looked at in the thread that clones.
                // SAFETY: numbers only; the thread ends before the test does.
                unsafe {
                    assert_eq!(libc::syscall(libc::SYS_setresgid, 54_321, 54_321, 54_321), 0);
                    assert_eq!(libc::syscall(libc::SYS_setresuid, 54_321, 54_321, 54_321), 0);
                    assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1), 0);
                }
                let before = Oracle::begin();
                let processes = limit(libc::RLIMIT_NPROC, 0);
                let error = spawner.spawn(&program).unwrap_err();
                assert_eq!(
                    (error.step(), error.errno(), error.is_transient()),
                    (Step::Clone, libc::EAGAIN, true)
                );
                limit(libc::RLIMIT_NPROC, processes);
                before.end();
                let record = spawner.spawn(&healthy).unwrap().wait().unwrap();
                assert_eq!(record.exit.code(), Some(3));
            });
            unprivileged.join().unwrap();
        });
    });
}

#[test]
fn golang_22315_a_program_that_is_being_written() {
    let scratch = crate::helpers::Scratch::new("busy");
    let path = scratch.0.join("busy");
    std::fs::copy("/bin/true", &path).unwrap();
    let writer = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    let error = Command::new(&path).spawn().unwrap_err();
    assert_eq!(
        (error.step(), error.errno(), error.is_transient()),
        (Step::Exec, libc::ETXTBSY, true)
    );
    drop(writer);
    assert!(Command::new(&path).spawn().unwrap().wait().unwrap().exit.success());
}

static OWNER: AtomicI32 = AtomicI32::new(0);
static HANDLED: AtomicUsize = AtomicUsize::new(0);
static STRAYED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handler(_: libc::c_int) {
    // SAFETY: takes nothing.
    let here = unsafe { libc::syscall(libc::SYS_getpid) } as i32;
    let count = if here == OWNER.load(Ordering::Relaxed) {
        &HANDLED
    } else {
        &STRAYED
    };
    count.fetch_add(1, Ordering::Relaxed);
}

/// glibc BZ 14750: a handler of the parent that runs in the child runs on the parent's memory.
#[test]
fn bz14750_signal_storm_with_busy_threads() {
    isolated(|| {
        // SAFETY: installs a handler that only adds to atomics; this process has a group of its own.
        unsafe {
            OWNER.store(libc::getpid(), Ordering::Relaxed);
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(libc::SIGURG, &raw const action, std::ptr::null_mut());
        }
        let done = AtomicBool::new(false);
        let before = Oracle::begin();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        // To the whole group: this process, and each child from its first moment on. What runs
                        // in it later ignores this signal by default. SAFETY: numbers only.
                        unsafe { libc::kill(0, libc::SIGURG) };
                        std::hint::black_box(vec![1u8; 10_000]);
                    }
                });
            }
            let spawning: Vec<_> = (0..4u8)
                .map(|thread| {
                    scope.spawn(move || {
                        let mut spawner = Spawner::new().unwrap();
                        let program = sh(&format!("exit {thread}")).compile().unwrap();
                        for _ in 0..200 {
                            let record = spawner.spawn(&program).unwrap().wait().unwrap();
                            assert_eq!(record.exit.code(), Some(thread));
                        }
                    })
                })
                .collect();
            let results: Vec<_> = spawning.into_iter().map(|thread| thread.join()).collect();
            done.store(true, Ordering::Relaxed);
            assert!(results.iter().all(Result::is_ok));
        });
        assert!(HANDLED.load(Ordering::Relaxed) > 0);
        assert_eq!(STRAYED.load(Ordering::Relaxed), 0);
        before.end();
        // SAFETY: the default action.
        unsafe { libc::signal(libc::SIGURG, libc::SIG_DFL) };
    });
}
