//! The commands of a stop ladder, and those before and after a run.

use super::{SECOND, TestEngine, end, engine, instance, member, pass, policy, restarted, spec, started, state};
use crate::command::Command;
use crate::engine::event::Event;
use crate::engine::history::History;
use crate::engine::ids::{GroupId, InstanceId, Target};
use crate::engine::kernel::Collected;
use crate::engine::request::Request;
use crate::engine::spec::GroupSpec;
use crate::exit::{Exit, ExitRecord};
use crate::lifecycle::{
    Input, Lifecycle, Part, Policy, Restart, Scope, Startup, StateName, StopCommandEnd, StopLadder,
};
use crate::signal::Signal;

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

// What the last host had not done when it was killed.

/// Sets the lifecycle of a command to the state that these inputs lead to, and lets its process be gone.
fn set_life(engine: &mut TestEngine, command: InstanceId, inputs: &[Input]) {
    let now = engine.now;
    let instance = engine.instances.get_mut(command).unwrap();
    let policy = Policy::new()
        .restart(Restart::Never)
        .start_retries(0)
        .startup(Startup::Completes { timeout: SECOND });
    instance.life = Lifecycle::new(&policy, 1);
    for &input in inputs {
        instance.life.handle(&policy, input, now);
    }
    instance.process = None;
}

#[test]
fn a_command_that_nothing_waits_for_is_killed_after_a_crash_of_the_host_and_its_instance_stays_until_it_is_gone() {
    let (mut engine, group, id, command) = stopping();
    engine.scale(group, 0).unwrap();
    // The ladder has come to SIGKILL, and the record of the command is older.
    engine.apply_input(id, Input::StopCommandEnded { succeeded: false });
    engine.kernel.signals.clear();
    engine.resume_stop_commands(&[]);
    assert_eq!(engine.kernel.signals, [(command.index(), Signal::KILL)]);
    let exit = Exit::Signal {
        signal: Signal::KILL,
        core: false,
    };
    end(&mut engine, id, exit);
    assert_eq!(state(&engine, id), StateName::Stopped);
    end(&mut engine, command, exit);
    assert!(engine.instances.get(id).is_none());
    assert!(engine.instances.get(command).is_none());
}

#[test]
fn an_end_of_a_command_that_nothing_waits_for_is_not_told_again_after_a_crash_of_the_host() {
    let (mut engine, _, id, command) = stopping();
    engine.apply_input(id, Input::StopCommandEnded { succeeded: false });
    let pid = instance(&engine, command).process.unwrap();
    set_life(
        &mut engine,
        command,
        &[Input::Start, Input::Spawned(pid), Input::Exited(Exit::Code(3))],
    );
    assert_eq!(state(&engine, command), StateName::Fatal);
    assert_eq!(ends(&mut engine), []);
    engine.resume_stop_commands(&[]);
    assert_eq!(ends(&mut engine), []);
    assert_eq!(state(&engine, command), StateName::Stopped);
}

/// An engine with a run that has ended, and the wait for its command that is left.
fn left_to_command() -> (TestEngine, InstanceId, InstanceId) {
    let (mut engine, _, id, command) = stopping();
    end(&mut engine, id, Exit::Code(3));
    assert!(instance(&engine, id).life.state().is_left_to_command());
    (engine, id, command)
}

#[test]
fn a_command_that_was_not_begun_is_not_begun_after_a_crash_of_the_host_if_its_run_is_over() {
    let (mut engine, id, command) = left_to_command();
    set_life(&mut engine, command, &[]);
    let extra = engine.instances.get_mut(command).unwrap().extra_mut();
    extra.stop_command.as_mut().unwrap().of.run = 0;
    engine.kernel.spawned.clear();
    engine.resume_stop_commands(&[]);
    assert_eq!(engine.kernel.spawned, []);
    assert_eq!(state(&engine, id), StateName::Stopped);
}

#[test]
fn the_end_of_a_run_with_a_command_left_is_noted_after_a_crash_of_the_host() {
    let (mut engine, id, _) = left_to_command();
    let known = instance(&engine, id).history.last_exit();
    assert!(known.is_some());
    // The records contain no exit of a run that is not over.
    engine.instances.get_mut(id).unwrap().history = History::new(1);
    engine.remember_ends();
    let noted = instance(&engine, id).history.last_exit();
    assert_eq!(noted.map(|record| record.exit), known.map(|record| record.exit));
}

/// The last host had reaped the program, and only the exit that it had recorded tells how it ended.
#[test]
fn the_recorded_exit_of_a_run_is_kept_when_its_process_is_found_to_have_ended() {
    let (mut engine, id, _) = left_to_command();
    let record = ExitRecord {
        pid: instance(&engine, id).history.last_exit().unwrap().pid,
        exit: Exit::Unknown,
        usage: None,
    };
    engine.ended_unseen(id, record);
    let noted = instance(&engine, id).history.last_exit();
    assert_eq!(noted.map(|record| record.exit), Some(Exit::Code(3)));
}

#[test]
fn the_command_after_a_run_waits_for_what_hangs_only_if_a_restart_follows() {
    let mut engine = engine();
    let web = spec("web").policy(restarted()).after_run(Command::new("after"), SECOND);
    let group = started(&mut engine, web.instances(2));
    pass(&mut engine, SECOND);
    let [waiting, stopped] = [0, 1].map(|number| member(&engine, group, number));
    engine.kernel.is_saturated = true;
    for id in [waiting, stopped] {
        end(&mut engine, id, Exit::Code(1));
        assert!(engine.awaits_spawn(id));
    }
    engine.kernel.announced.clear();
    engine.request(Target::Instance(stopped), Request::Stop).unwrap();
    assert_eq!(engine.kernel.announced, [(stopped, Part::After, 1)]);
    assert!(engine.awaits_spawn(waiting));
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
