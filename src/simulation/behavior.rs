//! Which script each run of each instance follows.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::Duration;

use super::error::ScriptError;
use super::script::Script;
use super::span::{check_share, happens};
use crate::engine::ids::{GroupId, InstanceId};
use crate::engine::kernel::Coming;
use crate::lifecycle::Part;
use crate::random::Random;

/// What an instance's processes do, from run to run: a usual [`Script`], and others for some runs.
///
/// The script for the number of the run comes first, then those by chance, then the usual one. A single `Script`
/// converts to the behavior that follows it in every run.
///
/// ```
/// use std::time::Duration;
/// use pidherd::sim::{Behavior, Script, SpawnFailure};
///
/// let second = Duration::from_secs(1);
/// let usual = Script::new().ready(second);
/// let behavior = Behavior::new(usual)
///     // The first start fails, and later one start in a hundred hangs before it is ready.
///     .run(1, Script::not_spawned(SpawnFailure::NoMemory))
///     .sometimes(0.01, Script::new().hangs(second));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Behavior {
    usual: Arc<Script>,
    runs: BTreeMap<u64, Arc<Script>>,
    chances: Vec<(f64, Arc<Script>)>,
}

impl Behavior {
    /// Every run follows this script.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// # let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// # let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// // As a script alone, in every run.
    /// simulation.assign(web, Behavior::new(Script::new().exits(5 * second, 1)))?;
    /// simulation.start(web)?;
    /// simulation.advance(20 * second)?;
    /// assert!(simulation.runs(instance).count() > 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new(usual: Script) -> Behavior {
        Behavior {
            usual: Arc::new(usual),
            runs: BTreeMap::new(),
            chances: Vec::new(),
        }
    }

    /// The run with this number follows another script. The first run of an instance is 1; failed starts count
    /// ([`TransitionEvent::run`](crate::supervisor::TransitionEvent::run)).
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// # let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// # let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// // The first start fails, and the second one succeeds.
    /// simulation.assign(web, Behavior::new(Script::new()).run(1, Script::not_spawned(SpawnFailure::NotFound)))?;
    /// simulation.start(web)?;
    /// simulation.advance(10 * second)?;
    /// let status = simulation.status(instance).ok_or("no status")?;
    /// assert_eq!((status.state.name(), status.runs), (StateName::Running, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn run(mut self, number: u64, script: Script) -> Behavior {
        self.runs.insert(number, Arc::new(script));
        self
    }

    /// Each run follows another script with this probability, from 0 to 1. Further calls add further scripts; of all of
    /// them a run follows one at most.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// # let web = simulation.add(GroupSpec::new("web", Command::new("web")))?;
    /// # let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// // One process in ten ends after five seconds, and the others stay.
    /// simulation.assign(web, Behavior::new(Script::new()).sometimes(0.1, Script::new().exits(5 * second, 1)))?;
    /// simulation.scale(web, 100)?;
    /// simulation.start(web)?;
    /// simulation.advance(6 * second)?;
    /// let ended = simulation.instances().filter(|&instance| simulation.runs(instance).next().is_some()).count();
    /// assert!((1..30).contains(&ended), "{ended}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn sometimes(mut self, share: f64, script: Script) -> Behavior {
        self.chances.push((share, Arc::new(script)));
        self
    }

    pub(super) fn check(&self) -> Result<(), ScriptError> {
        if self.runs.contains_key(&0) {
            return Err(ScriptError::NoRun);
        }
        check_shares(self.chances.iter().map(|&(share, _)| share))?;
        let scripts = self.chances.iter().map(|(_, script)| script);
        let mut all = scripts.chain(self.runs.values()).chain([&self.usual]);
        all.try_for_each(|script| script.check())
    }

    /// The script of a run.
    fn of(&self, run: u64, random: &mut Random) -> Arc<Script> {
        let by_chance = choose(&self.chances, random);
        let script = self.runs.get(&run).or(by_chance).unwrap_or(&self.usual);
        Arc::clone(script)
    }
}

impl From<Script> for Behavior {
    fn from(script: Script) -> Behavior {
        Behavior::new(script)
    }
}

/// One of these values, or none, by their probabilities.
pub(super) fn choose<'a, T>(from: &'a [(f64, T)], random: &mut Random) -> Option<&'a T> {
    // The same number is compared with the sums of the probabilities.
    let drawn = random.clone();
    let _used = random.next_u64();
    let mut sum = 0.0;
    let chosen = from.iter().find(|(share, _)| {
        sum += share;
        happens(sum, &mut drawn.clone())
    });
    chosen.map(|(_, value)| value)
}

/// Checks the probabilities of things of which one at most happens.
pub(super) fn check_shares(shares: impl Iterator<Item = f64> + Clone) -> Result<(), ScriptError> {
    shares.clone().try_for_each(check_share)?;
    let sum: f64 = shares.sum();
    // Ten times 0.1 may be a little more than 1.
    if sum > 1.0 + 1e-9 {
        return Err(ScriptError::Shares(sum));
    }
    Ok(())
}

