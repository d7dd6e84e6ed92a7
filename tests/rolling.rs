//! Rolling restarts: the instances of a group are restarted a few at a time.

mod common;
mod host;

use std::fs;

use StateName::{Running, Stopping};
use common::{isolated, tempdir};
use host::{Host, LONG, at_once, ms, sleeper, term};
use pidherd::group::Rolling;
use pidherd::lifecycle::{Policy, Scope, Startup, StateName};
use pidherd::{Command, Error, Event, GroupId, GroupSpec, InstanceId};

fn policy() -> Policy {
    at_once()
        .startup(Startup::Grace(ms(20)))
        .start_retries(0)
        .stop(term(Scope::Process, LONG))
}

fn group_of(host: &mut Host, instances: u32) -> (GroupId, Vec<InstanceId>, Vec<u32>) {
    let (group, ids) = host.add(GroupSpec::new("web", sleeper()).instances(instances).policy(policy()));
    host.start_these(group);
    ids.iter().for_each(|&id| host.until_state(id, Running));
    let pids = ids.iter().map(|&id| host.pid(id)).collect();
    (group, ids, pids)
}

fn rolled(host: &Host) -> Option<Option<InstanceId>> {
    host.events.iter().find_map(|event| match event {
        Event::Rolled { failed, .. } => Some(*failed),
        _ => None,
    })
}

/// The smallest number of running instances at any time after the first event with this number.
fn fewest(host: &Host, from: usize, mut running: i32) -> i32 {
    let mut fewest = running;
    for step in host.all_steps().skip(from) {
        running += i32::from(step.to == Running) - i32::from(step.from == Running);
        fewest = fewest.min(running);
    }
    fewest
}

#[test]
fn every_instance_is_restarted_and_no_more_than_allowed_are_down() {
    isolated(|| {
        for (max_unavailable, surge, least) in [(1, 0, 3), (2, 0, 2), (1, 1, 4), (9, 0, 0)] {
            let mut host = Host::new();
            let (group, ids, before) = group_of(&mut host, 4);
            let from = host.all_steps().count();
            host.supervisor
                .rolling_restart(group, Rolling::new().max_unavailable(max_unavailable).surge(surge))
                .unwrap();
            assert!(matches!(host.supervisor.scale(group, 9), Err(Error::Rolling(_))));
            host.until("it is over", |host| rolled(host).is_some());
            assert_eq!(rolled(&host), Some(None));
            host.until("no extra instance is left", |host| {
                host.supervisor.group(group).unwrap().instances == ids
            });
            let after: Vec<u32> = ids.iter().map(|&id| host.pid(id)).collect();
            assert!(
                before.iter().zip(&after).all(|(old, new)| old != new),
                "{before:?} {after:?}"
            );
            let fewest = fewest(&host, from, 4);
            // A host that is slow may see an instance run again before it has stopped the next one.
            let most = if surge == 0 { 3 } else { 4 };
            assert!(
                (least..=most).contains(&fewest),
                "{fewest}, with {max_unavailable} {surge}{}",
                host.story()
            );
            host.shut_down();
        }
    });
}

#[test]
fn a_rolling_restart_ends_at_the_first_instance_that_does_not_start() {
    isolated(|| {
        let directory = tempdir();
        let broken = directory.join("broken");
        let mut host = Host::new();
        let path = broken.to_str().unwrap().to_owned();
        let script = "test $0 != 1 || test ! -e $1 || exit 1; exec sleep 1000";
        let spec = GroupSpec::with("web", move |number| {
            Command::new("/bin/sh").args(["-c", script, &number.to_string(), &path])
        });
        // On a busy machine a shell may need a while until its command fails.
        let (group, ids) = host.add(spec.instances(4).policy(policy()).grace(ms(500)));
        host.start_these(group);
        ids.iter().for_each(|&id| host.until_state(id, Running));
        let before: Vec<u32> = ids.iter().map(|&id| host.pid(id)).collect();
        fs::write(&broken, "").unwrap();
        host.supervisor.rolling_restart(group, Rolling::default()).unwrap();
        host.until("it is over", |host| rolled(host).is_some());
        assert_eq!(rolled(&host), Some(Some(ids[1])));
        assert_ne!(host.pid(ids[0]), before[0]);
        assert_eq!([host.pid(ids[2]), host.pid(ids[3])], [before[2], before[3]]);
        assert!(host.steps(ids[2]).iter().all(|step| step.to != Stopping));
        host.shut_down();
    });
}

#[test]
fn an_impossible_rolling_restart_is_refused() {
    isolated(|| {
        let mut host = Host::new();
        let (group, _, _) = group_of(&mut host, 2);
        let none = Rolling::new().max_unavailable(0).surge(1);
        assert!(matches!(
            host.supervisor.rolling_restart(group, none),
            Err(Error::NoneUnavailable)
        ));
        let many = Rolling::new().max_unavailable(1).surge(u32::MAX);
        assert!(matches!(
            host.supervisor.rolling_restart(group, many),
            Err(Error::Spec(_))
        ));
        host.supervisor.rolling_restart(group, Rolling::default()).unwrap();
        assert!(matches!(
            host.supervisor.rolling_restart(group, Rolling::default()),
            Err(Error::Rolling(_))
        ));
        // Removing or stopping the group ends the rolling restart.
        host.supervisor.remove(group).unwrap();
        host.until("it is gone", |host| host.supervisor.group(group).is_none());
        assert!(matches!(
            host.supervisor.rolling_restart(group, Rolling::default()),
            Err(Error::UnknownGroup(_))
        ));
    });
}

#[test]
fn a_group_cannot_lose_its_last_instance_in_the_middle_of_a_restart() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids, _) = group_of(&mut host, 2);
        host.supervisor.rolling_restart(group, Rolling::new()).unwrap();
        assert!(matches!(host.supervisor.scale(group, 0), Err(Error::Rolling(_))));
        let none = GroupSpec::new("web", sleeper()).instances(0).policy(policy());
        assert!(matches!(host.supervisor.reload(group, none), Err(Error::Rolling(_))));
        host.until("it is over", |host| rolled(host).is_some());
        assert_eq!(rolled(&host), Some(None));
        ids.iter().for_each(|&id| host.until_state(id, Running));
        host.shut_down();
    });
}

#[test]
fn the_restart_of_a_group_without_instances_is_over_at_once() {
    isolated(|| {
        let mut host = Host::new();
        let (group, _) = host.add(GroupSpec::new("web", sleeper()).instances(0).policy(policy()));
        host.supervisor.start(group).unwrap();
        let rolling = Rolling::new().surge(3);
        assert_eq!(host.supervisor.rolling_restart(group, rolling).unwrap().total(), 0);
        host.take_events();
        assert_eq!(rolled(&host), Some(None));
        assert_eq!(host.all_steps().count(), 0, "{}", host.story());
        assert_eq!(host.supervisor.group(group).unwrap().target, 0);
    });
}
