//! NAMEs: how a process, a group, or everything is addressed.

/// What a NAME means, whether or not there is such a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// `all`
    All,
    /// `group:*`
    Group(&'a str),
    /// `group:process`, or one word for both.
    Process(&'a str, &'a str),
}

impl<'a> Name<'a> {
    /// Understands a NAME; every text is one.
    pub fn parse(text: &'a str) -> Name<'a> {
        match text.split_once(':') {
            None if text == "all" => Name::All,
            None => Name::Process(text, text),
            Some((group, "*")) => Name::Group(group),
            Some((group, process)) => Name::Process(group, process),
        }
    }

    /// Whether it means this process.
    pub fn means(self, group: &str, process: &str) -> bool {
        match self {
            Name::All => true,
            Name::Group(wanted) => wanted == group,
            Name::Process(in_group, wanted) => in_group == group && wanted == process,
        }
    }
}

/// The name under which a process is shown: one word where group and process have the same, unless that
/// word means all processes.
pub fn shown(group: &str, process: &str) -> String {
    if group == process && group != "all" {
        group.to_owned()
    } else {
        format!("{group}:{process}")
    }
}

/// Which of `processes` (pairs of group and process) `text` means. Of the groups in `empty` it may mean all
/// processes, which are none.
///
/// # Errors
/// None of them; the line guesses what was meant.
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
        return format!(", but a group \"{text}:*\"");
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
    fn names_find_what_they_mean() {
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
    fn names_that_mean_nothing_say_so() {
        for (text, answer) in [
            ("nope", "there is no process \"nope\""),
            ("nope:*", "there is no group \"nope\""),
            ("*", "there is no process \"*\""),
            ("web", "there is no process \"web\", but a group \"web:*\""),
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
    fn a_name_is_shown_as_it_can_be_typed() {
        for &(group, process) in TABLE {
            let index = TABLE.iter().position(|&pair| pair == (group, process)).unwrap();
            assert_eq!(found(&shown(group, process)), Ok(vec![index]));
        }
    }
}
