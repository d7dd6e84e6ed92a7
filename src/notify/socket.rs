//! The socket that messages are sent to.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::notice::{self, Notice, Notices};
use super::sender::{Credentials, has_number};
use crate::codec::stored;
use crate::exit::Pid;
use crate::owner::Owner;
use crate::sys::datagram::{self, Arrival, Passed, Room, SenderProcess, request_pidfds};
use crate::sys::descriptors::above_standard;

/// The longest message that is read, in bytes. systemd has the same limit.
pub const DATAGRAM_MAX: usize = 4096;

/// The longest path that every sender can put into a `sockaddr_un`, including its NUL.
const PATH_MAX: usize = 107;

/// The mode of a socket with a path: every process that can reach it may send.
const FILE_MODE: u32 = 0o666;

/// A socket that receives messages in systemd's notify protocol. One socket serves all children of a supervisor.
///
/// Children find it through the environment variable [`NotifySocket::VARIABLE`]. It is close-on-exec and non-blocking,
/// and readable while a message is queued. The kernel queues only a few messages (`net.unix.max_dgram_qlen`), and then
/// senders block.
/// ```
/// use std::os::linux::net::SocketAddrExt;
/// use std::os::unix::ffi::OsStrExt;
/// use std::os::unix::net::{SocketAddr, UnixDatagram};
/// use pidherd::notify::{Buffer, Notice, NotifySocket, Received};
///
/// # fn main() -> std::io::Result<()> {
/// let mut socket = NotifySocket::new()?;
///
/// // What a child does, with the address from its environment:
/// let name = socket.address().as_bytes().strip_prefix(b"@").expect("it is abstract");
/// let address = SocketAddr::from_abstract_name(name)?;
/// UnixDatagram::unbound()?.send_to_addr(b"READY=1\nSTATUS=Up.", &address)?;
///
/// // What the supervisor does when the socket is readable:
/// let mut buffer = Buffer::new();
/// let own = std::process::id();
/// let owner_of = |pid: pidherd::Pid| (pid.as_raw() == own).then_some("our own");
/// match socket.receive(&mut buffer, |sender| sender.find_by_pid(owner_of))? {
///     Received::Message(message) => {
///         assert_eq!(message.owner, "our own");
///         assert!(message.notices().eq([Notice::Ready, Notice::Status("Up.")]));
///     }
///     Received::Ignored | Received::Nothing => panic!("there was a message"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct NotifySocket {
    owner: Owner,
    /// The file is dropped before the descriptor is closed.
    file: Option<BoundFile>,
    fd: OwnedFd,
    address: OsString,
    counts: Counts,
    /// Whether the descriptors of messages are received.
    room: Room,
}

/// Counters of the datagrams, by the reason why a datagram was ignored. The numbers only grow, and stay at the largest
/// value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Counts {
    /// All datagrams that were received.
    pub received: u64,
    /// Datagrams longer than [`DATAGRAM_MAX`]. They were ignored.
    pub truncated: u64,
    /// Ignored datagrams without a process: the sender is in a PID namespace that is not visible from here.
    pub nameless: u64,
    /// Datagrams that were ignored because the sender has no owner, or had ended when they were read.
    pub unknown_senders: u64,
    /// Datagrams with descriptors.
    pub descriptors: u64,
    /// Barriers ([`Notice::Barrier`](super::Notice::Barrier)). Their descriptors were closed.
    pub barriers: u64,
    /// Lines without a meaning in accepted messages; a message without any meaning counts as one, and so does a barrier
    /// with another line, or with any other number of descriptors than one.
    pub garbage: u64,
}

impl NotifySocket {
    /// The environment variable with the [address](NotifySocket::address) for a child.
    pub const VARIABLE: &'static str = "NOTIFY_SOCKET";

