//! What waits is handed over with what it waits for: starts for other groups, and commands around a run.

use super::*;

#[test]
fn a_start_that_waits_for_another_group_waits_in_the_next_program_as_well() {
    generations(60, |mut generation| {
        let slow = at_once().startup(Startup::Notify { timeout: LONG });
        // The order of the web server is described by name, and that of the front is kept.
        let front = GroupSpec::new("front", sleeper()).policy(at_once());
        let is_first = generation.number == 0;
        let specs = vec![
            GroupSpec::new("database", sleeper()).policy(slow),
            GroupSpec::new("web", sleeper()).policy(at_once()).requires("database"),
            if is_first { front.requires("web") } else { front },
        ];
        let mut host = generation.host(specs);
        let [database, web, front] = ["database:0", "web:0", "front:0"].map(|name| named(&host, name));
        host.until("it is executed", |host| !host.is_in_flight(database));
        assert_eq!(host.status(web).waits_for, [host.status(database).group]);
        assert_eq!(host.status(front).waits_for, [host.status(web).group]);
        if is_first {
            generation.hand_over(&mut host, "");
        }
        host.supervisor.report_ready(database).unwrap();
        host.until_state(front, Running);
        let started = host.all_steps().filter(|step| step.to == Running);
        assert!(started.map(|step| step.instance).eq([database, web, front]));
        host.shut_down();
    });
}

#[test]
fn the_commands_before_and_after_a_run_are_handed_over_with_their_limits() {
    generations(120, |mut generation| {
        let groups = vec![
            GroupSpec::new("a", sleeper())
                .before_run(sleeper(), ms(1_500))
                .policy(tried_once()),
            GroupSpec::new("b", quiet_sh("exit 0"))
                .policy(at_once())
                .after_run(sleeper(), ms(1_500)),
        ];
        let is_first = generation.handed_over.is_none();
        let mut host = generation.host(groups);
        let (before, after) = (named(&host, "a:0"), named(&host, "b:0"));
        if is_first {
            host.until_state(after, StateName::CleaningUp);
            let notes = story(&host.supervisor);
            generation.hand_over(&mut host, &notes);
        }
        assert_eq!(story(&host.supervisor), generation.notes);
        host.until_state(before, Fatal);
        host.until_state(after, StateName::Exited);
        assert!(host.states(after).ends_with(&[StateName::Exited]));
        host.shut_down();
    });
}
