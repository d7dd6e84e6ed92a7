//! The library's descriptors in the hands of a host: in its own epoll instance, next to its own child and its
//! own signals.

mod common;

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process::Command;

use common::{Isolation, SOON, isolated};
use pidherd::exit::Pid;
use pidherd::fdset::{Change, FdSet, Interest, Token};
use pidherd::signal::{Signal, SignalSet};
use pidherd::signalfd::{MaskGuard, SignalFd};
use pidherd::time::Instant;
use pidherd::timerfd::{Clock, TimerFd};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

/// A host that registers each descriptor on its own, and knows the descriptors only from the change log.
struct Host(OwnedFd);

impl Host {
    fn new() -> Host {
        Host(epoll::create(epoll::CreateFlags::CLOEXEC).unwrap())
    }

    fn follow(&self, set: &mut FdSet) {
        while let Some(change) = set.next_change() {
            match change {
                Change::Added(entry) => {
                    // SAFETY: an entry's descriptor stays open until its `Removed` has been taken from the
                    // log and dropped. That happens later than this block, in which the borrow ends.
                    let fd = unsafe { BorrowedFd::borrow_raw(entry.fd) };
                    let data = epoll::EventData::new_u64(entry.token.to_raw());
                    let flags = epoll::EventFlags::from_bits_retain(entry.interest.bits());
                    epoll::add(&self.0, fd, data, flags).unwrap();
                }
                Change::Removed { fd, .. } => epoll::delete(&self.0, &fd).unwrap(),
            }
        }
    }

    fn ready(&self) -> BTreeSet<u64> {
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; 64];
        let (events, _) = epoll::wait(&self.0, &mut events, Some(&Timespec::default())).unwrap();
        events.iter().map(|event| event.data.u64()).collect()
    }
}

/// A descriptor that may be in the set.
struct Source {
    fd: Option<OwnedFd>,
    token: Option<Token>,
}

impl Source {
    fn new() -> Source {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        Source {
            fd: Some(fd),
            token: None,
        }
    }

    /// Adds or removes the descriptor, or makes it readable or not readable.
    fn change(&mut self, set: &mut FdSet, what: u64) {
        let Some(fd) = &self.fd else { return };
        match (what, self.token) {
            (0, None) => self.token = Some(set.add(fd.as_fd(), Interest::READ).unwrap()),
            (1, Some(token)) => {
                set.remove(token, self.fd.take().unwrap()).unwrap();
                *self = Source::new();
            }
            (2, _) => drop(rustix::io::write(fd, &1u64.to_ne_bytes())),
            (3, _) => drop(rustix::io::read(fd, &mut [0u8; 8])),
            _ => {}
        }
    }
}

#[test]
fn the_set_and_its_single_descriptors_report_the_same_readiness() {
    isolated(|| {
        let mut set = FdSet::new().unwrap();
        let (one, each) = (Host::new(), Host::new());
        epoll::add(&one.0, &set, epoll::EventData::new_u64(0), epoll::EventFlags::IN).unwrap();
        let mut sources: Vec<Source> = (0..12).map(|_| Source::new()).collect();
        let mut random = fastrand::Rng::with_seed(1);
        for round in 0..20_000 {
            let which = random.usize(..sources.len());
            sources[which].change(&mut set, random.u64(..4));
            // The change log starts after some changes, and collects several changes before the host reads
            // it.
            if round < 100 || random.u64(..4) > 0 {
                continue;
            }
            set.track_changes(true);
            each.follow(&mut set);
            let mut tokens = Vec::new();
            set.ready(&mut tokens).unwrap();
            let tokens: BTreeSet<u64> = tokens.into_iter().map(Token::to_raw).collect();
            assert_eq!(each.ready(), tokens);
            assert_eq!(!one.ready().is_empty(), !tokens.is_empty());
        }
    });
}

#[test]
fn a_descriptor_number_is_not_reused_before_the_host_drops_its_removal() {
    isolated(|| {
        let mut set = FdSet::new().unwrap();
        set.track_changes(true);
        let source = Source::new().fd.unwrap();
        let number = source.as_raw_fd();
        let token = set.add(source.as_fd(), Interest::READ).unwrap();
        // The host registers it.
        assert_eq!(set.next_change().map(|change| change.token()), Some(token));
        set.remove(token, source).unwrap();
        let others: Vec<OwnedFd> = (0..100).map(|_| Source::new().fd.unwrap()).collect();
        assert!(others.iter().all(|other| other.as_raw_fd() != number));
        while let Some(change) = set.next_change() {
            drop(change);
        }
        assert_eq!(lowest_free(), number);
    });
}

fn lowest_free() -> RawFd {
    Source::new().fd.unwrap().as_raw_fd()
}

#[test]
fn a_timer_and_signals_wait_in_one_set() {
    let child_signal = SignalSet::EMPTY.with(Signal::CHLD);
    Isolation::new().blocked(child_signal).run(|| {
        let mut set = FdSet::new().unwrap();
        let mut timer = TimerFd::new(Clock::Boottime).unwrap();
        let signals = SignalFd::new(child_signal).unwrap();
        let timer_token = set.add(timer.as_fd(), Interest::READ).unwrap();
        let signal_token = set.add(signals.as_fd(), Interest::READ).unwrap();
        let mut ready = Vec::with_capacity(1);

        let mut child = Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        assert!(common::wait_readable(&set, SOON));
        set.ready(&mut ready).unwrap();
        assert_eq!(ready, [signal_token]);
        let info = signals.read().unwrap().unwrap();
        assert_eq!(
            (info.signal, info.code, info.status),
            (Signal::CHLD, libc::CLD_EXITED, 3)
        );
        assert_eq!(info.sender.map(Pid::as_raw), Some(child.id()));
        child.wait().unwrap();

        timer.arm(Some(Instant::ZERO)).unwrap();
        assert!(common::wait_readable(&set, SOON));
        set.ready(&mut ready).unwrap();
        assert_eq!(ready, [timer_token]);
        set.remove(timer_token, timer.into()).unwrap();
        set.remove(signal_token, signals.into()).unwrap();
        set.ready(&mut ready).unwrap();
        assert!(ready.is_empty() && set.is_empty());
    });
}

