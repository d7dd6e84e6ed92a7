//! A compiled command: checked, looked up, and translated to the system calls of the child.
//!
//! All decisions that are independent of a spawn are made here, once. A spawn adds the descriptors: the numbers of its
//! pipes, and how they are placed in the child (see `plan`). Privileges determine the order of the steps: steps with
//! the host's privileges come first; ids change from groups to gid to uid; steps with the target user's privileges come
//! last.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::builder::{Command, Passed};
use super::error::{CommandError, SpawnError, SpawnStep, Subject};
use super::identity::{Host, Ids, Login};
use super::namespace::PidNamespace;
use super::settings::Settings;
use super::stdio::{Kind, OpenFile, Stdio};
use crate::notify::is_descriptor_name;
use crate::signal::Signal;
use crate::sys::descriptors::FIRST;
use crate::sys::spawn::capabilities::CapabilitySets;
use crate::sys::spawn::script::{Image, Prelude, Script, Text};

/// A compiled [`Command`]. A [`Spawner`](super::Spawner) starts it any number of times, also several times at once.
/// Starting it again allocates nothing. A clone is another handle to the same program.
///
/// The environment is that of the host at the time of compilation, and so are the ids and the home directory of a user
/// from [`Command::user`]. The program itself is searched, and files are opened, at each spawn.
#[derive(Clone, Debug)]
pub struct Program(pub(super) Arc<Compiled>);

/// The shared, immutable data of all handles of a program.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    name: OsString,
    labels: Vec<Label>,
    pub(super) descriptors: Vec<Descriptor>,
    /// The steps of the command, after those about descriptors; holds the paths of files.
    pub(super) script: Arc<Script>,
    pub(super) changes_ids: bool,
    /// Whether a spawn must wait for exec: the command does what only a child of vfork(2) can do.
    pub(super) waits_for_exec: bool,
    /// Whether the kernel binds the child to the host.
    pub(super) is_bound: bool,
    /// Whether the child must be able to gain privileges.
    pub(super) may_gain_privileges: bool,
    pub(super) pid_namespace: PidNamespace,
    cgroup: Option<Arc<OwnedFd>>,
    /// The inheritable capabilities of the child.
    inheritable: u64,
    /// The text that a process writes to `cgroup.procs` to enter a cgroup itself.
    pub(super) zero: Text,
    candidates: usize,
    /// What the program is compiled from again to pass more descriptors, if it may.
    recipe: Option<Arc<Recipe>>,
}

/// A command with everything that its compilation has looked up in the host.
#[derive(Clone, Debug)]
struct Recipe {
    command: Command,
    host: Host,
    ids: Ids,
    environment: BTreeMap<OsString, OsString>,
    is_bound: bool,
    parent_death_signal: Option<Signal>,
}

/// A descriptor that one spawn passes after those of [`Command::listen_fd`].
#[derive(Clone, Debug)]
pub(crate) struct Listening {
    pub(crate) name: Arc<str>,
    pub(crate) fd: Arc<OwnedFd>,
}

/// The name in `LISTEN_FDNAMES` of a descriptor without one (sd_listen_fds_with_names(3)).
const NAMELESS: &str = "unknown";

/// A program during its compilation.
#[derive(Debug)]
pub(super) struct Lowering {
    labels: Vec<Label>,
    pub(super) descriptors: Vec<Descriptor>,
    pub(super) body: Script,
    /// The inheritable capabilities of the child.
    pub(super) inheritable: u64,
    candidates: usize,
}

/// The description of a step for its error.
#[derive(Clone, Debug)]
struct Label {
    step: SpawnStep,
    subject: Option<Subject>,
}

/// The labels that every program has, in this order.
pub(super) const UNSHARE: usize = 0;
pub(super) const CLOSE: usize = 1;
pub(super) const INHERITABLE: usize = 2;
pub(super) const CGROUP: usize = 3;

/// One descriptor of the child.
#[derive(Clone, Debug)]
pub(super) struct Descriptor {
    pub target: RawFd,
    pub source: Source,
    pub label: usize,
}