    /// Makes a socket with an abstract address that the kernel chooses. Abstract addresses belong to the network
    /// namespace, and every process in it can send.
    ///
    /// ```
    /// # use pidherd::notify::NotifySocket;
    /// let socket = NotifySocket::new()?;
    /// let command = pidherd::Command::new("sh").args(["-c", "test -n $NOTIFY_SOCKET"]);
    /// let command = command.env(NotifySocket::VARIABLE, socket.address());
    /// assert!(command.status()?.exit.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOBUFS, ENOMEM; ENOSPC if all abstract addresses are taken.
    pub fn new() -> io::Result<NotifySocket> {
        let fd = unbound()?;
        rustix::net::bind(&fd, &SocketAddrUnix::new_unnamed())?;
        let bound = SocketAddrUnix::try_from(rustix::net::getsockname(&fd)?)?;
        let name = bound.abstract_name().ok_or(Errno::ADDRNOTAVAIL)?;
        let address = OsString::from_vec([b"@", name].concat());
        Ok(NotifySocket::with(fd, address, None))
    }

    /// Makes a socket at this path, for children that are in another network namespace or have another root directory.
    /// Such a child needs the path as it appears from its own root.
    ///
    /// The mode of the socket is 0666, independent of the umask, so the permissions of the directory determine which
    /// processes can send. The directory must not be writable for other users, which could replace the socket. A socket
    /// that no process has open, for example that of a killed supervisor, is replaced. The file is removed when the
    /// value is dropped, unless another socket has replaced it meanwhile, or the value is in a copy that fork(2) made.
    ///
    /// ```
    /// # use pidherd::notify::NotifySocket;
    /// # let path = std::env::temp_dir().join(format!("pidherd-doc-bind-{}", std::process::id()));
    /// let socket = NotifySocket::bind(&path)?;
    /// assert_eq!(socket.address(), path.as_os_str());
    /// drop(socket);
    /// assert!(!path.exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` with [`BadPath`] inside, for a path that is relative, too long or contains a NUL; EADDRINUSE if
    /// the path is a socket in use or another file; ENOENT, EACCES, EROFS and other errors of bind(2), also if /proc is
    /// not mounted. Nothing is left behind then.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<NotifySocket> {
        let path = path.as_ref();
        let bytes = path.as_os_str().as_bytes();
        if !path.is_absolute() || bytes.len() > PATH_MAX || bytes.contains(&0) {
            let bad = BadPath(path.to_owned());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, bad));
        }
        let address = SocketAddrUnix::new(path)?;
        let fd = unbound()?;
        match rustix::net::bind(&fd, &address) {
            Err(Errno::ADDRINUSE) if is_abandoned(path, &address)? => {
                fs::remove_file(path)?;
                rustix::net::bind(&fd, &address)?;
            }
            bound => bound?,
        }
        let file = BoundFile::find(path)?;
        file.open_to_all()?;
        Ok(NotifySocket::with(fd, path.into(), Some(file)))
    }

    /// Makes a socket with the address of one that is gone.
    ///
    /// # Errors
    /// EADDRINUSE: another process has the address.
    pub(crate) fn again(address: &OsStr) -> io::Result<NotifySocket> {
        let Some(name) = address.as_bytes().strip_prefix(b"@") else {
            return NotifySocket::bind(address);
        };
        let fd = unbound()?;
        rustix::net::bind(&fd, &SocketAddrUnix::new_abstract_name(name)?)?;
        Ok(NotifySocket::with(fd, address.to_owned(), None))
    }

    /// Continues the socket of the program before this one (exec(2)). A file of its own is removed at the end as
    /// before. The descriptor is given back if it is not such a socket.
    pub(crate) fn inherited(fd: OwnedFd, address: OsString, counts: Counts) -> Result<NotifySocket, OwnedFd> {
        let is_datagram = matches!(sockopt::socket_type(&fd), Ok(kind) if kind == SocketType::DGRAM);
        let is_unix = matches!(sockopt::socket_domain(&fd), Ok(family) if family == AddressFamily::UNIX);
        if !is_datagram || !is_unix {
            return Err(fd);
        }
        let path = Path::new(&address);
        // The file may have been removed since. Then there is nothing to remove.
        let file = path.is_absolute().then(|| BoundFile::find(path).ok()).flatten();
        // The program before this one may not have requested it.
        let _since_linux_6_5 = request_pidfds(fd.as_fd());
        let mut socket = NotifySocket::with(fd, address, file);
        socket.counts = counts;
        Ok(socket)
    }

    fn with(fd: OwnedFd, address: OsString, file: Option<BoundFile>) -> NotifySocket {
        NotifySocket {
            owner: Owner::this_process(),
            file,
            fd,
            address,
            counts: Counts::default(),
            room: Room::Few,
        }
    }

    /// Sets whether [`Datagram::take_descriptors`] returns the descriptors of messages. By default they are closed. With
    /// `yes`, one message can occupy up to 253 descriptors of this process until it is handled.
    ///
    /// ```
    /// use pidherd::notify::{Buffer, Notice, NotifySocket, Received};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let mut socket = NotifySocket::new()?;
    /// socket.receive_descriptors(true);
    /// let mut buffer = Buffer::new();
    /// match socket.receive(&mut buffer, |_| Some("web"))? {
    ///     Received::Message(mut message) if message.notices().any(|notice| notice == Notice::StoreDescriptors) => {
    ///         for descriptor in message.take_descriptors() { /* keep it for the next run */ drop(descriptor) }
    ///     }
    ///     Received::Message(_) | Received::Ignored | Received::Nothing => {}
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn receive_descriptors(&mut self, yes: bool) {
        self.room = if yes { Room::All } else { Room::Few };
    }

    /// The value of [`NotifySocket::VARIABLE`] for a child: `@` and the abstract name, or the path.
    #[must_use]
    pub fn address(&self) -> &OsStr {
        &self.address
    }

    /// The counters of the datagrams so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Receives one datagram, if one is queued. `owner_of` finds the owner of the sender; see [`Credentials`]. Never
    /// blocks. The socket stays readable while more are queued, so a caller can limit the number of calls.
    ///
    /// The sender is looked up before the next message is received. `systemd-notify` waits until the message after its
    /// own was received, so it always exists during the look-up. From Linux 6.5 on, the sender is known by its pidfd
    /// (`SO_PASSPIDFD`): if it was reaped before the look-up ended, it has no owner, because another process may have
    /// got its number.
    ///
    /// A [barrier](super::Notice::Barrier) is counted, its descriptor is closed, and the result is
    /// [`Received::Ignored`], for any sender. So handle each message before the next call.
    ///
    /// ```
    /// # use pidherd::notify::{Buffer, NotifySocket, Received};
    /// let mut socket = NotifySocket::new()?;
    /// let mut buffer = Buffer::new();
    /// // Until nothing is left.
    /// loop {
    ///     match socket.receive(&mut buffer, |sender| (sender.uid == 0).then_some("root"))? {
    ///         Received::Message(message) => println!("{}: {:?}", message.owner, message.notices().next()),
    ///         Received::Ignored => {}
    ///         Received::Nothing => break,
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`OtherProcess`](crate::OtherProcess) inside, in a copy that fork(2) made, because it would take the messages of
    /// the original. Otherwise the errors of recvmsg(2): ENOBUFS, ENOMEM. A sender cannot cause an error.
    pub fn receive<'b, T>(
        &mut self,
        buffer: &'b mut Buffer,
        owner_of: impl FnOnce(Credentials) -> Option<T>,
    ) -> io::Result<Received<'b, T>> {
        // The number is checked after the look-up, which would otherwise be about another process.
        self.receive_from(buffer, |sender, process| {
            owner_of(sender).filter(|_| has_number(process) != Some(false))
        })
    }

    /// Like `receive`, with what is known about the process of the sender.
    pub(crate) fn receive_from<'b, T>(
        &mut self,
        buffer: &'b mut Buffer,
        owner_of: impl FnOnce(Credentials, &SenderProcess) -> Option<T>,
    ) -> io::Result<Received<'b, T>> {
        self.owner.check()?;
        let Some(mut arrival) = datagram::receive(self.fd.as_fd(), &mut buffer.0, self.room)? else {
            return Ok(Received::Nothing);
        };
        let text = buffer.0.get(..arrival.length).unwrap_or_default();
        let Some((sender, owner)) = self.admit(text, &arrival, owner_of) else {
            return Ok(Received::Ignored);
        };
        let notices = notice::parse(text);
        add(&mut self.counts.garbage, notices.clone().filter(Result::is_err).count());
        let had_descriptors = arrival.had_descriptors();
        let descriptors = match self.room {
            Room::All => mem::take(&mut arrival.descriptors),
            Room::Few => Passed::default(),
        };
        Ok(Received::Message(Datagram {
            sender,
            owner,
            notices,
            had_descriptors,
            descriptors,
            is_cut: arrival.is_cut,
        }))
    }

    /// The sender and the owner of a datagram, if it is accepted; counts it in any case.
    fn admit<T>(
        &mut self,
        text: &[u8],
        arrival: &Arrival,
        owner_of: impl FnOnce(Credentials, &SenderProcess) -> Option<T>,
    ) -> Option<(Credentials, T)> {
        let counts = &mut self.counts;
        add(&mut counts.received, 1);
        add(&mut counts.descriptors, arrival.had_descriptors().into());
        if arrival.truncated {
            add(&mut counts.truncated, 1);
            return None;
        }
        if notice::is_barrier(text) {
            let is_whole = arrival.descriptors.len() == 1 && notice::is_pure_barrier(text);
            add(&mut counts.barriers, is_whole.into());
            add(&mut counts.garbage, (!is_whole).into());
            return None;
        }
        let Some(sender) = arrival.sender.and_then(credentials) else {
            add(&mut counts.nameless, 1);
            return None;
        };
        let Some(owner) = owner_of(sender, &arrival.process) else {
            add(&mut counts.unknown_senders, 1);
            return None;
        };
        Some((sender, owner))
    }
}

