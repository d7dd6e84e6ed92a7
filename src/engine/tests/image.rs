//! Images: what an engine goes on with, and the damage that is found.

use super::{
    SECOND, TestEngine, end, engine, instance, member, nameless, once, pass, policy, restarted, spec, started,
    withdrawn,
};
use crate::cgroup::CgroupDir;
use crate::codec::{Writer, encoded};
use crate::command::Command;
use crate::engine::error::{Error, SpecError};
use crate::engine::ids::{GroupId, InstanceId, Target};
use crate::engine::image::{GroupImage, Image, InstanceImage, NotRestored, Restored};
use crate::engine::kernel::{Collected, Report};
use crate::engine::request::Request;
use crate::engine::spec::GroupSpec;
use crate::exit::Exit;
use crate::group::{Roll, Rolling};
use crate::lifecycle::{Cause, Input, Part, Policy, Scope, State, StopLadder, Strategy};
use crate::notify::NotifyAccess;
use crate::signal::Signal;

/// Groups in all situations that an image is checked for.
struct Busy {
    engine: TestEngine,
    /// Four running instances with a command for their stops. Those with the numbers 2 and 3 leave.
    web: GroupId,
    /// A group that leaves. Another one has its name.
    old: GroupId,
    /// Two running instances with messages that are accepted.
    heard: GroupId,
    /// A group that was never started.
    still: GroupId,
    /// A group in a rolling restart.
    rolled: GroupId,
    /// An instance that waits for the end of its sibling.
    together: GroupId,
}

impl Busy {
    fn new() -> Busy {
        let mut engine = engine();
        let ladder = StopLadder::signal(Signal::TERM, Scope::Process, SECOND).then_command(0, SECOND, SECOND);
        let web = spec("web").stop_command(Command::new("stop")).stop(ladder);
        let web = started(&mut engine, web.instances(4));
        engine.scale(web, 2).unwrap();
        let old = started(&mut engine, spec("old"));
        engine.remove(old).unwrap();
        engine.add(spec("old")).unwrap();
        let heard = started(&mut engine, spec("heard").notify_socket(true).instances(2));
        let still = engine.add(spec("still").instances(2)).unwrap();
        let rolled = started(&mut engine, spec("rolled").instances(2));
        engine.roll(rolled, Rolling::default()).unwrap();
        let policy = Policy {
            strategy: Strategy::OneForAll,
            ..policy()
        };
        let together = started(&mut engine, spec("together").policy(policy).instances(2));
        let first = member(&engine, together, 0);
        end(&mut engine, first, Exit::Code(1));
        Busy {
            engine,
            web,
            old,
            heard,
            still,
            rolled,
            together,
        }
    }

    /// The image of an instance.
    fn program<'a>(&self, image: &'a mut Image, group: GroupId, number: u32) -> &'a mut InstanceImage {
        at(image, member(&self.engine, group, number))
    }

    /// The id of the stop command of an instance of the first group.
    fn command(&self, number: u32) -> InstanceId {
        let program = member(&self.engine, self.web, number);
        instance(&self.engine, program).stopper.unwrap()
    }
}

fn at(image: &mut Image, id: InstanceId) -> &mut InstanceImage {
    image.instances[id.index() as usize].value.as_mut().unwrap()
}

fn group_at(image: &mut Image, id: GroupId) -> &mut GroupImage {
    image.groups[id.index() as usize].value.as_mut().unwrap()
}

fn restored(image: &Image, specs: Vec<GroupSpec>) -> Result<(TestEngine, Restored), NotRestored> {
    let mut engine = engine();
    let restored = engine.restore_left(image, specs)?;
    Ok((engine, restored))
}

type Damage = fn(&Busy, &mut Image);

