//! Readiness, watchdog and status reports of instances, and their effects.

mod common;
mod host;

use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command as StdCommand;
use std::time::Duration;

use StateName::{Backoff as BackOff, Exited, Fatal, Running, Starting, Stopped, Stopping};
use common::{SOON, TestCgroup, isolated, skipped, test_cgroup, wait_readable, wait_until};
use host::{Host, LONG, at_once, ms, sh, term};
use pidherd::cgroup::CgroupDir;
use pidherd::group::Effect;
use pidherd::lifecycle::{Cause, Delay, Failure, Policy, Restart, Scope, Startup, StateName};
use pidherd::supervisor::{End, Progress};
use pidherd::{Error, GroupSpec, InstanceId, Target};
use rustix::event::epoll;

fn notify(timeout: Duration) -> Policy {
    at_once()
        .startup(Startup::Notify { timeout })
        .start_retries(0)
        .stop(term(Scope::Process, LONG))
}

fn start(host: &mut Host, spec: GroupSpec) -> InstanceId {
    let id = host.add(spec).1[0];
    host.start_these(id);
    host.take_events();
    id
}

#[test]
fn a_newline_on_its_descriptor_makes_it_running() {
    isolated(|| {
        for mut host in [Host::new(), Host::with_own_epoll()] {
            let script = "echo begun; read go; printf x >&3; echo more >&3; exec 3>&-; read never";
            let id = start(
                &mut host,
                GroupSpec::new("a", sh(script)).policy(notify(LONG)).ready_fd(3),
            );
            assert_eq!((host.line(id).as_str(), host.state(id)), ("begun", Starting));
            host.go_on(id);
            host.until_state(id, Running);
            assert_eq!(host.steps(id).last().unwrap().cause, Cause::Ready);
            host.shut_down();
        }
    });
}

#[test]
fn a_process_that_reports_readiness_and_ends_was_running() {
    isolated(|| {
        let mut host = Host::new();
        let policy = notify(LONG).restart(Restart::Never);
        let id = start(
            &mut host,
            GroupSpec::new("a", sh("echo >&3; exit 3")).policy(policy).ready_fd(3),
        );
        host.until_state(id, Exited);
        assert_eq!(host.states(id), [Starting, Running, Exited]);
    });
}

#[test]
fn closing_the_readiness_descriptor_is_a_failed_start() {
    isolated(|| {
        let mut host = Host::new();
        let id = start(
            &mut host,
            GroupSpec::new("a", sh("exec 3>&-; read never"))
                .policy(notify(LONG))
                .ready_fd(3),
        );
        host.until_state(id, Fatal);
        assert_eq!(host.states(id), [Starting, Stopping, BackOff, Fatal]);
        assert_eq!(host.supervisor.runs(id).last().unwrap().end, End::NotReady);
    });
}

#[test]
fn closing_the_readiness_descriptor_is_allowed_when_readiness_is_not_awaited() {
    isolated(|| {
        // By its policy the instance is running at once, or the host has reported its readiness.
        for (policy, reported) in [(at_once(), false), (notify(LONG), true)] {
            let mut host = Host::new();
            let script = "echo begun; read go; exec 3>&-; echo closed; read never";
            let id = start(&mut host, GroupSpec::new("a", sh(script)).policy(policy).ready_fd(3));
            assert_eq!(host.line(id), "begun");
            if reported {
                host.supervisor.report_ready(id).unwrap();
            } else {
                host.until_state(id, Running);
            }
            let watched = host.supervisor.fds().len();
            host.go_on(id);
            assert_eq!(host.line(id), "closed");
            host.until("it is not listened to any more", |host| {
                host.supervisor.fds().len() < watched
            });
            assert_eq!(host.states(id), [Starting, Running]);
            host.shut_down();
        }
    });
}

