//! Parses single values: the text after a `=` becomes plain data, or a clause that describes the mistake. The caller
//! adds the section and the key to the message.
//!
//! Numbers follow Python's rules, as in supervisord. `1_000` is a number. A number may be negative even where that
//! makes no sense. supervisord then behaves as for 0, and so do these functions.

use std::path::PathBuf;
use std::time::Duration;

use pidherd::signal::Signal;

use super::words;

/// The largest number of instances of a program. A larger number is probably a mistake.
pub const MOST_INSTANCES: u32 = 100_000;

/// The beginnings of the names of files in a cgroup.
const CONTROLLERS: [&str; 9] = [
    "cgroup.", "cpu.", "cpuset.", "dmem.", "hugetlb.", "io.", "memory.", "misc.", "pids.",
];

/// The condition for a restart after an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoRestart {
    /// Restart after every exit.
    Always,
    /// Restart unless the exit code is in `exitcodes`.
    Unexpected,
    /// Never restart.
    Never,
}

/// Parses `true`, `false` and their other spellings.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// Parses a whole number by Python's rules: a sign, digits, and single underscores between digits. A number that is
/// too large for the type becomes the type's largest value.
pub fn integer(text: &str) -> Result<i64, String> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits.split('_').all(is_number) {
        return Err("expected a whole number".to_owned());
    }
    let number = digits.replace('_', "").parse().unwrap_or(i64::MAX);
    Ok(if negative { -number } else { number })
}

/// Parses a number of bytes, with supervisord's units: `KB`, `MB` and `GB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let units = [("kb", 10), ("mb", 20), ("gb", 30)];
    let unit = units
        .iter()
        .find_map(|(unit, shift)| Some((lower.strip_suffix(unit)?, *shift)));
    let (number, shift) = unit.unwrap_or((&lower, 0));
    let number = integer(number).map_err(|_| "expected a number of bytes, such as 50MB".to_owned())?;
    Ok(u64::try_from(number).unwrap_or(0).saturating_mul(1 << shift))
}

/// Parses a whole number that is not negative and fits the type.
pub fn count(text: &str) -> Result<u32, String> {
    match integer(text)? {
        number @ ..=-1 => Err(format!("must not be negative, and {number} is")),
        number => u32::try_from(number).map_err(|_| format!("must not be larger than {}", u32::MAX)),
    }
}

/// Parses a whole number. A negative number becomes 0, and one that is too large becomes the largest value.
pub fn count_from_zero(text: &str) -> Result<u32, String> {
    Ok(u32::try_from(integer(text)?.max(0)).unwrap_or(u32::MAX))
}

/// Parses whole seconds by the rules of [`count_from_zero`].
pub fn seconds(text: &str) -> Result<Duration, String> {
    count_from_zero(text).map(|seconds| Duration::from_secs(seconds.into()))
}

/// Parses the least value of a resource limit.
pub fn limit(text: &str) -> Result<u64, String> {
    Ok(integer(text)?.max(0).unsigned_abs())
}

/// Parses a number of instances, at most [`MOST_INSTANCES`]. A negative number becomes 0.
pub fn instances(text: &str) -> Result<u32, String> {
    match count_from_zero(text)? {
        number @ 0..=MOST_INSTANCES => Ok(number),
        _ => Err(format!("must not be larger than {}", MOST_INSTANCES)),
    }
}

/// Parses the number of the first instance. It may be negative.
pub fn first_instance(text: &str) -> Result<i64, String> {
    const WITHIN: std::ops::RangeInclusive<i64> = -(u32::MAX as i64)..=u32::MAX as i64;
    let number = integer(text)?;
    match WITHIN.contains(&number) {
        true => Ok(number),
        false => Err(format!("must be from {} to {}", WITHIN.start(), WITHIN.end())),
    }
}

/// Parses a priority. It may be negative.
pub fn priority(text: &str) -> Result<i32, String> {
    let within = integer(text)?.clamp(i32::MIN.into(), i32::MAX.into());
    Ok(i32::try_from(within).unwrap_or_default())
}

