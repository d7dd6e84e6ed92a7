//! Whatever the host has, or has not, under the numbers that a child inherits.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pidherd::cgroup::CgroupDir;
use pidherd::fdset::FdSet;
use pidherd::notify::{NotifySocket, ReadyFd};
use pidherd::signal::{Signal, SignalSet};
use pidherd::timerfd::{Clock, TimerFd};
use pidherd::{
    Child, Command, GroupSpec, Launcher, MaskGuard, SignalFd, SpawnError, SpawnStep, Spawner, Stdio, Supervisor,
};

use crate::common::{SOON, isolated, processes, tempdir, test_cgroup, wait_until};
use crate::helpers::{fd_flags, read_to_end, set_fd_flags, sh};
use crate::in_flight::{finish, running};

/// The three standard streams of the host, all of them files of this test, until this is dropped.
struct Streams {
    saved: [OwnedFd; 3],
}

impl Streams {
    /// Those in `closed` are closed; the flags of the others are `flags`.
    fn arrange(files: &[File; 3], closed: &[RawFd], flags: i32) -> Streams {
        let saved = [0, 1, 2].map(|number| duplicate(number, 200));
        for (number, file) in (0..).zip(files) {
            // SAFETY: the standard streams are this process's own, and are put back.
            unsafe {
                assert_eq!(libc::dup2(file.as_raw_fd(), number), number);
                set_fd_flags(number, flags);
                if closed.contains(&number) {
                    assert_eq!(libc::close(number), 0);
                }
            }
        }
        Streams { saved }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        for (number, saved) in (0..).zip(&self.saved) {
            // SAFETY: as above.
            assert_eq!(unsafe { libc::dup2(saved.as_raw_fd(), number) }, number);
        }
    }
}

fn duplicate(number: RawFd, least: RawFd) -> OwnedFd {
    // SAFETY: the standard streams are open outside of `Streams`.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_dupfd_cloexec(fd, least).unwrap()
}

/// Runs `body` with such streams. It says what is wrong only when there is a stream to say it on.
fn with_streams<T>(files: &[File; 3], closed: &[RawFd], flags: i32, body: impl FnOnce() -> T) -> T {
    let streams = Streams::arrange(files, closed, flags);
    let outcome = catch_unwind(AssertUnwindSafe(body));
    drop(streams);
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied());
        panic!("with {closed:?} closed and flags {flags}: {}", text.unwrap_or_default())
    })
}

fn files(directory: &Path) -> [File; 3] {
    ["in", "out", "err"].map(|name| {
        let mut options = File::options();
        options
            .read(true)
            .write(true)
            .create(true)
            .open(directory.join(name))
            .unwrap()
    })
}

fn subsets() -> impl Iterator<Item = Vec<RawFd>> {
    (0..8).map(|bits| (0..3).filter(|number| bits >> number & 1 == 1).collect())
}

/// What each descriptor of a child is, once its program runs.
fn descriptors(child: &Child) -> BTreeMap<RawFd, PathBuf> {
    let pid = child.pid().as_raw();
    wait_until("it sleeps", SOON, || {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name == "sleep\n" && processes::state(pid) == Some('S')
    });
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = entries.map(|entry| {
        let entry = entry.unwrap();
        let number = entry.file_name().to_str().unwrap().parse().unwrap();
        (number, fs::read_link(entry.path()).unwrap())
    });
    links.collect()
}

fn sleeper() -> Command {
    Command::new("/bin/sleep").arg("1000")
}

/// What a stream is said to be, and what it then is: a path, a pipe, or nothing.
#[derive(Clone, Debug, PartialEq)]
enum Expected {
    Closed,
    File(PathBuf),
    Pipe,
}

struct Places {
    directory: PathBuf,
    given: Arc<OwnedFd>,
}

impl Places {
    fn stdio(&self, how: &str) -> Stdio {
        match how {
            "inherit" => Stdio::inherit(),
            "null" => Stdio::null(),
            "piped" => Stdio::piped(),
            "stdout" => Stdio::stdout(),
            "the host's 1" => io::stdout().into(),
            "the host's 2" => io::stderr().into(),
            "given" => Arc::clone(&self.given).into(),
            "file" => Stdio::append(self.directory.join("file")),
            other => panic!("{other}"),
        }
    }

