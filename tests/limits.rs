//! Limits in the cgroup of each run, and the resources that a run used.

mod common;
mod host;

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::fork::in_fork;
use common::{TestCgroup, cgroup_root, isolated, skipped, test_cgroup};
use host::{Host, at_once, for_ever, sh};
use pidherd::cgroup::{CgroupDir, CgroupError};
use pidherd::group::Effect;
use pidherd::lifecycle::StateName::{Exited, Fatal, Running};
use pidherd::lifecycle::{Scope, StopLadder};
use pidherd::supervisor::SpecError;
use pidherd::{Command, Error, GroupSpec, Launcher, Signal, SpawnProgress, SpawnStep, Spawner, Supervisor};

fn in_cgroup(body: impl FnOnce(&TestCgroup, CgroupDir)) {
    isolated(|| {
        let Some(cgroup) = test_cgroup() else { return };
        let directory = CgroupDir::open(cgroup.path()).unwrap();
        body(&cgroup, directory);
    });
}

/// Does the same as `in_cgroup`, with these controllers enabled in the directory.
fn with_controllers(controllers: &[&str], body: impl FnOnce(&TestCgroup, CgroupDir)) {
    in_cgroup(|cgroup, directory| {
        for controller in controllers {
            let enable = |place: &Path| fs::write(place.join("cgroup.subtree_control"), format!("+{controller}"));
            if cgroup_root()
                .map(|root| enable(&root))
                .is_none_or(|enabled| enabled.is_err())
                || enable(cgroup.path()).is_err()
            {
                return skipped(&format!("cgroup v2 has no {controller} controller here"));
            }
        }
        body(cgroup, directory);
    });
}

/// A group of instances that print the content of a file of their own cgroup, line by line, and wait.
fn shows(file: &str, directory: &CgroupDir) -> GroupSpec {
    let script = format!(
        "echo \"$(cat \"{}$(sed -n 's/^0:://p' /proc/self/cgroup)/{file}\")\"; read never",
        cgroup_root().unwrap().display()
    );
    let policy = at_once().stop(StopLadder::kill(Scope::Cgroup));
    GroupSpec::new("a", sh(&script))
        .policy(policy)
        .cgroup(directory.clone())
}

fn refusal(supervisor: &mut Supervisor, spec: GroupSpec) -> SpecError {
    match supervisor.add(spec).unwrap_err() {
        Error::Spec(error) => error,
        other => panic!("{other}"),
    }
}

fn entries(directory: &TestCgroup) -> usize {
    let entries = fs::read_dir(directory.path()).unwrap().flatten();
    entries.filter(|entry| entry.path().is_dir()).count()
}

