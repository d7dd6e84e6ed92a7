//! The description of a program to run.

use std::ffi::{OsStr, OsString};
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::env::Environment;
use super::identity::Identity;
use super::lifetime::Lifetime;
use super::namespace::Namespaces;
use super::settings::{IoPriority, Resource, Scheduling, Settings};
use super::stdio::{Shared, Stdio};
use crate::signal::{Signal, SignalSet};

/// A program, its arguments, and all settings that apply before it runs. The names are those of
/// [`std::process::Command`] where it has them.
///
/// A child starts clean, independent of the host: default actions for all signals, no blocked signal, and only the
/// declared descriptors.
/// ```
/// use pidherd::{Command, Stdio};
///
/// let mut child = Command::new("cat").stdin(Stdio::null()).umask(0o027).spawn()?;
/// assert!(child.wait()?.exit.success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub(super) program: OsString,
    pub(super) arg0: Option<OsString>,
    pub(super) args: Vec<OsString>,
    pub(super) env: Environment,
    pub(super) stdio: [Stdio; 3],
    pub(super) passed: Vec<Passed>,
    pub(super) current_dir: Option<PathBuf>,
    pub(super) chroot: Option<PathBuf>,
    pub(super) umask: Option<u32>,
    pub(super) identity: Identity,
    pub(super) setsid: Option<bool>,
    pub(super) process_group: Option<ProcessGroup>,
    pub(super) no_new_privileges: Option<bool>,
    pub(super) signal_mask: SignalSet,
    pub(super) ignored_signals: SignalSet,
    pub(super) namespaces: Namespaces,
    pub(super) settings: Settings,
}

/// The setting of the process group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessGroup {
    /// The host's process group.
    Inherited,
    /// The process group with this number; 0 for a new one.
    Number(i32),
}

/// A descriptor beyond the standard streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) target: RawFd,
    pub(super) stdio: Stdio,
}

