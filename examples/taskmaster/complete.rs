//! Completion: the words that may stand at the cursor.

use pidherd::Signal;

use crate::command::COMMANDS;
use crate::term::Completion;

/// The names that may be completed.
#[derive(Debug, Default)]
pub struct Names {
    /// Processes and groups.
    pub all: Vec<String>,
    /// Groups alone.
    pub groups: Vec<String>,
}

/// Completes the last word of `before`, the text before the cursor.
pub fn complete(before: &str, names: impl FnOnce() -> Names) -> Completion {
    let start = before.rfind(char::is_whitespace).map_or(0, |at| at + 1);
    let word = before.get(start..).unwrap_or_default();
    let earlier: Vec<&str> = before.get(..start).unwrap_or_default().split_whitespace().collect();
    let mut candidates = candidates(&earlier, names);
    candidates.retain(|candidate| candidate.starts_with(word));
    candidates.sort();
    candidates.dedup();
    Completion { start, candidates }
}

fn candidates(earlier: &[&str], names: impl FnOnce() -> Names) -> Vec<String> {
    let texts = |all: &[&str]| all.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let commands = || COMMANDS.iter().map(|help| help.name.to_owned()).collect();
    let processes = |Names { all, groups }: Names| -> Vec<String> {
        // A group with one process of the same name needs no other name.
        let has_several = |group: &&String| all.iter().any(|name| name.starts_with(&format!("{group}:")));
        let whole: Vec<String> = groups
            .iter()
            .filter(has_several)
            .map(|group| format!("{group}:*"))
            .collect();
        all.into_iter().chain(whole).chain(["all".to_owned()]).collect()
    };
    match earlier {
        [] | ["help"] => commands(),
        ["signal"] => Signal::all()
            .filter(|signal| signal.as_raw() < 32)
            .map(|signal| signal.to_string().trim_start_matches("SIG").to_owned())
            .collect(),
        ["status" | "start" | "stop" | "restart" | "pid" | "clear", ..] | ["signal", _, ..] | ["fg"] => {
            processes(names())
        }
        ["tail"] => processes(names()).into_iter().chain(texts(&["-f"])).collect(),
        ["tail", "-f"] => processes(names()),
        ["tail", ..] => texts(&["stdout", "stderr"]),
        ["maintail"] => texts(&["-f"]),
        ["scale"] => names().groups,
        ["update" | "add" | "remove", ..] => names().groups,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(before: &str) -> (usize, Vec<String>) {
        let texts = |all: &[&str]| all.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let names = || Names {
            all: texts(&["api", "web", "web:web_0", "web:web_1"]),
            groups: texts(&["api", "new", "web"]),
        };
        let Completion { start, candidates } = complete(before, names);
        (start, candidates)
    }

    #[test]
    fn commands_names_and_signals_are_completed() {
        for (before, start, wanted) in [
            ("sta", 0, &["start", "status"][..]),
            ("  shu", 2, &["shutdown"]),
            ("help sc", 5, &["scale"]),
            ("stop w", 5, &["web", "web:*", "web:web_0", "web:web_1"]),
            ("stop a", 5, &["all", "api"]),
            ("stop web:web_0 ap", 15, &["api"]),
            ("signal H", 7, &["HUP"]),
            ("signal HUP ap", 11, &["api"]),
            ("tail -", 5, &["-f"]),
            ("tail -f ap", 8, &["api"]),
            ("tail api std", 9, &["stderr", "stdout"]),
            ("update n", 7, &["new"]),
            ("scale w", 6, &["web"]),
            ("scale web ", 10, &[]),
            ("shutdown ", 9, &[]),
            ("nonsense ", 9, &[]),
        ] {
            let wanted = wanted.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(found(before), (start, wanted), "{before:?}");
        }
    }
}
