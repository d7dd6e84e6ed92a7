//! What the host itself does while children are in flight: it forks, it replaces itself, it panics, it ends.

use std::ffi::CStr;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pidherd::exit::Exit;
use pidherd::{Command, LaunchId, Launcher, Program, SpawnError, SpawnProgress, SpawnStep, Spawner, Spawning, Stdio};

use crate::common::descriptors::readable;
use crate::common::fork::in_fork;
use crate::common::lease::Lease;
use crate::common::{SOON, TempDir, isolated, skipped, tempdir, wait_readable, wait_until};
use crate::helpers::{read_to_end, sh};
use crate::in_flight::{finish, running};

/// A shell with an execve that hangs.
fn shell(place: &TempDir) -> Option<(Lease, PathBuf)> {
    if cfg!(pidherd_portable) {
        skipped("the portable path waits for exec");
        return None;
    }
    let path = place.join("program");
    fs::copy("/bin/sh", &path).unwrap();
    Some((Lease::take(&path)?, path))
}

fn script(shell: &Path, script: &str) -> Command {
    Command::new(shell).arg("-c").arg(script)
}

fn registrations(epoll: impl AsFd) -> usize {
    let path = format!("/proc/self/fdinfo/{}", epoll.as_fd().as_raw_fd());
    let info = readable(|| fs::read_to_string(path)).unwrap();
    info.lines().filter(|line| line.starts_with("tfd:")).count()
}

/// Waits until nothing but [`Spawner::finish`] is missing.
fn until_over(spawning: &Spawning) {
    wait_until("it is over", SOON, || spawning.is_finished());
}

fn is_of_another_process(error: &SpawnError) -> bool {
    (error.step(), error.errno()) == (SpawnStep::Watch, libc::ECHILD)
}

/// Two children hang, two are over, in each of both ways.
struct All {
    launcher: Launcher,
    launched: [LaunchId; 2],
    spawner: Spawner,
    hanging: Spawning,
    over: Spawning,
    failed: Spawning,
}

impl All {
    fn begin(hanging: &Program) -> All {
        let (mut launcher, mut spawner) = (Launcher::new().unwrap(), Spawner::new().unwrap());
        let (over, missing) = (
            sh("exit 5").compile().unwrap(),
            Command::new("/no/such").compile().unwrap(),
        );
        let all = All {
            launched: [&over, hanging].map(|program| launcher.begin(program).unwrap()),
            launcher,
            hanging: spawner.begin(hanging).unwrap(),
            over: spawner.begin(&over).unwrap(),
            failed: spawner.begin(&missing).unwrap(),
            spawner,
        };
        until_over(&all.over);
        until_over(&all.failed);
        assert!(wait_readable(all.failed.pidfd(), SOON));
        assert!(wait_readable(all.launcher.as_fd(), SOON));
        all
    }

    /// All that a copy of the process can try.
    fn in_copy(self) {
        let All {
            mut launcher,
            mut spawner,
            hanging,
            over,
            failed,
            ..
        } = self;
        let other = sh("exit 6").compile().unwrap();
        assert_eq!(launcher.in_flight(), 0);
        assert!(launcher.finish().is_none());
        assert!(is_of_another_process(&launcher.begin(&other).unwrap_err()));
        drop(launcher);
        for spawning in [over, failed] {
            match spawner.finish(spawning) {
                SpawnProgress::Failed(error) => assert!(is_of_another_process(&error), "{error}"),
                other => panic!("{other:?}"),
            }
        }
        // Its own spawns have nothing to do with those of the original.
        let own = spawner.begin(&other).unwrap();
        let mut own = running(finish(&mut spawner, own));
        assert_eq!(own.wait().unwrap().exit, Exit::Code(6));
        assert_eq!(spawner.spawn(&other).unwrap().wait().unwrap().exit, Exit::Code(6));
        drop(hanging);
    }

    /// All is as it would be without the copy.
    fn finish(mut self, lease: Lease) {
        assert!(!wait_readable(self.hanging.pidfd(), Duration::ZERO));
        let mut over = running(finish(&mut self.spawner, self.over));
        assert_eq!(over.wait().unwrap().exit, Exit::Code(5));
        match finish(&mut self.spawner, self.failed) {
            SpawnProgress::Failed(error) => assert_eq!(error.errno(), libc::ENOENT),
            other => panic!("{other:?}"),
        }
        lease.end();
        let mut hanging = running(finish(&mut self.spawner, self.hanging));
        let mut told = Vec::new();
        while self.launcher.in_flight() > 0 {
            assert!(wait_readable(self.launcher.as_fd(), SOON));
            while let Some((id, child)) = self.launcher.finish() {
                let mut child = child.unwrap();
                let text = child.stdout.take().map(read_to_end);
                told.push((id, text, child.wait().unwrap().exit));
            }
        }
        told.sort_by_key(|&(id, ..)| id);
        let [over, second] = self.launched;
        let line = || Some("here\n".to_owned());
        let expected = [(over, None, Exit::Code(5)), (second, line(), Exit::Code(3))];
        assert_eq!(told, expected);
        assert_eq!(hanging.stdout.take().map(read_to_end), line());
        assert_eq!(hanging.wait().unwrap().exit, Exit::Code(3));
    }
}

