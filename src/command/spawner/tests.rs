use std::fs::File;

use super::super::Command;
use super::*;
use crate::testing::common::refuse::{answering, refusing};
use crate::testing::common::skipped;

fn program(is_bound: bool, may_gain_privileges: bool) -> Program {
    let mut program = Command::new("/bin/true").compile().unwrap();
    let compiled = Arc::make_mut(&mut program.0);
    (compiled.is_bound, compiled.may_gain_privileges) = (is_bound, may_gain_privileges);
    program
}

#[test]
fn only_a_refusal_at_a_step_with_close_range_is_learned_and_only_once() {
    let program = program(false, false);
    for (step, errno, is_learned) in [
        (SpawnStep::CloseDescriptors, libc::ENOSYS, true),
        (SpawnStep::CloseDescriptors, libc::EPERM, true),
        (SpawnStep::Unshare, libc::EINVAL, true),
        (SpawnStep::Unshare, libc::ENOMEM, false),
        (SpawnStep::Exec, libc::EPERM, false),
    ] {
        let mut spawner = Spawner::new().unwrap();
        spawner.close_range = true;
        let error = program.parent_error(step, errno);
        assert_eq!(spawner.learn(&error), is_learned, "{error}");
        assert_eq!(spawner.close_range, !is_learned, "{error}");
        spawner.close_range = false;
        assert!(!spawner.learn(&error), "{error}");
    }
}

#[test]
fn the_error_of_a_clone_names_the_cgroup_only_if_it_can_be_at_fault() {
    let directory = File::open("/").unwrap();
    let directory = Some(directory.as_fd());
    for (is_bound, cgroup, errno, step) in [
        (false, directory, libc::EPERM, SpawnStep::Cgroup),
        (false, directory, libc::EAGAIN, SpawnStep::Clone),
        (false, None, libc::EPERM, SpawnStep::Clone),
        (true, directory, libc::EBUSY, SpawnStep::Cgroup),
        (true, directory, libc::EPERM, SpawnStep::Clone),
    ] {
        let error = clone_error(&program(is_bound, false).0, cgroup, errno);
        assert_eq!((error.step(), error.errno()), (step, errno), "{is_bound} {cgroup:?}");
    }
}

/// A kernel before 7.1 refuses the second attempt too, and by another errno.
#[test]
fn a_child_is_bound_without_privileges_only_if_it_needs_none_and_is_never_made_unbound() {
    if cfg!(pidherd_portable) {
        return skipped("only clone3(2) binds children");
    }
    for (is_unprivileged, may_gain_privileges, is_tried_again) in
        [(false, false, true), (true, false, false), (false, true, false)]
    {
        let program = program(true, may_gain_privileges);
        let errno = answering(libc::SYS_clone3, [Some(libc::EPERM)], || {
            let mut spawner = Spawner::new().unwrap();
            spawner.binds_unprivileged = is_unprivileged;
            let spawned = spawner.spawn(&program);
            spawned
                .map(|mut child| drop(child.wait()))
                .err()
                .map(|error| error.errno())
        });
        assert_eq!(
            errno != Some(libc::EPERM),
            is_tried_again,
            "{is_unprivileged} {may_gain_privileges}"
        );
    }
    for errno in [libc::ENOSYS, libc::EPERM] {
        refusing(libc::SYS_clone3, errno, || {
            let error = Spawner::new().unwrap().spawn(&program(true, false)).unwrap_err();
            assert_eq!((error.step(), error.errno()), (SpawnStep::Clone, errno));
        });
    }
}
