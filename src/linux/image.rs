//! The kernel's side of a supervisor as data: which descriptors belong to what. After exec(2) the descriptors are
//! still open in the new program, and their numbers are the same.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl};

use super::core::Linux;
use super::inherited::Descriptors;
use super::orphans::OrphanCounts;
use super::run_cgroup::RunCgroup;
use super::stored_fd::StoredImage;
use super::watched::{Rest, Watch, Watched};
use crate::cgroup::{CgroupDir, CgroupError};
use crate::child::Pipes;
use crate::codec::stored;
use crate::engine::context::CgroupPath;
use crate::engine::ids::InstanceId;
use crate::engine::kernel::Report;
use crate::exit::{ExitRecord, Pid};
use crate::fdset::{FdSet, SetImage, end, waits_for};
use crate::launcher::next_look;
use crate::notify::{Counts, NotifySocket, ReadyFd};
use crate::pidfd::PidFd;
use crate::sys::wait;
use crate::time::Instant;
use crate::timerfd::Clock;

/// See the [module](self).
pub(crate) struct LinuxImage {
    pub(crate) clock: Clock,
    /// The set. It waits also for descriptors that belong to nothing else in the image, such as the timer.
    pub(crate) set: SetImage,
    pub(crate) processes: Vec<ProcessImage>,
    pub(crate) socket: Option<SocketImage>,
    /// The remaining lines of the last message.
    pub(crate) reports: VecDeque<(InstanceId, Report)>,
    /// The cgroups of runs that are over, which are still to be removed.
    pub(crate) retired: Vec<CgroupPlace>,
    pub(crate) orphans: Option<(OrphanCounts, VecDeque<ExitRecord>)>,
    /// Children without an instance that are still to be reaped.
    pub(crate) lost: Vec<RawFd>,
    /// The descriptors that instances have stored, in the order of each instance.
    pub(crate) descriptors: Vec<StoredImage>,
}

stored!(struct LinuxImage { clock, set, processes, socket, reports, retired, orphans, lost, descriptors });
stored!(enum Clock { 0 = Monotonic, 1 = Boottime });

/// The directory and the name of a cgroup.
pub(crate) type CgroupPlace = (PathBuf, OsString);

/// A process of an instance.
pub(crate) struct ProcessImage {
    pub(crate) slot: u32,
    pub(crate) pid: Pid,
    pub(crate) pidfd: RawFd,
    pub(crate) watch: WatchImage,
    pub(crate) ready: Option<RawFd>,
    pub(crate) cgroup: Option<CgroupPlace>,
    /// The age of the spawn in flight, and the name of its program.
    pub(crate) in_flight: Option<(Duration, OsString)>,
    /// The host's ends of the pipes that were not taken: the three standard streams and the extra one.
    pub(crate) pipes: Option<PipesImage>,
}

stored!(struct ProcessImage { slot, pid, pidfd, watch, ready, cgroup, in_flight, pipes });

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum WatchImage {
    Alive,
    Late(u32),
    Reaped,
    Group,
    Zombie,
}

stored!(enum WatchImage { 0 = Alive, 1 = Late(looks), 2 = Reaped, 3 = Group, 4 = Zombie });

pub(crate) struct PipesImage {
    pub(crate) stdin: Option<RawFd>,
    pub(crate) stdout: Option<RawFd>,
    pub(crate) stderr: Option<RawFd>,
    pub(crate) extra: Option<RawFd>,
    /// The number of `extra` in the process.
    pub(crate) extra_target: Option<RawFd>,
    /// The other pipes: the number in the process, and that of the descriptor.
    pub(crate) others: Vec<(RawFd, RawFd)>,
}

