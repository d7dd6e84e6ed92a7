//! The system calls that the child makes in each case.

use std::ffi::{CString, c_long};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::case::{Case, DIRECTORY, GID, UID, UMASK};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Step {
    pub nr: usize,
    pub args: [usize; 5],
    pub may_fail: bool,
}

/// A list of system calls and the memory that their arguments point to.
pub struct Steps {
    list: Vec<Step>,
    held: Box<Held>,
}

/// The memory behind the arguments. It is boxed, so that its address stays the same.
struct Held {
    path: CString,
    directory: CString,
    argv: [usize; 2],
    env: [usize; 1],
    groups: [u32; 1],
    default: [usize; 4],
    ignore: [usize; 4],
    mask: u64,
    header: [u32; 2],
    no_capabilities: [u32; 6],
    own_capabilities: [u32; 6],
}

/// The indexes of the steps that copy the pipes' ends to standard input and standard output.
pub const INPUT: usize = 1;
pub const OUTPUT: usize = 2;

impl Steps {
    pub fn new(case: Case, path: &Path) -> Result<Steps, String> {
        let c_string = |bytes: &[u8]| CString::new(bytes).map_err(|error| error.to_string());
        let mut held = Box::new(Held {
            path: c_string(path.as_os_str().as_bytes())?,
            directory: c_string(DIRECTORY.as_bytes())?,
            argv: [0; 2],
            env: [0],
            groups: [GID],
            default: [0; 4],
            ignore: [libc::SIG_IGN, 0, 0, 0],
            mask: 0,
            header: [0x2008_0522, 0],
            no_capabilities: [0; 6],
            own_capabilities: [0; 6],
        });
        held.argv[0] = held.path.as_ptr() as usize;
        let mut steps = Steps { list: Vec::new(), held };
        steps.descriptors(case);
        match case {
            Case::Plain | Case::TwoPipes => {}
            Case::UmaskAndDirectory => {
                steps.add(libc::SYS_umask, &[UMASK as usize]);
                let directory = steps.held.directory.as_ptr() as usize;
                steps.add(libc::SYS_chdir, &[directory]);
            }
            Case::Ids => steps.ids(),
        }
        steps.signals_and_program();
        Ok(steps)
    }

    pub fn list(&self) -> &[Step] {
        &self.list
    }

    /// Sets the descriptor that a step copies.
    pub fn set_source(&mut self, step: usize, fd: usize) {
        self.list[step].args[0] = fd;
    }

    /// The arguments of the capget(2) with which the parent reads its own capabilities.
    pub fn capget(&mut self) -> [usize; 5] {
        let Held {
            header,
            own_capabilities,
            ..
        } = &mut *self.held;
        [
            (&raw mut *header) as usize,
            (&raw mut *own_capabilities) as usize,
            0,
            0,
            0,
        ]
    }

    /// Gives the child a small descriptor table of its own, copies the pipes' ends to their places, and
    /// closes all other descriptors.
    fn descriptors(&mut self, case: Case) {
        let unshare = libc::CLOSE_RANGE_UNSHARE as usize;
        let last = u32::MAX as usize;
        self.add(libc::SYS_close_range, &[64, last, unshare]);
        if case == Case::TwoPipes {
            self.add(libc::SYS_dup3, &[0, 0]);
            self.add(libc::SYS_dup3, &[0, 1]);
        }
        self.add(libc::SYS_close_range, &[3, last]);
    }

    /// Leaves the host's session and terminal, changes the user and the groups and reads them back, drops all
    /// capabilities, tries to become root again (which the kernel must refuse), and forbids new privileges.
    fn ids(&mut self) {
        let (uid, gid) = (UID as usize, GID as usize);
        let groups = self.held.groups.as_ptr() as usize;
        let header = self.held.header.as_ptr() as usize;
        let none = self.held.no_capabilities.as_ptr() as usize;
        self.add(libc::SYS_setsid, &[]);
        self.add(libc::SYS_setgroups, &[1, groups]);
        self.add(libc::SYS_getgroups, &[]);
        self.add(libc::SYS_setresgid, &[gid; 3]);
        self.add(libc::SYS_getgid, &[]);
        self.add(libc::SYS_getegid, &[]);
        self.add(libc::SYS_setresuid, &[uid; 3]);
        self.add(libc::SYS_getuid, &[]);
        self.add(libc::SYS_geteuid, &[]);
        self.add(libc::SYS_capset, &[header, none]);
        let keep = u32::MAX as usize;
        self.add(libc::SYS_setresuid, &[keep, 0, keep]);
        if let Some(step) = self.list.last_mut() {
            step.may_fail = true;
        }
        self.add(libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS as usize, 1]);
    }

    /// Resets every signal to its default one by one, because CLONE_CLEAR_SIGHAND leaves ignored signals
    /// ignored. The stop signals stay ignored until the mask is empty: a stop signal that arrived since the
    /// clone must not stop the child.
    fn signals_and_program(&mut self) {
        let default = self.held.default.as_ptr() as usize;
        let ignore = self.held.ignore.as_ptr() as usize;
        let stops = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
        for signal in (1..=64).filter(|&signal| signal != libc::SIGKILL && signal != libc::SIGSTOP) {
            let action = if stops.contains(&signal) { ignore } else { default };
            self.add(libc::SYS_rt_sigaction, &[signal as usize, action, 0, 8]);
        }
        let mask = (&raw const self.held.mask) as usize;
        self.add(libc::SYS_rt_sigprocmask, &[libc::SIG_SETMASK as usize, mask, 0, 8]);
        for signal in stops {
            self.add(libc::SYS_rt_sigaction, &[signal as usize, default, 0, 8]);
        }
        let Held { path, argv, env, .. } = &*self.held;
        let image = [path.as_ptr() as usize, argv.as_ptr() as usize, env.as_ptr() as usize];
        self.add(libc::SYS_execve, &image);
    }

    fn add(&mut self, nr: c_long, args: &[usize]) {
        let mut all = [0; 5];
        all[..args.len()].copy_from_slice(args);
        self.list.push(Step {
            nr: nr as usize,
            args: all,
            may_fail: false,
        });
    }
}
