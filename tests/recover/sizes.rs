//! Groups without instances, found by the next host.

use super::*;

#[test]
fn groups_without_instances_are_found_again_and_grow() {
    with_hosts(120, |state| {
        let sleepers = |name: &str| GroupSpec::new(name, sleeper()).policy(at_once());
        let sizes = |emptied, empty, shrunk| {
            vec![
                sleepers("emptied").instances(emptied),
                sleepers("empty").instances(empty),
                sleepers("shrunk").instances(shrunk),
            ]
        };
        for round in 0..2 {
            let ready = state.with_file_name(format!("ready{round}"));
            killed_host(
                || {
                    let mut host = host(state, if round == 0 { sizes(2, 0, 2) } else { sizes(0, 0, 0) });
                    host.until_executed();
                    if round == 0 {
                        let emptied = host.supervisor.group_named("emptied").unwrap();
                        host.supervisor.scale(emptied, 0).unwrap();
                    }
                    let left = if round == 0 { 2 } else { 0 };
                    host.until("they are gone", |host| host.supervisor.instances().count() == left);
                    tell(&ready, "");
                    stay(host);
                },
                || drop(told(&ready)),
            );
        }
        let mut groups = sizes(1, 2, 0);
        groups.truncate(2);
        let recovered = recover(state, groups);
        assert!(recovered.groups.iter().all(|group| !group.is_new));
        let mut host = Host::with(recovered.supervisor);
        host.until("the others are up", |host| {
            let mut all = host.supervisor.instances();
            all.all(|id| host.state(id) == Running) && host.supervisor.instances().count() == 3
        });
        assert_eq!(host.supervisor.group_named("shrunk"), None);
        assert_eq!(host.status(named(&host, "emptied:0")).runs, 1);
        host.shut_down();
    });
}