impl PipesImage {
    /// The ends, which were checked.
    fn take(&self, fds: &mut Descriptors) -> Pipes {
        let mut end = |number: Option<RawFd>| number.and_then(|number| fds.take(number));
        let mut pipes = Pipes::default();
        (pipes.stdin, pipes.stdout, pipes.stderr) = (end(self.stdin), end(self.stdout), end(self.stderr));
        if let Some((target, extra)) = self.extra_target.zip(end(self.extra)) {
            pipes.set_extra(target, extra);
        }
        for &(target, number) in &self.others {
            end(Some(number)).into_iter().for_each(|fd| pipes.add(target, fd));
        }
        pipes
    }
}

stored!(struct PipesImage { stdin, stdout, stderr, extra, extra_target, others });

/// The notify socket.
pub(crate) struct SocketImage {
    pub(crate) fd: RawFd,
    pub(crate) address: OsString,
    pub(crate) counts: Counts,
}

stored!(struct SocketImage { fd, address, counts });

/// Why the processes of an image were not taken over.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// The image contradicts itself.
    Damaged,
    /// This descriptor is not open, or is not what the image says.
    Descriptor(RawFd),
    Cgroup(CgroupError),
    Io(io::Error),
}

impl From<io::Error> for NotTaken {
    fn from(error: io::Error) -> NotTaken {
        NotTaken::Io(error)
    }
}

/// What the engine gets for an instance besides its process.
pub(crate) struct Belongings {
    pub(crate) slot: u32,
    pub(crate) run_cgroup: Option<Arc<CgroupPath>>,
    pub(crate) pipes: Option<Pipes>,
}

impl LinuxImage {
    /// The numbers of the descriptors that belong to something.
    fn belonging(&self) -> Vec<RawFd> {
        let mut all = Vec::with_capacity(self.processes.len() + 2);
        all.extend(self.socket.iter().map(|socket| socket.fd));
        all.extend(&self.lost);
        all.extend(self.descriptors.iter().map(|stored| stored.fd));
        for process in &self.processes {
            all.push(process.pidfd);
            all.extend(process.ready);
            if let Some(pipes) = &process.pipes {
                all.extend([pipes.stdin, pipes.stdout, pipes.stderr, pipes.extra].iter().flatten());
                all.extend(pipes.others.iter().map(|(_, fd)| fd));
            }
        }
        all.push(self.set.epoll);
        all
    }

    /// The numbers of all descriptors of the image, sorted.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let mut all = self.belonging();
        all.extend(self.set.numbers());
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Ends the entries of the set that belong to nothing that goes on, such as the timer and the signalfd of the program
    /// before this one: takes them out of the epoll, and closes their descriptors. It happens before this program makes
    /// a signalfd of its own, because two that read SIGCHLD would take signals from each other.
    pub(crate) fn end_rest(&mut self, fds: &mut Descriptors) -> Result<(), NotTaken> {
        let mut belonging = self.belonging();
        belonging.sort_unstable();
        let is_rest = |number: &RawFd| belonging.binary_search(number).is_err();
        let rest: Vec<RawFd> = self.set.numbers().filter(is_rest).collect();
        let epoll = fds.take(self.set.epoll).ok_or(NotTaken::Descriptor(self.set.epoll))?;
        let is_registered = |number: RawFd| fds.get(number).is_some_and(|fd| waits_for(epoll.as_fd(), fd.as_fd()));
        let stranger = rest.iter().copied().find(|&number| !is_registered(number));
        if stranger.is_none() {
            for number in rest {
                fds.take(number).into_iter().for_each(|fd| end(epoll.as_fd(), fd));
                self.set.remove(number);
            }
        }
        fds.give_back(epoll);
        stranger.map_or(Ok(()), |number| Err(NotTaken::Descriptor(number)))
    }

    /// Whether each descriptor belongs to one thing, and each slot has one process.
    fn is_consistent(&self) -> bool {
        let mut slots: Vec<_> = self.processes.iter().map(|process| process.slot).collect();
        let mut belonging = self.belonging();
        slots.sort_unstable();
        belonging.sort_unstable();
        slots.is_sorted_by(|before, after| before < after) && belonging.is_sorted_by(|before, after| before < after)
    }
}

