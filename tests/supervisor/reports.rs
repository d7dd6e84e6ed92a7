//! What the host is told: events, statuses, the children's pipes, the host's own signals.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

use pidherd::exit::Exit;
use pidherd::lifecycle::{Delay, Restart, Scope, StateName, Wanted};
use pidherd::{Clock, Event, GroupSpec, Signal, SignalFd, SignalSet, Stdio};

use super::common::{Isolation, SOON, isolated, processes, wait_gone, wait_readable};
use super::host::{
    Host, LONG, at_once, builder, for_ever, kernel_since, ms, quiet_sh, sh, sleeper, spawns_in_flight, term,
};
use StateName::{Exited, Fatal, Running, Starting, Stopped, Stopping};

#[test]
fn events_are_bounded_the_oldest_make_room_and_are_counted() {
    isolated(|| {
        let run = |capacity| {
            let mut host = Host::with(builder().event_capacity(capacity).build().unwrap());
            let (group, ids) = host.add(GroupSpec::new("x", sleeper()).instances(2).policy(at_once()));
            host.supervisor.start(group).unwrap();
            // Events are not fetched before the last.
            while ids.iter().any(|&id| host.is_in_flight(id)) {
                assert!(wait_readable(&host.supervisor, SOON));
                host.supervisor.dispatch().unwrap();
            }
            host.supervisor.kill(ids[0]).unwrap();
            host.take_events();
            (
                host.supervisor.dropped_events(),
                host.all_steps().map(|step| step.to).collect(),
            )
        };
        let all = match spawns_in_flight() {
            0 | 1 => vec![Starting, Running, Starting, Running, Stopping],
            _ => vec![Starting, Starting, Running, Running, Stopping],
        };
        assert_eq!(run(4_096), (0, all.clone()));
        assert_eq!(run(5), (0, all.clone()));
        assert_eq!(run(2), (3, all[3..].to_vec()));
        assert_eq!(run(0), (5, vec![]));
        assert_eq!(run(usize::MAX), (0, all));
    });
}

#[test]
fn a_status_says_everything_about_the_run_and_the_one_before() {
    isolated(|| {
        let begun = SystemTime::now();
        let mut host = Host::new();
        // Some kernels count CPU time in ticks of 10 ms, so the process must use more than one tick.
        let script = "echo ready; read go; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exit 9";
        let (group, ids) = host.add(GroupSpec::new("web", sh(script)).policy(at_once()));
        let id = ids[0];
        let fresh = host.status(id);
        assert_eq!(
            (fresh.instance, fresh.group, fresh.name.to_string()),
            (id, group, "web:0".into())
        );
        assert_eq!(
            (fresh.state.name(), fresh.wanted, fresh.runs),
            (Stopped, Wanted::Down, 0)
        );
        assert_eq!((fresh.pid, fresh.uptime, fresh.pending), (None, None, None));
        assert_eq!((fresh.started_at, fresh.ended_at, fresh.lasted), (None, None, None));
        assert!(fresh.last_exit.is_none() && fresh.last_error.is_none());

        host.start_these(id);
        assert_eq!(host.line(id), "ready");
        let up = host.status(id);
        assert_eq!((up.state.name(), up.wanted, up.runs), (Running, Wanted::Up, 1));
        assert_eq!(vec![up.pid.unwrap().as_raw()], processes::children());
        let since = up.state.since().unwrap();
        assert!(up.uptime.unwrap() > Duration::ZERO && since < host.supervisor.now());
        assert!((begun..=SystemTime::now()).contains(&up.started_at.unwrap()));
        assert_eq!((up.ended_at, up.lasted), (None, None));
        assert!(host.status(id).uptime > up.uptime, "it goes on");

        host.go_on(id);
        host.until_state(id, Exited);
        let down = host.status(id);
        let exit = down.last_exit.unwrap();
        assert_eq!((exit.exit, exit.pid), (Exit::Code(9), up.pid.unwrap()));
        let usage = exit.usage.unwrap();
        assert!(usage.max_rss > 100_000 && usage.user + usage.system > Duration::ZERO);
        assert_eq!((down.pid, down.uptime, down.started_at), (None, None, up.started_at));
        assert!(down.ended_at >= down.started_at && down.lasted >= up.uptime);
        // What is up is asked about by wishes, not by policy: it was left as it ended.
        assert_eq!((down.wanted, down.restarts, down.failed_starts), (Wanted::Up, 0, 0));

        host.supervisor.start(id).unwrap();
        let again = host.status(id);
        assert_eq!((again.runs, again.ended_at, again.lasted), (2, None, None));
        assert_eq!(again.last_exit, down.last_exit, "the last process that ended");
    });
}

