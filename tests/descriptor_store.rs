//! Descriptors that a process gives to the supervisor, and that its next run gets back.

mod common;
mod host;

use std::env;
use std::fs;
use std::io::{BufRead, IoSlice, stdin};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::{Command as StdCommand, exit};
use std::time::Duration;

use common::{Isolation, MARKER, isolated, skipped, test_cgroup};
use host::{Host, LONG, builder, for_ever, ms, sleeper, term};
use pidherd::cgroup::CgroupDir;
use pidherd::lifecycle::{Delay, Policy, Scope, Startup, StateName};
use pidherd::notify::NotifyAccess;
use pidherd::supervisor::{HandOver, ProcessNotice, RefusalReason, RemovalReason, SpecError, Undescribed};
use pidherd::{Command, CommandError, Error, Event, GroupId, GroupSpec, InstanceId, Stdio};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, fstat, memfd_create};
use rustix::io::FdFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

// The program that the tests start: this binary, which does what it reads.

/// The variable that makes a process of this binary the program.
const PROGRAM: &str = "PIDHERD_TEST_PROGRAM";

/// The variable with the message of a process that sends one message and waits until it was handled.
const MESSAGE: &str = "PIDHERD_TEST_MESSAGE";

/// The other tests run this test as their child. Without the variables it does nothing.
#[test]
fn a_program_that_does_what_it_reads() {
    if let Ok(message) = env::var(MESSAGE) {
        send(&message, &[]);
        wait_for_barrier();
    } else if env::var_os(PROGRAM).is_some() {
        Program::default().run();
    }
}

#[derive(Default)]
struct Program {
    /// The descriptors that were sent last, and the other ends of pipes.
    sent: Vec<OwnedFd>,
    others: Vec<OwnedFd>,
}

impl Program {
    fn run(mut self) {
        say(&inherited());
        for line in stdin().lock().lines() {
            let line = line.unwrap();
            let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let (count, text) = rest.split_once(' ').unwrap_or(("", rest));
            match verb {
                "memory" => self.send_new(count, text, |_| {
                    memfd_create("pidherd-test", MemfdFlags::CLOEXEC).unwrap()
                }),
                "pipe" => self.send_new(count, text, |others| {
                    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
                    others.push(writer);
                    reader
                }),
                "again" => self.send_copies(rest),
                "forget" => self.others.clear(),
                "send" => send(rest, &[]),
                "child" => assert!(sender(rest).status().unwrap().success()),
                "orphan" => {
                    // The orphan waits until the shell was reaped, so that it is no descendant when it sends.
                    let script = r#"exec 3<&0; { read go; "$@"; } <&3 >/dev/null 2>&1 &"#;
                    let sender = sender(rest);
                    let mut shell = StdCommand::new("/bin/sh");
                    shell.args(["-c", script, "sh"]).arg(sender.get_program());
                    shell.args(sender.get_args()).env(MESSAGE, rest.replace(';', "\n"));
                    let mut shell = shell.stdin(std::process::Stdio::piped()).spawn().unwrap();
                    let go = shell.stdin.take();
                    assert!(shell.wait().unwrap().success());
                    drop(go);
                }
                "end" => exit(0),
                other => panic!("{other}"),
            }
            if verb != "orphan" {
                wait_for_barrier();
            }
            let inodes: Vec<_> = self.sent.iter().map(inode).collect();
            say(&inodes.join(" "));
        }
    }

    fn send_new(&mut self, count: &str, text: &str, make: impl Fn(&mut Vec<OwnedFd>) -> OwnedFd) {
        self.sent = (0..count.parse().unwrap()).map(|_| make(&mut self.others)).collect();
        self.send_copies(text);
    }

    fn send_copies(&self, text: &str) {
        let descriptors: Vec<_> = self.sent.iter().map(AsFd::as_fd).collect();
        send(text, &descriptors);
    }
}