    /// `None` for what must be refused.
    fn expected(&self, number: RawFd, how: &str, closed: &[RawFd], stdout: &str) -> Option<Expected> {
        let file = |name: &str| Some(Expected::File(self.directory.join(name)));
        match how {
            "inherit" if closed.contains(&number) => Some(Expected::Closed),
            "inherit" => file(["in", "out", "err"][number as usize]),
            "null" => Some(Expected::File("/dev/null".into())),
            "piped" => Some(Expected::Pipe),
            "stdout" if stdout == "inherit" && closed.contains(&1) => None,
            "stdout" => self.expected(1, stdout, closed, stdout),
            "the host's 1" | "the host's 2" => {
                let of_host = if how.ends_with('1') { 1 } else { 2 };
                let seen = self.expected(of_host, "inherit", closed, stdout);
                seen.filter(|seen| of_host == number || *seen != Expected::Closed)
            }
            "given" => file("given"),
            _ => file("file"),
        }
    }
}

fn check(child: &Child, expected: &[Expected; 3], more: &[RawFd], context: &str) {
    let seen = descriptors(child);
    for (number, expected) in (0..).zip(expected) {
        let seen = seen.get(&number);
        let right = match expected {
            Expected::Closed => seen.is_none(),
            Expected::File(path) => seen == Some(path),
            Expected::Pipe => seen.is_some_and(|link| link.to_string_lossy().starts_with("pipe:")),
        };
        assert!(right, "{context}: {number} is {seen:?}, not {expected:?}");
    }
    let others: Vec<RawFd> = seen.keys().copied().filter(|number| *number > 2).collect();
    assert_eq!(others, more, "{context}: {seen:?}");
    let pipes = [&child.stdin, &child.stdout, &child.stderr];
    let own = pipes.into_iter().flatten().map(AsRawFd::as_raw_fd);
    for number in own.chain([child.pidfd().as_raw_fd()]) {
        assert!(number > 2, "{context}: a descriptor of the host's became {number}");
    }
}

/// Every combination of closed streams, close-on-exec or not, on both ways into a child.
#[test]
fn a_child_has_what_the_host_has_under_these_numbers_and_nothing_else() {
    isolated(|| {
        let directory = tempdir();
        let files = files(directory.path());
        let given = File::create(directory.join("given")).unwrap();
        let places = Places {
            directory: directory.path().to_owned(),
            given: Arc::new(rustix::io::fcntl_dupfd_cloexec(given, 100).unwrap()),
        };
        let mut count = 0;
        for closed in subsets() {
            for flags in [0, libc::FD_CLOEXEC] {
                with_streams(&files, &closed, flags, || try_all(&places, &closed, flags, &mut count));
            }
        }
    });
}

fn try_all(places: &Places, closed: &[RawFd], flags: i32, count: &mut usize) {
    let mut spawner = Spawner::new().unwrap();
    for stdin in ["inherit", "null", "piped"] {
        for stdout in ["inherit", "piped", "given", "the host's 2"] {
            for stderr in ["inherit", "stdout", "file", "the host's 1"] {
                for more in [&[][..], &[40]] {
                    let context = format!("{stdin} {stdout} {stderr}, beside {more:?}");
                    let streams = [(0, stdin), (1, stdout), (2, stderr)];
                    let mut command = sleeper()
                        .stdin(places.stdio(stdin))
                        .stdout(places.stdio(stdout))
                        .stderr(places.stdio(stderr));
                    for &number in more {
                        command = command.fd(number, Arc::clone(&places.given));
                    }
                    let expected = streams.map(|(number, how)| places.expected(number, how, closed, stdout));
                    let program = command.compile().unwrap();
                    *count += 1;
                    // Most are waited for, others are in flight.
                    let spawned = if *count % 5 == 0 {
                        spawner
                            .begin(&program)
                            .map(|begun| running(finish(&mut spawner, begun)))
                    } else {
                        spawner.spawn(&program)
                    };
                    match (expected, spawned) {
                        ([Some(zero), Some(one), Some(two)], Ok(child)) => {
                            check(&child, &[zero, one, two], more, &context);
                        }
                        ([_, one, two], Err(error)) if one.is_none() || two.is_none() => {
                            let number = if one.is_none() { "1" } else { "2" };
                            let seen = (error.step(), error.errno(), error.subject());
                            assert_eq!(
                                seen,
                                (SpawnStep::Descriptor, libc::EBADF, Some(number.into())),
                                "{context}"
                            );
                        }
                        (expected, spawned) => panic!("{context}: {spawned:?} instead of {expected:?}"),
                    }
                    for number in 0..3 {
                        let before = if closed.contains(&number) { None } else { Some(flags) };
                        assert_eq!(fd_flags(number), before, "{context}: the host's {number}");
                    }
                }
            }
        }
    }
}

