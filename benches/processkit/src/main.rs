//! Starts and stops this many children of a program with processkit, and prints the seconds that both took.
//!
//! `pidherd-bench-processkit NUMBER PROGRAM [ARGUMENT]...`

use std::error::Error;
use std::time::Instant;

use processkit::{Command, StdioMode};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let number = args.next().and_then(|number| number.to_str()?.parse::<usize>().ok());
    let (Some(number), Some(program)) = (number, args.next()) else {
        return Err("usage: pidherd-bench-processkit NUMBER PROGRAM [ARGUMENT]...".into());
    };
    // No pipes: no other contender has any.
    let command = Command::new(program)
        .args(args)
        .env_clear()
        .stdout(StdioMode::Null)
        .stderr(StdioMode::Null);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let began = Instant::now();
        let mut children = Vec::with_capacity(number);
        for _ in 0..number {
            children.push(command.start().await?);
        }
        let start = began.elapsed();
        let began = Instant::now();
        for child in &mut children {
            child.start_kill()?;
        }
        for child in children {
            child.wait().await?;
        }
        println!("{} {}", start.as_secs_f64(), began.elapsed().as_secs_f64());
        Ok(())
    })
}
