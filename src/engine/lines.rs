//! What happened, as the line that a person wants in a log.

use std::fmt;

use super::event::{Event, ProcessNotice, RefusalReason, ReloadResult, RemovalReason, StopReason, TransitionEvent};
use crate::errno::ErrnoText;

impl fmt::Display for TransitionEvent {
    /// The line for a log: the instance, both states, the cause, and the process if it is alive after the transition.
    ///
    /// ```text
    /// web:0 STARTING -> RUNNING: ready, pid 4711
    /// web:0 STARTING -> BACKOFF: could not be spawned: No such file or directory
    /// ```
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}: {}", self.name, self.from, self.to, self.cause)?;
        match self.pid.filter(|_| self.to.is_alive()) {
            Some(pid) => write!(f, ", pid {pid}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Event {
    /// The line for a log. It begins with the instance or the group, if the event is about one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Transition(step) => step.fmt(f),
            Event::Unkillable {
                name, pid: Some(pid), ..
            } => write!(f, "{name} is not ended by SIGKILL, pid {pid}"),
            Event::Unkillable { name, pid: None, .. } => write!(f, "{name} is not ended by SIGKILL"),
            Event::SignalFailed {
                name, signal, errno, ..
            } => {
                write!(f, "{name} cannot be sent {signal}: {}", ErrnoText(*errno))
            }
            Event::Notice { name, notice, .. } => write!(f, "{name} reports: {notice}"),
            Event::Reloaded { name, result, .. } => write!(f, "{name} {result}"),
            Event::LimitFailed { name, file, errno, .. } => {
                write!(f, "{name} keeps its old {file}: {}", ErrnoText(*errno))
            }
            Event::CommandFailed { name, run, failure, .. } => {
                write!(f, "{name} command after run {run} failed: {failure}")
            }
            Event::StopCommandStarted { name, index, pid, .. } => {
                write!(f, "{name} is being stopped by command {index}, pid {pid}")
            }
            Event::StopCommandEnded { name, index, end, .. } => write!(f, "{name} stop command {index} {end}"),
            Event::Signal(signal) => match signal.sender {
                Some(sender) => write!(f, "received {} from pid {sender}", signal.signal),
                None => write!(f, "received {}", signal.signal),
            },
            Event::Rolled { name, failed: None, .. } => write!(f, "{name} was restarted, one after the other"),
            Event::Rolled {
                name,
                failed: Some(instance),
                ..
            } => {
                write!(f, "{name} is not restarted further: {instance} did not come up")
            }
            Event::Orphan(record) => write!(f, "orphan {} {}", record.pid, record.exit),
            Event::StartWaits { name, awaited_name, .. } => write!(f, "{name} waits for {awaited_name}"),
            Event::StartWithdrawn { name, cause, .. } => write!(f, "{name} is not started: {cause}"),
            Event::GroupStops {
                name,
                reason: StopReason::AllEnd,
                ..
            } => write!(f, "{name} was the last one of its group"),
            Event::GroupStops { name, .. } => write!(f, "{name} has ended, and its group stops"),
            Event::GroupRemoved { name, .. } => write!(f, "{name} was removed"),
        }
    }
}

impl fmt::Display for ProcessNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProcessNotice::Reloading => f.write_str("reloading"),
            ProcessNotice::Ready => f.write_str("ready"),
            ProcessNotice::Stopping => f.write_str("stopping"),
            ProcessNotice::Errno(errno) => write!(f, "failure: {}", ErrnoText(*errno)),
            ProcessNotice::WatchdogEvery(every) => write!(f, "watchdog of {every:?}"),
            ProcessNotice::DescriptorsStored { name, count } => write!(f, "{count} descriptors stored as {name:?}"),
            ProcessNotice::DescriptorsRemoved { name, count, reason } => {
                write!(f, "{count} stored descriptors {name:?} removed: {reason}")
            }
            ProcessNotice::DescriptorsRefused { count, reason } => {
                write!(f, "{count} descriptors not stored: {reason}")
            }
        }
    }
}

impl fmt::Display for RemovalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RemovalReason::Requested => "requested",
            RemovalReason::HungUp => "the other side is gone",
        })
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RefusalReason::NoStore => f.write_str("the group has no descriptor store"),
            RefusalReason::Full => f.write_str("the store is full"),
            RefusalReason::Duplicate => f.write_str("stored already"),
            RefusalReason::Name => f.write_str("the name is invalid"),
            RefusalReason::Lost => f.write_str("the host has too few free descriptors"),
            RefusalReason::Errno(errno) => ErrnoText(*errno).fmt(f),
        }
    }
}

