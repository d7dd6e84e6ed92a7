//! Translates settings to steps. Privileges determine the order: first the steps that need the host's privileges, then
//! the ids, then the steps with the privileges of the target user.

use super::builder::{Command, ProcessGroup};
use super::capability::Capabilities;
use super::error::{CommandError, SpawnStep};
use super::identity::{Host, Ids};
use super::program::{Lowering, c_string};
use super::settings::{Resource, Settings};
use crate::signal::Signal;
use crate::sys::spawn::capabilities::CapabilitySets;
use std::os::fd::RawFd;

/// An upper bound of CPU numbers. Kernels are built for far fewer CPUs.
const CPUS_MAX: usize = 65_536;

impl Lowering {
    pub(super) fn lower_settings(
        &mut self,
        command: &Command,
        ids: &Ids,
        host: &Host,
        parent_death_signal: Option<Signal>,
    ) -> Result<(), CommandError> {
        let settings = &command.settings;
        let drops = ids.drops(host);
        self.lower_session(command, drops)?;
        self.lower_terminal(settings)?;
        let namespaces = self.place_namespaces(&command.namespaces);
        self.lower_scheduling(settings)?;
        self.lower_limits(settings)?;
        self.lower_umask(command)?;
        check_bounding(settings)?;
        self.lower_bounding(settings, ids);
        self.lower_namespaces(&namespaces);
        self.lower_chroot(command)?;
        self.lower_proc(&command.namespaces);
        self.lower_ids(ids);
        self.lower_capabilities(settings, ids, host);
        self.lower_current_dir(command)?;
        if command.no_new_privileges.unwrap_or(drops) {
            let label = self.label(SpawnStep::NoNewPrivileges, None);
            self.body.no_new_privileges(label);
        }
        if let Some(signal) = parent_death_signal {
            let label = self.value(SpawnStep::ParentDeathSignal, signal);
            self.body.parent_death_signal(label, signal);
        }
        let label = self.label(SpawnStep::SignalDisposition, None);
        self.body.dispositions(label, command.ignored_signals);
        Ok(())
    }

    fn lower_session(&mut self, command: &Command, drops: bool) -> Result<(), CommandError> {
        let terminal = command.settings.controlling_terminal.is_some();
        if terminal && command.setsid == Some(false) {
            return Err(CommandError::Needs {
                what: "a controlling terminal",
                needs: "a new session",
            });
        }
        let asked = command.setsid == Some(true) || terminal;
        let group = match command.process_group {
            Some(ProcessGroup::Inherited) if asked => {
                return Err(CommandError::Needs {
                    what: "the host's process group",
                    needs: "the host's session",
                });
            }
            Some(ProcessGroup::Inherited) => return Ok(()),
            Some(ProcessGroup::Number(group)) => Some(group),
            None => None,
        };
        if let Some(group) = group.filter(|&group| group < 0) {
            return Err(CommandError::ProcessGroup { group });
        }
        match group.filter(|&group| group != 0) {
            Some(group) if asked => return Err(CommandError::SessionInGroup { group }),
            Some(_) => {}
            None => {
                let by_default = command.setsid.is_none() && drops && command.settings.foreground.is_none();
                if asked || by_default {
                    let label = self.label(SpawnStep::Session, None);
                    self.body.new_session(label);
                    return Ok(());
                }
            }
        }
        if let Some(group) = group {
            let label = self.value(SpawnStep::ProcessGroup, group);
            self.body.process_group(label, group);
        }
        Ok(())
    }

    fn lower_terminal(&mut self, settings: &Settings) -> Result<(), CommandError> {
        if let Some(fd) = settings.controlling_terminal {
            let label = self.terminal(SpawnStep::ControllingTerminal, fd)?;
            self.body.controlling_terminal(label, fd);
        }
        if let Some(fd) = settings.foreground {
            let label = self.terminal(SpawnStep::Foreground, fd)?;
            self.body.foreground(label, fd);
        }
        Ok(())
    }

    /// A label for a step on one of the child's descriptors.
    fn terminal(&mut self, step: SpawnStep, fd: RawFd) -> Result<usize, CommandError> {
        if !self.descriptors.iter().any(|descriptor| descriptor.target == fd) {
            return Err(CommandError::Target { target: fd });
        }
        Ok(self.value(step, format_args!("with descriptor {fd}")))
    }

    fn lower_scheduling(&mut self, settings: &Settings) -> Result<(), CommandError> {
        if let Some(nice) = settings.nice {
            in_range("nice value", nice, -20..=19)?;
            let label = self.value(SpawnStep::Nice, nice);
            self.body.nice(label, nice);
        }
        if let Some(scheduling) = settings.scheduling {
            if let Some(priority) = scheduling.priority() {
                in_range("static priority", priority.into(), 1..=99)?;
            }
            let label = self.value(SpawnStep::Scheduling, format_args!("{scheduling:?}"));
            self.body.scheduling(label, scheduling.as_raw());
        }
        if let Some(priority) = settings.io_priority {
            in_range("level of the I/O priority", priority.level().into(), 0..=7)?;
            let label = self.value(SpawnStep::IoPriority, format_args!("{priority:?}"));
            self.body.io_priority(label, priority.as_raw());
        }
        if let Some(cpus) = &settings.affinity {
            if cpus.is_empty() {
                return Err(CommandError::Needs {
                    what: "CPU affinity",
                    needs: "a CPU",
                });
            }
            if let Some(&cpu) = cpus.iter().find(|&&cpu| cpu >= CPUS_MAX) {
                let value = i64::try_from(cpu).unwrap_or(i64::MAX);
                return Err(CommandError::OutOfRange { what: "CPU", value });
            }
            let label = self.value(SpawnStep::Affinity, format_args!("{cpus:?}"));
            self.body.affinity(label, cpus);
        }
        if let Some(value) = settings.oom_score_adj {
            in_range("oom_score_adj", value, -1000..=1000)?;
            let label = self.value(SpawnStep::OomScore, value);
            let scratch = self.first_gap();
            self.body.oom_score_adj(label, value, scratch);
        }
        Ok(())
    }

