//! The command line.

use super::case::Case;
use super::contender::Name;

/// The number of rounds, the size of the environments, and the cases and contenders to run.
#[derive(Debug)]
pub struct Options {
    pub blocks: usize,
    pub rounds_a_block: usize,
    /// Whether the environments are small. Then a run shows only that the benchmark works.
    pub small: bool,
    /// The file for a picture.
    pub svg: Option<String>,
    words: Vec<String>,
    only: Vec<String>,
}

/// The default number of rounds. It takes a few minutes on two cores.
const ROUNDS: usize = 300;
const BLOCKS: usize = 6;

impl Options {
    /// Reads the command line: `--rounds N`, `--only NAME` for a contender, `--svg FILE`, and words. A case runs if its
    /// name contains one of the words.
    ///
    /// Cargo passes `--bench` for a benchmark. `cargo test --benches` does not; then the environments are
    /// small and there are only two rounds.
    pub fn from_args() -> Options {
        let mut args = std::env::args().skip(1);
        let (mut rounds, mut small) = (ROUNDS, true);
        let (mut words, mut only, mut svg) = (Vec::new(), Vec::new(), None);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => small = false,
                "--rounds" => rounds = args.next().and_then(|text| text.parse().ok()).unwrap_or_else(usage),
                "--svg" => svg = Some(args.next().unwrap_or_else(usage)),
                "--only" => only.push(args.next().unwrap_or_else(usage)),
                word if word.starts_with('-') => usage(),
                word => words.push(word.to_owned()),
            }
        }
        if small {
            rounds = 2;
        }
        let blocks = BLOCKS.min(rounds);
        Options {
            blocks,
            rounds_a_block: rounds.div_ceil(blocks.max(1)),
            small,
            svg,
            words,
            only,
        }
    }

    pub fn rounds(&self) -> usize {
        self.blocks * self.rounds_a_block
    }

    pub fn cases(&self) -> impl Iterator<Item = Case> + '_ {
        let wanted = |case: &Case| self.words.is_empty() || self.words.iter().any(|word| case.name().contains(word));
        Case::ALL.into_iter().filter(wanted)
    }

    pub fn wants(&self, name: Name) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name.as_str())
    }
}

fn usage<T>() -> T {
    eprintln!("usage: cargo bench --bench spawn -- [--rounds N] [--only CONTENDER]... [--svg FILE] [CASE]...");
    std::process::exit(2);
}
