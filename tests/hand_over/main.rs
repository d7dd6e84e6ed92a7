//! A host replaces itself by another program, which goes on with the supervisor as if nothing had happened.
//!
//! The isolated process of a test is the host. It executes the test binary again, so the test's body runs once in each
//! generation, and the number of its generation tells it what to do.

#[path = "../common/mod.rs"]
mod common;
#[path = "../host/mod.rs"]
mod host;
mod namespaces;
mod orphans;
mod siblings;
mod sizes;
mod stop_command;
mod waiting;

use std::collections::{BTreeSet, HashMap};
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use StateName::{Backoff, Fatal, Running, Starting, Stopped, Stopping};
use common::lease::Lease;
use common::{Isolation, MARKER, SOON, kernel_since, root_or_skip, skipped, test_cgroup, wait_gone, wait_until};
use host::{Host, LONG, at_once, builder, ms, quiet_sh, sh, sleeper, term};
use pidherd::cgroup::CgroupDir;
use pidherd::exit::Exit;
use pidherd::group::Rolling;
use pidherd::lifecycle::{Delay, Policy, Scope, Startup, StateName};
use pidherd::supervisor::{End, HandOver, HandOverError, TakeOverReason, Undescribed};
use pidherd::{Command, Event, GroupSpec, InstanceId, Lifetime, Signal, SignalFd, SignalSet, Stdio, Supervisor};

/// One generation of the host in a test.
struct Generation {
    /// 0 for the first one.
    number: u64,
    handed_over: Option<HandOver>,
    /// What the generation before has written down.
    notes: String,
}

/// Runs the body once in each generation.
fn generations(limit: u64, body: impl FnOnce(Generation)) {
    generations_in(Isolation::new().limit(Duration::from_secs(limit)), body);
}

/// The same in such a process.
fn generations_in(isolation: Isolation, body: impl FnOnce(Generation)) {
    isolation.run(|| {
        let handed_over = HandOver::receive().unwrap();
        let notes = match &handed_over {
            Some(_) => fs::read_to_string(notes_path()).unwrap(),
            None => "0\n".to_owned(),
        };
        let (number, notes) = notes.split_once('\n').unwrap();
        body(Generation {
            number: number.parse().unwrap(),
            handed_over,
            notes: notes.to_owned(),
        });
        // The last generation ends here.
        let _is_gone = fs::remove_file(notes_path());
    });
}

fn notes_path() -> PathBuf {
    env::temp_dir().join(format!("pidherd-notes-{}", env::var(MARKER).unwrap()))
}

impl Generation {
    /// Takes the supervisor over, or builds it and starts all groups.
    fn host(&mut self, groups: Vec<GroupSpec>) -> Host {
        let Some(handed_over) = self.handed_over.take() else {
            let mut host = Host::new();
            for group in groups {
                let (group, _) = host.add(group);
                host.supervisor.start(group).unwrap();
            }
            return host;
        };
        let taken = builder().take_over(handed_over, groups, Undescribed::Stop).unwrap();
        assert!(taken.groups.iter().all(|group| !group.is_new));
        assert!(taken.released.is_empty());
        Host::with(taken.supervisor)
    }

    /// Hands over to the next generation.
    fn hand_over(self, host: &mut Host, notes: &str) -> ! {
        fs::write(notes_path(), format!("{}\n{notes}", self.number + 1)).unwrap();
        let error = host
            .supervisor
            .hand_over(env::current_exe().unwrap(), env::args_os().skip(1));
        panic!("{error}");
    }
}

/// Everything that the supervisor tells about its instances and groups.
fn story(supervisor: &Supervisor) -> String {
    let mut story = String::new();
    for group in supervisor.groups() {
        let group = supervisor.group(group).unwrap();
        writeln!(
            story,
            "{} {} {:?} {}",
            group.name, group.target, group.wanted, group.leaving
        )
        .unwrap();
    }
    for id in supervisor.instances() {
        let mut status = supervisor.status(id).unwrap();
        // The time goes on.
        status.uptime = None;
        let runs: Vec<_> = supervisor.runs(id).collect();
        writeln!(story, "{} {status:?} {runs:?}", status.name).unwrap();
    }
    story
}

