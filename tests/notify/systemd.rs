//! Debian's own systemd-notify as the client.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use pidherd::notify::{Buffer, Credentials, Notice, NotifySocket};

use super::common::{isolated, root_or_skip, skipped};
use super::{hear, is_empty, only, own_pid};

/// Whether there is one; if not, says so.
pub fn installed() -> bool {
    let found = Command::new("systemd-notify").arg("--version").output().is_ok();
    if !found {
        skipped("needs systemd-notify");
    }
    found
}

fn systemd_notify(socket: &NotifySocket, arguments: &[&str]) -> Command {
    let mut command = Command::new("systemd-notify");
    command.args(arguments).env(NotifySocket::VARIABLE, socket.address());
    command
}

/// Takes a message of a descendant of the test.
fn hear_child<'b>(socket: &mut NotifySocket, buffer: &'b mut Buffer) -> Vec<Notice<'b>> {
    let heard = hear(socket, buffer, |sender| sender.find_by_pid(only(own_pid())));
    heard.expect("it is ours").2
}

/// Receives the barrier that the process waits for, and checks that it succeeds. It fails after five seconds if the
/// barrier's descriptor remains open.
fn release(socket: &mut NotifySocket, mut child: Child) {
    assert!(child.try_wait().unwrap().is_none(), "it waits for its barrier");
    assert!(hear(socket, &mut Buffer::new(), |_| Some(())).is_none());
    assert_eq!((socket.counts().descriptors, socket.counts().barriers), (1, 1));
    assert!(child.wait().unwrap().success(), "the barrier was not answered");
    assert!(is_empty(socket));
    assert_eq!(socket.counts().garbage, 0);
}

#[test]
fn it_is_understood_and_let_go() {
    isolated(|| {
        if !installed() {
            return;
        }
        for (arguments, expected) in [
            (&["--ready"][..], &[Notice::Ready][..]),
            (&["--status=Warming up"], &[Notice::Status("Warming up")]),
            (&["--ready", "--status="], &[Notice::Ready, Notice::Status("")]),
            (&["--pid"], &[Notice::MainPidRefused]),
            (
                &["STOPPING=1", "WATCHDOG=trigger"],
                &[Notice::Stopping, Notice::WatchdogTrigger],
            ),
        ] {
            let mut socket = NotifySocket::new().unwrap();
            let child = systemd_notify(&socket, arguments).spawn().unwrap();
            let mut buffer = Buffer::new();
            let mut notices = hear_child(&mut socket, &mut buffer);
            notices.sort_by_key(|notice| !matches!(notice, Notice::Ready));
            assert_eq!(notices, expected, "{arguments:?}");
            release(&mut socket, child);
        }
    });
}

#[test]
fn a_message_in_the_name_of_an_unrelated_process_is_ignored() {
    isolated(|| {
        if !installed() || !root_or_skip("sending in another's name") {
            return;
        }
        let mut socket = NotifySocket::new().unwrap();
        let mut child = systemd_notify(&socket, &["--pid=1", "--ready"]).spawn().unwrap();
        let mut buffer = Buffer::new();
        let owner_of = |sender: Credentials| {
            assert_eq!(sender.pid.as_raw(), 1);
            sender.find_by_pid(only(own_pid()))
        };
        assert!(hear(&mut socket, &mut buffer, owner_of).is_none());
        assert!(hear(&mut socket, &mut buffer, |_| None::<()>).is_none());
        assert_eq!((socket.counts().unknown_senders, socket.counts().barriers), (1, 1));
        assert!(child.wait().unwrap().success(), "the barrier was not answered");
    });
}

#[test]
fn it_need_not_wait() {
    isolated(|| {
        if !installed() {
            return;
        }
        let mut socket = NotifySocket::new().unwrap();
        let mut child = systemd_notify(&socket, &["--ready", "--no-block"]).spawn().unwrap();
        assert_eq!(hear_child(&mut socket, &mut Buffer::new()), [Notice::Ready]);
        assert!(child.wait().unwrap().success());
        assert!(is_empty(&mut socket));
    });
}

#[test]
fn without_privileges_it_goes_by_its_own_pid() {
    isolated(|| {
        if !installed() || !root_or_skip("a child with another user id") {
            return;
        }
        let mut socket = NotifySocket::new().unwrap();
        let child = systemd_notify(&socket, &["--ready"])
            .uid(65534)
            .gid(65534)
            .spawn()
            .unwrap();
        let itself = only(child.id());
        let mut buffer = Buffer::new();
        let (sender, _, notices) = hear(&mut socket, &mut buffer, |sender| sender.find_by_pid(itself)).unwrap();
        assert_eq!(sender.pid.as_raw(), child.id());
        assert_eq!(notices, [Notice::Ready]);
        release(&mut socket, child);
    });
}
