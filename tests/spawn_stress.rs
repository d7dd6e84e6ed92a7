//! Eight threads spawn and eight threads allocate, while signals arrive at a high rate.
//!
//! `PIDHERD_STRESS_SPAWNS` sets the number of children. ci/stress uses a hundred thousand.

mod common;

use std::ffi::{OsStr, c_int};
use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::storm::{self, Storm};
use common::{Isolation, TempDir, elf, tempdir};
use pidherd::exit::Exit;
use pidherd::{Child, Command, Program, SpawnProgress, Spawner, Spawning, Stdio};

const THREADS: usize = 8;
/// The number of children that each thread has at the same time.
const AT_ONCE: usize = 4;
const SPAWNS: usize = 4_000;
const LIMIT: Duration = Duration::from_secs(1800);

/// An errno that no call sets.
const ERRNO: c_int = 4242;

#[test]
fn every_status_is_correct_during_signals_and_allocations() {
    if !elf::runs_or_skip() {
        return;
    }
    Isolation::new().limit(LIMIT).run(|| {
        let spawns = std::env::var("PIDHERD_STRESS_SPAWNS").map_or(SPAWNS, |text| text.parse().unwrap());
        let place = tempdir();
        elf::install(&place.join("exit"), elf::EXITING);
        let storm = Storm::begin();
        let done = AtomicBool::new(false);
        let began = Instant::now();
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| allocate_until(&done));
            }
            scope.spawn(|| storm::signal_until(&done));
            let (done, place) = (&done, &place);
            let spawning: Vec<_> = (0..THREADS)
                .map(|thread| scope.spawn(move || spawn_and_check(place, thread, spawns / THREADS)))
                .collect();
            let results: Vec<_> = spawning.into_iter().map(|thread| thread.join()).collect();
            done.store(true, Ordering::Relaxed);
            assert!(results.iter().all(Result::is_ok));
        });
        let (handled, strayed) = storm.end();
        assert!(handled > spawns as u64 / 100, "only {handled} signals were handled");
        assert_eq!(strayed, 0, "a signal handler ran in a child");
        println!("{spawns} children and {handled} signals in {:?}", began.elapsed());
    });
}

/// One of several kinds of commands, with this exit code. The program takes the code from the first byte of
/// its argument. The code 0 needs an empty argument, of which the first byte is the final NUL.
fn command(place: &TempDir, thread: usize, code: u8) -> Command {
    let bytes = [code];
    let argument = OsStr::from_bytes(if code == 0 { &[] } else { &bytes });
    varied(Command::new(place.join("exit")).arg(argument), thread)
}

fn varied(command: Command, thread: usize) -> Command {
    let root = rustix::process::geteuid().is_root();
    match thread % 4 {
        0 => command,
        1 => command.stdin(Stdio::piped()).stdout(Stdio::piped()),
        2 if root => command.uid(12345).gid(12346).groups(&[1, 2]),
        2 => command.setsid(true),
        _ => command
            .umask(0o77)
            .current_dir("/")
            .fd(70, File::open("/dev/null").unwrap()),
    }
}

fn spawn_and_check(place: &TempDir, thread: usize, count: usize) {
    let mut spawner = Spawner::new().unwrap();
    let codes: Vec<u8> = (0..=u8::MAX)
        .filter(|&code| usize::from(code) % THREADS == thread)
        .collect();
    let mut programs: Vec<(u8, Program)> = codes
        .into_iter()
        .map(|code| (code, command(place, thread, code).compile().unwrap()))
        .collect();
    let mut running: Vec<(u8, Child)> = Vec::new();
    let mut in_flight: Vec<(u8, Spawning)> = Vec::new();
    let kinds = programs.len();
    for n in 0..count {
        let (code, program) = &mut programs[n % kinds];
        set_errno(ERRNO);
        // Half of the spawns wait for exec. The others are in flight, several at a time.
        if n / AT_ONCE % 2 == 0 {
            let child = spawner.spawn(program);
            assert_eq!(errno(), ERRNO);
            running.push((*code, child.unwrap()));
        } else {
            let spawning = spawner.begin(program);
            assert_eq!(errno(), ERRNO);
            in_flight.push((*code, spawning.unwrap()));
        }
        if running.len() + in_flight.len() == AT_ONCE || n + 1 == count {
            running.drain(..).for_each(|(code, child)| check(code, child));
            for (code, spawning) in in_flight.drain(..) {
                check(code, finish(&mut spawner, spawning));
            }
        }
    }
}

fn finish(spawner: &mut Spawner, mut spawning: Spawning) -> Child {
    loop {
        match spawner.finish(spawning) {
            SpawnProgress::InFlight(still) => spawning = still,
            SpawnProgress::Running(child) => return child,
            other => panic!("{other:?}"),
        }
        thread::yield_now();
    }
}

fn check(code: u8, mut child: Child) {
    if let Some(output) = child.stdout.take() {
        let mut text = Vec::new();
        File::from(output).read_to_end(&mut text).unwrap();
        assert!(text.is_empty());
    }
    assert_eq!(child.wait().unwrap().exit, Exit::Code(code));
}

fn allocate_until(done: &AtomicBool) {
    let mut size = 16;
    let mut kept = Vec::new();
    while !done.load(Ordering::Relaxed) {
        kept.push(black_box(vec![1u8; size]));
        size = if size > 200_000 { 16 } else { size * 3 };
        if kept.len() > 50 {
            kept.clear();
            // All threads share two processors.
            thread::yield_now();
        }
    }
}

fn errno() -> c_int {
    // SAFETY: the pointer is valid and belongs to this thread.
    unsafe { *libc::__errno_location() }
}

fn set_errno(value: c_int) {
    // SAFETY: the pointer is valid and belongs to this thread.
    unsafe { *libc::__errno_location() = value };
}
