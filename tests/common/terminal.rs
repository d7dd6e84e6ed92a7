//! A pseudo-terminal, with a session behind it: what a person at a terminal types and sees.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcgetpgrp, tcsetattr};

use super::wait::{patience, wait_readable};

/// `^C`, `^Z` and `^D`.
pub const INTERRUPT: &str = "\x03";
pub const SUSPEND: &str = "\x1a";
pub const END_OF_FILE: &str = "\x04";

/// A pseudo-terminal that does not echo.
pub struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
    /// What was read and has not been waited for yet.
    seen: String,
}

impl Terminal {
    pub fn new() -> Terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a pseudo-terminal");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let slave = ioctl_tiocgptpeer(&master, flags).expect("the other end");
        let mut modes = tcgetattr(&slave).expect("tcgetattr");
        modes.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&slave, OptionalActions::Now, &modes).expect("tcsetattr");
        Terminal {
            master,
            slave,
            seen: String::new(),
        }
    }

    /// The terminal as a process has it.
    pub fn slave(&self) -> OwnedFd {
        self.slave.try_clone().expect("a copy")
    }

    /// Its name in the file system.
    pub fn path(&self) -> PathBuf {
        let name = ptsname(&self.master, Vec::new()).expect("ptsname");
        PathBuf::from(OsString::from_vec(name.into_bytes()))
    }

    /// The command gets the terminal as its standard streams.
    pub fn connect(&self, command: &mut Command) {
        command.stdin(self.slave()).stdout(self.slave()).stderr(self.slave());
    }

    /// The same, and the command leads a session with the terminal as its controlling one.
    pub fn lead(&self, command: &mut Command) {
        self.connect(command);
        let make_session = || {
            rustix::process::setsid()?;
            // SAFETY: standard input is the terminal, and 0 takes it from no other session.
            match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec it makes two system calls, and allocates nothing.
        unsafe { command.pre_exec(make_session) };
    }

    /// The foreground process group.
    pub fn foreground(&self) -> Option<u32> {
        let group = tcgetpgrp(&self.master).ok()?;
        u32::try_from(group.as_raw_pid()).ok()
    }

    pub fn type_text(&self, text: &str) {
        let written = rustix::io::write(&self.master, text.as_bytes());
        assert_eq!(written, Ok(text.len()));
    }

    /// Types a line, with its end.
    pub fn type_line(&self, line: &str) {
        self.type_text(&format!("{line}\n"));
    }

    /// Waits until this is on the screen, and returns what came before it. Each part is seen once.
    pub fn expect(&mut self, text: &str, limit: Duration) -> String {
        let end = Instant::now() + limit * patience();
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                let mut before = std::mem::replace(&mut self.seen, rest);
                before.truncate(at);
                return before;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                wait_readable(self.master.as_fd(), left) && self.read() > 0,
                "waited in vain for {text:?}; the terminal shows: {:?}",
                self.seen
            );
        }
    }

    fn read(&mut self) -> usize {
        let mut bytes = [0; 4096];
        // EIO: no process has the other end open.
        let read = rustix::io::read(&self.master, &mut bytes).unwrap_or(0);
        self.seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        read
    }
}
