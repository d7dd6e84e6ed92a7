//! Drives the taskmaster example as another program would: a line in, lines out, events as they
//! happen. Nothing here sleeps; every wait is for something that arrives, with a time limit that
//! ends a test that would hang, and shows all that was said until then.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::Value;

use crate::common::{processes, wait_readable, wait_until};

/// No test waits longer than this for one thing.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The environment variable that marks every process of a test.
pub const MARKER: &str = "PIDHERD_TASKMASTER_TEST";

/// The example's binary.
pub fn binary() -> &'static Path {
    super::example::binary("taskmaster")
}

/// What a taskmaster leaves that ends by itself.
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs it to its end, without anything on standard input.
pub fn run_to_end(arguments: &[&OsStr]) -> Ended {
    let output = Command::new(binary())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs a configuration that must be refused; a program in it would leave a mark.
pub fn refused(config: &str) -> String {
    let dir = Dir::new();
    let mark = dir.path("mark");
    let healthy = format!("[program:healthy]\ncommand=touch {}\n", mark.display());
    let file = dir.file("herd.conf", &format!("{healthy}{config}"));
    let events = dir.path("events.jsonl");
    let ended = run_to_end(&[OsStr::new("--events"), events.as_os_str(), file.as_os_str()]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{}", ended.err);
    assert!(!mark.exists(), "something was started");
    assert!(fs::read_to_string(events).unwrap_or_default().is_empty());
    assert!(
        ended.err.lines().all(|line| line.starts_with("taskmaster: ")),
        "{}",
        ended.err
    );
    ended.err
}

/// A directory of its own, gone at the end.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "taskmaster-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Dir(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file with this text in it.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One line of the event file.
#[derive(Clone, Debug)]
pub struct Event {
    pub t: f64,
    pub process: String,
    pub from: String,
    pub to: String,
    pub pid: Option<u32>,
    pub cause: String,
    pub run: u64,
    pub exit: Value,
}

impl Event {
    /// Reads one line, and insists on the contract: these keys, all of them, no others.
    pub fn parse(line: &str) -> Event {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            ["cause", "exit", "from", "pid", "process", "run", "t", "to"],
            "{line}"
        );
        let text = |key: &str| {
            value[key]
                .as_str()
                .unwrap_or_else(|| panic!("{key} of {line}"))
                .to_owned()
        };
        Event {
            t: value["t"].as_f64().unwrap(),
            process: text("process"),
            from: text("from"),
            to: text("to"),
            pid: value["pid"].as_u64().map(|pid| pid.try_into().unwrap()),
            cause: text("cause"),
            run: value["run"].as_u64().unwrap(),
            exit: value["exit"].clone(),
        }
    }
}

/// What the taskmaster said, wherever it said it.
enum Said {
    Out(String),
    Err(String),
    Event(Box<Event>),
}

/// A taskmaster at work.
pub struct Taskmaster {
    child: Child,
    stdin: Option<ChildStdin>,
    said: Receiver<Said>,
    pub out: Vec<String>,
    pub err: Vec<String>,
    pub events: Vec<Event>,
    /// How many lines of output, and of events of each process, were waited for.
    read_out: usize,
    read_err: usize,
    read_events: HashMap<String, usize>,
    /// Held while its standard output is not to be read.
    hush: Arc<Mutex<()>>,
    marker: String,
    pub dir: Dir,
}

impl Taskmaster {
    /// Starts it with this configuration.
    pub fn start(config: &str) -> Taskmaster {
        let dir = Dir::new();
        let config = dir.file("herd.conf", config);
        Taskmaster::spawn(dir, &[config.as_os_str()])
    }

    /// Starts it in `dir` with these arguments; its events come through a FIFO, as they happen.
    pub fn spawn(dir: Dir, arguments: &[&OsStr]) -> Taskmaster {
        let mut command = Command::new(binary());
        command.arg("--events").arg(fifo(&dir, "events")).args(arguments);
        Taskmaster::run(dir, command)
    }

    /// Runs a command line that ends in a taskmaster with its events in the FIFO of `dir`, if at all.
    pub fn run(dir: Dir, mut command: Command) -> Taskmaster {
        let (sender, said) = channel();
        let marker = dir.0.to_string_lossy().into_owned();
        command.env(MARKER, &marker).env_remove("NO_COLOR").current_dir(&dir.0);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let hush = Arc::new(Mutex::new(()));
        let out = Hushed {
            from: child.stdout.take().unwrap(),
            hush: Arc::clone(&hush),
        };
        listen(out, sender.clone(), Said::Out);
        listen(child.stderr.take().unwrap(), sender.clone(), Said::Err);
        let events = dir.path("events");
        if events.exists() {
            thread::spawn(move || {
                listen_here(File::open(events).unwrap(), &sender, |line| {
                    Said::Event(Box::new(Event::parse(&line)))
                })
            });
        }
        Taskmaster {
            stdin: child.stdin.take(),
            child,
            said,
            out: Vec::new(),
            err: Vec::new(),
            events: Vec::new(),
            read_out: 0,
            read_err: 0,
            read_events: HashMap::new(),
            hush,
            marker,
            dir,
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends it one line.
    pub fn say(&mut self, line: &str) {
        self.write(format!("{line}\n").as_bytes());
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Writes this while nothing reads its standard output, until it takes no more of it or has taken all. What is
    /// left is written by a thread.
    pub fn read_later(&mut self, bytes: &[u8]) {
        let _unread = self.hush.lock().unwrap();
        let mut stdin = self
            .stdin
            .as_ref()
            .unwrap()
            .as_fd()
            .try_clone_to_owned()
            .map(File::from)
            .unwrap();
        let bytes = bytes.to_owned();
        let writer = thread::spawn(move || drop(stdin.write_all(&bytes)));
        // It sleeps when it can do no more.
        let pid = self.child.id();
        let mut quiet = 0;
        wait_until("it has done what it can", PATIENCE, || {
            quiet = if processes::state(pid) == Some('S') {
                quiet + 1
            } else {
                0
            };
            quiet > 50
        });
        drop(writer);
    }

    /// How many bytes of memory it has.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Says a line and returns the one line that answers it.
    pub fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.answer()
    }

    /// The next line on its standard output.
    pub fn answer(&mut self) -> String {
        self.wait("an answer", |me| {
            let line = me.out.get(me.read_out).cloned()?;
            me.read_out += 1;
            Some(line)
        })
    }

    /// Asks for the status, and returns its lines.
    pub fn status(&mut self, lines: usize) -> Vec<String> {
        self.say("status");
        (0..lines).map(|_| self.answer()).collect()
    }

    /// Waits for a line on standard error with `word` in it.
    pub fn complaint(&mut self, word: &str) -> String {
        self.wait(&format!("{word:?} on standard error"), |me| {
            let (index, line) = me
                .err
                .iter()
                .enumerate()
                .skip(me.read_err)
                .find(|(_, line)| line.contains(word))?;
            me.read_err = index + 1;
            Some(line.clone())
        })
    }

    /// Waits until `process` (as `group:name`) reaches `state`, after what was waited for before.
    pub fn reached(&mut self, process: &str, state: &str) -> Event {
        self.wait(&format!("{process} to be {state}"), |me| {
            let from = me.read_events.get(process).copied().unwrap_or(0);
            let is_it = |(_, event): &(usize, &Event)| event.process == process && event.to == state;
            let (index, event) = me.events.iter().enumerate().skip(from).find(is_it)?;
            let event = event.clone();
            me.read_events.insert(process.to_owned(), index + 1);
            Some(event)
        })
    }

    /// The process's last known pid.
    pub fn pid_of(&self, process: &str) -> u32 {
        let known = self
            .events
            .iter()
            .rev()
            .find(|event| event.process == process && event.pid.is_some());
        known
            .and_then(|event| event.pid)
            .unwrap_or_else(|| panic!("{process} has no pid: {}", self.transcript()))
    }

    /// The states that `process` went through.
    pub fn states(&self, process: &str) -> Vec<String> {
        let of_it = self.events.iter().filter(|event| event.process == process);
        of_it.map(|event| event.to.clone()).collect()
    }

    /// Its processes that are alive and have `word` in their command lines.
    pub fn living(&self, word: &str) -> Vec<String> {
        let mut living = marked(&self.marker);
        living.retain(|process| process.contains(word));
        living
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Reads what is said until `deadline`, whatever it is.
    pub fn listen_until(&mut self, deadline: Instant) {
        while let Ok(said) = self
            .said
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.note(said);
        }
    }

    fn wait<T>(&mut self, what: &str, mut look: impl FnMut(&mut Taskmaster) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            match self
                .said
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(said) => self.note(said),
                Err(RecvTimeoutError::Timeout) => panic!("waited too long for {what}; {}", self.transcript()),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended without {what}; {}", self.transcript()),
            }
        }
    }

    fn note(&mut self, said: Said) {
        match said {
            Said::Out(line) => self.out.push(line),
            Said::Err(line) => self.err.push(line),
            Said::Event(event) => self.events.push(*event),
        }
    }

    pub fn transcript(&self) -> String {
        let mut text = String::from("it said until then:\n");
        for (what, lines) in [("out", &self.out), ("err", &self.err)] {
            lines
                .iter()
                .for_each(|line| text.push_str(&format!("  {what}: {line}\n")));
        }
        for event in &self.events {
            text.push_str(&format!("  {event:?}\n"));
        }
        text
    }

    /// Asks it to shut down, and insists that all goes well.
    pub fn shut_down(mut self) {
        self.say("shutdown");
        assert_eq!(self.ended().code(), Some(0), "{}", self.transcript());
    }

    /// The same for a herd whose programs leave something behind.
    pub fn shut_down_among_orphans(mut self) {
        self.say("shutdown");
        assert_eq!(self.ended_among_orphans().code(), Some(0), "{}", self.transcript());
    }

    /// Waits for its end, and reads all that it said; insists that nothing of it is left.
    pub fn ended(&mut self) -> ExitStatus {
        let status = self.ended_among_orphans();
        assert_eq!(
            marked(&self.marker),
            Vec::<String>::new(),
            "processes are left; {}",
            self.transcript()
        );
        status
    }

    /// The same for a herd whose programs leave something behind.
    pub fn ended_among_orphans(&mut self) -> ExitStatus {
        let pidfd = rustix::process::pidfd_open(self.pid(), PidfdFlags::empty()).unwrap();
        let limit = Timespec {
            tv_sec: PATIENCE.as_secs().try_into().unwrap(),
            tv_nsec: 0,
        };
        let ready = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).unwrap();
        assert_eq!(ready, 1, "it does not end; {}", self.transcript());
        let status = self.child.wait().unwrap();
        // If it never opened the FIFO, its reader is still waiting for it to do so.
        drop(File::options().read(true).write(true).open(self.dir.path("events")));
        self.listen_until(Instant::now() + PATIENCE);
        status
    }
}

