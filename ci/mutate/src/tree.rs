//! A copy of the project, in which files are replaced and which cargo builds.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

pub struct Tree {
    /// The project.
    pub from: PathBuf,
    /// The copy.
    pub to: PathBuf,
    pub target: PathBuf,
    /// Arguments of `cargo test` that select test binaries.
    pub tests: Vec<String>,
    /// The features with which it is built.
    pub features: String,
}

/// A compiler error.
pub struct Fault {
    pub message: String,
    pub code: String,
    /// The file and the bytes that it is about, the primary place first.
    pub places: Vec<(String, usize, usize)>,
}

/// A test binary.
pub struct Binary {
    pub name: String,
    pub path: PathBuf,
    /// A number that changes with the content.
    pub digest: u64,
}

impl Tree {
    /// Copies the files that git knows or would add, and removes others from the copy.
    pub fn copy(&self) -> Result<(), String> {
        let mut list = Command::new("git");
        list.current_dir(&self.from)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let output = list.output().map_err(|error| format!("cannot start git: {error}"))?;
        let names = String::from_utf8_lossy(&output.stdout).into_owned();
        let names = names
            .split('\0')
            .filter(|name| !name.is_empty() && self.from.join(name).is_file());
        let names: BTreeSet<PathBuf> = names.map(PathBuf::from).collect();
        for name in &names {
            // Rewritten files are written only once, so that cargo builds no more than what has changed.
            if !name.starts_with("src") {
                let text = fs::read(self.from.join(name)).map_err(|error| format!("{}: {error}", name.display()))?;
                self.write(name, &text)?;
            }
        }
        self.remove_others(Path::new(""), &names);
        Ok(())
    }

    fn remove_others(&self, below: &Path, names: &BTreeSet<PathBuf>) {
        for entry in fs::read_dir(self.to.join(below)).into_iter().flatten().flatten() {
            let name = below.join(entry.file_name());
            if entry.path().is_dir() {
                self.remove_others(&name, names);
            } else if !names.contains(&name) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The names of all source files of the library, in order.
    pub fn sources(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.from.join("src")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(name) = path.strip_prefix(&self.from) {
                    found.push(name.to_string_lossy().into_owned());
                }
            }
        }
        found.sort();
        found
    }

    /// Writes a file of the copy, unless it has this content.
    pub fn write(&self, name: impl AsRef<Path>, content: &[u8]) -> Result<(), String> {
        let path = self.to.join(name);
        if fs::read(&path).is_ok_and(|present| present == content) {
            return Ok(());
        }
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            fs::write(&path, content)
        };
        write().map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    fn cargo(&self, arguments: &[&str], tests: &[String]) -> Result<Vec<Value>, String> {
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(&self.to)
            .args(arguments)
            .args(tests)
            .args(["--features", &self.features]);
        cargo.args(["--locked", "--message-format=json", "--quiet"]);
        cargo
            .env("CARGO_TARGET_DIR", &self.target)
            .env("RUSTFLAGS", "--cap-lints=allow");
        for profile in ["DEV", "TEST"] {
            cargo.env(format!("CARGO_PROFILE_{profile}_DEBUG"), "0");
            cargo.env(format!("CARGO_PROFILE_{profile}_OPT_LEVEL"), "1");
        }
        let output = cargo
            .stderr(Stdio::null())
            .output()
            .map_err(|error| format!("cannot start cargo: {error}"))?;
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(lines
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    /// Checks the library and its unit tests, and returns the errors.
    pub fn check(&self) -> Result<Vec<Fault>, String> {
        let messages = self.cargo(&["check", "--profile", "test", "--lib"], &[])?;
        self.faults(&messages)
    }

    /// Builds these tests, which arguments of `cargo test` select.
    pub fn build(&self, tests: &[String]) -> Result<Result<Vec<Binary>, Vec<Fault>>, String> {
        let messages = self.cargo(&["test", "--no-run"], tests)?;
        let faults = self.faults(&messages)?;
        if !faults.is_empty() {
            return Ok(Err(faults));
        }
        let binary = |message: &Value| {
            let path = message["executable"]
                .as_str()
                .filter(|_| message["profile"]["test"] == true)?;
            let is_lib = message["target"]["kind"][0] == "lib";
            let name = if is_lib {
                "lib"
            } else {
                message["target"]["name"].as_str()?
            };
            let digest = crate::digest(&fs::read(path).ok()?);
            Some(Binary {
                name: name.to_owned(),
                path: path.into(),
                digest,
            })
        };
        Ok(Ok(messages.iter().filter_map(binary).collect()))
    }

    fn faults(&self, messages: &[Value]) -> Result<Vec<Fault>, String> {
        let ended = messages.iter().find(|message| message["reason"] == "build-finished");
        let errors = messages
            .iter()
            .map(|message| &message["message"])
            .filter(|message| message["level"] == "error");
        let faults: Vec<Fault> = errors.filter_map(fault).collect();
        match ended.map(|message| message["success"] == true) {
            Some(true) => Ok(Vec::new()),
            Some(false) if !faults.is_empty() => Ok(faults),
            _ => Err("cargo failed without a compiler error".to_owned()),
        }
    }
}

fn fault(message: &Value) -> Option<Fault> {
    let spans = message["spans"].as_array()?;
    let first = spans.iter().filter(|span| span["is_primary"] == true);
    let others = spans.iter().filter(|span| span["is_primary"] != true);
    let places: Vec<_> = first.chain(others).filter_map(place).collect();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let fault = Fault {
        message: text(&message["message"]),
        code: text(&message["code"]["code"]),
        places,
    };
    // The last message only counts the errors.
    (!fault.places.is_empty()).then_some(fault)
}

/// The place in a file of the project: that of the macro's call if the span is in a macro.
fn place(span: &Value) -> Option<(String, usize, usize)> {
    if !span["expansion"].is_null() {
        if let Some(place) = place(&span["expansion"]["span"]) {
            return Some(place);
        }
    }
    let file = span["file_name"].as_str()?;
    let byte = |key: &str| span[key].as_u64().map(|byte| byte as usize);
    (!file.starts_with('/')).then_some((file.to_owned(), byte("byte_start")?, byte("byte_end")?))
}
