//! The kinds of deaths, and the right verdict of each.

use std::time::Duration;

use fastrand::Rng;
use pidherd::cgroup::{Limits, OomLimit};
use pidherd::lifecycle::{Policy, RunTimeout, Scope, StopLadder};
use pidherd::supervisor::End;
use pidherd::{Command, Signal};

use crate::common::kernel_since;
use crate::common::memory::{EATING, EATS, LIMIT};
use crate::ground::{Ground, Place};
use crate::host::{ms, sh};
use crate::run::Step::{
    GoesOn, IsReaped, IsZombie, Kills, KillsCgroup, Reads, ReportFailed, Signal as Sends, Stop, StopByKill, WholeAbove,
};
use crate::run::{Death, Expected, Step, once};

/// A limit that is never reached, and that enables the controller.
const HIGH: u64 = 4 << 30;
const KILLED: End = End::KilledFromOutside(Signal::KILL);
/// The shell ignores SIGTERM.
const STUBBORN: &str = "trap '' TERM; echo up; read go";

type Kind = fn(&Ground, &mut Rng) -> Death;

const EVERYWHERE: &[Kind] = &[
    exit_code,
    signal_from_outside,
    crash,
    quit,
    child_killed,
    stop,
    stop_with_exit,
    stop_escalated,
    stop_by_kill,
    run_timeout,
    run_timeout_escalated,
    unhealthy,
    unhealthy_escalated,
    stop_after_the_end,
    report_after_the_end,
    reaped_elsewhere,
    not_spawned,
];

const WITH_MEMORY: &[Kind] = &[
    own_limit,
    first_act,
    own_limit_beside_a_child,
    child_then_exit,
    child_with_its_group,
    child_then_kill,
    children_then_kill,
    child_then_term,
    child_then_crash,
    child_then_stop,
    child_then_stop_escalated,
    limit_above,
    limit_above_with_group,
    limit_above_beside_a_child,
    kill_below_a_limit,
    kill_then_child,
    own_limit_then_stop,
    own_limit_then_report,
    own_limit_reaped_elsewhere,
    stop_then_own_limit,
];

/// Some deaths of processes that live at the same time, at most so many.
pub fn together(ground: &Ground, random: &mut Rng, most: usize) -> Vec<Death> {
    if ground.memory && most >= 3 && random.u8(..16) == 0 {
        return whole_above(ground);
    }
    let count = random.usize(1..=most.min(6));
    (0..count).map(|_| one(ground, random)).collect()
}

fn one(ground: &Ground, random: &mut Rng) -> Death {
    let pick = |random: &mut Rng, kinds: &[Kind]| kinds[random.usize(..kinds.len())](ground, random);
    match random.u8(..16) {
        0..8 if ground.memory => pick(random, WITH_MEMORY),
        8 if ground.pids => fork_refused(ground, random),
        9 if ground.dir(Place::Plain).is_some() && kernel_since(5, 14) => cgroup_killed(ground, random),
        _ => pick(random, EVERYWHERE),
    }
}

fn death(ground: &Ground, kind: &'static str, command: Command, steps: Vec<Step>, end: End) -> Death {
    Death {
        kind,
        place: Place::Plain,
        command,
        limits: Limits::new(),
        policy: once(scope(ground)),
        steps,
        end: Expected::Is(end),
        kills: (0, 0),
        refused: false,
    }
}

fn scope(ground: &Ground) -> Scope {
    match ground.dir(Place::Plain) {
        Some(_) => Scope::Cgroup,
        None => Scope::ProcessGroup,
    }
}

/// A policy with a short wait after SIGTERM.
fn impatient(ground: &Ground) -> Policy {
    once(scope(ground)).stop(StopLadder::signal(Signal::TERM, scope(ground), ms(30)))
}

fn timeout(policy: Policy) -> Policy {
    let after = ms(40);
    let extra = Duration::ZERO;
    policy.run_timeout(Some(RunTimeout { after, extra }))
}

fn one_of<T: Copy>(random: &mut Rng, all: &[T]) -> T {
    all[random.usize(..all.len())]
}

// Without a controller.

