//! A small HTTP server inside the main loop, for supervisorctl and dashboards.
//!
//! All sockets are in an epoll of their own, which is one source in the main loop. No call waits. The clients may be
//! hostile, so everything has a limit: the size of a header and of a body, the time for a request and for a reply that
//! is not read, and the number of connections. At that number the oldest connection without a complete request gives
//! way to a new one, so that idle connections lock no administrator out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::config::Server as Settings;
use crate::handing;

mod conn;
mod listener;
mod request;
mod tail;

pub use conn::Wanted;
use conn::{Conn, Step};
use listener::Listener;
#[cfg(test)]
pub use request::{Header, LARGEST_BODY, LONGEST_HEADER};
pub use tail::Tail;

/// The largest number of connections.
const MOST_CONNECTIONS: usize = 128;
/// The number of sockets that one turn serves.
const MOST_READY: usize = 32;
/// The number of connections that one turn accepts.
const MOST_ACCEPTS: usize = 16;
/// How long no connection is accepted after a lack of descriptors or of memory.
const PAUSE: Duration = Duration::from_millis(200);
/// How often a followed log is looked at that another process writes.
const TAIL_INTERVAL: Duration = Duration::from_millis(500);

/// A complete request that the taskmaster answers.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// The connection.
    pub conn: u64,
    /// What is wanted.
    pub wanted: Wanted,
}

/// All listening sockets and connections.
#[derive(Debug)]
pub struct Server {
    epoll: OwnedFd,
    listeners: Vec<Listener>,
    /// By number, which rises. So the first one is the oldest.
    conns: BTreeMap<u64, Conn>,
    next: u64,
    /// An open descriptor that can be given up to accept a connection and to close it.
    spare: Option<OwnedFd>,
    paused_until: Option<Instant>,
    look_at_tails: Option<Instant>,
}

