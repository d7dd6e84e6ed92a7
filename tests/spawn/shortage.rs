//! A host at its limits, under signals, with other threads at work.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use pidherd::{Capabilities, Command, Launcher, Resource, Signal, SpawnStep, Spawner, Stdio};

use crate::common::{Oracle, SOON, elf, isolated, tempdir, wait_readable};
use crate::held::{Frozen, high_numbers};
use crate::helpers::{read_to_end, root, sh};
use crate::in_flight::{finish, running};

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
            (0, plain.clone(), SpawnStep::Clone),
            (0, piped(), SpawnStep::Pipe),
            (3, piped(), SpawnStep::Pipe),
            (4, piped(), SpawnStep::Clone),
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

/// Whatever number a setting needs for a moment, or a descriptor on its way, is one that the host may have.
#[test]
fn the_last_number_that_is_allowed_can_be_given() {
    isolated(|| {
        const LIMIT: u64 = 64;
        let given = Arc::new(OwnedFd::from(File::open("/dev/null").unwrap()));
        let at = |number| Arc::new(rustix::io::fcntl_dupfd_cloexec(&given, number).unwrap());
        let (last, before_last) = (at(63), at(62));
        assert_eq!((last.as_raw_fd(), before_last.as_raw_fd()), (63, 62));
        let score = |command: Command| command.arg("/proc/self/oom_score_adj").oom_score_adj(321);
        let cat = || Command::new("/bin/cat");
        let many = |numbers: std::ops::Range<i32>| {
            numbers.fold(cat(), |command, number| command.fd(number, Arc::clone(&given)))
        };
        let commands = [
            // The scratch descriptor of oom_score_adj: above 63, above 40, between.
            (score(cat().fd(63, Arc::clone(&given))), "321\n"),
            (score(cat().fd(63, Arc::clone(&last))), "321\n"),
            (score(cat().fd(63, Stdio::read("/dev/null"))), "321\n"),
            (score(many(3..61)), "321\n"),
            (score(many(3..40).fd(63, Stdio::null())), "321\n"),
            // Descriptors that are in each other's way, below the last number.
            (sh("").fd(63, Arc::clone(&before_last)).fd(62, Arc::clone(&last)), ""),
            (sh("").fd(62, Arc::clone(&last)).fd(63, Stdio::piped()), ""),
        ];
        let mut spawner = Spawner::new().unwrap();
        let mut programs = commands.map(|(command, text)| (command.stdout(Stdio::piped()).compile().unwrap(), text));
        let before = limit(libc::RLIMIT_NOFILE, LIMIT);
        for (program, text) in &mut programs {
            let mut child = spawner.spawn(program).unwrap();
            assert_eq!(read_to_end(child.stdout.take().unwrap()), *text);
            assert!(child.wait().unwrap().exit.success());
        }
        // And one beyond is refused by the number that is meant.
        let error = sh("").fd(64, Arc::clone(&given)).spawn().unwrap_err();
        assert_eq!(
            (error.step(), error.subject()),
            (SpawnStep::Descriptor, Some("64".into()))
        );
        limit(libc::RLIMIT_NOFILE, before);
    });
}

