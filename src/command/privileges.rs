//! The settings of a command that say which user, groups and capabilities the child has.

use super::builder::Command;
use super::capability::Capabilities;

impl Command {
    /// Sets the user of the child: uid, primary group and all supplementary groups come from the user database
    /// (getpwnam(3), getgrouplist(3)) at the time of [`Command::compile`]. [`Command::uid`], [`Command::gid`] and
    /// [`Command::groups`] replace a part of it.
    ///
    /// The child's `USER`, `LOGNAME`, `HOME` and `SHELL` are set for this user too, as for a service of systemd with
    /// `User=`, unless the command sets them (see [`Command::env`]). [`Command::uid`] alone leaves them as they are in
    /// the host.
    ///
    /// ```
    /// # use pidherd::{Command, CommandError};
    /// // The lookup of the name needs no privilege, the change of the user does.
    /// let program = Command::new("id").user("root").compile()?;
    /// let unknown = Command::new("id").user("no-such-user").compile();
    /// assert!(matches!(unknown, Err(CommandError::NoSuchUser { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn user(mut self, name: impl Into<String>) -> Command {
        self.identity.user = Some(name.into());
        self
    }

    /// Sets the real, effective and saved user id. The default is the host's.
    ///
    /// Supplementary groups are never inherited across a change of ids: without [`Command::groups`] and
    /// [`Command::user`] the list becomes the primary group alone. The gid stays the host's unless it is set.
    ///
    /// ```
    /// # use pidherd::Command;
    /// match Command::new("id").arg("-u").uid(65_534).output() {
    ///     Ok(output) => assert_eq!(output.stdout, b"65534\n"),
    ///     // Without CAP_SETUID and CAP_SETGID.
    ///     Err(error) => println!("{error}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Command {
        self.identity.uid = Some(uid);
        self
    }

    /// Sets the real, effective and saved group id. Supplementary groups as for [`Command::uid`].
    ///
    /// ```
    /// # use pidherd::Command;
    /// match Command::new("id").arg("-g").gid(65_534).output() {
    ///     Ok(output) => assert_eq!(output.stdout, b"65534\n"),
    ///     // Without CAP_SETGID.
    ///     Err(error) => println!("{error}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn gid(mut self, gid: u32) -> Command {
        self.identity.gid = Some(gid);
        self
    }

    /// Sets the primary group by its name, which is looked up in the group database (getgrnam(3)) at the time of
    /// [`Command::compile`]. [`Command::gid`] takes precedence. Supplementary groups as for [`Command::uid`].
    ///
    /// ```
    /// # use pidherd::{Command, CommandError};
    /// let program = Command::new("id").group("root").compile()?;
    /// let unknown = Command::new("id").group("no-such-group").compile();
    /// assert!(matches!(unknown, Err(CommandError::NoSuchGroup { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn group(mut self, name: impl Into<String>) -> Command {
        self.identity.group = Some(name.into());
        self
    }

    /// Sets the supplementary groups, exactly these.
    ///
    /// ```
    /// # use pidherd::Command;
    /// // The primary group is always in the list of id(1).
    /// match Command::new("id").arg("-G").gid(4).groups(&[5, 6]).output() {
    ///     Ok(output) => assert_eq!(output.stdout, b"4 5 6\n"),
    ///     // Without CAP_SETGID.
    ///     Err(error) => println!("{error}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn groups(mut self, groups: &[u32]) -> Command {
        self.identity.groups = Some(groups.to_owned());
        self
    }

    /// Sets the supplementary groups by their names, exactly these. They are looked up as for [`Command::group`]. With
    /// [`Command::groups`] the child has the groups of both.
    ///
    /// ```
    /// use pidherd::{Command, CommandError};
    ///
    /// let command = Command::new("true").group_names(["no-such-group"]);
    /// assert!(matches!(command.compile(), Err(CommandError::NoSuchGroup { name }) if name == "no-such-group"));
    /// ```
    #[must_use]
    pub fn group_names<I>(mut self, names: I) -> Command
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.identity.group_names = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Adds supplementary groups to those that the child has otherwise: those of [`Command::groups`], of the user, or,
    /// if no id is set, of the host. Several calls add up.
    ///
    /// ```
    /// # use pidherd::Command;
    /// // Group 1 in addition to those of the host.
    /// match Command::new("id").arg("-G").add_groups(&[1]).output() {
    ///     Ok(output) => assert!(String::from_utf8(output.stdout)?.split_whitespace().any(|group| group == "1")),
    ///     // Without CAP_SETGID.
    ///     Err(error) => println!("{error}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn add_groups(mut self, groups: &[u32]) -> Command {
        self.identity.added_groups.extend_from_slice(groups);
        self
    }

    /// Adds supplementary groups by their names, as [`Command::add_groups`] does. They are looked up as for
    /// [`Command::group`].
    ///
    /// ```
    /// # use pidherd::{Command, CommandError};
    /// let program = Command::new("id").add_group_names(["root"]).compile()?;
    /// let unknown = Command::new("id").add_group_names(["root", "no-such-group"]).compile();
    /// assert!(matches!(unknown, Err(CommandError::NoSuchGroup { name }) if name == "no-such-group"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn add_group_names<I>(mut self, names: I) -> Command
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.identity
            .added_group_names
            .extend(names.into_iter().map(Into::into));
        self
    }

    /// Whether `USER`, `LOGNAME`, `HOME` and `SHELL` are set from the user database. The default is true with
    /// [`Command::user`] and false without. With true and no user, the entry is that of the child's uid, and a uid
    /// without an entry is [`CommandError::NoSuchUser`](crate::CommandError::NoSuchUser).
    ///
    /// ```
    /// use pidherd::Command;
    ///
    /// let output = Command::new("/usr/bin/env").env("HOME", "/nowhere").login_env(true).output()?;
    /// let lines = String::from_utf8(output.stdout)?;
    /// assert!(lines.contains("USER=") && lines.contains("HOME=/nowhere"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn login_env(mut self, yes: bool) -> Command {
        self.identity.login_env = Some(yes);
        self
    }

    /// Whether execve cannot give new privileges to the child (PR_SET_NO_NEW_PRIVS; set-user-id programs, file
    /// capabilities). The default is true if the child runs as another, unprivileged user.
    ///
    /// ```
    /// # use pidherd::Command;
    /// let command = Command::new("grep").args(["-q", "^NoNewPrivs:\\s1$", "/proc/self/status"]);
    /// assert!(command.no_new_privileges(true).status()?.exit.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn no_new_privileges(mut self, yes: bool) -> Command {
        self.no_new_privileges = Some(yes);
        self
    }

    /// Sets the capabilities that the child can ever have (the bounding set). The default is the host's.
    ///
    /// An ambient or inheritable capability beyond it is refused when the command is compiled
    /// ([`CommandError::BeyondBounding`](crate::CommandError::BeyondBounding)): by itself, the bounding set limits only
    /// the capabilities of program files.
    ///
    /// ```
    /// # use pidherd::{Capabilities, Command, SpawnStep};
    /// let none = Command::new("grep").args(["-q", "^CapBnd:\\s*0*$", "/proc/self/status"]);
    /// match none.bounding_capabilities(Capabilities::empty()).spawn() {
    ///     Ok(mut child) => assert!(child.wait()?.exit.success()),
    ///     // Without CAP_SETPCAP.
    ///     Err(error) => assert_eq!(error.step(), SpawnStep::Capabilities),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn bounding_capabilities(mut self, set: Capabilities) -> Command {
        self.settings.bounding = Some(set);
        self
    }

    /// Sets the inheritable capabilities. The default is none, independent of the host.
    ///
    /// ```
    /// # use pidherd::{Capabilities, Command, SpawnStep};
    /// // A program file with it in its own inheritable set gets this capability.
    /// let command = Command::new("grep").args(["-q", "^CapInh:.*0400$", "/proc/self/status"]);
    /// match command.inheritable_capabilities(Capabilities::NET_BIND_SERVICE).spawn() {
    ///     Ok(mut child) => assert!(child.wait()?.exit.success()),
    ///     // The host does not have it.
    ///     Err(error) => assert_eq!(error.step(), SpawnStep::Capabilities),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn inheritable_capabilities(mut self, set: Capabilities) -> Command {
        self.settings.inheritable = set;
        self
    }

    /// Sets capabilities that an unprivileged program keeps (the ambient set). The default is none, independent of the
    /// host. They are made inheritable too.
    ///
    /// ```
    /// # use pidherd::{Capabilities, Command};
    /// // A server of another user, with port 80.
    /// let command = Command::new("grep").args(["-q", "^CapEff:\\s*0*0400$", "/proc/self/status"]);
    /// let command = command.uid(65_534).gid(65_534).ambient_capabilities(Capabilities::NET_BIND_SERVICE);
    /// match command.spawn() {
    ///     Ok(mut child) => assert!(child.wait()?.exit.success()),
    ///     // The host may not change the user, or does not have the capability.
    ///     Err(error) => println!("{error}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn ambient_capabilities(mut self, set: Capabilities) -> Command {
        self.settings.ambient = set;
        self
    }
}
