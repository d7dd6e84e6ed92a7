//! Spawns in flight: begun, and not waited for.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use pidherd::exit::Exit;
use pidherd::{
    Child, Command, GroupSpec, Launcher, Program, Signal, SpawnError, SpawnProgress, SpawnStep, Spawner, Spawning,
    Stdio, Supervisor,
};

use super::common::lease::Lease;
use super::common::processes::children;
use super::common::tracer::Tracer;
use super::common::{SOON, TempDir, isolated, tempdir, wait_readable, wait_until};
use super::helpers::{root, sh};

/// Asks until the spawn is over.
pub fn finish(spawner: &mut Spawner, spawning: Spawning) -> SpawnProgress {
    let mut progress = Some(SpawnProgress::InFlight(spawning));
    wait_until("the spawn is over", SOON, || {
        if let Some(SpawnProgress::InFlight(spawning)) = progress.take() {
            progress = Some(spawner.finish(spawning));
        }
        !matches!(progress, Some(SpawnProgress::InFlight(_)))
    });
    progress.unwrap()
}

pub fn running(progress: SpawnProgress) -> Child {
    match progress {
        SpawnProgress::Running(child) => child,
        other => panic!("{other:?}"),
    }
}

fn still_in_flight(progress: SpawnProgress) -> Spawning {
    match progress {
        SpawnProgress::InFlight(spawning) => spawning,
        other => panic!("{other:?}"),
    }
}

/// A copy of `true` with an execve that can be made to hang.
fn program(place: &TempDir) -> PathBuf {
    let path = place.join("program");
    std::fs::copy("/bin/true", &path).unwrap();
    path
}

fn is_synchronous() -> bool {
    cfg!(pidherd_portable)
}

fn hangs(path: &Path) -> Option<(Lease, Program)> {
    if is_synchronous() {
        super::common::skipped("the portable path waits for exec");
        return None;
    }
    Some((Lease::take(path)?, Command::new(path).compile().unwrap()))
}

#[test]
fn a_spawn_returns_while_exec_hangs() {
    isolated(|| {
        let place = tempdir();
        let path = program(&place);
        let Some((lease, hanging)) = hangs(&path) else { return };
        let mut spawner = Spawner::new().unwrap();
        let spawning = spawner.begin(&hanging).unwrap();
        let spawning = still_in_flight(spawner.finish(spawning));
        // Others go on meanwhile, in both ways.
        let other = sh("exit 4").compile().unwrap();
        assert_eq!(spawner.spawn(&other).unwrap().wait().unwrap().exit, Exit::Code(4));
        let second = spawner.begin(&other).unwrap();
        let mut second = running(finish(&mut spawner, second));
        assert_eq!(second.wait().unwrap().exit, Exit::Code(4));
        let spawning = still_in_flight(spawner.finish(spawning));
        lease.end();
        let mut child = running(finish(&mut spawner, spawning));
        assert_eq!(child.wait().unwrap().exit, Exit::Code(0));
    });
}

#[test]
fn a_child_that_is_killed_before_exec_has_not_run() {
    isolated(|| {
        let place = tempdir();
        let path = program(&place);
        let Some((lease, hanging)) = hangs(&path) else { return };
        let mut spawner = Spawner::new().unwrap();
        let spawning = spawner.begin(&hanging).unwrap();
        spawning.pidfd().signal(Signal::KILL).unwrap();
        match finish(&mut spawner, spawning) {
            SpawnProgress::Killed(mut child) => {
                assert_eq!(child.wait().unwrap().exit.signal(), Some(Signal::KILL));
            }
            other => panic!("{other:?}"),
        }
        lease.end();
    });
}

