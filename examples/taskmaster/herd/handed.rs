//! Hands the herd over to the program that takes the place of this one, and takes it over there.
//!
//! The new program reads the configuration again and describes every program anew. A program that is in both keeps its
//! processes, whatever has changed: a new command applies at the next start. It also keeps the number of processes that
//! `scale` set, unless `numprocs` has changed. A program that only the new file has is added and started. One that it
//! no longer has is stopped and removed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pidherd::supervisor::{Builder, HandOver, RecoverError, TakeOverReason, TakenOver, Undescribed};
use pidherd::time::Instant;
use pidherd::{Error, Event, GroupId, GroupSpec, InstanceId, Supervisor};
use serde_json::{Value, json};

use super::events::check_stored;
use super::model::{Closing, Herd, MOST_EVENTS, Member, News, Terms, empty_groups, free_alias};
use super::model::{is_adopt_error, logs, socket, with_priorities};
use super::pools::Events;
use crate::config::{self, Config, Program};
use crate::fcgi;
use crate::files;
use crate::handing::{self, to_list, to_number, to_text};
use crate::limits::OpenFiles;
use crate::spec::{self, Shared};

/// What the program before this one knew about a program of its configuration.
struct Known {
    alias: String,
    group: String,
    name: String,
    priority: (i32, i32),
    names: Vec<String>,
    leaving: bool,
    autostart: bool,
    numprocs: u32,
    /// The number of instances, which `scale` may have changed.
    target: u32,
}

/// How a herd keeps its supervisor.
pub struct Keeping {
    /// Whether orphans become children of the taskmaster.
    pub adopts_orphans: bool,
    /// The file with the state, if it is stored.
    pub state: Option<PathBuf>,
}

impl Keeping {
    /// The settings of the supervisor, with orphans or without.
    fn builder(&self, adopts_orphans: bool) -> Builder {
        let builder = Supervisor::builder().event_capacity(MOST_EVENTS);
        let builder = Builder::adopt_orphans(builder, adopts_orphans);
        match &self.state {
            Some(path) => builder.state_file(path),
            None => builder,
        }
    }
}

impl Herd {
    /// Goes on with the processes of a taskmaster that was killed, or begins anew if the file has no state. Programs
    /// with `autostart` that are new are put into the queue of programs to start.
    ///
    /// # Errors
    /// One line: the file cannot be used, or a program is refused. No process was touched.
    pub fn recover(config: &Config, terms: Terms, state: &Path) -> Result<Herd, String> {
        check_stored(config)?;
        let described = describe(config, &[]);
        let specs = || described.iter().map(|described| described.spec(terms.shared)).collect();
        let keeping = Keeping {
            adopts_orphans: terms.adopts_orphans,
            state: Some(state.to_owned()),
        };
        let mut news = VecDeque::new();
        let mut note = |text: String| news.push_back(News::Note(text));
        let recovered = match keeping
            .builder(terms.adopts_orphans)
            .recover(specs(), Undescribed::Stop)
        {
            Err(RecoverError::Error(Error::Io(error))) if terms.adopts_orphans && is_adopt_error(&error) => {
                note(format!("orphans are not adopted: {error}"));
                keeping.builder(false).recover(specs(), Undescribed::Stop)
            }
            recovered => recovered,
        };
        let recovered = recovered.map_err(|error| files::reason(format!("cannot supervise: {error}")))?;
        let found = recovered.groups.iter().filter(|group| !group.is_new).count();
        if found > 0 {
            note(format!("{found} of {} programs were found again", described.len()));
        }
        for (name, pid) in &recovered.unproven {
            note(format!(
                "process {pid} may belong to {name}, which is not proven; it was not touched"
            ));
        }
        let members: Vec<Member> = described
            .iter()
            .zip(&recovered.groups)
            .map(|(described, group)| described.member(group.id))
            .collect();
        let starting = described.iter().zip(&recovered.groups);
        let starting = starting.filter(|(described, group)| group.is_new && described.program.autostart);
        let mut herd = Herd {
            to_start: starting.map(|(_, group)| group.id).collect(),
            began: recovered.supervisor.now(),
            supervisor: recovered.supervisor,
            shared: terms.shared,
            events: Events::default(),
            logs: logs()?,
            members,
            news,
            unkillable: HashSet::new(),
            shortages: HashMap::new(),
            dropped: 0,
            closing: Closing::default(),
            own: config.supervisord.clone(),
            empty: empty_groups(config),
            staged: config.clone(),
        };
        herd.put_in_order();
        Ok(herd)
    }

