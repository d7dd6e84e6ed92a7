//! What one supervised process goes through, against the real kernel: ten situations that tell a
//! right lifecycle from a naive one.
//!
//! The sequences are exact. Durations are checked as lower bounds and by the deadlines that the
//! states name: a busy machine is late, never early.

mod common;
mod host;

use std::fs;
use std::time::Duration;

use StateName::{Backoff as BackOff, Exited, Fatal, Running, Starting, Stopped, Stopping};
use common::{SOON, isolated, processes, root_or_skip, skipped, tempdir, wait_gone, wait_until};
use host::{Host, LONG, at_once, for_ever, ms, quiet_sh, sh, sleeper, spawns_in_flight, term, wait_for_sleep};
use pidherd::exit::Exit;
use pidherd::lifecycle::{
    Cause, CrashBudget, Delay, ExitSet, Failure, Policy, Remaining, Restart, Rung, Scope, Startup, State, StateName,
    StopLadder,
};
use pidherd::{Clock, Command, GroupSpec, Signal, SpawnStep};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

/// The n-th wait is n times this.
fn linear(step: Duration) -> Delay {
    Delay::Linear { step, cap: LONG }
}

/// A shell that ends with this code when it gets SIGTERM, and says when it is prepared to.
fn obedient(code: u8) -> Command {
    sh(&format!("trap 'exit {code}' TERM; echo ready; read never"))
}

/// A shell that wants to be told to go on before it obeys SIGTERM.
fn slow_to_stop() -> Command {
    sh("trap 'echo asked; read go; exit 0' TERM; echo ready; read never")
}

#[test]
fn a_start_that_ends_in_its_grace_is_tried_again_then_given_up_and_never_exited() {
    isolated(|| {
        given_up_after_four_tries(1, false);
        // supervisord's rule, for a host that wants it.
        given_up_after_four_tries(0, true);
    });
}

fn given_up_after_four_tries(code: u8, early_exit_fails: bool) {
    let policy = Policy::new()
        .startup(Startup::Grace(LONG))
        .restart(Restart::Never)
        .early_exit_fails(early_exit_fails)
        .start_retries(3)
        .backoff(linear(ms(60)));
    let mut host = Host::new();
    let id = host.start(quiet_sh(&format!("exit {code}")), policy);
    let mut waits = Vec::new();
    host.until("it was given up", |host| {
        if let State::Backoff { until, .. } = host.status(id).state {
            let since = host.steps(id).last().unwrap().at;
            let wait = until.saturating_duration_since(since);
            if waits.last() != Some(&wait) {
                waits.push(wait);
            }
        }
        host.state(id) == Fatal
    });
    assert_eq!(
        host.states(id),
        [
            Starting, BackOff, Starting, BackOff, Starting, BackOff, Starting, BackOff, Fatal
        ]
    );
    assert_eq!(waits, [ms(60), ms(120), ms(180)]);
    let steps = host.steps(id);
    for (n, wait) in (1..).zip(waits) {
        let waited = steps[2 * n].at.saturating_duration_since(steps[2 * n - 1].at);
        assert!(waited >= wait, "try {n} came after {waited:?}");
        assert_eq!(steps[2 * n].cause, Cause::DelayOver);
    }
    let ended = Cause::Failed(Failure::Ended(Exit::Code(code)));
    assert!(
        steps
            .iter()
            .filter(|step| step.to == BackOff)
            .all(|step| step.cause == ended)
    );
    assert_eq!(steps.last().unwrap().cause, Cause::RetriesUsedUp);
    assert_eq!(host.status(id).runs, 4);
    host.nothing_for(ms(50));
}

/// A job: it runs once, and has all the time in the world to be up.
fn job() -> Policy {
    Policy::new()
        .startup(Startup::Grace(LONG))
        .restart(Restart::Never)
        .backoff(linear(ms(10)))
}

