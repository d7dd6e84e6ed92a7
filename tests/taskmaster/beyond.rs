//! The keys that supervisord does not have: readiness, watchdogs and cgroups.

use std::fs;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType, sendmsg_addr,
    socket,
};

use crate::common::{TestCgroup, patience, root_or_skip, skipped, test_cgroup};
use crate::driver::{Dir, PATIENCE, Taskmaster, binary, fifo, refused};

/// The environment variable with the message of the test's own notify client.
const MESSAGE: &str = "PIDHERD_TASKMASTER_MESSAGE";

/// A piece of shell that sends `words` to the notify socket. It uses systemd's client, or the test's own client,
/// which is this test binary, if systemd's is not installed.
fn send(words: &str) -> String {
    let theirs = Command::new("systemd-notify").arg("--version").output();
    if theirs.is_ok_and(|output| output.status.success()) {
        return format!("systemd-notify {words}");
    }
    let ours = std::env::current_exe().unwrap();
    format!("{MESSAGE}={words} {} --exact beyond::notify_client", ours.display())
}

/// This is not a test but a program that runs if the variable is set. A sender that has exited before its message is
/// read is unknown. So the program waits until its message was read. The read closes the descriptor that the message
/// passes.
#[test]
fn notify_client() {
    let Ok(words) = std::env::var(MESSAGE) else { return };
    let address = std::env::var("NOTIFY_SOCKET").unwrap();
    let address = SocketAddrUnix::new_abstract_name(&address.as_bytes()[1..]).unwrap();
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None).unwrap();
    let (ours, theirs) = rustix::pipe::pipe().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [theirs.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let say = |words: &str, control: &mut SendAncillaryBuffer<'_, '_, '_>| {
        let words = [IoSlice::new(words.as_bytes())];
        sendmsg_addr(&socket, &address, &words, control, SendFlags::empty()).unwrap()
    };
    say(&words, &mut SendAncillaryBuffer::default());
    say("BARRIER=1", &mut control);
    drop(theirs);
    assert_eq!(rustix::io::read(ours, &mut [0; 1]), Ok(0));
}

/// The configuration of a program with a script and additional lines.
fn program(name: &str, script: &str, more: &str) -> String {
    format!("[program:{name}]\ncommand=sh -c \"{script}\"\nstderr_logfile=/dev/stderr\nstartsecs=0\n{more}")
}

/// Asks for the status of `name` until the status contains `word`.
fn status_with(herd: &mut Taskmaster, name: &str, word: &str) -> String {
    let end = Instant::now() + PATIENCE * patience();
    loop {
        let line = herd.ask(&format!("status {name}"));
        if line.contains(word) {
            return line;
        }
        assert!(Instant::now() < end, "no {word:?}; {}", herd.transcript());
    }
}

#[test]
fn a_notifying_process_is_running_only_after_ready() {
    let (status, ready) = (send("STATUS=Reading."), send("READY=1"));
    let script = format!("{status}; read go < go; {ready}; exec sleep 1000");
    let mut herd = Taskmaster::start(&program("a", &script, "readiness=notify\n"));
    let go = fifo(&herd.dir, "go");
    let line = status_with(&mut herd, "a", "Reading");
    assert!(line.starts_with("a   STARTING   pid "), "{line}");
    assert!(line.ends_with(", not ready yet, status \"Reading.\""), "{line}");
    assert_eq!(herd.states("a:a"), ["STARTING"]);
    fs::write(go, "now\n").unwrap();
    assert_eq!(herd.reached("a:a", "RUNNING").cause, "ready");
    assert!(herd.ask("status a").ends_with(", status \"Reading.\""));
    herd.shut_down();
}

#[test]
fn a_status_text_stays_in_its_line() {
    let (ready, long) = (send("READY=1"), send(&format!("STATUS={}", "ä".repeat(100))));
    let script = format!("{long}; {ready}; exec sleep 1000");
    let mut herd = Taskmaster::start(&program("a", &script, "readiness=notify\n"));
    herd.reached("a:a", "RUNNING");
    let line = herd.ask("status a");
    assert!(line.ends_with(&format!(", status \"{}\"...", "ä".repeat(60))), "{line}");
    herd.shut_down();
}

