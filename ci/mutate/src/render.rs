//! Writes a source file anew, with the choice among its mutants, or with some mutants in place.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::list::{Mutant, offset};
use crate::source::{Kind, Site, Source};

/// Bytes of the new text, and what they belong to.
pub struct Region {
    pub range: Range<usize>,
    pub numbers: Vec<u32>,
    /// Whether the text is the changed one. Otherwise the choice and the unchanged text belong to it.
    pub changed: bool,
}

#[derive(Default)]
pub struct Rendered {
    pub text: String,
    pub regions: Vec<Region>,
}

/// The text that chooses among all mutants of the file except `without`. The constant functions in `keep` (indices)
/// stay constant and have no mutants.
pub fn with_choices(source: &Source, without: &BTreeSet<u32>, keep: &BTreeSet<usize>) -> Rendered {
    let mut writer = Writer {
        source,
        without,
        keep,
        at: 0,
        out: Rendered::default(),
    };
    let end = source.text.len();
    writer.write(end, &source.sites);
    writer.out
}

struct Writer<'a> {
    source: &'a Source,
    without: &'a BTreeSet<u32>,
    keep: &'a BTreeSet<usize>,
    /// How much of the source is written.
    at: usize,
    out: Rendered,
}

impl Writer<'_> {
    /// Writes the source as far as `end`, with these sites in it.
    fn write(&mut self, end: usize, mut sites: &[Site]) {
        while let Some((site, rest)) = sites.split_first() {
            let inner = rest
                .iter()
                .take_while(|inner| inner.range.end <= site.range.end)
                .count();
            let inner = if site.range.is_empty() { 0 } else { inner };
            let (inner, rest) = rest.split_at(inner);
            self.copy(site.range.start);
            self.site(site, inner);
            sites = rest;
        }
        self.copy(end);
    }

    /// Copies the source as far as `end`, without the constness of functions.
    fn copy(&mut self, end: usize) {
        let source = self.source;
        for (index, function) in source.const_fns.iter().enumerate() {
            if (self.at..end).contains(&function.token.start) && !self.keep.contains(&index) {
                self.out.text.push_str(&source.text[self.at..function.token.start]);
                self.at = function.token.end;
            }
        }
        self.out.text.push_str(&source.text[self.at..end]);
        self.at = end;
    }

    fn chosen(&self, site: &Site, number: u32) -> bool {
        !self.without.contains(&number) && !site.inside.iter().any(|index| self.keep.contains(index))
    }

    fn changed(&mut self, number: u32, text: &str) {
        let start = self.out.text.len();
        self.out.text.push_str(text);
        self.out.regions.push(Region {
            range: start..self.out.text.len(),
            numbers: vec![number],
            changed: true,
        });
    }

    fn site(&mut self, site: &Site, inner: &[Site]) {
        let start = self.out.text.len();
        let numbers: Vec<u32> = site
            .numbers()
            .into_iter()
            .filter(|number| self.chosen(site, *number))
            .collect();
        if numbers.is_empty() {
            return self.write(site.range.end, inner);
        }
        match &site.kind {
            Kind::Body(choices) => {
                for (number, value) in choices.iter().filter(|choice| numbers.contains(&choice.0)) {
                    self.out
                        .text
                        .push_str(&format!("if crate::mutant::is({number}) {{ return "));
                    self.changed(*number, value);
                    self.out.text.push_str("; } ");
                }
            }
            Kind::Items(choices) => {
                self.out.text.push_str("crate::mutant::items({ ");
                self.write(site.range.end, inner);
                let chosen: Vec<String> = numbers
                    .iter()
                    .map(|number| format!("crate::mutant::is({number})"))
                    .collect();
                self.out.text.push_str(&format!(" }}, {}, ", chosen.join(" | ")));
                for (number, item) in choices.iter().filter(|choice| numbers.contains(&choice.0)) {
                    if let Some(item) = item {
                        self.out
                            .text
                            .push_str(&format!("if crate::mutant::is({number}) {{ Some("));
                        self.changed(*number, item);
                        self.out.text.push_str(") } else ");
                    }
                }
                self.out.text.push_str("{ None })");
            }
            Kind::Expression(choices) => {
                self.out.text.push('(');
                for (number, text) in choices.iter().filter(|choice| numbers.contains(&choice.0)) {
                    self.out.text.push_str(&format!("if crate::mutant::is({number}) {{ "));
                    self.changed(*number, text);
                    self.out.text.push_str(" } else ");
                }
                self.out.text.push_str("{ ");
                self.write(site.range.end, inner);
                self.out.text.push_str(" })");
            }
            Kind::Match(_) => self.write(site.range.end, inner),
            Kind::Guard { always, never, deleted } => {
                let chosen = |number: &Option<u32>| number.filter(|number| numbers.contains(number));
                self.guard(site, inner, [chosen(always), chosen(never), chosen(deleted)]);
            }
        }
        self.out.regions.push(Region {
            range: start..self.out.text.len(),
            numbers,
            changed: false,
        });
    }

    fn guard(&mut self, site: &Site, inner: &[Site], [always, never, deleted]: [Option<u32>; 3]) {
        let text = &mut self.out.text;
        if site.range.is_empty() {
            text.push_str(" if ");
        }
        let refusals = [never, deleted].into_iter().flatten();
        let refusals: Vec<String> = refusals.map(|number| format!("!crate::mutant::is({number})")).collect();
        text.push_str(&refusals.join(" && "));
        if site.range.is_empty() {
            return;
        }
        if !refusals.is_empty() {
            text.push_str(" && ");
        }
        text.push('(');
        if let Some(number) = always {
            text.push_str(&format!("crate::mutant::is({number}) || "));
        }
        text.push('(');
        self.write(site.range.end, inner);
        self.out.text.push_str("))");
    }
}

/// The text with these mutants in place, as cargo-mutants writes them, and the functions around them as regions. The
/// mutants are of different functions.
pub fn in_place(text: &str, mutants: &[&Mutant]) -> Rendered {
    let mut edits: Vec<(Range<usize>, &Mutant)> = mutants
        .iter()
        .map(|mutant| (offset(text, mutant.start)..offset(text, mutant.end), *mutant))
        .collect();
    edits.sort_by_key(|(range, _)| range.start);
    let mut out = Rendered::default();
    let mut at = 0;
    for (range, mutant) in edits {
        let (start, end) = mutant.function.unwrap_or((mutant.start, mutant.end));
        let function = offset(text, start)..offset(text, end);
        out.text.push_str(&text[at..range.start]);
        let begins = (out.text.len() + function.start).saturating_sub(range.start);
        out.text.push_str(&format!(" {} ", mutant.replacement));
        let ends = out.text.len() + function.end.saturating_sub(range.end);
        at = range.end;
        out.regions.push(Region {
            range: begins..ends,
            numbers: vec![mutant.number],
            changed: true,
        });
    }
    out.text.push_str(&text[at..]);
    out
}
