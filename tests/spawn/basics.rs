//! What a child gets, and what is left behind when it comes to nothing, against the real kernel.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use crate::common::{Oracle, SOON, isolated, wait_readable};
use crate::helpers::{Scratch, cat_status, output, root, sh, status};
use pidherd::exit::Exit;
use pidherd::signal::{Signal, SignalSet};
use pidherd::{Command, SpawnStep, Spawner, Stdio};

#[test]
fn exit_codes_and_signals_come_back() {
    for code in [0u8, 1, 3, 127, 255] {
        let record = sh(&format!("exit {code}")).spawn().unwrap().wait().unwrap();
        assert_eq!(record.exit, Exit::Code(code));
    }
    let record = sh("kill -TERM $$").spawn().unwrap().wait().unwrap();
    assert_eq!(
        record.exit,
        Exit::Signal {
            signal: Signal::TERM,
            core: false
        }
    );
}

#[test]
fn arguments_and_their_zeroth() {
    let command = Command::new("/bin/sh")
        .arg0("other")
        .arg("-c")
        .arg("echo \"$0|$1|$2\"")
        .args(["x", "", "ä b"]);
    assert_eq!(output(command), "x||ä b\n");
    let command = Command::new("/bin/cat").arg0("zero").arg("/proc/self/cmdline");
    assert_eq!(output(command), "zero\0/proc/self/cmdline\0");
}

#[test]
fn the_environment_is_exact() {
    let command = Command::new("/usr/bin/env")
        .env_clear()
        .env("A", "1")
        .env("B", "")
        .env("A", "2=3");
    assert_eq!(output(command), "A=2=3\nB=\n");
    let inherited: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let text = output(
        Command::new("/usr/bin/env")
            .arg("-0")
            .env_remove("PATH")
            .env("PIDHERD", "x"),
    );
    let mut got: Vec<&str> = text.split_terminator('\0').collect();
    got.sort_unstable();
    let mut wanted: Vec<String> = inherited
        .iter()
        .filter(|(key, _)| key != "PATH")
        .map(|(key, value)| format!("{}={}", key.to_str().unwrap(), value.to_str().unwrap()))
        .chain(["PIDHERD=x".to_owned()])
        .collect();
    wanted.sort_unstable();
    assert_eq!(got, wanted);
}

#[test]
fn the_path_of_the_child_is_searched() {
    let scratch = Scratch::new("path");
    fs::create_dir(scratch.0.join("first")).unwrap();
    scratch.file("second", "not a directory", 0o644);
    scratch.file("probe", "#!/bin/sh\necho found\n", 0o755);
    let path = format!("/no/such:{0}/first:{0}/second:{0}", scratch.0.display());
    let command = Command::new("probe").env("PATH", &path);
    assert_eq!(output(command.clone()), "found\n");
    // Only the last directory is left, as the working directory.
    let command = command.env("PATH", "/no/such::").current_dir(&scratch.0);
    assert_eq!(output(command), "found\n");
    // Without a PATH: the usual places.
    assert_eq!(output(Command::new("echo").arg("x").env_clear()), "x\n");
}

#[test]
fn a_program_installed_later_is_found_at_the_next_start() {
    let scratch = Scratch::new("later");
    let command = Command::new("probe").env("PATH", &scratch.0);
    let program = command.compile().unwrap();
    let mut spawner = Spawner::new().unwrap();
    let error = spawner.spawn(&program).unwrap_err();
    assert_eq!((error.step(), error.errno()), (SpawnStep::Exec, libc::ENOENT));
    assert_eq!(error.path(), Some(scratch.0.join("probe").as_path()));
    scratch.file("probe", "#!/bin/sh\nexit 7\n", 0o755);
    assert_eq!(spawner.spawn(&program).unwrap().wait().unwrap().exit, Exit::Code(7));
}

#[test]
fn a_forbidden_program_is_the_better_explanation() {
    let scratch = Scratch::new("forbidden");
    scratch.file("probe", "", 0o644);
    let path = format!("{}:/no/such", scratch.0.display());
    let error = Command::new("probe").env("PATH", path).spawn().unwrap_err();
    assert_eq!((error.step(), error.errno()), (SpawnStep::Exec, libc::EACCES));
    assert_eq!(error.path(), Some(scratch.0.join("probe").as_path()));
}

