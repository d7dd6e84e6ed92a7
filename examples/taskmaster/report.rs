//! The formats of a transition: a line of text for people, and a JSON object for programs.

use std::time::Duration;

use pidherd::exit::Exit;
use pidherd::lifecycle::StateName;
use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::config::Level;
use crate::names;

/// A transition of a process from one state to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The time since the start of the taskmaster.
    pub at: Duration,
    /// The group of the process.
    pub group: String,
    /// The name of the process in the group.
    pub process: String,
    /// The state before the transition.
    pub from: StateName,
    /// The state after the transition.
    pub to: StateName,
    /// The PID of the process. `None` if there was no process.
    pub pid: Option<u32>,
    /// The reason for the transition.
    pub cause: String,
    /// The number of the run, counted from 1.
    pub run: u64,
    /// The exit of the process. `None` if the transition is not an exit.
    pub exit: Option<Exit>,
}

impl Report {
    /// The level of the transition in the log.
    pub fn level(&self) -> Level {
        match self.to {
            StateName::Backoff | StateName::Fatal => Level::Warn,
            _ => Level::Info,
        }
    }

    /// The JSON object for the event file, without a newline.
    pub fn json(&self) -> String {
        let process = format!("{}:{}", self.group, self.process);
        format!(
            r#"{{"t": {:.3}, "process": {}, "from": "{}", "to": "{}", "pid": {}, "cause": {}, "run": {}, "exit": {}}}"#,
            self.at.as_secs_f64(),
            Value::from(process),
            self.from,
            self.to,
            self.pid.map_or(Value::Null, Value::from),
            Value::from(self.cause.as_str()),
            self.run,
            self.exit.map_or("null".to_owned(), exit_json),
        )
    }

    /// The line for people. `width` is the width of the column of names, and `columns` that of the terminal. A narrow
    /// terminal gets neither the old state nor a wide column of names, and a very narrow one no time.
    pub fn text(&self, width: usize, columns: Option<usize>, colours: bool) -> String {
        let name = names::shown(&self.group, &self.process);
        let paint = if colours { colour_of(self.to) } else { "" };
        let plain = if colours { PLAIN } else { "" };
        let detail = match (self.to, self.pid, self.exit) {
            (StateName::Preparing | StateName::Starting, Some(pid), _) => format!("pid {pid}"),
            (StateName::Running, ..) => String::new(),
            (StateName::Stopped, _, Some(exit)) => exit.to_string(),
            _ => self.cause.clone(),
        };
        let at = self.at.as_secs_f64();
        let line = match columns {
            Some(columns) if columns < NARROW => {
                let width = width.min(columns / 4);
                let at = if columns < VERY_NARROW {
                    String::new()
                } else {
                    format!("{at:8.3}  ")
                };
                format!("{at}{name:<width$}  -> {paint}{:<8}{plain}  {detail}", self.to)
            }
            _ => format!(
                "{at:8.3}  {name:<width$}  {:<8} -> {paint}{:<8}{plain}  {detail}",
                self.from, self.to,
            ),
        };
        line.trim_end().to_owned()
    }
}

/// A terminal with fewer columns than this is narrow.
const NARROW: usize = 64;
/// A terminal with fewer columns than this is very narrow.
const VERY_NARROW: usize = 48;

/// The exit in the format of the event file. `null` if the kernel did not report the exit status.
fn exit_json(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!(r#"{{"code": {code}}}"#),
        Exit::Signal { signal, core } => format!(r#"{{"signal": "{signal}", "core": {core}}}"#),
        _ => "null".to_owned(),
    }
}

/// The end of a colour.
pub const PLAIN: &str = "\x1b[0m";

/// The colour of a state: green for a healthy one, yellow for a change in progress, red for a failure, grey for down.
pub fn colour_of(state: StateName) -> &'static str {
    match state {
        StateName::Running => "\x1b[32m",
        StateName::Preparing | StateName::Starting | StateName::Stopping | StateName::CleaningUp => "\x1b[33m",
        StateName::Backoff => "\x1b[35m",
        StateName::Fatal => "\x1b[1;31m",
        StateName::Exited => "\x1b[36m",
        StateName::Stopped => "\x1b[90m",
        _ => PLAIN,
    }
}

/// Makes `text` bold if `colours` is true.
pub fn bold(text: &str, colours: bool) -> String {
    if colours {
        format!("\x1b[1m{text}{PLAIN}")
    } else {
        text.to_owned()
    }
}

/// A row of `status`.
#[derive(Clone, Debug)]
pub struct Row {
    /// The name of the process as a user types it.
    pub name: String,
    /// The state of the process.
    pub state: StateName,
    /// Its PID, exit or failure, in words.
    pub detail: String,
}

