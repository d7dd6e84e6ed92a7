//! What a pidfd tells before, at and after the end of its process.

mod common;

use std::os::fd::AsFd;
use std::time::Duration;

use pidherd::exit::Exit;
use pidherd::signal::Signal;
use pidherd::{Command, PidFd, Stdio};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use common::fork::in_fork;
use common::{isolated, root_or_skip, skipped};

fn start(script: &str) -> PidFd {
    Command::new("/bin/sh")
        .arg("-c")
        .arg(script)
        .process_group(0)
        .spawn()
        .unwrap()
        .into_pidfd()
}

fn readable(pidfd: &PidFd, timeout: Duration) -> bool {
    let timeout = Timespec::try_from(timeout).unwrap();
    let fd = pidfd.as_fd();
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() == 1
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn readable_when_it_ended_and_from_then_on() {
    let pidfd = start("exec sleep 1000");
    assert!(!readable(&pidfd, Duration::ZERO));
    assert_eq!(
        (pidfd.peek().unwrap().map(|record| record.exit), pidfd.reap().unwrap()),
        (None, None)
    );
    pidfd.signal(Signal::TERM).unwrap();
    assert!(readable(&pidfd, LONG));
    let end = Exit::Signal {
        signal: Signal::TERM,
        core: false,
    };
    assert_eq!(
        (
            pidfd.peek().unwrap().map(|record| record.exit),
            pidfd.peek().unwrap().map(|record| record.exit)
        ),
        (Some(end), Some(end))
    );
    pidfd.signal(Signal::KILL).unwrap();
    let record = pidfd.reap().unwrap().unwrap();
    assert_eq!((record.exit, record.pid), (end, pidfd.pid()));
    assert!(record.usage.unwrap().max_rss > 0);
    assert!(readable(&pidfd, Duration::ZERO));
    assert_eq!(
        pidfd.signal(Signal::KILL).unwrap_err().raw_os_error(),
        Some(libc::ESRCH)
    );
}

#[test]
fn reaping_twice_and_peeking_after_it_is_harmless() {
    let pidfd = start("exit 7");
    assert!(readable(&pidfd, LONG));
    assert_eq!(pidfd.reap().unwrap().unwrap().exit, Exit::Code(7));
    let again = pidfd.reap().unwrap().unwrap();
    assert!(matches!(again.exit, Exit::Code(7) | Exit::Unknown), "{again:?}");
    assert_eq!(again.usage, None);
    assert!(matches!(
        pidfd.peek().unwrap().map(|record| record.exit),
        Some(Exit::Code(7) | Exit::Unknown)
    ));
}

#[test]
fn reaped_elsewhere() {
    for (script, exit) in [
        ("exit 9", Exit::Code(9)),
        (
            "kill -KILL $$",
            Exit::Signal {
                signal: Signal::KILL,
                core: false,
            },
        ),
    ] {
        let pidfd = start(script);
        let pid = i32::try_from(pidfd.pid().as_raw()).unwrap();
        // SAFETY: waits for a child of ours, without wanting its status.
        assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
        let peeked = pidfd.peek().unwrap().map(|record| record.exit).unwrap();
        assert!(peeked == exit || peeked == Exit::Unknown, "{peeked:?}");
        assert_eq!(pidfd.reap().unwrap().unwrap().exit, peeked);
    }
}

#[test]
fn a_group_outlives_its_leader() {
    isolated(|| {
        // The remaining processes belong to the group until they are reaped, and not every init reaps them.
        rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).unwrap();
        let child = Command::new("/bin/sh")
            .arg("-c")
            .arg("sleep 1000 >/dev/null & echo $!")
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let (leader, pipes) = child.into_parts();
        let said = std::io::read_to_string(std::fs::File::from(pipes.stdout.unwrap())).unwrap();
        let left = rustix::process::Pid::from_raw(said.trim().parse().unwrap()).unwrap();
        assert!(readable(&leader, LONG));
        assert!(leader.reap().unwrap().unwrap().exit.success());
        let reap = || rustix::process::waitpid(Some(left), rustix::process::WaitOptions::empty());
        match leader.signal_group(None) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                skipped("it needs Linux 6.9");
                rustix::process::kill_process(left, rustix::process::Signal::KILL).unwrap();
                reap().unwrap();
            }
            result => {
                result.unwrap();
                leader.signal_group(Some(Signal::KILL)).unwrap();
                reap().unwrap();
                assert_eq!(leader.signal_group(None).unwrap_err().raw_os_error(), Some(libc::ESRCH));
            }
        }
        rustix::process::set_child_subreaper(None).unwrap();
    });
}

#[test]
fn every_code() {
    for code in 0..=255u8 {
        let pidfd = start(&format!("exit {code}"));
        assert!(readable(&pidfd, LONG));
        assert_eq!(pidfd.reap().unwrap().unwrap().exit, Exit::Code(code));
    }
}

