//! Reads the header of a request.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::Login;

/// The size of the longest header, in bytes.
pub const LONGEST_HEADER: usize = 16 << 10;
/// The size of the largest body, in bytes.
pub const LARGEST_BODY: usize = 1 << 20;
/// The number of fields in a header.
const MOST_FIELDS: usize = 64;

/// The parts of a header that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The size of the header, in bytes.
    pub size: usize,
    /// `GET`, `POST` and so on.
    pub method: String,
    /// The path of the URL, without its query.
    pub path: String,
    /// Whether the client speaks HTTP/1.1.
    pub is_1_1: bool,
    /// Whether the connection stays open after the reply.
    pub keep_alive: bool,
    /// The size of the body, in bytes.
    pub length: usize,
    /// Whether the client waits for a word before it sends the body.
    pub expects: bool,
    /// The value of `Authorization`.
    authorization: Option<String>,
}

/// The status of a request that is refused.
pub type Refusal = u16;

impl Header {
    /// Parses the beginning of `bytes`. Returns `None` if the header is not complete.
    ///
    /// # Errors
    /// The status for the client.
    pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Refusal> {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        let size = match request.parse(bytes) {
            Ok(httparse::Status::Complete(size)) if size <= LONGEST_HEADER => size,
            Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEADER => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(431),
            Err(_) => return Err(400),
        };
        let url = request.path.unwrap_or_default();
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let is_1_1 = request.version == Some(1);
        let mut header = Header {
            size,
            method: request.method.unwrap_or_default().to_owned(),
            path: unquoted(path).ok_or(400u16)?,
            is_1_1,
            keep_alive: is_1_1,
            ..Header::default()
        };
        let mut length = None;
        for field in request.headers.iter() {
            let value = std::str::from_utf8(field.value).map_err(|_| 400u16)?.trim();
            match field.name.to_ascii_lowercase().as_str() {
                "content-length" => {
                    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                    // Two different lengths are an attack (RFC 9112, 6.3).
                    if !digits || length.is_some_and(|before: String| before != value) {
                        return Err(400);
                    }
                    length = Some(value.to_owned());
                }
                "transfer-encoding" => return Err(411),
                "connection" => header.keep_alive = keeps(value, is_1_1),
                "expect" => header.expects = value.eq_ignore_ascii_case("100-continue"),
                "authorization" => header.authorization = Some(value.to_owned()),
                _ => {}
            }
        }
        header.length = match length.map(|length| length.parse::<usize>()) {
            None => 0,
            Some(Ok(length)) if length <= LARGEST_BODY => length,
            Some(_) => return Err(413),
        };
        Ok(Some(header))
    }

    /// Whether the client has given the name and the password.
    pub fn is_authorized(&self, login: &Login) -> bool {
        let given = self.authorization.as_deref().and_then(credentials);
        let Some((username, password)) = given else {
            return false;
        };
        let password = match login.password.strip_prefix("{SHA}") {
            Some(digest) => {
                let given = sha1_smol::Sha1::from(password).digest().to_string();
                is_equal(&given, &digest.to_ascii_lowercase())
            }
            None => is_equal(&password, &login.password),
        };
        // Both are compared, so that the time tells nothing about the name.
        is_equal(&username, &login.username) & password
    }
}

/// Whether the connection stays open.
fn keeps(value: &str, is_1_1: bool) -> bool {
    let has = |wanted: &str| value.split(',').any(|word| word.trim().eq_ignore_ascii_case(wanted));
    !has("close") && (is_1_1 || has("keep-alive"))
}

/// The name and the password of `Basic ...` (RFC 7617).
fn credentials(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some((username.to_owned(), password.to_owned()))
}

/// Compares in a time that depends only on the lengths.
fn is_equal(a: &str, b: &str) -> bool {
    let differ = a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b));
    a.len() == b.len() && differ == 0
}

/// Decodes `%2F` and its like. `None` if the result is not UTF-8.
fn unquoted(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let quoted = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match quoted.filter(|_| byte == b'%') {
            Some(quoted) => {
                bytes.push(quoted);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<Header>, Refusal> {
        Header::parse(text.as_bytes())
    }

    #[test]
    fn a_header_may_come_in_pieces() {
        let whole = "POST /RPC2?x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
        let end = whole.len() - 5;
        for cut in 0..end {
            assert_eq!(parse(&whole[..cut]), Ok(None), "{cut}");
        }
        let header = parse(whole).unwrap().unwrap();
        assert_eq!((header.size, header.length, header.path.as_str()), (end, 5, "/RPC2"));
        assert!(header.keep_alive && header.is_1_1);
        assert!(!parse("GET / HTTP/1.0\r\n\r\n").unwrap().unwrap().keep_alive);
        let asked = "GET /a%20b HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n";
        let header = parse(asked).unwrap().unwrap();
        assert!(header.keep_alive && header.path == "/a b");
    }

    #[test]
    fn a_bad_header_has_a_status() {
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(LONGEST_HEADER));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
        for (text, status) in [
            ("\x16\x03\x01\x02", 400),
            ("GET / HTTP/9.9\r\n\r\n", 400),
            ("GET /%ff HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 413),
            ("GET / HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n", 413),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
            (&long, 431),
            (&long[..LONGEST_HEADER], 431),
            (&many, 431),
        ] {
            assert_eq!(parse(text), Err(status), "{text:.60}");
        }
    }

    #[test]
    fn a_name_and_a_password_are_compared() {
        let login = |password: &str| Login {
            username: "u".to_owned(),
            password: password.to_owned(),
        };
        let with = |value: &str| {
            let text = format!("GET / HTTP/1.1\r\nAuthorization: {value}\r\n\r\n");
            parse(&text).unwrap().unwrap()
        };
        // "u:secret"
        let right = with("Basic dTpzZWNyZXQ=");
        assert!(right.is_authorized(&login("secret")));
        assert!(right.is_authorized(&login("{SHA}e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4")));
        assert!(!right.is_authorized(&login("{SHA}e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f5")));
        assert!(!right.is_authorized(&login("secreT")) && !right.is_authorized(&login("")));
        for wrong in [
            "",
            "Basic",
            "Basic !!",
            "Basic dTpzZWNyZXQ",
            "Digest x",
            "Basic dXNlY3JldA==",
        ] {
            assert!(!with(wrong).is_authorized(&login("secret")), "{wrong}");
        }
    }
}
