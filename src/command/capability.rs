//! Capabilities by name (capabilities(7)).

bitflags::bitflags! {
    /// A set of capabilities (capabilities(7)). Capabilities of newer kernels can be given with `from_bits_retain`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Capabilities: u64 {
        /// Change the owner and the group of any file.
        const CHOWN = 1;
        /// Bypass permission checks on files.
        const DAC_OVERRIDE = 1 << 1;
        /// Bypass permission checks for reading and searching.
        const DAC_READ_SEARCH = 1 << 2;
        /// Act as the owner of any file.
        const FOWNER = 1 << 3;
        /// Keep the set-user-ID and set-group-ID bits when a file is modified.
        const FSETID = 1 << 4;
        /// Send signals to any process.
        const KILL = 1 << 5;
        /// Change gids and supplementary groups.
        const SETGID = 1 << 6;
        /// Change uids.
        const SETUID = 1 << 7;
        /// Change the bounding and inheritable sets.
        const SETPCAP = 1 << 8;
        /// Set the immutable and append-only flags of files.
        const LINUX_IMMUTABLE = 1 << 9;
        /// Bind to ports below 1024.
        const NET_BIND_SERVICE = 1 << 10;
        /// Send broadcasts and listen to multicasts.
        const NET_BROADCAST = 1 << 11;
        /// Configure the network.
        const NET_ADMIN = 1 << 12;
        /// Use raw and packet sockets.
        const NET_RAW = 1 << 13;
        /// Lock memory (mlock(2)).
        const IPC_LOCK = 1 << 14;
        /// Bypass permission checks of System V IPC.
        const IPC_OWNER = 1 << 15;
        /// Load kernel modules.
        const SYS_MODULE = 1 << 16;
        /// Access I/O ports and physical memory.
        const SYS_RAWIO = 1 << 17;
        /// Use chroot(2) and change mount namespaces.
        const SYS_CHROOT = 1 << 18;
        /// Trace any process.
        const SYS_PTRACE = 1 << 19;
        /// Turn process accounting on and off (acct(2)).
        const SYS_PACCT = 1 << 20;
        /// Many operations of system administration; see capabilities(7).
        const SYS_ADMIN = 1 << 21;
        /// Use reboot(2) and kexec_load(2).
        const SYS_BOOT = 1 << 22;
        /// Raise priorities and set affinities of any process.
        const SYS_NICE = 1 << 23;
        /// Override resource limits.
        const SYS_RESOURCE = 1 << 24;
        /// Set the system clock and the hardware clock.
        const SYS_TIME = 1 << 25;
        /// Use privileged operations on virtual terminals, and vhangup(2).
        const SYS_TTY_CONFIG = 1 << 26;
        /// Make device nodes (mknod(2)).
        const MKNOD = 1 << 27;
        /// Take leases on any file (fcntl(2)).
        const LEASE = 1 << 28;
        /// Write the audit log.
        const AUDIT_WRITE = 1 << 29;
        /// Configure auditing.
        const AUDIT_CONTROL = 1 << 30;
        /// Set capabilities of files.
        const SETFCAP = 1 << 31;
        /// Override mandatory access control (Smack).
        const MAC_OVERRIDE = 1 << 32;
        /// Configure mandatory access control (Smack).
        const MAC_ADMIN = 1 << 33;
        /// Use privileged syslog(2) operations.
        const SYSLOG = 1 << 34;
        /// Set timers that wake the system.
        const WAKE_ALARM = 1 << 35;
        /// Use features that prevent a suspend of the system.
        const BLOCK_SUSPEND = 1 << 36;
        /// Read the audit log through a netlink socket.
        const AUDIT_READ = 1 << 37;
        /// Use performance monitoring (Linux 5.8).
        const PERFMON = 1 << 38;
        /// Use privileged BPF operations (Linux 5.8).
        const BPF = 1 << 39;
        /// Use checkpoint and restore (Linux 5.9).
        const CHECKPOINT_RESTORE = 1 << 40;
    }
}
