//! The answers of turns, and how much one of them does.

use std::time::Duration;

use super::kernel::{SOCKET, TIMER, TestKernel, message};
use super::{SECOND, TestEngine, end, engine, member, pass, policy, spec, started, state};
use crate::engine::ids::{InstanceId, Target};
use crate::engine::kernel::{Kernel, Report};
use crate::engine::progress::Progress;
use crate::engine::request::Request;
use crate::engine::spec::GroupSpec;
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

/// A group with restarts that wait for a second.
fn late_restarts() -> GroupSpec {
    let policy = Policy {
        restart_delay: Delay::Fixed(SECOND),
        ..policy()
    };
    spec("late").policy(policy)
}

/// An engine with an instance that waits for its restart.
fn waiting() -> (TestEngine, InstanceId) {
    let mut engine = engine();
    let group = started(&mut engine, late_restarts());
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
fn deadlines_have_half_of_a_slice_and_what_the_others_leave_of_it() {
    let mut engine = due(10);
    engine.kernel.spawn_takes = engine.slice / 5;
    pass(&mut engine, Duration::ZERO);
    assert_eq!(engine.kernel.spawned.len(), 5);
    engine.wake();
    engine.process_token(SOCKET).unwrap();
    assert_eq!(
        engine.kernel.spawned.len(),
        5 + 3,
        "the rest is left for the descriptor"
    );
}

/// The group of late restarts, which are all due.
fn due(instances: u32) -> TestEngine {
    let mut engine = engine();
    let group = started(&mut engine, late_restarts().instances(instances));
    for number in 0..instances {
        let id = member(&engine, group, number);
        end(&mut engine, id, Exit::Code(1));
    }
    engine.kernel.spawned.clear();
    engine.kernel.now = engine.kernel.now.saturating_add(SECOND);
    engine.wake();
    engine
}

#[test]
fn deadlines_that_are_left_are_more_work_even_if_nothing_else_is() {
    let mut engine = due(8);
    engine.kernel.spawn_takes = engine.slice / 5;
    assert_eq!(engine.dispatch().unwrap(), Progress::More);
    assert_eq!(engine.kernel.spawned.len(), 5);
    engine.wake();
    assert_eq!(engine.dispatch().unwrap(), Progress::Done);
    assert_eq!(engine.kernel.spawned.len(), 8);
}

#[test]
fn no_deadline_is_begun_at_the_end_of_the_slice() {
    let mut engine = due(3);
    engine.kernel.spawn_takes = engine.slice;
    engine.dispatch().unwrap();
    assert_eq!(engine.kernel.spawned.len(), 1);
}

/// Makes the next answer that of a host that has been kept for a slice.
fn keep(engine: &mut TestEngine) {
    for _ in 0..2 {
        engine.streak.begin(engine.woken, engine.slice);
        engine.streak.end(Progress::Done, engine.kernel.now, engine.slice);
        engine.kernel.now = engine.kernel.now.saturating_add(engine.slice / 2);
    }
    engine.wake();
}

/// The timer is armed for the past then.
#[test]
fn a_host_that_was_kept_is_woken_anew_for_whatever_is_left() {
    let dispatched = |engine: &mut TestEngine| {
        keep(engine);
        engine.wakes_anew = false;
        assert_eq!(engine.dispatch().unwrap(), Progress::Nothing);
        engine.wakes_anew
    };
    let mut left_in_the_round = flooded();
    left_in_the_round.kernel.ready.push_back(vec![SOCKET]);
    assert!(dispatched(&mut left_in_the_round));

    let mut ready_again = flooded();
    ready_again.kernel.messages.truncate(1);
    ready_again.kernel.ready = [vec![SOCKET], vec![SOCKET]].into();
    assert!(dispatched(&mut ready_again));

    let mut nothing_left = flooded();
    nothing_left.kernel.messages.truncate(1);
    nothing_left.kernel.ready.push_back(vec![SOCKET]);
    assert!(!dispatched(&mut nothing_left));

    // Restarts that wait since the round has begun belong to the next one.
    let mut later = flooded();
    let restarts = TestKernel::SLICE + 1;
    let group = started(&mut later, late_restarts().instances(restarts));
    pass(&mut later, Duration::ZERO);
    for number in 0..restarts {
        let id = member(&later, group, number);
        end(&mut later, id, Exit::Code(1));
    }
    later.kernel.ready.push_back(vec![SOCKET]);
    assert_eq!(later.dispatch().unwrap(), Progress::More);
    later.kernel.now = later.kernel.now.saturating_add(SECOND);
    later.wake();
    later.kernel.is_saturated = true;
    later.process_token(TIMER).unwrap();
    later.kernel.is_saturated = false;
    later.kernel.spawned.clear();
    assert!(dispatched(&mut later));
    assert_eq!(later.kernel.spawned.len(), TestKernel::SLICE as usize);
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