/// The number is free in the host, and the library's own descriptors would be the next to get it.
#[test]
fn a_number_that_the_host_does_not_have_is_not_inherited() {
    isolated(|| {
        let first = (3..).find(|&number| fd_flags(number).is_none()).unwrap();
        // The lowest free one; those that pipes and the pidfd get; those that a spawner reserves, and beyond.
        let numbers = (first..first + 8).chain(30..40).chain(62..70);
        let numbers: Vec<RawFd> = numbers.filter(|&number| fd_flags(number).is_none()).collect();
        let commands = numbers.iter().flat_map(|&number| {
            let command = sleeper().fd(number, Stdio::inherit());
            let piped = command.clone().stdin(Stdio::piped()).stdout(Stdio::piped());
            [(number, command), (number, piped)]
        });
        let commands: Vec<(RawFd, Command)> = commands.collect();
        let check = |number: RawFd, spawned: Result<Child, SpawnError>| {
            let error = spawned.unwrap_err();
            let seen = (error.step(), error.errno(), error.subject());
            assert_eq!(seen, (SpawnStep::Descriptor, libc::EBADF, Some(number.to_string())));
        };
        for (number, command) in &commands {
            check(*number, command.spawn());
        }
        let mut spawner = Spawner::new().unwrap();
        for (number, command) in &commands {
            check(*number, spawner.spawn(&command.compile().unwrap()));
        }
        // What the host has is inherited, whatever its flags are.
        let own = File::open("/dev/null").unwrap();
        let command = sleeper().fd(own.as_raw_fd(), Stdio::inherit());
        let child = spawner.spawn(&command.compile().unwrap()).unwrap();
        assert_eq!(descriptors(&child)[&own.as_raw_fd()], Path::new("/dev/null"));
    });
}

/// Whatever the first spawn needs for itself, the second one does not take it for a stream of the host.
#[test]
fn a_spawn_in_flight_lends_the_next_one_no_stream() {
    isolated(|| {
        let directory = tempdir();
        let files = files(directory.path());
        for closed in subsets() {
            with_streams(&files, &closed, 0, || begin_two(&closed));
        }
    });
}

fn begin_two(closed: &[RawFd]) {
    let (mut one, mut other) = (Spawner::new().unwrap(), Spawner::new().unwrap());
    let program = sleeper().compile().unwrap();
    // Two of one spawner, and one of another.
    let first = one.begin(&program).unwrap();
    let second = one.begin(&program).unwrap();
    let third = other.begin(&program).unwrap();
    let copied = sleeper().stderr(Stdio::stdout()).compile().unwrap();
    let copied = one.begin(&copied);
    if closed.contains(&1) {
        let error = copied.unwrap_err();
        assert_eq!((error.step(), error.errno()), (SpawnStep::Descriptor, libc::EBADF));
    } else {
        drop(copied.unwrap());
    }
    let third = running(finish(&mut other, third));
    for child in [
        running(finish(&mut one, first)),
        running(finish(&mut one, second)),
        third,
    ] {
        let seen = descriptors(&child);
        for number in 0..3 {
            assert_eq!(
                seen.contains_key(&number),
                !closed.contains(&number),
                "{number}: {seen:?}"
            );
        }
        assert!(child.pidfd().as_raw_fd() > 2);
    }
    for number in 0..3 {
        let open = fd_flags(number).is_some();
        assert_eq!(open, !closed.contains(&number), "the host's {number}");
    }
}

fn assert_closed(what: &str) {
    for number in 0..3 {
        assert_eq!(fd_flags(number), None, "{what} took {number}");
    }
}

