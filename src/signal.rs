//! Signals as plain data: a single signal, and a set of signals.

use std::fmt;
use std::str::FromStr;

use crate::codec::{Damaged, Reader, Stored, Writer};

/// A signal with a number from 1 to 64 (signal(7)). Real-time signals begin at `RTMIN` (34). The C library uses 32 and
/// 33 internally; do not send them.
///
/// ```
/// use pidherd::Signal;
///
/// let signal: Signal = "SIGTERM".parse()?;
/// assert_eq!(signal, Signal::TERM);
/// assert_eq!(signal.to_string(), "SIGTERM");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

/// The error for a text or a number that is no signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no signal {0:?}")]
pub struct UnknownSignal(pub(crate) String);

macro_rules! names {
    ($($name:ident = $number:ident, $doc:literal;)*) => {
        impl Signal {
            $(#[doc = $doc] pub const $name: Signal = Signal(libc::$number as u8);)*
        }
        /// Every signal that has a name.
        const NAMES: &[(Signal, &str)] = &[$((Signal::$name, stringify!($name)),)*];
    };
}

names! {
    HUP = SIGHUP, "Hangup. By convention, daemons reload their configuration.";
    INT = SIGINT, "Interrupt from the keyboard.";
    QUIT = SIGQUIT, "Quit from the keyboard, with a core dump.";
    ILL = SIGILL, "Illegal instruction.";
    TRAP = SIGTRAP, "Trace or breakpoint trap.";
    ABRT = SIGABRT, "Abort.";
    BUS = SIGBUS, "Bad memory access.";
    FPE = SIGFPE, "Arithmetic error.";
    KILL = SIGKILL, "Kill; cannot be caught.";
    USR1 = SIGUSR1, "User-defined signal 1.";
    SEGV = SIGSEGV, "Invalid memory reference.";
    USR2 = SIGUSR2, "User-defined signal 2.";
    PIPE = SIGPIPE, "Write to a pipe without a reader.";
    ALRM = SIGALRM, "A timer of alarm(2) expired.";
    TERM = SIGTERM, "Request to terminate.";
    CHLD = SIGCHLD, "A child ended, stopped or continued.";
    CONT = SIGCONT, "Continue if stopped.";
    STOP = SIGSTOP, "Stop; cannot be caught.";
    TSTP = SIGTSTP, "Stop from the terminal.";
    TTIN = SIGTTIN, "Background read from the terminal.";
    TTOU = SIGTTOU, "Background write to the terminal.";
    URG = SIGURG, "Urgent data on a socket.";
    XCPU = SIGXCPU, "CPU time limit exceeded.";
    XFSZ = SIGXFSZ, "File size limit exceeded.";
    VTALRM = SIGVTALRM, "A virtual timer expired.";
    PROF = SIGPROF, "A profiling timer expired.";
    WINCH = SIGWINCH, "The terminal's size changed.";
    IO = SIGIO, "I/O is possible.";
    PWR = SIGPWR, "Power failure.";
    SYS = SIGSYS, "Bad system call.";
}

/// Names that other systems and shells use for some signals.
const ALIASES: &[(Signal, &str)] = &[(Signal::ABRT, "IOT"), (Signal::IO, "POLL"), (Signal::CHLD, "CLD")];

/// The first and the last real-time signal for programs. (glibc and musl reserve the numbers before `RTMIN`.)
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

impl Signal {
    /// The signal with this number.
    ///
    /// ```
    /// # use pidherd::Signal;
    /// assert_eq!(Signal::from_raw(15)?, Signal::TERM);
    /// assert!(Signal::from_raw(0).is_err() && Signal::from_raw(65).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`UnknownSignal`] unless `raw` is between 1 and 64.
    pub fn from_raw(raw: i32) -> Result<Signal, UnknownSignal> {
        match u8::try_from(raw) {
            Ok(number @ 1..=RTMAX) => Ok(Signal(number)),
            _ => Err(UnknownSignal(raw.to_string())),
        }
    }

    /// The signal's number.
    #[must_use]
    pub const fn as_raw(self) -> i32 {
        self.0 as i32
    }

    /// Whether the default action ends the process, with or without a core dump; see signal(7).
    #[must_use]
    pub const fn is_fatal(self) -> bool {
        !matches!(
            self,
            Signal::CHLD
                | Signal::CONT
                | Signal::STOP
                | Signal::TSTP
                | Signal::TTIN
                | Signal::TTOU
                | Signal::URG
                | Signal::WINCH
        )
    }

    /// Whether the default action stops the process: STOP, TSTP, TTIN and TTOU.
    #[must_use]
    pub const fn is_stop(self) -> bool {
        matches!(self, Signal::STOP | Signal::TSTP | Signal::TTIN | Signal::TTOU)
    }

    /// This signal and SIGCONT, in the order in which a process that may be stopped must get them. SIGCONT follows the
    /// signal, so that a stopped process acts on it. It comes before TSTP, TTIN and TTOU: the kernel discards a stop
    /// signal that is pending when SIGCONT is sent. STOP, CONT and KILL take effect on a stopped process too.
    pub(crate) fn with_continue(self) -> impl Iterator<Item = Signal> {
        let alone = matches!(self, Signal::STOP | Signal::CONT | Signal::KILL);
        let before = !alone && self.is_stop();
        let after = !alone && !before;
        let cont = |goes: bool| goes.then_some(Signal::CONT);
        cont(before).into_iter().chain([self]).chain(cont(after))
    }

    /// Every signal, in ascending order of the numbers.
    ///
    /// ```
    /// # use pidherd::Signal;
    /// let stops: Vec<Signal> = Signal::all().filter(|signal| signal.is_stop()).collect();
    /// assert_eq!(stops, [Signal::STOP, Signal::TSTP, Signal::TTIN, Signal::TTOU]);
    /// ```
    pub fn all() -> impl Iterator<Item = Signal> {
        (1..=RTMAX).map(Signal)
    }
}

impl FromStr for Signal {
    type Err = UnknownSignal;

    /// Parses `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN`, `RTMIN+3` and `RTMAX-1`.
    fn from_str(text: &str) -> Result<Signal, UnknownSignal> {
        let unknown = || UnknownSignal(text.to_owned());
        let upper = text.trim().to_ascii_uppercase();
        if let Ok(raw) = upper.parse::<i32>() {
            return Signal::from_raw(raw).map_err(|_| unknown());
        }
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(&(signal, _)) = NAMES.iter().chain(ALIASES).find(|(_, known)| *known == name) {
            return Ok(signal);
        }
        let number = if let Some(offset) = name.strip_prefix("RTMIN") {
            offset_of(offset, '+').and_then(|n| RTMIN.checked_add(n))
        } else if let Some(offset) = name.strip_prefix("RTMAX") {
            offset_of(offset, '-').and_then(|n| RTMAX.checked_sub(n))
        } else {
            None
        };
        match number {
            Some(number @ RTMIN..=RTMAX) => Ok(Signal(number)),
            _ => Err(unknown()),
        }
    }
}

/// The number in `+n` (or `-n`). An empty text gives 0.
fn offset_of(text: &str, sign: char) -> Option<u8> {
    match text.strip_prefix(sign) {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
        Some(_) => None,
        None => text.is_empty().then_some(0),
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((_, name)) = NAMES.iter().find(|(signal, _)| signal == self) {
            return f.pad(&format!("SIG{name}"));
        }
        match self.0 {
            RTMIN => f.pad("SIGRTMIN"),
            number @ RTMIN.. => f.pad(&format!("SIGRTMIN+{}", number - RTMIN)),
            number => f.pad(&format!("signal {number}")),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A set of signals. It has the kernel's representation: bit n-1 stands for signal n.
///
/// ```
/// use pidherd::{Signal, SignalSet};
///
/// let ends: SignalSet = [Signal::INT, Signal::TERM].into_iter().collect();
/// assert!(ends.contains(Signal::TERM) && !ends.contains(Signal::HUP));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SignalSet(u64);

impl SignalSet {
    /// The set without any signal.
    pub const EMPTY: SignalSet = SignalSet(0);
    /// The set of all 64 signals.
    pub const ALL: SignalSet = SignalSet(u64::MAX);

    /// The signals that the init process of a container forwards to its main child. It is every signal that another
    /// process may have sent for the child. These are not in the set:
    ///
    /// - KILL and STOP, because a process cannot catch them, and so cannot forward them.
    /// - CHLD, because it reports changes of init's own children.
    /// - ILL, TRAP, ABRT, BUS, FPE, SEGV and SYS, because the kernel sends them for a fault of the process itself. A
    ///   fault in init must not end the child.
    /// - PIPE, TTIN and TTOU, because the kernel sends them for a read or write of the process itself. For example,
    ///   init may write to a standard error without a reader.
    /// - 32 and 33, because the C library uses them.
    ///
    /// TSTP and CONT are both in the set, so a child that was stopped with one can be continued with the other. HUP,
    /// WINCH and the real-time signals are in the set, too.
    pub const FORWARDABLE: SignalSet = SignalSet::ALL
        .without(Signal::KILL)
        .without(Signal::STOP)
        .without(Signal::CHLD)
        .without(Signal::ILL)
        .without(Signal::TRAP)
        .without(Signal::ABRT)
        .without(Signal::BUS)
        .without(Signal::FPE)
        .without(Signal::SEGV)
        .without(Signal::SYS)
        .without(Signal::PIPE)
        .without(Signal::TTIN)
        .without(Signal::TTOU)
        .without(Signal(32))
        .without(Signal(33));

    /// This set with `signal` added.
    ///
    /// ```
    /// # use pidherd::{Signal, SignalSet};
    /// let set = SignalSet::EMPTY.with(Signal::INT).with(Signal::TERM);
    /// assert!(set.iter().eq([Signal::INT, Signal::TERM]));
    /// ```
    #[must_use]
    pub const fn with(self, signal: Signal) -> SignalSet {
        SignalSet(self.0 | SignalSet::bit(signal))
    }

    /// This set with `signal` removed.
    ///
    /// ```
    /// # use pidherd::{Signal, SignalSet};
    /// let set = SignalSet::ALL.without(Signal::CHLD);
    /// assert_eq!(set.iter().count(), 63);
    /// ```
    #[must_use]
    pub const fn without(self, signal: Signal) -> SignalSet {
        SignalSet(self.0 & !SignalSet::bit(signal))
    }

    /// Whether the set contains `signal`.
    ///
    /// ```
    /// # use pidherd::{Signal, SignalSet};
    /// assert!(SignalSet::ALL.contains(Signal::HUP) && !SignalSet::EMPTY.contains(Signal::HUP));
    /// ```
    #[must_use]
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & SignalSet::bit(signal) != 0
    }

    /// Whether the set contains no signal.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The signals in the set, in ascending order of the numbers.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        Signal::all().filter(move |&signal| self.contains(signal))
    }

    /// The set as the kernel's 64-bit mask.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The set with the signals of the kernel's 64-bit mask.
    ///
    /// ```
    /// # use pidherd::{Signal, SignalSet};
    /// // SigCgt of /proc/PID/status: the signals with a handler. SIGTERM is number 15.
    /// let caught = SignalSet::from_bits(u64::from_str_radix("0000000000004000", 16)?);
    /// assert!(caught.iter().eq([Signal::TERM]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn from_bits(bits: u64) -> SignalSet {
        SignalSet(bits)
    }

    const fn bit(signal: Signal) -> u64 {
        1 << (signal.0 - 1)
    }
}

impl FromIterator<Signal> for SignalSet {
    fn from_iter<I: IntoIterator<Item = Signal>>(signals: I) -> SignalSet {
        signals.into_iter().fold(SignalSet::EMPTY, SignalSet::with)
    }
}

impl Stored for Signal {
    fn put(&self, to: &mut Writer<'_>) {
        self.0.put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<Signal, Damaged> {
        Signal::from_raw(u8::get(from)?.into()).map_err(|_| Damaged)
    }
}

impl Stored for SignalSet {
    fn put(&self, to: &mut Writer<'_>) {
        self.0.put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<SignalSet, Damaged> {
        u64::get(from).map(SignalSet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_displayed_name_parses_to_the_same_signal() {
        for signal in Signal::all().filter(|s| !matches!(s.as_raw(), 16 | 32 | 33)) {
            assert_eq!(signal.to_string().parse(), Ok(signal));
            assert_eq!(signal.as_raw().to_string().parse(), Ok(signal));
        }
    }

    #[test]
    fn common_spellings_are_parsed() {
        for text in ["TERM", "SIGTERM", "sigterm", "15", " term "] {
            assert_eq!(text.parse(), Ok(Signal::TERM), "{text}");
        }
        assert_eq!("RTMIN+3".parse(), Signal::from_raw(37));
        assert_eq!("SIGRTMAX-1".parse(), Signal::from_raw(63));
        assert_eq!("RTMAX".parse(), Signal::from_raw(64));
    }

    #[test]
    fn unknown_signals_are_refused() {
        for text in [
            "", "SIG", "NOPE", "0", "-1", "65", "RTMIN+31", "RTMAX-31", "RTMIN-1", "RTMIN+", "RTMIN++1", "9 9",
        ] {
            assert_eq!(text.parse::<Signal>(), Err(UnknownSignal(text.to_owned())));
        }
        assert!(Signal::from_raw(0).is_err());
        assert!(Signal::from_raw(65).is_err());
        assert!(Signal::from_raw(i32::MIN).is_err());
    }

    #[test]
    fn a_set_contains_exactly_the_added_signals() {
        let set: SignalSet = [Signal::TERM, Signal::HUP].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [Signal::HUP, Signal::TERM]);
        assert!(!set.without(Signal::TERM).contains(Signal::TERM));
        assert_eq!(SignalSet::ALL.iter().count(), 64);
        assert!(SignalSet::EMPTY.is_empty());
    }

    #[test]
    fn faults_and_own_signals_are_not_forwardable() {
        let kept: Vec<i32> = Signal::all()
            .filter(|&signal| !SignalSet::FORWARDABLE.contains(signal))
            .map(Signal::as_raw)
            .collect();
        assert_eq!(kept, [4, 5, 6, 7, 8, 9, 11, 13, 17, 19, 21, 22, 31, 32, 33]);
    }
}
