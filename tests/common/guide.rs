//! Tables of the guide that are measured by tests.

use std::env;
use std::fs;
use std::path::Path;

/// Compares a table with its file in the guide. With `PIDHERD_UPDATE_GUIDE=1` it writes the file first.
pub fn agrees(name: &str, head: [&str; 2], rows: &[[String; 2]]) {
    let line = |[first, second]: [&str; 2]| format!("| {first} | {second} |\n");
    let rows = rows.iter().map(|[first, second]| line([first, second]));
    let table = line(head) + "|---|---|\n" + &rows.collect::<String>();
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/guide/kernels")
        .join(name);
    if env::var_os("PIDHERD_UPDATE_GUIDE").is_some() {
        fs::write(&file, &table).unwrap();
    }
    let listed = fs::read_to_string(&file).unwrap();
    assert_eq!(listed, table, "PIDHERD_UPDATE_GUIDE=1 writes {name}");
}
