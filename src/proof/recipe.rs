//! Descriptions of groups in the simulation: commands that can be distinguished by their programs after the spawn, and
//! policies of every kind.

use std::time::Duration;

use super::chance::Chance;
use crate::cgroup::CgroupDir;
use crate::command::{Command, Program};
use crate::engine::context::SpawnContext;
use crate::engine::ids::GroupId;
use crate::engine::spec::GroupSpec;
use crate::lifecycle::{
    AutoShutdown, CrashBudget, Delay, DelayFrom, ExitSet, Part, Policy, Restart, Rung, Scope, Startup, StopLadder,
    Strategy,
};
use crate::notify::NotifyAccess;
use crate::signal::Signal;

/// The commands of a group. The version depends on the instance's number, so that a reload can change some instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recipe {
    /// One command for each instance, or the first version for all.
    pub(super) each: bool,
    pub(super) versions: [u32; 3],
    pub(super) env: u32,
    /// Whether the command makes a process group.
    pub(super) leads: bool,
    /// The directory of its cgroups; `None` for no cgroups.
    pub(super) cgroup: Option<u64>,
    /// Whether it reports readiness with a descriptor.
    pub(super) ready_fd: bool,
    /// Whether it sends messages to the supervisor's socket.
    pub(super) socket: bool,
    /// The processes with messages that count.
    pub(super) access: NotifyAccess,
    /// How many descriptors it may store, which needs the socket.
    pub(super) most_stored: u32,
    /// The commands before and after each run.
    pub(super) before: Option<Around>,
    pub(super) after: Option<Around>,
    /// The version of the first stop command. The second one has the next.
    pub(super) stop_version: u32,
}

/// A command before or after each run: its version, and its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Around {
    pub(super) version: u32,
    pub(super) limit: Duration,
}

impl Around {
    fn random(chance: &mut Chance) -> Option<Around> {
        chance.happens(3).then(|| Around {
            version: 1 + chance.below(1_000) as u32,
            limit: any_limit(chance),
        })
    }
}

/// A command in a world without faults ends within any of these limits.
fn any_limit(chance: &mut Chance) -> Duration {
    let some = Duration::from_millis(50) + chance.time();
    chance.pick(&[Duration::from_secs(1), some, some, Duration::MAX])
}

/// The identity of a program, which is found in it when it is spawned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) part: Part,
    pub(super) version: u32,
    /// The number of the instance, if the program belongs to one instance alone.
    pub(super) number: Option<u32>,
    pub(super) env: u32,
    pub(super) leads: bool,
    /// The cgroup that it is started in: the directory, the group's name, the instance's number.
    pub(super) home: Option<(u64, &'static str, u32)>,
    pub(super) ready_fd: bool,
}

impl Label {
    pub(super) fn of(program: &Program, place: &SpawnContext) -> Label {
        let name = program.name().to_str().unwrap();
        let mut parts = name.split('/').skip(1);
        let part = match parts.next().unwrap() {
            "before" => Part::Before,
            "after" => Part::After,
            "stop" => Part::Stop,
            _ => Part::Program,
        };
        let version = parts.next().and_then(|part| part.parse().ok()).unwrap();
        let number = parts.next().and_then(|part| part.parse().ok());
        let env = program.env_value("ENV").and_then(|value| value.parse().ok()).unwrap();
        Label {
            part,
            version,
            number,
            env,
            leads: parts.next() == Some("leads"),
            home: place.cgroup.as_ref().map(|home| {
                let name = home.name.strip_suffix(".stop").unwrap_or(&home.name);
                let (group, number) = name.rsplit_once('-').unwrap();
                let group = NAMES.iter().find(|name| **name == group).unwrap();
                let directory = home.dir.path().file_name().and_then(|name| name.to_str()).unwrap();
                (directory.parse().unwrap(), *group, number.parse().unwrap())
            }),
            ready_fd: place.ready_fd,
        }
    }
}

impl Recipe {
    /// The expected program of the instance with this number.
    pub(super) fn label(&self, group: &'static str, number: u32) -> Label {
        let Recipe {
            each,
            versions,
            env,
            leads,
            cgroup,
            ready_fd,
            socket: _,
            access: _,
            most_stored: _,
            before: _,
            after: _,
            stop_version: _,
        } = *self;
        Label {
            part: Part::Program,
            version: if each {
                versions[number as usize % versions.len()]
            } else {
                versions[0]
            },
            number: each.then_some(number),
            env,
            leads,
            home: cgroup.map(|directory| (directory, group, number)),
            ready_fd,
        }
    }

