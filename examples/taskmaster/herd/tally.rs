//! Sums up the outcome of a command in one line.

use pidherd::supervisor::Outcome;

use super::model::Verb;

/// The outcome of a command, summed up over all its processes.
#[derive(Debug, Default)]
pub(super) struct Tally {
    accepted: u32,
    already: u32,
    queued: u32,
    failed: u32,
}

impl Tally {
    pub(super) fn add(&mut self, outcome: Outcome) {
        self.accepted += outcome.accepted;
        self.already += outcome.already;
        self.queued += outcome.queued;
        self.failed += outcome.failed;
    }

    pub(super) fn total(&self) -> u32 {
        self.accepted + self.already + self.queued + self.failed
    }

    /// Formats the answer.
    ///
    /// # Errors
    /// A signal reached no process, because none is running. No other command fails here.
    pub(super) fn line(&self, verb: Verb, text: &str) -> Result<String, String> {
        let (verb, already) = match verb {
            Verb::Start => ("start".to_owned(), "already up"),
            Verb::Stop => ("stop".to_owned(), "already down"),
            Verb::Restart => ("restart".to_owned(), "already in progress"),
            Verb::Signal(_) if self.accepted + self.failed == 0 => {
                return Err(format!("no process of {text} is running"));
            }
            Verb::Signal(signal) => (format!("signal {signal}"), "not running"),
        };
        let counts = [
            (self.accepted, "accepted"),
            (self.already, already),
            (self.queued, "queued"),
            (self.failed, "failed"),
        ];
        let total = self.total();
        let part = |(count, word): (u32, &str)| {
            if total == 1 {
                word.to_owned()
            } else {
                format!("{count} {word}")
            }
        };
        let parts: Vec<String> = counts.into_iter().filter(|&(count, _)| count > 0).map(part).collect();
        let parts = if parts.is_empty() {
            "no processes".to_owned()
        } else {
            parts.join(", ")
        };
        Ok(format!("{verb} {text}: {parts}"))
    }
}
