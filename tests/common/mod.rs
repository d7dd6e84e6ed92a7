//! What all tests against the real kernel share.
//!
//! Whoever spawns, masks or changes limits can only be checked in a process of its own: the tests of
//! one binary run in threads, and share descriptors, dispositions and children. So a test says
//!
//! ```ignore
//! #[test]
//! fn it_stops() {
//!     common::isolated(|| { ... });
//! }
//! ```
//!
//! and its body runs in a fresh process: the test binary again, told to run this one test. Output,
//! filters and parallelism stay those of cargo test (or nextest). When the body is done, the
//! [oracle](oracle) compares the process with what it was before; a watchdog outside kills what hangs
//! and says what it was doing. The body's thread is not the only one, the harness's own waits beside it:
//! for signals sent to the process see [`Isolation::blocked`].
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

pub mod cgroups;
pub mod elf;
pub mod oracle;
pub mod places;
pub mod processes;
pub mod wait;

use std::cell::Cell;
use std::env;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use pidherd::signal::SignalSet;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Signal, set_parent_process_death_signal};

pub use oracle::Oracle;
pub use places::{TempDir, TestCgroup, cgroup_root, root_or_skip, skipped, tempdir, test_cgroup};
pub use wait::{wait_for_content, wait_gone, wait_readable, wait_until};

/// The environment variable that marks every process of a test; its value is the test's own.
pub const MARKER: &str = "PIDHERD_TEST_MARKER";

/// How long a test may take before the watchdog ends it, unless it says otherwise.
pub const LIMIT: Duration = Duration::from_secs(60);

/// How long a test may wait for what is about to happen: less than [`LIMIT`], so that the wait fails
/// and says for what, before the watchdog does.
pub const SOON: Duration = Duration::from_secs(20);

/// The line by which the inner process says that the body ran and the oracle found nothing.
const DONE: &str = "isolated: done";

thread_local! {
    static USED: Cell<bool> = const { Cell::new(false) };
}

/// Runs the whole body of a test in a process of its own, under the oracle and the watchdog.
pub fn isolated(body: impl FnOnce()) {
    Isolation::new().run(body);
}

/// The same, with another limit for the watchdog or other signals blocked.
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing is run yet"]
pub struct Isolation {
    limit: Duration,
    blocked: SignalSet,
}

impl Isolation {
    pub fn new() -> Isolation {
        Isolation {
            limit: LIMIT,
            blocked: SignalSet::EMPTY,
        }
    }

    /// How long the test may take.
    pub fn limit(self, limit: Duration) -> Isolation {
        Isolation { limit, ..self }
    }

    /// Starts the process with these signals blocked, in all its threads. (Those blocked by the body
    /// are blocked in its thread alone, and the harness's own would take what is sent to the process.)
    pub fn blocked(self, blocked: SignalSet) -> Isolation {
        Isolation { blocked, ..self }
    }

    pub fn run(self, body: impl FnOnce()) {
        if let Err(failure) = self.outcome(body) {
            panic!("{failure}");
        }
    }

    /// For a test of the harness itself: what was printed, or how it failed.
    pub fn outcome(self, body: impl FnOnce()) -> Result<String, Failure> {
        if env::var_os(MARKER).is_some() {
            run_here(body);
        }
        assert!(
            !USED.replace(true),
            "this must be the whole test: the second one would never run"
        );
        self.run_outside()
    }

    /// In the outer process: starts the inner one and waits for it.
    fn run_outside(self) -> Result<String, Failure> {
        let marker = new_marker();
        let mut output = capture().expect("a memfd for the output");
        let mut command = inner_command(&marker, &output);
        block_in(&mut command, self.blocked);
        let mut child = command.spawn().expect("this test's own binary");
        let hung = !wait::wait_gone(child.id(), self.limit);
        let report = hung.then(|| processes::report(&marker));
        let _already_gone = child.kill();
        let status = child.wait().expect("a child of ours");
        let left = processes::kill_marked(&marker);
        places::remove_cgroups(child.id());
        let output = take_output(&mut output).expect("the output that was captured");
        pass_on(&output);
        match verdict(status, report, self.limit, &left, &output) {
            None => Ok(output),
            Some(how) => Err(Failure { how, output }),
        }
    }
}

