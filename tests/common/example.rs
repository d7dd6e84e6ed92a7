//! Builds the examples for the tests that run them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// The path of the example's binary, built from the current sources. `cargo test` alone builds the examples,
/// but `cargo test --test NAME` does not. With `PIDHERD_TEST_EXAMPLES_ARE_BUILT`, for a machine without a compiler, the
/// binary must exist already.
pub fn binary(name: &'static str) -> &'static Path {
    static BUILT: Mutex<BTreeMap<&str, &Path>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry(name).or_insert_with(|| Box::leak(build(name).into()))
}

fn build(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let profile = here.parent().and_then(Path::parent).unwrap();
    let binary = profile.join("examples").join(name);
    if std::env::var_os("PIDHERD_TEST_EXAMPLES_ARE_BUILT").is_some() {
        assert!(binary.exists(), "the example {name} is not built");
        return binary;
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--example", name, "--target-dir"]);
    cargo.arg(profile.parent().unwrap());
    match profile.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => {}
        Some(name) => drop(cargo.args(["--profile", name])),
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(
        built.is_ok_and(|status| status.success()) || binary.exists(),
        "cannot build the example {name}"
    );
    binary
}
