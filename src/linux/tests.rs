//! Tests of one watched process at a time, below the engine.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Child};
use std::sync::Arc;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};

use super::core::Linux;
use super::failures::errno_of;
use super::run_cgroup::RunCgroup;
use super::state_file::StateFile;
use super::watched::{Rest, Watch, Watched};
use crate::cgroup::{CgroupDir, CgroupUsage};
use crate::command::{Command, Spawner};
use crate::engine::context::{CgroupPath, SpawnContext};
use crate::engine::kernel::{Collected, Kernel};
use crate::exit::{Exit, Pid};
use crate::fdset::Interest;
use crate::lifecycle::Scope;
use crate::notify::ReadyFd;
use crate::pidfd::PidFd;
use crate::signal::Signal;
use crate::sys::wait::exit_of_cell;
use crate::testing::common::descriptors::NoDescriptors;
use crate::testing::common::fork::waiting_copy;
use crate::testing::common::refuse::{refuse, refusing};
use crate::testing::common::tracer::Tracer;
use crate::testing::common::{SOON, isolated, kernel_since, skipped, tempdir, test_cgroup, wait_readable, wait_until};
use crate::time::Instant;
use crate::timerfd::Clock;

/// A kernel that waits for each execve.
fn linux() -> Linux {
    let mut linux = Linux::new(Clock::Monotonic, Spawner::new().unwrap(), None).unwrap();
    linux.most_in_flight = 0;
    linux
}

fn sh(script: &str) -> process::Command {
    let mut command = process::Command::new("/bin/sh");
    command.args(["-c", script]).stdin(process::Stdio::piped());
    command
}

fn pidfd(child: &Child) -> PidFd {
    PidFd::open(child.id()).unwrap()
}

/// This process, which stays alive and is no child.
fn own() -> PidFd {
    PidFd::open(process::id()).unwrap()
}

fn wait_for_end(child: &mut Child) {
    drop(child.stdin.take());
    assert!(wait_readable(pidfd(child), SOON));
}

/// A process in slot 0 that is not in the set.
fn put(linux: &mut Linux, pidfd: PidFd, watch: Watch, rest: Rest) {
    linux.put(Watched {
        pidfd,
        watch,
        slot: 0,
        in_flight: None,
        rest: rest.boxed(),
    });
}

#[test]
fn an_error_has_its_errno_or_that_of_input_and_output() {
    assert_eq!(errno_of(&std::io::Error::from_raw_os_error(libc::EMFILE)), libc::EMFILE);
    assert_eq!(errno_of(&std::io::Error::other("no errno")), libc::EIO);
}

#[test]
fn only_spawns_in_flight_hold_up_others() {
    let mut linux = linux();
    assert!(!linux.is_saturated());
    linux.most_in_flight = 2;
    for (in_flight, is_saturated) in [(0, false), (1, false), (2, true), (3, true)] {
        linux.in_flight = in_flight;
        assert_eq!(linux.is_saturated(), is_saturated, "{in_flight}");
    }
}

#[test]
fn room_is_made_once_for_all_that_run_and_for_the_entries_beside_them() {
    let mut linux = linux();
    linux.reserve(1_000, 2_000);
    assert_eq!(linux.slots.capacity(), 1_000 + 6);
    assert_eq!(linux.processes.capacity(), 2_000);
}

#[test]
fn each_entry_and_each_process_has_the_slot_that_it_was_given() {
    let mut linux = linux();
    // The first one is the timer's.
    assert_eq!(linux.entries(), 1);
    for slot in [3, 0, 7] {
        linux.take_in(slot, own()).unwrap();
    }
    assert_eq!(linux.entries(), 4);
    for slot in [3, 0, 7] {
        let Some(Watch::Alive(token)) = linux.process(slot).map(|process| &process.watch) else {
            panic!("no process in slot {slot}");
        };
        let own = linux.pidfd(slot).unwrap().as_raw_fd();
        assert_eq!(linux.fd(*token).unwrap().as_raw_fd(), own);
    }
    assert!(linux.process(1).is_none() && linux.process(8).is_none());
}

