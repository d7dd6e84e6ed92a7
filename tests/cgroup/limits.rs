//! The limits of the cgroup of each run: they are in force from the start, and a reload changes them in place.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use pidherd::cgroup::{CgroupDir, CgroupError, IoMax, Limits};
use pidherd::group::Effect;
use pidherd::lifecycle::StateName::{Exited, Running, Stopped};
use pidherd::supervisor::SpecError;
use pidherd::{Command, Error, Event, GroupSpec, Supervisor};

use crate::common::cgroups::run_in;
use crate::common::lease::Lease;
use crate::common::{SOON, TestCgroup, isolated, tempdir, wait_until};
use crate::host::{Host, at_once, sh, sleeper};
use crate::{delegated, with_controllers};

const MIB: u64 = 1 << 20;

fn group(script: &str, dir: &CgroupDir, limits: Limits) -> GroupSpec {
    GroupSpec::new("a", sh(script))
        .policy(at_once())
        .cgroup(dir.clone())
        .limits(limits)
}

/// The content of a file of the cgroup of the first instance.
fn content(cgroup: &TestCgroup, file: &str) -> String {
    let path = cgroup.path().join("a-0").join(file);
    let content = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    content.trim_end().to_owned()
}

fn refusal(supervisor: &mut Supervisor, spec: GroupSpec) -> CgroupError {
    match supervisor.add(spec).unwrap_err() {
        Error::Spec(SpecError::Cgroup(error)) => error,
        other => panic!("{other}"),
    }
}

fn cgroups_in(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).unwrap().flatten();
    entries.filter(|entry| entry.path().is_dir()).count()
}

fn all_limits() -> Limits {
    let ms = Duration::from_millis;
    Limits::new()
        .memory_max(64 * MIB)
        .memory_high(48 * MIB)
        .memory_oom_group(true)
        .cpu_max(ms(20), ms(50))
        .cpu_weight(7)
        .pids_max(12)
}

const ALL: &[&str] = &["memory", "cpu", "pids"];

