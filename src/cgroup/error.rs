//! The reasons why a cgroup cannot be used, reported at configuration.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::errno::ErrnoText;

/// The reason why a directory, or a leaf in it, cannot be used. Nothing was left behind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// The path does not exist, or does not exist any more.
    #[error("there is no cgroup {path:?}")]
    Missing {
        /// The missing path.
        path: PathBuf,
    },
    /// The path is a file, or leads through one.
    #[error("cannot use {path:?} as a cgroup: it is not a directory")]
    NotADirectory {
        /// The path of the file.
        path: PathBuf,
    },
    /// The directory is in another file system. Where both versions of cgroups are mounted, version 2 is often at
    /// `/sys/fs/cgroup/unified`.
    #[error("cannot use {path:?} as a cgroup: it is not in a cgroup file system")]
    NotACgroup {
        /// The path of the directory.
        path: PathBuf,
    },
    /// The directory is a cgroup of version 1, which lacks the files that are needed here.
    #[error("cannot use cgroup {path:?}: it is of version 1, and version 2 is required")]
    Version1 {
        /// The path of the cgroup.
        path: PathBuf,
    },
    /// No cgroup can be made or killed in the directory: it belongs to another user, or is mounted read-only.
    #[error("cannot write to cgroup {path:?}: {}", words(*.errno))]
    NotWritable {
        /// The path of the cgroup.
        path: PathBuf,
        /// `EACCES`, `EPERM` or `EROFS`.
        errno: i32,
    },
    /// The directory is a threaded cgroup, or the root of a threaded subtree. The cgroups in it hold threads, and
    /// cannot list or kill processes.
    #[error("cannot use cgroup {path:?}: it is threaded, or the root of a threaded subtree")]
    Threaded {
        /// The path of the cgroup.
        path: PathBuf,
    },
    /// A cgroup of this name exists already.
    #[error("cannot make cgroup {path:?}: it exists already")]
    Exists {
        /// The path of the cgroup.
        path: PathBuf,
    },
    /// A cgroup cannot or should not have this name.
    #[error("cannot use {name:?} as the name of a cgroup: {why}")]
    Name {
        /// The rejected name.
        name: OsString,
        /// The fault of the name.
        why: &'static str,
    },
    /// The calling process is in the cgroup, and would be killed with it.
    #[error("cannot use cgroup {path:?}: this process is in it, and would be killed with it")]
    Own {
        /// The path of the cgroup.
        path: PathBuf,
    },
    /// One cgroup more is not allowed by `cgroup.max.descendants` or `cgroup.max.depth`, here or above.
    #[error("cannot make cgroup {path:?}: cgroup.max.descendants or cgroup.max.depth does not allow it")]
    Limit {
        /// The path of the cgroup that could not be made.
        path: PathBuf,
    },
    /// A limit has a value that the kernel does not accept ([`Limits::validate`](super::Limits::validate)).
    #[error("cannot write a limit of {value} to {file}: it must be {range}")]
    OutOfRange {
        /// The file of the limit.
        file: &'static str,
        /// The value, as text.
        value: String,
        /// The values that are accepted.
        range: &'static str,
    },
    /// A file of a cgroup cannot or should not be written.
    #[error("cannot write a limit to the cgroup file {name:?}: {why}")]
    FileName {
        /// The file's name.
        name: OsString,
        /// The reason of the refusal.
        why: &'static str,
    },
    /// The file does not exist: its name is misspelt, or it needs a later kernel.
    #[error("cannot write to {path:?}: there is no such cgroup file")]
    NoFile {
        /// The path of the file.
        path: PathBuf,
    },
    /// The file is of a controller that is not delegated to the directory: its `cgroup.controllers` does not list it,
    /// and so it cannot be enabled there. Or the controller was disabled meanwhile.
    #[error("cannot use the {controller} controller in {path:?}: it is not delegated, or not enabled any more")]
    NoController {
        /// The path of the directory.
        path: PathBuf,
        /// The name of the controller.
        controller: String,
    },
    /// The file is of a controller that the kernel does not let this process enable in the `cgroup.subtree_control` of
    /// the directory. `EBUSY`: a process lives in the directory itself, beside the cgroups in it. `EACCES`, `EPERM`:
    /// the file belongs to another user.
    #[error("cannot enable the {controller} controller in {path:?}: {}", words(*.errno))]
    CannotEnable {
        /// The path of the directory.
        path: PathBuf,
        /// The name of the controller, or the names of several with spaces between them.
        controller: String,
        /// The errno of the refusal (errno(3)).
        errno: i32,
    },
    /// The kernel refused to write this value into a file.
    #[error("cannot write {value:?} to {path:?}: {}", words(*.errno))]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The refused value, as text.
        value: String,
        /// The errno of the refusal (errno(3)).
        errno: i32,
    },
    /// The kernel refused another operation.
    #[error("cannot {doing} cgroup {path:?}: {}", words(*.errno))]
    Failed {
        /// The operation, a verb.
        doing: &'static str,
        /// The path of the cgroup.
        path: PathBuf,
        /// The errno of the failure (errno(3)); 0 if there is none.
        errno: i32,
    },
}

