//! Every setting, seen from inside the child.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use pidherd::signal::Signal;
use pidherd::{Capabilities, Command, CommandError, OpenFile, Resource, SpawnProgress, SpawnStep, Stdio};

use crate::common::{isolated, skipped, test_cgroup};
use crate::helpers::{Scratch, cat_status, output, root, sh, status};
use crate::in_flight::{finish as outcome, running};

#[test]
fn limits_nice_affinity_and_oom() {
    let text = output(
        Command::new("/bin/cat")
            .arg("/proc/self/limits")
            .limit(Resource::OpenFiles, 77, 99)
            .limit(Resource::Core, 0, Resource::UNLIMITED),
    );
    let find = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line[key.len()..]
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(find("Max open files")[..2], ["77", "99"]);
    assert_eq!(find("Max core file size")[..2], ["0", "unlimited"]);
    assert_eq!(output(Command::new("nice").nice(7)), "7\n");
    assert_eq!(status(cat_status().cpu_affinity(&[0]), "Cpus_allowed_list"), "0");
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let adjusted = Command::new("/bin/cat")
        .arg("/proc/self/oom_score_adj")
        .oom_score_adj(321);
    assert_eq!(output(adjusted), "321\n");
    let lists = sh("cd /proc/self/fd; echo *").oom_score_adj(321).fd(4, Stdio::null());
    assert_eq!(
        output(lists),
        "0 1 2 3 4\n",
        "the numbers of its descriptors are not used"
    );
    assert_eq!(
        fs::read_to_string("/proc/self/oom_score_adj").unwrap(),
        own,
        "the parent's is left alone"
    );
}

#[test]
fn a_child_that_drops_privileges_gets_a_session() {
    if !root("a_child_that_drops_privileges_gets_a_session") {
        return;
    }
    let session = |command: Command| {
        let text = output(command.arg("/proc/self/stat"));
        let pid: i32 = text.split_whitespace().next().unwrap().parse().unwrap();
        let rest: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        (pid, rest[2].parse::<i32>().unwrap(), rest[3].parse::<i32>().unwrap())
    };
    let cat = || Command::new("/bin/cat");
    for command in [
        cat().user("nobody"),
        cat().uid(1),
        cat().user("nobody").process_group(0),
    ] {
        let (pid, group, session) = session(command);
        assert_eq!((group, session), (pid, pid));
    }
    for command in [cat().user("root"), cat().gid(1), cat().user("nobody").setsid(false)] {
        let (pid, _, session) = session(command);
        assert_ne!(session, pid);
    }
}

#[test]
fn capabilities_are_empty_or_as_asked() {
    if !root("capabilities_are_empty_or_as_asked") {
        return;
    }
    let bits = |set: Capabilities| format!("{:016x}", set.bits());
    let ambient = Capabilities::NET_BIND_SERVICE | Capabilities::KILL;
    let command = || cat_status().uid(65534).gid(65534).ambient_capabilities(ambient);
    for key in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(command(), key), bits(ambient), "{key}");
        let none = cat_status().uid(65534).gid(65534);
        assert_eq!(status(none, key), bits(Capabilities::empty()), "{key}");
    }
    let keep = Capabilities::CHOWN | Capabilities::SETUID | Capabilities::SETGID;
    assert_eq!(status(cat_status().bounding_capabilities(keep), "CapBnd"), bits(keep));
    assert_eq!(
        status(cat_status().bounding_capabilities(keep).user("nobody"), "CapBnd"),
        bits(keep)
    );
    assert_eq!(
        status(cat_status().inheritable_capabilities(keep), "CapInh"),
        bits(keep)
    );
    assert_eq!(
        status(cat_status().inheritable_capabilities(keep).user("nobody"), "CapInh"),
        bits(keep)
    );
    assert_eq!(status(cat_status().ambient_capabilities(keep), "CapAmb"), bits(keep));
    let both = cat_status().inheritable_capabilities(keep).ambient_capabilities(keep);
    assert_eq!(status(both.clone(), "CapInh"), bits(keep));
    assert_eq!(status(both, "CapAmb"), bits(keep));
    // With CAP_SETUID on purpose, the old user can be had again on purpose.
    assert_eq!(
        status(cat_status().user("nobody").ambient_capabilities(keep), "CapAmb"),
        bits(keep)
    );
}

