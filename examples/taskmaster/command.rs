//! The commands: their syntax, and the help for each one.

use pidherd::signal::Signal;

use crate::config::{Channel, MOST_INSTANCES};
use crate::suggest::did_you_mean;

/// The number of bytes that `tail` shows, as in supervisorctl.
const TAIL: u64 = 1600;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `status [NAME...]`: shows the state of processes.
    Status(Vec<String>),
    /// `start NAME...`: starts processes.
    Start(Vec<String>),
    /// `stop NAME...`: stops processes.
    Stop(Vec<String>),
    /// `restart NAME...`: restarts processes.
    Restart(Vec<String>),
    /// `signal SIG NAME...`: sends a signal.
    Signal(Signal, Vec<String>),
    /// `scale GROUP N`: changes the number of instances.
    Scale(String, u32),
    /// `pid [NAME...]`: shows PIDs. Without a name, that of the taskmaster.
    Pid(Vec<String>),
    /// `tail [-f] NAME`: shows the end of a log.
    Tail(String, Channel, Part),
    /// `maintail [-f]`: shows the end of the taskmaster's own log.
    MainTail(Part),
    /// `fg NAME`: shows the output of a process, and sends it what is typed.
    Foreground(String),
    /// `clear NAME...`: empties logs.
    Clear(Vec<String>),
    /// `top`: shows the resources of all processes.
    Top,
    /// `avail`: lists the processes of the configuration.
    Avail,
    /// `reread`: reads the configuration, and changes nothing.
    Reread,
    /// `update [GROUP...]`: applies the changes of groups. Without a group, of all groups.
    Update(Vec<String>),
    /// `add GROUP...`: adds groups of the configuration that was read.
    Add(Vec<String>),
    /// `remove GROUP...`: removes groups without a living process.
    Remove(Vec<String>),
    /// `reload`: reads the configuration again, and applies it.
    Reload,
    /// `reexec`: replaces the taskmaster by the program that is now on disk.
    Reexec,
    /// `shutdown`: stops all processes and ends.
    Shutdown,
    /// `quit`: ends the input, not the programs.
    Quit,
    /// `version`: shows the version.
    Version,
    /// `help [COMMAND]`: lists the commands, or describes one.
    Help(Option<&'static Help>),
}

/// The part of a log that `tail` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The last bytes, this many.
    Last(u64),
    /// What is added from now on.
    Following,
}

/// The help for one command.
#[derive(Debug, PartialEq, Eq)]
pub struct Help {
    /// The name of the command.
    pub name: &'static str,
    /// Its syntax.
    pub usage: &'static str,
    /// What it does, in a few words.
    pub brief: &'static str,
    /// Details, one line each.
    pub more: &'static [&'static str],
}

