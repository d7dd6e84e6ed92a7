//! Namespaces (namespaces(7)): the kind of one, and a thread with children that begin in another PID namespace.

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::arch;

/// The kind of the namespace that a descriptor refers to, as its CLONE_NEW* flag (NS_GET_NSTYPE in ioctl_nsfs(2), Linux
/// 4.11).
///
/// # Errors
/// `ENOTTY` if the descriptor is not one of a namespace.
pub(crate) fn kind_of(namespace: BorrowedFd<'_>) -> io::Result<c_int> {
    const NS_GET_NSTYPE: usize = 0xb703;
    let args = [namespace.as_raw_fd() as usize, NS_GET_NSTYPE, 0, 0, 0, 0];
    // SAFETY: the arguments are numbers only. A file system or a device could give this request another meaning, but
    // its argument is null, so nothing of this process is written.
    let kind = unsafe { arch::syscall(libc::SYS_ioctl, &args) };
    c_int::try_from(kind)
        .ok()
        .filter(|&kind| kind > 0)
        .ok_or_else(|| match kind {
            ..0 => io::Error::from_raw_os_error(kind.wrapping_neg() as c_int),
            _ => io::Error::from_raw_os_error(libc::ENOTTY),
        })
}

/// As long as this value exists, the children of the calling thread begin in a given PID namespace.
///
/// setns(2) with a PID namespace concerns later children of the calling thread alone: not the thread itself, and not
/// other threads. No kernel has a flag of clone3(2) for it.
#[derive(Debug)]
pub(crate) struct ChildrenElsewhere {
    before: File,
    has_left: bool,
}

/// How often leaving is tried. It can fail only for lack of memory.
const ATTEMPTS: usize = 8;

impl ChildrenElsewhere {
    /// # Errors
    /// Those of setns(2), and of opening `/proc/thread-self/ns/pid_for_children` (Linux 4.12). The children of the
    /// thread then begin where they did before.
    pub(crate) fn enter(namespace: BorrowedFd<'_>) -> io::Result<ChildrenElsewhere> {
        let before = File::open("/proc/thread-self/ns/pid_for_children")?;
        // What is needed to come back is tried first.
        set_for_children(before.as_fd())?;
        set_for_children(namespace)?;
        Ok(ChildrenElsewhere {
            before,
            has_left: false,
        })
    }

    /// Ends it.
    ///
    /// # Errors
    /// That of setns(2). The children of the thread then still begin in the other namespace.
    pub(crate) fn leave(mut self) -> io::Result<()> {
        self.has_left = true;
        self.try_to_leave()
    }

    fn try_to_leave(&self) -> io::Result<()> {
        let mut result = Ok(());
        for _ in 0..ATTEMPTS {
            result = set_for_children(self.before.as_fd());
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

impl Drop for ChildrenElsewhere {
    fn drop(&mut self) {
        if !self.has_left {
            let _error_of_a_failed_spawn = self.try_to_leave();
        }
    }
}

fn set_for_children(namespace: BorrowedFd<'_>) -> io::Result<()> {
    let args = [namespace.as_raw_fd() as usize, libc::CLONE_NEWPID as usize, 0, 0, 0, 0];
    // SAFETY: the arguments are numbers only, and the call changes where later children of this thread begin.
    match unsafe { arch::syscall(libc::SYS_setns, &args) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno.wrapping_neg() as c_int)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::common::refuse::{refuse, refusing};
    use crate::testing::common::root_or_skip;
    use crate::{Command, Namespace};

    #[test]
    fn a_descriptor_of_another_kind_and_a_refused_question_are_errors() {
        let namespace = File::open("/proc/self/ns/uts").unwrap();
        let kind = || kind_of(namespace.as_fd()).map_err(|error| error.raw_os_error());
        assert_eq!(kind(), Ok(libc::CLONE_NEWUTS));
        assert_eq!(refusing(libc::SYS_ioctl, libc::EPERM, kind), Err(Some(libc::EPERM)));
        // A device can give the request another meaning, and report success.
        assert_eq!(refusing(libc::SYS_ioctl, 0, kind), Err(Some(libc::ENOTTY)));
        let null = File::open("/dev/null").unwrap();
        assert_eq!(kind_of(null.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }

    #[test]
    fn the_children_of_a_thread_begin_elsewhere_until_it_leaves_or_the_value_is_dropped() {
        if !root_or_skip("a PID namespace") {
            return;
        }
        let command = Command::new("sleep").arg("1000").unshare(Namespace::Pid);
        let child = command.spawn().unwrap();
        let namespace = File::open(format!("/proc/{}/ns/pid", child.pid())).unwrap();
        let of_children = || fs::read_link("/proc/thread-self/ns/pid_for_children").unwrap();
        let body = move || {
            let before = of_children();
            for leaves in [true, false] {
                let elsewhere = ChildrenElsewhere::enter(namespace.as_fd()).unwrap();
                assert_ne!(of_children(), before);
                if leaves {
                    elsewhere.leave().unwrap();
                } else {
                    drop(elsewhere);
                }
                assert_eq!(of_children(), before);
            }
            let elsewhere = ChildrenElsewhere::enter(namespace.as_fd()).unwrap();
            refuse(libc::SYS_setns, libc::ENOMEM);
            assert_eq!(elsewhere.leave().unwrap_err().raw_os_error(), Some(libc::ENOMEM));
        };
        std::thread::spawn(body).join().unwrap();
    }
}
