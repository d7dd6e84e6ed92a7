//! Freezing: what can be frozen, and what a frozen process is excused from.

use super::{SECOND, TestEngine, engine, instance, member, pass, policy, spec, started, state};
use crate::cgroup::CgroupDir;
use crate::engine::error::Error;
use crate::engine::ids::{InstanceId, Target};
use crate::engine::request::Request;
use crate::lifecycle::{Failure, Policy, RunTimeout, State, StateName};

#[test]
fn what_is_being_stopped_is_not_frozen() {
    let mut engine = engine();
    let group = started(&mut engine, spec("web").cgroup(CgroupDir::pretended(1)));
    let id = member(&engine, group, 0);
    engine.request(group.into(), Request::Stop).unwrap();
    assert_eq!(state(&engine, id), StateName::Stopping);
    let frozen = engine.freeze(Target::Instance(id), true);
    assert!(matches!(frozen, Err(Error::NotAlive(known)) if known == id));
    let outcome = engine.freeze(Target::Group(group), true).unwrap();
    assert_eq!((outcome.accepted, outcome.already), (0, 1));
    assert_eq!(engine.kernel.frozen, []);
}

/// An engine with a frozen process that has a watchdog and a limit of its run, in seconds.
fn frozen(watchdog: u32, run_timeout: u32) -> (TestEngine, InstanceId) {
    let mut engine = engine();
    let policy = Policy {
        watchdog: Some(SECOND * watchdog),
        run_timeout: Some(RunTimeout::new(SECOND * run_timeout)),
        ..policy()
    };
    let web = spec("web").policy(policy).cgroup(CgroupDir::pretended(1));
    let group = started(&mut engine, web.notify_socket(true));
    engine.freeze(Target::Group(group), true).unwrap();
    let id = member(&engine, group, 0);
    (engine, id)
}

/// Why the process of an instance is being stopped; `None` if it is not.
fn failure(engine: &TestEngine, id: InstanceId) -> Option<Failure> {
    match instance(engine, id).life.state() {
        State::Stopping(stopping) => stopping.failed.map(|failed| failed.failure),
        _ => None,
    }
}

#[test]
fn a_frozen_process_is_excused_from_its_watchdog_and_not_from_the_limit_of_its_run() {
    let (mut engine, id) = frozen(2, 5);
    for _ in 0..4 {
        pass(&mut engine, SECOND);
        assert_eq!(state(&engine, id), StateName::Running);
    }
    pass(&mut engine, SECOND);
    assert_eq!(failure(&engine, id), Some(Failure::TimedOut));
}

#[test]
fn a_late_host_does_not_blame_the_watchdog_of_a_frozen_process() {
    let (mut engine, id) = frozen(4, 5);
    pass(&mut engine, SECOND * 6);
    assert_eq!(failure(&engine, id), Some(Failure::TimedOut));
}

#[test]
fn a_report_is_assumed_only_when_one_is_due() {
    let (mut engine, id) = frozen(2, 5);
    let later = |engine: &mut TestEngine, id| {
        engine.kernel.now = engine.kernel.now.saturating_add(SECOND);
        engine.wake();
        engine.is_silent_because_frozen(id)
    };
    assert_eq!((later(&mut engine, id), later(&mut engine, id)), (false, true));
    // The end of the run is due, and no report.
    let (mut engine, id) = frozen(2, 2);
    assert_eq!((later(&mut engine, id), later(&mut engine, id)), (false, false));
}
