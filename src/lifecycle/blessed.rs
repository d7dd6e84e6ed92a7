//! Files that are generated from the table and kept beside it, so that readers have them and
//! reviewers see them change.

use std::path::Path;

/// Fails unless `kept`, the text of `file` in this directory, is `current`. With `PIDHERD_BLESS`
/// set it writes the file instead.
pub(super) fn compare(file: &str, kept: &str, current: &str) {
    if std::env::var_os("PIDHERD_BLESS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lifecycle").join(file);
        std::fs::write(path, current).unwrap();
        return;
    }
    let differs = kept
        .lines()
        .zip(current.lines())
        .position(|(kept, current)| kept != current);
    let line = differs.unwrap_or(kept.lines().count().min(current.lines().count()));
    assert!(
        kept == current,
        "src/lifecycle/{file} is not current from line {} on:\n  kept:    {}\n  current: {}\n\
         If that is meant, `PIDHERD_BLESS=1 cargo test --lib lifecycle` writes it anew.",
        line + 1,
        kept.lines().nth(line).unwrap_or("(its end)"),
        current.lines().nth(line).unwrap_or("(its end)"),
    );
}
