//! The events of the herd, and the pools of listeners that get them.

use std::os::fd::AsFd;
use std::rc::Rc;

use pidherd::InstanceId;
use pidherd::lifecycle::StateName;
use pidherd::supervisor::TransitionEvent;
use rustix::io::Errno;
use serde_json::{Value, json};

use super::model::{Herd, Member};
use super::pools::{Ticker, seconds};
use crate::config::{Channel, Config, EventKind as Kind, Role};
use crate::handing::{self, to_list, to_number, to_text};
use crate::listeners::{Event, Listener, Numbered, Pool, Protocol, Shown, Stage, States, Step, text_of};
use crate::logs::{Heard, What};

impl Herd {
    /// Announces the groups and the start, and puts every program with `autostart` into the queue of programs to start.
    pub fn begin(&mut self) {
        for group in self.group_names() {
            self.emit(Kind::ProcessGroupAdded, || format!("groupname:{group}\n"));
        }
        self.emit(Kind::SupervisorStateChangeRunning, String::new);
        self.autostart();
    }

    /// Announces the shutdown.
    pub(super) fn announce_shutdown(&mut self) {
        self.emit(Kind::SupervisorStateChangeStopping, String::new);
    }

    /// Sends a message of a client to the listeners.
    pub fn emit_remote(&mut self, kind: &str, data: &str) {
        self.emit(Kind::RemoteCommunication, || format!("type:{kind}\n{data}"));
    }

    /// Makes the pools those of the present listeners, and announces groups that came or went since `before`.
    pub(super) fn update_pools(&mut self, before: &[String]) {
        let after = self.group_names();
        self.make_pools();
        for group in after.iter().filter(|group| !before.contains(group)) {
            self.emit(Kind::ProcessGroupAdded, || format!("groupname:{group}\n"));
        }
        for group in before.iter().filter(|group| !after.contains(group)) {
            self.emit(Kind::ProcessGroupRemoved, || format!("groupname:{group}\n"));
        }
    }

    /// Makes the pools those of the present listeners.
    pub(super) fn make_pools(&mut self) {
        let is_pool = |member: &&Member| !member.leaving;
        let members = self.members.iter().filter(is_pool);
        let wanted = members.filter_map(|member| match &member.program.role {
            Role::Listener(settings) => Some((member.program.group.clone(), *settings)),
            _ => None,
        });
        let wanted: Vec<_> = wanted.collect();
        let pools = &mut self.events.pools;
        pools.retain(|pool| wanted.iter().any(|(name, _)| *name == pool.name));
        for (name, settings) in wanted {
            match pools.iter_mut().find(|pool| pool.name == name) {
                Some(pool) => pool.settings = settings,
                None => pools.push(Pool::new(&name, settings)),
            }
        }
        let ticks = pools.iter().any(|pool| pool.settings.kinds.has_ticks());
        if ticks != self.events.ticker.is_some() {
            let made = ticks.then(Ticker::new).transpose();
            self.events.ticker = made.unwrap_or_else(|error| {
                self.note(format!("there are no TICK events: {}", crate::files::reason(error)));
                None
            });
            let watched = match &self.events.ticker {
                Some(ticker) => self.logs.watch_timer(ticker.timer.as_fd()),
                None => Ok::<(), Errno>(()),
            };
            if let Err(error) = watched {
                self.note(format!("there are no TICK events: {}", crate::files::reason(error)));
            }
        }
    }

    /// Reports a transition to the listeners.
    pub(super) fn emit_transition(&mut self, step: &TransitionEvent) {
        if self.events.pools.is_empty() {
            return;
        }
        let Some(member) = self.members.iter().find(|member| member.id == step.group) else {
            return;
        };
        let program = &member.program;
        let (group, name) = (program.group.clone(), member.name(step.name.number).to_owned());
        let expected = step.exit.map(|record| program.expects(record.exit));
        let is_listener = matches!(program.role, Role::Listener(_)) && !member.leaving;
        let pid = step
            .pid
            .map(|pid| pid.as_raw())
            .filter(|_| step.to == StateName::Starting);
        let events = self.events.states.step(
            step.instance,
            Step {
                from: step.from,
                to: step.to,
                pid,
                expected,
            },
        );
        if is_listener {
            self.enter(&group, step);
        }
        for (kind, extra) in events {
            self.emit(kind, || format!("processname:{name} groupname:{group} {extra}"));
        }
        self.send_events();
    }