/// The source of a descriptor.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The host's descriptor of the same number. The standard streams stay unchanged. Another number must be open, and
    /// close-on-exec is cleared for the child.
    Inherit,
    Null,
    /// The child's end of a pipe.
    Pipe(PipeEnd),
    Given(Arc<OwnedFd>),
    File {
        path: Text,
        flags: i32,
        mode: u32,
    },
    /// The host's standard output or standard error, by its number, at another number.
    OfHost(RawFd),
    /// The child's standard output or standard error, by its number.
    Stream(RawFd),
}

/// The child's end of a pipe.
#[derive(Clone, Copy, Debug)]
pub(super) struct PipeEnd {
    /// The number of the standard stream, [`EXTRA`], or a higher number.
    pub index: usize,
    /// Whether the child reads from it.
    pub is_read: bool,
    /// Whether the parent's end is non-blocking.
    pub nonblocking: bool,
}

/// The index of the last pipe that is not a standard stream. Those before it have higher ones.
pub(super) const EXTRA: usize = 3;

/// The largest number of steps for one descriptor, and for all together in addition.
const STEPS_EACH: usize = 4;
const STEPS_ALL: usize = 9;

impl Program {
    pub(super) fn new(command: &Command) -> Result<Program, CommandError> {
        let host = Host::current();
        let ids = command.identity.resolve(&host)?;
        let environment = environment(command, ids.login.as_ref())?;
        let settings = &command.settings;
        let (is_bound, parent_death_signal) = settings.lifetime.resolve(settings.parent_death_signal)?;
        Program::lower(
            Recipe {
                command: command.clone(),
                host,
                ids,
                environment,
                is_bound,
                parent_death_signal,
            },
            &[],
        )
    }

    /// The largest number of descriptors that a spawn may pass after those of the command.
    pub(crate) fn most_stored(&self) -> u16 {
        let most = self.0.recipe.as_ref().map(|recipe| recipe.command.settings.most_stored);
        u16::try_from(most.unwrap_or(0)).unwrap_or(u16::MAX)
    }

    /// The same program with more descriptors after those of [`Command::listen_fd`]; `None` if there are none to add.
    /// Nothing is looked up again in the host.
    pub(crate) fn listening_too(&self, more: &[Listening]) -> Result<Option<Program>, SpawnError> {
        let Some(recipe) = self.0.recipe.as_deref().filter(|_| !more.is_empty()) else {
            return Ok(None);
        };
        let lowered = Program::lower(recipe.clone(), more);
        // The command was compiled before, and the numbers of these descriptors were kept free.
        let failed = |_| self.parent_error(SpawnStep::Descriptor, libc::EINVAL);
        lowered.map(Some).map_err(failed)
    }

    fn lower(recipe: Recipe, more: &[Listening]) -> Result<Program, CommandError> {
        let Recipe {
            command,
            host,
            ids,
            environment,
            is_bound,
            parent_death_signal,
        } = &recipe;
        let (is_bound, parent_death_signal) = (*is_bound, *parent_death_signal);
        let settings = &command.settings;
        let mut lowering = Lowering {
            labels: Vec::new(),
            descriptors: Vec::new(),
            body: Script::default(),
            inheritable: (settings.inheritable | settings.ambient).bits(),
            candidates: 0,
        };
        let zero = lowering.body.text(c"0");
        lowering.label(SpawnStep::Unshare, None);
        lowering.label(SpawnStep::CloseDescriptors, None);
        lowering.value(SpawnStep::Capabilities, "(inheritable)");
        lowering.label(SpawnStep::Cgroup, None);
        lowering.lower_descriptors(command, more)?;
        let pid_namespace = lowering.lower_pid_namespace(&command.namespaces)?;
        lowering.lower_settings(command, ids, host, parent_death_signal)?;
        lowering.lower_image(command, environment.clone(), more)?;
        let compiled = Compiled {
            name: command.program.clone(),
            labels: lowering.labels,
            descriptors: lowering.descriptors,
            script: Arc::new(lowering.body),
            changes_ids: ids.any(),
            waits_for_exec: settings.oom_score_adj.is_some(),
            is_bound,
            may_gain_privileges: command.no_new_privileges == Some(false),
            pid_namespace,
            cgroup: settings.cgroup.as_ref().map(|cgroup| Arc::clone(&cgroup.0)),
            inheritable: lowering.inheritable,
            zero,
            candidates: lowering.candidates,
            // A program with more descriptors is for one spawn.
            recipe: (settings.most_stored > 0 && more.is_empty()).then(|| Arc::new(recipe)),
        };
        Ok(Program(Arc::new(compiled)))
    }

