//! What the host does while a child in flight stands still: before its first step (its cgroup is frozen), or in its
//! execve (a lease).

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use pidherd::{Command, Program, Signal, SpawnProgress, Spawner, Stdio};

use crate::common::fork::in_fork;
use crate::common::lease::Lease;
use crate::common::processes::children;
use crate::common::{SOON, TempDir, TestCgroup, isolated, skipped, tempdir, test_cgroup, wait_until};
use crate::helpers::{read_to_end, root, set_fd_flags, sh};
use crate::in_flight::{finish, running};

/// A cgroup in which nothing runs until it is thawed.
pub struct Frozen {
    // Closed before the cgroup is removed.
    switch: File,
    cgroup: TestCgroup,
}

impl Frozen {
    /// `None`, and the test is skipped, where spawns are synchronous and where there are no cgroups.
    pub fn new() -> Option<Frozen> {
        if cfg!(pidherd_portable) {
            skipped("the portable path waits for exec");
            return None;
        }
        let cgroup = test_cgroup()?;
        let switch = File::options()
            .write(true)
            .open(cgroup.path().join("cgroup.freeze"))
            .unwrap();
        let frozen = Frozen { switch, cgroup };
        frozen.freeze();
        Some(frozen)
    }

    pub fn freeze(&self) {
        self.set("1");
    }

    pub fn thaw(&self) {
        self.set("0");
    }

    /// The command, in this cgroup.
    pub fn hold(&self, command: Command) -> Program {
        let directory = Arc::new(OwnedFd::from(File::open(self.cgroup.path()).unwrap()));
        command.cgroup(directory).compile().unwrap()
    }

    fn set(&self, state: &str) {
        (&self.switch).write_all(state.as_bytes()).unwrap();
    }
}

/// So many descriptors that a pipe gets numbers for which a slot is needed.
pub fn high_numbers() -> Vec<File> {
    (0..80).map(|_| File::open("/dev/null").unwrap()).collect()
}

#[test]
fn a_spawner_may_be_dropped_before_its_child_has_its_descriptors() {
    isolated(|| {
        let Some(frozen) = Frozen::new() else { return };
        let mut spawner = Spawner::new().unwrap();
        let reads = sh("readlink /proc/self/fd/0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let programs = [frozen.hold(reads.clone()), frozen.hold(reads.fd(40, Stdio::null()))];
        let spawning = programs.map(|program| spawner.begin(&program).unwrap());
        drop(spawner);
        // Whatever numbers the spawner has given up, they are something else now.
        let others: Vec<_> = (0..80).map(|_| File::open("/dev/zero").unwrap()).collect();
        frozen.thaw();
        let mut other = Spawner::new().unwrap();
        for spawning in spawning {
            let mut child = running(finish(&mut other, spawning));
            assert_eq!(read_to_end(child.stdout.take().unwrap()), "/dev/null\n");
            assert!(child.wait().unwrap().exit.success());
        }
        drop(others);
    });
}

#[test]
fn a_number_that_a_dropped_spawn_used_is_the_hosts() {
    isolated(|| {
        let Some(frozen) = Frozen::new() else { return };
        let mut spawner = Spawner::new().unwrap();
        let high = high_numbers();
        let piped = || {
            sh("")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
        };
        let program = frozen.hold(piped());
        for _ in 0..10 {
            let both = [spawner.begin(&program).unwrap(), spawner.begin(&program).unwrap()];
            let [here, there] = both;
            drop(here);
            std::thread::spawn(move || drop(there)).join().unwrap();
        }
        frozen.thaw();
        let own: Vec<_> = (0..24)
            .map(|_| rustix::io::fcntl_dupfd_cloexec(&high[0], 32).unwrap())
            .filter(|own| own.as_raw_fd() < 64)
            .collect();
        assert!(!own.is_empty());
        for own in &own {
            let program = sh("").fd(own.as_raw_fd(), Stdio::inherit()).compile().unwrap();
            assert!(spawner.spawn(&program).unwrap().wait().unwrap().exit.success());
        }
        drop(own);
        let spawning = spawner.begin(&piped().compile().unwrap()).unwrap();
        assert!(running(finish(&mut spawner, spawning)).wait().unwrap().exit.success());
    });
}

/// It is closed in the second child too, although the first one's spawn has given the number up meanwhile, and the host
/// has taken it.
#[test]
fn a_stream_that_the_host_had_closed_is_closed_in_every_child() {
    isolated(|| {
        let Some(frozen) = Frozen::new() else { return };
        let seen = "[ -e /proc/$$/fd/0 ] && readlink /proc/$$/fd/0; echo over";
        let command = || sh(seen).stdin(Stdio::inherit()).stdout(Stdio::piped());
        let (free, held) = (command().compile().unwrap(), frozen.hold(command()));
        let mut spawner = Spawner::new().unwrap();
        let saved = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 200).unwrap();
        // SAFETY: the standard input is this test's own, and is put back.
        unsafe { libc::close(0) };
        let first = spawner.begin(&free).unwrap();
        let second = spawner.begin(&held).unwrap();
        let mut first = running(finish(&mut spawner, first));
        let taken = File::open("/dev/zero").unwrap();
        set_fd_flags(taken.as_raw_fd(), 0);
        let is_taken = taken.as_raw_fd() == 0;
        frozen.thaw();
        let mut second = running(finish(&mut spawner, second));
        let texts = [&mut first, &mut second].map(|child| {
            let text = read_to_end(child.stdout.take().unwrap());
            (text, child.wait().unwrap().exit.code())
        });
        drop(taken);
        // SAFETY: as above.
        unsafe { libc::dup2(saved.as_raw_fd(), 0) };
        assert!(is_taken, "the host cannot have the number");
        let expected = || ("over\n".to_owned(), Some(0));
        assert_eq!(texts, [expected(), expected()]);
    });
}