#[test]
fn a_program_that_is_nowhere_is_called_by_its_name() {
    let command = Command::new("no-such-program").env("PATH", "/no/such:/usr/nowhere");
    let program = command.compile().unwrap();
    assert_eq!(program.name(), "no-such-program");
    let error = command.spawn().unwrap_err();
    assert_eq!((error.step(), error.errno()), (SpawnStep::Exec, libc::ENOENT));
    assert_eq!(error.path(), Some(Path::new("no-such-program")));
    assert!(
        error
            .to_string()
            .contains(r#"execve "no-such-program", searched for in PATH: No such file"#),
        "{error}"
    );
}

/// libuv#274: a zombie after a failed exec.
#[test]
fn failures_name_the_step_and_leave_nothing() {
    isolated(|| {
        let scratch = Scratch::new("failures");
        let forbidden = scratch.file("forbidden", "#!/bin/sh\n", 0o644);
        let garbage = scratch.file("garbage", "\x01\x02\x03 no program", 0o755);
        let missing = scratch.0.join("missing");
        let under_file = forbidden.join("x");
        let ok = || {
            Command::new("/bin/true")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
        };
        let with = |path: &Path| ok().clone_as(path);
        let cases = [
            (with(&missing), SpawnStep::Exec, libc::ENOENT, &missing),
            (with(&forbidden), SpawnStep::Exec, libc::EACCES, &forbidden),
            (with(&under_file), SpawnStep::Exec, libc::ENOTDIR, &under_file),
            (with(&garbage), SpawnStep::Exec, libc::ENOEXEC, &garbage),
            (with(&scratch.0), SpawnStep::Exec, libc::EACCES, &scratch.0),
            (
                ok().current_dir(&missing),
                SpawnStep::CurrentDir,
                libc::ENOENT,
                &missing,
            ),
            (
                ok().current_dir(&forbidden),
                SpawnStep::CurrentDir,
                libc::ENOTDIR,
                &forbidden,
            ),
            (ok().chroot(&missing), SpawnStep::Chroot, libc::ENOENT, &missing),
            (
                ok().stderr(Stdio::append(&under_file)),
                SpawnStep::Open,
                libc::ENOTDIR,
                &under_file,
            ),
            (
                ok().stderr(Stdio::append(&scratch.0)),
                SpawnStep::Open,
                libc::EISDIR,
                &scratch.0,
            ),
            (
                ok().stdin(Stdio::read(&missing)),
                SpawnStep::Open,
                libc::ENOENT,
                &missing,
            ),
        ];
        let mut spawner = Spawner::new().unwrap();
        let mut programs: Vec<_> = cases.iter().map(|case| case.0.compile().unwrap()).collect();
        let before = Oracle::begin();
        for ((_, step, errno, path), program) in cases.iter().zip(&mut programs) {
            for _ in 0..3 {
                let error = spawner.spawn(program).unwrap_err();
                assert_eq!((error.step(), error.errno()), (*step, *errno), "{error}");
                assert_eq!(error.path(), Some(path.as_path()), "{error}");
                assert!(!error.is_transient());
            }
        }
        before.end();
        assert!(ok().spawn().unwrap().wait().unwrap().exit.success());
    });
}

/// The same command with another program.
trait CloneAs {
    fn clone_as(&self, program: &Path) -> Command;
}

impl CloneAs for Command {
    fn clone_as(&self, program: &Path) -> Command {
        Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
    }
}

#[test]
fn pipes_carry_both_ways_and_end() {
    let mut child = sh("cat; echo err >&2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = std::mem::replace(&mut child, sh("")).spawn().unwrap();
    File::from(child.stdin.take().unwrap()).write_all(b"through").unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    File::from(child.stdout.take().unwrap())
        .read_to_string(&mut out)
        .unwrap();
    File::from(child.stderr.take().unwrap())
        .read_to_string(&mut err)
        .unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("through", "err\n"));
    assert!(child.wait().unwrap().exit.success());
}

#[test]
fn stderr_follows_stdout() {
    for stdout in [Stdio::piped(), Stdio::inherit()] {
        let mut child = sh("echo one; echo two >&2")
            .stdout(stdout.clone())
            .stderr(Stdio::stdout())
            .spawn()
            .unwrap();
        if let Some(pipe) = child.stdout.take() {
            let mut text = String::new();
            File::from(pipe).read_to_string(&mut text).unwrap();
            assert_eq!(text, "one\ntwo\n");
        }
        assert!(child.wait().unwrap().exit.success());
    }
}

#[test]
fn files_are_appended_emptied_created_and_read() {
    let scratch = Scratch::new("files");
    let log = scratch.file("log", "old\n", 0o644);
    let run = |command: Command| assert!(command.spawn().unwrap().wait().unwrap().exit.success());
    run(sh("echo new").stdout(Stdio::append(&log)));
    assert_eq!(fs::read_to_string(&log).unwrap(), "old\nnew\n");
    run(sh("echo only; echo this >&2")
        .stdout(Stdio::truncate(&log))
        .stderr(Stdio::stdout()));
    assert_eq!(fs::read_to_string(&log).unwrap(), "only\nthis\n");
    assert_eq!(
        output(Command::new("/bin/cat").stdin(Stdio::read(&log))),
        "only\nthis\n"
    );
    let fresh = scratch.0.join("fresh");
    run(sh("echo x")
        .stdout(pidherd::OpenFile::append(&fresh).mode(0o600))
        .umask(0o777));
    assert_eq!(fs::metadata(&fresh).unwrap().permissions().mode() & 0o777, 0o600);
    let absent = pidherd::OpenFile::append(scratch.0.join("absent")).create(false);
    assert_eq!(sh("").stdout(absent).spawn().unwrap_err().errno(), libc::ENOENT);
    // The flags with which it is opened safely do not reach the program.
    let flags = output(sh("grep flags /proc/self/fdinfo/2").stderr(Stdio::append(&log)));
    assert_eq!(
        flags
            .split_whitespace()
            .last()
            .map(|text| i32::from_str_radix(text, 8).unwrap()),
        Some(libc::O_WRONLY | libc::O_APPEND | 0o100_000)
    );
}

#[test]
fn a_fifo_without_reader_is_an_error_and_no_wait() {
    let scratch = Scratch::new("fifo");
    let path = scratch.0.join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&path)
            .spawn()
            .unwrap()
            .wait()
            .unwrap()
            .exit
            .success()
    );
    let error = sh("").stdout(Stdio::append(&path)).spawn().unwrap_err();
    assert_eq!((error.step(), error.errno()), (SpawnStep::Open, libc::ENXIO));
}