    fn enter(&mut self, group: &str, step: &TransitionEvent) {
        let pools = &mut self.events.pools;
        let Some(pool) = pools.iter_mut().find(|pool| pool.name == group) else {
            return;
        };
        let is_new = step.to == StateName::Starting;
        let line = pool.enter(
            step.instance,
            is_new,
            step.to == StateName::Running,
            step.exit.is_some(),
        );
        line.into_iter().for_each(|line| self.note(line));
    }

    /// Takes what was read from the programs besides logs.
    pub(super) fn hear(&mut self) {
        for heard in self.logs.take_heard() {
            match heard.what {
                What::Protocol => self.hear_listener(&heard),
                What::Log | What::Communication => self.hear_program(&heard),
            }
        }
        if self.logs.take_ticked() {
            self.tick();
        }
    }

    fn hear_listener(&mut self, heard: &Heard) {
        let pools = &mut self.events.pools;
        let of_it = pools
            .iter_mut()
            .find(|pool| pool.listeners.contains_key(&heard.instance));
        let lines = of_it.map(|pool| pool.hear(heard.instance, &heard.data));
        lines.into_iter().flatten().for_each(|line| self.note(line));
        self.send_events();
    }

    fn hear_program(&mut self, heard: &Heard) {
        let kind = match (heard.what, heard.channel) {
            (What::Log, Channel::Out) => Kind::ProcessLogStdout,
            (What::Log, Channel::Err) => Kind::ProcessLogStderr,
            (_, Channel::Out) => Kind::ProcessCommunicationStdout,
            (_, Channel::Err) => Kind::ProcessCommunicationStderr,
        };
        let Some(status) = self.supervisor.status(heard.instance) else {
            return;
        };
        let Some(member) = self.members.iter().find(|member| member.id == status.group) else {
            return;
        };
        let (group, name) = (member.program.group.clone(), member.name(status.name.number).to_owned());
        let pid = self.events.states.pid(heard.instance);
        let channel = match heard.what {
            What::Log => format!(" channel:{}", heard.channel.name()),
            _ => String::new(),
        };
        self.emit(kind, || {
            let text = text_of(&heard.data);
            format!("processname:{name} groupname:{group} pid:{pid}{channel}\n{text}")
        });
    }

    fn tick(&mut self) {
        let Some(ticker) = &mut self.events.ticker else { return };
        let (last, now) = (ticker.last, seconds());
        let armed = ticker.timer.acknowledge().and_then(|_| ticker.arm());
        ticker.last = now;
        for (kind, period) in Kind::TICKS {
            if last / period != now / period {
                let when = now / period * period;
                self.emit(kind, || format!("when:{when}"));
            }
        }
        if let Err(error) = armed {
            self.note(format!(
                "there are no more TICK events: {}",
                crate::files::reason(error)
            ));
        }
    }

    /// Gives an event to the pools that have asked for its type.
    fn emit(&mut self, kind: Kind, payload: impl FnOnce() -> String) {
        let pools = &mut self.events.pools;
        if !pools.iter().any(|pool| pool.settings.kinds.contains(kind)) {
            return;
        }
        let event = Rc::new(Event {
            kind,
            serial: self.events.serial,
            payload: payload(),
        });
        self.events.serial += 1;
        let lines: Vec<String> = pools.iter_mut().filter_map(|pool| pool.offer(&event)).collect();
        lines.into_iter().for_each(|line| self.note(line));
        self.send_events();
    }

    fn send_events(&mut self) {
        let (pools, logs) = (&mut self.events.pools, &mut self.logs);
        let server = self.own.automatic.identifier.as_str();
        let lines: Vec<String> = pools
            .iter_mut()
            .filter_map(|pool| pool.dispatch(server, |id, event| logs.post(id, event)))
            .collect();
        lines.into_iter().for_each(|line| self.note(line));
    }