/// Each damages one thing, and everything else agrees.
const DAMAGE: [(&str, Damage); 23] = [
    ("an instance of no group", |busy, image| {
        let index = busy.old.index() as usize;
        image.groups[index].clear();
    }),
    ("a number that no instance can have", |busy, image| {
        busy.program(image, busy.old, 0).number = GroupSpec::MOST_INSTANCES;
    }),
    ("two instances with one number", |busy, image| {
        busy.program(image, busy.web, 3).number = 2;
        let command = busy.command(3);
        at(image, command).number = 2;
    }),
    ("a number without an instance", |busy, image| {
        group_at(image, busy.still).target = 3;
    }),
    ("two groups with one name", |busy, image| {
        group_at(image, busy.still).name = "heard".into();
    }),
    ("an impossible policy", |busy, image| {
        group_at(image, busy.still).policy.jitter = u8::MAX;
    }),
    ("a group that leaves, with an instance that stays", |busy, image| {
        group_at(image, busy.old).target = 1;
    }),
    ("a group that leaves, without an instance", |busy, image| {
        let id = member(&busy.engine, busy.old, 0);
        image.instances[id.index() as usize].clear();
    }),
    ("two accepted senders with one process", |busy, image| {
        let State::Running { pid: other, .. } = *busy.program(image, busy.heard, 0).life.state() else {
            panic!("it runs");
        };
        let second = busy.program(image, busy.heard, 1);
        second.process = Some(other);
        if let State::Running { pid, .. } = second.life.state_mut() {
            *pid = other;
        }
    }),
    ("an accepted sender without a process", |busy, image| {
        busy.program(image, busy.still, 0).heard = Some((NotifyAccess::All, 0));
    }),
    ("a process that is missing", |busy, image| {
        busy.program(image, busy.old, 0).process = None;
    }),
    ("a wait for siblings in a state without one", |busy, image| {
        let waiting = busy.program(image, busy.together, 0);
        assert!(waiting.life.is_joint());
        *waiting.life.state_mut() = State::Stopped;
    }),
    ("two commands for one stop", |busy, image| {
        let program = member(&busy.engine, busy.web, 0);
        let second = at(image, busy.command(1));
        second.number = 0;
        second.stop_of.as_mut().unwrap().program = program;
    }),
    ("a command with accepted messages", |busy, image| {
        at(image, busy.command(0)).heard = Some((NotifyAccess::All, 0));
    }),
    ("a command with a request", |busy, image| {
        at(image, busy.command(0)).pending = Some(Request::Start);
    }),
    ("a command of another number", |busy, image| {
        let numbers = [(0, 1), (1, 0)];
        for (number, other) in numbers {
            let program = member(&busy.engine, busy.web, other);
            at(image, busy.command(number)).stop_of.as_mut().unwrap().program = program;
        }
    }),
    ("a command for a command", |busy, image| {
        let command = busy.command(0);
        at(image, command).stop_of.as_mut().unwrap().program = command;
    }),
    (
        "a command with a process that its state does not know",
        |busy, image| {
            let process = busy.program(image, busy.old, 0).process;
            at(image, busy.command(0)).process = process;
        },
    ),
    ("a rolling restart of a group that leaves", |busy, image| {
        let member = member(&busy.engine, busy.old, 0);
        group_at(image, busy.old).roll = Some((Roll::new(Rolling::default(), [member], Vec::new()), 0));
    }),
    ("a rolling restart to a number that no group can have", |busy, image| {
        let roll = group_at(image, busy.rolled).roll.as_mut().unwrap();
        roll.1 = GroupSpec::MOST_INSTANCES + 1;
    }),
    ("a rolling restart of no instance at a time", |busy, image| {
        let none = Rolling::default().max_unavailable(0);
        let member = member(&busy.engine, busy.rolled, 0);
        group_at(image, busy.rolled).roll = Some((Roll::new(none, [member], Vec::new()), 2));
    }),
    ("a rolling restart of another group's instance", |busy, image| {
        let member = member(&busy.engine, busy.still, 0);
        let roll = Roll::new(Rolling::default(), [member], Vec::new());
        group_at(image, busy.rolled).roll = Some((roll, 2));
    }),
    ("a rolling restart of a command", |busy, image| {
        let roll = Roll::new(Rolling::default(), [busy.command(0)], Vec::new());
        group_at(image, busy.web).roll = Some((roll, 2));
    }),
];

