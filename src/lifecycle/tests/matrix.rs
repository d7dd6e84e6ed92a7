//! Writes `transitions.txt`: the table's behaviour as text for people.
//!
//! A change of behaviour appears there as a change of text, next to the change of code, and is reviewed like
//! an API. The text is generated, because a text written by hand could describe the intention and not the
//! behaviour.

use std::fmt::Write as _;

use super::super::{
    Action, Input, Joint, Lifecycle, Phase, Policy, Prospect, Remaining, Reply, Scope, Startup, State, Stopping,
    Transition, Wanted,
};
use super::cases::{AFTER, BEFORE, CHOICES, Shape, TimedInput, cause_text, policies, shapes, with_commands};
use crate::signal::Signal;
use crate::time::Instant;

const PREFACE: &str = "\
Each input in each state: the reply, the action to carry out, the transitions with their causes, and
all other changes. A line with [policies] holds only under these policies; a line without holds under
every policy. Each process here has one failed start and one crash in its counters. A state that is
described as another one with a \"but\" shows only the differences. FATAL lasts for the policy's
cool-off, or for ever without one. There is no command before or after a run, except in the states
\"with commands\", in PREPARING and in CLEANING_UP: there both exist.

  process, group                  the widest scope of the stop ladder
  rungs, no rungs                 whether the ladder has rungs before its SIGKILL
  grace, no grace, notify         when a start is successful
  retries, no retries             whether a retry is left after a failed start
  any failure, transient ones     which failed spawns are retried
  shortages count, don't          whether a shortage of resources uses up a retry
  always, unexpected, never       after which exits the process is restarted
  early end, early failure        whether an expected exit within the grace is the end under never
  budget, no budget               whether the crash budget allows another crash
  delay, no delay                 whether a restart waits
";

#[test]
fn transitions_txt_agrees_with_the_table() {
    super::golden::compare("transitions.txt", super::super::TRANSITIONS, &matrix());
}

fn matrix() -> String {
    let policies = policies();
    let shapes = shapes();
    let with_commands = with_commands(&policies);
    let of = |shape: &Shape| if shape.has_commands { &with_commands } else { &policies };
    let answered: Vec<(&Shape, Vec<(TimedInput, Answer)>)> =
        shapes.iter().map(|shape| (shape, answers(shape, of(shape)))).collect();
    let mut text = String::from(PREFACE);
    for (shape, answers) in &answered {
        let like = shape
            .like
            .map(|like| answered.iter().find(|(other, _)| other.name == like).unwrap());
        text.push_str(&section(shape, answers, like.map(|(_, answers)| &answers[..])));
    }
    text
}

fn answers(shape: &Shape, policies: &[Policy]) -> Vec<(TimedInput, Answer)> {
    let answer = |input| {
        let outcomes: Vec<Outcome> = policies.iter().map(|policy| outcome(shape, input, policy)).collect();
        (input, tree(&outcomes, &CHOICES))
    };
    shape.inputs().into_iter().map(answer).collect()
}

// The outcome of an input.

/// The outcomes by policy, as a tree that contains a choice only where it matters.
#[derive(PartialEq)]
enum Answer {
    Always(Outcome),
    Depends {
        choices: &'static [&'static str],
        /// The choices, grouped by equal outcome.
        branches: Vec<(Vec<usize>, Answer)>,
    },
}

/// An outcome as text. Outcomes with the same text are equal.
#[derive(Clone, PartialEq)]
struct Outcome {
    reply: Reply,
    action: &'static str,
    steps: String,
    /// Why the run ended.
    end: String,
    /// Whether the command after the run has failed.
    fails: bool,
    changes: String,
}

