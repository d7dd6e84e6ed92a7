//! NAMEs: the addresses of a process, of a group, or of all processes.

/// The parsed form of a NAME. The process or group need not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// `all`: every process.
    All,
    /// `group:*`: every process of a group.
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
            Some((group, "*")) => Name::Group(group),
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
/// has no processes.
///
/// # Errors
/// `text` includes no process and no group. The message suggests a similar name.
pub fn select<'a, P>(text: &str, processes: P, empty: &[String]) -> Result<Vec<usize>, String>
where
    P: Iterator<Item = (&'a str, &'a str)> + Clone,
{
    let name = Name::parse(text);
    let meant = |&(_, (group, process)): &(usize, (&str, &str))| name.means(group, process);
    let found: Vec<usize> = processes
        .clone()
        .enumerate()
        .filter(meant)
        .map(|(index, _)| index)
        .collect();
    if !found.is_empty() || name == Name::All {
        return Ok(found);
    }
    Err(match name {
        Name::Group(group) if empty.iter().any(|known| known == group) => return Ok(found),
        Name::Group(group) => format!("there is no group {group:?}"),
        _ => format!("there is no process {text:?}{}", guess(text, processes)),
    })
}

fn guess<'a>(text: &str, mut processes: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> String {
    if processes.clone().any(|(group, _)| group == text) {
        return format!(", but there is a group \"{text}:*\"");
    }
    match processes.find(|&(_, process)| process == text) {
        Some((group, process)) => format!(", but there is \"{group}:{process}\""),
        None => String::new(),
    }
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
        assert_eq!(found("web:web_1"), Ok(vec![1]));
        assert_eq!(found("api"), Ok(vec![2]));
        assert_eq!(found("api:api"), Ok(vec![2]));
        assert_eq!(found("g:api"), Ok(vec![3]));
        assert_eq!(found("none:*"), Ok(vec![]));
        assert_eq!(select("all", std::iter::empty(), &[]), Ok(vec![]));
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        for (text, answer) in [
            ("nope", "there is no process \"nope\""),
            ("nope:*", "there is no group \"nope\""),
            ("*", "there is no process \"*\""),
            ("web", "there is no process \"web\", but there is a group \"web:*\""),
            ("web_1", "there is no process \"web_1\", but there is \"web:web_1\""),
            ("web:", "there is no process \"web:\""),
            (":", "there is no process \":\""),
            ("web:web_0:x", "there is no process \"web:web_0:x\""),
            ("none", "there is no process \"none\""),
            ("none:x", "there is no process \"none:x\""),
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