impl Linux {
    /// The state of this side. `pipes` are those of the instances' runs, by slot.
    pub(crate) fn image<'a>(&self, pipes: impl Fn(u32) -> Option<&'a Pipes>) -> LinuxImage {
        let number = |end: &Option<OwnedFd>| end.as_ref().map(AsRawFd::as_raw_fd);
        let process = |process: &Watched| ProcessImage {
            slot: process.slot,
            pid: process.pidfd.pid(),
            pidfd: process.pidfd.as_raw_fd(),
            watch: match process.watch {
                Watch::Alive(_) => WatchImage::Alive,
                Watch::Late(looks) => WatchImage::Late(looks),
                Watch::Reaped(_) => WatchImage::Reaped,
                Watch::Group => WatchImage::Group,
                Watch::Zombie => WatchImage::Zombie,
            },
            ready: process.ready().map(|(ready, _)| ready.as_fd().as_raw_fd()),
            cgroup: process.run_cgroup().map(RunCgroup::place),
            in_flight: process.flight(self.clock.now()),
            pipes: pipes(process.slot).map(|pipes| PipesImage {
                stdin: number(&pipes.stdin),
                stdout: number(&pipes.stdout),
                stderr: number(&pipes.stderr),
                extra: number(&pipes.extra),
                extra_target: pipes.extra_target(),
                others: pipes
                    .others()
                    .iter()
                    .map(|(target, fd)| (*target, fd.as_raw_fd()))
                    .collect(),
            }),
        };
        LinuxImage {
            clock: self.clock,
            set: self.fds.image(),
            processes: self.processes.iter().flatten().map(process).collect(),
            socket: self.socket().map(|socket| SocketImage {
                fd: socket.as_fd().as_raw_fd(),
                address: socket.address().to_owned(),
                counts: socket.counts(),
            }),
            reports: self.reports.clone(),
            retired: self.run_cgroups.dying().collect(),
            orphans: self
                .orphans
                .as_ref()
                .map(|orphans| (orphans.counts, orphans.reaped().clone())),
            lost: Vec::new(),
            descriptors: self.stored_images(),
        }
    }

    /// Continues with the set of an image: the epoll with its registrations. After an error, and also if a later step
    /// fails, [`Linux::give_back`] undoes what was done.
    pub(crate) fn take_set(&mut self, image: &SetImage, fds: &mut Descriptors) -> Result<(), NotTaken> {
        let epoll = fds.take(image.epoll).ok_or(NotTaken::Descriptor(image.epoll))?;
        let set = FdSet::inherited(image, epoll).map_err(|epoll| {
            fds.give_back(epoll);
            NotTaken::Damaged
        })?;
        self.own_set = Some(mem::replace(&mut self.fds, set));
        for number in image.numbers() {
            let fd = fds.get(number).ok_or(NotTaken::Descriptor(number))?;
            if !self.fds.waits_for(fd.as_fd()) {
                return Err(NotTaken::Descriptor(number));
            }
        }
        Ok(self.join_set()?)
    }

    /// Continues with the socket of an image.
    pub(crate) fn take_socket(&mut self, image: &SocketImage, fds: &mut Descriptors) -> Result<(), NotTaken> {
        let token = self.fds.token_of(image.fd).ok_or(NotTaken::Damaged)?;
        let fd = fds.take(image.fd).ok_or(NotTaken::Descriptor(image.fd))?;
        match NotifySocket::inherited(fd, image.address.clone(), image.counts) {
            Ok(socket) => {
                self.notify = Some((socket, token));
                Ok(())
            }
            Err(fd) => {
                fds.give_back(fd);
                Err(NotTaken::Descriptor(image.fd))
            }
        }
    }

    /// Continues with messages that were read, for the arena with this number.
    pub(crate) fn take_reports(&mut self, reports: &VecDeque<(InstanceId, Report)>, home: u32) {
        let report = |(id, report): &(InstanceId, Report)| (id.at_home(home), report.clone());
        self.reports = reports.iter().map(report).collect();
    }

    /// Continues with the processes of an image. Everything that can be wrong with them is found before the first is
    /// taken. After an error [`Linux::give_back`] undoes what was done.
    ///
    /// The set waits for the pidfds of all processes that are not known to have ended, which proves that they are the
    /// ones that the program before this one had. The others are asked for their process.
    pub(crate) fn take_processes(
        &mut self,
        image: &LinuxImage,
        fds: &mut Descriptors,
    ) -> Result<Vec<Belongings>, NotTaken> {
        let mut directories = Directories::default();
        let mut cgroups = Vec::with_capacity(image.processes.len());
        if !image.is_consistent() {
            return Err(NotTaken::Damaged);
        }
        for process in &image.processes {
            self.check_process(process, fds)?;
            cgroups.push(match &process.cgroup {
                Some(place) => directories.run_cgroup(place)?,
                None => None,
            });
        }
        image
            .descriptors
            .iter()
            .try_for_each(|stored| self.check_stored(stored, fds))?;
        let now = self.clock.now();
        let mut belongings = Vec::with_capacity(image.processes.len());
        for (process, cgroup) in image.processes.iter().zip(cgroups) {
            belongings.extend(self.take_process(process, cgroup, now, fds));
        }
        self.take_stored(&image.descriptors, fds);
        for place in &image.retired {
            // A cgroup that cannot be opened any more cannot be removed either.
            if let Ok(Some((run_cgroup, _))) = directories.run_cgroup(place) {
                self.retire(Some(run_cgroup));
            }
        }
        if let (Some(orphans), Some((counts, reaped))) = (&mut self.orphans, &image.orphans) {
            orphans.restore(*counts, reaped.clone());
        }
        self.own_set = None;
        // What is left belongs to nothing that goes on.
        for fd in fds.drain() {
            if let Some(token) = self.fds.token_of(fd.as_raw_fd()) {
                drop(self.fds.remove(token, fd));
            }
        }
        Ok(belongings)
    }

    fn check_process(&self, process: &ProcessImage, fds: &Descriptors) -> Result<(), NotTaken> {
        let is_in_set = |number| self.fds.token_of(number).is_some();
        let fd = fds.get(process.pidfd).ok_or(NotTaken::Descriptor(process.pidfd))?;
        match process.watch {
            WatchImage::Alive | WatchImage::Reaped if !is_in_set(process.pidfd) => return Err(NotTaken::Damaged),
            WatchImage::Alive | WatchImage::Reaped => {}
            WatchImage::Late(_) | WatchImage::Group | WatchImage::Zombie if is_of(fd, process)? => {}
            WatchImage::Late(_) | WatchImage::Group | WatchImage::Zombie => {
                return Err(NotTaken::Descriptor(process.pidfd));
            }
        }
        match process.ready {
            Some(number) if fds.get(number).is_none() => Err(NotTaken::Descriptor(number)),
            Some(number) if !is_in_set(number) => Err(NotTaken::Damaged),
            Some(_) | None => Ok(()),
        }
    }

    /// Continues with a process that was checked; `None` if it was not.
    fn take_process(
        &mut self,
        image: &ProcessImage,
        cgroup: Option<(RunCgroup, Arc<CgroupPath>)>,
        now: Instant,
        fds: &mut Descriptors,
    ) -> Option<Belongings> {
        let slot = image.slot;
        let pidfd = PidFd::new(fds.take(image.pidfd)?, image.pid);
        let watch = match image.watch {
            WatchImage::Alive => Watch::Alive(self.fds.token_of(image.pidfd)?),
            WatchImage::Reaped => Watch::Reaped(self.fds.token_of(image.pidfd)?),
            WatchImage::Late(looks) => Watch::Late(looks),
            WatchImage::Group => Watch::Group,
            WatchImage::Zombie => Watch::Zombie,
        };
        let ready = image
            .ready
            .and_then(|number| Some((ReadyFd::inherited(fds.take(number)?), self.fds.token_of(number)?)));
        if let Watch::Alive(token) | Watch::Reaped(token) = watch {
            self.set_slot(token, slot);
        }
        if let Some((_, token)) = &ready {
            self.set_slot(*token, slot);
        }
        let (run_cgroup, path) = cgroup.unzip();
        if let Some(run_cgroup) = &run_cgroup {
            self.run_cgroups.move_in(run_cgroup, slot);
        }
        if let Watch::Late(_) = watch {
            self.looks.set(slot, now);
        }
        let inherited_flight = image.in_flight.as_ref();
        let inherited_flight = inherited_flight.map(|(age, program)| (now.saturating_sub(*age), program.clone()));
        if let Some((began, _)) = &inherited_flight {
            self.in_flight += 1;
            self.looks
                .set(slot, next_look(now, now.saturating_duration_since(*began)));
        }
        let mut process = Watched {
            pidfd,
            watch,
            slot,
            in_flight: None,
            rest: Rest {
                run_cgroup,
                ready,
                inherited_flight,
                ..Rest::default()
            }
            .boxed(),
        };
        self.watch_emptying(&mut process);
        self.put(process);
        Some(Belongings {
            slot,
            run_cgroup: path,
            pipes: image.pipes.as_ref().map(|image| image.take(fds)),
        })
    }

    /// Waits for the end of the others in the cgroup of a process that has ended.
    fn watch_emptying(&mut self, process: &mut Watched) {
        let is_emptying = matches!(process.watch, Watch::Reaped(_) | Watch::Group | Watch::Zombie);
        let Some(run_cgroup) = process.run_cgroup_mut() else {
            return;
        };
        if is_emptying {
            // Without this descriptor, looking from time to time finds the empty cgroup.
            if let Ok(token) = run_cgroup.watch(&mut self.fds) {
                self.set_slot(token, process.slot);
            }
        }
    }

    /// Lets go of all processes, without a signal to any of them.
    pub(crate) fn let_all_go(&mut self) {
        self.processes.clear();
    }

    /// Gives everything back that was taken, without a signal to any process. Nothing is watched any more. The epoll has
    /// the registrations of the image and no other.
    pub(crate) fn give_back(&mut self, image: &SetImage, fds: &mut Descriptors) {
        let Some(own_set) = self.own_set.take() else {
            return;
        };
        let mut inherited: Vec<_> = image.numbers().collect();
        inherited.sort_unstable();
        for entry in self
            .fds
            .iter()
            .filter(|entry| inherited.binary_search(&entry.fd).is_err())
        {
            if let Some(fd) = self.fd(entry.token) {
                self.fds.leave(fd);
            }
        }
        for process in self.processes.drain(..).flatten() {
            fds.give_back(process.pidfd.into());
            if let Some((ready, _)) = process.rest.and_then(|rest| rest.ready) {
                fds.give_back(ready.into());
            }
        }
        self.give_stored_back().for_each(|fd| fds.give_back(fd));
        if let Some((socket, _)) = self.notify.take() {
            fds.give_back(socket.into());
        }
        fds.give_back(mem::replace(&mut self.fds, own_set).into_epoll());
    }
}

