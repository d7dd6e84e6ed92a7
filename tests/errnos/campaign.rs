//! Runs a scenario once without a fault, and then once for each fault. Each run has a process of its own.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, waitid, waitpid};

use crate::common::wait::patience;
use crate::common::{Isolation, Oracle, kernel_since, processes, skipped, tempdir, test_cgroup, wait_gone};
use crate::expected;
use crate::manual;
use crate::scenarios::{SCENARIOS, Scenario};
use crate::shim::{Call, Fault, Place, Shim, install, tells_addresses};
use pidherd::{MaskGuard, SignalSet};

use crate::stage::{Stage, Told, Tried};

/// The time for a run. One that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// How many faults of each scenario are tried, unless `PIDHERD_TEST_ERRNOS` gives another number or is `all`.
const SAMPLE: usize = 25;

/// The seed of the sample, unless `PIDHERD_TEST_SEED` gives another one. It is fixed, so that a test that passes once
/// passes everywhere.
const SEED: u64 = 1;

/// A call that was made in the run without a fault.
struct Site {
    nr: libc::c_long,
    once: Fault,
    for_good: Fault,
}

/// Makes the calls of a scenario fail.
pub fn run(scenario: &'static Scenario) {
    with_runner(scenario, Runner::all);
}

/// Makes the calls of one kind fail, in one phase of a scenario, with one errno, once and for good.
pub fn run_kind(scenario: &str, phase: &str, call: &str, errno: libc::c_int) {
    let scenario = SCENARIOS.iter().find(|known| known.name == scenario).unwrap();
    let nr = manual::number(call).unwrap();
    with_runner(scenario, |runner| {
        runner.sound(false);
        let sites = runner.sound(true).sites;
        let sites = sites
            .iter()
            .filter(|site| (site.nr, site.once.at().phase()) == (nr, phase));
        let faults: Vec<_> = sites
            .flat_map(|site| [site.once.with(errno), site.for_good.with(errno)])
            .collect();
        let reports = faults.iter().map(|&fault| (fault, runner.once(Some(fault), false)));
        let reports: Vec<_> = reports.collect();
        assert!(reports.iter().any(|(_, report)| report.was_reached), "no such call");
        let problems: Vec<_> = reports
            .iter()
            .filter(|(_, report)| !report.problems.is_empty())
            .collect();
        let lines = problems
            .iter()
            .map(|(fault, report)| format!("{fault}: {:#?}", report.problems));
        assert!(problems.is_empty(), "{}", lines.collect::<Vec<_>>().join("\n"));
    });
}

fn with_runner(scenario: &'static Scenario, body: impl FnOnce(&Runner)) {
    Isolation::new().limit(Duration::from_secs(3_000)).run(|| {
        if !kernel_since(6, 9) {
            return skipped("the table of outcomes is that of kernels which signal a group by its pidfd (Linux 6.9)");
        }
        if !tells_addresses() {
            return skipped("this kernel does not tell a filter where a call was made");
        }
        if cfg!(pidherd_portable) && scenario.name == "recover" {
            return skipped("without clone3 the kernel does not write the PID before the child runs");
        }
        let cgroup = test_cgroup();
        if scenario.needs_cgroup && cgroup.is_none() {
            return;
        }
        let place = tempdir();
        let runner = Runner {
            scenario,
            directory: place.path().to_owned(),
            cgroup: cgroup.as_ref().map(|cgroup| cgroup.path().to_owned()),
        };
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        body(&runner);
        rustix::process::set_child_subreaper(None).unwrap();
    });
}

/// A run in a process of its own, as its report tells it.
#[derive(Default)]
pub struct Report {
    sites: Vec<Site>,
    was_reached: bool,
    may_leave: bool,
    /// The failed call and what followed, for the table.
    outcome: String,
    problems: Vec<String>,
}

struct Runner {
    scenario: &'static Scenario,
    directory: PathBuf,
    cgroup: Option<PathBuf>,
}