    /// The program as the command names it.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.0.name
    }

    /// The same program with more entries in its environment. The program must have none with the same keys.
    pub(crate) fn with_environment(&self, more: &[CString]) -> Program {
        let script = Script::with_environment(&self.0.script, more);
        Program(Arc::new(Compiled {
            script: Arc::new(script),
            ..Compiled::clone(&self.0)
        }))
    }

    /// Whether a spawn makes a pipe to the child.
    pub(crate) fn has_pipes(&self) -> bool {
        let is_pipe = |descriptor: &Descriptor| matches!(descriptor.source, Source::Pipe(_));
        self.0.descriptors.iter().any(is_pipe)
    }

    /// The error of a failure in the parent.
    pub(crate) fn parent_error(&self, step: SpawnStep, errno: i32) -> SpawnError {
        self.0.parent_error(step, errno, None)
    }

    /// The value of this environment key in the child, where it is text.
    #[cfg(test)]
    pub(crate) fn env_value(&self, key: &str) -> Option<String> {
        let mut texts = self.0.script.texts().filter_map(|text| String::from_utf8(text).ok());
        texts.find_map(|text| Some(text.strip_prefix(key)?.strip_prefix('=')?.to_owned()))
    }
}

impl Compiled {
    /// The cgroup that the command names.
    pub(super) fn cgroup(&self) -> Option<BorrowedFd<'_>> {
        self.cgroup.as_ref().map(|directory| directory.as_fd())
    }

    /// The error that a failed step amounts to.
    pub(super) fn error(&self, label: usize, errno: i32) -> SpawnError {
        let (step, subject) = match self.labels.get(label) {
            Some(label) => (label.step, label.subject.clone()),
            None => (SpawnStep::Clone, None),
        };
        SpawnError::new(self.name.clone(), step, errno, subject)
    }

    /// The error of a failed step of the child, with the child's findings about a failed execve.
    pub(super) fn failed(&self, label: usize, errno: i32, inquiry: Option<(bool, Option<Vec<u8>>)>) -> SpawnError {
        let error = self.error(label, errno);
        let (found, interpreter) = inquiry.unwrap_or_default();
        let is_absence = matches!(errno, libc::ENOENT | libc::ENOTDIR);
        let subject = match (error.step(), error.path(), interpreter) {
            (SpawnStep::Exec, Some(program), Some(interpreter)) => {
                let interpreter = PathBuf::from(OsString::from_vec(interpreter));
                Subject::Interpreted(program.to_owned(), Some(interpreter))
            }
            (SpawnStep::Exec, Some(program), None) if found && is_absence => {
                Subject::Interpreted(program.to_owned(), None)
            }
            (SpawnStep::Exec, _, None) if self.candidates > 1 && is_absence => {
                Subject::Nowhere(PathBuf::from(&self.name))
            }
            _ => return error,
        };
        SpawnError::new(self.name.clone(), SpawnStep::Exec, errno, Some(subject))
    }

    /// The error of a failure in the parent, with its object.
    pub(super) fn parent_error(&self, step: SpawnStep, errno: i32, subject: Option<Subject>) -> SpawnError {
        SpawnError::new(self.name.clone(), step, errno, subject)
    }

    /// The highest descriptor number that the child gets.
    pub(super) fn last_target(&self) -> RawFd {
        let targets = self.descriptors.iter().map(|descriptor| descriptor.target);
        targets.max().unwrap_or(2)
    }

    /// Whether a descriptor other than `own` is placed at number `fd`.
    pub(super) fn overwrites(&self, fd: RawFd, own: RawFd) -> bool {
        let is_put = |descriptor: &Descriptor| match &descriptor.source {
            Source::Inherit => false,
            // The descriptor is already at its number.
            Source::Given(given) => given.as_raw_fd() != fd,
            Source::Null | Source::OfHost(_) | Source::Pipe(_) | Source::File { .. } | Source::Stream(_) => true,
        };
        fd != own
            && self
                .descriptors
                .iter()
                .any(|descriptor| descriptor.target == fd && is_put(descriptor))
    }

    /// The most steps that a prelude of this program can have.
    pub(super) fn prelude_steps(&self) -> usize {
        self.descriptors.len() * STEPS_EACH + STEPS_ALL
    }

    /// Steps that make the inheritable set of the child what it is to be, and its ambient set empty, if they differ.
    /// The child begins with the sets of the thread that spawns it, which may have changed since the last spawn. If
    /// they cannot be read, nothing is started: the child might inherit a capability that the command does not name.
    pub(super) fn clean_capabilities(&self, prelude: &mut Prelude) -> Result<(), SpawnError> {
        let current = CapabilitySets::current().map_err(|errno| self.error(INHERITABLE, errno))?;
        if current.inheritable != 0 {
            prelude.clear_ambient(INHERITABLE);
        }
        if current.inheritable != self.inheritable {
            let sets = CapabilitySets {
                inheritable: self.inheritable,
                ..current
            };
            prelude.set_capabilities(INHERITABLE, sets);
        }
        Ok(())
    }
}

