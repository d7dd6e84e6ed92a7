//! The README's code is the same as the example's.

#[test]
fn the_readme_shows_the_epoll_example_which_has_at_most_fifty_lines() {
    let (readme, example) = (include_str!("../../README.md"), include_str!("../../examples/epoll.rs"));
    assert!(example.lines().count() <= 50, "{} lines", example.lines().count());
    assert!(
        readme.contains(&format!("```rust,no_run\n{example}```\n")),
        "README.md and examples/epoll.rs show different code"
    );
}
