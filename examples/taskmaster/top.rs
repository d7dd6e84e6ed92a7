//! `top`: the processor time and the memory of all runs, as a table or as a live view.
//!
//! A picture reads the numbers of the visible rows alone, so a thousand programs cost no more than a screen of them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pidherd::InstanceId;
use pidherd::lifecycle::StateName;
use unicode_width::UnicodeWidthStr;

use crate::herd::Run;
use crate::report::{self, clock, colour_of, cut, padded};
use crate::usage::Usage;

/// The time between two pictures.
pub const PERIOD: Duration = Duration::from_secs(1);

/// The number of rows with the last lines of the log, below the table.
const LOG_ROWS: usize = 5;

/// The live view.
#[derive(Debug, Default)]
pub struct Top {
    /// The number of the first visible run.
    first: usize,
    /// The number of visible runs in the last picture.
    visible: usize,
    samples: Samples,
}

/// The processor times of the last picture. The difference to the next one is the load.
#[derive(Debug, Default)]
struct Samples(HashMap<InstanceId, Sample>);

#[derive(Clone, Copy, Debug)]
struct Sample {
    pid: u32,
    at: Instant,
    cpu: Duration,
    /// The load at that time, in percent of one processor.
    load: f64,
}

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Name,
    State,
    Pid,
    Load,
    Memory,
    Time,
    Uptime,
    Restarts,
}

impl Column {
    /// All columns, in their order.
    const ALL: [Column; 8] = [
        Column::Name,
        Column::State,
        Column::Pid,
        Column::Load,
        Column::Memory,
        Column::Time,
        Column::Uptime,
        Column::Restarts,
    ];

    /// The columns besides the name. A narrow terminal has the first ones.
    const BY_WORTH: [Column; 7] = [
        Column::State,
        Column::Load,
        Column::Memory,
        Column::Uptime,
        Column::Restarts,
        Column::Pid,
        Column::Time,
    ];

    fn title(self) -> &'static str {
        match self {
            Column::Name => "NAME",
            Column::State => "STATE",
            Column::Pid => "PID",
            Column::Load => "CPU%",
            Column::Memory => "MEMORY",
            Column::Time => "CPU TIME",
            Column::Uptime => "UPTIME",
            Column::Restarts => "RESTARTS",
        }
    }

    /// The width of all columns but the first.
    fn width(self) -> usize {
        match self {
            Column::Name => 0,
            Column::State | Column::Memory | Column::Time | Column::Restarts => 8,
            Column::Pid => 7,
            Column::Load => 6,
            Column::Uptime => 16,
        }
    }
}

/// The table once, in `columns` cells of a terminal. The load is the average since the start of each run.
pub fn table(runs: &[Run], usage: impl Fn(&Run) -> Usage, columns: Option<usize>, colours: bool) -> Vec<String> {
    let mut samples = Samples::default();
    let chosen = Chosen::new(runs, columns);
    let mut lines = vec![report::bold(&chosen.titles(), colours)];
    let now = Instant::now();
    lines.extend(
        runs.iter()
            .map(|run| chosen.line(run, usage(run), &mut samples, now, colours)),
    );
    lines
}

impl Top {
    /// Moves the first visible run by `rows`, down or up.
    pub fn scroll(&mut self, rows: isize) {
        self.first = self.first.saturating_add_signed(rows);
    }

    /// Moves by one screen, down or up.
    pub fn turn_page(&mut self, pages: isize) {
        self.scroll(pages.saturating_mul(isize::try_from(self.visible).unwrap_or(1)));
    }

    /// The rows of the next picture. `log` has the last lines of the log.
    pub fn picture(
        &mut self,
        runs: &[Run],
        usage: impl Fn(&Run) -> Usage,
        log: impl Fn(usize) -> Vec<String>,
        (columns, rows): (usize, usize),
        colours: bool,
    ) -> Vec<String> {
        let log_rows = if rows >= 16 { LOG_ROWS + 1 } else { 0 };
        // The heading, a blank row, the titles, and the row with the keys.
        self.visible = rows.saturating_sub(4 + log_rows).max(1);
        self.first = self.first.min(runs.len().saturating_sub(self.visible));
        let shown: Vec<&Run> = runs.iter().skip(self.first).take(self.visible).collect();
        let chosen = Chosen::new(runs, Some(columns));
        let now = Instant::now();
        let mut picture = vec![cut(&heading(runs), columns), String::new()];
        picture.push(report::bold(&cut(&chosen.titles(), columns), colours));
        for run in &shown {
            picture.push(chosen.line(run, usage(run), &mut self.samples, now, colours));
        }
        self.samples.0.retain(|_, sample| sample.at == now);
        picture.resize(3 + self.visible, String::new());
        if log_rows > 0 {
            picture.push(String::new());
            let lines = log(LOG_ROWS).into_iter().map(|line| clean(&line, columns));
            picture.extend(lines);
            picture.resize(3 + self.visible + log_rows, String::new());
        }
        let last = self.first + shown.len();
        let part = match runs.len() {
            all if all > shown.len() => format!("{} to {last} of {all}, arrows scroll, ", self.first + 1),
            _ => String::new(),
        };
        picture.push(report::bold(&cut(&format!("{part}q ends the view"), columns), colours));
        picture.truncate(rows);
        picture
    }
}

