//! New and given namespaces, seen from inside the child and from the host.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::process;

use pidherd::exit::Exit;
use pidherd::{
    Capabilities, Child, Command, CommandError, Namespace, OpenFile, Program, Signal, SpawnError, SpawnProgress,
    SpawnStep, Spawner, Stdio,
};

use crate::common::{SOON, isolated, processes, skipped, tempdir, wait_gone, wait_until};
use crate::helpers::{output, root, sh};

/// Every kind, with its name in `/proc/PID/ns`.
const KINDS: [(Namespace, &str); 6] = [
    (Namespace::Pid, "pid"),
    (Namespace::Uts, "uts"),
    (Namespace::Ipc, "ipc"),
    (Namespace::Network, "net"),
    (Namespace::Cgroup, "cgroup"),
    (Namespace::Mount, "mnt"),
];

/// The identity of a process's namespace.
fn namespace(process: &str, name: &str) -> String {
    let link = fs::read_link(format!("/proc/{process}/ns/{name}")).unwrap();
    link.to_str().unwrap().to_owned()
}

fn own(name: &str) -> OwnedFd {
    of("self", name)
}

fn own_pidfd() -> OwnedFd {
    let own = rustix::process::getpid();
    rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()).unwrap()
}

fn of(process: &str, name: &str) -> OwnedFd {
    OwnedFd::from(File::open(format!("/proc/{process}/ns/{name}")).unwrap())
}

fn list(command: Command) -> Vec<String> {
    let script = "for kind in pid uts ipc net cgroup mnt; do readlink /proc/self/ns/$kind; done";
    let lines = output(command.arg("-c").arg(script));
    lines.lines().map(str::to_owned).collect()
}

fn shell() -> Command {
    Command::new("/bin/sh")
}

/// A child that waits in a new namespace of each kind.
fn holder() -> Child {
    let command = sh("echo; read never").stdin(Stdio::piped()).stdout(Stdio::piped());
    let command = KINDS.iter().fold(command, |command, &(kind, _)| command.unshare(kind));
    let mut child = command.spawn().unwrap();
    let mut line = [0];
    File::from(child.stdout.take().unwrap()).read_exact(&mut line).unwrap();
    child
}

#[test]
fn a_new_namespace_of_each_kind_is_not_that_of_the_host() {
    if !root("new namespaces") {
        return;
    }
    isolated(|| {
        let host: Vec<String> = KINDS.iter().map(|(_, name)| namespace("self", name)).collect();
        assert_eq!(list(shell()), host);
        for (index, &(kind, _)) in KINDS.iter().enumerate() {
            for (other, (seen, own)) in list(shell().unshare(kind)).iter().zip(&host).enumerate() {
                assert_eq!(seen != own, index == other, "{kind}");
            }
        }
        let all = KINDS.iter().fold(shell(), |command, &(kind, _)| command.unshare(kind));
        assert!(list(all).iter().zip(&host).all(|(seen, own)| seen != own));
    });
}

#[test]
fn a_child_enters_given_namespaces_by_their_files_and_by_a_pidfd() {
    if !root("namespaces of another process") {
        return;
    }
    isolated(|| {
        let mut holder = holder();
        let number = holder.pid().to_string();
        let theirs: Vec<String> = KINDS.iter().map(|(_, name)| namespace(&number, name)).collect();
        let by_files = KINDS
            .iter()
            .fold(shell(), |command, &(kind, name)| command.setns(kind, of(&number, name)));
        assert_eq!(list(by_files), theirs);
        for (index, &(kind, name)) in KINDS.iter().enumerate() {
            let seen = list(shell().setns(kind, of(&number, name)));
            assert_eq!(seen[index], theirs[index], "{kind}");
            let pidfd = holder.pidfd().as_fd().try_clone_to_owned().unwrap();
            match shell()
                .setns(kind, pidfd.try_clone().unwrap())
                .arg("-c")
                .arg("")
                .status()
            {
                Ok(ended) => {
                    assert!(ended.exit.success());
                    assert_eq!(list(shell().setns(kind, pidfd))[index], theirs[index], "{kind}");
                }
                Err(error) => skipped(&format!("a pidfd is no namespace before Linux 5.8: {error}")),
            }
        }
        holder.kill().unwrap();
        holder.wait().unwrap();
    });
}

