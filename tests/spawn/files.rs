//! Files of every type as descriptors of a child: none of them keeps the host waiting.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;

use pidherd::{Child, Command, OpenFile, SpawnError, SpawnProgress, SpawnStep, Spawner, Stdio};

use crate::common::{isolated, tempdir};
use crate::helpers::{output, read_to_end, sh};
use crate::in_flight::finish;

fn fifo(path: &Path) -> PathBuf {
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    path.to_owned()
}

/// Both ways to start it: waiting for its exec, and not.
fn both_ways(command: &Command) -> [Result<Child, SpawnError>; 2] {
    let mut spawner = Spawner::new().unwrap();
    let program = command.compile().unwrap();
    let waited_for = spawner.spawn(&program);
    let begun = spawner.begin(&program).map(|spawning| finish(&mut spawner, spawning));
    let begun = match begun {
        Ok(SpawnProgress::Running(child)) => Ok(child),
        Ok(SpawnProgress::Failed(error)) | Err(error) => Err(error),
        Ok(other) => panic!("{other:?}"),
    };
    [waited_for, begun]
}

fn assert_no_such_device(command: &Command, path: &Path) {
    for spawned in both_ways(command) {
        let error = spawned.unwrap_err();
        assert_eq!((error.step(), error.errno()), (SpawnStep::Open, libc::ENXIO), "{error}");
        assert_eq!(error.path(), Some(path));
    }
}

/// A shell would wait for the other side. The program must not find an end of file instead.
#[test]
fn a_fifo_without_its_other_side_is_refused() {
    isolated(|| {
        let directory = tempdir();
        let path = fifo(&directory.join("fifo"));
        let linked = directory.join("link");
        std::os::unix::fs::symlink(&path, &linked).unwrap();
        for path in [&path, &linked] {
            for command in [
                sh("cat").stdin(Stdio::read(path)),
                sh("cat <&7").fd(7, Stdio::read(path)),
                sh("cat <&40").fd(40, Stdio::read(path)),
                sh("echo").stdout(Stdio::append(path)),
                sh("echo").stdout(Stdio::truncate(path)),
                sh("echo >&7").fd(7, OpenFile::append(path).create(false)),
            ] {
                assert_no_such_device(&command, path);
            }
        }
        // One end is there, and it is the same one.
        let reader = nonblocking().read(true).open(&path).unwrap();
        assert_no_such_device(&sh("cat").stdin(Stdio::read(&path)), &path);
        drop(reader);
    });
}

fn nonblocking() -> OpenOptions {
    let mut options = File::options();
    options.custom_flags(libc::O_NONBLOCK);
    options
}

#[test]
fn a_fifo_with_a_writer_is_read_to_its_end() {
    isolated(|| {
        let directory = tempdir();
        let path = fifo(&directory.join("fifo"));
        let command = sh("cat").stdin(Stdio::read(&path)).stdout(Stdio::piped());
        // A writer that has written nothing yet; and one that has written something that is still there.
        for early in ["", "early "] {
            let reader = nonblocking().read(true).open(&path).unwrap();
            let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
            writer.write_all(early.as_bytes()).unwrap();
            let mut child = command.spawn().unwrap();
            drop(reader);
            writer.write_all(b"late").unwrap();
            drop(writer);
            // It waits for more instead of finding nothing (EAGAIN), and nothing is lost.
            assert_eq!(read_to_end(child.stdout.take().unwrap()), format!("{early}late"));
            assert!(child.wait().unwrap().exit.success());
        }
        // A writer that has gone, and what it has left.
        let reader = nonblocking().read(true).open(&path).unwrap();
        fs::write(&path, "left").unwrap();
        let mut child = command.spawn().unwrap();
        assert_eq!(read_to_end(child.stdout.take().unwrap()), "left");
        assert!(child.wait().unwrap().exit.success());
        drop(reader);
    });
}

#[test]
fn a_fifo_with_a_reader_is_written_to() {
    isolated(|| {
        let directory = tempdir();
        let path = fifo(&directory.join("fifo"));
        let reader = nonblocking().read(true).open(&path).unwrap();
        rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::empty()).unwrap();
        let text = "0123456789".repeat(20_000);
        // More than fits into a pipe: the program waits for the reader instead of losing some (EAGAIN).
        let command = sh("i=0; while [ $i -lt 20000 ]; do printf 0123456789; i=$((i + 1)); done");
        let mut child = command.stdout(Stdio::append(&path)).spawn().unwrap();
        let reading = thread::spawn(move || read_to_end(OwnedFd::from(reader)));
        assert!(child.wait().unwrap().exit.success());
        assert_eq!(reading.join().unwrap(), text);
    });
}

/// As a shell has it: a directory can be opened, and cannot be read.
#[test]
fn files_of_other_types_are_opened_as_a_shell_opens_them() {
    isolated(|| {
        let directory = tempdir();
        fs::write(directory.join("inside"), "text").unwrap();
        let inside = sh("cat /proc/self/fd/7/inside").fd(7, Stdio::read(directory.path()));
        assert_eq!(output(inside), "text");
        for file in [Stdio::append(directory.path()), Stdio::truncate(directory.path())] {
            let error = sh("").stdout(file).spawn().unwrap_err();
            assert_eq!((error.step(), error.errno()), (SpawnStep::Open, libc::EISDIR));
        }
        assert_eq!(
            output(sh("head -c 3 | od -An -tx1").stdin(Stdio::read("/dev/zero"))),
            " 00 00 00\n"
        );
        assert_eq!(output(sh("cat").stdin(Stdio::read("/dev/null"))), "");
        let mut full = sh("echo x")
            .stdout(Stdio::append("/dev/full"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        assert!(!full.wait().unwrap().exit.success());
        let socket = directory.join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_no_such_device(&sh("").stdin(Stdio::read(&socket)), &socket);
        assert_no_such_device(&sh("").stdout(Stdio::append(&socket)), &socket);
    });
}

/// A leader of a session takes the first terminal that it opens for its own, unless it says that it does not want it.
#[test]
fn a_terminal_that_is_opened_does_not_become_the_childs_own() {
    isolated(|| {
        // SAFETY: opens a new terminal; the number is checked before use.
        let master = unsafe {
            let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
            assert!(master >= 0);
            assert_eq!((libc::grantpt(master), libc::unlockpt(master)), (0, 0));
            OwnedFd::from_raw_fd(master)
        };
        let name = terminal_of(&master);
        let stat = Command::new("/bin/cat")
            .arg("/proc/self/stat")
            .setsid(true)
            .stdin(Stdio::read(&name))
            .stderr(Stdio::append(&name));
        let text = output(stat);
        let terminal = text.rsplit(')').next().unwrap().split_whitespace().nth(4);
        assert_eq!(terminal, Some("0"), "{text}");
        drop(master);
    });
}

fn terminal_of(master: &OwnedFd) -> String {
    let mut name = [0; 64];
    // SAFETY: a buffer of the length that is passed, which ends with a NUL then.
    unsafe {
        assert_eq!(libc::ptsname_r(master.as_raw_fd(), name.as_mut_ptr(), name.len()), 0);
        std::ffi::CStr::from_ptr(name.as_ptr()).to_str().unwrap().to_owned()
    }
}
