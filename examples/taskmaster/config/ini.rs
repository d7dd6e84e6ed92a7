//! Parses the file into sections, keys and values, without regard to their meaning.
//!
//! supervisord reads its file with Python's `RawConfigParser`, and existing files depend on this dialect:
//!
//! - A comment begins with `;` or `#` at the start of a line or after whitespace: `a;b` is a value, and `a ;b` is a
//!   value and a comment.
//! - A line that is indented deeper than its key continues the value. Keys may be indented.
//! - Backslashes and quotes have no meaning at this level.
//! - Repeated sections are merged, and the last one of repeated keys counts, also across included files.
//! - `[DEFAULT]` provides keys for every other section that lacks them.
//!
//! INI crates were rejected: none of them follows these rules, and a translation for the closest one was longer than
//! this parser.
//!
//! Messages give the line's number and never its text, because a line may contain a password.

use std::sync::Arc;

use super::problem::Problem;
use super::raw::{Entry, Raw, Section, Source};

/// The section with the defaults for all other sections.
const DEFAULT: &str = "DEFAULT";

/// One or more files, merged in the order in which they were read.
#[derive(Debug, Default)]
pub struct Files {
    sections: Vec<Section>,
    defaults: Vec<Entry>,
    /// One line for each part that was read in a surprising way.
    pub notes: Vec<String>,
}

impl Files {
    /// Adds the text of a file.
    ///
    /// # Errors
    /// Each line that is not in the INI format.
    pub fn read(&mut self, text: &str, source: &Arc<Source>) -> Result<(), Vec<Problem>> {
        let mut reader = Reader::new(self, source);
        let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
        let problem = |(number, line)| {
            let message = reader.line(number + 1, line).err()?;
            Some(Problem::at_line(source, number + 1, message))
        };
        let problems: Vec<Problem> = lines.filter_map(problem).collect();
        let entries = self.sections.iter_mut().flat_map(|section| &mut section.entries);
        for (_, value) in entries.chain(&mut self.defaults) {
            value.text.truncate(value.text.trim_end().len());
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// The section with this name, with the defaults that are known at this point.
    pub fn section(&self, name: &str) -> Option<Section> {
        let section = self.sections.iter().find(|section| section.name == name)?;
        Some(Section {
            name: section.name.clone(),
            source: Arc::clone(&section.source),
            entries: section.entries.clone(),
            defaults: Arc::new(self.defaults.clone()),
        })
    }

    /// All sections except `[DEFAULT]`, in the order of their first lines, and the notes.
    pub fn finish(mut self) -> (Vec<Section>, Vec<String>) {
        let defaults = Arc::new(self.defaults);
        for section in &mut self.sections {
            section.defaults = Arc::clone(&defaults);
        }
        (self.sections, self.notes)
    }
}

/// The state of the parser within a file.
struct Reader<'a> {
    files: &'a mut Files,
    source: &'a Arc<Source>,
    place: Place,
    /// The indexes of this file's sections.
    seen: Vec<usize>,
}

/// The position of a line in the file, as far as its meaning depends on it.
#[derive(Clone, Copy)]
enum Place {
    /// The line is before the first section.
    Outside,
    /// The line is in a section, before its first key.
    Header(Owner),
    /// The line follows a key with this indentation in bytes.
    Key(Owner, usize),
}

/// The section that gets the keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Defaults,
    Section(usize),
}

impl<'a> Reader<'a> {
    fn new(files: &'a mut Files, source: &'a Arc<Source>) -> Reader<'a> {
        Reader {
            files,
            source,
            place: Place::Outside,
            seen: Vec::new(),
        }
    }

    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        let uncommented = without_comment(line);
        let content = uncommented.trim();
        if content.is_empty() {
            // A blank line is a part of the value around it. A line with only a comment is not.
            if uncommented.len() == line.len() {
                self.continue_value("");
            }
            return Ok(());
        }
        let indent = line.len() - line.trim_start().len();
        if matches!(self.place, Place::Key(_, key) if indent > key) {
            self.continue_value(content);
            return Ok(());
        }
        if content.starts_with('[') {
            return self.header(number, content);
        }
        let owner = match self.place {
            Place::Outside => return Err("this line is before the first [section]".to_owned()),
            Place::Header(owner) | Place::Key(owner, _) => owner,
        };
        self.place = Place::Key(owner, indent);
        let (key, value) = content
            .split_once(['=', ':'])
            .ok_or("this line is neither a [section] nor key=value")?;
        let key = key.trim_end().to_lowercase();
        if key.is_empty() {
            return Err("there is no key before the value".to_owned());
        }
        let value = Raw {
            text: value.trim_start().to_owned(),
            source: Arc::clone(self.source),
        };
        self.entries(owner).push((key, value));
        Ok(())
    }

    /// Reads a header. It ends at the last `]` of its line, and the rest is ignored, as in supervisord.
    fn header(&mut self, number: usize, content: &str) -> Result<(), String> {
        let name = content
            .strip_prefix('[')
            .and_then(|open| open.rsplit_once(']'))
            .filter(|(name, _)| !name.is_empty());
        let (name, rest) = name.ok_or("a [section] is not closed, or has no name")?;
        if !rest.is_empty() {
            let line = format!("line {number}: the text after [{name}] is ignored");
            self.files.notes.push(line);
        }
        self.place = Place::Header(self.owner(name));
        Ok(())
    }

    fn owner(&mut self, name: &str) -> Owner {
        if name == DEFAULT {
            return Owner::Defaults;
        }
        let sections = &mut self.files.sections;
        let known = sections.iter().position(|section| section.name == name);
        let index = known.unwrap_or(sections.len());
        if known.is_none() {
            sections.push(Section {
                name: name.to_owned(),
                source: Arc::clone(self.source),
                ..Section::default()
            });
        }
        if self.seen.contains(&index) {
            let line = format!("[{name}]: this section occurs twice, and the last value of a repeated key counts");
            self.files.notes.push(line);
        }
        self.seen.push(index);
        Owner::Section(index)
    }

    fn continue_value(&mut self, more: &str) {
        let Place::Key(owner, _) = self.place else { return };
        if let Some((_, value)) = self.entries(owner).last_mut() {
            value.text.push('\n');
            value.text.push_str(more);
        }
    }

    fn entries(&mut self, owner: Owner) -> &mut Vec<Entry> {
        match owner {
            Owner::Defaults => &mut self.files.defaults,
            Owner::Section(index) => &mut self.files.sections[index].entries,
        }
    }
}