impl CgroupError {
    /// The directory or the file concerned; `None` for an impossible name or value.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            CgroupError::Missing { path }
            | CgroupError::NotADirectory { path }
            | CgroupError::NotACgroup { path }
            | CgroupError::Version1 { path }
            | CgroupError::NotWritable { path, .. }
            | CgroupError::Threaded { path }
            | CgroupError::Exists { path }
            | CgroupError::Own { path }
            | CgroupError::Limit { path }
            | CgroupError::NoFile { path }
            | CgroupError::NoController { path, .. }
            | CgroupError::CannotEnable { path, .. }
            | CgroupError::File { path, .. }
            | CgroupError::Failed { path, .. } => Some(path),
            CgroupError::Name { .. } | CgroupError::FileName { .. } | CgroupError::OutOfRange { .. } => None,
        }
    }

    /// The errno of the kernel, or the one that fits best (errno(3)).
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            CgroupError::Missing { .. } | CgroupError::NoFile { .. } | CgroupError::NoController { .. } => libc::ENOENT,
            CgroupError::NotADirectory { .. } => libc::ENOTDIR,
            CgroupError::NotACgroup { .. }
            | CgroupError::Version1 { .. }
            | CgroupError::Name { .. }
            | CgroupError::FileName { .. }
            | CgroupError::OutOfRange { .. } => libc::EINVAL,
            CgroupError::NotWritable { errno, .. }
            | CgroupError::File { errno, .. }
            | CgroupError::CannotEnable { errno, .. }
            | CgroupError::Failed { errno, .. } => *errno,
            CgroupError::Threaded { .. } => libc::EOPNOTSUPP,
            CgroupError::Exists { .. } => libc::EEXIST,
            CgroupError::Own { .. } => libc::EBUSY,
            CgroupError::Limit { .. } => libc::EAGAIN,
        }
    }

    /// The error for this operation on the cgroup, which failed with this errno.
    pub(super) fn failed(path: &Path, doing: &'static str, errno: Errno) -> CgroupError {
        let path = path.to_owned();
        let raw = errno.raw_os_error();
        match errno {
            Errno::NOENT => CgroupError::Missing { path },
            Errno::NOTDIR => CgroupError::NotADirectory { path },
            Errno::AGAIN => CgroupError::Limit { path },
            Errno::ACCESS | Errno::PERM | Errno::ROFS if doing != "open" => {
                CgroupError::NotWritable { path, errno: raw }
            }
            _ => CgroupError::Failed {
                doing,
                path,
                errno: raw,
            },
        }
    }

    /// Like `failed`, for an error that can lack an errno.
    pub(super) fn failed_with(path: &Path, doing: &'static str, error: &io::Error) -> CgroupError {
        match Errno::from_io_error(error) {
            Some(errno) => CgroupError::failed(path, doing, errno),
            None => CgroupError::Failed {
                doing,
                path: path.to_owned(),
                errno: 0,
            },
        }
    }
}

impl From<CgroupError> for io::Error {
    /// Has the kind of the errno, and the [`CgroupError`] inside ([`io::Error::get_ref`]).
    fn from(error: CgroupError) -> io::Error {
        io::Error::new(io::Error::from_raw_os_error(error.errno()).kind(), error)
    }
}

/// The text of this errno.
fn words(errno: i32) -> String {
    if errno == 0 {
        return "it never became empty".to_owned();
    }
    ErrnoText(errno).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_like_a_sentence() {
        let path = Path::new("/sys/fs/cgroup/x");
        for (doing, errno, text) in [
            ("thaw", Errno::NOENT, r#"there is no cgroup "/sys/fs/cgroup/x""#),
            (
                "thaw",
                Errno::ROFS,
                r#"cannot write to cgroup "/sys/fs/cgroup/x": Read-only file system"#,
            ),
            (
                "thaw",
                Errno::MFILE,
                r#"cannot thaw cgroup "/sys/fs/cgroup/x": Too many open files"#,
            ),
            (
                "open",
                Errno::ACCESS,
                r#"cannot open cgroup "/sys/fs/cgroup/x": Permission denied"#,
            ),
            (
                "make",
                Errno::AGAIN,
                r#"cannot make cgroup "/sys/fs/cgroup/x": cgroup.max.descendants or cgroup.max.depth does not allow it"#,
            ),
        ] {
            let error = CgroupError::failed(path, doing, errno);
            assert_eq!(error.to_string(), text);
            assert_eq!((error.path(), error.errno()), (Some(path), errno.raw_os_error()));
            let io = io::Error::from(error.clone());
            assert_eq!(io.kind(), io::Error::from(errno).kind());
            assert_eq!(io.get_ref().and_then(|inner| inner.downcast_ref()), Some(&error));
        }
    }
}