/// Builds the tree. `outcomes` has one entry for each combination of `choices`; the last choice changes
/// fastest.
fn tree(outcomes: &[Outcome], choices: &'static [&'static [&'static str]]) -> Answer {
    let [choices, others @ ..] = choices else {
        return Answer::Always(outcomes[0].clone());
    };
    let mut branches: Vec<(Vec<usize>, Answer)> = Vec::new();
    for (choice, outcomes) in outcomes.chunks(outcomes.len() / choices.len()).enumerate() {
        let answer = tree(outcomes, others);
        match branches.iter_mut().find(|(_, other)| *other == answer) {
            Some((same, _)) => same.push(choice),
            None => branches.push((vec![choice], answer)),
        }
    }
    match branches.len() {
        1 => branches.remove(0).1,
        _ => Answer::Depends { choices, branches },
    }
}

fn outcome(shape: &Shape, input: TimedInput, policy: &Policy) -> Outcome {
    let (reaction, life) = shape.apply(input, policy);
    let action = match reaction.action {
        None => "",
        Some(Action::Spawn) => "spawn",
        Some(Action::SpawnBefore) => "spawn before",
        Some(Action::SpawnAfter) => "spawn after",
        Some(Action::RunStopCommand { .. }) => panic!("no ladder of the matrix has a command"),
        Some(Action::Look { .. }) => "look",
        Some(Action::ReportUnkillable) => "report it",
        Some(Action::Signal { signal, scope }) => rung(shape, input, (signal, scope), policy, &life),
    };
    Outcome {
        reply: reaction.reply,
        action,
        steps: reaction.transitions().map(step).collect(),
        end: reaction.end.map_or(String::new(), |end| format!("{end:?}")),
        fails: reaction.after_failed.is_some(),
        changes: changes(&shape.life, &life, policy, input.at).join(", "),
    }
}

/// The name of the rung of the sent signal. Also asserts that the state contains the same rung.
fn rung(shape: &Shape, input: TimedInput, sent: (Signal, Scope), policy: &Policy, life: &Lifecycle) -> &'static str {
    let State::Stopping(Stopping { rung, until, .. }) = life.state else {
        panic!("a signal was sent outside of a stop");
    };
    let (number, expected) = policy.stop.rung(rung);
    assert_eq!((Some(sent.0), Some(sent.1)), (expected.signal(), expected.scope()));
    assert_eq!(number, rung);
    let again = matches!(shape.life.state, State::Stopping(before)
        if (before.rung, before.until) == (Stopping::SIGKILL, until));
    assert!(again || until.saturating_duration_since(input.at) == expected.wait());
    // A kill skips the ladder's rungs.
    let at_once = matches!(input.input, Input::Kill | Input::ExitedLeaving(_));
    let begins = !matches!(shape.life.state, State::Stopping(_)) && !at_once;
    if begins {
        assert_eq!(number, policy.stop.rung(0).0);
        return "first rung";
    }
    match rung {
        Stopping::SIGKILL => "SIGKILL",
        1 => "second rung",
        _ => panic!("a stop went back to the first rung"),
    }
}

fn step(step: Transition) -> String {
    format!("-> {} ({}) ", step.to, cause_text(step.cause))
}

fn changes(before: &Lifecycle, after: &Lifecycle, policy: &Policy, now: Instant) -> Vec<String> {
    let mut changes = Vec::new();
    if before.prepared != after.prepared && after.prepared {
        changes.push("prepared".into());
    }
    if before.state != after.state {
        changes.extend(state_changes(&before.state, &after.state, policy, now));
    }
    if before.wanted != after.wanted {
        changes.push(format!("wanted {}", wanted(after)));
    }
    if before.joint != after.joint {
        changes.push(joint(after.joint).into());
    }
    let of = |life: &Lifecycle| (life.failed_starts(), life.restarts());
    let (failed_starts, restarts) = of(after);
    match (failed_starts != of(before).0, restarts != of(before).1) {
        (true, true) if of(after) == (0, 0) => changes.push("counters 0".into()),
        (starts_differ, restarts_differ) => {
            changes.extend(starts_differ.then(|| format!("failed starts {failed_starts}")));
            changes.extend(restarts_differ.then(|| format!("restarts {restarts}")));
        }
    }
    changes
}

fn joint(joint: Joint) -> &'static str {
    match joint {
        Joint::None => "alone",
        Joint::Tells => "siblings to be told",
        Joint::Waits => "with siblings",
        Joint::Ready => "ready for a start with siblings",
    }
}