#[test]
fn an_image_with_one_thing_damaged_is_refused() {
    let busy = Busy::new();
    let image = busy.engine.image();
    assert!(restored(&image, Vec::new()).is_ok());
    let accepted = DAMAGE.iter().filter(|(_, damage)| {
        let mut image = image.clone();
        damage(&busy, &mut image);
        !matches!(restored(&image, Vec::new()), Err(NotRestored::Damaged))
    });
    let accepted: Vec<_> = accepted.map(|(what, _)| *what).collect();
    assert_eq!(accepted, [""; 0]);
}

/// Adds two spawns and two requests that wait, those of the higher numbers first.
fn queue(engine: &mut TestEngine) {
    let again = started(engine, spec("again").policy(restarted()).instances(2));
    let late = engine.add(spec("late").instances(3)).unwrap();
    engine.kernel.now = engine.kernel.now.saturating_add(SECOND * 2);
    engine.wake();
    engine.kernel.is_saturated = true;
    for number in [1, 0] {
        let id = member(engine, again, number);
        end(engine, id, Exit::Code(0));
    }
    for number in [2, 1] {
        let id = member(engine, late, number);
        engine.request(Target::Instance(id), Request::Start).unwrap();
    }
}

#[test]
fn a_restored_engine_is_in_the_same_situation() {
    let Busy { mut engine, heard, .. } = Busy::new();
    let reporting = member(&engine, heard, 0);
    engine.apply_report(reporting, Report::WatchdogEvery(SECOND * 9));
    let heard = Target::Group(heard);
    engine.reload_program(heard, Signal::HUP, Some(SECOND)).unwrap();
    let frozen = started(&mut engine, spec("frozen").cgroup(CgroupDir::pretended(1)));
    engine.freeze(Target::Group(frozen), true).unwrap();
    queue(&mut engine);
    let image = engine.image();
    let is_any = |is: fn(&InstanceImage) -> bool| {
        let mut known = image.instances.iter().filter_map(|place| place.value.as_ref());
        known.any(|known| is(known))
    };
    assert!(is_any(|known| known.watchdog.is_some()) && is_any(|known| known.reload.is_some()));
    assert!(is_any(|known| known.is_frozen));
    let lengths = (image.waiting.len(), image.spawns.len());
    assert!(lengths >= (2, 2));

    let (restored, _) = restored(&image, Vec::new()).unwrap();
    assert!(encoded(&restored.image()) == encoded(&image));
    // Nothing stale is in the queues.
    assert_eq!((restored.waiting.len(), restored.spawns.len()), lengths);
    assert!(engine.unspawned >= 2);
    assert_eq!((restored.alive, restored.unspawned), (engine.alive, engine.unspawned));
    let mut written = Vec::new();
    restored.put_image(&mut Writer::new(&mut written));
    assert!(written == encoded(&image));
}

#[test]
fn a_request_that_waits_for_another_group_is_in_no_queue() {
    let mut engine = engine();
    engine.kernel.is_slow = true;
    started(&mut engine, spec("database"));
    let web = started(&mut engine, spec("web").after("database"));
    engine.kernel.is_saturated = true;
    let other = started(&mut engine, spec("other"));
    let image = engine.image();
    let queued = [member(&engine, other, 0)];
    assert!(instance(&engine, member(&engine, web, 0)).awaits_order);
    assert_eq!(image.waiting, queued);
    // What has no place in the queue although it waits gets one.
    let lost = Image {
        waiting: [].into(),
        spawns: [].into(),
        ..image
    };
    let (restored, _) = restored(&lost, Vec::new()).unwrap();
    assert_eq!(restored.waiting.len(), queued.len());
    assert_eq!(restored.waiting[0].index(), queued[0].index());
}

