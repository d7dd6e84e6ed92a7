//! The destinations of a program's output that are not ordinary files.
//!
//! `/dev/stdout` and `/dev/stderr`, in any spelling, mean the taskmaster's own streams. supervisord opens the name.
//! The taskmaster gives the child a duplicate of the descriptor instead, because the open fails if the stream is a
//! socket (`ENXIO`) or belongs to another user.
//!
//! A name is first compared as text. Then its links are followed, because `/var/log/access.log` may be a link to
//! `/dev/stdout`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// One of the taskmaster's own streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// The destination of an output before the process is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The output is discarded.
    Discard,
    /// A file with a generated name.
    Automatic,
    /// One of the taskmaster's own streams.
    Own(Stream),
    /// This file, with output appended.
    File(PathBuf),
}

/// The number of links that are followed, which is the kernel's limit.
const MOST_LINKS: usize = 40;

impl Stream {
    /// A duplicate of the stream. Each call returns the same one, so that two commands with it are equal. `None` if
    /// no descriptor is free.
    pub fn duplicate(self) -> Option<Arc<OwnedFd>> {
        static OUT: OnceLock<Option<Arc<OwnedFd>>> = OnceLock::new();
        static ERR: OnceLock<Option<Arc<OwnedFd>>> = OnceLock::new();
        let duplicate = |fd: std::io::Result<OwnedFd>| fd.ok().map(Arc::new);
        match self {
            Stream::Out => OUT.get_or_init(|| duplicate(std::io::stdout().as_fd().try_clone_to_owned())),
            Stream::Err => ERR.get_or_init(|| duplicate(std::io::stderr().as_fd().try_clone_to_owned())),
        }
        .clone()
    }
}

impl Destination {
    /// Parses `text`. `at_home` expands a leading `~`.
    ///
    /// # Errors
    /// The taskmaster cannot direct output to this place.
    pub fn parse(text: &str, at_home: impl Fn(&str) -> Result<String, String>) -> Result<Destination, String> {
        match text.to_lowercase().as_str() {
            "" | "none" | "off" => return Ok(Destination::Discard),
            "auto" => return Ok(Destination::Automatic),
            "syslog" => return Err(NO_SYSLOG.to_owned()),
            _ => {}
        }
        let path = PathBuf::from(at_home(text)?);
        match own_descriptor(&path) {
            None => Ok(Destination::File(path)),
            Some(1) => Ok(Destination::Own(Stream::Out)),
            Some(2) => Ok(Destination::Own(Stream::Err)),
            Some(number) => Err(format!(
                "descriptor {number} of the taskmaster is not passed on, only its standard output and standard error are"
            )),
        }
    }
}

/// The reason why syslog is refused: its limits on rates and sizes lose lines, and its socket may block.
pub const NO_SYSLOG: &str = "the output is collected in files, which can't be done with syslog; \
                             name a file, or pipe the output to logger(1)";

/// The number of the taskmaster's own descriptor that `path` names.
fn own_descriptor(path: &Path) -> Option<u32> {
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        if let Some(number) = by_name(&path).or_else(|| by_directory(&path)) {
            return Some(number);
        }
        let target = std::fs::read_link(&path).ok()?;
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    None
}

/// Matches the usual names. They work even if /proc is not mounted.
fn by_name(path: &Path) -> Option<u32> {
    let path = without_dots(path)?;
    match path.as_str() {
        "/dev/stdin" => Some(0),
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        other => {
            let own = std::process::id();
            let directories = [
                "/dev/fd/".to_owned(),
                "/proc/self/fd/".to_owned(),
                "/proc/thread-self/fd/".to_owned(),
                format!("/proc/{own}/fd/"),
            ];
            let number = |directory: &String| number(other.strip_prefix(directory.as_str())?);
            directories.iter().find_map(number)
        }
    }
}

/// Matches any other path into the directory of this process's descriptors.
fn by_directory(path: &Path) -> Option<u32> {
    let number = number(path.file_name()?.to_str()?)?;
    let parent = path.parent()?.canonicalize().ok()?;
    let ours = ["/proc/self/fd", "/proc/thread-self/fd"];
    let is_ours = |ours: &str| Path::new(ours).canonicalize().is_ok_and(|ours| ours == parent);
    ours.into_iter().any(is_ours).then_some(number)
}

/// Parses a number in the kernel's spelling.
fn number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// An absolute path without `.`, `..` and double slashes.
fn without_dots(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.is_absolute().then(|| path.components())? {
        match part {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    Some(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn parse(text: &str) -> Result<Destination, String> {
        Destination::parse(text, |text| Ok(text.to_owned()))
    }

    #[test]
    fn some_words_mean_no_file() {
        for text in ["", "NONE", "none", "Off"] {
            assert_eq!(parse(text), Ok(Destination::Discard), "{text}");
        }
        assert_eq!(parse("AUTO"), Ok(Destination::Automatic));
        for text in ["syslog", "SYSLOG"] {
            assert!(parse(text).unwrap_err().contains("syslog"));
        }
        for text in [
            "/var/log/x",
            "none.log",
            "./syslog",
            "/dev/null",
            "/dev/stdout.log",
            "x",
        ] {
            assert_eq!(parse(text), Ok(Destination::File(text.into())), "{text}");
        }
    }

    #[test]
    fn every_spelling_means_the_stream() {
        let own = std::process::id();
        for text in [
            "/dev/stdout",
            "/dev/fd/1",
            "/proc/self/fd/1",
            "/proc/thread-self/fd/1",
            "//dev/./stdout",
            "/dev/../dev/fd//1",
            &format!("/proc/{own}/fd/1"),
            &format!("/proc/self/task/{own}/../../fd/1"),
        ] {
            assert_eq!(parse(text), Ok(Destination::Own(Stream::Out)), "{text}");
        }
        for text in ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"] {
            assert_eq!(parse(text), Ok(Destination::Own(Stream::Err)), "{text}");
        }
        for text in ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/17"] {
            assert!(parse(text).unwrap_err().contains("not passed on"), "{text}");
        }
        assert_eq!(parse("/proc/1/fd/1"), Ok(Destination::File("/proc/1/fd/1".into())));
    }

    #[test]
    fn links_to_the_streams_are_followed() {
        let name = format!("taskmaster-streams-{own}", own = std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let link = |name: &str, to: &str| {
            let path = directory.join(name);
            symlink(to, &path).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let access = link("access.log", "/dev/stdout");
        let again = link("again.log", "access.log");
        let dev = link("dev", "/dev");
        let fds = link("fds", "/proc/self/fd");
        let file = link("file.log", "/tmp/file.log");
        let circle = link("circle", "circle");
        for path in [access, again, format!("{dev}/stdout"), format!("{fds}/1")] {
            assert_eq!(parse(&path), Ok(Destination::Own(Stream::Out)), "{path}");
        }
        for path in [file, circle] {
            assert_eq!(parse(&path), Ok(Destination::File(path.clone().into())));
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