#[test]
fn a_limit_is_in_force_before_the_program_starts_in_every_run() {
    in_cgroup(|_, directory| {
        let mut host = Host::new();
        let spec = shows("cgroup.max.descendants", &directory);
        let spec = spec
            .cgroup_file("cgroup.max.depth", "7")
            .cgroup_file("cgroup.max.descendants", "5");
        let id = host.add(spec.cgroup_file("cgroup.max.descendants", "3\n")).1[0];
        for _ in 0..3 {
            host.supervisor.restart(id).unwrap();
            host.until_state(id, Running);
            assert_eq!(host.line(id), "3", "the last one counts");
        }
        host.shut_down();
    });
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_when_the_group_is_added() {
    in_cgroup(|cgroup, directory| {
        let mut supervisor = Supervisor::new().unwrap();
        let mut refused = |name: &str, value: &str| {
            let spec = shows("cgroup.max.depth", &directory).cgroup_file("cgroup.max.depth", "9");
            let error = refusal(&mut supervisor, spec.cgroup_file(name, value));
            assert_eq!((supervisor.groups().count(), entries(cgroup)), (0, 0), "{error}");
            match error {
                SpecError::Cgroup(error) => error,
                other => panic!("{other}"),
            }
        };
        let error = refused("cgroup.max.dept", "1");
        assert!(
            matches!(&error, CgroupError::NoFile { path } if path.ends_with("cgroup.max.dept")),
            "{error}"
        );
        let error = refused("cgroup.max.descendants", "many");
        assert_eq!(error.errno(), libc::EINVAL);
        assert!(error.to_string().contains(r#"cannot write "many" to "#), "{error}");
        assert!(
            error
                .to_string()
                .ends_with("cgroup.max.descendants\": Invalid argument"),
            "{error}"
        );
        // An empty list of files needs no cgroup.
        assert!(matches!(
            refused("cgroup.max.descendants", ""),
            CgroupError::File { .. }
        ));
        assert!(
            matches!(refused("cgroup.stat", "1"), CgroupError::File { .. }),
            "it can be read only"
        );
        let error = refused("rdma.max", "mlx4_0 hca_handle=2");
        assert!(
            matches!(&error, CgroupError::NoController { controller, .. } if controller == "rdma"),
            "{error}"
        );
        for name in [
            "cgroup.procs",
            "cgroup.kill",
            "cgroup.freeze",
            "cgroup.subtree_control",
            "../x",
            "",
        ] {
            assert!(matches!(refused(name, "1"), CgroupError::FileName { .. }), "{name}");
        }
        let without = GroupSpec::new("a", sh("exit")).cgroup_file("memory.max", "1G");
        assert_eq!(
            refusal(&mut supervisor, without),
            SpecError::CgroupFile("memory.max".into())
        );
    });
}

#[test]
fn a_reload_with_other_limits_changes_them_in_place_and_one_that_is_refused_changes_nothing() {
    in_cgroup(|cgroup, directory| {
        let mut host = Host::new();
        let spec = |value: &str| shows("cgroup.max.depth", &directory).cgroup_file("cgroup.max.depth", value);
        let (group, ids) = host.add(spec("4"));
        host.start_these(group);
        host.until_state(ids[0], Running);
        assert_eq!(host.line(ids[0]), "4");
        assert!(
            host.supervisor
                .plan_reload(group, &spec("4"))
                .unwrap()
                .instances
                .is_empty()
        );
        let error = host.supervisor.reload(group, spec("deep")).unwrap_err();
        assert!(
            matches!(error, Error::Spec(SpecError::Cgroup(CgroupError::File { .. }))),
            "{error}"
        );
        assert_eq!((host.status(ids[0]).runs, entries(cgroup)), (1, 1));
        let plan = host.supervisor.reload(group, spec("6")).unwrap();
        assert_eq!(plan.instances, [(0, Effect::InPlace)]);
        let depth = || fs::read_to_string(cgroup.path().join("a-0/cgroup.max.depth")).unwrap();
        assert_eq!((depth().as_str(), host.status(ids[0]).runs), ("6\n", 1));
        // What is dropped gets the default.
        let plan = host
            .supervisor
            .reload(group, shows("cgroup.max.depth", &directory))
            .unwrap();
        assert_eq!(plan.instances, [(0, Effect::InPlace)]);
        assert_eq!((depth().as_str(), host.status(ids[0]).runs), ("max\n", 1));
        host.supervisor.reload(group, spec("6")).unwrap();
        host.supervisor.restart(ids[0]).unwrap();
        host.until("it runs again", |host| {
            host.status(ids[0]).runs == 2 && host.state(ids[0]) == Running
        });
        assert_eq!(host.line(ids[0]), "6");
        // Instances that a scale adds have the limits too.
        host.supervisor.scale(group, 2).unwrap();
        let other = host.supervisor.group(group).unwrap().instances[1];
        host.until_state(other, Running);
        assert_eq!(host.line(other), "6");
        host.shut_down();
    });
}

#[test]
fn what_a_run_used_is_read_before_its_cgroup_goes() {
    in_cgroup(|cgroup, directory| {
        for scope in [Scope::Process, Scope::Cgroup] {
            let mut host = Host::new();
            // Most of the time is used by a child that its parent does not wait for.
            let busy = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
            let script = format!("(setsid sh -c '{busy}; echo done; sleep 1000' &); read go; exit 0");
            let policy = at_once().stop(StopLadder::kill(scope));
            let id = host
                .add(
                    GroupSpec::new("a", sh(&script))
                        .policy(policy)
                        .cgroup(directory.clone()),
                )
                .1[0];
            host.start_these(id);
            host.until_state(id, Running);
            assert_eq!(host.line(id), "done");
            host.go_on(id);
            host.until_state(id, Exited);
            let run = host.supervisor.runs(id).last().unwrap();
            let used = run.cgroup.expect("it had a cgroup");
            let cpu = used.cpu.unwrap();
            assert!(
                cpu > Duration::from_millis(5) && used.cpu_user.unwrap() <= cpu,
                "{used:?}"
            );
            let alone = run.exit.unwrap().usage.unwrap();
            assert!(cpu > alone.user + alone.system, "the child counts: {used:?}, {alone:?}");
            host.until("its cgroup is removed", |_| !cgroup.path().join("a-0").exists());
        }
        let mut host = Host::new();
        let id = host.start(sh("exit 0"), at_once());
        host.until_state(id, Exited);
        assert_eq!(host.supervisor.runs(id).last().unwrap().cgroup, None);
    });
}

#[test]
fn a_memory_limit_kills_and_the_peak_is_known() {
    with_controllers(&["memory", "pids"], |_, directory| {
        const LIMIT: u64 = 32 << 20;
        let mut host = Host::new();
        let spec = |script: &str| {
            let spec = GroupSpec::new("a", sh(script))
                .policy(at_once())
                .cgroup(directory.clone());
            let spec = spec
                .cgroup_file("memory.max", LIMIT.to_string())
                .cgroup_file("pids.max", "20");
            // Where there is swap, the process would be swapped out instead of killed.
            match Path::new("/proc/swaps").metadata() {
                Ok(_) if fs::read_to_string("/proc/swaps").unwrap().lines().count() > 1 => {
                    spec.cgroup_file("memory.swap.max", "0")
                }
                _ => spec,
            }
        };
        let (group, ids) = host.add(spec("head -c 100000000 /dev/zero | tail -c 100000000 | wc -c; exit 0"));
        host.start_these(group);
        host.until_state(ids[0], Exited);
        let used = host.supervisor.runs(ids[0]).last().unwrap().cgroup.unwrap();
        if host::kernel_since(5, 19) {
            let peak = used.memory_peak.unwrap();
            assert!(peak > LIMIT / 2 && peak <= LIMIT, "{used:?}");
        }
        let plan = host.supervisor.reload(
            group,
            spec("exec sh -c 'a=$(head -c 100000000 /dev/zero | tr \"\\0\" x)'"),
        );
        assert_eq!(plan.unwrap().instances, [(0, Effect::Restart)]);
        host.start_these(group);
        host.until("it was killed", |host| {
            host.status(ids[0]).runs == 2 && host.state(ids[0]) == Exited
        });
        let killed = host.status(ids[0]).last_exit.unwrap().exit;
        assert_eq!(killed.signal(), Some(Signal::KILL), "{killed}");
        host.shut_down();
    });
}

/// The kernel kills a process that exceeds its limit, together with every process that shares its memory. A child in
/// flight shares the memory of the host until its execve.
/// that of the host.
#[test]
fn a_limit_that_is_too_small_for_execve_does_not_end_the_host() {
    with_controllers(&["memory"], |cgroup, directory| {
        let small = cgroup.path().join("small");
        let below = small.join("below");
        fs::create_dir(&small).unwrap();
        fs::write(small.join("memory.max"), "65536").unwrap();
        let _absent = fs::write(small.join("memory.swap.max"), "0");
        fs::write(small.join("cgroup.subtree_control"), "+memory").unwrap();
        fs::create_dir(&below).unwrap();
        for place in [&small, &below] {
            let place = Arc::new(OwnedFd::from(File::open(place).unwrap()));
            let large = (0..12).fold(Command::new("/bin/true"), |command, _| command.arg("x".repeat(100_000)));
            let program = large.cgroup(place).compile().unwrap();
            assert!(in_fork(|| {
                // The host is larger than everything else that the kernel could kill there.
                let _ballast = std::hint::black_box(vec![1u8; 30 << 20]);
                let mut spawner = Spawner::new().unwrap();
                let starts = match spawner.begin(&program) {
                    Ok(spawning) => matches!(spawner.finish(spawning), SpawnProgress::Running(_)),
                    Err(_) => false,
                };
                let launched = Launcher::new().unwrap().begin(&program).is_ok();
                println!("a child in {}: {starts}, {launched}", cgroup.path().display());
            }));
        }
        fs::remove_dir(&below).unwrap();
        fs::remove_dir(&small).unwrap();
        drop(directory);
    });
}

#[test]
fn a_limit_that_can_no_longer_be_written_is_a_failed_start() {
    with_controllers(&["pids"], |cgroup, directory| {
        let mut host = Host::new();
        let policy = for_ever().start_retries(0);
        let spec = shows("pids.max", &directory)
            .policy(policy)
            .cgroup_file("pids.max", "10");
        let id = host.add(spec).1[0];
        fs::write(cgroup.path().join("cgroup.subtree_control"), "-pids").unwrap();
        host.start_these(id);
        host.until_state(id, Fatal);
        let error = host.status(id).last_error.unwrap();
        assert_eq!((error.step(), entries(cgroup)), (SpawnStep::Cgroup, 0), "{error}");
        fs::write(cgroup.path().join("cgroup.subtree_control"), "+pids").unwrap();
        host.start_these(id);
        host.until_state(id, Running);
        assert_eq!(host.line(id), "10");
        host.supervisor.kill(id).unwrap();
        host.shut_down();
    });
}