#[test]
fn a_child_of_a_new_pid_namespace_is_process_1_of_its_own_proc() {
    if !root("a PID namespace") {
        return;
    }
    isolated(|| {
        let alone = || sh("echo $$; cd /proc; echo [0-9]*").unshare(Namespace::Pid);
        let clean = alone().unshare(Namespace::Mount).mount_proc(true);
        assert_eq!(output(clean.clone()), "1\n1\n");
        assert!(
            output(alone()).lines().nth(1).unwrap().contains(' '),
            "the proc is the host's"
        );
        // With another root directory, the proc is mounted in it.
        let root = tempdir();
        fs::create_dir(root.join("proc")).unwrap();
        let bare = Command::new("/none").unshare(Namespace::Pid).unshare(Namespace::Mount);
        let error = bare.chroot(root.path()).mount_proc(true).spawn().unwrap_err();
        assert_eq!((error.step(), error.errno()), (SpawnStep::Exec, libc::ENOENT));
        let empty = tempdir();
        let error = clean.chroot(empty.path()).spawn().unwrap_err();
        assert_eq!((error.step(), error.errno()), (SpawnStep::Mount, libc::ENOENT));
        assert!(
            error.to_string().contains("mount a proc on /proc: No such file"),
            "{error}"
        );
        assert!(
            !fs::read_to_string("/proc/self/mountinfo")
                .unwrap()
                .contains(root.path().to_str().unwrap())
        );
    });
}

#[test]
fn the_host_sees_the_numbers_of_its_own_pid_namespace() {
    if !root("a PID namespace") {
        return;
    }
    isolated(|| {
        let mut spawner = Spawner::new().unwrap();
        let program = sh("read never")
            .stdin(Stdio::piped())
            .unshare(Namespace::Pid)
            .compile()
            .unwrap();
        for in_flight in [false, true] {
            let mut child = if in_flight {
                fly(&mut spawner, &program).unwrap()
            } else {
                spawner.spawn(&program).unwrap()
            };
            let number = child.pid().as_raw();
            assert!(processes::children().contains(&number));
            let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap();
            let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
            let numbers: Vec<&str> = inside.split_whitespace().collect();
            assert_eq!(numbers, [number.to_string().as_str(), "1"]);
            drop(child.stdin.take());
            assert_eq!(child.wait().unwrap().exit, Exit::Code(1));
        }
    });
}

fn fly(spawner: &mut Spawner, program: &Program) -> Result<Child, SpawnError> {
    let mut spawning = spawner.begin(program)?;
    loop {
        match spawner.finish(spawning) {
            SpawnProgress::InFlight(same) => spawning = same,
            SpawnProgress::Running(child) => return Ok(child),
            SpawnProgress::Failed(error) => return Err(error),
            other => panic!("{other:?}"),
        }
        std::thread::yield_now();
    }
}

#[test]
fn process_1_ignores_sigterm_without_a_handler_and_its_whole_tree_ends_with_it() {
    if !root("a PID namespace") {
        return;
    }
    isolated(|| {
        let script = "setsid sleep 1000 >/dev/null & echo; read never; wait";
        let command = sh(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.unshare(Namespace::Pid).spawn().unwrap();
        let mut line = [0];
        File::from(child.stdout.take().unwrap()).read_exact(&mut line).unwrap();
        let number = child.pid().as_raw();
        let mut inner = Vec::new();
        wait_until("there is a process in its own session", SOON, || {
            inner = processes::children_of(number);
            inner.len() == 1
        });
        child.pidfd().signal(Signal::TERM).unwrap();
        let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap();
        assert!(
            status.contains("ShdPnd:\t0000000000000000"),
            "the signal is discarded: {status}"
        );
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().exit.signal(), Some(Signal::KILL));
        assert!(wait_gone(inner[0], SOON));
    });
}

