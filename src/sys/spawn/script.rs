//! The program of the child before its execve: a flat list of system calls.
//!
//! Safe code in the parent builds the list. Each constructor here is for one call: it takes values, stores all memory
//! that the call reads, and records the number, the arguments and how to handle the result. So every step in a script
//! is safe to run, and the child is only a loop.
//!
//! Closures in the child (`pre_exec`) were rejected: nothing can check how they use the memory of the parent. An enum
//! of settings that the child interprets was rejected: the interpreter must not allocate, panic or call libc, and would
//! be much more code than a loop.

use std::ffi::{CStr, CString, c_int, c_long, c_uint};
use std::os::fd::RawFd;
use std::sync::Arc;

use super::capabilities::{CAPABILITY_DATA, CAPABILITY_WORDS, CapabilitySets};
use crate::signal::{Signal, SignalSet};
use crate::sys::nr;

/// One system call and how to handle its result.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct Syscall {
    pub(super) nr: c_long,
    pub(super) args: [usize; 6],
    pub(super) then: Then,
    /// The argument that differs between spawns, if any.
    pub(super) own: Own,
    /// The index of the description of this step, for the error if it fails.
    pub(super) label: usize,
}

/// An argument that belongs to one spawn and not to the script. Several children can run one script at the same time,
/// so a child must not write to the memory of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// No argument.
    None,
    /// The argument with this index is the address of the spawn's number ([`Then::Number`]).
    Number(usize),
    /// The third argument is the spawn's own environment, which ends with its own pid ([`Then::Decimal`]).
    Environment,
}

/// How the child handles the result of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    /// An error ends the child.
    Succeed,
    /// On success the descriptor in the first argument is a FIFO, which must have a writer or data. After an error it
    /// is not a FIFO, which is accepted.
    Written,
    /// The result is a descriptor, and is moved to this number.
    Place(usize),
    /// Any other value ends the child.
    Equal(isize),
    /// The result is the pid of the parent. If the parent has ended, the child ends.
    Parent,
    /// Success ends the child: the call must be impossible for it.
    Refuse,
    /// The result is stored as the spawn's number.
    Number,
    /// The result is written in decimal after the key of the spawn's own environment entry.
    Decimal,
    /// From now on the child has a descriptor table of its own, and the parent may change its table.
    Unshared,
    /// The call is repeated for every descriptor number up to this one.
    UpTo(usize),
    /// The execve returned, so it failed. The next candidate is tried, or the child ends.
    Search,
}

/// A path that is stored in a script: the index of its buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text(usize);

/// The system calls of a command and the memory that they point to. The same script serves every spawn of the command,
/// also several at the same time, so neither the parent nor a child changes it once it is complete.
///
/// Buffers are vectors of words, for their alignment. They never grow, so their address stays valid. The provenance of
/// the address is exposed, for the kernel.
#[derive(Debug, Default)]
pub(crate) struct Script {
    steps: Vec<Syscall>,
    held: Vec<Vec<u64>>,
    /// The addresses of the entries of the environment.
    environment: Vec<usize>,
    own_environment: Option<OwnEnvironment>,
    /// The script that this one is made from. It owns the memory that the steps point to.
    base: Option<Arc<Script>>,
    pub(super) asks_for_parent: bool,
}

/// An environment that contains the pid of the child, so it differs between spawns.
#[derive(Debug)]
pub(crate) struct OwnEnvironment {
    /// The addresses of the other entries.
    pub(super) entries: Vec<usize>,
    /// The key of the entry with the pid, and `=`.
    pub(super) key: CString,
}

/// The length of the longest decimal pid and its NUL, in bytes.
pub(crate) const DECIMAL: usize = 11;

/// The longest key of the entry with the pid, in bytes.
pub(crate) const LONGEST_PID_KEY: usize = 20;

/// The arguments of execve.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    /// The paths to try, each with its label.
    pub candidates: &'a [(usize, CString)],
    pub argv: &'a [CString],
    pub env: &'a [CString],
    /// An environment key (with its `=`) for the child's own pid. At most [`LONGEST_PID_KEY`] bytes.
    pub pid_key: Option<&'a CStr>,
}

/// The number of steps for which memory is reserved: enough for a spawn with a few descriptors.
const USUAL_STEPS: usize = 32;

