//! What belongs to a process, and to a group, is found again.

use super::*;

#[test]
fn a_run_in_a_cgroup_is_found_with_all_that_lives_there() {
    with_hosts(120, |state| {
        ignore_sigchld(false);
        let Some(cgroup) = test_cgroup() else { return };
        ignore_sigchld(true);
        let directory = cgroup.path().to_owned();
        let spec = || {
            let spawning = sh("setsid sleep 1000 & exec sleep 1000").stdout(Stdio::null());
            GroupSpec::new("family", spawning)
                .policy(for_ever())
                .cgroup(CgroupDir::open(&directory).unwrap())
                .stop(term(Scope::Cgroup, LONG))
        };
        // A run gets another name while what the last one has left still dies.
        let inhabitants = || {
            let leaves = fs::read_dir(&directory).unwrap().flatten();
            let texts = leaves.filter_map(|leaf| fs::read_to_string(leaf.path().join("cgroup.procs")).ok());
            let pids = |text: String| {
                text.lines()
                    .map(|line| line.parse::<u32>().unwrap())
                    .collect::<Vec<_>>()
            };
            texts.flat_map(pids).collect::<Vec<_>>()
        };
        let is_frozen = || {
            let leaves = fs::read_dir(&directory).unwrap().flatten();
            let mut texts = leaves.filter_map(|leaf| fs::read_to_string(leaf.path().join("cgroup.freeze")).ok());
            texts.any(|text| text == "1\n")
        };
        let ready = state.with_file_name("ready");
        for round in 0..2 {
            let _none = fs::remove_file(&ready);
            killed_host(
                || {
                    let mut host = host(state, vec![spec()]);
                    host.until_executed();
                    wait_until("both live there", SOON, || inhabitants().len() == 2);
                    let id = named(&host, "family:0");
                    host.supervisor.freeze(id).unwrap();
                    assert!(is_frozen(), "in round {round}");
                    host.supervisor.thaw(id).unwrap();
                    tell(&ready, &host.pid(id).to_string());
                    stay(host);
                },
                || drop(told(&ready)),
            );
            let leader: u32 = told(&ready).parse().unwrap();
            if round == 1 {
                // The leader ends while no host is there, and leaves the other one.
                let raw = rustix::process::Pid::from_raw(leader as i32).unwrap();
                rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
                assert!(wait_gone(leader, SOON));
            }
        }
        let before = inhabitants();
        let mut host = host(state, vec![spec()]);
        let id = named(&host, "family:0");
        host.until("it was restarted", |host| {
            host.status(id).runs == 2 && host.state(id) == Running
        });
        wait_until("two others live there", SOON, || {
            let now = inhabitants();
            now.len() == 2 && before.iter().all(|pid| !now.contains(pid))
        });
        host.shut_down();
        let has_leaves = || {
            fs::read_dir(&directory)
                .unwrap()
                .flatten()
                .any(|entry| entry.path().is_dir())
        };
        wait_until("the cgroups are removed", SOON, || !has_leaves());
    });
}

#[test]
fn a_spawn_in_flight_is_found_and_its_execve_is_seen() {
    with_hosts(120, |state| {
        if !Lease::is_possible() {
            return;
        }
        let program = state.with_file_name("program");
        fs::copy("/bin/sleep", &program).unwrap();
        let groups = || vec![GroupSpec::new("a", Command::new(&program).arg("1000")).grace(ms(10))];
        let pid = state.with_file_name("pid");
        // The lease is this process's own, so the execve hangs beyond the end of the host.
        let lease = Lease::try_take(&program).unwrap();
        killed_host(
            || {
                let host = host(state, groups());
                tell(&pid, &host.pid(named(&host, "a:0")).to_string());
                stay(host);
            },
            || {
                Lease::wait_for(told(&pid).parse().unwrap());
            },
        );
        let mut host = host(state, groups());
        let id = named(&host, "a:0");
        assert_eq!(host.pid(id).to_string(), told(&pid));
        for _ in 0..5 {
            host.turn(ms(20));
        }
        assert!(host.is_in_flight(id));
        lease.end();
        host.until_state(id, Running);
        assert_eq!(host.status(id).runs, 1);
        host.shut_down();
    });
}

