//! The command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use pidherd::Signal;

/// One line, for a command line that is wrong.
pub const USAGE: &str = "usage: init COMMAND [ARGUMENT...] (init --help shows the options)";

const HELP: &str = "\
usage: init [OPTION...] [--] COMMAND [ARGUMENT...]

Runs COMMAND, passes signals on to it, reaps orphans, and ends as COMMAND ends.

  -g           pass signals on to the process group of COMMAND
  -p SIGNAL    get SIGNAL when the parent of init ends; COMMAND gets it when init ends
  -t SECONDS   what remains when COMMAND has ended gets SIGTERM, and SIGKILL after
               this time; 5 if not given
  -h, --help   show this text
  --version    show the version

Exit status: that of COMMAND, 128 + N if signal N ended it, 127 if it is not found,
126 if it cannot be executed, 125 for an error of init itself.
";

const VERSION: &str = concat!("init (pidherd) ", env!("CARGO_PKG_VERSION"), "\n");

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    Run(Options),
    Show(&'static str),
}

/// How to run which command.
#[derive(Debug)]
pub struct Options {
    pub program: OsString,
    pub arguments: Vec<OsString>,
    /// Whether signals go to the process group of the command.
    pub whole_group: bool,
    pub parent_death_signal: Option<Signal>,
    /// How long what remains has between SIGTERM and SIGKILL.
    pub patience: Duration,
}

/// Reads the arguments of init. The first that is no option is the command.
///
/// # Errors
/// What is wrong with them.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let mut arguments = arguments.into_iter();
    let mut options = Options {
        program: OsString::new(),
        arguments: Vec::new(),
        whole_group: false,
        parent_death_signal: None,
        patience: Duration::from_secs(5),
    };
    let first = loop {
        let argument = arguments.next();
        match argument.as_deref().map(OsStr::as_bytes) {
            Some(b"--") => break arguments.next(),
            Some(b"--help") => return Ok(Request::Show(HELP)),
            Some(b"--version") => return Ok(Request::Show(VERSION)),
            Some([b'-', b'-', ..]) => return Err(format!("unknown option {:?}", argument.unwrap_or_default())),
            Some([b'-', letters @ ..]) if !letters.is_empty() => {
                if let Some(text) = options.take_letters(letters, &mut arguments)? {
                    return Ok(Request::Show(text));
                }
            }
            _ => break argument,
        }
    };
    options.program = first.ok_or("no command is given")?;
    options.arguments = arguments.collect();
    Ok(Request::Run(options))
}

impl Options {
    /// Takes options of one letter that stand behind one dash. A value is the rest of the argument, or the next one.
    fn take_letters(
        &mut self,
        mut letters: &[u8],
        others: &mut impl Iterator<Item = OsString>,
    ) -> Result<Option<&'static str>, String> {
        while let Some((&letter, rest)) = letters.split_first() {
            letters = rest;
            match letter {
                b'g' => self.whole_group = true,
                b'h' => return Ok(Some(HELP)),
                b'p' | b't' => {
                    let value = match rest {
                        [] => others.next(),
                        rest => Some(OsString::from_vec(rest.to_owned())),
                    };
                    let value = value.ok_or_else(|| format!("option -{} needs a value", letter as char))?;
                    self.take_value(letter, &value.to_string_lossy())?;
                    return Ok(None);
                }
                other => return Err(format!("unknown option \"-{}\"", other.escape_ascii())),
            }
        }
        Ok(None)
    }

    fn take_value(&mut self, letter: u8, value: &str) -> Result<(), String> {
        if letter == b'p' {
            let signal = value.parse().map_err(|error| format!("option -p: {error}"))?;
            self.parent_death_signal = Some(signal);
            return Ok(());
        }
        let seconds = value
            .parse()
            .ok()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        self.patience = seconds.ok_or_else(|| format!("option -t: {value:?} is no number of seconds"))?;
        Ok(())
    }
}