const fn help(name: &'static str, usage: &'static str, brief: &'static str, more: &'static [&'static str]) -> Help {
    Help {
        name,
        usage,
        brief,
        more,
    }
}

/// What a name may be.
const NAMES: &str =
    "A NAME is a process (group:process, or one word if both are equal), a group (group or group:*) or all.";

/// All commands, in the order of the list.
pub const COMMANDS: &[Help] = &[
    help(
        "status",
        "status [NAME...]",
        "show state, pid, uptime and last exit",
        &[NAMES],
    ),
    help(
        "start",
        "start NAME...",
        "start the processes that are down",
        &[
            "The answer comes at once. The log shows when a process is RUNNING or has failed.",
            NAMES,
        ],
    ),
    help(
        "stop",
        "stop NAME...",
        "stop processes; SIGKILL follows after stopwaitsecs",
        &[
            "A process that was stopped stays down until `start`, `restart` or a reload that changes autostart.",
            NAMES,
        ],
    ),
    help(
        "restart",
        "restart NAME...",
        "stop, then start",
        &["The configuration is not read again: see `reload`.", NAMES],
    ),
    help(
        "signal",
        "signal SIG NAME...",
        "send a signal: HUP, SIGUSR1, 10",
        &["It is sent to the process alone, and is no request to stop.", NAMES],
    ),
    help(
        "scale",
        "scale GROUP N",
        "change the number of instances to N",
        &[
            "Instances with lower numbers keep their PIDs. A reload keeps N, unless the file changes numprocs.",
            "A program with more than one instance needs %(process_num)d in its process_name.",
        ],
    ),
    help(
        "pid",
        "pid [NAME...]",
        "show PIDs; without a NAME that of the taskmaster",
        &["0 stands for a process that is down.", NAMES],
    ),
    help(
        "top",
        "top",
        "show processor time and memory of all runs, live",
        &[
            "The numbers are those of the whole cgroup if the program has one, else of the process alone.",
            "At a terminal: the arrow keys scroll, and q ends the view.",
        ],
    ),
    help(
        "tail",
        "tail [-f|-BYTES] NAME [stdout|stderr]",
        "show the end of a log",
        &[
            "Without an option, the last 1600 bytes of standard output.",
            "With -f, at a terminal, what is added until Ctrl-C.",
        ],
    ),
    help(
        "maintail",
        "maintail [-f|-BYTES]",
        "show the end of the taskmaster's own log file",
        &["It needs logfile in [supervisord]."],
    ),
    help(
        "fg",
        "fg NAME",
        "show the output of a process, and type to it",
        &["Each typed line goes to its standard input, which needs stdin=pipe. Ctrl-C ends the view, not the process."],
    ),
    help("clear", "clear NAME...", "empty the logs of processes", &[NAMES]),
    help(
        "avail",
        "avail",
        "list the processes of the configuration, with their priorities",
        &["The list is of the configuration that was read last, see `reread`."],
    ),
    help(
        "reread",
        "reread",
        "read the configuration, and list what `update` would change",
        &[],
    ),
    help(
        "update",
        "update [GROUP...]",
        "read the configuration, and apply the changes of groups",
        &[
            "Without a GROUP, or with all, it applies all changes. A process whose command is the same is not restarted.",
        ],
    ),
    help(
        "add",
        "add GROUP...",
        "add groups of the configuration that was read last",
        &[],
    ),
    help(
        "remove",
        "remove GROUP...",
        "remove groups; all their processes must be down",
        &[],
    ),
    help(
        "reload",
        "reload",
        "read the configuration again, and apply the changes",
        &[
            "If the file has a mistake, nothing changes. Only processes whose command differs are restarted.",
            "The command of this name in supervisorctl restarts the taskmaster with all its programs.",
        ],
    ),
    help(
        "reexec",
        "reexec",
        "go on as the program that is now on disk; no process is stopped",
        &["Typed text, waiting output, states, numbers of runs and times go on as well."],
    ),
    help(
        "shutdown",
        "shutdown",
        "stop all programs, then exit",
        &["Ctrl-C does the same."],
    ),
    help(
        "quit",
        "quit",
        "read no more commands; the programs run on",
        &["Ctrl-D does the same. Ctrl-C, SIGTERM or supervisorctl end the taskmaster later."],
    ),
    help("exit", "exit", "the same as quit", &[]),
    help("version", "version", "show the version", &[]),
    help("help", "help [COMMAND]", "show this list, or describe one command", &[]),
];

/// The list of all commands, one line each.
pub fn overview() -> Vec<String> {
    let width = 20;
    let line = |help: &Help| {
        if help.usage.len() > width {
            format!("{} - {}", help.usage, help.brief)
        } else {
            format!("{:<width$} {}", help.usage, help.brief)
        }
    };
    let mut lines: Vec<String> = COMMANDS.iter().map(line).collect();
    lines.push(NAMES.to_owned());
    lines
}

impl Help {
    /// The description of this command, one line each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{}: {}", self.usage, self.brief)];
        lines.extend(self.more.iter().map(|&line| line.to_owned()));
        lines
    }
}

