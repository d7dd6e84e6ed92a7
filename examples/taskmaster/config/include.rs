//! `[include] files=`: the other files of a configuration.
//!
//! As with supervisord, the patterns are relative to the directory of the file that has the section, they
//! may contain `%(here)s`, `%(host_node_name)s` and `%(ENV_X)s`, the files that a pattern matches are read in
//! the order of their names, and what they say counts after the file itself. Only the file that was
//! asked for is looked at: an `[include]` in an included file has no effect there.
//!
//! supervisord passes over a file that it can't read. Here that is an error, because the file may hold the
//! one line that takes a right away from a program.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glob::{MatchOptions, Pattern, glob_with};

use super::expand::Scope;
use super::ini::Files;
use super::problem::Problem;
use super::raw::{Section, Source};
use super::world::{text_of, without_dots};
use crate::files::{Fifo, reason};

/// `*` and `?` match neither a slash nor the dot of a hidden file.
const LIKE_PYTHON: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// Reads the files that `section` names into `files`.
///
/// # Errors
/// The section has no patterns, or a file can't be read or is no INI.
pub fn read(section: &Section, scope: &Scope, files: &mut Files) -> Result<(), Vec<Problem>> {
    let Some(raw) = section.get("files") else {
        return Err(vec![Problem::in_section(section, "files=... is missing")]);
    };
    let of_value = |message: String| vec![Problem::of_value(&section.name, "files", raw, message)];
    let patterns = scope.expand(raw).map_err(of_value)?;
    for pattern in patterns.split_whitespace() {
        let paths = matches(&raw.source.here, pattern).map_err(of_value)?;
        if paths.is_empty() {
            files.notes.push(format!("[include]: no file matches {pattern:?}"));
        }
        for path in paths {
            if let Some(note) = add(&path, files)? {
                files.notes.push(format!("[include]: {note}"));
            }
        }
    }
    Ok(())
}

/// The files that match, by name.
fn matches(here: &str, pattern: &str) -> Result<Vec<PathBuf>, String> {
    // Two stars are one star to Python, and any number of directories to the crate.
    let mut pattern = pattern.to_owned();
    while pattern.contains("**") {
        pattern = pattern.replace("**", "*");
    }
    if !pattern.starts_with('/') {
        pattern = format!("{}/{pattern}", Pattern::escape(here));
    }
    let found = glob_with(&pattern, LIKE_PYTHON).map_err(|error| format!("{pattern:?} is no pattern: {error}"))?;
    let found: Result<Vec<PathBuf>, _> = found.collect();
    let failed = |error: glob::GlobError| {
        let directory = error.path().display().to_string();
        format!("cannot search {directory}: {}", reason(error))
    };
    let mut found = found.map_err(failed)?;
    found.sort();
    Ok(found)
}

/// Reads one of them; a line if there was nothing to read.
fn add(path: &Path, files: &mut Files) -> Result<Option<String>, Vec<Problem>> {
    let file = path.display().to_string();
    let here = without_dots(path.parent().unwrap_or(Path::new("/")));
    let here = here.to_string_lossy().into_owned();
    let source = Arc::new(Source {
        file: Some(file.clone()),
        here,
    });
    match fs::metadata(path) {
        // Neither says anything, to supervisord as here.
        Ok(metadata) if metadata.is_dir() => return Ok(Some(format!("{file} is a directory, ignored"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Some(format!("{file} is a link to nothing, ignored")));
        }
        _ => {}
    }
    let text = text_of(path, Fifo::Refused).map_err(|message| vec![Problem::of_file(message)])?;
    files.read(&text, &source)?;
    Ok(None)
}
