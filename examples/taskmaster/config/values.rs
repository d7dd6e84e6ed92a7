//! What single values mean: from the text behind a `=` to plain data, or one clause that says what
//! is wrong with it. Nothing here knows sections or keys; who calls adds those to the message.

use std::path::PathBuf;
use std::time::Duration;

use pidherd::signal::Signal;

use super::{AutoRestart, Log, Readiness};

/// `true`, `false` and their other spellings.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// A whole number that is not negative.
pub fn count(text: &str) -> Result<u32, String> {
    match text.trim().parse::<i128>() {
        Ok(number @ ..=-1) => Err(format!("must not be negative, and {number} is")),
        Ok(number) => u32::try_from(number).map_err(|_| format!("must not be larger than {}", u32::MAX)),
        Err(_) => Err("expected a whole number".to_owned()),
    }
}

/// A number of instances: at least one, and no more than anybody means.
pub fn instances(text: &str) -> Result<u32, String> {
    match count(text)? {
        0 => Err("must be at least 1".to_owned()),
        number @ 1..=super::MOST_INSTANCES => Ok(number),
        _ => Err(format!("must not be larger than {}", super::MOST_INSTANCES)),
    }
}

/// Whole seconds.
pub fn seconds(text: &str) -> Result<Duration, String> {
    count(text).map(|seconds| Duration::from_secs(seconds.into()))
}

/// A priority; may be negative.
pub fn priority(text: &str) -> Result<i32, String> {
    text.trim().parse().map_err(|_| "expected a whole number".to_owned())
}

/// `true`, `false` or `unexpected`.
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

/// The numbers a readiness descriptor may have: none of the standard streams, and within everybody's limits.
const READY_FDS: std::ops::RangeInclusive<i32> = 3..=255;

/// `grace`, `notify` or `fd:N`.
pub fn readiness(text: &str) -> Result<Readiness, String> {
    match (text, text.strip_prefix("fd:").map(str::parse)) {
        ("grace", _) => Ok(Readiness::Grace),
        ("notify", _) => Ok(Readiness::Notify),
        (_, Some(Ok(number))) if READY_FDS.contains(&number) => Ok(Readiness::Fd(number)),
        (_, Some(_)) => Err(format!(
            "expected a descriptor from {} to {}",
            READY_FDS.start(),
            READY_FDS.end()
        )),
        (_, None) => Err("expected grace, notify or fd:N".to_owned()),
    }
}

/// A path from the root.
pub fn absolute(text: &str) -> Result<PathBuf, String> {
    match PathBuf::from(text) {
        path if path.is_absolute() => Ok(path),
        _ => Err("must be an absolute path".to_owned()),
    }
}

/// A list of exit codes; empty if none is expected.
pub fn exit_codes(text: &str) -> Result<Vec<u8>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let code = |part: &str| part.trim().parse::<u8>();
    let codes: Result<Vec<u8>, _> = text.split(',').map(code).collect();
    codes.map_err(|_| "expected exit codes from 0 to 255, with commas between".to_owned())
}

/// A signal by name or number.
pub fn signal(text: &str) -> Result<Signal, String> {
    text.parse::<Signal>().map_err(|error| error.to_string())
}

/// A file mode mask, in octal.
pub fn umask(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = digits.bytes().all(|byte| byte.is_ascii_digit());
    match u32::from_str_radix(digits, 8) {
        Ok(mask @ 0..=0o777) if octal => Ok(mask),
        _ => Err("expected an octal number from 0 to 777".to_owned()),
    }
}

/// A name of a program, group or process. What would make a NAME on the command line mean two
/// things is refused.
pub fn name(text: &str) -> Result<String, String> {
    let name = text.trim();
    let bad = |symbol: char| symbol.is_whitespace() || symbol.is_control() || matches!(symbol, ':' | '/' | '[' | ']');
    match name {
        "" => Err("a name is missing".to_owned()),
        "all" | "*" => Err(format!("{name:?} can't be a name, it means more than one process")),
        _ if name.contains(bad) => Err(format!(
            "{name:?} can't be a name: no spaces, colons, slashes, brackets"
        )),
        _ => Ok(name.to_owned()),
    }
}

/// Names with commas between.
pub fn names(text: &str) -> Result<Vec<String>, String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        Err("expected at least one name".to_owned())
    } else {
        parts.into_iter().map(name).collect()
    }
}

/// The words of a command, split as a shell splits them.
pub fn words(text: &str) -> Result<Vec<String>, String> {
    match shell_words::split(text) {
        Ok(words) if words.is_empty() => Err("the command is empty".to_owned()),
        Ok(words) if words.first().is_some_and(String::is_empty) => Err("the program's name is empty".to_owned()),
        Ok(words) => Ok(words),
        Err(_) => Err("a quote is not closed".to_owned()),
    }
}

/// Where output goes. `inherits` is the standard stream that the taskmaster would pass on.
pub fn log(text: &str, inherits: &[&str]) -> Log {
    match text.to_ascii_lowercase().as_str() {
        "" | "none" | "off" | "auto" => Log::Discard,
        _ if inherits.contains(&text) => Log::Inherit,
        _ => Log::File(text.into()),
    }
}

