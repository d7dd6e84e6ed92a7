//! Messages that a process sends before its end are handled before its end, whichever descriptor the host handles
//! first.

mod common;
mod host;

use std::env;
use std::fs;
use std::process;
use std::time::Duration;

use StateName::{Exited, Running, Starting, Stopped, Stopping};
use common::descriptors::readable;
use common::{SOON, isolated, processes, skipped, wait_readable, wait_until};
use host::{Host, LONG, at_once, builder, ms, sh, spawns_in_flight, term};
use pidherd::fdset::Entry;
use pidherd::lifecycle::{Cause, Failure, Policy, Restart, Scope, Startup, StateName};
use pidherd::supervisor::End;
use pidherd::{Command, GroupId, GroupSpec, InstanceId, Stdio};
use rustix::process::{Pid, Signal, kill_process};

/// The variable that makes a process of this binary send messages: the messages, then the way it ends.
const SAYS: &str = "PIDHERD_TEST_MESSAGES";

/// Separates the messages, of which each may have several lines.
const THEN: char = '\x1f';

/// The value for a process that does not end by itself and waits for a signal.
const STAYS: &str = "stays";

/// The messages of a process that sends without an end.
const FLOODS: &str = "floods";

/// The name that a process takes when it has sent all its messages and stays.
const SAID: &str = "said";

/// The other tests run this test as their child. Without the variable it does nothing.
#[test]
fn a_program_that_sends_messages_and_ends() {
    let Ok(says) = env::var(SAYS) else { return };
    let socket = common::notify::to_the_supervisor();
    if says == FLOODS {
        loop {
            // It blocks as long as the queue is full.
            socket.send(b"STATUS=again").unwrap();
        }
    }
    let mut parts = says.split(THEN).rev();
    let end = parts.next().unwrap();
    for message in parts.rev() {
        socket.send(message.as_bytes()).unwrap();
    }
    if end == STAYS {
        // The name of the first thread shows that all messages are sent.
        fs::write(format!("/proc/self/task/{}/comm", process::id()), SAID).unwrap();
        loop {
            std::thread::park();
        }
    }
    process::exit(end.parse().unwrap());
}

/// A program that sends these messages and then ends with this code, or stays.
fn sends(messages: &[&str], end: &str) -> Command {
    let parts: Vec<&str> = messages.iter().copied().chain([end]).collect();
    Command::new(env::current_exe().unwrap())
        .args(["a_program_that_sends_messages_and_ends", "--exact", "--test-threads=1"])
        .env(SAYS, parts.join(&THEN.to_string()))
        .stdout(Stdio::null())
}

/// An instance is running only after a message, and it has one attempt.
fn notify() -> Policy {
    at_once()
        .startup(Startup::Notify { timeout: LONG })
        .start_retries(0)
        .restart(Restart::Never)
        .stop(term(Scope::Process, LONG))
}

fn start(host: &mut Host, command: Command, policy: Policy) -> (GroupId, InstanceId) {
    let name = format!("group {}", host.supervisor.groups().count());
    let spec = GroupSpec::new(&name, command).policy(policy).notify_socket(true);
    let (group, ids) = host.add(spec);
    host.supervisor.start(group).unwrap();
    host.take_events();
    (group, ids[0])
}

/// A host that starts two processes without a dispatch in between, also where one spawn may be in flight.
fn host_of_two() -> Host {
    let most = match spawns_in_flight() {
        0 => 0,
        most => most.max(2),
    };
    Host::with(builder().spawns_in_flight(most).build().unwrap())
}

/// Waits until a process has ended, without a call of the supervisor.
fn wait_for_end(host: &Host, id: InstanceId) {
    let pidfd = host.supervisor.fd(pidfd_of(host, id).token).unwrap();
    assert!(wait_readable(pidfd, SOON), "it has not ended");
}

/// Waits until a process that stays has sent all its messages.
fn wait_until_sent(host: &Host, id: InstanceId) {
    let name = format!("/proc/{}/comm", host.pid(id));
    wait_until("all is said", SOON, || {
        fs::read_to_string(&name).is_ok_and(|name| name.trim_end() == SAID)
    });
}

/// The descriptor of an instance's process.
fn pidfd_of(host: &Host, id: InstanceId) -> Entry {
    let line = format!("Pid:\t{}\n", host.pid(id));
    let is_its = |entry: &Entry| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", entry.fd));
        info.unwrap().contains(&line)
    };
    readable(|| host.supervisor.fds().iter().find(is_its).unwrap())
}

/// The order in which a host handles what is ready.
#[derive(Clone, Copy, Debug)]
enum Way {
    PidfdFirst,
    PidfdFirstByToken,
    PidfdLast,
    Dispatch,
}

const WAYS: [Way; 4] = [Way::PidfdFirst, Way::PidfdFirstByToken, Way::PidfdLast, Way::Dispatch];

