//! The history of an instance: the current run, and the last ones that are over.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::memory::{Memory, wall as wall_time, wall_nanos};
use super::run::{EndedRun, Run};
use crate::cgroup::OomKill;
use crate::codec::{Damaged, Reader, Stored, Writer};
use crate::command::SpawnError;
use crate::exit::ExitRecord;
use crate::time::Instant;

/// The current run, and the last few that have ended.
#[derive(Clone)]
pub(crate) struct History {
    /// When the current or the last run was spawned, in nanoseconds since 1970; [`NO_TIME`] before the first run.
    started_at: i64,
    /// When the last run ended, in nanoseconds since 1970; [`NO_TIME`] while a run is alive.
    ended_at: i64,
    /// While a run is alive, when it began. Then how long it lasted, in nanoseconds.
    clock: u64,
    /// What few runs have.
    rare: Option<Box<Rare>>,
    /// The runs that are over, and the last exit record. Without any, an instance has no memory for them.
    memory: Option<Box<Memory>>,
    most: u32,
    /// Whether the last exit record is that of the current run.
    has_exited: bool,
}

/// No time on the wall clock.
const NO_TIME: i64 = i64::MIN;

/// The first time.
const EARLIEST: i64 = NO_TIME.saturating_add(1);

/// What few runs have. It is kept from the first time on, so that later runs do not allocate it again.
#[derive(Clone, Default)]
struct Rare {
    /// Why the last spawn failed.
    error: Option<SpawnError>,
    /// Why the host reported the current run as failed.
    complaint: Option<Arc<str>>,
    /// The kernel's kills in the current run for lack of memory, if SIGKILL has ended its process.
    oom: Option<OomKill>,
}

impl History {
    /// An empty history of at most `most` runs, without room for them.
    pub(crate) fn new(most: usize) -> History {
        History {
            started_at: NO_TIME,
            ended_at: NO_TIME,
            clock: 0,
            rare: None,
            memory: None,
            most: u32::try_from(most).unwrap_or(u32::MAX),
            has_exited: false,
        }
    }

    /// The same history with at most `most` runs. Older ones are dropped.
    pub(crate) fn with_most(mut self, most: usize) -> History {
        if let Some(memory) = &mut self.memory {
            while memory.len() > most {
                memory.forget_oldest();
            }
        }
        self.most = u32::try_from(most).unwrap_or(u32::MAX);
        self
    }

    /// The memory for all runs that may come. It is allocated when the first process has ended: most run for a long time,
    /// and need none.
    fn memory(&mut self) -> &mut Memory {
        let memory = self.memory.get_or_insert_default();
        memory.reserve(self.most as usize);
        memory
    }

    pub(crate) fn began(&mut self, now: Instant, wall: SystemTime) {
        self.clock = now.as_nanos();
        self.started_at = nanos_of(wall);
        self.ended_at = NO_TIME;
        if let Some(rare) = &mut self.rare {
            (rare.error, rare.complaint) = (None, None);
        }
    }

    /// When the current or the last run was spawned.
    pub(crate) fn started_at(&self) -> Option<SystemTime> {
        (self.started_at != NO_TIME).then(|| wall_time(self.started_at))
    }

    /// When the last run ended and how long it lasted; `None` while a run is alive.
    pub(crate) fn over(&self) -> Option<(SystemTime, Duration)> {
        let lasted = Duration::from_nanos(self.clock);
        (self.ended_at != NO_TIME).then(|| (wall_time(self.ended_at), lasted))
    }

    /// When the current run began.
    const fn start(&self) -> Instant {
        match self.ended_at {
            NO_TIME => Instant::from_nanos(self.clock),
            _ => Instant::ZERO,
        }
    }

    fn set_over(&mut self, over: Option<(SystemTime, Duration)>) {
        if let Some((wall, lasted)) = over {
            self.ended_at = nanos_of(wall);
            self.clock = u64::try_from(lasted.as_nanos()).unwrap_or(u64::MAX);
        }
    }

    /// Why the last spawn failed.
    pub(crate) fn last_error(&self) -> Option<&SpawnError> {
        self.rare.as_ref()?.error.as_ref()
    }