    /// The expected program of a part of a run of the instance with this number; `None` if the run has no such part.
    pub(super) fn label_of(&self, part: Part, group: &'static str, number: u32) -> Option<Label> {
        let around = match part {
            Part::Before => self.before,
            Part::After => self.after,
            _ => return Some(self.label(group, number)),
        };
        around.map(|around| Label {
            part,
            version: around.version,
            number: None,
            env: around.version,
            leads: true,
            home: self.cgroup.map(|directory| (directory, group, number)),
            ready_fd: false,
        })
    }

    fn around(kind: &str, around: Around) -> Command {
        let version = around.version;
        Command::new(format!("/{kind}/{version}/all/leads"))
            .env_clear()
            .env("ENV", version.to_string())
    }

    fn command(&self, number: u32) -> Command {
        let Label {
            part: _,
            version,
            number,
            env,
            leads,
            home: _,
            ready_fd: _,
        } = self.label("", number);
        let number = number.map_or("all".to_owned(), |number| number.to_string());
        let kind = if leads { "leads" } else { "follows" };
        let command = Command::new(format!("/program/{version}/{number}/{kind}"))
            .env_clear()
            .env("ENV", env.to_string());
        match (leads, version % 2) {
            // By default a command makes a process group of its own.
            (true, 0) => command,
            (true, _) => command.process_group(0),
            (false, _) => command.inherit_process_group(),
        }
    }

    /// Whether any messages of its processes are accepted.
    pub(super) fn is_heard(&self) -> bool {
        self.socket && self.access != NotifyAccess::None
    }

    /// The settings of its messages.
    pub(super) fn notify(&self) -> (bool, NotifyAccess, u32) {
        (self.socket, self.access, self.most_stored)
    }

    pub(super) fn random(chance: &mut Chance) -> Recipe {
        let mut version = || 1 + chance.below(1_000) as u32;
        let versions = [version(), version(), version()];
        // These two are taken from another random number, so that the same seeds give the same episodes as without them.
        let (some, others) = (versions[1] % 4, versions[2] % 8);
        let each = chance.happens(2);
        let env = 1 + chance.below(1_000) as u32;
        let leads = chance.happens(2);
        let cgroup = chance.happens(3).then(|| chance.below(2));
        let (ready_fd, socket) = (chance.happens(3), chance.happens(3));
        Recipe {
            each,
            versions,
            env,
            leads,
            cgroup,
            ready_fd,
            socket,
            access: match others {
                0 => NotifyAccess::None,
                1..4 => NotifyAccess::Main,
                _ => NotifyAccess::All,
            },
            most_stored: if socket { some } else { 0 },
            before: Around::random(chance),
            after: Around::random(chance),
            stop_version: versions[0] + 1,
        }
    }

    /// The same commands, or some with one difference.
    pub(super) fn altered(mut self, chance: &mut Chance) -> Recipe {
        match chance.below(12) {
            10 => self.stop_version += 1,
            8 => self.before = Around::random(chance),
            9 => self.after = Around::random(chance),
            0 | 1 => (),
            2 | 3 => self.env = 1 + chance.below(1_000) as u32,
            4 => self.versions[chance.below(3) as usize] = 1 + chance.below(1_000) as u32,
            5 => self.leads ^= true,
            6 => self.cgroup = chance.happens(2).then(|| chance.below(2)),
            7 => self.ready_fd ^= true,
            _ => self = Recipe::random(chance),
        }
        self
    }
}

/// A group's description, which may be invalid.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) name: &'static str,
    pub(super) recipe: Recipe,
    pub(super) instances: u32,
    pub(super) policy: Policy,
    /// Whether it must be refused.
    pub(super) flawed: bool,
    /// The groups that it comes after, and those that it requires.
    pub(super) after: Vec<GroupId>,
    pub(super) requires: Vec<GroupId>,
}

/// Enough for most groups to get a free one.
const NAMES: &[&str] = &[
    "web", "work", "mail", "log", "cron", "feed", "push", "sync", "chat", "auth", "shop", "blog", "wiki", "map", "dns",
    "proxy", "cache", "queue", "index", "store", "clock", "probe", "relay", "vault",
];

impl Draft {
    /// A random description; with `from`, a change of an existing one.
    pub(super) fn random(chance: &mut Chance, from: Option<(&Recipe, &Policy)>, most: u32) -> Draft {
        let mut recipe = match from {
            Some((recipe, _)) => recipe.altered(chance),
            None => Recipe::random(chance),
        };
        let policy = match from {
            Some((_, policy)) if chance.happens(2) => policy.clone(),
            _ => any_policy(chance),
        };
        recipe.leads |= policy.stop.has(Scope::ProcessGroup);
        if policy.stop.has(Scope::Cgroup) {
            recipe.cgroup.get_or_insert(0);
        }
        let mut draft = Draft {
            name: chance.pick(NAMES),
            recipe,
            instances: match chance.happens(12) {
                true => 0,
                false => 1 + chance.below(most.into()) as u32,
            },
            policy: Policy {
                before_run: recipe.before.map(|before| before.limit),
                after_run: recipe.after.map(|after| after.limit),
                ..policy
            },
            flawed: false,
            after: Vec::new(),
            requires: Vec::new(),
        };
        if chance.happens(20) {
            draft.spoil(chance);
        }
        draft
    }

