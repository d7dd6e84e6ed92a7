//! The record of an instance, which tells the next host about it if this one is killed.

use std::sync::Arc;
use std::time::Duration;

use super::{SECOND, TestEngine, end, engine, instance, member, pass, policy, spec, started, state};
use crate::cgroup::CgroupDir;
use crate::codec::{Reader, Writer};
use crate::engine::context::{CgroupPath, SpawnContext};
use crate::engine::ids::{InstanceId, Target};
use crate::engine::record::Record;
use crate::engine::request::Request;
use crate::exit::Exit;
use crate::lifecycle::{CrashBudget, Delay, Input, Policy, StateName};

fn written(engine: &TestEngine, id: InstanceId) -> Vec<u8> {
    let mut record = Vec::new();
    instance(engine, id).put_record(&mut Writer::new(&mut record));
    record
}

/// A policy under which a process is started again after a second.
fn patient() -> Policy {
    Policy {
        restart_delay: Delay::Fixed(SECOND),
        ..policy()
    }
}

/// The name of the cgroup in the record of an instance.
fn cgroup(engine: &TestEngine, id: InstanceId) -> Option<String> {
    let record = written(engine, id);
    let record = Record::get(&mut Reader::new(&record, 0)).unwrap();
    record.cgroup.map(|(_, name)| name)
}

#[test]
fn a_record_is_not_longer_than_its_room() {
    const CRASHES: u16 = 100;
    let policy = Policy {
        crash_budget: Some(CrashBudget::new(CRASHES + 1, SECOND * 1_000_000)),
        restart_delay: Delay::Fixed(Duration::ZERO),
        ..policy()
    };
    for (length, crashes) in [(0, 0), (3_000, 0), (0, CRASHES), (3_000, CRASHES)] {
        let mut engine = engine();
        let web = spec("web").policy(policy.clone()).cgroup(CgroupDir::pretended(1));
        let web = engine.add(web).unwrap();
        let id = member(&engine, web, 0);
        let held = engine.instances.get_mut(id).unwrap();
        let cgroup = (length > 0).then(|| CgroupPath {
            dir: CgroupDir::pretended(1),
            name: "x".repeat(length),
        });
        let context = SpawnContext {
            cgroup: cgroup.map(Arc::new),
            ..SpawnContext::clone(&held.context)
        };
        held.context = Arc::new(context);
        engine.request(Target::Instance(id), Request::Start).unwrap();
        for _ in 0..crashes {
            end(&mut engine, id, Exit::Code(1));
            pass(&mut engine, SECOND);
        }
        assert_eq!(state(&engine, id), StateName::Running);
        let length = written(&engine, id).len();
        let room = instance(&engine, id).longest_record(&policy);
        assert!(length <= room, "{length} bytes in room for {room}");
    }
}

#[test]
fn a_record_names_the_cgroup_of_the_process_that_is_there_or_about_to_be() {
    let mut engine = engine();
    let web = spec("web").policy(patient()).cgroup(CgroupDir::pretended(1));
    let group = engine.add(web).unwrap();
    let id = member(&engine, group, 0);
    assert_eq!(cgroup(&engine, id), None);
    engine.request(group.into(), Request::Start).unwrap();
    let named = cgroup(&engine, id);
    assert!(named.is_some());
    end(&mut engine, id, Exit::Code(1));
    assert_eq!((state(&engine, id), cgroup(&engine, id)), (StateName::Backoff, None));
    engine.kernel.is_saturated = true;
    pass(&mut engine, SECOND * 2);
    assert!(engine.awaits_spawn(id));
    assert_eq!(cgroup(&engine, id), named);
}

#[test]
fn a_spawn_that_a_killed_host_had_not_withdrawn_is_withdrawn() {
    let mut engine = engine();
    let group = started(&mut engine, spec("web").policy(patient()).instances(2));
    pass(&mut engine, SECOND * 2);
    let [unwanted, wanted] = [0, 1].map(|number| member(&engine, group, number));
    for id in [unwanted, wanted] {
        end(&mut engine, id, Exit::Code(1));
    }
    engine.kernel.is_saturated = true;
    pass(&mut engine, SECOND * 2);
    let now = engine.now;
    let life = &mut engine.instances.get_mut(unwanted).unwrap().life;
    // The record of the stop is there, and nothing has followed from it.
    life.handle(&patient(), Input::Stop, now);
    engine.withdraw_again();
    assert_eq!(state(&engine, unwanted), StateName::Stopped);
    assert!(engine.awaits_spawn(wanted));
}
