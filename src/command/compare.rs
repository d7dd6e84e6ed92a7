//! What a supervisor asks about a command.

use super::{Command, ProcessGroup};

impl Command {
    /// Whether the command makes the child the leader of a process group: only then can the group be signalled
    /// without reaching the host.
    #[must_use]
    pub fn leads_process_group(&self) -> bool {
        let has_session = self.setsid == Some(true) || self.settings.controlling_terminal.is_some();
        self.process_group == Some(ProcessGroup::Number(0)) || has_session
    }

    /// The same command with a process group of its own, unless it says which process group it is to be in.
    pub(crate) fn or_own_process_group(mut self) -> Command {
        self.process_group.get_or_insert(ProcessGroup::Number(0));
        self
    }

    /// Whether `other` is the same command but for the environment of its child.
    #[must_use]
    pub fn differs_only_in_environment(&self, other: &Command) -> bool {
        let with_this_environment = Command {
            env: self.env.clone(),
            ..other.clone()
        };
        self.env != other.env && *self == with_this_environment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_its_own_is_asked_for_or_comes_with_a_session() {
        let command = || Command::new("a");
        assert!(!command().leads_process_group());
        assert!(!command().process_group(77).leads_process_group());
        assert!(command().process_group(0).leads_process_group());
        assert!(command().setsid(true).leads_process_group());
        assert!(command().controlling_terminal(0).leads_process_group());
    }

    #[test]
    fn a_group_of_its_own_is_the_default_of_a_supervisor_alone() {
        let command = || Command::new("a");
        assert_eq!(command().or_own_process_group(), command().process_group(0));
        for said in [
            command().inherit_process_group(),
            command().process_group(77),
            command().process_group(0),
        ] {
            assert_eq!(said.clone().or_own_process_group(), said);
        }
        assert!(!command().inherit_process_group().leads_process_group());
    }

    #[test]
    fn an_environment_is_told_from_a_command() {
        let command = || Command::new("a").arg("b");
        assert!(command().differs_only_in_environment(&command().env("C", "d")));
        assert!(!command().differs_only_in_environment(&command()));
        assert!(!command().differs_only_in_environment(&command().arg("e").env("C", "d")));
    }
}
