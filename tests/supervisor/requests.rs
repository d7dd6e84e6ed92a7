//! Whatever a host asks for that cannot be: a typed error, and nothing has happened.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pidherd::fdset::Token;
use pidherd::lifecycle::{CrashBudget, Policy, PolicyError, Scope, StateName, StopLadder};
use pidherd::supervisor::{FdChange, Progress, SpecError};
use pidherd::{
    Command, CommandError, Error, GroupId, GroupSpec, InstanceId, Signal, SpawnStep, Stdio, Supervisor, Target,
};

use super::common::{SOON, isolated, root_or_skip, tempdir, wait_gone};
use super::host::{Host, LONG, at_once, ms, sh, sleeper, term};

fn spec(command: Command) -> GroupSpec {
    GroupSpec::new("x", command)
}

/// Every description that cannot be, and what is wrong with it.
fn wrong() -> Vec<(GroupSpec, SpecError)> {
    let commands = wrong_commands().into_iter().map(|(command, error)| {
        let number = 0;
        (spec(command), SpecError::Command { number, error })
    });
    let policies = wrong_policies()
        .into_iter()
        .map(|(policy, error)| (spec(sleeper()).policy(policy), error.into()));
    commands.chain(policies).chain(wrong_groups()).collect()
}

fn wrong_commands() -> Vec<(Command, CommandError)> {
    let nul = |what, text: &str| CommandError::NulByte {
        what,
        text: text.into(),
    };
    let key = |key: &str| CommandError::EnvKey { key: key.into() };
    vec![
        (Command::new(""), CommandError::EmptyProgram),
        (Command::new("a\0b"), nul("program", "a\0b")),
        (sleeper().arg("a\0b"), nul("argument", "a\0b")),
        (sleeper().arg0("a\0b"), nul("argument", "a\0b")),
        (sleeper().current_dir("a\0b"), nul("directory", "a\0b")),
        (sleeper().stdout(Stdio::append("a\0b")), nul("file", "a\0b")),
        (sleeper().env("KEY", "a\0b"), nul("environment", "a\0b")),
        (sleeper().env("a\0b", ""), nul("environment", "a\0b")),
        (sleeper().env("", "x"), key("")),
        (sleeper().env("a=b", "x"), key("a=b")),
    ]
}

fn wrong_policies() -> Vec<(Policy, PolicyError)> {
    let with = |change: &dyn Fn(&mut Policy)| {
        let mut policy = Policy::default();
        change(&mut policy);
        policy
    };
    let budget = |max, window| Some(CrashBudget { max, window });
    let too_narrow = term(Scope::ProcessGroup, ms(1)).kill_scope(Scope::Process);
    let rungs = vec![term(Scope::Process, ms(1)).rungs[0]; 17];
    vec![
        (with(&|policy| policy.jitter = 101), PolicyError::Jitter(101)),
        (
            with(&|policy| policy.crash_budget = budget(1, Duration::ZERO)),
            PolicyError::CrashWindow,
        ),
        (
            with(&|policy| policy.crash_budget = budget(1_001, LONG)),
            PolicyError::CrashBudget(1_001),
        ),
        (
            with(&|policy| policy.stop.rungs = rungs.clone()),
            PolicyError::StopLadder(17),
        ),
        (with(&|policy| policy.stop = too_narrow.clone()), PolicyError::KillScope),
    ]
}

fn wrong_groups() -> Vec<(GroupSpec, SpecError)> {
    let too_many = GroupSpec::MOST_INSTANCES + 1;
    let kill = |scope| Policy::new().stop(StopLadder::kill(scope));
    let each = |make: fn(u32) -> Command| GroupSpec::with("x", make).instances(3);
    vec![
        (
            spec(sleeper()).instances(too_many),
            SpecError::TooManyInstances(too_many),
        ),
        (
            each(|n| Command::new(if n == 2 { "" } else { "/bin/true" })),
            SpecError::Command {
                number: 2,
                error: CommandError::EmptyProgram,
            },
        ),
        // Its first instance would be wrong, whenever it comes.
        (
            GroupSpec::with("x", |_| Command::new("")).instances(0),
            SpecError::Command {
                number: 0,
                error: CommandError::EmptyProgram,
            },
        ),
        (
            spec(sleeper().inherit_process_group()).policy(kill(Scope::ProcessGroup)),
            SpecError::NoProcessGroup { number: 0 },
        ),
        (
            each(|n| match n {
                1 => sleeper().process_group(1),
                _ => sleeper(),
            })
            .policy(kill(Scope::ProcessGroup)),
            SpecError::NoProcessGroup { number: 1 },
        ),
        (spec(sleeper()).policy(kill(Scope::Cgroup)), SpecError::NoCgroup),
    ]
}

