//! `%(name)s` in values, as supervisord (that is, Python's `%` operator) expands it.
//!
//! Only what its documentation promises: a name in parentheses, then `s`, or `d` for numbers, with an
//! optional width that a leading zero fills with zeros and a minus aligns to the left. `%%` is a
//! percent sign. Anything else is an error: a `%` that is passed on unseen would change its meaning
//! on the day when a name is added after it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::raw::Raw;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Expands with `s`.
    Text(String),
    /// Expands with `s` and `d`.
    Number(i64),
}

/// The names that may be used, and what they stand for.
///
/// Each of a thousand processes has one of its own, and all of them know the whole environment: so that
/// is shared, and a clone copies only what was set since.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    outer: Arc<BTreeMap<String, Value>>,
    own: BTreeMap<String, Value>,
}

impl Scope {
    /// A scope in which these names are known from the outset.
    pub fn around(outer: BTreeMap<String, Value>) -> Scope {
        Scope {
            outer: Arc::new(outer),
            own: BTreeMap::new(),
        }
    }

    /// Adds or replaces a name.
    pub fn set(&mut self, name: impl Into<String>, value: Value) {
        self.own.insert(name.into(), value);
    }

    /// Adds names that every scope cloned from this one shares.
    pub fn share(&mut self, names: impl IntoIterator<Item = (String, Value)>) {
        Arc::make_mut(&mut self.outer).extend(names);
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.own.get(name).or_else(|| self.outer.get(name))
    }

    /// The text of `template` with every name replaced; `%(here)s` is the directory of its file.
    ///
    /// # Errors
    /// One sentence about the first thing that could not be expanded.
    pub fn expand(&self, template: &Raw) -> Result<String, String> {
        self.expand_text(&template.text, &template.source.here)
    }

    /// The same, and what comes of it once more. supervisord does that to the names of logs and to the
    /// environment of `[supervisord]`, so that a percent sign is written `%%%%` there.
    ///
    /// # Errors
    /// As [`Scope::expand`].
    pub fn expand_twice(&self, template: &Raw) -> Result<String, String> {
        let once = self.expand(template)?;
        self.expand_text(&once, &template.source.here)
            .map_err(|message| format!("{message} (this value is expanded twice: write \"%%%%\" for a percent sign)"))
    }

    fn expand_text(&self, template: &str, here: &str) -> Result<String, String> {
        let mut out = String::with_capacity(template.len());
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('%') {
            out.push_str(before);
            rest = self.expand_one(after, here, &mut out)?;
        }
        out.push_str(rest);
        Ok(out)
    }

    /// Expands what stands behind one percent sign, and returns what comes after it.
    fn expand_one<'a>(&self, after: &'a str, here: &str, out: &mut String) -> Result<&'a str, String> {
        if let Some(rest) = after.strip_prefix('%') {
            out.push('%');
            return Ok(rest);
        }
        let stray = || "a lone \"%\": write \"%%\" for a percent sign".to_owned();
        let (name, format) = after
            .strip_prefix('(')
            .and_then(|open| open.split_once(')'))
            .ok_or_else(stray)?;
        let here = (name == "here").then(|| Value::Text(here.to_owned()));
        let value = here.as_ref().or_else(|| self.get(name));
        let value = value.ok_or_else(|| self.unknown(name))?;
        let letter = format
            .find(|c: char| c.is_ascii_alphabetic())
            .ok_or_else(|| unfinished(name))?;
        let (width, rest) = format.split_at(letter);
        let layout = Layout::parse(width).ok_or_else(|| unfinished(name))?;
        let mut rest = rest.chars();
        match (rest.next(), value) {
            (Some('s'), Value::Text(text)) => layout.put(text, out),
            (Some('s'), Value::Number(number)) => layout.put(&number.to_string(), out),
            (Some('d'), Value::Number(number)) => layout.put_number(*number, out),
            (Some('d'), Value::Text(_)) => return Err(format!("%({name})d: {name} is no number, use %({name})s")),
            _ => return Err(unfinished(name)),
        }
        Ok(rest.as_str())
    }

    fn unknown(&self, name: &str) -> String {
        if let Some(variable) = name.strip_prefix("ENV_") {
            return format!("%({name})s: the environment has no {variable}");
        }
        let mut known: Vec<&str> = self.own.keys().chain(self.outer.keys()).map(String::as_str).collect();
        known.retain(|known| !known.starts_with("ENV_"));
        known.push("here");
        known.sort_unstable();
        format!(
            "%({name})s is not known here (but {} and ENV_... are)",
            known.join(", ")
        )
    }
}

