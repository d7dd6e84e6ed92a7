//! The resources of a run are those that its cgroup has counted.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pidherd::GroupSpec;
use pidherd::cgroup::{CgroupUsage, Limits};

use crate::common::isolated;
use crate::common::memory::LIMIT;
use crate::ground::{Ground, Place};
use crate::host::{Host, sh};
use crate::run::once;
use pidherd::lifecycle::Scope;
use pidherd::lifecycle::StateName::Exited;

/// The CPU time that the process uses before it waits: long enough that its end adds less than 1 % of it.
const BUSY: Duration = Duration::from_millis(1500);

/// The number after a key in a file of the cgroup, or the whole file's number.
fn number(cgroup: &Path, file: &str, key: &str) -> Option<u64> {
    let content = fs::read_to_string(cgroup.join(file)).ok()?;
    let mut numbers = content
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.trim().parse().ok());
    numbers.next()
}

fn within_one_percent(what: &str, told: Option<u64>, counted: Option<u64>) {
    match (told, counted) {
        (Some(told), Some(counted)) => {
            assert!(
                told.abs_diff(counted) * 100 <= counted,
                "{what}: {told} is told, {counted} was counted"
            );
        }
        (told, counted) => assert_eq!(told, counted, "{what}"),
    }
}

#[test]
fn the_usage_of_a_run_is_what_its_cgroup_has_counted() {
    isolated(|| {
        let ground = Ground::new();
        let Some(dir) = ground.dir(Place::Plain) else { return };
        let mut host = Host::new();
        // The process keeps some megabytes, and uses CPU time for each empty line that it gets.
        let script = "x=$(head -c 4000000 /dev/zero | tr '\\0' x); echo has; while read go && [ -z \"$go\" ]; do \
                      i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; echo busy; done; exit 0";
        let limits = match ground.memory {
            true => Limits::new().memory_max(LIMIT * 2),
            false => Limits::new(),
        };
        let spec = GroupSpec::new("a", sh(script)).policy(once(Scope::Cgroup));
        let id = host.add(spec.cgroup(dir.clone()).limits(limits)).1[0];
        host.start_these(id);
        assert_eq!(host.line(id), "has");
        let cgroup = dir.path().join("a-0");
        let cpu = || number(&cgroup, "cpu.stat", "usage_usec").map(Duration::from_micros);
        while cpu().unwrap() < BUSY {
            host.go_on(id);
            assert_eq!(host.line(id), "busy");
        }
        let counted = CountedBefore::of(&cgroup);
        rustix::io::write(host.pipes(id).stdin.as_ref().unwrap(), b"end\n").unwrap();
        host.until_state(id, Exited);
        counted.compare(&host.supervisor.runs(id).last().unwrap().cgroup.unwrap());
        host.shut_down();
    });
}

/// What the files of the cgroup say just before the process ends.
struct CountedBefore {
    cpu: Option<u64>,
    peak: Option<u64>,
    pids_peak: Option<u64>,
    io: Option<u64>,
}

impl CountedBefore {
    fn of(cgroup: &Path) -> CountedBefore {
        CountedBefore {
            cpu: number(cgroup, "cpu.stat", "usage_usec"),
            peak: number(cgroup, "memory.peak", ""),
            pids_peak: number(cgroup, "pids.peak", ""),
            io: cgroup.join("io.stat").exists().then_some(0),
        }
    }

    fn compare(&self, used: &CgroupUsage) {
        println!("{used:?}");
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap();
        within_one_percent("CPU time", used.cpu.map(micros), self.cpu);
        within_one_percent("the peak of memory", used.memory_peak, self.peak);
        assert_eq!(used.pids_peak, self.pids_peak);
        assert_eq!(used.io_read.is_some(), self.io.is_some());
        let parts = used.cpu_user.unwrap() + used.cpu_system.unwrap();
        within_one_percent("the parts of the CPU time", Some(micros(parts)), used.cpu.map(micros));
    }
}
