//! Which tests reach which mutants, found by one run of each test without a mutant.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::sandbox::{self, End, Sandbox};
use crate::tree::Binary;

/// The longest run of a single test.
const LONGEST: Duration = Duration::from_secs(600);

/// A test that passes without a mutant.
pub struct Test {
    /// The index of its binary.
    pub binary: usize,
    pub name: String,
    pub takes: Duration,
    pub reached: Vec<u32>,
}

/// Runs each test by itself. The results are kept in `results`, and taken from there if the binary is the same.
pub fn tests(
    sandbox: &Sandbox,
    binaries: &[Binary],
    results: &Path,
    mutants: usize,
    jobs: usize,
) -> Result<Vec<Test>, String> {
    let known = known(results);
    let file = OpenOptions::new().create(true).append(true).open(results);
    let file = Mutex::new(file.map_err(|error| format!("{}: {error}", results.display()))?);
    let mut wanted = Vec::new();
    for (index, binary) in binaries.iter().enumerate() {
        for name in sandbox::tests(&binary.path)? {
            wanted.push((index, format!("{} {} {:x}", binary.name, name, binary.digest), name));
        }
    }
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let work = |job: usize| {
        while let Some((binary, key, name)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = known.get(key).cloned().unwrap_or_else(|| {
                let record = sandbox.temporary.join(format!("reached-{job}"));
                let result = run(sandbox, &binaries[*binary].path, name, &record, mutants);
                let line = json!({ "key": key, "ms": result.0, "reached": result.1 });
                let _ = writeln!(file.lock().unwrap_or_else(|error| error.into_inner()), "{line}");
                result
            });
            found
                .lock()
                .unwrap_or_else(|error| error.into_inner())
                .push((*binary, name.clone(), result));
        }
    };
    thread::scope(|scope| {
        for job in 0..jobs {
            let work = &work;
            scope.spawn(move || work(job));
        }
    });
    let mut found = found.into_inner().unwrap_or_else(|error| error.into_inner());
    found.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
    let test = |(binary, name, (ms, reached)): (usize, String, Reached)| match ms {
        Some(ms) => Ok(Test {
            binary,
            name,
            takes: Duration::from_millis(ms),
            reached,
        }),
        None => Err(format!("{} {name} fails without a mutant", binaries[binary].name)),
    };
    found.into_iter().map(test).collect()
}

/// The duration in milliseconds, and the mutants. No duration if the test failed.
type Reached = (Option<u64>, Vec<u32>);

fn known(results: &Path) -> HashMap<String, Reached> {
    let text = fs::read_to_string(results).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let entry = |line: Value| {
        let reached = line["reached"].as_array()?.iter().filter_map(Value::as_u64);
        // A failure is tried again.
        let ms = line["ms"].as_u64()?;
        Some((
            line["key"].as_str()?.to_owned(),
            (Some(ms), reached.map(|number| number as u32).collect()),
        ))
    };
    lines.filter_map(entry).collect()
}

fn run(sandbox: &Sandbox, binary: &Path, name: &str, record: &Path, mutants: usize) -> Reached {
    // What disturbs a test once does not disturb it always.
    for _ in 0..3 {
        let _ = fs::remove_file(record);
        let _ = File::create(record).and_then(|file| file.set_len(mutants as u64 + 1));
        let began = Instant::now();
        let variables = [("PIDHERD_MUTANTS_REACHED", record.to_string_lossy().into_owned())];
        if sandbox.run(binary, &[name], &variables, LONGEST) == End::Passed {
            let reached = fs::read(record).unwrap_or_default();
            let reached = (0..)
                .zip(reached)
                .filter(|(_, byte)| *byte != 0)
                .map(|(number, _)| number);
            return (Some(began.elapsed().as_millis() as u64), reached.collect());
        }
    }
    (None, Vec::new())
}