/// systemd#30266: descriptors that leak to the child.
#[test]
fn only_declared_descriptors_reach_the_child() {
    isolated(|| {
        let leak = File::open("/dev/null").unwrap();
        let _leaked = [4, 20, 60, 900].map(|least| {
            // Not close-on-exec, on purpose. SAFETY: duplicates a descriptor that is open; the copy is ours.
            unsafe {
                let copy = libc::fcntl(leak.as_raw_fd(), libc::F_DUPFD, least);
                assert!(copy >= least);
                OwnedFd::from_raw_fd(copy)
            }
        });
        let list = || sh("cd /proc/self/fd; echo *").stdin(Stdio::null());
        let given: Arc<OwnedFd> = Arc::new(leak.into());
        // The shell's own descriptor for expanding `*` is the first that is free.
        assert_eq!(output(list()), "0 1 2 3\n");
        let short = list().fd(3, Arc::clone(&given)).fd(30, Arc::clone(&given));
        assert_eq!(output(short.clone()), "0 1 2 3 30 4\n");
        assert_eq!(output(short.fd(70, given)), "0 1 2 3 30 4 70\n");
    });
}

#[test]
fn descriptors_that_change_places() {
    // 3 and 4 (whatever is there now) swapped: each is the other's target.
    let make = |text: &str| {
        let (mut writer, reader) = pipe();
        writer.write_all(text.as_bytes()).unwrap();
        reader
    };
    let (one, two) = (Arc::new(make("one")), Arc::new(make("two")));
    let (first, second) = (one.as_raw_fd(), two.as_raw_fd());
    // A shell may know only descriptors of one digit.
    let script = format!("cat /proc/self/fd/{first} /proc/self/fd/{second}");
    assert_eq!(
        output(sh(&script).fd(first, Arc::clone(&two)).fd(second, Arc::clone(&one))),
        "twoone"
    );
}

