//! Parses the single values of the keys that supervisord does not have. Each function returns plain data, or a clause
//! that describes the mistake.

use std::time::Duration;

use pidherd::lifecycle::{AutoShutdown, CrashBudget, Delay, DelayFrom, ExitSet, Rung, Scope, Strategy};
use pidherd::signal::Signal;

use super::super::values;

/// Parses a time in seconds, such as `1.5`. A negative time is a mistake, because supervisord's rule does not apply to
/// these keys.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text
        .trim()
        .parse()
        .map_err(|_| "expected seconds, such as 1.5".to_owned())?;
    let time = Duration::try_from_secs_f64(number);
    time.map_err(|_| "expected seconds from 0 up".to_owned())
}

/// Parses a time in seconds that must not be 0.
pub fn some_seconds(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("must be more than 0".to_owned()),
        time => Ok(time),
    }
}

/// Parses a list of exit codes and signals, such as `0,78,SIGTERM`. The list may be empty.
pub fn exits(text: &str) -> Result<ExitSet, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.into_iter().try_fold(ExitSet::EMPTY, |exits, part| {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            let code = part
                .parse()
                .map_err(|_| format!("{part} is not an exit code from 0 to 255"))?;
            return Ok(exits.code(code));
        }
        values::signal(part).map(|signal| exits.signal(signal))
    })
}

/// Parses a list of signals, such as `TERM,INT`.
pub fn signals(text: &str) -> Result<Vec<Signal>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(values::signal).collect()
}

/// Parses `5`, `fixed 5`, `linear STEP [CAP]` or `exponential FIRST [CAP]`. The times are seconds.
pub fn delay(text: &str) -> Result<Delay, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let cap = |cap: &[&str]| match cap {
        [] => Ok(Duration::MAX),
        [cap] => seconds(cap),
        _ => Err(DELAYS.to_owned()),
    };
    match words.as_slice() {
        [wait] | ["fixed", wait] => seconds(wait).map(Delay::Fixed).map_err(|_| DELAYS.to_owned()),
        ["linear", step, rest @ ..] => Ok(Delay::Linear {
            step: seconds(step)?,
            cap: cap(rest)?,
        }),
        ["exponential", first, rest @ ..] => Ok(Delay::Exponential {
            first: seconds(first)?,
            cap: cap(rest)?,
        }),
        _ => Err(DELAYS.to_owned()),
    }
}

const DELAYS: &str = "expected SECONDS, fixed SECONDS, linear STEP [CAP] or exponential FIRST [CAP]";

/// Parses `end` or `start`.
pub fn delay_from(text: &str) -> Result<DelayFrom, String> {
    match text {
        "end" => Ok(DelayFrom::End),
        "start" => Ok(DelayFrom::Start),
        _ => Err("expected end or start".to_owned()),
    }
}

/// Parses `none`, or `MAX/SECONDS`.
pub fn crash_budget(text: &str) -> Result<Option<CrashBudget>, String> {
    if text == "none" {
        return Ok(None);
    }
    let (max, window) = text.split_once('/').ok_or("expected MAX/SECONDS or none")?;
    let max = max.trim().parse().ok().filter(|&max| max <= CrashBudget::LIMIT);
    let max = max.ok_or_else(|| format!("the number must be from 0 to {}", CrashBudget::LIMIT))?;
    Ok(Some(CrashBudget::new(max, some_seconds(window)?)))
}

/// Parses `one_for_one`, `one_for_all` or `rest_for_one`.
pub fn strategy(text: &str) -> Result<Strategy, String> {
    match text {
        "one_for_one" => Ok(Strategy::OneForOne),
        "one_for_all" => Ok(Strategy::OneForAll),
        "rest_for_one" => Ok(Strategy::RestForOne),
        _ => Err("expected one_for_one, one_for_all or rest_for_one".to_owned()),
    }
}

/// Parses `never`, `any` or `all`.
pub fn auto_shutdown(text: &str) -> Result<AutoShutdown, String> {
    match text {
        "never" => Ok(AutoShutdown::Never),
        "any" => Ok(AutoShutdown::AnyEnd),
        "all" => Ok(AutoShutdown::AllEnd),
        _ => Err("expected never, any or all".to_owned()),
    }
}

/// Parses a percentage from 0 to 100.
pub fn percent(text: &str) -> Result<u8, String> {
    let number = values::integer(text.strip_suffix('%').unwrap_or(text))?;
    let percent = u8::try_from(number).ok().filter(|&percent| percent <= 100);
    percent.ok_or_else(|| "expected a percentage from 0 to 100".to_owned())
}

/// A step of a stop, and the time to wait after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Signal(Signal, Duration),
    /// The `stop_command` is run.
    Command(Duration),
}