/// The steps of one spawn, which the child runs before the steps of the script. They concern its descriptors, its
/// cgroup and its capabilities. They point into the script and into this value.
#[derive(Debug)]
pub(crate) struct Prelude {
    script: Arc<Script>,
    steps: Vec<Syscall>,
    /// The argument of capset(2). It is not a `Box`: moving a `Box` asserts that nothing else points to its content,
    /// and a child in flight may do so.
    capabilities: Vec<u64>,
}

impl Prelude {
    pub(crate) fn new() -> Prelude {
        Prelude {
            script: Arc::default(),
            steps: Vec::with_capacity(USUAL_STEPS),
            capabilities: Vec::with_capacity(CAPABILITY_WORDS),
        }
    }

    /// Begins the prelude of a spawn of `script`. Allocates nothing if an earlier prelude had as many steps.
    pub(crate) fn begin(&mut self, script: &Arc<Script>, steps: usize) {
        self.steps.clear();
        self.steps.reserve(steps);
        self.script = Arc::clone(script);
    }

    /// Drops the script, so that an unused prelude does not keep a program in memory.
    pub(crate) fn end(&mut self, nothing: &Arc<Script>) {
        self.steps.clear();
        self.script = Arc::clone(nothing);
    }

    pub(crate) fn steps(&self) -> &[Syscall] {
        &self.steps
    }

    pub(crate) fn script(&self) -> &Script {
        &self.script
    }

    /// Writes "0", which means the writing process, to this descriptor of a `cgroup.procs`. `zero` is the text.
    pub(crate) fn enter_cgroup(&mut self, label: usize, procs: RawFd, zero: Text) {
        let address = self.script.address_of(zero.0);
        self.call(label, libc::SYS_write, &[procs as usize, address, 1]);
    }

    // Descriptors.

    /// openat(2) with O_NONBLOCK, so that a FIFO without a reader is an error (ENXIO) and does not block the child and
    /// its parent. The flag is cleared after the open. The kernel opens a FIFO without a writer without an error, and
    /// the program would read the end of the file at once, so this is an error too. O_NOCTTY: a terminal that is opened
    /// as a log file must not become the child's controlling terminal.
    pub(crate) fn open(&mut self, label: usize, path: Text, flags: c_int, mode: c_uint, target: RawFd) {
        let all = flags | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_LARGEFILE;
        let args = [
            libc::AT_FDCWD as usize,
            self.script.address_of(path.0),
            all as usize,
            mode as usize,
            0,
            0,
        ];
        self.push(label, libc::SYS_openat, args, Then::Place(target as usize));
        if flags & libc::O_ACCMODE == libc::O_RDONLY {
            let args = [target as usize, libc::F_GETPIPE_SZ as usize, 0, 0, 0, 0];
            self.push(label, libc::SYS_fcntl, args, Then::Written);
        }
        let args = [
            target as usize,
            libc::F_SETFL as usize,
            (flags & libc::O_APPEND) as usize,
            0,
            0,
            0,
        ];
        self.push(label, libc::SYS_fcntl, args, Then::Succeed);
    }

    /// dup3(2) without O_CLOEXEC. dup3 refuses equal numbers, so for these the close-on-exec flag is cleared instead.
    pub(crate) fn duplicate(&mut self, label: usize, from: RawFd, to: RawFd) {
        if from == to {
            self.call(label, libc::SYS_fcntl, &[to as usize, libc::F_SETFD as usize, 0]);
        } else {
            self.call(label, libc::SYS_dup3, &[from as usize, to as usize, 0]);
        }
    }

    /// close_range(2) from `first` to `last`.
    pub(crate) fn close_range(&mut self, label: usize, first: c_uint, last: c_uint) {
        self.call(label, nr::CLOSE_RANGE, &[first as usize, last as usize, 0]);
    }

    /// Gives the child its own descriptor table, without the numbers from `first` up.
    pub(crate) fn unshare_below(&mut self, label: usize, first: c_uint) {
        let flags = libc::CLOSE_RANGE_UNSHARE as usize;
        let args = [first as usize, c_uint::MAX as usize, flags, 0, 0, 0];
        self.push(label, nr::CLOSE_RANGE, args, Then::Unshared);
    }

