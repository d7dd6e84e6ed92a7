//! Processes in namespaces of their own.

use std::fs;

use pidherd::lifecycle::{Scope, StateName};
use pidherd::{Command, GroupSpec, Namespace};

use super::common::processes::children_of;
use super::common::{SOON, root_or_skip, wait_gone, wait_until};
use super::host::{Host, for_ever, ms, quiet_sh, term};
use super::{generations, named};

/// A process's numbers in all PID namespaces that it is in, and its PID and mount namespaces.
fn namespaces(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
    let kind = |kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let numbers: Vec<_> = numbers.split_whitespace().collect();
    format!("{} {:?} {:?}", numbers.join(" "), kind("pid"), kind("mnt"))
}

/// The process of an instance and its only child, when both are there.
fn family(host: &Host) -> (u32, u32) {
    let pid = host.pid(named(host, "alone:0"));
    wait_until("it has a child", SOON, || children_of(pid).len() == 1);
    (pid, children_of(pid)[0])
}

#[test]
fn a_process_in_namespaces_of_its_own_is_handed_over_and_restarted_in_new_ones() {
    if !root_or_skip("namespaces") {
        return;
    }
    generations(120, |mut generation| {
        let kinds = [Namespace::Pid, Namespace::Mount];
        let alone = kinds.into_iter().fold(quiet_sh("sleep 1000 & wait"), Command::unshare);
        // Process 1 of a namespace has no default action for SIGTERM, so the last rung ends it.
        let spec = GroupSpec::new("alone", alone.mount_proc(true)).policy(for_ever());
        let mut host = generation.host(vec![spec.stop(term(Scope::Process, ms(10)))]);
        let id = named(&host, "alone:0");
        host.until_state(id, StateName::Running);
        let (pid, child) = family(&host);
        let found = format!("{pid} {child} {}", namespaces(pid));
        assert!(found.contains(&format!(" {pid} 1 ")), "{found}");
        let own = namespaces(std::process::id());
        let own: Vec<&str> = own.split_whitespace().collect();
        assert!(
            own[1..].iter().all(|kind| !found.contains(kind)),
            "{found}, the host's: {own:?}"
        );
        match generation.number {
            0 => generation.hand_over(&mut host, &found),
            1 => {
                assert_eq!(found, generation.notes);
                host.supervisor.restart(id).unwrap();
                host.until("it runs again", |host| {
                    host.status(id).runs == 2 && host.state(id) == StateName::Running
                });
                // The kernel has ended what lived in the old namespace.
                assert!(wait_gone(child, SOON));
                let (pid, child) = family(&host);
                let notes = format!("{pid} {child} {}", namespaces(pid));
                generation.hand_over(&mut host, &notes);
            }
            _ => assert_eq!(found, generation.notes),
        }
        host.shut_down();
        assert!(wait_gone(child, SOON));
    });
}