impl Server {
    /// Listens at all addresses.
    ///
    /// # Errors
    /// One line: an address cannot be used.
    pub fn open(settings: &[Settings], left: &Value) -> Result<Server, String> {
        let failed = |error: io::Error| format!("cannot serve: {}", crate::files::reason(error));
        let mut server = Server {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| failed(error.into()))?,
            listeners: Vec::new(),
            conns: BTreeMap::new(),
            next: settings.len() as u64,
            spare: None,
            paused_until: None,
            look_at_tails: None,
        };
        server.spare = spare();
        for (settings, index) in settings.iter().zip(0..) {
            // The sockets that the program before this one has left.
            let inherited = left[settings.url()]
                .as_i64()
                .and_then(|_| handing::fd(&left[settings.url()]));
            let listener = Listener::open(settings.clone(), inherited)?;
            server
                .watch(listener.as_fd(), index, epoll::EventFlags::IN)
                .map_err(failed)?;
            server.listeners.push(listener);
        }
        Ok(server)
    }

    /// The listening sockets, for the program that takes the place of this one.
    pub fn hand_over(&self) -> Value {
        let mut left = json!({});
        for listener in &self.listeners {
            left[listener.settings().url()] = listener.as_fd().as_raw_fd().into();
        }
        left
    }

    /// The descriptors that [`Server::hand_over`] names.
    pub fn open_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listeners.iter().map(AsFd::as_fd)
    }

    /// Leaves the files of the sockets in place, because another program goes on with them.
    pub fn keep_files(&mut self, keep: bool) {
        self.listeners.iter_mut().for_each(|listener| listener.keep_file(keep));
    }

    /// The time of the next call of [`Server::expire`].
    pub fn deadline(&self) -> Option<Instant> {
        let conns = self.conns.values().filter_map(Conn::deadline);
        conns.chain(self.paused_until).chain(self.look_at_tails).min()
    }

    /// Closes the connections that took too long, and looks at the followed logs.
    pub fn expire(&mut self, now: Instant) {
        let late = |conn: &Conn| conn.deadline().is_some_and(|deadline| deadline <= now);
        let late: Vec<u64> = self
            .conns
            .iter()
            .filter(|(_, conn)| late(conn))
            .map(|(&id, _)| id)
            .collect();
        for id in late {
            self.close(id);
        }
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
            self.set_accepting(true);
        }
        if self.look_at_tails.is_some_and(|at| at <= now) {
            self.feed_tails(|_| true);
        }
    }

    /// Serves what is ready, and returns the complete requests.
    ///
    /// # Errors
    /// The errors of epoll_wait(2), except EINTR.
    pub fn dispatch(&mut self) -> io::Result<Vec<Request>> {
        let mut events = [const { MaybeUninit::uninit() }; MOST_READY];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ready: Vec<(u64, epoll::EventFlags)> = match epoll::wait(&self.epoll, &mut events, Some(&now)) {
            Ok((ready, _)) => ready.iter().map(|event| (event.data.u64(), event.flags)).collect(),
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut requests = Vec::new();
        for (id, flags) in ready {
            if (id as usize) < self.listeners.len() {
                self.accept(id as usize);
            } else {
                let step = self.conns.get_mut(&id).map(|conn| conn.ready(flags));
                self.follow(id, step, &mut requests);
            }
        }
        Ok(requests)
    }

    /// Answers a remote call. Returns a further request of the same connection, if one has already arrived.
    pub fn reply(&mut self, conn: u64, body: &[u8]) -> Vec<Request> {
        let mut requests = Vec::new();
        let step = self.conns.get_mut(&conn).map(|conn| conn.reply(200, "text/xml", body));
        self.follow(conn, step, &mut requests);
        requests
    }

    /// Refuses a request with this status, and closes the connection after it.
    pub fn refuse(&mut self, conn: u64, status: u16) {
        let step = self.conns.get_mut(&conn).map(|conn| conn.refuse(status));
        self.follow(conn, step, &mut Vec::new());
    }

    /// Sends the end of a log, and all that is added to it.
    pub fn tail(&mut self, conn: u64, path: &Path) {
        let step = self.conns.get_mut(&conn).map(|conn| conn.tail(path));
        self.look_at_tails.get_or_insert_with(|| Instant::now() + TAIL_INTERVAL);
        self.follow(conn, step, &mut Vec::new());
    }

    /// Whether a connection still exists.
    pub fn has(&self, conn: u64) -> bool {
        self.conns.contains_key(&conn)
    }

    /// Sends what was added to these logs.
    pub fn wake(&mut self, written: &BTreeSet<PathBuf>) {
        if self.look_at_tails.is_some() && !written.is_empty() {
            self.feed_tails(|path| written.contains(path));
        }
    }

    fn feed_tails(&mut self, wanted: impl Fn(&Path) -> bool) {
        let all: Vec<u64> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.tailed().is_some())
            .map(|(&id, _)| id)
            .collect();
        self.look_at_tails = (!all.is_empty()).then(|| Instant::now() + TAIL_INTERVAL);
        for id in all {
            let is_wanted = |conn: &&mut Conn| conn.tailed().is_some_and(&wanted);
            let step = self.conns.get_mut(&id).filter(is_wanted).map(Conn::feed_tail);
            self.follow(id, step, &mut Vec::new());
        }
    }

    /// Goes on with a connection after a step.
    fn follow(&mut self, id: u64, step: Option<Step>, requests: &mut Vec<Request>) {
        match step {
            None => {}
            Some(Step::Close) => self.close(id),
            Some(Step::Request(wanted)) => {
                requests.push(Request { conn: id, wanted });
                self.update_interest(id);
            }
            Some(Step::Continue) => self.update_interest(id),
        }
    }

    fn update_interest(&mut self, id: u64) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if let Some(interest) = conn.changed_interest() {
            let event = epoll::EventData::new_u64(id);
            if epoll::modify(&self.epoll, conn.as_fd(), event, interest).is_err() {
                self.close(id);
            }
        }
    }

    fn accept(&mut self, index: usize) {
        for _ in 0..MOST_ACCEPTS {
            let Some(listener) = self.listeners.get(index) else {
                return;
            };
            match listener.accept() {
                Ok(Some(socket)) => self.adopt(index, socket),
                Ok(None) => return,
                Err(Errno::MFILE | Errno::NFILE) if self.spare.is_some() => {
                    // The connection is closed, because it would stay ready otherwise.
                    self.spare = None;
                    drop(listener.accept());
                    self.spare = spare();
                    return;
                }
                Err(_) => {
                    self.set_accepting(false);
                    self.paused_until = Some(Instant::now() + PAUSE);
                    return;
                }
            }
        }
    }

    fn adopt(&mut self, index: usize, socket: OwnedFd) {
        if self.conns.len() >= MOST_CONNECTIONS {
            let idle = || self.conns.iter().filter(|(_, conn)| conn.is_idle());
            let unproven = idle().find(|(_, conn)| !conn.is_proven());
            let Some(oldest) = unproven.or_else(|| idle().next()).map(|(&id, _)| id) else {
                return;
            };
            self.close(oldest);
        }
        let id = self.next;
        self.next += 1;
        let login = self
            .listeners
            .get(index)
            .and_then(|listener| listener.settings().login.clone());
        let conn = Conn::new(socket, login);
        if self.watch(conn.as_fd(), id, conn.interest()).is_ok() {
            self.conns.insert(id, conn);
        }
    }

    /// No other descriptor refers to the socket, so the close also removes it from the epoll.
    fn close(&mut self, id: u64) {
        drop(self.conns.remove(&id));
    }

    fn set_accepting(&self, on: bool) {
        for (listener, index) in self.listeners.iter().zip(0..) {
            if on {
                let _again = self.watch(listener.as_fd(), index, epoll::EventFlags::IN);
            } else {
                let _paused = epoll::delete(&self.epoll, listener.as_fd());
            }
        }
    }

    fn watch(&self, fd: BorrowedFd<'_>, id: u64, flags: epoll::EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(id), flags)?)
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn spare() -> Option<OwnedFd> {
    File::open("/dev/null").map(OwnedFd::from).ok()
}
