//! Why a cgroup can't be used, said when it is configured.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::errno::ErrnoText;

/// Why a directory, or a leaf in it, will not do. Nothing was left behind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// There is nothing of this path, or no longer.
    #[error("there is no cgroup {path:?}")]
    Missing {
        /// What was looked for.
        path: PathBuf,
    },
    /// A file, or a path through one.
    #[error("{path:?} is not a directory")]
    NotADirectory {
        /// Which.
        path: PathBuf,
    },
    /// A directory of another file system. Where both versions of cgroups are mounted, the one of version
    /// 2 is often at `/sys/fs/cgroup/unified`.
    #[error("{path:?} is not in a cgroup file system")]
    NotACgroup {
        /// Which.
        path: PathBuf,
    },
    /// A cgroup of version 1, which has none of what is needed here.
    #[error("{path:?} is a cgroup of version 1, and it takes version 2")]
    Version1 {
        /// Which.
        path: PathBuf,
    },
    /// No cgroup can be made or killed in it: not this user's, or mounted read-only.
    #[error("cannot write to cgroup {path:?}: {}", words(*.errno))]
    NotWritable {
        /// Which.
        path: PathBuf,
        /// `EACCES`, `EPERM` or `EROFS`.
        errno: i32,
    },
    /// A threaded cgroup, or the root of a threaded subtree: what is in it can hold threads, but keeps no
    /// processes apart that could be listed or killed.
    #[error("cgroup {path:?} is of a threaded subtree, which keeps no processes apart")]
    Threaded {
        /// Which.
        path: PathBuf,
    },
    /// There is a cgroup of this name already.
    #[error("cgroup {path:?} is there already")]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// A cgroup can't, or shouldn't, have this name.
    #[error("{name:?} is no name for a cgroup: {why}")]
    Name {
        /// The name.
        name: OsString,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The calling process is in it, and would be killed with it.
    #[error("cgroup {path:?} is the one that this process lives in")]
    Own {
        /// Which.
        path: PathBuf,
    },
    /// One cgroup more is not allowed by `cgroup.max.descendants` or `cgroup.max.depth`, here or above.
    #[error("cannot make cgroup {path:?}: there are as many as are allowed, or it would be too deep")]
    Limit {
        /// The one that could not be made.
        path: PathBuf,
    },
    /// A file of a cgroup can't, or shouldn't, be written.
    #[error("{name:?} is no file of a cgroup to write a limit into: {why}")]
    FileName {
        /// The file's name.
        name: OsString,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is no such file: it is misspelt, or of a later kernel.
    #[error("a cgroup has no file {path:?}")]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// The file is of a controller that the cgroups in the directory do not have: it is not enabled in the
    /// directory's `cgroup.subtree_control`, or not available at all.
    #[error("the cgroups in {path:?} have no {controller} controller: its cgroup.subtree_control does not enable it")]
    NoController {
        /// The directory.
        path: PathBuf,
        /// The controller's name.
        controller: String,
    },
    /// The kernel refused to write this value into a file.
    #[error("cannot write {value:?} to {path:?}: {}", words(*.errno))]
    File {
        /// The file.
        path: PathBuf,
        /// The value, as text.
        value: String,
        /// Why not (errno(3)).
        errno: i32,
    },
    /// The kernel refused something else.
    #[error("cannot {doing} cgroup {path:?}: {}", words(*.errno))]
    Failed {
        /// What was being done, a verb.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not (errno(3)); 0 if there is no errno for it.
        errno: i32,
    },
}

impl CgroupError {
    /// The directory or the file concerned; `None` for a name that can't be one.
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
            | CgroupError::File { path, .. }
            | CgroupError::Failed { path, .. } => Some(path),
            CgroupError::Name { .. } | CgroupError::FileName { .. } => None,
        }
    }

    /// What the kernel said, or would have (errno(3)).
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            CgroupError::Missing { .. } | CgroupError::NoFile { .. } | CgroupError::NoController { .. } => libc::ENOENT,
            CgroupError::NotADirectory { .. } => libc::ENOTDIR,
            CgroupError::NotACgroup { .. }
            | CgroupError::Version1 { .. }
            | CgroupError::Name { .. }
            | CgroupError::FileName { .. } => libc::EINVAL,
            CgroupError::NotWritable { errno, .. }
            | CgroupError::File { errno, .. }
            | CgroupError::Failed { errno, .. } => *errno,
            CgroupError::Threaded { .. } => libc::EOPNOTSUPP,
            CgroupError::Exists { .. } => libc::EEXIST,
            CgroupError::Own { .. } => libc::EBUSY,
            CgroupError::Limit { .. } => libc::EAGAIN,
        }
    }

    /// What it means that `doing` this with the cgroup met this errno.
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

    /// The same of an error that may have no errno.
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

/// What this errno says.
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
        for (errno, text) in [
            (Errno::NOENT, r#"there is no cgroup "/sys/fs/cgroup/x""#),
            (
                Errno::ROFS,
                r#"cannot write to cgroup "/sys/fs/cgroup/x": Read-only file system"#,
            ),
            (
                Errno::MFILE,
                r#"cannot thaw cgroup "/sys/fs/cgroup/x": Too many open files"#,
            ),
        ] {
            let error = CgroupError::failed(path, "thaw", errno);
            assert_eq!(error.to_string(), text);
            assert_eq!((error.path(), error.errno()), (Some(path), errno.raw_os_error()));
            let io = io::Error::from(error.clone());
            assert_eq!(io.kind(), io::Error::from(errno).kind());
            assert_eq!(io.get_ref().and_then(|inner| inner.downcast_ref()), Some(&error));
        }
    }
}
