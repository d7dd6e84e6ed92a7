//! Eight threads begin spawns and let go of them in every order, while signals arrive at a high rate and freed memory
//! is poisoned: a child that used memory after its parent has freed it would run into the poison, and a child that
//! wrote to such memory would leave a trace in it.
//!
//! Stacks and other mappings are unmapped by the library itself, so a child that used one would be killed by SIGSEGV.
//!
//! `PIDHERD_STRESS_SPAWNS` sets the number of children. ci/stress uses a hundred thousand.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::lease::Lease;
use common::processes::children;
use common::storm::{self, Storm};
use common::{Isolation, SOON, TempDir, elf, patience, tempdir, wait_readable, wait_until};
use fastrand::Rng;
use pidherd::exit::Exit;
use pidherd::{Child, Command, Launcher, Signal, SpawnError, SpawnProgress, SpawnStep, Spawner, Spawning, Stdio};

const THREADS: usize = 8;
const SPAWNS: usize = 1_600;
const LIMIT: Duration = Duration::from_secs(1800);

/// What freed memory is filled with.
const POISON: u8 = 0xdf;

/// How many freed blocks are kept from being used again, and how large the largest of them is.
const KEPT: usize = 8_192;
const LARGEST: usize = 64 * 1024;

/// The number of blocks that were written to after they had been freed.
static SPOILED: AtomicUsize = AtomicUsize::new(0);

/// Fills what is freed with poison, and keeps it for a while.
struct Poisoning {
    locked: AtomicBool,
    quarantine: UnsafeCell<Quarantine>,
}

/// A ring of freed blocks.
struct Quarantine {
    blocks: [(*mut u8, Layout); KEPT],
    next: usize,
}

// SAFETY: the quarantine is used under the lock alone.
unsafe impl Sync for Poisoning {}

impl Poisoning {
    const fn new() -> Poisoning {
        Poisoning {
            locked: AtomicBool::new(false),
            quarantine: UnsafeCell::new(Quarantine {
                blocks: [(ptr::null_mut(), Layout::new::<u8>()); KEPT],
                next: 0,
            }),
        }
    }

    /// Puts a block into the quarantine, and returns the one that has been there longest.
    fn exchange(&self, block: *mut u8, layout: Layout) -> (*mut u8, Layout) {
        while self.locked.swap(true, Ordering::Acquire) {
            std::hint::spin_loop();
        }
        // SAFETY: the lock is held, and the index is below the length.
        let oldest = unsafe {
            let quarantine = &mut *self.quarantine.get();
            let next = quarantine.next;
            quarantine.next = (next + 1) % KEPT;
            std::mem::replace(&mut quarantine.blocks[next], (block, layout))
        };
        self.locked.store(false, Ordering::Release);
        oldest
    }
}

// SAFETY: blocks come from the system's allocator and go back to it, once each and with their layout.
unsafe impl GlobalAlloc for Poisoning {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is the caller's to give up, and has this size.
        unsafe { block.write_bytes(POISON, layout.size()) };
        let (oldest, layout) = if layout.size() > LARGEST {
            (block, layout)
        } else {
            self.exchange(block, layout)
        };
        if oldest.is_null() {
            return;
        }
        // SAFETY: a block with this size that nothing uses; it was filled when it was freed.
        unsafe {
            let bytes = std::slice::from_raw_parts(oldest, layout.size());
            if bytes.iter().any(|&byte| byte != POISON) {
                SPOILED.fetch_add(1, Ordering::Relaxed);
            }
            System.dealloc(oldest, layout);
        }
    }
}

#[global_allocator]
static ALLOCATOR: Poisoning = Poisoning::new();

#[test]
fn no_child_in_flight_uses_memory_that_the_host_has_freed() {
    if !elf::runs_or_skip() {
        return;
    }
    Isolation::new().limit(LIMIT).run(|| {
        let spawns = std::env::var("PIDHERD_STRESS_SPAWNS").map_or(SPAWNS, |text| text.parse().unwrap());
        let place = tempdir();
        fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        elf::install(&place.join("exit"), elf::EXITING);
        let storm = Storm::begin();
        let (done, began) = (AtomicBool::new(false), Instant::now());
        thread::scope(|scope| {
            scope.spawn(|| storm::signal_until(&done));
            let (done, place) = (&done, &place);
            let threads: Vec<_> = (0..THREADS)
                .map(|number| scope.spawn(move || Thread::new(place, number).run(spawns / THREADS)))
                .collect();
            let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            done.store(true, Ordering::Relaxed);
            assert!(results.iter().all(Result::is_ok));
        });
        let (handled, strayed) = storm.end();
        // On a machine with too much to do, the end of some took longer than a drop waits.
        wait_until("every child is reaped", SOON, || {
            assert!(
                Command::new("/bin/true")
                    .spawn()
                    .unwrap()
                    .wait()
                    .unwrap()
                    .exit
                    .success()
            );
            children().is_empty()
        });
        assert!(handled > spawns as u64 / 100, "only {handled} signals were handled");
        assert_eq!(strayed, 0, "a signal handler ran in a child");
        let spoiled = SPOILED.load(Ordering::Relaxed);
        assert_eq!(spoiled, 0, "blocks were written to after they had been freed");
        println!("{spawns} children and {handled} signals in {:?}", began.elapsed());
    });
}

