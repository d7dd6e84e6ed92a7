//! Golden files: files that are generated from the table and committed beside it. Readers can read them, and
//! reviewers see each change of them.

use std::path::Path;

/// Fails unless `kept`, the text of `file` beside the table, equals `current`. If `PIDHERD_UPDATE_GOLDEN` is
/// set, writes the file instead.
pub(super) fn compare(file: &str, kept: &str, current: &str) {
    if std::env::var_os("PIDHERD_UPDATE_GOLDEN").is_some() {
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
        "src/lifecycle/{file} differs from the table from line {} on:\n  kept:    {}\n  current: {}\n\
         If the change is intended, run `PIDHERD_UPDATE_GOLDEN=1 cargo test --lib lifecycle` to update the file.",
        line + 1,
        kept.lines().nth(line).unwrap_or("(end of file)"),
        current.lines().nth(line).unwrap_or("(end of text)"),
    );
}
