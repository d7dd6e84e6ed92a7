//! The socket itself: its address, its file, what is too long, too many, or comes with descriptors.

use std::fs;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Instant;

use pidherd::FdSet;
use pidherd::fdset::Interest;
use pidherd::notify::{BadPath, Buffer, DATAGRAM_MAX, Notice, NotifySocket, Received};
use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

use super::common::{SOON, isolated, patience, tempdir};
use super::{connected, hear, hear_own, is_empty, only, own_pid, send};

/// Sends a text with descriptors.
fn send_with(socket: &NotifySocket, text: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors)));
    let there = connected(socket.address()).unwrap();
    sendmsg(there, &[IoSlice::new(text)], &mut control, SendFlags::empty()).unwrap();
}

/// Whether the writing end of a pipe is closed everywhere.
fn is_hung_up(reader: &OwnedFd) -> bool {
    rustix::io::ioctl_fionbio(reader, true).unwrap();
    rustix::io::read(reader, &mut [0; 1]) == Ok(0)
}

fn bind_errno(path: &Path) -> Option<i32> {
    NotifySocket::bind(path).expect_err("it was refused").raw_os_error()
}

#[test]
fn a_message_comes_through_and_wakes_the_set() {
    isolated(|| {
        let mut socket = NotifySocket::new().unwrap();
        let mut set = FdSet::new().unwrap();
        let token = set.add(socket.as_fd(), Interest::READ).unwrap();
        let mut ready = Vec::new();
        set.ready(&mut ready).unwrap();
        assert_eq!(ready, []);
        assert!(is_empty(&mut socket));

        send(&socket, b"READY=1\nSTATUS=\xc3\x9cp.");
        set.ready(&mut ready).unwrap();
        assert_eq!(ready, [token]);
        let mut buffer = Buffer::new();
        assert_eq!(
            hear_own(&mut socket, &mut buffer),
            [Notice::Ready, Notice::Status("Üp.")]
        );
        set.ready(&mut ready).unwrap();
        assert_eq!(ready, []);
        assert!(is_empty(&mut socket));
        assert_eq!(socket.counts().received, 1);
    });
}

#[test]
fn children_do_not_inherit_the_socket() {
    isolated(|| {
        let place = tempdir();
        for socket in [NotifySocket::new(), NotifySocket::bind(place.join("notify"))] {
            let socket = socket.unwrap();
            assert_eq!(rustix::io::fcntl_getfd(&socket), Ok(FdFlags::CLOEXEC));
            assert!(rustix::fs::fcntl_getfl(&socket).unwrap().contains(OFlags::NONBLOCK));
        }
    });
}

#[test]
fn two_sockets_have_two_addresses() {
    isolated(|| {
        let (mut one, two) = (NotifySocket::new().unwrap(), NotifySocket::new().unwrap());
        assert_ne!(one.address(), two.address());
        send(&two, b"READY=1");
        assert!(is_empty(&mut one));
    });
}

#[test]
fn what_is_too_long_is_dropped_and_counted() {
    isolated(|| {
        let mut socket = NotifySocket::new().unwrap();
        let mut long = b"READY=1\nX_FILL=".to_vec();
        long.resize(DATAGRAM_MAX, b'x');
        send(&socket, &long);
        long.push(b'x');
        send(&socket, &long);
        send(&socket, &[b'\n'; 100_000]);

        let mut buffer = Buffer::new();
        assert_eq!(hear_own(&mut socket, &mut buffer), [Notice::Ready]);
        for truncated in [1, 2] {
            let heard = hear(&mut socket, &mut buffer, |_| -> Option<()> {
                panic!("the function is not called")
            });
            assert!(heard.is_none());
            assert_eq!(socket.counts().truncated, truncated);
        }
        assert_eq!(socket.counts().received, 3);
        assert_eq!(socket.counts().unknown_senders, 0);
    });
}

