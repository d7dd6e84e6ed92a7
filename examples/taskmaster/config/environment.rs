//! Parses `KEY="value",OTHER=value` by supervisord's rules.
//!
//! supervisord splits the text into tokens with Python's `shlex` in its non-POSIX mode. Each four tokens are a key,
//! `=`, a value, and a separator. So a value without quotes may contain letters, digits and `_/.+-():`, a `#` outside
//! of quotes starts a comment, and there are no escapes. This parser follows all of these rules, so that the same
//! file gives the same environment.
//!
//! No message repeats a part of the text, because the text may contain passwords.

/// The characters of a token without quotes, in addition to letters, digits and `_`.
const ALSO_IN_WORDS: &str = "/.+-():";

/// The variables in `text`. Of two variables with the same name, the last one counts.
///
/// # Errors
/// The text has another form. The message contains no part of the text.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let tokens = tokens(text)?;
    let mut pairs: Vec<(String, String)> = Vec::new();
    // The fourth token of each four is the separator between two variables.
    for (index, tokens) in tokens.chunks(4).enumerate() {
        let [key, equals, value, ..] = tokens else {
            return Err(not_a_pair(index));
        };
        if equals != "=" {
            return Err(not_a_pair(index));
        }
        if key.contains('=') {
            return Err(format!("variable {}: a name must not contain \"=\"", index + 1));
        }
        let value = value.trim_matches(['\'', '"']);
        pairs.retain(|(known, _)| known != key);
        pairs.push((key.clone(), value.to_owned()));
    }
    Ok(pairs)
}

fn not_a_pair(index: usize) -> String {
    format!(
        "variable {}: expected KEY=value and a comma; a value needs quotes \
         unless it is made of letters, digits and _{ALSO_IN_WORDS}",
        index + 1
    )
}

/// Splits the text into words, quoted texts with their quotes, and single other characters.
fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut symbols = text.chars().peekable();
    while let Some(first) = symbols.next() {
        match first {
            ' ' | '\t' | '\r' | '\n' => {}
            '#' => skip_line(&mut symbols),
            '\'' | '"' => tokens.push(quoted(first, &mut symbols)?),
            _ if in_word(first) => tokens.push(word(first, &mut symbols)),
            other => tokens.push(other.to_string()),
        }
    }
    Ok(tokens)
}

type Symbols<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Reads a token that begins with a quote. It ends at the next quote of the same kind.
fn quoted(quote: char, symbols: &mut Symbols<'_>) -> Result<String, String> {
    let mut token = String::from(quote);
    for symbol in symbols.by_ref() {
        token.push(symbol);
        if symbol == quote {
            return Ok(token);
        }
    }
    Err("a quote is not closed".to_owned())
}

/// Reads a word. Quotes in a word are ordinary characters, and a comment in a word is skipped.
fn word(first: char, symbols: &mut Symbols<'_>) -> String {
    let mut token = String::from(first);
    while let Some(symbol) = symbols.next_if(|&symbol| in_word(symbol) || matches!(symbol, '\'' | '"' | '#')) {
        if symbol == '#' {
            skip_line(symbols);
        } else {
            token.push(symbol);
        }
    }
    token
}

fn skip_line(symbols: &mut Symbols<'_>) {
    for symbol in symbols.by_ref() {
        if symbol == '\n' {
            return;
        }
    }
}

fn in_word(symbol: char) -> bool {
    symbol.is_ascii_alphanumeric() || symbol == '_' || ALSO_IN_WORDS.contains(symbol)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{asked_of_python, every_text};
    use super::*;

    fn read(text: &str) -> Vec<String> {
        let pairs = parse(text).unwrap_or_else(|message| panic!("{text}: {message}"));
        pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    #[test]
    fn quoted_values_may_contain_any_character() {
        assert_eq!(read("A=\"1,2\", B='x y' ,C=z,"), ["A=1,2", "B=x y", "C=z"]);
        assert_eq!(read("A=1,\nB=2"), ["A=1", "B=2"]);
        assert_eq!(read("PATH=/a:/b,X=-1.5+(2)"), ["PATH=/a:/b", "X=-1.5+(2)"]);
        assert_eq!(read("A=\"\",B='#f\nf'"), ["A=", "B=#f\nf"]);
        assert_eq!(read("A=1,B=2,A=3"), ["B=2", "A=3"]);
        assert!(read("").is_empty() && read(" \n# nothing\n").is_empty());
    }

    /// The expected values come from supervisord 4.3.
    #[test]
    fn unusual_environments_have_supervisords_meaning() {
        assert_eq!(read("A=1;B=2"), ["A=1", "B=2"]);
        assert_eq!(read("A=\"x\"y"), ["A=x"]);
        assert_eq!(read("A=x\"y z\""), ["A=x\"y"]);
        assert_eq!(read("A=\"don't say 'no'\""), ["A=don't say 'no"]);
        assert_eq!(read("A=p@ss=w,X=1"), ["A=p", "ss=w", "X=1"]);
        assert_eq!(read("A=é"), ["A=é"]);
        assert_eq!(read("# c\nA=1"), ["A=1"]);
        assert_eq!(read("A=x#y,B=2"), ["A=x"]);
        assert_eq!(read("A=x# comment\ny"), ["A=xy"]);
    }

    #[test]
    fn a_message_about_a_mistake_does_not_contain_the_text() {
        for text in [
            "hunter2",
            "=hunter2",
            "A=hunter2 B=hunter2",
            "A=\"hunter2",
            "A hunter2=1",
            ",A=hunter2",
            "A=hun=ter2",
            "A=hunter2\\,B=1",
            "A=",
            "B=1,A=",
            "'hun=ter2'=1",
        ] {
            let message = parse(text).unwrap_err();
            assert!(
                !message.contains("hun") && !message.contains("ter2"),
                "{text}: {message}"
            );
        }
        assert!(parse("A=1,B").unwrap_err().starts_with("variable 2: "));
    }

    #[test]
    fn python_cuts_every_short_text_into_the_same_tokens() {
        let texts = every_text("a #=,'\"\n", 4);
        let script = "list(lexer(text))";
        let Some(answers) = asked_of_python("tokens", script, &texts) else {
            return;
        };
        for (text, answer) in texts.iter().zip(answers) {
            assert_eq!(tokens(text).ok(), answer, "{text:?}");
        }
    }
}
