//! Queues, messages, memory, and the ids that a host can use.

use super::kernel::{TestKernel, message};
use super::{SECOND, end, engine, instance, member, pass, restarted, spec, started, state};
use crate::command::Command;
use crate::engine::error::Error;
use crate::engine::ids::{InstanceId, Target};
use crate::engine::kernel::{Collected, Kernel, Report};
use crate::engine::request::Request;
use crate::exit::{Exit, ExitRecord};
use crate::lifecycle::{Scope, StateName, StopLadder};
use crate::time::Instant;

const EARLIER: Instant = Instant::ZERO;

#[test]
fn waiting_spawns_and_requests_take_turns() {
    let mut engine = engine();
    let again = started(&mut engine, spec("again").policy(restarted()).instances(2));
    // Two more than one call serves.
    let stopped = engine.add(spec("stopped").instances(TestKernel::SLICE + 2)).unwrap();
    for id in engine.groups.get(stopped).unwrap().roster.iter().collect::<Vec<_>>() {
        engine.request(Target::Instance(id), Request::Start).unwrap();
    }
    pass(&mut engine, SECOND * 2);
    engine.kernel.is_saturated = true;
    for number in 0..2 {
        let id = member(&engine, again, number);
        end(&mut engine, id, Exit::Code(0));
        assert_eq!(state(&engine, id), StateName::Starting);
    }
    engine.request(stopped.into(), Request::Stop).unwrap();
    engine.kernel.is_saturated = false;
    engine.kernel.spawned.clear();
    for turn in 1..=2 {
        for _ in 0..2 {
            assert!(engine.serve_next());
        }
        assert_eq!((engine.kernel.spawned.len(), engine.pending), (turn, 2 - turn));
    }
}

#[test]
fn a_spawn_that_began_to_wait_later_or_was_withdrawn_is_not_served_in_this_round() {
    let mut engine = engine();
    let group = started(&mut engine, spec("again").policy(restarted()));
    let id = member(&engine, group, 0);
    pass(&mut engine, SECOND * 2);
    engine.kernel.is_saturated = true;
    end(&mut engine, id, Exit::Code(0));
    engine.kernel.is_saturated = false;
    assert!(engine.may_serve_from(engine.kernel.now));
    assert!(!engine.may_serve_from(EARLIER));
    engine.request(group.into(), Request::Stop).unwrap();
    assert_eq!(state(&engine, id), StateName::Stopped);
    assert!(!engine.may_serve());
}

#[test]
fn memory_is_allocated_for_the_instances_that_are_left() {
    let mut engine = engine();
    let group = started(&mut engine, spec("web").instances(3));
    engine.request(group.into(), Request::Kill).unwrap();
    let members: Vec<InstanceId> = engine.ids().collect();
    for id in members {
        end(&mut engine, id, Exit::Code(0));
    }
    engine.remove(group).unwrap();
    engine.kernel.reserved.clear();
    started(&mut engine, spec("web"));
    assert_eq!(engine.kernel.reserved.iter().max(), Some(&1));
}

#[test]
fn a_message_that_came_between_the_look_and_the_end_of_its_sender_counts() {
    let mut engine = engine();
    let group = started(&mut engine, spec("web").notify_socket(true));
    let id = member(&engine, group, 0);
    let pid = instance(&engine, id).process.unwrap();
    let text = Report::Status(Some("last words".into()));
    // The process lives when the engine looks, and then sends this and ends.
    engine.kernel.has_ended = false;
    engine.kernel.messages.push_back(message(id, text));
    let record = ExitRecord {
        pid,
        exit: Exit::Code(0),
        usage: None,
    };
    engine.kernel.found.push_back(Collected::Ended(record));
    engine.process_ready(id).unwrap();
    assert_eq!(instance(&engine, id).status_text.as_deref(), Some("last words"));
}

#[test]
fn the_instance_of_a_stop_command_is_unknown_to_the_host() {
    let mut engine = engine();
    let ladder = StopLadder::kill(Scope::Process);
    let ladder = ladder.then_command(0, SECOND, SECOND);
    let web = spec("web").stop_command(Command::new("stop")).stop(ladder);
    let group = engine.add(web).unwrap();
    let hidden = instance(&engine, member(&engine, group, 0)).stopper.unwrap();
    for request in [Request::Start, Request::Kill] {
        let result = engine.request(Target::Instance(hidden), request);
        assert!(matches!(result, Err(Error::UnknownInstance(id)) if id == hidden));
    }
}