/// What one thread has begun, and what it must become.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// This exit code, or SIGKILL if it was killed.
    Code { code: u8, killed: bool },
    /// A failure of this step.
    Failure(SpawnStep, i32),
}

struct Thread<'a> {
    place: &'a TempDir,
    random: Rng,
    spawner: Spawner,
    launcher: Launcher,
    flying: Vec<(Expected, Spawning)>,
    launched: Vec<(pidherd::LaunchId, Expected)>,
    /// A program of this thread alone, with an execve that hangs.
    hanging: PathBuf,
}

impl Thread<'_> {
    fn new(place: &TempDir, number: usize) -> Thread<'_> {
        let hanging = place.join(format!("hanging-{number}"));
        fs::copy(place.join("exit"), &hanging).unwrap();
        Thread {
            place,
            random: Rng::with_seed(number as u64),
            spawner: Spawner::new().unwrap(),
            launcher: Launcher::new().unwrap(),
            flying: Vec::new(),
            launched: Vec::new(),
            hanging,
        }
    }

    fn run(mut self, count: usize) {
        for _ in 0..count {
            match self.random.u8(..100) {
                0..55 => self.begin(),
                55..85 => self.launch(),
                85..95 => self.hang(),
                _ => self.wait(),
            }
            match self.random.u8(..100) {
                0..30 => self.finish_one(),
                30..45 => self.kill_one(),
                45..55 => self.drop_one(),
                55..60 => self.spawner = Spawner::new().unwrap(),
                60..63 => self.drop_launcher(),
                63..80 => self.finish_launched(),
                80..85 => thread::yield_now(),
                _ => {}
            }
            if self.flying.len() > 6 {
                self.finish_one();
            }
        }
        while !self.flying.is_empty() {
            self.finish_one();
        }
        while !self.launched.is_empty() {
            assert!(wait_readable(self.launcher.as_fd(), SOON));
            self.finish_launched();
        }
    }

    /// A command that was never compiled before, so that its program is freed soon.
    fn command(&mut self) -> (Command, Expected) {
        let code = self.random.u8(1..);
        let command = Command::new(self.place.join("exit")).arg(OsStr::from_bytes(&[code]));
        let command = self.varied(command);
        match self.random.u8(..12) {
            0 => (
                command.current_dir("/no/such"),
                Expected::Failure(SpawnStep::CurrentDir, libc::ENOENT),
            ),
            1 => (
                Command::new(self.place.join("missing")),
                Expected::Failure(SpawnStep::Exec, libc::ENOENT),
            ),
            _ => (command, Expected::Code { code, killed: false }),
        }
    }

    fn varied(&mut self, command: Command) -> Command {
        let root = rustix::process::geteuid().is_root();
        let null = || File::open("/dev/null").unwrap();
        let length = self.random.usize(1..3_000);
        match self.random.u8(..6) {
            0 => command,
            1 => command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
            2 if root => command.uid(12345).gid(12346).groups(&[1, 2]),
            3 => command.listen_fd(null()).env("LONG", "x".repeat(length)),
            4 => command.fd(70, null()).umask(0o77),
            _ => command.stdout(Stdio::append("/dev/null")).arg("y".repeat(length)),
        }
    }

    fn begin(&mut self) {
        let (command, expected) = self.command();
        let program = command.compile().unwrap();
        self.flying.extend(begun(self.spawner.begin(&program), expected));
    }

    fn launch(&mut self) {
        let (command, expected) = self.command();
        match self.launcher.begin(&command.compile().unwrap()) {
            Ok(id) => self.launched.push((id, expected)),
            Err(error) => assert_failure(&error, expected),
        }
    }

    /// A spawn that waits, among those in flight.
    fn wait(&mut self) {
        let (command, expected) = self.command();
        match self.spawner.spawn(&command.compile().unwrap()) {
            Ok(child) => assert_end(child, expected),
            Err(error) => assert_failure(&error, expected),
        }
    }

    /// The execve hangs for a while, and everything that began the spawn is gone by then.
    fn hang(&mut self) {
        let Some(lease) = take(&self.hanging).filter(|_| !cfg!(pidherd_portable)) else {
            return;
        };
        let code = self.random.u8(1..);
        let mut spawner = Spawner::new().unwrap();
        let command = Command::new(&self.hanging).arg(OsStr::from_bytes(&[code]));
        let command = self.varied(command);
        let spawning = spawner.begin(&command.compile().unwrap()).unwrap();
        drop(spawner);
        let mut killed = false;
        match self.random.u8(..4) {
            0 => {
                spawning.pidfd().signal(Signal::KILL).unwrap();
                killed = true;
            }
            1 => return drop(spawning),
            _ => self.finish_launched(),
        }
        lease.end();
        let expected = Expected::Code { code, killed };
        self.finish(expected, spawning);
    }

    fn finish_one(&mut self) {
        if !self.flying.is_empty() {
            let index = self.random.usize(..self.flying.len());
            let (expected, spawning) = self.flying.swap_remove(index);
            self.finish(expected, spawning);
        }
    }

    fn finish(&mut self, expected: Expected, mut spawning: Spawning) {
        loop {
            match self.spawner.finish(spawning) {
                SpawnProgress::InFlight(still) => spawning = still,
                SpawnProgress::Running(child) => return assert_end(child, expected),
                SpawnProgress::Failed(error) => return assert_failure(&error, expected),
                SpawnProgress::Killed(mut child) => {
                    assert_eq!(child.wait().unwrap().exit.signal(), Some(Signal::KILL));
                    return assert!(was_killed(expected), "{expected:?}");
                }
                other => panic!("{other:?}"),
            }
            thread::yield_now();
        }
    }

    /// Some time after it began, so that it is anywhere on its way.
    fn kill_one(&mut self) {
        let Some((expected, spawning)) = self.flying.pop() else {
            return;
        };
        let until = Instant::now() + Duration::from_micros(self.random.u64(..300));
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        // A zombie takes the signal too.
        spawning.pidfd().signal(Signal::KILL).unwrap();
        let expected = match expected {
            Expected::Code { code, .. } => Expected::Code { code, killed: true },
            // Killed first, it has no time to fail.
            Expected::Failure(..) => return drop(spawning),
        };
        self.finish(expected, spawning);
    }

    fn drop_one(&mut self) {
        if !self.flying.is_empty() {
            let index = self.random.usize(..self.flying.len());
            drop(self.flying.swap_remove(index));
        }
    }

    fn drop_launcher(&mut self) {
        self.launcher = Launcher::new().unwrap();
        self.launched.clear();
    }

    fn finish_launched(&mut self) {
        while let Some((id, outcome)) = self.launcher.finish() {
            let index = self.launched.iter().position(|&(other, _)| other == id).unwrap();
            let (_, expected) = self.launched.swap_remove(index);
            match outcome {
                Ok(child) => assert_end(child, expected),
                Err(error) => assert_failure(&error, expected),
            }
        }
    }
}

