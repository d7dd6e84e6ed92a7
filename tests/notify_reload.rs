//! Programs that read their configuration again, and what they tell meanwhile.

mod common;
mod host;

use std::env;
use std::io::{BufRead, stdin};
use std::time::Duration;

use common::isolated;
use host::{Host, LONG, at_once, ms, sleeper, term};
use pidherd::lifecycle::{Policy, Scope, StateName};
use pidherd::supervisor::{Event, ProcessNotice, ReloadResult};
use pidherd::{Clock, Command, Error, GroupId, GroupSpec, InstanceId, Signal, Stdio, Target};

/// The variable that makes a process of this binary send what it reads.
const SENDS: &str = "PIDHERD_TEST_SENDS";

/// The other tests run this test as their child. Without the variable it does nothing. It sends each line of its
/// standard input as a message. Its own lines are separated by semicolons.
#[test]
fn a_program_that_sends_what_it_reads() {
    if env::var_os(SENDS).is_none() {
        return;
    }
    let socket = common::notify::to_the_supervisor();
    for line in stdin().lock().lines() {
        socket.send(line.unwrap().replace(';', "\n").as_bytes()).unwrap();
    }
}

struct Told {
    host: Host,
    group: GroupId,
    id: InstanceId,
    events: Vec<Event>,
}

