//! Parts of log files, by supervisord's rules.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::fault::Fault;
use super::value::Value;
use crate::files;

/// The size of the largest part, in bytes. A client that wants more asks for the next part.
const LARGEST: u64 = 4 << 20;

/// Reads `length` bytes from `offset` on; 0 means all. A negative offset, with the length 0, counts from the end.
///
/// # Errors
/// The fault for the client.
pub fn read(path: Option<&Path>, offset: i64, length: i64) -> Result<Value, Fault> {
    let shown = path.map(|path| path.display().to_string()).unwrap_or_default();
    let path = path.filter(|path| path.exists()).ok_or_else(|| Fault::no_file(shown))?;
    if length < 0 || offset < 0 && length != 0 {
        return Err(Fault::bad_arguments(""));
    }
    let failed = |_| Fault::failed("");
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let from = match u64::try_from(offset) {
        Ok(offset) => offset,
        Err(_) => size.saturating_sub(offset.unsigned_abs()),
    };
    let wanted = match u64::try_from(length) {
        Ok(0) | Err(_) => size.saturating_sub(from),
        Ok(length) => length,
    };
    text(&file, from, wanted.min(LARGEST)).map(Value::from).map_err(failed)
}

/// Reads what follows `offset`, at most `length` bytes: the text, the next offset, and whether something was left out.
pub fn tail(path: Option<&Path>, offset: i64, length: i64) -> Value {
    let nothing = |offset| Value::Array(vec![Value::from(""), Value::Int(offset), Value::Bool(false)]);
    let Some(file) = path.and_then(|path| File::open(path).ok()) else {
        return nothing(0);
    };
    let Ok(size) = file
        .metadata()
        .map(|metadata| i64::try_from(metadata.len()).unwrap_or(i64::MAX))
    else {
        return nothing(offset);
    };
    let (mut from, mut length) = (offset, length);
    let overflow = size > from.saturating_add(length);
    if overflow {
        from = size - 1;
    }
    if from.saturating_add(length) > size {
        if from > size - 1 {
            length = 0;
        }
        from = size - length;
    }
    let length = u64::try_from(length).unwrap_or(0).min(LARGEST);
    match text(&file, u64::try_from(from).unwrap_or(0), length) {
        Ok(text) => Value::Array(vec![Value::from(text), Value::Int(size), Value::Bool(overflow)]),
        Err(_) => nothing(offset),
    }
}

/// The last `length` bytes of a log, at most as many as a client gets.
///
/// # Errors
/// The file cannot be read, or is not a regular file.
pub fn end(path: &Path, length: u64) -> io::Result<String> {
    let file = files::read_at_once(path)?;
    let length = length.min(LARGEST);
    let from = file.metadata()?.len().saturating_sub(length);
    text(&file, from, length)
}

fn text(file: &File, from: u64, length: u64) -> io::Result<String> {
    let size = file.metadata()?.len().saturating_sub(from).min(length);
    let mut bytes = vec![0; size.try_into().unwrap_or(0)];
    let mut read = 0;
    while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, from + read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    bytes.truncate(read);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_log_follow_supervisords_rules() {
        let path = std::env::temp_dir().join(format!("taskmaster-part-{}", std::process::id()));
        std::fs::write(&path, "0123456789").unwrap();
        let part = |offset, length| read(Some(&path), offset, length);
        assert_eq!(part(0, 0), Ok(Value::from("0123456789")));
        assert_eq!(part(3, 4), Ok(Value::from("3456")));
        assert_eq!(part(-3, 0), Ok(Value::from("789")));
        assert_eq!(part(-99, 0), Ok(Value::from("0123456789")));
        assert_eq!(part(99, 5), Ok(Value::from("")));
        assert_eq!(part(0, -1), Err(Fault::bad_arguments("")));
        assert_eq!(part(-1, 5), Err(Fault::bad_arguments("")));
        assert_eq!(read(Some(Path::new("/no/such")), 0, 0), Err(Fault::no_file("/no/such")));
        let follows = |text: &str, offset, overflow| {
            Value::Array(vec![Value::from(text), Value::Int(offset), Value::Bool(overflow)])
        };
        // supervisord's own results.
        assert_eq!(tail(Some(&path), 0, 10), follows("0123456789", 10, false));
        assert_eq!(tail(Some(&path), 0, 4), follows("6789", 10, true));
        assert_eq!(tail(Some(&path), 10, 4), follows("", 10, false));
        assert_eq!(tail(Some(&path), 8, 4), follows("6789", 10, false));
        assert_eq!(tail(None, 3, 4), follows("", 0, false));
        std::fs::remove_file(&path).unwrap();
    }
}
