//! The tests that are written in C and C++, against the shared library.

mod common;
#[path = "../../tests/common/compiled.rs"]
mod compiled;

use std::path::{Path, PathBuf};

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

/// The names of the functions that the header declares, a line each: those of CUDA, or all others.
fn functions(of_cuda: bool) -> String {
    let header = std::fs::read_to_string(common::here().join("../include/koala.h")).unwrap();
    let names = header.lines().filter(|line| !line.starts_with(" *")).filter_map(|line| {
        let name = line.split_once('(')?.0.rsplit([' ', '*']).next()?;
        let wanted = name.starts_with("koala_") && name.starts_with("koala_cuda_") == of_cuda;
        wanted.then(|| format!("{name}\n"))
    });
    names.collect()
}

#[test]
fn misuse() {
    run(&compile("c/tests/misuse.c", &[]), &[], functions(false).as_bytes());
}

#[test]
fn misuse_together() {
    run(&compile("c/tests/misuse_together.c", &[]), &[], &[]);
}

#[test]
fn promises_of_memory_and_of_the_environment() {
    if ["KOALA_TEST_FLAGS", "KOALA_TEST_RUNNER"].iter().any(|name| std::env::var_os(name).is_some()) {
        println!("skipped: what watches over memory has an allocator of its own");
        return;
    }
    run(&compile("c/tests/promises.c", &["-pthread"]), &[], &[]);
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
fn misuse_of_checkpoints() {
    run(&compile("c/tests/misuse_checkpoint.c", &[]), &[], &[]);
}

#[test]
fn misuse_of_cuda() {
    let program = compile("c/tests/misuse_cuda.c", &[]);
    run(&program, &[], functions(true).as_bytes());
    if let Some(driver) = driver(&program) {
        run(&program, &[driver.to_str().unwrap()], functions(true).as_bytes());
    }
}

#[test]
fn a_step_on_a_gpu() {
    let program = compile("c/examples/cuda.c", &[]);
    let printed = String::from_utf8(run(&program, &[], &[])).unwrap();
    assert!(printed.starts_with("cuda: ") || printed.contains("there is no CUDA d"), "{printed}");
    if let Some(driver) = driver(&program) {
        let path = format!("LD_LIBRARY_PATH={}", driver.parent().unwrap().display());
        let printed = run(Path::new("/usr/bin/env"), &[&path, program.to_str().unwrap()], &[]);
        let on_cpu = String::from_utf8(run(&compile("c/examples/five_lines.c", &[]), &[], &[])).unwrap();
        let (_, numbers) = on_cpu.split_once(": ").unwrap();
        assert_eq!(String::from_utf8(printed).unwrap(), format!("cuda: {numbers}"));
    }
}

/// A driver of our own beside a program, by the name of NVIDIA's; `None` where there is no g++.
fn driver(program: &Path) -> Option<PathBuf> {
    let driver = program.with_file_name("libcuda.so.1");
    let built = compiled::build(&driver, &compiled::DRIVER, &["-Wl,-soname,libcuda.so.1"]);
    built.then_some(driver)
}

#[test]
fn a_process_that_was_forked() {
    run(&compile("c/tests/fork.c", &[]), &[], &[]);
}

#[test]
fn the_smallest_program_in_cpp() {
    run(&compile("cpp/examples/five_lines.cpp", &[]), &[], &[]);
}

#[test]
fn the_cpp_wrapper() {
    run(&compile("cpp/tests/wrapper.cpp", &[]), &[], &[]);
}

/// The options for Eigen's headers; `None` where they are not.
fn eigen() -> Option<[&'static str; 2]> {
    let folder = "/usr/include/eigen3";
    let found = Path::new(folder).exists();
    if !found {
        println!("skipped: Eigen is not in {folder}");
    }
    found.then_some(["-isystem", folder])
}

#[test]
fn matrices_of_eigen() {
    if let Some(eigen) = eigen() {
        run(&compile("cpp/tests/eigen.cpp", &eigen), &[], &[]);
    }
}

#[test]
fn what_is_no_buffer_does_not_compile() {
    let Some(eigen) = eigen() else { return };
    let unknown_order = "the storage order of the parameters";
    let (gaps, orders) = ("one after another", "row-major and another column-major");
    // What the compiler says; the words are its own where a type has no elements at all.
    let refused = [
        "deque",
        "list",
        "vector<bool",
        gaps,
        gaps,
        "float [3]",
        orders,
        orders,
        orders,
        orders,
        unknown_order,
        unknown_order,
        unknown_order,
        "data",
        "Reverse",
        "parameters are written",
    ];
    let compiler = std::env::var("CXX").unwrap_or("c++".into());
    for (standard, cases) in [("c++17", 0..=refused.len()), ("c++20", 0..=5)] {
        for case in cases {
            let mut command = std::process::Command::new(&compiler);
            command.args(["-fsyntax-only", &format!("-std={standard}"), &format!("-DREFUSED={case}")]).args(eigen);
            command.arg("-I").arg(common::here().join("../include"));
            let done = command.arg(common::here().join("cpp/tests/refused.cpp")).output().unwrap();
            let text = String::from_utf8_lossy(&done.stderr);
            assert_eq!(done.status.success(), case == 0, "case {case}, {standard}: {text}");
            let word = if case == 0 { "" } else { refused[case - 1] };
            assert!(text.replace("float[3]", "float [3]").contains(word), "case {case}, {standard}: {text}");
        }
    }
}

#[test]
#[ignore = "only what watches over memory sees it: .ci/memory.sh"]
fn a_lie_about_a_length() {
    run(&compile("c/tests/lie.c", &[]), &[], &[]);
}
