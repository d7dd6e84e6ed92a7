//! A process that traces another one. A tracer keeps its tracee as a zombie after the tracee has ended (ptrace(2)).

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;

/// The tracer. Dropping it ends the tracer and detaches it from its tracee.
#[derive(Debug)]
pub struct Tracer(libc::pid_t);

impl Tracer {
    /// Attaches a new tracer to the process. `None` if tracing is not permitted (Yama, a filter).
    pub fn attach(pid: u32) -> Option<Tracer> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let pid = libc::pid_t::try_from(pid).unwrap();
        // SAFETY: the copy calls only async-signal-safe functions, and never returns.
        let tracer = unsafe { libc::fork() };
        assert!(tracer >= 0, "fork: {}", std::io::Error::last_os_error());
        if tracer == 0 {
            // SAFETY: the calls take numbers, and the address of one byte of a live local variable.
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
        // SAFETY: the process is a child that has not been waited for, and its status is not requested. If SIGCHLD is
        // ignored, the wait fails after the child has ended.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}
