//! Tries mutants that cannot be chosen at run time, each in a build of its own.

use std::path::PathBuf;

use crate::list::Mutant;
use crate::plan::Plan;
use crate::reach::Test;
use crate::sandbox::Sandbox;
use crate::tree::Binary;
use crate::trial::{self, Outcome, Trials};

pub struct Singles<'a> {
    pub plan: &'a Plan<'a>,
    pub sandbox: &'a Sandbox,
    /// The binaries of the build with all other mutants.
    pub binaries: &'a [Binary],
    /// The tests of those.
    pub tests: &'a [Test],
    pub results: PathBuf,
    /// Whether the slow tests run for what the others let pass.
    pub slow: bool,
}

impl Singles<'_> {
    /// Builds and runs the unit tests with this mutant, and the others if none of those notices it. `None` if it does
    /// not compile.
    pub fn outcome(&self, mutant: &Mutant) -> Result<Option<Outcome>, String> {
        let whole = trial::digest(self.binaries);
        // Results are known by the build of all other mutants, so that a later run finds them without this build.
        for (build, is_whole) in [(format!("{whole} lib"), false), (whole.clone(), true)] {
            let slow = self.slow && is_whole;
            let known = trial::known(&self.results, &build).get(&mutant.key).copied();
            let outcome = match known.filter(|outcome| *outcome != Outcome::Suspect || !slow) {
                Some(outcome) => outcome,
                None => match self.plan.build_alone(mutant, is_whole)? {
                    Some(binaries) => self.tried(mutant, &binaries, build, slow)?,
                    None => return Ok(None),
                },
            };
            if is_whole || outcome != Outcome::Suspect {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }

    fn tried(&self, mutant: &Mutant, binaries: &[Binary], build: String, slow: bool) -> Result<Outcome, String> {
        let test = |test: &Test| {
            let name = &self.binaries[test.binary].name;
            let binary = binaries.iter().position(|binary| binary.name == *name)?;
            // It is unknown which of them reach the mutant.
            Some(Test {
                binary,
                name: test.name.clone(),
                takes: test.takes,
                reached: vec![mutant.number],
            })
        };
        let tests: Vec<Test> = self.tests.iter().filter_map(test).collect();
        let trials = Trials::new(self.sandbox, binaries, &tests, self.results.clone(), build);
        let outcomes = trials.run(&[mutant], 1, slow)?;
        outcomes.get(&mutant.number).copied().ok_or("no outcome".to_owned())
    }
}
