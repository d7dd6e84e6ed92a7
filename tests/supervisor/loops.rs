//! The supervisor in its host's loop: two ways of waiting, and each descriptor is handled in its turn.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use pidherd::fdset::Token;
use pidherd::lifecycle::{CrashBudget, Delay, Scope, Startup, StateName, StopLadder};
use pidherd::supervisor::{FdChange, Progress};
use pidherd::{GroupSpec, Supervisor};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use super::common::{SOON, isolated, patience, processes, wait_readable};
use super::host::{Host, LONG, at_once, for_ever, ms, quiet_sh, sh, sleeper, spawns_in_flight, started_at_once, term};
use StateName::{Exited, Fatal, Running, Starting, Stopped, Stopping};

/// The most that is done in one call.
const SLICE: usize = 64;

/// Something of everything: what each instance went through, and how its runs ended.
fn a_busy_life(mut host: Host) -> Vec<Vec<String>> {
    let budget = Some(CrashBudget { max: 3, window: LONG });
    let crashing = for_ever().crash_budget(budget);
    let grouped = at_once().stop(term(Scope::ProcessGroup, ms(50)));
    let stubborn = sh("trap '' TERM; sleep 1000 >/dev/null & echo ready; wait; wait").process_group(0);
    let (_, looping) = host.add(
        GroupSpec::new("looping", quiet_sh("exit 3"))
            .instances(3)
            .policy(crashing),
    );
    let (group, steady) = host.add(GroupSpec::new("steady", sleeper()).instances(2).policy(at_once()));
    let stubborn = host.start(stubborn, grouped);
    let missing = at_once()
        .start_retries(1)
        .backoff(pidherd::lifecycle::Delay::Fixed(ms(20)));
    let missing = host.start(sleeper().current_dir("/no/such"), missing);
    for &id in &looping {
        host.supervisor.start(id).unwrap();
    }
    host.start_these(group);
    assert_eq!(host.line(stubborn), "ready");
    host.supervisor.stop(stubborn).unwrap();
    host.supervisor.restart(steady[0]).unwrap();
    host.supervisor.scale(group, 1).unwrap();
    host.until("it has come to rest", |host| {
        looping.iter().all(|&id| host.state(id) == Fatal)
            && host.state(missing) == Fatal
            && host.state(stubborn) == Stopped
            && host.status(steady[0]).runs == 2
            && host.supervisor.status(steady[1]).is_none()
    });
    host.shut_down();
    let of = |id| {
        let steps = host.steps(id);
        let line = |step: &&pidherd::supervisor::TransitionEvent| {
            let exit = step.exit.map(|record| record.exit);
            format!(
                "{} {}-{} {} {} {exit:?}",
                step.name, step.from, step.to, step.cause, step.run
            )
        };
        steps.iter().map(line).collect()
    };
    let all = looping.iter().chain(&steady).chain([&stubborn, &missing]);
    all.map(|&id| of(id)).collect()
}

#[test]
fn both_ways_of_waiting_tell_the_same() {
    isolated(|| {
        let one = a_busy_life(Host::new());
        let each = a_busy_life(Host::with_own_epoll());
        assert_eq!(one, each);
        assert_eq!(one[0].len(), 4 * 3 + 1, "{one:?}");
        assert!(one.iter().all(|steps| steps.len() >= 4), "{one:?}");
    });
}

#[test]
fn a_host_may_change_its_way_of_waiting_at_any_time() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(GroupSpec::new("x", sleeper()).instances(3).policy(for_ever()));
        host.supervisor.start(group).unwrap();
        let again = |host: &mut Host, runs| {
            host.until_executed();
            for &id in &ids {
                host.supervisor.signal(id, pidherd::Signal::KILL).unwrap();
            }
            host.until("all run again", |host| {
                ids.iter().all(|&id| host.status(id).runs == runs)
            });
        };
        again(&mut host, 2);
        host.wait_for_each();
        again(&mut host, 3);
        host.wait_for_one();
        again(&mut host, 4);
        host.wait_for_each();
        again(&mut host, 5);
        host.shut_down();
    });
}

