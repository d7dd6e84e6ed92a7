//! One connection.
//!
//! It reads a request, waits for the answer, writes it, and reads the next one. While it waits it reads nothing, so a
//! client that sends more is held back by the kernel.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, send, shutdown};

use super::request::{Header, Refusal};
use super::tail::Tail;
use crate::config::Login;

/// The time for a complete request, and for the next one.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// The time in which a client must take some bytes of a reply.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// The time in which a client must end after the last reply.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// The size of one read, in bytes.
const CHUNK: usize = 16 << 10;
/// The number of bytes of a followed log that wait for the client.
const MOST_TAIL: usize = 64 << 10;

/// A connection.
#[derive(Debug)]
pub struct Conn {
    socket: OwnedFd,
    login: Option<Login>,
    received: Vec<u8>,
    to_send: Vec<u8>,
    sent: usize,
    state: State,
    deadline: Option<Instant>,
    /// What epoll watches.
    interest: EventFlags,
    /// Whether the client sends nothing more.
    has_ended: bool,
    is_1_1: bool,
    keep_alive: bool,
    /// Whether a complete request was accepted, with the password if there is one.
    proven: bool,
}

#[derive(Debug)]
enum State {
    /// A header is read. `continued` tells that the client was asked for the body.
    Reading { continued: bool },
    /// The taskmaster works on the request.
    Waiting,
    /// The reply is written, and the connection then closed.
    Closing,
    /// The reply was written. What the client still sends is discarded until its end, because a close before that
    /// could destroy the reply on its way (RFC 9112, 9.6).
    Draining,
    /// A log is followed.
    Tailing(Tail),
}

/// What a request wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A remote call, with the XML of its body.
    Call(Vec<u8>),
    /// To follow the log at this path of the URL, for example `/logtail/web/stdout`.
    Tail(String),
}

/// What follows for the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until the socket is ready again.
    Continue,
    /// The request is complete.
    Request(Wanted),
    /// The connection is over.
    Close,
}

impl Conn {
    /// A new connection.
    pub fn new(socket: OwnedFd, login: Option<Login>) -> Conn {
        Conn {
            socket,
            login,
            received: Vec::new(),
            to_send: Vec::new(),
            sent: 0,
            state: State::Reading { continued: false },
            deadline: Some(Instant::now() + REQUEST_TIME),
            interest: EventFlags::IN,
            has_ended: false,
            is_1_1: false,
            keep_alive: false,
            proven: false,
        }
    }

