//! Tests of single decisions, in situations that are rare: the simulation (`proof`) meets them seldom or cannot tell them
//! apart.

mod by_hand;
mod cgroups;
mod core;
mod image;
mod kernel;
mod order;
mod record;
mod recovery;
mod reports;
mod requests;
mod room;
mod siblings;
mod stop_command;
mod turn;

use std::time::Duration;

use super::core::Engine;
use super::event::{Event, Events};
use super::ids::{GroupId, InstanceId};
use super::instance::Instance;
use super::kernel::Collected;
use super::request::Request;
use super::spec::GroupSpec;
use crate::command::Command;
use crate::exit::{Exit, ExitRecord};
use crate::lifecycle::{Cause, Policy, Restart, Startup, StateName};
use kernel::TestKernel;

const SECOND: Duration = Duration::from_secs(1);

type TestEngine = Engine<TestKernel>;

fn engine() -> TestEngine {
    Engine::new(TestKernel::new(), Events::new(64), 1)
}

/// A policy under which a process is started again at once.
fn restarted() -> Policy {
    Policy {
        restart: Restart::Always,
        ..policy()
    }
}

/// A policy under which a process that has ended is not started again.
fn once() -> Policy {
    Policy {
        restart: Restart::Never,
        ..policy()
    }
}

/// A policy under which a process is running as soon as it has executed its program.
fn policy() -> Policy {
    Policy {
        startup: Startup::Grace(Duration::ZERO),
        ..Policy::default()
    }
}

fn spec(name: &str) -> GroupSpec {
    GroupSpec::new(name, Command::new(name)).policy(policy())
}

/// A group without a name, as any number of groups can be.
fn nameless() -> GroupSpec {
    GroupSpec {
        name: "".into(),
        ..spec("program")
    }
}

/// Adds a group and starts it.
fn started(engine: &mut TestEngine, spec: GroupSpec) -> GroupId {
    let group = engine.add(spec).unwrap();
    engine.request(group.into(), Request::Start).unwrap();
    group
}

/// The instance of a group with this number.
fn member(engine: &TestEngine, group: GroupId, number: u32) -> InstanceId {
    engine.groups.get(group).unwrap().roster.get(number).unwrap()
}

fn instance(engine: &TestEngine, id: InstanceId) -> &Instance {
    engine.instances.get(id).unwrap()
}

fn state(engine: &TestEngine, id: InstanceId) -> StateName {
    instance(engine, id).life.state().name()
}

/// The process of an instance ends, and the engine handles that.
fn end(engine: &mut TestEngine, id: InstanceId, exit: Exit) {
    end_unnoticed(engine, id, exit);
    engine.process_ready(id).unwrap();
}

/// The process of an instance ends, and the next look at a process finds that.
fn end_unnoticed(engine: &mut TestEngine, id: InstanceId, exit: Exit) {
    let pid = instance(engine, id).process.unwrap();
    let record = ExitRecord { pid, exit, usage: None };
    engine.kernel.found.push_back(Collected::Ended(record));
}

/// Time passes, and the host calls.
fn pass(engine: &mut TestEngine, time: Duration) {
    engine.kernel.now = engine.kernel.now.saturating_add(time);
    engine.wake();
    engine.dispatch().unwrap();
    engine.settle(None).unwrap();
}

/// The events that nothing has fetched.
fn events(engine: &mut TestEngine) -> impl Iterator<Item = Event> + '_ {
    std::iter::from_fn(|| engine.events.fetch().0)
}

/// The starts that were withdrawn, and why.
fn withdrawn(engine: &mut TestEngine) -> Vec<(InstanceId, Cause)> {
    let withdrawn = events(engine).filter_map(|event| match event {
        Event::StartWithdrawn { instance, cause, .. } => Some((instance, cause)),
        _ => None,
    });
    withdrawn.collect()
}