fn named(host: &Host, name: &str) -> InstanceId {
    let is_it = |&id: &InstanceId| host.status(id).name.to_string() == name;
    let found = host.supervisor.instances().find(is_it);
    found.unwrap_or_else(|| panic!("{name} is missing: {}", story(&host.supervisor)))
}

/// A policy without a second try.
/// A program that ends soon has failed to start, also on a slow machine.
fn tried_once() -> Policy {
    Policy::new().startup(Startup::Grace(LONG)).start_retries(0)
}

#[test]
fn every_state_counter_and_history_is_handed_over_and_goes_on() {
    generations(120, |mut generation| {
        let stubborn = sh("trap '' TERM; echo >&3; while :; do sleep 0.05; done");
        let silent = at_once().startup(Startup::Notify { timeout: LONG });
        let slow = Policy::new().backoff(Delay::Fixed(LONG));
        let groups = vec![
            GroupSpec::new("runs", sleeper()).instances(3).policy(at_once()),
            GroupSpec::new("stubborn", stubborn)
                .policy(silent.clone())
                .ready_fd(3)
                .stop(term(Scope::Process, ms(1_500))),
            GroupSpec::new("silent", sh("exec sleep 1000"))
                .policy(silent)
                .ready_fd(3),
            GroupSpec::new("missing", Command::new("/no/such/program")).policy(slow),
            GroupSpec::new("grace", sleeper()).grace(LONG),
            GroupSpec::new("idle", sleeper()),
            GroupSpec::new("job", sh("exit 3")).policy(tried_once()),
        ];
        let mut host = generation.host(groups);
        if generation.number == 0 {
            let idle = named(&host, "idle:0");
            host.supervisor.kill(idle).unwrap();
            for (name, state) in [
                ("runs:2", Running),
                ("stubborn:0", Running),
                ("silent:0", Starting),
                ("missing:0", Backoff),
                ("grace:0", Starting),
                ("idle:0", Stopped),
                ("job:0", Fatal),
            ] {
                host.until_state(named(&host, name), state);
            }
            host.until_executed();
            let stubborn = named(&host, "stubborn:0");
            host.supervisor.stop(stubborn).unwrap();
            let story = story(&host.supervisor);
            generation.hand_over(&mut host, &story);
        }
        assert_eq!(story(&host.supervisor), generation.notes);
        if generation.number < 3 {
            let story = story(&host.supervisor);
            generation.hand_over(&mut host, &story);
        }
        // The stop began in the first generation, and its deadline is the same.
        let stubborn = named(&host, "stubborn:0");
        let deadline = host.status(stubborn).state.deadline().unwrap();
        host.until_state(stubborn, Stopped);
        assert!(host.supervisor.now() >= deadline);
        let end = host.supervisor.runs(stubborn).last().unwrap().end;
        assert_eq!(end, End::StopTimeout);
        // A readiness descriptor that was handed over still works, and so does everything else.
        let silent = named(&host, "silent:0");
        let descriptor = format!("/proc/{}/fd/3", host.pid(silent));
        fs::write(descriptor, "\n").unwrap();
        host.until_state(silent, Running);
        let runs = named(&host, "runs:0");
        let pid = host.pid(runs);
        host.supervisor.restart(runs).unwrap();
        host.until_state(runs, Running);
        assert_ne!(host.pid(runs), pid);
        assert_eq!(host.status(runs).runs, 2);
        host.shut_down();
    });
}

/// How many generations the test of a busy host has. `PIDHERD_TEST_HOSTS` sets another number.
fn hand_overs() -> u64 {
    env::var("PIDHERD_TEST_HOSTS").map_or(25, |text| text.parse().expect("a number"))
}

/// What the events that were fetched so far say about the instances, by name: the state, the run, and the PID when the
/// program was replaced.
#[derive(Default)]
struct Chains(HashMap<String, (String, u64, String)>);