impl From<NotifySocket> for OwnedFd {
    /// The socket's file stays.
    fn from(socket: NotifySocket) -> OwnedFd {
        let NotifySocket { file, fd, .. } = socket;
        if let Some(mut file) = file {
            file.stays = true;
        }
        fd
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for NotifySocket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// The result of [`NotifySocket::receive`].
#[derive(Debug)]
pub enum Received<'b, T> {
    /// No datagram is queued.
    Nothing,
    /// A datagram was ignored or was a barrier, and was counted. More datagrams can follow.
    Ignored,
    /// A message of a process that has an owner.
    Message(Datagram<'b, T>),
}

/// A message of a process that has an owner. Dropping it closes the descriptors that came with it; a socket among them
/// loses the option SO_LINGER first, because close(2) would wait.
#[derive(Debug)]
pub struct Datagram<'b, T> {
    /// The sender of the message.
    pub sender: Credentials,
    /// The result of `owner_of` for the sender.
    pub owner: T,
    notices: Notices<'b>,
    descriptors: Passed,
    had_descriptors: bool,
    is_cut: bool,
}

impl<'b, T> Datagram<'b, T> {
    /// The notices in the order of the message; at most 512. They borrow only from the [`Buffer`].
    pub fn notices(&self) -> impl Iterator<Item = Notice<'b>> + use<'b, T> {
        self.notices.clone().filter_map(Result::ok)
    }