    /// Closes `first` to `last` one by one, for kernels and filters without close_range(2).
    pub(crate) fn close_each(&mut self, label: usize, first: c_uint, last: c_uint) {
        if first <= last {
            self.push(
                label,
                libc::SYS_close,
                [first as usize, 0, 0, 0, 0, 0],
                Then::UpTo(last as usize),
            );
        }
    }

    /// Makes the descriptors from `first` to `last` close-on-exec, and leaves them open.
    pub(crate) fn close_range_on_exec(&mut self, label: usize, first: c_uint, last: c_uint) {
        let flags = libc::CLOSE_RANGE_CLOEXEC as usize;
        self.call(label, nr::CLOSE_RANGE, &[first as usize, last as usize, flags]);
    }

    /// The same one by one, before Linux 5.11.
    pub(crate) fn close_each_on_exec(&mut self, label: usize, first: c_uint, last: c_uint) {
        if first <= last {
            let flags = [libc::F_SETFD as usize, libc::FD_CLOEXEC as usize];
            let args = [first as usize, flags[0], flags[1], 0, 0, 0];
            self.push(label, libc::SYS_fcntl, args, Then::UpTo(last as usize));
        }
    }

    // Capabilities.

    /// capset(2).
    pub(crate) fn set_capabilities(&mut self, label: usize, sets: CapabilitySets) {
        self.capabilities.clear();
        self.capabilities.extend_from_slice(&sets.to_words());
        let address = self.capabilities.as_mut_ptr().expose_provenance();
        let args = [address, address.wrapping_add(CAPABILITY_DATA)];
        self.call(label, libc::SYS_capset, &args);
    }

    /// Empties the ambient set.
    pub(crate) fn clear_ambient(&mut self, label: usize) {
        let args = [libc::PR_CAP_AMBIENT as usize, libc::PR_CAP_AMBIENT_CLEAR_ALL as usize];
        self.call(label, libc::SYS_prctl, &args);
    }

    fn call(&mut self, label: usize, nr: c_long, args: &[usize]) {
        self.push(label, nr, padded(args), Then::Succeed);
    }

    fn push(&mut self, label: usize, nr: c_long, args: [usize; 6], then: Then) {
        let own = Own::None;
        self.steps.push(Syscall {
            nr,
            args,
            then,
            own,
            label,
        });
    }
}

/// The arguments, filled with zeros up to six.
fn padded(args: &[usize]) -> [usize; 6] {
    let mut all = [0; 6];
    for (slot, &arg) in all.iter_mut().zip(args) {
        *slot = arg;
    }
    all
}

impl Script {
    /// The same script with more entries in the environment.
    pub(crate) fn with_environment(base: &Arc<Script>, more: &[CString]) -> Script {
        let mut script = Script {
            steps: base.steps.clone(),
            base: Some(Arc::clone(base)),
            asks_for_parent: base.asks_for_parent,
            ..Script::default()
        };
        let more: Vec<usize> = more
            .iter()
            .map(|entry| script.hold(entry.to_bytes_with_nul()))
            .collect();
        if let Some(own) = &base.own_environment {
            let entries = own.entries.iter().copied().chain(more).collect();
            let key = own.key.clone();
            script.own_environment = Some(OwnEnvironment { entries, key });
            return script;
        }
        script.environment = base.environment.iter().copied().chain(more).collect();
        let table = script.hold_table(&script.environment.clone());
        for step in &mut script.steps {
            if let (Then::Search, [_, _, environment, ..]) = (step.then, &mut step.args) {
                *environment = table;
            }
        }
        script
    }

    pub(crate) fn steps(&self) -> &[Syscall] {
        &self.steps
    }

    pub(crate) fn own_environment(&self) -> Option<&OwnEnvironment> {
        self.own_environment.as_ref()
    }

    /// Stores a path for later steps.
    pub(crate) fn text(&mut self, path: &CStr) -> Text {
        self.hold(path.to_bytes_with_nul());
        Text(self.held.len() - 1)
    }

    // Session, process group, terminal.

    pub(crate) fn new_session(&mut self, label: usize) {
        self.call(label, libc::SYS_setsid, &[]);
    }

    pub(crate) fn process_group(&mut self, label: usize, group: i32) {
        self.call(label, libc::SYS_setpgid, &[0, group as usize]);
    }

    // Ids. Each is read back, because a filter (seccomp(2)) can report success and change nothing.

