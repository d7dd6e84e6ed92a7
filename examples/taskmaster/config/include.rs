//! `[include] files=`: the other files of a configuration.
//!
//! As in supervisord, the patterns are relative to the directory of the including file. They may contain `%(here)s`,
//! `%(host_node_name)s` and `%(ENV_X)s`. The matching files are read in the order of their names, after the including
//! file. An `[include]` section in an included file has no effect.
//!
//! supervisord skips a file that it cannot read. The taskmaster reports an error instead, because the file may
//! contain a line that restricts a program.

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

/// `*` and `?` match neither a slash nor the leading dot of a hidden file.
const LIKE_PYTHON: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// Reads the files that `section` names into `files`.
///
/// # Errors
/// The section has no patterns, or a file cannot be read or is not in the INI format.
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

/// The matching files, sorted by name.
fn matches(here: &str, pattern: &str) -> Result<Vec<PathBuf>, String> {
    // Python treats two stars as one star. The crate treats them as any number of directories.
    let mut pattern = pattern.to_owned();
    while pattern.contains("**") {
        pattern = pattern.replace("**", "*");
    }
    if !pattern.starts_with('/') {
        pattern = format!("{}/{pattern}", Pattern::escape(here));
    }
    let found = glob_with(&pattern, LIKE_PYTHON).map_err(|error| format!("{pattern:?} is not a pattern: {error}"))?;
    let found: Result<Vec<PathBuf>, _> = found.collect();
    let failed = |error: glob::GlobError| {
        let directory = error.path().display().to_string();
        format!("cannot search {directory}: {}", reason(error))
    };
    let mut found = found.map_err(failed)?;
    found.sort();
    Ok(found)
}

/// Reads one file. Returns a note if the path leads to no file with content.
fn add(path: &Path, files: &mut Files) -> Result<Option<String>, Vec<Problem>> {
    let file = path.display().to_string();
    let here = without_dots(path.parent().unwrap_or(Path::new("/")));
    let here = here.to_string_lossy().into_owned();
    let source = Arc::new(Source {
        file: Some(file.clone()),
        here,
    });
    match fs::metadata(path) {
        // supervisord ignores both too.
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