impl fmt::Display for ReloadResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReloadResult::Done => "has reloaded",
            ReloadResult::TimedOut => "has not reloaded in time",
            ReloadResult::Ended => "ended before it had reloaded",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::engine::arena::{Arena, Id};
    use crate::engine::event::Name;
    use crate::engine::ids::{GroupId, InstanceId};
    use crate::engine::place::GroupRef;
    use crate::engine::run::End;
    use crate::exit::{Exit, ExitRecord, Pid};
    use crate::lifecycle::{Cause, Failure, StateName, StopCommandEnd};
    use crate::signal::Signal;
    use crate::time::Instant;

    fn step(from: StateName, to: StateName, cause: Cause) -> Event {
        let group = Arena::<GroupId, ()>::new(1).insert(());
        Event::Transition(TransitionEvent {
            instance: InstanceId::from_raw(group.raw()),
            group,
            name: Name {
                group: "web".into(),
                number: 0,
            },
            from,
            to,
            cause,
            pid: Pid::new(4_711),
            run: 1,
            at: Instant::ZERO,
            wall: SystemTime::UNIX_EPOCH,
            exit: None,
            error: None,
        })
    }

    #[test]
    fn an_event_is_a_line_of_a_log() {
        let (errno, permanent) = (2, true);
        let failed = Cause::Failed(Failure::Spawn { errno, permanent });
        let (starting, backoff) = (StateName::Starting, StateName::Backoff);
        let name = || Name {
            group: "web".into(),
            number: 1,
        };
        let group = Arena::<GroupId, ()>::new(1).insert(());
        let instance = InstanceId::from_raw(group.raw());
        let record = ExitRecord {
            pid: Pid::new(9).unwrap(),
            exit: Exit::Code(3),
            usage: None,
        };
        let signal = Signal::TERM;
        for (event, line) in [
            (
                step(starting, StateName::Running, Cause::Ready),
                "web:0 STARTING -> RUNNING: ready, pid 4711",
            ),
            (
                step(starting, backoff, failed),
                "web:0 STARTING -> BACKOFF: could not be spawned: No such file or directory",
            ),
            (
                Event::SignalFailed {
                    instance,
                    group,
                    name: name(),
                    signal,
                    errno: 1,
                },
                "web:1 cannot be sent SIGTERM: Operation not permitted",
            ),
            (Event::Orphan(record), "orphan 9 exited with code 3"),
            (
                Event::Reloaded {
                    instance,
                    group,
                    name: name(),
                    result: ReloadResult::TimedOut,
                },
                "web:1 has not reloaded in time",
            ),
            (
                Event::StopCommandEnded {
                    instance,
                    group,
                    name: name(),
                    run: 1,
                    rung: 0,
                    index: 0,
                    pid: None,
                    end: StopCommandEnd::TimedOut,
                    error: None,
                },
                "web:1 stop command 0 timed out",
            ),
            (
                Event::GroupRemoved {
                    group,
                    name: "web".into(),
                },
                "web was removed",
            ),
        ] {
            assert_eq!(event.to_string(), line);
        }
    }

    #[test]
    fn a_notice_is_a_line_with_its_reason() {
        let count = 2;
        let removed = ProcessNotice::DescriptorsRemoved {
            name: "db".into(),
            count,
            reason: RemovalReason::HungUp,
        };
        let reason = RefusalReason::Full;
        assert_eq!(
            removed.to_string(),
            "2 stored descriptors \"db\" removed: the other side is gone"
        );
        assert_eq!(
            ProcessNotice::DescriptorsRefused { count, reason }.to_string(),
            "2 descriptors not stored: the store is full"
        );
    }

    #[test]
    fn a_group_is_shown_by_its_number_or_its_name() {
        let id = Arena::<GroupId, ()>::new(1).insert(());
        assert_eq!(GroupRef::Id(id).to_string(), "#0.0");
        assert_eq!(GroupRef::from("web").to_string(), "\"web\"");
    }

    #[test]
    fn a_value_with_data_has_the_name_of_its_kind() {
        assert_eq!(RefusalReason::Errno(9).as_str(), "errno");
        assert_eq!(End::Exited(3).as_str(), "exited");
    }
}
