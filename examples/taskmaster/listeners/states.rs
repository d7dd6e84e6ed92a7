//! The states of processes as supervisord reports them.
//!
//! supervisord has no state before, after or between runs in which a command or a delay takes place. A restart goes
//! through EXITED, and the last failed start through BACKOFF. So each transition of the library becomes none, one or
//! several events.

use std::collections::HashMap;

use pidherd::InstanceId;
use pidherd::lifecycle::StateName;

use crate::config::EventKind as Kind;

/// What has been reported about a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The name of the last state.
    pub state: &'static str,
    /// The number of failed starts.
    pub tries: u32,
    /// The PID of the last process, or 0.
    pub pid: u32,
}

/// A transition of the library.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The state before.
    pub from: StateName,
    /// The state after.
    pub to: StateName,
    /// The process of a run that begins.
    pub pid: Option<u32>,
    /// Whether the exit of a run was expected. `None` if no run has ended.
    pub expected: Option<bool>,
}

const STATES: [(&str, Kind); 7] = [
    ("STOPPED", Kind::ProcessStateStopped),
    ("STARTING", Kind::ProcessStateStarting),
    ("RUNNING", Kind::ProcessStateRunning),
    ("BACKOFF", Kind::ProcessStateBackoff),
    ("STOPPING", Kind::ProcessStateStopping),
    ("EXITED", Kind::ProcessStateExited),
    ("FATAL", Kind::ProcessStateFatal),
];

/// The states of all processes.
#[derive(Debug, Default)]
pub struct States(pub HashMap<InstanceId, Shown>);

impl States {
    /// The events of a transition, and what follows the name of the process in each.
    pub fn step(&mut self, instance: InstanceId, step: Step) -> Vec<(Kind, String)> {
        let shown = self.0.entry(instance).or_default();
        let mut events = Vec::new();
        shown.step(step, &mut events);
        events
    }

    /// The PID of the last process of an instance.
    pub fn pid(&self, instance: InstanceId) -> u32 {
        self.0.get(&instance).map_or(0, |shown| shown.pid)
    }
}

impl Default for Shown {
    fn default() -> Shown {
        Shown {
            state: "STOPPED",
            tries: 0,
            pid: 0,
        }
    }
}

