//! A pseudo-terminal with an interactive shell, which does the job control for a taskmaster.
//!
//! The test types on the master side and reads the output of the terminal. The kernel echoes the typed text, so a
//! test waits for text that only the program can write.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::common::{patience, processes, wait_gone, wait_readable, wait_until};
use crate::driver::{Dir, MARKER, PATIENCE, binary, kill_marked, marked};

/// Ctrl-C. The terminal sends SIGINT.
pub const CTRL_C: &str = "\x03";
/// Ctrl-D. The terminal signals the end of the input.
pub const CTRL_D: &str = "\x04";
/// Ctrl-S. The terminal stops the output.
pub const CTRL_S: &str = "\x13";
/// Ctrl-Q. The terminal continues the output.
pub const CTRL_Q: &str = "\x11";
/// Ctrl-Z. The terminal sends SIGTSTP.
pub const CTRL_Z: &str = "\x1a";
/// Ctrl-\. The terminal sends SIGQUIT.
pub const CTRL_BACKSLASH: &str = "\x1c";

/// The shells that the tests use if they are installed. They differ in `fg`: dash sends SIGCONT to every job, and
/// bash only to a stopped job.
pub const SHELLS: &[&[&str]] = &[&["dash", "-i"], &["bash", "--norc", "--noprofile", "--noediting", "-i"]];

/// Runs a test once with each shell.
pub fn with_each_shell(config: &str, test: impl Fn(Terminal)) {
    for shell in SHELLS {
        match Terminal::open(shell, config) {
            Some(terminal) => test(terminal),
            None => crate::common::skipped(&format!("{} is not installed", shell[0])),
        }
    }
}

/// A terminal with an interactive shell. The shell's directory contains `herd.conf`, and `$T` is the taskmaster.
pub struct Terminal {
    /// The master side. `None` after the terminal was closed.
    master: Option<File>,
    shell: Child,
    /// All output of the terminal.
    screen: String,
    /// The length of the output that earlier waits have consumed.
    read: usize,
    marker: String,
    pub dir: Dir,
}

impl Terminal {
    /// Opens a terminal and waits for the shell's prompt. `None` if the shell is not installed.
    pub fn open(shell: &[&str], config: &str) -> Option<Terminal> {
        let dir = Dir::new();
        dir.file("herd.conf", config);
        let marker = dir.path("").to_string_lossy().into_owned();
        let (master, slave) = pseudo_terminal();
        let mut command = Command::new(shell[0]);
        command
            .args(&shell[1..])
            .env(MARKER, &marker)
            .env("T", binary())
            // Its lines do not go to a file of the account.
            .env("HISTFILE", "")
            .env("PS1", "prompt: ")
            .env("NO_COLOR", "1")
            .env("TERM", "xterm")
            .env("TASKMASTER_HISTORY", dir.path("history"))
            .env_remove("ENV")
            .current_dir(dir.path(""))
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(Stdio::from(slave));
        lead_a_session(&mut command);
        let shell = command.spawn().ok()?;
        let mut terminal = Terminal {
            master: Some(master),
            shell,
            screen: String::new(),
            read: 0,
            marker,
            dir,
        };
        terminal.shows("prompt: ");
        Some(terminal)
    }

