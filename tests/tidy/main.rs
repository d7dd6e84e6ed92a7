//! The rules of style that a machine can check, as tests: whoever breaks one hears it from the
//! tests, not from a reader. Each rule is a function from a tree of sources to findings; below the
//! rules, each is shown to fail on planted text.

mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use source::{Tree, text};

/// The longest function, in lines, from `fn` to the closing brace.
const LONGEST_FUNCTION: usize = 70;
/// The longest file, in lines.
const LONGEST_FILE: usize = 800;

/// Plain data, open to every layer.
const DATA: &[&str] = &["time", "signal", "exit", "errno", "random"];

/// Who may import whom, beside plain data: only what stands above it in this list, and no more than
/// what is said here. The supervisor, errors and the crate's root may know everything.
const LAYERS: &[(&str, &[&str])] = &[
    ("time", &[]),
    ("signal", &[]),
    ("exit", &[]),
    ("errno", &[]),
    ("random", &[]),
    // Pure.
    ("lifecycle", &[]),
    ("group", &["lifecycle"]),
    ("deadlines", &[]),
    // The kernel.
    ("sys", &[]),
    ("owner", &["sys"]),
    ("poll", &[]),
    ("proc", &["sys"]),
    ("notify", &["sys", "owner", "proc"]),
    ("timerfd", &["sys", "owner"]),
    ("signalfd", &["sys", "owner"]),
    ("fdset", &["sys", "owner"]),
    ("cgroup", &["sys", "poll"]),
    ("pidfd", &["sys", "poll"]),
    ("child", &["sys", "owner", "poll", "pidfd"]),
    ("command", &["sys", "pidfd", "child"]),
];
const TOP: &[&str] = &["supervisor", "error"];

/// The layers that do no I/O, read no clock and keep no state but their own.
const PURE: &[&str] = &["lifecycle", "group"];

/// The parts of std that a pure layer may use; nothing in them reaches the kernel.
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
/// Plain types from elsewhere in std.
const PURE_TYPES: &[&str] = &[
    "std::time::Duration",
    "std::time::SystemTime",
    "std::process::ExitStatus",
    "std::io::Error",
    "std::io::ErrorKind",
];

/// What the library may need at run time, and nothing else.
const DEPENDENCIES: &[&str] = &["bitflags", "libc", "rustix", "thiserror"];

/// What may stand at the top of the project, beside dotfiles and LICENSE-*.
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

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn assert_none(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

fn here() -> Tree {
    let tree = Tree::load(&root());
    assert!(tree.library().count() > 5, "the sources were not found");
    tree
}

#[test]
fn imports_point_down_the_layers() {
    assert_none(imports_that_point_up(&here()));
}

#[test]
fn the_pure_layers_are_pure() {
    assert_none(impure_paths(&here()));
}

#[test]
fn unsafe_is_in_sys_alone() {
    assert_none(unsafe_outside_of_sys(&here()));
}

#[test]
fn the_library_does_not_panic_and_does_not_print() {
    assert_none(panics_and_prints(&here()));
}

#[test]
fn functions_and_files_are_short() {
    assert_none(too_long(&here()));
}

#[test]
fn nothing_is_left_for_later() {
    assert_none(left_for_later(&here()));
}

#[test]
fn there_are_four_dependencies() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    assert_none(wrong_dependencies(&manifest));
}

#[test]
fn the_top_level_has_only_the_agreed_names() {
    let entries = fs::read_dir(root()).expect("the project").flatten();
    let names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let ignored = fs::read_to_string(root().join(".gitignore")).unwrap_or_default();
    assert_none(strangers_at_the_top(&names, &ignored));
}

fn imports_that_point_up(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for source in tree.library() {
        let module = source.module();
        let Some(layer) = module.first().map(String::as_str).filter(|layer| !TOP.contains(layer)) else {
            continue;
        };
        let Some(&(_, below)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            // A file whose tokens are all of tests needs no layer.
            if !source.shipped.is_empty() {
                findings.push(format!(
                    "{}: no layer is known by the name {layer}; say where it stands",
                    source.path
                ));
            }
            continue;
        };
        for (line, path) in source.paths() {
            let target = crate_item(&module, &path);
            if let Some(target) = target.filter(|&to| to != layer && !DATA.contains(&to) && !below.contains(&to)) {
                findings.push(format!("{}:{line}: {layer} must not know {target}", source.path));
            }
        }
    }
    findings
}

/// The first name under the crate's root that this path, seen in this module, leads to.
fn crate_item<'a>(module: &[String], path: &'a [String]) -> Option<&'a str> {
    let up = path.iter().take_while(|segment| *segment == "super").count();
    let at = match path.first().map(String::as_str) {
        Some("crate") => 1,
        Some("super") if up == module.len() => up,
        _ => return None,
    };
    path.get(at).map(String::as_str)
}

