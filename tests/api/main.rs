//! The public interface of the crate, as a list that is reviewed like code, and what its documentation must have.
//!
//! `public.txt` has a line for each public item: its path, and its signature. A change of the interface is a change of
//! that file. `PIDHERD_UPDATE_API=1 cargo test --test api` writes it anew. The list is made from the sources with syn.
//! A list by rustdoc needs a nightly toolchain, which a fresh machine does not have.

#[path = "../tidy/source.rs"]
mod source;
mod surface;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{env, fs};

use surface::{Entry, Kind, Surface};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn surface() -> &'static Surface {
    static SURFACE: OnceLock<Surface> = OnceLock::new();
    SURFACE.get_or_init(|| Surface::read(&sources()))
}

/// All sources of the library, by their paths below `src`.
fn sources() -> BTreeMap<String, String> {
    fn collect(directory: &Path, files: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(directory).expect("cannot list a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                collect(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root().join("src")).expect("a path below src");
                let text = fs::read_to_string(&path).expect("cannot read a source file");
                files.insert(name.to_string_lossy().into_owned(), text);
            }
        }
    }
    let mut files = BTreeMap::new();
    collect(&root().join("src"), &mut files);
    files
}

#[test]
fn the_public_interface_is_the_listed_one() {
    let mut now = String::new();
    for entry in surface().entries() {
        // Writing to a text does not fail.
        let _infallible = writeln!(now, "{}", entry.line());
    }
    let file = root().join("tests/api/public.txt");
    if env::var_os("PIDHERD_UPDATE_API").is_some() {
        fs::write(&file, &now).expect("cannot write the list");
    }
    let listed = fs::read_to_string(&file).unwrap_or_default();
    let (old, new): (Vec<&str>, Vec<&str>) = (listed.lines().collect(), now.lines().collect());
    let gone = old.iter().filter(|line| !new.contains(line));
    let added = new.iter().filter(|line| !old.contains(line));
    let changes: Vec<String> = gone
        .map(|line| format!("- {line}"))
        .chain(added.map(|line| format!("+ {line}")))
        .collect();
    assert!(
        changes.is_empty() && listed == now,
        "the public interface differs from tests/api/public.txt; PIDHERD_UPDATE_API=1 writes it anew:\n{}",
        changes.join("\n")
    );
}

/// Whether a line is that of a getter: it only borrows, has no argument and cannot fail.
fn is_getter(line: &str) -> bool {
    line.contains("fn(&self) -> ") && !line.contains("Result<") || line.contains("fn(self) -> ")
}

#[test]
fn every_public_function_has_an_example_unless_it_is_a_getter() {
    let functions = surface().entries().iter().filter(|entry| entry.kind == Kind::Function);
    let bare = functions.filter(|entry| !entry.has_example() && !is_getter(&entry.line()));
    let bare: Vec<&str> = bare.map(|entry| entry.path.as_str()).collect();
    assert!(bare.is_empty(), "no example:\n{}", bare.join("\n"));
}

/// The public enums and structs without private fields to which nothing will be added, with the reason.
const EXHAUSTIVE: &[(&str, &str)] = &[
    (
        "pidherd::CrashBudget",
        "a limit is a number in a time, and a host writes it as a literal",
    ),
    ("pidherd::NotAnExit", "an error with the rejected value"),
    ("pidherd::OtherProcess", "an error without data"),
    (
        "pidherd::Restart",
        "always, never, or after an unexpected end: nothing is in between",
    ),
    ("pidherd::StillAlive", "an error with the process concerned"),
    ("pidherd::Target", "all, a group or an instance: there is nothing else"),
    ("pidherd::UnknownExit", "an error without data"),
    ("pidherd::fdset::Change", "a descriptor comes or goes"),
    (
        "pidherd::lifecycle::Remaining",
        "a host that forgets a case would forget living processes",
    ),
    (
        "pidherd::lifecycle::Reply",
        "a request is accepted, done already, kept for later, or without effect",
    ),
    (
        "pidherd::lifecycle::RunTimeout",
        "a time and its random part, which a host writes as a literal",
    ),
    ("pidherd::lifecycle::Wanted", "up or down"),
    ("pidherd::notify::BadPath", "an error with the rejected path"),
    (
        "pidherd::notify::Readiness",
        "a readiness descriptor has one message, and it came, can come or never comes",
    ),
    (
        "pidherd::notify::Received",
        "a host that forgets a case would lose a datagram",
    ),
    ("pidherd::signalfd::CannotBeCaught", "an error with the rejected signal"),
    (
        "pidherd::supervisor::FdChange",
        "a descriptor comes or goes, and a host that forgets a case leaks it",
    ),
    (
        "pidherd::supervisor::Name",
        "a group's name and a number, which a host writes as a literal",
    ),
    (
        "pidherd::supervisor::Progress",
        "a host that forgets a case would wait for an edge that never comes",
    ),
    (
        "pidherd::supervisor::Undescribed",
        "what is left over is stopped or released",
    ),
];

/// Whether a line of the list is that of an enum or a struct to which a field or a variant can be added only with a new
/// major version.
fn is_exhaustive(line: &str) -> bool {
    let Some((_, what)) = line.split_once(": ") else {
        return false;
    };
    let is_struct = what.starts_with("struct") && !what.contains("..");
    (what == "enum" || is_struct) && !what.contains("#[non_exhaustive]")
}