#[test]
fn an_end_without_a_message_is_judged_by_the_exit_status() {
    isolated(|| {
        for _ in 0..30 {
            let mut host = Host::new();
            let id = start(
                &mut host,
                GroupSpec::new("a", sh("exit 7")).policy(notify(LONG)).ready_fd(3),
            );
            host.until_state(id, Fatal);
            assert_eq!(host.states(id), [Starting, BackOff, Fatal]);
            assert_eq!(host.supervisor.runs(id).last().unwrap().end, End::Exited(7));
        }
    });
}

#[test]
fn a_process_that_is_not_ready_in_time_is_stopped() {
    isolated(|| {
        let mut host = Host::new();
        let id = start(
            &mut host,
            GroupSpec::new("a", sh("yes >&3 & read never; kill $!")).policy(notify(ms(50))),
        );
        host.until_state(id, Fatal);
        assert_eq!(host.states(id), [Starting, Stopping, BackOff, Fatal]);
        let cause = Cause::Failed(Failure::StartTimeout);
        assert_eq!(host.steps(id)[1].cause, cause);
        assert_eq!(host.supervisor.runs(id).last().unwrap().end, End::StartTimeout);
    });
}

#[test]
fn a_flood_without_a_newline_is_no_readiness_and_is_read_in_portions() {
    isolated(|| {
        let mut host = Host::new();
        let script = "while :; do printf xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx >&3; done";
        let id = start(
            &mut host,
            GroupSpec::new("a", sh(script)).policy(notify(ms(100))).ready_fd(3),
        );
        host.until_state(id, Fatal);
        assert_eq!(host.states(id), [Starting, Stopping, BackOff, Fatal]);
    });
}

/// A shell that sends each line it reads to the notify socket by way of this process.
fn speaker() -> GroupSpec {
    GroupSpec::new(
        "a",
        sh("echo \"$NOTIFY_SOCKET $WATCHDOG_USEC\"; while read line; do echo \"$line\"; done"),
    )
    .notify_socket(true)
}