/// `KEY="value",OTHER=value`: the values may be quoted, and must be where they hold a comma or a space.
pub fn environment(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest
            .split_once('=')
            .ok_or_else(|| format!("expected KEY=value at {rest:?}"))?;
        let key = key.trim_end();
        if key.is_empty() || key.contains(|c: char| c.is_whitespace() || matches!(c, ',' | '"' | '\'')) {
            return Err(format!("{key:?} can't be the name of a variable"));
        }
        let (value, after) = variable_value(after.trim_start())?;
        pairs.retain(|(known, _)| known != key);
        pairs.push((key.to_owned(), value.to_owned()));
        rest = match after.trim_start() {
            "" => "",
            after => after
                .strip_prefix(',')
                .ok_or_else(|| format!("expected a comma at {after:?}"))?
                .trim_start(),
        };
    }
    Ok(pairs)
}

/// One value, and what follows it.
fn variable_value(text: &str) -> Result<(&str, &str), String> {
    for quote in ['"', '\''] {
        if let Some(quoted) = text.strip_prefix(quote) {
            return quoted
                .split_once(quote)
                .ok_or_else(|| format!("the quote at {text:?} is not closed"));
        }
    }
    let end = text.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(text.len());
    Ok(text.split_at(end))
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
        assert_eq!(count("4294967295"), Ok(u32::MAX));
        for text in [
            "-1",
            "",
            "x",
            "1.5",
            "1 2",
            "4294967296",
            "99999999999999999999999999999999999999999999",
        ] {
            assert!(count(text).is_err(), "{text}");
        }
        assert!(count("-3").unwrap_err().contains("negative"));
        assert_eq!(instances("1"), Ok(1));
        assert!(instances("0").unwrap_err().contains("at least 1"));
        assert!(instances("4000000000").unwrap_err().contains("larger"));
        assert_eq!(priority("-1"), Ok(-1));
        assert!(priority("high").is_err());
        assert_eq!(seconds("10"), Ok(Duration::from_secs(10)));
    }

    #[test]
    fn restarts_codes_signals_masks() {
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
    fn ways_to_be_ready() {
        assert_eq!(readiness("grace"), Ok(Readiness::Grace));
        assert_eq!(readiness("notify"), Ok(Readiness::Notify));
        assert_eq!(readiness("fd:3"), Ok(Readiness::Fd(3)));
        assert_eq!(readiness("fd:255"), Ok(Readiness::Fd(255)));
        for text in [
            "",
            "Notify",
            "fd",
            "fd:",
            "fd:2",
            "fd:-1",
            "fd:256",
            "fd:x",
            "fd:99999999999",
            "3",
        ] {
            assert!(readiness(text).is_err(), "{text}");
        }
        assert!(readiness("fd:1").unwrap_err().contains("from 3 to 255"));
        assert_eq!(absolute("/x"), Ok("/x".into()));
        assert!(absolute("x").is_err() && absolute("").is_err());
    }

    #[test]
    fn names_are_unambiguous() {
        assert_eq!(name(" web-1.x_y "), Ok("web-1.x_y".to_owned()));
        for text in ["", " ", "a b", "a:b", "a/b", "a]", "all", "*", "a\0b", "a\nb"] {
            assert!(name(text).is_err(), "{text:?}");
        }
        assert_eq!(names("a, b,"), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert!(names(" , ").is_err());
    }

    #[test]
    fn words_as_in_a_shell() {
        assert_eq!(
            words("/bin/sh -c 'a; b' \"c d\" e\\ f"),
            Ok(["/bin/sh", "-c", "a; b", "c d", "e f"].map(str::to_owned).to_vec())
        );
        for text in ["", "  \n", "''", "a 'b"] {
            assert!(words(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn logs() {
        for text in ["", "NONE", "none", "AUTO", "off"] {
            assert_eq!(log(text, &[]), Log::Discard, "{text}");
        }
        assert_eq!(log("/dev/stdout", &["/dev/stdout"]), Log::Inherit);
        assert_eq!(log("/var/log/x", &["/dev/stdout"]), Log::File("/var/log/x".into()));
    }

    #[test]
    fn environments() {
        let read = |text: &str| -> Vec<String> {
            environment(text)
                .unwrap()
                .into_iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect()
        };
        assert_eq!(read("A=\"1,2\", B='x y' ,C=z,"), ["A=1,2", "B=x y", "C=z"]);
        assert_eq!(read("A=1,\nB=2"), ["A=1", "B=2"]);
        assert_eq!(read("A=,B=\"\",C=a=b"), ["A=", "B=", "C=a=b"]);
        assert_eq!(read("A=1,B=2,A=3"), ["B=2", "A=3"]);
        assert!(read("").is_empty());
        for text in ["A", "=1", "A=1 B=2", "A=\"1", "A B=1", ",A=1", "A=\"1\"x"] {
            assert!(environment(text).is_err(), "{text}");
        }
    }
}
