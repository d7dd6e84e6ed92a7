//! The contenders. Each is set up once for a case, in the way that its documentation recommends for repeated
//! spawns of the same program. Then each of its spawns is timed on its own.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use pidherd::{Command, Program, Spawner};

use super::case::{Case, DIRECTORY, GID, UID, UMASK};
use super::contender::{Contender, Name, give_up, must};
use super::limit::Limit;

/// All contenders that support one case.
pub struct Line {
    pub case: Case,
    pub contenders: Vec<Box<dyn Contender>>,
    /// The contenders that do not support the case, and the reason.
    pub unable: Vec<(Name, String)>,
    random: fastrand::Rng,
}

impl Line {
    pub fn new(case: Case, program: &Path) -> Line {
        let mut line = Line {
            case,
            contenders: Vec::new(),
            unable: Vec::new(),
            random: fastrand::Rng::with_seed(1),
        };
        if case == Case::Ids && !rustix::process::geteuid().is_root() {
            line.unable = Name::ALL
                .map(|name| (name, "changing ids needs root".to_owned()))
                .into();
            return line;
        }
        line.add(Name::This, This::new(case, program));
        line.add(Name::Limit, Limit::new(case, program));
        line.add(Name::Std, Ok(Std::new(case, program)));
        line.add(Name::PosixSpawn, PosixSpawn::new(case, program));
        line.add(Name::Tokio, Tokio::new(case, program));
        line.add(Name::AsyncProcess, Ok(AsyncProcess::new(case, program)));
        line
    }

    fn add(&mut self, name: Name, contender: Result<impl Contender + 'static, String>) {
        match contender {
            Ok(contender) => self.contenders.push(Box::new(contender)),
            Err(reason) => self.unable.push((name, reason)),
        }
    }

    /// Shuffles the contenders, so that no contender always runs after the same other one.
    pub fn shuffle(&mut self) {
        self.random.shuffle(&mut self.contenders);
    }
}

// This library.

struct This {
    spawner: Spawner,
    program: Program,
}

impl This {
    fn new(case: Case, path: &Path) -> Result<This, String> {
        let command = Command::new(path).env_clear();
        let command = match case {
            Case::Plain => command,
            Case::UmaskAndDirectory => command.umask(UMASK).current_dir(DIRECTORY),
            Case::TwoPipes => command.stdin(pidherd::Stdio::piped()).stdout(pidherd::Stdio::piped()),
            Case::Ids => command.uid(UID).gid(GID),
        };
        Ok(This {
            spawner: Spawner::new().map_err(|error| error.to_string())?,
            program: command.compile().map_err(|error| error.to_string())?,
        })
    }
}

impl Contender for This {
    fn name(&self) -> Name {
        Name::This
    }

    fn run(&mut self) {
        let mut child = must(Name::This, self.spawner.spawn(&self.program));
        let record = must(Name::This, child.wait());
        if !record.exit.success() {
            give_up(Name::This, &record.exit.to_string());
        }
    }
}

// The standard library, and the two libraries that are built on it.

/// The hook that runs in the child after fork. umask(2) is async-signal-safe.
fn set_umask() -> io::Result<()> {
    // SAFETY: umask(2) takes a number and cannot fail.
    unsafe { libc::umask(UMASK) };
    Ok(())
}

/// Whether the standard library forks for this case. It does if the command has a hook or other ids.
fn std_forks(case: Case) -> bool {
    matches!(case, Case::UmaskAndDirectory | Case::Ids)
}

/// Makes the same settings on the builders of std and of tokio, which have the same method names.
macro_rules! set_up {
    ($command:expr, $case:expr) => {
        $command.env_clear();
        match $case {
            Case::Plain => {}
            Case::UmaskAndDirectory => {
                $command.current_dir(DIRECTORY);
                // SAFETY: the hook makes one system call, and allocates and locks nothing.
                unsafe { $command.pre_exec(set_umask) };
            }
            Case::TwoPipes => {
                $command.stdin(Stdio::piped()).stdout(Stdio::piped());
            }
            Case::Ids => {
                $command.uid(UID).gid(GID);
            }
        }
    };
}

struct Std {
    case: Case,
    command: std::process::Command,
}

impl Std {
    fn new(case: Case, path: &Path) -> Std {
        let mut command = std::process::Command::new(path);
        set_up!(command, case);
        Std { case, command }
    }
}

impl Contender for Std {
    fn name(&self) -> Name {
        Name::Std
    }

    fn forks(&self) -> bool {
        std_forks(self.case)
    }

    fn run(&mut self) {
        let mut child = must(Name::Std, self.command.spawn());
        check(Name::Std, child.wait());
    }
}

struct Tokio {
    case: Case,
    runtime: tokio::runtime::Runtime,
    command: tokio::process::Command,
}

impl Tokio {
    fn new(case: Case, path: &Path) -> Result<Tokio, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let mut command = tokio::process::Command::new(path);
        set_up!(command, case);
        Ok(Tokio {
            case,
            runtime: runtime.map_err(|error| error.to_string())?,
            command,
        })
    }
}

impl Contender for Tokio {
    fn name(&self) -> Name {
        Name::Tokio
    }

    fn forks(&self) -> bool {
        std_forks(self.case)
    }