/// The error of a call that was refused for its description.
fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> SpecError {
    match result {
        Err(Error::Spec(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// Compares by words where the wording of a subject is the command's own affair.
fn assert_same(found: &SpecError, expected: &SpecError) {
    match (found, expected) {
        (
            SpecError::Command {
                number,
                error: CommandError::NulByte { text, .. },
            },
            SpecError::Command {
                number: wanted,
                error: CommandError::NulByte { text: wanted_text, .. },
            },
        ) => {
            assert_eq!(number, wanted);
            assert!(text.to_string_lossy().contains(&*wanted_text.to_string_lossy()));
        }
        _ => assert_eq!(found, expected),
    }
    assert!(!found.to_string().is_empty());
}

#[test]
fn a_group_that_cannot_be_is_refused_and_nothing_has_happened() {
    isolated(|| {
        let mut host = Host::new();
        for (spec, expected) in wrong() {
            assert_same(&refused(host.supervisor.add(spec)), &expected);
        }
        assert_eq!(host.supervisor.groups().count(), 0);
        assert_eq!(host.supervisor.instances().count(), 0);
        host.nothing_for(Duration::ZERO);
        assert_eq!(host.story(), "");
    });
}

#[test]
fn a_reload_that_cannot_be_leaves_everything_as_it_was() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(spec(sleeper()).instances(2).policy(at_once()));
        host.start_these(group);
        let pids: Vec<u32> = ids.iter().map(|&id| host.pid(id)).collect();
        host.take_events();
        let told = host.events.len();
        for (spec, expected) in wrong() {
            assert_same(&refused(host.supervisor.reload(group, spec)), &expected);
        }
        assert_eq!(
            refused(host.supervisor.scale(group, 100_001)),
            SpecError::TooManyInstances(100_001)
        );
        host.nothing_for(Duration::ZERO);
        assert_eq!(host.events.len(), told, "{}", host.story());
        assert_eq!(ids.iter().map(|&id| host.pid(id)).collect::<Vec<_>>(), pids);
        let unchanged = host
            .supervisor
            .plan_reload(group, &spec(sleeper()).instances(2).policy(at_once()));
        assert!(unchanged.unwrap().is_empty());
    });
}

#[test]
fn a_command_that_is_wrong_only_for_a_new_number_is_refused_before_scaling() {
    isolated(|| {
        let mut host = Host::new();
        let odd = GroupSpec::with("x", |n| Command::new(if n < 2 { "/bin/true" } else { "" })).instances(2);
        let (group, ids) = host.add(odd);
        let error = refused(host.supervisor.scale(group, 4));
        let expected = SpecError::Command {
            number: 2,
            error: CommandError::EmptyProgram,
        };
        assert_eq!(error, expected);
        let status = host.supervisor.group(group).unwrap();
        assert_eq!((status.target, status.instances), (2, ids));
    });
}

/// That every call refuses these ids by name, and changes nothing.
fn assert_unknown(supervisor: &mut Supervisor, group: GroupId, instance: InstanceId) {
    let unknown = |target: Target, result: Result<(), Error>| match (target, result) {
        (Target::Group(id), Err(Error::UnknownGroup(named))) => assert_eq!(id, named),
        (Target::Instance(id), Err(Error::UnknownInstance(named))) => assert_eq!(id, named),
        other => panic!("{other:?}"),
    };
    for target in [Target::from(group), Target::from(instance)] {
        unknown(target, supervisor.start(target).map(drop));
        unknown(target, supervisor.stop(target).map(drop));
        unknown(target, supervisor.restart(target).map(drop));
        unknown(target, supervisor.kill(target).map(drop));
        unknown(target, supervisor.signal(target, Signal::KILL).map(drop));
    }
    unknown(group.into(), supervisor.scale(group, 1).map(drop));
    unknown(group.into(), supervisor.remove(group).map(drop));
    unknown(group.into(), supervisor.plan_reload(group, &spec(sleeper())).map(drop));
    unknown(group.into(), supervisor.reload(group, spec(sleeper())).map(drop));
    assert!(supervisor.group(group).is_none());
    assert!(supervisor.status(instance).is_none());
    assert!(supervisor.take_pipes(instance).is_none());
}

#[test]
fn ids_of_what_was_removed_are_refused_by_every_call_even_when_their_places_are_taken_again() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(spec(sleeper()).policy(at_once()));
        host.supervisor.start(group).unwrap();
        host.supervisor.remove(group).unwrap();
        host.until("the group is gone", |host| host.supervisor.groups().count() == 0);
        assert_unknown(&mut host.supervisor, group, ids[0]);

        let (successor, successors) = host.add(spec(sleeper()).policy(at_once()));
        host.start_these(successor);
        let told = host.events.len();
        assert_unknown(&mut host.supervisor, group, ids[0]);
        host.nothing_for(Duration::ZERO);
        assert_eq!(host.events.len(), told, "{}", host.story());
        assert_eq!(host.state(successors[0]), StateName::Running);
    });
}

