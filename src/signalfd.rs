//! Signals as data: a descriptor that becomes readable when a signal is pending.
//!
//! A supervisor must learn of SIGTERM and SIGHUP. A handler would be global state: it interrupts the
//! host anywhere, may call next to nothing, and there is one per process for all libraries in it.
//! A signalfd is one more descriptor in the loop that is there anyway. Its price is that the
//! signals must be blocked in every thread: a thread that does not block one takes it in the usual way. So
//! block them first thing in `main`, before any thread is started (threads inherit the mask), with
//! a [`MaskGuard`], which also puts back what was there.
//!
//! Rules of the kernel for such a mask:
//!
//! - The mask survives exec. A child that must start clean needs it reset; `Command` does that.
//! - Standard signals coalesce: two SIGHUPs before the first read are one record. A SIGCHLD means "look at the
//!   children", never "one child ended". (The library itself needs no SIGCHLD.)
//! - A signalfd gives the signals of the process that *reads* it, and an epoll waits for those of the process that
//!   *registered* it. After a fork(2) the copy must make its own; a read of the original's descriptor is refused
//!   there.
//! - A signal that is blocked here never reaches handlers that other libraries have installed.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::exit::Pid;
use crate::owner::{OtherProcess, Owner};
use crate::signal::{Signal, SignalSet};
use crate::sys;

/// A descriptor from which pending signals are read: signalfd(2), with the flags of Linux 2.6.27.
///
/// It is close-on-exec and non-blocking; nothing here ever waits. Readable means that a signal of
/// its set is pending for the process or for the thread that asks.
///
/// ```
/// use pidherd::signal::{Signal, SignalSet};
/// use pidherd::signalfd::{MaskGuard, SignalFd};
///
/// # fn main() -> std::io::Result<()> {
/// let wanted = SignalSet::EMPTY.with(Signal::TERM).with(Signal::HUP);
/// let _blocked = MaskGuard::block(wanted)?;
/// let signals = SignalFd::new(wanted)?;
/// // Hand `signals` to an epoll; when it is readable:
/// while let Some(info) = signals.read()? {
///     println!("{} from {:?}", info.signal, info.sender);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SignalFd {
    owner: Owner,
    fd: OwnedFd,
    set: SignalSet,
}

impl SignalFd {
    /// A signalfd for these signals. It does not block them: see [`MaskGuard`].
    ///
    /// # Errors
    /// `InvalidInput` with [`CannotBeCaught`] inside, if the set holds `KILL` or `STOP` (the kernel
    /// would leave them out without a word); EMFILE, ENFILE and ENOMEM as they came.
    pub fn new(set: SignalSet) -> io::Result<SignalFd> {
        for signal in [Signal::KILL, Signal::STOP] {
            if set.contains(signal) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, CannotBeCaught(signal)));
            }
        }
        let fd = sys::descriptors::above_standard(sys::signalfd::create(set)?)?;
        let owner = Owner::this_process();
        Ok(SignalFd { owner, fd, set })
    }

    /// An epoll in which it was registered before a fork(2) tells of the original's signals, and a read takes those of
    /// the reader: so in a copy of the process it is of no use.
    pub(crate) fn check_owner(&self) -> Result<(), OtherProcess> {
        self.owner.check()
    }

    /// The signals that it was made for.
    #[must_use]
    pub const fn signals(&self) -> SignalSet {
        self.set
    }

    /// Takes the next pending signal of the set; `None` if there is none. Never blocks. Lower
    /// numbers come first, and signals sent to the thread before those sent to the process.
    ///
    /// # Errors
    /// [`OtherProcess`] inside, in a copy that fork(2) made; else what read(2) says, where there
    /// is no error that a caller could bring about.
    pub fn read(&self) -> io::Result<Option<SignalInfo>> {
        self.check_owner()?;
        let Some(raw) = sys::signalfd::read(self.fd.as_fd())? else {
            return Ok(None);
        };
        let number = i32::try_from(raw.ssi_signo).map_err(io::Error::other)?;
        Ok(Some(SignalInfo {
            signal: Signal::from_raw(number).map_err(io::Error::other)?,
            sender: Pid::new(raw.ssi_pid),
            uid: raw.ssi_uid,
            code: raw.ssi_code,
            status: raw.ssi_status,
            value: raw.ssi_int,
        }))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<SignalFd> for OwnedFd {
    fn from(signals: SignalFd) -> OwnedFd {
        signals.fd
    }
}

/// What the kernel tells about a signal that was read (signalfd(2), sigaction(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignalInfo {
    /// Which one.
    pub signal: Signal,
    /// The sender; for SIGCHLD, the child. `None` where the kernel names no process: a signal of its
    /// own, or a sender outside of this PID namespace.
    pub sender: Option<Pid>,
    /// The real user id of the sender, or of the child; 0 where the kernel names no process.
    pub uid: u32,
    /// How it came to be: `SI_USER` (0, kill), `SI_QUEUE` (-1), `SI_TKILL` (-6), `SI_KERNEL` (128),
    /// for SIGCHLD `CLD_EXITED` (1) to `CLD_CONTINUED` (6), and others.
    pub code: i32,
    /// SIGCHLD only: the exit code, or the signal that killed, stopped or continued the child.
    pub status: i32,
    /// What the sender attached, if it used sigqueue(3); else 0.
    pub value: i32,
}

