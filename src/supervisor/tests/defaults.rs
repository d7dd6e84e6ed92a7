//! The tables of defaults and of waits in the guide, from the code's own values. `PIDHERD_UPDATE_GUIDE=1` writes them
//! anew. A setting that is new does not compile here before it has a row.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::super::builder::Builder;
use crate::child::{DROP_WAIT, KILL_WAIT};
use crate::command::{Command, Exchange, Lifetime, OpenFile};
use crate::engine::core::SLICE;
use crate::engine::drop::LAST_PATIENCE;
use crate::engine::reports::LONGEST_EXTENSION;
use crate::engine::spec::GroupSpec;
use crate::group::Rolling;
use crate::lifecycle::{
    CrashBudget, Delay, DelayFrom, ExitSet, Policy, Restart, RunTimeout, Rung, Scope, Startup, StopLadder,
};
use crate::notify::{DATAGRAM_MAX, DESCRIPTOR_NAME_MAX, NotifyAccess, STATUS_MAX};
use crate::pidfd::STATUS_WAIT;
use crate::signal::Signal;
use crate::timerfd::Clock;

/// Compares a table with its file in the guide, or writes the file.
fn agrees(name: &str, head: &str, rows: &[[String; 3]]) {
    let mut table = format!("{head}\n|---|---|---|\n");
    for [first, second, third] in rows {
        // Writing to a text does not fail.
        let _infallible = writeln!(table, "| {first} | {second} | {third} |");
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/guide/kernels")
        .join(name);
    if std::env::var_os("PIDHERD_UPDATE_GUIDE").is_some() {
        fs::write(&file, &table).unwrap();
    }
    assert_eq!(
        fs::read_to_string(&file).unwrap_or_default(),
        table,
        "PIDHERD_UPDATE_GUIDE=1 writes {name}"
    );
}

fn row(setting: &str, default: impl ToString, range: impl ToString) -> [String; 3] {
    let (of, name) = setting.split_once("::").unwrap();
    let path = match of {
        "Builder" => "crate::supervisor::",
        "Rolling" => "crate::group::",
        "Rung" => "crate::lifecycle::",
        _ => "crate::",
    };
    [
        format!("[`{of}::{name}`]({path}{of}::{name})"),
        default.to_string(),
        range.to_string(),
    ]
}

fn time(time: Duration) -> String {
    match time {
        Duration::ZERO => "0".to_owned(),
        Duration::MAX => "no limit".to_owned(),
        time if time.subsec_millis() == 0 => format!("{} s", time.as_secs()),
        time => format!("{} ms", time.as_millis()),
    }
}

fn number(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|part| str::from_utf8(part).unwrap())
        .collect();
    groups.join(",")
}

fn or_none<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "none".to_owned(), text)
}

fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn ends(set: ExitSet) -> &'static str {
    match set {
        ExitSet::SUCCESS => "exit code 0",
        ExitSet::EMPTY => "none",
        other => panic!("{other:?} has no words here"),
    }
}

fn delay(delay: Delay) -> String {
    match delay {
        Delay::NONE => "none".to_owned(),
        Delay::Linear { step, cap } => format!(
            "{} after the first one, {} more each time; {}",
            time(step),
            time(step),
            time(cap)
        ),
        other => panic!("{other:?} has no words here"),
    }
}

fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Process => "to the process alone",
        Scope::ProcessGroup => "to the process group",
        Scope::Cgroup => "to the cgroup",
    }
}

fn ladder(ladder: &StopLadder) -> String {
    let rungs = ladder.rungs.iter().map(|rung| {
        let Rung::Signal { signal, scope, wait } = *rung else {
            panic!("no ladder has a command by default");
        };
        assert_eq!(scope, ladder.kill, "the words are for one scope");
        format!("{signal}, {}, ", time(wait))
    });
    format!("{}{}; {}", rungs.collect::<String>(), Signal::KILL, scope(ladder.kill))
}

fn startup(startup: Startup) -> String {
    match startup {
        Startup::Grace(grace) => format!("a grace of {}", time(grace)),
        other => panic!("{other:?} has no words here"),
    }
}

