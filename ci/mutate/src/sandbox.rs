//! Runs a test binary so that a mutant can harm nothing else.
//!
//! Each run has a PID namespace of its own: its processes end with it, and it cannot signal others. The address space
//! of each process is limited, and the run has a directory of its own for temporary files.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// The first process of the namespace. The limit is in kibibytes. Tests derive names from PIDs, so that those of two
/// namespaces must differ.
const INIT: &str = "ulimit -v 8388608; ulimit -S -c 0
    echo \"$1\" >/proc/sys/kernel/ns_last_pid 2>/dev/null
    shift; \"$@\"; exit $?";

/// Most tests wait for processes, so that two processors can run more of them at the same time.
const THREADS: &str = "4";

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Passed,
    /// This test failed, and the run was ended.
    Failed(String),
    /// The process ended without the report of a failed test.
    Died,
    TimedOut,
}

pub struct Sandbox {
    /// The working directory of the tests.
    pub tree: PathBuf,
    /// Where the directories for temporary files are.
    pub temporary: PathBuf,
}

static RUNS: AtomicUsize = AtomicUsize::new(0);

impl Sandbox {
    /// Runs these tests of a binary, with variables of the environment, until the first one fails.
    pub fn run(&self, binary: &Path, tests: &[&str], variables: &[(&str, String)], limit: Duration) -> End {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let temporary = self.temporary.join(format!("{}-{run}", std::process::id()));
        let _ = fs::create_dir_all(&temporary);
        // Neighbouring runs are far apart.
        let first_pid = 1_000 + (run * 7_919 + std::process::id() as usize) % 28_000;
        let mut command = Command::new("unshare");
        command.args([
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "--",
            "sh",
            "-c",
            INIT,
            "sh",
        ]);
        command
            .arg(first_pid.to_string())
            .arg(binary)
            .arg("--exact")
            .args(tests);
        command
            .current_dir(&self.tree)
            .env("CARGO_MANIFEST_DIR", &self.tree)
            .env("TMPDIR", &temporary);
        command
            .env("RUST_BACKTRACE", "0")
            .env("RUST_TEST_THREADS", THREADS)
            .envs(variables.iter().map(|(key, value)| (key, value)));
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let end = match command.spawn() {
            Ok(child) => watch(child, limit),
            Err(_) => End::Died,
        };
        let _ = fs::remove_dir_all(&temporary);
        end
    }
}

/// Ends the run at the first failure.
fn watch(mut child: Child, limit: Duration) -> End {
    let deadline = Instant::now() + limit;
    let (sender, lines) = mpsc::channel();
    let output = child.stdout.take();
    let reader = thread::spawn(move || {
        for line in output
            .into_iter()
            .flat_map(|output| BufReader::new(output).split(b'\n'))
            .map_while(Result::ok)
        {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    let early = first_failure(&lines, deadline);
    drop(lines);
    if early.is_some() {
        let _ = child.kill();
    }
    // Only the end of all its processes ends the output.
    let status = child.wait();
    let _ = reader.join();
    early.unwrap_or(if status.is_ok_and(|status| status.success()) {
        End::Passed
    } else {
        End::Died
    })
}

fn first_failure(lines: &Receiver<String>, deadline: Instant) -> Option<End> {
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                let failed = line
                    .strip_prefix("test ")
                    .and_then(|line| line.strip_suffix(" ... FAILED"));
                if let Some(name) = failed {
                    return Some(End::Failed(name.split(" - ").next().unwrap_or(name).to_owned()));
                }
            }
            Err(RecvTimeoutError::Timeout) => return Some(End::TimedOut),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// The names of the tests in a binary.
pub fn tests(binary: &Path) -> Result<Vec<String>, String> {
    let output = Command::new(binary).args(["--list", "--format", "terse"]).output();
    let output = output.map_err(|error| format!("cannot start {}: {error}", binary.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect())
}
