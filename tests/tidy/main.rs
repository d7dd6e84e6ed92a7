//! The project's rules that neither rustc nor clippy can check: the direction of imports, the purity of some layers,
//! and a few names. (Cargo.toml and src/lib.rs have the lints that those two check.)
//!
//! Each rule is a function from source text to findings. A second group of tests shows that each rule finds a planted
//! fault.

mod modules;
mod readme;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use modules::{Arrow, Crate};

/// The longest file, in lines.
const LONGEST_FILE: usize = 800;

/// The rooms of plain data, and of how lists of it grow, which every room may import.
const DATA: &[&str] = &["time", "signal", "exit", "errno", "random", "codec", "growth"];

/// Each room of the library (a module below the crate's root), and the rooms that it may import in addition to plain
/// data. The top rooms may import all others.
const ROOMS: &[(&str, &[&str])] = &[
    ("architecture", &[]),
    ("guide", &[]),
    ("time", &[]),
    ("signal", &[]),
    ("exit", &[]),
    ("errno", &[]),
    ("random", &[]),
    ("codec", &[]),
    ("growth", &[]),
    ("names", &[]),
    // Pure decisions.
    ("lifecycle", &[]),
    ("group", &["lifecycle"]),
    ("deadlines", &[]),
    // The kernel.
    ("sys", &[]),
    ("owner", &["sys"]),
    ("poll", &[]),
    ("procfs", &["sys"]),
    ("notify", &["sys", "owner", "procfs"]),
    ("timerfd", &["sys", "owner", "procfs"]),
    ("signalfd", &["sys", "owner", "procfs"]),
    ("waker", &["sys"]),
    ("fdset", &["sys", "owner"]),
    ("cgroup", &["sys", "poll", "procfs"]),
    ("pidfd", &["sys", "poll", "procfs"]),
    ("lost", &["sys", "owner", "pidfd"]),
    ("child", &["sys", "owner", "poll", "pidfd", "lost"]),
    (
        "command",
        &[
            "sys", "owner", "poll", "procfs", "notify", "signalfd", "pidfd", "lost", "child",
        ],
    ),
    ("launcher", &["sys", "owner", "command", "child", "timerfd"]),
    // Forms of plain values for the feature serde.
    (
        "serde_forms",
        &["signal", "exit", "time", "lifecycle", "command", "engine"],
    ),
    // The supervisor: decisions about many processes, the real kernel below their seam, and the simulated one.
    (
        "engine",
        &[
            "lifecycle",
            "group",
            "deadlines",
            "command",
            "child",
            "cgroup",
            "notify",
            "fdset",
            "owner",
            "signalfd",
        ],
    ),
    (
        "linux",
        &[
            "engine",
            "lifecycle",
            "deadlines",
            "sys",
            "owner",
            "poll",
            "procfs",
            "notify",
            "timerfd",
            "signalfd",
            "waker",
            "fdset",
            "cgroup",
            "pidfd",
            "lost",
            "child",
            "command",
            "launcher",
        ],
    ),
    (
        "proof",
        &[
            "engine",
            "lifecycle",
            "group",
            "command",
            "child",
            "cgroup",
            "notify",
            "fdset",
            "signalfd",
        ],
    ),
    // The simulation for hosts, with the feature sim.
    (
        "simulation",
        &[
            "supervisor",
            "engine",
            "lifecycle",
            "deadlines",
            "command",
            "child",
            "cgroup",
            "notify",
            "fdset",
            "owner",
            "signalfd",
        ],
    ),
    // Its public name.
    ("sim", &["simulation"]),
];
const TOP_ROOMS: &[&str] = &["supervisor"];

/// Today's arrows that break the rule of [`no_import_goes_upward_or_in_a_circle`]. A new one needs a good reason; one
/// that is gone must be removed here.
const KNOWN_ARROWS: &[(&str, &str)] = &[];

