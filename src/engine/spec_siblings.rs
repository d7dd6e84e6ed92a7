//! The settings of a group that concern its instances together.

use super::spec::GroupSpec;
use crate::lifecycle::{AutoShutdown, CrashBudget, Strategy};

impl GroupSpec {
    /// Sets [`Policy::shared_budget`](crate::Policy::shared_budget): the number of restarts after a crash within a
    /// window for all instances of the group together. By default there is no such bound.
    ///
    /// The crashes of all instances are counted together. An instance that crashes when the budget is used up is given
    /// up: it is `Fatal`, with the cause
    /// [`Cause::CrashBudgetUsedUp`](crate::lifecycle::Cause::CrashBudgetUsedUp). So is every other one that crashes
    /// before a crash has left the window. The instances that are up go on: a budget limits restarts, and does not judge
    /// an instance that works. With a [strategy](GroupSpec::strategy) other than one-for-one, or with
    /// [`AutoShutdown::AnyEnd`], the group stops instead. What is counted, and what uses up nothing, is as for the budget
    /// of one instance ([`Policy::crash_budget`](crate::Policy::crash_budget)), which holds besides this one. An expected
    /// exit uses up nothing. A failed start has its own limit
    /// ([`Policy::start_retries`](crate::Policy::start_retries)).
    ///
    /// Each instance remembers its own crashes. A start on request and a stop on request forget those of the instance
    /// concerned, and so does a run that was longer than [`Policy::stable_after`](crate::Policy::stable_after); a removed
    /// instance takes its crashes with it. So a start of the group clears the crashes of all instances that were down. A
    /// reload with another budget forgets none: the next crash is compared with the new one.
    ///
    /// ```
    /// use pidherd::lifecycle::CrashBudget;
    /// use pidherd::{Command, GroupSpec, Supervisor};
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // A broken release crashes everywhere: after 20 restarts within a minute, none is started again.
    /// let workers = GroupSpec::new("worker", Command::new("/usr/bin/worker"))
    ///     .instances(8)
    ///     .shared_budget(CrashBudget::new(20, Duration::from_secs(60)));
    /// let mut supervisor = Supervisor::new()?;
    /// supervisor.add(workers)?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn shared_budget(mut self, budget: CrashBudget) -> GroupSpec {
        self.own.shared_budget = Some(budget);
        self.policy.shared_budget = Some(budget);
        self
    }

    /// Sets [`Policy::strategy`](crate::Policy::strategy): what the end of one instance means for its siblings, the other
    /// instances of the group. The default is [`Strategy::OneForOne`]: nothing. These are Erlang's supervision
    /// strategies, for instances that do not work without each other, or that must have the same state.
    ///
    /// When an instance that was running has ended without a request, and its policy starts it again: after an exit, a
    /// signal (also one that the [host has sent](crate::Supervisor::signal)), a missed [watchdog](crate::Policy::watchdog), a
    /// [`run_timeout`](crate::Policy::run_timeout) or a [report of the host](crate::Supervisor::report_failed):
    ///
    /// 1. With [`Strategy::OneForAll`] all siblings that are starting or running are stopped, at the same time, each by
    ///    the ladder of the policy ([`Cause::SiblingEnded`](crate::lifecycle::Cause::SiblingEnded)). With
    ///    [`Strategy::RestForOne`] these are the siblings with a higher number.
    /// 2. Each that has ended waits in [`State::Backoff`](crate::lifecycle::State) for the others; a sibling has
    ///    [`Failure::Sibling`](crate::lifecycle::Failure::Sibling) there.
    /// 3. When all of them have ended and the delay of the first one is over, all are started, at the same time
    ///    ([`Cause::DelayOver`](crate::lifecycle::Cause::DelayOver)). With a [command after the run](GroupSpec::after_run),
    ///    each has ended when that has ended. A process that not even SIGKILL ends is waited for.
    ///
    /// With a [delay](crate::Policy::restart_delay) without an end the failed one is not started again, and its siblings go
    /// on.
    ///
    /// A second one that fails meanwhile takes part, and its delay counts too. A joint restart uses up the crash budget
    /// of the instances that have failed, and of no sibling. A sibling that has ended by itself, and whose end the
    /// supervisor has not seen yet, is treated as one that was stopped: of several that crash at the same moment one uses up
    /// its budget, and one that has just ended as expected is started again.
    ///
    /// An instance that ends before it was running has not been relied on: it is [tried
    /// again](crate::Policy::start_retries) alone. If it waits for such a try when a sibling ends, it takes part. A
    /// [job](crate::Startup::Completes) is never running, so no end of one restarts a sibling.
    ///
    /// Each request of the host wins over the strategy. An instance that is down by a request stays down. One that is
    /// started, stopped, restarted or killed meanwhile takes no further part: a start does not wait for the siblings, and
    /// they do not wait for a process that is being stopped on request. The same holds for one that is scaled down,
    /// restarted by a reload, or stopped by a shutdown. One that is added is started at once. A start and a restart on
    /// request concern no sibling.
    ///
    /// An instance of a [rolling restart](crate::Supervisor::rolling_restart) that is stopped with its siblings has not come
    /// up, so the rolling restart ends. An instance that was given up for the time of its
    /// [cool-off](crate::Policy::cool_off) takes no part: its siblings go on without it, also when it is started again. A
    /// reload with another strategy concerns the next end, and a joint restart that has begun goes on.
    ///
    /// When an instance is given up for good (it is `Fatal`, and has no cool-off), its siblings do not work without it: the
    /// group stops. All siblings that are up are stopped, also with [`Strategy::RestForOne`], and stay down until they are
    /// started; [`Event::GroupStops`](crate::supervisor::Event::GroupStops) tells it, with
    /// [`StopReason::GivenUp`](crate::supervisor::StopReason::GivenUp). In Erlang the supervisor ends then. So an instance
    /// that cannot be started ends its group, when it has no [retry](crate::Policy::start_retries) left: also in a rolling
    /// restart, unless it is an additional instance ([`Rolling::surge`](crate::group::Rolling::surge)).
    ///
    /// The order among the instances of a group is not kept: for one that must be up before another one, use two groups
    /// and [`after`](GroupSpec::after). Joint stops and starts do not wait for [other groups](GroupSpec::requires), as
    /// every restart by the policy.
    ///
    /// The first 64 siblings are stopped in the call that sees the end, and more of them in the calls that follow, each
    /// within its [slice](crate::supervisor::Builder::slice). One that the host starts in between takes no part. The starts
    /// are in slices too.
    ///
    /// ```
    /// use pidherd::lifecycle::Strategy;
    /// use pidherd::{Command, GroupSpec, Supervisor};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // The nodes of a cluster that cannot go on when one of them has lost its state.
    /// let nodes = GroupSpec::new("node", Command::new("/usr/bin/node")).instances(3).strategy(Strategy::OneForAll);
    /// let mut supervisor = Supervisor::new()?;
    /// supervisor.add(nodes)?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> GroupSpec {
        self.own.strategy = Some(strategy);
        self.policy.strategy = strategy;
        self
    }

    /// Sets [`Policy::auto_shutdown`](crate::Policy::auto_shutdown): what it means for the group that an instance has ended
    /// for good by itself: its policy does not start it again after it has ended, or it was given up (`Fatal`, without a
    /// [cool-off](crate::Policy::cool_off)). A stop on request, a scaling and a removal are no such ends. The default is
    /// [`AutoShutdown::Never`]: nothing.
    ///
    /// - With [`AutoShutdown::AnyEnd`] the first such end stops the group: all instances that are up, or wait for a start,
    ///   are stopped, at the same time and by their ladders.
    /// - With [`AutoShutdown::AllEnd`] the group is over with the last such end, when no other instance is up or is going
    ///   to be. Those that a request has stopped do not count. When the last one that is up is stopped on request or scaled
    ///   down, that is no such end, even if all others have ended: nothing is reported.
    ///
    /// An instance that waits in [`State::Backoff`](crate::lifecycle::State) has not ended for good, also with a delay
    /// without an end. A reload with another setting concerns the next end.
    ///
    /// [`Event::GroupStops`](crate::supervisor::Event::GroupStops) tells which instance it was, once. The cause of the
    /// stops is [`Cause::SiblingEnded`](crate::lifecycle::Cause::SiblingEnded). From then on the group is down as after
    /// [`Supervisor::stop`](crate::Supervisor::stop): an instance that is added is not started, a reload starts nothing, and
    /// a start on request starts it again. Groups that [require](GroupSpec::requires) this one go on, as after every end
    /// that the host has not requested.
    ///
    /// What a call of the host starts in the same call wins: an instance that has ended, and is started by a request before
    /// the supervisor has looked, has not ended for good.
    ///
    /// ```
    /// use pidherd::lifecycle::AutoShutdown;
    /// use pidherd::{Command, Event, GroupSpec, Restart, Supervisor};
    /// use rustix::event::{PollFd, PollFlags, poll};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // Four jobs; the work is done when the last one is.
    /// let jobs = GroupSpec::new("job", Command::new("true")).instances(4).restart(Restart::Never);
    /// let mut supervisor = Supervisor::new()?;
    /// let jobs = supervisor.add(jobs.auto_shutdown(AutoShutdown::AllEnd))?;
    /// supervisor.start(jobs)?;
    /// let mut is_done = false;
    /// while !is_done {
    ///     poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], None)?;
    ///     supervisor.dispatch()?;
    ///     while let Some(event) = supervisor.next_event() {
    ///         is_done |= matches!(event, Event::GroupStops { group, .. } if group == jobs);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn auto_shutdown(mut self, when: AutoShutdown) -> GroupSpec {
        self.own.auto_shutdown = Some(when);
        self.policy.auto_shutdown = when;
        self
    }
}
