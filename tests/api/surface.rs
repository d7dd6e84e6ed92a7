//! The public items of a crate, from its sources.

use std::collections::{BTreeMap, BTreeSet};

use quote::ToTokens;
use syn::{Attribute, Fields, ImplItem, Item, TraitItem, Visibility};

use super::source::{attributes, is_for_tests, module_path};

/// The names of a module and its ancestors, outermost first. The root is empty.
type ModulePath = Vec<String>;

/// What an entry of the list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Type,
    /// The traits that a type implements.
    Traits,
    Function,
    /// A variant, a constant, a second name.
    Other,
}

/// A public item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub path: String,
    pub kind: Kind,
    /// What follows the path in the line.
    text: String,
    docs: String,
    /// For a function: the type that it returns if it has no receiver.
    makes: Option<String>,
}

impl Entry {
    fn new(path: String, kind: Kind, text: impl Into<String>, attributes: &[Attribute]) -> Entry {
        Entry {
            path,
            kind,
            text: text.into(),
            docs: docs(attributes),
            makes: None,
        }
    }

    pub fn line(&self) -> String {
        format!("{}{}", self.path, self.text)
    }

    /// Whether the documentation has an example.
    pub fn has_example(&self) -> bool {
        self.docs.contains("```")
    }
}

#[derive(Default)]
struct Module {
    items: Vec<Item>,
    /// What each imported or exported name stands for, and whether it is exported.
    names: BTreeMap<String, (Vec<String>, bool)>,
    /// The modules in it, and whether they are public.
    children: BTreeMap<String, bool>,
}

/// The public items of a crate.
pub struct Surface {
    entries: Vec<Entry>,
}

/// Reads the modules of a crate, and lists their public items.
#[derive(Default)]
struct Reader {
    modules: BTreeMap<ModulePath, Module>,
    entries: Vec<Entry>,
}

impl Surface {
    /// Reads the sources, by their paths below the directory of the crate's root file.
    pub fn read(files: &BTreeMap<String, String>) -> Surface {
        let mut reader = Reader::default();
        for (name, text) in files {
            let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            reader.add(&module_path(name), file.items);
        }
        let mut seen = BTreeMap::new();
        reader.list(&Vec::new(), "pidherd", &mut seen);
        reader.list_impls(&seen);
        let mut entries = reader.entries;
        entries.sort();
        entries.dedup();
        Surface { entries }
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The functions of a type that return it and have no receiver.
    pub fn constructors<'s>(&'s self, path: &'s str) -> impl Iterator<Item = &'s Entry> {
        let name = path.rsplit("::").next().unwrap_or(path);
        let makes_it = move |entry: &&Entry| {
            let is_own = entry.path.rsplit_once("::").is_some_and(|(of, _)| of == path);
            let words = |text: &str| {
                text.split(|c: char| !c.is_alphanumeric() && c != '_')
                    .any(|word| word == name || word == "Self")
            };
            is_own && entry.makes.as_deref().is_some_and(words)
        };
        self.entries.iter().filter(makes_it)
    }
}

impl Reader {
    fn add(&mut self, at: &ModulePath, items: Vec<Item>) {
        for item in items {
            if attributes(&item).iter().any(is_for_tests) {
                continue;
            }
            match item {
                Item::Mod(module) => {
                    let name = module.ident.to_string();
                    let inner = [&at[..], std::slice::from_ref(&name)].concat();
                    self.module(at).children.insert(name, is_public(&module.vis));
                    self.module(&inner);
                    self.add(&inner, module.content.map(|(_, items)| items).unwrap_or_default());
                }
                Item::Use(item) => {
                    let exported = is_public(&item.vis);
                    self.import(at, &[], &item.tree, exported);
                }
                item => self.module(at).items.push(item),
            }
        }
    }

    fn module(&mut self, at: &ModulePath) -> &mut Module {
        self.modules.entry(at.clone()).or_default()
    }

