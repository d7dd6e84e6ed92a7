//! The parts that all tests against the real kernel share.
//!
//! A test that spawns, masks signals or changes limits needs a process of its own: the tests of one binary
//! run in threads, and share descriptors, dispositions and children. Such a test is written like this:
//!
//! ```ignore
//! #[test]
//! fn it_stops() {
//!     common::isolated(|| { ... });
//! }
//! ```
//!
//! Its body runs in a new process, which is the same test binary with only this one test selected. Output,
//! filters and parallelism work as usual with cargo test (or nextest). After the body, the [oracle](oracle)
//! compares the process with its state before the test. A watchdog in the outer process kills a test that
//! hangs, and reports what its processes were doing.
//!
//! The body's thread is not the only thread of the new process: the test harness's main thread waits beside
//! it. For signals that are sent to the process, see [`Isolation::blocked`].
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

pub mod cgroups;
pub mod descriptors;
pub mod elf;
pub mod fork;
pub mod guide;
pub mod interrupt;
pub mod lease;
pub mod memory;
pub mod notify;
pub mod oracle;
pub mod places;
pub mod processes;
pub mod refuse;
pub mod resources;
pub mod storm;
pub mod terminal;
pub mod tracer;
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
pub use places::{TempDir, TestCgroup, cgroup_root, kernel_since, root_or_skip, skipped, tempdir, test_cgroup};
pub use wait::{patience, wait_for_content, wait_gone, wait_readable, wait_until};

/// The environment variable that marks every process of a test. Each test has a value of its own.
pub const MARKER: &str = "PIDHERD_TEST_MARKER";

/// The default time after which the watchdog ends a test.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The time that a test may wait for an event that is about to happen. It is shorter than [`LIMIT`], so that
/// the wait fails first and its message names the event.
pub const SOON: Duration = Duration::from_secs(20);

/// The line that the inner process prints when the body has run and the oracle has found nothing.
const DONE: &str = "isolated: done";

thread_local! {
    static USED: Cell<bool> = const { Cell::new(false) };
}

/// Runs the whole body of a test in a process of its own, under the oracle and the watchdog.
pub fn isolated(body: impl FnOnce()) {
    Isolation::new().run(body);
}

/// An isolated run with another limit for the watchdog or with other signals blocked.
#[derive(Clone, Copy, Debug)]
#[must_use = "the test runs only when `run` is called"]
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

    /// Sets the time after which the watchdog ends the test.
    pub fn limit(self, limit: Duration) -> Isolation {
        Isolation { limit, ..self }
    }

    /// Starts the process with these signals blocked in all its threads. (A signal that the body blocks is
    /// blocked in the body's thread only. The harness's thread would take such a signal if it is sent to the
    /// process.)
    pub fn blocked(self, blocked: SignalSet) -> Isolation {
        Isolation { blocked, ..self }
    }

    pub fn run(self, body: impl FnOnce()) {
        if let Err(failure) = self.outcome(body) {
            panic!("{failure}");
        }
    }

    /// Returns what the test printed, or how it failed. This is for tests of the harness itself.
    pub fn outcome(self, body: impl FnOnce()) -> Result<String, Failure> {
        if env::var_os(MARKER).is_some() {
            run_here(body);
        }
        assert!(
            !USED.replace(true),
            "a test must not isolate twice: the second body would never run"
        );
        self.run_outside()
    }

    /// Starts the inner process and waits for it. This runs in the outer process.
    fn run_outside(self) -> Result<String, Failure> {
        let marker = new_marker();
        let mut output = capture().expect("cannot create a memfd for the output");
        let mut command = inner_command(&marker, &output);
        block_in(&mut command, self.blocked);
        let mut child = command.spawn().expect("cannot start this test binary again");
        let cgroups = places::cgroups_of(child.id());
        let hung = !wait::wait_gone(child.id(), self.limit);
        let limit = self.limit * patience();
        let report = hung.then(|| processes::report(&marker));
        let _already_gone = child.kill();
        let status = child.wait().expect("cannot wait for the inner process");
        let left = processes::kill_marked(&marker);
        places::remove_cgroups(&cgroups);
        let output = take_output(&mut output).expect("cannot read the captured output");
        pass_on(&output);
        match verdict(status, report, limit, &left, &output) {
            None => Ok(output),
            Some(how) => Err(Failure { how, output }),
        }
    }
}