/// Whether a descriptor is a pidfd of this process. That of a process that was reaped no longer tells a number.
fn is_of(fd: &OwnedFd, process: &ProcessImage) -> io::Result<bool> {
    match number_of(fd) {
        Ok(pid) => Ok(pid == process.pid),
        // Only a pidfd has this error.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The process of a pidfd. One ioctl(2) returns it; its number belongs to pidfds alone. The link in /proc, which takes
/// longer than everything else here, is read only on an older kernel.
fn number_of(fd: &OwnedFd) -> io::Result<Pid> {
    // The flag PIDFD_THREAD of pidfd_open(2) has the value of O_EXCL.
    if !fcntl_getfl(fd)?.contains(OFlags::EXCL) {
        match wait::number_of(fd.as_fd()).map(Pid::new) {
            Ok(Some(pid)) => return Ok(pid),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Err(error),
            // No pidfd, no number in this PID namespace, or a kernel without this request (before Linux 6.13).
            Ok(None) | Err(_) => {}
        }
    }
    PidFd::number_of(fd)
}

/// The directories that were opened for the cgroups of an image.
#[derive(Default)]
pub(super) struct Directories(HashMap<PathBuf, CgroupDir>);

impl Directories {
    /// The cgroup of a run; `None` if it is gone.
    pub(super) fn run_cgroup(
        &mut self,
        (directory, name): &CgroupPlace,
    ) -> Result<Option<(RunCgroup, Arc<CgroupPath>)>, NotTaken> {
        let directory = match self.0.get(directory) {
            Some(known) => known.clone(),
            None => {
                let opened = CgroupDir::open(directory).map_err(NotTaken::Cgroup)?;
                self.0.insert(directory.clone(), opened.clone());
                opened
            }
        };
        let Some(cgroup) = directory.existing(name).map_err(NotTaken::Cgroup)? else {
            return Ok(None);
        };
        let path = CgroupPath {
            dir: directory,
            name: name.to_string_lossy().into_owned(),
        };
        Ok(Some((RunCgroup::of(cgroup), Arc::new(path))))
    }
}

#[cfg(test)]
mod tests {
    use rustix::pipe::{PipeFlags, pipe_with};
    use rustix::process::{PidfdFlags, getpid, getppid, pidfd_open};

    use super::*;
    use crate::command::Spawner;
    use crate::engine::arena::Arena;
    use crate::engine::kernel::{Collected, Kernel};
    use crate::fdset::Interest;
    use crate::testing::common::descriptors::NoDescriptors;
    use crate::testing::common::{SOON, isolated, kernel_since, skipped, test_cgroup, wait_until};

    fn pidfd(pid: rustix::process::Pid) -> (OwnedFd, Pid) {
        let number = Pid::new(pid.as_raw_nonzero().get().unsigned_abs()).unwrap();
        (pidfd_open(pid, PidfdFlags::empty()).unwrap(), number)
    }

    fn image(pid: Pid, pidfd: RawFd, watch: WatchImage) -> ProcessImage {
        ProcessImage {
            slot: 0,
            pid,
            pidfd,
            watch,
            ready: None,
            cgroup: None,
            in_flight: None,
            pipes: None,
        }
    }

    fn linux() -> Linux {
        Linux::new(Clock::Monotonic, Spawner::new().unwrap(), None).unwrap()
    }

    const NOT_WATCHED: [WatchImage; 3] = [WatchImage::Late(1), WatchImage::Group, WatchImage::Zombie];
    const WATCHED: [WatchImage; 2] = [WatchImage::Alive, WatchImage::Reaped];

    #[test]
    fn a_process_that_the_set_does_not_wait_for_is_known_by_its_pidfd() {
        let linux = linux();
        let ((own, pid), (parents, _)) = (pidfd(getpid()), pidfd(getppid().unwrap()));
        let (own_number, parents_number) = (own.as_raw_fd(), parents.as_raw_fd());
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let others = [parents_number, file.as_raw_fd()];
        let fds = Descriptors::left(vec![own, parents, file]);
        for watch in NOT_WATCHED {
            linux.check_process(&image(pid, own_number, watch), &fds).unwrap();
            for number in others {
                let refused = linux.check_process(&image(pid, number, watch), &fds).unwrap_err();
                assert!(matches!(refused, NotTaken::Descriptor(known) if known == number));
            }
        }
        for watch in WATCHED {
            let refused = linux.check_process(&image(pid, own_number, watch), &fds).unwrap_err();
            assert!(matches!(refused, NotTaken::Damaged));
        }
        for watch in NOT_WATCHED.into_iter().chain(WATCHED) {
            let refused = linux.check_process(&image(pid, 1_000_000, watch), &fds).unwrap_err();
            assert!(matches!(refused, NotTaken::Descriptor(1_000_000)));
        }
    }

    #[test]
    fn the_readiness_descriptor_of_a_process_is_open_and_in_the_set() {
        let mut linux = linux();
        let (own, pid) = pidfd(getpid());
        let (ready, _writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let number = own.as_raw_fd();
        let ready_number = ready.as_raw_fd();
        linux.fds.add(own.as_fd(), Interest::READ).unwrap();
        let with = |ready| ProcessImage {
            ready: Some(ready),
            ..image(pid, number, WatchImage::Alive)
        };
        let fds = Descriptors::left(vec![own, ready]);
        linux
            .check_process(&image(pid, number, WatchImage::Alive), &fds)
            .unwrap();
        let refused = linux.check_process(&with(1_000_000), &fds).unwrap_err();
        assert!(matches!(refused, NotTaken::Descriptor(1_000_000)));
        let refused = linux.check_process(&with(ready_number), &fds).unwrap_err();
        assert!(matches!(refused, NotTaken::Damaged));
        let ready = fds.get(ready_number).unwrap().as_fd();
        linux.fds.add(ready, Interest::READ).unwrap();
        linux.check_process(&with(ready_number), &fds).unwrap();
    }

    #[test]
    fn a_slot_and_a_descriptor_are_given_once() {
        let (_, pid) = pidfd(getpid());
        let image_of = |processes: [(u32, RawFd, RawFd); 2]| {
            let process = |(slot, pidfd, ready)| ProcessImage {
                slot,
                ready: Some(ready),
                ..image(pid, pidfd, WatchImage::Alive)
            };
            let mut image = linux().image(|_| None);
            image.processes = processes.map(process).into();
            image
        };
        assert!(image_of([(0, 1_000, 1_001), (1, 1_002, 1_003)]).is_consistent());
        assert!(image_of([(1, 1_003, 1_002), (0, 1_001, 1_000)]).is_consistent());
        for twice in [
            [(0, 1_000, 1_001), (0, 1_002, 1_003)],
            [(0, 1_000, 1_001), (1, 1_000, 1_002)],
            [(0, 1_000, 1_001), (1, 1_002, 1_000)],
        ] {
            let refused = linux().take_processes(&image_of(twice), &mut Descriptors::default());
            assert!(matches!(refused, Err(NotTaken::Damaged)), "{twice:?}");
        }
    }
    #[test]
    fn a_process_that_was_reaped_is_known_by_the_kind_of_its_descriptor() {
        isolated(|| {
            let linux = linux();
            let mut child = std::process::Command::new("true").spawn().unwrap();
            let (reaped, pid) = pidfd(rustix::process::Pid::from_child(&child));
            child.wait().unwrap();
            let (own, own_pid) = pidfd(getpid());
            let images = [(pid, &reaped), (own_pid, &own)]
                .map(|(pid, fd)| NOT_WATCHED.map(|watch| image(pid, fd.as_raw_fd(), watch)));
            let fds = Descriptors::left(vec![reaped, own]);
            let check = || {
                let images = images.as_flattened().iter();
                images.for_each(|image| linux.check_process(image, &fds).unwrap());
            };
            check();
            // Since then the kernel tells the number of a pidfd without /proc.
            if kernel_since(6, 13) {
                let none = NoDescriptors::left();
                check();
                drop(none);
            }
        });
    }

    #[test]
    fn the_pidfd_of_a_thread_is_refused() {
        // PIDFD_THREAD
        let flags = PidfdFlags::from_bits_retain(OFlags::EXCL.bits());
        let Ok(thread) = pidfd_open(getpid(), flags) else {
            return skipped("needs pidfds of threads (Linux 6.9)");
        };
        let (_, pid) = pidfd(getpid());
        let number = thread.as_raw_fd();
        let fds = Descriptors::left(vec![thread]);
        for watch in NOT_WATCHED {
            let refused = linux().check_process(&image(pid, number, watch), &fds).unwrap_err();
            assert!(matches!(refused, NotTaken::Io(error) if error.raw_os_error() == Some(libc::EINVAL)));
        }
    }

    #[test]
    fn messages_that_were_read_are_those_of_the_same_instances_in_the_new_program() {
        let mut instances: Arena<InstanceId, ()> = Arena::new(3);
        let (first, second) = (instances.insert(()), instances.insert(()));
        let read = VecDeque::from([(second, Report::Ready), (first, Report::Stopping)]);
        let mut linux = linux();
        linux.take_reports(&read, 4);
        let taken = linux.image(|_| None).reports;
        let expected = [(second.at_home(4), Report::Ready), (first.at_home(4), Report::Stopping)];
        assert_eq!(taken, expected);
    }

    #[test]
    fn spawns_in_flight_are_counted_and_looked_at_and_what_belongs_to_nothing_is_closed() {
        let mut linux = linux();
        let [(first, pid), (second, _)] = [pidfd(getpid()), pidfd(getpid())];
        let (rest, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        linux.fds.add(rest.as_fd(), Interest::READ).unwrap();
        let entries = linux.entries();
        let mut taken = linux.image(|_| None);
        for (slot, fd) in [(0, &first), (1, &second)] {
            taken.processes.push(ProcessImage {
                slot,
                in_flight: Some((Duration::from_secs(1), "program".into())),
                ..image(pid, fd.as_raw_fd(), WatchImage::Group)
            });
        }
        let mut fds = Descriptors::left(vec![first, second, rest]);
        let belongings = linux.take_processes(&taken, &mut fds).unwrap();
        assert_eq!(belongings.len(), 2);
        assert_eq!(linux.in_flight, 2);
        assert!(linux.look_at().is_some());
        assert_eq!(linux.entries(), entries - 1);
        assert!(rustix::io::write(&writer, b"x").is_err(), "its other end is closed");
    }

    #[test]
    fn the_cgroup_of_an_ended_process_is_waited_for() {
        isolated(|| {
            let Some(cgroup) = test_cgroup() else { return };
            let run = cgroup.path().join("run");
            std::fs::create_dir(&run).unwrap();
            let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
            std::fs::write(run.join("cgroup.procs"), child.id().to_string()).unwrap();
            let mut linux = linux();
            let (own, pid) = pidfd(getpid());
            let mut taken = linux.image(|_| None);
            taken.processes.push(ProcessImage {
                cgroup: Some((cgroup.path().to_owned(), "run".into())),
                ..image(pid, own.as_raw_fd(), WatchImage::Group)
            });
            let mut fds = Descriptors::left(vec![own]);
            let belongings = linux.take_processes(&taken, &mut fds).unwrap();
            let path = belongings[0].run_cgroup.as_ref().unwrap();
            assert_eq!((path.dir.path(), path.name.as_str()), (cgroup.path(), "run"));
            assert_eq!(linux.entries(), 2);
            for entry in linux.fds.iter() {
                assert_eq!(linux.fd(entry.token).map(|fd| fd.as_raw_fd()), Some(entry.fd));
            }
            assert_eq!(linux.collect(0, true).unwrap(), Collected::Nothing);
            child.kill().unwrap();
            child.wait().unwrap();
            wait_until("the cgroup is empty", SOON, || {
                linux.collect(0, true).unwrap() == Collected::CgroupEmpty
            });
            linux.discard(0, SOON);
            assert!(!run.exists());
        });
    }
}
