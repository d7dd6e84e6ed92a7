//! The state of a supervisor for another program, and what that program receives.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{env, fmt, process};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;

use super::calls::Supervisor;
use super::format::{self, StateError};
use crate::codec::{Reader, Stored};
use crate::engine::image::Image;
use crate::errno::Reason;
use crate::linux::image::LinuxImage;
use crate::linux::inherited::Descriptors;
use crate::owner::OtherProcess;
use crate::sys::descriptors::above_standard;
use crate::sys::exec::{exec, set_close_on_exec, set_close_on_exec_of_all, take_inherited};
use crate::sys::process::soft_limit;

/// The environment variable that names the descriptor of a handed-over state: the PID of the process, a colon, and the
/// number. Commands do not inherit it.
pub(crate) const VARIABLE: &str = "PIDHERD_HAND_OVER";

/// The seals of the memory file with the state. Only the library makes such a file.
const SEALS: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// Why a program did not take the place of this one. The supervisor goes on as if nothing had happened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandOverError {
    /// A path or an argument contains a NUL byte.
    #[error("cannot hand over to {0:?}: a path or an argument contains a NUL byte")]
    Nul(PathBuf),
    /// The state could not be stored, or its descriptors could not be kept open: ENOMEM, EMFILE, ENFILE, EFBIG if it is
    /// larger than files may be (RLIMIT_FSIZE).
    #[error("cannot hand over to {program:?}: the state cannot be stored: {}", Reason(.source))]
    Store {
        /// The other program.
        program: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The other program cannot be executed, for a reason of execve(2): ENOENT, EACCES, ENOEXEC, E2BIG and others.
    #[error("cannot hand over to {program:?}: execve: {}", Reason(.source))]
    Exec {
        /// The other program.
        program: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The supervisor belongs to another process.
    #[error(transparent)]
    OtherProcess(#[from] OtherProcess),
}

/// Why a handed-over state was not received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The environment variable has no meaning, or its descriptor is not that of a state.
    #[error("{VARIABLE} does not name a handed-over state")]
    NoState,
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// A descriptor of the state is not open.
    #[error("descriptor {0} of the handed-over state is not open")]
    Descriptor(RawFd),
    /// Reading the state failed.
    #[error("the handed-over state cannot be read: {}", Reason(.0))]
    Io(#[from] io::Error),
}

/// The state of a supervisor, and its descriptors, from the program that ran in this process before.
///
/// Dropping it closes the descriptors. The processes live on without a supervisor, as children of this process; those
/// with [`Lifetime::Bound`](crate::Lifetime::Bound) end.
///
/// ```
/// use pidherd::supervisor::HandOver;
///
/// // No program has run in this process before.
/// assert!(HandOver::receive()?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct HandOver {
    /// It was found to be whole. The engine's part begins at `engine_at`, and is decoded when it is taken over.
    state: Vec<u8>,
    engine_at: usize,
    pub(super) linux: Box<LinuxImage>,
    pub(super) descriptors: Box<Descriptors>,
}

impl HandOver {
    /// Receives what [`Supervisor::hand_over`] left for this program; `None` if it left nothing. Call it once, early,
    /// and before other code could take the descriptors for its own.
    ///
    /// ```
    /// # use pidherd::supervisor::{HandOver, Supervisor};
    /// // At the beginning of main.
    /// let mut supervisor = match HandOver::receive()? {
    ///     // The version before this one has left its state; see Builder::take_over.
    ///     Some(state) => return Err(format!("{state:?}").into()),
    ///     None => Supervisor::new()?,
    /// };
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A [`ReceiveError`]. Nothing is closed then, and no process is touched.
    pub fn receive() -> Result<Option<HandOver>, ReceiveError> {
        let Some(number) = env::var_os(VARIABLE) else {
            return Ok(None);
        };
        let (pid, number) = parse(&number).ok_or(ReceiveError::NoState)?;
        // A child of the other program may have inherited the variable.
        if pid != process::id() {
            return Ok(None);
        }
        let Some(fd) = take_inherited(number) else {
            return Ok(None);
        };
        let received = HandOver::read(&fd);
        if received.is_err() {
            leave_open(fd);
        }
        received.map(Some)
    }

    /// Reads the state in a memory file, and takes its descriptors.
    fn read(fd: &OwnedFd) -> Result<HandOver, ReceiveError> {
        // With the sysctl vm.memfd_noexec, the kernel adds a seal of its own.
        if !fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SEALS)) {
            return Err(ReceiveError::NoState);
        }
        let mut file = File::from(fd.try_clone()?);
        let mut state = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut state)?;
        let mut reader = format::read(format::HAND_OVER, &state, 0)?;
        let linux = LinuxImage::get(&mut reader).map_err(StateError::from)?;
        let engine_at = state.len() - reader.left();
        let numbers = linux.descriptors();
        let descriptors = Descriptors::receive(numbers).map_err(ReceiveError::Descriptor)?;
        Ok(HandOver {
            state,
            engine_at,
            linux: Box::new(linux),
            descriptors: Box::new(descriptors),
        })
    }

    /// Decodes the engine's part of the state.
    pub(super) fn image(&self, home: u32) -> Result<Image, StateError> {
        let bytes = self.state.get(self.engine_at..).unwrap_or_default();
        let mut reader = Reader::new(bytes, home);
        let image = Image::get(&mut reader)?;
        reader.end()?;
        Ok(image)
    }
}

impl fmt::Debug for HandOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandOver")
            .field("descriptors", &self.descriptors.len())
            .finish_non_exhaustive()
    }
}