#[test]
fn garbage_is_counted_and_does_no_harm() {
    isolated(|| {
        let mut socket = NotifySocket::new().unwrap();
        let mut buffer = Buffer::new();
        let mut total = 0;
        for (text, garbage, notices) in [
            (&b""[..], 1, &[][..]),
            (b"\0", 1, &[]),
            (b"\xff\xfe", 1, &[]),
            (b"READY=1\0STOPPING=1", 1, &[]),
            (b"nonsense\nREADY=2\nREADY=1\n=\nX=Y", 3, &[Notice::Ready]),
            (b"\n\n\n", 0, &[]),
            (
                b"WATCHDOG_USEC=99999999999999999999\nWATCHDOG=1",
                1,
                &[Notice::Watchdog],
            ),
        ] {
            send(&socket, text);
            assert_eq!(hear_own(&mut socket, &mut buffer), notices, "{text:?}");
            total += garbage;
            assert_eq!(socket.counts().garbage, total, "{text:?}");
        }
        let full = b"READY=1\n".repeat(DATAGRAM_MAX / 8);
        send(&socket, &full);
        assert_eq!(hear_own(&mut socket, &mut buffer), [Notice::Ready; 512]);
    });
}

#[test]
fn descriptors_that_come_along_are_closed() {
    isolated(|| {
        let mut socket = NotifySocket::new().unwrap();
        for (text, count) in [("FDSTORE=1", 1), ("FDSTORE=1\nFDNAME=x\nREADY=1", 253), ("", 3)] {
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            send_with(&socket, text.as_bytes(), &vec![writer.as_fd(); count]);
            drop(writer);
            assert!(!is_hung_up(&reader), "it is still under way");
            let mut buffer = Buffer::new();
            let notices = hear_own(&mut socket, &mut buffer);
            assert_eq!(notices.contains(&Notice::Ready), text.contains("READY"));
            assert!(is_hung_up(&reader), "{text}: one of {count} is open somewhere");
        }
        assert_eq!(socket.counts().descriptors, 3);

        // The same with an unknown sender, and with messages that are too long.
        for (text, received) in [(vec![b'x'; 5], 4), (vec![b'x'; 5000], 5)] {
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            send_with(&socket, &text, &[writer.as_fd()]);
            drop(writer);
            assert!(hear(&mut socket, &mut Buffer::new(), |_| None::<()>).is_none());
            assert!(is_hung_up(&reader));
            assert_eq!(socket.counts().received, received);
        }
    });
}

#[test]
fn a_barrier_is_closed_after_the_messages_before_it_whatever_its_sender_is() {
    isolated(|| {
        let mut socket = NotifySocket::new().unwrap();
        let mut buffer = Buffer::new();
        for receives in [false, true] {
            socket.receive_descriptors(receives);
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            send_with(&socket, b"STATUS=Up.", &[]);
            send_with(&socket, b"BARRIER=1", &[writer.as_fd()]);
            drop(writer);
            assert_eq!(hear_own(&mut socket, &mut buffer), [Notice::Status("Up.")]);
            assert!(!is_hung_up(&reader), "it was not received yet");
            assert!(hear(&mut socket, &mut buffer, |_| None::<()>).is_none());
            assert!(is_hung_up(&reader));
        }
        let counts = socket.counts();
        assert_eq!((counts.barriers, counts.unknown_senders, counts.garbage), (2, 0, 0));
    });
}

#[test]
fn a_barrier_with_anything_else_is_counted_as_garbage_and_does_nothing() {
    isolated(|| {
        let mut socket = NotifySocket::new().unwrap();
        for receives in [false, true] {
            socket.receive_descriptors(receives);
            for (text, count) in [
                ("BARRIER=1", 0),
                ("BARRIER=1", 2),
                ("BARRIER=1", 253),
                ("READY=1\nBARRIER=1", 1),
            ] {
                let (reader, writer) = rustix::pipe::pipe().unwrap();
                send_with(&socket, text.as_bytes(), &vec![writer.as_fd(); count]);
                drop(writer);
                assert!(hear(&mut socket, &mut Buffer::new(), |_| Some(())).is_none());
                assert!(is_hung_up(&reader), "{text}: one of {count} is open somewhere");
            }
        }
        let counts = socket.counts();
        assert_eq!((counts.barriers, counts.unknown_senders, counts.garbage), (0, 0, 8));
    });
}