#[test]
fn limits_are_in_force_when_the_program_starts_and_their_controllers_are_enabled() {
    with_controllers(ALL, |cgroup, dir| {
        let enabled = || fs::read_to_string(cgroup.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(enabled().trim(), "");
        let mut host = Host::new();
        // The first act of the program is to read a limit of its own.
        let script = format!(
            "read limit <{}/a-0/pids.max; echo $limit; read go; exit 0",
            cgroup.path().display()
        );
        let id = host.add(group(&script, &dir, all_limits())).1[0];
        let mut names: Vec<_> = enabled().split_whitespace().map(str::to_owned).collect();
        names.sort();
        assert_eq!(names, ["cpu", "memory", "pids"]);
        for _ in 0..2 {
            host.start_these(id);
            host.until_state(id, Running);
            assert_eq!(host.line(id), "12");
            for (file, value) in [
                ("memory.max", "67108864"),
                ("memory.high", "50331648"),
                ("memory.oom.group", "1"),
                ("cpu.max", "20000 50000"),
                ("cpu.weight", "7"),
                ("pids.max", "12"),
            ] {
                assert_eq!(content(cgroup, file), value, "{file}");
            }
            host.go_on(id);
            host.until_state(id, Exited);
        }
    });
}

#[test]
fn a_reload_changes_limits_in_place_and_resets_what_it_drops() {
    with_controllers(ALL, |cgroup, dir| {
        let mut host = Host::new();
        let spec = |limits| group("echo up; read go; exit 0", &dir, limits);
        let (id, ids) = host.add(spec(all_limits()));
        host.start_these(id);
        host.until_state(ids[0], Running);
        assert_eq!(host.line(ids[0]), "up");
        let pid = host.pid(ids[0]);
        let other = Limits::new().memory_max(32 * MIB).pids_max(9).cpu_weight(7);
        let plan = host.supervisor.plan_reload(id, &spec(other.clone())).unwrap();
        assert_eq!(plan.instances, [(0, Effect::InPlace)]);
        assert_eq!(content(cgroup, "pids.max"), "12", "a plan changes nothing");
        assert_eq!(host.supervisor.reload(id, spec(other.clone())).unwrap(), plan);
        let expected = |rows: &[(&str, &str)]| {
            for (file, value) in rows {
                assert_eq!(content(cgroup, file), *value, "{file}");
            }
        };
        expected(&[
            ("memory.max", "33554432"),
            ("memory.high", "max"),
            ("memory.oom.group", "0"),
            ("cpu.max", "max 100000"),
            ("cpu.weight", "7"),
            ("pids.max", "9"),
        ]);
        assert!(host.supervisor.plan_reload(id, &spec(other)).unwrap().is_empty());
        host.supervisor.reload(id, spec(Limits::new())).unwrap();
        expected(&[("memory.max", "max"), ("cpu.weight", "100"), ("pids.max", "max")]);
        assert_eq!((host.pid(ids[0]), host.status(ids[0]).runs), (pid, 1));
        // A limit of memory that is lowered below what is in use is in force too.
        host.supervisor.reload(id, spec(Limits::new().pids_max(1))).unwrap();
        expected(&[("pids.max", "1")]);
        assert!(
            !host
                .events
                .iter()
                .any(|event| matches!(event, Event::LimitFailed { .. }))
        );
        host.go_on(ids[0]);
        host.until_state(ids[0], Exited);
    });
}

#[test]
fn a_reload_that_the_kernel_refuses_for_a_living_run_is_an_event() {
    isolated(|| {
        let Some((cgroup, dir)) = delegated() else { return };
        let mut host = Host::new();
        let deep = |depth: &str| Limits::new().file("cgroup.max.depth", depth);
        let (id, ids) = host.add(group("read go; exit 0", &dir, deep("4")));
        host.start_these(id);
        host.until_state(ids[0], Running);
        // A file is mounted over the one of this run, and it cannot be written.
        let own = cgroup.path().join("a-0");
        let path = own.join("cgroup.max.depth");
        let target = CString::new(path.as_os_str().as_bytes()).unwrap();
        let (none, source) = (std::ptr::null(), c"/proc/version".as_ptr());
        // SAFETY: the arguments are valid strings, and a bind mount has no data.
        if unsafe { libc::mount(source, target.as_ptr(), none, libc::MS_BIND, none.cast()) } != 0 {
            host.supervisor.kill(ids[0]).unwrap();
            return crate::common::skipped("nothing can be mounted here");
        }
        host.supervisor
            .reload(id, group("read go; exit 0", &dir, deep("5")))
            .unwrap();
        host.take_events();
        // SAFETY: the path is a valid string.
        assert_eq!(unsafe { libc::umount(target.as_ptr()) }, 0);
        let failed = host.events.iter().find_map(|event| match event {
            Event::LimitFailed {
                instance, file, errno, ..
            } => Some((*instance, file.clone(), *errno)),
            _ => None,
        });
        let (instance, file, errno) = failed.expect("an event");
        assert_eq!((instance, file.as_str()), (ids[0], "cgroup.max.depth"));
        assert_ne!(errno, 0);
        assert_eq!(
            (content(&cgroup, "cgroup.max.depth"), host.status(ids[0]).runs),
            ("4".into(), 1)
        );
        host.go_on(ids[0]);
        host.until_state(ids[0], Exited);
    });
}

/// A child in flight shares the memory of the host, which the kernel would kill with it.
#[test]
fn a_child_in_flight_gets_new_limits_when_it_has_executed_its_program() {
    isolated(|| {
        if cfg!(pidherd_portable) {
            return crate::common::skipped("the portable path waits for execve");
        }
        let Some((cgroup, dir)) = delegated().filter(|_| Lease::is_possible()) else {
            return;
        };
        let place = tempdir();
        let program = place.join("hanging");
        fs::copy("/bin/sleep", &program).unwrap();
        let lease = Lease::try_take(&program).unwrap();
        let mut host = Host::with(Supervisor::builder().spawns_in_flight(32).build().unwrap());
        let spec = |depth: &str| {
            GroupSpec::new("a", Command::new(&program).arg("1000"))
                .policy(at_once())
                .cgroup(dir.clone())
                .limits(Limits::new().file("cgroup.max.depth", depth))
        };
        let (id, ids) = host.add(spec("4"));
        host.supervisor.start(id).unwrap();
        Lease::wait_for(host.pid(ids[0]));
        let plan = host.supervisor.reload(id, spec("5")).unwrap();
        assert_eq!(plan.instances, [(0, Effect::InPlace)]);
        assert!(host.is_in_flight(ids[0]));
        assert_eq!(content(&cgroup, "cgroup.max.depth"), "4");
        lease.end();
        host.until_state(ids[0], Running);
        assert_eq!(
            (content(&cgroup, "cgroup.max.depth"), host.status(ids[0]).runs),
            ("5".into(), 1)
        );
        host.supervisor.kill(ids[0]).unwrap();
        host.until_state(ids[0], Stopped);
    });
}

#[test]
fn a_file_without_a_known_default_is_dropped_by_a_restart() {
    isolated(|| {
        let Some((cgroup, dir)) = delegated() else { return };
        if !cgroup.path().join("cgroup.pressure").exists() {
            return crate::common::skipped("the kernel has no cgroup.pressure");
        }
        let mut host = Host::new();
        let spec = |limits| group("read go; exit 0", &dir, limits);
        let (id, ids) = host.add(spec(Limits::new().file("cgroup.pressure", "0")));
        host.start_these(id);
        host.until_state(ids[0], Running);
        let plan = host.supervisor.reload(id, spec(Limits::new())).unwrap();
        assert_eq!(plan.instances, [(0, Effect::Restart)]);
        host.until("it runs again", |host| {
            host.status(ids[0]).runs == 2 && host.state(ids[0]) == Running
        });
        assert_eq!(content(&cgroup, "cgroup.pressure"), "1");
        host.go_on(ids[0]);
        host.until_state(ids[0], Exited);
    });
}

#[test]
fn a_value_out_of_range_is_refused_before_anything_happens() {
    isolated(|| {
        let Some((cgroup, dir)) = delegated() else { return };
        let mut supervisor = Supervisor::new().unwrap();
        for limits in [
            Limits::new().cpu_weight(10_001),
            Limits::new().memory_max(MIB).pids_max(0),
            Limits::new().cpu_max(Duration::from_micros(10), Duration::from_millis(100)),
        ] {
            let error = refusal(&mut supervisor, group("exit", &dir, limits));
            assert!(matches!(error, CgroupError::OutOfRange { .. }), "{error}");
        }
        let error = refusal(
            &mut supervisor,
            group("exit", &dir, Limits::new().file("../a/memory.max", "1")),
        );
        assert!(matches!(error, CgroupError::FileName { .. }), "{error}");
        let error = refusal(
            &mut supervisor,
            group("exit", &dir, Limits::new().file("cgroup.procs", "1")),
        );
        assert!(matches!(error, CgroupError::FileName { .. }), "{error}");
        let without = GroupSpec::new("a", sh("exit")).limits(Limits::new().pids_max(5));
        assert!(matches!(
            supervisor.add(without).unwrap_err(),
            Error::Spec(SpecError::CgroupFile(file)) if file == "pids.max"
        ));
        assert_eq!((supervisor.groups().count(), cgroups_in(cgroup.path())), (0, 0));
    });
}

#[test]
fn a_controller_that_is_not_delegated_is_refused() {
    isolated(|| {
        let Some((cgroup, _)) = delegated() else { return };
        let inner = cgroup.path().join("inner");
        fs::create_dir(&inner).unwrap();
        // The cgroup above has no controllers for it.
        let dir = CgroupDir::open(&inner).unwrap();
        let mut supervisor = Supervisor::new().unwrap();
        for (limits, name) in [
            (Limits::new().memory_max(MIB), "memory"),
            (Limits::new().pids_max(3), "pids"),
            (Limits::new().cpu_weight(3), "cpu"),
            (Limits::new().io_max(8, 0, IoMax::new()), "io"),
            (Limits::new().cpuset_cpus([0]), "cpuset"),
        ] {
            let error = refusal(&mut supervisor, group("exit", &dir, limits));
            let expected = CgroupError::NoController {
                path: inner.clone(),
                controller: name.into(),
            };
            assert_eq!(error, expected);
        }
        assert_eq!((supervisor.groups().count(), cgroups_in(&inner)), (0, 0));
        fs::remove_dir(&inner).unwrap();
    });
}

#[test]
fn a_controller_cannot_be_enabled_beside_a_process_in_the_directory() {
    with_controllers(&["pids", "memory"], |cgroup, dir| {
        let mut child = run_in(cgroup.path(), "exec sleep 1000");
        wait_until("it is in the cgroup", SOON, || cgroup.is_populated());
        let mut supervisor = Supervisor::new().unwrap();
        let error = refusal(
            &mut supervisor,
            group("exit", &dir, Limits::new().memory_max(MIB).pids_max(5)),
        );
        assert_eq!(error.errno(), libc::EBUSY, "{error}");
        assert!(matches!(error, CgroupError::CannotEnable { .. }), "{error}");
        child.kill().unwrap();
        child.wait().unwrap();
        let enabled = fs::read_to_string(cgroup.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(enabled.trim(), "");
    });
}

#[test]
fn a_limit_that_the_kernel_refuses_is_refused_at_add_and_at_reload() {
    with_controllers(&["pids"], |cgroup, dir| {
        let mut host = Host::new();
        let wrong = || Limits::new().file("pids.max", "many");
        let error = refusal(&mut host.supervisor, group("exit", &dir, wrong()));
        assert!(
            matches!(&error, CgroupError::File { value, .. } if value == "many"),
            "{error}"
        );
        assert_eq!(cgroups_in(cgroup.path()), 0);
        let (id, ids) = host.add(group("read go; exit 0", &dir, Limits::new().pids_max(4)));
        host.start_these(id);
        host.until_state(ids[0], Running);
        let error = host
            .supervisor
            .reload(id, group("read go; exit 0", &dir, wrong()))
            .unwrap_err();
        assert!(
            matches!(error, Error::Spec(SpecError::Cgroup(CgroupError::File { .. }))),
            "{error}"
        );
        assert_eq!((content(cgroup, "pids.max"), host.status(ids[0]).runs), ("4".into(), 1));
        host.go_on(ids[0]);
        host.until_state(ids[0], Exited);
    });
}

#[test]
fn a_device_is_limited_and_one_that_does_not_exist_is_refused() {
    with_controllers(&["io"], |cgroup, dir| {
        let mut supervisor = Supervisor::new().unwrap();
        let rates = IoMax::new().read_bytes(1_000_000);
        let error = refusal(
            &mut supervisor,
            group("exit", &dir, Limits::new().io_max(4_000, 4_000, rates)),
        );
        match &error {
            CgroupError::NoFile { .. } => return crate::common::skipped("the kernel has no io.max"),
            CgroupError::File { .. } => assert_eq!(error.errno(), libc::ENODEV, "{error}"),
            other => panic!("{other}"),
        }
        assert_eq!(cgroups_in(cgroup.path()), 0);
    });
}

#[test]
fn the_usage_of_a_living_run_is_known() {
    with_controllers(&["memory", "pids", "cpu"], |_, dir| {
        let mut host = Host::new();
        // A kernel may count the use of a processor in ticks, which can be 10 ms long.
        let script = "n=0; while [ $n -lt 50000 ]; do n=$((n+1)); done; echo up; read go; exit 0";
        let id = host.add(group(script, &dir, all_limits())).1[0];
        assert_eq!(host.supervisor.usage(id), None);
        host.start_these(id);
        host.until_state(id, Running);
        assert_eq!(host.line(id), "up");
        let usage = host.supervisor.usage(id).expect("it is alive");
        assert!(
            usage.memory_current.unwrap() > 0 && usage.cpu.unwrap() > Duration::ZERO,
            "{usage:?}"
        );
        assert_eq!(
            (usage.pids_current, usage.oom_kills, usage.pids_refused),
            (Some(1), Some(0), Some(0))
        );
        if crate::host::kernel_since(6, 1) {
            assert!(
                usage.memory_peak >= usage.memory_current && usage.pids_peak == Some(1),
                "{usage:?}"
            );
        }
        host.go_on(id);
        host.until_state(id, Exited);
        assert_eq!(host.supervisor.usage(id), None);
        let run = host.supervisor.runs(id).last().unwrap();
        let last = run.cgroup.unwrap();
        assert!(last.cpu >= usage.cpu && last.pids_current == Some(0), "{last:?}");
    });
}

#[test]
fn the_usage_without_a_cgroup_is_unknown() {
    isolated(|| {
        let mut host = Host::new();
        let id = host.start(sleeper(), at_once());
        host.until_state(id, Running);
        assert_eq!(host.supervisor.usage(id), None);
        host.supervisor.kill(id).unwrap();
        host.until_state(id, Stopped);
    });
}

#[test]
fn the_limits_of_a_cgroup_without_a_supervisor() {
    with_controllers(&["pids", "memory"], |cgroup, dir| {
        let limits = Limits::new().pids_max(3).memory_max(MIB);
        dir.enable_controllers(&limits).unwrap();
        let leaf = dir.make("a-0").unwrap();
        leaf.set_limits(&limits).unwrap();
        assert_eq!(content(cgroup, "pids.max"), "3");
        assert_eq!(content(cgroup, "memory.max"), MIB.to_string());
        let error = leaf.set_limits(&Limits::new().cpu_weight(0)).unwrap_err();
        assert!(matches!(error, CgroupError::OutOfRange { .. }), "{error}");
        let error = leaf.set_limits(&Limits::new().cpu_weight(5)).unwrap_err();
        assert!(matches!(error, CgroupError::NoController { .. }), "{error}");
        leaf.remove().unwrap();
    });
}