impl Lowering {
    /// The lowest number that is free in the child: that of no descriptor that it gets. A number above the last one
    /// might be beyond the limit (RLIMIT_NOFILE).
    pub(super) fn first_gap(&self) -> RawFd {
        let targets = || self.descriptors.iter().map(|descriptor| descriptor.target);
        // Targets are sorted, each occurs once, and the standard streams are always among them.
        let taken = (0..).zip(targets()).take_while(|(number, target)| number == target);
        RawFd::try_from(taken.count()).unwrap_or(RawFd::MAX)
    }

    pub(super) fn label(&mut self, step: SpawnStep, subject: Option<Subject>) -> usize {
        self.labels.push(Label { step, subject });
        self.labels.len() - 1
    }

    pub(super) fn value(&mut self, step: SpawnStep, value: impl ToString) -> usize {
        self.label(step, Some(Subject::Value(value.to_string())))
    }

    pub(super) fn path(&mut self, step: SpawnStep, path: &Path) -> usize {
        self.label(step, Some(Subject::Path(path.to_owned())))
    }

    fn lower_descriptors(&mut self, command: &Command, more: &[Listening]) -> Result<(), CommandError> {
        let settings = &command.settings;
        let first = FIRST + RawFd::from(settings.listen_fds);
        let kept_free = first..first.saturating_add_unsigned(settings.most_stored);
        let [_, stdout, stderr] = &command.stdio;
        let copies = Copies {
            stdout_is_stderr: stdout.0 == Kind::Stderr,
            stderr_is_stdout: stderr.0 == Kind::Stdout,
        };
        if copies.stdout_is_stderr && copies.stderr_is_stdout {
            return Err(CommandError::StreamCycle);
        }
        for (target, stdio) in (0..).zip(&command.stdio) {
            let index = usize::try_from(target).unwrap_or(EXTRA);
            self.lower_descriptor(target, stdio, copies, index)?;
        }
        let is_piped = |passed: &Passed| matches!(passed.stdio.0, Kind::Piped(_));
        let mut pipes = command.passed.iter().filter(|passed| is_piped(passed)).count();
        for passed in &command.passed {
            let target = passed.target;
            if target < FIRST {
                return Err(CommandError::Target { target });
            }
            if kept_free.contains(&target) {
                return Err(CommandError::StoreTarget { target });
            }
            if self.descriptors.iter().any(|descriptor| descriptor.target == target) {
                return Err(CommandError::DuplicateTarget { target });
            }
            pipes -= usize::from(is_piped(passed));
            self.lower_descriptor(target, &passed.stdio, copies, EXTRA + pipes)?;
        }
        for (target, Listening { fd, .. }) in (first..).zip(more) {
            let label = self.value(SpawnStep::Descriptor, target);
            let source = Source::Given(Arc::clone(fd));
            self.descriptors.push(Descriptor { target, source, label });
        }
        self.descriptors.sort_by_key(|descriptor| descriptor.target);
        Ok(())
    }