/// KILL and STOP can be neither caught nor blocked (signal(7)), nor read from a signalfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} cannot be read from a signalfd: the kernel does not allow a process to catch or block it")]
pub struct CannotBeCaught(pub Signal);

/// Signals blocked in the calling thread until this is dropped, which puts back exactly the mask
/// that was there (rt_sigprocmask(2)).
///
/// It belongs to its thread and cannot be sent to another. Guards in one thread nest: drop them in
/// the reverse order of their making, or an outer one is undone by an inner one. A copy that fork(2) made has a mask of
/// its own, the same as its original's at first; to drop the guard there puts back the copy's mask alone.
///
/// ```compile_fail
/// let guard = pidherd::signalfd::MaskGuard::block(pidherd::signal::SignalSet::ALL).unwrap();
/// std::thread::spawn(move || drop(guard)); // Not this thread's mask!
/// ```
#[must_use = "dropping it unblocks the signals again"]
pub struct MaskGuard {
    before: SignalSet,
    /// A mask is the thread's: neither Send nor Sync.
    thread: PhantomData<*const ()>,
}

impl MaskGuard {
    /// The C library's own two (glibc and musl: thread cancellation, and set*id in all threads).
    /// Blocking the second would let a setuid in another thread wait for this one forever.
    const RESERVED: u64 = 1 << (32 - 1) | 1 << (33 - 1);

    /// Blocks `set` in the calling thread, beside what it blocks already.
    ///
    /// KILL, STOP and the C library's own 32 and 33 stay unblocked, asked or not, so that
    /// [`SignalSet::ALL`] may be said.
    ///
    /// ```
    /// use pidherd::signal::{Signal, SignalSet};
    /// use pidherd::signalfd::MaskGuard;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let quiet = MaskGuard::block(SignalSet::EMPTY.with(Signal::INT))?;
    /// // No SIGINT is taken by this thread here.
    /// drop(quiet);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// None that a caller could bring about; what the kernel says is passed on.
    pub fn block(set: SignalSet) -> io::Result<MaskGuard> {
        let before = sys::signalfd::block(SignalSet::from_bits(set.bits() & !Self::RESERVED))?;
        Ok(MaskGuard {
            before,
            thread: PhantomData,
        })
    }

    /// The mask that dropping puts back.
    #[must_use]
    pub const fn before(&self) -> SignalSet {
        self.before
    }
}

impl Drop for MaskGuard {
    fn drop(&mut self) {
        // Setting a mask fails for a bad pointer or a bad `how` only, and there is neither.
        let _restored = sys::signalfd::set_mask(self.before);
    }
}

