//! One log file with its rotation.
//!
//! A write to a regular file waits only for the disk, so the lines need no queue. What cannot be written is lost and
//! counted, and each further write is another attempt: a full disk may get room again.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::io::Errno;

use crate::config::Rotation;
use crate::files;

/// A log file. It is opened for appending, and created if necessary.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    /// The permissions of a new file, before the umask.
    mode: u32,
    /// The rotation, which a reload may change.
    pub rotation: Rotation,
    /// `None` while it cannot be opened.
    file: Option<OwnedFd>,
    size: u64,
    /// Whether it can be renamed. A device such as /dev/null stays where it is.
    is_regular: bool,
    /// The least size for the next rotation, after one that failed.
    due: u64,
    /// The error of the last attempt to open or to write.
    trouble: Option<Errno>,
    /// The number of bytes that were lost since the first error.
    lost: u64,
}

impl LogFile {
    /// Opens the file. If that fails, each write is another attempt.
    pub fn new(path: &Path, mode: u32, rotation: Rotation, notes: &mut Vec<String>) -> LogFile {
        let mut log = LogFile {
            path: path.to_owned(),
            mode,
            rotation,
            file: None,
            size: 0,
            is_regular: false,
            due: 0,
            trouble: None,
            lost: 0,
        };
        if let Err(error) = log.open() {
            log.fail(error, 0, notes);
        }
        log
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends `bytes`. Problems and their ends are added to `notes`, each one once.
    pub fn write(&mut self, bytes: &[u8], notes: &mut Vec<String>) {
        if self.file.is_none() {
            if let Err(error) = self.open() {
                return self.fail(error, bytes.len(), notes);
            }
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(file) = &self.file else { return };
            match rustix::io::write(file, rest) {
                Ok(written) => {
                    self.size += written as u64;
                    rest = rest.get(written..).unwrap_or_default();
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    // A file that reached the limit of its size may be rotated into room.
                    self.rotate_if_due(notes);
                    return self.fail(error, rest.len(), notes);
                }
            }
        }
        if self.trouble.take().is_some() {
            let lost = std::mem::take(&mut self.lost);
            notes.push(format!(
                "{} is written again: {lost} bytes are lost",
                self.path.display()
            ));
        }
        self.rotate_if_due(notes);
    }

    /// Opens the file again, unless its path still leads to it. Returns whether it was opened.
    pub fn reopen(&mut self, notes: &mut Vec<String>) -> bool {
        let is_same = |file: &OwnedFd| files::is_still(file.as_fd(), &self.path);
        if self.file.as_ref().is_some_and(is_same) {
            return false;
        }
        match self.open() {
            Ok(()) => true,
            Err(error) => {
                self.fail(error, 0, notes);
                false
            }
        }
    }

    /// Removes the file and begins a new one.
    ///
    /// # Errors
    /// The errors of unlink(2), except that of a missing file, and those of open(2).
    pub fn clear(&mut self) -> io::Result<()> {
        if !self.is_regular && self.file.is_some() {
            return Ok(());
        }
        remove(&self.path)?;
        Ok(self.open()?)
    }

    /// Opens the file. If that fails, a file that was open stays in use.
    fn open(&mut self) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOCTTY;
        let mode = Mode::from_raw_mode(self.mode);
        let file = rustix::fs::open(&self.path, flags | OFlags::NONBLOCK, mode)?;
        let stat = fstat(&file)?;
        self.size = u64::try_from(stat.st_size).unwrap_or(0);
        self.is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        self.due = 0;
        self.file = Some(file);
        Ok(())
    }

    fn fail(&mut self, error: Errno, lost: usize, notes: &mut Vec<String>) {
        self.lost += lost as u64;
        if self.trouble.replace(error) != Some(error) {
            let (path, reason) = (self.path.display(), files::reason(error));
            notes.push(format!(
                "cannot write {path}: {reason}; output is lost until a write succeeds"
            ));
        }
    }