    /// Gives it a random place among these groups, which may be impossible.
    pub(super) fn with_order(mut self, chance: &mut Chance, groups: &[GroupId]) -> Draft {
        for &id in groups {
            match chance.below(6) {
                0 => self.after.push(id),
                1 => self.requires.push(id),
                2 if chance.happens(4) => (self.after, self.requires) = (vec![id], vec![id]),
                _ => {}
            }
        }
        self
    }

    /// The same order without what is said twice.
    pub(super) fn edges(&self) -> (Vec<GroupId>, Vec<GroupId>) {
        let once = |ids: &[GroupId], other: &[GroupId]| {
            let mut kept: Vec<GroupId> = Vec::new();
            for id in ids {
                if !kept.contains(id) && !other.contains(id) {
                    kept.push(*id);
                }
            }
            kept
        };
        (once(&self.after, &self.requires), once(&self.requires, &[]))
    }

    fn spoil(&mut self, chance: &mut Chance) {
        self.flawed = true;
        match chance.below(8) {
            7 => {
                let (version, limit) = (1, Duration::ZERO);
                self.recipe.after = Some(Around { version, limit });
            }
            0 | 1 => self.instances = GroupSpec::MOST_INSTANCES + 1,
            2 => self.policy.jitter = 101,
            3 if chance.happens(3) => {
                let (index, limit) = chance.pick(&[(2, Duration::MAX), (0, Duration::ZERO)]);
                self.policy.stop.rungs = vec![Rung::command(index, limit, Duration::ZERO)];
            }
            3 => self.policy.stop.rungs = vec![any_rung(chance, Scope::Process); StopLadder::LIMIT + 1],
            4 => {
                self.recipe.leads = false;
                self.policy.stop = StopLadder::kill(Scope::ProcessGroup);
            }
            5 => {
                self.recipe.cgroup = None;
                self.policy.stop = StopLadder::kill(Scope::Cgroup);
            }
            _ => {
                self.policy.stop = StopLadder::signal(Signal::TERM, Scope::ProcessGroup, Duration::ZERO);
                self.policy.stop.kill = Scope::Process;
            }
        }
    }

    pub(super) fn spec(&self) -> GroupSpec {
        let recipe = self.recipe;
        let mut spec = if recipe.each {
            GroupSpec::with(self.name, move |number| recipe.command(number))
        } else {
            GroupSpec::new(self.name, recipe.command(0))
        };
        if recipe.ready_fd {
            // Stored descriptors have the numbers from 3 up.
            spec = spec.ready_fd(9);
        }
        spec = spec.notify_socket(recipe.socket).notify_access(recipe.access);
        spec = spec.descriptor_store(recipe.most_stored);
        if let Some(before) = recipe.before {
            spec = spec.before_run(Recipe::around("before", before), before.limit);
        }
        if let Some(after) = recipe.after {
            spec = spec.after_run(Recipe::around("after", after), after.limit);
        }
        for version in [recipe.stop_version, recipe.stop_version + 1] {
            let limit = Duration::MAX;
            spec = spec.stop_command(Recipe::around("stop", Around { version, limit }));
        }
        if let Some(number) = recipe.cgroup {
            spec = spec.cgroup(directory(number));
        }
        let spec = self.after.iter().fold(spec, |spec, &id| spec.after(id));
        let spec = self.requires.iter().fold(spec, |spec, &id| spec.requires(id));
        spec.instances(self.instances).policy(self.policy.clone())
    }
}

/// The directories for cgroups. They are few, and each is opened once.
pub(super) fn directory(number: u64) -> CgroupDir {
    thread_local! {
        static DIRECTORIES: [CgroupDir; 2] = [CgroupDir::pretended(0), CgroupDir::pretended(1)];
    }
    DIRECTORIES.with(|directories| directories[number as usize].clone())
}