/// A line of the log without colours, cut to the width of the terminal.
fn clean(line: &str, columns: usize) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain.retain(|char| !char.is_control());
    cut(&plain, columns)
}

/// The number of processes, and of those in each state.
fn heading(runs: &[Run]) -> String {
    let mut counts: Vec<(StateName, usize)> = Vec::new();
    for run in runs {
        match counts.iter_mut().find(|(state, _)| *state == run.state) {
            Some((_, count)) => *count += 1,
            None => counts.push((run.state, 1)),
        }
    }
    counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let counts = counts.iter().map(|(state, count)| format!("{count} {state}"));
    let counts: Vec<String> = counts.collect();
    let noun = if runs.len() == 1 { "process" } else { "processes" };
    format!("taskmaster: {} {noun}: {}", runs.len(), counts.join(", "))
}

/// The columns that fit.
struct Chosen {
    columns: Vec<Column>,
    /// The width of the column of names.
    name: usize,
}

impl Chosen {
    fn new(runs: &[Run], columns: Option<usize>) -> Chosen {
        let room = columns.unwrap_or(usize::MAX);
        let longest = runs.iter().map(|run| run.name.width()).max().unwrap_or(0).max(4);
        let name = longest.min((room / 3).max(8));
        let mut width = name;
        let mut chosen = vec![Column::Name];
        for column in Column::BY_WORTH {
            if width + 2 + column.width() > room {
                break;
            }
            width += 2 + column.width();
            chosen.push(column);
        }
        Chosen {
            columns: Column::ALL
                .into_iter()
                .filter(|column| chosen.contains(column))
                .collect(),
            // The rest of the row is for the names.
            name: longest.min(name.saturating_add(room.saturating_sub(width))),
        }
    }

    fn titles(&self) -> String {
        self.row(|column| (column.title().to_owned(), ""))
    }

    fn line(&self, run: &Run, usage: Usage, samples: &mut Samples, now: Instant, colours: bool) -> String {
        let load = samples.load(run, usage.cpu, now);
        let unknown = || "-".to_owned();
        self.row(|column| match column {
            Column::Name => (cut(&run.name, self.name), ""),
            Column::State if colours => (run.state.to_string(), colour_of(run.state)),
            Column::State => (run.state.to_string(), ""),
            Column::Pid => (run.pid.map_or_else(unknown, |pid| pid.to_string()), ""),
            Column::Load => (load.map_or_else(unknown, |load| format!("{load:.1}")), ""),
            Column::Memory => (usage.memory.map_or_else(unknown, bytes), ""),
            Column::Time => (usage.cpu.map_or_else(unknown, minutes), ""),
            Column::Uptime => (run.uptime.map_or_else(unknown, clock), ""),
            Column::Restarts => (run.restarts.to_string(), ""),
        })
    }