/// Parses the steps of a stop: `command 10, QUIT 30, TERM 5`, each a signal or the word `command`, and the seconds to
/// wait after it.
pub fn steps(text: &str) -> Result<Vec<Step>, String> {
    let step = |part: &str| {
        let (what, wait) = part
            .trim()
            .split_once(char::is_whitespace)
            .ok_or("expected SIGNAL SECONDS or command SECONDS, separated by commas")?;
        Ok(match what {
            "command" => Step::Command(seconds(wait)?),
            signal => Step::Signal(values::signal(signal)?, seconds(wait)?),
        })
    };
    text.split(',').map(step).collect()
}

/// The rungs of these steps, in one scope. The command has this time.
pub fn rungs(steps: &[Step], scope: Scope, limit: Duration) -> Vec<Rung> {
    let rung = |&step: &Step| match step {
        Step::Signal(signal, wait) => Rung::new(signal, scope, wait),
        Step::Command(wait) => Rung::command(0, limit, wait),
    };
    steps.iter().map(rung).collect()
}

/// Parses a number from 1 up.
pub fn some(text: &str) -> Result<u32, String> {
    match values::count(text)? {
        0 => Err("must be at least 1".to_owned()),
        number => Ok(number),
    }
}

/// Parses a nice value (setpriority(2)).
pub fn nice(text: &str) -> Result<i32, String> {
    within(text, -20, 19)
}

/// Parses a value for `oom_score_adj` (proc_pid_oom_score_adj(5)).
pub fn oom_score_adj(text: &str) -> Result<i32, String> {
    within(text, -1000, 1000)
}

fn within(text: &str, least: i32, most: i32) -> Result<i32, String> {
    let number = i32::try_from(values::integer(text)?).ok();
    let number = number.filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("expected a number from {least} to {most}"))
}

/// Parses a list of names that are separated by commas: of programs, groups, and programs of groups (`GROUP:NAME`).
pub fn references(text: &str) -> Result<Vec<String>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let reference = |part: &str| match part.split_once(':') {
        None => values::name(part),
        Some((group, name)) => Ok(format!("{}:{}", values::name(group)?, values::name(name)?)),
    };
    parts.map(reference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_may_have_fractions() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(seconds(" 0 "), Ok(Duration::ZERO));
        for text in ["", "x", "-1", "nan", "inf", "1e300", "1 2"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert!(some_seconds("0").is_err());
    }

    #[test]
    fn an_exit_is_a_code_or_a_signal() {
        assert_eq!(exits(""), Ok(ExitSet::EMPTY));
        let expected = ExitSet::EMPTY.code(0).code(78).signal(Signal::TERM);
        assert_eq!(exits("0, 78,SIGTERM"), Ok(expected));
        for text in ["256", "-1", "NOPE", "1;2"] {
            assert!(exits(text).is_err(), "{text}");
        }
        assert_eq!(signals("TERM,INT"), Ok(vec![Signal::TERM, Signal::INT]));
    }

    #[test]
    fn a_delay_is_fixed_linear_or_exponential() {
        let second = Duration::from_secs(1);
        let growing = |cap| Delay::Exponential { first: second, cap };
        assert_eq!(delay("1"), Ok(Delay::Fixed(second)));
        assert_eq!(delay("fixed 1"), Ok(Delay::Fixed(second)));
        assert_eq!(delay("exponential 1 60"), Ok(growing(60 * second)));
        assert_eq!(delay("exponential 1"), Ok(growing(Duration::MAX)));
        let linear = Delay::Linear {
            step: second,
            cap: 5 * second,
        };
        assert_eq!(delay("linear 1 5"), Ok(linear));
        for text in ["", "often", "linear", "linear 1 2 3", "exponential x", "1 2"] {
            assert!(delay(text).is_err(), "{text}");
        }
    }

    #[test]
    fn budgets_percentages_steps_and_references() {
        assert_eq!(crash_budget("none"), Ok(None));
        let budget = CrashBudget::new(5, Duration::from_secs(60));
        assert_eq!(crash_budget("5/60"), Ok(Some(budget)));
        for text in ["5", "5/0", "x/1", "1001/60", "-1/60"] {
            assert!(crash_budget(text).is_err(), "{text}");
        }
        assert_eq!((percent("20"), percent("100%")), (Ok(20), Ok(100)));
        assert!(percent("101").is_err() && percent("-1").is_err());
        let steps = steps("QUIT 30, TERM 0.5").unwrap();
        assert_eq!(steps[1], Step::Signal(Signal::TERM, Duration::from_millis(500)));
        assert!(super::steps("QUIT").is_err() && super::steps("").is_err());
        assert_eq!(references("a, g:b"), Ok(vec!["a".to_owned(), "g:b".to_owned()]));
        assert!(references("a b").is_err() && references("g:").is_err());
        assert!(nice("-21").is_err() && oom_score_adj("1001").is_err());
        assert_eq!((nice("-20"), oom_score_adj("1000")), (Ok(-20), Ok(1000)));
    }
}
