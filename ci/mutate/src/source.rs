//! A source file of the library: the sites at which the mutants can be chosen at run time.

use std::collections::HashMap;
use std::ops::Range;

use proc_macro2::{LineColumn, Span};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::list::{Genre, Mutant, Place};

/// A place in the source at which mutants are chosen.
pub struct Site {
    /// The bytes of the source that it concerns. It is empty where text is only inserted.
    pub range: Range<usize>,
    pub kind: Kind,
    /// The constant functions around it, as indices.
    pub inside: Vec<usize>,
}

pub enum Kind {
    /// The start of a function's body: each mutant with the value that it returns.
    Body(Vec<(u32, String)>),
    /// The body of a function that returns `impl Iterator`, which is one type: each mutant with the only item that it
    /// returns, if it returns any.
    Items(Vec<(u32, Option<String>)>),
    /// An expression: each mutant with the text that replaces it.
    Expression(Vec<(u32, String)>),
    /// The guard of a match arm, or the place behind a pattern without a guard.
    Guard {
        always: Option<u32>,
        never: Option<u32>,
        deleted: Option<u32>,
    },
    /// A match expression: the arms of it that can be deleted. It may not cover all cases without them.
    Match(Vec<u32>),
}

impl Site {
    pub fn numbers(&self) -> Vec<u32> {
        match &self.kind {
            Kind::Match(arms) => arms.clone(),
            Kind::Items(choices) => choices.iter().map(|choice| choice.0).collect(),
            Kind::Body(choices) | Kind::Expression(choices) => choices.iter().map(|choice| choice.0).collect(),
            Kind::Guard { always, never, deleted } => [always, never, deleted].into_iter().flatten().copied().collect(),
        }
    }
}

/// A function that can be evaluated at compile time.
pub struct ConstFn {
    pub name: String,
    /// The type of its `impl` block.
    pub of: Option<String>,
    /// The token `const`.
    pub token: Range<usize>,
}

pub struct Source {
    pub text: String,
    pub sites: Vec<Site>,
    pub const_fns: Vec<ConstFn>,
    /// Mutants without a site: what is evaluated at compile time, and types that contain an `impl Iterator`.
    pub fixed: Vec<u32>,
}

impl Source {
    /// Finds the sites of these mutants, all of this file.
    pub fn parse(text: &str, mutants: &[&Mutant]) -> syn::Result<Source> {
        let file = syn::parse_file(text)?;
        let mut at: HashMap<(Genre, Place), Vec<&Mutant>> = HashMap::new();
        for mutant in mutants {
            at.entry((mutant.genre, mutant.start)).or_default().push(mutant);
        }
        let mut finder = Finder {
            text,
            at,
            sites: Vec::new(),
            const_fns: Vec::new(),
            inside: Vec::new(),
            of: Vec::new(),
            constant: 0,
        };
        finder.visit_file(&file);
        let Finder {
            mut sites, const_fns, ..
        } = finder;
        sites.sort_by_key(|site| (site.range.start, usize::MAX - site.range.end));
        // An insertion precedes what begins at the same place.
        sites.sort_by_key(|site| (site.range.start, !site.range.is_empty()));
        let mut found: Vec<u32> = sites.iter().flat_map(Site::numbers).collect();
        found.sort_unstable();
        let fixed = mutants.iter().map(|mutant| mutant.number);
        let fixed = fixed.filter(|number| found.binary_search(number).is_err()).collect();
        Ok(Source {
            text: text.to_owned(),
            sites,
            const_fns,
            fixed,
        })
    }
}

struct Finder<'a> {
    text: &'a str,
    at: HashMap<(Genre, Place), Vec<&'a Mutant>>,
    sites: Vec<Site>,
    const_fns: Vec<ConstFn>,
    /// The constant functions around the present place.
    inside: Vec<usize>,
    /// The types of the `impl` blocks around the present place.
    of: Vec<Option<String>>,
    /// The number of constant expressions around the present place.
    constant: usize,
}

/// The item of a mutant that returns an iterator; `None` if it returns something else.
fn items(mutant: &Mutant) -> Option<Option<String>> {
    if mutant.replacement == "::std::iter::empty()" {
        return Some(None);
    }
    let item = mutant.replacement.strip_prefix("::std::iter::once(")?;
    item.strip_suffix(')').map(|item| Some(item.to_owned()))
}

fn place(at: LineColumn) -> Place {
    (at.line, at.column + 1)
}

