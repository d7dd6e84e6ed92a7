//! The sockets of FastCGI programs.
//!
//! All processes of a program accept connections from one listening socket, which each gets as its standard input. The
//! socket is open while the program is in the configuration: connections wait while its processes are restarted.
//! supervisord closes it whenever no process is up.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::{Mode, chmod, chown};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with, sockopt::set_socket_reuseaddr,
};
use rustix::process::{Gid, Uid, umask};
use serde_json::{Value, json};

use crate::config::{FcgiPlace, FcgiSocket};
use crate::files::reason;
use crate::handing;

/// The sockets in use, and those that the program before this one has left.
struct Sockets {
    open: Vec<(FcgiSocket, Weak<OwnedFd>)>,
    left: Vec<(String, OwnedFd)>,
}

static SOCKETS: Mutex<Sockets> = Mutex::new(Sockets {
    open: Vec::new(),
    left: Vec::new(),
});

/// The socket with these settings. It is opened if no program uses it, and closed when none uses it any more.
///
/// # Errors
/// One line: the address cannot be used.
pub fn open(settings: &FcgiSocket) -> Result<Arc<OwnedFd>, String> {
    let mut sockets = SOCKETS.lock().unwrap_or_else(PoisonError::into_inner);
    sockets.open.retain(|(_, socket)| socket.strong_count() > 0);
    let same = sockets.open.iter().find(|(known, _)| known == settings);
    if let Some(socket) = same.and_then(|(_, socket)| socket.upgrade()) {
        return Ok(socket);
    }
    let left = sockets.left.iter().position(|(url, _)| *url == settings.url());
    let socket = match left {
        Some(index) => sockets.left.swap_remove(index).1,
        None => create(settings)
            .map_err(|error| format!("cannot create the socket {}: {}", settings.url(), reason(error)))?,
    };
    let socket = Arc::new(socket);
    sockets.open.push((settings.clone(), Arc::downgrade(&socket)));
    Ok(socket)
}

/// The sockets in use, for the program that takes the place of this one.
pub fn hand_over() -> (Value, Vec<Arc<OwnedFd>>) {
    let sockets = SOCKETS.lock().unwrap_or_else(PoisonError::into_inner);
    let open = sockets
        .open
        .iter()
        .filter_map(|(settings, socket)| Some((settings, socket.upgrade()?)));
    let (values, fds): (Vec<Value>, Vec<Arc<OwnedFd>>) = open
        .map(|(settings, socket)| (json!([settings.url(), socket.as_raw_fd()]), socket))
        .unzip();
    (values.into(), fds)
}

/// Takes the sockets that the program before this one has left.
pub fn take_over(left: &Value) {
    let socket = |left: &Value| Some((handing::to_text(&left[0])?, handing::fd(&left[1])?));
    let left = left.as_array().into_iter().flatten().filter_map(socket).collect();
    SOCKETS.lock().unwrap_or_else(PoisonError::into_inner).left = left;
}

/// Closes the sockets that were left and are no longer in the configuration.
pub fn close_left() {
    SOCKETS.lock().unwrap_or_else(PoisonError::into_inner).left.clear();
}

fn create(settings: &FcgiSocket) -> io::Result<OwnedFd> {
    let socket = match &settings.place {
        FcgiPlace::Unix { path, mode, owner } => unix(path, *mode, *owner)?,
        FcgiPlace::Inet(address) => {
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            set_socket_reuseaddr(&socket, true)?;
            bind(&socket, address)?;
            socket
        }
    };
    listen(&socket, settings.backlog.unwrap_or(i32::MAX))?;
    Ok(socket)
}

/// As in supervisord, an old socket at the path is replaced. A file of another type is not.
fn unix(path: &Path, mode: u32, owner: (Option<u32>, Option<u32>)) -> io::Result<OwnedFd> {
    match path.symlink_metadata() {
        Ok(file) if file.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            let message = "a file of another type is there";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        Err(_) => {}
    }
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Between bind and chmod no other user may connect. The taskmaster has one thread, so no other file is created.
    let before = umask(Mode::from_raw_mode(0o177));
    let bound = SocketAddrUnix::new(path).and_then(|address| bind(&socket, &address));
    umask(before);
    bound?;
    let (user, group) = (owner.0.map(Uid::from_raw), owner.1.map(Gid::from_raw));
    let owned = match (user, group) {
        (None, None) => Ok(()),
        (user, group) => chown(path, user, group),
    };
    let finished = owned.and_then(|()| chmod(path, Mode::from_raw_mode(mode)));
    finished.inspect_err(|_| drop(std::fs::remove_file(path)))?;
    Ok(socket)
}