    pub(crate) fn set_last_error(&mut self, error: Option<SpawnError>) {
        if error.is_some() || self.rare.is_some() {
            self.rare.get_or_insert_default().error = error;
        }
    }

    /// The exit record of the last process that has ended.
    pub(crate) fn last_exit(&self) -> Option<ExitRecord> {
        self.memory.as_ref()?.last_exit()
    }

    /// Sets the reason for which the host reports the current run as failed.
    pub(crate) fn set_complaint(&mut self, reason: Option<Arc<str>>) {
        if reason.is_some() || self.rare.is_some() {
            self.rare.get_or_insert_default().complaint = reason;
        }
    }

    /// The reason for which the host reported the current run as failed.
    pub(crate) fn complaint(&self) -> Option<&Arc<str>> {
        self.rare.as_ref()?.complaint.as_ref()
    }

    /// The facts about the current run that a record contains.
    pub(crate) fn put_current(&self, to: &mut Writer<'_>) {
        self.started_at().put(to);
        self.start().put(to);
        self.last_exit().put(to);
        self.over().put(to);
    }

    /// A history that goes on with these facts. It contains no run that is over.
    pub(crate) fn get_current(from: &mut Reader<'_>) -> Result<History, Damaged> {
        let mut history = History::new(0);
        history.get_start(from)?;
        history.clock = Instant::get(from)?.as_nanos();
        history.set_last_exit(Option::get(from)?.as_ref());
        history.set_over(Stored::get(from)?);
        Ok(history)
    }

    fn get_start(&mut self, from: &mut Reader<'_>) -> Result<(), Damaged> {
        self.started_at = Option::get(from)?.map_or(NO_TIME, nanos_of);
        Ok(())
    }

    /// The process of the current run was reaped.
    pub(crate) fn exited(&mut self, record: ExitRecord, oom: Option<OomKill>) {
        self.has_exited = true;
        self.set_last_exit(Some(&record));
        self.set_oom(oom);
    }

    fn set_last_exit(&mut self, record: Option<&ExitRecord>) {
        if record.is_some() || self.memory.is_some() {
            self.memory().set_last_exit(record);
        }
    }

    fn set_oom(&mut self, oom: Option<OomKill>) {
        if oom.is_some() || self.rare.is_some() {
            self.rare.get_or_insert_default().oom = oom;
        }
    }

    /// The exit record of the current run, if its process was reaped.
    fn exit(&self) -> Option<ExitRecord> {
        self.has_exited.then(|| self.last_exit()).flatten()
    }

    /// The exit record of the current run, which is over, and the kernel's kills for lack of memory.
    pub(crate) fn take_exit(&mut self) -> (Option<ExitRecord>, Option<OomKill>) {
        let exit = self.exit();
        self.has_exited = false;
        (exit, self.rare.as_mut().and_then(|rare| rare.oom.take()))
    }

    /// Records the end of the run with this number.
    pub(crate) fn ended(&mut self, number: u64, over: EndedRun, now: Instant, wall: SystemTime) {
        let EndedRun { end, exit, cgroup } = over;
        let lasted = now.saturating_duration_since(self.start());
        self.set_over(Some((wall, lasted)));
        if self.most == 0 {
            return;
        }
        let started_at = self.started_at().unwrap_or(wall);
        let most = self.most as usize;
        let memory = self.memory();
        if memory.len() >= most {
            memory.forget_oldest();
        }
        memory.push(&Run {
            number,
            pid: exit.map(|record| record.pid),
            started_at,
            ended_at: wall,
            lasted,
            exit,
            cgroup,
            end,
        });
    }

    /// The last runs, the oldest first.
    pub(crate) fn runs(&self) -> impl DoubleEndedIterator<Item = Run> {
        self.memory.iter().flat_map(|memory| memory.iter())
    }

    /// The last run.
    pub(crate) fn last_run(&self) -> Option<Run> {
        self.runs().next_back()
    }
}

/// The time in nanoseconds since 1970, or the nearest that can be told.
fn nanos_of(wall: SystemTime) -> i64 {
    let is_before = wall.duration_since(SystemTime::UNIX_EPOCH).is_err();
    wall_nanos(wall).unwrap_or(if is_before { EARLIEST } else { i64::MAX })
}