#[test]
#[cfg(target_env = "gnu")]
fn the_value_of_a_queued_signal_arrives() {
    isolated(|| {
        let set = SignalSet::EMPTY.with(Signal::USR1);
        let _blocked = MaskGuard::block(set).unwrap();
        let signals = SignalFd::new(set).unwrap();
        let value = libc::sigval {
            sival_ptr: std::ptr::without_provenance_mut(7),
        };
        // SAFETY: the thread is the current one. The value is a number that is never dereferenced.
        let result = unsafe { libc::pthread_sigqueue(libc::pthread_self(), libc::SIGUSR1, value) };
        assert_eq!(result, 0);
        let info = signals.read().unwrap().unwrap();
        assert_eq!((info.signal, info.code, info.value), (Signal::USR1, libc::SI_QUEUE, 7));
    });
}

#[test]
fn a_timerfd_from_elsewhere_is_taken_over_disarmed() {
    isolated(|| {
        for clock in [Clock::Monotonic, Clock::Boottime] {
            let mut timer = TimerFd::new(clock).unwrap();
            timer.arm(Some(Instant::from_nanos(1))).unwrap();
            let raw = OwnedFd::from(timer);
            rustix::io::fcntl_setfd(&raw, rustix::io::FdFlags::empty()).unwrap();
            rustix::fs::fcntl_setfl(&raw, rustix::fs::OFlags::empty()).unwrap();
            let mut taken = TimerFd::try_from(raw).unwrap();
            assert_eq!(taken.clock(), clock);
            assert_eq!(rustix::io::fcntl_getfd(&taken), Ok(rustix::io::FdFlags::CLOEXEC));
            // The call would block if the descriptor did.
            assert!(!taken.acknowledge().unwrap());
            taken.arm(Some(Instant::from_nanos(1))).unwrap();
            assert!(taken.acknowledge().unwrap());
        }
    });
}

#[test]
fn a_signalfd_from_elsewhere_keeps_its_signals() {
    isolated(|| {
        let set = SignalSet::EMPTY.with(Signal::USR1).with(Signal::from_raw(64).unwrap());
        let _blocked = MaskGuard::block(set).unwrap();
        let raw = OwnedFd::from(SignalFd::new(set).unwrap());
        rustix::io::fcntl_setfd(&raw, rustix::io::FdFlags::empty()).unwrap();
        rustix::fs::fcntl_setfl(&raw, rustix::fs::OFlags::empty()).unwrap();
        let taken = SignalFd::try_from(raw).unwrap();
        assert_eq!(taken.signals(), set);
        assert_eq!(rustix::io::fcntl_getfd(&taken), Ok(rustix::io::FdFlags::CLOEXEC));
        assert_eq!(taken.read().unwrap(), None);
        // SAFETY: the call takes numbers, and the signal is blocked.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
        assert_eq!(taken.read().unwrap().map(|info| info.signal), Some(Signal::USR1));
    });
}

#[test]
fn another_descriptor_is_given_back_unchanged() {
    isolated(|| {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let realtime = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::empty()).unwrap();
        let timer = || OwnedFd::from(TimerFd::new(Clock::Monotonic).unwrap());
        let signals = OwnedFd::from(SignalFd::new(SignalSet::EMPTY).unwrap());
        for (fd, errno) in [(null(), libc::EBADF), (realtime, libc::EINVAL), (signals, libc::EBADF)] {
            let number = fd.as_raw_fd();
            let flags = rustix::io::fcntl_getfd(&fd);
            let refused = TimerFd::try_from(fd).unwrap_err();
            assert_eq!(refused.errno(), errno, "{refused}");
            let text = format!("descriptor {number} cannot be used as a timerfd: ");
            assert!(refused.to_string().starts_with(&text), "{refused}");
            let fd = refused.into_fd();
            assert_eq!((fd.as_raw_fd(), rustix::io::fcntl_getfd(&fd)), (number, flags));
        }
        for fd in [null(), timer()] {
            let number = fd.as_raw_fd();
            let refused = SignalFd::try_from(fd).unwrap_err();
            assert_eq!(refused.errno(), libc::EBADF, "{refused}");
            assert_eq!(refused.into_fd().as_raw_fd(), number);
        }
    });
}

/// A host with a loop of its own uses numbers: mio's `SourceFd`, and bindings of C libraries.
#[test]
fn every_descriptor_of_the_library_has_a_number() {
    fn number(fd: &(impl AsFd + AsRawFd)) {
        assert_eq!(fd.as_fd().as_raw_fd(), fd.as_raw_fd());
    }
    isolated(|| {
        number(&TimerFd::new(Clock::Monotonic).unwrap());
        number(&SignalFd::new(SignalSet::EMPTY).unwrap());
        number(&FdSet::new().unwrap());
        number(&pidherd::PidFd::open(std::process::id()).unwrap());
        number(&pidherd::Launcher::new().unwrap());
        number(&pidherd::notify::NotifySocket::new().unwrap());
        number(&pidherd::notify::ReadyFd::pipe().unwrap().0);
        let mut supervisor = pidherd::Supervisor::new().unwrap();
        number(&supervisor);
        number(&supervisor.waker().unwrap());
    });
}