/// The portable path tells of a failure at once.
fn begun(result: Result<Spawning, SpawnError>, expected: Expected) -> Option<(Expected, Spawning)> {
    match result {
        Ok(spawning) => Some((expected, spawning)),
        Err(error) => {
            assert_failure(&error, expected);
            None
        }
    }
}

fn was_killed(expected: Expected) -> bool {
    matches!(expected, Expected::Code { killed: true, .. })
}

fn assert_end(mut child: Child, expected: Expected) {
    if let Some(input) = child.stdin.take() {
        // The program never reads, and may have ended.
        let _broken = File::from(input).write(b"x");
    }
    for pipe in [child.stdout.take(), child.stderr.take()].into_iter().flatten() {
        let mut text = Vec::new();
        File::from(pipe).read_to_end(&mut text).unwrap();
        assert!(text.is_empty());
    }
    let Expected::Code { code, killed } = expected else {
        panic!("{child:?} runs: {expected:?}");
    };
    let exit = child.wait().unwrap().exit;
    let is_right = exit == Exit::Code(code) || killed && exit.signal() == Some(Signal::KILL);
    assert!(is_right, "{exit} instead of {expected:?}");
}

fn assert_failure(error: &SpawnError, expected: Expected) {
    let Expected::Failure(step, errno) = expected else {
        panic!("{error}: {expected:?}");
    };
    assert_eq!((error.step(), error.errno()), (step, errno), "{error}");
}

/// A lease on the program, where the file system has leases. The last child that executed it may keep it open for
/// another moment.
fn take(path: &Path) -> Option<Lease> {
    let until = Instant::now() + SOON * patience();
    loop {
        match Lease::try_take(path) {
            Ok(lease) => return Some(lease),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return None,
            Err(error) if Instant::now() < until => {
                assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
                thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
}
