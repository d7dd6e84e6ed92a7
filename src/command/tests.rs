//! Which way a spawn took, and what it does where the kernel refuses its first choice.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::pipe::{PipeFlags, pipe_with};

use super::plan::FdTable;
use super::slots::{SLOTS_FROM, UNSHARE_FROM};
use super::{Command, Namespace, Program, SpawnError, SpawnProgress, SpawnStep, Spawner, Stdio};
use crate::exit::Exit;
use crate::lost;
use crate::signal::Signal;
use crate::sys::mapping::{BirthCell, Mapping};
use crate::sys::nr;
use crate::sys::spawn::clone::Method;
use crate::testing::common::processes::children;
use crate::testing::common::refuse::{
    answering, keep_capabilities_across_ids, lock_keep_capabilities, refuse, refusing,
};
use crate::testing::common::{SOON, isolated, root_or_skip, skipped, wait_readable, wait_until};

const BEST: Method = if cfg!(pidherd_portable) {
    Method::Clone
} else {
    Method::Clone3
};

/// The slots of the process are for few spawners. The tests that need one, and that which takes all of them, run one by
/// one.
static SLOTS: Mutex<()> = Mutex::new(());

fn with_slots() -> MutexGuard<'static, ()> {
    SLOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sh(script: &str) -> Command {
    Command::new("/bin/sh").arg("-c").arg(script)
}