#[test]
fn a_job_that_ends_as_expected_within_its_grace_is_done() {
    isolated(|| {
        let expecting = |expected| job().expected(expected);
        let grouped = job().stop(term(Scope::ProcessGroup, LONG));
        let leaving = "(trap '' TERM; exec sleep 1000 >/dev/null) & exit 0";
        for (script, policy, through) in [
            ("exit 0", job(), vec![Starting, Exited]),
            ("exit 3", expecting(ExitSet::EMPTY.code(3)), vec![Starting, Exited]),
            (
                "kill $$",
                expecting(ExitSet::EMPTY.signal(Signal::TERM)),
                vec![Starting, Exited],
            ),
            // What it leaves in its group is gone before it counts as done.
            (leaving, grouped, vec![Starting, Stopping, Exited]),
        ] {
            let mut host = Host::new();
            let id = host.start(quiet_sh(script).process_group(0), policy);
            host.until_state(id, Exited);
            assert_eq!(host.states(id), through, "{}", host.story());
            let exit = host.status(id).last_exit.unwrap().exit;
            assert_eq!(host.status(id).state, State::Exited { exit, expected: true });
            assert_eq!(
                host.steps(id).last().unwrap().cause,
                Cause::Ended { exit, expected: true }
            );
            assert_eq!((host.status(id).runs, host.status(id).failed_starts), (1, 0));
            assert_eq!(host.supervisor.runs(id).count(), 1);
            assert_eq!(processes::children(), []);
            host.nothing_for(ms(50));
        }
    });
}

#[test]
fn a_job_that_fails_at_first_is_tried_again_until_it_is_done() {
    isolated(|| {
        let directory = tempdir();
        let script = format!(
            "cd {}; [ -e tried ] && exit 0; >tried; exit 1",
            directory.path().display()
        );
        let mut host = Host::new();
        let id = host.start(quiet_sh(&script), job());
        host.until_state(id, Exited);
        assert_eq!(host.states(id), [Starting, BackOff, Starting, Exited]);
        assert_eq!(host.status(id).failed_starts, 0);
    });
}

#[test]
fn what_is_to_stay_has_failed_to_start_when_it_ends_within_its_grace() {
    isolated(|| {
        let silent = Startup::Notify { timeout: LONG };
        for policy in [
            job().restart(Restart::Always),
            job().restart(Restart::OnUnexpected),
            // It was to say that it is ready, and has not.
            job().startup(silent),
        ] {
            let mut host = Host::new();
            let id = host.start(quiet_sh("exit 0"), policy);
            host.until_state(id, Fatal);
            assert_eq!(host.states(id)[..3], [Starting, BackOff, Starting]);
        }
    });
}

#[test]
fn without_a_grace_an_expected_end_is_left_alone() {
    isolated(|| {
        let policy = at_once().restart(Restart::OnUnexpected);
        let mut host = Host::new();
        let id = host.start(quiet_sh("exit 0"), policy);
        host.until_state(id, Exited);
        assert_eq!(host.states(id), [Starting, Running, Exited]);
        let exit = Exit::Code(0);
        assert_eq!(host.status(id).state, State::Exited { exit, expected: true });
        host.nothing_for(ms(50));
    });
}

#[test]
fn without_a_grace_a_crash_loop_ends_with_its_budget() {
    isolated(|| {
        let policy = for_ever().crash_budget(Some(CrashBudget { max: 10, window: LONG }));
        let mut host = Host::new();
        let id = host.start(quiet_sh("exit 1"), policy);
        host.until_state(id, Fatal);
        let mut expected = [Starting, Running, Exited].repeat(11);
        expected.push(Fatal);
        assert_eq!(host.states(id), expected);
        let steps = host.steps(id);
        assert_eq!(steps.last().unwrap().cause, Cause::CrashBudgetUsedUp);
        assert_eq!(host.status(id).runs, 11);
        host.nothing_for(ms(50));
    });
}

