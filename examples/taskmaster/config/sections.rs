//! Classifies a section by its name.
//!
//! supervisord ignores every section that it does not know, and existing configurations contain such sections. A
//! misspelled section of supervisord is different: it could silently disable a program or a change of the user. So a
//! name that is close to one of supervisord's names is refused, and any other unknown name is ignored with a note.

/// The kind of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// `[supervisord]`: the settings of the taskmaster itself.
    Supervisord,
    /// `[include]`: other files.
    Include,
    /// `[program:x]`: a program.
    Program(&'a str),
    /// `[group:x]`: a group of programs.
    Group(&'a str),
    /// `[fcgi-program:x]`: a FastCGI program.
    FastCgi(&'a str),
    /// `[eventlistener:x]`: a pool of event listeners.
    EventListener(&'a str),
    /// `[unix_http_server]`: a server on a socket in the file system.
    UnixServer,
    /// `[inet_http_server]`: a server on a TCP port.
    InetServer,
    /// A client or plugin. It has no effect on programs.
    Service,
    /// A name that is close to this name.
    Misspelled(&'static str),
    /// An unknown name.
    Foreign,
}

/// The names that are checked for misspellings: first in the form that `normal` returns, then in the correct form.
const SPELLINGS: &[(&str, &str)] = &[
    ("program", "[program:NAME]"),
    ("prog", "[program:NAME]"),
    ("group", "[group:NAME]"),
    ("fcgiprogram", "[fcgi-program:NAME]"),
    ("eventlistener", "[eventlistener:NAME]"),
    ("include", "[include]"),
    ("supervisord", "[supervisord]"),
    ("unixhttpserver", "[unix_http_server]"),
    ("inethttpserver", "[inet_http_server]"),
];

impl<'a> Kind<'a> {
    /// The kind of the section with this name.
    pub fn of(name: &'a str) -> Kind<'a> {
        const PLUGINS: [&str; 2] = ["rpcinterface", "ctlplugin"];
        match name.split_once(':') {
            Some(("program", name)) => Kind::Program(name.trim()),
            Some(("group", name)) => Kind::Group(name.trim()),
            Some(("fcgi-program", name)) => Kind::FastCgi(name.trim()),
            Some(("eventlistener", name)) => Kind::EventListener(name.trim()),
            Some((plugin, _)) if PLUGINS.contains(&plugin) => Kind::Service,
            None if name == "supervisord" => Kind::Supervisord,
            None if name == "include" => Kind::Include,
            None if name == "supervisorctl" => Kind::Service,
            _ if name == "unix_http_server" || name.starts_with("unix_http_server:") => Kind::UnixServer,
            _ if name == "inet_http_server" || name.starts_with("inet_http_server:") => Kind::InetServer,
            _ => misspelled(name).map_or(Kind::Foreign, Kind::Misspelled),
        }
    }
}

/// The correct name, if `name` is probably a misspelling of it.
fn misspelled(name: &str) -> Option<&'static str> {
    let name = name.trim();
    let word = name.split(':').next().unwrap_or(name);
    let word = word.split_whitespace().next().unwrap_or(word);
    let word = normal(word);
    let near = |known: &str| distance(&word, known) <= if known.len() > 5 { 2 } else { known.len() / 5 };
    let meant = SPELLINGS.iter().find(|(known, _)| near(known));
    meant.map(|&(_, spelling)| spelling)
}

/// The word in lower case and without punctuation.
fn normal(word: &str) -> String {
    let letters = word.chars().filter(|symbol| symbol.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

/// The number of letters to add, remove, replace or exchange with their neighbour to change `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // One row for each number of letters of `a`, and one column for each number of letters of `b`.
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_known_by_their_exact_names() {
        for (name, kind) in [
            ("supervisord", Kind::Supervisord),
            ("include", Kind::Include),
            ("program:web", Kind::Program("web")),
            ("program: web ", Kind::Program("web")),
            ("group:g", Kind::Group("g")),
            ("fcgi-program:f", Kind::FastCgi("f")),
            ("eventlistener:e", Kind::EventListener("e")),
            ("unix_http_server", Kind::UnixServer),
            ("inet_http_server:2", Kind::InetServer),
            ("supervisorctl", Kind::Service),
            ("rpcinterface:supervisor", Kind::Service),
            ("ctlplugin:x", Kind::Service),
        ] {
            assert_eq!(Kind::of(name), kind, "{name}");
        }
    }

    #[test]
    fn misspelled_names_are_distinguished_from_unknown_ones() {
        for name in [
            "programs:web",
            "Program:web",
            " program:web",
            "program :web",
            "program web",
            "program",
            "porgram:web",
            "prog:web",
            "pro_gram:web",
            "groups:g",
            "gruop:g",
            "fcgi_program:f",
            "event-listener:e",
            "includes",
            "Include",
            "include:x",
            "supervisor",
            "SUPERVISORD",
            "supervisord:x",
        ] {
            assert!(matches!(Kind::of(name), Kind::Misspelled(_)), "{name}");
        }
        for name in [
            "x-timeline",
            "foo",
            "foo:bar",
            "watcher:web",
            "program_defaults",
            "group-of-things",
            "service",
            "celery",
            "",
            ":",
            " ",
            "été:x",
        ] {
            assert_eq!(Kind::of(name), Kind::Foreign, "{name}");
        }
    }
}
