//! More constructors of steps: terminals, scheduling, limits, capabilities.

use std::ffi::{c_int, c_ulong};
use std::os::fd::RawFd;

use super::capabilities::{CAPABILITY_DATA, CapabilitySets};
use super::script::{Own, Script, Then};
use crate::signal::Signal;
use crate::sys::process;

impl Script {
    // Terminal.

    /// TIOCSCTTY on one of the child's descriptors. It never takes a terminal from another session.
    pub(crate) fn controlling_terminal(&mut self, label: usize, fd: RawFd) {
        self.call(label, libc::SYS_ioctl, &[fd as usize, libc::TIOCSCTTY as usize, 0]);
    }

    /// TIOCSPGRP with the child's own process group. The kernel sends SIGTTOU to a background process that makes this
    /// call. It is blocked here, like all signals.
    pub(crate) fn foreground(&mut self, label: usize, fd: RawFd) {
        self.push(label, libc::SYS_getpgid, [0; 6], Then::Number);
        let args = [fd as usize, libc::TIOCSPGRP as usize, 0, 0, 0, 0];
        self.push_own(label, libc::SYS_ioctl, args, Then::Succeed, Own::Number(2));
    }

    // Scheduling and limits.

    pub(crate) fn nice(&mut self, label: usize, nice: i32) {
        self.call(
            label,
            libc::SYS_setpriority,
            &[libc::PRIO_PROCESS as usize, 0, nice as usize],
        );
    }

    /// sched_setscheduler(2): the policy and the static priority.
    pub(crate) fn scheduling(&mut self, label: usize, (policy, priority): (i32, i32)) {
        let parameter = self.hold(&priority.to_ne_bytes());
        self.call(label, libc::SYS_sched_setscheduler, &[0, policy as usize, parameter]);
    }

    /// ioprio_set(2) for the child alone.
    pub(crate) fn io_priority(&mut self, label: usize, priority: u32) {
        const IOPRIO_WHO_PROCESS: usize = 1;
        self.call(label, libc::SYS_ioprio_set, &[IOPRIO_WHO_PROCESS, 0, priority as usize]);
    }

    /// sched_setaffinity(2): exactly these CPUs.
    pub(crate) fn affinity(&mut self, label: usize, cpus: &[usize]) {
        let bits = c_ulong::BITS as usize;
        let length = cpus.iter().max().map_or(1, |&last| last / bits + 1);
        let mut mask: Vec<c_ulong> = vec![0; length];
        for &cpu in cpus {
            if let Some(word) = mask.get_mut(cpu / bits) {
                *word |= 1 << (cpu % bits);
            }
        }
        let bytes: Vec<u8> = mask.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let address = self.hold(&bytes);
        self.call(label, libc::SYS_sched_setaffinity, &[0, bytes.len(), address]);
    }

    /// Writes `value` to the child's own oom_score_adj. `scratch` is a descriptor number that is free at that time.
    /// (With CLONE_VFORK the kernel does not apply the value to the parent, although the memory is shared.)
    pub(crate) fn oom_score_adj(&mut self, label: usize, value: i32, scratch: RawFd) {
        let path = self.hold(b"/proc/self/oom_score_adj\0");
        let text = value.to_string();
        let (bytes, length) = (self.hold(text.as_bytes()), text.len());
        let flags = (libc::O_WRONLY | libc::O_CLOEXEC) as usize;
        let args = [libc::AT_FDCWD as usize, path, flags, 0, 0, 0];
        self.push(label, libc::SYS_openat, args, Then::Place(scratch as usize));
        self.call(label, libc::SYS_write, &[scratch as usize, bytes, length]);
        self.call(label, libc::SYS_close, &[scratch as usize]);
    }

    /// prlimit(2) with 64 bits on every architecture; `u64::MAX` means unlimited.
    pub(crate) fn limit(&mut self, label: usize, resource: u32, soft: u64, hard: u64) {
        let pair = self.hold(&[soft.to_ne_bytes(), hard.to_ne_bytes()].concat());
        self.push(
            label,
            libc::SYS_prlimit64,
            [0, resource as usize, pair, 0, 0, 0],
            Then::Succeed,
        );
    }

    // Capabilities.

