//! A taskmaster at a terminal: a pseudo-terminal with an interactive shell in it, which does the job control.
//!
//! The test types on the master side and reads what the terminal shows. The kernel echoes what is typed, so a test
//! waits for text that only the program can have written.

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

use crate::common::{processes, wait_gone, wait_readable, wait_until};
use crate::driver::{Dir, MARKER, PATIENCE, binary, kill_marked, marked};

/// Ctrl-C, by which the terminal sends SIGINT.
pub const CTRL_C: &str = "\x03";
/// Ctrl-D, the end of the input.
pub const CTRL_D: &str = "\x04";
/// Ctrl-S, which stops the terminal's output.
pub const CTRL_S: &str = "\x13";
/// Ctrl-Q, by which the output goes on.
pub const CTRL_Q: &str = "\x11";
/// Ctrl-Z, by which the terminal sends SIGTSTP.
pub const CTRL_Z: &str = "\x1a";
/// Ctrl-\, by which the terminal sends SIGQUIT.
pub const CTRL_BACKSLASH: &str = "\x1c";

/// The shells that the tests are run with, where they are installed. They differ in what `fg` does: dash sends SIGCONT
/// to every job, bash to a stopped job only.
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

/// A terminal with an interactive shell in it. The shell's directory holds `herd.conf`, and `$T` is the taskmaster.
pub struct Terminal {
    /// `None` once the terminal is closed.
    master: Option<File>,
    shell: Child,
    /// All that the terminal has shown.
    screen: String,
    /// How much of it was waited for.
    read: usize,
    marker: String,
    pub dir: Dir,
}

impl Terminal {
    /// Opens a terminal and waits for the shell's prompt; `None` if there is no such shell.
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
            .env("PS1", "prompt: ")
            .env("NO_COLOR", "1")
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

    /// Types text, as it is.
    pub fn types(&mut self, text: &str) {
        self.master.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Waits until the terminal shows this text, after all that was waited for before; returns what it showed up to
    /// the end of that line.
    pub fn shows(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.screen[self.read..].find(text) {
                let from = self.read;
                self.read += found + text.len();
                let line = self.screen[self.read..].find('\n').unwrap_or(0);
                return self.screen[from..self.read + line].to_owned();
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

    /// Waits until the terminal shows that a program reached a state.
    pub fn reaches(&mut self, name: &str, state: &str) -> String {
        loop {
            let line = self.shows(&format!("-> {state}"));
            let last = line.lines().last().unwrap_or_default();
            if last.split_whitespace().any(|word| word == name) {
                return last.to_owned();
            }
        }
    }

    /// Waits until the taskmaster runs, and returns its pid.
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

    /// The process group in the foreground of the terminal.
    pub fn foreground(&self) -> u32 {
        let group = rustix::termios::tcgetpgrp(self.master.as_ref().unwrap()).unwrap();
        group.as_raw_nonzero().get().try_into().unwrap()
    }

    /// Waits until a program is in the foreground: its process group is, and the shell's copy has become the program.
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

    /// Hangs the terminal up, as closing its window does.
    pub fn hang_up(&mut self) {
        self.master = None;
    }

    /// Ends the shell. Nothing that was started in the terminal may be left.
    pub fn close(mut self) {
        self.hang_up();
        assert!(wait_gone(self.shell.id(), PATIENCE), "the shell does not end");
        self.shell.wait().unwrap();
        // The hangup ends what the shell itself has started, but the shell does not wait for that.
        wait_until("nothing is left", PATIENCE, || marked(&self.marker).is_empty());
    }
}

impl Drop for Terminal {
    /// A test that failed must not leave a herd behind.
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        kill_marked(&self.marker);
    }
}

/// A pseudo-terminal: the master side and the slave side.
fn pseudo_terminal() -> (File, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(name, flags, Mode::empty()).unwrap();
    // By default a key that sends a signal throws away output that is not yet read, and a test waits for that output.
    let mut modes = tcgetattr(&slave).unwrap();
    modes.local_modes |= LocalModes::NOFLSH;
    tcsetattr(&slave, OptionalActions::Now, &modes).unwrap();
    (File::from(master), slave)
}

/// Makes the command lead a session, with its standard input as the controlling terminal and every signal as by
/// default: what runs the tests may ignore some.
fn lead_a_session(command: &mut Command) {
    let prepare = || {
        for signal in 1..=64 {
            // SAFETY: no handler is installed, and a number that is no signal is refused.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls alone.
    unsafe { command.pre_exec(prepare) };
}

/// Sends a signal to a process by its number.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Waits until a process is stopped by a signal, or is not.
pub fn is_stopped(pid: u32, stopped: bool) {
    wait_until("the process is stopped, or goes on", PATIENCE, || {
        processes::state(pid).is_some_and(|state| (state == 'T') == stopped)
    });
}

/// The pid in a line of the log.
pub fn pid_in(line: &str) -> u32 {
    let (_, pid) = line.rsplit_once("pid ").unwrap_or_else(|| panic!("no pid in {line:?}"));
    pid.trim().parse().unwrap()
}

/// How much processor time a process has used, in ticks of a hundredth of a second.
pub fn processor_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