#[test]
fn an_event_contains_instance_cause_time_run_and_exit() {
    isolated(|| {
        let mut host = Host::new();
        let before = Clock::Monotonic.now();
        let policy = at_once().restart(Restart::OnUnexpected);
        let script = "echo ready; read go; exit 3";
        let (group, ids) = host.add(GroupSpec::new("web", sh(script)).instances(2).policy(policy));
        let id = ids[1];
        host.start_these(id);
        let first = host.status(id).pid;
        assert_eq!(host.line(id), "ready");
        host.go_on(id);
        host.until("it runs again", |host| host.status(id).runs == 2);
        host.until_executed();
        let second = host.status(id).pid;

        let steps = host.steps(id);
        let runs: Vec<_> = steps.iter().map(|step| (step.to, step.run, step.pid)).collect();
        assert_eq!(
            runs,
            [
                (Starting, 1, first),
                (Running, 1, first),
                (Exited, 1, first),
                (Starting, 2, second),
                (Running, 2, second),
            ]
        );
        for step in &steps {
            assert_eq!(
                (step.instance, step.group, step.name.to_string()),
                (id, group, "web:1".into())
            );
            assert!(step.at >= before && step.at <= host.supervisor.now());
            assert!(step.error.is_none());
        }
        let exits: Vec<_> = steps.iter().map(|step| step.exit.map(|record| record.exit)).collect();
        assert_eq!(exits, [None, None, Some(Exit::Code(3)), None, None]);
    });
}

#[test]
fn pipes_carry_both_ways_can_be_taken_once_a_run_and_end_with_the_process() {
    isolated(|| {
        let mut host = Host::new();
        let command = sh("cat; echo no more >&2").stderr(Stdio::piped());
        let id = host.start(command, at_once());
        let pipes = host.supervisor.take_pipes(id).unwrap();
        assert!(host.supervisor.take_pipes(id).is_none());
        let mut stdin = File::from(pipes.stdin.unwrap());
        stdin.write_all(b"through\n").unwrap();
        drop(stdin);
        let (mut out, mut err) = (String::new(), String::new());
        File::from(pipes.stdout.unwrap()).read_to_string(&mut out).unwrap();
        File::from(pipes.stderr.unwrap()).read_to_string(&mut err).unwrap();
        assert_eq!((out.as_str(), err.as_str()), ("through\n", "no more\n"));
        host.until_state(id, Exited);

        host.supervisor.start(id).unwrap();
        assert!(host.supervisor.take_pipes(id).unwrap().stderr.is_some());
    });
}

#[test]
fn pipes_of_a_run_outlive_it_until_the_next_run() {
    isolated(|| {
        let mut host = Host::new();
        let id = host.start(sh("echo last words"), at_once());
        let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
        host.until_state(id, Exited);
        let with_pipes = descriptors();
        host.start_these(id);
        host.until_state(id, Exited);
        assert_eq!(descriptors(), with_pipes, "those that nobody took are closed");
        assert_eq!(host.line(id), "last words");
    });
}