#[test]
fn expected_exits_use_up_no_crash_budget_and_a_loop_of_them_is_slowed_down() {
    isolated(|| {
        let policy = for_ever().crash_budget(Some(CrashBudget { max: 2, window: LONG }));
        let mut host = Host::new();
        let lasting = host.start(quiet_sh("sleep 0.05; exit 0"), policy.clone());
        let hasty = host.start(quiet_sh("exit 0"), policy.clone());
        let expected = ExitSet::EMPTY.signal(Signal::TERM);
        let by_signal = host.start(quiet_sh("kill $$"), policy.expected(expected));
        let ids = [lasting, hasty, by_signal];
        host.until("each has had six runs", |host| {
            ids.iter().all(|&id| host.status(id).runs >= 6)
        });
        for id in ids {
            let loops = [Starting, Running, Exited, BackOff].repeat(5);
            assert_eq!(host.states(id)[..20], loops, "{}", host.story());
            for (exited, next) in (2..).step_by(4).zip((4..20).step_by(4)) {
                let steps = host.steps(id);
                let pause = steps[next].at.saturating_duration_since(steps[exited].at);
                assert!(pause >= ms(100), "run {} began after {pause:?}", steps[next].run);
            }
        }
    });
}

#[test]
fn without_a_grace_a_missing_program_is_a_failed_start_and_never_running() {
    isolated(|| {
        let policy = at_once().start_retries(1).backoff(linear(ms(10)));
        let mut host = Host::new();
        let id = host.start(Command::new("/no/such"), policy);
        assert_eq!(host.states(id), [Starting, BackOff]);
        host.until_state(id, Fatal);
        assert_eq!(host.states(id), [Starting, BackOff, Starting, BackOff, Fatal]);
        for step in host.steps(id).into_iter().filter(|step| step.to == BackOff) {
            let errno = libc::ENOENT;
            assert_eq!(step.cause, Cause::Failed(Failure::Spawn { errno, permanent: true }));
            let error = step.error.as_ref().unwrap();
            assert_eq!((error.step(), error.errno()), (SpawnStep::Exec, errno));
            // A process in flight has been seen when its execution fails.
            assert_eq!(step.pid.is_some(), spawns_in_flight() > 0);
            assert_eq!(step.exit, None);
        }
    });
}

#[test]
fn a_stop_in_backoff_stops_at_once_and_the_next_start_counts_from_zero() {
    isolated(|| {
        let policy = at_once().start_retries(3).backoff(linear(ms(80)));
        let mut host = Host::new();
        let id = host.start(Command::new("/no/such"), policy);
        host.until("the second try has failed", |host| host.status(id).failed_starts == 2);
        assert_eq!(host.supervisor.stop(id).unwrap().accepted, 1);
        host.take_events();
        assert_eq!(host.states(id).last(), Some(&Stopped));
        assert_eq!(host.status(id).failed_starts, 0);
        // The timer of the wait, 160 ms, never fires.
        host.nothing_for(ms(200));

        host.supervisor.start(id).unwrap();
        host.until_state(id, Fatal);
        let tries = [Starting, BackOff].repeat(4);
        let expected = [&[Starting, BackOff, Starting, BackOff, Stopped], &tries[..], &[Fatal]].concat();
        assert_eq!(host.states(id), expected);
    });
}

#[test]
fn a_start_while_stopping_comes_after_the_reap_and_makes_no_second_incarnation() {
    isolated(|| {
        let directory = tempdir();
        let script = format!(
            "cd {}; if [ -e pid ] && kill -0 $(cat pid); then echo two; fi; echo $$ >pid;
             trap 'echo asked; read go; exit 0' TERM; echo ready; read never",
            directory.path().display()
        );
        let policy = for_ever().stop(term(Scope::Process, LONG));
        let mut host = Host::new();
        let id = host.start(sh(&script), policy);
        assert_eq!(host.line(id), "ready");
        let first = host.pid(id);
        host.supervisor.stop(id).unwrap();
        assert_eq!(host.line(id), "asked");

        assert_eq!(host.supervisor.start(id).unwrap().queued, 1);
        assert_eq!(host.supervisor.start(id).unwrap().already, 1);
        host.nothing_for(ms(30));
        assert_eq!(host.pid(id), first, "it is still the one that is being stopped");
        assert_eq!(processes::children(), [first]);

        host.go_on(id);
        host.until_state(id, Running);
        assert_eq!(host.states(id), [Starting, Running, Stopping, Starting, Running]);
        // It would say "two" first if the old one, or its zombie, had been there.
        assert_eq!(host.line(id), "ready");
        assert_ne!(host.pid(id), first);
        assert_eq!(processes::children(), [host.pid(id)]);
        let steps = host.steps(id);
        assert_eq!((steps[3].cause, steps[3].run), (Cause::Requested, 2));
    });
}

