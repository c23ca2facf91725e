//! The tests that are written in C and C++, against the shared library.

mod common;

use common::{compile, run};

#[test]
fn the_smallest_program() {
    run(&compile("c/examples/five_lines.c", &[]), &[], &[]);
}