/// The rooms that do no I/O, read no clock, and keep no state outside of their values.
const PURE_ROOMS: &[&str] = &["lifecycle", "group"];

/// The modules of std that a pure room may use. None of them reaches the kernel.
const PURE_STD: &[&str] = &[
    "array",
    "borrow",
    "cmp",
    "collections",
    "convert",
    "error",
    "fmt",
    "hash",
    "iter",
    "marker",
    "mem",
    "num",
    "ops",
    "option",
    "result",
    "slice",
    "str",
    "string",
    "vec",
];
/// Plain types in other modules of std.
const PURE_TYPES: &[&str] = &[
    "std::time::Duration",
    "std::time::SystemTime",
    "std::process::ExitStatus",
    "std::io::Error",
    "std::io::ErrorKind",
];

/// The library's only dependencies.
const DEPENDENCIES: &[&str] = &["bitflags", "libc", "rustix", "thiserror"];

/// The names at the project's top level, in addition to dotfiles and LICENSE-*.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "tests",
    "ci",
    "README.md",
    "examples",
    "benches",
    "CHANGELOG.md",
];

/// The Rust files of the project, with their paths below its root.
type Files = BTreeMap<String, String>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files() -> Files {
    let mut files = Files::new();
    for directory in ["src", "tests", "examples", "benches"] {
        collect(&root().join(directory), &mut files);
    }
    assert!(files.len() > 100, "cannot find the sources");
    files
}

fn collect(directory: &Path, files: &mut Files) {
    for entry in fs::read_dir(directory).expect("cannot list a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).expect("a path below the root");
            let text = fs::read_to_string(&path).expect("cannot read a source file");
            files.insert(name.to_string_lossy().into_owned(), text);
        }
    }
}

/// The library, and each example and benchmark. The name of a crate is the directory or the file of its root.
fn crates() -> &'static [Crate] {
    static CRATES: OnceLock<Vec<Crate>> = OnceLock::new();
    CRATES.get_or_init(|| parse_crates(&files()))
}

fn parse_crates(files: &Files) -> Vec<Crate> {
    let mut crates: BTreeMap<String, Vec<(&str, &str)>> = BTreeMap::new();
    for (path, text) in files {
        let (name, inner) = match path.split('/').collect::<Vec<_>>()[..] {
            ["src", ..] => ("pidherd".to_owned(), &path["src/".len()..]),
            ["examples" | "benches", _] => (path.trim_end_matches(".rs").to_owned(), "main.rs"),
            [kind @ ("examples" | "benches"), name, ..] => {
                (format!("{kind}/{name}"), &path[kind.len() + name.len() + 2..])
            }
            _ => continue,
        };
        crates.entry(name).or_default().push((inner, text));
    }
    crates.iter().map(|(name, files)| Crate::parse(name, files)).collect()
}

fn assert_none(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn rooms_import_only_the_rooms_below_them() {
    assert_none(crates().iter().flat_map(forbidden_rooms).collect());
}

#[test]
fn no_import_goes_upward_or_in_a_circle() {
    let found: BTreeSet<(String, String)> = crates().iter().flat_map(upward_or_circular).collect();
    let known: BTreeSet<(String, String)> = KNOWN_ARROWS
        .iter()
        .map(|&(from, to)| (from.into(), to.into()))
        .collect();
    let new = found
        .difference(&known)
        .map(|(from, to)| format!("new: {from} -> {to}"));
    let gone = known
        .difference(&found)
        .map(|(from, to)| format!("gone: {from} -> {to}"));
    assert_none(new.chain(gone).collect());
}

#[test]
fn the_pure_rooms_are_pure() {
    assert_none(crates().iter().flat_map(impure_paths).collect());
}

#[test]
fn unsafe_code_is_allowed_in_sys_alone() {
    assert_none(unsafe_outside_of_sys(&files()));
}

#[test]
fn files_are_short() {
    assert_none(too_long(&files()));
}

#[test]
fn no_comment_postpones_work() {
    assert_none(postponed(&files()));
}

#[test]
fn the_library_has_only_the_agreed_dependencies() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version=1", "--no-deps", "--offline"]);
    let output = cargo.current_dir(root()).output().expect("cannot run cargo");
    let metadata = serde_json::from_slice(&output.stdout).expect("cannot read cargo's output");
    assert_none(wrong_dependencies(&metadata));
}

