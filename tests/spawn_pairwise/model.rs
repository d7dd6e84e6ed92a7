//! Predicts the state of a child from the manual pages and from the documentation of `Command`. Nothing here
//! repeats the library's implementation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::os::fd::AsRawFd;

use pidherd::Child;

use crate::host::{Host, Terminal};
use crate::observe::{Facts, described, descriptors, sorted};
use crate::pairs::Combination;
use crate::settings;

/// SIGKILL and SIGSTOP can be neither blocked nor ignored.
const UNTOUCHABLE: u64 = 1 << 8 | 1 << 18;

/// The predicted child. Only two facts are taken from the started child, because they have no other source:
/// its pid, and the pipes of which the parent holds the other ends.
pub struct Model<'a> {
    combination: &'a Combination,
    host: &'a Host,
    terminal: &'a Terminal,
    child: &'a Child,
    own_descriptors: BTreeMap<u32, String>,
    facts: Facts,
}

impl Model<'_> {
    pub fn facts(combination: &Combination, host: &Host, terminal: &Terminal, child: &Child) -> Facts {
        // Facts that the command does not set are inherited from the host.
        let inherited = |name: &String| !name.starts_with("descriptor ");
        let facts = host.facts.clone().into_iter().filter(|(name, _)| inherited(name));
        let mut model = Model {
            combination,
            host,
            terminal,
            child,
            own_descriptors: descriptors("/proc/self"),
            facts: facts.collect(),
        };
        model.image();
        model.ids();
        model.capabilities();
        model.signals();
        model.session();
        model.scheduling();
        model.places();
        model.descriptors();
        model.facts
    }

    fn get(&self, name: &str) -> &'static str {
        self.combination.get(name)
    }

    fn asked(&self, name: &str) -> Option<&'static str> {
        Some(self.get(name)).filter(|&value| value != "none")
    }

    fn set(&mut self, name: &str, value: impl ToString) {
        self.facts.insert(name.to_owned(), value.to_string());
    }

    fn image(&mut self) {
        let first = match self.get("arg0") {
            "none" => settings::program(self.combination, self.host),
            other => other.to_owned(),
        };
        let arguments = if self.get("args") == "none" { "" } else { "a b\0\0ä\0" };
        self.set("argv", format!("{first}\0{arguments}"));
        let mut variables: Vec<(String, String)> = match self.get("environment") {
            "none" | "changed" => std::env::vars().collect(),
            "only" => vec![("B".into(), "x".into()), ("LISTEN_PID".into(), "1".into())],
            _ => Vec::new(),
        };
        let mut put = |key: &str, value: Option<&str>| {
            variables.retain(|(known, _)| known != key);
            variables.extend(value.map(|value| (key.to_owned(), value.to_owned())));
        };
        if matches!(self.get("environment"), "none" | "changed") {
            if self.get("uid") == "nobody" {
                let values = ["nobody", "nobody", &self.host.nobody.home, &self.host.nobody.shell];
                let keys = ["USER", "LOGNAME", "HOME", "SHELL"];
                keys.into_iter()
                    .zip(values)
                    .for_each(|(key, value)| put(key, Some(value)));
            }
            match (self.get("directory"), self.get("chroot")) {
                ("none", "none") => {}
                ("none", _) => put("PWD", Some("/")),
                ("relative", "none") => put("PWD", None),
                _ => put(
                    "PWD",
                    Some(&format!("{}/inside", settings::base(self.combination, self.host))),
                ),
            }
        }
        if self.get("environment") == "changed" {
            put("PIDHERD_A", Some("2=3"));
            put("PIDHERD_EMPTY", Some(""));
            put("PATH", None);
        }
        if self.get("program") == "in PATH" {
            put("PATH", Some(&settings::search_path(self.combination, self.host)));
        }
        if let Some(count) = self.asked("listen") {
            put("LISTEN_FDS", Some(if count == "one" { "1" } else { "2" }));
            put("LISTEN_PID", Some(&self.child.pid().to_string()));
        }
        let entries: Vec<String> = variables.iter().map(|(key, value)| format!("{key}={value}")).collect();
        self.set("environment", sorted(entries.iter().map(String::as_str)));
        self.set("PPid", std::process::id());
        self.set("Threads", 1);
        let signal = match self.get("parent's death") {
            "none" => 0,
            "USR1" => libc::SIGUSR1,
            _ => libc::SIGKILL,
        };
        self.set("parent's death", signal);
    }

    fn uid(&self) -> u32 {
        match self.get("uid") {
            "none" => 0,
            "nobody" => self.host.nobody.uid,
            number => number.parse().unwrap(),
        }
    }

    fn ids(&mut self) {
        let four_times = |id: u32| [id; 4].map(|id| id.to_string()).join(" ");
        let by_name = self.get("uid") == "nobody";
        let gid = match self.asked("gid") {
            Some(number) => number.parse().unwrap(),
            None if by_name => self.host.nobody.gid,
            None => 0,
        };
        let changes = self.asked("uid").is_some() || self.asked("gid").is_some();
        let groups: Option<BTreeSet<u32>> = match self.get("groups") {
            "empty" => Some(BTreeSet::new()),
            "three" => Some([7, 8, 23456].into()),
            "added" if !by_name && !changes => {
                let own = self.host.facts["Groups"].split_whitespace();
                Some(own.map(|group| group.parse().unwrap()).chain([8, 23456]).collect())
            }
            _ if by_name => Some(self.host.nobody.groups.iter().copied().collect()),
            _ if changes => Some([gid].into()),
            _ => None,
        };
        let added: &[u32] = if self.get("groups") == "added" {
            &[8, 23456]
        } else {
            &[]
        };
        let groups = groups.map(|groups| {
            groups
                .into_iter()
                .chain(added.iter().copied())
                .collect::<BTreeSet<u32>>()
        });
        self.set("Uid", four_times(self.uid()));
        self.set("Gid", four_times(gid));
        if let Some(groups) = groups {
            let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
            self.set("Groups", groups.join(" "));
        }
        let none_new = match self.get("no_new_privs") {
            "none" => self.uid() != 0,
            value => value == "yes",
        };
        self.set("NoNewPrivs", u32::from(none_new));
    }

    /// The capabilities after execve(2), by the rules of capabilities(7): root gets the bounding and the
    /// inheritable ones, any other user gets the ambient ones.
    fn capabilities(&mut self) {
        let bits = |name| settings::capabilities(self.combination.get(name)).bits();
        let ambient = bits("ambient");
        let inheritable = bits("inheritable") | ambient;
        let host = u64::from_str_radix(&self.host.facts["CapBnd"], 16).unwrap();
        let bounding = match self.get("bounding") {
            "none" => host,
            _ => host & bits("bounding"),
        };
        let permitted = if self.uid() == 0 {
            bounding | inheritable
        } else {
            ambient
        };
        for (name, set) in [
            ("CapInh", inheritable),
            ("CapPrm", permitted),
            ("CapEff", permitted),
            ("CapBnd", bounding),
            ("CapAmb", ambient),
        ] {
            self.set(name, format!("{set:016x}"));
        }
    }

    fn signals(&mut self) {
        let bits = |name| match self.combination.get(name) {
            "none" => 0,
            "some" => 1u64 << (libc::SIGTERM - 1) | 1 << (libc::SIGPIPE - 1),
            _ => !UNTOUCHABLE,
        };
        self.set("SigBlk", format!("{:016x}", bits("signal mask")));
        self.set("SigIgn", format!("{:016x}", bits("ignored signals")));
        self.set("SigCgt", format!("{:016x}", 0));
    }

    fn session(&mut self) {
        let new = match self.get("session") {
            "none" => self.uid() != 0 && self.get("group") != "another",
            other => other != "the host's",
        };
        if new {
            self.set("session", "self");
            self.set("group", "self");
            self.set("terminal", 0);
            self.set("foreground", -1);
        } else {
            match self.get("group") {
                "none" => {}
                "own" => self.set("group", "self"),
                _ => self.set("group", self.host.other_group()),
            }
        }
        if matches!(self.get("session"), "terminal" | "foreground") {
            let device = self.terminal.device;
            let (major, minor) = (libc::major(device), libc::minor(device));
            self.set("terminal", minor & 0xff | major << 8 | (minor & !0xff) << 12);
            // The kernel makes the group of the session's leader the foreground process group at once.
            self.set("foreground", "self");
        }
    }

    fn scheduling(&mut self) {
        if let Some(mask) = self.asked("umask") {
            self.set("Umask", format!("0{mask}"));
        }
        if let Some(nice) = self.asked("nice") {
            self.set("nice", nice);
        }
        if let Some(policy) = self.asked("scheduling") {
            let number = if policy == "batch" {
                libc::SCHED_BATCH
            } else {
                libc::SCHED_IDLE
            };
            self.set("policy", number);
        }
        if let Some(priority) = self.asked("I/O priority") {
            self.set("I/O priority", if priority == "idle" { 3 << 13 } else { 2 << 13 | 6 });
        }
        if let Some(namespaces) = self.asked("namespaces") {
            let is_new = namespaces == "new";
            self.set("network namespace", if is_new { "a new one" } else { "the host's" });
        }
        if let Some(which) = self.asked("affinity") {
            self.set("Cpus_allowed_list", self.host.cpu(which));
        }
        if let Some(score) = self.asked("oom score") {
            self.set("oom_score_adj", score);
        }
        for (_, name, soft, hard) in settings::limits(self.get("limits"), self.host) {
            let shown = |limit: u64| match limit {
                u64::MAX => "unlimited".to_owned(),
                number => number.to_string(),
            };
            self.set(&format!("limit {name}"), format!("{} {}", shown(soft), shown(hard)));
        }
        if self.asked("cgroup").is_some() {
            let lines = self.host.facts["cgroup"].lines();
            let others: Vec<&str> = lines.filter(|line| !line.starts_with("0::")).collect();
            let mut all = others.join("\n");
            let _infallible = write!(all, "\n0::/{}", self.host.cgroup().name);
            self.set("cgroup", all.trim());
        }
    }

    fn places(&mut self) {
        let directory = self.host.directory().to_owned();
        let cwd = match (self.get("directory"), self.get("chroot")) {
            ("none", _) => directory.clone(),
            _ => format!("{directory}/inside"),
        };
        let exe = if self.get("program") == "relative" {
            &cwd
        } else {
            &directory
        };
        self.set("exe", format!("{exe}/probe"));
        self.set("cwd", cwd);
        if self.get("chroot") != "none" {
            self.set("root", directory);
        }
    }

    fn descriptors(&mut self) {
        let streams = ["stdin", "stdout", "stderr"].map(|name| self.get(name));
        for (stream, value) in streams.into_iter().enumerate() {
            let number = stream as i32;
            let what = match value {
                "none" => self.of_host(number),
                "piped" => self.pipe(number, stream == 0),
                "stderr" => String::new(),
                "stdout" => self.facts["descriptor 1"].clone(),
                "given" => self.of_host(self.host.low.as_raw_fd()),
                "given high" => self.of_host(self.host.high.as_raw_fd()),
                other => self.opened(other),
            };
            self.set(&format!("descriptor {number}"), what);
        }
        if self.get("stdout") == "stderr" {
            self.set("descriptor 1", self.facts["descriptor 2"].clone());
        }
        let (low, other, high) = (&self.host.low, &self.host.other_low, &self.host.high);
        let (low, other, high) = (low.as_raw_fd(), other.as_raw_fd(), high.as_raw_fd());
        let leaked = self.host.leaked.as_raw_fd();
        let given: &[(i32, i32)] = match self.get("passed") {
            "one" => &[(5, high)],
            "inherited" => &[(leaked, leaked)],
            "many" => &[(5, high), (6, low), (12, high)],
            "high" => &[(70, low)],
            "own number" => &[(low, low)],
            "swapped" => &[(low, other), (other, low)],
            _ => &[],
        };
        for (target, source) in given {
            self.set(&format!("descriptor {target}"), self.of_host(*source));
        }
        if self.get("passed") == "many" {
            self.set("descriptor 7", self.opened("null"));
            self.set("descriptor 8", self.facts["descriptor 1"].clone());
            self.set("descriptor 10", self.opened("append"));
        }
        if self.get("passed") == "pipe" {
            self.set("descriptor 9", self.pipe(9, false));
        }
        if self.get("passed") == "pipes" {
            self.set("descriptor 6", self.pipe(6, false));
            self.set("descriptor 9", self.pipe(9, true));
            self.set("descriptor 10", self.pipe(10, false));
        }
        let sockets = match self.get("listen") {
            "none" => 0,
            "one" => 1,
            _ => 2,
        };
        for (target, socket) in (3..).zip(&self.host.sockets[..sockets]) {
            self.set(&format!("descriptor {target}"), self.of_host(socket.as_raw_fd()));
        }
        if matches!(self.get("session"), "terminal" | "foreground") {
            let terminal = self.of_host(self.terminal.slave.as_raw_fd());
            self.set(&format!("descriptor {}", Terminal::TARGET), terminal);
        }
    }

    /// The host's open file with this number, without close-on-exec.
    fn of_host(&self, fd: i32) -> String {
        let own = &self.own_descriptors[&u32::try_from(fd).unwrap()];
        let (target, flags) = own.rsplit_once(' ').unwrap();
        let flags = i32::from_str_radix(flags, 8).unwrap_or(0) & !libc::O_CLOEXEC;
        described(target, &format!("{flags:o}"))
    }

    /// The child's end of a pipe, derived from the end that the parent holds.
    fn pipe(&self, number: i32, is_read: bool) -> String {
        let end = self.child.pipe(number).expect("the child has no such pipe");
        let own = self.of_host(end.as_raw_fd());
        described(own.split(' ').next().unwrap(), if is_read { "" } else { "1" })
    }

    /// The file that a command opens for a stream.
    fn opened(&self, how: &str) -> String {
        const LARGE: i32 = 0o100_000;
        let file = self.host.file.to_str().unwrap();
        let (path, flags) = match how {
            "null" => ("/dev/null", libc::O_RDWR),
            "file" => (file, libc::O_RDONLY),
            "append" => (file, libc::O_WRONLY | libc::O_APPEND),
            "truncate" => (file, libc::O_WRONLY),
            other => settings::unknown(other),
        };
        described(path, &format!("{:o}", flags | LARGE))
    }
}