#[test]
fn a_missed_watchdog_is_reported() {
    let script = format!("echo $WATCHDOG_USEC usec >&2; {}; exec sleep 1000", send("READY=1"));
    let config = program("a", &script, "readiness=notify\nwatchdogsecs=1\nautorestart=false\n");
    let mut herd = Taskmaster::start(&config);
    herd.complaint("1000000 usec");
    let up = herd.reached("a:a", "RUNNING");
    let hung = herd.reached("a:a", "STOPPING");
    assert_eq!(hung.cause, "watchdog missed");
    assert!(hung.t - up.t > 0.99, "{} {}", up.t, hung.t);
    let ended = herd.reached("a:a", "EXITED");
    assert_eq!(ended.cause, "watchdog missed");
    assert_eq!(ended.exit, serde_json::json!({"signal": "SIGTERM", "core": false}));
    herd.shut_down();
}

#[test]
fn a_newline_on_its_descriptor_makes_it_running() {
    let config = [
        program("good", "read go < go; echo >&3; exec sleep 1000", "readiness=fd:3\n"),
        program(
            "closed",
            "exec 3>&-; exec sleep 1000",
            "readiness=fd:3\nstartretries=0\n",
        ),
        program(
            "late",
            "exec sleep 1000",
            "readiness=fd:7\nreadysecs=1\nstartretries=0\n",
        ),
    ];
    let mut herd = Taskmaster::start(&config.concat());
    let go = fifo(&herd.dir, "go");
    let cause = "readiness descriptor closed without a message";
    assert_eq!(herd.reached("closed:closed", "STOPPING").cause, cause);
    let late = herd.reached("late:late", "STOPPING");
    assert!(
        (0.99..20.0).contains(&late.t) && late.cause == "not ready in time",
        "{late:?}"
    );
    for (name, why) in [("closed", cause), ("late", "not ready in time")] {
        herd.reached(&format!("{name}:{name}"), "FATAL");
        assert!(
            herd.ask(&format!("status {name}"))
                .ends_with(&format!("{why}; given up"))
        );
    }
    assert_eq!(herd.states("good:good"), ["STARTING"]);
    fs::write(go, "now\n").unwrap();
    assert_eq!(herd.reached("good:good", "RUNNING").cause, "ready");
    herd.shut_down();
}

#[test]
fn the_socket_of_a_service_manager_is_not_inherited() {
    let dir = Dir::new();
    let script = "echo socket ${NOTIFY_SOCKET-none} ${WATCHDOG_USEC-none} >&2; exec sleep 1000";
    dir.file("herd.conf", &program("a", script, ""));
    fifo(&dir, "events");
    let mut command = Command::new(binary());
    command
        .args(["--events", "events", "herd.conf"])
        .env("NOTIFY_SOCKET", "@not-for-them")
        .env("WATCHDOG_USEC", "1");
    let mut herd = Taskmaster::run(dir, command);
    herd.complaint("socket none none");
    herd.shut_down();
}

/// Two processes that ignore SIGTERM, have forked twice, and run in a session of their own.
const FUGITIVE: &str = "(setsid sh -c 'trap \\\"\\\" TERM; echo escaped >&2; sleep 1000 & sleep 1000' &); ";

fn tree(name: &str, script: &str, cgroup: &TestCgroup) -> String {
    let more = format!("stopwaitsecs=1\ncgroup={}\n", cgroup.path().display());
    program(name, &format!("{FUGITIVE}{script}"), &more)
}

#[test]
fn no_process_escapes_from_its_cgroup() {
    let Some(cgroup) = test_cgroup() else { return };
    let mut herd = Taskmaster::start(&tree("a", "exec sleep 1000", &cgroup));
    herd.reached("a:a", "RUNNING");
    herd.complaint("escaped");
    assert!(herd.living("sleep 1000").len() > 1, "{}", herd.transcript());
    assert_eq!(herd.ask("stop a"), "ok: stop a: accepted");
    herd.reached("a:a", "STOPPING");
    let line = status_with(&mut herd, "a", "killed by SIGTERM");
    assert!(
        line.ends_with("killed by SIGTERM, but processes that it started are alive"),
        "{line}"
    );
    herd.reached("a:a", "STOPPED");
    assert_eq!(herd.living("sleep"), Vec::<String>::new(), "{}", herd.transcript());
    assert!(!cgroup.is_populated());
    herd.shut_down();
    let leaves = fs::read_dir(cgroup.path()).unwrap().flatten();
    assert_eq!(leaves.filter(|entry| entry.path().is_dir()).count(), 0);
}

