//! What a killed host has left: the proofs, and what is not started again.

use std::io;

use super::{SECOND, end, engine, instance, member, pass, restarted, spec, started, state};
use crate::cgroup::CgroupDir;
use crate::codec::{Reader, Stored, Writer};
use crate::engine::context::CgroupPath;
use crate::engine::recovery::{Birth, Found, LeftBehind, Suspect};
use crate::engine::request::Request;
use crate::exit::{Exit, ExitRecord, Pid};
use crate::lifecycle::StateName;

/// A process that has the number now.
struct Holder {
    made_at: Option<u64>,
    is_marked: Option<bool>,
    is_unreaped: bool,
}

impl Suspect for Holder {
    const TICK: u64 = 10;

    fn made_at(&self) -> Option<u64> {
        self.made_at
    }

    fn is_marked(&self) -> Option<bool> {
        self.is_marked
    }

    fn is_unreaped(&self) -> bool {
        self.is_unreaped
    }
}

fn pid(number: u32) -> Pid {
    Pid::new(number).unwrap()
}

/// What became of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Present,
    Ended(Exit),
    Unproven,
}

fn fate(birth: &Birth, number: Pid, holder: Option<Holder>) -> Fate {
    let found = birth.find(number, |_| Ok(holder)).unwrap();
    match found {
        Found::Present(_) => Fate::Present,
        Found::Ended(record) => Fate::Ended(record.exit),
        Found::Unproven(_) => Fate::Unproven,
    }
}

#[test]
fn a_process_is_the_same_one_only_if_it_was_made_between_two_times_or_is_marked() {
    const GONE: Fate = Fate::Ended(Exit::Unknown);
    let (known, killed) = (Some(47), None);
    let (marked, foreign) = (Some(true), Some(false));
    for (after, made_at, is_marked, expected) in [
        // The kernel tells the time of the birth in ticks.
        (known, Some(10), marked, GONE),
        (known, Some(20), None, Fate::Present),
        (known, Some(40), foreign, Fate::Present),
        (known, Some(50), marked, GONE),
        // A mark alone is no proof: an earlier process of the host has it too.
        (killed, Some(10), marked, GONE),
        (killed, Some(20), marked, Fate::Present),
        (killed, Some(90), marked, Fate::Present),
        (killed, Some(20), foreign, GONE),
        (killed, Some(20), None, Fate::Unproven),
        (known, None, marked, Fate::Unproven),
    ] {
        let birth = Birth {
            pid: Some(pid(7)),
            before: 25,
            after,
            ..Birth::default()
        };
        let holder = |is_unreaped| {
            Some(Holder {
                made_at,
                is_marked,
                is_unreaped,
            })
        };
        let case = (after, made_at, is_marked);
        assert_eq!(fate(&birth, pid(7), holder(true)), expected, "{case:?}");
        if expected != Fate::Unproven || made_at.is_none() {
            assert_eq!(
                fate(&birth, pid(7), holder(false)),
                GONE,
                "{case:?}, and it is reaped by now"
            );
        }
        assert_eq!(fate(&birth, pid(7), None), GONE);
        assert_eq!(fate(&birth, pid(8), holder(true)), Fate::Unproven, "another number");
        let reaped = Birth {
            exit: Some(Exit::Code(3)),
            ..birth
        };
        assert_eq!(fate(&reaped, pid(7), holder(true)), Fate::Ended(Exit::Code(3)));
    }
}

/// The host may have been killed before it had released the cgroup of the last run.
#[test]
fn the_cgroup_of_a_run_that_is_over_is_left_behind() {
    let mut before = engine();
    let directory = CgroupDir::pretended(1);
    let group = started(&mut before, spec("web").cgroup(directory.clone()));
    let id = member(&before, group, 0);
    before.request(group.into(), Request::Kill).unwrap();
    end(&mut before, id, Exit::Code(0));
    let path = CgroupPath::new(&directory, "web", 0);
    let place = (directory.path().to_owned(), path.name.clone());
    before.instances.get_mut(id).unwrap().set_run_cgroup(Some(path.into()));

    let (mut base, mut record) = (Vec::new(), Vec::new());
    let mut writer = Writer::new(&mut base);
    None::<std::ffi::OsString>.put(&mut writer);
    before.image().put(&mut writer);
    instance(&before, id).put_record(&mut Writer::new(&mut record));
    let find = |_: &Birth, _: Pid| -> io::Result<Found<()>> { panic!("it has no process") };
    let mut base = Reader::new(&base, before.instances.home());
    let left = LeftBehind::read(&mut base, &[(record, Birth::default())], 0, find).unwrap();
    assert_eq!(left.ended_cgroups, [place]);
    assert!(left.candidates.is_empty() && left.ended.is_empty() && left.unproven.is_empty());
}

#[test]
fn what_has_ended_and_is_not_described_is_not_started_again() {
    let web = || spec("web").policy(restarted());
    let mut before = engine();
    let group = started(&mut before, web().instances(2));
    pass(&mut before, SECOND * 2);
    let ended = [0, 1].map(|number| {
        let id = member(&before, group, number);
        let record = ExitRecord {
            pid: instance(&before, id).process.unwrap(),
            exit: Exit::Code(1),
            usage: None,
        };
        (id.index(), record)
    });
    let mut engine = engine();
    engine.kernel.now = before.kernel.now;
    engine.wake();
    let restored = engine.restore_left(&before.image(), vec![web()]).unwrap();
    engine.resume(&restored, Vec::new(), ended.to_vec(), &[]);
    let states = ended.map(|(slot, _)| state(&engine, engine.instances.id_at(slot).unwrap()));
    assert_eq!(states, [StateName::Running, StateName::Stopped]);
    let spawned: Vec<_> = engine.kernel.spawned.iter().map(|&(slot, _)| slot).collect();
    assert_eq!(spawned, [ended[0].0]);
}
