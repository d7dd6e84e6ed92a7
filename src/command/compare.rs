//! What a supervisor asks about a command.

use super::Command;

impl Command {
    /// Whether the child leads a process group of its own: only then can the group be signalled
    /// without reaching the host.
    #[must_use]
    pub fn leads_process_group(&self) -> bool {
        self.process_group == Some(0) || self.setsid == Some(true)
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
    }

    #[test]
    fn an_environment_is_told_from_a_command() {
        let command = || Command::new("a").arg("b");
        assert!(command().differs_only_in_environment(&command().env("C", "d")));
        assert!(!command().differs_only_in_environment(&command()));
        assert!(!command().differs_only_in_environment(&command().arg("e").env("C", "d")));
    }
}