/// What the bounding set leaves out the child cannot have by another set either.
#[test]
fn capabilities_beyond_the_bounding_set_are_refused() {
    let (chown, raw, kill) = (Capabilities::CHOWN, Capabilities::NET_RAW, Capabilities::KILL);
    let bounded = || Command::new("/bin/true").bounding_capabilities(chown | kill);
    let beyond = |what, beyond| CommandError::BeyondBounding { what, beyond };
    // A capability that this library has no name for is one all the same.
    let nameless = Capabilities::from_bits_retain(1 << 50);
    let none = Command::new("/bin/true").bounding_capabilities(Capabilities::empty());
    for (command, error) in [
        (bounded().ambient_capabilities(raw), beyond("ambient", raw)),
        (bounded().ambient_capabilities(chown | raw), beyond("ambient", raw)),
        (bounded().inheritable_capabilities(raw), beyond("inheritable", raw)),
        (bounded().ambient_capabilities(nameless), beyond("ambient", nameless)),
        (none.clone().ambient_capabilities(chown), beyond("ambient", chown)),
        (
            none.inheritable_capabilities(chown | kill),
            beyond("inheritable", chown | kill),
        ),
        // In whatever order it is said, and for whatever user.
        (
            Command::new("/bin/true")
                .uid(65534)
                .ambient_capabilities(raw)
                .bounding_capabilities(chown),
            beyond("ambient", raw),
        ),
    ] {
        assert_eq!(command.compile().unwrap_err(), error, "{command:?}");
        assert_eq!(command.spawn().unwrap_err().step(), SpawnStep::Check);
    }
    let text = beyond("ambient", chown | raw).to_string();
    assert_eq!(
        text,
        "ambient capabilities are not in the bounding set: CHOWN | NET_RAW"
    );
    for command in [
        bounded().ambient_capabilities(chown),
        bounded().inheritable_capabilities(chown | kill),
        bounded(),
        Command::new("/bin/true").ambient_capabilities(raw),
    ] {
        assert!(command.compile().is_ok(), "{command:?}");
    }
}

#[test]
fn what_the_host_left_inheritable_stays_in_the_host() {
    if !root("what_the_host_left_inheritable_stays_in_the_host") {
        return;
    }
    isolated(|| {
        // Capabilities are a thread's own.
        std::thread::scope(|scope| scope.spawn(spoil_and_look).join()).unwrap();
    });
}

fn spoil_and_look() {
    let kill = Capabilities::KILL.bits() as u32;
    let mut header = [0x2008_0522u32, 0];
    let mut data = [0u32; 6];
    // SAFETY: a header and the two structures of version 3; then plain numbers.
    unsafe {
        assert_eq!(
            libc::syscall(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()),
            0
        );
        data[2] |= kill;
        assert_eq!(
            libc::syscall(libc::SYS_capset, header.as_mut_ptr(), data.as_mut_ptr()),
            0
        );
        assert_eq!(
            libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, 5, 0, 0),
            0
        );
    }
    for key in ["CapInh", "CapAmb"] {
        assert_eq!(status(cat_status(), key), "0000000000000000", "{key}");
    }
    assert_eq!(
        status(cat_status().inheritable_capabilities(Capabilities::KILL), "CapAmb"),
        "0000000000000000"
    );
    assert_eq!(
        status(cat_status().ambient_capabilities(Capabilities::KILL), "CapAmb"),
        "0000000000000020"
    );
}

#[test]
fn sockets_are_passed_as_systemd_does() {
    let null = || File::open("/dev/null").unwrap();
    let script = "echo $LISTEN_FDS; [ $LISTEN_PID = $$ ] && echo right; cd /proc/self/fd; echo *";
    let command = sh(script).listen_fd(null()).listen_fd(null()).env("LISTEN_PID", "1");
    assert_eq!(output(command.clone()), "2\nright\n0 1 2 3 4 5\n");
    // The pid is that of each child.
    let program = command.stdout(Stdio::null()).compile().unwrap();
    let mut spawner = pidherd::Spawner::new().unwrap();
    for _ in 0..3 {
        assert!(spawner.spawn(&program).unwrap().wait().unwrap().exit.success());
    }
}

#[test]
fn a_further_pipe() {
    use std::io::Read;
    let mut child = sh("echo ready >&9").fd(9, Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    File::from(child.extra.take().unwrap())
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "ready\n");
    assert!(child.wait().unwrap().exit.success());
}

