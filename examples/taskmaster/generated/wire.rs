//! What clients of the server and event listeners send.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::{damage, for_each_input, in_pieces, pick};
use crate::http::{Header, LARGEST_BODY, LONGEST_HEADER};
use crate::listeners::{Protocol, Stage};
use crate::rpc::{Value, call, reply};

fn header(rng: &mut Rng) -> Vec<u8> {
    const FIRST: &[&str] = &[
        "POST /RPC2 HTTP/1.1",
        "GET /logtail/web HTTP/1.0",
        "GET /%61%2f?x#y HTTP/1.1",
        "PUT * HTTP/1.1",
        "GET /%zz HTTP/2",
        "\r\nPOST /RPC2 HTTP/1.1",
    ];
    const FIELDS: &[&str] = &[
        "Content-Length: 12",
        "Content-Length: 1048577",
        "content-length: 12",
        "Content-Length: +1",
        "Transfer-Encoding: chunked",
        "Connection: close",
        "Connection: keep-alive, x",
        "Expect: 100-continue",
        "Authorization: Basic YTpi",
        "Authorization: Basic ====",
        "Authorization: Bearer",
        "X: \u{e9}",
        "Host: a",
        ": b",
        " folded",
        "A:",
    ];
    let mut text = pick(rng, FIRST).to_owned();
    let end = pick(rng, &["\r\n", "\r\n", "\n"]);
    text.push_str(end);
    let fields = if rng.u8(..50) == 0 {
        rng.usize(..100)
    } else {
        rng.usize(..6)
    };
    for _ in 0..fields {
        text.push_str(pick(rng, FIELDS));
        text.push_str(end);
    }
    text.push_str(end);
    let mut bytes = text.into_bytes();
    if rng.bool() {
        damage(&mut bytes, rng);
    }
    bytes
}

#[test]
fn a_header_is_complete_at_one_place_only() {
    for_each_input(|rng| {
        let bytes = header(rng);
        let Ok(Some(header)) = Header::parse(&bytes) else {
            return;
        };
        assert!(header.size <= bytes.len().min(LONGEST_HEADER) && header.length <= LARGEST_BODY);
        let shorter = rng.usize(..header.size);
        assert_eq!(Header::parse(&bytes[..shorter]), Ok(None), "{shorter} of {bytes:?}");
        let mut longer = bytes[..header.size].to_vec();
        longer.extend((0..rng.usize(..20)).map(|_| rng.u8(..)));
        assert_eq!(Header::parse(&longer), Ok(Some(header)), "{longer:?}");
    });
}

fn text(rng: &mut Rng) -> String {
    const PIECES: &[&str] = &[
        "",
        "web",
        " ",
        "\r\n",
        "&lt;",
        "<b>",
        "]]>",
        "ß",
        "\u{0}",
        "\u{fffe}",
        "\u{1f600}",
        "\t",
    ];
    (0..rng.usize(..4)).map(|_| pick(rng, PIECES)).collect()
}

fn value(rng: &mut Rng, depth: u8) -> Value {
    match rng.u8(..if depth == 0 { 4 } else { 6 }) {
        0 => Value::Int(rng.i32(..).into()),
        1 => Value::Bool(rng.bool()),
        2 => Value::Text(text(rng)),
        3 => Value::Double(f64::from(rng.i32(..)) / 8.0),
        4 => {
            let count = rng.usize(..4);
            Value::Array((0..count).map(|_| value(rng, depth - 1)).collect())
        }
        _ => {
            let count = rng.usize(..4);
            let member = |_| (text(rng), value(rng, depth - 1));
            Value::Struct((0..count).map(member).collect())
        }
    }
}

/// The value without the characters that XML cannot contain.
fn representable(value: Value) -> Value {
    let text = |text: &str| text.replace(['\u{0}', '\u{fffe}'], "\u{fffd}");
    match value {
        Value::Text(inner) => Value::Text(text(&inner)),
        Value::Array(values) => Value::Array(values.into_iter().map(representable).collect()),
        Value::Struct(fields) => {
            let member = |(key, value): (String, Value)| (text(&key), representable(value));
            Value::Struct(fields.into_iter().map(member).collect::<BTreeMap<_, _>>())
        }
        other => other,
    }
}

#[test]
fn a_call_has_the_values_that_were_written() {
    for_each_input(|rng| {
        let written = value(rng, 3);
        let xml = String::from_utf8(reply(&Ok(written.clone()))).unwrap();
        let (head, tail) = ("<methodResponse>", "</methodResponse>");
        let begin = "<methodCall><methodName>x</methodName>";
        let mut xml = xml.replace(head, begin).replace(tail, "</methodCall>").into_bytes();
        assert_eq!(call(&xml), Some(("x".to_owned(), vec![representable(written)])));
        damage(&mut xml, rng);
        if let Some((name, params)) = call(&xml) {
            assert!(!name.is_empty() && params.len() <= xml.len());
        }
    });
}

#[test]
fn what_a_listener_says_does_not_depend_on_the_pieces_in_which_it_comes() {
    const PIECES: &[&str] = &[
        "READY\n",
        "RESULT 2\nOK",
        "RESULT 4\nFAIL",
        "RESULT 0\n",
        "RESULT 99999999999999999999\n",
        "RESULT -1\n",
        "RESULT",
        "\n",
        "OK",
        "x",
    ];
    for_each_input(|rng| {
        let mut bytes = Vec::new();
        for _ in 0..rng.usize(..8) {
            bytes.extend(pick(rng, PIECES).as_bytes());
        }
        if rng.u8(..4) == 0 {
            damage(&mut bytes, rng);
        }
        let stage = *pick(rng, &[&Stage::Acknowledged, &Stage::Ready, &Stage::Busy]);
        let mut whole = Protocol {
            stage,
            ..Protocol::default()
        };
        let mut parts = whole.clone();
        let expected = whole.feed(&bytes);
        let mut said = Vec::new();
        in_pieces(&bytes, rng, |piece| said.extend(parts.feed(piece)));
        assert_eq!(kinds(&said), kinds(&expected), "{stage:?} {bytes:?}");
        assert_eq!(parts.stage, whole.stage, "{stage:?} {bytes:?}");
        assert!(whole.line.len() <= 64, "{bytes:?}");
    });
}

/// What was said, without the text of a violation: it shows the bytes that were there.
fn kinds(said: &[crate::listeners::Said]) -> Vec<std::mem::Discriminant<crate::listeners::Said>> {
    said.iter().map(std::mem::discriminant).collect()
}