/// Does not compile with a setting that has no place here. Give it a row in the functions below as well.
fn of_policy() -> Vec<[String; 3]> {
    let policy = Policy::default();
    let Policy {
        startup: _,
        watchdog: _,
        run_timeout: _,
        before_run: _,
        after_run: _,
        restart: _,
        expected: _,
        prevent_restart: _,
        force_restart: _,
        early_exit_fails: _,
        start_retries: _,
        retry_permanent: _,
        count_shortages: _,
        backoff: _,
        restart_delay: _,
        restart_delay_from: _,
        immediate_restarts: _,
        jitter: _,
        crash_budget: _,
        shared_budget: _,
        strategy: _,
        auto_shutdown: _,
        stable_after: _,
        cool_off: _,
        stop: _,
        watchdog_stop: _,
    } = &policy;
    let rows = [
        of_runs(&policy),
        of_restarts(&policy),
        of_waits(&policy),
        of_stops(&policy),
    ]
    .concat();
    assert_eq!(rows.len(), 28, "26 settings of a policy, and two of a ladder");
    rows
}

fn of_runs(policy: &Policy) -> Vec<[String; 3]> {
    let since_spawn = "time since the spawn of the command, more than 0";
    let none = |_| panic!("a default has no words here");
    vec![
        row("Policy::startup", startup(policy.startup), "time since execve"),
        row(
            "Policy::watchdog",
            or_none(policy.watchdog, time),
            "silence of a running process, more than 0",
        ),
        row(
            "Policy::run_timeout",
            or_none(policy.run_timeout, none),
            "time since the spawn, more than 0",
        ),
        row("Policy::before_run", or_none(policy.before_run, time), since_spawn),
        row("Policy::after_run", or_none(policy.after_run, time), since_spawn),
    ]
}

fn of_restarts(policy: &Policy) -> Vec<[String; 3]> {
    assert_eq!(policy.restart, Restart::OnUnexpected);
    let sets = "codes and signals";
    let (after, retries) = (
        "after an unexpected end",
        "retries after failed starts in a row, any number",
    );
    vec![
        row("Policy::restart", after, "always, after an unexpected end, never"),
        row("Policy::expected", ends(policy.expected), sets),
        row("Policy::prevent_restart", ends(policy.prevent_restart), sets),
        row(
            "Policy::force_restart",
            ends(policy.force_restart),
            "codes and signals, none of `prevent_restart`",
        ),
        row("Policy::early_exit_fails", yes(policy.early_exit_fails), ""),
        row("Policy::start_retries", policy.start_retries, retries),
        row("Policy::retry_permanent", yes(policy.retry_permanent), ""),
        row("Policy::count_shortages", yes(policy.count_shortages), ""),
    ]
}

fn of_waits(policy: &Policy) -> Vec<[String; 3]> {
    assert_eq!(policy.restart_delay_from, DelayFrom::End);
    let (pause, brief) = (time(Policy::BRIEF_RUN_PAUSE), time(Policy::BRIEF_RUN));
    let least = format!("time; at least {pause} after a run of less than {brief} that ended as expected");
    let budget = |budget: CrashBudget| format!("{} restarts in {}", budget.max, time(budget.window));
    let most = number(CrashBudget::LIMIT.into());
    let most = format!("at most {most} restarts; a time of more than 0");
    let cool_off = policy.cool_off.map_or_else(|| "never".to_owned(), time);
    vec![
        row("Policy::backoff", delay(policy.backoff), "time after a failed start"),
        row("Policy::restart_delay", delay(policy.restart_delay), least),
        row(
            "Policy::restart_delay_from",
            "the end of the run",
            "the end or the start of the run",
        ),
        row(
            "Policy::immediate_restarts",
            policy.immediate_restarts,
            "restarts, any number",
        ),
        row("Policy::jitter", policy.jitter, "percent of each wait, 0 to 100"),
        row("Policy::crash_budget", or_none(policy.crash_budget, budget), &most),
        row(
            "Policy::shared_budget",
            or_none(policy.shared_budget, budget),
            format!("for all instances together; {most}"),
        ),
        row(
            "Policy::strategy",
            policy.strategy,
            "one-for-one, one-for-all, rest-for-one",
        ),
        row("Policy::auto_shutdown", policy.auto_shutdown, "never, any-end, all-end"),
        row("Policy::stable_after", time(policy.stable_after), "uptime"),
        row("Policy::cool_off", cool_off, "time in `Fatal`"),
    ]
}

