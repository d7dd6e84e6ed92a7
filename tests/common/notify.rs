//! The process's end of a notify socket.

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// A socket whose messages go to the supervisor of this process.
pub fn to_the_supervisor() -> UnixDatagram {
    let address = env::var("NOTIFY_SOCKET").unwrap();
    let address = SocketAddr::from_abstract_name(address.strip_prefix('@').unwrap()).unwrap();
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect_addr(&address).unwrap();
    socket
}