#[test]
fn the_notify_socket_has_its_address_again() {
    with_hosts(120, |state| {
        let policy = at_once().startup(Startup::Notify { timeout: LONG });
        let groups = || {
            let spec = GroupSpec::new("a", sleeper()).policy(policy.clone());
            vec![spec.notify_socket(true)]
        };
        let ready = state.with_file_name("ready");
        let address = |pid: u32| {
            let mut found = None;
            // The environment is there a moment after the execve.
            wait_until("it has an environment", SOON, || {
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
                let mut entries = environment.split(|&byte| byte == 0);
                let entry = entries.find(|entry| entry.starts_with(b"NOTIFY_SOCKET="));
                found = entry.map(<[u8]>::to_vec);
                found.is_some()
            });
            found
        };
        killed_host(
            || {
                let mut host = host(state, groups());
                host.until_executed();
                tell(&ready, &host.pid(named(&host, "a:0")).to_string());
                stay(host);
            },
            || drop(told(&ready)),
        );
        let mut host = host(state, groups());
        let id = named(&host, "a:0");
        let old = address(host.pid(id));
        assert_eq!(host.state(id), Starting);
        host.supervisor.restart(id).unwrap();
        host.until("it was restarted", |host| host.status(id).runs == 2);
        host.until_executed();
        assert_eq!(address(host.pid(id)), old);
        host.shut_down();
    });
}

#[test]
fn descriptions_decide_about_the_groups_that_are_found() {
    with_hosts(120, |state| {
        let sleepers = |name: &str| GroupSpec::new(name, sleeper()).policy(at_once());
        let ready = state.with_file_name("ready");
        killed_host(
            || {
                let groups = vec![
                    sleepers("grown").instances(2),
                    sleepers("shrunk").instances(3),
                    sleepers("rolled").instances(4).grace(LONG),
                    sleepers("forgotten"),
                ];
                let mut host = host(state, groups);
                host.until_executed();
                let groups: Vec<_> = host.supervisor.groups().collect();
                let rolling = Rolling::new().surge(2);
                host.supervisor.rolling_restart(groups[2], rolling).unwrap();
                host.until_executed();
                tell(&ready, &host.pid(named(&host, "forgotten:0")).to_string());
                stay(host);
            },
            || drop(told(&ready)),
        );
        let groups = vec![
            sleepers("new"),
            sleepers("grown").instances(3),
            sleepers("shrunk"),
            sleepers("rolled").instances(4),
        ];
        let recovered = builder()
            .state_file(state)
            .recover(groups, Undescribed::Release)
            .unwrap();
        let is_new: Vec<_> = recovered.groups.iter().map(|group| group.is_new).collect();
        assert_eq!(is_new, [true, false, false, false]);
        let [(name, pidfd)] = &recovered.released[..] else {
            panic!("{:?}", recovered.released)
        };
        assert_eq!(
            (name.to_string(), pidfd.pid().to_string()),
            ("forgotten:0".into(), told(&ready))
        );
        let mut host = Host::with(recovered.supervisor);
        host.until("the numbers are right", |host| {
            host.supervisor.instances().count() == 1 + 3 + 1 + 4 && host.supervisor.groups().count() == 4
        });
        let runs = |name: &str| host.status(named(&host, name)).runs;
        assert_eq!(
            (runs("grown:0"), runs("grown:2"), runs("rolled:3"), runs("new:0")),
            (1, 1, 1, 0)
        );
        pidfd.signal(Signal::KILL).unwrap();
        host.shut_down();
    });
}

#[test]
fn an_adopted_process_is_found_again() {
    with_hosts(120, |state| {
        let groups = || vec![GroupSpec::new("a", sleeper()).policy(at_once())];
        let pid = state.with_file_name("pid");
        killed_host(
            || {
                let mut host = host(state, groups());
                host.until_executed();
                let id = named(&host, "a:0");
                let released = host.supervisor.release(id).unwrap();
                host.until_state(id, Stopped);
                host.supervisor.adopt(id, released).unwrap();
                host.until_state(id, Running);
                tell(&pid, &host.pid(id).to_string());
                stay(host);
            },
            || drop(told(&pid)),
        );
        let mut host = host(state, groups());
        assert_eq!(host.pid(named(&host, "a:0")).to_string(), told(&pid));
        host.shut_down();
    });
}

