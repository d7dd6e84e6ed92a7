//! Messages are accepted from the process itself, its descendants and the members of its cgroup only.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pidherd::notify::{Buffer, Credentials, Notice, NotifySocket};

use super::common::{SOON, isolated, kernel_since, root_or_skip, tempdir, test_cgroup};
use super::systemd::installed;
use super::{DEPTH, connected, finish, hear, hear_own, only, own_pid, send, sender};

/// Where a receiver in a namespace of its own binds its socket.
const PLACE: &str = "PIDHERD_TEST_PLACE";

/// The id of a user without rights.
const NOBODY: u32 = 65534;

fn by_pid(known: u32) -> impl FnOnce(Credentials) -> Option<u32> {
    move |sender| sender.find_by_pid(only(known))
}

/// The same command, run by another.
fn under(wrapper: &[&str], command: &Command) -> Command {
    let mut wrapped = Command::new(wrapper[0]);
    wrapped
        .args(&wrapper[1..])
        .arg(command.get_program())
        .args(command.get_args())
        .envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))))
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    wrapped
}

#[test]
fn a_child_is_believed_and_a_stranger_is_not() {
    isolated(|| {
        let mut socket = NotifySocket::new().unwrap();
        let mut buffer = Buffer::new();
        let child = sender(&socket, "READY=1").spawn().unwrap();
        let (credentials, owner, notices) = hear(&mut socket, &mut buffer, by_pid(child.id())).unwrap();
        assert_eq!(owner, child.id());
        assert_eq!(credentials.pid.as_raw(), child.id());
        assert_eq!(credentials.uid, rustix::process::getuid().as_raw());
        assert_eq!(credentials.gid, rustix::process::getgid().as_raw());
        assert_eq!(notices, [Notice::Ready]);

        // To that child its sibling is a stranger, and so is its parent.
        let sibling = sender(&socket, "nonsense").spawn().unwrap();
        assert!(hear(&mut socket, &mut buffer, by_pid(child.id())).is_none());
        send(&socket, b"nonsense");
        assert!(hear(&mut socket, &mut buffer, by_pid(child.id())).is_none());
        assert_eq!(socket.counts().unknown_senders, 2);
        assert_eq!(socket.counts().garbage, 0, "a stranger's nonsense is not looked at");
        finish(child);
        finish(sibling);
    });
}

#[test]
fn a_descendant_is_believed_within_64_generations() {
    isolated(|| {
        let mut socket = NotifySocket::new().unwrap();
        let mut buffer = Buffer::new();
        for (depth, believed) in [(1, true), (63, true), (64, false)] {
            let child = sender(&socket, "WATCHDOG=1")
                .env(DEPTH, depth.to_string())
                .spawn()
                .unwrap();
            let heard = hear(&mut socket, &mut buffer, by_pid(child.id()));
            if let Some((credentials, ..)) = &heard {
                assert_ne!(credentials.pid.as_raw(), child.id());
            }
            assert_eq!(heard.is_some(), believed, "{depth} generations down");
            finish(child);
        }
        assert_eq!(socket.counts().unknown_senders, 1);
    });
}

#[test]
fn a_sender_that_was_reaped_is_not_believed() {
    isolated(|| {
        // An older kernel does not tell which process had the number.
        let has_pidfds = kernel_since(6, 5);
        let mut socket = NotifySocket::new().unwrap();
        let mut buffer = Buffer::new();
        for (depth, believed) in [("0", !has_pidfds), ("1", false)] {
            let child = sender(&socket, "STOPPING=1").env(DEPTH, depth).spawn().unwrap();
            let pid = child.id();
            finish(child);
            let heard = hear(&mut socket, &mut buffer, by_pid(pid));
            assert_eq!(heard.is_some(), believed, "{depth} generations down");
        }
        assert_eq!(socket.counts().unknown_senders, 1 + u64::from(has_pidfds));
    });
}

#[test]
fn a_zombie_still_has_a_parent() {
    isolated(|| {
        let mut socket = NotifySocket::new().unwrap();
        let mut child = sender(&socket, "STOPPING=1").spawn().unwrap();
        drop(child.stdin.take());
        assert!(super::common::wait_gone(child.id(), SOON));
        assert!(hear(&mut socket, &mut Buffer::new(), by_pid(own_pid())).is_some());
        child.wait().unwrap();
    });
}