/// A child with a copy of the whole table needs nothing of the host's.
#[test]
fn a_child_with_a_table_of_its_own_keeps_no_pipe_open_in_the_host() {
    isolated(|| {
        let Some(frozen) = Frozen::new() else { return };
        let mut spawner = Spawner::new().unwrap();
        let program = frozen.hold(sh("").stdin(Stdio::piped()).fd(70, Stdio::null()));
        let count = || fs::read_dir("/proc/self/fd").unwrap().count();
        let before = count();
        let spawning = spawner.begin(&program).unwrap();
        assert_eq!(count() - before, 2, "its pidfd, and the host's end");
        frozen.thaw();
        assert!(running(finish(&mut spawner, spawning)).wait().unwrap().exit.success());
    });
}

#[test]
fn a_held_child_can_be_killed_and_dropped() {
    isolated(|| {
        let Some(frozen) = Frozen::new() else { return };
        let mut spawner = Spawner::new().unwrap();
        let program = frozen.hold(sh("").stdin(Stdio::piped()));
        drop(spawner.begin(&program).unwrap());
        let spawning = spawner.begin(&program).unwrap();
        spawning.pidfd().signal(Signal::KILL).unwrap();
        match finish(&mut spawner, spawning) {
            SpawnProgress::Killed(mut child) => drop(child.wait().unwrap()),
            other => panic!("{other:?}"),
        }
    });
}

/// A copy of `true` with an execve that hangs, and the lease that makes it hang.
pub fn hanging(place: &TempDir) -> Option<(Lease, std::path::PathBuf)> {
    if cfg!(pidherd_portable) {
        skipped("the portable path waits for exec");
        return None;
    }
    fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = place.join("program");
    fs::copy("/bin/true", &path).unwrap();
    Some((Lease::take(&path)?, path))
}

fn belongs_to(pid: pidherd::exit::Pid, user: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.contains(&format!("\nUid:\t{user}\t{user}\t{user}\t"))
}

fn dumpable() -> libc::c_int {
    // SAFETY: takes a number.
    unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }
}

/// Takes CAP_KILL from the calling thread for good.
fn give_up_kill() {
    const CAP_KILL: u32 = 5;
    let header = [0x2008_0522u32, 0];
    let mut data = [0u32; 6];
    // SAFETY: the header asks for version 3, with six words of data.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()), 0);
        data[0] &= !(1 << CAP_KILL);
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()), 0);
    }
}

/// The child shares the memory of the host and belongs to another user. If the host became dumpable again, that user's
/// processes could read it.
#[test]
fn the_host_stays_undumpable_while_a_child_of_another_user_survives_its_drop() {
    if !root("changes ids") {
        return;
    }
    isolated(|| {
        let place = tempdir();
        let Some((lease, path)) = hanging(&place) else { return };
        assert!(in_fork(|| {
            give_up_kill();
            let before = dumpable();
            let mut spawner = Spawner::new().unwrap();
            let program = Command::new(&path).uid(65534).gid(65534).compile().unwrap();
            let spawning = spawner.begin(&program).unwrap();
            wait_until("the child has changed its ids", SOON, || {
                belongs_to(spawning.pid(), 65534)
            });
            drop(spawning);
            assert_eq!(dumpable(), 0);
            // Nor does another one bring the flag back.
            let other = sh("").uid(65534).gid(65534).compile().unwrap();
            assert!(spawner.spawn(&other).unwrap().wait().unwrap().exit.success());
            assert_eq!(dumpable(), 0);
            drop(spawner);
            lease.release();
            wait_until("its memory and the flag come back", SOON, || {
                let other = sh("").spawn().unwrap().wait().unwrap();
                assert!(other.exit.success());
                dumpable() == before && children().is_empty()
            });
        }));
        lease.end();
    });
}

/// Before Linux 5.16 the core dump of a process ended every process with the same memory.
#[test]
fn a_signal_that_dumps_core_ends_the_child_alone() {
    isolated(|| {
        let place = tempdir();
        let Some((lease, path)) = hanging(&place) else { return };
        let program = Command::new(&path).compile().unwrap();
        assert!(in_fork(|| {
            let none = rustix::process::Rlimit {
                current: Some(0),
                maximum: Some(0),
            };
            rustix::process::setrlimit(rustix::process::Resource::Core, none).unwrap();
            let before = dumpable();
            let mut spawner = Spawner::new().unwrap();
            let spawning = spawner.begin(&program).unwrap();
            spawning.pidfd().signal(Signal::QUIT).unwrap();
            match finish(&mut spawner, spawning) {
                SpawnProgress::Killed(mut child) => {
                    assert_eq!(child.wait().unwrap().exit.signal(), Some(Signal::QUIT));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(dumpable(), before);
        }));
        lease.end();
    });
}