fn exit_code(ground: &Ground, random: &mut Rng) -> Death {
    let code = one_of(random, &[0, 1, 3, 100, 126, 127, 137, 139, 255]);
    let command = sh(&format!("read go; exit {code}"));
    death(ground, "exit", command, vec![GoesOn], End::Exited(code))
}

fn signal_from_outside(ground: &Ground, random: &mut Rng) -> Death {
    use Signal as S;
    let signal = one_of(
        random,
        &[S::KILL, S::KILL, S::TERM, S::INT, S::HUP, S::USR1, S::USR2, S::ALRM],
    );
    let script = one_of(random, &["read go", "sleep 1000 & echo up; read go"]);
    let mut steps = vec![Sends(signal)];
    if script.contains("up") {
        steps.insert(0, Reads("up"));
    }
    death(
        ground,
        "signal from outside",
        sh(script),
        steps,
        End::KilledFromOutside(signal),
    )
}

fn crash(ground: &Ground, random: &mut Rng) -> Death {
    let (name, signal) = one_of(
        random,
        &[
            ("SEGV", Signal::SEGV),
            ("ABRT", Signal::ABRT),
            ("BUS", Signal::BUS),
            ("FPE", Signal::FPE),
            ("ILL", Signal::ILL),
        ],
    );
    let dumps = random.bool();
    let most = if dumps { "unlimited" } else { "0" };
    let core = ground.dumps[usize::from(dumps)];
    let kind = if core { "crash with a core dump" } else { "crash" };
    let command = sh(&format!("ulimit -c {most}; read go; kill -{name} $$"));
    death(ground, kind, command, vec![GoesOn], End::Crashed { signal, core })
}

fn quit(ground: &Ground, random: &mut Rng) -> Death {
    let dumps = random.bool();
    let most = if dumps { "unlimited" } else { "0" };
    let command = sh(&format!("ulimit -c {most}; echo up; read go"));
    let signal = Signal::QUIT;
    let end = match ground.dumps[usize::from(dumps)] {
        true => End::Crashed { signal, core: true },
        false => End::KilledFromOutside(signal),
    };
    death(
        ground,
        "SIGQUIT from outside",
        command,
        vec![Reads("up"), Sends(signal)],
        end,
    )
}

fn child_killed(ground: &Ground, _: &mut Rng) -> Death {
    let command = sh("sleep 1000 & kill -KILL $!; wait $!; exit 4");
    death(ground, "exit after a child was killed", command, vec![], End::Exited(4))
}

fn stop(ground: &Ground, _: &mut Rng) -> Death {
    death(ground, "stop", sh("read go"), vec![Stop], End::Stopped)
}

fn stop_with_exit(ground: &Ground, _: &mut Rng) -> Death {
    let command = sh("trap 'exit 5' TERM; echo up; read go");
    death(
        ground,
        "stop, ended by exit",
        command,
        vec![Reads("up"), Stop],
        End::Stopped,
    )
}

fn stop_escalated(ground: &Ground, _: &mut Rng) -> Death {
    Death {
        policy: impatient(ground),
        ..death(
            ground,
            "stop with escalation",
            sh(STUBBORN),
            vec![Reads("up"), Stop],
            End::StopTimeout,
        )
    }
}

fn stop_by_kill(ground: &Ground, _: &mut Rng) -> Death {
    let steps = vec![Reads("up"), StopByKill];
    death(ground, "stop by SIGKILL", sh(STUBBORN), steps, End::Stopped)
}

fn run_timeout(ground: &Ground, _: &mut Rng) -> Death {
    Death {
        policy: timeout(once(scope(ground))),
        ..death(ground, "run timeout", sh("read go"), vec![], End::TimedOut)
    }
}

fn run_timeout_escalated(ground: &Ground, _: &mut Rng) -> Death {
    Death {
        policy: timeout(impatient(ground)),
        ..death(
            ground,
            "run timeout with escalation",
            sh("trap '' TERM; read go"),
            vec![],
            End::TimedOut,
        )
    }
}

fn reported(reason: &'static str) -> (Step, End) {
    let end = End::Unhealthy { reason: reason.into() };
    (ReportFailed(reason), end)
}