#[test]
fn later_children_of_the_thread_begin_in_the_hosts_pid_namespace() {
    if !root("a PID namespace") {
        return;
    }
    isolated(|| {
        let mut holder = holder();
        let number = holder.pid().to_string();
        let here = namespace("self", "pid");
        let program = Command::new("/no/such/program").setns(Namespace::Pid, of(&number, "pid"));
        let program = program.compile().unwrap();
        let mut spawner = Spawner::new().unwrap();
        assert_eq!(spawner.spawn(&program).unwrap_err().step(), SpawnStep::Exec);
        assert_eq!(namespace("thread-self", "pid_for_children"), here);
        assert_eq!(fly(&mut spawner, &program).unwrap_err().step(), SpawnStep::Exec);
        assert_eq!(namespace("thread-self", "pid_for_children"), here);
        let ran = process::Command::new("readlink")
            .arg("/proc/self/ns/pid")
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(ran.stdout).unwrap().trim(), here);
        // The end of process 1 is the end of the namespace.
        holder.kill().unwrap();
        holder.wait().unwrap();
        let error = spawner.spawn(&program).unwrap_err();
        assert_eq!((error.step(), error.errno()), (SpawnStep::Namespace, libc::ENOMEM));
        assert!(error.to_string().contains("enter the given PID namespace"), "{error}");
        assert_eq!(namespace("thread-self", "pid_for_children"), here);
        assert!(
            spawner
                .spawn(&sh("exit 0").compile().unwrap())
                .unwrap()
                .wait()
                .unwrap()
                .exit
                .success()
        );
    });
}

#[test]
fn mounts_of_the_child_stay_in_its_namespace_and_its_files_are_the_hosts() {
    if !root("mounts") {
        return;
    }
    isolated(|| {
        let place = tempdir();
        let log = place.join("log");
        let path = place.path().display().to_string();
        let script = format!("mount -t tmpfs none {path} && touch {path}/inside && ls {path}");
        let command = sh(&script).unshare(Namespace::Mount).stdout(OpenFile::append(&log));
        assert!(command.status().unwrap().exit.success());
        assert_eq!(fs::read_to_string(&log).unwrap(), "inside\n");
        assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&path));
    });
}

/// Makes a mount namespace for the calling thread. Its mounts are shared with copies of the namespace.
fn share_mounts() {
    let none = std::ptr::null();
    // SAFETY: the path is a text that ends with a NUL, and the other arguments are numbers and null pointers.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0);
        for propagation in [libc::MS_PRIVATE, libc::MS_SHARED] {
            let flags = libc::MS_REC | propagation;
            assert_eq!(libc::mount(none, c"/".as_ptr(), none, flags, none.cast()), 0);
        }
    }
}

/// How mounts on the root directory of a process propagate, from its mountinfo (proc_pid_mountinfo(5)).
fn propagation(mounts: &str) -> &str {
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    root.split(' ').nth(6).unwrap().split(':').next().unwrap()
}

#[test]
fn only_a_new_mount_namespace_gets_mounts_that_follow_those_of_the_host() {
    if !root("mounts") {
        return;
    }
    isolated(|| {
        let check = || {
            share_mounts();
            let mounts = || Command::new("cat").arg("/proc/thread-self/mountinfo");
            let seen = |command| propagation(&output(command)).to_owned();
            assert_eq!(seen(mounts()), "shared");
            assert_eq!(seen(mounts().unshare(Namespace::Mount)), "master");
            assert_eq!(seen(mounts().unshare(Namespace::Uts)), "shared");
            assert_eq!(
                seen(mounts().setns(Namespace::Mount, of("thread-self", "mnt"))),
                "shared"
            );
        };
        // The namespace ends with the thread.
        std::thread::spawn(check).join().unwrap();
    });
}

#[test]
fn a_program_gets_no_descriptor_of_a_given_namespace() {
    if !root("setns") {
        return;
    }
    isolated(|| {
        let given = KINDS.iter().fold(
            sh("cd /proc/self/fd; echo *").oom_score_adj(500),
            |command, &(kind, name)| command.setns(kind, own(name)),
        );
        assert_eq!(output(given.clone()), "0 1 2 3\n");
        let null = || Stdio::null();
        assert_eq!(output(given.clone().fd(4, null()).fd(9, null())), "0 1 2 3 4 9\n");
        // Numbers for which the child copies the whole table.
        assert_eq!(output(given.fd(700, null())), "0 1 2 3 700\n");
    });
}

