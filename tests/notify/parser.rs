//! The parser under whatever bytes there are. No socket is in this, so no process of its own.

use pidherd::notify::{Notice, ParseError, STATUS_MAX, parse};

const ROUNDS: u32 = 50_000;

const KEYS: &[&str] = &[
    "READY",
    "STOPPING",
    "RELOADING",
    "STATUS",
    "WATCHDOG",
    "WATCHDOG_USEC",
    "EXTEND_TIMEOUT_USEC",
    "MAINPID",
    "BARRIER",
    "FDSTORE",
    "",
];

/// What values are made of, and what spoils them.
const PIECES: &[&[u8]] = &[
    b"1",
    b"1",
    b"0",
    b"trigger",
    b"18446744073709551615",
    b"99",
    b"-",
    b"+",
    b" ",
    b"\t",
    b"=",
    b"\x1b[",
    b"\xff",
    b"\xc3",
    b"\x9f",
    "ß€😀".as_bytes(),
    b"\x7f",
    b"x",
];

/// Random messages, the same in every run.
struct Random(fastrand::Rng);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0.usize(..bound)
    }

    /// A message of a few lines, most of them assignments; the others, and some of the ends, are noise.
    fn message(&mut self) -> Vec<u8> {
        let mut message = Vec::new();
        for _ in 0..self.below(5) {
            if self.below(10) > 0 {
                message.extend(KEYS[self.below(KEYS.len())].as_bytes());
                message.push(b'=');
            }
            for _ in 0..self.below(4) {
                match self.below(20) {
                    0 => message.push(self.below(256) as u8),
                    1 => message.extend([b'y'; STATUS_MAX]),
                    _ => message.extend(PIECES[self.below(PIECES.len())]),
                }
            }
            message.push(if self.below(20) > 0 {
                b'\n'
            } else {
                self.below(256) as u8
            });
        }
        message
    }
}

/// What holds of every message.
fn check(message: &[u8]) {
    let all: Vec<_> = parse(message).collect();
    let lines = message.split(|byte| matches!(byte, b'\n' | b'\r')).count();
    assert!(all.len() <= lines, "{message:?}");
    for notice in all {
        match notice {
            Ok(Notice::Status(text)) => {
                assert!(text.len() <= STATUS_MAX, "{message:?}");
                assert!(text.chars().all(|c| c == '\t' || !c.is_control()), "{message:?}");
            }
            Ok(Notice::ExtendTimeout(time) | Notice::WatchdogEvery(time)) => {
                assert!(!time.is_zero(), "{message:?}");
            }
            Ok(_) | Err(_) => {}
        }
    }
}

#[test]
fn no_message_is_too_much_for_it() {
    let mut random = Random(fastrand::Rng::with_seed(0));
    let mut notices = 0;
    for _ in 0..ROUNDS {
        let message = random.message();
        check(&message);
        notices += parse(&message).filter(Result::is_ok).count();
    }
    assert!(notices > 10_000, "only {notices} notices: that is no test");
}

#[test]
fn two_messages_in_one_give_the_notices_of_both() {
    let whole = |garbage: &Result<Notice<'_>, ParseError>| matches!(garbage, Err(ParseError::Empty | ParseError::Nul));
    let mut random = Random(fastrand::Rng::with_seed(42));
    for _ in 0..ROUNDS {
        let (one, other) = (random.message(), random.message());
        if one.contains(&0) || other.contains(&0) {
            continue;
        }
        let joined = [&one[..], b"\n", &other].concat();
        let apart = parse(&one).chain(parse(&other)).filter(|notice| !whole(notice));
        assert!(parse(&joined).eq(apart), "{joined:?}");
    }
}

#[test]
fn all_noise_of_two_bytes_is_read() {
    for number in 0..=u16::MAX {
        check(&number.to_be_bytes());
    }
}