    /// A row with the text and the colour of each column. Numbers are aligned to the right.
    fn row(&self, cell: impl Fn(Column) -> (String, &'static str)) -> String {
        let mut row = String::new();
        for &column in &self.columns {
            let (text, paint) = cell(column);
            let plain = if paint.is_empty() { "" } else { report::PLAIN };
            let text = match column {
                Column::Name => padded(&text, self.name),
                Column::State => format!("{text:<8}"),
                _ => format!("{text:>width$}", width = column.width()),
            };
            if column != Column::Name {
                row.push_str("  ");
            }
            row.push_str(&format!("{paint}{text}{plain}"));
        }
        row.trim_end().to_owned()
    }
}

impl Samples {
    /// The load of a run since its last sample, or since its start.
    fn load(&mut self, run: &Run, cpu: Option<Duration>, now: Instant) -> Option<f64> {
        let (pid, cpu) = (run.pid?, cpu?);
        let percent = |used: Duration, time: Duration| {
            let seconds = time.as_secs_f64();
            (seconds > 0.01).then(|| used.as_secs_f64() / seconds * 100.0)
        };
        let before = self.0.get(&run.id).copied().filter(|sample| sample.pid == pid);
        let load = match before {
            Some(before) => {
                // Keys may follow each other too fast for a new measurement.
                let used = cpu.saturating_sub(before.cpu);
                let time = now.saturating_duration_since(before.at);
                percent(used, time).unwrap_or(before.load)
            }
            None => percent(cpu, run.uptime?).unwrap_or(0.0),
        };
        let sample = Sample {
            pid,
            at: now,
            cpu,
            load,
        };
        self.0.insert(run.id, sample);
        Some(load)
    }
}

/// A number of bytes with a unit, in at most eight characters.
fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1024.0;
    let mut unit = UNITS[0];
    for &next in &UNITS[1..] {
        if value < 1000.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value < 100.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// Processor time: minutes and seconds, or hours if it is long.
fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 6000 {
        format!("{}:{:02}.{:02}", seconds / 60, seconds % 60, time.subsec_millis() / 10)
    } else {
        format!("{} h {:02}", seconds / 3600, seconds / 60 % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pidherd::{Command, GroupSpec, Supervisor};

    /// Runs with real ids, which only a supervisor gives out.
    fn runs(names: &[&str]) -> Vec<Run> {
        let mut supervisor = Supervisor::builder().build().unwrap();
        let count = names.len().try_into().unwrap();
        let group = supervisor
            .add(GroupSpec::new("g", Command::new("true")).instances(count))
            .unwrap();
        let ids = supervisor.group(group).unwrap().instances;
        let run = |(id, name): (InstanceId, &&str)| Run {
            id,
            name: (*name).to_owned(),
            state: StateName::Running,
            pid: Some(4711),
            uptime: Some(Duration::from_secs(10)),
            restarts: 3,
        };
        ids.into_iter().zip(names).map(run).collect()
    }

    fn usage(_: &Run) -> Usage {
        Usage {
            cpu: Some(Duration::from_millis(2500)),
            memory: Some(3 << 20),
        }
    }

    #[test]
    fn the_table_has_all_columns_if_they_fit() {
        let runs = runs(&["web:web_0", "api"]);
        let lines = table(&runs, usage, None, false);
        assert_eq!(
            lines[0],
            "NAME       STATE         PID    CPU%    MEMORY  CPU TIME            UPTIME  RESTARTS"
        );
        assert_eq!(
            lines[1],
            "web:web_0  RUNNING      4711    25.0   3.0 MiB   0:02.50           0:00:10         3"
        );
        assert_eq!(
            table(&runs, usage, Some(40), false)[2],
            "api        RUNNING     25.0   3.0 MiB"
        );
        for columns in 12..100 {
            let lines = table(&runs, usage, Some(columns), false);
            assert!(lines.iter().all(|line| line.width() <= columns), "{columns}: {lines:?}");
        }
    }

    #[test]
    fn the_load_is_that_since_the_last_picture() {
        let runs = runs(&["a"]);
        let mut samples = Samples::default();
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(samples.load(&runs[0], Some(second), now), Some(10.0));
        let later = now + 2 * second;
        assert_eq!(samples.load(&runs[0], Some(2 * second), later), Some(50.0));
        assert_eq!(samples.load(&runs[0], Some(2 * second), later), Some(50.0));
        let replaced = Run {
            pid: Some(4712),
            uptime: Some(second),
            ..runs[0].clone()
        };
        let load = samples.load(&replaced, Some(second / 2), later + second);
        assert_eq!(load, Some(50.0), "the next run does not count from the last one");
        let down = Run {
            pid: None,
            ..runs[0].clone()
        };
        assert_eq!(samples.load(&down, None, later), None);
    }

    #[test]
    fn a_picture_fits_the_screen_and_scrolls() {
        let names: Vec<String> = (0..30).map(|number| format!("web:web_{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let runs = runs(&names);
        let mut top = Top::default();
        let log = |most| vec!["   1.0  \x1b[32mRUNNING\x1b[0m".to_owned(); most];
        let picture = |top: &mut Top, size| {
            let picture = top.picture(&runs, usage, log, size, false);
            assert!(picture.len() <= size.1 && picture.iter().all(|row| row.width() <= size.0));
            picture
        };
        let rows = picture(&mut top, (80, 24));
        assert!(rows[0].starts_with("taskmaster: 30 processes: 30 RUNNING"));
        assert!(rows[3].starts_with("web:web_0 ") && rows[16].starts_with("web:web_13 "));
        assert_eq!(rows[18], "   1.0  RUNNING");
        assert_eq!(rows[23], "1 to 14 of 30, arrows scroll, q ends the view");
        top.scroll(1);
        assert!(picture(&mut top, (80, 24))[3].starts_with("web:web_1 "));
        top.turn_page(5);
        assert!(picture(&mut top, (80, 24))[16].starts_with("web:web_29 "));
        top.turn_page(-9);
        assert!(picture(&mut top, (80, 24))[3].starts_with("web:web_0 "));
        for rows in 1..40 {
            picture(&mut top, (30, rows));
        }
    }

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_000_000, "977 KiB"),
            (1 << 20, "1.0 MiB"),
            (150 << 20, "150 MiB"),
            (3 << 40, "3.0 TiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(minutes(Duration::from_millis(61_230)), "1:01.23");
        assert_eq!(minutes(Duration::from_secs(7_260)), "2 h 01");
    }
}