/// How an isolated test failed.
#[derive(Debug)]
pub struct Failure {
    /// In a word or two; what the test printed is not in it.
    pub how: String,
    /// All that was printed.
    pub output: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; what it printed:\n{}", self.how, self.output)
    }
}

/// In the inner process: the body, and the oracle around it. What panics here is reported by the
/// harness of this process, whose exit status then tells.
fn run_here(body: impl FnOnce()) -> ! {
    // Whoever interrupts the tests leaves none of them running: this process goes when the thread
    // that waits for it does.
    set_parent_process_death_signal(Some(Signal::KILL)).expect("prctl");
    heed_all_signals();
    let oracle = Oracle::begin();
    body();
    oracle.end();
    println!("\n{DONE}");
    process::exit(0);
}

/// Whoever runs the tests in the background may have had them ignore SIGINT and SIGQUIT, which what is started
/// here would inherit.
fn heed_all_signals() {
    const SIGNALS: std::ops::RangeInclusive<i32> = 1..=64;
    for signal in SIGNALS.filter(|&signal| signal != libc::SIGPIPE) {
        // SAFETY: no handler; numbers that can't be are refused. (SIGPIPE is the standard library's to ignore.)
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// What is wrong, if anything.
fn verdict(status: ExitStatus, report: Option<String>, limit: Duration, left: &[u32], output: &str) -> Option<String> {
    if let Some(report) = report {
        return Some(format!(
            "the watchdog killed it, still running after {limit:?}:\n{report}"
        ));
    }
    if !status.success() {
        return Some(format!("the isolated process failed: {status}"));
    }
    if !output.lines().any(|line| line == DONE) {
        return Some("the isolated process never came to the end of the test".to_owned());
    }
    (!left.is_empty()).then(|| format!("marked processes outlived it: {left:?}"))
}

/// The same binary, told to run the test that this thread runs.
fn inner_command(marker: &str, output: &File) -> Command {
    let thread = thread::current();
    let test = thread
        .name()
        .filter(|&name| name != "main")
        .expect("a thread named after its test");
    let mut command = Command::new(env::current_exe().expect("the path of this binary"));
    command
        .args([test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(MARKER, marker)
        .env("RUST_BACKTRACE", "0")
        .env_remove("RUST_TEST_THREADS")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("a copy of the memfd"))
        .stderr(output.try_clone().expect("a copy of the memfd"));
    command
}

/// The standard library empties the mask of what it starts, so this is done behind it.
fn block_in(command: &mut Command, signals: SignalSet) {
    if signals.is_empty() {
        return;
    }
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises all of the set it is given.
    let mut set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    };
    for signal in signals.iter() {
        // SAFETY: the set is a live, initialised local, and the number is that of a signal.
        unsafe { libc::sigaddset(&mut set, signal.as_raw()) };
    }
    let block = move || {
        // SAFETY: the set is the closure's own copy; no old mask is asked for.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) } {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    };
    // SAFETY: between fork and exec it calls pthread_sigmask alone, which is async-signal-safe, and
    // allocates nothing unless that fails.
    unsafe { command.pre_exec(block) };
}

fn new_marker() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{count}", process::id())
}

/// A file in memory: unlike a pipe it neither fills up nor is kept open by who should be gone.
fn capture() -> io::Result<File> {
    Ok(memfd_create("test output", MemfdFlags::CLOEXEC)?.into())
}

fn take_output(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What an isolated test has skipped is said aloud, past the harness's capture; the rest only to
/// whoever asked for it.
fn pass_on(output: &str) {
    for skip in skips(output) {
        let _nobody_listens = writeln!(io::stderr(), "{skip}");
    }
    print!("{output}");
}

/// What was said to be skipped; the harness may have left its own words before it on the line.
pub fn skips(output: &str) -> impl Iterator<Item = &str> {
    output
        .lines()
        .filter_map(|line| Some(&line[line.find(places::SKIPPED)?..]))
}
