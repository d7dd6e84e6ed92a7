//! Which directories will do, and what is said of the others.

use std::fs::{self, File};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use pidherd::cgroup::{CgroupDir, CgroupError};
use pidherd::signal::Signal;

use crate::common::cgroups::{run_in, sleepers};
use crate::common::{self, isolated, root_or_skip, skipped, tempdir, test_cgroup, wait_until};
use crate::{LIMIT, delegated, wait_empty};

fn refusal(path: impl AsRef<Path>) -> CgroupError {
    CgroupDir::open(path).expect_err("a directory that will not do")
}

fn entries(path: &Path) -> Vec<String> {
    let directories = fs::read_dir(path)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir());
    directories
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn a_delegated_directory_will_do_and_is_left_as_it_was() {
    isolated(|| {
        let Some((cgroup, dir)) = delegated() else { return };
        assert_eq!(dir.path(), cgroup.path());
        assert_eq!(entries(cgroup.path()), [""; 0]);
    });
}

#[test]
fn each_kind_of_unusable_directory_has_its_own_error() {
    isolated(|| {
        let scratch = tempdir();
        let (file, missing, link) = (scratch.join("file"), scratch.join("missing"), scratch.join("link"));
        File::create(&file).unwrap();
        symlink(&missing, &link).unwrap();
        let path = |path: &PathBuf| path.clone();
        for (given, expected) in [
            (path(&missing), CgroupError::Missing { path: path(&missing) }),
            (path(&link), CgroupError::Missing { path: path(&link) }),
            (path(&file), CgroupError::NotADirectory { path: path(&file) }),
            (file.join("x"), CgroupError::NotADirectory { path: file.join("x") }),
            (
                scratch.path().into(),
                CgroupError::NotACgroup {
                    path: scratch.path().into(),
                },
            ),
            ("/proc".into(), CgroupError::NotACgroup { path: "/proc".into() }),
            ("".into(), CgroupError::Missing { path: "".into() }),
        ] {
            assert_eq!(refusal(&given), expected);
        }
        assert!(refusal("/a\0b").to_string().contains("/a\\0b"));
    });
}

#[test]
fn version_1_is_told_apart_from_no_cgroup_at_all() {
    isolated(|| {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let Some(mount) = mounts.find(|fields| fields[2] == "cgroup") else {
            return skipped("needs cgroup v1, which is not mounted");
        };
        let path = PathBuf::from(mount[1]);
        assert_eq!(refusal(&path), CgroupError::Version1 { path });
    });
}

#[test]
fn a_file_of_a_cgroup_is_no_directory() {
    isolated(|| {
        let Some((cgroup, _)) = delegated() else { return };
        let path = cgroup.path().join("cgroup.procs");
        assert_eq!(refusal(&path), CgroupError::NotADirectory { path: path.clone() });
        let error = CgroupDir::from_fd(File::open(path).unwrap()).unwrap_err();
        assert!(matches!(error, CgroupError::NotADirectory { .. }), "{error}");
    });
}

#[test]
fn the_root_of_the_hierarchy_will_do() {
    isolated(|| {
        if let Some(root) = common::cgroup_root().filter(|_| root_or_skip("the root cgroup")) {
            let before = entries(&root).len();
            CgroupDir::open(&root).unwrap();
            assert!(
                entries(&root).iter().all(|name| !name.starts_with("pidherd-probe")),
                "{before}"
            );
        }
    });
}

/// A process that was killed leaves its probe, and its number is given away.
#[test]
fn a_probe_that_is_there_already_is_passed_over() {
    isolated(|| {
        let Some((cgroup, _)) = delegated() else { return };
        let left = |number| {
            cgroup
                .path()
                .join(format!("pidherd-probe-{}-{number}", std::process::id()))
        };
        (0..16).for_each(|number| fs::create_dir(left(number)).unwrap());
        let error = refusal(cgroup.path());
        assert!(error.to_string().ends_with(": File exists"), "{error}");
        fs::remove_dir(left(15)).unwrap();
        CgroupDir::open(cgroup.path()).unwrap();
        assert_eq!(entries(cgroup.path()).len(), 15);
        (0..15).for_each(|number| fs::remove_dir(left(number)).unwrap());
    });
}

/// Ended when this is dropped.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_read_only_mount_is_not_writable_even_for_root() {
    isolated(|| {
        let Some((cgroup, _)) = delegated() else { return };
        if !root_or_skip("mounting") {
            return;
        }
        let script = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec sleep 1000"#;
        let holder = Command::new("unshare")
            .args(["-m", "sh", "-c", script])
            .arg(cgroup.path())
            .stdin(Stdio::null())
            .spawn();
        let holder = Holder(holder.unwrap());
        // Seen through the other's mount namespace: no test of this one is disturbed.
        let pid = holder.0.id();
        wait_until("it is mounted read-only", LIMIT, || {
            fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() == "sleep\n"
        });
        let path = PathBuf::from(format!("/proc/{pid}/root{}", cgroup.path().display()));
        let errno = libc::EROFS;
        assert_eq!(
            refusal(&path),
            CgroupError::NotWritable {
                path: path.clone(),
                errno
            }
        );
    });
}