fn has_systemd_notify() -> bool {
    StdCommand::new("systemd-notify")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

#[test]
fn systemd_notify_makes_it_running() {
    if !has_systemd_notify() {
        return skipped("there is no systemd-notify");
    }
    isolated(|| {
        let mut host = Host::new();
        let script = "systemd-notify --status='Reading maps.'; echo read; read go; systemd-notify --ready; read never";
        let id = start(
            &mut host,
            GroupSpec::new("a", sh(script)).policy(notify(LONG)).notify_socket(true),
        );
        host.until("it has said what it does", |host| host.status(id).status_text.is_some());
        assert_eq!(host.status(id).status_text.as_deref(), Some("Reading maps."));
        assert_eq!(host.state(id), Starting);
        assert_eq!(host.line(id), "read");
        host.go_on(id);
        host.until_state(id, Running);
        assert_eq!(host.steps(id).last().unwrap().cause, Cause::Ready);
        host.shut_down();
    });
}

/// WATCHDOG_USEC is a number that sd_watchdog_enabled(3) accepts, or it is not there.
#[test]
fn watchdog_usec_is_a_number_above_zero_or_not_set() {
    isolated(|| {
        const MOST: u64 = u64::MAX - 1;
        for (silence, told) in [
            (Duration::MAX, ""),
            // systemd takes the greatest number for infinity.
            (Duration::from_micros(u64::MAX), ""),
            (Duration::from_micros(u64::MAX) + Duration::from_nanos(1), ""),
            (Duration::from_micros(MOST), "18446744073709551614"),
            (
                Duration::from_micros(MOST) + Duration::from_nanos(999),
                "18446744073709551614",
            ),
            (Duration::from_secs(3600), "3600000000"),
            // The supervisor's time is never shorter than the time in the variable, except for times that are too short
            // for the variable.
            (Duration::from_nanos(1_500_000_999), "1500000"),
            (Duration::from_nanos(999), "1"),
            (Duration::from_nanos(1), "1"),
        ] {
            // The policy gives the shell enough time to print the variable, whatever the watchdog's time is.
            let policy = at_once()
                .watchdog(Some(silence))
                .startup(Startup::Notify { timeout: LONG });
            let mut host = Host::new();
            let id = start(&mut host, speaker().policy(policy));
            let line = host.line(id);
            assert_eq!(line.split_once(' ').unwrap().1, told, "{silence:?}");
            host.supervisor.kill(id).unwrap();
            host.until_state(id, Stopped);
        }
    });
}

/// A time without an end causes no overflow, no timeout and no busy loop.
#[test]
fn endless_times_never_expire() {
    isolated(|| {
        let forever = [
            Duration::MAX,
            Duration::from_nanos(u64::MAX),
            Duration::from_secs(1 << 40),
        ];
        for time in forever {
            let policy = at_once()
                .watchdog(Some(time))
                .startup(Startup::Grace(time))
                .backoff(Delay::Fixed(time))
                .start_retries(1)
                .cool_off(Some(time))
                .stable_after(time)
                .stop(term(Scope::Process, LONG));
            let mut host = Host::new();
            let alive = start(
                &mut host,
                GroupSpec::new("a", sh("echo; read never")).policy(policy.clone()),
            );
            host.line(alive);
            let ended = start(&mut host, GroupSpec::new("b", sh("exit 1")).policy(policy));
            host.until_state(ended, BackOff);
            assert_eq!(host.state(alive), Starting);
            let supervisor = host.supervisor.as_fd();
            assert!(!wait_readable(supervisor, ms(50)), "nothing is due: {time:?}");
            host.shut_down();
        }
    });
}

#[test]
fn a_message_of_an_unknown_sender_is_ignored() {
    isolated(|| {
        let mut host = Host::new();
        let id = start(&mut host, speaker().policy(notify(ms(300))));
        let line = host.line(id);
        let address = line.split(' ').next().unwrap().strip_prefix('@').unwrap();
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(address).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        socket.send_to_addr(b"READY=1", &address).unwrap();
        host.until_state(id, Fatal);
        assert_eq!(host.states(id), [Starting, Stopping, BackOff, Fatal]);
        let counts = host.supervisor.notify_counts().unwrap();
        assert_eq!((counts.received, counts.unknown_senders), (1, 1));
    });
}

#[test]
fn a_process_that_misses_its_watchdog_is_stopped() {
    isolated(|| {
        let mut host = Host::new();
        let policy = at_once().watchdog(Some(ms(600))).restart(Restart::Never);
        let policy = policy.stop(term(Scope::Process, LONG));
        let id = start(&mut host, speaker().policy(policy));
        assert!(host.line(id).ends_with(" 600000"));
        let begun = host.status(id).uptime.unwrap();
        for _ in 0..3 {
            host.nothing_for(ms(200));
            host.supervisor.report_alive(id).unwrap();
        }
        host.until_state(id, Exited);
        assert_eq!(host.states(id), [Starting, Running, Stopping, Exited]);
        let run = host.supervisor.runs(id).last().unwrap();
        assert_eq!(run.end, End::Watchdog);
        assert!(run.lasted >= begun + ms(3 * 200 + 600), "{:?}", run.lasted);
        assert!(matches!(host.supervisor.report_alive(id), Err(Error::NotAlive(_))));
    });
}

#[test]
fn a_reload_with_another_watchdog_time_restarts_the_instance() {
    isolated(|| {
        let mut host = Host::new();
        let spec = |watchdog, socket| {
            let policy = notify(LONG).watchdog(watchdog);
            GroupSpec::new("", sh("read never"))
                .policy(policy)
                .notify_socket(socket)
        };
        let effect = |host: &Host, group, new: &GroupSpec| {
            let plan = host.supervisor.plan_reload(group, new).unwrap();
            assert!(plan.policy);
            plan.instances
        };
        let told = host.add(spec(Some(ms(1000)), true)).0;
        for watchdog in [None, Some(ms(2000))] {
            assert_eq!(effect(&host, told, &spec(watchdog, true)), [(0, Effect::Restart)]);
        }
        let untold = host.add(spec(Some(ms(1000)), false)).0;
        assert_eq!(effect(&host, untold, &spec(None, false)), []);
    });
}

#[test]
fn a_host_may_report_the_readiness_of_an_instance() {
    isolated(|| {
        let mut host = Host::new();
        let id = start(&mut host, GroupSpec::new("a", sh("read never")).policy(notify(LONG)));
        host.supervisor.report_ready(id).unwrap();
        host.take_events();
        assert_eq!(host.states(id), [Starting, Running]);
        assert!(matches!(host.supervisor.report_ready(id), Err(Error::NotAlive(_))));
        host.shut_down();
        host.until_state(id, Stopped);
    });
}

/// The host may handle the timer first, and may have been busy before.
#[test]
fn a_message_in_time_counts_although_it_is_read_late() {
    if !has_systemd_notify() {
        return skipped("there is no systemd-notify");
    }
    isolated(|| {
        let mut host = Host::new();
        // Without --no-block the sender waits until its message is read, so it is still a process of the instance at
        // the time of the reading. Without privileges it cannot send in the name of the instance's own process.
        let script = "echo up; read go; systemd-notify WATCHDOG=1 & read never";
        let policy = at_once().watchdog(Some(ms(1_000))).stop(term(Scope::Process, LONG));
        let id = start(
            &mut host,
            GroupSpec::new("a", sh(script)).notify_socket(true).policy(policy),
        );
        assert_eq!(host.line(id), "up");
        host.go_on(id);
        let is_readable = |token| wait_readable(host.supervisor.fd(token).unwrap(), Duration::ZERO);
        wait_until("the message is there", SOON, || {
            host.supervisor
                .fds()
                .iter()
                .skip(1)
                .any(|entry| is_readable(entry.token))
        });
        let timer = host.supervisor.fds().iter().next().unwrap();
        assert!(wait_readable(host.supervisor.fd(timer.token).unwrap(), SOON));
        host.supervisor.process_ready(timer.fd).unwrap();
        assert_eq!(host.state(id), Running);
        host.until_state(id, Exited);
        assert_eq!(host.supervisor.runs(id).last().unwrap().end, End::Watchdog);
    });
}

/// An edge-triggered epoll reports an arrival once, however much of it was read.
#[test]
fn every_message_is_read_before_there_is_nothing_to_do() {
    isolated(|| {
        let mut host = Host::new();
        let script = "read go; printf '%20000s\\n' x >&3; echo said; read never";
        let id = start(
            &mut host,
            GroupSpec::new("a", sh(script)).policy(notify(LONG)).ready_fd(3),
        );
        let own = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&own, &host.supervisor, epoll::EventData::new_u64(0), flags).unwrap();
        host.go_on(id);
        assert_eq!(host.line(id), "said");
        // `Nothing` may also end calls that have lasted for a slice. Then the set has a new edge.
        while host.state(id) != Running {
            assert!(wait_readable(&own, SOON), "no edge, and the message is not read");
            let mut edges = Vec::with_capacity(1);
            epoll::wait(&own, rustix::buffer::spare_capacity(&mut edges), None).unwrap();
            while host.supervisor.dispatch().unwrap() != Progress::Nothing {}
        }
        host.shut_down();
    });
}

