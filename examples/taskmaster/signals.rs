//! The signals that the taskmaster handles.
//!
//! If a signal ended the taskmaster, its programs would have no supervisor. So every signal that can be caught and
//! has a fatal default action is blocked and read from a signalfd. The kernel delivers a fault of the process itself
//! (for example SIGSEGV) even while the signal is blocked, so each signal that is read here was sent by a process.
//!
//! SIGTSTP stops the taskmaster like any job. The programs have process groups of their own and continue. With the
//! line editor the signal is read, so that the terminal is restored before the stop, and so is SIGWINCH. SIGTTIN and SIGTTOU are blocked and never read. The kernel then fails a read
//! from the background with EIO and permits a write, instead of stopping the process (tty_check_change in the
//! kernel's tty_jobctrl.c).
//!
//! SIGKILL and SIGSTOP cannot be blocked. The C library reserves the signals 32 and 33.

use pidherd::{Signal, SignalSet};

/// The taskmaster's reaction to a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Stop all programs, then end. A second signal kills the programs.
    Shutdown,
    /// Read the configuration again.
    Reload,
    /// Reopen the output files that were renamed.
    Reopen,
    /// Go on as the program that is now on disk.
    Reexec,
    /// Stop until SIGCONT.
    Suspend,
    /// The process continues after a stop.
    Continued,
    /// The terminal has another size.
    Resized,
    /// Write a line to the log.
    Note,
}

/// The reaction to `signal`.
pub fn meaning(signal: Signal) -> Meaning {
    match signal {
        Signal::TERM | Signal::INT | Signal::QUIT => Meaning::Shutdown,
        Signal::HUP => Meaning::Reload,
        Signal::USR2 => Meaning::Reopen,
        Signal::USR1 => Meaning::Reexec,
        Signal::TSTP => Meaning::Suspend,
        Signal::CONT => Meaning::Continued,
        Signal::WINCH => Meaning::Resized,
        _ => Meaning::Note,
    }
}

/// The signals that are read from the signalfd. With the line editor there are more of them.
pub fn taken(edits: bool) -> SignalSet {
    let catchable = Signal::all().filter(|&signal| signal.is_fatal() && signal != Signal::KILL);
    let taken = catchable
        .filter(|&signal| !is_reserved(signal))
        .collect::<SignalSet>()
        .with(Signal::CONT);
    if edits {
        taken.with(Signal::TSTP).with(Signal::WINCH)
    } else {
        taken
    }
}

/// The signals that are blocked: those that are read, and two that must not stop the process.
pub fn blocked(edits: bool) -> SignalSet {
    taken(edits).with(Signal::TTIN).with(Signal::TTOU)
}

/// Stops this process with SIGTSTP, which is blocked, until SIGCONT. A process in an orphaned group does not stop,
/// because no shell could continue it.
pub fn stop_until_continued() {
    // SAFETY: zeros are a valid value of this set, and the calls fill it.
    let mut stop: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointers are valid for the calls. The mask is that of the only thread.
    unsafe {
        libc::sigemptyset(&raw mut stop);
        libc::sigaddset(&raw mut stop, libc::SIGTSTP);
        libc::raise(libc::SIGTSTP);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const stop, std::ptr::null_mut());
        libc::sigprocmask(libc::SIG_BLOCK, &raw const stop, std::ptr::null_mut());
    }
}

/// Whether the C library reserves the signal. These signals lie among the real-time signals.
fn is_reserved(signal: Signal) -> bool {
    matches!(signal.as_raw(), 32 | 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fatal_signal_that_can_be_caught_is_taken() {
        let left_out = [
            "KILL", "CHLD", "STOP", "TSTP", "TTIN", "TTOU", "URG", "WINCH", "32", "33",
        ];
        let left_out: SignalSet = left_out.iter().map(|name| name.parse::<Signal>().unwrap()).collect();
        for signal in Signal::all() {
            assert_eq!(taken(false).contains(signal), !left_out.contains(signal), "{signal}");
            let of_a_terminal = matches!(signal, Signal::TSTP | Signal::WINCH);
            assert_eq!(
                taken(true).contains(signal),
                taken(false).contains(signal) || of_a_terminal
            );
        }
    }
}