/// Lists the descriptors after having read all of its input, so the input must end.
fn echo_and_list() -> Command {
    sh("cat; cd /proc/self/fd; echo *; echo err >&2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
}

fn talk(spawner: &mut Spawner, program: &mut Program) -> Result<String, SpawnError> {
    let mut child = spawner.spawn(program)?;
    File::from(child.stdin.take().unwrap()).write_all(b"in\n").unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    File::from(child.stdout.take().unwrap())
        .read_to_string(&mut out)
        .unwrap();
    File::from(child.stderr.take().unwrap())
        .read_to_string(&mut err)
        .unwrap();
    assert_eq!(child.wait().unwrap().exit, Exit::Code(0));
    assert_eq!(err, "err\n");
    Ok(out)
}

/// A descriptor with a number that no slot has.
fn high() -> Arc<OwnedFd> {
    let null = File::open("/dev/null").unwrap();
    Arc::new(rustix::io::fcntl_dupfd_cloexec(&null, 500).unwrap())
}

fn given(command: Command, count: i32) -> Command {
    (0..count).fold(command, |command, n| command.fd(3 + n, high()))
}

#[test]
fn what_fits_takes_the_short_path() {
    let _slots = with_slots();
    let mut spawner = Spawner::new().unwrap();
    for command in [
        echo_and_list(),
        given(echo_and_list(), 1),
        sh("").stdin(Stdio::null()),
        given(sh("").stdin(Stdio::null()).stderr(Stdio::append("/dev/null")), 3),
    ] {
        let program = command.compile().unwrap();
        let _ = spawner.spawn(&program).unwrap();
        assert_eq!(spawner.last_table, Some(FdTable::Unshared), "{command:?}");
    }
}

#[test]
fn what_does_not_fit_takes_the_plain_path() {
    let mut spawner = Spawner::new().unwrap();
    for (command, list) in [
        (
            given(echo_and_list(), 21),
            "0 1 10 11 12 13 14 15 16 17 18 19 2 20 21 22 23 24 3 4 5 6 7 8 9",
        ),
        (
            given(echo_and_list(), 20).fd(25, Stdio::null()),
            "0 1 10 11 12 13 14 15 16 17 18 19 2 20 21 22 23 25 3 4 5 6 7 8 9",
        ),
        (echo_and_list().fd(SLOTS_FROM, high()), "0 1 2 3 32"),
        (echo_and_list().fd(700, high()), "0 1 2 3 700"),
    ] {
        let mut program = command.compile().unwrap();
        for _ in 0..2 {
            assert_eq!(talk(&mut spawner, &mut program).unwrap(), format!("in\n{list}\n"));
            assert_eq!(spawner.last_table, Some(FdTable::Copied), "{command:?}");
        }
    }
}

#[test]
fn targets_may_be_the_numbers_of_sources() {
    let _slots = with_slots();
    let mut spawner = Spawner::new().unwrap();
    let make = |text: &str, from| {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        File::from(write).write_all(text.as_bytes()).unwrap();
        Arc::new(rustix::io::fcntl_dupfd_cloexec(&read, from).unwrap())
    };
    for (from, path) in [(3, FdTable::Unshared), (300, FdTable::Copied)] {
        let (one, two) = (make("one ", from), make("two ", from));
        let (first, second) = (one.as_raw_fd(), two.as_raw_fd());
        let path = if first < SLOTS_FROM && second < SLOTS_FROM {
            path
        } else {
            FdTable::Copied
        };
        let command = sh(&format!("cat /proc/self/fd/{first} /proc/self/fd/{second}")).stdout(Stdio::piped());
        let program = command.fd(first, two).fd(second, one).compile().unwrap();
        let mut child = spawner.spawn(&program).unwrap();
        let mut text = String::new();
        File::from(child.stdout.take().unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!((text.as_str(), spawner.last_table), ("two one ", Some(path)));
    }
}

#[test]
fn a_spawner_without_slots_takes_the_plain_path() {
    let _slots = with_slots();
    // A test of another module may give some back in between.
    let is_plain = |_| {
        let mut spawners: Vec<Spawner> = (0..12).map(|_| Spawner::new().unwrap()).collect();
        let mut last = spawners.pop().unwrap();
        let mut program = given(echo_and_list(), 1).compile().unwrap();
        // Pipes may happen to lie low; the passed descriptor does not.
        assert_eq!(talk(&mut last, &mut program).unwrap(), "in\n0 1 2 3 4\n");
        last.last_table == Some(FdTable::Copied)
    };
    assert!((0..20).any(is_plain));
}

#[test]
fn descriptors_at_low_numbers_and_inherited_ones_need_no_slot() {
    isolated(|| {
        let null = File::open("/dev/null").unwrap();
        let at = |number| {
            let fd = fcntl_dupfd_cloexec(&null, number).unwrap();
            assert_eq!(fd.as_raw_fd(), number);
            Arc::new(fd)
        };
        // More targets than there are slots, and a number that needs one.
        let (low, first_high) = (at(26), at(UNSHARE_FROM));
        let many = (3..25).fold(sh(""), |command, target| command.fd(target, Arc::clone(&low)));
        let mut spawner = Spawner::new().unwrap();
        let runs = |spawner: &mut Spawner, command: Command| {
            let program = command.compile().unwrap();
            assert!(spawner.spawn(&program).unwrap().wait().unwrap().exit.success());
            assert_eq!(spawner.last_table, Some(FdTable::Unshared), "{command:?}");
        };
        runs(&mut spawner, many);
        runs(&mut spawner, sh("").fd(3, first_high));
        let _others: Vec<Spawner> = (0..12).map(|_| Spawner::new().unwrap()).collect();
        let mut without_slots = Spawner::new().unwrap();
        assert!(without_slots.slot_numbers().is_empty());
        runs(&mut without_slots, sh(""));
    });
}

#[test]
fn slots_hold_nothing_between_spawns() {
    let _slots = with_slots();
    let mut spawner = Spawner::new().unwrap();
    let mut good = given(echo_and_list(), 1).compile().unwrap();
    let bad = given(echo_and_list(), 1).current_dir("/no/such").compile().unwrap();
    for _ in 0..3 {
        talk(&mut spawner, &mut good).unwrap();
        assert_eq!(spawner.spawn(&bad).unwrap_err().step(), SpawnStep::CurrentDir);
        for slot in spawner.slot_numbers() {
            assert!((SLOTS_FROM..UNSHARE_FROM).contains(&slot));
            let target = std::fs::read_link(format!("/proc/self/fd/{slot}")).unwrap();
            assert_eq!(target.to_str(), Some("/dev/null"));
        }
    }
}

/// moby#42680: clone3 refused with EPERM by a container's filter.
#[test]
fn clone3_refused_is_clone() {
    let _slots = with_slots();
    for errno in [libc::ENOSYS, libc::EPERM, libc::EINVAL, libc::E2BIG] {
        refusing(libc::SYS_clone3, errno, || {
            let mut spawner = Spawner::new().unwrap();
            let mut program = given(echo_and_list(), 1).compile().unwrap();
            for _ in 0..2 {
                assert_eq!(talk(&mut spawner, &mut program).unwrap(), "in\n0 1 2 3 4\n");
                assert_eq!(
                    (spawner.method, spawner.last_table),
                    (Method::Clone, Some(FdTable::Unshared))
                );
            }
        });
    }
}

#[test]
fn handlers_are_reset_by_every_method() {
    for method in [Method::Clone3, Method::Clone3KeepingHandlers, Method::Clone] {
        let mut spawner = Spawner::new().unwrap();
        spawner.method = method;
        // The standard library has handlers for SIGSEGV and SIGBUS, and ignores SIGPIPE.
        let cat = Command::new("/bin/cat").arg("/proc/self/status").stdout(Stdio::piped());
        let program = cat.compile().unwrap();
        let mut child = spawner.spawn(&program).unwrap();
        let mut text = String::new();
        File::from(child.stdout.take().unwrap())
            .read_to_string(&mut text)
            .unwrap();
        for key in ["SigBlk", "SigIgn", "SigCgt"] {
            assert!(text.contains(&format!("{key}:\t0000000000000000\n")), "{key} in {text}");
        }
        let used = if cfg!(pidherd_portable) { Method::Clone } else { method };
        assert_eq!(spawner.method, used);
    }
}

#[test]
fn close_range_refused_is_close() {
    let _slots = with_slots();
    // A number that the command does not declare, and that execve does not close.
    let odd = high();
    rustix::io::fcntl_setfd(&odd, rustix::io::FdFlags::empty()).unwrap();
    let list = "in\n0 1 2 3 4\n";
    for errno in [libc::ENOSYS, libc::EPERM] {
        // Before the spawner looks, and after.
        let mut late = Spawner::new().unwrap();
        refusing(nr::CLOSE_RANGE, errno, || {
            let mut early = Spawner::new().unwrap();
            let mut program = given(echo_and_list(), 1).compile().unwrap();
            for spawner in [&mut early, &mut late] {
                for _ in 0..2 {
                    assert_eq!(talk(spawner, &mut program).unwrap(), list);
                    assert_eq!((spawner.method, spawner.last_table), (BEST, Some(FdTable::Copied)));
                }
            }
        });
    }
    drop(odd);
}

/// What becomes of a spawn that was begun.
fn land(spawner: &mut Spawner, program: &Program) -> Result<Exit, SpawnError> {
    let mut progress = SpawnProgress::InFlight(spawner.begin(program)?);
    loop {
        match progress {
            SpawnProgress::InFlight(spawning) => {
                assert!(spawning.is_finished() || wait_readable(spawning.pidfd(), SOON));
                progress = spawner.finish(spawning);
            }
            SpawnProgress::Running(mut child) => return Ok(child.wait().unwrap().exit),
            SpawnProgress::Failed(error) => return Err(error),
            SpawnProgress::Killed(child) => panic!("{child:?}"),
        }
    }
}

/// The clone that replaces clone3 waits for the child, so that the spawn can be repeated without close_range.
#[test]
fn a_spawn_in_flight_is_repeated_if_both_clone3_and_close_range_are_refused() {
    let program = sh("exit 3").compile().unwrap();
    let mut spawner = Spawner::new().unwrap();
    refusing(libc::SYS_clone3, libc::EPERM, || {
        refuse(nr::CLOSE_RANGE, libc::EPERM);
        assert_eq!(land(&mut spawner, &program), Ok(Exit::Code(3)));
    });
}

/// The child waits a millisecond before each further attempt.
#[test]
fn a_program_that_is_being_written_is_executed_at_the_second_attempt_or_in_flight_at_the_seventeenth() {
    let program = Command::new("/bin/true").compile().unwrap();
    let spawn = |refusals: usize, is_begun: bool, has_clone3: bool| {
        answering(libc::SYS_execve, vec![Some(libc::ETXTBSY); refusals], || {
            if !has_clone3 {
                refuse(libc::SYS_clone3, libc::ENOSYS);
            }
            let mut spawner = Spawner::new().unwrap();
            let exit = if is_begun {
                land(&mut spawner, &program)
            } else {
                spawner.spawn(&program).map(|mut child| child.wait().unwrap().exit)
            };
            exit.map_err(|error| (error.step(), error.errno()))
        })
    };
    for (is_begun, has_clone3, most) in [(false, true, 1), (true, true, 16), (true, false, 1)] {
        let most = if cfg!(pidherd_portable) { 1 } else { most };
        assert_eq!(
            spawn(most, is_begun, has_clone3),
            Ok(Exit::Code(0)),
            "{is_begun} {has_clone3}"
        );
        let error = spawn(most + 1, is_begun, has_clone3);
        assert_eq!(error, Err((SpawnStep::Exec, libc::ETXTBSY)), "{is_begun} {has_clone3}");
    }
}

#[test]
fn a_child_in_another_pid_namespace_is_killed_if_its_parent_cannot_come_back() {
    isolated(|| {
        if !root_or_skip("a PID namespace") {
            return;
        }
        let sleep = || Command::new("sleep").arg("1000").stdin(Stdio::null());
        let mut first = sleep().unshare(Namespace::Pid).spawn().unwrap();
        let namespace = File::open(format!("/proc/{}/ns/pid", first.pid())).unwrap();
        let second = sleep().setns(Namespace::Pid, OwnedFd::from(namespace));
        // Two calls enter the namespace.
        let answers = [None, None].into_iter().chain(std::iter::repeat(Some(libc::ENOMEM)));
        let error = answering(libc::SYS_setns, answers, || second.spawn().unwrap_err());
        assert_eq!((error.step(), error.errno()), (SpawnStep::Namespace, libc::ENOMEM));
        assert_eq!(children(), [first.pid().as_raw()]);
        first.kill().unwrap();
        first.wait().unwrap();
    });
}

/// `Stdio::stdout` is that of the child.
#[test]
fn the_streams_of_the_standard_library_are_those_of_the_host() {
    let command = sh("readlink /proc/self/fd/5 /proc/self/fd/6");
    let output = command
        .fd(5, std::io::stdout())
        .fd(6, std::io::stderr())
        .output()
        .unwrap();
    let link = |number| std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
    let expected = format!("{}\n{}\n", link(1).display(), link(2).display());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn a_shortage_passes() {
    let mut spawner = Spawner::new().unwrap();
    let mut program = given(echo_and_list(), 1).compile().unwrap();
    for errno in [libc::EAGAIN, libc::ENOMEM, libc::ENFILE] {
        let nr = if cfg!(pidherd_portable) {
            libc::SYS_clone
        } else {
            libc::SYS_clone3
        };
        refusing(nr, errno, || {
            let error = spawner.spawn(&program).unwrap_err();
            assert_eq!(
                (error.step(), error.errno(), error.is_transient()),
                (SpawnStep::Clone, errno, true)
            );
        });
        assert_eq!(talk(&mut spawner, &mut program).unwrap(), "in\n0 1 2 3 4\n");
    }
}

#[test]
fn an_id_change_that_did_not_happen_is_noticed() {
    if crate::sys::process::effective_uid() != 0 {
        eprintln!("SKIPPED: an_id_change_that_did_not_happen_is_noticed needs root");
        return;
    }
    let command = sh("echo not reached").uid(12345).gid(12346).groups(&[1, 2, 3]);
    for (nr, step) in [
        (nr::SETGROUPS, SpawnStep::Groups),
        (nr::SETRESGID, SpawnStep::Gid),
        (nr::SETRESUID, SpawnStep::Uid),
    ] {
        refusing(nr, 0, || {
            let error = command.spawn().unwrap_err();
            assert_eq!((error.step(), error.errno()), (step, libc::EPERM), "{error}");
        });
    }
}

#[test]
fn a_user_that_could_be_had_again_is_noticed() {
    if crate::sys::process::effective_uid() != 0 {
        eprintln!("SKIPPED: a_user_that_could_be_had_again_is_noticed needs root");
        return;
    }
    let command = sh("").uid(12345).gid(12346);
    // Where the kernel takes no capabilities away by itself, the child gives them up.
    let careful = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            keep_capabilities_across_ids();
            command.spawn().map(|mut child| child.wait().unwrap().exit)
        });
        thread.join().unwrap()
    });
    assert_eq!(careful, Ok(Exit::Code(0)));
    // And where that does nothing either, the child must not start.
    refusing(libc::SYS_capset, 0, || {
        keep_capabilities_across_ids();
        let error = command.spawn().unwrap_err();
        assert_eq!((error.step(), error.errno()), (SpawnStep::Uid, libc::EPERM), "{error}");
    });
}