    fn import(&mut self, at: &ModulePath, prefix: &[String], tree: &syn::UseTree, exported: bool) {
        let joined = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        let (path, name) = match tree {
            syn::UseTree::Path(path) => return self.import(at, &joined(&path.ident), &path.tree, exported),
            syn::UseTree::Group(group) => {
                return group
                    .items
                    .iter()
                    .for_each(|tree| self.import(at, prefix, tree, exported));
            }
            syn::UseTree::Name(name) if name.ident == "self" => (prefix.to_vec(), prefix.last().cloned()),
            syn::UseTree::Name(name) => (joined(&name.ident), Some(name.ident.to_string())),
            syn::UseTree::Rename(rename) => (joined(&rename.ident), Some(rename.rename.to_string())),
            syn::UseTree::Glob(_) => return,
        };
        let names = &mut self.module(at).names;
        names.extend(name.map(|name| (name, (path, exported))));
    }

    /// Finds the module and the name of the item that a path leads to. `None` if it leads out of the crate.
    fn resolve(&self, from: &ModulePath, path: &[String], depth: usize) -> Option<(ModulePath, String)> {
        let (first, rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => from.clone(),
            "super" => from[..from.len().checked_sub(1)?].to_vec(),
            _ => return self.step(from, first, rest, depth),
        };
        let mut rest = rest;
        while let Some(("super", after)) = rest.split_first().map(|(name, after)| (name.as_str(), after)) {
            at.pop();
            rest = after;
        }
        let (name, rest) = rest.split_first()?;
        self.step(&at, name, rest, depth)
    }

    fn step(&self, at: &ModulePath, name: &str, rest: &[String], depth: usize) -> Option<(ModulePath, String)> {
        let module = self.modules.get(at).filter(|_| depth < 16)?;
        if module.items.iter().any(|item| ident(item).as_deref() == Some(name)) && rest.is_empty() {
            return Some((at.clone(), name.to_owned()));
        }
        if module.children.contains_key(name) {
            let inner = [&at[..], &[name.to_owned()]].concat();
            return match rest.split_first() {
                Some((next, rest)) => self.step(&inner, next, rest, depth),
                None => Some((at.clone(), name.to_owned())),
            };
        }
        let (path, _) = module.names.get(name)?;
        self.resolve(at, &[path, rest].concat(), depth + 1)
    }

    /// Lists the public items of a module. `seen` has the public path of each item that was listed.
    fn list(&mut self, at: &ModulePath, public: &str, seen: &mut BTreeMap<(ModulePath, String), String>) {
        let Some(module) = self.modules.get(at) else { return };
        let own = module.items.iter().filter(|item| is_public(visibility(item)));
        let own: Vec<(String, Item)> = own.filter_map(|item| Some((ident(item)?, item.clone()))).collect();
        let exported = module.names.iter().filter(|(_, (_, exported))| *exported);
        let exported: Vec<_> = exported
            .filter_map(|(name, (path, _))| Some((name.clone(), self.resolve(at, path, 0)?)))
            .collect();
        let inner: Vec<String> = module
            .children
            .iter()
            .filter(|(_, public)| **public)
            .map(|(name, _)| name.clone())
            .collect();
        let macros: Vec<String> = module.items.iter().filter_map(made_by_macro).collect();
        for text in macros {
            self.entries
                .push(Entry::new(format!("{public}::"), Kind::Other, text, &[]));
        }
        for (name, item) in own {
            self.list_item(format!("{public}::{name}"), &item, (at.clone(), name), seen);
        }
        for (name, target) in exported {
            let path = format!("{public}::{name}");
            let found = self.modules.get(&target.0).and_then(|module| {
                let of_name = |item: &&Item| ident(item).as_deref() == Some(&target.1);
                module.items.iter().find(of_name).cloned()
            });
            match found {
                Some(item) => self.list_item(path, &item, target, seen),
                None => self
                    .entries
                    .push(Entry::new(path, Kind::Other, ": made by a macro", &[])),
            }
        }
        for name in inner {
            let path = [&at[..], std::slice::from_ref(&name)].concat();
            self.list(&path, &format!("{public}::{name}"), seen);
        }
    }

