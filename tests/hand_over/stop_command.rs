//! Stops by a command that are handed over.

use std::fs;

use pidherd::lifecycle::{Scope, StateName, StopCommandEnd, StopLadder};
use pidherd::{Event, GroupSpec};

use super::host::{Host, LONG, at_once, quiet_sh, sleeper};
use super::{generations, named, notes_path};

fn ends(host: &Host) -> Vec<StopCommandEnd> {
    let ends = host.events.iter().filter_map(|event| match event {
        Event::StopCommandEnded { end, .. } => Some(*end),
        _ => None,
    });
    ends.collect()
}

#[test]
fn a_stop_goes_on_with_its_command_and_then_with_its_wait() {
    generations(120, |mut generation| {
        let go_on = notes_path().with_extension("go-on");
        let script = format!(
            "while ! test -e {}; do sleep .01; done; kill -TERM $MAINPID",
            go_on.display()
        );
        let ladder = StopLadder::kill(Scope::Process).then_command(0, LONG, LONG);
        let spec = GroupSpec::new("a", sleeper()).policy(at_once());
        let mut host = generation.host(vec![spec.stop_command(quiet_sh(&script)).stop(ladder)]);
        let id = named(&host, "a:0");
        match generation.number {
            0 => {
                host.until_state(id, StateName::Running);
                host.supervisor.stop(id).unwrap();
                let starts = |event: &Event| matches!(event, Event::StopCommandStarted { .. });
                host.until("the command runs", |host| host.events.iter().any(starts));
                generation.hand_over(&mut host, "");
            }
            1 => {
                assert_eq!((host.state(id), ends(&host)), (StateName::Stopping, vec![]));
                generation.hand_over(&mut host, "");
            }
            _ => {
                assert_eq!(host.supervisor.instances().count(), 1);
                fs::write(&go_on, "").unwrap();
                host.until_state(id, StateName::Stopped);
                assert_eq!(ends(&host), [StopCommandEnd::Succeeded]);
                host.shut_down();
                let _is_gone = fs::remove_file(&go_on);
            }
        }
    });
}

#[test]
fn a_command_that_outlives_its_program_is_handed_over() {
    generations(120, |mut generation| {
        let go_on = notes_path().with_extension("outlives");
        let script = format!(
            "kill -TERM $MAINPID; while ! test -e {}; do sleep .01; done",
            go_on.display()
        );
        let ladder = StopLadder::kill(Scope::Process).then_command(0, LONG, LONG);
        let spec = GroupSpec::new("a", sleeper()).policy(at_once());
        let mut host = generation.host(vec![spec.stop_command(quiet_sh(&script)).stop(ladder)]);
        let id = named(&host, "a:0");
        if generation.number == 0 {
            host.until_state(id, StateName::Running);
            let pid = host.pid(id);
            host.supervisor.stop(id).unwrap();
            // The zombie is reaped, or held as one.
            let is_over = |_: &Host| !matches!(super::common::processes::state(pid), Some('S' | 'R'));
            host.until("the program has ended", is_over);
            while host.turn(super::host::ms(50)) {}
            assert_eq!(host.state(id), StateName::Stopping);
            generation.hand_over(&mut host, "");
        }
        assert_eq!((host.state(id), ends(&host)), (StateName::Stopping, vec![]));
        fs::write(&go_on, "").unwrap();
        host.until_state(id, StateName::Stopped);
        assert_eq!(ends(&host), [StopCommandEnd::Succeeded]);
        host.shut_down();
        let _is_gone = fs::remove_file(&go_on);
    });
}
