//! Carries out the commands.
//!
//! The texts are those of supervisorctl where it has the command. A line begins with `ok:` or `error:` for the
//! programs that read it, except in tables and in the lines of a log.

use super::model::{App, Asker};
use crate::command::{Command, Help, Part, overview};
use crate::config::{Channel, Config};
use crate::herd::{Refused, Verb};
use crate::report;
use crate::rpc::log_end;

impl App {
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Status(names) => self.show_status(&names),
            Command::Start(names) => self.apply(Verb::Start, &names),
            Command::Stop(names) => self.apply(Verb::Stop, &names),
            Command::Restart(names) => self.apply(Verb::Restart, &names),
            Command::Signal(signal, names) => self.apply(Verb::Signal(signal), &names),
            Command::Scale(group, count) => {
                let answer = self.herd.scale(&group, count);
                self.answer(&answer);
            }
            Command::Pid(names) => self.show_pids(&names),
            Command::Top => {
                let begun = self.begin_top();
                self.answer_error("top", begun);
            }
            Command::Tail(name, channel, part) => {
                let shown = self.show_log(&name, channel, part);
                self.answer_error("tail", shown);
            }
            Command::MainTail(part) => {
                let shown = self.show_own_log(part);
                self.answer_error("maintail", shown);
            }
            Command::Foreground(name) => {
                let begun = self.begin_foreground(&name);
                self.answer_error("fg", begun);
            }
            Command::Clear(names) => self.clear_logs(&names),
            Command::Avail => self.show_available(),
            Command::Reread => self.reread(),
            Command::Update(names) => self.update(&names),
            Command::Add(names) => self.add_groups(&names),
            Command::Remove(names) => self.remove_groups(&names),
            Command::Reload => {
                let answer = self.reload().map(|line| format!("reload: {line}"));
                self.answer(&answer);
            }
            Command::Reexec => {
                let error = self.reexec(Asker::Command);
                self.answer(&Err(error));
            }
            Command::Shutdown => self.begin_shutdown(),
            Command::Quit => self.quit(),
            Command::Version => self.console.say(env!("CARGO_PKG_VERSION")),
            Command::Help(about) => self.help(about),
        }
    }

    /// Answers after a command that may have changed the widest name.
    fn answer(&mut self, answer: &Result<String, String>) {
        self.console.set_width(self.herd.widest_name());
        self.console.answer(answer);
    }

    fn answer_error(&mut self, command: &str, result: Result<(), String>) {
        if let Err(error) = result {
            self.console.answer(&Err(format!("{command}: {error}")));
        }
    }

    fn help(&mut self, about: Option<&'static Help>) {
        let lines = about.map_or_else(overview, Help::lines);
        let room = self.console.size().map_or(usize::MAX, |(columns, _)| columns);
        let lines = lines.iter().flat_map(|line| report::wrapped(line, room));
        lines.for_each(|line| self.console.say(&line));
    }

    fn show_status(&mut self, names: &[String]) {
        let mut rows = Vec::new();
        let mut errors = Vec::new();
        if names.is_empty() {
            rows.extend(self.herd.status(None).unwrap_or_default());
        }
        for name in names {
            match self.herd.status(Some(name)) {
                Ok(found) => rows.extend(found),
                Err(error) => errors.push(error),
            }
        }
        if rows.is_empty() && errors.is_empty() {
            self.console.answer(&Ok("status: no processes".to_owned()));
        }
        self.console.table(&rows);
        for error in errors {
            self.console.answer(&Err(error));
        }
    }

    fn apply(&mut self, verb: Verb, names: &[String]) {
        for name in names {
            let answer = self.herd.apply(verb, name);
            self.answer(&answer);
        }
    }

    fn show_pids(&mut self, names: &[String]) {
        if names.is_empty() {
            return self.console.say(&std::process::id().to_string());
        }
        for name in names {
            match self.herd.chosen(name) {
                Ok(chosen) => {
                    let pids = chosen.into_iter().filter_map(|id| self.herd.info(id));
                    let pids: Vec<String> = pids.map(|info| info.pid.to_string()).collect();
                    pids.iter().for_each(|pid| self.console.say(pid));
                }
                Err(error) => self.console.answer(&Err(error)),
            }
        }
    }

    fn show_log(&mut self, name: &str, channel: Channel, part: Part) -> Result<(), String> {
        let id = self.herd.chosen_one(name)?;
        let path = self.herd.log_of(id, channel)?;
        self.show_end(&path, part)
    }

    fn show_own_log(&mut self, part: Part) -> Result<(), String> {
        let path = self.console.own_log().map(|log| log.path().to_owned());
        let path = path.ok_or("there is no log file: [supervisord] has no logfile")?;
        self.show_end(&path, part)
    }

    fn show_end(&mut self, path: &std::path::Path, part: Part) -> Result<(), String> {
        match part {
            Part::Following => self.begin_follow(path, None),
            Part::Last(bytes) => {
                let text = log_end(path, bytes)
                    .map_err(|error| format!("cannot read {}: {}", path.display(), crate::files::reason(error)))?;
                text.lines().for_each(|line| self.console.say(line));
                Ok(())
            }
        }
    }

    fn clear_logs(&mut self, names: &[String]) {
        for name in names {
            let chosen = match self.herd.chosen(name) {
                Ok(chosen) => chosen,
                Err(error) => {
                    self.console.answer(&Err(error));
                    continue;
                }
            };
            for id in chosen {
                let cleared = self.herd.clear_logs(id);
                self.console.answer(&cleared.map(|name| format!("{name}: cleared")));
            }
        }
    }

    fn show_available(&mut self) {
        let all = self.herd.available();
        if all.is_empty() {
            self.console.answer(&Ok("avail: no processes".to_owned()));
        }
        for process in all {
            let in_use = if process.in_use { "in use" } else { "avail" };
            let autostart = if process.autostart { "auto" } else { "manual" };
            let (group, program) = process.priorities;
            let name = report::padded(&process.name, 32);
            self.console
                .say(&format!("{name} {in_use:<9} {autostart:<9} {group}:{program}"));
        }
    }

    /// Reads the configuration, without the changes of the herd.
    fn staged_config(&mut self) -> Result<Config, String> {
        if self.herd.is_closing() {
            return Err("shutting down".to_owned());
        }
        let config = self.read_again()?;
        config.notes.iter().for_each(|note| self.console.warn(note));
        Ok(config)
    }

    fn reread(&mut self) {
        let differences = self.staged_config().and_then(|config| self.herd.stage(config));
        let differences = match differences {
            Ok(differences) => differences,
            Err(error) => return self.console.answer(&Err(format!("reread: {error}"))),
        };
        let with = |names: Vec<String>, what: &'static str| names.into_iter().map(move |name| (name, what));
        let mut lines: Vec<(String, &str)> = with(differences.added, "available")
            .chain(with(differences.changed, "changed"))
            .chain(with(differences.removed, "disappeared"))
            .collect();
        lines.sort();
        if lines.is_empty() {
            self.console.answer(&Ok("No config updates to processes".to_owned()));
        }
        for (name, what) in lines {
            self.console.answer(&Ok(format!("{name}: {what}")));
        }
    }

    fn update(&mut self, names: &[String]) {
        let changes = self
            .staged_config()
            .and_then(|config| self.herd.update_groups(&config, names));
        match changes {
            Ok(changes) if changes.is_empty() => self.answer(&Ok("No config updates to processes".to_owned())),
            Ok(changes) => {
                for (name, what) in changes {
                    self.answer(&Ok(format!("{name}: {what}")));
                }
            }
            Err(error) => self.console.answer(&Err(format!("update: {error}"))),
        }
    }

    fn add_groups(&mut self, names: &[String]) {
        for name in names {
            let answer = if self.herd.is_closing() {
                Err("shutting down".to_owned())
            } else {
                match self.herd.add_group(name) {
                    Ok(()) => Ok(format!("{name}: added process group")),
                    Err(Refused::Present) => Err(format!("process group already active: {name}")),
                    Err(_) => Err(format!("no such process/group: {name}{}", self.meant_group(name))),
                }
            };
            self.answer(&answer);
        }
    }

    fn remove_groups(&mut self, names: &[String]) {
        for name in names {
            let answer = match self.herd.remove_group(name) {
                Ok(()) => Ok(format!("{name}: removed process group")),
                Err(Refused::Running) => Err(format!("process/group still running: {name}")),
                Err(_) => Err(format!("no such process/group: {name}{}", self.meant_group(name))),
            };
            self.answer(&answer);
        }
    }

    fn meant_group(&self, name: &str) -> String {
        crate::suggest::did_you_mean(name, self.herd.known_groups().into_iter())
    }

    fn begin_shutdown(&mut self) {
        if self.herd.is_closing() {
            return self.console.answer(&Ok("shutdown: already in progress".to_owned()));
        }
        self.herd.shut_down();
        self.answer(&Ok("shutdown: started".to_owned()));
    }

    fn quit(&mut self) {
        self.commands.clear();
        if let Err(error) = self.end_input() {
            return self.console.answer(&Err(format!("quit: {error}")));
        }
        if !self.input.is_terminal() {
            self.console.answer(&Ok(
                "quit: no more commands are read; the programs run until SIGTERM".to_owned()
            ));
        }
    }
}
