//! Which program is started, and what an execve that failed is explained with.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use pidherd::{Command, SpawnError, SpawnStep, Stdio};

use crate::common::{isolated, skipped};
use crate::helpers::{Scratch, output, root};

const FOUND: &str = "#!/bin/sh\necho found\n";

/// A directory with directories in it, one of which has the program.
struct Tree(Scratch);

impl Tree {
    fn new(name: &str) -> Tree {
        let scratch = Scratch::new(name);
        // Users other than root can look for something in it.
        fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o755)).unwrap();
        let tree = Tree(scratch);
        tree.program("good/probe", FOUND, 0o755);
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.0.join(name)
    }

    fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn program(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        if let Some((directory, _)) = name.rsplit_once('/') {
            self.directory(directory);
        }
        self.0.file(name, content, mode)
    }

    /// The program, searched in these directories.
    fn searched(&self, directories: &[&str]) -> Command {
        let whole = |name: &&str| {
            if name.starts_with('/') {
                PathBuf::from(name)
            } else {
                self.path(name)
            }
        };
        let path = std::env::join_paths(directories.iter().map(whole)).unwrap();
        Command::new("probe").env("PATH", path)
    }

    /// Directories in which nothing can be looked for, each for another reason.
    fn dead_entries(&self) -> Vec<String> {
        symlink(self.path("loop"), self.path("loop")).unwrap();
        self.program("file", "", 0o644);
        let (long, deep) = ("x".repeat(300), format!("/{}", "deep/".repeat(1000)));
        ["loop", "loop/below", "file", "missing", &long, &deep]
            .map(str::to_owned)
            .into()
    }
}

fn refused(command: &Command, errno: i32) -> SpawnError {
    let error = command.spawn().unwrap_err();
    assert_eq!((error.step(), error.errno()), (SpawnStep::Exec, errno), "{error}");
    error
}

#[test]
fn a_dead_entry_in_path_does_not_end_the_search() {
    let tree = Tree::new("dead");
    let dead = tree.dead_entries();
    let dead: Vec<&str> = dead.iter().map(String::as_str).collect();
    for entry in &dead {
        assert_eq!(output(tree.searched(&[entry, "good"])), "found\n", "{entry}");
    }
    let all = [&dead[..], &["good"]].concat();
    assert_eq!(output(tree.searched(&all)), "found\n");
}

#[test]
fn a_directory_that_the_user_may_not_search_does_not_end_the_search() {
    if !root("a_directory_that_the_user_may_not_search_does_not_end_the_search") {
        return;
    }
    let tree = Tree::new("locked");
    tree.program("locked/probe", FOUND, 0o755);
    fs::set_permissions(tree.path("locked"), fs::Permissions::from_mode(0o700)).unwrap();
    let as_nobody = |directories: &[&str]| tree.searched(directories).uid(65534).gid(65534);
    assert_eq!(output(as_nobody(&["locked", "good"])), "found\n");
    let error = refused(&as_nobody(&["locked", "missing"]), libc::EACCES);
    assert_eq!(error.path(), Some(tree.path("locked/probe").as_path()));
}

/// Of what the search has met, the error is the best explanation.
#[test]
fn a_program_that_is_nowhere_is_explained_by_what_kept_it_from_being_found() {
    let tree = Tree::new("nowhere");
    tree.dead_entries();
    tree.program("forbidden/probe", FOUND, 0o644);
    let error = refused(&tree.searched(&["missing", "loop", "file"]), libc::ELOOP);
    assert_eq!(error.path(), Some(tree.path("loop/probe").as_path()));
    let error = refused(&tree.searched(&["loop", "forbidden", "missing"]), libc::EACCES);
    assert_eq!(error.path(), Some(tree.path("forbidden/probe").as_path()));
    let error = refused(&tree.searched(&["forbidden", "loop"]), libc::EACCES);
    assert_eq!(error.path(), Some(tree.path("forbidden/probe").as_path()));
    let error = refused(&tree.searched(&["missing", "missing/too"]), libc::ENOENT);
    assert_eq!(error.path(), Some(Path::new("probe")));
    assert!(error.to_string().contains("searched for in PATH"), "{error}");
    let long = "x".repeat(300);
    let error = Command::new(&long).env("PATH", "/bin:/usr/bin").spawn().unwrap_err();
    assert_eq!(error.errno(), libc::ENAMETOOLONG);
}