/// golang#27505: it is the thread that counts.
#[test]
fn the_parents_death_is_a_signal() {
    isolated(|| {
        let spawn = || {
            let command = Command::new("/bin/sleep").arg("1000").parent_death_signal(Signal::USR1);
            command.spawn().unwrap()
        };
        // The thread that spawned is the parent in this respect.
        let mut child = std::thread::spawn(spawn).join().unwrap();
        assert_eq!(child.wait().unwrap().exit.signal(), Some(Signal::USR1));
        let child = spawn();
        assert_eq!(child.pidfd().peek().unwrap(), None);
    });
}

/// A child in another PID namespace has no number for its parent: getppid(2) is 0 there.
#[test]
fn the_parents_death_is_a_signal_in_another_pid_namespace_too() {
    if !root("the_parents_death_is_a_signal_in_another_pid_namespace_too") {
        return;
    }
    isolated(|| {
        let sleep = || Command::new("/bin/sleep").arg("1000");
        let spawn_inside = move || {
            // SAFETY: a number; it concerns the children of this thread alone, which starts no other thread.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWPID) }, 0);
            let mut spawner = pidherd::Spawner::new().unwrap();
            // The first process of a namespace is its init. All other processes of the namespace end with it.
            let init = spawner.spawn(&sleep().compile().unwrap()).unwrap();
            let program = sleep().parent_death_signal(Signal::USR1).compile().unwrap();
            let synchronous = spawner.spawn(&program).unwrap();
            let begun = spawner.begin(&program).unwrap();
            let begun = running(outcome(&mut spawner, begun));
            assert_eq!(synchronous.pidfd().peek().unwrap(), None);
            (init, [synchronous, begun])
        };
        let (init, children) = std::thread::spawn(spawn_inside).join().unwrap();
        for mut child in children {
            assert_eq!(child.wait().unwrap().exit.signal(), Some(Signal::USR1));
        }
        drop(init);
        let spawn_init = move || {
            // SAFETY: as above.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWPID) }, 0);
            sleep().parent_death_signal(Signal::KILL).spawn().unwrap()
        };
        let mut init = std::thread::spawn(spawn_init).join().unwrap();
        assert_eq!(init.wait().unwrap().exit.signal(), Some(Signal::KILL));
    });
}

