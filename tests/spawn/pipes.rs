//! Pipes at any number, and streams that are copies of others.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use pidherd::{Child, Command, CommandError, Pipe, SpawnStep, Spawner, Stdio};

use crate::common::isolated;
use crate::helpers::{fd_flags, read_to_end, sh};
use crate::in_flight::{finish, running};

/// Starts it once waiting and once in flight.
fn both_ways(command: &Command, check: impl Fn(Child)) {
    let mut spawner = Spawner::new().unwrap();
    let program = command.compile().unwrap();
    check(spawner.spawn(&program).unwrap());
    let begun = spawner.begin(&program).unwrap();
    check(running(finish(&mut spawner, begun)));
}

#[test]
fn a_child_has_any_number_of_pipes() {
    isolated(|| {
        // 40 is too high for the short way of passing descriptors, and 24 are more than a spawner has slots for.
        for numbers in [vec![9], vec![5, 3], (3..27).rev().collect(), vec![3, 40, 7]] {
            let echo = |number: &i32| format!("echo {number} >&{number};");
            let script = numbers.iter().map(echo).collect::<String>() + "read last; echo $last";
            let command = Command::new("/bin/bash")
                .arg("-c")
                .arg(script)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            let command = numbers
                .iter()
                .fold(command, |command, &number| command.fd(number, Stdio::piped()));
            both_ways(&command, |mut child| {
                assert!(child.take_pipe(77).is_none() && child.pipe(77).is_none());
                let last = *numbers.last().unwrap();
                assert_eq!(
                    child.pipe(last).map(|end| end.as_raw_fd()),
                    child.extra.as_ref().map(AsRawFd::as_raw_fd)
                );
                File::from(child.take_pipe(0).unwrap()).write_all(b"end\n").unwrap();
                for &number in &numbers {
                    let number_here = child.pipe(number).unwrap().as_raw_fd();
                    assert_eq!(fd_flags(number_here), Some(libc::FD_CLOEXEC));
                    let end = child.take_pipe(number).unwrap();
                    assert_eq!(end.as_raw_fd(), number_here);
                    assert_eq!(read_to_end(end), format!("{number}\n"));
                    assert!(child.take_pipe(number).is_none() && child.pipe(number).is_none());
                }
                assert!(child.extra.is_none());
                assert_eq!(read_to_end(child.take_pipe(1).unwrap()), "end\n");
                assert!(child.wait().unwrap().exit.success());
            });
        }
    });
}

#[test]
fn a_standard_stream_is_taken_by_its_number() {
    isolated(|| {
        let command = sh("cat; echo error >&2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let talk = |take: &mut dyn FnMut(i32) -> Option<OwnedFd>| {
            File::from(take(0).unwrap()).write_all(b"text").unwrap();
            assert_eq!(read_to_end(take(1).unwrap()), "text");
            assert_eq!(read_to_end(take(2).unwrap()), "error\n");
            assert!((0..3).all(|number| take(number).is_none()));
        };
        both_ways(&command, |mut child| {
            talk(&mut |number| child.take_pipe(number));
            assert!(child.wait().unwrap().exit.success());
        });
        both_ways(&command, |child| {
            let (pidfd, mut pipes) = child.into_parts();
            talk(&mut |number| pipes.take(number));
            while pidfd.reap().unwrap().is_none() {
                std::thread::yield_now();
            }
        });
    });
}

#[test]
fn the_pipes_of_a_child_are_taken_out_with_their_numbers() {
    isolated(|| {
        let command = sh("cat <&4 >&6; cat <&5 >&6")
            .fd(4, Pipe::new().to_child())
            .fd(6, Stdio::piped());
        let command = command.fd(5, Pipe::new().to_child()).stderr(Stdio::piped());
        both_ways(&command, |child| {
            let (pidfd, mut pipes) = child.into_parts();
            assert_eq!(pipes.targets(), [2, 4, 5, 6]);
            for (number, text) in [(5, "five"), (4, "four,")] {
                File::from(pipes.take(number).unwrap())
                    .write_all(text.as_bytes())
                    .unwrap();
            }
            assert_eq!(pipes.targets(), [2, 6]);
            assert_eq!(read_to_end(pipes.take(6).unwrap()), "four,five");
            drop(pipes);
            while pidfd.reap().unwrap().is_none() {
                std::thread::yield_now();
            }
        });
    });
}