fn parse(text: &OsStr) -> Option<(u32, RawFd)> {
    let (pid, number) = text.to_str()?.split_once(':')?;
    Some((
        pid.parse().ok()?,
        number.parse().ok().filter(|&number: &RawFd| number >= 0)?,
    ))
}

/// An empty memory file, which is never executed. A system may require that to be said (vm.memfd_noexec). Linux before
/// 6.3 does not know the flag.
fn new_file() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create("pidherd", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => Ok(memfd_create("pidherd", flags)?),
        created => Ok(created?),
    }
}

/// Leaves a descriptor open for the next program, as it was.
fn leave_open(fd: OwnedFd) {
    use std::os::fd::IntoRawFd;
    // The number stays open, as it was before this program looked at it.
    let _for_the_next = set_close_on_exec(fd.into_raw_fd(), false);
}

impl Supervisor {
    /// Replaces the host by another program, which goes on with this supervisor. Returns only if that fails.
    ///
    /// `program` is a path, as for execve(2); it is not searched for in `PATH`. It gets its own path as the first
    /// argument, then `arguments`, and the environment of the host. All descriptors of the supervisor stay open in it.
    ///
    /// All other threads end. The signal mask stays as it is in the calling thread, and so do pending signals: a host
    /// that reads signals from a [`SignalFd`](crate::SignalFd) loses none if the other program makes its own with the
    /// same signals. What else is the host's own is not handed over: pipes that it has taken, children that it started
    /// without the supervisor, and descriptors that are close-on-exec.
    ///
    /// It takes as long as execve(2) and some microseconds for each instance. It does not wait for spawns in flight:
    /// the other program learns what became of them. The errno of one that fails after the hand-over is known, and its
    /// step is reported as [`SpawnStep::Exec`](crate::SpawnStep::Exec).
    ///
    /// A child with [`Lifetime::BoundOrSignal`](crate::Lifetime::BoundOrSignal) that the kernel could not bind gets its
    /// parent-death signal if another thread than the calling one has spawned it, because that thread ends.
    ///
    /// The set's epoll stays open with its registrations, so the other program does not register each process again. It
    /// has the same number there.
    ///
    /// While it runs, a process that another thread starts can inherit the supervisor's descriptors.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// # let mut supervisor = Supervisor::new()?;
    /// # let spec = GroupSpec::new("web", Command::new("sleep").arg("1000")).instances(2);
    /// # let group = supervisor.add(spec)?;
    /// supervisor.start(group)?;
    /// // A new version that cannot be executed: the host goes on.
    /// let error = supervisor.hand_over("/no/such/program", ["--resume"]);
    /// println!("{error}");
    /// assert_eq!(supervisor.start(group)?.already, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hand_over<A: AsRef<OsStr>>(
        &mut self,
        program: impl AsRef<Path>,
        arguments: impl IntoIterator<Item = A>,
    ) -> HandOverError {
        let program = program.as_ref();
        match self.try_hand_over(
            program,
            arguments.into_iter().map(|argument| argument.as_ref().to_owned()),
        ) {
            Ok(source) => HandOverError::Exec {
                program: program.to_owned(),
                source,
            },
            Err(error) => error,
        }
    }

    /// Returns the reason why execve failed.
    fn try_hand_over(
        &mut self,
        program: &Path,
        arguments: impl Iterator<Item = OsString>,
    ) -> Result<io::Error, HandOverError> {
        self.driver.kernel.owner.check()?;
        let nul = |_| HandOverError::Nul(program.to_owned());
        let text = |text: &OsStr| CString::new(text.as_bytes()).map_err(nul);
        let path = text(program.as_os_str())?;
        let arguments = [Ok(path.clone())]
            .into_iter()
            .chain(arguments.map(|argument| text(&argument)));
        let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        let failed = |source| HandOverError::Store {
            program: program.to_owned(),
            source,
        };
        let (file, numbers) = self.store().map_err(failed)?;
        let others = env::vars_os().filter(|(key, _)| key != VARIABLE);
        let others = others.map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes()].concat());
        let own = format!("{VARIABLE}={}:{}", process::id(), file.as_raw_fd()).into_bytes();
        let environment = others.chain([own]).map(CString::new);
        let environment = environment
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| HandOverError::Nul(program.to_owned()))?;
        let opened = numbers.iter().try_for_each(|&number| set_close_on_exec(number, false));
        let error = opened.map(|()| exec(&path, &arguments, &environment));
        // The descriptors are open, so this cannot fail.
        let _closed_again = set_close_on_exec_of_all(&numbers);
        error.map_err(failed)
    }

    /// Stores the state in a memory file. Returns the numbers of all descriptors that must stay open, the
    /// file's too, sorted.
    fn store(&self) -> io::Result<(OwnedFd, Vec<RawFd>)> {
        let pipes = |slot| {
            let id = self.driver.instances.id_at(slot)?;
            self.driver.instances.get(id)?.pipes()
        };
        let linux = self.driver.kernel.image(pipes);
        let state = format::write(format::HAND_OVER, |to| {
            linux.put(to);
            self.driver.put_image(to);
        });
        // A write beyond the limit would raise SIGXFSZ, which ends the host.
        if soft_limit(libc::RLIMIT_FSIZE as usize)? < state.len() as u64 {
            return Err(Errno::FBIG.into());
        }
        let mut file = File::from(above_standard(new_file()?)?);
        file.write_all(&state)?;
        fcntl_add_seals(&file, SEALS)?;
        let mut numbers = linux.descriptors();
        let own = file.as_raw_fd();
        numbers.insert(numbers.partition_point(|&number| number < own), own);
        Ok((file.into(), numbers))
    }
}
