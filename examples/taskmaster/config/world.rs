//! The facts outside of a file that affect its meaning.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use super::expand::{Scope, Value};
use super::users::Accounts;
use crate::files::{self, Fifo};

/// The facts outside of a file that affect its meaning.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The directory of the file, for `%(here)s`.
    pub here: String,
    /// The working directory at the start of the taskmaster. Relative paths on its command line and in its own
    /// settings are relative to this directory, even after it has changed its own.
    pub started_in: PathBuf,
    /// The name of the machine, for `%(host_node_name)s`.
    pub host: String,
    /// The environment, for `%(ENV_X)s`.
    pub environment: BTreeMap<String, String>,
    /// The accounts, for `user` and `~name`.
    pub accounts: Accounts,
    /// The taskmaster's own user, for `~` without a `HOME`.
    pub uid: u32,
}

/// The working directory at the start of the taskmaster.
static STARTED_IN: OnceLock<PathBuf> = OnceLock::new();

impl World {
    /// The working directory at the start of the taskmaster. The first call determines it.
    pub fn started_in() -> &'static PathBuf {
        STARTED_IN.get_or_init(|| std::env::current_dir().unwrap_or_default())
    }

    /// Sets the directory in which the program before this one in the same process was started.
    pub fn set_started_in(directory: PathBuf) {
        let _first = STARTED_IN.set(directory);
    }

    /// The facts of this process for a file at `path`.
    pub fn around(path: &Path) -> World {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let mut world = World {
            started_in: World::started_in().clone(),
            host: host.trim_end().to_owned(),
            environment: std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
            accounts: Accounts::of_system(),
            uid: rustix::process::getuid().as_raw(),
            here: String::new(),
        };
        let file = world.absolute(path);
        world.here = file.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
        world
    }

    /// An absolute path without `.` and `..`.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        without_dots(&self.started_in.join(path))
    }

    /// Replaces a leading `~` or `~name` with the user's home directory.
    pub fn at_home(&self, path: &str) -> Result<String, String> {
        let Some(tilde) = path.strip_prefix('~') else {
            return Ok(path.to_owned());
        };
        let (name, rest) = tilde.split_at(tilde.find('/').unwrap_or(tilde.len()));
        let home = match name {
            "" => self.environment.get("HOME").map(String::as_str),
            name => self.accounts.home(name),
        };
        let home = home.or_else(|| self.accounts.home_of(self.uid).filter(|_| name.is_empty()));
        let home = home.ok_or_else(|| format!("the home directory of ~{name} is not known"))?;
        Ok(format!("{home}{rest}"))
    }

    /// The names that every section may use, in addition to `here`.
    pub fn scope(&self) -> Scope {
        let text = |text: &String| Value::Text(text.clone());
        let environment = self.environment.iter();
        let mut names: BTreeMap<String, Value> = environment
            .map(|(key, value)| (format!("ENV_{key}"), text(value)))
            .collect();
        names.insert("host_node_name".to_owned(), text(&self.host));
        Scope::around(names)
    }
}

/// The text of a file.
pub fn text_of(path: &Path, fifo: Fifo) -> Result<String, String> {
    let bytes = files::read(path, fifo)?;
    String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))
}

/// A path without `.` and `..`, by the rules of Python's `abspath`, which does not follow links.
pub fn without_dots(path: &Path) -> PathBuf {
    let mut whole = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(whole.pop()),
            part => whole.push(part),
        }
    }
    whole
}
