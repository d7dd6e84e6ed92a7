//! What the taskmaster leaves for the program that takes its place (the command `reexec`).
//!
//! The library hands the processes over. The rest is a JSON value in a memory file: where the log and the events go,
//! lines that wait for a reader, commands that were read and not yet carried out, and what the herd knows besides the
//! library. The descriptors that it names stay open. An environment variable names the file, and is removed when it
//! was read.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use serde_json::Value;

/// The variable with the number of the memory file's descriptor.
const VARIABLE: &str = "TASKMASTER_HAND_OVER";

/// A state that is stored for the next program. Dropping it takes everything back.
#[derive(Debug)]
pub struct Left<'a> {
    _file: OwnedFd,
    open: Vec<BorrowedFd<'a>>,
}

/// Stores `state` for the next program, and lets it inherit the descriptors `open`.
///
/// # Errors
/// A lack of memory or of descriptors.
pub fn leave<'a>(state: &Value, open: Vec<BorrowedFd<'a>>) -> io::Result<Left<'a>> {
    let mut file = File::from(new_file()?);
    file.write_all(state.to_string().as_bytes())?;
    for fd in &open {
        fcntl_setfd(fd, FdFlags::empty())?;
    }
    // SAFETY: the taskmaster has no other thread, so nothing reads the environment meanwhile.
    unsafe { std::env::set_var(VARIABLE, file.as_raw_fd().to_string()) };
    Ok(Left {
        _file: file.into(),
        open,
    })
}

/// A memory file that is never executed. Linux before 6.3 does not know the flag.
fn new_file() -> rustix::io::Result<OwnedFd> {
    match memfd_create("taskmaster", MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create("taskmaster", MemfdFlags::empty()),
        created => created,
    }
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        // SAFETY: the taskmaster has no other thread, so nothing reads the environment meanwhile.
        unsafe { std::env::remove_var(VARIABLE) };
        for fd in &self.open {
            let _open = fcntl_setfd(fd, FdFlags::CLOEXEC);
        }
    }
}

/// The state that the program before this one has left. `None` if there is none that can be read.
pub fn receive() -> Option<Value> {
    let number = std::env::var(VARIABLE).ok()?.parse().ok()?;
    // SAFETY: the taskmaster has no other thread, so nothing reads the environment meanwhile.
    unsafe { std::env::remove_var(VARIABLE) };
    let mut file = File::from(inherited(number)?);
    let mut text = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut text)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The descriptor `value` that the program before this one has left open.
pub fn fd(value: &Value) -> Option<OwnedFd> {
    inherited(RawFd::try_from(value.as_i64()?).ok()?)
}

fn inherited(number: RawFd) -> Option<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return None;
    }
    // SAFETY: the value only asks the kernel for the flags of this number. A closed number is an error.
    let open = unsafe { BorrowedFd::borrow_raw(number) };
    // This program opens no descriptor without close-on-exec.
    if fcntl_getfd(open).ok()?.contains(FdFlags::CLOEXEC) {
        return None;
    }
    // SAFETY: the descriptor is open, and by the above no value of this program owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(fd.as_fd(), FdFlags::CLOEXEC).ok()?;
    Some(fd)
}

/// Bytes as a JSON string. Each byte is the character with its number.
pub fn bytes(bytes: &[u8]) -> Value {
    Value::from(bytes.iter().map(|&byte| char::from(byte)).collect::<String>())
}

/// The reverse of [`bytes`].
pub fn to_bytes(value: &Value) -> Option<Vec<u8>> {
    value.as_str()?.chars().map(|char| u8::try_from(char).ok()).collect()
}

/// A path as a JSON string.
pub fn path(path: &Path) -> Value {
    bytes(path.as_os_str().as_bytes())
}

/// The reverse of [`path`].
pub fn to_path(value: &Value) -> Option<PathBuf> {
    Some(OsString::from_vec(to_bytes(value)?).into())
}

/// A list, with each entry converted. `None` if this is no list, or if an entry has another form.
pub fn to_list<T>(value: &Value, convert: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    value.as_array()?.iter().map(convert).collect()
}

/// A text.
pub fn to_text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// A number of any size.
pub fn to_number<T: TryFrom<u64>>(value: &Value) -> Option<T> {
    T::try_from(value.as_u64()?).ok()
}

/// The path of the program of this process, as it was named at the start. It is the place where an upgrade puts the new
/// program, so links in it are not followed. The path in /proc is that of the file itself, and useless once the file
/// was replaced. So it must be called early, and serves only if the other ways fail.
pub fn own_program() -> Option<PathBuf> {
    let first = std::env::args_os().next().unwrap_or_default();
    let running = fs::metadata("/proc/self/exe").ok();
    find_program(&first, std::env::var_os("PATH").as_deref(), |path| {
        let Ok(found) = fs::metadata(path) else { return false };
        let is_same = |running: &fs::Metadata| (running.dev(), running.ino()) == (found.dev(), found.ino());
        found.is_file() && running.as_ref().is_none_or(is_same)
    })
}

fn find_program(first: &OsStr, path: Option<&OsStr>, is_it: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let named = if first.as_bytes().contains(&b'/') {
        vec![first.into()]
    } else {
        let directories = path.map(std::env::split_paths).into_iter().flatten();
        directories.map(|directory| directory.join(first)).collect()
    };
    let linked = fs::read_link("/proc/self/exe").ok();
    let all = named
        .into_iter()
        .filter_map(|path: PathBuf| std::path::absolute(path).ok());
    all.chain(linked).find(|path| is_it(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive() {
        let all: Vec<u8> = (0..=255).collect();
        let text = bytes(&all).to_string();
        assert_eq!(to_bytes(&serde_json::from_str(&text).unwrap()), Some(all));
        assert_eq!(to_bytes(&Value::from("\u{100}")), None);
        assert_eq!(to_path(&path(Path::new("/a b"))), Some("/a b".into()));
    }

    #[test]
    fn a_program_is_found_where_it_was_named() {
        let find = |first: &str, path: &str, place: &str| {
            find_program(OsStr::new(first), Some(OsStr::new(path)), |path| {
                path == Path::new(place)
            })
        };
        let here = std::env::current_dir().unwrap();
        let below = here.join("bin/tm");
        for (first, path, place) in [
            ("/opt/tm", "/bin", "/opt/tm"),
            ("tm", "/bin:/opt", "/opt/tm"),
            ("bin/tm", "/bin", below.to_str().unwrap()),
            ("./bin/tm", "", below.to_str().unwrap()),
            ("tm", "bin", below.to_str().unwrap()),
        ] {
            assert_eq!(find(first, path, place), Some(place.into()), "{first}");
        }
        assert_eq!(find("tm", "/bin", "/opt/tm"), None, "a shell may call it anything");
        let own = fs::read_link("/proc/self/exe").unwrap();
        assert_eq!(find("tm", "/bin", own.to_str().unwrap()), Some(own));
    }

    #[test]
    fn only_what_was_left_open_is_taken() {
        let file = File::open("/dev/null").unwrap();
        assert!(fd(&Value::from(file.as_raw_fd())).is_none(), "it is close-on-exec");
        for wrong in [Value::from(0), Value::from(-1), Value::from(1 << 20), Value::Null] {
            assert!(fd(&wrong).is_none(), "{wrong}");
        }
    }
}