#[test]
fn each_step_of_the_child_can_fail_and_is_named_in_the_error() {
    let command = sh("")
        .setsid(true)
        .umask(0o22)
        .nice(1)
        .cpu_affinity(&[0])
        .limit(super::Resource::Core, 0, 0)
        .current_dir("/")
        .no_new_privileges(false)
        .stdin(Stdio::null());
    let mut spawner = Spawner::new().unwrap();
    let program = command.compile().unwrap();
    for (nr, step) in [
        (libc::SYS_dup3, SpawnStep::Descriptor),
        (libc::SYS_setsid, SpawnStep::Session),
        (libc::SYS_umask, SpawnStep::Umask),
        (libc::SYS_setpriority, SpawnStep::Nice),
        (libc::SYS_sched_setaffinity, SpawnStep::Affinity),
        (libc::SYS_prlimit64, SpawnStep::Limit),
        (libc::SYS_chdir, SpawnStep::CurrentDir),
        (libc::SYS_rt_sigaction, SpawnStep::SignalDisposition),
        (libc::SYS_execve, SpawnStep::Exec),
    ] {
        refusing(nr, libc::EDOM, || {
            let error = spawner.spawn(&program).unwrap_err();
            assert_eq!((error.step(), error.errno()), (step, libc::EDOM), "{error}");
        });
        assert!(spawner.spawn(&program).unwrap().wait().unwrap().exit.success());
    }
}