#[test]
fn an_orphan_is_believed_by_its_cgroup() {
    isolated(|| {
        let Some(cgroup) = test_cgroup() else { return };
        let name = cgroup.path().file_name().unwrap();
        let mut socket = NotifySocket::new().unwrap();
        // A shell may connect the standard input of a background command to /dev/null before it redirects.
        let script = format!(
            "exec 3<&0; echo $$ >{}/cgroup.procs; \"$@\" <&3 3<&- &",
            cgroup.path().display()
        );
        let command = under(&["sh", "-c", &script, "sh"], &sender(&socket, "READY=1"));
        let mut shell = { command }.spawn().unwrap();
        let (stdin, pid) = (shell.stdin.take(), shell.id());
        assert!(shell.wait().unwrap().success());

        let in_it = |sender: Credentials| {
            assert_eq!(sender.find_by_pid(only(pid)), None, "its parent is gone");
            assert_eq!(sender.find_by_cgroup(|_| None::<()>), None);
            sender.find_by_cgroup(|path| path.ends_with(name).then(|| path.to_owned()))
        };
        let mut buffer = Buffer::new();
        let (_, path, notices) = hear(&mut socket, &mut buffer, in_it).expect("it is in there");
        assert_eq!(notices, [Notice::Ready]);
        assert!(path.starts_with("/"));

        send(&socket, b"READY=1");
        assert!(
            hear(&mut socket, &mut buffer, in_it).is_none(),
            "the test itself is not in there"
        );
        drop(stdin);
    });
}

#[test]
fn another_user_may_send() {
    isolated(|| {
        if !installed() || !root_or_skip("a child with another user id") {
            return;
        }
        let place = tempdir();
        for socket in [NotifySocket::new(), NotifySocket::bind(place.join("notify"))] {
            let mut socket = socket.unwrap();
            let mut child = sends_as_nobody(&socket);
            let mut buffer = Buffer::new();
            let (credentials, ..) = hear(&mut socket, &mut buffer, by_pid(child.id())).unwrap();
            assert_eq!((credentials.uid, credentials.gid), (NOBODY, NOBODY));
            assert!(child.wait().unwrap().success());
        }
    });
}

/// The test binary can be in a directory that the user cannot enter, so the system's own program is used.
fn sends_as_nobody(socket: &NotifySocket) -> std::process::Child {
    Command::new("systemd-notify")
        .args(["--no-block", "STOPPING=1"])
        .env(NotifySocket::VARIABLE, socket.address())
        .uid(NOBODY)
        .gid(NOBODY)
        .spawn()
        .unwrap()
}

#[test]
fn a_path_leads_out_of_a_network_namespace() {
    isolated(|| {
        if !root_or_skip("a network namespace") {
            return;
        }
        let place = tempdir();
        let mut socket = NotifySocket::bind(place.join("notify")).unwrap();
        let child = under(&["unshare", "--net"], &sender(&socket, "READY=1"))
            .spawn()
            .unwrap();
        assert!(hear(&mut socket, &mut Buffer::new(), by_pid(child.id())).is_some());
        finish(child);
    });
}

#[test]
fn a_child_in_a_pid_namespace_is_known_by_its_number_here() {
    isolated(|| {
        if !root_or_skip("a PID namespace") {
            return;
        }
        let mut socket = NotifySocket::new().unwrap();
        let command = sender(&socket, "READY=1");
        let child = under(&["unshare", "--pid", "--fork"], &command).spawn().unwrap();
        let mut buffer = Buffer::new();
        let (credentials, ..) = hear(&mut socket, &mut buffer, by_pid(child.id())).unwrap();
        assert_ne!(credentials.pid.as_raw(), 1, "that is its number there");
        finish(child);
    });
}

#[test]
fn a_sender_outside_of_the_pid_namespace_is_nameless() {
    isolated(|| {
        if !root_or_skip("a PID namespace") {
            return;
        }
        let place = tempdir();
        let path = place.join("notify");
        let mut receiver = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child"])
            .arg(env::current_exe().unwrap())
            .args([
                "sender::child_that_receives",
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(PLACE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(receiver.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        assert!(lines.any(|line| line.ends_with("bound")));
        let there = connected(path.as_os_str()).unwrap();
        there.send(b"READY=1").unwrap();
        assert!(lines.any(|line| line == "nameless"));
        lines.for_each(drop);
        assert!(receiver.wait().unwrap().success());
    });
}

/// Another test runs this test as its child. Without the variable it does nothing.
#[test]
fn child_that_receives() {
    let Some(place) = env::var_os(PLACE) else { return };
    let mut socket = NotifySocket::bind(PathBuf::from(place)).unwrap();
    println!("bound");
    let mut buffer = Buffer::new();
    let heard = hear(&mut socket, &mut buffer, |_| -> Option<()> {
        panic!("the function is not called")
    });
    assert!(heard.is_none());
    let counts = socket.counts();
    assert_eq!((counts.received, counts.nameless, counts.unknown_senders), (1, 1, 0));
    println!("nameless");
}

#[test]
fn the_calling_process_is_found_in_its_cgroup() {
    isolated(|| {
        let mut socket = NotifySocket::new().unwrap();
        send(&socket, b"READY=1");
        let wanted = fs::read_to_string("/proc/self/cgroup").unwrap();
        let Some(wanted) = wanted.lines().find_map(|line| line.strip_prefix("0::")) else {
            return;
        };
        let owner_of = |sender: Credentials| sender.find_by_cgroup(|path| (path == Path::new(wanted)).then_some(()));
        assert!(hear(&mut socket, &mut Buffer::new(), owner_of).is_some());
        send(&socket, b"READY=1");
        assert_eq!(hear_own(&mut socket, &mut Buffer::new()), [Notice::Ready]);
    });
}
