//! The settings of a command that give the child descriptors.

use std::os::fd::RawFd;
use std::sync::Arc;

use super::builder::{Command, Passed};
use super::stdio::Stdio;

impl Command {
    /// Sets standard input. The default is the host's.
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// let count = Command::new("wc").arg("-c").stdin(Stdio::null());
    /// assert_eq!(count.output()?.stdout.trim_ascii(), b"0");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn stdin(mut self, stdio: impl Into<Stdio>) -> Command {
        self.stdio[0] = stdio.into();
        self
    }

    /// Sets standard output. The default is the host's.
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// use std::io::{Read, pipe};
    ///
    /// // Any descriptor of the host will do, here one end of a pipe.
    /// let (mut reader, writer) = pipe()?;
    /// let mut child = Command::new("echo").arg("hello").stdout(std::os::fd::OwnedFd::from(writer)).spawn()?;
    /// child.wait()?;
    /// let mut text = String::new();
    /// reader.read_to_string(&mut text)?;
    /// assert_eq!(text, "hello\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn stdout(mut self, stdio: impl Into<Stdio>) -> Command {
        self.stdio[1] = stdio.into();
        self
    }

    /// Sets standard error. The default is the host's.
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// let both = Command::new("sh").args(["-c", "echo out; echo err >&2"]).stderr(Stdio::stdout());
    /// assert_eq!(both.output()?.stdout, b"out\nerr\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn stderr(mut self, stdio: impl Into<Stdio>) -> Command {
        self.stdio[2] = stdio.into();
        self
    }

    /// Adds a descriptor: `stdio` as number `target` (3 or more) of the child.
    ///
    /// ```
    /// # use pidherd::{Command, Stdio};
    /// use std::io::{Read, Write};
    /// use std::os::fd::OwnedFd;
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (mut host, end) = UnixStream::pair()?;
    /// let mut child = Command::new("sh").args(["-c", "read line <&7; echo $line $line >&7"]).fd(7, end).spawn()?;
    /// host.write_all(b"ho\n")?;
    /// child.wait()?;
    /// let mut answer = [0; 6];
    /// host.read_exact(&mut answer)?;
    /// assert_eq!(&answer, b"ho ho\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn fd(mut self, target: RawFd, stdio: impl Into<Stdio>) -> Command {
        self.passed.push(Passed {
            target,
            stdio: stdio.into(),
        });
        self
    }

    /// Passes a socket as systemd does (sd_listen_fds(3)): it gets the next number from 3 up. `LISTEN_FDS` is the
    /// number of sockets, `LISTEN_PID` the child's own pid.
    ///
    /// ```
    /// # use pidherd::Command;
    /// use std::net::TcpListener;
    ///
    /// // The socket belongs to the host, so that no connection is refused while the program restarts.
    /// let socket = TcpListener::bind(("127.0.0.1", 0))?;
    /// let script = r#"test "$LISTEN_FDS" = 1 -a "$LISTEN_PID" = $$ -a -S /dev/fd/3"#;
    /// assert!(Command::new("sh").args(["-c", script]).listen_fd(socket).status()?.exit.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn listen_fd(self, socket: impl Into<Stdio>) -> Command {
        self.listen(None, socket.into())
    }

    /// Like [`listen_fd`](Command::listen_fd), with a name for the socket. `LISTEN_FDNAMES` has the names of all
    /// sockets, separated by colons (sd_listen_fds_with_names(3)), as soon as one has a name; a socket without one is
    /// called `unknown`.
    ///
    /// A name is printable ASCII without a colon, at most 255 bytes, and may be empty. Another one is a
    /// [`CommandError::DescriptorName`](super::CommandError::DescriptorName) when the command is compiled.
    ///
    /// ```
    /// use pidherd::{Command, Stdio};
    ///
    /// let script = r#"test "$LISTEN_FDS:$LISTEN_FDNAMES" = 2:http:unknown"#;
    /// let command = Command::new("sh").args(["-c", script]);
    /// // In place of sockets:
    /// let command = command.listen_fd_named("http", Stdio::null()).listen_fd(Stdio::null());
    /// assert!(command.spawn()?.wait()?.exit.success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn listen_fd_named(self, name: &str, socket: impl Into<Stdio>) -> Command {
        self.listen(Some(name.into()), socket.into())
    }

    /// Lets a spawn pass up to this many descriptors after those of [`listen_fd`](Command::listen_fd).
    pub(crate) fn with_store(mut self, most: u32) -> Command {
        self.settings.most_stored = most;
        self
    }

    fn listen(mut self, name: Option<Arc<str>>, stdio: Stdio) -> Command {
        self.settings.listen_names.push(name);
        let target = 3 + RawFd::from(self.settings.listen_fds);
        self.settings.listen_fds = self.settings.listen_fds.saturating_add(1);
        self.passed.push(Passed { target, stdio });
        self
    }
}