#[test]
fn tokens_serve_as_well_as_numbers() {
    isolated(|| {
        let mut host = Host::new();
        let id = host.start(sleeper(), at_once());
        let own = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        for entry in host.supervisor.fds().iter() {
            let data = epoll::EventData::new_u64(entry.token.to_raw());
            let fd = host.supervisor.fd(entry.token).unwrap();
            assert_eq!(fd.as_raw_fd(), entry.fd);
            epoll::add(&own, fd, data, epoll::EventFlags::IN).unwrap();
        }
        host.supervisor.kill(id).unwrap();
        host.take_events();
        let mut ready = Vec::with_capacity(8);
        let limit = Timespec {
            tv_sec: SOON.as_secs() as i64,
            tv_nsec: 0,
        };
        epoll::wait(&own, rustix::buffer::spare_capacity(&mut ready), Some(&limit)).unwrap();
        assert_eq!(ready.len(), 1);
        let token = Token::from_raw(ready[0].data.u64());
        assert_eq!(host.supervisor.process_token(token).unwrap(), Progress::Done);
        assert_eq!(host.supervisor.process_token(token).unwrap(), Progress::Nothing);
        assert!(host.supervisor.fd(token).is_none());
        assert_eq!(host.state(id), Stopped);
    });
}

#[test]
fn the_ready_ones_of_one_batch_may_come_in_any_order_and_twice() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(GroupSpec::new("x", sleeper()).instances(20).policy(for_ever()));
        host.start_these(group);
        let before: Vec<u32> = ids.iter().map(|&id| host.pid(id)).collect();
        let batch: Vec<i32> = host.supervisor.fds().iter().map(|entry| entry.fd).collect();
        host.supervisor.signal(group, pidherd::Signal::KILL).unwrap();
        for &pid in &before {
            assert!(super::common::wait_gone(pid, SOON));
        }
        // What the host was told of one, it does for all, backwards, over and over. A number of the batch may belong to
        // the successor of another by then.
        for fd in batch.iter().rev().chain(&batch).chain(&batch) {
            host.supervisor.process_ready(*fd).unwrap();
        }
        host.until("all run again", |host| ids.iter().all(|&id| host.status(id).runs == 2));
        host.until_executed();
        assert!(
            ids.iter()
                .all(|&id| host.state(id) == Running && !before.contains(&host.pid(id)))
        );
        assert_eq!(processes::children().len(), 20);
    });
}

/// A host with registrations of its own, as README shows it: what a call refuses ends it. Entries are named by their
/// number, or by their token.
fn documented_loop(
    host: &mut Host,
    by_token: bool,
    mut until: impl FnMut(&Host) -> bool,
) -> Result<(), pidherd::Error> {
    let own = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    host.supervisor.track_fd_changes(true);
    while !until(host) {
        let supervisor = &mut host.supervisor;
        while let Some(change) = supervisor.next_fd_change() {
            match change {
                FdChange::Added { fd, interest, token } => {
                    let data = if by_token {
                        token.to_raw()
                    } else {
                        fd.as_raw_fd() as u64
                    };
                    let flags = epoll::EventFlags::from_bits_retain(interest.bits());
                    epoll::add(&own, fd, epoll::EventData::new_u64(data), flags).unwrap();
                }
                FdChange::Removed { fd, .. } => epoll::delete(&own, fd).unwrap(),
            }
        }
        assert!(wait_readable(&own, SOON), "{}", host.story());
        let mut ready = Vec::with_capacity(64);
        epoll::wait(&own, spare_capacity(&mut ready), Some(&Timespec::default())).unwrap();
        for event in &ready {
            let _progress = match by_token {
                true => host.supervisor.process_token(Token::from_raw(event.data.u64()))?,
                false => host.supervisor.process_ready(event.data.u64() as i32)?,
            };
        }
        host.take_events();
    }
    host.supervisor.track_fd_changes(false);
    Ok(())
}

#[test]
fn the_documented_loop_goes_on_when_a_call_removes_an_entry_of_the_same_batch() {
    isolated(|| {
        for by_token in [false, true] {
            let mut host = Host::new();
            let notify = for_ever()
                .startup(Startup::Notify { timeout: LONG })
                .start_retries(u32::MAX)
                .backoff(Delay::NONE);
            // The pidfd and the readiness pipe become readable together, and the first call removes both.
            let silent = GroupSpec::new("silent", quiet_sh("exit 1")).ready_fd(3).policy(notify);
            let (group, ids) = host.add(silent.instances(30));
            host.supervisor.start(group).unwrap();
            let runs = |host: &Host| ids.iter().map(|&id| host.status(id).runs).sum::<u64>();
            documented_loop(&mut host, by_token, |host| runs(host) > 600).unwrap();

            // A number that is closed, foreign or no number at all is no reason to end either.
            for fd in [-1, 0, RawFd::MAX, host.supervisor.as_raw_fd()] {
                assert_eq!(host.supervisor.process_ready(fd).unwrap(), Progress::Nothing);
            }
            host.supervisor.shutdown().unwrap();
            documented_loop(&mut host, by_token, |host| host.supervisor.is_down()).unwrap();
        }
    });
}

