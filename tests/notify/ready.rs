//! Readiness by a newline on a descriptor.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use pidherd::notify::{Readiness, ReadyFd};
use pidherd::{Command, Stdio};
use rustix::fs::OFlags;
use rustix::io::{FdFlags, ioctl_fionread};

use super::common::{SOON, isolated, wait_readable};

/// A pipe, and what the child would write to.
fn pipe() -> (ReadyFd, File) {
    let (ready, childs_end) = ReadyFd::pipe().unwrap();
    (ready, childs_end.into())
}

/// What a process comes to say that has this script and descriptor 3.
fn said_by(script: &str) -> Readiness {
    let (mut ready, childs_end) = ReadyFd::pipe().unwrap();
    let command = Command::new("/bin/sh").arg("-c").arg(script);
    let mut child = command
        .stdin(Stdio::piped())
        .fd(3, Stdio::from(childs_end))
        .spawn()
        .unwrap();
    let said = loop {
        assert!(wait_readable(&ready, SOON), "nothing came");
        match ready.read().unwrap() {
            Readiness::Waiting => {}
            said => break said,
        }
    };
    drop(child.stdin.take());
    child.wait().unwrap();
    said
}

#[test]
fn a_newline_anywhere_is_readiness() {
    isolated(|| {
        for text in ["\n", "up\n", "\nmore", "a\nb\nc", "\0\n"] {
            let (mut ready, mut child) = pipe();
            assert_eq!(ready.read().unwrap(), Readiness::Waiting);
            child.write_all(text.as_bytes()).unwrap();
            assert_eq!(ready.read().unwrap(), Readiness::Ready, "{text:?}");
            drop(child);
            assert_eq!(ready.read().unwrap(), Readiness::Ready, "what it said remains said");
        }
    });
}

#[test]
fn an_end_before_the_newline_is_none() {
    isolated(|| {
        for text in ["", "up", "\r", "\\n"] {
            let (mut ready, mut child) = pipe();
            child.write_all(text.as_bytes()).unwrap();
            assert_eq!(ready.read().unwrap(), Readiness::Waiting, "{text:?}");
            drop(child);
            assert_eq!(ready.read().unwrap(), Readiness::Closed, "{text:?}");
            assert_eq!(ready.read().unwrap(), Readiness::Closed);
        }
    });
}

#[test]
fn a_newline_and_an_end_at_once_are_a_newline() {
    isolated(|| {
        let (mut ready, mut child) = pipe();
        child.write_all(b"\n").unwrap();
        drop(child);
        assert_eq!(ready.read().unwrap(), Readiness::Ready);
    });
}

#[test]
fn a_flood_is_taken_in_portions_and_forgotten() {
    isolated(|| {
        let (mut ready, mut child) = pipe();
        rustix::io::ioctl_fionbio(&child, true).unwrap();
        while child.write(&[b'x'; 1000]).is_ok() {}
        let mut left = ioctl_fionread(&ready).unwrap();
        assert!(left > 10 * 4096, "a flood of {left} bytes is none");
        while left > 0 {
            assert_eq!(ready.read().unwrap(), Readiness::Waiting);
            let now = ioctl_fionread(&ready).unwrap();
            assert!(now < left && left - now <= 4096, "from {left} to {now} in one call");
            left = now;
        }
        assert_eq!(ready.read().unwrap(), Readiness::Waiting);
        child.write_all(&[b'x'; 5000]).unwrap();
        child.write_all(b"\n").unwrap();
        assert_eq!(ready.read().unwrap(), Readiness::Waiting);
        assert_eq!(ready.read().unwrap(), Readiness::Ready);
    });
}

#[test]
fn real_children_say_it_with_a_shells_means() {
    isolated(|| {
        assert_eq!(said_by("echo >&3; exec 3>&-; read x"), Readiness::Ready);
        assert_eq!(said_by("exec 3>&-; read x"), Readiness::Closed);
        assert_eq!(said_by("exit 1"), Readiness::Closed);
        assert_eq!(said_by("head -c 1000000 /dev/zero >&3; echo >&3"), Readiness::Ready);
        assert_eq!(said_by("head -c 1000000 /dev/zero >&3"), Readiness::Closed);
    });
}

#[test]
fn children_do_not_inherit_the_parents_end() {
    isolated(|| {
        let (ready, childs_end) = ReadyFd::pipe().unwrap();
        assert_eq!(rustix::io::fcntl_getfd(&ready), Ok(FdFlags::CLOEXEC));
        assert_eq!(rustix::io::fcntl_getfd(&childs_end), Ok(FdFlags::CLOEXEC));
        let nonblocking = |fd: &dyn AsFd| rustix::fs::fcntl_getfl(fd.as_fd()).unwrap().contains(OFlags::NONBLOCK);
        assert!(nonblocking(&ready));
        assert!(!nonblocking(&childs_end), "the child did not ask for that");
        let fd = OwnedFd::from(ready);
        assert!(nonblocking(&fd));
    });
}

#[test]
fn the_hosts_own_descriptor_will_do() {
    isolated(|| {
        let (here, mut there) = UnixStream::pair().unwrap();
        let mut ready = ReadyFd::new(here.into()).unwrap();
        assert_eq!(ready.read().unwrap(), Readiness::Waiting);
        there.write_all(b"\n").unwrap();
        assert_eq!(ready.read().unwrap(), Readiness::Ready);
    });
}
