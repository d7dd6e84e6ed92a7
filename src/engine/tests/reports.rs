//! The notify socket: when it is read, how far, and what a deadline waits for.

use super::kernel::{line, message};
use super::{SECOND, TestEngine, end, engine, events, instance, member, pass, policy, spec, started, state};
use crate::engine::error::Error;
use crate::engine::event::{Event, ProcessNotice};
use crate::engine::ids::{InstanceId, Target};
use crate::engine::kernel::{Collected, Happening, Report};
use crate::engine::request::Outcome;
use crate::exit::{Exit, ExitRecord};
use crate::lifecycle::{Policy, StateName};
use crate::signal::Signal;

/// An engine with a running instance that can send messages, under this policy.
fn notifying(policy: Policy) -> (TestEngine, InstanceId) {
    let mut engine = engine();
    let group = started(&mut engine, spec("web").policy(policy).notify_socket(true));
    let id = member(&engine, group, 0);
    (engine, id)
}

fn status(text: &str) -> Report {
    Report::Status(Some(text.into()))
}

/// A process that sends without a pause does not keep the host.
#[test]
fn no_more_messages_are_read_than_the_queue_has_room_for() {
    let (mut engine, id) = notifying(policy());
    engine.queue = 3;
    engine.kernel.messages = [
        Happening::UnknownMessage,
        line(id, status("first line"), false),
        line(id, status("second line"), true),
        message(id, status("the last one")),
        message(id, status("one too many")),
    ]
    .into();
    engine.receive_queued();
    assert_eq!(instance(&engine, id).status_text.as_deref(), Some("the last one"));
    assert_eq!(engine.kernel.messages.len(), 1);
}

/// The news of an execution comes by a look, and a message by the socket, in any order.
#[test]
fn a_program_that_reports_runs_before_its_report_is_told() {
    let mut engine = engine();
    engine.kernel.is_slow = true;
    let group = started(&mut engine, spec("web").policy(policy()).notify_socket(true));
    let id = member(&engine, group, 0);
    let report = || Report::Notice(ProcessNotice::Stopping);
    engine.apply_report(id, report());
    assert_eq!(
        state(&engine, id),
        StateName::Starting,
        "nothing tells that its program was executed"
    );
    let runs = |event: &Event| matches!(event, Event::Transition(event) if event.to == StateName::Running);
    assert!(!events(&mut engine).any(|event| runs(&event)));

    engine.kernel.has_executed = true;
    engine.apply_report(id, report());
    let told: Vec<Event> = events(&mut engine).collect();
    let is_notice = |event: &Event| matches!(event, Event::Notice { .. });
    assert!(
        matches!(&told[..], [first, last] if runs(first) && is_notice(last)),
        "{told:?}"
    );
    assert_eq!(engine.reload_program(id.into(), Signal::HUP, None).unwrap().accepted, 1);
}

/// After that, the kernel may give its number to another process.
#[test]
fn the_last_messages_of_a_process_are_read_before_it_is_reaped() {
    let (mut engine, id) = notifying(policy());
    engine.queue = 2;
    engine.kernel.has_ended = true;
    engine.kernel.messages = [status("first"), status("last")].map(|text| message(id, text)).into();
    end(&mut engine, id, Exit::Code(0));
    assert_eq!(engine.kernel.unread, [0]);
}

#[test]
fn a_deadline_waits_for_what_is_known_already() {
    let watched = Policy {
        watchdog: Some(SECOND * 2),
        ..policy()
    };
    let (mut engine, id) = notifying(watched.clone());
    engine.kernel.messages.push_back(message(id, Report::Alive));
    pass(&mut engine, SECOND * 2);
    assert_eq!(state(&engine, id), StateName::Running, "it has reported in time");

    let (mut engine, id) = notifying(watched);
    let pid = instance(&engine, id).process.unwrap();
    let exit = Exit::Code(0);
    let record = ExitRecord { pid, exit, usage: None };
    engine.kernel.found = [Collected::Spurious, Collected::Ended(record)].into();
    pass(&mut engine, SECOND * 2);
    assert_eq!(state(&engine, id), StateName::Exited, "it was done");
    assert_eq!(engine.kernel.signals, []);
}

#[test]
fn a_reload_that_cannot_be_asked_for_is_an_error_of_one_instance_and_counted_for_more() {
    let mut engine = engine();
    let group = started(&mut engine, spec("web").instances(2));
    let id = member(&engine, group, 0);
    engine.kernel.refuses_signals = true;
    let refused = engine.reload_program(Target::Instance(id), Signal::HUP, None);
    assert!(matches!(refused, Err(Error::Signal { instance, signal: Signal::HUP, .. }) if instance == id));
    let outcome = engine.reload_program(group.into(), Signal::HUP, None).unwrap();
    let expected = Outcome {
        failed: 2,
        ..Outcome::default()
    };
    assert_eq!(outcome, expected);
    let reported = events(&mut engine).filter(|event| matches!(event, Event::SignalFailed { .. }));
    assert_eq!(reported.count(), 2);
}
