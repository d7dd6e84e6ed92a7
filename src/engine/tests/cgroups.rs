//! The names of cgroups, the limits of runs, and their usage.

use super::{SECOND, end, engine, instance, member, nameless, pass, spec, started};
use crate::cgroup::{CgroupDir, CgroupUsage, Limits};
use crate::engine::context::CgroupPath;
use crate::engine::error::{Error, SpecError};
use crate::engine::kernel::Collected;
use crate::engine::request::Request;
use crate::engine::spec::GroupSpec;
use crate::exit::Exit;

fn is_taken<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Spec(SpecError::CgroupTaken(_))))
}

/// A group in a directory for cgroups.
fn within(directory: u64, name: &str) -> GroupSpec {
    spec(name).cgroup(CgroupDir::pretended(directory))
}

#[test]
fn groups_of_one_name_have_cgroups_in_different_directories() {
    let mut engine = engine();
    let nameless = |directory| nameless().cgroup(CgroupDir::pretended(directory));
    engine.add(nameless(1)).unwrap();
    assert!(is_taken(&engine.add(nameless(1))));
    engine.add(nameless(2)).unwrap();
    // A group that is being removed keeps its cgroups until its processes have ended.
    let old = started(&mut engine, within(1, "old"));
    let id = member(&engine, old, 0);
    engine.remove(old).unwrap();
    assert!(is_taken(&engine.add(within(1, "old"))));
    end(&mut engine, id, Exit::Code(0));
    engine.add(within(1, "old")).unwrap();
}

#[test]
fn usage_is_that_of_a_process() {
    let mut engine = engine();
    let group = started(&mut engine, within(1, "web"));
    let id = member(&engine, group, 0);
    let usage = CgroupUsage {
        pids_current: Some(3),
        ..CgroupUsage::default()
    };
    engine.kernel.usage = Some(usage);
    assert_eq!(engine.usage(id).and_then(|usage| usage.pids_current), Some(3));
    engine.request(group.into(), Request::Stop).unwrap();
    end(&mut engine, id, Exit::Code(0));
    assert!(engine.usage(id).is_none());
}

/// Limits with the default of the kernel for all that is not named.
fn limits(processes: u32) -> Limits {
    Limits::new().pids_max(processes)
}

#[test]
fn a_reload_changes_the_limits_of_a_run_and_of_one_in_flight_after_its_execution() {
    let mut engine = engine();
    let web = |processes| within(1, "web").limits(limits(processes));
    let group = started(&mut engine, web(5));
    let id = member(&engine, group, 0);
    let slot = id.index();
    engine.reload(group, web(6)).unwrap();
    assert_eq!(engine.kernel.written, [(slot, "pids.max=6".to_owned())]);
    engine.reload(group, web(6)).unwrap();
    assert_eq!(engine.kernel.written.len(), 1);

    engine.kernel.is_slow = true;
    end(&mut engine, id, Exit::Code(1));
    pass(&mut engine, SECOND * 2);
    assert!(instance(&engine, id).life.state().is_in_flight());
    engine.reload(group, web(7)).unwrap();
    assert_eq!(engine.kernel.written.len(), 1);
    engine.kernel.found.push_back(Collected::Executed { ended: false });
    engine.process_ready(id).unwrap();
    assert_eq!(engine.kernel.written.last(), Some(&(slot, "pids.max=7".to_owned())));
}

#[test]
fn the_effect_of_new_limits_is_that_on_the_limits_that_a_run_has() {
    let mut engine = engine();
    engine.kernel.is_slow = true;
    let web = |processes| within(1, "web").limits(limits(processes));
    let group = started(&mut engine, web(5));
    engine.reload(group, web(6)).unwrap();
    // The run has still the first ones, since it is in flight.
    assert!(engine.plan(group, &web(5)).unwrap().is_empty());
    assert!(!engine.plan(group, &web(6)).unwrap().is_empty());
}

#[test]
fn a_reload_changes_the_limits_of_a_run_that_another_host_has_begun() {
    let mut before = engine();
    let web = |processes| within(1, "web").limits(limits(processes));
    started(&mut before, web(5));
    let mut engine = engine();
    engine.restore_left(&before.image(), vec![web(5)]).unwrap();
    let id = engine.ids().next().unwrap();
    let path = CgroupPath::new(&CgroupDir::pretended(1), "web", 0);
    // As the kernel's side of a hand-over gives it.
    engine.instances.get_mut(id).unwrap().set_run_cgroup(Some(path.into()));
    let group = instance(&engine, id).group;
    engine.reload(group, web(6)).unwrap();
    assert_eq!(engine.kernel.written, [(id.index(), "pids.max=6".to_owned())]);
}
