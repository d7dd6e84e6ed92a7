//! recvmsg(2) with the sender's credentials. rustix wraps the call, but its type for the credentials has no pid 0,
//! which the kernel reports for a sender in another PID namespace.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// A datagram that was received, without its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// The number of its bytes in the buffer.
    pub(crate) length: usize,
    /// Whether the datagram was longer than the buffer.
    pub(crate) truncated: bool,
    /// The sender, if the socket has SO_PASSCRED.
    pub(crate) sender: Option<libc::ucred>,
    /// Whether it carried descriptors. All of them are already closed.
    pub(crate) descriptors: bool,
}

/// The size of the credentials as a control message, with the padding after it.
// SAFETY: pure arithmetic. The function is unsafe only because it stands for a C macro.
const CREDENTIALS: usize = unsafe { libc::CMSG_SPACE(mem::size_of::<libc::ucred>() as u32) } as usize;

/// Room for the credentials and nothing else, aligned for the header. Descriptors that come with a datagram do not fit,
/// so the kernel discards them and they get no numbers in this process.
#[repr(C)]
union Control {
    header: libc::cmsghdr,
    bytes: [u8; CREDENTIALS],
}

/// Receives the next queued datagram; `None` if there is none. Never blocks.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Arrival>> {
    let mut control = Control {
        bytes: [0; CREDENTIALS],
    };
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: the structure has integers and pointers only, and zero is valid for all of them.
    let mut header = unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = CREDENTIALS as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let length = loop {
        // SAFETY: the header points to one part, the caller's buffer with its length, and to the control buffer with
        // its length. Both outlive the call. The header requests no name.
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
    let (sender, taken) = open_control(&header);
    Ok(Some(Arrival {
        length,
        truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        sender,
        descriptors: taken || header.msg_flags & libc::MSG_CTRUNC != 0,
    }))
}

/// Reads the only control message that fits. On a socket without SO_PASSCRED it can contain descriptors, which are then
/// closed here. The second value is whether it did.
fn open_control(header: &libc::msghdr) -> (Option<libc::ucred>, bool) {
    // SAFETY: after a successful recvmsg the header contains the number of bytes written to the control buffer. The
    // macro returns null if they are fewer than a message header. Otherwise it points to a message header in the live
    // and aligned buffer.
    let Some(message) = (unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }) else {
        return (None, false);
    };
    // SAFETY: pure arithmetic.
    let head = unsafe { libc::CMSG_LEN(0) } as usize;
    let whole: usize = message.cmsg_len as _;
    let length = whole.saturating_sub(head);
    // SAFETY: the result is the address after the message header, inside the buffer or at its end.
    let data = unsafe { libc::CMSG_DATA(message) };
    match (message.cmsg_level, message.cmsg_type) {
        (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if length >= mem::size_of::<libc::ucred>() => {
            // SAFETY: the kernel wrote at least that many bytes there: three integers, for which every value is valid.
            (Some(unsafe { ptr::read_unaligned(data.cast()) }), false)
        }
        (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
            for place in 0..length / mem::size_of::<RawFd>() {
                // SAFETY: the address is inside the bytes that the kernel wrote. The kernel has just opened each of
                // these descriptors for this process, and no other code knows their numbers.
                drop(unsafe { OwnedFd::from_raw_fd(ptr::read_unaligned(data.cast::<RawFd>().add(place))) });
            }
            (None, true)
        }
        _ => (None, false),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::IoSlice;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};

    use super::*;

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
    fn the_sender_is_reported_and_passed_descriptors_are_closed() {
        for credentials in [true, false] {
            let (here, there) = UnixDatagram::pair().unwrap();
            sockopt::set_socket_passcred(&here, credentials).unwrap();
            for (text, count) in [(&b"plain"[..], 0), (b"one", 1), (b"all", 253), (b"", 4)] {
                send(&there, text, count);
                let mut buffer = [0; 8];
                let arrival = receive(here.as_fd(), &mut buffer).unwrap().unwrap();
                assert_eq!(&buffer[..arrival.length], text);
                assert!(!arrival.truncated);
                assert_eq!(arrival.descriptors, count > 0);
                let pid = arrival.sender.map(|sender| sender.pid);
                assert_eq!(pid, credentials.then_some(std::process::id() as i32));
                assert_eq!(copies(&there), 1, "{count} descriptors were passed");
            }
            assert!(receive(here.as_fd(), &mut [0; 8]).unwrap().is_none());
        }
    }

    #[test]
    fn a_datagram_that_is_longer_than_the_buffer_is_reported() {
        let (here, there) = UnixDatagram::pair().unwrap();
        send(&there, b"12345678", 0);
        send(&there, b"123456789", 0);
        let truncated = || {
            receive(here.as_fd(), &mut [0; 8])
                .unwrap()
                .map(|arrival| arrival.truncated)
        };
        assert_eq!(truncated(), Some(false));
        assert_eq!(truncated(), Some(true));
        assert_eq!(truncated(), None);
    }
}