    /// `index` is that of the pipe, if the descriptor is one.
    fn lower_descriptor(
        &mut self,
        target: RawFd,
        stdio: &Stdio,
        copies: Copies,
        index: usize,
    ) -> Result<(), CommandError> {
        let (source, label) = match &stdio.0 {
            Kind::File(file) => {
                let subject = Subject::File(file.path.clone(), target);
                (self.lower_file(file)?, self.label(SpawnStep::Open, Some(subject)))
            }
            Kind::Piped(pipe) if pipe.to_child && matches!(target, 1 | 2) => {
                return Err(CommandError::PipeDirection { target });
            }
            other => {
                let source = match other {
                    Kind::Null => Source::Null,
                    Kind::Piped(pipe) => Source::Pipe(PipeEnd {
                        index,
                        is_read: pipe.to_child || target == 0,
                        nonblocking: pipe.nonblocking,
                    }),
                    Kind::Stdout if target != 1 => Source::Stream(if copies.stdout_is_stderr { 2 } else { 1 }),
                    Kind::Stderr if target != 2 => Source::Stream(if copies.stderr_is_stdout { 1 } else { 2 }),
                    Kind::OfHost(number) if *number != target => Source::OfHost(*number),
                    Kind::Given(fd) => Source::Given(Arc::clone(&fd.0)),
                    Kind::Inherit | Kind::Unset | Kind::Stdout | Kind::Stderr | Kind::OfHost(_) | Kind::File(_) => {
                        Source::Inherit
                    }
                };
                (source, self.value(SpawnStep::Descriptor, target))
            }
        };
        self.descriptors.push(Descriptor { target, source, label });
        Ok(())
    }

    fn lower_file(&mut self, file: &OpenFile) -> Result<Source, CommandError> {
        if file.mode > 0o7777 {
            return Err(CommandError::FileMode { mode: file.mode });
        }
        let path = self.body.text(&c_string("a file's path", file.path.as_os_str())?);
        Ok(Source::File {
            path,
            flags: file.flags(),
            mode: file.mode,
        })
    }

    fn lower_image(
        &mut self,
        command: &Command,
        mut environment: BTreeMap<OsString, OsString>,
        more: &[Listening],
    ) -> Result<(), CommandError> {
        if command.program.is_empty() {
            return Err(CommandError::EmptyProgram);
        }
        c_string("the program's name", &command.program)?;
        let first = command.arg0.as_ref().unwrap_or(&command.program);
        let argv = std::iter::once(first)
            .chain(&command.args)
            .map(|arg| c_string("an argument", arg));
        let argv = argv.collect::<Result<Vec<_>, _>>()?;
        let listens = usize::from(command.settings.listen_fds) + more.len();
        if let Some(names) = names(&command.settings, more)? {
            environment.insert("LISTEN_FDNAMES".into(), names.into());
        }
        if listens > 0 {
            environment.insert("LISTEN_FDS".into(), listens.to_string().into());
            environment.remove(OsStr::new("LISTEN_PID"));
        }
        let env = environment
            .iter()
            .map(|(key, value)| env_entry(key, value))
            .collect::<Result<Vec<_>, _>>()?;
        let path = environment.get(OsStr::new("PATH")).map(OsString::as_os_str);
        let mut candidates = Vec::new();
        for path in candidates_for(&command.program, path) {
            let text = c_string("the program's name", path.as_os_str())?;
            candidates.push((self.path(SpawnStep::Exec, &path), text));
        }
        self.candidates = candidates.len();
        let label = self.label(SpawnStep::SignalMask, None);
        let image = Image {
            candidates: &candidates,
            argv: &argv,
            env: &env,
            pid_key: (listens > 0).then_some(c"LISTEN_PID="),
        };
        self.body
            .execute(label, command.signal_mask, command.ignored_signals, &image);
        Ok(())
    }
}

