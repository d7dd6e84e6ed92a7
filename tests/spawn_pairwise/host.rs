//! A host with many properties that a child must not inherit: signals that are blocked, ignored and handled,
//! inheritable and ambient capabilities, and descriptors without close-on-exec.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_int};
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;

use pidherd::Namespace;

use crate::common::{TempDir, TestCgroup, elf, tempdir, test_cgroup};
use crate::observe::{self, Facts};
use crate::pairs::Combination;

/// The objects that the commands refer to.
pub struct Host {
    directory: TempDir,
    /// The leader of a process group that a child can join.
    leader: Child,
    cgroup: Option<Cgroup>,
    /// Two descriptors with numbers below those of the slots, and one above them.
    pub low: Arc<OwnedFd>,
    pub other_low: Arc<OwnedFd>,
    pub high: Arc<OwnedFd>,
    pub sockets: [Arc<OwnedFd>; 2],
    /// Descriptors without close-on-exec.
    pub leaked: OwnedFd,
    _leaked_too: Vec<OwnedFd>,
    /// The path of a file that a child can read or write.
    pub file: PathBuf,
    pub nobody: User,
    /// The facts about the host itself in /proc.
    pub facts: Facts,
    _signals: Dispositions,
}

pub struct Cgroup {
    pub directory: Arc<OwnedFd>,
    pub name: String,
    _made: TestCgroup,
}

impl Host {
    /// Creates a host. This changes the working directory; the caller must restore it.
    pub fn new() -> Host {
        let directory = tempdir();
        fs::create_dir(directory.join("inside")).unwrap();
        elf::install(&directory.join("probe"), elf::WAITING);
        fs::hard_link(directory.join("probe"), directory.join("inside/probe")).unwrap();
        let file = directory.join("file");
        fs::write(&file, "text").unwrap();
        std::env::set_current_dir(directory.path()).unwrap();
        let leader = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        let open = |at, how| duplicate(&File::open(&file).unwrap(), how, at);
        let shared = |at| Arc::new(open(at, libc::F_DUPFD_CLOEXEC));
        let socket = || Arc::new(OwnedFd::from(UnixDatagram::unbound().unwrap()));
        Host {
            leader,
            cgroup: test_cgroup().map(Cgroup::new),
            low: shared(14),
            other_low: shared(15),
            high: shared(900),
            sockets: [socket(), socket()],
            leaked: open(20, libc::F_DUPFD),
            _leaked_too: [4, 21, 31, 50, 66, 901].map(|at| open(at, libc::F_DUPFD)).into(),
            nobody: User::nobody(),
            facts: observe::host(),
            _signals: Dispositions::change(),
            directory,
            file,
        }
    }

    pub fn directory(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    pub fn other_group(&self) -> i32 {
        i32::try_from(self.leader.id()).unwrap()
    }

    /// Panics if there is no cgroup; see [`Host::can`].
    pub fn cgroup(&self) -> &Cgroup {
        self.cgroup.as_ref().expect("the host has no cgroup")
    }

    /// Whether the host has everything that the combination needs.
    pub fn can(&self, combination: &Combination) -> bool {
        combination.get("cgroup") == "none" || self.cgroup.is_some()
    }

    /// The host's own namespace of this kind.
    pub fn namespace(kind: Namespace) -> OwnedFd {
        let name = match kind {
            Namespace::Network => "net",
            other => other.as_str(),
        };
        File::open(format!("/proc/self/ns/{name}")).unwrap().into()
    }

    pub fn hard_limit(&self, name: &str) -> u64 {
        let limits = &self.facts[&format!("limit {name}")];
        let hard = limits.split(' ').nth(1).unwrap();
        hard.parse().unwrap_or(u64::MAX)
    }

    /// The first or the last CPU on which the host may run.
    pub fn cpu(&self, which: &str) -> usize {
        let list = &self.facts["Cpus_allowed_list"];
        let mut numbers = list.split([',', '-']).map(|number| number.parse().unwrap());
        let number = match which {
            "first" => numbers.next(),
            _ => numbers.next_back(),
        };
        number.unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.leader.kill().unwrap();
        self.leader.wait().unwrap();
    }
}

impl Cgroup {
    fn new(made: TestCgroup) -> Cgroup {
        let directory = File::open(made.path()).unwrap();
        Cgroup {
            directory: Arc::new(directory.into()),
            name: made.path().file_name().unwrap().to_str().unwrap().to_owned(),
            _made: made,
        }
    }
}

/// A user's ids, as id(1) prints them.
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
    pub shell: String,
}

