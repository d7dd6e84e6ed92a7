//! `KEY="value",OTHER=value`, taken apart as supervisord does it.
//!
//! supervisord has Python's `shlex` cut the text into tokens, in the mode that is not POSIX, and takes
//! every four tokens as a key, `=`, a value, and something in between. So a value without quotes may hold
//! letters, digits and `_/.+-():`, a `#` outside of quotes starts a comment, and there are no escapes.
//! The same files give the same environments only if all of that is the same here.
//!
//! No message repeats a part of the text: passwords are kept in it.

/// What a token without quotes may consist of, beside letters, digits and `_`.
const ALSO_IN_WORDS: &str = "/.+-():";

/// The variables in `text`; the last of two with the same name counts.
///
/// # Errors
/// The text is not of this form. The message holds nothing of it.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let tokens = tokens(text)?;
    let mut pairs: Vec<(String, String)> = Vec::new();
    // The fourth token of each four is what stands between two variables.
    for (index, tokens) in tokens.chunks(4).enumerate() {
        let [key, equals, value, ..] = tokens else {
            return Err(not_a_pair(index));
        };
        if equals != "=" {
            return Err(not_a_pair(index));
        }
        if key.contains('=') {
            return Err(format!("variable {}: a name can't have \"=\" in it", index + 1));
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

/// Words, quoted texts with their quotes, and all else character by character.
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

/// A token that begins with a quote ends with the next one of its kind.
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

/// Within a word, quotes are ordinary characters, and a comment is skipped: the word goes on after it.
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
    fn quotes_hold_what_words_cannot() {
        assert_eq!(read("A=\"1,2\", B='x y' ,C=z,"), ["A=1,2", "B=x y", "C=z"]);
        assert_eq!(read("A=1,\nB=2"), ["A=1", "B=2"]);
        assert_eq!(read("PATH=/a:/b,X=-1.5+(2)"), ["PATH=/a:/b", "X=-1.5+(2)"]);
        assert_eq!(read("A=\"\",B='#f\nf'"), ["A=", "B=#f\nf"]);
        assert_eq!(read("A=1,B=2,A=3"), ["B=2", "A=3"]);
        assert!(read("").is_empty() && read(" \n# nothing\n").is_empty());
    }

    /// Each of these was given to supervisord 4.3.
    #[test]
    fn what_looks_wrong_means_what_it_means_to_supervisord() {
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
    fn a_mistake_is_told_without_the_text() {
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