#[test]
fn descriptors_are_received_on_request_and_closed_with_their_message() {
    isolated(|| {
        let mut socket = NotifySocket::new().unwrap();
        let mut buffer = Buffer::new();
        for (receives, count, takes) in [(false, 3, true), (true, 3, true), (true, 253, false)] {
            socket.receive_descriptors(receives);
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            send_with(&socket, b"READY=1", &vec![writer.as_fd(); count]);
            drop(writer);
            let Received::Message(mut message) = socket.receive(&mut buffer, |_| Some(())).unwrap() else {
                panic!("nothing came");
            };
            assert!(!receives || !message.has_lost_descriptors(), "{count}");
            let taken = if takes { message.take_descriptors() } else { Vec::new() };
            assert_eq!(taken.len(), if receives && takes { count } else { 0 });
            drop(message);
            assert_eq!(is_hung_up(&reader), taken.is_empty());
            for fd in &taken {
                assert!(
                    rustix::io::fcntl_getfd(fd)
                        .unwrap()
                        .contains(rustix::io::FdFlags::CLOEXEC)
                );
            }
            drop(taken);
            assert!(is_hung_up(&reader));
        }
    });
}

/// A connection with data that its other side does not read, and the option to wait for that at close(2). The second
/// value is the other side.
fn lingering() -> (OwnedFd, [OwnedFd; 2]) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (receiver, _) = listener.accept().unwrap();
    sender.set_nonblocking(true).unwrap();
    while (&sender).write(&[0; 65_536]).is_ok() {}
    sockopt::set_socket_linger(&sender, Some(SOON)).unwrap();
    (sender.into(), [receiver.into(), listener.into()])
}

#[test]
fn closing_a_socket_that_lingers_does_not_wait() {
    isolated(|| {
        let mut socket = NotifySocket::new().unwrap();
        let mut buffer = Buffer::new();
        for (receives, text) in [
            (false, "FDSTORE=1"),
            (true, "FDSTORE=1"),
            (false, "BARRIER=1"),
            (true, "x"),
        ] {
            socket.receive_descriptors(receives);
            let (lingering, _other) = lingering();
            send_with(&socket, text.as_bytes(), &[lingering.as_fd()]);
            // This one is not the last, so it does not wait.
            drop(lingering);
            let before = Instant::now();
            drop(socket.receive(&mut buffer, |_| Some(())).unwrap());
            assert!(before.elapsed() < SOON / 2 * patience(), "{receives} {text}");
        }
    });
}

#[test]
fn a_host_without_a_free_descriptor_still_receives_messages() {
    isolated(|| {
        let mut socket = NotifySocket::new().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send_with(&socket, b"READY=1", &[writer.as_fd()]);
        drop(writer);
        let before = getrlimit(Resource::Nofile);
        let none = Rlimit {
            current: Some(0),
            maximum: before.maximum,
        };
        setrlimit(Resource::Nofile, none).unwrap();
        let mut buffer = Buffer::new();
        let received = socket.receive(&mut buffer, |sender| sender.find_by_pid(only(own_pid())));
        setrlimit(Resource::Nofile, before).unwrap();
        let Ok(Received::Message(message)) = received else {
            panic!("{received:?}");
        };
        assert!(message.notices().eq([Notice::Ready]));
        assert!(is_hung_up(&reader));
    });
}

