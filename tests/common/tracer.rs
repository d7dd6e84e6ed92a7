//! A process that traces another one, and so holds it when it has ended (ptrace(2)).

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;

/// The tracer. Dropping it ends it, and lets go of what it traces.
#[derive(Debug)]
pub struct Tracer(libc::pid_t);

impl Tracer {
    /// Attaches a new process to this one; `None` where that is not allowed (Yama, a filter).
    pub fn attach(pid: u32) -> Option<Tracer> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let pid = libc::pid_t::try_from(pid).unwrap();
        // SAFETY: the copy calls nothing but what is async-signal-safe, and never returns.
        let tracer = unsafe { libc::fork() };
        assert!(tracer >= 0, "fork: {}", std::io::Error::last_os_error());
        if tracer == 0 {
            // SAFETY: numbers, and one byte of a live local.
            unsafe {
                let attached = libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) == 0;
                let answer = [b'0' + u8::from(attached)];
                libc::write(writer.as_raw_fd(), answer.as_ptr().cast(), 1);
                loop {
                    libc::pause();
                }
            }
        }
        let tracer = Tracer(tracer);
        drop(writer);
        let mut answer = [0];
        File::from(reader).read_exact(&mut answer).unwrap();
        if answer != *b"1" {
            super::skipped("a process may not be traced here");
            return None;
        }
        Some(tracer)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // SAFETY: a child of this process that has not been waited for, and a status that nothing wants. Where SIGCHLD is
        // ignored the wait fails when it has ended.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}
