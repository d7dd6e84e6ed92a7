//! Draws `states.svg`: the states, and every transition between them that the table makes.
//!
//! The transitions and their causes come from running the table on all [`cases`](super::cases). The positions
//! are set by hand, because no layout engine draws seven states as clearly. The test fails if a transition
//! has no position, or a position no transition.
//!
//! The drawing is that of runs without commands. With them, `around.txt` lists the transitions that PREPARING and
//! CLEANING_UP have: as many again, which a drawing would not make clearer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::super::{Cause, Failure, Input, StateName, Transition};
use super::cases::{TimedInput, cause_text, policies, shapes, with_commands};

/// A point in the units of the drawing.
type Point = (i32, i32);

/// Each state, and the centre of its box.
const STATES: [(StateName, Point); 7] = [
    (StateName::Stopping, (540, 80)),
    (StateName::Stopped, (140, 320)),
    (StateName::Starting, (540, 320)),
    (StateName::Running, (940, 320)),
    (StateName::Fatal, (140, 580)),
    (StateName::Backoff, (540, 580)),
    (StateName::Exited, (940, 580)),
];
const WIDTH: i32 = 132;
const HEIGHT: i32 = 44;

/// A transition between two states, drawn as a cubic curve.
struct Edge {
    from: StateName,
    to: StateName,
    curve: [Point; 4],
    /// The position of the list of causes: the baseline of its first line, and the text's anchor.
    label: (Point, Anchor),
}

#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

const fn edge(from: StateName, to: StateName, curve: [Point; 4], label: (i32, i32, Anchor)) -> Edge {
    let (x, y, anchor) = label;
    Edge {
        from,
        to,
        curve,
        label: ((x, y), anchor),
    }
}

const fn straight(from: StateName, to: StateName, ends: [Point; 2], label: (i32, i32, Anchor)) -> Edge {
    edge(from, to, [ends[0], ends[0], ends[1], ends[1]], label)
}

#[rustfmt::skip]
const EDGES: [Edge; 21] = {
    use Anchor::{End, Middle, Start};
    use StateName::{Backoff, Exited, Fatal, Running, Starting, Stopped, Stopping};
    [
        straight(Stopped, Starting, [(206, 308), (474, 308)], (290, 300, Middle)),
        straight(Starting, Stopped, [(474, 332), (206, 332)], (290, 350, Middle)),
        straight(Starting, Running, [(606, 320), (874, 320)], (740, 296, Middle)),
        straight(Starting, Stopping, [(560, 298), (560, 102)], (570, 150, Start)),
        straight(Stopping, Starting, [(520, 102), (520, 298)], (511, 205, End)),
        straight(Starting, Backoff, [(552, 342), (552, 558)], (562, 440, Start)),
        straight(Backoff, Starting, [(524, 558), (524, 342)], (514, 440, End)),
        straight(Running, Exited, [(940, 342), (940, 558)], (950, 455, Start)),
        straight(Exited, Starting, [(874, 569), (590, 342)], (806, 534, End)),
        straight(Starting, Exited, [(606, 334), (890, 558)], (768, 448, Start)),
        straight(Exited, Backoff, [(874, 586), (606, 586)], (740, 604, Middle)),
        straight(Backoff, Fatal, [(474, 588), (206, 588)], (340, 606, Middle)),
        straight(Fatal, Stopped, [(112, 558), (112, 342)], (102, 455, End)),
        edge(Running, Stopping, [(900, 298), (870, 180), (760, 90), (606, 88)], (850, 236, End)),
        edge(Running, Stopped, [(885, 342), (760, 400), (330, 400), (196, 342)], (690, 395, Middle)),
        edge(Stopping, Exited, [(606, 70), (960, 30), (1190, 300), (1006, 575)], (1080, 330, Start)),
        edge(Stopping, Stopped, [(474, 80), (300, 85), (160, 160), (140, 298)], (200, 140, End)),
        edge(Stopping, Backoff, [(490, 102), (330, 200), (330, 460), (490, 558)], (380, 226, End)),
        edge(Backoff, Stopped, [(474, 570), (400, 540), (220, 430), (180, 342)], (200, 405, End)),
        edge(Fatal, Starting, [(180, 558), (230, 470), (400, 400), (490, 342)], (226, 532, Start)),
        edge(Exited, Fatal, [(920, 602), (860, 720), (220, 720), (150, 602)], (535, 708, Middle)),
    ]
};

/// The drawing has its own background, so that it is readable on a dark page. It has no style sheet, because
/// a style sheet would affect the whole page that contains the drawing.
const HEAD: &str = "\
<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1150 730\" role=\"img\" font-family=\"sans-serif\">
<title>The states of a process, and what leads from one to another</title>
<marker id=\"head\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\">
<path d=\"M0,0 L10,5 L0,10 z\" fill=\"#57606a\"/>
</marker>
<rect width=\"1150\" height=\"730\" rx=\"12\" fill=\"#ffffff\"/>
";
const EDGES_GROUP: &str = "<g fill=\"none\" stroke=\"#57606a\" stroke-width=\"1.6\">\n";
const CAUSES_GROUP: &str =
    "<g font-size=\"14\" fill=\"#24292f\" stroke=\"#ffffff\" stroke-width=\"4\" paint-order=\"stroke\">\n";
const BOXES_GROUP: &str = "<g stroke=\"#24292f\" stroke-width=\"1.5\">\n";
const NAMES_GROUP: &str = "<g font-size=\"16\" font-weight=\"bold\" fill=\"#24292f\" text-anchor=\"middle\">\n";

