//! What the instances of a group are to each other is handed over.

use super::*;
use host::{for_ever, wait_for_sleep};
use pidherd::lifecycle::{Cause, CrashBudget};
use pidherd::{AutoShutdown, Strategy};

fn kill(pid: u32) {
    let raw = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_joint_restart_goes_on_in_the_next_program() {
    generations(60, |mut generation| {
        let stubborn = quiet_sh("trap '' TERM; exec sleep 1000");
        let spec = GroupSpec::new("x", stubborn)
            .policy(for_ever())
            .stop(term(Scope::Process, LONG))
            .instances(3)
            .strategy(Strategy::OneForAll);
        let is_first = generation.number == 0;
        let mut host = generation.host(vec![spec]);
        let ids = ["x:0", "x:1", "x:2"].map(|name| named(&host, name));
        if is_first {
            for id in ids {
                host.until_state(id, Running);
                wait_for_sleep(host.pid(id));
            }
            kill(host.pid(ids[1]));
            host.until_state(ids[1], Backoff);
            let notes = story(&host.supervisor);
            generation.hand_over(&mut host, &notes);
        }
        assert_eq!(story(&host.supervisor), generation.notes);
        kill(host.pid(ids[0]));
        host.until_state(ids[0], Backoff);
        host.nothing_for(ms(50));
        assert_eq!(ids.map(|id| host.state(id)), [Backoff, Backoff, Stopping]);
        kill(host.pid(ids[2]));
        host.until("all run again", |host| {
            ids.iter()
                .all(|&id| host.state(id) == Running && host.status(id).runs == 2)
        });
        host.supervisor.kill(pidherd::Target::All).unwrap();
        host.shut_down();
    });
}

#[test]
fn a_shared_budget_and_an_automatic_shutdown_hold_in_the_next_program() {
    generations(60, |mut generation| {
        let spec = GroupSpec::new("x", sleeper())
            .policy(for_ever())
            .instances(2)
            .shared_budget(CrashBudget::new(1, LONG))
            .auto_shutdown(AutoShutdown::AnyEnd);
        let is_first = generation.number == 0;
        let mut host = generation.host(vec![spec]);
        let ids = ["x:0", "x:1"].map(|name| named(&host, name));
        for id in ids {
            host.until_state(id, Running);
        }
        if is_first {
            kill(host.pid(ids[0]));
            host.until("it runs again", |host| {
                host.status(ids[0]).runs == 2 && host.state(ids[0]) == Running
            });
            generation.hand_over(&mut host, "");
        }
        kill(host.pid(ids[1]));
        host.until_state(ids[1], Fatal);
        assert_eq!(host.steps(ids[1]).last().unwrap().cause, Cause::CrashBudgetUsedUp);
        host.until_state(ids[0], Stopped);
        let is_told = |event: &Event| matches!(event, Event::GroupStops { instance, .. } if *instance == ids[1]);
        assert!(host.events.iter().any(is_told));
        host.shut_down();
    });
}
