//! The order of the programs: which ones a program comes after, and which ones it requires.
//!
//! A reference is the name of a program, of a group, or `GROUP:NAME`. It means every program with this name, and every
//! program of the group. It may refer to programs that come later in the file.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::beyond::Order;
use super::groups::Group;
use super::problem::Problem;
use super::program::Program;

/// Whether the reference `text` means this program.
pub fn means(text: &str, program: &Program) -> bool {
    match text.split_once(':') {
        Some((group, name)) => program.group == group && program.name == name,
        None => program.name == text || program.group == text,
    }
}

/// The programs by the references that mean them.
struct Index<'a>(HashMap<String, BTreeSet<usize>>, &'a [&'a Program]);

impl<'a> Index<'a> {
    fn new(programs: &'a [&'a Program]) -> Index<'a> {
        let mut index: HashMap<String, BTreeSet<usize>> = HashMap::new();
        // Most configurations have no order, and need no index.
        let used = programs.iter().any(|program| !program.beyond.order.is_empty());
        for (number, program) in programs.iter().enumerate().filter(|_| used) {
            let full = format!("{}:{}", program.group, program.name);
            for name in [full, program.group.clone(), program.name.clone()] {
                index.entry(name).or_default().insert(number);
            }
        }
        Index(index, programs)
    }

    /// The programs that this one comes after.
    fn before(&self, number: usize) -> BTreeSet<usize> {
        let order = self.1.get(number).map(|program| &program.beyond.order);
        let names = order.into_iter().flat_map(Order::references);
        names
            .filter_map(|(_, name)| self.0.get(name))
            .flatten()
            .copied()
            .collect()
    }
}

/// The mistakes in the order of a whole configuration.
pub fn check(groups: &[Group]) -> Vec<Problem> {
    let programs: Vec<&Program> = groups
        .iter()
        .flat_map(|group| &group.programs)
        .map(Arc::as_ref)
        .collect();
    let index = Index::new(&programs);
    let mut problems = Vec::new();
    for (number, program) in programs.iter().enumerate() {
        for (key, name) in program.beyond.order.references() {
            let meant = index.0.get(name);
            let is_empty = |meant: &BTreeSet<usize>| meant.iter().all(|&other| programs[other].numprocs == 0);
            let message = match meant {
                None => format!("{key}: there is no program and no group {name}"),
                Some(meant) if meant.contains(&number) => format!("{key}: {name} means the program itself"),
                Some(meant) if key == "requires" && is_empty(meant) => {
                    format!("{key}: {name} has no process, and would never be running")
                }
                Some(_) => continue,
            };
            problems.push(program.problem(message));
        }
    }
    if problems.is_empty() {
        problems.extend(cycle(&programs, &index));
    }
    problems
}

/// The first program that comes after itself through others.
fn cycle(programs: &[&Program], index: &Index<'_>) -> Option<Problem> {
    let sorted = sort(programs.len(), |number| index.before(number));
    let mut place = vec![0; programs.len()];
    sorted.iter().enumerate().for_each(|(at, &number)| place[number] = at);
    for &number in &sorted {
        let late = index
            .before(number)
            .into_iter()
            .find(|&other| place[other] > place[number]);
        if let Some(other) = late {
            let (name, other) = (&programs[number].name, &programs[other].name);
            return Some(programs[number].problem(format!("{name} comes after {other}, which comes after {name}")));
        }
    }
    None
}

/// Sorts programs so that each one follows those that it comes after. Otherwise the order stays as it is.
pub fn sorted<T: Clone>(items: Vec<T>, program: impl Fn(&T) -> &Program) -> Vec<T> {
    let programs: Vec<&Program> = items.iter().map(&program).collect();
    let index = Index::new(&programs);
    if index.0.is_empty() {
        return items;
    }
    let order = sort(items.len(), |number| index.before(number));
    order
        .into_iter()
        .filter_map(|number| items.get(number).cloned())
        .collect()
}

/// The numbers up to `count` in an order in which each follows those `before` it, as far as there is no cycle.
fn sort(count: usize, before: impl Fn(usize) -> BTreeSet<usize>) -> Vec<usize> {
    let mut sorted = Vec::with_capacity(count);
    let mut seen = vec![false; count];
    // Each entry has a number and those that have to come before it. A recursion could exhaust the stack.
    let mut stack: Vec<(usize, BTreeSet<usize>)> = Vec::new();
    for first in 0..count {
        if !std::mem::replace(&mut seen[first], true) {
            stack.push((first, before(first)));
        }
        while let Some((number, rest)) = stack.last_mut() {
            match rest.pop_first() {
                Some(next) if !std::mem::replace(&mut seen[next], true) => stack.push((next, before(next))),
                Some(_) => {}
                None => {
                    sorted.push(*number);
                    stack.pop();
                }
            }
        }
    }
    sorted
}
