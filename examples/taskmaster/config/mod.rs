//! The configuration: an INI file in supervisord's format, converted to plain data.
//!
//! All mistakes in the text are found before any program starts, and reported together. Facts outside of the text,
//! such as whether a program exists or a directory may be entered, are checked by the spawn. They may change until
//! then, and the library's error names the step and the path.
//!
//! A file has the same meaning as in supervisord, or it is refused. Each setting that affects a program is applied,
//! or refused with the reason. Plugins are ignored with a note, and so is each setting that supervisord ignores.
//!
//! The modules, from the bottom up: `raw` has the values of a file, `problem` the mistakes, `ini` the syntax of lines,
//! `expand` the forms `%(name)s`, `users` the accounts, `world` the surroundings, `include` other files, `sections`
//! the names of sections, `words` the syntax of commands, `environment` the syntax of variables, `values` other single
//! values, `events` and `fcgi` the keys of listeners and FastCGI programs, `streams`, `automatic` and `logging` the destinations of output, `keys` the access to a section,
//! `supervisord` and `servers` the sections of these names, `beyond` the keys that supervisord lacks, `program` one
//! `[program:x]` or its like, `groups` the assignment of programs to groups, and `order` which programs come after which.

use std::path::Path;
use std::sync::Arc;

mod automatic;
mod beyond;
mod environment;
mod events;
mod expand;
mod fcgi;
#[cfg(test)]
mod generated;
mod groups;
mod include;
mod ini;
mod keys;
mod logging;
mod order;
mod problem;
mod program;
mod raw;
mod sections;
mod servers;
mod streams;
mod supervisord;
mod users;
mod values;
mod words;
mod world;

use self::expand::{Scope, Value};
use self::ini::Files;
use self::problem::{Findings, Problem};
use self::program::Common;
use self::raw::{Raw, Section, Source};
use self::sections::Kind;
use self::world::text_of;
use crate::files::Fifo;

pub use self::automatic::{hand_over as hand_over_log_names, take_over as take_over_log_names};
pub use self::beyond::{Around, Readiness};
#[cfg(test)]
pub use self::events::Kinds;
pub use self::events::{Kind as EventKind, PoolSettings};
pub use self::fcgi::{FcgiPlace, FcgiSocket};
pub use self::groups::Group;
pub use self::logging::{Channel, Level, Log, OwnLogSettings, Rotation, Sink, Target};
pub use self::order::{means, sorted};
pub use self::program::{Instance, Program, Role};
pub use self::servers::{Address, Login, Server};
pub use self::streams::Stream;
pub use self::supervisord::Supervisord;
pub use self::users::User;
pub use self::values::{AutoRestart, MOST_INSTANCES};
pub use self::world::World;

/// A complete configuration.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The groups, in start order.
    pub groups: Vec<Group>,
    /// The settings of the taskmaster itself.
    pub supervisord: Supervisord,
    /// One line for each part that was ignored.
    pub notes: Vec<String>,
}

/// Reads the file at `path`. For a FIFO, waits for its writer.
///
/// # Errors
/// One line for each mistake, with the name of the file.
pub fn load(path: &Path) -> Result<Config, Vec<String>> {
    load_from(path, Fifo::Waited)
}

/// Reads the file again for a reload. It never waits, and it refuses a FIFO.
///
/// # Errors
/// The same as for [`load`].
pub fn load_again(path: &Path) -> Result<Config, Vec<String>> {
    load_from(path, Fifo::Refused)
}

fn load_from(path: &Path, fifo: Fifo) -> Result<Config, Vec<String>> {
    let shown = path.display().to_string();
    let world = World::around(path);
    let text = text_of(&world.started_in.join(path), fifo).map_err(|message| vec![message])?;
    let line = |problem: &Problem| format!("{}: {problem}", problem.file.as_ref().unwrap_or(&shown));
    parse(&text, &Arc::new(world)).map_err(|problems| problems.iter().map(line).collect())
}

