//! The optional feature `serde`: `cargo test --features serde --test serde`.

use std::time::Duration;

use pidherd::lifecycle::{DelayFrom, ExitSet, RunTimeout, Rung, StopCommandEnd};
use pidherd::notify::NotifyAccess;
use pidherd::supervisor::{ProcessNotice, RefusalReason};
use pidherd::{
    Command, CrashBudget, Delay, Event, Exit, GroupSpec, Policy, Restart, Scope, Signal, SpawnStep, Startup, StateName,
    StopLadder, Supervisor,
};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, from_str, from_value, json, to_value};

#[path = "common/mod.rs"]
mod common;

/// A policy with another value than the default everywhere.
fn unusual() -> Policy {
    Policy::new()
        .startup(Startup::Notify {
            timeout: Duration::from_millis(1_500),
        })
        .watchdog(Some(Duration::from_secs(7)))
        .run_timeout(Some(RunTimeout {
            after: Duration::from_secs(60),
            extra: Duration::from_secs(5),
        }))
        .restart(Restart::Always)
        .expected(ExitSet::EMPTY.code(0).code(2).signal(Signal::TERM))
        .prevent_restart(ExitSet::EMPTY.code(78))
        .force_restart(ExitSet::EMPTY.signal(Signal::HUP))
        .early_exit_fails(true)
        .start_retries(9)
        .retry_permanent(false)
        .count_shortages(true)
        .backoff(Delay::Exponential {
            first: Duration::from_millis(100),
            cap: Duration::from_secs(30),
        })
        .restart_delay(Delay::Fixed(Duration::from_secs(1)))
        .restart_delay_from(DelayFrom::Start)
        .immediate_restarts(1)
        .jitter(20)
        .crash_budget(Some(CrashBudget {
            max: 3,
            window: Duration::from_secs(90),
        }))
        .stable_after(Duration::from_secs(10))
        .cool_off(Some(Duration::from_secs(600)))
        .stop(StopLadder::kill(Scope::Cgroup).rungs([
            Rung::new(Signal::QUIT, Scope::ProcessGroup, Duration::from_secs(3)),
            Rung::command(1, Duration::from_secs(9), Duration::from_secs(4)),
        ]))
        .watchdog_stop(Some(StopLadder::signal(
            Signal::ABRT,
            Scope::Cgroup,
            Duration::from_secs(2),
        )))
}

#[test]
fn a_policy_survives_the_way_through_json() {
    for policy in [Policy::default(), unusual()] {
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(from_str::<Policy>(&text).unwrap(), policy, "{text}");
    }
}

#[test]
fn a_policy_in_a_file_names_only_what_differs() {
    let text = r#"{
        "restart": "always",
        "startup": { "grace": { "secs": 0, "nanos": 0 } },
        "expected": { "codes": [0, 2], "signals": ["SIGTERM"] },
        "crash_budget": null
    }"#;
    let expected = ExitSet::EMPTY.code(0).code(2).signal(Signal::TERM);
    let policy: Policy = from_str(text).unwrap();
    let same = Policy::new()
        .restart(Restart::Always)
        .startup(Startup::Grace(Duration::ZERO))
        .expected(expected)
        .crash_budget(None);
    assert_eq!(policy, same);
}