/// 300 instances that die at once when they are told to.
fn many() -> GroupSpec {
    let policy = at_once().stop(StopLadder::kill(Scope::Process));
    GroupSpec::new("", sleeper()).instances(300).policy(policy)
}

#[test]
fn a_start_of_hundreds_is_done_in_slices_and_the_set_wakes_the_host_until_it_is_done() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(many());
        let outcome = host.supervisor.start(group).unwrap();
        assert_eq!(
            (outcome.accepted as usize, outcome.queued as usize),
            (started_at_once(), 300 - started_at_once())
        );
        assert_eq!(host.supervisor.start(group).unwrap().total(), 300);
        assert_eq!(host.status(ids[299]).pending, Some(pidherd::supervisor::Request::Start));
        let started = |host: &mut Host| {
            host.take_events();
            host.all_steps().filter(|step| step.to == Starting).count()
        };
        let mut before = started(&mut host);
        assert_eq!(before, started_at_once());
        while ids.iter().any(|&id| host.state(id) != Running) {
            let waits = if spawns_in_flight() > 0 { SOON } else { Duration::ZERO };
            assert!(wait_readable(&host.supervisor, waits), "{before} are started");
            let progress = host.supervisor.dispatch().unwrap();
            let now = started(&mut host);
            assert!(now - before <= SLICE, "{before}, then {now}");
            if spawns_in_flight() == 0 {
                assert!(now > before, "each call starts some");
                assert_eq!(progress, if now < 300 { Progress::More } else { Progress::Done });
            }
            let in_flight = ids.iter().filter(|&&id| host.is_in_flight(id)).count();
            assert!(in_flight <= spawns_in_flight(), "{in_flight} are in flight");
            before = now;
        }
        host.nothing_for(Duration::ZERO);
        assert_eq!(processes::children().len(), 300, "and nobody else was needed for it");

        let outcome = host.supervisor.kill(group).unwrap();
        assert_eq!(
            (outcome.accepted as usize, outcome.queued as usize),
            (SLICE, 300 - SLICE)
        );
        host.until("all are down", |host| ids.iter().all(|&id| host.state(id) == Stopped));
    });
}

#[test]
fn the_hosts_other_descriptors_get_their_turn_while_hundreds_are_started() {
    isolated(|| {
        let mut host = Host::new();
        let own = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        epoll::add(&own, &reader, epoll::EventData::new_u64(1), epoll::EventFlags::IN).unwrap();
        let set = host.supervisor.as_fd();
        epoll::add(&own, set, epoll::EventData::new_u64(2), epoll::EventFlags::IN).unwrap();
        let (group, _) = host.add(many());
        host.supervisor.start(group).unwrap();
        rustix::io::write(&writer, &[0]).unwrap();

        // One event a wait: whatever is ready is reported in turns. The pipe is always ready.
        let (mut turns, mut is_their_turn) = (0, false);
        while host.all_steps().filter(|step| step.to == Running).count() < 300 {
            let mut ready = Vec::with_capacity(1);
            epoll::wait(
                &own,
                rustix::buffer::spare_capacity(&mut ready),
                Some(&Timespec::default()),
            )
            .unwrap();
            if ready[0].data.u64() == 1 {
                is_their_turn = false;
            } else {
                assert!(!is_their_turn, "two turns of the supervisor, and none of the pipe");
                let began = host.supervisor.now();
                host.supervisor.dispatch().unwrap();
                let took = host.supervisor.now().saturating_duration_since(began);
                assert!(took < SOON / 20 * patience(), "one turn took {took:?}");
                host.take_events();
                is_their_turn = true;
                turns += 1;
            }
        }
        assert!(turns >= 4, "{turns} turns of the supervisor");
    });
}

#[test]
fn a_stop_overtakes_a_start_that_is_queued() {
    isolated(|| {
        let mut host = Host::new();
        let (group, ids) = host.add(many());
        host.supervisor.start(group).unwrap();
        host.supervisor.stop(group).unwrap();
        host.until("all are down", |host| {
            let statuses = ids.iter().map(|&id| host.status(id));
            statuses
                .into_iter()
                .all(|s| s.state.name() == Stopped && s.pending.is_none())
        });
        host.nothing_for(Duration::ZERO);
        let (started, never) = ids.split_at(started_at_once());
        // The stop comes before the news of the execution.
        let was_seen = |id| host.states(id) == [Starting, Running, Stopping, Stopped];
        let was_in_flight = |id| host.states(id) == [Starting, Stopping, Stopped];
        match spawns_in_flight() {
            0 => assert!(started.iter().all(|&id| was_seen(id))),
            _ => assert!(started.iter().all(|&id| was_in_flight(id))),
        }
        assert!(never.iter().all(|&id| host.states(id).is_empty()));
    });
}

