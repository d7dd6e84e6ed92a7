//! Expands `%(name)s` in values by the rules of supervisord, which uses Python's `%` operator.
//!
//! Only the documented forms are supported: a name in parentheses, followed by `s`, or by `d` for numbers. An
//! optional width precedes the letter. A leading zero fills with zeros, and a minus aligns to the left. `%%` is a
//! percent sign. Any other form is an error. If it were kept unchanged, its meaning could change when supervisord
//! adds a form.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::raw::Raw;

/// The value of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text, which expands with `s`.
    Text(String),
    /// A number, which expands with `s` and `d`.
    Number(i64),
}

/// The known names and their values.
///
/// Each process has a scope of its own, and all scopes contain the whole environment. So the environment is shared,
/// and a clone copies only the names that were added later.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    outer: Arc<BTreeMap<String, Value>>,
    own: BTreeMap<String, Value>,
}

impl Scope {
    /// Creates a scope with these names.
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

    /// Adds names that all later clones of this scope share.
    pub fn share(&mut self, names: impl IntoIterator<Item = (String, Value)>) {
        Arc::make_mut(&mut self.outer).extend(names);
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.own.get(name).or_else(|| self.outer.get(name))
    }

    /// Returns `template` with each name replaced by its value. `%(here)s` is the directory of the template's file.
    ///
    /// # Errors
    /// One sentence about the first form that cannot be expanded.
    pub fn expand(&self, template: &Raw) -> Result<String, String> {
        self.expand_text(&template.text, &template.source.here)
    }

    /// Expands `template`, and expands the result again. supervisord does this with the names of logs and with the
    /// environment of `[supervisord]`, so a percent sign is written `%%%%` there.
    ///
    /// # Errors
    /// The same as for [`Scope::expand`].
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

    /// Expands the form after a percent sign, and returns the rest of the text.
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
            (Some('d'), Value::Text(_)) => return Err(format!("%({name})d: {name} is not a number, use %({name})s")),
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

/// The largest width that a form may have.
const WIDEST: usize = 255;

/// The layout between the name and the letter.
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
    fn a_form_that_cannot_be_expanded_is_refused() {
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
            ("%(program_name)d", "not a number"),
            ("%(nothing)s", "here, process_num, program_name"),
            ("%(ENV_NOPE)s", "has no NOPE"),
        ] {
            let error = scope().expand(&raw(template)).unwrap_err();
            assert!(error.contains(word), "{template}: {error}");
        }
    }
}
