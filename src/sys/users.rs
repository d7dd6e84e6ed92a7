//! The user database, read through the C library, so a child gets what `getent` prints.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::ptr;

/// A user in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub account: Account,
    /// All groups, including the primary one.
    pub groups: Vec<u32>,
}

/// One record of the database (passwd(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub name: OsString,
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The home directory. If the record has none, `/`, as in login(1).
    pub home: OsString,
    /// The shell. If the record has none, `/bin/sh`, as in login(1).
    pub shell: OsString,
}

/// The largest record in bytes, and the longest list of groups, that are read.
const RECORD_MAX: usize = 1_048_576;
const GROUPS_MAX: usize = 65_536;

/// getpwnam_r(3) and getgrouplist(3); `None` if there is no such user. The configuration of the machine decides whether
/// this reads files or uses the network, so it can block.
pub(crate) fn user_by_name(name: &CStr) -> io::Result<Option<User>> {
    let Some(account) = account_of(name)? else {
        return Ok(None);
    };
    let groups = groups_of(name, account.gid)?;
    Ok(Some(User { account, groups }))
}

/// getpwuid_r(3); `None` if no user has this uid.
pub(crate) fn account_by_uid(uid: u32) -> io::Result<Option<Account>> {
    account(|record, buffer, found| {
        // SAFETY: the buffer has the given length, and all pointers refer to live locals of the caller.
        unsafe { libc::getpwuid_r(uid, record, buffer.as_mut_ptr(), buffer.len(), found) }
    })
}

fn account_of(name: &CStr) -> io::Result<Option<Account>> {
    account(|record, buffer, found| {
        // SAFETY: the name ends with a NUL. The rest is as above.
        unsafe { libc::getpwnam_r(name.as_ptr(), record, buffer.as_mut_ptr(), buffer.len(), found) }
    })
}

type LookUp<'a, T> = &'a dyn Fn(*mut T, &mut [c_char], *mut *mut T) -> c_int;

fn account(
    look_up: impl Fn(*mut libc::passwd, &mut [c_char], *mut *mut libc::passwd) -> c_int,
) -> io::Result<Option<Account>> {
    // SAFETY: `record` hands a filled record to the function. Its texts end with NUL, or are null.
    record(&look_up, |record: &libc::passwd| unsafe {
        Account {
            name: text(record.pw_name, ""),
            uid: record.pw_uid,
            gid: record.pw_gid,
            home: text(record.pw_dir, "/"),
            shell: text(record.pw_shell, "/bin/sh"),
        }
    })
}

/// getgrnam_r(3): the gid of a group; `None` if there is no such group.
pub(crate) fn group_by_name(name: &CStr) -> io::Result<Option<u32>> {
    let look_up = |record: *mut libc::group, buffer: &mut [c_char], found: *mut *mut libc::group| {
        // SAFETY: the name ends with a NUL. The rest is as above.
        unsafe { libc::getgrnam_r(name.as_ptr(), record, buffer.as_mut_ptr(), buffer.len(), found) }
    };
    record(&look_up, |record| record.gr_gid)
}

/// Calls a function of the database, with a larger buffer as long as it needs one. The record that was found goes to
/// `take`, while its texts are alive.
fn record<T, R>(look_up: LookUp<'_, T>, take: impl FnOnce(&T) -> R) -> io::Result<Option<R>> {
    let mut buffer: Vec<c_char> = vec![0; 1024];
    loop {
        let mut record = MaybeUninit::<T>::zeroed();
        let mut found: *mut T = ptr::null_mut();
        match look_up(record.as_mut_ptr(), &mut buffer, &raw mut found) {
            libc::EINTR => {}
            libc::ERANGE if buffer.len() < RECORD_MAX => buffer.resize(buffer.len() * 2, 0),
            // The manual page lists these errors for an entry that does not exist.
            0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: the entry was found, so the record is filled. Its texts are in the buffer, which is still
                // alive.
                return Ok(Some(take(unsafe { record.assume_init_ref() })));
            }
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// A text of a record, or `default` if there is none.
///
/// # Safety
/// `text` must be null, or point to a text that ends with a NUL.
unsafe fn text(text: *const c_char, default: &str) -> OsString {
    if text.is_null() {
        return default.into();
    }
    // SAFETY: the caller guarantees a valid text.
    let text = unsafe { CStr::from_ptr(text) }.to_bytes();
    if text.is_empty() {
        return default.into();
    }
    OsStr::from_bytes(text).to_owned()
}

fn groups_of(name: &CStr, primary: u32) -> io::Result<Vec<u32>> {
    group_list(|groups, count| {
        // SAFETY: the name ends with a NUL, and the array has `count` ids.
        unsafe { libc::getgrouplist(name.as_ptr(), primary, groups.as_mut_ptr(), count) }
    })
}

/// Calls getgrouplist(3), with a larger array as long as it needs one.
fn group_list(look_up: impl Fn(&mut [libc::gid_t], &mut c_int) -> c_int) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 32];
    loop {
        let mut count = c_int::try_from(groups.len()).unwrap_or(c_int::MAX);
        let result = look_up(&mut groups, &mut count);
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// The errno and the number of calls, with a database of one record that needs a buffer of this length.
    fn find(needed: usize) -> (Option<i32>, u32) {
        let calls = Cell::new(0);
        let look_up = |record: *mut libc::group, buffer: &mut [c_char], found: *mut *mut libc::group| {
            calls.set(calls.get() + 1);
            if buffer.len() < needed {
                return libc::ERANGE;
            }
            // SAFETY: both are locals of the caller.
            unsafe {
                (*record).gr_gid = 7;
                *found = record;
            }
            0
        };
        let found = record(&look_up, |record| record.gr_gid);
        assert!(found.as_ref().is_ok_and(|gid| *gid == Some(7)) || found.is_err());
        (found.err().and_then(|error| error.raw_os_error()), calls.get())
    }

    #[test]
    fn a_record_takes_a_mebibyte_at_most() {
        assert_eq!([1, 1_024, 1_025].map(find), [(None, 1), (None, 1), (None, 2)]);
        assert_eq!(find(RECORD_MAX), (None, 11));
        assert_eq!(find(RECORD_MAX + 1), (Some(libc::ERANGE), 11));
    }

    /// The length of the list and the number of calls, with a database that tells how many groups there are or not.
    fn list(groups: usize, tells: bool) -> (Option<usize>, u32) {
        let calls = Cell::new(0);
        let found = group_list(|array, count| {
            calls.set(calls.get() + 1);
            let fits = array.len() >= groups;
            if fits || tells {
                *count = groups as c_int;
            }
            if fits { *count } else { -1 }
        });
        (found.ok().map(|groups| groups.len()), calls.get())
    }

    #[test]
    fn the_primary_group_is_among_the_groups_of_a_user() {
        assert!(groups_of(c"root", 4_242).unwrap().contains(&4_242));
        assert_eq!(groups_of(c"no such user", 4_242).unwrap(), [4_242]);
    }

    #[test]
    fn a_user_is_in_65536_groups_at_most() {
        assert_eq!(
            [3, 32, 33].map(|groups| list(groups, true)),
            [(Some(3), 1), (Some(32), 1), (Some(33), 2)]
        );
        assert_eq!(
            [true, false].map(|tells| list(GROUPS_MAX, tells)),
            [(Some(GROUPS_MAX), 2), (Some(GROUPS_MAX), 12)]
        );
        assert_eq!(
            [true, false].map(|tells| list(GROUPS_MAX + 1, tells)),
            [(None, 2), (None, 12)]
        );
    }
}