/// Which standard stream is a copy of another one. A copy of a copy is one of the original, so the order of the copies
/// does not matter.
#[derive(Clone, Copy)]
struct Copies {
    stdout_is_stderr: bool,
    stderr_is_stdout: bool,
}

/// The value of `LISTEN_FDNAMES`; `None` if no descriptor has a name.
fn names(settings: &Settings, more: &[Listening]) -> Result<Option<String>, CommandError> {
    let own = settings.listen_names.iter().map(Option::as_deref);
    if let Some(name) = own.clone().flatten().find(|name| !is_descriptor_name(name)) {
        return Err(CommandError::DescriptorName { name: name.to_owned() });
    }
    let all = own.chain(more.iter().map(|more| Some(&*more.name)));
    let is_named = all.clone().any(|name| name.is_some());
    let all: Vec<_> = all.map(|name| name.unwrap_or(NAMELESS)).collect();
    Ok(is_named.then(|| all.join(":")))
}

/// The paths for execve: the program itself if it contains a slash, otherwise the program in each directory of `path`.
/// An empty directory is the working directory.
fn candidates_for(program: &OsStr, path: Option<&OsStr>) -> Vec<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return vec![PathBuf::from(program)];
    }
    let path = path.unwrap_or(OsStr::new("/bin:/usr/bin")).as_bytes();
    path.split(|&byte| byte == b':')
        .map(|directory| Path::new(OsStr::from_bytes(directory)).join(program))
        .collect()
}

/// Builds the child's environment and checks its keys.
fn environment(command: &Command, login: Option<&Login>) -> Result<BTreeMap<OsString, OsString>, CommandError> {
    for key in command.env.keys() {
        if key.is_empty() || key.as_bytes().contains(&b'=') {
            return Err(CommandError::EnvKey { key: key.to_owned() });
        }
        c_string("an environment key", key)?;
    }
    let mut implied = Vec::new();
    if let Some(login) = login {
        implied.push(("USER", Some(login.name.clone())));
        implied.push(("LOGNAME", Some(login.name.clone())));
        implied.push(("HOME", Some(login.home.clone())));
        implied.push(("SHELL", Some(login.shell.clone())));
    }
    if command.current_dir.is_some() || command.chroot.is_some() {
        implied.push(("PWD", working_directory(command)));
    }
    Ok(command.env.resolve(std::env::vars_os(), &implied))
}

/// The absolute path of the child's working directory, for `PWD` (environ(7)): without `.` and `..`. `None` if the
/// command does not determine it.
fn working_directory(command: &Command) -> Option<OsString> {
    let directory = command.current_dir.as_deref().unwrap_or(Path::new("/"));
    let mut components = directory.as_os_str().as_bytes().split(|&byte| byte == b'/');
    if components.any(|component| component == b"." || component == b"..") {
        return None;
    }
    match &command.chroot {
        // The path begins at the new root.
        Some(_) => Some(Path::new("/").join(directory).into_os_string()),
        None => directory.is_absolute().then(|| directory.as_os_str().to_owned()),
    }
}

fn env_entry(key: &OsStr, value: &OsStr) -> Result<CString, CommandError> {
    let mut entry = key.to_owned();
    entry.push("=");
    entry.push(value);
    c_string("an environment variable", &entry)
}

pub(super) fn c_string(what: &'static str, text: &OsStr) -> Result<CString, CommandError> {
    CString::new(text.as_bytes()).map_err(|error| CommandError::NulByte {
        what,
        text: OsString::from_vec(error.into_vec()),
    })
}