    /// Takes the descriptors of the message, in their order; at most 253. They are close-on-exec. There are none unless
    /// [`NotifySocket::receive_descriptors`] was called before.
    ///
    /// ```
    /// # use pidherd::notify::{Buffer, NotifySocket, Received};
    /// # use std::os::linux::net::SocketAddrExt;
    /// # use std::os::unix::ffi::OsStrExt;
    /// # use std::os::unix::net::{SocketAddr, UnixDatagram};
    /// let mut socket = NotifySocket::new()?;
    /// socket.receive_descriptors(true);
    /// # let name = socket.address().as_bytes().strip_prefix(b"@").ok_or("it is abstract")?;
    /// # UnixDatagram::unbound()?.send_to_addr(b"FDSTORE=1", &SocketAddr::from_abstract_name(name)?)?;
    /// let mut buffer = Buffer::new();
    /// if let Received::Message(mut message) = socket.receive(&mut buffer, |_| Some("web"))? {
    ///     let descriptors = message.take_descriptors();
    ///     // This message came without any.
    ///     assert!(descriptors.is_empty());
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        self.descriptors.take()
    }

    /// Takes the descriptors of the message. Those that are not taken from the result are closed without a wait.
    pub(crate) fn take_passed(&mut self) -> Passed {
        mem::take(&mut self.descriptors)
    }

