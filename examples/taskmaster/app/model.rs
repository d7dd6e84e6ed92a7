//! The data of the main loop. The files beside this one implement it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;

use pidherd::SignalFd;

use super::watch::View;
use crate::console::Console;
use crate::control::{Line, Lines};
use crate::demo::Tour;
use crate::herd::Herd;
use crate::input::Input;
use crate::poller::Poller;
use crate::serving::Serving;
use crate::term::Term;

/// The taskmaster at work: the herd and all inputs and outputs.
#[derive(Debug)]
pub struct App {
    pub(super) poller: Poller,
    pub(super) herd: Herd,
    pub(super) signals: SignalFd,
    pub(super) console: Console,
    pub(super) input: Input,
    pub(super) lines: Lines,
    /// The commands that were read and not yet carried out.
    pub(super) commands: VecDeque<Line>,
    /// The file that a reload reads. `None` in the demonstration.
    pub(super) config: Option<PathBuf>,
    pub(super) tour: Option<Tour>,
    pub(super) itself: Itself,
    pub(super) serving: Option<Serving>,
    /// The line editor. `None` if there is no terminal for it.
    pub(super) term: Option<Term>,
    pub(super) view: View,
    /// Whether the taskmaster begins anew after the shutdown.
    pub(super) begins_anew: bool,
}

/// What the taskmaster knows about its own process, for the program that takes its place.
#[derive(Clone, Debug)]
pub struct Itself {
    /// The path of its program. `None` if it is not known.
    pub program: Option<PathBuf>,
    /// The arguments after the path.
    pub arguments: Vec<OsString>,
    /// Whether it has written the pid file.
    pub has_pid_file: bool,
}

/// The source of the request for the hand-over, which gets the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Command,
    Signal,
}