impl Chains {
    fn read(notes: &str) -> Chains {
        let line = |line: &str| {
            let words: Vec<_> = line.split(' ').collect();
            (
                words[0].into(),
                (words[1].into(), words[2].parse().unwrap(), words[3].into()),
            )
        };
        Chains(notes.lines().map(line).collect())
    }

    fn get(&self, name: &str) -> (String, u64, String) {
        self.0.get(name).cloned().unwrap_or(("STOPPED".into(), 0, "-".into()))
    }

    /// Checks that an event continues what was told before.
    fn follow(&mut self, event: &Event) {
        let Event::Transition(step) = event else {
            panic!("{event:?}")
        };
        let name = step.name.to_string();
        let (state, run, _) = self.get(&name);
        assert_eq!(step.from.to_string(), state, "{step:?}");
        assert!(step.run == run || step.run == run + 1, "{run}, then {step:?}");
        if let (Some(record), "crashing") = (step.exit, &*step.name.group) {
            let expected = u8::try_from(step.name.number % 200 + 1).unwrap();
            let was_stopped = matches!(step.from, Stopping);
            assert!(was_stopped || record.exit == Exit::Code(expected), "{step:?}");
        }
        self.0.insert(name, (step.to.to_string(), step.run, "-".into()));
    }

    fn write(&self, host: &Host) -> String {
        let mut notes = Vec::new();
        for id in host.supervisor.instances() {
            let status = host.status(id);
            let (state, run, _) = self.get(&status.name.to_string());
            let pid = status.pid.map_or("-".into(), |pid| pid.to_string());
            notes.push(format!("{} {state} {run} {pid}", status.name));
        }
        notes.join("\n")
    }
}

/// Groups of which one never changes, one crashes all the time, and one is restarted by request.
fn busy_groups(instances: u32) -> Vec<GroupSpec> {
    let churning = Policy::new()
        .startup(Startup::Grace(Duration::ZERO))
        .crash_budget(None)
        .restart_delay(Delay::Exponential {
            first: ms(5),
            cap: ms(40),
        });
    let crashing = |number| quiet_sh(&format!("exit {}", number % 200 + 1));
    let half = instances / 2;
    vec![
        GroupSpec::new("steady", sleeper()).instances(half).policy(at_once()),
        GroupSpec::with("crashing", crashing).instances(half).policy(churning),
        GroupSpec::new("restarted", sleeper()).instances(5).policy(at_once()),
    ]
}

#[test]
fn a_busy_host_loses_nothing_however_often_it_is_replaced() {
    let instances = env::var("PIDHERD_TEST_INSTANCES").map_or(40, |text| text.parse().expect("a number"));
    generations(3_000, |mut generation| {
        let mut host = generation.host(busy_groups(instances));
        let mut chains = Chains::read(&generation.notes);
        let steady = |host: &Host| {
            let ids = host.supervisor.instances();
            ids.filter(|&id| &*host.status(id).name.group == "steady")
                .collect::<Vec<_>>()
        };
        if generation.number == 0 {
            host.until("all are up", |host| {
                steady(host).iter().all(|&id| host.state(id) == Running)
            });
        } else {
            for id in steady(&host) {
                let (.., pid) = chains.get(&host.status(id).name.to_string());
                assert_eq!(host.pid(id).to_string(), pid, "it was not restarted");
            }
        }
        for turn in 0..1 + generation.number % 7 {
            let restarted = named(&host, &format!("restarted:{}", (generation.number + turn) % 5));
            host.supervisor.restart(restarted).unwrap();
            host.turn(ms(20));
        }
        let is_last = generation.number == hand_overs();
        if is_last {
            host.shut_down();
        }
        // What is still in the queue is for the next generation.
        host.events.drain(..).for_each(|event| chains.follow(&event));
        if !is_last {
            let notes = chains.write(&host);
            generation.hand_over(&mut host, &notes);
        }
    });
}

