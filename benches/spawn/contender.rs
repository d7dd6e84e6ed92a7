//! What all contenders have in common.

/// The contenders, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    This,
    Limit,
    Std,
    PosixSpawn,
    Tokio,
    AsyncProcess,
}

impl Name {
    pub const ALL: [Name; 6] = [
        Name::This,
        Name::Limit,
        Name::Std,
        Name::PosixSpawn,
        Name::Tokio,
        Name::AsyncProcess,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Name::This => "pidherd",
            Name::Limit => "limit",
            Name::Std => "std",
            Name::PosixSpawn => "posix_spawn",
            Name::Tokio => "tokio",
            Name::AsyncProcess => "async-process",
        }
    }
}

/// One way to start the program, for one case.
pub trait Contender {
    fn name(&self) -> Name;

    /// Whether this contender uses fork(2) for this case.
    fn forks(&self) -> bool {
        false
    }

    /// Starts the program, reaps it, and closes every descriptor that was opened for it. Ends the benchmark
    /// if any of this fails.
    fn run(&mut self);
}

/// Ends the benchmark if the operation failed: the time of a failed operation is meaningless.
pub fn must<T, E: std::fmt::Display>(name: Name, result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| give_up(name, &error.to_string()))
}

pub fn give_up(name: Name, error: &str) -> ! {
    eprintln!("{}: {error}", name.as_str());
    std::process::exit(1);
}
