//! Tests supervision policies on simulated kernels, each for a year of virtual time, and prints what became of a fleet of
//! five: how long it was down, and whether it survives a bad release and an hour without memory.
//!
//! `cargo run --release --features sim --example simulate_policy`

use std::collections::BTreeMap;
use std::time::Duration;

use pidherd::sim::{Behavior, Faults, Script, Simulation, Span, SpawnFailure};
use pidherd::supervisor::{Supervise, TransitionEvent};
use pidherd::time::Instant;
use pidherd::{Command, CrashBudget, Delay, Event, GroupSpec, InstanceId, Policy, Restart, Signal, StateName};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
const INSTANCES: u32 = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let always = || Policy::new().restart(Restart::Always);
    let slower = Delay::Exponential {
        first: SECOND,
        cap: 5 * MINUTE,
    };
    let budget = CrashBudget::new(5, 10 * MINUTE);
    let policies = [
        ("at once, without end", always().crash_budget(None)),
        ("later and later", always().crash_budget(None).restart_delay(slower)),
        ("5 in 10 minutes, then never", always().crash_budget(budget)),
        (
            "5 in 10 minutes, then hourly",
            always().crash_budget(budget).cool_off(HOUR),
        ),
    ];
    println!(
        "{:<30}{:>9}{:>16}{:>12}{:>12}{:>6}",
        "policy", "crashes", "in the release", "down", "longest", "up"
    );
    for (name, policy) in policies {
        let year = year(policy)?;
        let Year {
            crashes,
            in_release,
            down,
            longest,
            up,
        } = year;
        let share = 100.0 * down.as_secs_f64() / (365 * DAY * INSTANCES).as_secs_f64();
        let longest = format!("{:.1} h", longest.as_secs_f64() / 3_600.0);
        println!("{name:<30}{crashes:>9}{in_release:>16}{share:>10.3} %{longest:>12}{up:>4}/{INSTANCES}");
    }
    Ok(())
}

/// What became of the fleet in a year.
#[derive(Debug, Default)]
struct Year {
    crashes: u32,
    /// The crashes in the six hours of the bad release.
    in_release: u32,
    /// The time in which an instance was not running, of all together, and the longest of one.
    down: Duration,
    longest: Duration,
    /// The number of instances that are running at the end.
    up: u32,
}

fn year(policy: Policy) -> Result<Year, Box<dyn std::error::Error>> {
    let mut simulation = Simulation::new(2026);
    // A crash in two days, and one start in a hundred that fails.
    let failing = Script::new().exits(SECOND / 2, 1);
    let good = Behavior::new(Script::new().exits(Span::exponential(2 * DAY), 1)).sometimes(0.01, failing);
    let bad = Script::new().exits(Span::between(2 * SECOND, 9 * SECOND), 101);
    simulation.assign("web", good.clone())?;
    let spec = GroupSpec::new("web", Command::new("/usr/bin/web"))
        .instances(INSTANCES)
        .policy(policy);
    let web = simulation.add(spec)?;
    simulation.start(web)?;

    let mut ledger = Ledger::default();
    simulation.run_for(100 * DAY, |_, event| ledger.note(event))?;
    // A bad release, which is rolled back after six hours.
    let before = ledger.crashes;
    simulation.assign("web", bad)?;
    simulation.restart(web)?;
    simulation.run_for(6 * HOUR, |_, event| ledger.note(event))?;
    simulation.assign("web", good)?;
    let in_release = ledger.crashes - before;
    simulation.run_for(100 * DAY, |_, event| ledger.note(event))?;
    // An hour without memory, in which all processes die.
    simulation.set_faults(Faults::new().spawns(1.0, SpawnFailure::NoMemory))?;
    simulation.signal(web, Signal::KILL)?;
    simulation.run_for(HOUR, |_, event| ledger.note(event))?;
    simulation.set_faults(Faults::new())?;
    simulation.run_for(165 * DAY - 7 * HOUR, |_, event| ledger.note(event))?;

    let running = |id: &InstanceId| {
        simulation
            .status(*id)
            .is_some_and(|status| status.state.name() == StateName::Running)
    };
    let up = simulation.instances().filter(running).count() as u32;
    let (down, longest) = ledger.close(simulation.now());
    Ok(Year {
        crashes: ledger.crashes,
        in_release,
        down,
        longest,
        up,
    })
}

/// The outages of all instances.
#[derive(Default)]
struct Ledger {
    crashes: u32,
    /// Since when the instances are down that are.
    down: BTreeMap<InstanceId, Instant>,
    sum: Duration,
    longest: Duration,
}

impl Ledger {
    fn note(&mut self, event: &Event) -> Result<(), pidherd::Error> {
        if let Event::Transition(step) = event {
            self.crashes += u32::from(step.exit.is_some());
            self.follow(step);
        }
        Ok(())
    }

    fn follow(&mut self, step: &TransitionEvent) {
        if step.to != StateName::Running {
            self.down.entry(step.instance).or_insert(step.at);
        } else if let Some(since) = self.down.remove(&step.instance) {
            self.add(step.at.saturating_duration_since(since));
        }
    }

    fn add(&mut self, outage: Duration) {
        self.sum += outage;
        self.longest = self.longest.max(outage);
    }

    /// Ends the outages that last. Returns the sum of all, and the longest.
    fn close(&mut self, now: Instant) -> (Duration, Duration) {
        while let Some((_, since)) = self.down.pop_first() {
            self.add(now.saturating_duration_since(since));
        }
        (self.sum, self.longest)
    }
}