    /// Prepares a hand-over: no program waits to be started, and no event waits to be told.
    pub fn settle(&mut self) {
        self.collect();
        self.start_rest();
    }

    /// What the library does not hand over.
    pub fn describe(&self) -> Value {
        let member = |member: &Member| {
            let program = &member.program;
            let group = self.supervisor.group(member.id);
            json!({
                "alias": member.alias,
                "group": program.group,
                "name": program.name,
                "priority": [member.priority.0, member.priority.1],
                "names": member.names,
                "leaving": member.leaving,
                "autostart": program.autostart,
                "numprocs": program.numprocs,
                "target": group.map_or(program.numprocs, |group| group.target),
            })
        };
        let place = |id: InstanceId| {
            let name = self.supervisor.status(id)?.name;
            Some(json!([&*name.group, name.number]))
        };
        let shortage = |(&id, &times): (&InstanceId, &u32)| Some(json!([place(id)?, times]));
        json!({
            "began": self.began.as_nanos(),
            "dropped": self.dropped,
            "open_files": self.shared.open_files.map(|OpenFiles { soft, hard }| [soft, hard]),
            "members": self.members.iter().map(member).collect::<Vec<_>>(),
            "unkillable": self.unkillable.iter().copied().filter_map(place).collect::<Vec<_>>(),
            "logs": self.describe_logs(place),
            "events": self.describe_events(place),
            "fcgi": fcgi::hand_over().0,
            "shortages": self.shortages.iter().filter_map(shortage).collect::<Vec<_>>(),
        })
    }

    /// Replaces this program, which leaves `state` and the descriptors `open` to it. Returns only if that fails, with
    /// the reason in one line.
    pub fn hand_over<'a>(
        &'a mut self,
        program: &Path,
        arguments: &[OsString],
        state: &Value,
        open: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> String {
        let pipes = self.logs.streams().map(|left| left.pipe);
        let inputs = self.logs.inputs().map(|(_, pipe, _)| pipe);
        let (_, sockets) = fcgi::hand_over();
        let mut fds: Vec<BorrowedFd<'_>> = sockets.iter().map(|socket| socket.as_fd()).collect();
        // Each one is given the shorter lifetime of the sockets.
        open.chain(pipes).chain(inputs).for_each(|fd| fds.push(fd));
        match handing::leave(state, fds) {
            // What was left is taken back at the end of this branch.
            Ok(_left) => self.supervisor.hand_over(program, arguments).to_string(),
            Err(error) => format!("cannot store the state: {}", files::reason(error)),
        }
    }

    /// Goes on with the processes of the program before this one. Returns the changes in one line, too.
    ///
    /// # Errors
    /// One line: the state cannot be taken over. No process was touched.
    pub fn take_over(
        config: &Config,
        handed_over: HandOver,
        left: &Value,
        keeping: &Keeping,
    ) -> Result<(Herd, String), String> {
        let known = to_list(&left["members"], Known::read).ok_or("the state of the taskmaster cannot be read")?;
        let terms = Terms {
            shared: Shared {
                open_files: open_files(&left["open_files"]),
                collects: keeping.state.is_none(),
            },
            adopts_orphans: keeping.adopts_orphans,
        };
        let described = describe(config, &known);
        fcgi::take_over(&left["fcgi"]);
        let sockets = described.iter().map(|described| socket(&described.program));
        let sockets: Vec<Option<Arc<OwnedFd>>> = sockets.collect::<Result<_, _>>()?;
        fcgi::close_left();
        let mut notes = VecDeque::new();
        let specs = || described.iter().map(|described| described.spec(terms.shared)).collect();
        let taken = take_over(handed_over, specs, keeping, &mut notes)?;
        let mut herd = Herd {
            supervisor: taken.supervisor,
            shared: terms.shared,
            events: Events::default(),
            logs: logs()?,
            members: Vec::with_capacity(described.len()),
            began: Instant::from_nanos(left["began"].as_u64().unwrap_or_default()),
            news: notes,
            to_start: VecDeque::new(),
            unkillable: HashSet::new(),
            shortages: HashMap::new(),
            dropped: left["dropped"].as_u64().unwrap_or_default(),
            closing: Closing::default(),
            own: config.supervisord.clone(),
            empty: empty_groups(config),
            staged: config.clone(),
        };
        let kept = described.iter().filter(|described| described.known.is_some()).count();
        let added = described.len() - kept;
        let removed = known.iter().filter(|known| !known.leaving).count() - kept;
        let is_described = |known: &Known| described.iter().any(|described| described.alias == known.alias);
        let ids: Vec<GroupId> = taken.groups.iter().map(|group| group.id).collect();
        let starting = described.iter().zip(&ids).filter(|(described, _)| described.starts());
        let starting: HashSet<GroupId> = starting.map(|(_, &id)| id).collect();
        herd.members
            .extend(described.iter().zip(&ids).map(|(described, &id)| described.member(id)));
        for (member, socket) in herd.members.iter_mut().zip(sockets) {
            member.socket = socket;
        }
        let events = herd.keep_leaving(known.iter().filter(|known| !is_described(known)));
        herd.wait_for_namesakes(ids.len());
        let ready = herd
            .members
            .iter()
            .filter(|member| starting.contains(&member.id) && member.after.is_none());
        herd.to_start.extend(ready.map(|member| member.id));
        herd.put_in_order();
        herd.remember_instances(left);
        herd.remember_logs(&left["logs"]);
        herd.remember_events(&left["events"]);
        // They may be about groups that have just been removed.
        events.into_iter().for_each(|event| herd.interpret(event));
        Ok((herd, format!("{added} added, {removed} removed, {kept} kept")))
    }