#[test]
fn the_hosts_signals_come_through_its_signalfd() {
    let set: SignalSet = [Signal::HUP, Signal::USR1].into_iter().collect();
    Isolation::new().blocked(set).run(|| {
        let signals = SignalFd::new(set).unwrap();
        let mut host = Host::with(builder().signals(signals).build().unwrap());
        assert_eq!(host.supervisor.fds().len(), 2, "timer and signals");
        // While the process is being started, the host reads its signals.
        let script = "read go; kill -HUP $PPID; kill -USR1 $PPID; kill -USR1 $PPID; echo sent; read never";
        let id = host.start(sh(script), at_once());
        let pid = host.status(id).pid;
        host.go_on(id);
        assert_eq!(host.line(id), "sent");
        let told = |host: &Host| -> Vec<_> {
            let infos = host.events.iter().filter_map(|event| match event {
                Event::Signal(info) => Some((info.signal, info.sender)),
                _ => None,
            });
            infos.collect()
        };
        // Two of a kind, unread, are one.
        host.until("both have come", |host| told(host).len() >= 2);
        assert_eq!(told(&host), [(Signal::HUP, pid), (Signal::USR1, pid)]);
        host.nothing_for(Duration::ZERO);
    });
}

/// Sets SIGCHLD's disposition, and what it was when this is dropped.
struct Disposition(libc::sighandler_t);

impl Disposition {
    fn ignore_sigchld() -> Disposition {
        // SAFETY: no function of ours is installed.
        Disposition(unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) })
    }
}

impl Drop for Disposition {
    fn drop(&mut self) {
        // SAFETY: what was there before.
        unsafe { libc::signal(libc::SIGCHLD, self.0) };
    }
}

#[test]
fn with_sigchld_ignored_by_the_host_every_end_is_seen_and_told_where_the_kernel_can() {
    isolated(|| {
        let _ignored = Disposition::ignore_sigchld();
        let mut host = Host::new();
        let code = host.start(quiet_sh("exit 3"), at_once());
        let signal = host.start(quiet_sh("kill -USR2 $$"), at_once());
        let group = host.start(
            sh("sleep 1000 >/dev/null & echo ready; wait").process_group(0),
            at_once().stop(term(Scope::ProcessGroup, LONG)),
        );
        assert_eq!(host.line(group), "ready");
        host.supervisor.stop(group).unwrap();
        host.until("all have ended", |host| {
            host.state(code) == Exited && host.state(signal) == Exited && host.state(group) == Stopped
        });
        let exit = |id| host.status(id).last_exit.unwrap().exit;
        if kernel_since(6, 15) {
            assert_eq!(exit(code), Exit::Code(3));
            assert_eq!(exit(signal).signal(), Some(Signal::USR2));
            assert_eq!(exit(group).signal(), Some(Signal::TERM));
        } else {
            assert_eq!([exit(code), exit(signal), exit(group)], [Exit::Unknown; 3]);
        }
        // A spawn that fails has a child to wait for, too.
        let missing = host.start(sleeper().current_dir("/no/such"), at_once());
        assert_eq!(host.status(missing).last_error.unwrap().errno(), libc::ENOENT);
    });
}

#[test]
fn an_end_is_observed_even_if_another_thread_has_reaped_it() {
    isolated(|| {
        let mut host = Host::new();
        let id = host.begin(quiet_sh("exit 3"), for_ever());
        let pid = host.pid(id);
        assert!(wait_gone(pid, SOON));
        let raw = rustix::process::Pid::from_raw(pid as i32);
        rustix::process::waitpid(raw, rustix::process::WaitOptions::empty()).unwrap();
        host.until("it runs again", |host| host.status(id).runs >= 2);
        let first = host.steps(id)[2].exit.unwrap().exit;
        let expected = if kernel_since(6, 15) {
            Exit::Code(3)
        } else {
            Exit::Unknown
        };
        assert_eq!(first, expected);
    });
}

#[test]
fn a_timer_or_a_wait_wakes_the_host_and_an_idle_supervisor_does_not() {
    isolated(|| {
        let mut host = Host::new();
        let (group, _) = host.add(GroupSpec::new("x", sleeper()).instances(3).policy(at_once()));
        host.start_these(group);
        host.nothing_for(ms(100));
        assert!(!wait_readable(&host.supervisor, Duration::ZERO));
        let policy = at_once().start_retries(1).backoff(Delay::Fixed(ms(50)));
        let id = host.start(sleeper().current_dir("/no/such"), policy);
        host.until_state(id, Fatal);
        host.nothing_for(ms(100));
    });
}
