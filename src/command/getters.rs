//! What a command is set to. Each method has the name of the setter, with `get_`, as in [`std::process::Command`].

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::path::Path;

use super::builder::{Command, Passed, ProcessGroup};
use super::capability::Capabilities;
use super::lifetime::Lifetime;
use super::settings::{IoPriority, Resource, Scheduling};
use super::stdio::Stdio;
use crate::signal::{Signal, SignalSet};

/// # What was set
///
/// `None` means that the setting was not made, so that its default applies.
///
/// ```
/// use pidherd::{Command, Stdio};
/// use std::ffi::OsStr;
///
/// let command = Command::new("web").arg("-v").env("PORT", "80").env_remove("DEBUG").nice(5).stdin(Stdio::null());
/// assert_eq!(command.get_program(), "web");
/// assert!(command.get_args().eq([OsStr::new("-v")]));
/// let variables: Vec<_> = command.get_envs().collect();
/// assert_eq!(variables, [(OsStr::new("DEBUG"), None), (OsStr::new("PORT"), Some(OsStr::new("80")))]);
/// assert_eq!((command.get_nice(), command.get_umask()), (Some(5), None));
/// assert_eq!(command.get_stdin(), &Stdio::null());
/// ```
impl Command {
    /// The program as given to [`Command::new`].
    #[must_use]
    pub fn get_program(&self) -> &OsStr {
        &self.program
    }

    /// The value of [`Command::arg0`].
    #[must_use]
    pub fn get_arg0(&self) -> Option<&OsStr> {
        self.arg0.as_deref()
    }

    /// The arguments, without `argv[0]`.
    pub fn get_args(&self) -> impl Iterator<Item = &OsStr> {
        self.args.iter().map(OsString::as_os_str)
    }

    /// The variables that the command sets (`Some`) and removes (`None`), in the order of their keys. Variables that
    /// come from the host or from other settings are not among them.
    pub fn get_envs(&self) -> impl Iterator<Item = (&OsStr, Option<&OsStr>)> {
        self.env.changes()
    }

    /// Whether the command was told to inherit no variable ([`Command::env_clear`]).
    #[must_use]
    pub fn get_env_clear(&self) -> bool {
        self.env.is_cleared()
    }

    /// The variables of [`Command::env_keep`], in their order. `None` if there is no such list.
    pub fn get_env_keep(&self) -> Option<impl Iterator<Item = &OsStr>> {
        self.env.kept()
    }