#[test]
fn what_is_no_namespace_of_the_kind_is_refused_before_anything_happens() {
    let refused = |kind, fd: OwnedFd| {
        let error = Command::new("true").setns(kind, fd).compile().unwrap_err();
        assert_eq!(error, CommandError::NotANamespace { kind });
        error.to_string()
    };
    let null = || OwnedFd::from(File::open("/dev/null").unwrap());
    for (kind, name) in KINDS {
        refused(kind, null());
        for (other, _) in KINDS.iter().filter(|(other, _)| *other != kind) {
            refused(*other, own(name));
        }
        for fd in [own(name), own_pidfd()] {
            assert!(Command::new("true").setns(kind, fd).compile().is_ok(), "{kind}");
        }
    }
    let text = refused(Namespace::Network, null());
    assert_eq!(text, "the descriptor is not one of a network namespace, and no pidfd");
    for command in [
        Command::new("true").mount_proc(true),
        Command::new("true").mount_proc(true).unshare(Namespace::Pid),
        Command::new("true").mount_proc(true).unshare(Namespace::Mount),
        Command::new("true")
            .mount_proc(true)
            .unshare(Namespace::Pid)
            .setns(Namespace::Mount, own("mnt")),
    ] {
        assert!(matches!(command.compile(), Err(CommandError::Needs { .. })));
    }
    let error = Command::new("true").unshare(Namespace::Pid).exec();
    assert!(matches!(error.command_error(), Some(CommandError::Needs { .. })));
}

#[test]
fn a_host_without_the_privilege_gets_an_error_that_names_the_namespace() {
    if !root("drops a capability") {
        return;
    }
    isolated(|| {
        // The capabilities of a thread, and of its children, end with it.
        std::thread::spawn(all_are_refused).join().unwrap();
        assert!(processes::children().is_empty());
    });
}

fn all_are_refused() {
    drop_admin();
    let mut spawner = Spawner::new().unwrap();
    let is_refused = |error: SpawnError, text: &str| {
        assert_eq!(
            (error.step(), error.errno()),
            (SpawnStep::Namespace, libc::EPERM),
            "{error}"
        );
        let expected = format!(": enter {text}: Operation not permitted (EPERM)");
        assert!(error.to_string().ends_with(&expected), "{error}");
    };
    for (kind, name) in KINDS {
        for (command, what) in [
            (sh("").unshare(kind), format!("a new {kind}")),
            (sh("").setns(kind, own(name)), format!("the given {kind}")),
        ] {
            let program = command.compile().unwrap();
            is_refused(spawner.spawn(&program).unwrap_err(), &what);
            is_refused(fly(&mut spawner, &program).unwrap_err(), &what);
            let plain = sh("").compile().unwrap();
            assert!(spawner.spawn(&plain).unwrap().wait().unwrap().exit.success());
        }
    }
}

fn drop_admin() {
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_SYS_ADMIN: u32 = 21;
    let header = [VERSION_3, 0];
    // The low words of the effective, permitted and inheritable sets, then the high ones.
    let mut sets = [0_u32; 6];
    // SAFETY: the arrays have the layout and the size of the structures of capget(2) and capset(2).
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, &header, &mut sets), 0);
        sets[0] &= !(1 << CAP_SYS_ADMIN);
        sets[1] &= !(1 << CAP_SYS_ADMIN);
        assert_eq!(libc::syscall(libc::SYS_capset, &header, &sets), 0);
    }
}

#[test]
fn a_host_in_a_user_namespace_can_give_its_children_namespaces() {
    const INSIDE: &str = "PIDHERD_TEST_IN_USER_NAMESPACE";
    let name = "namespaces::a_host_in_a_user_namespace_can_give_its_children_namespaces";
    if std::env::var_os(INSIDE).is_some() {
        let clean = sh("echo $$; cd /proc; echo [0-9]*")
            .unshare(Namespace::Pid)
            .unshare(Namespace::Mount);
        let command = clean
            .mount_proc(true)
            .unshare(Namespace::Network)
            .unshare(Namespace::Uts);
        assert_eq!(output(command), "1\n1\n");
        return;
    }
    isolated(|| {
        let exe = std::env::current_exe().unwrap();
        let mut unshare = Command::new("unshare").args(["--user", "--map-root-user"]).arg(exe);
        unshare = unshare.args(["--exact", name, "--nocapture"]).env(INSIDE, "1");
        if effective_uid() == 0 {
            // As an unprivileged user, for which the user namespace makes the difference.
            unshare = unshare.uid(65534).gid(65534).bounding_capabilities(Capabilities::all());
        }
        let can = Command::new("unshare").args(["--user", "--map-root-user", "true"]);
        match can.stderr(Stdio::null()).status() {
            Ok(ended) if ended.exit.success() => {}
            other => return skipped(&format!("no user namespace: {other:?}")),
        }
        let output = unshare.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        if told.contains("Permission denied") {
            return skipped("an unprivileged user cannot execute the test");
        }
        assert!(output.record.exit.success(), "{told}");
    });
}

fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}