    /// Adds members for the programs that are being removed. A group that is already gone is named by events, which are
    /// returned.
    fn keep_leaving<'a>(&mut self, leaving: impl Iterator<Item = &'a Known>) -> Vec<Event> {
        let mut ids: HashMap<String, GroupId> = HashMap::new();
        let mut events = Vec::new();
        while let Some(event) = self.supervisor.next_event() {
            match &event {
                Event::Transition(step) => drop(ids.insert(step.name.group.to_string(), step.group)),
                Event::GroupRemoved { group, name, .. } => drop(ids.insert(name.to_string(), *group)),
                _ => {}
            }
            events.push(event);
        }
        for id in self.supervisor.groups() {
            if let Some(group) = self.supervisor.group(id) {
                ids.insert(group.name.to_string(), id);
            }
        }
        for known in leaving {
            if let Some(&id) = ids.get(&known.alias) {
                self.members.push(known.stand_in(id));
            }
        }
        events
    }

    /// Lets each of the first `count` members, which are described, wait for one of its name that is being removed.
    fn wait_for_namesakes(&mut self, count: usize) {
        let (described, leaving) = self.members.split_at_mut(count);
        for member in described {
            let program = &member.program;
            let namesake = leaving
                .iter()
                .find(|old| old.leaving && old.program.group == program.group && old.program.name == program.name);
            member.after = namesake.map(|old| old.id);
        }
    }

    /// The instance at the place of an instance of the program before this one.
    pub(super) fn find_instance(&self, place: &Value) -> Option<InstanceId> {
        let alias = place[0].as_str()?;
        let member = self.members.iter().find(|member| member.alias == alias)?;
        let instances = self.supervisor.group(member.id)?.instances;
        let has_number = |id: &InstanceId| {
            let status = self.supervisor.status(*id);
            status.is_some_and(|status| Some(u64::from(status.name.number)) == place[1].as_u64())
        };
        instances.into_iter().find(has_number)
    }

    /// Finds the instances again that the library gave other ids.
    fn remember_instances(&mut self, left: &Value) {
        let find = |place: &Value| self.find_instance(place);
        let unkillable = to_list(&left["unkillable"], |place| Some(find(place))).unwrap_or_default();
        let shortage = |entry: &Value| Some((find(&entry[0]), to_number(&entry[1])?));
        let shortages = to_list(&left["shortages"], shortage).unwrap_or_default();
        self.unkillable = unkillable.into_iter().flatten().collect();
        self.shortages = shortages
            .into_iter()
            .filter_map(|(id, times)| Some((id?, times)))
            .collect();
    }
}

/// A program of the new configuration, and what was known about it.
struct Described<'a> {
    priority: (i32, i32),
    program: Arc<Program>,
    alias: String,
    known: Option<&'a Known>,
}

