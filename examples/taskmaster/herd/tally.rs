//! The outcome of a command, in a line.

use pidherd::supervisor::Outcome;

use super::Verb;

/// The outcome of a command, summed up over all processes that it meant.
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

    /// The answer.
    ///
    /// # Errors
    /// The only request that can come to nothing: a signal to what isn't running.
    pub(super) fn line(&self, verb: Verb, text: &str) -> Result<String, String> {
        let (verb, already) = match verb {
            Verb::Start => ("start".to_owned(), "already up"),
            Verb::Stop => ("stop".to_owned(), "already down"),
            Verb::Restart => ("restart".to_owned(), "already on its way"),
            Verb::Signal(_) if self.accepted + self.failed == 0 => return Err(format!("nothing of {text} is running")),
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
            "there is nothing".to_owned()
        } else {
            parts.join(", ")
        };
        Ok(format!("{verb} {text}: {parts}"))
    }
}