/// The child may have as few descriptors as it likes: no setting needs one after the limit.
#[test]
fn a_child_may_be_allowed_no_descriptor_at_all() {
    if !root("a_child_may_be_allowed_no_descriptor_at_all") || !elf::runs_or_skip() {
        return;
    }
    isolated(|| {
        let directory = tempdir();
        elf::install(&directory.join("exit"), elf::EXITING);
        let ends = |most: u64| {
            let command = Command::new(directory.join("exit"))
                .arg("7")
                .limit(Resource::OpenFiles, most, most)
                .oom_score_adj(300)
                .nice(1)
                .uid(65534)
                .gid(65534)
                .ambient_capabilities(Capabilities::KILL)
                .umask(0o77)
                .current_dir("/")
                .setsid(true)
                .parent_death_signal(Signal::KILL)
                .stdin(Stdio::read("/dev/null"))
                .stdout(Stdio::append(directory.join("log")))
                .stderr(Stdio::stdout())
                .fd(9, Stdio::null());
            command.spawn().unwrap().wait().unwrap().exit.code()
        };
        for most in [0, 1, 3, 4, 64] {
            assert_eq!(ends(most), Some(b'7'), "{most}");
        }
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
                    (SpawnStep::Clone, libc::EAGAIN, true)
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

/// The same with others in flight, which stay as they are.
#[test]
fn out_of_processes_while_others_are_in_flight() {
    if !root("out_of_processes_while_others_are_in_flight") {
        return;
    }
    isolated(|| {
        let Some(frozen) = Frozen::new() else { return };
        let (held, other) = (
            frozen.hold(sh("exit 4")),
            sh("exit 3").stdin(Stdio::piped()).compile().unwrap(),
        );
        let (mut spawner, mut launcher) = (Spawner::new().unwrap(), Launcher::new().unwrap());
        let spawning: Vec<_> = (0..5).map(|_| spawner.begin(&held).unwrap()).collect();
        launcher.begin(&held).unwrap();
        std::thread::scope(|scope| {
            let unprivileged = scope.spawn(|| {
                // As in the test before: this thread alone belongs to a user that has no other process.
                // SAFETY: numbers only; the thread ends before the test does.
                unsafe {
                    assert_eq!(libc::syscall(libc::SYS_setresgid, 54_321, 54_321, 54_321), 0);
                    assert_eq!(libc::syscall(libc::SYS_setresuid, 54_321, 54_321, 54_321), 0);
                    assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1), 0);
                }
                let processes = limit(libc::RLIMIT_NPROC, 0);
                let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
                let before = descriptors();
                for error in [spawner.begin(&other).unwrap_err(), launcher.begin(&other).unwrap_err()] {
                    let seen = (error.step(), error.errno(), error.is_transient());
                    assert_eq!(seen, (SpawnStep::Clone, libc::EAGAIN, true));
                }
                assert_eq!((descriptors(), launcher.in_flight()), (before, 1));
                limit(libc::RLIMIT_NPROC, processes);
                let begun = spawner.begin(&other).unwrap();
                let record = running(finish(&mut spawner, begun)).wait().unwrap();
                assert_eq!(record.exit.code(), Some(3));
            });
            unprivileged.join().unwrap();
        });
        frozen.thaw();
        for spawning in spawning {
            let record = running(finish(&mut spawner, spawning)).wait().unwrap();
            assert_eq!(record.exit.code(), Some(4));
        }
        assert_eq!(next(&mut launcher).wait().unwrap().exit.code(), Some(4));
    });
}

/// The next child of a launcher that runs.
fn next(launcher: &mut Launcher) -> pidherd::Child {
    loop {
        assert!(wait_readable(&*launcher, SOON));
        if let Some((_, child)) = launcher.finish() {
            return child.unwrap();
        }
    }
}

/// What is in flight keeps its slots, and is finished without a single descriptor. A limit below the slots takes them
/// from the spawner; then it copies the whole table.
#[test]
fn out_of_descriptors_while_others_are_in_flight() {
    isolated(|| {
        let Some(frozen) = Frozen::new() else { return };
        let (mut spawner, mut launcher) = (Spawner::new().unwrap(), Launcher::new().unwrap());
        let high = high_numbers();
        let echo = |n: usize| {
            sh(&format!("read line; echo {n} $line"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
        };
        let talk = |n: usize, mut child: pidherd::Child| {
            File::from(child.stdin.take().unwrap()).write_all(b"x\n").unwrap();
            assert_eq!(read_to_end(child.stdout.take().unwrap()), format!("{n} x\n"));
            assert!(child.wait().unwrap().exit.success());
        };
        for soft in [256, 33, 20] {
            let held: Vec<_> = (0..12).map(|n| frozen.hold(echo(n))).collect();
            let spawning: Vec<_> = held.iter().map(|program| spawner.begin(program).unwrap()).collect();
            launcher.begin(&held[0]).unwrap();
            let healthy = echo(50).compile().unwrap();
            let files = limit(libc::RLIMIT_NOFILE, soft);
            let taken = exhaust(0);
            for error in [
                spawner.begin(&healthy).unwrap_err(),
                launcher.begin(&healthy).unwrap_err(),
            ] {
                assert_eq!(
                    (error.step(), error.errno(), error.is_transient()),
                    (SpawnStep::Pipe, libc::EMFILE, true)
                );
            }
            frozen.thaw();
            let children: Vec<_> = spawning
                .into_iter()
                .map(|spawning| running(finish(&mut spawner, spawning)))
                .collect();
            let launched = next(&mut launcher);
            drop(taken);
            limit(libc::RLIMIT_NOFILE, files);
            children.into_iter().enumerate().for_each(|(n, child)| talk(n, child));
            talk(0, launched);
            let begun = spawner.begin(&healthy).unwrap();
            talk(50, running(finish(&mut spawner, begun)));
            talk(50, spawner.spawn(&healthy).unwrap());
            frozen.freeze();
        }
        drop(high);
    });
}

/// The size of this process in bytes.
fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// No address space is left for another stack. Those in flight go on, and their stacks serve the next spawns.
#[test]
fn out_of_memory_for_stacks() {
    isolated(|| {
        let Some(frozen) = Frozen::new() else { return };
        let held = frozen.hold(sh("exit 4"));
        let free = sh("exit 3").compile().unwrap();
        let (mut spawner, mut launcher) = (Spawner::new().unwrap(), Launcher::new().unwrap());
        // More room than they need, so that nothing else asks for memory.
        let (mut spawning, mut launched) = (Vec::with_capacity(8), 0);
        spawning.push(spawner.begin(&held).unwrap());
        launcher.begin(&held).unwrap();
        let space = limit(libc::RLIMIT_AS, address_space());
        let errors = [
            spawner.begin(&free).map(drop),
            launcher.begin(&free).map(drop),
            spawner.spawn(&free).map(drop),
        ];
        let reserved = spawner.reserve(2).map_err(|error| error.raw_os_error());
        frozen.thaw();
        for spawning in spawning.drain(..) {
            let record = running(finish(&mut spawner, spawning)).wait().unwrap();
            launched += usize::from(record.exit.code() == Some(4));
        }
        let begun = spawner.begin(&free).unwrap();
        let again = running(finish(&mut spawner, begun)).wait().unwrap();
        limit(libc::RLIMIT_AS, space);
        for error in errors {
            let error = error.unwrap_err();
            assert_eq!(
                (error.step(), error.errno(), error.is_transient()),
                (SpawnStep::Prepare, libc::ENOMEM, true)
            );
        }
        assert_eq!(reserved, Err(Some(libc::ENOMEM)));
        assert_eq!((launched, again.exit.code()), (1, Some(3)));
        assert_eq!(next(&mut launcher).wait().unwrap().exit.code(), Some(4));
        assert!(spawner.reserve(2).is_ok());
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
        (SpawnStep::Exec, libc::ETXTBSY, true)
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
