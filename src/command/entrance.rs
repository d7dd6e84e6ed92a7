//! The file through which a process enters a cgroup by itself, where the kernel cannot make it there.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, fstatfs, openat};
use rustix::io::{Errno, retry_on_intr};

use super::error::{SpawnError, SpawnStep, Subject};
use super::program::Compiled;
use crate::sys::nr::CGROUP2_SUPER_MAGIC;

const WRITING: OFlags = OFlags::WRONLY.union(OFlags::CLOEXEC);

/// Opens the file of a cgroup through which a process enters it.
pub(super) fn open_entrance(program: &Compiled, cgroup: BorrowedFd<'_>) -> Result<OwnedFd, SpawnError> {
    let entrance = match fstatfs(cgroup) {
        Ok(place) if place.f_type == CGROUP2_SUPER_MAGIC => {
            retry_on_intr(|| openat(cgroup, c"cgroup.procs", WRITING, Mode::empty()))
        }
        // clone3 fails with the same errno.
        Ok(_) => Err(Errno::BADF),
        Err(errno) => Err(errno),
    };
    entrance.map_err(|errno| {
        let subject = Subject::Path(path_of(cgroup));
        program.parent_error(SpawnStep::Cgroup, errno.raw_os_error(), Some(subject))
    })
}

/// The path of an open directory, for a message.
pub(super) fn path_of(directory: BorrowedFd<'_>) -> PathBuf {
    let link = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    std::fs::read_link(&link).unwrap_or(link)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::path::Path;

    use super::super::{Command, Spawner, Stdio};
    use super::*;
    use crate::child::Child;
    use crate::sys::spawn::clone::Method;
    use crate::testing::common::refuse::refusing;
    use crate::testing::common::{isolated, tempdir, test_cgroup};

    /// Spawns where the child must enter its cgroup itself.
    fn spawn_in(place: &Path, command: Command) -> Result<Child, SpawnError> {
        let mut spawner = Spawner::new().unwrap();
        spawner.method = Method::Clone;
        let directory = File::open(place).unwrap();
        let program = command.compile().unwrap();
        spawner.spawn_in(&program, Some(directory.as_fd()))
    }

    #[test]
    fn a_child_enters_its_cgroup_where_the_kernel_does_not_place_it_there() {
        isolated(|| {
            let Some(cgroup) = test_cgroup() else { return };
            let cat = Command::new("cat").arg("/proc/self/cgroup").stdout(Stdio::piped());
            let mut child = spawn_in(cgroup.path(), cat).unwrap();
            let mut text = String::new();
            File::from(child.stdout.take().unwrap())
                .read_to_string(&mut text)
                .unwrap();
            assert!(child.wait().unwrap().exit.success());
            let name = cgroup.path().file_name().unwrap().to_str().unwrap();
            assert!(text.contains(&format!("/{name}\n")), "{text}");
        });
    }

    #[test]
    fn a_file_of_this_name_outside_of_cgroups_is_not_written() {
        let place = tempdir();
        fs::write(place.join("cgroup.procs"), "as before").unwrap();
        let error = spawn_in(place.path(), Command::new("true")).unwrap_err();
        assert_eq!((error.step(), error.errno()), (SpawnStep::Cgroup, libc::EBADF));
        assert_eq!(error.path(), Some(place.path()));
        assert_eq!(fs::read_to_string(place.join("cgroup.procs")).unwrap(), "as before");
    }

    #[test]
    fn the_error_of_a_child_that_cannot_enter_its_cgroup_names_the_cgroup_and_that_of_a_later_step_does_not() {
        isolated(|| {
            let Some(cgroup) = test_cgroup() else { return };
            let error = refusing(libc::SYS_write, libc::EDOM, || {
                spawn_in(cgroup.path(), Command::new("true")).unwrap_err()
            });
            assert_eq!((error.step(), error.errno()), (SpawnStep::Cgroup, libc::EDOM));
            assert_eq!(error.path(), Some(cgroup.path()));
            let error = spawn_in(cgroup.path(), Command::new("true").current_dir("/no/such")).unwrap_err();
            assert_eq!(error.step(), SpawnStep::CurrentDir);
            assert_eq!(error.path(), Some(Path::new("/no/such")));
        });
    }
}