#[test]
fn the_top_level_has_only_the_agreed_names() {
    let entries = fs::read_dir(root()).expect("cannot list the project").flatten();
    let names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let ignored = fs::read_to_string(root().join(".gitignore")).unwrap_or_default();
    assert_none(unknown_at_the_top(&names, &ignored));
}

/// The arrows from one room to another that [`ROOMS`] does not allow.
fn forbidden_rooms(of: &Crate) -> Vec<String> {
    if of.name != "pidherd" {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let rooms: BTreeSet<&String> = of.paths().filter_map(|(module, _)| module.first()).collect();
    let is_known = |room: &str| TOP_ROOMS.contains(&room) || ROOMS.iter().any(|&(known, _)| known == room);
    for room in rooms.into_iter().filter(|room| !is_known(room)) {
        findings.push(format!("the room {room} is not listed in ROOMS"));
    }
    for Arrow { from, to } in of.arrows() {
        let (Some(room), Some(target)) = (from.first(), to.first()) else {
            continue;
        };
        let Some(&(_, allowed)) = ROOMS.iter().find(|(name, _)| name == room) else {
            continue;
        };
        let target = target.as_str();
        if target != room && !DATA.contains(&target) && !allowed.contains(&target) {
            findings.push(format!("{} must not import from {target}", from.join("::")));
        }
    }
    findings
}

/// The arrows that go upward (from a module to an ancestor's own items), and those that are part of a circle between
/// the children of one module.
fn upward_or_circular(of: &Crate) -> BTreeSet<(String, String)> {
    let arrows = of.arrows();
    let mut bad: BTreeSet<&Arrow> = arrows.iter().filter(|arrow| is_upward(arrow)).collect();
    // The siblings that an arrow connects: the two paths up to and with the first difference.
    let siblings = |arrow: &Arrow| -> (Vec<String>, Vec<String>) {
        let common = arrow.from.iter().zip(&arrow.to).take_while(|(a, b)| a == b).count();
        (arrow.from[..=common].to_vec(), arrow.to[..=common].to_vec())
    };
    let level: Vec<&Arrow> = arrows.iter().filter(|arrow| !is_upward(arrow)).collect();
    let edges: BTreeSet<_> = level.iter().map(|arrow| siblings(arrow)).collect();
    for arrow in level {
        let (from, to) = siblings(arrow);
        if reaches(&edges, &to, &from) {
            bad.insert(arrow);
        }
    }
    let name = |module: &[String]| [std::slice::from_ref(&of.name), module].concat().join("::");
    bad.into_iter()
        .map(|arrow| (name(&arrow.from), name(&arrow.to)))
        .collect()
}

fn is_upward(arrow: &Arrow) -> bool {
    arrow.from.starts_with(&arrow.to)
}

fn reaches<T: Ord>(edges: &BTreeSet<(T, T)>, from: &T, to: &T) -> bool {
    let mut seen = BTreeSet::from([from]);
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        let next = edges.iter().filter(|(from, _)| from == at).map(|(_, to)| to);
        open.extend(next.filter(|&next| seen.insert(next)));
    }
    seen.contains(to)
}

