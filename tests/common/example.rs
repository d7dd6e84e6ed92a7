//! The examples' binaries, for tests that drive them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The binary of this example, as current as its source: `cargo test` builds it, but not when it is asked
/// for a single test file. There is one example to a test binary.
pub fn binary(name: &str) -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| build(name))
}

fn build(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let profile = here.parent().and_then(Path::parent).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--example", name, "--target-dir"]);
    cargo.arg(profile.parent().unwrap());
    match profile.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => {}
        Some(name) => drop(cargo.args(["--profile", name])),
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    let binary = profile.join("examples").join(name);
    assert!(
        built.is_ok_and(|status| status.success()) || binary.exists(),
        "cannot build the example {name}"
    );
    binary
}
