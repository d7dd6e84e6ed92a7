//! recvmsg(2) with the sender's credentials. rustix wraps the call, but its type for the credentials has no pid 0,
//! which the kernel reports for a sender in another PID namespace.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::descriptors::close_at_once;
use super::nr::{SCM_PIDFD, SO_PASSPIDFD};

/// A datagram that was received, without its bytes.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The number of its bytes in the buffer.
    pub(crate) length: usize,
    /// Whether the datagram was longer than the buffer.
    pub(crate) truncated: bool,
    /// The sender, if the socket has SO_PASSCRED.
    pub(crate) sender: Option<libc::ucred>,
    /// What the kernel tells about the sender's process, if the socket has SO_PASSPIDFD.
    pub(crate) process: SenderProcess,
    /// The descriptors that it carried and that have a number in this process. They are close-on-exec.
    pub(crate) descriptors: Passed,
    /// Whether the kernel discarded control data: descriptors, for lack of room or of numbers, or the pidfd.
    pub(crate) is_cut: bool,
}

impl Arrival {
    /// Whether it carried descriptors. A kernel that has discarded the pidfd alone looks the same.
    pub(crate) fn had_descriptors(&self) -> bool {
        !self.descriptors.is_empty() || self.is_cut
    }
}

/// Descriptors that came with a datagram. Those that are not taken are closed at once ([`close_at_once`]).
#[derive(Debug, Default)]
pub(crate) struct Passed(Vec<OwnedFd>);

impl Passed {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self) -> Vec<OwnedFd> {
        mem::take(&mut self.0)
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        self.0.drain(..).for_each(close_at_once);
    }
}

/// The process of a sender (SCM_PIDFD).
#[derive(Debug)]
pub(crate) enum SenderProcess {
    /// The kernel does not tell: it is older than 6.5, or no descriptor was free.
    Unknown,
    /// The process has ended and was reaped.
    Gone,
    /// Its pidfd. The process may have ended since.
    Pidfd(OwnedFd),
}

/// The room for descriptors that come with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Enough to tell whether a datagram carries one descriptor or more. The kernel discards the others.
    Few,
    /// As many as a datagram can carry (SCM_MAX_FD).
    All,
}

/// The most descriptors of one datagram (SCM_MAX_FD in unix(7)).
pub(crate) const MOST_DESCRIPTORS: usize = 253;

/// The size of a control message with this many bytes of data, and the padding after it.
const fn space(bytes: usize) -> usize {
    // SAFETY: pure arithmetic. The function is unsafe only because it stands for a C macro.
    unsafe { libc::CMSG_SPACE(bytes as u32) as usize }
}

/// The size of a control message with this many descriptors.
const fn descriptors(count: usize) -> usize {
    space(count * mem::size_of::<RawFd>())
}

const CREDENTIALS: usize = space(mem::size_of::<libc::ucred>());

/// The largest size of all control messages of a datagram: credentials, descriptors, and a pidfd.
const CONTROL: usize = CREDENTIALS + descriptors(MOST_DESCRIPTORS) + descriptors(1);

impl Room {
    const fn size(self) -> usize {
        match self {
            Room::Few => CREDENTIALS + descriptors(2) + descriptors(1),
            Room::All => CONTROL,
        }
    }
}

/// A buffer for control messages, aligned for the header. Descriptors that do not fit get no numbers in this process.
#[repr(C)]
union Control {
    header: libc::cmsghdr,
    bytes: [u8; CONTROL],
}

/// Receives the next queued datagram; `None` if there is none. Never blocks.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], room: Room) -> io::Result<Option<Arrival>> {
    let mut control = Control { bytes: [0; CONTROL] };
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: the structure has integers and pointers only, and zero is valid for all of them.
    let mut header = unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = room.size() as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let length = loop {
        // SAFETY: the header points to one part, the caller's buffer with its length, and to the control buffer with
        // at most its length. Both outlive the call. The header requests no name.
        let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
        match usize::try_from(length) {
            Ok(length) => break length,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                error => return Err(error),
            },
        }
    };
    let mut arrival = Arrival {
        length,
        truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        sender: None,
        process: SenderProcess::Unknown,
        descriptors: Passed::default(),
        is_cut: header.msg_flags & libc::MSG_CTRUNC != 0,
    };
    // SAFETY: after a successful recvmsg the header contains the number of bytes written to the control buffer. The
    // macro returns null if they are fewer than a message header. Otherwise it points to a message header in the live
    // and aligned buffer.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&header) };
    // SAFETY: the pointer is null or as above.
    while let Some(message) = unsafe { next.as_ref() } {
        open_control(message, &mut arrival);
        // SAFETY: the message is one of this header. The macro returns null after the last one.
        next = unsafe { libc::CMSG_NXTHDR(&header, message) };
    }
    Ok(Some(arrival))
}

