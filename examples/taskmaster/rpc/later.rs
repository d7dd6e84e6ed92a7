//! Answers that wait for a process to start or to stop.

use std::collections::VecDeque;

use pidherd::InstanceId;

use super::fault::{Fault, SUCCESS};
use super::remote::Remote;
use super::value::Value;
use crate::herd::Progress;

/// The answer to a call.
#[derive(Debug)]
pub enum Answer {
    /// The value.
    Now(Value),
    /// It is not known yet.
    Later(Later),
}

impl From<Value> for Answer {
    fn from(value: Value) -> Answer {
        Answer::Now(value)
    }
}

/// Carries out a call.
type Perform = fn(&mut Remote<'_>, &str, &[Value]) -> Result<Answer, Fault>;

/// What a process is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// It runs.
    Started,
    /// It is down.
    Stopped,
}

/// One process that is waited for.
#[derive(Debug)]
pub struct Item {
    /// The process.
    pub id: InstanceId,
    /// Its group and its name.
    pub name: (String, String),
    /// What is waited for.
    pub goal: Goal,
    /// `None` while it is waited for.
    pub result: Option<Result<(), Fault>>,
}

/// An answer that is not known yet.
#[derive(Debug)]
pub enum Later {
    /// The answer is `true` when the process is there.
    One(Item),
    /// The answer is a list with the result for each process.
    All(Vec<Item>),
    /// The answers to several calls, one after the other.
    Calls {
        /// The calls that were not made.
        rest: VecDeque<Value>,
        /// The answers.
        done: Vec<Value>,
        /// The call that waits.
        current: Option<Box<Later>>,
        /// Carries out each call.
        perform: Perform,
    },
}

impl Later {
    /// The answers to several calls.
    pub fn calls(rest: VecDeque<Value>, perform: Perform) -> Later {
        Later::Calls {
            rest,
            done: Vec::new(),
            current: None,
            perform,
        }
    }

    /// The answer, if it is already known.
    pub fn into_answer(mut self, remote: &mut Remote<'_>) -> Result<Answer, Fault> {
        match self.poll(remote) {
            Some(result) => result.map(Answer::Now),
            None => Ok(Answer::Later(self)),
        }
    }

    /// The answer. `None` if it is not known yet.
    pub fn poll(&mut self, remote: &mut Remote<'_>) -> Option<Result<Value, Fault>> {
        match self {
            Later::One(item) => Some(item.poll(remote)?.map(|()| Value::Bool(true))),
            Later::All(items) => {
                let known: Vec<bool> = items.iter_mut().map(|item| item.poll(remote).is_some()).collect();
                let all = known.into_iter().all(|known| known);
                all.then(|| Ok(Value::Array(items.iter().map(Item::value).collect())))
            }
            Later::Calls {
                rest,
                done,
                current,
                perform,
            } => loop {
                if let Some(waiting) = current {
                    let result = waiting.poll(remote)?;
                    done.push(result.unwrap_or_else(|fault| fault.value()));
                    *current = None;
                }
                let Some(call) = rest.pop_front() else {
                    return Some(Ok(Value::Array(std::mem::take(done))));
                };
                match make(remote, &call, *perform) {
                    Ok(Answer::Now(value)) => done.push(value),
                    Ok(Answer::Later(later)) => *current = Some(Box::new(later)),
                    Err(fault) => done.push(fault.value()),
                }
            },
        }
    }
}

/// Makes one of several calls.
fn make(remote: &mut Remote<'_>, call: &Value, perform: Perform) -> Result<Answer, Fault> {
    let Value::Struct(fields) = call else {
        return Err(Fault::incorrect_parameters("a call is a struct"));
    };
    let params = match fields.get("params") {
        Some(Value::Array(params)) => params.as_slice(),
        None => &[],
        Some(_) => return Err(Fault::incorrect_parameters("params is an array")),
    };
    match fields.get("methodName") {
        Some(Value::Text(name)) if name == "system.multicall" => {
            Err(Fault::incorrect_parameters("Recursive system.multicall forbidden"))
        }
        Some(Value::Text(name)) => perform(remote, name, params),
        _ => Err(Fault::incorrect_parameters("No methodName")),
    }
}

impl Item {
    fn poll(&mut self, remote: &mut Remote<'_>) -> Option<Result<(), Fault>> {
        if self.result.is_none() {
            let progress = match self.goal {
                Goal::Started => remote.herd.start_progress(self.id),
                Goal::Stopped => remote.herd.stop_progress(self.id),
            };
            self.result = self.judge(&progress);
        }
        self.result.clone()
    }

    fn judge(&self, progress: &Progress) -> Option<Result<(), Fault>> {
        let name = match &self.name {
            (group, name) if group == name => name.clone(),
            (group, name) => format!("{group}:{name}"),
        };
        Some(match progress {
            Progress::Waiting => return None,
            Progress::Done => Ok(()),
            Progress::NotExecuted(libc::ENOENT) => Err(Fault::no_file(name)),
            Progress::NotExecuted(libc::EACCES) => Err(Fault::not_executable(name)),
            Progress::NotExecuted(_) => Err(Fault::spawn_error(name)),
            Progress::Ended => Err(Fault::spawn_error(name)),
            Progress::Stopped => Err(Fault::abnormal_termination(name)),
            Progress::Unkillable => Err(Fault::failed(format!("{name} survives SIGKILL"))),
            Progress::Gone => Err(Fault::bad_name(name)),
        })
    }

    /// The result as a member of a list.
    fn value(&self) -> Value {
        let (status, description) = match &self.result {
            None | Some(Ok(())) => (SUCCESS, "OK"),
            Some(Err(fault)) => (fault.code, fault.text.as_str()),
        };
        Value::of([
            ("name", Value::from(self.name.1.as_str())),
            ("group", Value::from(self.name.0.as_str())),
            ("status", Value::Int(status.into())),
            ("description", Value::from(description)),
        ])
    }
}
