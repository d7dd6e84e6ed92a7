//! Generates combinations of settings that contain every pair of values.
//!
//! A fault that needs one certain value of each of two settings appears in any set of combinations that
//! contains all pairs. The full product of thirty settings would be far too large.
//!
//! The algorithm is greedy. Each row begins with a pair that has not occurred yet. Then it goes through the
//! other settings in random order, and takes the value that adds the most new pairs. After the rows that the
//! pairs need, it adds random rows; they may contain a fault that needs three or four values.

use std::collections::BTreeSet;
use std::fmt;

use fastrand::Rng;

/// A setting's name, and the values to try.
pub type Parameter = (&'static str, &'static [&'static str]);

/// One value of one setting, as the indexes of setting and value.
pub type Choice = (usize, usize);

/// One value for every setting.
#[derive(Clone, PartialEq, Eq)]
pub struct Combination {
    parameters: &'static [Parameter],
    values: Vec<usize>,
}

impl Combination {
    /// The value of the setting with this name.
    pub fn get(&self, name: &str) -> &'static str {
        let mut all = self.parameters.iter().zip(&self.values);
        let found = all.find(|((parameter, _), _)| *parameter == name);
        let ((_, values), &value) = found.unwrap_or_else(|| panic!("no setting {name:?}"));
        values[value]
    }

    /// Every pair of values in this combination.
    pub fn pairs(&self) -> impl Iterator<Item = (Choice, Choice)> + '_ {
        let choices = |from| self.values.iter().copied().enumerate().skip(from);
        choices(0).flat_map(move |first| choices(first.0 + 1).map(move |second| (first, second)))
    }
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = self.parameters.iter().zip(&self.values);
        all.try_for_each(|((name, values), &value)| writeln!(f, "  {name}: {}", values[value]))
    }
}

/// The settings, and the pairs of values that exclude each other.
#[derive(Clone, Copy)]
pub struct Space {
    pub parameters: &'static [Parameter],
    pub excluded: fn((&str, &str), (&str, &str)) -> bool,
    /// A slow value. It is rare in the combinations that no pair needs.
    pub slow: (&'static str, &'static str),
}

impl Space {
    /// At least `count` combinations that contain every pair except the excluded ones.
    pub fn combinations(&self, count: usize, random: &mut Rng) -> Vec<Combination> {
        let mut missing: BTreeSet<(Choice, Choice)> = self.pairs().filter(|pair| !self.excludes(*pair)).collect();
        let mut rows = Vec::new();
        while !missing.is_empty() || rows.len() < count {
            let seed = missing.first().copied();
            let row = self.row(seed, &missing, random);
            if missing.is_empty() && row.get(self.slow.0) == self.slow.1 && random.u8(..16) > 0 {
                continue;
            }
            row.pairs().for_each(|pair| {
                missing.remove(&pair);
            });
            rows.push(row);
        }
        rows
    }

    /// All pairs of values of two different settings, excluded or not.
    pub fn pairs(&self) -> impl Iterator<Item = (Choice, Choice)> + '_ {
        let choices = |of: usize| (0..self.parameters[of].1.len()).map(move |value| (of, value));
        let settings = 0..self.parameters.len();
        settings
            .flat_map(move |first| (first + 1..self.parameters.len()).map(move |second| (first, second)))
            .flat_map(move |(first, second)| choices(first).flat_map(move |a| choices(second).map(move |b| (a, b))))
    }

    /// Whether the two values exclude each other.
    pub fn excludes(&self, (first, second): (Choice, Choice)) -> bool {
        let named = |(setting, value): Choice| (self.parameters[setting].0, self.parameters[setting].1[value]);
        (self.excluded)(named(first), named(second)) || (self.excluded)(named(second), named(first))
    }

    /// A combination with this pair, excluded or not. Its other values are random.
    pub fn with(&self, pair: (Choice, Choice), random: &mut Rng) -> Combination {
        self.row(Some(pair), &BTreeSet::new(), random)
    }

    fn row(
        &self,
        seed: Option<(Choice, Choice)>,
        missing: &BTreeSet<(Choice, Choice)>,
        random: &mut Rng,
    ) -> Combination {
        let mut taken: Vec<Choice> = seed.into_iter().flat_map(|(first, second)| [first, second]).collect();
        let mut left: Vec<usize> = (0..self.parameters.len())
            .filter(|&setting| taken.iter().all(|&(known, _)| known != setting))
            .collect();
        while !left.is_empty() {
            let setting = left.swap_remove(random.usize(..left.len()));
            let value = self.best_value(setting, &taken, missing, random);
            taken.push((setting, value));
        }
        taken.sort_unstable();
        Combination {
            parameters: self.parameters,
            values: taken.into_iter().map(|(_, value)| value).collect(),
        }
    }

    fn best_value(
        &self,
        setting: usize,
        taken: &[Choice],
        missing: &BTreeSet<(Choice, Choice)>,
        random: &mut Rng,
    ) -> usize {
        let ordered = |a: Choice, b: Choice| if a < b { (a, b) } else { (b, a) };
        let possible = (0..self.parameters[setting].1.len())
            .map(|value| (setting, value))
            .filter(|&choice| !taken.iter().any(|&other| self.excludes((choice, other))));
        let rated = possible.map(|choice| {
            let gain = |other: &&Choice| missing.contains(&ordered(choice, **other));
            (taken.iter().filter(gain).count(), random.u16(..), choice.1)
        });
        let (.., value) = rated.max().expect("every value of the setting is excluded");
        value
    }
}

#[test]
fn the_combinations_contain_every_pair() {
    let space = Space {
        parameters: &[
            ("a", &["0", "1", "2"]),
            ("b", &["0", "1"]),
            ("c", &["0", "1", "2", "3"]),
        ],
        excluded: |first, second| (first, second) == (("a", "2"), ("b", "1")),
        slow: ("a", "1"),
    };
    let rows = space.combinations(0, &mut Rng::with_seed(1));
    assert!((12..=18).contains(&rows.len()), "{} rows", rows.len());
    let covered: BTreeSet<_> = rows.iter().flat_map(Combination::pairs).collect();
    let possible: BTreeSet<_> = space.pairs().filter(|pair| !space.excludes(*pair)).collect();
    assert_eq!(space.pairs().count() - possible.len(), 1);
    assert_eq!(covered, possible);
}