    /// The time at which the connection is closed.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether it may be closed for a new connection.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Reading { .. } | State::Draining)
    }

    /// Whether a complete request was accepted.
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    fn is_reading(&self) -> bool {
        matches!(self.state, State::Reading { .. })
    }

    /// The log that is followed.
    pub fn tailed(&self) -> Option<&Path> {
        match &self.state {
            State::Tailing(tail) => Some(tail.path()),
            _ => None,
        }
    }

    /// What epoll watches.
    pub fn interest(&self) -> EventFlags {
        self.interest
    }

    /// What epoll must watch from now on. `None` if nothing has changed.
    pub fn changed_interest(&mut self) -> Option<EventFlags> {
        let mut wanted = EventFlags::empty();
        if !self.has_ended && !matches!(self.state, State::Closing) {
            // While the taskmaster works on a request, only the end of the client is of interest.
            wanted |= if self.is_idle() {
                EventFlags::IN
            } else {
                EventFlags::RDHUP
            };
        }
        if self.sent < self.to_send.len() {
            wanted |= EventFlags::OUT;
        }
        (wanted != self.interest).then(|| {
            self.interest = wanted;
            wanted
        })
    }

    /// Serves the socket.
    pub fn ready(&mut self, flags: EventFlags) -> Step {
        // A client may be gone after a complete request.
        let has_more = flags.contains(EventFlags::IN) && self.is_reading();
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) && !has_more {
            return Step::Close;
        }
        if flags.contains(EventFlags::RDHUP) && !self.is_idle() {
            self.has_ended = true;
            if self.tailed().is_some() {
                return Step::Close;
            }
        }
        if flags.contains(EventFlags::OUT) {
            let step = self.write();
            if step != Step::Continue {
                return step;
            }
            if self.tailed().is_some() {
                return self.feed_tail();
            }
        }
        if flags.contains(EventFlags::IN) && self.is_idle() {
            return self.read();
        }
        Step::Continue
    }

    /// Sends the reply to a request.
    pub fn reply(&mut self, status: u16, kind: &str, body: &[u8]) -> Step {
        let keeps = self.keep_alive && !self.has_ended;
        self.push_header(status, kind, &format!("Content-Length: {}\r\n", body.len()), keeps);
        self.to_send.extend_from_slice(body);
        self.state = if keeps {
            State::Reading { continued: false }
        } else {
            State::Closing
        };
        self.deadline = Some(Instant::now() + WRITE_TIME);
        match self.write() {
            Step::Continue if self.is_reading() => self.advance(),
            step => step,
        }
    }

    /// Refuses the request, and closes the connection after the reply.
    pub fn refuse(&mut self, status: Refusal) -> Step {
        self.keep_alive = false;
        self.received = Vec::new();
        let body = format!("{status} {}\n", reason(status));
        self.reply(status, "text/plain", body.as_bytes())
    }

    /// Begins to send a log.
    pub fn tail(&mut self, path: &Path) -> Step {
        let Ok(tail) = Tail::open(path) else {
            return self.refuse(404);
        };
        let chunked = if self.is_1_1 {
            "Transfer-Encoding: chunked\r\n"
        } else {
            ""
        };
        // A proxy must not collect the lines.
        let fields = format!("{chunked}X-Accel-Buffering: no\r\n");
        self.push_header(200, "text/plain;charset=utf-8", &fields, self.is_1_1);
        self.state = State::Tailing(tail);
        self.feed_tail()
    }

    /// Sends what was added to the log, as far as the client takes it.
    pub fn feed_tail(&mut self) -> Step {
        loop {
            if self.to_send.len() - self.sent >= MOST_TAIL {
                return self.write();
            }
            let State::Tailing(tail) = &mut self.state else {
                return Step::Continue;
            };
            let Ok(more) = tail.more(CHUNK) else {
                return Step::Close;
            };
            if more.is_empty() {
                return self.write();
            }
            if self.is_1_1 {
                self.to_send
                    .extend_from_slice(format!("{:x}\r\n", more.len()).as_bytes());
            }
            self.to_send.extend_from_slice(&more);
            if self.is_1_1 {
                self.to_send.extend_from_slice(b"\r\n");
            }
            let step = self.write();
            if step != Step::Continue || self.sent < self.to_send.len() {
                return step;
            }
        }
    }

    fn read(&mut self) -> Step {
        let mut chunk = [0; CHUNK];
        match rustix::io::read(&self.socket, &mut chunk) {
            Ok(0) => {
                self.has_ended = true;
                // Replies that wait are still written.
                if self.sent < self.to_send.len() {
                    self.state = State::Closing;
                    return Step::Continue;
                }
                Step::Close
            }
            Ok(_) if matches!(self.state, State::Draining) => Step::Continue,
            Ok(read) => {
                if self.received.is_empty() {
                    self.deadline = Some(Instant::now() + REQUEST_TIME);
                }
                self.received.extend_from_slice(chunk.get(..read).unwrap_or_default());
                self.advance()
            }
            Err(Errno::AGAIN | Errno::INTR) => Step::Continue,
            Err(_) => Step::Close,
        }
    }

    /// Looks for a complete request in the received bytes.
    fn advance(&mut self) -> Step {
        let State::Reading { continued } = self.state else {
            return Step::Continue;
        };
        if self.received.is_empty() {
            return Step::Continue;
        }
        let header = match Header::parse(&self.received) {
            Ok(Some(header)) => header,
            Ok(None) => return Step::Continue,
            Err(status) => return self.refuse(status),
        };
        (self.is_1_1, self.keep_alive) = (header.is_1_1, header.keep_alive);
        let is_refused = self.login.as_ref().is_some_and(|login| !header.is_authorized(login));
        let end = header.size + header.length;
        if self.received.len() < end {
            if header.expects && !continued {
                self.to_send.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                self.state = State::Reading { continued: true };
                return self.write();
            }
            return Step::Continue;
        }
        if is_refused {
            return self.refuse(401);
        }
        self.proven = true;
        let rest = self.received.split_off(end);
        let body = std::mem::replace(&mut self.received, rest).split_off(header.size);
        let wanted = match (header.method.as_str(), header.path.as_str()) {
            ("POST", path) if path.starts_with("/RPC2") => Wanted::Call(body),
            (_, path) if path.starts_with("/RPC2") => return self.refuse(400),
            ("GET", path) if is_tail(path) => Wanted::Tail(header.path),
            _ => return self.refuse(404),
        };
        self.state = State::Waiting;
        self.deadline = None;
        Step::Request(wanted)
    }

    fn push_header(&mut self, status: u16, kind: &str, fields: &str, keeps: bool) {
        let version = if self.is_1_1 { "1.1" } else { "1.0" };
        let connection = if keeps { "keep-alive" } else { "close" };
        let login = if status == 401 {
            "WWW-Authenticate: Basic realm=\"default\"\r\n"
        } else {
            ""
        };
        let header = format!(
            "HTTP/{version} {status} {}\r\nContent-Type: {kind}\r\n{fields}{login}Connection: {connection}\r\n\r\n",
            reason(status)
        );
        self.to_send.extend_from_slice(header.as_bytes());
    }

    fn write(&mut self) -> Step {
        while let Some(rest) = self.to_send.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match send(&self.socket, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => {
                    self.sent += sent;
                    self.deadline = Some(Instant::now() + WRITE_TIME);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.deadline.get_or_insert_with(|| Instant::now() + WRITE_TIME);
                    return Step::Continue;
                }
                Err(_) => return Step::Close,
            }
        }
        self.to_send.clear();
        self.sent = 0;
        self.deadline = match self.state {
            State::Closing => {
                if self.has_ended || shutdown(&self.socket, Shutdown::Write).is_err() {
                    return Step::Close;
                }
                self.state = State::Draining;
                Some(Instant::now() + DRAIN_TIME)
            }
            State::Draining => self.deadline,
            // A client that was served may keep the connection for its next request.
            State::Reading { .. } if self.proven && self.received.is_empty() => None,
            State::Reading { .. } => Some(Instant::now() + REQUEST_TIME),
            State::Tailing(_) | State::Waiting => None,
        };
        Step::Continue
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_tail(path: &str) -> bool {
    path.starts_with("/logtail/") || path == "/mainlogtail" || path.starts_with("/mainlogtail/")
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        401 => "Unauthorized",
        404 => "Not Found",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Bad Request",
    }
}