/// Parses `true`, `false` or `unexpected`.
pub fn autorestart(text: &str) -> Result<AutoRestart, String> {
    if text.eq_ignore_ascii_case("unexpected") {
        return Ok(AutoRestart::Unexpected);
    }
    match boolean(text) {
        Ok(true) => Ok(AutoRestart::Always),
        Ok(false) => Ok(AutoRestart::Never),
        Err(_) => Err("expected true, false or unexpected".to_owned()),
    }
}

/// Parses an absolute path.
pub fn absolute(text: &str) -> Result<PathBuf, String> {
    match PathBuf::from(text) {
        path if path.is_absolute() => Ok(path),
        _ => Err("must be an absolute path".to_owned()),
    }
}

/// Parses a list of exit codes. An empty list means that no exit is expected.
pub fn exit_codes(text: &str) -> Result<Vec<u8>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let code = |part: &str| u8::try_from(integer(part).ok()?).ok();
    let codes: Option<Vec<u8>> = text.split(',').map(code).collect();
    codes.ok_or_else(|| "expected exit codes from 0 to 255, separated by commas".to_owned())
}

/// Parses the name or the number of a signal.
pub fn signal(text: &str) -> Result<Signal, String> {
    text.parse::<Signal>().map_err(|error| error.to_string())
}

/// Parses a file mode mask in octal.
pub fn umask(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = digits.bytes().all(|byte| byte.is_ascii_digit());
    match u32::from_str_radix(digits, 8) {
        Ok(mask @ 0..=0o777) if octal => Ok(mask),
        _ => Err("expected an octal number from 0 to 777".to_owned()),
    }
}

/// Parses the name of a program, group or process. A name that would make a NAME ambiguous is refused.
pub fn name(text: &str) -> Result<String, String> {
    let name = text.trim();
    let bad = |symbol: char| symbol.is_whitespace() || symbol.is_control() || matches!(symbol, ':' | '/');
    match name {
        "" => Err("a name is missing".to_owned()),
        "*" => Err("\"*\" cannot be a name, because it means several processes".to_owned()),
        _ if name.contains(bad) => Err(format!("{name:?} can't be a name: no spaces, colons, slashes")),
        _ => Ok(name.to_owned()),
    }
}

/// Parses names that are separated by commas. The list may be empty.
pub fn names(text: &str) -> Result<Vec<String>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(name).collect()
}

/// Parses the words of a command.
pub fn command(text: &str) -> Result<Vec<String>, String> {
    match words::split(text)? {
        words if words.is_empty() => Err("the command is empty".to_owned()),
        words if words.first().is_some_and(String::is_empty) => Err("the program's name is empty".to_owned()),
        words => Ok(words),
    }
}

/// Whether a key is the name of a file in a cgroup.
pub fn is_cgroup_file(key: &str) -> bool {
    CONTROLLERS.iter().any(|controller| key.starts_with(controller))
}

