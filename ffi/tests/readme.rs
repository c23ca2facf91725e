//! The README's programs in C and C++ are the examples, which `programs.rs` runs.

#[allow(dead_code)]
mod common;

#[test]
fn the_readme_shows_the_examples() {
    let read = |path: &str| std::fs::read_to_string(common::here().join(path)).unwrap();
    let readme = read("../README.md");
    for (language, example) in [("c", "c/examples/five_lines.c"), ("cpp", "cpp/examples/five_lines.cpp")] {
        let shown = readme.split(&format!("```{language}\n")).nth(1).and_then(|rest| rest.split("```").next());
        assert_eq!(shown, Some(&*read(example)), "{example}");
    }
    assert!(read("c/examples/five_lines.c").lines().count() <= 25);
}
