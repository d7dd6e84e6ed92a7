//! The mutants, as cargo-mutants lists them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::allowed::Allowed;

/// What kind of change it is, named as in cargo-mutants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Genre {
    FnValue,
    BinaryOperator,
    UnaryOperator,
    MatchArm,
    MatchArmGuard,
    StructField,
    /// A kind that this program does not know.
    Other,
}

/// A line and a column, both counted from 1. Columns are in characters.
pub type Place = (usize, usize);

pub struct Mutant {
    /// From 1, in the order of the list.
    pub number: u32,
    pub name: String,
    /// Tells it from all others, and is the same as long as the function around it.
    pub key: String,
    pub file: String,
    pub genre: Genre,
    pub start: Place,
    pub end: Place,
    /// The function around it.
    pub function: Option<(Place, Place)>,
    pub replacement: String,
}

/// Calls cargo-mutants in this tree. Returns those that are not allowed.
pub fn mutants(tree: &Path, arguments: &[String], allowed: &Allowed) -> Result<Vec<Mutant>, String> {
    let mut command = Command::new("cargo");
    command
        .current_dir(tree)
        .args(["mutants", "--list", "--json"])
        .args(arguments);
    let output = command
        .output()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "cargo mutants --list: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let list: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let list = list.as_array().ok_or("cargo mutants --list printed no array")?;
    let is_allowed = |value: &&Value| value["name"].as_str().is_some_and(|name| allowed.contains(name));
    let (left_out, list): (Vec<_>, Vec<_>) = list.iter().partition(is_allowed);
    println!("{} mutants, and {} that are allowed", list.len(), left_out.len());
    let mutants = (1..).zip(list).map(|(number, value)| mutant(number, value));
    let mutants: Option<Vec<Mutant>> = mutants.collect();
    let mut mutants = mutants.ok_or("cargo mutants --list printed an unknown form")?;
    let mut texts: HashMap<String, String> = HashMap::new();
    for mutant in &mut mutants {
        let text = match texts.entry(mutant.file.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let text = fs::read_to_string(tree.join(&mutant.file));
                entry.insert(text.map_err(|error| format!("{}: {error}", mutant.file))?)
            }
        };
        mutant.key = key(text, mutant);
    }
    Ok(mutants)
}

fn key(text: &str, mutant: &Mutant) -> String {
    let function = match mutant.function {
        Some((start, end)) => offset(text, start)..offset(text, end),
        None => 0..text.len(),
    };
    let at = offset(text, mutant.start) - function.start;
    let length = offset(text, mutant.end) - offset(text, mutant.start);
    let digest = crate::digest(&text[function]);
    format!("{} {digest:x} {at} {length} {}", mutant.file, mutant.replacement)
}

/// The byte at a place.
pub fn offset(text: &str, (line, column): Place) -> usize {
    let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    start + text[start..].char_indices().nth(column - 1).map_or(0, |(byte, _)| byte)
}

fn mutant(number: u32, value: &Value) -> Option<Mutant> {
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let (start, end) = span(&value["span"])?;
    Some(Mutant {
        number,
        name: text("name")?,
        key: String::new(),
        file: text("file")?,
        genre: genre(value["genre"].as_str()?),
        start,
        end,
        function: span(&value["function"]["span"]),
        replacement: text("replacement")?,
    })
}

fn span(value: &Value) -> Option<(Place, Place)> {
    let place = |value: &Value| {
        let number = |key: &str| value[key].as_u64().map(|number| number as usize);
        Some((number("line")?, number("column")?))
    };
    Some((place(&value["start"])?, place(&value["end"])?))
}

fn genre(name: &str) -> Genre {
    match name {
        "FnValue" => Genre::FnValue,
        "BinaryOperator" => Genre::BinaryOperator,
        "UnaryOperator" => Genre::UnaryOperator,
        "MatchArm" => Genre::MatchArm,
        "MatchArmGuard" => Genre::MatchArmGuard,
        "StructField" => Genre::StructField,
        _ => Genre::Other,
    }
}
