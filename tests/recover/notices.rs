//! What a process has told its host by the notify socket holds for the next host.

use std::env;

use pidherd::lifecycle::State;
use pidherd::supervisor::ReloadResult;

use super::*;

/// The variable that makes a process of this binary send a message.
const SENDS: &str = "PIDHERD_TEST_SENDS";

/// Another test runs this test as its child. Without the variable it does nothing. It sends the message, and stays.
#[test]
fn a_program_that_sends_its_message() {
    let Some(message) = env::var_os(SENDS) else { return };
    let socket = common::notify::to_the_supervisor();
    socket.send(message.as_encoded_bytes()).unwrap();
    loop {
        thread::park();
    }
}

#[test]
fn the_watchdog_of_a_process_and_its_reload_go_on() {
    with_hosts(120, |state| {
        let groups = || {
            let program = Command::new(env::current_exe().unwrap())
                .args([
                    "notices::a_program_that_sends_its_message",
                    "--exact",
                    "--test-threads=1",
                ])
                .env(SENDS, "WATCHDOG_USEC=1000000000")
                .stdout(Stdio::null());
            let spec = GroupSpec::new("a", program).policy(at_once().watchdog(SOON * patience()));
            vec![spec.notify_socket(true)]
        };
        let ready = state.with_file_name("ready");
        killed_host(
            || {
                let mut host = host(state, groups());
                let id = named(&host, "a:0");
                let is_notice = |event: &Event| matches!(event, Event::Notice { .. });
                host.until("it has told its watchdog", |host| host.events.iter().any(is_notice));
                // SIGWINCH does nothing to it.
                let outcome = host.supervisor.reload_program(id, Signal::WINCH, Some(LONG)).unwrap();
                assert_eq!(outcome.accepted, 1);
                tell(&ready, "");
                stay(host);
            },
            || drop(told(&ready)),
        );
        let mut host = host(state, groups());
        let id = named(&host, "a:0");
        host.supervisor.report_alive(id).unwrap();
        let left = match host.status(id).state {
            State::Running { until, .. } => until.saturating_duration_since(host.supervisor.now()),
            state => panic!("{state:?}"),
        };
        assert!(left > LONG / 2, "{left:?}");
        host.supervisor.signal(id, Signal::KILL).unwrap();
        host.until("the reload has ended with its process", |host| {
            let is_end = |event: &Event| {
                matches!(
                    event,
                    Event::Reloaded {
                        result: ReloadResult::Ended,
                        ..
                    }
                )
            };
            host.events.iter().any(is_end)
        });
        host.shut_down();
    });
}