/// How an isolated test failed.
#[derive(Debug)]
pub struct Failure {
    /// The reason in a few words, without the test's output.
    pub how: String,
    /// Everything that the test printed.
    pub output: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; the output:\n{}", self.how, self.output)
    }
}

/// Runs the body between the oracle's two snapshots. This runs in the inner process. The harness of this
/// process reports a panic, and its exit status shows it.
fn run_here(body: impl FnOnce()) -> ! {
    // The kernel kills this process when the thread that waits for it ends. So an interrupted test run leaves no
    // process.
    set_parent_process_death_signal(Some(Signal::KILL)).expect("prctl");
    reset_dispositions();
    let is_executed_anew = env::var_os("PIDHERD_HAND_OVER").is_some();
    let oracle = if is_executed_anew {
        Oracle::begin_after_exec()
    } else {
        Oracle::begin()
    };
    body();
    oracle.end();
    println!("\n{DONE}");
    process::exit(0);
}

/// Resets the dispositions of all signals. A shell that runs the tests in the background makes them ignore
/// SIGINT and SIGQUIT, and the processes that a test starts would inherit that.
fn reset_dispositions() {
    const SIGNALS: std::ops::RangeInclusive<i32> = 1..=64;
    for signal in SIGNALS.filter(|&signal| signal != libc::SIGPIPE) {
        // SAFETY: the call installs no handler. The kernel refuses numbers that are no signals. (SIGPIPE is
        // left out: the standard library ignores it on purpose.)
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// What is wrong with the result of an inner process. `None` if nothing is.
fn verdict(status: ExitStatus, report: Option<String>, limit: Duration, left: &[u32], output: &str) -> Option<String> {
    if let Some(report) = report {
        return Some(format!(
            "the watchdog killed the test, which still ran after {limit:?}:\n{report}"
        ));
    }
    if !status.success() {
        return Some(format!("the isolated process failed: {status}"));
    }
    if !output.lines().any(|line| line == DONE) {
        return Some("the isolated process ended before the end of the test".to_owned());
    }
    (!left.is_empty()).then(|| format!("marked processes are left: {left:?}"))
}

/// A command that runs this test binary with only the test of the current thread.
fn inner_command(marker: &str, output: &File) -> Command {
    let thread = thread::current();
    let test = thread
        .name()
        .filter(|&name| name != "main")
        .expect("the thread has no test's name");
    let mut command = Command::new(env::current_exe().expect("cannot read the path of this binary"));
    command
        .args([test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(MARKER, marker)
        .env("RUST_BACKTRACE", "0")
        .env_remove("RUST_TEST_THREADS")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("cannot duplicate the memfd"))
        .stderr(output.try_clone().expect("cannot duplicate the memfd"));
    command
}

/// Blocks the signals in the child. The standard library empties the signal mask of a child before it runs
/// the hook, so the hook can block them.
fn block_in(command: &mut Command, signals: SignalSet) {
    if signals.is_empty() {
        return;
    }
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the whole set that it gets.
    let mut set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    };
    for signal in signals.iter() {
        // SAFETY: the set is an initialised local variable, and the number is a valid signal's.
        unsafe { libc::sigaddset(&mut set, signal.as_raw()) };
    }
    let block = move || {
        // SAFETY: the set is the closure's own copy. The old mask is not requested.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) } {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    };
    // SAFETY: between fork and exec the hook calls only pthread_sigmask, which is async-signal-safe. It
    // allocates nothing unless that call fails.
    unsafe { command.pre_exec(block) };
}

fn new_marker() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{count}", process::id())
}

/// A file in memory for the output. Unlike a pipe it does not fill up, and a process that should have ended
/// cannot delay the end of file.
fn capture() -> io::Result<File> {
    Ok(memfd_create("test output", MemfdFlags::CLOEXEC)?.into())
}

fn take_output(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Prints the test's output, which the harness captures. The `SKIPPED:` lines also go straight to standard
/// error, where the harness does not capture them.
fn pass_on(output: &str) {
    for skip in skips(output) {
        let _ignored = writeln!(io::stderr(), "{skip}");
    }
    print!("{output}");
}

/// The `SKIPPED:` messages in an output. The harness may have printed text before them on the same line.
pub fn skips(output: &str) -> impl Iterator<Item = &str> {
    output
        .lines()
        .filter_map(|line| Some(&line[line.find(places::SKIPPED)?..]))
}
