//! States that were wrong, stops that did not stop, restarts without an end.

use std::time::Duration;

use pidherd::lifecycle::{Cause, CrashBudget, Delay, Policy, Scope, Startup, State, StateName};
use pidherd::{Command, GroupSpec, Signal, Target};

use super::common::{SOON, isolated, wait_gone};
use super::host::{Host, LONG, at_once, for_ever, ms, quiet_sh, sh, sleeper, spawns_in_flight, term};
use StateName::{Backoff as BackOff, Exited, Fatal, Running, Stopped};

/// Supervisor#445: after a spawn that failed, "RUNNING pid 0".
#[test]
fn supervisor_445_running_pid_0() {
    isolated(|| {
        let mut host = Host::new();
        let quick = |policy: Policy| {
            policy
                .start_retries(2)
                .backoff(Delay::Fixed(ms(5)))
                .crash_budget(Some(CrashBudget { max: 5, window: LONG }))
        };
        let ids = [
            host.start(Command::new("/no/such"), quick(at_once())),
            host.start(sleeper().current_dir("/no/such"), quick(for_ever())),
            host.start(quiet_sh("exit 1"), quick(for_ever())),
        ];
        host.until("all are given up", |host| {
            for &id in &ids {
                let status = host.status(id);
                // The spawn of an instance may wait until fewer are in flight.
                let waits = spawns_in_flight() > 0 && matches!(status.state, State::Starting { pid: None, .. });
                assert_eq!(
                    status.state.name().is_alive(),
                    status.pid.is_some() || waits,
                    "{status:?}"
                );
            }
            ids.iter().all(|&id| host.state(id) == Fatal)
        });
        for step in host.all_steps() {
            assert!(step.to != Running || step.pid.is_some(), "{}", host.story());
            // A process in flight has been seen when its execution fails.
            let had_process = spawns_in_flight() > 0;
            assert!(
                step.error.is_none() || step.pid.is_none() || had_process,
                "{}",
                host.story()
            );
            assert!(
                step.exit.is_none_or(|exit| step.pid == Some(exit.pid)),
                "{}",
                host.story()
            );
        }
    });
}

/// Supervisor#118: a process in BACKOFF could not be stopped.
#[test]
fn supervisor_118_cannot_stop_in_backoff() {
    isolated(|| {
        let policy = at_once().backoff(Delay::Fixed(LONG));
        let mut host = Host::new();
        let missing = host.start(Command::new("/no/such"), policy.clone());
        let killed = host.start(Command::new("/no/such"), policy.clone());
        let early = policy.startup(Startup::Grace(LONG));
        let early = host.start(quiet_sh("exit 1"), early);
        host.until_state(early, BackOff);
        assert_eq!(host.supervisor.stop(missing).unwrap().accepted, 1);
        assert_eq!(host.supervisor.kill(killed).unwrap().accepted, 1);
        assert_eq!(host.supervisor.stop(early).unwrap().accepted, 1);
        for id in [missing, killed, early] {
            assert_eq!(host.state(id), Stopped);
        }
        host.nothing_for(Duration::ZERO);
    });
}

/// Supervisor#1101: what a process had started survived its stop.
#[test]
fn supervisor_1101_grandchildren_survive() {
    isolated(|| {
        let policy = at_once().stop(term(Scope::ProcessGroup, LONG));
        let mut host = Host::new();
        let id = host.start(
            sh("sh -c 'sleep 1000 >/dev/null & echo $!; wait' & trap 'exit 0' TERM; wait; wait").process_group(0),
            policy,
        );
        let grandchild: u32 = host.line(id).parse().unwrap();
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        // No SIGKILL was needed: the ladder's wait is longer than this test.
        assert!(wait_gone(grandchild, SOON));
    });
}

/// Supervisor#1189: a process that ended at once was restarted as fast as the machine could.
#[test]
fn supervisor_1189_hot_restart_loop() {
    isolated(|| {
        let mut host = Host::new();
        let bounded = at_once().restart(pidherd::lifecycle::Restart::Always);
        assert!(bounded.crash_budget.is_some(), "it is the default");
        let bounded = host.start(quiet_sh("exit 1"), bounded);
        let delayed = for_ever().restart_delay(Delay::Exponential {
            first: ms(20),
            cap: ms(80),
        });
        let delayed = host.start(quiet_sh("exit 1"), delayed);
        host.until("both have gone on for a while", |host| {
            host.state(bounded) == Fatal && host.status(delayed).runs >= 5
        });
        assert_eq!(host.status(bounded).runs, 11);
        assert_eq!(host.steps(bounded).last().unwrap().cause, Cause::CrashBudgetUsedUp);
        let steps = host.steps(delayed);
        let waits = steps.windows(2).filter(|pair| pair[1].cause == Cause::DelayOver);
        let waits: Vec<_> = waits
            .map(|pair| pair[1].at.saturating_duration_since(pair[0].at))
            .collect();
        assert!(waits.len() >= 4, "{waits:?}");
        for (waited, least) in waits.into_iter().zip([20, 40, 80, 80]) {
            assert!(waited >= ms(least), "{waited:?}");
        }
    });
}

/// runc#3501, qore#5062: a signal for a process that did not exist went to pid -1 or 0, to every process.
#[test]
fn runc_3501_qore_5062_a_signal_to_nobody_reaches_everybody() {
    isolated(|| {
        // It shares this process's group, and would be hit by what this process would be hit by.
        let mut bystander = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let mut host = Host::new();
        let policy = at_once().start_retries(0).stop(term(Scope::ProcessGroup, ms(1)));
        let (_, never) = host.add(GroupSpec::new("never", sleeper()));
        let failed = host.start(Command::new("/no/such").process_group(0), policy.clone());
        let ended = host.start(quiet_sh("exit 0").process_group(0), policy.clone());
        host.until_state(ended, Exited);
        let stopped = host.start(sleeper().process_group(0), policy);
        host.supervisor.stop(stopped).unwrap();
        host.until_state(stopped, Stopped);
        for id in [never[0], failed, ended, stopped] {
            assert!(host.supervisor.signal(id, Signal::TERM).is_err());
            assert_eq!(host.supervisor.stop(id).unwrap().already, 1);
            assert_eq!(host.supervisor.kill(id).unwrap().already, 1);
        }
        let outcome = host.supervisor.signal(Target::All, Signal::KILL).unwrap();
        assert_eq!((outcome.accepted, outcome.already), (0, 4));
        host.shut_down();
        drop(host);

        // A child that was reaped, and its group, do not exist either.
        let mut child = quiet_sh("exit 0").process_group(0).spawn().unwrap();
        child.wait().unwrap();
        assert!(child.pidfd().signal(Signal::TERM).is_err());
        assert!(child.pidfd().signal_group(Some(Signal::TERM)).is_err());
        drop(child);
        assert_eq!(bystander.try_wait().unwrap(), None);
        bystander.kill().unwrap();
        bystander.wait().unwrap();
    });
}