fn impure_paths(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for source in tree
        .library()
        .filter(|source| source.module().first().is_some_and(|m| PURE.contains(&m.as_str())))
    {
        for (line, path) in source.paths() {
            let whole = path.join("::");
            let pure = match path[0].as_str() {
                "std" | "core" | "alloc" => {
                    path.get(1).is_some_and(|part| PURE_STD.contains(&part.as_str()))
                        || PURE_TYPES
                            .iter()
                            .any(|plain| whole == *plain || whole.starts_with(&format!("{plain}::")))
                }
                "rustix" | "libc" => false,
                _ => true,
            };
            let reads_a_clock = path.len() > 1 && path.last().is_some_and(|last| last == "now" || last == "elapsed");
            if !pure || reads_a_clock {
                findings.push(format!("{}:{line}: {whole} has no place in a pure layer", source.path));
            }
        }
    }
    findings
}

fn unsafe_outside_of_sys(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for source in tree.library().filter(|source| !source.path.starts_with("src/sys/")) {
        for token in source.tokens.iter().filter(|token| token.text == "unsafe") {
            findings.push(format!("{}:{}: unsafe", source.path, token.line));
        }
        let silenced = source.tokens.iter().filter(|token| {
            token.text == "unsafe_code" && source.path != "src/lib.rs" && !source.path.ends_with("/tests.rs")
        });
        findings.extend(silenced.map(|token| format!("{}:{}: unsafe_code is for sys", source.path, token.line)));
    }
    findings
}

fn panics_and_prints(tree: &Tree) -> Vec<String> {
    const METHODS: &[&str] = &["unwrap", "expect", "unwrap_err", "expect_err"];
    const MACROS: &[&str] = &[
        "panic",
        "unreachable",
        "todo",
        "unimplemented",
        "dbg",
        "print",
        "println",
        "eprint",
        "eprintln",
    ];
    let mut findings = Vec::new();
    for source in tree.library() {
        let tokens = &source.shipped;
        for (place, token) in tokens.iter().enumerate() {
            let before = place.checked_sub(1).map_or("", |before| text(tokens, before));
            let method = METHODS.contains(&token.text.as_str()) && matches!(before, "." | "::");
            let called = MACROS.contains(&token.text.as_str()) && text(tokens, place + 1) == "!";
            // `a != b` is no macro.
            if method || called && text(tokens, place + 2) != "=" {
                findings.push(format!("{}:{}: {}", source.path, token.line, token.text));
            }
        }
    }
    findings
}

fn too_long(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for source in &tree.0 {
        let lines = source.text.lines().count();
        if lines > LONGEST_FILE {
            findings.push(format!("{}: {lines} lines", source.path));
        }
        for (name, line, lines) in source
            .functions()
            .into_iter()
            .filter(|&(.., lines)| lines > LONGEST_FUNCTION)
        {
            findings.push(format!("{}:{line}: {name} has {lines} lines", source.path));
        }
    }
    findings
}

fn left_for_later(tree: &Tree) -> Vec<String> {
    // Put together here, or this very line would be found.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut findings = Vec::new();
    for source in &tree.0 {
        for (line, text) in (1..).zip(source.text.lines()) {
            let words: BTreeSet<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
            if let Some(mark) = marks.iter().find(|mark| words.contains(**mark)) {
                findings.push(format!("{}:{line}: {mark}", source.path));
            }
        }
    }
    findings
}

/// Reads the few things of TOML that a manifest's tables of dependencies need.
fn wrong_dependencies(manifest: &str) -> Vec<String> {
    let mut found = BTreeSet::new();
    let mut table = "";
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_end_matches(']');
            let (parent, name) = table.rsplit_once('.').unwrap_or(("", table));
            if is_runtime(parent) {
                found.insert(name);
            }
        } else if let Some((key, _)) = line
            .split_once('=')
            .filter(|_| is_runtime(table) && !line.starts_with('#'))
        {
            let name = key.split('.').next().unwrap_or(key);
            found.insert(name.trim().trim_matches('"'));
        }
    }
    let expected: BTreeSet<&str> = DEPENDENCIES.iter().copied().collect();
    found
        .symmetric_difference(&expected)
        .map(|name| format!("Cargo.toml: {name}"))
        .collect()
}

/// Whether a table of this name holds what users of the library will have to build.
fn is_runtime(table: &str) -> bool {
    let last = table.rsplit('.').next().unwrap_or(table);
    matches!(last, "dependencies" | "build-dependencies")
}

