//! The modes of the terminal, and their restoration on every way out.
//!
//! The editor reads single keys and echoes them itself, so it turns off the line mode and the echo of the terminal
//! (termios(3): ICANON, ECHO and IEXTEN). Everything else stays: Ctrl-C, Ctrl-\ and Ctrl-Z send their signals, Ctrl-S
//! and Ctrl-Q stop and continue the output, and a newline of any program returns to the first column.
//!
//! The modes belong to the terminal and not to a process. So they are set only in the foreground, and restored before
//! the taskmaster stops itself, ends, or executes another program. A panic restores them too. SIGKILL and a fault of
//! the taskmaster itself leave them as they are. Interactive shells then restore their own.

use std::io::Write;
use std::sync::Mutex;

use rustix::io::Errno;
use rustix::stdio::stdin;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr,
};

/// The modes that a panic restores.
static AT_PANIC: Mutex<Option<Termios>> = Mutex::new(None);

/// The end of everything that a view changes: the alternate screen and the hidden cursor.
pub const LEAVE_VIEW: &str = "\x1b[?25h\x1b[?1049l";

/// The modes of the terminal behind standard input.
#[derive(Debug, Default)]
pub struct Modes {
    /// The modes to restore. `None` while the editor's modes are not set.
    before: Option<Termios>,
}

impl Modes {
    /// Sets the editor's modes. Returns whether they are set. They are not in the background.
    pub fn enter(&mut self) -> bool {
        if !is_foreground() {
            self.forget();
            return false;
        }
        let Ok(now) = tcgetattr(stdin()) else { return false };
        let before = match self.before.take() {
            Some(before) if now.local_modes == edited(&before).local_modes => before,
            _ => now,
        };
        // TCSANOW never waits. The other actions wait for the reader of the output.
        let is_set = tcsetattr(stdin(), OptionalActions::Now, &edited(&before)).is_ok();
        if is_set {
            remember(Some(before.clone()));
            self.before = Some(before);
        }
        is_set
    }

    /// Restores the modes, if the editor's are set and this is still the foreground job.
    pub fn leave(&mut self) {
        if let Some(before) = self.before.take() {
            if is_foreground() {
                let _gone = tcsetattr(stdin(), OptionalActions::Now, &before);
            }
        }
        remember(None);
    }

    /// Records that the terminal belongs to another job, which has modes of its own.
    pub fn forget(&mut self) {
        self.before = None;
        remember(None);
    }
}

impl Drop for Modes {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Lets a panic restore the terminal before its message is written.
pub fn restore_at_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if let Some(before) = AT_PANIC.try_lock().ok().and_then(|mut before| before.take()) {
            let _gone = tcsetattr(stdin(), OptionalActions::Now, &before);
            let _unread = write!(std::io::stdout(), "\r{LEAVE_VIEW}\x1b[K");
            let _unread = std::io::stdout().flush();
        }
        report(info);
    }));
}

/// The number of columns and of rows. `None` if the terminal does not know them.
pub fn size() -> Option<(usize, usize)> {
    let size = tcgetwinsize(rustix::stdio::stdout()).ok()?;
    let known = |number: u16| (number > 0).then_some(usize::from(number));
    Some((known(size.ws_col)?, known(size.ws_row)?))
}

/// Whether this process may set the modes. The kernel would permit it to a background process that blocks SIGTTOU.
fn is_foreground() -> bool {
    match tcgetpgrp(stdin()) {
        Ok(group) => group == rustix::process::getpgrp(),
        // A terminal that controls no session has no jobs.
        Err(Errno::NOTTY) => true,
        Err(_) => false,
    }
}

fn edited(before: &Termios) -> Termios {
    let mut modes = before.clone();
    modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN;
    // A key that sends a signal discards no output.
    modes.local_modes |= LocalModes::NOFLSH;
    modes.special_codes[SpecialCodeIndex::VMIN] = 1;
    modes.special_codes[SpecialCodeIndex::VTIME] = 0;
    modes
}

fn remember(before: Option<Termios>) {
    if let Ok(mut at_panic) = AT_PANIC.lock() {
        *at_panic = before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    /// The variable that makes [`child`] do its part.
    const VARIABLE: &str = "TASKMASTER_MODES_TEST";

    fn pseudo_terminal() -> (OwnedFd, OwnedFd) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(ptsname(&master, Vec::new()).unwrap(), flags, Mode::empty()).unwrap();
        (master, slave)
    }

    /// Runs [`child`] at a terminal. Returns the modes before and after it.
    fn run(how: &str) -> (LocalModes, LocalModes) {
        let (master, slave) = pseudo_terminal();
        let before = tcgetattr(&slave).unwrap().local_modes;
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "term::modes::tests::child"])
            .env(VARIABLE, how)
            .stdin(Stdio::from(slave.try_clone().unwrap()))
            .output()
            .unwrap();
        assert_eq!(output.status.success(), how == "forgets", "{output:?}");
        let after = tcgetattr(&slave).unwrap().local_modes;
        drop(master);
        (before, after)
    }

    /// A test that does nothing, unless another test runs it in a process of its own.
    #[test]
    fn child() {
        let Ok(how) = std::env::var(VARIABLE) else { return };
        restore_at_panic();
        let mut modes = Modes::default();
        assert!(modes.enter());
        let now = tcgetattr(stdin()).unwrap().local_modes;
        assert!(!now.intersects(LocalModes::ICANON | LocalModes::ECHO) && now.contains(LocalModes::ISIG));
        // Without its destructor nothing but the hook can restore the terminal.
        std::mem::forget(modes);
        assert_ne!(how, "panics", "this is the panic");
    }

    #[test]
    fn a_panic_restores_the_terminal() {
        let (before, after) = run("panics");
        assert_eq!(before, after);
        let (before, after) = run("forgets");
        assert_ne!(before, after, "the modes of a process that restores nothing stay");
    }
}