#[test]
fn a_removal_and_a_shutdown_overtake_queued_starts() {
    isolated(|| {
        let mut host = Host::new();
        let (group, _) = host.add(many());
        let (other, _) = host.add(many());
        host.supervisor.start(group).unwrap();
        host.supervisor.remove(group).unwrap();
        host.supervisor.start(other).unwrap();
        host.shut_down();
        assert_eq!(host.supervisor.groups().collect::<Vec<_>>(), [other]);
        let started = host.all_steps().filter(|step| step.to == Starting).count();
        assert!(started <= 2 * SLICE, "{started}");
    });
}

#[test]
fn hundreds_that_end_together_are_all_seen() {
    isolated(|| {
        let mut host = Host::new();
        let gate = sh("read go; exit 5").stdout(pidherd::Stdio::inherit());
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (group, ids) = host.add(GroupSpec::new("x", gate.stdin(reader)).instances(200).policy(at_once()));
        host.supervisor.start(group).unwrap();
        host.until("all are up", |host| ids.iter().all(|&id| host.state(id) == Running));
        drop(writer);
        host.until("all have ended", |host| ids.iter().all(|&id| host.state(id) == Exited));
        for &id in &ids {
            assert_eq!(host.status(id).last_exit.unwrap().exit.code(), Some(5));
        }
        host.nothing_for(Duration::ZERO);
    });
}

#[test]
fn one_groups_storm_delays_no_other_groups_deadline() {
    isolated(|| {
        let mut host = Host::new();
        let (storm, ids) = host.add(
            GroupSpec::new("storm", quiet_sh("exit 1"))
                .instances(20)
                .policy(for_ever()),
        );
        host.supervisor.start(storm).unwrap();
        let runs = |host: &Host| ids.iter().map(|&id| host.status(id).runs).sum::<u64>();
        host.until("it is a storm", |host| runs(host) > 60);
        let before = runs(&host);
        let slow = at_once().startup(pidherd::lifecycle::Startup::Grace(ms(100)));
        let calm = host.start(sleeper(), slow);
        let due = host.status(calm).state.deadline().unwrap();
        let mut turns_too_many = 0;
        while host.state(calm) == Starting {
            let was_due = host.supervisor.now() > due;
            assert!(host.turn(SOON));
            turns_too_many += u32::from(was_due);
        }
        assert!(turns_too_many <= 2, "{turns_too_many}");
        assert!(runs(&host) > before, "the storm went on");
    });
}

#[test]
fn three_supervisors_in_three_threads_know_nothing_of_each_other() {
    isolated(|| {
        let life = |code: u32| {
            move || {
                let policy = for_ever().crash_budget(Some(CrashBudget { max: 20, window: LONG }));
                let mut host = Host::new();
                let script = format!("exit {code}");
                let (group, ids) = host.add(GroupSpec::new("x", quiet_sh(&script)).instances(2).policy(policy));
                host.supervisor.start(group).unwrap();
                host.until("they are given up", |host| {
                    ids.iter().all(|&id| host.state(id) == Fatal)
                });
                let exits = host.all_steps().filter_map(|step| step.exit);
                let codes: Vec<_> = exits.map(|record| record.exit.code()).collect();
                assert_eq!(codes, vec![Some(code as u8); 42]);
            }
        };
        let threads = [1, 2, 3].map(|code| std::thread::spawn(life(code)));
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_supervisor_moves_between_threads_with_its_children() {
    fn assert_send<T: Send>() {}
    assert_send::<Supervisor>();
    assert_send::<GroupSpec>();
    isolated(|| {
        let made = std::thread::spawn(|| {
            let mut host = Host::new();
            let id = host.begin(quiet_sh("exit 6"), at_once());
            let stays = host.begin(sleeper(), at_once());
            (host, id, stays)
        });
        // The thread that spawned is gone; its children are the process's all the same.
        let (host, id, stays) = made.join().unwrap();
        let host = std::thread::spawn(move || {
            let mut host = host;
            host.until_state(id, Exited);
            host.until_state(stays, Running);
            host
        });
        let mut host = host.join().unwrap();
        assert_eq!(host.status(id).last_exit.unwrap().exit.code(), Some(6));
        assert_eq!(host.state(stays), Running);
        host.shut_down();
    });
}
