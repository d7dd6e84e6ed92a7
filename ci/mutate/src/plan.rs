//! Which mutants can be chosen in one build, found by building it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::list::Mutant;
use crate::render::{self, Rendered};
use crate::source::Source;
use crate::tree::{Binary, Fault, Tree};

/// The runtime part, see the file.
const CHOSEN: &str = include_str!("chosen.rs");

pub struct Plan<'a> {
    tree: &'a Tree,
    mutants: &'a [Mutant],
    /// The file with what is found out.
    memory: PathBuf,
    sources: BTreeMap<String, Source>,
    /// The constant functions that must stay constant, as file and index.
    keep: BTreeMap<String, BTreeSet<usize>>,
    /// The mutants that are not in the build.
    without: BTreeMap<u32, LeftOut>,
    rendered: HashMap<String, Rendered>,
}

/// Why a mutant is not in the build.
struct LeftOut {
    reason: String,
    /// Whether it compiles in a build of its own, once that is known.
    compiles: Option<bool>,
}

impl LeftOut {
    fn new(reason: impl Into<String>) -> LeftOut {
        let reason = reason.into();
        LeftOut { reason, compiles: None }
    }
}

impl<'a> Plan<'a> {
    /// Reads the sources. The file `memory` has what earlier plans found out about files that have not changed since.
    pub fn new(tree: &'a Tree, mutants: &'a [Mutant], memory: PathBuf) -> Result<Plan<'a>, String> {
        let mut plan = Plan {
            tree,
            mutants,
            memory,
            sources: BTreeMap::new(),
            keep: BTreeMap::new(),
            without: BTreeMap::new(),
            rendered: HashMap::new(),
        };
        for name in tree.sources() {
            let content = fs::read(tree.from.join(&name)).map_err(|error| format!("{name}: {error}"))?;
            if !name.ends_with(".rs") {
                tree.write(&name, &content)?;
                continue;
            }
            let text = String::from_utf8(content).map_err(|error| format!("{name}: {error}"))?;
            let own: Vec<&Mutant> = mutants.iter().filter(|mutant| mutant.file == name).collect();
            let source = Source::parse(&text, &own).map_err(|error| format!("{name}: {error}"))?;
            for number in &source.fixed {
                plan.without
                    .insert(*number, LeftOut::new("cannot be chosen at run time"));
            }
            plan.sources.insert(name, source);
        }
        plan.tree.write("src/mutant.rs", CHOSEN.as_bytes())?;
        plan.recall();
        Ok(plan)
    }

    fn recall(&mut self) {
        let text = fs::read_to_string(&self.memory).unwrap_or_default();
        let Ok(memory) = serde_json::from_str::<Value>(&text) else {
            return;
        };
        for (name, source) in &self.sources {
            let file = &memory[name];
            if file["digest"] != json!(crate::digest(&source.text)) {
                continue;
            }
            let keep = file["keep"].as_array().into_iter().flatten().filter_map(Value::as_u64);
            self.keep
                .insert(name.clone(), keep.map(|index| index as usize).collect());
            for mutant in self.mutants.iter().filter(|mutant| mutant.file == *name) {
                let known = &file["left_out"][&mutant.name];
                if let Some(reason) = known["reason"].as_str() {
                    let mut left_out = LeftOut::new(reason);
                    left_out.compiles = known["compiles"].as_bool();
                    self.without.insert(mutant.number, left_out);
                }
            }
        }
    }

    /// Keeps what is known for the next plan.
    fn remember(&self) -> Result<(), String> {
        let mut files = BTreeMap::new();
        for (name, source) in &self.sources {
            let own = self.mutants.iter().filter(|mutant| mutant.file == *name);
            let known = |mutant: &Mutant| {
                let left_out = self.without.get(&mutant.number)?;
                let value = json!({ "reason": left_out.reason, "compiles": left_out.compiles });
                Some((mutant.name.clone(), value))
            };
            let left_out: BTreeMap<String, Value> = own.filter_map(known).collect();
            let keep = self.keep.get(name).cloned().unwrap_or_default();
            files.insert(
                name,
                json!({ "digest": crate::digest(&source.text), "keep": keep, "left_out": left_out }),
            );
        }
        let text = format!("{:#}\n", json!(files));
        fs::write(&self.memory, text).map_err(|error| format!("{}: {error}", self.memory.display()))
    }

    /// Leaves out mutants until the rest compiles, and builds the tests.
    pub fn build(&mut self) -> Result<Vec<Binary>, String> {
        loop {
            self.check()?;
            self.check_left_out()?;
            self.remember()?;
            self.write()?;
            match self.tree.build(&self.tree.tests)? {
                Ok(binaries) => return Ok(binaries),
                Err(faults) => self.leave_out(&faults)?,
            }
        }
    }

    fn check(&mut self) -> Result<(), String> {
        loop {
            self.write()?;
            let faults = self.tree.check()?;
            eprintln!("{} mutants are left out, {} errors", self.without.len(), faults.len());
            if faults.is_empty() {
                return Ok(());
            }
            self.leave_out(&faults)?;
        }
    }

    fn write(&mut self) -> Result<(), String> {
        let without: BTreeSet<u32> = self.without.keys().copied().collect();
        let none = BTreeSet::new();
        for (name, source) in &self.sources {
            let keep = self.keep.get(name).unwrap_or(&none);
            let mut rendered = render::with_choices(source, &without, keep);
            if name == "src/lib.rs" {
                rendered.text.push_str("\nmod mutant;\n");
            }
            self.tree.write(name, rendered.text.as_bytes())?;
            self.rendered.insert(name.clone(), rendered);
        }
        Ok(())
    }

    /// Leaves out the mutants that cause these errors.
    fn leave_out(&mut self, faults: &[Fault]) -> Result<(), String> {
        let mut progress = false;
        let mut unknown = Vec::new();
        for fault in faults {
            if fault.code == "E0015" {
                let restored = self.restore(&fault.message);
                progress |= restored;
                if restored {
                    continue;
                }
            }
            let numbers = culprits(&self.rendered, fault);
            if numbers.is_empty() {
                unknown.push(fault);
            }
            for number in numbers {
                progress |= self.without.insert(number, LeftOut::new(&fault.message)).is_none();
            }
        }
        // An error at another place may be a consequence of the others.
        match unknown.first() {
            Some(fault) if !progress => Err(format!(
                "no mutant causes this error: {} {:?}",
                fault.message, fault.places
            )),
            _ => Ok(()),
        }
    }

    /// Makes the function constant again that this error is about.
    fn restore(&mut self, message: &str) -> bool {
        let Some(path) = message.split('`').nth(1) else {
            return false;
        };
        let parts: Vec<&str> = path.split("::").filter(|part| !part.starts_with('<')).collect();
        let Some((name, before)) = parts.split_last() else {
            return false;
        };
        let of = before.last().map(|part| part.split('<').next().unwrap_or_default());
        let mut restored = false;
        for (file, source) in &self.sources {
            for (index, function) in source.const_fns.iter().enumerate() {
                let other_type = function
                    .of
                    .as_deref()
                    .is_some_and(|of_function| Some(of_function) != of);
                if function.name != *name || other_type {
                    continue;
                }
                restored |= self.keep.entry(file.clone()).or_default().insert(index);
                let sites = source.sites.iter().filter(|site| site.inside.contains(&index));
                for number in sites.flat_map(|site| site.numbers()) {
                    self.without
                        .insert(number, LeftOut::new(format!("{name} is evaluated at compile time")));
                }
            }
        }
        restored
    }

    /// Finds out which of the mutants that are not in the build compile alone.
    fn check_left_out(&mut self) -> Result<(), String> {
        // The length of an array in a type is checked where the type is used, so that only a whole build can tell.
        let outside: Vec<&Mutant> = self.mutants.iter().filter(|mutant| mutant.function.is_none()).collect();
        self.note_compiles(outside.into_iter().map(|mutant| mutant.number), true);
        let is_open = |mutant: &&Mutant| {
            self.without
                .get(&mutant.number)
                .is_some_and(|left| left.compiles.is_none())
        };
        let mut waiting: Vec<&Mutant> = self.mutants.iter().filter(is_open).collect();
        while !waiting.is_empty() {
            let mut functions = BTreeSet::new();
            let (mut now, later): (Vec<&Mutant>, Vec<&Mutant>) = waiting
                .into_iter()
                .partition(|mutant| functions.insert((&mutant.file, mutant.function)));
            eprintln!("checking {} mutants in place, {} wait", now.len(), later.len());
            loop {
                let found = self.check_in_place(&now)?;
                if found.is_empty() {
                    break;
                }
                now.retain(|mutant| !found.contains(&mutant.number));
                self.note_compiles(found.into_iter(), false);
            }
            self.note_compiles(now.iter().map(|mutant| mutant.number), true);
            waiting = later;
        }
        Ok(())
    }

    /// The mutants that are not in the build and compile in a build of their own, or do not.
    pub fn left_out(&self, compiles: bool) -> BTreeSet<u32> {
        let left_out = self.without.iter();
        let left_out = left_out.filter(|(_, left_out)| left_out.compiles == Some(compiles));
        left_out.map(|(number, _)| *number).collect()
    }

    fn note_compiles(&mut self, numbers: impl Iterator<Item = u32>, compiles: bool) {
        for number in numbers {
            if let Some(left_out) = self.without.get_mut(&number) {
                left_out.compiles = Some(compiles);
            }
        }
    }

    /// Builds the unit tests with this mutant and no other one, or all tests. `None` if it does not compile.
    pub fn build_alone(&self, mutant: &Mutant, all_tests: bool) -> Result<Option<Vec<Binary>>, String> {
        self.write_in_place(&[mutant])?;
        let unit_tests = ["--lib".to_owned()];
        let tests = if all_tests { &self.tree.tests[..] } else { &unit_tests };
        Ok(self.tree.build(tests)?.ok())
    }

    /// Writes the sources with these mutants in place, and without a choice.
    fn write_in_place(&self, now: &[&Mutant]) -> Result<HashMap<String, Rendered>, String> {
        let mut all = HashMap::new();
        for (name, source) in &self.sources {
            let own: Vec<&Mutant> = now.iter().filter(|mutant| mutant.file == *name).copied().collect();
            let rendered = render::in_place(&source.text, &own);
            self.tree.write(name, rendered.text.as_bytes())?;
            all.insert(name.clone(), rendered);
        }
        Ok(all)
    }

    fn check_in_place(&self, now: &[&Mutant]) -> Result<BTreeSet<u32>, String> {
        let all = self.write_in_place(now)?;
        let mut found = BTreeSet::new();
        for fault in self.tree.check()? {
            found.extend(culprits(&all, &fault));
            if found.is_empty() {
                return Err(format!(
                    "no mutant causes this error: {} {:?}",
                    fault.message, fault.places
                ));
            }
        }
        Ok(found)
    }
}

/// The mutants that an error is about: one with changed text at a place of the error, or else all of the innermost
/// site.
fn culprits(rendered: &HashMap<String, Rendered>, fault: &Fault) -> Vec<u32> {
    for changed in [true, false] {
        for (file, start, end) in &fault.places {
            let regions = rendered.get(file).into_iter().flat_map(|rendered| &rendered.regions);
            let around = regions
                .filter(|region| region.changed == changed && region.range.start <= *start && *end <= region.range.end);
            if let Some(region) = around.min_by_key(|region| region.range.len()) {
                return region.numbers.clone();
            }
        }
    }
    Vec::new()
}