#[test]
fn a_process_that_is_let_go_with_all_others_gets_no_signal() {
    isolated(|| {
        let mut linux = linux();
        let mut child = sh("read go; exit 3").spawn().unwrap();
        linux.take_in(0, pidfd(&child)).unwrap();
        linux.let_all_go();
        linux.discard(0, SOON);
        drop(child.stdin.take());
        assert_eq!(child.wait().unwrap().code(), Some(3));
    });
}

#[test]
fn a_late_status_is_looked_for_at_times_that_double_up_to_a_limit() {
    let mut linux = linux();
    put(&mut linux, own(), Watch::Late(0), Rest::default());
    for millis in [2, 4, 8, 16, 32, 64, 128, 128] {
        let wait = Duration::from_millis(millis);
        let before = linux.now().saturating_add(wait);
        assert_eq!(linux.collect(0, false).unwrap(), Collected::Nothing);
        let at = linux.look_at().unwrap();
        assert!(before <= at && at <= linux.now().saturating_add(wait), "{millis}");
    }
}

#[test]
fn the_cgroup_of_a_run_is_asked_and_changed() {
    let directory = tempdir();
    let leaf = CgroupDir::plain(directory.path()).make("run").unwrap();
    for (file, content) in [
        ("cgroup.freeze", "0"),
        ("cgroup.events", "populated 1\n"),
        ("cpu.stat", "usage_usec 7\n"),
        ("memory.events", "oom 1\noom_kill 1\n"),
    ] {
        fs::write(leaf.path().join(file), content).unwrap();
    }
    let file = |file: &str| leaf.path().join(file);
    let mut linux = linux();
    let run_cgroup = Some(RunCgroup::of(
        CgroupDir::plain(directory.path()).existing("run").unwrap().unwrap(),
    ));
    let rest = Rest {
        run_cgroup,
        ..Rest::default()
    };
    put(&mut linux, own(), Watch::Group, rest);
    let used = CgroupUsage {
        cpu: Some(Duration::from_micros(7)),
        ..CgroupUsage::default()
    };
    assert_eq!(linux.usage(0), Some(used));
    assert!(linux.out_of_memory(0).is_some());
    for (on, content) in [(true, "1"), (false, "0")] {
        linux.freeze(0, on).unwrap();
        assert_eq!(fs::read_to_string(file("cgroup.freeze")).unwrap(), content);
        assert_eq!(linux.is_frozen(0), on);
    }
    for (events, is_empty) in [("populated 1\n", false), ("populated 0\n", true)] {
        fs::write(file("cgroup.events"), events).unwrap();
        assert_eq!(linux.is_empty(0, Scope::Cgroup, 0).unwrap(), is_empty);
    }
    // The slot without a process has none of it.
    assert_eq!(
        (linux.usage(1), linux.out_of_memory(1), linux.is_frozen(1)),
        (None, None, false)
    );
    linux.freeze(1, true).unwrap();
}

/// A run has none of its own if its process was started elsewhere, for example.
#[test]
fn without_a_cgroup_the_scope_of_a_cgroup_is_the_group() {
    isolated(|| {
        let mut linux = linux();
        // This process leads its group.
        put(&mut linux, own(), Watch::Group, Rest::default());
        for scope in [Scope::ProcessGroup, Scope::Cgroup] {
            for looks in [0, 6] {
                assert!(!linux.is_empty(0, scope, looks).unwrap(), "{scope:?}, {looks}");
            }
        }
        assert!(linux.is_empty(0, Scope::Process, 0).unwrap());
    });
}

#[test]
fn a_group_with_nothing_but_a_zombie_is_empty_for_a_careful_look() {
    isolated(|| {
        let mut linux = linux();
        let mut leader = sh("read go").process_group(0).spawn().unwrap();
        let mut member = sh("read go").process_group(leader.id() as i32).spawn().unwrap();
        linux.take_in(0, pidfd(&leader)).unwrap();
        wait_for_end(&mut leader);
        assert!(matches!(linux.collect(0, true).unwrap(), Collected::Ended(_)));
        assert!(!linux.is_empty(0, Scope::ProcessGroup, 6).unwrap());
        let found = linux.process(0).unwrap().rest.as_ref().unwrap().member;
        assert_eq!(found.map(Pid::as_raw), Some(member.id()), "it is asked first next time");
        wait_for_end(&mut member);
        // Before Linux 6.9 each look is a careful one.
        if kernel_since(6, 9) {
            assert!(!linux.is_empty(0, Scope::ProcessGroup, 0).unwrap());
        }
        assert!(linux.is_empty(0, Scope::ProcessGroup, 6).unwrap());
        member.wait().unwrap();
        assert!(linux.is_empty(0, Scope::ProcessGroup, 0).unwrap());
        linux.discard(0, SOON);
    });
}