impl Command {
    /// Parses one line. Returns `None` for a blank line.
    ///
    /// # Errors
    /// One line that describes the mistake.
    pub fn parse(line: &str) -> Result<Option<Command>, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((&verb, arguments)) = words.split_first() else {
            return Ok(None);
        };
        let help = find(verb)?;
        let names = || arguments.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let command = match (verb, arguments) {
            ("status", _) => Command::Status(names()),
            ("start", [_, ..]) => Command::Start(names()),
            ("stop", [_, ..]) => Command::Stop(names()),
            ("restart", [_, ..]) => Command::Restart(names()),
            ("signal", [signal, first, rest @ ..]) => {
                let names = std::iter::once(first).chain(rest).map(|&name| name.to_owned());
                Command::Signal(parse_signal(signal)?, names.collect())
            }
            ("scale", [group, count]) => Command::Scale((*group).to_owned(), parse_count(count)?),
            ("pid", _) => Command::Pid(names()),
            ("top", []) => Command::Top,
            ("tail", _) => return parse_tail(arguments).ok_or_else(|| misuse(help))?.map(Some),
            ("maintail", []) => Command::MainTail(Part::Last(TAIL)),
            ("maintail", [option]) => Command::MainTail(parse_part(option).ok_or_else(|| misuse(help))??),
            ("fg", [name]) => Command::Foreground((*name).to_owned()),
            ("clear", [_, ..]) => Command::Clear(names()),
            ("avail", []) => Command::Avail,
            ("reread", []) => Command::Reread,
            ("update", _) => Command::Update(names()),
            ("add", [_, ..]) => Command::Add(names()),
            ("remove", [_, ..]) => Command::Remove(names()),
            ("reload", []) => Command::Reload,
            ("reexec", []) => Command::Reexec,
            ("shutdown", []) => Command::Shutdown,
            ("quit" | "exit", []) => Command::Quit,
            ("version", []) => Command::Version,
            ("help", []) => Command::Help(None),
            ("help", [command]) => Command::Help(Some(find(command)?)),
            _ => return Err(misuse(help)),
        };
        Ok(Some(command))
    }
}

/// The help for the command with this name.
fn find(verb: &str) -> Result<&'static Help, String> {
    let found = COMMANDS.iter().find(|help| help.name == verb);
    found.ok_or_else(|| {
        let names = COMMANDS.iter().map(|help| help.name.to_owned());
        match did_you_mean(verb, names) {
            none if none.is_empty() => format!("unknown command {verb:?}, try help"),
            meant => format!("unknown command {verb:?}{meant}"),
        }
    })
}

/// Parses what follows `tail`. `None` if it has another form.
fn parse_tail(arguments: &[&str]) -> Option<Result<Command, String>> {
    let (part, rest) = match arguments.split_first() {
        Some((option, rest)) if option.starts_with('-') => (parse_part(option)?, rest),
        _ => (Ok(Part::Last(TAIL)), arguments),
    };
    let (name, channel) = match rest {
        [name] => (name, Ok(Channel::Out)),
        [name, channel] => (name, parse_channel(channel)),
        _ => return None,
    };
    Some(part.and_then(|part| Ok(Command::Tail((*name).to_owned(), channel?, part))))
}

/// Parses `-f` or `-BYTES`. `None` if it is no option.
fn parse_part(option: &str) -> Option<Result<Part, String>> {
    match option.strip_prefix('-')? {
        "f" => Some(Ok(Part::Following)),
        number => Some(match number.parse::<u64>() {
            Ok(bytes) => Ok(Part::Last(bytes)),
            Err(_) => Err(format!("{option:?} is neither -f nor a number of bytes, such as -100")),
        }),
    }
}

fn parse_channel(text: &str) -> Result<Channel, String> {
    match text.to_lowercase().as_str() {
        "stdout" => Ok(Channel::Out),
        "stderr" => Ok(Channel::Err),
        _ => Err(format!("bad channel {text:?}: it must be stdout or stderr")),
    }
}

fn parse_signal(text: &str) -> Result<Signal, String> {
    text.parse::<Signal>().map_err(|error| {
        let short = text.to_uppercase();
        let short = short.strip_prefix("SIG").unwrap_or(&short).to_owned();
        let names = Signal::all().map(|signal| signal.to_string().trim_start_matches("SIG").to_owned());
        format!("{error}{}", did_you_mean(&short, names))
    })
}

fn parse_count(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(count @ ..=MOST_INSTANCES) => Ok(count),
        Ok(_) => Err(format!("{text} instances are too many: at most {MOST_INSTANCES}")),
        Err(_) => Err(format!("{text:?} is not a number of instances")),
    }
}

