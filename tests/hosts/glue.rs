//! The lines between a supervisor and a handled event.
//!
//! Each example marks its glue with comments. The table in the guide is counted from the sources.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The most lines of a loop with one descriptor, and of one with each descriptor by itself.
const MOST: [usize; 2] = [10, 25];

const BEGINS: [&str; 2] = ["// The glue begins.", "// The glue begins again."];
const ENDS: &str = "// The glue ends.";

/// Each example with its loop, what it registers, and how it is triggered.
const HOSTS: &[(&str, &str, Registers, &str)] = &[
    ("poll", "poll(2)", Registers::One, "level"),
    ("epoll", "epoll(7), by token", Registers::Each, "level"),
    ("epoll_numbers", "epoll(7), by number", Registers::Each, "level"),
    ("mio", "mio", Registers::One, "edge"),
    ("mio_each", "mio", Registers::Each, "edge"),
    ("polling", "polling", Registers::One, "level"),
    ("async_io", "async-io, smol", Registers::One, "level"),
    ("calloop", "calloop", Registers::One, "level"),
    ("tokio", "tokio", Registers::One, "edge"),
    ("tokio_each", "tokio", Registers::Each, "edge"),
    ("io_uring", "io_uring(7)", Registers::One, "level"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Registers {
    One,
    Each,
}

impl Registers {
    const fn limit(self) -> usize {
        MOST[self as usize]
    }

    const fn text(self) -> &'static str {
        match self {
            Registers::One => "the one descriptor",
            Registers::Each => "each descriptor",
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn source(example: &str) -> String {
    fs::read_to_string(root().join(format!("examples/{example}.rs"))).expect("cannot read the example")
}

/// The number of lines of glue: those between the marks that are neither blank nor comments alone.
fn glue(source: &str) -> Result<usize, String> {
    let (mut count, mut is_glue, mut ends) = (0, false, 0);
    for line in source.lines().map(str::trim) {
        if BEGINS.contains(&line) && !is_glue {
            is_glue = true;
        } else if line == ENDS && is_glue {
            is_glue = false;
            ends += 1;
        } else if BEGINS.contains(&line) || line == ENDS {
            return Err(format!("two marks of the same kind: {line}"));
        } else if is_glue && !line.is_empty() && !line.starts_with("//") {
            count += 1;
        }
    }
    if is_glue || ends == 0 {
        return Err("a mark is missing".to_owned());
    }
    Ok(count)
}

/// The table as the guide shows it.
fn table() -> String {
    let mut table = String::from("| loop | example | registers | triggered | lines of glue |\n|---|---|---|---|---|\n");
    for (example, name, registers, triggered) in HOSTS {
        let lines = glue(&source(example)).unwrap_or_else(|error| panic!("examples/{example}.rs: {error}"));
        let registers = registers.text();
        writeln!(
            table,
            "| {name} | `examples/{example}.rs` | {registers} | {triggered} | {lines} |"
        )
        .unwrap();
    }
    table
}

/// `PIDHERD_UPDATE_GOLDEN=1` writes the file.
#[test]
fn the_guide_shows_how_long_the_glue_of_each_host_is() {
    let file = root().join("src/guide/hosts_table.md");
    let table = table();
    println!("{table}");
    if std::env::var_os("PIDHERD_UPDATE_GOLDEN").is_some() {
        fs::write(&file, &table).unwrap();
    }
    assert_eq!(
        fs::read_to_string(&file).unwrap_or_default(),
        table,
        "{} is outdated",
        file.display()
    );
}

#[test]
fn the_glue_of_each_host_is_short() {
    for &(example, _, registers, _) in HOSTS {
        let lines = glue(&source(example)).unwrap();
        assert!(lines <= registers.limit(), "examples/{example}.rs: {lines} lines");
    }
}

/// An example with glue is a host of the table, and is on a page of the guide.
#[test]
fn each_example_with_glue_is_in_the_table() {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join("examples")).unwrap().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && fs::read_to_string(&path).unwrap().contains(ENDS)
        {
            found.push(path.file_stem().and_then(|name| name.to_str()).unwrap().to_owned());
        }
    }
    let mut listed: Vec<_> = HOSTS.iter().map(|&(example, ..)| example.to_owned()).collect();
    found.sort_unstable();
    listed.sort_unstable();
    assert_eq!(found, listed);
    // `page: program program;`
    let guide = fs::read_to_string(Path::new(&root()).join("src/guide/mod.rs")).unwrap();
    let (_, pages) = guide.split_once("loops! {").unwrap();
    let (pages, _) = pages.split_once('}').unwrap();
    let programs = pages
        .lines()
        .filter_map(|line| line.trim().strip_suffix(';')?.split_once(": "));
    let mut shown: Vec<_> = programs.flat_map(|(_, programs)| programs.split(' ')).collect();
    shown.sort_unstable();
    assert_eq!(shown, listed, "the programs on the pages of the guide");
}

#[test]
fn only_lines_of_code_between_the_marks_count() {
    let marked = |text: &str| glue(&text.replace('<', BEGINS[0]).replace('>', ENDS));
    assert_eq!(marked("a\n<\n  b\n\n // c\n  d // e\n }\n>\nf\n"), Ok(3));
    assert_eq!(marked("<\na\n>\nb\n<\nc\n>\n"), Ok(2));
    for wrong in ["a", "<\na", "a\n>", "<\n<\n>", "<\n>\n>"] {
        assert!(marked(wrong).is_err(), "{wrong}");
    }
}
