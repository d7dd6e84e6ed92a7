//! What is typed at a terminal, and what programs write to their outputs. The result never depends on the pieces in
//! which the bytes come.

use fastrand::Rng;

use super::{damage, for_each_input, in_pieces, pick};
use crate::command::Command;
use crate::logs::{Capture, Piece, Strip};
use crate::term::{Key, Keys};

/// Random pieces from a list, joined and often damaged.
fn joined(rng: &mut Rng, pieces: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rng.usize(..10) {
        bytes.extend(pick(rng, pieces).as_bytes());
    }
    if rng.bool() {
        damage(&mut bytes, rng);
    }
    bytes
}

#[test]
fn keys_do_not_depend_on_the_pieces_in_which_their_bytes_come() {
    const PIECES: &[&str] = &[
        "a",
        "ß",
        "漢",
        "\r",
        "\t",
        "\x7f",
        "\x1b",
        "\x1b[A",
        "\x1b[1;5C",
        "\x1bOH",
        "\x1b[3~",
        "\x1bd",
        "\x1b[",
        "\x03",
        "\x12",
        "\x1b[200~x\x1b[201~",
        "\x1b[<0;1;1M",
        "\x1b[?1;2c",
        "\x1b[97;5u",
        "\x1bP1$r\x1b\\",
    ];
    let next = |keys: &mut Keys| std::iter::from_fn(|| keys.next()).collect::<Vec<Key>>();
    for_each_input(|rng| {
        let bytes = joined(rng, PIECES);
        let mut whole = Keys::default();
        whole.feed(&bytes);
        let expected = next(&mut whole);
        assert!(expected.len() <= bytes.len());
        let mut parts = Keys::default();
        let mut seen = Vec::new();
        in_pieces(&bytes, rng, |piece| {
            parts.feed(piece);
            seen.extend(next(&mut parts));
        });
        assert_eq!(seen, expected, "{bytes:?}");
        assert_eq!(parts.hand_over(), whole.hand_over(), "{bytes:?}");
    });
}

#[test]
fn the_blanks_around_a_command_have_no_meaning() {
    const WORDS: &[&str] = &[
        "status",
        "start",
        "stop",
        "restart",
        "signal",
        "scale",
        "tail",
        "maintail",
        "help",
        "web:*",
        "all",
        "web",
        "HUP",
        "9",
        "-f",
        "-100",
        "stderr",
        "3",
        "-1",
        "99999999999",
        "quit",
        "reread",
        "statsu",
        "ß",
        "pid",
        "--",
        "*",
        ":",
    ];
    for_each_input(|rng| {
        let words: Vec<&str> = (0..rng.usize(..6)).map(|_| pick(rng, WORDS)).collect();
        let mut line = words.join(" ").into_bytes();
        if rng.u8(..4) == 0 {
            damage(&mut line, rng);
        }
        let line = String::from_utf8_lossy(&line);
        let parsed = Command::parse(&line);
        assert_eq!(Command::parse(&format!(" \t{line}  ")), parsed, "{line:?}");
        let blank = line.split_whitespace().next().is_none();
        assert_eq!(parsed == Ok(None), blank, "{line:?}");
        if let Err(message) = parsed {
            assert!(!message.is_empty() && !message.contains('\n'), "{line:?}: {message:?}");
        }
    });
}

#[test]
fn an_output_without_its_escapes_does_not_depend_on_its_pieces() {
    const PIECES: &[&str] = &[
        "text",
        "\x1b[1;31m",
        "\x1b[0m",
        "\x1b]0;title\x07",
        "\x1b]8;;x\x1b\\",
        "\x1b",
        "[",
        "]",
        "ß\n",
        "\x07",
        "\\",
    ];
    for_each_input(|rng| {
        let bytes = joined(rng, PIECES);
        let (mut whole, mut state) = (bytes.clone(), Strip::default());
        state.strip(&mut whole);
        assert!(!whole.contains(&0x1b), "{bytes:?}");
        let (mut parts, mut part_state) = (Vec::new(), Strip::default());
        in_pieces(&bytes, rng, |piece| {
            let mut piece = piece.to_vec();
            part_state.strip(&mut piece);
            parts.extend(piece);
        });
        assert_eq!((parts, part_state), (whole, state), "{bytes:?}");
        if !bytes.contains(&0x1b) {
            assert_eq!(state, Strip::Text);
        }
    });
}

#[test]
fn a_capture_does_not_depend_on_the_pieces_of_the_output() {
    const PIECES: &[&str] = &[
        "text",
        "<",
        "<!--",
        "<!--XSUPERVISOR:",
        "<!--XSUPERVISOR:BEGIN-->",
        "<!--XSUPERVISOR:END-->",
        "END-->",
        "\n",
    ];
    /// The log, and the complete captures.
    #[derive(Debug, Default, PartialEq)]
    struct Found {
        log: Vec<u8>,
        complete: Vec<Vec<u8>>,
    }
    impl Found {
        fn take(&mut self, piece: Piece<'_>) {
            match piece {
                Piece::Plain(plain) => self.log.extend(plain),
                Piece::Captured(_) => {}
                Piece::Complete(all) => self.complete.push(all.to_vec()),
            }
        }
    }
    for_each_input(|rng| {
        let bytes = joined(rng, PIECES);
        let most = pick(rng, &[&0usize, &5, &1_000]);
        let (mut whole, mut capture) = (Found::default(), Capture::default());
        capture.feed(&bytes, *most, |piece| whole.take(piece));
        capture.finish(|piece| whole.take(piece));
        let (mut parts, mut capture) = (Found::default(), Capture::default());
        in_pieces(&bytes, rng, |piece| {
            capture.feed(piece, *most, |piece| parts.take(piece))
        });
        assert!(capture.held.len() <= *most && capture.tail.len() < 64, "{bytes:?}");
        capture.finish(|piece| parts.take(piece));
        assert_eq!(parts, whole, "{bytes:?}");
        assert!(whole.complete.iter().all(|capture| capture.len() <= *most), "{bytes:?}");
    });
}