    fn rotate_if_due(&mut self, notes: &mut Vec<String>) {
        if !self.is_regular || self.rotation.maxbytes == 0 || self.size < self.due.max(self.rotation.maxbytes) {
            return;
        }
        let rotated = self.rename_all().and_then(|()| Ok(self.open()?));
        if let Err(error) = rotated {
            // The next attempt follows after as many bytes as a file has.
            self.due = self.size.saturating_add(self.rotation.maxbytes);
            notes.push(format!(
                "cannot rotate {}: {}",
                self.path.display(),
                files::reason(error)
            ));
        }
    }

    /// `NAME.1` becomes `NAME.2`, and so on; the last one is replaced. `NAME` becomes `NAME.1`.
    fn rename_all(&self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut path = self.path.clone().into_os_string();
            path.push(format!(".{number}"));
            PathBuf::from(path)
        };
        if self.rotation.backups == 0 {
            return remove(&self.path);
        }
        // The names are renamed from the first gap on, so that many backups cost nothing before they exist.
        let gap = (1..self.rotation.backups).find(|&number| !numbered(number).exists());
        for number in (1..gap.unwrap_or(self.rotation.backups)).rev() {
            fs::rename(numbered(number), numbered(number + 1))?;
        }
        match fs::rename(&self.path, numbered(1)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed,
        }
    }
}

/// Removes a file that may be missing.
///
/// # Errors
/// The other errors of unlink(2).
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("taskmaster-log-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        path
    }

    fn texts(directory: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(directory).unwrap().flatten();
        let mut texts: Vec<(String, String)> = entries
            .map(|entry| {
                (
                    entry.file_name().into_string().unwrap(),
                    fs::read_to_string(entry.path()).unwrap(),
                )
            })
            .collect();
        texts.sort();
        texts
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|&(name, text)| (name.to_owned(), text.to_owned()))
            .collect()
    }

    #[test]
    fn a_full_file_is_renamed_and_the_oldest_one_is_replaced() {
        let directory = directory("rotation");
        let rotation = Rotation {
            maxbytes: 4,
            backups: 2,
        };
        let mut notes = Vec::new();
        let mut log = LogFile::new(&directory.join("log"), 0o600, rotation, &mut notes);
        for text in ["aa", "bb", "cccc", "ddddd", "e"] {
            log.write(text.as_bytes(), &mut notes);
        }
        let expected = [("log", "e"), ("log.1", "ddddd"), ("log.2", "cccc")];
        assert_eq!(texts(&directory), pairs(&expected));
        // A file that has its size already is rotated after the next write.
        log.rotation.maxbytes = 2;
        log.rotation.backups = 0;
        log.write(b"f", &mut notes);
        assert_eq!(texts(&directory)[0], ("log".to_owned(), String::new()));
        assert_eq!(notes, Vec::<String>::new());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_reported_once_and_tried_again() {
        let directory = directory("trouble");
        let path = directory.join("sub/log");
        let mut notes = Vec::new();
        let mut log = LogFile::new(&path, 0o600, Rotation::default(), &mut notes);
        log.write(b"lost", &mut notes);
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains("No such file"), "{notes:?}");
        fs::create_dir(directory.join("sub")).unwrap();
        log.write(b"kept", &mut notes);
        assert!(notes[1].ends_with("is written again: 4 bytes are lost"), "{notes:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_renamed_file_is_opened_anew_and_a_cleared_one_is_empty() {
        let directory = directory("reopen");
        let path = directory.join("log");
        let mut notes = Vec::new();
        let mut log = LogFile::new(&path, 0o600, Rotation::default(), &mut notes);
        log.write(b"one", &mut notes);
        assert!(!log.reopen(&mut notes));
        fs::rename(&path, directory.join("old")).unwrap();
        log.write(b"two", &mut notes);
        assert!(log.reopen(&mut notes));
        log.write(b"three", &mut notes);
        assert_eq!(texts(&directory), pairs(&[("log", "three"), ("old", "onetwo")]));
        log.clear().unwrap();
        log.write(b"four", &mut notes);
        assert_eq!(fs::read_to_string(&path).unwrap(), "four");
        fs::remove_dir_all(&directory).unwrap();
    }
}