#[test]
fn the_set_reports_that_no_process_of_a_cgroup_is_left() {
    isolated(|| {
        let Some(cgroup) = test_cgroup() else { return };
        let mut linux = linux();
        let program = Command::new("/bin/sh").args(["-c", "sleep 1000 & exit 3"]).compile();
        let dir = CgroupDir::open(cgroup.path()).unwrap();
        let name = "run".to_owned();
        let context = SpawnContext {
            cgroup: Some(Arc::new(CgroupPath { dir, name })),
            ..SpawnContext::default()
        };
        linux.spawn(0, &program.unwrap(), &context).unwrap();
        let mut collected = Collected::Nothing;
        wait_until("the process has ended", SOON, || {
            collected = linux.collect(0, true).unwrap();
            collected != Collected::Nothing
        });
        assert!(matches!(collected, Collected::Ended(record) if record.exit == Exit::Code(3)));
        assert_eq!(linux.collect(0, true).unwrap(), Collected::Nothing);
        linux.signal(0, Signal::KILL, Scope::Cgroup).unwrap();
        wait_until("the cgroup is empty", SOON, || {
            linux.collect(0, true).unwrap() == Collected::CgroupEmpty
        });
        linux.discard(0, SOON);
    });
}

/// The status of an ended process that a tracer holds is looked for at intervals, because its descriptor would stay
/// readable.
#[test]
fn an_ended_process_without_a_status_leaves_the_set_if_a_descriptor_is_free() {
    isolated(|| {
        let mut linux = linux();
        let mut child = sh("read go").spawn().unwrap();
        let Some(tracer) = Tracer::attach(child.id()) else {
            drop(child.stdin.take());
            child.wait().unwrap();
            return;
        };
        // The host may have registered the descriptor elsewhere, so a copy of it is kept instead.
        linux.fds.track_changes(true);
        linux.take_in(0, pidfd(&child)).unwrap();
        child.kill().unwrap();
        wait_for_end(&mut child);
        let none = NoDescriptors::left();
        assert_eq!(linux.collect(0, false).unwrap(), Collected::Nothing);
        assert_eq!((linux.entries(), linux.look_at()), (2, None));
        drop(none);
        assert_eq!(linux.collect(0, false).unwrap(), Collected::Nothing);
        assert_eq!(linux.entries(), 1);
        assert!(linux.look_at().is_some());
        drop(tracer);
        let ended = linux.collect(0, false).unwrap();
        assert!(matches!(ended, Collected::Ended(record) if record.exit.signal() == Some(Signal::KILL)));
        linux.discard(0, SOON);
        linux.fds.track_changes(false);
    });
}

/// The next host learns from the state file how a process ended that this one has reaped.
#[test]
fn the_status_of_a_reaped_process_is_stored() {
    isolated(|| {
        let directory = tempdir();
        let mut linux = linux();
        assert!(!linux.keeps_state());
        linux.state = Some(StateFile::open(&directory.join("state")).unwrap().0);
        assert!(linux.keeps_state());
        linux.save(b"base", &[b"record".to_vec()], 8).unwrap();
        let mut child = sh("read go; exit 3").spawn().unwrap();
        linux.take_in(0, pidfd(&child)).unwrap();
        let stored = |linux: &Linux| exit_of_cell(&linux.state.as_ref().unwrap().exit_cell(0).unwrap());
        wait_for_end(&mut child);
        assert!(linux.has_ended(0));
        assert_eq!(stored(&linux), None);
        assert!(matches!(linux.collect(0, false).unwrap(), Collected::Ended(_)));
        let (pid, exit) = stored(&linux).unwrap();
        assert_eq!((pid.as_raw(), exit), (child.id(), Exit::Code(3)));
        linux.discard(0, SOON);
    });
}