    fn list_item(
        &mut self,
        path: String,
        item: &Item,
        home: (ModulePath, String),
        seen: &mut BTreeMap<(ModulePath, String), String>,
    ) {
        if let Some(first) = seen.get(&home) {
            self.entries
                .push(Entry::new(path, Kind::Other, format!(": = {first}"), &[]));
            return;
        }
        seen.insert(home, path.clone());
        let open = if has(attributes(item), "non_exhaustive") {
            "#[non_exhaustive] "
        } else {
            ""
        };
        let attributes = attributes(item);
        match item {
            Item::Struct(item) => {
                let text = format!(": {open}struct{}", fields(&item.fields, true));
                self.entries.push(Entry::new(path, Kind::Type, text, attributes));
            }
            Item::Enum(item) => {
                for variant in item.variants.iter() {
                    let path = format!("{path}::{}", variant.ident);
                    let text = fields(&variant.fields, false);
                    self.entries.push(Entry::new(path, Kind::Other, text, &variant.attrs));
                }
                self.entries
                    .push(Entry::new(path, Kind::Type, format!(": {open}enum"), attributes));
            }
            Item::Fn(item) => self.entries.push(Entry::new(
                path,
                Kind::Function,
                format!(": {}", signature(&item.sig)),
                attributes,
            )),
            Item::Const(item) => {
                let text = format!(": const {}", tokens(&item.ty));
                self.entries.push(Entry::new(path, Kind::Other, text, attributes));
            }
            Item::Trait(item) => {
                self.entries
                    .extend(item.items.iter().filter_map(|item| provided(&path, item)));
                let text = format!(": trait: {}", tokens(&item.supertraits));
                self.entries.push(Entry::new(path, Kind::Other, text, attributes));
            }
            other => self.entries.push(Entry::new(
                path,
                Kind::Other,
                format!(": {}", tokens(other)),
                attributes,
            )),
        }
    }