/// The paths in pure rooms that lead to the kernel or to a clock.
fn impure_paths(of: &Crate) -> Vec<String> {
    let is_pure_room = |room: &String| of.name == "pidherd" && PURE_ROOMS.contains(&room.as_str());
    let mut findings = Vec::new();
    for (module, paths) in of
        .paths()
        .filter(|(module, _)| module.first().is_some_and(is_pure_room))
    {
        for path in paths {
            let whole = path.join("::");
            let is_plain = |plain: &&str| whole == **plain || whole.starts_with(&format!("{plain}::"));
            let pure = match path[0].as_str() {
                "std" | "core" | "alloc" => {
                    path.get(1).is_some_and(|part| PURE_STD.contains(&part.as_str())) || PURE_TYPES.iter().any(is_plain)
                }
                "rustix" | "libc" => false,
                _ => true,
            };
            let reads_a_clock = path.len() > 1 && path.last().is_some_and(|last| last == "now" || last == "elapsed");
            if !pure || reads_a_clock {
                findings.push(format!("{} is pure and must not use {whole}", module.join("::")));
            }
        }
    }
    findings
}

/// The library denies `unsafe_code`. Only `sys`, and tests, may allow it again.
fn unsafe_outside_of_sys(files: &Files) -> Vec<String> {
    let exempt = ["src/lib.rs", "src/sys/mod.rs", "src/testing.rs"];
    let is_exempt = |path: &str| exempt.contains(&path) || path.ends_with("/tests.rs");
    let library = files.iter().filter(|(path, _)| path.starts_with("src/"));
    library
        .filter(|(path, text)| !is_exempt(path) && text.contains("unsafe_code"))
        .map(|(path, _)| format!("{path}: only src/sys may allow unsafe_code"))
        .collect()
}

fn too_long(files: &Files) -> Vec<String> {
    let lengths = files.iter().map(|(path, text)| (path, text.lines().count()));
    let long = lengths.filter(|&(_, lines)| lines > LONGEST_FILE);
    long.map(|(path, lines)| format!("{path}: {lines} lines")).collect()
}

fn postponed(files: &Files) -> Vec<String> {
    // The marks are written in two parts, so that the rule does not find itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut findings = Vec::new();
    for (path, text) in files {
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = line.split(|c: char| !c.is_alphanumeric());
            if let Some(mark) = words.find(|word| marks.contains(word)) {
                findings.push(format!("{path}:{number}: {mark}"));
            }
        }
    }
    findings
}

/// Compares the dependencies that a user of the library builds with [`DEPENDENCIES`].
fn wrong_dependencies(metadata: &serde_json::Value) -> Vec<String> {
    let all = metadata["packages"][0]["dependencies"].as_array().into_iter().flatten();
    let found: BTreeSet<&str> = all
        .filter(|dependency| dependency["kind"] != "dev")
        // The form of values for serde is chosen by the user, by a feature.
        .filter(|dependency| dependency["name"] != "serde" || dependency["optional"] != true)
        .filter_map(|dependency| dependency["name"].as_str())
        .collect();
    let agreed: BTreeSet<&str> = DEPENDENCIES.iter().copied().collect();
    let different = found.symmetric_difference(&agreed);
    different.map(|name| format!("Cargo.toml: {name}")).collect()
}

fn unknown_at_the_top(names: &[String], ignored: &str) -> Vec<String> {
    let ignored: Vec<&str> = ignored.lines().map(|line| line.trim_matches('/')).collect();
    let is_agreed = |name: &str| {
        TOP_LEVEL.contains(&name) || ignored.contains(&name) || name.starts_with('.') || name.starts_with("LICENSE-")
    };
    let unknown = names.iter().filter(|name| !is_agreed(name));
    unknown
        .map(|name| format!("{name} does not belong at the top level"))
        .collect()
}

/// Each rule must find a planted fault, and nothing in correct code.
mod planted {
    use super::*;

    fn library(files: &[(&str, &str)]) -> Crate {
        Crate::parse("pidherd", files)
    }

    fn one(path: &str, text: &str) -> Files {
        Files::from([(path.to_owned(), text.to_owned())])
    }

