//! Drives the taskmaster example through its interface for programs: it writes lines, and reads lines and events. No
//! function sleeps for a fixed time. Each wait has a time limit, and its failure prints all output up to that moment.

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

use crate::common::{patience, processes, wait_readable, wait_until};

/// The time limit of each wait.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Five processes: `api`, the three of `web`, and `idle`, which is not started.
pub const HERD: &str = "\
[program:api]
command=sleep 1000
startsecs=0
[program:web]
command=sleep 1000
process_name=%(program_name)s_%(process_num)d
numprocs=3
startsecs=0
[program:idle]
command=sleep 1000
autostart=false
startsecs=0
";

/// The environment variable that marks every process of a test.
pub const MARKER: &str = "PIDHERD_TASKMASTER_TEST";

/// The path of the example's binary.
pub fn binary() -> &'static Path {
    super::example::binary("taskmaster")
}

/// The results of a taskmaster that has ended by itself.
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs a taskmaster to its end, with an empty standard input.
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

/// Runs a configuration that must be refused. A program that started would create a file.
pub fn refused(config: &str) -> String {
    let dir = Dir::new();
    let mark = dir.path("mark");
    let healthy = format!("[program:healthy]\ncommand=touch {}\n", mark.display());
    let file = dir.file("herd.conf", &format!("{healthy}{config}"));
    let events = dir.path("events.jsonl");
    let ended = run_to_end(&[OsStr::new("--events"), events.as_os_str(), file.as_os_str()]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{}", ended.err);
    assert!(!mark.exists(), "a program was started");
    assert!(fs::read_to_string(events).unwrap_or_default().is_empty());
    assert!(
        ended.err.lines().all(|line| line.starts_with("taskmaster: ")),
        "{}",
        ended.err
    );
    ended.err
}

/// A temporary directory that is removed on drop.
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

    /// Creates a file with this text.
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
    /// Parses one line, and checks that it has exactly the documented keys.
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

/// A line of the taskmaster's output, with its source.
enum Said {
    Out(String),
    Err(String),
    Event(Box<Event>),
}

/// A running taskmaster.
pub struct Taskmaster {
    child: Child,
    stdin: Option<ChildStdin>,
    said: Receiver<Said>,
    pub out: Vec<String>,
    pub err: Vec<String>,
    pub events: Vec<Event>,
    /// The number of output lines, and of events of each process, that earlier waits have consumed.
    read_out: usize,
    read_err: usize,
    read_events: HashMap<String, usize>,
    /// A lock that pauses the reader of the taskmaster's standard output.
    hush: Arc<Mutex<()>>,
    marker: String,
    pub dir: Dir,
}

impl Taskmaster {
    /// Starts a taskmaster with this configuration.
    pub fn start(config: &str) -> Taskmaster {
        let dir = Dir::new();
        let config = dir.file("herd.conf", config);
        Taskmaster::spawn(dir, &[config.as_os_str()])
    }

    /// Starts a taskmaster with this configuration, in a directory that has FIFOs of these names already.
    pub fn start_with_fifos(config: &str, names: &[&str]) -> Taskmaster {
        let dir = Dir::new();
        names.iter().for_each(|name| drop(fifo(&dir, name)));
        let config = dir.file("herd.conf", config);
        Taskmaster::spawn(dir, &[config.as_os_str()])
    }

    /// Starts a taskmaster in `dir` with these arguments. Its events arrive through a FIFO.
    pub fn spawn(dir: Dir, arguments: &[&OsStr]) -> Taskmaster {
        let mut command = Command::new(binary());
        command.arg("--events").arg(fifo(&dir, "events")).args(arguments);
        Taskmaster::run(dir, command)
    }

    /// Runs a command that starts a taskmaster. The events come from the FIFO of `dir`, if it is used.
    pub fn run(dir: Dir, mut command: Command) -> Taskmaster {
        let (sender, said) = channel();
        let marker = dir.0.to_string_lossy().into_owned();
        // Automatic logs stay among the temporary files, as those of supervisord, until another taskmaster starts.
        command
            .env(MARKER, &marker)
            .env("TMPDIR", &dir.0)
            .env_remove("NO_COLOR")
            .current_dir(&dir.0);
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

    /// Writes one line to the taskmaster.
    pub fn say(&mut self, line: &str) {
        self.write(format!("{line}\n").as_bytes());
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Writes `bytes` while the standard output is not read, until the taskmaster takes no more bytes or has taken
    /// all. A thread writes the rest.
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
        // A taskmaster that can make no progress sleeps.
        let pid = self.child.id();
        let mut quiet = 0;
        wait_until("the taskmaster makes no more progress", PATIENCE, || {
            quiet = if processes::state(pid) == Some('S') {
                quiet + 1
            } else {
                0
            };
            quiet > 50
        });
        drop(writer);
    }

    /// The memory of the taskmaster, in bytes.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Writes a line and returns its one-line answer.
    pub fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.answer()
    }

    /// The next line on standard output.
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

    /// Waits for a line on standard error that contains `word`.
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

    /// Waits until `process` (`group:name`) reaches `state` in an event after those that earlier waits have consumed.
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

    /// The last known PID of the process.
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

    /// The states that `process` has reached.
    pub fn states(&self, process: &str) -> Vec<String> {
        let of_it = self.events.iter().filter(|event| event.process == process);
        of_it.map(|event| event.to.clone()).collect()
    }

    /// The living processes of the taskmaster with `word` in their command lines.
    pub fn living(&self, word: &str) -> Vec<String> {
        let mut living = marked(&self.marker);
        living.retain(|process| process.contains(word));
        living
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Reads all output until `deadline`.
    pub fn listen_until(&mut self, deadline: Instant) {
        while let Ok(said) = self
            .said
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.note(said);
        }
    }

    fn wait<T>(&mut self, what: &str, mut look: impl FnMut(&mut Taskmaster) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE * patience();
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
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the taskmaster ended without {what}; {}", self.transcript())
                }
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

    /// Sends the shutdown command, and checks that the shutdown is clean.
    pub fn shut_down(mut self) {
        self.say("shutdown");
        assert_eq!(self.ended().code(), Some(0), "{}", self.transcript());
    }

    /// Shuts down a herd with programs that leave orphans.
    pub fn shut_down_among_orphans(mut self) {
        self.say("shutdown");
        assert_eq!(self.ended_among_orphans().code(), Some(0), "{}", self.transcript());
    }

    /// Waits for the end, reads the remaining output, and checks that no process is left.
    pub fn ended(&mut self) -> ExitStatus {
        let status = self.ended_among_orphans();
        // A command that a shell ran in the foreground may still be on its way out.
        let until = Instant::now() + Duration::from_secs(5) * patience();
        while !marked(&self.marker).is_empty() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(
            marked(&self.marker),
            Vec::<String>::new(),
            "processes are left; {}",
            self.transcript()
        );
        status
    }

    /// Waits for the end of a herd with programs that leave orphans.
    pub fn ended_among_orphans(&mut self) -> ExitStatus {
        let pidfd = rustix::process::pidfd_open(self.pid(), PidfdFlags::empty()).unwrap();
        let limit = Timespec {
            tv_sec: (PATIENCE * patience()).as_secs().try_into().unwrap(),
            tv_nsec: 0,
        };
        let ready = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).unwrap();
        assert_eq!(ready, 1, "the taskmaster does not end; {}", self.transcript());
        let status = self.child.wait().unwrap();
        // If the taskmaster never opened the FIFO, the reader still waits for a writer.
        drop(File::options().read(true).write(true).open(self.dir.path("events")));
        self.listen_until(Instant::now() + PATIENCE * patience());
        status
    }
}

impl Drop for Taskmaster {
    /// A failed test must not leave processes behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        kill_marked(&self.marker);
    }
}

/// Reports on standard error that something could not be tested. The test runner hides other output.
pub fn aloud(what: &str) {
    crate::common::skipped(what);
}

/// Creates a FIFO in `dir`.
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

/// Kills the processes with this marker in their environment.
pub fn kill_marked(marker: &str) {
    for process in marked(marker) {
        let pid = process.split(' ').next().and_then(|pid| pid.parse().ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// The processes with this marker in their environment, without zombies: the PID and the command line of each.
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