impl Shown {
    /// The state with this name.
    pub fn known(name: &str) -> Option<&'static str> {
        STATES.iter().find(|(known, _)| *known == name).map(|(known, _)| *known)
    }

    fn step(&mut self, step: Step, events: &mut Vec<(Kind, String)>) {
        let was_running = self.state == "RUNNING" && step.expected.is_some();
        let expected = step.expected.unwrap_or(true);
        match step.to {
            StateName::Preparing | StateName::Starting => {
                if was_running {
                    self.exited(expected, events);
                }
                if self.state == "STARTING" && step.from != StateName::Preparing {
                    self.failed(events);
                }
                self.pid = step.pid.unwrap_or(self.pid);
                if self.state != "STARTING" {
                    let tries = self.tries;
                    self.enter("STARTING", &format!(" tries:{tries}"), events);
                }
            }
            StateName::Running => {
                self.tries = 0;
                self.enter_with_pid("RUNNING", events);
            }
            StateName::Backoff if was_running => self.exited(expected, events),
            StateName::Backoff if self.state == "EXITED" => {}
            StateName::Backoff => self.failed(events),
            StateName::Stopping => self.enter_with_pid("STOPPING", events),
            StateName::CleaningUp if was_running => self.exited(expected, events),
            StateName::CleaningUp => {}
            StateName::Exited if self.state == "EXITED" => {}
            StateName::Exited => self.exited(expected, events),
            StateName::Stopped => {
                self.tries = 0;
                if self.state != "STOPPED" {
                    self.enter_with_pid("STOPPED", events);
                }
            }
            StateName::Fatal => {
                match self.state {
                    "RUNNING" => self.exited(expected, events),
                    "STARTING" | "STOPPING" => self.failed(events),
                    _ => {}
                }
                self.tries = 0;
                self.enter("FATAL", "", events);
            }
            _ => {}
        }
    }

    fn exited(&mut self, expected: bool, events: &mut Vec<(Kind, String)>) {
        self.tries = 0;
        let extra = format!(" expected:{} pid:{}", u8::from(expected), self.pid);
        self.enter("EXITED", &extra, events);
    }

    fn failed(&mut self, events: &mut Vec<(Kind, String)>) {
        self.tries += 1;
        let tries = self.tries;
        self.enter("BACKOFF", &format!(" tries:{tries}"), events);
    }

    fn enter_with_pid(&mut self, state: &'static str, events: &mut Vec<(Kind, String)>) {
        let extra = format!(" pid:{}", self.pid);
        self.enter(state, &extra, events);
    }

    fn enter(&mut self, state: &'static str, extra: &str, events: &mut Vec<(Kind, String)>) {
        let from = std::mem::replace(&mut self.state, state);
        let kind = STATES.iter().find(|(name, _)| *name == state).map(|(_, kind)| *kind);
        events.extend(kind.map(|kind| (kind, format!("from_state:{from}{extra}"))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StateName::{Backoff, CleaningUp, Exited, Fatal, Preparing, Running, Starting, Stopped, Stopping};

    /// The events of these transitions. A transition with `Some` ends a run.
    fn events(steps: &[(StateName, Option<bool>)]) -> Vec<String> {
        let (mut shown, mut events) = (Shown::default(), Vec::new());
        let mut from = Stopped;
        for &(to, expected) in steps {
            let pid = (to == Starting).then_some(7);
            let step = Step {
                from,
                to,
                pid,
                expected,
            };
            shown.step(step, &mut events);
            from = to;
        }
        let line = |(kind, text): (Kind, String)| format!("{} {text}", kind.name());
        let lines = events.into_iter().map(line);
        lines.map(|line| line.replace("PROCESS_STATE_", "")).collect()
    }

    #[test]
    fn a_run_goes_through_supervisords_states() {
        let expected = [
            "STARTING from_state:STOPPED tries:0",
            "RUNNING from_state:STARTING pid:7",
            "STOPPING from_state:RUNNING pid:7",
            "STOPPED from_state:STOPPING pid:7",
        ];
        let plain = [
            (Starting, None),
            (Running, None),
            (Stopping, None),
            (Stopped, Some(true)),
        ];
        assert_eq!(events(&plain), expected);
        let around = [
            (Preparing, None),
            (Starting, None),
            (Running, None),
            (Stopping, None),
            (CleaningUp, Some(true)),
            (Stopped, None),
        ];
        assert_eq!(events(&around), expected);
    }

    #[test]
    fn a_restart_goes_through_exited() {
        let expected = [
            "EXITED from_state:RUNNING expected:0 pid:7",
            "STARTING from_state:EXITED tries:0",
        ];
        let up = [(Starting, None), (Running, None)];
        for rest in [
            &[(Starting, Some(false))][..],
            &[(Backoff, Some(false)), (Starting, None)],
            &[(CleaningUp, Some(false)), (Starting, None)],
            &[(CleaningUp, Some(false)), (Backoff, None), (Starting, None)],
        ] {
            assert_eq!(events(&[&up, rest].concat())[2..], expected, "{rest:?}");
        }
        let ended = [&up[..], &[(Exited, Some(true))]].concat();
        assert_eq!(events(&ended)[2], "EXITED from_state:RUNNING expected:1 pid:7");
    }

    #[test]
    fn failed_starts_are_counted() {
        let steps = [
            (Starting, None),
            (Backoff, Some(false)),
            (Starting, None),
            (Fatal, Some(false)),
        ];
        let expected = [
            "STARTING from_state:STOPPED tries:0",
            "BACKOFF from_state:STARTING tries:1",
            "STARTING from_state:BACKOFF tries:1",
            "BACKOFF from_state:STARTING tries:2",
            "FATAL from_state:BACKOFF",
        ];
        assert_eq!(events(&steps), expected);
    }
}
