//! Groups without instances, from one generation to the next.

use super::*;

#[test]
fn groups_without_instances_are_handed_over_and_grow_again() {
    generations(120, |mut generation| {
        let sleepers = |name: &str| GroupSpec::new(name, sleeper()).policy(at_once());
        let sizes = |emptied, empty, shrunk| {
            vec![
                sleepers("emptied").instances(emptied),
                sleepers("empty").instances(empty),
                sleepers("shrunk").instances(shrunk),
            ]
        };
        let are_none = |host: &Host| host.supervisor.instances().count() == 0;
        match generation.number {
            0 => {
                let mut host = generation.host(sizes(2, 0, 2));
                host.until_executed();
                let emptied = host.supervisor.group_named("emptied").unwrap();
                host.supervisor.scale(emptied, 0).unwrap();
                host.until("it is empty", |host| host.supervisor.instances().count() == 2);
                generation.hand_over(&mut host, "");
            }
            1 => {
                let mut host = generation.host(sizes(0, 0, 0));
                host.until("all are empty", are_none);
                assert_eq!(host.supervisor.groups().count(), 3);
                generation.hand_over(&mut host, "");
            }
            2 => {
                // One that is not described has nothing to stop.
                let mut groups = sizes(1, 2, 0);
                groups.truncate(2);
                let mut host = generation.host(groups);
                host.until("the others are up", |host| {
                    let mut all = host.supervisor.instances();
                    all.all(|id| host.state(id) == Running) && host.supervisor.instances().count() == 3
                });
                assert_eq!(host.supervisor.group_named("shrunk"), None);
                host.take_events();
                let is_removal = |event: &&Event| matches!(event, Event::GroupRemoved { .. });
                assert_eq!(host.events.iter().filter(is_removal).count(), 1);
                assert_eq!(host.status(named(&host, "emptied:0")).runs, 1);
                host.shut_down();
            }
            _ => unreachable!(),
        }
    });
}
