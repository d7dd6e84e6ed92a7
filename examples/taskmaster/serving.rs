//! Serves supervisorctl: requests of the HTTP server become calls, and their results become replies.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value;

use crate::config;
use crate::http::{Request, Server, Wanted};
use crate::rpc::{self, Answer, Later, Remote};

/// The number of requests of one connection that one turn answers, if a client sends the next one before the answer.
const MOST_IN_A_ROW: usize = 64;

/// The server, and the calls that wait for a process.
#[derive(Debug)]
pub struct Serving {
    server: Server,
    pending: Vec<(u64, Later)>,
}

impl Serving {
    /// Listens at all addresses of the configuration. `left` has the sockets of the program before this one.
    ///
    /// # Errors
    /// One line: an address cannot be used.
    pub fn open(settings: &[config::Server], left: &Value) -> Result<Option<Serving>, String> {
        if settings.is_empty() {
            return Ok(None);
        }
        Ok(Some(Serving {
            server: Server::open(settings, left)?,
            pending: Vec::new(),
        }))
    }

    /// The sockets, for the program that takes the place of this one. Connections are closed.
    pub fn hand_over(&self) -> Value {
        self.server.hand_over()
    }

    /// The descriptors that [`Serving::hand_over`] names.
    pub fn open_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.server.open_fds()
    }

    /// Leaves the files of the sockets in place at the end, because another program goes on with them.
    pub fn keep_files(&mut self, keep: bool) {
        self.server.keep_files(keep);
    }

    /// The time of the next call of [`Serving::expire`].
    pub fn deadline(&self) -> Option<Instant> {
        self.server.deadline()
    }

    /// Closes the connections that took too long.
    pub fn expire(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.server.expire(now);
        }
    }

    /// Serves the sockets that are ready.
    ///
    /// # Errors
    /// The kernel refuses a call that the loop needs.
    pub fn dispatch(&mut self, remote: &mut Remote<'_>) -> io::Result<()> {
        let requests = self.server.dispatch()?;
        self.answer_all(remote, requests);
        Ok(())
    }

    /// Answers the calls that waited for processes which are there by now, and sends on what was `written` to logs.
    pub fn go_on(&mut self, remote: &mut Remote<'_>, written: &BTreeSet<PathBuf>) {
        self.server.wake(written);
        for (conn, mut later) in std::mem::take(&mut self.pending) {
            if !self.server.has(conn) {
                continue;
            }
            match later.poll(remote) {
                None => self.pending.push((conn, later)),
                Some(result) => {
                    let requests = self.server.reply(conn, &rpc::reply(&result));
                    self.answer_all(remote, requests);
                }
            }
        }
    }

    fn answer_all(&mut self, remote: &mut Remote<'_>, mut requests: Vec<Request>) {
        for _ in 0..MOST_IN_A_ROW {
            let mut further = Vec::new();
            for Request { conn, wanted } in requests {
                match wanted {
                    Wanted::Call(body) => further.extend(self.call(remote, conn, &body)),
                    Wanted::Tail(path) => self.tail(remote, conn, &path),
                }
            }
            if further.is_empty() {
                return;
            }
            requests = further;
        }
        // Such a client does not wait for its answers.
        requests
            .iter()
            .for_each(|request| self.server.refuse(request.conn, 400));
    }

    fn call(&mut self, remote: &mut Remote<'_>, conn: u64, body: &[u8]) -> Vec<Request> {
        let Some((method, params)) = rpc::call(body) else {
            self.server.refuse(conn, 400);
            return Vec::new();
        };
        match rpc::perform(remote, &method, &params) {
            Ok(Answer::Now(value)) => self.server.reply(conn, &rpc::reply(&Ok(value))),
            Err(fault) => self.server.reply(conn, &rpc::reply(&Err(fault))),
            Ok(Answer::Later(later)) => {
                self.pending.push((conn, later));
                Vec::new()
            }
        }
    }

    fn tail(&mut self, remote: &mut Remote<'_>, conn: u64, path: &str) {
        match rpc::log_at(remote.herd, remote.own_log.as_deref(), path) {
            Some(log) => self.server.tail(conn, &log),
            None => self.server.refuse(conn, 404),
        }
    }
}

impl AsFd for Serving {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.server.as_fd()
    }
}