/// The changes of the state's data, except pids.
fn state_changes(before: &State, after: &State, policy: &Policy, now: Instant) -> Vec<String> {
    let wait = |until: Instant| until.saturating_duration_since(now);
    match (before, after) {
        (State::Preparing { .. }, State::Preparing { .. }) | (State::CleaningUp { .. }, State::CleaningUp { .. }) => {
            command_changes(before, after, now)
        }
        (
            _,
            State::Starting {
                pid: Some(_),
                executed: None,
                until,
                ..
            },
        ) if matches!(policy.startup, Startup::Grace(_)) => {
            assert_eq!(*until, Instant::NEVER);
            vec!["until exec".into()]
        }
        (
            State::Starting { executed: None, .. },
            State::Starting {
                executed: Some(_),
                until,
                ..
            },
        ) => {
            assert_eq!(wait(*until), policy.startup.limit());
            vec!["executed".into()]
        }
        (
            State::Starting { pid: Some(_), .. },
            State::Starting {
                pid: Some(_), until, ..
            },
        )
        | (State::Running { .. }, State::Running { until, .. }) => vec![format!("for {:?} more", wait(*until))],
        (
            _,
            State::Starting {
                pid: Some(_), until, ..
            },
        ) => {
            assert_eq!(wait(*until), policy.startup.limit());
            let limit = match policy.startup {
                Startup::Grace(_) => "for the grace",
                Startup::Notify { .. } | Startup::Completes { .. } => "for its timeout",
            };
            vec![limit.into()]
        }
        (_, State::Backoff { until, .. }) => vec![match *until {
            Instant::NEVER => "without a deadline".into(),
            until => format!("for {:?}", wait(until)),
        }],
        (_, State::Fatal { until, .. }) => {
            let rest = policy.cool_off.map_or(Instant::NEVER, |rest| now.saturating_add(rest));
            assert_eq!(*until, rest);
            vec![]
        }
        (State::Stopping(before), State::Stopping(after)) => stopping_changes(before, after, now),
        (
            _,
            State::Starting { pid: None, .. }
            | State::Preparing { .. }
            | State::Stopping(_)
            | State::CleaningUp { .. }
            | State::Stopped
            | State::Running { .. }
            | State::Exited { .. },
        ) => vec![],
    }
}

/// The changes of a command before or after a run.
fn command_changes(before: &State, after: &State, now: Instant) -> Vec<String> {
    let (limit, executed) = match after {
        State::Preparing { executed, .. } => (BEFORE, executed),
        State::CleaningUp { executed, .. } => (AFTER, executed),
        _ => panic!("{after:?} is no state of a command"),
    };
    let mut changes = Vec::new();
    if before.pid() != after.pid() {
        assert_eq!(after.deadline(), Some(now.saturating_add(limit)));
        changes.push("for its limit".into());
    } else if executed.is_some() && before.is_in_flight() {
        changes.push("executed".into());
    }
    let failed = |state: &State| state.ended().and_then(|ended| ended.failed);
    if failed(before) != failed(after) {
        changes.push("failure cleared".into());
    }
    changes
}

fn stopping_changes(before: &Stopping, after: &Stopping, now: Instant) -> Vec<String> {
    let mut changes = Vec::new();
    if before.rung == after.rung && before.until != after.until {
        changes.push(match after.until {
            Instant::NEVER => "no rung left".into(),
            until => format!("next rung in {:?}", until.saturating_duration_since(now)),
        });
    }
    if before.prospect != after.prospect {
        changes.push(match after.prospect {
            Prospect::Open => panic!("what is known of the end was forgotten"),
            Prospect::KillRequested => "no timeout".into(),
            Prospect::EndedBefore => "ended before".into(),
        });
    }
    let failed = |stopping: &Stopping| match stopping.phase {
        Phase::After(ended) => ended.failed,
        _ => stopping.failed,
    };
    if failed(before) != failed(after) {
        assert_eq!(failed(after), None);
        changes.push("failure cleared".into());
    }
    match after.remaining {
        Remaining::Others { look_at, .. } if before.remaining != after.remaining => {
            changes.push(format!("next look in {:?}", look_at.saturating_duration_since(now)));
        }
        Remaining::Command { .. } if before.remaining != after.remaining => changes.push("the command is left".into()),
        Remaining::Leader | Remaining::Others { .. } | Remaining::Command { .. } => (),
    }
    if before.has_command && !after.has_command {
        changes.push("no command".into());
    }
    changes
}