/// Aligns the rows in columns. In a terminal with `columns`, what does not fit is cut.
pub fn table(rows: &[Row], columns: Option<usize>, colours: bool) -> Vec<String> {
    let width = rows.iter().map(|row| row.name.width()).max().unwrap_or(0);
    let width = width.min(columns.map_or(usize::MAX, |columns| (columns / 2).max(8)));
    let room = columns.map_or(usize::MAX, |columns| columns.saturating_sub(width + 14));
    let line = |row: &Row| {
        let (paint, plain) = if colours {
            (colour_of(row.state), PLAIN)
        } else {
            ("", "")
        };
        let name = padded(&cut(&row.name, width), width);
        let line = format!("{name}   {paint}{:<8}{plain}   {}", row.state, cut(&row.detail, room));
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Cuts a text to `room` cells of a terminal. An ellipsis stands for the rest.
pub fn cut(text: &str, room: usize) -> String {
    if text.width() <= room {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut width = 1;
    for char in text.chars() {
        width += char.width().unwrap_or(0);
        if width > room {
            break;
        }
        short.push(char);
    }
    if room > 0 {
        short.push('\u{2026}');
    }
    short
}

/// Breaks a line between words, so that each part fits into `room` cells. The parts after the first are indented.
pub fn wrapped(line: &str, room: usize) -> Vec<String> {
    const INDENT: &str = "    ";
    let mut parts = Vec::new();
    let mut rest = line.to_owned();
    while rest.width() > room {
        let text_begins = rest.len() - rest.trim_start().len();
        let fits =
            |&(at, _): &(usize, &str)| at > text_begins && rest.get(..at).is_some_and(|part| part.width() <= room);
        let Some((at, _)) = rest.match_indices(' ').rfind(fits) else {
            break;
        };
        let next = format!("{INDENT}{}", rest[at..].trim_start());
        rest.truncate(at);
        parts.push(std::mem::replace(&mut rest, next).trim_end().to_owned());
    }
    parts.push(rest);
    parts
}

/// Fills a text with blanks up to `width` cells of a terminal.
pub fn padded(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(text.width());
    text.to_owned() + &" ".repeat(missing)
}

/// Arranges words in columns that fit into `room` cells, in the order of columns.
pub fn in_columns(words: &[String], room: usize) -> Vec<String> {
    let width = words.iter().map(|word| word.width()).max().unwrap_or(0) + 2;
    let columns = (room / width.max(1)).max(1);
    let rows = words.len().div_ceil(columns);
    let row = |row: usize| {
        let words = words.iter().skip(row).step_by(rows.max(1));
        let line: String = words.map(|word| padded(word, width)).collect();
        line.trim_end().to_owned()
    };
    (0..rows).map(row).collect()
}

/// A duration in the format of a clock: `0:00:05`, `3 days, 1:02:03`.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let clock = format!("{hours}:{minutes:02}:{:02}", seconds % 60);
    match days {
        0 => clock,
        1 => format!("1 day, {clock}"),
        days => format!("{days} days, {clock}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pidherd::signal::Signal;

    fn report() -> Report {
        Report {
            at: Duration::from_micros(1_234_567),
            group: "web".to_owned(),
            process: "web_0".to_owned(),
            from: StateName::Starting,
            to: StateName::Backoff,
            pid: Some(12),
            cause: "exited with code 3".to_owned(),
            run: 1,
            exit: Some(Exit::Code(3)),
        }
    }

    fn parsed(report: &Report) -> Value {
        serde_json::from_str(&report.json()).unwrap()
    }

    #[test]
    fn the_event_file_has_exactly_these_keys() {
        assert_eq!(
            report().json(),
            r#"{"t": 1.235, "process": "web:web_0", "from": "STARTING", "to": "BACKOFF", "pid": 12, "cause": "exited with code 3", "run": 1, "exit": {"code": 3}}"#
        );
        assert_eq!(parsed(&report()).as_object().unwrap().len(), 8);
    }

    #[test]
    fn every_kind_of_exit_has_a_format() {
        let with = |exit| parsed(&Report { exit, ..report() })["exit"].clone();
        assert_eq!(with(None), Value::Null);
        assert_eq!(with(Some(Exit::Unknown)), Value::Null);
        let killed = Exit::Signal {
            signal: Signal::KILL,
            core: false,
        };
        assert_eq!(
            with(Some(killed)),
            serde_json::json!({"signal": "SIGKILL", "core": false})
        );
        assert_eq!(parsed(&Report { pid: None, ..report() })["pid"], Value::Null);
    }

    #[test]
    fn no_name_and_no_cause_breaks_the_format() {
        let nasty = Report {
            process: "a\"b\\c\u{7f}é".to_owned(),
            cause: "cannot start \"/x\ny\"".to_owned(),
            ..report()
        };
        assert!(!nasty.json().contains('\n'));
        assert_eq!(parsed(&nasty)["process"], "web:a\"b\\c\u{7f}é");
        assert_eq!(parsed(&nasty)["cause"], "cannot start \"/x\ny\"");
    }

    #[test]
    fn lines_are_aligned_in_columns() {
        let started = Report {
            to: StateName::Starting,
            from: StateName::Stopped,
            exit: None,
            ..report()
        };
        assert_eq!(
            started.text(9, None, false),
            "   1.235  web:web_0  STOPPED  -> STARTING  pid 12"
        );
        assert_eq!(
            report().text(9, None, false),
            "   1.235  web:web_0  STARTING -> BACKOFF   exited with code 3"
        );
        let up = Report {
            from: StateName::Starting,
            to: StateName::Running,
            process: "web".to_owned(),
            ..report()
        };
        assert_eq!(up.text(9, None, false), "   1.235  web        STARTING -> RUNNING");
        let down = Report {
            from: StateName::Stopping,
            to: StateName::Stopped,
            cause: "gone".to_owned(),
            ..report()
        };
        assert_eq!(
            down.text(9, None, false),
            "   1.235  web:web_0  STOPPING -> STOPPED   exited with code 3"
        );
        assert!(up.text(9, None, true).contains("\x1b[32mRUNNING \x1b[0m"));
    }

    #[test]
    fn tables_are_as_wide_as_their_longest_name() {
        let row = |name: &str, state, detail: &str| Row {
            name: name.to_owned(),
            state,
            detail: detail.to_owned(),
        };
        let rows = [
            row("a", StateName::Running, "pid 1"),
            row("long:name", StateName::Stopped, ""),
        ];
        assert_eq!(
            table(&rows, None, false),
            ["a           RUNNING    pid 1", "long:name   STOPPED"]
        );
        assert!(table(&[], None, false).is_empty());
    }

    #[test]
    fn columns_fit_the_width_of_the_terminal() {
        let rows = [
            Row {
                name: "a:long_name_of_a_process".to_owned(),
                state: StateName::Running,
                detail: "pid 4711, uptime 0:00:05".to_owned(),
            },
            Row {
                name: "\u{754c}".to_owned(),
                state: StateName::Fatal,
                detail: "no such file".to_owned(),
            },
        ];
        for columns in 20..100 {
            let lines = table(&rows, Some(columns), false);
            assert!(
                lines.iter().all(|line| line.width() <= columns.max(25)),
                "{columns}: {lines:?}"
            );
        }
        assert_eq!(
            table(&rows, Some(40), false),
            [
                "a:long_name_of_a_pr\u{2026}   RUNNING    pid 4\u{2026}",
                "\u{754c}                     FATAL      no su\u{2026}"
            ]
        );
        assert_eq!(table(&rows, Some(80), false), table(&rows, None, false));
        let narrow = |columns| report().text(40, Some(columns), false);
        assert_eq!(narrow(60), "   1.235  web:web_0        -> BACKOFF   exited with code 3");
        assert_eq!(narrow(40), "web:web_0   -> BACKOFF   exited with code 3");
    }

    #[test]
    fn lines_are_wrapped_between_words() {
        assert_eq!(wrapped("one two three", 9), ["one two", "    three"]);
        assert_eq!(wrapped("one two three", 13), ["one two three"]);
        assert_eq!(wrapped("one   two", 5), ["one", "    two"]);
        assert_eq!(wrapped("unbreakable", 5), ["unbreakable"]);
        assert_eq!(wrapped("", 5), [""]);
        for room in 0..60 {
            let parts = wrapped("  a line with several words, of which none is long", room);
            assert!(
                room < 12 || parts.iter().all(|part| part.width() <= room),
                "{room}: {parts:?}"
            );
        }
    }

    #[test]
    fn words_are_arranged_in_columns() {
        let words: Vec<String> = ["a", "bb", "c", "d", "e"].map(str::to_owned).into();
        assert_eq!(in_columns(&words, 12), ["a   c   e", "bb  d"]);
        assert_eq!(in_columns(&words, 2).len(), 5);
        assert_eq!(in_columns(&words, 100), ["a   bb  c   d   e"]);
        assert!(in_columns(&[], 80).is_empty());
        assert_eq!(cut("\u{754c}\u{754c}", 3), "\u{754c}\u{2026}");
        assert_eq!((cut("ab", 0), cut("ab", 2)), (String::new(), "ab".to_owned()));
    }

    #[test]
    fn clocks() {
        assert_eq!(clock(Duration::from_millis(5_900)), "0:00:05");
        assert_eq!(clock(Duration::from_secs(86_400 + 3_723)), "1 day, 1:02:03");
        assert_eq!(clock(Duration::from_secs(2 * 86_400)), "2 days, 0:00:00");
    }
}
