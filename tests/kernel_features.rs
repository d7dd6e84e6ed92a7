//! The features of the running kernel that the library can use. Each feature is tried without the library. A version
//! number would not be enough, because of backports and seccomp filters.
//!
//! `cargo test --test kernel_features -- --nocapture` prints the features. `ci/kernels` compares them on several kernels
//! with the table in the guide, and `ci/kernels --guide` writes that table. It sets `PIDHERD_TEST_MAINLINE=1`, which
//! states that the kernel has no backports; then the features must agree with the versions in the table.

mod common;

use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use common::{SOON, TestCgroup, isolated, kernel_since, skipped, test_cgroup, wait_readable};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{WaitId, WaitIdOptions, waitid};

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
const CLOSE_RANGE_CLOEXEC: libc::c_ulong = 4;
const F_DUPFD_QUERY: libc::c_int = 1024 + 3;
const SO_PASSPIDFD: libc::c_int = 76;

/// The result of a feature's probe. The error is the kernel's refusal.
type Answer = io::Result<()>;

struct Feature {
    name: &'static str,
    /// What the library uses the feature for.
    used: &'static str,
    /// The first mainline version with the feature.
    since: (u32, u32),
    /// What the library does on an older kernel.
    before: &'static str,
    probe: fn(&TestCgroup) -> Answer,
}

impl Feature {
    fn since(&self) -> String {
        let (major, minor) = self.since;
        format!("{major}.{minor}")
    }

    fn is_expected(&self) -> bool {
        let (major, minor) = self.since;
        kernel_since(major, minor)
    }
}

/// The features in the order of their versions. The texts are a part of the guide.
const FEATURES: &[Feature] = &[
    Feature {
        name: "cgroup.freeze",
        used: "suspending a cgroup",
        since: (5, 2),
        before: "not supported",
        probe: has_freeze,
    },
    Feature {
        name: "clone3(2)",
        used: "a start for which the host does not wait",
        since: (5, 3),
        before: "the host waits for the execve",
        probe: has_clone3,
    },
    Feature {
        name: "waitid(P_PIDFD)",
        used: "waiting for one process, without its PID",
        since: (5, 4),
        before: "not supported",
        probe: has_waitid,
    },
    Feature {
        name: "CLONE_CLEAR_SIGHAND",
        used: "a process without the host's signal handlers",
        since: (5, 5),
        before: "the child resets each handler",
        probe: has_clear_sighand,
    },
    Feature {
        name: "CLONE_INTO_CGROUP",
        used: "a process that starts in its cgroup",
        since: (5, 7),
        before: "the child enters the cgroup before it runs its program",
        probe: has_into_cgroup,
    },
    Feature {
        name: "close_range(2)",
        used: "a process without the host's descriptors",
        since: (5, 9),
        before: "the child closes descriptors one by one",
        probe: has_close_range_unshare,
    },
    Feature {
        name: "CLOSE_RANGE_CLOEXEC",
        used: "a program in place of the host, without its descriptors",
        since: (5, 11),
        before: "the descriptors are marked one by one",
        probe: has_close_range_cloexec,
    },
    Feature {
        name: "cgroup.kill",
        used: "the end of all processes of a cgroup",
        since: (5, 14),
        before: "SIGKILL to each process of the list, until it is empty",
        probe: has_cgroup_kill,
    },
    Feature {
        name: "oom_group_kill",
        used: "whether the kernel killed a whole cgroup for its memory",
        since: (5, 17),
        before: "derived from `memory.oom.group` and the number of kills",
        probe: has_oom_group_kill,
    },
    Feature {
        name: "memory.peak",
        used: "the largest amount of memory of a run",
        since: (5, 19),
        before: "unknown",
        probe: has_memory_peak,
    },
    Feature {
        name: "pids.peak",
        used: "the largest number of processes of a run",
        since: (6, 1),
        before: "unknown",
        probe: has_pids_peak,
    },
    Feature {
        name: "MFD_NOEXEC_SEAL",
        used: "a file for a hand-over that no process can execute",
        since: (6, 3),
        before: "the same file, which could be executed",
        probe: has_noexec_seal,
    },
    Feature {
        name: "SO_PASSPIDFD",
        used: "whether the sender of a message still has its PID",
        since: (6, 5),
        before: "it is assumed to have it",
        probe: has_passpidfd,
    },
    Feature {
        name: "PIDFD_SIGNAL_PROCESS_GROUP",
        used: "signals to a process group through a pidfd",
        since: (6, 9),
        before: "the leader stays a zombie meanwhile",
        probe: has_group_signals,
    },
    Feature {
        name: "F_DUPFD_QUERY",
        used: "whether a descriptor is a copy of one that is stored",
        since: (6, 10),
        before: "kcmp(2), if the kernel has it; else both are stored",
        probe: has_dupfd_query,
    },
    Feature {
        name: "PIDFD_GET_INFO",
        used: "taking over processes without `/proc`",
        since: (6, 13),
        before: "`/proc` is needed",
        probe: has_info,
    },
    Feature {
        name: "PIDFD_INFO_EXIT",
        used: "the exit status of a process that is not a child",
        since: (6, 15),
        before: "unknown",
        probe: has_exit_info,
    },
    Feature {
        name: "CLONE_PIDFD_AUTOKILL",
        used: "children bound to the host by the kernel",
        since: (7, 1),
        before: "a typed error, or a parent-death signal by choice",
        probe: has_autokill,
    },
];