#[test]
fn spawns_in_flight_are_handed_over_and_their_ends_are_known() {
    generations(120, |mut generation| {
        if cfg!(pidherd_portable) {
            return skipped("the portable path waits for execve");
        }
        let directory = env::temp_dir().join(format!("pidherd-lease-{}", env::var(MARKER).unwrap()));
        let (good, bad) = (directory.join("good"), directory.join("bad"));
        if generation.number == 0 {
            if !Lease::is_possible() {
                return;
            }
            fs::create_dir(&directory).unwrap();
            fs::copy("/bin/sleep", &good).unwrap();
            fs::write(&bad, "\x7fELF and nothing else\n").unwrap();
            fs::set_permissions(&bad, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let groups = vec![
            GroupSpec::new("good", Command::new(&good).arg("1000")).grace(ms(10)),
            GroupSpec::new("bad", Command::new(&bad)),
            GroupSpec::new("killed", Command::new(&good).arg("1000")),
        ];
        // The descriptors with the leases are close-on-exec, so the next generation lets the execves go on.
        let leases = (generation.number == 0).then(|| [&good, &bad].map(|path| Lease::try_take(path).unwrap()));
        let mut host = generation.host(groups);
        let ids = ["good:0", "bad:0", "killed:0"].map(|name| named(&host, name));
        if leases.is_some() {
            for id in ids {
                Lease::wait_for(host.pid(id));
            }
            host.supervisor.kill(ids[2]).unwrap();
            generation.hand_over(&mut host, "");
        }
        host.until_state(ids[0], Running);
        host.until_reached(ids[1], Backoff);
        let error = host.status(ids[1]).last_error.unwrap();
        assert_eq!(error.errno(), libc::ENOEXEC, "{error}");
        assert_eq!(error.program(), bad);
        host.until_state(ids[2], Stopped);
        host.shut_down();
        fs::remove_dir_all(&directory).unwrap();
    });
}

#[test]
fn a_program_that_cannot_be_executed_leaves_the_supervisor_as_it_was() {
    common::isolated(|| {
        let mut host = Host::new();
        let id = host.start(sleeper(), at_once());
        let before = story(&host.supervisor);
        let open = || {
            let flags = |entry: std::io::Result<fs::DirEntry>| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let info = fs::read_to_string(format!("/proc/self/fdinfo/{name}")).unwrap_or_default();
                let flags = info.lines().find(|line| line.starts_with("flags:")).map(str::to_owned);
                flags.map(|flags| (name, flags))
            };
            let mut open: Vec<_> = fs::read_dir("/proc/self/fd").unwrap().filter_map(flags).collect();
            open.sort();
            open
        };
        let descriptors = open();
        for (program, errno) in [
            ("/no/such/program", libc::ENOENT),
            ("/etc/passwd", libc::EACCES),
            ("/", libc::EACCES),
        ] {
            match host.supervisor.hand_over(program, ["x"]) {
                HandOverError::Exec { source, .. } => assert_eq!(source.raw_os_error(), Some(errno), "{program}"),
                other => panic!("{other}"),
            }
        }
        for (program, argument) in [("/bin\0/true", "x"), ("/bin/true", "x\0y")] {
            let error = host.supervisor.hand_over(program, [argument]);
            assert!(matches!(error, HandOverError::Nul(_)), "{error}");
        }
        assert_eq!(open(), descriptors, "descriptors stay close-on-exec");
        assert_eq!(story(&host.supervisor), before);
        host.supervisor.restart(id).unwrap();
        host.until("it was restarted", |host| host.status(id).runs == 2);
        host.shut_down();
    });
}

#[test]
fn a_state_that_is_larger_than_files_may_be_does_not_end_the_host() {
    common::isolated(|| {
        let mut host = Host::new();
        let id = host.start(sleeper(), at_once());
        let limit = rustix::process::Rlimit {
            current: Some(100),
            maximum: None,
        };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
        let error = host.supervisor.hand_over("/bin/true", ["x"]);
        let is_too_large =
            matches!(&error, HandOverError::Store { source, .. } if source.raw_os_error() == Some(libc::EFBIG));
        let unlimited = rustix::process::Rlimit {
            current: None,
            maximum: None,
        };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, unlimited).unwrap();
        assert!(is_too_large, "{error}");
        host.until_state(id, Running);
        host.shut_down();
    });
}