/// Handles everything that is ready in this order, and continues until nothing is.
fn process(host: &mut Host, way: Way, id: InstanceId) {
    process_once(host, way, id);
    process_the_rest(host);
}

/// Continues until nothing is ready.
fn process_the_rest(host: &mut Host) {
    while wait_readable(&host.supervisor, Duration::ZERO) {
        host.turn(Duration::ZERO);
    }
}

/// Handles everything that is ready once, in this order.
fn process_once(host: &mut Host, way: Way, id: InstanceId) {
    let pidfd = pidfd_of(host, id);
    let mut rest: Vec<Entry> = host.supervisor.fds().iter().filter(|entry| *entry != pidfd).collect();
    match way {
        Way::PidfdFirst => drop(host.supervisor.process_ready(pidfd.fd).unwrap()),
        Way::PidfdFirstByToken => drop(host.supervisor.process_token(pidfd.token).unwrap()),
        Way::PidfdLast => rest.push(pidfd),
        Way::Dispatch => drop(host.supervisor.dispatch().unwrap()),
    }
    for entry in rest {
        host.supervisor.process_ready(entry.fd).unwrap();
    }
    host.take_events();
}

/// Every message was accepted, so no sender was unknown.
fn assert_all_accepted(host: &Host, messages: u64) {
    let counts = host.supervisor.notify_counts().unwrap();
    assert_eq!((counts.received, counts.unknown_senders), (messages, 0));
}

#[test]
fn a_process_that_sends_ready_and_ends_was_running() {
    isolated(|| {
        for way in WAYS {
            let mut host = Host::new();
            let command = sends(&["STATUS=Done.\nREADY=1"], "3");
            let (_, id) = start(&mut host, command, notify());
            wait_for_end(&host, id);
            process(&mut host, way, id);
            assert_eq!(
                host.states(id),
                [Starting, Running, Exited],
                "{way:?}: {}",
                host.story()
            );
            assert_eq!(host.steps(id)[1].cause, Cause::Ready);
            assert_eq!(host.supervisor.runs(id).last().unwrap().end, End::Exited(3));
            assert_eq!(host.status(id).status_text.as_deref(), Some("Done."));
            assert_all_accepted(&host, 1);
        }
    });
}

#[test]
fn every_message_of_an_ended_process_is_handled() {
    isolated(|| {
        for way in WAYS {
            let mut host = Host::new();
            let command = sends(
                &[
                    "STATUS=One.",
                    "EXTEND_TIMEOUT_USEC=1000000",
                    "STATUS=Two.",
                    "READY=1",
                    "STATUS=Three.",
                ],
                "0",
            );
            let (_, id) = start(&mut host, command, notify());
            wait_for_end(&host, id);
            process(&mut host, way, id);
            assert_eq!(
                host.states(id),
                [Starting, Running, Exited],
                "{way:?}: {}",
                host.story()
            );
            assert_eq!(host.status(id).status_text.as_deref(), Some("Three."));
            assert_all_accepted(&host, 5);
        }
    });
}

/// Moves to a network namespace with sockets that queue this many datagrams. Returns `false` if this user may not make
/// one.
fn queue_of(datagrams: u32) -> bool {
    // SAFETY: the argument is a number. Open sockets stay in the old namespace and are not changed.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
    unshared && fs::write("/proc/sys/net/unix/max_dgram_qlen", datagrams.to_string()).is_ok()
}

#[test]
fn forty_datagrams_of_a_neighbour_in_front_make_no_difference() {
    isolated(|| {
        if !queue_of(64) {
            return skipped("a network namespace of its own takes root");
        }
        for way in WAYS {
            let mut host = host_of_two();
            let (_, neighbour) = start(&mut host, sends(&["STATUS=I am busy."; 40], STAYS), at_once());
            wait_until_sent(&host, neighbour);
            let (_, id) = start(&mut host, sends(&["READY=1"], "0"), notify());
            wait_for_end(&host, id);
            process(&mut host, way, id);
            assert_eq!(
                host.states(id),
                [Starting, Running, Exited],
                "{way:?}: {}",
                host.story()
            );
            assert_eq!(host.status(neighbour).status_text.as_deref(), Some("I am busy."));
            assert_all_accepted(&host, 41);
            host.supervisor.kill(neighbour).unwrap();
            host.until_state(neighbour, Stopped);
        }
    });
}

