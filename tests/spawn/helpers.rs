//! What several tests want.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use pidherd::{Command, Stdio};

/// Runs it with its standard output piped, and gives what it wrote.
pub fn output(command: Command) -> String {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    File::from(child.stdout.take().unwrap())
        .read_to_string(&mut text)
        .unwrap();
    let record = child.wait().unwrap();
    assert!(record.exit.success(), "{record:?}");
    text
}

pub fn sh(script: &str) -> Command {
    Command::new("/bin/sh").arg("-c").arg(script)
}

/// One line of the /proc/self/status of a child.
pub fn status(command: Command, key: &str) -> String {
    let text = output(command);
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key} in {text}"))
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

pub fn cat_status() -> Command {
    Command::new("/bin/cat").arg("/proc/self/status")
}

/// A directory of the test's own, removed at the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("pidherd-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    pub fn file(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether this is root; says so aloud if the test is skipped for want of it.
pub fn root(test: &str) -> bool {
    crate::common::root_or_skip(test)
}

/// The descriptor flags of this number; `None` if it is not open.
pub fn fd_flags(number: RawFd) -> Option<i32> {
    // SAFETY: numbers only.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    (flags >= 0).then_some(flags)
}

pub fn set_fd_flags(number: RawFd, flags: i32) {
    // SAFETY: numbers only.
    assert_eq!(unsafe { libc::fcntl(number, libc::F_SETFD, flags) }, 0);
}

/// All that comes through a pipe, as text.
pub fn read_to_end(pipe: OwnedFd) -> String {
    let mut text = String::new();
    File::from(pipe).read_to_string(&mut text).unwrap();
    text
}
