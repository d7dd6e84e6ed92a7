//! The taskmaster's own log file (`[supervisord] logfile`), in supervisord's format.
//!
//! ```text
//! 2026-11-26 05:01:39,123 INFO web  STARTING -> RUNNING
//! ```

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::{Level, OwnLogSettings};
use crate::logs::LogFile;

/// The log file.
#[derive(Debug)]
pub struct OwnLog {
    file: LogFile,
    silent: bool,
    /// Whether a line was written since the last call of [`OwnLog::take_written`].
    written: bool,
    troubles: Vec<String>,
}

impl OwnLog {
    /// Opens the file for appending. If that fails, each line is another attempt.
    pub fn open(settings: &OwnLogSettings) -> OwnLog {
        let mut troubles = Vec::new();
        OwnLog {
            file: LogFile::new(&settings.path, 0o666, settings.rotation, &mut troubles),
            silent: settings.silent,
            written: false,
            troubles,
        }
    }

    /// Whether the log goes to the file alone.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// Writes a line.
    pub fn line(&mut self, level: Level, text: &str) {
        let stamped = format!("{} {} {text}\n", stamp(SystemTime::now()), level.name());
        self.written = true;
        self.file.write(stamped.as_bytes(), &mut self.troubles);
    }

    /// What went wrong with the file since the last call.
    pub fn take_troubles(&mut self) -> Vec<String> {
        std::mem::take(&mut self.troubles)
    }

    /// Whether a line was written since the last call.
    pub fn take_written(&mut self) -> bool {
        std::mem::take(&mut self.written)
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Opens the file again after it was renamed. Returns whether it was opened.
    pub fn reopen(&mut self) -> bool {
        self.file.reopen(&mut self.troubles)
    }

    /// Removes the file and begins a new one.
    ///
    /// # Errors
    /// The file cannot be removed or created.
    pub fn clear(&mut self) -> std::io::Result<()> {
        self.file.clear()
    }
}

/// Local time with milliseconds.
fn stamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since.as_secs().try_into().unwrap_or(0);
    // SAFETY: zeros are a valid value of this struct of numbers and a pointer that may be null.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut tm) };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02},{:03}",
        tm.tm_year + 1900,
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_has_supervisords_format() {
        let stamp = stamp(UNIX_EPOCH + Duration::from_millis(1_700_000_000_042));
        assert!(stamp.starts_with("2023-11-1") && stamp.ends_with(",042"), "{stamp}");
        assert_eq!(stamp.len(), 23);
    }
}