fn strangers_at_the_top(names: &[String], ignored: &str) -> Vec<String> {
    let ignored: Vec<&str> = ignored.lines().map(|line| line.trim_matches('/')).collect();
    let agreed = |name: &str| {
        TOP_LEVEL.contains(&name) || ignored.contains(&name) || name.starts_with('.') || name.starts_with("LICENSE-")
    };
    let strangers = names.iter().filter(|name| !agreed(name));
    strangers
        .map(|name| format!("{name} does not belong at the top level"))
        .collect()
}

/// The rules must be able to fail, and must not fail on what only looks like it.
mod planted {
    use super::*;

    /// What `rule` finds in one file.
    fn found(rule: fn(&Tree) -> Vec<String>, path: &str, text: &str) -> usize {
        let tree = Tree::new([(path.to_owned(), text.to_owned())]);
        rule(&tree).len()
    }

    #[test]
    fn an_import_that_points_up() {
        let rule = imports_that_point_up;
        for (path, text, findings) in [
            ("src/lifecycle/mod.rs", "use crate::sys;", 1),
            ("src/lifecycle/mod.rs", "use crate::time::Instant;", 0),
            (
                "src/lifecycle/mod.rs",
                "use crate::{time::Instant, sys::wait, group};",
                2,
            ),
            ("src/lifecycle/stop.rs", "use super::super::supervisor::Supervisor;", 1),
            ("src/lifecycle/stop.rs", "use super::policy::Policy;", 0),
            ("src/lifecycle.rs", "use super::group::Group;", 1),
            ("src/group/mod.rs", "fn f() -> crate::fdset::Token { g() }", 1),
            ("src/group/mod.rs", "use crate::lifecycle::Lifecycle;", 0),
            ("src/sys/wait.rs", "use crate::pidfd::PidFd as Other;", 1),
            ("src/sys/wait.rs", "use crate::sys::clone;", 0),
            ("src/fdset.rs", "use crate::Supervisor;", 1),
            (
                "src/fdset.rs",
                "pub(crate) struct Table; pub(in crate::fdset) struct Other;",
                0,
            ),
            ("src/fdset.rs", "#[cfg(test)] mod tests { use crate::supervisor; }", 0),
            (
                "src/fdset.rs",
                "/// See [crate::supervisor].\n// crate::supervisor\n",
                0,
            ),
            ("src/supervisor/mod.rs", "use crate::{command, group, sys};", 0),
            ("src/unheard_of.rs", "fn f() {}", 1),
            ("tests/any.rs", "use crate::supervisor;", 0),
        ] {
            assert_eq!(found(rule, path, text), findings, "{path}: {text}");
        }
    }

