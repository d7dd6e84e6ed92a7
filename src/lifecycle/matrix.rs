//! Writes `transitions.txt`: what the table does, for people to read.
//!
//! A change of behaviour shows up there as a change of text, next to the change of code that made
//! it, and is reviewed like an API. The text is not written by hand, because it would then say what
//! somebody meant; and it is more than the table in `table.rs`, whose words have to be run.

use std::fmt::Write as _;

use super::cases::{Ask, CHOICES, Shape, because, policies, shapes};
use super::{Action, Input, Left, Lifecycle, Policy, Reply, Scope, Startup, State, Stopping, Transition, Wanted};
use crate::signal::Signal;
use crate::time::Instant;

const PREFACE: &str = "\
Each input in each state: the reply, what has to be done, the steps with their causes, and what
else has changed. Where [policies] are named, they make the difference; nowhere else does any.
Every process here has failed to start once and has crashed once before. A state given as another
one with a \"but\" shows only what is different. FATAL lasts for the cool-off, or else for ever.

  process, group               whom the stop ladder reaches, at the widest
  rungs, no rungs              before its SIGKILL, which else is the first
  grace, no grace, notify      what makes a start a success
  retries, no retries          left after a failed start
  any failure, passing ones    are retried
  shortages count, don't       against the retries
  always, unexpected, never    which ends are answered by a restart
  budget, no budget            left for another crash
  delay, no delay              before a restart
";

#[test]
fn transitions_txt_is_what_the_table_does() {
    super::blessed::compare("transitions.txt", super::TRANSITIONS, &matrix());
}

fn matrix() -> String {
    let policies = policies();
    let shapes = shapes();
    let answered: Vec<(&Shape, Vec<(Ask, Answer)>)> =
        shapes.iter().map(|shape| (shape, answers(shape, &policies))).collect();
    let mut text = String::from(PREFACE);
    for (shape, answers) in &answered {
        let like = shape
            .like
            .map(|like| answered.iter().find(|(other, _)| other.words == like).unwrap());
        text.push_str(&section(shape, answers, like.map(|(_, answers)| &answers[..])));
    }
    text
}

fn answers(shape: &Shape, policies: &[Policy]) -> Vec<(Ask, Answer)> {
    let answer = |ask| {
        let outcomes: Vec<Outcome> = policies.iter().map(|policy| outcome(shape, ask, policy)).collect();
        (ask, tree(&outcomes, &CHOICES))
    };
    shape.asks().into_iter().map(answer).collect()
}

// What comes of an input.

/// By policy: a tree in which a choice stands only where it matters.
#[derive(PartialEq)]
enum Answer {
    Always(Outcome),
    Depends {
        choices: &'static [&'static str],
        /// Those that lead to the same are together.
        branches: Vec<(Vec<usize>, Answer)>,
    },
}

/// In words, so that what reads the same is the same.
#[derive(Clone, PartialEq)]
struct Outcome {
    reply: Reply,
    action: &'static str,
    steps: String,
    changes: String,
}

/// `outcomes` has one entry for each combination of `choices`, the last choice changing fastest.
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

fn outcome(shape: &Shape, ask: Ask, policy: &Policy) -> Outcome {
    let (reaction, life) = shape.meet(ask, policy);
    let action = match reaction.action {
        None => "",
        Some(Action::Spawn) => "spawn",
        Some(Action::Look { .. }) => "look",
        Some(Action::ReportUnkillable) => "report it",
        Some(Action::Signal { signal, scope }) => rung(shape, ask, (signal, scope), policy, &life),
    };
    Outcome {
        reply: reaction.reply,
        action,
        steps: reaction.transitions().map(step).collect(),
        changes: changes(&shape.life, &life, policy, ask.at).join(", "),
    }
}

/// Names the rung that was climbed, and makes sure that it is the one which the state names.
fn rung(shape: &Shape, ask: Ask, sent: (Signal, Scope), policy: &Policy, life: &Lifecycle) -> &'static str {
    let State::Stopping(Stopping { rung, until, .. }) = life.state else {
        panic!("a signal without a stop");
    };
    let (number, expected) = policy.stop.rung(rung);
    assert_eq!(sent, (expected.signal, expected.scope));
    assert_eq!(number, rung);
    let again = matches!(shape.life.state, State::Stopping(before)
        if (before.rung, before.until) == (Stopping::SIGKILL, until));
    assert!(again || until.saturating_duration_since(ask.at) == expected.wait);
    // A ladder without rungs begins with its end.
    let at_once = matches!(ask.input, Input::Kill | Input::ExitedLeaving(_));
    let begins = !matches!(shape.life.state, State::Stopping(_)) && !at_once;
    if begins {
        assert_eq!(number, policy.stop.rung(0).0);
        return "first rung";
    }
    match rung {
        Stopping::SIGKILL => "SIGKILL",
        1 => "second rung",
        _ => panic!("back to the first rung"),
    }
}

