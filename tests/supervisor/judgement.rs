//! How a run is judged: by its time, by the host, and by its exit code.

use std::time::Duration;

use pidherd::lifecycle::{CrashBudget, Delay, ExitSet, Policy, PolicyError, Restart, RunTimeout, StateName};
use pidherd::supervisor::{End, SpecError};
use pidherd::{Error, GroupSpec, InstanceId};

use super::common::isolated;
use super::host::{Host, LONG, at_once, for_ever, ms, sh, sleeper};

fn last_end(host: &Host, id: InstanceId) -> End {
    host.supervisor.runs(id).last().expect("a run is over").end
}

const fn limit(after: Duration) -> Option<RunTimeout> {
    let extra = Duration::ZERO;
    Some(RunTimeout { after, extra })
}

#[test]
fn a_job_that_takes_too_long_is_stopped() {
    isolated(|| {
        let mut host = Host::new();
        let policy = at_once().run_timeout(limit(ms(50))).restart(Restart::Never);
        let job = host.start(sleeper(), policy);
        host.until_state(job, StateName::Exited);
        assert_eq!(last_end(&host, job), End::TimedOut);
        assert!(host.supervisor.runs(job).last().unwrap().lasted >= ms(50));
        host.nothing_for(ms(100));
        host.shut_down();
    });
}

#[test]
fn a_service_is_renewed_and_a_reload_changes_when() {
    isolated(|| {
        let mut host = Host::new();
        let policy = |after| {
            for_ever()
                .run_timeout(limit(after))
                .crash_budget(Some(CrashBudget { max: 0, window: LONG }))
        };
        let spec = |after| GroupSpec::new("x", sleeper()).policy(policy(after));
        let (group, ids) = host.add(spec(ms(20)));
        host.start_these(group);
        host.until("it was renewed three times", |host| host.status(ids[0]).runs > 3);
        assert!(host.supervisor.runs(ids[0]).all(|run| run.end == End::TimedOut));

        let plan = host.supervisor.reload(group, spec(LONG)).unwrap();
        assert_eq!(plan.restarts().count(), 0);
        host.until_state(ids[0], StateName::Running);
        let runs = host.status(ids[0]).runs;
        host.nothing_for(ms(100));
        assert_eq!(host.status(ids[0]).runs, runs);

        // Much shorter than the run has taken already.
        host.supervisor.reload(group, spec(ms(1))).unwrap();
        host.until("it was renewed again", |host| host.status(ids[0]).runs > runs);
        host.shut_down();
    });
}

#[test]
fn an_instance_that_the_host_reports_as_failed_is_stopped_and_started_again() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(GroupSpec::new("x", sleeper()).policy(for_ever()));
        let id = ids[0];
        assert!(matches!(
            host.supervisor.report_failed(id, "too early"),
            Err(Error::NotAlive(_))
        ));
        host.start_these(group);
        host.until_state(id, StateName::Running);
        let before = host.pid(id);
        host.supervisor.report_failed(id, "no answer on port 8080").unwrap();
        // One run fails once.
        assert!(matches!(
            host.supervisor.report_failed(id, "again"),
            Err(Error::NotAlive(_))
        ));
        host.until("another process runs", |host| {
            host.state(id) == StateName::Running && host.pid(id) != before
        });
        let end = last_end(&host, id);
        let reason = "no answer on port 8080".into();
        assert_eq!(end, End::Unhealthy { reason });
        assert_eq!(end.to_string(), "stopped, reported as failed: no answer on port 8080");
        // The next run knows nothing of it.
        host.supervisor.stop(id).unwrap();
        host.until_state(id, StateName::Stopped);
        assert_eq!(last_end(&host, id), End::Stopped);
        host.shut_down();
        host.supervisor.remove(group).unwrap();
        assert!(matches!(
            host.supervisor.report_failed(id, ""),
            Err(Error::UnknownInstance(_))
        ));
    });
}

#[test]
fn reports_of_failure_use_up_the_crash_budget() {
    isolated(|| {
        let mut host = Host::new();
        let policy = for_ever().crash_budget(Some(CrashBudget { max: 1, window: LONG }));
        let id = host.start(sleeper(), policy);
        host.supervisor.report_failed(id, "first").unwrap();
        host.until("another run", |host| {
            host.status(id).runs == 2 && host.state(id) == StateName::Running
        });
        host.supervisor.report_failed(id, "second").unwrap();
        host.until_state(id, StateName::Fatal);
        let reason = "second".into();
        assert_eq!(last_end(&host, id), End::Unhealthy { reason });
        host.shut_down();
    });
}

#[test]
fn an_exit_code_prevents_every_other_try() {
    isolated(|| {
        let mut host = Host::new();
        let policy = for_ever().prevent_restart(ExitSet::EMPTY.code(78)).backoff(Delay::NONE);
        // With a grace, and without one.
        for startup in [at_once().startup, Policy::default().startup] {
            let policy = policy.clone().startup(startup);
            let (group, ids) = host.add(GroupSpec::new("", sh("exit 78")).policy(policy));
            host.start_these(group);
            host.until_state(ids[0], StateName::Exited);
            assert_eq!(
                (host.status(ids[0]).runs, last_end(&host, ids[0])),
                (1, End::Exited(78))
            );
        }
        host.nothing_for(ms(50));
        host.shut_down();
    });
}

#[test]
fn an_exit_code_asks_for_another_run_of_a_job() {
    isolated(|| {
        let mut host = Host::new();
        let policy = at_once()
            .restart(Restart::Never)
            .expected(ExitSet::SUCCESS.code(75))
            .force_restart(ExitSet::EMPTY.code(75));
        let directory = super::common::tempdir();
        let counter = directory.join("runs");
        let script = format!("echo >>{0}; [ $(wc -l <{0}) -ge 3 ] || exit 75", counter.display());
        let (group, ids) = host.add(GroupSpec::new("x", sh(&script)).policy(policy));
        host.start_these(group);
        host.until_state(ids[0], StateName::Exited);
        host.until("the third run is over", |host| {
            host.status(ids[0]).runs == 3 && host.state(ids[0]) == StateName::Exited
        });
        let ends: Vec<_> = host.supervisor.runs(ids[0]).map(|run| run.end).collect();
        assert_eq!(ends, [End::Exited(75), End::Exited(75), End::Exited(0)]);
        host.shut_down();
    });
}

#[test]
fn limits_and_sets_that_cannot_be_are_refused() {
    isolated(|| {
        let mut host = Host::new();
        let both = ExitSet::EMPTY.code(3);
        let wrong = [
            (
                Policy::new().run_timeout(limit(Duration::ZERO)),
                PolicyError::RunTimeout,
            ),
            (
                Policy::new().prevent_restart(both).force_restart(both.code(4)),
                PolicyError::Contradiction(pidherd::Exit::Code(3)),
            ),
        ];
        for (policy, expected) in wrong {
            match host.supervisor.add(GroupSpec::new("x", sleeper()).policy(policy)) {
                Err(Error::Spec(SpecError::Policy(error))) => assert_eq!(error, expected),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(host.supervisor.groups().count(), 0);
    });
}