    pub(crate) fn umask(&mut self, label: usize, mask: u32) {
        self.push(label, libc::SYS_umask, [mask as usize, 0, 0, 0, 0, 0], Then::Succeed);
    }

    pub(crate) fn groups(&mut self, label: usize, groups: &[u32]) {
        let list: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
        let address = self.hold(&list);
        self.call(label, nr::SETGROUPS, &[groups.len(), address]);
        self.push(label, nr::GETGROUPS, [0; 6], Then::Equal(groups.len() as isize));
    }

    pub(crate) fn gid(&mut self, label: usize, gid: u32) {
        self.call(label, nr::SETRESGID, &[gid as usize; 3]);
        self.push(label, nr::GETGID, [0; 6], Then::Equal(gid as isize));
        self.push(label, nr::GETEGID, [0; 6], Then::Equal(gid as isize));
    }

    pub(crate) fn uid(&mut self, label: usize, uid: u32) {
        self.call(label, nr::SETRESUID, &[uid as usize; 3]);
        self.push(label, nr::GETUID, [0; 6], Then::Equal(uid as isize));
        self.push(label, nr::GETEUID, [0; 6], Then::Equal(uid as isize));
    }

    /// Checks that the child cannot become `uid` again.
    pub(crate) fn cannot_become(&mut self, label: usize, uid: u32) {
        let keep = u32::MAX as usize;
        self.push(label, nr::SETRESUID, [keep, uid as usize, keep, 0, 0, 0], Then::Refuse);
    }

    // Places.

    pub(crate) fn change_root(&mut self, label: usize, path: &CStr) {
        let address = self.hold(path.to_bytes_with_nul());
        self.call(label, libc::SYS_chroot, &[address]);
        let slash = self.hold(b"/\0");
        self.call(label, libc::SYS_chdir, &[slash]);
    }

    pub(crate) fn change_directory(&mut self, label: usize, path: &CStr) {
        let address = self.hold(path.to_bytes_with_nul());
        self.call(label, libc::SYS_chdir, &[address]);
    }

    // Privileges.

