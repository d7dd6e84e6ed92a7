//! The resources of living runs.

use super::{InstanceId, Supervise, Supervisor};
use crate::cgroup::CgroupUsage;

impl Supervisor {
    /// The resources that the present run of an instance has used in its cgroup until now: CPU time, memory, processes,
    /// input and output. Those of a run that is over are in [`Run::cgroup`](super::Run::cgroup), beside the usage of
    /// its process alone ([`ExitRecord::usage`](crate::ExitRecord::usage)).
    ///
    /// `None` for an unknown id, for an instance without a process, and if the group has no
    /// [cgroups](super::GroupSpec::cgroup). Which fields are known depends on the controllers of the cgroup. Reads up
    /// to ten small files of the kernel, and does not block.
    ///
    /// ```no_run
    /// use pidherd::{InstanceId, Supervisor};
    ///
    /// fn print_memory(supervisor: &Supervisor, worker: InstanceId) {
    ///     let used = supervisor.usage(worker).and_then(|usage| usage.memory_current);
    ///     match used {
    ///         Some(bytes) => println!("{} KiB", bytes / 1024),
    ///         None => println!("not known"),
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn usage(&self, instance: InstanceId) -> Option<CgroupUsage> {
        Supervise::usage(self, instance)
    }
}