#[test]
fn a_killed_program_has_run() {
    isolated(|| {
        let mut spawner = Spawner::new().unwrap();
        let loops = sh("echo runs; kill -9 $$").stdout(Stdio::piped()).compile().unwrap();
        for _ in 0..20 {
            let spawning = spawner.begin(&loops).unwrap();
            assert!(wait_readable(spawning.pidfd(), SOON));
            let mut child = running(finish(&mut spawner, spawning));
            assert_eq!(child.wait().unwrap().exit.signal(), Some(Signal::KILL));
        }
    });
}

#[test]
fn a_failing_step_is_named_and_leaves_nothing() {
    isolated(|| {
        let mut spawner = Spawner::new().unwrap();
        let cases = [
            (Command::new("/no/such/program"), SpawnStep::Exec, libc::ENOENT),
            (sh("").current_dir("/no/such"), SpawnStep::CurrentDir, libc::ENOENT),
            (sh("").stdin(Stdio::read("/no/such")), SpawnStep::Open, libc::ENOENT),
        ];
        for (command, step, errno) in cases {
            let program = command.compile().unwrap();
            let error = match spawner.begin(&program) {
                Ok(spawning) => {
                    assert!(wait_readable(spawning.pidfd(), SOON));
                    match finish(&mut spawner, spawning) {
                        SpawnProgress::Failed(error) => error,
                        other => panic!("{other:?}"),
                    }
                }
                Err(error) => error,
            };
            assert_eq!((error.step(), error.errno()), (step, errno), "{error}");
        }
    });
}

#[test]
fn a_child_that_is_dropped_in_flight_is_killed() {
    isolated(|| {
        let place = tempdir();
        let path = program(&place);
        let Some((lease, hanging)) = hangs(&path) else { return };
        let mut spawner = Spawner::new().unwrap();
        drop(spawner.begin(&hanging).unwrap());
        let spawning = spawner.begin(&hanging).unwrap();
        // The program, the spawner and then the child.
        drop(hanging);
        drop(spawner);
        drop(spawning);
        let mut launcher = Launcher::new().unwrap();
        launcher.begin(&Command::new(&path).compile().unwrap()).unwrap();
        assert!(launcher.finish().is_none());
        drop(launcher);
        lease.end();
    });
}

/// Waits until no child is left, not even a zombie. A spawn reaps the children of earlier ones that ended late.
pub fn reaped_by_later_spawns() {
    let next = sh("exit 0").compile().unwrap();
    wait_until("a later spawn reaps the child", SOON, || {
        let mut child = Spawner::new().unwrap().spawn(&next).unwrap();
        assert!(child.wait().unwrap().exit.success());
        children().is_empty()
    });
}

/// The child releases the memory of the host, and its end is known only after the drop has stopped waiting: a tracer
/// holds it.
fn is_reaped_after(begin_and_drop: impl FnOnce(&Program, &mut Option<Tracer>)) {
    isolated(|| {
        let place = tempdir();
        let path = program(&place);
        let Some((lease, hanging)) = hangs(&path) else { return };
        let mut tracer = None;
        begin_and_drop(&hanging, &mut tracer);
        if tracer.is_some() {
            assert_eq!(children().len(), 2, "the tracer and its tracee");
        }
        drop(tracer);
        reaped_by_later_spawns();
        lease.end();
    });
}

#[test]
fn a_spawn_that_ends_after_its_drop_is_reaped_by_a_later_spawn() {
    is_reaped_after(|hanging, tracer| {
        let spawning = Spawner::new().unwrap().begin(hanging).unwrap();
        *tracer = Tracer::attach(spawning.pid().as_raw());
        drop(spawning);
    });
}

#[test]
fn a_spawn_that_ends_after_the_drop_of_its_launcher_is_reaped_by_a_later_spawn() {
    is_reaped_after(|hanging, tracer| {
        let mut launcher = Launcher::new().unwrap();
        launcher.begin(hanging).unwrap();
        *tracer = Tracer::attach(children()[0]);
        drop(launcher);
    });
}