/// A write to a standard stream must not reach an epoll, a socket or another child's pipe.
#[test]
fn no_descriptor_of_the_library_becomes_a_standard_stream() {
    isolated(|| {
        let directory = tempdir();
        let files = files(directory.path());
        let cgroup = test_cgroup();
        with_streams(&files, &[0, 1, 2], 0, || {
            let set = SignalSet::EMPTY.with(Signal::USR1);
            let _blocked = MaskGuard::block(set).unwrap();
            let fds = FdSet::new().unwrap();
            assert_closed("an FdSet");
            let timer = TimerFd::new(Clock::Monotonic).unwrap();
            assert_closed("a TimerFd");
            let signals = SignalFd::new(set).unwrap();
            assert_closed("a SignalFd");
            let socket = NotifySocket::new().unwrap();
            assert_closed("a NotifySocket");
            let bound = NotifySocket::bind(directory.join("socket")).unwrap();
            assert_closed("a NotifySocket with a path");
            let ready = ReadyFd::pipe().unwrap();
            assert_closed("a readiness pipe");
            let spawner = Spawner::new().unwrap();
            assert_closed("a Spawner");
            let leaf = cgroup.as_ref().map(|cgroup| {
                let directory = CgroupDir::open(cgroup.path()).unwrap();
                let again = CgroupDir::from_fd(&directory).unwrap();
                assert_closed("a CgroupDir");
                let leaf = directory.make("leaf").unwrap();
                let events = leaf.events().unwrap();
                assert_closed("a Cgroup");
                leaf.remove().unwrap();
                (directory, again, leaf, events)
            });
            let launcher = Launcher::new().unwrap();
            assert_closed("a Launcher");
            let child = sleeper().stdin(Stdio::piped()).spawn().unwrap();
            let copy = child.pidfd().try_clone().unwrap();
            assert_closed("a Child");
            drop((
                fds, timer, signals, socket, bound, ready, spawner, leaf, launcher, child, copy,
            ));
            supervise(cgroup.as_ref().map(|cgroup| cgroup.path()));
        });
    });
}

fn supervise(cgroup: Option<&Path>) {
    let signals = SignalFd::new(SignalSet::EMPTY.with(Signal::USR1)).unwrap();
    let builder = Supervisor::builder().signals(signals);
    let mut supervisor = builder.build().unwrap();
    assert_closed("a Supervisor");
    let command = sh("echo >&7; exec sleep 1000").stdin(Stdio::piped());
    let mut spec = GroupSpec::new("web", command).notify_socket(true).ready_fd(7);
    if let Some(cgroup) = cgroup {
        spec = spec.cgroup(CgroupDir::open(cgroup).unwrap());
    }
    let group = supervisor.add(spec).unwrap();
    supervisor.start(group).unwrap();
    assert_closed("a supervised process");
    supervisor.dispatch().unwrap();
    supervisor.kill(group).unwrap();
    supervisor.dispatch().unwrap();
    assert_closed("the end of a supervised process");
}

/// A descriptor that happens to be a standard stream of the host can be given as any other.
#[test]
fn a_given_descriptor_may_be_a_standard_stream_of_the_host() {
    isolated(|| {
        let directory = tempdir();
        let files = files(directory.path());
        let seen = with_streams(&files, &[0, 1, 2], 0, || {
            // These land on 0, 1 and 2.
            let (one, two, three) = (
                UnixDatagram::unbound().unwrap(),
                File::open("/dev/zero").unwrap(),
                File::open("/dev/full").unwrap(),
            );
            assert_eq!([one.as_raw_fd(), two.as_raw_fd(), three.as_raw_fd()], [0, 1, 2]);
            let child = sleeper()
                .stdin(three)
                .stdout(OwnedFd::from(one))
                .stderr(two)
                .spawn()
                .unwrap();
            descriptors(&child)
        });
        assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(seen[&0], Path::new("/dev/full"));
        assert!(seen[&1].to_string_lossy().starts_with("socket:"), "{seen:?}");
        assert_eq!(seen[&2], Path::new("/dev/zero"));
    });
}

/// The program finds its streams where the host has them, although the host keeps them from others.
#[test]
fn streams_that_are_close_on_exec_in_the_host_are_inherited() {
    isolated(|| {
        let directory = tempdir();
        let files = files(directory.path());
        fs::write(directory.join("in"), "through").unwrap();
        let written = with_streams(&files, &[], libc::FD_CLOEXEC, || {
            let mut child = sh("cat; echo err >&2").spawn().unwrap();
            assert!(child.wait().unwrap().exit.success());
            fs::read_to_string(directory.join("out")).unwrap()
        });
        assert_eq!(written, "through");
        assert_eq!(fs::read_to_string(directory.join("err")).unwrap(), "err\n");
        let piped = with_streams(&files, &[], libc::FD_CLOEXEC, || {
            let mut child = sh("echo one; echo two >&2").stderr(Stdio::piped()).spawn().unwrap();
            let text = read_to_end(child.stderr.take().unwrap());
            assert!(child.wait().unwrap().exit.success());
            text
        });
        assert_eq!(piped, "two\n");
    });
}
