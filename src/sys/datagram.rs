//! recvmsg(2) with the sender's credentials. rustix has it, but reads them into a type that has no pid
//! 0, and 0 is what the kernel says of a sender in another PID namespace.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// What came with a datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// How many bytes of it are in the buffer.
    pub(crate) length: usize,
    /// There were more than the buffer has room for.
    pub(crate) truncated: bool,
    /// The sender, if the socket has SO_PASSCRED.
    pub(crate) sender: Option<libc::ucred>,
    /// It carried descriptors; all of them are closed already.
    pub(crate) descriptors: bool,
}

/// How long the credentials are as a control message, with the padding of the last one.
// SAFETY: arithmetic; the function is only marked unsafe for being C's macro.
const CREDENTIALS: usize = unsafe { libc::CMSG_SPACE(mem::size_of::<libc::ucred>() as u32) } as usize;

/// Room for the credentials, aligned for the header, and for nothing beside them: descriptors that
/// come with a datagram find none, so the kernel closes them and never gives them numbers here.
#[repr(C)]
union Control {
    header: libc::cmsghdr,
    bytes: [u8; CREDENTIALS],
}

/// Takes the first datagram that waits; `None` if there is none. Never blocks.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Arrival>> {
    let mut control = Control {
        bytes: [0; CREDENTIALS],
    };
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: integers and pointers, for all of which zero is a value.
    let mut header = unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = CREDENTIALS as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let length = loop {
        // SAFETY: the header points to one part, which is the caller's buffer with its length, and to
        // a control buffer with its own; both live until after the call, and no name is asked for.
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

/// Reads the one control message there is room for. On a socket without SO_PASSCRED that may be one
/// of descriptors, which are then closed here. The second value says whether it was.
fn open_control(header: &libc::msghdr) -> (Option<libc::ucred>, bool) {
    // SAFETY: after a successful recvmsg the header says how much of the control buffer was written,
    // and the macro answers null if that is less than a message's header. What it points to is then
    // such a header, in a live buffer that is aligned for it.
    let Some(message) = (unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }) else {
        return (None, false);
    };
    // SAFETY: arithmetic.
    let head = unsafe { libc::CMSG_LEN(0) } as usize;
    let whole: usize = message.cmsg_len as _;
    let length = whole.saturating_sub(head);
    // SAFETY: the address just behind the header, within the buffer or at its end.
    let data = unsafe { libc::CMSG_DATA(message) };
    match (message.cmsg_level, message.cmsg_type) {
        (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if length >= mem::size_of::<libc::ucred>() => {
            // SAFETY: the kernel wrote that many bytes there; three integers, of any value.
            (Some(unsafe { ptr::read_unaligned(data.cast()) }), false)
        }
        (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
            for place in 0..length / mem::size_of::<RawFd>() {
                // SAFETY: within the bytes that the kernel wrote. Each number is of a descriptor that
                // it has just opened for this process, and that is known nowhere else.
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

    /// How many descriptors of this process are the same socket as `socket`, itself counted.
    fn copies(socket: &UnixDatagram) -> usize {
        let link = |path| fs::read_link(path).ok();
        let wanted = link(format!("/proc/self/fd/{}", socket.as_raw_fd()).into());
        let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
        all.filter(|entry| link(entry.path()) == wanted).count()
    }

    #[test]
    fn tells_the_sender_and_closes_what_comes_along() {
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
    fn tells_that_the_buffer_was_too_short() {
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