/// A command that sends one message.
fn sender(message: &str) -> StdCommand {
    let mut command = StdCommand::new(env::current_exe().unwrap());
    command.args(["a_program_that_does_what_it_reads", "--exact", "--test-threads=1"]);
    command
        .env(MESSAGE, message.replace(';', "\n"))
        .stdout(std::process::Stdio::null());
    command
}

/// A line of the program, which the harness's own output can precede.
fn say(text: &str) {
    let line = format!("\n> {text}\n");
    assert_eq!(
        rustix::io::write(rustix::stdio::stdout(), line.as_bytes()),
        Ok(line.len())
    );
}

/// What the program was started with: the variables, and the inodes of the descriptors.
fn inherited() -> String {
    let value = |name| env::var(name).unwrap_or("-".to_owned());
    let is_own = env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let count = env::var("LISTEN_FDS").map_or(0, |count| count.parse().unwrap());
    assert_eq!(is_own, count > 0);
    let inodes = (3..3 + count).map(|number: RawFd| {
        // SAFETY: the program has these descriptors by the protocol, and nothing else uses them.
        inode(&unsafe { OwnedFd::from_raw_fd(number) })
    });
    let inodes: Vec<_> = inodes.collect();
    format!("{} {} {}", count, value("LISTEN_FDNAMES"), inodes.join(" "))
}

fn inode(fd: &OwnedFd) -> String {
    fstat(fd).unwrap().st_ino.to_string()
}

fn send(text: &str, descriptors: &[BorrowedFd<'_>]) {
    let socket = common::notify::to_the_supervisor();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors)));
    let text = text.replace(';', "\n");
    sendmsg(
        socket,
        &[IoSlice::new(text.as_bytes())],
        &mut control,
        SendFlags::empty(),
    )
    .unwrap();
}

/// Waits until every earlier message of this process was handled, as sd_notify_barrier(3) does.
fn wait_for_barrier() {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    send("BARRIER=1", &[writer.as_fd()]);
    drop(writer);
    assert_eq!(rustix::io::read(reader, &mut [0; 1]), Ok(0));
}

// The host.

