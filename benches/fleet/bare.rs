//! The contender *bare clone3 in flight*: the system calls that a launcher makes for each spawn, and no code around
//! them.
//!
//! As many children as with the launcher are in flight at a time. The words that the kernel zeroes are looked at when
//! the epoll says so, which also contains a timer.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::program::Program;
use super::times::{IN_FLIGHT, Result, Times};
use crate::case::Case;
use raw::{CloneArgs, Run, Stack, call, clone3};
use steps::Steps;

#[path = "../spawn/limit/raw.rs"]
mod raw;
#[expect(dead_code, reason = "the other benchmark uses the rest")]
#[path = "../spawn/limit/steps.rs"]
mod steps;

/// The memory of one child.
struct Flight {
    stack: Stack,
    run: Box<Run>,
    word: Box<AtomicU32>,
    pidfd: Option<usize>,
}

impl Flight {
    fn begin(&mut self, steps: &mut Steps, epoll: usize) {
        for stream in 0..3 {
            call(libc::SYS_fcntl, [stream, libc::F_GETFD as usize, 0, 0, 0]);
        }
        call(libc::SYS_capget, steps.capget());
        const CLEAR_SIGHAND: u64 = 1 << 32;
        let flags = libc::CLONE_PIDFD | libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_CHILD_CLEARTID;
        let mut pidfd: c_int = -1;
        *self.run = Run::new(steps.list());
        self.word.store(1, Ordering::Relaxed);
        let args = CloneArgs {
            flags: flags as u64 | CLEAR_SIGHAND,
            pidfd: (&raw mut pidfd).expose_provenance() as u64,
            child_tid: self.word.as_ptr().expose_provenance() as u64,
            parent_tid: 0,
            exit_signal: libc::SIGCHLD as u64,
            stack: self.stack.bottom() as u64,
            stack_size: Stack::SIZE as u64,
            tls: 0,
        };
        let (all, mut before) = (u64::MAX, 0u64);
        let set = libc::SIG_SETMASK as usize;
        let (all, old) = ((&raw const all) as usize, (&raw mut before) as usize);
        call(libc::SYS_rt_sigprocmask, [set, all, old, 8, 0]);
        let pid = clone3(&args, &mut self.stack, &mut self.run);
        call(libc::SYS_rt_sigprocmask, [set, old, 0, 8, 0]);
        assert!(pid > 0, "clone3: {pid}");
        let pidfd = pidfd as usize;
        self.pidfd = Some(pidfd);
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: 0,
        };
        let event = (&raw mut event) as usize;
        let add = libc::EPOLL_CTL_ADD as usize;
        call(libc::SYS_epoll_ctl, [epoll, add, pidfd, event, 0]);
    }

    /// The pidfd of the child, if its program runs.
    fn finish(&mut self, epoll: usize) -> Option<usize> {
        if self.word.load(Ordering::Acquire) != 0 {
            return None;
        }
        let pidfd = self.pidfd.take()?;
        assert_eq!(self.run.failed, 0, "the child failed");
        let delete = libc::EPOLL_CTL_DEL as usize;
        call(libc::SYS_epoll_ctl, [epoll, delete, pidfd, 0, 0]);
        let (mut info, mut usage) = ([0u64; 16], [0u64; 18]);
        let (info, usage) = ((&raw mut info) as usize, (&raw mut usage) as usize);
        let options = (libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) as usize;
        call(libc::SYS_waitid, [libc::P_PIDFD as usize, pidfd, info, options, usage]);
        Some(pidfd)
    }
}

pub fn in_flight(program: &Program, fleet: usize) -> Result<Times> {
    let mut steps = Steps::new(Case::Plain, program.path())?;
    let epoll = call(libc::SYS_epoll_create1, [libc::EPOLL_CLOEXEC as usize, 0, 0, 0, 0]);
    let flags = (libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) as usize;
    let timer = call(
        libc::SYS_timerfd_create,
        [libc::CLOCK_MONOTONIC as usize, flags, 0, 0, 0],
    );
    let mut event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: 1,
    };
    let data = (&raw mut event) as usize;
    call(
        libc::SYS_epoll_ctl,
        [epoll, libc::EPOLL_CTL_ADD as usize, timer, data, 0],
    );
    let mut flights: Vec<Flight> = (0..IN_FLIGHT)
        .map(|_| Flight {
            stack: Stack::new(),
            run: Box::new(Run::new(&[])),
            word: Box::default(),
            pidfd: None,
        })
        .collect();
    let (mut begun, mut children, mut held) = (0, Vec::with_capacity(fleet), Vec::with_capacity(fleet));
    let began = Instant::now();
    while children.len() < fleet {
        for flight in flights.iter_mut().filter(|flight| flight.pidfd.is_none()) {
            if begun < fleet {
                let now = Instant::now();
                flight.begin(&mut steps, epoll);
                held.push(now.elapsed());
                begun += 1;
            }
        }
        wait(epoll, timer);
        children.extend(flights.iter_mut().filter_map(|flight| flight.finish(epoll)));
    }
    let start = began.elapsed();
    let began = Instant::now();
    for &pidfd in &children {
        call(libc::SYS_pidfd_send_signal, [pidfd, libc::SIGTERM as usize, 0, 0, 0]);
    }
    for &pidfd in &children {
        let (mut info, mut usage) = ([0u64; 16], [0u64; 18]);
        let (info, usage) = ((&raw mut info) as usize, (&raw mut usage) as usize);
        let options = libc::WEXITED as usize;
        call(libc::SYS_waitid, [libc::P_PIDFD as usize, pidfd, info, options, usage]);
        call(libc::SYS_close, [pidfd, 0, 0, 0, 0]);
    }
    call(libc::SYS_close, [timer, 0, 0, 0, 0]);
    call(libc::SYS_close, [epoll, 0, 0, 0, 0]);
    let stop = began.elapsed();
    Ok(Times { start, stop, held })
}

/// Arms the timer, waits for it, and takes its expiry.
fn wait(epoll: usize, timer: usize) {
    const LOOK: Duration = Duration::from_micros(100);
    let time = [0u64, 0, 0, u64::from(LOOK.subsec_nanos())];
    call(libc::SYS_timerfd_settime, [timer, 0, (&raw const time) as usize, 0, 0]);
    let mut poll = libc::pollfd {
        fd: epoll as c_int,
        events: libc::POLLIN,
        revents: 0,
    };
    call(libc::SYS_ppoll, [(&raw mut poll) as usize, 1, 0, 0, 0]);
    let mut expired = 0u64;
    call(libc::SYS_read, [timer, (&raw mut expired) as usize, 8, 0, 0]);
}