impl Runner {
    fn all(&self) {
        // The first run resolves symbols and fills caches, so the second one has the calls of all later ones.
        self.sound(false);
        let sites = self.sound(true).sites;
        if let Some(wanted) = one_fault() {
            if wanted.0 == self.scenario.name {
                let report = self.once(Some(wanted.1), false);
                println!("{:#?} {}", report.problems, report.outcome);
                assert!(report.problems.is_empty());
            }
            return;
        }
        let faults = self.faults(&sites);
        let all = faults.len();
        let chosen = chosen(faults, |&fault| fault);
        let began = Instant::now();
        let (mut missed, mut problems) = (0, Vec::new());
        let mut outcomes = BTreeMap::<String, usize>::new();
        for fault in &chosen {
            let began = Instant::now();
            let report = self.once(Some(*fault), false);
            if began.elapsed() > Duration::from_secs(3) {
                log(&format!("slow {:?} {}:{fault}", began.elapsed(), self.scenario.name));
            }
            missed += usize::from(!report.was_reached);
            if env::var_os("PIDHERD_TEST_LOG").is_some() {
                log(&format!("done {} {fault} | {}", self.scenario.name, report.outcome));
            }
            *outcomes.entry(report.outcome).or_default() += 1;
            for problem in report.problems {
                log(&format!(
                    "PIDHERD_TEST_ERRNO={}:{fault}\n  {problem}",
                    self.scenario.name
                ));
                problems.push(problem);
            }
        }
        if env::var_os("PIDHERD_TEST_ERRNOS_TABLE").is_some() {
            outcomes
                .iter()
                .for_each(|(outcome, count)| println!("outcome {count:5} {outcome}"));
        }
        println!(
            "errnos: {}: {} sites, {} faults, {} injected, {missed} not reached, {} failures, {} s",
            self.scenario.name,
            sites.len(),
            all,
            chosen.len(),
            problems.len(),
            began.elapsed().as_secs()
        );
        assert!(problems.is_empty(), "{} failures", problems.len());
    }

    /// A run that must succeed.
    fn sound(&self, is_recording: bool) -> Report {
        let report = self.once(None, is_recording);
        assert!(report.problems.is_empty(), "{:#?}", report.problems);
        report
    }

    fn faults(&self, sites: &[Site]) -> Vec<Fault> {
        let mut faults = Vec::new();
        for site in sites {
            for &errno in manual::errnos(site.nr) {
                for fault in [site.once, site.for_good] {
                    let fault = fault.with(errno);
                    if !expected::is_left_out(site.nr, fault) {
                        faults.push(fault);
                    }
                }
            }
        }
        faults
    }

    /// Makes one run.
    fn once(&self, fault: Option<Fault>, is_recording: bool) -> Report {
        let directory = self.directory.join("run");
        fs::create_dir(&directory).unwrap();
        let cgroup = self.cgroup.as_ref().map(|cgroup| cgroup.join("run"));
        cgroup.iter().for_each(|cgroup| fs::create_dir(cgroup).unwrap());
        // SAFETY: as in `common::fork`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            let request = Request {
                scenario: self.scenario,
                fault,
                directory: &directory,
                cgroup,
                is_recording,
            };
            request.perform();
        }
        let ended = wait_gone(pid as u32, LIMIT * patience());
        let mut report = Report::default();
        if !ended {
            report.problems.push(format!("it hangs: {}", tree(pid as u32)));
            kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        }
        let status = waitpid(Pid::from_raw(pid), WaitOptions::empty()).unwrap().unwrap().1;
        let text = fs::read_to_string(report_path(&directory)).unwrap_or_default();
        report.read(&text);
        if ended && status.exit_status() != Some(0) {
            report.problems.push(format!("the host ended with {status:?}"));
        }
        let left = descendants_left();
        if !report.may_leave {
            report.problems.extend(left);
        }
        fs::remove_dir_all(&directory).unwrap();
        if let Some(cgroup) = &self.cgroup {
            let left = remove_cgroups(&cgroup.join("run"));
            if left > 1 && !report.may_leave {
                report.problems.push(format!("{} cgroups are left", left - 1));
            }
        }
        report
    }
}

fn log(text: &str) {
    use std::io::Write as _;
    eprintln!("{text}");
    if let Ok(path) = env::var("PIDHERD_TEST_LOG") {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        writeln!(file, "{text}").unwrap();
    }
}

/// The scenario and the fault of `PIDHERD_TEST_ERRNO`.
fn one_fault() -> Option<(String, Fault)> {
    let text = env::var("PIDHERD_TEST_ERRNO").ok()?;
    let (scenario, fault) = text.split_once(':').expect("SCENARIO:FAULT");
    Some((scenario.to_owned(), fault.parse().expect("a fault")))
}

/// The faults to try: all, or a sample. The sample is the same in every run, even if some calls differ.
pub fn chosen<T>(mut faults: Vec<T>, fault_of: impl Fn(&T) -> Fault) -> Vec<T> {
    let text = env::var("PIDHERD_TEST_ERRNOS").ok();
    let most = match text.as_deref() {
        None => SAMPLE,
        Some("all") => return faults,
        Some(text) => text.parse().expect("a number of faults"),
    };
    let seed = env::var("PIDHERD_TEST_SEED").map_or(SEED, |text| text.parse().expect("a seed"));
    faults.retain(|fault| !expected::is_slow(fault_of(fault)));
    faults.sort_by_cached_key(|fault| {
        let text = fault_of(fault).to_string();
        // FNV-1a.
        text.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    });
    faults.truncate(most);
    faults
}

fn report_path(directory: &Path) -> PathBuf {
    directory.with_extension("report")
}