fn of_stops(policy: &Policy) -> Vec<[String; 3]> {
    assert!(policy.watchdog_stop.is_none());
    let most = format!("at most {} rungs before SIGKILL", StopLadder::LIMIT);
    let patience = time(policy.stop.patience);
    vec![
        row("Policy::stop", ladder(&policy.stop), most),
        row("Policy::watchdog_stop", "as `Policy::stop`", "the same scope"),
        row(
            "Rung::command",
            "none",
            "the limit: time since the spawn of the command, more than 0",
        ),
        row(
            "StopLadder::patience",
            patience,
            "time until a process counts as unkillable",
        ),
    ]
}

fn of_groups() -> Vec<[String; 3]> {
    let spec = GroupSpec::new("a", Command::new("a"));
    let GroupSpec {
        instances,
        policy,
        cgroup,
        limits,
        notify,
        order,
        before,
        after,
        ..
    } = &spec;
    assert_eq!(*policy, Policy::default());
    assert!(cgroup.is_none() && limits.is_empty() && before.is_none() && after.is_none());
    assert!(order.after.is_empty() && order.requires.is_empty());
    assert_eq!(spec.command(0).get_lifetime(), Lifetime::Detached);
    assert_eq!(notify.access, NotifyAccess::All);
    let most = number(GroupSpec::MOST_INSTANCES as usize);
    let stored = GroupSpec::MOST_STORED_DESCRIPTORS;
    let Rolling { max_unavailable, surge } = Rolling::default();
    vec![
        row("GroupSpec::instances", instances, format!("0 to {most}")),
        row(
            "GroupSpec::ready_fd",
            or_none(notify.ready_fd, |number| number.to_string()),
            "a number of the child, 3 or more",
        ),
        row("GroupSpec::notify_socket", yes(notify.socket), ""),
        row(
            "GroupSpec::notify_access",
            "all",
            "none, the main process, its descendants, all",
        ),
        row(
            "GroupSpec::descriptor_store",
            notify.most_stored,
            format!("descriptors, 0 to {stored}"),
        ),
        row("GroupSpec::lifetime", "detached", "detached, bound, bound or by signal"),
        row("GroupSpec::cgroup", "none", "a directory"),
        row("GroupSpec::limits", "none", "those of the cgroup"),
        row("GroupSpec::after", "none", "groups"),
        row("GroupSpec::requires", "none", "groups"),
        row("Rolling::max_unavailable", max_unavailable, "instances, 1 or more"),
        row(
            "Rolling::surge",
            surge,
            format!("instances; {most} with those of the group"),
        ),
    ]
}

fn of_builder() -> Vec<[String; 3]> {
    let Builder {
        clock,
        signals,
        events,
        runs,
        slice,
        spawns_in_flight,
        seed,
        notify_path,
        adopt,
        state_file,
    } = Builder::default();
    assert_eq!(clock, Clock::Monotonic);
    assert!(signals.is_none() && seed.is_none() && notify_path.is_none() && state_file.is_none());
    let most_runs = number(Builder::default().remembered_runs(usize::MAX).runs);
    vec![
        row("Builder::clock", "monotonic", "monotonic, boottime"),
        row("Builder::signals", "none", ""),
        row(
            "Builder::event_capacity",
            number(events),
            "events; the oldest is dropped and counted",
        ),
        row(
            "Builder::remembered_runs",
            runs,
            format!("runs of each instance, 0 to {most_runs}"),
        ),
        row("Builder::slice", time(slice), "the time of one call"),
        row(
            "Builder::spawns_in_flight",
            spawns_in_flight,
            "processes between clone and execve; with 0 each spawn waits",
        ),
        row("Builder::seed", "from the time and the PID", ""),
        row(
            "Builder::notify_path",
            "an abstract address",
            "an absolute path of at most 107 bytes",
        ),
        row("Builder::adopt_orphans", yes(adopt), ""),
        row("Builder::state_file", "none", "a path"),
    ]
}