    /// Types the text.
    pub fn types(&mut self, text: &str) {
        self.master.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Waits until the terminal displays this text after the consumed output. Returns the output up to the end of
    /// that line.
    pub fn shows(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE * patience();
        loop {
            if let Some(found) = self.screen[self.read..].find(text) {
                let from = self.read;
                self.read += found + text.len();
                return self.screen[from..self.read].to_owned();
            }
            let left = end.saturating_duration_since(Instant::now());
            let mut chunk = [0; 4096];
            let master = self.master.as_mut().unwrap();
            assert!(
                wait_readable(master.as_fd(), left),
                "waited too long for {text:?} on this screen:\n{}",
                self.screen
            );
            let read = master.read(&mut chunk).unwrap_or(0);
            assert!(read > 0, "the terminal was closed before {text:?}:\n{}", self.screen);
            self.screen.push_str(&String::from_utf8_lossy(&chunk[..read]));
        }
    }

    /// Waits until the terminal displays that a program has reached a state.
    pub fn reaches(&mut self, name: &str, state: &str) -> String {
        loop {
            // The terminal may show a part of the line first.
            let line = self.shows(&format!("-> {state}")) + &self.shows("\n");
            let last = line.lines().last().unwrap_or_default();
            if last.split_whitespace().any(|word| word == name) {
                return last.to_owned();
            }
        }
    }

    /// Waits until the taskmaster runs, and returns its PID.
    pub fn taskmaster(&self) -> u32 {
        let mut found = None;
        wait_until("a taskmaster runs", PATIENCE, || {
            let binary = binary().to_string_lossy();
            let is_it = |process: &String| process.split(' ').nth(1) == Some(&binary);
            found = marked(&self.marker).into_iter().find(is_it);
            found.is_some()
        });
        found.unwrap().split(' ').next().unwrap().parse().unwrap()
    }

    /// Whether the terminal is in the line mode with echo.
    pub fn has_line_mode(&self) -> bool {
        let modes = tcgetattr(self.master.as_ref().unwrap()).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// The foreground process group of the terminal.
    pub fn foreground(&self) -> u32 {
        let group = rustix::termios::tcgetpgrp(self.master.as_ref().unwrap()).unwrap();
        group.as_raw_nonzero().get().try_into().unwrap()
    }

    /// Waits until a program is in the foreground: its process group is the foreground one, and the shell's copy has
    /// executed the program.
    pub fn runs(&self, program: &str) {
        wait_until("the program is in the foreground", PATIENCE, || {
            let name = std::fs::read_to_string(format!("/proc/{}/comm", self.foreground()));
            name.is_ok_and(|name| name.trim_end() == program)
        });
    }

    /// Waits until the shell itself is in the foreground.
    pub fn is_the_shells(&self) {
        wait_until("the shell is in the foreground", PATIENCE, || {
            self.foreground() == self.shell.id()
        });
    }

    /// Closes the terminal, which sends a hangup.
    pub fn hang_up(&mut self) {
        self.master = None;
    }

    /// Ends the shell, and checks that no process of the terminal is left.
    pub fn close(mut self) {
        self.hang_up();
        assert!(wait_gone(self.shell.id(), PATIENCE), "the shell does not end");
        self.shell.wait().unwrap();
        // The hangup ends the processes that the shell has started, but the shell does not wait for them.
        wait_until("nothing is left", PATIENCE, || marked(&self.marker).is_empty());
    }
}

impl Drop for Terminal {
    /// A failed test must not leave processes behind.
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        kill_marked(&self.marker);
    }
}

/// Opens a pseudo-terminal. Returns the master side and the slave side.
pub fn pseudo_terminal() -> (File, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(name, flags, Mode::empty()).unwrap();
    // By default, a key that sends a signal discards unread output. The tests wait for that output.
    let mut modes = tcgetattr(&slave).unwrap();
    modes.local_modes |= LocalModes::NOFLSH;
    tcsetattr(&slave, OptionalActions::Now, &modes).unwrap();
    (File::from(master), slave)
}

/// Makes the command lead a session, with its standard input as the controlling terminal and with default signal
/// dispositions. The parent of the test may ignore some signals.
pub fn lead_a_session(command: &mut Command) {
    let prepare = || {
        for signal in 1..=64 {
            // SAFETY: the call installs no handler, and the kernel refuses a number that is not a signal.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        Ok(())
    };
    // SAFETY: between fork and exec the hook makes only system calls.
    unsafe { command.pre_exec(prepare) };
}

/// Sends a signal to the process with this PID.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Waits until a process is stopped by a signal, or is not stopped, as `stopped` requires.
pub fn is_stopped(pid: u32, stopped: bool) {
    wait_until("the process is stopped, or goes on", PATIENCE, || {
        processes::state(pid).is_some_and(|state| (state == 'T') == stopped)
    });
}

/// The PID in a line of the log.
pub fn pid_in(line: &str) -> u32 {
    let (_, pid) = line.rsplit_once("pid ").unwrap_or_else(|| panic!("no pid in {line:?}"));
    pid.trim().parse().unwrap()
}

/// The processor time of a process, in ticks of a hundredth of a second.
pub fn processor_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
