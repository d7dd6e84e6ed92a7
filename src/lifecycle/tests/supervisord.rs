//! Behaviour that was recorded from supervisord 4.2.5, and the table's behaviour in the same cases.
//!
//! Each case is one program of a recorded run: its configuration, its behaviour, and the commands with their
//! times. The sequence of states must be exactly the recorded one. The times differ, because supervisord
//! checks its programs only once a second.

use std::time::Duration;

use super::super::{ExitSet, Input, Policy, Restart, Scope, Startup, StateName, StopLadder};
use super::world::{Program, SECOND, SLEEP, World};
use crate::exit::Exit;
use crate::signal::Signal;
use StateName::{
    Backoff as BACKOFF, Exited as EXITED, Fatal as FATAL, Running as RUNNING, Starting as STARTING, Stopped as STOPPED,
    Stopping as STOPPING,
};

const MS: Duration = Duration::from_millis(1);

/// The settings under supervisord's names.
struct Conf {
    startsecs: u32,
    startretries: u32,
    autorestart: Restart,
    exitcodes: ExitSet,
    stopwaitsecs: u32,
}

const CONF: Conf = Conf {
    startsecs: 1,
    startretries: 3,
    autorestart: Restart::OnUnexpected,
    exitcodes: ExitSet::EMPTY.code(0),
    stopwaitsecs: 10,
};

impl Conf {
    fn policy(&self) -> Policy {
        Policy {
            startup: Startup::Grace(SECOND * self.startsecs),
            restart: self.autorestart,
            expected: self.exitcodes,
            early_exit_fails: true,
            start_retries: self.startretries,
            stop: StopLadder::signal(Signal::TERM, Scope::Process, SECOND * self.stopwaitsecs),
            ..Policy::default()
        }
    }
}

/// The states of a program that is started at once and gets these commands at these seconds.
fn states(conf: &Conf, program: Program, commands: &[(f64, Input)], end: f64) -> Vec<StateName> {
    let mut world = World::started(conf.policy(), program);
    for &(at, input) in commands {
        world.run_until(at);
        world.send(input);
    }
    world.run_until(end);
    world.states
}

const FAILED: [StateName; 2] = [STARTING, BACKOFF];

#[test]
fn exits_around_the_start_grace() {
    let quick = |code| Program::ends(MS * 200, code);
    let missing = Program {
        spawn_error: Some((libc::ENOENT, true)),
        ..SLEEP
    };
    let never = Conf {
        autorestart: Restart::Never,
        ..CONF
    };
    let always_twice = Conf {
        startretries: 2,
        autorestart: Restart::Always,
        ..CONF
    };
    let no_grace = Conf { startsecs: 0, ..CONF };
    let no_retries = Conf {
        startretries: 0,
        ..CONF
    };
    let twice = Conf {
        startretries: 2,
        ..CONF
    };
    let gives_up_after = |tries: usize| [FAILED.repeat(tries), vec![FATAL]].concat();
    for (name, conf, program, expected) in [
        ("quick-exit-0", &never, quick(0), gives_up_after(4)),
        ("quick-exit-1", &always_twice, quick(1), gives_up_after(3)),
        (
            "no-grace-exit-0",
            &no_grace,
            Program::ends(MS, 0),
            vec![STARTING, RUNNING, EXITED],
        ),
        ("no-retries", &no_retries, Program::ends(MS, 0), gives_up_after(1)),
        (
            "outlives-grace",
            &CONF,
            Program::ends(SECOND * 3, 0),
            vec![STARTING, RUNNING, EXITED],
        ),
        ("missing", &twice, missing, gives_up_after(3)),
        ("stays", &CONF, SLEEP, vec![STARTING, RUNNING]),
    ] {
        assert_eq!(states(conf, program, &[], 16.0), expected, "{name}");
    }
}

#[test]
fn exits_of_running_programs() {
    let killed = |signal| Program {
        ends: Some((SECOND * 2, Exit::Signal { signal, core: false })),
        ..SLEEP
    };
    let expects_3 = Conf {
        exitcodes: ExitSet::SUCCESS.code(3),
        ..CONF
    };
    let with = |autorestart| Conf { autorestart, ..CONF };
    let left = vec![STARTING, RUNNING, EXITED];
    let restarted = vec![STARTING, RUNNING, EXITED, STARTING, RUNNING];
    for (name, conf, program, expected) in [
        ("unexpected-code", &CONF, Program::ends(SECOND * 2, 3), &restarted),
        ("expected-code", &expects_3, Program::ends(SECOND * 2, 3), &left),
        ("never", &with(Restart::Never), Program::ends(SECOND * 2, 3), &left),
        (
            "always",
            &with(Restart::Always),
            Program::ends(SECOND * 2, 0),
            &restarted,
        ),
        ("killed-unexpected", &CONF, killed(Signal::KILL), &restarted),
        ("killed-never", &with(Restart::Never), killed(Signal::TERM), &left),
    ] {
        assert_eq!(states(conf, program, &[], 3.5), *expected, "{name}");
    }
}

#[test]
fn stops_in_every_state() {
    let stop = |at| (at, Input::Stop);
    let odd_code = Program {
        on_signal: Some((MS * 10, Exit::Code(3))),
        ..SLEEP
    };
    let always = Conf {
        autorestart: Restart::Always,
        ..CONF
    };
    let hasty = Conf {
        stopwaitsecs: 2,
        ..CONF
    };
    let stubborn = Conf {
        startretries: 9,
        ..CONF
    };
    let slow = Conf { startsecs: 30, ..CONF };
    let stopped = vec![STARTING, RUNNING, STOPPING, STOPPED];
    let again = [&stopped[..], &[STARTING, RUNNING]].concat();
    let backoff = [FAILED.repeat(3), vec![STOPPED]].concat();
    for (name, conf, program, commands, expected) in [
        ("polite", &CONF, SLEEP, vec![stop(3.0), (7.0, Input::Start)], again),
        (
            "deaf",
            &hasty,
            Program::ignores_signals(),
            vec![stop(3.0)],
            stopped.clone(),
        ),
        ("odd-code", &always, odd_code, vec![stop(3.0)], stopped),
        (
            "stopped-in-backoff",
            &stubborn,
            Program::ends(MS, 1),
            vec![stop(4.5)],
            backoff,
        ),
        (
            "stopped-while-starting",
            &slow,
            SLEEP,
            vec![stop(3.2)],
            vec![STARTING, STOPPING, STOPPED],
        ),
    ] {
        assert_eq!(states(conf, program, &commands, 11.0), expected, "{name}");
    }
}
