//! Event listeners, by supervisord's protocol: pools of programs that get events on their standard input.
//!
//! An event goes to one listener of each pool that has asked for its type. While no listener of a pool is ready, events
//! wait in a buffer of a bounded size. If it is full, the oldest event is dropped and counted. So a listener that never
//! answers, or violates the protocol, costs its pool events and delays nothing else.
//!
//! `protocol` has what a listener says, and `states` the names of states in events. This module knows no descriptor: the
//! caller passes a function that writes an event to a listener.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use pidherd::InstanceId;

use crate::config::{EventKind as Kind, PoolSettings};

mod protocol;
mod states;

pub use protocol::{Protocol, Said, Stage};
pub use states::{Shown, States, Step};

/// An event.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    /// Its type.
    pub kind: Kind,
    /// Its number among all events.
    pub serial: u64,
    /// What follows the header.
    pub payload: String,
}

/// An event, and its number among those of the pool.
pub type Numbered = (Rc<Event>, u64);

/// A listener.
#[derive(Debug, Default)]
pub struct Listener {
    /// What it has said.
    pub protocol: Protocol,
    /// Whether it is RUNNING.
    pub is_running: bool,
    /// The event that it has.
    pub event: Option<Numbered>,
}

/// The listeners of one section.
#[derive(Debug)]
pub struct Pool {
    /// The name of the group.
    pub name: String,
    /// Its settings.
    pub settings: PoolSettings,
    /// The number of the next event.
    pub serial: u64,
    /// The events that wait, the oldest first.
    pub buffer: VecDeque<Numbered>,
    /// The listeners.
    pub listeners: BTreeMap<InstanceId, Listener>,
    /// The number of events that were dropped and not yet reported.
    pub dropped: u64,
}

impl Pool {
    /// A pool without listeners.
    pub fn new(name: &str, settings: PoolSettings) -> Pool {
        Pool {
            name: name.to_owned(),
            settings,
            serial: 0,
            buffer: VecDeque::new(),
            listeners: BTreeMap::new(),
            dropped: 0,
        }
    }

    /// Takes an event, if the pool has asked for its type. Returns a line if the buffer has just become too small.
    pub fn offer(&mut self, event: &Rc<Event>) -> Option<String> {
        if !self.settings.kinds.contains(event.kind) {
            return None;
        }
        let serial = self.serial;
        self.serial += 1;
        let dropped = self.make_room();
        self.buffer.push_back((Rc::clone(event), serial));
        dropped
    }

    /// Takes an event back that a listener has not processed. It is the next one.
    pub fn take_back(&mut self, event: Numbered) -> Option<String> {
        let dropped = self.make_room();
        self.buffer.push_front(event);
        dropped
    }

    fn make_room(&mut self) -> Option<String> {
        if self.buffer.len() < self.settings.buffer_size as usize {
            return None;
        }
        let (event, _) = self.buffer.pop_front()?;
        self.dropped += 1;
        // A pool without a ready listener may drop thousands. The number follows when one is ready again.
        (self.dropped == 1).then(|| {
            format!(
                "event listener {}: the buffer is full; event {} was dropped",
                self.name, event.serial
            )
        })
    }

    /// Sends waiting events to listeners that are ready. `post` writes to a listener, and returns false if it cannot.
    /// Returns a line if events were dropped before.
    pub fn dispatch(&mut self, server: &str, mut post: impl FnMut(InstanceId, Vec<u8>) -> bool) -> Option<String> {
        let mut unable: Vec<InstanceId> = Vec::new();
        let before = self.buffer.len();
        while let Some((event, serial)) = self.buffer.front() {
            let is_ready = |(id, listener): &(&InstanceId, &mut Listener)| {
                listener.is_running && listener.protocol.stage == Stage::Ready && !unable.contains(id)
            };
            let Some((&id, listener)) = self.listeners.iter_mut().find(is_ready) else {
                break;
            };
            if !post(id, envelope(server, &self.name, event, *serial)) {
                unable.push(id);
                continue;
            }
            listener.protocol.stage = Stage::Busy;
            listener.event = self.buffer.pop_front();
        }
        if self.buffer.len() == before || self.dropped < 2 {
            return None;
        }
        let dropped = std::mem::take(&mut self.dropped);
        Some(format!("event listener {}: {dropped} events were dropped", self.name))
    }

