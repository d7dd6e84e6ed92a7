//! Streams of events for other parts of the host.

use std::thread;
use std::time::Duration;

use pidherd::lifecycle::StateName;
use pidherd::supervisor::{Event, Subscription};
use pidherd::{GroupSpec, InstanceId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::common::isolated;
use super::host::{Host, LONG, at_once, for_ever, quiet_sh, sleeper};

fn is_readable(subscription: &Subscription, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).unwrap();
    poll(&mut [PollFd::new(subscription, PollFlags::IN)], Some(&limit)).unwrap() == 1
}

fn steps(subscription: &Subscription) -> Vec<(InstanceId, StateName)> {
    let events = std::iter::from_fn(|| subscription.next_event());
    events
        .map(|event| match event {
            Event::Transition(step) => (step.instance, step.to),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn each_subscription_gets_what_its_filter_accepts() {
    isolated(|| {
        let mut host = Host::new();
        let (web, web_ids) = host.add(GroupSpec::new("web", sleeper()).policy(at_once()));
        let (other, other_ids) = host.add(GroupSpec::new("other", sleeper()).policy(at_once()));
        let everything = host.supervisor.subscribe(1_000, |_| true).unwrap();
        let of_web = move |event: &Event| matches!(event, Event::Transition(step) if step.group == web);
        let webs = host.supervisor.subscribe(1_000, of_web).unwrap();
        let nothing = host.supervisor.subscribe(1_000, |_| false).unwrap();
        assert!(!is_readable(&webs, Duration::ZERO));
        host.start_these(other);
        host.start_these(web);
        host.until_state(web_ids[0], StateName::Running);
        host.until_state(other_ids[0], StateName::Running);
        let up = |id| [(id, StateName::Starting), (id, StateName::Running)];
        assert!(is_readable(&webs, Duration::ZERO));
        assert_eq!(steps(&webs), up(web_ids[0]));
        assert!(!is_readable(&webs, Duration::ZERO));
        assert_eq!(steps(&everything).len(), 4);
        assert!(!is_readable(&nothing, Duration::ZERO));
        assert!(nothing.next_event().is_none());
        // The host's own stream is complete too.
        assert_eq!(host.states(web_ids[0]), up(web_ids[0]).map(|(_, state)| state));
        assert!(!webs.is_over());
        host.shut_down();
        drop(host);
        // What waits can still be fetched, and the end is told.
        assert!(webs.is_over() && is_readable(&webs, Duration::ZERO));
        assert_eq!(steps(&webs).last(), Some(&(web_ids[0], StateName::Stopped)));
        assert!(is_readable(&webs, Duration::ZERO));
    });
}

#[test]
fn a_subscription_that_is_full_loses_its_oldest_events_and_counts_them() {
    isolated(|| {
        let mut host = Host::new();
        let few = host.supervisor.subscribe(2, |_| true).unwrap();
        let none = host.supervisor.subscribe(0, |_| true).unwrap();
        let all = host.supervisor.subscribe(usize::MAX, |_| true).unwrap();
        let id = host.start(quiet_sh("exit 1"), for_ever());
        host.until("there were many runs", |host| host.status(id).runs > 20);
        host.supervisor.stop(id).unwrap();
        host.until_state(id, StateName::Stopped);
        let expected = steps(&all);
        assert_eq!(steps(&few), expected[expected.len() - 2..]);
        assert_eq!(few.lost() as usize, expected.len() - 2);
        assert_eq!(
            (none.lost() as usize, none.next_event().is_none()),
            (expected.len(), true)
        );
        assert!(!is_readable(&none, Duration::ZERO));
        assert_eq!(all.lost(), 0);
        host.shut_down();
    });
}

#[test]
fn a_thread_waits_for_its_own_events() {
    isolated(|| {
        let mut host = Host::new();
        let ends = |event: &Event| matches!(event, Event::Transition(step) if step.to == StateName::Stopped);
        let stops = host.supervisor.subscribe(10, ends).unwrap();
        let dropped = host.supervisor.subscribe(10, |_| true).unwrap();
        let id = host.start(sleeper(), for_ever());
        drop(dropped);
        let thread = thread::spawn(move || {
            assert!(is_readable(&stops, LONG));
            steps(&stops)
        });
        host.supervisor.stop(id).unwrap();
        host.until_state(id, StateName::Stopped);
        assert_eq!(thread.join().unwrap(), [(id, StateName::Stopped)]);
        host.shut_down();
    });
}
