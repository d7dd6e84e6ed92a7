//! A program whose execve hangs for as long as a test wants, without any privilege: an open of a file waits while
//! another process or descriptor holds a write lease on it (fcntl(2), F_SETLEASE), up to
//! /proc/sys/fs/lease-break-time, 45 seconds as a rule.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

/// fcntl(2): which signal tells of an open. libc lacks it.
const F_SETSIG: libc::c_int = 10;

/// While this lives, an execve of the file hangs. It can be interrupted by SIGKILL.
pub struct Lease(File);

impl Lease {
    /// Takes the lease. No descriptor of the file may be open. The signal that tells of an open is ignored by this process.
    pub fn take(path: &Path) -> Lease {
        let file = File::open(path).expect("the program");
        // SAFETY: numbers only. SIGURG is ignored by default, unlike SIGIO.
        let taken = unsafe {
            libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG);
            libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK)
        };
        assert_eq!(taken, 0, "{}", std::io::Error::last_os_error());
        Lease(file)
    }

    /// Lets what hangs go on.
    pub fn end(self) {
        drop(self);
    }
}