/// The part of a line before its comment. A comment begins with `;` or `#` at the start or after whitespace.
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

    fn files(texts: &[&str]) -> Result<Files, Vec<Problem>> {
        let mut files = Files::default();
        for text in texts {
            files.read(text, &Arc::default())?;
        }
        Ok(files)
    }

    fn read(text: &str) -> Vec<(String, Vec<(String, String)>)> {
        let (sections, _) = files(&[text]).unwrap().finish();
        let entries = |section: Section| {
            section
                .entries
                .into_iter()
                .map(|(key, value)| (key, value.text))
                .collect()
        };
        sections
            .into_iter()
            .map(|section| (section.name.clone(), entries(section)))
            .collect()
    }

    fn entries(text: &str) -> Vec<(String, String)> {
        read(&format!("[s]\n{text}")).remove(0).1
    }

    fn complaint(text: &str) -> String {
        let problems = files(&[text]).unwrap_err();
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
        let text = "command=one\n  two ; why\n; in between\n\n\tthree\nnext=4\n\n";
        assert_eq!(entries(text), pairs(&[("command", "one\ntwo\n\nthree"), ("next", "4")]));
    }

    #[test]
    fn indented_keys_are_keys_and_an_indented_header_is_a_header() {
        assert_eq!(entries("  a=1\n  b=2\n    b3"), pairs(&[("a", "1"), ("b", "2\nb3")]));
        assert_eq!(read("  [a]\n  b=1\n [c]\n").len(), 2);
        // A header that is indented deeper than the key above it belongs to the value, as in supervisord.
        assert_eq!(entries("a=1\n  [c]"), pairs(&[("a", "1\n[c]")]));
    }

    #[test]
    fn backslashes_and_quotes_are_kept() {
        assert_eq!(
            entries("a=x\\\nb='q' \"r\" \\n \\x41\nc=%(here)s\\\n  more"),
            pairs(&[("a", "x\\"), ("b", "'q' \"r\" \\n \\x41"), ("c", "%(here)s\\\nmore")])
        );
    }

    #[test]
    fn the_last_of_two_equal_keys_counts() {
        let section = files(&["[s]\na=1\nA=2\n"]).unwrap().section("s").unwrap();
        assert_eq!(section.get("a").unwrap().text, "2");
        assert_eq!(section.get("b"), None);
    }

    #[test]
    fn repeated_sections_are_merged() {
        let (sections, notes) = files(&["[a]\nx=1\ny=1\n[b]\n[a]\nx=2\n"]).unwrap().finish();
        let names: Vec<&str> = sections.iter().map(|section| section.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(sections[0].get("x").unwrap().text, "2");
        assert_eq!(sections[0].get("y").unwrap().text, "1");
        assert!(notes.len() == 1 && notes[0].starts_with("[a]: "), "{notes:?}");
        let (sections, notes) = files(&["[a]\nx=1\n", "[a]\nx=2\n"]).unwrap().finish();
        assert_eq!((sections.len(), notes.len()), (1, 0));
        assert_eq!(sections[0].get("x").unwrap().text, "2");
    }

    #[test]
    fn defaults_apply_to_missing_keys() {
        let text = "[a]\nx=1\n[DEFAULT]\nx=2\nuser=nobody\n[b]\n";
        let (sections, _) = files(&[text, "[DEFAULT]\nuser=ann\n"]).unwrap().finish();
        let value = |index: usize, key| sections[index].get(key).map(|value| value.text.as_str());
        assert_eq!((value(0, "x"), value(1, "x")), (Some("1"), Some("2")));
        assert_eq!((value(0, "user"), value(1, "user")), (Some("ann"), Some("ann")));
        assert_eq!(sections.len(), 2);
    }

    #[test]
    fn a_header_ends_with_the_last_bracket() {
        assert_eq!(read("[a]b]\n")[0].0, "a]b");
        let (sections, notes) = files(&["[a] b=1\n"]).unwrap().finish();
        assert!(sections[0].entries.is_empty());
        assert_eq!(notes, ["line 1: the text after [a] is ignored"]);
    }

    #[test]
    fn every_bad_line_is_named_and_none_is_repeated() {
        let text = "stray=1\n[ok]\na=1\nhunter2\n=hunter2\n[open\n[]\n";
        let complaint = complaint(text);
        let lines: Vec<&str> = complaint.lines().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(lines, ["line 1", "line 4", "line 5", "line 6", "line 7"]);
        assert!(!complaint.contains("hunter2"), "{complaint}");
    }
}