#[test]
fn only_the_hosts_end_is_non_blocking() {
    isolated(|| {
        let nonblocking = || Pipe::new().nonblocking(true);
        let script = "for n in 0 1 2 3 4; do grep flags /proc/self/fdinfo/$n >&5; done; read go";
        let command = sh(script)
            .stdin(nonblocking())
            .stdout(nonblocking())
            .stderr(nonblocking())
            .fd(3, nonblocking().to_child())
            .fd(4, nonblocking())
            .fd(5, Stdio::piped());
        both_ways(&command, |mut child| {
            for number in [1, 2, 4] {
                let error = rustix::io::read(child.pipe(number).unwrap(), &mut [0; 8]).unwrap_err();
                assert_eq!(error, rustix::io::Errno::AGAIN, "{number}");
            }
            for number in [0, 3, 5] {
                let flags = rustix::fs::fcntl_getfl(child.pipe(number).unwrap()).unwrap();
                assert_eq!(flags.contains(rustix::fs::OFlags::NONBLOCK), number != 5, "{number}");
            }
            drop(child.take_pipe(0));
            let flags = read_to_end(child.take_pipe(5).unwrap());
            let flags: Vec<i32> = flags
                .lines()
                .map(|line| i32::from_str_radix(line[6..].trim(), 8).unwrap())
                .collect();
            assert!(
                flags.len() == 5 && flags.iter().all(|flags| flags & libc::O_NONBLOCK == 0),
                "{flags:?}"
            );
            child.wait().unwrap();
        });
    });
}

#[test]
fn a_pipe_to_the_child_cannot_be_a_stream_that_it_writes_to() {
    let pipe = || Pipe::new().to_child();
    for (target, command) in [(1, sh("").stdout(pipe())), (2, sh("").stderr(pipe()))] {
        assert_eq!(command.compile().unwrap_err(), CommandError::PipeDirection { target });
    }
    assert!(sh("").stdin(pipe()).compile().is_ok());
    let error = CommandError::PipeDirection { target: 1 };
    assert_eq!(
        error.to_string(),
        "a pipe to the child cannot be its stdout: the child writes to that stream"
    );
    assert_eq!(Stdio::from(Pipe::new()), Stdio::piped());
}

#[test]
fn streams_can_be_copies_of_one_another_in_either_direction() {
    isolated(|| {
        let script = "echo 1; echo 2 >&2; echo 5 >&5; echo 6 >&6";
        let passed = |command: Command| command.fd(5, Stdio::stdout()).fd(6, Stdio::stderr());
        let to_stderr = passed(sh(script).stdout(Stdio::stderr()).stderr(Stdio::piped()));
        both_ways(&to_stderr, |mut child| {
            assert_eq!(read_to_end(child.stderr.take().unwrap()), "1\n2\n5\n6\n");
            assert!(child.stdout.is_none() && child.wait().unwrap().exit.success());
        });
        let to_stdout = passed(sh(script).stderr(Stdio::stdout()).stdout(Stdio::piped()));
        both_ways(&to_stdout, |mut child| {
            assert_eq!(read_to_end(child.stdout.take().unwrap()), "1\n2\n5\n6\n");
            child.wait().unwrap();
        });
        let itself = passed(sh(script).stdout(Stdio::piped()).stderr(Stdio::piped()));
        both_ways(&itself, |mut child| {
            assert_eq!(read_to_end(child.stdout.take().unwrap()), "1\n5\n");
            assert_eq!(read_to_end(child.stderr.take().unwrap()), "2\n6\n");
            child.wait().unwrap();
        });
        // A stream that is a copy of itself is the host's.
        let own = sh("test /proc/self/fd/1 -ef /proc/$PPID/fd/1 && test /proc/self/fd/2 -ef /proc/$PPID/fd/2");
        let own = own.stdout(Stdio::stdout()).stderr(Stdio::stderr());
        assert!(own.status().unwrap().exit.success());
        // Standard input is a copy of a copy.
        let odd = sh("echo up >&0")
            .stdin(Stdio::stdout())
            .stdout(Stdio::stderr())
            .stderr(Stdio::piped());
        both_ways(&odd, |mut child| {
            assert_eq!(read_to_end(child.stderr.take().unwrap()), "up\n");
            child.wait().unwrap();
        });
    });
}