/// The error for a command with wrong arguments.
fn misuse(help: &Help) -> String {
    format!("usage: {}", help.usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let names = |all: &[&str]| all.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let web = || names(&["web:*"]);
        let both = || names(&["a", "b:*"]);
        for (line, command) in [
            ("status", Command::Status(vec![])),
            ("status web:*", Command::Status(web())),
            ("status a b:*", Command::Status(both())),
            ("start web:*", Command::Start(web())),
            ("  stop\tweb:* \r", Command::Stop(web())),
            ("stop a b:*", Command::Stop(both())),
            ("restart web:*", Command::Restart(web())),
            ("signal HUP web:*", Command::Signal(Signal::HUP, web())),
            ("signal 9 a b:*", Command::Signal(Signal::KILL, both())),
            ("scale web 5", Command::Scale("web".to_owned(), 5)),
            ("scale web 0", Command::Scale("web".to_owned(), 0)),
            ("pid", Command::Pid(vec![])),
            ("pid a b:*", Command::Pid(both())),
            ("top", Command::Top),
            ("tail a", Command::Tail("a".to_owned(), Channel::Out, Part::Last(1600))),
            (
                "tail -f a",
                Command::Tail("a".to_owned(), Channel::Out, Part::Following),
            ),
            (
                "tail -100 a STDERR",
                Command::Tail("a".to_owned(), Channel::Err, Part::Last(100)),
            ),
            ("maintail", Command::MainTail(Part::Last(1600))),
            ("maintail -f", Command::MainTail(Part::Following)),
            ("fg a", Command::Foreground("a".to_owned())),
            ("clear a b:*", Command::Clear(both())),
            ("avail", Command::Avail),
            ("reread", Command::Reread),
            ("update", Command::Update(vec![])),
            ("update a b:*", Command::Update(both())),
            ("add a b:*", Command::Add(both())),
            ("remove a b:*", Command::Remove(both())),
            ("reload", Command::Reload),
            ("reexec", Command::Reexec),
            ("shutdown", Command::Shutdown),
            ("quit", Command::Quit),
            ("exit", Command::Quit),
            ("version", Command::Version),
            ("help", Command::Help(None)),
        ] {
            assert_eq!(Command::parse(line), Ok(Some(command)), "{line:?}");
        }
        assert_eq!(Command::parse(" \t\r"), Ok(None));
    }

    #[test]
    fn bad_commands_get_one_line() {
        for (line, answer) in [
            ("dance", "unknown command \"dance\", try help"),
            ("stauts", "unknown command \"stauts\"; did you mean \"status\"?"),
            ("START web", "unknown command \"START\"; did you mean \"start\"?"),
            ("restrat web", "unknown command \"restrat\"; did you mean \"restart\"?"),
            ("help stpo", "unknown command \"stpo\"; did you mean \"stop\"?"),
            ("A", "unknown command \"A\", try help"),
            ("start", "usage: start NAME..."),
            ("signal web", "usage: signal SIG NAME..."),
            ("signal NOPE web", "there is no signal \"NOPE\""),
            ("signal tetm web", "there is no signal \"tetm\"; did you mean \"TERM\"?"),
            ("scale web", "usage: scale GROUP N"),
            ("scale web many", "\"many\" is not a number of instances"),
            ("scale web -1", "\"-1\" is not a number of instances"),
            (
                "scale web 4000000000",
                "4000000000 instances are too many: at most 100000",
            ),
            ("tail", "usage: tail [-f|-BYTES] NAME [stdout|stderr]"),
            ("tail -f", "usage: tail [-f|-BYTES] NAME [stdout|stderr]"),
            ("tail -x a", "\"-x\" is neither -f nor a number of bytes, such as -100"),
            ("tail a stdin", "bad channel \"stdin\": it must be stdout or stderr"),
            ("maintail a", "usage: maintail [-f|-BYTES]"),
            ("fg", "usage: fg NAME"),
            ("fg a b", "usage: fg NAME"),
            ("clear", "usage: clear NAME..."),
            ("add", "usage: add GROUP..."),
            ("reread now", "usage: reread"),
            ("shutdown now", "usage: shutdown"),
            ("reexec now", "usage: reexec"),
            ("\u{1b}[A", "unknown command \"\\u{1b}[A\", try help"),
        ] {
            assert_eq!(Command::parse(line), Err(answer.to_owned()), "{line:?}");
        }
    }

    #[test]
    fn every_command_has_help_and_its_usage_begins_with_its_name() {
        for help in COMMANDS {
            assert_eq!(help.usage.split(' ').next(), Some(help.name));
            let line = format!("help {}", help.name);
            assert_eq!(Command::parse(&line), Ok(Some(Command::Help(Some(help)))));
            assert!(help.lines()[0].starts_with(help.usage));
            let is_it = |line: &String| line.starts_with(help.usage) && line.ends_with(help.brief);
            assert!(overview().iter().any(is_it), "{}", help.name);
        }
    }
}