#[test]
fn an_instance_beyond_the_described_number_has_its_own_program_until_it_leaves() {
    let each = |instances| {
        let web = GroupSpec::with("web", |number| Command::new(format!("web{number}")));
        web.policy(policy()).instances(instances)
    };
    let mut before = engine();
    before.add(each(2)).unwrap();
    let (mut engine, _) = restored(&before.image(), vec![each(1)]).unwrap();
    engine.request(Target::All, Request::Start).unwrap();
    let programs = engine.kernel.spawned.iter().map(|(_, program)| program.as_str());
    assert_eq!(programs.collect::<Vec<_>>(), ["web0", "web1"]);
}

#[test]
fn a_group_that_has_its_number_of_instances_is_left_alone() {
    let mut before = engine();
    let group = started(&mut before, spec("web").instances(2));
    before.scale(group, 1).unwrap();
    let leaving = member(&before, group, 1);
    before
        .instances
        .get_mut(leaving)
        .unwrap()
        .set_because(Some(Cause::RequirementStopped));
    let (mut engine, restored) = restored(&before.image(), vec![spec("web")]).unwrap();
    engine.follow_descriptions(&restored);
    let leaving = engine.instances.id_at(leaving.index()).unwrap();
    assert_eq!(instance(&engine, leaving).because, Some(Cause::RequirementStopped));
}

#[test]
fn groups_that_are_not_described_are_stopped_in_order() {
    let mut before = engine();
    let database = started(&mut before, spec("database"));
    let web = started(&mut before, spec("web").after("database"));
    let [database, web] = [database, web].map(|group| member(&before, group, 0).index());
    let (mut engine, restored) = restored(&before.image(), Vec::new()).unwrap();
    engine.follow_descriptions(&restored);
    assert_eq!(engine.kernel.signals.first(), Some(&(web, Signal::TERM)));
    assert!(engine.kernel.signals.iter().all(|&(slot, _)| slot != database));
}

#[test]
fn descriptions_that_contradict_each_other_are_refused() {
    let mut before = engine();
    for _ in 0..2 {
        before.add(nameless()).unwrap();
    }
    before.add(spec("web")).unwrap();
    let image = before.image();
    let within = |directory| nameless().cgroup(CgroupDir::pretended(directory));
    assert!(restored(&image, vec![within(1), within(2)]).is_ok());
    assert!(restored(&image, vec![nameless(), nameless()]).is_ok());
    let refused = |specs| match restored(&image, specs) {
        Err(NotRestored::Error(Error::Spec(error))) => Some(error),
        _ => None,
    };
    assert!(matches!(
        refused(vec![within(1), within(1)]),
        Some(SpecError::CgroupTaken(_))
    ));
    assert!(matches!(refused(vec![spec("web"), spec("web")]), Some(SpecError::NameTaken(name)) if name == "web"));
    assert!(matches!(refused(vec![spec("new"), spec("new")]), Some(SpecError::NameTaken(name)) if name == "new"));
}

#[test]
fn a_described_order_replaces_the_old_one_and_no_order_keeps_it() {
    let mut before = engine();
    let [database, cache] = ["database", "cache"].map(|name| before.add(spec(name)).unwrap().index());
    let web = before.add(spec("web").after("cache")).unwrap().index();
    let image = before.image();
    for (described, after, requires) in [
        (spec("web").after("database"), vec![database], vec![]),
        (spec("web").requires("database"), vec![], vec![database]),
        (spec("web"), vec![cache], vec![]),
    ] {
        let (engine, restored) = restored(&image, vec![described, spec("database"), spec("cache")]).unwrap();
        let id = restored.groups[0].0;
        assert_eq!(id.index(), web);
        let status = engine.group_status(id).unwrap();
        let indices = |ids: &[GroupId]| ids.iter().map(|id| id.index()).collect::<Vec<_>>();
        assert_eq!((indices(&status.after), indices(&status.requires)), (after, requires));
    }
}

