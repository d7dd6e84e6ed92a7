//! processkit, in a process of its own: it needs a newer Rust than pidherd, so it is no dependency.

use std::process::Command;
use std::time::Duration;

use super::program::Program;
use super::times::{Result, Times};

/// The program of benches/processkit. `PIDHERD_PROCESSKIT` names it; `ci/ratios` builds it.
const PROGRAM: &str = "PIDHERD_PROCESSKIT";

pub fn processkit(program: &Program, fleet: usize) -> Result<Times> {
    let path = std::env::var_os(PROGRAM).ok_or("PIDHERD_PROCESSKIT does not name its program")?;
    let mut command = Command::new(path);
    command.arg(fleet.to_string()).arg(program.path()).args(program.args());
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    let text = String::from_utf8(output.stdout)?;
    let seconds: Vec<f64> = text
        .split_whitespace()
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    let [start, stop] = seconds[..] else {
        return Err(format!("it has printed {text:?}").into());
    };
    Ok(Times {
        start: Duration::from_secs_f64(start),
        stop: Duration::from_secs_f64(stop),
        ..Times::default()
    })
}
