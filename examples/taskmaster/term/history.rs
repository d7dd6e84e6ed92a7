//! The lines that were typed before, in memory and in a file.
//!
//! Each line is appended to the file when it is entered, so that several taskmasters can share the file and a crash
//! loses nothing. A file that has grown to twice the length is shortened at the next start.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde_json::Value;

use crate::files;
use crate::handing;

/// The number of lines that are kept.
const MOST: usize = 1000;
/// The size of the largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// The lines that were typed before, the oldest first.
#[derive(Debug, Default)]
pub struct History {
    lines: Vec<String>,
    /// `None` if the lines are kept in memory alone.
    path: Option<PathBuf>,
    /// Whether an error of the file was reported.
    has_failed: bool,
}

impl History {
    /// Reads the file. A file that cannot be read counts as empty.
    pub fn open(path: Option<PathBuf>) -> History {
        let mut history = History {
            lines: Vec::new(),
            path,
            has_failed: false,
        };
        let read = history.path.as_deref().map(read);
        let Some(Ok(text)) = read else { return history };
        let all = text.lines().count();
        let lines = text.lines().filter(|line| is_fit(line)).map(str::to_owned);
        history.lines = lines.collect();
        history.forget_oldest();
        if all > 2 * MOST {
            history.shorten();
        }
        history
    }

    /// The lines in memory, for the program that takes the place of this one.
    pub fn hand_over(&self) -> Value {
        self.lines
            .iter()
            .map(|line| handing::bytes(line.as_bytes()))
            .collect::<Vec<_>>()
            .into()
    }

    /// Continues with the lines that the program before this one has handed over.
    pub fn take_over(&mut self, left: &Value) {
        let line = |line: &Value| String::from_utf8(handing::to_bytes(line)?).ok();
        if let Some(lines) = handing::to_list(left, line) {
            self.lines = lines;
        }
    }

    /// Adds a line, unless it is blank or equals the last one. Returns an error of the file once.
    pub fn add(&mut self, line: &str) -> Option<String> {
        if !is_fit(line) || self.lines.last().is_some_and(|last| last == line) {
            return None;
        }
        self.lines.push(line.to_owned());
        self.forget_oldest();
        let path = self.path.as_deref()?;
        let error = append(path, line).err()?;
        let is_new = !std::mem::replace(&mut self.has_failed, true);
        is_new.then(|| {
            format!(
                "cannot keep the history in {}: {}",
                path.display(),
                files::reason(error)
            )
        })
    }

    /// The number of lines.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// The line with this number.
    pub fn get(&self, number: usize) -> Option<&str> {
        self.lines.get(number).map(String::as_str)
    }

    /// The number of the last line before `before` that contains `text`.
    pub fn find(&self, text: &str, before: usize) -> Option<usize> {
        let lines = self.lines.get(..before.min(self.lines.len())).unwrap_or_default();
        lines.iter().rposition(|line| line.contains(text))
    }

    fn forget_oldest(&mut self) {
        let surplus = self.lines.len().saturating_sub(MOST);
        self.lines.drain(..surplus);
    }

    /// Replaces the file by a shorter one. After an error the long one stays.
    fn shorten(&self) {
        let Some(path) = &self.path else { return };
        let mut new = path.clone().into_os_string();
        new.push(format!(".{}", std::process::id()));
        let new = PathBuf::from(new);
        let text = self.lines.join("\n") + "\n";
        let written = open(&new, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&new, path));
        if written.is_err() {
            let _unfinished = fs::remove_file(&new);
        }
    }
}

/// The path of the history: `TASKMASTER_HISTORY`, or `taskmaster/history` in the user's directory for state
/// (`XDG_STATE_HOME`, or `.local/state` in the home directory). An empty `TASKMASTER_HISTORY` means none.
pub fn path(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(path) = variable("TASKMASTER_HISTORY") {
        return (!path.is_empty()).then(|| path.into());
    }
    let directory = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = directory("XDG_STATE_HOME").or_else(|| Some(directory("HOME")?.join(".local/state")))?;
    Some(state.join("taskmaster/history"))
}

/// Whether a line may be in the history. Control characters would reach the terminal.
fn is_fit(line: &str) -> bool {
    !line.trim().is_empty() && !line.chars().any(char::is_control)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    open(path, OFlags::RDONLY)?.take(LARGEST).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
    let mut file = match open(path, flags) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().unwrap_or(Path::new("."));
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            open(path, flags)?
        }
        other => other?,
    };
    file.write_all(format!("{line}\n").as_bytes())
}

/// Opens a regular file, and no other, because only a regular file never waits.
fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let path = std::env::temp_dir().join(format!("taskmaster-history-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Place(path)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn lines_are_kept_in_a_file_for_the_user_alone() {
        let place = Place::new("file");
        let path = place.0.join("a/b/history");
        let mut history = History::open(Some(path.clone()));
        for line in ["status", "status", " ", "stop web", "a\u{7}b", "status"] {
            assert_eq!(history.add(line), None);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "status\nstop web\nstatus\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let next = History::open(Some(path));
        assert_eq!((next.len(), next.get(1)), (3, Some("stop web")));
        assert_eq!(next.find("stat", 2), Some(0));
        assert_eq!(next.find("nope", 3), None);
    }

    #[test]
    fn a_long_file_is_shortened() {
        let place = Place::new("long");
        let path = place.0.join("history");
        let text: String = (0..2500).map(|number| format!("stop {number}\n")).collect();
        fs::write(&path, text).unwrap();
        let history = History::open(Some(path.clone()));
        assert_eq!((history.len(), history.get(0)), (MOST, Some("stop 1500")));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), MOST);
        assert_eq!(fs::read_dir(&place.0).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_reported_once() {
        let mut history = History::open(Some("/dev/null/history".into()));
        let report = history.add("status").unwrap();
        assert_eq!(report, "cannot keep the history in /dev/null/history: Not a directory");
        assert_eq!(history.add("stop web"), None);
        assert_eq!(history.len(), 2);
        let mut device = History::open(Some("/dev/zero".into()));
        assert!(device.add("status").unwrap().ends_with("it is not a regular file"));
    }

    #[test]
    fn the_file_is_where_the_environment_tells() {
        let find = |pairs: &[(&str, &str)]| {
            path(|name| {
                let value = pairs.iter().find(|(variable, _)| *variable == name);
                value.map(|(_, value)| OsString::from(value))
            })
        };
        let home = ("HOME", "/home/a");
        assert_eq!(find(&[home]), Some("/home/a/.local/state/taskmaster/history".into()));
        assert_eq!(
            find(&[home, ("XDG_STATE_HOME", "/s")]),
            Some("/s/taskmaster/history".into())
        );
        assert_eq!(find(&[home, ("TASKMASTER_HISTORY", "/h")]), Some("/h".into()));
        assert_eq!(find(&[home, ("TASKMASTER_HISTORY", "")]), None);
        assert_eq!(find(&[]), None);
    }
}
