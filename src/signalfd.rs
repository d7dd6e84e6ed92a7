//! Signals through a descriptor that becomes readable when a signal is pending.
//!
//! A supervisor must handle SIGTERM and SIGHUP. A signal handler was rejected, because it is global state: it
//! interrupts the host anywhere, may call very few functions, and all libraries of the process share it. A signalfd is
//! one more descriptor in the event loop of the host. The condition is that every thread blocks the signals: a thread
//! that does not block a signal can receive it in the usual way. So block the signals at the beginning of `main`,
//! before any thread is started, because threads inherit the mask. A [`MaskGuard`] does this, and restores the mask
//! when it is dropped.
//!
//! The kernel's rules:
//!
//! - The mask survives execve. [`Command`](crate::Command) resets it for its child.
//! - Standard signals coalesce: two SIGHUPs before the first read are one record. So one SIGCHLD can stand for several
//!   children. (The library itself needs SIGCHLD only to adopt orphans.)
//! - A signalfd returns the signals of the process that *reads* it, and an epoll waits for those of the process that
//!   *registered* it. After a fork(2) the copy must make its own signalfd. A read of the original's descriptor is an
//!   error there.
//! - A signal that every thread blocks never reaches the handlers of other libraries.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::codec::stored;
use crate::errno::Reason;
use crate::exit::Pid;
use crate::owner::{OtherProcess, Owner};
use crate::procfs;
use crate::signal::{Signal, SignalSet};
use crate::sys;

/// A descriptor from which pending signals are read: signalfd(2), with the flags of Linux 2.6.27.
///
/// It is close-on-exec and non-blocking, and no method blocks. It is readable if a signal of its set is pending for the
/// process or for the calling thread.
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
    /// A signalfd for these signals. The caller must block them; see [`MaskGuard`].
    ///
    /// ```
    /// # use pidherd::{MaskGuard, Signal, SignalFd, SignalSet};
    /// let set = SignalSet::EMPTY.with(Signal::TERM);
    /// let _blocked = MaskGuard::block(set)?;
    /// let signals = SignalFd::new(set)?;
    /// assert!(signals.read()?.is_none());
    /// assert!(SignalFd::new(set.with(Signal::KILL)).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` with [`CannotBeCaught`] inside, if the set contains `KILL` or `STOP` (the kernel would silently
    /// ignore them). EMFILE, ENFILE and ENOMEM from signalfd(2).
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

    /// An error in a copy of the process that made the descriptor. There an epoll that was registered before the
    /// fork(2) reports signals of the original, and a read returns signals of the copy.
    pub(crate) fn check_owner(&self) -> Result<(), OtherProcess> {
        self.owner.check()
    }

    /// The signals of this descriptor.
    #[must_use]
    pub const fn signals(&self) -> SignalSet {
        self.set
    }

    /// Reads the next pending signal of the set; `None` if there is none. Never blocks. Signals to the thread come
    /// before signals to the process, and lower numbers come first.
    ///
    /// ```
    /// # use pidherd::{MaskGuard, Signal, SignalFd, SignalSet};
    /// let set = SignalSet::EMPTY.with(Signal::HUP);
    /// let _blocked = MaskGuard::block(set)?;
    /// let signals = SignalFd::new(set)?;
    /// rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP)?;
    /// let info = signals.read()?.ok_or("no signal")?;
    /// assert_eq!(info.signal, Signal::HUP);
    /// assert_eq!(info.sender.map(|sender| sender.as_raw()), Some(std::process::id()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`OtherProcess`] inside, in a copy that fork(2) made. Otherwise those of read(2), which no use of this type
    /// causes.
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

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl From<SignalFd> for OwnedFd {
    fn from(signals: SignalFd) -> OwnedFd {
        signals.fd
    }
}

/// Takes over a signalfd that was made elsewhere: inherited, or received over a socket (SCM_RIGHTS). It keeps its set,
/// and becomes close-on-exec and non-blocking. The caller must block the signals of the set; see [`MaskGuard`]. It reads
/// the signals of this process. `/proc` must be mounted.
///
/// ```
/// use pidherd::signal::{Signal, SignalSet};
/// use pidherd::SignalFd;
/// use std::os::fd::OwnedFd;
///
/// let raw = OwnedFd::from(SignalFd::new(SignalSet::EMPTY.with(Signal::HUP))?);
/// let signals = SignalFd::try_from(raw)?;
/// assert_eq!(signals.signals(), SignalSet::EMPTY.with(Signal::HUP));
/// let null = OwnedFd::from(std::fs::File::open("/dev/null")?);
/// assert!(SignalFd::try_from(null).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl TryFrom<OwnedFd> for SignalFd {
    type Error = NotASignalFd;

    fn try_from(fd: OwnedFd) -> Result<SignalFd, NotASignalFd> {
        match set_of(&fd).and_then(|set| reset(&fd).map(|()| set)) {
            Ok(set) => Ok(SignalFd {
                owner: Owner::this_process(),
                fd,
                set,
            }),
            Err(reason) => Err(NotASignalFd { fd, reason }),
        }
    }
}