fn pipe() -> (File, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: an array of two.
    assert_eq!(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: just made.
    unsafe { (File::from_raw_fd(fds[1]), OwnedFd::from_raw_fd(fds[0])) }
}

/// rust#25784: SIGPIPE ignored in the child. znc#1590: the host's mask in the child.
#[test]
fn signals_begin_clean_or_as_asked() {
    isolated(|| {
        let set_action_and_mask = |action, how| {
            // SAFETY: plain calls with valid arguments, in a process of this test's own.
            unsafe {
                libc::signal(libc::SIGHUP, action);
                let mut set = std::mem::zeroed();
                libc::sigemptyset(&raw mut set);
                libc::sigaddset(&raw mut set, libc::SIGTERM);
                libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut());
            }
        };
        // Besides, every Rust program ignores SIGPIPE.
        set_action_and_mask(libc::SIG_IGN, libc::SIG_BLOCK);
        assert_eq!(status(cat_status(), "SigIgn"), "0000000000000000");
        assert_eq!(status(cat_status(), "SigBlk"), "0000000000000000");
        let set = SignalSet::EMPTY.with(Signal::HUP).with(Signal::TERM);
        let bits = format!("{:016x}", set.bits());
        assert_eq!(status(cat_status().ignored_signals(set), "SigIgn"), bits);
        assert_eq!(status(cat_status().signal_mask(set), "SigBlk"), bits);
        set_action_and_mask(libc::SIG_DFL, libc::SIG_UNBLOCK);
    });
}

#[test]
fn umask_and_directory() {
    assert_eq!(
        output(sh("umask; pwd").umask(0o027).current_dir("/usr")),
        "0027\n/usr\n"
    );
}

#[test]
fn sessions_and_groups_of_processes() {
    let fields = |command: Command| {
        let text = output(command);
        let rest: Vec<i32> = text
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .skip(1)
            .flat_map(str::parse)
            .collect();
        let pid: i32 = text.split_whitespace().next().unwrap().parse().unwrap();
        (pid, rest[1], rest[2])
    };
    let cat = || Command::new("/bin/cat").arg("/proc/self/stat");
    // SAFETY: takes nothing.
    let (own_group, own_session) = unsafe { (libc::getpgrp(), libc::getsid(0)) };
    let (_, group, session) = fields(cat());
    assert_eq!((group, session), (own_group, own_session));
    let (pid, group, session) = fields(cat().process_group(0));
    assert_eq!((group, session), (pid, own_session));
    let (pid, group, session) = fields(cat().setsid(true));
    assert_eq!((group, session), (pid, pid));
    let error = sh("").process_group(0x3fff_ffff).spawn().unwrap_err();
    assert_eq!((error.step(), error.errno()), (SpawnStep::ProcessGroup, libc::EPERM));
}

#[test]
fn ids_drop_for_good() {
    if !root("ids_drop_for_good") {
        return;
    }
    let dropped = || cat_status().uid(65534).gid(65534);
    assert_eq!(status(dropped(), "Uid"), "65534 65534 65534 65534");
    assert_eq!(status(dropped(), "Gid"), "65534 65534 65534 65534");
    assert_eq!(status(dropped(), "Groups"), "65534");
    assert_eq!(status(dropped().groups(&[1, 2, 65534]), "Groups"), "1 2 65534");
    assert_eq!(status(dropped().groups(&[]), "Groups"), "");
    assert_eq!(status(cat_status().uid(65534), "Groups"), "0");
    assert_eq!(status(dropped(), "NoNewPrivs"), "1");
    assert_eq!(status(dropped().no_new_privileges(false), "NoNewPrivs"), "0");
    assert_eq!(status(cat_status(), "NoNewPrivs"), "0");
    assert_eq!(status(dropped(), "CapEff"), "0000000000000000");
    assert_eq!(status(cat_status().user("nobody"), "Uid"), "65534 65534 65534 65534");
    assert_eq!(status(cat_status().user("root").uid(65534), "Groups"), "0");
}

#[test]
fn the_working_directory_is_entered_as_the_new_user() {
    if !root("the_working_directory_is_entered_as_the_new_user") {
        return;
    }
    let scratch = Scratch::new("cwd");
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o700)).unwrap();
    let error = sh("")
        .uid(65534)
        .gid(65534)
        .current_dir(&scratch.0)
        .spawn()
        .unwrap_err();
    assert_eq!((error.step(), error.errno()), (SpawnStep::CurrentDir, libc::EACCES));
}

