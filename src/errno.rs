//! The kernel's reasons as text, for error messages.
//!
//! The standard library writes `Permission denied (os error 13)`. The number does not help the reader of a log, so the
//! messages of this crate have only the text.

use std::fmt;
use std::io;

/// The text of an errno (strerror(3)).
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrnoText(pub(crate) i32);

impl fmt::Display for ErrnoText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Reason(&io::Error::from_raw_os_error(self.0)), f)
    }
}

/// The text of an I/O error; of one with an errno, without the number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reason<'a>(pub(crate) &'a io::Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let number = self.0.raw_os_error().map(|errno| format!(" (os error {errno})"));
        let words = number.and_then(|number| text.strip_suffix(&number));
        f.write_str(words.unwrap_or(&text))
    }
}

/// What [`Spawner::new`](crate::Spawner::new), [`Launcher::new`](crate::Launcher::new) or
/// [`Supervisor::new`](crate::Supervisor::new) could not get from the kernel.
///
/// It is inside the [`io::Error`] that they return ([`io::Error::get_ref`]). The kind of that error follows from the
/// errno.
///
/// ```
/// use pidherd::{SetupError, Supervisor};
///
/// match Supervisor::new() {
///     Ok(supervisor) => drop(supervisor),
///     Err(error) => {
///         let setup = error.get_ref().and_then(|inner| inner.downcast_ref::<SetupError>());
///         // For example: cannot open /dev/null: No such file or directory
///         eprintln!("{error}, errno {:?}", setup.map(SetupError::errno));
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {operation} {object}: {}", ErrnoText(*.errno))]
pub struct SetupError {
    operation: &'static str,
    object: &'static str,
    errno: i32,
}

impl SetupError {
    /// The operation is a verb. An error without an errno counts as EIO.
    pub(crate) fn new(operation: &'static str, object: &'static str, error: &io::Error) -> SetupError {
        SetupError {
            operation,
            object,
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        }
    }

    /// The kernel's reason (errno(3)).
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// The operation, and its object.
    pub(crate) fn subject(&self) -> (&'static str, &'static str) {
        (self.operation, self.object)
    }
}

impl From<SetupError> for io::Error {
    fn from(error: SetupError) -> io::Error {
        io::Error::new(io::Error::from_raw_os_error(error.errno).kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_is_its_text_without_a_number() {
        assert_eq!(ErrnoText(libc::EMFILE).to_string(), "Too many open files");
        assert_eq!(
            ErrnoText(libc::ENOTCONN).to_string(),
            "Transport endpoint is not connected"
        );
        let plain = io::Error::other("of its own (os error 13)");
        assert_eq!(Reason(&plain).to_string(), "of its own (os error 13)");
    }

    #[test]
    fn a_setup_error_keeps_the_errno_and_its_kind() {
        let error = SetupError::new("open", "/dev/null", &io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(error.to_string(), "cannot open /dev/null: No such file or directory");
        let io = io::Error::from(error.clone());
        assert_eq!(
            (io.kind(), io.to_string()),
            (io::ErrorKind::NotFound, error.to_string())
        );
        assert_eq!(io.get_ref().and_then(|inner| inner.downcast_ref()), Some(&error));
    }
}