    /// The names of the groups that are not being removed, in start order.
    pub(super) fn group_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for member in self.members.iter().filter(|member| !member.leaving) {
            if !names.contains(&member.program.group) {
                names.push(member.program.group.clone());
            }
        }
        names.extend(self.empty.iter().cloned());
        names
    }

    /// The pools for the program that takes the place of this one. `place` names an instance.
    pub(super) fn describe_events(&self, place: impl Fn(InstanceId) -> Option<Value>) -> Value {
        let listener = |(&id, listener): (&InstanceId, &Listener)| {
            let Protocol { stage, line, result } = &listener.protocol;
            Some(json!({
                "place": place(id)?,
                "stage": *stage as u8,
                "line": handing::bytes(line),
                "result": result.map(|(missing, is_ok)| json!([missing, u8::from(is_ok)])),
                "running": listener.is_running,
                "event": listener.event.as_ref().map(numbered),
            }))
        };
        let pool = |pool: &Pool| {
            json!({
                "name": pool.name,
                "serial": pool.serial,
                "dropped": pool.dropped,
                "buffer": pool.buffer.iter().map(numbered).collect::<Vec<_>>(),
                "listeners": pool.listeners.iter().filter_map(listener).collect::<Vec<_>>(),
            })
        };
        let shown =
            |(&id, shown): (&InstanceId, &Shown)| Some(json!([place(id)?, shown.state, shown.tries, shown.pid]));
        json!({
            "serial": self.events.serial,
            "pools": self.events.pools.iter().map(pool).collect::<Vec<_>>(),
            "states": self.events.states.0.iter().filter_map(shown).collect::<Vec<_>>(),
        })
    }

    /// Goes on with the pools of the program before this one.
    pub(super) fn remember_events(&mut self, left: &Value) {
        self.make_pools();
        self.events.serial = left["serial"].as_u64().unwrap_or(0);
        let shown = |left: &Value| {
            let shown = Shown {
                state: Shown::known(left[1].as_str()?)?,
                tries: to_number(&left[2])?,
                pid: to_number(&left[3])?,
            };
            Some((self.find_instance(&left[0])?, shown))
        };
        let states = left["states"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(shown)
            .collect();
        self.events.states = States(states);
        for old in left["pools"].as_array().into_iter().flatten() {
            let found = old["listeners"].as_array().into_iter().flatten();
            let found: Vec<(InstanceId, Listener)> = found
                .filter_map(|left| Some((self.find_instance(&left["place"])?, to_listener(left)?)))
                .collect();
            let pools = &mut self.events.pools;
            let Some(pool) = pools.iter_mut().find(|pool| old["name"] == *pool.name) else {
                continue;
            };
            pool.serial = old["serial"].as_u64().unwrap_or(0);
            pool.dropped = old["dropped"].as_u64().unwrap_or(0);
            pool.buffer = to_list(&old["buffer"], to_numbered).unwrap_or_default().into();
            pool.listeners = found.into_iter().collect();
        }
        self.send_events();
    }
}

/// A line if a configuration has something that cannot go on by itself while the taskmaster is gone.
pub(super) fn check_stored(config: &Config) -> Result<(), String> {
    for program in config.groups.iter().flat_map(|group| &group.programs) {
        let kept = match &program.role {
            Role::Listener(_) => "an [eventlistener:x]",
            Role::FastCgi(_) => "an [fcgi-program:x]",
            Role::Plain if Channel::BOTH.into_iter().any(|channel| program.is_heard(channel)) => {
                "capture_maxbytes or events_enabled"
            }
            Role::Plain => continue,
        };
        return Err(format!(
            "{}: --state cannot be combined with {kept}: its pipe or socket ends with the taskmaster",
            program.name
        ));
    }
    Ok(())
}

fn numbered((event, serial): &Numbered) -> Value {
    json!([event.kind.name(), event.serial, event.payload, serial])
}

fn to_numbered(left: &Value) -> Option<Numbered> {
    let event = Event {
        kind: Kind::of(left[0].as_str()?)?,
        serial: left[1].as_u64()?,
        payload: to_text(&left[2])?,
    };
    Some((Rc::new(event), left[3].as_u64()?))
}

fn to_listener(left: &Value) -> Option<Listener> {
    let stages = [Stage::Acknowledged, Stage::Ready, Stage::Busy, Stage::Unknown];
    let stage: usize = to_number(&left["stage"])?;
    let result = &left["result"];
    Some(Listener {
        protocol: Protocol {
            stage: *stages.get(stage)?,
            line: handing::to_bytes(&left["line"])?,
            result: result[0].as_u64().map(|missing| (missing, result[1] == 1)),
        },
        is_running: left["running"].as_bool()?,
        event: to_numbered(&left["event"]),
    })
}