#[test]
fn a_bound_process_has_ended_with_its_host() {
    with_hosts(120, |state| {
        if !kernel_since(7, 1) {
            return skipped("the kernel binds no child to its host (Linux 7.1)");
        }
        let groups = || vec![GroupSpec::new("a", sleeper().lifetime(Lifetime::Bound)).policy(for_ever())];
        let pid = state.with_file_name("pid");
        killed_host(
            || {
                let mut host = host(state, groups());
                host.until_executed();
                tell(&pid, &host.pid(named(&host, "a:0")).to_string());
                stay(host);
            },
            || drop(told(&pid)),
        );
        assert!(wait_gone(told(&pid).parse().unwrap(), SOON));
        let mut host = host(state, groups());
        let id = named(&host, "a:0");
        host.until("it runs again", |host| {
            host.status(id).runs == 2 && host.state(id) == Running
        });
        host.shut_down();
    });
}

#[test]
fn the_signal_of_a_stop_is_sent_again() {
    with_hosts(120, |state| {
        let heard = state.with_file_name("heard");
        let script = format!(
            "trap 'echo heard >> {}' TERM; echo >&3; while :; do sleep 0.01; done",
            heard.display()
        );
        let ready = at_once().startup(Startup::Notify { timeout: LONG });
        let groups = || {
            let spec = GroupSpec::new("a", sh(&script)).policy(ready.clone());
            vec![spec.ready_fd(3).stop(term(Scope::Process, LONG))]
        };
        let times = || fs::read_to_string(&heard).map_or(0, |text| text.lines().count());
        let told_path = state.with_file_name("told");
        killed_host(
            || {
                let mut host = host(state, groups());
                let id = named(&host, "a:0");
                host.until_state(id, Running);
                host.supervisor.stop(id).unwrap();
                wait_until("it was heard", SOON, || times() == 1);
                tell(&told_path, "");
                stay(host);
            },
            || drop(told(&told_path)),
        );
        // The host could have been killed just before it sent the signal.
        let mut host = host(state, groups());
        assert_eq!(host.state(named(&host, "a:0")), Stopping);
        wait_until("it was heard again", SOON, || times() == 2);
        host.supervisor.kill(named(&host, "a:0")).unwrap();
        host.shut_down();
    });
}

#[test]
fn the_commands_before_and_after_a_run_are_found_and_their_ends_decide() {
    with_hosts(120, |state| {
        let file = state.with_file_name("told");
        let went_on = state.with_file_name("go-on");
        let waits = quiet_sh(&format!("while ! test -e {}; do sleep .01; done", went_on.display()));
        let tells = format!(
            "echo $SERVICE_RESULT $EXIT_STATUS >>{}; exec sleep 1000",
            file.display()
        );
        let groups = || {
            vec![
                GroupSpec::new("a", sleeper())
                    .policy(at_once())
                    .before_run(waits.clone(), LONG),
                GroupSpec::new("b", quiet_sh("exit 5"))
                    .policy(at_once())
                    .after_run(quiet_sh(&tells), ms(2_000) * patience()),
            ]
        };
        let ready = state.with_file_name("ready");
        killed_host(
            || {
                let mut host = host(state, groups());
                let (before, after) = (named(&host, "a:0"), named(&host, "b:0"));
                host.until_state(after, StateName::CleaningUp);
                host.until("both are executed", |_| file.exists());
                let [before, after] = [before, after].map(|id| host.status(id));
                tell(&ready, &format!("{:?} {:?}", before.pid, after.pid));
                stay(host);
            },
            || drop(told(&ready)),
        );
        let mut host = host(state, groups());
        let (before, after) = (named(&host, "a:0"), named(&host, "b:0"));
        let pids = [before, after].map(|id| host.status(id).pid);
        assert_eq!(told(&ready), format!("{:?} {:?}", pids[0], pids[1]));
        assert_eq!(host.state(before), StateName::Preparing);
        assert_eq!(host.state(after), StateName::CleaningUp);
        fs::write(&went_on, "").unwrap();
        // From Linux 6.15 on, the end of a process that is no child of the host is known.
        if kernel_since(6, 15) {
            host.until_state(before, Running);
            assert_eq!(host.status(before).runs, 1);
        } else {
            host.until("it is tried again", |host| host.status(before).runs > 1);
        }
        host.until_state(after, StateName::Exited);
        assert_eq!(fs::read_to_string(&file).unwrap(), "exit-code 5\n");
        assert!(
            host.events
                .iter()
                .any(|event| matches!(event, Event::CommandFailed { .. }))
        );
        host.shut_down();
    });
}