/// What a process does that makes one run.
pub struct Request<'a> {
    pub scenario: &'static Scenario,
    pub fault: Option<Fault>,
    pub directory: &'a Path,
    pub cgroup: Option<PathBuf>,
    /// Whether the report lists the calls.
    pub is_recording: bool,
}

impl Request<'_> {
    fn perform(self) -> ! {
        let stage = self.stage(!self.scenario.fails_later);
        let oracle = Oracle::begin();
        let scenario = self.scenario.run;
        self.play(stage, oracle, scenario)
    }

    /// Prepares the stage. The filter can be installed only once, and stays after an execve.
    pub fn stage(&self, with_filter: bool) -> Stage {
        std::panic::set_hook(Box::new(|panic| {
            PANICS
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(panic.to_string());
        }));
        let shim: &'static Shim = Box::leak(Box::new(Shim::new(expected::counts)));
        if with_filter {
            let (send, receive) = mpsc::channel();
            // The other thread must not take a signal of the scenario.
            let mask = MaskGuard::block(SignalSet::ALL).unwrap();
            thread::spawn(move || {
                let (listener, asking) = receive.recv().unwrap();
                shim.answer(&listener, asking);
            });
            drop(mask);
            // SAFETY: gettid(2) has no arguments.
            let asking = unsafe { libc::gettid() };
            send.send((install(), asking as u32)).unwrap();
            shim.arm(self.fault);
        }
        Stage {
            shim,
            supervisor: None,
            directory: self.directory.to_owned(),
            cgroup: self.cgroup.clone(),
            told: Vec::new(),
            story: Vec::new(),
            is_healing: false,
            is_recording: self.is_recording && !self.scenario.fails_later,
            request: format!(
                "{}\n{}\n{}\n{}",
                self.scenario.name,
                self.fault.map(|fault| fault.to_string()).unwrap_or_default(),
                self.directory.display(),
                self.is_recording && self.scenario.fails_later
            ),
        }
    }

    /// Plays the scenario, checks that nothing is left, and writes the report.
    pub fn play(self, mut stage: Stage, oracle: Oracle, scenario: fn(&mut Stage) -> Tried) -> ! {
        let mut problems = Vec::new();
        let result = guarded("the scenario", &mut problems, || scenario(&mut stage)).unwrap_or(Ok(()));
        guarded("afterwards", &mut problems, || stage.heal());
        drop(stage.supervisor.take());
        if problems.is_empty() {
            let mut other = stage_like(&stage);
            guarded("another supervisor", &mut problems, || {
                other.supervisor = Some(pidherd::Supervisor::new().unwrap());
                other.heal();
            });
        }
        problems.extend(oracle.own_findings());
        let mut report = String::new();
        self.describe(&stage, &result, &mut report, &mut problems);
        for problem in problems {
            writeln!(report, "problem {}", problem.replace('\n', "\\n")).unwrap();
        }
        fs::write(report_path(self.directory), report).unwrap();
        // SAFETY: the call ends this process and runs no code of this program.
        unsafe { libc::_exit(0) };
    }

    fn describe(&self, stage: &Stage, result: &Tried, report: &mut String, problems: &mut Vec<String>) {
        let Some(fault) = self.fault else {
            let expected = if self.is_recording && self.scenario.name == "hand-over" {
                1
            } else {
                0
            };
            let told = stage.told.iter().skip(expected);
            problems.extend(told.map(|told| format!("an error without a fault: {}", told.text)));
            if !self.is_recording {
                return;
            }
            let seen = stage.shim.seen();
            let mut kinds = BTreeMap::<String, usize>::new();
            for index in 0..seen.len() {
                let count = kinds.entry(kind(&seen[index])).or_default();
                *count += 1;
                if !self.scenario.tries(&seen[index]) {
                    continue;
                }
                if *count > (if seen[index].in_child { 1 } else { 2 }) {
                    continue;
                }
                let once = Fault::Once {
                    at: Place::of(&seen, index),
                    errno: libc::EIO,
                };
                writeln!(report, "site {once}").unwrap();
                if manual::errnos(seen[index].nr).is_empty() {
                    problems.push(format!("no manual page for {:?}", seen[index]));
                }
            }
            return;
        };
        // A failed call before an execve was made by the program before this one.
        let before = (self.scenario.name == "hand-over").then(|| Call::at(fault.at()));
        let Some(failed) = stage.shim.failed().or(before) else {
            problems.extend(
                result
                    .as_ref()
                    .err()
                    .map(|told| format!("an error without a fault: {}", told.text)),
            );
            return;
        };
        writeln!(report, "reached").unwrap();
        let expected = expected::expected(&failed, fault);
        if expected.may_leave {
            // The pidfd of a process that stays is kept, so that a later spawn reaps it.
            let is_of_what_stays = |problem: &str| {
                problem.contains(" is left: ") || problem.contains("was nothing, is \"anon_inode:[pidfd]")
            };
            problems.retain(|problem| !is_of_what_stays(problem));
            if expected.is_lie {
                // What the scenario waits for may never come.
                problems.retain(|problem| problem.contains("panicked at src/"));
            }
            writeln!(report, "may-leave").unwrap();
        }
        problems.extend(expected.judge(&failed, fault, &stage.told));
        writeln!(report, "outcome {}", outcome(&failed, fault, &stage.told)).unwrap();
    }
}

