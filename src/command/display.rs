//! A command as a line for sh(1), for logs and for a trial by hand.

use std::ffi::OsStr;
use std::fmt::{self, Display, Formatter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::builder::Command;

/// Writes the command as a line that does the same in a POSIX shell: the working directory, the environment, the program
/// and its arguments, each quoted where the shell needs it.
///
/// ```
/// use pidherd::Command;
///
/// let command = Command::new("backup").args(["--to", "/mnt/my disk"]).env("LEVEL", "9").current_dir("/var/lib");
/// assert_eq!(command.to_string(), "cd /var/lib && LEVEL=9 backup --to '/mnt/my disk'");
/// assert_eq!(format!("{command:#}"), "cd /var/lib && backup --to '/mnt/my disk'");
/// assert_eq!(Command::new("web").env_remove("DEBUG").arg("it's").to_string(), r"env -u DEBUG web 'it'\''s'");
/// ```
///
/// **Secrets** in arguments and in values of the environment are written too. The alternate form (`{:#}`) leaves out the
/// environment. Arguments are visible to all users of the machine anyway (`/proc/PID/cmdline`).
///
/// The line contains nothing about descriptors, `argv[0]`, ids, limits and all other settings; see the getters and
/// [`Debug`](fmt::Debug) for these. Every control character except the newline, and every byte that is not UTF-8, is
/// written through printf(1), so that a log or a terminal cannot be confused by it.
impl Display for Command {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(directory) = &self.current_dir {
            write!(f, "cd {} && ", Word(directory_operand(directory).as_os_str()))?;
        }
        let uses_env = write_environment(self, f)?;
        if uses_env && self.program.as_bytes().contains(&b'=') {
            // env(1) would take the program for a variable.
            f.write_str("sh -c 'exec \"$0\" \"$@\"' ")?;
        }
        write!(f, "{}", Word(&self.program).as_program())?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", Word(arg)))
    }
}

/// A relative directory begins with a dot, so that cd(1) does not search it in CDPATH, and does not take it for an
/// option.
fn directory_operand(directory: &Path) -> std::path::PathBuf {
    let bytes = directory.as_os_str().as_bytes();
    let is_plain = bytes.is_empty() || bytes.starts_with(b"/") || bytes.starts_with(b"./") || bytes.starts_with(b"../");
    if is_plain || bytes == b"." || bytes == b".." {
        directory.to_owned()
    } else {
        Path::new(".").join(directory)
    }
}

/// Writes the assignments, in front of the program, or as operands of env(1) where the shell has no other way. Returns
/// whether that is so.
fn write_environment(command: &Command, f: &mut Formatter<'_>) -> Result<bool, fmt::Error> {
    let shows = !f.alternate();
    let (clears, program) = (command.get_env_clear(), command.program.as_bytes());
    let changes = || command.get_envs().filter(|_| shows);
    let (sets, removes) = (
        || changes().filter_map(|(key, value)| Some((key, value?))),
        || changes().filter(|(_, value)| value.is_none()).map(|(key, _)| key),
    );
    let kept = || command.get_env_keep().filter(|_| shows).into_iter().flatten();
    let clears = clears || command.get_env_keep().is_some();
    let needs_env = clears && shows || removes().next().is_some() || sets().any(|(key, _)| !is_name(key));
    let uses_env = needs_env || BUILTINS.iter().any(|builtin| program == builtin.as_bytes());
    if uses_env {
        f.write_str(if clears && shows { "env -i " } else { "env " })?;
        let removes = removes().filter(|_| !clears);
        removes.map(Word).try_for_each(|key| write!(f, "-u {key} "))?;
        // A variable that the shell does not have is no operand.
        let kept = kept().filter(|key| is_name(key) && !changes().any(|(changed, _)| changed == *key));
        kept.map(Word)
            .try_for_each(|key| write!(f, "${{{key}+\"{key}=${key}\"}} "))?;
        let first = sets().next().map_or(command.program.as_os_str(), |(key, _)| key);
        if first.as_bytes().starts_with(b"-") {
            f.write_str("-- ")?;
        }
    }
    sets().try_for_each(|(key, value)| write!(f, "{}={} ", Word(key), Word(value).or_nothing()))?;
    Ok(uses_env)
}

