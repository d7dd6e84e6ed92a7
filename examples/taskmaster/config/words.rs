//! Splits a command into words by the rules of Python's `shlex.split`, as supervisord does.
//!
//! The rules are close to those of a shell, with three differences: `#` is an ordinary character, a backslash before
//! a newline yields the newline, and within double quotes a backslash escapes only `"` and `\`. The crate shell-words
//! was rejected, because it follows the shell in all three.

/// The context of the next character.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Outside of quotes.
    Plain,
    /// After a backslash outside of quotes.
    Escaped,
    /// Within single quotes.
    Single,
    /// Within double quotes.
    Double,
    /// After a backslash within double quotes.
    DoubleEscaped,
}

/// Splits `text` into words. An empty text has none.
///
/// # Errors
/// A quote is not closed, or no character follows a backslash.
pub fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    // The current word. Empty quotes make an empty word.
    let mut word: Option<String> = None;
    let mut state = State::Plain;
    for symbol in text.chars() {
        state = match (state, symbol) {
            (State::Plain, ' ' | '\t' | '\r' | '\n') => {
                words.extend(word.take());
                State::Plain
            }
            (State::Plain, '\\') => State::Escaped,
            (State::Plain, '\'') => quoted(&mut word, State::Single),
            (State::Plain, '"') => quoted(&mut word, State::Double),
            (State::Single, '\'') | (State::Double, '"') => State::Plain,
            (State::Double, '\\') => State::DoubleEscaped,
            (State::Plain | State::Escaped, _) => put(&mut word, symbol, State::Plain),
            (State::Single, _) => put(&mut word, symbol, State::Single),
            (State::Double, _) | (State::DoubleEscaped, '\\' | '"') => put(&mut word, symbol, State::Double),
            (State::DoubleEscaped, _) => {
                put(&mut word, '\\', State::Double);
                put(&mut word, symbol, State::Double)
            }
        };
    }
    match state {
        State::Plain => {
            words.extend(word);
            Ok(words)
        }
        State::Single | State::Double => Err("a quote is not closed".to_owned()),
        State::Escaped | State::DoubleEscaped => Err("nothing follows the last backslash".to_owned()),
    }
}

fn quoted(word: &mut Option<String>, state: State) -> State {
    word.get_or_insert_default();
    state
}

fn put(word: &mut Option<String>, symbol: char, state: State) -> State {
    word.get_or_insert_default().push(symbol);
    state
}

#[cfg(test)]
mod tests {
    use super::super::tests::{asked_of_python, every_text};
    use super::*;

    fn words(text: &str) -> Vec<String> {
        split(text).unwrap()
    }

    #[test]
    fn a_hash_is_an_ordinary_character() {
        assert_eq!(
            words("echo --colour #fff --port 80"),
            ["echo", "--colour", "#fff", "--port", "80"]
        );
        assert_eq!(words("a#b # c"), ["a#b", "#", "c"]);
    }

    #[test]
    fn double_quotes_keep_all_backslashes_but_two_kinds() {
        assert_eq!(
            words(r#"sh -c "echo \$HOME \`id\` \n \\ \"x\"""#),
            ["sh", "-c", r#"echo \$HOME \`id\` \n \ "x""#]
        );
        assert_eq!(words("\"a\\\nb\""), ["a\\\nb"]);
        assert_eq!(words(r"'a\b'"), [r"a\b"]);
    }

    #[test]
    fn outside_of_quotes_a_backslash_escapes_anything() {
        assert_eq!(words(r"a\ b \$c \\d \'e"), ["a b", "$c", r"\d", "'e"]);
        assert_eq!(words("a\\\nb"), ["a\nb"]);
    }

    #[test]
    fn quotes_join_and_may_be_empty() {
        assert_eq!(words("a'b c'\"d e\"f '' \"\" x''"), ["ab cd ef", "", "", "x"]);
        assert_eq!(words(" \t\r\n"), Vec::<String>::new());
        // Only four characters are whitespace.
        assert_eq!(words("a\u{b}b\u{a0}c"), ["a\u{b}b\u{a0}c"]);
    }

    #[test]
    fn an_incomplete_command_is_refused() {
        for text in ["'a", "a \"b", "\"a\\\"", "a\\", "\"a\\"] {
            assert!(split(text).is_err(), "{text}");
        }
    }

    #[test]
    fn python_splits_every_short_text_alike() {
        let texts = every_text("a #\\'\"\n", 5);
        let script = "shlex.split(text, comments=False, posix=True)";
        let Some(answers) = asked_of_python("words", script, &texts) else {
            return;
        };
        for (text, answer) in texts.iter().zip(answers) {
            assert_eq!(split(text).ok(), answer, "{text:?}");
        }
    }
}
