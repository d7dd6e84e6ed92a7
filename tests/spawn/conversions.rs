//! Types of the standard library, to and from those of the crate.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::process;

use pidherd::{Command, Exit, Stdio};

use crate::common::fork::in_fork;
use crate::common::{isolated, tempdir};
use crate::helpers::{output, read_to_end, sh};

fn wait(command: Command) -> Exit {
    command.spawn().unwrap().wait().unwrap().exit
}

#[test]
fn pipes_of_children_of_the_standard_library_connect_to_a_command() {
    isolated(|| {
        let piped = process::Stdio::piped;
        let mut sink = process::Command::new("cat")
            .stdin(piped())
            .stdout(piped())
            .spawn()
            .unwrap();
        let script = "echo out; echo err >&2";
        let mut source = process::Command::new("sh")
            .args(["-c", script])
            .stdout(piped())
            .stderr(piped())
            .spawn()
            .unwrap();
        let command = sh("cat; cat <&5")
            .stdin(source.stdout.take().unwrap())
            .fd(5, source.stderr.take().unwrap())
            .stdout(sink.stdin.take().unwrap());
        assert!(command.spawn().unwrap().wait().unwrap().exit.success());
        drop(command);
        let mut text = String::new();
        sink.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "out\nerr\n");
        assert!(source.wait().unwrap().success() && sink.wait().unwrap().success());
    });
}

#[test]
fn sockets_become_standard_streams() {
    isolated(|| {
        let directory = tempdir();
        let (mut own, other) = UnixStream::pair().unwrap();
        own.write_all(b"word\n").unwrap();
        let command = sh("read word && echo \"[$word]\"")
            .stdin(other.try_clone().unwrap())
            .stdout(other);
        assert!(wait(command).success());
        let mut line = String::new();
        BufReader::new(own).read_line(&mut line).unwrap();
        assert_eq!(line, "[word]\n");

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert!(wait(sh("echo over tcp").stdout(server)).success());
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "over tcp\n");

        let (one, two) = UnixDatagram::pair().unwrap();
        assert!(wait(sh("echo in a datagram >&4").fd(4, two)).success());
        let mut buffer = [0; 64];
        let length = one.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"in a datagram\n");

        let kind = |number: i32| format!("test -S /proc/self/fd/{number}");
        let command = sh(&[3, 4, 5].map(kind).join(" && "))
            .fd(3, listener)
            .fd(4, UnixListener::bind(directory.join("socket")).unwrap())
            .fd(5, UdpSocket::bind("127.0.0.1:0").unwrap());
        assert!(wait(command).success());
    });
}

/// What the host's standard output is differs between runs of the tests, so the host is a child too.
#[test]
fn a_stream_of_the_host_can_be_any_stream_of_the_child() {
    isolated(|| {
        let own = std::fs::read_link("/proc/self/fd/2").unwrap();
        let seen = output(
            sh("readlink /proc/self/fd/0 /proc/self/fd/7")
                .stdin(io::stderr())
                .fd(7, io::stderr()),
        );
        assert_eq!(seen, format!("{0}\n{0}\n", own.display()));
        // The same stream again is inherited, and equal to itself only.
        assert_eq!(Stdio::from(io::stdout()), Stdio::from(io::stdout()));
        assert_ne!(Stdio::from(io::stdout()), Stdio::from(io::stderr()));
        assert_ne!(Stdio::from(io::stdout()), Stdio::stdout());
        assert!(in_fork(|| {
            // SAFETY: this copy of the process uses its standard output for nothing else.
            unsafe { libc::close(1) };
            let closed = sh("test ! -e /proc/self/fd/1").stdout(io::stdout());
            assert!(wait(closed).success(), "a closed stream is inherited as a closed one");
        }));
    });
}

#[test]
fn the_status_of_a_child_of_the_standard_library_is_an_exit() {
    isolated(|| {
        for (script, text) in [("exit 7", "exited with code 7"), ("kill -TERM $$", "killed by SIGTERM")] {
            let status = process::Command::new("sh").args(["-c", script]).status().unwrap();
            let exit = Exit::try_from(status).unwrap();
            assert_eq!(exit.to_string(), text);
            assert_eq!(exit, wait(sh(script)));
            let back = process::ExitStatus::try_from(exit).unwrap();
            assert_eq!(back.into_raw(), status.into_raw());
        }
    });
}

#[test]
fn a_pipe_that_a_command_holds_is_read_to_its_end_after_the_command() {
    isolated(|| {
        let mut child = sh("echo one").stdout(Stdio::piped()).spawn().unwrap();
        let first = child.stdout.take().unwrap();
        let mut last = sh("cat; echo two").stdin(first).stdout(Stdio::piped()).spawn().unwrap();
        assert_eq!(read_to_end(last.stdout.take().unwrap()), "one\ntwo\n");
        assert!(last.wait().unwrap().exit.success() && child.wait().unwrap().exit.success());
    });
}