fn unhealthy(ground: &Ground, _: &mut Rng) -> Death {
    let (report, end) = reported("no answer");
    death(ground, "failed health report", sh("read go"), vec![report], end)
}

fn unhealthy_escalated(ground: &Ground, _: &mut Rng) -> Death {
    let (report, end) = reported("");
    Death {
        policy: impatient(ground),
        ..death(
            ground,
            "failed health report with escalation",
            sh(STUBBORN),
            vec![Reads("up"), report],
            end,
        )
    }
}

fn stop_after_the_end(ground: &Ground, random: &mut Rng) -> Death {
    let (step, end) = match random.bool() {
        true => (GoesOn, End::Exited(6)),
        false => (Sends(Signal::KILL), KILLED),
    };
    let steps = vec![step, IsZombie, Stop];
    death(ground, "stop after the end", sh("read go; exit 6"), steps, end)
}

fn report_after_the_end(ground: &Ground, _: &mut Rng) -> Death {
    let steps = vec![Sends(Signal::KILL), IsZombie, ReportFailed("silent")];
    death(
        ground,
        "failed health report after the end",
        sh("read go"),
        steps,
        KILLED,
    )
}

fn reaped_elsewhere(ground: &Ground, random: &mut Rng) -> Death {
    let (step, end) = match random.bool() {
        true => (GoesOn, End::Exited(3)),
        false => (Sends(Signal::KILL), KILLED),
    };
    let end = if ground.keeps_status { end } else { End::Unknown };
    let steps = vec![step, IsReaped];
    death(
        ground,
        "reaped by another part of the host",
        sh("read go; exit 3"),
        steps,
        end,
    )
}

fn not_spawned(ground: &Ground, _: &mut Rng) -> Death {
    Death {
        end: Expected::NotSpawned,
        ..death(
            ground,
            "not spawned",
            Command::new("/does/not/exist"),
            vec![],
            End::Unknown,
        )
    }
}

fn cgroup_killed(ground: &Ground, _: &mut Rng) -> Death {
    let command = sh("sleep 1000 & echo up; read go");
    death(
        ground,
        "cgroup.kill from outside",
        command,
        vec![Reads("up"), KillsCgroup],
        KILLED,
    )
}

/// The first act of the program is a fork that is one too many.
fn fork_refused(ground: &Ground, _: &mut Rng) -> Death {
    Death {
        limits: Limits::new().pids_max(1),
        end: Expected::OtherCode(7),
        refused: true,
        ..death(ground, "fork refused", sh("(exit 0); exit 7"), vec![], End::Unknown)
    }
}

// With the memory controller.

/// The end of a process that the kernel has killed: with all of its cgroup, or as the only one that ever was in it.
/// Otherwise the kernel does not tell which process it has killed.
fn oom(ground: &Ground, limit: OomLimit, whole: bool, single: bool) -> End {
    match whole || (single && ground.pids && ground.peak) {
        true => End::OutOfMemory(limit),
        false => End::MaybeOutOfMemory(limit),
    }
}

fn own() -> Limits {
    Limits::new().memory_max(LIMIT)
}

/// Of `count` processes, the kernel kills one or all. It counts the one that it has chosen once more if it kills all.
fn kills(whole: bool, count: u64) -> (u64, u64) {
    if whole { (count, count + 1) } else { (1, 1) }
}

fn eats() -> Command {
    sh(&format!("read go; exec {EATS}"))
}

/// A child reaches the limit, and then the process does something else.
fn child_eats(then: &str) -> Command {
    sh(&format!("{EATS} & wait $!; echo killed; {then}"))
}

fn own_limit(ground: &Ground, random: &mut Rng) -> Death {
    let whole = random.bool();
    let end = oom(ground, OomLimit::Own, whole, true);
    Death {
        limits: own().memory_oom_group(whole),
        kills: kills(whole, 1),
        ..death(ground, "own limit", eats(), vec![GoesOn], end)
    }
}

fn first_act(ground: &Ground, random: &mut Rng) -> Death {
    let awk = Command::new("/usr/bin/awk").arg(EATING);
    Death {
        command: awk,
        steps: vec![],
        kind: "own limit, exceeded by the first act",
        ..own_limit(ground, random)
    }
}