    pub(crate) fn no_new_privileges(&mut self, label: usize) {
        self.call(label, libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS as usize, 1]);
    }

    // Signals.

    /// Sets the default action for every signal except those in `ignored`, which are ignored. CLONE_CLEAR_SIGHAND does
    /// not suffice: it keeps the signals that the host ignores, and Rust programs ignore SIGPIPE. The stop signals of
    /// the terminal are ignored until [`Script::mask`].
    pub(crate) fn dispositions(&mut self, label: usize, ignored: SignalSet) {
        let default = self.hold(&[0; 64]);
        let ignore = self.hold(&SigAction::IGNORE.to_bytes());
        for signal in Signal::all().filter(|&signal| signal != Signal::KILL && signal != Signal::STOP) {
            let waits = STOP_SIGNALS.contains(&signal);
            let action = if waits || ignored.contains(signal) {
                ignore
            } else {
                default
            };
            self.disposition(label, signal, action);
        }
    }

    fn disposition(&mut self, label: usize, signal: Signal, action: usize) {
        let args = [signal.as_raw() as usize, action, 0, size_of::<u64>(), 0, 0];
        self.push(label, libc::SYS_rt_sigaction, args, Then::Succeed);
    }

    /// Sets the signal mask, and then the default action of the stop signals. A stop signal that arrived since the
    /// clone is pending until the mask changes. With its default action it would stop the child before its exec, and so
    /// block a host that waits for the exec. While the signal is ignored, it is discarded instead.
    fn mask(&mut self, label: usize, mask: SignalSet, ignored: SignalSet) {
        let mask = self.hold(&mask.bits().to_ne_bytes());
        let args = [libc::SIG_SETMASK as usize, mask, 0, size_of::<u64>(), 0, 0];
        self.push(label, libc::SYS_rt_sigprocmask, args, Then::Succeed);
        let default = self.hold(&[0; 64]);
        for signal in STOP_SIGNALS.into_iter().filter(|&signal| !ignored.contains(signal)) {
            self.disposition(label, signal, default);
        }
    }

    /// The last steps: the signal mask, and the program.
    pub(crate) fn execute(&mut self, label: usize, mask: SignalSet, ignored: SignalSet, image: &Image<'_>) {
        let argv: Vec<usize> = image
            .argv
            .iter()
            .map(|arg| self.hold(arg.to_bytes_with_nul()))
            .collect();
        let env: Vec<usize> = image
            .env
            .iter()
            .map(|entry| self.hold(entry.to_bytes_with_nul()))
            .collect();
        let argv = self.hold_table(&argv);
        let (env, own) = match image.pid_key {
            None => {
                let table = self.hold_table(&env);
                self.environment = env;
                (table, Own::None)
            }
            Some(key) => {
                self.push(label, libc::SYS_getpid, [0; 6], Then::Decimal);
                let (entries, key) = (env, key.to_owned());
                self.own_environment = Some(OwnEnvironment { entries, key });
                (0, Own::Environment)
            }
        };
        self.mask(label, mask, ignored);
        for (label, path) in image.candidates {
            let path = self.hold(path.to_bytes_with_nul());
            self.push_own(*label, libc::SYS_execve, [path, argv, env, 0, 0, 0], Then::Search, own);
        }
    }

    // Helpers.

    /// A step that must succeed.
    pub(super) fn call(&mut self, label: usize, nr: c_long, args: &[usize]) {
        self.push(label, nr, padded(args), Then::Succeed);
    }

    pub(super) fn push(&mut self, label: usize, nr: c_long, args: [usize; 6], then: Then) {
        self.push_own(label, nr, args, then, Own::None);
    }

    pub(super) fn push_own(&mut self, label: usize, nr: c_long, args: [usize; 6], then: Then, own: Own) {
        self.steps.push(Syscall {
            nr,
            args,
            then,
            own,
            label,
        });
    }

    /// Stores a copy of `bytes`, with at least one zero byte after it. Returns its address.
    pub(super) fn hold(&mut self, bytes: &[u8]) -> usize {
        let mut words: Vec<u64> = bytes.chunks(8).map(word_of).collect();
        words.push(0);
        let address = words.as_mut_ptr().expose_provenance();
        self.held.push(words);
        address
    }

    /// Every stored text, without the zero bytes at its end.
    #[cfg(test)]
    pub(crate) fn texts(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let base = self.base.iter().flat_map(|base| &base.held);
        base.chain(&self.held).map(|words| {
            let bytes = words.iter().flat_map(|word| word.to_ne_bytes());
            bytes.take_while(|&byte| byte != 0).collect()
        })
    }

    /// Stores an array of pointers, with a null after the last one. Returns its address.
    fn hold_table(&mut self, pointers: &[usize]) -> usize {
        let bytes: Vec<u8> = pointers.iter().flat_map(|pointer| pointer.to_ne_bytes()).collect();
        self.hold(&bytes)
    }

    /// The address of a buffer. Null if there is no buffer with this index; the system call then fails with EFAULT.
    fn address_of(&self, index: usize) -> usize {
        let held = self.base.as_ref().map_or(&self.held, |base| &base.held);
        let buffer = held.get(index);
        buffer.map_or(0, |words| words.as_ptr().expose_provenance())
    }
}

/// Up to eight bytes in memory order.
fn word_of(chunk: &[u8]) -> u64 {
    let mut word = [0; 8];
    for (slot, &byte) in word.iter_mut().zip(chunk) {
        *slot = byte;
    }
    u64::from_ne_bytes(word)
}

/// The signals with which a terminal stops jobs. SIGTSTP is last, because other processes send it too.
const STOP_SIGNALS: [Signal; 3] = [Signal::TTIN, Signal::TTOU, Signal::TSTP];

/// The beginning of the kernel's `struct sigaction`. All fields after it are zero.
struct SigAction {
    words: [usize; 2],
}

impl SigAction {
    #[cfg(not(any(target_arch = "mips", target_arch = "mips64")))]
    const IGNORE: SigAction = SigAction {
        words: [libc::SIG_IGN, 0],
    };
    /// On MIPS the flags (an int) come first, and the handler is the next pointer-sized field.
    #[cfg(any(target_arch = "mips", target_arch = "mips64"))]
    const IGNORE: SigAction = SigAction {
        words: [0, libc::SIG_IGN],
    };

    fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        let words = self.words.iter().flat_map(|word| word.to_ne_bytes());
        for (slot, byte) in bytes.iter_mut().zip(words) {
            *slot = byte;
        }
        bytes
    }
}