#[test]
fn a_second_wait_for_a_child_returns_the_same_status() {
    let mut child = Command::new("/bin/sh").args(["-c", "exit 3"]).spawn().unwrap();
    let record = child.wait().unwrap();
    assert_eq!(
        (child.wait().unwrap(), child.try_wait().unwrap()),
        (record, Some(record))
    );
    child.kill().unwrap();
}

#[test]
fn a_child_is_waited_for_no_longer_than_that() {
    let mut child = Command::new("/bin/cat").stdin(Stdio::piped()).spawn().unwrap();
    assert_eq!(child.wait_timeout(Duration::ZERO).unwrap(), None);
    assert_eq!(child.wait_timeout(Duration::from_millis(1)).unwrap(), None);
    assert!(child.stdin.is_some(), "it is not closed, or it would have ended");
    child.kill().unwrap();
    let record = child.wait_timeout(Duration::MAX).unwrap().unwrap();
    assert_eq!(record.exit.signal(), Some(Signal::KILL));
    assert_eq!(child.wait_timeout(Duration::ZERO).unwrap(), Some(record));
}

#[test]
fn a_pidfd_is_opened_by_the_number_of_a_process() {
    isolated(|| {
        let child = start("exit 5");
        let opened = PidFd::open(child.pid().as_raw()).unwrap();
        assert_eq!(opened.pid(), child.pid());
        assert!(readable(&opened, LONG));
        // It is a child of this process, so it can be reaped through either.
        assert_eq!(opened.reap().unwrap().unwrap().exit, Exit::Code(5));
        for number in [0, child.pid().as_raw(), i32::MAX as u32 + 1, u32::MAX] {
            assert_eq!(
                PidFd::open(number).unwrap_err().raw_os_error(),
                Some(libc::ESRCH),
                "{number}"
            );
        }
    });
}

#[test]
fn a_pidfd_of_a_process_that_is_no_child_sees_its_end() {
    isolated(|| {
        let mut parent = Command::new("/bin/sh")
            .args(["-c", "sleep 1000 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = std::fs::File::from(parent.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        let grandchild = PidFd::open(line.trim().parse().unwrap()).unwrap();
        assert_eq!(grandchild.peek().unwrap(), None);
        grandchild.signal(Signal::KILL).unwrap();
        assert!(readable(&grandchild, LONG));
        assert!(parent.wait().unwrap().exit.code().is_some());
        common::wait_until("its parent has reaped it", LONG, || {
            grandchild.peek().unwrap().is_some()
        });
        let exit = grandchild.reap().unwrap().unwrap().exit;
        let known = exit.signal() == Some(Signal::KILL);
        assert!(
            known || (exit == Exit::Unknown && !common::kernel_since(6, 15)),
            "{exit}"
        );
    });
}

#[test]
fn a_pidfd_from_elsewhere_is_taken_over_and_another_descriptor_is_given_back() {
    isolated(|| {
        let child = start("read never");
        let copy = child.as_fd().try_clone_to_owned().unwrap();
        rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty()).unwrap();
        let taken = PidFd::try_from(copy).unwrap();
        assert_eq!(taken.pid(), child.pid());
        assert_eq!(rustix::io::fcntl_getfd(&taken), Ok(rustix::io::FdFlags::CLOEXEC));
        taken.signal(Signal::KILL).unwrap();
        assert!(readable(&taken, LONG));
        // A zombie still has its number.
        let copy = taken.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(PidFd::try_from(copy).unwrap().pid(), child.pid());
        child.reap().unwrap().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
        let mut threads = Vec::new();
        // PIDFD_THREAD, Linux 6.9.
        let flags = rustix::process::PidfdFlags::from_bits_retain(libc::O_EXCL as u32);
        if let Ok(thread) = rustix::process::pidfd_open(rustix::process::getpid(), flags) {
            threads.push((thread, libc::EINVAL));
        }
        for (fd, errno) in threads.into_iter().chain([
            (std::os::fd::OwnedFd::from(taken), libc::ESRCH),
            (null.into(), libc::EBADF),
            (epoll, libc::EBADF),
        ]) {
            let number = std::os::fd::AsRawFd::as_raw_fd(&fd);
            let refused = PidFd::try_from(fd).unwrap_err();
            assert_eq!(refused.errno(), errno, "{refused}");
            let text = format!("descriptor {number} cannot be used as the pidfd of a process: ");
            assert!(refused.to_string().starts_with(&text), "{refused}");
            assert_eq!(std::os::fd::AsRawFd::as_raw_fd(&refused.into_fd()), number);
        }
    });
}

#[test]
fn a_process_of_another_pid_namespace_is_not_reported_as_reaped() {
    if !root_or_skip("a PID namespace") {
        return;
    }
    isolated(|| {
        let outside = PidFd::open(std::process::id()).unwrap();
        assert!(in_fork(|| {
            // SAFETY: the call concerns the later children of this copy of the process.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWPID) }, 0);
            assert!(in_fork(|| {
                assert_eq!(std::process::id(), 1);
                let refused = PidFd::try_from(outside.as_fd().try_clone_to_owned().unwrap()).unwrap_err();
                assert_eq!(refused.errno(), libc::EREMOTE, "{refused}");
            }));
        }));
    });
}
