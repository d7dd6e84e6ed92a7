//! The settings of logs: their rotation, where the output of a program goes, and the taskmaster's own log.

use std::path::PathBuf;

use super::streams::Stream;

/// When a log is rotated, and how many old files are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The size in bytes from which the file is renamed. 0 means never.
    pub maxbytes: u64,
    /// The number of old files, `NAME.1` to `NAME.N`. With 0 the file is emptied.
    pub backups: u32,
}

/// supervisord's defaults.
impl Default for Rotation {
    fn default() -> Rotation {
        Rotation {
            maxbytes: 50 << 20,
            backups: 10,
        }
    }
}

/// The destination of a program's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Log {
    /// The output is discarded, because the taskmaster's own output is for its answers and its log.
    Discard,
    /// One of the taskmaster's own streams.
    Own(Stream),
    /// This file, with output appended. Only its owner may read it.
    Automatic(PathBuf),
    /// This file, with output appended.
    File(PathBuf),
}

/// An output of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Channel {
    /// Both, in the order of their numbers.
    pub const BOTH: [Channel; 2] = [Channel::Out, Channel::Err];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Channel::Out => "stdout",
            Channel::Err => "stderr",
        }
    }
}

/// Where the output of a run goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The log file.
    pub path: PathBuf,
    /// The permissions of a new file, before the umask.
    pub mode: u32,
    /// Its rotation.
    pub rotation: Rotation,
    /// Whether escape sequences are removed.
    pub strip: bool,
}

impl Target {
    /// The target for a destination of the configuration. `None` if it is no file.
    pub fn of(log: &Log, rotation: Rotation, strip: bool) -> Option<Target> {
        let (path, mode) = match log {
            Log::Discard | Log::Own(_) => return None,
            Log::Automatic(path) => (path, 0o600),
            Log::File(path) => (path, 0o666),
        };
        Some(Target {
            path: path.clone(),
            mode,
            rotation,
            strip,
        })
    }
}

/// What becomes of the output of a run that the taskmaster reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    /// The log. `None` if there is none.
    pub file: Option<Target>,
    /// The number of bytes that are captured between the tokens of supervisord. 0 means that there are no tokens.
    pub capture: u64,
    /// Whether the output is reported as events.
    pub events: bool,
    /// Whether the output is the protocol of an event listener.
    pub protocol: bool,
}

impl Sink {
    /// Whether the output has to be read, whatever its log is.
    pub fn is_heard(&self) -> bool {
        self.capture > 0 || self.events || self.protocol
    }
}

/// How much a line of the log matters. `loglevel` names the least level that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// `debug`, `trace` and `blather`: everything.
    Debug,
    /// What happens in normal operation.
    #[default]
    Info,
    /// Something went wrong, and the taskmaster goes on.
    Warn,
    /// `error` and `critical`: nothing of the taskmaster is on this level.
    Error,
}

impl Level {
    /// Parses supervisord's names.
    ///
    /// # Errors
    /// Another name.
    pub fn parse(text: &str) -> Result<Level, String> {
        match text.to_ascii_lowercase().as_str() {
            "debug" | "trace" | "blather" => Ok(Level::Debug),
            "info" => Ok(Level::Info),
            "warn" => Ok(Level::Warn),
            "error" | "critical" => Ok(Level::Error),
            _ => Err("expected critical, error, warn, info, debug, trace or blather".to_owned()),
        }
    }

    /// The name in a line of the log.
    pub fn name(self) -> &'static str {
        match self {
            Level::Debug => "DEBG",
            Level::Info => "INFO",
            Level::Warn => "WARN",
            Level::Error => "ERRO",
        }
    }
}

/// The settings of the log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnLogSettings {
    /// The path of the file.
    pub path: PathBuf,
    /// Its rotation.
    pub rotation: Rotation,
    /// Whether the log goes to the file alone, and not to standard error as well.
    pub silent: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_supervisords_names() {
        assert_eq!(Level::parse("WARN"), Ok(Level::Warn));
        assert_eq!(Level::parse("blather"), Ok(Level::Debug));
        assert!(Level::parse("loud").is_err());
        assert!(Level::Warn > Level::Info);
    }
}