#[test]
fn each_type_that_cannot_grow_has_a_reason() {
    let lines: Vec<String> = surface().entries().iter().map(Entry::line).collect();
    let exhaustive = lines.iter().filter(|line| is_exhaustive(line));
    let names: Vec<&str> = exhaustive.filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    let listed: Vec<&str> = EXHAUSTIVE.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names, listed,
        "on the left the types without #[non_exhaustive], on the right those with a reason"
    );
}

/// The public enums without data that have no names for programs, with the reason.
const NAMELESS: &[(&str, &str)] = &[
    ("pidherd::Clock", "a setting"),
    ("pidherd::Lifetime", "a setting"),
    ("pidherd::Resource", "a setting"),
    ("pidherd::Restart", "a setting"),
    ("pidherd::Scope", "a setting"),
    ("pidherd::group::Effect", "an answer to a question of the host"),
    ("pidherd::lifecycle::DelayFrom", "a setting"),
    ("pidherd::lifecycle::Reply", "an answer to a question of the host"),
    ("pidherd::notify::NotifyAccess", "a setting"),
    ("pidherd::notify::ParseError", "an error, which has a text"),
    ("pidherd::notify::Readiness", "an answer to a question of the host"),
    ("pidherd::supervisor::AdoptError", "an error, which has a text"),
    ("pidherd::supervisor::Progress", "an answer to a question of the host"),
    ("pidherd::supervisor::Undescribed", "a setting"),
];

/// Programs read states, causes, ends, steps and failures in logs and statistics. So each enum without data can be read
/// back from its name. An enum with data has its kinds in an enum without.
#[test]
fn each_enum_without_data_has_names_for_programs_or_a_reason() {
    let lines: Vec<String> = surface().entries().iter().map(Entry::line).collect();
    let enums = lines.iter().filter(|line| line.ends_with(" enum"));
    let paths = enums.filter_map(|line| Some(line.split_once(": ")?.0));
    let is_plain = |path: &&str| {
        let of_it = format!("{path}::");
        let mut variants = lines.iter().filter_map(|line| line.strip_prefix(&of_it));
        !variants.any(|rest| !rest.contains(": ") && rest.contains(['(', '{']) || rest.contains(" { "))
    };
    let is_read_back = |path: &&str| {
        let traits = format!("{path}: ");
        lines
            .iter()
            .any(|line| line.starts_with(&traits) && line.contains("FromStr"))
    };
    let nameless: Vec<&str> = paths.filter(is_plain).filter(|path| !is_read_back(path)).collect();
    let listed: Vec<&str> = NAMELESS.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        nameless, listed,
        "on the left the enums without names, on the right those with a reason"
    );
}

/// A type is made by a host if it has a public function that returns it without a receiver.
#[test]
fn every_type_that_a_host_makes_has_an_example() {
    let surface = surface();
    let mut missing: Vec<String> = Vec::new();
    for entry in surface.entries().iter().filter(|entry| entry.kind == Kind::Type) {
        let is_made = surface.constructors(&entry.path).next().is_some();
        let has_example = entry.has_example() || surface.constructors(&entry.path).any(Entry::has_example);
        if is_made && !has_example {
            missing.push(entry.path.clone());
        }
    }
    assert!(missing.is_empty(), "no example:\n{}", missing.join("\n"));
}

#[test]
fn the_list_follows_exports_and_leaves_out_what_is_private() {
    let files = [
        (
            "lib.rs",
            "mod inner; pub mod open; pub use inner::Shown; mod sealed { pub fn hidden() {} }",
        ),
        (
            "inner.rs",
            "#[derive(Clone)] pub struct Shown { pub a: u8, b: u8 } pub struct Unseen;
             impl Shown { pub fn new(a: u8) -> Shown { loop {} } fn private(&self) {} pub(crate) fn near(&self) {} }
             impl std::fmt::Display for Shown { fn fmt(&self) {} }
             #[cfg(test)] impl Shown { pub fn for_tests() {} }",
        ),
        (
            "open.rs",
            "/// ```\n/// let x = 1;\n/// ```\n#[non_exhaustive] pub enum Kind { One, Two(u8), Three { at: u8 } }
             pub const MOST: usize = 3; pub fn find<T: Copy>(from: &[T]) -> Option<T> { None }
             pub use crate::inner::Shown as Renamed; pub trait Runs: Near { fn run(&self) -> u8 { 1 } }",
        ),
    ];
    let files = files
        .iter()
        .map(|&(name, text)| (name.to_owned(), text.to_owned()))
        .collect();
    let surface = Surface::read(&files);
    let lines: Vec<String> = surface.entries().iter().map(Entry::line).collect();
    assert_eq!(
        lines,
        [
            "pidherd::Shown: struct { pub a: u8, .. }",
            "pidherd::Shown: Clone + std::fmt::Display",
            "pidherd::Shown::new: fn(a: u8) -> Shown",
            "pidherd::open::Kind: #[non_exhaustive] enum",
            "pidherd::open::Kind::One",
            "pidherd::open::Kind::Three { at: u8 }",
            "pidherd::open::Kind::Two(u8)",
            "pidherd::open::MOST: const usize",
            "pidherd::open::Renamed: = pidherd::Shown",
            "pidherd::open::Runs: trait: Near",
            "pidherd::open::Runs::run: fn(&self) -> u8",
            "pidherd::open::find: fn<T: Copy>(from: &[T]) -> Option<T>",
        ]
    );
    let kind = surface
        .entries()
        .iter()
        .find(|entry| entry.path == "pidherd::open::Kind");
    assert!(kind.is_some_and(Entry::has_example));
    assert_eq!(surface.constructors("pidherd::Shown").count(), 1);
}