#[test]
fn a_command_is_carried_out_after_earlier_messages() {
    isolated(|| {
        for way in WAYS {
            for (command, end) in [
                ("stop", Stopped),
                ("kill", Stopped),
                ("restart", Starting),
                ("start", Starting),
            ] {
                let mut host = Host::new();
                let (_, id) = start(&mut host, sends(&["READY=1\nSTATUS=Done."], "3"), notify());
                wait_for_end(&host, id);
                match command {
                    "stop" => host.supervisor.stop(id),
                    "kill" => host.supervisor.kill(id),
                    "restart" => host.supervisor.restart(id),
                    _ => host.supervisor.start(id),
                }
                .unwrap();
                host.take_events();
                let through = match command {
                    "start" => Exited,
                    _ => Stopping,
                };
                if command == "start" {
                    host.until("it has ended again", |host| host.supervisor.runs(id).count() == 2);
                } else {
                    process(&mut host, way, id);
                }
                host.until_reached(id, end);
                let expected = [Starting, Running, through, end];
                assert_eq!(host.states(id)[..4], expected, "{way:?}, {command}: {}", host.story());
                assert_eq!(
                    host.supervisor.runs(id).next().unwrap().end,
                    End::Exited(3),
                    "{command}"
                );
                host.shut_down();
                assert_eq!(host.supervisor.notify_counts().unwrap().unknown_senders, 0);
            }
        }
    });
}

#[test]
fn watchdog_messages_of_an_ended_process_count() {
    isolated(|| {
        let watched = notify().watchdog(Some(ms(50)));
        for way in WAYS {
            // The process has sent WATCHDOG=1 within its time and has ended. The host looks long afterwards.
            let mut host = Host::new();
            let (_, id) = start(&mut host, sends(&["READY=1", "WATCHDOG=1"], "0"), watched.clone());
            wait_for_end(&host, id);
            let ended = host.supervisor.now();
            wait_until("a watchdog's time has passed", SOON, || {
                host.supervisor.now().saturating_duration_since(ended) > ms(100)
            });
            process(&mut host, way, id);
            assert_eq!(
                host.states(id),
                [Starting, Running, Exited],
                "{way:?}: {}",
                host.story()
            );
            assert_eq!(host.supervisor.runs(id).last().unwrap().end, End::Exited(0));
            assert_all_accepted(&host, 2);

            // The process has sent WATCHDOG=trigger.
            let mut host = Host::new();
            let (_, id) = start(&mut host, sends(&["READY=1", "WATCHDOG=trigger"], "0"), watched.clone());
            wait_for_end(&host, id);
            process(&mut host, way, id);
            assert_eq!(
                host.states(id),
                [Starting, Running, Stopping, Exited],
                "{way:?}: {}",
                host.story()
            );
            assert_eq!(host.steps(id)[3].cause, Cause::Failed(Failure::Watchdog));
            assert_all_accepted(&host, 2);
        }
    });
}

#[test]
fn messages_of_an_ended_leader_count_while_its_group_is_alive() {
    isolated(|| {
        let grouped = notify().stop(term(Scope::ProcessGroup, LONG));
        for way in WAYS {
            let mut host = Host::new();
            let speaker = sends(&["READY=1"], "0");
            let program = speaker.get_program().to_owned();
            let script = "(trap '' TERM; exec sleep 1000) & exec \"$0\" \"$@\"";
            let with_child = sh(script)
                .arg(program)
                .args(speaker.get_args())
                .env(SAYS, format!("READY=1{THEN}0"));
            let (_, id) = start(
                &mut host,
                with_child.stdout(Stdio::null()).stdin(Stdio::null()),
                grouped.clone(),
            );
            wait_for_end(&host, id);
            process(&mut host, way, id);
            host.until_state(id, Exited);
            assert_eq!(
                host.states(id),
                [Starting, Running, Stopping, Exited],
                "{way:?}: {}",
                host.story()
            );
            assert_all_accepted(&host, 1);
        }
    });
}

#[test]
fn a_flood_of_a_neighbour_keeps_no_ended_process_waiting() {
    isolated(|| {
        let mut host = host_of_two();
        let flood = sends(&[], FLOODS);
        let (_, flooding) = start(&mut host, flood, at_once());
        let flooding = host.pid(flooding);
        let tell = |signal, state| {
            kill_process(Pid::from_raw(flooding as i32).unwrap(), signal).unwrap();
            wait_until("the flood has stopped or blocks", SOON, || {
                processes::state(flooding) == Some(state)
            });
        };
        for way in WAYS {
            // While the flood is stopped and the queue empty, the process can send without the help of the host.
            tell(Signal::STOP, 'T');
            process_the_rest(&mut host);
            let (_, id) = start(&mut host, sends(&["READY=1"], "0"), notify());
            wait_for_end(&host, id);
            // The flood blocks because the queue is full, and goes on as soon as a message is read.
            tell(Signal::CONT, 'S');
            process_once(&mut host, way, id);
            host.until_state(id, Exited);
            assert_eq!(
                host.states(id),
                [Starting, Running, Exited],
                "{way:?}: {}",
                host.story()
            );
        }
    });
}
