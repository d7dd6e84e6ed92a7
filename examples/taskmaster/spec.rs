//! Translates a program of the configuration into the library's [`GroupSpec`].

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use pidherd::lifecycle::{ExitSet, Restart, Scope, Startup, StopLadder};
use pidherd::{Command, GroupSpec, Lifetime, OpenFile, Policy, Resource, Signal, SignalSet, Stdio};

use crate::config::{Around, AutoRestart, Channel, Instance, Log, Program, Readiness, Role, Stream};
use crate::fcgi;
use crate::limits::OpenFiles;

/// Variables that a service manager sets for the taskmaster. They must not reach its programs.
const NOT_FOR_THEM: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// What all programs have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// The limit of open files, if it differs from the taskmaster's own.
    pub open_files: Option<OpenFiles>,
    /// Whether the taskmaster collects the output of the programs. If it stores its state in a file, the programs write
    /// their logs themselves, because a pipe ends with the taskmaster and the programs live on.
    pub collects: bool,
}

/// The library's group with the name `name` for `instances` instances of `program`.
pub fn group(program: &Arc<Program>, name: &str, instances: u32, shared: Shared) -> GroupSpec {
    let recipe = Arc::clone(program);
    let spec = GroupSpec::with(name, move |number| {
        limited(command(&recipe, number, shared.collects), shared.open_files)
    })
    .instances(instances)
    .policy(policy(program));
    let spec = match program.beyond.readiness {
        Readiness::Grace | Readiness::Completes => spec,
        Readiness::Notify => spec.notify_socket(true),
        Readiness::Fd(number) => spec.ready_fd(number),
    };
    let spec = match &program.beyond.cgroup {
        Some(directory) => spec.cgroup(directory.clone()).limits(program.beyond.limits.clone()),
        None => spec,
    };
    let spec = match &program.beyond.before {
        Some(around) => spec.before_run(around_run(program, around, shared), around.limit),
        None => spec,
    };
    let spec = match &program.beyond.after {
        Some(around) => spec.after_run(around_run(program, around, shared), around.limit),
        None => spec,
    };
    match &program.beyond.rules.stop_command {
        Some(around) => spec.stop_command(around_run(program, around, shared)),
        None => spec,
    }
}

/// A command before or after each run, or for its stop. It has the settings of the program's first process. Its output is appended to
/// the logs by itself, because a pipe would need a reader for each run.
fn around_run(program: &Program, around: &Around, shared: Shared) -> Command {
    let made = program.instance(0).map(|mut instance| {
        instance.argv.clone_from(&around.argv);
        command_of(program, &instance, false).stdin(Stdio::null())
    });
    limited(made.unwrap_or_else(|_| Command::new("")), shared.open_files)
}

fn limited(command: Command, open_files: Option<OpenFiles>) -> Command {
    match open_files {
        Some(OpenFiles { soft, hard }) => command.limit(Resource::OpenFiles, soft, hard),
        None => command,
    }
}

/// The command of the instance with this number.
///
/// Numbers without a valid command are refused earlier. For such a number this returns an empty command, which the
/// library refuses.
fn command(program: &Program, number: u32, collects: bool) -> Command {
    program.instance(number).map_or_else(
        |_| Command::new(""),
        |instance| command_of(program, &instance, collects),
    )
}

fn command_of(program: &Program, instance: &Instance, collects: bool) -> Command {
    let (path, arguments) = instance
        .argv
        .split_first()
        .map_or(("", &[][..]), |(path, rest)| (path.as_str(), rest));
    let mut command = Command::new(path).args(arguments);
    for variable in NOT_FOR_THEM {
        command = command.env_remove(variable);
    }
    // The library sets PWD after a change of the directory. In supervisord, PWD is a variable like any other.
    command = match std::env::var_os("PWD") {
        Some(directory) => command.env("PWD", directory),
        None => command.env_remove("PWD"),
    };
    command = command
        .env("SUPERVISOR_ENABLED", "1")
        .env("SUPERVISOR_PROCESS_NAME", &instance.name)
        .env("SUPERVISOR_GROUP_NAME", &program.group)
        .envs(program.serverurl.iter().map(|url| ("SUPERVISOR_SERVER_URL", url)))
        .envs(instance.environment.iter().map(|(key, value)| (key, value)))
        // The programs must not read the commands on the taskmaster's standard input.
        .stdin(match &program.role {
            Role::Listener(_) => Stdio::piped(),
            // The socket was opened when the program was added, so this returns the same one.
            Role::FastCgi(settings) => fcgi::open(settings).map_or_else(|_| Stdio::null(), Stdio::from),
            Role::Plain if program.beyond.has_input => Stdio::piped(),
            Role::Plain => Stdio::null(),
        })
        .stdout(match collects && program.is_heard(Channel::Out) {
            true => Stdio::piped(),
            false => stdio(&instance.stdout, Stream::Out, collects),
        })
        .stderr(match collects && program.is_heard(Channel::Err) {
            _ if program.redirect_stderr => Stdio::stdout(),
            true => Stdio::piped(),
            false => stdio(&instance.stderr, Stream::Err, collects),
        })
        .lifetime(program.beyond.lifetime);
    // The library sets no_new_privs for another user by default. supervisord never sets it. Without root's privileges
    // the kernel binds only a process that has it.
    let is_needed = program.beyond.lifetime != Lifetime::Detached && !rustix::process::geteuid().is_root();
    if program.beyond.no_new_privs || !is_needed {
        command = command.no_new_privileges(program.beyond.no_new_privs);
    }
    let is_own = |log: &Log| matches!(log, Log::Own(_));
    if is_own(&instance.stdout) || is_own(&instance.stderr) {
        // A program is never in the terminal's foreground. After `stty tostop`, SIGTTOU would stop it at its first
        // line of output.
        command = command.ignored_signals(SignalSet::EMPTY.with(Signal::TTOU));
    }
    with_account(with_settings(command, program, instance), program)
}

