//! The features of the running kernel that the library can use. Each feature is tried without the library. A version
//! number would not be enough, because of backports and seccomp filters.
//!
//! `cargo test --test kernel_features -- --nocapture` prints the features. `ci/kernels` prints a table of them for
//! several kernels. It sets `PIDHERD_TEST_MAINLINE=1`, which states that the kernel has no backports; then the features
//! must agree with the versions in the library's documentation.

mod common;

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use common::{SOON, TestCgroup, isolated, kernel_since, skipped, test_cgroup, wait_readable};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Flags of clone3(2) that libc lacks, or has as a c_int, in which they overflow.
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CLONE_INTO_CGROUP: u64 = 1 << 33;
const CLONE_AUTOREAP: u64 = 1 << 34;
const CLONE_NNP: u64 = 1 << 35;
const CLONE_PIDFD_AUTOKILL: u64 = 1 << 36;
/// The size of `struct clone_args` in Linux 5.3, without the fields that came later.
const CLONE_ARGS_SIZE_FIRST: usize = 64;
/// close_range(2), the number on every architecture.
const SYS_CLOSE_RANGE: libc::c_long = 436;
const CLOSE_RANGE_UNSHARE: libc::c_ulong = 2;

/// The result of a feature's probe. The error is the kernel's refusal.
type Answer = io::Result<()>;