/// Parses `text` and the files that it includes.
///
/// # Errors
/// All mistakes in these files.
pub fn parse(text: &str, world: &Arc<World>) -> Result<Config, Vec<Problem>> {
    let mut scope = world.scope();
    let (sections, notes) = sections_of(text, world, &scope)?;
    let mut findings = Findings {
        notes,
        ..Findings::default()
    };
    check_names(&sections, &mut findings)?;
    let section = sections.iter().find(|section| section.name == "supervisord");
    let none = Section::default();
    let mut supervisord = Supervisord::read(section.unwrap_or(&none), world, &scope, &mut findings);
    supervisord.servers = servers(&sections, world, &scope, &mut findings);
    if !supervisord.servers.is_empty() {
        // The logs can be read through the server.
        Arc::make_mut(&mut supervisord.automatic).by_default = true;
    }
    let variable = |(key, value): &(String, String)| (format!("ENV_{key}"), Value::Text(value.clone()));
    scope.share(supervisord.environment.iter().map(variable));
    let common = Common {
        world: Arc::clone(world),
        scope,
        environment: Arc::clone(&supervisord.environment),
        automatic: Arc::clone(&supervisord.automatic),
        strip_ansi: supervisord.strip_ansi,
        server_url: supervisord.servers.first().map(Server::url),
        has_listeners: sections
            .iter()
            .any(|section| matches!(Kind::of(&section.name), Kind::EventListener(_))),
    };
    let groups = groups::read(&sections, &common, &mut findings);
    if findings.problems.is_empty() {
        findings.problems.extend(order::check(&groups));
    }
    if !findings.problems.is_empty() {
        return Err(findings.problems);
    }
    Ok(Config {
        groups,
        supervisord,
        notes: findings.notes,
    })
}

/// The servers of all sections.
fn servers(sections: &[Section], world: &World, scope: &Scope, findings: &mut Findings) -> Vec<Server> {
    let read = |section: &Section| match Kind::of(&section.name) {
        Kind::UnixServer => Server::unix(section, world, scope, findings),
        Kind::InetServer => Server::inet(section, scope, findings),
        _ => None,
    };
    let mut servers: Vec<Server> = sections.iter().filter_map(read).collect();
    // The first one is the one that programs are told, and a socket in the file system is the safer one.
    servers.sort_by_key(|server| matches!(server.address, Address::Inet(_)));
    servers
}

/// A program for one that is no longer in the file and is still being stopped. It has the default settings.
pub fn stand_in() -> Program {
    let config = parse(
        "[program:gone]\ncommand=gone\n",
        &Arc::new(World::around(Path::new("gone"))),
    );
    let programs = config
        .unwrap_or_default()
        .groups
        .into_iter()
        .flat_map(|group| group.programs);
    let program = programs.last().unwrap_or_else(|| unreachable!("the text is valid"));
    Arc::unwrap_or_clone(program)
}

/// The sections of `text` and of the files that it includes, and notes.
fn sections_of(text: &str, world: &World, scope: &Scope) -> Result<(Vec<Section>, Vec<String>), Vec<Problem>> {
    let source = Arc::new(Source {
        file: None,
        here: world.here.clone(),
    });
    let mut files = Files::default();
    files.read(text, &source)?;
    if let Some(section) = files.section("include") {
        include::read(&section, scope, &mut files)?;
    }
    Ok(files.finish())
}

/// Checks the names of the sections. Some are ignored, and some are refused.
fn check_names(sections: &[Section], findings: &mut Findings) -> Result<(), Vec<Problem>> {
    let mut says_something = false;
    for section in sections {
        let refused = match Kind::of(&section.name) {
            Kind::Supervisord | Kind::Program(_) | Kind::Group(_) | Kind::FastCgi(_) | Kind::EventListener(_) => {
                says_something = true;
                continue;
            }
            Kind::UnixServer | Kind::InetServer => continue,
            Kind::Include => {
                let is_included = |(_, value): &(String, Raw)| value.source.file.is_some();
                if section.entries.iter().any(is_included) {
                    findings.note("[include]: ignored in an included file".to_owned());
                }
                continue;
            }
            Kind::Service => {
                // supervisorctl reads its own section of the same file, and the interface is built in.
                if !matches!(section.name.as_str(), "supervisorctl" | "rpcinterface:supervisor") {
                    findings.note(format!("[{}]: ignored, there are no plugins", section.name));
                }
                continue;
            }
            Kind::Foreign => {
                findings.note(format!("[{}]: unknown section, ignored", section.name));
                continue;
            }
            Kind::Misspelled(spelling) => format!("unknown section; if it is to have an effect, write {spelling}"),
        };
        says_something = true;
        findings.problem(Problem::in_section(section, refused));
    }
    if says_something {
        return Ok(());
    }
    // An empty file is usually a mistake, and accepting it would stop all running programs.
    let message = "the file has no [supervisord], no [program:NAME] and no [group:NAME]";
    Err(vec![Problem::in_file(&Source::default(), message)])
}

#[cfg(test)]
mod tests;