    #[test]
    fn an_import_from_a_room_above() {
        let root = "pub mod supervisor; pub mod fdset; pub mod lifecycle; pub mod group; pub mod time; mod sys; \
                    pub use supervisor::Supervisor; pub use time::Instant;";
        for (path, text, findings) in [
            ("lifecycle/mod.rs", "use crate::sys;", 1),
            ("lifecycle/mod.rs", "use crate::time::Instant;", 0),
            ("lifecycle/mod.rs", "use crate::Instant;", 0),
            ("lifecycle/mod.rs", "use crate::{time::Instant, sys::wait, group};", 2),
            ("lifecycle/stop.rs", "use super::super::supervisor::Supervisor;", 1),
            ("lifecycle/stop.rs", "fn f() { assert!(crate::sys::g(), \"x\"); }", 1),
            ("lifecycle/stop.rs", "use super::policy::Policy;", 0),
            ("group/mod.rs", "fn f() -> crate::fdset::Token { g() }", 1),
            ("group/mod.rs", "use crate::lifecycle::Lifecycle;", 0),
            ("sys/wait.rs", "use crate::fdset as other;", 1),
            ("sys/wait.rs", "use crate::sys::clone;", 0),
            ("fdset.rs", "use crate::Supervisor;", 1),
            ("fdset.rs", "pub(in crate::supervisor) struct Table;", 0),
            ("fdset.rs", "#[cfg(test)] mod tests { use crate::supervisor; }", 0),
            ("fdset.rs", "#[cfg(test)] use crate::supervisor;", 0),
            ("fdset.rs", "/// See [crate::supervisor].\nstruct A;", 0),
            ("supervisor/mod.rs", "use crate::{fdset, group, sys};", 0),
            ("unheard_of.rs", "fn f() {}", 1),
        ] {
            let found = forbidden_rooms(&library(&[("lib.rs", root), (path, text)]));
            assert_eq!(found.len(), findings, "{path}: {text}: {found:?}");
        }
    }

    #[test]
    fn an_import_that_goes_upward() {
        for (parent, child, findings) in [
            ("mod child; pub struct Own;", "use super::Own;", 1),
            ("mod child; pub struct Own;", "fn f() { super::Own::new(); }", 1),
            ("mod child; pub struct Own;", "use crate::room::{self, Own};", 1),
            ("mod child; mod other; pub use other::Own;", "use super::Own;", 0),
            ("mod child; mod other; use other::Own as Name;", "use super::Name;", 0),
            ("mod child; use std::fmt;", "use super::fmt;", 0),
            ("mod child; pub use child::A;", "pub struct A;", 0),
            ("mod child; pub struct Own; mod inner { use super::Own; }", "", 1),
            ("#[cfg(test)] mod child; pub struct Own;", "use super::Own;", 0),
        ] {
            let files = [
                ("lib.rs", "mod room;"),
                ("room/mod.rs", parent),
                ("room/child.rs", child),
            ];
            let found = upward_or_circular(&library(&files));
            assert_eq!(found.len(), findings, "{parent} {child}: {found:?}");
        }
    }