#[test]
fn a_watchdog_added_by_a_reload_applies_to_running_instances() {
    isolated(|| {
        let mut host = Host::new();
        let spec = |watchdog| {
            let policy = at_once().watchdog(watchdog).stop(term(Scope::Process, LONG));
            GroupSpec::new("a", sh("echo up; read never")).policy(policy)
        };
        let (group, ids) = host.add(spec(None));
        host.start_these(group);
        assert_eq!(host.line(ids[0]), "up");
        host.supervisor.reload(group, spec(Some(ms(100)))).unwrap();
        host.until_state(ids[0], Exited);
        assert_eq!(host.supervisor.runs(ids[0]).last().unwrap().end, End::Watchdog);
    });
}

/// Runs a test that has a directory for cgroups, and systemd-notify.
fn in_cgroup(body: impl FnOnce(&TestCgroup, CgroupDir)) {
    if !has_systemd_notify() {
        return skipped("there is no systemd-notify");
    }
    isolated(|| {
        let Some(cgroup) = test_cgroup() else { return };
        let directory = CgroupDir::open(cgroup.path()).unwrap();
        body(&cgroup, directory);
    });
}

/// A script that starts a daemon, which is no longer its descendant. The daemon sends `message`.
fn daemon(message: &str) -> pidherd::Command {
    sh(&format!(
        "(setsid sh -c 'systemd-notify {message}; sleep 1000' >/dev/null 2>&1 &); trap 'exit 0' TERM; read never"
    ))
}