/// The setting of an exchange as its Debug text shows it.
fn of_exchange(exchange: &Exchange<'_>, field: &str) -> String {
    let text = format!("{exchange:?}");
    let (_, rest) = text.split_once(&format!(" {field}: ")).unwrap();
    rest.split([',', ' ']).next().unwrap().to_owned()
}

fn of_commands() -> Vec<[String; 3]> {
    let command = Command::new("a");
    let exchange = command.exchange();
    assert!(command.get_signal_mask().is_empty() && command.get_ignored_signals().is_empty());
    assert_eq!(command.get_lifetime(), Lifetime::Detached);
    assert!(command.get_inheritable_capabilities().is_empty() && command.get_ambient_capabilities().is_empty());
    let of_host = [command.get_umask(), command.get_uid(), command.get_gid()];
    assert!(of_host.iter().all(Option::is_none) && command.get_nice().is_none());
    for none in ["time_limit", "linger"] {
        assert_eq!(of_exchange(&exchange, none), "None");
    }
    assert_eq!(of_exchange(&exchange, "output_limit"), usize::MAX.to_string());
    assert_eq!(of_exchange(&exchange, "stop_when_full"), "false");
    let stop = format!(
        "{}, {}, {}",
        of_exchange(&exchange, "signal"),
        of_exchange(&exchange, "patience"),
        Signal::KILL
    );
    let mode = format!("{:?}", OpenFile::append("a"));
    assert!(mode.contains(&format!("mode: {}", 0o666)), "{mode}");
    vec![
        row("Command::stdin", "the host's", "the same for output and errors"),
        row("Command::env", "the host's, without those about its own service", ""),
        row("Command::umask", "the host's", "0 to 0777"),
        row("Command::uid", "the host's", "the same for the groups"),
        row("Command::nice", "the host's", "-20 to 19"),
        row("Command::signal_mask", "none is blocked", ""),
        row("Command::ignored_signals", "none is ignored", ""),
        row("Command::ambient_capabilities", "none", "the same for inheritable ones"),
        row("Command::process_group", "the host's; its own under a supervisor", ""),
        row("OpenFile::mode", "0666, less the host's umask", "0 to 07777"),
        row("Exchange::time_limit", "no limit", "time since execve"),
        row("Exchange::output_limit", "no limit", "bytes of each stream"),
        row("Exchange::linger", "until the streams are closed", "time after the end"),
        row("Exchange::stop", stop.replace("5s", &time(Duration::from_secs(5))), ""),
    ]
}

#[test]
fn the_guide_has_every_default() {
    let rows = [of_policy(), of_groups(), of_builder(), of_commands()].concat();
    agrees("defaults.md", "| setting | default | unit, range |", &rows);
}

