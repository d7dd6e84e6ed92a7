//! What README shows is what there is.

#[test]
fn the_host_in_the_readme_is_the_example_and_has_fifty_lines_at_most() {
    let (readme, example) = (include_str!("../README.md"), include_str!("../examples/epoll.rs"));
    assert!(example.lines().count() <= 50, "{} lines", example.lines().count());
    assert!(
        readme.contains(&format!("```rust\n{example}```\n")),
        "README shows another host than examples/epoll.rs"
    );
}