/// The program that is meant is there. Another one of the same name is not what was asked for.
#[test]
fn a_program_that_is_found_and_cannot_run_ends_the_search() {
    let tree = Tree::new("ends");
    let garbage = tree.program("garbage/probe", "\x01\x02 no program", 0o755);
    let error = refused(&tree.searched(&["missing", "garbage", "good"]), libc::ENOEXEC);
    assert_eq!(error.path(), Some(garbage.as_path()));
    let busy = tree.path("busy/probe");
    tree.directory("busy");
    fs::copy("/bin/true", &busy).unwrap();
    let writer = File::options().append(true).open(&busy).unwrap();
    let error = refused(&tree.searched(&["loop", "busy", "good"]), libc::ETXTBSY);
    assert_eq!(error.path(), Some(busy.as_path()));
    assert!(error.is_transient());
    drop(writer);
    let long = tree.searched(&["good", "missing"]).arg("x".repeat(200_000));
    let error = refused(&long, libc::E2BIG);
    assert_eq!(error.path(), Some(tree.path("good/probe").as_path()));
}

/// Checks the error for a script with a faulty interpreter, searched for or not.
fn assert_blames(tree: &Tree, name: &str, errno: i32, interpreter: &str) {
    let (directory, _) = name.rsplit_once('/').unwrap();
    let script = tree.path(name);
    let by_path = Command::new(&script);
    for command in [by_path, tree.searched(&["missing", directory, "/no/such"])] {
        let error = refused(&command, errno);
        assert_eq!(error.interpreter(), Some(Path::new(interpreter)), "{error}");
        assert_eq!(error.path(), Some(script.as_path()), "{error}");
        let text = error.to_string();
        let both = format!("execve {script:?} with interpreter {interpreter:?}: ");
        assert!(text.contains(&both) && !text.contains("PATH"), "{text}");
    }
}

#[test]
fn a_missing_interpreter_is_named() {
    let tree = Tree::new("interpreter");
    for (name, line) in [
        ("plain", "#!/no/such\n"),
        ("argument", "#! \t/no/such -x 'y z'\n"),
        ("unended", "#!/no/such"),
        ("blank", "#!/no/such \t \n"),
    ] {
        let name = format!("{name}/probe");
        tree.program(&name, line, 0o755);
        assert_blames(&tree, &name, libc::ENOENT, "/no/such");
    }
    tree.program("dos/probe", "#!/bin/sh\r\necho\r\n", 0o755);
    assert_blames(&tree, "dos/probe", libc::ENOENT, "/bin/sh\r");
    tree.program("relative/probe", "#!no-such-here\n", 0o755);
    assert_blames(&tree, "relative/probe", libc::ENOENT, "no-such-here");
    tree.program("file", "", 0o644);
    let under = tree.path("file/sh");
    tree.program("under/probe", &format!("#!{}\n", under.display()), 0o755);
    assert_blames(&tree, "under/probe", libc::ENOTDIR, under.to_str().unwrap());
}

#[test]
fn an_interpreter_that_cannot_run_is_named() {
    let tree = Tree::new("unfit");
    let line = |path: &Path| format!("#!{}\n", path.display());
    let forbidden = tree.program("forbidden", "#!/bin/sh\n", 0o644);
    tree.program("a/probe", &line(&forbidden), 0o755);
    assert_blames(&tree, "a/probe", libc::EACCES, forbidden.to_str().unwrap());
    let directory = tree.directory("directory");
    tree.program("b/probe", &line(&directory), 0o755);
    assert_blames(&tree, "b/probe", libc::EACCES, directory.to_str().unwrap());
    let garbage = tree.program("garbage", "no program\n", 0o755);
    tree.program("c/probe", &line(&garbage), 0o755);
    assert_blames(&tree, "c/probe", libc::ENOEXEC, garbage.to_str().unwrap());
    symlink(tree.path("loop"), tree.path("loop")).unwrap();
    tree.program("d/probe", &line(&tree.path("loop")), 0o755);
    assert_blames(&tree, "d/probe", libc::ELOOP, tree.path("loop").to_str().unwrap());
    // An interpreter that is itself a script with a missing interpreter.
    let middle = tree.program("middle", "#!/no/such\n", 0o755);
    let outer = tree.program("outer", &line(&middle), 0o755);
    tree.program("e/probe", &line(&outer), 0o755);
    assert_blames(&tree, "e/probe", libc::ENOENT, "/no/such");
}

#[test]
fn a_script_that_is_itself_at_fault_is_not_blamed_on_its_interpreter() {
    let tree = Tree::new("itself");
    for (name, content, mode, errno) in [
        ("forbidden", "#!/no/such\n", 0o644, libc::EACCES),
        ("empty", "#!\n", 0o755, libc::ENOEXEC),
        ("blank", "#! \t\n", 0o755, libc::ENOEXEC),
        ("text", "echo\n", 0o755, libc::ENOEXEC),
        ("nothing", "", 0o755, libc::ENOEXEC),
    ] {
        let path = tree.program(&format!("{name}/probe"), content, mode);
        let error = refused(&Command::new(&path), errno);
        assert_eq!(
            (error.path(), error.interpreter()),
            (Some(path.as_path()), None),
            "{error}"
        );
    }
    // Its interpreter is an endless chain of scripts.
    let own = tree.path("itself");
    tree.program("itself", &format!("#!{}\n", own.display()), 0o755);
    assert_eq!(refused(&Command::new(&own), libc::ELOOP).path(), Some(own.as_path()));
    // A line that is longer than the kernel reads.
    let long = tree.program("long/probe", &format!("#!/{}\n", "x".repeat(5000)), 0o755);
    assert_eq!(Command::new(&long).spawn().unwrap_err().path(), Some(long.as_path()));
    let arguments = Command::new(tree.path("good/probe")).arg("x".repeat(200_000));
    assert_eq!(refused(&arguments, libc::E2BIG).interpreter(), None);
}