#[test]
fn a_spawn_that_ends_after_the_drop_of_its_supervisor_is_reaped_by_a_later_spawn() {
    is_reaped_after(|hanging, tracer| {
        let mut supervisor = Supervisor::builder().spawns_in_flight(1).build().unwrap();
        let command = Command::new(hanging.name());
        let group = supervisor.add(GroupSpec::new("a", command)).unwrap();
        supervisor.start(group).unwrap();
        wait_until("the child exists", SOON, || {
            supervisor.dispatch().unwrap();
            !children().is_empty()
        });
        *tracer = Tracer::attach(children()[0]);
        drop(supervisor);
    });
}

#[test]
fn pipes_of_many_in_flight_reach_their_own_child_and_end() {
    isolated(|| {
        let mut spawner = Spawner::new().unwrap();
        // High numbers, so that slots are needed.
        let high: Vec<_> = (0..80).map(|_| File::open("/dev/null").unwrap()).collect();
        let echo = |n: usize| {
            let command = sh(&format!("read line; echo {n} $line; echo {n} >&2"));
            let piped = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            piped.compile().unwrap()
        };
        let spawning: Vec<_> = (0..30).map(|n| spawner.begin(&echo(n)).unwrap()).collect();
        for (n, spawning) in spawning.into_iter().enumerate() {
            let mut child = running(finish(&mut spawner, spawning));
            File::from(child.stdin.take().unwrap()).write_all(b"line\n").unwrap();
            let (mut out, mut err) = (String::new(), String::new());
            File::from(child.stdout.take().unwrap())
                .read_to_string(&mut out)
                .unwrap();
            File::from(child.stderr.take().unwrap())
                .read_to_string(&mut err)
                .unwrap();
            assert_eq!((out, err), (format!("{n} line\n"), format!("{n}\n")));
            assert!(child.wait().unwrap().exit.success());
        }
        drop(high);
    });
}

#[test]
fn each_of_several_children_of_one_program_gets_its_own_pid() {
    isolated(|| {
        let mut spawner = Spawner::new().unwrap();
        let null = || File::open("/dev/null").unwrap();
        let command = sh("echo $LISTEN_PID $$ $LISTEN_FDS")
            .listen_fd(null())
            .stdout(Stdio::piped());
        let program = command.compile().unwrap();
        let spawning: Vec<_> = (0..20).map(|_| spawner.begin(&program).unwrap()).collect();
        for spawning in spawning {
            let mut child = running(finish(&mut spawner, spawning));
            let mut text = String::new();
            File::from(child.stdout.take().unwrap())
                .read_to_string(&mut text)
                .unwrap();
            let pid = child.pid();
            assert_eq!(text, format!("{pid} {pid} 1\n"));
            assert!(child.wait().unwrap().exit.success());
        }
    });
}

#[test]
fn the_dumpable_flag_comes_back_when_the_last_that_changes_ids_has_let_go() {
    if !root("the_dumpable_flag_comes_back_when_the_last_that_changes_ids_has_let_go") {
        return;
    }
    isolated(|| {
        // SAFETY: takes a number.
        let dumpable = || unsafe { libc::prctl(libc::PR_GET_DUMPABLE) };
        let place = tempdir();
        std::fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = program(&place);
        let Some((lease, _)) = hangs(&path) else { return };
        let mut spawner = Spawner::new().unwrap();
        let hanging = Command::new(&path).uid(65534).gid(65534).compile().unwrap();
        let spawning = spawner.begin(&hanging).unwrap();
        wait_until("the child has changed its ids", SOON, || dumpable() == 0);
        // Another one comes and goes: the flag must stay as it is, for the first one shares this memory still.
        let other = sh("").uid(65534).gid(65534).compile().unwrap();
        let second = spawner.begin(&other).unwrap();
        let mut second = running(finish(&mut spawner, second));
        assert!(second.wait().unwrap().exit.success());
        drop(spawner.spawn(&other).unwrap());
        assert_eq!(dumpable(), 0);
        lease.end();
        let mut child = running(finish(&mut spawner, spawning));
        assert_eq!(dumpable(), 1);
        assert!(child.wait().unwrap().exit.success());
    });
}

