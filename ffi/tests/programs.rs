//! The tests that are written in C and C++, against the shared library.

mod common;

use common::{compile, digits, run};

#[test]
fn the_smallest_program() {
    run(&compile("c/examples/five_lines.c", &[]), &[], &[]);
}

#[test]
fn softmax_regression() {
    let printed = run(&compile("c/examples/digits.c", &[]), &[], &digits());
    assert!(printed.starts_with(b"held-out accuracy 9"));
}

#[test]
fn threads_of_the_program() {
    let source = "c/examples/threads.c";
    let compiler = std::env::var("CC").unwrap_or("cc".into());
    let mut command = std::process::Command::new(compiler);
    command.args(["-fopenmp", "-fsyntax-only", "-I"]).arg(common::here().join("../include"));
    if !command.arg(common::here().join(source)).status().is_ok_and(|status| status.success()) {
        println!("skipped: the C compiler has no OpenMP");
        return;
    }
    run(&compile(source, &["-fopenmp"]), &[], &[]);
}

/// The names of the functions that the header declares, a line each.
fn functions() -> String {
    let header = std::fs::read_to_string(common::here().join("../include/koala.h")).unwrap();
    let names = header.lines().filter(|line| !line.starts_with(" *")).filter_map(|line| {
        let name = line.split_once('(')?.0.rsplit([' ', '*']).next()?;
        name.starts_with("koala_").then(|| format!("{name}\n"))
    });
    names.collect()
}

#[test]
fn misuse() {
    run(&compile("c/tests/misuse.c", &[]), &[], functions().as_bytes());
}

#[test]
fn misuse_together() {
    run(&compile("c/tests/misuse_together.c", &[]), &[], &[]);
}

#[test]
fn misuse_policies() {
    run(&compile("c/tests/misuse_policies.c", &[]), &[], &[]);
}

#[test]
fn misuse_of_methods() {
    run(&compile("c/tests/misuse_methods.c", &[]), &[], &[]);
}

#[test]
fn the_smallest_program_in_cpp() {
    run(&compile("cpp/examples/five_lines.cpp", &[]), &[], &[]);
}

#[test]
fn the_cpp_wrapper() {
    run(&compile("cpp/tests/wrapper.cpp", &[]), &[], &[]);
}

#[test]
#[ignore = "only what watches over memory sees it: .ci/memory.sh"]
fn a_lie_about_a_length() {
    run(&compile("c/tests/lie.c", &[]), &[], &[]);
}