fn command() -> Command {
    Command::new(env::current_exe().unwrap())
        .args([
            "a_program_that_does_what_it_reads",
            "--exact",
            "--test-threads=1",
            "--nocapture",
        ])
        .env(PROGRAM, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
}

fn policy() -> Policy {
    for_ever().restart_delay(Delay::NONE).stop(term(Scope::Process, LONG))
}

fn store(max: u32) -> GroupSpec {
    GroupSpec::new("a", command()).policy(policy()).descriptor_store(max)
}

struct Told {
    host: Host,
    group: GroupId,
    ids: Vec<InstanceId>,
}

/// The running programs of a group.
fn started(spec: GroupSpec) -> Told {
    let mut host = Host::new();
    let (group, ids) = host.add(spec);
    host.start_these(group);
    Told { host, group, ids }
}

impl Told {
    /// The next answer of the first program. Meanwhile the supervisor works.
    fn answer(&mut self) -> String {
        self.answer_of(0)
    }

    fn answer_of(&mut self, number: usize) -> String {
        let id = self.ids[number];
        loop {
            let stdout = self.host.pipes(id).stdout.as_ref().unwrap().try_clone().unwrap();
            let mut both = [
                PollFd::new(&stdout, PollFlags::IN),
                PollFd::new(&self.host.supervisor, PollFlags::IN),
            ];
            poll(&mut both, None).unwrap();
            if both[0].revents().is_empty() {
                self.host.turn(Duration::ZERO);
                continue;
            }
            let line = self.host.line(id);
            if let Some(answer) = line.strip_prefix("> ") {
                return answer.to_owned();
            }
        }
    }

    /// Lets the first program do this; its answer.
    fn tell(&mut self, line: &str) -> String {
        self.write(line);
        self.answer()
    }

    fn write(&mut self, line: &str) {
        let id = self.ids[0];
        let stdin = self.host.pipes(id).stdin.as_ref().unwrap();
        let line = format!("{line}\n");
        assert_eq!(rustix::io::write(stdin, line.as_bytes()), Ok(line.len()));
    }

    /// Lets the first program end, and waits for the next run; what it was started with.
    fn restart(&mut self) -> String {
        self.write("end");
        let id = self.ids[0];
        let runs = self.host.status(id).runs;
        self.host.until("the next run", |host| host.status(id).runs > runs);
        self.host.until_state(id, StateName::Running);
        self.answer()
    }

    /// The notices since the last call.
    fn notices(&mut self) -> Vec<ProcessNotice> {
        self.host.take_events();
        let events = std::mem::take(&mut self.host.events);
        let notices = events.into_iter().filter_map(|event| match event {
            Event::Notice { notice, .. } => Some(notice),
            _ => None,
        });
        notices.collect()
    }

    fn until_notice(&mut self) -> ProcessNotice {
        let is_notice = |event: &Event| matches!(event, Event::Notice { .. });
        self.host.until("a notice", |host| host.events.iter().any(is_notice));
        let mut notices = self.notices();
        assert_eq!(notices.len(), 1, "{notices:?}");
        notices.remove(0)
    }
}

fn kept(name: &str, count: u32) -> ProcessNotice {
    let name = name.into();
    ProcessNotice::DescriptorsStored { name, count }
}

fn removed(name: &str, count: u32, reason: RemovalReason) -> ProcessNotice {
    let name = name.into();
    ProcessNotice::DescriptorsRemoved { name, count, reason }
}

fn refused(count: u32, reason: RefusalReason) -> ProcessNotice {
    ProcessNotice::DescriptorsRefused { count, reason }
}

/// The number of open descriptors of the host.
fn open() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The number of open descriptors of memory that a program has stored.
fn stored() -> usize {
    let links = fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let targets = links.filter_map(|link| fs::read_link(link).ok());
    targets
        .filter(|target| target.to_string_lossy().contains("memfd:pidherd-test"))
        .count()
}

#[test]
fn the_next_run_gets_the_stored_descriptors_after_the_sockets_of_its_command() {
    isolated(|| {
        let http = Stdio::from(fs::File::open("/dev/null").unwrap());
        let mut told = started(
            GroupSpec::new("a", command().listen_fd_named("http", http))
                .instances(2)
                .policy(policy())
                .descriptor_store(4),
        );
        let null = told.answer().rsplit(' ').next().unwrap().to_owned();
        let first = told.tell("memory 2 FDSTORE=1;FDNAME=b");
        let second = told.tell("pipe 1 FDSTORE=1;FDPOLL=0");
        assert_eq!(told.notices(), [kept("b", 2), kept("stored", 1)]);
        let expected = format!("4 http:b:b:stored {null} {first} {second}");
        assert_eq!(told.restart(), expected);
        assert_eq!(told.restart(), expected, "they are kept over restarts");
        let third = told.tell("memory 1 FDSTORE=1;FDNAME=");
        told.host.supervisor.restart(told.ids[0]).unwrap();
        told.host
            .until("it is restarted", |host| host.supervisor.instances().count() == 2);
        let id = told.ids[0];
        told.host.until("the fourth run", |host| host.status(id).runs == 4);
        assert_eq!(
            told.answer(),
            format!("5 http:b:b:stored: {null} {first} {second} {third}")
        );
        assert!(told.answer_of(1).starts_with("1 http "), "another instance gets none");
        told.host.shut_down();
    });
}

#[test]
fn descriptors_are_removed_by_their_name() {
    isolated(|| {
        let mut told = started(store(10));
        told.answer();
        let before = open();
        told.tell("memory 2 FDSTORE=1;FDNAME=a");
        let kept_one = told.tell("memory 1 FDSTORE=1;FDNAME=b");
        told.tell("memory 1 FDSTORE=1;FDNAME=a");
        assert_eq!(open(), before + 4);
        told.notices();
        told.tell("send FDSTOREREMOVE=1;FDNAME=a");
        told.tell("send FDSTOREREMOVE=1;FDNAME=none");
        told.tell("send FDSTOREREMOVE=1");
        let requested = RemovalReason::Requested;
        assert_eq!(
            told.notices(),
            [
                removed("a", 3, requested),
                removed("none", 0, requested),
                refused(0, RefusalReason::Name)
            ]
        );
        assert_eq!(open(), before + 1);
        assert_eq!(told.restart(), format!("1 b {kept_one}"));
        told.host.shut_down();
    });
}

#[test]
fn a_descriptor_that_hangs_up_is_removed_unless_it_is_not_polled() {
    isolated(|| {
        for own_epoll in [false, true] {
            let mut host = if own_epoll { Host::with_own_epoll() } else { Host::new() };
            let (group, ids) = host.add(store(10));
            host.start_these(group);
            let mut told = Told { host, group, ids };
            told.answer();
            let before = open();
            let unpolled = told.tell("pipe 1 FDSTORE=1;FDPOLL=0");
            told.tell("pipe 1 FDSTORE=1;FDNAME=polled");
            let file = told.tell("memory 1 FDSTORE=1;FDNAME=file");
            told.notices();
            told.write("forget");
            assert_eq!(told.until_notice(), removed("polled", 1, RemovalReason::HungUp));
            told.answer();
            if !own_epoll {
                told.host.nothing_for(ms(20));
                assert_eq!(open(), before + 2);
            }
            assert_eq!(told.restart(), format!("2 stored:file {unpolled} {file}"));
            told.host.shut_down();
        }
    });
}

/// Whether the kernel tells that a descriptor is a copy of another one: by fcntl(2) from Linux 6.10 on, by kcmp(2) if it
/// was built with it. The supervisor stores both where it does not.
fn finds_copies() -> bool {
    const F_DUPFD_QUERY: libc::c_int = 1024 + 3;
    const KCMP_FILE: libc::c_int = 0;
    let one = memfd_create("pidherd-test", MemfdFlags::CLOEXEC).unwrap();
    let own = std::process::id();
    let copy = one.try_clone().unwrap();
    let (one, copy) = (one.as_raw_fd(), copy.as_raw_fd());
    // SAFETY: both calls take only numbers, and change nothing.
    let answers = unsafe {
        libc::fcntl(one, F_DUPFD_QUERY, copy) == 1 || libc::syscall(libc::SYS_kcmp, own, own, KCMP_FILE, one, copy) == 0
    };
    if !answers {
        skipped("a copy of a stored descriptor: it needs Linux 6.10 or kcmp(2)");
    }
    answers
}

#[test]
fn what_is_not_stored_is_closed_and_reported() {
    isolated(|| {
        let mut told = started(store(3));
        told.answer();
        let before = open();
        let one = told.tell("memory 1 FDSTORE=1;FDNAME=a");
        let finds_copies = finds_copies();
        if finds_copies {
            told.tell("again FDSTORE=1;FDNAME=b");
        }
        told.tell("memory 1 FDSTORE=1;FDNAME=a:b");
        told.tell("memory 5 READY=1");
        told.tell("memory 5 FDSTORE=1;BARRIER=1");
        told.tell("send FDSTORE=1");
        assert_eq!(open(), before + 1);
        let more = told.tell("memory 5 FDSTORE=1;FDNAME=c");
        assert_eq!(open(), before + 3);
        let mut expected = vec![
            kept("a", 1),
            refused(1, RefusalReason::Duplicate),
            refused(1, RefusalReason::Name),
            ProcessNotice::Ready,
            kept("c", 2),
            refused(3, RefusalReason::Full),
        ];
        if !finds_copies {
            expected.remove(1);
        }
        assert_eq!(told.notices(), expected);
        let more: Vec<_> = more.split(' ').take(2).collect();
        assert_eq!(told.restart(), format!("3 a:c:c {one} {}", more.join(" ")));
        told.host.shut_down();
    });
}

#[test]
fn without_a_store_every_descriptor_is_refused() {
    isolated(|| {
        let mut told = started(GroupSpec::new("a", command()).policy(policy()).notify_socket(true));
        told.answer();
        let before = open();
        told.tell("memory 253 FDSTORE=1");
        told.tell("memory 1 FDSTORE=1");
        assert_eq!(open(), before);
        let none = refused(0, RefusalReason::NoStore);
        assert_eq!(told.notices(), [none.clone(), none]);
        assert_eq!(told.restart(), "0 - ");
        told.host.shut_down();
    });
}

#[test]
fn a_host_without_free_descriptors_stores_none_of_a_message() {
    isolated(|| {
        let mut told = started(store(253));
        told.answer();
        let before = open();
        let limit = getrlimit(Resource::Nofile);
        let least = Rlimit {
            current: Some(before as u64 + 20),
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, least).unwrap();
        for _ in 0..50 {
            told.tell("pipe 100 FDSTORE=1;FDPOLL=0");
            assert!(matches!(
                told.until_notice(),
                ProcessNotice::DescriptorsRefused {
                    reason: RefusalReason::Lost,
                    ..
                }
            ));
        }
        setrlimit(Resource::Nofile, limit).unwrap();
        assert_eq!(open(), before);
        told.tell("memory 253 FDSTORE=1");
        assert_eq!(told.notices(), [kept("stored", 253)]);
        assert!(told.restart().starts_with("253 stored:stored:"));
        told.host.shut_down();
    });
}

#[test]
fn the_descriptors_are_released_when_the_instance_comes_to_rest() {
    isolated(|| {
        let mut told = started(store(5));
        told.answer();
        let id = told.ids[0];
        told.tell("pipe 2 FDSTORE=1");
        told.host.supervisor.stop(id).unwrap();
        told.host.until_state(id, StateName::Stopped);
        let at_rest = open();
        told.host.supervisor.start(id).unwrap();
        told.host.until_state(id, StateName::Running);
        assert_eq!(told.answer(), "0 - ");
        told.tell("pipe 2 FDSTORE=1");
        told.host.supervisor.stop(id).unwrap();
        told.host.until_state(id, StateName::Stopped);
        assert_eq!(open(), at_rest);
        // A removed instance leaves nothing to the next one in its slot.
        told.host.supervisor.start(id).unwrap();
        told.host.until_state(id, StateName::Running);
        told.answer();
        told.tell("pipe 2 FDSTORE=1;FDPOLL=0");
        told.host.supervisor.remove(told.group).unwrap();
        told.host
            .until("it is removed", |host| host.supervisor.instances().next().is_none());
        let (group, ids) = told.host.add(store(5));
        told.host.start_these(group);
        told.ids = ids;
        assert_eq!(told.answer(), "0 - ");
        told.host.shut_down();
    });
}

#[test]
fn the_descriptors_are_released_when_a_start_that_waits_is_withdrawn() {
    isolated(|| {
        let mut host = Host::new();
        let startup = Startup::Notify { timeout: LONG };
        let database = GroupSpec::new("database", sleeper()).policy(for_ever().startup(startup));
        let (_, database) = host.add(database);
        let database = database[0];
        let comes_up = |host: &mut Host| {
            host.until_state(database, StateName::Starting);
            host.until_executed();
        };
        host.supervisor.start(database).unwrap();
        comes_up(&mut host);
        host.supervisor.report_ready(database).unwrap();
        let (group, ids) = host.add(store(5).requires("database"));
        host.start_these(group);
        let mut told = Told { host, group, ids };
        told.answer();
        let id = told.ids[0];
        told.tell("memory 2 FDSTORE=1");
        // While the database starts once more, the next run waits for it.
        told.host.supervisor.restart(database).unwrap();
        told.host.until("the next run", |host| host.status(database).runs == 2);
        comes_up(&mut told.host);
        told.host.supervisor.stop(id).unwrap();
        told.host.supervisor.start(id).unwrap();
        told.host.until_state(id, StateName::Stopped);
        assert_eq!(told.host.status(id).waits_for.len(), 1);
        assert_eq!(stored(), 2);
        // Without the database there is no next run.
        told.host.supervisor.kill(database).unwrap();
        told.host.until_state(database, StateName::Stopped);
        assert_eq!(told.host.status(id).pending, None);
        assert_eq!(stored(), 0);
        told.host.shut_down();
    });
}

#[test]
fn a_smaller_store_keeps_the_oldest_at_the_next_start() {
    isolated(|| {
        let mut told = started(store(5));
        told.answer();
        let inodes = told.tell("memory 3 FDSTORE=1;FDNAME=a");
        let oldest = inodes.split(' ').next().unwrap().to_owned();
        told.host.supervisor.reload(told.group, store(1)).unwrap();
        let id = told.ids[0];
        told.host.until("it is restarted", |host| host.status(id).runs == 2);
        assert_eq!(told.answer(), format!("1 a {oldest}"));
        told.host.shut_down();
    });
}

#[test]
fn a_store_that_cannot_work_is_refused_when_the_group_is_added() {
    isolated(|| {
        let mut host = Host::new();
        let add = |host: &mut Host, spec| match host.supervisor.add(spec) {
            Err(Error::Spec(error)) => error,
            other => panic!("{other:?}"),
        };
        assert!(matches!(add(&mut host, store(254)), SpecError::DescriptorStore(254)));
        let null = || Stdio::null();
        for (command, stored, refused) in [
            (command().fd(3, null()), 1, Some(3)),
            (command().listen_fd(null()).fd(5, null()), 2, Some(5)),
            (command().listen_fd(null()).fd(6, null()), 2, None),
        ] {
            let spec = GroupSpec::new("given", command).descriptor_store(stored);
            let Some(number) = refused else {
                host.add(spec);
                continue;
            };
            let SpecError::Command { error, .. } = add(&mut host, spec) else {
                panic!()
            };
            assert!(matches!(error, CommandError::StoreTarget { target } if target == number));
        }
        let SpecError::Command { error, .. } = add(&mut host, store(1).ready_fd(3)) else {
            panic!()
        };
        assert!(matches!(error, CommandError::StoreTarget { target: 3 }));
        for name in ["a:b", "\n", "\u{e9}", &"x".repeat(256)] {
            let compiled = command().listen_fd_named(name, null()).compile();
            assert!(matches!(compiled, Err(CommandError::DescriptorName { name: refused }) if refused == name));
        }
    });
}

#[test]
fn only_the_messages_of_the_chosen_processes_count() {
    isolated(|| {
        for (access, from_main, from_child) in [
            (NotifyAccess::None, false, false),
            (NotifyAccess::Main, true, false),
            (NotifyAccess::Descendants, true, true),
            (NotifyAccess::All, true, true),
        ] {
            let mut told = started(store(5).notify_access(access));
            told.answer();
            told.tell("send STATUS=main");
            let id = told.ids[0];
            let status = told.host.status(id).status_text;
            assert_eq!(status.as_deref(), from_main.then_some("main"), "{access:?}");
            told.tell("child STATUS=child");
            let last = if from_child { Some("child") } else { status.as_deref() };
            assert_eq!(told.host.status(id).status_text.as_deref(), last, "{access:?}");
            told.tell("memory 1 FDSTORE=1");
            let dropped = 2 * u64::from(!from_main) + u64::from(!from_child);
            let counts = told.host.supervisor.notify_counts().unwrap();
            assert_eq!(counts.unknown_senders, dropped, "{access:?}");
            // Each was answered, whether it counts or not.
            assert_eq!(counts.barriers, 4, "{access:?}");
            assert_eq!(told.notices().len(), usize::from(from_main));
            told.host.shut_down();
        }
    });
}

#[test]
fn a_process_of_the_cgroup_counts_only_with_access_for_all() {
    isolated(|| {
        let Some(cgroup) = test_cgroup() else {
            return skipped("a cgroup");
        };
        for (access, counts) in [(NotifyAccess::Descendants, false), (NotifyAccess::All, true)] {
            let spec = store(5).notify_access(access);
            let mut told = started(spec.cgroup(CgroupDir::open(cgroup.path()).unwrap()));
            told.answer();
            told.tell("orphan STATUS=orphan");
            let barriers = |host: &Host| host.supervisor.notify_counts().unwrap().barriers;
            told.host.until("its barrier", |host| barriers(host) == 1);
            let status = told.host.status(told.ids[0]).status_text;
            assert_eq!(status.as_deref(), counts.then_some("orphan"), "{access:?}");
            told.host.shut_down();
        }
    });
}

#[test]
fn stored_descriptors_survive_a_hand_over() {
    Isolation::new().limit(Duration::from_secs(60)).run(|| {
        let notes = env::temp_dir().join(format!("pidherd-store-{}", env::var(MARKER).unwrap()));
        let Some(handed_over) = HandOver::receive().unwrap() else {
            return hand_over(&notes);
        };
        let taken = builder()
            .take_over(handed_over, vec![store(5)], Undescribed::Stop)
            .unwrap();
        let host = Host::with(taken.supervisor);
        let ids = host.supervisor.instances().collect();
        let group = taken.groups[0].id;
        let mut told = Told { host, group, ids };
        let noted = fs::read_to_string(&notes).unwrap();
        fs::remove_file(&notes).unwrap();
        let (streams, expected) = noted.split_once('\n').unwrap();
        let streams = streams.split(' ').map(|number| {
            let number: RawFd = number.parse().unwrap();
            // SAFETY: the host before this one has left the descriptor open, and nothing else uses it.
            Some(unsafe { OwnedFd::from_raw_fd(number) })
        });
        let [stdin, stdout] = streams.collect::<Vec<_>>().try_into().unwrap();
        told.host.put_streams(told.ids[0], stdin, stdout);
        // It is still watched.
        told.write("forget");
        assert_eq!(told.until_notice(), removed("pipe", 1, RemovalReason::HungUp));
        told.answer();
        let more = told.tell("memory 1 FDSTORE=1;FDNAME=more");
        assert_eq!(told.restart(), format!("{expected} {more}"));
        told.host.shut_down();
    });
}

/// Stores some descriptors, and replaces the host by itself.
fn hand_over(notes: &PathBuf) {
    let mut told = started(store(5));
    told.answer();
    let unpolled = told.tell("pipe 1 FDSTORE=1;FDPOLL=0;FDNAME=unpolled");
    told.tell("pipe 1 FDSTORE=1;FDNAME=pipe");
    let memory = told.tell("memory 1 FDSTORE=1;FDNAME=memory");
    told.notices();
    // The streams were taken, so the host passes them on itself.
    let pipes = told.host.pipes(told.ids[0]);
    let streams = [&pipes.stdin, &pipes.stdout].map(|stream| {
        let stream = stream.as_ref().unwrap();
        rustix::io::fcntl_setfd(stream, FdFlags::empty()).unwrap();
        stream.as_raw_fd()
    });
    let [stdin, stdout] = streams;
    fs::write(
        notes,
        format!("{stdin} {stdout}\n3 unpolled:memory:more {unpolled} {memory}"),
    )
    .unwrap();
    let program = env::current_exe().unwrap();
    let error = told.host.supervisor.hand_over(program, env::args_os().skip(1));
    panic!("{error}");
}