/// A feature: its name, the first mainline version that has it, and its probe.
type Feature = (&'static str, (u32, u32), fn(&TestCgroup) -> Answer);

const FEATURES: &[Feature] = &[
    ("clone3", (5, 3), has_clone3),
    ("CLONE_CLEAR_SIGHAND", (5, 5), has_clear_sighand),
    ("CLONE_INTO_CGROUP", (5, 7), has_into_cgroup),
    ("CLOSE_RANGE_UNSHARE", (5, 9), has_close_range_unshare),
    ("cgroup.kill", (5, 14), has_cgroup_kill),
    ("PIDFD_SIGNAL_PROCESS_GROUP", (6, 9), has_group_signals),
    ("EPOLLHUP of a reaped pidfd", (6, 9), has_hangup_when_reaped),
    ("PIDFD_GET_INFO", (6, 13), has_info),
    ("PIDFD_INFO_EXIT", (6, 15), has_exit_info),
    ("CLONE_PIDFD_AUTOKILL", (7, 1), has_autokill),
];

#[test]
fn the_kernel_has_what_its_version_promises() {
    isolated(|| {
        let Some(cgroup) = test_cgroup() else { return };
        let is_mainline = std::env::var_os("PIDHERD_TEST_MAINLINE").is_some();
        let mut wrong = Vec::new();
        println!();
        for &(name, (major, minor), probe) in FEATURES {
            let answer = probe(&cgroup);
            let word = if answer.is_ok() { "yes" } else { "no" };
            println!("feature: {name} | {major}.{minor} | {word}");
            if is_mainline && answer.is_ok() != kernel_since(major, minor) {
                wrong.push(format!("{name}, since {major}.{minor}: {answer:?}"));
            }
        }
        if !is_mainline {
            skipped(
                "compares versions only with PIDHERD_TEST_MAINLINE, because kernels of distributions have backports",
            );
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

fn has_clone3(_: &TestCgroup) -> Answer {
    Probe::plain().start()?.reap()
}

fn has_clear_sighand(_: &TestCgroup) -> Answer {
    Probe::with(CLONE_CLEAR_SIGHAND).start()?.reap()
}

fn has_into_cgroup(cgroup: &TestCgroup) -> Answer {
    let directory = File::open(cgroup.path())?;
    let mut probe = Probe::with(CLONE_INTO_CGROUP);
    probe.args.cgroup = directory.as_raw_fd() as u64;
    probe.start()?.reap()
}

/// The call runs in a child, so that this process keeps its descriptor table.
fn has_close_range_unshare(_: &TestCgroup) -> Answer {
    let does = || close_range_unshare() == 0;
    Probe::plain().running(does).start()?.reap()
}

fn close_range_unshare() -> libc::c_long {
    let (first, last) = (libc::c_ulong::from(u32::MAX), libc::c_ulong::from(u32::MAX));
    // SAFETY: numbers only; no descriptor has so high a number.
    unsafe { libc::syscall(SYS_CLOSE_RANGE, first, last, CLOSE_RANGE_UNSHARE) }
}

fn has_cgroup_kill(cgroup: &TestCgroup) -> Answer {
    std::fs::write(cgroup.path().join("cgroup.kill"), "1")
}

/// The child leads a new process group and waits. A signal to the group ends it.
fn has_group_signals(_: &TestCgroup) -> Answer {
    let child = Probe::plain().running(wait_for_signal).start()?;
    // SAFETY: numbers only; the child has not executed a program.
    let grouped = unsafe { libc::setpgid(child.pid, child.pid) };
    let sent = if grouped == 0 {
        child.signal(libc::SIGKILL, libc::PIDFD_SIGNAL_PROCESS_GROUP)
    } else {
        Err(io::Error::last_os_error())
    };
    child.signal(libc::SIGKILL, 0)?;
    child.reap_killed()?;
    sent
}

/// Waits for a signal that ends the process.
fn wait_for_signal() -> bool {
    loop {
        // SAFETY: takes nothing.
        unsafe { libc::pause() };
    }
}

fn has_hangup_when_reaped(_: &TestCgroup) -> Answer {
    let child = Probe::plain().start()?;
    child.reap()?;
    let mut fds = [PollFd::new(&child.pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default()))?;
    expected(fds[0].revents().contains(PollFlags::HUP))
}

fn has_info(_: &TestCgroup) -> Answer {
    let child = Probe::plain().start()?;
    let info = child.info(libc::PIDFD_INFO_PID);
    child.reap()?;
    expected(info?.pid == child.pid as u32)
}

fn has_exit_info(_: &TestCgroup) -> Answer {
    let child = Probe::plain().running(|| false).start()?;
    let _status = child.wait()?;
    let info = child.info(libc::PIDFD_INFO_EXIT)?;
    expected(info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0 && libc::WEXITSTATUS(info.exit_code) == 1)
}

/// The child waits, and ends when its pidfd is closed. A duplicate of the pidfd would keep the child alive; a pidfd
/// from pidfd_open(2) does not.
fn has_autokill(_: &TestCgroup) -> Answer {
    let mut probe = Probe::with(CLONE_PIDFD_AUTOKILL | CLONE_AUTOREAP | CLONE_NNP).running(wait_for_signal);
    probe.args.exit_signal = 0;
    let child = probe.start()?;
    // SAFETY: numbers only.
    let other = unsafe { libc::syscall(libc::SYS_pidfd_open, child.pid, 0) };
    if other < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor.
    let other = unsafe { OwnedFd::from_raw_fd(other as i32) };
    drop(child);
    expected(wait_readable(&other, SOON))
}

fn expected(is_so: bool) -> Answer {
    if is_so {
        Ok(())
    } else {
        Err(io::Error::other("the kernel accepts the flag, and it has no effect"))
    }
}

/// A child to be made by clone3(2), as fork(2) would make it. Its exit status is 0 if `body` succeeds.
struct Probe {
    args: libc::clone_args,
    body: fn() -> bool,
}

impl Probe {
    fn plain() -> Probe {
        Probe::with(0)
    }

    fn with(flags: u64) -> Probe {
        // SAFETY: all fields are numbers, and zeros are valid: nothing is requested.
        let mut args: libc::clone_args = unsafe { mem::zeroed() };
        args.flags = flags | libc::CLONE_PIDFD as u64;
        args.exit_signal = libc::SIGCHLD as u64;
        Probe { args, body: || true }
    }

    fn running(self, body: fn() -> bool) -> Probe {
        Probe { body, ..self }
    }

    fn start(mut self) -> io::Result<Started> {
        let mut pidfd: i32 = -1;
        self.args.pidfd = (&raw mut pidfd).expose_provenance() as u64;
        let size = if self.args.cgroup == 0 {
            CLONE_ARGS_SIZE_FIRST
        } else {
            mem::size_of_val(&self.args)
        };
        // SAFETY: without CLONE_VM it is a fork, and the child makes system calls only.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const self.args, size) };
        if pid == 0 {
            let done = (self.body)();
            // SAFETY: the call does not return.
            unsafe { libc::_exit(i32::from(!done)) };
        }
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Started {
            pid: pid as libc::pid_t,
            // SAFETY: the kernel just made this descriptor.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        })
    }
}

struct Started {
    pid: libc::pid_t,
    pidfd: OwnedFd,
}

impl Started {
    fn wait(&self) -> io::Result<i32> {
        let mut status = 0;
        // SAFETY: the status is a local.
        if unsafe { libc::waitpid(self.pid, &raw mut status, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(status)
    }

    /// Reaps the child. Fails if its exit status is not 0.
    fn reap(&self) -> Answer {
        match self.wait()? {
            0 => Ok(()),
            status => Err(io::Error::other(format!("the child's wait status is {status:#x}"))),
        }
    }

    fn reap_killed(&self) -> Answer {
        let status = self.wait()?;
        expected(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL)
    }

    fn signal(&self, signal: i32, flags: u32) -> Answer {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a live descriptor, numbers, and a null siginfo, which is allowed.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                signal,
                no_info,
                flags,
            )
        };
        if sent == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn info(&self, what: u32) -> io::Result<libc::pidfd_info> {
        // SAFETY: all fields are numbers, and zeros are valid: nothing is requested.
        let mut info: libc::pidfd_info = unsafe { mem::zeroed() };
        info.mask = u64::from(what);
        // SAFETY: the request carries the structure's size, and the structure is a local.
        let asked = unsafe { libc::ioctl(self.pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
        if asked == 0 {
            Ok(info)
        } else {
            Err(io::Error::last_os_error())
        }
    }
}