    /// capset(2).
    pub(crate) fn set_capabilities(&mut self, label: usize, sets: CapabilitySets) {
        let bytes: Vec<u8> = sets.to_words().iter().flat_map(|word| word.to_ne_bytes()).collect();
        let address = self.hold(&bytes);
        self.call(
            label,
            libc::SYS_capset,
            &[address, address.wrapping_add(CAPABILITY_DATA)],
        );
    }

    /// Adds each of these capabilities to the ambient set.
    pub(crate) fn raise_ambient(&mut self, label: usize, set: u64) {
        for capability in bits(set) {
            let args = [
                libc::PR_CAP_AMBIENT as usize,
                libc::PR_CAP_AMBIENT_RAISE as usize,
                capability,
                0,
                0,
                0,
            ];
            self.push(label, libc::SYS_prctl, args, Then::Succeed);
        }
    }

    /// Removes every capability except those in `keep` from the bounding set. Capabilities that are not in the set now
    /// need no step.
    pub(crate) fn limit_bounding(&mut self, label: usize, keep: u64) {
        for capability in bits(!keep).filter(|&capability| process::is_in_bounding_set(capability)) {
            self.call(label, libc::SYS_prctl, &[libc::PR_CAPBSET_DROP as usize, capability]);
        }
    }

    /// Keeps the permitted set when the uid changes. execve clears this setting.
    pub(crate) fn keep_capabilities(&mut self, label: usize) {
        self.call(label, libc::SYS_prctl, &[libc::PR_SET_KEEPCAPS as usize, 1]);
    }

    // Namespaces.

    /// unshare(2).
    pub(crate) fn unshare(&mut self, label: usize, kind: c_int) {
        self.call(label, libc::SYS_unshare, &[kind as usize]);
    }

    /// setns(2) with a descriptor that the program does not get.
    pub(crate) fn setns(&mut self, label: usize, namespace: RawFd, kind: c_int) {
        self.call(label, libc::SYS_setns, &[namespace as usize, kind as usize]);
        self.call(label, libc::SYS_close, &[namespace as usize]);
    }

    /// Ends the propagation of mounts to the namespace that this one was copied from (mount_namespaces(7)).
    pub(crate) fn make_mounts_slaves(&mut self, label: usize) {
        let flags = (libc::MS_REC | libc::MS_SLAVE) as usize;
        let (none, root) = (self.hold(b"none\0"), self.hold(b"/\0"));
        self.call(label, libc::SYS_mount, &[none, root, 0, flags, 0]);
    }

    /// Mounts the proc(5) of the PID namespace.
    pub(crate) fn mount_proc(&mut self, label: usize) {
        let flags = (libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC) as usize;
        let (proc, place) = (self.hold(b"proc\0"), self.hold(b"/proc\0"));
        self.call(label, libc::SYS_mount, &[proc, place, proc, flags, 0]);
    }

    // The parent's death.

    /// PR_SET_PDEATHSIG, and then a check whether the parent is alive: if it has already ended, the kernel sends no
    /// signal.
    pub(crate) fn parent_death_signal(&mut self, label: usize, signal: Signal) {
        self.call(
            label,
            libc::SYS_prctl,
            &[libc::PR_SET_PDEATHSIG as usize, signal.as_raw() as usize],
        );
        self.push(label, libc::SYS_getppid, [0; 6], Then::Parent);
        self.asks_for_parent = true;
    }
}

/// The numbers of the bits that are set.
fn bits(set: u64) -> impl Iterator<Item = usize> {
    (0..64).filter(move |bit| set & 1 << bit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_of_cpus_is_as_long_as_the_last_cpu_requires() {
        let mut script = Script::default();
        script.affinity(0, &[1, 64, 200]);
        let [step] = script.steps() else { panic!("{script:?}") };
        assert_eq!((step.nr, step.args[1]), (libc::SYS_sched_setaffinity, 32));
        let address = std::ptr::with_exposed_provenance::<u64>(step.args[2]);
        // SAFETY: the address is that of a buffer in the script with this length.
        let mask = unsafe { std::slice::from_raw_parts(address, 4) };
        assert_eq!(mask, [2, 1, 0, 1 << 8]);
    }
}