#[test]
fn oom_score_adj_stays_with_the_child() {
    isolated(|| {
        let own = || std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        let before = own();
        let mut spawner = Spawner::new().unwrap();
        // The first makes the kernel remember that this memory is shared.
        let first = spawner.begin(&sh("").compile().unwrap()).unwrap();
        assert!(running(finish(&mut spawner, first)).wait().unwrap().exit.success());
        let command = sh("cat /proc/self/oom_score_adj")
            .oom_score_adj(500)
            .stdout(Stdio::piped());
        let spawning = spawner.begin(&command.compile().unwrap()).unwrap();
        let mut child = running(finish(&mut spawner, spawning));
        let mut text = String::new();
        File::from(child.stdout.take().unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "500\n");
        assert!(child.wait().unwrap().exit.success());
        assert_eq!(own(), before);
    });
}

#[test]
fn a_program_that_is_being_written_is_waited_for_by_the_child() {
    isolated(|| {
        let place = tempdir();
        let path = program(&place);
        let writing = File::options().write(true).open(&path).unwrap();
        let mut spawner = Spawner::new().unwrap();
        let busy = Command::new(&path).compile().unwrap();
        let spawning = spawner.begin(&busy).unwrap();
        if is_synchronous() {
            let SpawnProgress::Failed(error) = spawner.finish(spawning) else {
                panic!("the program is being written")
            };
            assert_eq!(error.errno(), libc::ETXTBSY);
            return;
        }
        drop(writing);
        assert!(running(finish(&mut spawner, spawning)).wait().unwrap().exit.success());
        let writing = File::options().write(true).open(&path).unwrap();
        let spawning = spawner.begin(&busy).unwrap();
        match finish(&mut spawner, spawning) {
            SpawnProgress::Failed(error) => assert_eq!((error.step(), error.errno()), (SpawnStep::Exec, libc::ETXTBSY)),
            other => panic!("{other:?}"),
        }
        drop(writing);
    });
}

#[test]
fn a_launcher_tells_each_outcome_once_and_its_descriptor_wakes_for_it() {
    isolated(|| {
        let place = tempdir();
        let path = program(&place);
        let mut launcher = Launcher::new().unwrap();
        let good = sh("exit 7").compile().unwrap();
        let bad = Command::new("/no/such").compile().unwrap();
        let mut expected = std::collections::BTreeMap::new();
        for n in 0..40 {
            let (program, wanted) = if n % 3 == 0 { (&bad, None) } else { (&good, Some(7)) };
            match launcher.begin(program) {
                Ok(id) => assert!(expected.insert(id, wanted).is_none()),
                // The portable path has waited, and knows already.
                Err(error) => assert_eq!((error.errno(), wanted, is_synchronous()), (libc::ENOENT, None, true)),
            }
        }
        let lease = hangs(&path).map(|(lease, hanging)| {
            let id = launcher.begin(&hanging).unwrap();
            expected.insert(id, Some(0));
            (lease, id)
        });
        let mut hanging = usize::from(lease.is_some());
        let mut lease = lease;
        while launcher.in_flight() > 0 {
            if launcher.in_flight() == hanging {
                let (lease, id) = lease.take().unwrap();
                assert!(expected.contains_key(&id));
                lease.end();
                hanging = 0;
            }
            assert!(wait_readable(launcher.as_fd(), SOON));
            while let Some((id, outcome)) = launcher.finish() {
                let wanted = expected.remove(&id).expect("told once");
                let seen: Result<_, SpawnError> = outcome.map(|mut child| child.wait().unwrap().exit.code());
                assert_eq!(seen.ok().flatten().map(i32::from), wanted);
            }
        }
        assert!(expected.is_empty());
        assert!(launcher.finish().is_none());
        assert!(!wait_readable(launcher.as_fd(), std::time::Duration::from_millis(1)));
    });
}