/// The settings of a process that a file may leave out.
fn with_settings(mut command: Command, program: &Program, instance: &Instance) -> Command {
    if let Some(directory) = &instance.directory {
        command = command.current_dir(directory);
    }
    if let Some(umask) = program.umask {
        command = command.umask(umask);
    }
    if let Some(nice) = program.beyond.nice {
        command = command.nice(nice);
    }
    if let Some(value) = program.beyond.oom_score_adj {
        command = command.oom_score_adj(value);
    }
    command
}

/// The account, and the session or the process group.
fn with_account(command: Command, program: &Program) -> Command {
    match program
        .user
        .as_ref()
        .filter(|user| user.uid != rustix::process::getuid().as_raw())
    {
        // A program of another user gets a session of its own, which includes a process group. In the taskmaster's
        // session it could insert input into the taskmaster's terminal.
        Some(user) => command.uid(user.uid).gid(user.gid).groups(&user.groups).setsid(true),
        // Ctrl-C at the terminal must reach only the taskmaster.
        None => command.process_group(0),
    }
}

/// The child's descriptor for `stream`.
fn stdio(log: &Log, stream: Stream, collects: bool) -> Stdio {
    match log {
        Log::Discard => Stdio::null(),
        Log::Own(own) if *own == stream => Stdio::inherit(),
        // If no descriptor is free for the duplicate, the spawn fails anyway.
        Log::Own(own) => own.duplicate().map_or_else(Stdio::null, Stdio::from),
        Log::Automatic(path) | Log::File(path) if collects && is_collected(path) => Stdio::piped(),
        Log::Automatic(path) => OpenFile::append(path).mode(0o600).into(),
        Log::File(path) => OpenFile::append(path).into(),
    }
}

/// Whether the output for this path is collected. The program itself opens a device or a FIFO. It also opens a file in
/// a directory that does not exist: its start then fails, and the error names the path.
///
/// The answer stays the same once it was true, because another answer is another command, which a reload would apply
/// by a restart.
fn is_collected(path: &Path) -> bool {
    static COLLECTED: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
    let mut collected = COLLECTED.lock().unwrap_or_else(PoisonError::into_inner);
    let collected = collected.get_or_insert_default();
    if collected.contains(path) {
        return true;
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let is = match path.metadata() {
        Ok(metadata) => metadata.is_file(),
        Err(_) => parent.unwrap_or(Path::new(".")).is_dir(),
    };
    if is {
        collected.insert(path.to_owned());
    }
    is
}

fn policy(program: &Program) -> Policy {
    let (stop, watchdog_stop) = ladders(program);
    let policy = Policy::new()
        .startup(match program.beyond.readiness {
            Readiness::Grace => Startup::Grace(program.startsecs),
            Readiness::Notify | Readiness::Fd(_) => Startup::Notify {
                timeout: program.beyond.readysecs,
            },
            Readiness::Completes => Startup::Completes {
                timeout: program.beyond.readysecs,
            },
        })
        .watchdog(program.beyond.watchdogsecs)
        .early_exit_fails(true)
        .start_retries(program.startretries)
        .restart(match program.autorestart {
            AutoRestart::Always => Restart::Always,
            AutoRestart::Unexpected => Restart::OnUnexpected,
            AutoRestart::Never => Restart::Never,
        })
        .expected(
            program
                .exitcodes
                .iter()
                .fold(ExitSet::EMPTY, |exits, &code| exits.code(code)),
        )
        .stop(stop)
        .watchdog_stop(watchdog_stop);
    program.beyond.rules.apply(policy)
}

/// The ladder of a stop, and the one of a missed watchdog.
fn ladders(program: &Program) -> (StopLadder, Option<StopLadder>) {
    let scope = |as_group| if as_group { Scope::ProcessGroup } else { Scope::Process };
    let ask = scope(program.stopasgroup);
    // With a cgroup, the last signal reaches every process in the cgroup.
    let kill = match program.beyond.cgroup {
        Some(_) => Scope::Cgroup,
        None => scope(program.killasgroup),
    };
    let ladder = StopLadder::kill(kill).then(program.stopsignal, ask, program.stopwaitsecs);
    program.beyond.rules.ladders(ladder, ask)
}