impl User {
    fn nobody() -> User {
        let id = |what| {
            let output = Command::new("id").args([what, "nobody"]).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            text.split_whitespace()
                .map(|number| number.parse().unwrap())
                .collect::<Vec<u32>>()
        };
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let line = passwd.lines().find_map(|line| line.strip_prefix("nobody:")).unwrap();
        let fields: Vec<&str> = line.split(':').collect();
        User {
            home: fields[4].to_owned(),
            shell: fields[5].to_owned(),
            uid: id("-u")[0],
            gid: id("-g")[0],
            groups: id("-G"),
        }
    }
}

/// A terminal. It serves only one session, because it hangs up when the session ends.
pub struct Terminal {
    pub slave: Arc<OwnedFd>,
    pub device: u64,
    _master: OwnedFd,
}

impl Terminal {
    /// The number of the terminal's descriptor in the child.
    pub const TARGET: RawFd = 11;

    pub fn new() -> Terminal {
        // SAFETY: each result is checked before use, and the buffer for the name has the given length.
        let (master, name) = unsafe {
            let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
            assert!(master >= 0);
            assert_eq!((libc::grantpt(master), libc::unlockpt(master)), (0, 0));
            let mut name = [0; 64];
            assert_eq!(libc::ptsname_r(master, name.as_mut_ptr(), name.len()), 0);
            let name = CStr::from_ptr(name.as_ptr()).to_str().unwrap().to_owned();
            (OwnedFd::from_raw_fd(master), name)
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NOCTTY);
        let slave = options.open(name).unwrap();
        Terminal {
            device: slave.metadata().unwrap().rdev(),
            slave: Arc::new(slave.into()),
            _master: master,
        }
    }
}

fn duplicate(file: &File, how: c_int, at: RawFd) -> OwnedFd {
    // SAFETY: the source is open, and nothing else owns the new descriptor yet.
    unsafe {
        let copy = libc::fcntl(file.as_raw_fd(), how, at);
        assert!(copy >= at);
        OwnedFd::from_raw_fd(copy)
    }
}

/// Changed dispositions of the process's signals. They are restored on drop.
struct Dispositions(BTreeMap<c_int, libc::sigaction>);

impl Dispositions {
    fn change() -> Dispositions {
        extern "C" fn nothing(_: c_int) {}
        let handler = nothing as extern "C" fn(c_int) as usize;
        let wanted = [
            (libc::SIGHUP, libc::SIG_IGN),
            (libc::SIGINT, libc::SIG_IGN),
            (libc::SIGCHLD, libc::SIG_DFL),
            (libc::SIGUSR2, handler),
            (libc::SIGTERM, handler),
            (libc::SIGRTMIN(), libc::SIG_IGN),
        ];
        Dispositions(
            wanted
                .map(|(signal, action)| (signal, set_action(signal, action)))
                .into(),
        )
    }
}

impl Drop for Dispositions {
    fn drop(&mut self) {
        for (&signal, before) in &self.0 {
            // SAFETY: the disposition was in force before.
            assert_eq!(unsafe { libc::sigaction(signal, before, std::ptr::null_mut()) }, 0);
        }
    }
}

fn set_action(signal: c_int, action: usize) -> libc::sigaction {
    // SAFETY: zeroed structures are valid. The disposition is SIG_DFL, SIG_IGN, or a handler that does
    // nothing.
    unsafe {
        let (mut new, mut old): (libc::sigaction, libc::sigaction) = std::mem::zeroed();
        new.sa_sigaction = action;
        assert_eq!(libc::sigaction(signal, &raw const new, &raw mut old), 0);
        old
    }
}

/// Blocks signals, and makes capabilities inheritable and ambient. The changes stay for the life of the
/// calling thread.
pub fn change_this_thread() {
    const KILL: libc::c_ulong = 5;
    const NET_RAW: libc::c_ulong = 13;
    let (mut header, mut data) = ([0x2008_0522u32, 0], [0u32; 6]);
    // SAFETY: the set is initialised first. The header and the two structures are those of version 3. All
    // other arguments are numbers.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGTERM, libc::SIGUSR2, libc::SIGRTMIN() + 3] {
            libc::sigaddset(&raw mut set, signal);
        }
        assert_eq!(
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()),
            0
        );
        let (header, data) = (header.as_mut_ptr(), data.as_mut_ptr());
        assert_eq!(libc::syscall(libc::SYS_capget, header, data), 0);
        *data.add(2) |= 1 << KILL | 1 << NET_RAW;
        assert_eq!(libc::syscall(libc::SYS_capset, header, data), 0);
        let raise = libc::PR_CAP_AMBIENT_RAISE;
        assert_eq!(libc::prctl(libc::PR_CAP_AMBIENT, raise, NET_RAW, 0, 0), 0);
    }
}
