//! A pseudo-terminal with a taskmaster and no shell, and a terminal emulator that shows what a user would see.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::common::{patience, wait_gone, wait_readable, wait_until};
use crate::driver::{Dir, MARKER, PATIENCE, binary, kill_marked, marked};
use crate::terminal::{lead_a_session, pseudo_terminal};

/// The prompt of the taskmaster.
pub const PROMPT: &str = "taskmaster> ";

pub const UP: &str = "\x1b[A";
pub const DOWN: &str = "\x1b[B";
pub const LEFT: &str = "\x1b[D";
pub const PAGE_DOWN: &str = "\x1b[6~";

/// A taskmaster at a terminal of its own.
pub struct Screen {
    master: File,
    /// The side of the taskmaster. It stays open, so that the modes can be read after the end.
    slave: OwnedFd,
    child: Child,
    emulator: vt100::Parser,
    /// All bytes that the terminal has received.
    pub raw: String,
    /// What is checked after each read.
    check: fn(&[String]),
    /// The most bytes of a read.
    chunk: usize,
    marker: String,
    pub dir: Dir,
}

/// The settings of a terminal.
pub struct Setup<'a> {
    pub config: &'a str,
    pub columns: u16,
    pub rows: u16,
    pub variables: &'a [(&'a str, &'a str)],
    pub arguments: &'a [&'a str],
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Setup {
            config: "",
            columns: 80,
            rows: 24,
            variables: &[],
            arguments: &[],
        }
    }
}

impl Screen {
    /// Starts a taskmaster with this configuration at a terminal of 80 columns and 24 rows.
    pub fn start(config: &str) -> Screen {
        Screen::with(&Setup {
            config,
            ..Setup::default()
        })
    }

    pub fn with(setup: &Setup<'_>) -> Screen {
        let dir = Dir::new();
        dir.file("herd.conf", setup.config);
        Screen::in_dir(dir, setup)
    }

    /// The same in a directory that exists. Without a configuration it is the demonstration.
    pub fn in_dir(dir: Dir, setup: &Setup<'_>) -> Screen {
        let marker = dir.path("").to_string_lossy().into_owned();
        let (master, slave) = pseudo_terminal();
        resize(&master, setup.columns, setup.rows);
        let mut command = Command::new(binary());
        if !setup.config.is_empty() {
            command.arg(dir.path("herd.conf"));
        }
        command
            .args(setup.arguments)
            .env(MARKER, &marker)
            .env("TERM", "xterm")
            .env("TASKMASTER_HISTORY", dir.path("history"))
            .env_remove("NO_COLOR")
            .envs(setup.variables.iter().copied())
            .current_dir(dir.path(""))
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(Stdio::from(slave.try_clone().unwrap()));
        lead_a_session(&mut command);
        let child = command.spawn().unwrap();
        let (rows, columns) = (number(setup.rows), number(setup.columns));
        Screen {
            master,
            slave,
            child,
            emulator: vt100::Parser::new(rows, columns, 0),
            raw: String::new(),
            check: |_| (),
            chunk: 64,
            marker,
            dir,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types the text.
    pub fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Checks the rows of the screen after each read from now on. A read has fewer bytes than fill the screen, so no row
    /// is missed.
    pub fn always(&mut self, check: fn(&[String])) {
        self.check = check;
        self.chunk = 512;
    }

    /// The rows of the screen, without blanks at their ends.
    pub fn rows(&self) -> Vec<String> {
        let width = self.emulator.screen().size().1.get();
        let rows = self.emulator.screen().rows(0, width);
        rows.map(|row| row.trim_end().to_owned()).collect()
    }

    /// The row of the cursor, and the column of the cursor.
    pub fn cursor(&self) -> (String, usize) {
        let (row, column) = self.emulator.screen().cursor_position();
        let text = self.rows().get(usize::from(row)).cloned().unwrap_or_default();
        (text, column.into())
    }

    /// Whether a view covers the screen.
    pub fn is_covered(&self) -> bool {
        self.emulator.screen().alternate_screen()
    }

    /// Waits until the screen is as wanted.
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Screen) -> bool) {
        let end = Instant::now() + PATIENCE * patience();
        while !wanted(self) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                wait_readable(self.master.as_fd(), left),
                "waited too long until {what}:\n{}\n{:?}",
                self.rows().join("\n"),
                self.raw
                    .chars()
                    .rev()
                    .take(2000)
                    .collect::<Vec<_>>()
                    .into_iter()
                    .rev()
                    .collect::<String>()
            );
            assert!(self.read() > 0, "the terminal was closed before {what}:\n{}", self.raw);
        }
    }

    /// Reads a few bytes only, so that a test fails each time if it looks at a row that it has not waited for.
    fn read(&mut self) -> usize {
        let mut chunk = [0; 512];
        let read = self.master.read(&mut chunk[..self.chunk]).unwrap_or(0);
        self.emulator.process(&chunk[..read]);
        self.raw.push_str(&String::from_utf8_lossy(&chunk[..read]));
        (self.check)(&self.rows());
        read
    }

    /// Waits until a row contains the text.
    ///
    /// The rest of the row, and the rows below it, may not have been read yet: what is expected there is waited for too.
    pub fn shows(&mut self, text: &str) {
        self.until(&format!("the screen shows {text:?}"), |screen| {
            screen.rows().iter().any(|row| row.contains(text))
        });
    }

    /// Waits until the prompt shows this text, with the cursor after it.
    pub fn prompts(&mut self, text: &str) {
        self.until(&format!("the prompt has {text:?}"), |screen| {
            let (row, column) = screen.cursor();
            let wanted = format!("{PROMPT}{text}");
            row == wanted.trim_end() && column == wanted.chars().count()
        });
    }

    /// Types a command, and waits until it is carried out.
    pub fn enters(&mut self, command: &str) {
        self.types(command);
        self.prompts(command);
        self.types("\n");
        self.prompts("");
    }

    /// Changes the size of the terminal.
    pub fn resizes(&mut self, columns: u16, rows: u16) {
        self.emulator.set_size(number(rows), number(columns));
        resize(&self.master, columns, rows);
    }

    /// Whether the terminal is in the line mode with echo, as the taskmaster has found it.
    pub fn is_restored(&self) -> bool {
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN)
    }

    /// Waits for the end, and checks that no process is left and the terminal is as it was. Returns the exit status.
    pub fn ended(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE * patience();
        // The terminal stays open here, so its end is that of the taskmaster.
        while !wait_gone(self.child.id(), std::time::Duration::ZERO) {
            assert!(Instant::now() < end, "it does not end:\n{}", self.raw);
            if wait_readable(self.master.as_fd(), std::time::Duration::from_millis(20)) {
                self.read();
            }
        }
        let status = self.child.wait().unwrap();
        while wait_readable(self.master.as_fd(), std::time::Duration::ZERO) {
            self.read();
        }
        wait_until("nothing is left", PATIENCE, || marked(&self.marker).is_empty());
        assert!(self.is_restored(), "the modes of the terminal are not restored");
        assert!(!self.is_covered() && !self.emulator.screen().hide_cursor());
        status.code()
    }

    /// Ends the taskmaster with a command.
    pub fn shut_down(mut self) {
        self.types("\x05\x15shutdown\n");
        assert_eq!(self.ended(), Some(0), "{}", self.raw);
    }
}

impl Drop for Screen {
    /// A failed test must not leave processes behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        kill_marked(&self.marker);
    }
}

fn resize(master: &File, columns: u16, rows: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size).unwrap();
}

fn number(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}