/// Calls of one kind are made at the same place for the same purpose, for example in a loop.
fn kind(call: &Call) -> String {
    let subject: String = call
        .subject()
        .chars()
        .filter(|letter| !letter.is_ascii_digit())
        .collect();
    let operation = match call.nr {
        libc::SYS_fcntl | libc::SYS_ioctl => call.args[1],
        libc::SYS_prctl => call.args[0],
        _ => 0,
    };
    let phase = if call.in_child { "" } else { call.phase };
    format!(
        "{} {} {phase} {:x} {subject} {operation}",
        call.nr, call.in_child, call.address
    )
}

/// A line of the table of what was seen.
fn outcome(call: &Call, fault: Fault, told: &[Told]) -> String {
    let place = if call.in_child { "child" } else { "host" };
    let how = if fault.is_once() { "once" } else { "for good" };
    let what = match told.first() {
        None => "recovered",
        Some(first) if first.errno == Some(fault.errno()) => "told",
        Some(first) => &format!("told otherwise ({}): {}", manual::errno_name(fault.errno()), first.text),
    };
    let subject: String = call
        .subject()
        .chars()
        .filter(|letter| !letter.is_ascii_digit())
        .collect();
    let name = manual::name(call.nr);
    format!("{place} {name} {} {subject:?} {how}: {what}", call.phase)
}

fn stage_like(stage: &Stage) -> Stage {
    Stage {
        shim: stage.shim,
        supervisor: None,
        directory: stage.directory.clone(),
        cgroup: None,
        told: Vec::new(),
        story: Vec::new(),
        is_healing: true,
        is_recording: false,
        request: String::new(),
    }
}

/// The panics of this process so far.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Runs `body`. A panic becomes a problem.
fn guarded<T>(what: &str, problems: &mut Vec<String>, body: impl FnOnce() -> T) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(body));
    let panics = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
    problems.extend(panics.iter().map(|panic| format!("{what}: {panic}")));
    result.ok()
}

impl Report {
    fn read(&mut self, text: &str) {
        for line in text.lines() {
            let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
            match kind {
                "site" => {
                    let once: Fault = rest.parse().unwrap();
                    let at = once.at();
                    let errno = once.errno();
                    self.sites.push(Site {
                        nr: at.nr(),
                        once,
                        for_good: Fault::ForGood { at, errno },
                    });
                }
                "may-leave" => self.may_leave = true,
                "reached" => self.was_reached = true,
                "outcome" => self.outcome = rest.to_owned(),
                "problem" => self.problems.push(rest.to_owned()),
                other => self.problems.push(format!("a report with {other:?}")),
            }
        }
    }
}

/// Describes the process and all below it.
fn tree(pid: u32) -> String {
    let mut text = String::new();
    let mut all = vec![pid];
    while let Some(pid) = all.pop() {
        let wait = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        write!(text, "{} in {wait}; ", processes::describe(pid)).unwrap();
        all.extend(processes::children_of(pid));
    }
    text
}

/// Ends and describes the processes that a run has left. They are children now, because this process is a subreaper.
fn descendants_left() -> Vec<String> {
    let mut left = Vec::new();
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    loop {
        match waitid(WaitId::All, options) {
            Err(Errno::CHILD) => return left,
            Err(errno) => panic!("waitid: {errno}"),
            // It had ended, but no parent has reaped it.
            Ok(Some(_)) => {}
            Ok(None) => {
                for pid in processes::children() {
                    // A process that is about to end gets a moment.
                    if !wait_gone(pid, Duration::from_secs(2)) {
                        left.push(format!("a process is left: {}", processes::describe(pid)));
                        let _gone = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
                    }
                }
            }
        }
    }
}

/// Removes a cgroup and those below it. Returns their number.
fn remove_cgroups(path: &Path) -> usize {
    let below = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let below: usize = below
        .filter(|path| path.is_dir())
        .map(|path| remove_cgroups(&path))
        .sum();
    let limit = Instant::now() + Duration::from_secs(5);
    while let Err(error) = fs::remove_dir(path) {
        assert!(Instant::now() < limit, "{}: {error}", path.display());
        let _too_old = fs::write(path.join("cgroup.kill"), "1");
        thread::sleep(Duration::from_millis(1));
    }
    below + 1
}