impl Stored for History {
    fn put(&self, to: &mut Writer<'_>) {
        self.started_at().put(to);
        self.last_error().cloned().put(to);
        self.last_exit().put(to);
        self.over().put(to);
        self.exit().put(to);
        self.complaint().cloned().put(to);
        self.rare.as_ref().and_then(|rare| rare.oom).put(to);
        self.start().put(to);
        let runs = self.memory.as_ref().map_or(0, |memory| memory.len());
        u32::try_from(runs).unwrap_or(u32::MAX).put(to);
        self.runs().for_each(|run| run.put(to));
    }

    fn get(from: &mut Reader<'_>) -> Result<History, Damaged> {
        let mut history = History::new(0);
        history.get_start(from)?;
        history.set_last_error(Stored::get(from)?);
        let last: Option<ExitRecord> = Stored::get(from)?;
        let over = Stored::get(from)?;
        // The exit record of the current run is the last one.
        let exit: Option<ExitRecord> = Stored::get(from)?;
        history.has_exited = exit.is_some();
        history.set_last_exit(exit.or(last).as_ref());
        history.set_complaint(Stored::get(from)?);
        history.set_oom(Stored::get(from)?);
        history.clock = Instant::get(from)?.as_nanos();
        history.set_over(over);
        let runs: Vec<Run> = Stored::get(from)?;
        history.most = u32::try_from(runs.len()).unwrap_or(u32::MAX);
        if !runs.is_empty() {
            let memory = history.memory();
            runs.iter().for_each(|run| memory.push(run));
        }
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::TYPICAL;
    use super::super::run::End;
    use super::*;
    use crate::exit::{Exit, Pid};

    #[test]
    fn the_first_end_allocates_for_all_runs() {
        let mut history = History::new(0).with_most(3);
        history.began(Instant::ZERO, SystemTime::UNIX_EPOCH);
        assert!(history.memory.is_none() && history.last_exit().is_none());
        assert_eq!((history.runs().count(), history.last_run()), (0, None));
        let end = |history: &mut History, number| {
            let record = ExitRecord {
                pid: Pid::new(7).unwrap(),
                exit: Exit::Code(0),
                usage: None,
            };
            history.exited(record, None);
            let (exit, _) = history.take_exit();
            let over = EndedRun {
                end: End::Exited(0),
                exit,
                cgroup: None,
            };
            history.ended(number, over, Instant::ZERO, SystemTime::UNIX_EPOCH);
            history.memory.as_ref().unwrap().capacity()
        };
        let first = end(&mut history, 1);
        assert!(first >= 3 * TYPICAL);
        assert!((2..50).all(|number| end(&mut history, number) == first));
        assert_eq!(history.runs().count(), 3);
    }

    #[test]
    fn only_the_last_few_are_kept() {
        let over = || EndedRun {
            end: End::Stopped,
            exit: None,
            cgroup: None,
        };
        let mut history = History::new(2);
        for number in 1..=3 {
            history.ended(number, over(), Instant::ZERO, SystemTime::UNIX_EPOCH);
        }
        assert_eq!(history.runs().map(|run| run.number).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(history.last_run().map(|run| run.number), Some(3));
        let mut none = History::new(0);
        none.ended(1, over(), Instant::ZERO, SystemTime::UNIX_EPOCH);
        assert_eq!(none.runs().count(), 0);
    }

    #[test]
    fn a_time_that_cannot_be_told_is_the_nearest_one() {
        let far = std::time::Duration::from_secs(u64::MAX / 4);
        let [before, after] = [SystemTime::UNIX_EPOCH - far, SystemTime::UNIX_EPOCH + far];
        let mut history = History::new(1);
        for (wall, nearest) in [(before, wall_time(EARLIEST)), (after, wall_time(i64::MAX))] {
            history.began(Instant::ZERO, wall);
            assert_eq!(history.started_at(), Some(nearest));
        }
        assert!(wall_time(EARLIEST) < SystemTime::UNIX_EPOCH);
        assert_ne!(EARLIEST, NO_TIME);
    }
}
