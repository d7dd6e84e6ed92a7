//! Assigns programs to groups.
//!
//! supervisord creates the processes of a `[group:x]` under the group's name. A program that two groups contain runs
//! in both. A program that no group contains is a group of its own. If two groups have the same name, the first one
//! in the order of priorities counts. If two processes of a group have the same name, the last one counts. Each group
//! or process that does not run for such a reason gets a note.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::keys::Keys;
use super::problem::Findings;
use super::program::{Common, PRIORITY, Program};
use super::raw::Section;
use super::sections::Kind;
use super::values;

/// The keys of a `[group:x]`.
const KEYS: &[&str] = &["programs", "priority"];

/// The programs with the common address `group:*`. They come from a `[group:x]`, which may be empty, or they are a
/// single program that no group contains.
#[derive(Clone, Debug)]
pub struct Group {
    /// The name of the group, which is the part of an address before the colon.
    pub name: String,
    /// The priority. A group with a lower number starts earlier and is stopped later.
    pub priority: i32,
    /// The programs of the group, in start order.
    pub programs: Vec<Arc<Program>>,
}

/// A group that is being built.
struct Draft {
    group: Group,
    /// The names of its programs, in the order in which supervisord creates their processes.
    members: Vec<String>,
}

/// Reads all groups of a configuration, in start order.
pub fn read(sections: &[Section], common: &Common, findings: &mut Findings) -> Vec<Group> {
    let mut drafts: Vec<Draft> = Vec::new();
    for section in sections {
        if let Kind::Group(name) = Kind::of(&section.name) {
            drafts.push(group(section, name, sections, common, findings));
        }
    }
    let mut alone = Vec::new();
    for section in sections {
        let name = match Kind::of(&section.name) {
            Kind::Program(name) | Kind::FastCgi(name) => name,
            // A pool of listeners is a group by itself.
            Kind::EventListener(name) => {
                alone.extend(read_program(section, name, name, common, findings));
                continue;
            }
            _ => continue,
        };
        let is_in = |draft: &&mut Draft| draft.members.iter().any(|member| member == name);
        let mut is_member = false;
        for draft in drafts.iter_mut().filter(is_in) {
            is_member = true;
            let program = read_program(section, name, &draft.group.name, common, findings);
            draft.group.programs.extend(program);
        }
        if !is_member {
            alone.extend(read_program(section, name, name, common, findings));
        }
    }
    let mut groups: Vec<Group> = drafts.into_iter().map(|draft| draft.finish(findings)).collect();
    let alone = alone.into_iter().map(Draft::of_one);
    groups.extend(alone.map(|draft| draft.finish(findings)));
    // The sort is stable, so a [group:x] comes before a [program:x] of the same priority.
    groups.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
    drop_namesakes(&mut groups, findings);
    for group in &mut groups {
        group
            .programs
            .sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
    }
    groups
}

fn group(section: &Section, name: &str, sections: &[Section], common: &Common, findings: &mut Findings) -> Draft {
    let mut keys = Keys::new(section, &common.scope, KEYS, findings);
    let name = keys.title(name);
    let named = keys.optional("programs", values::names).unwrap_or_default();
    let priority = keys.optional("priority", values::priority).unwrap_or(PRIORITY);
    let mut members: Vec<String> = Vec::new();
    for member in named {
        let kinds = || sections.iter().map(|section| Kind::of(&section.name));
        let is_program = kinds().any(|kind| kind == Kind::Program(&member));
        match (is_program, kinds().any(|kind| kind == Kind::FastCgi(&member))) {
            (false, false) => keys.complain("programs", &format!("there is no [program:{member}]")),
            (true, true) => {
                let message = format!("{member} is a [program:{member}] and an [fcgi-program:{member}]");
                keys.complain("programs", &message);
            }
            _ => {}
        }
        members.retain(|other| *other != member);
        members.push(member);
    }
    Draft {
        group: Group {
            name,
            priority,
            programs: Vec::new(),
        },
        members,
    }
}

/// Reads a program for one of its groups. A mistake is reported once, even if several groups contain the program.
fn read_program(
    section: &Section,
    name: &str,
    group: &str,
    common: &Common,
    findings: &mut Findings,
) -> Option<Arc<Program>> {
    let mut own = Findings {
        cgroups: std::mem::take(&mut findings.cgroups),
        ..Findings::default()
    };
    let program = Program::read(section, name, group, common, &mut own);
    findings.cgroups = own.cgroups;
    own.notes.into_iter().for_each(|note| findings.note(note));
    own.problems.into_iter().for_each(|problem| findings.problem(problem));
    program.map(Arc::new)
}

impl Draft {
    fn of_one(program: Arc<Program>) -> Draft {
        Draft {
            members: vec![program.name.clone()],
            group: Group {
                name: program.group.clone(),
                priority: program.priority,
                programs: vec![program],
            },
        }
    }

    /// Removes each process that a later process of the same name replaces.
    fn finish(mut self, findings: &mut Findings) -> Group {
        let place = |program: &Arc<Program>| self.members.iter().position(|member| *member == program.name);
        self.group.programs.sort_by_key(place);
        let mut taken: BTreeSet<String> = BTreeSet::new();
        let mut stays = Vec::new();
        for program in self.group.programs.into_iter().rev() {
            let names = program.names();
            let free = names.iter().filter(|name| !taken.contains(*name)).count();
            let different = names.iter().collect::<BTreeSet<_>>().len();
            let section = format!("program:{}", program.name);
            if different < names.len() {
                findings.problem(program.problem("two of its processes have the same name"));
            } else if names.is_empty() || free == names.len() {
                taken.extend(names);
                stays.push(program);
            } else if free == 0 {
                let why = format!(
                    "not run, because its processes have the names of others in [group:{}]",
                    self.group.name
                );
                findings.note(format!("[{section}]: {why}"));
            } else {
                let message = format!(
                    "some of its processes have the names of others in [group:{}]",
                    self.group.name
                );
                findings.problem(program.problem(message));
            }
        }
        stays.reverse();
        self.group.programs = stays;
        self.group
    }
}

/// Keeps only the first group of each name.
fn drop_namesakes(groups: &mut Vec<Group>, findings: &mut Findings) {
    let mut names: BTreeSet<String> = BTreeSet::new();
    groups.retain(|group| {
        let is_new = names.insert(group.name.clone());
        if !is_new {
            let line = format!(
                "{:?}: two groups have this name, and the second one does not run",
                group.name
            );
            findings.note(line);
        }
        is_new
    });
}
