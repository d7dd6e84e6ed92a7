//! Rust source as far as the rules must understand it: tokens without comments and without what
//! stands in quotes, the tests taken out, and a few things found among them.
//!
//! Not a parser. It has to be right about comments, quotes and brackets, and no more.

use std::fs;
use std::path::Path;

/// A word, a `::`, or any other single character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    /// Counted from 1.
    pub line: usize,
}

/// One file.
#[derive(Debug)]
pub struct Source {
    /// Under the project's root, with `/`.
    pub path: String,
    pub text: String,
    /// All that the compiler reads, quotes empty.
    pub tokens: Vec<Token>,
    /// The same without what is compiled for tests alone.
    pub shipped: Vec<Token>,
}

/// All files of Rust in the project.
#[derive(Debug)]
pub struct Tree(pub Vec<Source>);

impl Tree {
    pub fn load(root: &Path) -> Tree {
        let mut files = Vec::new();
        for place in ["src", "tests", "examples", "benches"] {
            collect(root, &root.join(place), &mut files);
        }
        Tree::new(files)
    }

    pub fn new(files: impl IntoIterator<Item = (String, String)>) -> Tree {
        let mut sources: Vec<Source> = files.into_iter().map(|(path, text)| Source::new(path, text)).collect();
        let tests: Vec<Vec<String>> = sources.iter().flat_map(Source::test_modules).collect();
        for source in &mut sources {
            let module = source.module();
            if tests.iter().any(|test| module.starts_with(test)) {
                source.shipped.clear();
            }
        }
        Tree(sources)
    }

    /// The files of the library itself.
    pub fn library(&self) -> impl Iterator<Item = &Source> {
        self.0.iter().filter(|source| source.path.starts_with("src/"))
    }
}

fn collect(root: &Path, place: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix(root)
                .expect("it is below")
                .to_string_lossy()
                .into_owned();
            files.push((name, fs::read_to_string(&path).expect("a source file")));
        }
    }
}

impl Source {
    fn new(path: String, text: String) -> Source {
        let tokens = tokens(&code(&text));
        let shipped = without_tests(&tokens);
        Source {
            path,
            text,
            tokens,
            shipped,
        }
    }

    /// The path of its module, the crate's root being empty: `src/sys/wait.rs` is `[sys, wait]`.
    pub fn module(&self) -> Vec<String> {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let inner = inner.strip_suffix(".rs").unwrap_or(inner);
        let mut module: Vec<String> = inner.split('/').map(str::to_owned).collect();
        if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
            module.pop();
        }
        module
    }

    /// The modules with files of their own that this file declares for tests alone.
    fn test_modules(&self) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        for (from, to) in test_items(&self.tokens) {
            let words: Vec<&str> = self.tokens[from..to].iter().map(|token| token.text.as_str()).collect();
            if let [.., "mod", name, ";"] = words[..] {
                let mut module = self.module();
                module.push(name.to_owned());
                found.push(module);
            }
        }
        found
    }

    /// Every path with a `::` in what is shipped, groups in braces spelled out.
    pub fn paths(&self) -> Vec<(usize, Vec<String>)> {
        let mut found = Vec::new();
        let mut place = 0;
        while place < self.shipped.len() {
            let begins = is_word(&self.shipped[place]) && text(&self.shipped, place + 1) == "::";
            if begins {
                place = path(&self.shipped, place, &[], &mut found);
            } else {
                place += 1;
            }
        }
        found
    }

    /// Name, first line and number of lines of every function with a body.
    pub fn functions(&self) -> Vec<(String, usize, usize)> {
        let starts = (0..self.tokens.len()).filter(|&place| self.tokens[place].text == "fn");
        let named = starts.filter(|&place| self.tokens.get(place + 1).is_some_and(is_word));
        let bodies = named.filter_map(|place| {
            let end = item_end(&self.tokens, place);
            let last = self.tokens.get(end - 1).filter(|last| last.text == "}")?;
            let first = self.tokens[place].line;
            Some((self.tokens[place + 1].text.clone(), first, last.line - first + 1))
        });
        bodies.collect()
    }
}

/// The text with comments and the insides of quotes blanked, line by line the same.
pub fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let glued = before.is_alphanumeric() || before == '_';
        let (length, quoted) = match piece(rest, glued) {
            Some(length) => (length, true),
            None => (first.len_utf8(), false),
        };
        let (taken, left) = rest.split_at(length);
        if quoted {
            out.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            out.push_str(taken);
        }
        before = if quoted { ' ' } else { first };
        rest = left;
    }
    out
}