fn any_policy(chance: &mut Chance) -> Policy {
    let second = Duration::from_secs(1);
    let startup = match chance.below(6) {
        0 | 1 => Startup::Grace(Duration::ZERO),
        2 | 3 => Startup::Grace(chance.time()),
        4 => Startup::Grace(second),
        // A healthy process needs a moment until it reports readiness, and its execution is noticed at the first look
        // only, a millisecond after the spawn.
        _ => Startup::Notify {
            timeout: second / 100 + chance.time(),
        },
    };
    let expected = match chance.below(3) {
        0 => ExitSet::EMPTY,
        1 => ExitSet::SUCCESS,
        _ => ExitSet::SUCCESS.signal(Signal::TERM),
    };
    let stop = any_ladder(chance);
    Policy {
        startup,
        restart: chance.pick(&[Restart::Always, Restart::Always, Restart::OnUnexpected, Restart::Never]),
        expected,
        run_timeout: None,
        before_run: None,
        after_run: None,
        prevent_restart: chance.pick(&[ExitSet::EMPTY, ExitSet::EMPTY, ExitSet::EMPTY.code(1)]),
        force_restart: chance.pick(&[ExitSet::EMPTY, ExitSet::EMPTY, ExitSet::SUCCESS]),
        early_exit_fails: chance.happens(2),
        start_retries: chance.pick(&[0, 1, 2, 3, u32::MAX]),
        retry_permanent: chance.happens(2),
        count_shortages: chance.happens(2),
        backoff: any_backoff(chance),
        restart_delay: if chance.happens(2) {
            Delay::NONE
        } else {
            any_backoff(chance)
        },
        restart_delay_from: chance.pick(&[DelayFrom::End, DelayFrom::Start]),
        immediate_restarts: chance.pick(&[0, 0, 1, 3]),
        jitter: chance.pick(&[0, 20, 100]),
        crash_budget: (!chance.happens(3)).then(|| CrashBudget {
            max: chance.below(5) as u16,
            window: chance.time() + Duration::from_nanos(1),
        }),
        shared_budget: chance.happens(4).then(|| CrashBudget {
            max: chance.below(5) as u16,
            window: chance.time() + Duration::from_nanos(1),
        }),
        strategy: chance.pick(&[
            Strategy::OneForOne,
            Strategy::OneForOne,
            Strategy::OneForAll,
            Strategy::RestForOne,
        ]),
        auto_shutdown: chance.pick(&[
            AutoShutdown::Never,
            AutoShutdown::Never,
            AutoShutdown::Never,
            AutoShutdown::AnyEnd,
            AutoShutdown::AllEnd,
        ]),
        stable_after: chance.pick(&[Duration::ZERO, second * 5, second * 60]),
        cool_off: chance.pick(&[None, None, Some(Duration::ZERO), Some(second * 3), Some(Duration::MAX)]),
        watchdog: chance.happens(6).then(|| second + chance.time()),
        watchdog_stop: chance.happens(3).then(|| ladder_like(chance, &stop)),
        stop,
    }
}

fn any_backoff(chance: &mut Chance) -> Delay {
    match chance.below(4) {
        0 => Delay::Fixed(chance.time()),
        1 => Delay::Fixed(chance.pick(&[Duration::ZERO, Duration::MAX])),
        2 => Delay::Linear {
            step: chance.time(),
            cap: chance.time(),
        },
        _ => Delay::Exponential {
            first: chance.time(),
            cap: chance.time(),
        },
    }
}

fn any_ladder(chance: &mut Chance) -> StopLadder {
    let widest = chance.pick(&SCOPES);
    let rungs: Vec<Rung> = (0..chance.below(4)).map(|_| any_rung(chance, widest)).collect();
    let patience = chance.time();
    StopLadder {
        kill: rungs
            .iter()
            .filter_map(Rung::scope)
            .fold(any_scope(chance, widest), Scope::max),
        rungs,
        patience: chance.pick(&[Duration::ZERO, patience, patience, Duration::MAX]),
    }
}

/// Another ladder for the same processes.
pub(super) fn ladder_like(chance: &mut Chance, stop: &StopLadder) -> StopLadder {
    let mut ladder = any_ladder(chance);
    for rung in &mut ladder.rungs {
        if let Rung::Signal { scope, .. } = rung {
            *scope = if stop.has(*scope) { *scope } else { Scope::Process };
        }
    }
    StopLadder {
        kill: stop.kill,
        ..ladder
    }
}

fn any_rung(chance: &mut Chance, widest: Scope) -> Rung {
    let wait = chance.time();
    let signal = chance.pick(&[
        Signal::TERM,
        Signal::TERM,
        Signal::INT,
        Signal::TSTP,
        Signal::STOP,
        Signal::KILL,
    ]);
    let scope = any_scope(chance, widest);
    let wait = chance.pick(&[Duration::ZERO, wait, wait, wait, wait, Duration::MAX]);
    if chance.happens(4) {
        return Rung::command(chance.below(2) as u8, any_limit(chance), wait);
    }
    Rung::new(signal, scope, wait)
}

const SCOPES: [Scope; 3] = [Scope::Process, Scope::ProcessGroup, Scope::Cgroup];

fn any_scope(chance: &mut Chance, widest: Scope) -> Scope {
    chance.pick(&SCOPES).min(widest)
}