#[test]
fn a_threaded_directory_can_hold_no_process() {
    isolated(|| {
        let Some(cgroup) = test_cgroup() else { return };
        let (threaded, invalid) = (cgroup.path().join("threaded"), cgroup.path().join("invalid"));
        fs::create_dir(&threaded).unwrap();
        fs::create_dir(&invalid).unwrap();
        fs::write(threaded.join("cgroup.type"), "threaded").unwrap();
        // The one above is now a "domain threaded", and the one beside a "domain invalid".
        for path in [cgroup.path(), &threaded, &invalid] {
            assert_eq!(refusal(path), CgroupError::Threaded { path: path.into() });
        }
    });
}

#[test]
fn a_descriptor_will_do_whatever_it_was_opened_for() {
    isolated(|| {
        let Some((cgroup, dir)) = delegated() else { return };
        let readable = File::open(cgroup.path()).unwrap();
        let flags = (rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY).bits();
        let path_only = fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags as i32)
            .open(cgroup.path());
        for other in [
            CgroupDir::from_fd(&readable).unwrap(),
            CgroupDir::from_fd(path_only.unwrap()).unwrap(),
            dir.clone(),
        ] {
            assert_eq!(other, dir);
            assert_eq!(other.path(), cgroup.path());
            other.leaf("leaf").unwrap().remove().unwrap();
        }
        fs::create_dir(cgroup.path().join("other")).unwrap();
        assert_ne!(CgroupDir::open(cgroup.path().join("other")).unwrap(), dir);
    });
}

#[test]
fn a_full_directory_will_do_but_takes_no_new_leaf() {
    isolated(|| {
        let Some((cgroup, dir)) = delegated() else { return };
        let there = dir.leaf("there").unwrap();
        fs::write(cgroup.path().join("cgroup.max.descendants"), "1").unwrap();
        let again = CgroupDir::open(cgroup.path()).unwrap();
        let path = cgroup.path().join("new");
        assert_eq!(again.leaf("new").unwrap_err(), CgroupError::Limit { path });
        again.leaf("there").unwrap();
        there.remove().unwrap();
    });
}

#[test]
fn a_removed_directory_is_missing() {
    isolated(|| {
        let Some((cgroup, _)) = delegated() else { return };
        let path = cgroup.path().join("short-lived");
        fs::create_dir(&path).unwrap();
        let dir = CgroupDir::open(&path).unwrap();
        fs::remove_dir(&path).unwrap();
        assert_eq!(dir.leaf("leaf").unwrap_err(), CgroupError::Missing { path });
    });
}

/// Set in the process of the unprivileged user, to the directory to use.
const AS_NOBODY: &str = "PIDHERD_TEST_AS_NOBODY";

/// Runs the test called `name` once more as the unprivileged user; whether it succeeded.
fn as_nobody(name: &str, dir: &Path) -> bool {
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(AS_NOBODY, dir)
        .output()
        .unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    print!("{}", String::from_utf8_lossy(&output.stderr));
    output.status.success() && String::from_utf8_lossy(&output.stdout).contains("isolated: done")
}

#[test]
fn the_directory_of_another_user_is_not_writable() {
    isolated(|| {
        if let Some(path) = std::env::var_os(AS_NOBODY).map(PathBuf::from) {
            let errno = libc::EACCES;
            return assert_eq!(
                refusal(&path),
                CgroupError::NotWritable {
                    path: path.clone(),
                    errno
                }
            );
        }
        let Some((cgroup, _)) = delegated() else { return };
        if root_or_skip("becoming the user nobody") {
            let name = "dir::the_directory_of_another_user_is_not_writable";
            assert!(as_nobody(name, cgroup.path()));
        }
    });
}

#[test]
fn a_user_can_use_what_was_delegated_to_it() {
    isolated(|| {
        if let Some(path) = std::env::var_os(AS_NOBODY) {
            return use_as_nobody(Path::new(&path));
        }
        let Some((cgroup, _)) = delegated() else { return };
        if root_or_skip("becoming the user nobody") {
            std::os::unix::fs::chown(cgroup.path(), Some(65534), Some(65534)).unwrap();
            let script = r#"
                until [ -d "$0/leaf" ]; do sleep 0.01; done
                echo $$ >"$0/leaf/cgroup.procs"
                exec sleep 1000"#;
            let mut roots = run_in(cgroup.path(), script);
            let name = "dir::a_user_can_use_what_was_delegated_to_it";
            assert!(as_nobody(name, cgroup.path()));
            if !has_kill(&cgroup.path().join("leaf")) {
                roots.kill().unwrap();
            }
            assert_eq!(roots.wait().unwrap().signal(), Some(9));
        }
    });
}

/// Whether the kernel has `cgroup.kill` (Linux 5.14). Without it a user can end no process that it may not signal.
fn has_kill(leaf: &Path) -> bool {
    !leaf.exists() || leaf.join("cgroup.kill").exists()
}

/// A process of root enters the cgroup. The user cannot signal the process, but can kill it through the cgroup.
fn use_as_nobody(path: &Path) {
    let leaf = CgroupDir::open(path).unwrap().leaf("leaf").unwrap();
    sleepers(&leaf.path(), 1);
    let error = leaf.signal(Signal::TERM).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    if !has_kill(&leaf.path()) {
        let error = leaf.kill().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        return;
    }
    leaf.kill().unwrap();
    wait_empty(&leaf, leaf.events().unwrap());
    assert_eq!(leaf.signal(Signal::TERM).unwrap(), 0);
    leaf.clear().unwrap();
    leaf.remove().unwrap();
}
