//! The data of the herd: the programs, the supervisor that runs them, and the records about both. The files beside this
//! one implement the commands.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use pidherd::supervisor::AdoptError;
use pidherd::time::Instant;
use pidherd::{GroupId, InstanceId, Signal, Supervisor};

use super::pools::Events;
use crate::config::{self, Config, Group, Program, Role, Supervisord};
use crate::logs::Logs;
use crate::report::Report;
use crate::spec::Shared;
use crate::{fcgi, files, names};

/// The number of events that the queue holds between two reads. A command for the largest number of instances of a
/// program causes a few events for each instance. The library reserves memory for only some thousands.
pub(super) const MOST_EVENTS: usize = 1 << 20;

/// The settings of a herd that do not come from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// What all programs have in common.
    pub shared: Shared,
    /// Whether orphans become children of the taskmaster, so that it must reap them.
    pub adopts_orphans: bool,
}

/// An entry for the log.
#[derive(Debug)]
pub enum News {
    /// A transition of a process.
    Report(Report),
    /// Any other line.
    Note(String),
}

/// The operation that a command applies to processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Starts each process that is down.
    Start,
    /// Stops each process that is up.
    Stop,
    /// Stops each process that is up, and starts all processes.
    Restart,
    /// Sends a signal.
    Signal(Signal),
}

/// All programs, and the supervisor that runs them.
#[derive(Debug)]
pub struct Herd {
    pub(super) supervisor: Supervisor,
    pub(super) shared: Shared,
    /// The events and their listeners.
    pub(super) events: Events,
    /// The output of the programs.
    pub(super) logs: Logs,
    /// The programs, in their start order.
    pub(super) members: Vec<Member>,
    pub(super) began: Instant,
    pub(super) news: VecDeque<News>,
    /// The groups that still wait to be started, in their start order.
    pub(super) to_start: VecDeque<GroupId>,
    /// The instances that survived SIGKILL.
    pub(super) unkillable: HashSet<InstanceId>,
    /// The number of an instance's last failed starts that lacked a resource (memory, descriptors, processes). These
    /// starts use up no retry.
    pub(super) shortages: HashMap<InstanceId, u32>,
    /// The number of dropped events that the log already mentions.
    pub(super) dropped: u64,
    pub(super) closing: Closing,
    /// The `[supervisord]` section that the taskmaster was started with.
    pub(super) own: Supervisord,
    /// The groups of the configuration without a process.
    pub(super) empty: Vec<String>,
    /// The configuration that was read last. Groups of it may not be added yet.
    pub(super) staged: Config,
}

/// One program of the configuration, and the library's group for it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: GroupId,
    /// The group's name in the library. It is the program's name, or a variant of it while a program of the same name
    /// is being removed.
    pub(super) alias: String,
    pub(super) program: Arc<Program>,
    /// The group's priority, then the program's.
    pub(super) priority: (i32, i32),
    /// The names of its processes, by number.
    pub(super) names: Vec<String>,
    /// Whether a reload removed the program, so that it is being stopped.
    pub(super) leaving: bool,
    /// A removed group of the same name. The program does not start before that group is gone.
    pub(super) after: Option<GroupId>,
    /// The socket of a FastCGI program, which stays open while this is kept.
    pub(super) socket: Option<Arc<OwnedFd>>,
}

/// The progress of the shutdown.
#[derive(Debug, Default)]
pub(super) struct Closing {
    pub(super) begun: bool,
    pub(super) forced: bool,
    /// The priorities that still have to be stopped. The next one is last.
    pub(super) tiers: Vec<(i32, i32)>,
    /// The priority with which each group is stopped.
    pub(super) tier_of: HashMap<GroupId, (i32, i32)>,
    /// The priority that is being stopped.
    pub(super) current: Option<(i32, i32)>,
}

impl Member {
    pub(super) fn may_start(&self) -> bool {
        !self.leaving && self.after.is_none()
    }

    pub(super) fn name(&self, number: u32) -> &str {
        self.names.get(number as usize).map_or("?", String::as_str)
    }

    /// Names all processes anew after a change of the program: `count` processes, and those that still have to be
    /// removed.
    pub(super) fn rename(&mut self, count: u32) {
        let known = self.names.len() as u32;
        self.names.clear();
        self.name_all(count.max(known));
    }

    /// Ensures that the first `count` processes have names.
    pub(super) fn name_all(&mut self, count: u32) {
        for number in self.names.len() as u32..count {
            let name = self.program.process_name(number);
            self.names
                .push(name.unwrap_or_else(|_| format!("{}_{number}", self.program.name)));
        }
    }
}

/// The groups of a configuration without a process.
pub(super) fn empty_groups(config: &Config) -> Vec<String> {
    let is_empty = |group: &&Group| group.programs.iter().all(|program| program.numprocs == 0);
    let empty = config.groups.iter().filter(is_empty);
    empty.map(|group| group.name.clone()).collect()
}

/// The programs of a configuration with their priorities, in start order: each one follows those that it comes after. A
/// program with no processes is left out, because the library has no empty groups.
pub(super) fn with_priorities(config: &Config) -> impl Iterator<Item = ((i32, i32), Arc<Program>)> + use<> {
    let programs = config.groups.iter().flat_map(|group| {
        let programs = group.programs.iter().filter(|program| program.numprocs > 0);
        programs.map(|program| ((group.priority, program.priority), Arc::clone(program)))
    });
    config::sorted(programs.collect(), |(_, program)| program).into_iter()
}

/// The name for a group of the library with this program. It is the program's name, or a variant of it.
pub(super) fn free_alias(program: &Program, is_free: impl Fn(&String) -> bool) -> String {
    let name = names::shown(&program.group, &program.name);
    let others = (2..).map(|number| format!("{name}~{number}"));
    std::iter::once(name.clone())
        .chain(others)
        .find(is_free)
        .unwrap_or(name)
}

/// The socket of a FastCGI program.
///
/// # Errors
/// One line: the address cannot be used.
pub(super) fn socket(program: &Program) -> Result<Option<Arc<OwnedFd>>, String> {
    let Role::FastCgi(settings) = &program.role else {
        return Ok(None);
    };
    let opened = fcgi::open(settings);
    opened
        .map(Some)
        .map_err(|error| format!("[fcgi-program:{}]: {error}", program.name))
}

/// The collector of the programs' output.
pub(super) fn logs() -> Result<Logs, String> {
    Logs::new().map_err(|error| format!("cannot collect output: {}", files::reason(error)))
}

/// Whether a supervisor was not built because it cannot adopt orphans.
pub(super) fn is_adopt_error(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<AdoptError>())
}