#[test]
fn the_id_of_an_instance_that_was_scaled_away_is_refused() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(spec(sleeper()).instances(2).policy(at_once()));
        host.supervisor.scale(group, 1).unwrap();
        assert!(matches!(
            host.supervisor.start(ids[1]),
            Err(Error::UnknownInstance(id)) if id == ids[1]
        ));
        host.supervisor.scale(group, 2).unwrap();
        assert!(host.supervisor.stop(ids[1]).is_err(), "its successor is another one");
    });
}

#[test]
fn a_number_that_is_not_of_the_set_and_a_call_too_many_are_nothing() {
    isolated(|| {
        let mut host = Host::new();
        let id = host.start(sleeper(), at_once());
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&writer, b"x").unwrap();
        let closed = rustix::io::dup(&reader).unwrap().as_raw_fd();
        let own_epoll = host.supervisor.as_fd().as_raw_fd();
        host.take_events();
        let told = host.events.len();
        for foreign in [
            -1,
            i32::MIN,
            i32::MAX,
            0,
            2,
            reader.as_raw_fd(),
            writer.as_raw_fd(),
            closed,
            own_epoll,
        ] {
            let progress = host.supervisor.process_ready(foreign).unwrap();
            assert_eq!(progress, Progress::Nothing, "{foreign}");
        }
        for raw in [0, 1, u64::MAX, 1 << 32, 7 << 32 | 1] {
            let token = Token::from_raw(raw);
            if host.supervisor.fds().get(token).is_none() {
                assert_eq!(host.supervisor.process_token(token).unwrap(), Progress::Nothing);
            }
        }
        // Nothing of this is ready.
        let entries: Vec<_> = host.supervisor.fds().iter().collect();
        assert_eq!(entries.len(), 2, "the process and the timer");
        for entry in entries {
            assert_eq!(host.supervisor.process_ready(entry.fd).unwrap(), Progress::Nothing);
            assert_eq!(host.supervisor.process_token(entry.token).unwrap(), Progress::Nothing);
        }
        assert_eq!(host.supervisor.dispatch().unwrap(), Progress::Nothing);
        host.take_events();
        assert_eq!(host.events.len(), told, "{}", host.story());
        assert_eq!(host.state(id), StateName::Running);
    });
}