#[test]
fn events_pipes_and_signals_that_were_not_read_are_handed_over() {
    let signals = SignalSet::EMPTY.with(Signal::TERM);
    Isolation::new().blocked(signals).run(|| {
        let handed_over = HandOver::receive().unwrap();
        let talking = sh("printf 'hello\\n'; exec sleep 1000").stdout(Stdio::piped());
        let groups = vec![
            GroupSpec::new("talking", talking).policy(at_once()),
            GroupSpec::new("crashing", quiet_sh("exit 5")).policy(tried_once()),
        ];
        let builder = Supervisor::builder().signals(SignalFd::new(signals).unwrap());
        let Some(handed_over) = handed_over else {
            let mut supervisor = builder.build().unwrap();
            for spec in groups {
                let group = supervisor.add(spec).unwrap();
                supervisor.start(group).unwrap();
            }
            let ids: Vec<_> = supervisor.instances().collect();
            wait_until("the crash is seen", SOON, || {
                supervisor.dispatch().unwrap();
                supervisor.status(ids[1]).unwrap().state.name() == Fatal
            });
            // A signal that is pending while the program is replaced must not end the process.
            let host = rustix::process::getpid();
            rustix::process::kill_process(host, rustix::process::Signal::TERM).unwrap();
            let error = supervisor.hand_over(env::current_exe().unwrap(), env::args_os().skip(1));
            panic!("{error}");
        };
        let taken = builder.take_over(handed_over, groups, Undescribed::Stop).unwrap();
        let mut supervisor = taken.supervisor;
        let ids: Vec<_> = supervisor.instances().collect();
        let mut steps = Vec::new();
        while let Some(event) = supervisor.next_event() {
            let Event::Transition(step) = event else {
                panic!("{event:?}")
            };
            steps.extend((step.instance == ids[1]).then_some(step.to));
        }
        assert_eq!(steps, [Starting, Backoff, Fatal]);
        let pipes = supervisor.take_pipes(ids[0]).unwrap();
        let mut line = [0; 6];
        fs::File::from(pipes.stdout.unwrap()).read_exact(&mut line).unwrap();
        assert_eq!(&line, b"hello\n");
        let mut host = Host::with(supervisor);
        let is_term = |event: &Event| matches!(event, Event::Signal(info) if info.signal == Signal::TERM);
        host.until("the signal is there", |host| host.events.iter().any(is_term));
        host.shut_down();
    });
}

/// The variable that makes a process of this binary send a message.
const SENDS: &str = "PIDHERD_TEST_SENDS";

/// Another test runs this test as its child. Without the variable it does nothing.
#[test]
fn child_that_sends() {
    let Some(message) = env::var_os(SENDS) else { return };
    let socket = common::notify::to_the_supervisor();
    socket.send(message.as_encoded_bytes()).unwrap();
    println!("sent");
    loop {
        std::thread::park();
    }
}

#[test]
fn the_notify_socket_keeps_its_address_and_its_unread_messages() {
    generations(120, |mut generation| {
        let policy = at_once().startup(Startup::Notify { timeout: LONG });
        let sending = Command::new(env::current_exe().unwrap())
            .args(["child_that_sends", "--exact", "--nocapture", "--test-threads=1"])
            .env(SENDS, "READY=1\nSTATUS=well")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let spec = GroupSpec::new("sending", sending).policy(policy).notify_socket(true);
        let mut host = generation.host(vec![spec]);
        let id = named(&host, "sending:0");
        if generation.number == 0 {
            // The message is in the socket, and this program does not read it.
            wait_until("it has sent", SOON, || host.line(id).contains("sent"));
            generation.hand_over(&mut host, "");
        }
        host.until_state(id, Running);
        assert_eq!(host.status(id).status_text.as_deref(), Some("well"));
        host.shut_down();
    });
}