fn own_limit_beside_a_child(ground: &Ground, random: &mut Rng) -> Death {
    let whole = random.bool();
    let command = sh(&format!("sleep 1000 & echo up; read go; exec {EATS}"));
    let end = oom(ground, OomLimit::Own, whole, false);
    Death {
        limits: own().memory_oom_group(whole),
        kills: kills(whole, 2),
        ..death(
            ground,
            "own limit, beside a child",
            command,
            vec![Reads("up"), GoesOn],
            end,
        )
    }
}

fn after_a_child(ground: &Ground, kind: &'static str, then: &str, mut steps: Vec<Step>, end: End) -> Death {
    steps.insert(0, Reads("killed"));
    Death {
        limits: own(),
        kills: (1, 1),
        ..death(ground, kind, child_eats(then), steps, end)
    }
}

fn child_then_exit(ground: &Ground, random: &mut Rng) -> Death {
    let code = one_of(random, &[0, 9, 137]);
    let then = format!("read go; exit {code}");
    after_a_child(
        ground,
        "child out of memory, then exit",
        &then,
        vec![GoesOn],
        End::Exited(code),
    )
}

fn child_with_its_group(ground: &Ground, _: &mut Rng) -> Death {
    Death {
        limits: own().memory_oom_group(true),
        steps: vec![],
        kills: kills(true, 2),
        ..after_a_child(
            ground,
            "child out of memory, with its group",
            "",
            vec![],
            End::OutOfMemory(OomLimit::Own),
        )
    }
}

fn child_then_kill(ground: &Ground, _: &mut Rng) -> Death {
    let end = End::MaybeOutOfMemory(OomLimit::Own);
    let steps = vec![Sends(Signal::KILL)];
    after_a_child(
        ground,
        "child out of memory, then SIGKILL from outside",
        "read go",
        steps,
        end,
    )
}

fn children_then_kill(ground: &Ground, _: &mut Rng) -> Death {
    let then = format!("{EATS} & wait $!; echo another; read go");
    let steps = vec![Reads("another"), Sends(Signal::KILL)];
    let end = End::MaybeOutOfMemory(OomLimit::Own);
    Death {
        kills: (2, 2),
        ..after_a_child(
            ground,
            "two children out of memory, then SIGKILL from outside",
            &then,
            steps,
            end,
        )
    }
}

fn child_then_term(ground: &Ground, _: &mut Rng) -> Death {
    let steps = vec![Sends(Signal::TERM)];
    let end = End::KilledFromOutside(Signal::TERM);
    after_a_child(
        ground,
        "child out of memory, then SIGTERM from outside",
        "read go",
        steps,
        end,
    )
}

fn child_then_crash(ground: &Ground, _: &mut Rng) -> Death {
    let end = End::Crashed {
        signal: Signal::SEGV,
        core: ground.dumps[0],
    };
    let then = "ulimit -c 0; kill -SEGV $$";
    after_a_child(ground, "child out of memory, then crash", then, vec![], end)
}

fn child_then_stop(ground: &Ground, _: &mut Rng) -> Death {
    after_a_child(
        ground,
        "child out of memory, then stop",
        "read go",
        vec![Stop],
        End::Stopped,
    )
}

fn child_then_stop_escalated(ground: &Ground, _: &mut Rng) -> Death {
    let steps = vec![Reads("up"), Stop];
    Death {
        policy: impatient(ground),
        ..after_a_child(
            ground,
            "child out of memory, then stop with escalation",
            STUBBORN,
            steps,
            End::StopTimeout,
        )
    }
}

/// A cgroup above with a limit, which is this many levels above.
fn above(random: &mut Rng) -> (Place, OomLimit) {
    match random.bool() {
        true => (Place::Near, OomLimit::Ancestor { levels: 1 }),
        false => (Place::Far, OomLimit::Ancestor { levels: 2 }),
    }
}

fn limit_above(ground: &Ground, random: &mut Rng) -> Death {
    let (place, limit) = above(random);
    Death {
        place,
        limits: Limits::new().memory_max(HIGH),
        kills: (1, 1),
        ..death(
            ground,
            "limit above",
            eats(),
            vec![GoesOn, IsZombie],
            oom(ground, limit, false, true),
        )
    }
}

