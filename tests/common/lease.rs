//! Makes the execve(2) of a program hang for as long as a test wants, without any privilege.
//!
//! An open of a file waits while another descriptor holds a write lease on it (fcntl(2), F_SETLEASE). The kernel
//! breaks the lease after /proc/sys/fs/lease-break-time, which is 45 seconds by default.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

/// The operation of fcntl(2) that sets the signal for an open. libc lacks it.
const F_SETSIG: libc::c_int = 10;

/// A lease on a file. While it exists, an execve of the file hangs; only SIGKILL interrupts it.
pub struct Lease(File);

impl Lease {
    /// Takes the lease. No other descriptor of the file may be open. The kernel reports an open with SIGURG, which this
    /// process ignores.
    pub fn take(path: &Path) -> Lease {
        let file = File::open(path).expect("cannot open the program");
        // SAFETY: fcntl(2) takes only numbers here. SIGURG is ignored by default, unlike SIGIO.
        let taken = unsafe {
            libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG);
            libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK)
        };
        assert_eq!(taken, 0, "{}", std::io::Error::last_os_error());
        Lease(file)
    }

    /// Gives up the lease, so that a hanging execve continues.
    pub fn end(self) {
        drop(self);
    }
}