/// A chain of groups. The last one ends only by SIGKILL.
fn a_chain(described: bool) -> Vec<GroupSpec> {
    let slow = at_once().startup(Startup::Notify { timeout: LONG });
    let stubborn = quiet_sh("trap '' TERM; echo >&3; while :; do sleep 0.01; done");
    let in_order = |spec: GroupSpec, before: &str| if described { spec.requires(before) } else { spec };
    let front = GroupSpec::new("front", stubborn).policy(slow.clone()).ready_fd(3);
    vec![
        GroupSpec::new("database", sleeper()).policy(slow),
        in_order(GroupSpec::new("web", sleeper()).policy(at_once()), "database"),
        in_order(front.stop(term(Scope::Process, LONG)), "web"),
    ]
}

/// The names of the groups that an instance waits for.
fn waits(host: &Host, name: &str) -> Vec<String> {
    let ids = host.status(named(host, name)).waits_for;
    let names = ids
        .iter()
        .map(|&id| host.supervisor.group(id).unwrap().name.to_string());
    names.collect()
}

#[test]
fn the_order_of_groups_is_found_again_and_what_waits_goes_on_to_wait() {
    with_hosts(120, |state| {
        let (ready, stopped) = (state.with_file_name("ready"), state.with_file_name("stopped"));
        killed_host(
            || {
                let mut host = host(state, a_chain(true));
                let database = named(&host, "database:0");
                host.until_reached(database, Starting);
                host.until("it is executed", |host| !host.is_in_flight(database));
                assert_eq!(waits(&host, "front:0"), ["web"]);
                tell(&ready, "");
                stay(host);
            },
            || drop(told(&ready)),
        );
        killed_host(
            || {
                // A description without an order keeps the one that was stored.
                let mut host = host(state, a_chain(false));
                let database = named(&host, "database:0");
                assert_eq!((host.state(database), host.status(database).runs), (Starting, 1));
                assert_eq!(
                    [waits(&host, "web:0"), waits(&host, "front:0")],
                    [vec!["database"], vec!["web"]]
                );
                // The memory for later restarts is allocated by the first calls.
                while host.turn(ms(20)) {}
                assert_eq!(host.state(named(&host, "web:0")), Stopped);
                host.supervisor.report_ready(database).unwrap();
                host.until_state(named(&host, "front:0"), Running);
                host.until_executed();
                let started = host.all_steps().filter(|step| step.to == Running);
                let started: Vec<_> = started.map(|step| step.name.group.to_string()).collect();
                assert_eq!(started, ["database", "web", "front"]);
                // What is required by others is stopped last.
                let id = host.supervisor.group_named("database").unwrap();
                host.supervisor.stop(id).unwrap();
                host.until_state(named(&host, "front:0"), Stopping);
                tell(&stopped, "");
                stay(host);
            },
            || drop(told(&stopped)),
        );
        let mut host = host(state, a_chain(true));
        let (database, web) = (named(&host, "database:0"), named(&host, "web:0"));
        while host.turn(ms(20)) {}
        assert_eq!((host.state(database), host.state(web)), (Running, Running));
        assert_eq!(
            [waits(&host, "database:0"), waits(&host, "web:0")],
            [vec!["web"], vec!["front"]]
        );
        host.supervisor.kill(named(&host, "front:0")).unwrap();
        host.until_state(database, Stopped);
        let ended = host.all_steps().filter(|step| step.to == Stopped);
        let ended: Vec<_> = ended.map(|step| step.name.group.to_string()).collect();
        assert_eq!(ended, ["front", "web", "database"]);
        assert!(host.supervisor.instances().all(|id| host.status(id).runs == 1));
        host.shut_down();
    });
}

/// A group with a program that ends at SIGTERM, and a command that stops it when this file is there.
fn stopped_by_a_command(go_on: &Path, began: &Path) -> Vec<GroupSpec> {
    let script = format!(
        "echo $MAINPID >{}; while ! test -e {}; do sleep .01; done; kill -TERM $MAINPID",
        began.display(),
        go_on.display()
    );
    let ladder = StopLadder::kill(Scope::Process).then_command(0, LONG, LONG);
    let spec = GroupSpec::new("a", sleeper()).policy(at_once());
    vec![spec.stop_command(quiet_sh(&script)).stop(ladder)]
}

fn stop_ends(host: &Host) -> Vec<StopCommandEnd> {
    let ends = host.events.iter().filter_map(|event| match event {
        Event::StopCommandEnded { end, .. } => Some(*end),
        _ => None,
    });
    ends.collect()
}