fn unfinished(name: &str) -> String {
    format!("%({name}) must be followed by \"s\" or \"d\", or by a width and one of them")
}

/// The widest that a width may make a value.
const WIDEST: usize = 255;

/// What stands between the name and the letter.
struct Layout {
    left: bool,
    zeros: bool,
    width: usize,
}

impl Layout {
    fn parse(text: &str) -> Option<Layout> {
        let digits = text.trim_start_matches(['-', '0']);
        let flags = text.get(..text.len() - digits.len())?;
        let width = if digits.is_empty() { 0 } else { digits.parse().ok()? };
        let only_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
        let layout = Layout {
            left: flags.contains('-'),
            zeros: flags.contains('0'),
            width,
        };
        (only_digits && width <= WIDEST).then_some(layout)
    }

    fn put(&self, text: &str, out: &mut String) {
        let width = self.width;
        let padded = match self.left {
            true => format!("{text:<width$}"),
            false => format!("{text:>width$}"),
        };
        out.push_str(&padded);
    }

    fn put_number(&self, number: i64, out: &mut String) {
        let width = self.width;
        if self.zeros && !self.left {
            out.push_str(&format!("{number:0width$}"));
        } else {
            self.put(&number.to_string(), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::raw::Source;
    use super::*;

    fn scope() -> Scope {
        let outer = [("ENV_HOME", "/away")];
        let mut scope = Scope::around(
            outer
                .map(|(name, text)| (name.to_owned(), Value::Text(text.to_owned())))
                .into(),
        );
        scope.set("program_name", Value::Text("web".to_owned()));
        scope.set("process_num", Value::Number(7));
        scope.set("ENV_HOME", Value::Text("/home/me".to_owned()));
        scope
    }

    fn raw(text: &str) -> Raw {
        let source = Source {
            here: "/etc".to_owned(),
            ..Source::default()
        };
        Raw {
            text: text.to_owned(),
            source: Arc::new(source),
        }
    }

    #[test]
    fn names_are_replaced() {
        for (template, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("%(program_name)s", "web"),
            ("%(program_name)s_%(process_num)02d", "web_07"),
            ("%(process_num)d%(process_num)s", "77"),
            ("<%(process_num)3d>", "<  7>"),
            ("<%(process_num)-3d>", "<7  >"),
            ("<%(process_num)03s>", "<  7>"),
            ("<%(program_name)5s>", "<  web>"),
            ("%(ENV_HOME)s%(here)s", "/home/me/etc"),
            ("100%%", "100%"),
            ("%%(program_name)s", "%(program_name)s"),
            ("é%(program_name)sé", "éwebé"),
        ] {
            assert_eq!(scope().expand(&raw(template)).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn numbers_may_be_negative() {
        let mut scope = scope();
        scope.set("process_num", Value::Number(-1));
        let expanded = scope.expand(&raw("%(process_num)d|%(process_num)03d|%(process_num)4s"));
        assert_eq!(expanded.as_deref(), Ok("-1|-01|  -1"));
    }

    #[test]
    fn some_values_are_expanded_twice() {
        assert_eq!(
            scope().expand_twice(&raw("%%%%,%(here)s,%%(here)s")).as_deref(),
            Ok("%,/etc,/etc")
        );
        assert!(scope().expand_twice(&raw("50%%")).unwrap_err().contains("%%%%"));
    }

    #[test]
    fn what_cannot_be_expanded_is_refused() {
        for (template, word) in [
            ("50% off", "lone"),
            ("date +%H", "lone"),
            ("%", "lone"),
            ("%(program_name", "lone"),
            ("%(program_name)", "followed"),
            ("%(program_name)x", "followed"),
            ("%(process_num)2.5d", "followed"),
            ("%(process_num)999999999d", "followed"),
            ("%(process_num)99999999999999999999999d", "followed"),
            ("%(program_name)d", "no number"),
            ("%(nothing)s", "here, process_num, program_name"),
            ("%(ENV_NOPE)s", "has no NOPE"),
        ] {
            let error = scope().expand(&raw(template)).unwrap_err();
            assert!(error.contains(word), "{template}: {error}");
        }
    }
}