#[test]
fn a_message_of_a_daemon_in_the_cgroup_of_an_instance_is_accepted() {
    in_cgroup(|cgroup, directory| {
        for mut host in [Host::new(), Host::with_own_epoll()] {
            let spec = |name: &str, command| {
                let spec = GroupSpec::new(name, command).policy(notify(LONG)).notify_socket(true);
                spec.cgroup(directory.clone())
            };
            let ready = start(&mut host, spec("a", daemon("--ready")));
            host.until_state(ready, Running);
            assert_eq!(host.steps(ready).last().unwrap().cause, Cause::Ready);

            // Each daemon is accepted for its own instance, also from a cgroup below it.
            let below = "d=$(sed -n 's/^0:://p' /proc/self/cgroup)";
            let place = cgroup.path().parent().unwrap().display();
            let script = format!(
                "{below}; mkdir \"{place}$d/below\"; (setsid sh -c 'echo $$ >\"$0/below/cgroup.procs\"; \
                 systemd-notify --status=here; sleep 1000' \"{place}$d\" >/dev/null 2>&1 &); read never"
            );
            let one = start(&mut host, spec("one", sh(&script)));
            let other = start(&mut host, spec("other", daemon("--status=there")));
            let says = |host: &Host, id| host.status(id).status_text.as_deref().map(str::to_owned);
            host.until("both have said something", |host| {
                says(host, one).is_some() && says(host, other).is_some()
            });
            assert_eq!(says(&host, one).as_deref(), Some("here"));
            assert_eq!(says(&host, other).as_deref(), Some("there"));
            host.supervisor.kill(Target::All).unwrap();
            host.shut_down();
        }
    });
}

#[test]
fn a_message_of_a_daemon_in_another_cgroup_of_the_same_name_is_ignored() {
    in_cgroup(|cgroup, directory| {
        let mut host = Host::new();
        let elsewhere = cgroup.path().join("elsewhere");
        std::fs::create_dir_all(elsewhere.join("a-0")).unwrap();
        let script = format!(
            "echo $$ >'{}/a-0/cgroup.procs'; systemd-notify --ready; sleep 1000",
            elsewhere.display()
        );
        let address = |host: &Host| host.supervisor.notify_counts().is_some();
        let spec = GroupSpec::new("a", sh("echo $NOTIFY_SOCKET; read never")).policy(notify(LONG));
        let id = start(&mut host, spec.notify_socket(true).cgroup(directory));
        assert!(address(&host));
        let socket = host.line(id);
        let mut stranger = StdCommand::new("setsid");
        stranger.args(["sh", "-c", &script]).env("NOTIFY_SOCKET", socket);
        let mut stranger = stranger.stdin(std::process::Stdio::null()).spawn().unwrap();
        host.until("a stranger was heard", |host| {
            host.supervisor.notify_counts().unwrap().unknown_senders > 0
        });
        assert_eq!(host.state(id), Starting);
        host.supervisor.kill(id).unwrap();
        host.shut_down();
        // The shell may start another process between the listing and its own end, so all are killed until none is left.
        let kill_all = || {
            for pid in common::cgroups::members(&elsewhere) {
                let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
                let _ended = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        };
        kill_all();
        stranger.wait().unwrap();
        common::wait_until("it is empty", SOON, || {
            kill_all();
            std::fs::remove_dir(elsewhere.join("a-0")).is_ok()
        });
        std::fs::remove_dir(elsewhere).unwrap();
    });
}