/// The largest and smallest values of the table are accepted, and the next ones are refused.
#[test]
fn the_ranges_in_the_guide_are_those_of_the_checks() {
    let command = || Command::new("a");
    let compiles = |command: Command| command.compile().is_ok();
    assert!(compiles(command().umask(0o777)) && !compiles(command().umask(0o1000)));
    for (nice, is_right) in [(-21, false), (-20, true), (19, true), (20, false)] {
        assert_eq!(compiles(command().nice(nice)), is_right, "{nice}");
    }
    let file = |mode| command().stdout(OpenFile::append("a").mode(mode));
    assert!(compiles(file(0o7777)) && !compiles(file(0o10000)));
    assert!(compiles(command().fd(3, crate::Stdio::null())) && !compiles(command().fd(2, crate::Stdio::null())));

    let valid = |policy: Policy| policy.validate().is_ok();
    let policy = Policy::new;
    let short = Duration::from_nanos(1);
    assert!(valid(policy().jitter(100)) && !valid(policy().jitter(101)));
    assert!(valid(policy().watchdog(short)) && !valid(policy().watchdog(Duration::ZERO)));
    assert!(valid(policy().before_run(short)) && !valid(policy().before_run(Duration::ZERO)));
    assert!(valid(policy().after_run(short)) && !valid(policy().after_run(Duration::ZERO)));
    let command_for = |limit| policy().stop(policy().stop.then_command(0, limit, Duration::ZERO));
    assert!(valid(command_for(short)) && !valid(command_for(Duration::ZERO)));
    let limit = |after| policy().run_timeout(RunTimeout::new(after));
    assert!(valid(limit(short)) && !valid(limit(Duration::ZERO)));
    let budget = |max, window| policy().crash_budget(CrashBudget::new(max, window));
    assert!(valid(budget(CrashBudget::LIMIT, short)) && !valid(budget(CrashBudget::LIMIT + 1, short)));
    assert!(!valid(budget(1, Duration::ZERO)));
    assert!(valid(policy().start_retries(u32::MAX).immediate_restarts(u32::MAX)));

    let accepts = |spec: GroupSpec| spec.check().is_ok();
    let spec = || GroupSpec::new("a", command());
    let most = GroupSpec::MOST_INSTANCES;
    assert!(accepts(spec().instances(0)) && accepts(spec().instances(most)) && !accepts(spec().instances(most + 1)));
    let most = GroupSpec::MOST_STORED_DESCRIPTORS;
    assert!(accepts(spec().descriptor_store(most)) && !accepts(spec().descriptor_store(most + 1)));
}

#[test]
fn the_guide_has_every_wait() {
    let call = |call: &str, what: &str, most: String| [call.to_owned(), what.to_owned(), most];
    let rows = [
        call(
            "every call of a supervisor, except for the ones below",
            "nothing",
            format!(
                "a [slice](crate::supervisor::Builder::slice) of {}, and one spawn",
                time(SLICE)
            ),
        ),
        call(
            "a spawn that cannot be in flight ([`Spawner::begin`](crate::Spawner::begin)), [`Spawner::spawn`](crate::Spawner::spawn)",
            "the execve of the program",
            "no limit".into(),
        ),
        call(
            "[`Supervisor::add`](crate::Supervisor::add), [`Command::compile`](crate::Command::compile) with a user *name*",
            "the name service",
            "no limit".into(),
        ),
        call(
            "[`Supervisor::hand_over`](crate::Supervisor::hand_over)",
            "the execve of the program",
            "no limit".into(),
        ),
        call(
            "dropping a supervisor",
            "the end of its processes after SIGKILL",
            time(LAST_PATIENCE),
        ),
        call(
            "dropping a [`Child`](crate::Child) or a [`Launcher`](crate::Launcher)",
            "the end of the processes after SIGKILL",
            time(DROP_WAIT),
        ),
        call(
            "[`Child::stop`](crate::Child::stop)",
            "the end after the signal, and after SIGKILL",
            format!("the patience, and {}", time(KILL_WAIT)),
        ),
        call(
            "[`Child::wait`](crate::Child::wait), [`Command::status`](crate::Command::status)",
            "the end of the process",
            "no limit".into(),
        ),
        call(
            "[`PidFd::reap`](crate::PidFd::reap), [`PidFd::peek`](crate::PidFd::peek)",
            "the status of a process that has ended",
            time(STATUS_WAIT),
        ),
        call(
            "*not a call:* `EXTEND_TIMEOUT_USEC=` of a process",
            "its start or the next step of its stop",
            format!("{} each time", time(LONGEST_EXTENSION)),
        ),
    ];
    agrees("waits.md", "| call | waits for | at most |", &rows);
    let sizes = [DATAGRAM_MAX, STATUS_MAX, DESCRIPTOR_NAME_MAX].map(number);
    let costs = include_str!("../../guide/kernels/costs.md");
    let sentence = format!(
        "at most {} bytes, its `STATUS=` {}, and the name of a descriptor {}",
        sizes[0], sizes[1], sizes[2]
    );
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(costs).contains(&sentence), "{sentence}");
}
