//! The page with all stored types. It is made of the sources, so it cannot differ from them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::compare;

/// The text of all source files.
fn sources(directory: &Path, texts: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("codec.rs") {
            texts.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// The part of a text up to the brace that closes the first one.
fn braces(text: &str) -> &str {
    let mut depth = 0;
    let end = text.char_indices().find(|&(_, character)| {
        depth += match character {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        depth == 0 && character == '}'
    });
    &text[text.find('{').unwrap() + 1..end.unwrap().0]
}

/// The items of a list that is separated by commas.
fn items(list: &str) -> Vec<String> {
    let (mut items, mut depth) = (vec![String::new()], 0);
    for character in list.chars() {
        depth += match character {
            '{' | '(' | '<' | '[' => 1,
            '}' | ')' | '>' | ']' => -1,
            _ => 0,
        };
        match character {
            ',' if depth == 0 => items.push(String::new()),
            other => items.last_mut().unwrap().push(other),
        }
    }
    let words = |item: String| item.split_whitespace().collect::<Vec<_>>().join(" ");
    items.into_iter().map(words).filter(|item| !item.is_empty()).collect()
}

/// The body of the first definition of a type in these files, without comments, attributes and visibility.
fn definition<'a>(mut texts: impl Iterator<Item = &'a String>, kind: &str, name: &str) -> Option<Vec<String>> {
    let head = format!("{kind} {name} {{");
    // The list of the stored fields begins in the same way, after a parenthesis.
    let found = |text: &'a String| text.match_indices(&head).find(|(at, _)| !text[..*at].ends_with('('));
    let text = texts.find_map(|text| found(text).map(|(at, _)| &text[at..]))?;
    let lines = braces(text).lines().map(str::trim);
    let lines = lines.filter(|line| !line.starts_with("//") && !line.starts_with("#["));
    let body: Vec<_> = lines.collect();
    let plain = |item: String| {
        let visible = ["pub(crate) ", "pub(super) ", "pub "];
        let mut item = item;
        for prefix in visible {
            item = item.strip_prefix(prefix).unwrap_or(&item).to_owned();
        }
        item
    };
    Some(items(&body.join(" ")).into_iter().map(plain).collect())
}

/// One line for each field or variant, in the order of the encoding.
fn describe<'a>(texts: impl Iterator<Item = &'a String>, kind: &str, name: &str, stored: &[String]) -> String {
    let known = definition(texts, kind, name).unwrap_or_else(|| panic!("no {kind} {name}"));
    let mut text = format!("{kind} {name}\n");
    for item in stored {
        let line = match item.split_once(" = ") {
            None => {
                let field = format!("{item}: ");
                known.iter().find(|known| known.starts_with(&field)).cloned()
            }
            Some((number, variant)) => {
                let own = variant.split([' ', '(']).next().unwrap();
                let is_it = |known: &&String| known.split([' ', '(']).next() == Some(own);
                known.iter().find(is_it).map(|known| {
                    let values = known.trim_end_matches([' ', ',']).replace(", }", " }");
                    format!("{number} = {values}")
                })
            }
        };
        let line = line.unwrap_or_else(|| panic!("{name} has no {item}"));
        writeln!(text, "    {line}").unwrap();
    }
    text
}

#[test]
fn the_page_of_the_stored_types_is_up_to_date() {
    let mut texts = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
    let mut types = BTreeMap::new();
    for text in &texts {
        // Most types are defined in the same file, and two may have one name.
        let own_first = || std::iter::once(text).chain(&texts);
        for (at, _) in text.match_indices("\nstored!(") {
            let list = &text[at + "\nstored!(".len()..];
            let (kind, rest) = list.split_once(' ').unwrap();
            let name = rest.split(' ').next().unwrap();
            types.insert(name.to_owned(), describe(own_first(), kind, name, &items(braces(list))));
        }
    }
    let page: Vec<String> = types.into_values().collect();
    compare("types.txt", page.join("\n").as_bytes());
}