#[test]
fn a_flood_is_taken_one_datagram_a_call() {
    isolated(|| {
        let mut socket = NotifySocket::new().unwrap();
        let flooder = connected(socket.address()).unwrap();
        flooder.set_nonblocking(true).unwrap();
        for round in 1..=3 {
            let mut sent = 0;
            let full = loop {
                match flooder.send(b"WATCHDOG=1") {
                    Ok(_) => sent += 1,
                    Err(error) => break error,
                }
            };
            assert_eq!(full.kind(), io::ErrorKind::WouldBlock, "the sender has to wait");
            let before = socket.counts().received;
            let mut buffer = Buffer::new();
            for taken in 1..=sent {
                assert_eq!(hear_own(&mut socket, &mut buffer), [Notice::Watchdog]);
                assert_eq!(socket.counts().received, before + taken, "in round {round}");
            }
            assert!(is_empty(&mut socket));
        }
    });
}

#[test]
fn a_path_is_open_to_all_whatever_the_umask_and_goes_with_the_socket() {
    isolated(|| {
        let place = tempdir();
        let path = place.join("notify");
        let before = umask(Mode::from_raw_mode(0o777));
        let bound = NotifySocket::bind(&path);
        umask(before);
        let mut socket = bound.unwrap();
        assert_eq!(socket.address(), path.as_os_str());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o666);
        send(&socket, b"STOPPING=1");
        assert_eq!(hear_own(&mut socket, &mut Buffer::new()), [Notice::Stopping]);
        drop(socket);
        assert!(!path.exists());
    });
}

#[test]
fn what_has_taken_the_place_of_the_socket_stays() {
    isolated(|| {
        let place = tempdir();
        let path = place.join("notify");
        let socket = NotifySocket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let successor = UnixDatagram::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
        drop(successor);
    });
}

#[test]
fn only_an_abandoned_socket_is_replaced() {
    isolated(|| {
        let in_use = Some(rustix::io::Errno::ADDRINUSE.raw_os_error());
        let place = tempdir();
        let path = place.join("notify");

        drop(UnixDatagram::bind(&path).unwrap());
        let mut socket = NotifySocket::bind(&path).unwrap();
        assert_eq!(bind_errno(&path), in_use, "one that is alive is not");
        send(&socket, b"READY=1");
        assert_eq!(hear_own(&mut socket, &mut Buffer::new()), [Notice::Ready]);
        assert!(is_empty(&mut socket), "to look whether it is alive sends nothing");
        drop(socket);

        fs::write(&path, "precious").unwrap();
        assert_eq!(bind_errno(&path), in_use);
        assert_eq!(fs::read(&path).unwrap(), b"precious");

        let other = place.join("abandoned");
        drop(UnixDatagram::bind(&other).unwrap());
        let link = place.join("link");
        for target in [other.as_path(), &path, Path::new("nowhere")] {
            symlink(target, &link).unwrap();
            assert_eq!(bind_errno(&link), in_use, "a link is never followed");
            assert!(other.exists() && path.exists());
            fs::remove_file(&link).unwrap();
        }
    });
}

#[test]
fn a_path_that_cannot_be_is_refused_and_leaves_nothing() {
    isolated(|| {
        let place = tempdir();
        let room = 107 - place.path().as_os_str().len() - 1;
        let longest = place.join("x".repeat(room));
        let mut socket = NotifySocket::bind(&longest).unwrap();
        send(&socket, b"READY=1");
        assert_eq!(hear_own(&mut socket, &mut Buffer::new()), [Notice::Ready]);
        drop(socket);

        for bad in [
            Path::new(""),
            Path::new("notify"),
            &place.join("x".repeat(room + 1)),
            &place.join("x".repeat(10_000)),
            &place.join("a\0b"),
        ] {
            let error = NotifySocket::bind(bad).expect_err("it was refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<BadPath>());
            assert_eq!(inner, Some(&BadPath(bad.to_owned())));
        }
        let missing = Some(rustix::io::Errno::NOENT.raw_os_error());
        assert_eq!(bind_errno(&place.join("missing/notify")), missing);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    });
}

#[test]
fn it_can_be_sent_to_another_thread() {
    fn assert_send<T: Send + Sync>() {}
    assert_send::<NotifySocket>();
    assert_send::<pidherd::notify::ReadyFd>();
    assert_send::<Received<'_, ()>>();
}
