//! The README's programs in C and C++ are the examples, which `programs.rs` runs; its other lines of C compile.

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

#[test]
fn the_readmes_other_lines_of_c_compile() {
    let readme = std::fs::read_to_string(common::here().join("../README.md")).unwrap();
    let blocks: Vec<&str> = readme.split("```c\n").skip(2).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 1);
    let head = "#include <koala.h>\n\nint main(void) {\n  koala_optimizer *optimizer = NULL;\n";
    common::compile_text("readme.c", &format!("{head}{}  return optimizer == NULL;\n}}\n", blocks[0]));
}