impl Drop for Taskmaster {
    /// A test that failed must not leave a herd behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        kill_marked(&self.marker);
    }
}

/// Says that something could not be tested, where it is seen: the test runner hides what tests print.
pub fn aloud(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}

/// A FIFO of this name in `dir`.
pub fn fifo(dir: &Dir, name: &str) -> PathBuf {
    let path = dir.path(name);
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, mode, 0).unwrap();
    path
}

/// A reader that pauses while the lock is held.
struct Hushed<R> {
    from: R,
    hush: Arc<Mutex<()>>,
}

impl<R: Read + AsFd> Read for Hushed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        wait_readable(&self.from, 10 * PATIENCE);
        let _read = self.hush.lock().unwrap_or_else(PoisonError::into_inner);
        self.from.read(buffer)
    }
}

fn listen(from: impl Read + Send + 'static, to: Sender<Said>, wrap: fn(String) -> Said) {
    thread::spawn(move || listen_here(from, &to, wrap));
}

fn listen_here(from: impl Read, to: &Sender<Said>, wrap: fn(String) -> Said) {
    for line in BufReader::new(from).split(b'\n') {
        let Ok(line) = line else { return };
        let _ = to.send(wrap(String::from_utf8_lossy(&line).into_owned()));
    }
}

/// Kills the processes that carry the marker.
pub fn kill_marked(marker: &str) {
    for process in marked(marker) {
        let pid = process.split(' ').next().and_then(|pid| pid.parse().ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// The processes, zombies aside, that carry the marker in their environment: `pid command line` each.
pub fn marked(marker: &str) -> Vec<String> {
    let wanted = format!("{MARKER}={marker}");
    let processes = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        environment
            .split(|&byte| byte == 0)
            .any(|variable| variable == wanted.as_bytes())
    });
    let describe = |entry: fs::DirEntry| {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default().replace_nul();
        format!("{} {command}", entry.file_name().to_string_lossy())
    };
    processes.map(describe).collect()
}

trait ReplaceNul {
    fn replace_nul(self) -> String;
}

impl ReplaceNul for Vec<u8> {
    fn replace_nul(self) -> String {
        OsStr::from_bytes(&self).to_string_lossy().replace('\0', " ")
    }
}
