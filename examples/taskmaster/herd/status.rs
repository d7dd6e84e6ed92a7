//! The state of each process, in the words of `status`.

use std::time::Duration;

use pidherd::lifecycle::{Failed, Failure, Left, State, Stopping};
use pidherd::supervisor::Status;

use super::Herd;
use super::select::Place;
use crate::config::{Program, Readiness};
use crate::names;
use crate::report::{Row, clock};

impl Herd {
    /// A row for each process that `text` means, or for all.
    ///
    /// # Errors
    /// One line: it means none.
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

    fn detail(&self, status: &Status, program: &Program) -> String {
        let retries = program.startretries;
        match &status.state {
            State::Starting { .. } if program.beyond.readiness != Readiness::Grace => {
                format!("{}, not ready yet{}", alive(status), says(status))
            }
            State::Starting { .. } | State::Running { .. } => format!("{}{}", alive(status), says(status)),
            State::Stopping(_) if self.unkillable.contains(&status.instance) => {
                format!("{}, survives SIGKILL", alive(status))
            }
            State::Stopping(Stopping {
                left: Left::Others { exit, .. },
                ..
            }) => {
                format!("{exit}, but what it has started is alive")
            }
            State::Stopping(Stopping {
                failed: Some(Failed { failure, .. }),
                ..
            }) => {
                format!("{}, being stopped: {failure}", alive(status))
            }
            State::Stopping(_) => format!("{}, asked to stop{}", alive(status), says(status)),
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
            State::Stopped => match &status.last_exit {
                None if status.runs == 0 => "not started".to_owned(),
                None => "stopped".to_owned(),
                Some(record) => format!("{}{}", record.exit, lasted(status)),
            },
        }
    }
}

/// What comes after the wait. `used` is how many failed starts count against the retries, the last one included.
fn retry(failure: &Failure, used: u32, retries: u32) -> String {
    match failure {
        // A lack of memory or the like is no fault of the program's, and uses up no retry.
        Failure::Spawn { permanent: false, .. } => "another try".to_owned(),
        // It ran, and is restarted after a delay.
        _ if used == 0 => "restart".to_owned(),
        // The number of retries was lowered meanwhile.
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

/// More characters of a process's status text do not fit into a line.
const LONGEST_WORDS: usize = 60;

/// The status text of a process (`STATUS=` of the notify protocol), in quotes. It may hold anything, and none of its control
/// characters may reach a terminal.
fn says(status: &Status) -> String {
    let Some(words) = &status.says else {
        return String::new();
    };
    match words.char_indices().nth(LONGEST_WORDS) {
        Some((end, _)) => format!(", says {:?}...", words.get(..end).unwrap_or_default()),
        None => format!(", says {words:?}"),
    }
}

fn lasted(status: &Status) -> String {
    let lasted = status.lasted.filter(|&lasted| lasted >= Duration::from_secs(1));
    lasted.map_or(String::new(), |lasted| format!(", after {}", clock(lasted)))
}

/// Why it is down. For a failed spawn the library's own sentence, which names the step and the path.
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
        assert_eq!(retry(&shortage, 0, 3), "another try");
        assert_eq!(retry(&shortage, 2, 3), "another try");
        assert_eq!(retry(&ended, 1, 3), "retry 1 of 3");
        assert_eq!(retry(&ended, 3, 3), "retry 3 of 3");
        assert_eq!(retry(&ended, 2, 1), "last retry");
        assert_eq!(retry(&ended, 0, 3), "restart");
    }
}
