//! FastCGI programs: several processes accept connections from one socket, which is their standard input.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::process::Signal;

use crate::driver::{PATIENCE, Taskmaster};

/// The environment variable that makes the test below a server.
const SERVER: &str = "PIDHERD_TASKMASTER_FCGI";

/// This is not a test but a program that runs if the variable is set. It accepts connections from its standard input,
/// and answers with its PID.
#[test]
fn server() {
    if std::env::var_os(SERVER).is_none() {
        return;
    }
    // SAFETY: descriptor 0 is open, and nothing closes it.
    let stdin: BorrowedFd<'_> = unsafe { BorrowedFd::borrow_raw(0) };
    let listener = UnixListener::from(stdin.try_clone_to_owned().unwrap());
    loop {
        // The address of the peer is of another type for TCP, so the plain call is used.
        let client = rustix::net::accept(listener.as_fd()).unwrap();
        let text = std::process::id().to_string();
        rustix::io::write(&client, text.as_bytes()).unwrap();
    }
}

fn config(name: &str, keys: &str) -> String {
    let ours = std::env::current_exe().unwrap();
    let ours = ours.display();
    format!(
        "[fcgi-program:{name}]\ncommand={ours} --exact fastcgi::server\nprocess_name={name}_%(process_num)d\n\
         environment={SERVER}=1\nstartsecs=0\nautorestart=true\n{keys}\n"
    )
}

fn answer(mut client: impl Read) -> u32 {
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    text.parse().unwrap()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

#[test]
fn the_processes_of_a_fastcgi_program_share_a_socket() {
    let keys = "numprocs=2\nsocket=unix://%(here)s/%(program_name)s.sock\nsocket_mode=0640\nsocket_backlog=5";
    let mut herd = Taskmaster::start(&config("web", keys));
    for process in ["web:web_0", "web:web_1"] {
        herd.reached(process, "RUNNING");
    }
    let path = herd.dir.path("web.sock");
    let file = fs::symlink_metadata(&path).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o640);
    let mut pids = vec![herd.pid_of("web:web_0"), herd.pid_of("web:web_1")];
    let first = answer(UnixStream::connect(&path).unwrap());
    assert!(pids.contains(&first), "{first} {pids:?}");
    // The other process answers after the death of the first, and the new one later. The socket stays.
    let name = if first == pids[0] { "web:web_0" } else { "web:web_1" };
    kill(first);
    // Until its end the process may still take a connection.
    herd.reached(name, "RUNNING");
    pids.retain(|pid| *pid != first);
    assert_ne!(answer(UnixStream::connect(&path).unwrap()), first);
    assert!(herd.ask("restart web:*").starts_with("ok: "));
    for process in ["web:web_0", "web:web_1"] {
        herd.reached(process, "RUNNING");
    }
    assert_ne!(answer(UnixStream::connect(&path).unwrap()), pids[0]);
    assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), file.ino());
    herd.shut_down();
}

#[test]
fn a_connection_waits_while_no_process_is_up() {
    let mut herd = Taskmaster::start(&config("web", "socket=unix://%(here)s/s\nautostart=false"));
    let path = herd.dir.path("s");
    crate::common::wait_until("the socket", PATIENCE, || path.exists());
    let waiting = UnixStream::connect(&path).unwrap();
    assert!(herd.ask("start web:*").starts_with("ok: "));
    herd.reached("web:web_0", "RUNNING");
    assert_eq!(answer(waiting), herd.pid_of("web:web_0"));
    // A hand-over and a reload keep the socket. Another address is another socket.
    let before = fs::symlink_metadata(&path).unwrap().ino();
    assert!(herd.ask("reexec").starts_with("ok: "));
    assert!(herd.ask("reload").contains("1 unchanged"), "{}", herd.transcript());
    assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), before);
    let pid = herd.pid_of("web:web_0");
    assert_eq!(answer(UnixStream::connect(&path).unwrap()), pid);
    fs::write(herd.dir.path("herd.conf"), config("web", "socket=unix://%(here)s/t")).unwrap();
    assert!(herd.ask("reload").contains("1 changed"));
    herd.reached("web:web_0", "STOPPING");
    herd.reached("web:web_0", "RUNNING");
    let pid = herd.pid_of("web:web_0");
    assert_eq!(answer(UnixStream::connect(herd.dir.path("t")).unwrap()), pid);
    herd.shut_down();
}

#[test]
fn a_fastcgi_program_may_listen_at_a_port() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut herd = Taskmaster::start(&config("web", &format!("socket=tcp://localhost:{}", free.port())));
    herd.reached("web:web_0", "RUNNING");
    let mut client = TcpStream::connect(free).unwrap();
    client.flush().unwrap();
    assert_eq!(answer(&mut client), herd.pid_of("web:web_0"));
    herd.shut_down();
}
