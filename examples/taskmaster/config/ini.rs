//! The file's outer form: sections, keys and values, before anything is known about their meaning.
//!
//! supervisord reads its file with Python's parser, whose dialect people's files are written in: a
//! comment may follow a value, but only after whitespace (`a;b` is a value, `a ;b` is not); a line
//! indented deeper than its key continues the value; keys may be indented; backslashes and quotes
//! mean nothing yet. The `ini` crate reads a plainer language, in which an indented key continues
//! the value above it and a backslash swallows the end of a line. So [`plain`] translates, one line
//! for one line, and the crate does the rest.
//!
//! Other crates were looked at and left: those that know comments after a value cut at every `;`,
//! and merge a section that is there twice, which here is an error.

use ini::{Ini, ParseOption};

use super::Problem;

/// One `[section]`, with its keys in the file's order.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    /// What stands between the brackets.
    pub name: String,
    /// Keys (in lower case, as supervisord sees them) and values.
    pub entries: Vec<(String, String)>,
}

impl Section {
    /// The value of `key`; the last one, as in supervisord, if it is there more than once.
    pub fn get(&self, key: &str) -> Option<&str> {
        let entry = self.entries.iter().rev().find(|(known, _)| known == key);
        entry.map(|(_, value)| value.as_str())
    }
}

/// The sections of a file, in its order.
///
/// # Errors
/// Every line that is no INI, and every section that is there twice.
pub fn sections(text: &str) -> Result<Vec<Section>, Vec<Problem>> {
    let options = ParseOption {
        enabled_quote: false,
        enabled_escape: true,
        enabled_indented_mutiline_value: true,
        enabled_preserve_key_leading_whitespace: false,
    };
    let ini = Ini::load_from_str_opt(&plain(text)?, options)
        .map_err(|error| vec![Problem::at_line(error.line, error.msg)])?;
    let sections = ini.iter().filter_map(|(name, properties)| {
        let entries = properties
            .iter()
            .map(|(key, value)| (key.to_lowercase(), value.to_owned()));
        Some(Section {
            name: name?.to_owned(),
            entries: entries.collect(),
        })
    });
    let sections: Vec<Section> = sections.collect();
    match doubles(&sections) {
        problems if problems.is_empty() => Ok(sections),
        problems => Err(problems),
    }
}

fn doubles(sections: &[Section]) -> Vec<Problem> {
    let again = |(index, section): (usize, &Section)| {
        let before = sections.iter().take(index).any(|other| other.name == section.name);
        before.then(|| Problem::in_section(&section.name, "this section is there twice"))
    };
    sections.iter().enumerate().filter_map(again).collect()
}

/// What a line is to supervisord, and so to us.
enum Line<'a> {
    Blank,
    Header(&'a str),
    Key(&'a str),
    Continued(&'a str),
}

/// The same file in the plainer language: comments gone, headers and keys at the margin,
/// continuations indented by one space, backslashes doubled. Line numbers stay.
fn plain(text: &str) -> Result<String, Vec<Problem>> {
    let mut out = String::with_capacity(text.len());
    let mut problems = Vec::new();
    let mut place = Place::Outside;
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        match place.classify(line) {
            Ok(Line::Blank) => {}
            Ok(Line::Header(header)) => out.push_str(&escaped(header)),
            Ok(Line::Key(entry)) => out.push_str(&escaped(entry)),
            Ok(Line::Continued(more)) => {
                out.push(' ');
                out.push_str(&escaped(more));
            }
            Err(message) => problems.push(Problem::at_line(number + 1, message)),
        }
        out.push('\n');
    }
    if problems.is_empty() { Ok(out) } else { Err(problems) }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
}

/// Where in the file a line stands, as far as its meaning depends on it.
enum Place {
    /// Before the first section.
    Outside,
    /// Right after a section's header.
    Section,
    /// After a key that was indented so deep.
    Key { indent: usize },
}

impl Place {
    fn classify<'a>(&mut self, line: &'a str) -> Result<Line<'a>, String> {
        let content = without_comment(line).trim();
        if content.is_empty() {
            return Ok(Line::Blank);
        }
        let depth = line.len() - line.trim_start().len();
        if matches!(self, Place::Key { indent } if depth > *indent) {
            return Ok(Line::Continued(content));
        }
        if content.starts_with('[') {
            *self = Place::Section;
            return header(content);
        }
        if matches!(self, Place::Outside) {
            return Err(format!("{content:?} stands before the first [section]"));
        }
        *self = Place::Key { indent: depth };
        match content.find(['=', ':']) {
            None => Err(format!("{content:?} is neither a [section] nor key=value")),
            Some(0) => Err(format!("{content:?} has no key")),
            Some(_) => Ok(Line::Key(content)),
        }
    }
}

