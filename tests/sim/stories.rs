//! The simulated and the real supervisor tell the same story: one host, one script, the same events in the same order.

use std::collections::BTreeMap;
use std::time::Duration;

use pidherd::group::Rolling;
use pidherd::sim::{Behavior, Fork, Script, Simulation, SpawnFailure, Subject};
use pidherd::supervisor::Supervise;
use pidherd::{
    Command, CrashBudget, Delay, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder,
    Supervisor,
};
use rustix::event::{PollFd, PollFlags, poll};

use super::common::isolated;

/// A host's loop on either kernel: waits until there is something to do, and does it.
trait Loop: Supervise {
    fn turn(&mut self);
}

impl Loop for Supervisor {
    fn turn(&mut self) {
        poll(&mut [PollFd::new(self, PollFlags::IN)], None).unwrap();
        self.dispatch().unwrap();
    }
}

impl Loop for Simulation {
    fn turn(&mut self) {
        assert!(self.step().unwrap(), "nothing will ever happen again");
    }
}

/// What the host does when all instances are in a state.
#[derive(Clone, Copy, Debug)]
enum Act {
    Stop,
    Kill,
    Restart,
    Roll,
    Scale(u32),
    Signal(Signal),
    Remove,
}

struct Case {
    name: &'static str,
    spec: fn() -> GroupSpec,
    /// What the program does, as a script for sh(1) and as one for the simulation.
    behavior: fn() -> Behavior,
    acts: &'static [(StateName, Act)],
    /// The last state of all instances.
    last: StateName,
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Up to a hundred milliseconds between things that have an order.
const STEP: Duration = ms(100);

fn policy() -> Policy {
    Policy::new()
        .startup(Startup::Grace(Duration::ZERO))
        .restart(Restart::Never)
        .start_retries(0)
        .early_exit_fails(true)
        .backoff(Delay::Fixed(ms(20)))
        .restart_delay(Delay::Fixed(ms(20)))
        .stop(StopLadder::signal(Signal::TERM, Scope::Process, 2 * STEP))
}

fn shell(script: &str, policy: Policy) -> GroupSpec {
    GroupSpec::new("web", Command::new("/bin/sh").args(["-c", script])).policy(policy)
}

fn notified(policy: Policy) -> Policy {
    policy.startup(Startup::Notify { timeout: 20 * STEP })
}

/// Reports the readiness, and then does something.
macro_rules! ready_and {
    ($then:literal) => {
        concat!("echo >&3; exec 3>&-; ", $then)
    };
}

const CASES: &[Case] = &[
    Case {
        name: "a job that is done",
        spec: || shell("sleep 0.1; exit 0", policy()),
        behavior: || Script::new().exits(STEP, 0).into(),
        acts: &[],
        last: StateName::Exited,
    },
    Case {
        name: "a program that never starts well",
        spec: || shell("exit 3", policy().startup(Startup::Grace(STEP)).start_retries(2)),
        behavior: || Script::new().exits(ms(1), 3).into(),
        acts: &[],
        last: StateName::Fatal,
    },
    Case {
        name: "a program that is missing",
        spec: || GroupSpec::new("web", Command::new("/does/not/exist")).policy(policy().start_retries(5)),
        behavior: || Script::not_spawned(SpawnFailure::NotFound).into(),
        acts: &[],
        last: StateName::Fatal,
    },
    Case {
        name: "a crash loop that uses up its budget",
        spec: || {
            let budget = CrashBudget::new(3, Duration::from_secs(60));
            let looped = notified(policy()).restart(Restart::Always).crash_budget(budget);
            shell(ready_and!("sleep 0.05; kill -SEGV $$"), looped).ready_fd(3)
        },
        behavior: || Script::new().ready(ms(5)).crashes(ms(60), Signal::SEGV).into(),
        acts: &[],
        last: StateName::Fatal,
    },
    Case {
        name: "a program that ignores its stop",
        spec: || {
            shell(
                concat!("trap '' TERM; ", ready_and!("exec sleep 1000")),
                notified(policy()),
            )
            .ready_fd(3)
        },
        behavior: || Script::new().ready(ms(5)).ignores(Signal::TERM).into(),
        acts: &[(StateName::Running, Act::Stop)],
        last: StateName::Stopped,
    },
    Case {
        name: "a program that stops slowly",
        spec: || {
            let script = concat!("trap 'sleep 0.1; exit 5' TERM; ", ready_and!("sleep 1000 & wait"));
            let ladder = StopLadder::signal(Signal::TERM, Scope::Process, 20 * STEP).kill_scope(Scope::ProcessGroup);
            shell(script, notified(policy()).stop(ladder)).ready_fd(3)
        },
        behavior: || {
            let script = Script::new().ready(ms(5)).handles(Signal::TERM, STEP, 5);
            script.forks(Fork::new()).into()
        },
        acts: &[(StateName::Running, Act::Stop)],
        last: StateName::Stopped,
    },
    Case {
        name: "a program that is never ready",
        spec: || {
            shell(
                "exec sleep 1000",
                notified(policy()).startup(Startup::Notify { timeout: STEP }),
            )
            .ready_fd(3)
        },
        behavior: || Script::new().into(),
        acts: &[],
        last: StateName::Fatal,
    },
    Case {
        name: "a program that closes its readiness descriptor",
        spec: || shell("sleep 0.05; exec 3>&-; exec sleep 1000", notified(policy())).ready_fd(3),
        behavior: || Script::new().closes_readiness(ms(50)).into(),
        acts: &[],
        last: StateName::Fatal,
    },
    Case {
        name: "a watchdog that hears nothing",
        spec: || {
            let watched = notified(policy()).watchdog(STEP);
            shell(ready_and!("exec sleep 1000"), watched).ready_fd(3)
        },
        behavior: || Script::new().ready(ms(5)).into(),
        acts: &[],
        last: StateName::Exited,
    },
    Case {
        name: "a restart, a signal and a kill",
        spec: || shell(ready_and!("exec sleep 1000"), notified(policy())).ready_fd(3),
        behavior: || Script::new().ready(ms(5)).into(),
        acts: &[
            (StateName::Running, Act::Restart),
            (StateName::Running, Act::Signal(Signal::WINCH)),
            (StateName::Running, Act::Kill),
        ],
        last: StateName::Stopped,
    },
    Case {
        name: "a rolling restart, and less and more instances",
        spec: || {
            shell(ready_and!("exec sleep 1000"), notified(policy()))
                .ready_fd(3)
                .instances(3)
        },
        behavior: || Script::new().ready(ms(5)).into(),
        acts: &[
            (StateName::Running, Act::Roll),
            (StateName::Running, Act::Scale(1)),
            (StateName::Running, Act::Scale(2)),
            (StateName::Running, Act::Remove),
        ],
        last: StateName::Stopped,
    },
    Case {
        name: "commands before and after a run",
        spec: || {
            shell("sleep 0.05; exit 0", policy())
                .before_run(Command::new("/bin/true"), 20 * STEP)
                .after_run(Command::new("/bin/false"), 20 * STEP)
        },
        behavior: || Script::new().exits(ms(50), 0).into(),
        acts: &[],
        last: StateName::Exited,
    },
    Case {
        name: "a run that leaves a process in its group",
        spec: || {
            let ladder = StopLadder::signal(Signal::TERM, Scope::ProcessGroup, 20 * STEP);
            shell("sleep 1000 & sleep 0.05; exit 0", policy().stop(ladder))
        },
        behavior: || Script::new().exits(ms(50), 0).forks(Fork::new()).into(),
        acts: &[],
        last: StateName::Exited,
    },
];

/// Runs a case to its end. Returns the lines of each instance, and of the group, without the numbers of processes.
fn story(supervisor: &mut impl Loop, case: &Case) -> BTreeMap<String, Vec<String>> {
    let group = supervisor.add((case.spec)()).unwrap();
    supervisor.start(group).unwrap();
    let mut acts = case.acts.iter();
    let mut act = acts.next();
    let mut story: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut rolling = false;
    loop {
        while let Some(event) = supervisor.next_event() {
            rolling &= !matches!(event, Event::Rolled { .. });
            let line = event.to_string();
            let (subject, _) = line.split_once(' ').unwrap_or((&line, ""));
            let without_pid = line.split_once(", pid").map_or(&*line, |(before, _)| before);
            story
                .entry(subject.to_owned())
                .or_default()
                .push(without_pid.to_owned());
        }
        let Some(status) = supervisor.group(group) else {
            return story;
        };
        let all = |state: StateName| {
            let mut states = status.instances.iter().filter_map(|&id| supervisor.status(id));
            status.instances.len() == status.target as usize && states.all(|status| status.state.name() == state)
        };
        match act {
            None if all(case.last) => return story,
            Some((state, next)) if all(*state) && !rolling => {
                rolling = matches!(next, Act::Roll);
                match *next {
                    Act::Stop => supervisor.stop(group).map(drop),
                    Act::Kill => supervisor.kill(group).map(drop),
                    Act::Restart => supervisor.restart(group).map(drop),
                    Act::Roll => supervisor.rolling_restart(group, Rolling::new()).map(drop),
                    Act::Scale(instances) => supervisor.scale(group, instances).map(drop),
                    Act::Signal(signal) => supervisor.signal(group, signal).map(drop),
                    Act::Remove => supervisor.remove(group).map(drop),
                }
                .unwrap();
                act = acts.next();
                continue;
            }
            None | Some(_) => {}
        }
        supervisor.turn();
    }
}

fn simulated(case: &Case, in_flight: usize) -> BTreeMap<String, Vec<String>> {
    let mut simulation = Simulation::builder().spawns_in_flight(in_flight).build();
    simulation.assign("web", (case.behavior)()).unwrap();
    simulation
        .assign(Subject::program("/bin/false"), Script::new().exits(ms(1), 1))
        .unwrap();
    story(&mut simulation, case)
}

#[test]
fn the_simulated_and_the_real_supervisor_tell_the_same_story() {
    isolated(|| {
        for case in CASES {
            for in_flight in [0, 32] {
                let mut supervisor = Supervisor::builder().spawns_in_flight(in_flight).build().unwrap();
                let real = story(&mut supervisor, case);
                assert!(!real.is_empty(), "{}", case.name);
                assert_eq!(
                    real,
                    simulated(case, in_flight),
                    "{}, with {in_flight} in flight",
                    case.name
                );
            }
        }
    });
}