#[test]
fn the_kernel_has_what_its_version_promises() {
    isolated(|| {
        let Some(cgroup) = test_cgroup() else { return };
        let is_mainline = std::env::var_os("PIDHERD_TEST_MAINLINE").is_some();
        let mut wrong = Vec::new();
        println!();
        for feature in FEATURES {
            let answer = (feature.probe)(&cgroup);
            let (name, since) = (feature.name, feature.since());
            let word = if answer.is_ok() { "yes" } else { "no" };
            println!(
                "feature: {name} | {} | {since} | {word} | {}",
                feature.used, feature.before
            );
            if is_mainline && answer.is_ok() != feature.is_expected() {
                wrong.push(format!("{name}, since {since}: {answer:?}"));
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

/// The cells of the guide's table, without its two heading lines.
fn guide() -> Vec<Vec<String>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide/kernel_table.md");
    let text = fs::read_to_string(file).unwrap();
    let cells = |line: &str| {
        line.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    text.lines().skip(2).map(cells).collect()
}

/// What each kernel has is compared by `ci/kernels`, which runs these kernels.
#[test]
fn the_guide_lists_every_feature() {
    let table = guide();
    let rows: Vec<_> = table
        .iter()
        .map(|row| [&row[0], &row[1], &row[2], &row[row.len() - 1]])
        .collect();
    let features: Vec<_> = FEATURES
        .iter()
        .map(|feature| {
            [
                format!("`{}`", feature.name),
                feature.used.to_owned(),
                feature.since(),
                feature.before.to_owned(),
            ]
        })
        .collect();
    assert_eq!(
        rows,
        features.iter().map(|row| row.each_ref()).collect::<Vec<_>>(),
        "`bash ci/kernels --guide` writes the table"
    );
}

fn has_freeze(cgroup: &TestCgroup) -> Answer {
    fs::write(cgroup.path().join("cgroup.freeze"), "0")
}

/// Whether the file has a number. The root cgroup has no such file.
fn has_number(cgroup: &TestCgroup, file: &str) -> Answer {
    let text = fs::read_to_string(cgroup.path().join(file))?;
    expected(text.trim().parse::<u64>().is_ok())
}

fn has_oom_group_kill(cgroup: &TestCgroup) -> Answer {
    let text = fs::read_to_string(cgroup.path().join("memory.events"))?;
    expected(text.lines().any(|line| line.starts_with("oom_group_kill ")))
}

fn has_memory_peak(cgroup: &TestCgroup) -> Answer {
    has_number(cgroup, "memory.peak")
}

fn has_pids_peak(cgroup: &TestCgroup) -> Answer {
    has_number(cgroup, "pids.peak")
}

fn has_waitid(_: &TestCgroup) -> Answer {
    let child = Probe::plain().start()?;
    let waited = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
    if waited.is_err() {
        child.reap()?;
    }
    expected(waited?.and_then(|status| status.exit_status()) == Some(0))
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
    let does = || close_range_of_none(CLOSE_RANGE_UNSHARE) == 0;
    Probe::plain().running(does).start()?.reap()
}

fn has_close_range_cloexec(_: &TestCgroup) -> Answer {
    match close_range_of_none(CLOSE_RANGE_CLOEXEC) {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn close_range_of_none(flag: libc::c_ulong) -> libc::c_long {
    let (first, last) = (libc::c_ulong::from(u32::MAX), libc::c_ulong::from(u32::MAX));
    // SAFETY: numbers only; no descriptor has so high a number.
    unsafe { libc::syscall(SYS_CLOSE_RANGE, first, last, flag) }
}

fn has_noexec_seal(_: &TestCgroup) -> Answer {
    memfd_create("pidherd-test", MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL)?;
    Ok(())
}

fn has_cgroup_kill(cgroup: &TestCgroup) -> Answer {
    fs::write(cgroup.path().join("cgroup.kill"), "1")
}

fn has_passpidfd(_: &TestCgroup) -> Answer {
    let (socket, _other) = UnixDatagram::pair()?;
    let on: libc::c_int = 1;
    let size = mem::size_of_val(&on) as libc::socklen_t;
    // SAFETY: the option's value is an integer of this size, which outlives the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSPIDFD,
            (&raw const on).cast(),
            size,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn has_dupfd_query(_: &TestCgroup) -> Answer {
    let file = File::open("/dev/null")?;
    let copy = file.try_clone()?;
    // SAFETY: numbers only; the operation changes nothing.
    match unsafe { libc::fcntl(file.as_raw_fd(), F_DUPFD_QUERY, copy.as_raw_fd()) } {
        -1 => Err(io::Error::last_os_error()),
        answer => expected(answer == 1),
    }
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
        Err(io::Error::other("the kernel accepts the request, and it has no effect"))
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