#[test]
fn spawners_and_programs_change_threads() {
    fn send<T: Send>() {}
    send::<Spawner>();
    send::<Program>();
    send::<Command>();
    send::<crate::Child>();
    send::<SpawnError>();
}

/// Spawns in flight that nothing finishes, or that another spawner does, take nothing from the spawner that began them.
#[test]
fn slots_come_back_however_a_spawn_in_flight_ends() {
    let _slots = with_slots();
    let (mut spawner, mut other) = (Spawner::new().unwrap(), Spawner::new().unwrap());
    let program = given(sh(""), 3).compile().unwrap();
    for _ in 0..20 {
        drop(spawner.begin(&program).unwrap());
        assert_eq!(spawner.last_table, Some(FdTable::Unshared));
        let mut progress = SpawnProgress::InFlight(spawner.begin(&program).unwrap());
        assert_eq!(spawner.last_table, Some(FdTable::Unshared));
        while let SpawnProgress::InFlight(spawning) = progress {
            progress = other.finish(spawning);
        }
        let SpawnProgress::Running(mut child) = progress else {
            panic!("{progress:?}");
        };
        assert!(child.wait().unwrap().exit.success());
    }
}

#[test]
fn a_launch_is_used_again_only_after_its_child_has_released_it() {
    let mut spawner = Spawner::new().unwrap();
    let program = Command::new("cat").stdin(Stdio::piped()).compile().unwrap();
    for ends_first in [false, true] {
        let mut spawning = spawner.begin(&program).unwrap();
        wait_until("the program runs", SOON, || spawning.is_finished());
        if ends_first {
            spawning.pidfd().signal(Signal::KILL).unwrap();
            assert!(wait_readable(spawning.pidfd(), SOON));
        }
        spawning.pretend_in_flight();
        let (pidfd, _pipes, in_flight) = spawning.into_parts();
        spawner.abandon(in_flight, &pidfd);
        assert_eq!(spawner.idle_launches(), usize::from(ends_first));
        if !ends_first {
            pidfd.signal(Signal::KILL).unwrap();
        }
        wait_until("a later spawn reaps the child", SOON, || {
            lost::free();
            !pidfd.is_unreaped()
        });
    }
}

