//! A listening socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{Mode, chmod, chown};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with};
use rustix::process::{Gid, Uid, umask};

use crate::config::{Address, Server as Settings};
use crate::files::reason;

/// The number of connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 128;

/// A listening socket, and its file if it has one.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    settings: Settings,
    /// The device and the number of the file, which is removed at the end.
    file: Option<(u64, u64)>,
    keeps_file: bool,
}

impl Listener {
    /// Listens. `inherited` is the socket of the program before this one in the same process.
    ///
    /// # Errors
    /// One line: the address cannot be used.
    pub fn open(settings: Settings, inherited: Option<OwnedFd>) -> Result<Listener, String> {
        let failed = |error: io::Error| format!("cannot listen at {}: {}", settings.url(), reason(error));
        let socket = match (inherited, &settings.address) {
            (Some(socket), _) => socket,
            (None, Address::Unix { path, mode, owner }) => unix(path, *mode, *owner).map_err(failed)?,
            (None, Address::Inet(address)) => inet(*address).map_err(failed)?,
        };
        let file = match &settings.address {
            Address::Unix { path, .. } => path.symlink_metadata().ok().map(|file| (file.dev(), file.ino())),
            Address::Inet(_) => None,
        };
        Ok(Listener {
            socket,
            settings,
            file,
            keeps_file: false,
        })
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether the file stays when the listener is dropped.
    pub fn keep_file(&mut self, keep: bool) {
        self.keeps_file = keep;
    }

    /// The next connection. `None` if there is none.
    ///
    /// # Errors
    /// A lack of descriptors or of memory.
    pub fn accept(&self) -> Result<Option<OwnedFd>, Errno> {
        match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => Ok(Some(socket)),
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => Err(error),
            // The client has gone, or another error of the network (accept(2)).
            Err(_) => Ok(None),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Address::Unix { path, .. } = &self.settings.address else {
            return;
        };
        let now = path.symlink_metadata().ok().map(|file| (file.dev(), file.ino()));
        if !self.keeps_file && now.is_some() && now == self.file {
            let _gone = std::fs::remove_file(path);
        }
    }
}

/// A socket that is left over from a taskmaster that was killed is replaced. One that another program serves is not.
fn unix(path: &Path, mode: u32, owner: (Option<u32>, Option<u32>)) -> io::Result<OwnedFd> {
    match path.symlink_metadata() {
        Ok(file) if !file.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file of another type is there",
            ));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(Errno::ADDRINUSE.into()),
        Ok(_) => std::fs::remove_file(path)?,
        Err(_) => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Between bind and chmod no other user may connect. The taskmaster has one thread, so no other file is created.
    let before = umask(Mode::from_raw_mode(0o177));
    let bound = SocketAddrUnix::new(path).and_then(|address| bind(&socket, &address));
    umask(before);
    bound?;
    let ids = (owner.0.map(Uid::from_raw), owner.1.map(Gid::from_raw));
    let finished = match ids {
        (None, None) => Ok(()),
        (user, group) => chown(path, user, group),
    };
    let finished = finished.and_then(|()| chmod(path, Mode::from_raw_mode(mode)));
    if let Err(error) = finished.and_then(|()| listen(&socket, BACKLOG)) {
        let _gone = std::fs::remove_file(path);
        return Err(error.into());
    }
    Ok(socket)
}

fn inet(address: std::net::SocketAddr) -> io::Result<OwnedFd> {
    // The standard library sets SO_REUSEADDR, so that a restart needs no wait for old connections.
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}