/// The thread has ended before the child could ask for the signal, which then never comes.
#[test]
fn a_child_does_not_start_after_its_parent_thread_has_ended() {
    if cfg!(pidherd_portable) {
        return skipped("the portable path waits for exec");
    }
    let mut address: *mut libc::c_int = std::ptr::null_mut();
    // SAFETY: the kernel writes one pointer to a local.
    let result = unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut address) };
    if result != 0 || !cfg!(target_env = "gnu") {
        return skipped("needs glibc, and a kernel with CONFIG_CHECKPOINT_RESTORE");
    }
    isolated(|| {
        let Some(cgroup) = test_cgroup() else { return };
        let directory = Arc::new(OwnedFd::from(File::open(cgroup.path()).unwrap()));
        let command = Command::new("/bin/sleep").arg("1000").cgroup(directory);
        let mut spawner = pidherd::Spawner::new().unwrap();
        for (command, starts) in [
            (command.clone().parent_death_signal(Signal::KILL), false),
            (command, true),
        ] {
            let program = command.compile().unwrap();
            fs::write(cgroup.path().join("cgroup.freeze"), "1").unwrap();
            let begin = || spawner.begin(&program).unwrap();
            let spawning = std::thread::scope(|scope| scope.spawn(begin).join().unwrap());
            assert!(!spawning.is_finished(), "it is frozen");
            fs::write(cgroup.path().join("cgroup.freeze"), "0").unwrap();
            match outcome(&mut spawner, spawning) {
                SpawnProgress::Running(child) => assert!(starts, "{child:?}"),
                SpawnProgress::Failed(error) => {
                    assert_eq!(
                        (error.step(), error.errno()),
                        (SpawnStep::ParentDeathSignal, libc::ESRCH)
                    );
                    assert!(!starts);
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn a_terminal_of_its_own() {
    // SAFETY: opens a new terminal; the numbers are checked before use.
    let (master, name) = unsafe {
        let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        assert!(master >= 0);
        assert_eq!((libc::grantpt(master), libc::unlockpt(master)), (0, 0));
        let mut name = [0; 64];
        assert_eq!(libc::ptsname_r(master, name.as_mut_ptr(), name.len()), 0);
        (
            OwnedFd::from_raw_fd(master),
            std::ffi::CStr::from_ptr(name.as_ptr()).to_str().unwrap().to_owned(),
        )
    };
    use std::os::unix::fs::OpenOptionsExt;
    let terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(&name)
        .unwrap();
    let terminal = Arc::new(OwnedFd::from(terminal));
    let cat = || {
        Command::new("/bin/cat")
            .arg("/proc/self/stat")
            .stdin(Arc::clone(&terminal))
    };
    let text = output(cat().controlling_terminal(0).foreground(0));
    let fields: Vec<i32> = text
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .skip(1)
        .flat_map(str::parse)
        .collect();
    let [_, group, session, tty, foreground, ..] = fields[..] else {
        panic!("{text}")
    };
    assert_eq!((group, session, foreground), (fields[1], fields[2], group));
    assert_eq!(group, session);
    assert_ne!(tty, 0);
    let error = cat().foreground(0).spawn().unwrap_err();
    assert_eq!((error.step(), error.errno()), (SpawnStep::Foreground, libc::ENOTTY));
    drop(master);
}

#[test]
fn a_root_directory_of_its_own() {
    if !root("a_root_directory_of_its_own") {
        return;
    }
    let scratch = Scratch::new("chroot");
    // A static program, for there is no dynamic linker in there; and none, if there is no compiler.
    let source = scratch.file("cwd.c", CWD, 0o644);
    let binary = scratch.0.join("cwd");
    let compiler = Command::new("cc")
        .args(["-static", "-o"])
        .arg(&binary)
        .arg(&source)
        .spawn();
    if !compiler.is_ok_and(|mut compiler| compiler.wait().unwrap().exit.success()) {
        eprintln!("SKIPPED: a_root_directory_of_its_own needs a C compiler");
        return;
    }
    fs::create_dir(scratch.0.join("inside")).unwrap();
    let log = scratch.0.join("log");
    let command = Command::new("cwd")
        .env("PATH", "/no:/")
        .chroot(&scratch.0)
        .user("nobody");
    assert_eq!(output(command.clone()), "/");
    assert_eq!(output(command.clone().current_dir("inside")), "/inside");
    // Files are the host's.
    let record = command.stdout(Stdio::append(&log)).spawn().unwrap().wait().unwrap();
    assert!(record.exit.success());
    assert_eq!(fs::read_to_string(&log).unwrap(), "/");
}

const CWD: &str = r#"
#include <stdio.h>
#include <unistd.h>
int main(void) { char path[4096]; return !getcwd(path, sizeof path) || fputs(path, stdout) < 0; }
"#;

#[test]
fn born_in_a_cgroup() {
    isolated(|| {
        let Some(cgroup) = test_cgroup() else { return };
        let directory = Arc::new(OwnedFd::from(File::open(cgroup.path()).unwrap()));
        let cat = Command::new("/bin/cat").arg("/proc/self/cgroup").cgroup(directory);
        let text = output(cat);
        let line = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
        let name = cgroup.path().file_name().unwrap();
        assert!(line.ends_with(name.to_str().unwrap()), "{text}");
        let no_cgroup = File::open("/tmp").map(OwnedFd::from).unwrap();
        let error = Command::new("/bin/true").cgroup(no_cgroup).spawn().unwrap_err();
        assert_eq!(
            (error.step(), error.errno(), error.is_transient()),
            (SpawnStep::Cgroup, libc::EBADF, false)
        );
    });
}

#[test]
fn bad_commands_are_refused_before_anything_happens() {
    let new = || Command::new("/bin/true");
    let cases: Vec<(Command, CommandError)> = vec![
        (Command::new(""), CommandError::EmptyProgram),
        (new().umask(0o1000), CommandError::Umask { mask: 0o1000 }),
        (new().env("", "x"), CommandError::EnvKey { key: "".into() }),
        (new().env("a=b", "x"), CommandError::EnvKey { key: "a=b".into() }),
        (new().process_group(-1), CommandError::ProcessGroup { group: -1 }),
        (
            new().setsid(true).process_group(5),
            CommandError::SessionInGroup { group: 5 },
        ),
        (new().fd(2, Stdio::null()), CommandError::Target { target: 2 }),
        (new().fd(-1, Stdio::null()), CommandError::Target { target: -1 }),
        (
            new().fd(5, Stdio::null()).fd(5, Stdio::null()),
            CommandError::DuplicateTarget { target: 5 },
        ),
        (new().controlling_terminal(7), CommandError::Target { target: 7 }),
        (
            new().setsid(false).controlling_terminal(0),
            CommandError::Needs {
                what: "a controlling terminal",
                needs: "a new session",
            },
        ),
        (
            new().nice(20),
            CommandError::OutOfRange {
                what: "nice value",
                value: 20,
            },
        ),
        (
            new().oom_score_adj(-1001),
            CommandError::OutOfRange {
                what: "oom_score_adj",
                value: -1001,
            },
        ),
        (
            new().cpu_affinity(&[]),
            CommandError::Needs {
                what: "CPU affinity",
                needs: "a CPU",
            },
        ),
        (
            new().limit(Resource::Core, 2, 1),
            CommandError::OutOfRange {
                what: "soft limit (above the hard one)",
                value: 2,
            },
        ),
        (
            new().user("no-such-user"),
            CommandError::NoSuchUser {
                name: "no-such-user".into(),
            },
        ),
        (new().uid(u32::MAX), CommandError::NoId { what: "uid" }),
    ];
    for (command, error) in cases {
        assert_eq!(command.compile().unwrap_err(), error);
        let spawned = command.spawn().unwrap_err();
        assert_eq!(
            (spawned.step(), spawned.command_error()),
            (SpawnStep::Check, Some(&error))
        );
    }
}

#[test]
fn the_hosts_process_group_is_refused_in_a_new_session() {
    let error = CommandError::Needs {
        what: "the host's process group",
        needs: "the host's session",
    };
    let command = Command::new("/bin/true").inherit_process_group();
    for command in [command.clone().setsid(true), command.controlling_terminal(0)] {
        assert_eq!(command.compile().unwrap_err(), error);
    }
}

#[test]
fn the_ends_of_each_range() {
    let new = || Command::new("/bin/true");
    let file = |mode| new().stdout(OpenFile::append("/dev/null").mode(mode));
    for command in [
        new().nice(-20),
        new().nice(19),
        new().oom_score_adj(-1000),
        new().oom_score_adj(1000),
        new().umask(0o777),
        new().cpu_affinity(&[65_535]),
        new().groups(&[1; 65_536]),
        new().limit(Resource::Core, 1, 1),
        file(0o7777),
    ] {
        assert!(command.compile().is_ok(), "{command:?}");
    }
    let out = |what, value| CommandError::OutOfRange { what, value };
    for (command, error) in [
        (new().nice(-21), out("nice value", -21)),
        (new().oom_score_adj(1001), out("oom_score_adj", 1001)),
        (new().cpu_affinity(&[0, 65_536]), out("CPU", 65_536)),
        (
            new().groups(&[1; 65_537]),
            CommandError::TooManyGroups { count: 65_537 },
        ),
        (file(0o10000), CommandError::FileMode { mode: 0o10000 }),
    ] {
        assert_eq!(command.compile().unwrap_err(), error);
    }
}

#[test]
fn nul_bytes_are_refused_wherever_they_are() {
    let new = || Command::new("/bin/true");
    for command in [
        Command::new("a\0b"),
        new().arg("a\0b"),
        new().arg0("a\0b"),
        new().env("a\0b", ""),
        new().env("a", "a\0b"),
        new().current_dir("a\0b"),
        new().chroot("a\0b"),
        new().stdin(Stdio::read("a\0b")),
    ] {
        assert!(
            matches!(command.compile(), Err(CommandError::NulByte { .. })),
            "{command:?}"
        );
    }
}

#[test]
fn commands_are_compared_by_what_they_say() {
    let fd = Arc::new(OwnedFd::from(File::open("/dev/null").unwrap()));
    let make = |fd: &Arc<OwnedFd>| sh("x").env("A", "1").stdin(Arc::clone(fd)).nice(3);
    assert_eq!(make(&fd), make(&fd));
    assert_ne!(make(&fd), make(&fd).nice(4));
    let other = Arc::new(fd.try_clone().unwrap());
    assert_ne!(make(&fd), make(&other));
    assert!(fd.as_raw_fd() >= 0);
}
