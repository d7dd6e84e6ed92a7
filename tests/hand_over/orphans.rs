//! Adopted orphans, from one generation to the next.

use std::process::{Command as StdCommand, Stdio as StdStdio};

use pidherd::supervisor::Progress;

use super::common::processes;
use super::*;

const CHLD: SignalSet = SignalSet::EMPTY.with(Signal::CHLD);

/// How many orphans end: more than one call tells, and no more than one look reaps.
const COUNT: usize = 60;

/// Leaves children that no code of the host knows of, and waits until all have ended. Their numbers.
fn leave_orphans() -> BTreeSet<u32> {
    let leave = |_| {
        let mut command = StdCommand::new("/bin/sh");
        command.args(["-c", "exit 7"]).stdin(StdStdio::null());
        command.spawn().unwrap().id()
    };
    let left: BTreeSet<u32> = (0..COUNT).map(leave).collect();
    wait_until("all have ended", SOON, || {
        left.iter().all(|&pid| processes::state(pid) == Some('Z'))
    });
    left
}

#[test]
fn orphans_that_were_reaped_and_not_told_are_told_by_the_next_program() {
    let isolation = Isolation::new().blocked(CHLD).limit(Duration::from_secs(120));
    generations_in(isolation, |mut generation| {
        let adopter = || builder().adopt_orphans(true);
        if generation.number == 0 {
            let mut host = Host::with(adopter().build().unwrap());
            let left = leave_orphans();
            assert_eq!(host.supervisor.reap_orphans().unwrap(), Progress::More);
            assert_eq!(processes::children(), [0; 0]);
            let told = host.supervisor.orphans().unwrap().reaped;
            assert!((1..COUNT as u64).contains(&told));
            let left: Vec<_> = left.iter().map(u32::to_string).collect();
            generation.hand_over(&mut host, &left.join(" "));
        }
        let left: BTreeSet<u32> = generation.notes.split(' ').map(|pid| pid.parse().unwrap()).collect();
        let handed_over = generation.handed_over.take().unwrap();
        let taken = adopter().take_over(handed_over, Vec::new(), Undescribed::Stop);
        let mut host = Host::with(taken.unwrap().supervisor);
        host.until("all are told", |host| {
            host.supervisor.orphans().unwrap().reaped == COUNT as u64
        });
        host.take_events();
        let orphans = host.events.iter().filter_map(|event| match event {
            Event::Orphan(record) => Some(record),
            _ => None,
        });
        let orphans: Vec<_> = orphans.collect();
        assert!(orphans.iter().all(|record| record.exit == Exit::Code(7)));
        let told: BTreeSet<u32> = orphans.iter().map(|record| record.pid.as_raw()).collect();
        assert_eq!((orphans.len(), told), (COUNT, left));
        host.shut_down();
        drop(host);
        // The SIGCHLD of the last end can have arrived after the last look.
        let last = SignalFd::new(CHLD).unwrap();
        while last.read().unwrap().is_some() {}
    });
}