/// bun#33060: the host's dumpable flag cleared by the child's change of ids.
#[test]
fn the_parent_is_left_as_it_was() {
    isolated(|| {
        let state = || {
            // SAFETY: plain calls with valid arguments; umask is put back at once.
            unsafe {
                let mask = libc::umask(0o22);
                libc::umask(mask);
                let mut blocked: libc::sigset_t = std::mem::zeroed();
                libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut blocked);
                let blocked: Vec<i32> = (1..65)
                    .filter(|&n| libc::sigismember(&raw const blocked, n) == 1)
                    .collect();
                (
                    mask,
                    blocked,
                    libc::prctl(libc::PR_GET_DUMPABLE),
                    std::env::current_dir().unwrap(),
                )
            }
        };
        let mut spawner = Spawner::new().unwrap();
        let base = Command::new("/bin/true")
            .umask(0o111)
            .current_dir("/usr")
            .stdout(Stdio::piped());
        let base = if root("part of this") {
            base.user("nobody")
        } else {
            base
        };
        let good = base.clone().compile().unwrap();
        let bad = base.current_dir("/no/such").compile().unwrap();
        let before = state();
        assert_eq!(before.2, 1);
        let leaks = Oracle::begin();
        for _ in 0..20 {
            // SAFETY: this thread's own errno.
            unsafe { *libc::__errno_location() = 4242 };
            let outcomes = (spawner.spawn(&good), spawner.spawn(&bad));
            // SAFETY: as above.
            assert_eq!(unsafe { *libc::__errno_location() }, 4242);
            assert!(outcomes.0.unwrap().wait().unwrap().exit.success());
            assert_eq!(outcomes.1.unwrap_err().step(), SpawnStep::CurrentDir);
            assert_eq!(state(), before);
        }
        leaks.end();
    });
}

#[test]
fn eight_threads_with_a_spawner_each() {
    isolated(|| {
        let leaks = Oracle::begin();
        std::thread::scope(|scope| {
            for thread in 0..8u8 {
                scope.spawn(move || {
                    let mut spawner = Spawner::new().unwrap();
                    let script = format!("cat; exit {thread}");
                    let command = sh(&script).stdin(Stdio::piped()).stdout(Stdio::piped());
                    let root = root("part of this");
                    let command = if root && thread % 2 == 0 {
                        command.user("nobody")
                    } else {
                        command
                    };
                    let program = command.compile().unwrap();
                    for round in 0..100 {
                        let mut child = spawner.spawn(&program).unwrap();
                        let text = format!("{thread}/{round}");
                        File::from(child.stdin.take().unwrap())
                            .write_all(text.as_bytes())
                            .unwrap();
                        let mut back = String::new();
                        File::from(child.stdout.take().unwrap())
                            .read_to_string(&mut back)
                            .unwrap();
                        assert_eq!(back, text);
                        assert_eq!(child.wait().unwrap().exit, Exit::Code(thread));
                    }
                });
            }
        });
        leaks.end();
        // SAFETY: takes a number.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, 1);
    });
}

#[test]
fn many_open_descriptors() {
    isolated(|| {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        let before;
        // SAFETY: a valid structure.
        unsafe {
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
            before = limit;
            limit.rlim_cur = limit.rlim_max.min(20_000);
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
        let count = usize::try_from(limit.rlim_cur).unwrap().saturating_sub(200).min(2_500);
        let mut spawner = Spawner::new().unwrap();
        let _open: Vec<File> = (0..count).map(|_| File::open("/dev/null").unwrap()).collect();
        let script = "cat; cd /proc/self/fd; echo *; echo >&2";
        let command = sh(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let program = command.compile().unwrap();
        let leaks = Oracle::begin();
        for _ in 0..5 {
            let mut child = spawner.spawn(&program).unwrap();
            File::from(child.stdin.take().unwrap()).write_all(b"in\n").unwrap();
            let (mut out, mut err) = (String::new(), String::new());
            File::from(child.stdout.take().unwrap())
                .read_to_string(&mut out)
                .unwrap();
            File::from(child.stderr.take().unwrap())
                .read_to_string(&mut err)
                .unwrap();
            assert_eq!((out.as_str(), err.as_str()), ("in\n0 1 2 3\n", "\n"));
            assert!(child.wait().unwrap().exit.success());
        }
        leaks.end();
        // SAFETY: as above.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const before) };
    });
}

/// tokio#2685: a zombie after a child was dropped.
#[test]
fn dropping_a_child_ends_and_reaps_it() {
    isolated(|| {
        let leaks = Oracle::begin();
        let child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        drop(child);
        leaks.end();
        let pidfd = Command::new("/bin/sleep").arg("1000").spawn().unwrap().into_pidfd();
        assert_eq!(pidfd.peek().unwrap(), None);
        pidfd.signal(Signal::KILL).unwrap();
        assert!(wait_readable(&pidfd, SOON));
        assert_eq!(pidfd.reap().unwrap().unwrap().exit.signal(), Some(Signal::KILL));
    });
}