/// The signals of a signalfd.
fn set_of(fd: &OwnedFd) -> io::Result<SignalSet> {
    let info = procfs::self_::info_of(fd, "[signalfd]")?;
    let digits = procfs::self_::field(&info, "sigmask:");
    match digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
        Some(bits) => Ok(SignalSet::from_bits(bits)),
        None => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// Gives a signalfd the flags of a new one.
fn reset(fd: &OwnedFd) -> io::Result<()> {
    fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
    Ok(fcntl_setfd(fd, FdFlags::CLOEXEC)?)
}

/// A descriptor that is no signalfd.
#[derive(Debug, thiserror::Error)]
#[error("descriptor {} cannot be used as a signalfd: {}", .fd.as_raw_fd(), Reason(.reason))]
pub struct NotASignalFd {
    fd: OwnedFd,
    reason: io::Error,
}

impl NotASignalFd {
    /// The reason: `EBADF` for a descriptor of another kind, `EINVAL` if the kernel does not tell its signals, or the
    /// errno with which `/proc/self/fd` could not be read.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.reason.raw_os_error().unwrap_or(libc::EIO)
    }

    /// The descriptor, unchanged.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

/// A signal that was read, with the kernel's information about it (signalfd(2), sigaction(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct SignalInfo {
    /// The signal that was read.
    pub signal: Signal,
    /// The sender; for SIGCHLD, the child. `None` if the kernel sent the signal itself, or if the sender is outside of
    /// this PID namespace.
    pub sender: Option<Pid>,
    /// The real user id of the sender, or of the child; 0 if the kernel sent the signal itself.
    pub uid: u32,
    /// The cause of the signal (`si_code`): `SI_USER` (0, kill(2)), `SI_QUEUE` (-1), `SI_TKILL` (-6), `SI_KERNEL`
    /// (128), for SIGCHLD `CLD_EXITED` (1) to `CLD_CONTINUED` (6), and others.
    pub code: i32,
    /// For SIGCHLD: the exit code, or the signal that killed, stopped or continued the child. Otherwise 0.
    pub status: i32,
    /// The value that the sender attached with sigqueue(3); otherwise 0.
    pub value: i32,
}

/// The signal is KILL or STOP, which a process cannot catch, block (signal(7)) or read from a signalfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} cannot be read from a signalfd: the kernel does not allow a process to catch or block it")]
pub struct CannotBeCaught(pub Signal);

/// Blocks signals in the calling thread until it is dropped. Dropping it restores the exact previous mask
/// (rt_sigprocmask(2)).
///
/// It belongs to its thread and cannot be sent to another. Guards of one thread must be dropped in the reverse order of
/// their creation. Otherwise the inner guard sets the mask that the outer guard had set. A copy that fork(2) made has
/// its own mask, which is equal to the original's at first. Dropping the guard in the copy changes only the mask of the
/// copy.
///
/// ```compile_fail
/// let guard = pidherd::signalfd::MaskGuard::block(pidherd::signal::SignalSet::ALL).unwrap();
/// std::thread::spawn(move || drop(guard)); // Not this thread's mask!
/// ```
#[must_use = "dropping it unblocks the signals again"]
pub struct MaskGuard {
    before: SignalSet,
    /// A mask belongs to a thread, so the guard is neither Send nor Sync.
    thread: PhantomData<*const ()>,
}

impl MaskGuard {
    /// The two signals that glibc and musl use themselves: for thread cancellation, and for set*id in all threads. If
    /// this thread blocked the second one, a setuid in another thread would wait for ever.
    const RESERVED: u64 = 1 << (32 - 1) | 1 << (33 - 1);

    /// Blocks `set` in the calling thread, in addition to the signals that are already blocked.
    ///
    /// KILL, STOP and the C library's own signals 32 and 33 stay unblocked even if they are in the set, so
    /// [`SignalSet::ALL`] can be used.
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
    /// Those of rt_sigprocmask(2), which no use of this type causes.
    pub fn block(set: SignalSet) -> io::Result<MaskGuard> {
        let before = sys::signalfd::block(SignalSet::from_bits(set.bits() & !Self::RESERVED))?;
        Ok(MaskGuard {
            before,
            thread: PhantomData,
        })
    }

    /// The mask that is restored when the guard is dropped.
    #[must_use]
    pub const fn before(&self) -> SignalSet {
        self.before
    }
}

impl Drop for MaskGuard {
    fn drop(&mut self) {
        // Setting a mask fails only for an invalid pointer or an invalid `how`, so it cannot fail here.
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

stored!(struct SignalInfo { signal, sender, uid, code, status, value });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::signalfd::{block, raise};

    /// The calling thread's mask.
    fn mask() -> SignalSet {
        block(SignalSet::EMPTY).unwrap()
    }

    #[test]
    fn the_descriptor_is_close_on_exec() {
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
    fn a_guard_restores_the_exact_mask() {
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
    fn all_blocks_every_signal_that_can_be_blocked() {
        let _guard = MaskGuard::block(SignalSet::ALL).unwrap();
        let open: Vec<i32> = Signal::all()
            .filter(|&s| !mask().contains(s))
            .map(Signal::as_raw)
            .collect();
        assert_eq!(open, [9, 19, 32, 33]);
    }
}