/// The kernel reads a program that its user may only execute. The child cannot.
#[test]
fn a_missing_interpreter_of_a_program_that_may_not_be_read_has_no_name() {
    if !root("a_missing_interpreter_of_a_program_that_may_not_be_read_has_no_name") {
        return;
    }
    let tree = Tree::new("unreadable");
    let path = tree.program("unreadable/probe", "#!/no/such\n", 0o711);
    for command in [Command::new(&path), tree.searched(&["missing", "unreadable"])] {
        let error = refused(&command.uid(65534).gid(65534), libc::ENOENT);
        assert_eq!(
            (error.path(), error.interpreter()),
            (Some(path.as_path()), None),
            "{error}"
        );
        assert!(
            error.to_string().contains("with an interpreter that is missing"),
            "{error}"
        );
    }
}

#[test]
fn a_script_without_its_interpreter_does_not_end_the_search() {
    let tree = Tree::new("goes-on");
    tree.program("broken/probe", "#!/no/such\n", 0o755);
    assert_eq!(output(tree.searched(&["broken", "good"])), "found\n");
}

/// env(1) has its own way to say so.
#[test]
fn an_interpreter_that_searches_by_itself_is_started() {
    let tree = Tree::new("env");
    let path = tree.program("probe", "#!/usr/bin/env no-such-interpreter\n", 0o755);
    // A directory that cannot be read would be another error.
    let probe = Command::new(path).env("PATH", "/usr/bin:/bin").stderr(Stdio::null());
    assert_eq!(probe.spawn().unwrap().wait().unwrap().exit.code(), Some(127));
}

/// The interpreter is looked for where the child is: in its root, its directory, with its rights.
#[test]
fn an_interpreter_is_looked_for_as_the_child_sees_it() {
    if !root("an_interpreter_is_looked_for_as_the_child_sees_it") {
        return;
    }
    isolated(|| {
        let tree = Tree::new("inside");
        // It exists in the host.
        tree.program("probe", "#!/bin/sh\n", 0o755);
        let error = refused(&Command::new("/probe").chroot(tree.path("")), libc::ENOENT);
        assert_eq!(error.interpreter(), Some(Path::new("/bin/sh")));
        tree.program("relative", "#!interpreter\n", 0o755);
        tree.program("interpreter", "", 0o644);
        let relative = Command::new("./relative").current_dir(tree.path(""));
        let error = refused(&relative, libc::EACCES);
        assert_eq!(error.interpreter(), Some(Path::new("interpreter")));
        assert_eq!(error.path(), Some(Path::new("./relative")));
        let own = tree.program("locked/sh", "#!/bin/sh\n", 0o755);
        fs::set_permissions(tree.path("locked"), fs::Permissions::from_mode(0o700)).unwrap();
        let script = tree.program("script", &format!("#!{}\n", own.display()), 0o755);
        assert!(Command::new(&script).spawn().unwrap().wait().unwrap().exit.success());
        let error = refused(&Command::new(&script).uid(65534).gid(65534), libc::EACCES);
        assert_eq!(error.interpreter(), Some(own.as_path()));
    });
}

/// A program for another C library: the file is there, and still there is no such file.
#[test]
fn a_missing_dynamic_linker_and_a_missing_program_give_different_errors() {
    let tree = Tree::new("linker");
    let mut program = fs::read("/bin/true").unwrap();
    let linker: &[u8] = b"/lib64/ld-linux-x86-64.so.2";
    let Some(at) = program.windows(linker.len()).position(|bytes| bytes == linker) else {
        return skipped("/bin/true has another dynamic linker than the usual one");
    };
    program[at + linker.len() - 1] = b'?';
    let path = tree.path("probe");
    fs::write(&path, &program).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    for command in [Command::new(&path), tree.searched(&["missing", "", "/no/such"])] {
        let error = refused(&command, libc::ENOENT);
        assert_eq!(
            error.path().map(|path| path.file_name()),
            Some(Some(OsStr::new("probe")))
        );
        assert_eq!(error.interpreter(), Some(Path::new("/lib64/ld-linux-x86-64.so.?")));
        assert!(!error.to_string().contains("PATH"), "{error}");
    }
}