    /// Takes what a listener has written. Returns lines for the log.
    pub fn hear(&mut self, id: InstanceId, data: &[u8]) -> Vec<String> {
        let Some(listener) = self.listeners.get_mut(&id) else {
            return Vec::new();
        };
        let mut lines = Vec::new();
        let mut back = None;
        for said in listener.protocol.feed(data) {
            match said {
                Said::Ready => {}
                Said::Accepted => listener.event = None,
                Said::Rejected => {
                    if let Some((event, _)) = &listener.event {
                        lines.push(format!(
                            "event listener {}: event {} was rejected",
                            self.name, event.serial
                        ));
                    }
                    back = listener.event.take();
                }
                Said::Violated(why) => {
                    lines.push(format!(
                        "event listener {} violates the protocol and gets no more events until it is restarted: {why}",
                        self.name
                    ));
                    back = back.or(listener.event.take());
                }
            }
        }
        lines.extend(back.and_then(|event| self.take_back(event)));
        lines
    }

    /// A process of the pool has entered a state. A new process has said nothing yet.
    pub fn enter(&mut self, id: InstanceId, is_new: bool, is_running: bool, is_down: bool) -> Option<String> {
        let listener = self.listeners.entry(id).or_default();
        listener.is_running = is_running;
        if !is_new && !is_down {
            return None;
        }
        listener.protocol = Protocol::default();
        let event = listener.event.take()?;
        self.take_back(event)
    }
}

/// An event as it is sent. The length counts characters, as in supervisord 4.3: its listeners in Python read so many.
fn envelope(server: &str, pool: &str, event: &Event, pool_serial: u64) -> Vec<u8> {
    let Event { kind, serial, payload } = event;
    let (name, length) = (kind.name(), payload.chars().count());
    format!(
        "ver:3.0 server:{server} serial:{serial} pool:{pool} poolserial:{pool_serial} eventname:{name} len:{length}\n\
         {payload}"
    )
    .into_bytes()
}

/// The text of an output in an event. Bytes that are no text are escaped by Python's rules, as in supervisord.
pub fn text_of(data: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(data) {
        return text.to_owned();
    }
    let quote = if data.contains(&b'\'') && !data.contains(&b'"') {
        '"'
    } else {
        '\''
    };
    let mut text = format!("Undecodable: b{quote}");
    for &byte in data {
        match byte {
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            b'\\' => text.push_str("\\\\"),
            _ if char::from(byte) == quote => text.extend(['\\', quote]),
            b' '..=b'~' => text.push(byte.into()),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push(quote);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Kinds;

    fn pool(buffer_size: u32) -> Pool {
        let kinds = Kinds::parse("TICK").unwrap();
        Pool::new("p", PoolSettings { kinds, buffer_size })
    }

    fn event(serial: u64) -> Rc<Event> {
        Rc::new(Event {
            kind: Kind::Tick5,
            serial,
            payload: "when:é".to_owned(),
        })
    }

    #[test]
    fn an_event_is_one_line_and_its_payload() {
        let sent = envelope("host", "p", &event(3), 1);
        let expected = "ver:3.0 server:host serial:3 pool:p poolserial:1 eventname:TICK_5 len:6\nwhen:é";
        assert_eq!(String::from_utf8(sent).unwrap(), expected);
    }

    #[test]
    fn a_full_buffer_drops_the_oldest_event_and_says_so_once() {
        let mut pool = pool(2);
        let lines: Vec<Option<String>> = (0..5).map(|serial| pool.offer(&event(serial))).collect();
        assert_eq!(lines.iter().flatten().count(), 1);
        let waiting: Vec<u64> = pool.buffer.iter().map(|(event, _)| event.serial).collect();
        assert_eq!((waiting, pool.dropped), (vec![3, 4], 3));
        let other = Rc::new(Event {
            kind: Kind::RemoteCommunication,
            serial: 9,
            payload: String::new(),
        });
        assert_eq!((pool.offer(&other), pool.buffer.len()), (None, 2));
    }

    #[test]
    fn bytes_that_are_no_text_are_escaped() {
        assert_eq!(text_of("é\n".as_bytes()), "é\n");
        assert_eq!(text_of(b"a\xff'\n"), "Undecodable: b\"a\\xff'\\n\"");
        assert_eq!(text_of(b"\xff\\"), "Undecodable: b'\\xff\\\\'");
    }
}
