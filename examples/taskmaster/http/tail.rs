//! Follows a log file, through its rotation and its truncation.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The number of bytes from the end of the file that are sent first, as in supervisord.
const HEAD: u64 = 1024;

/// A file that is followed.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    file: File,
    at: u64,
}

impl Tail {
    /// Begins shortly before the end of the file.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Tail> {
        let file = File::open(path)?;
        let at = file.metadata()?.len().saturating_sub(HEAD);
        Ok(Tail {
            path: path.to_owned(),
            file,
            at,
        })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next bytes, at most `most`. An empty result means that nothing was added.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn more(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let bytes = self.read(most)?;
        if !bytes.is_empty() {
            return Ok(bytes);
        }
        let now = self.path.metadata().ok();
        if now.is_some_and(|now| self.file.metadata().is_ok_and(|old| old.ino() != now.ino())) {
            // The log was rotated, and the old file is read to its end.
            if let Ok(file) = File::open(&self.path) {
                (self.file, self.at) = (file, 0);
            }
            return self.read(most);
        }
        if self.file.metadata()?.len() < self.at {
            self.at = 0;
            return Ok(b"==> File truncated <==\n".to_vec());
        }
        Ok(bytes)
    }

    fn read(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; most];
        let read = self.file.read_at(&mut bytes, self.at)?;
        bytes.truncate(read);
        self.at += read as u64;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_log_is_followed_through_rotation_and_truncation() {
        let path = std::env::temp_dir().join(format!("taskmaster-tail-{}", std::process::id()));
        let old = path.with_extension("1");
        fs::write(&path, "x".repeat(2000)).unwrap();
        let mut tail = Tail::open(&path).unwrap();
        assert_eq!(tail.more(4096).unwrap().len(), 1024);
        assert!(tail.more(4096).unwrap().is_empty());
        fs::write(&path, "short").unwrap();
        assert!(tail.more(4096).unwrap().starts_with(b"==> File truncated"));
        assert_eq!(tail.more(3).unwrap(), b"sho");
        fs::rename(&path, &old).unwrap();
        fs::write(&path, "new").unwrap();
        assert_eq!(tail.more(4096).unwrap(), b"rt");
        assert_eq!(tail.more(4096).unwrap(), b"new");
        fs::remove_file(&path).unwrap();
        assert!(tail.more(4096).unwrap().is_empty());
        fs::remove_file(&old).unwrap();
    }
}