impl Described<'_> {
    /// The description, without the order.
    fn spec(&self, shared: Shared) -> GroupSpec {
        spec::group(&self.program, &self.alias, self.target(), shared)
    }

    fn target(&self) -> u32 {
        match self.known {
            Some(known) if known.numprocs == self.program.numprocs => known.target,
            _ => self.program.numprocs,
        }
    }

    /// Whether its processes are started, because the program or its `autostart` is new.
    fn starts(&self) -> bool {
        self.program.autostart && self.known.is_none_or(|known| !known.autostart)
    }

    fn member(&self, id: GroupId) -> Member {
        let mut member = Member {
            id,
            alias: self.alias.clone(),
            program: Arc::clone(&self.program),
            priority: self.priority,
            names: Vec::new(),
            leaving: false,
            after: None,
            socket: None,
        };
        // Processes with higher numbers may be on their way out.
        let before = self.known.map_or(0, |known| known.names.len() as u32);
        member.name_all(before.max(self.target()));
        member
    }
}

impl Known {
    fn read(left: &Value) -> Option<Known> {
        let priority = |index: usize| i32::try_from(left["priority"][index].as_i64()?).ok();
        Some(Known {
            alias: to_text(&left["alias"])?,
            group: to_text(&left["group"])?,
            name: to_text(&left["name"])?,
            priority: (priority(0)?, priority(1)?),
            names: to_list(&left["names"], to_text)?,
            leaving: left["leaving"].as_bool()?,
            autostart: left["autostart"].as_bool()?,
            numprocs: to_number(&left["numprocs"])?,
            target: to_number(&left["target"])?,
        })
    }

    /// Whether `program` is the new version of this one, by the rules of a reload.
    fn is_same_as(&self, program: &Program) -> bool {
        let same_name = self.group == program.group && self.name == program.name;
        same_name && !self.leaving && self.names.first() == program.process_name(0).ok().as_ref()
    }

    /// A member for a program that is being removed. Its command is not known any more.
    fn stand_in(&self, id: GroupId) -> Member {
        let mut program = config::stand_in();
        program.group.clone_from(&self.group);
        program.name.clone_from(&self.name);
        Member {
            id,
            alias: self.alias.clone(),
            program: Arc::new(program),
            priority: self.priority,
            names: self.names.clone(),
            leaving: true,
            after: None,
            socket: None,
        }
    }
}

/// Finds what was known about each program of the configuration. A new program gets an alias that no other one has.
fn describe<'a>(config: &Config, known: &'a [Known]) -> Vec<Described<'a>> {
    let mut aliases: HashSet<String> = known.iter().map(|known| known.alias.clone()).collect();
    let describe = |(priority, program): ((i32, i32), Arc<Program>)| {
        let known = known.iter().find(|known| known.is_same_as(&program));
        let alias = match known {
            Some(known) => known.alias.clone(),
            None => free_alias(&program, |alias| !aliases.contains(alias)),
        };
        aliases.insert(alias.clone());
        Described {
            priority,
            program,
            alias,
            known,
        }
    };
    with_priorities(config).map(describe).collect()
}

/// Takes the supervisor over. It adopts orphans if that is wanted and possible.
fn take_over(
    handed_over: HandOver,
    specs: impl Fn() -> Vec<GroupSpec>,
    keeping: &Keeping,
    notes: &mut VecDeque<News>,
) -> Result<TakenOver, String> {
    let adopts_orphans = keeping.adopts_orphans;
    let refused = match keeping
        .builder(adopts_orphans)
        .take_over(handed_over, specs(), Undescribed::Stop)
    {
        Ok(taken) => return Ok(taken),
        Err(refused) => refused,
    };
    let text = |reason: &TakeOverReason| files::reason(format!("cannot take the processes over: {reason}"));
    match &refused.reason {
        TakeOverReason::Error(Error::Io(error)) if adopts_orphans && is_adopt_error(error) => {
            notes.push_back(News::Note(format!("orphans are not adopted: {error}")));
        }
        reason => return Err(text(reason)),
    }
    let taken = keeping
        .builder(false)
        .take_over(refused.handed_over, specs(), Undescribed::Stop);
    taken.map_err(|refused| text(&refused.reason))
}

fn open_files(left: &Value) -> Option<OpenFiles> {
    Some(OpenFiles {
        soft: left[0].as_u64()?,
        hard: left[1].as_u64()?,
    })
}