/// Reads one control message.
fn open_control(message: &libc::cmsghdr, arrival: &mut Arrival) {
    // SAFETY: pure arithmetic.
    let head = unsafe { libc::CMSG_LEN(0) } as usize;
    let whole: usize = message.cmsg_len as _;
    let length = whole.saturating_sub(head);
    // SAFETY: the result is the address after the message header, inside the buffer or at its end.
    let data = unsafe { libc::CMSG_DATA(message) };
    // SAFETY: the address is inside the bytes that the kernel wrote, if `place` is below their number.
    let number = |place: usize| unsafe { ptr::read_unaligned(data.cast::<RawFd>().add(place)) };
    let count = length / mem::size_of::<RawFd>();
    match (message.cmsg_level, message.cmsg_type) {
        (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if length >= mem::size_of::<libc::ucred>() => {
            // SAFETY: the kernel wrote at least that many bytes there: three integers, for which every value is valid.
            arrival.sender = Some(unsafe { ptr::read_unaligned(data.cast()) });
        }
        (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
            // SAFETY: the kernel has just opened each of these descriptors for this process, and no other code knows
            // their numbers.
            let opened = (0..count).map(|place| unsafe { OwnedFd::from_raw_fd(number(place)) });
            arrival.descriptors.0.extend(opened);
        }
        (libc::SOL_SOCKET, SCM_PIDFD) if count > 0 => {
            arrival.process = match number(0) {
                // SAFETY: as above.
                opened @ 0.. => SenderProcess::Pidfd(unsafe { OwnedFd::from_raw_fd(opened) }),
                // EINVAL before Linux 6.16 and ESRCH since.
                failed if failed == -libc::EINVAL || failed == -libc::ESRCH => SenderProcess::Gone,
                _ => SenderProcess::Unknown,
            };
        }
        _ => {}
    }
}

/// Requests the pidfd of each sender (SO_PASSPIDFD, Linux 6.5).
///
/// # Errors
/// ENOPROTOOPT on an older kernel.
pub(crate) fn request_pidfds(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an integer of this size, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSPIDFD,
            (&raw const on).cast(),
            mem::size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::c_int;
    use std::fs;
    use std::io::IoSlice;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};

    use super::*;
    use crate::testing::common::kernel_since;
    use crate::testing::common::refuse::refusing_once;

    /// Sends a datagram with `count` copies of a descriptor.
    fn send(socket: &UnixDatagram, text: &[u8], count: usize) {
        let descriptors = vec![socket.as_fd(); count];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if count > 0 {
            assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        }
        sendmsg(socket, &[IoSlice::new(text)], &mut control, SendFlags::empty()).unwrap();
    }

    /// The number of descriptors of this process that refer to this socket, including `socket` itself.
    fn copies(socket: &UnixDatagram) -> usize {
        let link = |path| fs::read_link(path).ok();
        let wanted = link(format!("/proc/self/fd/{}", socket.as_raw_fd()).into());
        let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
        all.filter(|entry| link(entry.path()) == wanted).count()
    }

    #[test]
    fn the_sender_and_the_passed_descriptors_are_reported() {
        for credentials in [true, false] {
            let (here, there) = UnixDatagram::pair().unwrap();
            sockopt::set_socket_passcred(&here, credentials).unwrap();
            for (text, count) in [(&b"plain"[..], 0), (b"one", 1), (b"all", 253), (b"", 4)] {
                let mut buffer = [0; 8];
                for room in [Room::Few, Room::All] {
                    send(&there, text, count);
                    let arrival = receive(here.as_fd(), &mut buffer, room).unwrap().unwrap();
                    assert_eq!(&buffer[..arrival.length], text);
                    assert!(!arrival.truncated);
                    if room == Room::All {
                        assert_eq!((arrival.descriptors.len(), arrival.is_cut), (count, false));
                    } else {
                        let received = arrival.descriptors.len();
                        assert!(received >= count.min(2) && received <= 16, "{received} of {count}");
                        assert_eq!(arrival.is_cut, received < count);
                    }
                    assert_eq!(copies(&there), 1 + arrival.descriptors.len());
                    let pid = arrival.sender.map(|sender| sender.pid);
                    assert_eq!(pid, credentials.then_some(std::process::id() as i32));
                    drop(arrival);
                    assert_eq!(copies(&there), 1, "{count} descriptors were passed");
                }
            }
            assert!(receive(here.as_fd(), &mut [0; 8], Room::All).unwrap().is_none());
        }
    }

    #[test]
    fn a_socket_that_cannot_be_read_or_changed_is_an_error() {
        let (here, _there) = UnixDatagram::pair().unwrap();
        let fd = here.as_fd();
        let errno = |error: io::Error| error.raw_os_error().unwrap();
        let read = refusing_once(libc::SYS_recvmsg, libc::ENOMEM, || {
            let mut buffer = [0; 8];
            [0; 2].map(|_| receive(fd, &mut buffer, Room::Few).map(drop).map_err(errno))
        });
        assert_eq!(read, [Err(libc::ENOMEM), Ok(())]);
        let requested = refusing_once(libc::SYS_setsockopt, libc::ENOPROTOOPT, || {
            [0; 2].map(|_| request_pidfds(fd).map_err(errno))
        });
        let supported = if kernel_since(6, 5) {
            Ok(())
        } else {
            Err(libc::ENOPROTOOPT)
        };
        assert_eq!(requested, [Err(libc::ENOPROTOOPT), supported]);
    }

    #[test]
    fn a_datagram_that_is_longer_than_the_buffer_is_reported() {
        let (here, there) = UnixDatagram::pair().unwrap();
        send(&there, b"12345678", 0);
        send(&there, b"123456789", 0);
        let truncated = || {
            receive(here.as_fd(), &mut [0; 8], Room::Few)
                .unwrap()
                .map(|arrival| arrival.truncated)
        };
        assert_eq!(truncated(), Some(false));
        assert_eq!(truncated(), Some(true));
        assert_eq!(truncated(), None);
    }

    /// What is read from one control message with `data`, which has only the first `length` bytes of it.
    fn opened(kind: c_int, data: [i32; 3], length: usize) -> Arrival {
        // SAFETY: pure arithmetic.
        let head = unsafe { libc::CMSG_LEN(0) } as usize;
        let mut bytes = [0; CONTROL];
        for (place, number) in bytes[head..].chunks_mut(4).zip(data) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        let mut control = Control { bytes };
        control.header.cmsg_len = (head + length) as _;
        control.header.cmsg_level = libc::SOL_SOCKET;
        control.header.cmsg_type = kind;
        let mut arrival = Arrival {
            length: 0,
            truncated: false,
            sender: None,
            process: SenderProcess::Unknown,
            descriptors: Passed::default(),
            is_cut: false,
        };
        // SAFETY: all bytes of the union are initialized, and the buffer is longer than the message.
        open_control(unsafe { &control.header }, &mut arrival);
        arrival
    }

    #[test]
    fn nothing_is_read_beyond_the_end_of_a_control_message() {
        let sender = |length| {
            let sender = opened(libc::SCM_CREDENTIALS, [7, 8, 9], length).sender;
            sender.map(|sender| (sender.pid, sender.uid, sender.gid))
        };
        assert_eq!([0, 11, 12].map(sender), [None, None, Some((7, 8, 9))]);
        let none = opened(SCM_PIDFD, [-libc::ESRCH, 0, 0], 0).process;
        assert!(matches!(none, SenderProcess::Unknown), "{none:?}");
    }

    #[test]
    fn a_reaped_sender_is_told_from_a_lack_of_descriptors() {
        for (errno, is_gone) in [
            (libc::EINVAL, true),
            (libc::ESRCH, true),
            (libc::EMFILE, false),
            (libc::ENOMEM, false),
        ] {
            let process = opened(SCM_PIDFD, [-errno, 0, 0], 4).process;
            assert_eq!(matches!(process, SenderProcess::Gone), is_gone, "{errno}: {process:?}");
            assert_eq!(matches!(process, SenderProcess::Unknown), !is_gone);
        }
    }

    #[test]
    fn an_interrupted_receive_is_repeated() {
        let (here, there) = UnixDatagram::pair().unwrap();
        send(&there, b"text", 0);
        let arrival = refusing_once(libc::SYS_recvmsg, libc::EINTR, || {
            receive(here.as_fd(), &mut [0; 8], Room::Few)
        });
        assert_eq!(arrival.unwrap().unwrap().length, 4);
    }

    #[test]
    fn a_sender_has_a_pidfd_until_it_is_reaped() {
        let (here, there) = UnixDatagram::pair().unwrap();
        sockopt::set_socket_passcred(&here, true).unwrap();
        if request_pidfds(here.as_fd()).is_err() {
            eprintln!("SKIPPED: the kernel has no SO_PASSPIDFD");
            return;
        }
        for room in [Room::Few, Room::All] {
            send(&there, b"a", 1);
            let arrival = receive(here.as_fd(), &mut [0; 8], room).unwrap().unwrap();
            assert_eq!((arrival.descriptors.len(), arrival.is_cut), (1, false));
            assert!(matches!(arrival.process, SenderProcess::Pidfd(_)), "{arrival:?}");
        }
        send(&there, b"a", MOST_DESCRIPTORS);
        let arrival = receive(here.as_fd(), &mut [0; 8], Room::All).unwrap().unwrap();
        assert_eq!((arrival.descriptors.len(), arrival.is_cut), (MOST_DESCRIPTORS, false));
        assert!(matches!(arrival.process, SenderProcess::Pidfd(_)), "{arrival:?}");
    }
}
