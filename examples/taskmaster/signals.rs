//! The signals that the taskmaster takes, and what each of them means.
//!
//! A taskmaster that a signal ends leaves its programs without a supervisor. So every signal that can be caught and
//! whose default action is fatal is blocked and read from a signalfd. The kernel delivers a real fault of the process
//! itself (SIGSEGV and its like) even while the signal is blocked; what is read here was sent by another process.
//!
//! SIGTSTP keeps its default action, so that Ctrl-Z stops the taskmaster as it stops any job; the programs, each in a
//! process group of its own, go on. SIGTTIN and SIGTTOU are blocked and never read: the kernel then answers a read from
//! the background with EIO, and lets a write pass, instead of stopping the process (tty_check_change in the kernel's
//! tty_jobctrl.c).
//!
//! Out of reach are SIGKILL, SIGSTOP, and 32 and 33, which the C library keeps for itself.

use pidherd::{Signal, SignalSet};

/// What the taskmaster does about a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Stop everything, then end; the second one kills.
    Shutdown,
    /// Read the configuration again.
    Reload,
    /// Open anew what the taskmaster writes and what was renamed.
    Reopen,
    /// The process was stopped and goes on.
    Continued,
    /// A line in the log.
    Note,
}

/// What `signal` means.
pub fn meaning(signal: Signal) -> Meaning {
    match signal {
        Signal::TERM | Signal::INT | Signal::QUIT => Meaning::Shutdown,
        Signal::HUP => Meaning::Reload,
        Signal::USR2 => Meaning::Reopen,
        Signal::CONT => Meaning::Continued,
        _ => Meaning::Note,
    }
}

/// The signals that are read from the signalfd.
pub fn taken() -> SignalSet {
    let catchable = Signal::all().filter(|&signal| signal.is_fatal() && signal != Signal::KILL);
    catchable
        .filter(|&signal| !is_reserved(signal))
        .collect::<SignalSet>()
        .with(Signal::CONT)
}

/// The signals that are blocked: those that are read, and two that must not stop the process.
pub fn blocked() -> SignalSet {
    taken().with(Signal::TTIN).with(Signal::TTOU)
}

/// Whether the C library keeps the signal for itself, in the midst of the real-time ones.
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
            assert_eq!(taken().contains(signal), !left_out.contains(signal), "{signal}");
        }
    }
}