/// How long the comment or literal is that `rest` begins with, if it does. `glued`: it follows a
/// word at once, so a letter here is no prefix.
fn piece(rest: &str, glued: bool) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    let prefix = if glued {
        0
    } else {
        rest.find(|c| !matches!(c, 'b' | 'c' | 'r'))?.min(2)
    };
    let (prefix, body) = rest.split_at(prefix);
    let hashes = body.len() - body.trim_start_matches('#').len();
    if prefix.ends_with('r') && body[hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let from = hashes + 1;
        let length = body[from..].find(&end).map_or(body.len(), |at| from + at + end.len());
        return Some(prefix.len() + length);
    }
    if prefix == "b" && body.starts_with('\'') {
        return character(body).map(|length| length + 1);
    }
    body.starts_with('"').then(|| prefix.len() + until_quote(body, '"'))
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut place = 0;
    while place < text.len() {
        if text[place..].starts_with("/*") {
            depth += 1;
            place += 2;
        } else if text[place..].starts_with("*/") {
            depth -= 1;
            place += 2;
            if depth == 0 {
                return place;
            }
        } else {
            place += text[place..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// A character literal; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let mut inside = text[1..].chars();
    let first = inside.next()?;
    let is_literal = first == '\\' || inside.next() == Some('\'');
    is_literal.then(|| until_quote(text, '\''))
}

/// The length up to and with the closing quote.
fn until_quote(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (place, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return place + 1,
            _ => {}
        }
    }
    text.len()
}

/// Splits what [`code`] has left.
pub fn tokens(code: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (line, text) in (1..).zip(code.lines()) {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let length = match word {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                _ => word,
            };
            tokens.push(Token {
                text: rest[..length].to_owned(),
                line,
            });
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let inner = ["#", "!", "[", "cfg", "(", "test", ")", "]"];
    if tokens.iter().map(|token| &token.text).take(inner.len()).eq(inner) {
        return Vec::new();
    }
    let mut shipped = Vec::new();
    let mut from = 0;
    for (begin, end) in test_items(tokens) {
        shipped.extend_from_slice(&tokens[from..begin]);
        from = end;
    }
    shipped.extend_from_slice(&tokens[from..]);
    shipped
}

/// Where the items are that `#[cfg(test)]` or `#[cfg(all(test, ...))]` stands before.
fn test_items(tokens: &[Token]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut place = 0;
    while place < tokens.len() {
        let words = |from: usize, words: &[&str]| (from..).zip(words).all(|(at, &word)| text(tokens, at) == word);
        let is_test = words(place, &["#", "[", "cfg", "(", "test", ")", "]"])
            || words(place, &["#", "[", "cfg", "(", "all", "(", "test", ","]);
        if is_test {
            let end = item_end(tokens, place);
            found.push((place, end));
            place = end;
        } else {
            place += 1;
        }
    }
    found
}

/// The end of the item that begins at `place`: behind its `;`, or behind its block. Brackets of
/// attributes and signatures are passed over whole.
fn item_end(tokens: &[Token], place: usize) -> usize {
    let mut depth = 0;
    for at in place..tokens.len() {
        match text(tokens, at) {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" => depth -= 1,
            "}" => {
                depth -= 1;
                // `use a::{b, c};` and `static A: B = B { .. };` go on.
                if depth == 0 && text(tokens, at + 1) != ";" {
                    return at + 1;
                }
            }
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
        if depth < 0 {
            return at;
        }
    }
    tokens.len()
}

/// Reads one path, or one tree of a `use`, that begins at `place`; returns where it ends.
fn path(tokens: &[Token], mut place: usize, prefix: &[String], found: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut segments = prefix.to_vec();
    let line = tokens[place].line;
    loop {
        if text(tokens, place) == "{" {
            place += 1;
            while !matches!(text(tokens, place), "}" | "") {
                place = match text(tokens, place) {
                    "," => place + 1,
                    _ => path(tokens, place, &segments, found),
                };
            }
            return place + 1;
        }
        if !tokens
            .get(place)
            .is_some_and(|token| is_word(token) || token.text == "*")
        {
            // Something else in its place (`<`, a `$name` of a macro): the path ends before it, but
            // this always gets on.
            found.push((line, segments));
            return place + 1;
        }
        segments.push(text(tokens, place).to_owned());
        place += 1;
        if text(tokens, place) != "::" {
            found.push((line, segments));
            // `as another_name`
            return if text(tokens, place) == "as" { place + 2 } else { place };
        }
        place += 1;
    }
}

fn is_word(token: &Token) -> bool {
    token.text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// The token there, or nothing behind the end.
pub fn text(tokens: &[Token], place: usize) -> &str {
    tokens.get(place).map_or("", |token| &token.text)
}
