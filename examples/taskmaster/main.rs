//! Taskmaster.
mod config;
mod control;
mod names;
mod output;
mod report;
fn main() {
    let path = std::env::args().nth(1).unwrap_or_default();
    match config::load(std::path::Path::new(&path)) {
        Ok(config) => println!("{config:#?}"),
        Err(errors) => {
            for e in errors {
                println!("{e}")
            }
        }
    }
}