/// A running program that sends what it is told. SIGWINCH does nothing to it.
fn program(policy: Policy) -> Told {
    let mut host = Host::new();
    let command = Command::new(env::current_exe().unwrap())
        .args(["a_program_that_sends_what_it_reads", "--exact", "--test-threads=1"])
        .env(SENDS, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let spec = GroupSpec::new("a", command).policy(policy).notify_socket(true);
    let (group, ids) = host.add(spec);
    host.start_these(group);
    host.until_state(ids[0], StateName::Running);
    Told {
        host,
        group,
        id: ids[0],
        events: Vec::new(),
    }
}

fn patient() -> Policy {
    at_once().stop(term(Scope::Process, LONG))
}

impl Told {
    fn send(&mut self, message: &str) {
        let stdin = self.host.pipes(self.id).stdin.as_ref().unwrap();
        let line = format!("{message}\n");
        assert_eq!(rustix::io::write(stdin, line.as_bytes()), Ok(line.len()));
    }

    /// Waits for the next event that is no transition.
    fn next(&mut self) -> Event {
        loop {
            if let Some(at) = self
                .events
                .iter()
                .position(|event| !matches!(event, Event::Transition(_)))
            {
                return self.events.remove(at);
            }
            assert!(common::wait_readable(&self.host.supervisor, common::SOON), "no event");
            self.host.supervisor.dispatch().unwrap();
            while let Some(event) = self.host.supervisor.next_event() {
                self.events.push(event);
            }
        }
    }

    fn next_notice(&mut self) -> ProcessNotice {
        match self.next() {
            Event::Notice { instance, notice, .. } if instance == self.id => notice,
            other => panic!("{other:?}"),
        }
    }

    fn next_result(&mut self) -> ReloadResult {
        match self.next() {
            Event::Reloaded { instance, result, .. } if instance == self.id => result,
            other => panic!("{other:?}"),
        }
    }

    fn reload(&mut self, timeout: Duration) {
        let outcome = self
            .host
            .supervisor
            .reload_program(self.group, Signal::WINCH, Some(timeout));
        assert_eq!(outcome.unwrap().accepted, 1);
    }
}

#[test]
fn a_reload_is_done_when_the_program_says_so() {
    isolated(|| {
        let mut told = program(patient());
        told.reload(LONG);
        // A program that is ready has not yet begun to reload.
        told.send("READY=1");
        assert_eq!(told.next_notice(), ProcessNotice::Ready);
        told.send("RELOADING=1");
        assert_eq!(told.next_notice(), ProcessNotice::Reloading);
        told.send("READY=1");
        assert_eq!(told.next_notice(), ProcessNotice::Ready);
        assert_eq!(told.next_result(), ReloadResult::Done);
        // It is told once.
        told.send("RELOADING=1");
        told.send("READY=1");
        assert_eq!(told.next_notice(), ProcessNotice::Reloading);
        assert_eq!(told.next_notice(), ProcessNotice::Ready);
        told.host.shut_down();
    });
}

#[test]
fn an_earlier_reload_of_its_own_is_not_taken_for_the_one_that_was_requested() {
    isolated(|| {
        let mut told = program(patient());
        let usec = |now: pidherd::time::Instant| now.as_nanos() / 1_000;
        let before = usec(Clock::Monotonic.now()) - 1;
        told.reload(LONG);
        told.send(&format!("RELOADING=1;MONOTONIC_USEC={before}"));
        told.send("READY=1");
        assert_eq!(told.next_notice(), ProcessNotice::Reloading);
        assert_eq!(told.next_notice(), ProcessNotice::Ready);
        let after = usec(Clock::Monotonic.now()) + 1;
        // In either order.
        told.send(&format!("MONOTONIC_USEC={after};RELOADING=1"));
        told.send("READY=1");
        assert_eq!(told.next_notice(), ProcessNotice::Reloading);
        assert_eq!(told.next_notice(), ProcessNotice::Ready);
        assert_eq!(told.next_result(), ReloadResult::Done);
        told.host.shut_down();
    });
}

#[test]
fn a_reload_that_takes_too_long_or_loses_its_process_is_told() {
    isolated(|| {
        let mut told = program(patient());
        told.reload(ms(20));
        assert_eq!(told.next_result(), ReloadResult::TimedOut);
        assert_eq!(told.host.state(told.id), StateName::Running);
        // A second one takes the place of the first.
        told.reload(ms(1));
        told.reload(LONG);
        told.host.supervisor.stop(told.group).unwrap();
        assert_eq!(told.next_result(), ReloadResult::Ended);
        told.host.shut_down();
    });
}

#[test]
fn what_a_program_tells_reaches_the_host() {
    isolated(|| {
        let watched = patient()
            .watchdog(Some(LONG))
            .restart(pidherd::lifecycle::Restart::Never);
        let mut told = program(watched);
        told.send("STOPPING=1;ERRNO=13;ERRNO=0;ERRNO=99999;ERRNO=+1");
        assert_eq!(told.next_notice(), ProcessNotice::Stopping);
        assert_eq!(told.next_notice(), ProcessNotice::Errno(13));
        // Its own word for its watchdog counts.
        told.send("WATCHDOG_USEC=20000");
        assert_eq!(told.next_notice(), ProcessNotice::WatchdogEvery(ms(20)));
        told.host.until_state(told.id, StateName::Exited);
        let end = told.host.supervisor.runs(told.id).last().unwrap().end;
        assert_eq!(end, pidherd::supervisor::End::Watchdog);
        told.host.shut_down();
    });
}

#[test]
fn a_process_without_a_watchdog_gets_none_by_its_own_word() {
    isolated(|| {
        let mut told = program(patient());
        told.send("WATCHDOG_USEC=1");
        assert_eq!(
            told.next_notice(),
            ProcessNotice::WatchdogEvery(Duration::from_micros(1))
        );
        told.host.nothing_for(ms(50));
        assert_eq!(told.host.state(told.id), StateName::Running);
        told.host.shut_down();
    });
}

#[test]
fn a_reload_that_cannot_be_sends_no_signal() {
    isolated(|| {
        let mut told = program(patient());
        let (mute, ids) = told.host.add(GroupSpec::new("mute", sleeper()).policy(at_once()));
        let wait = Some(LONG);
        let supervisor = &mut told.host.supervisor;
        assert!(matches!(
            supervisor.reload_program(ids[0], Signal::HUP, wait),
            Err(Error::NotAlive(_))
        ));
        assert_eq!(supervisor.reload_program(mute, Signal::HUP, wait).unwrap().already, 1);
        told.host.start_these(mute);
        told.host.until_state(ids[0], StateName::Running);
        let supervisor = &mut told.host.supervisor;
        for target in [Target::from(ids[0]), mute.into(), Target::All] {
            // SIGHUP would end both processes.
            let refused = supervisor.reload_program(target, Signal::HUP, wait);
            assert!(
                matches!(refused, Err(Error::CannotNotify(id)) if id == ids[0]),
                "{refused:?}"
            );
        }
        assert_eq!(supervisor.reload_program(mute, Signal::CONT, None).unwrap().accepted, 1);
        for id in [told.id, ids[0]] {
            assert_eq!(told.host.state(id), StateName::Running);
        }
        told.host.shut_down();
    });
}
