//! Automatic logs: files with generated names, for the value `AUTO`.
//!
//! supervisord writes the output of a program to `NAME-stdout---IDENTIFIER-RANDOM.log` in its `childlogdir`, readable
//! only by its owner. It removes the files of earlier runs at its start, unless `nocleanup` is set. The taskmaster
//! does the same, with one exception: without an output key, a program gets an automatic log only if the
//! configuration sets `childlogdir` or has a server, because otherwise nothing would read a file in `/tmp`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::files::reason;
use crate::handing;

/// The directory and the names of automatic logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Automatic {
    /// The directory of the logs.
    pub directory: PathBuf,
    /// The identifier in each file name.
    pub identifier: String,
    /// Whether an output without a key gets an automatic log. Otherwise the output is discarded.
    pub by_default: bool,
    /// Whether the logs of earlier runs are kept.
    pub nocleanup: bool,
}

/// The output that a log belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    directory: PathBuf,
    identifier: String,
    group: String,
    process: String,
    channel: Cow<'static, str>,
}

/// The generated names. They are kept for the life of the taskmaster, so a process that is started again, also after
/// a reload, continues its log.
static NAMES: Mutex<BTreeMap<Owner, PathBuf>> = Mutex::new(BTreeMap::new());

impl Automatic {
    /// The log of this process. `channel` is `stdout` or `stderr`. The file is created when the process starts.
    pub fn path(&self, group: &str, process: &str, channel: &'static str) -> PathBuf {
        let owner = Owner {
            directory: self.directory.clone(),
            identifier: self.identifier.clone(),
            group: group.to_owned(),
            process: process.to_owned(),
            channel: Cow::Borrowed(channel),
        };
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let made_up = || {
            let name = format!("{process}-{channel}---{}-{:08x}.log", self.identifier, random());
            self.directory.join(name)
        };
        names.entry(owner).or_insert_with(made_up).clone()
    }

    /// Removes the logs of earlier runs. Returns a line for each file that cannot be removed.
    pub fn clean(&self) -> Vec<String> {
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) => return vec![format!("cannot read {}: {}", self.directory.display(), reason(error))],
        };
        let old = entries.flatten().map(|entry| entry.path());
        let removed = old.filter(|path| self.is_one(path)).map(|path| {
            let removed = std::fs::remove_file(&path);
            removed.map_err(|error| format!("cannot remove {}: {}", path.display(), reason(error)))
        });
        removed.filter_map(Result::err).collect()
    }

    /// Whether a file has the name of an automatic log, or of one that supervisord has rotated.
    fn is_one(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mark = format!("---{}-", self.identifier);
        let Some((before, after)) = name.split_once(&mark) else {
            return false;
        };
        let random = after.split_once(".log").map(|(random, _)| random);
        !before.is_empty() && random.is_some_and(|random| !random.is_empty() && !random.contains(char::is_whitespace))
    }
}

/// The generated names, for the program that takes the place of this one.
pub fn hand_over() -> Value {
    let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let name = |(owner, path): (&Owner, &PathBuf)| {
        json!([
            handing::path(&owner.directory),
            owner.identifier,
            owner.group,
            owner.process,
            owner.channel,
            handing::path(path)
        ])
    };
    names.iter().map(name).collect::<Vec<_>>().into()
}

/// Continues with the names that the program before this one has handed over.
pub fn take_over(left: &Value) {
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let name = |left: &Value| {
        let owner = Owner {
            directory: handing::to_path(&left[0])?,
            identifier: handing::to_text(&left[1])?,
            group: handing::to_text(&left[2])?,
            process: handing::to_text(&left[3])?,
            channel: Cow::Owned(handing::to_text(&left[4])?),
        };
        Some((owner, handing::to_path(&left[5])?))
    };
    names.extend(handing::to_list(left, name).unwrap_or_default());
}

/// An unpredictable number, so that no other user can create the file first.
fn random() -> u32 {
    (RandomState::new().build_hasher().finish() >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn automatic(directory: &str) -> Automatic {
        Automatic {
            directory: directory.into(),
            identifier: "here".to_owned(),
            ..Automatic::default()
        }
    }

    #[test]
    fn a_process_keeps_its_log() {
        let logs = automatic("/x");
        let path = logs.path("g", "web_0", "stdout");
        assert_eq!(logs.path("g", "web_0", "stdout"), path);
        assert!(path.to_str().unwrap().starts_with("/x/web_0-stdout---here-"));
        for other in [
            logs.path("h", "web_0", "stdout"),
            logs.path("g", "web_1", "stdout"),
            logs.path("g", "web_0", "stderr"),
            automatic("/y").path("g", "web_0", "stdout"),
        ] {
            assert_ne!(other, path);
        }
    }

    #[test]
    fn a_process_keeps_its_log_after_a_hand_over() {
        let logs = automatic("/z");
        let path = logs.path("g", "web_0", "stderr");
        let left = hand_over();
        NAMES
            .lock()
            .unwrap()
            .retain(|owner, _| owner.directory != Path::new("/z"));
        take_over(&left);
        assert_eq!(logs.path("g", "web_0", "stderr"), path);
    }

    #[test]
    fn names_of_automatic_logs_are_distinguished_from_others() {
        let logs = automatic("/x");
        for name in ["a-stdout---here-abc.log", "a---here-x.log.1", "a---here-x.log10"] {
            assert!(logs.is_one(Path::new(name)), "{name}");
        }
        assert!(logs.is_one(&logs.path("g", "p", "stderr")));
        for name in [
            "a-stdout---there-abc.log",
            "---here-abc.log",
            "a---here-.log",
            "a---here-a b.log",
            "a---here-abc.txt",
            "web.log",
            "",
        ] {
            assert!(!logs.is_one(Path::new(name)), "{name}");
        }
    }
}