#[test]
fn a_number_that_was_used_again_is_nothing_and_its_new_owner_unharmed() {
    isolated(|| {
        let mut host = Host::new();
        let id = host.start(sleeper(), at_once());
        let timer = |entry: &pidherd::fdset::Entry| Some(entry.fd) == host.supervisor.fds().iter().map(|e| e.fd).min();
        let entry = host.supervisor.fds().iter().find(|entry| !timer(entry)).unwrap();
        host.supervisor.kill(id).unwrap();
        host.until_state(id, StateName::Stopped);
        // The lowest free number is given out first.
        let mut pipes = Vec::new();
        while pipes
            .last()
            .is_none_or(|(reader, _): &(std::os::fd::OwnedFd, _)| reader.as_raw_fd() < entry.fd)
        {
            pipes.push(rustix::pipe::pipe().unwrap());
        }
        let owners = pipes.iter().flat_map(|(reader, writer)| [reader, writer]);
        assert!(owners.into_iter().any(|fd| fd.as_raw_fd() == entry.fd));
        assert_eq!(host.supervisor.process_ready(entry.fd).unwrap(), Progress::Nothing);
        assert_eq!(host.supervisor.process_token(entry.token).unwrap(), Progress::Nothing);

        // And when the new owner is another process of ours, the old name does not mean it.
        drop(pipes);
        let id = host.start(sleeper(), at_once());
        assert!(host.supervisor.fds().token_of(entry.fd).is_some());
        assert!(host.supervisor.fd(entry.token).is_none());
        assert_eq!(host.supervisor.process_token(entry.token).unwrap(), Progress::Nothing);
        assert_eq!(host.state(id), StateName::Running);
    });
}

#[test]
fn a_removed_descriptor_keeps_its_number_until_the_host_has_seen_the_change() {
    isolated(|| {
        let mut host = Host::new();
        let id = host.start(sleeper(), at_once());
        host.supervisor.track_fd_changes(true);
        let mut added = Vec::new();
        while let Some(FdChange::Added { fd, token, .. }) = host.supervisor.next_fd_change() {
            added.push((token, fd.as_raw_fd()));
        }
        assert_eq!(added.len(), 2);
        host.supervisor.kill(id).unwrap();
        host.until_state(id, StateName::Stopped);
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let Some(FdChange::Removed { token, fd }) = host.supervisor.next_fd_change() else {
            panic!("it was removed");
        };
        assert!(added.contains(&(token, fd.as_raw_fd())));
        assert!(reader.as_raw_fd() != fd.as_raw_fd() && writer.as_raw_fd() != fd.as_raw_fd());
        assert!(host.supervisor.next_fd_change().is_none());
    });
}