#[test]
fn the_command_of_a_stop_is_found_again_and_its_end_decides() {
    with_hosts(120, |state| {
        let (go_on, began) = (state.with_file_name("go-on"), state.with_file_name("began"));
        let ready = state.with_file_name("ready");
        killed_host(
            || {
                let mut host = host(state, stopped_by_a_command(&go_on, &began));
                let id = named(&host, "a:0");
                host.until_state(id, Running);
                host.supervisor.stop(id).unwrap();
                host.until("the command runs", |_| {
                    fs::read_to_string(&began).is_ok_and(|text| !text.is_empty())
                });
                tell(&ready, &format!("{:?}", host.status(id).pid));
                stay(host);
            },
            || drop(told(&ready)),
        );
        let mut host = host(state, stopped_by_a_command(&go_on, &began));
        let id = named(&host, "a:0");
        assert_eq!(host.supervisor.instances().count(), 1);
        assert_eq!(
            (host.state(id), told(&ready)),
            (StateName::Stopping, format!("{:?}", host.status(id).pid))
        );
        assert_eq!(stop_ends(&host), []);
        fs::write(&go_on, "").unwrap();
        host.until_state(id, StateName::Stopped);
        let end = match kernel_since(6, 15) {
            true => StopCommandEnd::Succeeded,
            false => StopCommandEnd::Failed(Exit::Unknown),
        };
        assert_eq!(stop_ends(&host), [end]);
        host.shut_down();
    });
}

#[test]
fn a_description_without_the_command_that_runs_sends_no_signal_beside_it() {
    with_hosts(120, |state| {
        let (go_on, began) = (state.with_file_name("go-on"), state.with_file_name("began"));
        let (ready, got) = (state.with_file_name("ready"), state.with_file_name("got"));
        let script = format!(
            "trap 'echo TERM >{}' TERM; trap 'exit 7' USR1; echo >{}; while :; do sleep .01; done",
            got.display(),
            ready.display()
        );
        let groups = |is_new: bool| {
            let stop = format!(
                "echo >{}; while ! test -e {}; do sleep .01; done; kill -USR1 $MAINPID",
                began.display(),
                go_on.display()
            );
            let spec = GroupSpec::new("a", quiet_sh(&script)).policy(at_once());
            vec![match is_new {
                true => spec.stop(term(Scope::Process, LONG)),
                false => spec
                    .stop_command(quiet_sh(&stop))
                    .stop(StopLadder::kill(Scope::Process).then_command(0, LONG, LONG)),
            }]
        };
        killed_host(
            || {
                let mut host = host(state, groups(false));
                let id = named(&host, "a:0");
                host.until("it has its traps", |_| ready.exists());
                host.supervisor.stop(id).unwrap();
                stay(host);
            },
            || wait_until("the command runs", SOON, || began.exists()),
        );
        let mut host = host(state, groups(true));
        let id = named(&host, "a:0");
        fs::write(&go_on, "").unwrap();
        host.until_state(id, StateName::Stopped);
        assert_eq!(stop_ends(&host).len(), 1);
        assert!(!got.exists(), "the rung of the new ladder was not begun");
        host.shut_down();
    });
}

#[test]
fn a_command_that_ended_without_a_host_is_followed_by_the_next_rung() {
    with_hosts(120, |state| {
        let (go_on, began) = (state.with_file_name("go-on"), state.with_file_name("began"));
        let ready = state.with_file_name("ready");
        let groups = || {
            let ladder = StopLadder::kill(Scope::Process).then_command(0, LONG, Duration::MAX);
            let script = format!(
                "echo $$ >{}; while ! test -e {}; do sleep .01; done",
                began.display(),
                go_on.display()
            );
            let spec = GroupSpec::new("a", sleeper()).policy(at_once());
            vec![spec.stop_command(quiet_sh(&script)).stop(ladder)]
        };
        killed_host(
            || {
                let mut host = host(state, groups());
                let id = named(&host, "a:0");
                host.until_state(id, Running);
                host.supervisor.stop(id).unwrap();
                host.until("the command runs", |_| {
                    fs::read_to_string(&began).is_ok_and(|text| !text.is_empty())
                });
                tell(&ready, "");
                stay(host);
            },
            || drop(told(&ready)),
        );
        fs::write(&go_on, "").unwrap();
        let command = fs::read_to_string(&began).unwrap().trim().parse().unwrap();
        assert!(wait_gone(command, SOON));
        let mut host = host(state, groups());
        let id = named(&host, "a:0");
        // Its status is not known, which is no success.
        host.until_state(id, StateName::Stopped);
        assert_eq!(stop_ends(&host), [StopCommandEnd::Failed(Exit::Unknown)]);
        host.shut_down();
    });
}
