//! Makes every system call of a spawn fail, in the parent and in the child: each call, with each errno that
//! its manual page documents, once and permanently.
//!
//! The spawn must either succeed, or return an error that names the step. It must leave nothing
//! behind, and the next spawn must succeed.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_int, c_long};
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::calls::{Outcome, counts, is_transient, outcome};
use crate::common::{Isolation, TempDir, elf, isolated, root_or_skip, skipped, tempdir};
use crate::shim::{Call, Fault, Place, Shim, install};
use crate::ways::{Failure, Way};
use crate::{campaign, manual};
use pidherd::exit::Exit;
use pidherd::signal::Signal;
use pidherd::{Capabilities, Child, Command, IoPriority, Namespace, Pipe, Resource, Scheduling, SpawnStep, Stdio};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource as Limit, Rlimit, getrlimit, setrlimit};

/// A spawn makes many calls of some kinds (for example one for each signal). Only this many of each kind
/// fail.
const MOST_OF_A_KIND: usize = 4;

/// More than the numbers that the commands use.
const MOST_DESCRIPTORS: u64 = 1_024;

#[test]
fn every_call_of_a_spawn_can_fail() {
    fails_everywhere(Way::Waiting, MOST_OF_A_KIND);
}

#[test]
fn every_call_of_a_spawn_in_flight_can_fail() {
    fails_everywhere(Way::InFlight, 2);
}

#[test]
fn every_call_of_a_launch_can_fail() {
    fails_everywhere(Way::Launched, 1);
}

fn fails_everywhere(way: Way, most_of_a_kind: usize) {
    if !elf::runs_or_skip() || !root_or_skip("changes ids and the root directory, and installs a filter") {
        return;
    }
    Isolation::new().limit(Duration::from_secs(3_000)).run(|| {
        let place = tempdir();
        elf::install(&place.join("exit"), elf::EXITING);
        with_few_descriptors(|| {
            under_shim(|shim| fail_everything(shim, &place, way, most_of_a_kind));
        });
    });
}

/// Runs `body` with a low limit for descriptors. Without close_range(2) a child closes every number up to the limit, one
/// by one. With a limit of many thousands that takes most of the time of the test.
fn with_few_descriptors(body: impl FnOnce()) {
    let before = getrlimit(Limit::Nofile);
    let current = before.current.unwrap_or(u64::MAX).min(MOST_DESCRIPTORS);
    let few = Rlimit {
        current: Some(current),
        ..before
    };
    setrlimit(Limit::Nofile, few).unwrap();
    body();
    setrlimit(Limit::Nofile, before).unwrap();
}