/// Commands that cannot be started as things are, with step, errno and path.
fn missing_and_forbidden(directory: &Path) -> Vec<(Command, SpawnStep, i32, PathBuf)> {
    let missing = directory.join("missing");
    let file = directory.join("file");
    fs::write(&file, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let log = missing.join("log");
    let below_a_file = file.join("log");
    vec![
        (Command::new(&missing), SpawnStep::Exec, libc::ENOENT, missing.clone()),
        (Command::new(&file), SpawnStep::Exec, libc::EACCES, file.clone()),
        (
            sleeper().current_dir(&missing),
            SpawnStep::CurrentDir,
            libc::ENOENT,
            missing.clone(),
        ),
        (
            sleeper().current_dir(&file),
            SpawnStep::CurrentDir,
            libc::ENOTDIR,
            file.clone(),
        ),
        (
            sleeper().stdout(Stdio::append(&log)),
            SpawnStep::Open,
            libc::ENOENT,
            log.clone(),
        ),
        (
            sleeper().stderr(Stdio::truncate(directory)),
            SpawnStep::Open,
            libc::EISDIR,
            directory.to_owned(),
        ),
        (
            sleeper().stdin(Stdio::read(&below_a_file)),
            SpawnStep::Open,
            libc::ENOTDIR,
            below_a_file,
        ),
    ]
}

/// That starting it fails so, as event and status tell.
fn assert_fails(host: &mut Host, command: Command, step: SpawnStep, errno: i32, path: &Path) {
    let policy = Policy::new().start_retries(0);
    let id = host.start(command, policy);
    assert_eq!(
        host.states(id),
        [StateName::Starting, StateName::Backoff, StateName::Fatal]
    );
    let told = host.steps(id)[1].error.clone().unwrap();
    assert_eq!((told.step(), told.errno(), told.path()), (step, errno, Some(path)));
    assert!(told.to_string().contains(&format!("{path:?}")), "{told}");
    let status = host.status(id);
    assert_eq!(status.last_error, Some(told));
    assert_eq!((status.pid, status.last_exit, status.runs), (None, None, 1));
}

#[test]
fn what_is_missing_or_forbidden_is_told_with_step_path_and_errno() {
    isolated(|| {
        let directory = tempdir();
        let mut host = Host::new();
        for (command, step, errno, path) in missing_and_forbidden(directory.path()) {
            assert_fails(&mut host, command, step, errno, &path);
        }
        host.nothing_for(Duration::ZERO);
        // And a healthy one works afterwards.
        let id = host.start(sleeper(), at_once());
        assert_eq!(host.state(id), StateName::Running);
    });
}

#[test]
fn a_directory_that_the_target_user_may_not_enter_is_told() {
    if !root_or_skip("it starts a process as somebody else") {
        return;
    }
    isolated(|| {
        let directory = tempdir();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let command = sleeper().uid(65534).gid(65534).current_dir(directory.path());
        let mut host = Host::new();
        assert_fails(
            &mut host,
            command,
            SpawnStep::CurrentDir,
            libc::EACCES,
            directory.path(),
        );
    });
}

#[test]
fn a_signal_that_does_not_exist_cannot_be_said() {
    for raw in [i32::MIN, -1, 0, 65, i32::MAX] {
        assert!(Signal::from_raw(raw).is_err());
    }
    for name in ["", "SIG", "FOO", "SIGRTMIN+31", "0", "-1", "65"] {
        assert!(name.parse::<Signal>().is_err(), "{name}");
    }
}

#[test]
fn a_signal_without_a_process_to_go_to_is_an_error_and_for_many_a_count() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(spec(sh("trap 'echo hup' HUP; echo ready; while :; do read x; done")).instances(2));
        assert!(matches!(
            host.supervisor.signal(ids[0], Signal::HUP),
            Err(Error::NotAlive(id)) if id == ids[0]
        ));
        host.start_these(ids[1]);
        assert_eq!(host.line(ids[1]), "ready");
        let outcome = host.supervisor.signal(group, Signal::HUP).unwrap();
        assert_eq!((outcome.accepted, outcome.already, outcome.failed), (1, 1, 0));
        assert_eq!(host.line(ids[1]), "hup");
        assert_eq!(host.supervisor.signal(ids[1], Signal::HUP).unwrap().accepted, 1);
        assert_eq!(host.line(ids[1]), "hup");

        // A zombie takes signals: that it has ended is not known before its descriptor was processed.
        let pid = host.pid(ids[1]);
        host.supervisor.signal(ids[1], Signal::KILL).unwrap();
        assert!(wait_gone(pid, SOON));
        assert_eq!(host.supervisor.signal(ids[1], Signal::HUP).unwrap().accepted, 1);
    });
}

#[test]
fn nothing_is_started_any_more_after_a_shutdown_nor_in_a_group_that_is_leaving() {
    isolated(|| {
        let mut host = Host::new();
        let policy = at_once().stop(term(Scope::Process, LONG));
        let slow = sh("trap 'echo asked; read go; exit 0' TERM; echo ready; read never");
        let (group, ids) = host.add(spec(slow).policy(policy));
        let other = host.start(sleeper(), at_once());
        host.start_these(group);
        assert_eq!(host.line(ids[0]), "ready");

        host.supervisor.remove(group).unwrap();
        assert_eq!(host.line(ids[0]), "asked");
        let leaving = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Leaving(id)) if id == group));
        leaving(host.supervisor.start(group).map(drop));
        leaving(host.supervisor.start(ids[0]).map(drop));
        leaving(host.supervisor.restart(ids[0]).map(drop));
        leaving(host.supervisor.scale(group, 3).map(drop));
        leaving(host.supervisor.reload(group, spec(sleeper())).map(drop));

        host.supervisor.shutdown().unwrap();
        let closed = |result: Result<(), Error>| assert!(matches!(result, Err(Error::ShuttingDown)), "{result:?}");
        closed(host.supervisor.add(spec(sleeper())).map(drop));
        closed(host.supervisor.start(other).map(drop));
        closed(host.supervisor.restart(Target::All).map(drop));
        assert!(!host.supervisor.is_down());
        host.go_on(ids[0]);
        host.until("all is down", |host| host.supervisor.is_down());
        assert_eq!(host.status(other).runs, 1);
    });
}