#[test]
fn launches_are_reserved_for_as_many_spawns_as_asked() {
    let mut spawner = Spawner::new().unwrap();
    spawner.reserve(3).unwrap();
    assert_eq!(spawner.idle_launches(), 3);
    spawner.reserve(2).unwrap();
    assert_eq!(spawner.idle_launches(), 3);
}

#[test]
fn the_kernel_writes_the_pids_of_children_where_it_is_told() {
    if cfg!(pidherd_portable) {
        return skipped("only clone3(2) writes them");
    }
    let file = File::from(memfd_create("a test", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(4096).unwrap();
    let mapping = Arc::new(Mapping::new(file.as_fd(), 4096).unwrap());
    let cell = BirthCell::new(&mapping, 8).unwrap();
    let mut spawner = Spawner::new().unwrap();
    let program = sh("").compile().unwrap();
    spawner.set_birth(Some(cell.clone()));
    let mut child = spawner.spawn(&program).unwrap();
    let pid = child.pid().as_raw();
    child.wait().unwrap();
    assert_eq!(cell.load(), pid);
    spawner.set_birth(None);
    spawner.spawn(&program).unwrap().wait().unwrap();
    assert_eq!(cell.load(), pid);
}

/// The host has waited for the execve, and must not wait for the end.
#[test]
fn a_spawn_without_clone3_returns_while_the_program_runs() {
    let (input, end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let program = Command::new("cat").stdin(input).compile().unwrap();
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut spawner = Spawner::new().unwrap();
        spawner.method = Method::Clone;
        sender.send(spawner.begin(&program).unwrap()).unwrap();
    });
    let begun = receiver.recv_timeout(SOON);
    drop(end);
    thread.join().unwrap();
    let progress = Spawner::new().unwrap().finish(begun.unwrap());
    let SpawnProgress::Running(mut child) = progress else {
        panic!("{progress:?}");
    };
    assert!(child.wait().unwrap().exit.success());
}

/// A capability that no setting names is not kept when the ids change, so the host need not be able to keep it.
#[test]
fn a_host_that_may_not_keep_capabilities_can_change_the_ids_of_a_child() {
    if crate::sys::process::effective_uid() != 0 {
        eprintln!("SKIPPED: a_host_that_may_not_keep_capabilities_can_change_the_ids_of_a_child needs root");
        return;
    }
    let thread = thread::spawn(|| {
        lock_keep_capabilities();
        let ambient = super::Capabilities::KILL;
        for command in [sh("").uid(12345).gid(12346), sh("").ambient_capabilities(ambient)] {
            assert!(command.spawn().unwrap().wait().unwrap().exit.success(), "{command:?}");
        }
        let error = sh("").uid(12345).ambient_capabilities(ambient).spawn().unwrap_err();
        assert_eq!((error.step(), error.errno()), (SpawnStep::Capabilities, libc::EPERM));
    });
    thread.join().unwrap();
}
