//! The configuration: a supervisord-style INI file turned into plain data, whole or not at all.
//!
//! Everything that can be wrong with the text is found before anything starts, and all of it in one
//! go, so that every mistake of a file is seen at once. What can't be known from the text
//! (whether a program exists, whether a directory may be entered) is left to the moment of the
//! spawn: it may be different by then, and the library's error names the step and the path.
//!
//! A file means what it means to supervisord, or it is refused. What supervisord would do to a program is
//! either done or refused with the reason; only servers, their clients and their plugins are
//! ignored, and what supervisord ignores too. Each of these gets a note.
//!
//! The modules, from the bottom up: `raw` is what a file has, `problem` what is wrong with it, `ini` knows lines, `expand`
//! the `%(name)s`, `users` accounts, `world` the surroundings, `include` other files, `sections` the names of sections,
//! `words` commands, `environment` variables, `values` other single values, `streams` and `automatic` where output goes,
//! `keys` how a section is asked, `supervisord` that section, `beyond` the keys that supervisord does not have,
//! `program` one `[program:x]`, `groups` which program runs in which group.

use std::path::Path;
use std::sync::Arc;

mod automatic;
mod beyond;
mod environment;
mod expand;
mod groups;
mod include;
mod ini;
mod keys;
mod problem;
mod program;
mod raw;
mod sections;
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

pub use self::beyond::Readiness;
pub use self::groups::Group;
pub use self::program::{Instance, Log, Program};
pub use self::streams::Stream;
pub use self::supervisord::Supervisord;
pub use self::users::User;
pub use self::values::{AutoRestart, MOST_INSTANCES};
pub use self::world::World;

/// A whole configuration.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The groups, in the order in which they are started.
    pub groups: Vec<Group>,
    /// The settings of the taskmaster itself.
    pub supervisord: Supervisord,
    /// What was ignored, one line each.
    pub notes: Vec<String>,
}

/// Reads and understands the file at `path`. A FIFO is waited for.
///
/// # Errors
/// Everything that is wrong, one line each, with the file's name.
pub fn load(path: &Path) -> Result<Config, Vec<String>> {
    load_from(path, Fifo::Waited)
}

/// The same without ever waiting, for a reload: a FIFO is refused.
///
/// # Errors
/// As [`load`].
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

/// Understands `text`, and the files that it includes.
///
/// # Errors
/// Everything that is wrong with them.
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
    let supervisord = Supervisord::read(section.unwrap_or(&none), world, &scope, &mut findings);
    let variable = |(key, value): &(String, String)| (format!("ENV_{key}"), Value::Text(value.clone()));
    scope.share(supervisord.environment.iter().map(variable));
    let common = Common {
        world: Arc::clone(world),
        scope,
        environment: Arc::clone(&supervisord.environment),
        automatic: Arc::clone(&supervisord.automatic),
    };
    let groups = groups::read(&sections, &common, &mut findings);
    if !findings.problems.is_empty() {
        return Err(findings.problems);
    }
    Ok(Config {
        groups,
        supervisord,
        notes: findings.notes,
    })
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

/// Looks at the sections as such: which ones are ignored, and which ones can't be.
fn check_names(sections: &[Section], findings: &mut Findings) -> Result<(), Vec<Problem>> {
    let mut says_something = false;
    for section in sections {
        let refused = match Kind::of(&section.name) {
            Kind::Supervisord | Kind::Program(_) | Kind::Group(_) => {
                says_something = true;
                continue;
            }
            Kind::Include => {
                let is_included = |(_, value): &(String, Raw)| value.source.file.is_some();
                if section.entries.iter().any(is_included) {
                    findings.note("[include]: ignored in an included file".to_owned());
                }
                continue;
            }
            Kind::Service => {
                let line = "ignored, there is no server, and no SUPERVISOR_SERVER_URL";
                findings.note(format!("[{}]: {line}", section.name));
                continue;
            }
            Kind::Foreign => {
                findings.note(format!("[{}]: unknown section, ignored", section.name));
                continue;
            }
            Kind::FastCgi(_) => "FastCGI programs are not supported: their socket would be missing".to_owned(),
            Kind::EventListener => "event listeners are not supported: no events would arrive".to_owned(),
            Kind::Misspelled(spelling) => format!("unknown section; if it is to have an effect, write {spelling}"),
        };
        says_something = true;
        findings.problem(Problem::in_section(section, refused));
    }
    if says_something {
        return Ok(());
    }
    // An empty file is more often a mistake than a wish, and what runs would be stopped for it.
    let message = "there is no [supervisord], no [program:NAME] and no [group:NAME] in it";
    Err(vec![Problem::in_file(&Source::default(), message)])
}

#[cfg(test)]
mod tests;
