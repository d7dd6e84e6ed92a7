//! Reports of children over real sockets and pipes, and the check of the sender.

#[path = "../common/mod.rs"]
mod common;

mod parser;
mod ready;
mod sender;
mod socket;
mod systemd;

use std::env;
use std::io::{self, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Command, Stdio};

use pidherd::Pid;
use pidherd::notify::{Buffer, Credentials, Notice, NotifySocket, Received};

use common::{SOON, wait_readable};

/// What a process started by [`sender`] is to send, and how many generations below it.
const TEXT: &str = "PIDHERD_TEST_TEXT";
const DEPTH: &str = "PIDHERD_TEST_DEPTH";

/// A socket connected to that address, as a child makes it from its environment.
fn connected(address: &std::ffi::OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// Sends this from the test's own process.
fn send(socket: &NotifySocket, text: &[u8]) {
    let sent = connected(socket.address()).unwrap().send(text).unwrap();
    assert_eq!(sent, text.len());
}

/// A process that sends this, and lives until its standard input is closed.
fn sender(socket: &NotifySocket, text: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["child_that_sends", "--exact", "--nocapture", "--test-threads=1"])
        .env(NotifySocket::VARIABLE, socket.address())
        .env(TEXT, text)
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    command
}

/// Lets a sender go.
fn finish(mut child: Child) {
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

/// The others run this test as their child. Without the variable it does nothing.
#[test]
fn child_that_sends() {
    let Ok(text) = env::var(TEXT) else { return };
    match env::var(DEPTH).map_or(0, |depth| depth.parse::<u32>().unwrap()) {
        0 => {
            let address = env::var_os(NotifySocket::VARIABLE).unwrap();
            connected(&address).unwrap().send(text.as_bytes()).unwrap();
            io::stdin().read_to_end(&mut Vec::new()).unwrap();
        }
        depth => {
            let this = env::args_os().collect::<Vec<_>>();
            let mut child = Command::new(&this[0]);
            let child = child.args(&this[1..]).env(DEPTH, (depth - 1).to_string());
            assert!(child.status().unwrap().success());
        }
    }
}

/// Finds the owner of a process, if only one process is known.
fn only(known: u32) -> impl FnMut(Pid) -> Option<u32> {
    move |pid| (pid.as_raw() == known).then_some(known)
}

fn own_pid() -> u32 {
    std::process::id()
}

/// Waits for a datagram and takes it. `None` if it was ignored.
fn hear<'b, T>(
    socket: &mut NotifySocket,
    buffer: &'b mut Buffer,
    owner_of: impl FnOnce(Credentials) -> Option<T>,
) -> Option<(Credentials, T, Vec<Notice<'b>>)> {
    assert!(wait_readable(&*socket, SOON), "nothing came");
    match socket.receive(buffer, owner_of).unwrap() {
        Received::Message(message) => {
            let notices = message.notices().collect();
            Some((message.sender, message.owner, notices))
        }
        Received::Ignored => None,
        Received::Nothing => panic!("readable, and nothing there"),
    }
}

/// The same for what the test's own process has sent.
fn hear_own<'b>(socket: &mut NotifySocket, buffer: &'b mut Buffer) -> Vec<Notice<'b>> {
    let (sender, _, notices) = hear(socket, buffer, |sender| sender.find_by_pid(only(own_pid()))).expect("it was ours");
    assert_eq!(sender.pid.as_raw(), own_pid());
    notices
}

fn is_empty(socket: &mut NotifySocket) -> bool {
    matches!(socket.receive(&mut Buffer::new(), |_| Some(())), Ok(Received::Nothing))
}
