//! The commands of a stop ladder, and those before and after a run.

use super::{SECOND, TestEngine, end, engine, instance, member, pass, policy, spec, started, state};
use crate::command::Command;
use crate::engine::event::Event;
use crate::engine::ids::{GroupId, InstanceId};
use crate::engine::kernel::Collected;
use crate::engine::request::Request;
use crate::engine::spec::GroupSpec;
use crate::exit::{Exit, ExitRecord};
use crate::lifecycle::{
    Input, Lifecycle, Part, Policy, Restart, Scope, Startup, StateName, StopCommandEnd, StopLadder,
};

/// A group with a stop that begins with a command.
fn with_command() -> GroupSpec {
    let ladder = StopLadder::kill(Scope::Process).then_command(0, SECOND * 5, SECOND);
    let policy = Policy {
        restart: Restart::Always,
        ..policy()
    };
    let web = spec("web").policy(policy).stop(ladder);
    web.stop_command(Command::new("stop"))
}

/// An engine with a run that is being stopped by a command: its group, its instance, and that of the command.
fn stopping() -> (TestEngine, GroupId, InstanceId, InstanceId) {
    let mut engine = engine();
    let group = started(&mut engine, with_command());
    let id = member(&engine, group, 0);
    pass(&mut engine, SECOND * 2);
    end(&mut engine, id, Exit::Code(0));
    pass(&mut engine, SECOND * 2);
    assert_eq!(state(&engine, id), StateName::Running);
    engine.request(group.into(), Request::Stop).unwrap();
    let command = instance(&engine, id).stopper.unwrap();
    assert!(instance(&engine, command).process.is_some());
    (engine, group, id, command)
}

/// How the commands have ended.
fn ends(engine: &mut TestEngine) -> Vec<StopCommandEnd> {
    let events = std::iter::from_fn(|| engine.events.fetch().0);
    let ends = events.filter_map(|event| match event {
        Event::StopCommandEnded { end, .. } => Some(end),
        _ => None,
    });
    ends.collect()
}

#[test]
fn a_command_is_announced_as_that_of_the_run_that_it_stops() {
    let (engine, _, id, _) = stopping();
    let program = |run| (id, Part::Program, run);
    assert_eq!(engine.kernel.announced, [program(1), program(2), (id, Part::Stop, 2)]);
}

#[test]
fn a_command_that_exits_with_another_code_than_0_has_failed() {
    for (exit, expected) in [
        (Exit::Code(0), StopCommandEnd::Succeeded),
        (Exit::Code(3), StopCommandEnd::Failed(Exit::Code(3))),
    ] {
        let (mut engine, _, _, command) = stopping();
        end(&mut engine, command, exit);
        assert_eq!(ends(&mut engine), [expected]);
    }
}

#[test]
fn a_reload_leaves_a_command_the_time_that_it_has() {
    let (mut engine, group, _, command) = stopping();
    engine.reload(group, with_command()).unwrap();
    pass(&mut engine, SECOND * 4);
    assert_eq!(engine.kernel.signals, []);
    pass(&mut engine, SECOND);
    let killed = engine.kernel.signals.iter().map(|&(slot, _)| slot);
    assert_eq!(killed.collect::<Vec<_>>(), [command.index()]);
}

/// The last host was killed when it had decided the spawn of the command and had not begun it.
#[test]
fn a_command_that_waits_for_its_spawn_is_withdrawn_when_its_program_ends() {
    let (before, _, id, command) = stopping();
    let mut image = before.image();
    let waiting = image.instances[command.index() as usize].value.as_mut().unwrap();
    let policy = Policy::new().startup(Startup::Completes { timeout: SECOND });
    waiting.life = Lifecycle::new(&policy, 1);
    waiting.life.handle(&policy, Input::Start, before.now);
    waiting.process = None;
    let mut engine = engine();
    engine.kernel.now = before.now;
    engine.restore_left(&image, vec![with_command()]).unwrap();
    let [id, command] = [id, command].map(|id| engine.instances.id_at(id.index()).unwrap());
    assert!(engine.awaits_spawn(command));
    end(&mut engine, id, Exit::Code(0));
    assert_eq!(state(&engine, id), StateName::Stopped);
    pass(&mut engine, SECOND);
    assert_eq!(engine.kernel.spawned, []);
}

/// A pending stop withdraws a spawn that waits. The command after a run is no such spawn.
#[test]
fn the_command_after_a_run_does_not_wait_for_a_pending_stop() {
    let mut engine = engine();
    let database = spec("database").after_run(Command::new("after"), SECOND);
    let database = started(&mut engine, database);
    let web = started(&mut engine, spec("web").after("database"));
    pass(&mut engine, SECOND * 2);
    let [database, web] = [database, web].map(|group| member(&engine, group, 0));
    engine.request(web.into(), Request::Stop).unwrap();
    engine.request(database.into(), Request::Stop).unwrap();
    assert_eq!(instance(&engine, database).pending, Some(Request::Stop));
    let pid = instance(&engine, database).process.unwrap();
    let exit = Exit::Code(0);
    let record = ExitRecord { pid, exit, usage: None };
    engine.kernel.found.push_back(Collected::Ended(record));
    engine.process_ready(database).unwrap();
    assert_eq!(engine.kernel.announced.last(), Some(&(database, Part::After, 1)));
}