fn step(step: Transition) -> String {
    format!("-> {} ({}) ", step.to, because(step.cause))
}

fn changes(before: &Lifecycle, after: &Lifecycle, policy: &Policy, now: Instant) -> Vec<String> {
    let mut changes = Vec::new();
    if before.state != after.state {
        changes.extend(news(&before.state, &after.state, policy, now));
    }
    if before.wanted != after.wanted {
        changes.push(format!("wanted {}", wanted(after)));
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

/// What is new in the state's data, apart from pids.
fn news(before: &State, after: &State, policy: &Policy, now: Instant) -> Vec<String> {
    let wait = |until: Instant| until.saturating_duration_since(now);
    match (before, after) {
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
                Startup::Notify { .. } => "for its timeout",
            };
            vec![limit.into()]
        }
        (_, State::Backoff { until, .. }) => vec![format!("for {:?}", wait(*until))],
        (_, State::Fatal { until, .. }) => {
            let rest = policy.cool_off.map_or(Instant::NEVER, |rest| now.saturating_add(rest));
            assert_eq!(*until, rest);
            vec![]
        }
        (State::Stopping(before), State::Stopping(after)) => stopping_news(before, after, now),
        (
            _,
            State::Starting { pid: None, .. }
            | State::Stopping(_)
            | State::Stopped
            | State::Running { .. }
            | State::Exited { .. },
        ) => vec![],
    }
}

fn stopping_news(before: &Stopping, after: &Stopping, now: Instant) -> Vec<String> {
    let mut news = Vec::new();
    if before.rung == after.rung && before.until != after.until {
        news.push(match after.until {
            Instant::NEVER => "no rung left".into(),
            until => format!("next rung in {:?}", until.saturating_duration_since(now)),
        });
    }
    if before.failed != after.failed {
        assert_eq!(after.failed, None);
        news.push("failure forgiven".into());
    }
    match after.left {
        Left::Others { look_at, .. } if before.left != after.left => {
            news.push(format!("next look in {:?}", look_at.saturating_duration_since(now)));
        }
        Left::Leader | Left::Others { .. } => (),
    }
    news
}

fn wanted(life: &Lifecycle) -> &'static str {
    match life.wanted {
        Wanted::Up => "up",
        Wanted::Down => "down",
    }
}

// How it is written down.

fn section(shape: &Shape, answers: &[(Ask, Answer)], like: Option<&[(Ask, Answer)]>) -> String {
    let mut groups: Vec<(Vec<Ask>, &Answer)> = Vec::new();
    for (ask, answer) in answers {
        let there = like.and_then(|like| {
            like.iter()
                .find(|(other, _)| (other.words, other.kind) == (ask.words, ask.kind))
        });
        if there.is_some_and(|(_, there)| there == answer) {
            continue;
        }
        match groups.iter_mut().find(|(_, other)| *other == answer) {
            Some((asks, _)) => asks.push(*ask),
            None => groups.push((vec![*ask], answer)),
        }
    }
    // What is ignored comes last: it is the least to know.
    groups.sort_by_key(|(_, answer)| answer.is_ignored());
    let mut text = format!("\n{} (wanted {})", shape.words, wanted(&shape.life));
    let _ = match shape.like {
        Some(like) => writeln!(text, ": as {like}, but"),
        None => writeln!(text),
    };
    let mut lines: Vec<(String, Option<&Outcome>)> = Vec::new();
    for (asks, answer) in groups {
        answer.lines(&inputs(&asks, answers), &mut lines);
    }
    let answered = lines.iter().filter(|(_, outcome)| outcome.is_some());
    let width = answered.map(|(first, _)| first.len()).max().unwrap_or(0);
    for (first, outcome) in lines {
        text.push_str(&line(&first, width, outcome));
    }
    text
}

/// Names inputs; the kind only where other kinds are answered otherwise.
fn inputs(asks: &[Ask], all: &[(Ask, Answer)]) -> String {
    let mut words: Vec<String> = Vec::new();
    for ask in asks {
        let here = asks.iter().filter(|other| other.words == ask.words).count();
        let anywhere = all.iter().filter(|(other, _)| other.words == ask.words).count();
        words.push(match here == anywhere {
            true => ask.words.to_string(),
            false => format!("{} ({})", ask.words, ask.kind),
        });
    }
    words.dedup();
    words.join(", ")
}

impl Answer {
    fn is_ignored(&self) -> bool {
        matches!(self, Answer::Always(outcome) if outcome.reply == Reply::Ignored)
    }

    /// What stands in the first column, and what stands right of it.
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
    let gap = if steps.is_empty() || outcome.changes.is_empty() {
        ""
    } else {
        "; "
    };
    let text = format!(
        "  {first:<width$}  {reply:<8}  {:<11}  {steps}{gap}{}",
        outcome.action, outcome.changes
    );
    format!("{}\n", text.trim_end())
}