/// The host was killed after it had removed the group that others require, and before it had recorded that their starts
/// are withdrawn.
#[test]
fn the_starts_that_required_a_removed_group_are_withdrawn_and_no_other_request() {
    let mut before = engine();
    let database = started(&mut before, spec("database"));
    let required = member(&before, database, 0);
    let web = before.add(spec("web").requires("database").instances(3)).unwrap();
    let [waiting, running, resting] = [0, 1, 2].map(|number| member(&before, web, number));
    before.request(Target::Instance(running), Request::Start).unwrap();
    before.kernel.is_saturated = true;
    before.request(Target::Instance(running), Request::Restart).unwrap();
    before.request(Target::Instance(waiting), Request::Start).unwrap();
    let mut image = before.image();
    image.groups[database.index() as usize].clear();
    image.instances[required.index() as usize].clear();

    let (mut engine, _) = restored(&image, Vec::new()).unwrap();
    let [waiting, running, resting] = [waiting, running, resting].map(|id| engine.instances.id_at(id.index()).unwrap());
    assert_eq!(withdrawn(&mut engine), [(waiting, Cause::RequirementRemoved)]);
    let pending = [waiting, running, resting].map(|id| instance(&engine, id).pending);
    assert_eq!(pending, [None, Some(Request::Restart), None]);
}

/// The last host was killed between the stop and the spawn.
#[test]
fn a_spawn_that_belongs_to_a_stop_begins_whatever_hangs() {
    let mut before = engine();
    let web = || spec("web").policy(restarted()).after_run(Command::new("after"), SECOND);
    let group = started(&mut before, web().instances(3));
    pass(&mut before, SECOND);
    before.kernel.is_saturated = true;
    let ids = [0, 1, 2].map(|number| member(&before, group, number));
    for id in ids {
        end(&mut before, id, Exit::Code(1));
        assert!(before.awaits_spawn(id));
    }
    let now = before.now;
    let stopped = before.instances.get_mut(ids[1]).unwrap();
    stopped.life.handle(&restarted(), Input::Stop, now);
    let (mut engine, _) = restored(&before.image(), vec![web().instances(3)]).unwrap();
    engine.kernel.is_saturated = true;
    assert!(engine.may_serve());
    pass(&mut engine, SECOND);
    let spawned: Vec<_> = engine
        .kernel
        .announced
        .iter()
        .map(|&(id, part, _)| (id.index(), part))
        .collect();
    assert_eq!(spawned, [(ids[1].index(), Part::After)]);
    assert!(!engine.may_serve());
}

/// The program that took over wants more instances than the rolling restart had, so its end adds one.
#[test]
fn a_start_that_follows_from_a_withdrawn_one_is_withdrawn_too() {
    let mut before = engine();
    before.kernel.is_slow = true;
    started(&mut before, spec("database").policy(once()));
    let web = started(&mut before, spec("web").requires("database"));
    before.roll(web, Rolling::new().surge(1)).unwrap();
    let specs = vec![
        spec("database").policy(once()),
        spec("web").requires("database").instances(3),
    ];
    let (mut engine, restored) = restored(&before.image(), specs).unwrap();
    engine.follow_descriptions(&restored);
    let [database, web] = [0, 1].map(|place: usize| restored.groups[place].0);
    for number in 0..2 {
        assert!(instance(&engine, member(&engine, web, number)).awaits_order);
    }
    // It has executed its program and failed in one turn.
    let required = member(&engine, database, 0);
    engine.kernel.found.push_back(Collected::Executed { ended: true });
    engine.process_ready(required).unwrap();
    end(&mut engine, required, Exit::Code(1));
    engine.settle(None).unwrap();
    let members = [0, 1, 2].map(|number| member(&engine, web, number));
    assert_eq!(members.map(|id| instance(&engine, id).pending), [None; 3]);
    assert_eq!(withdrawn(&mut engine), members.map(|id| (id, Cause::RequirementFailed)));
}