/// A message about the failed expansion of a value that may contain a password. It includes the name of a missing
/// variable. Other parts of `message` are omitted, because they could be a part of the password.
pub fn discreet(message: &str) -> String {
    let is_variable = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let missing = message
        .strip_prefix("%(ENV_")
        .and_then(|rest| rest.split_once(')'))
        .filter(|(name, rest)| is_variable(name) && rest.starts_with("s: the environment has no "));
    match missing {
        Some((name, _)) => format!("%(ENV_{name})s: the environment has no {name}"),
        None => "a \"%\" in the value cannot be expanded: write \"%%\" for a percent sign".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans() {
        for text in ["true", "Yes", "ON", "1"] {
            assert_eq!(boolean(text), Ok(true));
        }
        for text in ["false", "No", "OFF", "0"] {
            assert_eq!(boolean(text), Ok(false));
        }
        for text in ["", "2", "maybe", "true false"] {
            assert!(boolean(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(count("0"), Ok(0));
        assert_eq!(count(" +1_000 "), Ok(1000));
        assert_eq!(count("4294967295"), Ok(u32::MAX));
        for text in [
            "-1",
            "",
            "x",
            "1.5",
            "1 2",
            "0x1",
            "1__0",
            "_1",
            "1_",
            "--1",
            "4294967296",
        ] {
            assert!(count(text).is_err(), "{text}");
        }
        assert!(count("-3").unwrap_err().contains("negative"));
        assert_eq!(priority("-1"), Ok(-1));
        assert_eq!(priority("99999999999999999999999999"), Ok(i32::MAX));
        assert!(priority("high").is_err());
        assert_eq!(seconds("10"), Ok(Duration::from_secs(10)));
        assert_eq!((limit("1024"), limit("-1")), (Ok(1024), Ok(0)));
    }

    #[test]
    fn sizes_have_units() {
        for (text, size) in [
            ("0", 0),
            ("1024", 1024),
            ("50MB", 50 << 20),
            (" 3 kb", 3072),
            ("1Gb", 1 << 30),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        assert_eq!(bytes("-5"), Ok(0));
        for text in ["", "MB", "1.5MB", "5TB", "x"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_negative_number_means_zero() {
        assert_eq!((seconds("-1"), count_from_zero("-9")), (Ok(Duration::ZERO), Ok(0)));
        assert_eq!(count_from_zero("99999999999"), Ok(u32::MAX));
        assert_eq!((instances("1"), instances("0"), instances("-2")), (Ok(1), Ok(0), Ok(0)));
        assert!(instances("4000000000").unwrap_err().contains("larger"));
        assert_eq!((first_instance("-1"), first_instance("7")), (Ok(-1), Ok(7)));
        assert!(first_instance("99999999999").is_err());
    }

    #[test]
    fn restarts_codes_signals_and_masks_are_parsed() {
        assert_eq!(autorestart("Unexpected"), Ok(AutoRestart::Unexpected));
        assert_eq!(autorestart("true"), Ok(AutoRestart::Always));
        assert_eq!(autorestart("off"), Ok(AutoRestart::Never));
        assert!(autorestart("often").is_err());
        assert_eq!(exit_codes("0, 3,255"), Ok(vec![0, 3, 255]));
        assert_eq!(exit_codes(""), Ok(vec![]));
        for text in ["256", "-1", "0,,1", "x", "0;1"] {
            assert!(exit_codes(text).is_err(), "{text}");
        }
        assert_eq!(signal("SIGUSR1"), Ok(Signal::USR1));
        assert!(signal("NOPE").unwrap_err().contains("NOPE"));
        assert_eq!(umask("022"), Ok(0o022));
        assert_eq!(umask("0o777"), Ok(0o777));
        for text in ["", "8", "1000", "-22", "+22", "rwx"] {
            assert!(umask(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_absolute_paths_are_accepted() {
        assert_eq!(absolute("/x"), Ok("/x".into()));
        assert!(absolute("x").is_err() && absolute("").is_err());
    }

    #[test]
    fn names_are_unambiguous() {
        for text in [" web-1.x_y ", "web[1]", "all"] {
            assert_eq!(name(text), Ok(text.trim().to_owned()));
        }
        for text in ["", " ", "a b", "a:b", "a/b", "*", "a\0b", "a\nb"] {
            assert!(name(text).is_err(), "{text:?}");
        }
        assert_eq!(names("a, b,"), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(names(" , "), Ok(vec![]));
        assert!(names("a,b c").is_err());
    }

    #[test]
    fn commands() {
        assert_eq!(command("/bin/sh -c 'a; b'").unwrap(), ["/bin/sh", "-c", "a; b"]);
        for text in ["", "  \n", "''", "a 'b"] {
            assert!(command(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_discreet_message_repeats_no_value() {
        let missing = "%(ENV_NOPE)s: the environment has no NOPE";
        assert_eq!(discreet(missing), missing);
        for message in [
            "%(hunter2)s is not known here (but here and ENV_... are)",
            "%(ENV_hun ter2)s: the environment has no hun ter2",
            "%(hunter2) must be followed by \"s\" or \"d\", or by a width and one of them",
        ] {
            assert!(!discreet(message).contains("ter2"), "{message}");
        }
    }

    #[test]
    fn only_names_of_controllers_are_files() {
        assert!(
            is_cgroup_file("memory.max") && is_cgroup_file("cgroup.max.depth") && is_cgroup_file("hugetlb.2MB.max")
        );
        assert!(!is_cgroup_file("memory") && !is_cgroup_file("x.y") && !is_cgroup_file("memory_max"));
    }
}