impl Command {
    /// Makes a command that runs `program`.
    ///
    /// *With a slash* it is a path. The child looks it up inside its root directory, as the user that it runs as, and,
    /// if it is relative, in its working directory. So a relative program with [`Command::current_dir`] is looked up in
    /// the new directory, as in the standard library and posix_spawn(3).
    ///
    /// *Without a slash* it is searched in the directories of the child's `PATH` (in `/bin:/usr/bin` if it has none),
    /// at each spawn anew, as in execvp(3). An empty name in `PATH`, also that of an empty `PATH`, is the working
    /// directory of the child. A directory that cannot be searched is skipped for any reason. The search ends at the
    /// first file that can be executed, and at one that is found and cannot run (`ENOEXEC`, `ETXTBSY`, `E2BIG`). A
    /// program or script with a missing interpreter is skipped.
    ///
    /// A host with privileges should name its programs by absolute paths.
    ///
    /// ```
    /// # use pidherd::Command;
    /// let found_in_path = Command::new("true");
    /// let by_its_path = Command::new("/bin/sh").args(["-c", "exit 0"]);
    /// assert!(found_in_path.status()?.exit.success() && by_its_path.status()?.exit.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(program: impl AsRef<OsStr>) -> Command {
        Command {
            program: program.as_ref().to_owned(),
            arg0: None,
            args: Vec::new(),
            env: Environment::default(),
            stdio: [Stdio::UNSET, Stdio::UNSET, Stdio::UNSET],
            passed: Vec::new(),
            current_dir: None,
            chroot: None,
            umask: None,
            identity: Identity::default(),
            setsid: None,
            process_group: None,
            no_new_privileges: None,
            signal_mask: SignalSet::EMPTY,
            ignored_signals: SignalSet::EMPTY,
            namespaces: Namespaces::default(),
            settings: Settings::default(),
        }
    }

    /// Adds an argument.
    ///
    /// ```
    /// # use pidherd::Command;
    /// let output = Command::new("printf").arg("%s-%s").arg("a").arg("b").output()?;
    /// assert_eq!(output.stdout, b"a-b");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Command {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// let output = Command::new("echo").args(["a", "b"]).output()?;
    /// assert_eq!(output.stdout, b"a b\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn args<I>(mut self, args: I) -> Command
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets the name that the program sees as its own (`argv[0]`) instead of the value of [`Command::new`].
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// let output = Command::new("sh").arg0("other").args(["-c", "echo $0"]).output()?;
    /// assert_eq!(output.stdout, b"other\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn arg0(mut self, arg0: impl AsRef<OsStr>) -> Command {
        self.arg0 = Some(arg0.as_ref().to_owned());
        self
    }

    /// Sets a variable of the child's environment. Other variables come from the host's environment when the command is
    /// compiled, except for those about the host's own service (`NOTIFY_SOCKET`, `WATCHDOG_*`, `LISTEN_*`). Other
    /// settings set variables too: [`Command::user`] sets `USER`, `LOGNAME`, `HOME` and `SHELL`,
    /// [`Command::current_dir`] and [`Command::chroot`] set `PWD`. This method and [`Command::env_remove`] take
    /// precedence over all of these, in any order of the calls.
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// let output = Command::new("sh").args(["-c", "echo $LEVEL"]).env("LEVEL", "9").output()?;
    /// assert_eq!(output.stdout, b"9\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Command {
        self.env.set(key.as_ref(), value.as_ref());
        self
    }

    /// Sets variables of the child's environment.
    ///
    /// ```
    /// # use pidherd::Command;
    /// let command = Command::new("sh").args(["-c", "echo $HOST:$PORT"]).envs([("HOST", "::1"), ("PORT", "80")]);
    /// assert_eq!(command.output()?.stdout, b"::1:80\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn envs<I, K, V>(mut self, variables: I) -> Command
    where
        I: IntoIterator<Item = (K, V)>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        for (key, value) in variables {
            self.env.set(key.as_ref(), value.as_ref());
        }
        self
    }

    /// Removes a variable from the child's environment.
    ///
    /// ```
    /// # use pidherd::Command;
    /// // The child has neither the host's TMPDIR nor an empty one.
    /// let output = Command::new("sh").args(["-c", "echo ${TMPDIR-unset}"]).env_remove("TMPDIR").output()?;
    /// assert_eq!(output.stdout, b"unset\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Command {
        self.env.remove(key.as_ref());
        self
    }

    /// Lets the child inherit only these variables of the host, where the host has them. Several calls add up. Variables
    /// about the host's own service ([`Command::env`] lists them) are never inherited. Those that this command sets, and
    /// those from other settings, are not concerned. [`Command::env_clear`] ends the list; called before this method, it
    /// still keeps the variables of other settings away.
    ///
    /// ```
    /// use pidherd::Command;
    ///
    /// let command = Command::new("/usr/bin/env").env_keep(["PATH", "LANG"]).env("COLOR", "red");
    /// let output = command.output()?;
    /// let lines = String::from_utf8(output.stdout)?;
    /// assert!(lines.lines().all(|line| ["PATH=", "LANG=", "COLOR="].iter().any(|key| line.starts_with(key))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn env_keep<I>(mut self, keys: I) -> Command
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.env.keep_none();
        for key in keys {
            self.env.keep(key.as_ref());
        }
        self
    }

    /// Removes all variables: those of the host, those from other settings, and those that were set before this call.
    ///
    /// ```
    /// # use pidherd::Command;
    /// let output = Command::new("/usr/bin/env").env("LOST", "1").env_clear().env("KEPT", "2").output()?;
    /// assert_eq!(output.stdout, b"KEPT=2\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn env_clear(mut self) -> Command {
        self.env.clear();
        self
    }

    /// Sets the child's working directory. The child enters it as the user that it runs as, inside its root directory.
    /// The default is the host's, or `/` with [`Command::chroot`]. A relative program is looked up in it (see
    /// [`Command::new`]). Relative paths of [`OpenFile`](crate::OpenFile) are relative to the host's working directory
    /// instead.
    ///
    /// `PWD` becomes this path if it is absolute (or relative to `/`, with [`Command::chroot`]) and without `.` and
    /// `..`. Otherwise the child has no `PWD`, since that of the host would be wrong. See [`Command::env`].
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// let output = Command::new("pwd").current_dir("/usr").output()?;
    /// assert_eq!(output.stdout, b"/usr\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn current_dir(mut self, path: impl AsRef<Path>) -> Command {
        self.current_dir = Some(path.as_ref().to_owned());
        self
    }

    /// Sets the child's root directory (chroot(2)); needs CAP_SYS_CHROOT.
    ///
    /// ```
    /// # use pidherd::{Command, SpawnStep};
    /// match Command::new("pwd").chroot("/").spawn() {
    ///     Ok(mut child) => assert!(child.wait()?.exit.success()),
    ///     // Without the capability, nothing is started.
    ///     Err(error) => assert_eq!(error.step(), SpawnStep::Chroot),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn chroot(mut self, path: impl AsRef<Path>) -> Command {
        self.chroot = Some(path.as_ref().to_owned());
        self
    }

    /// Sets the file mode creation mask (umask(2)). The default is the host's.
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// let output = Command::new("sh").args(["-c", "umask"]).umask(0o027).output()?;
    /// assert_eq!(output.stdout, b"0027\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn umask(mut self, mask: u32) -> Command {
        self.umask = Some(mask);
        self
    }

    /// Gives the child a session of its own (setsid(2)), without a controlling terminal. The default is a new session
    /// if the child runs as another, unprivileged user and no process group is set: otherwise the child could type into
    /// the host's terminal (TIOCSTI).
    ///
    /// ```
    /// # use pidherd::Command;
    /// // Field 6 is the session.
    /// let script = "read -r _ _ _ _ _ session _ < /proc/self/stat; test $session = $$";
    /// let own_session = Command::new("sh").args(["-c", script]).setsid(true);
    /// assert!(own_session.leads_process_group());
    /// assert!(own_session.status()?.exit.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn setsid(mut self, setsid: bool) -> Command {
        self.setsid = Some(setsid);
        self
    }

    /// Sets the process group to join (setpgid(2)), by its number in the PID namespace of the child; 0 for a new one.
    ///
    /// By default, [`Command::spawn`] and [`Spawner::spawn`](crate::Spawner::spawn) leave the child in the host's
    /// process group, and a [`Supervisor`](crate::Supervisor) gives it one of its own
    /// ([why](crate::GroupSpec#process-groups)).
    ///
    /// ```
    /// # use pidherd::{Command, Signal};
    /// // The whole group gets the signal: the shell, and what it has started.
    /// let mut child = Command::new("sh").args(["-c", "sleep 1000 & wait"]).process_group(0).spawn()?;
    /// let group = rustix::process::Pid::from_raw(child.pid().as_raw() as i32).ok_or("no number")?;
    /// rustix::process::kill_process_group(group, rustix::process::Signal::TERM)?;
    /// assert_eq!(child.wait()?.exit.signal(), Some(Signal::TERM));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn process_group(mut self, group: i32) -> Command {
        self.process_group = Some(ProcessGroup::Number(group));
        self
    }

    /// Keeps the child in the host's process group, also under a [`Supervisor`](crate::Supervisor). Use it for a
    /// program that must get the signals of the host's terminal, or that reads from the terminal while the host is in
    /// the foreground.
    ///
    /// ```
    /// # use pidherd::{Command, GroupSpec, Supervisor};
    /// // A shell of the host's terminal, so that Ctrl-C reaches it.
    /// let shell = Command::new("sh").args(["-c", "read -r line"]).inherit_process_group();
    /// let mut supervisor = Supervisor::new()?;
    /// supervisor.add(GroupSpec::new("shell", shell.clone()))?;
    /// assert!(!shell.leads_process_group());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn inherit_process_group(mut self) -> Command {
        self.process_group = Some(ProcessGroup::Inherited);
        self
    }

    /// Sets the signals that are blocked when the program begins. The default is none.
    ///
    /// ```
    /// # use pidherd::{Command, Signal, SignalSet};
    /// let blocked = SignalSet::EMPTY.with(Signal::USR1);
    /// // Bit 9 is signal 10, SIGUSR1.
    /// let command = Command::new("grep").args(["-q", "SigBlk:.*0000200$", "/proc/self/status"]).signal_mask(blocked);
    /// assert!(command.status()?.exit.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn signal_mask(mut self, blocked: SignalSet) -> Command {
        self.signal_mask = blocked;
        self
    }

    /// Sets the signals that are ignored when the program begins, independent of the host. The default is none.
    ///
    /// ```
    /// # use pidherd::{Command, Signal, SignalSet};
    /// // As nohup(1): the program goes on when its terminal is gone.
    /// let command = Command::new("sh").args(["-c", "kill -HUP $$; echo alive"]);
    /// let command = command.ignored_signals(SignalSet::EMPTY.with(Signal::HUP));
    /// assert_eq!(command.output()?.stdout, b"alive\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn ignored_signals(mut self, ignored: SignalSet) -> Command {
        self.ignored_signals = ignored;
        self
    }

    /// Sets the nice value, -20 to 19 (setpriority(2)). The default is the host's.
    ///
    /// ```
    /// # use pidherd::Command;
    /// let output = Command::new("nice").nice(19).output()?;
    /// assert_eq!(output.stdout, b"19\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn nice(mut self, nice: i32) -> Command {
        self.settings.nice = Some(nice);
        self
    }

    /// Sets the scheduling policy (sched_setscheduler(2), sched(7)). The default is the host's. A real-time policy needs
    /// CAP_SYS_NICE or RLIMIT_RTPRIO.
    ///
    /// ```
    /// use pidherd::{Command, Scheduling};
    ///
    /// let command = Command::new("true").scheduling(Scheduling::Batch).nice(19);
    /// assert!(command.status()?.exit.success());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn scheduling(mut self, scheduling: Scheduling) -> Command {
        self.settings.scheduling = Some(scheduling);
        self
    }

    /// Sets the I/O priority (ioprio_set(2)). The default is the host's. [`IoPriority::Realtime`] needs CAP_SYS_ADMIN or
    /// CAP_SYS_NICE.
    ///
    /// ```
    /// use pidherd::{Command, IoPriority};
    ///
    /// let command = Command::new("true").io_priority(IoPriority::BestEffort(7));
    /// assert!(command.status()?.exit.success());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn io_priority(mut self, priority: IoPriority) -> Command {
        self.settings.io_priority = Some(priority);
        self
    }

    /// Sets the CPUs that the child can run on (sched_setaffinity(2)). The default is the host's.
    ///
    /// ```
    /// # use pidherd::{Command, SpawnStep};
    /// let first = Command::new("grep").args(["-q", "^Cpus_allowed_list:\\s0$", "/proc/self/status"]);
    /// match first.cpu_affinity(&[0]).spawn() {
    ///     Ok(mut child) => assert!(child.wait()?.exit.success()),
    ///     // This machine does not let the host use CPU 0.
    ///     Err(error) => assert_eq!(error.step(), SpawnStep::Affinity),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn cpu_affinity(mut self, cpus: &[usize]) -> Command {
        self.settings.affinity = Some(cpus.to_owned());
        self
    }

    /// Sets the preference of the kernel for killing the child when memory is short, -1000 (never) to 1000
    /// (proc_pid_oom_score_adj(5)). The default is the host's.
    ///
    /// ```
    /// # use pidherd::Command;
    /// // The first one to be killed.
    /// let output = Command::new("cat").arg("/proc/self/oom_score_adj").oom_score_adj(1000).output()?;
    /// assert_eq!(output.stdout, b"1000\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn oom_score_adj(mut self, value: i32) -> Command {
        self.settings.oom_score_adj = Some(value);
        self
    }

    /// Sets a resource limit (setrlimit(2)), [`Resource::UNLIMITED`] for none. The default is the host's. The limit is
    /// set with the host's privileges, so it can be above the host's.
    ///
    /// ```
    /// # use pidherd::{Command, Resource};
    /// let output = Command::new("sh").args(["-c", "ulimit -n"]).limit(Resource::OpenFiles, 99, 99).output()?;
    /// assert_eq!(output.stdout, b"99\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn limit(mut self, resource: Resource, soft: u64, hard: u64) -> Command {
        self.settings.limits.push((resource, soft, hard));
        self
    }

    /// Makes the terminal that is descriptor `fd` of the child (0 to 2, or a passed one) its controlling terminal
    /// (TIOCSCTTY). Implies a new session.
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// # use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    /// let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    /// grantpt(&terminal)?;
    /// unlockpt(&terminal)?;
    /// let path = ptsname(&terminal, Vec::new())?.into_string()?;
    /// let end = std::fs::File::options().read(true).write(true).open(&path)?;
    /// // /dev/tty is the controlling terminal.
    /// let command = Command::new("sh").args(["-c", "exec < /dev/tty"]).stdin(end).controlling_terminal(0);
    /// assert!(command.status()?.exit.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn controlling_terminal(mut self, fd: RawFd) -> Command {
        self.settings.controlling_terminal = Some(fd);
        self
    }

    /// Makes the child's process group the foreground one of the terminal that is descriptor `fd` of the child
    /// (TIOCSPGRP). The terminal must be the controlling one of the child's session.
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// # use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    /// # let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    /// # grantpt(&terminal)?;
    /// # unlockpt(&terminal)?;
    /// # let path = ptsname(&terminal, Vec::new())?.into_string()?;
    /// # let end = std::fs::File::options().read(true).write(true).open(&path)?;
    /// // Field 8 is the foreground process group of the terminal.
    /// let script = "read -r _ _ _ _ _ _ _ foreground _ < /proc/self/stat; test $foreground = $$";
    /// // `end` is a terminal.
    /// let command = Command::new("sh").args(["-c", script]).stdin(end).controlling_terminal(0).foreground(0);
    /// assert!(command.status()?.exit.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn foreground(mut self, fd: RawFd) -> Command {
        self.settings.foreground = Some(fd);
        self
    }

    /// Sets what becomes of the child when the host's process ends without stopping it. The default is
    /// [`Lifetime::Detached`]: it lives on.
    ///
    /// ```
    /// # use pidherd::{Command, Lifetime};
    /// // It does not survive a host that gets SIGKILL, on any kernel.
    /// let mut worker = Command::new("sleep").arg("1000").lifetime(Lifetime::BoundOrSignal).spawn()?;
    /// worker.kill()?;
    /// # worker.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn lifetime(mut self, lifetime: Lifetime) -> Command {
        self.settings.lifetime = lifetime;
        self
    }

    /// Sets the signal that the child gets when the *thread* that spawned it ends (PR_SET_PDEATHSIG). It is set after
    /// the change of ids, which would clear it; a program that gains privileges by execve clears it too. If the parent
    /// has already ended, the child does not start (`ESRCH` at
    /// [`SpawnStep::ParentDeathSignal`](crate::SpawnStep::ParentDeathSignal)). This works in another PID namespace as
    /// well. The early end of the thread alone, without its process, is detected with glibc and
    /// CONFIG_CHECKPOINT_RESTORE.
    ///
    /// ```
    /// # use pidherd::{Command, Signal};
    /// # use std::io::Read;
    /// # let (sender, receiver) = std::sync::mpsc::channel();
    /// let spawned = std::thread::spawn(move || {
    ///     let command = Command::new("sleep").arg("1000").parent_death_signal(Signal::TERM);
    ///     sender.send(command.spawn()).ok();
    /// });
    /// spawned.join().map_err(|_| "the thread panicked")?;
    /// // The thread that spawned the child has ended, and so does the child.
    /// assert_eq!(receiver.recv()??.wait()?.exit.signal(), Some(Signal::TERM));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn parent_death_signal(mut self, signal: Signal) -> Command {
        self.settings.parent_death_signal = Some(signal);
        self
    }

    /// Sets the cgroup (v2) that the child is born in, by a descriptor of its directory (CLONE_INTO_CGROUP, Linux 5.7).
    /// If the kernel or a filter does not allow that, the child enters the cgroup before all other steps. This takes
    /// longer (the kernel stops all forks meanwhile), and the program is still in the cgroup before it can fork.
    ///
    /// ```
    /// # use pidherd::Command;
    /// use std::fs::File;
    /// use std::os::fd::OwnedFd;
    ///
    /// # let own = std::fs::read_to_string("/proc/self/cgroup")?;
    /// # let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    /// # let own = std::path::Path::new("/sys/fs/cgroup").join(own);
    /// // `own` is the directory of the host's own cgroup.
    /// if let Ok(directory) = File::open(&own) {
    ///     let command = Command::new("true").cgroup(OwnedFd::from(directory));
    ///     match command.spawn() {
    ///         Ok(mut child) => assert!(child.wait()?.exit.success()),
    ///         // It is not delegated to the host.
    ///         Err(error) => println!("{error}"),
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn cgroup(mut self, directory: impl Into<Arc<OwnedFd>>) -> Command {
        self.settings.cgroup = Some(Shared(directory.into()));
        self
    }

    /// Whether the command makes the child the leader of a process group. Only then can the group be signalled without
    /// reaching the host.
    #[must_use]
    pub fn leads_process_group(&self) -> bool {
        let has_session = self.setsid == Some(true) || self.settings.controlling_terminal.is_some();
        self.process_group == Some(ProcessGroup::Number(0)) || has_session
    }

    /// The same command with a process group of its own, unless a process group is set.
    pub(crate) fn or_own_process_group(mut self) -> Command {
        self.process_group.get_or_insert(ProcessGroup::Number(0));
        self
    }

    /// Whether `other` differs from this command only in the environment of the child.
    ///
    /// ```
    /// # use pidherd::Command;
    /// let running = Command::new("/usr/bin/worker").env("LEVEL", "1");
    /// let wanted = Command::new("/usr/bin/worker").env("LEVEL", "2");
    /// // A reload applies this at the next start, and does not restart the worker for it.
    /// assert!(running.differs_only_in_environment(&wanted));
    /// assert!(!running.differs_only_in_environment(&wanted.arg("--verbose")));
    /// ```
    #[must_use]
    pub fn differs_only_in_environment(&self, other: &Command) -> bool {
        let with_this_environment = Command {
            env: self.env.clone(),
            ..other.clone()
        };
        self.env != other.env && *self == with_this_environment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_its_own_is_asked_for_or_comes_with_a_session() {
        let command = || Command::new("a");
        assert!(!command().leads_process_group());
        assert!(!command().process_group(77).leads_process_group());
        assert!(command().process_group(0).leads_process_group());
        assert!(command().setsid(true).leads_process_group());
        assert!(command().controlling_terminal(0).leads_process_group());
    }

    #[test]
    fn a_group_of_its_own_is_the_default_of_a_supervisor_alone() {
        let command = || Command::new("a");
        assert_eq!(command().or_own_process_group(), command().process_group(0));
        for explicit in [
            command().inherit_process_group(),
            command().process_group(77),
            command().process_group(0),
        ] {
            assert_eq!(explicit.clone().or_own_process_group(), explicit);
        }
        assert!(!command().inherit_process_group().leads_process_group());
    }

    #[test]
    fn a_change_of_the_environment_alone_is_detected() {
        let command = || Command::new("a").arg("b");
        assert!(command().differs_only_in_environment(&command().env("C", "d")));
        assert!(!command().differs_only_in_environment(&command()));
        assert!(!command().differs_only_in_environment(&command().arg("e").env("C", "d")));
    }
}