    /// Whether the kernel has discarded some descriptors of the message, because this process had no more free numbers
    /// (RLIMIT_NOFILE). Without [`NotifySocket::receive_descriptors`] all are closed, and this tells only that there were
    /// more than a few.
    #[must_use]
    pub const fn has_lost_descriptors(&self) -> bool {
        self.is_cut
    }

    /// Whether the message came with descriptors, received or not.
    pub(crate) const fn had_descriptors(&self) -> bool {
        self.had_descriptors
    }

    /// The notices and errors of the message.
    pub(crate) fn lines(&self) -> Notices<'b> {
        self.notices.clone()
    }
}

/// A buffer for one message: 4 KiB, small enough for the stack.
pub struct Buffer([u8; DATAGRAM_MAX]);

impl Buffer {
    /// Makes an empty buffer.
    ///
    /// ```
    /// # use pidherd::notify::{Buffer, NotifySocket, Received};
    /// // One for all messages.
    /// let mut buffer = Buffer::new();
    /// let mut socket = NotifySocket::new()?;
    /// assert!(matches!(socket.receive(&mut buffer, |_| Some(()))?, Received::Nothing));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn new() -> Buffer {
        Buffer([0; DATAGRAM_MAX])
    }
}

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer::new()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").finish_non_exhaustive()
    }
}

/// A socket cannot be bound to this path, or not all senders could reach it there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot use {0:?} as the path of a notify socket: it must be absolute, at most 107 bytes long and without a NUL byte"
)]
pub struct BadPath(pub PathBuf);

/// Credentials are requested before the socket has an address, so every message has them.
fn unbound() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_passcred(&fd, true)?;
    let _since_linux_6_5 = request_pidfds(fd.as_fd());
    Ok(above_standard(fd)?)
}

/// Whether there is a socket at this path that no process has open. A connection to a file that is no socket is refused
/// with the same error, so the file type is checked too.
fn is_abandoned(path: &Path, address: &SocketAddrUnix) -> io::Result<bool> {
    let is_socket = fs::symlink_metadata(path)?.file_type().is_socket();
    let probe = unbound()?;
    Ok(is_socket && retry_on_intr(|| rustix::net::connect(&probe, address)) == Err(Errno::CONNREFUSED))
}

/// The file of a bound socket. It is removed when this value is dropped.
///
/// The inode identifies the file. An open socket keeps its inode in use, so no other file can get the same number if
/// this value is dropped before the socket.
#[derive(Debug)]
struct BoundFile {
    owner: Owner,
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Whether it is left when this value is dropped.
    stays: bool,
}

impl BoundFile {
    /// Finds the socket that has just been bound to this path.
    fn find(path: &Path) -> io::Result<BoundFile> {
        let found = fs::symlink_metadata(path)?;
        Ok(BoundFile {
            owner: Owner::this_process(),
            path: path.to_owned(),
            device: found.dev(),
            inode: found.ino(),
            stays: false,
        })
    }

    fn is(&self, found: &fs::Metadata) -> bool {
        (found.dev(), found.ino()) == (self.device, self.inode)
    }

    /// Allows every user to send. The mode is changed on the file that was found, not through the path, so a link in
    /// its place is not followed.
    fn open_to_all(&self) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = retry_on_intr(|| rustix::fs::open(&self.path, flags, Mode::empty()))?;
        let file = format!("/proc/self/fd/{}", opened.as_raw_fd());
        let found = fs::metadata(&file)?;
        if !self.is(&found) || !found.file_type().is_socket() {
            return Err(Errno::STALE.into());
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(FILE_MODE))
    }
}