#[test]
fn the_last_wish_while_stopping_counts() {
    isolated(|| {
        let mut host = Host::new();
        let id = host.start(slow_to_stop(), at_once());
        assert_eq!(host.line(id), "ready");
        host.supervisor.restart(id).unwrap();
        assert_eq!(host.line(id), "asked");
        host.supervisor.stop(id).unwrap();
        host.supervisor.start(id).unwrap();
        host.supervisor.stop(id).unwrap();
        host.go_on(id);
        host.until_state(id, Stopped);
        assert_eq!(host.states(id), [Starting, Running, Stopping, Stopped]);
        host.nothing_for(ms(30));
    });
}

#[test]
fn a_stop_is_no_crash_whatever_the_exit_code_and_the_policy() {
    isolated(|| {
        let mut host = Host::new();
        let id = host.start(obedient(3), for_ever());
        assert_eq!(host.line(id), "ready");
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(host.states(id), [Starting, Running, Stopping, Stopped]);
        assert_eq!(host.steps(id)[3].exit.unwrap().exit, Exit::Code(3));
        host.nothing_for(ms(50));
    });
}

#[test]
fn a_stopped_process_leaves_through_its_handler_without_sigkill() {
    isolated(|| {
        let policy = at_once().stop(term(Scope::Process, LONG));
        let mut host = Host::new();
        let id = host.start(sh("trap 'exit 5' TERM; echo ready; kill -STOP $$; read never"), policy);
        assert_eq!(host.line(id), "ready");
        let pid = host.pid(id);
        wait_until("it has stopped itself", SOON, || processes::state(pid) == Some('T'));
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(host.states(id), [Starting, Running, Stopping, Stopped]);
        assert_eq!(host.status(id).last_exit.unwrap().exit, Exit::Code(5));
    });
}

/// A ladder of these rungs, each with this wait, then SIGKILL, all with this scope.
fn ladder(signals: &[Signal], scope: Scope, wait: Duration) -> StopLadder {
    let rung = |&signal: &Signal| Rung::new(signal, scope, wait);
    StopLadder::kill(scope).rungs(signals.iter().map(rung))
}

#[test]
fn a_stop_signal_in_a_ladder_reaches_its_handler() {
    isolated(|| {
        for (signal, scope) in [
            (Signal::TSTP, Scope::Process),
            (Signal::TTIN, Scope::Process),
            (Signal::TTOU, Scope::ProcessGroup),
        ] {
            let mut host = Host::new();
            let policy = at_once().stop(ladder(&[signal, Signal::TERM], scope, SOON / 4));
            let name = signal.to_string();
            let name = name.trim_start_matches("SIG");
            let command = sh(&format!("trap 'exit 9' {name}; echo ready; read never")).process_group(0);
            let (group, ids) = host.add(GroupSpec::new("x", command).instances(20).policy(policy));
            host.start_these(group);
            ids.iter().for_each(|&id| assert_eq!(host.line(id), "ready"));
            host.supervisor.stop(group).unwrap();
            host.until("all are stopped", |host| {
                ids.iter().all(|&id| host.state(id) == Stopped)
            });
            let by_handler = |&&id: &&pidherd::InstanceId| host.status(id).last_exit.unwrap().exit == Exit::Code(9);
            assert_eq!(ids.iter().filter(by_handler).count(), 20, "{signal}");
        }
    });
}

#[test]
fn a_stopped_process_acts_on_a_stop_signal_that_it_handles() {
    isolated(|| {
        let policy = at_once().stop(ladder(&[Signal::TSTP], Scope::Process, LONG));
        let mut host = Host::new();
        let id = host.start(sh("trap 'exit 5' TSTP; echo ready; kill -STOP $$; read never"), policy);
        assert_eq!(host.line(id), "ready");
        let pid = host.pid(id);
        wait_until("it has stopped itself", SOON, || processes::state(pid) == Some('T'));
        host.supervisor.stop(id).unwrap();
        host.until_state(id, Stopped);
        assert_eq!(host.status(id).last_exit.unwrap().exit, Exit::Code(5));
    });
}