fn limit_above_with_group(ground: &Ground, random: &mut Rng) -> Death {
    let (place, limit) = above(random);
    Death {
        place,
        limits: Limits::new().memory_max(HIGH).memory_oom_group(true),
        steps: vec![Reads("up"), GoesOn, IsZombie],
        kind: "limit above, with its group",
        kills: kills(true, 2),
        end: Expected::Is(oom(ground, limit, true, false)),
        ..own_limit_beside_a_child(ground, random)
    }
}

fn limit_above_beside_a_child(ground: &Ground, random: &mut Rng) -> Death {
    let (place, limit) = above(random);
    Death {
        limits: Limits::new().memory_max(HIGH),
        kind: "limit above, beside a child",
        place,
        kills: (1, 1),
        end: Expected::Is(oom(ground, limit, false, false)),
        ..limit_above_with_group(ground, random)
    }
}

fn kill_below_a_limit(ground: &Ground, random: &mut Rng) -> Death {
    Death {
        place: one_of(random, &[Place::Plain, Place::Near, Place::Far]),
        limits: own(),
        ..death(
            ground,
            "SIGKILL from outside, below a limit",
            sh("read go"),
            vec![Sends(Signal::KILL)],
            KILLED,
        )
    }
}

/// The process is killed from outside, and a child reaches the limit before the supervisor has looked.
fn kill_then_child(ground: &Ground, _: &mut Rng) -> Death {
    let command = sh(&format!("exec 3<&0; (read go <&3; exec {EATS}) & echo up; wait"));
    let steps = vec![Reads("up"), Sends(Signal::KILL), IsZombie, GoesOn, Kills(1)];
    let end = End::MaybeOutOfMemory(OomLimit::Own);
    Death {
        limits: own(),
        kills: (1, 1),
        ..death(
            ground,
            "SIGKILL from outside, then child out of memory",
            command,
            steps,
            end,
        )
    }
}

fn own_limit_then_stop(ground: &Ground, random: &mut Rng) -> Death {
    Death {
        steps: vec![GoesOn, IsZombie, one_of(random, &[|| Stop, || StopByKill])()],
        kind: "own limit, stop after the end",
        ..own_limit(ground, random)
    }
}

fn own_limit_then_report(ground: &Ground, random: &mut Rng) -> Death {
    Death {
        steps: vec![GoesOn, IsZombie, ReportFailed("slow")],
        kind: "own limit, failed health report after the end",
        ..own_limit(ground, random)
    }
}

fn own_limit_reaped_elsewhere(ground: &Ground, random: &mut Rng) -> Death {
    let death = Death {
        steps: vec![GoesOn, IsReaped],
        kind: "own limit, reaped by another part of the host",
        ..own_limit(ground, random)
    };
    match ground.keeps_status {
        true => death,
        false => Death {
            end: Expected::Is(End::Unknown),
            ..death
        },
    }
}

/// The reason of a stop counts, even if the kernel has killed the process meanwhile.
fn stop_then_own_limit(ground: &Ground, _: &mut Rng) -> Death {
    let command = sh(&format!("trap '' TERM; echo up; read go; exec {EATS}"));
    Death {
        limits: own(),
        kills: (1, 1),
        ..death(
            ground,
            "stop, then own limit",
            command,
            vec![Reads("up"), Stop, GoesOn],
            End::Stopped,
        )
    }
}

/// A process and its neighbours, which the kernel kills together with the cgroup above.
fn whole_above(ground: &Ground) -> Vec<Death> {
    let end = || oom(ground, OomLimit::Ancestor { levels: 1 }, false, true);
    let one = |command, steps| Death {
        place: Place::Near,
        limits: Limits::new().memory_max(HIGH),
        kills: kills(true, 1),
        ..death(ground, "cgroup above killed as a whole", command, steps, end())
    };
    let steps = vec![WholeAbove(true), GoesOn, IsZombie, WholeAbove(false)];
    vec![
        one(eats(), steps),
        one(sh("read go"), vec![]),
        one(sh("read go"), vec![]),
    ]
}
