//! NAMEs: the addresses of a process, of a group, or of all processes.

use crate::suggest::did_you_mean;

/// The parsed form of a NAME. The process or group need not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// `all`: every process.
    All,
    /// `group:*` or `group:`: every process of a group.
    Group(&'a str),
    /// `group:process`, or one word that stands for both.
    Process(&'a str, &'a str),
}

impl<'a> Name<'a> {
    /// Parses a NAME. Every text is a valid NAME.
    pub fn parse(text: &'a str) -> Name<'a> {
        match text.split_once(':') {
            None if text == "all" => Name::All,
            None => Name::Process(text, text),
            Some((group, "*" | "")) => Name::Group(group),
            Some((group, process)) => Name::Process(group, process),
        }
    }

    /// Whether the NAME includes this process.
    pub fn means(self, group: &str, process: &str) -> bool {
        match self {
            Name::All => true,
            Name::Group(wanted) => wanted == group,
            Name::Process(in_group, wanted) => in_group == group && wanted == process,
        }
    }
}

/// The displayed name of a process. It is one word if group and process have the same name, unless that word is
/// `all`.
pub fn shown(group: &str, process: &str) -> String {
    if group == process && group != "all" {
        group.to_owned()
    } else {
        format!("{group}:{process}")
    }
}

/// The indexes of the `processes` (pairs of group and process) that `text` includes. A group in `empty` exists and
/// has no processes. One word that names no process names the group.
///
/// # Errors
/// `text` includes no process and no group. The message suggests a similar name.
pub fn select<'a, P>(text: &str, processes: P, empty: &[String]) -> Result<Vec<usize>, String>
where
    P: Iterator<Item = (&'a str, &'a str)> + Clone,
{
    let included = |name: Name<'_>| -> Vec<usize> {
        let all = processes.clone().enumerate();
        let meant = all.filter(|&(_, (group, process))| name.means(group, process));
        meant.map(|(index, _)| index).collect()
    };
    let name = Name::parse(text);
    let is_empty = |group: &str| empty.iter().any(|known| known == group);
    let found = included(name);
    if !found.is_empty() || name == Name::All {
        return Ok(found);
    }
    match name {
        Name::Group(group) if is_empty(group) => Ok(found),
        Name::Group(group) => {
            let groups = processes
                .map(|(group, _)| group)
                .chain(empty.iter().map(String::as_str));
            let groups = groups.map(|group| format!("{group}:*"));
            Err(format!("there is no group {group:?}{}", did_you_mean(text, groups)))
        }
        Name::Process(group, process) => {
            let of_group = included(Name::Group(group));
            if group == process && (!of_group.is_empty() || is_empty(group)) && !text.contains(':') {
                return Ok(of_group);
            }
            Err(format!("there is no process {text:?}{}", guess(text, processes, empty)))
        }
        Name::All => Ok(found),
    }
}

/// The second half of a sentence about a name that does not exist.
fn guess<'a>(text: &str, processes: impl Iterator<Item = (&'a str, &'a str)> + Clone, empty: &[String]) -> String {
    match processes.clone().find(|&(_, process)| process == text) {
        Some((group, process)) => format!(", but there is \"{group}:{process}\""),
        None => did_you_mean(text, known(processes, empty).into_iter()),
    }
}

/// Every name of a process and of a group, in order and without repetition.
pub fn known<'a>(processes: impl Iterator<Item = (&'a str, &'a str)>, empty: &[String]) -> Vec<String> {
    let mut names: Vec<String> = empty.to_vec();
    for (group, process) in processes {
        names.push(shown(group, process));
        if group != process {
            names.push(group.to_owned());
        }
    }
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[(&str, &str)] = &[
        ("web", "web_0"),
        ("web", "web_1"),
        ("api", "api"),
        ("g", "api"),
        ("all", "all"),
    ];

    fn found(text: &str) -> Result<Vec<usize>, String> {
        select(text, TABLE.iter().copied(), &["none".to_owned()])
    }

    #[test]
    fn a_name_selects_its_processes() {
        assert_eq!(found("all"), Ok(vec![0, 1, 2, 3, 4]));
        assert_eq!(found("web:*"), Ok(vec![0, 1]));
        assert_eq!(found("web:"), Ok(vec![0, 1]));
        assert_eq!(
            found("web"),
            Ok(vec![0, 1]),
            "one word that is no process names the group"
        );
        assert_eq!(found("web:web_1"), Ok(vec![1]));
        assert_eq!(found("api"), Ok(vec![2]));
        assert_eq!(found("api:api"), Ok(vec![2]));
        assert_eq!(found("g:api"), Ok(vec![3]));
        assert_eq!(found("none:*"), Ok(vec![]));
        assert_eq!(found("none"), Ok(vec![]));
        assert_eq!(select("all", std::iter::empty(), &[]), Ok(vec![]));
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        for (text, answer) in [
            ("nope", "there is no process \"nope\"; did you mean \"none\"?"),
            ("nope:*", "there is no group \"nope\"; did you mean \"none:*\"?"),
            ("missing", "there is no process \"missing\""),
            ("missing:*", "there is no group \"missing\""),
            ("*", "there is no process \"*\""),
            (
                "web:web",
                "there is no process \"web:web\"; did you mean \"web:web_0\"?",
            ),
            ("wbe", "there is no process \"wbe\"; did you mean \"web\"?"),
            ("web:web_2", "there is no process \"web:web_2\""),
            (
                "web:wbe_1",
                "there is no process \"web:wbe_1\"; did you mean \"web:web_1\"?",
            ),
            ("wbe:*", "there is no group \"wbe\"; did you mean \"web:*\"?"),
            ("web_1", "there is no process \"web_1\", but there is \"web:web_1\""),
            (":", "there is no group \"\""),
            (
                "web:web_0:x",
                "there is no process \"web:web_0:x\"; did you mean \"web:web_0\"?",
            ),
            ("none:xyz", "there is no process \"none:xyz\""),
        ] {
            assert_eq!(found(text), Err(answer.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_displayed_name_can_be_typed() {
        for &(group, process) in TABLE {
            let index = TABLE.iter().position(|&pair| pair == (group, process)).unwrap();
            assert_eq!(found(&shown(group, process)), Ok(vec![index]));
        }
    }
}