impl<'a> Finder<'a> {
    fn mutants(&self, genre: Genre, span: Span) -> Vec<&'a Mutant> {
        self.at.get(&(genre, place(span.start()))).cloned().unwrap_or_default()
    }

    fn add(&mut self, range: Range<usize>, kind: Kind) {
        let site = Site {
            range,
            kind,
            inside: self.inside.clone(),
        };
        if self.constant == 0 && !site.numbers().is_empty() {
            self.sites.push(site);
        }
    }

    /// An expression, with the bytes of it that each mutant replaces.
    fn add_expression(&mut self, whole: Span, edits: Vec<(u32, Range<usize>, String)>) {
        let whole = whole.byte_range();
        let text = self.text;
        let choice = |(number, part, replacement): (u32, Range<usize>, String)| {
            let [before, after] = [&text[whole.start..part.start], &text[part.end..whole.end]];
            (number, format!("{before}{replacement}{after}"))
        };
        let choices = edits.into_iter().map(choice).collect();
        self.add(whole.clone(), Kind::Expression(choices));
    }

    /// A function: its constness, and its mutants. Returns whether it is constant.
    fn enter(&mut self, signature: &syn::Signature, block: &syn::Block) -> bool {
        if let Some(token) = &signature.constness {
            self.inside.push(self.const_fns.len());
            let of = self.of.last().cloned().flatten();
            let name = signature.ident.to_string();
            self.const_fns.push(ConstFn {
                name,
                of,
                token: token.span.byte_range(),
            });
        }
        if let (Some(first), Some(last)) = (block.stmts.first(), block.stmts.last()) {
            let body = first.span().byte_range().start..last.span().byte_range().end;
            let mutants = self.mutants(Genre::FnValue, first.span());
            let items = mutants
                .iter()
                .filter_map(|mutant| Some((mutant.number, items(mutant)?)));
            self.add(body.clone(), Kind::Items(items.collect()));
            // Other types that contain such an iterator cannot be chosen.
            let values = mutants
                .iter()
                .filter(|mutant| !mutant.replacement.contains("::std::iter::"));
            let choices = values
                .map(|mutant| (mutant.number, mutant.replacement.clone()))
                .collect();
            self.add(body.start..body.start, Kind::Body(choices));
        }
        signature.constness.is_some()
    }

    fn constant(&mut self, visit: impl FnOnce(&mut Self)) {
        self.constant += 1;
        visit(self);
        self.constant -= 1;
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let of = match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
            _ => None,
        };
        self.of.push(of);
        visit::visit_item_impl(self, item);
        self.of.pop();
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        let constant = self.enter(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
        if constant {
            self.inside.pop();
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        let constant = self.enter(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
        if constant {
            self.inside.pop();
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        let constant = item.default.as_ref().is_some_and(|block| self.enter(&item.sig, block));
        visit::visit_trait_item_fn(self, item);
        if constant {
            self.inside.pop();
        }
    }

    fn visit_expr_binary(&mut self, expression: &'ast syn::ExprBinary) {
        let operator = expression.op.span();
        let edit = |mutant: &&Mutant| {
            (
                mutant.number,
                operator.byte_range(),
                format!(" {} ", mutant.replacement),
            )
        };
        let edits = self.mutants(Genre::BinaryOperator, operator).iter().map(edit).collect();
        self.add_expression(expression.span(), edits);
        visit::visit_expr_binary(self, expression);
    }

    fn visit_expr_unary(&mut self, expression: &'ast syn::ExprUnary) {
        let operator = expression.op.span();
        let edit = |mutant: &&Mutant| (mutant.number, operator.byte_range(), mutant.replacement.clone());
        let edits = self.mutants(Genre::UnaryOperator, operator).iter().map(edit).collect();
        self.add_expression(expression.span(), edits);
        visit::visit_expr_unary(self, expression);
    }

    fn visit_expr_struct(&mut self, expression: &'ast syn::ExprStruct) {
        let mut edits = Vec::new();
        for pair in expression.fields.pairs() {
            for mutant in self.mutants(Genre::StructField, pair.value().span()) {
                edits.push((mutant.number, pair.span().byte_range(), mutant.replacement.clone()));
            }
        }
        self.add_expression(expression.span(), edits);
        visit::visit_expr_struct(self, expression);
    }

    fn visit_expr_match(&mut self, expression: &'ast syn::ExprMatch) {
        let arms = expression
            .arms
            .iter()
            .flat_map(|arm| self.mutants(Genre::MatchArm, arm.span()));
        let arms = arms.map(|mutant| mutant.number).collect();
        self.add(expression.span().byte_range(), Kind::Match(arms));
        visit::visit_expr_match(self, expression);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let deleted = self
            .mutants(Genre::MatchArm, arm.span())
            .first()
            .map(|mutant| mutant.number);
        let mut range = arm.pat.span().byte_range().end..arm.pat.span().byte_range().end;
        let [mut always, mut never] = [None; 2];
        if let Some((_, guard)) = &arm.guard {
            range = guard.span().byte_range();
            for mutant in self.mutants(Genre::MatchArmGuard, guard.span()) {
                *(if mutant.replacement == "true" {
                    &mut always
                } else {
                    &mut never
                }) = Some(mutant.number);
            }
        }
        self.add(range, Kind::Guard { always, never, deleted });
        visit::visit_arm(self, arm);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.constant(|finder| visit::visit_item_const(finder, item));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.constant(|finder| visit::visit_impl_item_const(finder, item));
    }

    fn visit_trait_item_const(&mut self, item: &'ast syn::TraitItemConst) {
        self.constant(|finder| visit::visit_trait_item_const(finder, item));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.constant(|finder| visit::visit_item_static(finder, item));
    }

    fn visit_expr_const(&mut self, expression: &'ast syn::ExprConst) {
        self.constant(|finder| visit::visit_expr_const(finder, expression));
    }

    fn visit_type_array(&mut self, array: &'ast syn::TypeArray) {
        self.constant(|finder| visit::visit_type_array(finder, array));
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        self.constant(|finder| visit::visit_variant(finder, variant));
    }

    fn visit_generic_argument(&mut self, argument: &'ast syn::GenericArgument) {
        self.constant(|finder| visit::visit_generic_argument(finder, argument));
    }

    fn visit_expr_repeat(&mut self, array: &'ast syn::ExprRepeat) {
        self.visit_expr(&array.expr);
        self.constant(|finder| finder.visit_expr(&array.len));
    }

    fn visit_pat(&mut self, pattern: &'ast syn::Pat) {
        self.constant(|finder| visit::visit_pat(finder, pattern));
    }
}