impl fmt::Debug for MaskGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaskGuard")
            .field("before", &self.before)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::signalfd::{block, raise};

    /// The calling thread's mask.
    fn mask() -> SignalSet {
        block(SignalSet::EMPTY).unwrap()
    }

    #[test]
    fn a_child_does_not_get_it() {
        let signals = SignalFd::new(SignalSet::EMPTY).unwrap();
        assert_eq!(rustix::io::fcntl_getfd(&signals), Ok(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn it_can_be_sent_to_another_thread() {
        fn assert_send<T: Send + Sync>() {}
        assert_send::<SignalFd>();
        assert_send::<SignalInfo>();
        assert_send::<CannotBeCaught>();
    }

    #[test]
    fn kill_and_stop_are_refused_by_name() {
        for signal in [Signal::KILL, Signal::STOP] {
            let error = SignalFd::new(SignalSet::EMPTY.with(signal)).unwrap_err();
            let inner = error.get_ref().unwrap().downcast_ref::<CannotBeCaught>();
            assert_eq!(inner, Some(&CannotBeCaught(signal)));
        }
    }

    #[test]
    fn pending_signals_are_read_lowest_first_and_once() {
        let set = SignalSet::EMPTY.with(Signal::USR1).with(Signal::USR2);
        let _blocked = MaskGuard::block(set).unwrap();
        let signals = SignalFd::new(set).unwrap();
        assert_eq!(signals.signals(), set);
        assert_eq!(signals.read().unwrap(), None);
        for signal in [Signal::USR2, Signal::USR1, Signal::USR1] {
            raise(signal);
        }
        for expected in [Signal::USR1, Signal::USR2] {
            let info = signals.read().unwrap().unwrap();
            assert_eq!(info.signal, expected);
            assert_eq!(info.sender.map(Pid::as_raw), Some(std::process::id()));
            assert_eq!(info.uid, rustix::process::getuid().as_raw());
            assert_eq!(info.code, libc::SI_TKILL);
        }
        assert_eq!(signals.read().unwrap(), None);
    }

    #[test]
    fn a_signal_outside_of_the_set_stays_where_it_is() {
        let _blocked = MaskGuard::block(SignalSet::EMPTY.with(Signal::USR1).with(Signal::WINCH)).unwrap();
        let signals = SignalFd::new(SignalSet::EMPTY.with(Signal::USR1)).unwrap();
        raise(Signal::WINCH);
        assert_eq!(signals.read().unwrap(), None);
    }

    #[test]
    fn a_guard_puts_back_exactly_what_was_there() {
        let outset = mask();
        let outer = MaskGuard::block(SignalSet::EMPTY.with(Signal::USR2)).unwrap();
        assert_eq!(outer.before(), outset);
        let between = mask();
        assert_eq!(between, outset.with(Signal::USR2));
        drop(MaskGuard::block(SignalSet::EMPTY.with(Signal::USR1).with(Signal::USR2)).unwrap());
        assert_eq!(mask(), between, "USR2 was blocked before, so it still is");
        drop(outer);
        assert_eq!(mask(), outset);
    }

    #[test]
    fn a_mask_of_the_c_librarys_own_signals_survives_a_guard() {
        let reserved = SignalSet::from_bits(MaskGuard::RESERVED);
        let outset = block(reserved).unwrap();
        drop(MaskGuard::block(SignalSet::ALL).unwrap());
        assert_eq!(mask().bits(), outset.bits() | reserved.bits());
        sys::signalfd::set_mask(outset).unwrap();
    }

    #[test]
    fn all_means_all_that_may_be_blocked() {
        let _guard = MaskGuard::block(SignalSet::ALL).unwrap();
        let open: Vec<i32> = Signal::all()
            .filter(|&s| !mask().contains(s))
            .map(Signal::as_raw)
            .collect();
        assert_eq!(open, [9, 19, 32, 33]);
    }
}