#[test]
fn a_birth_that_is_forgotten_belongs_to_no_run() {
    let directory = tempdir();
    let path = directory.join("state");
    for (forgets, number) in [(false, 5), (true, 0)] {
        let mut linux = linux();
        linux.state = Some(StateFile::open(&path).unwrap().0);
        linux.save(b"base", &[b"record".to_vec()], 8).unwrap();
        linux.begin_birth(0, 5);
        if forgets {
            linux.forget_birth(0);
        }
        drop(linux);
        let (_, left) = StateFile::open(&path).unwrap();
        let births = left.unwrap().records.into_iter().map(|(_, birth)| birth.number);
        assert_eq!(births.collect::<Vec<_>>(), [number]);
    }
}

/// Gives the process in slot 0 a readiness descriptor. Returns the end of the process.
fn add_readiness(linux: &mut Linux) -> OwnedFd {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let ready = ReadyFd::new(reader).unwrap();
    let token = linux.fds.add(ready.as_fd(), Interest::READ).unwrap();
    linux.set_slot(token, 0);
    let rest = Rest {
        ready: Some((ready, token)),
        ..Rest::default()
    };
    linux.processes[0].as_mut().unwrap().rest = rest.boxed();
    writer
}

/// A process that ends closes its descriptors, too. /proc tells that it ends, if it can be read.
#[test]
fn a_readiness_that_is_closed_is_a_failure_of_a_process_that_lives() {
    isolated(|| {
        for has_descriptors in [true, false] {
            for has_ended in [true, false] {
                let mut linux = linux();
                // The closed descriptor is kept for the host, and so its number is not free for a look into /proc.
                linux.fds.track_changes(true);
                let mut child = sh("read go").spawn().unwrap();
                linux.take_in(0, pidfd(&child)).unwrap();
                drop(add_readiness(&mut linux));
                while linux.fds.next_change().is_some() {}
                if has_ended {
                    wait_for_end(&mut child);
                }
                let none = (!has_descriptors).then(NoDescriptors::left);
                let collected = linux.collect(0, false).unwrap();
                drop(none);
                let is_expected = match has_ended {
                    true => matches!(collected, Collected::Ended(_)),
                    false => collected == Collected::NotReady,
                };
                assert!(is_expected, "{has_descriptors}, {has_ended}: {collected:?}");
                linux.discard(0, SOON);
                assert!(child.wait().is_err(), "it was reaped");
            }
        }
    });
}

#[test]
fn a_process_that_cannot_be_killed_is_reaped_after_its_end() {
    isolated(|| {
        let mut linux = linux();
        let program = Command::new("/bin/sleep").arg("1000").compile().unwrap();
        linux.spawn(0, &program, &SpawnContext::default()).unwrap();
        let own = linux.pidfd(0).unwrap().try_clone().unwrap();
        refusing(libc::SYS_pidfd_send_signal, libc::EPERM, || {
            refusing(libc::SYS_kill, libc::EPERM, || linux.discard(0, Duration::ZERO));
        });
        assert_eq!(linux.entries(), 1);
        own.signal(Signal::KILL).unwrap();
        wait_until("a later spawn reaps it", SOON, || {
            let program = Command::new("/bin/true").compile().unwrap();
            linux.spawn(0, &program, &SpawnContext::default()).unwrap();
            linux.discard(0, SOON);
            !own.is_unreaped()
        });
    });
}

