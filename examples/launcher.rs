//! A host without a supervisor: each line of its input is a shell command. At most four of them, or the given number,
//! run at a time, and each is printed with its exit when it has ended.
use pidherd::{Child, Command, LaunchId, Launcher, Stdio};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{read, retry_on_intr};
use std::collections::{HashMap, VecDeque};
use std::io::{Write, stdin, stdout};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let most: usize = std::env::args().nth(1).map_or(Ok(4), |text| text.parse())?;
    let mut launcher = Launcher::new()?;
    let (mut lines, mut rest) = (VecDeque::<String>::new(), Some(Vec::new()));
    let mut begun = HashMap::<LaunchId, String>::new();
    let mut running = Vec::<(String, Child)>::new();
    loop {
        while launcher.in_flight() + running.len() < most.max(1) {
            let Some(line) = lines.pop_front() else { break };
            let shell = Command::new("/bin/sh").args(["-c", &line]).stdin(Stdio::null());
            match launcher.begin(&shell.compile()?) {
                Ok(id) => drop(begun.insert(id, line)),
                Err(error) => writeln!(stdout(), "{error}: {line}")?,
            }
        }
        // More is read when there is nothing left to begin, so that the rest waits in the pipe.
        let reads = rest.is_some() && lines.is_empty();
        if !reads && launcher.in_flight() + running.len() + lines.len() == 0 {
            return Ok(());
        }
        let input = stdin();
        let mut fds = vec![PollFd::new(&launcher, PollFlags::IN)];
        fds.extend(
            running
                .iter()
                .map(|(_, child)| PollFd::new(child.pidfd(), PollFlags::IN)),
        );
        fds.extend(reads.then(|| PollFd::new(&input, PollFlags::IN)));
        retry_on_intr(|| poll(&mut fds, None))?;
        if reads && fds.last().is_some_and(|fd| !fd.revents().is_empty()) {
            rest = read_lines(rest.unwrap_or_default(), &mut lines)?;
        }
        while let Some((id, outcome)) = launcher.finish() {
            let line = begun.remove(&id).unwrap_or_default();
            match outcome {
                Ok(child) => running.push((line, child)),
                Err(error) => writeln!(stdout(), "{error}: {line}")?,
            }
        }
        for (line, mut child) in std::mem::take(&mut running) {
            match child.try_wait()? {
                Some(record) => writeln!(stdout(), "{}: {line}", record.exit)?,
                None => running.push((line, child)),
            }
        }
    }
}

/// Reads once, without waiting if there is something. What follows the last line is returned; at the end of the input
/// it is a line too, and `None` is returned.
fn read_lines(mut text: Vec<u8>, lines: &mut VecDeque<String>) -> Result<Option<Vec<u8>>> {
    let mut chunk = [0; 4096];
    let length = retry_on_intr(|| read(stdin(), &mut chunk))?;
    text.extend(chunk.iter().take(length));
    let at_end = length == 0 && !text.is_empty();
    let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let rest = text.split_off(if at_end { text.len() } else { whole });
    lines.extend(String::from_utf8(text)?.lines().map(str::to_owned));
    Ok((length > 0).then_some(rest))
}
