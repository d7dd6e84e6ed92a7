//! Applies the settings of `[supervisord]` to the taskmaster's own process.
//!
//! The order is supervisord's: the user, the limit of processes, the old logs, the directory, the umask, and the pid
//! file. All settings are applied before the first program starts, and the programs inherit them. The module `limits`
//! sets the limit of open files. A taskmaster that takes the place of another one applies nothing again.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use pidherd::cgroup::CgroupDir;
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, chdir, getrlimit, getuid, setrlimit, umask};

use crate::config::{Config, Supervisord, User, World};
use crate::files::reason;
use crate::limits::OpenFiles;

/// The pid file. It is removed on drop.
#[derive(Debug)]
pub struct PidFile(Option<PathBuf>);

/// Applies the settings once. The notes mention settings that failed but are not essential.
///
/// # Errors
/// One line: an essential setting cannot be applied.
pub fn take_on(config: &Config, notes: &mut Vec<String>) -> Result<PidFile, String> {
    let own = &config.supervisord;
    if let Some(user) = own.user.as_ref().filter(|user| user.uid != getuid().as_raw()) {
        become_user(user)?;
        check_cgroups(config)?;
    }
    if let Some(least) = own.minprocs {
        raise(Resource::Nproc, least).map_err(|error| format!("[supervisord] minprocs={least}: {error}"))?;
    }
    let programs = config.groups.iter().flat_map(|group| &group.programs);
    if (own.automatic.by_default || programs.into_iter().any(|program| program.has_automatic_logs()))
        && !own.automatic.nocleanup
    {
        notes.extend(own.automatic.clean());
    }
    if let Some(directory) = &own.directory {
        let shown = directory.display();
        chdir(directory)
            .map_err(|error| format!("[supervisord] directory: cannot enter {shown}: {}", reason(error)))?;
    }
    if let Some(mask) = own.umask {
        umask(Mode::from_raw_mode(mask));
    }
    Ok(PidFile::write(own, notes))
}

/// Executes the taskmaster again in the same process, in the state in which it was started. Returns only if that fails,
/// with the reason.
pub fn begin_anew(program: Option<&Path>, arguments: &[OsString], open_files: Option<OpenFiles>) -> String {
    let Some(program) = program else {
        return "the path of the taskmaster's program is not known".to_owned();
    };
    if let Err(error) = chdir(World::started_in()) {
        return format!("cannot enter {}: {}", World::started_in().display(), reason(error));
    }
    if let Some(limit) = open_files {
        let _restored = setrlimit(Resource::Nofile, limit.into());
    }
    // SAFETY: zeros are a valid value of this set, and the call fills it.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointers are valid for the calls. The mask is that of the only thread.
    unsafe {
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
    let error = std::process::Command::new(program).args(arguments).exec();
    format!("cannot execute {}: {}", program.display(), reason(error))
}

/// Changes all ids and groups for good.
fn become_user(user: &User) -> Result<(), String> {
    let failed = |what: &str, why: &str| format!("[supervisord] user: cannot {what} {}: {why}", user.name);
    if !getuid().is_root() {
        return Err(failed("become", "only root can become another user"));
    }
    // SAFETY: setgroups(2) reads as many numbers as the list has.
    let set = unsafe { libc::setgroups(user.groups.len(), user.groups.as_ptr()) };
    checked(set).map_err(|error| failed("set the groups of", &reason(error)))?;
    // SAFETY: setgid(2) takes a number.
    checked(unsafe { libc::setgid(user.gid) }).map_err(|error| failed("set the group of", &reason(error)))?;
    // SAFETY: setuid(2) takes a number.
    checked(unsafe { libc::setuid(user.uid) }).map_err(|error| failed("become", &reason(error)))
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Checks the cgroup directories as the new user, because they were opened as root.
fn check_cgroups(config: &Config) -> Result<(), String> {
    let programs = config.groups.iter().flat_map(|group| &group.programs);
    for program in programs {
        if let Some(directory) = &program.beyond.cgroup {
            let opened = CgroupDir::open(directory.path());
            opened.map_err(|error| format!("[program:{}] cgroup: {error}", program.name))?;
        }
    }
    Ok(())
}

/// Raises the soft limit to `least`, and also the hard limit if it is lower. A limit that is high enough stays
/// unchanged.
fn raise(resource: Resource, least: u64) -> Result<(), String> {
    let now = getrlimit(resource);
    let is_below = |limit: Option<u64>| limit.is_some_and(|limit| limit < least);
    if !is_below(now.current) {
        return Ok(());
    }
    let raised = Rlimit {
        current: Some(least),
        maximum: if is_below(now.maximum) {
            Some(least)
        } else {
            now.maximum
        },
    };
    setrlimit(resource, raised).map_err(|error| format!("cannot raise the limit: {}", reason(error)))
}

impl PidFile {
    /// Whether this process has written the file.
    pub fn is_written(&self) -> bool {
        self.0.is_some()
    }

    /// The file that the program before this one in the same process has written.
    pub fn take_over(own: &Supervisord, is_written: bool) -> PidFile {
        PidFile(own.pidfile.clone().filter(|_| is_written))
    }

    /// Writes the pid file. As in supervisord, a failure is not an error.
    fn write(own: &Supervisord, notes: &mut Vec<String>) -> PidFile {
        let Some(path) = &own.pidfile else {
            return PidFile(None);
        };
        match fs::write(path, format!("{}\n", std::process::id())) {
            Ok(()) => PidFile(Some(path.clone())),
            Err(error) => {
                notes.push(format!(
                    "[supervisord] pidfile: cannot write {}: {error}",
                    path.display()
                ));
                PidFile(None)
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}