    #[test]
    fn imports_in_a_circle() {
        let arrows = |a: &str, b: &str, c: &str| {
            let files = [
                ("main.rs", "mod a; mod b; mod c;"),
                ("a.rs", a),
                ("b/mod.rs", b),
                ("b/in.rs", c),
            ];
            let found = upward_or_circular(&Crate::parse("example", &files));
            found
                .into_iter()
                .map(|(from, to)| format!("{from} {to}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(arrows("use crate::b::B;", "mod r#in;", ""), [""; 0]);
        assert_eq!(
            arrows("use crate::b::B;", "use super::a::A;", ""),
            ["example::a example::b", "example::b example::a"]
        );
        // The circle also counts if one arrow starts in a descendant.
        assert_eq!(
            arrows("use crate::b::B;", "mod inner { use crate::a::A; }", ""),
            ["example::a example::b", "example::b::inner example::a"]
        );
    }

    #[test]
    fn an_impure_path_in_a_pure_room() {
        for (text, findings) in [
            ("use std::fs::File;", 1),
            ("use std::{fmt, io};", 1),
            ("use std::{collections::{BTreeMap, VecDeque}, io::{self, Read}};", 2),
            ("use std::fmt; use std::time::Duration;", 0),
            ("use std::process::ExitStatus; fn f() { ExitStatus::default(); }", 0),
            ("use std::process::Command;", 1),
            ("fn f() { let t = std::time::SystemTime::now(); }", 1),
            ("use std::time::SystemTime; fn f() { let t = SystemTime::now(); }", 1),
            ("use std::time::Instant;", 1),
            ("fn f() -> libc::c_int { 0 }", 1),
            ("use rustix::fd::OwnedFd;", 1),
            ("use std::thread;", 1),
            ("#[cfg(test)]\nmod tests { use std::fs; }", 0),
        ] {
            let found = impure_paths(&library(&[("lifecycle/mod.rs", text)]));
            assert_eq!(found.len(), findings, "{text}: {found:?}");
            assert_eq!(impure_paths(&library(&[("supervisor/mod.rs", text)])), [""; 0]);
        }
    }

    #[test]
    fn unsafe_code_that_is_allowed_elsewhere() {
        let allow = "#![allow(unsafe_code)]";
        assert_eq!(unsafe_outside_of_sys(&one("src/pidfd.rs", allow)).len(), 1);
        assert_eq!(unsafe_outside_of_sys(&one("src/sys/wait.rs", allow)).len(), 1);
        for path in [
            "src/sys/mod.rs",
            "src/testing.rs",
            "src/cgroup/tests.rs",
            "tests/any.rs",
        ] {
            assert_eq!(unsafe_outside_of_sys(&one(path, allow)), [""; 0]);
        }
    }

    #[test]
    fn a_file_that_is_too_long() {
        assert_eq!(too_long(&one("src/any.rs", &"\n".repeat(LONGEST_FILE))), [""; 0]);
        assert_eq!(too_long(&one("src/any.rs", &"\n".repeat(LONGEST_FILE + 1))).len(), 1);
    }

    #[test]
    fn a_comment_that_postpones_work() {
        let mark = concat!("TO", "DO");
        assert_eq!(postponed(&one("tests/any.rs", &format!("// {mark}: this"))).len(), 1);
        assert_eq!(postponed(&one("tests/any.rs", &format!("// {mark}S"))), [""; 0]);
    }

    #[test]
    fn another_dependency() {
        let metadata = |name: &str, kind: Option<&str>| {
            let mut all: Vec<_> = DEPENDENCIES
                .iter()
                .map(|name| serde_json::json!({ "name": name, "kind": null }))
                .collect();
            all.push(serde_json::json!({ "name": name, "kind": kind }));
            serde_json::json!({ "packages": [{ "dependencies": all }] })
        };
        assert_eq!(wrong_dependencies(&metadata("nix", Some("dev"))), [""; 0]);
        for kind in [None, Some("build")] {
            assert_eq!(wrong_dependencies(&metadata("nix", kind)), ["Cargo.toml: nix"]);
        }
        // Serde is allowed as the feature that it is, and not otherwise.
        assert_eq!(wrong_dependencies(&metadata("serde", None)), ["Cargo.toml: serde"]);
        let empty = serde_json::json!({ "packages": [{ "dependencies": [] }] });
        assert_eq!(wrong_dependencies(&empty).len(), DEPENDENCIES.len());
    }

    #[test]
    fn an_unknown_name_at_the_top_level() {
        let names = ["src", "target", ".git", "LICENSE-MIT", "docs"].map(str::to_owned);
        assert_eq!(
            unknown_at_the_top(&names, "/target\n"),
            ["docs does not belong at the top level"]
        );
    }
}
