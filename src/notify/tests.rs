//! Generated messages, against a second parser that works in another way: it is slow, and has the rules as a table.

use std::time::Duration;

use super::{Notice, ParseError, STATUS_MAX, is_barrier, parse};
use crate::random::Random;
use crate::testing::from_environment;

/// The number of messages of an ordinary run. It always makes the same ones; `ci/fuzz` makes others.
const INPUTS: u64 = 100_000;

const LINES: &[&str] = &[
    "READY=1",
    "RELOADING=1",
    "STOPPING=1",
    "WATCHDOG=1",
    "WATCHDOG=trigger",
    "WATCHDOG_USEC=20000000",
    "WATCHDOG_USEC=18446744073709551615",
    "EXTEND_TIMEOUT_USEC=1",
    "EXTEND_TIMEOUT_USEC=0",
    "MONOTONIC_USEC=007",
    "ERRNO=2",
    "ERRNO=4096",
    "STATUS=Serving \u{e9}\t=x",
    "STATUS=\u{1b}[2J",
    "MAINPID=77",
    "FDSTORE=1",
    "FDSTOREREMOVE=1",
    "FDNAME=web",
    "FDNAME=a:b",
    "FDPOLL=0",
    "BARRIER=1",
    "BUSERROR=x",
    "X_OWN=1",
    "READY",
    "=",
    "",
];

/// The numbers of a value, if it has nothing but digits.
fn digits(value: &str) -> Option<u128> {
    let all = value.chars().try_fold(0u128, |sum, digit| {
        let digit = digit.to_digit(10)?;
        Some(sum.saturating_mul(10).saturating_add(digit.into()))
    });
    all.filter(|_| !value.is_empty())
}

fn time(value: &str) -> Result<Duration, ParseError> {
    let valid = |micros: &u128| (1..u128::from(u64::MAX)).contains(micros);
    let micros = digits(value).filter(valid).ok_or(ParseError::Value)?;
    let second = 1_000_000;
    let (seconds, rest) = (micros / second, micros % second);
    Ok(Duration::new(
        seconds.try_into().unwrap(),
        u32::try_from(rest).unwrap() * 1_000,
    ))
}

/// The first characters of a text that fit into the longest status.
fn shortened(text: &str) -> &str {
    let ends = text.char_indices().map(|(at, symbol)| at + symbol.len_utf8());
    &text[..ends.take_while(|&end| end <= STATUS_MAX).last().unwrap_or(0)]
}

/// The meaning of a line, by a table of all that a line can be.
fn expected_of_line(line: &[u8]) -> Option<Result<Notice<'_>, ParseError>> {
    let Ok(text) = std::str::from_utf8(line) else {
        return Some(Err(ParseError::NotUtf8));
    };
    let exact = [
        ("READY=1", Notice::Ready),
        ("RELOADING=1", Notice::Reloading),
        ("STOPPING=1", Notice::Stopping),
        ("WATCHDOG=1", Notice::Watchdog),
        ("WATCHDOG=trigger", Notice::WatchdogTrigger),
        ("FDSTORE=1", Notice::StoreDescriptors),
        ("FDSTOREREMOVE=1", Notice::RemoveDescriptors),
        ("FDPOLL=0", Notice::NoPoll),
        ("BARRIER=1", Notice::Barrier),
    ];
    if let Some((_, notice)) = exact.iter().find(|(exact, _)| *exact == text) {
        return Some(Ok(*notice));
    }
    let value_of = |key: &str| text.strip_prefix(key)?.strip_prefix('=');
    if let Some(value) = value_of("EXTEND_TIMEOUT_USEC") {
        return Some(time(value).map(Notice::ExtendTimeout));
    }
    if let Some(value) = value_of("WATCHDOG_USEC") {
        return Some(time(value).map(Notice::WatchdogEvery));
    }
    if let Some(value) = value_of("MONOTONIC_USEC") {
        return Some(time(value).map(Notice::MonotonicTime));
    }
    if let Some(value) = value_of("ERRNO") {
        let number = digits(value).filter(|number| (1..4_096).contains(number));
        let notice = number.map(|number| Notice::Errno(number.try_into().unwrap()));
        return Some(notice.ok_or(ParseError::Value));
    }
    if let Some(value) = value_of("STATUS") {
        let has_controls = value.chars().any(|symbol| symbol != '\t' && symbol.is_control());
        return Some(match has_controls {
            true => Err(ParseError::Value),
            false => Ok(Notice::Status(shortened(value))),
        });
    }
    if let Some(value) = value_of("FDNAME") {
        let is_name = value.len() <= 255 && value.bytes().all(|byte| matches!(byte, 0x20..=0x39 | 0x3b..=0x7e));
        return Some(match is_name {
            true => Ok(Notice::DescriptorName(value)),
            false => Err(ParseError::DescriptorName),
        });
    }
    if value_of("MAINPID").is_some() {
        return Some(Ok(Notice::MainPidRefused));
    }
    match text.find('=') {
        None | Some(0) => Some(Err(ParseError::NotAnAssignment)),
        Some(_)
            if ["READY", "RELOADING", "STOPPING", "WATCHDOG"]
                .iter()
                .any(|key| value_of(key).is_some()) =>
        {
            Some(Err(ParseError::Value))
        }
        Some(_) => None,
    }
}

fn expected(message: &[u8]) -> Vec<Result<Notice<'_>, ParseError>> {
    let text = match message {
        [text @ .., 0] => text,
        text => text,
    };
    if text.is_empty() {
        return vec![Err(ParseError::Empty)];
    }
    if text.contains(&0) {
        return vec![Err(ParseError::Nul)];
    }
    let lines = text.split(|&byte| byte == b'\n' || byte == b'\r');
    lines
        .filter(|line| !line.is_empty())
        .filter_map(expected_of_line)
        .collect()
}

/// Lines that are joined, and damaged now and then.
fn message(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.below(6) {
        bytes.extend(LINES[random.below(LINES.len() as u64) as usize].as_bytes());
        if random.below(16) == 0 {
            // Near the longest name and the longest status.
            let length = [240, 500][random.below(2) as usize] + random.below(20) as usize;
            bytes.extend(["x", "\u{e9}"][random.below(2) as usize].repeat(length).bytes());
        }
        bytes.extend([&b"\n"[..], b"\n", b"\r\n", b"", b"\0"][random.below(5) as usize]);
    }
    for _ in 0..random.below(4) {
        let place = random.below(bytes.len() as u64 + 1) as usize;
        match random.below(4) {
            0 => bytes.truncate(place),
            1 => bytes.insert(place, random.below(256) as u8),
            2 => bytes.insert(place, b"=1\n\0:+ \xff"[random.below(8) as usize]),
            _ if place < bytes.len() => bytes[place] ^= 1 << random.below(8),
            _ => {}
        }
    }
    bytes
}

#[test]
fn two_parsers_agree_about_every_message() {
    let inputs = from_environment("PIDHERD_FUZZ_INPUTS").unwrap_or(INPUTS);
    let seed = from_environment("PIDHERD_FUZZ_SEED").unwrap_or(0);
    for number in 0..inputs {
        let message = message(&mut Random::new(seed.wrapping_add(number)));
        let seen: Vec<_> = parse(&message).collect();
        let shown = message.escape_ascii();
        assert_eq!(
            seen,
            expected(&message),
            "{shown}, of the seed {}",
            seed.wrapping_add(number)
        );
        assert_eq!(is_barrier(&message), seen.contains(&Ok(Notice::Barrier)), "{shown}");
    }
}