#[test]
fn a_copy_of_the_host_leaves_its_spawns_in_flight_alone() {
    isolated(|| {
        let place = tempdir();
        let Some((lease, shell)) = shell(&place) else { return };
        let hanging = script(&shell, "echo here; exit 3")
            .stdout(Stdio::piped())
            .compile()
            .unwrap();
        let mut all = Some(All::begin(&hanging));
        let epoll = all.as_ref().unwrap().launcher.as_raw_fd();
        // SAFETY: the launcher keeps it open.
        let registered = || registrations(unsafe { std::os::fd::BorrowedFd::borrow_raw(epoll) });
        let before = registered();
        assert!(in_fork(|| all.take().unwrap().in_copy()));
        assert!(in_fork(|| drop(all.take())));
        assert_eq!(registered(), before);
        all.unwrap().finish(lease);
    });
}

/// What remains of the memory of the host is the child's alone then.
fn outlives_its_host(end: fn()) {
    isolated(|| {
        let place = tempdir();
        let Some((lease, shell)) = shell(&place) else { return };
        let file = place.join("file");
        let text = "x".repeat(5_000);
        let writes = script(
            &shell,
            "printf %s \"$TEXT\" > \"$0.part\" && exec mv \"$0.part\" \"$0\"",
        );
        let writes = writes.arg(&file).env("TEXT", &text).compile().unwrap();
        let _how_it_ended = in_fork(|| {
            let (mut spawner, mut launcher) = (Spawner::new().unwrap(), Launcher::new().unwrap());
            let _spawning = spawner.begin(&writes).unwrap();
            launcher.begin(&script(&shell, "exit 0").compile().unwrap()).unwrap();
            end();
        });
        assert!(!file.exists());
        lease.end();
        wait_until("the child has written", SOON, || file.exists());
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    });
}

#[test]
fn a_child_in_flight_outlives_a_host_that_calls_execve() {
    outlives_its_host(|| {
        const TRUE: &CStr = c"/bin/true";
        let args = [TRUE.as_ptr(), std::ptr::null()];
        // SAFETY: a path, and a list of arguments that ends with a null.
        unsafe { libc::execv(TRUE.as_ptr(), args.as_ptr()) };
    });
}

#[test]
fn a_child_in_flight_outlives_a_host_that_is_killed() {
    outlives_its_host(|| {
        // SAFETY: numbers only.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    });
}

#[test]
fn a_child_in_flight_outlives_a_host_that_ends() {
    // SAFETY: the copy ends, and runs nothing of this program's.
    outlives_its_host(|| unsafe { libc::_exit(0) });
}

#[test]
fn a_panic_ends_what_is_in_flight() {
    isolated(|| {
        let place = tempdir();
        let Some((lease, shell)) = shell(&place) else { return };
        let hanging = script(&shell, "exit 3").stdin(Stdio::piped()).compile().unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let (mut spawner, mut launcher) = (Spawner::new().unwrap(), Launcher::new().unwrap());
            let _spawning: Vec<_> = (0..3).map(|_| spawner.begin(&hanging).unwrap()).collect();
            let _ids: Vec<_> = (0..3).map(|_| launcher.begin(&hanging).unwrap()).collect();
            panic!("of the host");
        }));
        assert_eq!(panicked.unwrap_err().downcast_ref::<&str>(), Some(&"of the host"));
        assert!(crate::common::processes::children().is_empty());
        lease.end();
    });
}

/// The memory of a thread goes with it, and none of that is the child's.
#[test]
fn a_spawn_in_flight_outlives_its_thread_and_its_program() {
    isolated(|| {
        let place = tempdir();
        let Some((lease, shell)) = shell(&place) else { return };
        let begin = || {
            let mut spawner = Spawner::new().unwrap();
            let text = format!("echo {}", "x".repeat(1000));
            let program = script(&shell, &text).stdout(Stdio::piped()).compile().unwrap();
            (0..5).map(|_| spawner.begin(&program).unwrap()).collect::<Vec<_>>()
        };
        let spawning: Vec<Spawning> = std::thread::scope(|scope| scope.spawn(begin).join().unwrap());
        lease.end();
        let mut spawner = Spawner::new().unwrap();
        for spawning in spawning {
            let mut child = running(finish(&mut spawner, spawning));
            assert_eq!(read_to_end(child.stdout.take().unwrap()).len(), 1001);
            assert!(child.wait().unwrap().exit.success());
        }
    });
}