/// The processes that a [`Behavior`] is assigned to.
///
/// The most specific assignment counts: first that of the instance by its id, then by its name; then that of its group by
/// its id, then by its name; then that of its program; then that for all.
///
/// ```
/// use pidherd::sim::{Script, Simulation, Subject};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut simulation = Simulation::new(1);
/// simulation.assign(Subject::program("/usr/bin/migrate"), Script::new().exits(std::time::Duration::ZERO, 0))?;
/// // A name and an id convert to a subject.
/// simulation.assign("web:0", Script::new())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Subject {
    /// All instances.
    All,
    /// An instance.
    Instance(InstanceId),
    /// The instances of a group.
    Group(GroupId),
    /// The instances of the group with this name, or the instance with this name, as in `web:0`. The group may be added
    /// later.
    Name(String),
    /// All processes of the program that a [`Command`](crate::Command) names. This is also the only way to the commands
    /// [before](crate::GroupSpec::before_run) and [after](crate::GroupSpec::after_run) a run, and to those of
    /// [stops](crate::GroupSpec::stop_command), which signal no process of the simulation.
    Program(OsString),
}

impl Subject {
    /// All processes of this program.
    ///
    /// ```
    /// # use pidherd::sim::{Behavior, Faults, Fork, Script, Simulation, Span, SpawnFailure, Subject};
    /// # use pidherd::supervisor::Supervise;
    /// # use pidherd::{Command, Event, GroupSpec, Policy, Restart, Scope, Signal, Startup, StateName, StopLadder};
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let mut simulation = Simulation::new(1);
    /// // A command before a run has no instance of its own.
    /// let migrate = Command::new("/usr/bin/migrate");
    /// let web = GroupSpec::new("web", Command::new("web")).before_run(migrate, 60 * second);
    /// let web = simulation.add(web)?;
    /// simulation.assign(Subject::program("/usr/bin/migrate"), Script::new().exits(5 * second, 0))?;
    /// simulation.start(web)?;
    /// simulation.advance(second)?;
    /// let instance = simulation.group(web).ok_or("no group")?.instances[0];
    /// assert_eq!(simulation.status(instance).ok_or("no status")?.state.name(), StateName::Preparing);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn program(name: impl Into<OsString>) -> Subject {
        Subject::Program(name.into())
    }
}

impl From<InstanceId> for Subject {
    fn from(id: InstanceId) -> Subject {
        Subject::Instance(id)
    }
}

impl From<GroupId> for Subject {
    fn from(id: GroupId) -> Subject {
        Subject::Group(id)
    }
}

impl From<&str> for Subject {
    fn from(name: &str) -> Subject {
        Subject::Name(name.to_owned())
    }
}

impl From<String> for Subject {
    fn from(name: String) -> Subject {
        Subject::Name(name)
    }
}

/// All assignments.
pub(super) struct Cast {
    instances: HashMap<InstanceId, Behavior>,
    groups: HashMap<GroupId, Behavior>,
    names: HashMap<String, Behavior>,
    programs: HashMap<OsString, Behavior>,
    all: Behavior,
    /// That of the commands around a run: they succeed at once.
    around: Behavior,
}

impl Cast {
    pub(super) fn new() -> Cast {
        Cast {
            instances: HashMap::new(),
            groups: HashMap::new(),
            names: HashMap::new(),
            programs: HashMap::new(),
            all: Script::new().into(),
            around: Script::new().exits(Duration::ZERO, 0).into(),
        }
    }

    pub(super) fn assign(&mut self, subject: Subject, behavior: Behavior) {
        match subject {
            Subject::All => self.all = behavior,
            Subject::Instance(id) => drop(self.instances.insert(id, behavior)),
            Subject::Group(id) => drop(self.groups.insert(id, behavior)),
            Subject::Name(name) => drop(self.names.insert(name, behavior)),
            Subject::Program(name) => drop(self.programs.insert(name, behavior)),
        }
    }

    /// The script of a process.
    pub(super) fn script(&self, role: &Role, program: &OsStr, random: &mut Random) -> Arc<Script> {
        let by_program = || self.programs.get(program);
        let behavior = if role.part == Part::Program {
            self.of_instance(role).or_else(by_program).unwrap_or(&self.all)
        } else {
            by_program().unwrap_or(&self.around)
        };
        behavior.of(role.run, random)
    }

    fn of_instance(&self, role: &Role) -> Option<&Behavior> {
        let by_name = |name: &str| self.names.get(name);
        let named = || by_name(&format!("{}:{}", role.group_name, role.number));
        let own = self.instances.get(&role.id);
        let own = own.or_else(|| if self.names.is_empty() { None } else { named() });
        own.or_else(|| self.groups.get(&role.group))
            .or_else(|| by_name(&role.group_name))
    }
}

/// The place of a process in the fleet.
#[derive(Clone, Debug)]
pub(super) struct Role {
    id: InstanceId,
    group: GroupId,
    group_name: Arc<str>,
    number: u32,
    part: Part,
    run: u64,
    pub(super) has_socket: bool,
}

impl Role {
    pub(super) fn of(coming: &Coming<'_>) -> Role {
        Role {
            id: coming.id,
            group: coming.group,
            group_name: Arc::clone(&coming.name.group),
            number: coming.name.number,
            part: coming.part,
            run: coming.run,
            has_socket: coming.has_socket,
        }
    }

    /// The seed of everything that is drawn for this process. It depends on the name of the instance and the number of
    /// the run alone, so a process of another simulation with the same seed has the same fate, whatever the policy is.
    pub(super) fn seed(&self, seed: u64) -> u64 {
        let part = match self.part {
            Part::Before => 1,
            Part::Program => 2,
            Part::After => 3,
            Part::Stop => 4,
        };
        // FNV-1a over the name, then a mix of the numbers.
        let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let name = self.group_name.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, hash);
        let numbers = [name, u64::from(self.number), self.run, part];
        numbers.into_iter().fold(seed, |seed, number| {
            crate::random::mix(seed ^ Random::new(number).next_u64())
        })
    }
}