#[test]
fn descriptions_decide_about_the_groups_of_the_state() {
    generations(120, |mut generation| {
        let sleepers = |name| GroupSpec::new(name, sleeper()).policy(at_once());
        if generation.number == 0 {
            let mut host = generation.host(vec![
                sleepers("grown").instances(2),
                sleepers("shrunk").instances(4),
                sleepers("forgotten").stop(term(Scope::Process, LONG)),
                sleepers(""),
                sleepers(""),
            ]);
            host.until_executed();
            let pids: Vec<_> = host.supervisor.instances().map(|id| host.pid(id).to_string()).collect();
            generation.hand_over(&mut host, &pids.join(" "));
        }
        let pids: Vec<u32> = generation.notes.split(' ').map(|pid| pid.parse().unwrap()).collect();
        let specs = vec![
            sleepers("new"),
            sleepers(""),
            sleepers("shrunk").instances(1),
            sleepers("grown").instances(3),
            sleepers(""),
        ];
        let handed_over = generation.handed_over.take().unwrap();
        // A wrong description is refused, and everything stays for another try.
        let wrong = vec![sleepers("grown").instances(100_001)];
        let refused = builder().take_over(handed_over, wrong, Undescribed::Stop).unwrap_err();
        assert!(matches!(refused.reason, TakeOverReason::Error(_)), "{refused}");
        let twice = vec![sleepers("grown"), sleepers("new"), sleepers("grown")];
        let refused = builder()
            .take_over(refused.handed_over, twice, Undescribed::Stop)
            .unwrap_err();
        assert!(
            refused.to_string().ends_with("another group has the name \"grown\""),
            "{refused}"
        );
        let taken = builder()
            .take_over(refused.handed_over, specs, Undescribed::Stop)
            .unwrap();
        let is_new: Vec<_> = taken.groups.iter().map(|group| group.is_new).collect();
        assert_eq!(is_new, [true, false, false, false, false]);
        let groups: Vec<_> = taken.groups.iter().map(|group| group.id).collect();
        let mut host = Host::with(taken.supervisor);
        assert_eq!(host.pid(named(&host, "grown:0")), pids[0]);
        assert_eq!(host.pid(named(&host, "shrunk:0")), pids[2]);
        let twins = [groups[1], groups[4]].map(|twin| {
            let members = host.supervisor.group(twin).unwrap().instances;
            host.pid(members[0])
        });
        assert_eq!(twins, [pids[7], pids[8]], "in their order");
        host.until_state(named(&host, "grown:2"), Running);
        host.until("the rest is gone", |host| {
            host.supervisor.instances().count() == 3 + 1 + 2 + 1
        });
        assert!(wait_gone(pids[6], SOON), "the group was forgotten");
        let is_removed = |event: &Event| matches!(event, Event::GroupRemoved { name, .. } if &**name == "forgotten");
        assert!(host.events.iter().any(is_removed));
        assert_eq!(host.state(named(&host, "new:0")), Stopped);
        host.shut_down();
    });
}

#[test]
fn processes_of_groups_that_are_not_described_can_go_on_by_themselves() {
    generations(120, |mut generation| {
        if generation.number == 0 {
            let mut host = generation.host(vec![GroupSpec::new("free", sleeper()).instances(2).policy(at_once())]);
            host.until_executed();
            let first = named(&host, "free:0");
            host.until_state(first, Running);
            generation.hand_over(&mut host, "");
        }
        let handed_over = generation.handed_over.take().unwrap();
        let taken = builder()
            .take_over(handed_over, Vec::new(), Undescribed::Release)
            .unwrap();
        let names: Vec<_> = taken.released.iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, ["free:0", "free:1"]);
        let mut host = Host::with(taken.supervisor);
        host.until("the group is gone", |host| host.supervisor.groups().count() == 0);
        for (_, pidfd) in &taken.released {
            assert!(pidfd.peek().unwrap().is_none(), "it lives");
            pidfd.signal(Signal::KILL).unwrap();
            wait_until("it has ended", SOON, || pidfd.reap().unwrap().is_some());
        }
        host.shut_down();
    });
}