/// Runs `body` in a thread. The system calls of the thread and of its children can fail.
fn under_shim(body: impl FnOnce(&Shim) + Send) {
    let shim = Shim::new(counts);
    let (send, receive) = mpsc::channel();
    thread::scope(|scope| {
        let shim = &shim;
        let answering = scope.spawn(move || {
            let (listener, asking) = receive.recv().unwrap();
            shim.answer(&listener, asking);
        });
        let failing = scope.spawn(move || {
            // SAFETY: gettid(2) has no arguments.
            let asking = unsafe { libc::gettid() };
            send.send((install(), asking as u32)).unwrap();
            body(shim);
        });
        let outcome = failing.join();
        answering.join().unwrap();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The errors of file systems that have lost their server, their disk or their key.
const OF_DEAD_DIRECTORIES: &[c_int] = &[
    libc::EIO,
    libc::ESTALE,
    libc::ETIMEDOUT,
    libc::EHOSTDOWN,
    libc::ENOTCONN,
    libc::ECONNABORTED,
    libc::ENODEV,
    libc::ENXIO,
    libc::ENOKEY,
    libc::ELOOP,
    libc::ENAMETOOLONG,
    libc::EACCES,
    libc::EPERM,
    libc::ENOTDIR,
];

#[test]
fn a_failing_directory_of_path_does_not_end_the_search() {
    if !elf::runs_or_skip() || !root_or_skip("a filter") {
        return;
    }
    isolated(|| {
        let place = tempdir();
        elf::install(&place.join("exit"), elf::EXITING);
        let here = place.path().display();
        let searched = Command::new("exit").arg("7").env("PATH", format!("/one:{here}:{here}"));
        under_shim(|shim| {
            let mut seen = Vec::new();
            let child = shim.during(None, &mut seen, || searched.spawn());
            assert!(exits_well(child.unwrap()));
            let is_execve = |call: &Call| call.nr == libc::SYS_execve;
            let first = seen.iter().position(is_execve).unwrap();
            let second = first + 1 + seen[first + 1..].iter().position(is_execve).unwrap();
            let (first, second) = (Place::of(&seen, first), Place::of(&seen, second));
            for &errno in OF_DEAD_DIRECTORIES {
                // The failing directory comes before the directory with the program, or takes its place before
                // another one.
                for at in [first, second] {
                    let fault = Some(Fault::Once { at, errno });
                    let child = shim.during(fault, &mut seen, || searched.spawn());
                    assert!(exits_well(child.unwrap()), "{errno}");
                }
                let everywhere = Some(Fault::ForGood { at: first, errno });
                let error = shim.during(everywhere, &mut seen, || searched.spawn()).unwrap_err();
                assert_eq!((error.step(), error.errno()), (SpawnStep::Exec, errno));
            }
            for errno in [libc::ENOEXEC, libc::ENOMEM, libc::EAGAIN, libc::ENFILE, libc::E2BIG] {
                let fault = Some(Fault::Once { at: second, errno });
                let error = shim.during(fault, &mut seen, || searched.spawn()).unwrap_err();
                let program = place.join("exit");
                assert_eq!((error.errno(), error.path()), (errno, Some(program.as_path())));
            }
        });
    });
}

/// The commands for the fault tests. A command that always waits for exec cannot be tested in flight.
fn commands(way: Way) -> &'static [fn(&TempDir, &Arc<OwnedFd>) -> Command] {
    match way {
        Way::Waiting => &[streams, privileges, scored, group, whole_table, unshared, entered],
        Way::InFlight | Way::Launched => &[
            streams,
            privileges,
            surroundings,
            scored,
            group,
            whole_table,
            unshared,
            entered,
        ],
    }
}

fn fail_everything(shim: &Shim, place: &TempDir, way: Way, most_of_a_kind: usize) {
    let began = Instant::now();
    let high = fcntl_dupfd_cloexec(File::open("/dev/null").unwrap(), 700).unwrap();
    let given = Arc::new(high);
    let mut sites = 0;
    let mut faults = Vec::new();
    for make in commands(way) {
        let mut seen = Vec::new();
        let command = make(place, &given);
        let mut starter = None;
        let child = shim.during(None, &mut seen, || way.start(&command, &mut starter));
        assert!(exits_well(child.unwrap()), "{command:?}");
        drop((command, starter));
        let mut of_a_kind = BTreeMap::<(c_long, bool), usize>::new();
        for (index, call) in seen.iter().enumerate() {
            let count = of_a_kind.entry((call.nr, call.in_child)).or_default();
            *count += 1;
            if *count > most_of_a_kind {
                continue;
            }
            sites += 1;
            let at = Place::of(&seen, index);
            let errnos = manual::errnos(call.nr);
            assert!(!errnos.is_empty(), "no manual page for {call:?}");
            for &errno in errnos {
                let both = [Fault::Once { at, errno }, Fault::ForGood { at, errno }];
                let ending = both.into_iter().filter(|&fault| !is_retried_for_ever(call, fault));
                faults.extend(ending.map(|fault| (make, *call, fault)));
            }
        }
    }
    let all = faults.len();
    let chosen = campaign::chosen(faults, |&(_, _, fault)| fault);
    for (make, call, fault) in &chosen {
        try_fault(shim, way, &make(place, &given), call, *fault);
    }
    let (injected, seconds) = (chosen.len(), began.elapsed().as_secs());
    println!(
        "errnos: {way:?}: {sites} sites, {all} faults, {injected} injected, 0 not reached, 0 failures, {seconds} s"
    );
}

/// Whether the fault makes the standard library loop without end: it repeats an interrupted open(2).
fn is_retried_for_ever(call: &Call, fault: Fault) -> bool {
    let interrupted = matches!(fault, Fault::ForGood { errno, .. } if errno == libc::EINTR);
    !call.in_child && call.nr == libc::SYS_openat && interrupted
}

fn try_fault(shim: &Shim, way: Way, command: &Command, call: &Call, fault: Fault) {
    let context = || format!("{call:?} with {fault:?} in {command:?}");
    let before = descriptors();
    let (mut seen, mut starter) = (Vec::new(), None);
    let result = shim.during(Some(fault), &mut seen, || way.start(command, &mut starter));
    assert!(fault.at().was_reached(&seen), "{}", context());
    let in_flight = way != Way::Waiting && is_in_flight(command);
    assert_outcome(result, outcome(call, fault, in_flight), &context);
    assert!(no_child_left(), "a child is left: {}", context());
    // SAFETY: prctl(2) takes only numbers here.
    let dumpable = || unsafe { libc::prctl(libc::PR_GET_DUMPABLE) };
    assert_eq!(dumpable(), 1, "{}", context());
    if let Some(starter) = &mut starter {
        starter.start(command, |child| assert!(exits_well(child), "{}", context()));
    }
    let own = descriptors().len() - before.len();
    let most = if way == Way::Launched { 8 } else { 6 };
    assert!(own <= most, "{own} descriptors are kept: {}", context());
    drop(starter);
    assert_eq!(descriptors(), before, "{}", context());
    assert!(no_child_left(), "a child is left: {}", context());
    assert_eq!(dumpable(), 1, "{}", context());
    assert!(exits_well(command.spawn().unwrap()), "{}", context());
}

/// Whether the host creates a child for this command that it does not wait for.
fn is_in_flight(command: &Command) -> bool {
    !cfg!(pidherd_portable) && command.get_oom_score_adj().is_none()
}

fn assert_outcome(result: Result<Child, Failure>, expected: Outcome, context: &dyn Fn() -> String) {
    match (result, expected) {
        (Ok(child), Outcome::Started | Outcome::Depends(..)) => assert!(exits_well(child), "{}", context()),
        (Err(error), Outcome::Fails(steps, errno) | Outcome::Depends(steps, errno)) => {
            assert!(steps.contains(&error.step), "{error:?}, not {steps:?}: {}", context());
            assert_eq!(error.errno, errno, "{error:?}: {}", context());
            let expected = is_transient(errno) && (error.step, errno) != (SpawnStep::Namespace, libc::ENOMEM);
            assert_eq!(error.is_transient, expected, "{error:?}: {}", context());
        }
        (result, Outcome::Started | Outcome::Fails(..)) => panic!("{result:?} instead of {expected:?}: {}", context()),
    }
}

/// Whether the child exits with the code that all the commands ask for.
fn exits_well(mut child: Child) -> bool {
    child.wait().unwrap().exit == Exit::Code(b'7')
}

fn descriptors() -> BTreeMap<String, String> {
    let list = fs::read_dir("/proc/self/fd").unwrap();
    let entries = list.filter_map(|entry| {
        let path = entry.unwrap().path();
        let target = fs::read_link(&path).ok()?;
        Some((path.display().to_string(), target.display().to_string()))
    });
    entries.filter(|(_, target)| !target.ends_with("/fd")).collect()
}

fn no_child_left() -> bool {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::All, options).is_err_and(|errno| errno == rustix::io::Errno::CHILD)
}

fn command(place: &TempDir) -> Command {
    Command::new(place.join("exit")).arg("7")
}

/// A command with pipes, files and passed descriptors, for which the child copies only a part of the
/// descriptor table.
fn streams(place: &TempDir, given: &Arc<OwnedFd>) -> Command {
    command(place)
        .stdin(Stdio::piped())
        .stdout(Stdio::append(place.join("log")))
        .stderr(Stdio::stdout())
        .fd(5, Arc::clone(given))
        .fd(6, Stdio::null())
        .fd(9, Stdio::piped())
        .fd(10, Pipe::new().to_child())
}

/// A command with other ids, other capabilities and another root directory.
fn privileges(place: &TempDir, _: &Arc<OwnedFd>) -> Command {
    Command::new("/exit")
        .arg("7")
        .chroot(place.path())
        .current_dir("/")
        .uid(12345)
        .gid(12346)
        .groups(&[1, 12346])
        .bounding_capabilities(Capabilities::all().difference(Capabilities::KILL))
        .inheritable_capabilities(Capabilities::CHOWN)
        .ambient_capabilities(Capabilities::NET_BIND_SERVICE)
        .no_new_privileges(true)
        .parent_death_signal(Signal::KILL)
}

/// The same command with the one setting that makes every spawn wait.
fn scored(place: &TempDir, given: &Arc<OwnedFd>) -> Command {
    surroundings(place, given).oom_score_adj(500)
}

/// A command with a controlling terminal, scheduling settings, limits and a passed socket.
fn surroundings(place: &TempDir, given: &Arc<OwnedFd>) -> Command {
    let (terminal, other_side) = terminal();
    command(place)
        .stdin(terminal)
        .fd(20, other_side)
        .controlling_terminal(0)
        .foreground(0)
        .nice(3)
        .scheduling(Scheduling::Batch)
        .io_priority(IoPriority::BestEffort(6))
        .cpu_affinity(&[0])
        .limit(Resource::Core, 0, 0)
        .umask(0o27)
        .current_dir("/")
        .listen_fd(Arc::clone(given))
}

/// A command with a new namespace of each kind.
fn unshared(place: &TempDir, _: &Arc<OwnedFd>) -> Command {
    let command = NAMESPACES
        .iter()
        .fold(command(place), |command, &(kind, _)| command.unshare(kind));
    command.mount_proc(true)
}

/// A command that enters namespaces. They are those of the host, which changes nothing.
fn entered(place: &TempDir, _: &Arc<OwnedFd>) -> Command {
    NAMESPACES.iter().fold(command(place), |command, &(kind, name)| {
        let own = File::open(format!("/proc/self/ns/{name}")).unwrap();
        command.setns(kind, OwnedFd::from(own))
    })
}

const NAMESPACES: &[(Namespace, &str)] = &[
    (Namespace::Pid, "pid"),
    (Namespace::Uts, "uts"),
    (Namespace::Ipc, "ipc"),
    (Namespace::Network, "net"),
    (Namespace::Cgroup, "cgroup"),
    (Namespace::Mount, "mnt"),
];

fn group(place: &TempDir, _: &Arc<OwnedFd>) -> Command {
    command(place).process_group(0)
}

/// A command for which the child copies the whole descriptor table: two targets have high numbers, and each
/// one's source is the other's target.
fn whole_table(place: &TempDir, given: &Arc<OwnedFd>) -> Command {
    let own = given.as_raw_fd();
    let other = Arc::new(fcntl_dupfd_cloexec(given, 750).unwrap());
    let number = other.as_raw_fd();
    command(place)
        .stdin(Stdio::null())
        .fd(own, other)
        .fd(number, Arc::clone(given))
}

/// Opens a new terminal for each spawn, because a terminal hangs up when its session ends or its other side
/// is closed.
fn terminal() -> (File, OwnedFd) {
    // SAFETY: each result is checked before use, and the buffer for the name has the given length.
    let (master, name) = unsafe {
        let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        assert!(master >= 0);
        assert_eq!((libc::grantpt(master), libc::unlockpt(master)), (0, 0));
        let mut name = [0; 64];
        assert_eq!(libc::ptsname_r(master, name.as_mut_ptr(), name.len()), 0);
        let name = CStr::from_ptr(name.as_ptr()).to_str().unwrap().to_owned();
        (OwnedFd::from_raw_fd(master), name)
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NOCTTY);
    (options.open(name).unwrap(), master)
}

#[test]
fn the_process_limit_of_a_cgroup_gives_a_transient_error() {
    isolated(|| {
        let Some(limited) = Limited::new() else { return };
        let mut spawner = pidherd::Spawner::new().unwrap();
        let program = Command::new("true").stdin(Stdio::piped()).compile().unwrap();
        // The limit equals the present number of threads of this process.
        limited.enter();
        limited.allow(&limited.read("pids.current"));
        let before = descriptors();
        for _ in 0..3 {
            let error = spawner.spawn(&program).unwrap_err();
            let seen = (error.step(), error.errno(), error.is_transient());
            assert_eq!(seen, (SpawnStep::Clone, libc::EAGAIN, true));
            assert_eq!(descriptors(), before);
            assert!(no_child_left());
        }
        limited.allow("max");
        assert!(spawner.spawn(&program).unwrap().wait().unwrap().exit.success());
    });
}

/// A cgroup of the version 1 controller `pids`, below the cgroup of this process.
struct Limited {
    own: PathBuf,
    path: PathBuf,
}

impl Limited {
    fn new() -> Option<Limited> {
        let list = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = list
            .lines()
            .find_map(|line| line.split_once(":pids:/"))
            .map(|(_, own)| own);
        let own = Path::new("/sys/fs/cgroup/pids").join(own.unwrap_or("."));
        let path = own.join(format!("pidherd-test-{}", std::process::id()));
        match fs::create_dir(&path) {
            Ok(()) => Some(Limited { own, path }),
            Err(error) => {
                skipped(&format!("needs a pids cgroup, but {}: {error}", path.display()));
                None
            }
        }
    }

    fn enter(&self) {
        fs::write(self.path.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path.join(name)).unwrap()
    }

    fn allow(&self, most: &str) {
        fs::write(self.path.join("pids.max"), most).unwrap();
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        fs::write(self.own.join("cgroup.procs"), std::process::id().to_string()).unwrap();
        fs::remove_dir(&self.path).unwrap();
    }
}