/// Names that a shell executes itself, with another effect than that of a program of this name. (For others, such as
/// `echo`, POSIX requires a program with the same effect.)
const BUILTINS: &[&str] = &[
    ".",
    ":",
    "alias",
    "bg",
    "break",
    "builtin",
    "caller",
    "cd",
    "command",
    "compgen",
    "complete",
    "compopt",
    "continue",
    "declare",
    "dirs",
    "disown",
    "enable",
    "eval",
    "exec",
    "exit",
    "export",
    "fc",
    "fg",
    "getopts",
    "hash",
    "help",
    "history",
    "jobs",
    "let",
    "local",
    "logout",
    "mapfile",
    "popd",
    "pushd",
    "read",
    "readarray",
    "readonly",
    "return",
    "set",
    "shift",
    "shopt",
    "source",
    "suspend",
    "times",
    "trap",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unset",
    "wait",
];

/// Words that mean something else at the beginning of a command unless they are quoted.
const RESERVED: &[&str] = &[
    "case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for", "function", "if", "in", "select", "then",
    "time", "until", "while",
];

/// Whether a shell can assign a variable with this key.
fn is_name(key: &OsStr) -> bool {
    let bytes = key.as_bytes();
    let is_letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    bytes.first().is_some_and(is_letter) && bytes.iter().all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

/// One word of a shell.
#[derive(Clone, Copy)]
struct Word<'a>(&'a OsStr);

/// How a word is quoted.
struct Quoted<'a> {
    word: Word<'a>,
    /// Whether a plain word is quoted too.
    always: bool,
    /// Whether an empty word is written as nothing.
    may_be_nothing: bool,
}

impl<'a> Word<'a> {
    fn as_program(self) -> Quoted<'a> {
        let bytes = self.0.as_bytes();
        let is_reserved = RESERVED.iter().any(|word| bytes == word.as_bytes());
        Quoted {
            word: self,
            always: is_reserved || bytes.contains(&b'='),
            may_be_nothing: false,
        }
    }

    fn or_nothing(self) -> Quoted<'a> {
        Quoted {
            word: self,
            always: false,
            may_be_nothing: true,
        }
    }
}

impl Display for Word<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let quoted = Quoted {
            word: *self,
            always: false,
            may_be_nothing: false,
        };
        quoted.fmt(f)
    }
}

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let bytes = self.word.0.as_bytes();
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(byte);
        match std::str::from_utf8(bytes) {
            Ok("") if self.may_be_nothing => Ok(()),
            Ok("") => f.write_str("''"),
            Ok(text) if !self.always && bytes.iter().all(is_plain) => f.write_str(text),
            _ => write_parts(bytes, f),
        }
    }
}

/// Writes the word as a sequence of quoted parts. A shell joins them.
fn write_parts(bytes: &[u8], f: &mut Formatter<'_>) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(first) = rest.chars().next() {
            let hides = is_hidden(first);
            let end = rest.find(|next| is_hidden(next) != hides).unwrap_or(rest.len());
            let (part, after) = rest.split_at(end);
            if hides {
                write_printf(part.as_bytes(), f)?;
            } else {
                write_quoted(part, f)?;
            }
            rest = after;
        }
        if !chunk.invalid().is_empty() {
            write_printf(chunk.invalid(), f)?;
        }
    }
    Ok(())
}

/// Whether a character is written through printf(1). A command substitution would remove a newline at its end.
fn is_hidden(character: char) -> bool {
    character.is_control() && character != '\n'
}

