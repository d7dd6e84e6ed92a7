//! The answer to `status`: the state of each process.

use std::time::Duration;

use pidherd::lifecycle::{Failed, Failure, Remaining, State, Stopping};
use pidherd::supervisor::Status;

use super::model::Herd;
use super::select::Place;
use crate::config::{Program, Readiness};
use crate::names;
use crate::report::{Row, clock};

impl Herd {
    /// A row for each process that `text` names. Without `text`, a row for every process.
    ///
    /// # Errors
    /// One line: `text` names no process.
    pub fn status(&self, text: Option<&str>) -> Result<Vec<Row>, String> {
        let places = text.map_or_else(|| Ok(self.places()), |text| self.select(text))?;
        let row = |place: &Place| {
            let member = self.members.get(place.member)?;
            let status = self.supervisor.status(place.id)?;
            Some(Row {
                name: names::shown(&member.program.group, member.name(place.number)),
                state: status.state.name(),
                detail: self.detail(&status, &member.program),
            })
        };
        Ok(places.iter().filter_map(row).collect())
    }

    pub(super) fn detail(&self, status: &Status, program: &Program) -> String {
        let retries = program.startretries;
        match &status.state {
            State::Preparing { .. } => format!("{}, command before the run", alive(status)),
            State::CleaningUp { .. } => format!("{}, command after the run", alive(status)),
            State::Starting { .. } if program.beyond.readiness == Readiness::Completes => {
                format!("{}, job", alive(status))
            }
            State::Starting { .. } if program.beyond.readiness != Readiness::Grace => {
                format!("{}, not ready yet{}", alive(status), status_text(status))
            }
            State::Starting { .. } | State::Running { .. } => format!("{}{}", alive(status), status_text(status)),
            State::Stopping(_) if self.unkillable.contains(&status.instance) => {
                format!("{}, survives SIGKILL", alive(status))
            }
            State::Stopping(Stopping {
                remaining: Remaining::Others { exit, .. },
                ..
            }) => {
                format!("{exit}, but processes that it started are alive")
            }
            State::Stopping(Stopping {
                failed: Some(Failed { failure, .. }),
                ..
            }) => {
                format!("{}, being stopped: {failure}", alive(status))
            }
            State::Stopping(_) => format!("{}, asked to stop{}", alive(status), status_text(status)),
            State::Exited { exit, expected } => {
                let verdict = if *expected { "as expected" } else { "not expected" };
                format!("{exit}, {verdict}{}", lasted(status))
            }
            State::Backoff { until, failure } => {
                let wait = until.saturating_duration_since(self.supervisor.now()).as_secs_f64();
                let shortages = self.shortages.get(&status.instance).copied().unwrap_or(0);
                let retry = retry(failure, status.failed_starts.saturating_sub(shortages), retries);
                format!("{}; {retry} in {wait:.1} s", why(status, failure))
            }
            State::Fatal { failure, .. } => format!("{}; given up", why(status, failure)),
            State::Stopped if !status.waits_for.is_empty() => {
                let names: Vec<String> = status.waits_for.iter().map(|&id| self.called(id)).collect();
                format!("waits for {}", names.join(", "))
            }
            State::Stopped => match &status.last_exit {
                None if status.runs == 0 => "not started".to_owned(),
                None => "stopped".to_owned(),
                Some(record) => format!("{}{}", record.exit, lasted(status)),
            },
            other => other.name().to_string(),
        }
    }
}

/// Describes the step after the delay. `used` is the number of failed starts that count against the retries,
/// including the last one.
fn retry(failure: &Failure, used: u32, retries: u32) -> String {
    match failure {
        // A missing resource, such as memory, is no fault of the program and uses up no retry.
        Failure::Spawn { permanent: false, .. } => "another attempt".to_owned(),
        // The process reached RUNNING before it ended, and is restarted after a delay.
        _ if used == 0 => "restart".to_owned(),
        // A reload lowered the number of retries in the meantime.
        _ if used > retries => "last retry".to_owned(),
        _ => format!("retry {used} of {retries}"),
    }
}

fn alive(status: &Status) -> String {
    let uptime = clock(status.uptime.unwrap_or_default());
    match status.pid {
        Some(pid) => format!("pid {pid}, uptime {uptime}"),
        None => format!("uptime {uptime}"),
    }
}

/// The number of characters of a status text that fit into a line.
const LONGEST_WORDS: usize = 60;

/// The status text of a process (`STATUS=` of the notify protocol), in quotes. The text may contain control
/// characters, which are escaped, so that none of them reaches a terminal.
fn status_text(status: &Status) -> String {
    let Some(words) = &status.status_text else {
        return String::new();
    };
    match words.char_indices().nth(LONGEST_WORDS) {
        Some((end, _)) => format!(", status {:?}...", words.get(..end).unwrap_or_default()),
        None => format!(", status {words:?}"),
    }
}

fn lasted(status: &Status) -> String {
    let lasted = status.lasted.filter(|&lasted| lasted >= Duration::from_secs(1));
    lasted.map_or(String::new(), |lasted| format!(", after {}", clock(lasted)))
}

/// The reason why a process is down. For a failed spawn it is the library's error, which names the step and the path.
fn why(status: &Status, failure: &Failure) -> String {
    match (failure, &status.last_error) {
        (Failure::Spawn { .. }, Some(error)) => error.to_string(),
        _ => failure.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pidherd::exit::Exit;

    #[test]
    fn a_shortage_is_no_retry_and_no_retry_exceeds_its_number() {
        let shortage = Failure::Spawn {
            errno: 11,
            permanent: false,
        };
        let ended = Failure::Ended(Exit::Code(1));
        assert_eq!(retry(&shortage, 0, 3), "another attempt");
        assert_eq!(retry(&shortage, 2, 3), "another attempt");
        assert_eq!(retry(&ended, 1, 3), "retry 1 of 3");
        assert_eq!(retry(&ended, 3, 3), "retry 3 of 3");
        assert_eq!(retry(&ended, 2, 1), "last retry");
        assert_eq!(retry(&ended, 0, 3), "restart");
    }
}