/// Its descriptor tells when it has ended. Only that of a process that a tracer holds would stay readable.
#[test]
fn a_failed_spawn_stays_in_the_set_until_it_has_ended() {
    isolated(|| {
        let mut linux = linux();
        linux.most_in_flight = 1;
        let program = Command::new("/bin/true").current_dir("/no/such").compile().unwrap();
        if linux.spawn(0, &program, &SpawnContext::default()).is_err() {
            return skipped("each spawn is waited for");
        }
        assert!(wait_readable(linux.pidfd(0).unwrap(), SOON));
        std::thread::scope(|scope| {
            let alive = scope.spawn(|| {
                // It has not ended yet, as far as this thread can see.
                for nr in [libc::SYS_waitid, libc::SYS_ppoll] {
                    refuse(nr, 0);
                }
                assert_eq!(linux.collect(0, false).unwrap(), Collected::Nothing);
                assert_eq!(linux.entries(), 2);
            });
            alive.join().unwrap();
        });
        assert!(matches!(linux.collect(0, false).unwrap(), Collected::SpawnFailed(_)));
        linux.discard(0, SOON);
    });
}

#[test]
fn a_program_is_known_to_be_executed_before_its_spawn_is_collected() {
    isolated(|| {
        let mut linux = linux();
        linux.most_in_flight = 1;
        let program = Command::new("/bin/sleep").arg("1000").compile().unwrap();
        linux.spawn(0, &program, &SpawnContext::default()).unwrap();
        if linux.in_flight == 0 {
            linux.discard(0, SOON);
            return skipped("each spawn is waited for");
        }
        wait_until("the program runs", SOON, || linux.has_executed(0));
        assert_eq!(linux.collect(0, false).unwrap(), Collected::Executed { ended: false });
        assert!(!linux.has_executed(0), "there is no news any more");
        linux.discard(0, SOON);
        let missing = Command::new("/no/such").compile().unwrap();
        linux.spawn(0, &missing, &SpawnContext::default()).unwrap();
        assert!(wait_readable(linux.pidfd(0).unwrap(), SOON));
        assert!(!linux.has_executed(0));
        assert!(matches!(linux.collect(0, false).unwrap(), Collected::SpawnFailed(_)));
        linux.discard(0, SOON);
    });
}

/// A spawn in slot 0 that the program before this one began.
fn inherit_flight(linux: &mut Linux, pid: u32) {
    linux.take_in(0, PidFd::open(pid).unwrap()).unwrap();
    let rest = Rest {
        inherited_flight: Some((Instant::ZERO, OsString::from("program"))),
        ..Rest::default()
    };
    linux.processes[0].as_mut().unwrap().rest = rest.boxed();
    linux.in_flight = 1;
}

#[test]
fn an_inherited_spawn_that_has_executed_its_program_is_not_failed_by_its_exit_code() {
    isolated(|| {
        let mut linux = linux();
        let mut child = sh("read go; exit 3").spawn().unwrap();
        inherit_flight(&mut linux, child.id());
        wait_for_end(&mut child);
        assert_eq!(linux.collect(0, false).unwrap(), Collected::Executed { ended: true });
        assert!(matches!(linux.collect(0, false).unwrap(), Collected::Ended(_)));
        assert_eq!(linux.in_flight, 0);
        linux.discard(0, SOON);
    });
}

/// It may have ended in its flight: nothing tells that any more.
#[test]
fn an_inherited_spawn_that_was_reaped_elsewhere_has_ended() {
    isolated(|| {
        let mut linux = linux();
        let mut child = sh("read go").spawn().unwrap();
        inherit_flight(&mut linux, child.id());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(matches!(linux.collect(0, false).unwrap(), Collected::Ended(_)));
        assert_eq!(linux.in_flight, 0);
        linux.discard(0, SOON);
    });
}

#[test]
fn an_inherited_spawn_that_hangs_stays_in_the_set_unless_a_tracer_holds_its_status() {
    isolated(|| {
        let mut linux = linux();
        let number = waiting_copy();
        let hanging = || PidFd::open(number).unwrap();
        inherit_flight(&mut linux, number);
        assert_eq!(linux.collect(0, false).unwrap(), Collected::Nothing);
        assert_eq!((linux.entries(), linux.in_flight), (2, 1));
        if let Some(tracer) = Tracer::attach(number) {
            hanging().signal(Signal::KILL).unwrap();
            assert!(wait_readable(hanging(), SOON));
            assert_eq!(linux.collect(0, false).unwrap(), Collected::Nothing);
            assert_eq!((linux.entries(), linux.in_flight), (1, 1));
            drop(tracer);
        }
        linux.discard(0, SOON);
    });
}
