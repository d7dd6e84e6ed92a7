//! Makes the execve(2) of a program hang until a test ends the lease, without any privilege.
//!
//! An open of a file waits while another descriptor holds a write lease on the file (fcntl(2), F_SETLEASE). The
//! kernel breaks the lease after /proc/sys/fs/lease-break-time, which is 45 seconds by default.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// The operation of fcntl(2) that sets the signal for an open. libc lacks it.
const F_SETSIG: libc::c_int = 10;

/// Whether the kernel is User-mode Linux.
fn is_user_mode() -> bool {
    fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("User Mode Linux"))
}

/// A lease on a file. While it exists, an execve of the file hangs; only SIGKILL interrupts it.
pub struct Lease(File);

impl Lease {
    /// Takes the lease. No other descriptor of the file may be open. The kernel reports an open with SIGURG, which this
    /// process ignores. `None`, and the test is skipped, where the file system has no leases (since Linux 7.0 only some
    /// have).
    pub fn take(path: &Path) -> Option<Lease> {
        match Lease::try_take(path) {
            Ok(lease) => Some(lease),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                super::skipped(&format!("{} can have no lease", path.display()));
                None
            }
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }

    /// Whether a file of a test can have a lease; says that the test is skipped if not.
    pub fn is_possible() -> bool {
        let directory = super::tempdir();
        let path = directory.join("file");
        File::create(&path).unwrap();
        Lease::take(&path).is_some()
    }

    /// The same. EAGAIN: the file is open, or executed.
    pub fn try_take(path: &Path) -> io::Result<Lease> {
        let file = File::open(path)?;
        // SAFETY: fcntl(2) takes only numbers here. SIGURG is ignored by default, unlike SIGIO.
        let taken = unsafe {
            libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG);
            libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK)
        };
        if taken == 0 {
            Ok(Lease(file))
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Waits until this process, a child of its host, hangs in its execve. Some kernels do not tell where a process sleeps,
    /// and User-mode Linux names any function. But before its execve a child sleeps nowhere else.
    pub fn wait_for(pid: u32) {
        super::wait_until("it hangs in execve", super::SOON, || {
            let place = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
            let is_unknown = place == "0" || is_user_mode();
            let sleeps = matches!(super::processes::state(pid), Some('S' | 'D'));
            place.contains("lease") || (is_unknown && sleeps && !super::processes::has_own_program(pid))
        });
    }

    /// Ends the lease, so that a hanging execve continues.
    pub fn end(self) {
        drop(self);
    }

    /// The same in a copy of the process that took it, for both.
    pub fn release(&self) {
        // SAFETY: numbers only.
        let released = unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
        assert_eq!(released, 0, "{}", io::Error::last_os_error());
    }
}
