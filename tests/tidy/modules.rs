//! The modules of a crate and the imports between them, as far as the rules need them.
//!
//! The parser is syn. A path leads to the module in which its item is defined: `crate::Signal` leads to the module
//! `signal`, because the crate's root only re-exports the type. Code for tests alone is left out.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use super::source::{attributes, is_for_tests, module_path};

/// The names of a module and its ancestors, outermost first. The crate's root is empty.
pub type ModulePath = Vec<String>;

/// A crate's modules by path.
#[derive(Debug, Default)]
pub struct Crate {
    pub name: String,
    modules: BTreeMap<ModulePath, Module>,
}

#[derive(Debug, Default)]
struct Module {
    /// The names of the modules that it declares.
    children: BTreeSet<String>,
    /// What each imported name stands for.
    imports: BTreeMap<String, Vec<String>>,
    /// All paths in the module's code, including those of its imports.
    paths: BTreeSet<Vec<String>>,
}

/// One arrow: code in `from` uses an item that is defined in `to`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrow {
    pub from: ModulePath,
    pub to: ModulePath,
}

impl Crate {
    /// Parses the files of a crate. Each file has a path relative to the crate's root file's directory.
    pub fn parse(name: &str, files: &[(&str, &str)]) -> Crate {
        let mut reader = Reader::default();
        for (path, text) in files {
            let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{name}/{path}: {error}"));
            reader.at = module_path(path);
            reader.module();
            reader.visit_file(&file);
        }
        let Reader {
            mut modules, for_tests, ..
        } = reader;
        modules.retain(|path, _| !for_tests.iter().any(|test| path.starts_with(test)));
        Crate {
            name: name.to_owned(),
            modules,
        }
    }

    /// Every module with the paths in its code.
    pub fn paths(&self) -> impl Iterator<Item = (&ModulePath, &BTreeSet<Vec<String>>)> {
        self.modules.iter().map(|(path, module)| (path, &module.paths))
    }

    /// Every arrow between two modules, except those from a module to its own descendants.
    pub fn arrows(&self) -> BTreeSet<Arrow> {
        let mut arrows = BTreeSet::new();
        for (from, module) in &self.modules {
            let targets = module.paths.iter().filter_map(|path| self.resolve(from, path, 0));
            arrows.extend(
                targets
                    .filter(|to| !to.starts_with(from))
                    .map(|to| Arrow { from: from.clone(), to }),
            );
        }
        arrows
    }

    /// The module that defines the item at the end of `path`, seen from the module `from`. `None` if the path leads
    /// out of the crate, or if it begins with a name that an import brought into the module.
    fn resolve(&self, from: &[String], path: &[String], depth: usize) -> Option<ModulePath> {
        let first = path.first().map(String::as_str)?;
        let supers = path.iter().take_while(|segment| *segment == "super").count();
        let (mut at, rest) = match first {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (from.to_vec(), &path[1..]),
            "super" => (from[..from.len().checked_sub(supers)?].to_vec(), &path[supers..]),
            _ if self.modules.get(from)?.children.contains(first) => (from.to_vec(), path),
            _ => return None,
        };
        for (index, segment) in rest.iter().enumerate() {
            let Some(module) = self.modules.get(&at) else { break };
            if module.children.contains(segment) {
                at.push(segment.clone());
            } else if let Some(import) = module.imports.get(segment).filter(|_| depth < 10) {
                let whole = [import, &rest[index + 1..]].concat();
                return self.resolve(&at, &whole, depth + 1);
            } else {
                break;
            }
        }
        Some(at)
    }
}

/// Collects the modules of all files.
#[derive(Default)]
struct Reader {
    at: ModulePath,
    modules: BTreeMap<ModulePath, Module>,
    for_tests: Vec<ModulePath>,
}

impl Reader {
    fn module(&mut self) -> &mut Module {
        self.modules.entry(self.at.clone()).or_default()
    }

    fn import(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let joined = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        let (path, name) = match tree {
            syn::UseTree::Path(path) => return self.import(&joined(&path.ident), &path.tree),
            syn::UseTree::Group(group) => return group.items.iter().for_each(|tree| self.import(prefix, tree)),
            syn::UseTree::Name(name) if name.ident == "self" => (prefix.to_vec(), prefix.last().cloned()),
            syn::UseTree::Name(name) => (joined(&name.ident), Some(name.ident.to_string())),
            syn::UseTree::Rename(rename) => (joined(&rename.ident), Some(rename.rename.to_string())),
            _ => (prefix.to_vec(), None),
        };
        let module = self.module();
        module.paths.insert(path.clone());
        module.imports.extend(name.map(|name| (name, path)));
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !attributes(item).iter().any(is_for_tests) {
            visit::visit_item(self, item);
        } else if let syn::Item::Mod(module) = item {
            self.for_tests
                .push([&self.at[..], &[module.ident.to_string()]].concat());
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !function.attrs.iter().any(is_for_tests) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.module().children.insert(module.ident.to_string());
        self.at.push(module.ident.to_string());
        if module.content.is_some() {
            self.module();
        }
        visit::visit_item_mod(self, module);
        self.at.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let names = path.segments.iter().map(|segment| segment.ident.to_string());
            let names = names.collect();
            self.module().paths.insert(names);
        }
        visit::visit_path(self, path);
    }

    /// The arguments of a macro are tokens. They are separated by spaces, except around some punctuation.
    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        let text = mac.tokens.to_string().replace(" :: ", "::");
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        for word in words.filter(|word| word.contains("::") && !word.starts_with("::")) {
            let names = word.split("::").map(|name| name.trim_matches(':').to_owned());
            let names = names.filter(|name| !name.is_empty()).collect();
            self.module().paths.insert(names);
        }
        visit::visit_macro(self, mac);
    }

    /// The path in `pub(in crate::fdset)` is no import.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}