#[test]
fn a_circle_of_copies_is_refused() {
    let circle = sh("").stdout(Stdio::stderr()).stderr(Stdio::stdout());
    assert_eq!(circle.compile().unwrap_err(), CommandError::StreamCycle);
    assert_eq!(circle.spawn().unwrap_err().step(), SpawnStep::Check);
    // The host's own streams may be exchanged.
    assert!(
        sh("")
            .stdout(io::stderr())
            .stderr(io::stdout())
            .status()
            .unwrap()
            .exit
            .success()
    );
}

#[test]
fn a_copy_of_a_stream_that_is_closed_is_an_error() {
    isolated(|| {
        let closed = |number: i32| {
            // SAFETY: this process's own stream; it is put back below.
            let saved = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) }
                .try_clone_to_owned()
                .unwrap();
            // SAFETY: as above.
            assert_eq!(unsafe { libc::close(number) }, 0);
            saved
        };
        let saved = closed(2);
        let refused = sh("").stdout(Stdio::stderr()).spawn().map(drop);
        let refused_too = sh("").fd(9, Stdio::stderr()).spawn().map(drop);
        let fine = sh("")
            .stdout(Stdio::stderr())
            .stderr(Stdio::null())
            .status()
            .map(|record| record.exit);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::dup2(saved.as_raw_fd(), 2) }, 2);
        for (refused, number) in [(refused, "1"), (refused_too, "9")] {
            let error = refused.unwrap_err();
            assert_eq!((error.step(), error.errno()), (SpawnStep::Descriptor, libc::EBADF));
            assert_eq!(error.subject().as_deref(), Some(number));
        }
        assert!(fine.unwrap().success());
    });
}

/// A shortage in the middle leaves none of the pipes.
#[test]
fn a_shortage_among_many_pipes_leaves_none() {
    isolated(|| {
        let command = (3..23).fold(sh(""), |command, number| command.fd(number, Stdio::piped()));
        let mut spawner = Spawner::new().unwrap();
        let program = command.compile().unwrap();
        let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = count();
        let mut taken: Vec<Arc<OwnedFd>> = Vec::new();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let low = rustix::process::Rlimit {
            current: Some(before as u64 + 30),
            ..limit
        };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, low).unwrap();
        while taken.len() < 12 {
            taken.push(Arc::new(File::open("/dev/null").unwrap().into()));
        }
        let held = count();
        let error = spawner.spawn(&program).unwrap_err();
        assert_eq!((error.step(), error.errno()), (SpawnStep::Pipe, libc::EMFILE));
        assert_eq!(count(), held);
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
        drop(taken);
        assert!(spawner.spawn(&program).unwrap().wait().unwrap().exit.success());
        assert_eq!(count(), before);
        let mut text = String::new();
        let mut child = sh("echo x >&9")
            .fd(9, Stdio::piped())
            .fd(10, Stdio::piped())
            .spawn()
            .unwrap();
        File::from(child.take_pipe(9).unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "x\n");
        child.wait().unwrap();
    });
}