#[test]
fn a_wrong_word_is_refused_with_its_name() {
    for (text, named) in [
        (r#"{ "restrat": "always" }"#, "restrat"),
        (r#"{ "restart": "sometimes" }"#, "sometimes"),
        (r#"{ "expected": { "signals": ["SIGNOTHING"] } }"#, "SIGNOTHING"),
        (r#"{ "expected": { "codes": [256] } }"#, "256"),
    ] {
        let error = from_str::<Policy>(text).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn plain_values_have_the_form_that_a_person_writes() {
    let signal = Exit::Signal {
        signal: Signal::SEGV,
        core: true,
    };
    for (value, form) in [
        (to_value(StateName::Running).unwrap(), json!("RUNNING")),
        (to_value(Exit::Code(3)).unwrap(), json!({ "code": 3 })),
        (
            to_value(signal).unwrap(),
            json!({ "signal": { "signal": "SIGSEGV", "core": true } }),
        ),
        (to_value(SpawnStep::CurrentDir).unwrap(), json!("current-dir")),
        (to_value(NotifyAccess::Descendants).unwrap(), json!("descendants")),
        (
            to_value(ProcessNotice::DescriptorsRefused {
                count: 2,
                reason: RefusalReason::Errno(24),
            })
            .unwrap(),
            json!({ "descriptors_refused": { "count": 2, "reason": { "errno": 24 } } }),
        ),
        (
            to_value(Rung::command(1, Duration::from_secs(9), Duration::ZERO)).unwrap(),
            json!({ "command": { "index": 1, "limit": { "secs": 9, "nanos": 0 }, "wait": { "secs": 0, "nanos": 0 } } }),
        ),
        (
            to_value(StopCommandEnd::NotSpawned { errno: 2 }).unwrap(),
            json!({ "not_spawned": { "errno": 2 } }),
        ),
        (
            to_value(StopCommandEnd::Failed(Exit::Code(3))).unwrap(),
            json!({ "failed": { "code": 3 } }),
        ),
        (to_value(StopCommandEnd::TimedOut).unwrap(), json!("timed_out")),
    ] {
        assert_eq!(value, form);
    }
    assert_eq!(
        from_value::<Exit>(json!({ "signal": { "signal": "SIGSEGV", "core": true } })).unwrap(),
        signal
    );
    assert_eq!(
        from_value::<StopCommandEnd>(json!("succeeded")).unwrap(),
        StopCommandEnd::Succeeded
    );
    assert_eq!(from_value::<StateName>(json!("FATAL")).unwrap(), StateName::Fatal);
    assert!(from_value::<StateName>(json!("fatal")).is_err());
    assert_eq!(from_value::<SpawnStep>(json!("exec")).unwrap(), SpawnStep::Exec);
}

#[test]
fn events_runs_and_status_are_written_whole() {
    common::isolated(|| {
        let mut supervisor = Supervisor::new().unwrap();
        let policy = Policy::new().start_retries(0);
        let missing = GroupSpec::new("missing", Command::new("/no/such/program")).policy(policy.clone());
        let failing = GroupSpec::new("failing", Command::new("sh").args(["-c", "exit 3"])).policy(policy);
        for spec in [missing, failing] {
            let group = supervisor.add(spec).unwrap();
            supervisor.start(group).unwrap();
        }
        let mut events: Vec<Value> = Vec::new();
        let mut fatal = 0;
        while fatal < 2 {
            poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], None).unwrap();
            supervisor.dispatch().unwrap();
            while let Some(event) = supervisor.next_event() {
                fatal += usize::from(matches!(&event, Event::Transition(step) if step.to == StateName::Fatal));
                events.push(to_value(&event).unwrap());
            }
        }
        let failed = events
            .iter()
            .map(|event| &event["transition"])
            .find(|step| step["error"].is_object())
            .unwrap();
        assert_eq!(failed["name"], json!({ "group": "missing", "number": 0 }));
        assert_eq!(failed["error"]["step"], json!("exec"));
        assert_eq!(failed["error"]["errno"], json!(2));
        let message = failed["error"]["message"].as_str().unwrap();
        assert!(message.contains("No such file or directory"), "{message}");
        let mut ends = Vec::new();
        for instance in supervisor.instances() {
            let status = to_value(supervisor.status(instance).unwrap()).unwrap();
            assert!(status["state"]["fatal"]["until"].is_u64(), "{status}");
            for run in supervisor.runs(instance) {
                ends.push(to_value(run).unwrap()["end"].clone());
            }
        }
        assert!(ends.contains(&json!({ "exited": 3 })), "{ends:?}");
        assert!(
            ends.iter().any(|end| end["not_spawned"]["errno"] == json!(2)),
            "{ends:?}"
        );
        for group in supervisor.groups() {
            assert_eq!(to_value(supervisor.group(group).unwrap()).unwrap()["target"], json!(1));
        }
    });
}