impl Drop for BoundFile {
    fn drop(&mut self) {
        if !self.stays && self.owner.is_here() && fs::symlink_metadata(&self.path).is_ok_and(|found| self.is(&found)) {
            let _drop_cannot_report = fs::remove_file(&self.path);
        }
    }
}

/// `None` for pid 0: a process without a number in this PID namespace.
fn credentials(raw: libc::ucred) -> Option<Credentials> {
    Some(Credentials {
        pid: Pid::new(u32::try_from(raw.pid).ok()?)?,
        uid: raw.uid,
        gid: raw.gid,
    })
}

fn add(count: &mut u64, more: usize) {
    *count = count.saturating_add(more as u64);
}

stored!(struct Counts { received, truncated, nameless, unknown_senders, descriptors, barriers, garbage });

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;
    use crate::testing::common::tempdir;

    #[test]
    fn a_descriptor_that_is_no_datagram_socket_of_this_machine_is_given_back() {
        let others: [OwnedFd; 3] = [
            UnixStream::pair().unwrap().0.into(),
            rustix::net::socket(AddressFamily::NETLINK, SocketType::DGRAM, None).unwrap(),
            fs::File::open("/dev/null").unwrap().into(),
        ];
        for fd in others {
            let number = fd.as_raw_fd();
            let refused = NotifySocket::inherited(fd, "@x".into(), Counts::default()).unwrap_err();
            assert_eq!(refused.as_raw_fd(), number);
        }
    }

    fn send(sender: &UnixDatagram, descriptors: usize) {
        let null = fs::File::open("/dev/null").unwrap();
        let all = vec![null.as_fd(); descriptors];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(20))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !all.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&all)));
        }
        sendmsg(sender, &[IoSlice::new(b"FDSTORE=1")], &mut control, SendFlags::empty()).unwrap();
    }

    #[test]
    fn a_message_tells_whether_it_had_descriptors_and_whether_some_are_lost() {
        let (here, sender) = UnixDatagram::pair().unwrap();
        sockopt::set_socket_passcred(&here, true).unwrap();
        let mut socket = NotifySocket::inherited(here.into(), "@x".into(), Counts::default()).unwrap();
        let mut buffer = Buffer::new();
        for (all, descriptors, is_lost) in [
            (false, 0, false),
            (false, 1, false),
            (false, 20, true),
            (true, 0, false),
            (true, 20, false),
        ] {
            socket.receive_descriptors(all);
            send(&sender, descriptors);
            let Received::Message(mut message) = socket.receive(&mut buffer, Some).unwrap() else {
                panic!("no message with {descriptors} descriptors");
            };
            assert_eq!(message.had_descriptors(), descriptors > 0, "{descriptors}");
            assert_eq!(message.has_lost_descriptors(), is_lost, "{descriptors}");
            assert_eq!(message.take_descriptors().len(), if all { descriptors } else { 0 });
        }
    }

    /// Between the bind and the change of the mode, another user may replace a file in a directory that is open to all.
    #[test]
    fn another_file_in_the_place_of_the_socket_keeps_its_mode() {
        let directory = tempdir();
        let (path, moved) = (directory.join("socket"), directory.join("moved"));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let _bound = UnixDatagram::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let file = BoundFile::find(&path).unwrap();
        fs::rename(&path, &moved).unwrap();
        let is_refused = || {
            let refused = file.open_to_all().map_err(|error| error.raw_os_error());
            refused == Err(Some(libc::ESTALE))
        };

        symlink(&moved, &path).unwrap();
        assert!(is_refused());
        assert_eq!(mode(&moved), 0o600);
        fs::remove_file(&path).unwrap();

        let _another = UnixDatagram::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(is_refused());
        assert_eq!(mode(&path), 0o600);
        fs::remove_file(&path).unwrap();

        fs::rename(&moved, &path).unwrap();
        file.open_to_all().unwrap();
        assert_eq!(mode(&path), 0o666);
    }
}