    fn run(&mut self) {
        let command = &mut self.command;
        let status = self.runtime.block_on(async {
            let mut child = must(Name::Tokio, command.spawn());
            child.wait().await
        });
        check(Name::Tokio, status);
    }
}

struct AsyncProcess {
    case: Case,
    command: async_process::Command,
}

impl AsyncProcess {
    fn new(case: Case, path: &Path) -> AsyncProcess {
        let mut command = std::process::Command::new(path);
        set_up!(command, case);
        // async-process has no hooks of its own. It takes over the hooks of std's command, but not its
        // streams.
        let mut command = async_process::Command::from(command);
        if case == Case::TwoPipes {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        }
        AsyncProcess { case, command }
    }
}

impl Contender for AsyncProcess {
    fn name(&self) -> Name {
        Name::AsyncProcess
    }

    fn forks(&self) -> bool {
        std_forks(self.case)
    }

    fn run(&mut self) {
        let mut child = must(Name::AsyncProcess, self.command.spawn());
        check(Name::AsyncProcess, async_io::block_on(child.status()));
    }
}

fn check(name: Name, status: io::Result<std::process::ExitStatus>) {
    let status = must(name, status);
    if !status.success() {
        give_up(name, &status.to_string());
    }
}

// posix_spawn(3), with default signal dispositions and an empty signal mask in the child.

struct PosixSpawn {
    case: Case,
    path: CString,
    attributes: libc::posix_spawnattr_t,
}

impl PosixSpawn {
    fn new(case: Case, path: &Path) -> Result<PosixSpawn, String> {
        match case {
            Case::Plain | Case::TwoPipes => {}
            Case::UmaskAndDirectory => return Err("it cannot set a umask".to_owned()),
            Case::Ids => return Err("it cannot change ids".to_owned()),
        }
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
        let mut attributes = MaybeUninit::uninit();
        let mut set = MaybeUninit::uninit();
        let flags = libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK;
        // SAFETY: each call either initializes the object behind its first argument, or works on an
        // initialized object. None of the calls can fail with these arguments.
        let attributes = unsafe {
            libc::posix_spawnattr_init(attributes.as_mut_ptr());
            let mut attributes = attributes.assume_init();
            libc::sigemptyset(set.as_mut_ptr());
            libc::posix_spawnattr_setsigmask(&mut attributes, set.as_ptr());
            libc::sigfillset(set.as_mut_ptr());
            libc::posix_spawnattr_setsigdefault(&mut attributes, set.as_ptr());
            libc::posix_spawnattr_setflags(&mut attributes, flags as libc::c_short);
            attributes
        };
        Ok(PosixSpawn { case, path, attributes })
    }

    fn spawn(&self, actions: *const libc::posix_spawn_file_actions_t) -> libc::pid_t {
        let argv = [self.path.as_ptr().cast_mut(), std::ptr::null_mut()];
        let env = [std::ptr::null_mut()];
        let mut pid = 0;
        // SAFETY: the strings end with a NUL and the tables with a null pointer. Attributes and actions are
        // initialized.
        let error = unsafe {
            libc::posix_spawn(
                &mut pid,
                self.path.as_ptr(),
                actions,
                &self.attributes,
                argv.as_ptr(),
                env.as_ptr(),
            )
        };
        if error != 0 {
            give_up(Name::PosixSpawn, &io::Error::from_raw_os_error(error).to_string());
        }
        pid
    }

    /// Spawns with a pipe as standard input and another as standard output, and returns the parent's ends.
    fn spawn_with_pipes(&self) -> (libc::pid_t, [std::os::fd::OwnedFd; 2]) {
        use rustix::pipe::{PipeFlags, pipe_with};
        use std::os::fd::AsRawFd;
        let (input, parent_input) = must(Name::PosixSpawn, pipe_with(PipeFlags::CLOEXEC));
        let (parent_output, output) = must(Name::PosixSpawn, pipe_with(PipeFlags::CLOEXEC));
        let mut actions = MaybeUninit::uninit();
        // SAFETY: the actions are initialized first and destroyed last.
        let pid = unsafe {
            libc::posix_spawn_file_actions_init(actions.as_mut_ptr());
            libc::posix_spawn_file_actions_adddup2(actions.as_mut_ptr(), input.as_raw_fd(), 0);
            libc::posix_spawn_file_actions_adddup2(actions.as_mut_ptr(), output.as_raw_fd(), 1);
            let pid = self.spawn(actions.as_ptr());
            libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr());
            pid
        };
        (pid, [parent_input, parent_output])
    }
}

impl Contender for PosixSpawn {
    fn name(&self) -> Name {
        Name::PosixSpawn
    }

    fn run(&mut self) {
        let (pid, pipes) = match self.case {
            Case::TwoPipes => {
                let (pid, pipes) = self.spawn_with_pipes();
                (pid, Some(pipes))
            }
            Case::Plain | Case::UmaskAndDirectory | Case::Ids => (self.spawn(std::ptr::null()), None),
        };
        let mut status = 0;
        // SAFETY: the call waits for the child made above, and writes its status to a local variable.
        let reaped = unsafe { libc::waitpid(pid, &mut status, 0) };
        if reaped != pid || status != 0 {
            give_up(Name::PosixSpawn, &format!("waitpid: {reaped}, status {status}"));
        }
        drop(pipes);
    }
}