    /// The value of [`Command::current_dir`].
    #[must_use]
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.current_dir.as_deref()
    }

    /// The value of [`Command::chroot`].
    #[must_use]
    pub fn get_chroot(&self) -> Option<&Path> {
        self.chroot.as_deref()
    }

    /// The value of [`Command::stdin`]; [`Stdio::inherit`] if it was not set.
    #[must_use]
    pub fn get_stdin(&self) -> &Stdio {
        let [stdin, _, _] = &self.stdio;
        stdin
    }

    /// The value of [`Command::stdout`]; [`Stdio::inherit`] if it was not set.
    #[must_use]
    pub fn get_stdout(&self) -> &Stdio {
        let [_, stdout, _] = &self.stdio;
        stdout
    }

    /// The value of [`Command::stderr`]; [`Stdio::inherit`] if it was not set.
    #[must_use]
    pub fn get_stderr(&self) -> &Stdio {
        let [_, _, stderr] = &self.stdio;
        stderr
    }

    /// The descriptors of [`Command::fd`] and [`Command::listen_fd`], with their numbers in the child, in the order of
    /// the calls.
    pub fn get_fds(&self) -> impl Iterator<Item = (RawFd, &Stdio)> {
        self.passed.iter().map(|Passed { target, stdio }| (*target, stdio))
    }

    /// The number of sockets of [`Command::listen_fd`]. They have the numbers from 3 up.
    #[must_use]
    pub fn get_listen_fds(&self) -> u16 {
        self.settings.listen_fds
    }

    /// The value of [`Command::umask`].
    #[must_use]
    pub fn get_umask(&self) -> Option<u32> {
        self.umask
    }

    /// The value of [`Command::user`].
    #[must_use]
    pub fn get_user(&self) -> Option<&str> {
        self.identity.user.as_deref()
    }

    /// The value of [`Command::uid`]. That of a user is looked up when the command is compiled.
    #[must_use]
    pub fn get_uid(&self) -> Option<u32> {
        self.identity.uid
    }

    /// The value of [`Command::gid`].
    #[must_use]
    pub fn get_gid(&self) -> Option<u32> {
        self.identity.gid
    }

    /// The value of [`Command::groups`].
    #[must_use]
    pub fn get_groups(&self) -> Option<&[u32]> {
        self.identity.groups.as_deref()
    }

    /// The value of [`Command::group`].
    #[must_use]
    pub fn get_group(&self) -> Option<&str> {
        self.identity.group.as_deref()
    }

    /// The value of [`Command::group_names`].
    #[must_use]
    pub fn get_group_names(&self) -> Option<&[String]> {
        self.identity.group_names.as_deref()
    }

    /// The groups of [`Command::add_groups`].
    #[must_use]
    pub fn get_added_groups(&self) -> &[u32] {
        &self.identity.added_groups
    }

    /// The groups of [`Command::add_group_names`].
    #[must_use]
    pub fn get_added_group_names(&self) -> &[String] {
        &self.identity.added_group_names
    }

    /// The value of [`Command::login_env`].
    #[must_use]
    pub fn get_login_env(&self) -> Option<bool> {
        self.identity.login_env
    }

    /// The value of [`Command::setsid`].
    #[must_use]
    pub fn get_setsid(&self) -> Option<bool> {
        self.setsid
    }

    /// The value of [`Command::process_group`].
    #[must_use]
    pub fn get_process_group(&self) -> Option<i32> {
        match self.process_group {
            Some(ProcessGroup::Number(group)) => Some(group),
            Some(ProcessGroup::Inherited) | None => None,
        }
    }

    /// Whether [`Command::inherit_process_group`] was called.
    #[must_use]
    pub fn get_inherit_process_group(&self) -> bool {
        self.process_group == Some(ProcessGroup::Inherited)
    }

    /// The value of [`Command::no_new_privileges`].
    #[must_use]
    pub fn get_no_new_privileges(&self) -> Option<bool> {
        self.no_new_privileges
    }

    /// The value of [`Command::signal_mask`]; no signal if it was not set.
    #[must_use]
    pub fn get_signal_mask(&self) -> SignalSet {
        self.signal_mask
    }

    /// The value of [`Command::ignored_signals`]; no signal if it was not set.
    #[must_use]
    pub fn get_ignored_signals(&self) -> SignalSet {
        self.ignored_signals
    }

    /// The value of [`Command::nice`].
    #[must_use]
    pub fn get_nice(&self) -> Option<i32> {
        self.settings.nice
    }

    /// The value of [`Command::scheduling`].
    #[must_use]
    pub fn get_scheduling(&self) -> Option<Scheduling> {
        self.settings.scheduling
    }

    /// The value of [`Command::io_priority`].
    #[must_use]
    pub fn get_io_priority(&self) -> Option<IoPriority> {
        self.settings.io_priority
    }

    /// The value of [`Command::cpu_affinity`].
    #[must_use]
    pub fn get_cpu_affinity(&self) -> Option<&[usize]> {
        self.settings.affinity.as_deref()
    }

    /// The value of [`Command::oom_score_adj`].
    #[must_use]
    pub fn get_oom_score_adj(&self) -> Option<i32> {
        self.settings.oom_score_adj
    }

    /// The limits of [`Command::limit`], soft and hard, in the order of the calls.
    pub fn get_limits(&self) -> impl Iterator<Item = (Resource, u64, u64)> {
        self.settings.limits.iter().copied()
    }

    /// The value of [`Command::controlling_terminal`].
    #[must_use]
    pub fn get_controlling_terminal(&self) -> Option<RawFd> {
        self.settings.controlling_terminal
    }

    /// The value of [`Command::foreground`].
    #[must_use]
    pub fn get_foreground(&self) -> Option<RawFd> {
        self.settings.foreground
    }

    /// The value of [`Command::lifetime`]; [`Lifetime::Detached`] if it was not set.
    #[must_use]
    pub fn get_lifetime(&self) -> Lifetime {
        self.settings.lifetime
    }

    /// The value of [`Command::parent_death_signal`].
    #[must_use]
    pub fn get_parent_death_signal(&self) -> Option<Signal> {
        self.settings.parent_death_signal
    }

    /// The value of [`Command::bounding_capabilities`].
    #[must_use]
    pub fn get_bounding_capabilities(&self) -> Option<Capabilities> {
        self.settings.bounding
    }

    /// The value of [`Command::inheritable_capabilities`]; none if it was not set.
    #[must_use]
    pub fn get_inheritable_capabilities(&self) -> Capabilities {
        self.settings.inheritable
    }

    /// The value of [`Command::ambient_capabilities`]; none if it was not set.
    #[must_use]
    pub fn get_ambient_capabilities(&self) -> Capabilities {
        self.settings.ambient
    }

    /// The value of [`Command::cgroup`].
    #[must_use]
    pub fn get_cgroup(&self) -> Option<BorrowedFd<'_>> {
        self.settings.cgroup.as_ref().map(|directory| directory.0.as_fd())
    }
}