#[test]
fn a_reload_applies_these_keys() {
    let Some(cgroup) = test_cgroup() else { return };
    let sleep = "exec sleep 1000";
    let ready = format!("{}; {sleep}", send("READY=1"));
    let with = |keys: &str| program("a", &ready, keys);
    let mut herd = Taskmaster::start(&with(""));
    herd.reached("a:a", "RUNNING");
    let cgroup_key = format!("cgroup={}\n", cgroup.path().display());
    for (keys, restarts) in [
        ("readiness=notify\n", true),
        ("readiness=notify\nreadysecs=20\n", false),
        ("readiness=notify\nwatchdogsecs=1000\n", true),
        (cgroup_key.as_str(), true),
        (cgroup_key.as_str(), false),
    ] {
        let before = herd.pid_of("a:a");
        fs::write(herd.dir.path("herd.conf"), with(keys)).unwrap();
        assert!(herd.ask("reload").starts_with("ok: reload: 0 added, 0 removed, "));
        if restarts {
            herd.reached("a:a", "STOPPING");
            assert_eq!(herd.reached("a:a", "RUNNING").from, "STARTING");
        }
        let now = herd.pid_of("a:a");
        assert_eq!(before != now, restarts, "{keys}: {}", herd.transcript());
        assert!(herd.ask("status a").contains(&format!(" pid {now},")));
    }
    assert!(cgroup.is_populated());
    fs::write(herd.dir.path("herd.conf"), with("cgroup=/no/such\n")).unwrap();
    assert!(herd.ask("reload").starts_with("error: nothing is changed: "));
    herd.shut_down();
}

#[test]
fn a_readded_program_waits_for_the_old_one_in_its_cgroup() {
    let Some(cgroup) = test_cgroup() else { return };
    let config = tree("a", "exec sleep 1000", &cgroup);
    let mut herd = Taskmaster::start(&config);
    herd.reached("a:a", "RUNNING");
    herd.complaint("escaped");
    fs::write(herd.dir.path("herd.conf"), "[supervisord]\n").unwrap();
    assert!(herd.ask("reload").contains("1 removed"));
    fs::write(herd.dir.path("herd.conf"), config).unwrap();
    assert!(herd.ask("reload").contains("1 added"));
    assert_eq!(
        herd.ask("start a"),
        "error: the old program of this name is still being stopped"
    );
    herd.reached("a:a", "STOPPED");
    assert_eq!(herd.reached("a:a", "STARTING").run, 1);
    herd.reached("a:a", "RUNNING");
    herd.complaint("escaped");
    herd.shut_down();
}

#[test]
fn a_directory_that_cannot_hold_cgroups_is_refused() {
    let mut cases = vec![
        ("/no/such/directory", "there is no cgroup"),
        ("/etc/passwd", "not a directory"),
        ("/proc", "not in a cgroup file system"),
        ("here", "absolute"),
    ];
    if fs::exists("/sys/fs/cgroup/cpu/cgroup.clone_children").unwrap_or(false) {
        cases.push(("/sys/fs/cgroup/cpu", "version 1"));
    } else {
        skipped("there is no cgroup of version 1 to refuse");
    }
    for (path, word) in cases {
        let errors = refused(&format!("[program:web]\ncommand=true\ncgroup={path}\n"));
        let place = format!("[program:web] cgroup={path:?}: ");
        assert!(errors.contains(&place) && errors.contains(word), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}

#[test]
fn a_cgroup_of_another_user_is_refused() {
    if !root_or_skip("it runs the example as another user") {
        return;
    }
    let Some(cgroup) = test_cgroup() else { return };
    let dir = Dir::new();
    let config = dir.file(
        "herd.conf",
        &format!("[program:web]\ncommand=true\ncgroup={}\n", cgroup.path().display()),
    );
    let output = Command::new(binary())
        .arg(config)
        .uid(65_534)
        .stdin(Stdio::null())
        .output();
    match output {
        Err(error) => skipped(&format!("another user may not run the example: {error}")),
        Ok(output) => {
            let errors = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{errors}");
            assert!(
                errors.contains("[program:web] cgroup=") && errors.contains("cannot write"),
                "{errors}"
            );
        }
    }
}