#[test]
fn a_rolling_restart_and_requests_that_wait_go_on() {
    generations(120, |mut generation| {
        let groups = vec![
            GroupSpec::new("rolled", sleeper()).instances(6).grace(ms(5)),
            GroupSpec::new("many", sleeper()).instances(300).policy(at_once()),
        ];
        let mut host = generation.host(groups);
        if generation.number == 0 {
            host.until("all are up", |host| {
                host.supervisor.instances().all(|id| host.state(id) == Running)
            });
            let groups: Vec<_> = host.supervisor.groups().collect();
            let rolling = Rolling::new().max_unavailable(1).surge(1);
            host.supervisor.rolling_restart(groups[0], rolling).unwrap();
            // More than one call serves.
            let outcome = host.supervisor.restart(groups[1]).unwrap();
            assert!(outcome.queued > 0, "{outcome:?}");
            let story = story(&host.supervisor);
            generation.hand_over(&mut host, &story);
        }
        assert_eq!(story(&host.supervisor), generation.notes);
        let is_over = |event: &Event| matches!(event, Event::Rolled { failed: None, .. });
        host.until("the rolling restart is over", |host| host.events.iter().any(is_over));
        host.until("all were restarted", |host| {
            host.supervisor
                .instances()
                .all(|id| host.status(id).runs == 2 && host.state(id) == Running)
        });
        assert_eq!(host.supervisor.instances().count(), 306);
        host.shut_down();
    });
}

#[test]
fn a_shutdown_that_has_begun_goes_on() {
    generations(120, |mut generation| {
        let stubborn = sh("trap '' TERM; echo >&3; while :; do sleep 0.05; done");
        let ready = at_once().startup(Startup::Notify { timeout: LONG });
        let spec = GroupSpec::new("stubborn", stubborn)
            .policy(ready)
            .ready_fd(3)
            .stop(term(Scope::Process, ms(700)));
        let mut host = generation.host(vec![spec]);
        if generation.number == 0 {
            host.until_state(named(&host, "stubborn:0"), Running);
            host.supervisor.shutdown().unwrap();
            generation.hand_over(&mut host, "");
        }
        assert!(!host.supervisor.is_down());
        host.until("it is down", |host| host.supervisor.is_down());
    });
}

#[test]
fn a_run_in_a_cgroup_is_stopped_with_all_that_lives_there() {
    if !root_or_skip("cgroups") {
        return;
    }
    generations(120, |mut generation| {
        let directory = match generation.number {
            0 => {
                let Some(cgroup) = test_cgroup() else { return };
                let path = cgroup.path().to_owned();
                // The test's cgroups are removed at its end in any case.
                std::mem::forget(cgroup);
                path
            }
            _ => PathBuf::from(&generation.notes),
        };
        let spawning = sh("setsid sleep 1000 & exec sleep 1000").stdout(Stdio::null());
        let spec = GroupSpec::new("family", spawning)
            .policy(at_once())
            .cgroup(CgroupDir::open(&directory).unwrap())
            .stop(term(Scope::Cgroup, LONG));
        let mut host = generation.host(vec![spec]);
        let id = named(&host, "family:0");
        let leaf = directory.join("family-0");
        let inhabitants = || {
            fs::read_to_string(leaf.join("cgroup.procs"))
                .unwrap_or_default()
                .lines()
                .count()
        };
        if generation.number == 0 {
            host.until_executed();
            wait_until("both live there", SOON, || inhabitants() == 2);
            generation.hand_over(&mut host, directory.to_str().unwrap());
        }
        assert_eq!(inhabitants(), 2);
        host.supervisor.restart(id).unwrap();
        host.until("it was restarted", |host| {
            host.status(id).runs == 2 && host.state(id) == Running
        });
        wait_until("both live there again", SOON, || inhabitants() == 2);
        host.shut_down();
        wait_until("the cgroup is removed", SOON, || !leaf.exists());
        fs::remove_dir(directory).unwrap();
    });
}