fn header(content: &str) -> Result<Line<'_>, String> {
    match content.find(']') {
        Some(end) if end + 1 == content.len() => Ok(Line::Header(content)),
        _ => Err(format!("{content:?} is no [section]")),
    }
}

/// The line up to its comment, which begins with `;` or `#` at the start or after whitespace.
fn without_comment(line: &str) -> &str {
    let mut after_space = true;
    for (index, symbol) in line.char_indices() {
        if after_space && matches!(symbol, ';' | '#') {
            return line.get(..index).unwrap_or(line);
        }
        after_space = symbol.is_whitespace();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, Vec<(String, String)>)> {
        let sections = sections(text).unwrap();
        sections
            .into_iter()
            .map(|section| (section.name, section.entries))
            .collect()
    }

    fn entries(text: &str) -> Vec<(String, String)> {
        read(&format!("[s]\n{text}")).remove(0).1
    }

    fn complaint(text: &str) -> String {
        let problems = sections(text).unwrap_err();
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn sections_and_keys_keep_their_order() {
        let text = "; first\n[b]\nz=1\ny : 2\n\n[a] ; tail\n# last\nX = 3\r\n";
        let expected = [
            ("b".to_owned(), pairs(&[("z", "1"), ("y", "2")])),
            ("a".to_owned(), pairs(&[("x", "3")])),
        ];
        assert_eq!(read(text), expected);
        assert_eq!(read("\u{feff}[a]\n"), [("a".to_owned(), Vec::new())]);
        assert_eq!(read(""), []);
    }

    #[test]
    fn comments_begin_after_whitespace_only() {
        assert_eq!(
            entries("command=sh -c \"a;b\" ; the rest\ntag=a#b #c\nempty= ;x\nkeep=;y"),
            pairs(&[
                ("command", "sh -c \"a;b\""),
                ("tag", "a#b"),
                ("empty", ""),
                ("keep", ";y")
            ])
        );
    }

    #[test]
    fn deeper_lines_continue_a_value() {
        let text = "command=one\n  two ; why\n; in between\n\n\tthree\nnext=4";
        let command = entries(text).remove(0).1;
        assert_eq!(command.split_whitespace().collect::<Vec<_>>(), ["one", "two", "three"]);
        assert_eq!(entries(text)[1], ("next".to_owned(), "4".to_owned()));
    }

    #[test]
    fn indented_keys_are_keys_and_an_indented_header_is_a_header() {
        assert_eq!(entries("  a=1\n  b=2\n    b3"), pairs(&[("a", "1"), ("b", "2\nb3")]));
        assert_eq!(read("  [a]\n  b=1\n [c]\n").len(), 2);
        // Deeper than the key above it, it belongs to the value, as in supervisord.
        assert_eq!(entries("a=1\n  [c]"), pairs(&[("a", "1\n[c]")]));
    }

    #[test]
    fn backslashes_and_quotes_are_left_alone() {
        assert_eq!(
            entries("a=x\\\nb='q' \"r\" \\n \\x41\nc=%(here)s\\\n  more"),
            pairs(&[("a", "x\\"), ("b", "'q' \"r\" \\n \\x41"), ("c", "%(here)s\\\nmore")])
        );
    }

    #[test]
    fn the_last_of_two_equal_keys_counts() {
        let section = sections("[s]\na=1\nA=2\n").unwrap().remove(0);
        assert_eq!(section.get("a"), Some("2"));
        assert_eq!(section.get("b"), None);
    }

    #[test]
    fn every_bad_line_is_named() {
        let text = "stray=1\n[ok]\na=1\njunk\n=2\n[open\n[s] junk\n";
        let complaint = complaint(text);
        let lines: Vec<&str> = complaint.lines().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(lines, ["line 1", "line 4", "line 5", "line 6", "line 7"]);
    }

    #[test]
    fn a_section_may_be_there_once() {
        assert_eq!(complaint("[a]\n[b]\n[a]\n"), "[a]: this section is there twice");
    }
}