#[test]
fn a_process_that_a_rung_has_stopped_goes_on_at_the_next() {
    isolated(|| {
        for first in [Signal::TSTP, Signal::STOP] {
            let mut host = Host::new();
            let policy = at_once().stop(ladder(&[first, Signal::TERM], Scope::Process, ms(100)));
            let id = host.start(obedient(6), policy);
            assert_eq!(host.line(id), "ready");
            let pid = host.pid(id);
            host.supervisor.stop(id).unwrap();
            wait_until("it is stopped", SOON, || processes::state(pid) == Some('T'));
            host.until_state(id, Stopped);
            assert_eq!(host.status(id).last_exit.unwrap().exit, Exit::Code(6), "{first}");
        }
    });
}

/// A shell that obeys SIGTERM, with a child in its group that does not and one in a session of its own.
/// It writes their numbers.
fn family() -> Command {
    sh("(trap '' TERM; exec sleep 1000 >/dev/null) & member=$!
        setsid sleep 1000 >/dev/null & other=$!
        trap 'exit 0' TERM; echo $member $other; read never")
    .process_group(0)
}

/// Reads the numbers that a [`family`] writes, once both of them are what they are to be.
fn relatives(host: &mut Host, id: pidherd::InstanceId) -> [u32; 2] {
    let line = host.line(id);
    let pids: Vec<u32> = line.split(' ').map(|pid| pid.parse().unwrap()).collect();
    pids.iter().for_each(|&pid| wait_for_sleep(pid));
    pids.try_into().unwrap()
}

#[test]
fn a_group_is_stopped_when_its_last_member_is_gone_and_a_session_of_its_own_survives() {
    isolated(|| {
        let wait = ms(150);
        let policy = at_once().stop(term(Scope::ProcessGroup, wait));
        let mut host = Host::new();
        let id = host.start(family(), policy);
        let [member, other] = relatives(&mut host, id);
        let leader = host.pid(id);
        host.supervisor.stop(id).unwrap();
        host.until("the leader is gone", |host| match host.status(id).state {
            State::Stopping(stopping) => matches!(stopping.remaining, Remaining::Others { .. }),
            _ => false,
        });
        assert!(wait_gone(leader, SOON));
        assert_eq!(host.state(id), Stopping);
        assert!(processes::state(member).is_some_and(|state| state != 'Z'));

        host.until_state(id, Stopped);
        assert_eq!(host.states(id), [Starting, Running, Stopping, Stopped]);
        assert!(
            matches!(processes::state(member), None | Some('Z')),
            "SIGKILL has reached it"
        );
        let steps = host.steps(id);
        let took = steps[3].at.saturating_duration_since(steps[2].at);
        assert!(took >= wait, "not before the deadline: {took:?}");
        assert_eq!(steps[3].exit.unwrap().exit, Exit::Code(0), "the leader's");

        assert!(processes::state(other).is_some_and(|state| state != 'Z'));
        let other = rustix::process::Pid::from_raw(other as i32).unwrap();
        rustix::process::kill_process(other, rustix::process::Signal::KILL).unwrap();
    });
}

#[test]
fn a_new_run_starts_after_all_processes_of_the_old_group_have_ended() {
    isolated(|| {
        let directory = tempdir();
        let script = format!(
            "cd {}; if [ -e member ] && grep -q '^State:.[^ZX]' /proc/$(cat member)/status; then echo met; fi 2>/dev/null
             (trap '' TERM; exec sleep 1000 >/dev/null) & echo $! >member
             trap 'exit 0' TERM; echo ready; read never",
            directory.path().display()
        );
        let policy = for_ever().stop(term(Scope::ProcessGroup, ms(60)));
        let mut host = Host::new();
        let id = host.start(sh(&script).process_group(0), policy);
        assert_eq!(host.line(id), "ready");
        let member: u32 = fs::read_to_string(directory.join("member"))
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        wait_for_sleep(member);
        host.supervisor.restart(id).unwrap();
        host.until("it runs again", |host| host.status(id).runs == 2);
        assert_eq!(host.line(id), "ready");
    });
}

#[test]
fn a_second_stop_extends_no_deadline_and_a_kill_shortens_it() {
    isolated(|| {
        let policy = at_once().stop(term(Scope::Process, LONG));
        let mut host = Host::new();
        let id = host.start(slow_to_stop(), policy);
        assert_eq!(host.line(id), "ready");
        host.supervisor.stop(id).unwrap();
        assert_eq!(host.line(id), "asked");
        let before = host.status(id).state;
        assert_eq!(host.supervisor.stop(id).unwrap().already, 1);
        assert_eq!(host.status(id).state, before);
        assert_eq!(host.supervisor.kill(id).unwrap().accepted, 1);
        host.until_state(id, Stopped);
        assert_eq!(host.states(id), [Starting, Running, Stopping, Stopped]);
        assert_eq!(host.status(id).last_exit.unwrap().exit.signal(), Some(Signal::KILL));
    });
}

#[test]
fn the_hosts_own_children_keep_their_statuses() {
    isolated(|| {
        let own = |script: &str| {
            std::process::Command::new("/bin/sh")
                .args(["-c", script])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        };
        // One that has ended before there is a supervisor, one that is waited for in another thread
        // meanwhile, one that outlives it.
        let mut early = own("exit 7");
        assert!(wait_gone(early.id(), SOON));
        let mut meanwhile = own("kill -USR1 $$");
        let waiter = std::thread::spawn(move || meanwhile.wait().unwrap());
        let mut late = own("read go; exit 9");

        let policy = for_ever().crash_budget(Some(CrashBudget { max: 20, window: LONG }));
        let mut host = Host::new();
        let id = host.start(quiet_sh("exit 1"), policy);
        let other = host.start(sleeper(), at_once());
        host.until_state(id, Fatal);
        host.supervisor.stop(other).unwrap();
        host.until_state(other, Stopped);

        use std::os::unix::process::ExitStatusExt;
        assert_eq!(early.wait().unwrap().code(), Some(7));
        assert_eq!(waiter.join().unwrap().signal(), Some(libc::SIGUSR1));
        assert!(late.try_wait().unwrap().is_none());
        drop(late.stdin.take());
        drop(host);
        assert_eq!(late.wait().unwrap().code(), Some(9));
    });
}

#[test]
fn scaling_down_and_up_during_a_stop_keeps_the_survivors_and_duplicates_no_instance() {
    isolated(|| {
        let policy = at_once().stop(term(Scope::Process, LONG));
        let mut host = Host::new();
        let (group, before) = host.add(GroupSpec::new("four", slow_to_stop()).instances(4).policy(policy));
        host.start_these(group);
        before.iter().for_each(|&id| assert_eq!(host.line(id), "ready"));
        let pids: Vec<u32> = before.iter().map(|&id| host.pid(id)).collect();

        host.supervisor.scale(group, 2).unwrap();
        assert_eq!(
            (host.line(before[2]), host.line(before[3])),
            ("asked".into(), "asked".into())
        );
        host.go_on(before[3]);
        host.until("number 3 is gone", |host| host.supervisor.status(before[3]).is_none());
        assert_eq!(host.state(before[2]), Stopping);

        let outcome = host.supervisor.scale(group, 4).unwrap();
        assert_eq!(
            (outcome.queued, outcome.accepted),
            (1, 1),
            "number 2 is recalled, number 3 made"
        );
        host.go_on(before[2]);
        let after = host.supervisor.group(group).unwrap().instances;
        assert_eq!((after.len(), &after[..3]), (4, &before[..3]));
        host.until("all are up", |host| after.iter().all(|&id| host.state(id) == Running));

        let mut now: Vec<u32> = after.iter().map(|&id| host.pid(id)).collect();
        assert_eq!(now[..2], pids[..2], "the survivors");
        assert_ne!(now[2], pids[2]);
        assert_eq!(
            host.states(before[2]),
            [Starting, Running, Stopping, Starting, Running],
            "never down for good"
        );
        let mut children = processes::children();
        now.sort_unstable();
        children.sort_unstable();
        assert_eq!(children, now);
    });
}

/// The machine's wall clock, taken away from where it belongs, and put back when this is dropped.
struct WallClock {
    real: Timespec,
    monotonic: pidherd::time::Instant,
}

impl WallClock {
    fn take() -> WallClock {
        WallClock {
            real: clock_gettime(ClockId::Realtime),
            monotonic: Clock::Monotonic.now(),
        }
    }

    /// Sets it so many seconds off the true time, which goes on meanwhile.
    fn set_off(&self, seconds: i64) {
        let passed = Clock::Monotonic.now().saturating_duration_since(self.monotonic);
        let nanos = self.real.tv_nsec + i64::from(passed.subsec_nanos());
        let time = Timespec {
            tv_sec: self.real.tv_sec + seconds + passed.as_secs() as i64 + nanos / 1_000_000_000,
            tv_nsec: nanos % 1_000_000_000,
        };
        clock_settime(ClockId::Realtime, time).unwrap();
    }
}

impl Drop for WallClock {
    fn drop(&mut self) {
        self.set_off(0);
    }
}

/// Sets the clock a day and ten years forward and back, which must make nothing happen, and must not keep
/// the instance from getting where it was going anyway. True time is restored at once.
fn goes_its_way(host: &mut Host, id: pidherd::InstanceId, to: StateName) {
    const DAY: i64 = 86_400;
    let before = host.states(id).len();
    let clock = WallClock::take();
    for days in [1, -1, 3_652, -3_652] {
        clock.set_off(days * DAY);
        host.nothing_for(ms(5));
    }
    host.until("it has gone on", |host| host.states(id).len() > before);
    drop(clock);
    let steps = host.steps(id);
    assert_eq!(steps[before].to, to, "{}", host.story());
    let took = steps[before].at.saturating_duration_since(steps[before - 1].at);
    assert!(took >= ms(400), "{took:?}");
}

#[test]
fn a_wall_clock_set_days_and_years_forward_and_back_changes_nothing() {
    // Other programs of the machine can see the change for half a second, so the test runs only on request.
    if std::env::var_os("PIDHERD_TEST_SET_CLOCK").is_none() {
        return skipped("it sets the machine's clock; PIDHERD_TEST_SET_CLOCK=1 allows that");
    }
    if !root_or_skip("it sets the machine's clock") {
        return;
    }
    if let Err(errno) = clock_settime(ClockId::Realtime, clock_gettime(ClockId::Realtime)) {
        return skipped(&format!("the machine's clock can't be set: {errno}"));
    }
    isolated(|| {
        let policy = Policy::new()
            .startup(Startup::Grace(ms(400)))
            .stop(term(Scope::Process, ms(400)))
            .backoff(linear(ms(400)));
        let mut host = Host::new();
        let id = host.start(sh("trap '' TERM; echo ready; read never"), policy.clone());
        assert_eq!(host.line(id), "ready");
        goes_its_way(&mut host, id, Running);
        host.supervisor.stop(id).unwrap();
        host.take_events();
        goes_its_way(&mut host, id, Stopped);
        let id = host.start(Command::new("/no/such"), policy);
        goes_its_way(&mut host, id, Starting);
    });
}

#[test]
fn the_only_timer_is_on_a_clock_that_cannot_be_set() {
    isolated(|| {
        let policy = at_once().startup(Startup::Grace(LONG));
        let mut host = Host::new();
        host.start(sleeper(), policy);
        host.start(Command::new("/no/such"), at_once());
        let timers: Vec<String> = fs::read_dir("/proc/self/fdinfo")
            .unwrap()
            .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok())
            .filter(|info| info.contains("clockid:"))
            .collect();
        assert_eq!(timers.len(), 1);
        let clock = format!("clockid: {}\n", libc::CLOCK_MONOTONIC);
        assert!(timers[0].contains(&clock), "{}", timers[0]);
    });
}