    /// Lists the methods and traits of the listed types, wherever their impl blocks are.
    fn list_impls(&mut self, seen: &BTreeMap<(ModulePath, String), String>) {
        let mut traits: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut found = Vec::new();
        for (at, module) in &self.modules {
            for item in &module.items {
                let derived = ident(item).and_then(|name| seen.get(&(at.clone(), name)));
                if let Some(path) = derived {
                    traits
                        .entry(path.clone())
                        .or_default()
                        .extend(derives(attributes(item)));
                }
                for (of, name) in implemented_by_macro(item) {
                    if let Some(path) = self.resolve(at, &[of], 0).and_then(|home| seen.get(&home)) {
                        traits.entry(path.clone()).or_default().insert(name.to_owned());
                    }
                }
                let Item::Impl(block) = item else { continue };
                let syn::Type::Path(of) = &*block.self_ty else { continue };
                let names: Vec<String> = of.path.segments.iter().map(|part| part.ident.to_string()).collect();
                let Some(path) = self.resolve(at, &names, 0).and_then(|home| seen.get(&home)) else {
                    continue;
                };
                if let Some((name, _)) = &block.trait_ {
                    traits.entry(path.clone()).or_default().insert(tokens(name));
                    continue;
                }
                found.extend(block.items.iter().filter_map(|item| method(path, item)));
            }
        }
        self.entries.extend(found);
        for (path, names) in traits {
            if !names.is_empty() {
                let names: Vec<String> = names.into_iter().collect();
                let text = format!(": {}", names.join(" + "));
                self.entries.push(Entry::new(path, Kind::Traits, text, &[]));
            }
        }
    }
}

/// The entry of a public method or constant.
fn method(of: &str, item: &ImplItem) -> Option<Entry> {
    match item {
        ImplItem::Fn(function) if is_public(&function.vis) && !function.attrs.iter().any(is_for_tests) => {
            let path = format!("{of}::{}", function.sig.ident);
            let text = format!(": {}", signature(&function.sig));
            let mut entry = Entry::new(path, Kind::Function, text, &function.attrs);
            if function.sig.receiver().is_none() {
                entry.makes = Some(tokens(&function.sig.output));
            }
            Some(entry)
        }
        ImplItem::Const(constant) if is_public(&constant.vis) => {
            let path = format!("{of}::{}", constant.ident);
            let text = format!(": const {}", tokens(&constant.ty));
            Some(Entry::new(path, Kind::Other, text, &constant.attrs))
        }
        _ => None,
    }
}

/// The entry of a method of a public trait.
fn provided(of: &str, item: &TraitItem) -> Option<Entry> {
    let TraitItem::Fn(function) = item else { return None };
    let path = format!("{of}::{}", function.sig.ident);
    let text = format!(": {}", signature(&function.sig));
    Some(Entry::new(path, Kind::Function, text, &function.attrs))
}

/// The types that a call of a macro in src/names.rs gives a trait, with the name of the trait.
fn implemented_by_macro(item: &Item) -> Vec<(String, &'static str)> {
    let Item::Macro(call) = item else { return Vec::new() };
    let text = tokens(&call.mac.tokens);
    let (types, name) = match tokens(&call.mac.path).as_str() {
        "machine_names" => (text.split(',').next().unwrap_or(""), "FromStr"),
        "shown_by_name" => (text.as_str(), "fmt::Display"),
        _ => return Vec::new(),
    };
    types.split_whitespace().map(|of| (of.to_owned(), name)).collect()
}

/// The public items of a macro call at the level of a module, without their documentation.
fn made_by_macro(item: &Item) -> Option<String> {
    let Item::Macro(call) = item else { return None };
    let text = tokens(&call.mac.tokens);
    let is_definition = call.mac.path.is_ident("macro_rules");
    let mut plain = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("#[doc =") {
        plain.push_str(before);
        rest = after.split_once("\"]").map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    let has_types = plain.contains("pub struct") || plain.contains("= SIG");
    let words: Vec<&str> = plain.split_whitespace().collect();
    (has_types && !is_definition).then(|| format!("{}! {{ {} }}", tokens(&call.mac.path), words.join(" ")))
}

fn signature(signature: &syn::Signature) -> String {
    let mut whole = signature.clone();
    whole.ident = syn::Ident::new("function", whole.ident.span());
    // Whether an argument can be changed inside is not a part of the interface.
    tokens(&whole)
        .replacen("fn function", "fn", 1)
        .replace("(mut ", "(")
        .replace(", mut ", ", ")
}

fn fields(fields: &Fields, only_public: bool) -> String {
    let shown = fields.iter().filter(|field| !only_public || is_public(&field.vis));
    let hidden = fields.len() - shown.clone().count();
    let mut parts: Vec<String> = shown
        .map(|field| {
            let mut field = field.clone();
            field.attrs.clear();
            tokens(&field)
        })
        .collect();
    if hidden > 0 {
        parts.push("..".to_owned());
    }
    match fields {
        Fields::Named(_) => format!(" {{ {} }}", parts.join(", ")),
        Fields::Unnamed(_) => format!("({})", parts.join(", ")),
        Fields::Unit => String::new(),
    }
}

/// The tokens as a text with the usual spaces.
fn tokens(of: &impl ToTokens) -> String {
    let mut text = of.to_token_stream().to_string();
    for (from, to) in [
        (" :: ", "::"),
        (":: ", "::"),
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        (" ,", ","),
        (",)", ")"),
        (", )", ")"),
        (" : ", ": "),
        (" < ", "<"),
        (" <", "<"),
        ("< ", "<"),
        (" >", ">"),
        ("& ", "&"),
        (" ;", ";"),
        ("# [", "#["),
        ("[ ", "["),
        (" ]", "]"),
        ("->", " -> "),
        ("  ", " "),
        ("  ", " "),
        ("impl(", "impl ("),
        (" '_ ", "'_ "),
    ] {
        text = text.replace(from, to);
    }
    text.trim().to_owned()
}

fn derives(attributes: &[Attribute]) -> Vec<String> {
    let lists = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("derive"));
    let names = lists.filter_map(|attribute| match &attribute.meta {
        syn::Meta::List(list) => Some(tokens(&list.tokens)),
        _ => None,
    });
    names
        .flat_map(|list| list.split(", ").map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

fn docs(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("doc") => Some(tokens(&pair.value)),
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn has(attributes: &[Attribute], name: &str) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident(name))
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn ident(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn visibility(item: &Item) -> &Visibility {
    match item {
        Item::Const(item) => &item.vis,
        Item::Enum(item) => &item.vis,
        Item::Fn(item) => &item.vis,
        Item::Static(item) => &item.vis,
        Item::Struct(item) => &item.vis,
        Item::Trait(item) => &item.vis,
        Item::Type(item) => &item.vis,
        _ => &Visibility::Inherited,
    }
}