    #[test]
    fn a_pure_layer_that_is_not() {
        let rule = impure_paths;
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
            assert_eq!(found(rule, "src/lifecycle/mod.rs", text), findings, "{text}");
            assert_eq!(found(rule, "src/supervisor/mod.rs", text), 0, "{text}");
        }
    }

    #[test]
    fn unsafe_in_the_wrong_place() {
        let rule = unsafe_outside_of_sys;
        assert_eq!(found(rule, "src/pidfd.rs", "fn f() { unsafe { g() } }"), 1);
        assert_eq!(
            found(rule, "src/pidfd.rs", "#[cfg(test)] mod tests { unsafe fn f() {} }"),
            1
        );
        assert_eq!(found(rule, "src/pidfd.rs", "#![allow(unsafe_code)]"), 1);
        assert_eq!(found(rule, "src/lib.rs", "#![deny(unsafe_code)]"), 0);
        assert_eq!(found(rule, "src/sys/wait.rs", "fn f() { unsafe { g() } }"), 0);
        assert_eq!(found(rule, "src/pidfd.rs", "// unsafe\nconst A: &str = \"unsafe\";"), 0);
    }

    #[test]
    fn a_panic_in_the_library() {
        let rule = panics_and_prints;
        for (text, findings) in [
            ("fn f() { g().unwrap(); }", 1),
            ("fn f() { g()\n    .expect(\"it\"); }", 1),
            ("fn f() { g().map(Result::unwrap); }", 1),
            ("fn f() { panic!(\"it\") }", 1),
            ("fn f() { unreachable!() }", 1),
            ("fn f() { todo!() }", 1),
            ("fn f() { println!(); }", 1),
            ("fn f() { g().unwrap_or(1); g().unwrap_or_default(); }", 0),
            ("#[expect(dead_code)] fn expect() { if panic != 0 {} }", 0),
            ("/// `x.unwrap()`\n/* panic!() /* nested */ todo!() */ fn f() {}", 0),
            ("const A: &str = \"x.unwrap()\"; const B: &str = r#\"\"panic!()\"#;", 0),
            (
                "#[cfg(test)]\nmod tests { fn f() { g().unwrap(); } }\nfn h() { g().unwrap(); }",
                1,
            ),
            ("#[cfg(test)]\nuse a::{b, c};\nfn h() { g().unwrap(); }", 1),
            ("#[cfg(not(test))]\nfn f() { g().unwrap(); }", 1),
            (
                "#[cfg(test)]\n#[allow(x)]\npub(crate) fn f(a: [u8; { 1 }]) { g().unwrap(); }",
                0,
            ),
            (
                "fn f<'a>(c: char) -> &'a str { if c == '\"' { g().unwrap() } else { '\\''; '{'; b'\"' } }",
                1,
            ),
        ] {
            assert_eq!(found(rule, "src/any.rs", text), findings, "{text}");
        }
        assert_eq!(found(rule, "examples/any.rs", "fn f() { g().unwrap(); }"), 0);
    }

    #[test]
    fn a_module_that_is_for_tests_alone_may_panic() {
        let parent = "#[cfg(test)]\nmod tests;\nmod other;";
        let child = "fn f() { g().unwrap(); }";
        let files = [
            ("src/a.rs", parent),
            ("src/a/tests.rs", child),
            ("src/a/other.rs", child),
        ];
        let tree = Tree::new(files.map(|(path, text)| (path.to_owned(), text.to_owned())));
        assert_eq!(panics_and_prints(&tree), ["src/a/other.rs:1: unwrap"]);
    }

    #[test]
    fn a_function_or_file_that_is_too_long() {
        let function = |lines: usize| {
            format!(
                "impl A {{\nfn f(a: [u8; 2])\nwhere A: B, {{{}}}\n}}",
                "\n".repeat(lines - 2)
            )
        };
        assert_eq!(found(too_long, "src/any.rs", &function(LONGEST_FUNCTION)), 0);
        assert_eq!(found(too_long, "src/any.rs", &function(LONGEST_FUNCTION + 1)), 1);
        assert_eq!(found(too_long, "tests/any.rs", &"\n".repeat(LONGEST_FILE)), 0);
        assert_eq!(found(too_long, "tests/any.rs", &"\n".repeat(LONGEST_FILE + 1)), 1);
        let declared = format!(
            "trait A {{ fn f(); {} fn g() {{}} }}",
            "\n".repeat(LONGEST_FUNCTION + 1)
        );
        assert_eq!(found(too_long, "src/any.rs", &declared), 0);
    }

    #[test]
    fn a_mark_that_something_is_left() {
        let mark = concat!("TO", "DO");
        assert_eq!(found(left_for_later, "tests/any.rs", &format!("// {mark}: this")), 1);
        assert_eq!(found(left_for_later, "tests/any.rs", &format!("// {mark}S")), 0);
    }

    #[test]
    fn another_dependency() {
        let four = "[dependencies]\nbitflags = \"2\"\nlibc = \"0.2\"\nrustix = { version = \"1\" }\nthiserror.workspace = true\n";
        assert_eq!(wrong_dependencies(four), [""; 0]);
        assert_eq!(
            wrong_dependencies(&four.replace("libc", "nix")),
            ["Cargo.toml: libc", "Cargo.toml: nix"]
        );
        for more in [
            "[dependencies.nix]\nversion = \"1\"",
            "[target.'cfg(unix)'.dependencies]\nnix = \"1\"",
            "[build-dependencies]\nnix = \"1\"",
        ] {
            assert_eq!(
                wrong_dependencies(&format!("{four}{more}")),
                ["Cargo.toml: nix"],
                "{more}"
            );
        }
        assert_eq!(
            wrong_dependencies(&format!(
                "{four}# a = 1\n[dev-dependencies]\nnix = \"1\"\n[lints.rust]\na = 1"
            )),
            [""; 0]
        );
    }

    #[test]
    fn a_stranger_at_the_top_level() {
        let names = ["src", "target", ".git", "LICENSE-MIT", "docs"].map(str::to_owned);
        assert_eq!(
            strangers_at_the_top(&names, "/target\n"),
            ["docs does not belong at the top level"]
        );
    }

    #[test]
    fn what_is_read_is_what_is_there() {
        let tokens = source::tokens(&source::code("let r = 'a' ; // x\nlet 'b: a::r#c = br##\"\"#\"## . d"));
        let words: Vec<(&str, usize)> = tokens.iter().map(|token| (token.text.as_str(), token.line)).collect();
        let expected = [
            ("let", 1),
            ("r", 1),
            ("=", 1),
            (";", 1),
            ("let", 2),
            ("'", 2),
            ("b", 2),
            (":", 2),
            ("a", 2),
        ];
        assert_eq!(words[..expected.len()], expected);
        assert_eq!(
            words[expected.len()..].iter().map(|word| word.0).collect::<String>(),
            "::r#c=.d"
        );
    }
}