#[test]
fn states_svg_agrees_with_the_table() {
    super::golden::compare("states.svg", include_str!("../states.svg"), &drawing());
}

/// The reasons for a transition.
#[derive(Default)]
struct Reasons {
    commands: Vec<&'static str>,
    causes: BTreeSet<String>,
}

impl Reasons {
    fn add(&mut self, timed: TimedInput, step: Transition) {
        match cause_of(timed, step) {
            None if self.commands.contains(&timed.name) => (),
            None => self.commands.push(timed.name),
            Some(cause) => {
                self.causes.insert(cause);
            }
        }
    }

    /// All commands in one line, and each cause in a line of its own.
    fn lines(&self) -> Vec<String> {
        let commands = Some(self.commands.join(", ")).filter(|commands| !commands.is_empty());
        commands.into_iter().chain(self.causes.iter().cloned()).collect()
    }
}

#[test]
fn around_txt_agrees_with_the_table() {
    let is_of_a_command = |name| matches!(name, StateName::Preparing | StateName::CleaningUp);
    let mut text = String::new();
    for ((from, to), reasons) in edges(true) {
        if is_of_a_command(from) || is_of_a_command(to) {
            let _ = writeln!(text, "{from:<11} -> {to:<11}  {}", reasons.lines().join("; "));
        }
    }
    super::golden::compare("around.txt", super::super::AROUND, &text);
}

/// Every transition that the table makes in runs with commands, or without.
fn edges(has_commands: bool) -> BTreeMap<(StateName, StateName), Reasons> {
    let policies = match has_commands {
        true => with_commands(&policies()),
        false => policies(),
    };
    let mut edges: BTreeMap<_, Reasons> = BTreeMap::new();
    for shape in shapes().into_iter().filter(|shape| shape.has_commands == has_commands) {
        for timed in shape.inputs() {
            let reactions = policies.iter().map(|policy| shape.apply(timed, policy).0);
            for step in reactions.flat_map(|reaction| reaction.transitions()) {
                edges.entry((step.from, step.to)).or_default().add(timed, step);
            }
        }
    }
    edges
}

/// The cause's text. `None` if the cause is the command itself.
fn cause_of(timed: TimedInput, step: Transition) -> Option<String> {
    let is_command = matches!(timed.input, Input::Start | Input::Stop | Input::Restart | Input::Kill);
    match (step.cause, step.to) {
        (Cause::Requested, _) if is_command => None,
        (Cause::Requested, StateName::Starting | StateName::Preparing) => Some("queued start".into()),
        (Cause::Requested, _) => Some("queued stop".into()),
        (Cause::Ended { .. }, _) => Some("ended".into()),
        // One kind of failure while alive stands for all of them.
        (Cause::Failed(Failure::Watchdog), _) => Some("failed".into()),
        (cause, _) => Some(cause_text(cause)),
    }
}

fn drawing() -> String {
    let transitions = edges(false);
    let drawn: BTreeSet<_> = EDGES.iter().map(|edge| (edge.from, edge.to)).collect();
    assert_eq!(
        drawn,
        transitions.keys().copied().collect(),
        "a transition without a position, or a position without a transition"
    );
    let group = |head: &str, lines: Vec<String>| format!("{head}{}</g>\n", lines.concat());
    let svg = [
        HEAD.into(),
        group(EDGES_GROUP, EDGES.iter().map(Edge::line).collect()),
        group(
            CAUSES_GROUP,
            EDGES
                .iter()
                .map(|edge| edge.causes(&transitions[&(edge.from, edge.to)].lines()))
                .collect(),
        ),
        group(BOXES_GROUP, STATES.map(box_of).into()),
        group(NAMES_GROUP, STATES.map(name_of).into()),
        "</svg>\n".into(),
    ];
    svg.concat()
}

fn box_of((name, (x, y)): (StateName, Point)) -> String {
    let (left, top, fill) = (x - WIDTH / 2, y - HEIGHT / 2, fill(name));
    format!("<rect x=\"{left}\" y=\"{top}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"10\" fill=\"{fill}\"/>\n")
}

fn name_of((name, (x, y)): (StateName, Point)) -> String {
    format!("<text x=\"{x}\" y=\"{}\">{name}</text>\n", y + 6)
}

impl Edge {
    fn line(&self) -> String {
        let [(x0, y0), (x1, y1), (x2, y2), (x3, y3)] = self.curve;
        format!("<path marker-end=\"url(#head)\" d=\"M{x0},{y0} C{x1},{y1} {x2},{y2} {x3},{y3}\"/>\n")
    }

    fn causes(&self, causes: &[String]) -> String {
        let ((x, y), anchor) = self.label;
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let mut text = String::new();
        for (cause, y) in causes.iter().zip((y..).step_by(17)) {
            let _ = writeln!(
                text,
                "<text text-anchor=\"{anchor}\" x=\"{x}\" y=\"{y}\">{cause}</text>"
            );
        }
        text
    }
}

/// The fill colour. It is green for the states in which a process may be alive.
fn fill(name: StateName) -> &'static str {
    match name {
        StateName::Preparing
        | StateName::Starting
        | StateName::Running
        | StateName::Stopping
        | StateName::CleaningUp => "#d2f4d3",
        StateName::Stopped | StateName::Exited => "#e6e9ed",
        StateName::Backoff => "#fff0c2",
        StateName::Fatal => "#ffd9d6",
    }
}
