//! The cases: what each of them sets in the child.

/// The settings that the child gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    Plain,
    UmaskAndDirectory,
    TwoPipes,
    Ids,
}

impl Case {
    pub const ALL: [Case; 4] = [Case::Plain, Case::UmaskAndDirectory, Case::TwoPipes, Case::Ids];

    pub fn name(self) -> &'static str {
        match self {
            Case::Plain => "plain",
            Case::UmaskAndDirectory => "umask+cwd",
            Case::TwoPipes => "two-pipes",
            Case::Ids => "uid+gid",
        }
    }
}

/// The values of these settings.
pub const UMASK: u32 = 0o027;
pub const DIRECTORY: &str = "/";
pub const UID: u32 = 65_534;
pub const GID: u32 = 65_534;