fn wanted(life: &Lifecycle) -> &'static str {
    match life.wanted {
        Wanted::Up => "up",
        Wanted::Down => "down",
    }
}

// The text.

fn section(shape: &Shape, answers: &[(TimedInput, Answer)], like: Option<&[(TimedInput, Answer)]>) -> String {
    let mut groups: Vec<(Vec<TimedInput>, &Answer)> = Vec::new();
    for (input, answer) in answers {
        let there = like.and_then(|like| {
            like.iter()
                .find(|(other, _)| (other.name, other.kind) == (input.name, input.kind))
        });
        if there.is_some_and(|(_, there)| there == answer) {
            continue;
        }
        match groups.iter_mut().find(|(_, other)| *other == answer) {
            Some((inputs, _)) => inputs.push(*input),
            None => groups.push((vec![*input], answer)),
        }
    }
    // Ignored inputs come last, because they are the least interesting ones.
    groups.sort_by_key(|(_, answer)| answer.is_ignored());
    let mut text = format!("\n{} (wanted {})", shape.name, wanted(&shape.life));
    let _ = match shape.like {
        Some(like) => writeln!(text, ": as {like}, but"),
        None => writeln!(text),
    };
    let mut lines: Vec<(String, Option<&Outcome>)> = Vec::new();
    for (inputs, answer) in groups {
        answer.lines(&input_names(&inputs, answers), &mut lines);
    }
    let answered = lines.iter().filter(|(_, outcome)| outcome.is_some());
    let width = answered.map(|(first, _)| first.len()).max().unwrap_or(0);
    for (first, outcome) in lines {
        text.push_str(&line(&first, width, outcome));
    }
    text
}

/// The names of the inputs. The kind is added only if other kinds of the same input have another outcome.
fn input_names(inputs: &[TimedInput], all: &[(TimedInput, Answer)]) -> String {
    let mut words: Vec<String> = Vec::new();
    for input in inputs {
        let here = inputs.iter().filter(|other| other.name == input.name).count();
        let anywhere = all.iter().filter(|(other, _)| other.name == input.name).count();
        words.push(match here == anywhere {
            true => input.name.to_string(),
            false => format!("{} ({})", input.name, input.kind),
        });
    }
    words.dedup();
    words.join(", ")
}

impl Answer {
    fn is_ignored(&self) -> bool {
        matches!(self, Answer::Always(outcome) if outcome.reply == Reply::Ignored)
    }

    /// Appends the lines: the text of the first column, and the outcome beside it.
    fn lines<'a>(&'a self, inputs: &str, lines: &mut Vec<(String, Option<&'a Outcome>)>) {
        match self {
            Answer::Always(_) if self.is_ignored() => lines.push((format!("ignored: {inputs}"), None)),
            Answer::Always(outcome) => lines.push((inputs.into(), Some(outcome))),
            Answer::Depends { .. } => {
                lines.push((inputs.into(), None));
                self.conditional("", lines);
            }
        }
    }

    fn conditional<'a>(&'a self, conditions: &str, lines: &mut Vec<(String, Option<&'a Outcome>)>) {
        match self {
            Answer::Always(outcome) => lines.push((format!("  [{conditions}]"), Some(outcome))),
            Answer::Depends { choices, branches } => {
                for (same, answer) in branches {
                    let words: Vec<&str> = same.iter().map(|&choice| choices[choice]).collect();
                    let comma = if conditions.is_empty() { "" } else { ", " };
                    answer.conditional(&format!("{conditions}{comma}{}", words.join("/")), lines);
                }
            }
        }
    }
}

fn line(first: &str, width: usize, outcome: Option<&Outcome>) -> String {
    let Some(outcome) = outcome else {
        return format!("  {first}\n");
    };
    let reply = format!("{:?}", outcome.reply).to_lowercase();
    let steps = outcome.steps.trim_end();
    let end = match outcome.end.as_str() {
        "" => String::new(),
        end => format!("ends: {end}"),
    };
    let fails = if outcome.fails { "the command failed" } else { "" };
    let parts = [steps, &end, fails, &outcome.changes];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let text = format!(
        "  {first:<width$}  {reply:<8}  {:<12}  {}",
        outcome.action,
        parts.join("; ")
    );
    format!("{}\n", text.trim_end())
}
