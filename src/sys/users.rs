//! The user database, by way of the C library: what `getent` says is what a child gets.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::ptr;

/// What the database says of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub account: Account,
    /// All groups, the primary one included.
    pub groups: Vec<u32>,
}

/// One record of the database (passwd(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The home directory and the shell; what login(1) takes if the record has none.
    pub home: OsString,
    pub shell: OsString,
}

/// The largest record and the longest list we are ready to read.
const RECORD_MAX: usize = 1024 * 1024;
const GROUPS_MAX: usize = 65_536;

/// getpwnam_r(3) and getgrouplist(3); `None` if there is no such user. May read files or ask the
/// network, as the machine is set up.
pub(crate) fn user_by_name(name: &CStr) -> io::Result<Option<User>> {
    let Some(account) = account_of(name)? else {
        return Ok(None);
    };
    let groups = groups_of(name, account.gid)?;
    Ok(Some(User { account, groups }))
}

fn account_of(name: &CStr) -> io::Result<Option<Account>> {
    let mut buffer: Vec<c_char> = vec![0; 1024];
    loop {
        let mut record = MaybeUninit::<libc::passwd>::zeroed();
        let mut found: *mut libc::passwd = ptr::null_mut();
        // SAFETY: a terminated name, a record and a buffer of the length said, all ours.
        let errno = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                record.as_mut_ptr(),
                buffer.as_mut_ptr(),
                buffer.len(),
                &raw mut found,
            )
        };
        match errno {
            libc::EINTR => {}
            libc::ERANGE if buffer.len() < RECORD_MAX => buffer.resize(buffer.len() * 2, 0),
            // What the manual page lists as ways to say that there is none.
            0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: it was found, so the record is filled, and its texts lie in the buffer, which is still there.
                return Ok(Some(unsafe {
                    let record = record.assume_init();
                    Account {
                        uid: record.pw_uid,
                        gid: record.pw_gid,
                        home: text(record.pw_dir, "/"),
                        shell: text(record.pw_shell, "/bin/sh"),
                    }
                }));
            }
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// A text of a record, or `default` if there is none.
///
/// # Safety
/// `text` is null, or points to a text that ends with a NUL.
unsafe fn text(text: *const c_char, default: &str) -> OsString {
    if text.is_null() {
        return default.into();
    }
    // SAFETY: as promised by the caller.
    let text = unsafe { CStr::from_ptr(text) }.to_bytes();
    if text.is_empty() {
        return default.into();
    }
    OsStr::from_bytes(text).to_owned()
}

fn groups_of(name: &CStr, primary: u32) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 32];
    loop {
        let mut count = c_int::try_from(groups.len()).unwrap_or(c_int::MAX);
        // SAFETY: a terminated name and an array of `count` ids.
        let result = unsafe { libc::getgrouplist(name.as_ptr(), primary, groups.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        if result >= 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        if groups.len() >= GROUPS_MAX {
            return Err(io::Error::from_raw_os_error(libc::ERANGE));
        }
        groups.resize((groups.len() * 2).max(count).min(GROUPS_MAX), 0);
    }
}