fn write_quoted(text: &str, f: &mut Formatter<'_>) -> fmt::Result {
    let mut is_open = false;
    for character in text.chars() {
        // A quote is outside of the quotes, behind a backslash.
        if is_open == (character == '\'') {
            f.write_char('\'')?;
            is_open = !is_open;
        }
        if character == '\'' {
            f.write_char('\\')?;
        }
        f.write_char(character)?;
    }
    if is_open { f.write_char('\'') } else { Ok(()) }
}

fn write_printf(bytes: &[u8], f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str("\"$(printf '")?;
    bytes.iter().try_for_each(|byte| write!(f, "\\{byte:03o}"))?;
    f.write_str("')\"")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn line(command: &Command) -> String {
        command.to_string()
    }

    #[test]
    fn words_are_quoted_only_where_a_shell_needs_it() {
        for (word, quoted) in [
            ("plain-1.0/a_b:c,d+e%f@g=h", "plain-1.0/a_b:c,d+e%f@g=h"),
            ("", "''"),
            ("a b", "'a b'"),
            ("$HOME", "'$HOME'"),
            ("*", "'*'"),
            ("~", "'~'"),
            ("#", "'#'"),
            ("it's", r"'it'\''s'"),
            ("'", r"\'"),
            ("a\nb", "'a\nb'"),
            ("ä", "'ä'"),
            ("a\u{1b}[0m", r#"'a'"$(printf '\033')"'[0m'"#),
            ("\u{85}", r#""$(printf '\302\205')""#),
        ] {
            assert_eq!(Word(OsStr::new(word)).to_string(), quoted);
        }
        let bytes = OsString::from_vec(b"a\xff\xfeb".to_vec());
        assert_eq!(
            Word(&bytes).to_string(),
            r#"'a'"$(printf '\377')""$(printf '\376')"'b'"#
        );
    }

    #[test]
    fn a_program_that_a_shell_would_execute_itself_is_executed_by_env() {
        assert_eq!(line(&Command::new("exit").arg("1")), "env exit 1");
        assert_eq!(line(&Command::new("if")), "'if'");
        assert_eq!(line(&Command::new("a=b").arg("c")), "'a=b' c");
        assert_eq!(line(&Command::new("echo").arg("x")), "echo x");
        assert_eq!(line(&Command::new("/bin/exit")), "/bin/exit");
    }

    #[test]
    fn an_environment_that_assignments_cannot_express_is_set_by_env() {
        let command = || Command::new("web");
        assert_eq!(line(&command().env("A", "").env("B", "x y")), "A= B='x y' web");
        assert_eq!(line(&command().env_clear().env("A", "1")), "env -i A=1 web");
        assert_eq!(line(&command().env("a.b", "1").env_remove("C")), "env -u C a.b=1 web");
        assert_eq!(line(&command().env("-a", "1")), "env -- -a=1 web");
        let keeps = command()
            .env_keep(["A", "B", "C", "odd.key"])
            .env("B", "2")
            .env_remove("C");
        assert_eq!(line(&keeps), r#"env -i ${A+"A=$A"} B=2 web"#);
        assert_eq!(line(&command().env_keep([""; 0])), "env -i web");
        assert_eq!(line(&Command::new("-web").env_clear()), "env -i -- -web");
        let odd = Command::new("./a=b").arg("x").env_clear();
        assert_eq!(line(&odd), "env -i sh -c 'exec \"$0\" \"$@\"' './a=b' x");
        assert_eq!(format!("{:#}", command().env_clear().env("SECRET", "x")), "web");
    }

    #[test]
    fn a_relative_directory_is_not_searched_for() {
        let into = |directory: &str| line(&Command::new("a").current_dir(directory));
        assert_eq!(into("sub dir"), "cd './sub dir' && a");
        assert_eq!(into("-"), "cd ./- && a");
        for plain in ["/", "./x", "../x", ".", ".."] {
            assert_eq!(into(plain), format!("cd {plain} && a"));
        }
        assert_eq!(into(""), "cd '' && a", "it exists nowhere");
    }
}
