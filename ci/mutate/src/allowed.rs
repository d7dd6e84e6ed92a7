//! The mutants that no test can see. cargo-mutants has an option for that, and lists fields of structures in spite of it.

use std::fs;
use std::path::Path;

use regex_lite::Regex;

#[derive(Default)]
pub struct Allowed(Vec<Regex>);

impl Allowed {
    /// Reads a file with a line `REASON | REGULAR EXPRESSION` for each kind of mutant.
    pub fn read(path: &Path) -> Result<Allowed, String> {
        let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = fs::read_to_string(path).map_err(|error| told(&error))?;
        let patterns = text.lines().filter(|line| !line.is_empty()).map(|line| {
            let (_, pattern) = line.split_once(" | ").ok_or_else(|| told(&"a line has no reason"))?;
            Regex::new(pattern).map_err(|error| told(&error))
        });
        Ok(Allowed(patterns.collect::<Result<_, _>>()?))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.is_match(name))
    }
}