    fn lower_limits(&mut self, settings: &Settings) -> Result<(), CommandError> {
        for &(resource, soft, hard) in &settings.limits {
            if soft > hard {
                let value = i64::try_from(soft).unwrap_or(i64::MAX);
                return Err(CommandError::OutOfRange {
                    what: "soft limit (above the hard one)",
                    value,
                });
            }
            let words = |limit: u64| match limit {
                Resource::UNLIMITED => "unlimited".to_owned(),
                limit => limit.to_string(),
            };
            let (least, most) = (words(soft), words(hard));
            let label = self.value(
                SpawnStep::Limit,
                format_args!("{resource:?} to {least}, at most {most}"),
            );
            self.body.limit(label, resource.as_raw(), soft, hard);
        }
        Ok(())
    }

    fn lower_umask(&mut self, command: &Command) -> Result<(), CommandError> {
        let Some(mask) = command.umask else { return Ok(()) };
        if mask > 0o777 {
            return Err(CommandError::Umask { mask });
        }
        let label = self.value(SpawnStep::Umask, format_args!("{mask:#o}"));
        self.body.umask(label, mask);
        Ok(())
    }

    fn lower_chroot(&mut self, command: &Command) -> Result<(), CommandError> {
        let Some(path) = &command.chroot else { return Ok(()) };
        let label = self.path(SpawnStep::Chroot, path);
        self.body
            .change_root(label, &c_string("the root directory", path.as_os_str())?);
        Ok(())
    }

    fn lower_current_dir(&mut self, command: &Command) -> Result<(), CommandError> {
        let Some(path) = &command.current_dir else {
            return Ok(());
        };
        let label = self.path(SpawnStep::CurrentDir, path);
        self.body
            .change_directory(label, &c_string("the working directory", path.as_os_str())?);
        Ok(())
    }

    /// Changing the bounding set needs CAP_SETPCAP, so it comes before the ids change. Ambient capabilities need a
    /// permitted set that is kept when the ids change.
    fn lower_bounding(&mut self, settings: &Settings, ids: &Ids) {
        if let Some(keep) = settings.bounding {
            let label = self.value(SpawnStep::Capabilities, "(bounding)");
            self.body.limit_bounding(label, keep.bits());
        }
        if !settings.ambient.is_empty() && ids.uid.is_some() {
            let label = self.value(SpawnStep::Capabilities, "(to be kept)");
            self.body.keep_capabilities(label);
        }
    }

    fn lower_ids(&mut self, ids: &Ids) {
        if let Some(groups) = &ids.groups {
            let label = self.value(SpawnStep::Groups, format_args!("{groups:?}"));
            self.body.groups(label, groups);
        }
        if let Some(gid) = ids.gid {
            let label = self.value(SpawnStep::Gid, gid);
            self.body.gid(label, gid);
        }
        if let Some(uid) = ids.uid {
            let label = self.value(SpawnStep::Uid, uid);
            self.body.uid(label, uid);
        }
    }

    /// The capabilities after the ids have changed. The check that the child cannot become the old user again comes
    /// last: the child of a host that has CAP_SETUID and is not root loses that capability only here.
    fn lower_capabilities(&mut self, settings: &Settings, ids: &Ids, host: &Host) {
        let ambient = settings.ambient.bits();
        let drops = ids.drops(host);
        if drops {
            let label = self.value(SpawnStep::Capabilities, "(permitted)");
            let inheritable = self.inheritable;
            let sets = CapabilitySets {
                effective: ambient,
                permitted: ambient,
                inheritable,
            };
            self.body.set_capabilities(label, sets);
        }
        if ambient != 0 {
            let label = self.value(SpawnStep::Capabilities, "(ambient)");
            self.body.raise_ambient(label, ambient);
        }
        if drops && !settings.ambient.contains(Capabilities::SETUID) {
            let label = self.value(SpawnStep::Uid, "for good");
            self.body.cannot_become(label, host.uid);
        }
    }
}

/// Rejects inheritable and ambient capabilities outside of the bounding set: the kernel would let the process keep them
/// and pass them on.
fn check_bounding(settings: &Settings) -> Result<(), CommandError> {
    let Some(bounding) = settings.bounding else {
        return Ok(());
    };
    for (what, set) in [("ambient", settings.ambient), ("inheritable", settings.inheritable)] {
        let beyond = set.difference(bounding);
        if !beyond.is_empty() {
            return Err(CommandError::BeyondBounding { what, beyond });
        }
    }
    Ok(())
}

fn in_range(what: &'static str, value: i32, range: std::ops::RangeInclusive<i32>) -> Result<(), CommandError> {
    if range.contains(&value) {
        Ok(())
    } else {
        Err(CommandError::OutOfRange {
            what,
            value: value.into(),
        })
    }
}
