//! The ratios that a benchmark measured, for ci/ratios to compare with those in benches/ratios.txt.

use std::fs::OpenOptions;
use std::io::Write;

/// Appends one ratio to the file that `PIDHERD_RATIOS` names. Does nothing without it.
pub fn record(name: &str, ratio: f64) {
    let Some(file) = std::env::var_os("PIDHERD_RATIOS") else {
        return;
    };
    let opened = OpenOptions::new().create(true).append(true).open(&file);
    if let Err(error) = opened.and_then(|mut file| writeln!(file, "{name}\t{ratio:.3}")) {
        eprintln!("cannot write {}: {error}", file.to_string_lossy());
    }
}
