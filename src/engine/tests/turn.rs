//! The answers of turns, and how much one of them does.

use std::time::Duration;

use super::kernel::{SOCKET, TIMER, TestKernel, message};
use super::{SECOND, TestEngine, end, engine, member, pass, policy, spec, started, state};
use crate::engine::ids::{InstanceId, Target};
use crate::engine::kernel::{Kernel, Report};
use crate::engine::progress::Progress;
use crate::engine::request::Request;
use crate::exit::Exit;
use crate::lifecycle::{Delay, Policy, StateName};

/// As many messages as are read from the socket in one go.
const MESSAGES: usize = 32;

/// An engine with an instance that accepts messages, and so many of them that the socket is read in two calls.
fn flooded() -> TestEngine {
    let mut engine = engine();
    let group = started(&mut engine, spec("web").notify_socket(true));
    let id = member(&engine, group, 0);
    pass(&mut engine, SECOND);
    let messages = (0..MESSAGES).map(|_| message(id, Report::Status(None)));
    engine.kernel.messages.extend(messages);
    engine
}

#[test]
fn what_became_ready_after_the_report_of_a_round_is_not_forgotten() {
    for news in [true, false] {
        let mut engine = flooded();
        engine.kernel.ready.push_back(vec![SOCKET]);
        engine.kernel.ready.push_back(vec![TIMER]);
        assert_eq!(engine.dispatch().unwrap(), Progress::More);
        // The set was asked once in that call.
        assert_eq!(engine.kernel.ready.len(), 1);
        if !news {
            engine.kernel.ready.clear();
        }
        // The socket is empty. The host is called once more if there are news, because it may have used up their edge.
        let expected = if news { Progress::Done } else { Progress::Nothing };
        assert_eq!(engine.dispatch().unwrap(), expected);
    }
}

#[test]
fn a_report_of_this_call_needs_no_other_one() {
    let mut engine = engine();
    engine.kernel.ready.push_back(Vec::new());
    engine.kernel.ready.push_back(vec![TIMER]);
    assert_eq!(engine.dispatch().unwrap(), Progress::Nothing);
    assert_eq!(engine.kernel.ready.len(), 1);
}

/// An engine with an instance that waits for its restart.
fn waiting() -> (TestEngine, InstanceId) {
    let mut engine = engine();
    let policy = Policy {
        restart_delay: Delay::Fixed(SECOND),
        ..policy()
    };
    let group = started(&mut engine, spec("web").policy(policy));
    let id = member(&engine, group, 0);
    end(&mut engine, id, Exit::Code(1));
    assert_eq!(state(&engine, id), StateName::Backoff);
    (engine, id)
}

#[test]
fn the_answer_for_the_timer_tells_whether_anything_was_due_or_pending() {
    let (mut engine, id) = waiting();
    assert_eq!(engine.process_token(TIMER).unwrap(), Progress::Nothing);
    engine.kernel.now = engine.kernel.now.saturating_add(SECOND);
    engine.wake();
    assert_eq!(engine.process_token(TIMER).unwrap(), Progress::Done);
    assert_eq!(state(&engine, id), StateName::Running);

    let (mut engine, id) = waiting();
    engine.kernel.is_saturated = true;
    engine.request(Target::Instance(id), Request::Start).unwrap();
    engine.kernel.is_saturated = false;
    assert_eq!(state(&engine, id), StateName::Backoff);
    assert_eq!(engine.process_token(TIMER).unwrap(), Progress::Done);
    assert_eq!(state(&engine, id), StateName::Running);
}

#[test]
fn the_answer_for_another_descriptor_tells_whether_there_was_anything() {
    let mut engine = flooded();
    engine.kernel.messages.truncate(2);
    assert_eq!(engine.process_token(SOCKET).unwrap(), Progress::Done);
    assert_eq!(engine.process_token(SOCKET).unwrap(), Progress::Nothing);
}

#[test]
fn a_turn_serves_a_slice_of_the_requests() {
    let mut engine = engine();
    let slice = TestKernel::SLICE as usize;
    let group = engine.add(spec("web").instances(3 * TestKernel::SLICE)).unwrap();
    engine.request(group.into(), Request::Start).unwrap();
    for left in [2 * slice, slice, 0] {
        assert_eq!(engine.pending, left);
        pass(&mut engine, Duration::ZERO);
    }
}