#[test]
fn a_descriptor_that_is_not_what_the_state_says_is_refused() {
    generations(120, |mut generation| {
        if generation.number == 0 {
            let mut host = generation.host(vec![GroupSpec::new("a", sleeper()).instances(2).policy(at_once())]);
            host.until_executed();
            let ids: Vec<_> = host.supervisor.instances().collect();
            let fds = ids.iter().map(|&id| host.supervisor.pidfd(id).unwrap().as_raw_fd());
            let numbers: Vec<_> = fds.map(|fd| fd.to_string()).collect();
            generation.hand_over(&mut host, &numbers.join(" "));
        }
        let numbers: Vec<i32> = generation.notes.split(' ').map(|fd| fd.parse().unwrap()).collect();
        let specs = || vec![GroupSpec::new("a", sleeper()).instances(2).policy(at_once())];
        let handed_over = generation.handed_over.take().unwrap();
        // SAFETY: the numbers are those of descriptors of `handed_over`, which stay open.
        let copy = unsafe { libc::fcntl(numbers[0], libc::F_DUPFD_CLOEXEC, 100) };
        // SAFETY: as above.
        unsafe { libc::dup3(numbers[1], numbers[0], libc::O_CLOEXEC) };
        let refused = builder()
            .take_over(handed_over, specs(), Undescribed::Stop)
            .unwrap_err();
        assert!(
            matches!(refused.reason, TakeOverReason::Descriptor(number) if number == numbers[0]),
            "{refused}"
        );
        // SAFETY: as above.
        unsafe {
            libc::dup3(copy, numbers[0], libc::O_CLOEXEC);
            libc::close(copy);
        }
        let taken = builder()
            .take_over(refused.handed_over, specs(), Undescribed::Stop)
            .unwrap();
        let mut host = Host::with(taken.supervisor);
        assert!(host.supervisor.instances().all(|id| host.state(id) == Running));
        host.shut_down();
    });
}

#[test]
fn the_set_waits_for_its_entries_and_for_nothing_else_after_each_hand_over() {
    generations(120, |mut generation| {
        let mut host = generation.host(vec![GroupSpec::new("a", sleeper()).instances(5).policy(at_once())]);
        host.until("all are up", |host| {
            host.supervisor.instances().all(|id| host.state(id) == Running)
        });
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", host.supervisor.as_raw_fd())).unwrap();
        let registration = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            (words[0] == "tfd:").then(|| (words[1].parse().unwrap(), u64::from_str_radix(words[5], 16).unwrap()))
        };
        let registered: BTreeSet<(i32, u64)> = info.lines().filter_map(registration).collect();
        let entries = host.supervisor.fds().iter();
        let entries: BTreeSet<_> = entries.map(|entry| (entry.fd, entry.token.to_raw())).collect();
        assert_eq!(registered, entries);
        assert_eq!(entries.len(), 5 + 1, "the processes and the timer");
        if generation.number < 3 {
            let id = named(&host, &format!("a:{}", generation.number));
            let run = host.status(id).runs;
            host.supervisor.restart(id).unwrap();
            host.until("it was restarted", |host| {
                host.status(id).runs > run && host.state(id) == Running
            });
            generation.hand_over(&mut host, "");
        }
        host.shut_down();
    });
}

#[test]
fn a_bound_child_lives_on_after_a_hand_over_and_its_end_is_known() {
    generations(120, |mut generation| {
        if !kernel_since(7, 1) || cfg!(pidherd_portable) {
            return skipped("the kernel binds no child to its host (Linux 7.1)");
        }
        let spec = GroupSpec::new("bound", sleeper().lifetime(Lifetime::Bound)).policy(at_once());
        let mut host = generation.host(vec![spec]);
        let id = named(&host, "bound:0");
        if generation.number == 0 {
            host.until_executed();
            let pid = host.pid(id).to_string();
            generation.hand_over(&mut host, &pid);
        }
        assert_eq!(host.pid(id).to_string(), generation.notes);
        if generation.number < 3 {
            let pid = generation.notes.clone();
            generation.hand_over(&mut host, &pid);
        }
        host.supervisor.signal(id, Signal::USR1).unwrap();
        host.until("it has ended", |host| host.supervisor.runs(id).next().is_some());
        let end = host.supervisor.runs(id).next().unwrap().end;
        assert_eq!(end, End::KilledFromOutside(Signal::USR1));
        host.shut_down();
    });
}
